/* POST /v1/messages, Anthropic's, as a chat. cache_control and the signatures of thinking are
 * passed over: the prefix cache serves all requests, and reasoning is taken from anyone. */
#include <stdio.h>

#include "api/convert.h"

static str type_of(const json_t *block) {
    const json_t *type = json_object_get(block, "type");
    return json_is_string(type) ? json_in_text(type) : STR("");
}

/* A member that must be a string. */
static status text_of(const json_t *block, const char *key, const char *field, str *out,
                      err *e) {
    const json_t *v = json_object_get(block, key);
    *out = json_is_string(v) ? json_in_text(v) : STR("");
    if (json_is_string(v)) return OK;
    err_set(e, ERR_INVALID, "%s is missing or no string", key);
    return err_field(e, "%s", field);
}

static status unknown(const json_t *block, const char *field, err *e) {
    const str type = type_of(block);
    err_set(e, ERR_UNSUPPORTED, "blocks of the type %.*s are not supported",
            type.len < 40 ? (int)type.len : 40, type.ptr);
    return err_field(e, "%s", field);
}

/* Texts alone, as the parts of a message. */
static status convert_texts(json_t *message, const json_t *blocks, const char *field, err *e) {
    for (size_t i = 0; i < json_array_size(blocks); i++) {
        const json_t *block = json_array_get(blocks, i);
        str text;
        if (!str_eqz(type_of(block), "text")) return unknown(block, field, e);
        status s = text_of(block, "text", field, &text, e);
        if (s != OK) return s;
        convert_part(message, text);
    }
    return OK;
}

/* A string or blocks of text; nothing is an empty text. */
static status convert_text(json_t *message, const json_t *v, const char *field, err *e) {
    const bool none = !v || json_is_null(v) || (json_is_array(v) && !json_array_size(v));
    if (none)
        convert_put_text(message, "content", STR(""));
    else if (json_is_string(v))
        convert_put(message, "content", v);
    else if (json_is_array(v))
        return convert_texts(message, v, field, e);
    else
        return json_in_wrong(e, field, "a string or a list of blocks", v);
    return OK;
}

/* A text without the lines that are left out; NULL: it has none of them. */
static json_t *strip_text(conversion *c, const json_t *text) {
    buf b;
    buf_init(&b, c->mem);
    const uint32_t n =
        json_is_string(text) ? line_filter_cut(c->strip, json_in_text(text), &b) : 0;
    if (n == 0 || b.failed) return NULL;
    c->n_stripped += n;
    return json_stringn_nocheck(b.len ? b.ptr : "", b.len);
}

/* Some clients send lines about the client, first of all, that differ from request to request: the
 * prefix cache would serve none of them. A block that was nothing else goes. */
static const json_t *strip_system(conversion *c, const json_t *system) {
    json_t *text = strip_text(c, system);
    if (text || !json_is_array(system)) return text ? text : system;
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(system); i++) {
        json_t *block = json_array_get(system, i);
        text = strip_text(c, json_object_get(block, "text"));
        if (text && !json_string_length(text)) continue;
        if (text) {
            block = json_copy(block);
            json_object_set_new(block, "text", text);
        }
        json_array_append(out, block);
    }
    return out;
}

static status convert_system(conversion *c, err *e) {
    const json_t *system = strip_system(c, json_object_get(c->in, "system"));
    const bool none = !system || json_is_null(system) ||
                      (json_is_array(system) && !json_array_size(system)) ||
                      (json_is_string(system) && !json_string_length(system));
    return none ? OK : convert_text(convert_message(c, STR("system")), system, "system", e);
}

/* ---- messages ---- */

static status on_tool_use(conversion *c, const json_t *block, const char *field, err *e) {
    const json_t *input = json_object_get(block, "input");
    str id, name;
    status s = text_of(block, "id", field, &id, e);
    if (s == OK) s = text_of(block, "name", field, &name, e);
    if (s == OK && input && !json_is_object(input))
        return json_in_wrong(e, field, "a block with an object as input", input);
    if (s == OK) convert_call(c, id, name, input ? input : json_object());
    return s;
}

static status on_tool_result(conversion *c, const json_t *block, const char *field, err *e) {
    str id;
    status s = text_of(block, "tool_use_id", field, &id, e);
    if (s != OK) return s;
    json_t *m = convert_message(c, STR("tool"));
    convert_put_text(m, "tool_call_id", id);
    return convert_text(m, json_object_get(block, "content"), field, e);
}

