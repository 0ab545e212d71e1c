/* A rank's part of a model, and its way through the steps. */
#include "daemon/ranks/member.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/thread.h"
#include "daemon/plan/rank_plan.h"
#include "daemon/ranks/rank_cores.h"
#include "daemon/serving.h"
#include "engine/follow.h"

/* ---- the model ---- */

/* On a machine of its own: rank 0 has found as many blocks as its own budget holds. */
static status check_budget(const member *r, err *e) {
    const machine *m = &r->m;
    const plan *p = &m->ranks[m->rank].plan;
    char want[32], have[32];
    if (plan_peak_bytes(p) <= m->budget.bytes) return OK;
    err_set(e, ERR_BUDGET, "rank %u takes %s bytes with the KV cache of rank 0, and %s is %s",
            m->rank, bytes_grouped(plan_peak_bytes(p), want), m->budget.source,
            bytes_grouped(m->budget.bytes, have));
    err_hint(e, "give kv_cache_tokens, or the same memory to each rank");
    return err_field(e, "memory");
}

/* The plan that rank 0 has of this rank. */
static status plan_part(member *r, const options *o, launch *l, err *e) {
    const machine_wish w = {.elsewhere = !l, .extra = serving_terms, .launch = l};
    machine *m = &r->m;
    status s = machine_plan(m, o, &w, e);
    if (s != OK && s != ERR_BUDGET) return s;
    m->rank = r->group->rank;
    if (m->on_device) m->engine_opt.device += m->rank;
    memcpy(m->engine_opt.n_blocks, r->note->n_blocks, sizeof m->engine_opt.n_blocks);
    memcpy(m->engine_opt.max_blocks, r->note->n_blocks, sizeof m->engine_opt.max_blocks);
    s = rank_plan_fix(m, m->rank, r->note->n_blocks, r->note->kv_tokens, e);
    if (s == OK && l) s = check_budget(r, e);
    return s == OK ? model_shard(&r->own, m->model, &m->ranks[m->rank].part, e) : s;
}

static status load(member *r, err *e) {
    machine *m = &r->m;
    const plan *p = &m->ranks[m->rank].plan;
    const uint64_t bytes = follow_bytes(&r->own->program, &m->engine_opt, p->n_groups);
    const plan *host = m->on_device ? &m->ranks[m->rank].host_plan : p;
    status s = m->on_device ? ledger_open(&m->device_ledger, p, e) : OK;
    if (s == OK) s = ledger_open(&m->ledger, host, e);
    if (s != OK) return s;
    group_count(r->group, m->ledger, true);
    CHECK(ledger_reserve(m->ledger, MEM_RUNTIME, terms_sum(&host->terms, MEM_RUNTIME)));
    CHECK(ledger_reserve(m->ledger, MEM_LOADING, m->header_bytes));
    group_populate(r->group);
    m->engine_opt.group = r->group;
    s = engine_open(&r->engine, m->backend, r->own, &m->engine_opt, m->ledger, m->device_ledger,
                    e);
    if (s == OK)
        s = ledger_alloc(m->ledger, &r->steps, MEM_WORKSPACE, bytes, "a step as it was read",
                         e);
    if (s == OK) s = checkpoint_unchanged(m->file, e);
    if (s != OK) return s;
    ledger_release(m->ledger, MEM_LOADING, m->header_bytes);
    checkpoint_close(m->file);
    m->file = NULL;
    ledger_read(m->ledger, &group_rank_of(r->group, m->rank)->memory);
    if (m->on_device && m->rank < RANK_MOST_DEVICES)
        ledger_read(m->device_ledger, &r->note->device[m->rank]);
    return OK;
}

status member_run(member *r, const options *o, launch *l, err *e) {
    status s = plan_part(r, o, l, e);
    if (s == OK && !l && !r->m.on_device) /* a launcher has its own ways */
        rank_stay(r->group->rank, r->group->n_ranks, r->m.engine_opt.n_threads);
    if (s == OK) s = load(r, e);
    group_say(r->group, s == OK ? GROUP_READY : GROUP_FAILED, s == OK ? NULL : e);
    if (s != OK) return s;
    const tables_model m = {r->m.model->program.config.n_vocab,
                            r->m.ranks[r->m.rank].plan.n_groups, r->m.engine_opt.block_tokens,
                            engine_states(&r->own->program, &r->m.engine_opt)};
    return follow(r->engine, r->group, &m, &r->m.engine_opt, r->steps, r->m.ledger, e);
}

void member_clear(member *r) {
    engine_close(r->engine);
    if (r->m.ledger) {
        ledger_free(r->m.ledger, r->steps);
        group_count(r->group, r->m.ledger, false);
    }
    model_close(r->own);
    machine_close(&r->m);
}

/* ---- of a launcher ---- */

enum { LOOK_MS = 100, END_WITHIN_MS = 1500 };

typedef struct watch {
    const launch *launch;
    atomic_bool over;
    pthread_t thread;
    bool runs;
} watch;

/* Whatever this process does while a rank is lost, it ends: it may load for minutes. */
static void *end_when_lost(void *arg) {
    const struct timespec t = {.tv_nsec = LOOK_MS * 1000000L};
    watch *w = arg;
    err why;
    for (int ms = 0; ms < END_WITHIN_MS; nanosleep(&t, NULL)) {
        if (atomic_load(&w->over)) return NULL;
        ms = link_error(w->launch->link, &why) == OK ? 0 : ms + LOOK_MS;
    }
    log_error("%s", why.text);
    _exit(status_exit_code(why.code));
}

static status join(member *r, launch *l, err *e) {
    group_shape shape;
    status s = link_await_shape(l->link, &shape, e);
    if (s == OK) s = launch_attach(l, &shape, e);
    if (s == OK) s = link_await_note(l->link, e);
    if (s != OK) return s;
    r->group = &l->group;
    r->note = (rank_note *)(void *)(l->group.base + l->group.at.note);
    return OK;
}

static status run_as_noted(member *r, launch *l, const options *own, err *e) {
    options o = r->note->opt;
    o.threads = own->threads;
    memcpy(o.memory, own->memory, sizeof o.memory);
    return member_run(r, &o, l, e);
}

status member_follow(launch *l, const options *own, err *e) {
    static member r; /* large for a stack */
    watch w = {.launch = l};
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    w.runs = thread_start(&w.thread, end_when_lost, &w) == 0;
    status s = w.runs ? join(&r, l, e) : mem_exhausted(e, MEM_RUNTIME, "a thread of a rank");
    if (s == OK) s = run_as_noted(&r, l, own, e);
    if (s != OK) l->why = *e;
    member_clear(&r);
    atomic_store(&w.over, true);
    if (w.runs) pthread_join(w.thread, NULL);
    launch_close(l, s == OK);
    return s;
}
