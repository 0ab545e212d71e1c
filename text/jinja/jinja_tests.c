/* Tests ("x is name") and the functions of the environment. Owns nothing; any thread. */
#include "text/jinja/jinja_tree.h"

#include <math.h>

#define TEST(name, expression)                                                                 \
    static jv test_##name(jinja *j, jv v, const jv *arg) {                                     \
        (void)j, (void)v, (void)arg;                                                           \
        return jv_bool(expression);                                                            \
    }
TEST(defined, v.kind != JV_UNDEF)
TEST(undefined, v.kind == JV_UNDEF)
TEST(none, v.kind == JV_NONE)
TEST(string, v.kind == JV_STR)
TEST(mapping, v.kind == JV_DICT)
TEST(iterable, v.kind == JV_STR || v.kind == JV_LIST || v.kind == JV_TUPLE ||
                   v.kind == JV_ITER || v.kind == JV_DICT || v.kind == JV_UNDEF ||
                   v.kind == JV_LOOP)
TEST(sequence, v.kind == JV_STR || v.kind == JV_LIST || v.kind == JV_TUPLE ||
                   v.kind == JV_DICT || v.kind == JV_UNDEF)
TEST(number, jv_is_number(v))
TEST(integer, v.kind == JV_INT || v.kind == JV_BIG)
TEST(float, v.kind == JV_FLOAT)
TEST(boolean, v.kind == JV_BOOL)
TEST(true, v.kind == JV_BOOL && v.b)
TEST(false, v.kind == JV_BOOL && !v.b)
TEST(callable, v.kind == JV_MACRO || v.kind == JV_GLOBAL || v.kind == JV_METHOD)

#define COMPARISON(name, op)                                                                   \
    static jv test_##name(jinja *j, jv v, const jv *arg) {                                     \
        return jinja_binary(j, op, v, arg[0]);                                                 \
    }
COMPARISON(eq, OP_EQ)
COMPARISON(ne, OP_NE)
COMPARISON(lt, OP_LT)
COMPARISON(le, OP_LE)
COMPARISON(gt, OP_GT)
COMPARISON(ge, OP_GE)
COMPARISON(in, OP_IN)

static jv remainder_is(jinja *j, jv v, jv by, int64_t want) {
    jv r = jinja_binary(j, OP_MOD, v, by);
    return j->failed ? jv_undef() : jinja_binary(j, OP_EQ, r, jv_int(want));
}
static jv test_odd(jinja *j, jv v, const jv *arg) {
    (void)arg;
    return remainder_is(j, v, jv_int(2), 1);
}
static jv test_even(jinja *j, jv v, const jv *arg) {
    (void)arg;
    return remainder_is(j, v, jv_int(2), 0);
}
static jv test_divisible(jinja *j, jv v, const jv *arg) {
    return remainder_is(j, v, arg[0], 0);
}

static const jinja_function tests[] = {
    {"defined", .call = test_defined},
    {"undefined", .call = test_undefined},
    {"none", .call = test_none},
    {"string", .call = test_string},
    {"mapping", .call = test_mapping},
    {"iterable", .call = test_iterable},
    {"sequence", .call = test_sequence},
    {"number", .call = test_number},
    {"integer", .call = test_integer},
    {"float", .call = test_float},
    {"boolean", .call = test_boolean},
    {"true", .call = test_true},
    {"false", .call = test_false},
    {"callable", .call = test_callable},
    {"odd", .call = test_odd},
    {"even", .call = test_even},
    {"divisibleby", {"num"}, .n_needed = 1, .call = test_divisible},
    {"equalto", {"other"}, .n_needed = 1, .call = test_eq},
    {"==", {"other"}, .n_needed = 1, .call = test_eq},
    {"eq", {"other"}, .n_needed = 1, .call = test_eq},
    {"!=", {"other"}, .n_needed = 1, .call = test_ne},
    {"ne", {"other"}, .n_needed = 1, .call = test_ne},
    {"<", {"other"}, .n_needed = 1, .call = test_lt},
    {"lt", {"other"}, .n_needed = 1, .call = test_lt},
    {"lessthan", {"other"}, .n_needed = 1, .call = test_lt},
    {"<=", {"other"}, .n_needed = 1, .call = test_le},
    {"le", {"other"}, .n_needed = 1, .call = test_le},
    {">", {"other"}, .n_needed = 1, .call = test_gt},
    {"gt", {"other"}, .n_needed = 1, .call = test_gt},
    {"greaterthan", {"other"}, .n_needed = 1, .call = test_gt},
    {">=", {"other"}, .n_needed = 1, .call = test_ge},
    {"ge", {"other"}, .n_needed = 1, .call = test_ge},
    {"in", {"seq"}, .n_needed = 1, .call = test_in}};

