/* What tiles say (engine/cpu/linear_tiles.h), one number at a time: for the plain twin and for
 * reading rows back. To be inlined with a type that is a constant. */
#ifndef VRAMD_ENGINE_CPU_LINEAR_DECODE_H
#define VRAMD_ENGINE_CPU_LINEAR_DECODE_H

#include "engine/cpu/linear_tiles.h"

#define DECODE static inline __attribute__((always_inline))

/* Scales of 32 inputs of one output. Without halves: weight = d * code (+ m); with halves:
 * weight = (d * scale[half]) * code (+ m * min[half]). The products of scales are exact: 11
 * bits by at most 8. */
typedef struct block_scale {
    float d, m;
    int32_t scale[2], min[2];
    int32_t zero; /* taken from codes */
} block_scale;

DECODE float half_at(const uint8_t *p, uint32_t i) {
    uint16_t h;
    memcpy(&h, p + 2 * i, 2);
    return half_to_float(h);
}
DECODE uint32_t word_at(const uint8_t *p, uint32_t i) {
    uint32_t v;
    memcpy(&v, p + 4 * i, 4);
    return v;
}

/* Scale and minimum of 6 bits: the first four of a block have bytes of their own, the others
 * four bits here and two above the first ones'. */
DECODE void scale_k(const uint8_t *words, uint32_t j, uint32_t o, block_scale *s) {
    uint32_t a = word_at(words, o), b = word_at(words + 64, o), c = word_at(words + 128, o);
    uint32_t at = 8 * (j % 4), scale, min;
    if (j < 4) {
        scale = a >> at & 63;
        min = b >> at & 63;
    } else {
        scale = (c >> at & 15) | (a >> at >> 6 & 3) << 4;
        min = (c >> at >> 4 & 15) | (b >> at >> 6 & 3) << 4;
    }
    s->d *= (float)scale;
    s->m *= -(float)min;
}

/* at: the bit where the halves of words begin. */
DECODE uint32_t scale_q3(const uint8_t *words, uint32_t j, uint32_t o, uint32_t at) {
    if (j < 6) return word_at(words + 64 * (j / 2), o) >> at >> (j % 2 ? 4 : 10) & 63;
    uint32_t low = word_at(words + 64 * (j - 6), o) >> at & 15;
    return low | (word_at(words + 128, o) >> at >> 2 * (j - 6) & 3) << 4;
}

DECODE float float_at(const uint8_t *p, dtype t, uint32_t i) {
    float f;
    uint16_t h;
    if (t == DT_F32) {
        memcpy(&f, p + 4 * i, 4);
        return f;
    }
    memcpy(&h, p + 2 * i, 2);
    return t == DT_F16 ? half_to_float(h) : bf16_to_float(h);
}

/* Of output o, a type with groups. */
DECODE int32_t zero_at(const uint8_t *tile, dtype t, uint32_t o) {
    const tile_info i = tile_of(t);
    const uint8_t *zeros = tile + STRIP * (i.head - i.zero);
    int16_t wide;
    if (i.zero < 2) return i.zero ? zeros[o] : 0;
    memcpy(&wide, zeros + 2 * o, 2);
    return wide;
}
DECODE block_scale group_scale(const uint8_t *tile, dtype t, uint32_t o) {
    return (block_scale){
        .d = float_at(tile, dtype_scale(t), o), .scale = {1, 1}, .zero = zero_at(tile, t, o)};
}

