/* The threads and buffers behind kv_tier.h.
 *
 * Loads are a ring, in the order in which the scheduler named them: that is the order in which it
 * takes them back. A buffer is its entry's own, so nothing is handed around. All states change
 * under the mutex; what a state guards is touched by its one owner only:
 *
 *     EMPTY -> QUEUED (engine) -> BUSY (worker) -> DONE (worker) -> EMPTY (engine) */
#include "daemon/kv/kv_tier.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/kv/kv_family.h"
#include "daemon/kv/kv_host.h"
#include "daemon/machine_words.h"
#include "daemon/step_log.h"

enum {
    CHUNK_TOKENS = 128,
    LOADS = 8, /* buffers; a step may take as long as reading several of them */
    LOADERS = 2,
    THREADS = LOADERS + 1,
    MAX_CHUNKS = 1 << 17, /* of the index; 8 MiB */
    STORE_LEAST =
        512, /* tokens: fewer are soon computed again, and each turn would write some */
    EVICT_AT_ONCE = 16,
    FORGET_AT_ONCE = 64, /* files; a millisecond or two */
    ENOUGH_COPIES = 16,  /* before their rate is believed */
    OFF_S = 60
};

typedef enum job_state { EMPTY, QUEUED, BUSY, DONE } job_state;

typedef struct job {
    sched_chunk c;
    int32_t tokens[KV_FILE_TOKENS];
    unsigned char *file;
    uint32_t groups;                  /* that the file has */
    uint64_t evict[EVICT_AT_ONCE][2]; /* of a store: to be removed before it */
    uint32_t n_evict;
    job_state state;
    status result;
    err error;
} job;

struct kv_tier {
    machine *m;
    kv_dir dir;
    kv_host host; /* in place of dir, with kv_host_bytes */
    kv_shape shape;
    void *mem, *places; /* places: of host */
    void (*wake)(void *);
    void *arg;
    pthread_t thread[THREADS];
    uint32_t n_threads;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool quit, pinned; /* pinned: the files of jobs, as a device needs them */
    job load[LOADS], store;
    uint32_t first, n_loads; /* engine thread */
    uint64_t off_until_us;   /* engine thread; 0: on */
    uint64_t n_copies;       /* engine thread; of chunks */
    double us_per_byte;      /* engine thread: of these, the last ones most */
    bool forgets, drops;     /* engine thread; drops: the store under way is not to stay */
    bool forgets_one;
    uint64_t forget_salt;
    uint32_t forget_at;
    atomic_bool waits, off;
};

/* ---- planning ---- */

static bool is_host(const machine *m) {
    return m->opt.kv_host_bytes > 0;
}

static bool is_on(const machine *m) {
    return m->opt.kv_disk[0] != '\0' || is_host(m);
}

static kv_shape shape_of(const machine *m) {
    const sched_config *c = &m->sched_conf;
    kv_shape s = {.tokens = c->chunk_blocks * c->block_tokens, .n_groups = c->n_groups};
    for (uint32_t g = 0; g < c->n_groups; g++)
        s.group_bytes[g] = c->chunk_blocks * c->group[g].block_bytes;
    return s;
}

static uint64_t whole_bytes(const kv_shape *s) {
    return kv_file_bytes(s, (1U << s->n_groups) - 1);
}

/* Chunks that the tier may have. */
static uint32_t chunks_of(const machine *m, const kv_shape *s) {
    if (is_host(m)) {
        const uint32_t n = kv_host_places(s, m->opt.kv_host_bytes);
        return n > MAX_CHUNKS ? MAX_CHUNKS : n;
    }
    const uint64_t n = m->opt.kv_disk_bytes / whole_bytes(s);
    return n > MAX_CHUNKS ? MAX_CHUNKS : (uint32_t)n;
}

