/* What jinja_nodes.c, jinja_expr.c (expressions) and jinja_parse.c (statements) share. */
#ifndef VRAMD_TEXT_JINJA_PARSE_IN_H
#define VRAMD_TEXT_JINJA_PARSE_IN_H

#include "text/jinja/jinja_tree.h"

typedef struct parser {
    arena *a;
    err *e;
    const token *t; /* the next one */
    int depth;
    int loops;        /* around here, within the macro */
    macro_def *macro; /* around here, or NULL */
    str *symbol;
    uint32_t n_symbols, cap_symbols;
    uint32_t *slots; /* a hash table of symbol + 1; 0: free */
    uint32_t n_slots;
} parser;

/* A growing list of nodes. */
typedef struct node_list {
    node **v;
    uint32_t n, cap;
} node_list;

/* All of these return NULL or false and fill p->e where the template is at fault. */
void *parse_fail(parser *, uint32_t line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void *parse_no_memory(parser *);
void *parse_alloc(parser *, size_t bytes); /* cleared */
node *parse_node(parser *, node_kind);
void parse_deepen(int *depth, const node *part);
/* Sets the depth of a node whose parts are complete. */
node *parse_seal(parser *, node *);
bool parse_push(parser *, node_list *, node *);
bool parse_symbol(parser *, str name, uint32_t *out);
bool parse_enter(parser *); /* one level deeper; p->depth-- on the way back */

static inline bool at_op(const parser *p, const char *op) {
    return p->t->kind == T_OP && str_eqz(p->t->text, op);
}
static inline bool at_name(const parser *p, const char *name) {
    return p->t->kind == T_NAME && str_eqz(p->t->text, name);
}
bool parse_expect_op(parser *, const char *op);
bool parse_expect(parser *, token_kind, const char *what);

node *parse_expression(parser *);
/* "a, b" without parentheses is a tuple. inline_if: "x if y" may stand there. end: a name that
 * also ends it, or NULL. */
node *parse_tuple(parser *, bool inline_if, const char *end);
/* A name, ns.x where attributes are allowed, or a tuple of names. */
node *parse_target(parser *, bool attributes, const char *end);
/* "name(args)|name..." applied to the value; NULL: to what the block yields. */
node *parse_filters(parser *, node *value, bool first_without_pipe);

#endif
