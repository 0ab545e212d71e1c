/* vramd rank: another rank than the first, started by rank 0 (daemon/ranks/ranks.c) with the group's memory as
 * descriptor 3. It plans and loads its part, and computes the steps that rank 0 posts. Signals that end a daemon are
 * rank 0's: it drains first. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "daemon/args.h"
#include "daemon/commands.h"
#include "daemon/plan/rank_plan.h"
#include "daemon/ranks/rank_cores.h"
#include "daemon/ranks/rank_note.h"
#include "daemon/serving.h"
#include "engine/follow.h"

typedef struct member {
    group group;
    const rank_note *note;
    machine m;
    model *own;
    engine *engine;
    void *steps; /* memory of follow */
} member;

static bool rank_0_lives(void *arg) {
    return getppid() == ((const member *)arg)->note->parent;
}

/* Whatever this process does at that moment: it may load for minutes. */
static void *end_with_rank_0(void *arg) {
    const struct timespec t = {.tv_nsec = 200000000L};
    while (rank_0_lives(arg)) nanosleep(&t, NULL);
    _exit(status_exit_code(ERR_UNAVAILABLE));
}

static status watch_rank_0(member *r, err *e) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, end_with_rank_0, r) != 0)
        return mem_exhausted(e, MEM_RUNTIME, "a thread of rank %u", r->group.rank);
    pthread_detach(thread);
    return OK;
}

static status join(member *r, uint32_t rank, err *e) {
    struct stat st;
    void *memory = MAP_FAILED;
    if (fstat(RANK_FD, &st) == 0 && st.st_size > 0)
        memory = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, RANK_FD, 0);
    if (memory == MAP_FAILED) {
        err_set(e, ERR_INVALID, "descriptor %d is no memory of a group", RANK_FD);
        return err_hint(e, "ranks are started by vramd serve --tensor-parallel-size N or "
                           "--pipeline-parallel-size M");
    }
    status s = group_join(&r->group, memory, (uint64_t)st.st_size, rank, VRAMD_VERSION, e);
    if (s != OK) return s;
    r->note = (const rank_note *)(void *)(r->group.base + r->group.at.note);
    r->group.alive = rank_0_lives;
    r->group.arg = r;
    return watch_rank_0(r, e);
}

/* The plan that rank 0 has of this rank. */
static status plan_part(member *r, err *e) {
    const machine_wish w = {.elsewhere = true, .extra = serving_terms};
    machine *m = &r->m;
    status s = machine_plan(m, &r->note->opt, &w, e);
    if (s != OK && s != ERR_BUDGET) return s;
    m->rank = r->group.rank;
    memcpy(m->engine_opt.n_blocks, r->note->n_blocks, sizeof m->engine_opt.n_blocks);
    memcpy(m->engine_opt.max_blocks, r->note->n_blocks, sizeof m->engine_opt.max_blocks);
    s = rank_plan_fix(m, m->rank, r->note->n_blocks, r->note->kv_tokens, e);
    return s == OK ? model_shard(&r->own, m->model, &m->ranks[m->rank].part, e) : s;
}

static status load(member *r, err *e) {
    machine *m = &r->m;
    const plan *p = &m->ranks[m->rank].plan;
    const uint64_t bytes = follow_bytes(&r->own->program, &m->engine_opt, p->n_groups);
    status s = ledger_open(&m->ledger, p, e);
    if (s != OK) return s;
    for (int c = 0; c < MEM_N_CLASSES; c++) {
        const group_shape *all = &group_head_of(&r->group)->shape;
        CHECK(ledger_reserve(m->ledger, (mem_class)c, group_share(all, m->rank, (mem_class)c)));
    }
    CHECK(ledger_reserve(m->ledger, MEM_RUNTIME, terms_sum(&p->terms, MEM_RUNTIME)));
    CHECK(ledger_reserve(m->ledger, MEM_LOADING, m->header_bytes));
    group_populate(&r->group);
    m->engine_opt.group = &r->group;
    s = engine_open(&r->engine, m->backend, r->own, &m->engine_opt, m->ledger, NULL, e);
    if (s == OK)
        s = ledger_alloc(m->ledger, &r->steps, MEM_WORKSPACE, bytes, "a step as it was read",
                         e);
    if (s == OK) s = checkpoint_unchanged(m->file, e);
    if (s != OK) return s;
    ledger_release(m->ledger, MEM_LOADING, m->header_bytes);
    checkpoint_close(m->file);
    m->file = NULL;
    ledger_read(m->ledger, &group_rank_of(&r->group, m->rank)->memory);
    return OK;
}

static void leave(member *r) {
    engine_close(r->engine);
    if (r->m.ledger) ledger_free(r->m.ledger, r->steps);
    model_close(r->own);
    machine_close(&r->m);
}

static status run(member *r, err *e) {
    status s = plan_part(r, e);
    if (s == OK) rank_stay(r->group.rank, r->group.n_ranks, r->m.engine_opt.n_threads);
    if (s == OK) s = load(r, e);
    group_say(&r->group, s == OK ? GROUP_READY : GROUP_FAILED, s == OK ? NULL : e);
    if (s != OK) return s;
    const tables_model m = {r->m.model->program.config.n_vocab,
                            r->m.ranks[r->m.rank].plan.n_groups, r->m.engine_opt.block_tokens,
                            engine_states(&r->own->program, &r->m.engine_opt)};
    return follow(r->engine, &r->group, &m, &r->m.engine_opt, r->steps, r->m.ledger, e);
}

int cmd_rank(int argc, char **argv) {
    static member r; /* large for a stack */
    err e;
    if (args_take_word(&argc, argv, "--help")) {
        puts(
            "usage: vramd rank N\n\n"
            "One of the processes that share a model: vramd serve with tensor_parallel_size or "
            "pipeline_parallel_size starts\n"
            "them, with the memory that they share as descriptor 3. There is no use in "
            "starting\n"
            "one by hand.");
        return 0;
    }
    const unsigned long rank = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
    if (rank == 0 || rank >= GROUP_MAX) {
        err_set(&e, ERR_INVALID, "a rank is started by vramd serve --tensor-parallel-size N");
        return command_failed("rank", &e);
    }
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    status s = join(&r, (uint32_t)rank, &e);
    if (s == OK) {
        log_init(options_log_level(&r.note->opt));
        s = run(&r, &e);
    }
    leave(&r);
    return s == OK ? 0 : command_failed("rank", &e);
}
