/* POST /tokenize and /detokenize, with the names of both vLLM (prompt or messages,
 * add_special_tokens) and llama.cpp's server (content, add_special, with_pieces), POST
 * /apply-template, and GET /tokenizer_info. Loop thread; long texts on the pool. */
#include "api/app.h"
#include "base/utf8.h"
#include "json/out.h"

enum { INLINE_TEXT_BYTES = 8 * 1024 };

typedef struct tokenize_job {
    app *app;
    http_request *rq;
    str text;
    chat_request chat; /* body: NULL unless messages are given in place of a text */
    chat_prompt_text prompt;
    unsigned flags;
    bool strs, pieces;  /* token_strs beside the ids; ids with their pieces */
    bool shows, counts; /* /apply-template: the prompt is shown; else the ids */
    vec_i32 ids;
    status status;
    err error;
} tokenize_job;

static void work(void *arg) {
    tokenize_job *j = arg;
    const tokenizer *tok = j->rq->served->port->tok;
    arena *mem = &j->rq->mem;
    if (!j->chat.body) {
        j->status = tokenizer_encode(tok, j->text, j->flags, &j->ids, &j->error);
        return;
    }
    j->status = chat_prompt(&j->chat, mem, &j->prompt, &j->error);
    if (j->status == OK && j->counts)
        j->status = tokenizer_encode_prompt(tok, &j->prompt.text, j->flags, &j->ids, &j->error);
}

/* {"id":1,"piece":"text"}, or the bytes in a list where they are no text (llama.cpp) */
static void write_piece(const tokenize_job *j, int32_t id, buf *b) {
    str piece = tokenizer_piece(j->rq->served->port->tok, id, true);
    buf_addf(b, "{\"id\":%d,\"piece\":", id);
    if (utf8_valid(piece)) {
        json_str(b, piece);
    } else {
        for (size_t i = 0; i < piece.len; i++)
            buf_addf(b, "%c%u", i ? ',' : '[', (unsigned)(unsigned char)piece.ptr[i]);
        buf_addc(b, ']');
    }
    buf_addc(b, '}');
}

static void answer(void *arg) {
    tokenize_job *j = arg;
    if (j->status != OK) {
        app_refuse(j->app, j->rq, &j->error);
        return;
    }
    buf b;
    buf_init(&b, &j->rq->mem);
    if (j->shows) {
        buf_add(&b, STR("{\"prompt\":"));
        json_str(&b, j->prompt.text.text);
        if (!j->counts) {
            buf_addc(&b, '}');
            app_json(j->rq, &b);
            return;
        }
    } else {
        buf_add(&b, STR("{\"count\":"));
        json_u64(&b, j->ids.n);
        buf_add(&b, STR(",\"max_model_len\":"));
        json_u64(&b, j->rq->served->port->card.max_model_len);
    }
    buf_add(&b, STR(",\"tokens\":["));
    for (size_t i = 0; i < j->ids.n; i++) {
        if (i) buf_addc(&b, ',');
        if (j->pieces)
            write_piece(j, j->ids.v[i], &b);
        else
            json_i64(&b, j->ids.v[i]);
    }
    buf_addc(&b, ']');
    if (j->strs) {
        buf_add(&b, STR(",\"token_strs\":["));
        for (size_t i = 0; i < j->ids.n; i++) {
            if (i) buf_addc(&b, ',');
            json_str_lossy(&b, tokenizer_piece(j->rq->served->port->tok, j->ids.v[i], true));
        }
        buf_addc(&b, ']');
    }
    buf_addc(&b, '}');
    app_json(j->rq, &b);
}

static void done(void *arg) {
    tokenize_job *j = arg;
    http_take_back(j->rq, answer, j);
}

/* Parses the body; NULL: refused. */
static const json_t *read_object(app *app, http_request *rq) {
    const json_t *o = NULL;
    err e;
    if (!app_ready(app, rq)) return NULL;
    status s = json_in_parse(&o, &rq->mem, rq->body, &e);
    str model = STR("");
    if (s == OK && !json_is_object(o))
        s = err_set(&e, ERR_INVALID, "the body must be a JSON object, not %s", json_in_kind(o));
    if (s == OK) s = json_in_str(o, "model", &model, &e);
    if (s == OK) s = app_check_model(rq, model, &e);
    if (s == OK) return o;
    app_refuse(app, rq, &e);
    return NULL;
}

static status read_chat(tokenize_job *j, const json_t *o, err *e) {
    bool special = false;
    chat_request *q = &j->chat;
    *q = chat_request_of(j->app, j->rq, o);
    status s = json_in_bool(o, "add_generation_prompt", &q->answer, e);
    if (s == OK) s = json_in_bool(o, "continue_final_message", &q->continue_final, e);
    if (s == OK) s = json_in_bool(o, "add_special_tokens", &special, e);
    if (s == OK && q->answer && q->continue_final) {
        err_set(e, ERR_INVALID,
                "continue_final_message needs add_generation_prompt to be false");
        return err_field(e, "continue_final_message");
    }
    j->flags = special ? (unsigned)TOK_ADD_SPECIAL : 0;
    return s;
}

