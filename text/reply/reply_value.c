/* Values of calls as JSON. Owns nothing; any thread. */
#include "text/reply/reply_value.h"

#include "base/check.h"
#include "base/utf8.h"
#include "json/out.h"

enum { AT_VALUE, AT_KEY, AFTER_KEY, AFTER_VALUE, IN_STRING, IN_ESCAPE, IN_WORD, IN_MARK };

typedef enum step { TAKEN, AGAIN, ENDED, BAD } step; /* AGAIN: the byte in the new state */

void reply_value_begin(reply_value *v, value_flavour flavour, str mark) {
    CHECK(mark.len <= REPLY_MAX_WORD);
    *v = (reply_value){.flavour = flavour, .mark = mark, .state = AT_VALUE};
}

void reply_value_begin_arguments(reply_value *v, buf *out) {
    *v = (reply_value){.flavour = VALUE_PYTHON, .state = AT_KEY, .depth = 1, .open = "("};
    buf_addc(out, '{');
}

static bool is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}
static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '_' || c == '-' || c == '+' || c == '.' || c == '$' ||
           (c & 0x80 && c != '\xff');
}
static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static size_t digits(str s, size_t i) {
    while (i < s.len && is_digit(s.ptr[i])) i++;
    return i;
}

bool reply_is_number(str s) {
    size_t i = s.len && s.ptr[0] == '-', n = digits(s, i);
    if (n == i || (s.ptr[i] == '0' && n > i + 1)) return false;
    if (n < s.len && s.ptr[n] == '.') {
        i = n + 1, n = digits(s, i);
        if (n == i) return false;
    }
    if (n < s.len && (s.ptr[n] == 'e' || s.ptr[n] == 'E')) {
        i = n + 1;
        if (i < s.len && (s.ptr[i] == '+' || s.ptr[i] == '-')) i++;
        n = digits(s, i);
        if (n == i) return false;
    }
    return n == s.len;
}

static char top(const reply_value *v) {
    return v->depth ? v->open[v->depth - 1] : 0;
}

static step keep(reply_value *v, char c) {
    if (v->n_raw >= REPLY_MAX_WORD) return BAD;
    v->raw[v->n_raw++] = c;
    return TAKEN;
}

static void write_comma(reply_value *v, buf *out) {
    if (v->comma) buf_add(out, STR(", "));
    v->comma = false;
}

static step after_value(reply_value *v) {
    v->state = AFTER_VALUE;
    return v->depth ? TAKEN : ENDED;
}

static step open_level(reply_value *v, char bracket, buf *out) {
    if (v->depth == REPLY_MAX_NESTING) return BAD;
    write_comma(v, out);
    v->open[v->depth++] = bracket;
    buf_addc(out, bracket);
    v->state = bracket == '{' ? AT_KEY : AT_VALUE;
    return TAKEN;
}

/* A closing bracket, also where a comma stands before it. */
static step close_level(reply_value *v, char c, buf *out) {
    const char t = top(v);
    const bool list = t == '[', tuple = list && v->flavour == VALUE_PYTHON;
    if (!(t == '{' && c == '}') && !(list && c == ']') && !(tuple && c == ')') &&
        !(t == '(' && c == ')'))
        return BAD;
    v->comma = false;
    v->depth--;
    buf_addc(out, list ? ']' : '}');
    return after_value(v);
}

static step begin_string(reply_value *v, char quote, bool is_key, buf *out) {
    write_comma(v, out);
    buf_addc(out, '"');
    v->quote = (uint8_t)quote;
    v->is_key = is_key;
    v->n_raw = 0;
    v->state = IN_STRING;
    return TAKEN;
}

static step end_string(reply_value *v, buf *out) {
    buf_addc(out, '"');
    v->n_raw = 0;
    if (!v->is_key) return after_value(v);
    v->state = AFTER_KEY;
    return TAKEN;
}

static bool is_quote(const reply_value *v, char c) {
    return c == '"' || (c == '\'' && v->flavour == VALUE_PYTHON);
}

static step begin_word(reply_value *v, char c, bool is_key) {
    v->n_raw = 0;
    v->is_key = is_key;
    v->state = IN_WORD;
    return keep(v, c);
}

