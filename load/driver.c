/* One level at a time. Owns the queue of jobs between the two threads, and the replies that
 * come back through it; the mutex guards all of it but what is marked. */
#include "load/driver.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

enum { MIN_READY = 64, TICK_US = 100000, PROGRESS_US = 250000 };

typedef struct driver {
    load_run *run; /* the main thread's */
    load_client *client;
    load_level *level; /* the main thread's, but for zero_us, set before the thread starts */
    load_mode mode;
    uint64_t most_jobs; /* 0: no limit */
    double duration_s;  /* 0: no limit */
    size_t max_open;

    uint64_t n_made; /* the main thread's: jobs of this level */
    double due_us;   /* the main thread's: of the last open-loop job */
    load_rng gaps;   /* the main thread's */
    uint64_t shown_us, looked_us;
    size_t n_ok, n_bad;
    uint64_t n_tokens;
    const char *label;

    pthread_mutex_t lock;
    /* for the main thread: a job was taken, a reply came, the thread ended */
    pthread_cond_t news;
    load_job *ready; /* a ring of cap */
    size_t cap, head, count;
    bool made_all, starving, ended;
    load_reply *first, **last; /* replies */
    size_t n_running;
    atomic_bool stop;
    status status; /* of the network's thread */
    err error;
} driver;

/* ---- the network's thread ---- */

static load_word next_job(void *self, load_job *out, uint64_t *wake_us) {
    driver *d = self;
    load_word word = LOAD_GO;
    uint64_t now = clock_us();
    pthread_mutex_lock(&d->lock);
    const load_job *j = &d->ready[d->head];
    if (d->count && j->open_loop && d->level->zero_us + j->due_us > now) {
        *wake_us = d->level->zero_us + j->due_us;
        word = LOAD_WAIT;
    } else if (!d->count) {
        d->starving = !d->made_all;
        *wake_us = UINT64_MAX;
        word = d->made_all ? LOAD_END : LOAD_WAIT;
    } else if (!j->open_loop && d->duration_s > 0 &&
               (double)(now - d->level->zero_us) / 1e6 >= d->duration_s) {
        d->made_all = true;
        word = LOAD_END;
    } else {
        *out = *j;
        d->head = (d->head + 1) % d->cap;
        d->count--;
        d->n_running++;
        pthread_cond_signal(&d->news);
    }
    pthread_mutex_unlock(&d->lock);
    return word;
}

static void on_reply(void *self, load_reply *r) {
    driver *d = self;
    pthread_mutex_lock(&d->lock);
    r->next = NULL;
    *d->last = r;
    d->last = &r->next;
    d->n_running--;
    pthread_cond_signal(&d->news);
    pthread_mutex_unlock(&d->lock);
}

