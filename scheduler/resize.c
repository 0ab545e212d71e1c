/* Pools that shrink and grow: see resize.h. Draining a pool is resize_advance before each step
 * and resize_move after its rows are planned. */
#include "scheduler/resize.h"

#include "scheduler/state.h"

void sched_least_blocks(const sched *s, uint32_t out[SCHED_MAX_GROUPS]) {
    for (uint32_t k = 0; k < s->n_groups; k++) out[k] = 1;
    for (uint32_t i = 0; i < s->n_records; i++) {
        const seq_record *r = &s->record[i];
        if (r->generation % 2 == 0) continue;
        for (uint32_t k = 0; k < s->n_groups; k++) {
            const uint64_t n =
                sched_blocks_needed(&s->cfg, k, r->spec.n_prompt, r->spec.max_tokens);
            /* It was admitted, so it is no more than n. */
            out[k] = max_u32(out[k], (uint32_t)n + s->group[k].rows);
        }
    }
}

bool sched_resize(sched *s, const uint32_t n_blocks[SCHED_MAX_GROUPS]) {
    uint32_t least[SCHED_MAX_GROUPS];
    if (s->cfg.max_moves == 0) return false;
    sched_least_blocks(s, least);
    for (uint32_t k = 0; k < s->n_groups; k++)
        if (n_blocks[k] < least[k] || n_blocks[k] > s->group[k].kv.n) return false;
    for (uint32_t k = 0; k < s->n_groups; k++) group_set_target(s, k, n_blocks[k]);
    s->resizing = true;
    return true;
}

static bool group_resized(const sched *s, const seq_group *g) {
    return g->kv.limit == g->target && g->kv.n_leaving == 0 && g->left <= s->n_committed;
}

bool sched_resized(const sched *s) {
    for (uint32_t k = 0; s->resizing && k < s->n_groups; k++)
        if (!group_resized(s, &s->group[k])) return false;
    return true;
}

/* Blocks that a pool must have for what is held, and for what sequences in a window were
 * promised. */
static uint32_t claimed(const seq_group *g) {
    if (!g->window) return blocks_used(&g->kv);
    return g->reserved ? g->reserved + g->rows : 0;
}

/* Holders go, paused ones first and then juniors, until the rest is within the target. Blocks
 * that the uncommitted steps of a victim fence are not counted: they come free by themselves. */
static void make_fit(sched *s, const seq_group *g) {
    while (claimed(g) > g->target) {
        if (s->parked.n > 0)
            seq_preempt(s, s->parked.head);
        else if (s->running.n > 1)
            seq_preempt(s, s->running.tail);
        else
            return; /* pins of uncommitted copies: until their commit */
    }
}

/* In a window every promised block must be there at any time, so the limit follows what is
 * reserved; without one it is lowered at once, and those that are held are leaving. */
static void move_limit(sched *s, seq_group *g) {
    uint32_t to = g->target;
    if (g->window) to = max_u32(to, claimed(g) + blocks_fenced(&g->kv));
    while (g->kv.limit > to) {
        const uint32_t n_out = g->kv.n_out;
        if (blocks_lower(&g->kv)) forget_cached(s, g, (int32_t)g->kv.limit);
        if (g->kv.n_out > n_out) g->left = s->n_planned;
    }
    while (g->kv.limit < g->target && g->left <= s->n_committed) blocks_raise(&g->kv);
}

bool resize_advance(sched *s) {
    const bool settled = s->n_planned == s->n_committed;
    bool moves = false, all = true;
    for (uint32_t k = 0; k < s->n_groups; k++) {
        seq_group *g = &s->group[k];
        make_fit(s, g);
        move_limit(s, g);
    }
    for (uint32_t k = 0; k < s->n_groups; k++) {
        const seq_group *g = &s->group[k];
        moves |= g->kv.n_leaving > 0 && g->kv.n_free > 0;
        all &= group_resized(s, g);
    }
    s->resizing = !all;
    return settled || !moves;
}

/* Whether a fork's copy in the step in planning reads the block: it stays until the commit. */
static bool pinned(const sched *s, const sched_step_copy *copy, uint32_t k, int32_t block) {
    for (uint32_t i = 0; i < s->n_copies; i++)
        if (copy[i].group == k && copy[i].from == block) return true;
    return false;
}

