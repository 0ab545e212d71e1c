/* JSON from outside. Owns nothing: values live in the caller's arena. jansson's allocator is
 * set once for the process; which arena it draws on is a matter of the thread. */
#include "json/in.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

/* jansson takes its allocator without a context word, so the arena in use travels in a
 * thread-local: set around each use, never across a callback. */
static _Thread_local arena *current;
/* Where a parse that has run out of memory ends. jansson 2.14 passes over a failed allocation
 * within a string and then reads and writes past its buffer, so it never sees one: what it has
 * taken lies in the arena, and nothing else needs to be undone. */
static _Thread_local jmp_buf *exhausted;

static void *take(size_t bytes) {
    void *p = current ? arena_alloc(current, bytes) : malloc(bytes);
    if (!p && exhausted) longjmp(*exhausted, 1);
    return p;
}
static void give(void *p) {
    if (!current) free(p);
}
static void install(void) {
    json_set_alloc_funcs(take, give);
}

arena *json_use_arena(arena *a) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    CHECK(pthread_once(&once, install) == 0);
    arena *before = current;
    current = a;
    return before;
}

/* ---- what JSON allows and jansson refuses ---- */

/* Of the string whose first quote is at at: where its last quote is, or the end of the text. */
static size_t string_end(str s, size_t at) {
    while (++at < s.len && s.ptr[at] != '"')
        if (s.ptr[at] == '\\') at++;
    return at < s.len ? at : s.len;
}

/* \u0000 in a key becomes \ufffd, which no parameter's name has either. */
static void mend_key(char *p, size_t from, size_t to) {
    for (size_t i = from; i + 6 <= to; i++) {
        if (p[i] != '\\') continue;
        if (memcmp(p + i, "\\u0000", 6) == 0) memcpy(p + i, "\\ufffd", 6);
        i++; /* what is escaped is no backslash of another escape */
    }
}

/* RFC 8259, section 6 */
static bool is_number(const char *p, size_t n, bool *whole) {
    static const char digits[] = "0123456789";
    const char *at = p + (*p == '-');
    size_t k = strspn(at, digits);
    if (k == 0 || (k > 1 && *at == '0')) return false;
    at += k;
    *whole = true;
    if (*at == '.') {
        k = strspn(++at, digits);
        if (k == 0) return false;
        at += k, *whole = false;
    }
    if (*at == 'e' || *at == 'E') {
        at += 1 + (at[1] == '+' || at[1] == '-');
        k = strspn(at, digits);
        if (k == 0) return false;
        at += k, *whole = false;
    }
    return at == p + n;
}

/* A number that fits neither an int64_t nor a double becomes a real number in the same place, of
 * about its value or else of 9e99. Others stay. */
static void mend_number(char *p, size_t n) {
    char real[32];
    bool whole;
    if (n < 5 || !is_number(p, n, &whole)) return;
    errno = 0;
    if (whole) strtoll(p, NULL, 10);
    double v = strtod(p, NULL);
    if (isfinite(v) && (!whole || errno != ERANGE)) return;
    if (isfinite(v))
        snprintf(real, sizeof real, "%.10e", v);
    else
        snprintf(real, sizeof real, "%s9e99", v < 0 ? "-" : "");
    size_t k = strlen(real);
    memcpy(p, real, k);
    memset(p + k, ' ', n - k);
}

/* A name or number of no use must not make a whole body invalid: it is replaced by another of
 * the same length, which no getter takes either. p[len] is 0. */
static void mend(char *p, size_t len) {
    for (size_t i = 0, end; i < len; i = end) {
        end = i + 1;
        if (p[i] == '"') {
            end = string_end((str){p, len}, i);
            end += end < len;
            size_t next = end + strspn(p + end, " \t\r\n");
            if (p[next] == ':') mend_key(p, i + 1, end);
        } else if (p[i] == '-' || (p[i] >= '0' && p[i] <= '9')) {
            end = i + strspn(p + i, "0123456789.eE+-");
            mend_number(p + i, end - i);
        }
    }
}

static bool is_mendable(const json_error_t *je) {
    enum json_error_code code = json_error_code(je);
    return code == json_error_numeric_overflow || code == json_error_null_byte_in_key;
}

