/* Two buffers: the engine thread fills one while the thread of the log writes the other. */
#include "daemon/step_log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "sim/record.h"

enum { LEAST_BUFFER = 1 << 20, FLUSH_S = 1 };

struct step_log {
    ledger *ledger;
    sched_config cfg;
    int fd;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* Under the lock: */
    uint8_t *buffer[2];
    size_t cap, n; /* n: bytes in buffer[filling] */
    unsigned filling;
    bool quit;
    uint64_t n_records, n_dropped, n_lost_now; /* n_lost_now: since the last record */
    /* The log's thread: */
    uint64_t n_bytes;
    int failed; /* errno of a write; nothing is written after it */
};

/* The longest record is a request with the longest prompt, five bytes a token at most; and two of
 * them are to have a place. */
static size_t buffer_bytes(const sched_config *c) {
    const size_t prompts = align_up(2 * (size_t)5 * c->max_model_len, 4096);
    return prompts > LEAST_BUFFER ? prompts : LEAST_BUFFER;
}

uint64_t step_log_bytes(const sched_config *c) {
    return align_up(sizeof(step_log), 64) + 2 * buffer_bytes(c);
}

/* ---- the thread ---- */

static void write_all(step_log *l, const uint8_t *p, size_t n) {
    while (n > 0 && !l->failed) {
        const ssize_t k = write(l->fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) {
            l->failed = k < 0 ? errno : EIO;
            log_error("step_log: nothing more is written: %s", strerror(l->failed));
            return;
        }
        p += k, n -= (size_t)k;
        l->n_bytes += (uint64_t)k;
    }
}

static void *write_main(void *arg) {
    step_log *l = arg;
    struct timespec until;
    pthread_setname_np(pthread_self(), "vramd-steplog");
    for (bool quit = false; !quit;) {
        pthread_mutex_lock(&l->lock);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += FLUSH_S;
        while (!l->quit && l->n < l->cap / 2)
            if (pthread_cond_timedwait(&l->wake, &l->lock, &until) != 0) break;
        quit = l->quit;
        const uint8_t *p = l->buffer[l->filling];
        const size_t n = l->n;
        l->filling ^= 1;
        l->n = 0;
        pthread_mutex_unlock(&l->lock);
        write_all(l, p, n);
    }
    return NULL;
}

static status cannot_write(const char *path, const char *why, err *e) {
    err_set(e, ERR_IO, "step_log: cannot write %s: %s", path, why);
    err_field(e, "step_log");
    return err_hint(e, "give the path of a file in a directory that this user may write");
}

status step_log_check(const char *path, err *e) {
    char folder[PATH_MAX];
    struct stat st;
    if (lstat(path, &st) == 0) {
        if (!S_ISREG(st.st_mode)) return cannot_write(path, "not a regular file", e);
        return access(path, W_OK) == 0 ? OK : cannot_write(path, strerror(errno), e);
    }
    if (errno != ENOENT || strlen(path) >= sizeof folder)
        return cannot_write(path, strerror(errno), e);
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1,
             slash ? path : ".");
    return access(folder, W_OK | X_OK) == 0 ? OK : cannot_write(path, strerror(errno), e);
}

static status open_file(step_log *l, const char *path, err *e) {
    struct stat st;
    l->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (l->fd >= 0 && fstat(l->fd, &st) == 0 && S_ISREG(st.st_mode) &&
        fchmod(l->fd, 0600) == 0 && ftruncate(l->fd, 0) == 0)
        return OK;
    cannot_write(
        path, l->fd >= 0 && !S_ISREG(st.st_mode) ? "not a regular file" : strerror(errno), e);
    if (l->fd >= 0) close(l->fd);
    return e->code;
}

