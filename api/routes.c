/* The table of paths, and who may use them. Loop thread. */
#include <string.h>
#include <strings.h>

#include "api/cors.h"
#include "api/route.h"
#include "base/clock.h"

static void openapi_run(app *, http_request *);

static const route routes[] = {
    {"/v1/completions", POST | GENERATES | STREAMS | BARE | OF_MODEL, completions_run},
    {"/v1/chat/completions", POST | GENERATES | STREAMS | BARE | OF_MODEL, chat_run},
    {"/v1/chat/completions/input_tokens", POST | BARE | OF_MODEL, chat_count_run},
    {"/v1/models", GET | BARE, models_run},
    {"/v1/models/", GET | POST | PREFIX | BARE, models_run},
    {"/v1/memory", GET | PUT, memory_run},
    {"/v1/memory/stream", GET | OF_PAGE, live_stream_run},
    {"/v1/cache", DELETE, cache_forget_run},
    {"/v1/plan", POST | OF_MODEL, plan_run},
    {"/v1/embeddings", POST | EMBEDS | BARE | OF_MODEL, embeddings_run},
    {"/v1/rerank", POST | RANKS | BARE | OF_MODEL, rerank_run},
    {"/v2/rerank", POST | RANKS | OF_MODEL, rerank_run},
    {"/v1/responses", POST | GENERATES | STREAMS | BARE | AS_RESPONSES | OF_MODEL,
     responses_run},
    {"/v1/responses/input_tokens", POST | BARE | AS_RESPONSES | OF_MODEL, responses_count_run},
    {"/v1/messages", POST | GENERATES | STREAMS | AS_ANTHROPIC | OF_MODEL, messages_run},
    {"/v1/messages/count_tokens", POST | AS_ANTHROPIC | OF_MODEL, messages_count_run},
    {"/completion", POST | GENERATES | STREAMS | OF_MODEL, native_completion_run},
    {"/infill", POST | GENERATES | STREAMS | OF_MODEL, infill_run},
    {"/embedding", POST | EMBEDS | OF_MODEL, native_embedding_run},
    {"/props", GET | OF_MODEL, props_run},
    {"/slots", GET | OF_MODEL, slots_run},
    {"/tokenize", POST | OF_MODEL, tokenize_run},
    {"/detokenize", POST | OF_MODEL, detokenize_run},
    {"/apply-template", POST | OF_MODEL, apply_template_run},
    {"/tokenizer_info", GET | OF_MODEL, tokenizer_info_run},
    {"/version", GET, version_run},
    {"/load", GET, load_run},
    {"/ping", GET | POST | POLLED, ping_run},
    {"/api/chat", POST | GENERATES | AS_OLLAMA | OF_MODEL, ollama_chat_run},
    {"/api/generate", POST | GENERATES | AS_OLLAMA | OF_MODEL, ollama_generate_run},
    {"/api/embed", POST | EMBEDS | AS_OLLAMA | OF_MODEL, ollama_embed_run},
    {"/api/embeddings", POST | EMBEDS | AS_OLLAMA | OF_MODEL, ollama_embedding_run},
    {"/api/tags", GET | AS_OLLAMA, ollama_tags_run},
    {"/api/show", POST | AS_OLLAMA | OF_MODEL, ollama_show_run},
    {"/api/ps", GET | AS_OLLAMA, ollama_ps_run},
    {"/api/version", GET | AS_OLLAMA, version_run},
    {"/api/", PREFIX | AS_OLLAMA, NULL}, /* pull, create, delete, ... */
    {"/livez", GET | POLLED, livez_run},
    {"/health", GET | POLLED, health_run},
    {"/ready", GET | POLLED, ready_run},
    {"/metrics", GET | POLLED, metrics_run},
    {"/openapi.json", GET, openapi_run},
    {"/", GET | OPEN, root_run},
    {"/web/", GET | PREFIX | OPEN | OF_PAGE, web_run},
    {"/docs", GET | OPEN | OF_PAGE, docs_run},
    {"/docs/", GET | PREFIX | OPEN | OF_PAGE, docs_run},
};

static bool is_at(const route *r, str path, const char *own) {
    return r->flags & PREFIX ? str_starts(path, str_of(own)) : str_eqz(path, own);
}

static const route *find(str path) {
    path = app_path(path);
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        const route *r = &routes[i];
        if (is_at(r, path, r->path)) return r;
        if (r->flags & BARE && is_at(r, path, r->path + strlen("/v1"))) return r;
    }
    return NULL;
}

static const error_form *form_of(const route *r) {
    if (r && r->flags & AS_RESPONSES) return &errors_responses;
    if (r && r->flags & AS_OLLAMA) return &errors_ollama;
    return r && r->flags & AS_ANTHROPIC ? &errors_anthropic : &errors_openai;
}

