/* The service manager's side of the daemon: readiness, status and watchdog messages, and
 * sockets handed over. The protocols are those of sd_notify(3), sd_watchdog_enabled(3) and
 * sd_listen_fds(3): a datagram to $NOTIFY_SOCKET, descriptors from 3 on. Without a manager
 * every call does nothing. Loop thread. */
#ifndef VRAMD_DAEMON_NOTIFY_H
#define VRAMD_DAEMON_NOTIFY_H

#include <stdint.h>

#include "base/err.h"

/* Sends lines like "READY=1\nSTATUS=...". What is lost is lost: a manager that cannot be
 * reached is no reason to stop serving. */
void notify_send(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Within so many microseconds WATCHDOG=1 must be sent each time; 0: nobody watches. */
uint64_t notify_watchdog_us(void);
/* The listening socket that the manager has opened for us; *fd is -1 without one. Errors:
 * ERR_INVALID (more than one, or not a listening stream socket; field LISTEN_FDS). */
status notify_listen_fd(int *fd, err *e);

#endif
