/* Runs a template's tree. One rendering owns its arena; any thread. */
#include "text/jinja/jinja_tree.h"

#include <stdio.h>

enum { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };
enum { MAX_DEPTH = 3000 }; /* nodes under evaluation: what a thread's stack bears */

typedef struct binding {
    uint32_t symbol;
    jv value;
} binding;

/* The names set in a loop's turn, a macro, a block. The template's own are jinja.global. */
typedef struct jscope {
    struct jscope *up;
    binding *v;
    uint32_t n, cap;
    bool kept; /* a macro refers to it */
} jscope;

/* A loop finds its items one by one: a condition may depend on what the body has changed. */
struct jloop {
    jlist found;
    size_t cap;
    jv *from; /* where they are taken from */
    size_t n_from, at_from;
    const node *n;
    jscope *outer;
    size_t index;
};

struct jmacro {
    const node *n;
    jscope *scope;
};

static jv loop_attr(jinja *, struct jloop *, loop_part, str name);
static jv eval(jinja *, const node *);
static void exec(jinja *, const node *);

/* ---- names ---- */

static jscope *scope_new(jinja *j, jscope *up) {
    jscope *s = jinja_alloc(j, sizeof *s);
    if (s) *s = (jscope){.up = up};
    return s;
}

static bool scope_set(jinja *j, jscope *s, uint32_t symbol, jv v) {
    if (j->failed) return false;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->v[i].symbol == symbol) {
            s->v[i].value = v;
            return true;
        }
    if (s->n == s->cap && !arena_place(j->a, &s->v, s->n, &s->cap, sizeof *s->v, 4))
        return jinja_no_memory(j);
    s->v[s->n++] = (binding){symbol, v};
    return true;
}

static void set_name(jinja *j, uint32_t symbol, jv v) {
    if (j->scope)
        scope_set(j, j->scope, symbol, v);
    else
        j->global[symbol] = v;
}

static jv get_name(jinja *j, uint32_t symbol) {
    for (const jscope *s = j->scope; s; s = s->up)
        for (uint32_t i = 0; i < s->n; i++)
            if (s->v[i].symbol == symbol) return s->v[i].value;
    if (jv_given(j->global[symbol])) return j->global[symbol];
    return (jv){.kind = JV_UNDEF, .why = WHY_NAME, .name = &j->tree->symbol[symbol]};
}

static bool unpack(jinja *j, const node *target, jv v) {
    jv *items;
    size_t n;
    if (!jv_items(j, v, &items, &n)) return false;
    if (n < target->n_kids)
        return jinja_fail(j, "not enough values to unpack (expected %u, got %zu)",
                          target->n_kids, n);
    if (n > target->n_kids)
        return jinja_fail(j, "too many values to unpack (expected %u)", target->n_kids);
    for (size_t i = 0; i < n; i++) set_name(j, target->kid[i]->symbol, items[i]);
    return !j->failed;
}

static bool assign(jinja *j, const node *target, jv v) {
    if (j->failed) return false;
    if (target->kind == N_TUPLE) return unpack(j, target, v);
    if (target->kind == N_ATTR) {
        jv space = get_name(j, target->symbol);
        if (space.kind != JV_SPACE)
            return jinja_fail(j, "cannot assign attribute on non-namespace object");
        return jdict_set(j, &space.ns->vars, jv_str(j, target->name->text, false), v);
    }
    set_name(j, target->symbol, v);
    return !j->failed;
}

/* ---- calls ---- */

static bool eval_args(jinja *j, const arg_nodes *from, jargs *out) {
    *out = (jargs){.name = from->name, .n = from->n};
    if (from->n == 0) return !j->failed;
    out->v = jinja_alloc(j, from->n * sizeof(jv));
    if (!out->v) return false;
    for (uint32_t i = 0; i < from->n && !j->failed; i++) {
        out->v[i] = eval(j, from->v[i]);
        if (!from->name[i].ptr) out->n_pos++;
    }
    return !j->failed;
}

