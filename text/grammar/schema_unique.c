/* Arrays with uniqueItems, where the values that its elements may have can be listed: a graph whose
 * states are the sets of values that have stood. Any thread. */
#include "text/grammar/schema_in.h"

#include <math.h>

enum {
    MAX_VALUES = 32,   /* of all elements */
    MAX_PLACES = 32,   /* prefixItems, and what stands behind them */
    MAX_SETS = 1200,   /* states of the graph, but for the commas */
    SET_SLOTS = 4096,  /* of the table that finds them */
    MAX_INTEGERS = 32, /* between minimum and maximum */
};

/* What may stand at one index, or at every one from the last on. */
typedef struct place {
    unsigned types;
    bool listed;     /* values: all that it may be; else any */
    uint32_t values; /* a set of indices into unique.value */
    rule any;
} place;

typedef struct state {
    uint32_t index, set; /* elements so far; which values have stood */
} state;

typedef struct unique {
    const shape *s;
    uint32_t n_places;
    place place[MAX_PLACES];
    json_t *value[MAX_VALUES];
    rule text[MAX_VALUES];
    uint32_t n_values;
    state *state;
    uint32_t n_states, *slot; /* slot: [SET_SLOTS] 1 + the number of a state */
    rule_edge *edge;
    uint32_t n_edges, cap_edges;
} unique;

static status too_many(translator *t, const unique *u) {
    return schema_refuse(t, "uniqueItems", u->s->unique);
}

/* ---- the values of an element ---- */

static status add_value(translator *t, unique *u, place *p, json_t *v) {
    uint32_t i = 0;
    if (!v) return schema_no_memory(t);
    while (i < u->n_values && !schema_equal(u->value[i], v)) i++;
    if (i == MAX_VALUES) return too_many(t, u);
    if (i == u->n_values) {
        u->value[u->n_values++] = v;
        status st = schema_value_rule(t, v, &u->text[i]);
        if (st != OK) return st;
    }
    p->values |= 1u << i;
    p->types |= schema_type_of(v);
    return OK;
}

static status add_if_fits(translator *t, unique *u, place *p, const shape *s, json_t *v) {
    bool fits = false;
    status st = v ? schema_fits(t, s, v, &fits) : schema_no_memory(t);
    return st == OK && fits ? add_value(t, u, p, v) : st;
}

static status add_integers(translator *t, unique *u, place *p, const shape *s) {
    shape integers = *s;
    double lo = ceil(s->lo.v), hi = floor(s->hi.v);
    integers.types &= TYPE_INT;
    if (!s->lo.set || !s->hi.set || hi - lo >= MAX_INTEGERS || fabs(lo) > 0x1p53) {
        p->listed = false;
        return OK;
    }
    status st = OK;
    const json_int_t first = (json_int_t)lo, last = (json_int_t)hi;
    for (json_int_t x = first; x <= last && st == OK; x++)
        st = add_if_fits(t, u, p, &integers, json_integer(x));
    return st;
}

static status add_shape(translator *t, unique *u, place *p, const shape *s) {
    status st = OK;
    if (s->only) {
        shape rest = *s;
        size_t i;
        json_t *v;
        rest.only = NULL;
        json_array_foreach(s->only, i, v) {
            st = add_if_fits(t, u, p, &rest, v);
            if (st != OK) return st;
        }
        return OK;
    }
    p->types |= s->types;
    if (s->types & TYPE_NULL) st = add_if_fits(t, u, p, s, json_null());
    if (st == OK && s->types & TYPE_FALSE) st = add_if_fits(t, u, p, s, json_false());
    if (st == OK && s->types & TYPE_TRUE) st = add_if_fits(t, u, p, s, json_true());
    if (st == OK && s->types & TYPE_INT) st = add_integers(t, u, p, s);
    if (s->types & (TYPE_FRACTION | TYPE_STRING | TYPE_ARRAY | TYPE_OBJECT)) p->listed = false;
    return st;
}

static status read_place(translator *t, unique *u, uint32_t index, schema_element_fn *any) {
    place *p = &u->place[index];
    literals l = {0};
    shapes all = {0};
    p->listed = true;
    status st = schema_element(t, u->s, index, &l);
    if (st == OK) st = schema_expand(t, l.v, l.n, &all);
    for (uint32_t i = 0; i < all.n && st == OK; i++) st = add_shape(t, u, p, &all.v[i]);
    if (st == OK && !p->listed) st = any(t, u->s, index, &p->any);
    return st;
}

