/* POST /v1/chat/completions: messages to one prompt by the model's template. Loop thread. */
#include <string.h>
#include <time.h>

#include "api/answer_reply.h"
#include "api/conversation.h"
#include "api/writer.h"

chat_request chat_request_of(const app *app, const http_request *rq, const json_t *body) {
    return (chat_request){.templates = rq->served->port->chat,
                          .body = body,
                          .answer = true,
                          .own_template = app->opt.trust_request_chat_template};
}

/* The template of the request: its own where that is allowed, else the model's. */
static status template_of(const chat_request *q, bool tools, arena *mem,
                          const chat_template **out, err *e) {
    str source = {0};
    status s = json_in_str(q->body, "chat_template", &source, e);
    *out = chat_templates_pick(q->templates, tools);
    if (s == OK && source.len) {
        chat_template *own = arena_alloc(mem, sizeof *own);
        if (!q->own_template) {
            err_set(e, ERR_INVALID, "a chat_template in a request is not allowed here");
            err_hint(e, "trust_request_chat_template allows it");
            return err_field(e, "chat_template");
        }
        if (!own) return err_set(e, ERR_NO_MEMORY, "no memory for the chat template");
        *out = own;
        return template_open(own, source, &q->templates->tokens, mem, mem->src, e);
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

/* The request's own template lies in mem, all else in work. */
static status render(const chat_request *q, arena *mem, arena *work, chat_prompt_text *out,
                     err *e) {
    template_args args = {.add_generation_prompt = q->answer};
    conversation c = {0};
    time_t now = time(NULL);
    localtime_r(&now, &args.now);
    const chat_template *t;
    status s = conversation_args(&args, q->body, q->templates->kwargs, work, e);
    if (s == OK) s = template_of(q, args.tools != NULL, mem, &t, e);
    if (s != OK) return s;
    const str mark = q->continue_final ? str_of(end_mark) : STR("");
    s = conversation_read(&c, q->body, t, mark, work, e);
    if (s == OK) s = check_takes(t, &args, q->body, e);
    if (s == OK && q->continue_final && c.last_content.len == 0) {
        err_set(e, ERR_INVALID, "the last message is empty: it has no text to continue");
        return err_field(e, "continue_final_message");
    }
    args.messages = c.messages;
    if (s == OK) s = template_render(t, &args, work, &out->text, e);
    if (s == OK && q->continue_final) s = end_with_mark(&out->text, e);
    out->template = t;
    out->last_role = c.last_role;
    out->last_content = c.last_content;
    return s;
}

/* Copies what is left of a rendering. */
static bool keep(const chat_prompt_text *from, arena *mem, chat_prompt_text *out) {
    const jinja_text *t = &from->text;
    jinja_run *runs = arena_alloc(mem, t->n_runs * sizeof *runs);
    *out = (chat_prompt_text){.text = {arena_str(mem, t->text), runs, t->n_runs},
                              .template = from->template,
                              .last_role = arena_str(mem, from->last_role),
                              .last_content = arena_str(mem, from->last_content)};
    if (!runs || !out->text.text.ptr || !out->last_role.ptr || !out->last_content.ptr)
        return false;
    if (t->n_runs) memcpy(runs, t->runs, t->n_runs * sizeof *runs);
    return true;
}

status chat_prompt(const chat_request *q, arena *mem, chat_prompt_text *out, err *e) {
    /* What a template makes on its way takes twenty times its prompt: it goes back at once. */
    arena work;
    chat_prompt_text made;
    arena_init(&work, mem->src, mem->limit);
    status s = render(q, mem, &work, &made, e);
    if (s == OK && !keep(&made, mem, out))
        s = err_set(e, ERR_NO_MEMORY, "no memory for the prompt");
    if (work.failed) mem->failed = true;
    arena_clear(&work);
    return s;
}

/* A conversation on its way through the template. */
typedef struct chat_job {
    answer *a;
    chat_request q;
    chat_prompt_text t;
    status status;
    err error;
} chat_job;

static void render_job(void *arg) {
    chat_job *j = arg;
    j->status = chat_prompt(&j->q, &j->a->rq->mem, &j->t, &j->error);
}

static void start_rendered(void *arg) {
    const chat_job *j = arg;
    answer *a = j->a;
    if (j->status != OK) {
        app_refuse(a->app, a->rq, &j->error);
        return;
    }
    err e;
    if (answer_reads(a, j->t.template, j->t.text.text, &e) != OK) {
        app_refuse(a->app, a->rq, &e);
        return;
    }
    if (!answer_prompts(a, 1)) return;
    a->messages = json_object_get(j->q.body, "messages");
    a->prompts[0].text = j->t.text.text;
    a->prompts[0].is_text = true;
    a->prompts[0].marked = j->t.text;
    a->prompts[0].is_marked = true;
    if (str_eqz(j->t.last_role, "assistant")) a->chat_echo = j->t.last_content;
    answer_start(a);
}

static void rendered(void *arg) {
    chat_job *j = arg;
    http_take_back(j->a->rq, start_rendered, j);
}

void chat_start(app *app, http_request *rq, const json_t *body, const writer *w) {
    answer *a = answer_new(app, rq, body, w);
    chat_job *j = a ? arena_zalloc(&rq->mem, sizeof *j) : NULL;
    if (!a) return;
    if (!j) {
        http_refuse_memory(rq);
        return;
    }
    *j = (chat_job){.a = a, .q = chat_request_of(app, rq, body)};
    j->q.answer = a->p.add_generation_prompt;
    j->q.continue_final = a->p.continue_final;
    if (rq->body.len > ANSWER_INLINE_BYTES) {
        if (app_lend(rq, rq->served->port, render_job, rendered, j)) return;
        err_set(&j->error, ERR_BUSY, "too many long prompts at once");
        app_refuse(app, rq, &j->error);
        return;
    }
    render_job(j);
    start_rendered(j);
}

void chat_run(app *app, http_request *rq) {
    const json_t *body = app_body(app, rq);
    if (body) chat_start(app, rq, body, &writer_chat);
}

void chat_count_run(app *app, http_request *rq) {
    const json_t *body = app_body(app, rq);
    if (body) chat_start(app, rq, body, &writer_chat_count);
}
