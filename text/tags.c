/* Structural tags to rules. Owns nothing. */
#include "text/tags_in.h"

#include <string.h>

#include "text/gbnf.h"
#include "text/grammar.h"
#include "text/regex.h"
#include "text/reply_rules.h"
#include "text/reply_template.h"

enum { MAX_DEPTH = 40, MAX_LIST = 1024, MAX_MARK = 1024, MAX_TIMES = 100000 };

static status wrong(const tags *b, const char *what) {
    return err_set(b->e, ERR_INVALID, "structural tag: %s", what);
}

status tags_unsupported(const tags *b, const char *what) {
    return err_set(b->e, ERR_UNSUPPORTED, "structural tag: %s is not supported", what);
}

static status no_memory(const tags *b) {
    return err_set(b->e, ERR_NO_MEMORY, "no memory for a structural tag");
}

/* ---- texts with special tokens ---- */

/* The special token that a text begins with, the longest; -1: none. */
static int32_t special_at(const tags *b, str s) {
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
static uint32_t *symbols_of(const tags *b, str s, size_t *n) {
    uint32_t *out = arena_alloc(b->mem, s.len * sizeof *out + 4);
    *n = 0;
    for (size_t i = 0; out && i < s.len;) {
        const int32_t id = special_at(b, (str){s.ptr + i, s.len - i});
        out[(*n)++] = id < 0 ? (uint8_t)s.ptr[i] : RULE_MARK_TOKEN + (uint32_t)id;
        i += id < 0 ? 1 : tokenizer_piece(b->o->tok, id, true).len;
    }
    return out;
}

rule tags_text(const tags *b, str s) {
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

/* {"token": ...}, or its id or text alone: the text of a special token. */
static status token_text(const tags *b, const json_t *v, str *out) {
    if (json_is_object(v)) v = json_object_get(v, "token");
    int32_t id = -1;
    if (json_is_integer(v) && b->o->tok && json_integer_value(v) >= 0 &&
        json_integer_value(v) < (json_int_t)tokenizer_n_vocab(b->o->tok))
        id = (int32_t)json_integer_value(v);
    if (json_is_string(v)) id = special_at(b, json_in_text(v));
    if (!json_is_integer(v) && !json_is_string(v))
        return wrong(b, "a token is an id or a text");
    if (id < 0 || !tokenizer_is_special(b->o->tok, id))
        return tags_unsupported(b, "a token that is not special");
    *out = tokenizer_piece(b->o->tok, id, true);
    if (json_is_string(v) && out->len != json_string_length(v))
        return tags_unsupported(b, "a token that is not special");
    return OK;
}

static bool has_type(const json_t *f, const char *type) {
    const json_t *v = json_object_get(f, "type");
    return json_is_string(v) && str_eqz(json_in_text(v), type);
}

/* A string, or a list of them; tokens may stand among them. */
static status strings(const tags *b, const json_t *v, const char *name, ends *out) {
    const size_t n = json_is_array(v) ? json_array_size(v) : 1;
    str *s = arena_alloc(b->mem, n * sizeof *s + 1);
    if (!s) return no_memory(b);
    if (!n || n > MAX_LIST) return wrong(b, name);
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(v) ? json_array_get(v, i) : v;
        if (has_type(one, "token")) {
            status st = token_text(b, one, &s[i]);
            if (st != OK) return st;
            continue;
        }
        if (!json_is_string(one) || json_string_length(one) > MAX_MARK) return wrong(b, name);
        s[i] = json_in_text(one);
    }
    *out = (ends){s, n};
    return OK;
}

static rule any_of(const tags *b, const ends *x) {
    rule *one = arena_alloc(b->mem, x->n * sizeof *one + 1);
    for (size_t i = 0; one && i < x->n; i++) one[i] = tags_text(b, x->v[i]);
    return one ? rules_alt(b->r, one, x->n) : RULE_NEVER;
}

/* `what`, and one of the ends behind it. */
rule tags_closed_by(const tags *b, rule what, const ends *end) {
    return end->n ? rules_seq(b->r, (rule[]){what, any_of(b, end)}, 2) : what;
}

/* ---- free text ---- */

/* Tokens that text must not have. That an output may not end is no matter of its parts. */
static status tokens(const tags *b, const json_t *v, ends *out) {
    const size_t n = json_array_size(v);
    str *s = arena_alloc(b->mem, n * sizeof *s + 1);
    if (!s) return no_memory(b);
    if ((v && !json_is_array(v)) || n > MAX_LIST) return wrong(b, "exclude_tokens");
    *out = (ends){s, 0};
    for (size_t i = 0; i < n; i++) {
        status st = token_text(b, json_array_get(v, i), &s[out->n]);
        if (st != OK) return st;
        if (!tokenizer_is_eog(b->o->tok, special_at(b, s[out->n]))) out->n++;
    }
    return OK;
}

/* What excludes, or exclude_tokens, lists. */
static status excluded(const tags *b, const json_t *f, ends *out) {
    const json_t *v = json_object_get(f, "excludes");
    *out = (ends){0};
    if (!v) return tokens(b, json_object_get(f, "exclude_tokens"), out);
    return json_array_size(v) ? strings(b, v, "excludes must be a list of strings", out)
           : json_is_array(v) ? OK
                              : wrong(b, "excludes must be a list of strings");
}

static status add_marks(const tags *b, const ends *x, rule then, rule_trigger *t, size_t *n) {
    for (size_t i = 0; i < x->n; i++) {
        rule_trigger *one = &t[(*n)++];
        one->mark = symbols_of(b, x->v[i], &one->n_mark);
        one->then = then;
        if (!one->mark) return no_memory(b);
        if (!one->n_mark) return wrong(b, "free text needs an end that is not empty");
    }
    return OK;
}

/* Anything, up to and including the first of the ends; to the end of the text where there is
 * none. With strings that the text must not have, those and the ends are none of its parts, and
 * one of the ends follows. t: n_own marks that something follows, with place for the others. */
static status free_text(const tags *b, const json_t *f, const ends *end, rule_trigger *own,
                        size_t n_own, unsigned flags, rule *out) {
    ends no;
    status s = excluded(b, f, &no);
    if (s != OK) return s;
    const bool first_end = !no.n && !b->stop.n && !n_own;
    size_t n = n_own;
    rule_trigger *t = arena_zalloc(b->mem, (n_own + no.n + b->stop.n + end->n + 1) * sizeof *t);
    if (!t) return no_memory(b);
    if (n_own) memcpy(t, own, n_own * sizeof *t);
    s = add_marks(b, end, first_end ? RULE_EMPTY : RULE_NEVER, t, &n);
    if (s == OK) s = add_marks(b, &no, RULE_NEVER, t, &n);
    if (s == OK) s = add_marks(b, &b->stop, RULE_NEVER, t, &n);
    if (s != OK) return s;
    if (first_end) {
        *out = rules_triggered(b->r, t, n, n ? TRIGGER_NEEDED | TRIGGER_ONCE : 0);
        return OK;
    }
    *out = tags_closed_by(b, rules_triggered(b->r, t, n, flags), end);
    return OK;
}

static bool is_set(const json_t *f, const char *key) {
    const json_t *v = json_object_get(f, key);
    return v && !json_is_null(v);
}

/* Free text of a limited length, then one of the ends. */
static status limited_text(const tags *b, const json_t *f, const ends *end, rule_unit unit,
                           int64_t max, rule *out) {
    ends no;
    size_t n = 0;
    status s = excluded(b, f, &no);
    if (s != OK) return s;
    rule_trigger *t = arena_zalloc(b->mem, (no.n + b->stop.n + end->n + 1) * sizeof *t);
    if (!t) return no_memory(b);
    s = add_marks(b, end, RULE_NEVER, t, &n);
    if (s == OK) s = add_marks(b, &no, RULE_NEVER, t, &n);
    if (s == OK) s = add_marks(b, &b->stop, RULE_NEVER, t, &n);
    if (s != OK) return s;
    if (rules_limited_states(t, n, (uint32_t)max) > GRAMMAR_MAX_STATES) {
        err_set(b->e, ERR_INVALID, "structural tag: %s is too large",
                unit == RULE_CHARS ? "max_chars" : "max_tokens");
        return err_hint(b->e, "up to %d, divided by 4 and the bytes of what ends the text",
                        GRAMMAR_MAX_STATES);
    }
    *out = tags_closed_by(b, rules_limited(b->r, t, n, unit, (uint32_t)max), end);
    return OK;
}

status tags_any_text(const tags *b, const json_t *f, const ends *end, rule *out) {
    int64_t tokens = -1, chars = -1;
    if (json_in_int(f, "max_tokens", 0, INT32_MAX, &tokens, b->e) != OK ||
        json_in_int(f, "max_chars", 0, INT32_MAX, &chars, b->e) != OK)
        return wrong(b, "max_tokens and max_chars must be integers from 0 to 2147483647");
    if (tokens >= 0 && chars >= 0) return tags_unsupported(b, "max_tokens beside max_chars");
    if (tokens >= 0) return limited_text(b, f, end, RULE_TOKENS, tokens, out);
    if (chars >= 0) return limited_text(b, f, end, RULE_CHARS, chars, out);
    return free_text(b, f, end, NULL, 0, 0, out);
}

/* One token: none of those that are excluded, and none that may end the text around it. */
static status one_token(const tags *b, const json_t *f, const ends *end, rule *out) {
    const ends *const around[] = {&b->stop, end};
    ends no;
    size_t n = 0;
    status s = tokens(b, json_object_get(f, "exclude_tokens"), &no);
    if (s != OK) return s;
    int32_t *but = arena_alloc(b->mem, (no.n + b->stop.n + end->n) * sizeof *but + 1);
    if (!but) return no_memory(b);
    for (size_t i = 0; i < no.n; i++) but[n++] = special_at(b, no.v[i]);
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < around[k]->n; i++) {
            const int32_t id = special_at(b, around[k]->v[i]);
            if (id >= 0) but[n++] = id;
        }
    *out = tags_closed_by(b, rules_one_token(b->r, but, n), end);
    return OK;
}

