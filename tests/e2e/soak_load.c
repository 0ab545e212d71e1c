/* Mixed requests over many connections at once, for tests of what a server holds after millions of
 * them (soak_flat.py). One thread, epoll, plain sockets, no part of the daemon; the
 * requests are a function of a seed and their numbers.
 *
 *   soak_load PORT CONNECTIONS FIRST N [SEED [any|slow]]
 * Sends requests FIRST ... FIRST + N - 1 of the seed to 127.0.0.1:PORT and prints one line of
 * JSON: counts by operation and end. Exit code 1 when an answer was wrong: its status is none of the
 * operation's, or it is cut short, or it reports an error of the server's. any: the server is
 * another one, statuses are not compared. slow: slow readers of streams alone. Operations are the rows of the table below. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { IN_CAP = 1 << 18, OUT_CAP = 1 << 16, STALL_MS = 120000, MAX_WRONG = 5 };

/* What the client does with the answer. */
typedef enum reader { READ_ALL, READ_CUT, READ_SLOWLY } reader;

typedef struct text {
    char *v;
    size_t n, cap;
} text;

struct op;

typedef struct client {
    int fd;
    bool busy, fresh, streams;
    const struct op *op;
    text out, in;
    size_t sent, cut_at; /* READ_CUT: it leaves after so many bytes of the answer */
    uint64_t wake_ms;    /* READ_SLOWLY: nothing is read before; 0: reading */
    uint32_t n_reads;
} client;

typedef struct soak {
    int epoll, port;
    uint64_t seed, first, n, next, n_done, n_wrong, n_left, clock_ms;
    bool any, slow;
    uint64_t *ended; /* [operations] */
} soak;

static void die(const char *what) {
    perror(what);
    exit(2);
}

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* splitmix64: the numbers of one request are a function of its own. */
static uint64_t draw(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static uint32_t below(uint64_t *r, uint32_t n) {
    return (uint32_t)(draw(r) % n);
}

__attribute__((format(printf, 2, 3))) static void add(text *t, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->v + t->n, t->cap - t->n, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= t->cap - t->n) die("soak_load: a request is too long");
    t->n += (size_t)n;
}

/* ---- the operations ---- */

/* Words that the vocabularies of the tests have. */
static void add_words(text *t, uint64_t *r, uint32_t n) {
    static const char *const word[] = {"river",  "engine", "winter",  "garden",   "paper",
                                       "signal", "castle", "harbour", "mountain", "letter"};
    for (uint32_t i = 0; i < n; i++) add(t, i ? " %s" : "%s", word[below(r, 10)]);
}

static void unique_prompt(text *t, uint64_t *r) {
    add(t, "{\"prompt\":\"%x ", (unsigned)draw(r));
    add_words(t, r, 1 + below(r, 3));
    add(t, "\",\"max_tokens\":%u,\"temperature\":%s,\"seed\":%u,\"ignore_eos\":%s",
        1 + below(r, 3), below(r, 2) ? "0" : "0.8", below(r, 1000),
        below(r, 2) ? "true" : "false");
}

static void plain(text *t, uint64_t *r) {
    unique_prompt(t, r);
    add(t, ",\"stream\":%s}", below(r, 2) ? "true" : "false");
}

/* One of eight beginnings: hits in the prefix cache. */
static void shared(text *t, uint64_t *r) {
    uint64_t beginning = 77 + below(r, 8);
    add(t, "{\"prompt\":\"");
    add_words(t, &beginning, 10);
    add(t, " %u\",\"max_tokens\":%u,\"ignore_eos\":true}", below(r, 100000), 1 + below(r, 4));
}

static void logprobs(text *t, uint64_t *r) {
    unique_prompt(t, r);
    add(t, ",\"logprobs\":%u,\"echo\":%s}", 1 + below(r, 5), below(r, 3) ? "false" : "true");
}

static void several(text *t, uint64_t *r) {
    unique_prompt(t, r);
    add(t, ",\"n\":%u,\"stream\":%s}", 2 + below(r, 3), below(r, 2) ? "true" : "false");
}

static void stopped(text *t, uint64_t *r) {
    unique_prompt(t, r);
    add(t, ",\"stop\":[\"e\",\"%c\"],\"logit_bias\":{\"%u\":-100}}", 'a' + (int)below(r, 26),
        10 + below(r, 50));
}

static void chat(text *t, uint64_t *r) {
    add(t, "{\"messages\":[{\"role\":\"user\",\"content\":\"%u ", below(r, 1000000));
    add_words(t, r, 1 + below(r, 3));
    add(t, "\"}],\"max_tokens\":%u,\"stream\":%s}", 1 + below(r, 6),
        below(r, 2) ? "true" : "false");
}

