/* From the messages of a request to those that a template is given (api/conversation.h). Owns
 * nothing. New values are made by jansson in the request's arena: they share the request's. */
#include "api/conversation.h"

#include <stdio.h>

static status no_memory(err *e) {
    return err_set(e, ERR_NO_MEMORY, "no memory for messages");
}

/* What a message is turned into. */
typedef struct reading {
    const chat_template *t;
    arena *mem;
    err *e;
    size_t i; /* of the message */
    json_t *out;
    str mark; /* of this message */
} reading;

static bool put(json_t *object, const char *key, json_t *value) {
    /* json_object_set_new_nocheck takes a NULL for the value as a failure. */
    return json_object_set_new_nocheck(object, key, value) == 0;
}

static json_t *text_of(str s) {
    return json_stringn_nocheck(s.ptr, s.len);
}

/* ---- content ---- */

static status read_part(reading *r, size_t k, const json_t *part, str *text) {
    str type = {0};
    *text = (str){0};
    if (json_is_string(part)) {
        *text = json_in_text(part);
        return OK;
    }
    if (json_is_object(part) && json_in_str(part, "type", &type, r->e) == OK && type.ptr) {
        bool known = str_eqz(type, "text") || str_eqz(type, "refusal") ||
                     str_eqz(type, "input_text") || str_eqz(type, "output_text");
        const char *member = str_eqz(type, "refusal") ? "refusal" : "text";
        if (known && json_in_str(part, member, text, r->e) == OK && text->ptr) return OK;
    }
    err_set(r->e, ERR_INVALID, "only parts of type \"text\" are supported");
    return err_field(r->e, "messages[%zu].content[%zu]", r->i, k);
}

static status join_parts(reading *r, const json_t *parts, str *joined) {
    buf b;
    buf_init(&b, r->mem);
    for (size_t k = 0; k < json_array_size(parts); k++) {
        str text;
        status s = read_part(r, k, json_array_get(parts, k), &text);
        if (s != OK) return s;
        if (k) buf_addc(&b, '\n');
        buf_add(&b, text);
    }
    *joined = b.ptr ? buf_str(&b) : STR("");
    return b.failed ? no_memory(r->e) : OK;
}

static str marked(reading *r, str s) {
    if (r->mark.len == 0) return s;
    char *p = arena_alloc(r->mem, s.len + r->mark.len);
    if (!p) return (str){NULL, 0};
    if (s.len) memcpy(p, s.ptr, s.len);
    memcpy(p + s.len, r->mark.ptr, r->mark.len);
    return (str){p, s.len + r->mark.len};
}

static json_t *parts_of(reading *r, const json_t *parts) {
    json_t *list = json_array();
    size_t n = json_array_size(parts);
    for (size_t k = 0; list && k < n; k++) {
        str text;
        if (read_part(r, k, json_array_get(parts, k), &text) != OK) return NULL;
        if (k + 1 == n) text = marked(r, text);
        json_t *part = json_object();
        if (!part || !text.ptr || !put(part, "type", text_of(STR("text"))) ||
            !put(part, "text", text_of(text)) || json_array_append_new(list, part) != 0)
            return NULL;
    }
    return list;
}

static status set_text(reading *r, const char *key, str s) {
    str text = str_eqz(str_of(key), "content") ? marked(r, s) : s;
    return text.ptr && put(r->out, key, text_of(text)) ? OK : no_memory(r->e);
}

static status set_content(reading *r, const json_t *content, str role, str *text) {
    *text = STR("");
    if (json_is_string(content)) {
        *text = json_in_text(content);
        return set_text(r, "content", *text);
    }
    if (json_is_array(content)) {
        status s = join_parts(r, content, text);
        if (s != OK || !r->t->takes_parts || json_array_size(content) == 0)
            return s == OK ? set_text(r, "content", *text) : s;
        json_t *list = parts_of(r, content);
        return list && put(r->out, "content", list) ? OK : no_memory(r->e);
    }
    if (str_eqz(role, "assistant") && (!content || json_is_null(content))) {
        if (!r->t->takes_none || r->mark.len) return set_text(r, "content", *text);
        return put(r->out, "content", json_null()) ? OK : no_memory(r->e);
    }
    err_set(r->e, ERR_INVALID, "content must be a string or a list of parts");
    return err_field(r->e, "messages[%zu].content", r->i);
}

/* ---- reasoning ---- */

static str trim_newlines(str s, bool both) {
    while (s.len && s.ptr[0] == '\n') s.ptr++, s.len--;
    while (both && s.len && s.ptr[s.len - 1] == '\n') s.len--;
    return s;
}

