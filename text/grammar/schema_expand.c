/* Sets of schemas to shapes: conjunctions are merged, alternatives multiplied out, negations pushed
 * down to the keywords. Results are in the translator's arena; any thread. */
#include "text/grammar/schema_in.h"

enum { MAX_SHAPES = 4000, MAX_STEPS = 40000, MAX_PENDING = 200, MAX_OPTIONS = 400 };

/* ---- keywords of one schema into a shape ---- */

static status add_count(translator *t, const json_t *o, const char *key, uint32_t *at,
                        bool most) {
    const json_t *v = json_object_get(o, key);
    if (!v) return OK;
    double n = json_number_value(v);
    if (!json_is_number(v) || n < 0 || n != (double)(int64_t)n) return schema_wrong(t, key, o);
    uint32_t k = n > 1e9 ? 1000000000 : (uint32_t)n;
    if (most ? k < *at : k > *at) *at = k;
    return OK;
}

static status add_bound(translator *t, const json_t *o, const char *key, bound *b,
                        bool exclusive, bool low) {
    const json_t *v = json_object_get(o, key);
    if (!v) return OK;
    if (!json_is_number(v)) return schema_wrong(t, key, o);
    double n = json_number_value(v);
    if (json_is_integer(v) &&
        (json_integer_value(v) > (1LL << 53) || json_integer_value(v) < -(1LL << 53)))
        return schema_refuse(t, key, o);
    if (b->set && (low ? n < b->v : n > b->v)) return OK;
    if (b->set && n == b->v) exclusive |= b->exclusive;
    *b = (bound){true, exclusive, n};
    return OK;
}

static status add_string(translator *t, const json_t *o, const char *key, const cell **list) {
    const json_t *v = json_object_get(o, key);
    if (!v) return OK;
    if (!json_is_string(v)) return schema_wrong(t, key, o);
    cell *c = schema_cell(t, *list);
    if (!c) return schema_no_memory(t);
    c->v = v;
    *list = c;
    return OK;
}

static status add_schema(translator *t, const json_t *o, const cell **list) {
    cell *c = schema_cell(t, *list);
    if (!c) return schema_no_memory(t);
    c->v = o;
    *list = c;
    return OK;
}

static status add_values(translator *t, const json_t *o, shape *s) {
    const json_t *e = json_object_get(o, "enum"), *c = json_object_get(o, "const");
    if (e && !json_is_array(e)) return schema_wrong(t, "enum is no list", o);
    for (int k = 0; k < 2; k++) {
        if (k ? !c : !e) continue;
        json_t *list = json_array(), *v;
        size_t i, n = k ? 1 : json_array_size(e);
        if (!list) return schema_no_memory(t);
        uint64_t cost = n * (1 + (uint64_t)json_array_size(s->only));
        if (!rules_spend(t->r, 40 * cost)) return schema_refuse(t, "so many values in enum", o);
        for (i = 0; i < n; i++) {
            v = (json_t *)(uintptr_t)(k ? c : json_array_get(e, i));
            bool in = !s->only;
            size_t j;
            json_t *other;
            json_array_foreach(s->only, j, other) in |= schema_equal(v, other);
            if (in && json_array_append(list, v) != 0) return schema_no_memory(t);
        }
        s->only = list;
    }
    return OK;
}

static status add_required(translator *t, const json_t *o, shape *s) {
    const json_t *v = json_object_get(o, "required"), *one;
    if (!v) return OK;
    if (!json_is_array(v)) return schema_wrong(t, "required is no list", o);
    for (size_t i = json_array_size(v); i-- > 0;) {
        one = json_array_get(v, i);
        if (!json_is_string(one)) return schema_wrong(t, "required has something but names", o);
        cell *c = schema_cell(t, s->required);
        if (!c) return schema_no_memory(t);
        c->key = json_in_text(one);
        s->required = c;
    }
    return OK;
}

static int type_bit(unsigned type) {
    return __builtin_ctz(type);
}

static void refuse_later(shape *s, unsigned types, const char *keyword, const json_t *at) {
    for (unsigned k = 1; k <= TYPE_OBJECT; k *= 2)
        if (types & k && !s->refused[type_bit(k)]) {
            s->refused[type_bit(k)] = keyword;
            s->refused_at[type_bit(k)] = at;
        }
}