static status on_thinking(conversion *c, const json_t *block, const char *field, err *e) {
    str text;
    status s = text_of(block, "thinking", field, &text, e);
    if (s == OK && text.len)
        convert_append_text(c, convert_assistant(c), "reasoning_content", text);
    return s;
}

/* The message of the user that texts go to: a result of a tool ends it. */
static status on_user_text(conversion *c, const json_t *block, json_t **m, const char *field,
                           err *e) {
    str text;
    status s = text_of(block, "text", field, &text, e);
    if (s != OK) return s;
    if (!*m) *m = convert_message(c, STR("user"));
    convert_part(*m, text);
    return OK;
}

static status convert_user(conversion *c, const json_t *blocks, size_t i, err *e) {
    json_t *m = NULL;
    for (size_t k = 0; k < json_array_size(blocks); k++) {
        const json_t *block = json_array_get(blocks, k);
        char field[64];
        snprintf(field, sizeof field, "messages[%zu].content[%zu]", i, k);
        status s = OK;
        if (str_eqz(type_of(block), "text")) {
            s = on_user_text(c, block, &m, field, e);
        } else if (str_eqz(type_of(block), "tool_result")) {
            m = NULL;
            s = on_tool_result(c, block, field, e);
        } else {
            s = unknown(block, field, e);
        }
        if (s != OK) return s;
    }
    return OK;
}

static status convert_reply(conversion *c, const json_t *blocks, size_t i, err *e) {
    json_t *m = convert_message(c, STR("assistant"));
    for (size_t k = 0; k < json_array_size(blocks); k++) {
        const json_t *block = json_array_get(blocks, k);
        const str type = type_of(block);
        char field[64];
        str text;
        snprintf(field, sizeof field, "messages[%zu].content[%zu]", i, k);
        status s = OK;
        if (str_eqz(type, "text")) {
            s = text_of(block, "text", field, &text, e);
            if (s == OK) convert_part(m, text);
        } else if (str_eqz(type, "tool_use")) {
            s = on_tool_use(c, block, field, e);
        } else if (str_eqz(type, "thinking")) {
            s = on_thinking(c, block, field, e);
        } else if (!str_eqz(type, "redacted_thinking")) {
            s = unknown(block, field, e);
        }
        if (s != OK) return s;
    }
    if (!json_object_get(m, "content") && !json_object_get(m, "tool_calls"))
        convert_put_text(m, "content", STR(""));
    return OK;
}

static status convert_one(conversion *c, const json_t *message, size_t i, err *e) {
    const json_t *role = json_object_get(message, "role");
    const json_t *content = json_object_get(message, "content");
    char field[48];
    snprintf(field, sizeof field, "messages[%zu]", i);
    if (!json_is_object(message)) return json_in_wrong(e, field, "an object", message);
    if (!json_is_string(role)) {
        err_set(e, ERR_INVALID, "a message needs a role");
        return err_field(e, "messages[%zu].role", i);
    }
    if (json_is_array(content) && str_eqz(json_in_text(role), "user"))
        return convert_user(c, content, i, e);
    if (json_is_array(content) && str_eqz(json_in_text(role), "assistant"))
        return convert_reply(c, content, i, e);
    snprintf(field, sizeof field, "messages[%zu].content", i);
    return convert_text(convert_message(c, json_in_text(role)), content, field, e);
}

/* An answer whose beginning the client has written: the model goes on from there. */
static void continue_reply(conversion *c) {
    if (!c->turn || json_object_get(c->turn, "tool_calls")) return;
    json_object_set_new(c->out, "continue_final_message", json_true());
    json_object_set_new(c->out, "add_generation_prompt", json_false());
}

static status convert_all(conversion *c, err *e) {
    const json_t *messages = json_object_get(c->in, "messages");
    if (messages && !json_is_array(messages))
        return json_in_wrong(e, "messages", "a list", messages);
    status s = convert_system(c, e);
    for (size_t i = 0; s == OK && i < json_array_size(messages); i++)
        s = convert_one(c, json_array_get(messages, i), i, e);
    if (s == OK && !json_array_size(messages)) {
        err_set(e, ERR_INVALID, messages ? "the list is empty" : "the list is missing");
        return err_field(e, "messages");
    }
    if (s == OK) continue_reply(c);
    return s;
}

/* ---- tools, and the rest ---- */