static void schema_known(text *t, uint64_t *r) {
    add(t, "{\"messages\":[{\"role\":\"user\",\"content\":\"%u\"}],\"max_tokens\":4,",
        below(r, 100000));
    add(t, "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\","
           "\"schema\":"
           "{\"type\":\"object\",\"required\":[\"n\"],\"properties\":{\"n\":{\"type\":"
           "\"integer\"}}}}}}");
}

/* A grammar that no request before had: it takes the place of another one. */
static void schema_new(text *t, uint64_t *r) {
    unique_prompt(t, r);
    add(t, ",\"guided_regex\":\"[a-c]{1,3} ?%x[0-9]{2}\"}", (unsigned)below(r, 1u << 24));
}

static void long_stream(text *t, uint64_t *r) {
    add(t, "{\"prompt\":\"%x\",\"max_tokens\":%u,\"ignore_eos\":true,\"stream\":true}",
        below(r, 1u << 30), 6 + below(r, 16));
}

static void in_time(text *t, uint64_t *r) {
    unique_prompt(t, r);
    add(t, ",\"timeout\":0.%03u}", 1 + below(r, 20));
}

static void bad_json(text *t, uint64_t *r) {
    add(t, "{\"prompt\":\"%u", below(r, 1000));
}
static void bad_value(text *t, uint64_t *r) {
    unique_prompt(t, r);
    add(t, ",\"top_p\":7}");
}
static void bad_schema(text *t, uint64_t *r) {
    unique_prompt(t, r);
    add(t, ",\"guided_regex\":\"[a\"}");
}
static void other_model(text *t, uint64_t *r) {
    unique_prompt(t, r);
    add(t, ",\"model\":\"other\"}");
}
static void too_long(text *t, uint64_t *r) {
    add(t, "{\"prompt\":\"");
    add_words(t, r, 600);
    add(t, "\",\"max_tokens\":4}");
}
static void nothing(text *t, uint64_t *r) {
    (void)t;
    (void)r;
}

/* Statuses are those that are right; 429 and 503 (a full queue, no memory for a request) always are. */
typedef struct op {
    const char *name, *path;
    uint32_t weight;                    /* of 1,000 */
    void (*write)(text *, uint64_t *r); /* appends the body; a GET has none */
    reader read;
    int status[2];
} op;

#define COMPLETIONS "/v1/completions"
static const op ops[] = {
    {"plain", COMPLETIONS, 300, plain, READ_ALL, {200}},
    {"shared prefix", COMPLETIONS, 130, shared, READ_ALL, {200}},
    {"logprobs", COMPLETIONS, 80, logprobs, READ_ALL, {200}},
    {"n", COMPLETIONS, 60, several, READ_ALL, {200}},
    {"stop", COMPLETIONS, 50, stopped, READ_ALL, {200}},
    {"chat", "/v1/chat/completions", 100, chat, READ_ALL, {200}},
    {"schema", "/v1/chat/completions", 30, schema_known, READ_ALL, {200}},
    {"new regex", COMPLETIONS, 20, schema_new, READ_ALL, {200}},
    {"cut", COMPLETIONS, 60, long_stream, READ_CUT, {200}},
    {"cut whole", COMPLETIONS, 20, plain, READ_CUT, {200}},
    {"slow reader", COMPLETIONS, 10, long_stream, READ_SLOWLY, {200}},
    {"deadline", COMPLETIONS, 20, in_time, READ_ALL, {200, 408}},
    {"bad json", COMPLETIONS, 20, bad_json, READ_ALL, {400}},
    {"bad value", COMPLETIONS, 20, bad_value, READ_ALL, {400}},
    {"bad regex", COMPLETIONS, 10, bad_schema, READ_ALL, {400}},
    {"other model", COMPLETIONS, 20, other_model, READ_ALL, {404}},
    {"too long", COMPLETIONS, 10, too_long, READ_ALL, {400}},
    {"no path", "/v1/nowhere", 10, plain, READ_ALL, {404}},
    {"metrics", "/metrics", 15, nothing, READ_ALL, {200}},
    {"memory", "/v1/memory", 10, nothing, READ_ALL, {200}},
    {"models", "/v1/models", 5, nothing, READ_ALL, {200}},
};
enum { N_OPS = sizeof ops / sizeof *ops };

static const op *pick(uint64_t *r) {
    uint32_t sum = 0, i = 0;
    for (size_t k = 0; k < N_OPS; k++) sum += ops[k].weight;
    for (uint32_t at = below(r, sum); at >= ops[i].weight; i++) at -= ops[i].weight;
    return &ops[i];
}

