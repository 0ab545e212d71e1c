/* Types of stored numbers: GGUF's table, and the types of values in a step. */
#ifndef VRAMD_MODEL_DTYPE_H
#define VRAMD_MODEL_DTYPE_H

#include <stdint.h>

#include "base/str.h"

/* X(enum, number in GGUF, name, elements per block, bytes per block). Source: the GGUF
 * specification and the block structs of ggml. Listed types can be planned and inspected; which
 * of them an engine computes with, the engine says. */
#define DTYPE_LIST(X)                                                                          \
    X(DT_F32, 0, "F32", 1, 4)                                                                  \
    X(DT_F16, 1, "F16", 1, 2)                                                                  \
    X(DT_Q4_0, 2, "Q4_0", 32, 18)                                                              \
    X(DT_Q4_1, 3, "Q4_1", 32, 20)                                                              \
    X(DT_Q5_0, 6, "Q5_0", 32, 22)                                                              \
    X(DT_Q5_1, 7, "Q5_1", 32, 24)                                                              \
    X(DT_Q8_0, 8, "Q8_0", 32, 34)                                                              \
    X(DT_Q2_K, 10, "Q2_K", 256, 84)                                                            \
    X(DT_Q3_K, 11, "Q3_K", 256, 110)                                                           \
    X(DT_Q4_K, 12, "Q4_K", 256, 144)                                                           \
    X(DT_Q5_K, 13, "Q5_K", 256, 176)                                                           \
    X(DT_Q6_K, 14, "Q6_K", 256, 210)                                                           \
    X(DT_IQ2_XXS, 16, "IQ2_XXS", 256, 66)                                                      \
    X(DT_IQ2_XS, 17, "IQ2_XS", 256, 74)                                                        \
    X(DT_IQ3_XXS, 18, "IQ3_XXS", 256, 98)                                                      \
    X(DT_IQ1_S, 19, "IQ1_S", 256, 50)                                                          \
    X(DT_IQ4_NL, 20, "IQ4_NL", 32, 18)                                                         \
    X(DT_IQ3_S, 21, "IQ3_S", 256, 110)                                                         \
    X(DT_IQ2_S, 22, "IQ2_S", 256, 82)                                                          \
    X(DT_IQ4_XS, 23, "IQ4_XS", 256, 136)                                                       \
    X(DT_I8, 24, "I8", 1, 1)                                                                   \
    X(DT_I16, 25, "I16", 1, 2)                                                                 \
    X(DT_I32, 26, "I32", 1, 4)                                                                 \
    X(DT_I64, 27, "I64", 1, 8)                                                                 \
    X(DT_F64, 28, "F64", 1, 8)                                                                 \
    X(DT_IQ1_M, 29, "IQ1_M", 256, 56)                                                          \
    X(DT_BF16, 30, "BF16", 1, 2)                                                               \
    X(DT_TQ1_0, 34, "TQ1_0", 256, 54)                                                          \
    X(DT_TQ2_0, 35, "TQ2_0", 256, 66)                                                          \
    X(DT_MXFP4, 39, "MXFP4", 32, 17)                                                           \
    X(DT_NVFP4, 40, "NVFP4", 64, 36)                                                           \
    X(DT_Q1_0, 41, "Q1_0", 128, 18)                                                            \
    X(DT_Q2_0, 42, "Q2_0", 64, 18)

/* X(enum, number, name): types that only a KV cache has (engine/kv_code.h). No file can have
 * these numbers, and dtype_get does not list them. */
#define DTYPE_CACHE_LIST(X)                                                                    \
    X(DT_INT8, 200, "INT8")                                                                    \
    X(DT_FP8, 201, "FP8")                                                                      \
    X(DT_INT4, 202, "INT4")

