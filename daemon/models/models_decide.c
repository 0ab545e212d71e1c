/* Decisions about several models. Pure: owns nothing, any thread. */
#include "daemon/models/models_decide.h"

const char *model_state_name(model_state s) {
    static const char *const name[] = {"absent",   "loading",   "ready",
                                       "draining", "unloading", "failed"};
    return name[s];
}

static bool takes_bytes(const model_entry *m) {
    return m->state != MODEL_ABSENT && m->state != MODEL_FAILED;
}

uint64_t models_bytes(const models_view *v) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < v->n; i++)
        if (takes_bytes(&v->v[i])) n += v->v[i].bytes;
    return n;
}

static uint32_t count(const models_view *v, model_state s) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < v->n; i++) n += v->v[i].state == s;
    return n;
}

bool models_busy(const models_view *v) {
    return count(v, MODEL_LOADING) + count(v, MODEL_UNLOADING) > 0;
}

bool models_audit(const models_view *v) {
    return models_bytes(v) <= v->budget_bytes &&
           count(v, MODEL_LOADING) + count(v, MODEL_UNLOADING) <= 1;
}

/* Since when a model that is not there is waited for; UINT64_MAX: it is not. */
static uint64_t waited_us(const model_entry *m) {
    const uint64_t never = UINT64_MAX;
    const uint64_t held = m->oldest_us ? m->oldest_us : never;
    const uint64_t wanted = m->wanted_us ? m->wanted_us : never;
    if (m->state != MODEL_ABSENT) return never;
    return held < wanted ? held : wanted;
}

/* v->n: none. */
static uint32_t next_model(const models_view *v) {
    uint32_t best = v->n;
    for (uint32_t i = 0; i < v->n; i++)
        if (waited_us(&v->v[i]) < (best == v->n ? UINT64_MAX : waited_us(&v->v[best])))
            best = i;
    return best;
}

bool models_waited(const models_view *v) {
    return next_model(v) < v->n;
}

static uint64_t free_at_us(const model_entry *m) {
    return m->ready_us + m->load_us;
}

static bool may_go(const model_entry *m, uint64_t now_us) {
    return m->state == MODEL_READY && !m->pinned &&
           (m->n_users == 0 || now_us >= free_at_us(m));
}

/* Bytes to read again, by the chance of use: the k-th most recently used one has 1/k. One with
 * requests is waited for, too. */
static uint64_t cost_of(const models_view *v, uint32_t i) {
    uint64_t rank = 1;
    for (uint32_t k = 0; k < v->n; k++)
        rank += v->v[k].state == MODEL_READY && v->v[k].last_used_us > v->v[i].last_used_us;
    return (v->v[i].n_users ? 4 : 1) * (v->v[i].bytes / rank + 1);
}

/* The cheapest set whose bytes are enough; 0: there is none. */
static uint32_t cheapest(const models_view *v, uint64_t need, uint64_t now_us) {
    uint64_t cost[MODELS_MAX], bytes[MODELS_MAX], least = UINT64_MAX;
    uint32_t who[MODELS_MAX], n = 0, best = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        if (!may_go(&v->v[i], now_us)) continue;
        who[n] = i;
        bytes[n] = v->v[i].bytes;
        cost[n++] = cost_of(v, i);
    }
    for (uint32_t set = 1; set < 1U << n; set++) {
        uint64_t b = 0, c = 0;
        for (uint32_t k = 0; k < n; k++)
            if (set >> k & 1) b += bytes[k], c += cost[k];
        if (b >= need && c < least) least = c, best = set;
    }
    uint32_t out = 0;
    for (uint32_t k = 0; k < n; k++)
        if (best >> k & 1) out |= 1U << who[k];
    return out;
}

/* When the first busy model that is too young to go is old enough. */
static uint64_t next_of_age_us(const models_view *v, uint64_t now_us) {
    uint64_t first = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        const uint64_t at = free_at_us(&v->v[i]);
        if (v->v[i].state == MODEL_READY && !v->v[i].pinned && at > now_us &&
            (!first || at < first))
            first = at;
    }
    return first;
}

/* Drains what makes space for a model, or waits for those that drain. */
static models_decision make_space(const models_view *v, uint32_t model, uint64_t now_us) {
    const uint64_t held = models_bytes(v), free = v->budget_bytes - held;
    uint64_t coming = 0;
    for (uint32_t i = 0; i < v->n; i++)
        if (v->v[i].state == MODEL_DRAINING) coming += v->v[i].bytes;
    if (v->v[model].bytes <= free) return (models_decision){MODELS_LOAD, model, 0, 0};
    if (v->v[model].bytes <= free + coming) return (models_decision){0};
    const uint32_t set = cheapest(v, v->v[model].bytes - free - coming, now_us);
    if (set) return (models_decision){MODELS_DRAIN, model, set, 0};
    return (models_decision){.again_us = next_of_age_us(v, now_us)};
}

/* What operators do not want any more, and what they drained for is over. */
static models_decision by_state(const models_view *v, bool needed) {
    for (uint32_t i = 0; i < v->n; i++) {
        const model_entry *m = &v->v[i];
        const uint32_t set = 1U << i;
        if (m->state == MODEL_READY && m->unwanted)
            return (models_decision){MODELS_DRAIN, i, set, 0};
        if (m->state != MODEL_DRAINING) continue;
        if (!needed && !m->unwanted) return (models_decision){MODELS_REOPEN, i, set, 0};
    }
    return (models_decision){0};
}

models_decision models_decide(const models_view *v, uint64_t now_us) {
    const uint32_t next = next_model(v);
    models_decision d = by_state(v, next < v->n);
    if (d.op || models_busy(v)) return d;
    for (uint32_t i = 0; i < v->n; i++)
        if (v->v[i].state == MODEL_DRAINING && v->v[i].n_users == 0)
            return (models_decision){MODELS_UNLOAD, i, 0, 0};
    if (next < v->n) return make_space(v, next, now_us);
    for (uint32_t i = 0; i < v->n; i++) {
        if (v->v[i].state != MODEL_ABSENT || !v->v[i].if_free) continue;
        const bool fits = v->v[i].bytes <= v->budget_bytes - models_bytes(v);
        return (models_decision){fits ? MODELS_LOAD : MODELS_SKIP, i, 0, 0};
    }
    return (models_decision){0};
}
