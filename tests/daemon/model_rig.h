/* Small models of every family with a vocabulary, in memory files, for whole daemons. All functions
 * are static; what fails ends the test. */
#ifndef TESTS_DAEMON_MODEL_RIG_H
#define TESTS_DAEMON_MODEL_RIG_H

#include "model/family.h"
#include "tests/model/gguf_hybrid.h"
#include "tests/model/gguf_shaped.h"

static GB_UNUSED void model_rig_str(gb *b, const checkpoint *from, const char *key) {
    str v;
    err e;
    if (!checkpoint_has(from, key)) return;
    CHECK(checkpoint_get_str(from, key, &v, &e) == OK);
    gb_strn(b, key, v);
}

static GB_UNUSED void model_rig_array(gb *b, const checkpoint *from, const char *key,
                                      fact_type type) {
    fact_array a;
    err e;
    if (!checkpoint_has(from, key)) return;
    CHECK(checkpoint_get_array(from, key, type, &a, &e) == OK);
    if (type == FACT_STR)
        gb_strs(b, key, a.v, a.n);
    else
        gb_ints(b, key, a.v, a.n);
}

/* Adds the vocabulary of a golden file; returns the number of its tokens. */
static GB_UNUSED uint32_t model_rig_vocabulary(gb *b) {
    checkpoint *from;
    fact_array tokens;
    err e;
    CHECK(checkpoint_open(&from, "tests/golden/tokenizer/mixed.gguf", &e) == OK);
    model_rig_str(b, from, "tokenizer.ggml.model");
    model_rig_str(b, from, "tokenizer.ggml.pre");
    model_rig_array(b, from, "tokenizer.ggml.tokens", FACT_STR);
    model_rig_array(b, from, "tokenizer.ggml.merges", FACT_STR);
    model_rig_array(b, from, "tokenizer.ggml.token_type", FACT_I32);
    gb_str(b, "tokenizer.chat_template",
           "{% for m in messages %}{{ m['content'] }}{% endfor %}");
    CHECK(checkpoint_get_array(from, "tokenizer.ggml.tokens", FACT_STR, &tokens, &e) == OK);
    const uint32_t n = (uint32_t)tokens.n;
    checkpoint_close(from);
    return n;
}

/* A small model of a family; path: of a memory file, while b lives. */
static GB_UNUSED void model_rig_make(gb *b, const family *f, char path[64]) {
    model_config c = gb_tiny(f->arch);
    gb_init(b);
    c.n_vocab = model_rig_vocabulary(b);
    if (gb_is_hybrid(f->arch)) {
        c = gb_hybrid_config(f->arch, c.n_vocab);
        gb_hybrid_keys(b, &c);
        gb_hybrid_tensors(b, &c, DT_Q4_0, 1);
        gb_open(b, path);
        return;
    }
    if (f->shaped) {
        c = gb_shaped_config(f->arch, c.n_vocab, 40);
        gb_shaped_keys(b, &c);
        gb_shaped_tensors(b, &c, DT_Q4_0, 1);
        gb_open(b, path);
        return;
    }
    c.n_ctx_train = 1024;
    c.n_layers = 3;
    if (f->window_every) {
        c.window = 40;
        c.window_every = 2;
        c.window_theta = f->window_theta;
    }
    gb_model_keys(b, &c);
    gb_model_tensors(b, &c, DT_Q4_0, 1);
    gb_open(b, path);
}

#endif
