/* Limits, costs and arrivals of a simulation; the search for its capacity. */
#include "daemon/simulate/simulation.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "load/prompt.h"
#include "sim/replay.h"

enum { USUAL_REQUESTS = 1000, LEAST_STEPS = 100, STREAM_GAPS = 7 };

/* ---- costs ---- */

typedef struct fitting {
    cost_model model;
    uint64_t n, n_held_out;
    double error;           /* sum over the steps held out */
    fleet_scatter *scatter; /* [n_held_out] */
} fitting;

static step_work work_of(const record_step *st) {
    return (step_work){
        .rows = st->n_rows, .kv = (double)st->kv, .logit_rows = st->n_logit_rows};
}

/* Every second step, so that the fit and its error are of the same load. */
static bool is_held_out(uint64_t i) {
    return i % 2 == 1;
}

static void fit_step(void *arg, const record_step *st, uint64_t us) {
    fitting *f = arg;
    if (!is_held_out(f->n++)) cost_observe(&f->model, work_of(st), (double)us);
}

static void compare_step(void *arg, const record_step *st, uint64_t us) {
    fitting *f = arg;
    if (!is_held_out(f->n++)) return;
    const double predicted = cost_predict(&f->model, work_of(st));
    const double ratio = predicted > 0 ? (double)us / predicted : 1;
    f->error += fabs(predicted / (us ? (double)us : 1) - 1);
    f->scatter[f->n_held_out++] = (fleet_scatter){(float)predicted, (float)ratio};
}

static int by_prediction(const void *a, const void *b) {
    const fleet_scatter *x = a, *y = b;
    return (x->predicted_us > y->predicted_us) - (x->predicted_us < y->predicted_us);
}

/* The last part of a path, with nothing that JSON or a terminal would not take as it is. */
static void plain_name(char *out, size_t cap, const char *path) {
    const char *slash = strrchr(path, '/'), *p = slash ? slash + 1 : path;
    size_t n = 0;
    for (; *p && n + 1 < cap; p++)
        out[n++] = *p > ' ' && *p < 0x7f && *p != '"' && *p != '\\' ? *p : '?';
    out[n] = '\0';
}

status simulation_of_log(simulation *s, str log, const char *path, err *e) {
    char name[48];
    double host_us = 0;
    fitting f = {.model.lasting = true};
    status rc = replay_config(log, &s->fleet.sched, e);
    if (rc == OK) rc = replay_steps(log, fit_step, &f, e);
    if (rc == OK) rc = replay_host_us(log, &host_us, e);
    if (rc != OK) return rc;
    const uint64_t n = f.n;
    if (n < LEAST_STEPS)
        return err_set(e, ERR_INVALID, "the step log times %llu steps, %d are needed",
                       (unsigned long long)n, LEAST_STEPS);
    f.n = 0;
    s->scatter = f.scatter = malloc(n / 2 * sizeof *f.scatter);
    if (!f.scatter)
        return err_set(e, ERR_NO_MEMORY, "no memory for %llu steps", (unsigned long long)n);
    rc = replay_steps(log, compare_step, &f, e);
    if (rc != OK) return rc;
    qsort(f.scatter, f.n_held_out, sizeof *f.scatter, by_prediction);
    s->fleet.cost = f.model;
    s->fleet.scatter = f.scatter, s->fleet.n_scatter = (uint32_t)f.n_held_out;
    s->error = f.error / (double)f.n_held_out;
    s->fleet.depth = s->fleet.sched.depth ? s->fleet.sched.depth : 1;
    s->fleet.host_us = (uint64_t)host_us;
    plain_name(name, sizeof name, path);
    snprintf(s->tag, sizeof s->tag, "fitted to %s", name);
    snprintf(s->source, sizeof s->source,
             "fitted to %llu steps of %s, error %.1f%% on the %llu between them",
             (unsigned long long)(n - f.n_held_out), name, 100 * s->error,
             (unsigned long long)f.n_held_out);
    return OK;
}

status simulation_of_plan(simulation *s, const machine *m, double bandwidth, double operations,
                          err *e) {
    const plan_bandwidth b = plan_bandwidth_of(m, bandwidth, 0, 0);
    enum { KV_TOKENS = 1000 };
    if (b.bytes_per_s <= 0) {
        err_set(e, ERR_INVALID, "the bandwidth of this device is %s", b.source);
        return err_hint(e, "--bandwidth 300GB/s");
    }
    const double empty = plan_step_bytes(m, 1, 0), state = (double)m->sched_conf.state_bytes;
    const double kv = (plan_step_bytes(m, 1, KV_TOKENS) - empty) / KV_TOKENS;
    s->fleet.sched = m->sched_conf;
    s->fleet.depth = m->sched_conf.depth ? m->sched_conf.depth : 1;
    /* A sequence that decodes has one row of logits, and reads its state once. */
    const double fixed = plan_step_cost(m, &b, 1, 0);
    s->fleet.cost =
        (cost_model){.coef = {(fixed - state) / b.bytes_per_s * 1e6,
                              2 * (double)m->n_params / operations * 1e6,
                              kv / b.bytes_per_s * 1e6, state / b.bytes_per_s * 1e6}};
    s->error = -1;
    snprintf(s->tag, sizeof s->tag, "assumed");
    snprintf(s->source, sizeof s->source,
             "assumed: %.3g GB/s (%s) and %.3g operations/s, weights read once a step",
             b.bytes_per_s / 1e9, b.source, operations);
    return OK;
}

