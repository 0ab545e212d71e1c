/* Expressions to nondeterministic automata: Thompson's construction (CACM 11, 1968), characters as
 * byte ranges of UTF-8. One thread. */
#include "text/grammar/nfa.h"

#include "base/utf8.h"
#include "text/grammar/rules_in.h"

typedef struct builder {
    nfa *n;
    const rules *r;
    const uint32_t *call_of;
    uint32_t nesting;
} builder;

static uint32_t state(builder *b) {
    return b->n->n_states++;
}

static void edge(builder *b, uint32_t from, uint32_t lo, uint32_t hi, uint32_t to) {
    nfa *n = b->n;
    if (!rules_spend(b->r, 6)) n->failed = true;
    if (n->failed) return;
    if (n->n_edges >= NFA_MAX_EDGES ||
        !arena_place(n->mem, &n->edge, n->n_edges, &n->cap, sizeof *n->edge, 256)) {
        n->failed = true;
        return;
    }
    n->edge[n->n_edges++] = (nfa_edge){from, lo, hi, to};
}

static void empty(builder *b, uint32_t from, uint32_t to) {
    edge(b, from, 1, 0, to);
}

/* ---- characters ---- */

/* States before `to` that expect 1 to 3 more continuation bytes; 0: none yet. */
typedef struct tails {
    uint32_t to, state[4];
} tails;

static uint32_t tail(builder *b, tails *t, int n_bytes) {
    if (n_bytes == 0) return t->to;
    if (!t->state[n_bytes]) {
        uint32_t after = tail(b, t, n_bytes - 1);
        t->state[n_bytes] = state(b);
        edge(b, t->state[n_bytes], 0x80, 0xbf, after);
    }
    return t->state[n_bytes];
}

static void byte_ranges(builder *b, uint32_t from, tails *t, const uint8_t *lo,
                        const uint8_t *hi, int n) {
    for (int i = 0; i < n; i++) {
        bool rest_full = true;
        for (int k = i + 1; k < n; k++) rest_full &= lo[k] == 0x80 && hi[k] == 0xbf;
        uint32_t to = rest_full ? tail(b, t, n - 1 - i) : state(b);
        edge(b, from, lo[i], hi[i], to);
        if (rest_full) return;
        from = to;
    }
}

/* The code points lo ... hi as sequences of byte ranges: split until each has the same number of
 * bytes, and full ranges behind the first byte that differs. */
static void utf8_range(builder *b, uint32_t from, tails *t, uint32_t lo, uint32_t hi) {
    static const uint32_t last[] = {0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff};
    char l[4], h[4];
    if (lo > hi || (lo >= 0xd800 && hi <= 0xdfff)) return;
    for (int i = 0; i < 5; i++)
        if (lo <= last[i] && hi > last[i]) {
            utf8_range(b, from, t, lo, last[i]);
            utf8_range(b, from, t, last[i] + 1, hi);
            return;
        }
    for (int i = 1; i < 4 && lo > 0x7f; i++) {
        uint32_t m = (1u << (6 * i)) - 1;
        if ((lo & ~m) == (hi & ~m)) continue;
        uint32_t at = lo & m ? lo | m : (hi & m) != m ? (hi & ~m) - 1 : 0;
        if (at) {
            utf8_range(b, from, t, lo, at);
            utf8_range(b, from, t, at + 1, hi);
            return;
        }
    }
    int n = utf8_encode(lo, l);
    utf8_encode(hi, h);
    byte_ranges(b, from, t, (uint8_t *)l, (uint8_t *)h, n);
}

static void class(builder *b, const rule_node *c, uint32_t from, uint32_t to) {
    tails t = {.to = to};
    for (uint32_t i = 0; i < c->n; i++) {
        uint32_t hi = c->u.range[i].hi;
        if (b->call_of)
            utf8_range(b, from, &t, c->u.range[i].lo,
                       hi > SYMBOL_LAST_CHAR ? SYMBOL_LAST_CHAR : hi);
        else if (c->u.range[i].lo <= hi)
            edge(b, from, c->u.range[i].lo, hi, to);
    }
}

