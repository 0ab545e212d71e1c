/* GET /v1/models, and /v1/models/ID for one name. Loop thread. */
#include "api/app.h"
#include "json/out.h"

static void write_card(buf *b, const model_card *c, str name) {
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
    buf_add(b, STR("}}"));
}

static void write_list(buf *b, const model_card *c) {
    const char *at = c->names;
    str name = str_of(c->id);
    buf_add(b, STR("{\"object\":\"list\",\"data\":["));
    if (at) app_next_name(&at, &name);
    write_card(b, c, name);
    while (at && app_next_name(&at, &name)) {
        buf_addc(b, ',');
        write_card(b, c, name);
    }
    buf_add(b, STR("]}"));
}

void models_run(app *app, http_request *rq) {
    str path = app_path(rq->path), below = STR("models/");
    size_t at = str_find(path, below, 0);
    err e;
    buf b;
    buf_init(&b, &rq->mem);
    if (at == SIZE_MAX) {
        write_list(&b, &app->port->card);
    } else {
        str name = {path.ptr + at + below.len, path.len - at - below.len};
        if (app_check_model(app, name, &e) != OK) {
            app_refuse(app, rq, &e);
            return;
        }
        write_card(&b, &app->port->card, name);
    }
    app_json(rq, &b);
}
