/* What serving takes besides the engine, from the options: plan, serve and serve --check build
 * it here and nowhere else, so that they cannot disagree. Pure. */
#ifndef VRAMD_DAEMON_SERVING_H
#define VRAMD_DAEMON_SERVING_H

#include "api/server.h"
#include "daemon/machine.h"

/* The front end's part of the options. Borrows their strings; listen_fd is -1. */
server_options server_options_of(const options *);

/* A machine_wish.extra: the terms of the bridge, of the pool of requests and of the front end.
 * arg is not used. */
void serving_terms(void *arg, const machine *, terms *);

#endif
