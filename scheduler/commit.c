/* Committing a step: tokens join the histories, sequences end, fences open. */
#include "scheduler/state.h"

static bool among(const int32_t *ids, uint32_t n, int32_t token) {
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] == token) return true;
    return false;
}

/* Whether token is one that may end the sequence. Most are not, and most sequences have no stop
 * ids of their own, so that the cold record is seldom looked at. */
static inline bool may_end(const sched *s, const seq_hot *h, int32_t token) {
    if (h->checks_end && among(s->cfg.end_tokens, s->cfg.n_end_tokens, token)) return true;
    if (!h->checks_stop) return false;
    const sched_spec *spec = &s->record[record_of(h->id)].spec;
    return among(spec->stop_ids, spec->n_stop_ids, token);
}

/* Whether token ends the sequence; it is already counted in h->len. */
static inline bool token_ends(const sched *s, const seq_hot *h, int32_t token) {
    return may_end(s, h, token) &&
           h->len - 1 - h->n_prompt >= s->record[record_of(h->id)].spec.min_tokens;
}

/* Reports prompt rows that were not reported before: after a preemption they are computed
 * again, but scored and counted once. */
static void commit_prefill(sched *s, const seq_hot *h, const sched_step_seq *e,
                           uint32_t index) {
    seq_record *r = &s->record[record_of(h->id)];
    if (h->n_blocks > 0) r->n_computed = e->first_pos + e->n_rows;
    uint32_t from = max_u32(e->first_pos, r->n_reported);
    uint32_t to = min_u32(e->first_pos + e->n_rows, h->n_prompt);
    if (from >= to) return;
    r->n_reported = to;
    if (to == h->n_prompt) fork_wake(s, record_of(h->id));
    s->count.prompt_tokens += to - from;
    sched_event *v = event_push(s, EVENT_PREFILLED, h->id, h->user);
    v->entry = index;
    v->first_pos = from;
    v->n_rows = to - from;
}

static inline void push_tokens(sched *s, const seq_hot *h, uint32_t index, uint32_t n,
                               uint32_t n_output, sched_finish why) {
    sched_event *v = event_push(s, EVENT_TOKEN, h->id, h->user);
    v->entry = index;
    v->n_tokens = n;
    v->finish = why;
    v->n_output = n_output;
}

static sched_finish no_token(sched *s, int32_t token) {
    s->count.logits_not_finite += token < -1;
    return token < -1 ? FINISH_NOT_FINITE : FINISH_NO_TOKEN;
}

/* A step that drew n tokens of a sequence. Its steps are as many as its tokens, but for these:
 * most steps draw one, and have no need of the cold record. The sum may wrap on its way. */
static inline void count_step(sched *s, const seq_hot *h, uint32_t n_tokens) {
    s->record[record_of(h->id)].cost.n_steps += 1 - n_tokens;
}

/* Of the guesses that its rows verified, n are tokens of the text. */
static void count_guesses(sched *s, const seq_hot *h, const sched_step_seq *e, uint32_t n) {
    sched_cost *c = &s->record[record_of(h->id)].cost;
    c->n_guessed += e->n_draft;
    c->n_accepted += n;
    s->count.speculative_drafts++;
    s->count.speculative_draft_tokens += e->n_draft;
    s->count.speculative_accepted_tokens += n;
    if (!h->by_model) return;
    s->count.speculative_model_drafts++;
    s->count.speculative_model_draft_tokens += e->n_draft;
    s->count.speculative_model_accepted_tokens += n;
}

/* Inlined by force: gcc leaves a function with two callers out of line, and the call is a tenth
 * of what a token costs. */
static inline __attribute__((always_inline)) void
commit_token(sched *s, seq_hot *h, uint32_t slot, uint32_t index, int32_t token) {
    if (token < 0) {
        count_step(s, h, 0);
        seq_end(s, slot, no_token(s, token), -1);
        return;
    }
    tokens_of(s, slot)[h->len++] = token;
    s->count.generated_tokens++;
    if (token_ends(s, h, token)) {
        seq_end(s, slot, FINISH_STOP, token);
        return;
    }
    const bool full = h->len == h->limit;
    push_tokens(s, h, index, 1, h->len - h->n_prompt, full ? FINISH_LENGTH : FINISH_NONE);
    if (full) seq_end(s, slot, FINISH_LENGTH, -1);
}

/* Rows of e are in the KV cache: full blocks can be found, those out of sight are released. One
 * that was preempted meanwhile has no blocks any more. */
static void commit_rows(sched *s, const seq_hot *h, const sched_step_seq *e, bool publish) {
    if (h->n_blocks == 0) return;
    const uint32_t n = e->first_pos + e->n_rows;
    if (publish) cache_publish(s, e->slot, n);
    if (s->windows) hold_release_unseen(s, e->slot, n);
}

/* A run behind a row with drafts: tokens up to the first that ends the sequence. Rows behind
 * them are not committed, and blocks that only they need are given back. */
