/* Records in messages, out of and into a rank's copy of its group's memory. */
#include "engine/link.h"

#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/thread.h"
#include "memory/term.h"

enum {
    LINK_MAGIC = 0x4b4c5256, /* "VRLK" */
    BEAT_SLOT = WIRE_SLOTS - 2,
    END_SLOT = WIRE_SLOTS - 1, /* for the last message, of a link that is lost */
    DATA_SLOTS = WIRE_SLOTS - 2,
    NO_SLOT = WIRE_SLOTS,
    LINE = 64, /* bytes of a step that go together */
    TICK_MS = 50,
    BEAT_MS = 200,
    MOST_MS = 200, /* that one look counts for: a process that was stopped has not waited */
    NAP_US = 50,
    MOST_NAP_US = 1000,
    FLUSH_MS = 1000
};

typedef enum record_kind { REC_BEAT, REC_SHAPE, REC_ATTACHED, REC_PUT, REC_WORD } record_kind;

typedef struct message_head {
    uint32_t magic, version;
    char build[24];
} message_head;

/* row_bytes x n_rows follow: of REC_BEAT what the rank holds, of REC_SHAPE the sizes, of a state and of what broke
 * the group an err. */
typedef struct record {
    uint32_t kind, n_rows;
    uint64_t row_bytes;
    uint64_t at, stride; /* REC_PUT: from the memory's base; REC_WORD: at is a group_word */
    uint64_t value;      /* REC_WORD, REC_BEAT */
    uint64_t step_bytes; /* GROUP_POSTED */
} record;

enum { MOST_DATA = LINK_CHUNK - sizeof(message_head) - sizeof(record) };

struct group_link {
    wire *wire;
    message_head own; /* in front of every message */
    pthread_mutex_t lock;
    pthread_t thread;
    bool runs;
    atomic_bool quit;
    unsigned char *memory; /* LINK_BYTES: of the slots, then what is received */
    /* The message that is filled: to whom, a bit for each rank. */
    uint32_t slot, used;
    uint64_t to;
    bool busy[WIRE_SLOTS];
    /* Milliseconds that count, when the last beat went, when each rank was last heard. */
    uint64_t looked_ns, ms, beat_ms, heard_ms[GROUP_MAX];
    bool ended; /* nothing is missed any more */
    atomic_bool lost;
    err why;
    group *group;        /* NULL: not attached */
    unsigned char *went; /* rank 0: the steps as they went */
    group_shape shape;
    atomic_bool has_shape;
    atomic_uint n_attached;
};

/* ---- what is lost ---- */

static void lose(group_link *l, const err *why) {
    if (atomic_load(&l->lost)) return;
    l->why = *why;
    atomic_store(&l->lost, true);
}

static status copy_error(const group_link *l, err *e) {
    *e = l->why;
    return e->code;
}

status link_error(const group_link *l, err *e) {
    return atomic_load(&l->lost) ? copy_error(l, e) : OK;
}

/* The group is broken by rank `by`, as that one or this one has found. */
static void break_group(group_link *l, uint32_t by, const err *why) {
    lose(l, why);
    if (!l->group) return;
    unsigned none = 0;
    atomic_uint *broken = &group_head_of(l->group)->broken;
    if (atomic_load(broken)) return;
    group_rank_of(l->group, by)->error = *why;
    atomic_compare_exchange_strong(broken, &none, 1 + by);
}

/* ---- sending ---- */

static unsigned char *buffer_of(const group_link *l, uint32_t slot) {
    return l->memory + (size_t)slot * LINK_CHUNK;
}

static void failed(group_link *l, uint32_t rank, const char *why) {
    err e;
    err_set(&e, ERR_DEVICE, "the link to rank %u of %u has failed: %.200s", rank,
            l->wire->n_ranks, why);
    break_group(l, l->wire->rank, &e);
}

static void send_slot(group_link *l, uint32_t slot, uint64_t to, uint32_t bytes) {
    for (uint32_t i = 0; i < l->wire->n_ranks; i++) {
        if (!(to >> i & 1)) continue;
        const char *why = l->wire->send(l->wire, slot, i, buffer_of(l, slot), bytes);
        l->busy[slot] = true;
        if (why) return failed(l, i, why);
    }
}

