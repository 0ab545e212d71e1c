/* The gated activation between the two halves of a feed-forward layer, and of two values (Shazeer, "GLU variants
 * improve transformer"): bound by memory, one 16-byte load of either half and one store a
 * thread. */
#include "engine/cuda/kernels.h"
#include "engine/cuda/vec.cuh"

enum { THREADS = 128 };

/* A row of gate and one of up. */
struct gate_rows {
    uint32_t ld_gate, ld_up;
};

template <class T>
static __global__ void __launch_bounds__(THREADS)
    k_gate(activation act, uint32_t n, gate_rows ld, const T *gate, const T *up, T *out) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t c = (blockIdx.y * THREADS + threadIdx.x) * 8;
    if (c >= n) return;
    float g[8], u[8];
    cu_load8(gate + (size_t)blockIdx.x * ld.ld_gate + c, g);
    cu_load8(up + (size_t)blockIdx.x * ld.ld_up + c, u);
#pragma unroll
    for (int i = 0; i < 8; i++) g[i] = cu_gated(act, g[i], u[i]);
    cu_store8(out + (size_t)blockIdx.x * n + c, g);
}

static cudaError_t gate(cudaStream_t s, cu_type t, activation act, uint32_t n_rows, uint32_t n,
                        gate_rows ld, const void *in, const void *up, void *out) {
    if (n == 0 || n % 8 || ld.ld_up % 8) return cudaErrorInvalidValue;
    if (n_rows == 0) return cudaSuccess;
    return cu_by_type(t, [&](auto type) {
        using T = decltype(type);
        CU_LAUNCH_EARLY((k_gate<T>), dim3(n_rows, cu_ceil_div(n, 8 * THREADS)), THREADS, 0, s,
                        act, n, ld, (const T *)in, (const T *)up, (T *)out);
        return cudaGetLastError();
    });
}

cudaError_t cu_gate(cudaStream_t s, cu_type t, activation act, uint32_t n_rows, uint32_t n,
                    const void *in, void *out) {
    return gate(s, t, act, n_rows, n, gate_rows{2 * n, 2 * n}, in, (const uint16_t *)in + n,
                out);
}

cudaError_t cu_mul_act(cudaStream_t s, cu_type t, activation act, uint32_t n_rows, uint32_t n,
                       const void *in, const void *by, uint32_t ld_by, void *out) {
    return gate(s, t, act, n_rows, n, gate_rows{n, ld_by}, in, by, out);
}
