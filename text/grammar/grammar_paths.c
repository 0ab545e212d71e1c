/* Whether a position of a grammar can never be more pairs of state and stack than it has space for.
 *
 * Automata of rules are deterministic; several pairs come from states where a byte, a call or a
 * return begin alike. Where a state's own bytes, those that its calls begin with, and those that
 * may follow its rule differ, one pair stays one. From each other state the sets of pairs are
 * followed: stacks relative to a base that all of a set have in common, and a set for each place
 * that a return through the base may lead to. A set that was met before, or is one pair, is done.
 * What needs more than the space, or cannot be shown within the steps, is refused. */
#include "text/grammar/grammar_in.h"

#include <stdlib.h>

#include "base/check.h"

enum {
    MAX_STACK = 24, /* calls above the base */
    WORDS = 5,      /* 256 classes of bytes, and tokens in 64 bits by their number */
    MAX_CHAIN = 64  /* calls within calls before any byte */
};

typedef struct symbols {
    uint64_t w[WORDS];
} symbols;

typedef struct pair {
    uint16_t state, n, stack[MAX_STACK]; /* [n]: the last one returns first */
} pair;

typedef struct pairs {
    uint32_t n;
    pair v[STATE_MAX_CONFS];
} pairs;

typedef struct kept_set { /* pairs one after the other: state, n, stack */
    uint32_t at, n;
} kept_set;

typedef struct paths {
    const grammar *g;
    const rules *r;
    arena *mem;
    symbols *first,
        *follow;         /* [n_states], [n_rules]: what may come from a state; behind a rule */
    bool *ends;          /* [n_states]: may return before any byte */
    bool *forked, *deep; /* [n_states]: forks(); [n_rules]: it, or what it calls, has one */
    uint16_t *size;      /* [n_states]: pairs that one leads to before any byte; 0: unknown */
    bool *busy;          /* [n_states]: being counted */
    uint16_t *item;      /* sets that were met */
    kept_set *set;
    uint32_t n_items, cap_items, n_sets, cap_sets, *slot, n_slots;
    bool too_many, failed;
} paths;

static void merge(symbols *to, const symbols *from, bool *grown) {
    for (int i = 0; i < WORDS; i++) {
        *grown |= (from->w[i] & ~to->w[i]) != 0;
        to->w[i] |= from->w[i];
    }
}

static bool meet(const symbols *a, const symbols *b) {
    uint64_t all = 0;
    for (int i = 0; i < WORDS; i++) all |= a->w[i] & b->w[i];
    return all != 0;
}

static uint32_t rule_of(const paths *p, uint32_t state) {
    return p->g->node[state].rule;
}

/* ---- what comes first, what may follow ---- */

static symbols own_symbols(const grammar *g, uint32_t q) {
    symbols s = {{0}};
    for (uint32_t c = 0; c < g->n_classes; c++)
        if (g->next[(size_t)q * g->n_classes + c]) s.w[c / 64] |= 1ull << c % 64;
    for (uint32_t i = g->node[q].first_symbol; i < g->node[q + 1].first_symbol; i++) {
        const int32_t t = g->symbol[i].token;
        if (t == RULE_TOKEN_END) continue; /* it is of no choice: all members take it */
        s.w[4] |= t == RULE_OTHER_TOKEN ? UINT64_MAX : 1ull << t % 64;
    }
    return s;
}

static bool spend(paths *p, uint64_t steps) {
    if (rules_spend(p->r, steps)) return true;
    p->too_many = p->failed = true;
    return false;
}

