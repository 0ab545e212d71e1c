/* JSON strings: patterns, formats and lengths as automata over characters, and those as expressions
 * over the bytes of JSON. Any thread. */
#include <stdio.h>

#include "text/grammar/regex.h"
#include "text/grammar/schema_in.h"

enum { MANY = 700, BLOCK = 128 };

/* ---- automata ---- */

static status large(translator *t, const char *keyword, const char *text) {
    err_set(t->e, ERR_INVALID, "%s \"%.80s\" is too large to be enforced", keyword, text);
    return ERR_INVALID;
}

static status new_any(translator *t, dfa *out) {
    return dfa_any(out, 0, RULE_UNBOUNDED, &t->limits, t->mem, t->e);
}

status schema_combine(translator *t, dfa *a, dfa_op op, const dfa *b) {
    dfa out;
    status st = dfa_combine(&out, a, op, b, &t->limits, t->mem, t->e);
    if (st == OK) *a = out;
    return st;
}

status schema_pattern(translator *t, const json_t *pattern, dfa *out) {
    str text = json_in_text(pattern);
    rule root = RULE_NEVER;
    dfa d, any;
    err e;
    status st = rules_regex_search(t->r, text, &root, &e);
    if (st == ERR_INVALID || st == ERR_UNSUPPORTED) {
        err_set(t->e, ERR_UNSUPPORTED, "pattern \"%.80s\": %.200s", text.ptr, e.text);
        return ERR_UNSUPPORTED;
    }
    if (st != OK) return *t->e = e, st;
    st = dfa_build(&d, t->r, root, NULL, &t->limits, t->mem, t->e);
    if (st == ERR_INVALID) return large(t, "pattern", text.ptr);
    if (st == OK) st = dfa_strip(out, &d, t->mem, t->e);
    if (st == OK) st = new_any(t, &any);
    return st == OK ? schema_combine(t, out, DFA_AND, &any) : st;
}

status schema_contains(translator *t, str text, dfa *out) {
    buf b;
    buf_init(&b, t->mem);
    for (size_t i = 0; i < text.len; i++) {
        if (strchr("\\^$.|?*+()[]{}/", text.ptr[i])) buf_addc(&b, '\\');
        buf_addc(&b, text.ptr[i]);
    }
    const json_t *pattern = b.failed ? NULL : json_stringn(b.ptr, b.len);
    return pattern ? schema_pattern(t, pattern, out) : schema_no_memory(t);
}

#define YEAR "(?:[1-9]\\d{3}|0[1-9]\\d{2}|00[1-9]\\d|000[1-9])"
#define LEAP "(?:\\d{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
#define DAY                                                                                    \
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?" \
    ":0[1-9]|1\\d|2[0-8]))"
#define DATE   "(?:" YEAR "-" DAY "|" LEAP "-02-29)"
#define CLOCK  "(?:[01]\\d|2[0-3]):[0-5]\\d"
#define TIME   CLOCK ":[0-5]\\d(?:\\.\\d{1,6})?(?:Z|[+-]" CLOCK ")"
#define BYTE   "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define IPV4   "(?:" BYTE "\\.){3}" BYTE
#define H      "[0-9a-fA-F]"
#define H16    H "{1,4}"
#define LS32   "(?:" H16 ":" H16 "|" IPV4 ")"
#define LABEL  "[A-Za-z0-9]{1,20}(?:-[A-Za-z0-9]{1,20}){0,2}"
#define HOST   LABEL "(?:\\." LABEL "){0,3}"
#define PERIOD "(?:\\d{1,4}D|\\d{1,4}M(?:\\d{1,4}D)?|\\d{1,4}Y(?:\\d{1,4}M(?:\\d{1,4}D)?)?)"
#define SPAN   "T(?:\\d{1,4}S|\\d{1,4}M(?:\\d{1,4}S)?|\\d{1,4}H(?:\\d{1,4}M(?:\\d{1,4}S)?)?)"

/* RFC 3339, 4122, 4291, 5321, 1123: a part of each, all of it valid. Other formats are annotations.
 */
