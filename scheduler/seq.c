/* The transitions of one sequence: waiting -> running (-> preempted -> running) -> ended. Each
 * keeps lists, blocks, slots and records in step; deciding which one happens is up to plan.c
 * and commit.c. */
#include <string.h>

#include "scheduler/state.h"

static uint64_t ticket_of(const sched *s, uint32_t slot) {
    return s->record[record_of(s->hot[slot].id)].ticket;
}

/* Inserts slot behind after, which is in the list or NO_SLOT for its head. */
static void list_insert(sched *s, slot_list *l, uint32_t after, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    h->prev = after;
    h->next = after == NO_SLOT ? l->head : s->hot[after].next;
    if (h->prev == NO_SLOT)
        l->head = slot;
    else
        s->hot[h->prev].next = slot;
    if (h->next == NO_SLOT)
        l->tail = slot;
    else
        s->hot[h->next].prev = slot;
    l->n++;
}

/* In ticket order. At once where nobody was paused: at the tail of running, at the head of
 * preempted. */
static void running_insert(sched *s, uint32_t slot) {
    uint32_t after = s->running.tail;
    while (after != NO_SLOT && ticket_of(s, after) > ticket_of(s, slot)) {
        after = s->hot[after].prev;
    }
    list_insert(s, &s->running, after, slot);
}

static void preempted_insert(sched *s, uint32_t slot) {
    uint32_t after = NO_SLOT, next = s->preempted.head;
    while (next != NO_SLOT && ticket_of(s, next) < ticket_of(s, slot)) {
        after = next;
        next = s->hot[next].next;
    }
    list_insert(s, &s->preempted, after, slot);
}

static void list_remove(sched *s, slot_list *l, uint32_t slot) {
    const seq_hot *h = &s->hot[slot];
    if (h->prev == NO_SLOT)
        l->head = h->next;
    else
        s->hot[h->prev].next = h->next;
    if (h->next == NO_SLOT)
        l->tail = h->prev;
    else
        s->hot[h->next].prev = h->prev;
    l->n--;
}

static void prefilling_insert(sched *s, uint32_t slot) {
    slot_list *l = &s->prefilling;
    seq_hot *h = &s->hot[slot];
    uint32_t after = l->tail;
    while (after != NO_SLOT && ticket_of(s, after) > ticket_of(s, slot)) {
        after = s->hot[after].prefill_prev;
    }
    h->prefill_prev = after;
    h->prefill_next = after == NO_SLOT ? l->head : s->hot[after].prefill_next;
    if (h->prefill_prev == NO_SLOT)
        l->head = slot;
    else
        s->hot[h->prefill_prev].prefill_next = slot;
    if (h->prefill_next == NO_SLOT)
        l->tail = slot;
    else
        s->hot[h->prefill_next].prefill_prev = slot;
    l->n++;
}

static void prefilling_remove(sched *s, uint32_t slot) {
    slot_list *l = &s->prefilling;
    const seq_hot *h = &s->hot[slot];
    if (h->prefill_prev == NO_SLOT)
        l->head = h->prefill_next;
    else
        s->hot[h->prefill_prev].prefill_next = h->prefill_next;
    if (h->prefill_next == NO_SLOT)
        l->tail = h->prefill_prev;
    else
        s->hot[h->prefill_next].prefill_prev = h->prefill_prev;
    l->n--;
}

static void record_free(sched *s, uint32_t i) {
    fork_wake(s, i);
    s->record[i].generation++;
    s->record[i].slot = s->free_record;
    s->free_record = i;
}

static void push_ended(sched *s, seq_id id, const seq_record *r, uint32_t n_output) {
    sched_event *e = event_push(s, EVENT_ENDED, id, r->spec.user);
    e->finish = r->finish;
    e->stop_id = r->stop_id;
    e->n_output = n_output;
    e->n_cached = r->n_cached;
    e->n_preemptions = r->n_preemptions;
    e->peak_blocks = r->peak_blocks;
    e->peak_bytes = r->peak_bytes;
}

void seq_enqueue(sched *s, uint32_t record) {
    const seq_record *r = &s->record[record];
    /* Signed to unsigned in order: the most negative priority becomes 0. */
    heap_add(&s->waiting, record, (uint64_t)((int64_t)r->spec.priority - INT32_MIN),
             r->arrival);
}

/* Takes its blocks; what is found of them needs no computing. */
static void begin(sched *s, uint32_t slot, const start *st) {
    seq_hot *h = &s->hot[slot];
    seq_record *r = &s->record[record_of(h->id)];
    hold_start(s, slot, st, blocks_for(s, h->len));
    cache_begin(s, slot, r->spec.salt, min_u32(st->n_found, st->n_probed));
    if (st->n_probed < st->n_found) s->chain[slot].n = CHAIN_BROKEN;
    r->n_computed = h->next_pos;
    uint32_t told = min_u32(h->next_pos, h->n_prompt);
    if (told <= r->n_reported) return;
    s->n_prompt_tokens += told - r->n_reported;
    sched_event *e = event_push(s, EVENT_PREFILLED, h->id, h->user);
    e->first_pos = r->n_reported;
    e->n_rows = told - r->n_reported;
    r->n_reported = told;
}

