/* The windows of a text through the machine. Main thread. */
#include "daemon/eval/eval_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"

enum { PROGRESS_US = 100000, BAR = 30 };

/* A window on its way. */
typedef struct window {
    runner_job job;
    uint32_t index;
    bool busy;
} window;

typedef struct evaluation {
    eval_job *job;
    machine *m;
    runner *runner;
    window *window; /* [max_num_seqs] */
    uint32_t n_begun, n_ended;
    uint64_t n_done; /* tokens that were scored */
    uint64_t began_us, shown_us;
    status s; /* of the first failure */
    err *e;
} evaluation;

static uint64_t points_bytes(const eval_job *j) {
    return align_up(j->text->n_scored * sizeof(eval_point), 64);
}

static uint64_t tokens_bytes(const eval_job *j) {
    const eval_text *t = j->text;
    return (t->n_tokens + (uint64_t)t->bos * t->n_windows) * sizeof *t->token;
}

void eval_terms(const eval_job *j, uint32_t n_vocab, terms *t) {
    terms_add(t, MEM_WORKSPACE, TERM_EXACT, points_bytes(j) + tokens_bytes(j),
              "evaluation of %llu tokens", (unsigned long long)j->text->n_tokens);
    if (j->written)
        terms_add(t, MEM_WORKSPACE, TERM_EXACT, eval_scratch_bytes(n_vocab),
                  "scratch of a reference");
}

status eval_reserve(eval_job *j, machine *m, err *e) {
    void *p;
    CHECK(ledger_reserve(m->ledger, MEM_WORKSPACE, tokens_bytes(j)));
    status s = ledger_alloc(m->ledger, &p, MEM_WORKSPACE, points_bytes(j), "evaluation", e);
    if (s != OK) return s;
    j->point = p;
    if (!j->written) return OK;
    s = ledger_alloc(m->ledger, &p, MEM_WORKSPACE,
                     eval_scratch_bytes(m->model->program.config.n_vocab), "scratch", e);
    if (s == OK) j->scratch = p;
    return s;
}

void eval_release(eval_job *j, machine *m) {
    if (!m->ledger) return;
    ledger_free(m->ledger, j->point);
    ledger_free(m->ledger, j->scratch);
    ledger_release(m->ledger, MEM_WORKSPACE, tokens_bytes(j));
}

/* ---- what a row gave ---- */

static status take_row(evaluation *v, uint64_t index, const sampled *scored,
                       const float *logits) {
    eval_job *j = v->job;
    const uint32_t n_vocab = v->m->model->program.config.n_vocab;
    eval_point *p = &j->point[index];
    eval_record r;
    status s = OK;
    p->logprob = scored->logprob;
    if (!isfinite(p->logprob) || (logits && !dtype_is_finite(DT_F32, logits, n_vocab)))
        return err_set(v->e, ERR_UNSUPPORTED, "the logits of token %llu are not finite",
                       (unsigned long long)index);
    if (j->written) {
        eval_record_make(&r, logits, n_vocab, scored, index, j->scratch);
        s = eval_file_write(j->written, index, &r, v->e);
    }
    if (s != OK || !j->reference) return s;
    s = eval_file_read(j->reference, index, &r, v->e);
    if (s != OK) return s;
    if (r.target != (uint32_t)scored->token)
        return err_set(v->e, ERR_FORMAT, "record %llu of the reference is of another token",
                       (unsigned long long)index);
    p->reference = r.logprob;
    p->kl = (float)eval_record_kl(&r, logits, scored->logprob);
    p->agrees = scored->n_top && (uint32_t)scored->top[0].token == r.id[0];
    return OK;
}

static void on_event(void *arg, const runner_event *e) {
    evaluation *v = arg;
    window *w = (window *)(uintptr_t)e->event->user;
    const uint32_t n_vocab = v->m->model->program.config.n_vocab;
    if (e->event->kind == EVENT_PREFILLED && v->s == OK) {
        const uint64_t first =
            e->n_scored ? eval_index(v->job->text, w->index, e->first_scored) : 0;
        CHECK(!eval_needs_logits(v->job) || !e->n_scored || e->logits);
        for (uint32_t i = 0; i < e->n_scored && v->s == OK; i++)
            v->s = take_row(v, first + i, &e->scored[i],
                            e->logits ? e->logits + (size_t)i * n_vocab : NULL);
        v->n_done += e->n_scored;
    }
    if (e->event->kind != EVENT_ENDED) return;
    w->busy = false;
    v->n_ended++;
    if (e->event->finish == FINISH_ERROR && v->s == OK)
        v->s = (*v->e = *runner_last_error(v->runner)).code;
}

/* ---- the loop ---- */

static void show_progress(evaluation *v) {
    const uint64_t now = clock_us(), all = v->job->text->n_scored;
    if (!v->job->progress || now - v->shown_us < PROGRESS_US) return;
    v->shown_us = now;
    char bar[BAR + 1];
    const double part = (double)v->n_done / (double)all, s = (double)(now - v->began_us) / 1e6;
    const double rate = s > 0 ? (double)v->n_done / s : 0;
    for (int i = 0; i < BAR; i++) bar[i] = i < (int)(part * BAR) ? '#' : ' ';
    bar[BAR] = '\0';
    fprintf(stderr, "\r\033[K[%s] %3.0f%%  %llu of %llu tokens  %.0f tok/s", bar, 100 * part,
            (unsigned long long)v->n_done, (unsigned long long)all, rate);
    if (rate > 0) fprintf(stderr, "  %.0f s left", (double)(all - v->n_done) / rate);
    fflush(stderr);
}

static void begin(evaluation *v, window *w) {
    const int32_t *first;
    sched_id id;
    *w = (window){.index = v->n_begun, .busy = true};
    w->job.n_score = v->job->reference ? 1 : 0;
    const uint32_t n = eval_window(v->job->text, v->n_begun++, &first);
    const sched_spec q = {
        .prompt = first, .n_prompt = n, .score_prompt = true, .user = (uintptr_t)w};
    CHECK(sched_submit(v->m->sched, &q, clock_us(), &id) == REJECT_NONE);
    runner_deliver(v->runner);
}

/* Windows on their way, in the order of the text, until all have ended or something failed. */
static void run_windows(evaluation *v) {
    const uint32_t n = v->job->text->n_windows, most = v->m->opt.max_num_seqs;
    while (v->n_ended < n && v->s == OK) {
        for (uint32_t i = 0; i < most && v->n_begun < n; i++)
            if (!v->window[i].busy) begin(v, &v->window[i]);
        if (!runner_step(v->runner)) runner_deliver(v->runner);
        show_progress(v);
        if (*v->job->interrupted) v->s = err_set(v->e, ERR_INVALID, "interrupted");
    }
}

status eval_run(eval_job *j, machine *m, err *e) {
    evaluation v = {.job = j, .m = m, .e = e, .began_us = clock_us()};
    v.window = calloc(m->opt.max_num_seqs, sizeof *v.window);
    if (!v.window) return err_set(e, ERR_NO_MEMORY, "no memory for the windows");
    v.runner = machine_runner(m, on_event, &v);
    run_windows(&v);
    CHECK(v.s != OK || v.n_done == j->text->n_scored);
    if (j->progress) fputs("\r\033[K", stderr);
    free(v.window);
    return v.s;
}
