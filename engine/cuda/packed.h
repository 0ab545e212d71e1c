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
 * Codes of a tile. Those of 8 bits: 1024 bytes, block by block, lane by lane: uint4 {(g, word 0), (g + 8,
 * word 0), (g, word 1), (g + 8, word 1)}. Those of fewer bits are split into planes, of which a
 * type has those that its number of bits is the sum of, the lowest bits of a code in the first one:
 *
 *   4 bits: 512 bytes, lane by lane: uint4 {(g, b 0), (g + 8, b 0), (g, b 1), (g + 8, b 1)};
 *           low nibbles are word 0, high ones word 1
 *   2 bits: 256 bytes, lane by lane: uint2 {g, g + 8}; of each byte bits 2 (2 b + word)
 *   1 bit:  128 bytes, lane by lane: a word; of each byte bit 4 (0: g, 1: g + 8) + 2 b + word
 *
 * Codes are two's complement where the file has an offset of half their range (Q4_0, Q5_0, Q3_K, Q6_K,
 * Q8_0), indices into a book (IQ4_NL, MXFP4), e4m3 (F8), else unsigned.
 *
 * Scales of a tile, for each g: f16 d of (g, b 0), (g, b 1), (g + 8, b 0), (g + 8, b 1); where there is one for
 * 16 inputs, of (g, b 0, word 0), (g, b 0, word 1), (g, b 1, word 0), ... (g + 8, b 1, word 1); then
 * minima in the same way, which are added. MXFP4's are bf16, half of the file's, since the book has twice its
 * numbers. F8's are float32, as the file has them: for each strip, group of inputs and output, one
 * (packed_f8_groups).
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

/* Bytes of a tile's planes: codes of so many bits. */
#define PACKED_CODE_BYTES(bits) (128u * (bits))
/* Bytes of its scales; inputs: that share one. Not of F8, whose tiles share theirs. */
#define PACKED_SCALE_BYTES(inputs, has_min) (2048u / (inputs) * ((has_min) ? 2u : 1u))

static inline uint32_t packed_code_bytes(dtype t) {
    switch ((uint32_t)cu_packed_kind(t)) { /* CU_F8 is no enumerator */
#define X(name, type, bits, ...)                                                               \
    case type: return PACKED_CODE_BYTES(bits);
        CU_PACKED_LIST(X)
#undef X
    default: return 0;
    }
}
static inline uint32_t packed_scale_bytes(dtype t) {
    switch ((uint32_t)t) {
#define X(name, type, bits, inputs, has_min, ...)                                              \
    case type: return PACKED_SCALE_BYTES(inputs, has_min);
        CU_PACKED_LIST(X)
#undef X
    default: return 0;
    }
}

/* F8: groups of an output, those that only pad it to whole chunks included, and bytes of a strip's scales
 * of one. */
enum { PACKED_F8_SCALES = 64 };
static inline uint32_t packed_f8_groups(dtype t, uint32_t n_in) {
    return ((packed_chunks(n_in) * 2 - 1) >> cu_f8_shift(t, n_in)) + 1;
}

/* Bytes of all scales of a strip. */
static inline uint64_t packed_strip_scales(dtype t, uint32_t n_in) {
    if (cu_matrix_is_float(t)) return (uint64_t)packed_f8_groups(t, n_in) * PACKED_F8_SCALES;
    return (uint64_t)packed_chunks(n_in) * packed_scale_bytes(t);
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
