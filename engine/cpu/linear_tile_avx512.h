/* One tile (engine/cpu/linear_tiles.h) in AVX-512 registers: scales, codes, weights as float32.
 * A lane of 32 bits is an output. To be inlined with a type that is a constant. */
#ifndef VRAMD_ENGINE_CPU_LINEAR_TILE_AVX512_H
#define VRAMD_ENGINE_CPU_LINEAR_TILE_AVX512_H

#include <immintrin.h>

#include "engine/cpu/linear_tiles.h"

#define INLINE static inline __attribute__((always_inline))

/* Scales of a tile of 256, by 32 inputs. Types without halves: d and m as in block_scale
 * (engine/cpu/linear_decode.h). With halves: pairs of int16, first and last half. */
typedef union tile_scales {
    struct {
        float d[8][STRIP], m[8][STRIP];
    };
    struct {
        int32_t scale[8][STRIP], min[8][STRIP];
    };
} tile_scales;

INLINE __m512 load_half(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* Byte b of each lane. */
INLINE __m512 byte_floats(__m512i v, const int b) {
    return _mm512_cvtepi32_ps(
        _mm512_and_si512(_mm512_srli_epi32(v, (unsigned)(8 * b)), _mm512_set1_epi32(255)));
}

/* Four scales and four minima, as bytes of v and w. */
INLINE void put_scales_k(tile_scales *s, const int j, __m512i v, __m512i w, __m512 d,
                         __m512 neg_m) {
    for (int b = 0; b < 4; b++) {
        _mm512_store_ps(s->d[j + b], _mm512_mul_ps(d, byte_floats(v, b)));
        _mm512_store_ps(s->m[j + b], _mm512_mul_ps(neg_m, byte_floats(w, b)));
    }
}

INLINE void scales_k(const uint8_t *tile, tile_scales *s) {
    const __m512i low4 = _mm512_set1_epi8(15), low6 = _mm512_set1_epi8(63);
    const __m512i top2 = _mm512_set1_epi8(48);
    __m512i a = _mm512_loadu_si512(tile + 64), b = _mm512_loadu_si512(tile + 128);
    __m512i c = _mm512_loadu_si512(tile + 192);
    __m512 d = load_half(tile);
    __m512 neg_m = _mm512_sub_ps(_mm512_set1_ps(-0.0f), load_half(tile + 32));
    put_scales_k(s, 0, _mm512_and_si512(a, low6), _mm512_and_si512(b, low6), d, neg_m);
    a = _mm512_or_si512(_mm512_and_si512(c, low4),
                        _mm512_and_si512(_mm512_srli_epi32(a, 2), top2));
    b = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(c, 4), low4),
                        _mm512_and_si512(_mm512_srli_epi32(b, 2), top2));
    put_scales_k(s, 4, a, b, d, neg_m);
}

INLINE void scales_iq4_xs(const uint8_t *tile, tile_scales *s) {
    __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(tile + 32)));
    __m512i low = _mm512_loadu_si512(tile + 64);
    __m512 d = load_half(tile);
    high = _mm512_slli_epi32(high, 4);
    for (int j = 0; j < 8; j++) {
        __m512i v = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(15)),
                                    _mm512_and_si512(high, _mm512_set1_epi32(48)));
        v = _mm512_sub_epi32(v, _mm512_set1_epi32(32));
        _mm512_store_ps(s->d[j], _mm512_mul_ps(d, _mm512_cvtepi32_ps(v)));
        low = _mm512_srli_epi32(low, 4);
        high = _mm512_srli_epi32(high, 2);
    }
}

INLINE void scales_q3_k(const uint8_t *tile, tile_scales *s) {
    const __m512i top2 = _mm512_set1_epi16((int16_t)0xc000);
    __m512i v[3];
    for (int i = 0; i < 3; i++) v[i] = _mm512_loadu_si512(tile + 32 + 64 * i);
    for (int j = 0; j < 8; j++) {
        __m512i at_top = j % 2 && j < 6 ? _mm512_slli_epi16(v[j / 2], 6) : v[j / 2 % 3];
        if (j >= 6)
            at_top =
                _mm512_ternarylogic_epi32(top2, _mm512_slli_epi16(v[2], (unsigned)(26 - 2 * j)),
                                          _mm512_slli_epi16(v[j - 6], 10), 0xca);
        _mm512_store_si512(s->scale[j], _mm512_srai_epi16(at_top, 10));
    }
}

