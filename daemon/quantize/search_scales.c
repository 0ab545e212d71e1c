/* Scales of inputs: an input is one thread's, from reading its weights to the best power. */
#include "daemon/quantize/search_scales.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "quant/grid.h"
#include "quant/quant.h"

enum { CHUNK = 64, SAMPLE = 256, POWERS = 21 };

typedef struct search {
    method *m;
    uint32_t to; /* inputs [next, to) */
    atomic_uint next;
    pthread_mutex_t lock;
    status s; /* of the first failure */
    err e;
} search;

/* One thread's memory, cut out of its scratch. */
typedef struct work {
    float *rows;                                  /* [CHUNK][n] */
    float *error;                                 /* [CHUNK][ld] */
    float *scratch;                               /* [CHUNK][ld] */
    float *scaled, *scale, *importance, *mean_sq; /* [n] */
    unsigned char *blocks;                        /* a row, as stored and as encoded */
} work;

uint64_t search_scales_bytes(uint32_t n) {
    return ((uint64_t)CHUNK * (n + 2 * hessian_ld(n)) + 4ULL * n) * sizeof(float) +
           8ULL * n; /* F64, the widest stored type */
}

static work work_of(void *mem, uint32_t n) {
    work w;
    w.rows = mem;
    w.error = w.rows + (size_t)CHUNK * n;
    w.scratch = w.error + (size_t)CHUNK * hessian_ld(n);
    w.scaled = w.scratch + (size_t)CHUNK * hessian_ld(n);
    w.scale = w.scaled + n;
    w.importance = w.scale + n;
    w.mean_sq = w.importance + n;
    w.blocks = (unsigned char *)(w.mean_sq + n);
    return w;
}

/* Rows first, first + step, ... of a weight's own; at most CHUNK. Returns how many. */
static uint32_t read_rows(const quant_job *j, const quant_tensor *t, const weight *w,
                          uint32_t first, uint32_t step, work *k, err *e) {
    uint32_t n = 0;
    for (uint32_t r = first; r < w->rows && n < CHUNK; r += step, n++) {
        if (checkpoint_read_rows(j->in, t->in, w->first_row + r, 1, k->blocks, e) != OK)
            return 0;
        quant_decode_row(t->info.type, k->blocks, w->cols, k->rows + (size_t)n * w->cols);
    }
    return n;
}

/* ---- AWQ ---- */

/* The error of n rows with scales s. */
static double error_of(const calib_input *in, dtype to, bool weighted, uint32_t n,
                       const float *s, work *k) {
    const uint32_t ld = hessian_ld(in->n);
    for (uint32_t i = 0; i < in->n; i++) k->importance[i] = k->mean_sq[i] / (s[i] * s[i]);
    for (uint32_t r = 0; r < n; r++) {
        const float *row = k->rows + (size_t)r * in->n;
        float *error = k->error + (size_t)r * ld;
        for (uint32_t i = 0; i < in->n; i++) k->scaled[i] = row[i] * s[i];
        quant_encode_row(to, k->scaled, in->n, weighted ? k->importance : NULL, k->blocks);
        quant_decode_row(to, k->blocks, in->n, error);
        for (uint32_t i = 0; i < in->n; i++) error[i] = error[i] / s[i] - row[i];
        for (uint32_t i = in->n; i < ld; i++) error[i] = 0;
    }
    return hessian_errors(in->h, in->n, k->error, n, k->scratch);
}

static status awq(method *m, const calib_input *in, const scale_fold *f, float *best, work *k,
                  err *e) {
    const op *o = &m->cal->sums.program->ops[in->op];
    double error[POWERS] = {0};
    calib_importance(in, k->mean_sq);
    for (uint32_t i = 0; i < o->n_weights; i++) {
        const weight *w = &m->cal->sums.program->weights[o->w[i]];
        const quant_tensor *t = method_tensor(m->job, w->name);
        grid g;
        CHECK(t);
        if (!grid_of(t->to, &g)) continue; /* nothing to gain */
        const uint32_t step = (uint32_t)ceil_div(w->rows, SAMPLE);
        for (uint32_t r = 0; r < w->rows; r += step * CHUNK) {
            const uint32_t n = read_rows(m->job, t, w, r, step, k, e);
            if (n == 0) return e->code;
            for (uint32_t p = 0; p < POWERS; p++) {
                scale_awq(in, f, p / (double)(POWERS - 1), k->scale);
                error[p] += error_of(in, t->to, m->kind & METHOD_IMATRIX, n, k->scale, k);
            }
        }
    }
    uint32_t power = 0;
    for (uint32_t p = 1; p < POWERS; p++)
        if (error[p] < error[power]) power = p;
    scale_awq(in, f, power / (double)(POWERS - 1), best);
    return OK;
}

