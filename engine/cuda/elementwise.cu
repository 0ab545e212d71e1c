/* Operations on single elements: bound by memory, and small beside the matrices. */
#include "engine/cuda/kernels.h"
#include "engine/cuda/vec.cuh"

enum { THREADS = 256, MOST_BLOCKS = 4096 };

/* Blocks for n of something, each thread a few. */
static uint32_t blocks_for(uint64_t n) {
    const uint64_t blocks = (n + THREADS - 1) / THREADS;
    return blocks < MOST_BLOCKS ? (uint32_t)blocks : (uint32_t)MOST_BLOCKS;
}
CU_DEVICE size_t first_of() {
    return (size_t)blockIdx.x * THREADS + threadIdx.x;
}
CU_DEVICE size_t step_of() {
    return (size_t)gridDim.x * THREADS;
}

template <class T>
static __global__ void __launch_bounds__(THREADS) k_round(size_t n, const float *in, T *out) {
    cu_grid_trigger();
    cu_grid_wait();
    for (size_t i = first_of(); i < n / 8; i += step_of()) {
        float f[8];
        cu_load8(in + i * 8, f);
        cu_store8(out + i * 8, f);
    }
}

cudaError_t cu_round(cudaStream_t s, cu_type t, uint64_t n, const float *in, void *out) {
    if (n % 8) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    return cu_by_type(t, [&](auto type) {
        using T = decltype(type);
        CU_LAUNCH_EARLY((k_round<T>), blocks_for(n / 8), THREADS, 0, s, (size_t)n, in,
                        (T *)out);
        return cudaGetLastError();
    });
}

static __global__ void __launch_bounds__(THREADS)
    k_scale(size_t n, const float *in, const float *by, float *out) {
    cu_grid_trigger();
    cu_grid_wait();
    for (size_t i = first_of(); i < n; i += step_of()) out[i] = in[i] * by[0];
}

cudaError_t cu_scale(cudaStream_t s, uint64_t n, const float *in, const float *by, float *out) {
    if (n == 0) return cudaSuccess;
    CU_LAUNCH_EARLY(k_scale, blocks_for(n), THREADS, 0, s, (size_t)n, in, by, out);
    return cudaGetLastError();
}

/* rate: 2 log2(e) scale / cap */
static __global__ void __launch_bounds__(THREADS)
    k_cap(size_t n, float scale, float cap, float rate, float *x) {
    cu_grid_trigger();
    cu_grid_wait();
    for (size_t i = first_of(); i < n; i += step_of())
        x[i] = cap > 0.0f ? cu_capped(cu_ex2(x[i] * rate), cap) : x[i] * scale;
}

cudaError_t cu_cap(cudaStream_t s, uint64_t n, float scale, float cap, float *x) {
    const float rate = cap > 0.0f ? 2.0f * 1.44269504f * scale / cap : 0.0f;
    if (n == 0) return cudaSuccess;
    CU_LAUNCH_EARLY(k_cap, blocks_for(n), THREADS, 0, s, (size_t)n, scale, cap, rate, x);
    return cudaGetLastError();
}

/* Stores a number of T, or adds to a float32. */
template <class T> CU_DEVICE void put(T *p, float v) {
    *p = cu_from_float(v, T());
}
CU_DEVICE void put(float *p, float v) {
    *p += v;
}

template <class T, class O>
static __global__ void __launch_bounds__(THREADS)
    k_mul_sigmoid(size_t all, uint32_t n, uint32_t n_by, const T *in, const T *by, O *out) {
    cu_grid_trigger();
    cu_grid_wait();
    for (size_t i = first_of(); i < all; i += step_of()) {
        const float g = cu_to_float(by[n_by == 1 ? i / n : i]);
        put(out + i, cu_to_float(in[i]) / (1.0f + cu_ex2(-1.44269504f * g)));
    }
}

cudaError_t cu_mul_sigmoid(cudaStream_t s, cu_type t, uint32_t n_rows, uint32_t n,
                           const void *in, const void *by, uint32_t n_by, void *out,
                           cu_out kind) {
    const size_t all = (size_t)n_rows * n;
    if ((n_by != n && n_by != 1) || kind == CU_OUT_F32) return cudaErrorInvalidValue;
    if (all == 0) return cudaSuccess;
    return cu_by_type(t, [&](auto type) {
        using T = decltype(type);
        const T *x = (const T *)in, *gate = (const T *)by;
        if (kind == CU_OUT_ADD)
            CU_LAUNCH_EARLY((k_mul_sigmoid<T, float>), blocks_for(all), THREADS, 0, s, all, n,
                            n_by, x, gate, (float *)out);
        else
            CU_LAUNCH_EARLY((k_mul_sigmoid<T, T>), blocks_for(all), THREADS, 0, s, all, n, n_by,
                            x, gate, (T *)out);
        return cudaGetLastError();
    });
}

/* A block a row. Below len the factor is 1, and nothing is rounded again. */
template <class T>
static __global__ void __launch_bounds__(THREADS)
    k_temper(const int32_t *pos, uint32_t n, uint32_t ld, float temperature, uint32_t len,
             T *qkv) {
    cu_grid_trigger();
    cu_grid_wait();
    const int32_t at = pos[blockIdx.x];
    if (at < 0 || (uint32_t)at < len) return;
    const float by = fmaf(temperature, log1pf((float)((uint32_t)at / len)), 1.0f);
    T *row = qkv + (size_t)blockIdx.x * ld;
    for (uint32_t c = threadIdx.x * 8; c < n; c += THREADS * 8) {
        float f[8];
        cu_load8(row + c, f);
#pragma unroll
        for (int i = 0; i < 8; i++) f[i] *= by;
        cu_store8(row + c, f);
    }
}

cudaError_t cu_temper(cudaStream_t s, cu_type t, const cu_tables *tables, uint32_t n_rows,
                      uint32_t n, uint32_t ld, float temperature, uint32_t len, void *qkv) {
    if (n % 8 || ld % 8 || len == 0) return cudaErrorInvalidValue;
    if (n_rows == 0 || n == 0) return cudaSuccess;
    return cu_by_type(t, [&](auto type) {
        using T = decltype(type);
        CU_LAUNCH_EARLY((k_temper<T>), n_rows, THREADS, 0, s, tables->pos, n, ld, temperature,
                        len, (T *)qkv);
        return cudaGetLastError();
    });
}
