/* libmicrohttpd under uv: the pump, connections, deadlines, the watch for disconnects, drain.
 * Owns the daemon, the table of connections, one epoll descriptor and six uv handles. Loop
 * thread only.
 *
 * Facts of libmicrohttpd 0.9.75 in external epoll mode that shape this file:
 * - MHD_get_timeout ignores pending resumes and edges already read: after each MHD_run with
 *   work left (timeout 0) or something resumed, run again, else connections hang.
 * - At the connection limit (or EMFILE) it takes the listener out of its epoll set and puts it
 *   back only in a later MHD_run: run once more whenever the number of connections fell.
 * - A connection in the middle of a TLS handshake always looks ready to it: it asks to be run
 *   again at once, in vain, until the client's next bytes, which its epoll set reports anyway.
 * - A suspended connection is not watched: a disconnect is seen by an epoll set of our own.
 * - Its timeout is inactivity, which a slow sender resets with each byte: hence own deadlines.
 * libmicrohttpd 1.0 is stricter: it refuses by itself, with 400 and a page in HTML, a transfer
 * encoding beside Content-Length or other than chunked, bare line feeds and a version that is
 * too long; and a chunk with an extension, whose end it finds one byte early.
 */
#include "api/http.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/http_impl.h"
#include "api/proxies.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

enum { MAX_RUNS = 16, MAX_VAIN = 3, VAIN_MS = 5, TICK_MS = 250, TRIM_AFTER = 1000 };

static unsigned n_connections(const http *h) {
    return MHD_get_daemon_info(h->mhd, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)->num_connections;
}

static void on_pump_timer(uv_timer_t *t) {
    http_pump(t->data);
}
static void on_again(uv_idle_t *i) {
    http_pump(i->data);
}

/* New: its first request may be on its way. */
static bool is_new(const http_conn *c, uint64_t now) {
    const uint64_t patience_us = 1000000;
    return !c->rq && !c->served && now < c->idle_since_us + patience_us;
}

static bool awaits_request(const http *h) {
    const uint64_t now = clock_us();
    for (const http_conn *c = h->ring.next; c != &h->ring; c = c->next)
        if (is_new(c, now)) return true;
    return false;
}

/* Last in its callers: the app may close us from here. */
static void tell_idle(http *h) {
    if (!h->draining || h->idle_told || h->n_requests || awaits_request(h)) return;
    h->idle_told = true;
    h->app.idle(h->app.self);
}

void http_pump(http *h) {
    if (h->pumping) {
        h->dirty = true;
        return;
    }
    if (!h->accepting) { /* libmicrohttpd would accept connections */
        tell_idle(h);
        return;
    }
    h->pumping = true;
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;
    enum MHD_Result timed;
    bool again;
    int runs = 0, vain = 0;
    do {
        h->dirty = h->progress = false;
        unsigned before = n_connections(h);
        MHD_run(h->mhd);
        timed = MHD_get_timeout(h->mhd, &wait_ms);
        again = h->dirty || (timed == MHD_YES && wait_ms == 0) || n_connections(h) < before;
        vain = h->dirty || h->progress ? 0 : vain + 1;
    } while (again && ++runs < MAX_RUNS && vain < MAX_VAIN);
    h->pumping = false;
    if (again && vain < MAX_VAIN)
        uv_idle_start(&h->again, on_again); /* others' turn first */
    else
        uv_idle_stop(&h->again);
    if (again)
        uv_timer_start(&h->pump_timer, on_pump_timer, VAIN_MS, 0);
    else if (timed == MHD_YES)
        uv_timer_start(&h->pump_timer, on_pump_timer, wait_ms, 0);
    else
        uv_timer_stop(&h->pump_timer);
    tell_idle(h);
}

static void on_app_tick(uv_timer_t *t) {
    http *h = t->data;
    h->app.tick(h->app.self);
    http_flush(h);
}

void http_every(http *h, uint32_t ms) {
    uv_timer_start(&h->app_tick, on_app_tick, ms, ms);
    uv_unref((uv_handle_t *)&h->app_tick);
}

