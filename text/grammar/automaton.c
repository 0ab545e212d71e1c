/* Deterministic automata: the subset construction (Rabin and Scott 1959) with hashed sets, and what
 * sets of strings are combined with. Results and scratch are in arenas; one thread. */
#include "text/grammar/automaton.h"

#include <stdlib.h>

#include "base/utf8.h"
#include "text/grammar/nfa.h"
#include "text/grammar/rules_in.h"

/* ---- a growing dfa ---- */

typedef struct writer {
    arena *mem;
    dfa_limits *limits;
    dfa d;
    uint32_t cap_states, n_edges, cap_edges;
    bool failed, too_large;
} writer;

static bool grow(writer *w, void *field, uint32_t used, uint32_t cap, size_t item) {
    void *p;
    memcpy(&p, field, sizeof p);
    p = arena_grow(w->mem, p, used * item, cap * item);
    if (!p) return !(w->failed = true);
    memcpy(field, &p, sizeof p);
    return true;
}

static bool work(writer *w, uint64_t n) {
    if (*w->limits->work < n) {
        *w->limits->work = 0;
        w->too_large = w->failed = true;
        return false;
    }
    *w->limits->work -= n;
    return true;
}

/* Begins the edges of the next state. */
static bool next_state(writer *w, bool final) {
    dfa *d = &w->d;
    if (d->n >= w->limits->max_states) w->too_large = w->failed = true;
    if (w->failed || !work(w, 30)) return false;
    if (d->n + 1 >= w->cap_states) {
        uint32_t cap = w->cap_states ? w->cap_states * 2 : 64;
        if (!grow(w, &d->final, w->cap_states, cap, sizeof *d->final) ||
            !grow(w, &d->first, w->cap_states, cap, sizeof *d->first))
            return false;
        w->cap_states = cap;
    }
    d->final[d->n] = final;
    d->first[d->n++] = w->n_edges;
    d->first[d->n] = w->n_edges;
    return true;
}

/* An edge of the state begun last, in order; merged with the one before where they touch. */
static void next_edge(writer *w, uint32_t lo, uint32_t hi, uint32_t to) {
    dfa *d = &w->d;
    if (w->failed) return;
    if (w->n_edges > d->first[d->n - 1]) {
        dfa_edge *last = &d->edge[w->n_edges - 1];
        if (last->to == to && last->hi + 1 == lo && lo != SYMBOL_LAST_CHAR + 1 &&
            lo < SYMBOL_TOKEN) {
            last->hi = hi;
            return;
        }
    }
    if (w->n_edges == w->cap_edges) {
        uint32_t cap = w->cap_edges ? w->cap_edges * 2 : 256;
        if (!grow(w, &d->edge, w->cap_edges, cap, sizeof *d->edge)) return;
        w->cap_edges = cap;
    }
    d->edge[w->n_edges++] = (dfa_edge){lo, hi, to};
    d->first[d->n] = w->n_edges;
}

static status finish(writer *w, dfa *out, err *e) {
    *out = w->d;
    if (w->too_large) return err_set(e, ERR_INVALID, "it is too large to be enforced");
    if (w->failed) return err_set(e, ERR_NO_MEMORY, "no memory for the automaton");
    return OK;
}

/* ---- lists of numbers found by their content ---- */

typedef struct sets {
    arena *mem;
    uint32_t *item;  /* all sets, one after the other */
    uint32_t *begin; /* [n + 1] */
    uint32_t *slot;  /* [n_slots] number of a set, plus 1 */
    uint32_t n, n_slots, used, cap_items, cap_sets;
} sets;

static uint32_t hash_of(const uint32_t *v, uint32_t n) {
    uint64_t h = 0x9e3779b97f4a7c15u + n;
    for (uint32_t i = 0; i < n; i++) h = (h ^ v[i]) * 0xff51afd7ed558ccdu, h ^= h >> 29;
    return (uint32_t)(h >> 16);
}