static bool is_free(group_link *l, uint32_t slot) {
    if (l->busy[slot] && l->wire->sent(l->wire, slot)) l->busy[slot] = false;
    return !l->busy[slot];
}

static uint64_t bits(uint32_t first, uint32_t n) {
    return (n < 64 ? (1ull << n) - 1 : UINT64_MAX) << first;
}

static uint64_t everyone(const group_link *l) {
    return bits(0, l->wire->n_ranks) & ~bits(l->wire->rank, 1);
}

static uint32_t add(unsigned char *to, const record *r, const void *data) {
    const uint64_t n = r->n_rows * r->row_bytes;
    memcpy(to, r, sizeof *r);
    if (n) memcpy(to + sizeof *r, data, n);
    return (uint32_t)(sizeof *r + align_up(n, 8));
}

/* One record to all others, in one of the last two slots; none where the one before is still on its way. */
static void send_alone(group_link *l, uint32_t slot, const record *r, const void *data) {
    unsigned char *to = buffer_of(l, slot);
    if (!is_free(l, slot)) return;
    memcpy(to, &l->own, sizeof l->own);
    send_slot(l, slot, everyone(l), (uint32_t)sizeof l->own + add(to + sizeof l->own, r, data));
}

static void send_broken(group_link *l, const err *why) {
    send_alone(l, END_SLOT, &(record){REC_WORD, 1, sizeof *why, .at = GROUP_BROKEN}, why);
}

/* ---- receiving ---- */

/* Whether another rank may write these bytes of this rank's copy. */
static bool may_write(const group *g, uint32_t from, uint64_t at, uint64_t end) {
    const uint32_t last = (g->n_stages - 1) * g->n_peers, stage = from / g->n_peers;
    const bool peer = stage == g->stage;
    if (at >= g->at.note && end <= g->at.stages) return from == 0;
    if (at >= g->own.values && end <= g->own.sent) return peer;
    if (g->stage && at >= g->before.sent && end <= g->before.end)
        return from == g->first - g->n_peers;
    if (at < g->at.logits || end > g->at.bytes) return false;
    return (peer && g->rank == g->first && g->stage + 1 == g->n_stages) ||
           (g->rank == 0 && from == last);
}

static bool take_put(group_link *l, uint32_t from, const record *r, const unsigned char *data) {
    const uint64_t bytes = l->group ? l->group->at.bytes : 0;
    if (!r->n_rows || !r->row_bytes || r->at >= bytes || r->stride > bytes ||
        r->row_bytes > LINK_CHUNK || (r->n_rows - 1) * r->stride > bytes)
        return false;
    if (!may_write(l->group, from, r->at, r->at + (r->n_rows - 1) * r->stride + r->row_bytes))
        return false;
    for (uint32_t i = 0; i < r->n_rows; i++)
        memcpy(l->group->base + r->at + i * r->stride, data + i * r->row_bytes, r->row_bytes);
    return true;
}

static bool take_posted(group_link *l, uint32_t from, const record *r) {
    group_head *h = group_head_of(l->group);
    if (from != 0) return false;
    h->step_bytes[group_slot(l->group, (uint32_t)r->value)] = r->step_bytes;
    l->ended |= r->step_bytes == 0;
    atomic_store(&h->posted, (unsigned)r->value);
    return true;
}

static bool take_word(group_link *l, uint32_t from, const record *r, const void *data) {
    err said = {0};
    if (r->n_rows == 1 && r->row_bytes == sizeof said) memcpy(&said, data, sizeof said);
    if (r->at == GROUP_BROKEN) {
        said.code = said.code == OK ? ERR_DEVICE : said.code;
        break_group(l, from, &said);
        return true;
    }
    if (!l->group) return false;
    group_rank *of = group_rank_of(l->group, from);
    if (r->at == GROUP_POSTED) return take_posted(l, from, r);
    if (r->at == GROUP_STATE) of->error = said;
    atomic_uint *word = r->at == GROUP_MET     ? &of->met
                        : r->at == GROUP_SENT  ? &of->sent
                        : r->at == GROUP_STATE ? &of->state
                                               : NULL;
    if (word) atomic_store(word, (unsigned)r->value);
    return word != NULL;
}

