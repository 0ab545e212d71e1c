/* DELETE /v1/cache between the loop thread, which wants it, and the engine thread, which forgets:
 * blocks at once, between two steps, files piece after piece, so that no step waits long. */
#ifndef VRAMD_DAEMON_BRIDGE_FORGET_H
#define VRAMD_DAEMON_BRIDGE_FORGET_H

#include "api/port.h"

struct bridge;

typedef struct forgetting {
    /* Under the inbox's mutex: what is wanted. */
    uint64_t number; /* of the newest wish; 0: none yet */
    bool all;
    uint64_t salt;
    /* Under the statistics' mutex: what is done. */
    uint64_t done; /* number of the wish */
    status result;
    err why;
    cache_forgotten what;
    /* Engine thread. */
    uint64_t taken;
    bool active;
    cache_forgotten sum;
    uint64_t n_left; /* files that could not be removed */
    /* Loop thread. */
    forget_done *waiter;
    void *arg;
} forgetting;

/* Loop thread. */
status forget_want(port *, const str *salt, forget_done *, void *arg, err *);
void forget_collect(struct bridge *); /* what the engine thread has done */

/* Engine thread. */
bool forget_go_on(struct bridge *); /* between steps; false: nothing is to be done */

#endif
