/* Layouts shared by the linear kernels (engine/cpu/linear*.c), private to them.
 *
 * A packed matrix is strips of 16 outputs, one after the other. A strip of a quantised type is
 * its tiles in order; a tile is 16 blocks of the file, one of each output, transposed (32 or
 * 256 inputs): first the head, what scales the codes, then for each 32 inputs their codes.
 * Every bit of the file is there once, so a matrix of whole strips has the file's size.
 *
 * Head. half d[16], half m[16] (types with a minimum), then, lane = output, 4 bytes each:
 * - Q4_K, Q5_K: the 12 bytes of the file as 3 vectors (drawn below)
 * - MXFP4: uint8 e[16] and nothing else: d is 2^(e - 128)
 * - IQ4_XS: uint16 high[16], then 1 vector: scales of 6 bits by 32, minus 32
 * - Q3_K: 3 vectors: scales of 6 bits by 16 (drawn below)
 * - Q6_K: int8 scale[16][2], by 32 inputs: one of each half
 * - Q2_K: the same, scale in the low nibble, minimum in the high one
 *
 * Types of model/words.h have tiles of their own (engine/cpu/words.h): all of a block is head.
 *
 * Kinds with groups: a tile is a group of 16 outputs; the head is their scales (2 or 4 bytes each)
 * and, where the kind has some, their zero points (I4Z: a byte each, I8Z: two).
 *
 * Codes of 32 inputs, in vectors of 64 bytes, lane = output; input 4l + b, of group l, is in
 * byte b of a lane:
 * - nibbles: 4 vectors; vector l holds group l in its low and group 4 + l in its high nibbles
 *   (the pairing of Q4_0 in the file, so packing moves whole words)
 * - bytes (Q8_0): 8 vectors; vector l holds group l, plus 128
 * - pairs: 2 vectors; vector l / 4 holds group l in bits 2 (l % 4)
 * - bits: 1 vector; group l in bit l
 * - 5 bits: nibbles, then bits; 6 bits: nibbles, then pairs
 * - 3 bits: 3 vectors (drawn below for Q3_K)
 *
 * Codes are unsigned with an offset because vpdpbusd and vpmaddubsw take unsigned by signed. A
 * strip of a float type is [n_in][16].
 *
 * Quantised activations: groups of 8 rows; a group is its n_in / 32 blocks (act_block) in order, so
 * that a kernel over 8 rows walks one pointer.
 *
 * A tile of Q4_K: 16 outputs, 256 inputs, 2304 bytes (16 blocks of 144). A vector is 64 bytes,
 * lane o of it the 4 bytes at 4 o, for output o.
 *
 *      0    32    64        128       192       256       512                2048      2304
 *     +-----+-----+---------+---------+---------+---------+---------+- ... -+---------+
 *     |  d  |  m  | scales  | minima  | rest    | codes 0 | codes 1 |       | codes 7 |
 *     +-----+-----+---------+---------+---------+---------+---------+- ... -+---------+
 *
 *     offset          size  what it holds
 *     2 o                2  d of output o, binary16
 *     32 + 2 o           2  m of output o, binary16
 *     64 + 4 o + j       1  j = 0..3; bits 0-5: scale of block j; 6-7: high bits of scale 4 + j
 *     128 + 4 o + j      1  the same of the minima
 *     192 + 4 o + j      1  bits 0-3: low bits of scale 4 + j; bits 4-7: of minimum 4 + j
 *     256 + 256 j      256  codes of block j = 0..7, inputs 32 j .. 32 j + 31: 4 vectors;
 *                           byte 64 v + 4 o + b has input 4 v + b of the block in its low
 *                           nibble and input 16 + 4 v + b in its high one (v, b = 0..3)
 *
 *     weight = d * scale * code - m * minimum
 *
 * Example (row 7 of Q4_K in tests/golden/quants.bin, as output 5): input 182 is input 22 of
 * block 5, so j = 1 in the head, v = 1 and b = 2 in the codes, high nibble.
 *
 *     byte   84 + 1   = c8   high bits of the scale 3            3 << 4 | 7 = 55
 *     byte  148 + 1   = be   high bits of the minimum 2          2 << 4 | 0 = 32
 *     byte  212 + 1   = 07   low bits: scale 7, minimum 0
 *     byte 1536 + 86  = 38   code 3 (the 8 is input 166's)
 *     bytes 10, 42: d = 145f (0.001067), m = 2874 (0.0348); weight -0.9371996
 *
 * A tile of Q3_K: 16 outputs, 256 inputs, 1760 bytes (16 blocks of 110).
 *
 *      0    32         96        160       224       416                1568      1760
 *     +-----+----------+---------+---------+---------+---------+- ... -+---------+
 *     |  d  | scales 0 | 1       | 2       | codes 0 | codes 1 |       | codes 7 |
 *     +-----+----------+---------+---------+---------+---------+- ... -+---------+
 *
 *     A half of a lane of scales v, 16 bits:      A byte of vector v of codes:
 *
 *          15       10 9         4 3      0            7    6 5        3 2        0
 *         +-----------+-----------+--------+          +------+----------+----------+
 *         | block 2 v | 2 v + 1   | rest   |          | rest | 2 v + 1  | group 2v |
 *         +-----------+-----------+--------+          +------+----------+----------+
 *
 *     offset             size  what it holds
 *     2 o                   2  d of output o, binary16
 *     32 + 64 v + 4 o       2  v = 0..2; scales of inputs 0-15 of blocks 2 v and 2 v + 1, as
 *                              two's complement; rest: low bits of the scale of block 6
 *                              (v = 0), of block 7 (v = 1), high bits of both (v = 2; those of
 *                              block 6 in bits 0-1)
 *     34 + 64 v + 4 o       2  the same for inputs 16-31
 *     224 + 192 j         192  codes of block j = 0..7: 3 vectors; byte 64 v + 4 o + b has
 *                              inputs 4 l + b of groups l = 2 v and 2 v + 1; rest: low bits of
 *                              group 6 (v = 0), of group 7 (v = 1); high bit of each (v = 2)
 *
 *     weight = d * scale * (code - 4)
 *
 * Example (row 7 of Q3_K, as output 5): input 254 is input 30 of block 7, group 7, b = 2, in
 * the upper half.
 *
 *     byte  116 + 2 (v = 1) = 09   low bits of the scale 9    2 << 4 | 9 = 41, signed: -23
 *     byte  180 + 2 (v = 2) = e8   bits 2-3, high bits 2
 *     byte 1652 + 2 (v = 1) = d2   bits 6-7, low bits 3       1 << 2 | 3 = 7, less 4: 3
 *     byte 1716 + 2 (v = 2) = b6   bit 7, high bit 1
 *     bytes 10, 11: d = a3ab (-0.0149765); weight 1.0333786 */