/* What a body prints, in the scope that is current. */
static jv capture(jinja *j, const node *body) {
    sbuf *before = j->out, own;
    sbuf_init(&own);
    j->out = &own;
    exec(j, body);
    j->out = before;
    return sbuf_value(j, &own);
}

static bool bind_rest(jinja *j, const node *n, const jargs *args, const bool *used) {
    const macro_def *m = n->macro;
    jv rest = jv_list(j, JV_TUPLE, args->n_pos > m->n ? args->n_pos - m->n : 0);
    jdict *named = jinja_alloc(j, sizeof *named);
    if (!named || rest.kind != JV_TUPLE) return false;
    *named = (jdict){0};
    for (size_t i = m->n; i < args->n_pos; i++) rest.l->v[i - m->n] = args->v[i];
    if (rest.l->n && !m->takes_varargs)
        return jinja_fail(j, "macro '" STR_FMT "' takes not more than %u argument(s)",
                          STR_ARG(n->text), m->n);
    for (size_t i = args->n_pos; i < args->n; i++) {
        if (used[i]) continue;
        if (!m->takes_kwargs)
            return jinja_fail(j, "macro '" STR_FMT "' takes no keyword argument '" STR_FMT "'",
                              STR_ARG(n->text), STR_ARG(args->name[i]));
        jdict_set(j, named, jv_str(j, args->name[i], false), args->v[i]);
    }
    if (m->takes_varargs) set_name(j, m->varargs, rest);
    if (m->takes_kwargs) set_name(j, m->kwargs, (jv){.kind = JV_DICT, .o = named});
    return !j->failed;
}

static bool bind_params(jinja *j, const node *n, const jargs *args) {
    const macro_def *m = n->macro;
    bool *used = jinja_alloc(j, args->n + 1);
    if (!used) return false;
    memset(used, 0, args->n + 1);
    for (uint32_t k = 0; k < m->n && !j->failed; k++) {
        str name = j->tree->symbol[m->param[k]];
        jv v = k < args->n_pos ? args->v[k] : jv_unset();
        for (size_t i = args->n_pos; i < args->n; i++)
            if (str_eq(args->name[i], name)) {
                if (jv_given(v))
                    return jinja_fail(
                        j, "macro '" STR_FMT "' got multiple values for '" STR_FMT "'",
                        STR_ARG(n->text), STR_ARG(name));
                v = args->v[i];
                used[i] = true;
            }
        if (!jv_given(v) && m->fallback[k]) v = eval(j, m->fallback[k]);
        if (!jv_given(v))
            v = jv_undef_named(j, "parameter '" STR_FMT "' was not provided", STR_ARG(name));
        set_name(j, m->param[k], v);
    }
    return !j->failed && bind_rest(j, n, args, used);
}

/* printed: what the body prints goes where the call stands, and nothing is returned. */
static jv call_macro(jinja *j, const struct jmacro *m, const jargs *args, bool printed) {
    jscope *before = j->scope;
    uint8_t flow = j->flow;
    jv v = jv_undef();
    if (j->macros == JINJA_MAX_MACROS) {
        jinja_limit(j, "macros call each other too deeply");
        return v;
    }
    j->macros++;
    j->scope = scope_new(j, m->scope);
    if (j->scope && bind_params(j, m->n, args)) {
        if (printed)
            exec(j, m->n->body);
        else
            v = capture(j, m->n->body);
    }
    j->scope = before;
    j->flow = flow;
    j->macros--;
    return v;
}

/* a.name(args), where name is a method of a's type. NULL: it is none; *self is a's value. */
static const jinja_function *method_called(jinja *j, const node *n, jv *self) {
    *self = eval(j, n->a);
    return j->failed ? NULL : jinja_method_find(*self, n->name);
}

/* n: N_ATTR; v: of what */
static jv attr_of(jinja *j, const node *n, jv v) {
    j->line = n->line;
    if (v.kind == JV_LOOP) return loop_attr(j, v.loop, (loop_part)n->part, n->name->text);
    return j->failed ? jv_undef() : jinja_attr(j, v, n->name);
}

