/* Expressions of a grammar. Everything is in the arena; one thread. */
#include "text/grammar/rules_in.h"

rules *rules_new(arena *mem) {
    rules *r = arena_zalloc(mem, sizeof *r);
    if (!r) return NULL;
    r->mem = mem;
    if (!(r->work = arena_alloc(mem, sizeof *r->work))) return NULL;
    *r->work = RULES_WORK;
    rules_alt(r, NULL, 0); /* RULE_NEVER */
    rules_seq(r, NULL, 0); /* RULE_EMPTY */
    return r->failed ? NULL : r;
}

bool rules_failed(const rules *r) {
    return r->failed;
}

arena *rules_arena(const rules *r) {
    return r->mem;
}

static rule add(rules *r, const rule_node *n) {
    if (!rules_spend(r, 16 + 2ull * n->n)) r->failed = true;
    if (r->failed) return RULE_NEVER;
    if (r->n_nodes >= RULES_MAX_NODES ||
        !arena_place(r->mem, &r->node, r->n_nodes, &r->cap, sizeof *r->node, 64)) {
        r->failed = true;
        return RULE_NEVER;
    }
    r->node[r->n_nodes] = *n;
    return r->n_nodes++;
}

static void *copy(rules *r, const void *from, size_t n, size_t item) {
    void *to = arena_alloc(r->mem, n * item + 1);
    if (!to)
        r->failed = true;
    else if (n)
        memcpy(to, from, n * item);
    return to;
}

rule rules_bytes(rules *r, str s) {
    if (s.len == 0) return RULE_EMPTY;
    rule_node n = {.kind = RULE_BYTES};
    n.u.bytes = (str){copy(r, s.ptr, s.len, 1), s.len};
    return n.u.bytes.ptr ? add(r, &n) : RULE_NEVER;
}

rule rules_byte_range(rules *r, uint8_t lo, uint8_t hi) {
    return add(r, &(rule_node){.kind = RULE_RANGE, .lo = lo, .hi = hi});
}

rule rules_class(rules *r, const rule_range *range, size_t n) {
    rule_node c = {.kind = RULE_CLASS, .n = (uint32_t)n};
    c.u.range = copy(r, range, n, sizeof *range);
    return c.u.range ? add(r, &c) : RULE_NEVER;
}

rule rules_token(rules *r, int32_t token) {
    return add(r, &(rule_node){.kind = RULE_TOKEN, .lo = (uint32_t)token});
}

static rule add_list(rules *r, rule_kind kind, const rule *kid, size_t n) {
    rule_node l = {.kind = kind, .n = (uint32_t)n};
    l.u.kid = copy(r, kid, n, sizeof *kid);
    return l.u.kid ? add(r, &l) : RULE_NEVER;
}

rule rules_seq(rules *r, const rule *kid, size_t n) {
    return n == 1 ? kid[0] : add_list(r, RULE_SEQ, kid, n);
}

rule rules_alt(rules *r, const rule *kid, size_t n) {
    return n == 1 ? kid[0] : add_list(r, RULE_ALT, kid, n);
}

rule rules_repeat(rules *r, rule of, uint32_t min, uint32_t max) {
    if (max == 0) return RULE_EMPTY;
    if (max < min) return RULE_NEVER;
    if (min == 1 && max == 1) return of;
    rule_node n = {.kind = RULE_REPEAT, .n = 1, .lo = min, .hi = max};
    n.u.kid = copy(r, &of, 1, sizeof of);
    return n.u.kid ? add(r, &n) : RULE_NEVER;
}

rule rules_optional(rules *r, rule of) {
    return rules_repeat(r, of, 0, 1);
}

rule rules_graph(rules *r, uint32_t n_states, const bool *final, const rule_edge *edge,
                 size_t n) {
    rule_node g = {.kind = RULE_GRAPH, .n = (uint32_t)n, .lo = n_states};
    g.u.edge = copy(r, edge, n, sizeof *edge);
    g.final = copy(r, final, n_states, sizeof *final);
    return g.u.edge && g.final ? add(r, &g) : RULE_NEVER;
}

rule rules_declare(rules *r) {
    rule_node n = {.kind = RULE_NAMED};
    rule none = RULE_NEVER;
    n.u.kid = copy(r, &none, 1, sizeof none);
    return n.u.kid ? add(r, &n) : RULE_NEVER;
}

void rules_define(rules *r, rule declared, rule body) {
    rule_node *n = &r->node[declared];
    if (n->kind != RULE_NAMED) return; /* of a declaration that failed */
    n->n = 1;
    n->u.kid[0] = body;
}
