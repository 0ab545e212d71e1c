/* The paths of Ollama's API. Models are not fetched, made or deleted here: the operator names a
 * file. Loop thread. */
#include "api/ollama.h"

#include "api/convert.h"
#include "base/clock.h"
#include "base/hash.h"
#include "json/out.h"

/* ---- text ---- */

/* By chat or completion, once the context that was asked for is known to be there. */
static void start(app *app, http_request *rq, const json_t *body, const writer *w) {
    const json_int_t context = json_integer_value(json_object_get(body, OLLAMA_CONTEXT));
    const uint32_t most = rq->served->port->card.max_model_len;
    err e;
    if (context > most) {
        err_set(&e, ERR_INVALID, "num_ctx is %lld, but the server has %u tokens of context",
                (long long)context, most);
        err_field(&e, "options.num_ctx");
        app_refuse(app, rq, &e);
    } else if (w->chat) {
        chat_start(app, rq, body, w);
    } else {
        completions_start(app, rq, body, w);
    }
}

/* Nothing to answer: clients load a model so before they use it. */
static void answer_loaded(app *app, http_request *rq, const json_t *body, bool chat) {
    const json_t *keep = json_object_get(body, "keep_alive");
    const bool unload = json_is_number(keep) && json_number_value(keep) == 0;
    str name = STR("");
    err e;
    status s = json_in_str(body, "model", &name, &e);
    if (s == OK) s = app_check_model(rq, ollama_name(name), &e);
    if (s != OK) {
        app_refuse(app, rq, &e);
        return;
    }
    buf b;
    buf_init(&b, &rq->mem);
    buf_add(&b, STR("{\"model\":"));
    json_str(&b, name.len ? name : str_of(rq->served->port->card.id));
    buf_add(&b, STR(",\"created_at\":"));
    ollama_time(rq->served->port->card.created * 1000000, &b);
    buf_add(&b, chat ? STR(",\"message\":{\"role\":\"assistant\",\"content\":\"\"}")
                     : STR(",\"response\":\"\""));
    buf_addf(&b, ",\"done\":true,\"done_reason\":\"%s\"}", unload ? "unload" : "load");
    app_json(rq, &b);
}

void ollama_chat_run(app *app, http_request *rq) {
    const json_t *body = app_body(app, rq);
    const json_t *messages = json_object_get(body, "messages");
    if (!body) return;
    if (!messages || json_is_null(messages) ||
        (json_is_array(messages) && !json_array_size(messages)))
        answer_loaded(app, rq, body, true);
    else
        convert_start(app, rq, convert_ollama_chat, start, &writer_ollama_chat);
}

void ollama_generate_run(app *app, http_request *rq) {
    const json_t *body = app_body(app, rq);
    const json_t *prompt = json_object_get(body, "prompt");
    if (!body) return;
    if (!prompt || json_is_null(prompt) ||
        (json_is_string(prompt) && !json_string_length(prompt)))
        answer_loaded(app, rq, body, false);
    else if (json_is_true(json_object_get(body, "raw")))
        convert_start(app, rq, convert_ollama_raw, start, &writer_ollama_raw);
    else
        convert_start(app, rq, convert_ollama_generate, start, &writer_ollama_generate);
}

/* ---- embeddings ---- */

static void write_embeddings(answer *a) {
    buf b;
    buf_init(&b, &a->rq->mem);
    buf_add(&b, STR("{\"model\":"));
    json_str(&b, answer_model(a));
    buf_add(&b, STR(",\"embeddings\":["));
    for (uint32_t i = 0; i < a->n_choices; i++) {
        if (i) buf_addc(&b, ',');
        if (a->choices[i].vector)
            vector_write(&a->choices[i], &b);
        else
            b.failed = true;
    }
    buf_addf(&b, "],\"total_duration\":%llu,\"load_duration\":0,\"prompt_eval_count\":%llu}",
             (unsigned long long)(clock_us() - a->rq->began_us) * 1000,
             (unsigned long long)usage_prompt_tokens(a));
    app_json(a->rq, &b);
}

