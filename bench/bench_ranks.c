/* What ranks pay to each other: from rank 0's post of a step to when another process has it (engine/group.h), and a
 * meeting of both. The step is of 32 decoding sequences at 4,096 tokens. gap_us: rank 0 posts so long after the step before,
 * beyond 20 us the other one sleeps by then. One JSON row a line.
 *
 *     bench_ranks */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "engine/group.h"
#include "engine/tables.h"

enum { N_SEQS = 32, LEN = 4096, BLOCK = 16, BLOCKS = LEN / BLOCK, ROUNDS = 3000 };

/* Beside the group's memory. */
typedef struct times {
    uint64_t got_ns[ROUNDS];
} times;

static int by_value(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void follow_all(void *memory, uint64_t n, times *out) {
    group g;
    err e;
    if (group_join(&g, memory, n, 1, "bench", &e) != OK) _exit(1);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        if (!group_await(&g)) _exit(1);
        out->got_ns[i] = clock_ns();
        if (!group_meet(&g)) _exit(1);
    }
    _exit(0);
}

static void print_row(const char *what, uint32_t gap_us, uint64_t bytes, uint64_t *ns) {
    qsort(ns, ROUNDS, sizeof *ns, by_value);
    printf("{\"what\": \"%s\", \"gap_us\": %u, \"bytes\": %llu, \"p50_us\": %.2f, \"p90_us\": "
           "%.2f, \"p99_us\": %.2f}\n",
           what, gap_us, (unsigned long long)bytes, (double)ns[ROUNDS / 2] / 1e3,
           (double)ns[ROUNDS * 9 / 10] / 1e3, (double)ns[ROUNDS * 99 / 100] / 1e3);
    fflush(stdout);
}

static void fill(batch *b, batch_seq *seq) {
    static int32_t tokens[LEN], blocks[BLOCKS];
    for (uint32_t i = 0; i < N_SEQS; i++)
        seq[i] = (batch_seq){.first_row = i,
                             .n_rows = 1,
                             .first_pos = LEN - 1,
                             .tokens = tokens,
                             .input_from = -1,
                             .blocks = {blocks},
                             .n_blocks = {BLOCKS},
                             .n_logit_rows = 1,
                             .n_score = -1,
                             .n_prompt = LEN};
    *b = (batch){.seq = seq, .n_seqs = N_SEQS, .n_rows = N_SEQS, .n_logit_rows = N_SEQS};
}

static int measure(uint32_t gap_us) {
    static uint64_t fills[ROUNDS], posts[ROUNDS], meets[ROUNDS];
    const tables_model m = {.n_vocab = 32000, .n_groups = 1, .block_tokens = BLOCK};
    batch_seq seq[N_SEQS];
    batch b;
    fill(&b, seq);
    const tables_shape s = tables_measure(&m, &b);
    const group_shape shape = {.n_ranks = 2,
                               .n_stages = 1,
                               .depth = 1,
                               .step_bytes = tables_lay(m.n_groups, &s).lists};
    const uint64_t n = group_lay(&shape).bytes, all = n + sizeof(times);
    void *memory = mmap(NULL, all, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    CHECK(memory != MAP_FAILED);
    times *got = (times *)(void *)((unsigned char *)memory + n);
    group g;
    group_init(&g, memory, &shape, "bench");
    const pid_t other = fork();
    CHECK(other >= 0);
    if (other == 0) follow_all(memory, n, got);
    bool ok = true;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < ROUNDS && ok; i++) {
        const uint64_t start = clock_ns();
        while (clock_ns() < start + gap_us * 1000u) {
        }
        const uint64_t t = clock_ns();
        bytes = tables_fill(group_step_at(&g, g.posted + 1), &m, &s, &b);
        const uint64_t filled = clock_ns();
        group_post(&g, bytes);
        const uint64_t posted = clock_ns();
        ok = group_meet(&g);
        fills[i] = filled - t;
        posts[i] = got->got_ns[i] - filled;
        meets[i] = clock_ns() - (got->got_ns[i] > posted ? got->got_ns[i] : posted);
    }
    int code = 1;
    waitpid(other, &code, 0);
    if (ok && code == 0) {
        print_row("tables", gap_us, bytes, fills);
        print_row("broadcast", gap_us, bytes, posts);
        print_row("meeting", gap_us, 0, meets);
    }
    munmap(memory, all);
    return ok && code == 0 ? 0 : 1;
}

int main(void) {
    static const uint32_t gaps[] = {0, 10, 300};
    int code = 0;
    for (size_t i = 0; i < sizeof gaps / sizeof *gaps; i++) code |= measure(gaps[i]);
    return code;
}
