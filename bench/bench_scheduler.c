/* module: sim */
/* What a step costs the engine thread: sched_plan, sched_commit and reading the events, without
 * an engine, the prefix cache on. "decode": every sequence decodes. "churn": prompts of 128,
 * texts of 64 tokens, each end replaced by a new arrival, so that steps admit, prefill, end and
 * free too. "shared": likewise, and all prompts begin with the same 112 tokens. "window":
 * decode, with a second group of layers that has a window. "uncached": decode without the
 * cache. "blocked": decode, while a slot is free and sequences wait that have no room. Prints JSON.
 *
 *   bench_scheduler [STEPS] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/check.h"
#include "base/hash.h"
#include "scheduler/sched.h"

enum {
    BLOCK_TOKENS = 16,
    MODEL_LEN = 8192,
    CHURN_PROMPT = 128,
    CHURN_TEXT = 64,
    VARIETY = 4093, /* prompts that differ from the first token on */
    WINDOW = 1024,
    BLOCKED = 32, /* that wait */
    WARM_UP = 200
};

typedef struct run {
    sched *s;
    uint32_t n_seqs, n_prompt, max_tokens;
    int32_t *prompt, *tokens;
    bool same;
    uint64_t now_us, n_decode_rows, n_rows, n_submitted;
} run;

static double clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void submit(run *r) {
    const int32_t *prompt = r->prompt + (r->same ? 0 : r->n_submitted++ % VARIETY);
    sched_spec spec = {.prompt = prompt, .n_prompt = r->n_prompt, .max_tokens = r->max_tokens};
    sched_id id;
    CHECK(sched_submit(r->s, &spec, r->now_us, &id) == REJECT_NONE);
}

/* Handles the events as the daemon's loop does: each is looked at once. */
static uint32_t count_ended(run *r) {
    const sched_event *e;
    uint32_t n_ended = 0;
    for (size_t n = sched_events(r->s, &e); n > 0; n--, e++) n_ended += e->kind == EVENT_ENDED;
    return n_ended;
}