#ifndef VRAMD_ENGINE_CPU_LINEAR_TILES_H
#define VRAMD_ENGINE_CPU_LINEAR_TILES_H

#include <string.h>

#include "base/check.h"
#include "base/half.h"

#include "engine/cpu/linear.h"
#include "model/words.h"

enum { STRIP = 16, ACT_GROUP = 8, ROWS_IN_CACHE = 128 };

/* How codes are stored; CODES_BOOK: nibbles that index CODE_BOOK, of MXFP4 E2M1_TWICE. */
typedef enum code_form {
    CODES_NONE,
    CODES_4,
    CODES_5,
    CODES_8,
    CODES_BOOK,
    CODES_2,
    CODES_3,
    CODES_6,
    CODES_E4M3, /* bytes; weights meet float activations only */
    CODES_WORDS /* of model/words.h: unpacked by engine/cpu/words.h */
} code_form;

typedef struct tile_info {
    uint32_t n_in;       /* inputs of a tile; 0: not a quantised type */
    uint8_t head, codes; /* bytes of an output: of the head, of the codes of 32 inputs */
    uint8_t offset;      /* of codes as stored, or as the book has them */
    bool has_min;        /* weight = d * code + m */
    bool halves;         /* integer scales for 16 inputs, not 32 */
    code_form form;
    /* A kind with groups (model/dtype.h): n_in and head are those of its group and scale, or of 32
     * and binary16 where a kernel is compiled for the kind. */
    bool grouped;
    uint8_t zero; /* bytes of a zero point, weight = d * (code - zero of the group); 0: none */
} tile_info;

/* X(type, inputs, head, codes, offset, has_min, halves, form) */
#define TILE_LIST(X)                                                                           \
    X(Q4_0, 32, 2, 16, 8, false, false, CODES_4)                                               \
    X(Q4_1, 32, 4, 16, 0, true, false, CODES_4)                                                \
    X(Q5_0, 32, 2, 20, 16, false, false, CODES_5)                                              \
    X(Q5_1, 32, 4, 20, 0, true, false, CODES_5)                                                \
    X(Q8_0, 32, 2, 32, 128, false, false, CODES_8)                                             \
    X(IQ4_NL, 32, 2, 16, 128, false, false, CODES_BOOK)                                        \
    X(MXFP4, 32, 1, 16, 16, false, false, CODES_BOOK)                                          \
    X(Q4_K, 256, 16, 16, 0, true, false, CODES_4)                                              \
    X(Q5_K, 256, 16, 20, 0, true, false, CODES_5)                                              \
    X(IQ4_XS, 256, 8, 16, 128, false, false, CODES_BOOK)                                       \
    X(Q2_K, 256, 20, 8, 0, true, true, CODES_2)                                                \
    X(Q3_K, 256, 14, 12, 4, false, true, CODES_3)                                              \
    X(Q6_K, 256, 18, 24, 32, false, true, CODES_6)

/* X(kind, codes, offset, form) */
#define GROUP_TILE_LIST(X)                                                                     \
    X(I4, 16, 8, CODES_4)                                                                      \
    X(I4Z, 16, 0, CODES_4)                                                                     \
    X(I8G, 32, 128, CODES_8)                                                                   \
    X(I8Z, 32, 128, CODES_8)                                                                   \
    X(F8, 32, 0, CODES_E4M3)

