/* The values that the ranks of a group share: what OP_ALL_GATHER reads, in which every rank writes its
 * columns, and the same as it stands there for all. Every rank finds the same places, though
 * operations of theirs may be idle. And what stages send each other: one value after the other.
 *
 * A value lives in phases: phase i ends with meeting i, and between two meetings a rank may be anywhere.
 * Bytes are used again when a meeting lies between the last reader and the next writer; with stages there is
 * one before each step, too. Pure; one thread. */
#include <stdlib.h>

#include "base/check.h"
#include "engine/cpu/layout.h"
#include "engine/tables.h"
#include "memory/term.h"

/* What operations after the gathering rewrite in place is each rank's own, of which the shared one is
 * copied. */
static bool is_rewritten(const program *p, uint32_t gather) {
    const value_id v = p->ops[gather].out;
    for (uint32_t i = gather + 1; i < p->n_ops; i++)
        if (p->ops[i].out == v) return true;
    return false;
}

static bool reads(const op *o, value_id v) {
    return o->in == v || o->residual == v || o->by == v;
}

/* The tables of a step of which nothing is sampled. */
static uint64_t step_bytes(const cpu_layout *l, const program *p, const engine_options *o) {
    const bool states = engine_states(p, o) > 0;
    const tables_shape s = {.n_rows = o->max_rows,
                            .n_seqs = o->max_seqs,
                            .n_logit_rows = o->max_logit_rows,
                            .n_copies = o->max_seqs * (l->groups.n + states),
                            .n_checkpoints = states ? tables_most_checkpoints(o) : 0,
                            .stride = (uint32_t)ceil_div(o->max_model_len, o->block_tokens)};
    return tables_lay(l->groups.n, &s).lists;
}

/* The value of a gathering and its phases; lives: of all, this one is i. */
static void place_one(cpu_layout *l, const program *p, const engine_options *o, uint32_t gather,
                      life *lives, uint32_t i, sizer *s) {
    const value_id in = p->ops[gather].in, out = p->ops[gather].out;
    const uint64_t rows = value_rows(&p->values[in], o->max_rows, o->max_logit_rows);
    life *me = &lives[i];
    uint32_t phase = i;
    *me = (life){.first_op = i, .last_op = i + 1, .at = UINT64_MAX};
    for (uint32_t k = gather; k < p->n_ops; k++) {
        if (reads(&p->ops[k], out) && phase > me->last_op) me->last_op = phase;
        phase += p->ops[k].kind == OP_ALL_GATHER;
    }
    uint64_t *all = &l->shared.stage[p->part.stage].values_bytes;
    me->bytes = align_up(sizer_times(s, sizer_times(s, rows, p->values[in].cols), 4), 64);
    if (s->failed) return;
    me->at = life_first_fit(lives, i, me);
    l->values[in].f = me->at;
    l->values[in].is_shared = true;
    if (me->at + me->bytes > *all) *all = me->at + me->bytes;
    if (is_rewritten(p, gather)) return;
    l->values[out].f = me->at;
    l->values[out].is_shared = true;
}

/* Both sides find the same places: the same values, in the same order. */
static void place_sent(cpu_layout *l, const program *p, const engine_options *o, sizer *s) {
    sizer sent = {0}, received = {0};
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *x = &p->ops[i];
        if (x->kind != OP_SEND && x->kind != OP_RECV) continue;
        const value_id v = x->kind == OP_SEND ? x->in : x->out;
        if (l->values[v].is_logits) continue;
        sizer *to = x->kind == OP_SEND ? &sent : &received;
        const uint64_t rows = value_rows(&p->values[v], o->max_rows, o->max_logit_rows);
        const uint64_t bytes = sizer_times(to, sizer_times(to, rows, p->values[v].cols), 4);
        *(x->kind == OP_SEND ? &l->values[v].sent : &l->values[v].received) =
            sizer_place(to, bytes, 64);
    }
    l->shared.stage[p->part.stage].sent_bytes = sent.n;
    l->received_bytes = received.n;
    if (p->part.stage) l->shared.stage[p->part.stage - 1].sent_bytes = received.n;
    s->failed |= sent.failed || received.failed;
}

status layout_shared(cpu_layout *l, const program *p, const engine_options *o, sizer *s,
                     err *e) {
    const uint32_t n_ranks = p->part.n_ranks ? p->part.n_ranks : 1,
                   n_stages = p->part.n_stages ? p->part.n_stages : 1;
    life *lives = calloc(p->n_ops + 1, sizeof *lives);
    if (!lives) return mem_exhausted(e, MEM_RUNTIME, "the layout");
    l->groups = kv_groups_of(p, o);
    l->shared = (group_shape){.n_ranks = n_ranks * n_stages,
                              .n_stages = n_stages,
                              .depth = o->depth ? o->depth : 1,
                              .by_messages = o->by_messages,
                              .step_bytes = step_bytes(l, p, o)};
    place_sent(l, p, o, s);
    for (uint32_t i = 0, n = 0; i < p->n_ops && !s->failed; i++) {
        if (p->ops[i].kind != OP_ALL_GATHER) continue;
        if (!l->values[p->ops[i].in].is_logits) place_one(l, p, o, i, lives, n, s);
        n++;
    }
    free(lives);
    return OK;
}
