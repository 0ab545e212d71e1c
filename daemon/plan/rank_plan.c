/* Plans rank by rank. Owns m->ranks; main thread. */
#include "daemon/plan/rank_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/str.h"
#include "daemon/machine_budget.h"
#include "engine/estimate.h"
#include "json/out.h"

uint32_t rank_plan_count(const options *o) {
    return o->tensor_parallel_size * o->pipeline_parallel_size;
}

bool rank_plan_by_messages(const options *o) {
    return o->distributed_executor_backend == EXECUTOR_MPI && rank_plan_count(o) > 1;
}

static bool have_own_budgets(const machine *m) {
    return m->on_device || m->engine_opt.by_messages;
}

/* ---- one rank ---- */

/* What its engine will allocate: as the layout has it, or estimated where the whole model is, or a device's
 * engine does not run the part. */
static status engine_terms(machine *m, const program *p, terms *t, kv_request *kv, err *e) {
    const quant_scheme *stored = m->stored.bits ? &m->stored : NULL;
    if (op_set_empty(m->lacks) && !m->counted) {
        const status s = m->backend->terms(p, &m->engine_opt, t, kv, e);
        if (s != ERR_UNSUPPORTED || !m->on_device) return s;
        terms_clear(t);
        if (!m->not_served[0]) snprintf(m->not_served, sizeof m->not_served, "%.230s", e->text);
    }
    return estimate_terms(p, stored, &m->engine_opt, m->on_device, t, kv, e);
}

static shard part_of(const options *o, uint32_t rank) {
    const uint32_t n_ranks = o->tensor_parallel_size;
    return (shard){.rank = rank % n_ranks,
                   .n_ranks = n_ranks,
                   .stage = rank / n_ranks,
                   .n_stages = o->pipeline_parallel_size};
}

status rank_plan_runs(const machine *m, err *e) {
    status s = OK;
    for (uint32_t i = 0; i < rank_plan_count(&m->opt) && s == OK; i++) {
        const shard part = part_of(&m->opt, i);
        terms t = {0};
        kv_request kv = {0};
        model *own;
        s = model_shard(&own, m->model, &part, e);
        if (s != OK) return s;
        s = m->backend->terms(&own->program, &m->engine_opt, &t, &kv, e);
        terms_clear(&t);
        model_close(own);
    }
    return s;
}

static void describe(rank_plan *r, const program *p) {
    r->first_layer = UINT32_MAX;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        if (o->layer < 0) continue;
        if (r->first_layer == UINT32_MAX) r->first_layer = (uint32_t)o->layer;
        r->n_layers = (uint32_t)o->layer - r->first_layer + 1;
        if (o->kind == OP_ATTENTION && !r->heads.n_heads) r->heads = o->heads;
    }
}

static status list_rank(machine *m, rank_plan *r, const kv_request *kv, err *e) {
    model *part;
    status s = model_shard(&part, m->model, &r->part, e);
    if (s != OK) return s;
    kv_request cost = {0};
    s = engine_terms(m, &part->program, m->on_device ? &r->host_fixed : &r->fixed, &cost, e);
    if (m->on_device) terms_split(&r->host_fixed, &r->fixed);
    describe(r, &part->program);
    model_close(part);
    r->kv = *kv;
    r->kv.n_groups = cost.n_groups;
    r->kv.depth = cost.depth;
    r->kv.granule = cost.granule;
    memcpy(r->kv.group, cost.group, sizeof cost.group);
    return s;
}

/* ---- all ranks ---- */

static void add_terms(terms *to, const terms *from) {
    for (size_t i = 0; i < from->n; i++) {
        const term *x = &from->v[i];
        size_t k = 0;
        while (k < to->n &&
               (to->v[k].cls != x->cls || to->v[k].kind != x->kind ||
                to->v[k].while_loading != x->while_loading ||
                to->v[k].on_device != x->on_device || strcmp(to->v[k].what, x->what) != 0))
            k++;
        if (k < to->n) {
            to->v[k].bytes += x->bytes;
            continue;
        }
        terms_add(to, x->cls, x->kind, x->bytes, "%s", x->what);
        if (x->while_loading) terms_last_while_loading(to);
        if (x->on_device) terms_last_on_device(to);
    }
    to->failed |= from->failed;
}

/* The sum of all, in one budget. */
static status solve_together(machine *m, kv_request *kv, err *e) {
    terms all = {0};
    for (uint32_t i = 0; i < m->n_ranks; i++) {
        add_terms(&all, &m->ranks[i].fixed);
        for (uint32_t g = 0; i && g < kv->n_groups; g++)
            kv->group[g].bytes_per_token += m->ranks[i].kv.group[g].bytes_per_token;
    }
    const status s = machine_solve(m, &all, kv, e);
    terms_clear(&all);
    return s;
}

