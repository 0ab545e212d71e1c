/* Slots for recurrent states as integers. A slot is taken (a sequence's own, or the place where a
 * step in flight writes a checkpoint), a checkpoint, or free.
 *
 * A checkpoint is the state behind a full block of a text and is attached to that block of the chain
 * group (prefix.h): it is found by the block, and is lost with it. Checkpoints have an order of use of
 * their own; the least recently used one goes when a slot is taken and none is free.
 *
 * Owns nothing: arrays come from the scheduler's region. Engine thread. */
#ifndef VRAMD_SCHEDULER_STATE_POOL_H
#define VRAMD_SCHEDULER_STATE_POOL_H

#include <stdbool.h>
#include <stdint.h>

#define NO_STATE UINT32_MAX

/* block: what a checkpoint is attached to, NO_STATE for the others. newer, older: neighbours among
 * checkpoints; of a free slot: older is the next free one. */
typedef struct state_slot {
    uint32_t block, newer, older;
} state_slot;

typedef struct state_pool {
    uint32_t n_slots, n_blocks;
    uint32_t n_free, n_checkpoints;
    uint32_t free, newest, oldest;
    uint64_t n_attached; /* ever */
    state_slot *slot;    /* [n_slots] */
    uint32_t *of_block;  /* [n_blocks] slot + 1; 0: the block has no checkpoint */
} state_pool;

/* n_slots, n_blocks and the arrays are set. All slots become free; slot 0 is taken first. */
void state_pool_init(state_pool *);
/* A free slot, or that of the checkpoint used least recently. CHECKs that there is one. *evicted: it
 * was a checkpoint. */
uint32_t state_pool_take(state_pool *, bool *evicted);
void state_pool_give(state_pool *, uint32_t slot); /* a taken one becomes free */
/* A taken slot becomes the checkpoint of a block, the one used most recently. CHECKs that the block
 * has none. */
void state_pool_attach(state_pool *, uint32_t slot, int32_t block);
void state_pool_use(state_pool *, uint32_t slot); /* a checkpoint: the one used most recently */
/* The checkpoint of a block that is not found any more, if it has one, becomes free. */
void state_pool_forget(state_pool *, int32_t block);
/* What was block from is block to, which has no checkpoint. */
void state_pool_move(state_pool *, int32_t from, int32_t to);
/* CHECKs lists and counts. n_taken: slots that sequences and steps have. flags: of the blocks; one with
 * a checkpoint is cached. */
void state_pool_audit(const state_pool *, uint32_t n_taken, const uint8_t *flags);

/* The checkpoint of a block, or NO_STATE. */
static inline uint32_t state_pool_of(const state_pool *p, int32_t block) {
    return p->of_block[block] - 1;
}

#endif