status step_log_open(step_log **out, const char *path, const sched_config *c, ledger *led,
                     err *e) {
    void *mem;
    status s = ledger_alloc(led, &mem, MEM_WORKSPACE, step_log_bytes(c), "the step log", e);
    if (s != OK) return s;
    step_log *l = mem;
    *l = (step_log){.ledger = led, .cfg = *c, .cap = buffer_bytes(c)};
    l->buffer[0] = (uint8_t *)mem + align_up(sizeof *l, 64);
    l->buffer[1] = l->buffer[0] + l->cap;
    s = open_file(l, path, e);
    if (s == OK) {
        pthread_mutex_init(&l->lock, NULL);
        pthread_cond_init(&l->wake, NULL);
        memcpy(l->buffer[0], RECORD_MAGIC, RECORD_MAGIC_BYTES);
        l->n = RECORD_MAGIC_BYTES;
        const int rc = pthread_create(&l->thread, NULL, write_main, l);
        if (rc == 0) return *out = l, OK;
        s = err_set(e, ERR_NO_MEMORY, "step_log: no thread: %s", strerror(rc));
        close(l->fd);
    }
    ledger_free(led, mem);
    return s;
}

void step_log_close(step_log *l) {
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->quit = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    if (close(l->fd) != 0 && !l->failed) l->failed = errno;
    log_line(l->n_dropped || l->failed ? LOG_WARN : LOG_INFO,
             "step_log: %llu records, %llu bytes; %llu records were dropped",
             (unsigned long long)l->n_records, (unsigned long long)l->n_bytes,
             (unsigned long long)l->n_dropped);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->wake);
    ledger_free(l->ledger, l);
}

/* ---- records ---- */

static size_t append(step_log *l, const record *r) {
    const size_t n = record_write(r, l->buffer[l->filling] + l->n, l->cap - l->n);
    l->n += n;
    return n;
}

static void add(step_log *l, const record *r) {
    pthread_mutex_lock(&l->lock);
    const size_t before = l->n;
    bool ok = true;
    if (l->n_lost_now > 0)
        ok = append(l, &(record){.kind = RECORD_GAP, .value = l->n_lost_now}) > 0;
    ok = ok && append(l, r) > 0;
    if (ok) {
        l->n_records++;
        l->n_lost_now = 0;
    } else {
        l->n = before;
        l->n_dropped++;
        if (l->n_lost_now++ == 0) log_warn("step_log: the disk is too slow, records are lost");
    }
    if (l->n >= l->cap / 2) pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
}

void step_log_config(step_log *l, const sched_config *c) {
    if (!l) return;
    l->cfg = *c; /* with what loading has set */
    add(l, &(record){.kind = RECORD_CONFIG, .config = *c});
}

sched_reject logged_submit(step_log *l, sched *s, const sched_spec *spec, uint64_t now_us,
                           sched_id *out) {
    const sched_reject why = sched_submit(s, spec, now_us, out);
    if (l)
        add(l, &(record){.kind = RECORD_SUBMIT,
                         .now_us = now_us,
                         .spec = *spec,
                         .code = (uint32_t)why,
                         .id = why == REJECT_NONE ? *out : 0});
    return why;
}

void logged_cancel(step_log *l, sched *s, sched_id id, sched_finish why) {
    sched_cancel(s, id, why);
    if (l) add(l, &(record){.kind = RECORD_CANCEL, .id = id, .code = (uint32_t)why});
}

void logged_pause(step_log *l, sched *s, sched_id id, bool paused) {
    sched_pause(s, id, paused);
    if (l) add(l, &(record){.kind = RECORD_PAUSE, .id = id, .yes = paused});
}

void logged_now(step_log *l, sched *s, uint64_t now_us) {
    sched_now(s, now_us);
    if (l) add(l, &(record){.kind = RECORD_NOW, .now_us = now_us});
}

uint32_t logged_draft(step_log *l, sched *s, sched_id id, const int32_t *guess, uint32_t n,
                      bool by_model) {
    const uint32_t kept = sched_draft(s, id, guess, n, by_model);
    if (l)
        add(l, &(record){.kind = RECORD_DRAFT,
                         .id = id,
                         .value = kept,
                         .yes = by_model,
                         .guess = guess,
                         .n_guess = n});
    return kept;
}

void logged_spend(step_log *l, sched *s, uint64_t us) {
    sched_spend(s, us);
    if (l) add(l, &(record){.kind = RECORD_SPEND, .value = us});
}

