/* Expressions -> one automaton for each rule that is called -> the tables of a grammar. Compiling
 * is a function of its arguments; any thread. */
#include "text/grammar/grammar_in.h"

#include <stdatomic.h>

#include "base/check.h"
#include "text/grammar/nfa.h"

enum {
    COPY_MAX = 1024, /* what a repetition of something large may be copied to, in states */
    COPY_CHAR = 48,  /* up to this size a body counts as a character, which is copied */
    SHARED_MAX = 96, /* what is used several times is copied up to this size */
    MAX_RULES = 2000
};

/* ---- what is called, and what is copied ---- */

typedef struct shape {
    const rules *r;
    uint32_t *size, *call_of; /* [n_nodes] */
    uint8_t *seen;            /* 0 no, 1 being visited, 2 done */
    uint32_t n_rules;
    uint32_t *body; /* [n_rules]: the node of each */
    uint32_t depth;
    bool too_deep;
} shape;

static uint32_t kid_of(const rule_node *n, uint32_t i) {
    return n->kind == RULE_GRAPH ? n->u.edge[i].on : n->u.kid[i];
}

static bool has_kids(const rule_node *n) {
    return n->kind >= RULE_SEQ;
}

static uint32_t times(uint32_t a, uint32_t b) {
    uint64_t n = (uint64_t)a * b;
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static uint32_t plus(uint32_t a, uint32_t b) {
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

static void make_call(shape *s, rule id) {
    if (s->call_of[id] != UINT32_MAX || s->n_rules == MAX_RULES) return;
    s->call_of[id] = s->n_rules;
    s->body[s->n_rules++] = id;
}

static uint32_t repeat_size(shape *s, const rule_node *n) {
    rule kid = n->u.kid[0];
    uint32_t one = s->call_of[kid] != UINT32_MAX ? 1 : s->size[kid],
             count = n->hi == RULE_UNBOUNDED ? plus(n->lo, 1) : n->hi;
    if (one > COPY_CHAR && count > 4 && times(one, count) > COPY_MAX) {
        make_call(s, kid);
        one = 1;
    }
    return times(one, count);
}

/* States of a class: one for ASCII, about eight for sequences of UTF-8. */
static uint32_t class_size(const rule_node *n) {
    for (uint32_t i = 0; i < n->n; i++)
        if (n->u.range[i].hi > 0x7f) return 8;
    return 1;
}

/* Sizes from the leaves up; whoever meets an expression that it is within makes it a call. */
static uint32_t measure(shape *s, rule id) {
    const rule_node *n = &s->r->node[id];
    if (s->seen[id] == 1) make_call(s, id);
    if (s->seen[id] == 2 && s->size[id] > SHARED_MAX) make_call(s, id);
    if (s->call_of[id] != UINT32_MAX) return 1;
    if (s->seen[id]) return s->size[id];
    if (s->depth > NFA_MAX_NESTING || s->too_deep) {
        s->too_deep = true;
        return 1;
    }
    s->seen[id] = 1;
    s->depth++;
    uint32_t size = n->kind == RULE_BYTES   ? (uint32_t)n->u.bytes.len
                    : n->kind == RULE_CLASS ? class_size(n)
                                            : 1;
    if (has_kids(n)) size = n->kind == RULE_GRAPH ? n->lo : 0;
    for (uint32_t i = 0; has_kids(n) && i < n->n; i++)
        size = plus(size, measure(s, kid_of(n, i)));
    s->size[id] = size;
    if (n->kind == RULE_REPEAT) s->size[id] = repeat_size(s, n);
    s->seen[id] = 2;
    s->depth--;
    return s->call_of[id] != UINT32_MAX ? 1 : s->size[id];
}

/* ---- the automata of all rules, states numbered through from 1 ---- */

typedef struct linker {
    const rules *r;
    const vocab_index *index;
    shape s;
    dfa *part;      /* [n_rules] */
    uint32_t *base; /* [n_rules + 1]: the number of its first state */
    bool *live;     /* [base[n_rules]]: states from which an end can be reached */
    bool *free;     /* likewise: of free text, which takes anything */
    uint32_t n_states;
    arena tmp;
    err *e;
} linker;

static status too_large(err *e) {
    return err_set(e, ERR_INVALID, "the grammar is too large: more than %d states",
                   GRAMMAR_MAX_STATES);
}

static status too_slow(err *e) {
    return err_set(e, ERR_INVALID,
                   "the grammar is too large: compiling it takes more steps than the limit");
}

static status build_parts(linker *l) {
    dfa_limits lim = {.max_states = GRAMMAR_MAX_STATES, .work = l->r->work};
    l->part = arena_zalloc(&l->tmp, l->s.n_rules * sizeof *l->part);
    l->base = arena_zalloc(&l->tmp, (l->s.n_rules + 1) * sizeof *l->base);
    if (l->tmp.failed) return err_set(l->e, ERR_NO_MEMORY, "no memory for a grammar");
    l->base[0] = 1;
    for (uint32_t i = 0; i < l->s.n_rules; i++) {
        err e;
        lim.max_states = GRAMMAR_MAX_STATES - l->base[i];
        status st = dfa_build(&l->part[i], l->r, l->s.body[i], l->s.call_of, &lim, &l->tmp, &e);
        if (st == ERR_INVALID && !*l->r->work) return too_slow(l->e);
        if (st == ERR_INVALID || l->base[i] + l->part[i].n >= GRAMMAR_MAX_STATES)
            return too_large(l->e);
        if (st != OK) return *l->e = e, st;
        l->base[i + 1] = l->base[i] + l->part[i].n;
    }
    l->n_states = l->base[l->s.n_rules];
    return OK;
}

static status mark_free(linker *l) {
    l->free = arena_zalloc(&l->tmp, l->n_states);
    if (!l->free) return err_set(l->e, ERR_NO_MEMORY, "no memory for a grammar");
    for (uint32_t i = 0; i < l->s.n_rules; i++)
        for (uint32_t q = 0; q < l->part[i].n; q++)
            for (uint32_t k = l->part[i].first[q]; k < l->part[i].first[q + 1]; k++)
                if (l->part[i].edge[k].lo == SYMBOL_TOKEN + RULE_OTHER_TOKEN)
                    l->free[l->base[i] + q] = true;
    return OK;
}

static bool is_single(const vocab_index *v, const dfa_edge *e) {
    for (uint32_t b = e->lo; b <= e->hi && b < 256; b++)
        if (v->single[b]) return true;
    return false;
}

/* Whether an edge of state q can be used: the vocabulary has its byte as a token, so that what
 * begins can always be ended (free text needs no end); what is called has an end. */
static bool is_open(const linker *l, uint32_t rule, uint32_t q, const dfa_edge *e) {
    if (!l->live[l->base[rule] + e->to]) return false;
    if (e->lo < SYMBOL_TOKEN) return l->free[l->base[rule] + q] || is_single(l->index, e);
    return e->lo < SYMBOL_CALL || l->live[l->base[e->lo - SYMBOL_CALL]];
}

static status mark_live(linker *l) {
    l->live = arena_zalloc(&l->tmp, l->n_states);
    if (!l->live) return err_set(l->e, ERR_NO_MEMORY, "no memory for a grammar");
    for (bool again = true; again;) {
        again = false;
        if (!rules_spend(l->r, l->n_states)) return too_slow(l->e);
        for (uint32_t i = 0; i < l->s.n_rules; i++) {
            const dfa *d = &l->part[i];
            for (uint32_t q = d->n; q-- > 0;) {
                bool *live = &l->live[l->base[i] + q];
                bool was = *live;
                *live |= d->final[q];
                for (uint32_t k = d->first[q]; !*live && k < d->first[q + 1]; k++)
                    *live = is_open(l, i, q, &d->edge[k]);
                again |= *live != was;
            }
        }
    }
    if (l->live[l->base[0]]) return OK;
    return err_set(l->e, ERR_INVALID, "nothing can match: no text meets all that it demands");
}

/* Whether rule i reaches itself before any byte: 1 while it is looked at, 2 when it is done. */
static bool left_recursive(const linker *l, uint32_t i, uint8_t *seen, uint8_t *begins,
                           uint32_t depth);

/* States that rule i is in before any byte are those of begins[] (by number). */
static bool left_state(const linker *l, uint32_t i, uint32_t q, uint8_t *seen, uint8_t *begins,
                       uint32_t depth) {
    const dfa *d = &l->part[i];
    if (begins[l->base[i] + q]) return false;
    begins[l->base[i] + q] = 1;
    for (uint32_t k = d->first[q]; k < d->first[q + 1]; k++) {
        const dfa_edge *e = &d->edge[k];
        if (e->lo < SYMBOL_CALL || !is_open(l, i, q, e)) continue;
        uint32_t to = e->lo - SYMBOL_CALL;
        if (left_recursive(l, to, seen, begins, depth + 1)) return true;
        /* Its callee may be empty: then the state behind it comes before any byte, too. */
        if (seen[to] & 4 && left_state(l, i, e->to, seen, begins, depth + 1)) return true;
    }
    return false;
}

static bool left_recursive(const linker *l, uint32_t i, uint8_t *seen, uint8_t *begins,
                           uint32_t depth) {
    if ((seen[i] & 3) == 1 || depth > 2000) return true;
    if ((seen[i] & 3) == 2) return false;
    seen[i] |= 1;
    if (left_state(l, i, 0, seen, begins, depth)) return true;
    seen[i] = (uint8_t)((seen[i] & 4) | 2);
    return false;
}

/* Bit 4 of seen: the rule may be empty. */
static bool may_be_empty(const linker *l, uint32_t i, uint32_t q, const uint8_t *seen,
                         uint8_t *visited) {
    const dfa *d = &l->part[i];
    if (d->final[q]) return true;
    if (visited[l->base[i] + q]++) return false;
    for (uint32_t k = d->first[q]; k < d->first[q + 1]; k++)
        if (d->edge[k].lo >= SYMBOL_CALL && seen[d->edge[k].lo - SYMBOL_CALL] & 4 &&
            may_be_empty(l, i, d->edge[k].to, seen, visited))
            return true;
    return false;
}

static status check_left(linker *l) {
    uint8_t *seen = arena_zalloc(&l->tmp, l->s.n_rules), *states;
    if (!(states = arena_alloc(&l->tmp, l->n_states)) || !seen)
        return err_set(l->e, ERR_NO_MEMORY, "no memory for a grammar");
    for (bool again = true; again;) {
        again = false;
        if (!rules_spend(l->r, l->n_states / 4)) return too_slow(l->e);
        memset(states, 0, l->n_states);
        for (uint32_t i = 0; i < l->s.n_rules; i++)
            if (!(seen[i] & 4) && may_be_empty(l, i, 0, seen, states))
                seen[i] |= 4, again = true;
    }
    memset(states, 0, l->n_states);
    for (uint32_t i = 0; i < l->s.n_rules; i++)
        if (left_recursive(l, i, seen, states, 0))
            return err_set(l->e, ERR_INVALID,
                           "the grammar is left-recursive: a rule begins with itself");
    return OK;
}

/* ---- tables ---- */

static void find_classes(const linker *l, grammar *g) {
    bool cut[257] = {true};
    for (uint32_t i = 0; i < l->s.n_rules; i++)
        for (uint32_t k = 0; k < l->part[i].first[l->part[i].n]; k++) {
            const dfa_edge *e = &l->part[i].edge[k];
            if (e->lo < SYMBOL_TOKEN) cut[e->lo] = cut[e->hi + 1] = true;
        }
    for (int b = 0; b < 256; b++) {
        /* A byte that is no token by itself is refused but in free text: a class of its own. */
        bool odd = !l->index->single[b] || (b > 0 && !l->index->single[b - 1]);
        g->n_classes += cut[b] || odd;
        g->class_of[b] = (uint8_t)(g->n_classes - 1);
    }
}

typedef struct tables {
    uint16_t *next;
    grammar_node *node;
    grammar_call *call;
    grammar_symbol *symbol;
    grammar_rule *rule;
    uint16_t *site;
} tables;

static void count_edges(const linker *l, uint32_t *calls, uint32_t *symbols) {
    *calls = *symbols = 0;
    for (uint32_t i = 0; i < l->s.n_rules; i++)
        for (uint32_t k = 0; k < l->part[i].first[l->part[i].n]; k++) {
            uint32_t lo = l->part[i].edge[k].lo;
            *calls += lo >= SYMBOL_CALL;
            *symbols += lo >= SYMBOL_TOKEN && lo < SYMBOL_CALL;
        }
}

static bool take_tables(const linker *l, grammar *g, tables *t) {
    uint32_t calls, symbols;
    count_edges(l, &calls, &symbols);
    t->next = arena_zalloc(&g->mem, (size_t)l->n_states * g->n_classes * sizeof *t->next);
    t->node = arena_zalloc(&g->mem, (l->n_states + 1) * sizeof *t->node);
    t->call = arena_zalloc(&g->mem, calls * sizeof *t->call + 1);
    t->symbol = arena_zalloc(&g->mem, symbols * sizeof *t->symbol + 1);
    t->rule = arena_zalloc(&g->mem, l->s.n_rules * sizeof *t->rule);
    t->site = arena_zalloc(&g->mem, calls * sizeof *t->site + 1);
    g->next = t->next;
    g->node = t->node;
    g->call = t->call;
    g->symbol = t->symbol;
    g->rule = t->rule;
    g->site = t->site;
    return !g->mem.failed;
}

static void fill_node(const linker *l, const grammar *g, tables *t, uint32_t rule, uint32_t q,
                      uint32_t *calls, uint32_t *symbols) {
    const dfa *d = &l->part[rule];
    uint32_t at = l->base[rule] + q;
    grammar_node *n = &t->node[at];
    *n = (grammar_node){.first_call = *calls,
                        .first_symbol = *symbols,
                        .rule = (uint16_t)rule,
                        .final = d->final[q],
                        .free = l->free[at]};
    for (uint32_t k = d->first[q]; k < d->first[q + 1]; k++) {
        const dfa_edge *e = &d->edge[k];
        const bool open = is_open(l, rule, q, e);
        const uint16_t to = open ? (uint16_t)(l->base[rule] + e->to) : 0;
        if (e->lo == SYMBOL_TOKEN_END && e->to == q) continue;
        if (!open && !(l->free[at] && e->lo >= SYMBOL_TOKEN && e->lo < SYMBOL_CALL)) continue;
        if (e->lo >= SYMBOL_CALL) {
            t->call[(*calls)++] = (grammar_call){(uint16_t)l->base[e->lo - SYMBOL_CALL], to};
        } else if (e->lo >= SYMBOL_TOKEN) {
            t->symbol[(*symbols)++] = (grammar_symbol){(int32_t)(e->lo - SYMBOL_TOKEN), to};
        } else {
            for (uint32_t b = e->lo; b <= e->hi; b++)
                if (l->index->single[b] || l->free[at])
                    t->next[(size_t)at * g->n_classes + g->class_of[b]] = to;
            n->any_byte = true;
        }
    }
    n->tail =
        n->final && !n->any_byte && *calls == n->first_call && *symbols == n->first_symbol;
}

/* Where calls of each rule return, each place once: sorted by what is called. seen: [n_states]. */
static void fill_sites(const linker *l, tables *t, uint32_t n_calls, uint16_t *seen) {
    uint32_t n = 0;
    for (uint32_t k = 0; k < n_calls; k++) t->rule[t->node[t->call[k].start].rule].n_sites++;
    for (uint32_t i = 0; i < l->s.n_rules; i++) {
        t->rule[i].first_site = n;
        n += t->rule[i].n_sites;
        t->rule[i].n_sites = 0;
    }
    for (uint32_t k = 0; k < n_calls; k++) {
        grammar_rule *r = &t->rule[t->node[t->call[k].start].rule];
        t->site[r->first_site + r->n_sites++] = t->call[k].to;
    }
    for (uint32_t i = 0; i < l->s.n_rules; i++) {
        grammar_rule *r = &t->rule[i];
        uint16_t *site = t->site + r->first_site;
        uint32_t kept = 0;
        for (uint32_t k = 0; k < r->n_sites; k++) {
            if (seen[site[k]] == i + 1) continue;
            seen[site[k]] = (uint16_t)(i + 1);
            site[kept++] = site[k];
        }
        r->n_sites = kept;
    }
}

static void find_mark_ends(grammar *g) {
    for (uint32_t q = 1; q < g->n_states; q++)
        for (uint32_t b = 0; b < 256 && g->node[q].free; b++)
            if (!g->node[grammar_next(g, q, (uint8_t)b)].free)
                g->mark_ends[b / 64] |= 1ull << b % 64;
}

static status link_parts(linker *l, grammar *g) {
    uint32_t calls = 0, symbols = 0;
    tables t;
    find_classes(l, g);
    if (!take_tables(l, g, &t))
        return err_set(l->e, ERR_NO_MEMORY, "no memory for a grammar of %u states",
                       l->n_states);
    for (uint32_t i = 0; i < l->s.n_rules; i++)
        for (uint32_t q = 0; q < l->part[i].n; q++) fill_node(l, g, &t, i, q, &calls, &symbols);
    t.node[l->n_states] = (grammar_node){.first_call = calls, .first_symbol = symbols};
    uint16_t *seen = arena_zalloc(&l->tmp, l->n_states * sizeof *seen);
    if (!seen) return err_set(l->e, ERR_NO_MEMORY, "no memory for a grammar");
    fill_sites(l, &t, calls, seen);
    for (uint32_t q = 1; q < l->n_states; q++)
        t.node[q].busy = t.node[q].first_call < t.node[q + 1].first_call ||
                         (t.node[q].final && t.rule[t.node[q].rule].n_sites);
    for (uint32_t i = 0; i < symbols; i++) g->token_ends |= t.symbol[i].token == RULE_TOKEN_END;
    g->n_states = l->n_states;
    g->n_rules = l->s.n_rules;
    g->start = l->base[0];
    find_mark_ends(g);
    return OK;
}

static status plan_parts(linker *l, rule root) {
    shape *s = &l->s;
    const uint32_t n = l->r->n_nodes;
    *s = (shape){.r = l->r,
                 .size = arena_zalloc(&l->tmp, n * sizeof *s->size),
                 .call_of = arena_alloc(&l->tmp, n * sizeof *s->call_of),
                 .seen = arena_zalloc(&l->tmp, n),
                 .body = arena_alloc(&l->tmp, MAX_RULES * sizeof *s->body)};
    if (l->tmp.failed) return err_set(l->e, ERR_NO_MEMORY, "no memory for a grammar");
    memset(s->call_of, 0xff, n * sizeof *s->call_of);
    make_call(s, root);
    s->seen[root] = 1;
    for (uint32_t i = 0; has_kids(&s->r->node[root]) && i < s->r->node[root].n; i++)
        measure(s, kid_of(&s->r->node[root], i));
    if (s->r->node[root].kind == RULE_REPEAT) repeat_size(s, &s->r->node[root]);
    return s->too_deep || s->n_rules == MAX_RULES
               ? err_set(l->e, ERR_INVALID, "the grammar is too large, or nested too deeply")
               : OK;
}

status grammar_compile(grammar **out, const rules *r, rule root, const vocab_index *index,
                       const chunks *keep, err *e) {
    static atomic_uint_fast64_t serial;
    if (r->failed) {
        if (!*r->work) return too_slow(e);
        if (r->n_nodes >= RULES_MAX_NODES / 2) return too_large(e);
        return err_set(e, ERR_NO_MEMORY, "no memory for a grammar");
    }
    linker l = {.r = r, .index = index, .e = e};
    arena_init(&l.tmp, r->mem->src, 0);
    arena a;
    arena_init(&a, keep, 0);
    grammar *g = arena_zalloc(&a, sizeof *g);
    status st = g ? OK : err_set(e, ERR_NO_MEMORY, "no memory for a grammar");
    if (g) *g = (grammar){.mem = a, .index = index, .serial = ++serial};
    if (st == OK) st = plan_parts(&l, root);
    if (st == OK) st = build_parts(&l);
    if (st == OK) st = mark_free(&l);
    if (st == OK) st = mark_live(&l);
    if (st == OK) st = check_left(&l);
    if (st == OK) st = link_parts(&l, g);
    if (st == OK) st = grammar_check_paths(g, r, &l.tmp, e);
    arena_clear(&l.tmp);
    if (st == OK)
        *out = g;
    else if (g)
        grammar_free(g);
    return st;
}

void grammar_free(grammar *g) {
    if (!g) return;
    arena a = g->mem;
    arena_clear(&a);
}

size_t grammar_bytes(const grammar *g) {
    return g->mem.total;
}

uint32_t grammar_n_states(const grammar *g) {
    return g->n_states - 1;
}
