/* Tiles (engine/cpu/linear_tiles.h) in vector registers: scales, codes, weights as float32. A
 * lane of 32 bits is an output; a vector has LANES of them, part h of a strip: the whole of it,
 * or half. Comes after linear_vec_avx2.h or linear_vec_avx512.h. To be inlined with a type that
 * is a constant. */
#ifndef VRAMD_ENGINE_CPU_LINEAR_TILE_H
#define VRAMD_ENGINE_CPU_LINEAR_TILE_H

enum { PARTS = STRIP / LANES };

/* Ahead of the weights being read, in stream order: far ones into the second cache, so that the
 * few lines that the first cache can wait for do not bound the rate, near ones into the first.
 * Against one distance of 4,096 into the first, and none where few rows of Q4_0, Q4_1 and Q8_0
 * met: decode of a 1B shape, whose weights come from memory, 1.20 times as fast (Intel family 6
 * model 167, 2 threads; Q4_0, Q8_0, Q4_K alike), 4 rows 1.08 to 1.16. AVX2 still has none where few
 * rows meet Q4_0, Q4_1 and Q8_0: 5% faster without (Zen 4, 98 MB of weights). */
enum { PREFETCH_FAR = 4096, PREFETCH_NEAR = 512 };
INLINE void prefetch(const uint8_t *p, const uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i += 64) {
        _mm_prefetch((const char *)p + PREFETCH_FAR + i, _MM_HINT_T1);
        _mm_prefetch((const char *)p + PREFETCH_NEAR + i, _MM_HINT_T0);
    }
}

/* A vector's numbers of 8, 16 and 32 bits, for the operators of C. */
typedef uint8_t u8s __attribute__((vector_size(4 * LANES)));
typedef uint16_t u16s __attribute__((vector_size(4 * LANES)));
typedef int16_t i16s __attribute__((vector_size(4 * LANES)));
typedef uint32_t u32s __attribute__((vector_size(4 * LANES)));
typedef int32_t i32s __attribute__((vector_size(4 * LANES)));

INLINE vi all8(const int v) {
    return (vi)((u8s){0} + (uint8_t)v);
}
INLINE vi all16(const int v) {
    return (vi)((u16s){0} + (uint16_t)v);
}
INLINE vf floats_of(vi v) {
    return __builtin_convertvector((i32s)v, vf);
}
/* By a constant, to the left; junk from other bytes. */
INLINE vi shifted(vi v, const int by) {
    return by < 0 ? (vi)((u32s)v >> (uint32_t)-by) : (vi)((u32s)v << (uint32_t)by);
}

/* d of part h of a tile of 32. */
INLINE vf tile_d(const uint8_t *tile, const dtype t, const uint32_t h) {
    if (t != DT_MXFP4) return load_half(tile + 2 * LANES * h);
    const u32s e = (u32s)load_u8_32(tile + LANES * h), tiny = (u32s)(e < 2u);
    return (vf)((tiny & ((e + 1u) << 21u)) | (~tiny & ((e - 1u) << 23u)));
}

/* Scales of part of a tile of 256, by 32 inputs. Types without halves: d and m as in
 * block_scale (engine/cpu/linear_decode.h). With halves: pairs of int16, first and last half of
 * 32. */
typedef union tile_scales {
    struct {
        float d[8][LANES], m[8][LANES];
    };
    struct {
        int32_t scale[8][LANES], min[8][LANES];
    };
} tile_scales;

/* Four scales and four minima, as bytes of v and w. */
INLINE void put_scales_k(tile_scales *s, const int j, vi v, vi w, vf d, vf neg_m) {
    for (uint32_t b = 0; b < 4; b++) {
        storef(s->d[j + (int)b], d * floats_of((vi)((u32s)v >> 8 * b & 255u)));
        storef(s->m[j + (int)b], neg_m * floats_of((vi)((u32s)w >> 8 * b & 255u)));
    }
}

INLINE void scales_k(const uint8_t *tile, const uint32_t h, tile_scales *s) {
    const uint8_t *words = tile + 64 + 4 * LANES * h;
    const vi top2 = all8(48);
    vi a = loadi(words), b = loadi(words + 64), c = loadi(words + 128);
    vf d = load_half(tile + 2 * LANES * h), neg_m = -load_half(tile + 32 + 2 * LANES * h);
    put_scales_k(s, 0, a & all8(63), b & all8(63), d, neg_m);
    a = (c & all8(15)) | (shifted(a, -2) & top2);
    b = (shifted(c, -4) & all8(15)) | (shifted(b, -2) & top2);
    put_scales_k(s, 4, a, b, d, neg_m);
}

INLINE void scales_iq4_xs(const uint8_t *tile, const uint32_t h, tile_scales *s) {
    u32s high = (u32s)load_u16(tile + 32 + 2 * LANES * h) << 4u;
    u32s low = (u32s)loadi(tile + 64 + 4 * LANES * h);
    vf d = load_half(tile + 2 * LANES * h);
    for (int j = 0; j < 8; j++) {
        i32s v = (i32s)((low & 15u) | (high & 48u)) - 32;
        storef(s->d[j], d * floats_of((vi)v));
        low >>= 4u;
        high >>= 2u;
    }
}