static void find_first(paths *p) {
    const grammar *g = p->g;
    for (uint32_t q = 1; q < g->n_states; q++) {
        p->first[q] = own_symbols(g, q);
        p->ends[q] = g->node[q].final;
    }
    for (bool again = true; again && spend(p, g->n_states);) {
        again = false;
        for (uint32_t q = g->n_states; q-- > 1;)
            for (uint32_t i = g->node[q].first_call; i < g->node[q + 1].first_call; i++) {
                const grammar_call *c = &g->call[i];
                merge(&p->first[q], &p->first[c->start], &again);
                if (!p->ends[c->start]) continue;
                merge(&p->first[q], &p->first[c->to], &again);
                again |= p->ends[c->to] && !p->ends[q];
                p->ends[q] |= p->ends[c->to];
            }
    }
    for (bool again = true; again && spend(p, g->n_states);) {
        again = false;
        for (uint32_t i = 0; i < g->n_rules; i++)
            for (uint32_t k = 0; k < g->rule[i].n_sites; k++) {
                const uint32_t to = g->site[g->rule[i].first_site + k];
                merge(&p->follow[i], &p->first[to], &again);
                if (p->ends[to]) merge(&p->follow[i], &p->follow[rule_of(p, to)], &again);
            }
    }
}

/* Whether what comes next does not say which way is taken. */
static bool forks(const paths *p, uint32_t q) {
    const grammar *g = p->g;
    const symbols *follow = &p->follow[rule_of(p, q)];
    symbols all = own_symbols(g, q);
    bool grown = false;
    for (uint32_t i = g->node[q].first_call; i < g->node[q + 1].first_call; i++) {
        const grammar_call *c = &g->call[i];
        symbols f = p->first[c->start];
        if (p->ends[c->start]) merge(&f, &p->first[c->to], &grown);
        if (p->ends[c->start] && p->ends[c->to]) merge(&f, follow, &grown);
        if (meet(&all, &f)) return true;
        merge(&all, &f, &grown);
    }
    return g->node[q].final && meet(&all, follow);
}

static void find_forks(paths *p) {
    const grammar *g = p->g;
    for (uint32_t q = 1; q < g->n_states; q++) {
        p->forked[q] = g->node[q].busy && forks(p, q);
        p->deep[rule_of(p, q)] |= p->forked[q];
    }
    for (bool again = true; again && spend(p, g->n_states);) {
        again = false;
        for (uint32_t q = 1; q < g->n_states; q++)
            for (uint32_t i = g->node[q].first_call; i < g->node[q + 1].first_call; i++)
                if (p->deep[rule_of(p, g->call[i].start)] && !p->deep[rule_of(p, q)])
                    p->deep[rule_of(p, q)] = again = true;
    }
}

/* Pairs that one pair leads to before any byte, itself too; more than there is space for where the
 * chain comes back to itself. */
static uint32_t closure_size(paths *p, uint32_t q, uint32_t depth) {
    const grammar *g = p->g;
    uint32_t n = 1, most = 0;
    if (p->size[q]) return p->size[q];
    /* A chain of calls at the very end has no places of its own to return to. */
    if (p->busy[q] && g->node[q].tail) return 0;
    if (p->busy[q] || depth > MAX_CHAIN) return STATE_MAX_CONFS + 1;
    p->busy[q] = true;
    for (uint32_t i = g->node[q].first_call; i < g->node[q + 1].first_call; i++) {
        n += closure_size(p, g->call[i].start, depth + 1);
        if (p->ends[g->call[i].start]) n += closure_size(p, g->call[i].to, depth + 1);
    }
    const grammar_rule *r = &g->rule[rule_of(p, q)];
    for (uint32_t i = 0; g->node[q].final && i < r->n_sites; i++) {
        const uint32_t one = closure_size(p, g->site[r->first_site + i], depth + 1);
        if (one > most) most = one;
    }
    n += most;
    p->busy[q] = false;
    if (n > STATE_MAX_CONFS) n = STATE_MAX_CONFS + 1;
    if (!g->node[q].tail) p->size[q] = (uint16_t)n;
    return spend(p, 1 + n) ? n : STATE_MAX_CONFS + 1;
}

/* ---- sets of pairs ---- */

static bool same_pair(const pair *a, const pair *b) {
    return a->state == b->state && a->n == b->n &&
           memcmp(a->stack, b->stack, a->n * sizeof *a->stack) == 0;
}

