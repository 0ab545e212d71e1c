/* See hosting.h. */
#include "engine/cuda/hosting.h"

#include <stdlib.h>

#include "base/check.h"
#include "engine/cpu/layout.h"
#include "engine/cpu/part.h"
#include "engine/cuda/staging.h"

/* ---- which operations ---- */

static bool of_step(const program *p, value_id v) {
    return v == NO_VALUE || p->values[v].rows != ROWS_GATHERED;
}

static bool is_computed(const cuda_layout *l, const program *p, const engine_options *o,
                        const op *x) {
    if (x->kind != OP_LINEAR && x->kind != OP_GATE_UP && x->kind != OP_EXPERTS_GATE_UP &&
        x->kind != OP_EXPERTS_DOWN)
        return false;
    if (!of_step(p, x->in) || !of_step(p, x->out)) return false;
    for (uint32_t i = 0; i < x->n_weights; i++)
        if (x->w[i] == NO_WEIGHT || l->weights[x->w[i]].narrow ||
            !staging_wants(p, o, &p->weights[x->w[i]]))
            return false;
    return true;
}

/* What goes row by row and reads little: between two of the CPU's operations it would cost two crossings. */
static bool may_join(const op *x) {
    return x->kind == OP_NORM || x->kind == OP_MUL_ACT || x->kind == OP_MUL_SIGMOID ||
           x->kind == OP_SCALE;
}

static void join_between(cuda_layout *l, const program *p) {
    for (uint32_t i = 1; i < p->n_ops; i++) {
        uint32_t end = i;
        if (!l->aside[i - 1].on_host) continue;
        while (end < p->n_ops && !l->aside[end].on_host && may_join(&p->ops[end])) end++;
        if (end == p->n_ops || !l->aside[end].on_host) continue;
        for (; i < end; i++) l->aside[i].on_host = true;
    }
}

static void mark(cuda_layout *l, const op *x, bool absent) {
    for (uint32_t k = 0; k < x->n_weights; k++) {
        if (x->w[k] != NO_WEIGHT) l->weights[x->w[k]].absent = absent;
        if (x->bias[k] != NO_WEIGHT) l->weights[x->bias[k]].absent = absent;
    }
}

void hosting_choose(cuda_layout *l, const program *p, const engine_options *o) {
    if (!o->host_computes) return;
    for (uint32_t i = 0; i < p->n_ops; i++)
        l->aside[i].on_host = is_computed(l, p, o, &p->ops[i]);
    join_between(l, p);
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (l->aside[i].on_host) mark(l, &p->ops[i], true);
    for (uint32_t i = 0; i < p->n_ops; i++) /* the device reads it, too */
        if (!l->aside[i].on_host) mark(l, &p->ops[i], false);
}

/* ---- the CPU's program ---- */

typedef struct cutter {
    cuda_layout *l;
    const program *p;
    const engine_options *o;
    program *out;
    value_id *value;   /* [p->n_values]: as the run has it; NO_VALUE: it has not */
    weight_id *weight; /* [p->n_weights]; NO_WEIGHT: nothing has needed it */
    uint32_t *last;    /* [p->n_values]: the last operation that touches it */
    sizer at;          /* of the pinned memory, in this run */
    bool failed;
} cutter;

static value_id new_value(cutter *c, value_id v) {
    if (c->out->n_values == NO_VALUE) {
        c->failed = true;
        return 0;
    }
    c->out->values[c->out->n_values] = c->p->values[v];
    return c->value[v] = (value_id)c->out->n_values++;
}

static weight_id take_weight(cutter *c, weight_id id) {
    if (id == NO_WEIGHT) return id;
    if (c->weight[id] != NO_WEIGHT) return c->weight[id];
    const weight_id to = c->out->n_weights++;
    c->weight[id] = to;
    c->out->weights[to] = c->p->weights[id];
    c->out->weights[to].scale = take_weight(c, c->p->weights[id].scale);
    return to;
}

/* The experts of what an OP_ROUTE gave: an operation of the run reads it by that. */
static uint32_t experts_of(const cutter *c, const cuda_host_run *r, value_id v) {
    for (uint32_t i = r->first_op; i <= r->last_op; i++)
        if (c->p->ops[i].by == v && c->p->ops[i].kind == OP_EXPERTS_GATE_UP)
            return c->p->weights[c->p->ops[i].w[0]].n_experts;
    return 0;
}