static const char *pattern_of_format(str name) {
    static const struct {
        const char *name, *pattern;
    } t[] = {
        {"date", DATE},
        {"time", TIME},
        {"date-time", DATE "T" TIME},
        {"duration", "P(?:\\d{1,4}W|" PERIOD "(?:" SPAN ")?|" SPAN ")"},
        {"uuid", H "{8}-" H "{4}-" H "{4}-" H "{4}-" H "{12}"},
        {"ipv4", IPV4},
        {"ipv6", "(?:(?:" H16 ":){6}" LS32 "|::(?:" H16 ":){5}" LS32 "|(?:" H16 ")?::(?:" H16
                 ":){4}" LS32 "|(?:(?:" H16 ":){0,1}" H16 ")?::(?:" H16 ":){3}" LS32
                 "|(?:(?:" H16 ":){0,2}" H16 ")?::(?:" H16 ":){2}" LS32 "|(?:(?:" H16
                 ":){0,3}" H16 ")?::" H16 ":" LS32 "|(?:(?:" H16 ":){0,4}" H16 ")?::" LS32
                 "|(?:(?:" H16 ":){0,5}" H16 ")?::" H16 "|(?:(?:" H16 ":){0,6}" H16 ")?::)"},
        {"email", "[A-Za-z0-9_+-]{1,20}(?:\\.[A-Za-z0-9_+-]{1,20}){0,2}@" HOST},
        {"hostname", HOST},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (str_eqz(name, t[i].name)) return t[i].pattern;
    return NULL;
}

static status format(translator *t, str name, dfa *out, bool *known) {
    const char *pattern = pattern_of_format(name);
    rule root;
    *known = pattern != NULL;
    if (!pattern) return OK;
    status st = rules_regex(t->r, str_of(pattern), &root, t->e);
    return st == OK ? dfa_build(out, t->r, root, NULL, &t->limits, t->mem, t->e) : st;
}

status schema_names_dfa(translator *t, const cell *names, dfa *out) {
    literals none = {0};
    uint32_t n = 0;
    for (const cell *c = names; c; c = c->next) n++;
    rule *one = arena_alloc(t->mem, n * sizeof *one + 1);
    (void)none;
    if (!one) return schema_no_memory(t);
    n = 0;
    for (const cell *c = names; c; c = c->next) one[n++] = rules_bytes(t->r, c->key);
    return dfa_build(out, t->r, rules_alt(t->r, one, n), NULL, &t->limits, t->mem, t->e);
}

/* Strings of the lists of excluded values. */
static status drop_values(translator *t, const shape *s, dfa *d) {
    cell *list = NULL;
    size_t i;
    json_t *v;
    for (const cell *c = s->not_values; c; c = c->next) json_array_foreach(c->v, i, v) {
            if (!json_is_string(v)) continue;
            cell *k = schema_cell(t, list);
            if (!k) return schema_no_memory(t);
            k->key = json_in_text(v);
            list = k;
        }
    dfa names;
    status st = schema_names_dfa(t, list, &names);
    return st == OK ? schema_combine(t, d, DFA_BUT, &names) : st;
}

static bool excludes_strings(const shape *s) {
    size_t i;
    json_t *v;
    for (const cell *c = s->not_values; c; c = c->next)
        json_array_foreach(c->v, i, v) if (json_is_string(v)) return true;
    return false;
}

status schema_string_dfa(translator *t, const shape *s, dfa *out, bool *plain) {
    bool known, any = excludes_strings(s);
    status st = new_any(t, out);
    dfa d;
    for (const cell *c = s->patterns; c && st == OK; c = c->next, any = true) {
        st = schema_pattern(t, c->v, &d);
        if (st == OK) st = schema_combine(t, out, DFA_AND, &d);
    }
    for (const cell *c = s->not_patterns; c && st == OK; c = c->next, any = true) {
        st = schema_pattern(t, c->v, &d);
        if (st == OK) st = schema_combine(t, out, DFA_BUT, &d);
    }
    for (const cell *c = s->formats; c && st == OK; c = c->next) {
        st = format(t, json_in_text(c->v), &d, &known);
        if (st == OK && known) st = schema_combine(t, out, DFA_AND, &d), any = true;
    }
    *plain = !any;
    if (st == OK && excludes_strings(s)) st = drop_values(t, s, out);
    if (st != OK || !any || (s->min_chars == 0 && s->max_chars == RULE_UNBOUNDED)) return st;
    st = dfa_any(&d, s->min_chars, s->max_chars, &t->limits, t->mem, t->e);
    return st == OK ? schema_combine(t, out, DFA_AND, &d) : st;
}

bool schema_string_fits(translator *t, const shape *s, str text, status *st) {
    dfa d;
    bool plain;
    uint32_t n = 0;
    for (size_t i = 0; i < text.len; i++) n += ((uint8_t)text.ptr[i] & 0xc0) != 0x80;
    if (n < s->min_chars || n > s->max_chars) return false;
    shape rest = *s; /* the length is known to fit */
    rest.min_chars = 0;
    rest.max_chars = RULE_UNBOUNDED;
    *st = schema_string_dfa(t, &rest, &d, &plain);
    return *st == OK && (plain || dfa_takes(&d, text));
}

/* ---- expressions over bytes ---- */

static rule text(translator *t, const char *z) {
    return rules_bytes(t->r, str_of(z));
}

static rule hex(translator *t, const char *ranges) { /* "09af": pairs */
    rule_range v[8];
    size_t n = 0;
    for (; ranges[2 * n]; n++)
        v[n] = (rule_range){(uint8_t)ranges[2 * n], (uint8_t)ranges[2 * n + 1]};
    return rules_class(t->r, v, n);
}

/* Any character but `but`, as it stands. */
static rule raw(translator *t, uint32_t lo, uint32_t hi) {
    static const rule_range ok[] = {{0x20, '!'}, {'#', '['}, {']', 0x10ffff}};
    rule_range v[3];
    size_t n = 0;
    for (int i = 0; i < 3; i++) {
        rule_range x = ok[i];
        if (x.lo < lo) x.lo = lo;
        if (x.hi > hi) x.hi = hi;
        if (x.lo <= x.hi) v[n++] = x;
    }
    return n ? rules_class(t->r, v, n) : RULE_NEVER;
}

/* One character of a string that nothing restricts: in every spelling that is one character. */
static rule plain_char(translator *t) {
    if (t->plain_char) return t->plain_char;
    static const rule_range short_form[] = {{'"', '"'}, {'/', '/'}, {'\\', '\\'}, {'b', 'b'},
                                            {'f', 'f'}, {'n', 'n'}, {'r', 'r'},   {'t', 't'}};
    rules *r = t->r;
    rule any = hex(t, "09afAF"), d = text(t, "d");
    d = rules_alt(r, (rule[]){d, text(t, "D")}, 2);
    rule low = hex(t, "07"), high = hex(t, "89abAB"), last = hex(t, "cfCF");
    rule other = hex(t, "09acefACEF");
    rule plane = rules_alt(
        r, (rule[]){rules_seq(r, (rule[]){other, any}, 2), rules_seq(r, (rule[]){d, low}, 2)},
        2);
    rule one = rules_seq(r, (rule[]){text(t, "u"), plane, any, any}, 4);
    rule pair = rules_seq(
        r, (rule[]){text(t, "u"), d, high, any, any, text(t, "\\u"), d, last, any, any}, 10);
    rule escaped = rules_alt(r, (rule[]){rules_class(r, short_form, 8), one, pair}, 3);
    t->plain_char = rules_alt(r,
                              (rule[]){raw(t, 0, SYMBOL_LAST_CHAR),
                                       rules_seq(r, (rule[]){text(t, "\\"), escaped}, 2)},
                              2);
    return t->plain_char;
}

/* So many characters: large counts by blocks, which are called and not copied. */
static rule many_chars(translator *t, uint32_t min, uint32_t max) {
    rules *r = t->r;
    rule c = plain_char(t), part[4];
    uint32_t more = max == RULE_UNBOUNDED ? 0 : max - min, n = 0;
    if (min <= MANY && (max == RULE_UNBOUNDED || max <= MANY))
        return rules_repeat(r, c, min, max);
    rule block = rules_declare(r);
    rules_define(r, block, rules_repeat(r, c, BLOCK, BLOCK));
    if (min >= BLOCK) part[n++] = rules_repeat(r, block, min / BLOCK, min / BLOCK);
    part[n++] = rules_repeat(r, c, min % BLOCK, min % BLOCK);
    if (max == RULE_UNBOUNDED) {
        part[n++] = rules_repeat(r, c, 0, RULE_UNBOUNDED);
    } else if (more < 2 * BLOCK) {
        part[n++] = rules_repeat(r, c, 0, more);
    } else { /* blocks and a rest that together make every count up to `more` */
        part[n++] = rules_repeat(r, block, 0, more / BLOCK - 1);
        part[n++] = rules_repeat(r, c, 0, BLOCK + more % BLOCK);
    }
    return rules_seq(r, part, n);
}

rule schema_plain_string(translator *t, uint32_t min, uint32_t max) {
    if (min > max) return RULE_NEVER;
    if (min == 0 && max == RULE_UNBOUNDED && t->plain_string) return t->plain_string;
    rule q = text(t, "\"");
    rule s = rules_seq(t->r, (rule[]){q, many_chars(t, min, max), q}, 3);
    if (min == 0 && max == RULE_UNBOUNDED) t->plain_string = s;
    return s;
}

/* How a character that must be escaped is written; 0: it need not be. */
static size_t escape(uint32_t c, char out[8]) {
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *k = c < 0x80 && c ? strchr(from, (int)c) : NULL;
    if (k) return (size_t)snprintf(out, 8, "\\%c", to[k - from]);
    return c < 0x20 ? (size_t)snprintf(out, 8, "\\u%04x", c) : 0;
}

/* The characters lo ... hi, each in one spelling, or control characters in several. */
static rule json_chars(translator *t, uint32_t lo, uint32_t hi) {
    rule v[36];
    size_t n = 0;
    char out[8];
    v[n++] = raw(t, lo, hi);
    if (lo == 0 && hi >= 0x1f) {
        static const rule_range short_form[] = {
            {'b', 'b'}, {'f', 'f'}, {'n', 'n'}, {'r', 'r'}, {'t', 't'}};
        rule code =
            rules_seq(t->r, (rule[]){text(t, "u00"), hex(t, "01"), hex(t, "09afAF")}, 3);
        rule any = rules_alt(t->r, (rule[]){rules_class(t->r, short_form, 5), code}, 2);
        v[n++] = rules_seq(t->r, (rule[]){text(t, "\\"), any}, 2);
        lo = 0x20;
    }
    for (uint32_t c = lo; c <= hi && c <= '\\'; c++) {
        size_t len = escape(c, out);
        if (len) v[n++] = rules_bytes(t->r, (str){out, len});
    }
    return rules_alt(t->r, v, n);
}

rule schema_string_rule(translator *t, const dfa *d) {
    uint32_t n = d->n ? d->first[d->n] : 0, k = 0;
    rule_edge *edge = arena_alloc(t->mem, n * sizeof *edge + 1);
    if (!edge) return RULE_NEVER;
    rule last = RULE_NEVER;
    uint32_t lo = 1, hi = 0;
    for (uint32_t q = 0; q < d->n; q++)
        for (uint32_t i = d->first[q]; i < d->first[q + 1]; i++) {
            if (d->edge[i].lo != lo || d->edge[i].hi != hi || !last)
                last = json_chars(t, lo = d->edge[i].lo, hi = d->edge[i].hi);
            edge[k++] = (rule_edge){q, d->edge[i].to, last};
        }
    rule q = text(t, "\"");
    return rules_seq(t->r, (rule[]){q, rules_graph(t->r, d->n, d->final, edge, n), q}, 3);
}

/* The bytes of a text, or a sequence: the mark is of the first. */
rule schema_behind_mark(translator *t, rule string) {
    const rule_node *n = &t->r->node[string];
    if (n->kind == RULE_BYTES)
        return rules_bytes(t->r, (str){n->u.bytes.ptr + 1, n->u.bytes.len - 1});
    return n->kind == RULE_SEQ && n->n ? rules_seq(t->r, n->u.kid + 1, n->n - 1) : RULE_NEVER;
}

rule schema_text_rule(translator *t, str s) {
    buf b;
    char out[8];
    buf_init(&b, t->mem);
    buf_addc(&b, '"');
    for (size_t i = 0; i < s.len; i++) {
        size_t n = escape((uint8_t)s.ptr[i], out);
        buf_add(&b, n ? (str){out, n} : (str){s.ptr + i, 1});
    }
    buf_addc(&b, '"');
    return b.failed ? RULE_NEVER : rules_bytes(t->r, buf_str(&b));
}
