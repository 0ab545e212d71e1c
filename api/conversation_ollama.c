/* POST /api/chat and /api/generate of Ollama as bodies of chat, and a raw prompt as a body of
 * completions. Its options are parameters of sampling under other names; those that say how
 * Ollama computes are passed over. Loop thread. */
#include <stdio.h>
#include <string.h>

#include "api/convert.h"
#include "api/ollama.h"

str ollama_name(str name) {
    const str tag = STR(":latest");
    const bool tagged =
        name.len > tag.len && memcmp(name.ptr + name.len - tag.len, tag.ptr, tag.len) == 0;
    return tagged ? (str){name.ptr, name.len - tag.len} : name;
}

/* ---- parameters ---- */

static bool is_none(const json_t *v) {
    return !v || json_is_null(v) || (json_is_string(v) && !json_string_length(v)) ||
           (json_is_array(v) && !json_array_size(v));
}

static status refuse(const char *name, const char *hint, err *e) {
    err_set(e, ERR_UNSUPPORTED, "%s is not supported", name);
    err_hint(e, "%s", hint);
    return err_field(e, "%s", name);
}

static status convert_options(conversion *c, err *e) {
    static const char *const names[][2] = {{"temperature", "temperature"},
                                           {"top_k", "top_k"},
                                           {"top_p", "top_p"},
                                           {"min_p", "min_p"},
                                           {"typical_p", "typical_p"},
                                           {"repeat_penalty", "repetition_penalty"},
                                           {"repeat_last_n", "repeat_last_n"},
                                           {"presence_penalty", "presence_penalty"},
                                           {"frequency_penalty", "frequency_penalty"},
                                           {"seed", "seed"},
                                           {"stop", "stop"},
                                           {"mirostat", "mirostat"},
                                           {"tfs_z", "tfs_z"}};
    const json_t *o = json_object_get(c->in, "options");
    int64_t n = -1, context = 1;
    if (!o || json_is_null(o)) return OK;
    if (!json_is_object(o)) return json_in_wrong(e, "options", "an object", o);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        convert_put(c->out, names[i][1], json_object_get(o, names[i][0]));
    status s = json_in_int(o, "num_predict", -2, INT32_MAX, &n, e);
    if (s == OK) s = json_in_int(o, "num_ctx", 1, INT32_MAX, &context, e);
    if (s != OK) return s;
    if (n > 0) json_object_set_new(c->out, "max_tokens", json_integer(n));
    /* Checked where the length of the context is known. */
    json_object_set_new(c->out, OLLAMA_CONTEXT, json_integer(context));
    return OK;
}

/* "json", or a schema. */
static status convert_format(conversion *c, err *e) {
    const json_t *v = json_object_get(c->in, "format");
    if (is_none(v)) return OK;
    json_t *format = json_object();
    json_object_set_new(c->out, "response_format", format);
    if (json_is_string(v) && strcmp(json_string_value(v), "json") == 0) {
        convert_put_text(format, "type", STR("json_object"));
        return OK;
    }
    if (!json_is_object(v)) return json_in_wrong(e, "format", "\"json\" or a schema", v);
    json_t *schema = json_object();
    convert_put_text(format, "type", STR("json_schema"));
    convert_put_text(schema, "name", STR("format"));
    convert_put(schema, "schema", v);
    json_object_set_new(schema, "strict", json_true());
    json_object_set_new(format, "json_schema", schema);
    return OK;
}

/* true, false, or how much: "low", "medium", "high". */
static status convert_think(conversion *c, err *e) {
    const json_t *v = json_object_get(c->in, "think");
    if (is_none(v)) return OK;
    if (!json_is_boolean(v) && !json_is_string(v))
        return json_in_wrong(e, "think", "true, false, or a level", v);
    json_t *kwargs = json_object();
    json_object_set_new(kwargs, "enable_thinking", json_boolean(!json_is_false(v)));
    if (json_is_string(v)) convert_put(c->out, "reasoning_effort", v);
    json_object_set_new(c->out, "chat_template_kwargs", kwargs);
    return OK;
}

/* A name without a tag is one with ":latest". */
static void convert_model(conversion *c) {
    const json_t *v = json_object_get(c->in, "model");
    if (json_is_string(v))
        convert_put_text(c->out, "model", ollama_name(json_in_text(v)));
    else
        convert_put(c->out, "model", v);
}

static status convert_common(conversion *c, err *e) {
    static const char *const passed[] = {"logprobs", "top_logprobs"};
    const json_t *stream = json_object_get(c->in, "stream");
    json_object_set_new(c->out, "stream", json_true());
    if (stream && !json_is_null(stream)) convert_put(c->out, "stream", stream);
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
        convert_put(c->out, passed[i], json_object_get(c->in, passed[i]));
    convert_model(c);
    status s = convert_options(c, e);
    if (s == OK) s = convert_format(c, e);
    return s;
}

/* ---- messages ---- */