void http_flush(http *h) {
    if (h->dirty || h->draining) http_pump(h);
}

void http_lend(http_request *rq) {
    http_ref(rq);
    rq->lent = true;
}

void http_take_back(http_request *rq, void (*answer)(void *), void *arg) {
    http *h = rq->priv->h;
    rq->lent = false;
    if (!rq->gone) answer(arg);
    http_unref(rq);
    http_flush(h);
}

static void on_mhd_readable(uv_poll_t *p, int status, int events) {
    (void)status, (void)events;
    http_pump(p->data);
}

static void on_watch(uv_poll_t *p, int status, int events) {
    (void)status, (void)events;
    http *h = p->data;
    struct epoll_event ev[64];
    int n;
    do {
        n = epoll_wait(h->watch_fd, ev, 64, 0);
        for (int i = 0; i < n; i++) {
            http_conn *c = ev[i].data.ptr;
            c->half_closed = true;
            if (c->rq && c->rq->watched) http_left(c->rq);
        }
    } while (n == 64);
    http_pump(h);
}

/* The client waits for nothing and has begun nothing, or not ended it. */
static bool is_unanswered(const http_conn *c) {
    return c->rq && c->rq->phase != PHASE_BODY;
}

/* Half a request, and no more will come: libmicrohttpd reads edges, and overlooks an end that
 * came together with the bytes before it. */
