/* Meetings, steps and states of a group, by words in shared memory and futexes on them. A rank spins for
 * a moment before it sleeps: ranks meet every few microseconds of a step. */
#include "engine/group.h"

#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"

/* Short, since with as many threads as cores a rank that spins keeps another from coming. */
enum { SPIN_NS = 20000, PAUSES_PER_CLOCK = 32, SLICE_MS = 100 };

static inline void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

group_place group_lay(const group_shape *s) {
    const uint64_t most = 1ull << 62;
    group_place p = {0};
    if (s->step_bytes > most / 4 || s->values_bytes > most / 4 || s->logits_bytes > most / 4)
        return p;
    p.ranks = align_up(sizeof(group_head), 64);
    p.note = align_up(p.ranks + s->n_ranks * sizeof(group_rank), 64);
    p.step = align_up(p.note + GROUP_NOTE_BYTES, 4096);
    p.values = align_up(p.step + s->step_bytes, 4096);
    p.logits = align_up(p.values + s->values_bytes, 4096);
    p.bytes = align_up(p.logits + s->logits_bytes, 4096);
    return p;
}

/* ---- a group ---- */

static void open_group(group *g, void *base, const group_shape *s, uint32_t rank) {
    *g = (group){.base = base,
                 .at = group_lay(s),
                 .rank = rank,
                 .n_ranks = s->n_ranks,
                 .deadline_ms = GROUP_DEADLINE_MS};
}

void group_init(group *g, void *base, const group_shape *s, const char *build) {
    CHECK(s->n_ranks >= 1 && s->n_ranks <= GROUP_MAX);
    open_group(g, base, s, 0);
    group_head *h = group_head_of(g);
    h->magic = GROUP_MAGIC;
    h->version = GROUP_VERSION;
    h->shape = *s;
    snprintf(h->build, sizeof h->build, "%s", build);
}

status group_join(group *g, void *base, uint64_t n, uint32_t rank, const char *build, err *e) {
    const group_head *h = base;
    if (n < sizeof *h || h->magic != GROUP_MAGIC)
        return err_set(e, ERR_UNAVAILABLE, "rank %u: what it was given is no memory of a group",
                       rank);
    if (h->version != GROUP_VERSION || strncmp(h->build, build, sizeof h->build) != 0) {
        err_set(e, ERR_UNAVAILABLE,
                "rank %u is vramd %s (group version %d), and rank 0 vramd %.60s (%u)", rank,
                build, GROUP_VERSION, h->build, h->version);
        return err_hint(e, "start all ranks from one installation");
    }
    const group_shape s = h->shape;
    if (s.n_ranks > GROUP_MAX || rank == 0 || rank >= s.n_ranks || group_lay(&s).bytes != n)
        return err_set(e, ERR_UNAVAILABLE, "rank %u: the memory of the group has another size",
                       rank);
    open_group(g, base, &s, rank);
    return OK;
}

/* ---- waiting ---- */

static void wake(group *g, atomic_uint *word) {
    if (atomic_load(&group_head_of(g)->sleepers))
        syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* Until the word is no longer old, for SLICE_MS at most; returns the milliseconds that count: a process
 * that was itself stopped has not waited for another. */
static uint32_t sleep_on(group *g, atomic_uint *word, unsigned old) {
    const struct timespec slice = {.tv_nsec = SLICE_MS * 1000000L};
    const uint64_t start = now_ns();
    group_head *h = group_head_of(g);
    /* Sequentially consistent: either the word has changed here, or who changes it sees us. */
    atomic_fetch_add(&h->sleepers, 1);
    if (atomic_load(word) == old) syscall(SYS_futex, word, FUTEX_WAIT, old, &slice, NULL, 0);
    atomic_fetch_sub(&h->sleepers, 1);
    const uint64_t ms = (now_ns() - start) / 1000000;
    return ms < 2 * SLICE_MS ? (uint32_t)ms : 2 * SLICE_MS;
}

/* Spins until the word is not old. False: it still is. */
static bool spin_on(const atomic_uint *word, unsigned old) {
    const uint64_t start = now_ns();
    do {
        for (int i = 0; i < PAUSES_PER_CLOCK; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != old) return true;
            cpu_relax();
        }
    } while (now_ns() < start + SPIN_NS);
    return false;
}

