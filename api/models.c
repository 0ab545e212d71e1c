/* GET /v1/models, and /v1/models/ID for one name; POST .../load and .../unload. Loop thread. */
#include "api/app.h"
#include <string.h>

#include "json/out.h"

/* What several models have besides: which of them are in memory. */
static void write_state(buf *b, const served *s) {
    served_view v;
    s->ops->view(s, &v);
    buf_addf(b, ",\"state\":\"%s\",\"pinned\":%s,\"bytes\":", v.state,
             v.pinned ? "true" : "false");
    json_u64(b, v.bytes);
    buf_add(b, STR(",\"bytes_now\":"));
    json_u64(b, v.bytes_now);
    buf_add(b, STR(",\"last_used\":"));
    json_u64(b, v.last_used);
    if (!*v.why) return;
    buf_add(b, STR(",\"reason\":"));
    json_str_lossy(b, str_of(v.why));
}

static void write_card(buf *b, const served *s, str name) {
    const model_card *c = &s->port->card;
    buf_add(b, STR("{\"id\":"));
    json_str_lossy(b, name);
    buf_add(b, STR(",\"object\":\"model\",\"created\":"));
    json_u64(b, c->created);
    /* root is the model behind the name; the path of its file is the operator's affair */
    buf_add(b, STR(",\"owned_by\":\"vramd\",\"root\":"));
    json_str_lossy(b, str_of(c->id));
    buf_add(b, STR(",\"parent\":null,\"max_model_len\":"));
    json_u64(b, c->max_model_len);
    buf_add(b, STR(",\"meta\":{\"n_params\":"));
    json_u64(b, c->n_params);
    buf_add(b, STR(",\"size\":"));
    json_u64(b, c->weight_bytes);
    buf_add(b, STR(",\"n_ctx_train\":"));
    json_u64(b, c->config ? c->config->n_ctx_train : c->max_model_len);
    buf_addc(b, '}');
    if (s->ops) write_state(b, s);
    buf_addc(b, '}');
}

static void write_names(buf *b, const served *s) {
    const char *at = s->port->card.names;
    str name = str_of(s->port->card.id);
    if (at) app_next_name(&at, &name);
    write_card(b, s, name);
    while (at && app_next_name(&at, &name)) {
        buf_addc(b, ',');
        write_card(b, s, name);
    }
}

static void write_list(buf *b, const app *app) {
    buf_add(b, STR("{\"object\":\"list\",\"data\":["));
    for (uint32_t i = 0; i < app->n_served; i++) {
        if (i) buf_addc(b, ',');
        write_names(b, &app->served[i]);
    }
    buf_add(b, STR("]}"));
}

/* POST /v1/models/NAME/load and /unload, of an operator. Loading is not awaited. */
static void change_state(app *app, http_request *rq, served *s, bool load) {
    failure f;
    err e;
    buf b;
    if (!app_may_administer(app, rq, "load and unload models", &f)) {
        http_refuse(rq, &f);
        return;
    }
    if (load)
        s->ops->load(s);
    else if (s->ops->unload(s, &e) != OK) {
        app_refuse(app, rq, &e);
        return;
    }
    buf_init(&b, &rq->mem);
    write_card(&b, s, str_of(s->port->card.id));
    app_json(rq, &b);
}

static bool ends_in(str *name, str word) {
    if (name->len <= word.len ||
        memcmp(name->ptr + name->len - word.len, word.ptr, word.len) != 0)
        return false;
    name->len -= word.len;
    return true;
}

/* A name below /v1/models, which may hold slashes. */
static void run_one(app *app, http_request *rq, str name) {
    const bool post = rq->method == HTTP_POST && app->served[0].ops;
    const bool load = post && ends_in(&name, STR("/load"));
    const bool unload = post && !load && ends_in(&name, STR("/unload"));
    served *s = served_by_name(app, name);
    failure f;
    err e;
    buf b;
    if (!s) {
        err_set(&e, ERR_NOT_FOUND, "the model %.*s does not exist; this server has %s",
                name.len < 80 ? (int)name.len : 80, name.ptr, app->served[0].port->card.id);
        err_field(&e, "model");
        app_refuse(app, rq, &e);
    } else if (load || unload) {
        change_state(app, rq, s, load);
    } else if (rq->method == HTTP_POST) {
        failure_set(&f, API_METHOD, "%.80s does not take POST", rq->path.ptr);
        f.allow = "GET, HEAD, OPTIONS";
        http_refuse(rq, &f);
    } else {
        buf_init(&b, &rq->mem);
        write_card(&b, s, name);
        app_json(rq, &b);
    }
}

void models_run(app *app, http_request *rq) {
    const str path = app_path(rq->path), below = STR("models/");
    const size_t at = str_find(path, below, 0);
    buf b;
    if (at != SIZE_MAX) {
        run_one(app, rq, (str){path.ptr + at + below.len, path.len - at - below.len});
        return;
    }
    buf_init(&b, &rq->mem);
    write_list(&b, app);
    app_json(rq, &b);
}
