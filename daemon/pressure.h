/* Where memory pressure is reported: a trigger of the kernel's pressure stall information (PSI).
 *
 * In this order: the file that the service manager names in $MEMORY_PRESSURE_WATCH (systemd's
 * protocol: a file of the kernel's, or a FIFO that becomes readable), memory.pressure of the cgroup
 * in /proc/self/cgroup, /proc/pressure/memory. Where one is missing or may not be written the next
 * is tried, but not after a name that was given. */
#ifndef VRAMD_DAEMON_PRESSURE_H
#define VRAMD_DAEMON_PRESSURE_H

#include <stdbool.h>

#include "base/err.h"

typedef struct pressure {
    int fd;          /* -1: none */
    bool fifo;       /* readable, not prioritised; what came is to be read */
    char path[1100]; /* of its file */
} pressure;

/* Opens a trigger: an event, at most one in 2 s, when some task waited for memory for 100 ms of
 * 2 s. Errors: ERR_UNSUPPORTED (the kernel has none; hint: the remedy), ERR_IO (the trigger is
 * refused), ERR_INVALID (a name that cannot be watched); field memory_pressure. */
status pressure_open(pressure *, err *);
/* Reads what a FIFO has. */
void pressure_read(const pressure *);
void pressure_close(pressure *); /* zeroed or fd -1 is fine: descriptor 0 is never one */

#endif
