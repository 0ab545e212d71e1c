/* Operators, attributes, items and slices, as Python has them. Owns nothing; any thread. */
#include "text/jinja/jinja_tree.h"

#include <math.h>

static jv unsupported(jinja *j, const char *sign, jv a, jv b) {
    if (a.kind == JV_UNDEF || b.kind == JV_UNDEF) {
        jinja_fail_undef(j, a.kind == JV_UNDEF ? a : b);
    } else if (a.kind == JV_BIG || b.kind == JV_BIG) {
        jinja_fail(j, "an integer is too large");
    } else if (*sign == '+' && a.kind == JV_STR) {
        jinja_fail(j, "can only concatenate str (not \"%s\") to str", jv_type(b));
    } else {
        jinja_fail(j, "unsupported operand type(s) for %s: '%s' and '%s'", sign, jv_type(a),
                   jv_type(b));
    }
    return jv_undef();
}

/* ---- joining and repeating ---- */

/* What markupsafe writes for a string that is joined to markup. */
static bool add_escaped(jinja *j, sbuf *b, const jstr *s) {
    static const struct {
        char c;
        const char *as;
    } escapes[] = {
        {'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\'', "&#39;"}, {'"', "&#34;"}};
    size_t plain = 0;
    for (size_t i = 0; i < s->n && !j->failed; i++)
        for (int k = 0; k < 5; k++)
            if (s->p[i] == escapes[k].c) {
                sbuf_part(j, b, s, plain, i);
                sbuf_add(j, b, escapes[k].as, strlen(escapes[k].as), jstr_data_at(s, i));
                plain = i + 1;
            }
    return !j->failed && sbuf_part(j, b, s, plain, s->n);
}

static jv add_strings(jinja *j, const jstr *a, const jstr *b) {
    sbuf out;
    sbuf_init(&out);
    bool markup = a->markup || b->markup;
    if (markup && !a->markup)
        add_escaped(j, &out, a);
    else
        sbuf_str(j, &out, a);
    if (markup && !b->markup)
        add_escaped(j, &out, b);
    else
        sbuf_str(j, &out, b);
    jv v = sbuf_value(j, &out);
    if (!markup || v.kind != JV_STR) return v;
    jstr *safe = jinja_alloc(j, sizeof *safe);
    if (!safe) return jv_undef();
    *safe = *v.s;
    safe->markup = true;
    return (jv){.kind = JV_STR, .s = safe};
}

static jv add_lists(jinja *j, jv a, jv b) {
    if (a.l->look != LOOK_LIST || b.l->look != LOOK_LIST) return unsupported(j, "+", a, b);
    jv l = jv_list(j, a.kind, a.l->n + b.l->n);
    if (j->failed) return jv_undef();
    if (a.l->n) memcpy(l.l->v, a.l->v, a.l->n * sizeof(jv));
    if (b.l->n) memcpy(l.l->v + a.l->n, b.l->v, b.l->n * sizeof(jv));
    return l;
}

static jv repeat(jinja *j, jv of, int64_t times) {
    if (of.kind == JV_STR) {
        sbuf out;
        sbuf_init(&out);
        for (; times > 0 && of.s->n && jinja_walk(j, 64); times--) sbuf_str(j, &out, of.s);
        return sbuf_value(j, &out);
    }
    size_t n = times > 0 ? (size_t)times : 0;
    if (of.l->n && n > SIZE_MAX / 64 / of.l->n) {
        jinja_limit(j, "a list is too long");
        return jv_undef();
    }
    jv l = jv_list(j, of.kind, n * of.l->n);
    for (size_t i = 0; i < n && of.l->n && !j->failed; i++)
        memcpy(l.l->v + i * of.l->n, of.l->v, of.l->n * sizeof(jv));
    return l;
}

jv jinja_join(jinja *j, const jv *v, size_t n) {
    sbuf out;
    size_t bytes = 0;
    sbuf_init(&out);
    for (size_t i = 0; i < n; i++)
        if (v[i].kind == JV_STR) bytes += v[i].s->n;
    sbuf_reserve(j, &out, bytes);
    for (size_t i = 0; i < n && jv_print(j, &out, v[i]); i++) {
    }
    return sbuf_value(j, &out);
}

/* ---- numbers ---- */

static jv float_op(jinja *j, int op, double a, double b) {
    if ((op == OP_DIV || op == OP_MOD) && b == 0) {
        jinja_fail(j, op == OP_DIV ? "division by zero" : "modulo by zero");
        return jv_undef();
    }
    switch (op) {
    case OP_ADD: return jv_float(a + b);
    case OP_SUB: return jv_float(a - b);
    case OP_MUL: return jv_float(a * b);
    case OP_DIV: return jv_float(a / b);
    default: {
        double r = fmod(a, b);
        if (r != 0 && (r < 0) != (b < 0)) r += b;
        return jv_float(r == 0 ? copysign(0.0, b) : r);
    }
    }
}