INLINE __m256i loadu256(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

INLINE void tile_scales_read(const uint8_t *tile, const dtype t, tile_scales *s) {
    if (t == DT_Q4_K || t == DT_Q5_K) scales_k(tile, s);
    if (t == DT_IQ4_XS) scales_iq4_xs(tile, s);
    if (t == DT_Q3_K) scales_q3_k(tile, s);
    for (int j = 0; j < 8 && t == DT_Q6_K; j++)
        _mm512_store_si512(s->scale[j], _mm512_cvtepi8_epi16(loadu256(tile + 32 + 32 * j)));
    for (int j = 0; j < 8 && t == DT_Q2_K; j++) {
        __m512i v = _mm512_cvtepu8_epi16(loadu256(tile + 64 + 32 * j));
        _mm512_store_si512(s->scale[j], _mm512_and_si512(v, _mm512_set1_epi16(15)));
        _mm512_store_si512(s->min[j], _mm512_srli_epi16(v, 4));
    }
}

/* Group l of 8 of nibbles, pairs, bits; junk above them, but for nibbles. at: the bit that
 * their lowest one is moved to. */
INLINE __m512i nibbles_of(const uint8_t *c, const int l) {
    __m512i v = _mm512_loadu_si512(c + 64 * (l % 4));
    return _mm512_and_si512(l < 4 ? v : _mm512_srli_epi32(v, 4), _mm512_set1_epi8(15));
}
INLINE __m512i shifted(__m512i v, const int by) {
    return by < 0   ? _mm512_srli_epi32(v, (unsigned)-by)
           : by > 0 ? _mm512_slli_epi32(v, (unsigned)by)
                    : v;
}
INLINE __m512i pairs_of(const uint8_t *c, const int l, const int at) {
    return shifted(_mm512_loadu_si512(c + 64 * (l / 4)), at - 2 * (l % 4));
}
INLINE __m512i bits_of(const uint8_t *c, const int l, const int at) {
    return shifted(_mm512_loadu_si512(c), at - l);
}
/* Of groups 6, 7 two bits, in the lowest ones. */
INLINE __m512i triples_of(const uint8_t *c, const int l) {
    return shifted(_mm512_loadu_si512(c + 64 * (l < 6 ? l / 2 : l - 6)),
                   l < 6 ? -3 * (l % 2) : -6);
}
/* a | (b & mask), mask in every byte. */
INLINE __m512i or_masked(__m512i a, __m512i b, const int mask) {
    return _mm512_ternarylogic_epi32(a, b, _mm512_set1_epi8((char)mask), 0xf8);
}

/* Group l of 8, as stored, without offset: 4 unsigned codes a lane. */
INLINE __m512i codes_of(const uint8_t *c, const dtype t, const int l) {
    switch (tile_of(t).form) {
    case CODES_4: return nibbles_of(c, l);
    case CODES_5: return or_masked(nibbles_of(c, l), bits_of(c + 256, l, 4), 16);
    case CODES_6: return or_masked(nibbles_of(c, l), pairs_of(c + 256, l, 4), 48);
    case CODES_2: return _mm512_and_si512(pairs_of(c, l, 0), _mm512_set1_epi8(3));
    case CODES_3:
        if (l < 6) return _mm512_and_si512(triples_of(c, l), _mm512_set1_epi8(7));
        return or_masked(_mm512_and_si512(triples_of(c, l), _mm512_set1_epi8(3)),
                         bits_of(c + 128, l, 2), 4);
    case CODES_BOOK: {
        const __m512i book = _mm512_broadcast_i32x4(
            _mm_xor_si128(_mm_setr_epi8(CODE_BOOK), _mm_set1_epi8(-128)));
        return _mm512_shuffle_epi8(book, nibbles_of(c, l));
    }
    default: return _mm512_loadu_si512(c + 64 * l);
    }
}

/* Weights of 32 inputs with these codes: w[k][output], exactly as packed_row gives them. d, m:
 * of the first and the last half. */
INLINE void block_floats(const uint8_t *c, const dtype t, const __m512 *d, const __m512 *m,
                         float *w) {
    const tile_info i = tile_of(t);
    for (int l = 0; l < 8; l++) {
        __m512i v = codes_of(c, t, l);
        for (int b = 0; b < 4; b++) {
            __m512i code = _mm512_and_si512(_mm512_srli_epi32(v, (unsigned)(8 * b)),
                                            _mm512_set1_epi32(255));
            code = _mm512_sub_epi32(code, _mm512_set1_epi32(i.offset));
            __m512 f = _mm512_mul_ps(d[l / 4], _mm512_cvtepi32_ps(code));
            _mm512_storeu_ps(w + STRIP * (4 * l + b),
                             i.has_min ? _mm512_add_ps(f, m[l / 4]) : f);
        }
    }
}

/* The halves of pairs of int16 as factors of a scale. */
INLINE void times_pair(__m512 *d, const int32_t *pair, __m512 by) {
    __m512i v = _mm512_load_si512(pair);
    d[0] =
        _mm512_mul_ps(by, _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(v, 16), 16)));
    d[1] = _mm512_mul_ps(by, _mm512_cvtepi32_ps(_mm512_srai_epi32(v, 16)));
}

/* A whole tile as float32: w[k][output]. */
INLINE void tile_floats(const uint8_t *tile, const dtype t, float *w) {
    const tile_info i = tile_of(t);
    const uint8_t *c = tile + STRIP * i.head;
    __m512 d[2], m[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    d[0] = d[1] = load_half(tile);
    if (i.has_min) m[0] = m[1] = load_half(tile + 32);
    if (i.n_in == 32) {
        block_floats(c, t, d, m, w);
        return;
    }
    _Alignas(64) tile_scales s;
    const __m512 all = d[0], neg_m = _mm512_sub_ps(_mm512_set1_ps(-0.0f), m[0]);
    tile_scales_read(tile, t, &s);
    for (int j = 0; j < 8; j++, c += STRIP * i.codes) {
        if (i.halves) {
            times_pair(d, s.scale[j], all);
            if (i.has_min) times_pair(m, s.min[j], neg_m);
        } else {
            d[0] = d[1] = _mm512_load_ps(s.d[j]);
            if (i.has_min) m[0] = m[1] = _mm512_load_ps(s.m[j]);
        }
        block_floats(c, t, d, m, w + 32 * STRIP * j);
    }
}

#endif
