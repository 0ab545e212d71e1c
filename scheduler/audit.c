/* Every invariant of the scheduler, checked from scratch: tests, simulator and fuzzer call it
 * after each operation. Linear in everything; never called while serving. */
#include "scheduler/state.h"

static void audit_blocks_held(const sched *s, const seq_hot *h) {
    CHECK(h->n_blocks <= s->blocks_per_seq);
    CHECK(h->next_pos <= positions_needed(h->n_prompt, h->limit));
    if (h->prefilled) {
        CHECK(h->next_pos + (h->limit > h->n_prompt) ==
              h->len + h->pending + (h->pending ? h->n_draft : 0));
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
    CHECK(r && r->slot == slot && r->n_admission > 0 && r->n_admission <= s->n_admissions);
    CHECK(h->n_prompt == r->spec.n_prompt && h->limit == h->n_prompt + r->spec.max_tokens);
    CHECK(h->n_prompt <= h->len && h->len + h->pending <= h->limit);
    CHECK(h->limit <= s->cfg.max_model_len && r->n_reported <= h->n_prompt);
    CHECK(h->n_draft == 0 || h->pending == 1 || (h->state == SEQ_DECODE && h->pending == 0));
    CHECK(h->len + h->n_draft < h->limit || h->n_draft == 0);
    CHECK(!h->lockstep || h->pending <= 1);
    CHECK(h->pending <= h->inflight && h->inflight <= s->n_planned - s->n_committed);
    CHECK(!s->record[record_of(h->id)].queued);
    CHECK(heap_has(&s->deadlines, record_of(h->id)) == (r->spec.deadline_us > 0));
    if (h->n_blocks > 0)
        audit_blocks_held(s, h);
    else
        CHECK(!h->prefilled && h->next_pos == 0);
}

/* Walks a list that must be in order of seniority, behind last, or NULL; returns the last one.
 */
static const seq_record *audit_list(const sched *s, const slot_list *l, bool running,
                                    const seq_record *last) {
    uint32_t n = 0, prev = NO_SLOT;
    for (uint32_t slot = l->head; slot != NO_SLOT; slot = s->hot[slot].run.next) {
        CHECK(slot < s->cfg.max_seqs && ++n <= l->n);
        CHECK(s->hot[slot].run.prev == prev);
        unsigned state = s->hot[slot].state;
        CHECK(running ? state == SEQ_PREFILL || state == SEQ_DECODE || state == SEQ_LOADING
                      : state == SEQ_PREEMPTED);
        CHECK(running == (s->hot[slot].n_blocks > 0));
        CHECK(s->hot[slot].prefilled == (state == SEQ_DECODE));
        const seq_record *own = &s->record[record_of(s->hot[slot].id)];
        CHECK(!last || is_senior(last, own));
        last = own;
        prev = slot;
    }
    CHECK(n == l->n && l->tail == prev);
    return last;
}

static void audit_prefilling(const sched *s) {
    uint32_t n = 0, prev = NO_SLOT, n_state = 0;
    const seq_record *last = NULL;
    for (uint32_t slot = s->prefilling.head; slot != NO_SLOT;
         slot = s->hot[slot].prefill.next) {
        CHECK(slot < s->cfg.max_seqs && ++n <= s->prefilling.n);
        CHECK(s->hot[slot].state == SEQ_PREFILL && s->hot[slot].prefill.prev == prev);
        const seq_record *own = &s->record[record_of(s->hot[slot].id)];
        CHECK(!last || is_senior(last, own));
        last = own;
        prev = slot;
    }
    CHECK(n == s->prefilling.n && s->prefilling.tail == prev);
    for (uint32_t i = 0; i < s->cfg.max_seqs; i++) n_state += s->hot[i].state == SEQ_PREFILL;
    CHECK(n_state == n);
}

static void audit_paused(const sched *s) {
    uint32_t n = 0, n_paused = 0, n_parked = 0, prev = NO_SLOT;
    uint64_t held[SCHED_MAX_GROUPS] = {0};
    for (uint32_t slot = s->parked.head; slot != NO_SLOT; slot = s->hot[slot].run.next) {
        CHECK(slot < s->cfg.max_seqs && ++n <= s->parked.n);
        CHECK(s->hot[slot].state == SEQ_PAUSED && s->hot[slot].run.prev == prev);
        for (uint32_t k = 0; k < s->n_groups; k++)
            held[k] += group_part(&s->group[k], s->hot[slot].n_blocks);
        prev = slot;
    }
    for (uint32_t i = 0; i < s->cfg.max_seqs; i++) {
        bool paused = s->hot[i].state == SEQ_PAUSED;
        n_paused += paused;
        n_parked += paused && s->hot[i].n_blocks > 0;
    }
    CHECK(n == s->parked.n && n == n_parked && s->parked.tail == prev);
    CHECK(n_paused == s->n_paused);
    for (uint32_t k = 0; k < s->n_groups; k++) CHECK(held[k] == s->group[k].parked);
    CHECK(s->ever_paused || n_paused == 0);
}

static void audit_slots(const sched *s) {
    uint32_t n_free = 0, n_ended = 0, n_drafting = 0;
    for (uint32_t slot = s->free_slot; slot != NO_SLOT; slot = s->hot[slot].run.next) {
        CHECK(slot < s->cfg.max_seqs && ++n_free <= s->cfg.max_seqs);
        CHECK(s->hot[slot].state == SEQ_FREE && s->hot[slot].n_blocks == 0);
    }
    for (uint32_t slot = 0; slot < s->cfg.max_seqs; slot++) {
        const seq_hot *h = &s->hot[slot];
        if (h->state == SEQ_FREE) continue;
        n_drafting += h->n_draft > 0 && h->pending == 0;
        if (h->state != SEQ_ENDED) {
            audit_hot(s, slot);
            continue;
        }
        n_ended++;
        CHECK(h->n_blocks == 0 && h->inflight > 0);
        CHECK(record_find(s, h->id) && record_find(s, h->id)->finish != FINISH_NONE);
        CHECK(!heap_has(&s->deadlines, record_of(h->id)));
    }
    CHECK(n_drafting == s->n_drafting);
    CHECK(n_free == s->n_free_slots && n_ended == s->n_ended);
    CHECK(n_free + n_ended + s->running.n + s->preempted.n + s->n_paused == s->cfg.max_seqs);
}

static void audit_records(const sched *s) {
    uint32_t n_free = 0, n_waiting = 0, n_slotted = 0, n_dormant = 0;
    uint64_t waiting_tokens = 0;
    for (uint32_t i = s->free_record; i != NO_SLOT; i = s->record[i].slot) {
        CHECK(i < s->n_records && ++n_free <= s->n_records);
        CHECK(s->record[i].generation % 2 == 0);
        CHECK(!s->record[i].queued && !heap_has(&s->deadlines, i));
    }
    for (uint32_t i = 0; i < s->n_records; i++) {
        const seq_record *r = &s->record[i];
        if (r->generation % 2 == 0) continue;
        for (uint32_t m = r->fork_head; m != NO_SLOT; m = s->record[m].fork_next) {
            CHECK(++n_dormant <= s->n_dormant && s->record[m].leader == i);
            CHECK(s->record[m].slot == NO_SLOT && !s->record[m].queued);
            CHECK(r->n_reported < r->spec.n_prompt);
        }
        if (r->slot == NO_SLOT) {
            n_waiting++;
            waiting_tokens += r->spec.n_prompt;
            CHECK(r->ticket == 0 && r->n_admission == 0);
            CHECK(heap_has(&s->deadlines, i) == (r->spec.deadline_us > 0));
        } else {
            n_slotted++;
            CHECK(r->slot < s->cfg.max_seqs && record_of(s->hot[r->slot].id) == i);
        }
    }
    /* Those that no leader's list has are in the queue. */
    CHECK(n_dormant == s->n_dormant);
    CHECK(n_waiting == s->waiting.n + n_dormant && waiting_tokens == s->waiting_tokens);
    CHECK(n_waiting <= s->cfg.max_waiting);
    CHECK(n_slotted == s->cfg.max_seqs - s->n_free_slots);
    CHECK(n_free + n_waiting + n_slotted == s->n_records);
    waiting_audit(s);
    heap_audit(&s->deadlines);
}

/* Uncommitted steps: within the budgets, decode rows first, consecutive, and everybody's
 * inflight and pending counts are what the steps say. */
static void audit_steps(const sched *s) {
    uint64_t inflight = 0, pending = 0, have_inflight = 0, have_pending = 0;
    CHECK(s->n_planned - s->n_committed <= s->depth);
    for (uint64_t number = s->n_committed + 1; number <= s->n_planned; number++) {
        const sched_step *st = &s->step[number & 1];
        uint32_t rows = 0, logits = 0, decode_rows = 0;
        CHECK(st->number == number && st->n_seqs > 0);
        for (uint32_t i = 0; i < st->n_seqs; i++) {
            const sched_step_seq *e = &st->seq[i];
            const seq_hot *h = &s->hot[e->slot];
            CHECK(h->state != SEQ_FREE && h->inflight > 0);
            CHECK(e->first_row == rows && e->n_rows > 0 && e->n_logit_rows <= e->n_rows);
            CHECK((uint64_t)e->first_pos + e->n_rows <= s->cfg.max_model_len);
            CHECK(e->n_blocks == blocks_for(s, e->first_pos + e->n_rows));
            CHECK(!e->sample || e->n_logit_rows > 0);
            CHECK(e->n_draft <= SCHED_MAX_DRAFT);
            if (i < st->n_decode_seqs)
                CHECK(e->n_rows == 1U + e->n_draft && e->n_logit_rows == e->n_rows &&
                      e->sample);
            else
                CHECK(e->n_draft == 0);
            if (e->n_draft > 0 && h->state != SEQ_ENDED) CHECK(h->n_draft == e->n_draft);
            decode_rows += i < st->n_decode_seqs ? e->n_rows : 0;
            if (number == s->n_planned) CHECK(h->newest_entry == i);
            if (number == s->n_planned) CHECK(h->newest_parity == (number & 1));
            rows += e->n_rows;
            logits += e->n_logit_rows;
            inflight++;
            pending += e->sample;
        }
        CHECK(rows == st->n_rows && rows <= s->cfg.max_rows);
        CHECK(rows == st->n_decode_rows + st->n_prefill_rows &&
              decode_rows == st->n_decode_rows);
        CHECK(logits == st->n_logit_rows && logits <= s->cfg.max_logit_rows);
    }
    for (uint32_t i = 0; i < s->cfg.max_seqs; i++) {
        if (s->hot[i].state == SEQ_FREE) continue;
        have_inflight += s->hot[i].inflight;
        have_pending += s->hot[i].pending;
    }
    CHECK(inflight == have_inflight && pending == have_pending);
}

/* Positions that committed steps have written. */
static uint32_t committed_positions(const sched *s, uint32_t slot) {
    uint32_t n = s->hot[slot].next_pos;
    for (uint64_t number = s->n_committed + 1; number <= s->n_planned; number++) {
        const sched_step *st = &s->step[number & 1];
        for (uint32_t i = 0; i < st->n_seqs; i++)
            if (st->seq[i].slot == slot) n -= st->seq[i].n_rows;
    }
    return n;
}

/* A cached block that a sequence holds is full, committed, and has the text it is found by. */
static void audit_cached(const sched *s, const seq_group *g, uint32_t slot, uint32_t i,
                         uint32_t n_committed) {
    const uint32_t bs = s->cfg.block_tokens;
    int32_t block = table_of(s, g, slot)[i];
    if (!(g->kv.flags[block] & BLOCK_CACHED)) return;
    CHECK((i + 1) * bs <= n_committed);
    if (!g->index.tokens) return;
    const int32_t *own = tokens_of(s, slot) + (size_t)i * bs;
    for (uint32_t t = 0; t < bs; t++) CHECK(g->index.tokens[(size_t)block * bs + t] == own[t]);
}

/* Uncommitted copies that read the block. */
static uint32_t pins_of(const sched *s, uint32_t k, int32_t block) {
    uint32_t n = 0;
    for (uint64_t number = s->n_committed + 1; number <= s->n_planned; number++) {
        const sched_step *st = &s->step[number & 1];
        for (uint32_t i = 0; i < st->n_copies - st->n_moves; i++)
            n += st->copy[i].group == k && st->copy[i].from == block;
    }
    return n;
}

/* Held by no sequence, and given to none. */
static bool is_out(const blocks *kv, int32_t block) {
    return (uint32_t)block >= kv->limit && kv->ref[block] == 0;
}

/* A block that an uncommitted step touches is in use, fenced or out. One that it writes to is given
 * to nobody else, even if the sequence has lost it. */
static void audit_touched(const sched *s, uint32_t k, const sched_step_seq *e) {
    const seq_group *g = &s->group[k];
    const uint32_t first_written = e->first_pos / s->cfg.block_tokens;
    for (uint32_t i = first_seen(s, g, e->first_pos); i < e->n_blocks; i++) {
        int32_t b = table_of(s, g, e->slot)[i];
        CHECK(b >= 0 && (uint32_t)b < g->kv.n);
        bool fenced = g->kv.flags[b] & BLOCK_FENCED;
        CHECK(g->kv.ref[b] > 0 || fenced || is_out(&g->kv, b));
        if (i >= first_written && s->hot[e->slot].n_blocks == 0)
            CHECK(fenced || g->kv.ref[b] == pins_of(s, k, b));
    }
}

static void audit_in_flight(const sched *s, uint32_t k) {
    const blocks *kv = &s->group[k].kv;
    for (uint64_t number = s->n_committed + 1; number <= s->n_planned; number++) {
        const sched_step *st = &s->step[number & 1];
        for (uint32_t i = 0; i < st->n_seqs; i++) audit_touched(s, k, &st->seq[i]);
        for (uint32_t i = 0; i < st->n_copies; i++) {
            const sched_step_copy *c = &st->copy[i];
            if (c->group != k) continue;
            const bool moved = i >= st->n_copies - st->n_moves;
            CHECK(c->from != c->to);
            CHECK(moved ? is_out(kv, c->from) : kv->ref[c->from] > 0);
            CHECK(kv->ref[c->to] > 0 || (kv->flags[c->to] & BLOCK_FENCED) || is_out(kv, c->to));
        }
    }
}

/* All full blocks of committed positions are published. */
static void audit_chain(const sched *s, uint32_t slot, uint32_t n_committed) {
    const uint32_t n = s->chain[slot].n;
    if (!s->cfg.prefix_cache) return;
    CHECK(n == CHAIN_BROKEN || n == n_committed / s->cfg.block_tokens);
}

static void audit_group(const sched *s, uint32_t k) {
    const seq_group *g = &s->group[k];
    uint64_t n_held = g->n_pinned, reserved = g->n_pinned, pins = 0;
    for (uint32_t slot = 0; slot < s->cfg.max_seqs; slot++) {
        const seq_hot *h = &s->hot[slot];
        if (h->state == SEQ_FREE || h->n_blocks == 0) continue;
        const uint32_t n_committed = committed_positions(s, slot);
        uint32_t first = 0, n = h->n_blocks;
        reserved += group_part(g, n);
        if (g->window) {
            first = g->held[slot].first;
            n = g->held[slot].n;
            CHECK(first <= n && n <= h->n_blocks &&
                  n - first <= group_part(g, h->n_blocks) + g->rows);
            const uint32_t pos = h->state == SEQ_LOADING ? load_end(s, slot) : n_committed;
            CHECK(first <= first_seen(s, g, pos)); /* never on planned positions */
            CHECK(n >= blocks_for(s, h->next_pos));
        }
        audit_chain(s, slot, n_committed);
        for (uint32_t i = first; i < n; i++, n_held++) {
            int32_t b = table_of(s, g, slot)[i];
            CHECK(b >= 0 && (uint32_t)b < g->kv.n && g->kv.ref[b] > 0);
            if ((i + 1) * s->cfg.block_tokens > n_committed) /* rows may still write to it */
                CHECK(g->kv.ref[b] == 1 + pins_of(s, k, b));
            audit_cached(s, g, slot, i, n_committed);
        }
    }
    for (uint64_t number = s->n_committed + 1; number <= s->n_planned; number++)
        for (uint32_t i = 0; i < s->step[number & 1].n_copies - s->step[number & 1].n_moves;
             i++)
            pins += s->step[number & 1].copy[i].group == k;
    CHECK(pins == g->n_pinned);
    if (g->window)
        CHECK(reserved == g->reserved && reserved + blocks_fenced(&g->kv) <= g->kv.limit);
    blocks_audit(&g->kv, n_held);
    CHECK(s->resizing || (g->kv.limit == g->target && g->kv.n_leaving == 0));
    audit_in_flight(s, k);
    if (s->cfg.prefix_cache) prefix_audit(&g->index, g->kv.flags);
    if (s->n_planned > s->n_committed) return;
    CHECK(blocks_fenced(&g->kv) == 0);
    if (s->running.n + s->parked.n == 0) CHECK(g->kv.n_free == g->kv.limit);
}

void sched_audit(const sched *s) {
    const seq_record *last = audit_list(s, &s->running, true, NULL);
    /* A senior behind a junior can only come from a pause. */
    audit_list(s, &s->preempted, false, s->ever_paused ? NULL : last);
    audit_paused(s);
    audit_prefilling(s);
    audit_slots(s);
    audit_records(s);
    audit_steps(s);
    for (uint32_t k = 0; k < s->n_groups; k++) audit_group(s, k);
    load_audit(s);
    if (has_states(s)) state_audit(s);
}