/* ---- forms ---- */

static status build(tags *b, const json_t *f, const ends *end, rule *out);

status tags_schema(const tags *b, const json_t *v, const ends *end, rule *out) {
    rule one = RULE_NEVER;
    if (!json_is_object(v) && !json_is_boolean(v)) return wrong(b, "a JSON schema is needed");
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
    if (b->o->tok && !special) return no_memory(b);
    status s =
        reply_tagged_rule(b->r, rows[i].format, special, n, v, closed_schema, &one, b->e);
    *out = tags_closed_by(b, one, end);
    return s;
}

static status build_json_schema(const tags *b, const json_t *f, const ends *end, rule *out) {
    const json_t *v = json_object_get(f, "json_schema"), *style = json_object_get(f, "style");
    if (is_set(f, "max_whitespace_cnt")) return tags_unsupported(b, "max_whitespace_cnt");
    if (style && !json_is_string(style)) return wrong(b, "style is the name of one");
    if (!style || str_eqz(json_in_text(style), "json")) return tags_schema(b, v, end, out);
    return build_styled(b, v, json_in_text(style), end, out);
}

static status build_text(const tags *b, const json_t *f, const char *key, const ends *end,
                         status (*translate)(rules *, str, rule *, err *), rule *out) {
    const json_t *v = json_object_get(f, key);
    rule one = RULE_NEVER;
    if (!json_is_string(v)) return wrong(b, "a string is needed for value, pattern or grammar");
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
    if (has_type(f, "const_string"))
        return strings(b, json_object_get(f, "value"), "value", out);
    if (has_type(f, "token")) return strings(b, f, "a token", out);
    if (has_type(f, "tag")) return strings(b, json_object_get(f, "begin"), "begin", out);
    return OK;
}

