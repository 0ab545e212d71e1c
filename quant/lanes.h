/* Eight floats side by side in C that every instruction set compiles to the same bits: nothing is contracted or
 * reassociated, and sums over lanes have a fixed order. Included by bodies that are compiled once for any
 * x86-64 and once for AVX2. */
#ifndef VRAMD_QUANT_LANES_H
#define VRAMD_QUANT_LANES_H

#ifdef __AVX2__
#include <immintrin.h>
#endif
#include <stdint.h>
#include <string.h>

typedef float v8f __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef uint8_t v8b __attribute__((vector_size(8)));

#define LANES static inline __attribute__((always_inline))

LANES v8f v8_load(const float *p) {
    v8f v;
    memcpy(&v, p, sizeof v);
    return v;
}
LANES v8f v8_all(float f) {
    return (v8f){f, f, f, f, f, f, f, f};
}
LANES v8f v8_pick(v8i mask, v8f yes, v8f no) {
    return (v8f)((mask & (v8i)yes) | (~mask & (v8i)no));
}
/* a < b ? a : b, and a > b ? a : b, of each lane. */
LANES v8f v8_min(v8f a, v8f b) {
#ifdef __AVX2__
    return (v8f)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return v8_pick(a < b, a, b);
#endif
}
LANES v8f v8_max(v8f a, v8f b) {
#ifdef __AVX2__
    return (v8f)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return v8_pick(a > b, a, b);
#endif
}
/* Truncates; what 32 bits do not hold becomes INT32_MIN. */
LANES v8i v8_int(v8f a) {
    return __builtin_convertvector(a, v8i);
}
LANES v8f v8_float(v8i a) {
    return __builtin_convertvector(a, v8f);
}
/* To the nearest integer, ties to even; |a| <= 2^22. */
LANES v8f v8_nearest(v8f a) {
    return (a + 12582912.0f) - 12582912.0f;
}
LANES float v8_sum(v8f a) {
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}
/* Of no NaN. */
LANES float v8_hmax(v8f a) {
    a = v8_max(a, __builtin_shufflevector(a, a, 4, 5, 6, 7, 0, 1, 2, 3));
    a = v8_max(a, __builtin_shufflevector(a, a, 2, 3, 0, 1, 6, 7, 4, 5));
    return a[0] > a[1] ? a[0] : a[1];
}
LANES float v8_hmin(v8f a) {
    return -v8_hmax(-a);
}
/* The first lane that has the value. */
LANES int v8_lane(v8f a, float value) {
    int i = 0;
    while (i < 7 && a[i] != value) i++;
    return i;
}
/* The low bytes, which are stored. */
LANES void v8_bytes(v8i a, uint8_t *out) {
    v8b b = __builtin_convertvector(a, v8b);
    memcpy(out, &b, sizeof b);
}

#endif
