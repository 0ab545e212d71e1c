/* Reads tools and tool_choice. Owns nothing; loop thread. */
#include "api/tools.h"

#include <string.h>

static bool is_tool_name(const char *s, size_t n) {
    if (n == 0 || n > TOOLS_MAX_NAME) return false;
    for (size_t i = 0; i < n; i++) {
        const char c = s[i];
        const bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
        if (!ok) return false;
    }
    return true;
}

static const json_t *name_of(const json_t *tool) {
    const json_t *f = json_object_get(tool, "function");
    return json_object_get(json_is_object(f) ? f : tool, "name");
}

static const json_t *find(const json_t *tools, const json_t *name) {
    size_t i;
    const json_t *t;
    json_array_foreach(tools, i, t) if (json_equal(name_of(t), name)) return t;
    return NULL;
}

static status bad_tool(err *e, size_t i, const char *field, const char *what) {
    err_set(e, ERR_INVALID, "%s", what);
    return err_field(e, "tools[%zu]%s", i, field);
}

static status check_tool(const json_t *tools, size_t i, err *e) {
    const json_t *tool = json_array_get(tools, i), *f = json_object_get(tool, "function");
    const json_t *type = json_object_get(tool, "type"), *name = json_object_get(f, "name");
    const json_t *parameters = json_object_get(f, "parameters");
    const json_t *strict = json_object_get(f, "strict");
    if (!json_is_object(tool)) return bad_tool(e, i, "", "a tool must be an object");
    if (type && (!json_is_string(type) || !str_eqz(json_in_text(type), "function")))
        return bad_tool(e, i, ".type", "only tools of type \"function\" are supported");
    if (!json_is_object(f)) return bad_tool(e, i, ".function", "a tool needs a function");
    if (!json_is_string(name) ||
        !is_tool_name(json_string_value(name), json_string_length(name)))
        return bad_tool(e, i, ".function.name",
                        "a name is 1 to 64 letters, digits, underscores, dashes or dots");
    if (parameters && !json_is_null(parameters) && !json_is_object(parameters))
        return bad_tool(e, i, ".function.parameters", "parameters must be a JSON schema");
    if (strict && !json_is_null(strict) && !json_is_boolean(strict))
        return bad_tool(e, i, ".function.strict", "strict must be true or false");
    if (find(tools, name) != tool)
        return bad_tool(e, i, ".function.name", "two tools have this name");
    return OK;
}

static status bad_choice(err *e, const char *what) {
    err_set(e, ERR_INVALID, "%s", what);
    return err_field(e, "tool_choice");
}

/* Those of the list that are named by entries like {"type": "function", "function": {"name"}}. */
static status narrow(tool_params *p, const json_t *names, arena *mem, err *e) {
    arena *before = json_use_arena(mem);
    json_t *list = json_array();
    status s = OK;
    size_t i;
    const json_t *v;
    json_array_foreach(names, i, v) {
        const json_t *tool = find(p->list, name_of(v));
        if (!tool)
            s = bad_choice(e, "tool_choice names a function that is not among the tools");
        if (!tool || json_array_append(list, (json_t *)tool) != 0) break;
    }
    json_use_arena(before);
    if (s != OK) return s;
    if (!list || json_array_size(list) != json_array_size(names))
        return err_set(e, ERR_NO_MEMORY, "no memory for tools");
    if (json_array_size(list) == 0) return bad_choice(e, "tool_choice allows no tool");
    p->list = list;
    return OK;
}

static status read_word(tool_params *p, const json_t *v, err *e) {
    static const char *const words[] = {"none", "auto", "required"};
    for (int k = 0; k < 3; k++) {
        if (!str_eqz(json_in_text(v), words[k])) continue;
        p->mode = (tools_mode)k;
        return OK;
    }
    return bad_choice(e, "tool_choice must be none, auto, required, or an object");
}

/* One function, or a list of allowed ones. */
static status read_object(tool_params *p, const json_t *v, arena *mem, err *e) {
    str type = STR("function");
    if (json_in_str(v, "type", &type, e) != OK) return err_field(e, "tool_choice.type");
    if (str_eqz(type, "allowed_tools")) {
        const json_t *inner = json_object_get(v, "allowed_tools");
        if (json_is_object(inner)) v = inner;
        const json_t *mode = json_object_get(v, "mode"), *names = json_object_get(v, "tools");
        if (!json_is_array(names)) return bad_choice(e, "allowed_tools needs a list of tools");
        p->mode = TOOLS_AUTO;
        status s = mode ? read_word(p, mode, e) : OK;
        return s == OK ? narrow(p, names, mem, e) : s;
    }
    if (!str_eqz(type, "function"))
        return bad_choice(e, "only a function, or allowed_tools, can be chosen");
    arena *before = json_use_arena(mem);
    json_t *one = json_array();
    const bool ok = one && json_array_append(one, (json_t *)v) == 0;
    json_use_arena(before);
    if (!ok) return err_set(e, ERR_NO_MEMORY, "no memory for tools");
    if (!json_is_string(name_of(v)))
        return bad_choice(e, "tool_choice needs a function's name");
    p->mode = TOOLS_REQUIRED;
    p->parallel = false;
    return narrow(p, one, mem, e);
}

status tools_read(tool_params *p, const json_t *body, arena *mem, err *e) {
    const json_t *tools = json_object_get(body, "tools");
    const json_t *choice = json_object_get(body, "tool_choice");
    *p = (tool_params){.mode = TOOLS_OFF, .parallel = true};
    status s = json_in_bool(body, "parallel_tool_calls", &p->parallel, e);
    if (s != OK) return s;
    if (tools && !json_is_null(tools) && !json_is_array(tools))
        return json_in_wrong(e, "tools", "a list", tools);
    if (json_array_size(tools) > TOOLS_MAX) {
        err_set(e, ERR_INVALID, "more than %d tools", TOOLS_MAX);
        return err_field(e, "tools");
    }
    for (size_t i = 0; i < json_array_size(tools) && s == OK; i++) s = check_tool(tools, i, e);
    if (s != OK) return s;
    if (json_array_size(tools)) p->list = tools, p->mode = TOOLS_AUTO;
    if (choice && json_is_string(choice))
        s = read_word(p, choice, e);
    else if (choice && json_is_object(choice))
        s = read_object(p, choice, mem, e);
    else if (choice && !json_is_null(choice))
        s = bad_choice(e, "tool_choice must be a string or an object");
    if (s == OK && !p->list && p->mode == TOOLS_REQUIRED)
        s = bad_choice(e, "tool_choice needs tools");
    if (!p->list) p->mode = TOOLS_OFF;
    return s;
}