/* <think>...</think> at the beginning of content, for templates that leave it out later on. */
static status split_reasoning(reading *r, str *content) {
    static const char begin[] = "<think>", end[] = "</think>";
    if (!r->t->takes_reasoning || !str_starts(*content, str_of(begin))) return OK;
    size_t at = str_find(*content, str_of(end), 0);
    if (at == SIZE_MAX) return OK;
    str thought = {content->ptr + strlen(begin), at - strlen(begin)};
    size_t from = at + strlen(end);
    thought = trim_newlines(thought, true);
    *content = trim_newlines((str){content->ptr + from, content->len - from}, false);
    status s = set_text(r, "reasoning_content", thought);
    if (s == OK) s = set_text(r, "reasoning", thought);
    return s == OK ? set_text(r, "content", *content) : s;
}

static status set_reasoning(reading *r, const json_t *message, str role, str *content) {
    static const char *const name[] = {"reasoning_content", "reasoning"};
    const json_t *given[2];
    for (int k = 0; k < 2; k++) {
        given[k] = json_object_get(message, name[k]);
        if (!given[k] || json_is_null(given[k])) continue;
        for (int other = 0; other < 2; other++)
            if (!json_in_has(message, name[other]) &&
                json_object_set_nocheck(r->out, name[other], (json_t *)given[k]) != 0)
                return no_memory(r->e);
        return OK;
    }
    if (!str_eqz(role, "assistant") || !json_is_string(json_object_get(r->out, "content")))
        return OK;
    return split_reasoning(r, content);
}

/* ---- calls ---- */

static json_t *object_of_text(reading *r, const json_t *text) {
    const json_t *v;
    err ignored;
    if (json_string_length(text) == 0) return json_object();
    if (json_in_parse(&v, r->mem, json_in_text(text), &ignored) != OK || !json_is_object(v))
        return NULL;
    return (json_t *)v;
}

/* A call with its arguments as an object; NULL: no memory. */
static json_t *read_call(reading *r, const json_t *call) {
    const json_t *function = json_object_get(call, "function");
    json_t *copy = json_copy((json_t *)call);
    if (!copy || !json_is_object(function)) return copy;
    const json_t *args = json_object_get(function, "arguments");
    json_t *named = json_copy((json_t *)function), *object = NULL;
    if (!args || json_is_null(args))
        object = json_object();
    else if (json_is_string(args))
        object = object_of_text(r, args);
    if (!named || (object && !put(named, "arguments", object)) || !put(copy, "function", named))
        return NULL;
    return copy;
}

static status set_calls(reading *r, const json_t *calls) {
    if (!json_is_array(calls)) {
        char name[48];
        snprintf(name, sizeof name, "messages[%zu].tool_calls", r->i);
        return json_in_wrong(r->e, name, "a list", calls);
    }
    if (json_array_size(calls) == 0) {
        json_object_del(r->out, "tool_calls");
        return OK;
    }
    if (!r->t->takes_calls) {
        err_set(r->e, ERR_UNSUPPORTED, "the model's chat template shows no tool_calls");
        return err_field(r->e, "messages[%zu].tool_calls", r->i);
    }
    json_t *list = json_array();
    for (size_t k = 0; list && k < json_array_size(calls); k++) {
        const json_t *call = json_array_get(calls, k);
        if (!json_is_object(call)) {
            char name[64];
            snprintf(name, sizeof name, "messages[%zu].tool_calls[%zu]", r->i, k);
            return json_in_wrong(r->e, name, "an object", call);
        }
        json_t *copy = read_call(r, call);
        if (!copy || json_array_append_new(list, copy) != 0) return no_memory(r->e);
    }
    return list && put(r->out, "tool_calls", list) ? OK : no_memory(r->e);
}

/* ---- messages ---- */

static status read_role(reading *r, const json_t *message, str *role) {
    const json_t *v = json_object_get(message, "role");
    if (!v || !json_is_string(v) || json_string_length(v) == 0) {
        err_set(r->e, ERR_INVALID, "a message needs a role");
        return err_field(r->e, "messages[%zu].role", r->i);
    }
    *role = json_in_text(v);
    /* OpenAI renamed it; most templates know the old name. */
    if (str_eqz(*role, "developer") && !r->t->takes_developer) *role = STR("system");
    return set_text(r, "role", *role);
}

/* Members that need no change; the order is the client's. */
static status copy_members(reading *r, const json_t *message) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)message, key, v) {
        bool keep = !json_is_null(v) || strcmp(key, "content") == 0;
        if (keep && json_object_set_nocheck(r->out, key, v) != 0) return no_memory(r->e);
    }
    return OK;
}

