/* Gated delta rule: Yang, Kautz, Hatamizadeh, "Gated Delta Networks", section 3, in one form for prompts
 * and single tokens. Positions are in chunks of STATE_CHUNK from 0 on. The matrix S of a head stands
 * behind the last full chunk; each row of the chunk adds k n^T to it, decayed by the rows after it:
 *
 *     G = the sum of g since the chunk began
 *     n = beta (v - e^G S^T k - the sum over the rows before of the chunk of e^(G - G') (k . k') n')
 *     o = e^G S^T q + the sum over the same rows, and this one, of e^(G - G') (q . k') n'
 *
 * k, n and G are kept beside S, so that rows can be undone; behind the last row of a chunk they are added
 * to S, which is then written once for all of them. A row's numbers depend on its position and the rows
 * before it alone, however they are cut into steps.
 *
 * A thread has a head of k of a sequence with all value heads that go by it. */
#include "engine/cpu/step.h"

#include <math.h>
#include <string.h>

/* What a head of k and one of its value heads have in a slot of states. */
typedef struct head_state {
    float *s; /* [key_dim][value_dim] */
    float *k; /* [STATE_CHUNK][key_dim] */
    float *n; /* [STATE_CHUNK][value_dim] */
    float *g; /* [STATE_CHUNK] */
} head_state;

/* Rows of one sequence in one chunk. */
typedef struct piece {
    cpu_engine *e;
    const cpu_op *op;
    const delta_shape *d;
    const float *in, *ba;
    float *out;
    uint32_t row, n_rows; /* of the step */
    uint32_t at;          /* place of the first one in its chunk */
    uint32_t key_head;
    /* Scratch: rows of k, then those of q; what S gives of each; k times e^(G - G'); exponentials. */
    float *x, *sx, *scaled, *power;
} piece;

static head_state state_of(const cpu_engine *e, const cpu_op *c, uint32_t slot,
                           uint32_t key_head, uint32_t value_head) {
    const delta_shape *d = &c->op->delta;
    const size_t matrix = (size_t)d->key_dim * d->value_dim;
    float *s = cpu_state(e, c, slot), *k = s + d->value_heads * matrix;
    float *n = k + (size_t)d->key_heads * STATE_CHUNK * d->key_dim;
    float *g = n + (size_t)d->value_heads * STATE_CHUNK * d->value_dim;
    return (head_state){s + value_head * matrix,
                        k + (size_t)key_head * STATE_CHUNK * d->key_dim,
                        n + (size_t)value_head * STATE_CHUNK * d->value_dim,
                        g + (size_t)value_head * STATE_CHUNK};
}

/* The i-th value head that goes by a key head. */
static uint32_t value_head(const delta_shape *d, uint32_t key_head, uint32_t i) {
    return d->tiled ? key_head + i * d->key_heads
                    : key_head * (d->value_heads / d->key_heads) + i;
}

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
    for (uint32_t r = 0; r < p->n_rows; r++) {
        const float *q = p->in + (size_t)(p->row + r) * cols + (size_t)p->key_head * n;
        const float *k = q + (size_t)d->key_heads * n;
        float *to = kept + (size_t)(p->at + r) * n;
        p->e->ops->norm(k, of_k, n, eps, to);
        memcpy(p->x + (size_t)r * n, to, n * sizeof *to);
        p->e->ops->norm(q, of_q, n, eps, p->x + (size_t)(p->n_rows + r) * n);
    }
}

/* log(1 + e^x) without overflow. */
static double softplus(double x) {
    return x > 30 ? x : log1p(exp(x));
}

/* e^(G - G') for the chunk's rows j < n, then e^G. */
static void powers(const piece *p, const float *g, float now, uint32_t n) {
    for (uint32_t j = 0; j < n; j++) p->power[j] = (now - g[j]) * LOG2_E;
    p->power[n] = now * LOG2_E;
    p->e->ops->exp2(p->power, n + 1, p->power);
}

