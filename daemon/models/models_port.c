/* What endpoints see of several models: the port of the whole, that of a model which is not loaded,
 * and the lists of models. Loop thread. */
#include "base/check.h"
#include "base/clock.h"
#include "daemon/models/models_parts.h"

/* ---- of a model that is not loaded: no request enters ---- */

static status no_submit(port *p, const gen_spec *s, gen **out, err *e) {
    (void)p, (void)s, (void)out;
    return err_set(e, ERR_UNAVAILABLE, "the model is not loaded");
}
static void no_cancel(port *p, gen *g, gen_finish why) {
    (void)p, (void)g, (void)why;
}
static void no_credit(port *p, gen *g, uint32_t n) {
    (void)p, (void)g, (void)n;
}
static void no_stats(port *p, machine_stats *out) {
    (void)p;
    *out = (machine_stats){0};
}
static size_t no_sequences(port *p, seq_view *out, size_t cap) {
    (void)p, (void)out, (void)cap;
    return 0;
}
static bool no_picture(port *p, kv_picture *out) {
    (void)p, (void)out;
    return false;
}
static uint64_t no_bytes(port *p, uint32_t n_prompt, uint32_t max_tokens) {
    (void)p, (void)n_prompt, (void)max_tokens;
    return 0;
}
static double soon(port *p) {
    (void)p;
    return 1;
}
static const char *not_loaded(port *p) {
    (void)p;
    return "loading";
}
static bool no_offload(port *p, void (*work)(void *), void (*done)(void *), void *arg) {
    (void)p, (void)work, (void)done, (void)arg;
    return false;
}
static bool no_device(port *p, device_memory *out) {
    (void)p, (void)out;
    return false;
}
static status no_resize(port *p, uint64_t bytes, resize_done *done, void *arg, err *e) {
    (void)p, (void)bytes, (void)done, (void)arg;
    return err_set(e, ERR_UNSUPPORTED, "the budget of several models does not move");
}
static status no_plan(port *p, const json_t *body, buf *out, err *e) {
    (void)p, (void)body, (void)out;
    return err_set(e, ERR_UNAVAILABLE, "the model is not loaded");
}
static status no_forget(port *p, const str *salt, forget_done *done, void *arg, err *e) {
    (void)p, (void)salt, (void)done, (void)arg;
    err_set(e, ERR_UNSUPPORTED, "the cache of several models is not forgotten by request");
    return err_hint(e, "POST /v1/models/NAME/unload forgets all of a model");
}

static const port_ops closed_ops = {.submit = no_submit,
                                    .cancel = no_cancel,
                                    .credit = no_credit,
                                    .stats = no_stats,
                                    .sequences = no_sequences,
                                    .picture = no_picture,
                                    .kv_bytes_needed = no_bytes,
                                    .retry_after_s = soon,
                                    .not_ready = not_loaded,
                                    .offload = no_offload,
                                    .device_memory = no_device,
                                    .resize = no_resize,
                                    .plan = no_plan,
                                    .forget = no_forget};

void models_closed_port(model_unit *u, uint64_t created) {
    u->closed.ops = &closed_ops;
    u->closed.card.created = created;
    u->closed.ledger = u->all->shared;
    u->closed.pool = u->all->port.pool;
    u->closed.device = "cpu";
}

/* ---- of the whole ---- */

static void add_histogram(histogram *to, const histogram *h) {
    for (int i = 0; i <= PORT_MAX_BUCKETS; i++) to->bucket[i] += h->bucket[i];
    to->n += h->n;
    to->sum += h->sum;
}

/* Of models that are loaded: what one has counted is gone with it. */
static void add_counts(machine_stats *to, const machine_stats *st) {
#define ADD_COUNTER(name, help) to->count.name += st->count.name;
    SCHED_COUNTERS(ADD_COUNTER)
#undef ADD_COUNTER
    for (int i = 0; i <= GEN_ERROR; i++) to->finished[i] += st->finished[i];
    to->n_rejected += st->n_rejected;
    for (int i = 0; i < HIST_N; i++) add_histogram(&to->hist[i], &st->hist[i]);
}

/* What runs and waits, and the sums of what was counted: /metrics has them by model. */
static void all_stats(port *p, machine_stats *out) {
    const models *a = (const models *)p;
    *out = (machine_stats){0};
    for (uint32_t i = 0; i < a->view.n; i++) {
        port *of = a->served[i].port;
        machine_stats st;
        of->ops->stats(of, &st);
        out->n_running += st.n_running;
        out->n_waiting += st.n_waiting + a->served[i].n_held;
        out->n_preempted += st.n_preempted;
        out->waiting_tokens += st.waiting_tokens;
        out->kv.blocks += st.kv.blocks;
        out->kv.free += st.kv.free;
        out->kv.used += st.kv.used;
        out->kv.cached += st.kv.cached;
        add_counts(out, &st);
    }
    out->budget.target_bytes = out->budget.most_bytes = out->budget.full_bytes =
        a->budget.bytes;
}

static double all_retry_after(port *p) {
    const models *a = (const models *)p;
    double most = 1;
    for (uint32_t i = 0; i < a->view.n; i++) {
        port *of = a->served[i].port;
        const double s = of->ops->retry_after_s(of);
        if (s > most) most = s;
    }
    return most;
}

/* A load that takes longer than a request waits for it is stuck. */
static bool is_stuck(const models *a, uint32_t i) {
    const uint64_t limit_us = (uint64_t)a->opt.load_timeout * 1000000;
    return a->view.v[i].state == MODEL_LOADING && clock_us() - a->unit[i].began_us > limit_us;
}

static const char *all_not_ready(port *p) {
    const models *a = (const models *)p;
    if (a->draining) return "draining";
    if (!a->announced) return "loading";
    for (uint32_t i = 0; i < a->view.n; i++) {
        port *of = a->served[i].port;
        const bool open = a->served[i].open;
        if (is_stuck(a, i) || (open && of->ops->not_ready(of))) return "stalled";
        if (a->view.v[i].pinned && a->view.v[i].state == MODEL_FAILED) return "failed";
    }
    return NULL;
}

static bool all_offload(port *p, void (*work)(void *), void (*done)(void *), void *arg) {
    return offload_run(&((models *)p)->offloads, work, done, arg);
}

static const port_ops whole_ops = {.submit = no_submit,
                                   .cancel = no_cancel,
                                   .credit = no_credit,
                                   .stats = all_stats,
                                   .sequences = no_sequences,
                                   .picture = no_picture,
                                   .kv_bytes_needed = no_bytes,
                                   .retry_after_s = all_retry_after,
                                   .not_ready = all_not_ready,
                                   .offload = all_offload,
                                   .device_memory = no_device,
                                   .resize = no_resize,
                                   .plan = no_plan,
                                   .forget = no_forget};

void models_port_open(models *a, uint64_t created) {
    pool *requests = a->port.pool;
    a->port = (port){.ops = &whole_ops,
                     .card = a->unit[0].closed.card,
                     .ledger = a->shared,
                     .pool = requests,
                     .device = "cpu"};
    a->offloads =
        (offloads){.loop = a->loop, .pool = requests, .flushed = a->flushed, .arg = a->arg};
    a->port.card.created = created;
    a->port.card.id = ""; /* the label of what all of them share */
}
