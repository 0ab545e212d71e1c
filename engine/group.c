/* Meetings, steps and states of a group, by words in its memory; and the transport of ranks that map the same
 * memory: futexes on those words. A rank spins for a moment before it sleeps: ranks meet every few
 * microseconds of a step. */
#include "engine/group.h"

#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/thread.h"

enum { PAUSES_PER_CLOCK = 32, SLICE_MS = 100 };

/* ---- places ---- */

/* Before what a stage sends. By messages that begins a page: the next stage has its own pages of it, whatever
 * stands in front. */
static uint64_t values_bytes(const group_shape *s, uint32_t stage) {
    return align_up(s->stage[stage].values_bytes, s->by_messages ? 4096 : 64);
}

static uint64_t region_bytes(const group_shape *s, uint32_t stage) {
    return align_up(
        values_bytes(s, stage) + s->depth * align_up(s->stage[stage].sent_bytes, 64), 4096);
}

/* Sums of at most GROUP_MAX * GROUP_MAX_DEPTH such sizes stay below 2^63. */
static bool is_small(uint64_t bytes) {
    return bytes <= 1ull << 54;
}

group_place group_lay(const group_shape *s) {
    group_place p = {0};
    bool small = is_small(s->step_bytes) && is_small(s->logits_bytes);
    for (uint32_t i = 0; i < s->n_stages; i++)
        small &= is_small(s->stage[i].values_bytes) && is_small(s->stage[i].sent_bytes);
    if (!small) return p;
    p.step_bytes = align_up(s->step_bytes, 64);
    p.logits_bytes = align_up(s->logits_bytes, 64);
    p.ranks = align_up(sizeof(group_head), 64);
    p.note = align_up(p.ranks + s->n_ranks * sizeof(group_rank), 64);
    p.step = align_up(p.note + GROUP_NOTE_BYTES, 4096);
    p.stages = align_up(p.step + s->depth * p.step_bytes, 4096);
    p.logits = p.stages;
    for (uint32_t i = 0; i < s->n_stages; i++) p.logits += region_bytes(s, i);
    p.bytes = align_up(p.logits + s->depth * p.logits_bytes, 4096);
    return p;
}

group_region group_region_of(const group_shape *s, uint32_t stage) {
    group_region r = {.values = group_lay(s).stages,
                      .sent_bytes = align_up(s->stage[stage].sent_bytes, 64)};
    for (uint32_t i = 0; i < stage; i++) r.values += region_bytes(s, i);
    r.sent = r.values + values_bytes(s, stage);
    r.end = r.values + region_bytes(s, stage);
    return r;
}

void group_parts(const group_shape *s, uint32_t rank, group_part out[GROUP_PARTS]) {
    const uint32_t stage = rank / (s->n_ranks / s->n_stages);
    const group_place at = group_lay(s);
    const group_region own = group_region_of(s, stage);
    out[0] = (group_part){0, at.stages, MEM_WORKSPACE};
    out[1] = (group_part){own.values, own.end, MEM_ACTIVATIONS};
    out[2] = out[3] = (group_part){0, 0, MEM_ACTIVATIONS};
    if (stage) {
        const group_region before = group_region_of(s, stage - 1);
        out[2].from = before.sent;
        out[2].to = before.end;
    }
    if (rank == 0 || stage + 1 == s->n_stages)
        out[3] = (group_part){at.logits, at.bytes, MEM_LOGITS};
}

uint64_t group_message_bytes(const group_shape *s, uint32_t rank) {
    return GROUP_BUFFER_BYTES +
           (rank ? 0 : align_up(s->depth * align_up(s->step_bytes, 64), 4096));
}

static uint64_t share_by_messages(const group_shape *s, uint32_t rank, mem_class c) {
    group_part part[GROUP_PARTS];
    uint64_t sum = c == MEM_WORKSPACE ? group_message_bytes(s, rank) : 0;
    group_parts(s, rank, part);
    for (int i = 0; i < GROUP_PARTS; i++)
        if (part[i].cls == c) sum += part[i].to - part[i].from;
    return sum;
}

