/* Layers whose state is a matrix for each head: the gated delta rule (Yang, Kautz, Hatamizadeh, "Gated
 * Delta Networks", section 3) and Mamba-2's selective scan (Dao, Gu, "Transformers are SSMs", section 6),
 * in the form of the recurrence, a row after the other:
 *
 *     delta:  S = e^g S, then n = beta (v - S^T k);  scan:  S = e^g S, n = dt v
 *     S = S + k n^T,  o = S^T q  (scan: + w2 v)
 *
 * A slot has S behind the last full chunk of STATE_CHUNK positions and, of the rows since, k, n and g: a
 * step adds these to S first, as the steps did that left them, and writes S where a chunk ends. So rows
 * of the last chunk can be undone, and a row's bits depend neither on how a text is cut into steps nor on
 * other texts.
 *
 * A block has a value head of an entry, with S in shared memory; a thread has a column of S. */
#include "engine/cuda/kernels.h"
#include "engine/cuda/vec.cuh"

/* What a slot has, in floats from the operation's first one. */
struct recur_place {
    uint32_t k, n, g; /* [key_heads][STATE_CHUNK][key_dim], ... ; S is at 0 */
};

template <class T> struct recur_args {
    cu_recur r;
    cu_tables tables;
    recur_place at;
    uint32_t q_at, k_at, v_at; /* columns of in */
    const T *in, *by;
    T *out;
};

CU_DEVICE uint32_t recur_key_head(const delta_shape &d, uint32_t head) {
    return d.tiled ? head % d.key_heads : head / (d.value_heads / d.key_heads);
}

/* log(1 + e^x). */
CU_DEVICE float recur_softplus(float x) {
    return x > 30.0f ? x : log1pf(expf(x));
}

/* x[i] of n numbers of T, of the norm that the rule wants: by all threads of the block. */
template <class T>
CU_DEVICE void recur_take(const T *x, uint32_t n, bool normed, float eps, float scale,
                          float *to, float *part) {
    float sum = 0.0f;
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
        to[i] = cu_to_float(x[i]);
        sum = fmaf(to[i], to[i], sum);
    }
    if (!normed) return;
    sum = cu_block_sum(sum, part);
    const float by = scale / sqrtf(sum + eps);
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) to[i] *= by;
    __syncthreads(); /* part is read */
}

/* The row's g, and what n is multiplied by. */
template <class T>
CU_DEVICE float2 recur_gates(const recur_args<T> &a, uint32_t row, uint32_t head) {
    const delta_shape &d = a.r.d;
    if (a.r.scan) {
        float dt = recur_softplus(cu_to_float(a.by[(size_t)row * d.value_heads + head]) +
                                  a.r.w1[head]);
        if (d.dt_max > 0.0f) dt = fminf(fmaxf(dt, d.dt_min), d.dt_max);
        return make_float2(a.r.w0[head] * dt, dt);
    }
    const T *by = a.by + (size_t)row * 2 * d.value_heads + head;
    const float x = cu_to_float(by[d.value_heads]) + a.r.w1[head];
    return make_float2(a.r.w0[head] * recur_softplus(x),
                       1.0f / (1.0f + expf(-cu_to_float(by[0]))));
}

/* S behind the rows of its chunk that the slot has. */
template <class T>
CU_DEVICE void recur_load(const recur_args<T> &a, const float *state, uint32_t head,
                          int first_pos, float *s, float *k) {
    const delta_shape &d = a.r.d;
    const uint32_t c = threadIdx.x, dk = d.key_dim, dv = d.value_dim;
    const int kept = first_pos % STATE_CHUNK;
    const bool is_new = first_pos < STATE_CHUNK; /* S of no tokens */
    for (uint32_t i = 0; i < dk && c < dv; i++)
        s[i * dv + c] = is_new ? 0.0f : state[((size_t)head * dk + i) * dv + c];
    const float *ks = state + a.at.k + (size_t)recur_key_head(d, head) * STATE_CHUNK * dk,
                *ns = state + a.at.n + (size_t)head * STATE_CHUNK * dv,
                *gs = state + a.at.g + (size_t)head * STATE_CHUNK;
    for (int j = 0; j < kept; j++) {
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < dk; i += blockDim.x) k[i] = ks[(size_t)j * dk + i];
        __syncthreads();
        if (c >= dv) continue;
        const float decay = expf(gs[j]), n = ns[(size_t)j * dv + c];
        for (uint32_t i = 0; i < dk; i++) s[i * dv + c] = fmaf(k[i], n, s[i * dv + c] * decay);
    }
    __syncthreads();
}

