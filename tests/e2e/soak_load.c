/* Mixed requests over many connections at once, for tests of what a server holds after millions of
 * them (soak_flat.py), over bench/http_client.h. The requests are a function of a seed and their
 * numbers.
 *
 *   soak_load PORT CONNECTIONS FIRST N [SEED [any|slow]]
 * Sends requests FIRST ... FIRST + N - 1 of the seed to 127.0.0.1:PORT and prints one line of
 * JSON: counts by operation and end. Exit code 1 when an answer was wrong: its status is none of the
 * operation's, or it is cut short, or it reports an error of the server's. any: the server is
 * another one, statuses are not compared. slow: slow readers of streams alone. Operations are the rows of the table below. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/http_client.h"

enum { MOST_BODY = 1 << 18, STALL_MS = 120000, MAX_WRONG = 5, LITTLE = 4096 };

/* What the client does with the answer. */
typedef enum reader { READ_ALL, READ_CUT, READ_SLOWLY } reader;

struct op;

typedef struct client {
    connection c; /* first: what http_client hands over */
    const struct op *op;
    text body, answer;
    bool streams;
    size_t cut_at;    /* READ_CUT: it leaves after so many bytes of the answer */
    uint64_t wake_ms; /* READ_SLOWLY: nothing is read before; 0: reading */
    size_t seen;      /* READ_SLOWLY: bytes of the reads that are counted ... */
    uint32_t n_reads;
} client;

typedef struct soak {
    http_client http; /* first */
    uint64_t seed, first, n, next, n_done, n_wrong, n_left, clock_ms;
    bool any, slow;
    uint64_t *ended; /* [operations] */
} soak;

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

/* ---- the operations ---- */

/* Words that the vocabularies of the tests have. */
static void add_words(text *t, uint64_t *r, uint32_t n) {
    static const char *const word[] = {"river",  "engine", "winter",  "garden",   "paper",
                                       "signal", "castle", "harbour", "mountain", "letter"};
    for (uint32_t i = 0; i < n; i++) text_addf(t, i ? " %s" : "%s", word[below(r, 10)]);
}

static void unique_prompt(text *t, uint64_t *r) {
    text_addf(t, "{\"prompt\":\"%x ", (unsigned)draw(r));
    add_words(t, r, 1 + below(r, 3));
    text_addf(t, "\",\"max_tokens\":%u,\"temperature\":%s,\"seed\":%u,\"ignore_eos\":%s",
              1 + below(r, 3), below(r, 2) ? "0" : "0.8", below(r, 1000),
              below(r, 2) ? "true" : "false");
}

static void plain(text *t, uint64_t *r) {
    unique_prompt(t, r);
    text_addf(t, ",\"stream\":%s}", below(r, 2) ? "true" : "false");
}

/* One of eight beginnings: hits in the prefix cache. */
static void shared(text *t, uint64_t *r) {
    uint64_t beginning = 77 + below(r, 8);
    text_addf(t, "{\"prompt\":\"");
    add_words(t, &beginning, 10);
    text_addf(t, " %u\",\"max_tokens\":%u,\"ignore_eos\":true}", below(r, 100000),
              1 + below(r, 4));
}

static void logprobs(text *t, uint64_t *r) {
    unique_prompt(t, r);
    text_addf(t, ",\"logprobs\":%u,\"echo\":%s}", 1 + below(r, 5),
              below(r, 3) ? "false" : "true");
}

static void several(text *t, uint64_t *r) {
    unique_prompt(t, r);
    text_addf(t, ",\"n\":%u,\"stream\":%s}", 2 + below(r, 3), below(r, 2) ? "true" : "false");
}

static void stopped(text *t, uint64_t *r) {
    unique_prompt(t, r);
    text_addf(t, ",\"stop\":[\"e\",\"%c\"],\"logit_bias\":{\"%u\":-100}}",
              'a' + (int)below(r, 26), 10 + below(r, 50));
}