static bool rehash(sets *s) {
    uint32_t n = s->n_slots ? s->n_slots * 2 : 256;
    uint32_t *slot = arena_zalloc(s->mem, n * sizeof *slot);
    if (!slot) return false;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t k = hash_of(s->item + s->begin[i], s->begin[i + 1] - s->begin[i]);
        while (slot[k & (n - 1)]) k++;
        slot[k & (n - 1)] = i + 1;
    }
    s->slot = slot;
    s->n_slots = n;
    return true;
}

static bool sets_reserve(sets *s, uint32_t more) {
    if (s->used + more > s->cap_items) {
        uint32_t cap = (s->used + more) * 2 + 1024;
        uint32_t *v = arena_grow(s->mem, s->item, s->cap_items * sizeof *v, cap * sizeof *v);
        if (!v) return false;
        s->item = v;
        s->cap_items = cap;
    }
    if (s->n + 1 >= s->cap_sets) {
        uint32_t cap = s->cap_sets ? s->cap_sets * 2 : 256;
        uint32_t *v = arena_grow(s->mem, s->begin, s->cap_sets * sizeof *v, cap * sizeof *v);
        if (!v) return false;
        if (!s->cap_sets) v[0] = 0;
        s->begin = v;
        s->cap_sets = cap;
    }
    return s->n * 2 < s->n_slots || rehash(s);
}

/* The number of the set v[n], new or not; UINT32_MAX: no memory. */
static uint32_t sets_put(sets *s, const uint32_t *v, uint32_t n) {
    if (!sets_reserve(s, n)) return UINT32_MAX;
    uint32_t k = hash_of(v, n);
    for (;; k++) {
        uint32_t i = s->slot[k & (s->n_slots - 1)];
        if (!i) break;
        const uint32_t *have = s->item + s->begin[i - 1];
        if (s->begin[i] - s->begin[i - 1] == n && memcmp(have, v, n * sizeof *v) == 0)
            return i - 1;
    }
    if (n) memcpy(s->item + s->used, v, n * sizeof *v);
    s->used += n;
    s->slot[k & (s->n_slots - 1)] = ++s->n;
    s->begin[s->n] = s->used;
    return s->n - 1;
}

/* ---- subsets ---- */

typedef struct subset {
    nfa n;
    uint32_t *first, *order; /* edges by state */
    bool *keep;              /* states that matter: with a symbol's edge, or the end */
    uint32_t *mark, stamp;
    uint32_t *stack, *set, n_set; /* [n_states] each */
    /* The set as bits, which gives its members in order, and the words that hold some. */
    uint64_t *bits;
    uint32_t first_word, last_word;
    /* Where edges with symbols lead that leave a set: of run i to[run[i].from] and on, up to those
     * of the next. */
    nfa_edge *run;
    uint32_t *to;
    uint32_t *cut;
    /* What lists of states reach is met again and again: alone[q] is the set of one state, plus 1
     * (0: not known yet), of[i] that of list i of `lists`. */
    uint32_t *alone, *seed, *of, cap_of;
    sets lists;
    sets seen;
    writer w;
} subset;

