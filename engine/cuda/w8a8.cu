/* Linear layers of 8 bits by 8 bits for many rows: activations become e4m3 with a scale for each
 * row, the library sums products of codes (gemm_packed.cu), and scales are applied to its sums. For
 * row r and output o, in float32, every operation rounded once:
 *
 *     m = max over k of |x[r][k]|,  s = m / 448
 *     c[r][k] = e4m3(x[r][k] * (448 / m))              to nearest even
 *     y = (sum over k of c[r][k] * w[o][k]) * s * d    w: the file's codes, d: its scale
 *
 * A row below 2^-100 is zeros; one with NaN or infinity becomes NaN. */
#include "engine/cuda/gemm.h"
#include "engine/cuda/linear_quant.cuh"
#include "engine/cuda/vec.cuh"
#include "engine/cuda/w8a8.h"

enum { THREADS = 256 };

CU_DEVICE uint32_t four_e4m3(const float x[4], float by) {
    const uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(x[0] * by, x[1] * by),
                                                  __NV_SATFINITE, __NV_E4M3),
                   high = __nv_cvt_float2_to_fp8x2(make_float2(x[2] * by, x[3] * by),
                                                   __NV_SATFINITE, __NV_E4M3);
    return low | high << 16;
}

/* The largest of all threads' numbers, to all of them. */
CU_DEVICE uint32_t most_of_block(uint32_t x) {
    CU_SHARED(uint32_t, part, THREADS / 32);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = max(x, __shfl_xor_sync(0xffffffffu, x, step));
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    for (int i = 0; i < THREADS / 32; i++) x = max(x, part[i]);
    return x;
}

/* Grid: rows. */
template <class T>
static __global__ void __launch_bounds__(THREADS)
    k_codes(uint32_t n_in, uint32_t ld, const T *in, uint8_t *codes, float *scales) {
    cu_grid_trigger();
    cu_grid_wait();
    const T *row = in + (size_t)blockIdx.x * ld;
    uint32_t most = 0; /* as bits, of which those of NaN are the largest */
    float x[8];
    for (uint32_t k = 8 * threadIdx.x; k < n_in; k += 8 * THREADS) {
        cu_load8(row + k, x);
#pragma unroll
        for (int i = 0; i < 8; i++) most = max(most, __float_as_uint(x[i]) & 0x7fffffffu);
    }
    const float m = __uint_as_float(most_of_block(most));
    const bool none = m < 0x1p-100f;
    const float by = none ? 0.0f : 448.0f / m;
    if (threadIdx.x == 0) scales[blockIdx.x] = none ? 0.0f : m / 448.0f;
    for (uint32_t k = 8 * threadIdx.x; k < n_in; k += 8 * THREADS) {
        cu_load8(row + k, x);
        *(uint2 *)(codes + (size_t)blockIdx.x * n_in + k) =
            make_uint2(four_e4m3(x, by), four_e4m3(x + 4, by));
    }
}

cudaError_t cu_w8a8_codes(cudaStream_t s, const cu_linear *l, void *codes) {
    const uint32_t n_in = l->w.n_in;
    if (n_in % 8 || l->ld_in % 8) return cudaErrorInvalidValue;
    if (l->n_rows == 0) return cudaSuccess;
    return cu_by_type(l->t, [&](auto type) {
        using T = decltype(type);
        CU_LAUNCH_EARLY((k_codes<T>), l->n_rows, THREADS, 0, s, n_in, l->ld_in,
                        (const T *)l->in, (uint8_t *)codes,
                        (float *)((char *)codes + cu_w8a8_scales_at(l->n_rows, n_in)));
        return cudaGetLastError();
    });
}

/* sums: [n_rows][n]; s: of rows, d: of outputs. A thread takes four outputs. */
static __global__ void __launch_bounds__(THREADS)
    k_scales(linear_out out, uint32_t n_rows, uint32_t n, const float *sums, const float *s,
             const float *d) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t col = (blockIdx.x * THREADS + threadIdx.x) * 4;
    if (col >= n) return;
    const float4 by = *(const float4 *)(d + col);
    for (uint32_t row = blockIdx.y; row < n_rows; row += gridDim.y) {
        const float4 y = *(const float4 *)(sums + (size_t)row * n + col);
        const float of_row = s[row];
        linear_put(out, row, col, __fmul_rn(y.x * of_row, by.x));
        linear_put(out, row, col + 1, __fmul_rn(y.y * of_row, by.y));
        linear_put(out, row, col + 2, __fmul_rn(y.z * of_row, by.z));
        linear_put(out, row, col + 3, __fmul_rn(y.w * of_row, by.w));
    }
}

cudaError_t cu_w8a8_scales(cudaStream_t s, const cu_linear *l, const void *codes, uint32_t row,
                           uint32_t n, const float *sums) {
    if (n % 4 || row % 4) return cudaErrorInvalidValue;
    if (l->n_rows == 0 || n == 0) return cudaSuccess;
    linear_out out = linear_out_of(l);
    out.p = (char *)out.p + (size_t)row * (l->kind == CU_OUT_T ? 2 : 4);
    const dim3 grid(cu_ceil_div(n, 4 * THREADS), l->n_rows < 32768 ? l->n_rows : 32768);
    const char *scales = (const char *)codes + cu_w8a8_scales_at(l->n_rows, l->w.n_in);
    CU_LAUNCH_EARLY(k_scales, grid, THREADS, 0, s, out, l->n_rows, n, sums,
                    (const float *)scales, (const float *)quant_view_of(&l->w).scales + row);
    return cudaGetLastError();
}
