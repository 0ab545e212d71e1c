/* The draft model's file, terms and engine. Threads: as the machine's. */
#include "daemon/draft_model.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "daemon/bridge/draft_run.h"
#include "daemon/machine.h"

static status unsupported(err *e, const char *why, const char *hint) {
    err_set(e, ERR_UNSUPPORTED, "draft_model: %s", why);
    err_field(e, "draft_model");
    return err_hint(e, "%s", hint);
}

/* ---- the vocabulary ---- */

static status other_vocabulary(const machine *m, const char *what, err *e) {
    err_set(e, ERR_INVALID,
            "draft_model = %.150s has another vocabulary than %.150s: %s differ",
            m->opt.draft_model, m->opt.model, what);
    err_field(e, "draft_model");
    return err_hint(e, "give a smaller model of the same family");
}

static bool same_words(const fact_array *a, const fact_array *b) {
    const str *x = a->v, *y = b->v;
    uint64_t n = a->n == b->n ? a->n : 0;
    while (n > 0 && str_eq(x[n - 1], y[n - 1])) n--;
    return a->n == b->n && n == 0;
}

/* Numbers of tokens must mean the same text to both; where a text is cut is the target's alone. */
static status check_vocabulary(const machine *m, err *e) {
    static const char *const ids[] = {"bos", "eos", "eot", "unknown", "padding"};
    const checkpoint *a = m->file, *b = m->draft.file;
    fact_array x = {0}, y = {0}, s = {0}, t = {0};
    status st = checkpoint_get_array(a, "tokenizer.ggml.tokens", FACT_STR, &x, e);
    if (st == OK) st = checkpoint_get_array(b, "tokenizer.ggml.tokens", FACT_STR, &y, e);
    if (st == OK) st = checkpoint_get_array(a, "tokenizer.ggml.token_type", FACT_I32, &s, e);
    if (st == OK) st = checkpoint_get_array(b, "tokenizer.ggml.token_type", FACT_I32, &t, e);
    if (st != OK) return st;
    const model_config *of = &m->model->program.config, *own = &m->draft.model->program.config;
    if (of->n_vocab != own->n_vocab) return other_vocabulary(m, "the numbers of tokens", e);
    if (!same_words(&x, &y)) return other_vocabulary(m, "tokens", e);
    if (s.n != t.n || (s.n && memcmp(s.v, t.v, s.n * sizeof(int32_t)) != 0))
        return other_vocabulary(m, "types of tokens", e);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char key[64];
        uint32_t u = UINT32_MAX, v = UINT32_MAX;
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ids[i]);
        st = checkpoint_get_u32(a, key, &u, e);
        if (st == OK) st = checkpoint_get_u32(b, key, &v, e);
        if (st != OK) return st;
        if (u != v) return other_vocabulary(m, key, e);
    }
    return OK;
}

status draft_model_open(machine *m, const machine_wish *w, err *e) {
    draft_model *d = &m->draft;
    if (!m->opt.draft_model[0] || w->keep_logits || w->tap) return OK;
    if (!m->file)
        return unsupported(e, "the model is planned without its vocabulary",
                           "name a GGUF file, or a folder with safetensors");
    status s = checkpoint_open(&d->file, m->opt.draft_model, e);
    if (s == OK) s = model_open(&d->model, d->file, e);
    if (s != OK) return s;
    if (d->model->program.config.bidirectional)
        return unsupported(e, "it is an encoder, which guesses nothing",
                           "give a model that generates text");
    if (program_state_bytes(&d->model->program))
        return unsupported(e, "its recurrent layers cannot take back a guess",
                           "give a model whose layers all have attention");
    d->header_bytes = checkpoint_header_bytes(d->file);
    d->share = (double)program_weight_bytes(&d->model->program) /
               (double)program_weight_bytes(&m->model->program);
    return check_vocabulary(m, e);
}

/* ---- the plan ---- */

static status check_target(machine *m, const kv_request *kv, err *e) {
    draft_model *d = &m->draft;
    if (m->on_device)
        return unsupported(e, "the CUDA engine verifies no guesses", "give backend = cpu");
    if (m->opt.tensor_parallel_size > 1 || m->opt.pipeline_parallel_size > 1)
        return unsupported(e, "ranks cannot use a draft model",
                           "leave out tensor_parallel_size and pipeline_parallel_size");
    if (m->opt.kv_disk[0] || m->opt.kv_host_bytes)
        return unsupported(e, "tiers on disk and in host memory do not store its KV cache",
                           "leave out kv_disk and kv_host_bytes");
    for (d->group = 0; d->group < kv->n_groups && kv->group[d->group].window;) d->group++;
    if (d->group < kv->n_groups && kv->n_groups < PLAN_MAX_GROUPS) return OK;
    return unsupported(e,
                       d->group == kv->n_groups ? "no layer of the model attends to all tokens"
                                                : "the model has too many groups of layers",
                       "leave the option out, or give another type of KV cache");
}

