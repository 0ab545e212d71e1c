/* Rows picked by index: the embeddings of a step's tokens, and the rows whose logits are
 * wanted.
 */
#include "engine/cuda/kernels.h"
#include "engine/cuda/quant.cuh"
#include "engine/cuda/vec.cuh"

enum { THREADS = 128 };

/* A row's input: its token, or what an entry of the step before drew. */
CU_DEVICE uint32_t token_of(const cu_tables &t, uint32_t row, uint32_t n_vocab) {
    const int32_t from = t.from[row];
    const uint32_t id = (uint32_t)(from >= 0 ? t.previous[from] : t.token[row]);
    return id < n_vocab ? id : 0;
}

/* Rows [first, first + n) of the vocabulary; first 0 and all of it, where part is false. */
struct embed_rows {
    uint32_t first, n;
    bool part;
};
/* The row of the matrix; n: another rank has it. */
CU_DEVICE uint32_t embed_row(const cu_tables &t, uint32_t row, const embed_rows &v) {
    if (!v.part) return token_of(t, row, v.n);
    const uint32_t id = token_of(t, row, INT32_MAX) - v.first;
    return id < v.n ? id : v.n;
}

/* Eight columns of a row of what the embedding becomes: the residual stream, or of T what is added
 * to another value of that place. */
CU_DEVICE void embed_put(float f[8], float scale, const float *, float *out) {
#pragma unroll
    for (int i = 0; i < 8; i++) f[i] *= scale;
    cu_store8(out, f);
}
template <class T> CU_DEVICE void embed_put(float f[8], float scale, const T *in, T *out) {
    float x[8];
    cu_load8(in, x);
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = fmaf(f[i], scale, x[i]) * 0.70710678f;
    cu_store8(out, x);
}

template <class W, class O>
static __global__ void __launch_bounds__(THREADS)
    k_embed(cu_tables tables, const W *w, embed_rows v, uint32_t cols, float scale, const O *in,
            O *out) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t c = (blockIdx.y * THREADS + threadIdx.x) * 8;
    if (c >= cols) return;
    const size_t at = (size_t)blockIdx.x * cols + c;
    float f[8] = {};
    const uint32_t row = embed_row(tables, blockIdx.x, v);
    if (row < v.n) cu_load8(w + (size_t)row * cols + c, f);
    embed_put(f, scale, in + at, out + at);
}

/* Packed rows lie scattered over the tiles of their strip: element by element. */
template <dtype TYPE, class O>
static __global__ void __launch_bounds__(THREADS)
    k_embed_packed(cu_tables tables, quant_view w, embed_rows v, float scale, const O *in,
                   O *out) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t c = (blockIdx.y * THREADS + threadIdx.x) * 8;
    if (c >= w.n_in) return;
    const uint32_t token = embed_row(tables, blockIdx.x, v);
    const size_t at = (size_t)blockIdx.x * w.n_in + c;
    float f[8] = {};
    if (token < v.n) {
#pragma unroll
        for (int i = 0; i < 8; i++) f[i] = quant_at<TYPE>(w, token, c + i);
    }
    embed_put(f, scale, in + at, out + at);
}

template <class O>
static cudaError_t embed(cudaStream_t s, const cu_matrix *w, const cu_tables *tables,
                         embed_rows v, uint32_t n_rows, float scale, const O *in, O *out) {
    if (w->n_in == 0 || w->n_in % 8) return cudaErrorInvalidValue;
    if (n_rows == 0) return cudaSuccess;
    const dim3 grid(n_rows, cu_ceil_div(w->n_in, 8 * THREADS));
    switch (w->type) {
    case DT_F16:
        CU_LAUNCH_EARLY((k_embed<__half, O>), grid, THREADS, 0, s, *tables,
                        (const __half *)w->data, v, w->n_in, scale, in, out);
        break;
    case DT_BF16:
        CU_LAUNCH_EARLY((k_embed<__nv_bfloat16, O>), grid, THREADS, 0, s, *tables,
                        (const __nv_bfloat16 *)w->data, v, w->n_in, scale, in, out);
        break;
    default:
        return quant_by_type(w->type, [&](auto type) {
            constexpr dtype TYPE = decltype(type)::value;
            CU_LAUNCH_EARLY((k_embed_packed<TYPE, O>), grid, THREADS, 0, s, *tables,
                            quant_view_of(w), v, scale, in, out);
            return cudaGetLastError();
        });
    }
    return cudaGetLastError();
}

cudaError_t cu_embed(cudaStream_t s, const cu_matrix *w, const cu_tables *tables,
                     uint32_t n_rows, float scale, float *out) {
    return embed<float>(s, w, tables, embed_rows{0, w->n_out, false}, n_rows, scale, out, out);
}

cudaError_t cu_embed_part(cudaStream_t s, const cu_matrix *w, const cu_tables *tables,
                          uint32_t first, uint32_t n_rows, float scale, float *out) {
    return embed<float>(s, w, tables, embed_rows{first, w->n_out, true}, n_rows, scale, out,
                        out);
}

cudaError_t cu_embed_add(cudaStream_t s, const cu_matrix *w, const cu_tables *tables,
                         uint32_t n_rows, float scale, cu_type t, const void *in, void *out) {
    return cu_by_type(t, [&](auto type) {
        using T = decltype(type);
        return embed<T>(s, w, tables, embed_rows{0, w->n_out, false}, n_rows, scale,
                        (const T *)in, (T *)out);
    });
}

static __global__ void __launch_bounds__(THREADS)
    k_gather(const int32_t *gathered, uint32_t cols, const float *in, float *out) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t c = (blockIdx.y * THREADS + threadIdx.x) * 8;
    if (c >= cols) return;
    const int32_t row = gathered[blockIdx.x];
    float f[8];
    cu_load8(in + (size_t)(row < 0 ? 0 : row) * cols + c, f);
    cu_store8(out + (size_t)blockIdx.x * cols + c, f);
}

cudaError_t cu_gather(cudaStream_t s, const cu_tables *tables, uint32_t n_logit_rows,
                      uint32_t cols, const float *in, float *out) {
    if (cols == 0 || cols % 8) return cudaErrorInvalidValue;
    if (n_logit_rows == 0) return cudaSuccess;
    CU_LAUNCH_EARLY(k_gather, dim3(n_logit_rows, cu_ceil_div(cols, 8 * THREADS)), THREADS, 0, s,
                    tables->gathered, cols, in, out);
    return cudaGetLastError();
}
