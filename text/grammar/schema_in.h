/* The inside of the translation of schemas, shared by text/grammar/schema*.c.
 *
 * A *literal* is a schema, or its negation. A set of literals that hold together expands to
 * *shapes*: alternatives of which each is a plain list of what each type must be (schema_expand.c).
 * What applies to a property or an element is again a set of literals; a set becomes one
 * expression, made once, so that recursion ends (schema.c). */
#ifndef VRAMD_TEXT_SCHEMA_IN_H
#define VRAMD_TEXT_SCHEMA_IN_H

#include "base/buf.h"
#include "text/grammar/automaton.h"
#include "text/grammar/rules_in.h"
#include "text/grammar/schema.h"

/* Keywords of our own, in schemas that stand for negations. No client can send them: their names
 * begin with a byte that is not UTF-8. */
#define OWN_NOT_PATTERN "\xffnot-pattern"
#define OWN_NOT_VALUES  "\xffnot-values"
#define OWN_REFUSED     "\xffrefused" /* a keyword whose negation is not enforced */
#define OWN_FRACTION                                                                           \
    "\xff"                                                                                     \
    "fraction" /* numbers that are no integers */

enum {
    TYPE_NULL = 1,
    TYPE_FALSE = 2,
    TYPE_TRUE = 4,
    TYPE_INT = 8,
    TYPE_FRACTION = 16, /* numbers that are no integers */
    TYPE_STRING = 32,
    TYPE_ARRAY = 64,
    TYPE_OBJECT = 128,
    TYPE_ALL = 255
};

typedef struct literal {
    const json_t *schema;
    bool negated;
} literal;

/* A literal on its way into a shape, and the one that it came from, up to the first. */
typedef struct step {
    literal lit;
    const struct step *parent;
} step;

typedef struct cell { /* a list of anything */
    const struct cell *next;
    const json_t *v;
    literal lit;
    const step *from;
    str key;
} cell;

typedef struct bound { /* of numbers */
    bool set, exclusive;
    double v;
} bound;

typedef struct shape {
    unsigned types;
    const json_t *only;     /* a list of values; NULL: any */
    const cell *not_values; /* lists of values */
    bound lo, hi;
    const cell *multiples;
    const cell *patterns, *not_patterns, *formats; /* v: strings */
    uint32_t min_chars, max_chars;
    const cell *arrays, *objects; /* v: schemas with keywords of items, of properties */
    const cell *contains;         /* v: schemas with contains */
    const cell *loose_items, *loose_members; /* unevaluated...: lit, and from: its owner */
    const json_t *unique;                    /* the schema with uniqueItems; NULL: none */
    uint32_t min_items, max_items, min_members, max_members;
    const cell *required;   /* key */
    const cell *names;      /* propertyNames: lit */
    const char *refused[8]; /* by type (bit number): the keyword that is not enforced */
    const json_t *refused_at[8];
} shape;

typedef struct shapes {
    shape *v;
    uint32_t n, cap;
} shapes;

typedef struct memo memo;

typedef struct translator translator;
struct translator {
    rules *r;
    arena *mem;
    const json_t *root;
    schema_options opt;
    err *e;
    memo *memo; /* expressions of sets of literals */
    uint32_t n_memo, cap_memo, depth, nesting, n_shapes, n_steps;
    /* Lists of lists of schemas (lit.schema) made of schemas, or of keywords' values (v). */
    const cell *negations, *options;
    dfa_limits limits;
    status (*is_empty)(struct translator *, const shape *, bool *empty); /* schema_is_empty */
    rule gap, blank, plain_string, plain_char;                           /* 0: not made yet */
    const struct resource *resources; /* of the document; the last one is itself */
    struct schema_home *homes;        /* of every schema, by address */
    uint32_t n_homes, cap_homes;
};

/* ---- schema_ref.c ---- */

