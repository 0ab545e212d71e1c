/* Mixtures of experts: the router's choice, and the matrices of the experts over the rows that
 * are routed to them. Rows are sorted by expert (slots), so each expert's weights are read once a
 * step, by the kernels of any linear layer. What a row gets depends on the row alone: grouping
 * decides which rows share a tile, and the sum over a row's experts goes by ascending index. All
 * threads of the step. */
#include "engine/cpu/step.h"

#include <string.h>

#include "base/check.h"
#include "engine/cpu/experts.h"

enum { EXPERT_OUTS = 64 }; /* outputs of a task at least */

void run_route(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    const uint32_t n = c->part[0].n_out, k = o->route.top_k;
    float *logits = (float *)(e->workspace + e->layout.route.logits);
    route_word *chosen = (route_word *)value_f(e, o->out);
    act in = value_act(e, o->in);
    in.family = ACTIVATION_F32;
    const linear_part p = linear_share(in.family, in.n_rows, n, e->step.n_threads, thread);
    const linear_call call = {
        .w = &c->part[0], .a = &in, .bias = c->bias[0], .y = logits, .ldy = n};
    e->exact->linear(&call, p.rows, p.outs);
    team_barrier(e->team, thread);
    float *scores = thread_at(e, thread, e->layout.thread.scores);
    const span s = step_share(in.n_rows, e->step.n_threads, thread);
    const route_vectors vectors = {c->vec[1], c->vec[2]};
    for (uint32_t r = s.from; r < s.to; r++) {
        float *l = logits + (size_t)r * n;
        for (uint32_t i = 0; i < n && o->route.logit_scale != 1; i++)
            l[i] *= o->route.logit_scale;
        route_choose(o, &vectors, l, n, e->ops->exp2, scores, chosen + (size_t)r * 2 * k);
    }
    team_barrier(e->team, thread);
    if (thread) return;
    route_sort(&e->step.routed, chosen, in.n_rows, k, n);
    e->step.routed.by = o->out;
}

packed expert_part(const cpu_op *c, uint32_t i, uint32_t expert, uint32_t from, uint32_t n) {
    packed w = c->part[i];
    w.tiles = c->experts ? experts_at(c->experts, c->expert_layer, expert) + c->slot_at[i]
                         : (const unsigned char *)w.tiles +
                               expert * packed_bytes(w.type, w.n_out, w.n_in);
    if (w.scale) w.scale += expert;
    w.tiles = strip_at(&w, from);
    w.n_out = n;
    return w;
}

static const float *expert_bias(const cpu_op *c, uint32_t i, uint32_t expert, uint32_t from) {
    return c->bias[i] ? c->bias[i] + (size_t)expert * c->part[i].n_out + from : NULL;
}

/* A view of whole groups of a value's rows, which are read as they stand. */
static act rows_from(const act *a, uint32_t row, uint32_t n) {
    act v = *a;
    v.n_rows = n;
    if (a->f) v.f += (size_t)row * a->n_in;
    if (a->q) v.q = act_part(a, row, 0);
    return v;
}

/* ---- gate and up ---- */

/* The rows of some slots as the matrices read them: *at is where the view has the first. One row
 * is read where it stands; several are copied to the thread's own. */
static act gather(cpu_engine *e, const cpu_op *c, const act *in, uint32_t thread, span slots,
                  uint32_t *at) {
    const uint32_t *row = e->step.routed.row, n = slots.to - slots.from;
    bool codes = false, floats = false;
    *at = 0;
    if (n == 1) {
        *at = row[slots.from] % act_rows(in->family);
        return rows_from(in, row[slots.from] - *at, act_rows(in->family));
    }
    for (uint32_t i = 0; i < c->n_parts; i++)
        *(layout_reads_codes(&e->layout, c->part[i].type) ? &codes : &floats) = true;
    act own = {.family = in->family, .n_in = in->n_in, .n_rows = n};
    own.f = floats ? thread_at(e, thread, e->layout.thread.gather_f) : NULL;
    own.q = codes ? thread_at(e, thread, e->layout.thread.gather_q) : NULL;
    for (uint32_t i = 0; i < n; i++) row_copy(in, row[slots.from + i], &own, i);
    return own;
}