static void set_options(machine *m) {
    const engine_options *of = &m->engine_opt;
    m->draft.opt = (engine_options){.max_rows = of->max_rows,
                                    .max_seqs = of->max_seqs,
                                    .max_logit_rows = of->max_seqs,
                                    .max_model_len = of->max_model_len,
                                    .block_tokens = of->block_tokens,
                                    .kv_k = DT_F16,
                                    .kv_v = DT_F16,
                                    .activations = of->activations,
                                    .n_threads = of->n_threads,
                                    .isa = of->isa};
}

/* Of its engine: all of one class, but for what is held while loading. */
static void add_terms(const draft_model *d, const terms *own, terms *t) {
    for (size_t i = 0; i < own->n; i++) {
        const term *x = &own->v[i];
        terms_add(t, x->while_loading ? MEM_LOADING : MEM_DRAFT, x->kind, x->bytes,
                  "%s%s: %.48s", x->while_loading ? "draft model, " : "",
                  mem_class_name(x->cls), x->what);
        if (x->while_loading) terms_last_while_loading(t);
    }
    terms_add(t, MEM_LOADING, TERM_EXACT, d->header_bytes, "headers of the draft model");
    terms_last_while_loading(t);
}

status draft_model_terms(machine *m, terms *t, kv_request *kv, err *e) {
    draft_model *d = &m->draft;
    terms own = {0};
    kv_request pools = {0};
    if (!d->model) return OK;
    status s = check_target(m, kv, e);
    if (s != OK) return s;
    set_options(m);
    s = backend_cpu.terms(&d->model->program, &d->opt, &own, &pools, e);
    if (s == OK && own.failed) s = mem_exhausted(e, MEM_RUNTIME, "the list of terms");
    if (s == OK) {
        kv_group_cost all = {.draft = true};
        for (uint32_t g = 0; g < pools.n_groups; g++) {
            all.n_layers += pools.group[g].n_layers;
            all.bytes_per_token += pools.group[g].bytes_per_token;
        }
        const uint32_t n = draft_run_aside(d->opt.max_seqs, d->opt.block_tokens);
        d->n_groups = pools.n_groups;
        d->pool = kv->n_groups;
        d->block_bytes = all.bytes_per_token * d->opt.block_tokens;
        kv->group[kv->n_groups++] = all;
        add_terms(d, &own, t);
        terms_add(t, MEM_KV, TERM_EXACT, n * d->block_bytes,
                  "%u blocks for guesses of the draft model", n);
    }
    terms_clear(&own);
    return s;
}

uint64_t draft_model_valid_bytes(const machine *m, const uint32_t *n_blocks) {
    return m->draft.model ? draft_run_valid_bytes(n_blocks[m->draft.group]) : 0;
}

uint64_t draft_model_run_bytes(const machine *m) {
    const engine_options *o = &m->draft.opt;
    return m->draft.model ? draft_run_bytes(o->max_seqs, o->max_model_len, o->block_tokens) : 0;
}

/* ---- the engine ---- */

status draft_model_load(machine *m, err *e) {
    draft_model *d = &m->draft;
    if (!d->model) return OK;
    const uint32_t aside = draft_run_aside(d->opt.max_seqs, d->opt.block_tokens);
    for (uint32_t g = 0; g < d->n_groups; g++) {
        d->opt.n_blocks[g] = m->engine_opt.n_blocks[d->group] + aside;
        d->opt.max_blocks[g] = m->engine_opt.max_blocks[d->group] + aside;
    }
    status s = ledger_open_as(&d->ledger, m->ledger, MEM_DRAFT, e);
    if (s == OK)
        s = engine_open(&d->engine, &backend_cpu, d->model, &d->opt, d->ledger, NULL, e);
    return s == OK ? checkpoint_unchanged(d->file, e) : s;
}

draft_run *draft_model_run(machine *m, void *mem, void *valid) {
    const draft_model *d = &m->draft;
    const draft_run_config c = {.engine = d->engine,
                                .n_groups = d->n_groups,
                                .max_seqs = d->opt.max_seqs,
                                .max_rows = d->opt.max_rows,
                                .max_draft = m->engine_opt.max_draft,
                                .max_model_len = d->opt.max_model_len,
                                .block_tokens = d->opt.block_tokens,
                                .share = d->share};
    return draft_run_init(mem, valid, &c);
}

status draft_model_resize(machine *m, const uint32_t *n_blocks, err *e) {
    const draft_model *d = &m->draft;
    uint32_t n[PLAN_MAX_GROUPS] = {0};
    if (!d->model) return OK;
    for (uint32_t g = 0; g < d->n_groups; g++)
        n[g] = n_blocks[d->group] + draft_run_aside(d->opt.max_seqs, d->opt.block_tokens);
    return engine_kv_resize(d->engine, n, e);
}

void draft_model_close_file(machine *m) {
    draft_model *d = &m->draft;
    if (!d->file) return;
    if (m->ledger) ledger_release(m->ledger, MEM_LOADING, d->header_bytes);
    checkpoint_close(d->file);
    d->file = NULL;
}

void draft_model_close(machine *m) {
    draft_model *d = &m->draft;
    engine_close(d->engine);
    model_close(d->model);
    draft_model_close_file(m);
    ledger_close(d->ledger);
}
