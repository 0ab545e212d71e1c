/* The transitions of one sequence: waiting -> running (-> preempted -> running) -> ended. Each
 * keeps queues (queue.c), blocks, slots and records in step; deciding which one happens is up
 * to plan.c and commit.c. */
#include <string.h>

#include "scheduler/state.h"

static void record_free(sched *s, uint32_t i) {
    fork_wake(s, i);
    s->record[i].generation++;
    s->record[i].slot = s->free_record;
    s->free_record = i;
}

static void push_ended(sched *s, sched_id id, const seq_record *r, uint32_t n_output) {
    sched_event *e = event_push(s, EVENT_ENDED, id, r->spec.user);
    e->finish = r->finish;
    e->stop_id = r->stop_id;
    e->n_output = n_output;
    e->n_cached = r->n_cached;
    e->n_loaded = r->n_loaded;
    e->n_preemptions = r->n_preemptions;
    e->peak_blocks = r->peak_blocks;
    e->peak_bytes = r->peak_bytes;
    e->cost = &r->cost;
}

/* Positions up to next_pos are there without having been computed. */
static void report_found(sched *s, const seq_hot *h) {
    seq_record *r = &s->record[record_of(h->id)];
    r->n_computed = h->next_pos;
    uint32_t reported = min_u32(h->next_pos, h->n_prompt);
    if (reported <= r->n_reported) return;
    s->count.prompt_tokens += reported - r->n_reported;
    sched_event *e = event_push(s, EVENT_PREFILLED, h->id, h->user);
    e->first_pos = r->n_reported;
    e->n_rows = reported - r->n_reported;
    r->n_reported = reported;
}

/* Takes its blocks; what is found of them needs no computing. */
static void begin(sched *s, uint32_t slot, const start *st) {
    seq_hot *h = &s->hot[slot];
    seq_record *r = &s->record[record_of(h->id)];
    r->gap = st->gap;
    r->unstated = st->leader == NO_SLOT && st->n_probed > st->n_found;
    if (st->n_load > 0) load_begin(s, slot, st);
    hold_start(s, slot, st, blocks_for(s, h->len));
    if (has_states(s)) state_begin(s, slot, st);
    if (has_tier(s)) load_use(s, min_u32(st->n_found, st->n_probed));
    cache_begin(s, slot, r->spec.salt, min_u32(st->n_found, st->n_probed));
    if (st->n_probed < st->n_found) s->chain[slot].n = CHAIN_BROKEN;
    report_found(s, h);
}

/* Its first start is over only now: what was found, and in the tier. */
static void count_loaded(sched *s, const seq_hot *h, uint32_t n_loaded) {
    seq_record *r = &s->record[record_of(h->id)];
    if (r->n_preemptions > 0) return;
    r->n_cached = h->next_pos;
    r->n_loaded = n_loaded;
    r->load_failed = false;
    sched_event *e = event_push(s, EVENT_LOADED, h->id, h->user);
    e->n_cached = r->n_cached;
    e->n_loaded = r->n_loaded;
}

static void give_ticket(sched *s, seq_record *r) {
    const sched_policy *p = s->cfg.policy;
    r->n_admission = ++s->n_admissions;
    r->ticket = p->ticket_key(p->self, &r->spec, r->key, r->n_admission);
    CHECK(r->ticket - r->n_admission <= SCHED_MAX_YIELD); /* as unsigned: nor below it */
}

