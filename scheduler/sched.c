/* The scheduler's front door: its one region of memory, submit, cancel, events and readings.
 * Planning is in plan.c, committing in commit.c, a sequence's transitions in seq.c. */
#include "scheduler/sched.h"

#include <string.h>

#include "scheduler/state.h"

enum { REGION_ALIGN = 64, MAX_BLOCK_TOKENS = 65536, MAX_COUNT = 1 << 30 };

static bool config_valid(const sched_config *c) {
    return c->n_blocks >= 1 && c->n_blocks <= MAX_COUNT && c->block_tokens >= 1 &&
           c->block_tokens <= MAX_BLOCK_TOKENS && c->max_seqs >= 1 &&
           c->max_seqs <= MAX_COUNT && c->max_waiting >= 1 && c->max_waiting <= MAX_COUNT &&
           c->max_waiting_tokens >= 1 && c->max_model_len >= 1 &&
           c->max_model_len <= MAX_COUNT && c->max_rows >= c->max_seqs &&
           c->max_rows <= MAX_COUNT && c->max_logit_rows >= c->max_seqs &&
           c->watermark_permille <= 1000 && (c->n_end_tokens == 0 || c->end_tokens);
}

/* A cut through the region: the arrays of a scheduler, one after the other. Measures when at is
 * NULL. */
typedef struct cutter {
    char *at;
    uint64_t bytes;
    bool overflow;
} cutter;

static void *cut(cutter *c, uint64_t n, uint64_t size) {
    void *p = c->at ? c->at + c->bytes : NULL;
    uint64_t bytes = 0;
    if (!mul_u64(n, size, &bytes) || !add_u64(bytes, REGION_ALIGN - 1, &bytes) ||
        !add_u64(c->bytes, bytes & ~(uint64_t)(REGION_ALIGN - 1), &c->bytes)) {
        c->overflow = true;
        return NULL;
    }
    return p;
}

/* Sets the sizes and arrays of s from its config. What must start as zeroes comes first;
 * *n_zero is its end. Block tables and histories are always written before they are read. */
static void lay_out(sched *s, cutter *c, uint64_t *n_zero) {
    const sched_config *f = &s->cfg;
    uint64_t n_seqs = f->max_seqs, n_records = n_seqs + f->max_waiting;
    s->n_records = (uint32_t)n_records;
    s->blocks_per_seq = blocks_for(s, f->max_model_len);
    /* A plan may end every record, preempt every slot and admit every slot; a commit tells of
     * rows, token and end of each slot. */
    s->max_events = (size_t)(n_records + 3 * n_seqs);
    s->kv.n = f->n_blocks;
    s->waiting.n_items = s->deadlines.n_items = s->n_records;

    cut(c, 1, sizeof(sched));
    s->hot = cut(c, n_seqs, sizeof *s->hot);
    s->record = cut(c, n_records, sizeof *s->record);
    s->waiting.node = cut(c, n_records, sizeof *s->waiting.node);
    s->waiting.at = cut(c, n_records, sizeof *s->waiting.at);
    s->deadlines.node = cut(c, n_records, sizeof *s->deadlines.node);
    s->deadlines.at = cut(c, n_records, sizeof *s->deadlines.at);
    s->kv.ref = cut(c, f->n_blocks, sizeof *s->kv.ref);
    s->kv.prev = cut(c, (uint64_t)f->n_blocks + BLOCKS_SENTINELS, sizeof *s->kv.prev);
    s->kv.next = cut(c, (uint64_t)f->n_blocks + BLOCKS_SENTINELS, sizeof *s->kv.next);
    s->entry[0] = cut(c, n_seqs, sizeof *s->entry[0]);
    s->entry[1] = cut(c, n_seqs, sizeof *s->entry[1]);
    s->event = cut(c, s->max_events, sizeof *s->event);
    *n_zero = c->bytes;
    s->table = cut(c, n_seqs * s->blocks_per_seq, sizeof *s->table);
    s->tokens = cut(c, n_seqs * f->max_model_len, sizeof *s->tokens);
}

size_t sched_bytes(const sched_config *cfg) {
    if (!config_valid(cfg)) return 0;
    sched s = {.cfg = *cfg};
    cutter c = {0};
    uint64_t n_zero;
    lay_out(&s, &c, &n_zero);
    return c.overflow || c.bytes > SIZE_MAX / 2 ? 0 : (size_t)c.bytes;
}

sched *sched_init(void *mem, const sched_config *cfg) {
    CHECK(mem && (uintptr_t)mem % REGION_ALIGN == 0 && sched_bytes(cfg) > 0);
    sched *s = mem, measured = {.cfg = *cfg};
    cutter c = {0};
    uint64_t n_zero;
    lay_out(&measured, &c, &n_zero);
    memset(mem, 0, (size_t)n_zero);
    s->cfg = *cfg;
    c = (cutter){.at = mem};
    lay_out(s, &c, &n_zero);

    s->watermark_blocks =
        (uint32_t)ceil_div((uint64_t)cfg->n_blocks * cfg->watermark_permille, 1000);
    s->prefill_share =
        max_u32(1, cfg->max_prefill_share ? cfg->max_prefill_share : cfg->max_rows / 2);
    s->running = s->preempted = s->prefilling = s->parked =
        (slot_list){.head = NO_SLOT, .tail = NO_SLOT, .n = 0};
    s->n_free_slots = cfg->max_seqs;
    for (uint32_t i = 0; i < cfg->max_seqs; i++) {
        s->hot[i].next = i + 1 < cfg->max_seqs ? i + 1 : NO_SLOT;
    }
    for (uint32_t i = 0; i < s->n_records; i++) {
        s->record[i].slot = i + 1 < s->n_records ? i + 1 : NO_SLOT;
    }
    heap_init(&s->waiting);
    heap_init(&s->deadlines);
    blocks_init(&s->kv);
    for (int i = 0; i < 2; i++) s->step[i].seq = s->entry[i];
    s->events_read = true;
    return s;
}

