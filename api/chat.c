/* POST /v1/chat/completions: messages to one prompt by the model's template. Loop thread. */
#include <string.h>
#include <time.h>

#include "api/answer_reply.h"
#include "api/conversation.h"
#include "api/writer.h"

/* The template of the request: its own where that is allowed, else the model's. */
static status template_of(const app *app, const json_t *body, bool tools, arena *mem,
                          const chat_template **out, err *e) {
    str source = {0};
    status s = json_in_str(body, "chat_template", &source, e);
    *out = chat_templates_pick(app->port->chat, tools);
    if (s == OK && source.len) {
        chat_template *own = arena_alloc(mem, sizeof *own);
        if (!app->opt.trust_request_chat_template) {
            err_set(e, ERR_INVALID, "a chat_template in a request is not allowed here");
            err_hint(e, "trust_request_chat_template allows it");
            return err_field(e, "chat_template");
        }
        if (!own) return err_set(e, ERR_NO_MEMORY, "no memory for the chat template");
        *out = own;
        return template_open(own, source, &app->port->chat->tokens, mem, mem->src, e);
    }
    if (s == OK && !(*out)->tree) {
        *e = (*out)->error;
        s = e->code;
    }
    return s;
}

/* Stands behind the last message while it is rendered with continue_final_message. Its blank is
 * the text's end where the template has trimmed the text, as in transformers. */
static const char end_mark[] = "VRAMD_END_OF_THE_FINAL_MESSAGE ";

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Ends the prompt where its last message ends, without what the template puts behind it. */
static status end_with_mark(jinja_text *t, err *e) {
    const str word = {end_mark, sizeof end_mark - 2};
    size_t at = SIZE_MAX;
    for (size_t next = 0; (next = str_find(t->text, word, next)) != SIZE_MAX; next++) at = next;
    if (at == SIZE_MAX) {
        err_set(e, ERR_INVALID, "the chat template does not show the last message");
        return err_field(e, "continue_final_message");
    }
    str rest = {t->text.ptr + at, t->text.len - at};
    if (!str_starts(rest, str_of(end_mark)))
        while (at && is_space(t->text.ptr[at - 1])) at--;
    t->text.len = at;
    while (t->n_runs > 1 && t->runs[t->n_runs - 2].end >= at) t->n_runs--;
    if (at == 0) t->n_runs = 0;
    if (t->n_runs) ((jinja_run *)t->runs)[t->n_runs - 1].end = at;
    return OK;
}

static status check_takes(const chat_template *t, const template_args *args, const json_t *body,
                          err *e) {
    const json_t *choice = json_object_get(body, "tool_choice");
    bool none = json_is_string(choice) && str_eqz(json_in_text(choice), "none");
    if (!args->tools || t->takes_tools || none) return OK;
    err_set(e, ERR_UNSUPPORTED, "the model's chat template takes no tools");
    return err_field(e, "tools");
}

status chat_prompt(app *app, const json_t *body, bool answer, bool continue_final, arena *mem,
                   chat_prompt_text *out, err *e) {
    template_args args = {.add_generation_prompt = answer};
    conversation c = {0};
    time_t now = time(NULL);
    localtime_r(&now, &args.now);
    const chat_template *t;
    status s = conversation_args(&args, body, app->port->chat->kwargs, mem, e);
    if (s == OK) s = template_of(app, body, args.tools != NULL, mem, &t, e);
    if (s != OK) return s;
    const str mark = continue_final ? str_of(end_mark) : STR("");
    s = conversation_read(&c, body, t, mark, mem, e);
    if (s == OK) s = check_takes(t, &args, body, e);
    if (s == OK && continue_final && c.last_content.len == 0) {
        err_set(e, ERR_INVALID, "the last message is empty: it has no text to continue");
        return err_field(e, "continue_final_message");
    }
    args.messages = c.messages;
    if (s == OK) s = template_render(t, &args, mem, &out->text, e);
    if (s == OK && continue_final) s = end_with_mark(&out->text, e);
    out->template = t;
    out->last_role = c.last_role;
    out->last_content = c.last_content;
    return s;
}

void chat_start(app *app, http_request *rq, const json_t *body, const writer *w) {
    answer *a = answer_new(app, rq, body, w);
    if (!a) return;
    err e;
    chat_prompt_text t;
    if (chat_prompt(app, body, a->p.add_generation_prompt, a->p.continue_final, &rq->mem, &t,
                    &e) != OK ||
        answer_reads(a, t.template, t.text.text, &e) != OK) {
        app_refuse(app, rq, &e);
        return;
    }
    if (!answer_prompts(a, 1)) return;
    a->prompts[0].text = t.text.text;
    a->prompts[0].is_text = true;
    a->prompts[0].marked = t.text;
    a->prompts[0].is_marked = true;
    if (str_eqz(t.last_role, "assistant")) a->chat_echo = t.last_content;
    answer_start(a);
}

void chat_run(app *app, http_request *rq) {
    const json_t *body = app_body(app, rq);
    if (body) chat_start(app, rq, body, &writer_chat);
}
