/* The operations with matrices: linear layers, logits, heads with a matrix each, and gate and up with the
 * activation and its quantising. All threads of the step, each with rows or outputs of its own. */
#include "engine/cpu/step.h"

#include <string.h>

#include "base/check.h"

enum { REST_OUTS = 64, HEAD_OUTS = 64 };

/* One matrix of an operation, whose input may have a second plane of codes. */
static void call_planes(const cpu_engine *e, const linear_call *c, const act *rest, span rows,
                        span outs) {
    e->linear->linear(c, rows, outs);
    if (!rest->q || !linear_wants_int8(c->w->type)) return;
    linear_call second = *c;
    second.a = rest;
    second.bias = NULL;
    second.residual = c->y;
    second.ld_res = c->ldy;
    e->linear->linear(&second, rows, outs);
}

void run_linear(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    const uint32_t cols = e->program->values[o->out].cols;
    const float *residual = o->residual == NO_VALUE ? NULL : value_f(e, o->residual);
    const act in = value_act(e, o->in), rest = value_rest(e, o->in);
    for (uint32_t i = 0; i < c->n_parts; i++) {
        const uint32_t col = o->first_col + c->first_col[i], n_out = c->part[i].n_out;
        const linear_part p =
            linear_share(in.family, in.n_rows, n_out, e->step.n_threads, thread);
        const linear_call call = {.w = &c->part[i],
                                  .a = &in,
                                  .bias = c->bias[i],
                                  .residual = residual ? residual + col : NULL,
                                  .y = value_f(e, o->out) + col,
                                  .ld_res = cols,
                                  .ldy = cols};
        /* The second plane of few rows finds the weights in the first cache. */
        uint32_t step = rest.q && in.n_rows <= 32 ? REST_OUTS : n_out;
        for (uint32_t at = p.outs.from; at < p.outs.to; at += step) {
            const uint32_t to = p.outs.to - at < step ? p.outs.to : at + step;
            call_planes(e, &call, &rest, p.rows, (span){at, to});
        }
    }
    quantise_written(e, o->out, thread);
}

/* Each thread scales and caps the logits that it has computed. */
void run_logits(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    run_linear(e, c, thread);
    if (o->logits.scale == 1 && o->logits.cap == 0) return;
    const act out = value_act(e, o->out);
    const linear_part p =
        linear_share(out.family, out.n_rows, c->part[0].n_out, e->step.n_threads, thread);
    const uint32_t n = p.outs.to - p.outs.from;
    CHECK(c->n_parts == 1);
    for (uint32_t r = p.rows.from; r < p.rows.to; r++) {
        float *x = out.f + (size_t)r * out.n_in + o->first_col + p.outs.from;
        for (uint32_t i = 0; i < n; i++) x[i] *= o->logits.scale;
        if (o->logits.cap > 0) e->ops->soft_cap(x, n, o->logits.cap);
    }
}

/* ---- a matrix for each head ---- */

/* Of OP_LINEAR_BY_HEAD: columns of a head in the input and in the output; those that its matrix does not
 * read stand behind what it gives. */
typedef struct head_cols {
    uint32_t n_heads, in, out;
} head_cols;

static head_cols head_cols_of(const program *p, const op *o) {
    const uint32_t n = p->weights[o->w[0]].n_experts;
    return (head_cols){n, p->values[o->in].cols / n, p->values[o->out].cols / n};
}

/* The columns of a head that its matrix reads, of some rows, as the thread's own activations: float32, or
 * codes and where they become scores the second plane of them. */
static act head_rows(cpu_engine *e, const cpu_op *c, const head_cols *cols, uint32_t head,
                     span rows, uint32_t thread, act *rest) {
    const uint32_t n = c->part[0].n_in, all = cols->n_heads * cols->in;
    const thread_place *at = &e->layout.thread;
    act own = {.family = e->layout.family, .n_in = n, .n_rows = rows.to - rows.from};
    const float *from =
        value_f(e, c->op->in) + (size_t)rows.from * all + (size_t)head * cols->in;
    *rest = own;
    if (!layout_reads_codes(&e->layout, c->part[0].type)) {
        own.f = thread_at(e, thread, at->gather_f);
        for (uint32_t r = 0; r < own.n_rows; r++)
            memcpy(own.f + (size_t)r * n, from + (size_t)r * all, n * sizeof *from);
        return own;
    }
    own.q = thread_at(e, thread, at->gather_q);
    if (own.family == ACTIVATION_INT8 && e->layout.values[c->op->out].feeds_rope)
        rest->q = thread_at(e, thread, at->gather_rest);
    for (uint32_t r = 0; r < own.n_rows; r++)
        quantise_row(e, &own, rest, r, from + (size_t)r * all, thread);
    return own;
}

