/* What the endpoints share (api/app.h). Owns nothing. Loop thread. */
#include "api/app.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/cors.h"
#include "base/hash.h"

void app_refuse(app *app, http_request *rq, const err *e) {
    (void)app;
    failure f;
    if (e->code == ERR_NO_MEMORY) {
        http_refuse_memory(rq);
        return;
    }
    failure_from(&f, e);
    http_refuse(rq, &f);
}

bool app_ready(app *app, http_request *rq) {
    port *port = rq->served->port;
    const char *why = port->ops->not_ready(port);
    (void)app;
    /* "stalled" still takes requests: the machine may recover, and its queue is bounded. */
    if (port->tok && (!why || strcmp(why, "stalled") == 0)) return true;
    failure f;
    failure_set(&f, API_UNAVAILABLE, "the server is not ready: %s", why ? why : "loading");
    http_refuse(rq, &f);
    return false;
}

const json_t *app_body(app *app, http_request *rq) {
    const json_t *body;
    err e;
    if (!app_ready(app, rq)) return NULL;
    if (rq->json) return rq->json;
    status s = json_in_parse(&body, &rq->mem, rq->body, &e);
    if (s == OK && !json_is_object(body))
        s = err_set(&e, ERR_INVALID, "the body must be a JSON object, not %s",
                    json_in_kind(body));
    if (s == OK) return rq->json = body;
    app_refuse(app, rq, &e);
    return NULL;
}

str app_path(str path) {
    while (path.len > 1 && path.ptr[1] == '/') path.ptr++, path.len--;
    while (path.len > 1 && path.ptr[path.len - 1] == '/') path.len--;
    return path;
}

bool app_next_name(const char **at, str *name) {
    name->ptr = *at + strspn(*at, ", ");
    name->len = strcspn(name->ptr, ",");
    *at = name->ptr + name->len;
    while (name->len && name->ptr[name->len - 1] == ' ') name->len--;
    return name->len > 0;
}

status app_check_model(const http_request *rq, str name, err *e) {
    const model_card *c = &rq->served->port->card;
    const char *at = c->names;
    if (name.len == 0 || str_eqz(name, c->id)) return OK;
    for (str one; at && app_next_name(&at, &one);)
        if (str_eq(name, one)) return OK;
    err_set(e, ERR_NOT_FOUND, "the model %.*s does not exist; this server has %s",
            name.len < 80 ? (int)name.len : 80, name.ptr, c->id);
    return err_field(e, "model");
}

bool app_host_is_here(const http_request *rq) {
    const char *host = http_header(rq, "Host");
    char origin[64];
    const int n = host ? snprintf(origin, sizeof origin, "http://%s", host) : -1;
    return n > 0 && (size_t)n < sizeof origin && cors_match("localhost", origin) != NULL;
}

/* A page of another server has another origin than the Host that it sends to; and where a name of its own leads
 * here, that is no address of this machine. */
static bool is_own_page(const http_request *rq, const char *origin) {
    const char *host = http_header(rq, "Host"), *at = strstr(origin, "://");
    return cors_match("localhost", origin) && host && strcasecmp(at + 3, host) == 0;
}

bool app_client_is_here(const http_request *rq) {
    const char *origin = http_header(rq, "Origin");
    const bool page = origin && !is_own_page(rq, origin);
    const bool proxied = http_header(rq, "Forwarded") || http_header(rq, "X-Forwarded-For") ||
                         http_header(rq, "X-Real-Ip");
    return http_from_here(rq) && !page && !proxied;
}

uint64_t app_tenant_of(const app *app, const http_request *rq) {
    static const char *const names[] = {"x-gateway-inference-fairness-id",
                                        "x-llm-d-inference-fairness-id"};
    const uint64_t own = tenant_id(rq->tenant);
    const char *list = app->opt.trusted_proxies, *id = NULL;
    if (!list || !*list) return own;
    for (size_t i = 0; i < sizeof names / sizeof *names && (!id || !*id); i++)
        id = http_header(rq, names[i]);
    if (!id || !*id || !http_from_one_of(rq, list)) return own;
    return hash64(id, strlen(id), own) | 1;
}

bool app_may_administer(const app *app, const http_request *rq, const char *what, failure *f) {
    if (app->keys && rq->tenant && rq->tenant->limits.admin) return true;
    if (app->keys) {
        failure_set(f, API_FORBIDDEN, "this key may not %s", what);
        err_hint(&f->err, "the word admin in its line of the file of keys allows it");
        return false;
    }
    if (app_client_is_here(rq)) return true;
    failure_set(f, API_FORBIDDEN, "without keys only a client on this machine may %s", what);
    err_hint(&f->err, "use curl there, or api_keys_file with an admin key");
    return false;
}

bool app_lend(http_request *rq, port *p, void (*work)(void *), void (*done)(void *),
              void *arg) {
    if (!p->ops->offload(p, work, done, arg)) return false;
    http_lend(rq); /* in time: the loop comes to done later */
    return true;
}

void app_json(http_request *rq, const buf *b) {
    if (b->failed)
        http_refuse_memory(rq);
    else
        http_answer(rq, 200, "application/json", buf_str(b));
}

void tenant_refusal(const tenant *t, tenant_verdict v, double wait_s, failure *f) {
    static const char *const what[] = {[TENANT_REQUESTS] = "requests a minute",
                                       [TENANT_TOKENS] =
                                           "tokens a minute, prompt and output together",
                                       [TENANT_CONCURRENCY] = "requests at once"};
    const tenant_limits *l = &t->limits;
    uint64_t limit = v == TENANT_REQUESTS ? l->requests_per_min
                     : v == TENANT_TOKENS ? l->tokens_per_min
                                          : l->concurrency;
    failure_set(f, API_BUSY, "the key of %s is at its limit of %llu %s", t->name,
                (unsigned long long)limit, what[v]);
    f->retry_after_s = wait_s;
}
