/* An engine for tests, with the file, model and ledger under it, and batches made of a few
 * words per sequence. All functions are static; any failure ends the test. */
#ifndef VRAMD_TESTS_ENGINE_RIG_H
#define VRAMD_TESTS_ENGINE_RIG_H

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/half.h"
#include "base/hash.h"
#include "engine/cpu/cpu.h"
#include "tests/check_main.h"

#define RIG_UNUSED __attribute__((unused))

/* Sanitizers make the real model ten times slower: tests then do less of the same. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RIG_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define RIG_SANITIZED 1
#endif
#endif
#ifndef RIG_SANITIZED
#define RIG_SANITIZED 0
#endif

enum { RIG_MAX_SEQS = 64, RIG_MAX_TABLE = 256 };

/* Where the model has recurrent layers: the slot of a part, and a checkpoint that its rows write, of no
 * tokens where they write none. */
typedef struct rig_state {
    uint32_t slot;
    batch_checkpoint checkpoint;
} rig_state;

typedef struct rig {
    checkpoint *file;
    model *model;
    ledger *ledger, *device; /* the second stays empty with the CPU */
    engine *engine;
    engine_options opt;
    uint32_t n_vocab;
    /* blocks in the pools of the groups after the first; NULL: as in it */
    const int32_t *table1;
    const uint32_t *allowed;  /* tokens that rows may draw; NULL: all */
    const block_copy *copies; /* before the rows of the next steps */
    uint32_t n_copies;
    const rig_state *state; /* of the only part of the next steps; NULL: part i has slot i */
} rig;

/* A sequence's part of a step. table: physical blocks from position 0 on, in the pool of every
 * group of layers (but see rig.table1). */
typedef struct part {
    const int32_t *tokens, *table;
    uint32_t first, n, n_logits;
    const sampling *params; /* NULL: the last row does not sample */
    int n_score;            /* 0: not; else so many best, less one */
} part;

static RIG_UNUSED engine_options rig_options(void) {
    return (engine_options){.max_rows = 256,
                            .max_seqs = 32,
                            .max_logit_rows = 64,
                            .max_model_len = 1024,
                            .block_tokens = 16,
                            .n_blocks = {64, 64, 64, 64},
                            .kv_k = DT_F16,
                            .kv_v = DT_F16,
                            .activations = ACTIVATION_INT8,
                            .n_threads = 2,
                            .isa = ISA_AUTO};
}

/* Without keeping logits. */
static RIG_UNUSED void rig_open_bare(rig *r, const backend *b, const char *path,
                                     const engine_options *o) {
    err e;
    *r = (rig){.opt = *o};
    ck_assert_msg(checkpoint_open(&r->file, path, &e) == OK, "%s", e.text);
    ck_assert_msg(model_open(&r->model, r->file, &e) == OK, "%s", e.text);
    ck_assert_msg(ledger_open_unlimited(&r->ledger, &e) == OK, "%s", e.text);
    ck_assert_msg(ledger_open_unlimited(&r->device, &e) == OK, "%s", e.text);
    ck_assert_msg(engine_open(&r->engine, b, r->model, o, r->ledger, r->device, &e) == OK, "%s",
                  e.text);
    r->n_vocab = r->model->program.config.n_vocab;
}

static RIG_UNUSED void rig_open_on(rig *r, const backend *b, const char *path,
                                   const engine_options *o) {
    engine_options keeping = *o;
    keeping.keep_logits = true;
    rig_open_bare(r, b, path, &keeping);
}

static RIG_UNUSED void rig_open(rig *r, const char *path, const engine_options *o) {
    rig_open_on(r, &backend_cpu, path, o);
}

static RIG_UNUSED void rig_close(rig *r) {
    engine_close(r->engine);
    ledger_close(r->ledger);
    ledger_close(r->device);
    model_close(r->model);
    checkpoint_close(r->file);
}

/* Fills every slot of the cache and every state with NaN, as another sequence might have left it. */
static RIG_UNUSED void rig_poison(rig *r) {
    cpu_engine *e = (cpu_engine *)r->engine;
    for (uint32_t g = 0; g < e->layout.groups.n; g++)
        memset(e->kv[g], 0xff, cpu_block_bytes(&e->layout, g) * r->opt.n_blocks[g]);
    if (e->states)
        memset(e->states, 0xff, sizeof(float) * e->layout.n_states * e->layout.state_floats);
}

