/* IEEE binary16 and bfloat16 to and from float, in plain C: exact to float, round to nearest
 * even from float. The hardware instructions give the same bits. Scales of MXFP4 to float. Also for
 * device code. */
#ifndef VRAMD_BASE_HALF_H
#define VRAMD_BASE_HALF_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define HALF_INLINE static inline __host__ __device__
#else
#define HALF_INLINE static inline
#endif

HALF_INLINE float float_of_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
HALF_INLINE uint32_t bits_of_float(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

HALF_INLINE float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 0x3ff;
    if (exp == 31) return float_of_bits(sign | 0x7f800000u | man << 13);
    if (exp) return float_of_bits(sign | (exp + 112) << 23 | man << 13);
    float f = (float)man * 0x1p-24f; /* subnormal or zero: exact */
    return float_of_bits(sign | bits_of_float(f));
}

HALF_INLINE uint16_t half_of_float(float f) {
    uint32_t u = bits_of_float(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff)); /* NaN */
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* rounds to infinity */
    if (a < 0x38800000u) /* subnormal: let the float adder round at 2^-24 */
        return (uint16_t)(sign | (bits_of_float(float_of_bits(a) + 0.5f) - 0x3f000000u));
    uint32_t odd = a >> 13 & 1;
    return (uint16_t)(sign | (((a + 0xfff + odd) >> 13) - (112u << 10)));
}

HALF_INLINE float bf16_to_float(uint16_t b) {
    return float_of_bits((uint32_t)b << 16);
}

HALF_INLINE uint16_t bf16_of_float(float f) {
    uint32_t u = bits_of_float(f);
    if ((u & 0x7fffffff) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* Twice the numbers of E2M1, by code, for numbers that are then multiplied by half their scale. */
#define E2M1_TWICE 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12

/* Half of a scale of E8M0, 2^(e - 128); below 2 it is subnormal. 255, which means NaN, is 2^127 as
 * in ggml: whoever reads a file refuses it (dtype_is_finite). */
HALF_INLINE float e8m0_half(uint8_t e) {
    return float_of_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

#endif
