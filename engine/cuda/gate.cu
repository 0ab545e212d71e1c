/* The gated activation between the two halves of a feed-forward layer (Shazeer, "GLU variants
 * improve transformer"): bound by memory, one 16-byte load of either half and one store a
 * thread. */
#include "engine/cuda/kernels.h"
#include "engine/cuda/vec.cuh"

enum { THREADS = 128 };

template <class T>
static __global__ void __launch_bounds__(THREADS)
    k_gate(activation act, uint32_t n, const T *in, T *out) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t c = (blockIdx.y * THREADS + threadIdx.x) * 8;
    if (c >= n) return;
    const T *row = in + (size_t)blockIdx.x * 2 * n;
    float g[8], u[8];
    cu_load8(row + c, g);
    cu_load8(row + n + c, u);
#pragma unroll
    for (int i = 0; i < 8; i++) g[i] = cu_gated(act, g[i], u[i]);
    cu_store8(out + (size_t)blockIdx.x * n + c, g);
}

cudaError_t cu_gate(cudaStream_t s, cu_type t, activation act, uint32_t n_rows, uint32_t n,
                    const void *in, void *out) {
    if (n == 0 || n % 8) return cudaErrorInvalidValue;
    if (n_rows == 0) return cudaSuccess;
    return cu_by_type(t, [&](auto type) {
        using T = decltype(type);
        CU_LAUNCH_EARLY((k_gate<T>), dim3(n_rows, cu_ceil_div(n, 8 * THREADS)), THREADS, 0, s,
                        act, n, (const T *)in, (T *)out);
        return cudaGetLastError();
    });
}
