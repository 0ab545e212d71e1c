/* Numbers of a cache of codes (engine/kv_code.h) on the device.
 *
 * The cache has H k and H v, not divided by anything. So that f16 holds them wherever it would
 * hold k and v, attention's tiles have them times kv_turn_scale(n), close to 1 / sqrt(n), and so
 * has q; what is missing to 1 / n in a score goes into its scale (kv_score_scale), and what is
 * missing in the result into cu_turn_back. All are powers of two. A tail has H k and H v in f16
 * as they are; tiles beside a tail, and all others of ATTN_CODES, have the same. */
#ifndef VRAMD_ENGINE_CUDA_KV_CODES_CUH
#define VRAMD_ENGINE_CUDA_KV_CODES_CUH

#include "engine/cuda/kernels.h"
#include "engine/kv_code.h"

/* The largest power of two up to 1 / sqrt(n), of a segment of n dimensions. */
KV_INLINE float kv_turn_scale(uint32_t n) {
    float s = 1.0f;
    for (uint32_t m = 1; m < n; m *= 4) s *= 0.5f;
    return s;
}
/* 1 / (n scale^2). */
KV_INLINE float kv_score_scale(uint32_t n) {
    return 1.0f / ((float)n * kv_turn_scale(n) * kv_turn_scale(n));
}

/* Four codes to f16, lower ones first, times d: signed bytes, or e4m3 as 1/256 of what it means
 * (kv_code_value). Each product is rounded once. */
CU_DEVICE void kv_codes_to_f16(uint32_t codes, bool fp8, __half2 d, uint32_t out[2]) {
    uint32_t x[2];
    if (fp8) { /* a byte's bits in the places of f16 */
        x[0] = __byte_perm(codes, 0, 0x1404), x[1] = __byte_perm(codes, 0, 0x3424);
#pragma unroll
        for (int i = 0; i < 2; i++) x[i] = (x[i] & 0x80008000u) | (x[i] & 0x7f007f00u) >> 1;
    } else { /* 1024 + 128 + code, exactly */
        codes ^= 0x80808080u;
        const uint32_t bias = 0x64806480u;
        x[0] = __byte_perm(codes, 0x64646464u, 0x4140);
        x[1] = __byte_perm(codes, 0x64646464u, 0x4342);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const __half2 h = __hsub2(*(const __half2 *)&x[i], *(const __half2 *)&bias);
            x[i] = *(const uint32_t *)&h;
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const __half2 h = __hmul2(*(const __half2 *)&x[i], d);
        out[i] = *(const uint32_t *)&h;
    }
}

/* Eight codes of int4 to f16, (code - z) d, of dimensions 0 to 7; each product is rounded once.
 * A code is put where f16 from 256 on has its units: 256 + code - (256 + z) is exact. */
CU_DEVICE void kv_int4_to_f16(uint32_t codes, uint16_t word, uint32_t out[4]) {
    const __half2 d = __half2half2(__ushort_as_half((unsigned short)(word >> 1 & 0x7fe0)));
    const uint32_t zero = 0x5c005c00u | (word & 63u) | (word & 63u) << 16;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t byte = codes >> 8 * i,
                       x = 0x5c005c00u | (byte << 2 & 0x3cu) | (byte << 14 & 0x3c0000u);
        const __half2 h = __hmul2(__hsub2(*(const __half2 *)&x, *(const __half2 *)&zero), d);
        out[i] = *(const uint32_t *)&h;
    }
}

#endif
