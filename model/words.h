/* Weight types whose blocks are best read as words of 32 bits: small codes, or entries of a book with signs. Each has
 * one decoder (model/words_body.h), which the CPU engine compiles for vectors, and this module for single blocks.
 *
 * A block is a scale in binary16 (IQ1_M and NVFP4 have theirs among the words) and the words, in the file's order
 * beside it. It decodes to groups of 32 numbers: a number is d * (code - offset), where d belongs to 32 numbers or to
 * each half of them, and is exact in float32. */
#ifndef VRAMD_MODEL_WORDS_H
#define VRAMD_MODEL_WORDS_H

#include "model/dtype.h"

/* X(type, numbers of a block, its words, where its scale stands or -1, offset of codes, whether there are scales for 16).
 * Codes are at most 31 where the offset is at most 16, else at most 127. */
#define WORDS_LIST(X)                                                                          \
    X(IQ1_S, 256, 12, 0, 16, false)                                                            \
    X(IQ1_M, 256, 14, -1, 16, true)                                                            \
    X(IQ2_XXS, 256, 16, 0, 64, false)                                                          \
    X(IQ2_XS, 256, 18, 0, 64, true)                                                            \
    X(IQ2_S, 256, 20, 0, 64, true)                                                             \
    X(IQ3_XXS, 256, 24, 0, 64, false)                                                          \
    X(IQ3_S, 256, 27, 0, 16, false)                                                            \
    X(TQ1_0, 256, 13, 52, 1, false)                                                            \
    X(TQ2_0, 256, 16, 64, 1, false)                                                            \
    X(Q1_0, 128, 4, 0, 1, false)                                                               \
    X(Q2_0, 64, 4, 0, 1, false)                                                                \
    X(NVFP4, 64, 9, -1, 16, true)

typedef struct words_type {
    uint16_t elems;
    uint8_t n_words; /* 0: not one of these types */
    int8_t scale_at;
    uint8_t offset;
    bool halves;
} words_type;

static inline __attribute__((always_inline)) words_type words_type_of(dtype t) {
    switch (t) {
#define X(name, elems, n, at, offset, halves)                                                  \
    case DT_##name: return (words_type){elems, n, at, offset, halves};
        WORDS_LIST(X)
#undef X
    default: return (words_type){0};
    }
}

/* Where a block's words begin in it. */
static inline __attribute__((always_inline)) uint32_t words_begin(words_type w) {
    return w.scale_at == 0 ? 2 : 0;
}
static inline __attribute__((always_inline)) uint32_t words_bytes(words_type w) {
    return 4u * w.n_words + (w.scale_at < 0 ? 0 : 2);
}

/* Numbers 32 j.. of one block: their codes in order, and d of each half. scale: its binary16 number (unused where the
 * type has none). words: the first one; step: bytes from one to the next. */
void words_codes(dtype, const uint8_t *scale, const uint8_t *words, uint32_t step, uint32_t j,
                 uint8_t codes[32], float d[2]);
/* A block of a file as float32: exactly the numbers of the format. */
void words_decode(dtype, const uint8_t *block, float *out);

#endif