void seq_admit(sched *s, uint32_t record, const start *st) {
    CHECK(waiting_remove(s, record) && s->preempted.n == 0);
    seq_record *r = &s->record[record];
    const sched_spec *spec = &r->spec;
    uint32_t slot = s->free_slot;
    CHECK(slot != NO_SLOT);
    seq_hot *h = &s->hot[slot];
    s->free_slot = h->run.next;
    s->n_free_slots--;
    s->waiting_tokens -= spec->n_prompt;
    r->slot = slot;
    give_ticket(s, r);
    *h = (seq_hot){.id = id_of(s, record),
                   .user = spec->user,
                   .len = spec->n_prompt,
                   .n_prompt = spec->n_prompt,
                   .limit = spec->n_prompt + spec->max_tokens,
                   .state = st->n_load > 0 ? SEQ_LOADING : SEQ_PREFILL,
                   .score = spec->score_prompt,
                   .checks_end = s->cfg.n_end_tokens > 0 && !spec->ignore_eos,
                   .checks_stop = spec->n_stop_ids > 0,
                   .lockstep = spec->lockstep || s->cfg.apart};
    memcpy(tokens_of(s, slot), spec->prompt, spec->n_prompt * sizeof *spec->prompt);
    queue_run(s, slot);
    sched_event *e = event_push(s, EVENT_ADMITTED, h->id, h->user);
    begin(s, slot, st);
    e->n_cached = r->n_cached = h->next_pos;
    waiting_admitted(s, record, r->n_cached);
    if (st->leader == NO_SLOT && s->cfg.prefix_cache) {
        s->count.prefix_cache_queries += h->n_prompt;
        s->count.prefix_cache_hits += r->n_cached;
        s->count.prefix_cache_state_misses +=
            (uint64_t)(st->n_probed - st->n_found) * s->cfg.block_tokens;
        if (has_tier(s) && !spec->no_tier)
            s->count.kv_tier_queries += h->n_prompt - r->n_cached;
    }
}

void seq_resume(sched *s, uint32_t slot, const start *st) {
    seq_hot *h = &s->hot[slot];
    CHECK(s->preempted.head == slot && h->inflight == 0 && h->pending == 0);
    queue_leave(s, slot);
    h->state = st->n_load > 0 ? SEQ_LOADING : SEQ_PREFILL;
    queue_run(s, slot);
    begin(s, slot, st);
    seq_record *r = &s->record[record_of(h->id)];
    const uint32_t there = max_u32(h->next_pos, st->n_load * s->cfg.block_tokens);
    const uint32_t again = r->n_lost - min_u32(r->n_lost, there);
    s->count.recomputed_tokens += again;
    r->cost.n_recomputed += again;
    if (r->load_failed && h->state == SEQ_PREFILL) count_loaded(s, h, 0);
}

static void leave(sched *s, uint32_t slot) {
    queue_leave(s, slot);
    drop_drafts(s, &s->hot[slot]);
    if (s->hot[slot].state == SEQ_LOADING) load_stop(s, slot);
}

void seq_loaded(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    const uint32_t n = h->next_pos - s->load[slot].n_found * s->cfg.block_tokens;
    load_stop(s, slot);
    h->state = SEQ_PREFILL;
    queue_prefill(s, slot);
    s->count.kv_tier_hits += n;
    report_found(s, h);
    count_loaded(s, h, n);
}

/* What it has loaded is cached, and found when it resumes: at the next plan, if it is the most
 * senior of those that are preempted. A junior may run by then, as after a pause. */
void seq_not_loaded(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    seq_record *r = &s->record[record_of(h->id)];
    leave(s, slot);
    hold_release(s, slot);
    r->n_lost = r->n_computed = h->next_pos = 0;
    r->load_failed = r->load_broke = true;
    s->ever_paused = true;
    h->state = SEQ_PREEMPTED;
    queue_preempted(s, slot);
}

void seq_preempt(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    seq_record *r = &s->record[record_of(h->id)];
    const bool loads = h->state == SEQ_LOADING;
    CHECK(h->n_blocks > 0 && (h->state == SEQ_PAUSED || s->running.tail == slot));
    leave(s, slot);
    if (!loads)
        store_offer(s, slot); /* what is not taken before its turn is there when it resumes */
    hold_release(s, slot);
    if (has_states(s)) state_keep(s, slot);
    r->n_lost = loads ? 0 : h->next_pos - h->n_draft;
    r->n_computed = 0;
    r->n_preemptions++;
    s->count.preemptions++;
    h->next_pos = 0;
    h->prefilled = false;
    if (h->state != SEQ_PAUSED) {
        h->state = SEQ_PREEMPTED;
        queue_preempted(s, slot);
    }
    sched_event *e = event_push(s, EVENT_PREEMPTED, h->id, h->user);
    e->n_output = h->len - h->n_prompt;
    e->n_preemptions = r->n_preemptions;
    e->peak_blocks = r->peak_blocks;
    e->peak_bytes = r->peak_bytes;
}