static void *network(void *arg) {
    driver *d = arg;
    load_feed f = {.self = d, .next = next_job, .done = on_reply, .stop = &d->stop};
    status s = load_client_run(d->client, &f, d->max_open, d->level->zero_us, &d->error);
    pthread_mutex_lock(&d->lock);
    d->status = s;
    d->ended = true;
    pthread_cond_signal(&d->news);
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* ---- the main thread ---- */

/* When the next open-loop job is due; false: there is no next job of any kind. */
static bool schedule(driver *d, load_job *j, const trace_row **row) {
    const load_spec *s = d->run->spec;
    if (d->most_jobs && d->n_made == d->most_jobs) return false;
    j->open_loop = d->mode != LOAD_CLOSED;
    if (d->mode == LOAD_OPEN) {
        double mean = 1e6 / d->level->value;
        if (s->constant)
            d->due_us = (double)d->n_made * mean;
        else if (d->n_made)
            d->due_us -= mean * log(1 - load_rng_unit(&d->gaps));
    } else if (d->mode == LOAD_TRACE) {
        if (d->n_made == s->trace.n) return false;
        *row = &s->trace.rows[d->n_made];
        d->due_us = (double)(*row)->at_us / d->level->value;
    }
    if (j->open_loop && d->duration_s > 0 && d->due_us >= d->duration_s * 1e6) return false;
    j->due_us = (uint64_t)d->due_us;
    return true;
}

/* Makes one more job. Called and left with the lock held. */
static status make_one(driver *d, err *e) {
    load_job j = {.index = d->run->next_index};
    const trace_row *row = NULL;
    pthread_mutex_unlock(&d->lock);
    status s = OK;
    bool more = schedule(d, &j, &row);
    if (more) s = load_job_make(&j, d->run->spec, &d->run->vocab, row, e);
    pthread_mutex_lock(&d->lock);
    if (!more || s != OK)
        d->made_all = true;
    else {
        d->ready[(d->head + d->count++) % d->cap] = j;
        d->n_made++;
        d->run->next_index++;
    }
    if (d->starving) load_client_wake(d->client);
    d->starving = false;
    return s;
}

static status add_sample(driver *d, const load_reply *r, err *e) {
    load_level *l = d->level;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 256;
        load_sample *v = realloc(l->v, cap * sizeof *v);
        if (!v) return err_set(e, ERR_NO_MEMORY, "no memory for samples");
        l->v = v;
        l->cap = cap;
    }
    load_sample *s = &l->v[l->n];
    status st = load_reply_read(r, s, &l->gaps, e);
    if (st != OK) return st;
    l->n++;
    d->n_ok += s->fault == FAULT_NONE;
    d->n_bad += s->fault != FAULT_NONE && s->fault != FAULT_ABORTED;
    d->n_tokens += s->fault == FAULT_NONE ? s->output_tokens : 0;
    return OK;
}

/* Reads the oldest reply. Called and left with the lock held. */
static status read_one(driver *d, err *e) {
    load_reply *r = d->first;
    d->first = r->next;
    if (!d->first) d->last = &d->first;
    pthread_mutex_unlock(&d->lock);
    status s = add_sample(d, r, e);
    load_reply_free(r);
    pthread_mutex_lock(&d->lock);
    return s;
}

static void show_progress(driver *d, uint64_t now) {
    if (now - d->shown_us < PROGRESS_US) return;
    d->shown_us = now;
    double t = (double)(now - d->level->zero_us) / 1e6;
    char of[32] = "";
    if (d->most_jobs) snprintf(of, sizeof of, "/%llu", (unsigned long long)d->most_jobs);
    fprintf(stderr, "\r\033[K%s %g  %.0f s  %zu%s done  %zu running  %zu errors  %.1f tok/s",
            d->label, d->level->value, t, d->n_ok, of, d->n_running, d->n_bad,
            t > 0 ? (double)d->n_tokens / t : 0);
    fflush(stderr);
}

/* SIGINT and SIGTERM are blocked: checks whether one is pending. */
static void look_for_signal(driver *d, uint64_t now) {
    if (now - d->looked_us < TICK_US) return;
    d->looked_us = now;
    sigset_t set;
    struct timespec none = {0};
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (sigtimedwait(&set, NULL, &none) <= 0) return;
    d->run->interrupted = d->level->interrupted = true;
    atomic_store(&d->stop, true);
    load_client_wake(d->client);
}

static void wait_for_news(driver *d) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += TICK_US * 1000L;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&d->news, &d->lock, &t);
}

/* Until the thread has ended and all replies are read. On failure the thread is stopped. */
static status feed_and_collect(driver *d, bool progress, err *e) {
    status s = OK;
    pthread_mutex_lock(&d->lock);
    for (;;) {
        uint64_t now = clock_us();
        look_for_signal(d, now);
        if (progress) show_progress(d, now);
        status one = OK;
        if (!d->made_all && d->count < d->cap && !atomic_load(&d->stop))
            one = make_one(d, s == OK ? e : &(err){0});
        else if (d->first)
            one = read_one(d, s == OK ? e : &(err){0});
        else if (d->ended)
            break;
        else
            wait_for_news(d);
        if (one == OK || s != OK) continue;
        s = one;
        atomic_store(&d->stop, true);
        load_client_wake(d->client);
    }
    pthread_mutex_unlock(&d->lock);
    if (progress) fputs("\r\033[K", stderr);
    return s;
}