/* ---- connections ---- */

static void client_close(client *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

static void client_connect(soak *s, client *c) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s->port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1, little = 4096;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("soak_load: socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (c->op->read == READ_SLOWLY)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) != 0 && errno != EINPROGRESS)
        die("soak_load: connect");
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, c->fd, &e) != 0) die("soak_load: epoll_ctl");
    c->fresh = true;
}

static void send_some(client *c) {
    while (c->busy && c->sent < c->out.n) {
        ssize_t n = send(c->fd, c->out.v + c->sent, c->out.n - c->sent, MSG_NOSIGNAL);
        if (n <= 0) return; /* not yet connected, full, or broken: the reader sees it */
        c->sent += (size_t)n;
    }
}

static void send_request(soak *s, client *c) {
    c->sent = c->in.n = 0;
    c->n_reads = 0;
    if (c->op->read == READ_SLOWLY) client_close(c); /* a socket of its own, of little memory */
    if (c->fd < 0) client_connect(s, c);
    send_some(c);
}

static void next_request(soak *s, client *c) {
    static char storage[OUT_CAP];
    text body = {storage, 0, sizeof storage};
    c->busy = s->next < s->n;
    if (!c->busy) return client_close(c);
    uint64_t r = s->seed * 0x100000001b3u + (s->first + s->next++) * 0x9e3779b97f4a7c15u;
    draw(&r);
    do c->op = pick(&r);
    while (s->slow && c->op->read != READ_SLOWLY);
    c->op->write(&body, &r);
    c->cut_at = 1 + below(&r, 1500);
    c->wake_ms = 0;
    c->out.n = 0;
    storage[body.n] = 0;
    c->streams = strstr(storage, "\"stream\":true") != NULL;
    if (body.n == 0)
        add(&c->out, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", c->op->path);
    else
        add(&c->out,
            "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            "Content-Length: %zu\r\n\r\n%s",
            c->op->path, body.n, storage);
    send_request(s, c);
}

static void ended(soak *s, client *c, const char *wrong) {
    s->n_done++;
    s->ended[c->op - ops]++;
    if (wrong && s->n_wrong++ < MAX_WRONG)
        fprintf(stderr, "soak_load: %s: %s\n%s\n%.600s\n", c->op->name, wrong, c->out.v,
                c->in.v);
    if (wrong) client_close(c);
    next_request(s, c);
}

/* Whoever leaves has no answer that could be wrong. */
static void leave(soak *s, client *c) {
    s->n_left++;
    client_close(c);
    ended(s, c, NULL);
}

/* ---- answers ---- */

/* The end of a body in chunks, or NULL: not yet. */
static const char *chunks_end(const char *p, const char *end) {
    for (;;) {
        const char *line = memchr(p, '\n', (size_t)(end - p));
        if (!line) return NULL;
        unsigned long long n = strtoull(p, NULL, 16);
        p = line + 1;
        if (n + 2 > (unsigned long long)(end - p)) return NULL;
        p += n + 2;
        if (n == 0) return p;
    }
}

/* Whether the answer is whole; *close_after: no other one follows. */
static bool whole(const client *c, bool *close_after) {
    const char *head = strstr(c->in.v, "\r\n\r\n");
    *close_after = false;
    if (!head) return false;
    const char *body = head + 4, *end = c->in.v + c->in.n;
    const char *n = strcasestr(c->in.v, "\r\nContent-Length:");
    const char *close_line = strcasestr(c->in.v, "\r\nConnection: close");
    const char *chunked = strcasestr(c->in.v, "\r\nTransfer-Encoding: chunked");
    *close_after = close_line && close_line < head;
    if (chunked && chunked < head) return chunks_end(body, end) != NULL;
    return n && n < head && (size_t)(end - body) >= strtoull(n + 17, NULL, 10);
}

static const char *fault(const soak *s, const client *c) {
    int status = 0;
    if (sscanf(c->in.v, "HTTP/1.1 %d", &status) != 1) return "no status";
    if (s->any || status == 429 || status == 503) return NULL;
    if (status != c->op->status[0] && status != c->op->status[1]) return "another status";
    if (status == 200 && strstr(c->in.v, "\"server_error\"")) return "an error of the server's";
    const char *done = "data: [DONE]\n\n";
    if (status == 200 && c->streams && !strstr(c->in.v, done))
        return "a stream without its end";
    return NULL;
}

static void on_closed(soak *s, client *c) {
    client_close(c);
    if (!c->busy) return;
    /* An idle connection that the server closed: sent again, as clients do. */
    if (!c->fresh && c->in.n == 0) return send_request(s, c);
    if (s->any) return leave(s, c);
    ended(s, c, "closed before its end");
}

static void read_slowly(soak *s, client *c, size_t n) {
    if (++c->n_reads > 40 || n == 0) return;
    c->wake_ms = s->clock_ms + 5;
}

static void on_readable(soak *s, client *c) {
    while (c->fd >= 0 && c->wake_ms == 0) {
        size_t most =
            c->op->read == READ_SLOWLY && c->n_reads < 40 ? 256 : IN_CAP - 1 - c->in.n;
        if (most > IN_CAP - 1 - c->in.n) most = IN_CAP - 1 - c->in.n;
        if (most == 0) return ended(s, c, "an answer longer than 256 KiB");
        ssize_t n = recv(c->fd, c->in.v + c->in.n, most, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n <= 0) return on_closed(s, c);
        bool close_after;
        c->in.n += (size_t)n;
        c->in.v[c->in.n] = 0;
        if (!c->busy) return client_close(c);
        if (c->op->read == READ_CUT && c->in.n >= c->cut_at) return leave(s, c);
        if (whole(c, &close_after)) {
            c->fresh = false;
            const char *wrong = fault(s, c);
            if (close_after || c->op->read == READ_SLOWLY) client_close(c);
            return ended(s, c, wrong);
        }
        if (c->op->read == READ_SLOWLY) read_slowly(s, c, (size_t)n);
    }
}

/* ---- the loop ---- */

static void wake_readers(soak *s, client *c, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!c[i].wake_ms || c[i].wake_ms > s->clock_ms) continue;
        c[i].wake_ms = 0;
        on_readable(s, &c[i]);
    }
}

