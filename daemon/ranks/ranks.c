/* The group on rank 0's side: processes that it starts on the engine thread and watches on a thread of its own, or
 * those of a launcher, whose link says how they are. */
#include "daemon/ranks/ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "daemon/plan/rank_plan.h"
#include "daemon/ranks/launch.h"
#include "daemon/ranks/rank_cores.h"
#include "daemon/ranks/rank_note.h"

enum { END_WITHIN_MS = 2000, WATCH_MS = 100 };

typedef struct child {
    pid_t pid; /* 0: not started, or reaped */
} child;

struct ranks {
    group *group; /* own, or the launch's; NULL: there is none yet */
    group own;
    struct launch *launch; /* that has started the others; NULL: this process has */
    void *memory;          /* shared with those that it has started */
    uint64_t bytes;
    int fd;
    ledger *ledger;
    bool counted;
    uint32_t n;
    child child[GROUP_MAX];
    pthread_t watcher;
    bool watches;
    atomic_bool quit, ended; /* ended: some child has */
    void (*lost)(void *, const err *);
    void *arg;
};

extern char **environ;

/* ---- what can be ---- */

static status refuse(err *e, const char *field, const char *what, const char *hint) {
    err_set(e, ERR_UNSUPPORTED, "%s", what);
    err_hint(e, "%s", hint);
    return err_field(e, "%s", field);
}

status ranks_check(const machine *m, err *e) {
    const char *field =
        m->opt.tensor_parallel_size > 1 ? "tensor_parallel_size" : "pipeline_parallel_size";
    if (rank_plan_count(&m->opt) == 1) return OK;
    if (m->on_device && m->engine_opt.by_messages)
        return refuse(e, "distributed_executor_backend", "ranks by MPI compute on the CPU",
                      "use backend = cpu");
    if (m->on_device)
        return refuse(
            e, field,
            "several ranks are planned on devices (vramd plan), and served on the CPU",
            "use backend = cpu, or leave it at 1");
    if (m->part)
        return refuse(e, field, "several models have one rank each",
                      "serve the model alone, or leave it at 1");
    if (m->opt.pipeline_parallel_size > 1 && m->pooling != POOL_OFF)
        return refuse(e, "embeddings",
                      "the first of several stages has no hidden states to give",
                      "leave embeddings out, or use tensor_parallel_size");
    if (m->opt.memory_max[0] || m->opt.memory_pressure)
        return refuse(e, m->opt.memory_max[0] ? "memory_max" : "memory_pressure",
                      "the budget of several ranks does not move while they serve",
                      "leave memory_max and memory_pressure out");
    return OK;
}

/* ---- memory ---- */

static bool count_memory(ranks *r, bool take) {
    for (int c = 0; c < MEM_N_CLASSES; c++) {
        const uint64_t bytes = group_share(&group_head_of(r->group)->shape, 0, (mem_class)c);
        if (!take)
            ledger_release(r->ledger, (mem_class)c, bytes);
        else
            CHECK(ledger_reserve(r->ledger, (mem_class)c, bytes)); /* as planned */
    }
    return take;
}

/* Populated, so that no page is missing later: what other stages have they map themselves. Without a name, so
 * that nothing is left behind. */
static status make_memory(ranks *r, const group_shape *s, err *e) {
    r->bytes = group_lay(s).bytes;
    r->fd = memfd_create("vramd-group", MFD_CLOEXEC);
    if (r->fd < 0 || ftruncate(r->fd, (off_t)r->bytes) != 0 ||
        fallocate(r->fd, 0, 0, (off_t)r->bytes) != 0)
        return mem_exhausted(e, MEM_ACTIVATIONS, "what %u ranks share (%s)", s->n_ranks,
                             strerror(errno));
    r->memory = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
    if (r->memory == MAP_FAILED) {
        r->memory = NULL;
        return mem_exhausted(e, MEM_ACTIVATIONS, "what %u ranks share", s->n_ranks);
    }
    r->group = &r->own;
    group_init(r->group, r->memory, s, 0, VRAMD_VERSION);
    group_populate(r->group);
    return OK;
}

