/* A load generator that costs next to nothing, so that two servers can be compared on the two
 * cores they run on. One thread, epoll, plain sockets; no part of the daemon.
 *
 *   load PORT STREAMS BODIES.jsonl [PATH]
 * Sends each line of BODIES as one POST to 127.0.0.1:PORT PATH (/v1/completions), at most
 * STREAMS at once, each stream one keep-alive connection, and reads the answers: SSE or plain
 * JSON, chunked or with a length. Prints one JSON line a request, in the order of their ends:
 *   {"line","status","ok","why","start_us","ttft_us","total_us","events","tokens","gaps_us":[]}
 * ttft_us: send to first event (or body); gaps_us: between events; tokens: the answer's
 * "completion_tokens"; ok: 200, complete, no error in it, and [DONE] if it was a stream. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_GAPS = 4096, TIMEOUT_MS = 120000, IN_CAP = 1 << 16 };

typedef enum phase { HEAD, FIXED, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TO_CLOSE, WHOLE } phase;

typedef struct text {
    char *v;
    size_t n, cap;
} text;

typedef struct stream {
    int fd;
    bool busy, retried;
    size_t line; /* which body */
    text out, head, body;
    size_t sent;
    phase at;
    uint64_t left; /* bytes of the chunk or of the body */
    bool sse, close_after, done_seen, error_seen;
    int status;
    uint64_t start, first, last;
    uint32_t n_events, n_gaps;
    long tokens;
    uint32_t gaps[MAX_GAPS];
} stream;

typedef struct load {
    int epoll, port;
    const char *path;
    char **body;
    size_t n_bodies, next, n_done, n_failed;
    uint64_t t0;
} load;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void text_add(text *t, const char *p, size_t n) {
    if (t->n + n + 1 > t->cap) {
        t->cap = (t->n + n + 1) * 2;
        t->v = realloc(t->v, t->cap);
        if (!t->v) die("load: memory");
    }
    memcpy(t->v + t->n, p, n);
    t->n += n;
    t->v[t->n] = 0;
}

static void stream_connect(load *l, stream *s) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)l->port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0) die("load: socket");
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(s->fd, (struct sockaddr *)&a, sizeof a) != 0 && errno != EINPROGRESS)
        die("load: connect");
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = s};
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, s->fd, &e) != 0) die("load: epoll_ctl");
}

