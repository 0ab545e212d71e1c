/* Who holds which block and which state, for people to look at. Reads; changes nothing. */
#include "scheduler/state.h"

/* n places at a power of two of them a cell, so that there are at most `most` cells. */
static sched_cells cells_of(uint32_t n, uint32_t most) {
    sched_cells c = {n, 1};
    while (ceil_div(n, c.stride) > most) c.stride *= 2;
    return c;
}

static uint32_t cell_of_block(const blocks *b, uint32_t i) {
    if (b->ref[i] > 0) return b->ref[i] > 1 ? CELL_SHARED : CELL_USED;
    if (b->flags[i] & BLOCK_FENCED) return CELL_FENCED;
    if (i >= b->limit) return CELL_OUT;
    return b->flags[i] & BLOCK_CACHED ? CELL_CACHED : CELL_FREE;
}

sched_cells sched_block_cells(const sched *s, uint32_t group, uint32_t *cell, uint32_t most) {
    const seq_group *g = &s->group[group];
    const sched_cells c = cells_of(g->kv.n, most);
    for (uint32_t i = 0; i < c.n; i += c.stride) cell[i / c.stride] = cell_of_block(&g->kv, i);
    for (uint32_t slot = 0; slot < s->cfg.max_seqs; slot++) {
        const held own = held_of(s, g, slot);
        const int32_t *table = table_of(s, g, slot);
        for (uint32_t i = own.first; i < own.n; i++) {
            const uint32_t block = (uint32_t)table[i];
            if (block % c.stride == 0 && cell[block / c.stride] == CELL_USED)
                cell[block / c.stride] = CELL_SEQUENCE + slot;
        }
    }
    return c;
}

sched_cells sched_state_cells(const sched *s, uint32_t *cell, uint32_t most) {
    const state_pool *p = &s->states;
    const sched_cells c = cells_of(has_states(s) ? p->n_slots : 0, most);
    for (uint32_t i = 0; i < c.n; i += c.stride)
        cell[i / c.stride] = p->slot[i].block == NO_STATE ? CELL_USED : CELL_CACHED;
    if (c.n == 0) return c;
    for (uint32_t i = p->free, n = p->n_free; n > 0; i = p->slot[i].older, n--)
        if (i % c.stride == 0) cell[i / c.stride] = CELL_FREE;
    for (uint32_t slot = 0; slot < s->cfg.max_seqs; slot++) {
        const uint32_t own = s->own[slot].slot;
        if (own != NO_STATE && own % c.stride == 0) cell[own / c.stride] = CELL_SEQUENCE + slot;
    }
    return c;
}

uint64_t sched_user_of(const sched *s, uint32_t slot) {
    return s->hot[slot].user;
}
