/* How much of its budget a server uses: all of it, less what the kernel's memory pressure or
 * idleness made it give back. A decision from events and their times; pure, no clock. The caller
 * brings the budget about: it gives back blocks of the KV cache that no sequence holds.
 *
 * Pressure: each event takes half of what is not needed. When no event came for a while, the
 * budget grows by a quarter of what is missing, and again. Pressure that comes back soon after
 * that doubles the time until the next growth, so that a machine that has not enough for both
 * settles. Idleness takes all that can go, and the next request takes it back at once. */
#ifndef VRAMD_MEMORY_RELEASE_H
#define VRAMD_MEMORY_RELEASE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    RELEASE_CALM_S = 10,       /* without an event before the first growth ... */
    RELEASE_CALM_MOST_S = 640, /* ... and after it came back again and again */
    RELEASE_GROW_S = 5,        /* between two growths */
    RELEASE_RELAPSE_S = 60     /* an event so soon after a growth: it was too early */
};
/* The least that is given back or taken at once, where there is as much. */
#define RELEASE_PIECE ((uint64_t)16 << 20)

typedef struct release {
    uint64_t full;     /* bytes of the budget that the operator set */
    uint64_t level;    /* what pressure leaves of it; full: all */
    uint64_t idle;     /* what idleness leaves of it; 0: not idle */
    uint64_t calm_us;  /* that must pass without an event before it grows */
    uint64_t grow_us;  /* when it grows next; 0: it does not */
    uint64_t grown_us; /* when it grew last; 0: never */
} release;

/* The operator's budget, at start and whenever it changes: pressure and idleness are forgotten. */
void release_set(release *, uint64_t full);
/* An event of pressure. held: bytes that the plan has now; need: those it must have, for what runs. */
void release_on_pressure(release *, uint64_t now_us, uint64_t held, uint64_t need);
/* When to call release_grow; UINT64_MAX: never. */
uint64_t release_next_us(const release *);
bool release_grow(release *, uint64_t now_us); /* false: it was too early, nothing changes */
/* The system refused to give more than have bytes: as after an event. */
void release_on_refusal(release *, uint64_t now_us, uint64_t have);
void release_on_idle(release *, uint64_t least); /* least: bytes of the smallest budget */
void release_on_request(release *);
/* The budget that is right now. */
uint64_t release_wanted(const release *);

#endif
