/* Filters: a table of names, parameters and functions. Owns nothing; any thread. */
#include "text/jinja/jinja_value.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja/jinja_string.h"

/* ---- calling ---- */

static bool place(jinja *j, const jinja_function *f, const jargs *args, jv *arg) {
    size_t n_params = 0;
    for (size_t k = 0; k < JINJA_MAX_PARAMS; k++) arg[k] = jv_unset();
    if (args->n == 0 && f->n_needed == 0) return true;
    while (n_params < JINJA_MAX_PARAMS && f->params[n_params]) n_params++;
    if (args->n_pos > n_params)
        return jinja_fail(j, "%s() takes at most %zu arguments", f->name, n_params);
    for (size_t i = 0; i < args->n; i++) {
        size_t k = i;
        if (i >= args->n_pos)
            for (k = 0; k < n_params && !str_eqz(args->name[i], f->params[k]);) k++;
        if (k == n_params)
            return jinja_fail(j, "%s() got an unexpected keyword argument '" STR_FMT "'",
                              f->name, STR_ARG(args->name[i]));
        if (jv_given(arg[k]))
            return jinja_fail(j, "%s() got multiple values for argument '%s'", f->name,
                              f->params[k]);
        arg[k] = args->v[i];
    }
    for (size_t k = 0; k < f->n_needed; k++)
        if (!jv_given(arg[k]))
            return jinja_fail(j, "%s() missing argument '%s'", f->name, f->params[k]);
    return true;
}

jv jinja_call_function(jinja *j, const jinja_function *f, jv self, const jargs *args) {
    jv arg[JINJA_MAX_PARAMS];
    if (f->breaks) {
        jinja_fail(j, "\"%s\" is not available: it is unknown or would change a value",
                   f->name);
        return jv_undef();
    }
    if (f->variadic) return f->call_args(j, self, args);
    return place(j, f, args, arg) ? f->call(j, self, arg) : jv_undef();
}

static const jinja_function *find(const jinja_function *t, size_t n, str name) {
    for (size_t i = 0; i < n; i++)
        if (str_eqz(name, t[i].name)) return &t[i];
    return NULL;
}

static bool flag(jv v, bool otherwise) {
    return jv_given(v) ? jv_truth(v) : otherwise;
}

static jv generator(jinja *j, jlist l) {
    jlist *p = jinja_alloc(j, sizeof *p);
    if (!p) return jv_undef();
    *p = l;
    p->look = LOOK_GEN;
    return (jv){.kind = JV_ITER, .l = p};
}

/* item.a.b for the attribute "a.b", item[0] for 0. */
static jv get_path(jinja *j, jv item, jv path) {
    if (path.kind != JV_STR) return jinja_item(j, item, path);
    for (size_t at = 0; at <= path.s->n && !j->failed;) {
        size_t end = at;
        bool digits = true;
        int64_t index = 0;
        for (; end < path.s->n && path.s->p[end] != '.'; end++) {
            char c = path.s->p[end];
            digits = digits && c >= '0' && c <= '9' && index < 100000000;
            if (digits) index = index * 10 + (c - '0');
        }
        item = jinja_item(j, item,
                          digits && end > at ? jv_int(index) : jv_part(j, path.s, at, end));
        at = end + 1;
    }
    return item;
}

/* ---- strings ---- */

#define STRING_FILTER(name, expression)                                                        \
    static jv filter_##name(jinja *j, jv self, const jv *arg) {                                \
        const jstr *s = jv_text(j, self);                                                      \
        (void)arg;                                                                             \
        return s ? (expression) : jv_undef();                                                  \
    }
STRING_FILTER(string, ((jv){.kind = JV_STR, .s = s}))
STRING_FILTER(upper, string_case(j, s, CASE_UPPER))
STRING_FILTER(lower, string_case(j, s, CASE_LOWER))
STRING_FILTER(capitalize, string_case(j, s, CASE_CAPITAL))
STRING_FILTER(title, string_title(j, s))
STRING_FILTER(trim, string_strip(j, s, arg[0], true, true))
STRING_FILTER(replace, string_replace(j, s, arg[0], arg[1], arg[2]))

