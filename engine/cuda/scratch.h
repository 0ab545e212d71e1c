/* Bytes of the scratch that kernels want, for the layout and the plan: pure C, so that a
 * machine without CUDA can plan. Whoever changes a kernel's scratch changes its formula here.
 */
#ifndef VRAMD_ENGINE_CUDA_SCRATCH_H
#define VRAMD_ENGINE_CUDA_SCRATCH_H

#include <stdint.h>

/* Tokens of one partial result of decode attention: ranges are always cut at multiples. */
enum { CU_ATTN_SPLIT = 512 };

static inline uint64_t cu_align256(uint64_t n) {
    return (n + 255) & ~(uint64_t)255;
}

/* Partial results of cu_attn_decode: maximum, sum and head_dim accumulators of each head. */
static inline uint64_t cu_attn_decode_bytes(uint32_t n_seqs, uint32_t n_splits,
                                            uint32_t n_heads, uint32_t head_dim) {
    return cu_align256((uint64_t)n_seqs * n_splits * n_heads * (head_dim + 2) * 4);
}

/* Of cu_sample and cu_score_rows for n rows: a second row of floats and of indexes, and the
 * buckets of a radix select. */
static inline uint64_t cu_sample_scratch_bytes(uint32_t n, uint32_t n_vocab) {
    return n * cu_align256((uint64_t)n_vocab * 8 + (64 << 10));
}

#endif
