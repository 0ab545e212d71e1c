/* POST /v1/chat/completions: messages to one prompt by the model's template. Loop thread. */
#include <stdio.h>

#include "api/answer.h"

/* content as a list of parts: texts are joined, anything else is refused. */
static status read_parts(const json_t *parts, size_t message, arena *mem, str *out, err *e) {
    buf b;
    buf_init(&b, mem);
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        str type = {0}, text = {0};
        bool ok = json_is_object(part) && json_in_str(part, "type", &type, e) == OK &&
                  str_eqz(type, "text") && json_in_str(part, "text", &text, e) == OK &&
                  text.ptr;
        if (!ok) {
            err_set(e, ERR_INVALID, "only parts of type \"text\" are supported");
            return err_field(e, "messages[%zu].content[%zu]", message, i);
        }
        buf_add(&b, text);
    }
    *out = buf_str(&b);
    return b.failed ? err_set(e, ERR_NO_MEMORY, "no memory for messages") : OK;
}

static status read_message(const json_t *v, size_t i, arena *mem, chat_message *m, err *e) {
    if (!json_is_object(v)) {
        char name[40];
        snprintf(name, sizeof name, "messages[%zu]", i);
        return json_in_wrong(e, name, "an object", v);
    }
    *m = (chat_message){.content = STR("")};
    const json_t *role = json_object_get(v, "role"), *content = json_object_get(v, "content");
    if (!role || !json_is_string(role) || json_string_length(role) == 0) {
        err_set(e, ERR_INVALID, "a message needs a role");
        return err_field(e, "messages[%zu].role", i);
    }
    m->role = json_in_text(role);
    /* OpenAI renamed it; templates know the old name. */
    if (str_eqz(m->role, "developer")) m->role = STR("system");
    static const char *const known[] = {"system", "user", "assistant"};
    bool ok = false;
    for (int k = 0; k < 3; k++) ok |= str_eqz(m->role, known[k]);
    if (!ok) {
        err_set(e, ERR_INVALID, "the role must be system, user or assistant");
        return err_field(e, "messages[%zu].role", i);
    }
    if (json_is_string(content))
        m->content = json_in_text(content);
    else if (json_is_array(content))
        return read_parts(content, i, mem, &m->content, e);
    else if (!str_eqz(m->role, "assistant") || (content && !json_is_null(content))) {
        err_set(e, ERR_INVALID, "content must be a string or a list of parts");
        return err_field(e, "messages[%zu].content", i);
    }
    return OK;
}

static status read_messages(const json_t *body, arena *mem, chat_message **out, size_t *n,
                            err *e) {
    const json_t *v = json_object_get(body, "messages");
    if (!json_is_array(v) || json_array_size(v) == 0) {
        if (v && !json_is_null(v) && !json_is_array(v))
            return json_in_wrong(e, "messages", "a list", v);
        err_set(e, ERR_INVALID, v ? "messages is empty" : "messages is missing");
        return err_field(e, "messages");
    }
    *n = json_array_size(v);
    *out = arena_alloc(mem, *n * sizeof **out);
    if (!*out) return err_set(e, ERR_NO_MEMORY, "no memory for messages");
    for (size_t i = 0; i < *n; i++) {
        status s = read_message(json_array_get(v, i), i, mem, &(*out)[i], e);
        if (s != OK) return s;
    }
    return OK;
}

/* The template is read at the first use: while the model loads there is no tokenizer. */
static status template_of(app *app, err *e) {
    if (!app->chat_known) {
        app->chat_status = chat_template_of(&app->chat, app->port->tok, &app->chat_error);
        app->chat_known = true;
    }
    if (app->chat_status != OK) *e = app->chat_error;
    return app->chat_status;
}

/* What users write must not become the template's control tokens: nobody forges a turn. */
static status guard(const tokenizer *tok, chat_message *m, size_t n, arena *mem, err *e) {
    for (size_t i = 0; i < n; i++) {
        buf b;
        buf_init(&b, mem);
        tokenizer_guard(tok, m[i].content, &b);
        if (b.failed) return err_set(e, ERR_NO_MEMORY, "no memory for messages");
        m[i].content = buf_str(&b);
    }
    return OK;
}

void chat_run(app *app, http_request *rq) {
    const json_t *body;
    answer *a = answer_new(app, rq, true, &body);
    if (!a) return;
    err e;
    chat_message *m = NULL;
    size_t n = 0;
    buf text;
    buf_init(&text, &rq->mem);
    status s = read_messages(body, &rq->mem, &m, &n, &e);
    if (s == OK) s = template_of(app, &e);
    if (s == OK) s = guard(app->port->tok, m, n, &rq->mem, &e);
    if (s == OK) s = chat_template_render(&app->chat, m, n, &text, &e);
    if (s != OK) {
        app_refuse(app, rq, &e);
        return;
    }
    if (!answer_prompts(a, 1)) return;
    a->prompts[0].text = buf_str(&text);
    a->prompts[0].is_text = true;
    /* The template writes its own beginning of sequence. */
    a->encode_flags = TOK_PARSE_SPECIAL | TOK_GUARDED;
    answer_start(a);
}
