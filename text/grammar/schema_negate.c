/* The negation of a schema, pushed down to its keywords: alternatives, each a list of schemas that
 * hold together. Results are in the translator's arena; any thread. */
#include "text/grammar/schema_in.h"

static bool has(const json_t *o, const char *key) {
    return json_object_get(o, key) != NULL;
}

static json_t *object(const char *key, json_t *v) {
    json_t *o = json_object();
    if (o && v) json_object_set_new_nocheck(o, key, v);
    return o;
}

static json_t *typed(const char *type, const char *key, json_t *v) {
    json_t *o = object("type", json_string(type));
    if (o && v) json_object_set_new_nocheck(o, key, v);
    return o;
}

static json_t *shared(const json_t *v) {
    return json_incref((json_t *)(uintptr_t)v);
}

json_t *schema_not(const json_t *schema) {
    return object("not", shared(schema));
}

static void option(json_t *out, json_t *schema) {
    json_t *group = json_array();
    json_array_append_new(group, schema);
    json_array_append_new(out, group);
}

static void refused(json_t *out, const json_t *o, const char *type, const char *key) {
    if (!has(o, key)) return;
    json_t *r = type ? typed(type, OWN_REFUSED, json_string(key))
                     : object(OWN_REFUSED, json_string(key));
    json_object_set_new_nocheck(r,
                                "\xff"
                                "at",
                                shared(o));
    option(out, r);
}

static void negate_types(json_t *out, const json_t *type) {
    static const char *const name[] = {"null", "boolean", "string", "array", "object"};
    unsigned k = schema_types(type);
    json_t *rest = json_array();
    for (int i = 0; i < 5; i++)
        if (!(k & schema_type(str_of(name[i]))))
            json_array_append_new(rest, json_string(name[i]));
    if (!(k & TYPE_INT)) json_array_append_new(rest, json_string("number"));
    if (json_array_size(rest)) option(out, object("type", rest));
    if (k & TYPE_INT && !(k & TYPE_FRACTION))
        option(out, typed("number", OWN_FRACTION, json_true()));
}

static void negate_numbers(json_t *out, const json_t *o) {
    static const char *const pair[][2] = {{"minimum", "exclusiveMaximum"},
                                          {"maximum", "exclusiveMinimum"},
                                          {"exclusiveMinimum", "maximum"},
                                          {"exclusiveMaximum", "minimum"}};
    for (int i = 0; i < 4; i++)
        if (has(o, pair[i][0]))
            option(out, typed("number", pair[i][1], shared(json_object_get(o, pair[i][0]))));
    refused(out, o, "number", "multipleOf");
}

static void negate_counts(json_t *out, const json_t *o) {
    static const struct {
        const char *type, *least, *most;
    } t[] = {{"string", "minLength", "maxLength"},
             {"array", "minItems", "maxItems"},
             {"object", "minProperties", "maxProperties"}};
    for (int i = 0; i < 3; i++) {
        const json_t *lo = json_object_get(o, t[i].least), *hi = json_object_get(o, t[i].most);
        if (lo && json_number_value(lo) >= 1)
            option(out, typed(t[i].type, t[i].most,
                              json_integer((json_int_t)json_number_value(lo) - 1)));
        if (hi)
            option(out, typed(t[i].type, t[i].least,
                              json_integer((json_int_t)json_number_value(hi) + 1)));
    }
}

static void negate_strings(json_t *out, const json_t *o) {
    if (has(o, "pattern"))
        option(out, typed("string", OWN_NOT_PATTERN, shared(json_object_get(o, "pattern"))));
    if (has(o, OWN_NOT_PATTERN))
        option(out, typed("string", "pattern", shared(json_object_get(o, OWN_NOT_PATTERN))));
    refused(out, o, "string", "format"); /* to the standard an annotation, which never fails */
}

