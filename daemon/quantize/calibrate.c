/* A text through the machine, with a tap on what its matrices multiply. */
#include "daemon/quantize/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"

enum { CONTEXT = 512, FIT_TOKENS = 16384, HELD_SHARE = 8 };
#define MOST_H (2ULL << 30)

static void see(void *arg, const op *o, const float *x, uint32_t n_rows, uint32_t n_in,
                uint32_t thread, uint32_t n_threads) {
    calibration *c = arg;
    (void)n_in;
    calib_add(&c->sums, o, x, n_rows, thread, n_threads);
}

/* ---- the plan ---- */

/* Bytes for H: all of them, or what is allowed, but the largest at least. */
static uint64_t bytes_for_h(const calibration *c, const program *p) {
    uint64_t all = 0, largest = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        if (o->kind != OP_LINEAR && o->kind != OP_GATE_UP) continue;
        const uint64_t b = hessian_bytes(p->values[o->in].cols);
        all += b;
        if (b > largest) largest = b;
    }
    const uint64_t most = c->wish.max_h ? c->wish.max_h : MOST_H;
    return all <= most ? all : most > largest ? most : largest;
}

static void prepare(void *arg, const machine *m, terms *t) {
    calibration *c = arg;
    tokenizer *tok = NULL;
    if (!m->file) return; /* refused later */
    c->s =
        tokenizer_open_pre(&tok, m->file, str_of(m->opt.pre_tokenizer), chunks_heap(), &c->e);
    if (c->s == OK)
        c->s = calibrate_text_cut(&c->text, tok, m->opt.max_model_len, c->wish.n_fit,
                                  c->wish.n_held, &c->e);
    tokenizer_close(tok);
    if (c->s != OK) return;
    c->job.text = &c->text.fit;
    const program *p = &m->model->program;
    eval_terms(&c->job, p->config.n_vocab, t);
    terms_add(t, MEM_WORKSPACE, TERM_EXACT, calib_bytes(p), "sums over inputs");
    if (c->wish.hessians) {
        c->h_bytes = bytes_for_h(c, p);
        terms_add(t, MEM_WORKSPACE, TERM_EXACT, c->h_bytes, "second moments of inputs");
    }
    if (c->wish.more) terms_add(t, MEM_WORKSPACE, TERM_EXACT, c->wish.more, "rows and factors");
}

/* One window after the other, nothing kept, float32. */
static void set_options(calibration *c, const char *model, const options *opt) {
    options *o = &c->opt;
    *o = *opt;
    snprintf(o->model, sizeof o->model, "%s", model);
    o->max_waiting = 1;
    o->max_num_seqs = 1;
    o->prefix_caching = false;
    o->kv_disk[0] = '\0', o->kv_host_bytes = 0; /* a server's */
    options_set_default(o, "embeddings", "off");
    options_set_default(o, "backend", "cpu");
    options_set_default(o, "activation_dtype", "f32");
}

/* ---- passes ---- */

/* H for inputs from `from` on, as many as there is memory for, zero. */
static void lay_out(calibration *c, uint32_t from) {
    uint64_t at = 0;
    for (uint32_t i = 0; i < c->sums.n_inputs; i++) c->sums.input[i].h = NULL;
    memset(c->h, 0, c->h_bytes);
    c->h_from = c->h_to = from;
    for (; c->h_to < c->sums.n_inputs; c->h_to++) {
        calib_input *in = &c->sums.input[c->h_to];
        const uint64_t bytes = hessian_bytes(in->n);
        if (at + bytes > c->h_bytes) break;
        in->h = (double *)((char *)c->h + at);
        at += bytes;
    }
    CHECK(c->h_to > from);
}

static status pass(calibration *c, err *e) {
    c->n_passes++;
    status s = eval_run(&c->job, &c->m, e);
    for (uint32_t i = 0; i < c->sums.n_inputs; i++) c->sums.input[i].counts = false;
    return s;
}

/* Sums are complete: only H is collected. */
static status again(calibration *c, uint32_t from, err *e) {
    lay_out(c, from);
    for (uint32_t i = c->h_from; i < c->h_to; i++) {
        calib_input *in = &c->sums.input[i];
        memset(in->sum_sq, 0, in->n * sizeof *in->sum_sq);
        memset(in->sum_abs, 0, in->n * sizeof *in->sum_abs);
        in->n_rows = 0;
        in->counts = true;
    }
    return pass(c, e);
}

status calibration_need(calibration *c, calib_input *in, err *e) {
    const uint32_t i = (uint32_t)(in - c->sums.input);
    CHECK(c->wish.hessians);
    return in->h ? OK : again(c, i, e);
}

static double perplexity_of(const eval_job *j) {
    double sum = 0;
    for (uint64_t i = 0; i < j->text->n_scored; i++) sum -= (double)j->point[i].logprob;
    return exp(sum / (double)j->text->n_scored);
}

static status load(calibration *c, err *e) {
    machine *m = &c->m;
    status s = machine_has_weights(m, e);
    if (s == OK) s = machine_generates(m, e);
    if (s == OK) s = machine_reserve(m, e);
    if (s == OK) s = eval_reserve(&c->job, m, e);
    if (s == OK && c->wish.hessians)
        s = ledger_alloc(m->ledger, &c->h, MEM_WORKSPACE, c->h_bytes, "second moments", e);
    if (s == OK) {
        CHECK(ledger_reserve(m->ledger, MEM_WORKSPACE, calib_bytes(&m->model->program)));
        s = calib_init(&c->sums, &m->model->program, e);
    }
    return s == OK ? machine_load(m, e) : s;
}

status calibration_plan(calibration *c, const char *model, const options *opt,
                        const calibrate_wish *w, err *e) {
    *c = (calibration){.wish = *w, .tap = {see, c}};
    if (!c->wish.context) c->wish.context = CONTEXT;
    if (!c->wish.n_fit) c->wish.n_fit = FIT_TOKENS;
    if (!c->wish.n_held) c->wish.n_held = c->wish.n_fit / HELD_SHARE + 2;
    c->job.progress = w->progress;
    c->job.interrupted = w->interrupted;
    set_options(c, model, opt);
    status s = calibrate_text_read(&c->text, w->files, w->n_files, e);
    if (s != OK) return s;
    const machine_wish wish = {.at_most_len = c->wish.context,
                               .greedy = true,
                               .scores = true,
                               .tap = &c->tap,
                               .extra = prepare,
                               .arg = c};
    s = machine_plan(&c->m, &c->opt, &wish, e);
    c->opt.max_model_len = c->wish.context = c->m.opt.max_model_len;
    return c->s != OK ? (*e = c->e).code : s;
}

uint64_t calibration_bytes(const calibration *c) {
    return plan_peak_bytes(&c->m.plan);
}

status calibration_run(calibration *c, err *e) {
    status s = load(c, e);
    if (s != OK) return s;
    if (c->wish.hessians) lay_out(c, 0);
    s = pass(c, e);
    if (s == OK) c->perplexity = perplexity_of(&c->job);
    return s;
}

void calibration_close(calibration *c) {
    if (c->m.ledger) {
        eval_release(&c->job, &c->m);
        ledger_free(c->m.ledger, c->h);
        if (c->sums.sums)
            ledger_release(c->m.ledger, MEM_WORKSPACE, calib_bytes(&c->m.model->program));
    }
    calib_clear(&c->sums);
    machine_close(&c->m);
    calibrate_text_clear(&c->text);
}
