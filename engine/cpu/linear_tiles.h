/* Layouts shared by the linear kernels (engine/cpu/linear*.c), private to them.
 *
 * A packed matrix is strips of 16 outputs, one after the other. A strip of a quantised type is
 * its n_in / 32 tiles in order; a tile is 16 blocks of the file, transposed:
 *   half d[16]; (Q4_1: half m[16];) codes, in vectors of 64 bytes, lane = output, 4 bytes each
 *   4-bit types: 4 vectors; byte b of a lane of vector l holds input 4l + b in its low and
 * input 16 + 4l + b in its high nibble (the file's own pairing, so packing moves whole words)
 *   Q8_0: 8 vectors; byte b of vector l holds input 4l + b, plus 128
 * Codes are unsigned with an offset (Q4_0: 8, Q8_0: 128) because vpdpbusd and vpmaddubsw take
 * unsigned by signed. A strip of a float type is [n_in][16].
 *
 * Quantised activations: groups of 8 rows; a group is its n_in / 32 act_blocks in order, so
 * that a kernel over 8 rows walks one pointer. */
#ifndef VRAMD_ENGINE_CPU_LINEAR_TILES_H
#define VRAMD_ENGINE_CPU_LINEAR_TILES_H

#include <string.h>

#include "base/check.h"

#include "engine/cpu/linear.h"

enum { STRIP = 16, ACT_GROUP = 8, ROWS_IN_CACHE = 128 };

typedef struct act_block {
    int8_t q[ACT_GROUP][32];
    float d[ACT_GROUP], s[ACT_GROUP];
    int32_t neg8[ACT_GROUP]; /* -8 * sum of the codes: what Q4_0's offset adds up to */
} act_block;
_Static_assert(sizeof(act_block) == 352, "no padding in act_block");

#define ACT_TINY 0x1p-80f /* below it a block counts as zero: no product is ever subnormal */

/* Bytes of a tile, where its codes begin, and the offset of its codes; 0 for float types. */
static inline uint32_t tile_bytes(dtype t) {
    return t == DT_Q8_0 ? 544 : t == DT_Q4_0 ? 288 : t == DT_Q4_1 ? 320 : 0;
}
static inline uint64_t strip_bytes(dtype t, uint32_t n_in) {
    uint64_t n = n_in;
    return tile_bytes(t) ? n / 32 * tile_bytes(t) : n * STRIP * (t == DT_F32 ? 4 : 2);
}
static inline const uint8_t *strip_at(const packed *w, uint32_t out) {
    return (const uint8_t *)w->tiles + out / STRIP * strip_bytes(w->type, w->n_in);
}
static inline act_block *act_group(const act *a, uint32_t row) {
    return (act_block *)a->q + (uint64_t)(row / ACT_GROUP) * (a->n_in / 32);
}
static inline bool act_is_int8(const packed *w, const act *a) {
    return a->family == ACTIVATION_INT8 && tile_bytes(w->type);
}
/* Every linear() begins with it. */
static inline void linear_check(const packed *w, const act *a, uint32_t row1, uint32_t out0,
                                uint32_t out1) {
    CHECK(a->n_in == w->n_in && row1 <= a->n_rows && out1 <= w->n_out);
    CHECK(out0 % STRIP == 0 && (out1 % STRIP == 0 || out1 == w->n_out));
    CHECK(act_is_int8(w, a) ? a->q != NULL : a->f != NULL);
}

extern const linear_kernels linear_plain, linear_avx2, linear_avx512;

#endif
