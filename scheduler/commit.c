/* Committing a step: tokens join the histories, sequences end, fences open. */
#include "scheduler/state.h"

static bool among(const int32_t *ids, uint32_t n, int32_t token) {
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] == token) return true;
    return false;
}

/* Whether token is one that may end the sequence. Most are not, and most sequences have no stop
 * ids of their own, so that the cold record is seldom looked at. */
static bool may_end(const sched *s, const seq_hot *h, int32_t token) {
    if (h->checks_end && among(s->cfg.end_tokens, s->cfg.n_end_tokens, token)) return true;
    if (!h->checks_stop) return false;
    const seq_spec *spec = &s->record[record_of(h->id)].spec;
    return among(spec->stop_ids, spec->n_stop_ids, token);
}

/* Whether token ends the sequence; it is already counted in h->len. */
static bool token_ends(const sched *s, const seq_hot *h, int32_t token) {
    return may_end(s, h, token) &&
           h->len - 1 - h->n_prompt >= s->record[record_of(h->id)].spec.min_tokens;
}

/* Tells of prompt rows that were not told before: after a preemption they are computed again,
 * but scored and counted once. */
static void commit_prefill(sched *s, const seq_hot *h, const step_seq *e, uint32_t index) {
    seq_record *r = &s->record[record_of(h->id)];
    if (h->n_blocks > 0) r->n_computed = e->first_pos + e->n_rows;
    uint32_t from = max_u32(e->first_pos, r->n_reported);
    uint32_t to = min_u32(e->first_pos + e->n_rows, h->n_prompt);
    if (from >= to) return;
    r->n_reported = to;
    if (to == h->n_prompt) fork_wake(s, record_of(h->id));
    s->n_prompt_tokens += to - from;
    sched_event *v = event_push(s, EVENT_PREFILLED, h->id, h->user);
    v->entry = index;
    v->first_pos = from;
    v->n_rows = to - from;
}

static void commit_token(sched *s, seq_hot *h, uint32_t slot, uint32_t index, int32_t token) {
    if (token < 0) {
        seq_end(s, slot, FINISH_NO_TOKEN, -1);
        return;
    }
    tokens_of(s, slot)[h->len++] = token;
    s->n_output_tokens++;
    if (token_ends(s, h, token)) {
        seq_end(s, slot, FINISH_STOP, token);
        return;
    }
    const bool full = h->len == h->limit;
    sched_event *v = event_push(s, EVENT_TOKEN, h->id, h->user);
    v->entry = index;
    v->token = token;
    v->finish = full ? FINISH_LENGTH : FINISH_NONE;
    v->n_output = h->len - h->n_prompt;
    if (full) seq_end(s, slot, FINISH_LENGTH, -1);
}

/* Rows of e are in the KV cache: full blocks can be found, those out of sight are released. One
 * that was preempted meanwhile has no blocks any more. */
static void commit_rows(sched *s, const seq_hot *h, const step_seq *e, bool decode) {
    if (h->n_blocks == 0) return;
    uint32_t n = e->first_pos + e->n_rows;
    if (!decode || n == e->n_blocks * s->cfg.block_tokens) cache_publish(s, e->slot, n);
    if (s->windows) hold_release_unseen(s, e->slot, n);
}

void sched_commit(sched *s, const step *st, const int32_t *tokens, uint64_t now_us) {
    (void)now_us; /* policies will need it */
    CHECK(s->n_committed < s->n_planned);
    unsigned parity = (s->n_committed + 1) & 1;
    CHECK(st == &s->step[parity] && st->number == s->n_committed + 1);
    s->n_committed++;
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        const step_seq *e = &st->seq[i];
        seq_hot *h = &s->hot[e->slot];
        h->inflight--;
        h->pending -= e->sample;
        if (h->state == SEQ_ENDED) { /* its rows are discarded */
            if (h->inflight == 0) seq_retire(s, e->slot);
            continue;
        }
        if (!tokens) {
            seq_end(s, e->slot, FINISH_ERROR, -1);
            continue;
        }
        commit_rows(s, h, e, i < st->n_decode_rows);
        if (i >= st->n_decode_rows) commit_prefill(s, h, e, i);
        if (e->sample) {
            commit_token(s, h, e->slot, i, tokens[i]);
        } else if (e->first_pos + e->n_rows == h->limit) {
            seq_end(s, e->slot, FINISH_LENGTH, -1); /* only the prompt was to be scored */
        }
    }
    hold_unpin(s, st);
    for (uint32_t k = 0; k < s->n_groups; k++) blocks_unfence(&s->group[k].kv, parity);
}