static bool take_beat(group_link *l, uint32_t from, const record *r, const void *data) {
    if (!l->group) return true;
    group_rank *of = group_rank_of(l->group, from);
    atomic_store_explicit(&of->beat, (unsigned)r->value, memory_order_relaxed);
    if (r->n_rows == 1 && r->row_bytes == sizeof of->memory)
        memcpy(&of->memory, data, sizeof of->memory);
    return true;
}

static bool take_shape(group_link *l, uint32_t from, const record *r, const void *data) {
    if (from != 0 || r->n_rows != 1 || r->row_bytes != sizeof l->shape) return false;
    memcpy(&l->shape, data, sizeof l->shape);
    atomic_store(&l->has_shape, true);
    return true;
}

static bool take_record(group_link *l, uint32_t from, const record *r,
                        const unsigned char *data) {
    switch ((record_kind)r->kind) {
    case REC_BEAT: return take_beat(l, from, r, data);
    case REC_SHAPE: return take_shape(l, from, r, data);
    case REC_ATTACHED: return atomic_fetch_add(&l->n_attached, 1), true;
    case REC_PUT: return take_put(l, from, r, data);
    case REC_WORD: return take_word(l, from, r, data);
    }
    return false;
}

static bool same_version(group_link *l, uint32_t from, const message_head *h) {
    err e;
    if (memcmp(h, &l->own, sizeof *h) == 0) return true;
    err_set(&e, ERR_UNAVAILABLE,
            "rank %u is vramd %.*s (group version %u), and rank %u vramd %s (%u)", from,
            (int)strnlen(h->build, sizeof h->build),
            h->magic == LINK_MAGIC ? h->build : "of another kind", h->version, l->wire->rank,
            l->own.build, l->own.version);
    err_hint(&e, "start all ranks from one installation");
    break_group(l, l->wire->rank, &e);
    return false;
}

static void take_message(group_link *l, uint32_t from, const unsigned char *m, uint32_t bytes) {
    uint64_t at = sizeof(message_head);
    record r;
    err e;
    if (bytes >= at && !same_version(l, from, (const message_head *)(const void *)m)) return;
    l->heard_ms[from] = l->ms;
    while (at + sizeof r <= bytes) {
        memcpy(&r, m + at, sizeof r);
        at += sizeof r;
        const uint64_t most = bytes - at;
        if (r.row_bytes > most || (r.n_rows && r.row_bytes > most / r.n_rows)) break;
        if (!take_record(l, from, &r, m + at)) break;
        at += align_up(r.n_rows * r.row_bytes, 8);
    }
    if (at == bytes) return;
    err_set(&e, ERR_DEVICE, "rank %u of %u has sent a message that is not right", from,
            l->wire->n_ranks);
    break_group(l, l->wire->rank, &e);
}

static void receive(group_link *l) {
    unsigned char *to = buffer_of(l, WIRE_SLOTS);
    uint32_t from, bytes;
    for (;;) {
        const char *why = l->wire->receive(l->wire, to, LINK_CHUNK, &from, &bytes);
        if (why) return failed(l, l->wire->rank, why);
        if (!bytes) return;
        take_message(l, from, to, bytes);
    }
}

/* ---- time ---- */

static void beat(group_link *l) {
    record r = {.kind = REC_BEAT};
    const group_rank *own = l->group ? group_rank_of(l->group, l->wire->rank) : NULL;
    if (own) {
        r.n_rows = 1;
        r.row_bytes = sizeof own->memory;
        r.value = atomic_load_explicit(&own->beat, memory_order_relaxed);
    }
    l->beat_ms = l->ms;
    send_alone(l, BEAT_SLOT, &r, own ? &own->memory : NULL);
}

static void miss(group_link *l) {
    err e;
    for (uint32_t i = 0; i < l->wire->n_ranks && !l->ended; i++) {
        if (i == l->wire->rank || l->ms - l->heard_ms[i] < LINK_SILENT_MS) continue;
        err_set(&e, ERR_DEVICE, "rank %u of %u did not answer within %d ms", i,
                l->wire->n_ranks, LINK_SILENT_MS);
        break_group(l, l->wire->rank, &e);
        send_broken(l, &e);
        return;
    }
}

