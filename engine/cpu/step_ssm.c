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
    cpu_engine *e;
    const cpu_op *op;
    const delta_shape *d;
    const batch_seq *seq;
    const float *in, *dt;
    float *out;
    chunk_rows rows;
    uint32_t group, first_head, n_heads;
    const float *b[STATE_CHUNK]; /* of the chunk */
    /* Scratch: rows of C; what S gives of each; B times e^(G - G'); C . B' for each row and place of
     * the chunk; exponentials. */
    float *c, *sc, *scaled, *cb, *power;
} task;

/* A row of the step: x of all heads, then B of all groups, then C. */
static const float *input_row(const task *t, uint32_t row) {
    return t->in + (size_t)row * t->e->program->values[t->op->op->in].cols;
}

static const float *b_of(const task *t, uint32_t row, uint32_t group) {
    const delta_shape *d = t->d;
    return input_row(t, row) + (size_t)d->value_heads * d->value_dim +
           (size_t)group * d->key_dim;
}

/* B and C of the rows, and their products, which the heads share. */
static void take_keys(task *t) {
    const delta_shape *d = t->d;
    const uint32_t n = d->key_dim, at = t->rows.at;
    const float *kept = head_state_of(t->e, t->op, t->seq->state, t->group, 0).k;
    /* Those of the first chunk that are of steps before. */
    for (uint32_t j = 0; j < at; j++) t->b[j] = kept + (size_t)j * n;
    for (uint32_t r = 0; r < t->rows.n_rows; r++) {
        const float *b = b_of(t, t->rows.row + r, t->group);
        const float *c = b + (size_t)d->key_heads * n;
        t->b[at + r] = b;
        memcpy(t->c + (size_t)r * n, c, n * sizeof *c);
        for (uint32_t j = 0; j <= at + r; j++)
            t->cb[r * STATE_CHUNK + j] = t->e->ops->dot(c, t->b[j], n);
    }
}

/* Row r for a head; S has given sc of C. */
static void run_row(const task *t, const head_state *h, uint32_t head, uint32_t r,
                    const float *sc) {
    const delta_shape *d = t->d;
    const op_kernels *ops = t->e->ops;
    const uint32_t dv = d->value_dim, i = t->rows.at + r, row = t->rows.row + r;
    const float *x = input_row(t, row) + (size_t)head * dv;
    const double by = (double)t->dt[(size_t)row * d->value_heads + head];
    float dt = (float)chunk_softplus(by + (double)t->op->vec[1][head]);
    if (dt < d->dt_min) dt = d->dt_min;
    if (d->dt_max > 0 && dt > d->dt_max) dt = d->dt_max;
    const float now = (i ? h->g[i - 1] : 0) + t->op->vec[0][head] * dt;
    float *n = h->n + (size_t)i * dv;
    float *y = t->out + (size_t)row * d->value_heads * dv + (size_t)head * dv;
    chunk_powers(t->e, h->g, now, i, t->power);
    for (uint32_t k = 0; k < dv; k++) n[k] = dt * x[k];
    memset(y, 0, dv * sizeof *y);
    ops->add_scaled(t->power[i], sc, dv, y);
    for (uint32_t j = 0; j < i; j++)
        ops->add_scaled(t->power[j] * t->cb[r * STATE_CHUNK + j], h->n + (size_t)j * dv, dv, y);
    ops->add_scaled(t->cb[r * STATE_CHUNK + i], n, dv, y);
    ops->add_scaled(t->op->vec[2][head], x, dv, y);
    h->g[i] = now;
}

static void run_chunk(task *t) {
    const delta_shape *d = t->d;
    const uint32_t n_rows = t->rows.n_rows;
    take_keys(t);
    for (uint32_t i = 0; i < t->n_heads; i++) {
        const uint32_t head = t->first_head + i;
        const head_state h = head_state_of(t->e, t->op, t->seq->state, t->group, head);
        t->e->ops->rows_by(t->c, n_rows, h.s, d->key_dim, d->value_dim, t->sc);
        for (uint32_t r = 0; r < n_rows; r++)
            run_row(t, &h, head, r, t->sc + (size_t)r * d->value_dim);
        if (t->rows.at + n_rows == STATE_CHUNK)
            chunk_fold(t->e, d, &h, t->b, t->scaled, t->power);
        if (!t->rows.checkpoint) continue;
        const head_state to = head_state_of(t->e, t->op, *t->rows.checkpoint, t->group, head);
        chunk_keep(d, &to, &h);
    }
}

static void run_task(task *t) {
    for (uint32_t i = 0; t->seq->first_pos == 0 && i < t->n_heads; i++) {
        const head_state h =
            head_state_of(t->e, t->op, t->seq->state, t->group, t->first_head + i);
        chunk_clear(t->d, &h);
    }
    t->rows = (chunk_rows){0};
    while (chunk_next(&t->rows, t->seq)) run_chunk(t);
}

/* B of the step's rows in the last chunk of a sequence. */
static void keep_rows(const task *t, const batch_seq *s, uint32_t group) {
    const uint32_t n = t->d->key_dim;
    float *kept = head_state_of(t->e, t->op, s->state, group, 0).k;
    chunk_rows rows = {0};
    while (chunk_next(&rows, s))
        if (rows.done == s->n_rows)
            for (uint32_t r = 0; r < rows.n_rows; r++)
                memcpy(kept + (size_t)(rows.at + r) * n, b_of(t, rows.row + r, group),
                       n * sizeof *kept);
}

void run_ssm(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const batch *b = e->step.batch;
    const delta_shape *d = &c->op->delta;
    const uint32_t each = d->value_heads / d->key_heads,
                   parts = (uint32_t)ceil_div(each, HEADS);
    task t = {.e = e,
              .op = c,
              .d = d,
              .in = value_f(e, c->op->in),
              .dt = value_f(e, c->op->by),
              .out = value_f(e, c->op->out)};
    t.c = thread_at(e, thread, e->layout.thread.delta);
    t.sc = t.c + (size_t)STATE_CHUNK * d->key_dim;
    t.scaled = t.sc + (size_t)STATE_CHUNK * d->value_dim;
    t.cb = t.scaled + (size_t)STATE_CHUNK * d->key_dim;
    t.power = t.cb + STATE_CHUNK * STATE_CHUNK;
    const uint32_t per_seq = d->key_heads * parts, n = b->n_seqs * per_seq;
    for (uint32_t i = team_next(e->team, 1); i < n; i = team_next(e->team, 1)) {
        const uint32_t part = i % parts;
        t.seq = &b->seq[i / per_seq];
        t.group = i % per_seq / parts;
        t.first_head = t.group * each + part * HEADS;
        t.n_heads = each - part * HEADS < HEADS ? each - part * HEADS : HEADS;
        run_task(&t);
    }
    team_barrier(e->team, thread);
    const span s = step_share(b->n_seqs * d->key_heads, e->step.n_threads, thread);
    for (uint32_t i = s.from; i < s.to; i++)
        keep_rows(&t, &b->seq[i / d->key_heads], i % d->key_heads);
}
