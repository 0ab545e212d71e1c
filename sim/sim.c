/* The loop of the daemon's engine thread without a thread: collect, commit, take what has
 * arrived meanwhile, plan, submit; the clock jumps from one event to the next. */
#include "sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "scheduler/heap.h"
#include "sim/fake.h"

/* Own prompts and texts: so many of each differ from the first token on. */
enum { DEFAULT_VOCAB = 32000, PROMPT_VARIETY = 1021 };

typedef struct sim {
    const sim_config *cfg;
    const sim_arrival *arrival;
    uint32_t n, n_vocab, next_arrival;
    sim_request *request;
    sim_totals *totals;
    void *mem;
    sched *s;
    fake_engine *engine;
    int32_t *prompts;        /* prompt_of says where in it a prompt starts */
    int32_t *zeroes;         /* [max_seqs] tokens without verify */
    sched_step_tokens drawn; /* by the step committed last */
    uint64_t *past;          /* [n] what each text must go on from */
    uint64_t *last_us;       /* [n] of its newest token */
    sched_id *id;            /* [n] */
    heap cancels;            /* of requests */
    uint64_t now_us, busy_until_us;
    uint64_t done_us[2]; /* when the steps in flight will be done, the oldest first ... */
    uint64_t took_us[2]; /* ... and how long they take */
    const sched_step *flying[2];
    uint32_t n_flying;
} sim;

double step_time_us(const step_time *t, const sched_step *st) {
    double n_kv = 0, rows = t->b * st->n_rows;
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        n_kv += (double)st->seq[i].first_pos + st->seq[i].n_rows;
    }
    return (rows > t->a ? rows : t->a) + t->c * n_kv + t->d * st->n_seqs;
}

static void take_token(sim *m, const sched_event *e) {
    uint64_t i = e->user;
    sim_request *r = &m->request[i];
    const int32_t *run = m->drawn.token + (size_t)e->entry * m->drawn.stride;
    for (uint32_t k = 0; m->cfg->verify && k < e->n_tokens; k++) {
        CHECK(run[k] == fake_next(m->past[i], m->n_vocab));
        m->past[i] = fake_extend(m->past[i], run[k]);
    }
    if (r->first_token_us == 0) {
        r->first_token_us = m->now_us;
    } else if (m->now_us - m->last_us[i] > r->max_gap_us) {
        r->max_gap_us = m->now_us - m->last_us[i];
    }
    m->last_us[i] = m->now_us;
    r->n_output += e->n_tokens;
    CHECK(e->n_output == r->n_output);
}

/* After every call of the scheduler. */
static void take_events(sim *m) {
    const sched_event *e;
    size_t n = sched_events(m->s, &e);
    for (; n > 0; n--, e++) {
        sim_request *r = &m->request[e->user];
        CHECK(e->id == m->id[e->user] && r->finish == FINISH_NONE);
        switch (e->kind) {
        case EVENT_ADMITTED:
            r->admitted_us = m->now_us;
            r->admitted_step = m->totals->n_steps;
            r->n_cached = e->n_cached;
            break;
        case EVENT_TOKEN: take_token(m, e); break;
        case EVENT_ENDED:
            r->finish = e->finish;
            r->ended_us = m->now_us;
            r->ended_step = m->totals->n_steps;
            r->n_preemptions = e->n_preemptions;
            r->peak_blocks = e->peak_blocks;
            m->totals->n_ended++;
            heap_remove(&m->cancels, (uint32_t)e->user);
            break;
        case EVENT_PREEMPTED:
        case EVENT_LOADED:
        case EVENT_PREFILLED: break;
        }
    }
    if (m->cfg->audit) sched_audit(m->s);
}

/* First the requests' own prompts, then texts. */
static const int32_t *prompt_of(const sim *m, uint32_t i) {
    while (m->arrival[i].fork_of) i = m->arrival[i].fork_of - 1;
    const uint32_t text = m->arrival[i].text;
    return m->prompts + (text ? PROMPT_VARIETY + text % PROMPT_VARIETY : i % PROMPT_VARIETY);
}

static void take_arrivals(sim *m) {
    for (; m->next_arrival < m->n && m->arrival[m->next_arrival].at_us <= m->now_us;
         m->next_arrival++) {
        uint32_t i = m->next_arrival;
        const sim_arrival *a = &m->arrival[i];
        sched_spec spec = {.prompt = prompt_of(m, i),
                           .n_prompt = a->n_prompt,
                           .max_tokens = a->max_tokens,
                           .priority = a->priority,
                           .deadline_us = a->timeout_us ? a->at_us + a->timeout_us : 0,
                           .salt = a->salt,
                           .fork_of = a->fork_of ? m->id[a->fork_of - 1] : 0,
                           .tenant = a->tenant,
                           .user = i};
        m->request[i].rejected = sched_submit(m->s, &spec, m->now_us, &m->id[i]);
        take_events(m);
        if (m->request[i].rejected != REJECT_NONE) {
            m->totals->n_rejected++;
            continue;
        }
        if (m->cfg->verify) m->past[i] = fake_start(spec.prompt, spec.n_prompt);
        if (a->cancel_after_us) heap_add(&m->cancels, i, a->at_us + a->cancel_after_us, i);
    }
    while (m->cancels.n > 0 && m->cancels.node[0].key <= m->now_us) {
        uint32_t i = m->cancels.node[0].item;
        heap_remove(&m->cancels, i);
        sched_cancel(m->s, m->id[i], FINISH_CANCELLED);
        take_events(m);
    }
}

