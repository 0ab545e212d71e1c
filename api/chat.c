/* POST /v1/chat/completions: messages to one prompt by the model's template. Loop thread. */
#include <stdio.h>
#include <string.h>

#include "api/writer.h"

/* content as a list of parts: texts are joined, and what an assistant refused with; anything
 * else is refused. */
static status read_parts(const json_t *parts, size_t message, arena *mem, str *out, err *e) {
    buf b;
    buf_init(&b, mem);
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        str type = {0}, text = {0};
        bool ok = json_is_object(part) && json_in_str(part, "type", &type, e) == OK &&
                  (str_eqz(type, "text") || str_eqz(type, "refusal")) &&
                  json_in_str(part, type.ptr, &text, e) == OK && text.ptr;
        if (!ok) {
            err_set(e, ERR_INVALID, "only parts of type \"text\" are supported");
            return err_field(e, "messages[%zu].content[%zu]", message, i);
        }
        buf_add(&b, text);
    }
    *out = buf_str(&b);
    return b.failed ? err_set(e, ERR_NO_MEMORY, "no memory for messages") : OK;
}

/* History that a prompt cannot show: without it the model would answer something else. */
static status check_tools(const json_t *v, size_t i, str role, err *e) {
    static const char *const field[] = {"tool_calls", "function_call"};
    for (int k = 0; k < 2; k++) {
        const json_t *calls = json_object_get(v, field[k]);
        if (!calls || json_is_null(calls) ||
            (json_is_array(calls) && json_array_size(calls) == 0))
            continue;
        err_set(e, ERR_UNSUPPORTED, "%s in a message is not supported", field[k]);
        return err_field(e, "messages[%zu].%s", i, field[k]);
    }
    if (!str_eqz(role, "tool") && !str_eqz(role, "function")) return OK;
    err_set(e, ERR_UNSUPPORTED, "messages of the role %s are not supported",
            str_eqz(role, "tool") ? "tool" : "function");
    return err_field(e, "messages[%zu].role", i);
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
    if (check_tools(v, i, m->role, e) != OK) return e->code;
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

static str trim_left(str s) {
    while (s.len && strchr(" \t\r\n", s.ptr[0])) s.ptr++, s.len--;
    return s;
}
static str trim(str s) {
    s = trim_left(s);
    while (s.len && strchr(" \t\r\n", s.ptr[s.len - 1])) s.len--;
    return s;
}

/* continue_final_message: the prompt ends where the last message does, without what the template
 * puts behind it. As in transformers, white space that the template has kept stays. */
static status end_with(buf *prompt, const chat_message *last, err *e) {
    enum { MOST_BEHIND = 256 };
    str content = trim(last->content), kept = trim_left(last->content);
    bool found = false;
    size_t behind = 0, at = 0;
    for (; content.len && behind <= MOST_BEHIND && !found; behind++) {
        if (content.len + behind > prompt->len) break;
        at = prompt->len - content.len - behind;
        found = memcmp(prompt->ptr + at, content.ptr, content.len) == 0;
    }
    if (!found) {
        err_set(e, ERR_INVALID,
                content.len ? "the chat template does not show the last message"
                            : "the last message is empty: it has no text to continue");
        return err_field(e, "continue_final_message");
    }
    str rest = {prompt->ptr + at, prompt->len - at};
    prompt->len = at + (str_starts(rest, kept) ? kept.len : content.len);
    return OK;
}

status chat_prompt(app *app, const json_t *body, bool answer, bool continue_final, arena *mem,
                   chat_prompt_text *out, err *e) {
    chat_message *m = NULL;
    size_t n = 0;
    buf text;
    buf_init(&text, mem);
    status s = read_messages(body, mem, &m, &n, e);
    if (s != OK) return s;
    out->last_role = m[n - 1].role;
    out->last_content = m[n - 1].content;
    s = template_of(app, e);
    if (s == OK) s = guard(app->port->tok, m, n, mem, e);
    if (s == OK) s = chat_template_render(&app->chat, m, n, answer, &text, e);
    if (s == OK && continue_final) s = end_with(&text, &m[n - 1], e);
    out->text = buf_str(&text);
    return s;
}

void chat_start(app *app, http_request *rq, const json_t *body, const writer *w) {
    answer *a = answer_new(app, rq, body, w);
    if (!a) return;
    err e;
    chat_prompt_text t;
    if (chat_prompt(app, body, a->p.add_generation_prompt, a->p.continue_final, &rq->mem, &t,
                    &e) != OK) {
        app_refuse(app, rq, &e);
        return;
    }
    if (!answer_prompts(a, 1)) return;
    a->prompts[0].text = t.text;
    a->prompts[0].is_text = true;
    if (str_eqz(t.last_role, "assistant")) a->chat_echo = t.last_content;
    /* The template writes its own beginning of sequence. */
    a->encode_flags = CHAT_ENCODE_FLAGS;
    answer_start(a);
}

void chat_run(app *app, http_request *rq) {
    const json_t *body = app_body(app, rq);
    if (body) chat_start(app, rq, body, &writer_chat);
}