static bool worse(const plan *a, const plan *b) {
    if (a->fits != b->fits) return !a->fits;
    if (a->fits && a->kv_blocks != b->kv_blocks) return a->kv_blocks < b->kv_blocks;
    return a->smallest_budget_bytes > b->smallest_budget_bytes;
}

/* Each device has a budget of its own: the one that holds the least decides. The host's is of all. */
static status solve_apart(machine *m, kv_request *kv, err *e) {
    uint32_t worst = 0;
    for (uint32_t i = 0; i < m->n_ranks; i++) {
        err ignored;
        plan_clear(&m->ranks[i].plan);
        const status s = plan_solve(&m->ranks[i].plan, &m->ranks[i].fixed, &m->ranks[i].kv,
                                    &m->budget, &ignored);
        if (s != OK && s != ERR_BUDGET) return *e = ignored, s;
        if (worse(&m->ranks[i].plan, &m->ranks[worst].plan)) worst = i;
    }
    terms t = {0};
    add_terms(&t, &m->ranks[worst].fixed);
    for (uint32_t i = 0; i < m->n_ranks; i++) add_terms(&t, &m->ranks[i].host_fixed);
    *kv = m->ranks[worst].kv;
    m->sched_conf.depth = kv->depth; /* one step in flight, where the whole model has two */
    const status s = machine_solve(m, &t, kv, e);
    terms_clear(&t);
    return s;
}

/* So many blocks as a rank holds, and no more for the others. */
static status limit_to(machine *m, uint32_t rank, kv_request *kv, err *e) {
    rank_plan *r = &m->ranks[rank];
    plan_clear(&r->plan);
    const status s = plan_solve(&r->plan, &r->fixed, &r->kv, &m->budget, e);
    if (s == ERR_BUDGET) {
        const err why = *e;
        err_set(e, why.code, "rank %u: %s", rank, why.text);
        err_field(e, "%s", why.field);
        err_hint(e, "%s", why.hint);
    }
    if (s != OK) return s;
    kv->want_tokens = r->plan.kv_tokens;
    memcpy(kv->most, r->plan.group_blocks, sizeof kv->most);
    if (rank + 1 < m->n_ranks) {
        m->ranks[rank + 1].kv.want_tokens = kv->want_tokens;
        memcpy(m->ranks[rank + 1].kv.most, kv->most, sizeof kv->most);
    }
    return OK;
}

/* Each in a budget of its own, and rank 0's plan is the machine's: it comes last. */
static status solve_by_messages(machine *m, kv_request *kv, err *e) {
    terms t = {0};
    err why;
    status least = OK;
    for (uint32_t i = 1; i < m->n_ranks && least == OK; i++) least = limit_to(m, i, kv, &why);
    if (least != OK && least != ERR_BUDGET) return *e = why, least;
    add_terms(&t, &m->ranks[0].fixed);
    const status s = machine_solve(m, &t, kv, e);
    terms_clear(&t);
    if (s != OK || least == OK) return s;
    *e = why;
    return least;
}

static status fix_host(machine *m, rank_plan *r, err *e) {
    const budget any = budget_unlimited();
    const kv_request none = {.block_tokens = m->opt.block_size};
    plan_clear(&r->host_plan);
    const status s = plan_solve(&r->host_plan, &r->host_fixed, &none, &any, e);
    r->host_plan.budget_bytes = plan_peak_bytes(&r->host_plan);
    return s;
}

status rank_plan_fix(machine *m, uint32_t rank, const uint32_t *n_blocks, uint64_t kv_tokens,
                     err *e) {
    const budget any = budget_unlimited();
    rank_plan *r = &m->ranks[rank];
    r->kv.want_tokens = kv_tokens;
    memcpy(r->kv.most, n_blocks, sizeof r->kv.most);
    plan_clear(&r->plan);
    const status s = plan_solve(&r->plan, &r->fixed, &r->kv, &any, e);
    return s == OK && m->on_device ? fix_host(m, r, e) : s;
}