bool group_is_broken(const group *g) {
    return atomic_load_explicit(&group_head_of(g)->broken, memory_order_acquire) != 0;
}

static bool break_it(group *g) {
    unsigned none = 0;
    atomic_compare_exchange_strong(&group_head_of(g)->broken, &none, 1 + g->rank);
    return false;
}

void group_break(group *g, const err *why) {
    if (!group_is_broken(g)) group_rank_of(g, g->rank)->error = *why;
    break_it(g);
}

status group_error(const group *g, err *e) {
    const unsigned by = atomic_load(&group_head_of(g)->broken);
    if (by == 0) return OK;
    const err said = group_rank_of(g, by - 1)->error;
    if (said.code != OK) {
        *e = said;
        e->code = ERR_DEVICE;
        return e->code;
    }
    return err_set(e, ERR_DEVICE, "rank %u found the group broken", by - 1);
}

/* ---- meetings ---- */

static bool has_come(const group *g, uint32_t rank, unsigned *met) {
    *met = atomic_load_explicit(&group_rank_of(g, rank)->met, memory_order_acquire);
    return (int32_t)(*met - g->met) >= 0;
}

static bool give_up(group *g, uint32_t rank) {
    err e;
    err_set(&e, ERR_DEVICE, "rank %u of %u did not answer within %u ms", rank, g->n_ranks,
            g->deadline_ms);
    group_break(g, &e);
    return false;
}

static bool wait_for(group *g, uint32_t rank) {
    atomic_uint *word = &group_rank_of(g, rank)->met;
    uint32_t waited = 0;
    unsigned met;
    while (!has_come(g, rank, &met)) {
        if (group_is_broken(g)) return false;
        if (waited == 0 && spin_on(word, met)) continue;
        if (waited >= g->deadline_ms) return give_up(g, rank);
        waited += sleep_on(g, word, met) + 1;
    }
    return true;
}

bool group_meet(group *g) {
    group_rank *own = group_rank_of(g, g->rank);
    if (group_is_broken(g)) return false;
    atomic_store(&own->met, ++g->met);
    wake(g, &own->met);
    for (uint32_t i = 0; i < g->n_ranks; i++)
        if (i != g->rank && !wait_for(g, i)) return false;
    return true;
}

/* ---- steps ---- */

void group_post(group *g, uint64_t bytes) {
    group_head *h = group_head_of(g);
    h->step_bytes = bytes;
    atomic_store(&h->posted, ++g->posted);
    wake(g, &h->posted);
}

uint64_t group_await(group *g) {
    group_head *h = group_head_of(g);
    for (uint32_t n = 0;; n++) {
        if (atomic_load_explicit(&h->posted, memory_order_acquire) != g->posted) break;
        if (n == 0 && spin_on(&h->posted, g->posted)) break;
        if (group_is_broken(g) || (g->alive && !g->alive(g->arg))) return 0;
        sleep_on(g, &h->posted, g->posted);
    }
    g->posted++;
    return h->step_bytes;
}

/* ---- loading ---- */

void group_say(group *g, group_state s, const err *e) {
    group_rank *own = group_rank_of(g, g->rank);
    if (e) own->error = *e;
    atomic_store(&own->state, s);
    wake(g, &own->state);
}

status group_await_ready(group *g, err *e) {
    for (uint32_t i = 0; i < g->n_ranks; i++) {
        group_rank *r = group_rank_of(g, i);
        while (i != g->rank && atomic_load(&r->state) == GROUP_LOADING) {
            if (g->alive && !g->alive(g->arg))
                return err_set(e, ERR_UNAVAILABLE, "a rank ended while it loaded the model");
            sleep_on(g, &r->state, GROUP_LOADING);
        }
        if (i == g->rank || atomic_load(&r->state) == GROUP_READY) continue;
        *e = r->error;
        return e->code;
    }
    return OK;
}
