/* The bridge's loop half: submissions, deliveries, its life. bridge.h says who owns what. */
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/energy.h"
#include "base/thread.h"
#include "daemon/bridge/bridge_parts.h"
#include "daemon/plan/plan_answer.h"

/* n: of a credit, its tokens; of a cancel, its gen_finish. */
static void signal_gen(bridge *b, gen *g, unsigned op, uint32_t n) {
    pthread_mutex_lock(&b->in_lock);
    if (!g->ops) {
        g->next_in = NULL;
        if (b->in_tail)
            b->in_tail->next_in = g;
        else
            b->in_head = g;
        b->in_tail = g;
    }
    g->ops |= op;
    if (op == BRIDGE_CANCEL) g->why = (gen_finish)n;
    if (op == BRIDGE_CREDIT) g->credited += n;
    pthread_cond_signal(&b->in_wake);
    pthread_mutex_unlock(&b->in_lock);
}

/* Takes a generation that has ended out of the inbox, where a late operation may have left it.
 */
static void forget_in(bridge *b, gen *g) {
    pthread_mutex_lock(&b->in_lock);
    gen *prev = NULL;
    for (gen *i = g->ops ? b->in_head : NULL; i; prev = i, i = i->next_in)
        if (i == g) {
            *(prev ? &prev->next_in : &b->in_head) = g->next_in;
            if (b->in_tail == g) b->in_tail = prev;
            break;
        }
    g->ops = 0;
    pthread_mutex_unlock(&b->in_lock);
}

static status refuse(bridge *b, err *e) {
    b->counts.n_rejected++;
    return e->code;
}

static uint64_t on_kv_bytes_needed(port *p, uint32_t n_prompt, uint32_t max_tokens) {
    const sched_config *c = &((const bridge *)p)->m->sched_conf;
    uint64_t bytes = 0;
    for (uint32_t k = 0; k < c->n_groups; k++)
        bytes += sched_blocks_needed(c, k, n_prompt, max_tokens) * c->group[k].block_bytes;
    return bytes;
}

/* Whether its tenant has some that wait or run. Requests without a key are no tenant's. */
static bool has_some(const bridge *b, uint64_t tenant) {
    bool any = false;
    for (uint32_t i = 0; i < b->n_gens && tenant && !any; i++)
        any = b->all[i].state != STATE_FREE && b->all[i].spec.tenant == tenant;
    return any;
}

/* The last eighth of the queue is for tenants that have nothing in it, so that none of them
 * fills it alone. Choices go where their first one is. */
static status check_queue(const bridge *b, const gen_spec *s, err *e) {
    const options *o = &b->m->opt;
    uint32_t places = o->max_num_seqs + o->max_waiting;
    uint64_t tokens = o->max_waiting_tokens, with = b->waiting_tokens + s->n_prompt;
    if (b->n_live >= places - o->max_waiting / 8 || with > tokens - tokens / 8) {
        if (!s->fork_of && has_some(b, s->tenant)) {
            places -= o->max_waiting / 8;
            tokens -= tokens / 8;
        }
    }
    if (b->n_live >= places || !b->free)
        return err_set(e, ERR_BUSY, "the queue is full: %u requests wait or run", b->n_live);
    if (b->waiting_tokens && with > tokens)
        return err_set(e, ERR_BUSY, "the queue is full: %llu prompt tokens wait",
                       (unsigned long long)b->waiting_tokens);
    return OK;
}

static status check_space(bridge *b, const gen_spec *s, err *e) {
    const sched_config *c = &b->m->sched_conf;
    uint64_t len = (uint64_t)s->n_prompt + s->max_tokens;
    if (b->draining) return err_set(e, ERR_UNAVAILABLE, "the server is shutting down");
    if (atomic_load(&b->load_state) != READY)
        return err_set(e, ERR_UNAVAILABLE, "the model is loading");
    if (len > c->max_model_len)
        return err_set(e, ERR_TOO_LONG, "%u prompt tokens and max_tokens %u exceed %u",
                       s->n_prompt, s->max_tokens, c->max_model_len);
    for (uint32_t k = 0; k < c->n_groups; k++) {
        if (sched_blocks_needed(c, k, s->n_prompt, s->max_tokens) + sched_blocks_aside(c, k) <=
            c->group[k].n_blocks)
            continue;
        uint64_t bytes = on_kv_bytes_needed(&b->port, s->n_prompt, s->max_tokens);
        return err_set(e, ERR_BUDGET,
                       "the request needs %llu bytes of KV cache, the budget holds %llu",
                       (unsigned long long)bytes, (unsigned long long)b->m->plan.kv_bytes);
    }
    status rc = check_queue(b, s, e);
    return rc == OK ? bridge_check_ttft(b, s, e) : rc;
}

