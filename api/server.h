/* The HTTP front end: libmicrohttpd in external epoll mode under a libuv loop. One thread. */
#ifndef VRAMD_API_SERVER_H
#define VRAMD_API_SERVER_H

#include <uv.h>

#include "api/port.h"
#include "api/server_options.h"

typedef struct server server;

/* Lists what the front end will hold: MHD's pool per connection, its own tables. */
void server_terms(const server_options *, terms *out);

/* All that server_open does but listening, and then undone: reads the file of keys, the
 * certificate and its key, resolves the host. Errors: those of server_open. */
status server_check(const server_options *, ledger *, err *);

/* Listens and answers from now on (503 with Retry-After where port says not ready).
 * Errors: ERR_INVALID and ERR_NOT_FOUND (field: the option), ERR_IO (address in use, ...),
 * ERR_NO_MEMORY. */
status server_open(server **out, uv_loop_t *, const server_options *, port *, err *);
/* Before the loop runs: several models in place of the one of server_open, whose port is from now
 * on that of the whole: readiness, memory, work on the pool of threads. Borrowed. */
struct served;
void server_serve(server *, struct served *several, uint32_t n);
uint16_t server_port(const server *);

/* The model is loaded: from now on /metrics shows the memory that it takes, and an inherited
 * socket is served. Until then another process may serve it, and connections wait in its queue. */
void server_loaded(server *);

/* Reads the file of keys and the certificate again, and tells the log. What has a mistake stays
 * as it was. */
void server_reload(server *);
/* Options in place of those of server_open, whose strings it borrows as well. What a socket or
 * memory was opened with stays: host, port, max_connections, max_body_bytes, the timeouts of
 * connections, the names of files. Errors: ERR_INVALID (cors_origins); then nothing has
 * changed. */
status server_configure(server *, const server_options *, err *);

/* The machine calls this once after it delivered a batch of events, so that resumed connections
 * are pumped once. */
void server_flush(server *);

/* The probes say that the server drains, and connections end with their answers; requests are
 * accepted as before, until server_drain. */
void server_leave(server *);

/* Stops accepting; streams go on. drained(arg) is called (once) when no request is left. At the
 * deadline the caller uses server_abort: open requests are cancelled and closed. */
void server_drain(server *, void (*drained)(void *), void *arg);
void server_abort(server *);
/* After drained. Closes its handles; run the loop once more afterwards. */
void server_close(server *);

#endif
