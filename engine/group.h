/* A group: the ranks of one model (model/shard.h), processes with memory in common. Rank 0 posts steps
 * (engine/tables.h), all compute them. Ranks of one stage meet wherever the program has an OP_ALL_GATHER; what
 * they have computed of a value lies in place for all of them. Between stages the first rank of one says how
 * many steps it has sent, and those of the next wait for that.
 *
 * Ranks of one machine map the same memory. Ranks of several have each a copy of what they use of it, laid
 * out the same, and messages carry into it what others write (engine/link.h): a group_transport is the
 * difference.
 *
 *   head    group_head, then a group_rank for each
 *   note    what rank 0's process says to the others before they open the model
 *   step    the tables of a step, for each step in flight
 *   stages  of each stage: the values that OP_ALL_GATHER joins; for each step in flight those of OP_SEND
 *   logits  for each step in flight
 *
 * Rank r is rank r % (n_ranks / n_stages) of stage r / (n_ranks / n_stages). Step n has the places of step
 * n + depth: rank 0 posts that one once it has the logits of n, which stand at the end of all that the
 * other ranks do with places of n.
 *
 * No wait is without an end. A rank that does nothing for GROUP_DEADLINE_MS while another misses it (it
 * counts its operations, and looks around while it waits itself), or that says so itself, breaks the group,
 * which all its waits then report at once. A broken group does not mend.
 *
 * Threads: one of each process calls it, but for group_break and what only reads. The memory outlives no
 * process: nothing has a name. */
#ifndef VRAMD_ENGINE_GROUP_H
#define VRAMD_ENGINE_GROUP_H

#include <stdatomic.h>

#include "memory/ledger.h"
#include "model/program.h"
#include "engine/wire.h"

enum {
    GROUP_MAGIC = 0x47505256, /* "VRPG" */
    GROUP_VERSION = 3,
    GROUP_WORD_BYTES = 128, /* what rank 0 gives by group_exchange, at most */
    GROUP_NOTE_BYTES = 32 << 10,
    GROUP_DEADLINE_MS = 5000,
    GROUP_MAX = 64, /* ranks */
    GROUP_MESSAGE_BYTES = 32 << 10,
    GROUP_BUFFER_BYTES =
        (WIRE_SLOTS + 1) * GROUP_MESSAGE_BYTES, /* to send, and one to receive */
    GROUP_MAX_DEPTH = 2
};

/* What has which size, and where it lies then: all offsets follow from it. */
typedef struct group_shape {
    uint32_t n_ranks, n_stages;        /* n_ranks: of all stages */
    uint32_t depth;                    /* steps in flight: 1 or 2 */
    uint32_t by_messages;              /* 1: each rank has a copy of its own */
    uint64_t step_bytes, logits_bytes; /* of a step */
    struct {
        uint64_t values_bytes, sent_bytes; /* sent: to the next stage, in a step */
    } stage[GROUP_MAX];
} group_shape;

typedef struct group_place {
    uint64_t ranks, note, step, stages, logits, bytes; /* bytes: 0 where they exceed 2^63 */
    uint64_t step_bytes, logits_bytes;                 /* from one step's to the next's */
} group_place;

/* The places of a stage. */
typedef struct group_region {
    uint64_t values, sent, end;
    uint64_t sent_bytes; /* from one step's to the next's */
} group_region;

group_place group_lay(const group_shape *);
group_region group_region_of(const group_shape *, uint32_t stage);
/* What a rank uses of the memory, in pages: steps and notes, the values of its stage, those that it receives,
 * logits; from = to: none of it. */
enum { GROUP_PARTS = 4 };
typedef struct group_part {
    uint64_t from, to;
    mem_class cls;
} group_part;
void group_parts(const group_shape *, uint32_t rank, group_part out[GROUP_PARTS]);
/* What a rank's messages take beside its copy: buffers, and rank 0's copy of the steps that went. */
uint64_t group_message_bytes(const group_shape *, uint32_t rank);
/* Bytes of the group's memory that are counted as a rank's. Where all map one memory: what a stage has as its
 * first rank's, the rest as rank 0's. By messages: the rank's parts, and what the messages take. */
uint64_t group_share(const group_shape *, uint32_t rank, mem_class);
/* Of a program of the CPU engine (engine/cpu/engine_cpu.c): what all stages have alike, and its stage's sizes.
 * Errors: as opening it. */
struct engine_options;
status cpu_group_shape(group_shape *, const program *, const struct engine_options *, err *);

typedef enum group_state { GROUP_LOADING, GROUP_READY, GROUP_FAILED } group_state;

/* Written by its own rank. */
typedef struct group_rank {
    _Alignas(64) atomic_uint met;   /* meetings that it has come to */
    atomic_uint sent;               /* the first of a stage: steps that the stage has sent */
    _Alignas(64) atomic_uint beat;  /* counts while it does anything */
    atomic_uint took;               /* what rank 0 has given */
    _Alignas(64) atomic_uint state; /* group_state */
    err error;                      /* of GROUP_FAILED, or that broke the group */
    ledger_view memory;             /* as of the last step */
} group_rank;

/* Written by rank 0, but for broken and sleepers. */
typedef struct group_head {
    uint32_t magic, version;
    group_shape shape;
    char build[64];                       /* the version of vramd */
    _Alignas(64) atomic_uint posted;      /* steps */
    uint64_t step_bytes[GROUP_MAX_DEPTH]; /* of each one in flight; 0: the group is to end */
    _Alignas(64) atomic_uint broken;      /* 1 + the rank that found out */
    atomic_uint sleepers;
    atomic_uint given;
    unsigned char word[GROUP_WORD_BYTES];
} group_head;