void seq_pause(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    const bool loads = h->state == SEQ_LOADING;
    leave(s, slot);
    if (loads) { /* it starts again when its reader comes back */
        hold_release(s, slot);
        s->record[record_of(h->id)].n_computed = h->next_pos = 0;
    }
    h->state = SEQ_PAUSED;
    s->n_paused++;
    s->ever_paused = true;
    fork_wake(s, record_of(h->id)); /* nobody waits for a slow reader */
    if (h->n_blocks > 0) queue_park(s, slot);
}

void seq_unpause(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    queue_leave(s, slot);
    s->n_paused--;
    if (h->n_blocks == 0) {
        h->state = SEQ_PREEMPTED;
        queue_preempted(s, slot);
        return;
    }
    h->state = h->prefilled ? SEQ_DECODE : SEQ_PREFILL;
    queue_run(s, slot);
}

void seq_prefilled(sched *s, uint32_t slot) {
    queue_prefilled(s, slot);
    s->hot[slot].state = SEQ_DECODE;
    s->hot[slot].prefilled = true;
}

/* What it has computed, for sched_explain. Forks begin as their leader. */
static void remember(sched *s, uint32_t slot) {
    const seq_hot *h = &s->hot[slot];
    const seq_record *r = &s->record[record_of(h->id)];
    if (s->recent.cap > 0 && r->spec.fork_of == 0)
        recent_add(&s->recent, r->spec.salt, tokens_of(s, slot),
                   h->prefilled ? h->len : r->n_computed, r->spec.request);
}

void seq_end(sched *s, uint32_t slot, sched_finish why, int32_t stop_id) {
    seq_hot *h = &s->hot[slot];
    seq_record *r = &s->record[record_of(h->id)];
    leave(s, slot);
    if (has_states(s)) state_end(s, slot, why != FINISH_ERROR);
    if (h->state == SEQ_PAUSED) s->n_paused--;
    h->state = SEQ_ENDED;
    s->n_ended++;
    fork_wake(s, record_of(h->id));
    if (why != FINISH_ERROR) store_offer(s, slot);
    remember(s, slot);
    hold_release(s, slot);
    heap_remove(&s->deadlines, record_of(h->id));
    r->finish = why;
    r->stop_id = stop_id;
    waiting_ended(s, record_of(h->id), h->len - h->n_prompt);
    if (why == FINISH_STOP || why == FINISH_LENGTH)
        lengths_finished(s, record_of(h->id), h->len - h->n_prompt);
    if (h->inflight == 0) seq_retire(s, slot);
}

void seq_end_waiting(sched *s, uint32_t record, sched_finish why) {
    seq_record *r = &s->record[record];
    if (!waiting_remove(s, record)) fork_cancel(s, record);
    heap_remove(&s->deadlines, record);
    s->waiting_tokens -= r->spec.n_prompt;
    r->finish = why;
    push_ended(s, id_of(s, record), r, 0);
    record_free(s, record);
}

void seq_retire(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    CHECK(h->state == SEQ_ENDED && h->inflight == 0 && h->n_blocks == 0);
    seq_record *r = &s->record[record_of(h->id)];
    r->cost.n_steps += h->len - h->n_prompt; /* see count_step in commit.c */
    push_ended(s, h->id, r, h->len - h->n_prompt);
    record_free(s, record_of(h->id));
    if (has_states(s)) state_retire(s, slot);
    h->state = SEQ_FREE;
    h->run.next = s->free_slot;
    s->free_slot = slot;
    s->n_free_slots++;
    s->n_ended--;
}
