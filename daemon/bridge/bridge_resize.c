/* The two halves of a change of the budget; bridge_resize.h says who does what. */
#include "daemon/bridge/bridge_resize.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/bridge/bridge_parts.h"
#include "daemon/machine_budget.h"
#include "daemon/step_log.h"
#include "scheduler/resize.h"

/* A piece takes the system 10 to 30 ms: giving back is five times as fast as populating. */
static const uint64_t PIECE_GROW = 8 << 20, PIECE_SHRINK = 64 << 20;
enum { WAIT_MS = 2000 };

/* ---- loop thread ---- */

/* The waiter is answered once, and may want something else from within. */
static void answer(bridge *b, status s, const err *e) {
    resizing *r = &b->resize;
    resize_done *waiter = r->waiter;
    r->waiter = NULL;
    uv_timer_stop(&r->timer);
    if (waiter) waiter(r->arg, s, e);
}

static void on_late(uv_timer_t *t) {
    bridge *b = t->data;
    err e;
    err_set(&e, ERR_BUSY, "the new budget is not in force yet");
    answer(b, ERR_BUSY, &e);
    b->flushed(b->arg);
}

void resize_open(bridge *b) {
    plan p;
    err e;
    resizing *r = &b->resize;
    r->target_bytes = b->m->plan.budget_bytes;
    r->smallest_bytes = b->m->plan.smallest_budget_bytes;
    /* Without what loading took, where the engine can change it at all. */
    if (machine_replan(b->m, b->m->plan.budget_bytes, &p, &e) == OK)
        r->smallest_bytes = p.smallest_budget_bytes;
    plan_clear(&p);
    uv_timer_init(b->loop, &r->timer);
    r->timer.data = b;
}

void resize_close(bridge *b) {
    plan_clear(&b->resize.plan);
    uv_close((uv_handle_t *)&b->resize.timer, NULL);
}

static status may_want(const bridge *b, err *e) {
    if (atomic_load(&b->load_state) != READY || b->draining)
        return err_set(e, ERR_UNAVAILABLE, "the server is starting or shutting down");
    engine_info info;
    engine_describe(b->m->engine, &info);
    if (info.kv_fixed) {
        err_set(e, ERR_UNSUPPORTED,
                "this device cannot change the size of the KV cache while it serves");
        return err_field(e, "budget_bytes");
    }
    if (b->resize.waiter) return err_set(e, ERR_BUSY, "another request is changing the budget");
    return OK;
}

status resize_want(port *p, uint64_t budget_bytes, resize_done *done, void *arg, err *e) {
    bridge *b = (bridge *)p;
    resizing *r = &b->resize;
    char t[2][32];
    plan next = {0};
    status s = may_want(b, e);
    if (s == OK) s = machine_replan(b->m, budget_bytes, &next, e);
    if (s != OK) {
        plan_clear(&next);
        return s;
    }
    log_info("memory: the budget changes from %s to %s bytes, %u to %u KV blocks",
             bytes_grouped(r->target_bytes, t[0]), bytes_grouped(budget_bytes, t[1]),
             b->m->plan.kv_blocks, next.kv_blocks);
    plan_clear(&r->plan);
    r->plan = next;
    r->pending = true;
    r->target_bytes = budget_bytes;
    r->waiter = done;
    r->arg = arg;
    /* Requests that come from now on fit both. Each of max_model_len does. */
    for (uint32_t k = 0; k < next.n_groups; k++)
        if (b->m->sched_conf.group[k].n_blocks > next.group_blocks[k])
            b->m->sched_conf.group[k].n_blocks = next.group_blocks[k];
    if (done) uv_timer_start(&r->timer, on_late, WAIT_MS, 0);
    pthread_mutex_lock(&b->in_lock);
    r->number++;
    r->budget_bytes = budget_bytes;
    memcpy(r->blocks, next.group_blocks, sizeof r->blocks);
    pthread_cond_signal(&b->in_wake);
    pthread_mutex_unlock(&b->in_lock);
    return OK;
}

