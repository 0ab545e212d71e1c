/* Members of an object as models write arguments that name their type:
 *   <cofl:value name="k" type="raw">text</cofl:value>, with dict and list within each other;
 *   <|open|>argument key="k" type="string"<|sep|>text<|close|>argument<|sep|>.
 * A text stands there as it is, anything else as JSON. Owns nothing. */
#include "text/grammar/tags_in.h"

#include "base/buf.h"
#include "text/reply/reply_types.h"

enum { T_STRING, T_OBJECT, T_ARRAY, T_NUMBER, T_BOOLEAN, T_NULL, N_TYPES };

typedef struct typed_style {
    const char *name, *open, *key, *type, *behind, *close;
    const char *escaped; /* characters that a key writes as entities */
    const char *word[N_TYPES];
    bool nests; /* objects and lists are members, too */
} typed_style;

static const typed_style styles[] = {
    {"cohere_xml",
     "<cofl:value",
     " name=\"",
     " type=\"",
     "\">",
     "</cofl:value>",
     "&<>\"",
     {"raw", "dict", "list", "json", "json", "json"},
     true},
    {"kimi_k3_xml",
     "<|open|>argument",
     " key=\"",
     " type=\"",
     "\"<|sep|>",
     "<|close|>argument<|sep|>",
     "&\"",
     {"string", "object", "array", "number", "boolean", "null"},
     false},
};

typedef struct typed {
    const tags *b;
    const typed_style *style;
    const json_t *root;
    ends close;
    int depth;
} typed;

enum { MAX_NESTING = 40 };

static int type_of(const typed *t, const json_t *schema) {
    static const unsigned bits[N_TYPES] = {REPLY_STRING, REPLY_OBJECT,  REPLY_ARRAY,
                                           REPLY_NUMBER, REPLY_BOOLEAN, REPLY_NULL};
    const unsigned has = reply_types(t->root, schema);
    int k = 0;
    while (k < N_TYPES && has != bits[k]) k++;
    return k;
}

/* Keywords of an object, or a list, that is written as members. */
static status check_keys(const typed *t, const json_t *schema, const char *const *known) {
    static const char *const notes[] = {"type",    "title",       "description", "$defs",
                                        "default", "definitions", "examples",    "$schema",
                                        "$id",     "$comment",    "strict"};
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)schema, key, v) {
        bool in = false;
        for (size_t i = 0; i < sizeof notes / sizeof *notes; i++)
            in |= strcmp(key, notes[i]) == 0;
        for (size_t i = 0; known[i]; i++) in |= strcmp(key, known[i]) == 0;
        if (in) continue;
        err_set(t->b->e, ERR_UNSUPPORTED, "structural tag: %s is not supported with this style",
                key);
        return ERR_UNSUPPORTED;
    }
    return OK;
}

static rule words(const typed *t, const char *s) {
    return tags_text(t->b, str_of(s));
}

static rule key_of(const typed *t, const char *key) {
    static const char *const entity[] = {"&amp;", "&lt;", "&gt;", "&quot;"};
    buf b;
    buf_init(&b, t->b->mem);
    for (; *key; key++) {
        const char *at = strchr("&<>\"", *key);
        if (at && strchr(t->style->escaped, *key))
            buf_add(&b, str_of(entity[at - "&<>\""]));
        else
            buf_addc(&b, *key);
    }
    return b.failed ? RULE_NEVER : rules_bytes(t->b->r, buf_str(&b));
}

static status member(typed *t, const char *key, const json_t *schema, rule *out);

static bool is_required(const json_t *schema, const char *key) {
    size_t i;
    const json_t *v;
    json_array_foreach(json_object_get(schema, "required"), i, v) {
        if (json_is_string(v) && str_eqz(json_in_text(v), key)) return true;
    }
    return false;
}