static __attribute__((noinline)) void commit_run(sched *s, const sched_step_seq *e,
                                                 uint32_t index, const int32_t *run,
                                                 uint32_t n_run) {
    seq_hot *h = &s->hot[e->slot];
    int32_t *history = tokens_of(s, e->slot);
    uint32_t n = 0;
    bool stops = false, none = false;
    h->n_draft = 0;
    CHECK(n_run >= 1 && n_run <= 1U + e->n_draft);
    while (n < n_run && h->len < h->limit && !stops) {
        none = run[n] < 0;
        if (none) break;
        history[h->len++] = run[n];
        stops = token_ends(s, h, run[n++]);
    }
    s->count.generated_tokens += n;
    count_step(s, h, n);
    count_guesses(s, h, e, n < n_run ? n : n - 1); /* the last of a run was drawn */
    if (h->n_blocks > 0) {
        h->next_pos = e->first_pos + n;
        cache_publish(s, e->slot, h->next_pos);
        if (s->windows) hold_release_unseen(s, e->slot, h->next_pos);
        hold_shrink(s, e->slot, blocks_for(s, h->next_pos));
    }
    const sched_finish why = none                 ? no_token(s, run[n])
                             : stops              ? FINISH_STOP
                             : h->len == h->limit ? FINISH_LENGTH
                                                  : FINISH_NONE;
    if (n > stops)
        push_tokens(s, h, index, n - stops, h->len - h->n_prompt - stops,
                    none ? FINISH_NONE : why);
    if (why != FINISH_NONE) seq_end(s, e->slot, why, stops ? run[n - 1] : -1);
}

/* Counts the step off. False: the sequence has ended, so the rows of e are discarded. */
static inline bool leave_step(sched *s, seq_hot *h, const sched_step_seq *e) {
    h->inflight--;
    h->pending -= e->sample;
    if (h->state != SEQ_ENDED) return true;
    if (h->inflight == 0) seq_retire(s, e->slot);
    return false;
}

/* Copies of states may not have happened, and who begins with one may have no row in the step. */
static void end_copied(sched *s, const sched_step *st) {
    for (uint32_t i = 0; i < st->n_copies; i++) {
        if (st->copy[i].group != SCHED_COPY_STATE) continue;
        for (uint32_t slot = 0; slot < s->cfg.max_seqs; slot++)
            if (s->own[slot].slot == (uint32_t)st->copy[i].to &&
                s->hot[slot].state != SEQ_ENDED)
                seq_end(s, slot, FINISH_ERROR, -1);
    }
}

static void commit_failed(sched *s, const sched_step *st) {
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        const sched_step_seq *e = &st->seq[i];
        seq_hot *h = &s->hot[e->slot];
        if (has_states(s)) state_failed(s, e->slot);
        if (!leave_step(s, h, e)) continue;
        if (e->n_draft > 0) h->n_draft = 0;
        seq_end(s, e->slot, FINISH_ERROR, -1);
    }
    if (st->n_moves > 0) resize_failed(s, st);
    if (has_states(s)) end_copied(s, st);
}

/* Decode rows are nearly all that is ever committed: their loop has nothing that only prefills
 * need. */
static void commit_drawn(sched *s, const sched_step *st, const sched_step_tokens *drawn) {
    const int32_t *run = drawn->token;
    const uint32_t stride = drawn->stride;
    uint32_t i = 0;
    for (; i < st->n_decode_seqs; i++, run += stride) {
        const sched_step_seq *e = &st->seq[i];
        seq_hot *h = &s->hot[e->slot];
        if (!leave_step(s, h, e)) continue;
        if (e->n_draft > 0) {
            commit_run(s, e, i, run, drawn->n ? drawn->n[i] : 1);
            continue;
        }
        const bool fills = e->first_pos + 1 == e->n_blocks * s->cfg.block_tokens;
        if (fills || s->windows) commit_rows(s, h, e, fills);
        commit_token(s, h, e->slot, i, *run);
    }
    for (; i < st->n_seqs; i++, run += stride) {
        const sched_step_seq *e = &st->seq[i];
        seq_hot *h = &s->hot[e->slot];
        if (!leave_step(s, h, e)) continue;
        commit_rows(s, h, e, true);
        commit_prefill(s, h, e, i);
        if (e->sample) {
            commit_token(s, h, e->slot, i, *run);
            continue;
        }
        count_step(s, h, 0);
        if (e->first_pos + e->n_rows == h->limit)
            seq_end(s, e->slot, FINISH_LENGTH, -1); /* nothing was to be drawn */
    }
}

step_work sched_work(const sched *s, const sched_step *st) {
    step_work w = {.rows = st->n_rows, .logit_rows = st->n_logit_rows};
    for (uint32_t i = 0; i < st->n_seqs; i++) w.kv += row_pairs(s, &st->seq[i]);
    return w;
}

void sched_observe(sched *s, const sched_step *st, uint64_t us) {
    CHECK(s->n_committed < s->n_planned);
    cost_observe(&s->cost, sched_work(s, st), (double)us);
}

void sched_commit(sched *s, const sched_step *st, const sched_step_tokens *tokens) {
    CHECK(s->n_committed < s->n_planned);
    unsigned parity = (s->n_committed + 1) & 1;
    CHECK(st == &s->step[parity] && st->number == s->n_committed + 1);
    s->n_committed++;
    s->count.steps++;
    if (st->n_checkpoints > 0) state_commit(s, st, tokens != NULL);
    if (tokens)
        commit_drawn(s, st, tokens);
    else
        commit_failed(s, st);
    hold_unpin(s, st);
    for (uint32_t k = 0; k < s->n_groups; k++) blocks_unfence(&s->group[k].kv, parity);
}
