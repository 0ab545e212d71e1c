/* The tokens allowed at a position. For each state of a grammar once, and kept: tokens that are
 * allowed whatever the stack holds, and tokens that leave the rule and so depend on it, which are
 * tried at each position. One thread per cache. */
#include "text/grammar/grammar_in.h"

#include "base/check.h"
#include "model/sampling.h"

enum {
    WALK_NODES = 8192,
    DEEP = GRAMMAR_MAX_DEPTH - VOCAB_MAX_BYTES - 16 /* from here tokens may nest too deeply */
};

/* Positions after each byte of a token, kept while the next token shares them. Most are one state
 * over the stack that the walk began with: alone[d], which is 0 where at[d] says what there is. */
typedef struct walker {
    stacks k;
    conf base; /* its stack */
    uint16_t alone[VOCAB_MAX_BYTES + 1];
    uint32_t nodes_at[VOCAB_MAX_BYTES + 1];
    conf_set at[VOCAB_MAX_BYTES + 1];
    stack_node node[WALK_NODES];
} walker;

/* A mask that is kept. What follows it in the ring: `bits`, or the added tokens; then those that
 * depend on the stack, what each has in common with the one before, and how long it is. */
typedef struct kept {
    uint64_t serial;
    uint32_t state, bytes, next; /* next: offset + 1 of another one of its bucket */
    uint32_t n_added, n_open;
    uint8_t base; /* 0: bits; 1: a list; 2 ...: a slice, and a list */
} kept;

struct mask_cache {
    uint32_t n_vocab, words, n_buckets;
    /* Masks lie in ring[cap] from tail on, up to `end` and then from 0 if the writer went round
     * (end > 0), up to head, where the next goes. */
    size_t cap, head, tail, end;
    uint32_t *bucket;
    char *ring;
    uint32_t *sum;  /* [words]: of the position */
    uint32_t *bits; /* [words]: of the state that is computed */
    uint32_t *list; /* [n_vocab]: its tokens that depend on the stack */
    char *single;   /* a kept entry that the ring has no space for */
    walker w;
    mask_counts count;
};

/* ---- walking ---- */

/* Bytes of token i of a list, behind those that it shares. */
static const uint8_t *tail_of(const vocab_index *v, const vocab_list *l, uint32_t i) {
    if (l->at && l->at[i] != VOCAB_ELSEWHERE) return l->tail + l->at[i];
    return (const uint8_t *)vocab_token(v, l->id[i]).ptr + l->shared[i];
}

static bool is_sure(const conf_set *s) {
    for (uint32_t i = 0; i < s->n; i++)
        if (!s->c[i].tainted) return true;
    return false;
}

/* One byte further than depth d. False: no position. */
static bool step(walker *w, uint32_t d, uint8_t byte) {
    const grammar *g = w->k.g;
    conf_set *out = &w->at[d + 1];
    if (w->alone[d]) {
        const uint32_t to = grammar_next(g, w->alone[d], byte);
        if (!to) return false;
        out->n = 1;
        out->behind = BEHIND_NONE;
        out->c[0] = (conf){(uint16_t)to, w->base.parent, w->base.tainted};
        if (g->node[to].busy) conf_close(&w->k, out);
    } else {
        conf_step(&w->k, &w->at[d], byte, out);
    }
    w->alone[d + 1] = 0;
    w->nodes_at[d + 1] = w->k.n;
    return out->n > 0 || out->behind != BEHIND_NONE;
}

/* Bytes from depth d on while the position is one state, and no longer than `len`. Returns the
 * depth it got to. */
static uint32_t step_alone(walker *w, const uint8_t *byte, uint32_t d, uint32_t len) {
    const grammar *g = w->k.g;
    for (uint32_t q = w->alone[d]; q && d < len; byte++) {
        q = grammar_next(g, q, *byte);
        if (!q || g->node[q].busy) break;
        w->alone[++d] = (uint16_t)q;
        w->nodes_at[d] = w->nodes_at[0];
    }
    return d;
}

static bool is_accepted(const walker *w, uint32_t d) {
    return w->alone[d] ? !w->base.tainted : is_sure(&w->at[d]);
}

