/* What the other files of the translation share: errors that name a place in the document, what a
 * reference refers to, lists. Any thread. */
#include <stdlib.h>

#include "base/buf.h"
#include "text/schema_in.h"

enum { MAX_DEPTH = 400 };

/* ---- from a value to its pointer ---- */

static void add_token(buf *b, const char *key) {
    buf_addc(b, '/');
    for (; *key; key++)
        buf_add(b, *key == '~' ? STR("~0") : *key == '/' ? STR("~1") : (str){key, 1});
}

static bool point(const json_t *v, const json_t *at, buf *b, int depth) {
    const char *key;
    json_t *member;
    size_t i, len = b->len;
    if (v == at) return true;
    if (depth > MAX_DEPTH) return false;
    if (json_is_object(v)) {
        json_object_foreach((json_t *)(uintptr_t)v, key, member) {
            add_token(b, key);
            if (point(member, at, b, depth + 1)) return true;
            b->len = len;
        }
    }
    json_array_foreach(v, i, member) {
        buf_addf(b, "/%zu", i);
        if (point(member, at, b, depth + 1)) return true;
        b->len = len;
    }
    return false;
}

void schema_pointer(const translator *t, const json_t *at, buf *out) {
    size_t len = out->len;
    buf_addc(out, '#');
    if (!point(t->root, at, out, 0)) out->len = len;
}

/* ---- errors, lists, types ---- */

status schema_no_memory(translator *t) {
    return err_set(t->e, ERR_NO_MEMORY, "no memory for a JSON schema");
}

static status report(translator *t, status code, const char *what, const char *more,
                     const json_t *at) {
    buf b;
    buf_init(&b, t->mem);
    schema_pointer(t, at, &b);
    err_set(t->e, code, "%s%s at %.200s", what, more, b.len ? buf_cstr(&b) : "#");
    return code;
}

status schema_refuse(translator *t, const char *keyword, const json_t *at) {
    return report(t, ERR_UNSUPPORTED, keyword, " is not supported in a JSON schema", at);
}

status schema_wrong(translator *t, const char *what, const json_t *at) {
    return report(t, ERR_INVALID, what, "", at);
}

cell *schema_cell(translator *t, const cell *next) {
    cell *c = arena_zalloc(t->mem, sizeof *c);
    if (c) c->next = next;
    return c;
}

bool literals_add(translator *t, literals *l, literal x) {
    for (uint32_t i = 0; i < l->n; i++)
        if (l->v[i].schema == x.schema && l->v[i].negated == x.negated) return true;
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 8;
        literal *v = arena_grow(t->mem, l->v, l->cap * sizeof *v, cap * sizeof *v);
        if (!v) return false;
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = x;
    return true;
}