/* The plans of the ranks for the blocks that m->plan has. */
static status solve_each(machine *m, err *e) {
    for (uint32_t i = 0; i < m->n_ranks; i++) {
        rank_plan *r = &m->ranks[i];
        if (i == 0)
            terms_add(m->on_device ? &r->host_fixed : &r->fixed, MEM_SCHEDULER, TERM_EXACT,
                      m->sched_bytes, "sequences, queue, block lists");
        const status s = rank_plan_fix(m, i, m->plan.group_blocks, m->plan.kv_tokens, e);
        if (s != OK) return s;
        const bool own = have_own_budgets(m);
        r->plan.budget_bytes = m->on_device || (own && !m->budget.automatic)
                                   ? m->budget.bytes
                                   : plan_peak_bytes(&r->plan);
        r->plan.fits = own ? r->plan.smallest_budget_bytes <= m->budget.bytes : m->plan.fits;
    }
    return OK;
}

status rank_plan_solve(machine *m, const terms *own, const terms *others, kv_request *kv,
                       err *e) {
    status s = OK;
    m->n_ranks = rank_plan_count(&m->opt);
    if (m->n_ranks > SHARD_MAX_RANKS) {
        err_set(e, ERR_INVALID, "%u x %u ranks: at most %d can be", m->opt.tensor_parallel_size,
                m->opt.pipeline_parallel_size, SHARD_MAX_RANKS);
        return err_field(e, "tensor_parallel_size");
    }
    m->ranks = calloc(m->n_ranks, sizeof *m->ranks);
    if (!m->ranks) return mem_exhausted(e, MEM_RUNTIME, "the plans of ranks");
    for (uint32_t i = 0; i < m->n_ranks && s == OK; i++) {
        rank_plan *r = &m->ranks[i];
        r->part = part_of(&m->opt, i);
        s = list_rank(m, r, kv, e);
        if (s == OK) add_terms(m->on_device ? &r->host_fixed : &r->fixed, i ? others : own);
    }
    if (s != OK) return s;
    for (uint32_t g = 0; g < kv->n_groups; g++) /* the layers are those of all stages */
        kv->group[g].bytes_per_token = m->ranks[0].kv.group[g].bytes_per_token;
    s = m->on_device                ? solve_apart(m, kv, e)
        : m->engine_opt.by_messages ? solve_by_messages(m, kv, e)
                                    : solve_together(m, kv, e);
    if (s != OK && s != ERR_BUDGET) return s;
    const err why = *e;
    const status each = solve_each(m, e);
    if (s != OK) *e = why;
    return s != OK ? s : each;
}

void rank_plan_clear(machine *m) {
    for (uint32_t i = 0; i < m->n_ranks && m->ranks; i++) {
        terms_clear(&m->ranks[i].fixed);
        terms_clear(&m->ranks[i].host_fixed);
        plan_clear(&m->ranks[i].plan);
        plan_clear(&m->ranks[i].host_plan);
    }
    free(m->ranks);
    m->ranks = NULL;
    m->n_ranks = 0;
}

/* ---- what is said of them ---- */

uint64_t rank_plan_total(const machine *m) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < m->n_ranks; i++) sum += m->ranks[i].plan.total_bytes;
    return sum;
}

uint32_t rank_plan_imbalance(const machine *m) {
    uint64_t least = UINT64_MAX, most = 0;
    for (uint32_t i = 0; i < m->n_ranks; i++) {
        const uint64_t n = terms_sum(&m->ranks[i].plan.terms, MEM_WEIGHTS);
        if (n < least) least = n;
        if (n > most) most = n;
    }
    return least ? (uint32_t)((most - least) * 100 / least) : 0;
}

