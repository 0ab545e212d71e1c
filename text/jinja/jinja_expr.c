/* Expressions of a template: tokens to nodes, with jinja2's precedence. Owns nothing. */
#include "text/jinja/jinja_parse_in.h"

#include <errno.h>
#include <stdlib.h>

#include "base/utf8.h"

/* ---- literals ---- */

static node *constant(parser *p, jv v) {
    node *n = parse_node(p, N_CONST);
    if (n) n->value = v;
    return n ? parse_seal(p, n) : NULL;
}

static node *string_node(parser *p, str s) {
    jstr *text = parse_alloc(p, sizeof *text);
    if (!text) return NULL;
    *text = (jstr){.p = s.ptr, .n = s.len, .n_chars = utf8_chars(s)};
    return constant(p, (jv){.kind = JV_STR, .s = text});
}

static int hex_value(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}
/* \x, \u, \U with n digits at s[*at]; false when they are not there. */
static bool escape_number(str s, size_t *at, int n, uint32_t *cp) {
    *cp = 0;
    for (int i = 0; i < n; i++) {
        int d = *at < s.len ? hex_value(s.ptr[*at]) : -1;
        if (d < 0) return false;
        *cp = *cp * 16 + (uint32_t)d;
        ++*at;
    }
    return *cp < 0xd800 || (*cp >= 0xe000 && *cp <= 0x10ffff);
}

/* One escape after its backslash. False: malformed. */
static bool unescape(str s, size_t *at, char *out, size_t *n) {
    static const char from[] = "nrtabfv\\'\"", to[] = "\n\r\t\a\b\f\v\\'\"";
    char c = s.ptr[(*at)++];
    const char *known = strchr(from, c);
    uint32_t cp;
    if (known && c) {
        out[(*n)++] = to[known - from];
        return true;
    }
    if (c == '\n') return true;
    if (c == 'x' || c == 'u' || c == 'U') {
        if (!escape_number(s, at, c == 'x' ? 2 : c == 'u' ? 4 : 8, &cp)) return false;
    } else if (c >= '0' && c <= '7') {
        cp = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && *at < s.len && s.ptr[*at] >= '0' && s.ptr[*at] <= '7'; i++)
            cp = cp * 8 + (uint32_t)(s.ptr[(*at)++] - '0');
    } else {
        out[(*n)++] = '\\';
        out[(*n)++] = c;
        return true;
    }
    *n += (size_t)utf8_encode(cp, out + *n);
    return true;
}

/* Adjacent literals are one string. */
static node *parse_string(parser *p) {
    size_t cap = 0, n = 0;
    const token *first = p->t;
    for (const token *t = first; t->kind == T_STRING; t++) cap += t->text.len + 4;
    char *out = parse_alloc(p, cap);
    if (!out) return NULL;
    for (; p->t->kind == T_STRING; p->t++) {
        str s = {p->t->text.ptr + 1, p->t->text.len - 2};
        for (size_t i = 0; i < s.len;) {
            if (s.ptr[i] != '\\' || i + 1 >= s.len) {
                out[n++] = s.ptr[i++];
                continue;
            }
            i++;
            if (!unescape(s, &i, out, &n))
                return parse_fail(p, p->t->line, "an escape in a string is malformed");
        }
    }
    if (!utf8_valid((str){out, n}))
        return parse_fail(p, first->line, "a string is not valid UTF-8");
    return string_node(p, (str){out, n});
}

static node *parse_number(parser *p) {
    str s = p->t->text;
    char *digits = parse_alloc(p, s.len + 1);
    size_t n = 0;
    if (!digits) return NULL;
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] != '_') digits[n++] = s.ptr[i];
    bool real = p->t->kind == T_FLOAT;
    p->t++;
    if (real) return constant(p, jv_float(strtod(digits, NULL)));
    errno = 0;
    long long i = strtoll(digits, NULL, 10);
    if (errno == 0) return constant(p, jv_int(i));
    node *big = string_node(p, (str){digits, n});
    if (big) big->value.kind = JV_BIG;
    return big;
}

/* ---- primaries ---- */