uint64_t group_share(const group_shape *s, uint32_t rank, mem_class c) {
    if (s->by_messages) return share_by_messages(s, rank, c);
    const group_place at = group_lay(s);
    const uint32_t of_stage = s->n_ranks / s->n_stages;
    if (c == MEM_ACTIVATIONS)
        return rank % of_stage == 0 ? region_bytes(s, rank / of_stage) : 0;
    return rank                 ? 0
           : c == MEM_WORKSPACE ? at.stages
           : c == MEM_LOGITS    ? at.bytes - at.logits
                                : 0;
}

void group_count(const group *g, ledger *l, bool take) {
    for (int c = 0; c < MEM_N_CLASSES; c++) {
        const uint64_t bytes = group_share(&group_head_of(g)->shape, g->rank, (mem_class)c);
        if (take)
            CHECK(ledger_reserve(l, (mem_class)c, bytes)); /* as planned */
        else
            ledger_release(l, (mem_class)c, bytes);
    }
}

/* ---- memory that all map ---- */

static void put_nothing(group *g, group_whom whom, const void *at, uint32_t n_rows,
                        uint64_t row_bytes, uint64_t stride) {
    (void)g, (void)whom, (void)at, (void)n_rows, (void)row_bytes, (void)stride;
}

static void wake(group *g, group_word which, group_whom whom, atomic_uint *word) {
    (void)which, (void)whom;
    if (atomic_load(&group_head_of(g)->sleepers))
        syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static void pause_thread(group *g) {
    (void)g;
    thread_pause();
}

static void sleep_in_futex(group *g, atomic_uint *word, unsigned old, uint32_t slice_ms) {
    const struct timespec slice = {.tv_nsec = slice_ms * 1000000L};
    group_head *h = group_head_of(g);
    /* Sequentially consistent: either the word has changed here, or who changes it sees us. */
    atomic_fetch_add(&h->sleepers, 1);
    if (atomic_load(word) == old) syscall(SYS_futex, word, FUTEX_WAIT, old, &slice, NULL, 0);
    atomic_fetch_sub(&h->sleepers, 1);
}

/* It spins for a short time, since with as many threads as cores a rank that spins keeps another from coming. */
static const group_transport shared_memory = {.put = put_nothing,
                                              .say = wake,
                                              .pause = pause_thread,
                                              .sleep = sleep_in_futex,
                                              .spin_ns = 20000};

/* ---- a group ---- */

static void open_group(group *g, void *base, const group_shape *s, uint32_t rank) {
    const uint32_t n = s->n_ranks / s->n_stages, stage = rank / n;
    *g = (group){.base = base,
                 .via = &shared_memory,
                 .at = group_lay(s),
                 .own = group_region_of(s, stage),
                 .before = stage ? group_region_of(s, stage - 1) : (group_region){0},
                 .rank = rank,
                 .n_ranks = s->n_ranks,
                 .stage = stage,
                 .n_stages = s->n_stages,
                 .first = stage * n,
                 .n_peers = n,
                 .depth = s->depth,
                 .deadline_ms = GROUP_DEADLINE_MS};
}

/* n_ranks and n_stages are divisors. */
bool group_is_shape(const group_shape *s) {
    return s->n_ranks >= 1 && s->n_ranks <= GROUP_MAX && s->n_stages >= 1 &&
           s->n_stages <= s->n_ranks && s->n_ranks % s->n_stages == 0 && s->depth >= 1 &&
           s->depth <= GROUP_MAX_DEPTH;
}

void group_init(group *g, void *base, const group_shape *s, uint32_t rank, const char *build) {
    CHECK(group_is_shape(s) && rank < s->n_ranks && (rank == 0 || s->by_messages));
    open_group(g, base, s, rank);
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
    if (!group_is_shape(&s) || rank == 0 || rank >= s.n_ranks || group_lay(&s).bytes != n)
        return err_set(e, ERR_UNAVAILABLE, "rank %u: the memory of the group has another size",
                       rank);
    open_group(g, base, &s, rank);
    return OK;
}

static void populate(const group *g, uint64_t from, uint64_t to) {
#ifdef MADV_POPULATE_WRITE
    if (madvise(g->base + from, to - from, MADV_POPULATE_WRITE) == 0) return;
#endif
    for (uint64_t at = from; at < to; at += 4096) /* none of it has been used */
        *(volatile unsigned char *)(g->base + at) = 0;
}

void group_populate(const group *g) {
    group_part part[GROUP_PARTS];
    group_parts(&group_head_of(g)->shape, g->rank, part);
    part[0].from = g->at.step; /* what is in front of it has been written */
    for (int i = 0; i < GROUP_PARTS; i++)
        if (part[i].to > part[i].from) populate(g, part[i].from, part[i].to);
}

/* ---- waiting ---- */

/* Until the word is no longer old, for SLICE_MS at most; returns the milliseconds that count: a process
 * that was itself stopped has not waited for another. */
static uint32_t sleep_on(group *g, atomic_uint *word, unsigned old) {
    const uint64_t start = clock_ns();
    g->via->sleep(g, word, old, SLICE_MS);
    const uint64_t ms = (clock_ns() - start) / 1000000;
    return ms < 2 * SLICE_MS ? (uint32_t)ms : 2 * SLICE_MS;
}

/* Spins until the word is not old. False: it still is. */
static bool spin_on(group *g, const atomic_uint *word, unsigned old) {
    const uint64_t start = clock_ns();
    do {
        for (int i = 0; i < PAUSES_PER_CLOCK; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != old) return true;
            g->via->pause(g);
        }
    } while (clock_ns() < start + g->via->spin_ns);
    return false;
}