static bool is_abandoned(const http_conn *c) {
    char byte;
    return c->half_closed && !is_unanswered(c) &&
           recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static bool connection_waits(const http *h) {
    struct pollfd p = {.fd = h->listen_fd, .events = POLLIN};
    return h->listen_fd >= 0 && poll(&p, 1, 0) == 1;
}

/* Where all places are taken and a connection waits for one: closes the connection that has been
 * without a request for longest. One that has had no answer yet is given a second for its
 * first request. */
static void make_place(http *h) {
    const uint64_t now = clock_us();
    http_conn *oldest = NULL;
    if (h->n_open < h->opt.max_connections || !connection_waits(h)) return;
    for (http_conn *c = h->ring.next; c != &h->ring; c = c->next) {
        if (c->rq || now < c->idle_since_us || is_new(c, now)) continue;
        if (!oldest || c->idle_since_us < oldest->idle_since_us) oldest = c;
    }
    if (!oldest) return;
    oldest->idle_since_us = now; /* not twice */
    shutdown(oldest->fd, SHUT_RDWR);
}

static bool takes_beats(const http_private *rq) {
    const bool begun = rq->pub.status != 0;
    return rq->suspended && !rq->ended && (begun ? rq->stream && !rq->lines : rq->pub.beats);
}

/* Deadlines and heartbeats. A scan of all open connections, four times a second. */
static void on_tick(uv_timer_t *t) {
    http *h = t->data;
    uint64_t now = clock_us(), beat = (uint64_t)h->opt.heartbeat_s * 1000000u;
    for (http_conn *c = h->ring.next; c != &h->ring; c = c->next) {
        http_private *rq = c->rq;
        if ((c->deadline_us && now >= c->deadline_us) || is_abandoned(c)) {
            c->deadline_us = 0;
            c->half_closed = false; /* not twice */
            shutdown(c->fd, SHUT_RDWR);
        } else if (beat && rq && takes_beats(rq) && now - rq->last_byte_us >= beat) {
            http_beat(rq);
        }
    }
    make_place(h);
    http_pump(h);
}

static uint64_t conn_bytes(const http *h) {
    return HTTP_CONN_BYTES + (h->tls ? HTTP_TLS_BYTES : 0);
}

static void conn_open(http *h, struct MHD_Connection *mhd, void **slot) {
    int fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    http_conn *c = h->unused;
    *slot = NULL;
    if (!c || !ledger_reserve(h->ledger, MEM_HTTP, conn_bytes(h))) {
        shutdown(fd, SHUT_RDWR);
        return;
    }
    h->unused = c->next;
    *c = (http_conn){.mhd = mhd, .fd = fd, .open = true};
    c->deadline_us = clock_us() + (uint64_t)h->opt.header_timeout_s * 1000000u;
    c->prev = h->ring.prev, c->next = &h->ring;
    c->prev->next = c->next->prev = c;
    c->idle_since_us = clock_us();
    http_watch(h, c, EPOLL_CTL_ADD);
    if (h->n_open++ == 0) uv_timer_start(&h->tick, on_tick, TICK_MS, TICK_MS);
    if (h->tls) http_tls_attach(h->tls, c);
    *slot = c;
    make_place(h);
}

static void conn_close(http *h, http_conn *c) {
    http_tls_detach(c);
    epoll_ctl(h->watch_fd, EPOLL_CTL_DEL, c->fd, NULL);
    c->prev->next = c->next;
    c->next->prev = c->prev;
    c->open = false;
    c->next = h->unused;
    h->unused = c;
    ledger_release(h->ledger, MEM_HTTP, conn_bytes(h));
    if (--h->n_open == 0) uv_timer_stop(&h->tick);
    if (++h->n_closed >= TRIM_AFTER && h->n_open <= h->n_closed / 16) {
        h->n_closed = 0;
        malloc_trim(0); /* a crowd has left: its small blocks are the system's again */
    }
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **slot,
                          enum MHD_ConnectionNotificationCode code) {
    http *h = cls;
    h->progress = true;
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        conn_open(h, mhd, slot);
    else if (*slot)
        conn_close(h, *slot);
}

/* The request line as it came: libmicrohttpd decodes %00 into an end of string, and passes
 * absolute URIs on whole. The verdict waits in the connection for the first handler call. */
static void *on_uri(void *cls, const char *uri, struct MHD_Connection *mhd) {
    (void)cls;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    http_conn *c = info ? info->socket_context : NULL;
    if (c) c->bad_uri = uri[0] != '/' || strstr(uri, "%00");
    if (c) c->uri = uri, c->uri_end = uri + strlen(uri);
    return NULL;
}

static void on_mhd_log(void *cls, const char *fmt, va_list ap) {
    (void)cls;
    char line[256];
    vsnprintf(line, sizeof line, fmt, ap);
    for (char *nl; (nl = strchr(line, '\n'));) *nl = ' ';
    log_debug("libmicrohttpd: %s", line);
}

static bool peer_of(const http_request *rq, struct sockaddr_storage *sa) {
    socklen_t n = sizeof *sa;
    *sa = (struct sockaddr_storage){0};
    return rq->priv->conn && getpeername(rq->priv->conn->fd, (struct sockaddr *)sa, &n) == 0;
}

bool http_from_one_of(const http_request *rq, const char *list) {
    struct sockaddr_storage sa;
    return peer_of(rq, &sa) && proxies_have(list, (const struct sockaddr *)&sa);
}

bool http_from_here(const http_request *rq) {
    struct sockaddr_storage sa;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&sa;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&sa;
    if (!peer_of(rq, &sa)) return false;
    if (sa.ss_family == AF_UNIX) return true;
    if (sa.ss_family == AF_INET) return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    if (sa.ss_family != AF_INET6) return false;
    return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ||
           (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && v6->sin6_addr.s6_addr[12] == 127);
}

const char *http_library_version(void) {
    return MHD_get_version();
}

uint64_t http_table_bytes(uint32_t max_connections) {
    return align_up((uint64_t)max_connections * sizeof(http_conn), 64);
}

static status table_open(http *h, err *e) {
    status s =
        ledger_alloc(h->ledger, &h->table_memory, MEM_HTTP,
                     http_table_bytes(h->opt.max_connections), "table of connections", e);
    if (s != OK) return s;
    h->table = h->table_memory;
    h->ring.prev = h->ring.next = &h->ring;
    for (uint32_t i = h->opt.max_connections; i-- > 0;) {
        h->table[i].next = h->unused;
        h->unused = &h->table[i];
    }
    return OK;
}

/* Borrows the text. */
static struct MHD_Response *no_memory_answer(void) {
    static char text[] = "{\"error\":{\"message\":\"no memory for another request; retry\","
                         "\"type\":\"unavailable_error\",\"param\":null,\"code\":503}}";
    struct MHD_Response *r =
        MHD_create_response_from_buffer(sizeof text - 1, text, MHD_RESPMEM_PERSISTENT);
    if (r && MHD_add_response_header(r, "Content-Type", "application/json") &&
        MHD_add_response_header(r, "Retry-After", "1") &&
        MHD_add_response_header(r, "Connection", "close"))
        return r;
    if (r) MHD_destroy_response(r);
    return NULL;
}

static status daemon_open(http *h, int fd, err *e) {
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, (void *)(intptr_t)http_tls_certificate},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"},
        {MHD_OPTION_END, 0, NULL}};
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    errno = 0;
    h->mhd = MHD_start_daemon(
        flags | (h->tls ? MHD_USE_TLS : 0), 0, NULL, NULL, http_on_request, h, MHD_OPTION_ARRAY,
        h->tls ? tls : &tls[2], MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, h->opt.max_connections,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_POOL_BYTES,
        MHD_OPTION_CONNECTION_TIMEOUT, h->opt.idle_timeout_s, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
        MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, h, MHD_OPTION_URI_LOG_CALLBACK, on_uri,
        h, MHD_OPTION_END);
    int why = errno;
    if (!h->mhd && (why == EMFILE || why == ENFILE))
        return err_set(e, ERR_IO, "libmicrohttpd cannot start: %s", strerror(why));
    /* The socket listens already: what else it needs is memory. errno says so not always. */
    if (!h->mhd) return mem_exhausted(e, MEM_HTTP, "libmicrohttpd");
    h->no_memory = no_memory_answer();
    return h->no_memory ? OK : mem_exhausted(e, MEM_HTTP, "the front end");
}