static uint32_t bytes(builder *b, str s, uint32_t from) {
    for (size_t i = 0; i < s.len;) {
        uint32_t symbol = (uint8_t)s.ptr[i], to = state(b);
        int n = b->call_of ? 1 : utf8_decode(s.ptr + i, s.len - i, &symbol);
        if (n <= 0) b->n->bad = true, n = 1;
        edge(b, from, symbol, symbol, to);
        from = to;
        i += (size_t)n;
    }
    return from;
}

/* ---- structure: each returns the state behind what was added at `from` ---- */

static uint32_t build(builder *b, rule id, uint32_t from);

static uint32_t repeat(builder *b, const rule_node *r, uint32_t from) {
    rule kid = r->u.kid[0];
    for (uint32_t i = 0; i < r->lo && !b->n->failed; i++) from = build(b, kid, from);
    uint32_t end = state(b);
    if (r->hi == RULE_UNBOUNDED) {
        uint32_t loop = state(b);
        empty(b, from, loop);
        empty(b, build(b, kid, loop), loop);
        empty(b, loop, end);
        return end;
    }
    for (uint32_t i = r->lo; i < r->hi && !b->n->failed; i++) {
        empty(b, from, end);
        from = build(b, kid, from);
    }
    empty(b, from, end);
    return end;
}

static uint32_t graph(builder *b, const rule_node *g, uint32_t from) {
    uint32_t base = b->n->n_states, end;
    b->n->n_states += g->lo;
    end = state(b);
    if (g->lo == 0) return end;
    empty(b, from, base);
    for (uint32_t i = 0; i < g->n && !b->n->failed; i++) {
        const rule_edge *e = &g->u.edge[i];
        const rule_node *on = &b->r->node[e->on];
        if (on->kind == RULE_RANGE && b->call_of) /* the usual case needs no state of its own */
            edge(b, base + e->from, on->lo, on->hi, base + e->to);
        else if (on->kind == RULE_CLASS)
            class(b, on, base + e->from, base + e->to);
        else
            empty(b, build(b, e->on, base + e->from), base + e->to);
    }
    for (uint32_t q = 0; q < g->lo; q++)
        if (g->final[q]) empty(b, base + q, end);
    return end;
}

static uint32_t symbol(builder *b, uint32_t lo, uint32_t hi, uint32_t from) {
    uint32_t to = state(b);
    if (!b->call_of)
        b->n->bad = true;
    else
        edge(b, from, lo, hi, to);
    return to;
}

static uint32_t build_body(builder *b, rule id, uint32_t from) {
    const rule_node *r = &b->r->node[id];
    uint32_t end;
    switch (r->kind) {
    case RULE_BYTES: return bytes(b, r->u.bytes, from);
    case RULE_RANGE: return symbol(b, r->lo, r->hi, from);
    case RULE_TOKEN: return symbol(b, SYMBOL_TOKEN + r->lo, SYMBOL_TOKEN + r->lo, from);
    case RULE_CLASS: class(b, r, from, end = state(b)); return end;
    case RULE_REPEAT: return repeat(b, r, from);
    case RULE_GRAPH: return graph(b, r, from);
    case RULE_ALT:
        end = state(b);
        for (uint32_t i = 0; i < r->n && !b->n->failed; i++) {
            uint32_t start = state(b);
            empty(b, from, start);
            empty(b, build(b, r->u.kid[i], start), end);
        }
        return end;
    default: /* a sequence, or a name with its body */
        if (r->kind == RULE_NAMED && r->n == 0) return state(b);
        for (uint32_t i = 0; i < r->n && !b->n->failed; i++) from = build(b, r->u.kid[i], from);
        return from;
    }
}

static uint32_t build(builder *b, rule id, uint32_t from) {
    if (b->call_of && b->call_of[id] != UINT32_MAX)
        return symbol(b, SYMBOL_CALL + b->call_of[id], SYMBOL_CALL + b->call_of[id], from);
    if (b->nesting == NFA_MAX_NESTING || b->n->n_states > NFA_MAX_EDGES) b->n->failed = true;
    if (b->n->failed) return from;
    b->nesting++;
    uint32_t end = build_body(b, id, from);
    b->nesting--;
    return end;
}

void nfa_build(nfa *n, arena *mem, const rules *r, rule root, const uint32_t *call_of) {
    *n = (nfa){.mem = mem, .n_states = 1};
    builder b = {n, r, call_of, 0};
    n->end = build_body(&b, root, 0);
}
