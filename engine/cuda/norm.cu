/* Root mean square norms: of the residual stream, and of the heads of q and k. A row is read once and stays in registers between the sum and the scaling.
 */
#include "engine/cuda/kernels.h"
#include "engine/cuda/quantize.cuh"

#include <type_traits>

/* As IEEE has it on both sides: a row's scale is computed once, speed is no matter. */
CU_DEVICE float norm_scale(float sum, uint32_t n, float eps) {
    return 1.0f / sqrtf(sum / (float)n + eps);
}

/* Rows of `width` columns: `per_row` of them side by side in each of a matrix whose rows are ld
 * apart. */
struct norm_rows {
    uint32_t width, per_row, ld;
    CU_DEVICE size_t at(const norm_rows &r, uint32_t i) {
        return (size_t)(i / r.per_row) * r.ld + (size_t)(i % r.per_row) * r.width;
    }
};

/* Stores what a norm gave, or adds it to the residual stream. */
template <class T> CU_DEVICE void norm_put(T *p, float v[8], bool adds) {
    if (adds) {
        float x[8];
        cu_load8(p, x);
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] += x[k];
    }
    cu_store8(p, v);
}

/* The scale of a row x, whose columns 8 (t + i blockDim) .. thread t then has in v[i], and the weights of these in g[i],
 * where w is not NULL. Waits for the kernels before; the weights come earlier, as far as registers allow. */
template <class X, int V>
CU_DEVICE float norm_begin(const X *x, const float *w, uint32_t cols, float eps, float v[V][8],
                           float g[V][8]) {
    CU_SHARED(float, part, 32);
    const auto column = [](int i) { return (threadIdx.x + i * blockDim.x) * 8; };
#pragma unroll
    for (int i = 0; i < V; i++)
        if (V <= 2 && w && column(i) < cols) cu_load8(w + column(i), g[i]);
    cu_grid_wait();
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < V; i++) {
        if (column(i) >= cols) break;
        cu_load8(x + column(i), v[i]);
#pragma unroll
        for (int k = 0; k < 8; k++) sum = fmaf(v[i][k], v[i][k], sum);
    }
    const float scale = norm_scale(cu_block_sum(sum, part), cols, eps);
#pragma unroll
    for (int i = 0; i < V; i++)
        if (V > 2 && w && column(i) < cols) cu_load8(w + column(i), g[i]);
    return scale;
}

/* Thread t holds columns 8 (t + i blockDim) ..; V such octets. w NULL: ones. x may be out. */
template <class X, class O, int V, bool ADDS>
static __global__ void __launch_bounds__(512)
    k_row_norm(norm_rows rows, float eps, const X *x, const float *w, O *out) {
    cu_grid_trigger();
    const size_t row = norm_rows::at(rows, blockIdx.x);
    const uint32_t cols = rows.width;
    float v[V][8], g[V][8];
    const float scale = norm_begin<X, V>(x + row, w, cols, eps, v, g);
#pragma unroll
    for (int i = 0; i < V; i++) {
        uint32_t c = (threadIdx.x + i * blockDim.x) * 8;
        if (c >= cols) break;
#pragma unroll
        for (int k = 0; k < 8; k++) v[i][k] = v[i][k] * scale * (w ? g[i][k] : 1.0f);
        norm_put(out + row + c, v[i], ADDS);
    }
}

/* The same, rounded to T and quantised. */
template <class T, int V>
static __global__ void __launch_bounds__(512)
    k_norm_codes(uint32_t cols, float eps, const float *x, const float *w, act_view out) {
    cu_grid_trigger();
    float v[V][8], g[V][8];
    const float scale = norm_begin<float, V>(x + (size_t)blockIdx.x * cols, w, cols, eps, v, g);
#pragma unroll
    for (int i = 0; i < V; i++) {
        const uint32_t octet = threadIdx.x + i * blockDim.x;
        float y[8] = {};
#pragma unroll
        for (int k = 0; k < 8; k++)
            if (octet * 8 < cols)
                y[k] = cu_to_float(cu_from_float(v[i][k] * scale * (w ? g[i][k] : 1.0f), T()));
        quantize_put(out, blockIdx.x, octet, y); /* with the whole warp */
    }
}

/* Calls f with the number of octets of a thread, and the threads of a block. */
template <class F> static cudaError_t norm_by_width(uint32_t cols, F f) {
    const auto call = [&](auto octets) {
        f(octets, cu_ceil_div(cu_ceil_div(cols / 8, octets.value), 32) * 32);
        return cudaGetLastError();
    };
    if (cols == 0 || cols % 8 || cols > 32768) return cudaErrorInvalidValue;
    if (cols <= 4096) return call(std::integral_constant<int, 1>());
    if (cols <= 8192) return call(std::integral_constant<int, 2>());
    if (cols <= 16384) return call(std::integral_constant<int, 4>());
    return call(std::integral_constant<int, 8>());
}

