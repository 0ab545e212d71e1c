/* The MPI plugin, and a watch over the calls that block. */
#include "engine/mpi/load.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "engine/mpi/plugin.h"
#include "engine/plugin_file.h"

/* ---- the plugin ---- */

static status no_plugin(err *e, status code, const char *path, const char *why) {
    err_set(e, code, "the MPI plugin %.120s: %.240s", path, why);
    err_hint(e, "build it (make mpi) or install the package vramd-mpi; MPI itself is in "
                "Debian's openmpi-bin");
    return err_field(e, "mpi_plugin");
}

/* Its symbols are for all: Open MPI loads components of its own, which look for them. */
static status load(const char *named, const mpi_plugin **out, err *e) {
    char path[PLUGIN_PATH];
    const char *why;
    void *lib = plugin_load(named, "vramd-mpi.so", true, path, &why);
    if (!lib && !why) return no_plugin(e, ERR_NOT_FOUND, path, "there is no such file");
    if (!lib) return no_plugin(e, ERR_UNSUPPORTED, path, why);
    vramd_mpi_plugin_function *f = NULL;
    *(void **)&f = dlsym(lib, "vramd_mpi_plugin");
    if (!f) return no_plugin(e, ERR_UNSUPPORTED, path, "it is no MPI plugin of vramd");
    *out = f(MPI_PLUGIN_ABI);
    if (!*out || (*out)->abi != MPI_PLUGIN_ABI || strcmp((*out)->version, VRAMD_VERSION) != 0)
        return no_plugin(e, ERR_UNSUPPORTED, path, "it is of another version than this vramd");
    return OK;
}

status mpi_wire_check(const char *path, err *e) {
    const mpi_plugin *p;
    return load(path, &p, e);
}

/* ---- calls without a deadline ---- */

typedef struct guard {
    const char *what;
    uint32_t seconds;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool over;
    pthread_t thread;
    bool runs;
} guard;

static void *end_late(void *arg) {
    guard *g = arg;
    struct timespec until;
    int code = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += g->seconds;
    pthread_mutex_lock(&g->lock);
    while (!g->over && code == 0) code = pthread_cond_timedwait(&g->changed, &g->lock, &until);
    if (!g->over) {
        log_error("%s did not come back within %u s: have all ranks been started?", g->what,
                  g->seconds);
        _exit(status_exit_code(ERR_UNAVAILABLE));
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

static void guard_start(guard *g, const char *what, uint32_t seconds) {
    pthread_condattr_t monotonic;
    *g = (guard){.what = what, .seconds = seconds};
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    g->runs = thread_start(&g->thread, end_late, g) == 0;
}

static void guard_end(guard *g) {
    pthread_mutex_lock(&g->lock);
    g->over = true;
    pthread_cond_signal(&g->changed);
    pthread_mutex_unlock(&g->lock);
    if (g->runs) pthread_join(g->thread, NULL);
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->lock);
}

/* ---- the wire ---- */

static void (*close_plugin)(wire *, bool);

static void close_in_time(wire *w, bool together) {
    guard g;
    guard_start(&g, "MPI_Finalize", MPI_CLOSE_S);
    close_plugin(w, together);
    guard_end(&g);
}

status mpi_wire_open(wire *out, const char *path, err *e) {
    const mpi_plugin *p;
    guard g;
    const status s = load(path, &p, e);
    if (s != OK) return s;
    guard_start(&g, "MPI_Init", MPI_OPEN_S);
    const char *why = p->open(out);
    guard_end(&g);
    if (why) return err_set(e, ERR_UNAVAILABLE, "MPI cannot start: %.300s", why);
    close_plugin = out->close;
    out->close = close_in_time;
    return OK;
}
