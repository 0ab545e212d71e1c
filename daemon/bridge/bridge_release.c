/* Events and timers around memory/release.h. */
#include "daemon/bridge/bridge_release.h"

#include "base/clock.h"
#include "base/log.h"
#include "daemon/bridge/bridge_parts.h"
#include "daemon/machine_budget.h"

/* Begins the change to the budget that is right now, unless another is on its way: then its end
 * calls again. */
static void apply(bridge *b, release_cause cause) {
    releasing *r = &b->release;
    const uint64_t wanted = release_wanted(&r->state);
    err e;
    if (b->resize.pending || wanted == b->resize.target_bytes) return;
    if (resize_want(&b->port, wanted, NULL, NULL, &e) != OK) {
        log_debug("memory: the budget stays: %s", e.text);
        return;
    }
    r->changing = true;
    r->cause = cause;
    r->asked = wanted;
    r->kv_before = b->m->plan.kv_bytes;
}

/* ---- memory pressure ---- */

/* Blocks that a sequence may soon need beside those that it holds. In a group with a window, all
 * that it may ever hold: so much is set aside for it. */
static uint32_t growth_of(const bridge *b, const gen *g, uint32_t k) {
    enum { SOON_TOKENS = 256 };
    const sched_config *c = &b->m->sched_conf;
    const uint32_t most = g->spec.max_tokens, n = g->n_output;
    uint32_t left = most > n ? most - n : 0;
    if (g->state != STATE_RUNNING && g->state != STATE_PREEMPTED) return 0;
    if (c->group[k].window) return (uint32_t)sched_blocks_needed(c, k, g->spec.n_prompt, most);
    if (left > SOON_TOKENS) left = SOON_TOKENS;
    /* Of a prompt all, as long as it may not be computed. */
    if (n == 0 || g->state == STATE_PREEMPTED)
        return (uint32_t)sched_blocks_needed(c, k, g->spec.n_prompt + n, left);
    return left / c->block_tokens + 1;
}

/* Blocks that each group must keep: those that are held, and what sequences may soon need. */
static void needed_blocks(bridge *b, uint32_t need[PLAN_MAX_GROUPS]) {
    const sched_config *c = &b->m->sched_conf;
    pthread_mutex_lock(&b->stats_lock);
    for (uint32_t k = 0; k < c->n_groups; k++) {
        const sched_blocks_view *g = &b->stats.group[k];
        need[k] = g->fenced + (c->group[k].window ? 0 : g->used);
        if (b->n_live > 0) need[k] += sched_blocks_aside(c, k);
    }
    pthread_mutex_unlock(&b->stats_lock);
    for (uint32_t i = 0; i < b->n_gens; i++)
        for (uint32_t k = 0; k < c->n_groups; k++) need[k] += growth_of(b, &b->all[i], k);
}

static bool holds(const bridge *b, uint64_t budget, const uint32_t *need) {
    const plan *now = &b->m->plan;
    plan p = {0};
    err e;
    bool ok = machine_replan(b->m, budget, &p, &e) == OK;
    for (uint32_t k = 0; ok && k < now->n_groups; k++)
        ok = p.group_blocks[k] >= need[k] || p.group_blocks[k] >= now->group_blocks[k];
    plan_clear(&p);
    return ok;
}

/* The smallest budget, to a piece, that holds what running sequences need. */
static uint64_t needed_budget(bridge *b) {
    uint32_t need[PLAN_MAX_GROUPS];
    uint64_t lo = b->resize.smallest_bytes, hi = b->m->plan.total_bytes;
    needed_blocks(b, need);
    if (holds(b, lo, need)) return lo;
    while (lo < hi && hi - lo > RELEASE_PIECE / 8) {
        const uint64_t mid = lo + (hi - lo) / 2;
        if (holds(b, mid, need))
            hi = mid;
        else
            lo = mid;
    }
    return hi;
}

static void on_grow(uv_timer_t *t);

static void set_timer(bridge *b) {
    const uint64_t next = release_next_us(&b->release.state), now = clock_us();
    if (next == UINT64_MAX)
        uv_timer_stop(&b->release.grow);
    else
        uv_timer_start(&b->release.grow, on_grow, next > now ? (next - now) / 1000 + 1 : 1, 0);
}

static void on_grow(uv_timer_t *t) {
    bridge *b = t->data;
    releasing *r = &b->release;
    char text[32];
    uv_update_time(b->loop);
    if (b->resize.pending) { /* one change at a time */
        uv_timer_start(&r->grow, on_grow, 1000, 0);
        return;
    }
    if (release_grow(&r->state, clock_us())) {
        log_info("memory pressure: none for a while, the budget may be %s bytes%s",
                 bytes_grouped(r->state.level, text),
                 r->state.level == r->state.full ? " again" : "");
        apply(b, RELEASE_NONE);
    }
    set_timer(b);
}

