/* GET /health: the process is alive. GET /ready: it would serve. Loop thread. */
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
