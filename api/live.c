/* Streams of the account: who has one, when they get something, how they end (api/live.h). */
#include "api/live.h"

#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/clock.h"

enum {
    IDLE_TICK_MS = HISTORY_STEP_S * 1000,
    SAMPLE_US = 10 * 1000000, /* what the system says is asked this seldom, and ... */
    SAMPLE_SHARE = 500        /* ... so that it takes at most this part of the time */
};

uint64_t live_bytes(void) {
    return align_up(sizeof(live), 64);
}

status live_open(live **out, app *a, err *e) {
    void *mem;
    const status s =
        ledger_alloc(a->port->ledger, &mem, MEM_HTTP, live_bytes(), "history of the page", e);
    if (s != OK) return s;
    live *l = mem;
    l->app = a;
    l->history.start_us = clock_us();
    if (getrandom(&l->start, sizeof l->start, GRND_NONBLOCK) != sizeof l->start)
        l->start = clock_us();
    *out = l;
    return OK;
}

void live_start(live *l) {
    live_tick(l);
    http_every(l->app->http, IDLE_TICK_MS);
}

void live_close(live *l) {
    if (!l) return;
    CHECK(l->n_streams == 0);
    ledger_free(l->app->port->ledger, l);
}

/* ---- views ---- */

/* The next view, of now; those who have the latest get what differs. */
static void look(live *l, uint64_t now_us) {
    const live_view *was = &l->view[l->now];
    live_view *v = &l->view[l->now ^ 1];
    port *p = l->app->port;
    v->at_us = now_us;
    memory_view_read(l->app, &v->memory);
    live_rates_make(&v->rates, l->app, &l->history, &v->memory, now_us);
    if (!p->ops->picture(p, &v->picture)) v->picture = was->picture;
    l->now ^= 1;
}

static void record(live *l, uint64_t now_us) {
    const uint64_t step_us = (uint64_t)HISTORY_STEP_S * 1000000, early_us = step_us / 10;
    if (l->history.n && now_us - l->recorded_us < step_us - early_us) return;
    l->recorded_us = now_us;
    if (!l->n_streams) memory_view_read(l->app, &l->view[l->now].memory);
    live_history_add(&l->history, &l->view[l->now].memory, now_us);
}

static void work(void *arg) {
    live *l = arg;
    memory_sample_take(l->app->port, &l->sample);
}

static void done(void *arg) {
    live *l = arg;
    app *a = l->app;
    http_request *rq = l->sampler;
    const uint64_t now_us = clock_us();
    const uint64_t rest_us = (now_us - (l->sample_from_us - SAMPLE_US)) * SAMPLE_SHARE;
    if (l->sample.at_us > a->memory.at_us) a->memory = l->sample;
    a->sampling = false;
    l->sampler = NULL;
    l->sample_from_us = now_us + (rest_us > SAMPLE_US ? rest_us : SAMPLE_US);
    http_unref(rq);
    http_flush(a->http);
}

/* What the system says of the process: on the pool of threads. */
static void sample(live *l, uint64_t now_us) {
    app *a = l->app;
    if (a->sampling || now_us < l->sample_from_us) return;
    for (int i = 0; i < LIVE_STREAMS && !l->sampler; i++) l->sampler = l->stream[i].rq;
    http_ref(l->sampler); /* the server is not closed before it is back */
    l->sample_from_us = now_us + SAMPLE_US;
    a->sampling = a->port->ops->offload(a->port, work, done, l);
    if (a->sampling) return;
    http_unref(l->sampler);
    l->sampler = NULL;
}

/* ---- a stream ---- */

/* Its place is free; the request lives on. */
static void leave(live_stream *s) {
    live *l = s->of;
    s->rq->live = NULL;
    if (s->tenant) s->tenant->n_views--;
    *s = (live_stream){0};
    if (--l->n_streams == 0 && !l->ended) http_every(l->app->http, IDLE_TICK_MS);
}

void live_gone(http_request *rq) {
    if (rq->live) leave(rq->live);
}

static void cut(live_stream *s) {
    http_request *rq = s->rq;
    leave(s);
    http_cut(rq);
}

