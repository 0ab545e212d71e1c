/* POST /v1/responses as a chat. Nothing is stored: what names an earlier answer is refused. */
#include <stdio.h>

#include "api/convert.h"

/* ---- input ---- */

static status unknown(err *e, const char *what, str type, const char *field, size_t i) {
    err_set(e, ERR_UNSUPPORTED, "%s of the type %.*s are not supported", what,
            type.len < 40 ? (int)type.len : 40, type.ptr ? type.ptr : "");
    return err_field(e, "%s[%zu]", field, i);
}

/* Adds a list of content parts to a message. */
static status convert_parts(json_t *message, const json_t *parts, size_t item, err *e) {
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        str type = STR(""), text = {0};
        json_in_str(part, "type", &type, e);
        const bool refusal = str_eqz(type, "refusal");
        const bool known = refusal || str_eqz(type, "input_text") ||
                           str_eqz(type, "output_text") || str_eqz(type, "text");
        if (!known) {
            char field[48];
            snprintf(field, sizeof field, "input[%zu].content", item);
            return unknown(e, "parts", type, field, i);
        }
        if (json_in_str(part, refusal ? "refusal" : "text", &text, e) != OK || !text.ptr) {
            err_set(e, ERR_INVALID, "the part has no text");
            return err_field(e, "input[%zu].content[%zu]", item, i);
        }
        convert_part(message, text);
    }
    return OK;
}

/* A string, or a list of parts, as the message's content. */
static status convert_content(json_t *message, const json_t *content, size_t item, err *e) {
    if (json_is_string(content)) {
        convert_put(message, "content", content);
        return OK;
    }
    if (json_is_array(content) && json_array_size(content))
        return convert_parts(message, content, item, e);
    if (json_is_array(content)) {
        convert_put_text(message, "content", STR(""));
        return OK;
    }
    err_set(e, ERR_INVALID, "content must be a string or a list of parts");
    return err_field(e, "input[%zu]", item);
}

static status on_message(conversion *c, const json_t *item, size_t i, err *e) {
    const json_t *role = json_object_get(item, "role");
    if (!json_is_string(role)) {
        err_set(e, ERR_INVALID, "a message needs a role");
        return err_field(e, "input[%zu].role", i);
    }
    /* Reasoning that stands before an answer belongs to its message. */
    const bool goes_on = str_eqz(json_in_text(role), "assistant") && c->turn &&
                         !json_object_get(c->turn, "content") &&
                         !json_object_get(c->turn, "tool_calls");
    json_t *m = goes_on ? c->turn : convert_message(c, json_in_text(role));
    return convert_content(m, json_object_get(item, "content"), i, e);
}

/* {"input": TEXT}: the arguments of a tool of the type custom. */
static const json_t *custom_arguments(str input) {
    json_t *o = json_object();
    convert_put_text(o, "input", input);
    return o;
}

static status on_call(conversion *c, const json_t *item, size_t i, err *e) {
    const bool custom =
        str_eqz(json_in_text(json_object_get(item, "type")), "custom_tool_call");
    str id = {0}, name = {0}, text = {0};
    status s = json_in_str(item, "call_id", &id, e);
    if (s == OK) s = json_in_str(item, "name", &name, e);
    if (s == OK) s = json_in_str(item, custom ? "input" : "arguments", &text, e);
    if (s != OK || !id.ptr || !name.ptr || !text.ptr) {
        err_set(e, ERR_INVALID, "a call needs call_id, name and %s, each a string",
                custom ? "input" : "arguments");
        return err_field(e, "input[%zu]", i);
    }
    convert_call(c, id, name,
                 custom ? custom_arguments(text) : json_object_get(item, "arguments"));
    return OK;
}

static status on_output(conversion *c, const json_t *item, size_t i, err *e) {
    str id = {0};
    if (json_in_str(item, "call_id", &id, e) != OK || !id.ptr) {
        err_set(e, ERR_INVALID, "the output of a call needs its call_id");
        return err_field(e, "input[%zu].call_id", i);
    }
    json_t *m = convert_message(c, STR("tool"));
    convert_put_text(m, "tool_call_id", id);
    return convert_content(m, json_object_get(item, "output"), i, e);
}

