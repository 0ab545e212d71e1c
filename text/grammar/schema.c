/* Shapes to expressions: what JSON text each may be written as. The members of an object come in the
 * order of its properties, others behind them. Any thread; results are in the rules' arena. */
#include "text/grammar/schema.h"

#include <math.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "text/grammar/schema_in.h"

enum {
    MAX_MEMO = 3000,
    MAX_DEPTH = 250,
    MAX_GRAPH = 6000,
    MAX_PATTERNS = 6,
    MAX_EXCLUDED = 30
};

struct memo {
    literal *v;
    uint32_t n;
    rule r;
};

/* ---- values as they stand ---- */

static status values_rule(translator *t, const shape *s, rule *out) {
    shape rest = *s;
    size_t i, n = 0;
    json_t *v;
    rule *one = arena_alloc(t->mem, json_array_size(s->only) * sizeof *one + 1);
    if (!one) return schema_no_memory(t);
    rest.only = NULL;
    json_array_foreach(s->only, i, v) {
        bool fits;
        status st = schema_fits(t, &rest, v, &fits);
        if (st == OK && fits) st = schema_value_rule(t, v, &one[n++]);
        if (st != OK) return st;
    }
    *out = rules_alt(t->r, one, n);
    return OK;
}

/* ---- arrays ---- */

static status element_rule(translator *t, const shape *s, size_t i, rule *out) {
    literals l = {0};
    status st = schema_element(t, s, i, &l);
    return st == OK ? schema_rule(t, l.v, l.n, out) : st;
}

/* Elements from the i-th on behind a comma each, of `rest`: least to most of them. */
static rule more_elements(translator *t, rule rest, uint32_t least, uint32_t most) {
    rule one = rules_seq(t->r, (rule[]){schema_comma(t), rest}, 2);
    return rules_repeat(t->r, one, least, most);
}

static uint32_t minus(uint32_t a, uint32_t b) {
    return a == RULE_UNBOUNDED ? a : a > b ? a - b : 0;
}

/* contains: a graph of (elements so far, those that match so far), both up to where they matter. */
static status containing_rule(translator *t, const shape *s, rule *out) {
    const json_t *o = s->contains->v, *c = json_object_get(o, "contains");
    const json_t *lo = json_object_get(o, "minContains"),
                 *hi = json_object_get(o, "maxContains");
    if (s->contains->next || schema_prefix(s) || s->loose_items)
        return schema_refuse(t, "contains beside prefixItems, unevaluatedItems or contains", o);
    uint32_t min = lo ? (uint32_t)json_number_value(lo) : 1, most = min;
    uint32_t max = hi ? (uint32_t)json_number_value(hi) : RULE_UNBOUNDED;
    uint32_t n_cap = s->max_items == RULE_UNBOUNDED ? s->min_items : s->max_items;
    if (hi) most = max + 1 > most ? max + 1 : most;
    if ((uint64_t)(n_cap + 1) * (most + 1) > 400 || n_cap > 400 || most > 400)
        return schema_refuse(t, "contains with counts so large", o);
    literals yes = {0}, no = {0};
    rule match, other;
    status st = schema_element(t, s, 0, &yes);
    if (st == OK) st = schema_element(t, s, 0, &no);
    if (st != OK) return st;
    if (!literals_add(t, &yes, (literal){c, false})) return schema_no_memory(t);
    if (hi && !literals_add(t, &no, (literal){c, true})) return schema_no_memory(t);
    st = schema_rule(t, yes.v, yes.n, &match);
    if (st == OK) st = schema_rule(t, no.v, no.n, &other);
    if (st != OK) return st;
    uint32_t rows = n_cap + 2, cols = most + 1, n = 0, states = rows * cols * 2;
    bool *final = arena_zalloc(t->mem, states);
    rule_edge *edge = arena_alloc(t->mem, (size_t)states * 3 * sizeof *edge);
    if (!final || !edge) return schema_no_memory(t);
    rule sep = schema_comma(t);
    for (uint32_t i = 0; i < rows;
         i++) /* state 2 * (i * cols + k): behind i elements; + 1: a comma */
        for (uint32_t k = 0; k < cols; k++) {
            uint32_t at = 2 * (i * cols + k), i2 = i + 1 < rows ? i + 1 : i;
            uint32_t k2 = k + 1 < cols ? k + 1 : k;
            final[at] = i >= s->min_items && i <= s->max_items && k >= min && k <= max;
            edge[n++] = (rule_edge){at, at + 1, i ? sep : RULE_EMPTY};
            edge[n++] = (rule_edge){at + 1, 2 * (i2 * cols + k2), match};
            edge[n++] = (rule_edge){at + 1, 2 * (i2 * cols + k), other};
        }
    bool may_be_empty = final[0];
    final[0] = false;
    rule body = rules_seq(
        t->r, (rule[]){schema_gap(t), rules_graph(t->r, states, final, edge, n), schema_gap(t)},
        3);
    body = rules_alt(t->r, (rule[]){body, may_be_empty ? RULE_EMPTY : RULE_NEVER}, 2);
    *out = rules_seq(t->r, (rule[]){schema_fixed(t, "["), body, schema_fixed(t, "]")}, 3);
    return OK;
}

