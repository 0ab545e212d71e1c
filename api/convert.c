/* What converters share (api/convert.h). Owns nothing. Loop thread. */
#include "api/convert.h"

#include "base/log.h"
#include "json/out.h"

typedef struct run_args {
    conversion *c;
    convert_fn *fn;
    status status;
    err *error;
} run_args;

static void run(void *arg) {
    run_args *r = arg;
    r->c->out = json_object();
    r->c->messages = json_array();
    json_object_set_new(r->c->out, "messages", r->c->messages);
    r->status = r->fn(r->c, r->error);
}

status convert_body(conversion *c, convert_fn *fn, err *e) {
    run_args r = {.c = c, .fn = fn, .error = e};
    if (json_within(c->mem, run, &r) && !c->mem->failed) return r.status;
    return err_set(e, ERR_NO_MEMORY, "no memory for the request");
}

void convert_start(app *app, http_request *rq, convert_fn *fn, start_fn *start,
                   const writer *w) {
    conversion c = {.in = app_body(app, rq), .mem = &rq->mem, .strip = app->strip};
    err e;
    if (!c.in) return;
    status s = convert_body(&c, fn, &e);
    rq->n_stripped = c.n_stripped;
    if (s == ERR_NO_MEMORY)
        http_refuse_memory(rq);
    else if (s != OK)
        app_refuse(app, rq, &e);
    else
        start(app, rq, c.out, w);
}

void convert_run(app *app, http_request *rq, convert_fn *fn, const writer *w) {
    convert_start(app, rq, fn, w->chat ? chat_start : completions_start, w);
}

void convert_put(json_t *object, const char *key, const json_t *v) {
    if (v) json_object_set(object, key, (json_t *)v);
}

void convert_put_text(json_t *object, const char *key, str text) {
    json_object_set_new(object, key, json_stringn_nocheck(text.ptr ? text.ptr : "", text.len));
}

void convert_append_text(conversion *c, json_t *object, const char *key, str text) {
    const json_t *before = json_object_get(object, key);
    buf b;
    buf_init(&b, c->mem);
    if (before) buf_add(&b, json_in_text(before));
    buf_add(&b, text);
    if (!b.failed) convert_put_text(object, key, buf_str(&b));
}

static bool is_among(const char *name, const char *const *list) {
    for (; *list; list++)
        if (strcmp(name, *list) == 0) return true;
    return false;
}

void convert_rest(conversion *c, const char *const *own) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)c->in, key, v) {
        if (!is_among(key, own)) convert_put(c->out, key, v);
    }
}

status convert_refuse(const conversion *c, const char *const *names, err *e) {
    for (; *names; names++) {
        const json_t *v = json_object_get(c->in, *names);
        const bool one = json_is_integer(v) && json_integer_value(v) == 1;
        const bool empty = (json_is_array(v) && json_array_size(v) == 0) ||
                           (json_is_object(v) && json_object_size(v) == 0);
        if (!v || json_is_null(v) || json_is_false(v) || one || empty) continue;
        err_set(e, ERR_UNSUPPORTED, "%s is not supported here", *names);
        return err_field(e, "%s", *names);
    }
    return OK;
}

/* ---- messages ---- */

json_t *convert_message(conversion *c, str role) {
    json_t *m = json_object();
    convert_put_text(m, "role", role);
    json_array_append_new(c->messages, m);
    c->turn = str_eqz(role, "assistant") ? m : NULL;
    return m;
}

json_t *convert_assistant(conversion *c) {
    return c->turn ? c->turn : convert_message(c, STR("assistant"));
}

/* The list that is object's member, made if there is none. */
static json_t *list_of(json_t *object, const char *key) {
    json_t *list = json_object_get(object, key);
    if (list) return list;
    list = json_array();
    json_object_set_new(object, key, list);
    return list;
}

void convert_call(conversion *c, str id, str name, const json_t *arguments) {
    json_t *call = json_object(), *function = json_object();
    convert_put_text(call, "id", id);
    convert_put_text(call, "type", STR("function"));
    json_object_set_new(call, "function", function);
    convert_put_text(function, "name", name);
    if (json_is_object(arguments)) {
        buf text;
        buf_init(&text, c->mem);
        json_value(&text, arguments);
        if (!text.failed) convert_put_text(function, "arguments", buf_str(&text));
    } else {
        convert_put(function, "arguments", arguments);
    }
    json_array_append_new(list_of(convert_assistant(c), "tool_calls"), call);
}

void convert_part(json_t *message, str text) {
    json_t *part = json_object();
    convert_put_text(part, "type", STR("text"));
    convert_put_text(part, "text", text);
    json_array_append_new(list_of(message, "content"), part);
}

/* ---- tools ---- */

static json_t *function_of(json_t *object) {
    json_t *function = json_object();
    convert_put_text(object, "type", STR("function"));
    json_object_set_new(object, "function", function);
    return function;
}

void convert_tool(conversion *c, const json_t *name, const json_t *description,
                  const json_t *parameters, const json_t *strict) {
    json_t *tool = json_object(), *function = function_of(tool);
    convert_put(function, "name", name);
    convert_put(function, "description", description);
    convert_put(function, "parameters", parameters);
    convert_put(function, "strict", strict);
    json_array_append_new(list_of(c->out, "tools"), tool);
}

void convert_tool_choice(conversion *c, const json_t *name) {
    json_t *choice = json_object();
    convert_put(function_of(choice), "name", name);
    json_object_set_new(c->out, "tool_choice", choice);
}

void convert_skip_tool(void) {
    static bool said;
    if (!said)
        log_warn(
            "a request has tools of a kind that only its provider can run: they are passed "
            "over (said once)");
    said = true;
}
