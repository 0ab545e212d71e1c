/* The scheduler's front door: its one region of memory, submit, cancel, events and readings.
 * Planning is in plan.c, committing in commit.c, a sequence's transitions in seq.c. */
#include "scheduler/sched.h"

#include <string.h>

#include "scheduler/state.h"

enum { REGION_ALIGN = 64, MAX_BLOCK_TOKENS = 65536, MAX_COUNT = 1 << 30 };

static uint32_t find_chain_group(const sched_config *f) {
    for (uint32_t k = 0; k < f->n_groups; k++)
        if (!f->group[k].window) return k;
    return 0;
}

static bool tier_valid(const sched_config *c) {
    return c->tier_chunks == 0 ||
           (c->prefix_cache && c->group[find_chain_group(c)].window == 0 &&
            c->tier_chunks <= MAX_COUNT / 4 && c->chunk_blocks >= 1 &&
            c->chunk_blocks <= SCHED_MAX_CHUNK_BLOCKS);
}

static bool states_valid(const sched_config *c) {
    return c->state_slots == 0 ||
           (c->state_slots >= c->max_seqs && c->state_slots <= MAX_COUNT &&
            c->state_chunk >= 1 && c->state_chunk <= MAX_BLOCK_TOKENS && c->tier_chunks == 0);
}

/* Without blocks nothing can be found, and each text must fit a step. */
static bool whole_valid(const sched_config *c) {
    return c->n_groups > 0 || (c->max_rows >= c->max_model_len && !c->prefix_cache &&
                               c->tier_chunks == 0 && c->state_slots == 0);
}

static bool config_valid(const sched_config *c) {
    for (uint32_t k = 0; k < c->n_groups && k < SCHED_MAX_GROUPS; k++) {
        if (c->group[k].n_blocks < 1 || c->group[k].n_blocks > MAX_COUNT) return false;
        if (c->group[k].window > MAX_COUNT || c->group[k].max_blocks > MAX_COUNT) return false;
        if (c->group[k].max_blocks && c->group[k].max_blocks < c->group[k].n_blocks)
            return false;
    }
    return whole_valid(c) && c->n_groups <= SCHED_MAX_GROUPS && c->block_tokens >= 1 &&
           c->block_tokens <= MAX_BLOCK_TOKENS && c->max_seqs >= 1 &&
           c->max_seqs <= MAX_COUNT && c->max_waiting >= 1 && c->max_waiting <= MAX_COUNT &&
           c->max_waiting_tokens >= 1 && c->max_model_len >= 1 &&
           c->max_model_len <= MAX_COUNT && c->max_rows >= c->max_seqs &&
           c->max_rows <= MAX_COUNT && c->depth <= 2 && c->max_logit_rows >= c->max_seqs &&
           c->max_logit_rows <= MAX_COUNT && c->watermark_permille <= 1000 && tier_valid(c) &&
           states_valid(c) && (c->n_end_tokens == 0 || c->end_tokens);
}

