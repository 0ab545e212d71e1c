/* Sums over what matrices multiply. */
#include "quant/calib.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "memory/term.h"

enum { UNIT = 16 }; /* columns: a line of the cache */

static bool has_matrices(const op *o) {
    return o->kind == OP_LINEAR || o->kind == OP_GATE_UP;
}

static uint64_t input_bytes(uint32_t n) {
    return align_up(n, UNIT) * (2 * sizeof(double) + sizeof(float));
}

uint64_t calib_bytes(const program *p) {
    uint64_t bytes = p->n_ops * (sizeof(calib_input) + sizeof(uint32_t));
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (has_matrices(&p->ops[i])) bytes += input_bytes(p->values[p->ops[i].in].cols);
    return bytes;
}

status calib_init(calib *c, const program *p, err *e) {
    uint64_t bytes = 0;
    *c = (calib){.program = p};
    c->input = calloc(p->n_ops, sizeof *c->input);
    c->of_op = calloc(p->n_ops, sizeof *c->of_op);
    for (uint32_t i = 0; i < p->n_ops && c->input && c->of_op; i++) {
        if (!has_matrices(&p->ops[i])) continue;
        c->of_op[i] = c->n_inputs;
        calib_input *in = &c->input[c->n_inputs++];
        *in = (calib_input){.op = i, .n = p->values[p->ops[i].in].cols, .counts = true};
        bytes += input_bytes(in->n);
    }
    c->sums = calloc(1, bytes ? bytes : 1);
    if (!c->sums || !c->input || !c->of_op) {
        calib_clear(c);
        return mem_exhausted(e, MEM_WORKSPACE, "sums over inputs");
    }
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (!has_matrices(&p->ops[i])) c->of_op[i] = c->n_inputs;
    char *at = c->sums;
    for (uint32_t i = 0; i < c->n_inputs; i++) {
        calib_input *in = &c->input[i];
        const size_t cols = align_up(in->n, UNIT);
        in->sum_sq = (double *)at;
        in->sum_abs = in->sum_sq + cols;
        in->max_abs = (float *)(in->sum_abs + cols);
        at += input_bytes(in->n);
    }
    return OK;
}

void calib_clear(calib *c) {
    free(c->sums);
    free(c->input);
    free(c->of_op);
    *c = (calib){0};
}

/* Columns of a few rows at a time: the sums stay in the cache. */
static void add_columns(calib_input *in, const float *x, uint32_t n_rows, uint32_t from,
                        uint32_t to) {
    for (uint32_t r = 0; r < n_rows; r++) {
        const float *row = x + (size_t)r * in->n;
        for (uint32_t i = from; i < to; i++) {
            const float a = fabsf(row[i]);
            in->sum_sq[i] += (double)a * (double)a;
            in->sum_abs[i] += (double)a;
            in->max_abs[i] = a > in->max_abs[i] ? a : in->max_abs[i];
        }
    }
}

void calib_add(calib *c, const op *o, const float *x, uint32_t n_rows, uint32_t thread,
               uint32_t n_threads) {
    const uint32_t at = c->of_op[o - c->program->ops];
    CHECK(at < c->n_inputs);
    calib_input *in = &c->input[at];
    if (!in->counts) return;
    const uint64_t units = ceil_div(in->n, UNIT);
    const uint64_t from = units * thread / n_threads * UNIT;
    const uint64_t to = units * (thread + 1) / n_threads * UNIT;
    add_columns(in, x, n_rows, (uint32_t)from, to < in->n ? (uint32_t)to : in->n);
    if (in->h) hessian_add(in->h, in->n, x, n_rows, thread, n_threads);
    if (thread == 0) in->n_rows += n_rows;
}

calib_input *calib_find(const calib *c, const char *tensor) {
    for (uint32_t i = 0; i < c->n_inputs; i++) {
        const op *o = &c->program->ops[c->input[i].op];
        for (uint32_t w = 0; w < o->n_weights; w++)
            if (strcmp(c->program->weights[o->w[w]].name, tensor) == 0) return &c->input[i];
    }
    return NULL;
}

void calib_importance(const calib_input *in, float *out) {
    for (uint32_t i = 0; i < in->n; i++)
        out[i] = in->n_rows ? (float)(in->sum_sq[i] / (double)in->n_rows) : 0;
}