/* ---- SmoothQuant ---- */

static status smooth(method *m, const calib_input *in, const scale_fold *f, float *best,
                     work *k, err *e) {
    const op *o = &m->cal->sums.program->ops[in->op];
    float *most = k->mean_sq;
    memset(most, 0, in->n * sizeof *most);
    for (uint32_t i = 0; i < o->n_weights; i++) {
        const weight *w = &m->cal->sums.program->weights[o->w[i]];
        const quant_tensor *t = method_tensor(m->job, w->name);
        CHECK(t);
        for (uint32_t r = 0; r < w->rows; r += CHUNK) {
            const uint32_t n = read_rows(m->job, t, w, r, 1, k, e);
            if (n == 0) return e->code;
            for (uint32_t a = 0; a < n * in->n; a++)
                most[a % in->n] = fmaxf(most[a % in->n], fabsf(k->rows[a]));
        }
    }
    scale_smooth(in, f, most, best);
    return OK;
}

/* ---- all inputs ---- */

static status search_one(method *m, uint32_t i, void *mem, err *e) {
    const calib_input *in = &m->cal->sums.input[i];
    work k = work_of(mem, in->n);
    float *to = m->scale[i];
    if (!to) return OK;
    e->code = OK;
    return m->kind & METHOD_AWQ ? awq(m, in, &m->fold[i], to, &k, e)
                                : smooth(m, in, &m->fold[i], to, &k, e);
}

typedef struct helper {
    search *s;
    uint32_t thread;
} helper;

static void *help(void *arg) {
    const helper *h = arg;
    search *s = h->s;
    err e;
    for (uint32_t i; (i = atomic_fetch_add(&s->next, 1)) < s->to;) {
        const status code = search_one(s->m, i, s->m->scratch[h->thread], &e);
        if (code == OK) continue;
        pthread_mutex_lock(&s->lock);
        if (s->s == OK) s->s = code, s->e = e;
        pthread_mutex_unlock(&s->lock);
        break;
    }
    return NULL;
}

/* Inputs [from, to) by all threads; one that cannot be started is done without. */
static status search_range(method *m, uint32_t from, uint32_t to, err *e) {
    search s = {.m = m, .to = to, .next = from, .lock = PTHREAD_MUTEX_INITIALIZER, .s = OK};
    pthread_t thread[256];
    helper h[256];
    uint32_t n = 1;
    for (; n < m->n_threads && n < 256; n++) {
        h[n] = (helper){&s, n};
        if (pthread_create(&thread[n], NULL, help, &h[n]) != 0) break;
    }
    h[0] = (helper){&s, 0};
    help(&h[0]);
    for (uint32_t i = 1; i < n; i++) pthread_join(thread[i], NULL);
    if (s.s != OK) *e = s.e;
    return s.s;
}

status search_scales(method *m, err *e) {
    const calib *c = &m->cal->sums;
    float *at = m->scales;
    for (uint32_t i = 0; i < c->n_inputs; i++) {
        if (!scale_fold_of(c->program, c->input[i].op, &m->fold[i])) continue;
        m->scale[i] = at;
        at += c->input[i].n;
    }
    if (m->kind & METHOD_SMOOTH) return search_range(m, 0, c->n_inputs, e);
    for (uint32_t i = 0; i < c->n_inputs; i = m->cal->h_to) {
        status s = calibration_need(m->cal, &c->input[i], e);
        if (s == OK) s = search_range(m, i, m->cal->h_to, e);
        if (s != OK) return s;
    }
    return OK;
}
