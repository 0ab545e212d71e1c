/* POST /v1/embeddings: vectors of length 1 out of the hidden states of an encoder or a decoder, pooled by
 * the first or the last token or the mean of all (docs/embeddings.md). Loop thread. */
#include <string.h>

#include "api/writer.h"
#include "json/out.h"

/* What the body says of the vectors; a->state of its answer. */
typedef struct vectors {
    bool base64;
} vectors;

static void write_base64(const float *v, uint32_t n, buf *b) {
    static const char digit[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *at = (const unsigned char *)v; /* of a little-endian machine */
    const size_t bytes = n * sizeof *v;
    buf_addc(b, '"');
    for (size_t i = 0; i < bytes; i += 3) {
        const size_t left = bytes - i;
        const uint32_t x = (uint32_t)at[i] << 16 | (left > 1 ? (uint32_t)at[i + 1] << 8 : 0) |
                           (left > 2 ? at[i + 2] : 0u);
        const char four[] = {digit[x >> 18], digit[x >> 12 & 63],
                             left > 1 ? digit[x >> 6 & 63] : '=',
                             left > 2 ? digit[x & 63] : '='};
        buf_add(b, (str){four, sizeof four});
    }
    buf_addc(b, '"');
}

void vector_write(const choice *c, buf *b) {
    buf_addc(b, '[');
    for (uint32_t i = 0; i < c->a->n_dims; i++)
        buf_addf(b, i ? ",%.9g" : "%.9g", (double)c->vector[i]);
    buf_addc(b, ']');
}

static void write_whole(answer *a) {
    const vectors *as = a->state;
    buf b;
    buf_init(&b, &a->rq->mem);
    buf_add(&b, STR("{\"object\":\"list\",\"data\":["));
    for (uint32_t i = 0; i < a->n_choices; i++) {
        const choice *c = &a->choices[i];
        buf_addf(&b, "%s{\"object\":\"embedding\",\"index\":%u,\"embedding\":", i ? "," : "",
                 i);
        if (!c->vector)
            b.failed = true;
        else if (as->base64)
            write_base64(c->vector, a->n_dims, &b);
        else
            vector_write(c, &b);
        buf_addc(&b, '}');
    }
    buf_add(&b, STR("],\"model\":"));
    json_str(&b, answer_model(a));
    const unsigned long long n = usage_prompt_tokens(a);
    buf_addf(&b, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}", n, n);
    app_json(a->rq, &b);
}

static const writer writer_embeddings = {.id_prefix = "embd-", .whole = write_whole};

static status read_form(const json_t *body, bool *base64, err *e) {
    str form = STR("float");
    status s = json_in_str(body, "encoding_format", &form, e);
    *base64 = str_eqz(form, "base64");
    if (s != OK || *base64 || str_eqz(form, "float")) return s;
    err_set(e, ERR_INVALID, "encoding_format must be float or base64");
    return err_field(e, "encoding_format");
}

static status check_served(const http_request *rq, err *e) {
    if (rq->served->port->card.pooling != POOL_OFF) return OK;
    err_set(e, ERR_UNSUPPORTED, "this server gives no embeddings");
    return err_hint(e, "it does with the option embeddings = auto");
}

answer *embeddings_new(app *app, http_request *rq, const json_t *body, const writer *w) {
    int64_t dims = 0;
    err e;
    status s = check_served(rq, &e);
    if (s == OK) {
        const model_card *card = &rq->served->port->card;
        dims = card->pooling == POOL_RANK ? 1 : card->config->n_embd;
        s = json_in_int(body, "dimensions", 1, dims, &dims, &e);
    }
    if (s != OK) {
        app_refuse(app, rq, &e);
        return NULL;
    }
    answer *a = answer_new(app, rq, body, w);
    if (!a) return NULL;
    a->n_dims = (uint32_t)dims;
    /* Nothing is generated, whatever the parameters of completions say. */
    a->p.n = a->p.n_shown = 1;
    a->p.max_tokens = 0;
    a->p.stream = a->p.echo = a->p.logprobs = false;
    a->p.prompt_logprobs = -1;
    a->p.allowed = NULL;
    a->p.n_banned = 0;
    return a;
}

void embeddings_run(app *app, http_request *rq) {
    const json_t *body = app_body(app, rq);
    bool base64;
    err e;
    if (!body) return;
    if (read_form(body, &base64, &e) != OK) {
        app_refuse(app, rq, &e);
        return;
    }
    answer *a = embeddings_new(app, rq, body, &writer_embeddings);
    vectors *as = a ? arena_zalloc(&rq->mem, sizeof *as) : NULL;
    if (!a) return;
    if (!as) {
        http_refuse_memory(rq);
        return;
    }
    as->base64 = base64;
    a->state = as;
    if (completions_prompts(a, body, "input")) answer_start(a);
}

/* ---- llama.cpp's ---- */

static void write_native(answer *a) {
    buf b;
    buf_init(&b, &a->rq->mem);
    for (uint32_t i = 0; i < a->n_choices; i++) {
        const choice *c = &a->choices[i];
        buf_addf(&b, "%s{\"index\":%u,\"embedding\":[", i ? "," : "[", i);
        if (c->vector)
            vector_write(c, &b);
        else
            b.failed = true;
        buf_add(&b, STR("]}"));
    }
    buf_addc(&b, ']');
    app_json(a->rq, &b);
}

static const writer writer_native_embedding = {.id_prefix = "embd-", .whole = write_native};

void native_embedding_run(app *app, http_request *rq) {
    const json_t *body = app_body(app, rq);
    answer *a = body ? embeddings_new(app, rq, body, &writer_native_embedding) : NULL;
    const char *field = body && json_in_has(body, "content") ? "content" : "input";
    if (a && completions_prompts(a, body, field)) answer_start(a);
}