const jinja_function *jinja_test_find(str name) {
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (str_eqz(name, tests[i].name)) return &tests[i];
    return NULL;
}

/* ---- functions ---- */

static bool fill_from(jinja *j, jdict *d, jv from) {
    jv *v, *pair;
    size_t n, two;
    if (from.kind == JV_DICT) {
        for (size_t i = 0; i < from.o->n && !j->failed; i++)
            jdict_set(j, d, from.o->v[i].key, from.o->v[i].value);
        return !j->failed;
    }
    if (!jv_items(j, from, &v, &n)) return false;
    for (size_t i = 0; i < n && !j->failed; i++) {
        if (!jv_items(j, v[i], &pair, &two)) return false;
        if (two != 2) return jinja_fail(j, "an item of dict() is no pair");
        jdict_set(j, d, pair[0], pair[1]);
    }
    return !j->failed;
}
static bool fill(jinja *j, jdict *d, const jargs *args) {
    *d = (jdict){0};
    if (args->n_pos > 1) return jinja_fail(j, "at most 1 argument by position is expected");
    if (args->n_pos && !fill_from(j, d, args->v[0])) return false;
    for (size_t i = args->n_pos; i < args->n && !j->failed; i++)
        jdict_set(j, d, jv_str(j, args->name[i], false), args->v[i]);
    return !j->failed;
}

static jv call_namespace(jinja *j, jv self, const jargs *args) {
    (void)self;
    struct jspace *ns = jinja_alloc(j, sizeof *ns);
    return ns && fill(j, &ns->vars, args) ? (jv){.kind = JV_SPACE, .ns = ns} : jv_undef();
}
static jv call_dict(jinja *j, jv self, const jargs *args) {
    (void)self;
    jdict *d = jinja_alloc(j, sizeof *d);
    return d && fill(j, d, args) ? (jv){.kind = JV_DICT, .o = d} : jv_undef();
}

static jv call_range(jinja *j, jv self, const jargs *args) {
    int64_t part[3] = {0, 0, 1};
    (void)self;
    if (args->n != args->n_pos || args->n == 0 || args->n > 3)
        jinja_fail(j, "range takes 1 to 3 arguments");
    for (size_t i = 0; i < args->n && !j->failed; i++)
        if (!jv_as_int(args->v[i], &part[i]))
            jinja_fail(j, "'%s' object cannot be interpreted as an integer",
                       jv_type(args->v[i]));
    if (j->failed) return jv_undef();
    if (args->n == 1) part[1] = part[0], part[0] = 0;
    if (part[2] == 0) jinja_fail(j, "range() arg 3 must not be zero");
    double span = part[2] ? ceil(((double)part[1] - (double)part[0]) / (double)part[2]) : 0;
    if (span > 100000)
        jinja_fail(j, "Range too big. The sandbox blocks ranges larger than 100000.");
    if (j->failed) return jv_undef();
    jv l = jv_list(j, JV_LIST, span > 0 ? (size_t)span : 0);
    if (j->failed) return l;
    for (size_t i = 0; i < l.l->n; i++) l.l->v[i] = jv_int(part[0] + (int64_t)i * part[2]);
    l.l->look = LOOK_RANGE;
    return l;
}

static jv call_raise(jinja *j, jv self, const jv *arg) {
    (void)self;
    const jstr *s = jv_text(j, arg[0]);
    if (!s || j->failed) return jv_undef();
    j->failed = true;
    err_set(j->e, ERR_INVALID, STR_FMT, STR_ARG(jstr_text(s)));
    err_field(j->e, "messages");
    return jv_undef();
}

static jv call_strftime(jinja *j, jv self, const jv *arg) {
    char text[512], format[256];
    (void)self;
    if (arg[0].kind != JV_STR || arg[0].s->n >= sizeof format) {
        jinja_fail(j, "strftime_now takes a short string");
        return jv_undef();
    }
    memcpy(format, arg[0].s->p, arg[0].s->n);
    format[arg[0].s->n] = '\0';
    size_t n = strftime(text, sizeof text, format, &j->set->now);
    return jv_copy(j, (str){text, n}, false);
}

const jinja_function jinja_globals[] = {
    {"namespace", .variadic = true, .call_args = call_namespace},
    {"dict", .variadic = true, .call_args = call_dict},
    {"range", .variadic = true, .call_args = call_range},
    {"raise_exception", {"message"}, .n_needed = 1, .call = call_raise},
    {"strftime_now", {"format"}, .n_needed = 1, .call = call_strftime}};
const uint32_t jinja_n_globals = sizeof jinja_globals / sizeof *jinja_globals;
