/* Root mean square norms: of the residual stream, and of the heads of q and k. A row is read once and stays in registers between the sum and the scaling.
 */
#include "engine/cuda/kernels.h"
#include "engine/cuda/vec.cuh"

/* As IEEE has it on both sides: a row's scale is computed once, speed is no matter. */
CU_DEVICE float norm_scale(float sum, uint32_t n, float eps) {
    return 1.0f / sqrtf(sum / (float)n + eps);
}

/* Thread t holds columns 8 (t + i blockDim) ..; V such octets. */
template <class T, int V>
static __global__ void __launch_bounds__(512)
    k_row_norm(uint32_t cols, float eps, const float *x, const float *w, T *out) {
    cu_grid_trigger();
    cu_grid_wait();
    CU_SHARED(float, part, 32);
    const size_t row = (size_t)blockIdx.x * cols;
    float v[V][8], g[V][8], sum = 0.0f;
#pragma unroll
    for (int i = 0; i < V; i++) {
        uint32_t c = (threadIdx.x + i * blockDim.x) * 8;
        if (c >= cols) break;
        cu_load8(x + row + c, v[i]);
        if (V <= 2) cu_load8(w + c, g[i]); /* early: its latency passes behind the sum */
#pragma unroll
        for (int k = 0; k < 8; k++) sum = fmaf(v[i][k], v[i][k], sum);
    }
    const float scale = norm_scale(cu_block_sum(sum, part), cols, eps);
#pragma unroll
    for (int i = 0; i < V; i++) {
        uint32_t c = (threadIdx.x + i * blockDim.x) * 8;
        if (c >= cols) break;
        if (V > 2) cu_load8(w + c, g[i]);
#pragma unroll
        for (int k = 0; k < 8; k++) v[i][k] = v[i][k] * scale * g[i][k];
        cu_store8(out + row + c, v[i]);
    }
}

template <class T, int V>
static cudaError_t row_norm(cudaStream_t s, const cu_norm *n, uint32_t cols, const float *x,
                            void *out) {
    uint32_t threads = cu_ceil_div(cu_ceil_div(cols / 8, V), 32) * 32;
    CU_LAUNCH_EARLY((k_row_norm<T, V>), n->n_rows, threads, 0, s, cols, n->eps, x, n->w,
                    (T *)out);
    return cudaGetLastError();
}

cudaError_t cu_row_norm(cudaStream_t s, const cu_norm *n, uint32_t cols, const float *x,
                        void *out) {
    if (cols == 0 || cols % 8 || cols > 32768) return cudaErrorInvalidValue;
    if (n->n_rows == 0) return cudaSuccess;
    return cu_by_type(n->t, [&](auto type) {
        using T = decltype(type);
        if (cols <= 4096) return row_norm<T, 1>(s, n, cols, x, out);
        if (cols <= 8192) return row_norm<T, 2>(s, n, cols, x, out);
        if (cols <= 16384) return row_norm<T, 4>(s, n, cols, x, out);
        return row_norm<T, 8>(s, n, cols, x, out);
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
        cu_load8(w + c, g);
#pragma unroll
        for (int k = 0; k < 8; k++) v[i][k] = v[i][k] * scale * g[k];
        cu_store8(head + c, v[i]);
    }
}

cudaError_t cu_head_norm(cudaStream_t s, const cu_norm *n, const cu_heads *h) {
    if (h->head_dim == 0 || h->head_dim % 8 || h->head_dim > 512 || h->first_col % 8 ||
        h->ld % 8)
        return cudaErrorInvalidValue;
    const uint32_t all = n->n_rows * h->n_heads;
    if (all == 0) return cudaSuccess;
    return cu_by_type(n->t, [&](auto type) {
        using T = decltype(type);
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
