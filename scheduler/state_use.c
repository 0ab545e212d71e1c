/* Recurrent states as sequences use them: a slot each, from admission to the last commit; what a start
 * finds; the checkpoints that a step writes.
 *
 * A state stands behind one number of tokens. Behind others of the same chunk it can be had, since the
 * rows of a chunk that is not full are kept beside it, and undone; nothing before the chunk can. So a
 * sequence can start behind a checkpoint, behind the last multiple of a chunk of what it kept when it was
 * preempted, or, as a fork, where its leader's chunk still reaches, and only there.
 *
 * Checkpoints are where blocks and chunks both end: at the last such place in a prompt, where the next
 * turn goes on; at the last one a chunk before its end, where the same prompt again, or one with another
 * end, can go on; and where a prompt parts from a chain whose blocks were found and whose states were not,
 * since two prompts that have parted there may be followed by a third. And the state of a sequence that
 * ends becomes a checkpoint, if it stands at such a place: so the next turn of a conversation begins
 * behind the answer. Where blocks are no larger than chunks, it always does.
 *
 * Steps are run in order, and copies before rows. So a slot can change hands while a step that reads it
 * is uncommitted, and needs no fence. Room is never short: sequences have max_seqs slots at most, and
 * steps in flight write no more checkpoints than there are slots besides. */
#include "scheduler/state.h"

void state_init(sched *s) {
    uint64_t a = s->cfg.block_tokens, b = s->cfg.state_chunk;
    const uint64_t product = a * b;
    for (uint64_t rest; b > 0; a = b, b = rest) rest = a % b; /* the greatest common divisor */
    s->state_stride = product / a < UINT32_MAX ? (uint32_t)(product / a) : UINT32_MAX;
    for (uint32_t i = 0; i < s->cfg.max_seqs; i++) s->own[i] = (own_state){.slot = NO_STATE};
    state_pool_init(&s->states);
}

static uint32_t take(sched *s) {
    bool evicted;
    const uint32_t slot = state_pool_take(&s->states, &evicted);
    s->count.state_checkpoints_evicted += evicted;
    return slot;
}

/* ---- a sequence's own ---- */

uint32_t state_cut(const sched *s, uint32_t slot, uint32_t n, uint32_t *from) {
    const uint32_t kept = slot == NO_SLOT ? 0 : s->own[slot].kept / s->cfg.block_tokens;
    for (uint32_t before = n + 1; n < before;) {
        while (n > 0 && n != kept &&
               state_pool_of(&s->states, s->probe.block[n - 1]) == NO_STATE)
            n--;
        before = n;
        n = cache_cut(s, n);
    }
    const bool own = n == 0 || n == kept;
    *from = own ? NO_STATE : state_pool_of(&s->states, s->probe.block[n - 1]);
    return n;
}

void state_begin(sched *s, uint32_t slot, const start *st) {
    own_state *own = &s->own[slot];
    const uint32_t common = s->probe.n_chain * s->cfg.block_tokens;
    const uint32_t parts = common / s->state_stride * s->state_stride;
    if (st->state != NO_STATE && st->leader == NO_SLOT) state_pool_use(&s->states, st->state);
    /* The one that it begins with goes last, and is then its own without a copy. */
    if (own->slot == NO_STATE) own->slot = take(s);
    own->kept = own->place = 0;
    own->parts = st->leader == NO_SLOT && s->cfg.prefix_cache ? parts : 0;
    if (st->state == NO_STATE || st->state == own->slot) return;
    CHECK(s->n_copies < sched_max_copies(&s->cfg) - s->cfg.max_moves);
    s->copy[(s->n_planned + 1) & 1][s->n_copies++] =
        (sched_step_copy){SCHED_COPY_STATE, (int32_t)st->state, (int32_t)own->slot};
}

/* Steps that are not committed will have run when it starts again. */
void state_keep(sched *s, uint32_t slot) {
    const seq_hot *h = &s->hot[slot];
    const uint32_t n = h->next_pos - h->n_draft, whole = n - n % s->cfg.state_chunk;
    s->own[slot].kept = whole % s->cfg.block_tokens == 0 ? whole : 0;
}

void state_moved(sched *s, int32_t from, int32_t to) {
    state_pool_move(&s->states, from, to);
    for (uint32_t i = 0; i < s->cfg.max_seqs; i++)
        if (s->own[i].place > 0 && s->own[i].block == from) s->own[i].block = to;
}

void state_end(sched *s, uint32_t slot, bool kept) {
    const seq_hot *h = &s->hot[slot];
    own_state *own = &s->own[slot];
    const uint32_t n = h->next_pos - h->n_draft;
    own->leaves =
        kept && h->n_blocks > 0 && own->place > 0 && own->place == n - n % s->cfg.state_chunk;
}

void state_failed(sched *s, uint32_t slot) {
    s->own[slot].leaves = false;
}

void state_retire(sched *s, uint32_t slot) {
    const seq_group *g = &s->group[s->chain_group];
    own_state *own = &s->own[slot];
    /* Its block may have been taken for something else since it ended. */
    if (own->leaves && g->kv.flags[own->block] & BLOCK_CACHED &&
        g->index.serial[own->block] == own->serial &&
        state_pool_of(&s->states, own->block) == NO_STATE) {
        state_pool_attach(&s->states, own->slot, own->block);
        s->count.state_checkpoints_written++;
    } else {
        state_pool_give(&s->states, own->slot);
    }
    *own = (own_state){.slot = NO_STATE};
}