INLINE void scales_q3_k(const uint8_t *tile, const uint32_t h, tile_scales *s) {
    vi v[3];
    for (int i = 0; i < 3; i++) v[i] = loadi(tile + 32 + 64 * i + 4 * LANES * h);
    for (int j = 0; j < 8; j++) {
        vi at_top = shifted(v[j / 2 % 3], 6 * (j % 2));
        if (j >= 6)
            at_top = pick(all16(0xc000), shifted(v[2], 26 - 2 * j), shifted(v[j - 6], 10));
        storei(s->scale[j], (vi)((i16s)at_top >> (int16_t)10));
    }
}

INLINE void tile_scales_read(const uint8_t *tile, const dtype t, const uint32_t h,
                             tile_scales *s) {
    if (t == DT_Q4_K || t == DT_Q5_K) scales_k(tile, h, s);
    if (t == DT_IQ4_XS) scales_iq4_xs(tile, h, s);
    if (t == DT_Q3_K) scales_q3_k(tile, h, s);
    for (int j = 0; j < 8 && t == DT_Q6_K; j++)
        storei(s->scale[j], load_i8(tile + 32 + 32 * j + 2 * LANES * h));
    for (int j = 0; j < 8 && t == DT_Q2_K; j++) {
        vi v = load_u8(tile + 64 + 32 * j + 2 * LANES * h);
        storei(s->scale[j], v & all16(15));
        storei(s->min[j], (vi)((u16s)v >> (uint16_t)4));
    }
}

/* Group l of 8 of nibbles, pairs, bits, codes of 3 bits; junk above them, but for nibbles. at:
 * the bit that their lowest one is moved to. c: the codes of a part. */
INLINE vi nibbles_of(const uint8_t *c, const int l) {
    return shifted(loadi(c + 64 * (l % 4)), l < 4 ? 0 : -4) & all8(15);
}
INLINE vi pairs_of(const uint8_t *c, const int l, const int at) {
    return shifted(loadi(c + 64 * (l / 4)), at - 2 * (l % 4));
}
INLINE vi bits_of(const uint8_t *c, const int l, const int at) {
    return shifted(loadi(c), at - l);
}
INLINE vi triples_of(const uint8_t *c, const int l) { /* of groups 6, 7 the low two bits */
    return shifted(loadi(c + 64 * (l < 6 ? l / 2 : l - 6)), l < 6 ? -3 * (l % 2) : -6);
}

/* Group l of 8, 4 codes a lane: as stored, without offset; those of 8 bits signed numbers where
 * SIGNED_CODES. */
INLINE vi codes_of(const uint8_t *c, const dtype t, const int l) {
    const __m128i book = _mm_setr_epi8(CODE_BOOK),
                  stored = _mm_xor_si128(book, _mm_set1_epi8(-128)),
                  e2m1 = _mm_add_epi8(_mm_setr_epi8(E2M1_TWICE), _mm_set1_epi8(16));
    switch (tile_of(t).form) {
    case CODES_4: return nibbles_of(c, l);
    case CODES_5: return or_masked(nibbles_of(c, l), bits_of(c + 256, l, 4), 16);
    case CODES_6: return or_masked(nibbles_of(c, l), pairs_of(c + 256, l, 4), 48);
    case CODES_2: return pairs_of(c, l, 0) & all8(3);
    case CODES_3:
        if (l < 6) return triples_of(c, l) & all8(7);
        return or_masked(triples_of(c, l) & all8(3), bits_of(c + 128, l, 2), 4);
    case CODES_BOOK:
        return look_up(t == DT_MXFP4 ? e2m1 : SIGNED_CODES ? book : stored, nibbles_of(c, l));
    case CODES_E4M3: return loadi(c + 64 * l);
    default: return loadi(c + 64 * l) ^ all8(SIGNED_CODES ? -128 : 0);
    }
}

/* Weights of 32 inputs with these codes: w[k][STRIP], LANES of them, exactly as packed_row
 * gives them. d, m: of the first and the last half; m of types with zero points: those, as integers. */
INLINE void block_floats(const uint8_t *c, const dtype t, const vf *d, const vf *m, float *w) {
    const tile_info i = tile_of(t);
    const bool is_signed = SIGNED_CODES && i.offset == 128;
    for (int l = 0; l < 8; l++) {
        vi v = codes_of(c, t, l);
        for (uint32_t b = 0; b < 4; b++) {
            if (i.form == CODES_E4M3) {
                const u32s c8 = (u32s)v >> 8 * b;
                vf e4m3 = (vf)((c8 & 0x80u) << 24u | (c8 & 0x7fu) << 20u) * 0x1p120f;
                storef(w + STRIP * (4 * l + (int)b), d[l / 4] * e4m3);
                continue;
            }
            i32s code = (i32s)((u32s)v << (24 - 8 * b)) >> 24;
            if (!is_signed) code = (i32s)((u32s)v >> 8 * b & 255u) - (int32_t)i.offset;
            if (i.zero) code -= (i32s)m[l / 4];
            vf f = d[l / 4] * floats_of((vi)code);
            if (i.has_min) f += m[l / 4];
            storef(w + STRIP * (4 * l + (int)b), f);
        }
    }
}

