/* Sixteen virtual lanes of float32 as two AVX2 registers. Included by ops_avx2.c only. */
#ifndef VRAMD_ENGINE_CPU_VEC16_H
#define VRAMD_ENGINE_CPU_VEC16_H

#include <immintrin.h>

typedef struct v16 {
    __m256 a, b; /* lanes 0..7, 8..15 */
} v16;

#define V_INLINE       static inline __attribute__((always_inline))
#define V_BOTH(f, ...) ((v16){f(x.a, ##__VA_ARGS__), f(x.b, ##__VA_ARGS__)})

V_INLINE v16 v_set1(float f) {
    return (v16){_mm256_set1_ps(f), _mm256_set1_ps(f)};
}
V_INLINE v16 v_load(const float *p) {
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
V_INLINE void v_store(float *p, v16 x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
V_INLINE v16 v_load_n(const float *p, uint32_t n) {
    float t[16] = {0};
    for (uint32_t i = 0; i < n; i++) t[i] = p[i];
    return v_load(t);
}
V_INLINE void v_store_n(float *p, v16 x, uint32_t n) {
    float t[16];
    v_store(t, x);
    for (uint32_t i = 0; i < n; i++) p[i] = t[i];
}
V_INLINE v16 v_add(v16 x, v16 y) {
    return (v16){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
V_INLINE v16 v_sub(v16 x, v16 y) {
    return (v16){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
V_INLINE v16 v_mul(v16 x, v16 y) {
    return (v16){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
V_INLINE v16 v_div(v16 x, v16 y) {
    return (v16){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
V_INLINE v16 v_fma(v16 x, v16 y, v16 z) {
    return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
/* x > y ? x : y */
V_INLINE v16 v_max(v16 x, v16 y) {
    return (v16){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
V_INLINE v16 v_min(v16 x, v16 y) {
    return (v16){_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
V_INLINE v16 v_round(v16 x) {
    return V_BOTH(_mm256_round_ps, 8);
}
V_INLINE __m256 v_scale2_half(__m256 x, __m256 n) {
    __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), e));
}
/* x * 2^n for integral n that keeps it normal */
V_INLINE v16 v_scale2(v16 x, v16 n) {
    return (v16){v_scale2_half(x.a, n.a), v_scale2_half(x.b, n.b)};
}
/* x where at is at least lo, else 0 */
V_INLINE v16 v_zero_below(v16 x, v16 at, v16 lo) {
    return (v16){_mm256_and_ps(x.a, _mm256_cmp_ps(at.a, lo.a, _CMP_GE_OQ)),
                 _mm256_and_ps(x.b, _mm256_cmp_ps(at.b, lo.b, _CMP_GE_OQ))};
}
/* The first n lanes of x, else other */
V_INLINE v16 v_first(v16 x, uint32_t n, v16 other) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i lim = _mm256_set1_epi32((int)n), lim8 = _mm256_set1_epi32((int)n - 8);
    __m256 ma = _mm256_castsi256_ps(_mm256_cmpgt_epi32(lim, lane));
    __m256 mb = _mm256_castsi256_ps(_mm256_cmpgt_epi32(lim8, lane));
    return (v16){_mm256_blendv_ps(other.a, x.a, ma), _mm256_blendv_ps(other.b, x.b, mb)};
}
V_INLINE v16 v_load_f16(const void *p) {
    const __m128i *h = p;
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
V_INLINE __m256 v_bf16_half(__m128i h) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
V_INLINE v16 v_load_bf16(const void *p) {
    const __m128i *h = p;
    return (v16){v_bf16_half(_mm_loadu_si128(h)), v_bf16_half(_mm_loadu_si128(h + 1))};
}
V_INLINE void v_store_f16(void *p, v16 x) {
    __m128i *h = p;
    _mm_storeu_si128(h, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(h + 1, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
/* Sixteen e4m3, each times 1/256: their bits, moved, are those of an f16. */
V_INLINE v16 v_load_e4m3(const void *p) {
    __m256i w = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(p)), 7);
    w = _mm256_and_si256(w, _mm256_set1_epi16((short)0xbfff));
    return (v16){_mm256_cvtph_ps(_mm256_castsi256_si128(w)),
                 _mm256_cvtph_ps(_mm256_extracti128_si256(w, 1))};
}
/* The scales in sixteen words of int4 (kv_code.h). */
V_INLINE v16 v_load_int4_d(const void *p) {
    __m256i w = _mm256_srli_epi16(_mm256_loadu_si256(p), 1);
    w = _mm256_and_si256(w, _mm256_set1_epi16(0x7fe0));
    return (v16){_mm256_cvtph_ps(_mm256_castsi256_si128(w)),
                 _mm256_cvtph_ps(_mm256_extracti128_si256(w, 1))};
}

/* ---- sixteen integers of 32 bits, and pairs of 16 bits in their places ---- */

typedef struct i16 {
    __m256i a, b;
} i16;

V_INLINE i16 i_zero(void) {
    return (i16){_mm256_setzero_si256(), _mm256_setzero_si256()};
}
V_INLINE i16 i_one(void) {
    return (i16){_mm256_set1_epi32(1), _mm256_set1_epi32(1)};
}
/* sum + the dot product of each pair with the pair in q */
V_INLINE i16 i_dot(i16 sum, int32_t q, i16 x) {
    const __m256i pair = _mm256_set1_epi32(q);
    return (i16){_mm256_add_epi32(sum.a, _mm256_madd_epi16(pair, x.a)),
                 _mm256_add_epi32(sum.b, _mm256_madd_epi16(pair, x.b))};
}
/* Thirty-two signed bytes. */
V_INLINE i16 i_load_i8(const void *p) {
    const __m128i *h = p;
    return (i16){_mm256_cvtepi8_epi16(_mm_loadu_si128(h)),
                 _mm256_cvtepi8_epi16(_mm_loadu_si128(h + 1))};
}
V_INLINE __m128i i_nibbles(__m128i x) {
    return _mm_and_si128(x, _mm_set1_epi8(15));
}
/* The lower, the upper halves of thirty-two bytes. */
V_INLINE i16 i_load_lower(const void *p) {
    const __m128i *h = p;
    return (i16){_mm256_cvtepu8_epi16(i_nibbles(_mm_loadu_si128(h))),
                 _mm256_cvtepu8_epi16(i_nibbles(_mm_loadu_si128(h + 1)))};
}
V_INLINE i16 i_load_upper(const void *p) {
    const __m128i *h = p;
    __m128i x = _mm_srli_epi16(_mm_loadu_si128(h), 4);
    __m128i y = _mm_srli_epi16(_mm_loadu_si128(h + 1), 4);
    return (i16){_mm256_cvtepu8_epi16(i_nibbles(x)), _mm256_cvtepu8_epi16(i_nibbles(y))};
}
/* The lower halves of sixteen bytes, then their upper halves. */
V_INLINE i16 i_load_halves(const void *p) {
    __m128i x = _mm_loadu_si128(p);
    return (i16){_mm256_cvtepu8_epi16(i_nibbles(x)),
                 _mm256_cvtepu8_epi16(i_nibbles(_mm_srli_epi16(x, 4)))};
}
/* Zero points in sixteen words of int4, in quarters of a code. */
V_INLINE i16 i_load_int4_z(const void *p) {
    const __m128i *h = p;
    const __m128i six = _mm_set1_epi16(63);
    return (i16){_mm256_cvtepu16_epi32(_mm_and_si128(_mm_loadu_si128(h), six)),
                 _mm256_cvtepu16_epi32(_mm_and_si128(_mm_loadu_si128(h + 1), six))};
}
/* 4 x - y k */
V_INLINE i16 i_less(i16 x, i16 y, int32_t k) {
    const __m256i f = _mm256_set1_epi32(k);
    return (i16){_mm256_sub_epi32(_mm256_slli_epi32(x.a, 2), _mm256_mullo_epi32(y.a, f)),
                 _mm256_sub_epi32(_mm256_slli_epi32(x.b, 2), _mm256_mullo_epi32(y.b, f))};
}
V_INLINE v16 i_to_v(i16 x) {
    return (v16){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)};
}
/* Rounded to 16 bits: to nearest, ties to even. */
V_INLINE void v_store_i16(int16_t *p, v16 x) {
    __m256i w = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
    _mm256_storeu_si256((__m256i *)(void *)p, _mm256_permute4x64_epi64(w, 0xd8));
}

/* Butterflies of stride 1, 2, 4: of each pair the sum, then the difference. */
V_INLINE __m256 v_hadamard8(__m256 x) {
    const __m256 odd = _mm256_setr_ps(0, -0.0f, 0, -0.0f, 0, -0.0f, 0, -0.0f);
    const __m256 pair = _mm256_setr_ps(0, 0, -0.0f, -0.0f, 0, 0, -0.0f, -0.0f);
    const __m256 four = _mm256_setr_ps(0, 0, 0, 0, -0.0f, -0.0f, -0.0f, -0.0f);
    x = _mm256_add_ps(_mm256_permute_ps(x, 0xb1), _mm256_xor_ps(x, odd));
    x = _mm256_add_ps(_mm256_permute_ps(x, 0x4e), _mm256_xor_ps(x, pair));
    return _mm256_add_ps(_mm256_permute2f128_ps(x, x, 1), _mm256_xor_ps(x, four));
}
/* The Hadamard transform of sixteen, not normalised. */
V_INLINE v16 v_hadamard16(v16 x) {
    __m256 a = v_hadamard8(x.a), b = v_hadamard8(x.b);
    return (v16){_mm256_add_ps(a, b), _mm256_sub_ps(a, b)};
}
V_INLINE __m256 v_low(v16 x) {
    return x.a;
}
V_INLINE __m256 v_high(v16 x) {
    return x.b;
}

#endif