const sched_step *logged_plan(step_log *l, sched *s, uint64_t now_us) {
    const sched_step *st = sched_plan(s, now_us);
    if (l)
        add(l, &(record){.kind = RECORD_PLAN,
                         .now_us = now_us,
                         .step = record_step_of(s, &l->cfg, st)});
    return st;
}

void logged_observe(step_log *l, sched *s, const sched_step *st, uint64_t us) {
    sched_observe(s, st, us);
    if (l) add(l, &(record){.kind = RECORD_OBSERVE, .step.number = st->number, .value = us});
}

/* Before the call: the plan is the scheduler's again after it. */
void logged_commit(step_log *l, sched *s, const sched_step *st,
                   const sched_step_tokens *tokens) {
    record r = {.kind = RECORD_COMMIT, .step.number = st->number, .yes = tokens != NULL};
    if (tokens) r.drawn = *tokens, r.n_entries = st->n_seqs;
    if (l) add(l, &r);
    sched_commit(s, st, tokens);
}

bool logged_resize(step_log *l, sched *s, const uint32_t n_blocks[SCHED_MAX_GROUPS]) {
    record r = {.kind = RECORD_RESIZE, .yes = sched_resize(s, n_blocks)};
    memcpy(r.n_blocks, n_blocks, l ? l->cfg.n_groups * sizeof *n_blocks : 0);
    if (l) add(l, &r);
    return r.yes;
}

bool logged_tier_add(step_log *l, sched *s, const uint64_t hash[2], const uint64_t parent[2],
                     uint64_t salt, uint32_t groups, uint64_t bytes) {
    record r = {.kind = RECORD_TIER_ADD,
                .hash = {hash[0], hash[1]},
                .has_parent = parent != NULL,
                .salt = salt,
                .groups = groups,
                .value = bytes,
                .yes = sched_tier_add(s, hash, parent, salt, groups, bytes)};
    if (parent) memcpy(r.parent, parent, sizeof r.parent);
    if (l) add(l, &r);
    return r.yes;
}

void logged_tier_switch(step_log *l, sched *s, bool on) {
    sched_tier_switch(s, on);
    if (l) add(l, &(record){.kind = RECORD_TIER_SWITCH, .yes = on});
}

static bool logged_bool(step_log *l, record_kind kind, bool yes) {
    if (l) add(l, &(record){.kind = kind, .yes = yes});
    return yes;
}

bool logged_load_next(step_log *l, sched *s, sched_chunk *out) {
    return logged_bool(l, RECORD_LOAD_NEXT, sched_load_next(s, out));
}

void logged_load_done(step_log *l, sched *s, const sched_chunk *c, bool filled) {
    sched_load_done(s, c, filled);
    logged_bool(l, RECORD_LOAD_DONE, filled);
}

bool logged_store_next(step_log *l, sched *s, sched_chunk *out) {
    return logged_bool(l, RECORD_STORE_NEXT, sched_store_next(s, out));
}

bool logged_store_done(step_log *l, sched *s, const sched_chunk *c, uint64_t bytes) {
    const bool added = sched_store_done(s, c, bytes);
    if (l) add(l, &(record){.kind = RECORD_STORE_DONE, .value = bytes});
    return added;
}

bool logged_tier_evict(step_log *l, sched *s, uint64_t bytes, uint64_t hash[2]) {
    const bool yes = sched_tier_evict(s, bytes, hash);
    if (l) add(l, &(record){.kind = RECORD_TIER_EVICT, .value = bytes, .yes = yes});
    return yes;
}

bool logged_tier_forget(step_log *l, sched *s, const uint64_t *salt, uint32_t *at,
                        uint64_t hash[2], uint64_t *bytes) {
    record r = {.kind = RECORD_TIER_FORGET, .has_salt = salt != NULL, .value = *at};
    if (salt) r.salt = *salt;
    r.yes = sched_tier_forget(s, salt, at, hash, bytes);
    if (l) add(l, &r);
    return r.yes;
}

sched_forgotten logged_forget(step_log *l, sched *s, const uint64_t *salt) {
    record r = {.kind = RECORD_FORGET, .has_salt = salt != NULL};
    if (salt) r.salt = *salt;
    const sched_forgotten f = sched_forget(s, salt);
    r.value = f.blocks;
    if (l) add(l, &r);
    return f;
}
