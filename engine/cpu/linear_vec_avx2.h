/* What engine/cpu/linear_tile.h needs of AVX2: a vector of 8 lanes, half a strip. */
#ifndef VRAMD_ENGINE_CPU_LINEAR_VEC_H
#define VRAMD_ENGINE_CPU_LINEAR_VEC_H

#include <immintrin.h>
#include <string.h>

#include "engine/cpu/linear_tiles.h"

#define INLINE static inline __attribute__((always_inline))

/* DOT: vpdpbusd is there. SIGNED_CODES: codes of 8 bits are signed, for vpsignb; else they have 128
 * more, for vpdpbusd. */
#ifdef __AVXVNNI__
enum { LANES = 8, DOT = true, SIGNED_CODES = false };
#else
enum { LANES = 8, DOT = false, SIGNED_CODES = true };
#endif
typedef __m256i vi;
typedef __m256 vf;

INLINE __m128i loadi128(const uint8_t *p) {
    return _mm_loadu_si128((const __m128i *)p);
}
INLINE vi loadi(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
INLINE vi load_u16(const uint8_t *p) { /* to 32 bits */
    return _mm256_cvtepu16_epi32(loadi128(p));
}
INLINE vi load_u8_32(const uint8_t *p) { /* 8 of them */
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
INLINE vi load_i8(const uint8_t *p) { /* to 16 bits */
    return _mm256_cvtepi8_epi16(loadi128(p));
}
INLINE vi load_u8(const uint8_t *p) {
    return _mm256_cvtepu8_epi16(loadi128(p));
}
INLINE vf load_half(const uint8_t *p) {
    return _mm256_cvtph_ps(loadi128(p));
}
INLINE vf loadf(const float *p) {
    return _mm256_loadu_ps(p);
}
INLINE void storei(void *p, vi v) {
    _mm256_storeu_si256((__m256i *)p, v);
}
INLINE void storef(float *p, vf v) {
    _mm256_storeu_ps(p, v);
}
/* mask's bits from a, the others from b. */
INLINE vi pick(vi mask, vi a, vi b) {
    return _mm256_or_si256(_mm256_and_si256(mask, a), _mm256_andnot_si256(mask, b));
}
/* a | (b & mask), mask in every byte. */
INLINE vi or_masked(vi a, vi b, const int mask) {
    return _mm256_or_si256(a, _mm256_and_si256(b, _mm256_set1_epi8((char)mask)));
}
INLINE vi look_up(__m128i book, vi nibbles) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(book), nibbles);
}

INLINE __m256i broadcast4(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

INLINE vf broadcastf(const float *p) {
    return _mm256_broadcast_ss(p);
}
INLINE vf fused(vf a, vf b, vf c) { /* a b + c */
    return _mm256_fmadd_ps(a, b, c);
}

/* sum += v, in place and in this order: gcc would turn chains of integer additions into trees,
 * whose leaves do not fit 16 registers (half the speed), or move each sum to and fro (8%). */
INLINE void add16(__m256i *sum, __m256i v) {
    __asm__("vpaddw %1, %0, %0" : "+x"(*sum) : "x"(v));
}
INLINE void add32(__m256i *sum, __m256i v) {
    __asm__("vpaddd %1, %0, %0" : "+x"(*sum) : "x"(v));
}

#endif