static bool is_rotated(const program *p, value_id v) {
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (op_appends(&p->ops[i]) && p->ops[i].in == v) return true;
    return false;
}

/* An OP_RECV (down) or OP_SEND of a value of the model. */
static void cross(cutter *c, cuda_host_run *r, value_id v, bool up) {
    cuda_layout *l = c->l;
    const value *x = &c->p->values[v];
    const cuda_form form = l->values[v].form;
    const bool routed = form == CUDA_VALUE_ROUTED;
    const uint64_t width = form == CUDA_VALUE_T ? 2 : 4;
    const uint64_t rows = value_rows(x, c->o->max_rows, 0);
    const uint64_t bytes = sizer_times(&c->at, sizer_times(&c->at, rows, x->cols), width);
    const cuda_crossing io = {.value = v,
                              .up = up,
                              .at = sizer_place(&c->at, bytes, 64),
                              .n_experts = routed ? experts_of(c, r, v) : 0};
    op o = {.kind = up ? OP_SEND : OP_RECV, .layer = c->p->ops[r->first_op].layer};
    for (int i = 0; i < 3; i++) o.w[i] = o.bias[i] = NO_WEIGHT;
    o.in = o.out = o.residual = o.by = NO_VALUE;
    if (up) {
        o.in = c->value[v];
        o.sent.rotated = is_rotated(c->p, v);
    } else {
        o.out = new_value(c, v);
    }
    CHECK(x->rows == ROWS_STEP && (!routed || (io.n_experts && !up)));
    l->crossings[l->n_crossings++] = io;
    l->host_io[c->out->n_ops] = (cpu_crossing){.at = io.at,
                                               .type = width == 4        ? DT_F32
                                                       : l->t == CU_BF16 ? DT_BF16
                                                                         : DT_F16,
                                               .n_experts = io.n_experts};
    c->out->ops[c->out->n_ops++] = o;
    r->n++;
}

static void need(cutter *c, cuda_host_run *r, value_id v) {
    if (v != NO_VALUE && c->value[v] == NO_VALUE) cross(c, r, v, false);
}

static value_id known(const cutter *c, value_id v) {
    return v == NO_VALUE ? v : c->value[v];
}

static void repeat(cutter *c, const op *x) {
    op o = *x;
    for (uint32_t k = 0; k < x->n_weights; k++) {
        o.w[k] = take_weight(c, x->w[k]);
        o.bias[k] = take_weight(c, x->bias[k]);
    }
    o.in = known(c, x->in);
    o.residual = known(c, x->residual);
    o.by = known(c, x->by);
    o.out = new_value(c, x->out);
    c->out->ops[c->out->n_ops++] = o;
}

static bool is_made_in(const program *p, const cuda_host_run *r, value_id v) {
    for (uint32_t i = r->first_op; i <= r->last_op; i++)
        if (p->ops[i].out == v) return true;
    return false;
}

static void cut_run(cutter *c, cuda_host_run *r) {
    const program *p = c->p;
    for (uint32_t v = 0; v < p->n_values; v++) c->value[v] = NO_VALUE;
    c->at = (sizer){0};
    r->first = c->l->n_crossings;
    r->from = c->out->n_ops;
    for (uint32_t i = r->first_op; i <= r->last_op; i++) {
        const value_id reads[3] = {p->ops[i].in, p->ops[i].residual, p->ops[i].by};
        for (int k = 0; k < 3; k++)
            if (!is_made_in(p, r, reads[k])) need(c, r, reads[k]);
    }
    for (uint32_t i = r->first_op; i <= r->last_op; i++) repeat(c, &p->ops[i]);
    for (uint32_t i = r->first_op; i <= r->last_op; i++)
        if (c->last[p->ops[i].out] > r->last_op) cross(c, r, p->ops[i].out, true);
    r->to = c->out->n_ops;
    if (c->at.n > c->l->crossing_bytes) c->l->crossing_bytes = c->at.n;
    c->failed |= c->at.failed;
}

static void find_last(cutter *c) {
    for (uint32_t i = 0; i < c->p->n_ops; i++) {
        const op *x = &c->p->ops[i];
        const value_id touched[4] = {x->in, x->residual, x->by, x->out};
        for (int k = 0; k < 4; k++)
            if (touched[k] != NO_VALUE) c->last[touched[k]] = i;
    }
}

