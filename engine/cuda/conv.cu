/* Causal convolutions along the tokens of a sequence, each channel by itself, and what recurrent
 * layers keep of a sequence between steps. A state has the rows of the input that a later row
 * sees, float32, as in the CPU engine: that at position pos is row pos % conv_state_rows(width).
 *
 * A step reads inputs from its own rows, and those before its first one from the state; then
 * checkpoints are written, from both; then the state. Nothing depends on how a text is cut into steps. */
#include "engine/cuda/kernels.h"
#include "engine/cuda/vec.cuh"

enum { THREADS = 128 };

/* Where an entry's inputs are. */
template <class T> struct conv_entry {
    const T *in;        /* its first row's */
    const float *state; /* of its slot */
    int first_pos;
};

template <class T> struct conv_args {
    cu_conv c;
    cu_tables tables;
    uint32_t ld, ring; /* columns of in; rows of a state */
    const T *in;
    T *out;
};

template <class T>
CU_DEVICE conv_entry<T> conv_entry_of(const conv_args<T> &a, uint32_t entry) {
    const int32_t slot = a.c.states.slot[entry];
    conv_entry<T> e;
    e.in = a.in + (size_t)(uint32_t)a.tables.first_row[entry] * a.ld;
    e.state = a.c.states.base + (size_t)(slot < 0 ? 0 : slot) * a.c.states.stride;
    e.first_pos = a.tables.first_pos[entry];
    return e;
}

/* The input of the r-th row of the entry: x, or b * x. */
template <class T>
CU_DEVICE float conv_take(const conv_args<T> &a, const conv_entry<T> &e, int r, uint32_t ch) {
    const T *x = e.in + (size_t)(uint32_t)r * a.ld + ch;
    return a.c.gated ? cu_to_float(x[0]) * cu_to_float(x[2 * (size_t)a.c.channels])
                     : cu_to_float(x[0]);
}
/* The input at a position up to that of the entry's last row; 0 before the text. */
template <class T>
CU_DEVICE float conv_input(const conv_args<T> &a, const conv_entry<T> &e, int pos,
                           uint32_t ch) {
    if (pos < 0) return 0.0f;
    if (pos >= e.first_pos) return conv_take(a, e, pos - e.first_pos, ch);
    return e.state[(size_t)((uint32_t)pos % a.ring) * a.c.channels + ch];
}

/* Grid: rows, channels. */
template <class T> static __global__ void __launch_bounds__(THREADS) k_conv(conv_args<T> a) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t row = blockIdx.x, ch = blockIdx.y * THREADS + threadIdx.x;
    const int pos = a.tables.pos[row];
    if (ch >= a.c.channels) return;
    T *out = a.out + (size_t)row * a.c.channels + ch;
    if (pos < 0) {
        *out = cu_from_float(0.0f, T());
        return;
    }
    const conv_entry<T> e = conv_entry_of(a, (uint32_t)a.tables.entry[row]);
    const float *w = a.c.w + (size_t)ch * a.c.width;
    float y = 0.0f;
    for (uint32_t k = 0; k < a.c.width; k++)
        y = fmaf(w[k], conv_input(a, e, pos - (int)(a.c.width - 1 - k), ch), y);
    if (a.c.bias) y += a.c.bias[ch];
    if (a.c.silu) y = cu_gated(ACT_SILU, y, 1.0f);
    if (a.c.gated) y *= cu_to_float(a.in[(size_t)row * a.ld + a.c.channels + ch]);
    *out = cu_from_float(y, T());
}

/* Grid: checkpoints, channels. */
template <class T>
static __global__ void __launch_bounds__(THREADS) k_conv_checkpoint(conv_args<T> a) {
    cu_grid_trigger();
    cu_grid_wait();
    const int32_t *x = a.c.states.checkpoints + 3 * (size_t)blockIdx.x;
    const uint32_t ch = blockIdx.y * THREADS + threadIdx.x;
    if (x[0] < 0 || ch >= a.c.channels) return;
    const conv_entry<T> e = conv_entry_of(a, (uint32_t)x[0]);
    float *to = a.c.states.base + (size_t)(uint32_t)x[2] * a.c.states.stride;
    for (int k = 1; k < (int)a.c.width && k <= x[1]; k++)
        to[(size_t)((uint32_t)(x[1] - k) % a.ring) * a.c.channels + ch] =
            conv_input(a, e, x[1] - k, ch);
}

/* The last rows of each entry into its state. Grid: entries, channels. */
template <class T>
static __global__ void __launch_bounds__(THREADS) k_conv_state(conv_args<T> a) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t entry = blockIdx.x, ch = blockIdx.y * THREADS + threadIdx.x;
    const int n = a.tables.n_rows[entry], slot = a.c.states.slot[entry];
    if (n == 0 || slot < 0 || ch >= a.c.channels) return;
    const conv_entry<T> e = conv_entry_of(a, entry);
    float *to = a.c.states.base + (size_t)(uint32_t)slot * a.c.states.stride;
    for (int r = n > (int)a.ring ? n - (int)a.ring : 0; r < n; r++)
        to[(size_t)((uint32_t)(e.first_pos + r) % a.ring) * a.c.channels + ch] =
            conv_take(a, e, r, ch);
}

cudaError_t cu_conv_run(cudaStream_t s, const cu_conv *c, const cu_tables *tables,
                        uint32_t n_rows, uint32_t n_seqs) {
    if (c->width == 0 || c->width > CU_CONV_MOST) return cudaErrorInvalidValue;
    if (n_rows == 0 || c->channels == 0) return cudaSuccess;
    const uint32_t blocks = cu_ceil_div(c->channels, (uint32_t)THREADS);
    return cu_by_type(c->t, [&](auto type) {
        using T = decltype(type);
        const conv_args<T> a = {*c,
                                *tables,
                                c->gated ? 3 * c->channels : c->channels,
                                conv_state_rows(c->width),
                                (const T *)c->in,
                                (T *)c->out};
        CU_LAUNCH_EARLY((k_conv<T>), dim3(n_rows, blocks), THREADS, 0, s, a);
        if (c->states.n_checkpoints)
            CU_LAUNCH_EARLY((k_conv_checkpoint<T>), dim3(c->states.n_checkpoints, blocks),
                            THREADS, 0, s, a);
        CU_LAUNCH_EARLY((k_conv_state<T>), dim3(n_seqs, blocks), THREADS, 0, s, a);
        return cudaGetLastError();
    });
}