/* The ledger of the memory that has the KV cache. */
static ledger *pool_ledger(const machine *m) {
    return m->device_ledger ? m->device_ledger : m->ledger;
}

/* Growing ended early: the plan is what there is. */
static void cut_plan(plan *p, uint64_t granule, const uint32_t *have) {
    const uint64_t steady = p->total_bytes - p->kv_bytes;
    p->kv_bytes = 0;
    for (uint32_t k = 0; k < p->n_groups; k++) {
        p->group_blocks[k] = have[k];
        p->kv_bytes += plan_pool_bytes(granule, have[k], p->group_block_bytes[k]);
    }
    p->total_bytes = p->budget_bytes = steady + p->kv_bytes;
}

static void take_over(bridge *b, status result, const uint32_t *have) {
    resizing *r = &b->resize;
    machine *m = b->m;
    if (result != OK) cut_plan(&r->plan, m->kv.granule, have);
    plan_clear(&m->plan);
    m->plan = r->plan;
    r->plan = (plan){0};
    r->pending = false;
    r->target_bytes = m->plan.budget_bytes;
    r->n_resizes++;
    b->port.kv_bytes = m->plan.kv_bytes;
    for (uint32_t k = 0; k < m->plan.n_groups; k++)
        m->sched_conf.group[k].n_blocks = m->plan.group_blocks[k];
    if (result != OK)
        ledger_set_budget(pool_ledger(m), m->plan.budget_bytes, MEM_KV,
                          m->plan.kv_bytes + terms_sum(&m->fixed, MEM_KV));
}

void resize_collect(bridge *b) {
    resizing *r = &b->resize;
    uint32_t have[PLAN_MAX_GROUPS];
    if (!r->pending) return;
    pthread_mutex_lock(&b->stats_lock);
    const bool done = r->done == r->number; /* only this thread counts number up */
    const status result = r->result;
    const err why = r->why;
    memcpy(have, r->have, sizeof have);
    pthread_mutex_unlock(&b->stats_lock);
    if (!done) return;
    take_over(b, result, have);
    answer(b, result, &why);
}

void resize_view(const bridge *b, budget_view *out) {
    *out = (budget_view){.target_bytes = b->resize.target_bytes,
                         .smallest_bytes = b->resize.smallest_bytes,
                         .most_bytes = machine_memory_max(b->m),
                         .resizing = b->resize.pending,
                         .n_resizes = b->resize.n_resizes};
}

/* ---- engine thread ---- */

void resize_start(bridge *b) {
    resizing *r = &b->resize;
    memcpy(r->now, b->m->engine_opt.n_blocks, sizeof r->now);
    r->goal_budget = r->old_budget = b->m->plan.budget_bytes;
}

/* Of class kv, with what it has beside blocks. */
static uint64_t kv_bytes(const bridge *b, const uint32_t *n) {
    uint64_t bytes = terms_sum(&b->m->fixed, MEM_KV);
    for (uint32_t k = 0; k < b->m->sched_conf.n_groups; k++)
        bytes += plan_pool_bytes(b->m->kv.granule, n[k], b->m->sched_conf.group[k].block_bytes);
    if (b->m->draft.model) bytes += n[b->m->draft.group] * b->m->draft.block_bytes;
    return bytes;
}

static void take_wish(bridge *b) {
    resizing *r = &b->resize;
    pthread_mutex_lock(&b->in_lock);
    const bool newer = r->number != r->taken;
    r->taken = r->number;
    if (newer) {
        memcpy(r->goal, r->blocks, sizeof r->goal);
        r->goal_budget = r->budget_bytes;
    }
    pthread_mutex_unlock(&b->in_lock);
    if (!newer) return;
    r->active = true;
    r->drains = false;
    r->began_us = clock_us();
}

