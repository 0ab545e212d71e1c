/* A load generator that costs next to nothing, so that two servers can be compared on the two
 * cores they run on (http_client.h).
 *
 *   load PORT STREAMS BODIES.jsonl [PATH]
 * Sends each line of BODIES as one POST to 127.0.0.1:PORT PATH (/v1/completions), at most
 * STREAMS at once, each stream one keep-alive connection, and reads the answers: SSE or plain
 * JSON, chunked or with a length. Prints one JSON line a request, in the order of their ends:
 *   {"line","status","ok","why","start_us","ttft_us","total_us","events","tokens","gaps_us":[]}
 * ttft_us: send to first event (or body); gaps_us: between events; tokens: the answer's
 * "completion_tokens"; ok: 200, complete, no error in it, and [DONE] if it was a stream. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/http_client.h"

enum { MAX_GAPS = 4096, TIMEOUT_MS = 120000 };

typedef struct stream {
    connection c; /* first: what http_client hands over */
    size_t line;  /* which body */
    text body;    /* of the answer, as far as it is not read */
    bool done_seen, error_seen;
    uint64_t start, first, last;
    uint32_t n_events, n_gaps;
    long tokens;
    uint32_t gaps[MAX_GAPS];
} stream;

typedef struct load {
    http_client http; /* first */
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

static void stream_next(load *l, stream *s) {
    s->c.busy = l->next < l->n_bodies;
    if (!s->c.busy) return;
    s->line = l->next++;
    connection_request(&l->http, &s->c, l->path, l->body[s->line]);
    s->body.n = 0;
    s->done_seen = s->error_seen = false;
    s->first = s->last = s->n_events = s->n_gaps = 0;
    s->tokens = -1;
    s->start = now_us();
    connection_send(&l->http, &s->c);
}

static void finish(load *l, stream *s, const char *why) {
    uint64_t end = now_us();
    if (!why && s->c.status != 200) why = "status";
    if (!why && s->error_seen) why = "error in the answer";
    if (!why && s->c.sse && !s->done_seen) why = "no [DONE]";
    l->n_done++;
    if (why) l->n_failed++;
    printf("{\"line\":%zu,\"status\":%d,\"ok\":%s,\"why\":\"%s\",\"start_us\":%llu,\"ttft_us\":"
           "%llu,\"total_us\":%llu,\"events\":%u,\"tokens\":%ld,\"gaps_us\":[",
           s->line, s->c.status, why ? "false" : "true", why ? why : "",
           (unsigned long long)(s->start - l->t0),
           (unsigned long long)(s->first ? s->first - s->start : 0),
           (unsigned long long)(end - s->start), s->n_events, s->tokens);
    for (uint32_t i = 0; i < s->n_gaps; i++) printf("%s%u", i ? "," : "", s->gaps[i]);
    printf("]}\n");
    if (why) connection_close(&s->c);
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

static void on_body(http_client *h, connection *c, const char *p, size_t n) {
    (void)h;
    stream *s = (stream *)c;
    text_add(&s->body, p, n);
    if (!c->sse) {
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

static void on_end(http_client *h, connection *c, const char *why) {
    stream *s = (stream *)c;
    if (!c->sse && s->body.n) look_for_usage(s, s->body.v);
    finish((load *)h, s, why);
}

static void read_bodies(load *l, const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) http_die(&l->http, path);
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, f)) > 0) {
        if (line[n - 1] == '\n') line[n - 1] = 0;
        l->body = realloc(l->body, (l->n_bodies + 1) * sizeof *l->body);
        if (!l->body || !(l->body[l->n_bodies++] = strdup(line))) http_die(&l->http, "memory");
    }
    free(line);
    fclose(f);
}

static void run(load *l, stream *s, size_t n_streams) {
    for (size_t i = 0; i < n_streams; i++) {
        s[i].c.fd = -1;
        stream_next(l, &s[i]);
    }
    while (l->n_done < l->n_bodies) {
        if (http_client_wait(&l->http, TIMEOUT_MS) > 0) continue;
        fprintf(stderr, "load: nothing happened for %d s; %zu of %zu answered\n",
                TIMEOUT_MS / 1000, l->n_done, l->n_bodies);
        exit(2);
    }
}

int main(int argc, char **argv) {
    if (argc < 4) return fprintf(stderr, "usage: load PORT STREAMS BODIES.jsonl [PATH]\n"), 2;
    load l = {.http = {.on_body = on_body, .on_end = on_end},
              .path = argc > 4 ? argv[4] : "/v1/completions"};
    http_client_open(&l.http, "load", atoi(argv[1]));
    size_t n_streams = strtoul(argv[2], NULL, 10);
    read_bodies(&l, argv[3]);
    if (!n_streams || n_streams > 4096 || !l.n_bodies)
        return fprintf(stderr, "load: 1..4096 streams and at least one body\n"), 2;
    if (n_streams > l.n_bodies) n_streams = l.n_bodies;
    stream *s = calloc(n_streams, sizeof *s);
    if (!s) http_die(&l.http, "calloc");
    l.t0 = now_us();
    run(&l, s, n_streams);
    for (size_t i = 0; i < n_streams; i++) {
        connection_free(&s[i].c);
        free(s[i].body.v);
    }
    free(s);
    for (size_t i = 0; i < l.n_bodies; i++) free(l.body[i]);
    free(l.body);
    return l.n_failed ? 3 : 0;
}
