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

void chunk_fold(const cpu_engine *e, const delta_shape *d, const head_state *h,
                const float *const k[STATE_CHUNK], float *scaled, float *power) {
    const uint32_t dk = d->key_dim;
    chunk_powers(e, h->g, h->g[STATE_CHUNK - 1], STATE_CHUNK, power);
    for (uint32_t j = 0; j < STATE_CHUNK; j++)
        for (uint32_t i = 0; i < dk; i++) scaled[(size_t)j * dk + i] = k[j][i] * power[j];
    e->ops->add_outer(h->s, power[STATE_CHUNK], scaled, h->n, STATE_CHUNK, dk, d->value_dim);
}
