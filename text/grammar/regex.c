/* Recursive descent over a pattern. Owns nothing; any thread. */
#include "text/grammar/regex.h"

#include <stdlib.h>

#include "base/utf8.h"
#include "text/grammar/automaton.h"

enum { MAX_DEPTH = 100, MAX_ITEMS = 4096, MAX_RANGES = 512, MAX_COUNT = 20000 };

typedef struct parser {
    rules *r;
    const char *at, *begin, *end;
    err *e;
    int depth;
    bool search;
    bool begins; /* nothing stands before here: ^ has a meaning */
    bool ended;  /* a $ was read: nothing may follow it */
    uint32_t n_assertions;
} parser;

static status fail(parser *p, status code, const char *what) {
    err_set(p->e, code, "the pattern is refused at byte %zu: %s", (size_t)(p->at - p->begin),
            what);
    return code;
}
static status bad(parser *p, const char *what) {
    return fail(p, ERR_INVALID, what);
}
static status unsupported(parser *p, const char *what) {
    return fail(p, ERR_UNSUPPORTED, what);
}

/* ---- classes ---- */

typedef struct ranges {
    rule_range v[MAX_RANGES];
    size_t n;
} ranges;

static bool add(ranges *s, uint32_t lo, uint32_t hi) {
    if (s->n == MAX_RANGES) return false;
    s->v[s->n++] = (rule_range){lo, hi};
    return true;
}

