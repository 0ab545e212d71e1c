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

/* Rows of one sequence in one chunk. */
typedef struct piece {
    cpu_engine *e;
    const cpu_op *op;
    const delta_shape *d;
    const float *in, *ba;
    float *out;
    chunk_rows rows;
    uint32_t key_head;
    /* Scratch: rows of k, then those of q; what S gives of each; k times e^(G - G'); exponentials. */
    float *x, *sx, *scaled, *power;
} piece;

static void fill(float *x, uint32_t n, float v) {
    for (uint32_t i = 0; i < n; i++) x[i] = v;
}

/* k into the state and the scratch, q into the scratch, both of the norm that the rule wants. */
static void take_keys(const piece *p, float *kept) {
    const delta_shape *d = p->d;
    const uint32_t n = d->key_dim, cols = p->e->program->values[p->op->op->in].cols;
    const float eps = d->eps / (float)n;       /* of a norm by the mean */
    float *of_k = p->scaled, *of_q = of_k + n; /* what a norm by the mean is multiplied by */
    fill(of_k, n, 1 / sqrtf((float)n));
    fill(of_q, n, 1 / (float)n);
    for (uint32_t r = 0; r < p->rows.n_rows; r++) {
        const float *q = p->in + (size_t)(p->rows.row + r) * cols + (size_t)p->key_head * n;
        const float *k = q + (size_t)d->key_heads * n;
        float *to = kept + (size_t)(p->rows.at + r) * n;
        p->e->ops->norm(k, of_k, n, eps, to);
        memcpy(p->x + (size_t)r * n, to, n * sizeof *to);
        p->e->ops->norm(q, of_q, n, eps, p->x + (size_t)(p->rows.n_rows + r) * n);
    }
}

/* Row r of the piece for a value head; S has given sk of k, and sq of q. */
static void run_row(const piece *p, const head_state *h, uint32_t head, uint32_t r,
                    const float *sk, const float *sq) {
    const delta_shape *d = p->d;
    const op_kernels *ops = p->e->ops;
    const uint32_t dv = d->value_dim, dk = d->key_dim, t = p->rows.at + r;
    const uint32_t cols = p->e->program->values[p->op->op->in].cols;
    const float *v = p->in + (size_t)(p->rows.row + r) * cols + 2 * (size_t)d->key_heads * dk +
                     (size_t)head * dv;
    const float *ba = p->ba + (size_t)(p->rows.row + r) * 2 * d->value_heads;
    const float beta = (float)(1 / (1 + exp(-(double)ba[head])));
    const double a = (double)ba[d->value_heads + head] + (double)p->op->vec[1][head];
    const float g = p->op->vec[0][head] * (float)chunk_softplus(a),
                now = (t ? h->g[t - 1] : 0) + g;
    const float *k = p->x + (size_t)r * dk, *q = p->x + (size_t)(p->rows.n_rows + r) * dk;
    float *n = h->n + (size_t)t * dv;
    float *o = p->out + (size_t)(p->rows.row + r) * d->value_heads * dv + (size_t)head * dv;
    chunk_powers(p->e, h->g, now, t, p->power);
    memcpy(n, v, dv * sizeof *n);
    ops->add_scaled(-p->power[t], sk, dv, n);
    memset(o, 0, dv * sizeof *o);
    ops->add_scaled(p->power[t], sq, dv, o);
    for (uint32_t j = 0; j < t; j++) {
        const float *kj = h->k + (size_t)j * dk, *nj = h->n + (size_t)j * dv;
        ops->add_scaled(-p->power[j] * ops->dot(k, kj, dk), nj, dv, n);
        ops->add_scaled(p->power[j] * ops->dot(q, kj, dk), nj, dv, o);
    }
    for (uint32_t i = 0; i < dv; i++) n[i] *= beta;
    ops->add_scaled(ops->dot(q, k, dk), n, dv, o);
    h->g[t] = now;
}

static void run_piece(const piece *p, uint32_t slot) {
    const delta_shape *d = p->d;
    const size_t dv = d->value_dim;
    const uint32_t n_rows = p->rows.n_rows;
    const bool full = p->rows.at + n_rows == STATE_CHUNK;
    float *kept = head_state_of(p->e, p->op, slot, p->key_head, 0).k;
    const float *k[STATE_CHUNK];
    for (uint32_t j = 0; j < STATE_CHUNK; j++) k[j] = kept + (size_t)j * d->key_dim;
    take_keys(p, kept);
    for (uint32_t i = 0; i < d->value_heads / d->key_heads; i++) {
        const uint32_t head = value_head_of(d, p->key_head, i);
        const head_state h = head_state_of(p->e, p->op, slot, p->key_head, head);
        p->e->ops->rows_by(p->x, 2 * n_rows, h.s, d->key_dim, d->value_dim, p->sx);
        for (uint32_t r = 0; r < n_rows; r++)
            run_row(p, &h, head, r, p->sx + r * dv, p->sx + (n_rows + r) * dv);
        if (full) chunk_fold(p->e, d, &h, k, p->scaled, p->power);
        if (!p->rows.checkpoint) continue;
        const head_state to =
            head_state_of(p->e, p->op, *p->rows.checkpoint, p->key_head, head);
        chunk_keep(d, &to, &h);
    }
}

static void run_seq(piece *p, const batch_seq *s) {
    const delta_shape *d = p->d;
    for (uint32_t i = 0; s->first_pos == 0 && i < d->value_heads / d->key_heads; i++) {
        const uint32_t head = value_head_of(d, p->key_head, i);
        const head_state h = head_state_of(p->e, p->op, s->state, p->key_head, head);
        chunk_clear(d, &h);
    }
    p->rows = (chunk_rows){0};
    while (chunk_next(&p->rows, s)) run_piece(p, s->state);
}

void run_delta(cpu_engine *e, const cpu_op *c, uint32_t thread) {
    const batch *b = e->step.batch;
    const delta_shape *d = &c->op->delta;
    piece p = {.e = e,
               .op = c,
               .d = d,
               .in = value_f(e, c->op->in),
               .ba = value_f(e, c->op->by),
               .out = value_f(e, c->op->out)};
    p.x = thread_at(e, thread, e->layout.thread.delta);
    p.sx = p.x + 2 * (size_t)STATE_CHUNK * d->key_dim;
    p.scaled = p.sx + 2 * (size_t)STATE_CHUNK * d->value_dim;
    p.power = p.scaled + (size_t)STATE_CHUNK * d->key_dim;
    const uint32_t n = b->n_seqs * d->key_heads;
    for (uint32_t i = team_next(e->team, 1); i < n; i = team_next(e->team, 1)) {
        p.key_head = i % d->key_heads;
        run_seq(&p, &b->seq[i / d->key_heads]);
    }
}