/* X(enum, number, name, bits of a code, bytes of a zero point): types of matrices with a scale for
 * each group of inputs of an output, as published checkpoints have them. A dtype of these is the number with the type of
 * the scales and the size of the groups (dtype_grouped); no file can have it, and dtype_get does
 * not list it. A block is a group of one output: its scale, its zero point where the type has one
 * (I4Z: unsigned; I8Z: signed, since 257 of them occur), then codes by 32 inputs, nibbles of them as
 * in Q4_0 (input i in the low half of byte i, input 16 + i in the high one).
 *
 *     I4   scale * (code - 8)       F16 and 32: Q4_0
 *     I4Z  scale * (code - zero)
 *     I8G  scale * code, signed     F16 and 32: Q8_0
 *     I8Z  scale * (code - zero), both signed
 *     F8   scale * code, e4m3 (bias 7, up to 448, 0x7f and 0xff are NaN) */
#define DTYPE_GROUP_LIST(X)                                                                    \
    X(DT_I4, 210, "I4", 4, 0)                                                                  \
    X(DT_I4Z, 211, "I4Z", 4, 1)                                                                \
    X(DT_I8G, 212, "I8G", 8, 0)                                                                \
    X(DT_F8, 213, "F8", 8, 0)                                                                  \
    X(DT_I8Z, 214, "I8Z", 8, 2)

typedef enum dtype {
#define X(e, number, ...) e = number,
    DTYPE_LIST(X) DTYPE_CACHE_LIST(X) DTYPE_GROUP_LIST(X)
#undef X
        DT_NONE = 255,
    DT_LARGEST = INT32_MAX /* kinds with groups have more bits */
} dtype;

typedef struct dtype_info {
    const char *name;
    uint16_t block_elems, block_bytes;
} dtype_info;

/* Elements and bytes of a block of any type of weights; 0 elements: of no such. */
typedef struct dtype_block {
    uint32_t elems, bytes;
} dtype_block;

/* NULL when the number is not one of a file's types. */
const dtype_info *dtype_get(uint32_t number);
/* kind: of DTYPE_GROUP_LIST. scale: F16, BF16 or F32. group: a multiple of 32, at most 2^20. */
dtype dtype_grouped(dtype kind, dtype scale, uint32_t group);
dtype_block dtype_block_of(dtype);
/* The number without group and scale; a type without groups is its own kind. */
static inline dtype dtype_kind(dtype t) {
    return (dtype)((uint32_t)t & 255);
}
/* Inputs of a group; 0: no group was given. */
static inline uint32_t dtype_group(dtype t) {
    return ((uint32_t)t >> 10) * 32;
}
/* Bytes of a group's zero point; 0: the type has none. */
static inline __attribute__((always_inline)) uint32_t dtype_zero_bytes(dtype t) {
    switch (dtype_kind(t)) {
#define X(e, number, name, bits, zero)                                                         \
    case e: return zero;
        DTYPE_GROUP_LIST(X)
#undef X
    default: return 0;
    }
}
/* Of a type with groups. */
static inline dtype dtype_scale(dtype t) {
    const uint32_t i = (uint32_t)t >> 8 & 3;
    return i == 0 ? DT_F16 : i == 1 ? DT_BF16 : DT_F32;
}
/* "Q8_0", ..., those of caches included; "none" when there is no such type. */
const char *dtype_name(dtype);
/* Whether all that stands for a number on its own is one: the elements of F32, F16 and BF16, the
 * 16-bit scales of blocks (a code cannot be wrong). True for types without such. */
bool dtype_is_finite(dtype, const void *blocks, uint64_t n_blocks);
/* The types of K and V in a KV cache: "F16", or "K F32, V F16" where they differ. Returns buf.
 */
char *dtype_kv_name(dtype k, dtype v, char buf[32]);
/* By name, any case, those of caches included; DT_NONE when unknown. */
dtype dtype_by_name(str);
/* Bytes of rows x cols elements; cols must be a multiple of the block. False on overflow or
 * when it is not. */
bool dtype_bytes(dtype, uint64_t rows, uint64_t cols, uint64_t *out);
/* What a quantizer stores rows of so many elements as when asked for t: t itself where its
 * block divides them; else Q4_K -> Q5_0, Q5_K -> Q5_1, Q6_K -> Q8_0, TQ -> Q4_0, the other
 * types with blocks of 256 -> IQ4_NL; and F16 where even 32 does not divide them (llama.cpp,
 * src/llama-quant.cpp). */
dtype dtype_for_cols(dtype t, uint64_t cols);

#endif
