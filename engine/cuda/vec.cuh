/* What the row-wise kernels share: eight neighbours at a time between memory and float32
 * registers (16 bytes of T, two 16-byte halves of float32), a sum over a block, the gated
 * activation, and the choice of a kernel by type. */
#ifndef VRAMD_ENGINE_CUDA_VEC_CUH
#define VRAMD_ENGINE_CUDA_VEC_CUH

#include "engine/cuda/cu.h"
#include "engine/cuda/matrix.h"
#include "model/program.h"

/* ---- eight elements, 16-byte aligned ---- */

CU_DEVICE void cu_unpack8(uint4 v, float f[8], __half) {
    const __half2 *h = (const __half2 *)&v;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 p = __half22float2(h[i]);
        f[2 * i] = p.x, f[2 * i + 1] = p.y;
    }
}
CU_DEVICE void cu_unpack8(uint4 v, float f[8], __nv_bfloat16) {
    const uint32_t *w = (const uint32_t *)&v;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        f[2 * i] = __uint_as_float(w[i] << 16);
        f[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
    }
}
CU_DEVICE uint4 cu_pack8(const float f[8], __half) {
    uint4 v;
    __half2 *h = (__half2 *)&v;
#pragma unroll
    for (int i = 0; i < 4; i++) h[i] = cu_halves(f[2 * i], f[2 * i + 1]);
    return v;
}
CU_DEVICE uint4 cu_pack8(const float f[8], __nv_bfloat16) {
    uint4 v;
    __nv_bfloat162 *h = (__nv_bfloat162 *)&v;
#pragma unroll
    for (int i = 0; i < 4; i++) h[i] = __floats2bfloat162_rn(f[2 * i], f[2 * i + 1]);
    return v;
}

template <class T> CU_DEVICE void cu_load8(const T *p, float f[8]) {
    cu_unpack8(*(const uint4 *)p, f, T());
}
CU_DEVICE void cu_load8(const float *p, float f[8]) {
    float4 a = ((const float4 *)p)[0], b = ((const float4 *)p)[1];
    f[0] = a.x, f[1] = a.y, f[2] = a.z, f[3] = a.w;
    f[4] = b.x, f[5] = b.y, f[6] = b.z, f[7] = b.w;
}
template <class T> CU_DEVICE void cu_store8(T *p, const float f[8]) {
    *(uint4 *)p = cu_pack8(f, T());
}
CU_DEVICE void cu_store8(float *p, const float f[8]) {
    ((float4 *)p)[0] = make_float4(f[0], f[1], f[2], f[3]);
    ((float4 *)p)[1] = make_float4(f[4], f[5], f[6], f[7]);
}

CU_DEVICE float cu_to_float(__half h) {
    return __half2float(h);
}
CU_DEVICE float cu_to_float(__nv_bfloat16 h) {
    return __bfloat162float(h);
}
CU_DEVICE __half cu_from_float(float f, __half) {
    return __low2half(cu_halves(f, 0));
}
CU_DEVICE __nv_bfloat16 cu_from_float(float f, __nv_bfloat16) {
    return __float2bfloat16_rn(f);
}
CU_DEVICE float cu_from_float(float f, float) {
    return f;
}

/* ---- tensor cores: cu.h's m16n8k16 by the type of the inputs. d += a * b; d = a * b. */
CU_DEVICE void cu_mma(float d[4], const uint32_t a[4], const uint32_t b[2], __half) {
    cu_mma_f16(d, a, b);
}
CU_DEVICE void cu_mma(float d[4], const uint32_t a[4], const uint32_t b[2], __nv_bfloat16) {
    cu_mma_bf16(d, a, b);
}
CU_DEVICE void cu_mul(float d[4], const uint32_t a[4], const uint32_t b[2], __half) {
    cu_mul_f16(d, a, b);
}
CU_DEVICE void cu_mul(float d[4], const uint32_t a[4], const uint32_t b[2], __nv_bfloat16) {
    cu_mul_bf16(d, a, b);
}

/* ---- a sum over the block: within warps, then over the warps, always in the same order.
 * part: [32] of shared memory, free again after the next barrier. All threads call it. */
CU_DEVICE float cu_block_sum(float v, float *part) {
    uint32_t lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    v = cu_warp_sum(v);
    if (lane == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    return cu_warp_sum(lane < n_warps ? part[lane] : 0.0f);
}

/* ---- what several blocks do together: the last one to come finishes. True in all threads of the last of n blocks
 * at *count, which is zero before and after; it sees what the others wrote before, by loads past L1 (__ldcg). flag:
 * shared (CUDA C++ Programming Guide, "Memory Fence Functions"). */
CU_DEVICE bool cu_last_block(uint32_t *count, uint32_t n, uint32_t *flag) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        *flag = atomicAdd(count, 1u) + 1 == n;
        if (*flag) *count = 0;
    }
    __syncthreads();
    if (*flag) __threadfence();
    return *flag != 0;
}

/* act(g) * u. GELU in its tanh form is x / (1 + e^(-2v)), v = sqrt(2 / pi) (x + 0.044715 x^3)
 * (Hendrycks and Gimpel, "Gaussian error linear units", section 2). */
CU_DEVICE float cu_gated(activation act, float g, float u) {
    const float log2_e = 1.44269504f, limit = 7.0f;
    float v = g;
    if (act == ACT_GELU_TANH) v = g * (1.5957691216f * fmaf(g * g, 0.044715f, 1.0f));
    if (act == ACT_SWIGLU_OAI) { /* a NaN stays one, which fminf would lose */
        g = g > limit ? limit : g;
        v = 1.702f * g;
        u = (u > limit ? limit : u < -limit ? -limit : u) + 1.0f;
    }
    return g / (1.0f + cu_ex2(-log2_e * v)) * u;
}

/* cap * tanh(x), where t is 2^(2 x log2 e). */
CU_DEVICE float cu_capped(float t, float cap) {
    return cap * (1.0f - 2.0f / (1.0f + t));
}

/* ---- choices ---- */

/* Calls f with a value of the 16-bit type t stands for. */
template <class F> static inline cudaError_t cu_by_type(cu_type t, F f) {
    switch (t) {
    case CU_F16: return f(__half());
    case CU_BF16: return f(__nv_bfloat16());
    default: return cudaErrorInvalidValue;
    }
}

static inline uint32_t cu_ceil_div(uint32_t n, uint32_t d) {
    return n / d + (n % d != 0);
}

#endif