/* The elements between their brackets; some: what one or more of them are. */
static rule bracketed(translator *t, const shape *s, rule some) {
    some = rules_seq(t->r, (rule[]){schema_gap(t), some, schema_gap(t)}, 3);
    rule body = rules_alt(t->r, (rule[]){s->min_items == 0 ? RULE_EMPTY : RULE_NEVER, some}, 2);
    return rules_seq(t->r, (rule[]){schema_fixed(t, "["), body, schema_fixed(t, "]")}, 3);
}

static status array_rule(translator *t, const shape *s, rule *out) {
    if (s->unique && s->max_items > 1) {
        rule some;
        status st = schema_unique_rule(t, s, element_rule, &some);
        if (st == OK) *out = bracketed(t, s, some);
        return st;
    }
    if (s->contains) {
        const json_t *lo = json_object_get(s->contains->v, "minContains");
        bool none =
            lo && json_number_value(lo) == 0 && !json_object_get(s->contains->v, "maxContains");
        if (!none || s->contains->next) return containing_rule(t, s, out);
    }
    uint32_t prefix = (uint32_t)schema_prefix(s), n = 0;
    if (prefix > MAX_GRAPH) return schema_refuse(t, "prefixItems with so many schemas", NULL);
    if (prefix == 0) prefix = 1;
    rule rest, tail;
    status st = element_rule(t, s, prefix, &rest);
    if (st != OK) return st;
    tail = s->max_items > prefix   ? more_elements(t, rest, minus(s->min_items, prefix),
                                                   minus(s->max_items, prefix))
           : s->min_items > prefix ? RULE_NEVER
                                   : RULE_EMPTY;
    for (uint32_t i = prefix; i-- > 0;) { /* what stands behind i elements */
        rule item, one[3];
        st = element_rule(t, s, i, &item);
        if (st != OK) return st;
        n = 0;
        if (i) one[n++] = schema_comma(t);
        one[n++] = item;
        one[n++] = tail;
        rule go_on = i < s->max_items ? rules_seq(t->r, one, n) : RULE_NEVER;
        if (i == 0) {
            tail = go_on;
        } else {
            tail = rules_alt(t->r, (rule[]){i >= s->min_items ? RULE_EMPTY : RULE_NEVER, go_on},
                             2);
        }
    }
    *out = bracketed(t, s, tail);
    return OK;
}

/* ---- objects ---- */

typedef struct members {
    const cell *names; /* known ones, in order */
    uint32_t n;
    rule *item; /* [n] name, colon and value */
    bool *required;
    rule others; /* any other member; RULE_NEVER: none */
    bool has_others;
} members;

static bool has_name(const cell *list, str name) {
    for (; list; list = list->next)
        if (str_eq(list->key, name)) return true;
    return false;
}

static status add_name(translator *t, members *m, cell ***end, str name) {
    if (has_name(m->names, name)) return OK;
    cell *c = schema_cell(t, NULL);
    if (!c) return schema_no_memory(t);
    c->key = name;
    **end = c;
    *end = (cell **)(uintptr_t)&c->next;
    if (++m->n > 2000) return schema_refuse(t, "an object with so many properties", NULL);
    return OK;
}