/* The sampler forbids end tokens before min_tokens: the model's and the request's. */
static void fill_end_tokens(bridge *b, gen *g) {
    size_t n_eog, n = 0;
    const int32_t *eog = tokenizer_eog(b->m->tok, &n_eog);
    for (uint32_t i = 0; i < g->spec.n_stop_ids; i++) g->end_tokens[n++] = g->spec.stop_ids[i];
    for (size_t i = 0; i < n_eog && n < MAX_END_TOKENS && !g->spec.ignore_eos; i++)
        g->end_tokens[n++] = eog[i];
    g->job.sampling.end_tokens = g->end_tokens;
    g->job.sampling.n_end_tokens = (uint32_t)n;
}

/* What the grammar allows, and end tokens where its text may end. */
static void forbid_others(const gen *g, uint32_t *mask) {
    uint32_t n_end = 0;
    int32_t end[MAX_END_TOKENS];
    if (grammar_accepts_end(g->spec.grammar, g->spec.grammar_state))
        for (uint32_t i = 0; i < g->job.sampling.n_end_tokens; i++) {
            int32_t t = g->end_tokens[i];
            if (mask[t / 32] >> t % 32 & 1) end[n_end++] = t;
        }
    grammar_mask(g->spec.grammar, g->spec.grammar_state, g->masks, mask);
    for (uint32_t i = 0; i < n_end; i++) mask[end[i] / 32] |= 1u << end[i] % 32;
}

static void forbid(runner_job *job, uint32_t *mask) {
    const gen *g = (const gen *)job;
    bans_forbid(&g->bans, mask);
    if (g->spec.grammar) forbid_others(g, mask);
    const int32_t must = g->spec.think ? think_must(g->spec.think, &g->think) : -1;
    if (must < 0) return;
    memset(mask, 0, sampling_mask_words(tokenizer_n_vocab(g->tok)) * sizeof *mask);
    mask[must / 32] |= 1u << must % 32;
}
static void remember(runner_job *job, int32_t token) {
    gen *g = (gen *)job;
    bans_take(&g->bans, token);
    if (g->spec.grammar) grammar_take(g->spec.grammar, g->spec.grammar_state, token);
    if (g->spec.think) think_take(g->spec.think, &g->think, g->tok, token);
}

/* While guesses are looked at: one sequence at a time, the engine thread. */
static void keep_said(runner_job *job) {
    const gen *g = (const gen *)job;
    g->said->bans = g->bans;
    g->said->think = g->think;
    if (g->spec.grammar)
        memcpy(g->said + 1, g->spec.grammar_state, grammar_state_bytes(g->spec.grammar));
}
static void back_to_said(runner_job *job) {
    gen *g = (gen *)job;
    g->bans = g->said->bans;
    g->think = g->said->think;
    if (g->spec.grammar)
        memcpy(g->spec.grammar_state, g->said + 1, grammar_state_bytes(g->spec.grammar));
}
static bool nothing_follows(const runner_job *job) {
    const gen *g = (const gen *)job;
    return g->spec.grammar && !grammar_can_go_on(g->spec.grammar, g->spec.grammar_state);
}

