/* Reads constraints, and builds their expressions. Owns nothing. Reading on the loop thread,
 * building on any. */
#include "api/constraint.h"

#include "json/out.h"
#include "text/gbnf.h"
#include "text/regex.h"
#include "text/schema.h"

enum { MAX_TEXT = 256 * 1024, MAX_CHOICES = 4096 };

/* ---- building ---- */

static status build_object(const constraint *c, rules *r, rule *out, err *e) {
    (void)c;
    return rules_json_object(r, out, e);
}

static status build_schema(const constraint *c, rules *r, rule *out, err *e) {
    static const schema_options closed = {.closed = true};
    return rules_json_schema(r, c->json, &closed, out, e);
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

static status unsupported(reader *r, const char *field) {
    err_set(r->e, ERR_UNSUPPORTED, "%s is not supported", field);
    return err_field(r->e, "%s", field);
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
            "response_format of this type is not supported: text, json_object, json_schema");
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
        s = unsupported(r, "structured_outputs.structural_tag");
    return s;
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
    status s = read_format(&r, body);
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
    return s;
}

static status compile(const constraint *c, arena *mem, const vocab_index *index,
                      const chunks *keep, grammar **out, err *e) {
    arena tmp;
    arena_init(&tmp, mem->src, 0);
    rules *r = rules_new(&tmp);
    rule root = RULE_NEVER;
    status s =
        r ? c->build(c, r, &root, e) : err_set(e, ERR_NO_MEMORY, "no memory for a grammar");
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