void seq_admit(sched *s, uint32_t record, const start *st) {
    CHECK(heap_remove(&s->waiting, record) && s->preempted.n == 0);
    seq_record *r = &s->record[record];
    const seq_spec *spec = &r->spec;
    uint32_t slot = s->free_slot;
    CHECK(slot != NO_SLOT);
    seq_hot *h = &s->hot[slot];
    s->free_slot = h->next;
    s->n_free_slots--;
    s->waiting_tokens -= spec->n_prompt;
    r->slot = slot;
    r->ticket = ++s->n_tickets;
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
    running_insert(s, slot);
    prefilling_insert(s, slot);
    sched_event *e = event_push(s, EVENT_ADMITTED, h->id, h->user);
    begin(s, slot, st);
    e->n_cached = r->n_cached = h->next_pos;
    if (st->leader == NO_SLOT && s->cfg.prefix_cache) {
        s->n_prefix_queries += h->n_prompt;
        s->n_prefix_hits += r->n_cached;
    }
}

void seq_resume(sched *s, uint32_t slot, const start *st) {
    seq_hot *h = &s->hot[slot];
    CHECK(s->preempted.head == slot && h->inflight == 0 && h->pending == 0);
    list_remove(s, &s->preempted, slot);
    h->state = SEQ_PREFILL;
    running_insert(s, slot);
    prefilling_insert(s, slot);
    begin(s, slot, st);
    uint32_t lost = s->record[record_of(h->id)].n_lost;
    s->n_recomputed_tokens += lost - min_u32(lost, h->next_pos);
}

/* Takes a running, parked or preempted sequence out of its lists. */
static void leave_lists(sched *s, uint32_t slot) {
    const seq_hot *h = &s->hot[slot];
    switch ((seq_state)h->state) {
    case SEQ_PREFILL: prefilling_remove(s, slot); /* fallthrough */
    case SEQ_DECODE: list_remove(s, &s->running, slot); break;
    case SEQ_PREEMPTED: list_remove(s, &s->preempted, slot); break;
    case SEQ_PAUSED:
        if (h->n_blocks == 0) break;
        list_remove(s, &s->parked, slot);
        for (uint32_t k = 0; k < s->n_groups; k++)
            s->group[k].parked -= group_part(&s->group[k], h->n_blocks);
        break;
    case SEQ_FREE:
    case SEQ_ENDED: CHECK(false);
    }
}

void seq_preempt(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    seq_record *r = &s->record[record_of(h->id)];
    CHECK(h->n_blocks > 0 && (h->state == SEQ_PAUSED || s->running.tail == slot));
    leave_lists(s, slot);
    hold_release(s, slot);
    r->n_lost = h->next_pos;
    r->n_computed = 0;
    r->n_preemptions++;
    s->n_preemptions++;
    h->next_pos = 0;
    h->prefilled = false;
    if (h->state != SEQ_PAUSED) {
        h->state = SEQ_PREEMPTED;
        preempted_insert(s, slot);
    }
    sched_event *e = event_push(s, EVENT_PREEMPTED, h->id, h->user);
    e->n_output = h->len - h->n_prompt;
    e->n_preemptions = r->n_preemptions;
    e->peak_blocks = r->peak_blocks;
    e->peak_bytes = r->peak_bytes;
}

void seq_pause(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    leave_lists(s, slot);
    h->state = SEQ_PAUSED;
    s->n_paused++;
    s->ever_paused = true;
    fork_wake(s, record_of(h->id)); /* nobody waits for a slow reader */
    if (h->n_blocks == 0) return;
    list_insert(s, &s->parked, s->parked.tail, slot);
    for (uint32_t k = 0; k < s->n_groups; k++)
        s->group[k].parked += group_part(&s->group[k], h->n_blocks);
}

void seq_unpause(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    leave_lists(s, slot);
    s->n_paused--;
    if (h->n_blocks == 0) {
        h->state = SEQ_PREEMPTED;
        preempted_insert(s, slot);
        return;
    }
    h->state = h->prefilled ? SEQ_DECODE : SEQ_PREFILL;
    running_insert(s, slot);
    if (!h->prefilled) prefilling_insert(s, slot);
}

void seq_prefilled(sched *s, uint32_t slot) {
    prefilling_remove(s, slot);
    s->hot[slot].state = SEQ_DECODE;
    s->hot[slot].prefilled = true;
}

void seq_end(sched *s, uint32_t slot, finish why, int32_t stop_id) {
    seq_hot *h = &s->hot[slot];
    seq_record *r = &s->record[record_of(h->id)];
    leave_lists(s, slot);
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

void seq_end_waiting(sched *s, uint32_t record, finish why) {
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
    h->next = s->free_slot;
    s->free_slot = slot;
    s->n_free_slots++;
    s->n_ended--;
}
