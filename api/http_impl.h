/* What the files http*.c share. No other file includes this. */
#ifndef VRAMD_API_HTTP_IMPL_H
#define VRAMD_API_HTTP_IMPL_H

#include <sys/epoll.h>
#include <gnutls/abstract.h>
#include <microhttpd.h>
#include <uv.h>

#include "api/http.h"
#include "api/server.h"

typedef struct http_tls http_tls;
typedef struct http_identity http_identity; /* a certificate with its key */

typedef struct http_conn { /* one slot of the table */
    struct MHD_Connection *mhd;
    int fd;
    bool open, bad_uri;
    bool half_closed;              /* the client will send no more */
    bool served;                   /* has had an answer */
    uint64_t idle_since_us;        /* without a request: since it came, or since the last one */
    const char *uri, *uri_end;     /* in libmicrohttpd's buffer, of the request in progress */
    uint64_t deadline_us;          /* 0: none; then the connection is shut down */
    http_private *rq;              /* in progress, or NULL */
    http_tls *tls;                 /* NULL: plain HTTP */
    http_identity *identity;       /* of its handshake, or NULL */
    struct http_conn *prev, *next; /* open: a ring; free: a stack by next */
} http_conn;

enum { MAX_SET_HEADERS = 12 };

typedef enum http_phase {
    PHASE_BODY,   /* collecting, or discarding what is refused */
    PHASE_RUN,    /* the app works */
    PHASE_ANSWER, /* status, type and payload are set, to be queued */
    PHASE_QUEUED  /* libmicrohttpd sends */
} http_phase;

struct http_private {
    http_request pub;
    http *h;
    http_conn *conn; /* NULL once HTTP is done */
    http_phase phase;
    bool suspended, watched, ended, in_flight, no_memory;
    bool stream; /* the answer is one */
    bool lines;  /* a stream without heartbeats */
    bool early;  /* a stream that a heartbeat has begun, and not yet the app */
    buf body, out;
    size_t out_at; /* out before this was handed over */
    uint64_t last_byte_us;
    const char *type;
    str payload;
    struct {
        const char *name, *value;
    } header[MAX_SET_HEADERS];
    unsigned n_headers;
    char retry_after[12];
};

struct http {
    struct MHD_Daemon *mhd;
    http_app app;
    server_options opt;
    http_tls *tls; /* NULL: plain HTTP */
    uint16_t port;
    char unix_path[108]; /* "" unless we made it */
    ino_t unix_inode;    /* another process may have put its own there since */
    ledger *ledger;
    pool *pool;
    void *table_memory;
    http_conn *table;
    http_conn *unused;
    http_conn ring; /* head of the open connections */
    uint32_t n_open, n_requests;
    uint32_t n_closed; /* since the heap was trimmed */
    int watch_fd, listen_fd;
    uv_poll_t mhd_poll, watch_poll;
    uv_timer_t pump_timer, tick, app_tick;
    uv_idle_t again;
    uint32_t n_handles; /* still to be closed */
    bool pumping, dirty, accepting, leaving, draining, idle_told;
    bool progress;                  /* a callback of libmicrohttpd was called */
    struct MHD_Response *no_memory; /* a ready-made 503 */
};

/* http_listen.c */
/* Whether there can be such an address; nothing is bound. */
status http_listen_check(const server_options *, err *);
status http_listen(const server_options *, int *fd, uint16_t *port, char unix_path[108], err *);

/* http_tls.c */
status http_tls_open(http_tls **out, const server_options *, err *);
/* Reads certificate and key again, for the handshakes to come; on an error nothing changes. */
status http_tls_load(http_tls *, const server_options *, err *);
void http_tls_close(http_tls *); /* after the daemon; NULL is ignored */
/* For a connection that has just come: its handshake will look for the certificate. */
void http_tls_attach(http_tls *, http_conn *);
void http_tls_detach(http_conn *); /* it is closed */
gnutls_certificate_retrieve_function3 http_tls_certificate;

/* http.c */
void http_pump(http *);

/* http_request.c */
enum MHD_Result http_on_request(void *cls, struct MHD_Connection *, const char *url,
                                const char *method, const char *version, const char *data,
                                size_t *n_data, void **ctx);
void http_on_completed(void *cls, struct MHD_Connection *, void **ctx,
                       enum MHD_RequestTerminationCode);
/* http_left for its request from now on, and now if the client has closed its half already. */
/* op: EPOLL_CTL_ADD or EPOLL_CTL_MOD. */
static inline void http_watch(http *h, http_conn *c, int op) {
    struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = c};
    epoll_ctl(h->watch_fd, op, c->fd, &ev);
}
void http_left(http_private *); /* the client has gone */
void http_beat(http_private *); /* a heartbeat; begins the stream where the app has not */

#endif