/* Consecutive operations; returns how many, of all runs. */
static uint32_t find_runs(cuda_layout *l, const program *p) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        if (!l->aside[i].on_host) continue;
        if (i == 0 || !l->aside[i - 1].on_host)
            l->host_runs[l->n_host_runs++] = (cuda_host_run){.first_op = i};
        l->host_runs[l->n_host_runs - 1].last_op = i;
        n++;
    }
    return n;
}

/* An operation reads up to three values and gives one. */
static bool alloc_program(cutter *c, uint32_t n_ops) {
    cuda_layout *l = c->l;
    const size_t n = 5 * (size_t)n_ops;
    program *out = c->out = l->host_program = calloc(1, sizeof *l->host_program);
    l->crossings = calloc(n, sizeof *l->crossings);
    l->host_io = calloc(n, sizeof *l->host_io);
    c->value = calloc(c->p->n_values + 1, sizeof *c->value);
    c->weight = calloc(c->p->n_weights + 1, sizeof *c->weight);
    c->last = calloc(c->p->n_values + 1, sizeof *c->last);
    if (!out) return false;
    *out = (program){.config = c->p->config};
    out->config.n_vocab = 0;
    out->values = calloc(n, sizeof *out->values);
    out->weights = calloc(c->p->n_weights + 1, sizeof *out->weights);
    out->ops = calloc(n, sizeof *out->ops);
    return l->crossings && l->host_io && c->value && c->weight && c->last && out->values &&
           out->weights && out->ops;
}

static status check_part(const cuda_layout *l, const engine_options *o, err *e) {
    cpu_layout part;
    const engine_options own = hosting_options(o);
    const status s = cpu_layout_init(&part, l->host_program, &own, e);
    if (s == OK) cpu_layout_clear(&part);
    return s;
}

status hosting_cut(cuda_layout *l, const program *p, const engine_options *o, err *e) {
    cutter c = {.l = l, .p = p, .o = o};
    status s = OK;
    if (!o->host_computes) return OK;
    l->host_runs = calloc(p->n_ops + 1, sizeof *l->host_runs);
    const uint32_t n = l->host_runs ? find_runs(l, p) : 1;
    if (n == 0) return OK;
    if (!l->host_runs || !alloc_program(&c, n)) {
        s = err_set(e, ERR_NO_MEMORY, "no memory for the layout");
    } else {
        for (uint32_t i = 0; i < p->n_weights; i++) c.weight[i] = NO_WEIGHT;
        find_last(&c);
        for (uint32_t i = 0; i < l->n_host_runs; i++) cut_run(&c, &l->host_runs[i]);
        if (c.failed) s = err_set(e, ERR_INVALID, "the CPU's part has too many values");
    }
    free(c.value);
    free(c.weight);
    free(c.last);
    return s == OK ? check_part(l, o, e) : s;
}

void hosting_clear(cuda_layout *l) {
    if (l->host_program) {
        free(l->host_program->values);
        free(l->host_program->weights);
        free(l->host_program->ops);
    }
    free(l->host_program);
    free(l->host_runs);
    free(l->crossings);
    free(l->host_io);
}

/* ---- its engine ---- */

/* It has rows alone: no sequences, logits or KV cache. */
engine_options hosting_options(const engine_options *o) {
    return (engine_options){.max_rows = o->max_rows,
                            .max_seqs = 1,
                            .max_logit_rows = 1,
                            .max_model_len = o->block_tokens,
                            .block_tokens = o->block_tokens,
                            .kv_k = DT_F16,
                            .kv_v = DT_F16,
                            .activations = o->activations == ACTIVATION_F16 ? ACTIVATION_AUTO
                                                                            : o->activations,
                            .n_threads = o->n_threads,
                            .isa = o->isa};
}

void hosting_terms(const cuda_layout *l, const engine_options *o, terms *t) {
    cpu_layout part;
    err e;
    if (!l->host_program) return;
    const engine_options own = hosting_options(o);
    if (cpu_layout_init(&part, l->host_program, &own, &e) != OK) { /* it was fine: no memory */
        t->failed = true;
        return;
    }
    cpu_layout_terms(&part, l->host_program, &own, t);
    cpu_layout_clear(&part);
}

uint64_t hosting_bytes(const cuda_layout *l) {
    return l->host_program ? program_weight_bytes(l->host_program) : 0;
}
