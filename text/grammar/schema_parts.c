/* What a shape demands of a member or an element, and whether a value has a shape, or nothing can.
 * Any thread. */
#include "text/grammar/schema_in.h"

/* ---- members ---- */

/* Whether `from` is the step `owner`, or came from it by schemas that hold (not by a negation). */
static bool is_under(const step *from, const step *owner) {
    for (; from; from = from->parent) {
        if (from == owner) return true;
        if (from->lit.negated) return false;
    }
    return false;
}

static status pattern_takes(translator *t, const char *pattern, str name, bool *takes) {
    dfa d;
    json_t *p = json_string(pattern);
    if (!p) return schema_no_memory(t);
    status st = schema_pattern(t, p, &d);
    *takes = st == OK && dfa_takes(&d, name);
    return st;
}

/* Adds what one schema says of a member; *known: it says something. */
static status member_of(translator *t, const json_t *o, str name, literals *out, bool *known) {
    const json_t *props = json_object_get(o, "properties"), *v;
    json_t *patterns = json_object_get(o, "patternProperties"), *sub;
    const char *key;
    *known = false;
    v = json_object_getn(props, name.len ? name.ptr : "", name.len);
    if (v) {
        *known = true;
        if (out && !literals_add(t, out, (literal){v, false})) return schema_no_memory(t);
    }
    json_object_foreach(patterns, key, sub) {
        bool takes;
        status st = pattern_takes(t, key, name, &takes);
        if (st != OK) return st;
        if (!takes) continue;
        *known = true;
        if (out && !literals_add(t, out, (literal){sub, false})) return schema_no_memory(t);
    }
    v = json_object_get(o, "additionalProperties");
    if (*known || !v) return OK;
    *known = true;
    return !out || literals_add(t, out, (literal){v, false}) ? OK : schema_no_memory(t);
}

/* unevaluatedProperties of an owner holds for what no schema under the owner says something of. */
static status add_loose_member(translator *t, const shape *s, const cell *loose, str name,
                               literals *out) {
    bool known = false;
    for (const cell *c = s->objects; c && !known; c = c->next) {
        if (!is_under(c->from, loose->from)) continue;
        status st = member_of(t, c->v, name, NULL, &known);
        if (st != OK) return st;
    }
    for (const cell *c = s->loose_members; c && !known; c = c->next)
        known = c != loose && c->from != loose->from && is_under(c->from, loose->from);
    return known || literals_add(t, out, loose->lit) ? OK : schema_no_memory(t);
}

status schema_member(translator *t, const shape *s, str name, literals *out) {
    status st = OK;
    bool known;
    for (const cell *c = s->objects; c && st == OK; c = c->next)
        st = member_of(t, c->v, name, out, &known);
    for (const cell *c = s->loose_members; c && st == OK; c = c->next)
        st = add_loose_member(t, s, c, name, out);
    return st;
}

/* ---- elements ---- */

static const json_t *prefix_of(const json_t *o) {
    const json_t *p = json_object_get(o, "prefixItems"), *items = json_object_get(o, "items");
    return p ? p : json_is_array(items) ? items : NULL; /* the older form */
}

static const json_t *rest_of(const json_t *o) {
    const json_t *items = json_object_get(o, "items");
    return json_is_array(items) ? json_object_get(o, "additionalItems") : items;
}

size_t schema_prefix(const shape *s) {
    size_t most = 0;
    for (const cell *c = s->arrays; c; c = c->next) {
        size_t n = json_array_size(prefix_of(c->v));
        if (n > most) most = n;
    }
    return most;
}

static const json_t *element_of(const json_t *o, size_t i) {
    const json_t *p = prefix_of(o);
    return i < json_array_size(p) ? json_array_get(p, i) : rest_of(o);
}

status schema_element(translator *t, const shape *s, size_t i, literals *out) {
    for (const cell *c = s->arrays; c; c = c->next) {
        const json_t *v = element_of(c->v, i);
        if (v && !literals_add(t, out, (literal){v, false})) return schema_no_memory(t);
    }
    for (const cell *l = s->loose_items; l; l = l->next) {
        bool known = false;
        for (const cell *c = s->arrays; c && !known; c = c->next)
            known = is_under(c->from, l->from) && element_of(c->v, i);
        for (const cell *c = s->loose_items; c && !known; c = c->next)
            known = c != l && c->from != l->from && is_under(c->from, l->from);
        if (!known && !literals_add(t, out, l->lit)) return schema_no_memory(t);
    }
    return OK;
}

/* ---- emptiness ---- */

/* Whether no value meets all literals. */
static status none_meets(translator *t, const literals *l, bool *none) {
    shapes all = {0};
    *none = false;
    if (l->n == 0 || t->depth > 6) return OK;
    t->depth++;
    err keep = *t->e;
    status st = schema_expand(t, l->v, l->n, &all);
    *none = st == OK;
    for (uint32_t i = 0; st == OK && *none && i < all.n; i++) {
        all.v[i].formats = NULL;
        st = schema_is_empty(t, &all.v[i], none);
    }
    t->depth--;
    if (st == ERR_UNSUPPORTED) *t->e = keep, *none = false, st = OK;
    return st;
}

static status object_is_empty(translator *t, const shape *s, bool *empty) {
    *empty = s->min_members > s->max_members;
    for (const cell *c = s->required; c && !*empty; c = c->next) {
        literals l = {0};
        status st = schema_member(t, s, c->key, &l);
        if (st == OK) st = none_meets(t, &l, empty);
        if (st != OK) return st;
    }
    return OK;
}

