/* HTTP/1.1 by libmicrohttpd in external epoll mode under a uv loop: connections, bodies,
 * answers, event streams, deadlines, disconnects. Knows nothing of endpoints. Loop thread only.
 *
 * Life of a request:
 *   1. begin(rq): the headers are here. It may refuse at once; otherwise the body is collected.
 *   2. run(rq): the body is here too. An answer or a stream follows, now or later; until then
 *      the connection sleeps.
 *   3. gone(rq), if the client leaves (or the server aborts) before the last byte: stop
 *      working.
 *   4. done(rq): HTTP has no more to do with it. Memory lives on until the last http_unref.
 * A request holds one reference for HTTP; other code that works on its behalf takes another. */
#ifndef VRAMD_API_HTTP_H
#define VRAMD_API_HTTP_H

#include "api/errors.h"
#include "memory/ledger.h"
#include "memory/pool.h"

struct uv_loop_s;
struct server_options;

typedef struct http http;
typedef struct http_private http_private;

typedef enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_OPTIONS,
    HTTP_PUT,
    HTTP_DELETE,
    HTTP_OTHER
} http_method;

typedef struct http_request {
    arena mem; /* everything of this request */
    http_method method;
    str method_name, path; /* path: decoded, without the query */
    str body;
    const char *id; /* X-Request-Id: echoed, or made */
    uint64_t began_us;
    int status;          /* of the answer; 0: none yet */
    uint64_t n_sent;     /* bytes of the body that left */
    const char *refusal; /* why it was refused, for the log; NULL: it was not */
    bool gone;           /* the client has left */
    bool lent;           /* mem is with another thread: the loop must not touch it */
    bool streaming;      /* http_stream or http_stream_lines was called */
    bool beats;        /* the app's: events will follow, and heartbeats may come before them */
    bool cross_origin; /* the app's: of a page that may read the answer */
    uint32_t refs;
    const error_form *errors;  /* the app's: of the route; NULL: OpenAI's */
    void *user;                /* the app's */
    const struct json_t *json; /* the app's: the body, parsed (app_body) */
    uint32_t n_stripped;       /* the app's: lines of the system prompt that were left out */
    struct tenant *tenant;     /* the app's: whose key came with it, or NULL */
    struct served *served;     /* the app's: the model that it is for */
    struct held_request *held; /* the app's: waits for that; NULL: does not */
    bool entered;              /* the app's: counts among the model's users */
    struct live_stream *live;  /* the app's: the stream of the account that it is, or NULL */
    http_private *priv;
} http_request;

typedef struct http_app {
    void *self;
    void (*begin)(void *self, http_request *);
    void (*run)(void *self, http_request *);
    void (*gone)(void *self, http_request *);
    void (*abort)(void *self, http_request *); /* between run and the last byte: fail it now */
    void (*sent)(void *self, http_request *);  /* all that was appended is with the kernel */
    void (*done)(void *self, http_request *);
    void (*freed)(void *self, http_request *); /* no code holds a reference any more */
    double (*retry_after_s)(void *self);
    void (*idle)(void *self); /* draining, and the last request is freed: called once */
    void (*tick)(void *self); /* as often as http_every says */
} http_app;

/* Of libmicrohttpd: "0.9.75". */
const char *http_library_version(void);

/* Bytes to reserve in the ledger: once for the table, and for each connection. */
uint64_t http_table_bytes(uint32_t max_connections);
enum { HTTP_POOL_BYTES = 16 * 1024, HTTP_MAX_HEADER_BYTES = 8 * 1024 };
/* Beside the pool: libmicrohttpd's record of a connection, a response with its headers, the
 * header of a mapping. Measured with 5,000 idle streams (tests/e2e/test_hostile.py). */
enum { HTTP_RECORD_BYTES = 3 * 1024, HTTP_CONN_BYTES = HTTP_POOL_BYTES + HTTP_RECORD_BYTES };
/* With TLS: measured, 15 KB of a session, and a record in hand. */
enum { HTTP_TLS_BYTES = 32 * 1024 };

/* The certificate and the host, as http_open will use them; nothing is bound. */
status http_check(const struct server_options *, err *);
status http_open(http **out, struct uv_loop_s *, const struct server_options *,
                 const http_app *, ledger *, pool *, err *);
uint16_t http_port(const http *); /* 0: a Unix socket */
void http_flush(http *);          /* pumps once, if anything was woken since */
/* Reads the certificate again, where there is one. */
status http_reload(http *, err *);
/* A socket of its own is served from http_open on. An inherited one is from this call on: another
 * process may serve it until then. */
void http_accept(http *);
/* From now on connections end with their answers; an inherited socket is left to its next process. */
void http_leave(http *);
/* And no more are accepted, after those that have waited in the queue of a socket of its own. The
 * app is idle when those, too, have sent their first request, or none for a second. */
void http_drain(http *);
void http_abort(http *);
void http_close(http *); /* no request may be open */
uint32_t http_n_connections(const http *);

/* Whether the client is this machine, as far as its socket says: a Unix socket, or a loopback address.
 * A proxy here looks the same. Valid in begin and run only. */
bool http_from_here(const http_request *);
/* Whether its client is one of a list (api/proxies.h). */
bool http_from_one_of(const http_request *, const char *list);
/* Calls the app's tick every so many milliseconds from now on, as long as the loop runs for another reason. */
void http_every(http *, uint32_t ms);

/* Valid in begin and run only. NULL: absent. */
const char *http_header(const http_request *, const char *name);
/* Of the query, decoded; "" where it has no value. Valid in begin and run only. NULL: absent. */
const char *http_query(const http_request *, const char *name);
/* Answers. type and body are borrowed until done: static, or in rq->mem. */
void http_answer(http_request *, int status, const char *type, str body);
/* A further header of the answer, a few at most. Borrowed as type is; no value: none is sent.
 */
void http_set(http_request *, const char *name, const char *value);
void http_refuse(http_request *, const failure *);
/* The request ran out of memory: 503, or 413 when it was its own size that did it. */
void http_refuse_memory(http_request *);

/* Event streams. Append whole events to the buffer, then wake. Where a request that beats is silent for
 * a heartbeat before it has an answer, 200 and the stream begin with it: what is answered or refused
 * after that is sent as the stream's last event. */
void http_stream(http_request *);
void http_stream_lines(
    http_request *); /* of JSON, not of events; a silent one gets no heartbeats */
buf *http_stream_out(http_request *);
size_t http_stream_pending(const http_request *); /* appended, not yet with the kernel */
void http_stream_end(http_request *);
/* Ends the connection, whatever the client has not read; gone is called. */
void http_cut(http_request *);
void http_wake(http_request *);

void http_ref(http_request *);
void http_unref(http_request *);
/* Another thread has mem from now on, and the request lives until it is taken back. */
void http_lend(http_request *);
/* Its mem is the loop's again: answer(arg), unless the client has left meanwhile. The request may be freed then. */
void http_take_back(http_request *, void (*answer)(void *), void *arg);

#endif
