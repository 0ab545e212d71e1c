/* The engine thread's half of the bridge: inbox -> scheduler and engine -> outbox. */
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/bridge/bridge_parts.h"
#include "daemon/kv/kv_tier.h"
#include "daemon/step_log.h"

enum { DEADLINES_MS = 50, IDLE_WAIT_MS = 1000, NICER = 5 };

/* The engine keeps every core busy; whoever wakes for a moment is to have one at once: the loop
 * thread, a proxy, who scrapes /metrics (whose p99 this took from 5.6 to 4.4 ms on two busy
 * cores, at the same tokens a second). The engine's workers are started by this thread and
 * inherit it. */
static void let_others_go_first(void) {
    int nice = getpriority(PRIO_PROCESS, 0) + NICER; /* of this thread alone, on Linux */
    setpriority(PRIO_PROCESS, 0, nice);
}

static void push(bridge *b, const out_record *r) {
    pthread_mutex_lock(&b->out_lock);
    while (b->n_out == b->out_cap) {
        uv_async_send(&b->async);
        pthread_cond_wait(&b->out_space, &b->out_lock);
    }
    b->out[b->filling][b->n_out++] = *r;
    pthread_mutex_unlock(&b->out_lock);
}

/* A sequence whose grammar is at its end is stopped after the step: in lockstep no further row of
 * it is planned yet. */
static void count_complete(bridge *b, gen *g, const sched_event *ev) {
    if (!g->spec.grammar || ev->finish) return;
    if (grammar_can_go_on(g->spec.grammar, g->spec.grammar_state)) return;
    if (grammar_accepts_end(g->spec.grammar, g->spec.grammar_state))
        b->complete[b->n_complete++] = ev->id;
}

/* A sequence whose reader is too slow is paused after the step: its events are still read. */
static void count_unread(bridge *b, gen *g, const sched_event *ev) {
    g->unread += ev->n_tokens;
    if (!g->spec.credits || g->unread < g->spec.credits || g->paused || ev->finish) return;
    g->paused = true;
    b->full[b->n_full++] = ev->id;
}

/* Row after row in double: the same sum however the prompt was cut into steps. */
static void add_hidden(double *sum, const runner_event *e) {
    for (uint32_t i = 0; i < e->n_hidden; i++)
        for (uint32_t k = 0; k < e->n_embd; k++) sum[k] += e->hidden[(size_t)i * e->n_embd + k];
}

static void on_event(void *arg, const runner_event *e) {
    bridge *b = arg;
    gen *g = (gen *)(uintptr_t)e->event->user;
    out_record r = {.g = g, .ev = *e->event, .now_us = e->now_us, .scored_pos = UINT32_MAX};
    if (e->event->kind == EVENT_PREFILLED) {
        if (g->spec.pooled) add_hidden(g->spec.pooled, e);
        for (uint32_t i = 0; i < e->n_scored; i++) {
            r.token = e->scored[i];
            r.scored_pos = e->first_scored + i;
            push(b, &r);
        }
        return;
    }
    if (g->spec.explain && (e->event->kind == EVENT_ADMITTED || e->event->kind == EVENT_LOADED))
        sched_explain(b->m->sched, e->event->id, &g->miss);
    if (e->event->cost) g->cost = *e->event->cost;
    if (e->event->kind != EVENT_TOKEN) push(b, &r);
    /* Only an event of tokens has some; ENDED may be the last word of g. */
    if (e->event->kind == EVENT_TOKEN) {
        count_unread(b, g, e->event);
        count_complete(b, g, e->event);
    }
    for (uint32_t i = 0; i < e->event->n_tokens; i++) {
        r.token = e->token[i];
        push(b, &r);
    }
}

static sched_id id_of_leader(bridge *b, const gen *g) {
    const gen *l = g->spec.fork_of;
    if (!l) return 0;
    pthread_mutex_lock(&b->in_lock);
    sched_id id = l->number == g->leader_number ? l->id : 0;
    pthread_mutex_unlock(&b->in_lock);
    return id;
}