static void write_history(live_stream *s) {
    const live *l = s->of;
    const port *p = l->app->port;
    buf *b = http_stream_out(s->rq);
    s->has_history = true;
    buf_add(b, STR("event: history\ndata: "));
    live_history_write(b, &l->history, p->device_ledger ? p->device : "host", clock_us());
    buf_add(b, STR("\n\n"));
    http_wake(s->rq);
}

/* The history comes when the whole has left, so that the two do not take memory at once. */
void live_sent(http_request *rq) {
    if (rq->live && !rq->live->has_history) write_history(rq->live);
}

static void send(live_stream *s, uint64_t now_us) {
    const size_t pending = http_stream_pending(s->rq);
    if (pending >= LIVE_BEHIND_BYTES) {
        s->stale = true;
        if (!s->behind_since_us) s->behind_since_us = now_us;
        if (now_us - s->behind_since_us >= LIVE_BEHIND_US) cut(s);
        return;
    }
    s->behind_since_us = 0;
    live_write(http_stream_out(s->rq), s->of, s, s->stale);
    s->stale = false;
    if (http_stream_pending(s->rq) > pending) http_wake(s->rq);
}

void live_tick(live *l) {
    const uint64_t now_us = clock_us();
    if (l->n_streams) look(l, now_us);
    record(l, now_us);
    for (int i = 0; i < LIVE_STREAMS; i++)
        if (l->stream[i].rq) send(&l->stream[i], now_us);
    if (l->n_streams) sample(l, now_us);
}

/* ---- beginning and end ---- */

static live_stream *free_place(live *l, const tenant *t, failure *f) {
    live_stream *s = NULL;
    for (int i = 0; i < LIVE_STREAMS && !s; i++)
        if (!l->stream[i].rq) s = &l->stream[i];
    if (l->ended)
        failure_set(f, API_UNAVAILABLE, "the server is shutting down");
    else if (!s)
        failure_set(f, API_BUSY, "there are %d streams of the account already", LIVE_STREAMS);
    else if (t && t->n_views >= LIVE_STREAMS_OF_KEY)
        failure_set(f, API_BUSY, "the key of %s has %d streams of the account already", t->name,
                    LIVE_STREAMS_OF_KEY);
    else
        return s;
    f->retry_after_s = 10;
    return NULL;
}

/* Whether the page of this stream could move the budget. */
static bool may_resize(app *a, const http_request *rq) {
    failure f;
    return !a->served[0].ops && app_may_administer(a, rq, "change the budget", &f) &&
           (a->keys || app_host_is_here(rq));
}

void live_stream_run(app *a, http_request *rq) {
    live *l = a->live;
    failure f;
    if (rq->method == HTTP_HEAD) {
        http_answer(rq, 200, "text/event-stream", (str){NULL, 0});
        return;
    }
    live_stream *s = free_place(l, rq->tenant, &f);
    if (!s) {
        http_refuse(rq, &f);
        return;
    }
    *s = (live_stream){.rq = rq,
                       .of = l,
                       .tenant = rq->tenant,
                       .all_keys = rq->tenant && rq->tenant->limits.admin,
                       .may_resize = may_resize(a, rq)};
    if (s->tenant) s->tenant->n_views++;
    rq->live = s;
    if (l->n_streams++ == 0) {
        kv_picture *old = &l->view[l->now ^ 1].picture;
        a->port->ops->picture(a->port, old); /* of an earlier stream's time, if any */
        l->view[0].picture.n_groups = l->view[1].picture.n_groups = 0;
        l->view[0].picture.states.n = l->view[1].picture.states.n = 0;
        look(l, clock_us());
        record(l, clock_us());
        http_every(a->http, LIVE_TICK_MS);
    }
    http_stream(rq);
    live_write(http_stream_out(rq), l, s, true);
    http_wake(rq);
    sample(l, clock_us());
}

void live_end(live *l, const char *why) {
    l->ended = strcmp(why, "draining") == 0;
    for (int i = 0; i < LIVE_STREAMS; i++) {
        live_stream *s = &l->stream[i];
        http_request *rq = s->rq;
        if (!rq) continue;
        if (http_stream_pending(rq) >= LIVE_BEHIND_BYTES) {
            cut(s);
            continue;
        }
        buf_addf(http_stream_out(rq), "event: bye\ndata: {\"why\":\"%s\"}\n\n", why);
        leave(s);
        http_stream_end(rq);
    }
}
