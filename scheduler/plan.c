/* Planning a step under one budget of rows: a row for every decoding sequence first, then the
 * running prefills, then preempted ones that fit again, then new ones.
 *
 * Blocks. A prefill gets all blocks of its length when it starts, so only decode rows need
 * more, one at a time, senior first. Without a free one, a sequence first waits for blocks
 * that uncommitted steps fence; then it takes those of a paused sequence; then it evicts the
 * most junior running one; if that is itself, it keeps what it holds and waits (a senior may
 * evict it: no hold-and-wait).
 *
 * Progress. The most senior never waits for longer than the fences of two steps: whatever it
 * needs is free, fenced, or held by juniors, because alone it fits (checked at submit). Decode
 * rows come first and max_rows >= max_seqs, so it always gets a row; so it ends, and the next
 * one is the most senior. Hence every admitted sequence ends. */
#include "scheduler/state.h"

/* A resumed sequence must have room for so many more tokens, or it would be evicted again at
 * once. */
enum { RESUME_SLACK = 64 };

typedef struct planner {
    sched *s;
    step_seq *entry;
    uint32_t n, n_decode;
    uint32_t rows_left, logits_left;
    uint32_t share;   /* rows of one prompt while another waits */
    uint32_t claimed; /* fenced blocks that waiting decode rows count on */
    uint8_t parity;
} planner;

static bool out_of_time(const sched *s, uint64_t now_us) {
    return s->deadlines.n > 0 && s->deadlines.node[0].key <= now_us;
}

static void end_expired(sched *s, uint64_t now_us) {
    while (out_of_time(s, now_us)) {
        uint32_t i = s->deadlines.node[0].item;
        if (s->record[i].slot == NO_SLOT)
            seq_end_waiting(s, i, FINISH_TIMEOUT);
        else
            seq_end(s, s->record[i].slot, FINISH_TIMEOUT, -1);
    }
}

/* Whether want blocks are free, those of parked sequences taken if that helps. */
static bool make_room(planner *p, uint32_t want) {
    sched *s = p->s;
    if ((uint64_t)s->kv.n_free + blocks_fenced(&s->kv) + s->parked_blocks < want) return false;
    while (s->kv.n_free + blocks_fenced(&s->kv) - p->claimed < want && s->parked.n > 0) {
        seq_preempt(s, s->parked.head);
    }
    return s->kv.n_free >= want;
}

/* One more block for a decoding sequence, taken from juniors if need be. */
static bool find_block(planner *p, uint32_t slot) {
    sched *s = p->s;
    while (!make_room(p, 1)) {
        if (blocks_fenced(&s->kv) > p->claimed) {
            p->claimed++; /* comes free with a commit */
            return false;
        }
        if (s->running.tail == slot) return false;
        seq_preempt(s, s->running.tail);
    }
    seq_grow(s, slot);
    return true;
}

static step_seq *add_entry(planner *p, uint32_t slot) {
    seq_hot *h = &p->s->hot[slot];
    step_seq *e = &p->entry[p->n];
    /* Field by field: padding keeps its zeroes, so equal plans are equal bytes. */
    e->user = h->user;
    e->slot = slot;
    e->first_row = 0;
    e->n_rows = 0;
    e->first_pos = h->next_pos;
    e->input_from = h->pending > 0 ? (int32_t)h->newest_entry : -1;
    e->n_logit_rows = 0;
    e->n_blocks = h->n_blocks;
    e->n_prompt = h->n_prompt;
    e->sample = false;
    e->score = h->score;
    return e;
}

static void keep_entry(planner *p, uint32_t slot) {
    seq_hot *h = &p->s->hot[slot];
    h->newest_entry = p->n++;
    h->newest_parity = p->parity;
    h->inflight++;
}

static void plan_decode(planner *p) {
    sched *s = p->s;
    uint32_t next;
    for (uint32_t slot = s->running.head; slot != NO_SLOT; slot = next) {
        seq_hot *h = &s->hot[slot];
        if (h->state == SEQ_DECODE && h->len + h->pending < h->limit &&
            (h->next_pos < h->n_blocks * s->cfg.block_tokens || find_block(p, slot))) {
            step_seq *e = add_entry(p, slot);
            e->first_row = p->n;
            e->n_rows = e->n_logit_rows = 1;
            e->sample = true;
            e->score = false;
            keep_entry(p, slot);
            h->next_pos++;
            h->pending++;
        }
        next = h->next; /* only now: find_block may have evicted it */
    }
    p->n_decode = p->n;
    CHECK(p->n <= p->rows_left && p->n <= p->logits_left);
    p->rows_left -= p->n;
    p->logits_left -= p->n;
}

/* Extends e, the newest entry of a prefilling sequence, by as many of its rows as there is room
 * for. Its last row samples the next token, unless only scores were wanted. */
