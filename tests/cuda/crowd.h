/* Sequences that generate side by side on a rig (tests/engine/engine_rig.h). SEQS, PROMPT and LINE are the
 * test's: how many there are, tokens of a prompt, tokens of a sequence. */
#ifndef VRAMD_TESTS_CUDA_CROWD_H
#define VRAMD_TESTS_CUDA_CROWD_H

#include "tests/engine/engine_rig.h"

typedef struct crowd {
    int32_t tokens[SEQS][LINE], table[SEQS][32];
    sampling params[SEQS];
} crowd;

/* Greedy, until a test says otherwise. */
static void crowd_init(crowd *c, rig *r, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        rig_tokens(r, c->tokens[i], PROMPT, 10 + i);
        rig_table(r, c->table[i], i, (uint32_t)ceil_div(LINE, r->opt.block_tokens), 5);
        sampling_defaults(&c->params[i]);
        c->params[i].temperature = 0;
        c->params[i].n_logprobs = 2;
    }
}

/* Sequence i in a step of n rows of each, from position first on. */
static void crowd_part(const crowd *c, batch_seq *s, uint32_t i, uint32_t first, uint32_t n) {
    *s = (batch_seq){.first_row = i * n,
                     .n_rows = n,
                     .first_pos = first,
                     .tokens = c->tokens[i],
                     .input_from = -1,
                     .blocks = {c->table[i], c->table[i]},
                     .n_blocks = {32, 32},
                     .n_logit_rows = 1,
                     .sample = true,
                     .n_score = -1,
                     .state = i,
                     .params = &c->params[i],
                     .n_prompt = PROMPT};
}

static batch crowd_batch(const batch_seq *s, uint32_t n, uint32_t rows) {
    return (batch){.seq = s, .n_seqs = n, .n_rows = n * rows, .n_logit_rows = n};
}

/* Puts what a step drew behind the tokens. */
static void crowd_take(crowd *c, const step_result *out, uint32_t n, uint32_t at) {
    for (uint32_t i = 0; i < n; i++) c->tokens[i][at] = out->token[i].token;
}

#endif