bool json_within(arena *a, void (*work)(void *), void *arg) {
    arena *before = json_use_arena(a);
    jmp_buf end;
    volatile bool done = false;
    exhausted = &end;
    if (setjmp(end) == 0) {
        work(arg);
        done = true;
    }
    exhausted = NULL;
    json_use_arena(before);
    return done;
}

typedef struct loading {
    str text;
    json_error_t *error;
    const json_t *v;
} loading;

static void load_text(void *arg) {
    loading *l = arg;
    l->v = json_loadb(l->text.ptr ? l->text.ptr : "", l->text.len, JSON_ALLOW_NUL, l->error);
}

/* NULL with *full: no memory; NULL without: no JSON. */
static const json_t *load(arena *a, str text, json_error_t *je, bool *full) {
    loading l = {.text = text, .error = je};
    *full = !json_within(a, load_text, &l);
    return *full ? NULL : l.v;
}

status json_in_parse(const json_t **out, arena *a, str text, err *e) {
    json_error_t je;
    if (str_starts(text, STR("\xef\xbb\xbf"))) text.ptr += 3, text.len -= 3; /* RFC 8259, 8.1 */
    bool full;
    *out = load(a, text, &je, &full);
    if (!*out && !full && is_mendable(&je)) {
        str copy = arena_str(a, text);
        full = !copy.ptr;
        if (copy.ptr) mend((char *)copy.ptr, copy.len);
        if (copy.ptr) *out = load(a, copy, &je, &full);
    }
    if (*out) return OK;
    if (full) return err_set(e, ERR_NO_MEMORY, "no memory to parse the request");
    if (text.len == 0) {
        err_set(e, ERR_INVALID, "the request has no body; it must be a JSON object");
        return e->code;
    }
    return err_set(e, ERR_INVALID, "the body is not valid JSON: %s, line %d, column %d",
                   je.text, je.line, je.column);
}

const char *json_in_kind(const json_t *v) {
    if (!v) return "absent";
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    }
    return "something else";
}

status json_in_wrong(err *e, const char *name, const char *want, const json_t *got) {
    err_set(e, ERR_INVALID, "%s must be %s, not %s", name, want, json_in_kind(got));
    return err_field(e, "%s", name);
}

static const json_t *member(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return v && !json_is_null(v) ? v : NULL;
}

bool json_in_has(const json_t *o, const char *key) {
    return member(o, key) != NULL;
}

status json_in_bool(const json_t *o, const char *key, bool *out, err *e) {
    const json_t *v = member(o, key);
    if (!v) return OK;
    if (!json_is_boolean(v)) return json_in_wrong(e, key, "true or false", v);
    *out = json_is_true(v);
    return OK;
}

status json_in_int(const json_t *o, const char *key, int64_t lo, int64_t hi, int64_t *out,
                   err *e) {
    const json_t *v = member(o, key);
    if (!v) return OK;
    if (!json_is_number(v)) return json_in_wrong(e, key, "an integer", v);
    double real = json_number_value(v);
    bool whole = json_is_integer(v) || (fabs(real) < 0x1p53 && real == floor(real));
    int64_t n = !whole ? 0 : json_is_integer(v) ? json_integer_value(v) : (int64_t)real;
    if (!whole || n < lo || n > hi) {
        err_set(e, ERR_INVALID, "%s must be an integer from %lld to %lld, not %.15g", key,
                (long long)lo, (long long)hi, real);
        return err_field(e, "%s", key);
    }
    *out = n;
    return OK;
}

status json_in_real(const json_t *o, const char *key, double lo, double hi, double *out,
                    err *e) {
    const json_t *v = member(o, key);
    if (!v) return OK;
    if (!json_is_number(v)) return json_in_wrong(e, key, "a number", v);
    double real = json_number_value(v);
    if (!(real >= lo && real <= hi)) {
        err_set(e, ERR_INVALID, "%s must be from %g to %g, not %.15g", key, lo, hi, real);
        return err_field(e, "%s", key);
    }
    *out = real;
    return OK;
}

status json_in_str(const json_t *o, const char *key, str *out, err *e) {
    const json_t *v = member(o, key);
    if (!v) return OK;
    if (!json_is_string(v)) return json_in_wrong(e, key, "a string", v);
    *out = json_in_text(v);
    return OK;
}

str json_in_text(const json_t *v) {
    return (str){json_string_value(v), json_string_length(v)};
}
