/* Steps: scheduler -> batch -> engine -> commit -> events. Owned and run by one thread. */
#include "daemon/bridge/runner.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/energy.h"
#include "base/log.h"
#include "daemon/bridge/draft_run.h"
#include "daemon/bridge/drafter.h"
#include "daemon/step_log.h"

/* LONG_IDLE_US: a first step after so long is no measure of the others: caches are cold. */
enum { MAX_DEPTH = 2, MAX_RUN = 1 + SCHED_MAX_DRAFT, LONG_IDLE_US = 1000000 };

/* A step on its way: what the engine borrows until it is collected. */
typedef struct flight {
    const sched_step *step;
    batch_seq *seq;                    /* [max_seqs] */
    block_copy *copies;                /* [sched_max_copies] */
    batch_checkpoint *checkpoints;     /* [n_checkpoints] */
    uint64_t launched_us, guessing_us; /* guessing_us: of the time since, for the draft model */
    bool submitted;
    bool weighed;  /* some sequence asks for its energy ... */
    double joules; /* ... and what had been used when the step was launched */
} flight;

/* A sequence that the committed step drew a token of, and whose next ones may be guessed. */
typedef struct guessed {
    sched_id id;
    runner_job *job; /* while the scheduler has the sequence */
    uint32_t slot, n_text;
} guessed;

