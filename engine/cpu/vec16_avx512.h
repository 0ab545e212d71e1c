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
/* Sixteen e4m3, each times 1/256: their bits, moved, are those of an f16. */
V_INLINE v16 v_load_e4m3(const void *p) {
    __m256i w = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
    w = _mm256_and_si256(_mm256_slli_epi16(w, 7), _mm256_set1_epi16((short)0xbfff));
    return _mm512_cvtph_ps(w);
}
/* The scales in sixteen words of int4 (kv_code.h). */
V_INLINE v16 v_load_int4_d(const void *p) {
    __m256i w = _mm256_srli_epi16(_mm256_loadu_si256((const __m256i *)p), 1);
    return _mm512_cvtph_ps(_mm256_and_si256(w, _mm256_set1_epi16(0x7fe0)));
}

/* ---- sixteen integers of 32 bits, and pairs of 16 bits in their places ---- */

typedef __m512i i16;

V_INLINE i16 i_zero(void) {
    return _mm512_setzero_si512();
}
V_INLINE i16 i_one(void) {
    return _mm512_set1_epi32(1);
}
/* sum + the dot product of each pair with the pair in q */
V_INLINE i16 i_dot(i16 sum, int32_t q, i16 x) {
    return _mm512_dpwssd_epi32(sum, _mm512_set1_epi32(q), x);
}
/* Thirty-two signed bytes. */
V_INLINE i16 i_load_i8(const void *p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
}
V_INLINE i16 i_nibbles(__m256i x) {
    return _mm512_cvtepu8_epi16(_mm256_and_si256(x, _mm256_set1_epi8(15)));
}
/* The lower, the upper halves of thirty-two bytes. */
V_INLINE i16 i_load_lower(const void *p) {
    return i_nibbles(_mm256_loadu_si256((const __m256i *)p));
}
V_INLINE i16 i_load_upper(const void *p) {
    return i_nibbles(_mm256_srli_epi16(_mm256_loadu_si256((const __m256i *)p), 4));
}
/* The lower halves of sixteen bytes, then their upper halves. */
V_INLINE i16 i_load_halves(const void *p) {
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    return i_nibbles(_mm256_set_m128i(_mm_srli_epi16(x, 4), x));
}
/* Zero points in sixteen words of int4, in quarters of a code. */
V_INLINE i16 i_load_int4_z(const void *p) {
    __m256i w = _mm256_loadu_si256((const __m256i *)p);
    return _mm512_cvtepu16_epi32(_mm256_and_si256(w, _mm256_set1_epi16(63)));
}
/* 4 x - y k */
V_INLINE i16 i_less(i16 x, i16 y, int32_t k) {
    i16 product = _mm512_mullo_epi32(y, _mm512_set1_epi32(k));
    return _mm512_sub_epi32(_mm512_slli_epi32(x, 2), product);
}
V_INLINE v16 i_to_v(i16 x) {
    return _mm512_cvtepi32_ps(x);
}
/* Rounded to 16 bits: to nearest, ties to even. */
V_INLINE void v_store_i16(int16_t *p, v16 x) {
    __m256i w = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x));
    _mm256_storeu_si256((__m256i *)(void *)p, w);
}

/* Where in the upper of a pair: the partner, less x; else their sum. */
V_INLINE v16 v_butterfly(v16 partner, v16 x, __mmask16 upper) {
    return _mm512_mask_sub_ps(_mm512_add_ps(partner, x), upper, partner, x);
}
/* The Hadamard transform of sixteen, not normalised: butterflies of stride 1, 2, 4, 8. */
V_INLINE v16 v_hadamard16(v16 x) {
    x = v_butterfly(_mm512_permute_ps(x, 0xb1), x, 0xaaaa);
    x = v_butterfly(_mm512_permute_ps(x, 0x4e), x, 0xcccc);
    x = v_butterfly(_mm512_shuffle_f32x4(x, x, 0xb1), x, 0xf0f0);
    return v_butterfly(_mm512_shuffle_f32x4(x, x, 0x4e), x, 0xff00);
}
V_INLINE __m256 v_low(v16 x) {
    return _mm512_castps512_ps256(x);
}
V_INLINE __m256 v_high(v16 x) {
    return _mm512_extractf32x8_ps(x, 1);
}

#endif
