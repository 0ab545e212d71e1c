/* Chances of guesses, and how many of them a step verifies. */
#include "daemon/bridge/drafter.h"

#include "base/check.h"
#include "daemon/bridge/chance.h"
#include "daemon/bridge/lookup.h"

enum { CLASSES = 5, ROUNDS = 3 };

/* By the length of a match: what is expected of it before anything is known. */
static const struct {
    uint32_t least;
    float chance;
} classes[CLASSES] = {{2, 0.25f}, {3, 0.4f}, {4, 0.55f}, {6, 0.7f}, {10, 0.85f}};

typedef struct slot_state {
    sched_id id;
    uint32_t length; /* of the match of its last draft */
    chance seen[CLASSES];
} slot_state;

struct drafter {
    uint32_t max_draft, n;
    chance all[CLASSES];
    slot_state *slot; /* [max_seqs] */
    draft *draft;     /* [max_seqs] */
};

size_t drafter_bytes(uint32_t max_seqs) {
    return align_up(sizeof(drafter), 64) + align_up(max_seqs * sizeof(slot_state), 64) +
           align_up(max_seqs * sizeof(draft), 64);
}

drafter *drafter_init(void *mem, uint32_t max_seqs, uint32_t max_draft) {
    drafter *d = mem;
    char *at = (char *)mem + align_up(sizeof *d, 64);
    CHECK(max_draft <= SCHED_MAX_DRAFT);
    *d = (drafter){.max_draft = max_draft, .slot = (slot_state *)at};
    at += align_up(max_seqs * sizeof(slot_state), 64);
    d->draft = (draft *)at;
    for (uint32_t i = 0; i < max_seqs; i++) d->slot[i] = (slot_state){0};
    return d;
}

void drafter_begin(drafter *d) {
    d->n = 0;
}

void drafter_add(drafter *d, sched_id id, uint32_t slot, const int32_t *text, uint32_t n_text,
                 uint32_t n_most) {
    if (d->slot[slot].id != id) d->slot[slot] = (slot_state){.id = id};
    n_most = n_most < d->max_draft ? n_most : d->max_draft;
    if (n_most == 0) return;
    const lookup_match m = lookup_find(text, n_text);
    if (m.length == 0) return;
    draft *x = &d->draft[d->n++];
    *x = (draft){.id = id, .slot = slot, .n_most = n_most, .length = m.length};
    lookup_guess(text, n_text, &m, x->guess, n_most);
    d->slot[slot].length = m.length;
}

static uint32_t class_of(uint32_t length) {
    uint32_t c = CLASSES - 1;
    while (c > 0 && length < classes[c].least) c--;
    return c;
}

/* That the guess behind a match of such a length is right. */
static double chance_behind(const drafter *d, const slot_state *s, uint32_t length) {
    const uint32_t c = class_of(length);
    return chance_of(&s->seen[c], &d->all[c], classes[c].chance);
}

/* Guesses of a draft that are each accepted with a chance of at least `least`; adds the tokens that they
 * give. */
static uint32_t worth(const drafter *d, const draft *x, double least, double *tokens) {
    double all_right = 1;
    uint32_t k = 0;
    for (; k < x->n_most; k++) {
        all_right *= chance_behind(d, &d->slot[x->slot], x->length + k);
        if (all_right < least) break;
        *tokens += all_right;
    }
    return k;
}

/* The best sum of tokens by time: rows are added while each gives more than the mean does, and what
 * they give raises the mean. */
void drafter_choose(drafter *d, const cost_model *c, uint32_t n_decode, double kv) {
    if (d->n == 0) return;
    const decode_times t = decode_times_of(c, n_decode, kv);
    double rate = n_decode / t.us;
    for (int round = 0; round < ROUNDS; round++) {
        double tokens = n_decode;
        uint32_t rows = 0;
        for (uint32_t i = 0; i < d->n; i++)
            rows += d->draft[i].n = worth(d, &d->draft[i], MARGIN * rate * t.row_us, &tokens);
        const double reached = tokens / (t.us + rows * t.row_us);
        rate = reached > rate ? reached : rate;
    }
    for (uint32_t i = 0; i < d->n; i++) {
        const uint32_t k = class_of(d->draft[i].length);
        if (d->draft[i].n > 0) continue;
        chance_fade(&d->slot[d->draft[i].slot].seen[k], IDLE_FADE);
        chance_fade(&d->all[k], IDLE_FADE);
    }
}

uint32_t drafter_drafts(drafter *d, draft **out) {
    *out = d->draft;
    return d->n;
}

void drafter_learn(drafter *d, uint32_t slot, uint32_t n, uint32_t n_right) {
    slot_state *s = &d->slot[slot];
    for (uint32_t k = 0; k < n && k <= n_right; k++) {
        const uint32_t c = class_of(s->length + k);
        chance_see(&s->seen[c], SEQ_FADE, k < n_right);
        chance_see(&d->all[c], ALL_FADE, k < n_right);
    }
}
