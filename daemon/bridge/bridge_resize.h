/* Another budget while requests go on, between the loop thread, which wants it, and the engine
 * thread, which brings it about: piece after piece between steps, so that no step waits long.
 *
 * A smaller one: the scheduler empties the last blocks of each pool, then their pages go back. A
 * larger one: pages are populated, then the scheduler gets their blocks. What the plan says of the
 * KV cache follows, piece by piece: plan and ledger are equal at any time. */
#ifndef VRAMD_DAEMON_BRIDGE_RESIZE_H
#define VRAMD_DAEMON_BRIDGE_RESIZE_H

#include <uv.h>

#include "api/port.h"
#include "memory/plan.h"

struct bridge;

typedef struct resizing {
    /* Under the inbox's mutex: what is wanted. */
    uint64_t number; /* of the newest wish; 0: none yet */
    uint32_t blocks[PLAN_MAX_GROUPS];
    uint64_t budget_bytes;
    /* Under the statistics' mutex: what is done. */
    uint64_t done; /* number of the wish */
    status result;
    err why;
    uint32_t have[PLAN_MAX_GROUPS];
    /* Engine thread. */
    uint64_t taken, old_budget, goal_budget, began_us;
    uint32_t now[PLAN_MAX_GROUPS], goal[PLAN_MAX_GROUPS];
    bool active, drains;
    /* Loop thread. */
    plan plan; /* of the newest wish, until it is in force */
    bool pending;
    uint64_t target_bytes, smallest_bytes, n_resizes;
    resize_done *waiter;
    void *arg;
    uv_timer_t timer;
} resizing;

/* Loop thread. */
void resize_open(struct bridge *);
status resize_want(port *, uint64_t budget_bytes, resize_done *, void *arg, err *);
void resize_collect(struct bridge *); /* what the engine thread has done */
void resize_view(const struct bridge *, budget_view *out);
void resize_close(struct bridge *); /* its timer */

/* Engine thread. */
void resize_start(struct bridge *);
bool resize_go_on(struct bridge *); /* between steps; false: nothing is to be done */

#endif
