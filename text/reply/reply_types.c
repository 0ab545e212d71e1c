/* What the schema of an argument says of its type. Owns nothing; any thread. */
#include "text/reply/reply_types.h"

#include <string.h>

static unsigned type_named(const char *s) {
    static const struct {
        const char *name;
        unsigned bits;
    } types[] = {{"string", REPLY_STRING},  {"number", REPLY_NUMBER},
                 {"integer", REPLY_NUMBER}, {"boolean", REPLY_BOOLEAN},
                 {"null", REPLY_NULL},      {"object", REPLY_OBJECT},
                 {"array", REPLY_ARRAY}};
    for (size_t i = 0; s && i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, s) == 0) return types[i].bits;
    return 0;
}

static unsigned type_of(const json_t *v) {
    if (json_is_string(v)) return REPLY_STRING;
    if (json_is_number(v)) return REPLY_NUMBER;
    if (json_is_boolean(v)) return REPLY_BOOLEAN;
    if (json_is_object(v)) return REPLY_OBJECT;
    return json_is_array(v) ? REPLY_ARRAY : REPLY_NULL;
}

/* "#/$defs/x" within root. */
static const json_t *resolve(const json_t *root, const char *ref) {
    if (!ref || ref[0] != '#') return NULL;
    for (ref++; root && *ref == '/';) {
        const size_t n = strcspn(++ref, "/");
        root = json_object_getn(root, ref, n);
        ref += n;
    }
    return root;
}

static unsigned types_of(const json_t *root, const json_t *schema, int depth) {
    static const char *const several[] = {"anyOf", "oneOf", "enum", "type"};
    unsigned bits = 0;
    size_t i;
    const json_t *v, *t;
    if (!json_is_object(schema) || depth == 8) return REPLY_ANY;
    if ((t = json_object_get(schema, "$ref")))
        return types_of(root, resolve(root, json_string_value(t)), depth + 1);
    if ((t = json_object_get(schema, "const"))) return type_of(t);
    for (size_t k = 0; k < 4; k++) {
        t = json_object_get(schema, several[k]);
        json_array_foreach(t, i, v) bits |= k < 2    ? types_of(root, v, depth + 1)
                                            : k == 2 ? type_of(v)
                                                     : type_named(json_string_value(v));
        if (bits) return bits;
    }
    bits = type_named(json_string_value(json_object_get(schema, "type")));
    return bits ? bits : REPLY_ANY;
}

unsigned reply_types(const json_t *root, const json_t *schema) {
    return types_of(root, schema, 0);
}

bool reply_is_limited(const json_t *s) {
    static const char *const keys[] = {"enum",      "const",     "pattern", "format",
                                       "minLength", "allOf",     "anyOf",   "oneOf",
                                       "not",       "maxLength", "if",      "$ref"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (json_object_get(s, keys[i])) return true;
    return false;
}

const json_t *reply_with_definitions(const rules *r, const json_t *root, const json_t *s) {
    static const char *const names[] = {"$defs", "definitions"};
    arena *before = json_use_arena(rules_arena(r));
    json_t *out = json_is_object(s) ? json_copy((json_t *)s) : json_object();
    for (int i = 0; out && i < 2; i++) {
        json_t *d = json_object_get(root, names[i]);
        if (d) json_object_set(out, names[i], d);
    }
    json_use_arena(before);
    return out;
}