static node *parse_list_of(parser *p, node_kind kind, const char *close) {
    node *n = parse_node(p, kind);
    node_list l = {0};
    if (!n) return NULL;
    for (p->t++; !at_op(p, close);) {
        if (!parse_push(p, &l, parse_expression(p))) return NULL;
        if (kind == N_DICT &&
            (!parse_expect_op(p, ":") || !parse_push(p, &l, parse_expression(p))))
            return NULL;
        if (!at_op(p, close) && !parse_expect_op(p, ",")) return NULL;
    }
    p->t++;
    n->kid = l.v;
    n->n_kids = l.n;
    return parse_seal(p, n);
}

static bool tuple_ends(const parser *p, const char *end) {
    return p->t->kind == T_VAR_END || p->t->kind == T_BLOCK_END || at_op(p, ")") ||
           (end && at_name(p, end));
}

static node *parse_or(parser *);

static node *tuple_of(parser *p, bool inline_if, bool parentheses, const char *end) {
    node_list l = {0};
    bool is_tuple = false;
    for (;;) {
        if (l.n && !at_op(p, ",")) break;
        if (l.n) is_tuple = true, p->t++;
        if (tuple_ends(p, end)) break;
        if (!parse_push(p, &l, inline_if ? parse_expression(p) : parse_or(p))) return NULL;
    }
    if (!is_tuple && l.n) return l.v[0];
    if (!is_tuple && !parentheses) return parse_fail(p, p->t->line, "an expression is missing");
    node *n = parse_node(p, N_TUPLE);
    if (!n) return NULL;
    n->kid = l.v;
    n->n_kids = l.n;
    return parse_seal(p, n);
}

node *parse_tuple(parser *p, bool inline_if, const char *end) {
    return tuple_of(p, inline_if, false, end);
}

static node *parse_name(parser *p) {
    static const struct {
        const char *word;
        jv value;
    } words[] = {{"true", {.kind = JV_BOOL, .b = true}},
                 {"True", {.kind = JV_BOOL, .b = true}},
                 {"false", {.kind = JV_BOOL, .b = false}},
                 {"False", {.kind = JV_BOOL, .b = false}},
                 {"none", {.kind = JV_NONE}},
                 {"None", {.kind = JV_NONE}}};
    str name = p->t->text;
    p->t++;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (str_eqz(name, words[i].word)) return constant(p, words[i].value);
    node *n = parse_node(p, N_NAME);
    if (!n || !parse_symbol(p, name, &n->symbol)) return NULL;
    n->text = name;
    if (p->macro && str_eqz(name, "varargs")) p->macro->takes_varargs = true;
    if (p->macro && str_eqz(name, "kwargs")) p->macro->takes_kwargs = true;
    return parse_seal(p, n);
}

static node *parse_primary(parser *p) {
    const token *t = p->t;
    if (t->kind == T_NAME) return parse_name(p);
    if (t->kind == T_STRING) return parse_string(p);
    if (t->kind == T_INT || t->kind == T_FLOAT) return parse_number(p);
    if (at_op(p, "[")) return parse_list_of(p, N_LIST, "]");
    if (at_op(p, "{")) return parse_list_of(p, N_DICT, "}");
    if (at_op(p, "(")) {
        p->t++;
        node *n = tuple_of(p, true, true, NULL);
        return n && parse_expect_op(p, ")") ? n : NULL;
    }
    if (t->kind == T_OP || t->kind == T_NAME)
        return parse_fail(p, t->line, "an unexpected \"" STR_FMT "\"", STR_ARG(t->text));
    return parse_fail(p, t->line, "an expression is missing");
}

/* ---- what follows a primary ---- */

static bool parse_args(parser *p, arg_nodes *out) {
    node_list l = {0};
    str *name = NULL;
    size_t cap = 0;
    if (!parse_expect_op(p, "(")) return false;
    while (!at_op(p, ")")) {
        if (l.n && !parse_expect_op(p, ",")) return false;
        if (at_op(p, ")")) break;
        if (at_op(p, "*") || at_op(p, "**"))
            return parse_fail(p, p->t->line, "arguments with * are not supported");
        str by = {0};
        const token *next = p->t + 1;
        if (p->t->kind == T_NAME && next->kind == T_OP && str_eqz(next->text, "=")) {
            by = p->t->text;
            p->t += 2;
        } else if (l.n && name[l.n - 1].ptr) {
            return parse_fail(p, p->t->line, "an argument by position follows one by name");
        }
        if (l.n == cap) {
            size_t more = cap ? cap * 2 : 4;
            name = arena_grow(p->a, name, cap * sizeof *name, more * sizeof *name);
            cap = more;
            if (!name) return parse_no_memory(p);
        }
        name[l.n] = by;
        if (!parse_push(p, &l, parse_expression(p))) return false;
    }
    p->t++;
    *out = (arg_nodes){l.v, name, l.n};
    return true;
}