/* Row r of the piece for a value head; S has given sk of k, and sq of q. */
static void run_row(const piece *p, const head_state *h, uint32_t head, uint32_t r,
                    const float *sk, const float *sq) {
    const delta_shape *d = p->d;
    const op_kernels *ops = p->e->ops;
    const uint32_t dv = d->value_dim, dk = d->key_dim, t = p->at + r;
    const uint32_t cols = p->e->program->values[p->op->op->in].cols;
    const float *v =
        p->in + (size_t)(p->row + r) * cols + 2 * (size_t)d->key_heads * dk + (size_t)head * dv;
    const float *ba = p->ba + (size_t)(p->row + r) * 2 * d->value_heads;
    const float beta = (float)(1 / (1 + exp(-(double)ba[head])));
    const double a = (double)ba[d->value_heads + head] + (double)p->op->vec[1][head];
    const float g = p->op->vec[0][head] * (float)softplus(a), now = (t ? h->g[t - 1] : 0) + g;
    const float *k = p->x + (size_t)r * dk, *q = p->x + (size_t)(p->n_rows + r) * dk;
    float *n = h->n + (size_t)t * dv;
    float *o = p->out + (size_t)(p->row + r) * d->value_heads * dv + (size_t)head * dv;
    powers(p, h->g, now, t);
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

/* The chunk is full: its rows become part of S. */
static void fold(const piece *p, const head_state *h) {
    const uint32_t dk = p->d->key_dim;
    powers(p, h->g, h->g[STATE_CHUNK - 1], STATE_CHUNK);
    for (uint32_t j = 0; j < STATE_CHUNK; j++)
        for (uint32_t i = 0; i < dk; i++)
            p->scaled[(size_t)j * dk + i] = h->k[(size_t)j * dk + i] * p->power[j];
    p->e->ops->add_outer(h->s, p->power[STATE_CHUNK], p->scaled, h->n, STATE_CHUNK, dk,
                         p->d->value_dim);
}

/* checkpoint: a slot for the states behind the piece, which ends a chunk; NULL: none. */
static void run_piece(const piece *p, uint32_t slot, const uint32_t *checkpoint) {
    const delta_shape *d = p->d;
    const size_t dv = d->value_dim, matrix = d->key_dim * dv;
    const bool full = p->at + p->n_rows == STATE_CHUNK;
    take_keys(p, state_of(p->e, p->op, slot, p->key_head, 0).k);
    for (uint32_t i = 0; i < d->value_heads / d->key_heads; i++) {
        const uint32_t head = value_head(d, p->key_head, i);
        const head_state h = state_of(p->e, p->op, slot, p->key_head, head);
        p->e->ops->rows_by(p->x, 2 * p->n_rows, h.s, d->key_dim, d->value_dim, p->sx);
        for (uint32_t r = 0; r < p->n_rows; r++)
            run_row(p, &h, head, r, p->sx + r * dv, p->sx + (p->n_rows + r) * dv);
        if (full) fold(p, &h);
        if (checkpoint)
            memcpy(state_of(p->e, p->op, *checkpoint, p->key_head, head).s, h.s,
                   matrix * sizeof *h.s);
    }
}

/* A state of no tokens. */
static void clear(const piece *p, uint32_t slot) {
    const delta_shape *d = p->d;
    for (uint32_t i = 0; i < d->value_heads / d->key_heads; i++)
        memset(state_of(p->e, p->op, slot, p->key_head, value_head(d, p->key_head, i)).s, 0,
               sizeof(float) * d->key_dim * d->value_dim);
}

static void run_seq(piece *p, const batch_seq *s) {
    uint32_t next = 0; /* of the checkpoints */
    if (s->first_pos == 0) clear(p, s->state);
    for (uint32_t done = 0; done < s->n_rows; done += p->n_rows) {
        const uint32_t pos = s->first_pos + done;
        p->row = s->first_row + done;
        p->at = pos % STATE_CHUNK;
        p->n_rows = STATE_CHUNK - p->at;
        if (p->n_rows > s->n_rows - done) p->n_rows = s->n_rows - done;
        const bool kept =
            next < s->n_checkpoints && s->checkpoints[next].n_tokens == pos + p->n_rows;
        run_piece(p, s->state, kept ? &s->checkpoints[next].state : NULL);
        next += kept;
    }
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
