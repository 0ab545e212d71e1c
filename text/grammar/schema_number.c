/* JSON numbers within bounds and multiples of something, as automata over digits. Any thread. */
#include <math.h>
#include <string.h>

#include "base/digits.h"
#include "text/grammar/schema_in.h"

enum {
    MAX_DIGITS = 40, /* of a bound, before or behind the point */
    MOST_WHOLE = 20, /* digits of a number before the point, where nothing else limits them */
    MOST_FRACTION = 17, /* behind it */
    MOST_EXACT =
        15, /* digits of a number with a point which stays on its side of a bound, and no
                      * integer, when it is read as a double */
    MAX_MODULUS = 5000,
    MAX_STATES = 20000
};

/* A decimal without sign. */
typedef struct decimal {
    char whole[MAX_DIGITS + 2], part[MAX_DIGITS + 2];
    int n_whole, n_part; /* no zeros at the outer ends, but one digit before the point */
} decimal;

/* False: it has too many digits. */
static bool decimal_of(double v, decimal *d) {
    char digit[DIGITS_MAX + 1];
    const int exp = digits_shortest(v, digit), digits = (int)strlen(digit);
    int n_whole = exp >= 0 ? exp + 1 : 1, n_part = digits - 1 - exp;
    if (n_part < 0) n_part = 0;
    if (n_whole > MAX_DIGITS || n_part > MAX_DIGITS) return false;
    for (int i = 0; i < n_whole; i++) {
        int k = exp >= 0 ? i : -1;
        d->whole[i] = k >= 0 && k < digits ? digit[k] : '0';
    }
    for (int i = 0; i < n_part; i++) {
        int k = exp + 1 + i;
        d->part[i] = k >= 0 && k < digits ? digit[k] : '0';
    }
    while (n_part > 0 && d->part[n_part - 1] == '0') n_part--;
    d->n_whole = n_whole;
    d->n_part = n_part;
    return true;
}

/* What the magnitude of a number of one sign must be. */
typedef struct range {
    bool possible, has_lo, has_hi, lo_open, hi_open;
    decimal lo, hi;
} range;

typedef struct number {
    range sign[2]; /* positive, negative */
    bool integers, fractions, limited;
    uint32_t modulus; /* 0: any; else multiples of modulus / 10^scale */
    int scale;
} number;

/* ---- states ---- */

enum { START, MINUS, ZERO, WHOLE, POINT, PART };

typedef struct where {
    uint8_t phase, negative;
    uint8_t n;            /* digits of the phase, up to a cap */
    uint8_t at[2];        /* digits compared with each bound */
    int8_t cmp[2];        /* of what was read with the bounds: -1, 0, 1 */
    uint8_t n_part, some; /* digits behind the point, up to the scale; one of them is not 0 */
    uint32_t rest;
} where;

static uint64_t key_of(const where *w) {
    return (uint64_t)w->phase | (uint64_t)w->negative << 3 | (uint64_t)w->n << 4 |
           (uint64_t)w->at[0] << 10 | (uint64_t)w->at[1] << 16 |
           (uint64_t)(w->cmp[0] + 1) << 22 | (uint64_t)(w->cmp[1] + 1) << 24 |
           (uint64_t)w->n_part << 26 | (uint64_t)w->some << 30 | (uint64_t)w->rest << 32;
}

static const decimal *bound_of(const number *x, const where *w, int i) {
    const range *r = &x->sign[w->negative];
    return i ? (r->has_hi ? &r->hi : NULL) : (r->has_lo ? &r->lo : NULL);
}

/* Compares what stands before the point, which is complete, with a bound. */
static void end_whole(const number *x, where *w) {
    for (int i = 0; i < 2; i++) {
        const decimal *b = bound_of(x, w, i);
        if (!b) continue;
        if (w->at[i] != b->n_whole) w->cmp[i] = w->at[i] < b->n_whole ? -1 : 1;
        w->at[i] = 0;
    }
}