static bool is_free(const json_t *f) {
    static const char *const types[] = {
        "any_text",       "any_tokens",           "dispatch",
        "token_dispatch", "token_triggered_tags", "triggered_tags"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (has_type(f, types[i])) return true;
    return false;
}

/* Both lists. */
static status join(const tags *b, const ends *x, const ends *y, ends *out) {
    str *v = arena_alloc(b->mem, (x->n + y->n) * sizeof *v + 1);
    if (!v) return no_memory(b);
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
        s = excluded(b, f, &no);
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
    if (!json_is_array(list) || n > MAX_LIST) return wrong(b, "elements must be a list");
    if (!part) return no_memory(b);
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
        return wrong(b, "min and max must be counts, min not above max");
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
        return wrong(b, "repeat needs min and max");
    return build_repeat(b, f, json_integer_value(min), json_integer_value(max), end, out);
}

static status build_choice(tags *b, const json_t *list, const ends *end, rule *out) {
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
static status build_tag(tags *b, const json_t *tag, str begin, size_t skip, rule *out) {
    ends end;
    rule body = RULE_NEVER;
    const json_t *schema = json_object_get(tag, "schema");
    const ends keep = b->stop;
    b->stop = (ends){0}; /* within a tag it is its own end that counts */
    status s = strings(b, json_object_get(tag, "end"), "a tag needs an end", &end);
    if (s == OK && schema)
        s = tags_schema(b, schema, &end, &body);
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
    status s = strings(b, json_object_get(tag, "begin"), "a tag needs a begin", &begin);
    rule *one = s == OK ? arena_alloc(b->mem, begin.n * sizeof *one + 1) : NULL;
    if (s == OK && !one) return no_memory(b);
    for (size_t i = 0; s == OK && i < begin.n; i++)
        s = build_tag(b, tag, begin.v[i], 0, &one[i]);
    if (s == OK) *out = tags_closed_by(b, rules_alt(b->r, one, begin.n), end);
    return s;
}

/* What may follow a trigger: the tags that begin with it. */
static status behind_trigger(tags *b, const json_t *tags, str trigger, rule *out) {
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

static status check_triggered(const tags *b, const json_t *tags, const ends *trigger) {
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

static status triggers_of(const tags *b, const json_t *f, ends *out) {
    const json_t *v = json_object_get(f, "trigger_tokens");
    if (!v)
        return strings(b, json_object_get(f, "triggers"), "triggers must be a list of strings",
                       out);
    if (!json_array_size(v)) return wrong(b, "trigger_tokens must be a list of tokens");
    return tokens(b, v, out);
}

static status build_triggered(tags *b, const json_t *f, const char *list, const ends *end,
                              rule *out) {
    const json_t *tags = json_object_get(f, list);
    ends trigger;
    if (!json_array_size(tags) || json_array_size(tags) > MAX_LIST)
        return wrong(b, "tags must be a list");
    status s = triggers_of(b, f, &trigger);
    if (s == OK) s = check_triggered(b, tags, &trigger);
    rule_trigger *t = s == OK ? arena_zalloc(b->mem, trigger.n * sizeof *t + 1) : NULL;
    if (s == OK && !t) return no_memory(b);
    for (size_t i = 0; s == OK && i < trigger.n; i++) {
        t[i].mark = symbols_of(b, trigger.v[i], &t[i].n_mark);
        if (!t[i].mark) return no_memory(b);
        if (!t[i].n_mark) return wrong(b, "a trigger is empty");
        s = behind_trigger(b, tags, trigger.v[i], &t[i].then);
    }
    const unsigned flags = (flag(f, "at_least_one") ? TRIGGER_NEEDED : 0u) |
                           (flag(f, "stop_after_first") ? TRIGGER_ONCE : 0u);
    return s == OK ? free_text(b, f, end, t, trigger.n, flags, out) : s;
}

/* rules: pairs of what is looked for, a string or a token, and what follows it. */
static status build_dispatch(tags *b, const json_t *f, bool by_token, const ends *end,
                             rule *out) {
    const json_t *list = json_object_get(f, "rules"), *pair;
    const ends none = {0}, keep = b->stop;
    size_t i, n = json_array_size(list);
    rule_trigger *t = arena_zalloc(b->mem, n * sizeof *t + 1);
    status s = OK;
    if (!n || n > MAX_LIST) return wrong(b, "rules must be a list of pairs");
    if (!t) return no_memory(b);
    b->stop = none;
    json_array_foreach(list, i, pair) {
        const json_t *mark = json_array_get(pair, 0);
        str text = STR("");
        if (json_array_size(pair) != 2) s = wrong(b, "rules must be a list of pairs");
        if (s == OK && by_token) s = token_text(b, mark, &text);
        if (s == OK && !by_token && json_is_string(mark)) text = json_in_text(mark);
        if (s == OK && (!text.len || text.len > MAX_MARK))
            s = wrong(b, "a rule begins with a string");
        if (s == OK && !(t[i].mark = symbols_of(b, text, &t[i].n_mark))) s = no_memory(b);
        if (s == OK) s = build(b, json_array_get(pair, 1), &none, &t[i].then);
        if (s != OK) break;
    }
    b->stop = keep;
    const bool once = json_is_false(json_object_get(f, "loop"));
    return s == OK ? free_text(b, f, end, t, n, once ? TRIGGER_ONCE : 0, out) : s;
}

static status build_separated(tags *b, const json_t *f, const ends *end, rule *out) {
    const json_t *tags = json_object_get(f, "tags"), *sep = json_object_get(f, "separator");
    rule one = RULE_NEVER;
    const ends none = {0};
    if (!json_array_size(tags) || !json_is_string(sep))
        return wrong(b, "tags_with_separator needs tags and a separator");
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
    status s = token_text(b, f, &token);
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
    if (str_eqz(type, "exclude_token")) return one_token(b, f, end, out);
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
        return wrong(b, "a format is an object with a type");
    if (++b->depth > MAX_DEPTH) return wrong(b, "it nests too deeply");
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
    return wrong(&b, "it needs format, or structures and triggers");
}
