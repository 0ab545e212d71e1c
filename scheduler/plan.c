/* Planning a step under one budget of rows: a row for every decoding sequence first, then the
 * running prefills, then preempted ones that fit again, then new ones.
 *
 * Blocks. A prefill gets all blocks of its length when it starts (with a window: all that it
 * will hold at a time), but for those that are there already: in the prefix cache, or with the
 * leader of its fork. So only decode rows need more, one of each group at a time, senior first.
 * Without a free one, a sequence first waits for blocks that uncommitted steps fence; then it
 * takes those of a paused sequence; then it evicts the most junior running one; if that is
 * itself, it keeps what it holds and waits (a senior may evict it: no hold-and-wait).
 *
 * Drafts. Rows that verify guesses come last among those of decoding sequences, take only what
 * is free, and leave a row for prompts; so nothing below depends on them, and if all guesses
 * are wrong, a sequence still advances by a token.
 *
 * Loads. A sequence whose beginning is in the tier takes its place and its blocks like any other,
 * and gets no rows until they are filled. No sequence waits for it but juniors that need its blocks or
 * its slot.
 *
 * Whole texts. Where nothing is kept between steps, a prompt that has no room among the rows that are
 * left gets none, and in the next step it comes before its juniors.
 *
 * Progress. The most senior never waits for longer than the fences of two steps: whatever it
 * needs is free, fenced, or held by juniors, because alone it fits (checked at submit). Decode
 * rows come first and max_rows >= max_seqs, so it always gets a row (in lockstep: as soon as
 * the step before is committed; if it loads, as soon as the caller has filled its blocks, or cannot);
 * so it ends, and the next one is the most senior. Hence every
 * admitted sequence ends. (policy.h: what a policy may do to that order; waiting.h: why one that
 * waits is admitted though smaller ones may pass it.) */
#include "scheduler/batching.h"

/* A resumed sequence, or one that passes others, must have room for so many more tokens, or it would be
 * evicted at once. */
enum { START_SLACK = 64 };

/* Of the rows of a step, for prompts beside decoding while an objective cannot be computed yet. */
enum { UNFITTED_PART = 8 };

