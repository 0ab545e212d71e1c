/* Reads constraints, and builds their expressions. Owns nothing. Reading on the loop thread,
 * building on any. */
#include "api/constraint.h"

#include <string.h>

#include "json/out.h"
#include "text/grammar/gbnf.h"
#include "text/grammar/regex.h"
#include "text/grammar/schema.h"
#include "text/grammar/tags.h"

enum { MAX_TEXT = 256 * 1024, MAX_CHOICES = 4096, MAX_WHITE_SPACE = 256 };

/* ---- building ---- */

static schema_options options_of(const constraint *c) {
    return (schema_options){
        .closed = true, .compact = c->compact, .white_space = c->white_space};
}

static status build_object(const constraint *c, rules *r, rule *out, err *e) {
    const schema_options o = options_of(c);
    return rules_json_object(r, &o, out, e);
}

static status build_schema(const constraint *c, rules *r, rule *out, err *e) {
    const schema_options o = options_of(c);
    return rules_json_schema(r, c->json, &o, out, e);
}

static status build_tags(const constraint *c, rules *r, rule *out, err *e) {
    const tags_options o = {.tok = c->tok, .schema = options_of(c)};
    return rules_tags(r, c->json, &o, out, e);
}

static status build_regex(const constraint *c, rules *r, rule *out, err *e) {
    return rules_regex(r, c->text, out, e);
}

static status build_gbnf(const constraint *c, rules *r, rule *out, err *e) {
    return rules_gbnf(r, c->text, out, e);
}

static status build_choice(const constraint *c, rules *r, rule *out, err *e) {
    size_t n = json_array_size(c->json);
    rule *one = arena_alloc(rules_arena(r), n * sizeof *one);
    if (!one) return err_set(e, ERR_NO_MEMORY, "no memory for choices");
    for (size_t i = 0; i < n; i++)
        one[i] = rules_bytes(r, json_in_text(json_array_get(c->json, i)));
    *out = rules_alt(r, one, n);
    return OK;
}

/* ---- reading ---- */

typedef struct reader {
    constraint *c;
    arena *mem;
    err *e;
} reader;

static status set(reader *r, const char *field, char kind, str text,
                  status (*build)(const constraint *, rules *, rule *, err *)) {
    if (r->c->build) {
        err_set(r->e, ERR_INVALID, "%s and %s exclude each other", r->c->field, field);
        return err_field(r->e, "%s", field);
    }
    buf key;
    buf_init(&key, r->mem);
    buf_addc(&key, kind);
    buf_addf(&key, "%d%zu:", r->c->compact, r->c->white_space.len);
    buf_add(&key, r->c->white_space);
    if (text.ptr)
        buf_add(&key, text);
    else
        json_value(&key, r->c->json);
    if (key.failed) return err_set(r->e, ERR_NO_MEMORY, "no memory for %s", field);
    r->c->build = build;
    r->c->key = buf_str(&key);
    r->c->field = field;
    r->c->text = text;
    if (r->c->key.len <= MAX_TEXT) return OK;
    err_set(r->e, ERR_INVALID, "%s has more than %d bytes", field, MAX_TEXT);
    return err_field(r->e, "%s", field);
}

static status take_json(reader *r, const char *field, char kind, const json_t *v,
                        status (*build)(const constraint *, rules *, rule *, err *)) {
    if (!r->c->build) r->c->json = v;
    return set(r, field, kind, (str){0}, build);
}

static status wrong(reader *r, const char *field, const char *want, const json_t *v) {
    json_in_wrong(r->e, field, want, v);
    return err_field(r->e, "%s", field);
}

/* A schema as JSON, or as text that is JSON. */
static status take_schema(reader *r, const char *field, const json_t *v) {
    if (json_is_string(v)) {
        status s = json_in_parse(&v, r->mem, json_in_text(v), r->e);
        if (s != OK) return err_field(r->e, "%s", field);
    }
    if (!json_is_object(v) && !json_is_boolean(v)) return wrong(r, field, "a JSON schema", v);
    return take_json(r, field, 's', v, build_schema);
}