template <bool ADDS, class X, class O>
static cudaError_t row_norm(cudaStream_t s, const cu_norm *n, const norm_rows &rows, const X *x,
                            O *out) {
    const uint32_t all = n->n_rows * rows.per_row;
    return norm_by_width(rows.width, [&](auto octets, uint32_t threads) {
        if (all == 0) return;
        CU_LAUNCH_EARLY((k_row_norm<X, O, decltype(octets)::value, ADDS>), all, threads, 0, s,
                        rows, n->eps, x, n->w, out);
    });
}

/* As kind says. */
template <class X>
static cudaError_t row_norm_to(cudaStream_t s, const cu_norm *n, uint32_t cols, const X *x,
                               void *out, cu_out kind) {
    const norm_rows rows = {cols, 1, cols};
    if (kind == CU_OUT_ADD) return row_norm<true>(s, n, rows, x, (float *)out);
    if (kind == CU_OUT_F32) return row_norm<false>(s, n, rows, x, (float *)out);
    return cu_by_type(
        n->t, [&](auto type) { return row_norm<false>(s, n, rows, x, (decltype(type) *)out); });
}

cudaError_t cu_row_norm(cudaStream_t s, const cu_norm *n, uint32_t cols, cu_type from,
                        const void *x, void *out, cu_out kind) {
    if (from == CU_F32) return row_norm_to(s, n, cols, (const float *)x, out, kind);
    return cu_by_type(n->t, [&](auto type) {
        return row_norm_to(s, n, cols, (const decltype(type) *)x, out, kind);
    });
}

cudaError_t cu_row_norm_codes(cudaStream_t s, const cu_norm *n, uint32_t cols, const float *x,
                              void *codes) {
    if (cols % PACKED_BLOCK || n->n_rows > CU_FEW_ROWS) return cudaErrorInvalidValue;
    if (n->n_rows == 0) return cudaSuccess;
    return cu_by_type(n->t, [&](auto type) {
        return norm_by_width(cols, [&](auto octets, uint32_t threads) {
            CU_LAUNCH_EARLY((k_norm_codes<decltype(type), decltype(octets)::value>), n->n_rows,
                            threads, 0, s, cols, n->eps, x, n->w, act_view_of(codes, cols));
        });
    });
}

/* W lanes a head, 8 columns a lane and round; heads wider than 256 take V = 2 rounds. */
template <class T, int W, int V>
static __global__ void __launch_bounds__(128)
    k_head_norm(uint32_t n_vectors, cu_heads h, float eps, const float *w) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t id = (blockIdx.x * 128 + threadIdx.x) / W, lane = threadIdx.x % W;
    const bool live = id < n_vectors;
    T *head = (T *)h.v + (size_t)(live ? id / h.n_heads : 0) * h.ld + h.first_col +
              (live ? id % h.n_heads : 0) * h.head_dim;
    float v[V][8], sum = 0.0f;
#pragma unroll
    for (int i = 0; i < V; i++) {
        uint32_t c = (lane + i * W) * 8;
        if (!live || c >= h.head_dim) break;
        cu_load8(head + c, v[i]);
#pragma unroll
        for (int k = 0; k < 8; k++) sum = fmaf(v[i][k], v[i][k], sum);
    }
#pragma unroll
    for (int m = W / 2; m; m >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, m);
    const float scale = norm_scale(sum, h.head_dim, eps);
#pragma unroll
    for (int i = 0; i < V; i++) {
        uint32_t c = (lane + i * W) * 8;
        if (!live || c >= h.head_dim) break;
        float g[8];
        if (w) cu_load8(w + c, g);
#pragma unroll
        for (int k = 0; k < 8; k++) v[i][k] = v[i][k] * scale * (w ? g[k] : 1.0f);
        cu_store8(head + c, v[i]);
    }
}

cudaError_t cu_head_norm(cudaStream_t s, const cu_norm *n, const cu_heads *h) {
    if (h->head_dim == 0 || h->head_dim % 8 || h->first_col % 8 || h->ld % 8)
        return cudaErrorInvalidValue;
    const uint32_t all = n->n_rows * h->n_heads;
    if (all == 0) return cudaSuccess;
    return cu_by_type(n->t, [&](auto type) {
        using T = decltype(type);
        if (h->head_dim > 512) { /* a block each */
            T *v = (T *)h->v + h->first_col;
            return row_norm<false>(s, n, norm_rows{h->head_dim, h->n_heads, h->ld},
                                   (const T *)v, v);
        }
#define HEADS(W, V)                                                                            \
    CU_LAUNCH_EARLY((k_head_norm<T, W, V>), cu_ceil_div(all, 128 / W), 128, 0, s, all, *h,     \
                    n->eps, n->w)
        if (h->head_dim <= 64)
            HEADS(8, 1);
        else if (h->head_dim <= 128)
            HEADS(16, 1);
        else if (h->head_dim <= 256)
            HEADS(32, 1);
        else
            HEADS(32, 2);
#undef HEADS
        return cudaGetLastError();
    });
}
