/* Methods of strings, dicts and lists: tables of names, parameters and functions. Those that
 * would change their object are there, since they hide keys, and fail. Owns nothing. */
#include "text/jinja/jinja_string.h"

/* ---- strings ---- */

#define STRING_METHOD(name, expression)                                                        \
    static jv str_##name(jinja *j, jv self, const jv *arg) {                                   \
        const jstr *s = self.s;                                                                \
        (void)arg;                                                                             \
        return (expression);                                                                   \
    }
STRING_METHOD(strip, string_strip(j, s, arg[0], true, true))
STRING_METHOD(lstrip, string_strip(j, s, arg[0], true, false))
STRING_METHOD(rstrip, string_strip(j, s, arg[0], false, true))
STRING_METHOD(split, string_split(j, s, arg[0], arg[1], false))
STRING_METHOD(rsplit, string_split(j, s, arg[0], arg[1], true))
STRING_METHOD(splitlines, string_lines(j, s, false))
STRING_METHOD(upper, string_case(j, s, CASE_UPPER))
STRING_METHOD(lower, string_case(j, s, CASE_LOWER))
STRING_METHOD(capitalize, string_case(j, s, CASE_CAPITAL))
STRING_METHOD(title, string_case(j, s, CASE_WORDS))

static jv str_replace_method(jinja *j, jv self, const jv *arg) {
    if (arg[0].kind != JV_STR || arg[1].kind != JV_STR) {
        jinja_fail(j, "replace() argument must be str, not %s",
                   jv_type(arg[0].kind != JV_STR ? arg[0] : arg[1]));
        return jv_undef();
    }
    return string_replace(j, self.s, arg[0], arg[1], arg[2]);
}

static jv str_format_method(jinja *j, jv self, const jargs *args) {
    return string_format(j, self.s, args);
}

static jv str_join(jinja *j, jv self, const jv *arg) {
    sbuf out;
    jv *v;
    size_t n;
    sbuf_init(&out);
    if (!jv_items(j, arg[0], &v, &n)) return jv_undef();
    for (size_t i = 0; i < n && jinja_walk(j, 64); i++) {
        if (v[i].kind != JV_STR) {
            jinja_fail(j, "sequence item %zu: expected str instance, %s found", i,
                       jv_type(v[i]));
            break;
        }
        if (i) sbuf_str(j, &out, self.s);
        sbuf_str(j, &out, v[i].s);
    }
    return sbuf_value(j, &out);
}

static bool has_affix(const jstr *s, const jstr *a, bool end) {
    return a->n <= s->n &&
           (a->n == 0 || memcmp(s->p + (end ? s->n - a->n : 0), a->p, a->n) == 0);
}
static jv affix(jinja *j, jv self, const jv *arg, bool end) {
    const jv *v = arg;
    size_t n = 1;
    if (arg[0].kind == JV_TUPLE) v = arg[0].l->v, n = arg[0].l->n;
    for (size_t i = 0; i < n; i++) {
        if (v[i].kind != JV_STR) {
            jinja_fail(j, "%s first arg must be str or a tuple of str, not %s",
                       end ? "endswith" : "startswith", jv_type(v[i]));
            return jv_undef();
        }
        jinja_walk(j, v[i].s->n);
        if (has_affix(self.s, v[i].s, end)) return jv_bool(true);
    }
    return jv_bool(false);
}
static jv str_startswith(jinja *j, jv self, const jv *arg) {
    return affix(j, self, arg, false);
}
static jv str_endswith(jinja *j, jv self, const jv *arg) {
    return affix(j, self, arg, true);
}

static bool needs_string(jinja *j, jv v) {
    return v.kind == JV_STR || jinja_fail(j, "must be str, not %s", jv_type(v));
}
/* In code points; -1: not there. */
static int64_t find_from(jinja *j, const jstr *s, jv what, jv from) {
    int64_t start = 0;
    if (!needs_string(j, what)) return -1;
    if (jv_given(from) && (!jv_as_int(from, &start) || start < 0))
        jinja_fail(j, "a start must be an integer from 0 on");
    if (j->failed || !jinja_walk(j, s->n) || (size_t)start > s->n_chars) return -1;
    size_t at = str_find(jstr_text(s), jstr_text(what.s), jstr_offset(s, (size_t)start));
    if (at == SIZE_MAX) return -1;
    int64_t chars = 0;
    for (size_t i = 0; i < at; i++) chars += (s->p[i] & 0xc0) != 0x80;
    return chars;
}
static jv str_find_method(jinja *j, jv self, const jv *arg) {
    return jv_int(find_from(j, self.s, arg[0], arg[1]));
}
static jv str_index(jinja *j, jv self, const jv *arg) {
    int64_t at = find_from(j, self.s, arg[0], arg[1]);
    if (at < 0) jinja_fail(j, "substring not found");
    return jv_int(at);
}
static jv str_count(jinja *j, jv self, const jv *arg) {
    int64_t n = 0;
    if (!needs_string(j, arg[0])) return jv_undef();
    str what = jstr_text(arg[0].s);
    if (what.len == 0) return jv_int((int64_t)self.s->n_chars + 1);
    for (size_t at = 0; jinja_walk(j, 16); at += what.len, n++)
        if ((at = str_find(jstr_text(self.s), what, at)) == SIZE_MAX) break;
    return jv_int(n);
}