static node *parse_call(parser *p, node *callee) {
    node *n = parse_node(p, N_CALL);
    if (!n || !parse_args(p, &n->args)) return NULL;
    n->a = callee;
    return parse_seal(p, n);
}

static bool loop_part_refused(const node *of, str name) {
    static const char *const parts[] = {"cycle", "changed", "depth", "depth0"};
    if (of->kind != N_NAME || !str_eqz(of->text, "loop")) return false;
    for (int i = 0; i < 4; i++)
        if (str_eqz(name, parts[i])) return true;
    return false;
}

static const jname *attribute_name(parser *p, str text) {
    jname *name = parse_alloc(p, sizeof *name);
    if (name) *name = jinja_name(text);
    return name;
}

static node *parse_dot(parser *p, node *of) {
    const token *t = p->t;
    if (t->kind == T_INT) {
        node *n = parse_node(p, N_ITEM);
        if (!n || !(n->b = parse_number(p))) return NULL;
        n->a = of;
        return parse_seal(p, n);
    }
    if (t->kind != T_NAME) return parse_fail(p, t->line, "a name is missing after \".\"");
    if (loop_part_refused(of, t->text))
        return parse_fail(p, t->line, "loop." STR_FMT " is not supported", STR_ARG(t->text));
    node *n = parse_node(p, N_ATTR);
    if (!n || !(n->name = attribute_name(p, t->text))) return NULL;
    n->part = (uint8_t)jinja_loop_part(t->text);
    p->t++;
    n->a = of;
    return parse_seal(p, n);
}

static node *parse_brackets(parser *p, node *of) {
    node *n = parse_node(p, N_ITEM), *part[3] = {0};
    int at = 0;
    if (!n) return NULL;
    for (; !at_op(p, "]");) {
        if (at_op(p, ":")) {
            if (++at == 3) return parse_fail(p, p->t->line, "a slice has too many parts");
            p->t++;
        } else if (at_op(p, ",")) {
            return parse_fail(p, p->t->line, "an index of several parts is not supported");
        } else if (part[at]) {
            return parse_fail(p, p->t->line, "\"]\" is missing");
        } else if (!(part[at] = parse_expression(p))) {
            return NULL;
        }
    }
    p->t++;
    n->a = of;
    if (at == 0) {
        n->b = part[0];
        if (!n->b) return parse_fail(p, p->t->line, "an index is missing");
        if (n->b->kind != N_CONST || n->b->value.kind != JV_STR) return parse_seal(p, n);
        n->name = attribute_name(p, jstr_text(n->b->value.s));
        return n->name ? parse_seal(p, n) : NULL;
    }
    n->kind = N_SLICE;
    n->kid = parse_alloc(p, sizeof part);
    if (!n->kid) return NULL;
    memcpy(n->kid, part, sizeof part);
    n->n_kids = 3;
    return parse_seal(p, n);
}

