/* Structural tags to rules. Owns nothing. */
#include "text/grammar/tags_in.h"

#include <string.h>

#include "text/grammar/gbnf.h"
#include "text/grammar/regex.h"
#include "text/reply/reply_rules.h"
#include "text/reply/reply_template.h"

enum { MAX_DEPTH = 40, MAX_TIMES = 100000 };

static status build(tags *b, const json_t *f, const ends *end, rule *out);

static status build_schema(const tags *b, const json_t *v, const ends *end, rule *out) {
    rule one = RULE_NEVER;
    if (!json_is_object(v) && !json_is_boolean(v))
        return tags_wrong(b, "a JSON schema is needed");
    status s = rules_json_schema(b->r, v, &b->o->schema, &one, b->e);
    *out = tags_closed_by(b, one, end);
    return s;
}

static status closed_schema(rules *r, const json_t *schema, rule *out, err *e) {
    static const schema_options closed = {.closed = true};
    return rules_json_schema(r, schema, &closed, out, e);
}

/* Members written as families of models write the arguments of a call. */
static status build_styled(const tags *b, const json_t *v, str style, const ends *end,
                           rule *out) {
    static const struct {
        const char *style, *format;
    } rows[] = {{"qwen_xml", "qwen3-coder"},
                {"minimax_xml", "minimax"},
                {"deepseek_xml", "deepseek-v3.2"},
                {"glm_xml", "glm"}};
    size_t n = 0, i = 0;
    rule one = RULE_NEVER;
    while (i < sizeof rows / sizeof *rows && !str_eqz(style, rows[i].style)) i++;
    if (!json_is_object(v))
        return tags_unsupported(b, "a style without the schema of an object");
    if (i == sizeof rows / sizeof *rows) return tags_typed(b, style, v, end, out);
    const reply_special *special = b->o->tok ? reply_specials(b->o->tok, b->mem, &n) : NULL;
    if (b->o->tok && !special) return tags_no_memory(b);
    status s =
        reply_tagged_rule(b->r, rows[i].format, special, n, v, closed_schema, &one, b->e);
    *out = tags_closed_by(b, one, end);
    return s;
}

static status build_json_schema(const tags *b, const json_t *f, const ends *end, rule *out) {
    const json_t *v = json_object_get(f, "json_schema"), *style = json_object_get(f, "style");
    if (tags_is_set(f, "max_whitespace_cnt")) return tags_unsupported(b, "max_whitespace_cnt");
    if (style && !json_is_string(style)) return tags_wrong(b, "style is the name of one");
    if (!style || str_eqz(json_in_text(style), "json")) return build_schema(b, v, end, out);
    return build_styled(b, v, json_in_text(style), end, out);
}

static status build_text(const tags *b, const json_t *f, const char *key, const ends *end,
                         status (*translate)(rules *, str, rule *, err *), rule *out) {
    const json_t *v = json_object_get(f, key);
    rule one = RULE_NEVER;
    if (!json_is_string(v))
        return tags_wrong(b, "a string is needed for value, pattern or grammar");
    status s = OK;
    if (translate)
        s = translate(b->r, json_in_text(v), &one, b->e);
    else
        one = tags_text(b, json_in_text(v));
    *out = tags_closed_by(b, one, end);
    return s;
}

/* The strings that a form begins with, one of them; n 0: not known. */
static status begin_of(const tags *b, const json_t *f, ends *out) {
    *out = (ends){0};
    if (tags_has_type(f, "const_string"))
        return tags_strings(b, json_object_get(f, "value"), "value", out);
    if (tags_has_type(f, "token")) return tags_strings(b, f, "a token", out);
    if (tags_has_type(f, "tag"))
        return tags_strings(b, json_object_get(f, "begin"), "begin", out);
    return OK;
}

