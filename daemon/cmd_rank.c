/* vramd rank: another rank than the first, started by rank 0 (daemon/ranks/ranks.c) with the group's memory as
 * descriptor 3. What it does there: daemon/ranks/member.c. Signals that end a daemon are
 * rank 0's: it drains first. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/args.h"
#include "daemon/commands.h"
#include "daemon/ranks/member.h"

typedef struct joined {
    group group;
    member m;
} joined;

static bool rank_0_lives(void *arg) {
    return getppid() == ((const joined *)arg)->m.note->parent;
}

/* Whatever this process does at that moment: it may load for minutes. */
static void *end_with_rank_0(void *arg) {
    const struct timespec t = {.tv_nsec = 200000000L};
    while (rank_0_lives(arg)) nanosleep(&t, NULL);
    _exit(status_exit_code(ERR_UNAVAILABLE));
}

static status watch_rank_0(joined *r, err *e) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, end_with_rank_0, r) != 0)
        return mem_exhausted(e, MEM_RUNTIME, "a thread of rank %u", r->group.rank);
    pthread_detach(thread);
    return OK;
}

static status join(joined *r, uint32_t rank, err *e) {
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
    r->m.group = &r->group;
    r->m.note = (rank_note *)(void *)(r->group.base + r->group.at.note);
    r->group.alive = rank_0_lives;
    r->group.arg = r;
    return watch_rank_0(r, e);
}

int cmd_rank(int argc, char **argv) {
    static joined r; /* large for a stack */
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
        log_init(options_log_level(&r.m.note->opt));
        s = member_run(&r.m, &r.m.note->opt, NULL, &e);
    }
    member_clear(&r.m);
    return s == OK ? 0 : command_failed("rank", &e);
}