/* ---- free text: every token is allowed that has none of the bytes by which a mark can end, and so
 * stays within it. Only the others are tried ---- */

enum { MARK_ENDS = 8 }; /* different bytes that are searched */

typedef struct search {
    const vocab_list *l;
    uint32_t n, next[MARK_ENDS]; /* where in the list's tails each byte stands next */
    uint8_t byte[MARK_ENDS];
} search;

static void seek(search *s, uint32_t from) {
    for (uint32_t k = 0; k < s->n; k++) {
        if (s->next[k] >= from && from) continue;
        const uint8_t *p = memchr(s->l->tail + from, s->byte[k], s->l->n_tail - from);
        s->next[k] = p ? (uint32_t)(p - s->l->tail) : UINT32_MAX;
    }
}

/* False: there are too many of them, or the bytes are not all in the list. */
static bool search_begin(search *s, const vocab_list *l, const uint64_t *ends) {
    *s = (search){.l = l};
    for (int b = 0; b < 256; b++) {
        if (!(ends[b / 64] >> b % 64 & 1)) continue;
        if (s->n == MARK_ENDS) return false;
        s->byte[s->n++] = (uint8_t)b;
    }
    seek(s, 0);
    return !l->split;
}

/* The next token, from number `from` on, whose own bytes hold one of them; n: there is none. */
static uint32_t search_next(search *s, uint32_t from) {
    const vocab_list *l = s->l;
    if (from == l->n) return from;
    seek(s, l->at[from]);
    uint32_t at = UINT32_MAX, lo = from, hi = l->n;
    for (uint32_t k = 0; k < s->n; k++)
        if (s->next[k] < at) at = s->next[k];
    if (at == UINT32_MAX) return l->n;
    while (hi - lo > 1) { /* the last token that begins there or before */
        const uint32_t mid = lo + (hi - lo) / 2;
        *(l->at[mid] <= at ? &lo : &hi) = mid;
    }
    return lo;
}

static bool holds(const uint64_t *set, const uint8_t *s, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (set[s[i] / 64] >> s[i] % 64 & 1) return true;
    return false;
}

/* As walk, from a state of free text. */
static uint32_t walk_free(walker *w, const vocab_index *v, search *s, uint32_t *bits,
                          uint32_t *open) {
    const vocab_list *l = &v->all;
    uint32_t n_open = 0;
    for (uint32_t i = 0; i < sampling_mask_words(v->n_vocab); i++) bits[i] |= v->known[i];
    w->nodes_at[0] = w->k.n;
    for (uint32_t i = 0; (i = search_next(s, i)) < l->n;) {
        /* This token, and those after it while what they share with it holds the byte, too. */
        for (uint32_t first = i;
             i < l->n &&
             (i == first || holds(w->k.g->mark_ends,
                                  (const uint8_t *)vocab_token(v, l->id[i]).ptr, l->shared[i]));
             i++) {
            const uint8_t *all = (const uint8_t *)vocab_token(v, l->id[i]).ptr;
            uint32_t d = step_alone(w, all, 0, l->len[i]);
            w->k.n = w->nodes_at[0];
            while (d < l->len[i] && step(w, d, all[d])) d++;
            if (d == l->len[i] && is_accepted(w, d)) continue;
            bits[l->id[i] / 32] &= ~(1u << l->id[i] % 32);
            if (d == l->len[i]) open[n_open++] = l->id[i];
        }
    }
    w->k.n = w->nodes_at[0];
    return n_open;
}

/* Tries the tokens of a list from depth 0: bits are set of those that are allowed, `open` (or
 * NULL) gets those for which that depends on what is unknown. Returns how many. */
