/* Three runs over the texts that were held out. */
#include "daemon/quantize/held_out.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/eval/eval_pair.h"
#include "daemon/eval/eval_run.h"
#include "daemon/machine.h"

enum { RTN, MADE };

typedef struct comparison {
    const calibrate_text *text;
    const options *opt;
    const char *scratch;
    const volatile sig_atomic_t *interrupted;
    float *kl[CALIBRATE_KINDS][2]; /* [n_scored] */
    eval_job job[CALIBRATE_KINDS];
    eval_file file[CALIBRATE_KINDS];
} comparison;

/* Differences in batches, as daemon/eval/eval_stats.h has them. */
void held_out_difference(const float *rtn, const float *made, uint64_t n, held_out_row *row) {
    double sum = 0, squares = 0, all[2] = {0};
    const uint64_t batches = n / EVAL_BATCH;
    for (uint64_t i = 0; i < n; i++) all[RTN] += (double)rtn[i], all[MADE] += (double)made[i];
    row->n = n;
    row->rtn = all[RTN] / (double)n;
    row->made = all[MADE] / (double)n;
    row->change = row->made - row->rtn;
    for (uint64_t at = 0; at + EVAL_BATCH <= n; at += EVAL_BATCH) {
        double d = 0;
        for (uint64_t i = at; i < at + EVAL_BATCH; i++) d += (double)made[i] - (double)rtn[i];
        d /= EVAL_BATCH;
        sum += d;
        squares += d * d;
    }
    const double count = (double)batches, mean = sum / count;
    row->se = batches < 2 ? NAN : sqrt(fmax(0, squares / count - mean * mean) / (count - 1));
    row->worse = row->change > (isnan(row->se) ? 0 : 2 * row->se);
}

static void list_terms(void *arg, const machine *m, terms *t) {
    const comparison *c = arg;
    if (!m->model) return;
    for (uint32_t i = 0; i < c->text->n_kinds; i++)
        eval_terms(&c->job[i], m->model->program.config.n_vocab, t);
}

static void path_of(const comparison *c, uint32_t kind, char path[256]) {
    snprintf(path, 256, "%.230s.held-%u", c->scratch, kind);
}

static status open_files(comparison *c, bool write, err *e) {
    status s = OK;
    for (uint32_t i = 0; i < c->text->n_kinds && s == OK; i++) {
        char path[256];
        path_of(c, i, path);
        s = write ? eval_file_create(&c->file[i], path, e)
                  : eval_file_open(&c->file[i], path, e);
        c->job[i] = (eval_job){.text = &c->text->held[i], .interrupted = c->interrupted};
        if (write)
            c->job[i].written = &c->file[i];
        else
            c->job[i].reference = &c->file[i];
    }
    return s;
}

static status run_kinds(comparison *c, machine *m, int which, err *e) {
    static const uint64_t no_weights[2];
    engine_info info;
    status s = machine_load(m, e);
    if (s == OK) engine_describe(m->engine, &info);
    for (uint32_t i = 0; i < c->text->n_kinds && s == OK; i++) {
        eval_job *j = &c->job[i];
        s = eval_run(j, m, e);
        for (uint64_t k = 0; s == OK && j->reference && k < j->text->n_scored; k++)
            c->kl[i][which][k] = j->point[k].kl;
        if (s != OK || !j->written) continue;
        eval_name_reference(&j->written->header, j->text, no_weights, m, &info);
        s = eval_file_finish(j->written, e);
    }
    return s;
}

/* One model over all texts; which: where its KL goes, of a run that compares. */
static status run_model(comparison *c, const char *path, bool write, int which, err *e) {
    machine m = {0};
    options o = *c->opt;
    const machine_wish w = {
        .greedy = true, .scores = true, .keep_logits = true, .extra = list_terms, .arg = c};
    uint32_t n_reserved = 0;
    snprintf(o.model, sizeof o.model, "%s", path);
    status s = open_files(c, write, e);
    if (s == OK) s = machine_plan(&m, &o, &w, e);
    if (s == OK) s = machine_has_weights(&m, e);
    if (s == OK) s = machine_generates(&m, e);
    if (s == OK) s = machine_reserve(&m, e);
    for (; n_reserved < c->text->n_kinds && s == OK; n_reserved++)
        s = eval_reserve(&c->job[n_reserved], &m, e);
    if (s == OK) s = run_kinds(c, &m, which, e);
    for (uint32_t i = 0; i < n_reserved; i++) eval_release(&c->job[i], &m);
    machine_close(&m);
    for (uint32_t i = 0; i < c->text->n_kinds; i++) {
        eval_file_close(&c->file[i]);
        c->file[i] = (eval_file){.fd = -1};
    }
    return s;
}

status held_out_compare(const char *source, const char *rtn, const char *made,
                        const char *scratch, const calibrate_text *t, const options *opt,
                        const volatile sig_atomic_t *interrupted, held_out_row *row, err *e) {
    comparison c = {.text = t, .opt = opt, .scratch = scratch, .interrupted = interrupted};
    status s = OK;
    for (uint32_t i = 0; i < t->n_kinds; i++) {
        c.file[i].fd = -1;
        for (int k = 0; k < 2 && s == OK; k++) {
            c.kl[i][k] = calloc(t->held[i].n_scored, sizeof(float));
            if (!c.kl[i][k]) s = err_set(e, ERR_NO_MEMORY, "no memory for the comparison");
        }
    }
    if (s == OK) s = run_model(&c, source, true, RTN, e);
    if (s == OK) s = run_model(&c, rtn, false, RTN, e);
    if (s == OK) s = run_model(&c, made, false, MADE, e);
    for (uint32_t i = 0; i < t->n_kinds; i++) {
        char path[256];
        row[i].name = t->kind[i].name;
        if (s == OK)
            held_out_difference(c.kl[i][RTN], c.kl[i][MADE], t->held[i].n_scored, &row[i]);
        path_of(&c, i, path);
        unlink(path);
        free(c.kl[i][RTN]);
        free(c.kl[i][MADE]);
    }
    return s;
}
