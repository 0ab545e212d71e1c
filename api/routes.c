/* The table of paths. Loop thread. */
#include "api/app.h"

typedef struct route {
    const char *path;
    bool prefix; /* and everything below it */
    bool post;   /* else GET and HEAD */
    bool polled; /* by machines, all the time: its log line is for debugging */
    void (*run)(app *, http_request *);
} route;

static const route routes[] = {
    {"/v1/completions", false, true, false, completions_run},
    {"/v1/chat/completions", false, true, false, chat_run},
    {"/v1/models", false, false, false, models_run},
    {"/v1/models/", true, false, false, models_run},
    {"/v1/memory", false, false, false, memory_run},
    {"/tokenize", false, true, false, tokenize_run},
    {"/detokenize", false, true, false, detokenize_run},
    {"/health", false, false, true, health_run},
    {"/ready", false, false, true, ready_run},
    {"/metrics", false, false, true, metrics_run},
    {"/", false, false, false, root_run},
};

static const route *find(str path) {
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        const route *r = &routes[i];
        if (r->prefix ? str_starts(path, str_of(r->path)) : str_eqz(path, r->path)) return r;
    }
    return NULL;
}

bool routes_polled(str path) {
    const route *r = find(path);
    return r && r->polled;
}

static bool allows(const route *r, http_method m) {
    return r->post ? m == HTTP_POST : m == HTTP_GET || m == HTTP_HEAD;
}

static const char *allow_text(const route *r) {
    return r->post ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
}

void routes_begin(app *app, http_request *rq) {
    (void)app;
    const route *r = find(rq->path);
    failure f;
    if (!r) {
        failure_set(&f, API_NOT_FOUND, "there is no %.80s here", rq->path.ptr);
    } else if (rq->method == HTTP_OPTIONS) {
        http_allow(rq, allow_text(r));
        http_answer(rq, 204, NULL, (str){NULL, 0});
        return;
    } else if (!allows(r, rq->method)) {
        failure_set(&f, API_METHOD, "%.80s does not take %.20s", r->path, rq->method_name.ptr);
        f.allow = allow_text(r);
    } else {
        return;
    }
    http_refuse(rq, &f);
}

void routes_run(app *app, http_request *rq) {
    find(rq->path)->run(app, rq); /* routes_begin has refused the rest */
}

void root_run(app *app, http_request *rq) {
    (void)app;
    http_answer(rq, 200, "text/plain; charset=utf-8",
                STR("vramd " VRAMD_VERSION "\nPOST /v1/completions, /v1/chat/completions\n"
                    "GET /v1/models, /v1/memory, /metrics, /health, /ready\n"));
}