static bool has(const json_t *o, const char *key) {
    return json_object_get(o, key) != NULL;
}

static status add_numbers(translator *t, const json_t *o, shape *s) {
    status st = add_bound(t, o, "minimum", &s->lo, false, true);
    if (st == OK) st = add_bound(t, o, "exclusiveMinimum", &s->lo, true, true);
    if (st == OK) st = add_bound(t, o, "maximum", &s->hi, false, false);
    if (st == OK) st = add_bound(t, o, "exclusiveMaximum", &s->hi, true, false);
    const json_t *m = json_object_get(o, "multipleOf");
    if (st != OK || !m) return st;
    if (!json_is_number(m) || json_number_value(m) <= 0)
        return schema_wrong(t, "multipleOf", o);
    st = add_schema(t, m, &s->multiples);
    return st;
}

static status add_strings(translator *t, const json_t *o, shape *s) {
    status st = add_count(t, o, "minLength", &s->min_chars, false);
    if (st == OK) st = add_count(t, o, "maxLength", &s->max_chars, true);
    if (st == OK) st = add_string(t, o, "pattern", &s->patterns);
    if (st == OK) st = add_string(t, o, OWN_NOT_PATTERN, &s->not_patterns);
    if (st == OK) st = add_string(t, o, "format", &s->formats);
    return st;
}

static status add_loose(translator *t, const step *from, const char *key, const cell **list) {
    const json_t *v = json_object_get(from->lit.schema, key);
    if (!v) return OK;
    cell *c = schema_cell(t, *list);
    if (!c) return schema_no_memory(t);
    c->lit = (literal){v, false};
    c->from = from;
    *list = c;
    return OK;
}

static status add_from(translator *t, const step *from, const cell **list) {
    cell *c = schema_cell(t, *list);
    if (!c) return schema_no_memory(t);
    c->v = from->lit.schema;
    c->from = from;
    *list = c;
    return OK;
}

static status add_arrays(translator *t, const step *from, shape *s) {
    const json_t *o = from->lit.schema;
    status st = add_count(t, o, "minItems", &s->min_items, false);
    if (st == OK) st = add_count(t, o, "maxItems", &s->max_items, true);
    if (st == OK && (has(o, "items") || has(o, "prefixItems")))
        st = add_from(t, from, &s->arrays);
    if (st == OK && has(o, "contains")) st = add_schema(t, o, &s->contains);
    if (st == OK) st = add_loose(t, from, "unevaluatedItems", &s->loose_items);
    if (json_is_true(json_object_get(o, "uniqueItems"))) s->unique = o;
    return st;
}

static status add_objects(translator *t, const step *from, shape *s) {
    const json_t *o = from->lit.schema;
    status st = add_count(t, o, "minProperties", &s->min_members, false);
    if (st == OK) st = add_count(t, o, "maxProperties", &s->max_members, true);
    if (st == OK &&
        (has(o, "properties") || has(o, "patternProperties") || has(o, "additionalProperties")))
        st = add_from(t, from, &s->objects);
    if (st == OK) st = add_required(t, o, s);
    if (st == OK) st = add_loose(t, from, "unevaluatedProperties", &s->loose_members);
    const json_t *names = json_object_get(o, "propertyNames");
    if (st != OK || !names) return st;
    cell *c = schema_cell(t, s->names);
    if (!c) return schema_no_memory(t);
    c->lit = (literal){names, false};
    s->names = c;
    return OK;
}

static status add_keywords(translator *t, const step *from, shape *s) {
    const json_t *o = from->lit.schema, *type = json_object_get(o, "type"), *own;
    if (type) {
        unsigned k = schema_types(type);
        if (!k && json_array_size(type) + !json_is_array(type) > 0)
            return schema_wrong(t, "an unknown type", o);
        if (json_is_true(json_object_get(o, "nullable"))) k |= TYPE_NULL;
        s->types &= k;
    }
    if (has(o, OWN_FRACTION)) s->types &= TYPE_FRACTION;
    own = json_object_get(o, OWN_REFUSED);
    if (own)
        refuse_later(s, s->types, json_string_value(own),
                     json_object_get(o, "\xff"
                                        "at"));
    status st = add_values(t, o, s);
    own = json_object_get(o, OWN_NOT_VALUES);
    if (st == OK && own) st = add_schema(t, own, &s->not_values);
    if (st == OK) st = add_numbers(t, o, s);
    if (st == OK) st = add_strings(t, o, s);
    if (st == OK) st = add_arrays(t, from, s);
    if (st == OK) st = add_objects(t, from, s);
    return st;
}

