/* Steps: scheduler -> batch -> engine -> commit -> events. Owned and run by one thread. */
#include "daemon/bridge/runner.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/step_log.h"

/* LONG_IDLE_US: a first step after so long is no measure of the others: caches are cold. */
enum { MAX_DEPTH = 2, MAX_RUN = 1 + SCHED_MAX_DRAFT, LONG_IDLE_US = 1000000 };

/* A step on its way: what the engine borrows until it is collected. */
typedef struct flight {
    const sched_step *step;
    batch_seq *seq;                /* [max_seqs] */
    block_copy *copies;            /* [sched_max_copies] */
    batch_checkpoint *checkpoints; /* [n_checkpoints] */
    uint64_t launched_us;
    bool submitted;
} flight;

struct runner {
    sched *sched;
    step_log *log; /* NULL: none */
    engine *engine;
    runner_callback *callback;
    void *arg;
    uint32_t depth, n_groups, n_flights, first;
    bool states; /* the model has recurrent layers */
    flight flight[MAX_DEPTH];
    uint32_t *logit_row; /* [max_seqs]: first logit row of each entry of the committed step */
    int32_t *token;      /* [max_seqs][MAX_RUN] */
    uint32_t *n_tokens;  /* [max_seqs] */
    uint32_t *masks;     /* [max_seqs][mask_words]: by slot, of jobs with allow */
    uint32_t mask_words, n_vocab;
    uint32_t last_rows, last_tokens;
    uint64_t committed_us; /* when the last step was */
    bool idle;             /* nothing was there to do since */
    err error;
};

static size_t part(size_t n, size_t item) {
    return align_up(n * item, 64);
}

/* Checkpoints of recurrent states that a step may have. */
static size_t most_checkpoints(const sched_config *c) {
    return c->state_slots ? c->state_slots - c->max_seqs : 0;
}

size_t runner_bytes(const sched_config *c, uint32_t n_vocab) {
    return align_up(sizeof(runner), 64) + MAX_DEPTH * part(c->max_seqs, sizeof(batch_seq)) +
           MAX_DEPTH * part(sched_max_copies(c), sizeof(block_copy)) +
           MAX_DEPTH * part(most_checkpoints(c), sizeof(batch_checkpoint)) +
           part(c->max_seqs, sizeof(uint32_t)) +
           part((size_t)c->max_seqs * MAX_RUN, sizeof(int32_t)) +
           part(c->max_seqs, sizeof(uint32_t)) +
           part((size_t)c->max_seqs * sampling_mask_words(n_vocab), sizeof(uint32_t));
}

runner *runner_init(void *mem, const sched_config *c, uint32_t n_vocab, sched *s, engine *en,
                    runner_callback *callback, void *arg) {
    runner *r = mem;
    char *at = (char *)mem + align_up(sizeof *r, 64);
    engine_info info;
    engine_describe(en, &info);
    CHECK(info.depth >= 1);
    *r = (runner){
        .sched = s, .engine = en, .callback = callback, .arg = arg, .n_groups = c->n_groups};
    r->idle = true;
    r->states = c->state_slots > 0;
    r->depth = info.depth < MAX_DEPTH ? info.depth : MAX_DEPTH;
    for (int i = 0; i < MAX_DEPTH; i++) {
        r->flight[i].seq = (batch_seq *)at;
        at += part(c->max_seqs, sizeof(batch_seq));
        r->flight[i].copies = (block_copy *)at;
        at += part(sched_max_copies(c), sizeof(block_copy));
        r->flight[i].checkpoints = (batch_checkpoint *)at;
        at += part(most_checkpoints(c), sizeof(batch_checkpoint));
    }
    r->logit_row = (uint32_t *)at;
    at += part(c->max_seqs, sizeof(uint32_t));
    r->token = (int32_t *)at;
    at += part((size_t)c->max_seqs * MAX_RUN, sizeof(int32_t));
    r->n_tokens = (uint32_t *)at;
    at += part(c->max_seqs, sizeof(uint32_t));
    r->masks = (uint32_t *)at;
    r->mask_words = sampling_mask_words(n_vocab);
    r->n_vocab = n_vocab;
    return r;
}

