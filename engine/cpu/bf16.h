/* Linear layers of the family bf16: activations and weights rounded to bf16, sums in float32. Inside of
 * engine/cpu/linear*.c and bf16_*.c; the formula is in engine/cpu/linear.h. */
#ifndef VRAMD_ENGINE_CPU_BF16_H
#define VRAMD_ENGINE_CPU_BF16_H

#include "engine/cpu/linear_tiles.h"

enum { BF16_GROUP = 16 /* rows of a tile of AMX */ };

/* 32 inputs of a group of rows, in their order: a tile of AMX. Of a row whose inputs are no multiple of 32 the
 * rest is 0. */
typedef struct bf16_block {
    uint16_t x[BF16_GROUP][32];
} bf16_block;

/* Numbers below it are 0. The others are multiples of 2^-63, so every product, and every sum of products however
 * it is rounded, is a multiple of 2^-126: none is ever subnormal, and hardware that flushes subnormals (AMX and
 * AVX-512 BF16 always do) gives the same bits. */
#define BF16_TINY_BITS 0x23800000u /* 2^-56 */

/* The bits of a float32, rounded to nearest even to those of a bf16, as a float32. */
static inline __attribute__((always_inline)) uint32_t bf16_round(uint32_t u) {
    const uint32_t size = u & 0x7fffffffu;
    if (size > 0x7f800000u) return 0x7fc00000u;
    return size < BF16_TINY_BITS ? 0 : (u + 0x7fffu + (u >> 16 & 1u)) & 0xffff0000u;
}

static inline const bf16_block *bf16_group(const act *a, uint32_t row) {
    return (const bf16_block *)a->q + (uint64_t)(row / BF16_GROUP) * ((a->n_in + 31) / 32);
}

/* Rounds a row into a->q: linear_kernels.quantise of this family. */
void bf16_quantise(const float *x, const act *a, uint32_t row);

extern const linear_kernels bf16_plain, bf16_avx2, bf16_avx512, bf16_amx;

#endif