/* Ranks by bytes, the largest first. */
static void sort_ranks(const machine *m, uint32_t *order) {
    for (uint32_t i = 0; i < m->n_ranks; i++) {
        uint32_t k = i;
        for (; k > 0 && m->ranks[order[k - 1]].plan.total_bytes < m->ranks[i].plan.total_bytes;
             k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
}

enum { COLUMNS = 6 }; /* beside each other */

static void print_row(const machine *m, const uint32_t *order, uint32_t n, const char *name,
                      uint64_t (*get)(const rank_plan *, int), int arg) {
    uint64_t any = 0;
    char a[32];
    for (uint32_t i = 0; i < n; i++) any |= get(&m->ranks[order[i]], arg);
    if (!any) return;
    printf("  %-16s", name);
    for (uint32_t i = 0; i < n; i++)
        printf(" %17s", bytes_grouped(get(&m->ranks[order[i]], arg), a));
    puts("");
}

static uint64_t class_of(const rank_plan *r, int cls) {
    return terms_sum(&r->plan.terms, (mem_class)cls);
}
static uint64_t total_of(const rank_plan *r, int unused) {
    (void)unused;
    return r->plan.total_bytes;
}
static uint64_t peak_of(const rank_plan *r, int unused) {
    (void)unused;
    return plan_peak_bytes(&r->plan);
}

static uint64_t host_of(const rank_plan *r, int unused) {
    (void)unused;
    return r->host_plan.total_bytes;
}

static void print_some(const machine *m, const uint32_t *order, uint32_t n) {
    char text[32];
    printf("  %-16s", "rank");
    for (uint32_t i = 0; i < n; i++) printf(" %17u", order[i]);
    printf("\n  %-16s", "layers");
    for (uint32_t i = 0; i < n; i++) {
        const rank_plan *r = &m->ranks[order[i]];
        snprintf(text, sizeof text, "%u-%u", r->first_layer, r->first_layer + r->n_layers - 1);
        printf(" %17s", text);
    }
    printf("\n  %-16s", "heads (q/kv)");
    for (uint32_t i = 0; i < n; i++) {
        const rank_plan *r = &m->ranks[order[i]];
        snprintf(text, sizeof text, "%u/%u", r->heads.n_heads, r->heads.n_kv_heads);
        printf(" %17s", text);
    }
    puts("");
    for (int c = 0; c < MEM_N_CLASSES; c++)
        if (c != MEM_LOADING) print_row(m, order, n, mem_class_name((mem_class)c), class_of, c);
    print_row(m, order, n, "total", total_of, 0);
    print_row(m, order, n, "peak", peak_of, 0);
    print_row(m, order, n, "host's memory", host_of, 0);
}

void rank_plan_print(const machine *m) {
    uint32_t order[SHARD_MAX_RANKS];
    char a[32], b[32];
    if (m->n_ranks < 2) return;
    sort_ranks(m, order);
    printf("\n%u ranks (tensor %u x pipeline %u), %s bytes (%s) in all; the largest has %u %% "
           "more "
           "weights than the smallest:\n",
           m->n_ranks, m->opt.tensor_parallel_size, m->opt.pipeline_parallel_size,
           bytes_grouped(rank_plan_total(m), a), bytes_human(rank_plan_total(m), b),
           rank_plan_imbalance(m));
    for (uint32_t i = 0; i < m->n_ranks; i += COLUMNS)
        print_some(m, order + i, m->n_ranks - i < COLUMNS ? m->n_ranks - i : COLUMNS);
    if (have_own_budgets(m))
        printf("rank %u decides how many blocks the KV cache has\n", order[0]);
    const uint32_t kv = m->model->program.config.n_kv_heads;
    if (kv && m->opt.tensor_parallel_size > kv)
        printf(
            "%u KV heads on %u ranks: each is held more than once, and the KV cache of a rank "
            "shrinks no further\n",
            kv, m->opt.tensor_parallel_size);
    if (m->opt.pipeline_parallel_size > 1) puts("one stream is no faster on several stages");
}

static void classes_json(buf *b, const plan *p) {
    buf_add(b, STR(",\"classes\":{"));
    for (int c = 0, n = 0; c < MEM_N_CLASSES; c++) {
        const uint64_t bytes = terms_sum(&p->terms, (mem_class)c);
        if (!bytes) continue;
        buf_addf(b, "%s\"%s\":", n++ ? "," : "", mem_class_name((mem_class)c));
        json_u64(b, bytes);
    }
    buf_addc(b, '}');
}

void rank_plan_json(buf *b, const machine *m) {
    if (m->n_ranks < 2) return;
    buf_add(b, STR(",\"ranks\":["));
    for (uint32_t i = 0; i < m->n_ranks; i++) {
        const rank_plan *r = &m->ranks[i];
        buf_addf(
            b,
            "%s{\"rank\":%u,\"tensor_rank\":%u,\"stage\":%u,\"layers\":[%u,%u],\"heads\":%u,"
            "\"kv_heads\":%u,\"total_bytes\":",
            i ? "," : "", i, r->part.rank, r->part.stage, r->first_layer,
            r->first_layer + r->n_layers - 1, r->heads.n_heads, r->heads.n_kv_heads);
        json_u64(b, r->plan.total_bytes);
        buf_add(b, STR(",\"peak_bytes\":"));
        json_u64(b, plan_peak_bytes(&r->plan));
        buf_addf(b, ",\"fits\":%s", r->plan.fits ? "true" : "false");
        classes_json(b, &r->plan);
        if (m->on_device) {
            buf_add(b, STR(",\"host\":{\"total_bytes\":"));
            json_u64(b, r->host_plan.total_bytes);
            classes_json(b, &r->host_plan);
            buf_addc(b, '}');
        }
        buf_addc(b, '}');
    }
    buf_addc(b, ']');
}