static status on_submit(port *p, const gen_spec *s, gen **out, err *e) {
    bridge *b = (bridge *)p;
    if (check_space(b, s, e) != OK) return refuse(b, e);
    CHECK(s->n_prompt >= 1 && s->n_stop_ids <= SCHED_MAX_STOP_IDS);
    gen *g = b->free;
    b->free = g->next_free;
    b->n_live++;
    pthread_mutex_lock(&b->in_lock);
    *g = (gen){.spec = *s,
               .salt = bridge_salt(b, s->cache_salt),
               .base_salt = bridge_salt(b, s->base_salt),
               .leader_number = s->fork_of ? s->fork_of->number : 0,
               .job = {.sampling = s->sampling,
                       .n_first = s->n_first,
                       .n_score = (int8_t)s->sampling.n_logprobs,
                       .allowed = s->allowed},
               .bans = {.banned = s->banned, .n = s->n_banned},
               .masks = b->grammar.masks,
               .said = b->said,
               .tok = b->m->tok,
               .state = STATE_WAITING,
               .number = ++b->next_number,
               .submit_us = clock_us()};
    pthread_mutex_unlock(&b->in_lock);
    if (s->pooled)
        g->job.n_score = -1;
    else if (g->job.n_score < 0)
        g->job.n_score = 0;
    if (s->think) think_start(s->think, &g->think);
    if (s->n_banned || s->grammar || s->think) {
        g->job.allow = forbid, g->job.take = remember;
        g->job.keep = keep_said, g->job.back = back_to_said, g->job.over = nothing_follows;
    }
    if (s->weigh && energy_count() > 0) g->job.energy = &g->joules;
    g->job.guess = !s->no_guesses && s->max_tokens > 1;
    fill_end_tokens(b, g);
    b->waiting_tokens += s->n_prompt;
    *out = g;
    signal_gen(b, g, BRIDGE_SUBMIT, 0);
    release_busy(b);
    return OK;
}

static void on_cancel(port *p, gen *g, gen_finish why) {
    if (g->cancelled) return;
    g->cancelled = true;
    signal_gen((bridge *)p, g, BRIDGE_CANCEL, why);
}

static void on_credit(port *p, gen *g, uint32_t n) {
    signal_gen((bridge *)p, g, BRIDGE_CREDIT, n);
}

static void observe(bridge *b, histogram_id h, double v) {
    histogram_add(&b->counts.hist[h], h, v);
}

static double seconds(uint64_t from, uint64_t to) {
    return to > from ? (double)(to - from) / 1e6 : 0;
}

static void leave_queue(bridge *b, gen *g, uint64_t now) {
    if (g->admitted_us) return;
    g->admitted_us = now;
    b->waiting_tokens -= g->spec.n_prompt;
    observe(b, HIST_QUEUE, seconds(g->submit_us, now));
}

static void count_token(bridge *b, gen *g, uint64_t now) {
    if (!g->first_seen) {
        g->first_seen = true;
        g->first_us = now;
        observe(b, HIST_TTFT, seconds(g->submit_us, now));
        observe(b, HIST_PREFILL, seconds(g->admitted_us, now));
    } else {
        observe(b, HIST_ITL, seconds(g->last_us, now));
    }
    g->last_us = now;
    g->n_output++;
}

static gen_finish finish_of(sched_finish f) {
    switch (f) {
    case FINISH_STOP: return GEN_STOP;
    case FINISH_LENGTH: return GEN_LENGTH;
    case FINISH_TIMEOUT: return GEN_TIMEOUT;
    case FINISH_ERROR:
    case FINISH_NO_TOKEN:
    case FINISH_NOT_FINITE: return GEN_ERROR;
    default: return GEN_CANCELLED;
    }
}

static void count_cached(bridge *b, double part) {
    b->mean_cached += 0.1 * (part - b->mean_cached);
}

static void count_run(bridge *b, double s) {
    b->mean_run_s += (b->mean_run_s > 0 ? 0.1 : 1) * (s - b->mean_run_s);
}

