/* GET /props and /slots, as llama.cpp's server has them. Loop thread. */
#include "api/native.h"

#include "api/writer.h"
#include "json/out.h"

enum { MAX_SLOTS = 512 };

static void write_token(buf *b, const char *name, const tokenizer *tok, int32_t id) {
    buf_addf(b, ",\"%s\":", name);
    json_str_lossy(b, id < 0 ? STR("") : tokenizer_piece(tok, id, true));
}

/* The parameters of a request that gives none. */
static void write_defaults(const port *port, buf *b) {
    params p = {.n = 1, .max_tokens = -1};
    sampling_defaults(&p.sampling);
    if (port->defaults) p.sampling = *port->defaults;
    p.sampling.seed = UINT32_MAX; /* a random one */
    buf_addf(b, "{\"n_ctx\":%u,\"params\":{", port->card.max_model_len);
    native_settings(&p, b);
    buf_add(b, STR("}}"));
}

void props_run(app *app, http_request *rq) {
    if (!app_ready(app, rq)) return;
    const port *port = rq->served->port;
    buf b;
    buf_init(&b, &rq->mem);
    buf_add(&b, STR("{\"default_generation_settings\":"));
    write_defaults(port, &b);
    buf_addf(&b, ",\"total_slots\":%u,\"model_alias\":", port->max_running);
    json_str_lossy(&b, str_of(port->card.id));
    buf_add(&b, STR(",\"model_path\":")); /* its name: the path is the operator's */
    json_str_lossy(&b, str_of(port->card.id));
    buf_add(&b, STR(",\"modalities\":{\"vision\":false,\"audio\":false},\"chat_template\":"));
    json_str_lossy(&b, port->chat->chat.source);
    write_token(&b, "bos_token", port->tok, tokenizer_bos(port->tok));
    write_token(&b, "eos_token", port->tok, tokenizer_eos(port->tok));
    buf_add(&b, STR(",\"build_info\":\"vramd " VRAMD_VERSION "\",\"is_sleeping\":false}"));
    app_json(rq, &b);
}

/* One line for each sequence that waits or runs, then the free places. */
void slots_run(app *app, http_request *rq) {
    if (!app_ready(app, rq)) return;
    const port *port = rq->served->port;
    seq_view *seq = arena_alloc(&rq->mem, MAX_SLOTS * sizeof *seq);
    if (!seq) {
        http_refuse_memory(rq);
        return;
    }
    size_t n = port->ops->sequences(rq->served->port, seq, MAX_SLOTS);
    size_t lines = n > port->max_running ? n : port->max_running;
    buf b;
    buf_init(&b, &rq->mem);
    buf_addc(&b, '[');
    for (size_t i = 0; i < lines && i < MAX_SLOTS; i++) {
        const bool used = i < n;
        buf_addf(&b, "%s{\"id\":%zu,\"id_task\":%lld,\"n_ctx\":%u,\"speculative\":%s,",
                 i ? "," : "", i, used ? (long long)seq[i].id : -1LL, port->card.max_model_len,
                 port->card.speculates ? "true" : "false");
        buf_addf(&b, "\"is_processing\":%s,\"n_past\":%u,\"state\":\"%s\"}",
                 used ? "true" : "false", used ? seq[i].n_tokens : 0,
                 used ? seq[i].state : "idle");
    }
    buf_addc(&b, ']');
    app_json(rq, &b);
}
