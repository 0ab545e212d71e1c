/* How long outputs become, for sched_shortest: the running median of the lengths of a tenant's
 * finished sequences with about as large a max_tokens (a power of two), which is the prediction for
 * the next one; max_tokens itself while none of them has finished. Tenants whose numbers agree in the
 * low bits share a median.
 *
 * The median moves towards each length by a part of itself: a half of the first ones, a fiftieth
 * later, so that it follows what clients do. Pure. */
#ifndef VRAMD_SCHEDULER_LENGTHS_H
#define VRAMD_SCHEDULER_LENGTHS_H

#include <stdint.h>

enum {
    LENGTH_TENANTS = 64,
    LENGTH_BUCKETS = 24,
    LENGTH_CLASSES = LENGTH_TENANTS * LENGTH_BUCKETS
};

/* Of the sequences of a class that have finished. */
typedef struct length_class {
    double median;
    uint32_t n;
} length_class;

struct sched;

/* With a policy by length: what is added to the key of a sequence, in us; and its prediction. Else 0. */
uint64_t lengths_head_start(const struct sched *, uint64_t tenant, uint32_t n_prompt,
                            uint32_t max_tokens, uint32_t *predicted);
/* A record's sequence has finished by itself, with so many tokens. */
void lengths_finished(struct sched *, uint32_t record, uint32_t n_output);

#endif