static int sign_of(int v) {
    return (v > 0) - (v < 0);
}

static bool take_whole(const number *x, where *w, char c) {
    for (int i = 0; i < 2; i++) {
        const decimal *b = bound_of(x, w, i);
        if (!b) continue;
        if (w->at[i] < b->n_whole && w->cmp[i] == 0)
            w->cmp[i] = (int8_t)sign_of(c - b->whole[w->at[i]]);
        if (w->at[i] <= b->n_whole) w->at[i]++;
        if (i == 1 && w->at[i] > b->n_whole) return false; /* above the upper bound for good */
    }
    if (x->limited && ++w->n > MOST_WHOLE) return false;
    if (x->modulus) w->rest = (w->rest * 10 + (uint32_t)(c - '0')) % x->modulus;
    return true;
}

static bool take_part(const number *x, where *w, char c) {
    for (int i = 0; i < 2; i++) {
        const decimal *b = bound_of(x, w, i);
        if (!b) continue;
        char d = w->at[i] < b->n_part ? b->part[w->at[i]] : '0';
        if (w->cmp[i] == 0) w->cmp[i] = (int8_t)sign_of(c - d);
        if (w->at[i] < b->n_part) w->at[i]++;
    }
    if (x->limited && ++w->n > MOST_EXACT) return false;
    w->some |= c != '0' && !x->integers;
    if (!x->modulus) return true;
    if (w->n_part >= x->scale) return c == '0';
    w->n_part++;
    w->rest = (w->rest * 10 + (uint32_t)(c - '0')) % x->modulus;
    return true;
}

/* False: the character cannot stand there. */
static bool advance(const number *x, where *w, char c) {
    bool digit = c >= '0' && c <= '9';
    switch (w->phase) {
    case START:
        if (c == '-') return w->phase = MINUS, w->negative = 1, x->sign[1].possible;
        if (!x->sign[0].possible) return false;
        /* fall through */
    case MINUS:
        if (!digit) return false;
        w->phase = c == '0' ? ZERO : WHOLE;
        return take_whole(x, w, c);
    case WHOLE:
        if (digit) return take_whole(x, w, c);
        /* fall through */
    case ZERO:
        if (c != '.' || !x->fractions) return false;
        end_whole(x, w);
        w->phase = POINT;
        return true;
    default:
        if (!digit) return false;
        w->phase = PART;
        return take_part(x, w, c);
    }
}

static bool may_end(const number *x, where w) {
    const range *r = &x->sign[w.negative];
    if (w.phase != ZERO && w.phase != WHOLE && w.phase != PART) return false;
    if (w.phase == ZERO && w.negative && x->integers && !x->fractions) return false; /* -0 */
    if (w.phase != PART) end_whole(x, &w);
    if (!x->integers && !w.some) return false;
    for (int i = 0; i < 2; i++) {
        const decimal *b = bound_of(x, &w, i);
        if (!b) continue;
        int cmp = w.cmp[i];
        if (cmp == 0 && w.at[i] < b->n_part) cmp = -1; /* digits of the bound are left */
        if (i ? cmp > 0 : cmp < 0) return false;
        if (cmp == 0 && (i ? r->hi_open : r->lo_open)) return false;
    }
    uint32_t rest = w.rest;
    for (int i = w.n_part; x->modulus && i < x->scale; i++) rest = rest * 10 % x->modulus;
    return !x->modulus || rest == 0;
}

/* ---- the automaton, breadth first ---- */

typedef struct walk {
    where *v;
    uint32_t n, cap, n_slots, *slot;
} walk;

static uint32_t slot_of(uint64_t key) {
    return (uint32_t)((key * 0x9e3779b97f4a7c15u) >> 40);
}