/* Places whose values are not listed must share no type with any other element. */
static bool are_apart(const unique *u) {
    for (uint32_t i = 0; i < u->n_places; i++) {
        const place *a = &u->place[i];
        const bool repeats = i + 1 == u->n_places && u->s->max_items > u->n_places;
        if (!a->listed && repeats && a->types) return false;
        for (uint32_t k = 0; k < i; k++) {
            const place *b = &u->place[k];
            if (a->types & b->types && !(a->listed && b->listed)) return false;
        }
    }
    return true;
}

/* ---- the graph ---- */

static status add_edge(translator *t, unique *u, rule_edge e) {
    if (!arena_place(t->mem, &u->edge, u->n_edges, &u->cap_edges, sizeof *u->edge, 256))
        return schema_no_memory(t);
    u->edge[u->n_edges++] = e;
    return OK;
}

static status find_state(translator *t, unique *u, state want, uint32_t *out) {
    uint32_t at = (want.set * 0x9e3779b1u ^ want.index) % SET_SLOTS;
    for (; u->slot[at]; at = (at + 1) % SET_SLOTS) {
        *out = u->slot[at] - 1;
        if (u->state[*out].set == want.set && u->state[*out].index == want.index) return OK;
    }
    if (u->n_states == MAX_SETS) return too_many(t, u);
    *out = u->n_states++;
    u->state[*out] = want;
    u->slot[at] = u->n_states;
    return OK;
}

/* State 2 * k stands behind the elements of u->state[k], 2 * k + 1 before another one. */
static status leave_state(translator *t, unique *u, uint32_t k, rule sep) {
    const state from = u->state[k];
    const place *p = &u->place[from.index < u->n_places ? from.index : u->n_places - 1];
    uint32_t to;
    if (from.index >= u->s->max_items) return OK;
    status st = add_edge(t, u, (rule_edge){2 * k, 2 * k + 1, from.index ? sep : RULE_EMPTY});
    if (!p->listed && st == OK) {
        st = find_state(t, u, (state){from.index + 1, from.set}, &to);
        if (st == OK) st = add_edge(t, u, (rule_edge){2 * k + 1, 2 * to, p->any});
    }
    for (uint32_t i = 0; i < u->n_values && p->listed && st == OK; i++) {
        if (!((p->values & ~from.set) >> i & 1)) continue;
        st = find_state(t, u, (state){from.index + 1, from.set | 1u << i}, &to);
        if (st == OK) st = add_edge(t, u, (rule_edge){2 * k + 1, 2 * to, u->text[i]});
    }
    return st;
}

static status build_graph(translator *t, unique *u, rule *out) {
    uint32_t first;
    bool final[2 * MAX_SETS] = {0};
    u->state = arena_alloc(t->mem, MAX_SETS * sizeof *u->state);
    u->slot = arena_zalloc(t->mem, SET_SLOTS * sizeof *u->slot);
    if (!u->state || !u->slot) return schema_no_memory(t);
    rule sep = schema_comma(t);
    status st = find_state(t, u, (state){0, 0}, &first);
    for (uint32_t k = 0; k < u->n_states && st == OK; k++) {
        final[2 * k] = k > 0 && u->state[k].index >= u->s->min_items;
        st = leave_state(t, u, k, sep);
    }
    if (st == OK) *out = rules_graph(t->r, 2 * u->n_states, final, u->edge, u->n_edges);
    return st;
}

status schema_unique_rule(translator *t, const shape *s, schema_element_fn *any, rule *out) {
    unique *u = arena_zalloc(t->mem, sizeof *u);
    if (!u) return schema_no_memory(t);
    u->s = s;
    if (s->contains) return schema_refuse(t, "uniqueItems beside contains", s->unique);
    size_t n = schema_prefix(s) + 1;
    if (n > s->max_items) n = s->max_items;
    if (n > MAX_PLACES) return too_many(t, u);
    status st = OK;
    for (; u->n_places < n && st == OK; u->n_places++) st = read_place(t, u, u->n_places, any);
    if (st != OK) return st;
    if (!are_apart(u)) return too_many(t, u);
    st = build_graph(t, u, out);
    return st;
}