struct runner {
    sched *sched;
    step_log *log; /* NULL: none */
    engine *engine;
    runner_callback *callback;
    void *arg;
    uint32_t depth, n_groups, n_flights, first;
    bool states;          /* the model has recurrent layers, ... */
    uint32_t state_chunk; /* ... whose states go back within a chunk of so many tokens */
    flight flight[MAX_DEPTH];
    uint32_t *logit_row; /* [max_seqs]: first logit row of each entry of the committed step */
    int32_t *token;      /* [max_seqs][MAX_RUN] */
    uint32_t *n_tokens;  /* [max_seqs] */
    /* [max_seqs][1 + max_draft][mask_words]: by slot, of jobs with allow; with guesses they are
     * filled before the step is planned */
    uint32_t *masks;
    uint32_t max_draft;
    drafter *drafter; /* NULL: nothing is guessed */
    draft_run *draft; /* NULL: there is no draft model */
    uint32_t draft_group;
    bool looks_up;
    guessed *guessed; /* [max_seqs] */
    bool *by_model;   /* [max_seqs]: a slot's last guesses are the draft model's */
    uint32_t n_guessed,
        n_decoding;         /* n_decoding: sequences that drew, and may draw again ... */
    double decoding_tokens; /* ... and what they know */
    uint32_t mask_words, n_vocab;
    uint32_t last_rows, last_tokens;
    uint64_t committed_us; /* when the last step was */
    double joules;         /* used up to the last step that was weighed */
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

static size_t masks_bytes(const sched_config *c, uint32_t n_vocab, uint32_t max_draft) {
    return part((size_t)c->max_seqs * (1 + max_draft) * sampling_mask_words(n_vocab),
                sizeof(uint32_t));
}

size_t runner_bytes(const sched_config *c, uint32_t n_vocab, uint32_t max_draft) {
    return align_up(sizeof(runner), 64) + MAX_DEPTH * part(c->max_seqs, sizeof(batch_seq)) +
           MAX_DEPTH * part(sched_max_copies(c), sizeof(block_copy)) +
           MAX_DEPTH * part(most_checkpoints(c), sizeof(batch_checkpoint)) +
           part(c->max_seqs, sizeof(uint32_t)) +
           part((size_t)c->max_seqs * MAX_RUN, sizeof(int32_t)) +
           part(c->max_seqs, sizeof(uint32_t)) + masks_bytes(c, n_vocab, max_draft) +
           (max_draft ? part(c->max_seqs, sizeof(guessed)) + part(c->max_seqs, sizeof(bool)) +
                            drafter_bytes(c->max_seqs)
                      : 0);
}

runner *runner_init(void *mem, const sched_config *c, uint32_t n_vocab, uint32_t max_draft,
                    sched *s, engine *en, runner_callback *callback, void *arg) {
    runner *r = mem;
    char *at = (char *)mem + align_up(sizeof *r, 64);
    engine_info info;
    engine_describe(en, &info);
    CHECK(info.depth >= 1);
    *r = (runner){
        .sched = s, .engine = en, .callback = callback, .arg = arg, .n_groups = c->n_groups};
    r->idle = true;
    r->states = c->state_slots > 0;
    r->state_chunk = c->state_chunk;
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
    r->max_draft = max_draft;
    if (max_draft == 0) return r;
    CHECK(r->depth == 1);
    at += masks_bytes(c, n_vocab, max_draft);
    r->guessed = (guessed *)at;
    at += part(c->max_seqs, sizeof(guessed));
    r->by_model = (bool *)at;
    at += part(c->max_seqs, sizeof(bool));
    r->looks_up = true;
    r->drafter = drafter_init(at, c->max_seqs, max_draft);
    return r;
}

void runner_set_log(runner *r, step_log *log) {
    r->log = log;
}

void runner_set_draft(runner *r, draft_run *d, uint32_t group, bool looks_up) {
    CHECK(r->drafter && group < r->n_groups);
    r->draft = d;
    r->draft_group = group;
    r->looks_up = looks_up;
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

/* It drew a token and goes on. */
static void note_drawn(runner *r, const sched_event *ev, const sched_step_seq *q,
                       runner_job *job) {
    const uint32_t n_text = q->n_prompt + ev->n_output;
    r->n_decoding++;
    r->decoding_tokens += n_text;
    if (job->guess && (!job->allow || job->keep))
        r->guessed[r->n_guessed++] = (guessed){ev->id, job, q->slot, n_text};
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
        if (e.token && r->drafter && !ev[i].finish)
            note_drawn(r, &ev[i], &st->seq[ev[i].entry], job);
        r->callback(r->arg, &e);
    }
}

void runner_deliver(runner *r) {
    deliver(r, NULL, NULL, clock_us());
}

/* Of the row of a slot that draws, or of one behind it. */
static uint32_t *mask_at(const runner *r, uint32_t slot, uint32_t row) {
    return r->masks + ((size_t)slot * (1 + r->max_draft) + row) * r->mask_words;
}

static void fill_mask(const runner *r, runner_job *job, uint32_t *mask) {
    const size_t bytes = r->mask_words * sizeof *mask;
    if (job->allowed)
        memcpy(mask, job->allowed, bytes);
    else
        memset(mask, 0xff, bytes);
    job->allow(job, mask);
}

/* The tokens that the next row of a job may draw. In lockstep no other row of the slot is in
 * flight, so that its mask may be written again. */
static const uint32_t *mask_of(const runner *r, const sched_step_seq *q, runner_job *job) {
    if (!q->sample || !job->allow) return job->allowed;
    CHECK(q->input_from < 0);
    uint32_t *mask = mask_at(r, q->slot, 0);
    if (q->n_draft == 0 || !r->drafter) fill_mask(r, job, mask); /* else guess_next has */
    return mask;
}

/* ---- guesses ---- */

static bool is_in(const uint32_t *mask, int32_t token) {
    return mask[token / 32] >> token % 32 & 1;
}

/* The guesses in front that may be drawn, n at most; and the masks of the rows that verify them, and of the
 * row before. No row stands behind a text that is over. */
static uint32_t allowed_guesses(const runner *r, const guessed *g, const int32_t *guess,
                                uint32_t n) {
    runner_job *job = g->job;
    uint32_t k = 0;
    if (!job->allow) {
        while (k < n && (!job->allowed || is_in(job->allowed, guess[k]))) k++;
        return k;
    }
    job->keep(job);
    for (;; k++) {
        uint32_t *mask = mask_at(r, g->slot, k);
        fill_mask(r, job, mask);
        if (k == n || !is_in(mask, guess[k])) break;
        job->take(job, guess[k]);
        if (job->over(job)) break;
    }
    job->back(job);
    return k;
}

/* Guesses behind a row at pos that can be undone: of a model with states those before the end of a chunk. */
static uint32_t undone_guesses(const runner *r, uint32_t pos) {
    if (!r->states) return SCHED_MAX_DRAFT;
    const uint32_t at = pos % r->state_chunk;
    return at + 2 < r->state_chunk ? r->state_chunk - 2 - at : 0;
}

/* The guesses of the text itself; n_most: that the scheduler and the states take. */
static void look_up(runner *r, const guessed *g, uint32_t n_most) {
    if (r->looks_up)
        drafter_add(r->drafter, g->id, g->slot, sched_tokens(r->sched, g->slot), g->n_text,
                    n_most);
}

static uint32_t most_guesses(const runner *r, const guessed *g) {
    const uint32_t n = sched_draft_space(r->sched, g->id),
                   undone = undone_guesses(r, g->n_text - 1);
    return n < undone ? n : undone;
}

/* Those of the draft model, of sequences whose text gives none. */
static void guess_by_model(runner *r, const draft *found, uint32_t n_found) {
    draft_run_begin(r->draft);
    for (uint32_t i = 0, k = 0; i < r->n_guessed; i++) {
        const guessed *g = &r->guessed[i];
        while (k < n_found && found[k].id != g->id && found[k].n == 0) k++;
        if (k < n_found && found[k].id == g->id && found[k++].n > 0) continue;
        const uint32_t n_most = most_guesses(r, g);
        if (n_most > 0)
            draft_run_add(r->draft, g->id, g->slot, sched_tokens(r->sched, g->slot), g->n_text,
                          sched_blocks(r->sched, g->slot, r->draft_group),
                          sched_n_blocks(r->sched, g->slot), n_most);
    }
    draft_run_guess(r->draft, sched_step_cost(r->sched), r->n_decoding, r->decoding_tokens,
                    sched_objective_us(r->sched));
}

/* Drafts are in the order of the sequences that are guessed. */
static void hand_over(runner *r, const draft *x, uint32_t n, bool by_model) {
    const guessed *g = r->guessed;
    for (uint32_t i = 0; i < n; i++) {
        while (g->id != x[i].id) g++;
        const uint32_t k = x[i].n ? allowed_guesses(r, g, x[i].guess, x[i].n) : 0;
        if (k == 0) continue;
        r->by_model[g->slot] = by_model;
        logged_draft(r->log, r->sched, x[i].id, x[i].guess, k, by_model);
    }
}

/* Before a step is planned: what it may verify. A sequence that has ended since, or is paused, may
 * verify none, and its job is not looked at. */
static void guess_next(runner *r) {
    draft *x;
    drafter_begin(r->drafter);
    for (uint32_t i = 0; i < r->n_guessed; i++)
        look_up(r, &r->guessed[i], most_guesses(r, &r->guessed[i]));
    drafter_choose(r->drafter, sched_step_cost(r->sched), r->n_decoding, r->decoding_tokens);
    const uint32_t n = drafter_drafts(r->drafter, &x);
    const bool by_model = r->draft && r->n_guessed;
    if (by_model) guess_by_model(r, x, n);
    hand_over(r, x, n, false);
    if (by_model) {
        const uint32_t n_model = draft_run_drafts(r->draft, &x);
        hand_over(r, x, n_model, true);
    }
    r->n_guessed = r->n_decoding = 0;
    r->decoding_tokens = 0;
}

/* What the draft model had computed where the step writes is gone. */
static void enter_blocks(runner *r, const sched_step *st) {
    for (uint32_t i = 0; i < st->n_copies; i++)
        if (st->copy[i].group == r->draft_group) draft_run_copied(r->draft, st->copy[i].to);
    for (uint32_t i = 0; i < st->n_seqs; i++)
        draft_run_enter(r->draft, sched_blocks(r->sched, st->seq[i].slot, r->draft_group),
                        st->seq[i].first_pos, st->seq[i].n_rows);
}

/* The first n guesses of an entry were verified. */
static void learn_guesses(runner *r, uint32_t slot, uint32_t n, uint32_t n_right) {
    if (r->by_model[slot])
        draft_run_learn(r->draft, slot, n, n_right);
    else
        drafter_learn(r->drafter, slot, n, n_right);
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
                     .n_draft = q->n_draft,
                     .n_score = q->score ? job->n_score : -1,
                     .params = q->sample ? &job->sampling : NULL,
                     .allowed = mask_of(r, q, job),
                     .allowed_stride = job->allow ? r->mask_words : 0,
                     .n_prompt = q->n_prompt,
                     .n_first = job->n_first,
                     .state = q->state};
    CHECK(!r->states || q->n_draft <= undone_guesses(r, q->first_pos));
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

static runner_job *job_of(const sched_step_seq *q) {
    return (runner_job *)(uintptr_t)q->user;
}

/* Reading counters takes microseconds: only where the answer to a sequence shows them. */
static void begin_weighing(flight *f) {
    f->weighed = false;
    for (uint32_t i = 0; i < f->step->n_seqs && !f->weighed; i++)
        f->weighed = job_of(&f->step->seq[i])->energy != NULL;
    if (f->weighed) f->joules = energy_joules();
}

/* A step that was launched behind another has what was used since that one ended. */
static void share_energy(runner *r, const flight *f) {
    const sched_step *st = f->step;
    if (!f->weighed) return;
    const double now = energy_joules(), from = f->joules > r->joules ? f->joules : r->joules;
    r->joules = now;
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        double *energy = job_of(&st->seq[i])->energy;
        if (energy) *energy += (now - from) * st->seq[i].n_rows / st->n_rows;
    }
}

