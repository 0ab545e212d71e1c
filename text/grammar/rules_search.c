/* Expressions of text in which strings are looked for: the automaton of Aho and Corasick
 * ("Efficient string matching", CACM 1975) over bytes and special tokens. One thread. */
#include "text/grammar/rules_in.h"

#define BEGIN (RULE_MARK_BEGIN - RULE_MARK_TOKEN) /* as a token */

typedef struct trie {
    const rules *r;
    arena tmp;
    uint32_t width;            /* symbols: 256 bytes, then tokens */
    uint32_t n_tokens, *token; /* [n_tokens] of marks, each once */
    uint32_t *next;            /* [n][width]; 0: none yet, complete afterwards */
    uint32_t *fail;            /* [n] */
    uint32_t *ends;            /* [n]: the first mark that ends here, plus 1 */
    uint32_t *other;           /* [n_marks]: the next one of the same state, plus 1 */
    uint32_t n;
} trie;

static uint32_t *next_of(const trie *t, uint32_t q, uint32_t symbol) {
    return &t->next[(size_t)q * t->width + symbol];
}

/* The number of a symbol in the trie's alphabet. */
static uint32_t symbol_of(const trie *t, uint32_t symbol) {
    if (symbol < 256) return symbol;
    uint32_t k = 0;
    while (t->token[k] != symbol - RULE_MARK_TOKEN) k++;
    return 256 + k;
}

static void add_token(trie *t, uint32_t token) {
    for (uint32_t k = 0; k < t->n_tokens; k++)
        if (t->token[k] == token) return;
    t->token[t->n_tokens++] = token;
}

static bool trie_init(trie *t, rules *r, const rule_trigger *v, size_t n) {
    size_t states = 1;
    *t = (trie){.r = r, .n = 1};
    arena_init(&t->tmp, r->mem->src, 0);
    for (size_t i = 0; i < n; i++) states += v[i].n_mark;
    t->token = arena_alloc(&t->tmp, states * sizeof *t->token);
    for (size_t i = 0; t->token && i < n; i++)
        for (size_t k = 0; k < v[i].n_mark; k++)
            if (v[i].mark[k] >= RULE_MARK_TOKEN) add_token(t, v[i].mark[k] - RULE_MARK_TOKEN);
    t->width = 256 + t->n_tokens;
    t->next = arena_zalloc(&t->tmp, states * t->width * sizeof *t->next);
    t->fail = arena_zalloc(&t->tmp, states * sizeof *t->fail);
    t->ends = arena_zalloc(&t->tmp, states * sizeof *t->ends);
    t->other = arena_zalloc(&t->tmp, n * sizeof *t->other + 1);
    if (t->tmp.failed) r->failed = true;
    return !t->tmp.failed;
}

static void trie_add(trie *t, const rule_trigger *v, uint32_t id) {
    uint32_t q = 0;
    for (size_t i = 0; i < v->n_mark; i++) {
        uint32_t *to = next_of(t, q, symbol_of(t, v->mark[i]));
        if (!*to) *to = t->n++;
        q = *to;
    }
    t->other[id] = t->ends[q];
    t->ends[q] = id + 1;
}

/* What ends in `from` ends in `to`, too. */
static void add_ends(trie *t, uint32_t to, uint32_t from) {
    uint32_t *last = &t->ends[to];
    while (*last) last = &t->other[*last - 1];
    *last = t->ends[from];
}

/* Breadth first: `fail` of a state is known before those behind it are visited. */
static void trie_close(trie *t, uint32_t *queue) {
    uint32_t head = 0, tail = 0;
    for (uint32_t c = 0; c < t->width; c++)
        if (*next_of(t, 0, c)) queue[tail++] = *next_of(t, 0, c);
    while (head < tail) {
        uint32_t q = queue[head++];
        add_ends(t, q, t->fail[q]);
        for (uint32_t c = 0; c < t->width; c++) {
            uint32_t *to = next_of(t, q, c), other = *next_of(t, t->fail[q], c);
            if (!*to) {
                *to = other;
                continue;
            }
            t->fail[*to] = other;
            queue[tail++] = *to;
        }
    }
}

