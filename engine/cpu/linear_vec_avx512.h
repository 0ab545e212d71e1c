/* What engine/cpu/linear_tile.h needs of AVX-512: a vector of 16 lanes, a whole strip. */
#ifndef VRAMD_ENGINE_CPU_LINEAR_VEC_H
#define VRAMD_ENGINE_CPU_LINEAR_VEC_H

#include <immintrin.h>
#include <string.h>

#include "engine/cpu/linear_tiles.h"

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16, SIGNED_CODES = false }; /* vpdpbusd takes unsigned ones */
typedef __m512i vi;
typedef __m512 vf;

INLINE __m256i loadi256(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
INLINE vi loadi(const void *p) {
    return _mm512_loadu_si512(p);
}
INLINE vi load_u16(const uint8_t *p) { /* to 32 bits */
    return _mm512_cvtepu16_epi32(loadi256(p));
}
INLINE vi load_u8_32(const uint8_t *p) { /* 16 of them */
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
INLINE vi load_i8(const uint8_t *p) { /* to 16 bits */
    return _mm512_cvtepi8_epi16(loadi256(p));
}
INLINE vi load_u8(const uint8_t *p) {
    return _mm512_cvtepu8_epi16(loadi256(p));
}
INLINE vf load_half(const uint8_t *p) {
    return _mm512_cvtph_ps(loadi256(p));
}
INLINE vf loadf(const float *p) {
    return _mm512_loadu_ps(p);
}
INLINE void storei(void *p, vi v) {
    _mm512_storeu_si512(p, v);
}
INLINE void storef(float *p, vf v) {
    _mm512_storeu_ps(p, v);
}
/* mask's bits from a, the others from b. */
INLINE vi pick(vi mask, vi a, vi b) {
    return _mm512_ternarylogic_epi32(mask, a, b, 0xca);
}
/* a | (b & mask), mask in every byte. */
INLINE vi or_masked(vi a, vi b, const int mask) {
    return _mm512_ternarylogic_epi32(a, b, _mm512_set1_epi8((char)mask), 0xf8);
}
INLINE vi look_up(__m128i book, vi nibbles) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(book), nibbles);
}

INLINE __m512i broadcast4(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}
INLINE __m512 broadcastf(const void *p) {
    return _mm512_castsi512_ps(broadcast4(p));
}
INLINE vf fused(vf a, vf b, vf c) { /* a b + c */
    return _mm512_fmadd_ps(a, b, c);
}

#endif