static void chat(text *t, uint64_t *r) {
    text_addf(t, "{\"messages\":[{\"role\":\"user\",\"content\":\"%u ", below(r, 1000000));
    add_words(t, r, 1 + below(r, 3));
    text_addf(t, "\"}],\"max_tokens\":%u,\"stream\":%s}", 1 + below(r, 6),
              below(r, 2) ? "true" : "false");
}

static void schema_known(text *t, uint64_t *r) {
    text_addf(t, "{\"messages\":[{\"role\":\"user\",\"content\":\"%u\"}],\"max_tokens\":4,",
              below(r, 100000));
    text_addf(t,
              "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\","
              "\"schema\":"
              "{\"type\":\"object\",\"required\":[\"n\"],\"properties\":{\"n\":{\"type\":"
              "\"integer\"}}}}}}");
}

/* A grammar that no request before had: it takes the place of another one. */
static void schema_new(text *t, uint64_t *r) {
    unique_prompt(t, r);
    text_addf(t, ",\"guided_regex\":\"[a-c]{1,3} ?%x[0-9]{2}\"}", (unsigned)below(r, 1u << 24));
}

static void long_stream(text *t, uint64_t *r) {
    text_addf(t, "{\"prompt\":\"%x\",\"max_tokens\":%u,\"ignore_eos\":true,\"stream\":true}",
              below(r, 1u << 30), 6 + below(r, 16));
}

static void in_time(text *t, uint64_t *r) {
    unique_prompt(t, r);
    text_addf(t, ",\"timeout\":0.%03u}", 1 + below(r, 20));
}

