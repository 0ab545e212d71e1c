/* Random batches, and tables of them: for the test and the fuzzer of engine/tables.h. */
#ifndef VRAMD_TESTS_ENGINE_TABLES_RIG_H
#define VRAMD_TESTS_ENGINE_TABLES_RIG_H

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "engine/tables.h"

enum { TR_SEQS = 6, TR_LEN = 64, TR_VOCAB = 77, TR_GROUPS = 2, TR_BLOCK = 8 };
enum { TR_STATES = 9, TR_CHECKPOINTS = TR_SEQS + TR_SEQS * 20 / STATE_CHUNK };
enum { TR_BLOCKS = TR_LEN / TR_BLOCK, TR_WORDS = (TR_VOCAB + 31) / 32, TR_BYTES = 1 << 15 };

typedef struct tables_rig {
    uint64_t state;
    tables_model m;
    engine_options o;
    batch b;
    batch_seq seq[TR_SEQS];
    sampling params[TR_SEQS];
    int32_t tokens[TR_SEQS][TR_LEN + 1], blocks[TR_SEQS][TR_GROUPS][TR_BLOCKS];
    int32_t end[3];
    logit_bias bias[3];
    uint32_t allowed[TR_WORDS];
    block_copy copies[TR_SEQS * (TR_GROUPS + 1)];
    batch_checkpoint checkpoints[TR_SEQS][2];
    /* What is read back. */
    tables_store store;
    batch_seq got_seq[TR_SEQS];
    sampling got_params[TR_SEQS];
    int32_t got_tokens[TR_SEQS * TR_LEN];
    block_copy got_copies[TR_SEQS * (TR_GROUPS + 1)];
    batch_checkpoint got_checkpoints[TR_CHECKPOINTS];
    _Alignas(64) unsigned char bytes[TR_BYTES];
} tables_rig;

static inline uint32_t tr_below(tables_rig *r, uint32_t n) {
    return (uint32_t)(hash_mix(r->state++) >> 33) % n;
}
static inline float tr_float(tables_rig *r) {
    return (float)tr_below(r, 1000) / 500;
}

static inline void tr_params(tables_rig *r, sampling *p) {
    *p = (sampling){.temperature = tr_float(r),
                    .top_k = (int32_t)tr_below(r, 50) - 1,
                    .top_p = tr_float(r),
                    .min_p = tr_float(r),
                    .typical_p = tr_float(r),
                    .repetition_penalty = 1,
                    .seed = hash_mix(r->state),
                    .n_logprobs = (int16_t)((int)tr_below(r, 5) - 1)};
    if (tr_below(r, 2)) p->repetition_penalty = 1.5f;
    if (tr_below(r, 4) == 0) p->presence_penalty = 0.5f, p->frequency_penalty = -0.25f;
    p->n_end_tokens = tr_below(r, 4), p->end_tokens = r->end;
    p->min_tokens = p->n_end_tokens ? tr_below(r, 3) * 20 : 0;
    p->n_bias = tr_below(r, 4), p->bias = r->bias;
}

static inline void tr_seq(tables_rig *r, uint32_t i) {
    batch_seq *s = &r->seq[i];
    *s = (batch_seq){.first_row = r->b.n_rows, .tokens = r->tokens[i], .n_score = -1};
    s->n_rows = tr_below(r, 3) ? 1 : 1 + tr_below(r, 20);
    s->first_pos = tr_below(r, TR_LEN - s->n_rows + 1);
    s->input_from = s->n_rows == 1 && tr_below(r, 2) ? (int32_t)tr_below(r, TR_SEQS) : -1;
    s->n_prompt = 1 + tr_below(r, TR_LEN);
    s->n_logit_rows = tr_below(r, 3) ? 1 : tr_below(r, s->n_rows + 1);
    s->sample = s->n_logit_rows > 0 && tr_below(r, 4);
    if (s->input_from < 0 && s->first_pos + s->n_rows < TR_LEN && tr_below(r, 2))
        s->n_score = (int8_t)tr_below(r, 4);
    for (uint32_t k = 0; k <= TR_LEN; k++) r->tokens[i][k] = (int32_t)tr_below(r, TR_VOCAB);
    for (uint32_t g = 0; g < TR_GROUPS; g++) {
        s->n_blocks[g] = (uint32_t)ceil_div(s->first_pos + s->n_rows, TR_BLOCK);
        s->blocks[g] = r->blocks[i][g];
        for (uint32_t k = 0; k < TR_BLOCKS; k++)
            r->blocks[i][g][k] = (int32_t)tr_below(r, 100) - 1;
    }
    if (s->sample) {
        tr_params(r, &r->params[i]);
        s->params = &r->params[i];
        if (tr_below(r, 2)) s->allowed = r->allowed;
    }
    r->b.n_rows += s->n_rows, r->b.n_logit_rows += s->n_logit_rows;
}

/* Every second batch is of a model with recurrent layers. */
static inline void tr_state(tables_rig *r, uint32_t i) {
    batch_seq *s = &r->seq[i];
    if (!r->m.n_states) return;
    s->state = tr_below(r, TR_STATES);
    s->checkpoints = r->checkpoints[i];
    for (uint32_t n = STATE_CHUNK; n <= s->first_pos + s->n_rows; n += STATE_CHUNK)
        if (n > s->first_pos && s->n_checkpoints < 2)
            r->checkpoints[i][s->n_checkpoints++] =
                (batch_checkpoint){n, tr_below(r, TR_STATES)};
}

/* A random batch, keyed by seed. */
static inline void tr_make(tables_rig *r, uint64_t seed) {
    memset(r, 0, offsetof(tables_rig, bytes));
    r->state = hash_mix(seed) << 20;
    r->m = (tables_model){TR_VOCAB, TR_GROUPS, TR_BLOCK, seed % 2 ? TR_STATES : 0};
    r->o = (engine_options){.max_rows = TR_SEQS * 20,
                            .max_seqs = TR_SEQS,
                            .max_logit_rows = TR_SEQS * 20,
                            .max_model_len = TR_LEN,
                            .block_tokens = TR_BLOCK};
    r->store = (tables_store){r->got_seq, r->got_params, r->got_tokens, r->got_copies,
                              r->got_checkpoints};
    for (uint32_t i = 0; i < 3; i++) {
        r->end[i] = (int32_t)tr_below(r, TR_VOCAB);
        r->bias[i] = (logit_bias){(int32_t)tr_below(r, TR_VOCAB), tr_float(r)};
    }
    for (uint32_t i = 0; i < TR_WORDS; i++) r->allowed[i] = (uint32_t)hash_mix(r->state++);
    r->b = (batch){.seq = r->seq, .n_seqs = tr_below(r, TR_SEQS + 1), .copies = r->copies};
    for (uint32_t i = 0; i < r->b.n_seqs; i++) tr_seq(r, i), tr_state(r, i);
    r->b.n_copies = tr_below(r, TR_SEQS * TR_GROUPS + 1);
    for (uint32_t i = 0; i < r->b.n_copies; i++) {
        const uint32_t group = tr_below(r, TR_GROUPS + (r->m.n_states > 0));
        r->copies[i] = (block_copy){(int32_t)tr_below(r, 99), (int32_t)tr_below(r, 99),
                                    group == TR_GROUPS ? ENGINE_COPY_STATE : group};
    }
}

/* Its tables, in r->bytes; how many bytes. */
static inline uint64_t tr_fill(tables_rig *r) {
    const tables_shape shape = tables_measure(&r->m, &r->b);
    memset(r->bytes, 0, sizeof r->bytes);
    return tables_fill(r->bytes, &r->m, &shape, &r->b);
}

#endif