static status take_tags(reader *r, const char *field, const json_t *v) {
    if (json_is_string(v)) {
        status s = json_in_parse(&v, r->mem, json_in_text(v), r->e);
        if (s != OK) return err_field(r->e, "%s", field);
    }
    if (!json_is_object(v)) return wrong(r, field, "a structural tag", v);
    return take_json(r, field, 'x', v, build_tags);
}

static status take_text(reader *r, const char *field, char kind, const json_t *v,
                        status (*build)(const constraint *, rules *, rule *, err *)) {
    if (!json_is_string(v)) return wrong(r, field, "a string", v);
    return set(r, field, kind, json_in_text(v), build);
}

static status take_choice(reader *r, const char *field, const json_t *v) {
    bool ok = json_is_array(v) && json_array_size(v) > 0 && json_array_size(v) <= MAX_CHOICES;
    for (size_t i = 0; ok && i < json_array_size(v); i++)
        ok = json_is_string(json_array_get(v, i)) &&
             json_string_length(json_array_get(v, i)) > 0;
    if (!ok) return wrong(r, field, "a list of 1 to 4096 strings that are not empty", v);
    return take_json(r, field, 'c', v, build_choice);
}

static status read_format(reader *r, const json_t *body) {
    static const char field[] = "response_format";
    const json_t *f = json_object_get(body, field), *schema, *inner;
    str type = STR("text");
    if (!f || json_is_null(f)) return OK;
    if (!json_is_object(f)) return json_in_wrong(r->e, field, "an object", f);
    if (json_in_str(f, "type", &type, r->e) != OK)
        return err_field(r->e, "response_format.type");
    if (str_eqz(type, "text")) return OK;
    if (str_eqz(type, "structural_tag")) return take_tags(r, field, f);
    inner = json_object_get(f, "json_schema");
    schema = json_object_get(f, "schema"); /* llama.cpp: also with json_object */
    if (str_eqz(type, "json_object") && (!schema || json_is_null(schema)))
        return take_json(r, field, 'o', json_true(), build_object);
    if (json_is_object(inner)) schema = json_object_get(inner, "schema");
    if (str_eqz(type, "json_schema") || str_eqz(type, "json_object")) {
        if (schema && !json_is_null(schema))
            return take_schema(r, "response_format.json_schema.schema", schema);
        err_set(r->e, ERR_INVALID, "response_format needs json_schema.schema");
        return err_field(r->e, "%s", field);
    }
    err_set(r->e, ERR_UNSUPPORTED,
            "response_format of this type is not supported: text, json_object, json_schema, "
            "structural_tag");
    return err_field(r->e, "%s", field);
}

static status read_structured(reader *r, const json_t *body) {
    static const char field[] = "structured_outputs";
    const json_t *o = json_object_get(body, field), *v;
    status s = OK;
    if (!o || json_is_null(o)) return OK;
    if (!json_is_object(o)) return json_in_wrong(r->e, field, "an object", o);
    if (json_in_has(o, "json"))
        s = take_schema(r, "structured_outputs.json", json_object_get(o, "json"));
    if (s == OK && json_in_has(o, "regex"))
        s = take_text(r, "structured_outputs.regex", 'r', json_object_get(o, "regex"),
                      build_regex);
    if (s == OK && json_in_has(o, "choice"))
        s = take_choice(r, "structured_outputs.choice", json_object_get(o, "choice"));
    if (s == OK && json_in_has(o, "grammar"))
        s = take_text(r, "structured_outputs.grammar", 'g', json_object_get(o, "grammar"),
                      build_gbnf);
    v = json_object_get(o, "json_object");
    if (s == OK && v && json_is_true(v))
        s = take_json(r, "structured_outputs.json_object", 'o', v, build_object);
    if (s == OK && json_in_has(o, "structural_tag"))
        s = take_tags(r, "structured_outputs.structural_tag",
                      json_object_get(o, "structural_tag"));
    return s;
}

/* What of structured_outputs is no form of its own; other names would be passed over. */
static status check_structured(reader *r, const json_t *o) {
    static const char *const known[] = {"json",
                                        "regex",
                                        "choice",
                                        "grammar",
                                        "json_object",
                                        "structural_tag",
                                        "whitespace_pattern",
                                        "disable_any_whitespace",
                                        "disable_additional_properties",
                                        "disable_fallback"};
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        bool in = key[0] == '_' || json_is_null(v); /* vLLM's own, which it sends for none */
        for (size_t i = 0; !in && i < sizeof known / sizeof *known; i++)
            in = strcmp(key, known[i]) == 0;
        if (in) continue;
        err_set(r->e, ERR_UNSUPPORTED, "structured_outputs has no member %s here", key);
        return err_field(r->e, "structured_outputs.%s", key);
    }
    return OK;
}