static str call_id(conversion *c, const json_t *call, uint32_t index) {
    const json_t *id = json_object_get(call, "id");
    char made[32];
    snprintf(made, sizeof made, "call_%u", index);
    return json_is_string(id) ? json_in_text(id) : arena_str(c->mem, str_of(made));
}

/* The calls of an assistant's message, numbered from *n on. */
static status convert_calls(conversion *c, const json_t *calls, uint32_t *n, const char *field,
                            err *e) {
    if (is_none(calls)) return OK;
    if (!json_is_array(calls)) return json_in_wrong(e, field, "a list of calls", calls);
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i);
        const json_t *function = json_object_get(call, "function");
        const json_t *name = json_object_get(function, "name");
        const json_t *arguments = json_object_get(function, "arguments");
        if (!json_is_string(name) || (arguments && !json_is_object(arguments)))
            return json_in_wrong(e, field, "calls with a name and an object of arguments",
                                 call);
        convert_call(c, call_id(c, call, (*n)++), json_in_text(name),
                     arguments ? arguments : json_object());
    }
    return OK;
}

/* n_calls: seen so far; n_results: of them, answered in order unless a message says which. */
static status convert_one(conversion *c, size_t i, uint32_t *n_calls, uint32_t *n_results,
                          err *e) {
    const json_t *in = json_array_get(json_object_get(c->in, "messages"), i);
    char field[48];
    str role = {0}, made;
    snprintf(field, sizeof field, "messages[%zu]", i);
    if (!json_is_object(in)) return json_in_wrong(e, field, "an object", in);
    if (!is_none(json_object_get(in, "images")))
        return refuse("images", "the model reads text", e);
    status s = json_in_str(in, "role", &role, e);
    if (s != OK || !role.ptr) {
        if (s == OK) err_set(e, ERR_INVALID, "a message needs a role");
        return err_field(e, "%s.role", field);
    }
    json_t *m = convert_message(c, role);
    const json_t *content = json_object_get(in, "content");
    if (content && !json_is_null(content))
        convert_put(m, "content", content);
    else
        convert_put_text(m, "content", STR(""));
    if (!is_none(json_object_get(in, "thinking")))
        convert_put(m, "reasoning_content", json_object_get(in, "thinking"));
    if (str_eqz(role, "assistant"))
        return convert_calls(c, json_object_get(in, "tool_calls"), n_calls, field, e);
    if (!str_eqz(role, "tool")) return OK;
    convert_put(m, "name", json_object_get(in, "tool_name"));
    snprintf(field, sizeof field, "call_%u", (*n_results)++);
    made = arena_str(c->mem, str_of(field));
    if (json_is_string(json_object_get(in, "tool_call_id")))
        convert_put(m, "tool_call_id", json_object_get(in, "tool_call_id"));
    else if (made.ptr)
        convert_put_text(m, "tool_call_id", made);
    return OK;
}

status convert_ollama_chat(conversion *c, err *e) {
    const json_t *in = json_object_get(c->in, "messages");
    uint32_t n_calls = 0, n_results = 0;
    status s = convert_common(c, e);
    if (s == OK) s = convert_think(c, e);
    if (s != OK) return s;
    convert_put(c->out, "tools", json_object_get(c->in, "tools"));
    if (!json_is_array(in)) {
        err_set(e, ERR_INVALID, "messages must be a list");
        return err_field(e, "messages");
    }
    for (size_t i = 0; i < json_array_size(in) && s == OK; i++)
        s = convert_one(c, i, &n_calls, &n_results, e);
    return s;
}

/* ---- a prompt ---- */

static status check_generate(const conversion *c, err *e) {
    static const char *const refused[][2] = {
        {"images", "the model reads text"},
        {"suffix", "/infill of llama.cpp's API fills in the middle"},
        {"template", "the model's chat template is used; raw: true does without"},
        {"context", "send the conversation to /api/chat"}};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (!is_none(json_object_get(c->in, refused[i][0])))
            return refuse(refused[i][0], refused[i][1], e);
    return OK;
}

status convert_ollama_raw(conversion *c, err *e) {
    status s = check_generate(c, e);
    json_object_del(c->out, "messages");
    convert_put(c->out, "prompt", json_object_get(c->in, "prompt"));
    return s == OK ? convert_common(c, e) : s;
}

status convert_ollama_generate(conversion *c, err *e) {
    const json_t *system = json_object_get(c->in, "system");
    const json_t *prompt = json_object_get(c->in, "prompt");
    status s = check_generate(c, e);
    if (s == OK) s = convert_common(c, e);
    if (s == OK) s = convert_think(c, e);
    if (s != OK) return s;
    if (!json_is_string(prompt)) return json_in_wrong(e, "prompt", "a string", prompt);
    if (!is_none(system)) convert_put(convert_message(c, STR("system")), "content", system);
    convert_put(convert_message(c, STR("user")), "content", prompt);
    return OK;
}