/* ---- conjunctions and alternatives ---- */

typedef struct todo {
    const struct todo *next;
    step lit;              /* unless options is set */
    const json_t *options; /* a list of lists of schemas: those of one of them hold */
    const step *parent;
} todo;

typedef struct seen {
    const struct seen *next;
    const step *s;
} seen;

typedef struct expansion {
    shape s;
    const todo *lits, *options;
    const seen *seen;
} expansion;

static status push_lit(translator *t, expansion *x, literal l, const step *parent) {
    todo *d = arena_zalloc(t->mem, sizeof *d);
    if (!d) return schema_no_memory(t);
    *d = (todo){.next = x->lits, .lit = {l, parent}};
    x->lits = d;
    return OK;
}

static status push_options(translator *t, expansion *x, const json_t *options,
                           const step *parent) {
    todo *d = arena_zalloc(t->mem, sizeof *d);
    if (!d) return schema_no_memory(t);
    *d = (todo){.next = x->options, .options = options, .parent = parent};
    x->options = d;
    return OK;
}

/* Options made of a keyword's value, the same list each time; NULL: not made yet. */
static const json_t *made_before(const translator *t, const json_t *key) {
    for (const cell *c = t->options; c; c = c->next)
        if (c->v == key) return c->lit.schema;
    return NULL;
}

static status remember(translator *t, const json_t *key, const json_t *options) {
    cell *c = schema_cell(t, t->options);
    if (!c || t->mem->failed) return schema_no_memory(t);
    c->v = key;
    c->lit.schema = options;
    t->options = c;
    return OK;
}

static json_t *share(const json_t *v) {
    return json_incref((json_t *)(uintptr_t)v);
}

static json_t *add_group(json_t *options, const json_t *first) {
    json_t *g = json_array();
    if (first) json_array_append_new(g, share(first));
    json_array_append_new(options, g);
    return g;
}

/* Whether no value meets both schemas. */
static status exclude_each_other(translator *t, const json_t *a, const json_t *b, bool *out) {
    literal both[] = {{a, false}, {b, false}};
    shapes s = {0};
    *out = false;
    if (t->depth > 6) return OK;
    t->depth++;
    err keep = *t->e;
    status st = schema_expand(t, both, 2, &s);
    *out = st == OK;
    for (uint32_t i = 0; st == OK && *out && i < s.n; i++) {
        s.v[i].formats = NULL; /* annotations to the standard: they exclude nothing */
        st = t->is_empty(t, &s.v[i], out);
    }
    t->depth--;
    if (st == ERR_UNSUPPORTED) *t->e = keep, *out = false, st = OK;
    return st;
}

static status one_of(translator *t, const json_t *list, json_t *options) {
    size_t n = json_array_size(list);
    bool apart = true;
    status st = OK;
    if (n > MAX_OPTIONS / 8) return schema_refuse(t, "oneOf with so many schemas", list);
    for (size_t i = 0; i < n && apart && st == OK; i++)
        for (size_t k = i + 1; k < n && apart && st == OK; k++)
            st =
                exclude_each_other(t, json_array_get(list, i), json_array_get(list, k), &apart);
    for (size_t i = 0; i < n && st == OK; i++) {
        json_t *g = add_group(options, json_array_get(list, i));
        for (size_t k = 0; k < n && !apart; k++)
            if (k != i) json_array_append_new(g, schema_not(json_array_get(list, k)));
    }
    return st;
}

static json_t *without(const char *key) {
    json_t *none = json_object(), *o = json_object();
    json_object_set_new_nocheck(none, key, json_false());
    json_object_set_new_nocheck(o, "properties", none);
    return o;
}