static void write_embedding(answer *a) {
    buf b;
    buf_init(&b, &a->rq->mem);
    buf_add(&b, STR("{\"embedding\":"));
    if (a->choices->vector)
        vector_write(a->choices, &b);
    else
        b.failed = true;
    buf_addc(&b, '}');
    app_json(a->rq, &b);
}

static const writer writer_ollama_embed = {.id_prefix = "embd-", .whole = write_embeddings};
static const writer writer_ollama_embedding = {.id_prefix = "embd-", .whole = write_embedding};

static status convert_embed(conversion *c, err *e) {
    const json_t *name = json_object_get(c->in, "model");
    json_object_del(c->out, "messages");
    (void)e;
    if (json_is_string(name))
        convert_put_text(c->out, "model", ollama_name(json_in_text(name)));
    else
        convert_put(c->out, "model", name);
    convert_put(c->out, "dimensions", json_object_get(c->in, "dimensions"));
    convert_put(c->out, "input", json_object_get(c->in, "input"));
    return OK;
}

/* A text that is too long is cut at its end, unless "truncate" is false. */
static void embed(app *app, http_request *rq, const json_t *body, const writer *w) {
    bool cut = true;
    err e;
    if (json_in_bool(rq->json, "truncate", &cut, &e) != OK) {
        app_refuse(app, rq, &e);
        return;
    }
    answer *a = embeddings_new(app, rq, body, w);
    if (!a) return;
    a->p.truncate_prompt = cut ? rq->served->port->card.max_model_len : 0;
    a->p.truncate_end = true;
    const bool list = w == &writer_ollama_embed;
    if (completions_prompts(a, list ? body : rq->json, list ? "input" : "prompt"))
        answer_start(a);
}

void ollama_embed_run(app *app, http_request *rq) {
    convert_start(app, rq, convert_embed, embed, &writer_ollama_embed);
}

void ollama_embedding_run(app *app, http_request *rq) {
    const json_t *body = app_body(app, rq);
    const json_t *prompt = json_object_get(body, "prompt");
    err e;
    if (!body) return;
    if (json_is_string(prompt)) {
        convert_start(app, rq, convert_embed, embed, &writer_ollama_embedding);
        return;
    }
    json_in_wrong(&e, "prompt", "a string", prompt);
    app_refuse(app, rq, &e);
}

/* ---- the model ---- */

static void write_details(const model_card *c, buf *b) {
    const char *arch = c->config ? c->config->arch : "";
    buf_add(b, STR("{\"parent_model\":\"\",\"format\":\"gguf\",\"family\":"));
    json_str_lossy(b, str_of(arch));
    buf_add(b, STR(",\"families\":["));
    json_str_lossy(b, str_of(arch));
    const double n = (double)c->n_params;
    buf_addf(b, n < 1e9 ? "],\"parameter_size\":\"%.2fM\"" : "],\"parameter_size\":\"%.1fB\"",
             n < 1e9 ? n / 1e6 : n / 1e9);
    buf_add(b, STR(",\"quantization_level\":\"unknown\"}"));
}

/* Equal where the name and the weights are. */
static void write_digest(const model_card *c, str name, buf *b) {
    uint64_t h = hash64(name.ptr, name.len, c->weight_bytes ^ c->n_params);
    buf_addc(b, '"');
    for (int i = 0; i < 4; i++, h = hash64(&h, sizeof h, h))
        buf_addf(b, "%016llx", (unsigned long long)h);
    buf_addc(b, '"');
}

/* Up to what a list has behind the details. */
static void write_line(const model_card *c, str name, buf *b) {
    buf_add(b, STR("{\"name\":"));
    json_str(b, name);
    buf_add(b, STR(",\"model\":"));
    json_str(b, name);
    buf_addf(b, ",\"size\":%llu,\"digest\":", (unsigned long long)c->weight_bytes);
    write_digest(c, name, b);
    buf_add(b, STR(",\"details\":"));
    write_details(c, b);
}