static void finish(bridge *b, status result, const err *why) {
    resizing *r = &b->resize;
    if (result == OK) {
        ledger_set_budget(pool_ledger(b->m), r->goal_budget, MEM_KV, kv_bytes(b, r->now));
        log_info("memory: the new budget is in force after %.3f s",
                 (double)(clock_us() - r->began_us) / 1e6);
    } else {
        log_warn("memory: the new budget is not reached: %s", why->text);
    }
    r->old_budget = r->goal_budget;
    r->active = false;
    pthread_mutex_lock(&b->stats_lock);
    r->done = r->taken;
    r->result = result;
    if (result != OK) r->why = *why;
    memcpy(r->have, r->now, sizeof r->have);
    pthread_mutex_unlock(&b->stats_lock);
    uv_async_send(&b->async);
}

/* The blocks of both models' pools: that of the draft model has as many as the group whose places it has. */
static status resize_pools(bridge *b, const uint32_t *next, err *e) {
    err unused;
    machine *m = b->m;
    resizing *r = &b->resize;
    status s = engine_kv_resize(m->engine, next, e);
    if (s != OK) return s;
    s = draft_model_resize(m, next, e);
    if (s == OK) {
        memcpy(r->now, next, sizeof r->now);
        if (m->draft.model) r->now[m->draft.pool] = next[m->draft.group];
        return OK;
    }
    /* It could not grow, so both go back; giving pages back cannot fail. */
    CHECK(engine_kv_resize(m->engine, r->now, &unused) == OK);
    CHECK(draft_model_resize(m, r->now, &unused) == OK);
    return s;
}

/* One group by a piece; what the plan says of the class moves with it, before pages come and after
 * they are gone. */
static status resize_piece(bridge *b, uint32_t k, bool grows, err *e) {
    resizing *r = &b->resize;
    machine *m = b->m;
    const uint64_t block = m->sched_conf.group[k].block_bytes;
    const uint64_t most = (grows ? PIECE_GROW : PIECE_SHRINK) / block + 1;
    const uint32_t left = grows ? r->goal[k] - r->now[k] : r->now[k] - r->goal[k];
    const uint32_t n = left < most ? left : (uint32_t)most;
    const uint64_t budget = r->goal_budget > r->old_budget ? r->goal_budget : r->old_budget;
    uint32_t next[PLAN_MAX_GROUPS];
    memcpy(next, r->now, sizeof next);
    next[k] = grows ? next[k] + n : next[k] - n;
    if (grows) ledger_set_budget(pool_ledger(m), budget, MEM_KV, kv_bytes(b, next));
    const status s = resize_pools(b, next, e);
    ledger_set_budget(pool_ledger(m), budget, MEM_KV, kv_bytes(b, r->now));
    return s;
}

/* The pools without the blocks that are to go. False: not yet empty. */
static bool drained(bridge *b) {
    resizing *r = &b->resize;
    uint32_t least[SCHED_MAX_GROUPS];
    if (!r->drains) {
        for (uint32_t k = 0; k < SCHED_MAX_GROUPS; k++)
            least[k] = r->now[k] < r->goal[k] ? r->now[k] : r->goal[k];
        CHECK(logged_resize(b->m->log, b->m->sched,
                            least)); /* each request fits one of max_model_len */
        r->drains = true;
    }
    return sched_resized(b->m->sched);
}

bool resize_go_on(bridge *b) {
    resizing *r = &b->resize;
    err e;
    take_wish(b);
    if (!r->active) return false;
    if (!drained(b)) return true;
    for (uint32_t k = 0; k < b->m->sched_conf.n_groups; k++) {
        if (r->now[k] == r->goal[k]) continue;
        const bool grows = r->now[k] < r->goal[k];
        status s = resize_piece(b, k, grows, &e);
        if (s != OK) {
            finish(b, s, &e);
            return true;
        }
        if (grows) CHECK(logged_resize(b->m->log, b->m->sched, r->now));
        return true;
    }
    finish(b, OK, NULL);
    return true;
}