static bool trie_build(trie *t, rules *r, const rule_trigger *v, size_t n) {
    if (!trie_init(t, r, v, n)) return false;
    for (size_t i = 0; i < n; i++) trie_add(t, &v[i], (uint32_t)i);
    uint32_t *queue = arena_alloc(&t->tmp, t->n * sizeof *queue);
    if (!queue) return !(r->failed = true);
    trie_close(t, queue);
    return true;
}

/* Edges of the states in which no mark is complete, from base + q to base + q' (0: to base). */
static size_t add_edges(const trie *t, rules *r, uint32_t base, rule_edge *edge) {
    size_t n = 0;
    for (uint32_t q = 0; q < t->n; q++) {
        for (uint32_t c = 0, end; c < 256 && !t->ends[q]; c = end + 1) {
            const uint32_t to = *next_of(t, q, c);
            for (end = c; end < 255 && *next_of(t, q, end + 1) == to;) end++;
            edge[n++] =
                (rule_edge){base + q, base + to, rules_byte_range(r, (uint8_t)c, (uint8_t)end)};
        }
        for (uint32_t k = 0; k < t->n_tokens && !t->ends[q]; k++)
            if (t->token[k] != BEGIN)
                edge[n++] = (rule_edge){base + q, base + *next_of(t, q, 256 + k),
                                        rules_token(r, (int32_t)t->token[k])};
    }
    return n;
}

rule rules_until(rules *r, const str *stop, size_t n) {
    trie t;
    rule out = RULE_NEVER;
    arena tmp;
    arena_init(&tmp, r->mem->src, 0);
    rule_trigger *v = arena_zalloc(&tmp, n * sizeof *v + 1);
    for (size_t i = 0; v && i < n; i++) {
        uint32_t *mark = arena_alloc(&tmp, stop[i].len * sizeof *mark);
        for (size_t k = 0; mark && k < stop[i].len; k++) mark[k] = (uint8_t)stop[i].ptr[k];
        v[i] = (rule_trigger){.mark = mark, .n_mark = stop[i].len};
    }
    if (tmp.failed) {
        r->failed = true;
    } else if (trie_build(&t, r, v, n)) {
        rule_edge *edge = arena_alloc(&t.tmp, (size_t)t.n * t.width * sizeof *edge);
        bool *final = arena_alloc(&t.tmp, t.n * sizeof *final);
        if (edge && final) {
            for (uint32_t q = 0; q < t.n; q++) final[q] = t.ends[q] > 0;
            out = rules_graph(r, t.n, final, edge, add_edges(&t, r, 0, edge));
        } else {
            r->failed = true;
        }
    }
    if (!tmp.failed) arena_clear(&t.tmp);
    arena_clear(&tmp);
    return out;
}

/* What follows a complete mark: what any of those that end here has. */
static rule then_of(const trie *t, rules *r, const rule_trigger *v, uint32_t q, bool aside,
                    rule *tmp) {
    size_t n = 0;
    for (uint32_t i = t->ends[q]; i; i = t->other[i - 1])
        if (v[i - 1].aside == aside) tmp[n++] = v[i - 1].then;
    return rules_alt(r, tmp, n);
}

/* A graph begins in state 0: what stands behind RULE_MARK_BEGIN changes places with it. */
static void begin_with_marks(const trie *t, bool *final, rule_edge *edge, size_t n) {
    uint32_t first = 0;
    for (uint32_t k = 0; k < t->n_tokens; k++)
        if (t->token[k] == BEGIN) first = *next_of(t, 0, 256 + k);
    if (!first) return;
    const bool was = final[0];
    final[0] = final[first];
    final[first] = was;
    for (size_t i = 0; i < n; i++) {
        uint32_t *const ends[] = {&edge[i].from, &edge[i].to};
        for (int k = 0; k < 2; k++)
            *ends[k] = *ends[k] == 0 ? first : *ends[k] == first ? 0 : *ends[k];
    }
}

/* The graph: states of the trie; with TRIGGER_NEEDED a second copy of them, for the text behind
 * the first mark; with TRIGGER_ONCE an end instead, from which nothing leads on. */
