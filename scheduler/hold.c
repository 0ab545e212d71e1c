/* A sequence and its blocks, in every group: taking, sharing, growing, releasing. Whether there
 * is room is up to plan.c. */
#include "scheduler/state.h"

uint32_t hold_count(const sched *s, uint32_t slot) {
    uint32_t n = 0;
    for (uint32_t k = 0; k < s->n_groups; k++) {
        held own = held_of(s, &s->group[k], slot);
        n += own.n - own.first;
    }
    return n;
}

/* Before it holds more, or less. */
static void note_held(sched *s, uint32_t slot) {
    seq_record *r = &s->record[record_of(s->hot[slot].id)];
    uint64_t bytes = 0;
    uint32_t n = 0;
    for (uint32_t k = 0; k < s->n_groups; k++) {
        const held own = held_of(s, &s->group[k], slot);
        n += own.n - own.first;
        bytes += s->cfg.group[k].block_bytes * (own.n - own.first);
    }
    r->peak_blocks = max_u32(r->peak_blocks, n);
    if (r->peak_bytes < bytes) r->peak_bytes = bytes;
    r->cost.byte_seconds += (double)bytes * (double)(s->now_us - r->held_us) / 1e6;
    r->held_us = s->now_us;
}

static int32_t take(sched *s, seq_group *g) {
    bool evicted;
    int32_t block = blocks_take(&g->kv, &evicted);
    if (evicted) forget_cached(s, g, block);
    s->count.prefix_cache_evictions += evicted;
    return block;
}

/* One holder less. */
static void give(sched *s, seq_group *g, int32_t block, uint64_t touched_by) {
    const uint32_t n_out = g->kv.n_out;
    if (blocks_drop(&g->kv, block, touched_by, s->n_committed)) forget_cached(s, g, block);
    if (g->kv.n_out > n_out) g->left = s->n_planned;
}

static void set_held(const sched *s, seq_group *g, uint32_t slot, uint32_t first, uint32_t n) {
    g->held[slot] = (held){first, n, (first + 1) * s->cfg.block_tokens + g->window - 1};
}

/* The block that holds the end of the leader's prompt: the member's own copy of it. */
static void copy_last(sched *s, uint32_t k, uint32_t slot, const start *st) {
    seq_group *g = &s->group[k];
    uint32_t parity = (s->n_planned + 1) & 1;
    CHECK(s->n_copies < sched_max_copies(&s->cfg) - s->cfg.max_moves);
    int32_t from = table_of(s, g, st->leader)[st->n_found];
    blocks_hold(&g->kv, from);
    g->n_pinned++;
    g->reserved += g->window > 0;
    s->copy[parity][s->n_copies++] =
        (sched_step_copy){k, from, table_of(s, g, slot)[st->n_found]};
}

void hold_start(sched *s, uint32_t slot, const start *st, uint32_t n_blocks) {
    seq_hot *h = &s->hot[slot];
    uint32_t bs = s->cfg.block_tokens, prompt = h->n_prompt;
    bool forks = st->leader != NO_SLOT, copies = forks && (prompt - 1) % bs > 0;
    h->next_pos = forks ? prompt - 1 : st->n_found * bs;
    const uint32_t seen_from = st->n_load ? st->n_load * bs : h->next_pos;
    h->n_blocks = n_blocks;
    s->n_shared += st->n_found;
    s->record[record_of(h->id)].held_us = s->now_us;
    /* What is found first, so that nobody takes it for something else. */
    for (uint32_t k = 0; k < s->n_groups; k++) {
        seq_group *g = &s->group[k];
        int32_t *table = table_of(s, g, slot);
        const uint32_t first = first_seen(s, g, seen_from), n = max_u32(first, st->n_found);
        for (uint32_t i = 0; i < n; i++) {
            table[i] = -1;
            if (i < first) continue;
            table[i] = forks ? table_of(s, g, st->leader)[i] : cache_probed(s, k, i);
            blocks_hold(&g->kv, table[i]);
        }
        if (g->window) set_held(s, g, slot, first, n);
    }
    for (uint32_t k = 0; k < s->n_groups; k++) {
        seq_group *g = &s->group[k];
        int32_t *table = table_of(s, g, slot);
        if (g->window)
            g->reserved += group_part(g, n_blocks);
        else
            for (uint32_t i = st->n_found; i < n_blocks; i++) table[i] = take(s, g);
    }
    hold_cover(s, slot, copies ? prompt : st->n_load * bs);
    for (uint32_t k = 0; copies && k < s->n_groups; k++) copy_last(s, k, slot, st);
}