/* Sources stand last first. */
static status names_of(translator *t, const shape *s, members *m) {
    cell **end = (cell **)(uintptr_t)&m->names;
    const cell *source[64];
    uint32_t n = 0;
    for (const cell *c = s->objects; c && n < 64; c = c->next) source[n++] = c;
    if (n == 64) return schema_refuse(t, "an object of so many schemas", NULL);
    while (n-- > 0) {
        const char *key;
        json_t *v, *props = json_object_get(source[n]->v, "properties");
        if (props && !json_is_object(props))
            return schema_wrong(t, "properties is no object", props);
        json_object_foreach(props, key, v) {
            status st = add_name(t, m, &end, str_of(key));
            if (st != OK) return st;
        }
    }
    for (const cell *c = s->required; c; c = c->next) {
        status st = add_name(t, m, &end, c->key);
        if (st != OK) return st;
    }
    return OK;
}

/* Of the listed values of a shape the strings that have the rest of it. */
static status listed_names(translator *t, const shape *s, dfa *out) {
    shape rest = *s;
    cell *list = NULL;
    size_t i;
    json_t *v;
    rest.only = NULL;
    json_array_foreach(s->only, i, v) {
        bool fits;
        status st = schema_fits(t, &rest, v, &fits);
        if (st != OK) return st;
        if (!fits || !json_is_string(v)) continue;
        cell *c = schema_cell(t, list);
        if (!c) return schema_no_memory(t);
        c->key = json_in_text(v);
        list = c;
    }
    return schema_names_dfa(t, list, out);
}

/* The names that propertyNames allows, or all. */
static status allowed_names(translator *t, const shape *s, dfa *out) {
    status st = dfa_any(out, 0, RULE_UNBOUNDED, &t->limits, t->mem, t->e);
    for (const cell *c = s->names; c && st == OK; c = c->next) {
        shapes all = {0};
        dfa one, sum = {0};
        bool plain;
        st = schema_expand(t, &c->lit, 1, &all);
        for (uint32_t i = 0; i < all.n && st == OK; i++) {
            shape *x = &all.v[i];
            if (!(x->types & TYPE_STRING)) continue;
            if (x->refused[5]) return schema_refuse(t, x->refused[5], x->refused_at[5]);
            if (x->only) {
                st = listed_names(t, x, &one);
            } else {
                st = schema_string_dfa(t, x, &one, &plain);
                if (st == OK && plain)
                    st = dfa_any(&one, x->min_chars, x->max_chars, &t->limits, t->mem, t->e);
            }
            if (st == OK) st = schema_combine(t, &sum, DFA_OR, &one);
        }
        if (st == OK) st = schema_combine(t, out, DFA_AND, &sum);
    }
    return st;
}

static status collect_patterns(translator *t, const shape *s, const char **key, uint32_t *n) {
    for (const cell *c = s->objects; c; c = c->next) {
        const char *k;
        json_t *v, *all = json_object_get(c->v, "patternProperties");
        json_object_foreach(all, k, v) {
            bool had = false;
            for (uint32_t i = 0; i < *n; i++) had |= strcmp(key[i], k) == 0;
            if (had) continue;
            if (*n == MAX_PATTERNS)
                return schema_refuse(t, "patternProperties with so many patterns", c->v);
            key[(*n)++] = k;
        }
    }
    return OK;
}

/* A name out of a set, for asking what is said of such members: by the shortest text that its
 * automaton takes. False: there is none. */
static bool example_of(translator *t, const dfa *d, buf *out) {
    uint32_t *from = arena_alloc(t->mem, d->n * 3 * sizeof *from + 1), n = 0;
    uint32_t *edge = from + d->n, *queue = edge + d->n;
    if (!from || !d->n) return false;
    memset(from, 0xff, d->n * sizeof *from);
    queue[n++] = 0;
    from[0] = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t q = queue[i];
        if (d->final[q]) {
            uint32_t path[256], len = 0;
            for (; q != 0 && len < 256; q = from[q]) path[len++] = edge[q];
            while (len-- > 0) {
                char c[4];
                uint32_t cp = d->edge[path[len]].lo;
                if (cp < '0' && d->edge[path[len]].hi >= '0') cp = '0';
                if (cp >= 0xd800 && cp <= 0xdfff) cp = 0xe000;
                buf_add(out, (str){c, (size_t)utf8_encode(cp, c)});
            }
            return !out->failed;
        }
        for (uint32_t k = d->first[q]; k < d->first[q + 1]; k++)
            if (from[d->edge[k].to] == UINT32_MAX) {
                from[d->edge[k].to] = q;
                edge[d->edge[k].to] = k;
                queue[n++] = d->edge[k].to;
            }
    }
    return false;
}

