/* The pools as cells, from the engine thread to the loop. One picture passes between them: the loop asks for it,
 * the engine thread draws it after its next step, the loop takes a copy when it asks again. */
#include "daemon/bridge/bridge_parts.h"

enum {
    PICTURE_NONE,
    PICTURE_ASKED,
    PICTURE_DRAWN
}; /* ASKED: the engine thread's, else the loop's */

/* Slots are given new sequences; the loop knows sequences by their numbers. */
static void name_sequences(const sched *s, pool_picture *p) {
    for (uint32_t i = 0; (uint64_t)i * p->stride < p->n; i++) {
        if (p->cell[i] < CELL_SEQUENCE) continue;
        const gen *g = (const gen *)(uintptr_t)sched_user_of(s, p->cell[i] - CELL_SEQUENCE);
        p->cell[i] = CELL_SEQUENCE + (uint32_t)g->number;
    }
}

static void draw(const sched *s, pool_picture *p, sched_cells c) {
    p->n = c.n;
    p->stride = c.stride;
    name_sequences(s, p);
}

void bridge_draw(bridge *b) {
    const sched *s = b->m->sched;
    kv_picture *k = b->picture;
    if (!k || atomic_load(&b->picture_state) != PICTURE_ASKED) return;
    k->n_groups = b->m->sched_conf.n_groups;
    for (uint32_t i = 0; i < k->n_groups; i++)
        draw(s, &k->group[i], sched_block_cells(s, i, k->group[i].cell, PICTURE_CELLS));
    draw(s, &k->states, sched_state_cells(s, k->states.cell, PICTURE_CELLS));
    atomic_store(&b->picture_state, PICTURE_DRAWN);
}

bool bridge_picture(port *p, kv_picture *out) {
    bridge *b = (bridge *)p;
    const int state = atomic_load(&b->picture_state);
    if (!b->picture || state == PICTURE_ASKED) return false;
    if (state == PICTURE_DRAWN) *out = *b->picture;
    atomic_store(&b->picture_state, PICTURE_ASKED);
    return state == PICTURE_DRAWN;
}
