/* The lists behind state_pool.h. Every operation but init and audit is O(1). */
#include "scheduler/state_pool.h"

#include "base/check.h"
#include "scheduler/blocks.h"

static void list_remove(state_pool *p, uint32_t i) {
    const state_slot *x = &p->slot[i];
    *(x->newer == NO_STATE ? &p->newest : &p->slot[x->newer].older) = x->older;
    *(x->older == NO_STATE ? &p->oldest : &p->slot[x->older].newer) = x->newer;
}

static void list_front(state_pool *p, uint32_t i) {
    state_slot *x = &p->slot[i];
    x->newer = NO_STATE;
    x->older = p->newest;
    *(p->newest == NO_STATE ? &p->oldest : &p->slot[p->newest].newer) = i;
    p->newest = i;
}

/* A checkpoint becomes a taken slot. */
static void detach(state_pool *p, uint32_t i) {
    list_remove(p, i);
    p->of_block[p->slot[i].block] = 0;
    p->slot[i].block = NO_STATE;
    p->n_checkpoints--;
}

void state_pool_init(state_pool *p) {
    p->n_free = p->n_slots;
    p->n_checkpoints = 0;
    p->n_attached = 0;
    p->newest = p->oldest = NO_STATE;
    p->free = p->n_slots > 0 ? 0 : NO_STATE;
    for (uint32_t i = 0; i < p->n_slots; i++)
        p->slot[i] = (state_slot){.block = NO_STATE,
                                  .newer = NO_STATE,
                                  .older = i + 1 < p->n_slots ? i + 1 : NO_STATE};
    for (uint32_t i = 0; i < p->n_blocks; i++) p->of_block[i] = 0;
}

uint32_t state_pool_take(state_pool *p, bool *evicted) {
    const uint32_t i = p->n_free > 0 ? p->free : p->oldest;
    CHECK(i != NO_STATE);
    *evicted = p->n_free == 0;
    if (*evicted) {
        detach(p, i);
    } else {
        p->free = p->slot[i].older;
        p->n_free--;
    }
    return i;
}

void state_pool_give(state_pool *p, uint32_t i) {
    CHECK(i < p->n_slots && p->slot[i].block == NO_STATE);
    p->slot[i].older = p->free;
    p->free = i;
    p->n_free++;
}

void state_pool_attach(state_pool *p, uint32_t i, int32_t block) {
    CHECK(p->slot[i].block == NO_STATE && p->of_block[block] == 0);
    p->slot[i].block = (uint32_t)block;
    p->of_block[block] = i + 1;
    p->n_checkpoints++;
    p->n_attached++;
    list_front(p, i);
}

void state_pool_use(state_pool *p, uint32_t i) {
    CHECK(p->slot[i].block != NO_STATE);
    list_remove(p, i);
    list_front(p, i);
}

void state_pool_forget(state_pool *p, int32_t block) {
    const uint32_t i = state_pool_of(p, block);
    if (i == NO_STATE) return;
    detach(p, i);
    state_pool_give(p, i);
}

void state_pool_move(state_pool *p, int32_t from, int32_t to) {
    const uint32_t i = state_pool_of(p, from);
    if (i == NO_STATE) return;
    CHECK(p->of_block[to] == 0);
    p->of_block[from] = 0;
    p->of_block[to] = i + 1;
    p->slot[i].block = (uint32_t)to;
}

void state_pool_audit(const state_pool *p, uint32_t n_taken, const uint8_t *flags) {
    uint32_t n = 0, n_free = 0, n_blocks = 0, newer = NO_STATE;
    for (uint32_t i = p->free; i != NO_STATE; i = p->slot[i].older)
        CHECK(i < p->n_slots && ++n_free <= p->n_slots && p->slot[i].block == NO_STATE);
    for (uint32_t i = p->newest; i != NO_STATE; i = p->slot[i].older) {
        const state_slot *x = &p->slot[i];
        CHECK(i < p->n_slots && ++n <= p->n_slots && x->newer == newer);
        CHECK(x->block < p->n_blocks && p->of_block[x->block] == i + 1);
        CHECK(flags[x->block] & BLOCK_CACHED);
        newer = i;
    }
    for (uint32_t i = 0; i < p->n_blocks; i++) n_blocks += p->of_block[i] > 0;
    CHECK(p->oldest == newer && n == p->n_checkpoints && n_blocks == n && n_free == p->n_free);
    CHECK(n_taken + n + n_free == p->n_slots);
}