static uint32_t walk(walker *w, const vocab_index *v, const vocab_list *l, uint32_t *bits,
                     uint32_t *open) {
    uint32_t n_open = 0, i = 0;
    w->nodes_at[0] = w->k.n;
    while (i < l->n) {
        /* What is not shared with the token before, which was followed that far. */
        const uint32_t shared = l->shared[i], len = l->len[i];
        const uint8_t *own = tail_of(v, l, i);
        uint32_t d = step_alone(w, own, shared, len);
        w->k.n = w->nodes_at[d];
        while (d < len && step(w, d, own[d - shared])) d++;
        if (d < len) { /* and so for every token that begins like this */
            for (i++; i < l->n && l->shared[i] > d;) i++;
            continue;
        }
        if (is_accepted(w, d))
            bits[l->id[i] / 32] |= 1u << l->id[i] % 32;
        else if (open)
            open[n_open++] = l->id[i];
        i++;
    }
    w->k.n = w->nodes_at[0];
    return n_open;
}

static void walk_from_conf(walker *w, conf c) {
    w->base = c;
    w->alone[0] = c.state;
}

static void walk_from_state(walker *w, const grammar *g, uint32_t q) {
    w->k = (stacks){g, w->node, STACK_FIRST, WALK_NODES};
    walk_from_conf(w, (conf){(uint16_t)q, STACK_UNKNOWN, false});
}

static void walk_from_position(walker *w, const grammar *g, const grammar_state *s) {
    w->k = (stacks){g, w->node, s->n_nodes, WALK_NODES};
    memcpy(w->node, s->node, s->n_nodes * sizeof *s->node);
    w->alone[0] = 0;
    w->at[0].n = s->n;
    w->at[0].behind = BEHIND_NONE;
    memcpy(w->at[0].c, s->c, s->n * sizeof *s->c);
}

/* ---- harmless characters ---- */

/* The state behind `n` continuation bytes, if it is the same whatever they are; else 0. */
static uint32_t after_tail(const grammar *g, uint32_t q, int n) {
    for (; n > 0 && q; n--) {
        uint32_t to = grammar_next(g, q, 0x80);
        for (int b = 0x81; b < 0xc0; b++)
            if (grammar_next(g, q, (uint8_t)b) != to) return 0;
        q = to;
    }
    return q;
}

/* Likewise behind the second byte of a character of n more bytes that begins with `a`. */
static bool leads_to(const grammar *g, uint32_t lead, int a, int n, uint32_t to) {
    int lo = a == 0xe0 ? 0xa0 : a == 0xf0 ? 0x90 : 0x80;
    int hi = a == 0xed ? 0x9f : a == 0xf4 ? 0x8f : 0xbf;
    uint32_t before = 0; /* most second bytes lead to one state */
    for (int b = lo; b <= hi; b++) {
        uint32_t q = grammar_next(g, lead, (uint8_t)b);
        if (q == before && q) continue;
        if (after_tail(g, q, n - 1) != to) return false;
        before = q;
    }
    return true;
}

/* The state behind any harmless character, if that is one state, else 0. */
static uint32_t after_harmless(const grammar *g, uint32_t q) {
    uint32_t to = grammar_next(g, q, ' '), good[4] = {0}; /* leads that are known to go there */
    if (!to) return 0;
    for (int b = 0x20; b < 0x7f; b++)
        if (b != '"' && b != '\\' && grammar_next(g, q, (uint8_t)b) != to) return 0;
    for (int a = 0xc2; a < 0xf5; a++) {
        if (!g->index->single[a]) continue; /* no token begins such a character */
        int n = a < 0xe0 ? 1 : a < 0xf0 ? 2 : 3;
        bool whole = a != 0xe0 && a != 0xed && a != 0xf0 && a != 0xf4;
        uint32_t lead = grammar_next(g, q, (uint8_t)a);
        if (!lead) return 0;
        if (whole && lead == good[n]) continue;
        if (!leads_to(g, lead, a, n, to)) return 0;
        if (whole) good[n] = lead;
    }
    return to;
}

/* Whether nothing that begins with a harmless character can follow. */
static bool refuses_harmless(const grammar *g, uint32_t q) {
    if (g->node[q].busy) return false;
    for (int b = 0x20; b < 0xf5; b++)
        if (b != '"' && b != '\\' && b != 0x7f && grammar_next(g, q, (uint8_t)b)) return false;
    return true;
}

/* What a state takes of the tokens of harmless characters: -1: they must be tried; 0: all of
 * them; k: those of at most k characters and no other, but those of more than VOCAB_SLICE_CHARS
 * must be tried if k is that. */