static bool is_closed(const translator *t, const shape *s) {
    bool lists = false;
    if (!t->opt.closed || s->loose_members) return false;
    for (const cell *c = s->objects; c; c = c->next) {
        lists |= json_object_size(json_object_get(c->v, "properties")) > 0 &&
                 schema_types(json_object_get(c->v, "type")) & TYPE_OBJECT;
        if (json_object_get(c->v, "additionalProperties") ||
            json_object_get(c->v, "patternProperties"))
            return false;
    }
    return lists;
}

/* Members with other names: for each set of patterns that such a name may match, its names and
 * what is said of them. */
static status other_members(translator *t, const shape *s, members *m) {
    const char *key[MAX_PATTERNS];
    dfa pattern[MAX_PATTERNS], base, known;
    uint32_t n = 0, n_alt = 0;
    rule alt[1 << MAX_PATTERNS];
    if (is_closed(t, s)) return OK;
    status st = collect_patterns(t, s, key, &n);
    bool any_name = n == 0 && !s->names && m->n == 0;
    if (st == OK) st = allowed_names(t, s, &base);
    if (st == OK) st = schema_names_dfa(t, m->names, &known);
    if (st == OK) st = schema_combine(t, &base, DFA_BUT, &known);
    for (uint32_t i = 0; i < n && st == OK; i++) {
        json_t *p = json_string(key[i]);
        st = p ? schema_pattern(t, p, &pattern[i]) : schema_no_memory(t);
    }
    for (uint32_t set = 0; set < 1u << n && st == OK; set++) {
        dfa d = base;
        for (uint32_t i = 0; i < n && st == OK; i++)
            st = schema_combine(t, &d, set >> i & 1 ? DFA_AND : DFA_BUT, &pattern[i]);
        buf name;
        literals l = {0};
        rule value;
        buf_init(&name, t->mem);
        if (st != OK || !example_of(t, &d, &name)) continue;
        st = schema_member(t, s, buf_str(&name), &l);
        if (st == OK) st = schema_rule(t, l.v, l.n, &value);
        if (st != OK) return st;
        rule label =
            any_name ? schema_plain_string(t, 0, RULE_UNBOUNDED) : schema_string_rule(t, &d);
        label = schema_behind_mark(t, label);
        alt[n_alt++] = rules_seq(t->r, (rule[]){label, schema_colon(t), value}, 3);
    }
    m->others = rules_alt(t->r, alt, n_alt);
    m->has_others = n_alt > 0;
    return st;
}

static status known_members(translator *t, const shape *s, members *m) {
    uint32_t i = 0;
    dfa allowed;
    status st = OK;
    m->item = arena_alloc(t->mem, m->n * sizeof *m->item + 1);
    m->required = arena_alloc(t->mem, m->n + 1);
    if (!m->item || !m->required) return schema_no_memory(t);
    if (s->names) st = allowed_names(t, s, &allowed);
    for (const cell *c = m->names; c && st == OK; c = c->next, i++) {
        literals l = {0};
        rule value = RULE_NEVER;
        st = schema_member(t, s, c->key, &l);
        if (st == OK && (!s->names || dfa_takes(&allowed, c->key)))
            st = schema_rule(t, l.v, l.n, &value);
        m->required[i] = has_name(s->required, c->key);
        rule label = schema_behind_mark(t, schema_text_rule(t, c->key));
        m->item[i] = rules_seq(t->r, (rule[]){label, schema_colon(t), value}, 3);
    }
    return st;
}

/* The members as a graph. With `rows` counts: state 2 * (c * (n + 1) + i) stands before the i-th
 * known name, a member must follow; + 1 behind a member. Of counts above the last it is the last.
 * The mark that every name begins with belongs to the separator: where white space may stand the
 * position is one state then, and not one for each name. */
