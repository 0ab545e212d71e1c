/* From a router's logits to the rows of each expert: the choice of a row, and the stable sort of
 * all rows by expert. Pure; the choice from any thread, the sort from one. Plain C alone: no
 * instruction set has another version, so all have the same bits. */
#ifndef VRAMD_ENGINE_CPU_ROUTE_H
#define VRAMD_ENGINE_CPU_ROUTE_H

#include "engine/cpu/ops.h"

enum { ROUTE_MAX_EXPERTS = 1024, ROUTE_MAX_GROUPS = 64 };

/* What a row is routed to: top_k different indices, then as many weights; the words of a row of
 * OP_ROUTE's value. */
typedef union route_word {
    uint32_t expert;
    float weight;
} route_word;

/* The vectors of OP_ROUTE: [n_experts], or NULL. */
typedef struct route_vectors {
    const float *choice_bias, *scale; /* w1, w2 */
} route_vectors;

/* The top_k experts that program.h says of OP_ROUTE by their logits, scaled, in the order of what
 * chooses them, and their weights. Of a row with a NaN or infinity: experts 0 to
 * top_k - 1, and weights of NaN. exp2: op_kernels.exp2; scratch: [2 * n_experts]. */
void route_choose(const op *, const route_vectors *, const float *logits, uint32_t n_experts,
                  void (*exp2)(const float *, uint32_t, float *), float *scratch,
                  route_word *out);

/* Rows sorted by expert: slots [first[i], first[i + 1]) are the rows of expert i, ascending. */
typedef struct route_sorted {
    uint32_t *first; /* [n_experts + 1] */
    uint32_t *used;  /* [n_experts]: experts that have rows, ascending */
    uint32_t *row;   /* [n_rows * top_k]: of a slot */
    float *weight;   /* [n_rows * top_k]: of a slot */
    uint32_t n_used; /* entries of used */
    uint32_t n_most; /* rows of the expert that has most */
    value_id by;     /* whose choice it is */
} route_sorted;

/* chosen: [n_rows][2 * top_k]. */
void route_sort(route_sorted *, const route_word *chosen, uint32_t n_rows, uint32_t top_k,
                uint32_t n_experts);

#endif