static jv int_op(jinja *j, int op, int64_t a, int64_t b) {
    int64_t r = 0;
    bool over = false;
    if (op == OP_DIV || (op == OP_MOD && b == 0)) return float_op(j, op, (double)a, (double)b);
    if (op == OP_ADD) over = __builtin_add_overflow(a, b, &r);
    if (op == OP_SUB) over = __builtin_sub_overflow(a, b, &r);
    if (op == OP_MUL) over = __builtin_mul_overflow(a, b, &r);
    if (op == OP_MOD && b != -1) {
        r = a % b;
        if (r != 0 && (r < 0) != (b < 0)) r += b;
    }
    if (over) jinja_fail(j, "an integer is too large");
    return jv_int(r);
}

static jv arithmetic(jinja *j, int op, jv a, jv b) {
    static const char *const signs[] = {"+", "-", "*", "/", "%"};
    int64_t x, y;
    bool list_a = a.kind == JV_LIST || a.kind == JV_TUPLE;
    bool list_b = b.kind == JV_LIST || b.kind == JV_TUPLE;
    if (op == OP_MOD && a.kind == JV_STR)
        return b.kind == JV_TUPLE ? jinja_percent(j, a.s, b.l->v, b.l->n)
                                  : jinja_percent(j, a.s, &b, 1);
    if (op == OP_ADD && a.kind == JV_STR && b.kind == JV_STR) return add_strings(j, a.s, b.s);
    if (op == OP_ADD && list_a && a.kind == b.kind) return add_lists(j, a, b);
    if (op == OP_MUL && (list_a || a.kind == JV_STR) && jv_as_int(b, &y))
        return repeat(j, a, y);
    if (op == OP_MUL && (list_b || b.kind == JV_STR) && jv_as_int(a, &x))
        return repeat(j, b, x);
    if (!jv_is_number(a) || !jv_is_number(b) || a.kind == JV_BIG || b.kind == JV_BIG)
        return unsupported(j, signs[op], a, b);
    if (jv_as_int(a, &x) && jv_as_int(b, &y)) return int_op(j, op, x, y);
    return float_op(j, op, jv_as_double(a), jv_as_double(b));
}

jv jinja_negate(jinja *j, jv v) {
    int64_t i;
    if (v.kind == JV_FLOAT) return jv_float(-v.d);
    if (jv_as_int(v, &i)) return int_op(j, OP_SUB, 0, i);
    if (v.kind == JV_UNDEF)
        jinja_fail_undef(j, v);
    else
        jinja_fail(j, "bad operand type for unary -: '%s'", jv_type(v));
    return jv_undef();
}

jv jinja_binary(jinja *j, int op, jv a, jv b) {
    static const char *const signs[] = {
        [OP_LT] = "<", [OP_LE] = "<=", [OP_GT] = ">", [OP_GE] = ">="};
    int c;
    bool in;
    switch (op) {
    case OP_CONCAT: return jinja_join(j, (jv[]){a, b}, 2);
    case OP_EQ: return jv_bool(jv_equal(j, a, b, 0));
    case OP_NE: return jv_bool(!jv_equal(j, a, b, 0));
    case OP_LT:
    case OP_LE:
    case OP_GT:
    case OP_GE:
        if (!jv_compare(j, a, b, signs[op], &c, 0)) return jv_undef();
        if (isnan(jv_as_double(a)) || isnan(jv_as_double(b))) return jv_bool(false);
        return jv_bool(op == OP_LT   ? c < 0
                       : op == OP_LE ? c <= 0
                       : op == OP_GT ? c > 0
                                     : c >= 0);
    case OP_IN:
    case OP_NOT_IN:
        return jv_contains(j, a, b, &in) ? jv_bool(in == (op == OP_IN)) : jv_undef();
    default: return arithmetic(j, op, a, b);
    }
}

/* ---- attributes and items ---- */

static const jv *member(jv v, const jname *name) {
    if (v.kind == JV_DICT) return jdict_find(v.o, name->text, name->hash);
    if (v.kind == JV_SPACE) return jdict_find(&v.ns->vars, name->text, name->hash);
    return NULL;
}

static jv bound(jinja *j, jv self, const jname *name) {
    const jinja_function *fn = jinja_method_find(self, name);
    struct jmethod *m = fn ? jinja_alloc(j, sizeof *m) : NULL;
    if (!m) return jv_unset();
    *m = (struct jmethod){self, fn};
    return (jv){.kind = JV_METHOD, .method = m};
}

static jv missing(jv v, const jname *name) {
    return (jv){.kind = JV_UNDEF, .why = WHY_MEMBER, .of = v.kind, .name = &name->text};
}
static jv no_element(jv v) {
    return (jv){.kind = JV_UNDEF, .why = WHY_ELEMENT, .of = v.kind};
}

static jv undefined_used(jinja *j, jv v) {
    jinja_fail_undef(j, v);
    return jv_undef();
}