/* Inputs 32 j.. of output o. */
DECODE block_scale scale_at(const uint8_t *tile, dtype t, uint32_t j, uint32_t o) {
    const tile_info i = tile_of(t);
    if (i.grouped) return group_scale(tile, t, o);
    block_scale s = {t == DT_MXFP4 ? e8m0_half(tile[o]) : half_at(tile, o),
                     i.has_min ? half_at(tile + 32, o) : 0,
                     {1, 1},
                     {0, 0},
                     0};
    const uint8_t *more = tile + (i.has_min ? 64 : 32);
    switch (t) {
    case DT_Q4_K:
    case DT_Q5_K: scale_k(more, j, o, &s); break;
    case DT_IQ4_XS: {
        uint32_t high = word_at(more, o / 2) >> 16 * (o % 2), low = word_at(more + 32, o);
        s.d *= (float)((int)((low >> 4 * j & 15) | (high >> 2 * j & 3) << 4) - 32);
        break;
    }
    case DT_Q2_K:
        s.m = -s.m;
        for (int h = 0; h < 2; h++) {
            uint8_t v = more[32 * j + 2 * o + (uint32_t)h];
            s.scale[h] = v & 15;
            s.min[h] = v >> 4;
        }
        break;
    case DT_Q3_K:
        for (int h = 0; h < 2; h++) {
            s.scale[h] = (int)(scale_q3(more, j, o, 16 * (uint32_t)h) ^ 32) - 32;
        }
        break;
    case DT_Q6_K:
        for (int h = 0; h < 2; h++) s.scale[h] = (int8_t)more[32 * j + 2 * o + (uint32_t)h];
        break;
    default: break;
    }
    return s;
}

DECODE int nibble_at(const uint8_t *c, uint32_t k, uint32_t o) {
    uint8_t pair = c[64 * (k % 16 / 4) + 4 * o + k % 4];
    return k < 16 ? pair & 15 : pair >> 4;
}
DECODE int pair_at(const uint8_t *c, uint32_t k, uint32_t o) {
    return c[64 * (k / 16) + 4 * o + k % 4] >> 2 * (k % 16 / 4) & 3;
}
DECODE int bit_at(const uint8_t *c, uint32_t k, uint32_t o) {
    return c[4 * o + k % 4] >> k / 4 & 1;
}

DECODE int triple_at(const uint8_t *c, uint32_t k, uint32_t o) {
    const uint32_t l = k / 4;
    const uint8_t *byte = c + 4 * o + k % 4;
    if (l < 6) return byte[64 * (l / 2)] >> 3 * (l % 2) & 7;
    return byte[64 * (l - 6)] >> 6 | (byte[128] >> l & 1) << 2;
}

/* The code of input k of 32 for output o, offset undone. */
DECODE int code_at(const uint8_t *c, dtype t, uint32_t k, uint32_t o) {
    static const int8_t book[16] = {CODE_BOOK}, e2m1[16] = {E2M1_TWICE};
    const tile_info i = tile_of(t);
    switch (i.form) {
    case CODES_4: return nibble_at(c, k, o) - i.offset;
    case CODES_5: return (nibble_at(c, k, o) | bit_at(c + 256, k, o) << 4) - i.offset;
    case CODES_6: return (nibble_at(c, k, o) | pair_at(c + 256, k, o) << 4) - i.offset;
    case CODES_2: return pair_at(c, k, o) - i.offset;
    case CODES_3: return triple_at(c, k, o) - i.offset;
    case CODES_BOOK: return (t == DT_MXFP4 ? e2m1 : book)[nibble_at(c, k, o)];
    default: return c[64 * (k / 4) + 4 * o + k % 4] - i.offset;
    }
}

/* A number of e4m3; not of its NaNs, which are refused at load. */
DECODE float e4m3_to_float(uint32_t c) {
    return float_of_bits((c & 0x80) << 24 | (c & 0x7f) << 20) * 0x1p120f;
}

/* Weight of input k of 32. */
DECODE float weight_at(const block_scale *s, const uint8_t *c, dtype t, uint32_t k,
                       uint32_t o) {
    const tile_info i = tile_of(t);
    if (i.form == CODES_E4M3) return s->d * e4m3_to_float(c[64 * (k / 4) + 4 * o + k % 4]);
    const uint32_t h = i.halves && k >= 16;
    float d = i.halves ? s->d * (float)s->scale[h] : s->d;
    float w = d * (float)(code_at(c, t, k, o) - s->zero);
    if (!i.has_min) return w;
    return w + (i.halves ? s->m * (float)s->min[h] : s->m);
}

/* Where the codes of inputs 32 j.. of a tile are. */
DECODE const uint8_t *codes_at(const uint8_t *tile, dtype t, uint32_t j) {
    const tile_info i = tile_of(t);
    return tile + STRIP * (i.head + j * i.codes);
}

#endif