static jv filter_safe(jinja *j, jv self, const jv *arg) {
    (void)arg;
    const jstr *s = jv_text(j, self);
    jstr *safe = s ? jinja_alloc(j, sizeof *safe) : NULL;
    if (!safe) return jv_undef();
    *safe = *s;
    safe->markup = true;
    return (jv){.kind = JV_STR, .s = safe};
}

static jv filter_format(jinja *j, jv self, const jargs *args) {
    const jstr *s = jv_text(j, self);
    if (s && args->n > args->n_pos) jinja_fail(j, "format by names is not supported");
    return s && !j->failed ? jinja_percent(j, s, args->v, args->n_pos) : jv_undef();
}

static jv filter_indent(jinja *j, jv self, const jv *arg) {
    const jstr *s = self.kind == JV_STR ? self.s : NULL;
    sbuf out, by;
    int64_t width = 4;
    sbuf_init(&out);
    sbuf_init(&by);
    if (!s) jinja_fail(j, "indent of a '%s'", jv_type(self));
    if (!s) return jv_undef();
    if (jv_given(arg[0]) && arg[0].kind == JV_STR)
        sbuf_str(j, &by, arg[0].s);
    else if (jv_given(arg[0]) && (!jv_as_int(arg[0], &width) || width > 10000))
        jinja_fail(j, "the width of indent must be a small integer");
    else
        for (; width > 0; width--) sbuf_addz(j, &by, " ");
    jv indent = sbuf_value(j, &by), lines;
    if (indent.kind != JV_STR) return jv_undef();
    bool first = flag(arg[1], false), blank = flag(arg[2], false);
    lines = string_lines(j, s, true);
    for (size_t i = 0; !j->failed && i < lines.l->n; i++) {
        const jstr *line = lines.l->v[i].s;
        if (i) sbuf_addz(j, &out, "\n");
        if (i ? line->n || blank : first) sbuf_str(j, &out, indent.s);
        sbuf_str(j, &out, line);
    }
    return sbuf_value(j, &out);
}

static jv filter_tojson(jinja *j, jv self, const jv *arg) {
    sbuf out;
    sbuf_init(&out);
    jinja_tojson(j, &out, self, arg);
    return sbuf_value(j, &out);
}

static jv filter_join(jinja *j, jv self, const jv *arg) {
    sbuf out;
    jv *v;
    size_t n;
    sbuf_init(&out);
    const jstr *by = jv_given(arg[0]) ? jv_text(j, arg[0]) : NULL;
    bool path = jv_given(arg[1]) && arg[1].kind != JV_NONE;
    if (j->failed || !jv_items(j, self, &v, &n)) return jv_undef();
    for (size_t i = 0; i < n && jinja_walk(j, 64); i++) {
        if (i && by) sbuf_str(j, &out, by);
        jv_print(j, &out, path ? get_path(j, v[i], arg[1]) : v[i]);
    }
    return sbuf_value(j, &out);
}

/* ---- sequences ---- */

static jv filter_length(jinja *j, jv v, const jv *arg) {
    (void)arg;
    switch (v.kind) {
    case JV_UNDEF: return jv_int(0);
    case JV_STR: return jv_int((int64_t)v.s->n_chars);
    case JV_DICT: return jv_int((int64_t)v.o->n);
    case JV_ITER:
        if (v.l->look == LOOK_GEN) break;
        return jv_int((int64_t)v.l->n);
    case JV_LIST:
    case JV_TUPLE: return jv_int((int64_t)v.l->n);
    default: break;
    }
    jinja_fail(j, "object of type '%s' has no len()", jv_type(v));
    return jv_undef();
}