static status members_graph(translator *t, const shape *s, const members *m, uint32_t rows,
                            rule *out) {
    uint32_t n = m->n, cols = n + 1, k = 0;
    uint64_t states = 2ull * rows * cols;
    if (states > 2 * MAX_GRAPH)
        return schema_refuse(t, "minProperties or maxProperties of this size", NULL);
    bool *final = arena_zalloc(t->mem, states);
    rule_edge *edge = arena_alloc(t->mem, states * 3 * sizeof *edge);
    if (!final || !edge) return schema_no_memory(t);
    rule sep = rules_seq(t->r, (rule[]){schema_comma(t), schema_fixed(t, "\"")}, 2);
    uint32_t last = n; /* from here on all are optional */
    while (last > 0 && !m->required[last - 1]) last--;
    for (uint32_t c = 0; c < rows; c++)
        for (uint32_t i = 0; i < cols; i++) {
            uint32_t at = 2 * (c * cols + i), c2 = c + 1 < rows ? c + 1 : c;
            if (i < n) {
                edge[k++] = (rule_edge){at, 2 * (c2 * cols + i + 1) + 1, m->item[i]};
                if (!m->required[i]) edge[k++] = (rule_edge){at, at + 2, RULE_EMPTY};
            } else if (m->has_others) {
                edge[k++] = (rule_edge){at, 2 * (c2 * cols + i) + 1, m->others};
            }
            edge[k++] = (rule_edge){at + 1, at, sep};
            final[at + 1] = i >= last && c >= s->min_members && c <= s->max_members;
        }
    *out = rules_graph(t->r, (uint32_t)states, final, edge, k);
    return OK;
}

static status object_rule(translator *t, const shape *s, rule *out) {
    members m = {0};
    uint32_t n_required = 0, counted;
    status st = names_of(t, s, &m);
    if (st == OK) st = known_members(t, s, &m);
    if (st == OK) st = other_members(t, s, &m);
    if (st != OK) return st;
    for (uint32_t i = 0; i < m.n; i++) n_required += m.required[i];
    /* Other members may have equal names, which count once: no more than one of them may be
     * needed. */
    shape count = *s;
    if (count.min_members <= n_required) count.min_members = 0;
    if (m.has_others && count.min_members > n_required + 1)
        return schema_refuse(t, "minProperties beyond the required ones",
                             s->objects ? s->objects->v : NULL);
    counted = count.max_members == RULE_UNBOUNDED ? count.min_members : count.max_members + 1;
    if (count.max_members != RULE_UNBOUNDED && !m.has_others && count.max_members >= m.n)
        counted = count.min_members, count.max_members = RULE_UNBOUNDED;
    rule body = RULE_NEVER;
    if (counted > MAX_GRAPH) return schema_refuse(t, "maxProperties of this size", NULL);
    st = members_graph(t, &count, &m, counted + 1, &body);
    if (st != OK) return st;
    bool may_be_empty = n_required == 0 && s->min_members == 0;
    rule some =
        rules_seq(t->r, (rule[]){schema_gap(t), schema_fixed(t, "\""), body, schema_gap(t)}, 4);
    body = rules_alt(
        t->r,
        (rule[]){may_be_empty ? RULE_EMPTY : RULE_NEVER, s->max_members ? some : RULE_NEVER},
        2);
    *out = rules_seq(t->r, (rule[]){schema_fixed(t, "{"), body, schema_fixed(t, "}")}, 3);
    return OK;
}

/* ---- all types ---- */

static bool excludes(const shape *s, json_type type) {
    size_t i;
    json_t *v;
    for (const cell *c = s->not_values; c; c = c->next)
        json_array_foreach(c->v, i, v) if (json_typeof(v) == type) return true;
    return false;
}

static status string_rule(translator *t, const shape *s, rule *out) {
    dfa d;
    bool plain;
    status st = schema_string_dfa(t, s, &d, &plain);
    if (st != OK) return st;
    *out =
        plain ? schema_plain_string(t, s->min_chars, s->max_chars) : schema_string_rule(t, &d);
    return OK;
}