static node *parse_postfix(parser *p, node *n) {
    while (n) {
        if (at_op(p, ".")) {
            p->t++;
            n = parse_dot(p, n);
        } else if (at_op(p, "[")) {
            p->t++;
            n = parse_brackets(p, n);
        } else if (at_op(p, "(")) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    return n;
}

static node *parse_filter(parser *p, node *value) {
    const token *t = p->t;
    if (t->kind != T_NAME) return parse_fail(p, t->line, "the name of a filter is missing");
    node *n = parse_node(p, N_FILTER);
    if (!n) return NULL;
    p->t++;
    n->a = value;
    n->text = t->text;
    n->fn = jinja_filter_find(t->text);
    if (!n->fn)
        return parse_fail(p, t->line, "the filter \"" STR_FMT "\" is not supported",
                          STR_ARG(t->text));
    if (at_op(p, "(") && !parse_args(p, &n->args)) return NULL;
    return parse_seal(p, n);
}

node *parse_filters(parser *p, node *value, bool first_without_pipe) {
    node *n = first_without_pipe ? parse_filter(p, value) : value;
    bool any = first_without_pipe;
    while (at_op(p, "|") && (n || !any)) {
        p->t++;
        n = parse_filter(p, n);
        any = true;
        if (!n) break;
    }
    return n;
}

static bool begins_argument(const parser *p) {
    switch (p->t->kind) {
    case T_NAME: return !at_name(p, "else") && !at_name(p, "or") && !at_name(p, "and");
    case T_STRING:
    case T_INT:
    case T_FLOAT: return true;
    default: return at_op(p, "[") || at_op(p, "{");
    }
}

static node *parse_test(parser *p, node *value) {
    bool negated = at_name(p, "not");
    p->t += negated;
    const token *t = p->t;
    if (t->kind != T_NAME) return parse_fail(p, t->line, "the name of a test is missing");
    node *n = parse_node(p, N_TEST);
    if (!n) return NULL;
    p->t++;
    n->a = value;
    n->fn = jinja_test_find(t->text);
    if (!n->fn)
        return parse_fail(p, t->line, "the test \"" STR_FMT "\" is not supported",
                          STR_ARG(t->text));
    if (at_op(p, "(")) {
        if (!parse_args(p, &n->args)) return NULL;
    } else if (begins_argument(p)) {
        if (at_name(p, "is")) return parse_fail(p, t->line, "tests cannot be chained with is");
        node_list l = {0};
        str *no_name = parse_alloc(p, sizeof *no_name);
        if (!no_name || !parse_push(p, &l, parse_postfix(p, parse_primary(p)))) return NULL;
        n->args = (arg_nodes){l.v, no_name, 1};
    }
    n = parse_seal(p, n);
    if (!negated || !n) return n;
    node *no = parse_node(p, N_NOT);
    if (!no) return NULL;
    no->a = n;
    return parse_seal(p, no);
}

/* ---- operators ---- */

static node *binary(parser *p, node_kind kind, op_kind op, node *a, node *b) {
    if (!a || !b) return NULL;
    node *n = parse_node(p, kind);
    if (!n) return NULL;
    n->op = (uint8_t)op;
    n->a = a;
    n->b = b;
    n->line = a->line;
    return parse_seal(p, n);
}

static node *parse_unary(parser *p, bool with_filter) {
    node *n;
    if (!parse_enter(p)) return NULL;
    if (at_op(p, "-") || at_op(p, "+")) {
        node *sign = parse_node(p, at_op(p, "-") ? N_NEG : N_POS);
        p->t++;
        if (!sign || !(sign->a = parse_unary(p, false))) return NULL;
        n = parse_seal(p, sign);
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    while (n && with_filter) {
        if (at_op(p, "|")) {
            p->t++;
            n = parse_filter(p, n);
        } else if (at_name(p, "is")) {
            p->t++;
            n = parse_test(p, n);
        } else if (at_op(p, "(")) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    p->depth--;
    return n;
}

static node *parse_product(parser *p) {
    node *n = parse_unary(p, true);
    while (n && p->t->kind == T_OP) {
        if (at_op(p, "**") || at_op(p, "//"))
            return parse_fail(p, p->t->line, "the operator " STR_FMT " is not supported",
                              STR_ARG(p->t->text));
        if (!at_op(p, "*") && !at_op(p, "/") && !at_op(p, "%")) break;
        op_kind op = at_op(p, "*") ? OP_MUL : at_op(p, "/") ? OP_DIV : OP_MOD;
        p->t++;
        n = binary(p, N_BINARY, op, n, parse_unary(p, true));
    }
    return n;
}
static node *parse_concat(parser *p) {
    node *n = parse_product(p);
    while (n && at_op(p, "~")) {
        p->t++;
        n = binary(p, N_BINARY, OP_CONCAT, n, parse_product(p));
    }
    return n;
}
static node *parse_sum(parser *p) {
    node *n = parse_concat(p);
    while (n && (at_op(p, "+") || at_op(p, "-"))) {
        op_kind op = at_op(p, "+") ? OP_ADD : OP_SUB;
        p->t++;
        n = binary(p, N_BINARY, op, n, parse_concat(p));
    }
    return n;
}

static bool comparison(parser *p, op_kind *op) {
    static const struct {
        const char *sign;
        op_kind op;
    } signs[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<", OP_LT},
                 {"<=", OP_LE}, {">", OP_GT},  {">=", OP_GE}};
    for (int i = 0; i < 6; i++)
        if (at_op(p, signs[i].sign)) {
            *op = signs[i].op;
            p->t++;
            return true;
        }
    bool negated = at_name(p, "not") && p->t[1].kind == T_NAME && str_eqz(p->t[1].text, "in");
    if (!negated && !at_name(p, "in")) return false;
    *op = negated ? OP_NOT_IN : OP_IN;
    p->t += 1 + negated;
    return true;
}
static node *parse_compare(parser *p) {
    op_kind op;
    node *n = parse_sum(p);
    if (!n || !comparison(p, &op)) return n;
    n = binary(p, N_BINARY, op, n, parse_sum(p));
    if (n && comparison(p, &op))
        return parse_fail(p, p->t->line, "chained comparisons are not supported");
    return n;
}
static node *parse_not(parser *p) {
    if (!at_name(p, "not")) return parse_compare(p);
    if (!parse_enter(p)) return NULL;
    node *n = parse_node(p, N_NOT);
    p->t++;
    if (!n || !(n->a = parse_not(p))) return NULL;
    p->depth--;
    return parse_seal(p, n);
}
static node *parse_and(parser *p) {
    node *n = parse_not(p);
    while (n && at_name(p, "and")) {
        p->t++;
        n = binary(p, N_AND, OP_ADD, n, parse_not(p));
    }
    return n;
}
static node *parse_or(parser *p) {
    node *n = parse_and(p);
    while (n && at_name(p, "or")) {
        p->t++;
        n = binary(p, N_OR, OP_ADD, n, parse_and(p));
    }
    return n;
}

node *parse_expression(parser *p) {
    if (!parse_enter(p)) return NULL;
    node *n = parse_or(p);
    while (n && at_name(p, "if")) {
        node *choice = parse_node(p, N_IF_EXPR);
        p->t++;
        if (!choice || !(choice->b = parse_or(p))) return NULL;
        choice->a = n;
        if (at_name(p, "else")) {
            p->t++;
            if (!(choice->c = parse_expression(p))) return NULL;
        }
        n = parse_seal(p, choice);
    }
    p->depth--;
    return n;
}

/* ---- targets ---- */

static node *target_name(parser *p) {
    const token *t = p->t;
    if (t->kind != T_NAME) return parse_fail(p, t->line, "a name to assign to is missing");
    node *n = parse_name(p);
    if (n && n->kind != N_NAME)
        return parse_fail(p, t->line, "cannot assign to " STR_FMT, STR_ARG(t->text));
    return n;
}

node *parse_target(parser *p, bool attributes, const char *end) {
    node_list l = {0};
    bool is_tuple = false, parentheses = at_op(p, "(");
    if (attributes && p->t->kind == T_NAME && p->t[1].kind == T_OP &&
        str_eqz(p->t[1].text, ".") && p->t[2].kind == T_NAME) {
        node *n = parse_node(p, N_ATTR);
        if (!n || !parse_symbol(p, p->t->text, &n->symbol)) return NULL;
        if (!(n->name = attribute_name(p, p->t[2].text))) return NULL;
        p->t += 3;
        return parse_seal(p, n);
    }
    p->t += parentheses;
    while (!(l.n && tuple_ends(p, end)) && !(l.n && at_op(p, "="))) {
        if (!parse_push(p, &l, target_name(p))) return NULL;
        if (!at_op(p, ",")) break;
        is_tuple = true;
        p->t++;
    }
    if (parentheses && !parse_expect_op(p, ")")) return NULL;
    if (!is_tuple) return l.v[0];
    node *n = parse_node(p, N_TUPLE);
    if (!n) return NULL;
    n->kid = l.v;
    n->n_kids = l.n;
    return parse_seal(p, n);
}