static jv filter_list(jinja *j, jv self, const jv *arg) {
    jv *v;
    size_t n;
    (void)arg;
    if (!jv_items(j, self, &v, &n)) return jv_undef();
    jv l = jv_list(j, JV_LIST, n);
    if (!j->failed && n) memcpy(l.l->v, v, n * sizeof *v);
    return l;
}

static jv filter_default(jinja *j, jv self, const jv *arg) {
    bool empty = self.kind == JV_UNDEF || (flag(arg[1], false) && !jv_truth(self));
    if (!empty) return self;
    return jv_given(arg[0]) ? arg[0] : jv_str(j, STR(""), false);
}

static jv filter_items(jinja *j, jv self, const jv *arg) {
    (void)arg;
    jlist l = {0};
    size_t cap = 0;
    if (self.kind != JV_UNDEF && self.kind != JV_DICT) {
        jinja_fail(j, "Can only get item pairs from a mapping.");
        return jv_undef();
    }
    for (size_t i = 0; self.kind == JV_DICT && i < self.o->n && jinja_walk(j, 64); i++)
        jlist_push(j, &l, jv_pair(j, self.o->v[i].key, self.o->v[i].value), &cap);
    return generator(j, l);
}

static jv filter_first(jinja *j, jv self, const jv *arg) {
    (void)arg;
    jv *v;
    size_t n;
    if (self.kind == JV_ITER && self.l->look == LOOK_GEN && self.l->from < self.l->n)
        return self.l->v[self.l->from++];
    if (!jv_items(j, self, &v, &n)) return jv_undef();
    return n ? v[0] : jv_undef_named(j, "No first item, sequence was empty.");
}
static jv filter_last(jinja *j, jv self, const jv *arg) {
    (void)arg;
    jv *v;
    size_t n;
    if (self.kind == JV_ITER && self.l->look == LOOK_GEN)
        jinja_fail(j, "'generator' object is not reversible");
    if (j->failed || !jv_items(j, self, &v, &n)) return jv_undef();
    return n ? v[n - 1] : jv_undef_named(j, "No last item, sequence was empty.");
}

/* ---- order ---- */

typedef struct keyed {
    jv key, item;
} keyed;

static jv key_of(jinja *j, jv item, jv path, bool cased) {
    if (jv_given(path) && path.kind != JV_NONE) item = get_path(j, item, path);
    return item.kind == JV_STR && !cased ? string_case(j, item.s, CASE_LOWER) : item;
}

static keyed *keys_of(jinja *j, jv self, jv path, bool cased, size_t *n) {
    jv *v;
    if (!jv_items(j, self, &v, n)) return NULL;
    keyed *k = jinja_alloc(j, (*n + 1) * sizeof *k);
    for (size_t i = 0; k && i < *n && jinja_walk(j, 64); i++)
        k[i] = (keyed){key_of(j, v[i], path, cased), v[i]};
    return j->failed ? NULL : k;
}

/* A stable merge sort. False where two keys have no order. */
static bool sort_keyed(jinja *j, keyed *v, size_t n, bool reverse) {
    keyed *to = jinja_alloc(j, (n + 1) * sizeof *to), *from = v;
    if (!to) return false;
    for (size_t run = 1; run < n; run *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * run) {
            size_t mid = lo + run < n ? lo + run : n, hi = mid + run < n ? mid + run : n;
            for (size_t a = lo, b = mid, at = lo; at < hi; at++) {
                int c = 0;
                if (a < mid && b < hi &&
                    (!jv_compare(j, from[b].key, from[a].key, "<", &c, 0) ||
                     !jinja_walk(j, 64)))
                    return false;
                bool right = a == mid || (b < hi && (reverse ? c > 0 : c < 0));
                to[at] = right ? from[b++] : from[a++];
            }
        }
        keyed *swap = from;
        from = to;
        to = swap;
    }
    if (from != v) memcpy(v, from, n * sizeof *v);
    return true;
}