static status set_chunks(machine *m, const char *option, err *e) {
    sched_config *c = &m->sched_conf;
    c->chunk_blocks = m->opt.block_size < CHUNK_TOKENS ? CHUNK_TOKENS / m->opt.block_size : 1;
    const kv_shape s = shape_of(m);
    c->tier_chunks = chunks_of(m, &s);
    c->store_tokens = is_host(m) ? s.tokens : STORE_LEAST;
    c->tier_bytes = is_host(m) ? c->tier_chunks * whole_bytes(&s) : m->opt.kv_disk_bytes;
    if (c->tier_chunks > 0) return OK;
    const uint64_t least = is_host(m) ? kv_host_size(&s, 1) : whole_bytes(&s);
    err_set(e, ERR_INVALID, "%s is less than %u tokens take (%llu bytes)", option, s.tokens,
            (unsigned long long)least);
    return err_field(e, "%s", option);
}

status kv_tier_configure(machine *m, err *e) {
    const options *o = &m->opt;
    const sched_config *c = &m->sched_conf;
    const char *option = is_host(m) ? "kv_host_bytes" : "kv_disk";
    bool whole = false;
    if (!is_on(m)) return OK;
    for (uint32_t g = 0; g < c->n_groups; g++) whole |= c->group[g].window == 0;
    if (is_host(m) && o->kv_disk[0] != '\0')
        err_set(e, ERR_INVALID, "kv_host_bytes and kv_disk exclude each other");
    else if (!o->prefix_caching)
        err_set(e, ERR_INVALID, "%s needs prefix_caching = true", option);
    else if (!m->backend->kv_export || !m->backend->kv_import)
        err_set(e, ERR_UNSUPPORTED, "the %s engine cannot move KV blocks", m->backend->name);
    else if (c->state_slots)
        err_set(e, ERR_UNSUPPORTED,
                "%s: this model has recurrent layers, whose states are not kept there", option);
    else if (!whole)
        err_set(e, ERR_UNSUPPORTED, "%s: every layer of this model has a window", option);
    else
        return set_chunks(m, is_host(m) ? "kv_host_bytes" : "kv_disk_bytes", e);
    return err_field(e, "%s", option);
}

static uint64_t tier_bytes(const machine *m) {
    const kv_shape s = shape_of(m);
    return align_up(sizeof(kv_tier), 64) + KV_FILE_HEADER + (LOADS + 1) * whole_bytes(&s);
}

static uint64_t host_bytes(const machine *m) {
    const kv_shape s = shape_of(m);
    return is_host(m) ? kv_host_size(&s, m->sched_conf.tier_chunks) : 0;
}

void kv_tier_terms(const machine *m, terms *t) {
    if (!is_on(m)) return;
    terms_add(t, MEM_WORKSPACE, TERM_EXACT, tier_bytes(m),
              "KV blocks on their way from and to %s%s", is_host(m) ? "host memory" : "disk",
              m->on_device ? ", pinned" : "");
    if (is_host(m))
        terms_add(t, MEM_WORKSPACE, TERM_EXACT, host_bytes(m),
                  "KV blocks in host memory, %u chunks", m->sched_conf.tier_chunks);
}

uint32_t kv_tier_threads(const machine *m) {
    return is_on(m) ? THREADS : 0;
}

/* ---- files or places ---- */

static status read_chunk(kv_tier *t, void *file, const kv_file_id *id, uint32_t *groups,
                         err *e) {
    return is_host(t->m) ? kv_host_read(&t->host, file, id, groups, e)
                         : kv_dir_read(&t->dir, file, id, groups, e);
}
static status write_chunk(kv_tier *t, void *file, const kv_file_id *id, err *e) {
    return is_host(t->m) ? kv_host_write(&t->host, file, id, e)
                         : kv_dir_write(&t->dir, file, id, (uint64_t)time(NULL), e);
}
static bool remove_chunk(kv_tier *t, const uint64_t hash[2]) {
    return is_host(t->m) ? kv_host_remove(&t->host, hash) : kv_dir_remove(&t->dir, hash);
}

/* ---- workers ---- */

