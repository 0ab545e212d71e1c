/* Several models: loading, serving, unloading. Owns machines, bridges, ledgers and the memory of
 * requests. Loop thread, but for the work of planning and of closing a machine, which runs on libuv's
 * pool while no other thread knows the machine. */
#include "daemon/models/models.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/models/models_parts.h"

enum { PAGES_STAY_US = 10000000 };

static void act_soon(models *a, uint64_t after_ms);

static model_entry *entry(model_unit *u) {
    return &u->all->view.v[u->index];
}

/* ---- loading ---- */

static void refuse_held(model_unit *u, const char *why) {
    failure f;
    failure_set(&f, API_UNAVAILABLE, "the model %s: %s", u->name, why);
    f.retry_after_s = 1;
    served_refuse(u->served, &f);
    u->all->flushed(u->all->arg);
}

static void close_work(uv_work_t *w) {
    machine_close(&((model_unit *)w->data)->m);
}

/* Its bytes are free; after a load that failed with the reason. */
static void close_done(uv_work_t *w, int canceled) {
    model_unit *u = w->data;
    model_entry *x = entry(u);
    (void)canceled;
    const bool failed = x->state == MODEL_LOADING;
    x->state = failed ? MODEL_FAILED : MODEL_ABSENT;
    x->unwanted = x->if_free = false;
    if (failed) x->wanted_us = 0;
    if (failed) log_error("model %s: %s", u->name, u->error.text);
    if (failed) refuse_held(u, u->error.text);
    if (!failed) log_info("model %s: unloaded", u->name);
    act_soon(u->all, 1);
}

static void close_machine(model_unit *u) {
    u->work.data = u;
    CHECK(uv_queue_work(u->all->loop, &u->work, close_work, close_done) == 0);
}

/* The bridge's handles have closed: they do so at the end of the turn of the loop that began it. */
static void on_closed(uv_timer_t *t) {
    model_unit *u = t->data;
    if (u->bridge) bridge_free(u->bridge);
    u->bridge = NULL;
    close_machine(u);
}

static void close_bridge(model_unit *u) {
    bridge_stop(u->bridge);
    uv_timer_start(&u->timer, on_closed, 1, 0);
}

static void fail(model_unit *u, status s, const err *e) {
    u->status = s;
    if (e != &u->error) u->error = *e;
    if (u->bridge)
        close_bridge(u);
    else
        close_machine(u);
}

static void on_loaded(void *arg, status s, const err *e) {
    model_unit *u = arg;
    model_entry *x = entry(u);
    if (u->all->stopping) return;
    if (s != OK) {
        fail(u, s, e);
        return;
    }
    x->state = MODEL_READY;
    x->ready_us = clock_us();
    x->load_us = x->ready_us - u->began_us;
    x->wanted_us = 0;
    x->if_free = false;
    u->n_loads++;
    log_info("model %s: ready after %.2f s, %u requests waited", u->name,
             (double)x->load_us / 1e6, u->served->n_held);
    served_open(u->served, bridge_port(u->bridge));
    u->all->flushed(u->all->arg);
    act_soon(u->all, 1);
}

static void unit_flushed(void *arg) {
    model_unit *u = arg;
    u->all->flushed(u->all->arg);
}

static void open_work(uv_work_t *w) {
    model_unit *u = w->data;
    const machine_wish wish = models_wish(u);
    err *e = &u->error;
    u->status = machine_plan(&u->m, &u->opt, &wish, e);
    if (u->status == OK && (!u->m.file || ledger_claim(&u->m.plan) > entry(u)->bytes))
        u->status = err_set(e, ERR_BUDGET, "the file has changed since the start");
    if (u->status == OK) u->status = machine_words_open(&u->words, &u->m, u->all->shared, e);
    if (u->status == OK)
        u->status = machine_reserve_part(&u->m, u->all->shared, u->all->port.pool, e);
}

static void open_done(uv_work_t *w, int canceled) {
    model_unit *u = w->data;
    models *a = u->all;
    (void)canceled;
    if (a->stopping) return;
    status s = u->status;
    if (s == OK)
        s = bridge_open(&u->bridge, a->loop, &u->m, unit_flushed, on_loaded, u, &u->error);
    if (s == OK) {
        bridge_take_turns(u->bridge, &a->turns, u->index);
        s = bridge_start(u->bridge, &u->error);
    }
    if (s != OK) fail(u, s, &u->error);
}

static void load(model_unit *u) {
    entry(u)->state = MODEL_LOADING;
    u->began_us = clock_us();
    u->error = (err){0};
    u->work.data = u;
    log_info("model %s: loading %s", u->name, u->opt.model);
    CHECK(uv_queue_work(u->all->loop, &u->work, open_work, open_done) == 0);
}

/* ---- unloading ---- */

static void join_work(uv_work_t *w) {
    bridge_join(((model_unit *)w->data)->bridge);
}

static void join_done(uv_work_t *w, int canceled) {
    model_unit *u = w->data;
    (void)canceled;
    u->joins = false;
    close_bridge(u);
}

