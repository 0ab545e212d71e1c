/* GET /v1/models, and /v1/models/ID for the one. Loop thread. */
#include "api/app.h"
#include "json/out.h"

static void write_model(buf *b, const model_card *c) {
    buf_add(b, STR("{\"id\":"));
    json_str_lossy(b, str_of(c->id));
    buf_add(b, STR(",\"object\":\"model\",\"created\":"));
    json_u64(b, c->created);
    buf_add(b, STR(",\"owned_by\":\"vramd\",\"root\":"));
    json_str_lossy(b, str_of(c->root));
    buf_add(b, STR(",\"max_model_len\":"));
    json_u64(b, c->max_model_len);
    buf_add(b, STR(",\"meta\":{\"n_params\":"));
    json_u64(b, c->n_params);
    buf_add(b, STR(",\"size\":"));
    json_u64(b, c->weight_bytes);
    buf_add(b, STR(",\"n_ctx_train\":"));
    json_u64(b, c->config ? c->config->n_ctx_train : c->max_model_len);
    buf_add(b, STR("}}"));
}

void models_run(app *app, http_request *rq) {
    const model_card *card = &app->port->card;
    str prefix = STR("/v1/models/");
    buf b;
    buf_init(&b, &rq->mem);
    if (str_starts(rq->path, prefix)) {
        str name = {rq->path.ptr + prefix.len, rq->path.len - prefix.len};
        err e;
        if (app_check_model(app, name, &e) != OK) {
            app_refuse(app, rq, &e);
            return;
        }
        write_model(&b, card);
    } else {
        buf_add(&b, STR("{\"object\":\"list\",\"data\":["));
        write_model(&b, card);
        buf_add(&b, STR("]}"));
    }
    app_json(rq, &b);
}
