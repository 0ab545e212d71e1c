/* The queues of waiting.h: doubly linked through the records. */
#include "scheduler/waiting.h"

#include "scheduler/policy.h"
#include "scheduler/state.h"

/* The lowest bit of a tenant's number is 1 (0: unknown). */
static waiting_queue *queue_of(const sched *s, const seq_record *r) {
    return &s->waiting.queue[(r->spec.tenant >> 1) % s->waiting.n_queues];
}

void waiting_init(sched *s) {
    waiting *w = &s->waiting;
    w->first = NO_SLOT;
    for (uint32_t i = 0; i < w->n_queues; i++)
        w->queue[i] = (waiting_queue){.weight = 1, .head = NO_SLOT, .tail = NO_SLOT};
}

/* Order within a queue. */
static bool before(const seq_record *a, const seq_record *b) {
    return a->key != b->key ? a->key < b->key : a->arrival < b->arrival;
}

static void join(sched *s, waiting_queue *q) {
    waiting *w = &s->waiting;
    uint64_t least = w->first == NO_SLOT ? w->least : UINT64_MAX;
    for (uint32_t i = w->first; i != NO_SLOT; i = w->queue[i].next)
        if (w->queue[i].served < least) least = w->queue[i].served;
    if (q->served < least) q->served = least;
    q->prev = NO_SLOT;
    q->next = w->first;
    if (w->first != NO_SLOT) w->queue[w->first].prev = (uint32_t)(q - w->queue);
    w->first = (uint32_t)(q - w->queue);
}

static void leave(sched *s, const waiting_queue *q) {
    waiting *w = &s->waiting;
    *(q->prev == NO_SLOT ? &w->first : &w->queue[q->prev].next) = q->next;
    if (q->next != NO_SLOT) w->queue[q->next].prev = q->prev;
}

/* Searched from the tail: at once where keys grow with arrival. */
void waiting_add(sched *s, uint32_t record) {
    seq_record *r = &s->record[record];
    waiting_queue *q = queue_of(s, r);
    CHECK(!r->queued);
    if (q->head == NO_SLOT) join(s, q);
    const uint32_t weight = r->spec.weight ? r->spec.weight : 1;
    q->weight = min_u32(weight, WAITING_MAX_WEIGHT);
    uint32_t after = q->tail;
    while (after != NO_SLOT && before(r, &s->record[after])) after = s->record[after].wait_prev;
    r->wait_prev = after;
    r->wait_next = after == NO_SLOT ? q->head : s->record[after].wait_next;
    *(after == NO_SLOT ? &q->head : &s->record[after].wait_next) = record;
    *(r->wait_next == NO_SLOT ? &q->tail : &s->record[r->wait_next].wait_prev) = record;
    r->queued = true;
    s->waiting.n++;
    s->waiting.n_changes++;
}

bool waiting_remove(sched *s, uint32_t record) {
    seq_record *r = &s->record[record];
    waiting_queue *q = queue_of(s, r);
    if (!r->queued) return false;
    *(r->wait_prev == NO_SLOT ? &q->head : &s->record[r->wait_prev].wait_next) = r->wait_next;
    *(r->wait_next == NO_SLOT ? &q->tail : &s->record[r->wait_next].wait_prev) = r->wait_prev;
    r->queued = false;
    s->waiting.n--;
    s->waiting.n_changes++;
    if (q->head == NO_SLOT) {
        s->waiting.least = q->served;
        leave(s, q);
    }
    return true;
}

uint32_t waiting_next(const sched *s) {
    const waiting *w = &s->waiting;
    const waiting_queue *best = NULL;
    for (uint32_t i = w->first; i != NO_SLOT; i = w->queue[i].next) {
        const waiting_queue *q = &w->queue[i];
        if (!best) {
            best = q;
            continue;
        }
        const seq_record *a = &s->record[q->head], *b = &s->record[best->head];
        if (a->key != b->key            ? a->key < b->key
            : q->served != best->served ? q->served < best->served
                                        : a->arrival < b->arrival)
            best = q;
    }
    return best ? best->head : NO_SLOT;
}

void waiting_passed(sched *s, uint32_t record, uint32_t by) {
    for (uint32_t i = record; i != by; i = s->record[i].wait_next) {
        CHECK(i != NO_SLOT && s->record[i].n_passed < SCHED_MAX_PASSES);
        s->record[i].n_passed++;
    }
}

/* Units of service; negative: given back. */
static void serve(sched *s, const seq_record *r, int64_t n) {
    waiting_queue *q = queue_of(s, r);
    if (s->waiting.n_queues > 1)
        q->served += (uint64_t)(n * WAITING_SCALE / (int64_t)q->weight);
}

void waiting_admitted(sched *s, uint32_t record, uint32_t n_cached) {
    seq_record *r = &s->record[record];
    r->n_charged = r->spec.n_prompt - n_cached;
    serve(s, r, (int64_t)r->n_charged * WAITING_PROMPT);
}

void waiting_generated(sched *s, uint32_t record, uint32_t n_output) {
    seq_record *r = &s->record[record];
    serve(s, r, (int64_t)(n_output - r->n_output_charged) * WAITING_OUTPUT);
    r->n_output_charged = n_output;
}

void waiting_ended(sched *s, uint32_t record, uint32_t n_output) {
    seq_record *r = &s->record[record];
    const uint32_t left = r->spec.n_prompt - r->n_reported; /* was never computed */
    waiting_generated(s, record, n_output);
    serve(s, r, -(int64_t)min_u32(left, r->n_charged) * WAITING_PROMPT);
}

void waiting_audit(const sched *s) {
    const waiting *w = &s->waiting;
    uint32_t n = 0, n_queues = 0, prev = NO_SLOT;
    for (uint32_t i = w->first; i != NO_SLOT; prev = i, i = w->queue[i].next) {
        const waiting_queue *q = &w->queue[i];
        uint32_t last = NO_SLOT;
        CHECK(++n_queues <= w->n_queues && q->prev == prev && q->head != NO_SLOT);
        for (uint32_t k = q->head; k != NO_SLOT; last = k, k = s->record[k].wait_next) {
            const seq_record *r = &s->record[k];
            CHECK(++n <= w->n && r->queued && queue_of(s, r) == q && r->wait_prev == last);
            CHECK(last == NO_SLOT || before(&s->record[last], r));
            CHECK(r->n_passed <= SCHED_MAX_PASSES);
        }
        CHECK(q->tail == last);
    }
    CHECK(n == w->n);
}
