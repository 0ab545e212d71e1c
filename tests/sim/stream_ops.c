/* make fuzz-sched: random streams of every kind (stream_kinds.h) in several processes, until so many
 * operations are done. A seed gives one stream. Stops at the first that fails, and names it.
 *
 *   stream_ops [OPERATIONS [PROCESSES [FIRST_SEED]]]     operations 0: that one seed alone */
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/stream_kinds.h"

enum { MOST_PROCESSES = 256, SHOW_S = 30 };

typedef struct worker { /* shared with the process */
    pid_t pid;
    uint64_t seed, n_ops, n_streams, n_ended, n_preemptions;
} worker;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void run_one(stream *m, worker *w, uint64_t seed) {
    w->seed = seed;
    stream_run_seed(m, seed);
    w->n_ops += m->n_ops;
    w->n_ended += m->n_ended;
    w->n_preemptions += m->n_preemptions;
    w->n_streams++;
}

static void work(worker *w, uint64_t seed, uint64_t step, uint64_t n_ops) {
    stream *m = malloc(sizeof *m);
    CHECK(m);
    for (; w->n_ops < n_ops; seed += step) run_one(m, w, seed);
    free(m);
}

static worker sum_of(const worker *w, int n) {
    worker sum = {0};
    for (int i = 0; i < n; i++) {
        sum.n_ops += w[i].n_ops;
        sum.n_streams += w[i].n_streams;
        sum.n_ended += w[i].n_ended;
        sum.n_preemptions += w[i].n_preemptions;
    }
    return sum;
}

static void show(const worker *w, int n, double start_s) {
    const worker sum = sum_of(w, n);
    const double s = now_s() - start_s;
    printf("%llu operations in %llu streams, %llu requests, %llu preemptions: %.0f s, %.0f "
           "operations/s\n",
           (unsigned long long)sum.n_ops, (unsigned long long)sum.n_streams,
           (unsigned long long)sum.n_ended, (unsigned long long)sum.n_preemptions, s,
           (double)sum.n_ops / s);
    fflush(stdout);
}

static void stop_all(const worker *w, int n) {
    for (int i = 0; i < n; i++)
        if (w[i].pid > 0) kill(w[i].pid, SIGKILL);
    while (wait(NULL) > 0) {
    }
}

/* 0, or 1 with the seed that failed. */
static int wait_all(worker *w, int n, double start_s) {
    double shown_s = start_s;
    for (int left = n; left > 0;) {
        int rc;
        const pid_t pid = waitpid(-1, &rc, WNOHANG);
        if (pid == 0) {
            usleep(100000);
            if (now_s() - shown_s > SHOW_S) show(w, n, start_s), shown_s = now_s();
            continue;
        }
        for (int i = 0; i < n; i++) {
            if (w[i].pid != pid) continue;
            w[i].pid = 0;
            left--;
            if (WIFEXITED(rc) && WEXITSTATUS(rc) == 0) continue;
            fprintf(stderr, "seed %llu failed: run again with 0 1 %llu\n",
                    (unsigned long long)w[i].seed, (unsigned long long)w[i].seed);
            stop_all(w, n);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    const uint64_t n_ops = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const long n = argc > 2 && *argv[2] ? strtol(argv[2], NULL, 10) : cpus;
    const uint64_t seed = argc > 3 && *argv[3] ? strtoull(argv[3], NULL, 10) : 1;
    worker *w = mmap(NULL, MOST_PROCESSES * sizeof *w, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (w == MAP_FAILED || n < 1 || n > MOST_PROCESSES) {
        fputs("usage: stream_ops [OPERATIONS [PROCESSES [FIRST_SEED]]]\n", stderr);
        return 2;
    }
    const double start_s = now_s();
    for (int i = 0; i < (int)n; i++) {
        const pid_t pid = fork();
        if (pid < 0) {
            perror("fork");
            stop_all(w, i);
            return 2;
        }
        if (pid == 0) {
            work(&w[i], seed + (uint64_t)i, (uint64_t)n, n_ops ? n_ops / (uint64_t)n + 1 : 1);
            _exit(0);
        }
        w[i].pid = pid;
    }
    const int rc = wait_all(w, (int)n, start_s);
    show(w, (int)n, start_s);
    return rc;
}