static void run(soak *s, client *c, size_t n) {
    uint64_t moved_ms = now_ms(), n_done = 0;
    for (size_t i = 0; i < n; i++) next_request(s, &c[i]);
    while (s->n_done < s->n) {
        struct epoll_event ev[64];
        int k = epoll_wait(s->epoll, ev, 64, 5);
        if (k < 0 && errno != EINTR) die("soak_load: epoll_wait");
        s->clock_ms = now_ms();
        for (int i = 0; i < k; i++) {
            client *x = ev[i].data.ptr;
            if (ev[i].events & EPOLLOUT) send_some(x);
            if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) on_readable(s, x);
        }
        wake_readers(s, c, n);
        if (s->n_done != n_done) moved_ms = s->clock_ms;
        n_done = s->n_done;
        if (s->clock_ms - moved_ms <= STALL_MS) continue;
        fprintf(stderr, "soak_load: no request ended for %d s\n", STALL_MS / 1000);
        exit(2);
    }
}

static void report(const soak *s) {
    printf("{\"requests\":%llu,\"left\":%llu,\"wrong\":%llu", (unsigned long long)s->n_done,
           (unsigned long long)s->n_left, (unsigned long long)s->n_wrong);
    for (size_t i = 0; i < N_OPS; i++)
        printf(",\"%s\":%llu", ops[i].name, (unsigned long long)s->ended[i]);
    printf("}\n");
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: soak_load PORT CONNECTIONS FIRST N [SEED [any|slow]]\n");
        return 2;
    }
    static uint64_t counts[N_OPS];
    soak s = {.port = atoi(argv[1]), .first = strtoull(argv[3], NULL, 10), .ended = counts};
    const size_t n = strtoul(argv[2], NULL, 10);
    s.n = strtoull(argv[4], NULL, 10);
    s.seed = argc > 5 ? strtoull(argv[5], NULL, 10) : 1;
    s.any = argc > 6 && strcmp(argv[6], "any") == 0;
    s.slow = argc > 6 && strcmp(argv[6], "slow") == 0;
    client *c = calloc(n, sizeof *c);
    s.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!c || s.epoll < 0) die("soak_load");
    for (size_t i = 0; i < n; i++) {
        c[i].fd = -1;
        c[i].op = ops;
        c[i].out = (text){malloc(OUT_CAP + 512), 0, OUT_CAP + 512};
        c[i].in = (text){malloc(IN_CAP), 0, IN_CAP};
        if (!c[i].out.v || !c[i].in.v) die("soak_load: memory");
        c[i].in.v[0] = 0;
    }
    run(&s, c, n);
    for (size_t i = 0; i < n; i++) {
        client_close(&c[i]);
        free(c[i].out.v);
        free(c[i].in.v);
    }
    free(c);
    report(&s);
    return s.n_wrong > 0;
}