static status members(typed *t, const json_t *schema, rule *out) {
    static const char *const known[] = {"properties", "required", "additionalProperties", NULL};
    const char *key;
    json_t *v, *all = json_object_get(schema, "properties");
    rules *r = t->b->r;
    status s = check_keys(t, schema, known);
    *out = RULE_EMPTY;
    if (s == OK && !json_is_object(all))
        return tags_unsupported(t->b, "an object without properties in this style");
    json_object_foreach(all, key, v) {
        rule one = RULE_NEVER;
        if (s == OK) s = member(t, key, v, &one);
        if (!is_required(schema, key)) one = rules_optional(r, one);
        *out = rules_seq(r, (rule[]){*out, one}, 2);
    }
    return s;
}

static status items(typed *t, const json_t *schema, rule *out) {
    static const char *const known[] = {"items", "minItems", "maxItems", NULL};
    int64_t least = 0, most = RULE_UNBOUNDED;
    rule one = RULE_NEVER;
    status s = check_keys(t, schema, known);
    if (s == OK) s = json_in_int(schema, "minItems", 0, INT32_MAX, &least, t->b->e);
    if (s == OK) s = json_in_int(schema, "maxItems", 0, INT32_MAX, &most, t->b->e);
    if (s == OK) s = member(t, NULL, json_object_get(schema, "items"), &one);
    if (s == OK && least > most)
        return err_set(t->b->e, ERR_INVALID, "structural tag: minItems is above maxItems");
    *out = rules_repeat(t->b->r, one, (uint32_t)least, (uint32_t)most);
    return s;
}

/* A value and what closes it. */
static status value(typed *t, int type, const json_t *schema, rule *out) {
    const tags *b = t->b;
    const rule close = words(t, t->style->close);
    const bool members_of = t->style->nests && (type == T_OBJECT || type == T_ARRAY);
    rule one = RULE_NEVER;
    if (type == T_STRING && !reply_is_limited(schema))
        return tags_any_text(b, NULL, &t->close, out);
    const json_t *own = reply_with_definitions(b->r, t->root, schema);
    if (!own) return err_set(b->e, ERR_NO_MEMORY, "no memory for a structural tag");
    status s = OK;
    if (members_of)
        s = type == T_OBJECT ? members(t, schema, &one) : items(t, schema, &one);
    else if (type == T_STRING)
        s = rules_schema_text(b->r, own, str_of(t->style->close), &one, b->e);
    else
        s = rules_json_schema(b->r, own, &b->o->schema, &one, b->e);
    *out = rules_seq(b->r, (rule[]){one, close}, 2);
    return s;
}

/* key NULL: an element of a list. */
static status member(typed *t, const char *key, const json_t *schema, rule *out) {
    const typed_style *y = t->style;
    const int type = type_of(t, schema);
    rules *r = t->b->r;
    rule head = words(t, y->open), one = RULE_NEVER;
    if (type == N_TYPES)
        return tags_unsupported(t->b, "a value of several types in this style");
    if (t->depth++ == MAX_NESTING) return tags_unsupported(t->b, "nesting as deep as this");
    if (key)
        head = rules_seq(
            r, (rule[]){head, words(t, y->key), key_of(t, key), rules_bytes(r, STR("\""))}, 4);
    head = rules_seq(
        r, (rule[]){head, words(t, y->type), words(t, y->word[type]), words(t, y->behind)}, 4);
    status s = value(t, type, schema, &one);
    *out = rules_seq(r, (rule[]){head, one}, 2);
    t->depth--;
    return s;
}

status tags_typed(const tags *b, str style, const json_t *object, const ends *end, rule *out) {
    size_t i = 0;
    while (i < sizeof styles / sizeof *styles && !str_eqz(style, styles[i].name)) i++;
    if (i == sizeof styles / sizeof *styles) return tags_unsupported(b, "a style of this name");
    const str close = str_of(styles[i].close);
    tags within = *b;
    within.stop = (ends){0}; /* a value has an end of its own */
    typed t = {.b = &within, .style = &styles[i], .root = object, .close = {&close, 1}};
    rule all = RULE_NEVER;
    status s = members(&t, object, &all);
    if (s != OK) return s;
    *out = tags_closed_by(b, all, end);
    return OK;
}