static jv eval_call(jinja *j, const node *n) {
    jargs args;
    jv fn, self;
    if (n->a->kind == N_ATTR) {
        const jinja_function *method = method_called(j, n->a, &self);
        j->line = n->a->line;
        if (method && !eval_args(j, &n->args, &args)) return jv_undef();
        j->line = n->line;
        if (method) return jinja_call_function(j, method, self, &args);
        fn = attr_of(j, n->a, self);
    } else {
        fn = eval(j, n->a);
    }
    if (!eval_args(j, &n->args, &args)) return jv_undef();
    j->line = n->line;
    switch (fn.kind) {
    case JV_MACRO: return call_macro(j, fn.macro, &args, n->printed);
    case JV_METHOD: return jinja_call_function(j, fn.method->fn, fn.method->self, &args);
    case JV_GLOBAL: return jinja_call_function(j, &jinja_globals[fn.i], jv_undef(), &args);
    case JV_UNDEF: jinja_fail_undef(j, fn); break;
    default: jinja_fail(j, "'%s' object is not callable", jv_type(fn));
    }
    return jv_undef();
}

static jv filter_value(jinja *j, const node *n, jv v) {
    jargs args;
    if (!eval_args(j, &n->args, &args)) return jv_undef();
    j->line = n->line;
    return jinja_call_function(j, n->fn, v, &args);
}
/* The filters of a block; the first one has no operand of its own. */
static jv filter_block(jinja *j, const node *n, jv v) {
    if (n->a) v = filter_block(j, n->a, v);
    return j->failed ? jv_undef() : filter_value(j, n, v);
}

/* ---- expressions ---- */

static jv eval_list(jinja *j, const node *n) {
    jv l = jv_list(j, n->kind == N_LIST ? JV_LIST : JV_TUPLE, n->n_kids);
    for (uint32_t i = 0; i < n->n_kids && !j->failed; i++) l.l->v[i] = eval(j, n->kid[i]);
    return l;
}
static jv eval_dict(jinja *j, const node *n) {
    jdict *d = jinja_alloc(j, sizeof *d);
    if (!d) return jv_undef();
    *d = (jdict){0};
    for (uint32_t i = 0; i < n->n_kids && !j->failed; i += 2) {
        jv key = eval(j, n->kid[i]), value = eval(j, n->kid[i + 1]);
        jdict_set(j, d, key, value);
    }
    return (jv){.kind = JV_DICT, .o = d};
}
static jv eval_slice(jinja *j, const node *n) {
    jv of = eval(j, n->a), part[3];
    for (int i = 0; i < 3; i++) part[i] = n->kid[i] ? eval(j, n->kid[i]) : jv_none();
    j->line = n->line;
    return j->failed ? jv_undef() : jinja_slice(j, of, part[0], part[1], part[2]);
}
static bool is_concat(const node *n) {
    return n->kind == N_BINARY && n->op == OP_CONCAT;
}
/* a ~ b ~ c joins all at once: templates append to a long text so. */
enum { MOST_PARTS = 16 };
static size_t eval_parts(jinja *j, const node *n, jv part[MOST_PARTS]) {
    const node *last[MOST_PARTS]; /* right operands, the last one first */
    size_t n_last = 0, n_parts = 0;
    const node *first = n;
    for (; is_concat(first) && n_last < MOST_PARTS - 1; first = first->a)
        last[n_last++] = first->b;
    part[n_parts++] = eval(j, first);
    while (n_last && !j->failed) part[n_parts++] = eval(j, last[--n_last]);
    j->line = n->line;
    return n_parts;
}
static jv eval_concat(jinja *j, const node *n) {
    jv part[MOST_PARTS];
    size_t n_parts = eval_parts(j, n, part);
    return j->failed ? jv_undef() : jinja_join(j, part, n_parts);
}
static jv eval_binary(jinja *j, const node *n) {
    if (is_concat(n)) return eval_concat(j, n);
    jv a = eval(j, n->a);
    if (n->kind == N_AND) return !j->failed && jv_truth(a) ? eval(j, n->b) : a;
    if (n->kind == N_OR) return j->failed || jv_truth(a) ? a : eval(j, n->b);
    jv b = eval(j, n->b);
    j->line = n->line;
    return j->failed ? jv_undef() : jinja_binary(j, n->op, a, b);
}
static jv eval_choice(jinja *j, const node *n) {
    jv c = eval(j, n->b);
    if (j->failed) return jv_undef();
    if (jv_truth(c)) return eval(j, n->a);
    return n->c
               ? eval(j, n->c)
               : jv_undef_named(j,
                                "the inline if-expression on line %u evaluated to false and no "
                                "else section was defined.",
                                n->line);
}
static jv eval_sign(jinja *j, const node *n) {
    jv v = eval(j, n->a);
    if (j->failed) return v;
    if (n->kind == N_NOT) return jv_bool(!jv_truth(v));
    if (n->kind == N_NEG) return jinja_negate(j, v);
    return jinja_negate(j, jinja_negate(j, v));
}
static jv eval_filter(jinja *j, const node *n) {
    jv v = eval(j, n->a);
    return j->failed ? jv_undef() : filter_value(j, n, v);
}
static jv eval_attr(jinja *j, const node *n) {
    return attr_of(j, n, eval(j, n->a));
}
static jv eval_item(jinja *j, const node *n) {
    jv v = eval(j, n->a), key = eval(j, n->b);
    j->line = n->line;
    if (v.kind == JV_LOOP && key.kind == JV_STR) {
        str name = jstr_text(key.s);
        return loop_attr(j, v.loop, jinja_loop_part(name), name);
    }
    if (j->failed) return jv_undef();
    return n->name ? jinja_named_item(j, v, n->name) : jinja_item(j, v, key);
}

