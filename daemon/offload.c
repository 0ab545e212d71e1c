/* Work on libuv's pool. Owns nothing but what is under way, in the pool's memory. */
#include "daemon/offload.h"

#include "base/chunks.h"

enum { MAX_OFFLOADED = 64 };

typedef struct offload {
    uv_work_t req;
    offloads *all;
    void (*work)(void *), (*done)(void *);
    void *arg;
} offload;
_Static_assert(sizeof(offload) <= POOL_MIN_CHUNK, "one chunk holds it");

static void on_work(uv_work_t *w) {
    offload *o = w->data;
    o->work(o->arg);
}

static void on_done(uv_work_t *w, int canceled) {
    offload *o = w->data;
    offloads *all = o->all;
    const chunks *c = pool_chunks(all->pool);
    (void)canceled;
    all->n--;
    o->done(o->arg);
    c->give(c->self, o, POOL_MIN_CHUNK);
    all->flushed(all->arg);
}

bool offload_run(offloads *all, void (*work)(void *), void (*done)(void *), void *arg) {
    const chunks *c = pool_chunks(all->pool);
    size_t got;
    if (all->n >= MAX_OFFLOADED) return false;
    offload *o = c->take(c->self, sizeof *o, &got);
    if (!o) return false;
    *o = (offload){.all = all, .work = work, .done = done, .arg = arg};
    o->req.data = o;
    all->n++;
    uv_queue_work(all->loop, &o->req, on_work, on_done);
    return true;
}
