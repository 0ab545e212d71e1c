/* Passes of the draft model, and which of them are worth their time. */
#include "daemon/bridge/draft_run.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/bridge/chance.h"

enum { CLASSES = 5, SOON_ROWS = 16 };

/* By the probability that the draft model gave its guess: what is expected of it before anything is known. */
static const struct {
    float least, chance;
} classes[CLASSES] = {{0, 0.2f}, {0.3f, 0.35f}, {0.5f, 0.5f}, {0.7f, 0.7f}, {0.9f, 0.9f}};

#define NEXT_CHANCE 0.7f /* likewise, of a guess that is not made yet */

/* next: that a guess is verified and right, before the draft model has made it. */
typedef struct chances {
    chance next, seen[CLASSES];
} chances;

typedef struct slot_state {
    sched_id id;
    chances own;
    uint32_t n_text,
        end; /* of its last draft: the text, and positions that were computed in blocks it holds */
    uint8_t cls[SCHED_MAX_DRAFT];
} slot_state;

typedef struct guesser {
    const int32_t *text;
    uint32_t n_text, n_blocks;
    bool goes_on;
    bool known;                    /* the first pass has looked at what it lacks */
    uint32_t entry;                /* of the pass before */
    double right[SCHED_MAX_DRAFT]; /* that each guess and all before it are right */
} guesser;

struct draft_run {
    draft_run_config c;
    uint32_t n, table_len, aside_of_slot, n_aside;
    bool broken;
    chances all;
    cost_model cost; /* of passes */
    sampling sampling;
    uint16_t *valid;
    slot_state *slot; /* [max_seqs] */
    draft *draft;     /* [max_seqs] */
    guesser *who;     /* [max_seqs], beside draft */
    batch_seq *seq;   /* [max_seqs] */
    uint32_t *of;     /* [max_seqs]: whose an entry of the pass is */
    int32_t *table;   /* [max_seqs][table_len] */
};

static uint32_t aside_of_slot(uint32_t block_tokens) {
    return (SCHED_MAX_DRAFT + block_tokens - 1) / block_tokens;
}

uint32_t draft_run_aside(uint32_t max_seqs, uint32_t block_tokens) {
    return max_seqs * aside_of_slot(block_tokens);
}

static uint32_t table_len_of(uint32_t max_model_len, uint32_t block_tokens) {
    return (max_model_len + block_tokens - 1) / block_tokens + aside_of_slot(block_tokens);
}

static size_t part(size_t n, size_t item) {
    return align_up(n * item, 64);
}

size_t draft_run_bytes(uint32_t max_seqs, uint32_t max_model_len, uint32_t block_tokens) {
    return part(1, sizeof(draft_run)) + part(max_seqs, sizeof(slot_state)) +
           part(max_seqs, sizeof(draft)) + part(max_seqs, sizeof(guesser)) +
           part(max_seqs, sizeof(batch_seq)) + part(max_seqs, sizeof(uint32_t)) +
           part((size_t)max_seqs * table_len_of(max_model_len, block_tokens), sizeof(int32_t));
}

uint64_t draft_run_valid_bytes(uint64_t n_blocks) {
    return align_up(n_blocks * sizeof(uint16_t), 64);
}

static void *next_part(char **at, size_t n, size_t item) {
    void *p = *at;
    *at += part(n, item);
    return p;
}

draft_run *draft_run_init(void *mem, uint16_t *valid, const draft_run_config *c) {
    char *at = mem;
    CHECK(c->max_draft >= 1 && c->max_draft <= SCHED_MAX_DRAFT);
    draft_run *d = next_part(&at, 1, sizeof *d);
    *d = (draft_run){.c = *c,
                     .valid = valid,
                     .table_len = table_len_of(c->max_model_len, c->block_tokens),
                     .aside_of_slot = aside_of_slot(c->block_tokens),
                     .n_aside = draft_run_aside(c->max_seqs, c->block_tokens)};
    d->slot = next_part(&at, c->max_seqs, sizeof *d->slot);
    d->draft = next_part(&at, c->max_seqs, sizeof *d->draft);
    d->who = next_part(&at, c->max_seqs, sizeof *d->who);
    d->seq = next_part(&at, c->max_seqs, sizeof *d->seq);
    d->of = next_part(&at, c->max_seqs, sizeof *d->of);
    d->table = next_part(&at, (size_t)c->max_seqs * d->table_len, sizeof *d->table);
    sampling_defaults(&d->sampling);
    d->sampling.temperature = 0;
    d->sampling.n_logprobs = 0;
    return d;
}

