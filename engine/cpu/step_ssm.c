/* Mamba-2's selective scan: Dao, Gu, "Transformers are SSMs", section 6, in one form for prompts and
 * single tokens (chunk.h). The paper's x, B and C are v, k and q here; heads of a group share B and C.
 * Each row of a chunk adds B n^T to the matrix S of a head:
 *
 *     dt = softplus(by + bias) within its limits; G = the sum of A dt since the chunk began; n = dt x
 *     y = e^G S^T C + the sum over the rows of the chunk up to this one of e^(G - G') (C . B') n' + D x
 *
 * A thread has some heads of a group of a sequence, so that a model of one group keeps all threads busy.
 * The rows of B before this step are read from the state by all of them, those of the step from its
 * input; they go into the state once all have done. */
#include "engine/cpu/chunk.h"

enum { HEADS = 8 }; /* of a task at most */

typedef struct task {
    chunk_task t;
    const float *in, *dt;
    float *out;
    float *cb; /* scratch: C . B' for each row and place of the chunk */
} task;

/* A row of the step: x of all heads, then B of all groups, then C. */
static const float *input_row(const task *t, uint32_t row) {
    return t->in + (size_t)row * t->t.e->program->values[t->t.op->op->in].cols;
}

static const float *b_of(const task *t, uint32_t row, uint32_t group) {
    const delta_shape *d = t->t.d;
    return input_row(t, row) + (size_t)d->value_heads * d->value_dim +
           (size_t)group * d->key_dim;
}

/* B and C of the rows, and their products, which the heads share. */
static void take_keys(chunk_task *t) {
    const task *p = (const task *)t;
    const uint32_t n = t->d->key_dim, at = t->rows.at;
    const float *kept = head_state_of(t->e, t->op, t->seq->state, t->key_head, 0).k;
    /* Those of the first chunk that are of steps before. */
    for (uint32_t j = 0; j < at; j++) t->k[j] = kept + (size_t)j * n;
    for (uint32_t r = 0; r < t->rows.n_rows; r++) {
        const float *b = b_of(p, t->rows.row + r, t->key_head);
        const float *c = b + (size_t)t->d->key_heads * n;
        t->k[at + r] = b;
        memcpy(t->x + (size_t)r * n, c, n * sizeof *c);
        for (uint32_t j = 0; j <= at + r; j++)
            p->cb[r * STATE_CHUNK + j] = t->e->ops->dot(c, t->k[j], n);
    }
}

static void run_row(const chunk_task *t, const head_state *h, uint32_t head, uint32_t r) {
    const task *p = (const task *)t;
    const delta_shape *d = t->d;
    const op_kernels *ops = t->e->ops;
    const uint32_t dv = d->value_dim, i = t->rows.at + r, row = t->rows.row + r;
    const float *x = input_row(p, row) + (size_t)head * dv, *cb = p->cb + r * STATE_CHUNK;
    const double by = (double)p->dt[(size_t)row * d->value_heads + head];
    float dt = (float)chunk_softplus(by + (double)t->op->vec[1][head]);
    if (dt < d->dt_min) dt = d->dt_min;
    if (d->dt_max > 0 && dt > d->dt_max) dt = d->dt_max;
    const float now = (i ? h->g[i - 1] : 0) + t->op->vec[0][head] * dt;
    float *n = h->n + (size_t)i * dv;
    float *y = p->out + (size_t)row * d->value_heads * dv + (size_t)head * dv;
    chunk_powers(t->e, h->g, now, i, t->power);
    for (uint32_t k = 0; k < dv; k++) n[k] = dt * x[k];
    memset(y, 0, dv * sizeof *y);
    ops->add_scaled(t->power[i], t->sx + (size_t)r * dv, dv, y);
    for (uint32_t j = 0; j < i; j++)
        ops->add_scaled(t->power[j] * cb[j], h->n + (size_t)j * dv, dv, y);
    ops->add_scaled(cb[i], n, dv, y);
    ops->add_scaled(t->op->vec[2][head], x, dv, y);
    h->g[i] = now;
}

/* B of the step's rows in the last chunk of a sequence. */
static void keep_rows(const task *t, const batch_seq *s, uint32_t group) {
    const uint32_t n = t->t.d->key_dim;
    float *kept = head_state_of(t->t.e, t->t.op, s->state, group, 0).k;
    chunk_rows rows = {0};
    while (chunk_next(&rows, s))
        if (rows.done == s->n_rows)
            for (uint32_t r = 0; r < rows.n_rows; r++)
                memcpy(kept + (size_t)(rows.at + r) * n, b_of(t, rows.row + r, group),
                       n * sizeof *kept);
}

void run_ssm(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    static const chunk_ops ops = {take_keys, run_row};
    const batch *b = e->step.batch;
    const delta_shape *d = &c->op->delta;
    const uint32_t each = d->value_heads / d->key_heads,
                   parts = (uint32_t)ceil_div(each, HEADS);
    task p = {.t = chunk_task_of(e, c, thread, 1),
              .in = value_f(e, c->op->in),
              .dt = value_f(e, c->op->by),
              .out = value_f(e, c->op->out)};
    p.cb = p.t.power + STATE_CHUNK + 1;
    const uint32_t per_seq = d->key_heads * parts, n = b->n_seqs * per_seq;
    for (uint32_t i = team_next(e->team, 1); i < n; i = team_next(e->team, 1)) {
        p.t.seq = &b->seq[i / per_seq];
        p.t.key_head = i % per_seq / parts;
        p.t.first = i % parts * HEADS;
        p.t.n_heads = each - p.t.first < HEADS ? each - p.t.first : HEADS;
        chunk_run(&p.t, &ops);
    }
    team_barrier(e->team, thread);
    const span s = step_share(b->n_seqs * d->key_heads, e->step.n_threads, thread);
    for (uint32_t i = s.from; i < s.to; i++)
        keep_rows(&p, &b->seq[i / d->key_heads], i % d->key_heads);
}