static void extend_chunk(planner *p, step_seq *e, uint32_t max_rows, uint32_t max_logits) {
    sched *s = p->s;
    seq_hot *h = &s->hot[e->slot];
    uint32_t left = h->len - h->next_pos, n = min_u32(left, max_rows), logits = 0;
    uint32_t silent = left; /* rows before the first that has to be scored */
    if (h->score) {
        uint32_t told = s->record[record_of(h->id)].n_reported;
        if (told < h->n_prompt) silent = told > h->next_pos ? told - h->next_pos : 0;
    }
    if (n > silent) {
        logits = min_u32(n - silent, max_logits);
        n = silent + logits;
    }
    bool samples = n == left && h->len < h->limit;
    if (samples && logits == 0) {
        if (max_logits > 0)
            logits = 1;
        else
            samples = false, n--;
    }
    e->n_rows += n;
    e->n_logit_rows += logits;
    e->sample = samples;
    h->next_pos += n;
    p->rows_left -= n;
    p->logits_left -= logits;
}

/* A chunk of slot's prompt. False when there was no room for a single row. */
static bool plan_chunk(planner *p, uint32_t slot) {
    sched *s = p->s;
    seq_hot *h = &s->hot[slot];
    bool alone = s->prefilling.n == 1 && s->preempted.n == 0 && s->waiting.n == 0;
    uint32_t rows = p->rows_left, logits = p->logits_left;
    if (!alone) {
        rows = min_u32(rows, p->share);
        logits = (logits + 1) / 2;
    }
    step_seq *e = add_entry(p, slot);
    extend_chunk(p, e, rows, logits);
    if (e->n_rows == 0) return false;
    keep_entry(p, slot);
    h->pending += e->sample;
    if (h->next_pos == h->len) seq_prefilled(s, slot);
    return true;
}

static void plan_running_prefills(planner *p) {
    sched *s = p->s;
    uint32_t next;
    for (uint32_t slot = s->prefilling.head; slot != NO_SLOT && p->rows_left > 0; slot = next) {
        next = s->hot[slot].prefill_next;
        plan_chunk(p, slot);
    }
}

/* Never takes back who was evicted by this plan: an eviction happens when no block is free, and
 * at least one of the blocks it frees is taken, so fewer are free than the victim had. So its
 * steps are committed, too: else its blocks would be fenced. */
static void plan_resumed(planner *p) {
    sched *s = p->s;
    while (s->preempted.n > 0 && p->rows_left > 0 && p->logits_left > 0) {
        uint32_t slot = s->preempted.head;
        const seq_hot *h = &s->hot[slot];
        uint32_t room = min_u32(h->len + min_u32(h->limit - h->len, RESUME_SLACK),
                                max_u32(h->len, positions_needed(h->n_prompt, h->limit)));
        if (!make_room(p, blocks_for(s, room))) return;
        seq_resume(s, slot);
        if (!plan_chunk(p, slot)) return;
    }
}

static void plan_admitted(planner *p) {
    sched *s = p->s;
    while (s->waiting.n > 0 && s->n_free_slots > 0 && p->rows_left > 0 && p->logits_left > 0) {
        uint32_t record = s->waiting.node[0].item;
        uint32_t need = blocks_for(s, s->record[record].spec.n_prompt);
        if (s->running.n > 0) need += s->watermark_blocks;
        if (!make_room(p, need)) return; /* bounded skip-ahead would look further here */
        seq_admit(s, record);
        if (!plan_chunk(p, s->running.tail)) return;
    }
}

/* Rows that caps left over go to the prompts they were kept from, senior first. */
static void plan_leftovers(planner *p) {
    sched *s = p->s;
    for (uint32_t i = p->n_decode; i < p->n && p->rows_left > 0; i++) {
        step_seq *e = &p->entry[i];
        seq_hot *h = &s->hot[e->slot];
        if (h->state != SEQ_PREFILL) continue;
        extend_chunk(p, e, p->rows_left, p->logits_left);
        h->pending += e->sample;
        if (h->next_pos == h->len) seq_prefilled(s, e->slot);
    }
}

static const step *finish_step(planner *p) {
    sched *s = p->s;
    if (p->n == 0) return NULL;
    step *st = &s->step[p->parity];
    st->number = ++s->n_planned;
    st->n_seqs = p->n;
    st->n_decode_rows = p->n_decode;
    st->n_rows = st->n_logit_rows = p->n_decode;
    for (uint32_t i = p->n_decode; i < p->n; i++) {
        step_seq *e = &p->entry[i];
        e->first_row = st->n_rows;
        /* All blocks of a prefill are there; the step touches those up to its last row. */
        e->n_blocks = blocks_for(s, e->first_pos + e->n_rows);
        st->n_rows += e->n_rows;
        st->n_logit_rows += e->n_logit_rows;
    }
    st->n_prefill_rows = st->n_rows - st->n_decode_rows;
    return st;
}

const step *sched_plan(sched *s, uint64_t now_us) {
    end_expired(s, now_us);
    if (s->n_planned - s->n_committed == 2) return NULL;
    uint8_t parity = (s->n_planned + 1) & 1;
    planner p = {.s = s,
                 .entry = s->entry[parity],
                 .rows_left = s->cfg.max_rows,
                 .logits_left = s->cfg.max_logit_rows,
                 .parity = parity};
    plan_decode(&p);
    p.share = min_u32(s->prefill_share, (p.rows_left + 1) / 2);
    plan_running_prefills(&p);
    plan_resumed(&p);
    if (s->preempted.n == 0) plan_admitted(&p);
    plan_leftovers(&p);
    return finish_step(&p);
}
