/* DELETE /v1/cache: forgets cached prefixes, in memory and on disk; all, or those of one salt. Loop
 * thread. */
#include <string.h>

#include "api/app.h"
#include "json/out.h"

typedef struct forget_job {
    app *app;
    http_request *rq;
} forget_job;

static void on_done(void *arg, status s, const cache_forgotten *what, const err *e) {
    forget_job *j = arg;
    http_request *rq = j->rq;
    http *h = j->app->http;
    if (!rq->gone && s == OK) {
        buf b;
        buf_init(&b, &rq->mem);
        buf_addf(&b, "{\"blocks\":%llu,\"bytes\":%llu,\"files\":%llu,\"file_bytes\":%llu}",
                 (unsigned long long)what->blocks, (unsigned long long)what->bytes,
                 (unsigned long long)what->files, (unsigned long long)what->file_bytes);
        app_json(rq, &b);
    } else if (!rq->gone) {
        failure f;
        failure_from(&f, e);
        http_refuse(rq, &f);
    }
    http_unref(rq);
    http_flush(h);
}

/* Whose prefixes: as answer.c makes the salt of a request. *all: those of all clients. Errors: ERR_INVALID,
 * ERR_NO_MEMORY. */
static status salt_of(const app *app, http_request *rq, bool *all, str *out, err *e) {
    const char *tenant = http_query(rq, "tenant"), *salt = http_query(rq, "salt");
    buf b;
    *all = !tenant && !salt;
    if (tenant && !app->keys) {
        err_set(e, ERR_INVALID, "there are no tenants without api_keys_file");
        return err_field(e, "tenant");
    }
    if (salt && app->keys && !tenant) {
        err_set(e, ERR_INVALID, "the salt of which tenant?");
        err_hint(e, "?tenant=NAME&salt=SALT");
        return err_field(e, "tenant");
    }
    buf_init(&b, &rq->mem);
    if (tenant) {
        buf_add(&b, str_of(tenant));
        buf_addc(&b, '\0');
    }
    if (salt) buf_add(&b, str_of(salt));
    *out = buf_str(&b);
    return b.failed ? err_set(e, ERR_NO_MEMORY, "no memory for the request") : OK;
}

void cache_forget_run(app *app, http_request *rq) {
    failure f;
    err e;
    str salt;
    bool all;
    if (!app_may_administer(app, rq, "remove cached prefixes", &f)) {
        http_refuse(rq, &f);
        return;
    }
    status s = salt_of(app, rq, &all, &salt, &e);
    forget_job *j = arena_zalloc(&rq->mem, sizeof *j);
    if (s == OK && !j) s = err_set(&e, ERR_NO_MEMORY, "no memory for the request");
    if (s == OK) {
        *j = (forget_job){app, rq};
        s = app->port->ops->forget(app->port, all ? NULL : &salt, on_done, j, &e);
    }
    if (s == OK) {
        http_ref(rq);
    } else if (s == ERR_BUSY) {
        failure_from(&f, &e);
        f.what = API_CONFLICT;
        http_refuse(rq, &f);
    } else {
        app_refuse(app, rq, &e);
    }
}