static jv sorted(jinja *j, keyed *k, size_t n, bool reverse) {
    if (!k || !sort_keyed(j, k, n, reverse)) return jv_undef();
    jv l = jv_list(j, JV_LIST, n);
    for (size_t i = 0; i < n && !j->failed; i++) l.l->v[i] = k[i].item;
    return l;
}

static jv filter_sort(jinja *j, jv self, const jv *arg) {
    size_t n = 0;
    keyed *k = keys_of(j, self, arg[2], flag(arg[1], false), &n);
    return sorted(j, k, n, flag(arg[0], false));
}

static jv filter_dictsort(jinja *j, jv self, const jv *arg) {
    bool by_value =
        jv_given(arg[1]) && arg[1].kind == JV_STR && str_eqz(jstr_text(arg[1].s), "value");
    if (self.kind != JV_DICT) {
        jinja_fail(j, "dictsort of a '%s'", jv_type(self));
        return jv_undef();
    }
    size_t n = self.o->n;
    keyed *k = jinja_alloc(j, (n + 1) * sizeof *k);
    for (size_t i = 0; k && i < n && jinja_walk(j, 64); i++) {
        const jpair *p = &self.o->v[i];
        k[i] = (keyed){key_of(j, by_value ? p->value : p->key, jv_unset(), flag(arg[0], false)),
                       jv_pair(j, p->key, p->value)};
    }
    return j->failed ? jv_undef() : sorted(j, k, n, flag(arg[2], false));
}

static jv extreme(jinja *j, jv self, const jv *arg, int sign) {
    size_t n = 0, best = 0;
    keyed *k = keys_of(j, self, arg[1], flag(arg[0], false), &n);
    if (!k) return jv_undef();
    if (n == 0) return jv_undef_named(j, "No aggregated item, sequence was empty.");
    for (size_t i = 1; i < n; i++) {
        int c;
        if (!jv_compare(j, k[i].key, k[best].key, sign < 0 ? "<" : ">", &c, 0))
            return jv_undef();
        if (c * sign > 0) best = i;
    }
    return k[best].item;
}
static jv filter_min(jinja *j, jv self, const jv *arg) {
    return extreme(j, self, arg, -1);
}
static jv filter_max(jinja *j, jv self, const jv *arg) {
    return extreme(j, self, arg, 1);
}

static jv filter_unique(jinja *j, jv self, const jv *arg) {
    jdict seen = {0};
    jlist l = {0};
    size_t n = 0, cap = 0;
    keyed *k = keys_of(j, self, arg[1], flag(arg[0], false), &n);
    for (size_t i = 0; k && i < n && !j->failed; i++) {
        size_t before = seen.n;
        jdict_set(j, &seen, k[i].key, jv_none());
        if (seen.n > before) jlist_push(j, &l, k[i].item, &cap);
    }
    return generator(j, l);
}

/* ---- numbers ---- */

static bool parse_int(const jstr *s, int64_t *out) {
    char text[32];
    size_t n = 0, from = 0, to = s->n;
    while (from < to && jinja_is_space((unsigned char)s->p[from])) from++;
    while (to > from && jinja_is_space((unsigned char)s->p[to - 1])) to--;
    for (size_t i = from; i < to; i++) {
        char c = s->p[i];
        bool sign = i == from && (c == '-' || c == '+');
        bool joint = c == '_' && n && i + 1 < to && s->p[i - 1] != '_';
        if (joint) continue;
        if ((!sign && (c < '0' || c > '9')) || n + 1 == sizeof text) return false;
        text[n++] = c;
    }
    text[n] = '\0';
    if (n == 0 || (n == 1 && (text[0] < '0' || text[0] > '9'))) return false;
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return errno == 0;
}