static void negate_objects(json_t *out, const json_t *o) {
    const char *key;
    json_t *v, *list = json_object_get(o, "properties");
    size_t i;
    json_array_foreach(json_object_get(o, "required"), i, v) {
        json_t *none = json_object();
        json_object_setn_new_nocheck(none, json_string_value(v) ? json_string_value(v) : "",
                                     json_string_length(v), json_false());
        option(out, typed("object", "properties", none));
    }
    json_object_foreach(list, key, v) {
        json_t *one = typed("object", "required", json_pack("[s]", key));
        json_object_set_new_nocheck(one, "properties", object(key, schema_not(v)));
        option(out, one);
    }
    static const char *const rest[] = {
        "additionalProperties", "patternProperties", "propertyNames", "unevaluatedProperties",
        "dependentRequired",    "dependentSchemas",  "dependencies"};
    for (i = 0; i < sizeof rest / sizeof *rest; i++) {
        const json_t *k = json_object_get(o, rest[i]);
        if (!json_is_true(k)) refused(out, o, "object", rest[i]);
    }
}

static void negate_arrays(json_t *out, const json_t *o) {
    const json_t *items = json_object_get(o, "items");
    if (items && !has(o, "prefixItems") && !json_is_array(items))
        option(out, typed("array", "contains", schema_not(items)));
    else
        refused(out, o, "array", "items");
    static const char *const rest[] = {"prefixItems", "contains", "unevaluatedItems",
                                       "additionalItems"};
    for (int i = 0; i < 4; i++) refused(out, o, "array", rest[i]);
    if (json_is_true(json_object_get(o, "uniqueItems")))
        refused(out, o, "array", "uniqueItems");
}

static void negate_combined(translator *t, json_t *out, const json_t *o, status *st) {
    size_t i;
    json_t *v, *all;
    json_array_foreach(json_object_get(o, "allOf"), i, v) option(out, schema_not(v));
    if (has(o, "anyOf")) {
        all = json_array();
        json_array_foreach(json_object_get(o, "anyOf"), i, v)
            json_array_append_new(all, schema_not(v));
        json_array_append_new(out, all);
    }
    if (has(o, "not")) option(out, shared(json_object_get(o, "not")));
    if (json_is_string(json_object_get(o, "$ref"))) {
        const json_t *to;
        *st = schema_resolve(t, o, json_in_text(json_object_get(o, "$ref")), &to);
        if (*st == OK) option(out, schema_not(to));
    }
    refused(out, o, NULL, "oneOf");
    refused(out, o, NULL, "$dynamicRef");
    if (has(o, "if") && (has(o, "then") || has(o, "else"))) refused(out, o, NULL, "if");
    if (has(o, OWN_REFUSED)) option(out, shared(o));
}

status schema_negate(translator *t, const json_t *o, const json_t **out) {
    for (const cell *c = t->negations; c; c = c->next)
        if (c->v == o) return *out = c->lit.schema, OK;
    json_t *list = json_array();
    cell *c = schema_cell(t, t->negations);
    status st = OK;
    if (!list || !c) return schema_no_memory(t);
    if (has(o, "type")) negate_types(list, json_object_get(o, "type"));
    if (has(o, "enum"))
        option(list, object(OWN_NOT_VALUES, shared(json_object_get(o, "enum"))));
    if (has(o, "const")) {
        json_t *one = json_array();
        json_array_append(one, json_object_get(o, "const"));
        option(list, object(OWN_NOT_VALUES, one));
    }
    if (has(o, OWN_NOT_VALUES))
        option(list, object("enum", shared(json_object_get(o, OWN_NOT_VALUES))));
    if (has(o, OWN_FRACTION)) refused(list, o, NULL, OWN_FRACTION);
    negate_numbers(list, o);
    negate_counts(list, o);
    negate_strings(list, o);
    negate_objects(list, o);
    negate_arrays(list, o);
    negate_combined(t, list, o, &st);
    if (st != OK) return st;
    if (t->mem->failed) return schema_no_memory(t);
    c->v = o;
    c->lit.schema = list;
    t->negations = c;
    *out = list;
    return OK;
}