/* Known at compile time where the type is. */
static inline __attribute__((always_inline)) tile_info tile_of(dtype t) {
    const uint32_t group = dtype_group(t) ? dtype_group(t) : 32;
    const uint8_t scale = dtype_scale(t) == DT_F32 ? 4 : 2, zero = (uint8_t)dtype_zero_bytes(t);
    switch (dtype_kind(t)) {
#define X(name, n_in, head, codes, offset, has_min, halves, form)                              \
    case DT_##name:                                                                            \
        return (tile_info){n_in, head, codes, offset, has_min, halves, form, false, 0};
        TILE_LIST(X)
#undef X
#define X(name, codes, offset, form)                                                           \
    case DT_##name:                                                                            \
        return (tile_info){                                                                    \
            group, (uint8_t)(scale + zero), codes, offset, false, false, form, true, zero};
        GROUP_TILE_LIST(X)
#undef X
#define X(name, inputs, ...)                                                                   \
    case DT_##name:                                                                            \
        return (tile_info){.n_in = inputs,                                                     \
                           .head = (uint8_t)words_bytes(words_type_of(t)),                     \
                           .offset = words_type_of(t).offset,                                  \
                           .halves = words_type_of(t).halves,                                  \
                           .form = CODES_WORDS};
        WORDS_LIST(X)
#undef X
    default: return (tile_info){0};
    }
}

/* Values of IQ4_NL and IQ4_XS (ggml, table kvalues_iq4nl); stored codes + 128 are unsigned. Those of
 * MXFP4 have 16 added, so that they take no more sums than codes of 5 bits. */
#define CODE_BOOK -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113

typedef struct act_block {
    int8_t q[ACT_GROUP][32];
    float d[ACT_GROUP], s[ACT_GROUP];
    int32_t neg8[ACT_GROUP];    /* -8 * sum of the codes: what Q4_0's offset adds up to */
    int16_t half[ACT_GROUP][2]; /* sums of the first and of the last 16 codes */
} act_block;
_Static_assert(sizeof(act_block) == 384, "no padding in act_block");

#define ACT_TINY 0x1p-80f /* below it a block counts as zero: no product is ever subnormal */

/* Bytes of a tile; 0 for float types. */
static inline __attribute__((always_inline)) uint32_t tile_bytes(dtype t) {
    const tile_info i = tile_of(t);
    return STRIP * (i.head + i.n_in / 32u * i.codes);
}
static inline __attribute__((always_inline)) uint64_t strip_bytes(dtype t, uint32_t n_in) {
    const tile_info i = tile_of(t);
    if (i.n_in) return (uint64_t)(n_in / i.n_in) * tile_bytes(t);
    return (uint64_t)n_in * STRIP * (t == DT_F32 ? 4 : 2);
}
static inline const uint8_t *strip_at(const packed *w, uint32_t out) {
    return (const uint8_t *)w->tiles + out / STRIP * strip_bytes(w->type, w->n_in);
}
/* The same with a type that is a constant; DT_NONE, a kind with groups: the matrix's. */
static inline __attribute__((always_inline)) const uint8_t *strip_of(const packed *w, dtype t,
                                                                     uint32_t out) {
    if (t == DT_NONE || tile_of(t).grouped) return strip_at(w, out);
    return (const uint8_t *)w->tiles + out / STRIP * strip_bytes(t, w->n_in);
}
static inline act_block *act_group(const act *a, uint32_t row) {
    return (act_block *)a->q + (uint64_t)(row / ACT_GROUP) * (a->n_in / 32);
}
static inline const float *row_floats(const act *a, uint32_t row) {
    return a->f + (uint64_t)row * a->n_in;
}
/* What all sets make of a block of 32 codes with scale d. */
static inline void act_block_set(act_block *b, uint32_t r, float d, int32_t first,
                                 int32_t last) {
    b->d[r] = d;
    b->s[r] = d * (float)(first + last);
    b->neg8[r] = -8 * (first + last);
    b->half[r][0] = (int16_t)first;
    b->half[r][1] = (int16_t)last;
}
/* A block of (nearly) zeros, or one with a NaN or infinity. */
static inline void act_block_none(act_block *b, uint32_t r, bool bad) {
    memset(b->q[r], 0, 32);
    act_block_set(b, r, bad ? __builtin_nanf("") : 0.0f, 0, 0);
}
/* Whether quantised activations meet it in the int8 family. */
static inline bool tile_meets_codes(dtype t) {
    return tile_of(t).n_in != 0 && tile_of(t).form != CODES_E4M3;
}
static inline bool act_is_int8(const packed *w, const act *a) {
    return a->family == ACTIVATION_INT8 && tile_meets_codes(w->type);
}
/* Every linear() begins with it. */
static inline void linear_check(const packed *w, const act *a, span rows, span outs) {
    CHECK(a->n_in == w->n_in && rows.to <= a->n_rows && outs.to <= w->n_out);
    CHECK(outs.from % STRIP == 0 && (outs.to % STRIP == 0 || outs.to == w->n_out));
    CHECK(act_is_int8(w, a) ? a->q != NULL : a->f != NULL);
}

extern const linear_kernels linear_plain, linear_avx2, linear_avxvnni, linear_avx512;

#endif
