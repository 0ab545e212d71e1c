/* Nodes, symbols and errors of the parser, for statements and expressions. Owns nothing. */
#include "text/jinja/jinja_parse_in.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/hash.h"

void *parse_fail(parser *p, uint32_t line, const char *fmt, ...) {
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_set(p->e, ERR_INVALID, "the chat template does not parse: %s, line %u", text, line);
    err_field(p->e, "chat_template");
    return NULL;
}

void *parse_no_memory(parser *p) {
    err_set(p->e, ERR_NO_MEMORY, "no memory to parse the chat template");
    return NULL;
}
void *parse_alloc(parser *p, size_t bytes) {
    void *v = arena_zalloc(p->a, bytes);
    return v ? v : parse_no_memory(p);
}

node *parse_node(parser *p, node_kind kind) {
    node *n = parse_alloc(p, sizeof *n);
    if (!n) return NULL;
    n->kind = (uint8_t)kind;
    n->line = p->t->line;
    return n;
}

void parse_deepen(int *depth, const node *part) {
    if (part && part->depth > *depth) *depth = part->depth;
}
node *parse_seal(parser *p, node *n) {
    int depth = 0;
    const node *const parts[] = {n->a, n->b, n->c, n->body, n->otherwise};
    for (int i = 0; i < 5; i++) parse_deepen(&depth, parts[i]);
    for (uint32_t i = 0; i < n->n_kids; i++) parse_deepen(&depth, n->kid[i]);
    for (uint32_t i = 0; i < n->args.n; i++) parse_deepen(&depth, n->args.v[i]);
    if (depth + 1 > JINJA_MAX_DEPTH)
        return parse_fail(p, n->line, "it is nested more than %d deep", JINJA_MAX_DEPTH);
    n->depth = (uint8_t)(depth + 1);
    return n;
}

bool parse_push(parser *p, node_list *l, node *n) {
    if (!n) return false;
    if (!arena_place(p->a, &l->v, l->n, &l->cap, sizeof *l->v, 4)) return parse_no_memory(p);
    l->v[l->n++] = n;
    return true;
}

static bool grow_slots(parser *p) {
    uint32_t n = p->n_slots ? p->n_slots * 2 : 64;
    uint32_t *slots = parse_alloc(p, n * sizeof *slots);
    if (!slots) return false;
    for (uint32_t i = 0; i < p->n_symbols; i++) {
        uint32_t at = (uint32_t)hash64(p->symbol[i].ptr, p->symbol[i].len, 0) & (n - 1);
        while (slots[at]) at = (at + 1) & (n - 1);
        slots[at] = i + 1;
    }
    p->slots = slots;
    p->n_slots = n;
    return true;
}

bool parse_symbol(parser *p, str name, uint32_t *out) {
    if (p->n_symbols * 2 >= p->n_slots && !grow_slots(p)) return false;
    uint32_t at = (uint32_t)hash64(name.ptr, name.len, 0) & (p->n_slots - 1);
    for (; p->slots[at]; at = (at + 1) & (p->n_slots - 1))
        if (str_eq(p->symbol[p->slots[at] - 1], name)) {
            *out = p->slots[at] - 1;
            return true;
        }
    if (!arena_place(p->a, &p->symbol, p->n_symbols, &p->cap_symbols, sizeof *p->symbol, 64))
        return parse_no_memory(p);
    *out = p->n_symbols;
    p->symbol[p->n_symbols++] = name;
    p->slots[at] = p->n_symbols;
    return true;
}

bool parse_enter(parser *p) {
    if (++p->depth <= JINJA_MAX_DEPTH) return true;
    return parse_fail(p, p->t->line, "it is nested more than %d deep", JINJA_MAX_DEPTH);
}

bool parse_expect_op(parser *p, const char *op) {
    if (!at_op(p, op)) return parse_fail(p, p->t->line, "\"%s\" is missing", op);
    p->t++;
    return true;
}
bool parse_expect(parser *p, token_kind kind, const char *what) {
    if (p->t->kind != kind) return parse_fail(p, p->t->line, "%s is missing", what);
    p->t++;
    return true;
}
