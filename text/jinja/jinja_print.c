/* Values as text, as Python prints them: alone, within a list, as JSON, and by "%". Owns
 * nothing; any thread. */
#include "text/jinja/jinja_value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/digits.h"
#include "base/utf8.h"

/* ---- floats ---- */

void jinja_float_text(double d, char *out) {
    char digits[DIGITS_MAX + 1];
    if (isnan(d) || isinf(d)) {
        snprintf(out, JINJA_FLOAT_TEXT, "%s", isnan(d) ? "nan" : d < 0 ? "-inf" : "inf");
        return;
    }
    const int exponent = digits_shortest(d, digits), n = (int)strlen(digits);
    const char *sign = signbit(d) ? "-" : "";
    if (exponent < -4 || exponent >= 16)
        snprintf(out, JINJA_FLOAT_TEXT, "%s%c%s%se%c%02d", sign, digits[0], n > 1 ? "." : "",
                 digits + 1, exponent < 0 ? '-' : '+', abs(exponent));
    else if (exponent < 0)
        snprintf(out, JINJA_FLOAT_TEXT, "%s0.%.*s%s", sign, -exponent - 1, "0000", digits);
    else if (n <= exponent + 1)
        snprintf(out, JINJA_FLOAT_TEXT, "%s%s%.*s.0", sign, digits, exponent + 1 - n,
                 "0000000000000000");
    else
        snprintf(out, JINJA_FLOAT_TEXT, "%s%.*s.%s", sign, exponent + 1, digits,
                 digits + exponent + 1);
}

/* ---- repr ---- */

