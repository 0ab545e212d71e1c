/* Structural tags to rules. Owns nothing. */
#include "text/tags.h"

#include <string.h>

#include "text/gbnf.h"
#include "text/regex.h"

enum { MAX_DEPTH = 40, MAX_LIST = 1024, MAX_MARK = 1024 };

typedef struct builder {
    rules *r;
    arena *mem;
    const tags_options *o;
    err *e;
    int depth;
} builder;

/* A list of strings that may end what is built: one of them follows, and is part of it. */
typedef struct ends {
    const str *v;
    size_t n;
} ends;

static status wrong(const builder *b, const char *what) {
    return err_set(b->e, ERR_INVALID, "structural tag: %s", what);
}

static status unsupported(const builder *b, const char *what) {
    return err_set(b->e, ERR_UNSUPPORTED, "structural tag: %s is not supported", what);
}

static status no_memory(const builder *b) {
    return err_set(b->e, ERR_NO_MEMORY, "no memory for a structural tag");
}

/* ---- texts with special tokens ---- */

/* The special token that a text begins with, the longest; -1: none. */
static int32_t special_at(const builder *b, str s) {
    size_t n, len = 0;
    int32_t best = -1;
    if (!b->o->tok) return -1;
    const uint32_t *id = tokenizer_specials(b->o->tok, &n);
    for (size_t i = 0; i < n; i++) {
        if (!tokenizer_is_special(b->o->tok, (int32_t)id[i])) continue;
        const str t = tokenizer_piece(b->o->tok, (int32_t)id[i], true);
        if (t.len > len && str_starts(s, t)) len = t.len, best = (int32_t)id[i];
    }
    return best;
}

/* The symbols of a text, as of rule_trigger; NULL: no memory. */
static uint32_t *symbols_of(const builder *b, str s, size_t *n) {
    uint32_t *out = arena_alloc(b->mem, s.len * sizeof *out + 4);
    *n = 0;
    for (size_t i = 0; out && i < s.len;) {
        const int32_t id = special_at(b, (str){s.ptr + i, s.len - i});
        out[(*n)++] = id < 0 ? (uint8_t)s.ptr[i] : RULE_MARK_TOKEN + (uint32_t)id;
        i += id < 0 ? 1 : tokenizer_piece(b->o->tok, id, true).len;
    }
    return out;
}

static rule text(const builder *b, str s) {
    size_t n;
    const uint32_t *v = symbols_of(b, s, &n);
    rule out = RULE_EMPTY;
    for (size_t i = 0, k; v && i < n; i = k) {
        rule part[2] = {out, RULE_EMPTY};
        char bytes[64];
        for (k = i; k < n && v[k] < RULE_MARK_TOKEN && k - i < sizeof bytes; k++)
            bytes[k - i] = (char)v[k];
        if (k > i)
            part[1] = rules_bytes(b->r, (str){bytes, k - i});
        else
            part[1] = rules_token(b->r, (int32_t)(v[k++] - RULE_MARK_TOKEN));
        out = rules_seq(b->r, part, 2);
    }
    return v ? out : RULE_NEVER;
}

/* A string, or a list of them. */
static status strings(const builder *b, const json_t *v, const char *name, ends *out) {
    const size_t n = json_is_array(v) ? json_array_size(v) : 1;
    str *s = arena_alloc(b->mem, n * sizeof *s + 1);
    if (!s) return no_memory(b);
    if (!n || n > MAX_LIST) return wrong(b, name);
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(one) || json_string_length(one) > MAX_MARK) return wrong(b, name);
        s[i] = json_in_text(one);
    }
    *out = (ends){s, n};
    return OK;
}

static rule any_of(const builder *b, const ends *x) {
    rule *one = arena_alloc(b->mem, x->n * sizeof *one + 1);
    for (size_t i = 0; one && i < x->n; i++) one[i] = text(b, x->v[i]);
    return one ? rules_alt(b->r, one, x->n) : RULE_NEVER;
}

