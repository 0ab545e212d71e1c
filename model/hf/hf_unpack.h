/* Codes of a few bits out of words of 32. Pure; any thread. */
#ifndef VRAMD_MODEL_HF_UNPACK_H
#define VRAMD_MODEL_HF_UNPACK_H

#include <stdint.h>
#include <string.h>

/* Values [i, i + 32) of a row of values of so many bits (2, 3, 4, 8), densely packed from the lowest bit on; i: a
 * multiple of 32. */
static inline void hf_unpack32(uint8_t out[32], const char *words, uint64_t i, uint32_t bits) {
    const char *at = words + i / 8 * bits;
    if (bits == 8) {
        memcpy(out, at, 32);
    } else if (bits == 4) {
        for (uint32_t j = 0; j < 16; j++) {
            out[2 * j] = (uint8_t)at[j] & 15;
            out[2 * j + 1] = (uint8_t)at[j] >> 4;
        }
    } else { /* 2, 3: eight values are 2 or 3 bytes */
        for (uint32_t j = 0; j < 4; j++) {
            uint32_t v = 0;
            memcpy(&v, at + j * bits, bits);
            for (uint32_t k = 0; k < 8; k++, v >>= bits)
                out[8 * j + k] = (uint8_t)(v & ((1u << bits) - 1));
        }
    }
}

/* Value i of such a row. */
static inline uint32_t hf_unpack_at(const char *words, uint64_t i, uint32_t bits) {
    const uint64_t bit = i * bits;
    uint32_t low = (uint8_t)words[bit / 8];
    if (bit % 8 + bits > 8) low |= (uint32_t)(uint8_t)words[bit / 8 + 1] << 8;
    return low >> bit % 8 & ((1u << bits) - 1);
}

/* Where AWQ's words have output n of eight, counted in values from the lowest bit on. */
static const uint8_t hf_awq_place[8] = {0, 4, 1, 5, 2, 6, 3, 7};

/* Trades the values of `a` above `shift` bits, by parts of the mask, for those of b below. */
static inline void hf_trade(uint32_t *a, uint32_t *b, uint32_t shift, uint32_t mask) {
    const uint32_t t = (*a >> shift ^ *b) & mask;
    *b ^= t;
    *a ^= t << shift;
}

/* Eight words of eight values of 4 bits each, transposed: value j of word i becomes value i of word j. */
static inline void hf_transpose8(uint32_t x[8]) {
    hf_trade(&x[0], &x[4], 16, 0x0000ffff);
    hf_trade(&x[1], &x[5], 16, 0x0000ffff);
    hf_trade(&x[2], &x[6], 16, 0x0000ffff);
    hf_trade(&x[3], &x[7], 16, 0x0000ffff);
    hf_trade(&x[0], &x[2], 8, 0x00ff00ff);
    hf_trade(&x[1], &x[3], 8, 0x00ff00ff);
    hf_trade(&x[4], &x[6], 8, 0x00ff00ff);
    hf_trade(&x[5], &x[7], 8, 0x00ff00ff);
    hf_trade(&x[0], &x[1], 4, 0x0f0f0f0f);
    hf_trade(&x[2], &x[3], 4, 0x0f0f0f0f);
    hf_trade(&x[4], &x[5], 4, 0x0f0f0f0f);
    hf_trade(&x[6], &x[7], 4, 0x0f0f0f0f);
}

#endif
