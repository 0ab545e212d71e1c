/* An allocator for libuv that tells what is missing. Owns nothing; any thread. */
#include "daemon/loop_memory.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "memory/term.h"

static _Noreturn void end(const char *what) {
    err e;
    status s = mem_exhausted(&e, MEM_RUNTIME, "%s", what);
    log_error("%s", e.text);
    _exit(status_exit_code(s));
}

static void *checked(void *p) {
    if (!p) end("the event loop");
    return p;
}

static void *take(size_t bytes) {
    return checked(malloc(bytes));
}
static void *regrow(void *p, size_t bytes) {
    return checked(realloc(p, bytes));
}
static void *take_zeroed(size_t n, size_t bytes) {
    return checked(calloc(n, bytes));
}

void loop_memory_init(void) {
    uv_replace_allocator(take, regrow, take_zeroed, free);
}

static void no_work(uv_work_t *w) {
    (void)w;
}
static void no_work_done(uv_work_t *w, int status) {
    (void)w, (void)status;
}
static void on_abort(int number) {
    (void)number;
    end("the threads of libuv's pool");
}

void loop_memory_threads(uv_loop_t *loop) {
    static uv_work_t first;
    setenv("UV_THREADPOOL_SIZE", "4",
           1); /* as planned (machine.c), whatever the surroundings say */
    struct sigaction tell = {.sa_handler = on_abort}, before;
    sigaction(SIGABRT, &tell, &before);
    uv_queue_work(loop, &first, no_work, no_work_done);
    sigaction(SIGABRT, &before, NULL);
}