void simulation_set_host(simulation *s, uint64_t us) {
    if (s->error < 0) s->fleet.cost.coef[0] += (double)us - (double)s->fleet.host_us;
    s->fleet.host_us = us;
}

void simulation_clear(simulation *s) {
    load_trace_clear(&s->trace);
    free(s->scatter);
}

/* ---- arrivals ---- */

static uint32_t count_requests(const simulation *s, double rate) {
    if (s->n) return s->n;
    return s->trace.n && rate == 0 ? (uint32_t)s->trace.n : USUAL_REQUESTS;
}

static void make_arrivals(const simulation *s, double rate, uint64_t seed, fleet_arrival *a,
                          uint32_t n) {
    load_rng r = load_rng_of(seed, STREAM_GAPS, 0);
    const load_trace *t = &s->trace;
    double at = 0, turn = 0;
    for (uint32_t i = 0; i < n; i++) {
        a[i] = (fleet_arrival){.n_prompt = s->prompt, .n_output = s->output};
        if (t->n) {
            const trace_row *row = &t->rows[i % t->n];
            a[i].n_prompt = row->prompt_tokens;
            a[i].n_output = row->output_tokens;
            a[i].ids = t->hashes + row->hashes;
            a[i].n_ids = row->n_hashes;
            if (i > 0 && i % t->n == 0) turn += (double)t->rows[t->n - 1].at_us;
            if (rate == 0) at = ((double)row->at_us + turn) / s->speed;
        }
        if (rate > 0) at += -log(1 - load_rng_unit(&r)) / rate * 1e6;
        a[i].at_us = (uint64_t)at;
    }
}

typedef struct bar {
    const char *doing;
    uint64_t shown_us;
} bar;

static void show_bar(void *arg, double part) {
    enum { EVERY_US = 100000, WIDTH = 30 };
    bar *b = arg;
    char text[WIDTH + 1];
    const uint64_t now = clock_us();
    if (now - b->shown_us < EVERY_US) return;
    b->shown_us = now;
    for (int i = 0; i < WIDTH; i++) text[i] = i < (int)(part * WIDTH) ? '#' : ' ';
    text[WIDTH] = '\0';
    fprintf(stderr, "\r\033[K[%s] %3.0f%%  %s", text, 100 * part, b->doing);
    fflush(stderr);
}

status simulation_run(const simulation *s, double rate, uint64_t seed, const char *doing,
                      fleet_result *out, err *e) {
    const uint32_t n = count_requests(s, rate);
    fleet_config c = s->fleet;
    fleet_arrival *a = malloc(n * sizeof *a);
    if (!a) return err_set(e, ERR_NO_MEMORY, "no memory for %u requests", n);
    bar b = {.doing = doing};
    c.seed = seed;
    if (s->progress) c.progress = show_bar, c.progress_arg = &b;
    make_arrivals(s, rate, seed, a, n);
    const status rc = fleet_run(&c, a, n, out, e);
    if (b.shown_us) fputs("\r\033[K", stderr);
    free(a);
    return rc;
}

/* ---- capacity ---- */

static status keeps(const simulation *s, double rate, uint64_t seed, fleet_result *r, bool *yes,
                    err *e) {
    char doing[80];
    snprintf(doing, sizeof doing, "seed %llu at %.4g requests/s", (unsigned long long)seed,
             rate);
    const status rc = simulation_run(s, rate, seed, doing, r, e);
    const fleet_config *c = &s->fleet;
    *yes = rc == OK && r->n_rejected == 0 &&
           (!c->slo_ttft_us || fleet_times_at(&r->ttft, 0.99) <= (double)c->slo_ttft_us) &&
           (!c->slo_itl_us || fleet_times_at(&r->itl, 0.99) <= (double)c->slo_itl_us);
    return rc;
}

static status capacity_of(const simulation *s, uint64_t seed, fleet_result *r, double *out,
                          err *e) {
    static const double LEAST = 1e-3, MOST = 1e6;
    double low = 0, high = 1;
    bool yes = true;
    status rc = OK;
    while (rc == OK && yes && high < MOST) {
        rc = keeps(s, high, seed, r, &yes, e);
        if (yes) low = high, high *= 2;
    }
    while (rc == OK && high - low > 0.02 * high && high > LEAST) {
        const double middle = (low + high) / 2;
        rc = keeps(s, middle, seed, r, &yes, e);
        *(yes ? &low : &high) = middle;
    }
    *out = low;
    return rc;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

status simulation_capacity(const simulation *s, double rate[CAPACITY_SEEDS], err *e) {
    fleet_result *r = malloc(sizeof *r);
    status rc = r ? OK : err_set(e, ERR_NO_MEMORY, "no memory for a simulation");
    for (uint64_t i = 0; i < CAPACITY_SEEDS && rc == OK; i++)
        rc = capacity_of(s, s->seed + i, r, &rate[i], e);
    free(r);
    qsort(rate, CAPACITY_SEEDS, sizeof *rate, by_value);
    return rc;
}
