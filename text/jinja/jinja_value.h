/* Values of the template language, with Python's semantics. Immutable but for namespaces; all
 * lie in the arena of the rendering (constants in that of the tree). */
#ifndef VRAMD_TEXT_JINJA_VALUE_H
#define VRAMD_TEXT_JINJA_VALUE_H

#include "text/jinja/jinja.h"

typedef enum jv_kind {
    JV_UNDEF, /* why: jv_why */
    JV_NONE,
    JV_BOOL,
    JV_INT,
    JV_BIG, /* an integer beyond 64 bits: s is its text; it can only be printed */
    JV_FLOAT,
    JV_STR,
    JV_LIST,
    JV_TUPLE,
    JV_ITER, /* a generator, read once, or a dict's view */
    JV_DICT,
    JV_SPACE, /* namespace() */
    JV_LOOP,
    JV_MACRO,
    JV_GLOBAL, /* a function of the environment: i is its number */
    JV_METHOD
} jv_kind;

/* A string: UTF-8, at most JSTR_MAX bytes. */
typedef struct jstr {
    const char *p;
    size_t n;
    size_t n_chars;        /* code points */
    const jinja_run *runs; /* NULL: all bytes are of the origin data */
    size_t n_runs;
    bool data;
    bool markup; /* through the filter safe: "+" escapes what is joined to it */
} jstr;

enum { JSTR_MAX = 1 << 30 };

/* Why a value is undefined. The message is written when a use of the value fails. */
typedef enum jv_why {
    WHY_TEXT,   /* undef is the message, or NULL */
    WHY_NAME,   /* *name is not set */
    WHY_MEMBER, /* an object of the kind `of` has no *name */
    WHY_ELEMENT /* it has no such element */
} jv_why;

typedef struct jv {
    uint8_t kind, why, of;
    union {
        bool b;
        int64_t i;
        double d;
        const jstr *s;
        struct jlist *l;
        const struct jdict *o;
        struct jspace *ns;
        struct jloop *loop;
        const struct jmacro *macro;
        const struct jmethod *method;
        const char *undef;
        const str *name;
    };
} jv;

typedef enum list_look {
    LOOK_LIST,
    LOOK_RANGE,
    LOOK_ITEMS,
    LOOK_KEYS,
    LOOK_VALUES,
    LOOK_GEN
} list_look;

typedef struct jlist {
    jv *v;
    size_t n;
    size_t from;  /* a generator: items read already */
    uint8_t look; /* list_look: how it prints */
} jlist;

typedef struct jpair {
    jv key, value;
    uint32_t hash;
} jpair;

typedef struct jdict {
    jpair *v;
    size_t n, cap;
} jdict;

typedef struct jspace {
    jdict vars;
} jspace;

typedef struct jmethod {
    jv self;
    const struct jinja_function *fn;
} jmethod;

/* ---- one rendering ---- */

typedef struct jinja {
    arena *a;
    err *e;
    const jinja_settings *set;
    const struct jinja_tree *tree;
    uint64_t steps;
    uint32_t depth, macros;
    uint32_t line; /* of the statement or expression being evaluated */
    bool failed;
    jv *global; /* by symbol; JV_UNDEF with undef == jinja_unset: not set */
    struct jscope *scope;
    struct sbuf *out;
    uint8_t flow; /* FLOW_NEXT, ... */
} jinja;

