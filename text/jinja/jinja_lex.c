/* Template text to tokens, by the rules of jinja2's lexer with trim_blocks and lstrip_blocks.
 * Owns nothing; any thread. */
#include "text/jinja/jinja_tree.h"

#include "base/utf8.h"

typedef struct lexer {
    token_list *out;
    arena *a;
    err *e;
    str src;
    size_t at;
    size_t counted; /* src up to here has been counted into line */
    uint32_t line;
    char open[JINJA_MAX_DEPTH]; /* brackets within a tag */
    int n_open;
} lexer;

static char peek(const lexer *l, size_t k) {
    return l->at + k < l->src.len ? l->src.ptr[l->at + k] : '\0';
}
static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '_' || (unsigned char)c >= 0x80;
}
static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
/* Bytes of the white space at s[at]; 0 for none. */
static size_t space_at(str s, size_t at) {
    uint32_t cp;
    if (at >= s.len) return 0;
    int k = utf8_decode(s.ptr + at, s.len - at, &cp);
    return k > 0 && jinja_is_space(cp) ? (size_t)k : 0;
}
static void skip_space(lexer *l) {
    for (size_t k; (k = space_at(l->src, l->at)) > 0;) l->at += k;
}
static uint32_t line_at(lexer *l, size_t at) {
    for (; l->counted < at; l->counted++) l->line += l->src.ptr[l->counted] == '\n';
    return l->line;
}

static bool fail(lexer *l, size_t at, const char *what) {
    err_set(l->e, ERR_INVALID, "the chat template does not parse: %s, line %u", what,
            line_at(l, at));
    err_field(l->e, "chat_template");
    return false;
}

static bool push(lexer *l, token_kind kind, size_t at, str text) {
    token_list *t = l->out;
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 256;
        t->v = arena_grow(l->a, t->v, t->cap * sizeof *t->v, cap * sizeof *t->v);
        if (!t->v) {
            err_set(l->e, ERR_NO_MEMORY, "no memory to parse the chat template");
            return false;
        }
        t->cap = cap;
    }
    t->v[t->n++] = (token){kind, line_at(l, at), text};
    return true;
}

/* ---- text between tags ---- */

static size_t find_tag(const lexer *l) {
    for (size_t i = l->at; i + 1 < l->src.len; i++) {
        char c = l->src.ptr[i + 1];
        if (l->src.ptr[i] == '{' && (c == '%' || c == '{' || c == '#')) return i;
    }
    return l->src.len;
}

/* How much of text from..to stays before a tag with this sign; lstrip: the tag is no variable. */
static size_t text_end(const lexer *l, size_t from, size_t to, char sign, bool lstrip) {
    str s = l->src;
    size_t cut = to;
    if (sign != '-' && (sign == '+' || !lstrip)) return to;
    for (size_t i = from; i < to;) { /* cut: where the white space that ends the text begins */
        uint32_t cp;
        int k = utf8_decode(s.ptr + i, to - i, &cp);
        bool space = k > 0 && jinja_is_space(cp) && (sign == '-' || cp != '\n');
        if (!space) cut = to;
        if (space && cut == to) cut = i;
        i += k > 0 ? (size_t)k : 1;
    }
    if (sign == '-') return cut;
    bool line_start = cut == 0 || s.ptr[cut - 1] == '\n';
    return line_start ? cut : to;
}

/* The end of a block or comment tag whose two-character mark is at l->at. */
static void skip_end(lexer *l, char before) {
    l->at += 2;
    if (before == '-') skip_space(l);
    if (before != '-' && before != '+' && peek(l, 0) == '\n') l->at++;
}

static bool lex_comment(lexer *l) {
    size_t begin = l->at;
    l->at += 2 + (peek(l, 2) == '-' || peek(l, 2) == '+');
    size_t end = str_find(l->src, STR("#}"), l->at);
    if (end == SIZE_MAX) return fail(l, begin, "a comment has no end");
    char before = end > l->at ? l->src.ptr[end - 1] : '\0';
    l->at = end;
    skip_end(l, before);
    return true;
}

/* "{% raw %}" and its kin at `at`: where it ends, else 0. */
static size_t raw_tag(const lexer *l, size_t at, const char *word, char *sign, bool *strip) {
    str s = l->src;
    if (!str_starts((str){s.ptr + at, s.len - at}, STR("{%"))) return 0;
    at += 2;
    *sign = at < s.len ? s.ptr[at] : '\0';
    if (*sign == '-' || *sign == '+') at++;
    for (size_t k; (k = space_at(s, at)) > 0;) at += k;
    if (!str_starts((str){s.ptr + at, s.len - at}, str_of(word))) return 0;
    at += strlen(word);
    for (size_t k; (k = space_at(s, at)) > 0;) at += k;
    *strip = at < s.len && s.ptr[at] == '-';
    at += *strip;
    return str_starts((str){s.ptr + at, s.len - at}, STR("%}")) ? at + 2 : 0;
}

static bool lex_raw(lexer *l, size_t body, bool strip) {
    size_t begin = l->at, end;
    char sign = 0;
    bool strip_end = false;
    l->at = body;
    if (strip) skip_space(l);
    body = l->at;
    for (end = body; end < l->src.len; end++) {
        size_t after = raw_tag(l, end, "endraw", &sign, &strip_end);
        if (!after) continue;
        size_t to = text_end(l, body, end, sign, true);
        if (to > body && !push(l, T_DATA, body, (str){l->src.ptr + body, to - body}))
            return false;
        l->at = after - 2;
        skip_end(l, strip_end ? '-' : '\0');
        return true;
    }
    return fail(l, begin, "a raw block has no end");
}

