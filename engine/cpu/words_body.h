/* Tiles of model/words.h in vectors. Included by words_avx2.c and words_avx512.c, which define before it what
 * model/words_body.h needs of vectors, add_words_1.. in ADD_FUNCTIONS: acc of 1 to ROWS rows += blocks, and WORDS_SUMS,
 * WORDS_FLOATS: the names of what they export. */

INLINE u32s word_load(const uint8_t *p) {
    return (u32s)loadi(p);
}
INLINE vf half_load(const uint8_t *p) {
    return load_half(p);
}
INLINE vf float_of(u32s v) {
    return floats_of((vi)v);
}
INLINE vf float_bits(u32s v) {
    return (vf)v;
}
INLINE u32s word_of(vf v) {
    return (u32s)v;
}
INLINE u32s value_of(const uint8_t *book, u32s v) {
    return (u32s)look_up(_mm_loadu_si128((const __m128i *)book), (vi)v);
}

#include "model/words_body.h"

/* t: a constant. */
INLINE void unpack_tile(const uint8_t *tile, const dtype t, words_block *to) {
    const words_type w = words_type_of(t);
    for (uint32_t h = 0; h < PARTS; h++) {
        const words_part p = {tile + 2 * LANES * h, tile + words_of_tile(w) + 4 * LANES * h,
                              4 * STRIP};
#pragma GCC unroll 8
        for (uint32_t j = 0; j < w.elems / 32u; j++) {
            words_32 v;
            decode_words(&p, t, j, &v);
            for (int l = 0; l < 8; l++) storei(to[j].codes[l] + 4 * LANES * h, (vi)v.code[l]);
            for (int i = 0; i < 2; i++) storef(to[j].d[i] + LANES * h, v.d[i]);
        }
    }
}

#define X(name, ...)                                                                           \
    static void unpack_##name(const uint8_t *tile, words_block *to) {                          \
        unpack_tile(tile, DT_##name, to);                                                      \
    }
WORDS_LIST(X)
#undef X

static void unpack(const uint8_t *tile, dtype t, words_block *to) {
    switch (t) {
#define X(name, ...)                                                                           \
    case DT_##name: unpack_##name(tile, to); break;
        WORDS_LIST(X)
#undef X
    default: break;
    }
}

void WORDS_FLOATS(const uint8_t *tile, dtype t, float *w) {
    words_block blocks[WORDS_BLOCKS];
    const words_type info = words_type_of(t);
    unpack(tile, t, blocks);
    for (uint32_t j = 0; j < info.elems / 32u; j++)
        for (uint32_t l = 0; l < 8; l++)
            for (uint32_t h = 0; h < PARTS; h++) {
                const u32s v = word_load(blocks[j].codes[l] + 4 * LANES * h);
                const vf d = loadf(blocks[j].d[l / 4] + LANES * h);
                for (uint32_t b = 0; b < 4; b++)
                    storef(w + STRIP * (32 * j + 4 * l + b) + LANES * h,
                           d * floats_of((vi)((i32s)byte_of(v, b) - (int32_t)info.offset)));
            }
}

void WORDS_SUMS(const packed *m, const act *a, span rows, uint32_t out, float *acc) {
    typedef void add_fn(const words_block *, uint32_t, int, bool, const act_block *, uint32_t,
                        float *);
    static add_fn *const add[ROWS] = {ADD_FUNCTIONS};
    const words_type t = words_type_of(m->type);
    const uint32_t bytes = tile_bytes(m->type), n_blocks = t.elems / 32u;
    const uint8_t *tile = strip_at(m, out);
    words_block w[WORDS_BLOCKS];
    memset(acc, 0, (rows.to - rows.from) * STRIP * sizeof *acc);
    for (uint32_t k = 0; k < m->n_in / 32; k += n_blocks, tile += bytes) {
        prefetch(tile, bytes);
        unpack(tile, m->type, w);
        for (uint32_t row = rows.from, next; row < rows.to; row = next) {
            next = row - row % ROWS + ROWS < rows.to ? row - row % ROWS + ROWS : rows.to;
            add[next - row - 1](w, n_blocks, t.offset, t.halves, act_group(a, row) + k,
                                row % ACT_GROUP, acc + STRIP * (row - rows.from));
        }
    }
}