/* All that is due; with the lock. */
static void serve(group_link *l) {
    const uint64_t now = clock_ns(), ms = (now - l->looked_ns) / 1000000;
    if (ms) {
        l->ms += ms < MOST_MS ? ms : MOST_MS;
        l->looked_ns += ms * 1000000;
    }
    receive(l);
    if (l->ms - l->beat_ms >= BEAT_MS) beat(l);
    if (!atomic_load(&l->lost)) miss(l);
}

static void serve_alone(group_link *l) {
    pthread_mutex_lock(&l->lock);
    serve(l);
    pthread_mutex_unlock(&l->lock);
}

static void nap(uint32_t us) {
    nanosleep(&(struct timespec){.tv_nsec = us * 1000L}, NULL);
}

static void *tick(void *arg) {
    group_link *l = arg;
    while (!atomic_load(&l->quit)) {
        serve_alone(l);
        nap(TICK_MS * 1000);
    }
    return NULL;
}

/* ---- the message that is filled ---- */

static void flush(group_link *l) {
    if (l->slot == NO_SLOT) return;
    send_slot(l, l->slot, l->to, l->used);
    l->slot = NO_SLOT;
}

/* Waits while the others have not taken what went before: they do, or the link is lost. */
static bool take_slot(group_link *l) {
    for (uint32_t us = NAP_US; !atomic_load(&l->lost);) {
        for (uint32_t i = 0; i < DATA_SLOTS; i++) {
            if (!is_free(l, i)) continue;
            l->slot = i;
            l->used = sizeof l->own;
            memcpy(buffer_of(l, i), &l->own, sizeof l->own);
            return true;
        }
        serve(l);
        nap(us);
        if (us < MOST_NAP_US) us *= 2;
    }
    return false;
}

/* Space for a record and so much data of it, at least. False: the link is lost. */
static bool begin(group_link *l, uint64_t to, uint64_t least) {
    if (l->slot != NO_SLOT &&
        (l->to != to || l->used + sizeof(record) + align_up(least, 8) > LINK_CHUNK))
        flush(l);
    if (l->slot == NO_SLOT && !take_slot(l)) return false;
    l->to = to;
    return true;
}

static bool append(group_link *l, uint64_t to, const record *r, const void *data) {
    if (!begin(l, to, r->n_rows * r->row_bytes)) return false;
    l->used += add(buffer_of(l, l->slot) + l->used, r, data);
    return true;
}

/* As many rows as there is space for; returns how many. */
static uint32_t append_rows(group_link *l, uint64_t to, uint64_t at, uint32_t n,
                            uint64_t row_bytes, uint64_t stride) {
    if (!begin(l, to, row_bytes)) return n;
    const uint64_t fit = ((LINK_CHUNK - l->used - sizeof(record)) & ~7ull) / row_bytes;
    const record r = {REC_PUT, (uint32_t)(n < fit ? n : fit), row_bytes, at, stride, 0, 0};
    unsigned char *p = buffer_of(l, l->slot) + l->used;
    memcpy(p, &r, sizeof r);
    p += sizeof r;
    for (uint32_t i = 0; i < r.n_rows; i++)
        memcpy(p + i * row_bytes, l->group->base + at + i * stride, row_bytes);
    l->used += (uint32_t)(sizeof r + align_up(r.n_rows * row_bytes, 8));
    return r.n_rows;
}

static void put_piece(group_link *l, uint64_t to, uint64_t at, uint32_t n, uint64_t row_bytes,
                      uint64_t stride) {
    while (n && !atomic_load(&l->lost)) {
        const uint32_t did = append_rows(l, to, at, n, row_bytes, stride);
        at += did * stride;
        n -= did;
    }
}

