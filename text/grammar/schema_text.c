/* JSON texts that no schema varies: tokens, the white space between them, values as they stand. Any
 * thread. */
#include <math.h>
#include <stdio.h>

#include "text/jinja/jinja_value.h"
#include "text/grammar/regex.h"
#include "text/grammar/schema_in.h"

enum { MAX_DEPTH = 250, GAP_BLANKS = 20 };

rule schema_fixed(translator *t, const char *z) {
    return rules_bytes(t->r, str_of(z));
}

/* A pattern of nothing but white space. */
status schema_white_space(translator *t) {
    static const char blanks[] = " \t\n\r";
    const str p = t->opt.white_space;
    dfa d;
    if (t->opt.compact) t->gap = RULE_EMPTY;
    if (!p.len || t->opt.compact) return OK;
    status st = rules_regex(t->r, p, &t->gap, t->e);
    if (st == OK) st = dfa_build(&d, t->r, t->gap, NULL, &t->limits, t->mem, t->e);
    for (uint32_t i = 0; st == OK && i < d.first[d.n]; i++)
        for (uint32_t c = d.edge[i].lo; st == OK && c <= d.edge[i].hi; c++)
            if (!c || c > ' ' || !strchr(blanks, (int)c))
                st = err_set(t->e, ERR_INVALID,
                             "the white space pattern matches what is no white space");
    return st;
}

/* Between tokens: nothing, a blank, or the begin of a line with up to 20 blanks. */
rule schema_gap(translator *t) {
    if (!t->gap) {
        rule blanks = rules_repeat(t->r, schema_fixed(t, " "), 0, GAP_BLANKS);
        rule line = rules_seq(t->r, (rule[]){schema_fixed(t, "\n"), blanks}, 2);
        t->gap = rules_alt(t->r, (rule[]){RULE_EMPTY, schema_fixed(t, " "), line}, 3);
    }
    return t->gap;
}

rule schema_colon(translator *t) {
    const bool own = t->opt.compact || t->opt.white_space.len;
    if (!t->blank)
        t->blank = rules_seq(
            t->r,
            (rule[]){schema_fixed(t, ":"),
                     own ? schema_gap(t) : rules_optional(t->r, schema_fixed(t, " "))},
            2);
    return t->blank;
}

rule schema_comma(translator *t) {
    return rules_seq(t->r, (rule[]){schema_fixed(t, ","), schema_gap(t)}, 2);
}

/* ---- values as they stand ---- */

/* A real without a fraction also as an integer: 2.0 is 2. */
static rule real_rule(translator *t, double v) {
    char real[JINJA_FLOAT_TEXT], integer[JINJA_FLOAT_TEXT];
    jinja_float_text(v, real);
    rule one = schema_fixed(t, real);
    if (v != floor(v) || fabs(v) > 0x1p53 || v == 0) return one;
    snprintf(integer, sizeof integer, "%.0f", v);
    return rules_alt(t->r, (rule[]){one, schema_fixed(t, integer)}, 2);
}

static rule scalar_rule(translator *t, const json_t *v) {
    char integer[32];
    if (json_is_real(v)) return real_rule(t, json_real_value(v));
    if (!json_is_integer(v))
        return schema_fixed(t, json_is_null(v) ? "null" : json_is_true(v) ? "true" : "false");
    snprintf(integer, sizeof integer, "%lld", (long long)json_integer_value(v));
    return schema_fixed(t, integer);
}

status schema_value_rule(translator *t, const json_t *v, rule *out) {
    size_t i, n = 0, size = json_array_size(v) + json_object_size(v);
    const char *key;
    json_t *member;
    if (json_is_string(v)) return *out = schema_text_rule(t, json_in_text(v)), OK;
    if (!json_is_object(v) && !json_is_array(v)) return *out = scalar_rule(t, v), OK;
    rule *part = arena_alloc(t->mem, (size * 4 + 4) * sizeof *part);
    if (!part) return schema_no_memory(t);
    if (t->depth++ > MAX_DEPTH) return schema_refuse(t, "a value so deeply nested", v);
    part[n++] = schema_fixed(t, json_is_array(v) ? "[" : "{");
    if (size) part[n++] = schema_gap(t);
    status st = OK;
    json_array_foreach(v, i, member) {
        if (i) part[n++] = schema_comma(t);
        if (st == OK) st = schema_value_rule(t, member, &part[n++]);
    }
    i = 0;
    json_object_foreach((json_t *)(uintptr_t)v, key, member) {
        if (i++) part[n++] = schema_comma(t);
        part[n++] = schema_text_rule(t, str_of(key));
        part[n++] = schema_colon(t);
        if (st == OK) st = schema_value_rule(t, member, &part[n++]);
    }
    if (size) part[n++] = schema_gap(t);
    part[n++] = schema_fixed(t, json_is_array(v) ? "]" : "}");
    t->depth--;
    *out = rules_seq(t->r, part, n);
    return st;
}