/* Which ranks: the others of the stage; the first of the stage; those of the next stage, after the last one
 * rank 0; all others. */
typedef enum group_whom { GROUP_STAGE, GROUP_FIRST, GROUP_NEXT, GROUP_ALL } group_whom;
/* Words that ranks wait for. */
typedef enum group_word {
    GROUP_MET,
    GROUP_SENT,
    GROUP_POSTED,
    GROUP_STATE,
    GROUP_BROKEN
} group_word;

/* How ranks reach each other. */
struct group;
typedef struct group_transport {
    /* This rank has written n_rows of row_bytes to the memory, each `stride` bytes after the one before. Those
     * ranks see it once they see a word that is said after it. */
    void (*put)(struct group *, group_whom, const void *at, uint32_t n_rows, uint64_t row_bytes,
                uint64_t stride);
    /* This rank has set such a word, which those ranks wait for. */
    void (*say)(struct group *, group_word, group_whom, atomic_uint *word);
    /* Between two looks at a word of which one waits ... */
    void (*pause)(struct group *);
    /* ... and once spin_ns have passed: until it is no longer old, for slice_ms at most. */
    void (*sleep)(struct group *, atomic_uint *word, unsigned old, uint32_t slice_ms);
    uint32_t spin_ns;
} group_transport;

typedef struct group {
    unsigned char *base;
    const group_transport *via;
    void *link; /* of via */
    group_place at;
    group_region own,
        before; /* of the rank's stage; of the one that sends to it, if it is not the first */
    uint32_t rank, n_ranks;
    uint32_t stage, n_stages, first, n_peers; /* ranks of the stage: [first, first + n_peers) */
    uint32_t depth;
    uint32_t met, posted, sent;
    uint32_t deadline_ms;
    struct { /* group_look, of a wait */
        uint64_t at_ns;
        uint32_t beat[GROUP_MAX], still_ms[GROUP_MAX];
    } look;
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

/* Where step number n of those posted, from 1 on, has its tables and its logits; what the stage sends of it,
 * and receives. */
static inline uint32_t group_slot(const group *g, uint32_t n) {
    return (n - 1) % g->depth;
}
static inline void *group_step_at(const group *g, uint32_t n) {
    return g->base + g->at.step + group_slot(g, n) * g->at.step_bytes;
}
static inline void *group_logits_at(const group *g, uint32_t n) {
    return g->base + g->at.logits + group_slot(g, n) * g->at.logits_bytes;
}
static inline unsigned char *group_sent_at(const group *g, uint32_t n) {
    return g->base + g->own.sent + group_slot(g, n) * g->own.sent_bytes;
}
static inline unsigned char *group_received_at(const group *g, uint32_t n) {
    return g->base + g->before.sent + group_slot(g, n) * g->before.sent_bytes;
}

/* What of the memory counts as this rank's (group_share): into its ledger, as planned, or out of it. */
void group_count(const group *, ledger *, bool take);
/* Has the pages of this rank's parts of the memory there, so that none is missing later. */
void group_populate(const group *);

/* Numbers of ranks, stages and steps that can be: what comes from elsewhere is checked. */
bool group_is_shape(const group_shape *);
/* Rank 0, or by messages any: writes the head into zeroed memory of group_lay(shape).bytes. */
void group_init(group *, void *base, const group_shape *, uint32_t rank, const char *build);
/* Another rank: memory of n bytes that another process wrote. Errors: ERR_UNAVAILABLE (another version or
 * build, or not such memory). */
status group_join(group *, void *base, uint64_t n, uint32_t rank, const char *build, err *);

/* This rank has written so many rows of floats, each `stride` floats after the one before, of what those ranks
 * read once they have met, or received it. */
void group_put(group *, group_whom, const float *at, uint32_t n_rows, uint32_t n_cols,
               uint32_t stride);
/* All ranks of the stage come here; returns when they have. False: the group is broken. */
bool group_meet(group *);
/* The first of a stage: what the stage sends of its next step stands in place. */
void group_send(group *);
/* Returns when a stage has sent step n. False: the group is broken. */
bool group_receive(group *, uint32_t stage, uint32_t n);
/* Once for each operation: the rank is at work. */
static inline void group_beat(group *g) {
    atomic_uint *beat = &group_rank_of(g, g->rank)->beat;
    atomic_store_explicit(beat, atomic_load_explicit(beat, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}
/* Ranks that map one memory, while they load, once: n bytes, at most GROUP_WORD_BYTES, become rank 0's everywhere, and rank 0 returns when the
 * others have them. False: the group is broken, or the other side has gone. */
bool group_exchange(group *, void *bytes, uint64_t n);
/* For a rank that waits for its device, which waits for other ranks' devices: to be called again and again, first when the
 * wait begins. Says that this rank is at work, and returns false once the group is broken or another
 * has done nothing for the deadline. */
bool group_look(group *, bool first);
/* Says that this rank cannot go on, and why. */
void group_break(group *, const err *why);
bool group_is_broken(const group *);
/* Why it is broken: what the rank that found out said, or that another did not answer. */
status group_error(const group *, err *);

/* Rank 0: step number g->posted + 1 of so many bytes stands in the memory, and is g->posted then. 0: the
 * group ends. */
void group_post(group *, uint64_t bytes);
/* The other ranks: waits for that step, which is g->posted then. Bytes of it; 0: the group is to end, or is
 * broken. */
uint64_t group_await(group *);

/* Says how this rank's loading ended. e: of GROUP_FAILED. */
void group_say(group *, group_state, const err *e);
/* Rank 0: waits until all others are ready. Errors: theirs; ERR_UNAVAILABLE (a rank ended). */
status group_await_ready(group *, err *);

#endif