static status handles_open(http *h, uv_loop_t *loop, err *e) {
    int fd = MHD_get_daemon_info(h->mhd, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    h->watch_fd = epoll_create1(EPOLL_CLOEXEC);
    if (h->watch_fd < 0) return err_set(e, ERR_IO, "epoll_create1: %s", strerror(errno));
    uv_timer_init(loop, &h->pump_timer);
    uv_timer_init(loop, &h->tick);
    uv_timer_init(loop, &h->app_tick);
    uv_idle_init(loop, &h->again);
    int rc = uv_poll_init(loop, &h->mhd_poll, fd);
    CHECK(rc == 0); /* both are fresh epoll descriptors: nothing can refuse them */
    rc = uv_poll_init(loop, &h->watch_poll, h->watch_fd);
    CHECK(rc == 0);
    h->n_handles = 6;
    h->pump_timer.data = h->tick.data = h->again.data = h->mhd_poll.data = h->watch_poll.data =
        h->app_tick.data = h;
    return OK;
}

static void remove_path(http *h) {
    struct stat st;
    if (h->unix_path[0] && lstat(h->unix_path, &st) == 0 && st.st_ino == h->unix_inode)
        unlink(h->unix_path);
    h->unix_path[0] = '\0';
}

static void free_all(http *h) {
    if (h->mhd) MHD_stop_daemon(h->mhd);
    if (h->no_memory) MHD_destroy_response(h->no_memory);
    if (h->watch_fd >= 0) close(h->watch_fd);
    remove_path(h);
    http_tls_close(h->tls);
    ledger_free(h->ledger, h->table_memory);
    free(h);
}

static status open_tls(http_tls **out, const server_options *o, err *e) {
    *out = NULL;
    return o->tls_cert && o->tls_cert[0] ? http_tls_open(out, o, e) : OK;
}

status http_check(const server_options *o, err *e) {
    http_tls *tls;
    status s = open_tls(&tls, o, e);
    if (s == OK) s = http_listen_check(o, e);
    http_tls_close(tls);
    return s;
}

status http_open(http **out, struct uv_loop_s *loop, const server_options *o,
                 const http_app *app, ledger *l, pool *p, err *e) {
    *out = NULL;
    http *h = calloc(1, sizeof *h);
    if (!h) return mem_exhausted(e, MEM_HTTP, "the front end");
    h->app = *app, h->opt = *o, h->ledger = l, h->pool = p, h->watch_fd = h->listen_fd = -1;
    int fd = -1;
    status s = table_open(h, e);
    if (s != OK) goto done;
    s = open_tls(&h->tls, o, e);
    if (s != OK) goto done;
    s = http_listen(o, &fd, &h->port, h->unix_path, e);
    if (s != OK) goto done;
    struct stat st;
    if (h->unix_path[0] && lstat(h->unix_path, &st) == 0) h->unix_inode = st.st_ino;
    s = daemon_open(h, fd, e);
    if (s != OK) goto done;
    h->listen_fd = fd;
    s = handles_open(h, loop, e);
    if (s != OK) goto done;
    if (o->listen_fd < 0) http_accept(h);
    *out = h;
    h = NULL;
done:
    if (h) {
        if (fd >= 0 && !h->mhd && o->listen_fd < 0) close(fd);
        free_all(h);
    }
    return s;
}

uint16_t http_port(const http *h) {
    return h->port;
}
uint32_t http_n_connections(const http *h) {
    return h->n_open;
}

status http_reload(http *h, err *e) {
    return h->tls ? http_tls_load(h->tls, &h->opt, e) : OK;
}

void http_accept(http *h) {
    if (h->accepting) return;
    h->accepting = true;
    uv_poll_start(&h->mhd_poll, UV_READABLE, on_mhd_readable);
    uv_poll_start(&h->watch_poll, UV_READABLE, on_watch);
    http_pump(h);
}

static void stop_listening(http *h) {
    if (h->listen_fd < 0) return;
    h->listen_fd = -1;
    int fd = MHD_quiesce_daemon(h->mhd);
    if (fd >= 0) close(fd);
    remove_path(h);
}

void http_leave(http *h) {
    h->leaving = true;
    if (h->opt.listen_fd >= 0) stop_listening(h);
}

/* Closing a socket resets the connections that wait in its queue; they are accepted first, to be
 * refused with a 503, which a proxy may repeat elsewhere. Those of an inherited socket are left
 * to the process that serves it next. */
static void accept_waiting(http *h) {
    enum { MAX_PUMPS = 64 };
    if (h->opt.listen_fd >= 0) return;
    for (int i = 0; i < MAX_PUMPS && connection_waits(h); i++) http_pump(h);
}

void http_drain(http *h) {
    if (h->draining) return;
    h->leaving = true;
    accept_waiting(h);
    h->draining = true;
    stop_listening(h);
    uv_timer_start(&h->pump_timer, on_pump_timer, 0, 0); /* tells idle, not from here */
}

void http_abort(http *h) {
    for (http_conn *c = h->ring.next; c != &h->ring; c = c->next) {
        http_private *rq = c->rq;
        bool asleep = rq && rq->suspended && !rq->pub.lent;
        if (rq && rq->phase != PHASE_BODY && !rq->pub.gone && !rq->pub.lent)
            h->app.abort(h->app.self, &rq->pub);
        /* One that sleeps has its socket free for a last word; others are cut off. */
        if (!asleep) shutdown(c->fd, SHUT_RDWR);
    }
    h->dirty = true;
    http_pump(h);
}

static void on_closed(uv_handle_t *handle) {
    http *h = handle->data;
    if (--h->n_handles == 0) free(h);
}

void http_close(http *h) {
    CHECK(h->n_requests == 0);
    uv_close((uv_handle_t *)&h->mhd_poll, on_closed);
    uv_close((uv_handle_t *)&h->watch_poll, on_closed);
    MHD_stop_daemon(h->mhd);
    uv_close((uv_handle_t *)&h->pump_timer, on_closed);
    uv_close((uv_handle_t *)&h->tick, on_closed);
    uv_close((uv_handle_t *)&h->app_tick, on_closed);
    uv_close((uv_handle_t *)&h->again, on_closed);
    MHD_destroy_response(h->no_memory);
    http_tls_close(h->tls);
    close(h->watch_fd);
    remove_path(h);
    ledger_free(h->ledger, h->table_memory);
}