static bool rehash(translator *t, walk *k) {
    const uint32_t n = k->n_slots ? 2 * k->n_slots : 256;
    uint32_t *slot = arena_zalloc(t->mem, n * sizeof *slot);
    if (!slot) return false;
    for (uint32_t i = 0; i < k->n; i++) {
        uint32_t h = slot_of(key_of(&k->v[i]));
        while (slot[h & (n - 1)]) h++;
        slot[h & (n - 1)] = i + 1;
    }
    k->slot = slot;
    k->n_slots = n;
    return true;
}

static int64_t put(translator *t, walk *k, const where *w) {
    if (2 * k->n >= k->n_slots && !rehash(t, k)) return -1;
    uint64_t key = key_of(w);
    for (uint32_t h = slot_of(key);; h++) {
        uint32_t i = k->slot[h & (k->n_slots - 1)];
        if (!i) {
            k->slot[h & (k->n_slots - 1)] = k->n + 1;
            break;
        }
        if (key_of(&k->v[i - 1]) == key) return i - 1;
    }
    if (k->n == MAX_STATES || !rules_spend(t->r, 100)) return -1;
    if (!arena_place(t->mem, &k->v, k->n, &k->cap, sizeof *k->v, 256)) return -1;
    k->v[k->n++] = *w;
    return k->n - 1;
}

static status automaton(translator *t, const number *x, rule *out) {
    static const char symbols[] = "-.0123456789";
    walk k = {0};
    rule on[12];
    rule_edge *edge = NULL;
    uint32_t n_edges = 0, cap = 0;
    where start = {0};
    if (put(t, &k, &start) < 0) return schema_no_memory(t);
    for (int i = 0; i < 12; i++) on[i] = rules_bytes(t->r, (str){&symbols[i], 1});
    for (uint32_t q = 0; q < k.n; q++)
        for (int i = 0; i < 12; i++) {
            where w = k.v[q];
            if (!advance(x, &w, symbols[i])) continue;
            int64_t to = put(t, &k, &w);
            if (to < 0)
                return t->mem->failed ? schema_no_memory(t)
                                      : err_set(t->e, ERR_INVALID,
                                                "bounds or multipleOf of a "
                                                "number need too many states");
            if (!arena_place(t->mem, &edge, n_edges, &cap, sizeof *edge, 512))
                return schema_no_memory(t);
            edge[n_edges++] = (rule_edge){q, (uint32_t)to, on[i]};
        }
    bool *final = arena_alloc(t->mem, k.n);
    if (!final) return schema_no_memory(t);
    for (uint32_t q = 0; q < k.n; q++) final[q] = may_end(x, k.v[q]);
    *out = rules_graph(t->r, k.n, final, edge, n_edges);
    return OK;
}

/* ---- from a shape ---- */

/* The magnitudes that a sign may have. */
static bool set_range(const shape *s, bool negative, range *r) {
    const bound *lo = negative ? &s->hi : &s->lo, *hi = negative ? &s->lo : &s->hi;
    double l = negative ? -lo->v : lo->v, h = negative ? -hi->v : hi->v;
    *r = (range){.possible = true};
    if (hi->set && h < 0) r->possible = false;
    if (hi->set && r->possible) {
        r->has_hi = true;
        r->hi_open = hi->exclusive;
        if (h == 0 && hi->exclusive) r->possible = false;
        if (!decimal_of(h, &r->hi)) return false;
    }
    /* Zero is no more than a bound of 0; above an open one it is not. */
    if (lo->set && (l > 0 || (l == 0 && lo->exclusive))) {
        r->has_lo = true;
        r->lo_open = lo->exclusive;
        if (!decimal_of(l, &r->lo)) return false;
    }
    return true;
}

static uint32_t gcd(uint32_t a, uint32_t b) {
    while (b) {
        uint32_t c = a % b;
        a = b;
        b = c;
    }
    return a;
}