static kv_file_id id_of_job(const job *j) {
    return (kv_file_id){.hash = {j->c.hash[0], j->c.hash[1]},
                        .parent = {j->c.parent[0], j->c.parent[1]},
                        .salt = j->c.salt,
                        .chunk = j->c.chunk,
                        .groups = j->c.groups,
                        .tokens = j->tokens};
}

static void do_load(kv_tier *t, job *j) {
    const kv_file_id id = id_of_job(j);
    j->result = read_chunk(t, j->file, &id, &j->groups, &j->error);
}

static void do_store(kv_tier *t, job *j) {
    const kv_file_id id = id_of_job(j);
    for (uint32_t i = 0; i < j->n_evict; i++) remove_chunk(t, j->evict[i]);
    j->result = write_chunk(t, j->file, &id, &j->error);
}

/* The oldest load that no thread works at. */
static job *next_load(kv_tier *t) {
    job *best = NULL;
    for (uint32_t i = 0; i < LOADS; i++) {
        job *j = &t->load[i];
        if (j->state == QUEUED &&
            (!best || j->c.serial < best->c.serial ||
             (j->c.serial == best->c.serial && j->c.chunk < best->c.chunk)))
            best = j;
    }
    return best;
}

static void work_at(kv_tier *t, bool stores) {
    pthread_mutex_lock(&t->lock);
    while (!t->quit) {
        job *j = !stores ? next_load(t) : t->store.state == QUEUED ? &t->store : NULL;
        if (!j) {
            pthread_cond_wait(&t->work, &t->lock);
            continue;
        }
        j->state = BUSY;
        pthread_mutex_unlock(&t->lock);
        if (stores)
            do_store(t, j);
        else
            do_load(t, j);
        pthread_mutex_lock(&t->lock);
        j->state = DONE;
        atomic_store(&t->waits, true);
        pthread_cond_signal(&t->done);
        pthread_mutex_unlock(&t->lock);
        t->wake(t->arg);
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(&t->lock);
}

static void *load_main(void *arg) {
    pthread_setname_np(pthread_self(), "vramd-kv-read");
    work_at(arg, false);
    return NULL;
}

static void *store_main(void *arg) {
    pthread_setname_np(pthread_self(), "vramd-kv-write");
    work_at(arg, true);
    return NULL;
}

/* ---- life ---- */

/* Of a model that was loaded before it is known. */
static status family_of(kv_tier *t, unsigned char out[KV_FILE_FAMILY], err *e) {
    machine_words *w = t->m->words;
    const bool known = w && w->has_family;
    if (known) memcpy(out, w->family, KV_FILE_FAMILY);
    if (known) return OK;
    const status s = kv_family(t->m, &t->shape, t->load[0].file,
                               (LOADS + 1) * whole_bytes(&t->shape), out, e);
    if (w && s == OK) memcpy(w->family, out, KV_FILE_FAMILY);
    if (w) w->has_family = s == OK;
    return s;
}

static status open_directory(kv_tier *t, err *e) {
    machine *m = t->m;
    status s = kv_dir_open(&t->dir, m->opt.kv_disk, e);
    if (s != OK) return s;
    memcpy(m->sched_conf.hash_key, t->dir.key, sizeof t->dir.key);
    unsigned char family[KV_FILE_FAMILY];
    uint32_t removed;
    s = family_of(t, family, e);
    if (s == OK) s = kv_dir_family(&t->dir, &t->shape, family, &removed, e);
    if (s == OK && removed > 0)
        log_info("kv_disk: %u files of another model or version removed", removed);
    return s;
}

static status open_host(kv_tier *t, err *e) {
    status s = ledger_alloc(t->m->ledger, &t->places, MEM_WORKSPACE, host_bytes(t->m),
                            "KV blocks in host memory", e);
    if (s == OK) kv_host_init(&t->host, t->places, &t->shape, t->m->sched_conf.tier_chunks);
    return s;
}

/* The buffers that blocks go through. Where a device refuses, its driver copies once more. */
static void pin_buffers(kv_tier *t) {
    err e;
    t->pinned = engine_pin(t->m->engine, t->load[0].file, (LOADS + 1) * whole_bytes(&t->shape),
                           &e) == OK;
    if (!t->pinned) log_warn("KV blocks go to the host more slowly: %s", e.text);
}

status kv_tier_open(kv_tier **out, machine *m, err *e) {
    void *mem;
    *out = NULL;
    if (!is_on(m)) return OK;
    status s = ledger_alloc(m->ledger, &mem, MEM_WORKSPACE, tier_bytes(m),
                            "the tier of the KV cache", e);
    if (s != OK) return s;
    kv_tier *t = mem;
    *t = (kv_tier){.m = m, .mem = mem, .shape = shape_of(m)};
    t->dir.dir = t->dir.family_dir = t->dir.key_fd = -1;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->done, NULL);
    unsigned char *at =
        (unsigned char *)align_up((uintptr_t)mem + align_up(sizeof *t, 64), KV_FILE_HEADER);
    for (uint32_t i = 0; i < LOADS; i++, at += whole_bytes(&t->shape)) t->load[i].file = at;
    t->store.file = at;
    pin_buffers(t);
    *out = t;
    return is_host(m) ? open_host(t, e) : open_directory(t, e);
}