static void end_gen(bridge *b, gen *g, const out_record *r, gen_event *ev) {
    err failed;
    gen_usage u = {.n_prompt = g->spec.n_prompt,
                   .n_output = r->ev.n_output,
                   .n_cached = r->ev.n_cached,
                   .n_loaded = r->ev.n_loaded,
                   .n_preemptions = r->ev.n_preemptions,
                   .peak_blocks = r->ev.peak_blocks,
                   .kv_peak_bytes = r->ev.peak_bytes,
                   .cost = g->cost,
                   .joules = g->job.energy ? g->joules : -1,
                   .miss = g->spec.explain ? &g->miss : NULL};
    if (g->admitted_us) count_run(b, seconds(g->admitted_us, r->now_us));
    leave_queue(b, g, r->now_us);
    u.queued_us = g->admitted_us - g->submit_us;
    u.first_token_us = g->first_seen ? g->first_us - g->submit_us : 0;
    u.ended_us = r->now_us > g->submit_us ? r->now_us - g->submit_us : 0;
    ev->end = true;
    ev->finish = finish_of(r->ev.finish);
    ev->stop_id = r->ev.finish == FINISH_STOP ? r->ev.stop_id : -1;
    ev->usage = &u;
    b->counts.finished[ev->finish]++;
    observe(b, HIST_E2E, seconds(g->submit_us, r->now_us));
    observe(b, HIST_INFERENCE, seconds(g->admitted_us, r->now_us));
    observe(b, HIST_PROMPT_TOKENS, g->spec.n_prompt);
    observe(b, HIST_OUTPUT_TOKENS, u.n_output);
    observe(b, HIST_MAX_TOKENS, g->spec.max_tokens);
    if (g->spec.n_choices) observe(b, HIST_PARAM_N, g->spec.n_choices);
    if (g->first_seen) observe(b, HIST_DECODE, seconds(g->first_us, r->now_us));
    if (ev->finish == GEN_ERROR) {
        if (r->ev.finish == FINISH_NO_TOKEN) {
            err_set(&failed, ERR_INVALID,
                    "no token is allowed after %u tokens of output by %sallowed_token_ids, "
                    "bad_words and logit_bias together",
                    r->ev.n_output, g->spec.grammar ? "the grammar, " : "");
            err_hint(&failed, "allow more tokens, or set max_tokens lower");
        } else if (r->ev.finish == FINISH_NOT_FINITE) {
            err_set(&failed, ERR_DEVICE, "the model's logits are not finite after %u tokens",
                    r->ev.n_output);
        } else {
            err_set(&failed, ERR_DEVICE, "the engine failed");
        }
        ev->error = &failed;
    }
    forget_in(b, g);
    g->spec.on_event(g->spec.user, ev);
    g->state = STATE_FREE;
    g->next_free = b->free;
    b->free = g;
    if (--b->n_live == 0) release_rest(b);
}

/* Delivers the tokens of one step from r[0] on, and the end that may follow. Returns how many
 * records were used. */
static uint32_t deliver_tokens(bridge *b, const out_record *r, uint32_t n) {
    gen *g = r->g;
    sampled run[1 + SCHED_MAX_DRAFT];
    uint32_t k = 0;
    /* Where the outbox was full in between, the rest comes with the next delivery. */
    for (; k < n && k < r->ev.n_tokens && r[k].g == g && r[k].ev.kind == EVENT_TOKEN; k++) {
        if (r[k].ev.n_output != r->ev.n_output) break;
        run[k] = r[k].token;
        count_token(b, g, r->now_us);
    }
    gen_event ev = {.token = run, .n_tokens = k, .n_cached = g->n_cached, .stop_id = -1};
    g->state = STATE_RUNNING;
    if (n > k && r[k].g == g && r[k].ev.kind == EVENT_ENDED) {
        end_gen(b, g, &r[k], &ev);
        return k + 1;
    }
    g->spec.on_event(g->spec.user, &ev);
    return k;
}

/* Delivers record i, and with it those of the same generation that follow at once. Returns how
 * many records were used. */
static uint32_t deliver(bridge *b, const out_record *r, uint32_t n) {
    gen *g = r->g;
    gen_event ev = {.stop_id = -1};
    switch (r->ev.kind) {
    case EVENT_ADMITTED:
        g->state = STATE_RUNNING;
        g->n_cached = r->ev.n_cached;
        count_cached(b, (double)g->n_cached / g->spec.n_prompt);
        leave_queue(b, g, r->now_us);
        return 1;
    case EVENT_LOADED: g->n_cached = r->ev.n_cached; return 1;
    case EVENT_PREEMPTED: g->state = STATE_PREEMPTED; return 1;
    case EVENT_PREFILLED:
        ev.prompt_score = &r->token;
        ev.n_scored = 1;
        ev.first_scored = r->scored_pos;
        g->spec.on_event(g->spec.user, &ev);
        return 1;
    case EVENT_TOKEN: return deliver_tokens(b, r, n);
    case EVENT_ENDED: end_gen(b, g, r, &ev); return 1;
    }
    return 1;
}