static int by_lo(const void *a, const void *b) {
    const rule_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

/* Ascending, without overlaps. */
static void tidy(ranges *s) {
    size_t n = 0;
    qsort(s->v, s->n, sizeof *s->v, by_lo);
    for (size_t i = 0; i < s->n; i++) {
        if (n && s->v[i].lo <= s->v[n - 1].hi + 1) {
            if (s->v[i].hi > s->v[n - 1].hi) s->v[n - 1].hi = s->v[i].hi;
        } else {
            s->v[n++] = s->v[i];
        }
    }
    s->n = n;
}

static bool invert(ranges *s) {
    ranges out = {.n = 0};
    uint32_t from = 0;
    tidy(s);
    for (size_t i = 0; i < s->n; i++) {
        if (s->v[i].lo > from && !add(&out, from, s->v[i].lo - 1)) return false;
        from = s->v[i].hi + 1;
    }
    if (from <= SYMBOL_LAST_CHAR && !add(&out, from, SYMBOL_LAST_CHAR)) return false;
    *s = out;
    return true;
}

/* \d \D \w \W \s \S; as ECMA 262 has \s in Unicode. False: it is none of them. */
static bool add_named(ranges *out, char c) {
    static const rule_range word[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    static const rule_range space[] = {{9, 13},          {' ', ' '},       {0xa0, 0xa0},
                                       {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029},
                                       {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000},
                                       {0xfeff, 0xfeff}};
    char kind = (char)(c | 0x20);
    ranges s = {.n = 0};
    if (kind == 'd')
        add(&s, '0', '9');
    else if (kind == 'w')
        memcpy(s.v, word, sizeof word), s.n = 4;
    else if (kind == 's')
        memcpy(s.v, space, sizeof space), s.n = 10;
    else
        return false;
    if (c != kind) invert(&s);
    for (size_t i = 0; i < s.n; i++) add(out, s.v[i].lo, s.v[i].hi);
    return true;
}

static bool hex(parser *p, int n, uint32_t *out) {
    *out = 0;
    for (int i = 0; i < n; i++, p->at++) {
        if (p->at == p->end) return false;
        char c = *p->at;
        uint32_t d = c >= '0' && c <= '9'                 ? (uint32_t)(c - '0')
                     : (c | 32) >= 'a' && (c | 32) <= 'f' ? (uint32_t)((c | 32) - 'a' + 10)
                                                          : 99;
        if (d == 99) return false;
        *out = *out * 16 + d;
    }
    return true;
}

/* \u{...}, \uXXXX, of which two may be a surrogate pair. */
static status unicode(parser *p, uint32_t *out) {
    uint32_t low;
    if (p->at < p->end && *p->at == '{') {
        const char *close = memchr(p->at, '}', (size_t)(p->end - p->at));
        p->at++;
        if (!close || close - p->at < 1 || close - p->at > 6 ||
            !hex(p, (int)(close - p->at), out) || *out > SYMBOL_LAST_CHAR)
            return bad(p, "\\u{...} needs 1 to 6 hexadecimal digits");
        p->at++;
        return OK;
    }
    if (!hex(p, 4, out)) return bad(p, "\\u needs four hexadecimal digits");
    if (*out < 0xd800 || *out > 0xdbff || p->end - p->at < 6 || p->at[0] != '\\' ||
        p->at[1] != 'u')
        return OK;
    p->at += 2;
    if (!hex(p, 4, &low) || low < 0xdc00 || low > 0xdfff)
        return bad(p, "a surrogate stands alone");
    *out = 0x10000 + ((*out - 0xd800) << 10) + (low - 0xdc00);
    return OK;
}

/* Behind a backslash: one character. */
static status escape(parser *p, bool in_class, uint32_t *out) {
    static const char from[] = "nrtfv0", to[] = "\n\r\t\f\v\0";
    if (p->at == p->end) return bad(p, "it ends with a backslash");
    char c = *p->at++;
    const char *k = memchr(from, c, 6);
    bool digit_next = p->at < p->end && *p->at >= '0' && *p->at <= '9';
    if (k && !(c == '0' && digit_next)) return *out = (uint8_t)to[k - from], OK;
    if (c == 'x') return hex(p, 2, out) ? OK : bad(p, "\\x needs two hexadecimal digits");
    if (c == 'u') return unicode(p, out);
    if (c == 'b' && in_class) return *out = '\b', OK;
    if (c == 'c' && p->at < p->end && (*p->at | 32) >= 'a' && (*p->at | 32) <= 'z')
        return *out = (uint32_t)*p->at++ & 31, OK;
    p->at--;
    if ((c >= '0' && c <= '9') || c == 'k')
        return unsupported(p, "a back reference, or an octal number");
    if ((c | 32) >= 'a' && (c | 32) <= 'z')
        return unsupported(p, c == 'b' || c == 'B' ? "\\b and \\B" : "this escape");
    int n = utf8_decode(p->at, (size_t)(p->end - p->at), out);
    if (n <= 0) return bad(p, "it is not UTF-8");
    p->at += n;
    return OK;
}

static status one_char(parser *p, uint32_t *out) {
    int n = utf8_decode(p->at, (size_t)(p->end - p->at), out);
    if (n <= 0) return bad(p, "it is not UTF-8");
    p->at += n;
    return OK;
}

/* One end of a range, or a named class: then *named. */
static status class_item(parser *p, ranges *s, uint32_t *c, bool *named) {
    *named = false;
    if (p->at == p->end) return bad(p, "a class is not closed");
    if (*p->at != '\\') return one_char(p, c);
    p->at++;
    if (p->at < p->end && add_named(s, *p->at)) {
        p->at++;
        *named = true;
        return OK;
    }
    return escape(p, true, c);
}

static status class(parser *p, rule *out) {
    ranges s = {.n = 0};
    bool not = p->at < p->end && *p->at == '^', named;
    if (not ) p->at++;
    if (p->at < p->end && *p->at == ']')
        return bad(p, "an empty class, or ] without a backslash");
    while (p->at == p->end || *p->at != ']') {
        uint32_t lo, hi;
        if (s.n + 12 > MAX_RANGES) return bad(p, "a class is too large");
        if (p->end - p->at > 1 && p->at[0] == '[' && p->at[1] == ':')
            return unsupported(p, "[:name:]");
        status st = class_item(p, &s, &lo, &named);
        if (st != OK) return st;
        hi = lo;
        if (p->end - p->at > 1 && p->at[0] == '-' && p->at[1] != ']') {
            if (named) return bad(p, "a range begins with a class");
            p->at++;
            st = class_item(p, &s, &hi, &named);
            if (st != OK) return st;
            if (named || hi < lo) return bad(p, "a range is upside down");
        } else if (named) {
            continue;
        }
        add(&s, lo, hi);
    }
    p->at++;
    tidy(&s);
    if (not &&!invert(&s)) return bad(p, "a class is too large");
    *out = rules_class(p->r, s.v, s.n);
    return OK;
}

/* ---- structure ---- */

static status alternatives(parser *p, rule *out);

static status group(parser *p, rule *out) {
    if (p->end - p->at >= 2 && p->at[0] == '?') {
        bool plain = p->at[1] == ':';
        bool name = p->at[1] == 'P' || (p->at[1] == '<' && p->end - p->at > 2 &&
                                        p->at[2] != '=' && p->at[2] != '!');
        if (!plain && !name) return unsupported(p, "look-around, or a flag");
        const char *close = name ? memchr(p->at, '>', (size_t)(p->end - p->at)) : p->at + 1;
        if (!close) return bad(p, "the name of a group is not closed");
        p->at = close + 1;
    }
    if (++p->depth > MAX_DEPTH) return bad(p, "it nests too deeply");
    status s = alternatives(p, out);
    p->depth--;
    if (s != OK) return s;
    if (p->at == p->end || *p->at != ')') return bad(p, "a group is not closed");
    p->at++;
    return OK;
}

static rule one_symbol(parser *p, uint32_t symbol) {
    return rules_class(p->r, &(rule_range){symbol, symbol}, 1);
}

static rule literal(parser *p, uint32_t c) {
    char text[4];
    if (c >= 0xd800 && c <= 0xdfff) return RULE_NEVER;
    return rules_bytes(p->r, (str){text, (size_t)utf8_encode(c, text)});
}

static status atom(parser *p, rule *out) {
    static const rule_range line[] = {
        {0, 9}, {11, 12}, {14, 0x2027}, {0x202a, SYMBOL_LAST_CHAR}};
    uint32_t c = 0;
    ranges s = {.n = 0};
    status st = OK;
    char k = *p->at++;
    p->n_assertions += k == '^' || k == '$';
    switch (k) {
    case '(': return group(p, out);
    case '[': return class(p, out);
    case '.': return *out = rules_class(p->r, line, 4), OK;
    case '^':
        if (!p->begins) return p->at--, unsupported(p, "^ that is not at the beginning");
        return *out = p->search ? one_symbol(p, SYMBOL_BEGIN) : RULE_EMPTY, OK;
    case '$':
        p->ended = true;
        return *out = p->search ? one_symbol(p, SYMBOL_END) : RULE_EMPTY, OK;
    case '*':
    case '+':
    case '?': return p->at--, bad(p, "nothing stands before a repetition");
    case '\\':
        if (p->at < p->end && add_named(&s, *p->at)) {
            p->at++;
            return *out = rules_class(p->r, s.v, s.n), OK;
        }
        st = escape(p, false, &c);
        break;
    default: p->at--; st = one_char(p, &c);
    }
    if (st == OK) *out = literal(p, c);
    return st;
}

static bool number(parser *p, uint32_t *out) {
    const char *from = p->at;
    *out = 0;
    for (; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++)
        if (*out <= MAX_COUNT) *out = *out * 10 + (uint32_t)(*p->at - '0');
    return p->at > from;
}

/* Reads a repetition, if one stands here; *n repetitions are 1, 1 otherwise. */
static status counts(parser *p, uint32_t *lo, uint32_t *hi) {
    const char *from = p->at;
    *lo = *hi = 1;
    if (p->at == p->end) return OK;
    char c = *p->at++;
    if (c == '*' || c == '+') {
        *lo = c == '+';
        *hi = RULE_UNBOUNDED;
    } else if (c == '?') {
        *lo = 0;
    } else {
        bool ok = c == '{' && number(p, lo);
        *hi = *lo;
        if (ok && p->at < p->end && *p->at == ',') {
            p->at++;
            if (!number(p, hi)) *hi = RULE_UNBOUNDED;
        }
        if (!ok || p->at == p->end || *p->at != '}') { /* a brace that is none */
            p->at = from;
            *lo = *hi = 1;
            return OK;
        }
        p->at++;
        if (*lo > MAX_COUNT || (*hi != RULE_UNBOUNDED && *hi > MAX_COUNT))
            return bad(p, "a repetition is too large");
        if (*hi < *lo) return bad(p, "a repetition is upside down");
    }
    if (p->at < p->end && *p->at == '?') p->at++; /* lazy */
    if (p->at < p->end && *p->at == '+' && p->at > from)
        return unsupported(p, "possessive repetition");
    return OK;
}

static status sequence(parser *p, rule *out) {
    rule item[MAX_ITEMS / 16], whole = RULE_EMPTY;
    size_t n = 0;
    while (p->at < p->end && *p->at != '|' && *p->at != ')') {
        uint32_t lo, hi, before = p->n_assertions;
        if (p->ended) return unsupported(p, "$ that is not at the end");
        status s = atom(p, &item[n]);
        if (s == OK) s = counts(p, &lo, &hi);
        if (s != OK) return s;
        if (p->n_assertions > before && hi != 1) return unsupported(p, "a repeated ^ or $");
        item[n] = rules_repeat(p->r, item[n], lo, hi);
        /* Behind ^ nothing more may be asserted, behind a character neither. */
        p->begins = false;
        if (++n == sizeof item / sizeof *item) {
            whole = rules_seq(p->r, item, n);
            item[0] = whole;
            n = 1;
        }
    }
    *out = n ? rules_seq(p->r, item, n) : RULE_EMPTY;
    return OK;
}

static status alternatives(parser *p, rule *out) {
    const bool begins = p->begins;
    bool ended = false;
    rule *one = NULL;
    size_t n = 0, cap = 0;
    for (;; p->at++) {
        if (n == cap) {
            size_t more = cap ? cap * 2 : 8;
            one = more > MAX_ITEMS ? NULL
                                   : arena_grow(rules_arena(p->r), one, cap * sizeof *one,
                                                more * sizeof *one);
            if (!one) return bad(p, "it has too many alternatives");
            cap = more;
        }
        p->begins = begins;
        p->ended = false;
        status s = sequence(p, &one[n++]);
        if (s != OK) return s;
        ended |= p->ended;
        if (p->at == p->end || *p->at != '|') break;
    }
    p->begins = false;
    p->ended = ended;
    *out = rules_alt(p->r, one, n);
    return OK;
}

static status parse(rules *r, str text, bool search, rule *out, err *e) {
    parser p = {.r = r,
                .at = text.ptr,
                .begin = text.ptr,
                .end = text.ptr + text.len,
                .e = e,
                .search = search,
                .begins = true};
    status s = alternatives(&p, out);
    if (s == OK && p.at < p.end) s = bad(&p, "a group is closed that was not opened");
    return s;
}

status rules_regex(rules *r, str text, rule *out, err *e) {
    return parse(r, text, false, out, e);
}

status rules_regex_search(rules *r, str text, rule *out, err *e) {
    static const rule_range all = {0, SYMBOL_END};
    status s = parse(r, text, true, out, e);
    if (s != OK) return s;
    rule any = rules_repeat(r, rules_class(r, &all, 1), 0, RULE_UNBOUNDED);
    *out = rules_seq(r, (rule[]){any, *out, any}, 3);
    return OK;
}