/* Outputs [outs) of a head for all rows; the first of them with the columns behind. */
static void linear_of_head(cpu_engine *e, const cpu_op *c, const head_cols *cols, uint32_t head,
                           span outs, uint32_t thread) {
    const uint32_t n_rows = e->step.batch->n_rows, ld = cols->n_heads * cols->out;
    const uint32_t n_in = c->part[0].n_in, n_out = c->part[0].n_out, left = cols->in - n_in;
    const packed w = expert_part(c, 0, head, outs.from, outs.to - outs.from);
    float *y = value_f(e, c->op->out) + (size_t)head * cols->out;
    const float *x = value_f(e, c->op->in) + (size_t)head * cols->in + n_in;
    for (uint32_t r = 0; r < n_rows; r += GATHER_ROWS) {
        const span rows = {r, n_rows - r < GATHER_ROWS ? n_rows : r + GATHER_ROWS};
        act rest;
        const act a = head_rows(e, c, cols, head, rows, thread, &rest);
        const linear_call call = {
            .w = &w, .a = &a, .y = y + (size_t)r * ld + outs.from, .ldy = ld};
        call_planes(e, &call, &rest, (span){0, a.n_rows}, (span){0, w.n_out});
    }
    for (size_t r = 0; r < n_rows && left && outs.from == 0; r++)
        memcpy(y + r * ld + n_out, x + r * cols->n_heads * cols->in, left * sizeof *x);
}

void run_linear_by_head(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const head_cols cols = head_cols_of(e->program, c->op);
    const uint32_t n_out = c->part[0].n_out;
    /* So many tasks that threads end together. */
    const uint32_t want = (uint32_t)ceil_div(4 * e->step.n_threads, cols.n_heads);
    uint32_t wide = (uint32_t)align_up(ceil_div(n_out, want), STRIP);
    if (wide < HEAD_OUTS) wide = HEAD_OUTS;
    const uint32_t parts = (uint32_t)ceil_div(n_out, wide), tasks = cols.n_heads * parts;
    for (uint32_t i = team_next(e->team, 1); i < tasks; i = team_next(e->team, 1)) {
        const uint32_t from = i % parts * wide, to = n_out - from < wide ? n_out : from + wide;
        linear_of_head(e, c, &cols, i / parts, (span){from, to}, thread);
    }
    quantise_written(e, c->op->out, thread);
}

/* ---- gate and up ---- */

/* act(gate) * up of rows [r0, r1) and columns [o0, o1), through the thread's buffers. */
static void gate_up_chunk(cpu_engine *e, const cpu_op *c, const act *in, const act *out,
                          uint32_t thread, span r, span o) {
    float *gate = thread_at(e, thread, e->layout.thread.gate);
    float *up = thread_at(e, thread, e->layout.thread.up);
    const uint32_t n = o.to - o.from;
    float *y[2] = {gate, up};
    /* Views of the rows (whole groups) and of the strips, so that both begin at 0. */
    act rows = *in;
    rows.n_rows = r.to - r.from;
    if (rows.f) rows.f += (size_t)r.from * in->n_in;
    if (rows.q) rows.q = act_part(in, r.from, 0);
    for (uint32_t i = 0; i < c->n_parts; i++) {
        packed w = c->part[i];
        w.tiles = strip_at(&w, o.from);
        w.n_out = n;
        const float *bias = c->bias[i] ? c->bias[i] + o.from : NULL;
        const linear_call call = {.w = &w, .a = &rows, .bias = bias, .y = y[i], .ldy = n};
        e->linear->linear(&call, (span){0, rows.n_rows}, (span){0, n});
    }
    for (uint32_t k = r.from; k < r.to; k++) {
        const size_t at = (size_t)(k - r.from) * n;
        float *g = gate + at, *u = c->n_parts > 1 ? up + at : NULL;
        float *to = out->f ? out->f + (size_t)k * out->n_in + c->op->first_col + o.from : g;
        e->ops->gate(c->op->gate_up.act, g, u, n, to);
        if (out->q) quantise_part(e, out, k, o.from, n, to);
    }
}

void run_gate_up(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const act in = value_act(e, c->op->in), out = value_act(e, c->op->out);
    const uint32_t n_ff = c->part[0].n_out;
    /* Shares of half the columns, twice: whole blocks of 32. */
    const linear_part p = linear_share(in.family, in.n_rows, (uint32_t)ceil_div(n_ff, 2),
                                       e->step.n_threads, thread);
    uint32_t out0 = 2 * p.outs.from < n_ff ? 2 * p.outs.from : n_ff;
    uint32_t out1 = 2 * p.outs.to < n_ff ? 2 * p.outs.to : n_ff;
    for (uint32_t r = p.rows.from; r < p.rows.to; r += GATE_ROWS) {
        span rows = {r, p.rows.to - r < GATE_ROWS ? p.rows.to : r + GATE_ROWS};
        uint32_t wide = GATE_FLOATS / (rows.to - rows.from) / 32 * 32;
        for (uint32_t o = out0; o < out1; o += wide) {
            span outs = {o, out1 - o < wide ? out1 : o + wide};
            gate_up_chunk(e, c, &in, &out, thread, rows, outs);
        }
    }
}
