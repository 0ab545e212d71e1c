/* What the other files of the translation share: errors that name a place in the document, what a
 * reference refers to, lists. Any thread. */
#include <stdlib.h>

#include "base/buf.h"
#include "text/grammar/schema_in.h"

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
    if (!arena_place(t->mem, &l->v, l->n, &l->cap, sizeof *l->v, 8)) return false;
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

/* ---- which schemas there are, and in which resource each is ---- */

/* A part of the document with an identifier of its own; the first one is the document. */
typedef struct resource {
    const struct resource *next;
    str uri; /* without fragment; empty: it has none */
    const json_t *root;
} resource;

typedef struct schema_home {
    const json_t *schema;
    const resource *in;
} home;

/* Keywords that hold schemas; in a map these are the members. What stands in others is data. */
static const struct {
    const char *key;
    bool map;
} holders[] = {{"items", false},
               {"prefixItems", false},
               {"additionalItems", false},
               {"contains", false},
               {"unevaluatedItems", false},
               {"properties", true},
               {"patternProperties", true},
               {"additionalProperties", false},
               {"propertyNames", false},
               {"unevaluatedProperties", false},
               {"dependentSchemas", true},
               {"dependencies", true},
               {"allOf", false},
               {"anyOf", false},
               {"oneOf", false},
               {"not", false},
               {"if", false},
               {"then", false},
               {"else", false},
               {"contentSchema", false},
               {"$defs", true},
               {"definitions", true}};

static str text_of(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_string(v) ? json_in_text(v) : STR("");
}

static str without_fragment(str s) {
    const char *mark = s.len ? memchr(s.ptr, '#', s.len) : NULL;
    return mark ? (str){s.ptr, (size_t)(mark - s.ptr)} : s;
}

static status add_resource(translator *t, const json_t *root, str uri, const resource **out) {
    resource *r = arena_alloc(t->mem, sizeof *r);
    if (!r) return schema_no_memory(t);
    *r = (resource){t->resources, uri, root};
    *out = t->resources = r;
    return OK;
}

static status add_home(translator *t, const json_t *schema, const resource *in) {
    if (!arena_place(t->mem, &t->homes, t->n_homes, &t->cap_homes, sizeof *t->homes, 64))
        return schema_no_memory(t);
    t->homes[t->n_homes++] = (home){schema, in};
    return OK;
}

static status add_schemas(translator *t, const json_t *o, const resource *in, int depth);

static status add_held(translator *t, const json_t *v, bool map, const resource *in,
                       int depth) {
    status st = OK;
    const char *key;
    json_t *one;
    size_t i;
    if (json_is_object(v) && !map) return add_schemas(t, v, in, depth);
    json_array_foreach(v, i, one) if (st == OK) st = add_schemas(t, one, in, depth);
    json_object_foreach((json_t *)(uintptr_t)v, key, one) {
        if (st == OK) st = add_schemas(t, one, in, depth);
    }
    return st;
}

/* The schema o and those in it. in: of what is around it. */
static status add_schemas(translator *t, const json_t *o, const resource *in, int depth) {
    if (!json_is_object(o) || depth > MAX_DEPTH || !rules_spend(t->r, 20)) return OK;
    const str id = without_fragment(text_of(o, "$id"));
    status st = OK;
    if (id.len || !in) {
        str uri = schema_uri(t->mem, in ? in->uri : STR(""), id);
        st = uri.ptr || !id.len ? add_resource(t, o, uri, &in) : schema_no_memory(t);
    }
    if (st == OK) st = add_home(t, o, in);
    for (size_t i = 0; i < sizeof holders / sizeof *holders && st == OK; i++) {
        const json_t *v = json_object_get(o, holders[i].key);
        if (v) st = add_held(t, v, holders[i].map, in, depth + 1);
    }
    return st;
}

static int by_schema(const void *a, const void *b) {
    const uintptr_t x = (uintptr_t)((const home *)a)->schema,
                    y = (uintptr_t)((const home *)b)->schema;
    return (x > y) - (x < y);
}

status schema_find_all(translator *t, const json_t *o, const struct resource *in) {
    status st = add_schemas(t, o, in, 0);
    if (t->n_homes) qsort(t->homes, t->n_homes, sizeof *t->homes, by_schema);
    return st;
}