/* Where the matrix of so many tokens of an entry goes besides its slot; NULL: nowhere. */
CU_DEVICE float *recur_checkpoint(const cu_states &s, uint32_t entry, int n_tokens) {
    for (uint32_t i = 0; i < s.n_checkpoints; i++) {
        const int32_t *x = s.checkpoints + 3 * (size_t)i;
        if (x[0] == (int32_t)entry && x[1] == n_tokens)
            return s.base + (size_t)(uint32_t)x[2] * s.stride;
    }
    return NULL;
}

template <class T>
CU_DEVICE void recur_save(const recur_args<T> &a, float *state, uint32_t head, const float *s) {
    const uint32_t c = threadIdx.x, dk = a.r.d.key_dim, dv = a.r.d.value_dim;
    for (uint32_t i = 0; state && i < dk && c < dv; i++)
        state[((size_t)head * dk + i) * dv + c] = s[i * dv + c];
}

/* Grid: entries, value heads. Shared memory: S, k, q. */
template <class T>
static __global__ void __launch_bounds__(CU_RECUR_DIM) k_recur(recur_args<T> a) {
    CU_DYN_SHARED(float, s);
    CU_SHARED(float, part, 32);
    cu_grid_trigger();
    cu_grid_wait();
    const delta_shape &d = a.r.d;
    const uint32_t entry = blockIdx.x, head = blockIdx.y, c = threadIdx.x;
    const uint32_t dk = d.key_dim, dv = d.value_dim, key_head = recur_key_head(d, head);
    const int n_rows = a.tables.n_rows[entry], first_pos = a.tables.first_pos[entry];
    const int32_t slot = a.r.states.slot[entry];
    if (n_rows == 0 || slot < 0) return;
    float *const state = a.r.states.base + (size_t)(uint32_t)slot * a.r.states.stride;
    float *const ns = state + a.at.n + (size_t)head * STATE_CHUNK * dv, *const gs =
                                                                            state + a.at.g +
                                                                            (size_t)head *
                                                                                STATE_CHUNK;
    float *const k = s + dk * dv, *const q = k + dk;
    const bool normed = !a.r.scan;
    recur_load(a, state, head, first_pos, s, k);
    for (int r = 0; r < n_rows; r++) {
        const int j = (first_pos + r) % STATE_CHUNK;
        const uint32_t row = (uint32_t)(a.tables.first_row[entry] + r);
        const T *in = a.in + (size_t)row * a.r.ld_in;
        __syncthreads(); /* k and q of the row before are read */
        recur_take(in + a.k_at + (size_t)key_head * dk, dk, normed, d.eps, 1.0f, k, part);
        recur_take(in + a.q_at + (size_t)key_head * dk, dk, normed, d.eps,
                   1.0f / sqrtf((float)dk), q, part);
        __syncthreads();
        const float2 gate = recur_gates(a, row, head);
        const float decay = expf(gate.x);
        if (c < dv) {
            const float v = cu_to_float(in[a.v_at + (size_t)head * dv + c]);
            float of_k = 0.0f, o = a.r.scan ? a.r.w2[head] * v : 0.0f;
            for (uint32_t i = 0; normed && i < dk; i++) of_k = fmaf(s[i * dv + c], k[i], of_k);
            const float n = gate.y * (v - decay * of_k);
            for (uint32_t i = 0; i < dk; i++) {
                const float x = fmaf(k[i], n, s[i * dv + c] * decay);
                s[i * dv + c] = x;
                o = fmaf(x, q[i], o);
            }
            ns[(size_t)j * dv + c] = n;
            a.out[((size_t)row * d.value_heads + head) * dv + c] = cu_from_float(o, T());
        }
        if (c == 0) gs[j] = gate.x;
        if (j + 1 < STATE_CHUNK) continue;
        recur_save(a, state, head, s);
        recur_save(a, recur_checkpoint(a.r.states, entry, first_pos + r + 1), head, s);
    }
}