void draft_run_begin(draft_run *d) {
    d->n = 0;
}

/* ---- what is computed ---- */

/* The target's block at a place of a slot's text. */
static uint16_t *valid_at(draft_run *d, uint32_t slot, uint32_t block) {
    return &d->valid[d->table[(size_t)slot * d->table_len + block] - (int32_t)d->n_aside];
}

/* The first position that is still to be computed; the last token always is. */
static uint32_t computed(draft_run *d, uint32_t slot, uint32_t n_blocks, uint32_t n_text) {
    const uint32_t bt = d->c.block_tokens;
    uint32_t k = 0;
    while (k < n_blocks && *valid_at(d, slot, k) == bt) k++;
    const uint32_t pos = k * bt + (k < n_blocks ? *valid_at(d, slot, k) : 0);
    return pos < n_text ? pos : n_text - 1;
}

/* Positions up to end are computed, as those before from were. */
static void set_computed(draft_run *d, uint32_t slot, uint32_t n_blocks, uint32_t from,
                         uint32_t end) {
    const uint32_t bt = d->c.block_tokens;
    for (uint32_t k = from / bt; k < n_blocks && k * bt < end; k++) {
        const uint32_t n = end - k * bt < bt ? end - k * bt : bt;
        uint16_t *v = valid_at(d, slot, k);
        if (*v < n) *v = (uint16_t)n;
    }
}

void draft_run_enter(draft_run *d, const int32_t *blocks, uint32_t first_pos, uint32_t n_rows) {
    const uint32_t bt = d->c.block_tokens;
    for (uint32_t k = (first_pos + bt - 1) / bt; k * bt < first_pos + n_rows; k++)
        d->valid[blocks[k]] = 0;
}

void draft_run_copied(draft_run *d, int32_t block) {
    d->valid[block] = 0;
}

void draft_run_add(draft_run *d, sched_id id, uint32_t slot, const int32_t *text,
                   uint32_t n_text, const int32_t *blocks, uint32_t n_blocks, uint32_t n_most) {
    int32_t *table = d->table + (size_t)slot * d->table_len;
    if (d->slot[slot].id != id) d->slot[slot] = (slot_state){.id = id};
    n_most = n_most < d->c.max_draft ? n_most : d->c.max_draft;
    if (n_most == 0 || d->broken) return;
    for (uint32_t k = 0; k < n_blocks; k++) table[k] = blocks[k] + (int32_t)d->n_aside;
    for (uint32_t k = 0; k < d->aside_of_slot && n_blocks + k < d->table_len; k++)
        table[n_blocks + k] = (int32_t)(slot * d->aside_of_slot + k);
    d->draft[d->n] = (draft){.id = id, .slot = slot, .n_most = n_most};
    d->who[d->n++] =
        (guesser){.text = text, .n_text = n_text, .n_blocks = n_blocks, .goes_on = true};
}

/* ---- what is worth its time ---- */

static double next_chance(const draft_run *d, uint32_t slot) {
    return chance_of(&d->slot[slot].own.next, &d->all.next, NEXT_CHANCE);
}

static double class_chance(const draft_run *d, uint32_t slot, uint32_t c) {
    return chance_of(&d->slot[slot].own.seen[c], &d->all.seen[c], classes[c].chance);
}

/* Times of the step that is to come, and what it is expected to give so far. */
typedef struct worth {
    double tokens, us;
    double most_us;           /* 0: it may take any time */
    double row_us;            /* of a row that verifies */
    double pass_us, guess_us; /* of a pass without rows, of a row in it */
} worth;

static worth worth_of(const draft_run *d, const cost_model *c, uint32_t n_decode, double kv) {
    const decode_times t = decode_times_of(c, n_decode, kv);
    worth w = {.tokens = n_decode, .us = t.us, .row_us = t.row_us};
    w.pass_us = d->c.share * w.us;
    w.guess_us = d->c.share * w.row_us;
    if (cost_ready(&d->cost) && cost_ready(c)) {
        const double *x = d->cost.coef;
        w.pass_us = x[0];
        w.guess_us = x[1] + x[2] * kv / n_decode + x[3];
    }
    return w;
}

