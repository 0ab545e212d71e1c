/* How fast this machine reads its memory: measured, for the choice between copying weights to a device and
 * computing with them here. */
#ifndef VRAMD_DAEMON_PLAN_HOST_RATE_H
#define VRAMD_DAEMON_PLAN_HOST_RATE_H

#include <stdint.h>

/* Bytes per second of so many threads (up to 256) that read 256 MiB together, `most` bytes if that is less (a
 * budget), which are given back; takes a second at most on slow machines. 0: there is no memory for that. */
double host_rate_measure(uint32_t n_threads, uint64_t most);

#endif