static void press(bridge *b) {
    releasing *r = &b->release;
    if (atomic_load(&b->load_state) != READY || b->draining) return;
    r->pressed = b->resize.pending; /* one change at a time */
    if (r->pressed) return;
    uv_update_time(b->loop);
    release_on_pressure(&r->state, clock_us(), b->m->plan.total_bytes, needed_budget(b));
    set_timer(b);
    apply(b, RELEASE_PRESSURE);
    if (!r->changing)
        log_info("memory pressure: reported, but nothing can be given back: sequences hold the "
                 "rest");
}

static void on_pressure(uv_poll_t *p, int status, int events) {
    bridge *b = p->data;
    if (status < 0) {
        log_warn("memory pressure: %s is gone, nothing is watched any more: %s",
                 b->release.source->path, uv_strerror(status));
        uv_poll_stop(p);
        return;
    }
    pressure_read(b->release.source);
    if (!events) return;
    b->release.n_events++;
    press(b);
}

status release_watch(bridge *b, const pressure *source, err *e) {
    releasing *r = &b->release;
    const int events = source->fifo ? UV_READABLE : UV_PRIORITIZED;
    int rc = uv_poll_init(b->loop, &r->poll, source->fd);
    if (rc == 0) {
        r->source = source;
        r->poll.data = b;
        rc = uv_poll_start(&r->poll, events, on_pressure);
    }
    if (rc == 0) {
        log_info("memory pressure: watching %s", source->path);
        return OK;
    }
    err_set(e, ERR_IO, "memory_pressure = psi: %.200s cannot be watched: %s", source->path,
            uv_strerror(rc));
    return err_field(e, "memory_pressure");
}

/* ---- idleness ---- */

static void on_idle(uv_timer_t *t) {
    bridge *b = t->data;
    if (b->n_live > 0 || b->draining) return;
    log_info("idle for %u s: what the KV cache can do without is the system's",
             b->m->opt.idle_release);
    release_on_idle(&b->release.state, b->resize.smallest_bytes);
    apply(b, RELEASE_IDLE);
}

void release_rest(bridge *b) {
    const uint64_t ms = (uint64_t)b->m->opt.idle_release * 1000;
    if (ms == 0 || b->n_live > 0 || atomic_load(&b->load_state) != READY) return;
    uv_timer_start(&b->release.idle, on_idle, ms, 0);
}

void release_busy(bridge *b) {
    if (b->m->opt.idle_release == 0) return;
    uv_timer_stop(&b->release.idle);
    if (!b->release.state.idle) return;
    release_on_request(&b->release.state);
    apply(b, RELEASE_NONE);
}

/* ---- both ---- */

status release_resize(port *p, uint64_t budget_bytes, resize_done *done, void *arg, err *e) {
    bridge *b = (bridge *)p;
    status s = resize_want(p, budget_bytes, done, arg, e);
    if (s != OK) return s;
    release_set(&b->release.state, budget_bytes);
    set_timer(b);
    b->release.changing = false;
    release_rest(b);
    return OK;
}

static void count_given(releasing *r, uint64_t bytes) {
    char text[32];
    if (r->cause == RELEASE_PRESSURE) r->pressure_bytes += bytes;
    if (r->cause == RELEASE_IDLE) r->idle_bytes += bytes;
    log_info("%s: %s bytes of KV cache were given back",
             r->cause == RELEASE_IDLE ? "idle" : "memory pressure", bytes_grouped(bytes, text));
}

void release_collect(bridge *b) {
    releasing *r = &b->release;
    const uint64_t kv = b->m->plan.kv_bytes, have = b->resize.target_bytes;
    if (b->resize.pending) return;
    if (!r->changing) {
        /* The operator's change ended early: that is the budget. */
        if (have < r->state.full && have < release_wanted(&r->state))
            release_set(&r->state, have);
    } else {
        r->changing = false;
        if (kv < r->kv_before) count_given(r, r->kv_before - kv);
        if (have < r->asked) {
            release_on_refusal(&r->state, clock_us(), have);
            set_timer(b);
        }
    }
    apply(b, r->state.idle ? RELEASE_IDLE : RELEASE_NONE);
    if (r->pressed) press(b);
}

void release_view(const bridge *b, budget_view *out) {
    const releasing *r = &b->release;
    out->full_bytes = r->state.full;
    out->pressure_source = r->source ? r->source->path : NULL;
    out->pressed = r->state.level < r->state.full;
    out->idle = r->state.idle != 0;
    out->idle_after_s = b->m->opt.idle_release;
    out->n_pressure = r->n_events;
    out->pressure_bytes = r->pressure_bytes;
    out->idle_bytes = r->idle_bytes;
}

void release_open(bridge *b) {
    releasing *r = &b->release;
    release_set(&r->state, b->m->plan.budget_bytes);
    uv_timer_init(b->loop, &r->grow);
    uv_timer_init(b->loop, &r->idle);
    r->grow.data = r->idle.data = b;
}

void release_close(bridge *b) {
    releasing *r = &b->release;
    uv_close((uv_handle_t *)&r->grow, NULL);
    uv_close((uv_handle_t *)&r->idle, NULL);
    if (r->source) uv_close((uv_handle_t *)&r->poll, NULL);
}