static int slice_of(const grammar *g, uint32_t q) {
    for (int k = 0; k < VOCAB_SLICE_CHARS; k++) {
        uint32_t to = after_harmless(g, q);
        if (!to) return k && refuses_harmless(g, q) ? k : -1;
        if (to == q) return k ? -1 : 0;
        q = to;
    }
    return VOCAB_SLICE_CHARS;
}

/* ---- one state's mask ---- */

static uint32_t *items_of(const kept *e) {
    return (uint32_t *)(e + 1);
}

static void add_symbols(const grammar *g, uint32_t q, uint32_t *mask) {
    const grammar_symbol *s = &g->symbol[g->node[q].first_symbol],
                         *end = &g->symbol[g->node[q + 1].first_symbol];
    for (const grammar_symbol *i = s; i < end; i++)
        for (uint32_t w = 0;
             i->token == RULE_OTHER_TOKEN && w < sampling_mask_words(g->index->n_vocab); w++)
            mask[w] |= g->index->silent[w];
    for (; s < end; s++) {
        const uint32_t bit = 1u << s->token % 32;
        if (s->token == RULE_OTHER_TOKEN || s->token == RULE_TOKEN_END) continue;
        if (s->to)
            mask[s->token / 32] |= bit;
        else
            mask[s->token / 32] &= ~bit;
    }
}

/* What the state's own bytes and symbols allow; calls and returns that need no byte are in the
 * position already. Leaves bits, list and shared. */
static void compute(mask_cache *m, const grammar *g, uint32_t q, kept *e) {
    const vocab_index *v = g->index;
    search free;
    const bool in_free = g->node[q].free && search_begin(&free, &v->all, g->mark_ends);
    int k = v->odd.full || in_free ? -1 : slice_of(g, q);
    if (k == VOCAB_SLICE_CHARS && v->lengthy.full) k = -1;
    *e = (kept){.serial = g->serial, .state = q, .base = (uint8_t)(k + 2)};
    walk_from_state(&m->w, g, q);
    if (k >= 0)
        memcpy(m->bits, v->slice[k], m->words * sizeof *m->bits);
    else
        memset(m->bits, 0, m->words * sizeof *m->bits);
    e->n_open = in_free ? walk_free(&m->w, v, &free, m->bits, m->list)
                        : walk(&m->w, v, k >= 0 ? &v->odd : &v->all, m->bits, m->list);
    if (k == VOCAB_SLICE_CHARS)
        e->n_open += walk(&m->w, v, &v->lengthy, m->bits, m->list + e->n_open);
    add_symbols(g, q, m->bits);
    for (uint32_t i = 0; i < m->words; i++)
        e->n_added +=
            (uint32_t)__builtin_popcount(m->bits[i] & ~(k >= 0 ? v->slice[k][i] : 0u));
    if (e->n_added >= m->words) e->base = 0; /* bits are smaller than a list */
    uint32_t n_items = (e->base == 0 ? m->words : e->n_added) + e->n_open;
    e->bytes = (uint32_t)align_up(sizeof *e + n_items * sizeof *m->list + 2 * e->n_open, 8);
}

static void write_entry(const mask_cache *m, const grammar *g, const kept *e, char *to) {
    const vocab_index *v = g->index;
    const uint32_t *base = e->base >= 2 ? v->slice[e->base - 2] : NULL;
    memcpy(to, e, sizeof *e);
    uint32_t *item = items_of((const kept *)to), n = 0;
    if (e->base == 0) memcpy(item, m->bits, (n = m->words) * sizeof *item);
    for (uint32_t i = 0; e->base && i < m->words; i++)
        for (uint32_t w = m->bits[i] & ~(base ? base[i] : 0u); w; w &= w - 1)
            item[n++] = i * 32 + (uint32_t)__builtin_ctz(w);
    memcpy(item + n, m->list, e->n_open * sizeof *item);
    uint8_t *shared = (uint8_t *)(item + n + e->n_open);
    for (uint32_t i = 0; i < e->n_open; i++) {
        str a = i ? vocab_token(v, m->list[i - 1]) : STR(""), b = vocab_token(v, m->list[i]);
        size_t k = 0;
        while (k < a.len && k < b.len && a.ptr[k] == b.ptr[k]) k++;
        shared[i] = (uint8_t)k;
        shared[e->n_open + i] = (uint8_t)b.len;
    }
}