static sched_id do_submit(bridge *b, gen *g) {
    const gen_spec *s = &g->spec;
    sched_id id = 0;
    sched_spec q = {.prompt = s->prompt,
                    .n_prompt = s->n_prompt,
                    .max_tokens = s->max_tokens,
                    .min_tokens = s->sampling.min_tokens,
                    .ignore_eos = s->ignore_eos,
                    .n_stop_ids = s->n_stop_ids,
                    .lockstep = g->job.allow != NULL,
                    .score_prompt = s->score_prompt,
                    .priority = s->priority,
                    .tenant = s->tenant,
                    .weight = s->weight,
                    .deadline_us = s->timeout_us ? g->submit_us + s->timeout_us : 0,
                    .salt = g->salt,
                    .base_salt = g->base_salt,
                    .request = s->request,
                    .no_tier = s->no_disk,
                    .fork_of = id_of_leader(b, g),
                    .user = (uintptr_t)g};
    memcpy(q.stop_ids, s->stop_ids, s->n_stop_ids * sizeof *q.stop_ids);
    /* The loop side has checked every limit before. Where the two still differ, the request
     * ends with an error, and the others go on. */
    sched_reject why = logged_submit(b->m->log, b->m->sched, &q, clock_us(), &id);
    pthread_mutex_lock(&b->in_lock);
    g->id = id;
    pthread_mutex_unlock(&b->in_lock);
    if (why == REJECT_NONE) return id;
    log_error("the scheduler refused a sequence that the queue had let in");
    out_record r = {.g = g, .now_us = clock_us(), .scored_pos = UINT32_MAX};
    r.ev = (sched_event){.kind = EVENT_ENDED, .finish = FINISH_ERROR, .stop_id = -1};
    push(b, &r);
    return 0;
}

/* What the loop has to say of one generation. */
typedef struct message {
    gen *g; /* NULL: nothing */
    sched_id id;
    unsigned ops;
    gen_finish why;
    bool resume;
} message;

/* Under the inbox's mutex. True: as the reader has taken half, it goes on. */
static bool take_credit(gen *g) {
    g->unread -= g->credited < g->unread ? g->credited : g->unread;
    g->credited = 0;
    if (!g->paused || g->unread > g->spec.credits / 2) return false;
    g->paused = false;
    return true;
}

/* Deadlines of sequences pass without a signal; where no sequence is left, there are none. */
static bool anything_is_left(const sched_stats *s) {
    return s->n_running || s->n_waiting || s->n_preempted || s->n_paused || s->n_storing;
}

/* How long to sleep while idle: until the scheduler would find something to do, at most. */
static uint64_t idle_us(const bridge *b) {
    const uint64_t now = clock_us(), next = sched_next_us(b->m->sched);
    const uint64_t most = 1000 * (anything_is_left(&b->stats) ? DEADLINES_MS : IDLE_WAIT_MS);
    return next <= now ? 1 : next - now < most ? next - now : most;
}

/* Takes one generation out of the inbox; waits for one when idle. False: quit. */
static bool take_in(bridge *b, bool idle, message *out) {
    struct timespec until;
    const uint64_t sleep_us = idle ? idle_us(b) : 0;
    pthread_mutex_lock(&b->in_lock);
    while (idle && !b->in_head && !b->quit && b->resize.number == b->resize.taken &&
           b->forget.number == b->forget.taken && !kv_tier_waits(b->m->tier)) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)sleep_us * 1000;
        if (until.tv_nsec >= 1000000000L) until.tv_sec++, until.tv_nsec -= 1000000000L;
        if (pthread_cond_timedwait(&b->in_wake, &b->in_lock, &until) != 0) break;
    }
    bool go = !b->quit;
    gen *g = b->in_head;
    *out = (message){.g = g};
    if (g) {
        b->in_head = g->next_in;
        if (!b->in_head) b->in_tail = NULL;
        *out = (message){
            .g = g, .id = g->id, .ops = g->ops, .why = g->why, .resume = take_credit(g)};
        g->ops = 0;
    }
    pthread_mutex_unlock(&b->in_lock);
    return go;
}

static void do_ops(bridge *b, const message *m) {
    static const sched_finish map[] = {FINISH_STOP, FINISH_LENGTH, FINISH_CANCELLED,
                                       FINISH_TIMEOUT, FINISH_ERROR};
    sched_id id = m->id;
    if (m->ops & BRIDGE_SUBMIT) id = do_submit(b, m->g);
    if (m->resume) logged_pause(b->m->log, b->m->sched, id, false);
    if (m->ops & BRIDGE_CANCEL) logged_cancel(b->m->log, b->m->sched, id, map[m->why]);
    runner_deliver(b->runner);
}

