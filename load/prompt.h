/* Prompts that are made, not stored: request i of a seed always has the same tokens, and no two
 * requests share more than they are meant to, so that a prefix cache finds what is meant to be
 * found and nothing else. Bodies of requests around them. */
#ifndef VRAMD_LOAD_PROMPT_H
#define VRAMD_LOAD_PROMPT_H

#include "base/buf.h"
#include "load/spec.h"

/* SplitMix64. */
typedef struct load_rng {
    uint64_t s;
} load_rng;
uint64_t load_rng_next(load_rng *);
double load_rng_unit(load_rng *); /* [0, 1) */
load_rng load_rng_of(uint64_t seed, uint64_t stream, uint64_t index);

/* What prompts are made of: token ids of the server's, or words. */
typedef struct load_vocab {
    vec_i32 ids;            /* empty: words */
    double tokens_per_word; /* of a text of these words */
} load_vocab;

/* Every word once: the text whose tokens the server's tokenizer counts. */
void load_words(buf *out);
size_t load_n_words(void);

/* A request as it will be sent. body is on the heap, the caller's. */
typedef struct load_job {
    uint64_t index; /* counts over all levels */
    bool open_loop; /* due_us is when it starts, from the start of the level */
    uint64_t due_us;
    uint32_t prompt_tokens, output_tokens; /* requested */
    buf body;
} load_job;

/* Fills in body, prompt_tokens and output_tokens of request job->index; row: of the trace, or
 * NULL. ERR_NO_MEMORY. */
status load_job_make(load_job *, const load_spec *, const load_vocab *, const trace_row *,
                     err *);

#endif