/* ---- the ring ---- */

static uint32_t *bucket_of(mask_cache *m, uint64_t serial, uint32_t state) {
    uint64_t h = (serial * 0x9e3779b97f4a7c15u + state) * 0xff51afd7ed558ccdu;
    return &m->bucket[(h >> 32) & (m->n_buckets - 1)];
}

static const kept *find(mask_cache *m, uint64_t serial, uint32_t state) {
    for (uint32_t at = *bucket_of(m, serial, state); at;) {
        const kept *e = (const kept *)(m->ring + (size_t)(at - 1) * 8);
        if (e->serial == serial && e->state == state) return e;
        at = e->next;
    }
    return NULL;
}

static void drop_oldest(mask_cache *m) {
    kept *e = (kept *)(m->ring + m->tail);
    uint32_t *at = bucket_of(m, e->serial, e->state), self = (uint32_t)(m->tail / 8) + 1;
    while (*at != self) at = &((kept *)(m->ring + (size_t)(*at - 1) * 8))->next;
    *at = e->next;
    m->count.bytes -= e->bytes;
    m->tail += e->bytes;
    if (m->end && m->tail == m->end) m->tail = m->end = 0;
    if (!m->end && m->tail == m->head) m->tail = m->head = 0; /* empty */
}

/* Space for an entry, at the cost of the oldest; NULL: larger than all there is. */
static char *make_space(mask_cache *m, uint32_t bytes) {
    if (bytes > m->cap) return NULL;
    for (;;) {
        if (!m->end) { /* tail ... head is in use */
            if (m->cap - m->head >= bytes) break;
            if (m->tail == m->head) {
                m->tail = m->head = 0;
                continue;
            }
            m->end = m->head; /* go round */
            m->head = 0;
        }
        if (m->tail - m->head >= bytes) break;
        drop_oldest(m);
    }
    char *to = m->ring + m->head;
    m->head += bytes;
    m->count.bytes += bytes;
    return to;
}

static const kept *mask_of(mask_cache *m, const grammar *g, uint32_t q) {
    const kept *have = find(m, g->serial, q);
    if (have) {
        m->count.hits++;
        return have;
    }
    kept e;
    m->count.built++;
    compute(m, g, q, &e);
    char *to = make_space(m, e.bytes);
    if (!to) {
        write_entry(m, g, &e, m->single);
        return (const kept *)m->single;
    }
    uint32_t *at = bucket_of(m, e.serial, q);
    e.next = *at;
    write_entry(m, g, &e, to);
    *at = (uint32_t)((to - m->ring) / 8) + 1;
    return (const kept *)to;
}

/* ---- a position's mask ---- */

static void add_open(mask_cache *m, const grammar *g, const grammar_state *s, conf c,
                     const uint32_t *list, const uint8_t *shared, uint32_t n, uint32_t *mask) {
    /* vocab_list is for reading here, too */
    vocab_list l = {.id = (uint32_t *)(uintptr_t)list,
                    .shared = (uint8_t *)(uintptr_t)shared,
                    .len = (uint8_t *)(uintptr_t)shared + n,
                    .n = n};
    walk_from_position(&m->w, g, s);
    walk_from_conf(&m->w, c);
    walk(&m->w, g->index, &l, mask, NULL);
}

/* first: whatever the mask held before counts for nothing. */
static void add_state(mask_cache *m, const grammar *g, const grammar_state *s, conf c,
                      uint32_t *mask, bool first) {
    const kept *e = mask_of(m, g, c.state);
    const uint32_t *item = items_of(e), n = e->base == 0 ? m->words : e->n_added;
    if (e->base != 1) {
        const uint32_t *from = e->base == 0 ? item : g->index->slice[e->base - 2];
        if (first) memcpy(mask, from, m->words * sizeof *mask);
        for (uint32_t i = 0; i < m->words && !first; i++) mask[i] |= from[i];
    }
    if (e->base == 1 && first) memset(mask, 0, m->words * sizeof *mask);
    for (uint32_t i = 0; e->base && i < n; i++) mask[item[i] / 32] |= 1u << item[i] % 32;
    if (e->n_open)
        add_open(m, g, s, c, item + n, (const uint8_t *)(item + n + e->n_open), e->n_open,
                 mask);
}