/* Rows that are longer than a message go in pieces. */
static void put_rows(group_link *l, uint64_t to, uint64_t at, uint32_t n, uint64_t row_bytes,
                     uint64_t stride) {
    const uint64_t most = MOST_DATA & ~7ull;
    if (row_bytes <= most) return put_piece(l, to, at, n, row_bytes, stride);
    for (uint32_t i = 0; i < n; i++)
        for (uint64_t k = 0; k < row_bytes; k += most)
            put_piece(l, to, at + i * stride + k, 1,
                      row_bytes - k < most ? row_bytes - k : most, 0);
}

/* Of a step the lines that are not as they went in the step before that had this place. */
static void put_step(group_link *l, uint64_t to, uint64_t at, uint64_t bytes) {
    const group *g = l->group;
    const unsigned char *now = g->base + at;
    unsigned char *went = l->went + (at - g->at.step);
    for (uint64_t i = 0, n; i < bytes; i += n) {
        for (n = 0; i + n < bytes && memcmp(now + i + n, went + i + n, LINE) != 0;) n += LINE;
        if (n) put_rows(l, to, at + i, 1, n, 0);
        memcpy(went + i, now + i, n);
        if (!n) n = LINE;
    }
}

/* ---- the transport ---- */

static uint64_t ranks_of(const group *g, group_whom whom) {
    const uint64_t others = ~(1ull << g->rank);
    const uint32_t next = g->stage + 1 < g->n_stages ? g->first + g->n_peers : 0;
    switch (whom) {
    case GROUP_STAGE: return bits(g->first, g->n_peers) & others;
    case GROUP_FIRST: return bits(g->first, 1) & others;
    case GROUP_NEXT: return bits(next, next ? g->n_peers : 1) & others;
    case GROUP_ALL: break;
    }
    return bits(0, g->n_ranks) & others;
}

static void link_put(group *g, group_whom whom, const void *p, uint32_t n_rows,
                     uint64_t row_bytes, uint64_t stride) {
    group_link *l = g->link;
    const uint64_t to = ranks_of(g, whom), at = (uint64_t)((const unsigned char *)p - g->base);
    if (!to || !n_rows || !row_bytes) return;
    pthread_mutex_lock(&l->lock);
    if (l->went && at >= g->at.step && at < g->at.stages)
        put_step(l, to, at, align_up(row_bytes, LINE));
    else
        put_rows(l, to, at, n_rows, row_bytes, stride);
    pthread_mutex_unlock(&l->lock);
}

static void link_say(group *g, group_word which, group_whom whom, atomic_uint *word) {
    group_link *l = g->link;
    const group_head *h = group_head_of(g);
    const uint64_t to = ranks_of(g, whom);
    record r = {.kind = REC_WORD, .at = which, .value = atomic_load(word)};
    const err *error = &group_rank_of(g, g->rank)->error;
    if (!to) return;
    pthread_mutex_lock(&l->lock);
    if (which == GROUP_BROKEN) {
        lose(l, error);
        send_broken(l, error);
    } else {
        r.n_rows = which == GROUP_STATE;
        r.row_bytes = which == GROUP_STATE ? sizeof *error : 0;
        if (which == GROUP_POSTED) r.step_bytes = h->step_bytes[group_slot(g, g->posted)];
        l->ended |= which == GROUP_POSTED && !r.step_bytes;
        append(l, to, &r, error);
        flush(l);
    }
    pthread_mutex_unlock(&l->lock);
}

static void link_pause(group *g) {
    group_link *l = g->link;
    if (pthread_mutex_trylock(&l->lock) == 0) {
        serve(l);
        pthread_mutex_unlock(&l->lock);
    }
    sched_yield();
}

static void link_sleep(group *g, atomic_uint *word, unsigned old, uint32_t slice_ms) {
    const uint64_t until = clock_ns() + slice_ms * 1000000ull;
    for (uint32_t us = NAP_US; clock_ns() < until; us = us < MOST_NAP_US ? 2 * us : us) {
        serve_alone(g->link);
        if (atomic_load(word) != old || group_is_broken(g)) return;
        nap(us);
    }
}

/* It spins longer than where a wake comes at once: whoever naps is late by the nap. */
static const group_transport messages = {.put = link_put,
                                         .say = link_say,
                                         .pause = link_pause,
                                         .sleep = link_sleep,
                                         .spin_ns = 200000};