static status convert_tools(conversion *c, err *e) {
    const json_t *tools = json_object_get(c->in, "tools");
    if (tools && !json_is_null(tools) && !json_is_array(tools))
        return json_in_wrong(e, "tools", "a list", tools);
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *t = json_array_get(tools, i);
        const str type = type_of(t);
        if (!json_is_object(t)) {
            err_set(e, ERR_INVALID, "a tool must be an object");
            return err_field(e, "tools[%zu]", i);
        }
        if (type.len && !str_eqz(type, "custom"))
            convert_skip_tool();
        else
            convert_tool(c, json_object_get(t, "name"), json_object_get(t, "description"),
                         json_object_get(t, "input_schema"), json_object_get(t, "strict"));
    }
    return OK;
}

static status convert_choice(conversion *c, err *e) {
    const json_t *choice = json_object_get(c->in, "tool_choice");
    if (!choice || json_is_null(choice)) return OK;
    const str type = type_of(choice);
    if (str_eqz(type, "tool"))
        convert_tool_choice(c, json_object_get(choice, "name"));
    else if (str_eqz(type, "any"))
        convert_put_text(c->out, "tool_choice", STR("required"));
    else if (str_eqz(type, "auto") || str_eqz(type, "none"))
        convert_put_text(c->out, "tool_choice", type);
    else
        return json_in_wrong(e, "tool_choice", "an object of the type auto, any, tool or none",
                             choice);
    if (json_is_true(json_object_get(choice, "disable_parallel_tool_use")))
        json_object_set_new(c->out, "parallel_tool_calls", json_false());
    return OK;
}

/* thinking: the templates that can think have a switch of this name; budget_tokens is the limit
 * of reasoning. */
static status convert_thinking(conversion *c, err *e) {
    const json_t *thinking = json_object_get(c->in, "thinking");
    if (!thinking || json_is_null(thinking)) return OK;
    const str type = type_of(thinking);
    const bool on = str_eqz(type, "enabled"), off = str_eqz(type, "disabled");
    if (!on && !off && !str_eqz(type, "adaptive"))
        return json_in_wrong(e, "thinking",
                             "an object of the type enabled, disabled or adaptive", thinking);
    const json_t *given = json_object_get(c->out, "chat_template_kwargs");
    json_t *kwargs = json_is_object(given) ? json_copy((json_t *)given) : json_object();
    if (on || off) json_object_set_new(kwargs, "enable_thinking", json_boolean(on));
    if (json_object_size(kwargs)) json_object_set_new(c->out, "chat_template_kwargs", kwargs);
    if (on)
        convert_put(c->out, "thinking_token_budget",
                    json_object_get(thinking, "budget_tokens"));
    return OK;
}

static status convert_output(conversion *c, err *e) {
    const json_t *config = json_object_get(c->in, "output_config");
    const json_t *format = json_object_get(config, "format");
    if (config && !json_is_null(config) && !json_is_object(config))
        return json_in_wrong(e, "output_config", "an object", config);
    convert_put(c->out, "reasoning_effort", json_object_get(config, "effort"));
    if (!format) format = json_object_get(c->in, "output_format");
    if (!format || json_is_null(format)) return OK;
    json_t *out = json_object(), *schema = json_object();
    convert_put(out, "type", json_object_get(format, "type"));
    convert_put_text(schema, "name", STR("output"));
    convert_put(schema, "schema", json_object_get(format, "schema"));
    json_object_set_new(out, "json_schema", schema);
    json_object_set_new(c->out, "response_format", out);
    return OK;
}

status convert_messages(conversion *c, err *e) {
    static const char *const refused[] = {
        "mcp_servers", "container",        "n", "echo", "prompt_logprobs",
        "logprobs",    "return_token_ids", NULL};
    static const char *const own[] = {
        "system",         "messages",       "tools",         "tool_choice",
        "thinking",       "stop_sequences", "output_config", "output_format",
        "mcp_servers",    "container",      "stop",          "context_management",
        "stream_options", "prompt",         "return_memory", NULL};
    convert_rest(c, own);
    convert_put(c->out, "stop", json_object_get(c->in, "stop_sequences"));
    status s = convert_refuse(c, refused, e);
    if (s == OK) s = convert_all(c, e);
    if (s == OK) s = convert_tools(c, e);
    if (s == OK) s = convert_choice(c, e);
    if (s == OK) s = convert_thinking(c, e);
    if (s == OK) s = convert_output(c, e);
    return s;
}

/* Under the name that Anthropic's clients look for. */
static void name_request(http_request *rq) {
    http_set(rq, "Request-Id", rq->id);
}

void messages_run(app *app, http_request *rq) {
    name_request(rq);
    convert_run(app, rq, convert_messages, &writer_messages);
}

void messages_count_run(app *app, http_request *rq) {
    name_request(rq);
    convert_run(app, rq, convert_messages, &writer_messages_count);
}