static json_t *with(const char *key, const json_t *more) {
    json_t *o = json_object(), *list = json_array(), *v;
    size_t i;
    json_array_append_new(list, json_string(key));
    json_array_foreach(more, i, v) json_array_append_new(list, share(v));
    json_object_set_new_nocheck(o, "type", json_string("object"));
    json_object_set_new_nocheck(o, "required", list);
    return o;
}

/* dependentRequired, dependentSchemas, and the older dependencies, which may be either. */
static status push_dependent(translator *t, expansion *x, const step *from,
                             const char *keyword) {
    const char *key;
    json_t *v, *all = json_object_get(from->lit.schema, keyword);
    status st = OK;
    if (all && !json_is_object(all)) return schema_wrong(t, keyword, from->lit.schema);
    json_object_foreach(all, key, v) {
        const json_t *made = made_before(t, v);
        if (!made) {
            json_t *options = json_array();
            add_group(options, NULL);
            json_array_append_new(json_array_get(options, 0), without(key));
            json_t *g = add_group(options, NULL);
            json_array_append_new(g, with(key, json_is_array(v) ? v : NULL));
            if (!json_is_array(v)) json_array_append_new(g, share(v));
            made = options;
            st = remember(t, v, made);
        }
        if (st == OK) st = push_options(t, x, made, from);
        if (st != OK) return st;
    }
    return st;
}

static status push_if(translator *t, expansion *x, const step *from) {
    const json_t *o = from->lit.schema, *test = json_object_get(o, "if");
    const json_t *then = json_object_get(o, "then"), *other = json_object_get(o, "else");
    if (!test || (!then && !other)) return OK;
    const json_t *made = made_before(t, test);
    status st = OK;
    if (!made) {
        json_t *options = json_array(), *g = add_group(options, test);
        if (then) json_array_append_new(g, share(then));
        g = add_group(options, NULL);
        json_array_append_new(g, schema_not(test));
        if (other) json_array_append_new(g, share(other));
        made = options;
        st = remember(t, test, made);
    }
    return st == OK ? push_options(t, x, made, from) : st;
}

static status push_lists(translator *t, expansion *x, const step *from) {
    const json_t *o = from->lit.schema, *list;
    json_t *v;
    size_t i;
    status st = OK;
    list = json_object_get(o, "allOf");
    if (list && !json_array_size(list))
        return schema_wrong(t, "allOf is no list of schemas", o);
    for (i = json_array_size(list);
         i-- > 0 && st == OK;) /* the first comes off the list first */
        st = push_lit(t, x, (literal){json_array_get(list, i), false}, from);
    list = json_object_get(o, "anyOf");
    if (list && !json_array_size(list))
        return schema_wrong(t, "anyOf is no list of schemas", o);
    if (list && st == OK) {
        const json_t *made = made_before(t, list);
        if (!made) {
            json_t *options = json_array();
            json_array_foreach(list, i, v) add_group(options, v);
            made = options;
            st = remember(t, list, made);
        }
        if (st == OK) st = push_options(t, x, made, from);
    }
    list = json_object_get(o, "oneOf");
    if (list && !json_array_size(list))
        return schema_wrong(t, "oneOf is no list of schemas", o);
    if (list && st == OK) {
        const json_t *made = made_before(t, list);
        if (!made) {
            json_t *options = json_array();
            st = one_of(t, list, options);
            made = options;
            if (st == OK) st = remember(t, list, made);
        }
        if (st == OK) st = push_options(t, x, made, from);
    }
    return st;
}

static status push_refs(translator *t, expansion *x, const step *from) {
    const json_t *o = from->lit.schema, *ref = json_object_get(o, "$ref"), *to;
    status st = OK;
    if (ref && !json_is_string(ref)) return schema_wrong(t, "$ref is no string", o);
    if (ref) {
        st = schema_resolve(t, o, json_in_text(ref), &to);
        if (st == OK) st = push_lit(t, x, (literal){to, false}, from);
    }
    ref = json_object_get(o, "$dynamicRef");
    if (ref && st == OK) {
        if (!json_is_string(ref)) return schema_wrong(t, "$dynamicRef is no string", o);
        str name = json_in_text(ref);
        if (schema_is_dynamic(t, name)) return schema_refuse(t, "$dynamicRef", o);
        st = schema_resolve(t, o, name, &to);
        if (st == OK) st = push_lit(t, x, (literal){to, false}, from);
    }
    if (json_object_get(o, "$recursiveRef")) return schema_refuse(t, "$recursiveRef", o);
    const json_t *no = json_object_get(o, "not");
    return st == OK && no ? push_lit(t, x, (literal){no, true}, from) : st;
}