static bool step(jinja *j) {
    if (j->failed) return false;
    if (++j->steps > JINJA_MAX_STEPS) return jinja_limit(j, "it takes too many steps");
    if (j->depth >= MAX_DEPTH) return jinja_limit(j, "it is nested too deeply");
    return true;
}

static jv eval_node(jinja *j, const node *n) {
    switch (n->kind) {
    case N_LIST:
    case N_TUPLE: return eval_list(j, n);
    case N_DICT: return eval_dict(j, n);
    case N_ATTR: return eval_attr(j, n);
    case N_ITEM: return eval_item(j, n);
    case N_SLICE: return eval_slice(j, n);
    case N_CALL: return eval_call(j, n);
    case N_FILTER:
    case N_TEST: return eval_filter(j, n);
    case N_NOT:
    case N_NEG:
    case N_POS: return eval_sign(j, n);
    case N_IF_EXPR: return eval_choice(j, n);
    default: return eval_binary(j, n);
    }
}
static jv eval(jinja *j, const node *n) {
    if (n->kind == N_CONST) return n->value;
    if (!step(j)) return jv_undef();
    if (n->kind == N_NAME) return get_name(j, n->symbol);
    j->depth++;
    j->line = n->line;
    jv v = eval_node(j, n);
    j->depth--;
    return v;
}

/* ---- statements ---- */

/* Whether the loop has an item k. */
static bool loop_has(jinja *j, struct jloop *l, size_t k) {
    while (!j->failed && l->found.n <= k && l->at_from < l->n_from) {
        jv item = l->from[l->at_from++];
        jscope *before = j->scope;
        j->scope = scope_new(j, l->outer);
        bool takes = j->scope && assign(j, l->n->a, item) && jv_truth(eval(j, l->n->c));
        j->scope = before;
        if (takes) jlist_push(j, &l->found, item, &l->cap);
    }
    return !j->failed && k < l->found.n;
}

loop_part jinja_loop_part(str name) {
    static const char *const parts[] = {
        [LOOP_INDEX] = "index",   [LOOP_INDEX0] = "index0",     [LOOP_FIRST] = "first",
        [LOOP_LAST] = "last",     [LOOP_PREVITEM] = "previtem", [LOOP_NEXTITEM] = "nextitem",
        [LOOP_LENGTH] = "length", [LOOP_REVINDEX] = "revindex", [LOOP_REVINDEX0] = "revindex0"};
    for (int i = 1; i < (int)(sizeof parts / sizeof *parts); i++)
        if (str_eqz(name, parts[i])) return (loop_part)i;
    return LOOP_NONE;
}