static void put(paths *p, pairs *s, const pair *x) {
    spend(p, 8 + 2 * s->n);
    for (uint32_t i = 0; i < s->n; i++)
        if (same_pair(&s->v[i], x)) return;
    if (s->n == STATE_MAX_CONFS)
        p->too_many = p->failed = true;
    else
        s->v[s->n++] = *x;
}

/* Adds what calls and returns above the base lead to. True: one returns through the base. */
static bool close_pairs(paths *p, pairs *s) {
    const grammar *g = p->g;
    bool through = false;
    for (uint32_t i = 0; i < s->n && !p->failed; i++) {
        const pair x = s->v[i];
        const grammar_node *q = &g->node[x.state];
        if (q->final && !x.n) through = true;
        if (q->final && x.n) {
            pair y = x;
            y.state = y.stack[--y.n];
            put(p, s, &y);
        }
        for (uint32_t k = q->first_call; k < q[1].first_call; k++) {
            pair y = x;
            if (!g->node[g->call[k].to].tail) {
                if (y.n == MAX_STACK) {
                    p->too_many = p->failed = true;
                    return false;
                }
                y.stack[y.n++] = g->call[k].to;
            }
            y.state = g->call[k].start;
            put(p, s, &y);
        }
    }
    return through;
}

static int by_content(const void *a, const void *b) {
    const pair *x = a, *y = b;
    if (x->state != y->state) return x->state < y->state ? -1 : 1;
    if (x->n != y->n) return x->n < y->n ? -1 : 1;
    return memcmp(x->stack, y->stack, x->n * sizeof *x->stack);
}

/* What all have below is the base's. */
static void raise_base(pairs *s) {
    for (;;) {
        for (uint32_t i = 0; i < s->n; i++)
            if (!s->v[i].n || s->v[i].stack[0] != s->v[0].stack[0]) return;
        for (uint32_t i = 0; i < s->n; i++) {
            pair *x = &s->v[i];
            memmove(x->stack, x->stack + 1, --x->n * sizeof *x->stack);
        }
    }
}

static bool grow(paths *p, void *field, uint32_t used, uint32_t *cap, uint32_t want,
                 size_t size) {
    void *v;
    if (want <= *cap) return true;
    const uint32_t n = want * 2 + 256;
    memcpy(&v, field, sizeof v);
    if (!(v = arena_grow(p->mem, v, used * size, n * size))) return !(p->failed = true);
    memcpy(field, &v, sizeof v);
    *cap = n;
    return true;
}

static uint32_t hash_of(const uint16_t *v, uint32_t n) {
    uint64_t h = n;
    for (uint32_t i = 0; i < n; i++) h = (h ^ v[i]) * 0xff51afd7ed558ccdu, h ^= h >> 29;
    return (uint32_t)(h >> 16);
}

static bool rehash(paths *p) {
    const uint32_t n = p->n_slots ? p->n_slots * 2 : 256;
    uint32_t *slot = arena_zalloc(p->mem, n * sizeof *slot);
    if (!slot) return !(p->failed = true);
    for (uint32_t i = 0; i < p->n_sets; i++) {
        uint32_t h = hash_of(p->item + p->set[i].at, p->set[i].n);
        while (slot[h & (n - 1)]) h++;
        slot[h & (n - 1)] = i + 1;
    }
    p->slot = slot;
    p->n_slots = n;
    return true;
}

/* Pairs of one state and several stacks move as one until they return. Where nothing can multiply
 * them before that, the set to be followed is what they return to. False: there is no such set. */
static bool pop_common(paths *p, pairs *s) {
    for (;;) {
        for (uint32_t i = 0; i < s->n; i++)
            if (!s->v[i].n || s->v[i].state != s->v[0].state) return true;
        if (p->deep[rule_of(p, s->v[0].state)]) {
            p->too_many = p->failed = true;
            return false;
        }
        const pairs all = *s;
        s->n = 0;
        for (uint32_t i = 0; i < all.n; i++) {
            pair y = all.v[i];
            y.state = y.stack[--y.n];
            put(p, s, &y);
        }
        if (s->n < 2) return false;
        raise_base(s);
    }
}