static RIG_UNUSED status rig_try(rig *r, const part *p, uint32_t n, step_result *out, err *e) {
    batch_seq seq[RIG_MAX_SEQS];
    batch b = {.seq = seq, .n_seqs = n, .copies = r->copies, .n_copies = r->n_copies};
    ck_assert_uint_le(n, RIG_MAX_SEQS);
    for (uint32_t i = 0; i < n; i++) {
        const int32_t *other = r->table1 ? r->table1 : p[i].table;
        const uint32_t blocks = (uint32_t)ceil_div(p[i].first + p[i].n, r->opt.block_tokens);
        seq[i] = (batch_seq){.first_row = b.n_rows,
                             .n_rows = p[i].n,
                             .first_pos = p[i].first,
                             .tokens = p[i].tokens,
                             .input_from = -1,
                             .blocks = {p[i].table, other, other, other},
                             .n_blocks = {blocks, blocks, blocks, blocks},
                             .n_logit_rows = p[i].n_logits,
                             .sample = p[i].params != NULL,
                             .n_score = (int8_t)(p[i].n_score - 1),
                             .params = p[i].params,
                             .allowed = r->allowed,
                             .n_prompt = p[i].first + p[i].n,
                             .state = r->state ? r->state->slot : i,
                             .checkpoints = r->state ? &r->state->checkpoint : NULL,
                             .n_checkpoints = r->state && r->state->checkpoint.n_tokens > 0};
        b.n_rows += p[i].n;
        b.n_logit_rows += p[i].n_logits;
    }
    status s = engine_submit(r->engine, &b, e);
    return s == OK ? engine_collect(r->engine, out, e) : s;
}

/* Runs a step; the rows of logits stand in the result, entry by entry. */
static RIG_UNUSED step_result rig_run(rig *r, const part *p, uint32_t n) {
    step_result out = {0};
    err e;
    ck_assert_msg(rig_try(r, p, n, &out, &e) == OK, "%s", e.text);
    return out;
}

/* Block tables in no order: sequence `seq` of n_blocks each, keyed by seed. */
static RIG_UNUSED void rig_table(const rig *r, int32_t *table, uint32_t seq, uint32_t n_blocks,
                                 uint32_t seed) {
    const uint32_t all = r->opt.n_blocks[0];
    int32_t order[RIG_MAX_TABLE];
    ck_assert(all <= RIG_MAX_TABLE && (seq + 1) * n_blocks <= all);
    for (uint32_t i = 0; i < all; i++) order[i] = (int32_t)i;
    for (uint32_t i = all; i-- > 1;) {
        uint32_t j = (uint32_t)(hash_mix((uint64_t)seed << 32 | i) % (i + 1));
        int32_t t = order[i];
        order[i] = order[j], order[j] = t;
    }
    memcpy(table, order + seq * n_blocks, n_blocks * sizeof *table);
}

/* A mask of tokens: all, every third or so, one, none. [sampling_mask_words(n_vocab)], freed by
 * the caller. */
enum { RIG_ALLOW_ALL, RIG_ALLOW_SOME, RIG_ALLOW_ONE, RIG_ALLOW_NONE };
static RIG_UNUSED uint32_t *rig_mask(const rig *r, int which) {
    const uint32_t n = sampling_mask_words(r->n_vocab);
    uint32_t *mask = calloc(n, sizeof *mask);
    ck_assert_ptr_nonnull(mask);
    for (uint32_t i = 0; i < n; i++)
        mask[i] = which == RIG_ALLOW_ALL    ? UINT32_MAX
                  : which == RIG_ALLOW_SOME ? (uint32_t)hash_mix(i) & (uint32_t)hash_mix(i + n)
                                            : 0;
    if (which == RIG_ALLOW_ONE) mask[r->n_vocab / 64] |= 8;
    return mask;
}

static RIG_UNUSED void rig_tokens(const rig *r, int32_t *tokens, uint32_t n, uint64_t seed) {
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)(hash_mix(seed << 32 | i) % r->n_vocab);
}

/* One value out of range: which field the error names. */
typedef struct bad_option {
    const char *field;
    size_t at; /* in engine_options, four bytes */
    uint32_t value;
    status code;
} bad_option;

/* Each alone makes a backend refuse to plan a model that it plans with the good options. */
static RIG_UNUSED void rig_refuses(const backend *be, const program *p,
                                   const engine_options *good, const bad_option *bad,
                                   size_t n) {
    terms t = {0};
    kv_request kv;
    err e;
    ck_assert_msg(be->terms(p, good, &t, &kv, &e) == OK, "%s", e.text);
    terms_clear(&t);
    for (size_t i = 0; i < n; i++) {
        engine_options o = *good;
        memcpy((char *)&o + bad[i].at, &bad[i].value, sizeof bad[i].value);
        ck_assert_int_eq(be->terms(p, &o, &t, &kv, &e), bad[i].code);
        ck_assert_str_eq(e.field, bad[i].field);
        terms_clear(&t);
    }
}

/* A model without kernels is refused; the error names the field and has the text. */
static RIG_UNUSED void rig_unsupported(const backend *be, const model_config *c, dtype type,
                                       const engine_options *o, const char *field,
                                       const char *text) {
    terms t = {0};
    kv_request kv;
    model *m;
    err e;
    ck_assert_msg(model_from_config(&m, c, type, &e) == OK, "%s", e.text);
    ck_assert_int_eq(be->terms(&m->program, o, &t, &kv, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, field);
    ck_assert_msg(strstr(e.text, text) != NULL, "\"%s\" is not in \"%s\"", text, e.text);
    terms_clear(&t);
    model_close(m);
}

#endif