/* ---- processes ---- */

static bool has_ended(ranks *r) {
    if (atomic_load(&r->ended)) return true;
    for (uint32_t i = 1; i < r->n; i++) {
        siginfo_t info = {0};
        if (!r->child[i].pid ||
            waitid(P_PID, (id_t)r->child[i].pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
            info.si_pid == 0)
            continue;
        atomic_store(&r->ended, true);
        return true;
    }
    return false;
}

static bool all_alive(void *arg) {
    return !has_ended(arg);
}

static status start_child(ranks *r, uint32_t i, err *e) {
    char number[16], program[] = "vramd", word[] = "rank";
    char *argv[] = {program, word, number, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    snprintf(number, sizeof number, "%u", i);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_adddup2(&actions, r->fd, RANK_FD);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    const int code =
        posix_spawn(&r->child[i].pid, "/proc/self/exe", &actions, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (code == 0) return OK;
    r->child[i].pid = 0;
    err_set(e, ERR_UNAVAILABLE, "rank %u cannot be started: %s", i, strerror(code));
    return err_field(e, "%s",
                     r->group->n_peers > 1 ? "tensor_parallel_size" : "pipeline_parallel_size");
}

static void write_note(const machine *m, ranks *r) {
    rank_note *n = (rank_note *)(void *)(r->group->base + r->group->at.note);
    _Static_assert(sizeof *n <= GROUP_NOTE_BYTES, "the note has no place");
    n->opt = m->opt;
    n->opt.backend = BACKEND_CPU; /* as it was chosen */
    n->parent = getpid();
    n->kv_tokens = m->plan.kv_tokens;
    memcpy(n->n_blocks, m->engine_opt.n_blocks, sizeof n->n_blocks);
}

/* Once the others are started, which would inherit the cores. */
static status open_engine(machine *m, ranks *r, err *e) {
    if (!r->launch) rank_stay(0, r->n, m->engine_opt.n_threads);
    status s = model_shard(&m->own, m->model, &m->ranks[0].part, e);
    m->engine_opt.group = r->group;
    if (s == OK)
        s = engine_open(&m->engine, m->backend, m->own, &m->engine_opt, m->ledger, NULL, e);
    if (s == OK) s = group_await_ready(r->group, e);
    const bool lost = s != OK && r->launch && link_error(r->launch->link, e) != OK;
    return lost ? e->code : s; /* whoever failed first */
}

/* The sizes are the layouts', which the engines compare with their own; stage after stage adds its own. */
static status shape_of(const machine *m, group_shape *out, err *e) {
    status s = OK;
    for (uint32_t i = 0; i < m->n_ranks && s == OK; i++) {
        model *first;
        if (m->ranks[i].part.rank) continue;
        s = model_shard(&first, m->model, &m->ranks[i].part, e);
        if (s == OK) s = cpu_group_shape(out, &first->program, &m->engine_opt, e);
        model_close(first);
    }
    return s;
}

static status start(const machine *m, ranks *r, const group_shape *shape, err *e) {
    status s = make_memory(r, shape, e);
    if (s != OK) return s;
    r->counted = count_memory(r, true);
    r->group->alive = all_alive;
    r->group->arg = r;
    write_note(m, r);
    for (uint32_t i = 1; i < r->n && s == OK; i++) s = start_child(r, i, e);
    return s;
}

/* The others are there, and wait for the note. */
static status attach(const machine *m, ranks *r, const group_shape *shape, err *e) {
    status s = launch_attach(r->launch, shape, e);
    if (s != OK) return s;
    r->group = &r->launch->group;
    r->counted = count_memory(r, true);
    s = link_await_attached(r->launch->link, e);
    if (s != OK) return s;
    write_note(m, r);
    r->group->via->put(r->group, GROUP_ALL, r->group->base + r->group->at.note, 1,
                       sizeof(rank_note), sizeof(rank_note));
    group_say(r->group, GROUP_READY, NULL);
    return OK;
}

status ranks_open(machine *m, err *e) {
    group_shape shape;
    status s = shape_of(m, &shape, e);
    ranks *r = s == OK ? calloc(1, sizeof *r) : NULL;
    if (s != OK) return s;
    if (!r) return mem_exhausted(e, MEM_RUNTIME, "the ranks");
    m->started = r;
    r->fd = -1;
    r->ledger = m->ledger;
    r->n = shape.n_ranks;
    r->launch = m->engine_opt.by_messages ? m->launch : NULL;
    s = r->launch ? attach(m, r, &shape, e) : start(m, r, &shape, e);
    if (s == OK) s = open_engine(m, r, e);
    if (s == OK)
        log_info("%u ranks share the model%s, %u threads each", r->n,
                 r->group->n_stages > 1 ? " in stages" : "", m->engine_opt.n_threads);
    return s;
}

/* ---- the watch ---- */

static void why_lost(const ranks *r, err *e) {
    if (group_is_broken(r->group)) {
        group_error(r->group, e);
        return;
    }
    for (uint32_t i = 1; i < r->n; i++) {
        siginfo_t info = {0};
        if (!r->child[i].pid ||
            waitid(P_PID, (id_t)r->child[i].pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
            info.si_pid == 0)
            continue;
        err_set(e, ERR_DEVICE, "rank %u has ended (%s %d)", i,
                info.si_code == CLD_EXITED ? "exit code" : "signal", info.si_status);
        return;
    }
    err_set(e, ERR_DEVICE, "a rank has ended");
}

static void *watch(void *arg) {
    ranks *r = arg;
    err why;
    while (!atomic_load(&r->quit)) {
        const struct timespec t = {.tv_nsec = WATCH_MS * 1000000L};
        if (group_is_broken(r->group) || has_ended(r)) {
            why_lost(r, &why);
            group_break(r->group, &why);
            r->lost(r->arg, &why);
            return NULL;
        }
        nanosleep(&t, NULL);
    }
    return NULL;
}

void ranks_watch(machine *m, void (*lost)(void *arg, const err *why), void *arg) {
    ranks *r = m->started;
    if (!r) return;
    r->lost = lost;
    r->arg = arg;
    r->watches = thread_start(&r->watcher, watch, r) == 0;
    if (!r->watches) log_warn("no thread watches the ranks: a lost one shows in the next step");
}

void ranks_unwatch(machine *m) {
    ranks *r = m->started;
    if (!r || !r->watches) return;
    atomic_store(&r->quit, true);
    pthread_join(r->watcher, NULL);
    r->watches = false;
}

uint32_t ranks_read(const machine *m, ledger_view *out, uint32_t max) {
    const ranks *r = m->started;
    if (!r) return 0;
    for (uint32_t i = 0; i < r->n && i < max; i++) {
        if (i == 0)
            ledger_read(m->ledger, &out[i]);
        else
            out[i] = group_rank_of(r->group, i)->memory;
    }
    return r->n < max ? r->n : max;
}

/* ---- the end ---- */

static void end_child(child *c, uint64_t until_us) {
    const struct timespec t = {.tv_nsec = 5000000L};
    while (c->pid && waitpid(c->pid, NULL, WNOHANG) == 0) {
        if (clock_us() < until_us) {
            nanosleep(&t, NULL);
            continue;
        }
        kill(c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
        break;
    }
    c->pid = 0;
}

void ranks_close(machine *m) {
    ranks *r = m->started;
    ranks_unwatch(m);
    m->started = NULL;
    model_close(m->own);
    m->own = NULL;
    if (!r) return;
    const bool lost =
        !r->group || group_is_broken(r->group) || atomic_load(&r->ended) ||
        (r->launch && r->launch->why.code != OK); /* which launch_close says to the others */
    if (r->group && !(lost && r->launch)) group_post(r->group, 0);
    const uint64_t until = clock_us() + (lost ? 0 : END_WITHIN_MS * 1000);
    for (uint32_t i = 1; i < r->n; i++) end_child(&r->child[i], until);
    if (r->counted) count_memory(r, false);
    if (r->memory) munmap(r->memory, r->bytes);
    if (r->fd >= 0) close(r->fd);
    free(r);
}