rule rules_triggered(rules *r, const rule_trigger *v, size_t n, unsigned flags) {
    trie t;
    rule out = RULE_NEVER;
    const bool built = trie_build(&t, r, v, n);
    const bool once = flags & TRIGGER_ONCE, needed = flags & TRIGGER_NEEDED;
    const uint32_t copies = needed && !once ? 2 : 1, states = t.n * copies + once,
                   behind = once     ? t.n
                            : needed ? t.n
                                     : 0; /* where free text goes on */
    rule_edge *edge = arena_alloc(&t.tmp, (size_t)t.n * copies * (t.width + 3) * sizeof *edge);
    bool *final = arena_zalloc(&t.tmp, states * sizeof *final);
    rule *tmp = arena_alloc(&t.tmp, n * sizeof *tmp + 1);
    const rule other = rules_token(r, RULE_OTHER_TOKEN);
    size_t n_edges = 0;
    if (!built || t.tmp.failed) r->failed = true;
    for (uint32_t base = 0; !r->failed && base < t.n * copies; base += t.n) {
        n_edges += add_edges(&t, r, base, edge + n_edges);
        for (uint32_t q = 0; q < t.n; q++) {
            rule_edge e = {base + q, base, other};
            if (t.ends[q]) {
                edge[n_edges++] =
                    (rule_edge){base + q, behind, then_of(&t, r, v, q, false, tmp)};
                e.on = then_of(&t, r, v, q, true, tmp);
            }
            edge[n_edges++] = e;
            final[base + q] = !t.ends[q] && (base || !needed);
        }
    }
    if (!r->failed && once) final[t.n] = true;
    if (!r->failed) begin_with_marks(&t, final, edge, n_edges);
    if (!r->failed) out = rules_graph(r, states, final, edge, n_edges);
    arena_clear(&t.tmp);
    return out;
}

/* ---- text of a limited length ---- */

/* States are the begin, then (level, tail, state of the trie): what was counted, the bytes that
 * the character still lacks (with tokens: none), and the part of a mark that the text ends with.
 * The begin is apart, since a token that ends there is none of the text. */
typedef struct levels {
    const trie *t;
    rules *r;
    uint32_t stride; /* states of a level */
    rule_edge *edge; /* those from the first level */
    size_t n;
} levels;

static void add_level_edge(levels *l, uint32_t from, rule on, uint32_t to) {
    l->edge[l->n++] = (rule_edge){from, to, on};
}

/* The part of an edge's bytes that lies in lo ... hi. */
static void add_part(levels *l, const rule_edge *e, uint32_t from, uint8_t lo, uint8_t hi,
                     uint32_t to) {
    const uint32_t first = l->r->node[e->on].lo, last = l->r->node[e->on].hi;
    if (first > hi || last < lo) return;
    const uint8_t a = first > lo ? (uint8_t)first : lo, b = last < hi ? (uint8_t)last : hi;
    add_level_edge(l, from, rules_byte_range(l->r, a, b), to);
}

/* The first byte of a character leads to the next level. */
static void add_chars(levels *l, const rule_edge *one, size_t n) {
    static const uint8_t first[][2] = {{0, 0x7f}, {0xc2, 0xdf}, {0xe0, 0xef}, {0xf0, 0xf4}};
    const uint32_t tail = l->t->n; /* states from one tail to the next */
    for (size_t i = 0; i < n; i++) {
        const rule_edge *e = &one[i];
        if (l->r->node[e->on].kind != RULE_RANGE) continue; /* a special token */
        for (uint32_t k = 0; k < 4; k++)
            add_part(l, e, e->from, first[k][0], first[k][1], l->stride + k * tail + e->to);
        for (uint32_t k = 1; k < 4; k++)
            add_part(l, e, k * tail + e->from, 0x80, 0xbf, (k - 1) * tail + e->to);
    }
}

/* The end of a token leads to the next level. */
static void add_tokens(levels *l, const rule_edge *one, size_t n) {
    const rule other = rules_token(l->r, RULE_OTHER_TOKEN),
               end = rules_token(l->r, RULE_TOKEN_END);
    for (size_t i = 0; i < n; i++) add_level_edge(l, one[i].from, one[i].on, one[i].to);
    for (uint32_t q = 0; q < l->t->n; q++) {
        if (l->t->ends[q]) continue;
        add_level_edge(l, q, other, 0);
        add_level_edge(l, q, end, l->stride + q);
    }
}

