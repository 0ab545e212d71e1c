/* The worker team. Two words carry it: `epoch` counts barriers, `arrived` those who wait at the
 * present one. The last to arrive resets the shared work counter and opens the next epoch. A
 * job is published in `f` and `arg` before the barrier that starts it, so that the release of
 * `epoch` carries it to the workers. Runs on the engine thread and the workers. */
#include "engine/cpu/team.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/thread.h"
#include "memory/term.h"

/* How long to spin before sleeping: long against a phase of decoding (10 us), short against a
 * time slice of the scheduler. */
enum { SPIN_NS = 40000, PAUSES_PER_CLOCK = 32 };

typedef struct worker {
    team *team;
    uint32_t index;
    pthread_t thread;
} worker;

struct team {
    atomic_uint n; /* lowered only when a worker could not be started */
    worker *workers;
    team_fn f; /* the job; NULL: end */
    void *arg;
    bool alone;         /* the caller's own: the run is its alone */
    uint64_t waited_ns; /* the caller's own */
    _Alignas(64) atomic_uint epoch;
    _Alignas(64) atomic_uint arrived;
    _Alignas(64) atomic_uint next;
    _Alignas(64) atomic_uint sleepers;
};

static void epoch_sleep(team *t, unsigned old) {
    /* Sequentially consistent: either we see the new epoch here, or the opener sees us in
     * sleepers and wakes us. */
    atomic_fetch_add(&t->sleepers, 1);
    while (atomic_load(&t->epoch) == old)
        syscall(SYS_futex, &t->epoch, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&t->sleepers, 1);
}

/* Returns since when it waited, or 0 when it was too short to ask the clock. */
static uint64_t epoch_wait(team *t, unsigned old) {
    uint64_t since = 0;
    for (;;) {
        for (int i = 0; i < PAUSES_PER_CLOCK; i++) {
            if (atomic_load_explicit(&t->epoch, memory_order_acquire) != old) return since;
            thread_pause();
        }
        uint64_t now = clock_ns();
        if (since == 0) since = now;
        if (now >= since + SPIN_NS) break;
    }
    epoch_sleep(t, old);
    return since;
}

/* The caller is thread 0; it alone keeps account. */
static void team_meet(team *t, bool caller) {
    unsigned old = atomic_load_explicit(&t->epoch, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) + 1 < t->n) {
        uint64_t since = epoch_wait(t, old);
        if (caller && since) t->waited_ns += clock_ns() - since;
        return;
    }
    atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&t->next, 0, memory_order_relaxed);
    atomic_store(&t->epoch, old + 1);
    if (atomic_load(&t->sleepers))
        syscall(SYS_futex, &t->epoch, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

void team_barrier(team *t, uint32_t thread) {
    if (t->n > 1 && (thread != 0 || !t->alone))
        team_meet(t, thread == 0);
    else
        atomic_store_explicit(&t->next, 0, memory_order_relaxed);
}

uint32_t team_next(team *t, uint32_t n) {
    return atomic_fetch_add_explicit(&t->next, n, memory_order_relaxed);
}

uint32_t team_size(const team *t) {
    return t->n;
}

static void *worker_main(void *arg) {
    worker *w = arg;
    team *t = w->team;
    for (;;) {
        team_meet(t, false); /* a job is there */
        if (!t->f) return NULL;
        t->f(t->arg, w->index);
        team_meet(t, false); /* all have done it */
    }
}

void team_run_alone(team *t, team_fn f, void *arg) {
    t->alone = true;
    t->waited_ns = 0;
    atomic_store_explicit(&t->next, 0, memory_order_relaxed);
    f(arg, 0);
    t->alone = false;
}

void team_run(team *t, team_fn f, void *arg) {
    if (t->n == 1) {
        team_run_alone(t, f, arg);
        return;
    }
    t->f = f;
    t->arg = arg;
    t->waited_ns = 0;
    team_meet(t, true);
    f(arg, 0);
    team_meet(t, true);
}

uint64_t team_waited_ns(const team *t) {
    return t->waited_ns;
}

status team_open(team **out, uint32_t n, err *e) {
    CHECK(n >= 1 && n <= 256);
    team *t = aligned_alloc(64, align_up(sizeof *t, 64));
    worker *w = calloc(n, sizeof *w);
    if (!t || !w) {
        free(t);
        free(w);
        return mem_exhausted(e, MEM_RUNTIME, "a team of %u threads", n);
    }
    memset(t, 0, sizeof *t);
    atomic_init(&t->n, n);
    t->workers = w;
    for (uint32_t i = 1; i < n; i++) {
        w[i] = (worker){.team = t, .index = i};
        int code = thread_start(&w[i].thread, worker_main, &w[i]);
        if (code) {
            t->n = i; /* those that exist can be told to end */
            err_set(e, ERR_NO_MEMORY, "cannot start thread %u of %u (class runtime, error %d)",
                    i + 1, n, code);
            err_field(e, "threads");
            err_hint(e, "set fewer threads, or raise the limit on processes");
            team_close(t);
            return ERR_NO_MEMORY;
        }
    }
    *out = t;
    return OK;
}

void team_close(team *t) {
    if (!t) return;
    t->f = NULL;
    if (t->n > 1) team_meet(t, true);
    for (uint32_t i = 1; i < t->n; i++) pthread_join(t->workers[i].thread, NULL);
    free(t->workers);
    free(t);
}