/* What another token is to be worth, in tokens, of so much time. */
static double price(const worth *w, double us) {
    return MARGIN * us * w->tokens / w->us;
}

/* Who is guessed once more; false: the pass is not worth its time. */
static bool choose(draft_run *d, worth *w) {
    double gain = 0, us = w->pass_us;
    const double least = price(w, w->row_us + w->guess_us);
    for (uint32_t i = 0; i < d->n; i++) {
        const draft *x = &d->draft[i];
        guesser *g = &d->who[i];
        const double before = x->n ? g->right[x->n - 1] : 1;
        const double p = before * next_chance(d, x->slot);
        g->goes_on = g->goes_on && x->n < x->n_most && p >= least;
        if (!g->goes_on) continue;
        gain += p;
        us += w->row_us + w->guess_us;
    }
    if (gain == 0 || gain < price(w, us) || (w->most_us > 0 && w->us + us > w->most_us))
        return false;
    w->tokens += gain;
    w->us += us;
    return true;
}

/* ---- passes ---- */

typedef struct pass {
    batch b;
    double kv;
} pass;

/* Rows of a sequence from first on; they guess if they reach the end of what is known. */
static void add_rows(draft_run *d, pass *p, uint32_t i, uint32_t first, uint32_t n_rows) {
    const draft *x = &d->draft[i];
    guesser *g = &d->who[i];
    const uint32_t end = first + n_rows;
    const bool guesses = end == g->n_text + x->n;
    batch_seq *q = &d->seq[p->b.n_seqs];
    *q = (batch_seq){.first_row = p->b.n_rows,
                     .n_rows = n_rows,
                     .first_pos = first,
                     .tokens = g->text,
                     .input_from = x->n ? (int32_t)g->entry : -1,
                     .n_logit_rows = guesses,
                     .sample = guesses,
                     .n_score = -1,
                     .params = guesses ? &d->sampling : NULL,
                     .n_prompt = g->n_text};
    for (uint32_t k = 0; k < d->c.n_groups; k++) {
        q->blocks[k] = d->table + (size_t)x->slot * d->table_len;
        q->n_blocks[k] = (end + d->c.block_tokens - 1) / d->c.block_tokens;
    }
    g->entry = p->b.n_seqs;
    g->goes_on = guesses;
    d->of[p->b.n_seqs++] = i;
    p->b.n_rows += n_rows;
    p->b.n_logit_rows += guesses;
    p->kv += (double)n_rows * (first + end + 1) / 2;
}

/* Rows of the first pass: one of each sequence is in the time that it takes already. */
static uint32_t known_rows(const draft_run *d, const worth *w) {
    const double more = w->most_us > 0 ? (w->most_us - w->us) / w->guess_us : d->c.max_rows;
    return d->n + more < d->c.max_rows ? d->n + (uint32_t)more : d->c.max_rows;
}

/* What sequences lack, most rows at most, first of those that lack little; who gets none waits for the next step.
 * Positions count as computed at once, so that sequences which share a block do not both compute it. */
static void add_known(draft_run *d, pass *p, uint32_t most) {
    for (int soon = 1; soon >= 0; soon--)
        for (uint32_t i = 0; i < d->n; i++) {
            guesser *g = &d->who[i];
            const uint32_t slot = d->draft[i].slot, left = most - p->b.n_rows;
            if (!g->goes_on || g->known) continue;
            const uint32_t first = computed(d, slot, g->n_blocks, g->n_text);
            uint32_t n = g->n_text - first;
            if (soon && n > SOON_ROWS) continue;
            g->known = true;
            if (n > left) n = left;
            g->goes_on = n > 0;
            if (n == 0) continue;
            add_rows(d, p, i, first, n);
            set_computed(d, slot, g->n_blocks, first, first + n);
        }
}

static void add_guessed(draft_run *d, pass *p) {
    for (uint32_t i = 0; i < d->n; i++)
        if (d->who[i].goes_on) add_rows(d, p, i, d->who[i].n_text + d->draft[i].n - 1, 1);
}

static uint32_t class_of(double probability) {
    uint32_t c = CLASSES - 1;
    while (c > 0 && probability < classes[c].least) c--;
    return c;
}