/* ERR_UNSUPPORTED: the keyword, and where in the document `at` is. */
status schema_refuse(translator *, const char *keyword, const json_t *at);
status schema_wrong(translator *, const char *what, const json_t *at);
cell *schema_cell(translator *, const cell *next); /* NULL: no memory */
status schema_no_memory(translator *);
bool schema_equal(const json_t *, const json_t *); /* 1 and 1.0 are equal */
unsigned schema_type(str name);                    /* TYPE_...; 0: none */
unsigned schema_types(const json_t *type);         /* of a name or a list of names */
status schema_resolve(translator *, const json_t *at, str ref, const json_t **out);
void schema_pointer(const translator *, const json_t *at, buf *out);
/* Finds the schemas in o, for schema_resolve. in NULL: o is the document. */
status schema_find_all(translator *, const json_t *o, const struct resource *in);
/* Whether several schemas have the $dynamicAnchor that ref names. */
bool schema_is_dynamic(const translator *, str ref);

/* ---- schema_uri.c ---- */
/* A reference, without fragment, against a base; ptr NULL: no memory. */
str schema_uri(arena *, str base, str ref);

typedef struct literals {
    literal *v;
    uint32_t n, cap;
} literals;
bool literals_add(translator *, literals *, literal);

/* ---- schema_negate.c ---- */

/* Lists of schemas: where all of one list hold, the schema does not, and only there. */
status schema_negate(translator *, const json_t *schema, const json_t **options);
json_t *schema_not(const json_t *schema); /* {"not": schema} */

/* ---- schema_expand.c ---- */

/* The shapes of a set of literals, which hold alternatively. */
status schema_expand(translator *, const literal *, uint32_t n, shapes *out);

/* ---- schema_parts.c ---- */

/* What applies to a member, or an element, of a shape. */
status schema_member(translator *, const shape *, str name, literals *out);
status schema_element(translator *, const shape *, size_t index, literals *out);
size_t schema_prefix(const shape *); /* the longest prefixItems */
/* Whether nothing can have this shape; false where that is not clear. */
status schema_is_empty(translator *, const shape *, bool *empty);
unsigned schema_type_of(const json_t *value); /* TYPE_... */
/* Whether a JSON value has a shape. */
status schema_fits(translator *, const shape *, const json_t *value, bool *fits);

/* ---- schema_string.c ---- */
/* The strings of a shape as an automaton over characters; *plain: only min_chars and max_chars
 * restrict them, and *out is of no use. */
status schema_string_dfa(translator *, const shape *, dfa *out, bool *plain);
status schema_pattern(translator *, const json_t *pattern, dfa *out);
status schema_contains(translator *, str text, dfa *out); /* strings with it */
status schema_combine(translator *, dfa *a, dfa_op, const dfa *b);
status schema_names_dfa(translator *, const cell *names, dfa *out); /* exactly these keys */
rule schema_string_rule(translator *, const dfa *);
rule schema_plain_string(translator *, uint32_t min_chars, uint32_t max_chars);
rule schema_text_rule(translator *, str text); /* a JSON string with this text */
/* What follows the first quotation mark of a string made by one of these. */
rule schema_behind_mark(translator *, rule string);
bool schema_string_fits(translator *, const shape *, str text, status *st);

/* ---- schema_number.c ---- */
status schema_number_rule(translator *, const shape *, rule *out);
bool schema_number_fits(const shape *, const json_t *v);

/* ---- schema.c ---- */
status schema_rule(translator *, const literal *, uint32_t n, rule *out);

/* ---- schema_text.c ---- */
rule schema_fixed(translator *, const char *text);
status schema_white_space(translator *); /* reads what the options say of it */
rule schema_gap(translator *);           /* may stand between two tokens */
rule schema_colon(translator *);
rule schema_comma(translator *);
status schema_value_rule(translator *, const json_t *, rule *out); /* a value as it stands */

/* ---- schema_unique.c ---- */
/* The elements of an array with uniqueItems, one or more; `any`: what one of them may be.
 * ERR_UNSUPPORTED where their values are not few. */
typedef status schema_element_fn(translator *, const shape *, size_t index, rule *out);
status schema_unique_rule(translator *, const shape *, schema_element_fn *any, rule *out);

#endif
