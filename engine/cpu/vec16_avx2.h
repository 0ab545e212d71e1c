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
V_INLINE __m256 v_low(v16 x) {
    return x.a;
}
V_INLINE __m256 v_high(v16 x) {
    return x.b;
}

#endif
