/* Every invariant of the scheduler, checked from scratch: tests, simulator and fuzzer call it
 * after each operation. Linear in everything; never called while serving. */
#include "scheduler/state.h"

static void audit_blocks_held(const sched *s, const seq_hot *h) {
    CHECK(h->n_blocks <= s->blocks_per_seq);
    CHECK(h->next_pos <= positions_needed(h->n_prompt, h->limit));
    if (h->prefilled) {
        CHECK(h->next_pos + (h->limit > h->n_prompt) == h->len + h->pending);
        CHECK(h->n_blocks == blocks_for(s, h->next_pos));
    } else {
        CHECK(h->next_pos < h->len && h->pending == 0);
        CHECK(h->n_blocks == blocks_for(s, h->len)); /* everything it needs from the start */
    }
}

/* What holds for every slot with a live sequence. */
static void audit_hot(const sched *s, uint32_t slot) {
    const seq_hot *h = &s->hot[slot];
    const seq_record *r = record_find(s, h->id);
    CHECK(r && r->slot == slot && r->ticket > 0 && r->ticket <= s->n_tickets);
    CHECK(h->n_prompt == r->spec.n_prompt && h->limit == h->n_prompt + r->spec.max_tokens);
    CHECK(h->n_prompt <= h->len && h->len + h->pending <= h->limit);
    CHECK(h->limit <= s->cfg.max_model_len && r->n_reported <= h->n_prompt);
    CHECK(h->pending <= h->inflight && h->inflight <= s->n_planned - s->n_committed);
    CHECK(!heap_has(&s->waiting, record_of(h->id)));
    CHECK(heap_has(&s->deadlines, record_of(h->id)) == (r->spec.deadline_us > 0));
    if (h->n_blocks > 0)
        audit_blocks_held(s, h);
    else
        CHECK(!h->prefilled && h->next_pos == 0);
}

/* Walks a list that must be in ticket order from ticket on; returns the highest ticket. Adds
 * its blocks to *n_blocks. */
static uint64_t audit_list(const sched *s, const slot_list *l, bool running, uint64_t ticket,
                           uint64_t *n_blocks) {
    uint32_t n = 0, prev = NO_SLOT;
    for (uint32_t slot = l->head; slot != NO_SLOT; slot = s->hot[slot].next) {
        CHECK(slot < s->cfg.max_seqs && ++n <= l->n);
        CHECK(s->hot[slot].prev == prev);
        unsigned state = s->hot[slot].state;
        CHECK(running ? state == SEQ_PREFILL || state == SEQ_DECODE : state == SEQ_PREEMPTED);
        CHECK(running == (s->hot[slot].n_blocks > 0));
        CHECK(s->hot[slot].prefilled == (state == SEQ_DECODE));
        uint64_t own = s->record[record_of(s->hot[slot].id)].ticket;
        CHECK(own > ticket);
        ticket = own;
        *n_blocks += s->hot[slot].n_blocks;
        prev = slot;
    }
    CHECK(n == l->n && l->tail == prev);
    return ticket;
}

static void audit_prefilling(const sched *s) {
    uint32_t n = 0, prev = NO_SLOT, n_state = 0;
    uint64_t ticket = 0;
    for (uint32_t slot = s->prefilling.head; slot != NO_SLOT;
         slot = s->hot[slot].prefill_next) {
        CHECK(slot < s->cfg.max_seqs && ++n <= s->prefilling.n);
        CHECK(s->hot[slot].state == SEQ_PREFILL && s->hot[slot].prefill_prev == prev);
        uint64_t own = s->record[record_of(s->hot[slot].id)].ticket;
        CHECK(own > ticket);
        ticket = own;
        prev = slot;
    }
    CHECK(n == s->prefilling.n && s->prefilling.tail == prev);
    for (uint32_t i = 0; i < s->cfg.max_seqs; i++) n_state += s->hot[i].state == SEQ_PREFILL;
    CHECK(n_state == n);
}

/* Adds what parked sequences hold to *n_blocks. */
static void audit_paused(const sched *s, uint64_t *n_blocks) {
    uint32_t n = 0, n_paused = 0, n_parked = 0, prev = NO_SLOT;
    uint64_t held = 0;
    for (uint32_t slot = s->parked.head; slot != NO_SLOT; slot = s->hot[slot].next) {
        CHECK(slot < s->cfg.max_seqs && ++n <= s->parked.n);
        CHECK(s->hot[slot].state == SEQ_PAUSED && s->hot[slot].prev == prev);
        held += s->hot[slot].n_blocks;
        prev = slot;
    }
    for (uint32_t i = 0; i < s->cfg.max_seqs; i++) {
        bool paused = s->hot[i].state == SEQ_PAUSED;
        n_paused += paused;
        n_parked += paused && s->hot[i].n_blocks > 0;
    }
    CHECK(n == s->parked.n && n == n_parked && s->parked.tail == prev);
    CHECK(n_paused == s->n_paused && held == s->parked_blocks);
    CHECK(s->ever_paused || n_paused == 0);
    *n_blocks += held;
}

