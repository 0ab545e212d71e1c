/* What a service manager sees of a running daemon: readiness, a line of status, a pulse for its
 * watchdog that stops when work is queued and nothing moves. Loop thread. */
#ifndef VRAMD_DAEMON_SUPERVISE_H
#define VRAMD_DAEMON_SUPERVISE_H

#include <uv.h>

#include "api/port.h"

typedef struct supervisor {
    uv_timer_t timer;
    port *port;
    uint64_t watchdog_us;
    char status[160]; /* as sent last */
} supervisor;

/* From now on the manager is told that loading goes on, then what runs. */
void supervisor_start(supervisor *, uv_loop_t *, port *);
void supervisor_ready(supervisor *);
void supervisor_stopping(supervisor *);
/* Closes its handle; run the loop once more afterwards. Not started: does nothing. */
void supervisor_close(supervisor *);

#endif