unsigned schema_type(str s) {
    static const struct {
        const char *name;
        unsigned types;
    } t[] = {{"null", TYPE_NULL},     {"boolean", TYPE_FALSE | TYPE_TRUE},
             {"integer", TYPE_INT},   {"number", TYPE_INT | TYPE_FRACTION},
             {"string", TYPE_STRING}, {"array", TYPE_ARRAY},
             {"object", TYPE_OBJECT}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (str_eqz(s, t[i].name)) return t[i].types;
    return 0;
}

unsigned schema_types(const json_t *v) {
    unsigned all = 0;
    size_t i;
    json_t *one;
    if (json_is_string(v)) return schema_type(json_in_text(v));
    json_array_foreach(v, i, one) {
        unsigned k = json_is_string(one) ? schema_type(json_in_text(one)) : 0;
        if (!k) return 0;
        all |= k;
    }
    return all;
}

bool schema_equal(const json_t *a, const json_t *b) {
    const char *key;
    json_t *v;
    size_t i;
    if (json_is_integer(a) && json_is_integer(b))
        return json_integer_value(a) == json_integer_value(b);
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    if (json_typeof(a) != json_typeof(b)) return false;
    if (json_is_array(a)) {
        if (json_array_size(a) != json_array_size(b)) return false;
        json_array_foreach(a, i, v) if (!schema_equal(v, json_array_get(b, i))) return false;
        return true;
    }
    if (!json_is_object(a)) return json_equal(a, b);
    if (json_object_size(a) != json_object_size(b)) return false;
    json_object_foreach((json_t *)(uintptr_t)a, key, v) {
        const json_t *other = json_object_get(b, key);
        if (!other || !schema_equal(v, other)) return false;
    }
    return true;
}

/* ---- anchors ---- */

static const json_t *search(const translator *t, const json_t *v, str name, const char *keyword,
                            int *n, int depth) {
    const json_t *found = NULL, *more;
    const char *key;
    json_t *member;
    size_t i;
    if (depth > MAX_DEPTH || !rules_spend(t->r, 20)) return NULL;
    if (json_is_object(v)) {
        const json_t *a = json_object_get(v, keyword);
        if (json_is_string(a) && (!name.ptr || str_eq(json_in_text(a), name))) {
            ++*n;
            found = v;
        }
        json_object_foreach((json_t *)(uintptr_t)v, key, member) {
            /* What stands in these is data. */
            if (strcmp(key, "const") == 0 || strcmp(key, "enum") == 0) continue;
            more = search(t, member, name, keyword, n, depth + 1);
            if (!found) found = more;
        }
    }
    json_array_foreach(v, i, member) {
        more = search(t, member, name, keyword, n, depth + 1);
        if (!found) found = more;
    }
    return found;
}

const json_t *schema_anchor(const translator *t, str name, int *n_found, const char *keyword) {
    *n_found = 0;
    return search(t, t->root, name, keyword, n_found, 0);
}

/* Identifiers below the root change what references mean. */
bool schema_has_ids(const translator *t) {
    int n = 0;
    search(t, t->root, (str){0}, "$id", &n, 0);
    return n > (json_is_string(json_object_get(t->root, "$id")) ? 1 : 0);
}

/* ---- references ---- */

static int hex_digit(char c) {
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* Percent signs, then ~0 and ~1, of one token of a pointer. False: malformed. */
static bool unescape(str token, buf *out) {
    for (size_t i = 0; i < token.len; i++) {
        char c = token.ptr[i];
        if (c == '%') {
            if (i + 2 >= token.len) return false;
            int h = hex_digit(token.ptr[i + 1]), l = hex_digit(token.ptr[i + 2]);
            if (h < 0 || l < 0) return false;
            c = (char)(h * 16 + l);
            i += 2;
        }
        buf_addc(out, c);
    }
    size_t n = 0;
    for (size_t i = 0; i < out->len; i++, n++) {
        out->ptr[n] = out->ptr[i];
        if (out->ptr[i] != '~') continue;
        if (i + 1 == out->len || (out->ptr[i + 1] != '0' && out->ptr[i + 1] != '1'))
            return false;
        out->ptr[n] = out->ptr[++i] == '0' ? '~' : '/';
    }
    out->len = n;
    return !out->failed;
}

static const json_t *walk(const translator *t, str pointer) {
    const json_t *v = t->root;
    while (pointer.len && v) {
        buf b;
        const char *slash = memchr(pointer.ptr + 1, '/', pointer.len - 1);
        size_t n = slash ? (size_t)(slash - pointer.ptr) : pointer.len;
        buf_init(&b, t->mem);
        if (pointer.ptr[0] != '/' || !unescape((str){pointer.ptr + 1, n - 1}, &b)) return NULL;
        const char *key = buf_cstr(&b);
        char *end;
        if (json_is_array(v)) {
            unsigned long i = strtoul(key, &end, 10);
            v = b.len && !*end ? json_array_get(v, i) : NULL;
        } else {
            v = json_object_getn(v, b.len ? b.ptr : "", b.len);
        }
        pointer = (str){pointer.ptr + n, pointer.len - n};
    }
    return v;
}

status schema_resolve(translator *t, const json_t *at, str ref, const json_t **out) {
    const json_t *id = json_object_get(t->root, "$id");
    str base = json_is_string(id) ? json_in_text(id) : STR("");
    int n;
    *out = NULL;
    if (t->nested_ids) return schema_refuse(t, "$ref beside $id", at);
    if (base.len && str_starts(ref, base) && (ref.len == base.len || ref.ptr[base.len] == '#'))
        ref = ref.len == base.len ? STR("#") : (str){ref.ptr + base.len, ref.len - base.len};
    if (ref.len == 0) ref = STR("#");
    if (ref.ptr[0] != '#') return schema_refuse(t, "$ref to another document", at);
    str to = {ref.ptr + 1, ref.len - 1};
    if (to.len == 0 || to.ptr[0] == '/') {
        *out = walk(t, to);
    } else {
        *out = schema_anchor(t, to, &n, "$anchor");
        if (n == 0) *out = schema_anchor(t, to, &n, "$dynamicAnchor");
        if (n > 1) return schema_refuse(t, "$anchor that is not unique", at);
    }
    if (json_is_object(*out) || json_is_boolean(*out)) return OK;
    if (!*t->r->work) return err_set(t->e, ERR_INVALID, "the JSON schema is too large");
    return schema_wrong(t, "$ref refers to nothing", at);
}