static status read_message(reading *r, const json_t *message, conversation *c) {
    if (!json_is_object(message)) {
        char name[40];
        snprintf(name, sizeof name, "messages[%zu]", r->i);
        return json_in_wrong(r->e, name, "an object", message);
    }
    if (!(r->out = json_object())) return no_memory(r->e);
    status s = copy_members(r, message);
    if (s == OK) s = read_role(r, message, &c->last_role);
    if (s == OK && json_in_has(message, "function_call")) {
        err_set(r->e, ERR_UNSUPPORTED, "function_call in a message is not supported");
        err_hint(r->e, "send tool_calls");
        return err_field(r->e, "messages[%zu].function_call", r->i);
    }
    if (s == OK)
        s = set_content(r, json_object_get(message, "content"), c->last_role, &c->last_content);
    if (s == OK) s = set_reasoning(r, message, c->last_role, &c->last_content);
    if (s == OK && json_in_has(message, "tool_calls"))
        s = set_calls(r, json_object_get(message, "tool_calls"));
    return s;
}

static status read_messages(conversation *c, const json_t *list, reading *r, str mark) {
    json_t *out = json_array();
    size_t n = json_array_size(list);
    for (r->i = 0; out && r->i < n; r->i++) {
        r->mark = r->i + 1 == n ? mark : STR("");
        status s = read_message(r, json_array_get(list, r->i), c);
        if (s != OK) return s;
        if (json_array_append_new(out, r->out) != 0) return no_memory(r->e);
    }
    c->messages = out;
    return out ? OK : no_memory(r->e);
}

status conversation_read(conversation *c, const json_t *body, const chat_template *t, str mark,
                         arena *mem, err *e) {
    const json_t *v = json_object_get(body, "messages");
    if (!json_is_array(v) || json_array_size(v) == 0) {
        if (v && !json_is_null(v) && !json_is_array(v))
            return json_in_wrong(e, "messages", "a list", v);
        err_set(e, ERR_INVALID, v ? "messages is empty" : "messages is missing");
        return err_field(e, "messages");
    }
    reading r = {.t = t, .mem = mem, .e = e};
    arena *before = json_use_arena(mem);
    status s = read_messages(c, v, &r, mark);
    json_use_arena(before);
    return s;
}

/* ---- what stands beside them ---- */

static status read_list(const json_t *body, const char *name, const json_t **out, err *e) {
    const json_t *v = json_object_get(body, name);
    if (v && !json_is_null(v) && !json_is_array(v)) return json_in_wrong(e, name, "a list", v);
    *out = json_array_size(v) ? v : NULL;
    return OK;
}

/* "none" turns thinking off under the names that templates have for it. */
static status add_effort(json_t *all, str effort, err *e) {
    bool ok = json_object_set_new_nocheck(all, "reasoning_effort", text_of(effort)) == 0;
    if (ok && str_eqz(effort, "none"))
        ok = json_object_set_new_nocheck(all, "enable_thinking", json_false()) == 0 &&
             json_object_set_new_nocheck(all, "thinking", json_false()) == 0;
    return ok ? OK : no_memory(e);
}

static status join_kwargs(template_args *a, const json_t *given, const json_t *defaults,
                          str effort, err *e) {
    json_t *all = json_object();
    if (!all) return no_memory(e);
    if (defaults && json_object_update((json_t *)all, (json_t *)defaults) != 0)
        return no_memory(e);
    if (effort.ptr && add_effort(all, effort, e) != OK) return e->code;
    if (given && json_object_update(all, (json_t *)given) != 0) return no_memory(e);
    a->kwargs = all;
    return OK;
}

status conversation_args(template_args *a, const json_t *body, const json_t *defaults,
                         arena *mem, err *e) {
    static const char name[] = "chat_template_kwargs";
    const json_t *given = json_object_get(body, name);
    str effort = {0};
    status s = read_list(body, "tools", &a->tools, e);
    if (s == OK) s = read_list(body, "documents", &a->documents, e);
    if (s == OK) s = json_in_str(body, "reasoning_effort", &effort, e);
    if (s != OK) return s;
    if (json_is_null(given)) given = NULL;
    if (given && !json_is_object(given)) return json_in_wrong(e, name, "an object", given);
    a->kwargs = defaults;
    if (!given && !effort.ptr) return OK;
    arena *before = json_use_arena(mem);
    s = join_kwargs(a, given, defaults, effort, e);
    json_use_arena(before);
    return s;
}
