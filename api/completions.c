/* POST /v1/completions: the prompt in its four forms. Loop thread. */
#include "api/writer.h"
#include "base/log.h"

static status wrong(const char *field, err *e, const json_t *got) {
    return json_in_wrong(
        e, field, "a string, a list of strings, a list of token ids, or a list of such lists",
        got);
}

static status read_ids(const answer *a, const json_t *list, const char *field, prompt_in *p,
                       err *e) {
    size_t n = json_array_size(list);
    uint32_t n_vocab = tokenizer_n_vocab(a->rq->served->port->tok);
    if (!vec_i32_reserve(&p->ids, n + 1)) return err_set(e, ERR_NO_MEMORY, "no memory");
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id)) return wrong(field, e, id);
        json_int_t v = json_integer_value(id);
        if (v < 0 || v >= n_vocab) {
            err_set(e, ERR_INVALID, "token id %lld is not in the vocabulary of %u",
                    (long long)v, n_vocab);
            return err_field(e, "%s", field);
        }
        vec_i32_push(&p->ids, (int32_t)v);
    }
    return OK;
}

static status read_prompt(const answer *a, const json_t *v, const char *field, prompt_in *p,
                          err *e) {
    if (json_is_string(v)) {
        p->text = json_in_text(v);
        p->is_text = true;
        return OK;
    }
    return json_is_array(v) ? read_ids(a, v, field, p, e) : wrong(field, e, v);
}

/* The tokenizer puts a BOS before a text, so a template's own BOS would be a second one. */
static void warn_of_bos(const answer *a) {
    static bool warned;
    const tokenizer *tok = a->rq->served->port->tok;
    if (warned || !a->p.add_special_tokens || !tokenizer_adds_bos(tok)) return;
    str bos = tokenizer_piece(tok, tokenizer_bos(tok), true);
    for (uint32_t i = 0; i < a->n_prompts && !warned; i++)
        warned = a->prompts[i].is_text && bos.len && str_starts(a->prompts[i].text, bos);
    if (warned)
        log_warn("a prompt begins with " STR_FMT ", which is put before it anyway: one is kept "
                 "(said once)",
                 STR_ARG(bos));
}

bool completions_prompts(answer *a, const json_t *body, const char *field) {
    err e;
    const json_t *v = json_object_get(body, field);
    const json_t *first = json_array_get(v, 0);
    /* A list of strings or of lists is several prompts; a list of ids is one. */
    bool several = first && !json_is_integer(first);
    if (!v || json_is_null(v) || (json_is_array(v) && !first)) {
        err_set(&e, ERR_INVALID, "%s is %s", field,
                v && !json_is_null(v) ? "empty" : "missing");
        err_field(&e, "%s", field);
        app_refuse(a->app, a->rq, &e);
        return false;
    }
    if (!answer_prompts(a, several ? json_array_size(v) : 1)) return false;
    for (uint32_t i = 0; i < a->n_prompts; i++) {
        if (read_prompt(a, several ? json_array_get(v, i) : v, field, &a->prompts[i], &e) == OK)
            continue;
        app_refuse(a->app, a->rq, &e);
        return false;
    }
    warn_of_bos(a);
    a->encode_flags =
        TOK_PARSE_SPECIAL | (a->p.add_special_tokens ? (unsigned)TOK_ADD_SPECIAL : 0);
    return true;
}

void completions_start(app *app, http_request *rq, const json_t *body, const writer *w) {
    answer *a = answer_new(app, rq, body, w);
    if (a && completions_prompts(a, body, "prompt")) answer_start(a);
}

void completions_run(app *app, http_request *rq) {
    const json_t *body = app_body(app, rq);
    if (body) completions_start(app, rq, body, &writer_completions);
}