static void take_guess(draft_run *d, uint32_t i, const sampled *s) {
    draft *x = &d->draft[i];
    guesser *g = &d->who[i];
    if (s->token < 0) {
        g->goes_on = false;
        return;
    }
    const uint32_t c = class_of(exp(s->logprob));
    g->right[x->n] = (x->n ? g->right[x->n - 1] : 1) * class_chance(d, x->slot, c);
    d->slot[x->slot].cls[x->n] = (uint8_t)c;
    x->guess[x->n++] = s->token;
}

static bool run(draft_run *d, const pass *p) {
    const uint64_t from = clock_us();
    step_result res;
    err e;
    if (engine_submit(d->c.engine, &p->b, &e) != OK ||
        engine_collect(d->c.engine, &res, &e) != OK) {
        log_error("the draft model failed, and guesses no more: %s", e.text);
        d->broken = true;
        return false;
    }
    for (uint32_t k = 0; k < p->b.n_seqs; k++)
        if (d->seq[k].sample) take_guess(d, d->of[k], &res.token[(size_t)k * res.max_run]);
    cost_observe(&d->cost,
                 (step_work){.rows = p->b.n_rows, .kv = p->kv, .logit_rows = p->b.n_logit_rows},
                 (double)(clock_us() - from));
    return true;
}

static void see_next(draft_run *d, uint32_t slot, bool right) {
    chance_see(&d->slot[slot].own.next, SEQ_FADE, right);
    chance_see(&d->all.next, ALL_FADE, right);
}

/* Those whose guesses are not tried for want of worth are tried again later. */
static void rest(draft_run *d) {
    for (uint32_t i = 0; i < d->n; i++)
        chance_fade(&d->slot[d->draft[i].slot].own.next, IDLE_FADE);
    chance_fade(&d->all.next, IDLE_FADE);
}

/* Guesses that are not worth a row go, and their passes have given nothing; what was computed of the others is
 * noted. */
static void keep_worthy(draft_run *d, const worth *w) {
    const double least = price(w, w->row_us);
    for (uint32_t i = 0; i < d->n; i++) {
        draft *x = &d->draft[i];
        const guesser *g = &d->who[i];
        slot_state *s = &d->slot[x->slot];
        const uint32_t held = g->n_blocks * d->c.block_tokens, end = g->n_text + x->n - 1;
        s->n_text = x->n ? g->n_text : 0;
        s->end = end < held ? end : held;
        const uint32_t made = x->n;
        while (x->n && g->right[x->n - 1] < least) x->n--;
        if (x->n < made) see_next(d, x->slot, false);
    }
}

void draft_run_guess(draft_run *d, const cost_model *c, uint32_t n_decode, double kv,
                     double most_us) {
    if (d->n == 0 || n_decode == 0 || d->broken) return;
    if (most_us > 0 && !cost_ready(c)) return; /* then the scheduler verifies nothing */
    worth w = worth_of(d, c, n_decode, kv);
    w.most_us = most_us;
    for (uint32_t k = 0; k < d->c.max_draft; k++) {
        pass p = {.b = {.seq = d->seq}};
        if (!choose(d, &w)) {
            if (k == 0) rest(d);
            break;
        }
        if (k == 0) {
            add_known(d, &p, known_rows(d, &w));
        } else {
            add_guessed(d, &p);
        }
        if (!run(d, &p)) {
            d->n = 0;
            return;
        }
    }
    keep_worthy(d, &w);
}

uint32_t draft_run_drafts(draft_run *d, draft **out) {
    *out = d->draft;
    return d->n;
}

void draft_run_learn(draft_run *d, uint32_t slot, uint32_t n, uint32_t n_right) {
    slot_state *s = &d->slot[slot];
    for (uint32_t k = 0; k < n && k <= n_right; k++) {
        const bool right = k < n_right;
        see_next(d, slot, right);
        chance_see(&s->own.seen[s->cls[k]], SEQ_FADE, right);
        chance_see(&d->all.seen[s->cls[k]], ALL_FADE, right);
    }
    const uint32_t known = s->n_text + n_right, end = known < s->end ? known : s->end;
    const uint32_t bt = d->c.block_tokens;
    if (s->n_text && end > s->n_text)
        set_computed(d, slot, (end + bt - 1) / bt, s->n_text, end);
}
