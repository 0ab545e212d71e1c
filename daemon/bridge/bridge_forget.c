/* The two halves of forgetting; bridge_forget.h says who does what. */
#include "daemon/bridge/bridge_forget.h"

#include "base/log.h"
#include "daemon/bridge/bridge_parts.h"
#include "daemon/kv/kv_tier.h"
#include "daemon/step_log.h"

/* ---- loop thread ---- */

status forget_want(port *p, const str *salt, forget_done *done, void *arg, err *e) {
    bridge *b = (bridge *)p;
    forgetting *f = &b->forget;
    if (atomic_load(&b->load_state) != READY || b->draining)
        return err_set(e, ERR_UNAVAILABLE, "the server is starting or shutting down");
    if (f->waiter) return err_set(e, ERR_BUSY, "another request is removing prefixes");
    f->waiter = done;
    f->arg = arg;
    pthread_mutex_lock(&b->in_lock);
    f->number++;
    f->all = !salt;
    f->salt = salt ? bridge_salt(b, *salt) : 0;
    pthread_cond_signal(&b->in_wake);
    pthread_mutex_unlock(&b->in_lock);
    return OK;
}

void forget_collect(bridge *b) {
    forgetting *f = &b->forget;
    if (!f->waiter) return;
    pthread_mutex_lock(&b->stats_lock);
    const bool done = f->done == f->number; /* only this thread counts number up */
    const status result = f->result;
    const err why = f->why;
    const cache_forgotten what = f->what;
    pthread_mutex_unlock(&b->stats_lock);
    if (!done) return;
    forget_done *waiter = f->waiter;
    f->waiter = NULL; /* another may follow from within */
    waiter(f->arg, result, &what, &why);
    b->flushed(b->arg);
}

/* ---- engine thread ---- */

static void begin(bridge *b) {
    forgetting *f = &b->forget;
    pthread_mutex_lock(&b->in_lock);
    const bool newer = f->number != f->taken, all = f->all;
    const uint64_t salt = f->salt;
    f->taken = f->number;
    pthread_mutex_unlock(&b->in_lock);
    if (!newer) return;
    const sched_forgotten blocks = logged_forget(b->m->log, b->m->sched, all ? NULL : &salt);
    f->sum = (cache_forgotten){.blocks = blocks.blocks, .bytes = blocks.bytes};
    f->n_left = 0;
    f->active = true;
    if (b->m->tier) kv_tier_forget(b->m->tier, all ? NULL : &salt);
}

static void finish(bridge *b) {
    forgetting *f = &b->forget;
    log_info("the prefix cache has forgotten %llu blocks and %llu files",
             (unsigned long long)f->sum.blocks, (unsigned long long)f->sum.files);
    f->active = false;
    pthread_mutex_lock(&b->stats_lock);
    f->done = f->taken;
    f->what = f->sum;
    f->result = OK;
    if (f->n_left)
        f->result = err_set(&f->why, ERR_IO, "%llu files of kv_disk could not be removed",
                            (unsigned long long)f->n_left);
    pthread_mutex_unlock(&b->stats_lock);
    uv_async_send(&b->async);
}

bool forget_go_on(bridge *b) {
    forgetting *f = &b->forget;
    begin(b);
    if (!f->active) return false;
    if (b->m->tier &&
        kv_tier_forget_on(b->m->tier, &f->sum.files, &f->sum.file_bytes, &f->n_left))
        return true;
    finish(b);
    return true;
}
