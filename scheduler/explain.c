/* Why the prefix cache had less of a prompt than it might have: the prompt is compared with the
 * texts of late, those of running sequences and those of recent.h.
 *
 * Only texts with the prompt's own salt are compared, and, where it has one of the client's, those
 * with its tenant's alone, which each of the tenant's clients may share: another client's salt is its
 * secret, and whether its texts are like this one, too. */
#include <string.h>

#include "scheduler/state.h"

/* The text with the most tokens in front that are the prompt's; of equal ones the newest. */
typedef struct nearest {
    const int32_t *prompt;
    uint32_t n_prompt, common;
    const int32_t *tokens; /* NULL: none has any */
    uint32_t n;            /* its tokens that are here ... */
    bool whole;            /* ... are all */
    const char *request;
    const seq_record *running; /* NULL: it has ended */
} nearest;

static uint32_t common_tokens(const nearest *best, const int32_t *tokens, uint32_t n) {
    const uint32_t most = min_u32(n, best->n_prompt);
    uint32_t i = 0;
    /* No more than the best has: seen at one token. */
    if (most <= best->common || tokens[best->common] != best->prompt[best->common]) return 0;
    while (i < most && tokens[i] == best->prompt[i]) i++;
    return i;
}

static bool is_nearer(nearest *best, const int32_t *tokens, uint32_t n, bool whole,
                      const char *request) {
    const uint32_t common = common_tokens(best, tokens, n);
    if (common <= best->common) return false;
    best->common = common;
    best->tokens = tokens;
    best->n = n;
    best->whole = whole;
    best->request = request;
    best->running = NULL;
    return true;
}

static nearest find_nearest(const sched *s, const seq_record *own, uint64_t salt) {
    nearest best = {.prompt = tokens_of(s, own->slot), .n_prompt = own->spec.n_prompt};
    const recent *old = &s->recent;
    for (uint32_t slot = 0; slot < s->cfg.max_seqs; slot++) {
        const seq_hot *h = &s->hot[slot];
        if (h->state == SEQ_FREE || slot == own->slot) continue;
        const seq_record *r = &s->record[record_of(h->id)];
        if (r->spec.salt == salt &&
            is_nearer(&best, tokens_of(s, slot), h->len, true, r->spec.request))
            best.running = r;
    }
    for (uint64_t i = old->n_texts; i-- > 0 && i + RECENT_TEXTS >= old->n_texts;) {
        const int32_t *tokens;
        const recent_text *t = recent_get(old, i, &tokens);
        if (t && t->salt == salt) is_nearer(&best, tokens, t->n, t->n == t->n_all, t->request);
    }
    return best;
}

static void set(sched_miss *out, sched_why why, uint32_t at_token, const nearest *t) {
    out->why = why;
    out->at_token = at_token;
    if (t) recent_name(out->nearest, t->request);
}

/* The tokens of full blocks in front that a hit may have of n that are the same. */
static uint32_t whole_blocks(const sched *s, const seq_record *r, uint32_t n) {
    return min_u32(n, r->spec.n_prompt - 1) / s->cfg.block_tokens * s->cfg.block_tokens;
}

static void compare(const sched *s, const seq_record *r, sched_miss *out) {
    const nearest t = find_nearest(s, r, r->spec.salt);
    const uint32_t found = r->n_cached;
    if (whole_blocks(s, r, t.common) > found) {
        const bool computed =
            !t.running || t.running->n_computed >= found + s->cfg.block_tokens;
        set(out,
            !computed     ? WHY_NOT_COMPUTED
            : r->unstated ? WHY_NO_CHECKPOINT
            : r->gap      ? WHY_WINDOW_GAP
                          : WHY_EVICTED,
            found, &t);
        return;
    }
    if (r->spec.salt != r->spec.base_salt) {
        const nearest shared = find_nearest(s, r, r->spec.base_salt);
        if (whole_blocks(s, r, shared.common) > found) {
            set(out, WHY_SALT_DIFFERS, found, &shared);
            return;
        }
    }
    if (t.tokens && t.common < t.n) {
        set(out, WHY_TOKENS_DIFFER, t.common, &t);
        out->n_old = min_u32(t.n - t.common, SCHED_MISS_TOKENS);
        memcpy(out->old, t.tokens + t.common, out->n_old * sizeof *out->old);
        return;
    }
    set(out, WHY_FIRST_SEEN, max_u32(found, t.common), NULL);
}

void sched_explain(const sched *s, sched_id id, sched_miss *out) {
    const seq_record *r = record_find(s, id);
    *out = (sched_miss){.why = WHY_NONE};
    if (!r || r->slot == NO_SLOT) return;
    if (!s->cfg.prefix_cache)
        set(out, WHY_OFF, 0, NULL);
    else if (r->n_cached >= whole_blocks(s, r, r->spec.n_prompt))
        return;
    else if (r->spec.score_prompt)
        set(out, WHY_SCORED_PROMPT, r->n_cached, NULL);
    else if (r->load_broke)
        set(out, WHY_LOAD_FAILED, r->n_cached, NULL);
    else
        compare(s, r, out);
}