/* `what`, and one of the ends behind it. */
static rule closed_by(const builder *b, rule what, const ends *end) {
    return end->n ? rules_seq(b->r, (rule[]){what, any_of(b, end)}, 2) : what;
}

/* ---- free text ---- */

/* Anything, up to and including one of the ends; to the end of the text where there is none. */
static status free_text(const builder *b, const ends *end, rule *out) {
    rule_trigger *t = arena_alloc(b->mem, end->n * sizeof *t + 1);
    if (!t) return no_memory(b);
    for (size_t i = 0; i < end->n; i++) {
        t[i].mark = symbols_of(b, end->v[i], &t[i].n_mark);
        t[i].then = RULE_EMPTY;
        if (!t[i].mark) return no_memory(b);
        if (!t[i].n_mark) return wrong(b, "free text needs an end that is not empty");
    }
    *out = rules_triggered(b->r, t, end->n, end->n ? TRIGGER_NEEDED | TRIGGER_ONCE : 0);
    return OK;
}

/* ---- forms ---- */

static status build(builder *b, const json_t *f, const ends *end, rule *out);

static status build_schema(const builder *b, const json_t *v, const ends *end, rule *out) {
    rule one = RULE_NEVER;
    if (!json_is_object(v) && !json_is_boolean(v)) return wrong(b, "a JSON schema is needed");
    status s = rules_json_schema(b->r, v, &b->o->schema, &one, b->e);
    *out = closed_by(b, one, end);
    return s;
}

static status build_text(const builder *b, const json_t *f, const char *key, const ends *end,
                         status (*translate)(rules *, str, rule *, err *), rule *out) {
    const json_t *v = json_object_get(f, key);
    rule one = RULE_NEVER;
    if (!json_is_string(v)) return wrong(b, "a string is needed for value, pattern or grammar");
    status s = OK;
    if (translate)
        s = translate(b->r, json_in_text(v), &one, b->e);
    else
        one = text(b, json_in_text(v));
    *out = closed_by(b, one, end);
    return s;
}

/* What of a sequence follows free text: a constant, or the begin of a tag. */
static status begin_of(const builder *b, const json_t *next, ends *out) {
    const json_t *type = json_object_get(next, "type");
    if (json_is_string(type) && str_eqz(json_in_text(type), "const_string"))
        return strings(b, json_object_get(next, "value"), "value", out);
    return unsupported(b, "any_text before anything but a const_string or the end");
}

static bool is_free(const json_t *f) {
    const json_t *type = json_object_get(f, "type");
    return json_is_string(type) && str_eqz(json_in_text(type), "any_text");
}

static status build_sequence(builder *b, const json_t *list, const ends *end, rule *out) {
    const size_t n = json_array_size(list);
    rule *part = arena_alloc(b->mem, n * sizeof *part + 1);
    if (!json_is_array(list) || n > MAX_LIST) return wrong(b, "elements must be a list");
    if (!part) return no_memory(b);
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(list, i);
        ends behind = i + 1 == n ? *end : (ends){0};
        const bool skips = is_free(one) && i + 1 < n;
        status s = skips ? begin_of(b, json_array_get(list, i + 1), &behind) : OK;
        if (s == OK && skips && i + 2 == n && end->n)
            s = unsupported(b, "any_text before the last element within a tag");
        if (s == OK) s = build(b, one, &behind, &part[k++]);
        if (s != OK) return s;
        i += skips; /* the constant is part of it */
    }
    *out = n ? rules_seq(b->r, part, k) : closed_by(b, RULE_EMPTY, end);
    return OK;
}