static void stream_close(stream *s) {
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

static void send_some(stream *s) {
    while (s->busy && s->sent < s->out.n) {
        ssize_t n = send(s->fd, s->out.v + s->sent, s->out.n - s->sent, MSG_NOSIGNAL);
        if (n <= 0) return; /* not yet connected, full, or broken: the reader will see */
        s->sent += (size_t)n;
    }
}

/* Puts the request on the wire; a fresh connection where there is none. */
static void stream_send(load *l, stream *s) {
    s->sent = s->head.n = s->body.n = 0;
    s->at = HEAD;
    s->sse = s->close_after = s->done_seen = s->error_seen = false;
    s->status = 0;
    s->first = s->last = s->n_events = s->n_gaps = 0;
    s->tokens = -1;
    if (s->fd < 0) stream_connect(l, s);
    send_some(s);
}

static bool stream_next(load *l, stream *s) {
    if (l->next == l->n_bodies) return s->busy = false;
    s->line = l->next++;
    const char *b = l->body[s->line];
    char head[512];
    int n = snprintf(head, sizeof head,
                     "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: "
                     "application/json\r\nContent-Length: %zu\r\n\r\n",
                     l->path, l->port, strlen(b));
    s->out.n = 0;
    text_add(&s->out, head, (size_t)n);
    text_add(&s->out, b, strlen(b));
    s->busy = true;
    s->retried = false;
    s->start = now_us();
    stream_send(l, s);
    return true;
}

static void finish(load *l, stream *s, const char *why) {
    uint64_t end = now_us();
    if (!why && s->status != 200) why = "status";
    if (!why && s->error_seen) why = "error in the answer";
    if (!why && s->sse && !s->done_seen) why = "no [DONE]";
    l->n_done++;
    if (why) l->n_failed++;
    printf("{\"line\":%zu,\"status\":%d,\"ok\":%s,\"why\":\"%s\",\"start_us\":%llu,\"ttft_us\":"
           "%llu,\"total_us\":%llu,\"events\":%u,\"tokens\":%ld,\"gaps_us\":[",
           s->line, s->status, why ? "false" : "true", why ? why : "",
           (unsigned long long)(s->start - l->t0),
           (unsigned long long)(s->first ? s->first - s->start : 0),
           (unsigned long long)(end - s->start), s->n_events, s->tokens);
    for (uint32_t i = 0; i < s->n_gaps; i++) printf("%s%u", i ? "," : "", s->gaps[i]);
    printf("]}\n");
    if (why || s->close_after) stream_close(s);
    stream_next(l, s);
}

static void look_for_usage(stream *s, const char *json) {
    const char *u = strstr(json, "\"completion_tokens\":");
    if (u) s->tokens = strtol(u + 20, NULL, 10);
    if (strstr(json, "\"error\":")) s->error_seen = true;
}

static void on_event(stream *s, const char *data) {
    if (strcmp(data, "[DONE]") == 0) {
        s->done_seen = true;
        return;
    }
    look_for_usage(s, data);
    if (strstr(data, "\"choices\":[]")) return; /* the usage chunk is no token */
    uint64_t t = now_us();
    if (!s->first)
        s->first = t;
    else if (s->n_gaps < MAX_GAPS)
        s->gaps[s->n_gaps++] = (uint32_t)(t - s->last);
    s->last = t;
    s->n_events++;
}

/* Body bytes with the framing taken off. */
static void on_body(stream *s, const char *p, size_t n) {
    text_add(&s->body, p, n);
    if (!s->sse) {
        if (!s->first) s->first = now_us();
        return;
    }
    char *line = s->body.v, *end;
    while ((end = memchr(line, '\n', (size_t)(s->body.v + s->body.n - line)))) {
        *end = 0;
        if (end > line && end[-1] == '\r') end[-1] = 0;
        if (strncmp(line, "data: ", 6) == 0) on_event(s, line + 6);
        line = end + 1;
    }
    s->body.n = (size_t)(s->body.v + s->body.n - line);
    memmove(s->body.v, line, s->body.n);
}

/* Reads the header block once it is whole; false: not yet. */
static bool on_head(stream *s) {
    char *end = strstr(s->head.v, "\r\n\r\n");
    if (!end) return false;
    *end = 0;
    if (sscanf(s->head.v, "HTTP/1.%*d %d", &s->status) != 1) s->status = 0;
    s->at = TO_CLOSE;
    s->close_after = strcasestr(s->head.v, "\r\nConnection: close") != NULL;
    s->sse = strcasestr(s->head.v, "\r\nContent-Type: text/event-stream") != NULL;
    const char *length = strcasestr(s->head.v, "\r\nContent-Length:");
    if (strcasestr(s->head.v, "\r\nTransfer-Encoding: chunked"))
        s->at = CHUNK_SIZE;
    else if (length) {
        s->left = strtoull(length + 17, NULL, 10);
        s->at = s->left ? FIXED : WHOLE;
    }
    return true;
}

static size_t take_line(stream *s, const char *p, size_t n) { /* into head, through '\n' */
    const char *nl = memchr(p, '\n', n);
    size_t k = nl ? (size_t)(nl - p) + 1 : n;
    text_add(&s->head, p, k);
    return k;
}

/* One step of the parser: consumes at least a byte. */
static size_t feed(stream *s, const char *p, size_t n) {
    size_t k = n;
    switch (s->at) {
    case HEAD:
        k = take_line(s, p, n);
        if (on_head(s)) s->head.n = 0;
        return k;
    case CHUNK_SIZE:
    case CHUNK_END:
        k = take_line(s, p, n);
        if (s->head.v[s->head.n - 1] != '\n') return k;
        if (s->at == CHUNK_SIZE) {
            s->left = strtoull(s->head.v, NULL, 16);
            s->at = s->left ? CHUNK_DATA : CHUNK_END;
            if (!s->left) s->left = UINT64_MAX; /* marks the last CHUNK_END */
        } else if (s->left == UINT64_MAX) {
            if (s->head.n <= 2) s->at = WHOLE; /* else a trailer */
        } else {
            s->at = CHUNK_SIZE;
        }
        s->head.n = 0;
        return k;
    case FIXED:
    case CHUNK_DATA:
        if (k > s->left) k = s->left;
        on_body(s, p, k);
        s->left -= k;
        if (!s->left) s->at = s->at == FIXED ? WHOLE : CHUNK_END;
        return k;
    default: /* TO_CLOSE */ on_body(s, p, k); return k;
    }
}

static void on_end(load *l, stream *s, const char *why) {
    if (!s->sse && s->body.n) look_for_usage(s, s->body.v);
    finish(l, s, why);
}

/* The connection is gone. One that died before a byte of the answer was an idle keep-alive
 * connection that the server closed: such a request is sent again once, as clients do. */
static void on_closed(load *l, stream *s, bool reused) {
    stream_close(s);
    if (!s->busy) return;
    if (s->at == TO_CLOSE) return on_end(l, s, NULL);
    if (reused && s->at == HEAD && !s->head.n && !s->retried) {
        s->retried = true;
        return stream_send(l, s);
    }
    on_end(l, s, s->at == HEAD ? "closed before an answer" : "closed within the answer");
}

static void on_readable(load *l, stream *s) {
    static char in[IN_CAP];
    while (s->fd >= 0) {
        ssize_t n = recv(s->fd, in, sizeof in, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n <= 0) return on_closed(l, s, n == 0);
        for (size_t i = 0; i < (size_t)n && s->busy;) {
            i += feed(s, in + i, (size_t)n - i);
            if (s->at == WHOLE) on_end(l, s, NULL);
        }
    }
}

static void read_bodies(load *l, const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) die(path);
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, f)) > 0) {
        if (line[n - 1] == '\n') line[n - 1] = 0;
        l->body = realloc(l->body, (l->n_bodies + 1) * sizeof *l->body);
        if (!l->body || !(l->body[l->n_bodies++] = strdup(line))) die("load: memory");
    }
    free(line);
    fclose(f);
}

