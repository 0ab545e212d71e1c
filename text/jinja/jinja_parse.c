/* Statements of a template: tokens to a tree. Owns nothing; any thread. */
#include "text/jinja/jinja_parse_in.h"

#include "base/utf8.h"

/* ---- statements ---- */

typedef struct end_words {
    const char *word[3];
} end_words;

static bool at_end(const parser *p, const end_words *end) {
    for (int i = 0; end && i < 3 && end->word[i]; i++)
        if (at_name(p, end->word[i])) return true;
    return false;
}

static node *parse_statement(parser *);

/* Up to one of the words, which is the next token then; end NULL: the whole template. */
static node *parse_body(parser *p, const end_words *end) {
    node *body = parse_node(p, N_BODY), *n;
    node_list l = {0};
    if (!body || !parse_enter(p)) return NULL;
    while (p->t->kind != T_EOF) {
        const token *t = p->t++;
        if (t->kind == T_DATA) {
            jstr *s = parse_alloc(p, sizeof *s);
            n = s ? parse_node(p, N_TEXT) : NULL;
            if (!n) return NULL;
            *s = (jstr){.p = t->text.ptr, .n = t->text.len, .n_chars = utf8_chars(t->text)};
            n->value = (jv){.kind = JV_STR, .s = s};
            parse_seal(p, n);
        } else if (t->kind == T_VAR_BEGIN) {
            n = parse_node(p, N_PRINT);
            if (!n || !(n->a = parse_tuple(p, true, NULL)) ||
                !parse_expect(p, T_VAR_END, "\"}}\"") || !parse_seal(p, n))
                return NULL;
            n->a->printed = n->a->kind == N_CALL;
        } else {
            if (at_end(p, end)) goto done;
            n = parse_statement(p);
            if (n && !parse_expect(p, T_BLOCK_END, "\"%}\"")) return NULL;
        }
        if (!parse_push(p, &l, n)) return NULL;
    }
    if (end) return parse_fail(p, p->t->line, "{%% %s %%} is missing", end->word[0]);
done:
    p->depth--;
    body->kid = l.v;
    body->n_kids = l.n;
    return parse_seal(p, body);
}

/* A body after the tag that opens it, its end word included. */
static node *parse_block(parser *p, const end_words *end) {
    if (!parse_expect(p, T_BLOCK_END, "\"%}\"")) return NULL;
    return parse_body(p, end);
}

static node *parse_if(parser *p) {
    static const end_words ends = {{"endif", "else", "elif"}}, last = {{"endif"}};
    node *n = parse_node(p, N_IF);
    node_list l = {0};
    if (!n) return NULL;
    for (;;) {
        p->t++;
        if (!parse_push(p, &l, parse_tuple(p, false, NULL)) ||
            !parse_push(p, &l, parse_block(p, &ends)))
            return NULL;
        if (!at_name(p, "elif")) break;
    }
    if (at_name(p, "else")) {
        p->t++;
        if (!parse_push(p, &l, parse_block(p, &last))) return NULL;
    }
    p->t++;
    n->kid = l.v;
    n->n_kids = l.n;
    return parse_seal(p, n);
}

static node *parse_for(parser *p) {
    static const end_words ends = {{"endfor", "else"}}, last = {{"endfor"}};
    node *n = parse_node(p, N_FOR);
    p->t++;
    if (!n || !(n->a = parse_target(p, false, "in"))) return NULL;
    if (!at_name(p, "in")) return parse_fail(p, p->t->line, "\"in\" is missing");
    p->t++;
    if (!(n->b = parse_tuple(p, false, "recursive"))) return NULL;
    if (at_name(p, "if")) {
        p->t++;
        if (!(n->c = parse_expression(p))) return NULL;
    }
    if (at_name(p, "recursive"))
        return parse_fail(p, p->t->line, "recursive loops are not supported");
    p->loops++;
    n->body = parse_block(p, &ends);
    p->loops--;
    if (!n->body) return NULL;
    if (at_name(p, "else")) {
        p->t++;
        if (!(n->otherwise = parse_block(p, &last))) return NULL;
    }
    p->t++;
    return parse_seal(p, n);
}

static node *parse_set(parser *p) {
    static const end_words end = {{"endset"}};
    node *n = parse_node(p, N_SET);
    p->t++;
    if (!n || !(n->a = parse_target(p, true, NULL))) return NULL;
    if (at_op(p, "=")) {
        p->t++;
        return (n->b = parse_tuple(p, true, NULL)) ? parse_seal(p, n) : NULL;
    }
    n->kind = N_SET_BLOCK;
    if (at_op(p, "|") && !(n->b = parse_filters(p, NULL, false))) return NULL;
    if (!(n->body = parse_block(p, &end))) return NULL;
    p->t++;
    return parse_seal(p, n);
}

static bool parse_params(parser *p, macro_def *m) {
    uint32_t cap = 0;
    if (!parse_expect_op(p, "(")) return false;
    while (!at_op(p, ")")) {
        if (m->n && !parse_expect_op(p, ",")) return false;
        if (m->n == cap) {
            uint32_t more = cap ? cap * 2 : 4;
            m->param =
                arena_grow(p->a, m->param, cap * sizeof *m->param, more * sizeof *m->param);
            m->fallback = arena_grow(p->a, m->fallback, cap * sizeof *m->fallback,
                                     more * sizeof *m->fallback);
            if (!m->param || !m->fallback) return parse_no_memory(p);
            cap = more;
        }
        if (p->t->kind != T_NAME) return parse_fail(p, p->t->line, "a parameter is missing");
        if (!parse_symbol(p, p->t->text, &m->param[m->n])) return false;
        p->t++;
        m->fallback[m->n] = NULL;
        if (at_op(p, "=")) {
            p->t++;
            if (!(m->fallback[m->n] = parse_expression(p))) return false;
        } else if (m->n && m->fallback[m->n - 1]) {
            return parse_fail(p, p->t->line, "a parameter without default follows one with it");
        }
        m->n++;
    }
    p->t++;
    return true;
}

