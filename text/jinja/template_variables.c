/* The variables that a template reads and that neither it nor the server sets. By name alone,
 * without scopes. Owns nothing; any thread. */
#include "text/jinja/jinja_tree.h"
#include "text/jinja/template_probe.h"

typedef struct uses {
    bool *set, *asked; /* by symbol: assigned by the template; looked for by `is defined` */
    bool *read;
} uses;

static void set_target(uses *u, const node *n) {
    if (n->kind == N_NAME) u->set[n->symbol] = true;
    for (uint32_t i = 0; i < n->n_kids; i++) set_target(u, n->kid[i]);
}

static bool asks(const node *n) {
    return n->kind == N_TEST && n->a->kind == N_NAME &&
           (str_eqz(str_of(n->fn->name), "defined") ||
            str_eqz(str_of(n->fn->name), "undefined"));
}

static void look(uses *u, const node *n) {
    if (!n) return;
    if (asks(n)) u->asked[n->a->symbol] = true;
    if (n->kind == N_NAME) u->read[n->symbol] = true;
    if (n->kind == N_SET || n->kind == N_SET_BLOCK || n->kind == N_FOR) set_target(u, n->a);
    if (n->kind == N_MACRO) {
        u->set[n->symbol] = true;
        for (uint32_t i = 0; i < n->macro->n; i++) {
            u->set[n->macro->param[i]] = true;
            look(u, n->macro->fallback[i]);
        }
    }
    const node *const parts[] = {n->a, n->b, n->c, n->body, n->otherwise};
    for (int i = 0; i < 5; i++) look(u, parts[i]);
    for (uint32_t i = 0; i < n->n_kids; i++) look(u, n->kid[i]);
    for (uint32_t i = 0; i < n->args.n; i++) look(u, n->args.v[i]);
}

/* What the server, or the language, sets. */
static bool is_given(str name) {
    static const char *const given[] = {
        "messages", "tools", "documents", "add_generation_prompt", "loop", "varargs", "kwargs"};
    for (uint32_t i = 0; i < jinja_n_globals; i++)
        if (str_eqz(name, jinja_globals[i].name)) return true;
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        if (str_eqz(name, given[i])) return true;
    for (size_t i = 0; i < TEMPLATE_TOKENS; i++)
        if (str_eqz(name, template_token_names[i])) return true;
    return false;
}

bool template_variables(const chat_template *t, arena *a, const str **out, size_t *n) {
    const jinja_tree *tree = t->tree;
    bool *flags = arena_zalloc(a, (size_t)tree->n_symbols * 3 + 1);
    str *found = arena_alloc(a, tree->n_symbols * sizeof *found + 1);
    if (!flags || !found) return false;
    uses u = {flags, flags + tree->n_symbols, flags + 2 * (size_t)tree->n_symbols};
    look(&u, tree->root);
    *n = 0;
    for (uint32_t i = 0; i < tree->n_symbols; i++)
        if (u.read[i] && (u.asked[i] || !u.set[i]) && !is_given(tree->symbol[i]))
            found[(*n)++] = tree->symbol[i];
    *out = found;
    return true;
}