static void tell_loaded(bridge *b) {
    int was = atomic_load(&b->load_state);
    if (was != LOADED && was != FAILED) return;
    if (was == LOADED) {
        b->port.tok = b->m->tok;
        b->port.chat = b->m->words ? &b->m->words->chat : &b->m->chat;
        b->port.defaults = &b->m->sampling;
        b->port.index = b->grammar.index;
        atomic_store(&b->load_state, READY);
    }
    b->loaded(b->arg, b->load_status, &b->load_error);
    release_rest(b);
}

static void on_async(uv_async_t *a) {
    bridge *b = a->data;
    tell_loaded(b);
    resize_collect(b);
    forget_collect(b);
    release_collect(b);
    for (;;) {
        pthread_mutex_lock(&b->out_lock);
        uint32_t n = b->n_out;
        out_record *r = b->out[b->filling];
        b->filling ^= 1;
        b->n_out = 0;
        pthread_cond_signal(&b->out_space);
        pthread_mutex_unlock(&b->out_lock);
        if (n == 0) break;
        for (uint32_t i = 0; i < n;) i += deliver(b, &r[i], n - i);
        b->flushed(b->arg);
    }
}

static bool on_offload(port *p, void (*work)(void *), void (*done)(void *), void *arg) {
    return offload_run(&((bridge *)p)->offloads, work, done, arg);
}

static status on_plan(port *p, const json_t *body, buf *out, err *e) {
    return plan_answer_request(out, ((bridge *)p)->m, body, e);
}

static const port_ops ops = {.submit = on_submit,
                             .cancel = on_cancel,
                             .credit = on_credit,
                             .stats = bridge_stats,
                             .sequences = bridge_sequences,
                             .picture = bridge_picture,
                             .kv_bytes_needed = on_kv_bytes_needed,
                             .retry_after_s = bridge_retry_after,
                             .not_ready = bridge_not_ready,
                             .offload = on_offload,
                             .device_memory = bridge_device_memory,
                             .ranks = bridge_ranks,
                             .resize = release_resize,
                             .plan = on_plan,
                             .forget = forget_want};

/* ---- life ---- */

static uint32_t count_gens(const machine *m) {
    return m->opt.max_num_seqs + m->opt.max_waiting;
}
/* Room for some steps' events: the engine waits where the loop falls further behind. */
static uint32_t count_records(const machine *m) {
    return 8 * m->opt.max_num_seqs + m->engine_opt.max_logit_rows + 64;
}
static uint64_t picture_bytes(const machine *m) {
    return m->opt.web_page ? align_up(sizeof(kv_picture), 64) : 0;
}

/* What of a sequence its grammar and bans know, and the state of its grammar. */
static uint64_t said_bytes(const machine *m) {
    return m->engine_opt.max_draft ? align_up(sizeof(said) + grammar_state_bytes(NULL), 64) : 0;
}

static uint64_t bridge_bytes(const machine *m) {
    return align_up(sizeof(bridge), 64) + align_up(count_gens(m) * sizeof(gen), 64) +
           2 * align_up(count_records(m) * sizeof(out_record), 64) +
           2 * align_up(m->opt.max_num_seqs * sizeof(sched_id), 64) + picture_bytes(m) +
           said_bytes(m);
}

void bridge_terms(const machine *m, terms *t) {
    terms_add(t, MEM_SCHEDULER, TERM_EXACT, bridge_bytes(m), "%u generations, outbox%s",
              count_gens(m), m->opt.web_page ? ", picture of KV blocks" : "");
    grammar_memory_terms(m, t);
}