/* The thread of the engine stores prefixes before it ends, which takes a while. */
static void unload(model_unit *u) {
    entry(u)->state = MODEL_UNLOADING;
    served_drop(u->served, &u->closed);
    u->joins = true;
    u->work.data = u;
    CHECK(uv_queue_work(u->all->loop, &u->work, join_work, join_done) == 0);
}

static void reopen(model_unit *u) {
    entry(u)->state = MODEL_READY;
    served_open(u->served, bridge_port(u->bridge));
}

static void drain(model_unit *u, const char *why) {
    entry(u)->state = MODEL_DRAINING;
    served_close(u->served);
    log_info("model %s: its %u requests end, then it makes space for %s", u->name,
             u->served->n_users, why);
}

/* ---- what is to be done ---- */

static void look(models *a) {
    for (uint32_t i = 0; i < a->view.n; i++) {
        a->view.v[i].n_users = a->served[i].n_users;
        a->view.v[i].last_used_us = a->served[i].used_us;
        a->view.v[i].oldest_us = served_oldest_us(&a->served[i]);
    }
    CHECK(models_audit(&a->view));
}

static void act(models *a, const models_decision *d) {
    const char *of = a->unit[d->model].name;
    for (uint32_t i = 0; i < a->view.n; i++) {
        if (!(d->set >> i & 1)) continue;
        if (d->op == MODELS_DRAIN) drain(&a->unit[i], i == d->model ? "others" : of);
        if (d->op == MODELS_REOPEN) reopen(&a->unit[i]);
    }
    if (d->op == MODELS_LOAD) load(&a->unit[d->model]);
    if (d->op == MODELS_UNLOAD) {
        /* The next model is built of its pages. */
        ledger_keep_pages(a->shared, models_waited(&a->view));
        unload(&a->unit[d->model]);
    }
    if (d->op != MODELS_SKIP) return;
    a->view.v[d->model].if_free = false;
    log_info("model %s: not loaded at the start, since it does not fit beside the others", of);
}

/* The whole is ready when nothing that the start is to load is left. */
static void announce(models *a) {
    bool left = false;
    for (uint32_t i = 0; i < a->view.n; i++) {
        const model_entry *x = &a->view.v[i];
        left |= x->if_free || x->state == MODEL_LOADING || (x->pinned && x->wanted_us);
    }
    if (left || a->announced || a->draining) return;
    a->announced = true;
    a->ready(a->arg);
}

/* Refuses what waits for too long, or for a model that has failed; returns when the next one is due. */
static uint64_t expire(models *a, uint64_t now) {
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < a->view.n; i++) {
        served *s = &a->served[i];
        if (a->draining && s->n_held) refuse_held(&a->unit[i], "the server is shutting down");
        if (a->view.v[i].state == MODEL_FAILED && s->n_held)
            refuse_held(&a->unit[i], a->unit[i].error.text);
        const uint64_t due = served_expire(s, now, a->opt.load_timeout);
        if (due < next) next = due;
    }
    a->flushed(a->arg);
    return next;
}

/* What the latest load has left of the pages is the system's again, but not at once: where two models
 * alternate, the larger one takes them back. Returns when that is due; UINT64_MAX: none are kept. */
static uint64_t drop_pages(models *a, uint64_t now) {
    if (models_busy(&a->view)) a->moved_us = now;
    if (!a->moved_us) return UINT64_MAX;
    if (now < a->moved_us + PAGES_STAY_US) return a->moved_us + PAGES_STAY_US;
    ledger_keep_pages(a->shared, false);
    a->moved_us = 0;
    return UINT64_MAX;
}

static void on_tick(uv_timer_t *t) {
    models *a = t->data;
    const uint64_t now = clock_us();
    uint64_t next = expire(a, now);
    models_decision d = {0};
    while (!a->draining) {
        look(a);
        d = models_decide(&a->view, now);
        if (d.op == MODELS_NOTHING) break;
        act(a, &d);
    }
    const uint64_t until = drop_pages(a, now);
    announce(a);
    if (d.again_us && d.again_us < next) next = d.again_us;
    if (until < next) next = until;
    if (next != UINT64_MAX) act_soon(a, next > now ? (next - now) / 1000 + 1 : 1);
}

/* The earliest call counts: each looks again when the next one is due. */
static void act_soon(models *a, uint64_t after_ms) {
    if (a->stopping) return;
    if (uv_is_active((uv_handle_t *)&a->tick) && uv_timer_get_due_in(&a->tick) <= after_ms)
        return;
    uv_timer_start(&a->tick, on_tick, after_ms, 0);
}

/* ---- what the endpoints call ---- */

static void on_changed(served *s) {
    model_unit *u = s->owner;
    act_soon(u->all, 0);
}