static void run(load *l, stream *s, size_t n_streams) {
    for (size_t i = 0; i < n_streams; i++) {
        s[i].fd = -1;
        stream_next(l, &s[i]);
    }
    while (l->n_done < l->n_bodies) {
        struct epoll_event ev[64];
        int n = epoll_wait(l->epoll, ev, 64, TIMEOUT_MS);
        if (n < 0 && errno != EINTR) die("load: epoll_wait");
        if (n == 0) {
            fprintf(stderr, "load: nothing happened for %d s; %zu of %zu answered\n",
                    TIMEOUT_MS / 1000, l->n_done, l->n_bodies);
            exit(1);
        }
        for (int i = 0; i < n; i++) {
            stream *x = ev[i].data.ptr;
            if (ev[i].events & EPOLLOUT) send_some(x);
            if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) on_readable(l, x);
        }
    }
}

int main(int argc, char **argv) {
    if (argc < 4) return fprintf(stderr, "usage: load PORT STREAMS BODIES.jsonl [PATH]\n"), 2;
    load l = {.port = atoi(argv[1]), .path = argc > 4 ? argv[4] : "/v1/completions"};
    size_t n_streams = strtoul(argv[2], NULL, 10);
    read_bodies(&l, argv[3]);
    if (!n_streams || n_streams > 4096 || !l.n_bodies)
        return fprintf(stderr, "load: 1..4096 streams and at least one body\n"), 2;
    if (n_streams > l.n_bodies) n_streams = l.n_bodies;
    stream *s = calloc(n_streams, sizeof *s);
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!s || l.epoll < 0) die("load");
    l.t0 = now_us();
    run(&l, s, n_streams);
    for (size_t i = 0; i < n_streams; i++) {
        stream_close(&s[i]);
        free(s[i].out.v);
        free(s[i].head.v);
        free(s[i].body.v);
    }
    free(s);
    for (size_t i = 0; i < l.n_bodies; i++) free(l.body[i]);
    free(l.body);
    return l.n_failed ? 3 : 0;
}