/* The reasoning itself, where the client has it; a summary is none. */
static status on_reasoning(conversion *c, const json_t *item, size_t i, err *e) {
    const json_t *content = json_object_get(item, "content");
    json_t *m = json_array_size(content) ? convert_message(c, STR("assistant")) : NULL;
    for (size_t k = 0; k < json_array_size(content); k++) {
        str text = {0};
        if (json_in_str(json_array_get(content, k), "text", &text, e) != OK)
            return err_field(e, "input[%zu].content[%zu]", i, k);
        convert_append_text(c, m, "reasoning_content", text);
    }
    return OK;
}

static status convert_item(conversion *c, const json_t *item, size_t i, err *e) {
    static const struct {
        const char *type;
        status (*fn)(conversion *, const json_t *, size_t, err *);
    } kinds[] = {{"message", on_message},
                 {"function_call", on_call},
                 {"custom_tool_call", on_call},
                 {"function_call_output", on_output},
                 {"custom_tool_call_output", on_output},
                 {"reasoning", on_reasoning}};
    str type = STR("message");
    if (!json_is_object(item)) {
        char name[32];
        snprintf(name, sizeof name, "input[%zu]", i);
        return json_in_wrong(e, name, "an object", item);
    }
    if (json_in_str(item, "type", &type, e) != OK) return err_field(e, "input[%zu].type", i);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (str_eqz(type, kinds[k].type)) return kinds[k].fn(c, item, i, e);
    return unknown(e, "items", type, "input", i);
}

static status convert_input(conversion *c, err *e) {
    const json_t *input = json_object_get(c->in, "input");
    str instructions = STR("");
    status s = json_in_str(c->in, "instructions", &instructions, e);
    if (s == OK && instructions.len)
        convert_put_text(convert_message(c, STR("system")), "content", instructions);
    if (s == OK && json_is_string(input))
        convert_put(convert_message(c, STR("user")), "content", input);
    else if (s == OK && input && !json_is_null(input) && !json_is_array(input))
        return json_in_wrong(e, "input", "a string or a list of items", input);
    for (size_t i = 0; s == OK && i < json_array_size(input); i++)
        s = convert_item(c, json_array_get(input, i), i, e);
    if (s != OK || json_array_size(c->messages)) return s;
    err_set(e, ERR_INVALID, input ? "input is empty" : "input is missing");
    return err_field(e, "input");
}

/* ---- tools ---- */

/* Of a tool of the type custom: one string, whatever its format. */
static const json_t *custom_parameters(void) {
    return json_pack("{s:s,s:{s:{s:s}},s:[s],s:b}", "type", "object", "properties", "input",
                     "type", "string", "required", "input", "additionalProperties", 0);
}

static status convert_tools(conversion *c, err *e) {
    const json_t *tools = json_object_get(c->in, "tools");
    if (tools && !json_is_null(tools) && !json_is_array(tools))
        return json_in_wrong(e, "tools", "a list", tools);
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *t = json_array_get(tools, i);
        str type = STR("");
        if (!json_is_object(t) || json_in_str(t, "type", &type, e) != OK) {
            err_set(e, ERR_INVALID, "a tool must be an object with a type");
            return err_field(e, "tools[%zu]", i);
        }
        const json_t *name = json_object_get(t, "name");
        const json_t *description = json_object_get(t, "description");
        if (str_eqz(type, "function"))
            convert_tool(c, name, description, json_object_get(t, "parameters"),
                         json_object_get(t, "strict"));
        else if (str_eqz(type, "custom"))
            convert_tool(c, name, description, custom_parameters(), NULL);
        else
            convert_skip_tool();
    }
    return OK;
}

/* {"type": "allowed_tools", "mode", "tools"} in chat's form. */
static void convert_allowed(conversion *c, const json_t *choice) {
    const json_t *tools = json_object_get(choice, "tools");
    json_t *out = json_object(), *allowed = json_object(), *list = json_array();
    convert_put_text(out, "type", STR("allowed_tools"));
    json_object_set_new(out, "allowed_tools", allowed);
    convert_put(allowed, "mode", json_object_get(choice, "mode"));
    json_object_set_new(allowed, "tools", list);
    for (size_t i = 0; i < json_array_size(tools); i++) {
        json_t *tool = json_object(), *function = json_object();
        convert_put_text(tool, "type", STR("function"));
        json_object_set_new(tool, "function", function);
        convert_put(function, "name", json_object_get(json_array_get(tools, i), "name"));
        json_array_append_new(list, tool);
    }
    json_object_set_new(c->out, "tool_choice", out);
}

