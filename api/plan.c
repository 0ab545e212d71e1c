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

static void answer(void *arg) {
    plan_job *j = arg;
    if (j->status == OK)
        app_json(j->rq, &j->out);
    else
        app_refuse(j->app, j->rq, &j->error);
}

static void done(void *arg) {
    plan_job *j = arg;
    j->app->planning = false;
    http_take_back(j->rq, answer, j);
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
    if (!app->planning && app_lend(rq, rq->served->port, work, done, j)) {
        app->planning = true;
        return;
    }
    err_set(&e, ERR_BUSY, "another plan is being made");
    app_refuse(app, rq, &e);
}