/* The levels, one after the other; from the last one nothing is counted any more. */
static rule limited(rules *r, const trie *t, arena *tmp, rule_unit unit, uint32_t max) {
    const bool chars = unit == RULE_CHARS;
    rule_edge *one = arena_alloc(tmp, (size_t)t->n * t->width * sizeof *one);
    levels l = {.t = t, .r = r, .stride = (chars ? 4 : 1) * t->n};
    const size_t n = one ? add_edges(t, r, 0, one) : 0;
    const uint32_t states = 1 + (max + 1) * l.stride;
    bool *final = arena_zalloc(tmp, states * sizeof *final);
    l.edge = arena_alloc(tmp, (7 * n + 2 * (size_t)t->n) * sizeof *l.edge + 1);
    if (!tmp->failed && chars) add_chars(&l, one, n);
    if (!tmp->failed && !chars) add_tokens(&l, one, n);
    rule_edge *all = arena_alloc(tmp, l.n * ((size_t)max + 2) * sizeof *all + 1);
    if (tmp->failed) {
        r->failed = true;
        return RULE_NEVER;
    }
    size_t k = 0;
    for (size_t i = 0; i < l.n && max; i++) {
        const rule_edge *e = &l.edge[i];
        if (e->from == 0 && r->node[e->on].lo != RULE_TOKEN_END)
            all[k++] = (rule_edge){0, 1 + e->to, e->on};
    }
    final[0] = true;
    for (uint32_t level = 0, base = 1; level <= max; level++, base += l.stride) {
        for (size_t i = 0; i < l.n; i++) {
            const rule_edge *e = &l.edge[i];
            if (level == max && (!chars || e->to >= l.stride)) continue;
            all[k++] = (rule_edge){base + e->from, base + e->to, e->on};
        }
        for (uint32_t q = 0; q < t->n; q++) final[base + q] = !t->ends[q];
    }
    return rules_graph(r, states, final, all, k);
}

rule rules_limited(rules *r, const rule_trigger *v, size_t n, rule_unit unit, uint32_t max) {
    trie t;
    rule out = RULE_NEVER;
    if (trie_build(&t, r, v, n)) out = limited(r, &t, &t.tmp, unit, max);
    arena_clear(&t.tmp);
    return out;
}

uint64_t rules_limited_states(const rule_trigger *v, size_t n, uint32_t max) {
    uint64_t states = 4; /* the begin, and the bytes that a character may lack */
    for (size_t i = 0; i < n; i++) states += v[i].n_mark;
    return states * ((uint64_t)max + 1);
}

rule rules_one_token(rules *r, const int32_t *but, size_t n) {
    enum { BEGIN_OF_TOKEN, WITHIN, BEHIND, NOWHERE, N_STATES };
    const bool final[N_STATES] = {[BEHIND] = true};
    const rule byte = rules_byte_range(r, 0, 255);
    arena tmp;
    arena_init(&tmp, r->mem->src, 0);
    rule_edge *edge = arena_alloc(&tmp, (n + 4) * sizeof *edge);
    rule out = RULE_NEVER;
    size_t k = 0;
    if (!edge) r->failed = true;
    if (edge) {
        edge[k++] = (rule_edge){BEGIN_OF_TOKEN, WITHIN, byte};
        edge[k++] = (rule_edge){WITHIN, WITHIN, byte};
        edge[k++] = (rule_edge){BEGIN_OF_TOKEN, WITHIN, rules_token(r, RULE_OTHER_TOKEN)};
        edge[k++] = (rule_edge){WITHIN, BEHIND, rules_token(r, RULE_TOKEN_END)};
        for (size_t i = 0; i < n; i++)
            edge[k++] = (rule_edge){BEGIN_OF_TOKEN, NOWHERE, rules_token(r, but[i])};
        out = rules_graph(r, N_STATES, final, edge, k);
    }
    arena_clear(&tmp);
    return out;
}

rule rules_any_until_end(rules *r) {
    return rules_repeat(r, rules_byte_range(r, 0, 255), 0, RULE_UNBOUNDED);
}

rule rules_until_token(rules *r, int32_t token) {
    rule part[] = {rules_any_until_end(r), rules_token(r, token)};
    return rules_seq(r, part, 2);
}