bool routes_polled(str path) {
    const route *r = find(path);
    return r && r->flags & POLLED;
}

static bool allows(const route *r, http_method m) {
    return (r->flags & POST && m == HTTP_POST) || (r->flags & PUT && m == HTTP_PUT) ||
           (r->flags & DELETE && m == HTTP_DELETE) ||
           (r->flags & GET && (m == HTTP_GET || m == HTTP_HEAD));
}

static const char *allow_text(const route *r) {
    if (r->flags & PUT) return "GET, HEAD, PUT, OPTIONS";
    if (r->flags & DELETE) return "DELETE, OPTIONS";
    if (r->flags & POST) return r->flags & GET ? "GET, HEAD, POST, OPTIONS" : "POST, OPTIONS";
    return "GET, HEAD, OPTIONS";
}

/* ---- browsers ---- */

/* What a page of another origin may see of the answer, a refusal included. */
static void cross_origin(const app *app, http_request *rq) {
    const char *list = app->opt.cors_origins;
    if (!list || !*list) return;
    const char *origin = cors_match(list, http_header(rq, "Origin"));
    if (cors_varies(list)) http_set(rq, "Vary", "Origin");
    if (!origin) return;
    const char *kept = arena_str(&rq->mem, str_of(origin)).ptr;
    rq->cross_origin = kept != NULL;
    http_set(rq, "Access-Control-Allow-Origin", kept);
    http_set(rq, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
}

/* What it may ask: the headers it wants, since clients add their own. */
static void preflight(http_request *rq, const route *r) {
    const char *names = http_header(rq, "Access-Control-Request-Headers");
    if (!http_header(rq, "Access-Control-Request-Method")) return;
    http_set(rq, "Access-Control-Allow-Methods", allow_text(r));
    if (names && cors_names_ok(names))
        http_set(rq, "Access-Control-Allow-Headers", arena_str(&rq->mem, str_of(names)).ptr);
    http_set(rq, "Access-Control-Max-Age", "600");
}

/* A page may send a simple request (a form, text/plain) to any server without asking first, and
 * so spend this one's time unseen. JSON it may not: that takes a preflight. */
static bool page_unasked(const http_request *rq) {
    const char *type = http_header(rq, "Content-Type");
    bool json = type && strncasecmp(type, "application/json", 16) == 0;
    return http_header(rq, "Origin") && !rq->cross_origin && !json;
}

/* Whether the body is declared to be a form, which is no JSON. */
static bool is_form(const http_request *rq) {
    static const char form[] = "application/x-www-form-urlencoded";
    const char *type = http_header(rq, "Content-Type");
    return type && strncasecmp(type, form, sizeof form - 1) == 0;
}

/* What the body is, by its headers. False: not to be read. */
static bool body_readable(const http_request *rq, failure *f) {
    const char *coding = http_header(rq, "Content-Encoding");
    if (coding && strcasecmp(coding, "identity") != 0) {
        failure_set(f, API_MEDIA, "the body has Content-Encoding: %.40s", coding);
        err_hint(&f->err, "send it as plain JSON");
        return false;
    }
    if (is_form(rq)) {
        failure_set(f, API_MEDIA, "the body is declared to be a form, not JSON");
        err_hint(&f->err, "send Content-Type: application/json");
        return false;
    }
    if (page_unasked(rq)) {
        failure_set(f, API_MEDIA, "a web page must send Content-Type: application/json");
        return false;
    }
    return true;
}

/* ---- keys ---- */

/* "" without one. The name of the scheme is of any case (RFC 9110, section 11.1). */
static str key_of(const http_request *rq) {
    const char *auth = http_header(rq, "Authorization"), *own = http_header(rq, "X-Api-Key");
    if (auth && strncasecmp(auth, "Bearer ", 7) == 0) own = auth + 7;
    if (!own) return STR("");
    while (*own == ' ') own++;
    str key = str_of(own);
    while (key.len && key.ptr[key.len - 1] == ' ') key.len--;
    return key;
}

static bool is_open(const app *app, const route *r) {
    if (!r) return false;
    if (r->flags & OPEN) return app->opt.web_page;
    return r->flags & POLLED && !(app->opt.metrics_auth && r->run == metrics_run);
}

/* True when the request may go on; else it is refused. */
static bool authenticate(app *app, http_request *rq, const route *r) {
    failure f;
    if (!app->keys || rq->method == HTTP_OPTIONS || is_open(app, r)) return true;
    str key = key_of(rq);
    tenant *t = key.len ? keys_find(app->keys, key) : NULL;
    if (!t) {
        failure_set(&f, API_NO_KEY, key.len ? "this API key is not known here" : "no API key");
        if (!key.len) err_hint(&f.err, "send the header Authorization: Bearer KEY");
        http_refuse(rq, &f);
        return false;
    }
    double wait_s;
    tenant_verdict v = tenant_enter(t, clock_us(), &wait_s);
    if (v == TENANT_OK) {
        rq->tenant = t;
        return true;
    }
    tenant_refusal(t, v, wait_s, &f);
    http_refuse(rq, &f);
    return false;
}

static void refuse_ollama(const app *app, const http_request *rq, failure *f) {
    if (!app->opt.ollama_api) {
        failure_set(f, API_NOT_FOUND, "there is no %.80s here", rq->path.ptr);
        err_hint(&f->err, "Ollama's API is there with the option ollama_api");
        return;
    }
    failure_set(f, API_NOT_FOUND,
                "there is no %.80s here: the server has the model that its operator names",
                rq->path.ptr);
}

void routes_begin(app *app, http_request *rq) {
    const route *r = find(rq->path);
    failure f;
    if (r && r->flags & OF_PAGE && !app->opt.web_page) r = NULL;
    rq->errors = form_of(r);
    rq->served = &app->served[0];
    cross_origin(app, rq);
    if (!authenticate(app, rq, r)) return;
    if (r && r->flags & AS_OLLAMA && !(app->opt.ollama_api && r->run)) {
        refuse_ollama(app, rq, &f);
    } else if (!r) {
        failure_set(&f, API_NOT_FOUND, "there is no %.80s here", rq->path.ptr);
    } else if (rq->method == HTTP_OPTIONS) {
        http_set(rq, "Allow", allow_text(r));
        if (rq->cross_origin) preflight(rq, r);
        http_answer(rq, 204, NULL, (str){NULL, 0});
        return;
    } else if (!allows(r, rq->method)) {
        failure_set(&f, API_METHOD, "%.80s does not take %.20s", r->path, rq->method_name.ptr);
        f.allow = allow_text(r);
    } else if ((rq->method != HTTP_POST && rq->method != HTTP_PUT) || body_readable(rq, &f)) {
        return;
    }
    http_refuse(rq, &f);
}

/* Whether the model does what the path is for: said at once, not when it is loaded. */
static status check_type(const route *r, const served *s, err *e) {
    const model_card *c = &s->port->card;
    const bool generates = !s->embeds && !card_is_encoder(c);
    const bool ranks = c->pooling == POOL_RANK, embeds = c->pooling != POOL_OFF && !ranks;
    const char *gives = NULL, *hint = NULL;
    if (r->flags & GENERATES && !generates) {
        gives = ranks ? "scores of pairs of texts alone: it answers no completions and no chats"
                      : "embeddings alone: it answers no completions and no chats";
        hint = ranks ? "name another one of /v1/models, or POST /v1/rerank"
                     : "name another one of /v1/models, or POST /v1/embeddings";
    } else if (r->flags & EMBEDS && !embeds && (s->ops || ranks)) {
        gives = ranks ? "scores of pairs of texts, not embeddings" : "no embeddings";
        hint =
            ranks ? "POST /v1/rerank" : "it does with type = embed, or the option embeddings";
    } else if (r->flags & RANKS && c->pooling == POOL_OFF) {
        gives = "neither scores of pairs of texts nor embeddings";
        hint = "serve a cross-encoder or an encoder, or set the option embeddings";
    } else {
        return OK;
    }
    err_set(e, ERR_INVALID, "the model %.80s gives %s", c->id, gives);
    err_field(e, "model");
    return err_hint(e, "%s", hint);
}

/* routes_begin has refused what has no route. */
void routes_run(app *app, http_request *rq) {
    const route *r = find(rq->path);
    const bool of_model = r->flags & OF_MODEL, several = app->served[0].ops != NULL;
    served *s = &app->served[0];
    err e;
    if (!of_model)
        r->run(app, rq);
    else if ((several && served_find(app, rq, &s, &e) != OK) || check_type(r, s, &e) != OK)
        app_refuse(app, rq, &e);
    else if (!several)
        r->run(app, rq);
    else if (served_enter(app, rq, s, r->run))
        r->run(app, rq);
    else if (r->flags & STREAMS)
        rq->beats = rq->held && json_is_true(json_object_get(rq->json, "stream"));
}

static void openapi_run(app *app, http_request *rq) {
    buf b;
    buf_init(&b, &rq->mem);
    openapi_write(app, routes, sizeof routes / sizeof *routes, &b);
    app_json(rq, &b);
}