static step at_value(reply_value *v, char c, buf *out) {
    if (is_blank(c)) return TAKEN;
    if (c == '{') return open_level(v, '{', out);
    if (v->depth == 0) return c == 'n' || c == 'N' ? begin_word(v, c, false) : BAD;
    if (c == '[' || (c == '(' && v->flavour == VALUE_PYTHON)) return open_level(v, '[', out);
    if (c == ']' || c == ')') return top(v) == '[' ? close_level(v, c, out) : BAD;
    if (v->mark.len && c == v->mark.ptr[0]) {
        v->n_raw = 0;
        v->is_key = false;
        v->state = IN_MARK;
        return AGAIN;
    }
    if (is_quote(v, c)) return begin_string(v, c, false, out);
    return is_word(c) ? begin_word(v, c, false) : BAD;
}

static step at_key(reply_value *v, char c, buf *out) {
    if (is_blank(c)) return TAKEN;
    if (c == '}' || c == ')') return close_level(v, c, out);
    if (v->mark.len && c == v->mark.ptr[0]) {
        v->n_raw = 0;
        v->is_key = true;
        v->state = IN_MARK;
        return AGAIN;
    }
    if (top(v) == '{' && is_quote(v, c)) return begin_string(v, c, true, out);
    const bool bare = v->flavour == VALUE_BARE || top(v) == '(';
    return bare && is_word(c) ? begin_word(v, c, true) : BAD;
}

/* The mark before a string. */
static step in_mark(reply_value *v, char c, buf *out) {
    if (c != v->mark.ptr[v->n_raw]) return BAD;
    keep(v, c);
    return v->n_raw < v->mark.len ? TAKEN : begin_string(v, 0, v->is_key, out);
}

static step after_key(reply_value *v, char c, buf *out) {
    if (is_blank(c)) return TAKEN;
    if (c != (top(v) == '(' ? '=' : ':')) return BAD;
    buf_add(out, STR(": "));
    v->state = AT_VALUE;
    return TAKEN;
}

static step in_list(reply_value *v, char c, buf *out) {
    if (is_blank(c)) return TAKEN;
    if (c != ',') return close_level(v, c, out);
    v->comma = true;
    v->state = top(v) == '[' ? AT_VALUE : AT_KEY;
    return TAKEN;
}

/* A word as JSON has it; false: it is none. */
static bool write_word(str w, bool at_top, buf *out) {
    const bool none = str_eqz(w, "null") || str_eqz(w, "None");
    if (at_top) return none && buf_add(out, STR("{}"));
    if (none) return buf_add(out, STR("null"));
    if (str_eqz(w, "true") || str_eqz(w, "True")) return buf_add(out, STR("true"));
    if (str_eqz(w, "false") || str_eqz(w, "False")) return buf_add(out, STR("false"));
    return reply_is_number(w) && buf_add(out, w);
}

static step in_word(reply_value *v, char c, buf *out) {
    if (is_word(c)) return keep(v, c);
    const str w = {v->raw, v->n_raw};
    if (v->is_key) {
        write_comma(v, out);
        json_str(out, w);
        v->state = AFTER_KEY;
    } else {
        /* The comma leaves with the word, or not at all. */
        const size_t before = out->len;
        const bool comma = v->comma;
        write_comma(v, out);
        if (!write_word(w, v->depth == 0, out) && !out->failed) {
            out->len = before;
            v->comma = comma;
            return BAD;
        }
        v->state = AFTER_VALUE;
    }
    v->n_raw = 0;
    return v->depth ? AGAIN : ENDED;
}

static step in_string(reply_value *v, char c, buf *out) {
    if (v->quote) {
        if ((uint8_t)c == v->quote) return end_string(v, out);
        if (c == '\\') {
            v->state = IN_ESCAPE;
            v->n_raw = 0;
            return keep(v, c);
        }
        json_esc(out, (str){&c, 1});
        return TAKEN;
    }
    /* Between marks: a part of the closing one is kept; what turns out to be none is text. */
    keep(v, c);
    while (v->n_raw && memcmp(v->raw, v->mark.ptr, v->n_raw) != 0) {
        if (v->raw[0] == '\xff') return v->n_raw--, BAD; /* another special token */
        json_esc(out, (str){v->raw, 1});
        memmove(v->raw, v->raw + 1, --v->n_raw);
    }
    return v->n_raw == v->mark.len ? end_string(v, out) : TAKEN;
}

