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
#include "engine/cuda/layout.h"

enum { END_WITHIN_MS = 2000, WATCH_MS = 100, FORCE_MS = 2000 };

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
    bool forces;             /* the process is ended where it does not end after a loss */
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

static void count_memory(ranks *r) {
    group_count(r->group, r->ledger, true);
    r->counted = true;
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

/* ---- the watch ---- */

/* What a rank has said that could not load its part, which is more than that it has ended. */
static bool why_not_loaded(const ranks *r, err *e) {
    for (uint32_t i = 1; i < r->n; i++) {
        const group_rank *other = group_rank_of(r->group, i);
        if (atomic_load(&other->state) != GROUP_FAILED) continue;
        *e = other->error;
        return true;
    }
    return false;
}

static void why_lost(const ranks *r, err *e) {
    if (why_not_loaded(r, e)) return;
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

/* What outlives a group in which calls of the driver wait for ever. */
typedef struct force {
    uint32_t n;
    pid_t pid[GROUP_MAX];
    err why;
} force;

static void *end_by_force(void *arg) {
    const force *f = arg;
    const struct timespec t = {.tv_sec = FORCE_MS / 1000};
    nanosleep(&t, NULL);
    log_error("%s: calls of the device's driver still wait for it, the process ends",
              f->why.text);
    for (uint32_t i = 0; i < f->n; i++) {
        siginfo_t info;
        if (waitid(P_PID, (id_t)f->pid[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0)
            kill(f->pid[i], SIGKILL); /* a child yet, so that the number is still its own */
    }
    _exit(status_exit_code(ERR_DEVICE));
}

static void end_soon(const ranks *r, const err *why) {
    static force f; /* of the process, whose last act it is */
    pthread_t thread;
    f.why = *why;
    for (uint32_t i = 1; i < r->n; i++)
        if (r->child[i].pid) f.pid[f.n++] = r->child[i].pid;
    if (thread_start(&thread, end_by_force, &f) == 0) pthread_detach(thread);
}

static void *watch(void *arg) {
    ranks *r = arg;
    err why;
    while (!atomic_load(&r->quit)) {
        const struct timespec t = {.tv_nsec = WATCH_MS * 1000000L};
        if (group_is_broken(r->group) || has_ended(r)) {
            why_lost(r, &why);
            group_break(r->group, &why);
            if (r->forces) end_soon(r, &why);
            r->forces = false; /* once */
            if (r->lost) r->lost(r->arg, &why);
            return NULL;
        }
        nanosleep(&t, NULL);
    }
    return NULL;
}

static void start_watch(ranks *r, void (*lost)(void *arg, const err *why), void *arg) {
    r->lost = lost;
    r->arg = arg;
    atomic_store(&r->quit, false);
    r->watches = thread_start(&r->watcher, watch, r) == 0;
    if (!r->watches) log_warn("no thread watches the ranks: a lost one shows in the next step");
}

void ranks_watch(machine *m, void (*lost)(void *arg, const err *why), void *arg) {
    if (m->started) start_watch(m->started, lost, arg);
}

void ranks_unwatch(machine *m) {
    ranks *r = m->started;
    if (!r || !r->watches) return;
    atomic_store(&r->quit, true);
    pthread_join(r->watcher, NULL);
    r->watches = false;
}

/* ---- loading ---- */

static rank_note *note_of(const ranks *r) {
    return (rank_note *)(void *)(r->group->base + r->group->at.note);
}

static void write_note(const machine *m, ranks *r) {
    rank_note *n = note_of(r);
    _Static_assert(sizeof *n <= GROUP_NOTE_BYTES, "the note has no place");
    n->opt = m->opt;
    n->opt.backend = m->on_device ? BACKEND_CUDA : BACKEND_CPU; /* as it was chosen */
    n->parent = getpid();
    n->kv_tokens = m->plan.kv_tokens;
    memcpy(n->n_blocks, m->engine_opt.n_blocks, sizeof n->n_blocks);
}

/* Once the others are started, which would inherit the cores. */
static status open_engine(machine *m, ranks *r, err *e) {
    if (!r->launch && !m->on_device) rank_stay(0, r->n, m->engine_opt.n_threads);
    status s = model_shard(&m->own, m->model, &m->ranks[0].part, e);
    m->engine_opt.group = r->group;
    if (s == OK)
        s = engine_open(&m->engine, m->backend, m->own, &m->engine_opt, m->ledger,
                        m->device_ledger, e);
    if (s == OK)
        s = group_await_ready(r->group, e);
    else if (why_not_loaded(r, e))
        s = e->code;
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
        if (s == OK)
            s = (m->on_device ? cuda_group_shape : cpu_group_shape)(out, &first->program,
                                                                    &m->engine_opt, e);
        model_close(first);
    }
    return s;
}

static status start(const machine *m, ranks *r, const group_shape *shape, err *e) {
    status s = make_memory(r, shape, e);
    if (s != OK) return s;
    count_memory(r);
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
    count_memory(r);
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
    r->forces = m->on_device;
    if (s == OK && r->forces) start_watch(r, NULL, NULL);
    if (s == OK) s = open_engine(m, r, e);
    ranks_unwatch(m);
    if (s == OK && m->on_device)
        log_info("%u ranks share the model, on the devices %u to %u", r->n, m->opt.cuda_device,
                 m->opt.cuda_device + r->n - 1);
    else if (s == OK)
        log_info("%u ranks share the model%s, %u threads each", r->n,
                 r->group->n_stages > 1 ? " in stages" : "", m->engine_opt.n_threads);
    return s;
}

/* ---- what they hold ---- */

uint32_t ranks_read(const machine *m, ledger_view *out, uint32_t max, int32_t *first_device) {
    const ranks *r = m->started;
    if (!r) return 0;
    const uint32_t n = r->n < max ? r->n : max;
    const bool devices = m->on_device && 2 * n <= max && n <= RANK_MOST_DEVICES;
    *first_device = devices ? (int32_t)m->opt.cuda_device : -1;
    for (uint32_t i = 1; i < n; i++) {
        out[i] = group_rank_of(r->group, i)->memory;
        if (devices) out[n + i] = note_of(r)->device[i];
    }
    ledger_read(m->ledger, &out[0]);
    if (devices) ledger_read(m->device_ledger, &out[n]);
    return n;
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
    if (r->counted) group_count(r->group, r->ledger, false);
    if (r->memory) munmap(r->memory, r->bytes);
    if (r->fd >= 0) close(r->fd);
    free(r);
}