/* All of these return false, or an undefined value, and set failed. */
bool jinja_fail(jinja *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool jinja_limit(jinja *, const char *what);
bool jinja_no_memory(jinja *);
/* Counts n bytes or items that are walked. */
bool jinja_walk(jinja *, size_t n);
void *jinja_alloc(jinja *, size_t bytes);

/* ---- strings ---- */

/* A string that grows, with its origins. */
typedef struct sbuf {
    char *p;
    size_t n, cap, n_chars;
    jinja_run *runs;
    size_t n_runs, cap_runs;
    size_t limit; /* of n; crossing it is answered with what */
    const char *what;
} sbuf;

void sbuf_init(sbuf *);
bool sbuf_reserve(jinja *, sbuf *, size_t n); /* bytes that will be added */
bool sbuf_add(jinja *, sbuf *, const char *p, size_t n, bool data);
bool sbuf_addz(jinja *, sbuf *, const char *z);
bool sbuf_str(jinja *, sbuf *, const jstr *);
bool sbuf_part(jinja *, sbuf *, const jstr *, size_t from, size_t to); /* bytes */
jv sbuf_value(jinja *, sbuf *);

/* "template" origin unless data. The bytes are borrowed. */
jv jv_str(jinja *, str, bool data);
jv jv_copy(jinja *, str, bool data);
jv jv_part(jinja *, const jstr *, size_t from, size_t to); /* bytes from..to */
bool jstr_data_at(const jstr *, size_t at);
bool jstr_any_data(const jstr *);
static inline str jstr_text(const jstr *s) {
    return (str){s->p, s->n};
}
/* Byte offset of a code point. */
size_t jstr_offset(const jstr *, size_t chars);

/* ---- others ---- */

static inline jv jv_none(void) {
    return (jv){.kind = JV_NONE};
}
static inline jv jv_bool(bool b) {
    return (jv){.kind = JV_BOOL, .b = b};
}
static inline jv jv_int(int64_t i) {
    return (jv){.kind = JV_INT, .i = i};
}
static inline jv jv_float(double d) {
    return (jv){.kind = JV_FLOAT, .d = d};
}
static inline jv jv_undef(void) {
    return (jv){.kind = JV_UNDEF};
}
jv jv_undef_named(jinja *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What a use of an undefined value is answered with. */
bool jinja_fail_undef(jinja *, jv);
/* n items, not filled in. */
jv jv_list(jinja *, jv_kind, size_t n);
jv jv_pair(jinja *, jv a, jv b);
bool jlist_push(jinja *, jlist *, jv, size_t *cap);

/* Sets or replaces; keys must be hashable. */
bool jdict_set(jinja *, jdict *, jv key, jv value);
/* The same where the key is known to be new. */
bool jdict_add(jinja *, jdict *, jv key, jv value);
const jv *jdict_get(jinja *, const jdict *, jv key);
const jv *jdict_find(const jdict *, str key, uint32_t hash); /* jstr_hash(key) */
uint32_t jstr_hash(str);

jv jv_of_json(jinja *, const json_t *, bool data, int depth);
/* Whether any string in it is data. */
bool jv_any_data(jv, int depth);

/* "int", "str", "NoneType": as Python names types. */
const char *jv_type(jv);
bool jv_hashable(jv);
bool jv_truth(jv);
bool jv_equal(jinja *, jv, jv, int depth);
/* *out < 0, 0, > 0. Fails where Python cannot order. sign: "<" for the message. */
bool jv_compare(jinja *, jv, jv, const char *sign, int *out, int depth);
bool jv_contains(jinja *, jv item, jv in, bool *out);
static inline bool jv_is_number(jv v) {
    return v.kind == JV_BOOL || v.kind == JV_INT || v.kind == JV_FLOAT || v.kind == JV_BIG;
}
/* An index: int or bool. */
static inline bool jv_as_int(jv v, int64_t *out) {
    *out = v.kind == JV_BOOL ? v.b : v.i;
    return v.kind == JV_BOOL || v.kind == JV_INT;
}
double jv_as_double(jv);
/* str(v): appends what printing shows. */
bool jv_print(jinja *, sbuf *, jv);
bool jv_repr(jinja *, sbuf *, jv, int depth);
/* str(v) as a string; NULL when it failed. */
const jstr *jv_text(jinja *, jv);
/* What iterating gives: the items of a list, keys of a dict, characters of a string, nothing of
 * an undefined value. Reads a generator to its end. */
bool jv_items(jinja *, jv, jv **items, size_t *n);
enum { JINJA_FLOAT_TEXT = 48 };
/* The shortest text that reads back as d, as Python writes it. out: JINJA_FLOAT_TEXT bytes. */
void jinja_float_text(double d, char *out);

/* ---- functions, filters, tests, methods ---- */

typedef struct jargs {
    jv *v; /* by position first */
    const str *name;
    size_t n_pos, n;
} jargs;

enum { JINJA_MAX_PARAMS = 5 };

/* A row of a table: the parameters in order, and what is called with them. An argument that is
 * not given is JV_UNDEF with undef == jinja_unset. */
typedef struct jinja_function {
    const char *name;
    const char *params[JINJA_MAX_PARAMS];
    uint8_t n_needed;
    bool variadic; /* takes its jargs as they are */
    bool breaks;   /* reached, it fails: it would change its value, or is not there */
    jv (*call)(jinja *, jv self, const jv *arg);
    jv (*call_args)(jinja *, jv self, const jargs *);
} jinja_function;

extern const char jinja_unset[];
static inline bool jv_given(jv v) {
    return !(v.kind == JV_UNDEF && v.undef == jinja_unset);
}
static inline jv jv_unset(void) {
    return (jv){.kind = JV_UNDEF, .undef = jinja_unset};
}

/* NULL: there is none. */
const jinja_function *jinja_filter_find(str name);
const jinja_function *jinja_test_find(str name);
/* The name of an attribute or an item, with what can be found before rendering. */
typedef enum jinja_type { TYPE_STR, TYPE_DICT, TYPE_LIST, TYPE_OTHER } jinja_type;

typedef struct jname {
    str text;
    uint32_t hash;
    const jinja_function *method[TYPE_OTHER]; /* by jinja_type; NULL: none */
} jname;

jname jinja_name(str);
/* The method of self's type that has this name; NULL: there is none. */
const jinja_function *jinja_method_find(jv self, const jname *);
/* Places the arguments and calls. */
jv jinja_call_function(jinja *, const jinja_function *, jv self, const jargs *);

/* Functions of the environment: namespace, range, ...; JV_GLOBAL holds an index. */
extern const jinja_function jinja_globals[];
extern const uint32_t jinja_n_globals;

/* a op b for all but "and" and "or"; op: op_kind. */
jv jinja_binary(jinja *, int op, jv a, jv b);
jv jinja_join(jinja *, const jv *, size_t n); /* a ~ b ~ ... */
jv jinja_negate(jinja *, jv);

/* a.name, a["name"] and a[key]; not of a loop. The name must live as long as the value. */
jv jinja_attr(jinja *, jv, const jname *);
jv jinja_named_item(jinja *, jv, const jname *);
jv jinja_item(jinja *, jv, jv key);
jv jinja_slice(jinja *, jv, jv from, jv to, jv step);
/* printf's "%" as Python's str has it; args: the tuple's items. */
jv jinja_percent(jinja *, const jstr *format, const jv *arg, size_t n);
/* arg: ensure_ascii, indent, separators, sort_keys. */
bool jinja_tojson(jinja *, sbuf *, jv, const jv *arg);

/* ---- Unicode ---- */

/* Up to three code points. */
int jinja_upper(uint32_t cp, uint32_t out[3]);
int jinja_lower(uint32_t cp, uint32_t out[3]);
int jinja_title(uint32_t cp, uint32_t out[3]);
bool jinja_is_space(uint32_t cp);
bool jinja_is_printable(uint32_t cp);

#endif