static bool repr_char(jinja *j, sbuf *b, uint32_t cp, const char *p, size_t k, char quote,
                      bool data) {
    char esc[12];
    if (cp == '\\' || cp == (uint32_t)quote)
        snprintf(esc, sizeof esc, "\\%c", (char)cp);
    else if (cp == '\n' || cp == '\r' || cp == '\t')
        snprintf(esc, sizeof esc, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
    else if (jinja_is_printable(cp))
        return sbuf_add(j, b, p, k, data);
    else
        snprintf(esc, sizeof esc,
                 cp < 0x100     ? "\\x%02x"
                 : cp < 0x10000 ? "\\u%04x"
                                : "\\U%08x",
                 cp);
    return sbuf_add(j, b, esc, strlen(esc), data);
}

static bool repr_string(jinja *j, sbuf *b, const jstr *s) {
    bool single = s->n && memchr(s->p, '\'', s->n), twofold = s->n && memchr(s->p, '"', s->n);
    char quote = single && !twofold ? '"' : '\'';
    bool data = jstr_any_data(s);
    sbuf_add(j, b, &quote, 1, data);
    for (size_t i = 0; i < s->n && !j->failed;) {
        uint32_t cp = (unsigned char)s->p[i];
        int k = utf8_decode(s->p + i, s->n - i, &cp);
        k = k > 0 ? k : 1;
        repr_char(j, b, cp, s->p + i, (size_t)k, quote, jstr_data_at(s, i));
        i += (size_t)k;
    }
    return sbuf_add(j, b, &quote, 1, data);
}

static bool repr_items(jinja *j, sbuf *b, const jlist *l, const char *open, const char *close,
                       int depth) {
    sbuf_addz(j, b, open);
    for (size_t i = 0; i < l->n && !j->failed; i++) {
        if (i) sbuf_addz(j, b, ", ");
        jv_repr(j, b, l->v[i], depth + 1);
    }
    return sbuf_addz(j, b, close);
}
static bool repr_dict(jinja *j, sbuf *b, const jdict *d, int depth) {
    sbuf_addz(j, b, "{");
    for (size_t i = 0; i < d->n && !j->failed; i++) {
        if (i) sbuf_addz(j, b, ", ");
        jv_repr(j, b, d->v[i].key, depth + 1);
        sbuf_addz(j, b, ": ");
        jv_repr(j, b, d->v[i].value, depth + 1);
    }
    return sbuf_addz(j, b, "}");
}

static bool repr_list(jinja *j, sbuf *b, jv v, int depth) {
    char text[96];
    const jlist *l = v.l;
    static const char *const views[] = {[LOOK_ITEMS] = "dict_items([",
                                        [LOOK_KEYS] = "dict_keys([",
                                        [LOOK_VALUES] = "dict_values(["};
    if (v.kind == JV_TUPLE) return repr_items(j, b, l, "(", l->n == 1 ? ",)" : ")", depth);
    if (l->look == LOOK_LIST) return repr_items(j, b, l, "[", "]", depth);
    if (l->look == LOOK_GEN) return jinja_fail(j, "a generator cannot be printed");
    if (l->look != LOOK_RANGE) return repr_items(j, b, l, views[l->look], "])", depth);
    if (l->n > 1 && l->v[1].i - l->v[0].i != 1)
        return jinja_fail(j, "a range with a step cannot be printed");
    int64_t from = l->n ? l->v[0].i : 0;
    snprintf(text, sizeof text, "range(%lld, %lld)", (long long)from,
             (long long)(from + (int64_t)l->n));
    return sbuf_addz(j, b, text);
}

bool jv_repr(jinja *j, sbuf *b, jv v, int depth) {
    char text[JINJA_FLOAT_TEXT + 4];
    if (depth > JINJA_MAX_NESTING) return jinja_limit(j, "values are nested too deeply");
    if (!jinja_walk(j, 16)) return false;
    switch (v.kind) {
    case JV_UNDEF: return sbuf_addz(j, b, "Undefined");
    case JV_NONE: return sbuf_addz(j, b, "None");
    case JV_BOOL: return sbuf_addz(j, b, v.b ? "True" : "False");
    case JV_INT:
        snprintf(text, sizeof text, "%lld", (long long)v.i);
        return sbuf_addz(j, b, text);
    case JV_FLOAT: jinja_float_text(v.d, text); return sbuf_addz(j, b, text);
    case JV_BIG: return sbuf_str(j, b, v.s);
    case JV_STR: return repr_string(j, b, v.s);
    case JV_LIST:
    case JV_TUPLE:
    case JV_ITER: return repr_list(j, b, v, depth);
    case JV_DICT: return repr_dict(j, b, v.o, depth);
    case JV_SPACE:
        sbuf_addz(j, b, "<Namespace ");
        repr_dict(j, b, &v.ns->vars, depth);
        return sbuf_addz(j, b, ">");
    default: return jinja_fail(j, "a %s cannot be printed", jv_type(v));
    }
}

bool jv_print(jinja *j, sbuf *b, jv v) {
    if (v.kind == JV_STR) return sbuf_str(j, b, v.s);
    if (v.kind == JV_UNDEF) return !j->failed;
    return jv_repr(j, b, v, 0);
}

const jstr *jv_text(jinja *j, jv v) {
    if (v.kind == JV_STR) return v.s;
    sbuf b;
    sbuf_init(&b);
    if (!jv_print(j, &b, v)) return NULL;
    jv s = sbuf_value(j, &b);
    return s.kind == JV_STR ? s.s : NULL;
}

/* ---- JSON ---- */

typedef struct dumper {
    jinja *j;
    sbuf *b;
    bool ascii, sort, indented;
    bool data; /* punctuation counts as data where any string is */
    const jstr *indent, *item, *key;
} dumper;

static bool dump_value(dumper *, jv, int depth);

static bool punctuation(dumper *d, const char *z) {
    return sbuf_add(d->j, d->b, z, strlen(z), d->data);
}

static bool dump_escape(dumper *d, uint32_t cp, bool data) {
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    char esc[16];
    const char *known = cp && cp < 0x80 ? strchr(from, (int)cp) : NULL;
    if (known) {
        snprintf(esc, sizeof esc, "\\%c", to[known - from]);
    } else if (cp >= 0x10000) {
        uint32_t v = cp - 0x10000;
        snprintf(esc, sizeof esc, "\\u%04x\\u%04x", 0xd800 + (v >> 10), 0xdc00 + (v & 0x3ff));
    } else {
        snprintf(esc, sizeof esc, "\\u%04x", cp);
    }
    return sbuf_add(d->j, d->b, esc, strlen(esc), data);
}

static bool dump_string(dumper *d, const jstr *s) {
    size_t plain = 0; /* s from here on is copied as it is */
    punctuation(d, "\"");
    for (size_t i = 0; i < s->n && !d->j->failed;) {
        uint32_t cp = (unsigned char)s->p[i];
        int k = cp < 0x80 ? 1 : utf8_decode(s->p + i, s->n - i, &cp);
        k = k > 0 ? k : 1;
        if (cp < 0x20 || cp == '"' || cp == '\\' || (d->ascii && cp >= 0x7f)) {
            sbuf_part(d->j, d->b, s, plain, i);
            dump_escape(d, cp, jstr_data_at(s, i));
            plain = i + (size_t)k;
        }
        i += (size_t)k;
    }
    sbuf_part(d->j, d->b, s, plain, s->n);
    return punctuation(d, "\"");
}

static bool dump_break(dumper *d, int depth) {
    if (!d->indented) return true;
    punctuation(d, "\n");
    for (int i = 0; i < depth && !d->j->failed; i++)
        sbuf_add(d->j, d->b, d->indent->p, d->indent->n, d->data);
    return !d->j->failed;
}
static bool dump_separator(dumper *d, const jstr *s) {
    return sbuf_add(d->j, d->b, s->p, s->n, d->data);
}

static bool dump_list(dumper *d, const jlist *l, int depth) {
    if (l->n == 0) return punctuation(d, "[]");
    punctuation(d, "[");
    for (size_t i = 0; i < l->n && !d->j->failed; i++) {
        if (i) dump_separator(d, d->item);
        dump_break(d, depth + 1);
        dump_value(d, l->v[i], depth + 1);
    }
    dump_break(d, depth);
    return punctuation(d, "]");
}

static int by_key(const void *a, const void *b) {
    str x = jstr_text((*(const jpair *const *)a)->key.s),
        y = jstr_text((*(const jpair *const *)b)->key.s);
    size_t n = x.len < y.len ? x.len : y.len;
    int c = n ? memcmp(x.ptr, y.ptr, n) : 0;
    return c ? c : (x.len > y.len) - (x.len < y.len);
}

static bool dump_key(dumper *d, jv key) {
    char text[JINJA_FLOAT_TEXT + 4];
    switch (key.kind) {
    case JV_STR: return dump_string(d, key.s);
    case JV_NONE: return punctuation(d, "\"null\"");
    case JV_BOOL: return punctuation(d, key.b ? "\"true\"" : "\"false\"");
    case JV_INT: snprintf(text, sizeof text, "\"%lld\"", (long long)key.i); break;
    case JV_FLOAT:
        text[0] = '"';
        jinja_float_text(key.d, text + 1);
        strcat(text, "\"");
        break;
    default:
        return jinja_fail(d->j, "keys must be str, int, float, bool or None, not %s",
                          jv_type(key));
    }
    return punctuation(d, text);
}

static bool dump_dict(dumper *d, const jdict *o, int depth) {
    if (o->n == 0) return punctuation(d, "{}");
    const jpair **order = jinja_alloc(d->j, o->n * sizeof *order);
    if (!order) return false;
    bool strings = true;
    for (size_t i = 0; i < o->n; i++) {
        order[i] = &o->v[i];
        strings = strings && o->v[i].key.kind == JV_STR;
    }
    if (d->sort && !strings)
        return jinja_fail(d->j, "keys that are not strings cannot be sorted");
    if (d->sort) qsort(order, o->n, sizeof *order, by_key);
    punctuation(d, "{");
    for (size_t i = 0; i < o->n && !d->j->failed; i++) {
        if (i) dump_separator(d, d->item);
        dump_break(d, depth + 1);
        dump_key(d, order[i]->key);
        dump_separator(d, d->key);
        dump_value(d, order[i]->value, depth + 1);
    }
    dump_break(d, depth);
    return punctuation(d, "}");
}

static bool dump_value(dumper *d, jv v, int depth) {
    char text[JINJA_FLOAT_TEXT + 4];
    if (depth > JINJA_MAX_NESTING) return jinja_limit(d->j, "values are nested too deeply");
    if (!jinja_walk(d->j, 16)) return false;
    switch (v.kind) {
    case JV_NONE: return punctuation(d, "null");
    case JV_BOOL: return punctuation(d, v.b ? "true" : "false");
    case JV_STR: return dump_string(d, v.s);
    case JV_LIST:
        if (v.l->look == LOOK_RANGE) break;
        return dump_list(d, v.l, depth);
    case JV_TUPLE: return dump_list(d, v.l, depth);
    case JV_DICT: return dump_dict(d, v.o, depth);
    case JV_FLOAT:
        if (isnan(v.d) || isinf(v.d))
            return punctuation(d, isnan(v.d) ? "NaN" : v.d < 0 ? "-Infinity" : "Infinity");
        jinja_float_text(v.d, text);
        return punctuation(d, text);
    case JV_INT:
        snprintf(text, sizeof text, "%lld", (long long)v.i);
        return punctuation(d, text);
    case JV_BIG: return sbuf_str(d->j, d->b, v.s);
    default: break;
    }
    return jinja_fail(d->j, "Object of type %s is not JSON serializable", jv_type(v));
}

static bool dump_indent(dumper *d, jv how) {
    int64_t n;
    if (!jv_given(how) || how.kind == JV_NONE) return true;
    d->indented = true;
    if (how.kind == JV_STR) {
        d->indent = how.s;
        return true;
    }
    if (!jv_as_int(how, &n) || n > 1000)
        return jinja_fail(d->j, "indent must be a small integer");
    sbuf b;
    sbuf_init(&b);
    for (; n > 0; n--) sbuf_addz(d->j, &b, " ");
    jv s = sbuf_value(d->j, &b);
    if (s.kind != JV_STR) return false;
    d->indent = s.s;
    return true;
}

bool jinja_tojson(jinja *j, sbuf *b, jv v, const jv *arg) {
    static const jstr comma = {.p = ", ", .n = 2, .n_chars = 2},
                      colon = {.p = ": ", .n = 2, .n_chars = 2},
                      bare = {.p = ",", .n = 1, .n_chars = 1};
    dumper d = {.j = j, .b = b, .item = &comma, .key = &colon, .data = jv_any_data(v, 0)};
    d.ascii = jv_given(arg[0]) && jv_truth(arg[0]);
    if (!dump_indent(&d, arg[1])) return false;
    if (d.indented) d.item = &bare;
    if (jv_given(arg[2]) && arg[2].kind != JV_NONE) {
        jv s = arg[2];
        if ((s.kind != JV_LIST && s.kind != JV_TUPLE) || s.l->n != 2 ||
            s.l->v[0].kind != JV_STR || s.l->v[1].kind != JV_STR)
            return jinja_fail(j, "separators must be two strings");
        d.item = s.l->v[0].s;
        d.key = s.l->v[1].s;
    }
    d.sort = jv_given(arg[3]) && jv_truth(arg[3]);
    return dump_value(&d, v, 0);
}

/* ---- % ---- */

typedef struct directive {
    bool left, zero, plus, space;
    int width, precision; /* precision -1: none */
} directive;

static int number_at(const jstr *f, size_t *i) {
    int n = 0;
    for (; *i < f->n && f->p[*i] >= '0' && f->p[*i] <= '9'; ++*i)
        if (n < 10000) n = n * 10 + (f->p[*i] - '0');
    return n;
}

static bool pad(jinja *j, sbuf *out, const directive *d, const jstr *s, size_t to) {
    size_t chars = 0;
    for (size_t i = 0; i < to; i++) chars += (s->p[i] & 0xc0) != 0x80;
    int blanks = d->width > (int)chars ? d->width - (int)chars : 0;
    for (int i = 0; i < blanks && !d->left; i++) sbuf_addz(j, out, " ");
    sbuf_part(j, out, s, 0, to);
    for (int i = 0; i < blanks && d->left; i++) sbuf_addz(j, out, " ");
    return !j->failed;
}

static bool percent_number(jinja *j, sbuf *out, const directive *d, char kind, jv v) {
    char fmt[24], text[400];
    int64_t i;
    bool real = kind == 'f' || kind == 'e' || kind == 'g';
    if (!jv_is_number(v) || v.kind == JV_BIG)
        return jinja_fail(j, "%%%c format: a real number is required, not %s", kind,
                          jv_type(v));
    if (d->width > 300 || d->precision > 60) return jinja_fail(j, "a format is too wide");
    snprintf(fmt, sizeof fmt, "%%%s%s%s%s*.*%s%c", d->left ? "-" : "", d->zero ? "0" : "",
             d->plus ? "+" : "", d->space ? " " : "", real ? "" : "ll",
             kind == 'i' ? 'd' : kind);
    if (real) {
        snprintf(text, sizeof text, fmt, d->width, d->precision, jv_as_double(v));
    } else {
        if (!jv_as_int(v, &i)) {
            if (kind == 'x' || !(fabs(v.d) < 9e18))
                return jinja_fail(j, "%%%c format: an integer is required", kind);
            i = (int64_t)v.d;
        }
        if (kind == 'x' && i < 0)
            return jinja_fail(j, "%%x of a negative number is not supported");
        snprintf(text, sizeof text, fmt, d->width, d->precision, (long long)i);
    }
    return sbuf_addz(j, out, text);
}

static bool percent_one(jinja *j, sbuf *out, const directive *d, char kind, jv v) {
    if (kind == 'd' || kind == 'i' || kind == 'f' || kind == 'e' || kind == 'g' || kind == 'x')
        return percent_number(j, out, d, kind, v);
    sbuf b;
    sbuf_init(&b);
    if (!(kind == 's' ? jv_print(j, &b, v) : jv_repr(j, &b, v, 0))) return false;
    jv s = sbuf_value(j, &b);
    if (s.kind != JV_STR) return false;
    bool cut = d->precision >= 0 && (size_t)d->precision < s.s->n_chars;
    return pad(j, out, d, s.s, cut ? jstr_offset(s.s, (size_t)d->precision) : s.s->n);
}

static directive directive_at(const jstr *f, size_t *i) {
    directive d = {.precision = -1};
    for (; *i < f->n && f->p[*i] && strchr("-0+ ", f->p[*i]); ++*i) {
        d.left |= f->p[*i] == '-';
        d.zero |= f->p[*i] == '0';
        d.plus |= f->p[*i] == '+';
        d.space |= f->p[*i] == ' ';
    }
    d.width = number_at(f, i);
    if (*i < f->n && f->p[*i] == '.') {
        ++*i;
        d.precision = number_at(f, i);
    }
    return d;
}

jv jinja_percent(jinja *j, const jstr *f, const jv *arg, size_t n) {
    sbuf out;
    size_t used = 0, plain = 0;
    sbuf_init(&out);
    for (size_t i = 0; i < f->n && !j->failed;) {
        if (f->p[i++] != '%') continue;
        sbuf_part(j, &out, f, plain, i - 1);
        directive d = directive_at(f, &i);
        char kind = i < f->n ? f->p[i++] : '\0';
        plain = i;
        if (kind == '%') {
            sbuf_part(j, &out, f, i - 1, i);
        } else if (kind == '\0' || !strchr("sdifegxr", kind)) {
            jinja_fail(j, "an unsupported format character in \"%%\"");
        } else if (used == n) {
            jinja_fail(j, "not enough arguments for format string");
        } else {
            percent_one(j, &out, &d, kind, arg[used++]);
        }
    }
    if (!j->failed) sbuf_part(j, &out, f, plain, f->n);
    if (used < n) jinja_fail(j, "not all arguments converted during string formatting");
    return sbuf_value(j, &out);
}