/* NULL: the schema is none of the document's. */
static const resource *resource_of(const translator *t, const json_t *schema) {
    const home key = {schema, NULL};
    const home *h =
        t->n_homes ? bsearch(&key, t->homes, t->n_homes, sizeof key, by_schema) : NULL;
    if (h) return h->in;
    return t->resources && !t->resources->next ? t->resources : NULL;
}

/* A schema with keyword: name; in NULL: of any resource. */
static const json_t *find_named(const translator *t, const char *keyword, str name,
                                const resource *in, int *n) {
    const json_t *found = NULL;
    rules_spend(t->r, t->n_homes);
    for (uint32_t i = 0; i < t->n_homes; i++) {
        const home *h = &t->homes[i];
        const json_t *v = json_object_get(h->schema, keyword);
        if ((in && h->in != in) || !json_is_string(v) || !str_eq(json_in_text(v), name))
            continue;
        ++*n;
        found = h->schema;
    }
    return found;
}

bool schema_is_dynamic(const translator *t, str ref) {
    const char *mark = ref.len ? memchr(ref.ptr, '#', ref.len) : NULL;
    int n = 0;
    if (!mark) return false;
    find_named(t, "$dynamicAnchor", (str){mark + 1, ref.len - (size_t)(mark + 1 - ref.ptr)},
               NULL, &n);
    return n > 1;
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

/* *in: the resource of what is around the place that is reached. */
static const json_t *walk(const translator *t, const json_t *v, str pointer,
                          const resource **in) {
    while (pointer.len && v) {
        buf b;
        const char *slash = memchr(pointer.ptr + 1, '/', pointer.len - 1);
        size_t n = slash ? (size_t)(slash - pointer.ptr) : pointer.len;
        const resource *own = resource_of(t, v);
        if (own) *in = own;
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

static bool is_indexed(const translator *t, const json_t *schema) {
    const home key = {schema, NULL};
    return bsearch(&key, t->homes, t->n_homes, sizeof key, by_schema) != NULL;
}

/* What a pointer leads to may be a schema where the standard has none. */
static status at_pointer(translator *t, const resource *in, str pointer, const json_t **out) {
    *out = walk(t, in->root, pointer, &in);
    return json_is_object(*out) && !is_indexed(t, *out) ? schema_find_all(t, *out, in) : OK;
}

static status at_anchor(translator *t, const json_t *at, const resource *in, str name,
                        const json_t **out) {
    int n = 0;
    *out = find_named(t, "$anchor", name, in, &n);
    if (n == 0) *out = find_named(t, "$dynamicAnchor", name, in, &n);
    return n > 1 ? schema_refuse(t, "$anchor that is not unique", at) : OK;
}

/* The resource that a reference within `in` names. */
static status find_resource(translator *t, const json_t *at, str ref, const resource **in) {
    const resource *found = NULL;
    const str uri = schema_uri(t->mem, (*in)->uri, ref);
    if (!uri.ptr) return schema_no_memory(t);
    for (const resource *r = t->resources; r; r = r->next) {
        if (!str_eq(r->uri, uri)) continue;
        if (found) return schema_refuse(t, "$id that is not unique", at);
        found = r;
    }
    *in = found;
    return found ? OK : schema_refuse(t, "$ref to another document", at);
}

status schema_resolve(translator *t, const json_t *at, str ref, const json_t **out) {
    const resource *in = resource_of(t, at);
    const str uri = without_fragment(ref);
    status st = OK;
    *out = NULL;
    if (!in) return schema_refuse(t, "$ref beside $id", at);
    if (uri.len) st = find_resource(t, at, uri, &in);
    str to = uri.len < ref.len ? (str){ref.ptr + uri.len + 1, ref.len - uri.len - 1} : STR("");
    if (st == OK && !to.len) *out = in->root;
    if (st == OK && to.len)
        st = to.ptr[0] == '/' ? at_pointer(t, in, to, out) : at_anchor(t, at, in, to, out);
    if (st != OK || json_is_object(*out) || json_is_boolean(*out)) return st;
    if (!*t->r->work) return err_set(t->e, ERR_INVALID, "the JSON schema is too large");
    return schema_wrong(t, "$ref refers to nothing", at);
}