static int by_value(const void *a, const void *b) {
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* Numbers between those that are excluded. */
static status numbers_rule(translator *t, const shape *s, rule *out) {
    double v[MAX_EXCLUDED];
    rule one[MAX_EXCLUDED + 1];
    uint32_t n = 0, n_one = 0;
    size_t i;
    json_t *x;
    for (const cell *c = s->not_values; c; c = c->next) json_array_foreach(c->v, i, x) {
            if (!json_is_number(x)) continue;
            if (n == MAX_EXCLUDED || fabs(json_number_value(x)) > 0x1p53)
                return schema_refuse(t, "not of so many numbers, or of such", c->v);
            v[n++] = json_number_value(x);
        }
    qsort(v, n, sizeof *v, by_value);
    for (i = 0; i <= n; i++) {
        shape part = *s;
        bound *lo = &part.lo, *hi = &part.hi;
        if (i > 0 && (!lo->set || v[i - 1] >= lo->v)) *lo = (bound){true, true, v[i - 1]};
        if (i < n && (!hi->set || v[i] <= hi->v)) *hi = (bound){true, true, v[i]};
        if (lo->set && hi->set &&
            (lo->v > hi->v || (lo->v == hi->v && (lo->exclusive || hi->exclusive))))
            continue;
        status st = schema_number_rule(t, &part, &one[n_one++]);
        if (st != OK) return st;
    }
    *out = rules_alt(t->r, one, n_one);
    return OK;
}

static status shape_rule(translator *t, const shape *s, rule *out) {
    rule one[8];
    uint32_t n = 0;
    status st = OK;
    if (s->only) return values_rule(t, s, out);
    for (int bit = 0; bit < 8; bit++)
        if (s->types >> bit & 1 && s->refused[bit])
            return schema_refuse(t, s->refused[bit], s->refused_at[bit]);
    if (s->types & TYPE_NULL && !excludes(s, JSON_NULL)) one[n++] = schema_fixed(t, "null");
    if (s->types & TYPE_FALSE && !excludes(s, JSON_FALSE)) one[n++] = schema_fixed(t, "false");
    if (s->types & TYPE_TRUE && !excludes(s, JSON_TRUE)) one[n++] = schema_fixed(t, "true");
    if (s->types & (TYPE_INT | TYPE_FRACTION)) {
        st = numbers_rule(t, s, &one[n++]);
    }
    if (st == OK && s->types & TYPE_STRING) st = string_rule(t, s, &one[n++]);
    if (st == OK && s->types & TYPE_ARRAY) {
        if (excludes(s, JSON_ARRAY))
            return schema_refuse(t, "not of an array's value", s->not_values->v);
        st = array_rule(t, s, &one[n++]);
    }
    if (st == OK && s->types & TYPE_OBJECT) {
        if (excludes(s, JSON_OBJECT))
            return schema_refuse(t, "not of an object's value", s->not_values->v);
        st = object_rule(t, s, &one[n++]);
    }
    *out = rules_alt(t->r, one, n);
    return st;
}

static bool same_set(const memo *m, const literal *l, uint32_t n) {
    if (m->n != n) return false;
    for (uint32_t i = 0; i < n; i++) {
        bool in = false;
        for (uint32_t k = 0; k < n; k++)
            in |= m->v[k].schema == l[i].schema && m->v[k].negated == l[i].negated;
        if (!in) return false;
    }
    return true;
}

static status new_memo(translator *t, const literal *l, uint32_t n, rule *out) {
    if (t->n_memo == MAX_MEMO)
        return err_set(t->e, ERR_INVALID, "the JSON schema is too large");
    literal *copy = arena_alloc(t->mem, n * sizeof *copy + 1);
    if (!copy) return schema_no_memory(t);
    if (n) memcpy(copy, l, n * sizeof *copy);
    *out = rules_declare(t->r);
    if (!arena_place(t->mem, &t->memo, t->n_memo, &t->cap_memo, sizeof *t->memo, 16))
        return schema_no_memory(t);
    t->memo[t->n_memo++] = (memo){copy, n, *out};
    return OK;
}

status schema_rule(translator *t, const literal *l, uint32_t n, rule *out) {
    if (!rules_spend(t->r, 20 + t->n_memo))
        return err_set(t->e, ERR_INVALID, "the JSON schema is too large");
    for (uint32_t i = 0; i < t->n_memo; i++)
        if (same_set(&t->memo[i], l, n)) return *out = t->memo[i].r, OK;
    shapes all = {0};
    status st = new_memo(t, l, n, out);
    if (st == OK && ++t->nesting > MAX_DEPTH)
        st = err_set(t->e, ERR_INVALID, "the JSON schema nests too deeply");
    if (st == OK) st = schema_expand(t, l, n, &all);
    rule *one = st == OK ? arena_alloc(t->mem, all.n * sizeof *one + 1) : NULL;
    if (st == OK && !one) st = schema_no_memory(t);
    for (uint32_t i = 0; i < all.n && st == OK; i++) st = shape_rule(t, &all.v[i], &one[i]);
    if (st != OK) return st;
    rules_define(t->r, *out, rules_alt(t->r, one, all.n));
    t->nesting--;
    return OK;
}

/* ---- texts without quotes ---- */

/* The strings of a shape, without `end` in them. */
static status text_shape(translator *t, const shape *s, str end, rule *out) {
    dfa d, with;
    bool plain;
    size_t i;
    const json_t *v;
    shape rest = *s;
    rest.only = NULL;
    json_array_foreach(s->only, i, v) {
        bool fits = false;
        status st = schema_fits(t, &rest, v, &fits);
        if (st != OK) return st;
        if (!json_is_string(v)) return schema_refuse(t, "a text that is no string", v);
        if (!fits || str_find(json_in_text(v), end, 0) != SIZE_MAX) continue;
        *out = rules_alt(t->r, (rule[]){*out, rules_bytes(t->r, json_in_text(v))}, 2);
    }
    if (s->only) return OK;
    if (s->types != TYPE_STRING) return schema_refuse(t, "a text that is no string", NULL);
    status st = schema_string_dfa(t, s, &d, &plain);
    if (st == OK && plain)
        st = dfa_any(&d, s->min_chars, s->max_chars, &t->limits, t->mem, t->e);
    if (st == OK && end.len) st = schema_contains(t, end, &with);
    if (st == OK && end.len) st = schema_combine(t, &d, DFA_BUT, &with);
    if (st == OK) *out = dfa_rule(t->r, &d);
    return st;
}

static status text_rule(translator *t, const json_t *schema, str end, rule *out) {
    shapes all = {0};
    status st = schema_expand(t, &(literal){schema, false}, 1, &all);
    *out = RULE_NEVER;
    for (uint32_t i = 0; i < all.n && st == OK; i++) {
        rule one = RULE_NEVER;
        st = text_shape(t, &all.v[i], end, &one);
        *out = rules_alt(t->r, (rule[]){*out, one}, 2);
    }
    return st;
}

/* ---- the whole ---- */

/* end: of texts without quotes; NULL: JSON. */
static status translate(rules *r, const json_t *schema, const schema_options *opt,
                        const str *end, rule *out, err *e) {
    translator t = {.r = r,
                    .mem = rules_arena(r),
                    .root = schema,
                    .opt = *opt,
                    .e = e,
                    .is_empty = schema_is_empty,
                    .limits = {.max_states = 8000, .work = r->work}};
    status st = schema_find_all(&t, schema, NULL);
    if (st == OK) st = schema_white_space(&t);
    if (st == OK)
        st = end ? text_rule(&t, schema, *end, out)
                 : schema_rule(&t, &(literal){schema, false}, 1, out);
    /* A negation that lacks a part for want of memory would allow too much. */
    return st == OK && t.mem->failed ? schema_no_memory(&t) : st;
}

status rules_json_schema(rules *r, const json_t *schema, const schema_options *opt, rule *out,
                         err *e) {
    arena *before = json_use_arena(rules_arena(r)); /* negations are schemas, too */
    status st = translate(r, schema, opt, NULL, out, e);
    json_use_arena(before);
    return st;
}

status rules_schema_text(rules *r, const json_t *schema, str end, rule *out, err *e) {
    static const schema_options none = {0};
    arena *before = json_use_arena(rules_arena(r));
    status st = translate(r, schema, &none, &end, out, e);
    json_use_arena(before);
    return st;
}

status rules_json_object(rules *r, const schema_options *o, rule *out, err *e) {
    arena *before = json_use_arena(rules_arena(r));
    json_t *schema = json_pack("{s:s}", "type", "object");
    const schema_options plain = {.compact = o->compact, .white_space = o->white_space};
    status st = schema ? translate(r, schema, &plain, NULL, out, e)
                       : err_set(e, ERR_NO_MEMORY, "no memory for a JSON schema");
    json_use_arena(before);
    return st;
}