static status driver_init(driver *d, err *e) {
    pthread_condattr_t monotonic;
    d->last = &d->first;
    d->cap = d->mode == LOAD_CLOSED && d->max_open > MIN_READY ? d->max_open : MIN_READY;
    d->ready = calloc(d->cap, sizeof *d->ready);
    d->gaps = load_rng_of(d->run->spec->seed, 1000, d->run->next_index);
    atomic_init(&d->stop, false);
    CHECK(pthread_condattr_init(&monotonic) == 0);
    CHECK(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_mutex_init(&d->lock, NULL) == 0 &&
          pthread_cond_init(&d->news, &monotonic) == 0);
    pthread_condattr_destroy(&monotonic);
    return d->ready ? OK : err_set(e, ERR_NO_MEMORY, "no memory for the queue");
}

static void driver_clear(driver *d) {
    for (; d->count; d->count--, d->head = (d->head + 1) % d->cap)
        buf_clear(&d->ready[d->head].body);
    for (load_reply *r; (r = d->first);) {
        d->first = r->next;
        load_reply_free(r);
    }
    free(d->ready);
    pthread_cond_destroy(&d->news);
    pthread_mutex_destroy(&d->lock);
}

/* Fills the queue before the clock starts, then runs. */
static status drive(driver *d, err *e) {
    pthread_t thread;
    status s = driver_init(d, e);
    pthread_mutex_lock(&d->lock);
    while (s == OK && !d->made_all && d->count < d->cap) s = make_one(d, e);
    pthread_mutex_unlock(&d->lock);
    d->level->zero_us = d->shown_us = clock_us();
    if (s == OK && pthread_create(&thread, NULL, network, d) != 0)
        s = err_set(e, ERR_NO_MEMORY, "no thread for the network");
    else if (s == OK) {
        s = feed_and_collect(d, !d->run->quiet && isatty(STDERR_FILENO), e);
        pthread_join(thread, NULL);
        if (s == OK && d->status != OK) {
            *e = d->error;
            s = d->status;
        }
    }
    driver_clear(d);
    return s;
}

static status warm_up(load_run *run, load_client *c, err *e) {
    const load_spec *s = run->spec;
    load_level level = {.value = s->mode == LOAD_CLOSED ? s->levels[0] : 4};
    if (!s->warmup) return OK;
    driver d = {.run = run,
                .client = c,
                .level = &level,
                .mode = LOAD_CLOSED,
                .most_jobs = s->warmup,
                .max_open = (size_t)level.value,
                .label = "warming up at"};
    status st = drive(&d, e);
    load_level_clear(&level);
    return st;
}

static status run_level(load_run *run, load_client *c, load_level *l, err *e) {
    static const char *const labels[] = {"in flight", "requests/s", "trace at speed"};
    const load_spec *s = run->spec;
    driver d = {.run = run,
                .client = c,
                .level = l,
                .mode = s->mode,
                .most_jobs = s->requests,
                .duration_s = s->duration_s,
                .max_open = s->mode == LOAD_CLOSED ? (size_t)l->value : LOAD_MAX_OPEN,
                .label = labels[s->mode]};
    load_probe_memory(c, &l->before);
    status st = drive(&d, e);
    if (st == OK) load_probe_memory(c, &l->after);
    return st;
}

status load_run_all(load_run *run, load_client *c, err *e) {
    const load_spec *s = run->spec;
    sigset_t set, before;
    run->levels = calloc(s->n_levels, sizeof *run->levels);
    if (!run->levels) return err_set(e, ERR_NO_MEMORY, "no memory for the levels");
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, &before);
    status st = warm_up(run, c, e);
    for (size_t i = 0; st == OK && i < s->n_levels && !run->interrupted; i++) {
        run->levels[i].value = s->levels[i];
        run->n = i + 1;
        st = run_level(run, c, &run->levels[i], e);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return st;
}

void load_run_clear(load_run *r) {
    for (size_t i = 0; i < r->n; i++) load_level_clear(&r->levels[i]);
    free(r->levels);
    vec_i32_clear(&r->vocab.ids);
    r->levels = NULL;
    r->n = 0;
}
