/* Values: making them, equality, order, iteration. All lie in the arena of the rendering. */
#include "text/jinja/jinja_value.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/hash.h"
#include "base/utf8.h"

const char jinja_unset[] = "an argument is missing";

/* ---- failure and limits ---- */

bool jinja_fail(jinja *j, const char *fmt, ...) {
    char text[300];
    va_list ap;
    if (j->failed) return false;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    j->failed = true;
    err_set(j->e, ERR_INVALID, "the chat template failed: %s, line %u", text, j->line);
    err_field(j->e, "messages");
    return false;
}
bool jinja_limit(jinja *j, const char *what) {
    if (j->failed) return false;
    j->failed = true;
    err_set(j->e, ERR_TOO_LONG, "the chat template failed: %s, line %u", what, j->line);
    err_field(j->e, "messages");
    return false;
}
bool jinja_no_memory(jinja *j) {
    if (j->failed) return false;
    j->failed = true;
    err_set(j->e, ERR_NO_MEMORY, "no memory to render the chat template");
    return false;
}
bool jinja_walk(jinja *j, size_t n) {
    j->steps += n / 64;
    return j->steps <= JINJA_MAX_STEPS || jinja_limit(j, "it takes too many steps");
}
void *jinja_alloc(jinja *j, size_t bytes) {
    void *p = j->failed ? NULL : arena_alloc(j->a, bytes);
    if (!p) jinja_no_memory(j);
    return p;
}

/* ---- strings that grow ---- */

void sbuf_init(sbuf *b) {
    *b = (sbuf){.limit = JSTR_MAX, .what = "a string is too long"};
}

static bool add_run(jinja *j, sbuf *b, bool data) {
    if (b->n_runs && b->runs[b->n_runs - 1].data == data) {
        b->runs[b->n_runs - 1].end = b->n;
        return true;
    }
    if (b->n_runs == b->cap_runs) {
        size_t cap = b->cap_runs ? b->cap_runs * 2 : 4;
        b->runs =
            arena_grow(j->a, b->runs, b->cap_runs * sizeof *b->runs, cap * sizeof *b->runs);
        if (!b->runs) return jinja_no_memory(j);
        b->cap_runs = cap;
    }
    b->runs[b->n_runs++] = (jinja_run){b->n, data};
    return true;
}

bool sbuf_reserve(jinja *j, sbuf *b, size_t n) {
    if (j->failed) return false;
    if (n > b->limit - b->n) return jinja_limit(j, b->what);
    if (n <= b->cap - b->n) return true;
    size_t cap = b->cap ? b->cap * 2 : n < 32 ? 32 : n;
    if (cap < b->n + n) cap = b->n + n;
    b->p = arena_grow(j->a, b->p, b->cap, cap);
    if (!b->p) return jinja_no_memory(j);
    b->cap = cap;
    return true;
}

static bool add_bytes(jinja *j, sbuf *b, const char *p, size_t n, bool data) {
    if (n == 0) return !j->failed;
    if (!sbuf_reserve(j, b, n)) return false;
    memcpy(b->p + b->n, p, n);
    b->n += n;
    return jinja_walk(j, n) && add_run(j, b, data);
}

bool sbuf_add(jinja *j, sbuf *b, const char *p, size_t n, bool data) {
    b->n_chars += utf8_chars((str){p, n});
    return add_bytes(j, b, p, n, data);
}
bool sbuf_addz(jinja *j, sbuf *b, const char *z) {
    return sbuf_add(j, b, z, strlen(z), false);
}

