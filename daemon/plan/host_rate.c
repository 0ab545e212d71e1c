/* See host_rate.h. */
#include "daemon/plan/host_rate.h"

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/thread.h"

enum { BYTES = 256 << 20, MOST = 256, PASSES = 3, SUMS = 8 };

typedef struct reader {
    pthread_t thread;
    uint64_t *at;
    size_t n;
    uint64_t sum; /* so that reading is not left out */
} reader;

static void *fill(void *arg) {
    reader *r = arg;
    memset(r->at, 1, r->n * sizeof *r->at);
    return NULL;
}

static void *read_all(void *arg) {
    reader *r = arg;
    uint64_t sum[SUMS] = {0};
    for (int pass = 0; pass < PASSES; pass++)
        for (size_t i = 0; i + SUMS <= r->n; i += SUMS)
            for (int k = 0; k < SUMS; k++) sum[k] += r->at[i + (size_t)k];
    for (int k = 0; k < SUMS; k++) r->sum += sum[k];
    return NULL;
}

/* On a thread each; what cannot be started is done here. */
static void run_all(reader *r, uint32_t n, void *(*what)(void *)) {
    bool started[MOST] = {false};
    for (uint32_t i = 1; i < n; i++) started[i] = thread_start(&r[i].thread, what, &r[i]) == 0;
    for (uint32_t i = 0; i < n; i++)
        if (!started[i]) what(&r[i]);
    for (uint32_t i = 1; i < n; i++)
        if (started[i]) pthread_join(r[i].thread, NULL);
}

double host_rate_measure(uint32_t n_threads, uint64_t most) {
    reader r[MOST];
    const uint32_t n = n_threads < 1 ? 1 : n_threads < MOST ? n_threads : MOST;
    const size_t bytes = most < BYTES ? (size_t)most : BYTES;
    const size_t share = bytes / sizeof(uint64_t) / n;
    uint64_t sum = 0;
    if (share == 0) return 0;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return 0;
    for (uint32_t i = 0; i < n; i++)
        r[i] = (reader){.at = (uint64_t *)p + i * share, .n = share};
    run_all(r, n, fill);
    const uint64_t since = clock_ns();
    run_all(r, n, read_all);
    const uint64_t ns = clock_ns() - since;
    for (uint32_t i = 0; i < n; i++) sum += r[i].sum;
    munmap(p, bytes);
    return sum && ns ? (double)share * sizeof(uint64_t) * n * PASSES * 1e9 / (double)ns : 0;
}