static bool is_free(const json_t *f) {
    static const char *const types[] = {
        "any_text",       "any_tokens",           "dispatch",
        "token_dispatch", "token_triggered_tags", "triggered_tags"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (tags_has_type(f, types[i])) return true;
    return false;
}

/* Both lists. */
static status join(const tags *b, const ends *x, const ends *y, ends *out) {
    str *v = arena_alloc(b->mem, (x->n + y->n) * sizeof *v + 1);
    if (!v) return tags_no_memory(b);
    if (x->n) memcpy(v, x->v, x->n * sizeof *v);
    if (y->n) memcpy(v + x->n, y->v, y->n * sizeof *v);
    *out = (ends){v, x->n + y->n};
    return OK;
}

/* An element that others follow: free text goes up to where the next one begins. */
static status build_inner(tags *b, const json_t *f, const json_t *next, const ends *end,
                          rule *out) {
    const ends keep = b->stop, none = {0};
    ends begin, no;
    status s = begin_of(b, next, &begin);
    if (s == OK && is_free(f) && !begin.n) {
        s = tags_excluded(b, f, &no);
        if (s == OK && !no.n)
            return tags_unsupported(b, "free text without excludes before anything but a "
                                       "const_string, a token or a tag");
    }
    if (s == OK) s = join(b, &begin, end, &begin);
    if (s == OK) s = join(b, &begin, &keep, &b->stop);
    if (s == OK) s = build(b, f, &none, out);
    b->stop = keep;
    return s;
}

static status build_sequence(tags *b, const json_t *list, const ends *end, rule *out) {
    const size_t n = json_array_size(list);
    rule *part = arena_alloc(b->mem, n * sizeof *part + 1);
    if (!json_is_array(list) || n > TAGS_MAX_LIST)
        return tags_wrong(b, "elements must be a list");
    if (!part) return tags_no_memory(b);
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(list, i);
        status s = i + 1 < n ? build_inner(b, one, json_array_get(list, i + 1), end, &part[i])
                             : build(b, one, end, &part[i]);
        if (s != OK) return s;
    }
    *out = n ? rules_seq(b->r, part, n) : tags_closed_by(b, RULE_EMPTY, end);
    return OK;
}

/* content, min to max times. */
static status build_repeat(tags *b, const json_t *f, json_int_t min, json_int_t max,
                           const ends *end, rule *out) {
    const ends keep = b->stop, none = {0};
    rule one = RULE_NEVER;
    if (min < 0 || max < -1 || (max >= 0 && max < min) || max > MAX_TIMES || min > MAX_TIMES)
        return tags_wrong(b, "min and max must be counts, min not above max");
    status s = join(b, end, &keep, &b->stop);
    if (s == OK) s = build(b, json_object_get(f, "content"), &none, &one);
    b->stop = keep;
    one = rules_repeat(b->r, one, (uint32_t)min, max < 0 ? RULE_UNBOUNDED : (uint32_t)max);
    *out = tags_closed_by(b, one, end);
    return s;
}

static status build_counted(tags *b, const json_t *f, const ends *end, rule *out) {
    const json_t *min = json_object_get(f, "min"), *max = json_object_get(f, "max");
    if (!json_is_integer(min) || !json_is_integer(max))
        return tags_wrong(b, "repeat needs min and max");
    return build_repeat(b, f, json_integer_value(min), json_integer_value(max), end, out);
}

static status build_choice(tags *b, const json_t *list, const ends *end, rule *out) {
    const size_t n = json_array_size(list);
    rule *part = arena_alloc(b->mem, n * sizeof *part + 1);
    if (!json_is_array(list) || n > TAGS_MAX_LIST)
        return tags_wrong(b, "elements must be a list");
    if (!part) return tags_no_memory(b);
    for (size_t i = 0; i < n; i++) {
        status s = build(b, json_array_get(list, i), end, &part[i]);
        if (s != OK) return s;
    }
    *out = rules_alt(b->r, part, n);
    return OK;
}

/* From behind `skip` bytes of the begin to the end of a tag, its end included. */
static status build_tag(tags *b, const json_t *tag, str begin, size_t skip, rule *out) {
    ends end;
    rule body = RULE_NEVER;
    const json_t *schema = json_object_get(tag, "schema");
    const ends keep = b->stop;
    b->stop = (ends){0}; /* within a tag it is its own end that counts */
    status s = tags_strings(b, json_object_get(tag, "end"), "a tag needs an end", &end);
    if (s == OK && schema)
        s = build_schema(b, schema, &end, &body);
    else if (s == OK)
        s = build(b, json_object_get(tag, "content"), &end, &body);
    b->stop = keep;
    const rule rest = tags_text(b, (str){begin.ptr + skip, begin.len - skip});
    *out = rules_seq(b->r, (rule[]){rest, body}, 2);
    return s;
}

/* A tag with each of its begins. */
static status build_whole_tag(tags *b, const json_t *tag, const ends *end, rule *out) {
    ends begin;
    status s = tags_strings(b, json_object_get(tag, "begin"), "a tag needs a begin", &begin);
    rule *one = s == OK ? arena_alloc(b->mem, begin.n * sizeof *one + 1) : NULL;
    if (s == OK && !one) return tags_no_memory(b);
    for (size_t i = 0; s == OK && i < begin.n; i++)
        s = build_tag(b, tag, begin.v[i], 0, &one[i]);
    if (s == OK) *out = tags_closed_by(b, rules_alt(b->r, one, begin.n), end);
    return s;
}