/* act(gate) * up of some slots and outputs of an expert; without up: act(gate). */
static void expert_gate_up(cpu_engine *e, const cpu_op *c, const act *rows, uint32_t at,
                           const act *out, uint32_t thread, uint32_t expert, span slots,
                           span outs) {
    const uint32_t n = outs.to - outs.from;
    float *y[2] = {thread_at(e, thread, e->layout.thread.gate),
                   thread_at(e, thread, e->layout.thread.up)};
    for (uint32_t i = 0; i < c->n_parts; i++) {
        const packed w = expert_part(c, i, expert, outs.from, n);
        const linear_call call = {.w = &w,
                                  .a = rows,
                                  .bias = expert_bias(c, i, expert, outs.from),
                                  .y = y[i],
                                  .ldy = n};
        e->linear->linear(&call, (span){at, at + slots.to - slots.from}, (span){0, n});
    }
    for (uint32_t s = slots.from; s < slots.to; s++, at++) {
        float *g = y[0] + (size_t)at * n, *u = c->n_parts > 1 ? y[1] + (size_t)at * n : NULL;
        float *to = out->f ? out->f + (size_t)s * out->n_in + c->op->first_col + outs.from : g;
        e->ops->gate(c->op->gate_up.act, g, u, n, to);
        if (out->q) quantise_part(e, out, s, outs.from, n, to);
    }
}

/* Outputs [outs) of all rows of an expert. */
static void expert_rows(cpu_engine *e, const cpu_op *c, const act *in, const act *out,
                        uint32_t thread, uint32_t expert, span outs) {
    const uint32_t *first = e->step.routed.first;
    for (uint32_t s = first[expert], to; s < first[expert + 1]; s = to) {
        to = first[expert + 1] - s < GATHER_ROWS ? first[expert + 1] : s + GATHER_ROWS;
        const span slots = {s, to};
        uint32_t at;
        const act rows = gather(e, c, in, thread, slots, &at);
        const uint32_t wide = GATE_FLOATS / GATHER_ROWS / 32 * 32;
        for (uint32_t o = outs.from, end; o < outs.to; o = end) {
            end = outs.to - o < wide ? outs.to : o + wide;
            expert_gate_up(e, c, &rows, at, out, thread, expert, slots, (span){o, end});
        }
    }
}

/* Whether the matrices of an expert may be read; where they are in slots that is waited for. */
static bool is_there(cpu_engine *e, const cpu_op *c, uint32_t expert, bool down) {
    err er;
    if (!c->experts || experts_wait(c->experts, expert, down, &er)) return true;
    cpu_step_fail(e, &er);
    return false;
}

/* Of n_some experts: all that have rows, or those of a wave. */
static void gate_up_of(cpu_engine *e, const cpu_op *c, uint32_t thread, uint32_t n_some) {
    const route_sorted *r = &e->step.routed;
    const act in = value_act(e, c->op->in), out = value_act(e, c->op->out);
    CHECK(r->by == c->op->by);
    if (!n_some) return; /* no rows */
    /* So many tasks that threads end together though experts have unequal shares; each has whole
     * blocks of 32. */
    const uint32_t n = c->part[0].n_out,
                   want = (uint32_t)ceil_div(8 * e->step.n_threads, n_some);
    uint32_t wide = (uint32_t)align_up(ceil_div(n, want), 32);
    if (wide < EXPERT_OUTS) wide = EXPERT_OUTS;
    const uint32_t parts = (uint32_t)ceil_div(n, wide), tasks = n_some * parts;
    for (uint32_t i = team_next(e->team, 1); i < tasks; i = team_next(e->team, 1)) {
        const uint32_t from = i % parts * wide, to = n - from < wide ? n : from + wide;
        const uint32_t expert =
            c->experts ? experts_nth(c->experts, i / parts) : r->used[i / parts];
        if (is_there(e, c, expert, false))
            expert_rows(e, c, &in, &out, thread, expert, (span){from, to});
    }
}

void run_experts_gate_up(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    if (!c->experts) gate_up_of(e, c, thread, e->step.routed.n_used); /* else with down */
}

/* ---- down ---- */

/* y of some slots, a run within GATE_ROWS, times their weights, added to their rows of out. */
static void add_slots(cpu_engine *e, const cpu_op *c, const act *in, uint32_t thread,
                      uint32_t expert, span slots, span outs) {
    const route_sorted *r = &e->step.routed;
    const uint32_t n = outs.to - outs.from,
                   base = slots.from - slots.from % act_rows(in->family);
    const uint32_t cols = e->program->values[c->op->out].cols;
    float *y = thread_at(e, thread, e->layout.thread.gate);
    float *out = value_f(e, c->op->out) + c->op->first_col;
    const act rows = rows_from(in, base, slots.to - base);
    const packed w = expert_part(c, 0, expert, outs.from, n);
    const linear_call call = {
        .w = &w, .a = &rows, .bias = expert_bias(c, 0, expert, outs.from), .y = y, .ldy = n};
    e->linear->linear(&call, (span){slots.from - base, slots.to - base}, (span){0, n});
    for (uint32_t s = slots.from; s < slots.to; s++)
        e->ops->add_scaled(r->weight[s], y + (size_t)(s - base) * n, n,
                           out + (size_t)r->row[s] * cols + outs.from);
}

/* Outputs [outs) of all rows: the sum from 0 over their experts, then the residual. Experts that are in
 * slots are the used[some) of a wave: the first clears, the last adds the residual. */
