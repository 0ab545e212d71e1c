/* What probes read: GET /livez: the process answers. GET /ready and /health: it would serve; the
 * latter is what llama.cpp's and vLLM's users have in their balancers. /ping: as /health
 * (SageMaker). GET /version. GET /load: requests in work (vLLM). Loop thread. */
#include "api/app.h"
#include "json/out.h"

void livez_run(app *app, http_request *rq) {
    (void)app;
    http_answer(rq, 200, "application/json", STR("{\"status\":\"alive\"}"));
}

static void answer_if_ready(app *app, http_request *rq, str ok, bool as_peers) {
    const char *why = app->leaving ? "draining" : app->port->ops->not_ready(app->port);
    failure f;
    if (!why) {
        http_answer(rq, 200, "application/json", ok);
        return;
    }
    if (as_peers && strcmp(why, "loading") == 0)
        failure_set(&f, API_UNAVAILABLE, "Loading model"); /* llama.cpp's words */
    else
        failure_set(&f, API_UNAVAILABLE, "not ready: %s", why);
    http_refuse(rq, &f);
}

void health_run(app *app, http_request *rq) {
    answer_if_ready(app, rq, STR("{\"status\":\"ok\"}"), true);
}

void ready_run(app *app, http_request *rq) {
    answer_if_ready(app, rq, STR("{\"status\":\"ready\"}"), false);
}

void ping_run(app *app, http_request *rq) {
    health_run(app, rq);
}

void version_run(app *app, http_request *rq) {
    (void)app;
    http_answer(rq, 200, "application/json", STR("{\"version\":\"" VRAMD_VERSION "\"}"));
}

void load_run(app *app, http_request *rq) {
    machine_stats s;
    buf b;
    buf_init(&b, &rq->mem);
    app->port->ops->stats(app->port, &s);
    buf_add(&b, STR("{\"server_load\":"));
    json_u64(&b, (uint64_t)s.n_running + s.n_waiting);
    buf_addc(&b, '}');
    app_json(rq, &b);
}