/* Moves of the step in planning. The new place of a block stands in its link, which no other code
 * uses while it is in no list, until its last holder has the new one. */
typedef struct mover {
    sched *s;
    sched_step_copy *copy; /* of forks, s->n_copies, then moves */
    uint32_t n;
} mover;

/* Where a block that is leaving goes, or -1: not in this step. */
static int32_t place_of(mover *m, uint32_t k, int32_t from) {
    seq_group *g = &m->s->group[k];
    blocks *kv = &g->kv;
    bool evicted;
    if (kv->next[from] != (uint32_t)from) return (int32_t)kv->next[from];
    if (kv->n_free == 0 || m->n == m->s->cfg.max_moves) return -1;
    if (pinned(m->s, m->copy, k, from)) return -1;
    const int32_t to = blocks_take(kv, &evicted);
    if (evicted) forget_cached(m->s, g, to);
    kv->ref[to] = 0;                /* its holders come one by one */
    kv->busy[to] = m->s->n_planned; /* the copy writes to it */
    kv->next[from] = (uint32_t)to;
    if (kv->flags[from] & BLOCK_CACHED) {
        prefix_move(&g->index, from, to);
        if (has_states(m->s) && k == m->s->chain_group) state_moved(m->s, from, to);
        kv->flags[to] = BLOCK_CACHED;
        kv->flags[from] = 0;
    }
    m->copy[m->s->n_copies + m->n++] = (sched_step_copy){k, from, to};
    return to;
}

static void move_held(mover *m, uint32_t k, uint32_t slot) {
    sched *s = m->s;
    seq_group *g = &s->group[k];
    int32_t *table = table_of(s, g, slot);
    const seq_hot *h = &s->hot[slot];
    if (h->n_blocks == 0) return;
    const uint32_t first = g->window ? g->held[slot].first : 0;
    const uint32_t n = g->window ? g->held[slot].n : h->n_blocks;
    for (uint32_t i = first; i < n && g->kv.n_leaving > 0; i++) {
        if ((uint32_t)table[i] < g->kv.limit) continue;
        const int32_t from = table[i], to = place_of(m, k, from);
        if (to < 0) continue;
        table[i] = to;
        if (!blocks_pass(&g->kv, from, to)) continue;
        g->kv.next[from] = (uint32_t)from;
        g->left = s->n_planned; /* the step that copies it */
    }
}

uint32_t resize_move(sched *s) {
    mover m = {.s = s, .copy = s->copy[s->n_planned & 1]};
    for (uint32_t k = 0; k < s->n_groups; k++)
        for (uint32_t slot = 0; slot < s->cfg.max_seqs && s->group[k].kv.n_leaving > 0; slot++)
            move_held(&m, k, slot);
    s->n_copies += m.n;
    s->count.moved_blocks += m.n;
    return m.n;
}

void resize_unpark(sched *s) {
    for (uint32_t k = 0; k < s->n_groups; k++)
        while (s->group[k].kv.n_leaving > 0 && s->parked.n > 0) seq_preempt(s, s->parked.head);
}

static bool holds(const sched *s, uint32_t slot, const sched_step_copy *c) {
    const seq_group *g = &s->group[c->group];
    const uint32_t n = s->hot[slot].n_blocks;
    const uint32_t first = g->window && n > 0 ? g->held[slot].first : 0;
    for (uint32_t i = first; i < (g->window && n > 0 ? g->held[slot].n : n); i++)
        if (table_of(s, g, slot)[i] == c->to) return true;
    return false;
}

void resize_failed(sched *s, const sched_step *st) {
    for (uint32_t i = st->n_copies - st->n_moves; i < st->n_copies; i++) {
        const sched_step_copy *c = &st->copy[i];
        seq_group *g = &s->group[c->group];
        if (g->kv.flags[c->to] & BLOCK_CACHED) {
            forget_cached(s, g, c->to);
            blocks_uncache(&g->kv, c->to);
        }
        for (uint32_t slot = 0; slot < s->cfg.max_seqs; slot++)
            if (s->hot[slot].state != SEQ_FREE && holds(s, slot, c))
                seq_end(s, slot, FINISH_ERROR, -1);
    }
}
