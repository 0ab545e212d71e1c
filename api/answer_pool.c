/* Embeddings: the sums that the machine makes of a prompt's hidden states, and the vectors made
 * of them. Buffers are in the request's arena and used again. Loop thread. */
#include <math.h>
#include <string.h>

#include "api/answer.h"

bool pool_begin(choice *c) {
    answer *a = c->a;
    const size_t bytes = a->rq->served->port->card.config->n_embd * sizeof(double);
    double *sum = a->n_sums ? a->sums[--a->n_sums] : arena_alloc(&a->rq->mem, bytes);
    if (sum) memset(sum, 0, bytes);
    c->spec.pooled = sum;
    return sum != NULL;
}

void pool_give_back(choice *c) {
    c->a->sums[c->a->n_sums++] = c->spec.pooled;
    c->spec.pooled = NULL;
}

/* The score of a pair of texts, as its classifier means it. */
static bool end_score(choice *c) {
    answer *a = c->a;
    const double x = c->spec.pooled[0];
    const bool raw = a->rq->served->port->card.config->shape.raw_scores;
    c->vector = arena_alloc(&a->rq->mem, sizeof *c->vector);
    if (c->vector) c->vector[0] = (float)(raw ? x : 1 / (1 + exp(-x)));
    pool_give_back(c);
    return isfinite(x);
}

/* The mean has the direction of the sum. */
bool pool_end(choice *c) {
    answer *a = c->a;
    const double *sum = c->spec.pooled;
    double squares = 0;
    if (a->rq->served->port->card.pooling == POOL_RANK) return end_score(c);
    c->vector = arena_alloc(&a->rq->mem, a->n_dims * sizeof *c->vector);
    for (uint32_t i = 0; i < a->n_dims; i++) squares += sum[i] * sum[i];
    const double scale = squares > 0 ? 1 / sqrt(squares) : 0;
    for (uint32_t i = 0; c->vector && i < a->n_dims; i++)
        c->vector[i] = (float)(sum[i] * scale);
    pool_give_back(c);
    return isfinite(squares);
}