/* Nanoseconds of one step. */
static double step_once(run *r) {
    double start = clock_ns();
    const sched_step *st = sched_plan(r->s, ++r->now_us);
    CHECK(st);
    uint32_t n_ended = count_ended(r);
    r->n_decode_rows += st->n_decode_rows;
    r->n_rows += st->n_rows;
    const sched_step_tokens drawn = {.token = r->tokens, .stride = 1};
    sched_commit(r->s, st, &drawn);
    n_ended += count_ended(r);
    double took = clock_ns() - start;
    while (n_ended-- > 0) submit(r);
    return took;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* As the daemon's arena of the scheduler is allocated (memory/ledger.c). */
static void *huge_pages(size_t bytes) {
    const size_t page = 2 << 20, n = (bytes + page - 1) / page * page;
    void *mem = aligned_alloc(page, n);
    CHECK(mem);
    madvise(mem, n, MADV_HUGEPAGE);
    return mem;
}

typedef struct bench_case {
    const char *name;
    bool churn, same, window, uncached, blocked;
} bench_case;

static void measure(const bench_case *k, uint32_t n_seqs, uint32_t n_steps, bool first) {
    static const int32_t end_tokens[] = {2, 3, 4}; /* looked for, never drawn */
    const bool churn = k->churn;
    uint32_t len = churn ? CHURN_PROMPT + CHURN_TEXT : MODEL_LEN;
    sched_config cfg = {.n_groups = 1,
                        .block_tokens = BLOCK_TOKENS,
                        .max_seqs = n_seqs + k->blocked,
                        .max_waiting = n_seqs + 1 + (k->blocked ? BLOCKED : 0),
                        .max_waiting_tokens = UINT64_MAX / 2,
                        .max_model_len = len,
                        .max_rows = n_seqs + 512,
                        .max_logit_rows = n_seqs + 1,
                        .watermark_permille = k->blocked ? 990 : 50,
                        .prefix_cache = !k->uncached,
                        .n_end_tokens = 3,
                        .end_tokens = end_tokens};
    cfg.group[0].n_blocks = n_seqs * (len / BLOCK_TOKENS) * 21 / 20 + 1;
    if (k->window) {
        cfg.n_groups = 2;
        cfg.group[1] = (sched_group){.window = WINDOW};
        cfg.group[1].n_blocks =
            (uint32_t)(n_seqs * kv_window_blocks(WINDOW, BLOCK_TOKENS, 2 * cfg.max_rows));
    }
    size_t bytes = sched_bytes(&cfg);
    run r = {.same = k->same, .n_seqs = n_seqs, .n_prompt = churn ? CHURN_PROMPT : 16};
    r.max_tokens = len - r.n_prompt;
    void *mem = huge_pages(bytes);
    r.prompt = calloc(len + VARIETY, sizeof *r.prompt);
    r.tokens = calloc(n_seqs, sizeof *r.tokens);
    double *ns = calloc(n_steps, sizeof *ns);
    CHECK(bytes && r.prompt && r.tokens && ns);
    memset(mem, 0, bytes);
    for (uint32_t i = 0; i < len + VARIETY; i++) r.prompt[i] = (int32_t)(hash_mix(i) % 50000);
    r.s = sched_init(mem, &cfg);
    for (uint32_t i = 0; i < n_seqs; i++) submit(&r);
    for (int i = 0; i < WARM_UP; i++) step_once(&r);
    for (int i = 0; k->blocked && i < BLOCKED; i++) submit(&r);
    r.n_decode_rows = r.n_rows = 0;
    for (uint32_t i = 0; i < n_steps; i++) ns[i] = step_once(&r);
    qsort(ns, n_steps, sizeof *ns, by_value);
    sched_stats st;
    sched_read(r.s, &st);
    printf("%s  {\"case\": \"%s\", \"running\": %u, \"steps\": %u, \"rows_per_step\": %.1f, "
           "\"decode_rows_per_step\": %.1f, \"min_us\": %.3f, \"p50_us\": %.3f, "
           "\"p99_us\": %.3f, \"preemptions\": %llu, \"found_tokens\": %llu, \"bytes\": %zu}",
           first ? "" : ",\n", k->name, n_seqs, n_steps, (double)r.n_rows / n_steps,
           (double)r.n_decode_rows / n_steps, ns[0] / 1e3, ns[n_steps / 2] / 1e3,
           ns[(size_t)n_steps * 99 / 100] / 1e3, (unsigned long long)st.count.preemptions,
           (unsigned long long)st.count.prefix_cache_hits, bytes);
    free(mem);
    free(r.prompt);
    free(r.tokens);
    free(ns);
}

/* The value of the first line of /proc/cpuinfo with this key. */
static void print_cpu(const char *key) {
    char line[8192];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key)) != 0) continue;
        line[strcspn(line, "\n")] = 0;
        char *at = strchr(line, ':');
        printf("%s", at && at[1] ? at + 2 : "");
        break;
    }
    if (f) fclose(f);
}

int main(int argc, char **argv) {
    /* At most so many that no sequence of "decode" ends. */
    long steps = argc > 1 ? strtol(argv[1], NULL, 10) : 5000;
    if (steps < 1 || steps > MODEL_LEN - WARM_UP - 1024) {
        fprintf(stderr, "bench_scheduler: STEPS must be 1 to %d\n", MODEL_LEN - WARM_UP - 1024);
        return 2;
    }
    static const uint32_t sizes[] = {1, 32, 256, 1024};
    printf("{\"bench\": \"scheduler\", \"cpu\": \"");
    print_cpu("model name");
    printf("\", \"flags\": \"");
    print_cpu("flags");
    printf("\",\n\"rows\": [\n");
    static const bench_case cases[] = {
        {.name = "decode"},
        {.name = "churn", .churn = true},
        {.name = "shared", .churn = true, .same = true},
        {.name = "window", .window = true},
        {.name = "uncached", .uncached = true},
        {.name = "blocked", .blocked = true},
        {.name = "uncached churn", .churn = true, .uncached = true}};
    for (uint32_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (uint32_t i = 0; i < 4; i++)
            measure(&cases[c], sizes[i], (uint32_t)steps, c + i == 0);
    printf("\n]}\n");
    return 0;
}