/* What may follow a trigger: the tags that begin with it. */
static status behind_trigger(tags *b, const json_t *tags, str trigger, rule *out) {
    rule *one = arena_alloc(b->mem, TAGS_MAX_LIST * sizeof *one);
    size_t i, n = 0;
    const json_t *tag;
    if (!one) return tags_no_memory(b);
    json_array_foreach(tags, i, tag) {
        ends begin;
        status s =
            tags_strings(b, json_object_get(tag, "begin"), "a tag needs a begin", &begin);
        for (size_t k = 0; s == OK && k < begin.n; k++) {
            if (!str_starts(begin.v[k], trigger)) continue;
            if (n == TAGS_MAX_LIST) return tags_wrong(b, "too many tags");
            s = build_tag(b, tag, begin.v[k], trigger.len, &one[n++]);
        }
        if (s != OK) return s;
    }
    if (!n) return tags_wrong(b, "no tag begins with one of the triggers");
    *out = rules_alt(b->r, one, n);
    return OK;
}

static status check_triggered(const tags *b, const json_t *tags, const ends *trigger) {
    size_t i;
    const json_t *tag;
    json_array_foreach(tags, i, tag) {
        ends begin;
        status s =
            tags_strings(b, json_object_get(tag, "begin"), "a tag needs a begin", &begin);
        if (s != OK) return s;
        for (size_t k = 0; k < begin.n; k++) {
            bool any = false;
            for (size_t m = 0; m < trigger->n; m++)
                any |= str_starts(begin.v[k], trigger->v[m]);
            if (!any) return tags_wrong(b, "a tag begins with none of the triggers");
        }
    }
    return OK;
}

static bool flag(const json_t *f, const char *name) {
    return json_is_true(json_object_get(f, name));
}

static status triggers_of(const tags *b, const json_t *f, ends *out) {
    const json_t *v = json_object_get(f, "trigger_tokens");
    if (!v)
        return tags_strings(b, json_object_get(f, "triggers"),
                            "triggers must be a list of strings", out);
    if (!json_array_size(v)) return tags_wrong(b, "trigger_tokens must be a list of tokens");
    return tags_tokens(b, v, out);
}

static status build_triggered(tags *b, const json_t *f, const char *list, const ends *end,
                              rule *out) {
    const json_t *tags = json_object_get(f, list);
    ends trigger;
    if (!json_array_size(tags) || json_array_size(tags) > TAGS_MAX_LIST)
        return tags_wrong(b, "tags must be a list");
    status s = triggers_of(b, f, &trigger);
    if (s == OK) s = check_triggered(b, tags, &trigger);
    rule_trigger *t = s == OK ? arena_zalloc(b->mem, trigger.n * sizeof *t + 1) : NULL;
    if (s == OK && !t) return tags_no_memory(b);
    for (size_t i = 0; s == OK && i < trigger.n; i++) {
        t[i].mark = tags_symbols_of(b, trigger.v[i], &t[i].n_mark);
        if (!t[i].mark) return tags_no_memory(b);
        if (!t[i].n_mark) return tags_wrong(b, "a trigger is empty");
        s = behind_trigger(b, tags, trigger.v[i], &t[i].then);
    }
    const unsigned flags = (flag(f, "at_least_one") ? TRIGGER_NEEDED : 0u) |
                           (flag(f, "stop_after_first") ? TRIGGER_ONCE : 0u);
    return s == OK ? tags_free_text(b, f, end, t, trigger.n, flags, out) : s;
}

/* rules: pairs of what is looked for, a string or a token, and what follows it. */
static status build_dispatch(tags *b, const json_t *f, bool by_token, const ends *end,
                             rule *out) {
    const json_t *list = json_object_get(f, "rules"), *pair;
    const ends none = {0}, keep = b->stop;
    size_t i, n = json_array_size(list);
    rule_trigger *t = arena_zalloc(b->mem, n * sizeof *t + 1);
    status s = OK;
    if (!n || n > TAGS_MAX_LIST) return tags_wrong(b, "rules must be a list of pairs");
    if (!t) return tags_no_memory(b);
    b->stop = none;
    json_array_foreach(list, i, pair) {
        const json_t *mark = json_array_get(pair, 0);
        str text = STR("");
        if (json_array_size(pair) != 2) s = tags_wrong(b, "rules must be a list of pairs");
        if (s == OK && by_token) s = tags_token_text(b, mark, &text);
        if (s == OK && !by_token && json_is_string(mark)) text = json_in_text(mark);
        if (s == OK && (!text.len || text.len > TAGS_MAX_MARK))
            s = tags_wrong(b, "a rule begins with a string");
        if (s == OK && !(t[i].mark = tags_symbols_of(b, text, &t[i].n_mark)))
            s = tags_no_memory(b);
        if (s == OK) s = build(b, json_array_get(pair, 1), &none, &t[i].then);
        if (s != OK) break;
    }
    b->stop = keep;
    const bool once = json_is_false(json_object_get(f, "loop"));
    return s == OK ? tags_free_text(b, f, end, t, n, once ? TRIGGER_ONCE : 0, out) : s;
}