static node *parse_macro(parser *p) {
    static const end_words end = {{"endmacro"}};
    node *n = parse_node(p, N_MACRO);
    macro_def *m = parse_alloc(p, sizeof *m), *outer = p->macro;
    int loops = p->loops;
    if (!n || !m) return NULL;
    n->macro = m;
    p->t++;
    if (p->t->kind != T_NAME)
        return parse_fail(p, p->t->line, "the name of a macro is missing");
    n->text = p->t->text;
    if (!parse_symbol(p, n->text, &n->symbol) ||
        !parse_symbol(p, STR("varargs"), &m->varargs) ||
        !parse_symbol(p, STR("kwargs"), &m->kwargs))
        return NULL;
    p->t++;
    p->macro = m;
    p->loops = 0;
    if (!parse_params(p, m) || !(n->body = parse_block(p, &end))) return NULL;
    p->macro = outer;
    p->loops = loops;
    p->t++;
    int depth = 0;
    for (uint32_t i = 0; i < m->n; i++) parse_deepen(&depth, m->fallback[i]);
    return depth < JINJA_MAX_DEPTH ? parse_seal(p, n) : NULL;
}

static node *parse_generation(parser *p) {
    static const end_words end = {{"endgeneration"}};
    node *n = parse_node(p, N_SCOPE);
    int loops = p->loops;
    p->t++;
    p->loops = 0;
    if (!n || !(n->body = parse_block(p, &end))) return NULL;
    p->loops = loops;
    p->t++;
    return parse_seal(p, n);
}

static node *parse_filter_block(parser *p) {
    static const end_words end = {{"endfilter"}};
    node *n = parse_node(p, N_FILTER_BLOCK);
    p->t++;
    if (!n || !(n->a = parse_filters(p, NULL, true)) || !(n->body = parse_block(p, &end)))
        return NULL;
    p->t++;
    return parse_seal(p, n);
}

static node *parse_jump(parser *p) {
    node *n = parse_node(p, at_name(p, "break") ? N_BREAK : N_CONTINUE);
    if (p->loops == 0)
        return parse_fail(p, p->t->line, "\"" STR_FMT "\" is outside a loop",
                          STR_ARG(p->t->text));
    p->t++;
    return n ? parse_seal(p, n) : NULL;
}

static node *parse_statement(parser *p) {
    static const struct {
        const char *word;
        node *(*parse)(parser *);
    } known[] = {{"if", parse_if},
                 {"for", parse_for},
                 {"set", parse_set},
                 {"macro", parse_macro},
                 {"break", parse_jump},
                 {"continue", parse_jump},
                 {"generation", parse_generation},
                 {"filter", parse_filter_block}};
    const token *t = p->t;
    if (t->kind != T_NAME) return parse_fail(p, t->line, "the name of a statement is missing");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (str_eqz(t->text, known[i].word)) return known[i].parse(p);
    return parse_fail(p, t->line, "the statement \"" STR_FMT "\" is not supported",
                      STR_ARG(t->text));
}

/* ---- the template ---- */

/* "\r\n" and "\r" become "\n"; one at the end is dropped. */
static bool normalise(parser *p, str *source) {
    if (source->len && memchr(source->ptr, '\r', source->len)) {
        char *out = parse_alloc(p, source->len);
        size_t n = 0;
        if (!out) return false;
        for (size_t i = 0; i < source->len; i++) {
            char c = source->ptr[i];
            if (c == '\n' && i && source->ptr[i - 1] == '\r') continue;
            out[n++] = c == '\r' ? '\n' : c;
        }
        *source = (str){out, n};
    }
    if (source->len && source->ptr[source->len - 1] == '\n') source->len--;
    return true;
}

static const uint8_t *global_of_symbols(parser *p) {
    uint8_t *global = parse_alloc(p, p->n_symbols);
    for (uint32_t i = 0; global && i < p->n_symbols; i++)
        for (uint32_t g = 0; g < jinja_n_globals; g++)
            if (str_eqz(p->symbol[i], jinja_globals[g].name)) global[i] = (uint8_t)(g + 1);
    return global;
}

status jinja_parse(const jinja_tree **out, arena *a, str source, err *e) {
    static const token nowhere = {.line = 1};
    parser p = {.a = a, .e = e, .t = &nowhere};
    token_list tokens = {0};
    if (source.len > JINJA_MAX_SOURCE) {
        parse_fail(&p, 1, "it is larger than %d KiB", JINJA_MAX_SOURCE / 1024);
        return e->code;
    }
    if (!utf8_valid(source)) {
        parse_fail(&p, 1, "it is not valid UTF-8");
        return e->code;
    }
    if (!normalise(&p, &source)) return e->code;
    if (jinja_lex(&tokens, a, source, e) != OK) return e->code;
    p.t = tokens.v;
    uint32_t loop; /* SYMBOL_LOOP: the first */
    jinja_tree *tree = parse_alloc(&p, sizeof *tree);
    if (!tree || !parse_symbol(&p, STR("loop"), &loop) || !(tree->root = parse_body(&p, NULL)))
        return e->code;
    if (!(tree->global = global_of_symbols(&p))) return e->code;
    tree->symbol = p.symbol;
    tree->n_symbols = p.n_symbols;
    *out = tree;
    return OK;
}
