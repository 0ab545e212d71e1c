/* What the two kernels that rotate q and k and append to the cache share (rope.cu, kv_codes.cu):
 * angles, and where a row's token lies. */
#ifndef VRAMD_ENGINE_CUDA_ROPE_CUH
#define VRAMD_ENGINE_CUDA_ROPE_CUH

#include "engine/cuda/kernels.h"
#include "engine/cuda/vec.cuh"

/* Cosine and sine of pos * f. The product is split exactly into x + rest (fma); x is reduced by
 * multiples k of pi / 2, whose first part P1 leaves x - k P1 exact (both are multiples of 2^-23
 * and the difference is below 1); then the polynomials of Cephes' sinf and cosf on [-pi / 4, pi
 * / 4], 1 ulp. Up to position 2^20 the result is within 3e-7. */
CU_DEVICE float2 cos_sin(int32_t pos, cu_freq f) {
    const float p = (float)pos, x = __fmul_rn(p, f.high);
    const float rest = fmaf(p, f.low, fmaf(p, f.high, -x));
    const float k = rintf(__fmul_rn(x, 0.636619747f));
    float r = fmaf(-k, 1.57079637f, x);
    r = __fadd_rn(fmaf(-k, -4.37113883e-8f, r), rest);
    const float z = __fmul_rn(r, r);
    float s = fmaf(fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f);
    s = fmaf(__fmul_rn(s, z), r, r);
    float c =
        fmaf(fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
    c = fmaf(__fmul_rn(c, z), z, fmaf(-0.5f, z, 1.0f));
    const uint32_t quadrant = (uint32_t)(int32_t)k & 3;
    const float a = quadrant & 1 ? s : c, b = quadrant & 1 ? c : s;
    return make_float2(quadrant == 1 || quadrant == 2 ? -a : a, quadrant >= 2 ? -b : b);
}

/* Two dimensions that turn together, by the cosine and sine cs: products are rounded, so that all who rotate have the
 * same bits. */
CU_DEVICE float2 turn_pair(float x, float y, float2 cs) {
    return make_float2(__fsub_rn(__fmul_rn(x, cs.x), __fmul_rn(y, cs.y)),
                       __fadd_rn(__fmul_rn(x, cs.y), __fmul_rn(y, cs.x)));
}

/* A cu_rope and its tables as the kernel takes them. */
struct rope_args : cu_rope {
    cu_tables tables;
};

/* This layer's parts of the block of a row's token, of the cache or of its tail. NULL: nowhere. */
CU_DEVICE char *cache_parts(const rope_args &a, const cu_kv &kv, uint32_t row, uint32_t pos) {
    const int32_t *table =
        a.tables.blocks[kv.group] + (size_t)a.tables.entry[row] * a.tables.table_stride;
    const int32_t block = table[pos >> kv.format.block_shift];
    return block < 0 ? NULL : (char *)kv.base + (uint64_t)block * kv.block_stride;
}

#endif