static bool parse_real(const jstr *s, double *out) {
    char text[64], *end;
    if (s->n == 0 || s->n >= sizeof text || memchr(s->p, 'x', s->n) || memchr(s->p, '\0', s->n))
        return false;
    memcpy(text, s->p, s->n);
    text[s->n] = '\0';
    *out = strtod(text, &end);
    while (*end && jinja_is_space((unsigned char)*end)) end++;
    return end != text && !*end;
}

static jv filter_int(jinja *j, jv self, const jv *arg) {
    int64_t i, base = 10;
    double d = NAN;
    if (jv_given(arg[1]) && (!jv_as_int(arg[1], &base) || base != 10))
        jinja_fail(j, "int of another base than 10 is not supported");
    if (self.kind == JV_UNDEF) jinja_fail_undef(j, self);
    if (j->failed) return jv_undef();
    if (jv_as_int(self, &i)) return jv_int(i);
    if (self.kind == JV_STR && parse_int(self.s, &i)) return jv_int(i);
    if (self.kind == JV_STR) parse_real(self.s, &d);
    if (self.kind == JV_FLOAT) d = self.d;
    if (fabs(d) < 9e18) return jv_int((int64_t)d);
    return jv_given(arg[0]) ? arg[0] : jv_int(0);
}

static jv filter_round(jinja *j, jv self, const jv *arg) {
    int64_t precision = 0, i;
    char text[400];
    const jstr *how = jv_given(arg[1]) ? jv_text(j, arg[1]) : NULL;
    if (!jv_is_number(self) || (jv_given(arg[0]) && !jv_as_int(arg[0], &precision)) ||
        precision < 0 || precision > 30) {
        jinja_fail(j, "round: a number and a precision from 0 to 30 are required");
        return jv_undef();
    }
    double d = jv_as_double(self), scale = pow(10, (double)precision);
    if (how && str_eqz(jstr_text(how), "ceil")) return jv_float(ceil(d * scale) / scale);
    if (how && str_eqz(jstr_text(how), "floor")) return jv_float(floor(d * scale) / scale);
    if (how && !str_eqz(jstr_text(how), "common")) {
        jinja_fail(j, "method must be common, ceil or floor");
        return jv_undef();
    }
    if (jv_as_int(self, &i)) return jv_int(i);
    snprintf(text, sizeof text, "%.*f", (int)precision, d);
    return jv_float(strtod(text, NULL));
}

/* ---- map, select, reject ---- */

static bool named_arg(const jargs *args, const char *name, jv *out) {
    for (size_t i = args->n_pos; i < args->n; i++)
        if (str_eqz(args->name[i], name)) {
            *out = args->v[i];
            return true;
        }
    return false;
}

static jv filter_map(jinja *j, jv self, const jargs *args) {
    jv path = jv_unset(), otherwise = jv_unset(), *v;
    size_t n, cap = 0;
    jlist l = {0};
    const jinja_function *f = NULL;
    jargs rest = *args;
    if (args->n_pos == 0) {
        if (!named_arg(args, "attribute", &path))
            jinja_fail(j, "map requires a filter argument");
        named_arg(args, "default", &otherwise);
    } else {
        f = args->v[0].kind == JV_STR ? jinja_filter_find(jstr_text(args->v[0].s)) : NULL;
        rest = (jargs){args->v + 1, args->name + 1, args->n_pos - 1, args->n - 1};
        if (!f) jinja_fail(j, "map: no such filter");
    }
    if (!jv_truth(self)) return generator(j, l); /* whatever it is */
    if (j->failed || !jv_items(j, self, &v, &n)) return jv_undef();
    for (size_t i = 0; i < n && jinja_walk(j, 64); i++) {
        jv to = f ? jinja_call_function(j, f, v[i], &rest) : get_path(j, v[i], path);
        if (to.kind == JV_UNDEF && jv_given(otherwise)) to = otherwise;
        jlist_push(j, &l, to, &cap);
    }
    return generator(j, l);
}