static int compare_u32(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void sort_u32(uint32_t *v, uint32_t n) {
    if (n > 24) {
        qsort(v, n, sizeof *v, compare_u32);
        return;
    }
    for (uint32_t i = 1; i < n; i++)
        for (uint32_t k = i; k > 0 && v[k] < v[k - 1]; k--) {
            uint32_t t = v[k];
            v[k] = v[k - 1];
            v[k - 1] = t;
        }
}

static bool index_edges(subset *s, arena *tmp) {
    nfa *n = &s->n;
    uint32_t N = n->n_states;
    s->first = arena_zalloc(tmp, (N + 2) * sizeof *s->first);
    s->order = arena_alloc(tmp, n->n_edges * sizeof *s->order + 4);
    s->keep = arena_zalloc(tmp, N);
    s->mark = arena_zalloc(tmp, N * sizeof *s->mark);
    s->stack = arena_alloc(tmp, N * sizeof *s->stack);
    s->set = arena_alloc(tmp, N * sizeof *s->set);
    s->bits = arena_zalloc(tmp, (N / 64 + 1) * sizeof *s->bits);
    s->run = arena_alloc(tmp, ((size_t)n->n_edges + 1) * sizeof *s->run);
    s->to = arena_alloc(tmp, n->n_edges * sizeof *s->to + 4);
    s->cut = arena_alloc(tmp, (2 * (size_t)n->n_edges + 260) * sizeof *s->cut);
    s->alone = arena_zalloc(tmp, N * sizeof *s->alone);
    s->seed = arena_alloc(tmp, n->n_edges * sizeof *s->seed + 4);
    if (tmp->failed) return false;
    for (uint32_t i = 0; i < n->n_edges; i++) s->first[n->edge[i].from + 2]++;
    for (uint32_t i = 2; i < N + 2; i++) s->first[i] += s->first[i - 1];
    for (uint32_t i = 0; i < n->n_edges; i++) {
        s->order[s->first[n->edge[i].from + 1]++] = i;
        if (n->edge[i].lo <= n->edge[i].hi) s->keep[n->edge[i].from] = true;
    }
    s->keep[n->end] = true;
    return true;
}

static void begin_set(subset *s) {
    s->stamp++;
    s->n_set = 0;
    s->first_word = UINT32_MAX;
    s->last_word = 0;
}

static void visit(subset *s, uint32_t q, uint32_t *depth) {
    if (s->mark[q] == s->stamp) return;
    s->mark[q] = s->stamp;
    if (s->keep[q]) {
        s->bits[q / 64] |= 1ull << q % 64;
        if (q / 64 < s->first_word) s->first_word = q / 64;
        if (q / 64 > s->last_word) s->last_word = q / 64;
    }
    s->stack[(*depth)++] = q;
}

/* set: everything reached from what was visited without a symbol, sorted. */
static void close_set(subset *s, uint32_t depth) {
    uint64_t steps = 0;
    while (depth) {
        uint32_t q = s->stack[--depth];
        for (uint32_t k = s->first[q]; k < s->first[q + 1]; k++, steps++) {
            const nfa_edge *e = &s->n.edge[s->order[k]];
            if (e->lo > e->hi) visit(s, e->to, &depth);
        }
    }
    for (uint32_t i = s->first_word; i <= s->last_word; i++) {
        for (uint64_t w = s->bits[i]; w; w &= w - 1)
            s->set[s->n_set++] = i * 64 + (uint32_t)__builtin_ctzll(w);
        s->bits[i] = 0;
    }
    work(&s->w, steps + 2 * s->n_set + (s->last_word - s->first_word) / 4);
}

/* The set that a list of states reaches. */
static uint32_t reach(subset *s, uint32_t n) {
    uint32_t depth = 0;
    begin_set(s);
    for (uint32_t i = 0; i < n; i++) visit(s, s->seed[i], &depth);
    close_set(s, depth);
    uint32_t id = sets_put(&s->seen, s->set, s->n_set);
    if (id == UINT32_MAX) s->w.failed = true;
    return id;
}

/* Where that of this list is, or is to be, remembered, plus 1. */
static uint32_t *known_reach(subset *s, uint32_t n) {
    if (n == 1) return &s->alone[s->seed[0]];
    const uint32_t before = s->lists.n, i = sets_put(&s->lists, s->seed, n);
    if (i != UINT32_MAX && s->lists.n > s->cap_of) {
        const uint32_t cap = s->lists.n * 2 + 64;
        uint32_t *v = arena_grow(s->seen.mem, s->of, s->cap_of * sizeof *v, cap * sizeof *v);
        if (v) s->of = v, s->cap_of = cap;
        if (!v) s->w.failed = true;
    }
    if (i == UINT32_MAX) s->w.failed = true;
    if (s->w.failed) return NULL;
    if (s->lists.n > before) s->of[i] = 0;
    return &s->of[i];
}

/* The set behind those of n runs that hold the symbol. */
static uint32_t target(subset *s, uint32_t n, uint32_t at) {
    uint32_t k = 0;
    for (uint32_t i = 0; i < n; i++) {
        const nfa_edge *r = &s->run[i];
        if (r->lo > at || at > r->hi) continue;
        memcpy(s->seed + k, s->to + r->from, (r[1].from - r->from) * sizeof *s->seed);
        k += r[1].from - r->from;
    }
    if (!k) return UINT32_MAX;
    uint32_t *known = known_reach(s, k);
    if (!known) return UINT32_MAX;
    if (!*known) *known = reach(s, k) + 1;
    return *known - 1;
}

/* cut: all of them in order, each once. Returns how many. */
static uint32_t merge_cuts(subset *s, const uint64_t low[4], uint32_t n) {
    uint32_t n_low = 0, m = 0, k = 0;
    sort_u32(s->cut, n);
    for (uint32_t i = 0; i < n; i++)
        if (m == 0 || s->cut[i] != s->cut[m - 1]) s->cut[m++] = s->cut[i];
    for (int i = 0; i < 4; i++) n_low += (uint32_t)__builtin_popcountll(low[i]);
    memmove(s->cut + n_low, s->cut, m * sizeof *s->cut);
    for (uint32_t i = 0; i < 4; i++)
        for (uint64_t w = low[i]; w; w &= w - 1)
            s->cut[k++] = i * 64 + (uint32_t)__builtin_ctzll(w);
    return m + n_low;
}

/* An edge more: part of the last run, or a new one, with its cuts. */
static uint32_t add_edge(subset *s, const nfa_edge *e, uint32_t n_runs, uint32_t n_to,
                         uint64_t low[4], uint32_t *n_cut) {
    s->to[n_to] = e->to;
    if (n_runs && s->run[n_runs - 1].lo == e->lo && s->run[n_runs - 1].hi == e->hi)
        return n_runs;
    for (int side = 0; side < 2; side++) {
        uint32_t at = side ? e->hi + 1 : e->lo;
        if (at < 256)
            low[at / 64] |= 1ull << at % 64;
        else
            s->cut[(*n_cut)++] = at;
    }
    s->run[n_runs] = (nfa_edge){.from = n_to, .lo = e->lo, .hi = e->hi};
    return n_runs + 1;
}

/* The set behind the end of a token: where its edges lead, and all members that have none. */
static uint32_t behind_token(subset *s, uint32_t id) {
    uint32_t k = 0;
    for (uint32_t i = s->seen.begin[id]; i < s->seen.begin[id + 1]; i++) {
        const uint32_t q = s->seen.item[i], before = k;
        for (uint32_t m = s->first[q]; m < s->first[q + 1]; m++) {
            const nfa_edge *e = &s->n.edge[s->order[m]];
            if (e->lo == SYMBOL_TOKEN_END) s->seed[k++] = e->to;
        }
        if (k == before) s->seed[k++] = q;
    }
    return reach(s, k);
}

static void expand(subset *s, uint32_t id) {
    uint32_t n_to = 0, n = 0, n_cut = 0, m;
    bool final = false;
    uint64_t low[4] = {0}; /* symbols where something begins or has ended; others: in cut */
    for (uint32_t i = s->seen.begin[id]; i < s->seen.begin[id + 1]; i++) {
        uint32_t q = s->seen.item[i];
        final |= q == s->n.end;
        for (uint32_t k = s->first[q]; k < s->first[q + 1]; k++) {
            const nfa_edge *e = &s->n.edge[s->order[k]];
            if (e->lo <= e->hi) n = add_edge(s, e, n, n_to++, low, &n_cut);
        }
    }
    s->run[n].from = n_to;
    if (!next_state(&s->w, final)) return;
    m = merge_cuts(s, low, n_cut);
    for (uint32_t i = 0; i + 1 < m; i++) {
        if (!work(&s->w, 8 + n)) return;
        uint32_t to =
            s->cut[i] == SYMBOL_TOKEN_END ? behind_token(s, id) : target(s, n, s->cut[i]);
        if (to != UINT32_MAX) next_edge(&s->w, s->cut[i], s->cut[i + 1] - 1, to);
    }
}

status dfa_build(dfa *out, const rules *r, rule root, const uint32_t *call_of, dfa_limits *lim,
                 arena *mem, err *e) {
    arena tmp;
    arena_init(&tmp, mem->src, 0);
    subset s = {
        .w = {.mem = mem, .limits = lim}, .seen = {.mem = &tmp}, .lists = {.mem = &tmp}};
    nfa_build(&s.n, &tmp, r, root, call_of);
    status st = OK;
    if (s.n.bad) {
        st = err_set(e, ERR_INVALID, "it cannot be a set of characters");
    } else if (s.n.failed && !tmp.failed) {
        st = err_set(e, ERR_INVALID, "it is too large to be enforced");
    } else if (tmp.failed || !index_edges(&s, &tmp)) {
        st = err_set(e, ERR_NO_MEMORY, "no memory for the automaton");
    } else {
        uint32_t depth = 0;
        begin_set(&s);
        visit(&s, 0, &depth);
        close_set(&s, depth);
        if (sets_put(&s.seen, s.set, s.n_set) == UINT32_MAX) s.w.failed = true;
        for (uint32_t i = 0; i < s.seen.n && !s.w.failed; i++) expand(&s, i);
        st = finish(&s.w, out, e);
    }
    arena_clear(&tmp);
    return st;
}

/* ---- combinations ---- */

typedef struct cursor { /* the edges of a state that is perhaps none (UINT32_MAX) */
    const dfa_edge *at, *end;
} cursor;

static cursor edges_of(const dfa *d, uint32_t q) {
    if (q == UINT32_MAX || !d->edge) return (cursor){NULL, NULL};
    return (cursor){d->edge + d->first[q], d->edge + d->first[q + 1]};
}

/* Where x's edge at p leads, and before which symbol that changes. */
static uint32_t lead(cursor *c, uint32_t p, uint32_t *until) {
    while (c->at < c->end && c->at->hi < p) c->at++;
    if (c->at == c->end) return UINT32_MAX;
    if (c->at->lo > p) {
        if (c->at->lo < *until) *until = c->at->lo;
        return UINT32_MAX;
    }
    if (c->at->hi + 1 < *until) *until = c->at->hi + 1;
    return c->at->to;
}

status dfa_combine(dfa *out, const dfa *a, dfa_op op, const dfa *b, dfa_limits *lim, arena *mem,
                   err *e) {
    arena tmp;
    arena_init(&tmp, mem->src, 0);
    sets seen = {.mem = &tmp};
    writer w = {.mem = mem, .limits = lim};
    uint32_t start[2] = {a->n ? 0 : UINT32_MAX, b->n ? 0 : UINT32_MAX};
    if (sets_put(&seen, start, 2) == UINT32_MAX) w.failed = true;
    for (uint32_t i = 0; i < seen.n && !w.failed; i++) {
        uint32_t qa = seen.item[2 * i], qb = seen.item[2 * i + 1];
        bool fa = qa != UINT32_MAX && a->final[qa], fb = qb != UINT32_MAX && b->final[qb];
        bool final = op == DFA_AND ? fa && fb : op == DFA_OR ? fa || fb : fa && !fb;
        if (!next_state(&w, final)) break;
        cursor ca = edges_of(a, qa), cb = edges_of(b, qb);
        for (uint32_t p = 0, until; p <= SYMBOL_END && work(&w, 8); p = until) {
            until = SYMBOL_END + 1;
            uint32_t to[2] = {lead(&ca, p, &until), lead(&cb, p, &until)};
            if (to[0] == UINT32_MAX && (op != DFA_OR || to[1] == UINT32_MAX)) continue;
            if (op == DFA_AND && to[1] == UINT32_MAX) continue;
            uint32_t id = sets_put(&seen, to, 2);
            if (id == UINT32_MAX) w.failed = true;
            next_edge(&w, p, until - 1, id);
        }
    }
    arena_clear(&tmp);
    return finish(&w, out, e);
}

static uint32_t follow(const dfa *d, uint32_t q, uint32_t symbol) {
    for (uint32_t i = d->first[q]; i < d->first[q + 1]; i++)
        if (d->edge[i].lo <= symbol && symbol <= d->edge[i].hi) return d->edge[i].to;
    return UINT32_MAX;
}

status dfa_strip(dfa *out, const dfa *d, arena *mem, err *e) {
    uint64_t enough = UINT64_MAX;
    dfa_limits none = {d->n + 2, &enough};
    writer w = {.mem = mem, .limits = &none};
    uint32_t start = d->n ? follow(d, 0, SYMBOL_BEGIN) : UINT32_MAX;
    /* The new state 0 is a copy of the one behind BEGIN; old state q is q + 1. */
    for (uint32_t i = 0; i <= d->n && !w.failed; i++) {
        uint32_t q = i == 0 ? start : i - 1, end;
        if (q == UINT32_MAX) {
            next_state(&w, false);
            continue;
        }
        end = follow(d, q, SYMBOL_END);
        next_state(&w, end != UINT32_MAX && d->final[end]);
        for (uint32_t k = d->first[q]; k < d->first[q + 1]; k++) {
            const dfa_edge *g = &d->edge[k];
            if (g->lo > SYMBOL_LAST_CHAR) continue;
            next_edge(&w, g->lo, g->hi > SYMBOL_LAST_CHAR ? SYMBOL_LAST_CHAR : g->hi,
                      g->to + 1);
        }
    }
    return finish(&w, out, e);
}

status dfa_any(dfa *out, uint32_t min, uint32_t max, dfa_limits *lim, arena *mem, err *e) {
    writer w = {.mem = mem, .limits = lim};
    uint32_t n = max == RULE_UNBOUNDED ? min : max;
    for (uint32_t i = 0; i <= n && !w.failed && min <= max; i++) {
        next_state(&w, i >= min);
        if (i < n || max == RULE_UNBOUNDED)
            next_edge(&w, 0, SYMBOL_LAST_CHAR, i < n ? i + 1 : i);
    }
    if (w.d.n == 0 && !w.failed) next_state(&w, false);
    return finish(&w, out, e);
}

bool dfa_takes(const dfa *d, str s) {
    uint32_t q = 0, cp;
    if (!d->n) return false;
    for (size_t at = 0; at < s.len && q != UINT32_MAX;) {
        int n = utf8_decode(s.ptr + at, s.len - at, &cp);
        if (n <= 0) return false;
        q = follow(d, q, cp);
        at += (size_t)n;
    }
    return q != UINT32_MAX && d->final[q];
}

bool dfa_is_empty(const dfa *d) { /* every state is reached from the start */
    for (uint32_t q = 0; q < d->n; q++)
        if (d->final[q]) return false;
    return true;
}

rule dfa_rule(rules *r, const dfa *d) {
    arena tmp;
    arena_init(&tmp, rules_arena(r)->src, 0);
    uint32_t n = d->n ? d->first[d->n] : 0, k = 0;
    rule_edge *edge = arena_alloc(&tmp, n * sizeof *edge + 1);
    if (!edge) r->failed = true;
    for (uint32_t q = 0; edge && q < d->n; q++)
        for (uint32_t i = d->first[q]; i < d->first[q + 1]; i++) {
            rule_range range = {d->edge[i].lo, d->edge[i].hi};
            edge[k++] = (rule_edge){q, d->edge[i].to, rules_class(r, &range, 1)};
        }
    rule out = edge ? rules_graph(r, d->n, d->final, edge, n) : RULE_NEVER;
    arena_clear(&tmp);
    return out;
}
