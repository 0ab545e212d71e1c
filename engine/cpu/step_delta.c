/* Gated delta rule: Yang, Kautz, Hatamizadeh, "Gated Delta Networks", section 3, in one form for prompts
 * and single tokens (chunk.h). Each row of a chunk adds k n^T to the matrix S of a head:
 *
 *     G = the sum of g since the chunk began
 *     n = beta (v - e^G S^T k - the sum over the rows before of the chunk of e^(G - G') (k . k') n')
 *     o = e^G S^T q + the sum over the same rows, and this one, of e^(G - G') (q . k') n'
 *
 * A thread has a head of k of a sequence with all value heads that go by it. */
#include "engine/cpu/chunk.h"

#include <math.h>

/* A key head of a sequence, with all value heads that go by it. */
typedef struct task {
    chunk_task t;
    const float *in, *ba;
    float *out;
} task;

static void fill(float *x, uint32_t n, float v) {
    for (uint32_t i = 0; i < n; i++) x[i] = v;
}

/* k into the state and the scratch, q into the scratch, both of the norm that the rule wants. */
static void take_keys(chunk_task *t) {
    const delta_shape *d = t->d;
    const uint32_t n = d->key_dim, cols = t->e->program->values[t->op->op->in].cols;
    const float eps = d->eps / (float)n;       /* of a norm by the mean */
    float *of_k = t->scaled, *of_q = of_k + n; /* what a norm by the mean is multiplied by */
    float *kept = head_state_of(t->e, t->op, t->seq->state, t->key_head, 0).k;
    for (uint32_t j = 0; j < STATE_CHUNK; j++) t->k[j] = kept + (size_t)j * n;
    fill(of_k, n, 1 / sqrtf((float)n));
    fill(of_q, n, 1 / (float)n);
    for (uint32_t r = 0; r < t->rows.n_rows; r++) {
        const float *q =
            ((const task *)t)->in + (size_t)(t->rows.row + r) * cols + (size_t)t->key_head * n;
        const float *k = q + (size_t)d->key_heads * n;
        float *to = kept + (size_t)(t->rows.at + r) * n;
        t->e->ops->norm(k, of_k, n, eps, to);
        memcpy(t->x + (size_t)r * n, to, n * sizeof *to);
        t->e->ops->norm(q, of_q, n, eps, t->x + (size_t)(t->rows.n_rows + r) * n);
    }
}

static void run_row(const chunk_task *c, const head_state *h, uint32_t head, uint32_t r) {
    const task *p = (const task *)c;
    const delta_shape *d = c->d;
    const op_kernels *ops = c->e->ops;
    const uint32_t dv = d->value_dim, dk = d->key_dim, t = c->rows.at + r;
    const uint32_t cols = c->e->program->values[c->op->op->in].cols, row = c->rows.row + r;
    const float *sk = c->sx + (size_t)r * dv, *sq = sk + (size_t)c->rows.n_rows * dv;
    const float *v =
        p->in + (size_t)row * cols + 2 * (size_t)d->key_heads * dk + (size_t)head * dv;
    const float *ba = p->ba + (size_t)row * 2 * d->value_heads;
    const float beta = (float)(1 / (1 + exp(-(double)ba[head])));
    const double a = (double)ba[d->value_heads + head] + (double)c->op->vec[1][head];
    const float g = c->op->vec[0][head] * (float)chunk_softplus(a),
                now = (t ? h->g[t - 1] : 0) + g;
    const float *k = c->x + (size_t)r * dk, *q = k + (size_t)c->rows.n_rows * dk;
    float *n = h->n + (size_t)t * dv;
    float *o = p->out + (size_t)row * d->value_heads * dv + (size_t)head * dv;
    chunk_powers(c->e, h->g, now, t, c->power);
    memcpy(n, v, dv * sizeof *n);
    ops->add_scaled(-c->power[t], sk, dv, n);
    memset(o, 0, dv * sizeof *o);
    ops->add_scaled(c->power[t], sq, dv, o);
    for (uint32_t j = 0; j < t; j++) {
        const float *kj = h->k + (size_t)j * dk, *nj = h->n + (size_t)j * dv;
        ops->add_scaled(-c->power[j] * ops->dot(k, kj, dk), nj, dv, n);
        ops->add_scaled(c->power[j] * ops->dot(q, kj, dk), nj, dv, o);
    }
    for (uint32_t i = 0; i < dv; i++) n[i] *= beta;
    ops->add_scaled(ops->dot(q, k, dk), n, dv, o);
    h->g[t] = now;
}

void run_delta(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    static const chunk_ops ops = {take_keys, run_row};
    const batch *b = e->step.batch;
    const delta_shape *d = &c->op->delta;
    task p = {.t = chunk_task_of(e, c, thread, 2),
              .in = value_f(e, c->op->in),
              .ba = value_f(e, c->op->by),
              .out = value_f(e, c->op->out)};
    p.t.n_heads = d->value_heads / d->key_heads;
    const uint32_t n = b->n_seqs * d->key_heads;
    for (uint32_t i = team_next(e->team, 1); i < n; i = team_next(e->team, 1)) {
        p.t.key_head = i % d->key_heads;
        p.t.seq = &b->seq[i / d->key_heads];
        chunk_run(&p.t, &ops);
    }
}
