/* Bytes of the scratch that kernels want, for the layout and the plan: pure C, so that a
 * machine without CUDA can plan. Whoever changes a kernel's scratch changes its formula here.
 */
#ifndef VRAMD_ENGINE_CUDA_SCRATCH_H
#define VRAMD_ENGINE_CUDA_SCRATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "model/program.h"

#ifdef __CUDACC__
#define CU_HOST_DEVICE static inline __host__ __device__
#else
#define CU_HOST_DEVICE static inline
#endif
#ifdef __cplusplus
#define CU_CONSTEXPR constexpr CU_HOST_DEVICE
#else
#define CU_CONSTEXPR CU_HOST_DEVICE
#endif

/* Query rows of one entry that one tile of cu_attn_prefill holds at most. */
enum { CU_PREFILL_TILE = 128 };

/* The widest heads that tensor cores multiply, and those that attn_wide.cu takes. */
enum { CU_ATTN_HEAD = 256, CU_ATTN_WIDE = 512 };

/* Whether the attention kernels compute heads of this size: multiples of 8 up to 256 (64, 80,
 * 96, 128 and 256 exactly, others padded to the next of these in registers, not in memory), and, of K
 * and V in 16 bits, up to 512; any number of query heads to a KV head. */
static inline bool cu_attn_supports(uint32_t head_dim, uint32_t group) {
    return head_dim && head_dim % 8 == 0 && head_dim <= CU_ATTN_WIDE && group;
}

/* Of a cache of codes: segments that a head has at most, in the kernel that computes it. */
CU_CONSTEXPR uint32_t cu_attn_most_segments(uint32_t head_dim) {
    return head_dim <= 64    ? 4
           : head_dim <= 80  ? 5
           : head_dim <= 96  ? 6
           : head_dim <= 128 ? 4
                             : 8;
}
static inline bool cu_attn_supports_codes(uint32_t head_dim, uint32_t segments) {
    return head_dim % 16 == 0 && head_dim <= CU_ATTN_HEAD &&
           segments <= cu_attn_most_segments(head_dim);
}

/* Decode attention cuts what a row sees at absolute multiples of a split: the more splits, the
 * more multiprocessors have work, and the more partial results there are to sum. Its size is
 * CU_ATTN_SPLIT_FEW tokens where the step has up to CU_ATTN_FEW entries, else CU_ATTN_SPLIT,
 * doubled until the row has at most CU_ATTN_SPLITS of them (so the partial results of long
 * contexts stay small). */
enum { CU_ATTN_SPLIT_FEW = 64, CU_ATTN_SPLIT = 256, CU_ATTN_FEW = 8, CU_ATTN_SPLITS = 64 };

/* log2(tokens of a split) for a row that sees n tokens. */
CU_HOST_DEVICE uint32_t cu_attn_split_log2(uint32_t n_entries, uint32_t n) {
    uint32_t log2 = n_entries <= CU_ATTN_FEW ? 6 : 8;
    while (n > (uint32_t)CU_ATTN_SPLITS << log2) log2++;
    return log2;
}
/* n_splits of cu_attn_decode for rows at positions below context: the most that any of them,
 * windowed or not, is cut into (a window may begin within a split: one more). */
static inline uint32_t cu_attn_splits(uint32_t n_entries, uint32_t context) {
    const uint32_t split = n_entries <= CU_ATTN_FEW ? CU_ATTN_SPLIT_FEW : CU_ATTN_SPLIT;
    const uint32_t n = context / split + (context % split != 0);
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
/* Of the largest step: up to max_seqs entries at positions below context. */
static inline uint64_t cu_attn_decode_most_bytes(uint32_t max_seqs, uint32_t context,
                                                 uint32_t n_heads, uint32_t head_dim) {
    const uint32_t few = max_seqs < CU_ATTN_FEW ? max_seqs : (uint32_t)CU_ATTN_FEW;
    const uint64_t a = cu_attn_decode_bytes(few, cu_attn_splits(few, context), n_heads,
                                            head_dim),
                   b = cu_attn_decode_bytes(max_seqs, cu_attn_splits(max_seqs, context),
                                            n_heads, head_dim);
    return a > b ? a : b;
}

/* Counters of blocks that finish something together: one for each entry and query head of attention, and for 32
 * outputs of a matrix. Zeros between kernels, so all share them. */
static inline uint64_t cu_arrived_bytes(uint32_t n_seqs, uint32_t n_heads, uint32_t n_out) {
    const uint64_t a = (uint64_t)n_seqs * n_heads, b = n_out / 32 + 1;
    return cu_align256(4 * (a > b ? a : b));
}

enum {
    CU_CONV_MOST = 8,           /* positions that a convolution sees at most */
    CU_RECUR_DIM = 256,         /* of keys or values of a head that has a matrix as its state */
    CU_RECUR_FLOATS = 128 * 128 /* of such a matrix: 64 KiB of a block's shared memory */
};

/* Whether recur.cu computes such heads. */
static inline bool cu_recur_supports(const delta_shape *d) {
    return d->key_heads && d->value_heads % d->key_heads == 0 && d->key_dim && d->value_dim &&
           d->key_dim <= CU_RECUR_DIM && d->value_dim <= CU_RECUR_DIM &&
           d->key_dim * d->value_dim <= CU_RECUR_FLOATS;
}

/* Mixtures of experts: what the engine takes at most, and the rows that are computed beside each other
 * by one expert. Every expert that is chosen is read once by a step of up to CU_EXPERT_ROWS rows. */
enum { CU_MOST_EXPERTS = 1024, CU_MOST_CHOSEN = 32, CU_MOST_GROUPS = 64, CU_EXPERT_ROWS = 32 };

/* Rows of a tile in a step of n_rows. */
static inline uint32_t cu_expert_tile(uint32_t n_rows) {
    uint32_t tile = 8;
    while (tile < n_rows && tile < CU_EXPERT_ROWS) tile *= 2;
    return tile;
}
/* The most tiles that n_rows rows fill, each routed to top_k of the experts: the last one of each
 * expert may be short. */
static inline uint32_t cu_expert_tiles(uint32_t n_rows, uint32_t top_k, uint32_t n_experts) {
    const uint32_t slots = n_rows * top_k, used = slots < n_experts ? slots : n_experts;
    return used + (n_rows > CU_EXPERT_ROWS ? slots / CU_EXPERT_ROWS : 0);
}
/* What cu_route leaves: a tile is four words; expert, weight, slot and row are one for each row and
 * expert. */
static inline uint64_t cu_routed_bytes(uint32_t n_rows, uint32_t top_k, uint32_t n_experts) {
    return cu_align256(16 * (uint64_t)cu_expert_tiles(n_rows, top_k, n_experts) +
                       16 * (uint64_t)n_rows * top_k);
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