typedef struct found_list {
    kv_found *v;
    uint32_t n, cap;
} found_list;

static void take_found(void *arg, const kv_found *f) {
    found_list *l = arg;
    if (l->n == l->cap) {
        const uint32_t cap = l->cap ? 2 * l->cap : 256;
        kv_found *v = realloc(l->v, cap * sizeof *v);
        if (!v) return; /* its file stays, and is found by the next start */
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = *f;
}

/* Parents first; among equals what was used last comes last, and so is the most recent. */
static int by_chunk(const void *a, const void *b) {
    const kv_found *x = a, *y = b;
    if (x->id.chunk != y->id.chunk) return x->id.chunk < y->id.chunk ? -1 : 1;
    return x->used_s < y->used_s ? -1 : x->used_s > y->used_s;
}
static int by_use(const void *a, const void *b) {
    const kv_found *x = *(const kv_found *const *)a, *y = *(const kv_found *const *)b;
    return x->used_s < y->used_s ? -1 : x->used_s > y->used_s;
}

static bool add_found(const kv_tier *t, const kv_found *f) {
    return logged_tier_add(t->m->log, t->m->sched, f->id.hash,
                           f->id.chunk > 0 ? f->id.parent : NULL, f->id.salt, f->id.groups,
                           f->bytes);
}

/* Puts what was used longest ago to the end that goes first. */
static void order_by_use(const kv_tier *t, const found_list *l) {
    const kv_found **order = malloc(l->n * sizeof(*order));
    if (!order) return;
    for (uint32_t i = 0; i < l->n; i++) order[i] = &l->v[i];
    qsort(order, l->n, sizeof(*order), by_use);
    for (uint32_t i = 0; i < l->n; i++) add_found(t, order[i]);
    free(order);
}

static status read_directory(kv_tier *t, err *e) {
    found_list l = {0};
    uint32_t bad = 0, lost = 0, kept = 0;
    uint64_t hash[2];
    sched_stats now;
    status s = kv_dir_scan(&t->dir, take_found, &l, &bad, e);
    if (l.n > 0) qsort(l.v, l.n, sizeof *l.v, by_chunk);
    for (uint32_t i = 0; i < l.n; i++) {
        const kv_file_id *id = &l.v[i].id;
        if (add_found(t, &l.v[i])) {
            l.v[kept++] = l.v[i];
            continue;
        }
        lost++; /* what it hangs on is not there, or the index is full */
        kv_dir_remove(&t->dir, id->hash);
    }
    l.n = kept;
    if (l.n > 0) order_by_use(t, &l);
    while (logged_tier_evict(t->m->log, t->m->sched, 0, hash)) kv_dir_remove(&t->dir, hash);
    free(l.v);
    sched_read(t->m->sched, &now);
    log_info("kv_disk: %s has %u chunks of %u tokens, %llu bytes; %u files were not whole, %u "
             "hung on "
             "others that are gone",
             t->m->opt.kv_disk, now.tier_chunks, t->shape.tokens,
             (unsigned long long)now.tier_bytes, bad, lost);
    return s;
}

status kv_tier_start(kv_tier *t, void (*wake)(void *), void *arg, err *e) {
    t->wake = wake;
    t->arg = arg;
    status s = is_host(t->m) ? OK : read_directory(t, e);
    for (uint32_t i = 0; s == OK && i < THREADS; i++) {
        const int rc =
            pthread_create(&t->thread[i], NULL, i < LOADERS ? load_main : store_main, t);
        if (rc != 0)
            return err_set(e, ERR_NO_MEMORY,
                           "a thread of the KV cache's tier cannot start (class runtime): %s",
                           strerror(rc));
        t->n_threads++;
    }
    return s;
}

static void end_threads(kv_tier *t) {
    pthread_mutex_lock(&t->lock);
    t->quit = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (; t->n_threads > 0; t->n_threads--) pthread_join(t->thread[t->n_threads - 1], NULL);
}

void kv_tier_close(kv_tier *t) {
    if (!t) return;
    end_threads(t);
    if (t->pinned) engine_unpin(t->m->engine, t->load[0].file);
    kv_dir_close(&t->dir);
    if (t->places) kv_host_clear(&t->host);
    ledger_free(t->m->ledger, t->places);
    pthread_cond_destroy(&t->work);
    pthread_cond_destroy(&t->done);
    pthread_mutex_destroy(&t->lock);
    ledger_free(t->m->ledger, t->mem);
}

/* ---- engine thread ---- */

static job_state state_of(kv_tier *t, const job *j) {
    pthread_mutex_lock(&t->lock);
    const job_state s = j->state;
    pthread_mutex_unlock(&t->lock);
    return s;
}

static void set_state(kv_tier *t, job *j, job_state s) {
    pthread_mutex_lock(&t->lock);
    j->state = s;
    if (s == QUEUED) pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
}

static void switch_off(kv_tier *t) {
    t->off_until_us = clock_us() + OFF_S * 1000000ULL;
    atomic_store(&t->off, true);
    logged_tier_switch(t->m->log, t->m->sched, false);
}

/* Off and on again. Files that are not what they should be are no trouble of the disk. */
static void note_error(kv_tier *t, const job *j, const char *what) {
    if (j->result == ERR_FORMAT) {
        log_warn("KV blocks below memory: a chunk was removed: %s", j->error.text);
        return;
    }
    if (j->result != ERR_IO || t->off_until_us) return;
    log_error("kv_disk: %s failed, nothing is read or written for %d s: %s", what, OFF_S,
              j->error.text);
    switch_off(t);
}

/* Of one chunk, whose blocks were just copied; a thread that had to wait counts as four times the
 * mean. In host memory chunks are kept only while copying
 * them is quicker than computing them. */
static void note_copy(kv_tier *t, uint64_t bytes, double us) {
    double rate = us / (double)bytes;
    if (t->n_copies > 0 && rate > 4 * t->us_per_byte) rate = 4 * t->us_per_byte;
    t->us_per_byte += (rate - t->us_per_byte) / (t->n_copies > 0 ? 4 : 1);
    if (++t->n_copies < ENOUGH_COPIES || !is_host(t->m) || t->off_until_us) return;
    sched_stats now;
    sched_read(t->m->sched, &now);
    const double copy_us = t->us_per_byte * (double)whole_bytes(&t->shape);
    if (kv_host_pays(&now.cost, t->shape.tokens, copy_us)) return;
    log_info(
        "kv_host_bytes: copying %u tokens takes %.0f us, computing them less; not used for "
        "%d s",
        t->shape.tokens, copy_us, OFF_S);
    switch_off(t);
}

static void switch_on_again(kv_tier *t) {
    if (!t->off_until_us || clock_us() < t->off_until_us) return;
    t->off_until_us = 0;
    atomic_store(&t->off, false);
    if (!t->forgets) logged_tier_switch(t->m->log, t->m->sched, true);
    log_info("%s: on again", is_host(t->m) ? "kv_host_bytes" : "kv_disk");
}

/* The blocks of a chunk out of a job's file into the cache, or the other way; of a load those from
 * first on. groups: in the file. */
static bool move_blocks(kv_tier *t, const job *j, uint32_t groups, const sched_chunk *c,
                        bool in) {
    const uint32_t bpc = t->m->sched_conf.chunk_blocks;
    engine *eng = t->m->engine;
    const uint64_t since_us = clock_us();
    uint64_t moved = 0;
    err e;
    for (uint32_t g = 0; g < t->shape.n_groups; g++) {
        const uint64_t bytes = t->m->sched_conf.group[g].block_bytes;
        if (!(c->groups >> g & 1)) continue;
        unsigned char *at = j->file + kv_file_group_at(&t->shape, groups, g);
        for (uint32_t i = in ? c->first[g] : 0; i < bpc; i++) {
            const int32_t block = c->block[g][i];
            const status s = in ? engine_kv_import(eng, g, block, at + i * bytes, &e)
                                : engine_kv_export(eng, g, block, at + i * bytes, &e);
            if (s != OK) return false;
            moved += bytes;
        }
    }
    if (moved > 0) note_copy(t, moved, (double)(clock_us() - since_us));
    return true;
}

static bool end_loads(kv_tier *t) {
    bool any = false;
    for (; t->n_loads > 0; t->n_loads--, t->first = (t->first + 1) % LOADS) {
        job *j = &t->load[t->first];
        if (state_of(t, j) != DONE) break;
        sched_chunk c = j->c;
        bool ok = j->result == OK;
        if (!ok) note_error(t, j, "reading");
        if (!ok && (is_host(t->m) || j->result == ERR_IO))
            remove_chunk(t, c.hash); /* the index forgets it */
        if (ok && sched_load_blocks(t->m->sched, &c))
            ok = move_blocks(t, j, j->groups, &c, true);
        logged_load_done(t->m->log, t->m->sched, &c, ok);
        set_state(t, j, EMPTY);
        any = true;
    }
    return any;
}

static void take_chunk(job *j, const sched_chunk *c, uint32_t n_tokens) {
    memcpy(j->tokens, c->tokens, n_tokens * sizeof *j->tokens);
    j->c = *c;
    j->c.tokens = j->tokens;
}

static void begin_loads(kv_tier *t) {
    sched_chunk c;
    while (t->n_loads < LOADS && logged_load_next(t->m->log, t->m->sched, &c)) {
        job *j = &t->load[(t->first + t->n_loads++) % LOADS];
        take_chunk(j, &c, t->shape.tokens);
        set_state(t, j, QUEUED);
    }
}

static void end_store(kv_tier *t) {
    job *j = &t->store;
    if (state_of(t, j) != DONE) return;
    if (t->drops) return; /* kv_tier_forget_on ends it */
    if (j->result != OK) note_error(t, j, "writing");
    if (!logged_store_done(t->m->log, t->m->sched, &j->c,
                           j->result == OK ? kv_file_bytes(&t->shape, j->c.groups) : 0) &&
        j->result == OK)
        remove_chunk(t, j->c.hash);
    set_state(t, j, EMPTY);
}

static void begin_store(kv_tier *t) {
    job *j = &t->store;
    sched_chunk c;
    if (state_of(t, j) != EMPTY || !logged_store_next(t->m->log, t->m->sched, &c)) return;
    take_chunk(j, &c, t->shape.tokens);
    if (!move_blocks(t, j, c.groups, &c, false)) {
        logged_store_done(t->m->log, t->m->sched, &j->c, 0);
        return;
    }
    const uint64_t bytes = kv_file_bytes(&t->shape, c.groups);
    j->n_evict = 0;
    while (j->n_evict < EVICT_AT_ONCE &&
           logged_tier_evict(t->m->log, t->m->sched, bytes, j->evict[j->n_evict]))
        j->n_evict++;
    if (sched_tier_fits(t->m->sched, bytes)) {
        set_state(t, j, QUEUED);
        return;
    }
    /* Of the rest nothing may go: this text is longer than the tier. */
    for (uint32_t i = 0; i < j->n_evict; i++) remove_chunk(t, j->evict[i]);
    logged_store_done(t->m->log, t->m->sched, &j->c, bytes);
}

/* ---- forgetting ---- */

void kv_tier_forget(kv_tier *t, const uint64_t *salt) {
    const job *j = &t->store;
    t->forgets = true;
    t->forgets_one = salt != NULL;
    t->forget_salt = salt ? *salt : 0;
    t->forget_at = 0;
    t->drops = state_of(t, j) != EMPTY && (!salt || j->c.salt == (*salt & UINT64_MAX >> 1));
    logged_tier_switch(t->m->log, t->m->sched, false);
}

static void remove_one(kv_tier *t, const uint64_t hash[2], uint64_t bytes, uint64_t *files,
                       uint64_t *all_bytes, uint64_t *n_left) {
    const bool gone = remove_chunk(t, hash);
    *files += gone;
    *all_bytes += gone ? bytes : 0;
    *n_left += !gone;
}

bool kv_tier_forget_on(kv_tier *t, uint64_t *files, uint64_t *bytes, uint64_t *n_left) {
    const uint64_t *salt = t->forgets_one ? &t->forget_salt : NULL;
    uint64_t hash[2], own;
    for (uint32_t i = 0; i < FORGET_AT_ONCE; i++) {
        if (!logged_tier_forget(t->m->log, t->m->sched, salt, &t->forget_at, hash, &own)) break;
        remove_one(t, hash, own, files, bytes, n_left);
        if (i + 1 == FORGET_AT_ONCE) return true;
    }
    /* A file that was being written: once it is there. */
    job *j = &t->store;
    if (t->drops && state_of(t, j) != DONE) return true;
    if (t->drops) {
        if (j->result == OK)
            remove_one(t, j->c.hash, kv_file_bytes(&t->shape, j->c.groups), files, bytes,
                       n_left);
        set_state(t, j, EMPTY);
    }
    t->forgets = t->drops = false;
    if (!t->off_until_us) logged_tier_switch(t->m->log, t->m->sched, true);
    return false;
}

bool kv_tier_work(kv_tier *t) {
    atomic_store(&t->waits, false);
    const bool loaded = end_loads(t);
    end_store(t);
    switch_on_again(t);
    begin_loads(t);
    begin_store(t);
    return loaded;
}

void kv_tier_drain(kv_tier *t, uint32_t at_most_ms) {
    const uint64_t until = clock_us() + at_most_ms * 1000ULL;
    while (!is_host(t->m)) { /* what is in memory ends with the process */
        kv_tier_work(t);
        pthread_mutex_lock(&t->lock);
        const bool idle = t->store.state == EMPTY;
        if (!idle && t->store.state != DONE) {
            struct timespec soon;
            clock_gettime(CLOCK_REALTIME, &soon);
            soon.tv_nsec += 20 * 1000000L;
            if (soon.tv_nsec >= 1000000000L) soon.tv_sec++, soon.tv_nsec -= 1000000000L;
            pthread_cond_timedwait(&t->done, &t->lock, &soon);
        }
        pthread_mutex_unlock(&t->lock);
        if (idle || clock_us() >= until) break;
    }
    end_threads(t);
}

bool kv_tier_waits(const kv_tier *t) {
    return t && atomic_load(&t->waits);
}

bool kv_tier_is_off(const kv_tier *t) {
    return atomic_load(&t->off);
}