static void sum_experts(cpu_engine *e, const cpu_op *c, const act *in, uint32_t thread,
                        span some, span outs) {
    const route_sorted *r = &e->step.routed;
    const uint32_t n_rows = e->step.batch->n_rows, cols = e->program->values[c->op->out].cols;
    const bool last = some.to == r->n_used && c->op->residual != NO_VALUE;
    const float *x = last ? value_f(e, c->op->residual) + c->op->first_col : NULL;
    float *out = value_f(e, c->op->out) + c->op->first_col;
    for (uint32_t k = 0; k < n_rows && some.from == 0; k++)
        memset(out + (size_t)k * cols + outs.from, 0, sizeof *out * (outs.to - outs.from));
    for (uint32_t i = some.from; i < some.to; i++) {
        const uint32_t expert = r->used[i], end = r->first[expert + 1];
        if (!is_there(e, c, expert, true)) continue;
        for (uint32_t s = r->first[expert], to; s < end; s = to) {
            to = s - s % GATE_ROWS + GATE_ROWS; /* whole groups, but for the ends */
            if (to > end) to = end;
            add_slots(e, c, in, thread, expert, (span){s, to}, outs);
        }
    }
    for (uint32_t k = 0; k < n_rows && x; k++)
        for (uint32_t i = outs.from; i < outs.to; i++)
            out[(size_t)k * cols + i] += x[(size_t)k * cols + i];
}

/* Of the used[some). */
static void down_of(cpu_engine *e, const cpu_op *c, uint32_t thread, span some) {
    const route_sorted *r = &e->step.routed;
    const act in = value_act(e, c->op->in);
    CHECK(r->by == c->op->by);
    const span outs =
        linear_share(in.family, 1, c->part[0].n_out, e->step.n_threads, thread).outs;
    /* A chunk's rows, from the beginning of the first one's group on, fit the buffer. */
    const uint32_t most = r->n_most + act_rows(in.family) - 1;
    const uint32_t wide = GATE_FLOATS / (most < GATE_ROWS ? most : GATE_ROWS) / STRIP * STRIP;
    for (uint32_t o = outs.from, to; o < outs.to; o = to) {
        to = outs.to - o < wide ? outs.to : o + wide;
        sum_experts(e, c, &in, thread, some, (span){o, to});
    }
}

/* Experts that are in slots, a wave after the other. */
static void run_waves(cpu_engine *e, const cpu_op *up, const cpu_op *down, uint32_t thread) {
    const route_sorted *r = &e->step.routed;
    cpu_experts *x = down->experts;
    if (thread == 0) experts_turn(x, down->expert_layer, r->used, r->n_used);
    for (uint32_t from = 0, to; from < r->n_used; from = to) {
        to = experts_wave_end(x, r->n_used, from);
        if (thread == 0)
            experts_take(x, from, to,
                         atomic_load_explicit(&e->step.failed, memory_order_relaxed));
        team_barrier(e->team, thread);
        gate_up_of(e, up, thread, to - from);
        team_barrier(e->team, thread);
        down_of(e, down, thread, (span){from, to});
        team_barrier(e->team, thread);
        if (thread == 0) experts_give(x);
    }
}

void run_experts_down(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    if (c->experts)
        run_waves(e, c - 1, c, thread);
    else
        down_of(e, c, thread, (span){0, e->step.routed.n_used});
    quantise_written(e, c->op->out, thread);
}

/* ---- gates ---- */

void run_mul_sigmoid(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const op *o = c->op;
    const uint32_t cols = e->program->values[o->out].cols, n = e->program->values[o->by].cols;
    const float *in = value_f(e, o->in), *by = value_f(e, o->by);
    const float *residual = o->residual == NO_VALUE ? NULL : value_f(e, o->residual);
    const act codes = value_act(e, o->out), rest = value_rest(e, o->out);
    float *out = codes.f, *gate = thread_at(e, thread, e->layout.thread.row);
    const span s = step_share(e->step.batch->n_rows, e->step.n_threads, thread);
    CHECK(n == 1 || n == cols);
    for (size_t r = s.from; r < s.to; r++) {
        for (uint32_t i = 0; i < n; i++) gate[i] = by[r * n + i] * -LOG2_E;
        e->ops->exp2(gate, n, gate);
        for (uint32_t i = 0; i < n; i++) { /* the power of a NaN is a number */
            const float x = by[r * n + i];
            gate[i] = x == x ? 1 / (1 + gate[i]) : x;
        }
        for (uint32_t i = 0; i < cols; i++) {
            const float y = in[r * cols + i] * gate[n == 1 ? 0 : i];
            out[r * cols + i] = residual ? y + residual[r * cols + i] : y;
        }
        quantise_row(e, &codes, &rest, (uint32_t)r, out + r * cols, thread);
    }
}
