/* The tree of a template, between jinja_lex.c, jinja_parse.c and jinja_run.c. */
#ifndef VRAMD_TEXT_JINJA_TREE_H
#define VRAMD_TEXT_JINJA_TREE_H

#include "text/jinja/jinja.h"
#include "text/jinja/jinja_value.h"

/* ---- tokens ---- */

typedef enum token_kind {
    T_DATA, /* text between tags */
    T_VAR_BEGIN,
    T_VAR_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING, /* text: the literal's value */
    T_INT,
    T_FLOAT,
    T_OP, /* text: the operator */
    T_EOF
} token_kind;

typedef struct token {
    token_kind kind;
    uint32_t line;
    str text;
} token;

typedef struct token_list {
    token *v; /* the last one is T_EOF */
    size_t n, cap;
} token_list;

/* source has "\n" alone at the ends of its lines. */
status jinja_lex(token_list *, arena *, str source, err *);

/* ---- nodes ---- */

typedef enum node_kind {
    /* expressions */
    N_CONST,
    N_NAME,
    N_LIST,
    N_TUPLE,
    N_DICT,
    N_ATTR,   /* a.text */
    N_ITEM,   /* a[b] */
    N_SLICE,  /* a[kid 1:kid 2:kid 3], each may be NULL */
    N_CALL,   /* a(args) */
    N_FILTER, /* a | fn(args); a is NULL at the head of a filter or set block */
    N_TEST,   /* a is fn(args) */
    N_NOT,
    N_NEG,
    N_POS,
    N_AND,
    N_OR,
    N_BINARY, /* a op b */
    N_IF_EXPR /* a if b else c; c may be NULL */,
    /* statements */
    N_TEXT,
    N_PRINT,
    N_IF, /* kids: condition, body, condition, body, ..., else body; a body is an N_BODY */
    N_FOR,
    N_SET,       /* a = b */
    N_SET_BLOCK, /* a = body, through the filter b unless NULL */
    N_MACRO,
    N_FILTER_BLOCK, /* body through the filter a */
    N_SCOPE,        /* generation: the body in a scope of its own */
    N_BREAK,
    N_CONTINUE,
    N_BODY
} node_kind;

typedef enum op_kind {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_MOD,
    OP_CONCAT,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN
} op_kind;

typedef struct node node;

/* Arguments of a call: those by position first, then those by name. */
typedef struct arg_nodes {
    node **v;
    str *name; /* ptr NULL: by position */
    uint32_t n;
} arg_nodes;

typedef struct macro_def {
    uint32_t *param; /* symbols */
    node **fallback; /* their defaults; NULL: none */
    uint32_t n;
    bool takes_varargs, takes_kwargs;
    uint32_t varargs, kwargs; /* symbols */
} macro_def;

struct node {
    uint8_t kind, op, depth;
    uint8_t part; /* N_ATTR: what it is of a loop: loop_part */
    bool printed; /* N_CALL: what it gives is printed and nothing else */
    uint32_t line;
    uint32_t symbol; /* N_NAME, N_MACRO; N_ATTR as target of set: of the name before the dot */
    str text;        /* N_NAME, N_MACRO: the name */
    const jname *name; /* N_ATTR; N_ITEM: b, where it is a string, else NULL */
    jv value;          /* N_CONST, N_TEXT */
    node *a, *b, *c;   /* N_FOR: a target, b sequence, c condition or NULL */
    node **kid;        /* N_BODY, N_LIST, N_TUPLE, N_DICT (key, value, ...), N_IF, N_SLICE */
    uint32_t n_kids;
    node *body, *otherwise; /* N_FOR: otherwise is its else */
    arg_nodes args;
    const struct jinja_function *fn; /* N_FILTER, N_TEST */
    macro_def *macro;
};

enum { SYMBOL_LOOP = 0 };

/* The attributes of "loop". */
typedef enum loop_part {
    LOOP_NONE,
    LOOP_INDEX,
    LOOP_INDEX0,
    LOOP_FIRST,
    LOOP_LAST,
    LOOP_PREVITEM,
    LOOP_NEXTITEM,
    LOOP_LENGTH,
    LOOP_REVINDEX,
    LOOP_REVINDEX0
} loop_part;
loop_part jinja_loop_part(str name);

struct jinja_tree {
    node *root;
    const uint8_t *global; /* by symbol: 1 + the index in jinja_globals of that name, or 0 */
    const str *symbol;     /* every name in the template, by symbol */
    uint32_t n_symbols;
};

#endif