static status build_choice(builder *b, const json_t *list, const ends *end, rule *out) {
    const size_t n = json_array_size(list);
    rule *part = arena_alloc(b->mem, n * sizeof *part + 1);
    if (!json_is_array(list) || n > MAX_LIST) return wrong(b, "elements must be a list");
    if (!part) return no_memory(b);
    for (size_t i = 0; i < n; i++) {
        status s = build(b, json_array_get(list, i), end, &part[i]);
        if (s != OK) return s;
    }
    *out = rules_alt(b->r, part, n);
    return OK;
}

/* From behind `skip` bytes of the begin to the end of a tag, its end included. */
static status build_tag(builder *b, const json_t *tag, str begin, size_t skip, rule *out) {
    ends end;
    rule body = RULE_NEVER;
    const json_t *schema = json_object_get(tag, "schema");
    status s = strings(b, json_object_get(tag, "end"), "a tag needs an end", &end);
    if (s == OK && schema)
        s = build_schema(b, schema, &end, &body);
    else if (s == OK)
        s = build(b, json_object_get(tag, "content"), &end, &body);
    const rule rest = text(b, (str){begin.ptr + skip, begin.len - skip});
    *out = rules_seq(b->r, (rule[]){rest, body}, 2);
    return s;
}

/* A tag with each of its begins. */
static status build_whole_tag(builder *b, const json_t *tag, const ends *end, rule *out) {
    ends begin;
    status s = strings(b, json_object_get(tag, "begin"), "a tag needs a begin", &begin);
    rule *one = s == OK ? arena_alloc(b->mem, begin.n * sizeof *one + 1) : NULL;
    if (s == OK && !one) return no_memory(b);
    for (size_t i = 0; s == OK && i < begin.n; i++)
        s = build_tag(b, tag, begin.v[i], 0, &one[i]);
    if (s == OK) *out = closed_by(b, rules_alt(b->r, one, begin.n), end);
    return s;
}

/* What may follow a trigger: the tags that begin with it. */
static status behind_trigger(builder *b, const json_t *tags, str trigger, rule *out) {
    rule *one = arena_alloc(b->mem, MAX_LIST * sizeof *one);
    size_t i, n = 0;
    const json_t *tag;
    if (!one) return no_memory(b);
    json_array_foreach(tags, i, tag) {
        ends begin;
        status s = strings(b, json_object_get(tag, "begin"), "a tag needs a begin", &begin);
        for (size_t k = 0; s == OK && k < begin.n; k++) {
            if (!str_starts(begin.v[k], trigger)) continue;
            if (n == MAX_LIST) return wrong(b, "too many tags");
            s = build_tag(b, tag, begin.v[k], trigger.len, &one[n++]);
        }
        if (s != OK) return s;
    }
    if (!n) return wrong(b, "no tag begins with one of the triggers");
    *out = rules_alt(b->r, one, n);
    return OK;
}

static status check_triggered(const builder *b, const json_t *tags, const ends *trigger) {
    size_t i;
    const json_t *tag;
    json_array_foreach(tags, i, tag) {
        ends begin;
        status s = strings(b, json_object_get(tag, "begin"), "a tag needs a begin", &begin);
        if (s != OK) return s;
        for (size_t k = 0; k < begin.n; k++) {
            bool any = false;
            for (size_t m = 0; m < trigger->n; m++)
                any |= str_starts(begin.v[k], trigger->v[m]);
            if (!any) return wrong(b, "a tag begins with none of the triggers");
        }
    }
    return OK;
}

static bool flag(const json_t *f, const char *name) {
    return json_is_true(json_object_get(f, name));
}