/* ---- within a tag ---- */

static bool lex_string(lexer *l) {
    size_t begin = l->at;
    char quote = peek(l, 0);
    for (l->at++; l->at < l->src.len && peek(l, 0) != quote; l->at++)
        if (peek(l, 0) == '\\') l->at++;
    if (l->at >= l->src.len) return fail(l, begin, "a string has no end");
    l->at++;
    return push(l, T_STRING, begin, (str){l->src.ptr + begin, l->at - begin});
}

static void skip_digits(lexer *l) {
    while (is_digit(peek(l, 0)) || (peek(l, 0) == '_' && is_digit(peek(l, 1)))) l->at++;
}

static bool lex_number(lexer *l) {
    size_t begin = l->at;
    bool real = false, after_dot = begin > 0 && l->src.ptr[begin - 1] == '.';
    skip_digits(l);
    if (!after_dot && peek(l, 0) == '.' && is_digit(peek(l, 1))) {
        real = true;
        l->at++;
        skip_digits(l);
    }
    if (!after_dot && (peek(l, 0) == 'e' || peek(l, 0) == 'E')) {
        size_t sign = peek(l, 1) == '+' || peek(l, 1) == '-';
        if (is_digit(peek(l, 1 + sign))) {
            real = true;
            l->at += 1 + sign;
            skip_digits(l);
        }
    }
    if (is_word(peek(l, 0))) return fail(l, begin, "a number is malformed");
    return push(l, real ? T_FLOAT : T_INT, begin, (str){l->src.ptr + begin, l->at - begin});
}

static bool lex_operator(lexer *l) {
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    size_t begin = l->at, k = 1;
    char c = peek(l, 0);
    for (int i = 0; i < 6; i++)
        if (c == two[i][0] && peek(l, 1) == two[i][1]) k = 2;
    if (k == 1 && (c == '\0' || !strchr("+-/*%~[](){}<>=.:|,;", c)))
        return fail(l, begin, "an unexpected character");
    if (strchr("([{", c)) {
        if (l->n_open == JINJA_MAX_DEPTH)
            return fail(l, begin, "brackets are nested too deeply");
        l->open[l->n_open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (strchr(")]}", c)) {
        if (l->n_open == 0 || l->open[--l->n_open] != c)
            return fail(l, begin, "a bracket does not match");
    }
    l->at += k;
    return push(l, T_OP, begin, (str){l->src.ptr + begin, k});
}

/* Takes the end of a tag where there is one. */
static bool lex_tag_end(lexer *l, bool variable, bool *ended) {
    size_t begin = l->at;
    char c = peek(l, 0);
    size_t sign = c == '-' || (c == '+' && !variable);
    char first = variable ? '}' : '%';
    *ended = l->n_open == 0 && peek(l, sign) == first && peek(l, sign + 1) == '}';
    if (!*ended) return true;
    l->at += sign;
    if (variable) {
        l->at += 2;
        if (sign) skip_space(l);
    } else {
        skip_end(l, sign ? c : '\0');
    }
    return push(l, variable ? T_VAR_END : T_BLOCK_END, begin, STR(""));
}

static bool lex_tag(lexer *l, bool variable) {
    size_t begin = l->at;
    l->at += 2;
    if (peek(l, 0) == '-' || peek(l, 0) == '+') l->at++;
    if (!push(l, variable ? T_VAR_BEGIN : T_BLOCK_BEGIN, begin, STR(""))) return false;
    for (bool ended = false;;) {
        skip_space(l);
        if (l->at >= l->src.len) return fail(l, begin, "a tag has no end");
        if (!lex_tag_end(l, variable, &ended)) return false;
        if (ended) return true;
        char c = peek(l, 0);
        bool ok;
        if (is_digit(c)) {
            ok = lex_number(l);
        } else if (is_word(c)) {
            size_t from = l->at;
            while (is_word(peek(l, 0))) l->at++;
            ok = push(l, T_NAME, from, (str){l->src.ptr + from, l->at - from});
        } else {
            ok = c == '\'' || c == '"' ? lex_string(l) : lex_operator(l);
        }
        if (!ok) return false;
    }
}

static bool lex_all(lexer *l) {
    while (l->at < l->src.len) {
        size_t tag = find_tag(l), from = l->at, to = tag;
        char mark = tag < l->src.len ? l->src.ptr[tag + 1] : '\0';
        char sign = tag + 2 < l->src.len ? l->src.ptr[tag + 2] : '\0';
        if (mark)
            to = text_end(l, from, tag, sign == '-' || sign == '+' ? sign : ' ', mark != '{');
        if (to > from && !push(l, T_DATA, from, (str){l->src.ptr + from, to - from}))
            return false;
        l->at = tag;
        bool strip = false;
        size_t raw = mark == '%' ? raw_tag(l, tag, "raw", &sign, &strip) : 0;
        bool ok = !mark         ? true
                  : raw         ? lex_raw(l, raw, strip)
                  : mark == '#' ? lex_comment(l)
                                : lex_tag(l, mark == '{');
        if (!ok) return false;
    }
    return push(l, T_EOF, l->at, STR(""));
}

status jinja_lex(token_list *out, arena *a, str source, err *e) {
    lexer l = {.out = out, .a = a, .e = e, .src = source, .line = 1};
    return lex_all(&l) ? OK : e->code;
}