void hold_cover(sched *s, uint32_t slot, uint32_t end) {
    uint32_t n = blocks_for(s, end);
    for (uint32_t k = 0; s->windows && k < s->n_groups; k++) {
        seq_group *g = &s->group[k];
        if (!g->window) continue;
        held *own = &g->held[slot];
        if (own->n < n) note_held(s, slot);
        while (own->n < n) table_of(s, g, slot)[own->n++] = take(s, g);
    }
}

void hold_grow(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    note_held(s, slot);
    for (uint32_t k = 0; k < s->n_groups; k++) {
        seq_group *g = &s->group[k];
        if (g->window)
            g->reserved += group_part(g, h->n_blocks + 1) - group_part(g, h->n_blocks);
        else
            table_of(s, g, slot)[h->n_blocks] = take(s, g);
    }
    h->n_blocks++;
    hold_cover(s, slot, h->next_pos + 1);
}

/* The newest step that may touch its blocks; 0: none that is uncommitted. */
static uint64_t newest_step(const sched *s, const seq_hot *h) {
    if (h->inflight == 0) return 0;
    uint64_t next = s->n_committed + 1;
    return (next & 1) == h->newest_parity ? next : next + 1;
}

/* In reverse order, so that what is taken again first, or forgotten first, is the end of the
 * text. The table rows keep their entries: an uncommitted step may still read them. */
void hold_release(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    if (h->n_blocks == 0) return;
    uint64_t step = newest_step(s, h);
    note_held(s, slot);
    for (uint32_t k = 0; k < s->n_groups; k++) {
        seq_group *g = &s->group[k];
        const int32_t *table = table_of(s, g, slot);
        held own = held_of(s, g, slot);
        while (own.n > own.first) give(s, g, table[--own.n], step);
        if (g->window) g->reserved -= group_part(g, h->n_blocks);
    }
    h->n_blocks = 0;
}

void hold_shrink(sched *s, uint32_t slot, uint32_t n) {
    seq_hot *h = &s->hot[slot];
    if (n >= h->n_blocks) return;
    note_held(s, slot);
    for (uint32_t k = 0; k < s->n_groups; k++) {
        seq_group *g = &s->group[k];
        const uint32_t less = group_part(g, h->n_blocks) - group_part(g, n);
        held own = held_of(s, g, slot);
        while (own.n > n) give(s, g, table_of(s, g, slot)[--own.n], 0);
        if (h->state == SEQ_PAUSED) g->parked -= less;
        if (!g->window) continue;
        g->held[slot].n = own.n;
        g->reserved -= less;
    }
    h->n_blocks = n;
}

/* Rows of uncommitted steps stand at n_committed or later: they do not see them either, so no
 * fence is needed. */
void hold_release_unseen(sched *s, uint32_t slot, uint32_t n_committed) {
    bool noted = false;
    for (uint32_t k = 0; k < s->n_groups; k++) {
        seq_group *g = &s->group[k];
        if (!g->window || n_committed < g->held[slot].release_at) continue;
        if (!noted) note_held(s, slot);
        noted = true;
        held *own = &g->held[slot];
        int32_t *table = table_of(s, g, slot);
        uint32_t first = first_seen(s, g, n_committed);
        /* The oldest is the least worth keeping: it is forgotten first. */
        for (uint32_t i = own->first; i < first; i++) {
            give(s, g, table[i], 0);
            table[i] = -1;
        }
        set_held(s, g, slot, first, own->n);
    }
}

void hold_unpin(sched *s, const sched_step *st) {
    for (uint32_t i = 0; i < st->n_copies - st->n_moves; i++) {
        if (st->copy[i].group == SCHED_COPY_STATE) continue;
        seq_group *g = &s->group[st->copy[i].group];
        give(s, g, st->copy[i].from, 0);
        g->n_pinned--;
        g->reserved -= g->window > 0;
    }
}