void runner_set_log(runner *r, step_log *log) {
    r->log = log;
}

const err *runner_last_error(const runner *r) {
    return &r->error;
}

/* What the rows of a prompt gave, of which the last n_logit_rows have logits. */
static void show_rows(const runner *r, const sched_event *ev, const sched_step_seq *q,
                      const step_result *res, const runner_job *job, runner_event *e) {
    const uint32_t row = r->logit_row[ev->entry];
    if (q->score && job->n_score >= 0) {
        /* A row scores the token after it; the prompt's last row has none. */
        bool last = ev->first_pos + ev->n_rows >= q->n_prompt;
        e->scored = res->scored + row;
        e->n_scored = ev->n_rows - (last ? 1 : 0);
        e->first_scored = ev->first_pos + 1;
        if (res->logits) e->logits = res->logits + (size_t)row * r->n_vocab;
    }
    if (!res->hidden) return;
    e->hidden = res->hidden + (size_t)row * res->n_embd;
    e->n_hidden = q->n_logit_rows;
    e->n_embd = res->n_embd;
}

/* st, res: the step just committed and what it gave, or NULL for events outside a commit. */
static void deliver(runner *r, const sched_step *st, const step_result *res, uint64_t now) {
    const sched_event *ev;
    size_t n = sched_events(r->sched, &ev);
    for (size_t i = 0; i < n; i++) {
        runner_event e = {.event = &ev[i], .now_us = now};
        runner_job *job = (runner_job *)(uintptr_t)ev[i].user;
        if (res && ev[i].kind == EVENT_TOKEN)
            e.token = &res->token[(size_t)ev[i].entry * res->max_run];
        for (uint32_t k = 0; e.token && job->take && k < ev[i].n_tokens; k++)
            job->take(job, e.token[k].token);
        if (res && ev[i].kind == EVENT_PREFILLED)
            show_rows(r, &ev[i], &st->seq[ev[i].entry], res, job, &e);
        r->callback(r->arg, &e);
    }
}

void runner_deliver(runner *r) {
    deliver(r, NULL, NULL, clock_us());
}

/* The tokens that the next row of a job may draw. In lockstep no other row of the slot is in
 * flight, so that its mask may be written again. */
static const uint32_t *mask_of(const runner *r, const sched_step_seq *q, runner_job *job) {
    if (!q->sample || !job->allow) return job->allowed;
    CHECK(q->input_from < 0);
    const size_t bytes = r->mask_words * sizeof *r->masks;
    uint32_t *mask = r->masks + (size_t)q->slot * r->mask_words;
    if (job->allowed)
        memcpy(mask, job->allowed, bytes);
    else
        memset(mask, 0xff, bytes);
    job->allow(job, mask);
    return mask;
}

static void fill_seq(const runner *r, const sched_step_seq *q, batch_seq *b) {
    runner_job *job = (runner_job *)(uintptr_t)q->user;
    *b = (batch_seq){.first_row = q->first_row,
                     .n_rows = q->n_rows,
                     .first_pos = q->first_pos,
                     .tokens = sched_tokens(r->sched, q->slot),
                     .input_from = q->input_from,
                     .n_logit_rows = q->n_logit_rows,
                     .sample = q->sample,
                     .n_score = q->score ? job->n_score : -1,
                     .params = q->sample ? &job->sampling : NULL,
                     .allowed = mask_of(r, q, job),
                     .n_prompt = q->n_prompt,
                     .n_first = job->n_first,
                     .state = q->state};
    CHECK(!r->states || q->n_draft == 0); /* states are not undone behind the newest chunk */
    for (uint32_t g = 0; g < r->n_groups; g++) {
        b->blocks[g] = sched_blocks(r->sched, q->slot, g);
        b->n_blocks[g] = q->n_blocks;
    }
}

static block_copy copy_of(const runner *r, const sched_step_copy *c) {
    const bool state = c->group == SCHED_COPY_STATE;
    CHECK(state ? r->states : c->group < r->n_groups);
    return (block_copy){c->from, c->to, state ? (uint32_t)ENGINE_COPY_STATE : c->group};
}