static jv loop_attr(jinja *j, struct jloop *l, loop_part part, str name) {
    size_t i = l->index;
    switch (part) {
    case LOOP_INDEX: return jv_int((int64_t)i + 1);
    case LOOP_INDEX0: return jv_int((int64_t)i);
    case LOOP_FIRST: return jv_bool(i == 0);
    case LOOP_LAST: return jv_bool(!loop_has(j, l, i + 1));
    case LOOP_PREVITEM:
        return i ? l->found.v[i - 1] : jv_undef_named(j, "there is no previous item");
    case LOOP_NEXTITEM:
        return loop_has(j, l, i + 1) ? l->found.v[i + 1]
                                     : jv_undef_named(j, "there is no next item");
    case LOOP_NONE:
        return jv_undef_named(j, "'LoopContext' object has no attribute '" STR_FMT "'",
                              STR_ARG(name));
    default: break;
    }
    loop_has(j, l, SIZE_MAX - 1);
    int64_t length = (int64_t)l->found.n;
    return jv_int(part == LOOP_LENGTH ? length
                                      : length - (int64_t)i - (part == LOOP_REVINDEX0));
}

static bool loop_begin(jinja *j, struct jloop *l, const node *n) {
    jv of = eval(j, n->b);
    *l = (struct jloop){.n = n, .outer = j->scope};
    if (j->failed || !jv_items(j, of, &l->from, &l->n_from)) return false;
    if (!n->c) {
        l->found = (jlist){.v = l->from, .n = l->n_from};
        l->at_from = l->n_from;
    }
    return true;
}

static void exec_for(jinja *j, const node *n) {
    struct jloop *l = jinja_alloc(j, sizeof *l);
    if (!l || !loop_begin(j, l, n)) return;
    jscope *before = j->scope, *turn = NULL;
    for (; loop_has(j, l, l->index); l->index++) {
        if (!turn || turn->kept) turn = scope_new(j, before);
        if (!turn) break;
        turn->n = 0;
        j->scope = turn;
        bool ok = scope_set(j, turn, SYMBOL_LOOP, (jv){.kind = JV_LOOP, .loop = l}) &&
                  assign(j, n->a, l->found.v[l->index]);
        if (ok) exec(j, n->body);
        j->scope = before;
        uint8_t flow = j->flow;
        j->flow = FLOW_NEXT;
        if (flow == FLOW_BREAK || j->failed) return;
    }
    if (l->found.n || !n->otherwise || j->failed) return;
    j->scope = scope_new(j, before);
    exec(j, n->otherwise);
    j->scope = before;
}

static void exec_if(jinja *j, const node *n) {
    uint32_t i = 0;
    for (; i + 1 < n->n_kids; i += 2) {
        jv c = eval(j, n->kid[i]);
        if (j->failed) return;
        if (jv_truth(c)) {
            exec(j, n->kid[i + 1]);
            return;
        }
    }
    if (i < n->n_kids) exec(j, n->kid[i]);
}

/* Blocks that capture have a scope of their own, and generation too. */
static void exec_block(jinja *j, const node *n) {
    jscope *before = j->scope;
    jv v = jv_undef();
    j->scope = scope_new(j, before);
    if (j->scope && n->kind == N_SCOPE) exec(j, n->body);
    if (j->scope && n->kind != N_SCOPE) v = capture(j, n->body);
    j->scope = before;
    if (n->kind == N_SET_BLOCK && !j->failed) {
        if (n->b) v = filter_block(j, n->b, v);
        assign(j, n->a, v);
    }
    if (n->kind == N_FILTER_BLOCK && !j->failed) {
        v = filter_block(j, n->a, v);
        if (!j->failed) jv_print(j, j->out, v);
    }
}

static void exec_macro(jinja *j, const node *n) {
    struct jmacro *m = jinja_alloc(j, sizeof *m);
    if (!m) return;
    *m = (struct jmacro){n, j->scope};
    for (jscope *s = j->scope; s && !s->kept; s = s->up) s->kept = true;
    set_name(j, n->symbol, (jv){.kind = JV_MACRO, .macro = m});
}