/* ---- a link ---- */

status link_open(group_link **out, wire *w, const char *build, err *e) {
    group_link *l = calloc(1, sizeof *l);
    *out = NULL;
    CHECK(w->n_ranks <= GROUP_MAX);
    if (!l) return mem_exhausted(e, MEM_RUNTIME, "the link between ranks");
    l->wire = w;
    l->slot = NO_SLOT;
    l->looked_ns = clock_ns();
    l->own.magic = LINK_MAGIC;
    l->own.version = GROUP_VERSION;
    snprintf(l->own.build, sizeof l->own.build, "%s", build);
    pthread_mutex_init(&l->lock, NULL);
    l->memory = mmap(NULL, LINK_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (l->memory == MAP_FAILED) l->memory = NULL;
    l->runs = l->memory && thread_start(&l->thread, tick, l) == 0;
    if (!l->runs) {
        link_close(l, false, NULL);
        return mem_exhausted(e, MEM_WORKSPACE, "messages between ranks");
    }
    *out = l;
    return OK;
}

/* Until all that was sent has gone, for a moment. */
static void drain(group_link *l) {
    const uint64_t until = clock_ns() + FLUSH_MS * 1000000ull;
    for (bool busy = true; busy && clock_ns() < until;) {
        busy = false;
        for (uint32_t i = 0; i < WIRE_SLOTS; i++) busy |= !is_free(l, i);
        receive(l);
        if (busy) nap(NAP_US);
    }
}

void link_close(group_link *l, bool ended, const err *why) {
    if (!l) return;
    atomic_store(&l->quit, true);
    if (l->runs) pthread_join(l->thread, NULL);
    ended &= l->runs && !atomic_load(&l->lost);
    if (l->runs && !ended && why) send_broken(l, why);
    if (l->runs) drain(l);
    l->wire->close(l->wire, ended);
    if (l->memory) munmap(l->memory, LINK_BYTES);
    if (l->went) munmap(l->went, group_message_bytes(&l->shape, 0) - LINK_BYTES);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* ---- a group of it ---- */

enum { LOOK_US = 5000 };

status link_await_shape(group_link *l, group_shape *out, err *e) {
    while (!atomic_load(&l->has_shape)) {
        const status s = link_error(l, e);
        if (s != OK) return s;
        nap(LOOK_US);
    }
    *out = l->shape;
    if (group_is_shape(out) && out->n_ranks == l->wire->n_ranks && out->by_messages &&
        group_lay(out).bytes)
        return OK;
    return err_set(e, ERR_UNAVAILABLE, "rank %u: what rank 0 says is no group of %u ranks",
                   l->wire->rank, l->wire->n_ranks);
}

status link_attach(group_link *l, group *g, err *e) {
    const group_shape *s = &group_head_of(g)->shape;
    const uint64_t copy = group_message_bytes(s, g->rank) - LINK_BYTES;
    void *went = NULL;
    if (copy) {
        went = mmap(NULL, copy, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (went == MAP_FAILED) return mem_exhausted(e, MEM_WORKSPACE, "steps as they went");
    }
    g->via = &messages;
    g->link = l;
    pthread_mutex_lock(&l->lock);
    l->went = went;
    l->group = g;
    if (g->rank == 0) {
        l->shape = *s;
        append(l, everyone(l), &(record){REC_SHAPE, 1, sizeof *s, .at = 0}, s);
    } else {
        append(l, 1, &(record){.kind = REC_ATTACHED}, NULL);
    }
    flush(l);
    pthread_mutex_unlock(&l->lock);
    return link_error(l, e);
}

status link_await_attached(group_link *l, err *e) {
    while (atomic_load(&l->n_attached) + 1 < l->wire->n_ranks) {
        const status s = link_error(l, e);
        if (s != OK) return s;
        serve_alone(l);
        nap(LOOK_US);
    }
    return OK;
}

status link_await_note(group_link *l, err *e) {
    while (atomic_load(&group_rank_of(l->group, 0)->state) == GROUP_LOADING) {
        const status s = link_error(l, e);
        if (s != OK) return s;
        serve_alone(l);
        nap(LOOK_US);
    }
    return OK;
}