static status convert_choice(conversion *c, err *e) {
    const json_t *choice = json_object_get(c->in, "tool_choice");
    str type = STR("");
    if (!choice || json_is_null(choice) || json_is_string(choice)) {
        convert_put(c->out, "tool_choice", choice);
        return OK;
    }
    if (!json_is_object(choice))
        return json_in_wrong(e, "tool_choice", "a string or an object", choice);
    json_in_str(choice, "type", &type, e);
    if (str_eqz(type, "function") || str_eqz(type, "custom")) {
        convert_tool_choice(c, json_object_get(choice, "name"));
        return OK;
    }
    if (str_eqz(type, "allowed_tools")) {
        convert_allowed(c, choice);
        return OK;
    }
    err_set(e, ERR_UNSUPPORTED, "tool_choice of the type %.*s is not supported",
            type.len < 40 ? (int)type.len : 40, type.ptr);
    return err_field(e, "tool_choice");
}

/* ---- the rest ---- */

static status convert_text_format(conversion *c, err *e) {
    const json_t *text = json_object_get(c->in, "text");
    const json_t *format = json_object_get(text, "format");
    str type = STR("text");
    if (text && !json_is_null(text) && !json_is_object(text))
        return json_in_wrong(e, "text", "an object", text);
    convert_put(c->out, "verbosity", json_object_get(text, "verbosity"));
    if (!format || json_is_null(format)) return OK;
    if (json_in_str(format, "type", &type, e) != OK || !str_eqz(type, "json_schema")) {
        convert_put(c->out, "response_format", format);
        return OK;
    }
    json_t *out = json_object();
    convert_put_text(out, "type", type);
    convert_put(out, "json_schema", format); /* name, schema and strict are its members */
    json_object_set_new(c->out, "response_format", out);
    return OK;
}

static status convert_reasoning(conversion *c, err *e) {
    const json_t *r = json_object_get(c->in, "reasoning");
    if (r && !json_is_null(r) && !json_is_object(r))
        return json_in_wrong(e, "reasoning", "an object", r);
    convert_put(c->out, "reasoning_effort", json_object_get(r, "effort"));
    return OK;
}

/* What of "include" this server has: logprobs. The rest is of tools and stores it has not. */
static void convert_include(conversion *c) {
    const json_t *list = json_object_get(c->in, "include");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *name = json_array_get(list, i);
        if (!json_is_string(name) ||
            !str_eqz(json_in_text(name), "message.output_text.logprobs"))
            continue;
        json_object_set_new(c->out, "logprobs", json_true());
        convert_put(c->out, "top_logprobs", json_object_get(c->in, "top_logprobs"));
    }
}

status convert_responses(conversion *c, err *e) {
    static const char *const refused[] = {
        "previous_response_id", "conversation",     "background", "prompt", "n", "echo",
        "prompt_logprobs",      "return_token_ids", NULL};
    static const char *const own[] = {"input",
                                      "instructions",
                                      "text",
                                      "reasoning",
                                      "max_output_tokens",
                                      "max_tool_calls",
                                      "tools",
                                      "tool_choice",
                                      "truncation",
                                      "include",
                                      "top_logprobs",
                                      "previous_response_id",
                                      "conversation",
                                      "background",
                                      "prompt",
                                      "messages",
                                      "stream_options",
                                      "return_memory",
                                      NULL};
    convert_rest(c, own);
    convert_put(c->out, "max_completion_tokens", json_object_get(c->in, "max_output_tokens"));
    convert_include(c);
    status s = convert_refuse(c, refused, e);
    if (s == OK) s = convert_input(c, e);
    if (s == OK) s = convert_tools(c, e);
    if (s == OK) s = convert_choice(c, e);
    if (s == OK) s = convert_text_format(c, e);
    if (s == OK) s = convert_reasoning(c, e);
    return s;
}

void responses_run(app *app, http_request *rq) {
    convert_run(app, rq, convert_responses, &writer_responses);
}

void responses_count_run(app *app, http_request *rq) {
    convert_run(app, rq, convert_responses, &writer_responses_count);
}