uint64_t sched_blocks_needed(const sched_config *cfg, uint64_t n_prompt, uint64_t max_tokens) {
    uint64_t n = 0;
    if (!add_u64(n_prompt, max_tokens > 0 ? max_tokens - 1 : 0, &n)) return UINT64_MAX;
    return n / cfg->block_tokens + (n % cfg->block_tokens > 0);
}

static reject check_fit(const sched *s, const seq_spec *spec) {
    uint64_t n_total = (uint64_t)spec->n_prompt + spec->max_tokens;
    if (s->draining) return REJECT_DRAINING;
    if (n_total > s->cfg.max_model_len) return REJECT_TOO_LONG;
    if (sched_blocks_needed(&s->cfg, spec->n_prompt, spec->max_tokens) > s->cfg.n_blocks) {
        return REJECT_NEVER_FITS;
    }
    if (s->waiting.n >= s->cfg.max_waiting) return REJECT_QUEUE_FULL;
    /* An empty queue takes any prompt that fits the model: else it could be refused for ever.
     */
    if (s->waiting.n > 0 && s->waiting_tokens + spec->n_prompt > s->cfg.max_waiting_tokens) {
        return REJECT_QUEUE_TOKENS;
    }
    return REJECT_NONE;
}

reject sched_submit(sched *s, const seq_spec *spec, uint64_t now_us, seq_id *out) {
    (void)now_us; /* policies with aging will need it */
    CHECK(spec->n_prompt >= 1 && spec->prompt);
    CHECK(spec->max_tokens >= 1 || spec->score_prompt);
    CHECK(spec->n_stop_ids <= SCHED_MAX_STOP_IDS);
    reject why = check_fit(s, spec);
    if (why != REJECT_NONE) return why;
    uint32_t i = s->free_record;
    CHECK(i != NO_SLOT);
    seq_record *r = &s->record[i];
    s->free_record = r->slot;
    uint32_t generation = r->generation + 1;
    *r = (seq_record){.spec = *spec,
                      .generation = generation,
                      .slot = NO_SLOT,
                      .arrival = ++s->n_submitted,
                      .stop_id = -1};
    /* Signed to unsigned in order: the most negative priority becomes 0. */
    heap_add(&s->waiting, i, (uint64_t)((int64_t)spec->priority - INT32_MIN), r->arrival);
    if (spec->deadline_us > 0) heap_add(&s->deadlines, i, spec->deadline_us, r->arrival);
    s->waiting_tokens += spec->n_prompt;
    *out = (seq_id)generation << 32 | i;
    return REJECT_NONE;
}

void sched_cancel(sched *s, seq_id id, finish why) {
    CHECK(why == FINISH_CANCELLED || why == FINISH_STOP);
    const seq_record *r = record_find(s, id);
    if (!r) return;
    if (r->slot == NO_SLOT) {
        seq_end_waiting(s, record_of(id), why);
    } else if (s->hot[r->slot].state != SEQ_ENDED) {
        seq_end(s, r->slot, why, -1);
    }
}

void sched_pause(sched *s, seq_id id, bool paused) {
    const seq_record *r = record_find(s, id);
    if (!r || r->slot == NO_SLOT || s->hot[r->slot].state == SEQ_ENDED) return;
    if ((s->hot[r->slot].state == SEQ_PAUSED) == paused) return;
    if (paused)
        seq_pause(s, r->slot);
    else
        seq_unpause(s, r->slot);
}

size_t sched_events(sched *s, const sched_event **out) {
    *out = s->event;
    size_t n = s->events_read ? 0 : s->n_events;
    s->events_read = true;
    return n;
}

void sched_drain(sched *s) {
    s->draining = true;
}

const int32_t *sched_tokens(const sched *s, uint32_t slot) {
    CHECK(slot < s->cfg.max_seqs);
    return s->tokens + (size_t)slot * s->cfg.max_model_len;
}

const int32_t *sched_blocks(const sched *s, uint32_t slot) {
    CHECK(slot < s->cfg.max_seqs);
    return s->table + (size_t)slot * s->blocks_per_seq;
}

void sched_read(const sched *s, sched_stats *out) {
    uint32_t fenced = blocks_fenced(&s->kv);
    *out = (sched_stats){.n_waiting = s->waiting.n,
                         .n_running = s->running.n,
                         .n_preempted = s->preempted.n,
                         .n_paused = s->n_paused,
                         .waiting_tokens = s->waiting_tokens,
                         .blocks_free = s->kv.n_free,
                         .blocks_used = s->kv.n - s->kv.n_free - fenced,
                         .blocks_fenced = fenced,
                         .n_steps = s->n_committed,
                         .n_preemptions = s->n_preemptions,
                         .n_recomputed_tokens = s->n_recomputed_tokens,
                         .n_prompt_tokens = s->n_prompt_tokens,
                         .n_output_tokens = s->n_output_tokens};
}

uint64_t sched_kv_blocks_of(const sched *s, seq_id id) {
    const seq_record *r = record_find(s, id);
    return r && r->slot != NO_SLOT ? s->hot[r->slot].n_blocks : 0;
}
