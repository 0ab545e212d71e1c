/* POST /completion of llama.cpp's server as a body of completions, and POST /infill as a prompt
 * with the model's tokens for filling in the middle. Loop thread. */
#include <stdlib.h>
#include <string.h>

#include "api/convert.h"
#include "api/native.h"

static const char *const own[] = {
    "prompt",   "n_predict",      "max_tokens", "max_completion_tokens", "n_probs",
    "logprobs", "return_tokens",  "logit_bias", "input_prefix",          "input_suffix",
    "echo",     "stream_options", "best_of",    "prompt_logprobs",       NULL};

/* An object as the list of pairs that it is short for: a text may be several tokens there. */
static void convert_bias(conversion *c) {
    const json_t *v = json_object_get(c->in, "logit_bias");
    json_t *bias, *list;
    const char *key;
    if (!json_is_object(v)) {
        if (!json_is_array(v) || json_array_size(v)) convert_put(c->out, "logit_bias", v);
        return;
    }
    if (!json_object_size(v)) return;
    list = json_array();
    json_object_foreach((json_t *)(uintptr_t)v, key, bias) {
        const bool id = key[0] && strlen(key) < 10 && strspn(key, "0123456789") == strlen(key);
        json_t *pair = json_array();
        json_array_append_new(pair, id ? json_integer(atoi(key)) : json_string(key));
        json_array_append(pair, bias);
        json_array_append_new(list, pair);
    }
    json_object_set_new(c->out, "logit_bias", list);
}

/* -1, and nothing: as long as the context allows. 0: the prompt alone is computed. */
static status convert_length(conversion *c, err *e) {
    int64_t n = -1;
    status s = json_in_int(c->in, "max_tokens", -1, INT32_MAX, &n, e);
    if (s == OK) s = json_in_int(c->in, "n_predict", -1, INT32_MAX, &n, e);
    if (s != OK || n < 0) return s;
    json_object_set_new(c->out, "max_tokens", json_integer(n));
    if (n == 0) {
        json_object_set_new(c->out, "prompt_logprobs", json_integer(0));
        json_object_set_new(c->out, "stream", json_false());
    }
    return OK;
}

status convert_native(conversion *c, err *e) {
    int64_t n_probs = 0;
    bool tokens = false, stream = false;
    convert_rest(c, own);
    convert_put(c->out, "prompt", json_object_get(c->in, "prompt"));
    status s = convert_length(c, e);
    convert_bias(c);
    if (s == OK) s = json_in_int(c->in, "n_probs", 0, SAMPLING_MAX_LOGPROBS, &n_probs, e);
    if (s == OK) s = json_in_bool(c->in, "return_tokens", &tokens, e);
    if (s == OK) s = json_in_bool(c->in, "stream", &stream, e);
    if (n_probs > 0) json_object_set_new(c->out, "logprobs", json_integer(n_probs));
    if (tokens || stream) json_object_set_new(c->out, "return_token_ids", json_true());
    return s;
}

void native_completion_run(app *app, http_request *rq) {
    convert_run(app, rq, convert_native, &writer_native);
}

/* ---- infill ---- */

/* Before the text, before what follows it, and before what is to be written. */
static const char *const fim[][3] = {
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
    {"<fim-prefix>", "<fim-suffix>", "<fim-middle>"},
    {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"},
    {"<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"},
    {"▁<PRE>", "▁<SUF>", "▁<MID>"},
    {"<PRE>", "<SUF>", "<MID>"},
};

static bool is_token(const tokenizer *tok, const char *text, arena *mem) {
    vec_i32 ids;
    err e;
    vec_i32_init(&ids, mem);
    return tokenizer_encode(tok, str_of(text), TOK_PARSE_SPECIAL, &ids, &e) == OK &&
           ids.n == 1 && tokenizer_is_special(tok, ids.v[0]);
}

static const char *const *find_fim(const tokenizer *tok, arena *mem) {
    for (size_t i = 0; i < sizeof fim / sizeof *fim; i++) {
        bool all = true;
        for (int k = 0; k < 3; k++) all = all && is_token(tok, fim[i][k], mem);
        if (all) return fim[i];
    }
    return NULL;
}

/* The three texts between the model's tokens; what the client wrote stays text. */
static status infill_prompt(const port *port, const json_t *body, arena *mem, jinja_text *out,
                            err *e) {
    static const char *const field[] = {"input_prefix", "input_suffix", "prompt"};
    const char *const *mark = find_fim(port->tok, mem);
    enum { PARTS = 6 }; /* a mark and a text, three times */
    jinja_run *run = arena_alloc(mem, PARTS * sizeof *run);
    buf b;
    buf_init(&b, mem);
    if (!run) return err_set(e, ERR_NO_MEMORY, "no memory for the prompt");
    if (!mark) {
        err_set(e, ERR_UNSUPPORTED, "the model has no tokens for filling in the middle");
        return err_hint(e, "/infill needs a code model that was trained for it");
    }
    for (int i = 0; i < 3; i++) {
        str text = STR("");
        status s = json_in_str(body, field[i], &text, e);
        if (s != OK) return s;
        if (i < 2 && !text.ptr) text = STR("");
        buf_add(&b, str_of(mark[i]));
        run[2 * i] = (jinja_run){b.len, false};
        buf_add(&b, text);
        run[2 * i + 1] = (jinja_run){b.len, true};
    }
    *out = (jinja_text){buf_str(&b), run, PARTS};
    return b.failed ? err_set(e, ERR_NO_MEMORY, "no memory for the prompt") : OK;
}

static void infill_start(app *app, http_request *rq, const json_t *body, const writer *w) {
    jinja_text text;
    err e;
    if (infill_prompt(rq->served->port, rq->json, &rq->mem, &text, &e) != OK) {
        app_refuse(app, rq, &e);
        return;
    }
    answer *a = answer_new(app, rq, body, w);
    if (!a || !answer_prompts(a, 1)) return;
    a->prompts[0].text = text.text;
    a->prompts[0].is_text = true;
    a->prompts[0].marked = text;
    a->prompts[0].is_marked = true;
    a->encode_flags = TOK_ADD_SPECIAL;
    answer_start(a);
}

void infill_run(app *app, http_request *rq) {
    convert_start(app, rq, convert_native, infill_start, &writer_native);
}