status bridge_open(bridge **out, uv_loop_t *loop, machine *m, void (*flushed)(void *),
                   void (*loaded)(void *, status, const err *), void *arg, err *e) {
    void *mem;
    status s = ledger_alloc(m->ledger, &mem, MEM_SCHEDULER, bridge_bytes(m), "generations", e);
    if (s != OK) return s;
    grammar_memory grammar;
    s = grammar_memory_open(&grammar, m, e);
    if (s != OK) {
        grammar_memory_close(&grammar);
        ledger_free(m->ledger, mem);
        return s;
    }
    bridge *b = mem;
    char *at = (char *)mem + align_up(sizeof *b, 64);
    b->m = m;
    b->grammar = grammar;
    b->loop = loop;
    b->flushed = flushed;
    b->loaded = loaded;
    b->arg = arg;
    b->offloads = (offloads){.loop = loop, .pool = m->pool, .flushed = flushed, .arg = arg};
    b->n_gens = count_gens(m);
    b->all = (gen *)at;
    at += align_up(b->n_gens * sizeof(gen), 64);
    for (uint32_t i = b->n_gens; i-- > 0;) b->all[i].next_free = b->free, b->free = &b->all[i];
    b->out_cap = count_records(m);
    for (int i = 0; i < 2; i++, at += align_up(b->out_cap * sizeof(out_record), 64))
        b->out[i] = (out_record *)at;
    b->full = (sched_id *)at;
    at += align_up(m->opt.max_num_seqs * sizeof(sched_id), 64);
    b->complete = (sched_id *)at;
    at += align_up(m->opt.max_num_seqs * sizeof(sched_id), 64);
    b->picture = picture_bytes(m) ? (kv_picture *)at : NULL;
    at += picture_bytes(m);
    b->said = (said *)at;
    pthread_mutex_init(&b->in_lock, NULL);
    pthread_mutex_init(&b->out_lock, NULL);
    pthread_mutex_init(&b->stats_lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&b->in_wake, &attr);
    pthread_cond_init(&b->out_space, NULL);
    pthread_condattr_destroy(&attr);
    b->port = (port){.ops = &ops,
                     .card = {.id = m->name,
                              .names = m->names,
                              .config = &m->model->program.config,
                              .created = (uint64_t)time(NULL),
                              .n_params = m->n_params,
                              .weight_bytes = m->weight_bytes,
                              .max_model_len = m->opt.max_model_len,
                              .pooling = m->pooling,
                              .speculates = m->engine_opt.max_draft > 0},
                     .ledger = m->ledger,
                     .device_ledger = m->device_ledger,
                     .device = m->device,
                     .pool = m->pool,
                     .grammars = b->grammar.grammars,
                     .kv_bytes = m->plan.kv_bytes,
                     .max_gens = m->opt.max_num_seqs + m->opt.max_waiting,
                     .max_running = m->opt.max_num_seqs};
    uv_async_init(loop, &b->async, on_async);
    b->async.data = b;
    resize_open(b);
    release_open(b);
    *out = b;
    return OK;
}

status bridge_start(bridge *b, err *e) {
    const int rc = thread_start(&b->thread, bridge_engine_main, b);
    if (rc != 0)
        return err_set(e, ERR_NO_MEMORY, "the engine thread cannot start (class runtime): %s",
                       strerror(rc));
    b->started = true;
    return OK;
}

port *bridge_port(bridge *b) {
    return &b->port;
}

void bridge_take_turns(bridge *b, turns *t, uint32_t who) {
    b->turns = t;
    b->who = who;
}

status bridge_watch(bridge *b, const pressure *source, err *e) {
    return release_watch(b, source, e);
}

void bridge_drain(bridge *b) {
    b->draining = true;
}

void bridge_join(bridge *b) {
    if (!b->started) return;
    pthread_mutex_lock(&b->in_lock);
    b->quit = true;
    pthread_cond_signal(&b->in_wake);
    pthread_mutex_unlock(&b->in_lock);
    pthread_join(b->thread, NULL);
    b->started = false;
}

void bridge_stop(bridge *b) {
    bridge_join(b);
    CHECK(b->n_live == 0);
    uv_close((uv_handle_t *)&b->async, NULL);
    resize_close(b);
    release_close(b);
}

void bridge_free(bridge *b) {
    pthread_mutex_destroy(&b->in_lock);
    pthread_mutex_destroy(&b->out_lock);
    pthread_mutex_destroy(&b->stats_lock);
    pthread_cond_destroy(&b->in_wake);
    pthread_cond_destroy(&b->out_space);
    grammar_memory_close(&b->grammar);
    ledger_free(b->m->ledger, b);
}