static status build_triggered(builder *b, const json_t *f, const char *list, const ends *end,
                              rule *out) {
    const json_t *tags = json_object_get(f, list), *no = json_object_get(f, "excludes");
    ends trigger;
    if (end->n) return unsupported(b, "free text with triggers within a tag or a sequence");
    if (json_array_size(no)) return unsupported(b, "excludes");
    if (!json_array_size(tags) || json_array_size(tags) > MAX_LIST)
        return wrong(b, "tags must be a list");
    status s = strings(b, json_object_get(f, "triggers"), "triggers must be a list of strings",
                       &trigger);
    if (s == OK) s = check_triggered(b, tags, &trigger);
    rule_trigger *t = s == OK ? arena_alloc(b->mem, trigger.n * sizeof *t) : NULL;
    if (s == OK && !t) return no_memory(b);
    for (size_t i = 0; s == OK && i < trigger.n; i++) {
        t[i].mark = symbols_of(b, trigger.v[i], &t[i].n_mark);
        if (!t[i].mark) return no_memory(b);
        if (!t[i].n_mark) return wrong(b, "a trigger is empty");
        s = behind_trigger(b, tags, trigger.v[i], &t[i].then);
    }
    if (s == OK)
        *out = rules_triggered(b->r, t, trigger.n,
                               (flag(f, "at_least_one") ? TRIGGER_NEEDED : 0u) |
                                   (flag(f, "stop_after_first") ? TRIGGER_ONCE : 0u));
    return s;
}

static status build_separated(builder *b, const json_t *f, const ends *end, rule *out) {
    const json_t *tags = json_object_get(f, "tags"), *sep = json_object_get(f, "separator");
    rule one = RULE_NEVER;
    const ends none = {0};
    if (!json_array_size(tags) || !json_is_string(sep))
        return wrong(b, "tags_with_separator needs tags and a separator");
    status s = build_choice(b, tags, &none, &one);
    if (s != OK) return s;
    const rule more = rules_seq(b->r, (rule[]){text(b, json_in_text(sep)), one}, 2);
    if (!flag(f, "stop_after_first"))
        one = rules_seq(b->r, (rule[]){one, rules_repeat(b->r, more, 0, RULE_UNBOUNDED)}, 2);
    if (!flag(f, "at_least_one")) one = rules_optional(b->r, one);
    *out = closed_by(b, one, end);
    return OK;
}

static status build_type(builder *b, const json_t *f, str type, const ends *end, rule *out) {
    if (str_eqz(type, "const_string")) return build_text(b, f, "value", end, NULL, out);
    if (str_eqz(type, "json_schema"))
        return build_schema(b, json_object_get(f, "json_schema"), end, out);
    if (str_eqz(type, "any_text")) return free_text(b, end, out);
    if (str_eqz(type, "regex")) return build_text(b, f, "pattern", end, rules_regex, out);
    if (str_eqz(type, "grammar")) return build_text(b, f, "grammar", end, rules_gbnf, out);
    if (str_eqz(type, "sequence"))
        return build_sequence(b, json_object_get(f, "elements"), end, out);
    if (str_eqz(type, "or")) return build_choice(b, json_object_get(f, "elements"), end, out);
    if (str_eqz(type, "tag")) return build_whole_tag(b, f, end, out);
    if (str_eqz(type, "triggered_tags")) return build_triggered(b, f, "tags", end, out);
    if (str_eqz(type, "tags_with_separator")) return build_separated(b, f, end, out);
    return unsupported(b, "a format of this type");
}

static status build(builder *b, const json_t *f, const ends *end, rule *out) {
    const json_t *type = json_object_get(f, "type");
    if (!json_is_object(f) || !json_is_string(type))
        return wrong(b, "a format is an object with a type");
    if (++b->depth > MAX_DEPTH) return wrong(b, "it nests too deeply");
    status s = build_type(b, f, json_in_text(type), end, out);
    b->depth--;
    return s;
}

status rules_tags(rules *r, const json_t *tag, const tags_options *o, rule *out, err *e) {
    builder b = {r, rules_arena(r), o, e, 0};
    const ends none = {0};
    *out = RULE_NEVER;
    if (json_object_get(tag, "structures"))
        return build_triggered(&b, tag, "structures", &none, out);
    if (json_object_get(tag, "format"))
        return build(&b, json_object_get(tag, "format"), &none, out);
    return wrong(&b, "it needs format, or structures and triggers");
}