/* Plans and submits as many steps as may be in flight. */
static void fill(sim *m) {
    while (m->n_flying < m->cfg->depth) {
        const sched_step *st = sched_plan(m->s, m->now_us);
        take_events(m);
        if (!st) return;
        m->totals->plan_hash =
            hash64(st->seq, st->n_seqs * sizeof *st->seq, m->totals->plan_hash ^ st->number);
        m->totals->n_rows += st->n_rows;
        m->totals->n_decode_rows += st->n_decode_rows;
        if (m->cfg->verify) fake_submit(m->engine, m->s, st);
        uint64_t start = m->busy_until_us > m->now_us ? m->busy_until_us : m->now_us;
        m->busy_until_us = start + (uint64_t)step_time_us(&m->cfg->time, st) + 1;
        m->done_us[m->n_flying] = m->busy_until_us;
        m->took_us[m->n_flying] = m->busy_until_us - start;
        m->flying[m->n_flying++] = st;
    }
}

static void collect(sim *m) {
    m->now_us = m->done_us[0];
    const sched_step *st = m->flying[0];
    if (m->cfg->verify) CHECK(fake_collect(m->engine, m->s, &m->drawn) == st);
    m->totals->n_steps++;
    sched_observe(m->s, st, m->took_us[0]);
    sched_commit(m->s, st, &m->drawn);
    take_events(m);
    m->done_us[0] = m->done_us[1];
    m->took_us[0] = m->took_us[1];
    m->flying[0] = m->flying[1];
    m->n_flying--;
}

static void run(sim *m) {
    for (;;) {
        take_arrivals(m);
        fill(m);
        if (m->n_flying > 0) {
            collect(m);
        } else if (m->next_arrival < m->n) {
            m->now_us = m->arrival[m->next_arrival].at_us;
        } else {
            break;
        }
    }
    sched_stats st;
    sched_read(m->s, &st);
    CHECK(st.n_waiting + st.n_running + st.n_preempted == 0);
    CHECK(st.blocks_used + st.blocks_fenced == 0);
    CHECK(m->totals->n_ended + m->totals->n_rejected == m->n);
    m->totals->makespan_us = m->now_us;
    m->totals->n_preemptions = st.count.preemptions;
    m->totals->n_recomputed_tokens = st.count.recomputed_tokens;
    m->totals->n_prompt_tokens = st.count.prompt_tokens;
    m->totals->n_output_tokens = st.count.generated_tokens;
}

static status open_arrays(sim *m, err *e) {
    const sched_config *c = &m->cfg->sched;
    size_t bytes = sched_bytes(c), n_prompts = (size_t)c->max_model_len + 2 * PROMPT_VARIETY;
    if (bytes == 0 || m->cfg->depth < 1 || m->cfg->depth > 2) {
        return err_set(e, ERR_INVALID, "the simulator's configuration is not valid");
    }
    m->mem = aligned_alloc(64, bytes);
    m->prompts = malloc(n_prompts * sizeof *m->prompts);
    m->zeroes = calloc(c->max_seqs, sizeof *m->zeroes);
    m->drawn = (sched_step_tokens){.token = m->zeroes, .stride = 1};
    m->past = calloc(m->n + 1, sizeof *m->past);
    m->last_us = calloc(m->n + 1, sizeof *m->last_us);
    m->id = calloc(m->n + 1, sizeof *m->id);
    m->cancels.n_items = m->n;
    m->cancels.node = calloc(m->n + 1, sizeof *m->cancels.node);
    m->cancels.at = calloc(m->n + 1, sizeof *m->cancels.at);
    if (!m->mem || !m->prompts || !m->zeroes || !m->past || !m->last_us || !m->id ||
        !m->cancels.node || !m->cancels.at) {
        return err_set(e, ERR_NO_MEMORY, "no memory for the simulator");
    }
    for (size_t i = 0; i < n_prompts; i++) {
        m->prompts[i] = (int32_t)(hash_mix(i) % m->n_vocab);
    }
    heap_init(&m->cancels);
    m->s = sched_init(m->mem, c);
    return m->cfg->verify ? fake_open(&m->engine, c, m->n_vocab, e) : OK;
}

status sim_run(const sim_config *cfg, const sim_arrival *arrivals, uint32_t n,
               sim_request *requests, sim_totals *totals, err *e) {
    sim m = {.cfg = cfg,
             .arrival = arrivals,
             .n = n,
             .n_vocab = cfg->n_vocab ? cfg->n_vocab : DEFAULT_VOCAB,
             .request = requests,
             .totals = totals};
    status rc = OK;
    for (uint32_t i = 0; i < n; i++) {
        const sim_arrival *a = &arrivals[i];
        if (i > 0 && a->at_us < arrivals[i - 1].at_us)
            return err_set(e, ERR_INVALID, "arrival %u is earlier than the one before", i);
        if (a->fork_of == 0) continue;
        const sim_arrival *l = &arrivals[a->fork_of - 1];
        if (a->fork_of > i || a->n_prompt != l->n_prompt || a->text != l->text ||
            a->salt != l->salt)
            return err_set(e, ERR_INVALID, "arrival %u is no fork of an earlier one", i);
    }
    memset(requests, 0, n * sizeof *requests);
    *totals = (sim_totals){0};
    rc = open_arrays(&m, e);
    if (rc != OK) goto done;
    run(&m);
done:
    fake_close(m.engine);
    free(m.mem);
    free(m.prompts);
    free(m.zeroes);
    free(m.past);
    free(m.last_us);
    free(m.id);
    free(m.cancels.node);
    free(m.cancels.at);
    return rc;
}
