/* The tables of a step as they lie in memory, on the host and on the device: what each row
 * reads, what each entry samples. Pure C, no CUDA: the layout needs their sizes. */
#ifndef VRAMD_ENGINE_CUDA_TABLES_H
#define VRAMD_ENGINE_CUDA_TABLES_H

#include <stdint.h>

#include "memory/plan.h"

/* Parameters of one entry, flat. Lists lie in a device array of words at given offsets. */
typedef struct cu_sampling {
    int32_t logit_row; /* -1: the entry draws nothing */
    uint32_t position; /* of the new token */
    uint32_t seed[2];  /* low, high */
    float temperature;
    int32_t top_k;
    float top_p, min_p, typical_p;
    float repetition_penalty, presence_penalty, frequency_penalty;
    int32_t mask_end;         /* 1: min_tokens not reached: the end tokens are forbidden */
    uint32_t end_at, n_end;   /* int32 ids */
    uint32_t bias_at, n_bias; /* pairs (int32 id, float bias) */
    uint32_t history_at, n_history; /* int32 ids; 0 unless penalties are on */
    uint32_t n_prompt;
    int32_t history_from; /* >= 0: previous[...] is one more token of the history */
    int32_t n_logprobs;   /* as in sampling */
} cu_sampling;

/* Scores one row: log-probability of a given token and the n best. */
typedef struct cu_score {
    int32_t logit_row, token, n_top;
} cu_score;

/* What a step's tables hold, in numbers; addresses in a captured graph depend on nothing else.
 */
typedef struct cuda_shape {
    uint32_t n_rows, n_seqs, n_logit_rows;
    uint32_t n_scores, n_tiles, n_copies; /* 0 in a graph */
    uint32_t stride;                      /* of block tables: blocks of the longest sequence */
} cuda_shape;

/* Offsets of the tables of a step, in bytes from their beginning; one copy brings them to the
 * device. lists is last: its length is not part of the shape. */
typedef struct cuda_tables_at {
    uint64_t sampling, token, from, pos, entry, first_row, n_rows, first_pos, gathered, scores,
        tiles, copies, blocks[PLAN_MAX_GROUPS], lists;
} cuda_tables_at;

static inline uint64_t cuda_table(uint64_t *at, uint64_t n, uint64_t bytes) {
    uint64_t here = *at;
    *at += (n * bytes + 63) & ~(uint64_t)63;
    return here;
}

static inline cuda_tables_at cuda_tables_lay(uint32_t n_groups, const cuda_shape *s) {
    cuda_tables_at t;
    uint64_t at = 0;
    t.sampling = cuda_table(&at, s->n_seqs, sizeof(cu_sampling));
    t.token = cuda_table(&at, s->n_rows, 4);
    t.from = cuda_table(&at, s->n_rows, 4);
    t.pos = cuda_table(&at, s->n_rows, 4);
    t.entry = cuda_table(&at, s->n_rows, 4);
    t.first_row = cuda_table(&at, s->n_seqs, 4);
    t.n_rows = cuda_table(&at, s->n_seqs, 4);
    t.first_pos = cuda_table(&at, s->n_seqs, 4);
    t.gathered = cuda_table(&at, s->n_logit_rows, 4);
    t.scores = cuda_table(&at, s->n_scores, sizeof(cu_score));
    t.tiles = cuda_table(&at, s->n_tiles, 8);
    t.copies = cuda_table(&at, s->n_copies, 8);
    for (uint32_t g = 0; g < PLAN_MAX_GROUPS; g++)
        t.blocks[g] = cuda_table(&at, g < n_groups ? s->n_seqs : 0, (uint64_t)s->stride * 4);
    t.lists = at;
    return t;
}

#endif