/* k of the rows since the last full chunk, which other heads have read meanwhile. Grid: entries, key
 * heads. */
template <class T>
static __global__ void __launch_bounds__(CU_RECUR_DIM) k_recur_keys(recur_args<T> a) {
    CU_SHARED(float, k, CU_RECUR_DIM);
    CU_SHARED(float, part, 32);
    cu_grid_trigger();
    cu_grid_wait();
    const delta_shape &d = a.r.d;
    const uint32_t entry = blockIdx.x, key_head = blockIdx.y, dk = d.key_dim;
    const int n_rows = a.tables.n_rows[entry], first_pos = a.tables.first_pos[entry];
    const int32_t slot = a.r.states.slot[entry];
    if (n_rows == 0 || slot < 0) return;
    float *const to = a.r.states.base + (size_t)(uint32_t)slot * a.r.states.stride + a.at.k +
                      (size_t)key_head * STATE_CHUNK * dk;
    const int end = first_pos + n_rows;
    for (int pos = max(first_pos, end / STATE_CHUNK * STATE_CHUNK); pos < end; pos++) {
        const size_t row = (size_t)(a.tables.first_row[entry] + pos - first_pos);
        __syncthreads();
        recur_take(a.in + row * a.r.ld_in + a.k_at + (size_t)key_head * dk, dk, !a.r.scan,
                   d.eps, 1.0f, k, part);
        for (uint32_t i = threadIdx.x; i < dk; i += blockDim.x)
            to[(size_t)(pos % STATE_CHUNK) * dk + i] = k[i];
    }
}

template <class T> static recur_args<T> args_of(const cu_recur *r, const cu_tables *tables) {
    const delta_shape &d = r->d;
    const uint32_t keys = d.key_heads * d.key_dim, values = d.value_heads * d.value_dim;
    recur_args<T> a = {};
    a.r = *r, a.tables = *tables;
    a.at.k = d.value_heads * d.key_dim * d.value_dim;
    a.at.n = a.at.k + STATE_CHUNK * keys;
    a.at.g = a.at.n + STATE_CHUNK * values;
    a.q_at = r->scan ? values + keys : 0, a.k_at = r->scan ? values : keys;
    a.v_at = r->scan ? 0 : 2 * keys;
    a.in = (const T *)r->in, a.by = (const T *)r->by, a.out = (T *)r->out;
    return a;
}

cudaError_t cu_recur_run(cudaStream_t s, const cu_recur *r, const cu_tables *tables,
                         uint32_t n_seqs) {
    const delta_shape &d = r->d;
    if (!cu_recur_supports(&d)) return cudaErrorInvalidValue;
    if (n_seqs == 0) return cudaSuccess;
    const uint32_t wide = d.key_dim > d.value_dim ? d.key_dim : d.value_dim;
    const uint32_t threads = (wide + 31) / 32 * 32;
    const size_t smem = (size_t)(d.key_dim * d.value_dim + 2 * d.key_dim) * sizeof(float);
    return cu_by_type(r->t, [&](auto type) {
        using T = decltype(type);
        const recur_args<T> a = args_of<T>(r, tables);
        const cudaError_t e = cu_allow_smem(k_recur<T>, smem);
        if (e != cudaSuccess) return e;
        CU_LAUNCH_EARLY((k_recur<T>), dim3(n_seqs, d.value_heads), threads, smem, s, a);
        CU_LAUNCH_EARLY((k_recur_keys<T>), dim3(n_seqs, d.key_heads), threads, 0, s, a);
        return cudaGetLastError();
    });
}