static bool is_plain_string(jv v) {
    return v.kind == JV_STR && !v.s->markup;
}
/* a + b and a ~ b ~ c: strings are printed one after the other and not joined before. */
static void print_joined(jinja *j, const node *n) {
    jv part[MOST_PARTS];
    size_t n_parts = 2;
    if (is_concat(n)) {
        n_parts = eval_parts(j, n, part);
    } else {
        part[0] = eval(j, n->a);
        part[1] = eval(j, n->b);
        j->line = n->line;
        if (!j->failed && !(is_plain_string(part[0]) && is_plain_string(part[1]))) {
            part[0] = jinja_binary(j, OP_ADD, part[0], part[1]);
            n_parts = 1;
        }
    }
    for (size_t i = 0; i < n_parts && !j->failed; i++) jv_print(j, j->out, part[i]);
}
static void exec_print(jinja *j, const node *n) {
    const node *what = n->a;
    if (what->kind == N_BINARY && (what->op == OP_ADD || what->op == OP_CONCAT)) {
        print_joined(j, what);
        return;
    }
    jv v = eval(j, what);
    j->line = n->line;
    if (!j->failed) jv_print(j, j->out, v);
}
static void exec_set(jinja *j, const node *n) {
    jv v = eval(j, n->b);
    j->line = n->line;
    if (!j->failed) assign(j, n->a, v);
}

static void exec_node(jinja *j, const node *n) {
    switch (n->kind) {
    case N_TEXT: sbuf_str(j, j->out, n->value.s); break;
    case N_PRINT: exec_print(j, n); break;
    case N_IF: exec_if(j, n); break;
    case N_FOR: exec_for(j, n); break;
    case N_SET: exec_set(j, n); break;
    case N_MACRO: exec_macro(j, n); break;
    case N_BREAK: j->flow = FLOW_BREAK; break;
    case N_CONTINUE: j->flow = FLOW_CONTINUE; break;
    case N_BODY:
        for (uint32_t i = 0; i < n->n_kids && !j->failed && j->flow == FLOW_NEXT; i++)
            exec(j, n->kid[i]);
        break;
    default: exec_block(j, n); break;
    }
}
static void exec(jinja *j, const node *n) {
    while (n->kind == N_BODY && n->n_kids == 1) n = n->kid[0];
    if (!step(j)) return;
    j->depth++;
    j->line = n->line;
    exec_node(j, n);
    j->depth--;
}

/* ---- the rendering ---- */

static bool set_globals(jinja *j, const jinja_var *vars, size_t n_vars) {
    uint32_t n = j->tree->n_symbols;
    j->global = jinja_alloc(j, (n + 1) * sizeof *j->global);
    if (!j->global) return false;
    for (uint32_t i = 0; i < n && !j->failed; i++) {
        const str name = j->tree->symbol[i];
        const uint8_t g = j->tree->global[i];
        j->global[i] = g ? (jv){.kind = JV_GLOBAL, .i = g - 1} : jv_unset();
        for (size_t k = n_vars; k-- > 0;)
            if (str_eq(name, vars[k].name)) {
                j->global[i] = jv_of_json(j, vars[k].value, !vars[k].trusted, 0);
                break;
            }
    }
    return !j->failed;
}

status jinja_render(const jinja_tree *tree, const jinja_var *vars, size_t n_vars,
                    const jinja_settings *set, arena *a, jinja_text *out, err *e) {
    sbuf text;
    jinja j = {.a = a, .e = e, .set = set, .tree = tree, .out = &text, .line = 1};
    sbuf_init(&text);
    text.what = "the prompt is too long";
    if (set->max_bytes < text.limit) text.limit = set->max_bytes;
    if (set_globals(&j, vars, n_vars)) exec(&j, tree->root);
    if (j.failed) return e->code;
    *out = (jinja_text){{text.p ? text.p : "", text.n}, text.runs, text.n_runs};
    return OK;
}
