/* Half a tile (engine/cpu/linear_tiles.h), 8 outputs, in AVX2 registers: scales, codes, weights
 * as float32. A lane of 32 bits is an output. To be inlined with a type that is a constant. */
#ifndef VRAMD_ENGINE_CPU_LINEAR_TILE_AVX2_H
#define VRAMD_ENGINE_CPU_LINEAR_TILE_AVX2_H

#include <immintrin.h>

#include "engine/cpu/linear_tiles.h"

#define INLINE static inline __attribute__((always_inline))

enum { HALF = 8 }; /* outputs */

/* Scales of half a tile of 256, by 32 inputs. Types without halves: d and m as in block_scale
 * (engine/cpu/linear_decode.h). With halves: pairs of int16, first and last half of 32. */
typedef union tile_scales {
    struct {
        float d[8][HALF], m[8][HALF];
    };
    struct {
        int32_t scale[8][HALF], min[8][HALF];
    };
} tile_scales;

INLINE __m256i loadi(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
INLINE __m128i loadi128(const uint8_t *p) {
    return _mm_loadu_si128((const __m128i *)p);
}
INLINE __m256 load_half(const uint8_t *p) {
    return _mm256_cvtph_ps(loadi128(p));
}
INLINE __m256 negative(__m256 v) {
    return _mm256_sub_ps(_mm256_set1_ps(-0.0f), v);
}
INLINE void storei(int32_t *p, __m256i v) {
    _mm256_store_si256((__m256i *)p, v);
}

/* Byte b of each lane. */
INLINE __m256 byte_floats(__m256i v, const int b) {
    return _mm256_cvtepi32_ps(
        _mm256_and_si256(_mm256_srli_epi32(v, 8 * b), _mm256_set1_epi32(255)));
}

/* Four scales and four minima, as bytes of v and w. */
INLINE void put_scales_k(tile_scales *s, const int j, __m256i v, __m256i w, __m256 d,
                         __m256 neg_m) {
    for (int b = 0; b < 4; b++) {
        _mm256_store_ps(s->d[j + b], _mm256_mul_ps(d, byte_floats(v, b)));
        _mm256_store_ps(s->m[j + b], _mm256_mul_ps(neg_m, byte_floats(w, b)));
    }
}

INLINE void scales_k(const uint8_t *tile, const uint32_t h, tile_scales *s) {
    const __m256i low4 = _mm256_set1_epi8(15), low6 = _mm256_set1_epi8(63);
    const __m256i top2 = _mm256_set1_epi8(48);
    const uint8_t *words = tile + 64 + 32 * h;
    __m256i a = loadi(words), b = loadi(words + 64), c = loadi(words + 128);
    __m256 d = load_half(tile + 16 * h), neg_m = negative(load_half(tile + 32 + 16 * h));
    put_scales_k(s, 0, _mm256_and_si256(a, low6), _mm256_and_si256(b, low6), d, neg_m);
    a = _mm256_or_si256(_mm256_and_si256(c, low4),
                        _mm256_and_si256(_mm256_srli_epi32(a, 2), top2));
    b = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(c, 4), low4),
                        _mm256_and_si256(_mm256_srli_epi32(b, 2), top2));
    put_scales_k(s, 4, a, b, d, neg_m);
}

INLINE void scales_iq4_xs(const uint8_t *tile, const uint32_t h, tile_scales *s) {
    __m256i high = _mm256_cvtepu16_epi32(loadi128(tile + 32 + 16 * h));
    __m256i low = loadi(tile + 64 + 32 * h);
    __m256 d = load_half(tile + 16 * h);
    high = _mm256_slli_epi32(high, 4);
    for (int j = 0; j < 8; j++) {
        __m256i v = _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi32(15)),
                                    _mm256_and_si256(high, _mm256_set1_epi32(48)));
        v = _mm256_sub_epi32(v, _mm256_set1_epi32(32));
        _mm256_store_ps(s->d[j], _mm256_mul_ps(d, _mm256_cvtepi32_ps(v)));
        low = _mm256_srli_epi32(low, 4);
        high = _mm256_srli_epi32(high, 2);
    }
}

INLINE void scales_q3_k(const uint8_t *tile, const uint32_t h, tile_scales *s) {
    const __m256i top2 = _mm256_set1_epi16((int16_t)0xc000);
    __m256i v[3];
    for (int i = 0; i < 3; i++) v[i] = loadi(tile + 32 + 64 * i + 32 * h);
    for (int j = 0; j < 8; j++) {
        __m256i at_top = j % 2 && j < 6 ? _mm256_slli_epi16(v[j / 2], 6) : v[j / 2 % 3];
        if (j >= 6) {
            __m256i high = _mm256_slli_epi16(v[2], 26 - 2 * j);
            __m256i low = _mm256_slli_epi16(v[j - 6], 10);
            at_top =
                _mm256_or_si256(_mm256_and_si256(top2, high), _mm256_andnot_si256(top2, low));
        }
        storei(s->scale[j], _mm256_srai_epi16(at_top, 10));
    }
}

/* Half h of a tile. */
INLINE void tile_scales_read(const uint8_t *tile, const dtype t, const uint32_t h,
                             tile_scales *s) {
    if (t == DT_Q4_K || t == DT_Q5_K) scales_k(tile, h, s);
    if (t == DT_IQ4_XS) scales_iq4_xs(tile, h, s);
    if (t == DT_Q3_K) scales_q3_k(tile, h, s);
    for (int j = 0; j < 8 && t == DT_Q6_K; j++)
        storei(s->scale[j], _mm256_cvtepi8_epi16(loadi128(tile + 32 + 32 * j + 16 * h)));
    for (int j = 0; j < 8 && t == DT_Q2_K; j++) {
        __m256i v = _mm256_cvtepu8_epi16(loadi128(tile + 64 + 32 * j + 16 * h));
        storei(s->scale[j], _mm256_and_si256(v, _mm256_set1_epi16(15)));
        storei(s->min[j], _mm256_srli_epi16(v, 4));
    }
}

