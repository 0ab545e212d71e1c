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
    e->n_preemptions = r->n_preemptions;
    e->peak_blocks = r->peak_blocks;
    e->peak_bytes = r->peak_bytes;
}

/* Takes its blocks; what is found of them needs no computing. */
static void begin(sched *s, uint32_t slot, const start *st) {
    seq_hot *h = &s->hot[slot];
    seq_record *r = &s->record[record_of(h->id)];
    hold_start(s, slot, st, blocks_for(s, h->len));
    cache_begin(s, slot, r->spec.salt, min_u32(st->n_found, st->n_probed));
    if (st->n_probed < st->n_found) s->chain[slot].n = CHAIN_BROKEN;
    r->n_computed = h->next_pos;
    uint32_t reported = min_u32(h->next_pos, h->n_prompt);
    if (reported <= r->n_reported) return;
    s->count.prompt_tokens += reported - r->n_reported;
    sched_event *e = event_push(s, EVENT_PREFILLED, h->id, h->user);
    e->first_pos = r->n_reported;
    e->n_rows = reported - r->n_reported;
    r->n_reported = reported;
}

static void give_ticket(sched *s, seq_record *r) {
    const sched_policy *p = s->cfg.policy;
    r->n_admission = ++s->n_admissions;
    r->ticket = p->ticket_key(p->self, &r->spec, r->key, r->n_admission);
    CHECK(r->ticket - r->n_admission <= SCHED_MAX_YIELD); /* as unsigned: nor below it */
}

void seq_admit(sched *s, uint32_t record, const start *st) {
    CHECK(heap_remove(&s->waiting, record) && s->preempted.n == 0);
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
                   .state = SEQ_PREFILL,
                   .score = spec->score_prompt,
                   .checks_end = s->cfg.n_end_tokens > 0 && !spec->ignore_eos,
                   .checks_stop = spec->n_stop_ids > 0,
                   .lockstep = spec->lockstep};
    memcpy(tokens_of(s, slot), spec->prompt, spec->n_prompt * sizeof *spec->prompt);
    queue_run(s, slot);
    sched_event *e = event_push(s, EVENT_ADMITTED, h->id, h->user);
    begin(s, slot, st);
    e->n_cached = r->n_cached = h->next_pos;
    if (st->leader == NO_SLOT && s->cfg.prefix_cache) {
        s->count.prefix_cache_queries += h->n_prompt;
        s->count.prefix_cache_hits += r->n_cached;
    }
}

void seq_resume(sched *s, uint32_t slot, const start *st) {
    seq_hot *h = &s->hot[slot];
    CHECK(s->preempted.head == slot && h->inflight == 0 && h->pending == 0);
    queue_leave(s, slot);
    h->state = SEQ_PREFILL;
    queue_run(s, slot);
    begin(s, slot, st);
    uint32_t lost = s->record[record_of(h->id)].n_lost;
    s->count.recomputed_tokens += lost - min_u32(lost, h->next_pos);
}

static void leave(sched *s, uint32_t slot) {
    queue_leave(s, slot);
    drop_drafts(s, &s->hot[slot]);
}

void seq_preempt(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    seq_record *r = &s->record[record_of(h->id)];
    CHECK(h->n_blocks > 0 && (h->state == SEQ_PAUSED || s->running.tail == slot));
    leave(s, slot);
    hold_release(s, slot);
    r->n_lost = h->next_pos - h->n_draft;
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
    leave(s, slot);
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

void seq_end(sched *s, uint32_t slot, sched_finish why, int32_t stop_id) {
    seq_hot *h = &s->hot[slot];
    seq_record *r = &s->record[record_of(h->id)];
    leave(s, slot);
    if (h->state == SEQ_PAUSED) s->n_paused--;
    h->state = SEQ_ENDED;
    s->n_ended++;
    fork_wake(s, record_of(h->id));
    hold_release(s, slot);
    heap_remove(&s->deadlines, record_of(h->id));
    r->finish = why;
    r->stop_id = stop_id;
    if (h->inflight == 0) seq_retire(s, slot);
}

void seq_end_waiting(sched *s, uint32_t record, sched_finish why) {
    seq_record *r = &s->record[record];
    if (!heap_remove(&s->waiting, record)) fork_cancel(s, record);
    heap_remove(&s->deadlines, record);
    s->waiting_tokens -= r->spec.n_prompt;
    r->finish = why;
    push_ended(s, id_of(s, record), r, 0);
    record_free(s, record);
}

void seq_retire(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    CHECK(h->state == SEQ_ENDED && h->inflight == 0 && h->n_blocks == 0);
    push_ended(s, h->id, &s->record[record_of(h->id)], h->len - h->n_prompt);
    record_free(s, record_of(h->id));
    h->state = SEQ_FREE;
    h->run.next = s->free_slot;
    s->free_slot = slot;
    s->n_free_slots++;
    s->n_ended--;
}