typedef struct planner {
    sched *s;
    sched_step_seq *entry;
    uint32_t n, n_decode, n_decode_rows;
    uint32_t rows_left, logits_left;
    uint32_t share; /* rows of one prompt while another waits */
    bool timed;     /* rows of prompts are bounded by us_left */
    double us_left; /* of the step's objective */
    uint32_t n_prompt_rows;
    uint32_t claimed[SCHED_MAX_GROUPS]; /* fenced blocks that waiting decode rows count on */
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

typedef enum space {
    SPACE_NONE,   /* juniors would have to go */
    SPACE_FENCED, /* with blocks that commits will free */
    SPACE_PARKED, /* with blocks of paused sequences */
    SPACE_THERE
} space;

/* Where want[g] blocks of every group g could come from: the worst of them. */
static space find_space(const planner *p, const uint32_t *want) {
    const sched *s = p->s;
    space worst = SPACE_THERE;
    for (uint32_t k = 0; k < s->n_groups; k++) {
        const seq_group *g = &s->group[k];
        uint64_t have = group_space(g), fenced = blocks_fenced(&g->kv);
        if (have >= want[k]) continue;
        if (have + fenced + g->parked < want[k]) return SPACE_NONE;
        space own =
            have + fenced < (uint64_t)want[k] + p->claimed[k] ? SPACE_PARKED : SPACE_FENCED;
        if (worst == SPACE_THERE || own == SPACE_PARKED) worst = own;
    }
    return worst == SPACE_PARKED && s->parked.n == 0 ? SPACE_NONE : worst;
}

/* One more table entry for a decoding sequence, its blocks taken from juniors if need be. */
static bool find_block(planner *p, uint32_t slot) {
    sched *s = p->s;
    const uint32_t n = s->hot[slot].n_blocks;
    uint32_t want[SCHED_MAX_GROUPS];
    for (uint32_t k = 0; k < s->n_groups; k++)
        want[k] = group_part(&s->group[k], n + 1) - group_part(&s->group[k], n);
    for (space r = find_space(p, want); r != SPACE_THERE; r = find_space(p, want)) {
        if (r == SPACE_FENCED) {
            for (uint32_t k = 0; k < s->n_groups; k++)
                if (group_space(&s->group[k]) < want[k]) p->claimed[k] += want[k];
            return false; /* comes free with a commit */
        }
        if (s->parked.n > 0) {
            seq_preempt(s, s->parked.head); /* even if it is too little: before any junior */
            continue;
        }
        if (s->running.tail == slot) return false;
        seq_preempt(s, s->running.tail);
    }
    hold_grow(s, slot);
    return true;
}

/* What a sequence that knows tokens [0, len) needs to start, with room for n_tokens. */
static void measure(sched *s, uint32_t record, const int32_t *tokens, uint32_t len,
                    uint32_t n_tokens, start *out) {
    const seq_record *r = &s->record[record];
    bool unscored = r->spec.score_prompt && r->n_reported < r->spec.n_prompt;
    uint32_t n = blocks_for(s, n_tokens), free_found = 0;
    const uint32_t most = unscored ? r->n_reported : len - 1;
    out->n_probed = cache_probe(s, id_of(s, record), r->spec.salt, tokens, most);
    out->gap = s->probe.n_chain > out->n_probed;
    out->leader = r->slot == NO_SLOT ? fork_leader(s, record) : NO_SLOT;
    bool forks = out->leader != NO_SLOT;
    out->n_found = forks ? (len - 1) / s->cfg.block_tokens : out->n_probed;
    out->state = NO_STATE;
    if (has_states(s) && forks)
        out->state = s->own[out->leader].slot;
    else if (has_states(s))
        out->n_found = state_cut(s, r->slot, out->n_probed, &out->state);
    out->n_load = 0;
    if (has_tier(s) && !forks && !r->spec.no_tier)
        out->n_load =
            load_probe(s, r->spec.salt, tokens, out->n_found, most / s->cfg.block_tokens);
    for (uint32_t k = 0; k < s->n_groups; k++) {
        const seq_group *g = &s->group[k];
        out->want[k] = group_part(g, n);
        if (g->window) {
            out->want[k] += forks; /* a pin */
            continue;
        }
        free_found = 0; /* found, but somebody else could take them */
        for (uint32_t i = 0; !forks && i < out->n_found; i++)
            free_found += g->kv.ref[cache_probed(s, k, i)] == 0;
        out->want[k] += free_found - out->n_found;
    }
    const bool lasts = s->probe.at_gap && r->spec.fork_of == 0;
    s->probe.n_gains = cache_gains(s);
    s->probe.n_attached = s->states.n_attached;
    for (uint32_t k = 0; k < s->n_groups; k++) s->probe.want[k] = lasts ? out->want[k] : 1;
}

/* Blocks of a group that a sequence needs at least to start. Whatever is found, the last one is
 * not; and a sequence that waits for many steps is not looked up at each. */
static uint32_t least_want(const sched *s, uint32_t record, uint32_t k) {
    const probe *p = &s->probe;
    const uint64_t gained = cache_gains(s) - p->n_gains;
    if (p->id != id_of(s, record) || p->want[k] <= gained) return 1;
    if (p->n_attached != s->states.n_attached) return 1; /* one may be where it can begin */
    return p->want[k] - (uint32_t)gained;
}

/* SPACE_THERE, or why it does not start: SPACE_FENCED or SPACE_NONE. Measures again after every
 * preemption of a parked sequence: it may have shared blocks. */
static space find_start(planner *p, uint32_t record, const int32_t *tokens, uint32_t len,
                        uint32_t n_tokens, bool watermark, start *out) {
    sched *s = p->s;
    for (uint32_t k = 0; k < s->n_groups; k++)
        out->want[k] = least_want(s, record, k) + (watermark ? s->group[k].watermark : 0);
    space least = find_space(p, out->want);
    if (least == SPACE_NONE || least == SPACE_FENCED) return least;
    for (;;) {
        measure(s, record, tokens, len, n_tokens, out);
        for (uint32_t k = 0; watermark && k < s->n_groups; k++)
            out->want[k] += s->group[k].watermark;
        space r = find_space(p, out->want);
        if (r != SPACE_PARKED) return r;
        seq_preempt(s, s->parked.head);
    }
}

static inline sched_step_seq *add_entry(planner *p, uint32_t slot) {
    seq_hot *h = &p->s->hot[slot];
    sched_step_seq *e = &p->entry[p->n];
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
    e->n_draft = 0;
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

/* Decode rows of a step at most. Where steps are apart, so many that as many are left for the others: who is
 * left out is in one of the next depth, since those in front of it are in this one. */
static uint32_t most_decoding(const sched *s) {
    if (!s->cfg.apart || s->depth == 1) return UINT32_MAX;
    const uint32_t n = s->running.n - s->prefilling.n;
    return max_u32(1, (n + s->depth - 1) / s->depth);
}

static void plan_decode(planner *p) {
    sched *s = p->s;
    const uint32_t most = most_decoding(s);
    uint32_t next;
    for (uint32_t slot = s->running.head; slot != NO_SLOT && p->n < most; slot = next) {
        seq_hot *h = &s->hot[slot];
        if (h->state == SEQ_DECODE && h->len + h->pending < h->limit &&
            (h->pending == 0 || (h->n_draft == 0 && !h->lockstep)) &&
            (h->next_pos < h->n_blocks * s->cfg.block_tokens || find_block(p, slot))) {
            sched_step_seq *e = add_entry(p, slot);
            e->first_row = p->n;
            e->n_rows = e->n_logit_rows = 1;
            e->sample = true;
            e->score = false;
            keep_entry(p, slot);
            h->next_pos++;
            h->pending++;
        }
        next = h->run.next; /* only now: find_block may have evicted it */
    }
    p->n_decode = p->n_decode_rows = p->n;
    CHECK(p->n <= p->rows_left && p->n <= p->logits_left);
    p->rows_left -= p->n;
    p->logits_left -= p->n;
}

/* How many of n rows behind its one have blocks: they take free ones, and nobody else's. */
static uint32_t cover_drafts(planner *p, uint32_t slot, uint32_t n) {
    sched *s = p->s;
    const seq_hot *h = &s->hot[slot];
    uint32_t want[SCHED_MAX_GROUPS];
    while ((uint64_t)h->n_blocks * s->cfg.block_tokens < (uint64_t)h->next_pos + n) {
        for (uint32_t k = 0; k < s->n_groups; k++)
            want[k] = group_part(&s->group[k], h->n_blocks + 1) -
                      group_part(&s->group[k], h->n_blocks);
        if (find_space(p, want) != SPACE_THERE)
            n = h->n_blocks * s->cfg.block_tokens - h->next_pos;
        else
            hold_grow(s, slot);
    }
    hold_cover(s, slot, h->next_pos + n);
    return n;
}

static bool prompts_want_rows(const sched *s) {
    return s->prefilling.n + s->preempted.n + s->waiting.n > 0;
}

static step_work decode_work(const planner *p) {
    step_work w = {.rows = p->n_decode_rows, .logit_rows = p->n_decode_rows};
    for (uint32_t i = 0; i < p->n_decode; i++) w.kv += row_pairs(p->s, &p->entry[i]);
    return w;
}

/* What is left of the objective for the work of the step that is planned. */
static double time_left(const sched *s, step_work w) {
    return cost_time_left(&s->cost, (double)s->cfg.itl_slo_us, w) - (double)s->spent_us;
}

/* Rows of drafts that the objective leaves time for; each attends to as much as the mean row does. */
static uint32_t drafts_in_time(const planner *p) {
    const sched *s = p->s;
    if (s->cfg.itl_slo_us == 0) return UINT32_MAX;
    if (p->n_decode == 0 || !cost_ready(&s->cost)) return 0;
    const step_work w = decode_work(p);
    const double *coef = s->cost.coef;
    const double each = coef[1] + coef[2] * w.kv / p->n_decode + coef[3];
    const double left = time_left(s, w);
    return left <= 0                        ? 0
           : left >= each * s->cfg.max_rows ? UINT32_MAX
                                            : (uint32_t)(left / each);
}

/* Rows that verify drafts, once every decoding sequence has its row: senior first, and while
 * prompts want rows, not more than half of what is left. */
static void plan_drafts(planner *p) {
    sched *s = p->s;
    uint32_t left = min_u32(p->rows_left, p->logits_left), row = 0;
    if (prompts_want_rows(s)) left /= 2;
    left = min_u32(left, drafts_in_time(p));
    for (uint32_t i = 0; i < p->n_decode; i++) {
        sched_step_seq *e = &p->entry[i];
        seq_hot *h = &s->hot[e->slot];
        const uint32_t n = cover_drafts(p, e->slot, min_u32(h->n_draft, left));
        s->n_drafting -= h->n_draft > 0;
        e->first_row = row;
        e->n_draft = (uint8_t)n;
        e->n_rows = e->n_logit_rows = 1 + n;
        e->n_blocks = h->n_blocks;
        h->next_pos += n;
        h->n_draft = (uint8_t)n;
        left -= n;
        row += 1 + n;
    }
    p->rows_left -= row - p->n_decode;
    p->logits_left -= row - p->n_decode;
    p->n_decode_rows = row;
}

/* The oldest prompt that has rows, or the next to be admitted, has waited for half of ttft_slo_us. */
static bool prompt_is_late(const sched *s) {
    if (s->cfg.ttft_slo_us == 0) return false;
    const uint64_t most = s->cfg.ttft_slo_us / 2;
    const uint32_t slot = s->prefilling.head,
                   next = s->n_free_slots ? waiting_next(s) : NO_SLOT;
    return (slot != NO_SLOT &&
            s->now_us - s->record[record_of(s->hot[slot].id)].submit_us > most) ||
           (next != NO_SLOT && s->now_us - s->record[next].submit_us > most);
}

/* What is left of the objective once sequences that decode have their rows. */
static void plan_time(planner *p) {
    const sched *s = p->s;
    if (s->cfg.itl_slo_us == 0 || p->n_decode == 0 || prompt_is_late(s)) return;
    if (!cost_ready(&s->cost)) { /* nothing is known of the time: little is risked */
        const uint32_t few = max_u32(s->cfg.max_rows / UNFITTED_PART, SCHED_LEAST_PROMPT_ROWS);
        p->rows_left = min_u32(p->rows_left, few);
        return;
    }
    p->timed = true;
    p->us_left = time_left(s, decode_work(p));
}

/* Rows at most that a prompt at pos may have. */
static uint32_t rows_in_time(const planner *p, uint32_t pos, uint32_t max_rows) {
    if (!p->timed) return max_rows;
    const uint32_t n = cost_rows(&p->s->cost, p->us_left, pos);
    const uint32_t least =
        SCHED_LEAST_PROMPT_ROWS - min_u32(SCHED_LEAST_PROMPT_ROWS, p->n_prompt_rows);
    return min_u32(max_rows, max_u32(n, least));
}

static bool rows_are_left(const planner *p) {
    return rows_in_time(p, 0, p->rows_left) > 0 && p->logits_left > 0;
}

/* Rows [first, first + n) with some logits are in the step. */
static void count_rows(planner *p, uint32_t first, uint32_t n, uint32_t n_logits) {
    p->rows_left -= n;
    p->logits_left -= n_logits;
    p->n_prompt_rows += n;
    if (!p->timed) return;
    const double *coef = p->s->cost.coef;
    p->us_left -= coef[1] * n + coef[2] * n * (first + (n + 1) / 2.0) + coef[3] * n_logits;
}

/* Extends e, the newest entry of a prefilling sequence, by as many of its rows as there is room
 * for. Its last row has logits, and samples the next token unless max_tokens is 0. */
static void extend_chunk(planner *p, sched_step_seq *e, uint32_t max_rows,
                         uint32_t max_logits) {
    sched *s = p->s;
    seq_hot *h = &s->hot[e->slot];
    const uint32_t first = h->next_pos, left = h->len - first;
    uint32_t n = min_u32(left, rows_in_time(p, first, max_rows)), logits = 0;
    uint32_t silent = left; /* rows before the first that has to be scored */
    if (h->score) {
        uint32_t reported = s->record[record_of(h->id)].n_reported;
        if (reported < h->n_prompt)
            silent = reported > h->next_pos ? reported - h->next_pos : 0;
    }
    if (n > silent) {
        logits = min_u32(n - silent, max_logits);
        n = silent + logits;
    }
    bool last = n == left;
    if (last && logits == 0) {
        if (max_logits > 0) {
            logits = 1;
        } else {
            last = false;
            n--;
        }
    }
    e->n_rows += n;
    e->n_logit_rows += logits;
    e->sample = last && h->len < h->limit;
    h->next_pos += n;
    hold_cover(s, e->slot, h->next_pos);
    count_rows(p, first, n, logits);
}

/* A chunk of slot's prompt. False when there was no room for a single row. */
static bool plan_chunk(planner *p, uint32_t slot) {
    sched *s = p->s;
    seq_hot *h = &s->hot[slot];
    bool alone = s->prefilling.n == 1 && s->preempted.n == 0 && s->waiting.n == 0;
    uint32_t rows = p->rows_left, logits = p->logits_left;
    if (takes_whole(s)) {
        if (h->len > rows || logits == 0) return false;
        alone = true;
    }
    if (!alone) {
        rows = min_u32(rows, p->share);
        logits = (logits + 1) / 2;
    }
    sched_step_seq *e = add_entry(p, slot);
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
        next = s->hot[slot].prefill.next;
        plan_chunk(p, slot);
    }
}

/* Tokens of a sequence of len and limit that must have room, so that it is not evicted at once. */
static uint32_t with_slack(uint32_t n_prompt, uint32_t len, uint32_t limit) {
    return min_u32(len + min_u32(limit - len, START_SLACK),
                   max_u32(len, positions_needed(n_prompt, limit)));
}

/* Does not take back who was evicted by this plan: an eviction happens when no block of a group
 * is free, and at least one of the blocks it frees there is taken, so fewer are free than the
 * victim had. Unless it finds its text in blocks of others by now, then it is welcome. A victim
 * in an uncommitted step waits for that: its table may still be read. */
static void plan_resumed(planner *p) {
    sched *s = p->s;
    while (s->preempted.n > 0 && rows_are_left(p)) {
        uint32_t slot = s->preempted.head;
        const seq_hot *h = &s->hot[slot];
        const uint32_t space = with_slack(h->n_prompt, h->len, h->limit);
        start st;
        if (h->inflight > 0 || find_start(p, record_of(h->id), tokens_of(s, slot), h->len,
                                          space, false, &st) != SPACE_THERE)
            return;
        seq_resume(s, slot, &st);
        if (h->state != SEQ_LOADING && !plan_chunk(p, slot)) return;
    }
}

/* Those that run have generated tokens since a sequence was admitted last. */
static void count_service(sched *s) {
    for (uint32_t i = s->running.head; i != NO_SLOT; i = s->hot[i].run.next)
        waiting_generated(s, record_of(s->hot[i].id), s->hot[i].len - s->hot[i].n_prompt);
}

/* Whether n_blocks of a waiting sequence fit though nothing of it is found (no text is looked up), and
 * half of those that run can have one more, so that passing causes no preemptions. */
static bool fits_unseen(const planner *p, uint32_t n_blocks) {
    const sched *s = p->s;
    uint32_t want[SCHED_MAX_GROUPS];
    for (uint32_t k = 0; k < s->n_groups; k++) {
        const seq_group *g = &s->group[k];
        const uint32_t growth = g->window ? 0 : s->running.n / 2;
        want[k] = group_part(g, n_blocks) + max_u32(g->watermark, growth);
    }
    return find_space(p, want) == SPACE_THERE;
}

/* Tokens that a sequence must have blocks for to pass others: it is not to be evicted at once. */
static uint32_t passing_space(const sched_spec *spec) {
    return with_slack(spec->n_prompt, spec->n_prompt, spec->n_prompt + spec->max_tokens);
}

/* The first one behind a head that has no room, in its queue and of its priority, that may pass it and
 * all between them, or NO_SLOT. */
static uint32_t find_passer(const planner *p, uint32_t head) {
    sched *s = p->s;
    blocked *b = &s->waiting.blocked;
    if (b->id == id_of(s, head) && b->n_changes == s->waiting.n_changes &&
        (b->least == UINT32_MAX || !fits_unseen(p, b->least)))
        return NO_SLOT;
    *b =
        (blocked){.id = id_of(s, head), .n_changes = s->waiting.n_changes, .least = UINT32_MAX};
    uint32_t i = head;
    for (uint32_t n = 0; n < SCHED_LOOK_AHEAD; n++) {
        if (s->record[i].n_passed == SCHED_MAX_PASSES) return NO_SLOT;
        i = s->record[i].wait_next;
        if (i == NO_SLOT || s->record[i].spec.priority != s->record[head].spec.priority)
            return NO_SLOT;
        const uint32_t n_blocks = blocks_for(s, passing_space(&s->record[i].spec));
        if (fits_unseen(p, n_blocks)) return i;
        b->least = min_u32(b->least, n_blocks);
    }
    return NO_SLOT;
}

/* A chunk of it is planned, unless it loads. False: no row was left for it. */
static bool admit(planner *p, uint32_t record, const start *st) {
    sched *s = p->s;
    seq_admit(s, record, st);
    const uint32_t slot = s->record[record].slot;
    return s->hot[slot].state == SEQ_LOADING || plan_chunk(p, slot);
}

/* The head has no room: smaller ones pass it, within the bounds of waiting.h. */
static void plan_passers(planner *p, uint32_t head) {
    sched *s = p->s;
    while (s->n_free_slots > 0 && rows_are_left(p)) {
        const uint32_t i = find_passer(p, head);
        if (i == NO_SLOT) return;
        const sched_spec *spec = &s->record[i].spec;
        start st;
        if (find_start(p, i, spec->prompt, spec->n_prompt, passing_space(spec), true, &st) !=
            SPACE_THERE)
            return;
        waiting_passed(s, head, i);
        if (!admit(p, i, &st)) return;
    }
}

static void plan_admitted(planner *p) {
    sched *s = p->s;
    const bool counts = s->cfg.policy->by_tenant && s->waiting.n > 0 && s->n_free_slots > 0;
    if (counts) count_service(s);
    while (s->waiting.n > 0 && s->n_free_slots > 0 && rows_are_left(p)) {
        const uint32_t record = waiting_next(s);
        if (!batching_admits(s, record)) return;
        const sched_spec *spec = &s->record[record].spec;
        start st;
        const space r = find_start(p, record, spec->prompt, spec->n_prompt, spec->n_prompt,
                                   s->running.n > 0, &st);
        if (r != SPACE_THERE) {
            batching_full(s);
            if (r == SPACE_NONE && s->cfg.batching == BATCHING_CONTINUOUS)
                plan_passers(p, record);
            return;
        }
        if (!admit(p, record, &st)) return;
        if (s->n_free_slots == 0) batching_full(s);
    }
}

/* Rows that caps left over go to the prompts they were kept from, senior first. */
static void plan_leftovers(planner *p) {
    sched *s = p->s;
    for (uint32_t i = p->n_decode; i < p->n && p->rows_left > 0; i++) {
        sched_step_seq *e = &p->entry[i];
        seq_hot *h = &s->hot[e->slot];
        if (h->state != SEQ_PREFILL) continue;
        extend_chunk(p, e, p->rows_left, p->logits_left);
        h->pending += e->sample;
        if (h->next_pos == h->len) seq_prefilled(s, e->slot);
    }
}

static const sched_step *finish_step(planner *p) {
    sched *s = p->s;
    const bool settled = s->n_planned == s->n_committed;
    CHECK(p->n > 0 || s->n_copies == 0);
    if (p->n == 0) {
        if (s->resizing && settled) resize_unpark(s);
        return NULL;
    }
    sched_step *st = &s->step[p->parity];
    st->number = ++s->n_planned;
    st->n_moves = s->resizing && settled ? resize_move(s) : 0;
    st->n_copies = s->n_copies;
    st->n_seqs = p->n;
    st->n_decode_seqs = p->n_decode;
    st->n_rows = st->n_logit_rows = st->n_decode_rows = p->n_decode_rows;
    for (uint32_t i = p->n_decode; i < p->n; i++) {
        sched_step_seq *e = &p->entry[i];
        e->first_row = st->n_rows;
        /* All blocks of a prefill are there; the step touches those up to its last row. */
        e->n_blocks = blocks_for(s, e->first_pos + e->n_rows);
        st->n_rows += e->n_rows;
        st->n_logit_rows += e->n_logit_rows;
    }
    st->n_prefill_rows = st->n_rows - st->n_decode_rows;
    if (has_states(s)) st->n_checkpoints = state_plan(s, p->entry, p->n_decode, p->n);
    return st;
}

static uint32_t prefill_share(const sched *s, uint32_t n_left) {
    const sched_policy *p = s->cfg.policy;
    return max_u32(1, min_u32(n_left, p->prefill_share(p->self, &s->cfg, n_left)));
}

/* Rows that decoding leaves. */
static void plan_prompts(planner *p) {
    p->share = prefill_share(p->s, rows_in_time(p, 0, p->rows_left));
    plan_running_prefills(p);
    plan_resumed(p);
    if (p->s->preempted.n == 0) plan_admitted(p);
    plan_leftovers(p);
}

const sched_step *sched_plan(sched *s, uint64_t now_us) {
    sched_now(s, now_us);
    end_expired(s, now_us);
    if (s->n_planned - s->n_committed == s->depth) return NULL;
    if (s->resizing && !resize_advance(s)) return NULL;
    s->n_copies = 0;
    batching_plan(s, now_us);
    uint8_t parity = (s->n_planned + 1) & 1;
    planner p = {.s = s,
                 .entry = s->entry[parity],
                 .rows_left = s->cfg.max_rows,
                 .logits_left = s->cfg.max_logit_rows,
                 .parity = parity};
    plan_decode(&p);
    if (s->n_drafting > 0) plan_drafts(&p);
    plan_time(&p);
    s->spent_us = 0;
    if (p.rows_left > 0 && prompts_want_rows(s)) plan_prompts(&p);
    return finish_step(&p);
}