static status build_separated(tags *b, const json_t *f, const ends *end, rule *out) {
    const json_t *tags = json_object_get(f, "tags"), *sep = json_object_get(f, "separator");
    rule one = RULE_NEVER;
    const ends none = {0};
    if (!json_array_size(tags) || !json_is_string(sep))
        return tags_wrong(b, "tags_with_separator needs tags and a separator");
    status s = build_choice(b, tags, &none, &one);
    if (s != OK) return s;
    const rule more = rules_seq(b->r, (rule[]){tags_text(b, json_in_text(sep)), one}, 2);
    if (!flag(f, "stop_after_first"))
        one = rules_seq(b->r, (rule[]){one, rules_repeat(b->r, more, 0, RULE_UNBOUNDED)}, 2);
    if (!flag(f, "at_least_one")) one = rules_optional(b->r, one);
    *out = tags_closed_by(b, one, end);
    return OK;
}

static status build_token(const tags *b, const json_t *f, const ends *end, rule *out) {
    str token = {0};
    status s = tags_token_text(b, f, &token);
    if (s == OK) *out = tags_closed_by(b, tags_text(b, token), end);
    return s;
}

static status build_type(tags *b, const json_t *f, str type, const ends *end, rule *out) {
    if (str_eqz(type, "const_string")) return build_text(b, f, "value", end, NULL, out);
    if (str_eqz(type, "json_schema")) return build_json_schema(b, f, end, out);
    if (str_eqz(type, "qwen_xml_parameter"))
        return build_styled(b, json_object_get(f, "json_schema"), STR("qwen_xml"), end, out);
    if (str_eqz(type, "any_text") || str_eqz(type, "any_tokens"))
        return tags_any_text(b, f, end, out);
    if (str_eqz(type, "token")) return build_token(b, f, end, out);
    if (str_eqz(type, "exclude_token")) return tags_one_token(b, f, end, out);
    if (str_eqz(type, "optional")) return build_repeat(b, f, 0, 1, end, out);
    if (str_eqz(type, "star")) return build_repeat(b, f, 0, -1, end, out);
    if (str_eqz(type, "plus")) return build_repeat(b, f, 1, -1, end, out);
    if (str_eqz(type, "repeat")) return build_counted(b, f, end, out);
    if (str_eqz(type, "regex")) return build_text(b, f, "pattern", end, rules_regex, out);
    if (str_eqz(type, "grammar")) return build_text(b, f, "grammar", end, rules_gbnf, out);
    if (str_eqz(type, "sequence"))
        return build_sequence(b, json_object_get(f, "elements"), end, out);
    if (str_eqz(type, "or")) return build_choice(b, json_object_get(f, "elements"), end, out);
    if (str_eqz(type, "tag")) return build_whole_tag(b, f, end, out);
    if (str_eqz(type, "triggered_tags") || str_eqz(type, "token_triggered_tags"))
        return build_triggered(b, f, "tags", end, out);
    if (str_eqz(type, "dispatch")) return build_dispatch(b, f, false, end, out);
    if (str_eqz(type, "token_dispatch")) return build_dispatch(b, f, true, end, out);
    if (str_eqz(type, "tags_with_separator")) return build_separated(b, f, end, out);
    return tags_unsupported(b, "a format of this type");
}

static status build(tags *b, const json_t *f, const ends *end, rule *out) {
    const json_t *type = json_object_get(f, "type");
    if (!json_is_object(f) || !json_is_string(type))
        return tags_wrong(b, "a format is an object with a type");
    if (++b->depth > MAX_DEPTH) return tags_wrong(b, "it nests too deeply");
    status s = build_type(b, f, json_in_text(type), end, out);
    b->depth--;
    return s;
}

status rules_tags(rules *r, const json_t *tag, const tags_options *o, rule *out, err *e) {
    tags b = {.r = r, .mem = rules_arena(r), .o = o, .e = e};
    const ends none = {0};
    *out = RULE_NEVER;
    if (json_object_get(tag, "structures"))
        return build_triggered(&b, tag, "structures", &none, out);
    if (json_object_get(tag, "format"))
        return build(&b, json_object_get(tag, "format"), &none, out);
    return tags_wrong(&b, "it needs format, or structures and triggers");
}