/* To be followed, unless it is one pair or was met before. */
static void meet_set(paths *p, pairs *s) {
    uint32_t n = 0;
    if (s->n < 2 || p->failed) return;
    raise_base(s);
    if (!pop_common(p, s)) return;
    qsort(s->v, s->n, sizeof *s->v, by_content);
    if (!grow(p, &p->item, p->n_items, &p->cap_items, p->n_items + s->n * (MAX_STACK + 2),
              sizeof *p->item) ||
        !grow(p, &p->set, p->n_sets, &p->cap_sets, p->n_sets + 1, sizeof *p->set) ||
        (2 * p->n_sets >= p->n_slots && !rehash(p)))
        return;
    uint16_t *v = p->item + p->n_items;
    for (uint32_t i = 0; i < s->n; i++) {
        v[n++] = s->v[i].state;
        v[n++] = s->v[i].n;
        memcpy(v + n, s->v[i].stack, s->v[i].n * sizeof *v);
        n += s->v[i].n;
    }
    spend(p, 20 + 4 * n);
    for (uint32_t h = hash_of(v, n);; h++) {
        uint32_t *at = &p->slot[h & (p->n_slots - 1)];
        const kept_set *k = *at ? &p->set[*at - 1] : NULL;
        if (k && k->n == n && memcmp(p->item + k->at, v, n * sizeof *v) == 0) return;
        if (k) continue;
        p->set[p->n_sets] = (kept_set){p->n_items, n};
        p->n_items += n;
        *at = ++p->n_sets;
        return;
    }
}

/* Where each byte and token leads. */
static void step_all(paths *p, const pairs *s) {
    const grammar *g = p->g;
    pairs to;
    for (uint32_t c = 0; c < g->n_classes && !p->failed; c++) {
        to.n = 0;
        for (uint32_t i = 0; i < s->n; i++) {
            pair y = s->v[i];
            y.state = g->next[(size_t)y.state * g->n_classes + c];
            if (y.state) put(p, &to, &y);
        }
        spend(p, s->n);
        meet_set(p, &to);
    }
    for (uint32_t i = 0; i < s->n && !p->failed; i++)
        for (uint32_t k = g->node[s->v[i].state].first_symbol;
             k < g->node[s->v[i].state + 1].first_symbol; k++) {
            to.n = 0;
            for (uint32_t m = 0; m < s->n; m++)
                for (uint32_t o = g->node[s->v[m].state].first_symbol;
                     o < g->node[s->v[m].state + 1].first_symbol; o++) {
                    const int32_t t = g->symbol[o].token, by = g->symbol[k].token;
                    if (t != by && (t != RULE_OTHER_TOKEN || by == RULE_TOKEN_END)) continue;
                    pair y = s->v[m];
                    y.state = g->symbol[o].to;
                    if (y.state) put(p, &to, &y);
                }
            meet_set(p, &to);
        }
}

static void follow_set(paths *p, const pairs *from, uint32_t depth);

/* The set with a place to return to below all stacks. */
static void follow_from(paths *p, const pairs *from, uint16_t site, uint32_t depth) {
    pairs *s = arena_alloc(p->mem, sizeof *s);
    if (!s) {
        p->failed = true;
        return;
    }
    *s = *from;
    for (uint32_t k = 0; k < s->n; k++) {
        pair *y = &s->v[k];
        if (y->n == MAX_STACK || depth > MAX_STACK) {
            p->too_many = p->failed = true;
            return;
        }
        memmove(y->stack + 1, y->stack, y->n++ * sizeof *y->stack);
        y->stack[0] = site;
    }
    follow_set(p, s, depth + 1);
}

/* Each place that a rule may return to. A call at the very end of a rule has none of its own: it
 * returns to where that rule does. */