static status values_are_gone(translator *t, const shape *s, bool *gone) {
    size_t i;
    json_t *v;
    shape rest = *s;
    *gone = true;
    rest.only = NULL;
    json_array_foreach(s->only, i, v) {
        bool fits;
        status st = schema_fits(t, &rest, v, &fits);
        if (st != OK) return st;
        if (fits) return *gone = false, OK;
    }
    return OK;
}

static bool no_number(const shape *s) {
    return s->lo.set && s->hi.set &&
           (s->lo.v > s->hi.v || (s->lo.v == s->hi.v && (s->lo.exclusive || s->hi.exclusive)));
}

status schema_is_empty(translator *t, const shape *s, bool *empty) {
    unsigned left = s->types;
    status st = OK;
    bool none;
    *empty = false;
    if (s->only) return values_are_gone(t, s, empty);
    if (left & ~(unsigned)(TYPE_INT | TYPE_FRACTION | TYPE_STRING | TYPE_ARRAY | TYPE_OBJECT))
        return OK; /* null and the like, which a list of values may exclude: not looked at */
    if (no_number(s)) left &= ~(unsigned)(TYPE_INT | TYPE_FRACTION);
    if (left & (TYPE_INT | TYPE_FRACTION)) return OK;
    if (left & TYPE_STRING) {
        dfa d;
        bool plain;
        st = schema_string_dfa(t, s, &d, &plain);
        if (st != OK) return st;
        if (plain ? s->min_chars > s->max_chars : dfa_is_empty(&d))
            left &= ~(unsigned)TYPE_STRING;
    }
    if (left & TYPE_ARRAY && s->min_items > s->max_items) left &= ~(unsigned)TYPE_ARRAY;
    if (left & TYPE_OBJECT) {
        st = object_is_empty(t, s, &none);
        if (st != OK) return st;
        if (none) left &= ~(unsigned)TYPE_OBJECT;
    }
    *empty = left == 0;
    return OK;
}

/* ---- values ---- */

unsigned schema_type_of(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_NULL: return TYPE_NULL;
    case JSON_TRUE: return TYPE_TRUE;
    case JSON_FALSE: return TYPE_FALSE;
    case JSON_STRING: return TYPE_STRING;
    case JSON_ARRAY: return TYPE_ARRAY;
    case JSON_OBJECT: return TYPE_OBJECT;
    case JSON_INTEGER: return TYPE_INT;
    default: break;
    }
    double x = json_real_value(v);
    return x == (double)(int64_t)x ? TYPE_INT : TYPE_FRACTION;
}

static status meets(translator *t, const literal *l, uint32_t n, const json_t *v, bool *out) {
    shapes all = {0};
    if (t->depth > 100) return schema_refuse(t, "a value so deeply nested", v);
    t->depth++;
    status st = schema_expand(t, l, n, &all);
    *out = false;
    for (uint32_t i = 0; st == OK && !*out && i < all.n; i++)
        st = schema_fits(t, &all.v[i], v, out);
    t->depth--;
    return st;
}

static status array_fits(translator *t, const shape *s, const json_t *v, bool *fits) {
    size_t n = json_array_size(v);
    *fits = n >= s->min_items && n <= s->max_items;
    for (size_t i = 0; i < n && *fits; i++) {
        literals l = {0};
        status st = schema_element(t, s, i, &l);
        if (st == OK) st = meets(t, l.v, l.n, json_array_get(v, i), fits);
        if (st != OK) return st;
    }
    for (size_t i = 0; s->unique && i < n && *fits; i++)
        for (size_t k = 0; k < i && *fits; k++)
            *fits = !schema_equal(json_array_get(v, i), json_array_get(v, k));
    return s->contains && *fits
               ? schema_refuse(t, "contains beside enum or const", s->contains->v)
               : OK;
}

static status object_fits(translator *t, const shape *s, const json_t *v, bool *fits) {
    size_t n = json_object_size(v);
    const char *key;
    json_t *member;
    *fits = n >= s->min_members && n <= s->max_members;
    for (const cell *c = s->required; c && *fits; c = c->next)
        *fits = json_object_getn(v, c->key.len ? c->key.ptr : "", c->key.len) != NULL;
    json_object_foreach((json_t *)(uintptr_t)v, key, member) {
        literals l = {0};
        status st = *fits ? schema_member(t, s, str_of(key), &l) : OK;
        if (*fits && st == OK) st = meets(t, l.v, l.n, member, fits);
        for (const cell *c = s->names; c && *fits && st == OK; c = c->next)
            st = meets(t, &c->lit, 1, json_string(key), fits);
        if (st != OK) return st;
    }
    return OK;
}

status schema_fits(translator *t, const shape *s, const json_t *v, bool *fits) {
    unsigned type = schema_type_of(v);
    size_t i;
    json_t *other;
    status st = OK;
    *fits = (s->types & type) != 0;
    if (!*fits) return OK;
    if (s->only) {
        bool in = false;
        json_array_foreach(s->only, i, other) in |= schema_equal(v, other);
        *fits &= in;
    }
    for (const cell *c = s->not_values; c; c = c->next)
        json_array_foreach(c->v, i, other) *fits &= !schema_equal(v, other);
    if (!*fits) return OK;
    int bit = __builtin_ctz(type);
    if (s->refused[bit]) return schema_refuse(t, s->refused[bit], s->refused_at[bit]);
    if (type & (TYPE_INT | TYPE_FRACTION)) *fits = schema_number_fits(s, v);
    if (type == TYPE_STRING) *fits = schema_string_fits(t, s, json_in_text(v), &st);
    if (type == TYPE_ARRAY) st = array_fits(t, s, v, fits);
    if (type == TYPE_OBJECT) st = object_fits(t, s, v, fits);
    return st;
}