static status set_multiples(translator *t, const shape *s, number *x) {
    for (const cell *c = s->multiples; c; c = c->next) {
        decimal d;
        uint64_t m = 0;
        bool ok = decimal_of(json_number_value(c->v), &d) && d.n_part <= 10;
        for (int i = 0; ok && i < d.n_whole + d.n_part; i++) {
            m = m * 10 + (uint64_t)((i < d.n_whole ? d.whole[i] : d.part[i - d.n_whole]) - '0');
            ok = m <= MAX_MODULUS;
        }
        if (!ok) return schema_refuse(t, "multipleOf of this size", c->v);
        if (!x->modulus) {
            x->modulus = (uint32_t)m;
            x->scale = d.n_part;
            continue;
        }
        if (x->scale != d.n_part) return schema_refuse(t, "multipleOf twice", c->v);
        m = x->modulus / gcd(x->modulus, (uint32_t)m) * m;
        if (m > MAX_MODULUS) return schema_refuse(t, "multipleOf of this size", c->v);
        x->modulus = (uint32_t)m;
    }
    if (x->modulus && x->scale == 0 && !x->integers)
        x->sign[0].possible = x->sign[1].possible = false;
    if (x->modulus && x->scale == 0) x->fractions = false;
    return OK;
}

static rule digits(translator *t, char lo, uint32_t min, uint32_t max) {
    rule_range r = {(uint8_t)lo, '9'};
    return rules_repeat(t->r, rules_class(t->r, &r, 1), min, max);
}

/* Without bounds: also with an exponent. */
static rule plain_number(translator *t, bool fractions) {
    static const rule_range e[] = {{'E', 'E'}, {'e', 'e'}}, sign[] = {{'+', '+'}, {'-', '-'}};
    rules *r = t->r;
    rule minus = rules_bytes(r, STR("-")), zero = rules_bytes(r, STR("0"));
    rule above =
        rules_seq(r, (rule[]){digits(t, '1', 1, 1), digits(t, '0', 0, MOST_WHOLE - 1)}, 2);
    if (!fractions)
        return rules_alt(
            r, (rule[]){zero, rules_seq(r, (rule[]){rules_optional(r, minus), above}, 2)}, 2);
    rule whole = rules_alt(r, (rule[]){zero, above}, 2);
    rule part =
        rules_seq(r, (rule[]){rules_bytes(r, STR(".")), digits(t, '0', 1, MOST_FRACTION)}, 2);
    rule power =
        rules_seq(r,
                  (rule[]){rules_class(r, e, 2), rules_optional(r, rules_class(r, sign, 2)),
                           digits(t, '0', 1, 2)},
                  3);
    return rules_seq(r,
                     (rule[]){rules_optional(r, minus), whole, rules_optional(r, part),
                              rules_optional(r, power)},
                     4);
}

status schema_number_rule(translator *t, const shape *s, rule *out) {
    number x = {.integers = s->types & TYPE_INT, .fractions = s->types & TYPE_FRACTION};
    if (!s->lo.set && !s->hi.set && !s->multiples && x.integers)
        return *out = plain_number(t, x.fractions), OK;
    bool ok = set_range(s, false, &x.sign[0]) && set_range(s, true, &x.sign[1]);
    if (!ok) return err_set(t->e, ERR_INVALID, "a bound of numbers has too many digits");
    status st = set_multiples(t, s, &x);
    if (st != OK) return st;
    x.limited = !x.modulus;
    return automaton(t, &x, out);
}

bool schema_number_fits(const shape *s, const json_t *v) {
    double x = json_number_value(v);
    if (s->lo.set && (x < s->lo.v || (x == s->lo.v && s->lo.exclusive))) return false;
    if (s->hi.set && (x > s->hi.v || (x == s->hi.v && s->hi.exclusive))) return false;
    for (const cell *c = s->multiples; c; c = c->next) {
        double m = json_number_value(c->v), q = x / m;
        if (fabs(q) > 9e15 || fabs(q - nearbyint(q)) > 1e-9 * fmax(1, fabs(q))) return false;
    }
    return true;
}