/* Those of an entry stand one after the other. */
static void fill_checkpoints(const sched_step *st, flight *f) {
    for (uint32_t i = 0; i < st->n_checkpoints; i++) {
        const sched_step_checkpoint *c = &st->checkpoint[i];
        batch_seq *b = &f->seq[c->entry];
        f->checkpoints[i] = (batch_checkpoint){c->n_tokens, c->state};
        if (b->n_checkpoints++ == 0) b->checkpoints = &f->checkpoints[i];
    }
}

/* Plans and submits one step. False when there is nothing to plan. */
static bool launch(runner *r) {
    uint64_t now = clock_us();
    const sched_step *st = logged_plan(r->log, r->sched, now);
    deliver(r, NULL, NULL, now); /* deadlines and preemptions become events at planning */
    if (!st) return false;
    flight *f = &r->flight[(r->first + r->n_flights++) % MAX_DEPTH];
    f->step = st;
    f->launched_us = now;
    for (uint32_t i = 0; i < st->n_seqs; i++) fill_seq(r, &st->seq[i], &f->seq[i]);
    for (uint32_t i = 0; i < st->n_copies; i++) f->copies[i] = copy_of(r, &st->copy[i]);
    fill_checkpoints(st, f);
    batch b = {f->seq, st->n_seqs, st->n_rows, st->n_logit_rows, f->copies, st->n_copies};
    f->submitted = engine_submit(r->engine, &b, &r->error) == OK;
    return true;
}

/* The tokens of each entry's run. */
static sched_step_tokens take_runs(runner *r, const sched_step *st, const step_result *res) {
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        const sampled *run = res->token + (size_t)i * res->max_run;
        r->n_tokens[i] = !st->seq[i].sample ? 0 : res->n_tokens ? res->n_tokens[i] : 1;
        CHECK(r->n_tokens[i] <= MAX_RUN);
        for (uint32_t k = 0; k < r->n_tokens[i]; k++)
            r->token[(size_t)i * MAX_RUN + k] = run[k].token;
    }
    return (sched_step_tokens){.token = r->token, .n = r->n_tokens, .stride = MAX_RUN};
}

/* The scheduler learns what a step took: from the commit before it, since that is what a client
 * waits for, or from its launch where nothing ran before. */
static void observe(runner *r, const flight *f, uint64_t now) {
    const uint64_t from = r->idle ? f->launched_us : r->committed_us;
    if (!r->idle || f->launched_us - r->committed_us < LONG_IDLE_US)
        logged_observe(r->log, r->sched, f->step, now > from ? now - from : 0);
    r->committed_us = now;
    r->idle = false;
}

bool runner_step(runner *r) {
    while (r->n_flights < r->depth && launch(r)) {
    }
    if (r->n_flights == 0) {
        r->idle = true;
        return false;
    }
    flight *f = &r->flight[r->first];
    step_result res;
    bool ok = f->submitted && engine_collect(r->engine, &res, &r->error) == OK;
    const sched_step *st = f->step;
    r->last_rows = r->last_tokens = st->n_rows;
    for (uint32_t i = st->n_decode_seqs; i < st->n_seqs; i++)
        r->last_tokens += st->seq[i].sample;
    uint32_t rows = 0;
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        r->logit_row[i] = rows;
        rows += st->seq[i].n_logit_rows;
    }
    if (!ok) log_error("step %llu failed: %s", (unsigned long long)st->number, r->error.text);
    uint64_t now = clock_us();
    if (ok) observe(r, f, now);
    logged_now(r->log, r->sched, now);
    sched_step_tokens tokens = ok ? take_runs(r, st, &res) : (sched_step_tokens){0};
    logged_commit(r->log, r->sched, st, ok ? &tokens : NULL);
#ifndef NDEBUG
    sched_audit(r->sched);
#endif
    r->first = (r->first + 1) % MAX_DEPTH;
    r->n_flights--;
    deliver(r, st, ok ? &res : NULL, now);
    return true;
}

uint32_t runner_last_rows(const runner *r) {
    return r->last_rows;
}

uint32_t runner_last_tokens(const runner *r) {
    return r->last_tokens;
}
