/* Chunks of recurrent operations: chunk.h. */
#include "engine/cpu/chunk.h"

#include <math.h>

head_state head_state_of(const cpu_engine *e, const cpu_op *c, uint32_t slot, uint32_t key_head,
                         uint32_t value_head) {
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

bool chunk_next(chunk_rows *c, const batch_seq *s) {
    if (c->done == s->n_rows) return false;
    const uint32_t pos = s->first_pos + c->done;
    c->row = s->first_row + c->done;
    c->at = pos % STATE_CHUNK;
    c->n_rows = STATE_CHUNK - c->at;
    if (c->n_rows > s->n_rows - c->done) c->n_rows = s->n_rows - c->done;
    c->done += c->n_rows;
    c->checkpoint = NULL;
    if (c->next < s->n_checkpoints && s->checkpoints[c->next].n_tokens == pos + c->n_rows)
        c->checkpoint = &s->checkpoints[c->next++].state;
    return true;
}

double chunk_softplus(double x) {
    return x > 30 ? x : log1p(exp(x));
}

void chunk_powers(const cpu_engine *e, const float *g, float now, uint32_t n, float *power) {
    for (uint32_t j = 0; j < n; j++) power[j] = (now - g[j]) * LOG2_E;
    power[n] = now * LOG2_E;
    e->ops->exp2(power, n + 1, power);
}

chunk_task chunk_task_of(cpu_engine *e, const cpu_op *c, uint32_t thread, uint32_t n_x) {
    const delta_shape *d = &c->op->delta;
    chunk_task t = {.e = e, .op = c, .d = d, .n_x = n_x};
    t.x = thread_at(e, thread, e->layout.thread.delta);
    t.sx = t.x + (size_t)n_x * STATE_CHUNK * d->key_dim;
    t.scaled = t.sx + (size_t)n_x * STATE_CHUNK * d->value_dim;
    t.power = t.scaled + (size_t)STATE_CHUNK * d->key_dim;
    return t;
}

/* The chunk is full: its rows become part of S. */
static void fold(const chunk_task *t, const head_state *h) {
    const uint32_t dk = t->d->key_dim;
    chunk_powers(t->e, h->g, h->g[STATE_CHUNK - 1], STATE_CHUNK, t->power);
    for (uint32_t j = 0; j < STATE_CHUNK; j++)
        for (uint32_t i = 0; i < dk; i++)
            t->scaled[(size_t)j * dk + i] = t->k[j][i] * t->power[j];
    t->e->ops->add_outer(h->s, t->power[STATE_CHUNK], t->scaled, h->n, STATE_CHUNK, dk,
                         t->d->value_dim);
}

static head_state state_of(const chunk_task *t, uint32_t slot, uint32_t i) {
    return head_state_of(t->e, t->op, slot, t->key_head,
                         value_head_of(t->d, t->key_head, t->first + i));
}

static void run_piece(chunk_task *t, const chunk_ops *ops) {
    const delta_shape *d = t->d;
    const uint32_t n_rows = t->rows.n_rows;
    ops->take_keys(t);
    for (uint32_t i = 0; i < t->n_heads; i++) {
        const uint32_t head = value_head_of(d, t->key_head, t->first + i);
        const head_state h = state_of(t, t->seq->state, i);
        t->e->ops->rows_by(t->x, t->n_x * n_rows, h.s, d->key_dim, d->value_dim, t->sx);
        for (uint32_t r = 0; r < n_rows; r++) ops->run_row(t, &h, head, r);
        if (t->rows.at + n_rows == STATE_CHUNK) fold(t, &h);
        if (t->rows.checkpoint)
            memcpy(state_of(t, *t->rows.checkpoint, i).s, h.s,
                   sizeof *h.s * d->key_dim * d->value_dim);
    }
}

void chunk_run(chunk_task *t, const chunk_ops *ops) {
    for (uint32_t i = 0; t->seq->first_pos == 0 && i < t->n_heads; i++)
        memset(state_of(t, t->seq->state, i).s, 0,
               sizeof(float) * t->d->key_dim * t->d->value_dim);
    t->rows = (chunk_rows){0};
    while (chunk_next(&t->rows, t->seq)) run_piece(t, ops);
}
