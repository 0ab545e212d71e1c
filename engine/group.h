/* A group: the ranks of one model (model/shard.h), processes of one machine, with the memory that they
 * share. Rank 0 posts steps (engine/tables.h), all compute them and meet wherever the program has an
 * OP_ALL_GATHER; what they have computed of a value lies in place for all.
 *
 *   head    group_head, then a group_rank for each
 *   note    what rank 0's process says to the others before they open the model
 *   step    the tables of the step
 *   values  those that OP_ALL_GATHER joins
 *   logits
 *
 * No wait is without an end: a rank that another misses for GROUP_DEADLINE_MS, or that says so itself,
 * breaks the group, which all its waits then report at once. A broken group does not mend.
 *
 * Threads: one of each process calls it. The memory outlives no process: nothing has a name. */
#ifndef VRAMD_ENGINE_GROUP_H
#define VRAMD_ENGINE_GROUP_H

#include <stdatomic.h>

#include "memory/ledger.h"
#include "model/program.h"

enum {
    GROUP_MAGIC = 0x47505256, /* "VRPG" */
    GROUP_VERSION = 1,
    GROUP_NOTE_BYTES = 32 << 10,
    GROUP_DEADLINE_MS = 5000,
    GROUP_MAX = 64 /* ranks */
};

/* What has which size, and where it lies then: all offsets follow from it. */
typedef struct group_shape {
    uint32_t n_ranks;
    uint64_t step_bytes, values_bytes, logits_bytes;
} group_shape;

typedef struct group_place {
    uint64_t ranks, note, step, values, logits, bytes; /* bytes: 0 where they exceed 2^63 */
} group_place;

group_place group_lay(const group_shape *);
/* Of a program of the CPU engine (engine/cpu/engine_cpu.c). Errors: as opening it. */
struct engine_options;
status cpu_group_shape(group_shape *, const program *, const struct engine_options *, err *);

typedef enum group_state { GROUP_LOADING, GROUP_READY, GROUP_FAILED } group_state;

/* Written by its own rank. */
typedef struct group_rank {
    _Alignas(64) atomic_uint met;   /* meetings that it has come to */
    _Alignas(64) atomic_uint state; /* group_state */
    err error;                      /* of GROUP_FAILED, or that broke the group */
    ledger_view memory;             /* as of the last step */
} group_rank;

/* Written by rank 0, but for broken and sleepers. */
typedef struct group_head {
    uint32_t magic, version;
    group_shape shape;
    char build[64];                  /* the version of vramd */
    _Alignas(64) atomic_uint posted; /* steps */
    uint64_t step_bytes;             /* of the one posted; 0: the group is to end */
    _Alignas(64) atomic_uint broken; /* 1 + the rank that found out */
    atomic_uint sleepers;
} group_head;

typedef struct group {
    unsigned char *base;
    group_place at;
    uint32_t rank, n_ranks;
    uint32_t met, posted;
    uint32_t deadline_ms;
    /* Called a few times a second while it waits for the next step, and while others load: false, the
     * other side has gone. */
    bool (*alive)(void *arg);
    void *arg;
} group;

static inline group_head *group_head_of(const group *g) {
    return (group_head *)(void *)g->base;
}
static inline group_rank *group_rank_of(const group *g, uint32_t rank) {
    return (group_rank *)(void *)(g->base + g->at.ranks) + rank;
}

/* Rank 0: writes the head into zeroed memory of group_lay(shape).bytes. */
void group_init(group *, void *base, const group_shape *, const char *build);
/* Another rank: memory of n bytes that another process wrote. Errors: ERR_UNAVAILABLE (another version or
 * build, or not such memory). */
status group_join(group *, void *base, uint64_t n, uint32_t rank, const char *build, err *);

/* All ranks come here; returns when they have. False: the group is broken. */
bool group_meet(group *);
/* Says that this rank cannot go on, and why. */
void group_break(group *, const err *why);
bool group_is_broken(const group *);
/* Why it is broken: what the rank that found out said, or that another did not answer. */
status group_error(const group *, err *);

/* Rank 0: a step of so many bytes stands in the memory. 0: the group ends. */
void group_post(group *, uint64_t bytes);
/* The other ranks: waits for one. Bytes of it; 0: the group is to end, or is broken. */
uint64_t group_await(group *);

/* Says how this rank's loading ended. e: of GROUP_FAILED. */
void group_say(group *, group_state, const err *e);
/* Rank 0: waits until all others are ready. Errors: theirs; ERR_UNAVAILABLE (a rank ended). */
status group_await_ready(group *, err *);

#endif