static void write_tail(const port *port, bool running, buf *b) {
    const model_card *c = &port->card;
    if (running) {
        const bool on_device = port->device_ledger != NULL;
        buf_addf(b,
                 ",\"expires_at\":\"9999-12-31T23:59:59Z\",\"size_vram\":%llu,"
                 "\"context_length\":%u}",
                 (unsigned long long)(on_device ? c->weight_bytes : 0), c->max_model_len);
        return;
    }
    buf_add(b, STR(",\"modified_at\":"));
    ollama_time(c->created * 1000000, b);
    buf_addc(b, '}');
}

/* Each with the comma before it, but for the first of all. */
static void list_names(const port *port, bool running, bool *first, buf *b) {
    const model_card *c = &port->card;
    const char *at = c->names;
    str name = str_of(c->id);
    for (bool more = !at || app_next_name(&at, &name); more;
         more = at && app_next_name(&at, &name), *first = false) {
        if (!*first) buf_addc(b, ',');
        write_line(c, name, b);
        write_tail(port, running, b);
    }
}

static void list_models(app *app, http_request *rq, bool running) {
    bool first = true;
    buf b;
    buf_init(&b, &rq->mem);
    buf_add(&b, STR("{\"models\":["));
    for (uint32_t i = 0; i < app->n_served; i++)
        if (!running || app->served[i].open)
            list_names(app->served[i].port, running, &first, &b);
    buf_add(&b, STR("]}"));
    app_json(rq, &b);
}

void ollama_tags_run(app *app, http_request *rq) {
    list_models(app, rq, false);
}

void ollama_ps_run(app *app, http_request *rq) {
    list_models(app, rq, true);
}

static void write_info(const model_card *c, buf *b) {
    const model_config *m = c->config;
    buf_addf(b,
             "{\"general.architecture\":\"%s\",\"general.parameter_count\":%llu,"
             "\"%s.context_length\":%u,\"%s.embedding_length\":%u,\"%s.block_count\":%u,"
             "\"%s.feed_forward_length\":%u,\"%s.attention.head_count\":%u,"
             "\"%s.attention.head_count_kv\":%u,\"%s.vocab_size\":%u}",
             m->arch, (unsigned long long)c->n_params, m->arch, c->max_model_len, m->arch,
             m->n_embd, m->arch, m->n_layers, m->arch, m->n_ff, m->arch, m->n_heads, m->arch,
             m->n_kv_heads, m->arch, m->n_vocab);
}

void ollama_show_run(app *app, http_request *rq) {
    const json_t *body = app_body(app, rq);
    const model_card *c = &rq->served->port->card;
    str name = STR("");
    err e;
    if (!body) return;
    status s = json_in_str(body, "name", &name, &e);
    if (s == OK) s = json_in_str(body, "model", &name, &e);
    if (s == OK) s = app_check_model(rq, ollama_name(name), &e);
    if (s != OK) {
        app_refuse(app, rq, &e);
        return;
    }
    const str chat = rq->served->port->chat->chat.source;
    buf b;
    buf_init(&b, &rq->mem);
    buf_add(&b, STR("{\"license\":\"\",\"modelfile\":\"\",\"parameters\":\"\",\"template\":"));
    json_str_lossy(&b, chat);
    buf_add(&b, STR(",\"details\":"));
    write_details(c, &b);
    buf_add(&b, STR(",\"model_info\":"));
    if (c->config)
        write_info(c, &b);
    else
        buf_add(&b, STR("{}"));
    const bool generates = !card_is_encoder(c);
    buf_add(&b, STR(",\"capabilities\":["));
    if (generates) buf_add(&b, STR("\"completion\""));
    if (c->pooling != POOL_OFF)
        buf_add(&b, generates ? STR(",\"embedding\"") : STR("\"embedding\""));
    if (chat_templates_pick(rq->served->port->chat, true)->takes_tools)
        buf_add(&b, STR(",\"tools\""));
    if (str_find(chat, STR("enable_thinking"), 0) != SIZE_MAX)
        buf_add(&b, STR(",\"thinking\""));
    buf_add(&b, STR("],\"modified_at\":"));
    ollama_time(c->created * 1000000, &b);
    buf_addc(&b, '}');
    app_json(rq, &b);
}