/* The halves of pairs of int16 as factors of a scale. */
INLINE void times_pair(vf *d, const int32_t *pair, vf by) {
    i32s v = (i32s)loadi(pair);
    d[0] = by * floats_of((vi)((i32s)((u32s)v << 16u) >> 16));
    d[1] = by * floats_of((vi)(v >> 16));
}

/* Part h of a tile as float32: w[k][STRIP], LANES of them. */
INLINE void part_floats(const uint8_t *tile, const dtype t, const uint32_t h, float *w) {
    const tile_info i = tile_of(t);
    const uint8_t *c = tile + STRIP * i.head + 4 * LANES * h;
    vf d[2], m[2] = {0};
    d[0] = d[1] = tile_d(tile, t, h);
    if (i.has_min) m[0] = m[1] = load_half(tile + 32 + 2 * LANES * h);
    if (i.n_in == 32) {
        block_floats(c, t, d, m, w);
        return;
    }
    _Alignas(64) tile_scales s;
    const vf all = d[0], neg_m = -m[0];
    tile_scales_read(tile, t, h, &s);
    for (int j = 0; j < 8; j++, c += STRIP * i.codes) {
        if (i.halves) {
            times_pair(d, s.scale[j], all);
            if (i.has_min) times_pair(m, s.min[j], neg_m);
        } else {
            d[0] = d[1] = loadf(s.d[j]);
            if (i.has_min) m[0] = m[1] = loadf(s.m[j]);
        }
        block_floats(c, t, d, m, w + 32 * STRIP * j);
    }
}

/* ---- kinds with groups ---- */

/* Numbers of part h of 16 of a type. */
INLINE vf floats_at(const uint8_t *p, const dtype t, const uint32_t h) {
    if (t == DT_F16) return load_half(p + 2 * LANES * h);
    if (t == DT_BF16) return (vf)shifted(load_u16(p + 2 * LANES * h), 16);
    return loadf((const float *)(const void *)(p + 4 * LANES * h));
}

/* Zero points of part h of a tile of a group, to 32 bits. kind: a constant, of t. */
INLINE vi zeros_at(const uint8_t *tile, const dtype kind, const dtype t, const uint32_t h) {
    const uint32_t bytes = tile_of(kind).zero;
    const uint8_t *zeros = tile + STRIP * (tile_of(t).head - bytes) + bytes * LANES * h;
    return bytes == 1 ? load_u8_32(zeros) : (vi)((i32s)shifted(load_u16(zeros), 16) >> 16);
}

/* Less the zero points, as pairs of int16: by the sums of halves. */
INLINE vf negative_zeros(const uint8_t *tile, const dtype kind, const dtype t,
                         const uint32_t h) {
    const i32s less = -(i32s)zeros_at(tile, kind, t, h);
    return (vf)((less & 0xffff) | (i32s)shifted((vi)less, 16));
}

/* Inputs [at, at + 32) of a group's tile: w[k][STRIP]. kind: a constant; t: with group and scale. */
INLINE void group_floats(const uint8_t *tile, const dtype kind, const dtype t, uint32_t at,
                         float *w) {
    const tile_info i = tile_of(t);
    const uint8_t *codes = tile + STRIP * (i.head + at / 32 * tile_of(kind).codes);
    for (uint32_t h = 0; h < PARTS; h++) {
        vf d[2], m[2] = {0};
        d[0] = d[1] = floats_at(tile, dtype_scale(t), h);
        if (tile_of(kind).zero) m[0] = m[1] = (vf)zeros_at(tile, kind, t, h);
        block_floats(codes + 4 * LANES * h, kind, d, m, w + LANES * h);
    }
}

/* A whole tile: w[k][STRIP]. */
INLINE void tile_floats(const uint8_t *tile, const dtype t, float *w) {
    for (uint32_t h = 0; h < PARTS; h++) part_floats(tile, t, h, w + LANES * h);
}

/* ---- what the kernels of linear_body.h are given ---- */

/* tile_floats of a type, or group_floats of a kind from input `at` of the tile on */
typedef void floats_fn(const uint8_t *tile, dtype, uint32_t at, float *w);

typedef struct job {
    const packed *w;
    const act *a;
    const float *bias, *residual;
    float *y;
    uint32_t ld_res, ldy;
    floats_fn *floats;
} job;

/* By one strip, its outputs up to end: some rows from `row` on. By one strip or a few (MANY_STRIPS of the
 * including file): rows [row0, row1), whole groups of ACT_GROUP, at most ROWS_IN_CACHE of them. */
typedef void run_fn(const job *, uint32_t row, uint32_t out, uint32_t end);
typedef void many_fn(const job *, uint32_t row0, uint32_t row1, uint32_t out, uint32_t end);

#endif
