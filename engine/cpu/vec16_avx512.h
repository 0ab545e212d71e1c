/* Sixteen virtual lanes of float32 on AVX-512. See vec16_avx2.h for the same on AVX2. Included
 * by ops_avx512.c only. */
#ifndef VRAMD_ENGINE_CPU_VEC16_H
#define VRAMD_ENGINE_CPU_VEC16_H

#include <immintrin.h>

typedef __m512 v16;

#define V_INLINE static inline __attribute__((always_inline))

V_INLINE v16 v_set1(float x) {
    return _mm512_set1_ps(x);
}
V_INLINE v16 v_load(const float *p) {
    return _mm512_loadu_ps(p);
}
V_INLINE void v_store(float *p, v16 x) {
    _mm512_storeu_ps(p, x);
}
V_INLINE v16 v_load_n(const float *p, uint32_t n) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
V_INLINE void v_store_n(float *p, v16 x, uint32_t n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), x);
}
V_INLINE v16 v_add(v16 a, v16 b) {
    return _mm512_add_ps(a, b);
}
V_INLINE v16 v_sub(v16 a, v16 b) {
    return _mm512_sub_ps(a, b);
}
V_INLINE v16 v_mul(v16 a, v16 b) {
    return _mm512_mul_ps(a, b);
}
V_INLINE v16 v_div(v16 a, v16 b) {
    return _mm512_div_ps(a, b);
}
V_INLINE v16 v_fma(v16 a, v16 b, v16 c) {
    return _mm512_fmadd_ps(a, b, c);
}
/* a > b ? a : b */
V_INLINE v16 v_max(v16 a, v16 b) {
    return _mm512_max_ps(a, b);
}
V_INLINE v16 v_min(v16 a, v16 b) {
    return _mm512_min_ps(a, b);
}
V_INLINE v16 v_round(v16 x) {
    return _mm512_roundscale_ps(x, 8);
}
/* x * 2^n for integral n that keeps it normal */
V_INLINE v16 v_scale2(v16 x, v16 n) {
    __m512i e = _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), e));
}
/* x where at least lo, else 0 */
V_INLINE v16 v_zero_below(v16 x, v16 at, v16 lo) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(at, lo, _CMP_GE_OQ), x);
}
/* The first n lanes of x, else other */
V_INLINE v16 v_first(v16 x, uint32_t n, v16 other) {
    return _mm512_mask_mov_ps(other, (__mmask16)((1u << n) - 1), x);
}
V_INLINE v16 v_load_f16(const void *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
V_INLINE v16 v_load_bf16(const void *p) {
    __m512i w = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}
V_INLINE void v_store_f16(void *p, v16 x) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
V_INLINE __m256 v_low(v16 x) {
    return _mm512_castps512_ps256(x);
}
V_INLINE __m256 v_high(v16 x) {
    return _mm512_extractf32x8_ps(x, 1);
}

#endif