/* keep: what the test must say. */
static jv choose(jinja *j, jv self, const jargs *args, bool by_path, bool keep) {
    jv *v;
    size_t n, cap = 0, skip = by_path;
    jlist l = {0};
    const jinja_function *test = NULL;
    if (by_path && args->n_pos == 0) jinja_fail(j, "an attribute name is missing");
    if (args->n_pos > skip) {
        jv name = args->v[skip++];
        test = name.kind == JV_STR ? jinja_test_find(jstr_text(name.s)) : NULL;
        if (!test) jinja_fail(j, "no such test");
    }
    if (!jv_truth(self)) return generator(j, l); /* whatever it is */
    if (j->failed || !jv_items(j, self, &v, &n)) return jv_undef();
    jargs rest = *args; /* what the test takes */
    if (skip)
        rest = (jargs){args->v + skip, args->name + skip, args->n_pos - skip, args->n - skip};
    for (size_t i = 0; i < n && jinja_walk(j, 64); i++) {
        jv of = by_path ? get_path(j, v[i], args->v[0]) : v[i];
        if (test && !j->failed) of = jinja_call_function(j, test, of, &rest);
        if (!j->failed && jv_truth(of) == keep) jlist_push(j, &l, v[i], &cap);
    }
    return generator(j, l);
}
static jv filter_select(jinja *j, jv self, const jargs *args) {
    return choose(j, self, args, false, true);
}
static jv filter_reject(jinja *j, jv self, const jargs *args) {
    return choose(j, self, args, false, false);
}
static jv filter_selectattr(jinja *j, jv self, const jargs *args) {
    return choose(j, self, args, true, true);
}
static jv filter_rejectattr(jinja *j, jv self, const jargs *args) {
    return choose(j, self, args, true, false);
}

static const jinja_function filters[] = {
    {"tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, .call = filter_tojson},
    {"length", .call = filter_length},
    {"count", .call = filter_length},
    {"trim", {"chars"}, .call = filter_trim},
    {"string", .call = filter_string},
    {"join", {"d", "attribute"}, .call = filter_join},
    {"safe", .call = filter_safe},
    {"list", .call = filter_list},
    {"default", {"default_value", "boolean"}, .call = filter_default},
    {"d", {"default_value", "boolean"}, .call = filter_default},
    {"items", .call = filter_items},
    {"selectattr", .variadic = true, .call_args = filter_selectattr},
    {"rejectattr", .variadic = true, .call_args = filter_rejectattr},
    {"select", .variadic = true, .call_args = filter_select},
    {"reject", .variadic = true, .call_args = filter_reject},
    {"map", .variadic = true, .call_args = filter_map},
    {"upper", .call = filter_upper},
    {"lower", .call = filter_lower},
    {"capitalize", .call = filter_capitalize},
    {"title", .call = filter_title},
    {"dictsort", {"case_sensitive", "by", "reverse"}, .call = filter_dictsort},
    {"first", .call = filter_first},
    {"last", .call = filter_last},
    {"replace", {"old", "new", "count"}, .n_needed = 2, .call = filter_replace},
    {"fromjson", .breaks = true},
    {"from_json", .breaks = true},
    {"int", {"default", "base"}, .call = filter_int},
    {"round", {"precision", "method"}, .call = filter_round},
    {"sort", {"reverse", "case_sensitive", "attribute"}, .call = filter_sort},
    {"min", {"case_sensitive", "attribute"}, .call = filter_min},
    {"max", {"case_sensitive", "attribute"}, .call = filter_max},
    {"unique", {"case_sensitive", "attribute"}, .call = filter_unique},
    {"format", .variadic = true, .call_args = filter_format},
    {"indent", {"width", "first", "blank"}, .call = filter_indent}};

const jinja_function *jinja_filter_find(str name) {
    return find(filters, sizeof filters / sizeof *filters, name);
}