static void on_view(const served *s, served_view *out) {
    const model_unit *u = s->owner;
    const model_entry *x = &u->all->view.v[u->index];
    const uint64_t ago_s = (clock_us() - s->used_us) / 1000000;
    *out = (served_view){.state = model_state_name(x->state),
                         .why = x->state == MODEL_FAILED ? u->error.text : "",
                         .bytes = x->bytes,
                         .last_used = s->used_us ? (uint64_t)time(NULL) - ago_s : 0,
                         .n_loads = u->n_loads,
                         .load_s = (double)x->load_us / 1e6,
                         .pinned = x->pinned};
    ledger_view v;
    if (x->state != MODEL_READY && x->state != MODEL_DRAINING) return;
    ledger_read(u->m.ledger, &v);
    out->bytes_now = v.ledger_bytes;
}

static void on_load(served *s) {
    model_unit *u = s->owner;
    model_entry *x = entry(u);
    if (x->state == MODEL_FAILED) x->state = MODEL_ABSENT;
    if (x->state == MODEL_ABSENT) x->wanted_us = clock_us();
    x->unwanted = false;
    act_soon(u->all, 0);
}

static status on_unload(served *s, err *e) {
    model_unit *u = s->owner;
    model_entry *x = entry(u);
    if (x->pinned) return err_set(e, ERR_INVALID, "the model %s is pinned", u->name);
    if (s->n_held || x->state == MODEL_LOADING)
        return err_set(e, ERR_BUSY, "the model %s is being loaded, or waited for", u->name);
    x->wanted_us = 0;
    x->unwanted = x->state == MODEL_READY || x->state == MODEL_DRAINING;
    act_soon(u->all, 0);
    return OK;
}

static const served_ops ops = {
    .changed = on_changed, .view = on_view, .load = on_load, .unload = on_unload};

/* ---- life ---- */

static void open_unit(model_unit *u, uint64_t created) {
    models_closed_port(u, created);
    u->served->port = &u->closed;
    u->served->ops = &ops;
    u->served->owner = u;
    u->served->tenants = u->tenants;
    uv_timer_init(u->all->loop, &u->timer);
    u->timer.data = u;
}

status models_open(models *a, uv_loop_t *loop, void (*flushed)(void *), void (*ready)(void *),
                   void *arg, err *e) {
    const uint64_t created = (uint64_t)time(NULL);
    a->loop = loop;
    a->flushed = flushed;
    a->ready = ready;
    a->arg = arg;
    status s = ledger_open_shared(&a->shared, a->budget.bytes, e);
    if (s == OK) s = ledger_open_under(&a->front_ledger, &a->front, a->shared, e);
    if (s == OK) s = models_disk_open(a, e);
    if (s != OK) return s;
    const uint64_t runtime = terms_sum(&a->front.terms, MEM_RUNTIME);
    CHECK(ledger_reserve(a->front_ledger, MEM_RUNTIME, runtime));
    s = pool_open(&a->port.pool, a->shared, MEM_REQUESTS, a->request_memory, e);
    if (s != OK) return s;
    models_port_open(a, created);
    turns_init(&a->turns, a->view.n);
    uv_timer_init(loop, &a->tick);
    a->tick.data = a;
    for (uint32_t i = 0; i < a->view.n; i++) open_unit(&a->unit[i], created);
    a->started = true;
    return OK;
}

port *models_port(models *a) {
    return &a->port;
}

served *models_served(models *a, uint32_t *n) {
    *n = a->view.n;
    return a->served;
}

void models_start(models *a) {
    for (uint32_t i = 0; i < a->view.n; i++)
        if (a->view.v[i].pinned) a->view.v[i].wanted_us = 1 + i;
    act_soon(a, 0);
}

void models_drain(models *a) {
    a->draining = true;
    for (uint32_t i = 0; i < a->view.n; i++)
        if (a->unit[i].bridge) bridge_drain(a->unit[i].bridge);
    act_soon(a, 0);
}

void models_stop(models *a) {
    if (!a || !a->started) return;
    a->stopping = true;
    uv_close((uv_handle_t *)&a->tick, NULL);
    for (uint32_t i = 0; i < a->view.n; i++) {
        model_unit *u = &a->unit[i];
        const bool closing = uv_is_active((uv_handle_t *)&u->timer);
        if (!closing && a->view.v[i].state != MODEL_ABSENT && !u->served->open)
            served_drop(u->served, &u->closed);
        if (u->served->open) {
            served_close(u->served);
            served_drop(u->served, &u->closed);
        }
        if (u->bridge && !closing && !u->joins) bridge_stop(u->bridge);
        uv_close((uv_handle_t *)&u->timer, NULL);
    }
}

void models_free(models *a) {
    if (!a) return;
    for (uint32_t i = 0; a->unit && i < a->view.n; i++) {
        if (a->unit[i].bridge) bridge_free(a->unit[i].bridge);
        machine_close(&a->unit[i].m);
        machine_words_free(&a->unit[i].words);
    }
    if (a->started) turns_destroy(&a->turns);
    pool_close(a->port.pool);
    if (a->front_ledger)
        ledger_release(a->front_ledger, MEM_RUNTIME, terms_sum(&a->front.terms, MEM_RUNTIME));
    ledger_close(a->front_ledger);
    ledger_close(a->shared);
    plan_clear(&a->front);
    kv_dir_close(&a->disk);
    free(a->served);
    free(a->unit);
    free(a);
}
