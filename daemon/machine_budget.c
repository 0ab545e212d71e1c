/* From terms and budgets to the plan. Main thread; owns nothing. */
#include "daemon/machine_budget.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"

/* The scheduler's lists go with the number of blocks. */
static uint64_t scheduler_bytes(void *arg, const uint32_t *n_blocks) {
    sched_config c = ((const machine *)arg)->sched_conf;
    for (uint32_t g = 0; g < c.n_groups; g++) c.group[g].n_blocks = n_blocks[g];
    if (!c.n_groups && !((const machine *)arg)->model->program.config.bidirectional) {
        /* recurrent layers alone: planned, and its sequences are listed all the same */
        c.n_groups = 1;
        c.group[0] = (sched_group){.n_blocks = 1};
    }
    uint64_t n = sched_bytes(&c);
    CHECK(n > 0);
    if (!((const machine *)arg)->draft.model) return n;
    return align_up(n, 64) + draft_model_valid_bytes(arg, n_blocks);
}

static void add_scheduler(terms *t, uint64_t bytes) {
    terms_add(t, MEM_SCHEDULER, TERM_EXACT, bytes, "sequences, queue, block lists");
}

/* The lists and tables are for as many blocks as p has, from now on. host: the host's terms. */
static void fix_most(machine *m, terms *host, kv_request *kv, const plan *p) {
    memcpy(kv->most, p->group_blocks, sizeof kv->most);
    m->sched_bytes = scheduler_bytes(m, p->group_blocks);
    kv->beside = NULL;
    add_scheduler(host, m->sched_bytes);
}

/* t: what the budget holds beside the KV cache; host: the host's terms, which may be the same. */
static status fix_for_max(machine *m, const terms *t, terms *host, kv_request *kv, err *e) {
    plan p = {0};
    kv_request all = *kv;
    if (!m->budget.automatic && m->budget.bytes > m->max_budget.bytes) {
        err_set(e, ERR_INVALID, "%s is more than %s", m->budget.source, m->max_budget.source);
        err_hint(e, "memory_max is the most that the budget may become while it serves");
        return err_field(e, "memory_max");
    }
    if (m->budget.bytes > m->max_budget.bytes) m->budget.bytes = m->max_budget.bytes;
    all.want_tokens = 0;
    status s = plan_solve(&p, t, &all, &m->max_budget, e);
    if (s == OK) fix_most(m, host, kv, &p);
    plan_clear(&p);
    return s;
}

/* For machine_replan: loading is over then. */
static status keep_terms(machine *m, const terms *t, const kv_request *kv, err *e) {
    for (size_t i = 0; i < t->n; i++) {
        const term *x = &t->v[i];
        if (!x->while_loading) terms_add(&m->fixed, x->cls, x->kind, x->bytes, "%s", x->what);
    }
    m->auto_bytes = m->plan.budget_bytes;
    m->kv = *kv;
    m->kv.want_tokens = 0;
    return m->fixed.failed ? mem_exhausted(e, MEM_RUNTIME, "the list of terms") : OK;
}

/* The memory that has the KV cache: t without what is host's. */
static status solve_pool(machine *m, terms *t, terms *host, kv_request *kv, err *e) {
    err first;
    status most = m->max_budget.bytes ? fix_for_max(m, t, host, kv, &first) : OK;
    const bool open = !m->max_budget.bytes || most != OK;
    status s = plan_solve(&m->plan, t, kv, &m->budget, e);
    if (s == OK && open)
        fix_most(m, host, kv, &m->plan);
    else if (open)
        m->sched_bytes =
            kv->beside ? m->plan.beside_bytes : scheduler_bytes(m, m->plan.group_blocks);
    if (most != OK) *e = first, s = most;
    return s == OK ? keep_terms(m, t, kv, e) : s;
}

/* The device's memory with the KV cache, and the host's beside it. Both are solved even if one
 * does not fit, so that both can be shown; the device's refusal is reported first. */
static status solve_both(machine *m, terms *t, kv_request *kv, err *e) {
    const kv_request none = {.block_tokens = kv->block_tokens};
    terms device = {0};
    err host_error;
    terms_split(t, &device);
    status s = solve_pool(m, &device, t, kv, e);
    if (s != OK && !kv->most[0]) add_scheduler(t, m->sched_bytes);
    status h = plan_solve(&m->host_plan, t, &none, &m->host_budget, &host_error);
    terms_clear(&device);
    if (s == OK && h != OK) *e = host_error, s = h;
    return s;
}

status machine_solve(machine *m, terms *t, kv_request *kv, err *e) {
    if (m->on_device) return solve_both(m, t, kv, e);
    kv->beside = scheduler_bytes;
    kv->arg = m;
    return solve_pool(m, t, t, kv, e);
}

void machine_unsolve(machine *m) {
    plan_clear(&m->plan);
    plan_clear(&m->host_plan);
    terms_clear(&m->fixed);
}

uint64_t machine_memory_max(const machine *m) {
    return m->max_budget.bytes   ? m->max_budget.bytes
           : m->budget.automatic ? m->auto_bytes
                                 : m->budget.bytes;
}

status machine_replan(const machine *m, uint64_t bytes, plan *out, err *e) {
    char a[32], b[32];
    budget new = {.bytes = bytes, .option = "budget_bytes"};
    *out = (plan){0};
    if (!engine_can_resize(m->backend)) {
        err_set(e, ERR_UNSUPPORTED, "the %s engine cannot change its budget while it serves",
                m->backend->name);
        return err_field(e, "budget_bytes");
    }
    if (bytes > machine_memory_max(m)) {
        err_set(e, ERR_INVALID, "a budget of %s bytes is beyond the largest, %s",
                bytes_grouped(bytes, a), bytes_grouped(machine_memory_max(m), b));
        err_hint(e, "memory_max says at start how far it may grow");
        return err_field(e, "budget_bytes");
    }
    snprintf(new.source, sizeof new.source, "a budget of %s bytes", bytes_grouped(bytes, a));
    return plan_solve(out, &m->fixed, &m->kv, &new, e);
}

status machine_memory_bytes(const machine *m, const char *word, uint64_t *out, err *e) {
    budget b;
    const memory_capacity capacity = m->on_device ? m->device_capacity : memory_capacity_host();
    if (strcmp(word, "auto") == 0 && m->budget.automatic) return *out = m->auto_bytes, OK;
    status s = budget_parse(&b, "memory", word, &capacity, e);
    *out = b.bytes < machine_memory_max(m) || !b.automatic ? b.bytes : machine_memory_max(m);
    return s;
}