bool group_is_broken(const group *g) {
    return atomic_load_explicit(&group_head_of(g)->broken, memory_order_acquire) != 0;
}

void group_break(group *g, const err *why) {
    unsigned none = 0;
    atomic_uint *broken = &group_head_of(g)->broken;
    if (!group_is_broken(g)) group_rank_of(g, g->rank)->error = *why;
    if (atomic_compare_exchange_strong(broken, &none, 1 + g->rank))
        g->via->say(g, GROUP_BROKEN, GROUP_ALL, broken);
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

static bool give_up(group *g, uint32_t rank) {
    err e;
    err_set(&e, ERR_DEVICE, "rank %u of %u did not answer within %u ms", rank, g->n_ranks,
            g->deadline_ms);
    group_break(g, &e);
    return false;
}

/* Until a word of a rank's has come to n. */
static bool wait_for(group *g, uint32_t rank, atomic_uint *word, unsigned n) {
    atomic_uint *beat = &group_rank_of(g, rank)->beat;
    unsigned at, seen = atomic_load_explicit(beat, memory_order_relaxed);
    uint32_t waited = 0;
    for (bool spun = false;;) {
        at = atomic_load_explicit(word, memory_order_acquire);
        if ((int32_t)(at - n) >= 0) return true;
        if (group_is_broken(g)) return false;
        if (!spun && spin_on(g, word, at)) continue;
        spun = true;
        const unsigned now = atomic_load_explicit(beat, memory_order_relaxed);
        if (now != seen) waited = 0;
        seen = now;
        if (waited >= g->deadline_ms) return give_up(g, rank);
        group_beat(g);
        waited += sleep_on(g, word, at) + 1;
    }
}

void group_put(group *g, group_whom whom, const float *at, uint32_t n_rows, uint32_t n_cols,
               uint32_t stride) {
    if (n_rows && n_cols)
        g->via->put(g, whom, at, n_rows, n_cols * sizeof *at, stride * sizeof *at);
}

bool group_meet(group *g) {
    group_rank *own = group_rank_of(g, g->rank);
    if (group_is_broken(g)) return false;
    atomic_store(&own->met, ++g->met);
    g->via->say(g, GROUP_MET, GROUP_STAGE, &own->met);
    for (uint32_t i = g->first; i < g->first + g->n_peers; i++)
        if (i != g->rank && !wait_for(g, i, &group_rank_of(g, i)->met, g->met)) return false;
    return true;
}

bool group_look(group *g, bool first) {
    const uint64_t now = clock_ns();
    const uint64_t ms = first ? 0 : (now - g->look.at_ns) / 1000000;
    group_beat(g);
    if (group_is_broken(g)) return false;
    if (!first && ms < SLICE_MS) return true;
    g->look.at_ns = now;
    for (uint32_t i = g->first; i < g->first + g->n_peers; i++) {
        const uint32_t beat =
            atomic_load_explicit(&group_rank_of(g, i)->beat, memory_order_relaxed);
        uint32_t *still = &g->look.still_ms[i];
        /* As in sleep_on: what is longer, this process was stopped for. */
        *still = first || beat != g->look.beat[i]
                     ? 0
                     : *still + (ms < 2 * SLICE_MS ? (uint32_t)ms : 2 * SLICE_MS);
        g->look.beat[i] = beat;
        if (i != g->rank && *still >= g->deadline_ms) return give_up(g, i);
    }
    return true;
}

void group_send(group *g) {
    group_rank *own = group_rank_of(g, g->rank);
    atomic_store(&own->sent, ++g->sent);
    g->via->say(g, GROUP_SENT, GROUP_NEXT, &own->sent);
}

bool group_receive(group *g, uint32_t stage, uint32_t n) {
    const uint32_t first = stage * g->n_peers;
    return wait_for(g, first, &group_rank_of(g, first)->sent, n);
}

/* ---- steps ---- */

void group_post(group *g, uint64_t bytes) {
    group_head *h = group_head_of(g);
    h->step_bytes[group_slot(g, g->posted + 1)] = bytes;
    g->via->put(g, GROUP_ALL, group_step_at(g, g->posted + 1), 1, bytes, bytes);
    atomic_store(&h->posted, ++g->posted);
    g->via->say(g, GROUP_POSTED, GROUP_ALL, &h->posted);
}

uint64_t group_await(group *g) {
    group_head *h = group_head_of(g);
    for (uint32_t n = 0;; n++) {
        if (atomic_load_explicit(&h->posted, memory_order_acquire) != g->posted) break;
        if (n == 0 && spin_on(g, &h->posted, g->posted)) break;
        if (group_is_broken(g) || (g->alive && !g->alive(g->arg))) return 0;
        sleep_on(g, &h->posted, g->posted);
    }
    g->posted++;
    return h->step_bytes[group_slot(g, g->posted)];
}

/* ---- loading ---- */

void group_say(group *g, group_state s, const err *e) {
    group_rank *own = group_rank_of(g, g->rank);
    if (e) own->error = *e;
    atomic_store(&own->state, s);
    g->via->say(g, GROUP_STATE, GROUP_ALL, &own->state);
}

/* Until a word is no longer 0. False: the other side has gone. */
static bool wait_while_0(group *g, atomic_uint *word) {
    while (!atomic_load(word)) {
        if (group_is_broken(g) || (g->alive && !g->alive(g->arg))) return false;
        sleep_on(g, word, 0);
    }
    return true;
}

bool group_exchange(group *g, void *bytes, uint64_t n) {
    group_head *h = group_head_of(g);
    CHECK(n <= sizeof h->word && !h->shape.by_messages);
    if (g->rank) {
        if (!wait_while_0(g, &h->given)) return false;
        memcpy(bytes, h->word, n);
        atomic_store(&group_rank_of(g, g->rank)->took, 1);
        wake(g, GROUP_STATE, GROUP_FIRST, &group_rank_of(g, g->rank)->took);
        return true;
    }
    memcpy(h->word, bytes, n);
    atomic_store(&h->given, 1);
    wake(g, GROUP_STATE, GROUP_ALL, &h->given);
    for (uint32_t i = 1; i < g->n_ranks; i++)
        if (!wait_while_0(g, &group_rank_of(g, i)->took)) return false;
    return true;
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
