/* Asks the server about itself. Owns nothing; one thread, while no load runs. */
#include "load/probe.h"

#include <string.h>

#include "json/in.h"
#include "json/out.h"

/* Asks, and parses what a 200 has as JSON into mem; *o is NULL for any other status. */
static status ask(load_client *c, arena *mem, const char *path, const buf *body, int *http,
                  const json_t **o, err *e) {
    buf out;
    buf_init(&out, mem);
    *o = NULL;
    status s = load_client_ask(c, path, body, http, &out, e);
    if (s != OK || *http != 200) return s;
    if (json_in_parse(o, mem, buf_str(&out), e) == OK) return OK;
    *o = NULL;
    return err_set(e, ERR_UNAVAILABLE, "the answer of %s is not JSON", path);
}

static status first_model(const json_t *o, int http, char **model, err *e) {
    const json_t *id = json_object_get(json_array_get(json_object_get(o, "data"), 0), "id");
    if (!json_is_string(id)) {
        err_set(e, ERR_NOT_FOUND, "/v1/models names no model (status %d)", http);
        return err_hint(e, "--model NAME");
    }
    *model = strdup(json_string_value(id));
    return *model ? OK : err_set(e, ERR_NO_MEMORY, "no memory for the model's name");
}

status load_probe_model(load_client *c, const char *want, char **model, err *e) {
    arena mem;
    const json_t *o;
    int http = 0;
    *model = NULL;
    arena_init(&mem, chunks_heap(), 0);
    status s = ask(c, &mem, "/v1/models", NULL, &http, &o, e);
    if (s == OK && (http == 401 || http == 403)) {
        err_set(e, ERR_INVALID, "the server refuses the API key (status %d)", http);
        s = err_hint(e, "--api-key-file FILE with a key that it takes");
    } else if (s == OK && !want)
        s = first_model(o, http, model, e);
    arena_clear(&mem);
    return s;
}

static status take_ids(const json_t *tokens, load_vocab *v, bool as_ids, err *e) {
    size_t n = json_array_size(tokens);
    v->tokens_per_word = (double)n / (double)load_n_words();
    for (size_t i = 0; as_ids && i < n; i++) {
        const json_t *id = json_array_get(tokens, i);
        if (!json_is_integer(id)) {
            v->ids.n = 0;
            break;
        }
        vec_i32_push(&v->ids, (int32_t)json_integer_value(id));
    }
    return v->ids.failed ? err_set(e, ERR_NO_MEMORY, "no memory for token ids") : OK;
}

status load_probe_vocab(load_client *c, const load_spec *spec, load_vocab *v, err *e) {
    arena mem;
    buf body, text;
    const json_t *o;
    int http = 0;
    vec_i32_init(&v->ids, NULL);
    v->tokens_per_word = 1;
    arena_init(&mem, chunks_heap(), 0);
    buf_init(&body, &mem);
    buf_init(&text, &mem);
    load_words(&text);
    buf_add(&body, STR("{\"model\":"));
    json_str_lossy(&body, str_of(spec->model));
    buf_add(&body, STR(",\"add_special_tokens\":false,\"add_special\":false,\"prompt\":"));
    json_str(&body, buf_str(&text));
    buf_add(&body, STR(",\"content\":"));
    json_str(&body, buf_str(&text));
    buf_addc(&body, '}');
    status s = body.failed ? err_set(e, ERR_NO_MEMORY, "no memory to ask for tokens") : OK;
    if (s == OK) s = ask(c, &mem, "/tokenize", &body, &http, &o, e);
    if (s == OK && http == 503) {
        err_set(e, ERR_UNAVAILABLE, "the server is not ready (/tokenize answers 503)");
        s = err_hint(e, "wait until the server has loaded its model");
    }
    const json_t *tokens = s == OK ? json_object_get(o, "tokens") : NULL;
    if (json_array_size(tokens) > 0)
        s = take_ids(tokens, v, !spec->chat && spec->prompts != PROMPTS_TEXT, e);
    arena_clear(&mem);
    if (s != OK || spec->prompts != PROMPTS_IDS || v->ids.n) return s;
    err_set(e, ERR_UNSUPPORTED, "the server's /tokenize gives no token ids");
    return err_hint(e, "--prompts text");
}

static uint64_t number(const json_t *o, const char *key) {
    json_int_t n = json_integer_value(json_object_get(o, key));
    return n < 0 ? 0 : (uint64_t)n;
}

void load_probe_memory(load_client *c, load_memory *m) {
    arena mem;
    const json_t *o;
    int http;
    err e;
    *m = (load_memory){0};
    arena_init(&mem, chunks_heap(), 0);
    if (ask(c, &mem, "/v1/memory", NULL, &http, &o, &e) == OK &&
        json_in_has(o, "ledger_bytes")) {
        const json_t *kv = json_object_get(o, "kv");
        m->there = true;
        m->budget_bytes = number(o, "budget_bytes");
        m->ledger_bytes = number(o, "ledger_bytes");
        m->peak_bytes = number(o, "peak_bytes");
        m->unaccounted_bytes = json_integer_value(json_object_get(o, "unaccounted_bytes"));
        m->anonymous_bytes = number(json_object_get(o, "process"), "anonymous_bytes");
        m->kv_bytes = (number(kv, "used") + number(kv, "cached")) * number(kv, "block_tokens") *
                      number(kv, "bytes_per_token");
    }
    arena_clear(&mem);
}