/* The run that holds byte `at`. */
static size_t run_at(const jstr *s, size_t at) {
    size_t lo = 0, hi = s->n_runs;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (s->runs[mid].end <= at)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool sbuf_part(jinja *j, sbuf *b, const jstr *s, size_t from, size_t to) {
    if (!s->runs) return sbuf_add(j, b, s->p + from, to - from, s->data);
    for (size_t r = run_at(s, from); from < to; r++) {
        size_t end = s->runs[r].end < to ? s->runs[r].end : to;
        if (!sbuf_add(j, b, s->p + from, end - from, s->runs[r].data)) return false;
        from = end;
    }
    return true;
}
bool sbuf_str(jinja *j, sbuf *b, const jstr *s) {
    b->n_chars += s->n_chars;
    if (!s->runs) return add_bytes(j, b, s->p, s->n, s->data);
    for (size_t r = 0, from = 0; r < s->n_runs; from = s->runs[r++].end)
        if (!add_bytes(j, b, s->p + from, s->runs[r].end - from, s->runs[r].data)) return false;
    return true;
}

static jv string_value(jinja *j, jstr s) {
    jstr *p = jinja_alloc(j, sizeof *p);
    if (!p) return jv_undef();
    *p = s;
    return (jv){.kind = JV_STR, .s = p};
}

jv sbuf_value(jinja *j, sbuf *b) {
    if (j->failed) return jv_undef();
    bool mixed = b->n_runs > 1;
    return string_value(j, (jstr){.p = b->p ? b->p : "",
                                  .n = b->n,
                                  .n_chars = b->n_chars,
                                  .runs = mixed ? b->runs : NULL,
                                  .n_runs = mixed ? b->n_runs : 0,
                                  .data = b->n_runs == 1 && b->runs[0].data});
}

jv jv_str(jinja *j, str s, bool data) {
    return string_value(j,
                        (jstr){.p = s.ptr, .n = s.len, .n_chars = utf8_chars(s), .data = data});
}
jv jv_copy(jinja *j, str s, bool data) {
    sbuf b;
    sbuf_init(&b);
    sbuf_add(j, &b, s.ptr, s.len, data);
    return sbuf_value(j, &b);
}

jv jv_part(jinja *j, const jstr *s, size_t from, size_t to) {
    jstr part = {.p = s->p + from, .n = to - from, .data = s->data, .markup = s->markup};
    if (s->runs && from < to) {
        size_t first = run_at(s, from), last = run_at(s, to - 1), n = last - first + 1;
        part.data = s->runs[first].data;
        if (n > 1) {
            jinja_run *runs = jinja_alloc(j, n * sizeof *runs);
            if (!runs) return jv_undef();
            for (size_t i = 0; i < n; i++) {
                size_t end = s->runs[first + i].end;
                runs[i] = (jinja_run){(end < to ? end : to) - from, s->runs[first + i].data};
            }
            part.runs = runs;
            part.n_runs = n;
        }
    }
    jinja_walk(j, part.n);
    part.n_chars = utf8_chars((str){part.p, part.n});
    return string_value(j, part);
}

bool jstr_data_at(const jstr *s, size_t at) {
    return s->runs ? s->runs[run_at(s, at)].data : s->data;
}
bool jstr_any_data(const jstr *s) {
    return s->runs || s->data; /* several runs: two origins */
}
size_t jstr_offset(const jstr *s, size_t chars) {
    size_t i = 0;
    if (s->n_chars == s->n) return chars;
    for (; i < s->n; i++)
        if ((s->p[i] & 0xc0) != 0x80 && chars-- == 0) break;
    return i;
}

bool jv_any_data(jv v, int depth) {
    if (depth > JINJA_MAX_NESTING) return true;
    if (v.kind == JV_STR) return jstr_any_data(v.s);
    if (v.kind == JV_LIST || v.kind == JV_TUPLE || v.kind == JV_ITER) {
        for (size_t i = 0; i < v.l->n; i++)
            if (jv_any_data(v.l->v[i], depth + 1)) return true;
    } else if (v.kind == JV_DICT || v.kind == JV_SPACE) {
        const jdict *d = v.kind == JV_DICT ? v.o : &v.ns->vars;
        for (size_t i = 0; i < d->n; i++)
            if (jv_any_data(d->v[i].key, depth + 1) || jv_any_data(d->v[i].value, depth + 1))
                return true;
    }
    return false;
}

/* ---- undefined, lists ---- */

jv jv_undef_named(jinja *j, const char *fmt, ...) {
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    char *copy = jinja_alloc(j, len + 1);
    if (!copy) return jv_undef();
    memcpy(copy, text, len + 1);
    return (jv){.kind = JV_UNDEF, .undef = copy};
}

static const char *const type_names[] = {"Undefined",   "NoneType",  "bool",     "int",
                                         "int",         "float",     "str",      "list",
                                         "tuple",       "generator", "dict",     "Namespace",
                                         "LoopContext", "Macro",     "function", "method"};

static const char *object_name(int kind) {
    switch (kind) {
    case JV_NONE: return "None";
    case JV_DICT: return "dict object";
    case JV_STR: return "str object";
    case JV_LIST: return "list object";
    case JV_TUPLE: return "tuple object";
    case JV_BOOL: return "bool object";
    case JV_BIG:
    case JV_INT: return "int object";
    case JV_FLOAT: return "float object";
    case JV_SPACE: return "jinja2.utils.Namespace object";
    default: return type_names[kind];
    }
}
bool jinja_fail_undef(jinja *j, jv v) {
    if (v.why == WHY_NAME) return jinja_fail(j, "'" STR_FMT "' is undefined", STR_ARG(*v.name));
    if (v.why == WHY_MEMBER)
        return jinja_fail(j, "'%s' has no attribute '" STR_FMT "'", object_name(v.of),
                          STR_ARG(*v.name));
    if (v.why == WHY_ELEMENT)
        return jinja_fail(j, "'%s' has no such element", object_name(v.of));
    return jinja_fail(j, "%s", v.undef ? v.undef : "a value is undefined");
}

jv jv_list(jinja *j, jv_kind kind, size_t n) {
    jlist *l = jinja_alloc(j, sizeof *l);
    if (!l || n > SIZE_MAX / sizeof(jv) / 2 || !jinja_walk(j, n)) return jv_undef();
    *l = (jlist){.n = n, .v = n ? jinja_alloc(j, n * sizeof(jv)) : NULL};
    if (n && !l->v) return jv_undef();
    return (jv){.kind = (uint8_t)kind, .l = l};
}
jv jv_pair(jinja *j, jv a, jv b) {
    jv t = jv_list(j, JV_TUPLE, 2);
    if (t.kind == JV_TUPLE) t.l->v[0] = a, t.l->v[1] = b;
    return t;
}
bool jlist_push(jinja *j, jlist *l, jv v, size_t *cap) {
    if (j->failed) return false;
    if (l->n == *cap) {
        size_t more = *cap ? *cap * 2 : 8;
        l->v = arena_grow(j->a, l->v, *cap * sizeof *l->v, more * sizeof *l->v);
        if (!l->v) return jinja_no_memory(j);
        *cap = more;
    }
    l->v[l->n++] = v;
    return true;
}

/* ---- dicts ---- */

uint32_t jstr_hash(str s) {
    return (uint32_t)hash64(s.ptr, s.len, 0);
}
/* Values that are equal have equal hashes: 1, 1.0 and True are one key. */
static uint32_t hash_of(jv v) {
    switch (v.kind) {
    case JV_STR: return jstr_hash(jstr_text(v.s));
    case JV_BOOL: return (uint32_t)hash_mix(v.b);
    case JV_INT: return (uint32_t)hash_mix((uint64_t)v.i);
    case JV_FLOAT:
        return v.d == floor(v.d) && fabs(v.d) < 9e18
                   ? (uint32_t)hash_mix((uint64_t)(int64_t)v.d)
                   : 3;
    default: return 7;
    }
}

bool jdict_add(jinja *j, jdict *d, jv key, jv value) {
    if (j->failed) return false;
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        d->v = arena_grow(j->a, d->v, d->cap * sizeof *d->v, cap * sizeof *d->v);
        if (!d->v) return jinja_no_memory(j);
        d->cap = cap;
    }
    d->v[d->n++] = (jpair){key, value, hash_of(key)};
    return true;
}

