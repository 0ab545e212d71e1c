/* What probes read: GET /health: the process is alive. GET /ready: it would serve. /ping: as
 * /health (SageMaker). GET /version. GET /load: requests in work (vLLM). Loop thread. */
#include "api/app.h"
#include "json/out.h"

void health_run(app *app, http_request *rq) {
    (void)app;
    http_answer(rq, 200, "application/json", STR("{\"status\":\"ok\"}"));
}

void ready_run(app *app, http_request *rq) {
    const char *why = app->port->ops->not_ready(app->port);
    if (!why) {
        http_answer(rq, 200, "application/json", STR("{\"status\":\"ready\"}"));
        return;
    }
    failure f;
    failure_set(&f, API_UNAVAILABLE, "not ready: %s", why);
    http_refuse(rq, &f);
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