jv jinja_attr(jinja *j, jv v, const jname *name) {
    if (v.kind == JV_UNDEF) return undefined_used(j, v);
    jv m = bound(j, v, name);
    if (jv_given(m)) return m;
    const jv *value = member(v, name);
    jinja_walk(j, v.kind == JV_DICT ? v.o->n : 1);
    return value ? *value : missing(v, name);
}

jv jinja_named_item(jinja *j, jv v, const jname *name) {
    if (v.kind != JV_DICT) return jinja_attr(j, v, name);
    const jv *value = member(v, name);
    jinja_walk(j, v.o->n);
    if (value) return *value;
    jv m = bound(j, v, name);
    return jv_given(m) ? m : missing(v, name);
}

static jv item_at(jinja *j, jv v, int64_t i) {
    int64_t n = v.kind == JV_STR ? (int64_t)v.s->n_chars : (int64_t)v.l->n;
    if (i < 0) i += n;
    if (i < 0 || i >= n) return no_element(v);
    if (v.kind != JV_STR) return v.l->v[i];
    size_t from = jstr_offset(v.s, (size_t)i), to = from + 1;
    jinja_walk(j, from);
    while (to < v.s->n && (v.s->p[to] & 0xc0) == 0x80) to++;
    return jv_part(j, v.s, from, to);
}

jv jinja_item(jinja *j, jv v, jv key) {
    int64_t i;
    if (v.kind == JV_UNDEF) return undefined_used(j, v);
    if (v.kind == JV_DICT) {
        const jv *value = jdict_get(j, v.o, key);
        if (value) return *value;
    }
    if ((v.kind == JV_STR || v.kind == JV_LIST || v.kind == JV_TUPLE) && jv_as_int(key, &i))
        return item_at(j, v, i);
    if (key.kind != JV_STR) return no_element(v);
    jname *name = jinja_alloc(j, sizeof *name);
    if (!name) return jv_undef();
    *name = jinja_name(jstr_text(key.s));
    return jinja_named_item(j, v, name);
}

/* ---- slices ---- */

static bool slice_part(jinja *j, jv v, int64_t *out, bool *given) {
    *given = v.kind != JV_NONE;
    if (!*given || jv_as_int(v, out)) return true;
    return jinja_fail(j, "slice indices must be integers or None");
}
/* An end of a slice within 0..n, or -1..n-1 where it runs backwards. */
static int64_t clamp(int64_t i, int64_t n, bool back) {
    if (i < 0) i = i < -n ? -1 : i + n;
    int64_t lo = back ? -1 : 0, hi = back ? n - 1 : n;
    return i < lo ? lo : i > hi ? hi : i;
}

static jv slice_list(jinja *j, jv v, int64_t at, int64_t step, size_t count) {
    jv l = jv_list(j, v.kind, count);
    for (size_t i = 0; i < count && !j->failed; i++) l.l->v[i] = v.l->v[at + (int64_t)i * step];
    return l;
}
static jv slice_string(jinja *j, const jstr *s, int64_t at, int64_t step, size_t count) {
    sbuf out;
    if (count == 0) return jv_str(j, STR(""), false);
    if (step == 1) {
        size_t from = jstr_offset(s, (size_t)at), to = jstr_offset(s, (size_t)at + count);
        return jv_part(j, s, from, to);
    }
    jv *chars;
    size_t n;
    sbuf_init(&out);
    if (!jv_items(j, (jv){.kind = JV_STR, .s = s}, &chars, &n)) return jv_undef();
    for (size_t i = 0; i < count && jinja_walk(j, 16); i++)
        sbuf_str(j, &out, chars[at + (int64_t)i * step].s);
    return sbuf_value(j, &out);
}

jv jinja_slice(jinja *j, jv v, jv from, jv to, jv by) {
    int64_t a = 0, b = 0, step = 1;
    bool has_a, has_b, has_step;
    if (v.kind == JV_UNDEF) return undefined_used(j, v);
    if (v.kind != JV_STR && v.kind != JV_LIST && v.kind != JV_TUPLE) {
        jinja_fail(j, "'%s' object cannot be sliced", jv_type(v));
        return jv_undef();
    }
    if (!slice_part(j, from, &a, &has_a) || !slice_part(j, to, &b, &has_b) ||
        !slice_part(j, by, &step, &has_step))
        return jv_undef();
    if (step == 0) {
        jinja_fail(j, "slice step cannot be zero");
        return jv_undef();
    }
    int64_t n = v.kind == JV_STR ? (int64_t)v.s->n_chars : (int64_t)v.l->n;
    bool back = step < 0;
    if (step > n) step = n + 1; /* the first item at most; no overflow below */
    if (step < -n) step = -n - 1;
    a = has_a ? clamp(a, n, back) : back ? n - 1 : 0;
    b = has_b ? clamp(b, n, back) : back ? -1 : n;
    int64_t span = back ? a - b : b - a, width = back ? -step : step;
    size_t count = span > 0 ? (size_t)((span + width - 1) / width) : 0;
    return v.kind == JV_STR ? slice_string(j, v.s, a, step, count)
                            : slice_list(j, v, a, step, count);
}