static jpair *find_pair(jinja *j, const jdict *d, jv key) {
    uint32_t h = hash_of(key);
    jinja_walk(j, d->n);
    for (size_t i = 0; i < d->n; i++)
        if (d->v[i].hash == h && jv_equal(j, d->v[i].key, key, 0)) return &d->v[i];
    return NULL;
}
bool jdict_set(jinja *j, jdict *d, jv key, jv value) {
    if (!jv_hashable(key)) return jinja_fail(j, "unhashable type: '%s'", jv_type(key));
    jpair *p = find_pair(j, d, key);
    if (!p) return jdict_add(j, d, key, value);
    p->value = value;
    return true;
}
const jv *jdict_get(jinja *j, const jdict *d, jv key) {
    const jpair *p = jv_hashable(key) ? find_pair(j, d, key) : NULL;
    return p ? &p->value : NULL;
}
const jv *jdict_find(const jdict *d, str key, uint32_t hash) {
    for (size_t i = 0; i < d->n; i++)
        if (d->v[i].hash == hash && d->v[i].key.kind == JV_STR &&
            str_eq(jstr_text(d->v[i].key.s), key))
            return &d->v[i].value;
    return NULL;
}

/* ---- from JSON ---- */

static jv object_of_json(jinja *j, const json_t *v, bool data, int depth) {
    jdict *d = jinja_alloc(j, sizeof *d);
    if (!d) return jv_undef();
    *d = (jdict){0};
    for (void *at = json_object_iter((json_t *)v); at && !j->failed;
         at = json_object_iter_next((json_t *)v, at)) {
        jv key = jv_str(j, str_of(json_object_iter_key(at)), data);
        jdict_add(j, d, key, jv_of_json(j, json_object_iter_value(at), data, depth));
    }
    return (jv){.kind = JV_DICT, .o = d};
}