static status read_tokenize(tokenize_job *j, const json_t *o, err *e) {
    bool special = true, parse = true;
    j->text = (str){NULL, 0};
    status s = json_in_bool(o, "return_token_strs", &j->strs, e);
    if (s == OK) s = json_in_bool(o, "with_pieces", &j->pieces, e);
    if (s == OK && json_in_has(o, "messages")) return read_chat(j, o, e);
    if (s == OK) s = json_in_str(o, "prompt", &j->text, e);
    bool vllm = j->text.ptr != NULL;
    if (s == OK && !vllm) s = json_in_str(o, "content", &j->text, e);
    if (s == OK && !j->text.ptr) {
        err_set(e, ERR_INVALID, "prompt is missing");
        return err_field(e, "prompt");
    }
    if (!vllm) special = false; /* each server's own default */
    if (s == OK) s = json_in_bool(o, "add_special_tokens", &special, e);
    if (s == OK) s = json_in_bool(o, "add_special", &special, e);
    if (s == OK) s = json_in_bool(o, "parse_special", &parse, e);
    j->flags =
        (special ? (unsigned)TOK_ADD_SPECIAL : 0) | (parse ? (unsigned)TOK_PARSE_SPECIAL : 0);
    return s;
}

/* NULL: refused. */
static tokenize_job *new_job(app *app, http_request *rq) {
    tokenize_job *j = arena_zalloc(&rq->mem, sizeof *j);
    if (!j) {
        http_refuse_memory(rq);
        return NULL;
    }
    *j = (tokenize_job){.app = app, .rq = rq};
    vec_i32_init(&j->ids, &rq->mem);
    return j;
}

/* Renders, tokenises and answers, on the pool where the text is long. */
static void run(tokenize_job *j) {
    app *app = j->app;
    http_request *rq = j->rq;
    err e;
    if ((j->chat.body ? rq->body.len : j->text.len) <= INLINE_TEXT_BYTES) {
        work(j);
        answer(j);
        return;
    }
    if (app_lend(rq, rq->served->port, work, done, j)) return;
    err_set(&e, ERR_BUSY, "too many long texts at once");
    app_refuse(app, rq, &e);
}

void tokenize_run(app *app, http_request *rq) {
    const json_t *o = read_object(app, rq);
    tokenize_job *j = o ? new_job(app, rq) : NULL;
    err e;
    if (!j) return;
    j->counts = true;
    if (read_tokenize(j, o, &e) == OK)
        run(j);
    else
        app_refuse(app, rq, &e);
}

void apply_template_run(app *app, http_request *rq) {
    const json_t *o = read_object(app, rq);
    tokenize_job *j = o ? new_job(app, rq) : NULL;
    err e;
    if (!j) return;
    j->shows = true;
    status s = json_in_bool(o, "tokens", &j->counts, &e);
    if (s == OK) s = read_chat(j, o, &e);
    if (s == OK)
        run(j);
    else
        app_refuse(app, rq, &e);
}

void detokenize_run(app *app, http_request *rq) {
    const json_t *o = read_object(app, rq);
    if (!o) return;
    const json_t *list = json_object_get(o, "tokens");
    err e;
    buf text, b;
    detok d;
    buf_init(&text, &rq->mem);
    buf_init(&b, &rq->mem);
    detok_init_text(&d, rq->served->port->tok, true);
    if (!json_is_array(list)) {
        err_set(&e, ERR_INVALID, "tokens must be a list of token ids");
        err_field(&e, "tokens");
        app_refuse(app, rq, &e);
        return;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *id = json_array_get(list, i);
        json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
        if (v < 0 || v >= tokenizer_n_vocab(rq->served->port->tok)) {
            err_set(&e, ERR_INVALID, "tokens[%zu] is no id of the vocabulary", i);
            err_field(&e, "tokens");
            app_refuse(app, rq, &e);
            return;
        }
        detok_push(&d, (int32_t)v, &text);
    }
    detok_finish(&d, &text);
    buf_add(&b, STR("{\"prompt\":"));
    json_str(&b, buf_str(&text));
    buf_add(&b, STR(",\"content\":"));
    json_str(&b, buf_str(&text));
    buf_addc(&b, '}');
    if (text.failed) b.failed = true;
    app_json(rq, &b);
}

static void write_token(buf *b, const char *name, const tokenizer *tok, int32_t id) {
    buf_addf(b, ",\"%s\":", name);
    if (id < 0)
        buf_add(b, STR("null"));
    else
        json_str_lossy(b, tokenizer_piece(tok, id, true));
}

void tokenizer_info_run(app *app, http_request *rq) {
    if (!app_ready(app, rq)) return;
    const tokenizer *tok = rq->served->port->tok;
    str chat = rq->served->port->chat->chat.source;
    buf b;
    buf_init(&b, &rq->mem);
    buf_add(&b, STR("{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"model_max_length\":"));
    json_u64(&b, rq->served->port->card.max_model_len);
    buf_addf(&b, ",\"add_bos_token\":%s", tokenizer_adds_bos(tok) ? "true" : "false");
    write_token(&b, "bos_token", tok, tokenizer_bos(tok));
    write_token(&b, "eos_token", tok, tokenizer_eos(tok));
    buf_add(&b, STR(",\"chat_template\":"));
    if (chat.len)
        json_str_lossy(&b, chat);
    else
        buf_add(&b, STR("null"));
    buf_addc(&b, '}');
    app_json(rq, &b);
}
