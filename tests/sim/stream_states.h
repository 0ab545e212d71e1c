/* Of stream.h: recurrent states. That each is of the right tokens is what the fake engine checks; here is
 * where a text may begin, and where a checkpoint may be. Included by it alone. */
#ifndef TESTS_SIM_STREAM_STATES_H
#define TESTS_SIM_STREAM_STATES_H

/* A request that n_cached tokens were found of begins behind a checkpoint of the same tokens, or behind the
 * state that one has left when it ended. */
static inline bool stream_stated(stream *m, uint32_t i, uint32_t n_cached) {
    const stream_request *q = &m->r[i];
    if (!m->states || n_cached == 0) return true;
    for (uint32_t k = 0; k < m->n; k++) {
        const stream_request *o = &m->r[k];
        if (k == i || o->forgotten || o->spec.salt != q->spec.salt) continue;
        const bool left = o->admitted && !o->live && n_cached % m->cfg.state_chunk == 0;
        if ((!o->checkpoint[n_cached] && !left) ||
            memcmp(o->text, q->text, n_cached * sizeof *q->text) != 0)
            continue;
        m->n_stated++;
        m->n_left += !o->checkpoint[n_cached];
        return true;
    }
    return false;
}

/* Within the prompt, at the ends of blocks and chunks; sequences have slots of their own. */
static inline void stream_check_states(const stream *m, const sched_step *st) {
    CHECK(m->states || st->n_checkpoints == 0);
    CHECK(st->n_checkpoints <= m->cfg.state_slots - (m->states ? m->cfg.max_seqs : 0));
    for (uint32_t i = 0; i < st->n_checkpoints; i++) {
        const sched_step_checkpoint *c = &st->checkpoint[i];
        const sched_step_seq *e = &st->seq[c->entry];
        CHECK(c->entry >= st->n_decode_seqs && c->n_tokens <= e->first_pos + e->n_rows);
        CHECK(c->n_tokens > e->first_pos && c->n_tokens <= STREAM_LEN);
        CHECK(c->n_tokens % m->cfg.block_tokens == 0 && c->n_tokens % m->cfg.state_chunk == 0);
        for (uint32_t k = 0; k < st->n_seqs; k++) CHECK(st->seq[k].state != c->state);
        for (uint32_t k = 0; k < i; k++) CHECK(st->checkpoint[k].state != c->state);
    }
    for (uint32_t i = 0; m->states && i < st->n_seqs; i++)
        for (uint32_t k = 0; k < i; k++) CHECK(st->seq[k].state != st->seq[i].state);
}

static inline void stream_written(stream *m, const sched_step *st) {
    for (uint32_t i = 0; i < st->n_checkpoints; i++) {
        const sched_step_checkpoint *c = &st->checkpoint[i];
        stream_request *q = &m->r[st->seq[c->entry].user];
        q->checkpoint[c->n_tokens] = true;
        m->n_written++;
    }
}

#endif