jv jv_of_json(jinja *j, const json_t *v, bool data, int depth) {
    if (depth > JINJA_MAX_NESTING) {
        jinja_limit(j, "the messages are nested too deeply");
        return jv_undef();
    }
    switch (json_typeof(v)) {
    case JSON_OBJECT: return object_of_json(j, v, data, depth + 1);
    case JSON_ARRAY: {
        jv l = jv_list(j, JV_LIST, json_array_size(v));
        if (l.kind != JV_LIST) return l;
        for (size_t i = 0; i < l.l->n && !j->failed; i++)
            l.l->v[i] = jv_of_json(j, json_array_get(v, i), data, depth + 1);
        return l;
    }
    case JSON_STRING: return jv_str(j, json_in_text(v), data);
    case JSON_INTEGER: return jv_int(json_integer_value(v));
    case JSON_REAL: return jv_float(json_real_value(v));
    case JSON_TRUE: return jv_bool(true);
    case JSON_FALSE: return jv_bool(false);
    case JSON_NULL: break;
    }
    return jv_none();
}

/* ---- properties ---- */

const char *jv_type(jv v) {
    return v.kind == JV_LIST && v.l->look == LOOK_RANGE ? "range" : type_names[v.kind];
}
bool jv_hashable(jv v) {
    if (v.kind == JV_TUPLE)
        for (size_t i = 0; i < v.l->n; i++)
            if (!jv_hashable(v.l->v[i])) return false;
    return v.kind != JV_LIST && v.kind != JV_DICT && v.kind != JV_ITER;
}
bool jv_truth(jv v) {
    switch (v.kind) {
    case JV_UNDEF:
    case JV_NONE: return false;
    case JV_BOOL: return v.b;
    case JV_INT: return v.i != 0;
    case JV_FLOAT: return v.d != 0;
    case JV_STR: return v.s->n > 0;
    case JV_LIST:
    case JV_TUPLE: return v.l->n > 0;
    case JV_ITER: return v.l->look == LOOK_GEN || v.l->n > 0; /* as any object in Python */
    case JV_DICT: return v.o->n > 0;
    default: return true;
    }
}
double jv_as_double(jv v) {
    return v.kind == JV_FLOAT  ? v.d
           : v.kind == JV_INT  ? (double)v.i
           : v.kind == JV_BOOL ? v.b
                               : 0;
}

static bool equal_lists(jinja *j, const jlist *a, const jlist *b, int depth) {
    if (a->n != b->n || !jinja_walk(j, a->n * 16)) return false;
    for (size_t i = 0; i < a->n; i++)
        if (!jv_equal(j, a->v[i], b->v[i], depth + 1)) return false;
    return true;
}
static bool equal_dicts(jinja *j, const jdict *a, const jdict *b, int depth) {
    if (a->n != b->n || !jinja_walk(j, a->n * 16)) return false;
    for (size_t i = 0; i < a->n && !j->failed; i++) {
        const jv *other = jdict_get(j, b, a->v[i].key);
        if (!other || !jv_equal(j, a->v[i].value, *other, depth + 1)) return false;
    }
    return true;
}
bool jv_equal(jinja *j, jv a, jv b, int depth) {
    int64_t x, y;
    if (depth > JINJA_MAX_NESTING) return jinja_limit(j, "values are nested too deeply");
    if (j->failed) return false;
    if (a.kind != JV_BIG && b.kind != JV_BIG && jv_is_number(a) && jv_is_number(b))
        return jv_as_int(a, &x) && jv_as_int(b, &y) ? x == y
                                                    : jv_as_double(a) == jv_as_double(b);
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case JV_UNDEF:
    case JV_NONE: return true;
    case JV_STR:
    case JV_BIG: jinja_walk(j, a.s->n); return str_eq(jstr_text(a.s), jstr_text(b.s));
    case JV_LIST:
    case JV_TUPLE: return a.l == b.l || equal_lists(j, a.l, b.l, depth);
    case JV_DICT: return a.o == b.o || equal_dicts(j, a.o, b.o, depth);
    case JV_GLOBAL: return a.i == b.i;
    case JV_METHOD:
        return a.method->fn == b.method->fn &&
               jv_equal(j, a.method->self, b.method->self, depth + 1);
    default: return a.l == b.l; /* the pointers */
    }
}

