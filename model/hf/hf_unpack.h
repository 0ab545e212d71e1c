/* Codes of a few bits out of words of 32, 32 codes at a time. Pure; any thread. */
#ifndef VRAMD_MODEL_HF_UNPACK_H
#define VRAMD_MODEL_HF_UNPACK_H

#include <stdint.h>
#include <string.h>

static inline uint32_t hf_word(const char *words, uint64_t i, uint64_t step) {
    uint32_t w;
    memcpy(&w, words + i * step, sizeof w);
    return w;
}

/* Values [i, i + 32) of a row of values of so many bits (2, 3, 4, 8), densely packed from the lowest bit on;
 * step: bytes from word to word; i: a multiple of 32. */
static inline void hf_unpack32(int32_t out[32], const char *words, uint64_t i, uint32_t bits,
                               uint64_t step) {
    const char *at = words + i / 32 * bits * step;
    if (bits == 4) {
        for (uint32_t w = 0; w < 4; w++) {
            const uint32_t v = hf_word(at, w, step);
            for (uint32_t j = 0; j < 8; j++) out[8 * w + j] = (int32_t)(v >> 4 * j & 15);
        }
    } else if (bits == 8) {
        for (uint32_t w = 0; w < 8; w++) {
            const uint32_t v = hf_word(at, w, step);
            for (uint32_t j = 0; j < 4; j++) out[4 * w + j] = (int32_t)(v >> 8 * j & 255);
        }
    } else {
        uint64_t v = 0;
        uint32_t held = 0, word = 0;
        for (uint32_t j = 0; j < 32; j++) {
            if (held < bits) {
                v |= (uint64_t)hf_word(at, word++, step) << held;
                held += 32;
            }
            out[j] = (int32_t)(v & ((1u << bits) - 1));
            v >>= bits;
            held -= bits;
        }
    }
}

/* Input k of outputs n and on is in AWQ's word n / 8 of row k: 32 inputs of one output. step: bytes from row to
 * row. */
static inline void hf_unpack32_awq(int32_t out[32], const char *rows, uint64_t n,
                                   uint64_t step) {
    static const uint32_t place[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    const uint32_t shift = 4 * place[n % 8];
    for (uint32_t j = 0; j < 32; j++)
        out[j] = (int32_t)(hf_word(rows + n / 8 * 4, j, step) >> shift & 15);
}

#endif