/* Plans and submits one step. False when there is nothing to plan. */
static bool launch(runner *r) {
    uint64_t now = clock_us();
    if (r->drafter) guess_next(r);
    const uint64_t guessing_us = r->draft ? clock_us() - now : 0;
    if (guessing_us > 0) logged_spend(r->log, r->sched, guessing_us);
    const sched_step *st = logged_plan(r->log, r->sched, now);
    deliver(r, NULL, NULL, now); /* deadlines and preemptions become events at planning */
    if (!st) return false;
    flight *f = &r->flight[(r->first + r->n_flights++) % MAX_DEPTH];
    f->step = st;
    f->launched_us = now;
    f->guessing_us = guessing_us;
    if (r->draft) enter_blocks(r, st);
    for (uint32_t i = 0; i < st->n_seqs; i++) fill_seq(r, &st->seq[i], &f->seq[i]);
    for (uint32_t i = 0; i < st->n_copies; i++) f->copies[i] = copy_of(r, &st->copy[i]);
    fill_checkpoints(st, f);
    begin_weighing(f);
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
        if (r->drafter && st->seq[i].n_draft > 0)
            learn_guesses(r, st->seq[i].slot, st->seq[i].n_draft, r->n_tokens[i] - 1);
    }
    return (sched_step_tokens){.token = r->token, .n = r->n_tokens, .stride = MAX_RUN};
}

/* The scheduler learns what a step took: from the commit before it, since that is what a client
 * waits for, or from its launch where nothing ran before. */
static void observe(runner *r, const flight *f, uint64_t now) {
    const uint64_t from = (r->idle ? f->launched_us : r->committed_us) + f->guessing_us;
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
    share_energy(r, f);
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
