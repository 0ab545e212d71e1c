/* Which replica of a fleet gets a request. Owns what it remembers; one thread. */
#ifndef VRAMD_SIM_ROUTER_H
#define VRAMD_SIM_ROUTER_H

#include "sim/fleet.h"

typedef struct router {
    const fleet_config *cfg;
    uint32_t next; /* round robin */
    uint64_t draws, known_until_us;
    uint32_t
        *seen; /* [n_replicas] loads as they were at the last look; NULL: without staleness */
    uint64_t *id;     /* [n_ids] of prompts, hashed, 0: empty ... */
    uint32_t *had_by; /* ... and the replica that had it last */
    size_t n_ids;     /* a power of two */
} router;

/* The arrivals: for the number of their ids. False: no memory; router_close in any case. */
bool router_open(router *, const fleet_config *, const fleet_arrival *, uint32_t n);
/* load: [n_replicas] now. */
uint32_t router_choose(router *, const fleet_arrival *, uint64_t now_us, const uint32_t *load);
void router_close(router *);

#endif
