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
/* Sixteen signed bytes. */
V_INLINE v16 v_load_i8(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
/* Sixteen e4m3, each times 1/256: their bits, moved, are those of an f16. */
V_INLINE v16 v_load_e4m3(const void *p) {
    __m256i w = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
    w = _mm256_and_si256(_mm256_slli_epi16(w, 7), _mm256_set1_epi16((short)0xbfff));
    return _mm512_cvtph_ps(w);
}
/* The number in the lower four bits of each of sixteen bytes: the permutation reads no others
 * of its index. */
V_INLINE v16 v_u4(__m128i x) {
    const __m512 number = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(x), number);
}
/* The lower and the upper halves of sixteen bytes. */
V_INLINE v16 v_load_u4_lower(const void *p) {
    return v_u4(_mm_loadu_si128((const __m128i *)p));
}
V_INLINE v16 v_load_u4_upper(const void *p) {
    return v_u4(_mm_srli_epi16(_mm_loadu_si128((const __m128i *)p), 4));
}
/* The lower halves of eight bytes, then their upper halves. */
V_INLINE v16 v_load_u4_halves(const void *p) {
    __m128i x = _mm_loadl_epi64((const __m128i *)p);
    return v_u4(_mm_unpacklo_epi64(x, _mm_srli_epi16(x, 4)));
}
/* Of sixteen words of int4 (kv_code.h): the scales, and the zero points. */
V_INLINE v16 v_load_int4_d(const void *p) {
    __m256i w = _mm256_srli_epi16(_mm256_loadu_si256((const __m256i *)p), 1);
    return _mm512_cvtph_ps(_mm256_and_si256(w, _mm256_set1_epi16(0x7fe0)));
}
V_INLINE v16 v_load_int4_z(const void *p) {
    __m256i w = _mm256_loadu_si256((const __m256i *)p);
    __m512i z = _mm512_cvtepu16_epi32(_mm256_and_si256(w, _mm256_set1_epi16(63)));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(z), _mm512_set1_ps(0.25f));
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
