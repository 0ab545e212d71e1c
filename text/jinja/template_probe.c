/* Probes of chat templates: by the tree, by words of the source, and by renderings. Owns
 * nothing; any thread. */
#include "text/jinja/template_probe.h"

#include <stdio.h>

#include "text/jinja/jinja_tree.h"

/* ---- content in parts ---- */

/* Which names hold the content of a message: assigned from it, or parameters of macros that are
 * called with it. By name alone, without scopes. */
typedef struct content_names {
    bool *holds;            /* by symbol */
    const node **of_symbol; /* the macro with that name, or NULL */
    bool changed, looped;
} content_names;

static bool is_text(const node *n, const char *z) {
    return n->kind == N_CONST && n->value.kind == JV_STR && str_eqz(jstr_text(n->value.s), z);
}

/* message.content, message["content"], a name that holds it; filters pass it on. */
static bool is_content(const content_names *c, const node *n) {
    while (n && n->kind == N_FILTER) n = n->a;
    if (!n) return false;
    if (n->kind == N_ATTR) return str_eqz(n->name->text, "content");
    if (n->kind == N_ITEM) return is_text(n->b, "content");
    return n->kind == N_NAME && c->holds[n->symbol];
}

static void hold(content_names *c, uint32_t symbol) {
    c->changed |= !c->holds[symbol];
    c->holds[symbol] = true;
}

static void look_at_call(content_names *c, const node *n) {
    if (n->a->kind != N_NAME || !c->of_symbol[n->a->symbol]) return;
    const macro_def *m = c->of_symbol[n->a->symbol]->macro;
    for (uint32_t i = 0; i < n->args.n; i++) {
        if (!is_content(c, n->args.v[i])) continue;
        if (!n->args.name[i].ptr && i < m->n) hold(c, m->param[i]);
    }
}

static void look(content_names *c, const node *n) {
    if (!n) return;
    if (n->kind == N_SET && n->a->kind == N_NAME && is_content(c, n->b)) hold(c, n->a->symbol);
    if (n->kind == N_FOR && is_content(c, n->b)) c->looped = true;
    if (n->kind == N_MACRO && !c->of_symbol[n->symbol]) {
        c->of_symbol[n->symbol] = n;
        c->changed = true;
    }
    if (n->kind == N_CALL) look_at_call(c, n);
    const node *const parts[] = {n->a, n->b, n->c, n->body, n->otherwise};
    for (int i = 0; i < 5; i++) look(c, parts[i]);
    for (uint32_t i = 0; i < n->n_kids; i++) look(c, n->kid[i]);
    for (uint32_t i = 0; i < n->args.n; i++) look(c, n->args.v[i]);
}

static bool loops_over_content(const jinja_tree *t, arena *a) {
    content_names c = {.holds = arena_zalloc(a, t->n_symbols * sizeof *c.holds),
                       .of_symbol = arena_zalloc(a, t->n_symbols * sizeof *c.of_symbol)};
    if (!c.holds || !c.of_symbol) return false;
    do {
        c.changed = false;
        look(&c, t->root);
    } while (c.changed && !c.looped);
    return c.looped;
}

/* ---- words ---- */

static bool has(str s, const char *word) {
    return str_find(s, str_of(word), 0) != SIZE_MAX;
}

static bool reads_name(const jinja_tree *t, const char *name) {
    for (uint32_t i = 0; i < t->n_symbols; i++)
        if (str_eqz(t->symbol[i], name)) return true;
    return false;
}

static bool reads_reasoning(str source) {
    return has(source, "reasoning_content") || has(source, "message.reasoning") ||
           has(source, "'reasoning'") || has(source, "\"reasoning\"");
}

/* ---- content that is null ---- */

static bool render_null(const chat_template *t, const char *format, const char *content,
                        arena *a, str *out) {
    char text[400];
    template_args args = {.add_generation_prompt = true, .now = {.tm_year = 126, .tm_mday = 1}};
    jinja_text prompt;
    err ignored;
    snprintf(text, sizeof text, format, content);
    if (json_in_parse(&args.messages, a, str_of(text), &ignored) != OK) return false;
    if (template_render(t, &args, a, &prompt, &ignored) != OK) return false;
    *out = prompt.text;
    return true;
}

/* Whether None is shown as "" is, so that a null may be passed on as it is. */
static bool shows_none_as_empty(const chat_template *t, arena *a) {
    static const char called[] =
        "[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":%s,"
        "\"tool_calls\":[{\"id\":\"call00001\",\"type\":\"function\",\"function\":"
        "{\"name\":\"f\",\"arguments\":{}}}]},{\"role\":\"tool\",\"content\":\"r\","
        "\"name\":\"f\",\"tool_call_id\":\"call00001\"}]";
    static const char plain[] =
        "[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":%s}]";
    static const char *const talks[] = {called, plain};
    bool any = false;
    for (int i = 0; i < 2; i++) {
        str none = {0}, empty = {0};
        bool renders = render_null(t, talks[i], "null", a, &none);
        if (!render_null(t, talks[i], "\"\"", a, &empty)) continue;
        if (!renders || !str_eq(none, empty)) return false;
        any = true;
    }
    return any;
}

void template_probe(chat_template *t, const chunks *scratch) {
    enum { PROBE_BYTES = 16 << 20 };
    arena a;
    arena_init(&a, scratch, PROBE_BYTES);
    t->takes_parts = loops_over_content(t->tree, &a);
    t->takes_tools = reads_name(t->tree, "tools");
    t->takes_calls = has(t->source, "tool_calls");
    t->takes_developer = has(t->source, "developer");
    t->takes_reasoning = reads_reasoning(t->source);
    t->takes_none = shows_none_as_empty(t, &a);
    arena_clear(&a);
}