/* Sets the bits of what the position allows. */
static void add_all(const grammar *g, const grammar_state *s, mask_cache *m, uint32_t *mask) {
    bool deep = false, first = true;
    for (uint32_t i = 0; i < s->n; i++)
        deep |= s->c[i].parent >= STACK_FIRST && s->node[s->c[i].parent].depth > DEEP;
    if (deep) { /* the limit on depth decides, which is not part of a state's mask */
        memset(mask, 0, m->words * sizeof *mask);
        walk_from_position(&m->w, g, s);
        walk(&m->w, g->index, &g->index->all, mask, NULL);
    }
    for (uint32_t i = 0; i < s->n; i++) {
        const grammar_node *q = &g->node[s->c[i].state];
        if (deep) {
            add_symbols(g, s->c[i].state, mask);
        } else if (q->any_byte || q->first_symbol < q[1].first_symbol) {
            add_state(m, g, s, s->c[i], mask, first);
            first = false;
        }
    }
    if (first && !deep) memset(mask, 0, m->words * sizeof *mask);
}

void grammar_mask(const grammar *g, const grammar_state *s, mask_cache *m, uint32_t *mask) {
    add_all(g, s, m, m->sum);
    uint32_t i = 0;
    for (; i + 2 <= m->words; i += 2) { /* by pairs: a large vocabulary has 8,192 words */
        uint64_t a, b;
        memcpy(&a, mask + i, sizeof a);
        memcpy(&b, m->sum + i, sizeof b);
        a &= b;
        memcpy(mask + i, &a, sizeof a);
    }
    for (; i < m->words; i++) mask[i] &= m->sum[i];
}

void grammar_mask_plain(const grammar *g, const grammar_state *s, uint32_t *mask) {
    memset(mask, 0, sampling_mask_words(g->index->n_vocab) * sizeof *mask);
    for (uint32_t id = 0; id < g->index->n_vocab; id++) {
        grammar_state next = *s;
        if (grammar_take(g, &next, (int32_t)id)) mask[id / 32] |= 1u << id % 32;
    }
}

static size_t part(size_t n, size_t item) {
    return align_up(n * item, 64);
}

static uint32_t buckets_of(size_t budget) {
    uint32_t n = 64;
    while (n < budget / 512) n *= 2;
    return n;
}

size_t mask_cache_bytes(uint32_t n_vocab, size_t budget) {
    uint32_t words = sampling_mask_words(n_vocab);
    size_t one = sizeof(kept) + words * 4 + (size_t)n_vocab * 6 + 64;
    return part(1, sizeof(mask_cache)) + part(buckets_of(budget), sizeof(uint32_t)) +
           part(budget, 1) + 2 * part(words, sizeof(uint32_t)) +
           part(n_vocab, sizeof(uint32_t)) + part(one, 1);
}

mask_cache *mask_cache_init(void *mem, uint32_t n_vocab, size_t budget) {
    mask_cache *m = mem;
    char *at = (char *)mem + part(1, sizeof *m);
    *m = (mask_cache){.n_vocab = n_vocab,
                      .words = sampling_mask_words(n_vocab),
                      .n_buckets = buckets_of(budget),
                      .cap = budget & ~(size_t)7};
    m->bucket = (uint32_t *)at;
    at += part(m->n_buckets, sizeof(uint32_t));
    m->ring = at;
    at += part(budget, 1);
    m->sum = (uint32_t *)at;
    at += part(m->words, sizeof(uint32_t));
    m->bits = (uint32_t *)at;
    at += part(m->words, sizeof(uint32_t));
    m->list = (uint32_t *)at;
    at += part(n_vocab, sizeof(uint32_t));
    m->single = at;
    return m;
}

void mask_cache_read(const mask_cache *m, mask_counts *out) {
    *out = m->count;
}
