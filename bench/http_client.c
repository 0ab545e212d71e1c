/* Sockets and framing behind http_client.h. */
#include "bench/http_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IN_CAP = 1 << 16 };

void http_die(const http_client *h, const char *what) {
    fprintf(stderr, "%s: %s: %s\n", h->name, what, strerror(errno));
    exit(2);
}

static void text_reserve(text *t, size_t n) {
    if (t->n + n + 1 <= t->cap) return;
    t->cap = (t->n + n + 1) * 2;
    t->v = realloc(t->v, t->cap);
    if (t->v) return;
    fprintf(stderr, "no memory\n");
    exit(2);
}

void text_add(text *t, const char *p, size_t n) {
    text_reserve(t, n);
    memcpy(t->v + t->n, p, n);
    t->n += n;
    t->v[t->n] = 0;
}

void text_addf(text *t, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    const int n = vsnprintf(NULL, 0, fmt, ap);
    if (n > 0) {
        text_reserve(t, (size_t)n);
        vsnprintf(t->v + t->n, (size_t)n + 1, fmt, again);
        t->n += (size_t)n;
    }
    va_end(again);
    va_end(ap);
}

void http_client_open(http_client *h, const char *name, int port) {
    h->name = name;
    h->port = port;
    h->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (h->epoll < 0) http_die(h, "epoll_create1");
}

/* ---- sending ---- */

static void connect_socket(http_client *h, connection *c) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)h->port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) http_die(h, "socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (c->receive_buffer)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &c->receive_buffer, sizeof c->receive_buffer);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) != 0 && errno != EINPROGRESS)
        http_die(h, "connect");
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    if (epoll_ctl(h->epoll, EPOLL_CTL_ADD, c->fd, &e) != 0) http_die(h, "epoll_ctl");
    c->fresh = true;
}

