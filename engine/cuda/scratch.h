/* Bytes of the scratch that kernels want, for the layout and the plan: pure C, so that a
 * machine without CUDA can plan. Whoever changes a kernel's scratch changes its formula here.
 */
#ifndef VRAMD_ENGINE_CUDA_SCRATCH_H
#define VRAMD_ENGINE_CUDA_SCRATCH_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __CUDACC__
#define CU_HOST_DEVICE static inline __host__ __device__
#else
#define CU_HOST_DEVICE static inline
#endif

/* Query rows of one entry that one tile of cu_attn_prefill holds at most. */
enum { CU_PREFILL_TILE = 128 };

/* Whether the attention kernels compute heads of this size: multiples of 8 up to 256 (64, 80,
 * 96, 128 and 256 exactly, others padded to the next of these in registers, not in memory), any
 * number of query heads to a KV head. */
static inline bool cu_attn_supports(uint32_t head_dim, uint32_t group) {
    return head_dim && head_dim % 8 == 0 && head_dim <= 256 && group;
}

/* Decode attention cuts what a row sees at absolute multiples of a split. Its size depends on
 * how many tokens the row itself sees, so a row's bits do not depend on the batch:
 * CU_ATTN_SPLIT tokens, doubled until there are at most CU_ATTN_SPLITS (so the partial results
 * of long contexts stay small: 16,384 tokens need as many as 2^20). */
enum { CU_ATTN_SPLIT = 256, CU_ATTN_SPLITS = 64 };

/* log2(split / CU_ATTN_SPLIT) for a row that sees n tokens. */
CU_HOST_DEVICE uint32_t cu_attn_split_shift(uint32_t n) {
    uint32_t shift = 0;
    while (n > (uint32_t)CU_ATTN_SPLIT * CU_ATTN_SPLITS << shift) shift++;
    return shift;
}
/* n_splits of cu_attn_decode for rows at positions below context: the most that any of them,
 * windowed or not, is cut into (a window may begin within a split: one more). */
static inline uint32_t cu_attn_splits(uint32_t context) {
    uint32_t n = context / CU_ATTN_SPLIT + (context % CU_ATTN_SPLIT != 0);
    return n <= CU_ATTN_SPLITS ? n : CU_ATTN_SPLITS + 1;
}

static inline uint64_t cu_align256(uint64_t n) {
    return (n + 255) & ~(uint64_t)255;
}

/* Partial results of cu_attn_decode: maximum, sum and head_dim accumulators of each head. */
static inline uint64_t cu_attn_decode_bytes(uint32_t n_seqs, uint32_t n_splits,
                                            uint32_t n_heads, uint32_t head_dim) {
    return cu_align256((uint64_t)n_seqs * n_splits * n_heads * (head_dim + 2) * 4);
}

/* Of cu_sample and cu_score_rows for n rows: a few numbers for each strip and each chunk of a
 * row of logits. */
enum { CU_SAMPLE_STRIP = 128, CU_SAMPLE_CHUNK = 4096 };
static inline uint64_t cu_sample_scratch_bytes(uint32_t n, uint32_t n_vocab) {
    uint64_t chunks = ((uint64_t)n_vocab + CU_SAMPLE_CHUNK - 1) / CU_SAMPLE_CHUNK;
    uint64_t strips = ((uint64_t)n_vocab + CU_SAMPLE_STRIP - 1) / CU_SAMPLE_STRIP;
    return n * cu_align256(chunks * 24 + strips * 16);
}

#endif
