/* How many requests a KV cache holds at once whose lengths are those of a file. An estimate: it
 * takes each request to stay for as long as it has output tokens. Any thread. */
#ifndef VRAMD_DAEMON_PLAN_LENGTHS_H
#define VRAMD_DAEMON_PLAN_LENGTHS_H

#include "base/buf.h"
#include "daemon/machine.h"
#include "load/trace.h"

typedef struct plan_lengths {
    load_trace trace;      /* owned */
    double prompt, output; /* mean tokens */
    uint32_t longest;      /* prompt and output */
} plan_lengths;

/* A trace of load/trace.h. Errors: its own. plan_lengths_clear in any case. */
status plan_lengths_read(plan_lengths *, const char *path, err *);
void plan_lengths_clear(plan_lengths *);

/* What one request that fits max_tokens holds, in blocks of block_tokens, at a random moment;
 * most: of a request, 0: any number. False: none fits. */
typedef struct plan_held {
    double mean, deviation;
} plan_held;
bool plan_lengths_held(const plan_lengths *, uint32_t max_tokens, uint32_t block_tokens,
                       uint64_t most, plan_held *out);
/* Tokens of KV cache that hold n requests at once in 99 % of the time; n > 0. */
uint64_t plan_lengths_tokens(const plan_lengths *, uint32_t n, uint32_t max_tokens,
                             uint32_t block_tokens);

typedef struct plan_concurrency {
    double mean, sure; /* requests at once: on the mean, and in 99 % of the time */
    uint64_t too_long; /* requests that max_model_len refuses */
} plan_concurrency;

/* Of the KV cache of a plan, whatever its max_num_seqs. */
plan_concurrency plan_lengths_concurrency(const plan_lengths *, const machine *);

/* On stdout; and as a member of the plan's JSON object, with a comma in front. */
void plan_lengths_print(const plan_lengths *, const machine *);
void plan_lengths_json(buf *, const plan_lengths *, const machine *);

#endif
