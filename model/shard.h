/* One rank's part of a model, as a program: from the program of the whole, with narrower shapes and
 * slices of its matrices. Pure arithmetic; any thread.
 *
 * Tensor parallel: every matrix is cut by its outputs, so that a rank computes some columns of a value
 * from the whole of its input, each number by the formula that one rank has: the bits do not depend on
 * the number of ranks. OP_ALL_GATHER stands behind whatever is cut; q, k and v need none, since their
 * heads stay where they were made. What works row by row (norms, routers) each rank does for itself.
 *
 *   embed        rows of the vocabulary: the rank that has a token's row writes it
 *   q, k, v      by heads of K and V with the query heads that read them; where there are fewer of them
 *                than ranks, a KV head is held by several, which divide its query heads
 *   o, down, ... outputs;  gate and up: the same outputs of both, of every expert
 *   logits       rows of the vocabulary
 *
 * Cuts need not be even: 3 KV heads over 2 ranks are 1 and 2. Outputs are cut at multiples of 16 where
 * there are enough of them, a strip of the kernels.
 *
 * Pipeline parallel: a stage has a run of layers, such that the largest has as few bytes of weights as can
 * be; the embedding is of the first, the head of the last. Between two stages the values that a
 * later one reads are sent, and the last sends its logits to the first, which samples. */
#ifndef VRAMD_MODEL_SHARD_H
#define VRAMD_MODEL_SHARD_H

#include "model/model.h"

enum { SHARD_MAX_RANKS = 64, SHARD_STRIP = 16 };

/* Of n outputs, those of a rank. */
typedef struct shard_range {
    uint32_t from, n;
} shard_range;
shard_range shard_outputs(const shard *, uint32_t n);

/* The heads of a rank. */
typedef struct shard_heads {
    shard_range q, kv;
} shard_heads;
/* n_ranks is at most n_heads. */
shard_heads shard_heads_of(const shard *, const head_shape *);

/* Of the value that an OP_ALL_GATHER of a rank's program joins: the columns that a rank computes; of OP_EMBED's,
 * whose rows are joined, all of them are 0. */
shard_range shard_joined(const program *, const op *gather, uint32_t rank);

/* The model of a part, whose file is the whole's; the whole may be closed before it. Rank 0 of the first stage
 * has OP_SAMPLE, of all logits. With one rank and one stage it is the whole. Errors: ERR_UNSUPPORTED (field:
 * the operation that cannot be cut), ERR_INVALID (more ranks than query heads, or more stages than layers;
 * field: the option), ERR_NO_MEMORY. */
status model_shard(model **out, const model *whole, const shard *, err *);

#endif