/* Group l of 8 of nibbles, pairs, bits; junk above them, but for nibbles. at: the bit that
 * their lowest one is moved to. c: the codes, 32 bytes further on for the second half. */
INLINE __m256i nibbles_of(const uint8_t *c, const int l) {
    __m256i v = loadi(c + 64 * (l % 4));
    return _mm256_and_si256(l < 4 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
}
INLINE __m256i shifted(__m256i v, const int by) {
    return by < 0 ? _mm256_srli_epi16(v, -by) : by > 0 ? _mm256_slli_epi16(v, by) : v;
}
INLINE __m256i pairs_of(const uint8_t *c, const int l, const int at) {
    return shifted(loadi(c + 64 * (l / 4)), at - 2 * (l % 4));
}
INLINE __m256i bits_of(const uint8_t *c, const int l, const int at) {
    return shifted(loadi(c), at - l);
}
/* Of groups 6, 7 two bits, in the lowest ones. */
INLINE __m256i triples_of(const uint8_t *c, const int l) {
    return shifted(loadi(c + 64 * (l < 6 ? l / 2 : l - 6)), l < 6 ? -3 * (l % 2) : -6);
}
INLINE __m256i or_masked(__m256i a, __m256i b, const int mask) {
    return _mm256_or_si256(a, _mm256_and_si256(b, _mm256_set1_epi8((char)mask)));
}

/* Group l of 8, 4 codes a lane: unsigned and without offset where they are of 6 bits at most,
 * signed numbers where they are of 8. */
INLINE __m256i codes_of(const uint8_t *c, const dtype t, const int l) {
    switch (tile_of(t).form) {
    case CODES_4: return nibbles_of(c, l);
    case CODES_5: return or_masked(nibbles_of(c, l), bits_of(c + 256, l, 4), 16);
    case CODES_6: return or_masked(nibbles_of(c, l), pairs_of(c + 256, l, 4), 48);
    case CODES_2: return _mm256_and_si256(pairs_of(c, l, 0), _mm256_set1_epi8(3));
    case CODES_3:
        if (l < 6) return _mm256_and_si256(triples_of(c, l), _mm256_set1_epi8(7));
        return or_masked(_mm256_and_si256(triples_of(c, l), _mm256_set1_epi8(3)),
                         bits_of(c + 128, l, 2), 4);
    case CODES_BOOK:
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_setr_epi8(CODE_BOOK)),
                                   nibbles_of(c, l));
    default: return _mm256_xor_si256(loadi(c + 64 * l), _mm256_set1_epi8(-128));
    }
}

/* Weights of 32 inputs with these codes: w[k][STRIP], 8 of them, exactly as packed_row gives
 * them. d, m: of the first and the last half. */
INLINE void block_floats(const uint8_t *c, const dtype t, const __m256 *d, const __m256 *m,
                         float *w) {
    const tile_info i = tile_of(t);
    const int offset = i.offset == 128 ? 0 : i.offset;
    for (int l = 0; l < 8; l++) {
        __m256i v = codes_of(c, t, l);
        for (int b = 0; b < 4; b++) {
            __m256i code = _mm256_srai_epi32(_mm256_slli_epi32(v, 24 - 8 * b), 24);
            code = _mm256_sub_epi32(code, _mm256_set1_epi32(offset));
            __m256 f = _mm256_mul_ps(d[l / 4], _mm256_cvtepi32_ps(code));
            _mm256_storeu_ps(w + STRIP * (4 * l + b),
                             i.has_min ? _mm256_add_ps(f, m[l / 4]) : f);
        }
    }
}

/* The halves of pairs of int16 as factors of a scale. */
INLINE void times_pair(__m256 *d, const int32_t *pair, __m256 by) {
    __m256i v = loadi(pair), first = _mm256_srai_epi32(_mm256_slli_epi32(v, 16), 16);
    d[0] = _mm256_mul_ps(by, _mm256_cvtepi32_ps(first));
    d[1] = _mm256_mul_ps(by, _mm256_cvtepi32_ps(_mm256_srai_epi32(v, 16)));
}

/* Half h of a tile as float32: w[k][STRIP], 8 of them. */
INLINE void half_floats(const uint8_t *tile, const dtype t, const uint32_t h, float *w) {
    const tile_info i = tile_of(t);
    const uint8_t *c = tile + STRIP * i.head + 32 * h;
    __m256 d[2], m[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    d[0] = d[1] = load_half(tile + 16 * h);
    if (i.has_min) m[0] = m[1] = load_half(tile + 32 + 16 * h);
    if (i.n_in == 32) {
        block_floats(c, t, d, m, w);
        return;
    }
    _Alignas(32) tile_scales s;
    const __m256 all = d[0], neg_m = negative(m[0]);
    tile_scales_read(tile, t, h, &s);
    for (int j = 0; j < 8; j++, c += STRIP * i.codes) {
        if (i.halves) {
            times_pair(d, s.scale[j], all);
            if (i.has_min) times_pair(m, s.min[j], neg_m);
        } else {
            d[0] = d[1] = _mm256_load_ps(s.d[j]);
            if (i.has_min) m[0] = m[1] = _mm256_load_ps(s.m[j]);
        }
        block_floats(c, t, d, m, w + 32 * STRIP * j);
    }
}

#endif
