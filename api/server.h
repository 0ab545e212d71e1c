/* The HTTP front end: libmicrohttpd in external epoll mode under a libuv loop. One thread. */
#ifndef VRAMD_API_SERVER_H
#define VRAMD_API_SERVER_H

#include <uv.h>

#include "api/port.h"

typedef struct server server;

typedef struct server_options {
    const char *host; /* address or name to bind; "unix:/path" for a Unix socket */
    uint16_t port;    /* 0: any; see server_port */
    int listen_fd;    /* >= 0: already listening (socket activation); host and port unused */
    uint32_t max_connections, max_body_bytes;
    uint32_t idle_timeout_s, header_timeout_s, body_timeout_s, heartbeat_s;
    uint32_t request_timeout_s; /* of a request that names none, and the most; 0: none */
    uint32_t stream_credits;    /* tokens a slow reader may be behind */
    bool log_requests;
    const char *api_keys_file;      /* "" or NULL: none */
    bool metrics_auth;              /* /metrics needs a key too */
    const char *tls_cert, *tls_key; /* PEM files; "" or NULL: plain HTTP */
    const char *cors_origins;       /* whose pages may ask: origins, or "*" (api/cors.h) */
} server_options;

/* Lists what the front end will hold: MHD's pool per connection, its own tables. */
void server_terms(const server_options *, terms *out);

/* All that server_open does but listening, and then undone: reads the file of keys, the
 * certificate and its key, resolves the host. Errors: those of server_open. */
status server_check(const server_options *, ledger *, err *);

/* Listens and answers from now on (503 with Retry-After where port says not ready).
 * Errors: ERR_INVALID and ERR_NOT_FOUND (field: the option), ERR_IO (address in use, ...),
 * ERR_NO_MEMORY. */
status server_open(server **out, uv_loop_t *, const server_options *, port *, err *);
uint16_t server_port(const server *);

/* Reads the file of keys and the certificate again, and tells the log. What has a mistake stays
 * as it was. */
void server_reload(server *);
/* What can change while it serves: log_requests, request_timeout_s, metrics_auth, cors_origins.
 * Errors: ERR_INVALID (cors_origins); then nothing has changed. */
status server_configure(server *, const server_options *, err *);

/* The machine calls this once after it delivered a batch of events, so that resumed connections
 * are pumped once. */
void server_flush(server *);

/* Stops accepting; streams go on. drained(arg) is called (once) when no request is left. At the
 * deadline the caller uses server_abort: open requests are cancelled and closed. */
void server_drain(server *, void (*drained)(void *), void *arg);
void server_abort(server *);
/* After drained. Closes its handles; run the loop once more afterwards. */
void server_close(server *);

#endif