static status read_pattern(reader *r, const json_t *o, const char *name, const char *field) {
    status s = json_in_str(o, name, &r->c->white_space, r->e);
    if (s == OK && r->c->white_space.len > MAX_WHITE_SPACE)
        s = err_set(r->e, ERR_INVALID, "%s is too long", field);
    return s == OK ? OK : err_field(r->e, "%s", field);
}

/* White space between the tokens of JSON, by vLLM's names. */
static status read_white_space(reader *r, const json_t *body) {
    const json_t *o = json_object_get(body, "structured_outputs");
    status s = read_pattern(r, body, "guided_whitespace_pattern", "guided_whitespace_pattern");
    if (s != OK || !json_is_object(o)) return s;
    s = check_structured(r, o);
    if (s == OK && json_in_has(o, "whitespace_pattern"))
        s = read_pattern(r, o, "whitespace_pattern", "structured_outputs.whitespace_pattern");
    if (s != OK) return s;
    s = json_in_bool(o, "disable_any_whitespace", &r->c->compact, r->e);
    return s == OK ? OK : err_field(r->e, "structured_outputs.disable_any_whitespace");
}

/* A value that is absent, null, or the empty text, which llama.cpp's clients send for none. */
static const json_t *given(const json_t *body, const char *name) {
    const json_t *v = json_object_get(body, name);
    return !v || json_is_null(v) || (json_is_string(v) && !json_string_length(v)) ? NULL : v;
}

status constraint_read(constraint *c, const json_t *body, arena *mem, err *e) {
    reader r = {c, mem, e};
    const json_t *v;
    *c = (constraint){0};
    status s = read_white_space(&r, body);
    if (s == OK) s = read_format(&r, body);
    if (s == OK) s = read_structured(&r, body);
    if (s == OK && (v = given(body, "guided_json"))) s = take_schema(&r, "guided_json", v);
    if (s == OK && (v = given(body, "json_schema"))) s = take_schema(&r, "json_schema", v);
    if (s == OK && (v = given(body, "guided_regex")))
        s = take_text(&r, "guided_regex", 'r', v, build_regex);
    if (s == OK && (v = given(body, "regex"))) s = take_text(&r, "regex", 'r', v, build_regex);
    if (s == OK && (v = given(body, "guided_choice"))) s = take_choice(&r, "guided_choice", v);
    if (s == OK && (v = given(body, "guided_grammar")))
        s = take_text(&r, "guided_grammar", 'g', v, build_gbnf);
    if (s == OK && (v = given(body, "grammar")))
        s = take_text(&r, "grammar", 'g', v, build_gbnf);
    if (s == OK && (v = given(body, "ebnf"))) s = take_text(&r, "ebnf", 'g', v, build_gbnf);
    if (s == OK && (v = given(body, "structural_tag"))) s = take_tags(&r, "structural_tag", v);
    return s;
}

static status compile(const constraint *c, arena *mem, const vocab_index *index,
                      const chunks *keep, grammar **out, err *e) {
    arena tmp;
    arena_init(&tmp, mem->src, 0);
    rules *r = rules_new(&tmp);
    rule root = RULE_NEVER;
    constraint with = *c;
    with.tok = index->tok;
    status s =
        r ? c->build(&with, r, &root, e) : err_set(e, ERR_NO_MEMORY, "no memory for a grammar");
    if (s == OK) s = grammar_compile(out, r, root, index, keep, e);
    arena_clear(&tmp);
    if (s != OK && s != ERR_NO_MEMORY && !e->field[0]) err_field(e, "%s", c->field);
    return s;
}

status constraint_compile(const constraint *c, arena *mem, const vocab_index *index,
                          const chunks *keep, grammar **out, err *e) {
    status s = compile(c, mem, index, keep, out, e);
    while (s != OK && s != ERR_NO_MEMORY && (c = c->weaker) != NULL)
        s = compile(c, mem, index, keep, out, e);
    return s;
}