/* Everything that a schema says of the value itself. */
static status add_positive(translator *t, expansion *x, const step *from) {
    status st = add_keywords(t, from, &x->s);
    if (st == OK) st = push_lists(t, x, from);
    if (st == OK) st = push_refs(t, x, from); /* before what push_lists has put there */
    if (st == OK) st = push_if(t, x, from);
    if (st == OK) st = push_dependent(t, x, from, "dependentRequired");
    if (st == OK) st = push_dependent(t, x, from, "dependentSchemas");
    if (st == OK) st = push_dependent(t, x, from, "dependencies");
    return st;
}

static bool is_seen(const expansion *x, const step *s) {
    for (const seen *k = x->seen; k; k = k->next)
        if (k->s->lit.schema == s->lit.schema && k->s->lit.negated == s->lit.negated)
            return true;
    return false;
}

static bool is_within_itself(const step *s) {
    for (const step *p = s->parent; p; p = p->parent)
        if (p->lit.schema == s->lit.schema && p->lit.negated == s->lit.negated) return true;
    return false;
}

static status add_literal(translator *t, expansion *x, const step *s) {
    const json_t *o = s->lit.schema, *options;
    if (json_is_boolean(o)) {
        if (json_is_true(o) == s->lit.negated) x->s.types = 0;
        return OK;
    }
    if (!json_is_object(o)) return schema_wrong(t, "something that is no schema", o);
    if (is_within_itself(s)) return schema_wrong(t, "a $ref that leads to itself", o);
    if (is_seen(x, s)) return OK;
    seen *k = arena_alloc(t->mem, sizeof *k);
    if (!k) return schema_no_memory(t);
    *k = (seen){x->seen, s};
    x->seen = k;
    if (!s->lit.negated) return add_positive(t, x, s);
    status st = schema_negate(t, o, &options);
    return st == OK ? push_options(t, x, options, s) : st;
}

static status append(translator *t, const shape *s, shapes *out) {
    if (++t->n_shapes > MAX_SHAPES)
        return err_set(t->e, ERR_INVALID, "the JSON schema has too many alternatives");
    if (!arena_place(t->mem, &out->v, out->n, &out->cap, sizeof *out->v, 4))
        return schema_no_memory(t);
    out->v[out->n++] = *s;
    return OK;
}

static status expand(translator *t, expansion x, shapes *out, int depth) {
    if (depth > MAX_PENDING || ++t->n_steps > MAX_STEPS || !rules_spend(t->r, 1000))
        return err_set(t->e, ERR_INVALID, "the JSON schema has too many alternatives");
    while (x.lits) {
        const todo *d = x.lits;
        x.lits = d->next;
        status st = add_literal(t, &x, &d->lit);
        if (st != OK || !x.s.types) return st;
    }
    if (!x.options) return append(t, &x.s, out);
    const todo *d = x.options;
    x.options = d->next;
    for (size_t i = 0; i < json_array_size(d->options); i++) {
        const json_t *group = json_array_get(d->options, i);
        expansion y = x;
        status st = OK;
        for (size_t k = json_array_size(group); k-- > 0 && st == OK;)
            st = push_lit(t, &y, (literal){json_array_get(group, k), false}, d->parent);
        if (st == OK) st = expand(t, y, out, depth + 1);
        if (st != OK) return st;
    }
    return OK;
}

status schema_expand(translator *t, const literal *l, uint32_t n, shapes *out) {
    expansion x = {.s = {.types = TYPE_ALL,
                         .max_chars = RULE_UNBOUNDED,
                         .max_items = RULE_UNBOUNDED,
                         .max_members = RULE_UNBOUNDED}};
    for (uint32_t i = n; i-- > 0;) {
        status st = push_lit(t, &x, l[i], NULL);
        if (st != OK) return st;
    }
    return expand(t, x, out, 0);
}