static void audit_slots(const sched *s) {
    uint32_t n_free = 0, n_ended = 0;
    for (uint32_t slot = s->free_slot; slot != NO_SLOT; slot = s->hot[slot].next) {
        CHECK(slot < s->cfg.max_seqs && ++n_free <= s->cfg.max_seqs);
        CHECK(s->hot[slot].state == SEQ_FREE && s->hot[slot].n_blocks == 0);
    }
    for (uint32_t slot = 0; slot < s->cfg.max_seqs; slot++) {
        const seq_hot *h = &s->hot[slot];
        if (h->state == SEQ_FREE) continue;
        if (h->state != SEQ_ENDED) {
            audit_hot(s, slot);
            continue;
        }
        n_ended++;
        CHECK(h->n_blocks == 0 && h->inflight > 0);
        CHECK(record_find(s, h->id) && record_find(s, h->id)->finish != FINISH_NONE);
        CHECK(!heap_has(&s->deadlines, record_of(h->id)));
    }
    CHECK(n_free == s->n_free_slots && n_ended == s->n_ended);
    CHECK(n_free + n_ended + s->running.n + s->preempted.n + s->n_paused == s->cfg.max_seqs);
}

static void audit_records(const sched *s) {
    uint32_t n_free = 0, n_waiting = 0, n_slotted = 0;
    uint64_t waiting_tokens = 0;
    for (uint32_t i = s->free_record; i != NO_SLOT; i = s->record[i].slot) {
        CHECK(i < s->n_records && ++n_free <= s->n_records);
        CHECK(s->record[i].generation % 2 == 0);
        CHECK(!heap_has(&s->waiting, i) && !heap_has(&s->deadlines, i));
    }
    for (uint32_t i = 0; i < s->n_records; i++) {
        const seq_record *r = &s->record[i];
        if (r->generation % 2 == 0) continue;
        if (r->slot == NO_SLOT) {
            n_waiting++;
            waiting_tokens += r->spec.n_prompt;
            CHECK(r->ticket == 0 && heap_has(&s->waiting, i));
            CHECK(heap_has(&s->deadlines, i) == (r->spec.deadline_us > 0));
        } else {
            n_slotted++;
            CHECK(r->slot < s->cfg.max_seqs && record_of(s->hot[r->slot].id) == i);
        }
    }
    CHECK(n_waiting == s->waiting.n && waiting_tokens == s->waiting_tokens);
    CHECK(n_waiting <= s->cfg.max_waiting);
    CHECK(n_slotted == s->cfg.max_seqs - s->n_free_slots);
    CHECK(n_free + n_waiting + n_slotted == s->n_records);
    heap_audit(&s->waiting);
    heap_audit(&s->deadlines);
}

/* Uncommitted steps: within the budgets, decode rows first, consecutive, and everybody's
 * inflight and pending counts are what the steps say. */
static void audit_steps(const sched *s) {
    uint64_t inflight = 0, pending = 0, have_inflight = 0, have_pending = 0;
    CHECK(s->n_planned - s->n_committed <= 2);
    for (uint64_t number = s->n_committed + 1; number <= s->n_planned; number++) {
        const step *st = &s->step[number & 1];
        uint32_t rows = 0, logits = 0;
        CHECK(st->number == number && st->n_seqs > 0);
        for (uint32_t i = 0; i < st->n_seqs; i++) {
            const step_seq *e = &st->seq[i];
            const seq_hot *h = &s->hot[e->slot];
            CHECK(h->state != SEQ_FREE && h->inflight > 0);
            CHECK(e->first_row == rows && e->n_rows > 0 && e->n_logit_rows <= e->n_rows);
            CHECK((uint64_t)e->first_pos + e->n_rows <= s->cfg.max_model_len);
            CHECK(e->n_blocks == blocks_for(s, e->first_pos + e->n_rows));
            CHECK(!e->sample || e->n_logit_rows > 0);
            if (i < st->n_decode_rows) CHECK(e->n_rows == 1 && e->sample);
            if (number == s->n_planned) CHECK(h->newest_entry == i);
            if (number == s->n_planned) CHECK(h->newest_parity == (number & 1));
            rows += e->n_rows;
            logits += e->n_logit_rows;
            inflight++;
            pending += e->sample;
        }
        CHECK(rows == st->n_rows && rows <= s->cfg.max_rows);
        CHECK(rows == st->n_decode_rows + st->n_prefill_rows);
        CHECK(logits == st->n_logit_rows && logits <= s->cfg.max_logit_rows);
    }
    for (uint32_t i = 0; i < s->cfg.max_seqs; i++) {
        if (s->hot[i].state == SEQ_FREE) continue;
        have_inflight += s->hot[i].inflight;
        have_pending += s->hot[i].pending;
    }
    CHECK(inflight == have_inflight && pending == have_pending);
}

void sched_audit(const sched *s) {
    uint64_t n_blocks = 0;
    uint64_t ticket = audit_list(s, &s->running, true, 0, &n_blocks);
    /* A senior behind a junior can only come from a pause. */
    audit_list(s, &s->preempted, false, s->ever_paused ? 0 : ticket, &n_blocks);
    audit_paused(s, &n_blocks);
    audit_prefilling(s);
    audit_slots(s);
    audit_records(s);
    audit_steps(s);
    blocks_audit(&s->kv, n_blocks);
    /* What table rows name is in use: with the sums above, by exactly one of them. */
    for (uint32_t slot = 0; slot < s->cfg.max_seqs; slot++) {
        for (uint32_t i = 0; i < s->hot[slot].n_blocks; i++) {
            int32_t b = s->table[(size_t)slot * s->blocks_per_seq + i];
            CHECK(b >= 0 && (uint32_t)b < s->kv.n && s->kv.ref[b] > 0);
        }
    }
    if (s->n_planned == s->n_committed) CHECK(blocks_fenced(&s->kv) == 0);
    if (s->n_planned == s->n_committed && s->running.n + s->parked.n == 0) {
        CHECK(s->kv.n_free == s->kv.n);
    }
}
