/* Tiles of the types of model/words.h: 16 blocks of the file, transposed word by word, so that a vector has the same word
 * of as many outputs; first their scales (half d[16]) where the type has one. A tile is unpacked into codes of 8 bits,
 * once for all rows that meet it. Inside of engine/cpu/linear*.c and bf16_*.c. */
#ifndef VRAMD_ENGINE_CPU_WORDS_H
#define VRAMD_ENGINE_CPU_WORDS_H

#include "engine/cpu/linear_tiles.h"

/* 32 inputs of a strip: byte 4 o + b of codes[l] is input 4 l + b of output o, with its offset; d of each half. */
typedef struct words_block {
    _Alignas(64) uint8_t codes[8][4 * STRIP];
    float d[2][STRIP];
} words_block;

enum { WORDS_BLOCKS = 8 }; /* of a tile, at most */

/* acc[row - rows.from][STRIP]: the sums of rows by the strip of output out, as engine/cpu/linear.h defines them. At most
 * ROWS_IN_CACHE rows: each tile is unpacked once for all of them. */
typedef void words_sums_fn(const packed *, const act *, span rows, uint32_t out, float *acc);
/* A whole tile as float32, w[k][STRIP], exactly as words_decode has it. */
typedef void words_floats_fn(const uint8_t *tile, dtype, float *w);
words_sums_fn words_sums_avx2, words_sums_avx512;
words_floats_fn words_floats_avx2, words_floats_avx512;

/* Where a tile's words begin. */
static inline __attribute__((always_inline)) uint32_t words_of_tile(words_type w) {
    return w.scale_at < 0 ? 0 : 2 * STRIP;
}
/* Inputs 32 j.. of output o of a tile. */
static inline void words_at(const uint8_t *tile, dtype t, uint32_t j, uint32_t o,
                            uint8_t codes[32], float d[2]) {
    words_codes(t, tile + 2 * o, tile + words_of_tile(words_type_of(t)) + 4 * o, 4 * STRIP, j,
                codes, d);
}

/* The same as float32, step apart: exactly as words_decode has them. */
static inline void words_floats_at(const uint8_t *tile, dtype t, uint32_t j, uint32_t o,
                                   float *w, uint32_t step) {
    const uint8_t offset = words_type_of(t).offset;
    uint8_t codes[32];
    float d[2];
    words_at(tile, t, j, o, codes, d);
    for (uint32_t k = 0; k < 32; k++) w[k * step] = d[k / 16] * (float)(codes[k] - offset);
}

#endif