static void pause_full(bridge *b) {
    for (uint32_t i = 0; i < b->n_full; i++)
        logged_pause(b->m->log, b->m->sched, b->full[i], true);
    b->n_full = 0;
}

static void stop_complete(bridge *b) {
    for (uint32_t i = 0; i < b->n_complete; i++)
        logged_cancel(b->m->log, b->m->sched, b->complete[i], FINISH_STOP);
    if (b->n_complete) runner_deliver(b->runner);
    b->n_complete = 0;
}

static void publish(bridge *b, bool stepped) {
    sched_stats s;
    sched_read(b->m->sched, &s);
    if (b->m->opt.ttft_slo_ms) sched_read_work(b->m->sched, &s);
    pthread_mutex_lock(&b->stats_lock);
    b->stats = s;
    if (stepped) {
        histogram_add(&b->step_rows, HIST_STEP_TOKENS, runner_last_rows(b->runner));
        histogram_add(&b->step_tokens, HIST_ITERATION, runner_last_tokens(b->runner));
    }
    b->last_step_us = clock_us();
    pthread_mutex_unlock(&b->stats_lock);
    bridge_draw(b);
    pthread_mutex_lock(&b->out_lock);
    bool any = b->n_out > 0;
    pthread_mutex_unlock(&b->out_lock);
    if (any) uv_async_send(&b->async);
}

/* Any thread: something of the tier is done. */
static void wake_engine(void *arg) {
    bridge *b = arg;
    pthread_mutex_lock(&b->in_lock);
    pthread_cond_signal(&b->in_wake);
    pthread_mutex_unlock(&b->in_lock);
}

/* True: some sequence may have rows now. */
static bool use_tier(bridge *b) {
    logged_now(b->m->log, b->m->sched, clock_us());
    const bool loaded = b->m->tier && kv_tier_work(b->m->tier);
    if (b->m->tier) runner_deliver(b->runner);
    return loaded;
}

/* What was left behind is stored as far as that takes no longer than a restart may. */
static void leave_tier(bridge *b) {
    enum { STORE_AT_MOST_MS = 10000 };
    while (forget_go_on(b)) {
    }
    if (b->m->tier) kv_tier_drain(b->m->tier, STORE_AT_MOST_MS);
}

static status start_serving(bridge *b, err *e) {
    const status s = grammar_memory_load(&b->grammar, b->m->tok, e);
    if (s != OK) return s;
    b->runner = machine_runner(b->m, on_event, b);
    runner_set_log(b->runner, b->m->log);
    step_log_config(b->m->log, &b->m->sched_conf);
    return b->m->tier ? kv_tier_start(b->m->tier, wake_engine, b, e) : OK;
}

static bool step(bridge *b) {
    if (!b->turns) return runner_step(b->runner);
    turns_take(b->turns, b->who);
    const bool busy = runner_step(b->runner);
    turns_give(b->turns, b->who);
    return busy;
}

void *bridge_engine_main(void *arg) {
    bridge *b = arg;
    pthread_setname_np(pthread_self(), "vramd-engine");
    let_others_go_first();
    b->load_status = machine_load(b->m, &b->load_error);
    if (b->load_status == OK) b->load_status = start_serving(b, &b->load_error);
    if (b->load_status == OK)
        publish(b, false); /* the pools as they are before the first step */
    atomic_store(&b->load_state, b->load_status == OK ? LOADED : FAILED);
    uv_async_send(&b->async);
    if (b->load_status != OK) return NULL;
    resize_start(b);
    bool busy = false, loaded = false;
    for (;;) {
        message m;
        bool go = take_in(b, !busy && !loaded, &m);
        for (; m.g; take_in(b, false, &m)) do_ops(b, &m);
        if (!go) break;
        const bool resizes = resize_go_on(b), forgets = forget_go_on(b);
        use_tier(b); /* what was loaded makes rows of the step */
        busy = step(b);
        loaded = use_tier(b); /* what the step let in is to be loaded */
        pause_full(b);
        stop_complete(b);
        publish(b, busy);
        busy |= resizes || forgets;
    }
    leave_tier(b);
    return NULL;
}
