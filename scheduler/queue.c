/* Where a sequence that has a slot stands: in the lists of running, prefilling, preempted and
 * parked ones. Which transition takes it there is up to seq.c and fork.c. */
#include "scheduler/state.h"

static const seq_record *record_at(const sched *s, uint32_t slot) {
    return &s->record[record_of(s->hot[slot].id)];
}

/* A slot's link in a list: prefilling ones are in two. */
static struct link *link_in(const sched *s, const slot_list *l, uint32_t slot) {
    return l == &s->prefilling ? &s->hot[slot].prefill : &s->hot[slot].run;
}

/* Inserts slot behind after, which is in the list or NO_SLOT for its head. */
static void list_insert(sched *s, slot_list *l, uint32_t after, uint32_t slot) {
    struct link *own = link_in(s, l, slot);
    uint32_t *from_prev = after == NO_SLOT ? &l->head : &link_in(s, l, after)->next;
    *own = (struct link){.prev = after, .next = *from_prev};
    *from_prev = slot;
    *(own->next == NO_SLOT ? &l->tail : &link_in(s, l, own->next)->prev) = slot;
    l->n++;
}

static void list_remove(sched *s, slot_list *l, uint32_t slot) {
    const struct link *own = link_in(s, l, slot);
    *(own->prev == NO_SLOT ? &l->head : &link_in(s, l, own->prev)->next) = own->next;
    *(own->next == NO_SLOT ? &l->tail : &link_in(s, l, own->next)->prev) = own->prev;
    l->n--;
}

/* In ticket order, searched from the tail: at once where nobody was paused. */
static void insert_from_tail(sched *s, slot_list *l, uint32_t slot) {
    uint32_t after = l->tail;
    while (after != NO_SLOT && is_senior(record_at(s, slot), record_at(s, after)))
        after = link_in(s, l, after)->prev;
    list_insert(s, l, after, slot);
}

/* In ticket order, searched from the head. */
static void insert_from_head(sched *s, slot_list *l, uint32_t slot) {
    uint32_t after = NO_SLOT, next = l->head;
    while (next != NO_SLOT && is_senior(record_at(s, next), record_at(s, slot))) {
        after = next;
        next = link_in(s, l, next)->next;
    }
    list_insert(s, l, after, slot);
}

void queue_run(sched *s, uint32_t slot) {
    insert_from_tail(s, &s->running, slot);
    if (s->hot[slot].state == SEQ_PREFILL) insert_from_tail(s, &s->prefilling, slot);
}

void queue_prefill(sched *s, uint32_t slot) {
    insert_from_tail(s, &s->prefilling, slot);
}

void queue_prefilled(sched *s, uint32_t slot) {
    list_remove(s, &s->prefilling, slot);
}

void queue_preempted(sched *s, uint32_t slot) {
    insert_from_head(s, &s->preempted, slot);
}

void queue_park(sched *s, uint32_t slot) {
    list_insert(s, &s->parked, s->parked.tail, slot);
    for (uint32_t k = 0; k < s->n_groups; k++)
        s->group[k].parked += group_part(&s->group[k], s->hot[slot].n_blocks);
}

void queue_leave(sched *s, uint32_t slot) {
    const seq_hot *h = &s->hot[slot];
    switch ((seq_state)h->state) {
    case SEQ_PREFILL: list_remove(s, &s->prefilling, slot); /* fallthrough */
    case SEQ_LOADING:
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
