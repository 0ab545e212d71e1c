/* Recursive descent over a grammar text. Owns nothing; any thread. */
#include "text/grammar/gbnf.h"

#include "base/buf.h"
#include "base/utf8.h"
#include "text/grammar/automaton.h"

enum { MAX_NAMES = 2000, MAX_DEPTH = 100, MAX_RANGES = 256, MAX_COUNT = 20000 };

typedef struct named {
    str name;
    rule r;
    bool defined;
} named;

typedef struct parser {
    rules *r;
    const char *at, *begin, *end;
    err *e;
    int depth;
    named *name; /* [MAX_NAMES] */
    size_t n_names;
} parser;

static status bad(parser *p, const char *what) {
    int line = 1;
    for (const char *c = p->begin; c < p->at && c < p->end; c++) line += *c == '\n';
    return err_set(p->e, ERR_INVALID, "line %d of the grammar: %s", line, what);
}

static bool is_name(char c) {
    return ((c | 32) >= 'a' && (c | 32) <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

/* Blanks and comments; line ends where they mean nothing. */
static void blanks(parser *p, bool lines) {
    for (; p->at < p->end; p->at++) {
        if (*p->at == '#')
            while (p->at < p->end && *p->at != '\n' && *p->at != '\r') p->at++;
        if (p->at == p->end) return;
        if (*p->at != ' ' && *p->at != '\t' && !(lines && (*p->at == '\n' || *p->at == '\r')))
            return;
    }
}

static str read_name(parser *p) {
    const char *from = p->at;
    while (p->at < p->end && is_name(*p->at)) p->at++;
    return (str){from, (size_t)(p->at - from)};
}

static named *find(parser *p, str name) {
    for (size_t i = 0; i < p->n_names; i++)
        if (str_eq(p->name[i].name, name)) return &p->name[i];
    if (p->n_names == MAX_NAMES) return NULL;
    p->name[p->n_names] = (named){name, rules_declare(p->r), false};
    return &p->name[p->n_names++];
}

static status hex(parser *p, int n, uint32_t *out) {
    *out = 0;
    for (int i = 0; i < n; i++, p->at++) {
        char c = p->at < p->end ? *p->at : 'x', low = (char)(c | 32);
        if (!(c >= '0' && c <= '9') && !(low >= 'a' && low <= 'f'))
            return bad(p, "an escape needs more hexadecimal digits");
        *out = *out * 16 + (uint32_t)(c <= '9' ? c - '0' : low - 'a' + 10);
    }
    return *out <= SYMBOL_LAST_CHAR ? OK : bad(p, "there is no such character");
}

static status one_char(parser *p, uint32_t *out) {
    static const char from[] = "nrt\\\"[]-^/'", to[] = "\n\r\t\\\"[]-^/'";
    if (p->at == p->end) return bad(p, "it ends within a literal or class");
    if (*p->at != '\\') {
        int n = utf8_decode(p->at, (size_t)(p->end - p->at), out);
        if (n <= 0) return bad(p, "it is not UTF-8");
        p->at += n;
        return OK;
    }
    if (++p->at == p->end) return bad(p, "it ends with a backslash");
    char c = *p->at++;
    const char *k = memchr(from, c, sizeof from - 1);
    if (k) return *out = (uint8_t)to[k - from], OK;
    if (c == 'x') return hex(p, 2, out);
    if (c == 'u') return hex(p, 4, out);
    if (c == 'U') return hex(p, 8, out);
    return bad(p, "an escape that is not known");
}

static status literal(parser *p, rule *out) {
    buf b;
    buf_init(&b, rules_arena(p->r));
    for (p->at++; p->at == p->end || *p->at != '"';) {
        char text[4];
        uint32_t c;
        status s = one_char(p, &c);
        if (s != OK) return s;
        if (c >= 0xd800 && c <= 0xdfff) return bad(p, "a surrogate is no character");
        buf_add(&b, (str){text, (size_t)utf8_encode(c, text)});
    }
    p->at++;
    if (b.failed) return err_set(p->e, ERR_NO_MEMORY, "no memory for a grammar");
    *out = rules_bytes(p->r, buf_str(&b));
    return OK;
}

/* Adds what lies between the ranges, which need not be in order. */
static size_t invert(rule_range *v, size_t n) {
    rule_range out[MAX_RANGES + 1];
    size_t m = 0;
    for (uint32_t from = 0; from <= SYMBOL_LAST_CHAR;) {
        uint32_t until = SYMBOL_LAST_CHAR + 1, skip = from;
        for (size_t i = 0; i < n; i++) {
            if (v[i].lo <= from && v[i].hi >= from && v[i].hi + 1 > skip) skip = v[i].hi + 1;
            if (v[i].lo > from && v[i].lo < until) until = v[i].lo;
        }
        if (skip > from) {
            from = skip;
            continue;
        }
        out[m++] = (rule_range){from, until - 1};
        from = until;
    }
    memcpy(v, out, m * sizeof *v);
    return m;
}

static status class(parser *p, rule *out) {
    rule_range v[MAX_RANGES + 1];
    size_t n = 0;
    bool not = ++p->at < p->end && *p->at == '^';
    if (not ) p->at++;
    while (p->at == p->end || *p->at != ']') {
        if (n == MAX_RANGES) return bad(p, "a class is too large");
        status s = one_char(p, &v[n].lo);
        v[n].hi = v[n].lo;
        if (s == OK && p->end - p->at > 1 && *p->at == '-' && p->at[1] != ']') {
            p->at++;
            s = one_char(p, &v[n].hi);
        }
        if (s != OK) return s;
        if (v[n].hi < v[n].lo) return bad(p, "a range is upside down");
        n++;
    }
    p->at++;
    if (not ) n = invert(v, n);
    *out = rules_class(p->r, v, n);
    return OK;
}

static status alternatives(parser *p, bool nested, rule *out);

static status item(parser *p, rule *out) {
    static const rule_range any = {0, SYMBOL_LAST_CHAR};
    status s;
    if (*p->at == '"') return literal(p, out);
    if (*p->at == '[') return class(p, out);
    if (*p->at == '.') return p->at++, *out = rules_class(p->r, &any, 1), OK;
    if (*p->at == '(') {
        p->at++;
        if (++p->depth > MAX_DEPTH) return bad(p, "groups nest too deeply");
        s = alternatives(p, true, out);
        p->depth--;
        if (s != OK) return s;
        if (p->at == p->end || *p->at != ')') return bad(p, "a group is not closed");
        p->at++;
        return OK;
    }
    if (!is_name(*p->at)) return bad(p, "something that is no literal, class, group or name");
    named *n = find(p, read_name(p));
    if (!n) return bad(p, "there are too many rules");
    *out = n->r;
    return OK;
}

static bool number(parser *p, uint32_t *out) {
    const char *from = p->at;
    for (*out = 0; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++)
        if (*out <= MAX_COUNT) *out = *out * 10 + (uint32_t)(*p->at - '0');
    return p->at > from;
}

/* {m}, {m,}, {m,n}, {,n} */
static status braces(parser *p, uint32_t *lo, uint32_t *hi) {
    p->at++;
    blanks(p, true);
    bool low = number(p, lo);
    blanks(p, true);
    *hi = *lo;
    if (p->at < p->end && *p->at == ',') {
        p->at++;
        blanks(p, true);
        if (!number(p, hi)) *hi = RULE_UNBOUNDED;
        blanks(p, true);
        low = low || *hi != RULE_UNBOUNDED;
    }
    if (!low || p->at == p->end || *p->at != '}')
        return bad(p, "a repetition has no such form");
    p->at++;
    if (*lo > MAX_COUNT || (*hi != RULE_UNBOUNDED && *hi > MAX_COUNT))
        return bad(p, "a repetition is too large");
    return *hi < *lo ? bad(p, "a repetition is upside down") : OK;
}

static status repeated(parser *p, bool nested, rule *out) {
    status s = item(p, out);
    while (s == OK) {
        blanks(p, nested);
        uint32_t lo = 0, hi = RULE_UNBOUNDED;
        char c = p->at < p->end ? *p->at : '\0';
        if (c == '{') {
            s = braces(p, &lo, &hi);
            if (s != OK) return s;
        } else if (c == '*' || c == '+' || c == '?') {
            p->at++;
            lo = c == '+';
            if (c == '?') hi = 1;
        } else {
            return OK;
        }
        *out = rules_repeat(p->r, *out, lo, hi);
    }
    return s;
}

typedef struct list {
    rule *v;
    size_t n;
    uint32_t cap;
} list;

static bool push(parser *p, list *l, rule r) {
    if (!arena_place(rules_arena(p->r), &l->v, l->n, &l->cap, sizeof *l->v, 8)) return false;
    l->v[l->n++] = r;
    return true;
}

/* nested: line ends mean nothing. */
static status alternatives(parser *p, bool nested, rule *out) {
    list all = {0};
    for (;;) {
        list one = {0};
        for (blanks(p, nested); p->at < p->end && !strchr("|)\r\n", *p->at);) {
            rule r;
            status s = repeated(p, nested, &r);
            if (s != OK) return s;
            if (!push(p, &one, r)) return err_set(p->e, ERR_NO_MEMORY, "no memory");
            blanks(p, nested);
        }
        if (!push(p, &all, rules_seq(p->r, one.v, one.n)))
            return err_set(p->e, ERR_NO_MEMORY, "no memory for a grammar");
        /* An alternative may stand in the next line. */
        const char *here = p->at;
        blanks(p, true);
        if (p->at == p->end || *p->at != '|') {
            if (!nested) p->at = here;
            break;
        }
        p->at++;
        blanks(p, true);
    }
    *out = rules_alt(p->r, all.v, all.n);
    return OK;
}

static status definition(parser *p) {
    str name = read_name(p);
    if (!name.len) return bad(p, "a rule begins with its name and ::=");
    blanks(p, false);
    if (p->end - p->at < 3 || memcmp(p->at, "::=", 3) != 0)
        return bad(p, "a rule begins with its name and ::=");
    p->at += 3;
    blanks(p, true);
    rule body;
    status s = alternatives(p, false, &body);
    if (s != OK) return s;
    if (p->at < p->end && *p->at == ')') return bad(p, "a group is closed that was not opened");
    named *n = find(p, name);
    if (!n) return bad(p, "there are too many rules");
    if (n->defined)
        return err_set(p->e, ERR_INVALID, "the rule " STR_FMT " is defined twice",
                       STR_ARG(name));
    n->defined = true;
    rules_define(p->r, n->r, body);
    return OK;
}

status rules_gbnf(rules *r, str text, rule *out, err *e) {
    parser p = {.r = r, .at = text.ptr, .begin = text.ptr, .end = text.ptr + text.len, .e = e};
    p.name = arena_alloc(rules_arena(r), MAX_NAMES * sizeof *p.name);
    if (!p.name) return err_set(e, ERR_NO_MEMORY, "no memory for a grammar");
    for (blanks(&p, true); p.at < p.end; blanks(&p, true)) {
        status s = definition(&p);
        if (s != OK) return s;
    }
    size_t known = p.n_names;
    named *root = find(&p, STR("root"));
    if (p.n_names > known || !root || !root->defined)
        return err_set(e, ERR_INVALID, "the grammar has no rule named root");
    for (size_t i = 0; i < p.n_names; i++)
        if (!p.name[i].defined)
            return err_set(e, ERR_INVALID, "the rule " STR_FMT " is used and not defined",
                           STR_ARG(p.name[i].name));
    *out = root->r;
    return OK;
}