static int order(double a, double b) {
    return a < b ? -1 : a > b;
}
static bool compare_lists(jinja *j, const jlist *a, const jlist *b, const char *sign, int *out,
                          int depth) {
    if (!jinja_walk(j, a->n * 16)) return false;
    for (size_t i = 0; i < a->n && i < b->n; i++)
        if (!jv_equal(j, a->v[i], b->v[i], depth + 1))
            return !j->failed && jv_compare(j, a->v[i], b->v[i], sign, out, depth + 1);
    *out = order((double)a->n, (double)b->n);
    return !j->failed;
}
bool jv_compare(jinja *j, jv a, jv b, const char *sign, int *out, int depth) {
    int64_t x, y;
    if (depth > JINJA_MAX_NESTING) return jinja_limit(j, "values are nested too deeply");
    if (a.kind == JV_UNDEF) return jinja_fail_undef(j, a);
    if (b.kind == JV_UNDEF) return jinja_fail_undef(j, b);
    if (a.kind != JV_BIG && b.kind != JV_BIG && jv_is_number(a) && jv_is_number(b)) {
        *out = jv_as_int(a, &x) && jv_as_int(b, &y) ? (x < y ? -1 : x > y)
                                                    : order(jv_as_double(a), jv_as_double(b));
        return true;
    }
    if (a.kind == JV_STR && b.kind == JV_STR) {
        size_t n = a.s->n < b.s->n ? a.s->n : b.s->n;
        int c = n ? memcmp(a.s->p, b.s->p, n) : 0;
        *out = c ? c : order((double)a.s->n, (double)b.s->n);
        return jinja_walk(j, n);
    }
    if (a.kind == b.kind && (a.kind == JV_LIST || a.kind == JV_TUPLE))
        return compare_lists(j, a.l, b.l, sign, out, depth);
    return jinja_fail(j, "'%s' not supported between instances of '%s' and '%s'", sign,
                      jv_type(a), jv_type(b));
}

bool jv_contains(jinja *j, jv item, jv in, bool *out) {
    jv *v;
    size_t n;
    *out = false;
    if (in.kind == JV_STR) {
        if (item.kind != JV_STR)
            return jinja_fail(j, "'in <string>' requires string as left operand, not %s",
                              jv_type(item));
        *out = str_find(jstr_text(in.s), jstr_text(item.s), 0) != SIZE_MAX;
        return jinja_walk(j, in.s->n);
    }
    if (in.kind == JV_DICT) {
        if (!jv_hashable(item)) return jinja_fail(j, "unhashable type: '%s'", jv_type(item));
        *out = jdict_get(j, in.o, item) != NULL;
        return !j->failed;
    }
    if (in.kind != JV_LIST && in.kind != JV_TUPLE && in.kind != JV_ITER && in.kind != JV_UNDEF)
        return jinja_fail(j, "argument of type '%s' is not iterable", jv_type(in));
    if (!jv_items(j, in, &v, &n) || !jinja_walk(j, n * 16)) return false;
    for (size_t i = 0; i < n && !*out; i++) *out = jv_equal(j, v[i], item, 0);
    return !j->failed;
}

/* ---- iteration ---- */

static bool string_items(jinja *j, const jstr *s, jv **items, size_t *n) {
    jv *v = jinja_alloc(j, (s->n_chars + 1) * sizeof *v);
    jstr *part = jinja_alloc(j, (s->n_chars + 1) * sizeof *part);
    if (!v || !part || !jinja_walk(j, s->n * 16)) return false;
    size_t k = 0, from = 0;
    for (size_t i = 1; i <= s->n; i++) {
        if (i < s->n && (s->p[i] & 0xc0) == 0x80) continue;
        part[k] = (jstr){
            .p = s->p + from, .n = i - from, .n_chars = 1, .data = jstr_data_at(s, from)};
        v[k] = (jv){.kind = JV_STR, .s = &part[k]};
        k++;
        from = i;
    }
    *items = v;
    *n = k;
    return true;
}

bool jv_items(jinja *j, jv of, jv **items, size_t *n) {
    *items = NULL;
    *n = 0;
    switch (of.kind) {
    case JV_UNDEF: return !j->failed;
    case JV_STR: return string_items(j, of.s, items, n);
    case JV_LIST:
    case JV_TUPLE:
    case JV_ITER:
        *items = of.l->v ? of.l->v + of.l->from : NULL;
        *n = of.l->n - of.l->from;
        if (of.kind == JV_ITER && of.l->look == LOOK_GEN) of.l->from = of.l->n;
        return !j->failed;
    case JV_DICT: {
        jv *keys = jinja_alloc(j, (of.o->n + 1) * sizeof *keys);
        if (!keys || !jinja_walk(j, of.o->n)) return false;
        for (size_t i = 0; i < of.o->n; i++) keys[i] = of.o->v[i].key;
        *items = keys;
        *n = of.o->n;
        return true;
    }
    default: return jinja_fail(j, "'%s' object is not iterable", jv_type(of));
    }
}