void connection_close(connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

void connection_free(connection *c) {
    connection_close(c);
    free(c->out.v);
    free(c->line.v);
}

static void send_some(connection *c) {
    while (c->busy && c->sent < c->out.n) {
        const ssize_t n = send(c->fd, c->out.v + c->sent, c->out.n - c->sent, MSG_NOSIGNAL);
        if (n <= 0) return; /* not yet connected, full, or broken: the reader sees it */
        c->sent += (size_t)n;
    }
}

void connection_request(const http_client *h, connection *c, const char *path,
                        const char *body) {
    c->out.n = 0;
    text_addf(&c->out, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n", body ? "POST" : "GET", path,
              h->port);
    if (body)
        text_addf(&c->out, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                  strlen(body));
    text_add(&c->out, "\r\n", 2);
    if (body) text_add(&c->out, body, strlen(body));
}

void connection_send(http_client *h, connection *c) {
    c->sent = c->n_read = c->line.n = 0;
    c->at = HTTP_HEAD;
    c->status = 0;
    c->sse = c->close_after = false;
    if (c->fd < 0) connect_socket(h, c);
    send_some(c);
}

/* ---- the answer ---- */

/* Reads the head once it is whole; false: not yet. */
static bool on_head(connection *c) {
    char *end = strstr(c->line.v, "\r\n\r\n");
    if (!end) return false;
    *end = 0;
    if (sscanf(c->line.v, "HTTP/1.%*d %d", &c->status) != 1) c->status = 0;
    c->at = HTTP_TO_CLOSE;
    c->close_after = strcasestr(c->line.v, "\r\nConnection: close") != NULL;
    c->sse = strcasestr(c->line.v, "\r\nContent-Type: text/event-stream") != NULL;
    const char *length = strcasestr(c->line.v, "\r\nContent-Length:");
    if (strcasestr(c->line.v, "\r\nTransfer-Encoding: chunked")) {
        c->at = HTTP_CHUNK_SIZE;
    } else if (length) {
        c->left = strtoull(length + 17, NULL, 10);
        c->at = c->left ? HTTP_FIXED : HTTP_WHOLE;
    }
    return true;
}

static size_t take_line(connection *c, const char *p, size_t n) { /* through '\n' */
    const char *nl = memchr(p, '\n', n);
    const size_t k = nl ? (size_t)(nl - p) + 1 : n;
    text_add(&c->line, p, k);
    return k;
}

/* A line between chunks is whole. */
static void on_chunk_line(connection *c) {
    if (c->at == HTTP_CHUNK_SIZE) {
        c->left = strtoull(c->line.v, NULL, 16);
        c->at = c->left ? HTTP_CHUNK_DATA : HTTP_CHUNK_END;
        if (!c->left) c->left = UINT64_MAX; /* marks the last HTTP_CHUNK_END */
    } else if (c->left == UINT64_MAX) {
        if (c->line.n <= 2) c->at = HTTP_WHOLE; /* else a trailer */
    } else {
        c->at = HTTP_CHUNK_SIZE;
    }
    c->line.n = 0;
}

/* One step of the parser: consumes at least a byte. */
static size_t feed(http_client *h, connection *c, const char *p, size_t n) {
    size_t k = n;
    switch (c->at) {
    case HTTP_HEAD:
        k = take_line(c, p, n);
        if (on_head(c)) c->line.n = 0;
        return k;
    case HTTP_CHUNK_SIZE:
    case HTTP_CHUNK_END:
        k = take_line(c, p, n);
        if (c->line.v[c->line.n - 1] == '\n') on_chunk_line(c);
        return k;
    case HTTP_FIXED:
    case HTTP_CHUNK_DATA:
        if (k > c->left) k = (size_t)c->left;
        h->on_body(h, c, p, k);
        c->left -= k;
        if (!c->left) c->at = c->at == HTTP_FIXED ? HTTP_WHOLE : HTTP_CHUNK_END;
        return k;
    default: h->on_body(h, c, p, k); return k;
    }
}

static void on_closed(http_client *h, connection *c) {
    connection_close(c);
    if (!c->busy) return;
    /* An idle connection that the server closed: sent again, as clients do. */
    if (!c->fresh && c->n_read == 0) {
        connection_send(h, c);
        return;
    }
    if (c->at == HTTP_TO_CLOSE)
        h->on_end(h, c, NULL);
    else
        h->on_end(h, c,
                  c->at == HTTP_HEAD ? "closed before an answer" : "closed within the answer");
}

static void take_bytes(http_client *h, connection *c, const char *in, size_t n) {
    c->n_read += n;
    for (size_t i = 0; i < n && c->busy && c->fd >= 0;) {
        i += feed(h, c, in + i, n - i);
        if (c->at != HTTP_WHOLE) continue;
        c->fresh = false;
        if (c->close_after) connection_close(c);
        h->on_end(h, c, NULL);
        return; /* nothing may follow an answer before the next request */
    }
}

void connection_read(http_client *h, connection *c) {
    static char in[IN_CAP];
    while (c->fd >= 0) {
        size_t most = h->may_read ? h->may_read(h, c) : sizeof in;
        if (most == 0) return;
        if (most > sizeof in) most = sizeof in;
        const ssize_t n = recv(c->fd, in, most, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n <= 0) {
            on_closed(h, c);
            return;
        }
        if (!c->busy) {
            connection_close(c);
            return;
        }
        take_bytes(h, c, in, (size_t)n);
    }
}

int http_client_wait(http_client *h, int at_most_ms) {
    struct epoll_event ev[64];
    const int n = epoll_wait(h->epoll, ev, 64, at_most_ms);
    if (n < 0 && errno != EINTR) http_die(h, "epoll_wait");
    for (int i = 0; i < n; i++) {
        connection *c = ev[i].data.ptr;
        if (ev[i].events & EPOLLOUT) send_some(c);
        if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) connection_read(h, c);
    }
    return n < 0 ? 1 : n;
}
