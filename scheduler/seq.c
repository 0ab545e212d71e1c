/* The transitions of one sequence: waiting -> running (-> preempted -> running) -> ended. Each
 * keeps lists, blocks, slots and records in step; deciding which one happens is up to plan.c
 * and commit.c. */
#include <string.h>

#include "scheduler/state.h"

static void list_push_tail(sched *s, slot_list *l, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    h->prev = l->tail;
    h->next = NO_SLOT;
    if (l->tail == NO_SLOT)
        l->head = slot;
    else
        s->hot[l->tail].next = slot;
    l->tail = slot;
    l->n++;
}

static void list_push_head(sched *s, slot_list *l, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    h->next = l->head;
    h->prev = NO_SLOT;
    if (l->head == NO_SLOT)
        l->tail = slot;
    else
        s->hot[l->head].prev = slot;
    l->head = slot;
    l->n++;
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

static void prefilling_push(sched *s, uint32_t slot) {
    slot_list *l = &s->prefilling;
    seq_hot *h = &s->hot[slot];
    h->prefill_prev = l->tail;
    h->prefill_next = NO_SLOT;
    if (l->tail == NO_SLOT)
        l->head = slot;
    else
        s->hot[l->tail].prefill_next = slot;
    l->tail = slot;
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

sched_event *event_push(sched *s, event_kind kind, seq_id id, uint64_t user) {
    if (s->events_read) {
        s->events_read = false;
        s->n_events = 0;
    }
    CHECK(s->n_events < s->max_events); /* else somebody does not drain them */
    sched_event *e = &s->event[s->n_events++];
    *e = (sched_event){.kind = kind, .id = id, .user = user, .token = -1, .stop_id = -1};
    return e;
}

static int32_t *table_of(const sched *s, uint32_t slot) {
    return s->table + (size_t)slot * s->blocks_per_seq;
}

static void take_blocks(sched *s, uint32_t slot, uint32_t n) {
    int32_t *table = table_of(s, slot);
    seq_hot *h = &s->hot[slot];
    while (h->n_blocks < n) table[h->n_blocks++] = blocks_take(&s->kv);
}

/* In reverse order, so that what is taken again first was the sequence's beginning. The table
 * row keeps its entries: an uncommitted step may still read them. */
static void release_blocks(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    seq_record *r = &s->record[record_of(h->id)];
    int fence = h->inflight > 0 ? h->newest_parity : BLOCKS_NO_FENCE;
    const int32_t *table = table_of(s, slot);
    r->peak_blocks = max_u32(r->peak_blocks, h->n_blocks);
    while (h->n_blocks > 0) blocks_drop(&s->kv, table[--h->n_blocks], fence);
}

static void record_free(sched *s, uint32_t i) {
    s->record[i].generation++;
    s->record[i].slot = s->free_record;
    s->free_record = i;
}

static void push_ended(sched *s, seq_id id, const seq_record *r, uint32_t n_output) {
    sched_event *e = event_push(s, EVENT_ENDED, id, r->spec.user);
    e->finish = r->finish;
    e->stop_id = r->stop_id;
    e->n_output = n_output;
    e->n_preemptions = r->n_preemptions;
    e->peak_blocks = r->peak_blocks;
}

void seq_admit(sched *s, uint32_t record) {
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
    *h = (seq_hot){.id = (seq_id)r->generation << 32 | record,
                   .user = spec->user,
                   .len = spec->n_prompt,
                   .n_prompt = spec->n_prompt,
                   .limit = spec->n_prompt + spec->max_tokens,
                   .state = SEQ_PREFILL,
                   .score = spec->score_prompt,
                   .checks_end = s->cfg.n_end_tokens > 0 && !spec->ignore_eos,
                   .checks_stop = spec->n_stop_ids > 0,
                   .has_min = spec->min_tokens > 0};
    memcpy(s->tokens + (size_t)slot * s->cfg.max_model_len, spec->prompt,
           spec->n_prompt * sizeof *spec->prompt);
    list_push_tail(s, &s->running, slot);
    prefilling_push(s, slot);
    take_blocks(s, slot, blocks_for(s, h->len));
    event_push(s, EVENT_ADMITTED, h->id, h->user);
}

void seq_resume(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    CHECK(s->preempted.head == slot && h->inflight == 0 && h->pending == 0);
    list_remove(s, &s->preempted, slot);
    h->state = SEQ_PREFILL;
    h->next_pos = 0;
    list_push_tail(s, &s->running, slot);
    prefilling_push(s, slot);
    take_blocks(s, slot, blocks_for(s, h->len));
    s->n_recomputed_tokens += s->record[record_of(h->id)].n_lost;
}

void seq_preempt(sched *s, uint32_t slot) {
    seq_hot *h = &s->hot[slot];
    seq_record *r = &s->record[record_of(h->id)];
    CHECK(s->running.tail == slot);
    list_remove(s, &s->running, slot);
    if (h->state == SEQ_PREFILL) prefilling_remove(s, slot);
    h->state = SEQ_PREEMPTED;
    release_blocks(s, slot);
    r->n_lost = h->next_pos;
    r->n_preemptions++;
    s->n_preemptions++;
    list_push_head(s, &s->preempted, slot);
    sched_event *e = event_push(s, EVENT_PREEMPTED, h->id, h->user);
    e->n_output = h->len - h->n_prompt;
    e->n_preemptions = r->n_preemptions;
    e->peak_blocks = r->peak_blocks;
}

void seq_grow(sched *s, uint32_t slot) {
    take_blocks(s, slot, s->hot[slot].n_blocks + 1);
}

void seq_prefilled(sched *s, uint32_t slot) {
    prefilling_remove(s, slot);
    s->hot[slot].state = SEQ_DECODE;
}

void seq_end(sched *s, uint32_t slot, finish why, int32_t stop_id) {
    seq_hot *h = &s->hot[slot];
    seq_record *r = &s->record[record_of(h->id)];
    if (h->state == SEQ_PREEMPTED) {
        list_remove(s, &s->preempted, slot);
    } else {
        list_remove(s, &s->running, slot);
        if (h->state == SEQ_PREFILL) prefilling_remove(s, slot);
    }
    h->state = SEQ_ENDED;
    s->n_ended++;
    release_blocks(s, slot);
    heap_remove(&s->deadlines, record_of(h->id));
    r->finish = why;
    r->stop_id = stop_id;
    if (h->inflight == 0) seq_retire(s, slot);
}

void seq_end_waiting(sched *s, uint32_t record, finish why) {
    seq_record *r = &s->record[record];
    CHECK(heap_remove(&s->waiting, record));
    heap_remove(&s->deadlines, record);
    s->waiting_tokens -= r->spec.n_prompt;
    r->finish = why;
    push_ended(s, (seq_id)r->generation << 32 | record, r, 0);
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
