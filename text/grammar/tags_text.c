/* Structural tags: special tokens in texts, ends, and free text. Owns nothing. */
#include "text/grammar/tags_in.h"

#include <string.h>

#include "text/grammar/grammar.h"

status tags_wrong(const tags *b, const char *what) {
    return err_set(b->e, ERR_INVALID, "structural tag: %s", what);
}

status tags_unsupported(const tags *b, const char *what) {
    return err_set(b->e, ERR_UNSUPPORTED, "structural tag: %s is not supported", what);
}

status tags_no_memory(const tags *b) {
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

uint32_t *tags_symbols_of(const tags *b, str s, size_t *n) {
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
    const uint32_t *v = tags_symbols_of(b, s, &n);
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

status tags_token_text(const tags *b, const json_t *v, str *out) {
    if (json_is_object(v)) v = json_object_get(v, "token");
    int32_t id = -1;
    if (json_is_integer(v) && b->o->tok && json_integer_value(v) >= 0 &&
        json_integer_value(v) < (json_int_t)tokenizer_n_vocab(b->o->tok))
        id = (int32_t)json_integer_value(v);
    if (json_is_string(v)) id = special_at(b, json_in_text(v));
    if (!json_is_integer(v) && !json_is_string(v))
        return tags_wrong(b, "a token is an id or a text");
    if (id < 0 || !tokenizer_is_special(b->o->tok, id))
        return tags_unsupported(b, "a token that is not special");
    *out = tokenizer_piece(b->o->tok, id, true);
    if (json_is_string(v) && out->len != json_string_length(v))
        return tags_unsupported(b, "a token that is not special");
    return OK;
}

bool tags_has_type(const json_t *f, const char *type) {
    const json_t *v = json_object_get(f, "type");
    return json_is_string(v) && str_eqz(json_in_text(v), type);
}

status tags_strings(const tags *b, const json_t *v, const char *name, ends *out) {
    const size_t n = json_is_array(v) ? json_array_size(v) : 1;
    str *s = arena_alloc(b->mem, n * sizeof *s + 1);
    if (!s) return tags_no_memory(b);
    if (!n || n > TAGS_MAX_LIST) return tags_wrong(b, name);
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(v) ? json_array_get(v, i) : v;
        if (tags_has_type(one, "token")) {
            status st = tags_token_text(b, one, &s[i]);
            if (st != OK) return st;
            continue;
        }
        if (!json_is_string(one) || json_string_length(one) > TAGS_MAX_MARK)
            return tags_wrong(b, name);
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

rule tags_closed_by(const tags *b, rule what, const ends *end) {
    return end->n ? rules_seq(b->r, (rule[]){what, any_of(b, end)}, 2) : what;
}

/* ---- free text ---- */

status tags_tokens(const tags *b, const json_t *v, ends *out) {
    const size_t n = json_array_size(v);
    str *s = arena_alloc(b->mem, n * sizeof *s + 1);
    if (!s) return tags_no_memory(b);
    if ((v && !json_is_array(v)) || n > TAGS_MAX_LIST) return tags_wrong(b, "exclude_tokens");
    *out = (ends){s, 0};
    for (size_t i = 0; i < n; i++) {
        status st = tags_token_text(b, json_array_get(v, i), &s[out->n]);
        if (st != OK) return st;
        if (!tokenizer_is_eog(b->o->tok, special_at(b, s[out->n]))) out->n++;
    }
    return OK;
}

status tags_excluded(const tags *b, const json_t *f, ends *out) {
    const json_t *v = json_object_get(f, "excludes");
    *out = (ends){0};
    if (!v) return tags_tokens(b, json_object_get(f, "exclude_tokens"), out);
    return json_array_size(v) ? tags_strings(b, v, "excludes must be a list of strings", out)
           : json_is_array(v) ? OK
                              : tags_wrong(b, "excludes must be a list of strings");
}

static status add_marks(const tags *b, const ends *x, rule then, rule_trigger *t, size_t *n) {
    for (size_t i = 0; i < x->n; i++) {
        rule_trigger *one = &t[(*n)++];
        one->mark = tags_symbols_of(b, x->v[i], &one->n_mark);
        one->then = then;
        if (!one->mark) return tags_no_memory(b);
        if (!one->n_mark) return tags_wrong(b, "free text needs an end that is not empty");
    }
    return OK;
}

status tags_free_text(const tags *b, const json_t *f, const ends *end, rule_trigger *own,
                      size_t n_own, unsigned flags, rule *out) {
    ends no;
    status s = tags_excluded(b, f, &no);
    if (s != OK) return s;
    const bool first_end = !no.n && !b->stop.n && !n_own;
    size_t n = n_own;
    rule_trigger *t = arena_zalloc(b->mem, (n_own + no.n + b->stop.n + end->n + 1) * sizeof *t);
    if (!t) return tags_no_memory(b);
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

bool tags_is_set(const json_t *f, const char *key) {
    const json_t *v = json_object_get(f, key);
    return v && !json_is_null(v);
}

/* Free text of a limited length, then one of the ends. */
static status limited_text(const tags *b, const json_t *f, const ends *end, rule_unit unit,
                           int64_t max, rule *out) {
    ends no;
    size_t n = 0;
    status s = tags_excluded(b, f, &no);
    if (s != OK) return s;
    rule_trigger *t = arena_zalloc(b->mem, (no.n + b->stop.n + end->n + 1) * sizeof *t);
    if (!t) return tags_no_memory(b);
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
        return tags_wrong(b, "max_tokens and max_chars must be integers from 0 to 2147483647");
    if (tokens >= 0 && chars >= 0) return tags_unsupported(b, "max_tokens beside max_chars");
    if (tokens >= 0) return limited_text(b, f, end, RULE_TOKENS, tokens, out);
    if (chars >= 0) return limited_text(b, f, end, RULE_CHARS, chars, out);
    return tags_free_text(b, f, end, NULL, 0, 0, out);
}

status tags_one_token(const tags *b, const json_t *f, const ends *end, rule *out) {
    const ends *const around[] = {&b->stop, end};
    ends no;
    size_t n = 0;
    status s = tags_tokens(b, json_object_get(f, "exclude_tokens"), &no);
    if (s != OK) return s;
    int32_t *but = arena_alloc(b->mem, (no.n + b->stop.n + end->n) * sizeof *but + 1);
    if (!but) return tags_no_memory(b);
    for (size_t i = 0; i < no.n; i++) but[n++] = special_at(b, no.v[i]);
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < around[k]->n; i++) {
            const int32_t id = special_at(b, around[k]->v[i]);
            if (id >= 0) but[n++] = id;
        }
    *out = tags_closed_by(b, rules_one_token(b->r, but, n), end);
    return OK;
}
