/* Which experts of a mixture are in memory, where not all are: a fixed number of slots, each of which
 * holds one expert of one layer, and the choice of the one that gives way. Pure: no I/O, no clock, no
 * allocation; one thread. */
#ifndef VRAMD_ENGINE_EXPERT_SLOTS_H
#define VRAMD_ENGINE_EXPERT_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXPERT_READERS = 8 }; /* threads that read experts into slots */
static const uint32_t EXPERT_NONE = UINT32_MAX;

typedef struct expert_slots {
    uint32_t n_layers, n_experts, n_slots; /* layers with experts; experts of one, at most */
    uint32_t *where;                       /* [n_layers][n_experts]: slot, or EXPERT_NONE */
    uint32_t *holds; /* [n_slots]: layer * n_experts + expert, or EXPERT_NONE */
    uint32_t *pins;  /* [n_slots] */
    double *worth;   /* [n_layers][n_experts]: log2 of the sum of expert_victim, as of turn 0 */
    uint64_t *last;  /* [n_layers][n_experts]: the turn of its last use */
    uint64_t *turns; /* [n_layers]: steps that the layer has been in */
} expert_slots;

size_t expert_slots_bytes(uint32_t n_layers, uint32_t n_experts, uint32_t n_slots);
/* mem: as many bytes, aligned as malloc does. All slots are empty. */
void expert_slots_init(expert_slots *, void *mem, uint32_t n_layers, uint32_t n_experts,
                       uint32_t n_slots);

/* A step has come to a layer, some of whose rows go to these experts. */
void expert_slots_turn(expert_slots *, uint32_t layer, const uint32_t *experts, uint32_t n);

static inline uint32_t expert_slots_find(const expert_slots *s, uint32_t layer,
                                         uint32_t expert) {
    return s->where[(size_t)layer * s->n_experts + expert];
}

/* The slot that gives way, if any must: an empty one, or of those without a pin the one whose expert is
 * worth least:
 *
 *     sum over its uses of 2^(-age / EXPERT_HALF_LIFE)  +  EXPERT_AGAIN * 2^(-age of the last)
 *
 * with ages in turns of its layer: how often it is used, and that what was just used is likely to be used
 * again. tests/engine/test_expert_slots.c compares the hits with other rules'. EXPERT_NONE: all slots have
 * pins. */
enum { EXPERT_HALF_LIFE = 32, EXPERT_AGAIN = 8 };
uint32_t expert_victim(const expert_slots *);

/* Gives an expert that has no slot the victim's. EXPERT_NONE: all have pins. */
uint32_t expert_slots_take(expert_slots *, uint32_t layer, uint32_t expert);
/* What the slot holds is void: its reading failed. */
void expert_slots_forget(expert_slots *, uint32_t slot);

#endif