static const jinja_function of_str[] = {
    {"strip", {"chars"}, .call = str_strip},
    {"lstrip", {"chars"}, .call = str_lstrip},
    {"rstrip", {"chars"}, .call = str_rstrip},
    {"split", {"sep", "maxsplit"}, .call = str_split},
    {"rsplit", {"sep", "maxsplit"}, .call = str_rsplit},
    {"splitlines", .call = str_splitlines},
    {"upper", .call = str_upper},
    {"lower", .call = str_lower},
    {"capitalize", .call = str_capitalize},
    {"title", .call = str_title},
    {"replace", {"old", "new", "count"}, .n_needed = 2, .call = str_replace_method},
    {"format", .variadic = true, .call_args = str_format_method},
    {"join", {"iterable"}, .n_needed = 1, .call = str_join},
    {"startswith", {"prefix"}, .n_needed = 1, .call = str_startswith},
    {"endswith", {"suffix"}, .n_needed = 1, .call = str_endswith},
    {"find", {"sub", "start"}, .n_needed = 1, .call = str_find_method},
    {"index", {"sub", "start"}, .n_needed = 1, .call = str_index},
    {"count", {"sub"}, .n_needed = 1, .call = str_count}};

/* ---- dicts ---- */

static jv view(jinja *j, jv self, list_look look) {
    const jdict *d = self.o;
    jv l = jv_list(j, JV_ITER, d->n);
    if (j->failed) return l;
    l.l->from = 0;
    l.l->look = (uint8_t)look;
    for (size_t i = 0; i < d->n; i++)
        l.l->v[i] = look == LOOK_KEYS     ? d->v[i].key
                    : look == LOOK_VALUES ? d->v[i].value
                                          : jv_pair(j, d->v[i].key, d->v[i].value);
    return l;
}
static jv dict_items(jinja *j, jv self, const jv *arg) {
    (void)arg;
    return view(j, self, LOOK_ITEMS);
}
static jv dict_keys(jinja *j, jv self, const jv *arg) {
    (void)arg;
    return view(j, self, LOOK_KEYS);
}
static jv dict_values(jinja *j, jv self, const jv *arg) {
    (void)arg;
    return view(j, self, LOOK_VALUES);
}
static jv dict_get(jinja *j, jv self, const jv *arg) {
    const jv *v = jdict_get(j, self.o, arg[0]);
    return v ? *v : jv_given(arg[1]) ? arg[1] : jv_none();
}
static jv copy(jinja *j, jv self, const jv *arg) {
    (void)j, (void)arg;
    return self; /* nothing can change it */
}

static const jinja_function of_dict[] = {
    {"items", .call = dict_items},
    {"keys", .call = dict_keys},
    {"values", .call = dict_values},
    {"get", {"key", "default"}, .n_needed = 1, .call = dict_get},
    {"copy", .call = copy},
    {"clear", .breaks = true},
    {"fromkeys", .breaks = true},
    {"pop", .breaks = true},
    {"popitem", .breaks = true},
    {"setdefault", .breaks = true},
    {"update", .breaks = true}};

/* ---- lists and tuples ---- */

static jv list_index(jinja *j, jv self, const jv *arg) {
    jinja_walk(j, self.l->n * 16);
    for (size_t i = 0; i < self.l->n && !j->failed; i++)
        if (jv_equal(j, self.l->v[i], arg[0], 0)) return jv_int((int64_t)i);
    jinja_fail(j, "the value is not in list");
    return jv_undef();
}
static jv list_count(jinja *j, jv self, const jv *arg) {
    int64_t n = 0;
    jinja_walk(j, self.l->n * 16);
    for (size_t i = 0; i < self.l->n && !j->failed; i++)
        n += jv_equal(j, self.l->v[i], arg[0], 0);
    return jv_int(n);
}

static const jinja_function of_list[] = {
    {"index", {"value"}, .n_needed = 1, .call = list_index},
    {"count", {"value"}, .n_needed = 1, .call = list_count},
    {"copy", .call = copy},
    {"append", .breaks = true},
    {"clear", .breaks = true},
    {"extend", .breaks = true},
    {"insert", .breaks = true},
    {"pop", .breaks = true},
    {"remove", .breaks = true},
    {"reverse", .breaks = true},
    {"sort", .breaks = true}};

static const jinja_function *find(const jinja_function *t, size_t n, str name) {
    for (size_t i = 0; i < n; i++)
        if (str_eqz(name, t[i].name)) return &t[i];
    return NULL;
}

jname jinja_name(str text) {
    jname n = {.text = text, .hash = jstr_hash(text)};
    n.method[TYPE_STR] = find(of_str, sizeof of_str / sizeof *of_str, text);
    n.method[TYPE_DICT] = find(of_dict, sizeof of_dict / sizeof *of_dict, text);
    n.method[TYPE_LIST] = find(of_list, sizeof of_list / sizeof *of_list, text);
    return n;
}

const jinja_function *jinja_method_find(jv self, const jname *name) {
    switch (self.kind) {
    case JV_STR: return name->method[TYPE_STR];
    case JV_DICT: return name->method[TYPE_DICT];
    case JV_LIST: return name->method[TYPE_LIST];
    case JV_TUPLE: { /* has the first two of a list's */
        const jinja_function *fn = name->method[TYPE_LIST];
        return fn && fn - of_list < 2 ? fn : NULL;
    }
    default: return NULL;
    }
}
