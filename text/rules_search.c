/* Expressions of text in which strings are looked for: the automaton of Aho and Corasick
 * ("Efficient string matching", CACM 1975) over bytes and special tokens. One thread. */
#include "text/rules_in.h"

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

rule rules_any_until_end(rules *r) {
    return rules_repeat(r, rules_byte_range(r, 0, 255), 0, RULE_UNBOUNDED);
}

rule rules_until_token(rules *r, int32_t token) {
    rule part[] = {rules_any_until_end(r), rules_token(r, token)};
    return rules_seq(r, part, 2);
}
