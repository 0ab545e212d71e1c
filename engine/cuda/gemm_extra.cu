/* What a GEMM of the library leaves to do: biases, and the checks of batch_invariant. One
 * thread an element; bound by memory, and small. */
#include "engine/cuda/kernels.h"

enum { THREADS = 256 };

static dim3 grid_of(uint32_t n_rows, uint32_t n) {
    return dim3((n + THREADS - 1) / THREADS, n_rows);
}

CU_DEVICE float to_float(float x) {
    return x;
}
CU_DEVICE float to_float(__half x) {
    return __half2float(x);
}
CU_DEVICE float to_float(__nv_bfloat16 x) {
    return __bfloat162float(x);
}
CU_DEVICE void store(float *p, float x) {
    *p = x;
}
CU_DEVICE void store(__half *p, float x) {
    *p = __float2half(x);
}
CU_DEVICE void store(__nv_bfloat16 *p, float x) {
    *p = __float2bfloat16(x);
}

template <class T>
static __global__ void add_bias(uint32_t n, uint32_t ld, const float *bias, T *out) {
    const uint32_t c = blockIdx.x * THREADS + threadIdx.x;
    if (c >= n) return;
    T *p = out + (size_t)blockIdx.y * ld + c;
    store(p, to_float(*p) + bias[c]);
}

cudaError_t cu_add_bias(cudaStream_t s, cu_type t, uint32_t n_rows, uint32_t n, uint32_t ld,
                        const float *bias, void *out) {
    const dim3 grid = grid_of(n_rows, n);
    if (t == CU_F32)
        CU_LAUNCH(add_bias<float>, grid, THREADS, 0, s, n, ld, bias, (float *)out);
    else if (t == CU_BF16)
        CU_LAUNCH(add_bias<__nv_bfloat16>, grid, THREADS, 0, s, n, ld, bias,
                  (__nv_bfloat16 *)out);
    else
        CU_LAUNCH(add_bias<__half>, grid, THREADS, 0, s, n, ld, bias, (__half *)out);
    return cudaGetLastError();
}

template <class W> static __global__ void repeat_row(uint32_t n, uint32_t ld, W *x) {
    const uint32_t c = blockIdx.x * THREADS + threadIdx.x;
    if (c < n) x[(size_t)(blockIdx.y + 1) * ld + c] = x[c];
}

cudaError_t cu_repeat_row(cudaStream_t s, cu_type t, uint32_t n_rows, uint32_t n, uint32_t ld,
                          void *x) {
    if (n_rows < 2) return cudaSuccess;
    const dim3 grid = grid_of(n_rows - 1, n);
    if (t == CU_F32)
        CU_LAUNCH(repeat_row<uint32_t>, grid, THREADS, 0, s, n, ld, (uint32_t *)x);
    else
        CU_LAUNCH(repeat_row<uint16_t>, grid, THREADS, 0, s, n, ld, (uint16_t *)x);
    return cudaGetLastError();
}

template <class W>
static __global__ void rows_differ(uint32_t n, uint32_t ld, const W *x, uint32_t *count) {
    const uint32_t c = blockIdx.x * THREADS + threadIdx.x;
    if (c < n && x[(size_t)(blockIdx.y + 1) * ld + c] != x[c]) atomicAdd(count, 1u);
}

cudaError_t cu_rows_differ(cudaStream_t s, cu_type t, uint32_t n_rows, uint32_t n, uint32_t ld,
                           const void *x, uint32_t *count) {
    cudaError_t e = cudaMemsetAsync(count, 0, sizeof *count, s);
    if (e != cudaSuccess || n_rows < 2) return e;
    const dim3 grid = grid_of(n_rows - 1, n);
    if (t == CU_F32)
        CU_LAUNCH(rows_differ<uint32_t>, grid, THREADS, 0, s, n, ld, (const uint32_t *)x,
                  count);
    else
        CU_LAUNCH(rows_differ<uint16_t>, grid, THREADS, 0, s, n, ld, (const uint16_t *)x,
                  count);
    return cudaGetLastError();
}
