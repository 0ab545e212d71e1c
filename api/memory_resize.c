/* PUT /v1/memory {"budget_bytes": N}: another budget while the server serves. Loop thread. */
#include "api/app.h"
#include "json/out.h"

typedef struct resize_job {
    app *app;
    http_request *rq;
} resize_job;

static void answer_state(app *app, http_request *rq, int status) {
    machine_stats st;
    ledger_view v;
    buf b;
    buf_init(&b, &rq->mem);
    app->port->ops->stats(app->port, &st);
    const port *p = app->port;
    ledger_read(p->device_ledger ? p->device_ledger : p->ledger, &v);
    buf_add(&b, STR("{\"budget_bytes\":"));
    json_u64(&b, v.budget_bytes);
    buf_add(&b, STR(",\"target_bytes\":"));
    json_u64(&b, st.budget.target_bytes);
    buf_add(&b, STR(",\"plan_bytes\":"));
    json_u64(&b, v.plan_bytes);
    buf_add(&b, STR(",\"ledger_bytes\":"));
    json_u64(&b, v.ledger_bytes);
    buf_addf(&b, ",\"done\":%s}", status == 200 ? "true" : "false");
    if (b.failed)
        http_refuse_memory(rq);
    else
        http_answer(rq, status, "application/json", buf_str(&b));
}

static void on_done(void *arg, status s, const err *e) {
    resize_job *j = arg;
    app *app = j->app;
    http_request *rq = j->rq;
    failure f;
    if (!rq->gone) {
        if (s == OK || s == ERR_BUSY) {
            answer_state(app, rq, s == OK ? 200 : 202);
        } else {
            failure_from(&f, e);
            http_refuse(rq, &f);
        }
    }
    http_unref(rq);
    http_flush(app->http);
}

/* What resize refused. */
static void refuse(app *app, http_request *rq, const err *e) {
    failure f;
    failure_from(&f, e);
    if (e->code == ERR_BUDGET || e->code == ERR_UNSUPPORTED || e->code == ERR_BUSY) {
        f.what = API_CONFLICT;
        snprintf(f.err.field, sizeof f.err.field, "budget_bytes");
    }
    (void)app;
    http_refuse(rq, &f);
}

void memory_resize_run(app *app, http_request *rq) {
    int64_t bytes = 0;
    failure f;
    err e;
    if (!app_may_administer(app, rq, "change the budget", &f)) {
        http_refuse(rq, &f);
        return;
    }
    const json_t *body = app_body(app, rq);
    if (!body) return;
    status s = json_in_int(body, "budget_bytes", 1, INT64_MAX, &bytes, &e);
    if (s == OK && bytes == 0) {
        s = err_set(&e, ERR_INVALID, "budget_bytes is missing");
        err_field(&e, "budget_bytes");
        err_hint(&e, "{\"budget_bytes\": N}");
    }
    resize_job *j = arena_zalloc(&rq->mem, sizeof *j);
    if (s == OK && !j) {
        http_refuse_memory(rq);
        return;
    }
    if (s == OK) {
        *j = (resize_job){app, rq};
        s = app->port->ops->resize(app->port, (uint64_t)bytes, on_done, j, &e);
    }
    if (s == OK)
        http_ref(rq);
    else
        refuse(app, rq, &e);
}