/* The copy comes before the rows of this step: next_pos may have them, which errs on the safe side. */
bool state_reaches(const sched *s, uint32_t slot, uint32_t n_tokens) {
    const uint32_t n = s->hot[slot].next_pos;
    return n - n % s->cfg.state_chunk <= n_tokens;
}

/* ---- checkpoints ---- */

/* The next place for one behind n tokens, or UINT32_MAX. */
static uint32_t next_place(const sched *s, uint32_t slot, uint32_t n) {
    const uint32_t prompt = s->hot[slot].n_prompt;
    const uint32_t before = prompt - min_u32(prompt, s->cfg.state_chunk);
    const uint32_t place[] = {prompt - prompt % s->state_stride,
                              before - before % s->state_stride, s->own[slot].parts};
    uint32_t next = UINT32_MAX;
    for (size_t i = 0; i < sizeof place / sizeof *place; i++)
        if (place[i] > n) next = min_u32(next, place[i]);
    return next;
}

uint32_t state_plan(sched *s, sched_step_seq *entry, uint32_t n_decode, uint32_t n) {
    sched_step_checkpoint *out = s->checkpoint[s->n_planned & 1];
    const uint32_t most = s->cfg.state_slots - s->cfg.max_seqs;
    uint32_t n_out = 0;
    for (uint32_t i = 0; i < n; i++) entry[i].state = s->own[entry[i].slot].slot;
    for (uint32_t i = n_decode; i < n && s->cfg.prefix_cache; i++) {
        const sched_step_seq *e = &entry[i];
        if (s->chain[e->slot].n == CHAIN_BROKEN) continue;
        uint32_t at = next_place(s, e->slot, e->first_pos);
        for (; at <= e->first_pos + e->n_rows && s->n_writing < most; s->n_writing++) {
            out[n_out++] = (sched_step_checkpoint){i, at, take(s)};
            at = next_place(s, e->slot, at);
        }
    }
    return n_out;
}

void state_commit(sched *s, const sched_step *st, bool done) {
    for (uint32_t i = 0; i < st->n_checkpoints; i++) {
        const sched_step_checkpoint *c = &st->checkpoint[i];
        const uint32_t slot = st->seq[c->entry].slot;
        const seq_hot *h = &s->hot[slot];
        int32_t block = -1;
        if (done && h->state != SEQ_ENDED && h->n_blocks > 0)
            block = cache_publish(s, slot, c->n_tokens);
        s->n_writing--;
        if (block < 0 || state_pool_of(&s->states, block) != NO_STATE) {
            state_pool_give(&s->states, c->state);
            continue;
        }
        state_pool_attach(&s->states, c->state, block);
        s->count.state_checkpoints_written++;
    }
}

/* ---- audit ---- */

/* Sequences and uncommitted checkpoints that have a slot. */
static uint32_t hands_on(const sched *s, uint32_t state) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->cfg.max_seqs; i++) n += s->own[i].slot == state;
    for (uint64_t number = s->n_committed + 1; number <= s->n_planned; number++) {
        const sched_step *st = &s->step[number & 1];
        for (uint32_t i = 0; i < st->n_checkpoints; i++) n += st->checkpoint[i].state == state;
    }
    return n;
}

void state_audit(const sched *s) {
    const state_pool *p = &s->states;
    const uint32_t n_live = s->cfg.max_seqs - s->n_free_slots;
    uint32_t n_writing = 0;
    for (uint32_t i = 0; i < s->cfg.max_seqs; i++) {
        const own_state *own = &s->own[i];
        const seq_hot *h = &s->hot[i];
        CHECK((own->slot != NO_STATE) == (h->state != SEQ_FREE));
        CHECK(own->kept == 0 || (h->n_blocks == 0 && own->kept % s->cfg.state_chunk == 0));
    }
    for (uint64_t number = s->n_committed + 1; number <= s->n_planned; number++) {
        const sched_step *st = &s->step[number & 1];
        n_writing += st->n_checkpoints;
        for (uint32_t i = 0; i < st->n_seqs; i++)
            CHECK(st->seq[i].state == s->own[st->seq[i].slot].slot);
        for (uint32_t i = 0; i < st->n_checkpoints; i++) {
            const sched_step_checkpoint *c = &st->checkpoint[i];
            const sched_step_seq *e = &st->seq[c->entry];
            CHECK(c->entry < st->n_seqs && c->n_tokens % s->state_stride == 0);
            CHECK(c->n_tokens > e->first_pos && c->n_tokens <= e->first_pos + e->n_rows);
        }
    }
    CHECK(n_writing == s->n_writing && n_writing <= s->cfg.state_slots - s->cfg.max_seqs);
    state_pool_audit(p, n_live + n_writing, s->group[s->chain_group].kv.flags);
    uint32_t n_taken = 0;
    for (uint32_t i = 0; i < p->n_slots; i++) {
        const uint32_t hands = hands_on(s, i);
        CHECK(hands <= 1 && (hands == 0 || p->slot[i].block == NO_STATE));
        n_taken += hands;
    }
    for (uint32_t i = p->free; i != NO_STATE; i = p->slot[i].older) CHECK(hands_on(s, i) == 0);
    CHECK(n_taken == n_live + n_writing);
}
