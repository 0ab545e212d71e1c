/* Work of requests on libuv's pool of threads, for the `offload` of a port. Loop thread, but for the
 * work itself. */
#ifndef VRAMD_DAEMON_OFFLOAD_H
#define VRAMD_DAEMON_OFFLOAD_H

#include <uv.h>

#include "memory/pool.h"

typedef struct offloads {
    uv_loop_t *loop;
    pool *pool; /* of requests: each piece of work takes a chunk meanwhile */
    void (*flushed)(void *);
    void *arg;
    uint32_t n; /* under way */
} offloads;

/* As port_ops.offload: work(arg) on a thread of the pool, then done(arg) and flushed on the loop
 * thread. False: there are too many, or no memory; nothing is called. */
bool offload_run(offloads *, void (*work)(void *), void (*done)(void *), void *arg);

#endif
