/* POST /v1/plan: what the served model takes with other options, and what to do. The machine makes
 * the plan, on the pool of threads; one at a time. Loop thread. */
#include "api/app.h"

typedef struct plan_job {
    app *app;
    http_request *rq;
    const json_t *body;
    buf out;
    status status;
    err error;
} plan_job;

static void work(void *arg) {
    plan_job *j = arg;
    port *p = j->rq->served->port;
    j->status = p->ops->plan(p, j->body, &j->out, &j->error);
}

static void done(void *arg) {
    plan_job *j = arg;
    http_request *rq = j->rq;
    http *h = j->app->http;
    j->app->planning = false;
    rq->lent = false;
    if (!rq->gone) {
        if (j->status == OK)
            app_json(rq, &j->out);
        else
            app_refuse(j->app, rq, &j->error);
    }
    http_unref(rq);
    http_flush(h);
}

void plan_run(app *app, http_request *rq) {
    const json_t *body = app_body(app, rq);
    str model = STR("");
    err e;
    if (!body) return;
    if (json_in_str(body, "model", &model, &e) != OK || app_check_model(rq, model, &e) != OK) {
        app_refuse(app, rq, &e);
        return;
    }
    plan_job *j = arena_zalloc(&rq->mem, sizeof *j);
    if (!j) {
        http_refuse_memory(rq);
        return;
    }
    *j = (plan_job){.app = app, .rq = rq, .body = body};
    buf_init(&j->out, &rq->mem);
    http_ref(rq);
    rq->lent = true;
    if (!app->planning && rq->served->port->ops->offload(rq->served->port, work, done, j)) {
        app->planning = true;
        return;
    }
    rq->lent = false;
    http_unref(rq);
    err_set(&e, ERR_BUSY, "another plan is being made");
    app_refuse(app, rq, &e);
}