static bool is_hex(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static uint32_t hex_value(const char *s, size_t n) {
    uint32_t x = 0;
    for (size_t i = 0; i < n; i++)
        x = x * 16 + (uint32_t)(is_digit(s[i]) ? s[i] - '0' : (s[i] | 32) - 'a' + 10);
    return x;
}

/* \xhh and \Uhhhhhhhh of Python: the character. */
static void write_code(uint32_t cp, buf *out) {
    char c[4];
    if (cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000)) cp = 0xfffd;
    json_esc(out, (str){c, (size_t)utf8_encode(cp, c)});
}

/* Digits of the escape whose second byte is c; 0: it has none. */
static size_t escape_digits(const reply_value *v, char c) {
    if (c == 'u') return 4;
    if (v->flavour != VALUE_PYTHON) return 0;
    return c == 'x' ? 2 : c == 'U' ? 8 : 0;
}

/* An escape that is none in JSON: its bytes are text; \' is a quote. */
static step wrong_escape(reply_value *v, buf *out) {
    const size_t from = v->n_raw == 2 && v->raw[1] == '\'';
    json_esc(out, (str){v->raw + from, v->n_raw - from});
    v->n_raw = 0;
    v->state = IN_STRING;
    return TAKEN;
}

static step in_escape(reply_value *v, char c, buf *out) {
    if (v->n_raw == 1) {
        keep(v, c);
        if (escape_digits(v, c)) return TAKEN;
        if (!strchr("\"\\/bfnrt", c) || c == '\0') return wrong_escape(v, out);
        buf_add(out, (str){v->raw, 2});
    } else {
        const size_t n = escape_digits(v, v->raw[1]);
        if (!is_hex(c)) {
            wrong_escape(v, out);
            return AGAIN;
        }
        keep(v, c);
        if (v->n_raw < n + 2) return TAKEN;
        if (v->raw[1] == 'u')
            buf_add(out, (str){v->raw, 6});
        else
            write_code(hex_value(v->raw + 2, n), out);
    }
    v->n_raw = 0;
    v->state = IN_STRING;
    return TAKEN;
}

/* Bytes of a string that stand for themselves. */
static size_t plain_bytes(const reply_value *v, str s) {
    size_t i = 0;
    if (v->state != IN_STRING || !v->quote) return 0;
    for (; i < s.len; i++) {
        const char c = s.ptr[i];
        if ((unsigned char)c < 0x20 || c == '"' || c == '\'' || c == '\\' || c == 0x7f ||
            c == '\xff')
            break;
    }
    return i;
}

static step take(reply_value *v, char c, buf *out) {
    /* A special token within a value that is no mark of it. */
    if (c == '\xff' && v->state != IN_MARK && v->state != IN_WORD &&
        !(v->mark.len && v->mark.ptr[0] == '\xff'))
        return BAD;
    switch (v->state) {
    case AT_VALUE: return at_value(v, c, out);
    case AT_KEY: return at_key(v, c, out);
    case AFTER_KEY: return after_key(v, c, out);
    case AFTER_VALUE: return in_list(v, c, out);
    case IN_STRING: return in_string(v, c, out);
    case IN_ESCAPE: return in_escape(v, c, out);
    case IN_WORD: return in_word(v, c, out);
    default: return in_mark(v, c, out);
    }
}

value_result reply_value_push(reply_value *v, str s, size_t *taken, buf *out) {
    for (size_t i = 0; i < s.len;) {
        const size_t n = plain_bytes(v, (str){s.ptr + i, s.len - i});
        if (n) {
            buf_add(out, (str){s.ptr + i, n});
            i += n;
            continue;
        }
        const bool word = v->state == IN_WORD;
        step t = take(v, s.ptr[i], out);
        *taken = i;
        if (t == BAD) return VALUE_BAD;
        if (t != AGAIN && !(t == ENDED && word)) *taken = ++i;
        if (t == ENDED) return VALUE_DONE;
    }
    *taken = s.len;
    return VALUE_MORE;
}
