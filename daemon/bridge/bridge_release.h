/* Giving cached KV blocks back to the system, and taking them again: when the kernel reports memory
 * pressure (memory_pressure = psi), and when no request has run for a while (idle_release).
 * memory/release.h decides which budget is right; bridge_resize.h brings it about. Loop thread. */
#ifndef VRAMD_DAEMON_BRIDGE_RELEASE_H
#define VRAMD_DAEMON_BRIDGE_RELEASE_H

#include <uv.h>

#include "api/port.h"
#include "daemon/pressure.h"
#include "memory/release.h"

struct bridge;

typedef enum release_cause { RELEASE_NONE, RELEASE_PRESSURE, RELEASE_IDLE } release_cause;

typedef struct releasing {
    release state;
    const pressure *source; /* NULL: memory_pressure = off; borrowed */
    uv_poll_t poll;
    uv_timer_t grow, idle;
    /* The change that was begun last, until it is in force. */
    bool changing, pressed; /* pressed: an event came since it began */
    release_cause cause;    /* of bytes that it gives back */
    uint64_t asked, kv_before;
    uint64_t n_events, pressure_bytes, idle_bytes; /* since the start */
} releasing;

void release_open(struct bridge *);
/* Watches for pressure from now on, until release_close. */
status release_watch(struct bridge *, const pressure *, err *);
/* The port's resize: the operator's budget. */
status release_resize(port *, uint64_t budget_bytes, resize_done *, void *arg, err *);
void release_busy(struct bridge *);    /* a request has come */
void release_rest(struct bridge *);    /* none is left, or the server is ready */
void release_collect(struct bridge *); /* after resize_collect */
void release_view(const struct bridge *, budget_view *out);
void release_close(struct bridge *); /* its handles */

#endif
