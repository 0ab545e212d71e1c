/* How quantised matrices lie on the device. One layout serves the int8 tensor-core GEMV and the
 * 16-bit GEMM: 16 bytes of a thread hold whole fragments of the weights as mma.m16n8 takes them
 * for its operand A (outputs down, inputs across; cu.h), so weights go from memory into the
 * registers they are used in.
 *
 * A tile is 16 outputs (a strip) x 64 inputs (a chunk: blocks b = 0, 1 of 32 as in the file).
 * Tiles follow each other along the inputs, strips along the outputs; all codes come first,
 * then all scales. What pads the matrix to whole tiles is zero. Lane 4g + t of a warp (g: 0..7,
 * t: 0..3) owns outputs g and g + 8 of the strip, and of each block the inputs
 *
 *     word 0: 2t, 2t + 8, 2t + 1, 2t + 9        word 1: the same + 16
 *
 * (byte by byte), which makes two neighbouring inputs one shift and one mask apart, for the
 * 16-bit fragments, and leaves the order within a block to the activations for int8 ones.
 *
 * Codes of a tile:
 *   Q4_0, Q4_1: 512 bytes, lane by lane: uint4 {(g, b 0), (g + 8, b 0), (g, b 1), (g + 8, b
 * 1)}; low nibbles are word 0, high ones word 1. Q4_0's code - 8 as two's complement. Q8_0:
 * 1024 bytes, block by block, lane by lane: uint4 {(g, word 0), (g + 8, word 0), (g, word 1),
 * (g + 8, word 1)}. Scales of a tile, 8 (Q4_1: 16) bytes for each g: f16 d of (g, b 0), (g, b
 * 1), (g + 8, b 0), (g + 8, b 1); Q4_1: then m in the same way.
 *
 * Quantised activations (cu_quantize), of 8 rows, those past n_rows undefined:
 *   codes:  for each chunk, row, t: 16 bytes {b 0 word 0, b 0 word 1, b 1 word 0, b 1 word 1};
 *   scales: for each chunk, row: float d of b 0, b 1;
 *   sums:   for each chunk, row: float d * (sum of the 32 codes) of b 0, b 1. */
#ifndef VRAMD_ENGINE_CUDA_PACKED_H
#define VRAMD_ENGINE_CUDA_PACKED_H

#include <stdint.h>

#include "engine/cuda/matrix.h"

enum { PACKED_STRIP = 16, PACKED_CHUNK = 64, PACKED_BLOCK = 32 };

static inline uint32_t packed_strips(uint32_t n_out) {
    return n_out / PACKED_STRIP + (n_out % PACKED_STRIP != 0);
}
static inline uint32_t packed_chunks(uint32_t n_in) {
    return n_in / PACKED_CHUNK + (n_in % PACKED_CHUNK != 0);
}

/* Bytes of a tile. */
static inline uint32_t packed_code_bytes(dtype t) {
    return t == DT_Q8_0 ? 1024 : 512;
}
static inline uint32_t packed_scale_bytes(dtype t) {
    return t == DT_Q4_1 ? 128 : 64;
}

/* Where the scales begin in a packed matrix. */
static inline uint64_t packed_scales_at(dtype t, uint32_t n_out, uint32_t n_in) {
    return (uint64_t)packed_strips(n_out) * packed_chunks(n_in) * packed_code_bytes(t);
}

/* Bytes of one chunk of quantised activations, and where scales and sums begin. */
enum { PACKED_ACT_ROWS = 8, PACKED_ACT_CODES = 512, PACKED_ACT_SCALES = 64 };
static inline uint64_t packed_act_scales_at(uint32_t n_in) {
    return (uint64_t)packed_chunks(n_in) * PACKED_ACT_CODES;
}
static inline uint64_t packed_act_sums_at(uint32_t n_in) {
    return packed_act_scales_at(n_in) + (uint64_t)packed_chunks(n_in) * PACKED_ACT_SCALES;
}

#endif