/* Of a sequence, whatever its length. */
static uint32_t group_most(const sched_config *c, uint32_t k) {
    const uint64_t rows = (uint64_t)(c->depth ? c->depth : 2) * c->max_rows;
    if (!c->group[k].window) return UINT32_MAX;
    uint64_t n = c->group[k].rows_once
                     ? kv_window_share(c->group[k].window, c->block_tokens)
                     : kv_window_blocks(c->group[k].window, c->block_tokens, rows);
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

uint32_t sched_blocks_aside(const sched_config *c, uint32_t group) {
    if (!c->group[group].window || !c->group[group].rows_once) return 0;
    const uint64_t n = kv_rows_blocks(c->depth, c->max_rows, c->block_tokens);
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
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

/* Sizes of a group: what must be zero, and with rest what need not. */
static void lay_out_group(sched *s, uint32_t k, cutter *c, bool rest) {
    const sched_config *f = &s->cfg;
    seq_group *g = &s->group[k];
    const uint64_t n = max_u32(f->group[k].n_blocks, f->group[k].max_blocks);
    const bool cached = f->prefix_cache, chain = cached && k == s->chain_group;
    prefix *x = &g->index;
    if (!rest) {
        g->kv.n = x->n_blocks = (uint32_t)n;
        g->kv.limit = f->group[k].n_blocks;
        g->window = f->group[k].window;
        x->block_tokens = f->block_tokens;
        x->n_buckets = cached ? prefix_buckets((uint32_t)n) : 0;
        g->kv.ref = cut(c, n, sizeof *g->kv.ref);
        g->kv.prev = cut(c, n + BLOCKS_SENTINELS, sizeof *g->kv.prev);
        g->kv.next = cut(c, n + BLOCKS_SENTINELS, sizeof *g->kv.next);
        g->kv.busy = cut(c, n, sizeof *g->kv.busy);
        g->kv.flags = cut(c, n, sizeof *g->kv.flags);
        x->bucket = cut(c, x->n_buckets, sizeof *x->bucket);
        return;
    }
    g->table = cut(c, (uint64_t)f->max_seqs * s->table_stride, sizeof *g->table);
    g->held = g->window ? cut(c, f->max_seqs, sizeof *g->held) : NULL;
    x->next = cut(c, cached ? n : 0, sizeof *x->next);
    x->hash = cut(c, cached ? n : 0, sizeof *x->hash);
    x->confirm = cut(c, cached ? n : 0, sizeof *x->confirm);
    x->serial = chain ? cut(c, n, sizeof *x->serial) : NULL;
    x->salt = chain ? cut(c, n, sizeof *x->salt) : NULL;
    x->tokens = chain ? cut(c, n * f->block_tokens, sizeof *x->tokens) : NULL;
}

static void lay_out_tier(sched *s, cutter *c) {
    const sched_config *f = &s->cfg;
    s->tier.n_chunks = f->tier_chunks;
    s->tier.n_buckets = prefix_buckets(f->tier_chunks);
    s->tier.chunk = cut(c, s->tier.n_chunks, sizeof *s->tier.chunk);
    s->tier.bucket = cut(c, s->tier.n_buckets, sizeof *s->tier.bucket);
    s->store = cut(c, STORE_QUEUE, sizeof *s->store);
    s->store_tokens =
        cut(c, (uint64_t)f->chunk_blocks * f->block_tokens, sizeof *s->store_tokens);
    s->store_block =
        cut(c, (uint64_t)f->n_groups * SCHED_MAX_CHUNK_BLOCKS, sizeof *s->store_block);
}

static void lay_out_states(sched *s, cutter *c) {
    const sched_config *f = &s->cfg;
    state_pool *p = &s->states;
    p->n_slots = f->state_slots;
    p->n_blocks =
        max_u32(f->group[s->chain_group].n_blocks, f->group[s->chain_group].max_blocks);
    p->slot = cut(c, p->n_slots, sizeof *p->slot);
    p->of_block = cut(c, p->n_blocks, sizeof *p->of_block);
    s->own = cut(c, f->max_seqs, sizeof *s->own);
    for (int i = 0; i < 2; i++)
        s->checkpoint[i] = cut(c, f->state_slots - f->max_seqs, sizeof *s->checkpoint[i]);
}

/* Entries of a row of n in an array by slot: an odd number of cache lines. A step touches the same place
 * in the rows of all sequences; at a power of two of bytes from each other they would all fall into the
 * same few sets of a cache. */
static uint32_t odd_lines(uint32_t n) {
    enum { LINE = 64 / sizeof(int32_t) };
    return ((uint32_t)ceil_div(n, LINE) | 1) * LINE;
}

/* Sets the sizes and arrays of s from its config. What must start as zeroes comes first;
 * *n_zero is its end. Block tables and histories are always written before they are read. */
static void lay_out(sched *s, cutter *c, uint64_t *n_zero) {
    const sched_config *f = &s->cfg;
    uint64_t n_seqs = f->max_seqs, n_records = n_seqs + f->max_waiting;
    s->n_records = (uint32_t)n_records;
    s->blocks_per_seq = blocks_for(s, f->max_model_len);
    s->tokens_stride = odd_lines(f->max_model_len);
    s->table_stride = odd_lines(s->blocks_per_seq);
    /* A plan may report the end of every record, and of each slot a preemption or admission and
     * what was found for it; a commit reports rows, tokens and end of each slot. */
    s->max_events = (size_t)(n_records + 3 * n_seqs);
    s->n_groups = f->n_groups;
    s->depth = f->depth ? f->depth : 2;
    s->chain_group = find_chain_group(f);
    s->deadlines.n_items = s->n_records;
    s->waiting.n_queues = f->policy && f->policy->by_tenant ? WAITING_TENANTS : 1;

    cut(c, 1, sizeof(sched));
    s->hot = cut(c, n_seqs, sizeof *s->hot);
    s->record = cut(c, n_records, sizeof *s->record);
    s->waiting.queue = cut(c, s->waiting.n_queues, sizeof *s->waiting.queue);
    s->lengths =
        cut(c, f->policy && f->policy->by_length ? LENGTH_CLASSES : 0, sizeof *s->lengths);
    s->deadlines.node = cut(c, n_records, sizeof *s->deadlines.node);
    s->deadlines.at = cut(c, n_records, sizeof *s->deadlines.at);
    for (uint32_t k = 0; k < f->n_groups; k++) lay_out_group(s, k, c, false);
    s->entry[0] = cut(c, n_seqs, sizeof *s->entry[0]);
    s->entry[1] = cut(c, n_seqs, sizeof *s->entry[1]);
    for (int i = 0; i < 2; i++) s->copy[i] = cut(c, sched_max_copies(f), sizeof *s->copy[i]);
    s->event = cut(c, s->max_events, sizeof *s->event);
    s->chain = cut(c, n_seqs, sizeof *s->chain);
    s->load = cut(c, f->tier_chunks ? n_seqs : 0, sizeof *s->load);
    s->recent.cap = f->recent_tokens;
    s->recent.text = cut(c, f->recent_tokens ? RECENT_TEXTS : 0, sizeof *s->recent.text);
    *n_zero = c->bytes;
    for (uint32_t k = 0; k < f->n_groups; k++) lay_out_group(s, k, c, true);
    s->probe.hash = cut(c, f->prefix_cache ? s->blocks_per_seq : 0, sizeof *s->probe.hash);
    s->probe.block = cut(c, f->prefix_cache ? s->blocks_per_seq : 0, sizeof *s->probe.block);
    s->tokens = cut(c, n_seqs * s->tokens_stride, sizeof *s->tokens);
    s->recent.token = cut(c, f->recent_tokens, sizeof *s->recent.token);
    if (f->tier_chunks > 0) lay_out_tier(s, c);
    if (f->state_slots > 0) lay_out_states(s, c);
}

size_t sched_bytes(const sched_config *cfg) {
    if (!config_valid(cfg)) return 0;
    sched s = {.cfg = *cfg};
    cutter c = {0};
    uint64_t n_zero;
    lay_out(&s, &c, &n_zero);
    return c.overflow || c.bytes > SIZE_MAX / 2 ? 0 : (size_t)c.bytes;
}

static void init_group(sched *s, uint32_t k) {
    const sched_config *f = &s->cfg;
    seq_group *g = &s->group[k];
    g->most = group_most(f, k);
    g->rows = sched_blocks_aside(f, k);
    s->windows |= g->window > 0;
    group_set_target(s, k, g->kv.limit);
    blocks_init(&g->kv);
}

sched *sched_init(void *mem, const sched_config *cfg) {
    CHECK(mem && (uintptr_t)mem % REGION_ALIGN == 0 && sched_bytes(cfg) > 0);
    sched *s = mem, measured = {.cfg = *cfg};
    cutter c = {0};
    uint64_t n_zero;
    lay_out(&measured, &c, &n_zero);
    memset(mem, 0, (size_t)n_zero);
    s->cfg = *cfg;
    if (!s->cfg.policy) s->cfg.policy = &sched_fcfs;
    c = (cutter){.at = mem};
    lay_out(s, &c, &n_zero);

    for (uint32_t k = 0; k < cfg->n_groups; k++) init_group(s, k);
    if (cfg->tier_chunks > 0) tier_init(&s->tier);
    s->store_on = NO_CHUNK;
    if (cfg->state_slots > 0) state_init(s);
    s->running = s->preempted = s->prefilling = s->parked =
        (slot_list){.head = NO_SLOT, .tail = NO_SLOT, .n = 0};
    s->n_free_slots = cfg->max_seqs;
    for (uint32_t i = 0; i < cfg->max_seqs; i++) {
        s->hot[i].run.next = i + 1 < cfg->max_seqs ? i + 1 : NO_SLOT;
    }
    for (uint32_t i = 0; i < s->n_records; i++) {
        s->record[i].slot = i + 1 < s->n_records ? i + 1 : NO_SLOT;
    }
    waiting_init(s);
    heap_init(&s->deadlines);
    for (int i = 0; i < 2; i++) {
        s->step[i].seq = s->entry[i];
        s->step[i].copy = s->copy[i];
        s->step[i].checkpoint = s->checkpoint[i];
    }
    s->events_read = true;
    return s;
}

uint64_t sched_blocks_needed(const sched_config *cfg, uint32_t group, uint64_t n_prompt,
                             uint64_t max_tokens) {
    uint64_t n = 0, most = group_most(cfg, group);
    if (!add_u64(n_prompt, max_tokens > 0 ? max_tokens - 1 : 0, &n)) return UINT64_MAX;
    n = n / cfg->block_tokens + (n % cfg->block_tokens > 0);
    return n < most || !cfg->group[group].window ? n : most;
}

static sched_reject check_fit(const sched *s, const sched_spec *spec) {
    uint64_t n_total = (uint64_t)spec->n_prompt + spec->max_tokens;
    if (n_total > s->cfg.max_model_len) return REJECT_TOO_LONG;
    if (takes_whole(s) && spec->max_tokens > 0) return REJECT_NEVER_FITS;
    for (uint32_t k = 0; k < s->n_groups; k++) {
        const uint64_t n = sched_blocks_needed(&s->cfg, k, spec->n_prompt, spec->max_tokens);
        if (n > s->group[k].target || s->group[k].rows > s->group[k].target - n)
            return REJECT_NEVER_FITS;
    }
    uint32_t n_waiting = s->waiting.n + s->n_dormant;
    if (n_waiting >= s->cfg.max_waiting) return REJECT_QUEUE_FULL;
    /* An empty queue takes any prompt that fits the model: else it could be refused for ever.
     */
    if (n_waiting > 0 && s->waiting_tokens + spec->n_prompt > s->cfg.max_waiting_tokens) {
        return REJECT_QUEUE_TOKENS;
    }
    return REJECT_NONE;
}

void sched_now(sched *s, uint64_t now_us) {
    if (s->now_us < now_us) s->now_us = now_us;
}

sched_reject sched_submit(sched *s, const sched_spec *spec, uint64_t now_us, sched_id *out) {
    sched_now(s, now_us);
    CHECK(spec->n_prompt >= 1 && spec->prompt);
    CHECK(spec->n_stop_ids <= SCHED_MAX_STOP_IDS);
    sched_reject why = check_fit(s, spec);
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
                      .submit_us = now_us,
                      .leader = NO_SLOT,
                      .fork_head = NO_SLOT,
                      .fork_next = NO_SLOT,
                      .stop_id = -1};
    r->spec.salt &= UINT64_MAX >> 1;
    r->spec.base_salt &= UINT64_MAX >> 1;
    const sched_policy *p = s->cfg.policy;
    r->key =
        p->waiting_key(p->self, &r->spec, r->arrival, now_us) +
        lengths_head_start(s, spec->tenant, spec->n_prompt, spec->max_tokens, &r->n_predicted);
    if (!fork_wait(s, i)) waiting_add(s, i);
    if (spec->deadline_us > 0) heap_add(&s->deadlines, i, spec->deadline_us, r->arrival);
    s->waiting_tokens += spec->n_prompt;
    *out = id_of(s, i);
    return REJECT_NONE;
}

void sched_cancel(sched *s, sched_id id, sched_finish why) {
    CHECK(why == FINISH_CANCELLED || why == FINISH_STOP);
    const seq_record *r = record_find(s, id);
    if (!r) return;
    if (r->slot == NO_SLOT) {
        seq_end_waiting(s, record_of(id), why);
    } else if (s->hot[r->slot].state != SEQ_ENDED) {
        seq_end(s, r->slot, why, -1);
    }
}

void sched_pause(sched *s, sched_id id, bool paused) {
    const seq_record *r = record_find(s, id);
    if (!r || r->slot == NO_SLOT || s->hot[r->slot].state == SEQ_ENDED) return;
    if ((s->hot[r->slot].state == SEQ_PAUSED) == paused) return;
    if (paused)
        seq_pause(s, r->slot);
    else
        seq_unpause(s, r->slot);
}

uint32_t sched_draft_space(const sched *s, sched_id id) {
    const seq_record *r = record_find(s, id);
    if (!r || r->slot == NO_SLOT) return 0;
    const seq_hot *h = &s->hot[r->slot];
    if (h->state != SEQ_DECODE || h->pending > 0 || h->len == h->limit) return 0;
    return min_u32(SCHED_MAX_DRAFT, h->limit - h->len - 1); /* and one is drawn */
}

const cost_model *sched_step_cost(const sched *s) {
    return &s->cost;
}

double sched_objective_us(const sched *s) {
    return (double)s->cfg.itl_slo_us * cost_margin(&s->cost);
}

void sched_spend(sched *s, uint64_t us) {
    s->spent_us += us;
}

uint32_t sched_draft(sched *s, sched_id id, const int32_t *guess, uint32_t n, bool by_model) {
    const seq_record *r = record_find(s, id);
    if (!r || r->slot == NO_SLOT) return 0;
    seq_hot *h = &s->hot[r->slot];
    if (h->state != SEQ_DECODE || h->pending > 0) return 0;
    n = min_u32(n, sched_draft_space(s, id));
    if (n > 0) memcpy(tokens_of(s, r->slot) + h->len, guess, n * sizeof *guess);
    drop_drafts(s, h);
    h->n_draft = (uint8_t)n;
    h->by_model = by_model;
    s->n_drafting += n > 0;
    return n;
}

size_t sched_events(sched *s, const sched_event **out) {
    *out = s->event;
    size_t n = s->events_read ? 0 : s->n_events;
    s->events_read = true;
    return n;
}

const int32_t *sched_tokens(const sched *s, uint32_t slot) {
    CHECK(slot < s->cfg.max_seqs);
    return tokens_of(s, slot);
}

const int32_t *sched_blocks(const sched *s, uint32_t slot, uint32_t group) {
    CHECK(slot < s->cfg.max_seqs && group < s->n_groups);
    return table_of(s, &s->group[group], slot);
}

uint32_t sched_n_blocks(const sched *s, uint32_t slot) {
    CHECK(slot < s->cfg.max_seqs);
    return s->hot[slot].n_blocks;
}

void sched_read_work(const sched *s, sched_stats *out) {
    for (uint32_t i = s->prefilling.head; i != NO_SLOT; i = s->hot[i].prefill.next)
        out->prefill_tokens += s->hot[i].len - s->hot[i].next_pos;
    for (uint32_t i = s->running.head; i != NO_SLOT; i = s->hot[i].run.next)
        if (s->hot[i].state == SEQ_DECODE) out->decode_positions += s->hot[i].next_pos + 1;
}

void sched_read(const sched *s, sched_stats *out) {
    *out =
        (sched_stats){.n_waiting = s->waiting.n + s->n_dormant,
                      .n_running = s->running.n,
                      .n_preempted = s->preempted.n,
                      .n_paused = s->n_paused,
                      .waiting_tokens = s->waiting_tokens,
                      .n_loading = s->n_loading,
                      .n_prefilling = s->prefilling.n,
                      .tier_chunks = s->tier.n - s->tier.n_gaps,
                      .tier_bytes = s->tier.bytes,
                      .n_storing = s->n_store,
                      .state_slots = s->states.n_slots,
                      .state_live = s->cfg.state_slots ? s->cfg.max_seqs - s->n_free_slots : 0,
                      .state_checkpoints = s->states.n_checkpoints,
                      .count = s->count,
                      .cost = s->cost};
    for (uint32_t k = 0; k < s->n_groups; k++) {
        const blocks *b = &s->group[k].kv;
        sched_blocks_view *g = &out->group[k];
        *g = (sched_blocks_view){.free = b->n_free - b->n_cached,
                                 .used = blocks_used(b),
                                 .fenced = blocks_fenced(b),
                                 .cached = b->n_cached,
                                 .peak = b->peak,
                                 .watermark = s->group[k].watermark};
        out->blocks_free += g->free;
        out->blocks_cached += g->cached;
        out->blocks_fenced += g->fenced;
        out->blocks_used += g->used;
        out->blocks_all += b->n - b->n_out;
    }
}

uint64_t sched_kv_blocks_of(const sched *s, sched_id id) {
    const seq_record *r = record_find(s, id);
    return r && r->slot != NO_SLOT ? hold_count(s, r->slot) : 0;
}