static void bad_json(text *t, uint64_t *r) {
    text_addf(t, "{\"prompt\":\"%u", below(r, 1000));
}
static void bad_value(text *t, uint64_t *r) {
    unique_prompt(t, r);
    text_addf(t, ",\"top_p\":7}");
}
static void bad_schema(text *t, uint64_t *r) {
    unique_prompt(t, r);
    text_addf(t, ",\"guided_regex\":\"[a\"}");
}
static void other_model(text *t, uint64_t *r) {
    unique_prompt(t, r);
    text_addf(t, ",\"model\":\"other\"}");
}
static void too_long(text *t, uint64_t *r) {
    text_addf(t, "{\"prompt\":\"");
    add_words(t, r, 600);
    text_addf(t, "\",\"max_tokens\":4}");
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

/* ---- requests and answers ---- */

static void next_request(soak *s, client *x) {
    x->c.busy = s->next < s->n;
    if (!x->c.busy) {
        connection_close(&x->c);
        return;
    }
    uint64_t r = s->seed * 0x100000001b3u + (s->first + s->next++) * 0x9e3779b97f4a7c15u;
    draw(&r);
    do x->op = pick(&r);
    while (s->slow && x->op->read != READ_SLOWLY);
    x->body.n = x->answer.n = x->seen = x->n_reads = 0;
    text_add(&x->body, "", 0);
    text_add(&x->answer, "", 0);
    x->op->write(&x->body, &r);
    x->cut_at = 1 + below(&r, 1500);
    x->wake_ms = 0;
    x->streams = strstr(x->body.v, "\"stream\":true") != NULL;
    /* A slow reader has a socket of its own, of little memory. */
    x->c.receive_buffer = x->op->read == READ_SLOWLY ? LITTLE : 0;
    if (x->c.receive_buffer) connection_close(&x->c);
    connection_request(&s->http, &x->c, x->op->path, x->body.n ? x->body.v : NULL);
    connection_send(&s->http, &x->c);
}

static void ended(soak *s, client *x, const char *wrong) {
    s->n_done++;
    s->ended[x->op - ops]++;
    if (wrong && s->n_wrong++ < MAX_WRONG)
        fprintf(stderr, "soak_load: %s: %s\n%s\n%d %.600s\n", x->op->name, wrong, x->c.out.v,
                x->c.status, x->answer.v);
    if (wrong || x->op->read == READ_SLOWLY) connection_close(&x->c);
    next_request(s, x);
}

/* Whoever leaves has no answer that could be wrong. */
static void leave(soak *s, client *x) {
    s->n_left++;
    connection_close(&x->c);
    ended(s, x, NULL);
}

static bool is_cut(const client *x) {
    return x->op->read == READ_CUT && x->c.n_read >= x->cut_at;
}

static const char *fault(const soak *s, const client *x) {
    const int status = x->c.status;
    if (status == 0) return "no status";
    if (s->any || status == 429 || status == 503) return NULL;
    if (x->c.at == HTTP_TO_CLOSE) return "neither a length nor chunks";
    if (status != x->op->status[0] && status != x->op->status[1]) return "another status";
    if (status == 200 && strstr(x->answer.v, "\"server_error\""))
        return "an error of the server's";
    if (status == 200 && x->streams && !strstr(x->answer.v, "data: [DONE]\n\n"))
        return "a stream without its end";
    return NULL;
}

static void on_body(http_client *h, connection *c, const char *p, size_t n) {
    (void)h;
    client *x = (client *)c;
    if (x->answer.n < MOST_BODY) text_add(&x->answer, p, n);
}

static void on_end(http_client *h, connection *c, const char *why) {
    soak *s = (soak *)h;
    client *x = (client *)c;
    if (is_cut(x) || (why && s->any))
        leave(s, x);
    else
        ended(s, x, why ? why : fault(s, x));
}

/* A slow reader waits after each of its first 40 reads. */
static bool waits(soak *s, client *x) {
    if (x->op->read != READ_SLOWLY) return false;
    if (x->c.n_read > x->seen && x->n_reads < 40) {
        x->seen = x->c.n_read;
        x->n_reads++;
        x->wake_ms = s->clock_ms + 5;
    }
    return x->wake_ms != 0;
}

static size_t may_read(http_client *h, connection *c) {
    soak *s = (soak *)h;
    client *x = (client *)c;
    while (c->busy && is_cut(x)) leave(s, x);
    if (c->busy && x->answer.n >= MOST_BODY) ended(s, x, "an answer longer than 256 KiB");
    if (!c->busy) return MOST_BODY;
    if (waits(s, x)) return 0;
    return x->op->read == READ_SLOWLY && x->n_reads < 40 ? 256 : MOST_BODY;
}

/* ---- the loop ---- */

static void wake_readers(soak *s, client *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!x[i].wake_ms || x[i].wake_ms > s->clock_ms) continue;
        x[i].wake_ms = 0;
        connection_read(&s->http, &x[i].c);
    }
}

static void run(soak *s, client *x, size_t n) {
    uint64_t moved_ms = now_ms(), n_done = 0;
    for (size_t i = 0; i < n; i++) next_request(s, &x[i]);
    while (s->n_done < s->n) {
        http_client_wait(&s->http, 5);
        s->clock_ms = now_ms();
        wake_readers(s, x, n);
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
    soak s = {.http = {.on_body = on_body, .on_end = on_end, .may_read = may_read},
              .first = strtoull(argv[3], NULL, 10),
              .clock_ms = now_ms(),
              .ended = counts};
    http_client_open(&s.http, "soak_load", atoi(argv[1]));
    const size_t n = strtoul(argv[2], NULL, 10);
    s.n = strtoull(argv[4], NULL, 10);
    s.seed = argc > 5 ? strtoull(argv[5], NULL, 10) : 1;
    s.any = argc > 6 && strcmp(argv[6], "any") == 0;
    s.slow = argc > 6 && strcmp(argv[6], "slow") == 0;
    client *x = calloc(n, sizeof *x);
    if (!x) http_die(&s.http, "calloc");
    for (size_t i = 0; i < n; i++) {
        x[i].c.fd = -1;
        x[i].op = ops;
    }
    run(&s, x, n);
    for (size_t i = 0; i < n; i++) {
        connection_free(&x[i].c);
        free(x[i].body.v);
        free(x[i].answer.v);
    }
    free(x);
    report(&s);
    return s.n_wrong > 0;
}