static void follow_sites(paths *p, const pairs *from, uint32_t rule, uint32_t depth,
                         bool *seen) {
    const grammar_rule *r = &p->g->rule[rule];
    if (seen[rule]) return;
    seen[rule] = true;
    for (uint32_t i = 0; i < r->n_sites && !p->failed; i++) {
        const uint16_t site = p->g->site[r->first_site + i];
        if (p->g->node[site].tail)
            follow_sites(p, from, rule_of(p, site), depth, seen);
        else
            follow_from(p, from, site, depth);
    }
}

/* A set, by what its base may return to: one place at a time, down through bases that end, too. */
static void follow_set(paths *p, const pairs *from, uint32_t depth) {
    pairs *s = arena_alloc(p->mem, sizeof *s);
    bool *seen = arena_zalloc(p->mem, p->g->n_rules);
    if (!s || !seen) {
        p->failed = true;
        return;
    }
    *s = *from;
    const bool through = close_pairs(p, s);
    if (!p->failed) step_all(p, s);
    const pair *x = &from->v[0];
    spend(p, 200);
    if (through && !p->failed)
        follow_sites(p, from, rule_of(p, x->n ? x->stack[0] : x->state), depth, seen);
}

static void load(const paths *p, const kept_set *k, pairs *out) {
    out->n = 0;
    for (const uint16_t *v = p->item + k->at, *end = v + k->n; v < end;) {
        pair *x = &out->v[out->n++];
        x->state = v[0];
        x->n = v[1];
        memcpy(x->stack, v + 2, x->n * sizeof *v);
        v += 2 + x->n;
    }
}

static bool paths_init(paths *p) {
    const uint32_t n = p->g->n_states;
    p->first = arena_zalloc(p->mem, n * sizeof *p->first);
    p->follow = arena_zalloc(p->mem, p->g->n_rules * sizeof *p->follow);
    p->ends = arena_zalloc(p->mem, n);
    p->forked = arena_zalloc(p->mem, n);
    p->deep = arena_zalloc(p->mem, p->g->n_rules);
    p->size = arena_zalloc(p->mem, n * sizeof *p->size);
    p->busy = arena_zalloc(p->mem, n);
    return !p->mem->failed;
}

static bool keep_follow(const paths *p, grammar *g) {
    uint64_t(*v)[4] = arena_alloc(&g->mem, g->n_rules * sizeof *v);
    for (uint32_t i = 0; v && i < g->n_rules; i++) memcpy(v[i], p->follow[i].w, sizeof v[i]);
    g->follow = (const uint64_t(*)[4])v;
    return v != NULL;
}

status grammar_check_paths(grammar *g, const rules *r, arena *mem, err *e) {
    paths p = {.g = g, .r = r, .mem = mem};
    pairs s;
    if (!g->node[g->n_states].first_call) return OK; /* no calls: one pair */
    if (!paths_init(&p)) return err_set(e, ERR_NO_MEMORY, "no memory for a grammar");
    find_first(&p);
    if (!p.failed && !keep_follow(&p, g)) p.failed = true;
    if (!p.failed) find_forks(&p);
    for (uint32_t q = 1; q < g->n_states && !p.failed; q++) {
        if (!g->node[q].busy) continue;
        if (p.forked[q]) {
            s = (pairs){.n = 1, .v[0].state = (uint16_t)q};
            follow_set(&p, &s, 0);
        } else if (closure_size(&p, q, 0) > STATE_MAX_CONFS) {
            p.too_many = p.failed = true;
        }
    }
    for (uint32_t i = 0; i < p.n_sets && !p.failed; i++) {
        load(&p, &p.set[i], &s);
        follow_set(&p, &s, 0);
    }
    if (p.too_many)
        return err_set(
            e, ERR_INVALID,
            "the grammar is too ambiguous: a text could be read in more than %d ways "
            "at once",
            STATE_MAX_CONFS);
    return p.failed ? err_set(e, ERR_NO_MEMORY, "no memory for a grammar") : OK;
}
