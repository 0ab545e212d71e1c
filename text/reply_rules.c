/* Grammars of calls, from the same rows that read them. Any thread. */
#include "text/reply_rules.h"

#include "text/reply_in.h"

#include <string.h>

typedef struct builder {
    rules *r;
    const reply_plan *p;
    const reply_demand *d;
    err *e;
    rule blank; /* at most two */
} builder;

static rule bytes(const builder *b, const char *s) {
    return rules_bytes(b->r, str_of(s));
}
static rule text(const builder *b, str s) {
    return rules_bytes(b->r, s);
}

/* Two, three and four in a row. */
static rule seq2(const builder *b, rule x, rule y) {
    return rules_seq(b->r, (rule[]){x, y}, 2);
}
static rule seq3(const builder *b, rule x, rule y, rule z) {
    return rules_seq(b->r, (rule[]){x, y, z}, 3);
}

/* A mark: characters and special tokens. An absent one is empty. */
static rule mark(const builder *b, int m) {
    const str s = b->p->mark[m];
    rule out = RULE_EMPTY;
    for (size_t i = 0, n; i < s.len; i += n) {
        const char *sp = memchr(s.ptr + i, SPECIAL_BYTE, s.len - i);
        n = sp ? (size_t)(sp - s.ptr) - i : s.len - i;
        if (n) {
            out = seq2(b, out, text(b, (str){s.ptr + i, n}));
            continue;
        }
        n = 2;
        out = seq2(b, out, rules_token(b->r, b->p->special[(unsigned char)sp[1] - 1].id));
    }
    return out;
}

/* Blanks before a mark that is there. */
static rule blank_mark(const builder *b, int m) {
    return b->p->mark[m].len ? seq2(b, b->blank, mark(b, m)) : RULE_EMPTY;
}

/* Any text up to and including a mark. */
static rule until(const builder *b, int m) {
    const str s = b->p->mark[m];
    if (!memchr(s.ptr, SPECIAL_BYTE, s.len)) return rules_until(b->r, &s, 1);
    return seq2(b, rules_any_until_end(b->r), mark(b, m));
}

/* ---- arguments ---- */

static const json_t *function_of(const json_t *tool) {
    const json_t *f = json_object_get(tool, "function");
    return f ? f : tool;
}

static status schema(const builder *b, const json_t *s, rule *out) {
    arena *before = json_use_arena(rules_arena(b->r));
    const json_t *any = json_pack("{ss}", "type", "object");
    json_use_arena(before);
    if (!any) return err_set(b->e, ERR_NO_MEMORY, "no memory for a grammar");
    return b->d->schema(b->r, json_is_object(s) ? s : any, out, b->e);
}

/* A property's schema with the definitions that it may refer to. */
static const json_t *with_definitions(const builder *b, const json_t *root, const json_t *s) {
    static const char *const names[] = {"$defs", "definitions"};
    arena *before = json_use_arena(rules_arena(b->r));
    json_t *out = json_is_object(s) ? json_copy((json_t *)s) : json_object();
    for (int i = 0; out && i < 2; i++) {
        json_t *d = json_object_get(root, names[i]);
        if (d) json_object_set(out, names[i], d);
    }
    json_use_arena(before);
    return out;
}

static bool is_text(const json_t *s) {
    const json_t *t = json_object_get(s, "type");
    const bool free = !json_object_get(s, "enum") && !json_object_get(s, "const");
    return free && json_is_string(t) && str_eqz(json_in_text(t), "string");
}

/* Words of an enum or a const, without quotes. */
static bool words(const builder *b, const json_t *s, rule *out) {
    const json_t *all = json_object_get(s, "enum"), *v;
    rule any = RULE_NEVER;
    size_t i;
    if (!json_is_array(all)) return false;
    json_array_foreach(all, i, v) if (!json_is_string(v)) return false;
    json_array_foreach(all, i, v) any =
        rules_alt(b->r, (rule[]){any, text(b, json_in_text(v))}, 2);
    *out = any;
    return true;
}

/* <parameter=k>VALUE</parameter> */
static status argument(const builder *b, const json_t *root, const char *key, const json_t *s,
                       rule *out) {
    const reply_format *f = b->p->format;
    const rule line = f->lines ? bytes(b, "\n") : RULE_EMPTY;
    const bool free = is_text(s);
    rule value = RULE_NEVER,
         head = seq3(b, mark(b, MARK_KEY), bytes(b, key), mark(b, MARK_KEY_END));
    const bool listed = !free && words(b, s, &value);
    if (!free && !listed) {
        const json_t *own = with_definitions(b, root, s);
        if (!own) return err_set(b->e, ERR_NO_MEMORY, "no memory for a grammar");
        if (b->d->schema(b->r, own, &value, b->e) != OK) return b->e->code;
    }
    if (f->typed) head = seq2(b, head, bytes(b, free || listed ? "true\">" : "false\">"));
    head = seq3(b, head, blank_mark(b, MARK_VALUE), line);
    *out = free ? seq2(b, head, until(b, MARK_VALUE_END))
                : rules_seq(b->r, (rule[]){head, value, line, mark(b, MARK_VALUE_END)}, 4);
    return OK;
}

static bool is_required(const json_t *root, const char *key) {
    size_t i;
    const json_t *v;
    json_array_foreach(json_object_get(root, "required"), i,
                       v) if (json_is_string(v) && str_eqz(json_in_text(v), key)) return true;
    return false;
}

static status tagged(const builder *b, const json_t *root, rule *out) {
    const char *key;
    const json_t *s;
    *out = RULE_EMPTY;
    json_t *all = json_object_get(root, "properties");
    json_object_foreach(all, key, s) {
        rule one = RULE_NEVER;
        if (argument(b, root, key, s, &one) != OK) return b->e->code;
        one = seq2(b, b->blank, one);
        *out = seq2(b, *out, is_required(root, key) ? one : rules_optional(b->r, one));
    }
    return OK;
}

static status arguments(const builder *b, const json_t *root, rule *out) {
    switch (b->p->format->args) {
    case ARGS_JSON: return schema(b, root, out);
    case ARGS_TAGGED: return tagged(b, root, out);
    case ARGS_PYTHON:
        *out = seq3(b, bytes(b, "("), rules_any_until_end(b->r), bytes(b, ")"));
        break;
    case ARGS_BARE:
        *out = seq3(b, bytes(b, "{"), rules_any_until_end(b->r), bytes(b, "}"));
        break;
    }
    return OK;
}

/* ---- a call ---- */

/* The name as the format writes it. */
static rule name_of(const builder *b, const char *name) {
    if (b->p->format->ids != IDS_NUMBERED) return bytes(b, name);
    const rule digits = rules_repeat(b->r, rules_byte_range(b->r, '0', '9'), 1, 3);
    return rules_seq(
        b->r, (rule[]){bytes(b, "functions."), bytes(b, name), bytes(b, ":"), digits}, 4);
}

/* A call of one tool, without the marks around every call. */
static status call_of(const builder *b, const json_t *tool, rule *out) {
    const reply_format *f = b->p->format;
    const json_t *fn = function_of(tool), *root = json_object_get(fn, "parameters");
    const char *name = json_string_value(json_object_get(fn, "name"));
    rule args = RULE_NEVER;
    if (arguments(b, root, &args) != OK) {
        if (b->e->code == ERR_NO_MEMORY) return ERR_NO_MEMORY;
        return err_field(b->e, "tools (parameters of %.60s)", name);
    }
    if (f->shape == SHAPE_OBJECT) {
        const rule head[] = {
            bytes(b, "{\""),    bytes(b, f->name_key), bytes(b, "\": \""), bytes(b, name),
            bytes(b, "\", \""), bytes(b, f->args_key), bytes(b, "\": "),   args,
            bytes(b, "}")};
        *out = rules_seq(b->r, head, sizeof head / sizeof *head);
    } else if (f->shape == SHAPE_CHANNELS) {
        const rule head[] = {bytes(b, "commentary to=functions."),
                             bytes(b, name),
                             bytes(b, " "),
                             mark(b, CHANNEL_CONSTRAIN),
                             bytes(b, "json"),
                             mark(b, CHANNEL_MESSAGE),
                             args};
        *out = rules_seq(b->r, head, sizeof head / sizeof *head);
    } else {
        const rule blank = f->args == ARGS_JSON ? b->blank : RULE_EMPTY;
        const rule head[] = {mark(b, MARK_NAME),
                             name_of(b, name),
                             blank_mark(b, MARK_NAME_END),
                             blank,
                             args,
                             blank_mark(b, MARK_ARGS_END)};
        *out = rules_seq(b->r, head, sizeof head / sizeof *head);
    }
    return OK;
}

static status any_call(const builder *b, rule *out) {
    size_t i;
    const json_t *tool;
    rule any = RULE_NEVER;
    json_array_foreach(b->d->tools, i, tool) {
        rule one = RULE_NEVER;
        if (call_of(b, tool, &one) != OK) return b->e->code;
        any = rules_alt(b->r, (rule[]){any, one}, 2);
    }
    *out = rules_declare(b->r);
    rules_define(b->r, *out, any);
    return OK;
}

/* ---- the whole ---- */

/* Reasoning before the calls, where the model thinks. */
static rule thinking(const builder *b) {
    const reply_plan *p = b->p;
    if (!p->mark[MARK_THINK_END].len) return RULE_EMPTY;
    const rule rest = seq3(b, until(b, MARK_THINK_END), b->blank, b->blank);
    if (b->d->thinking) return rest;
    return rules_optional(b->r, seq3(b, b->blank, mark(b, MARK_THINK), rest));
}

/* gpt-oss: perhaps a message of reasoning, then the call; its end is an end token. */
static rule channels(const builder *b, rule call) {
    const rule think[] = {mark(b, CHANNEL_NAME),    bytes(b, "analysis"),
                          mark(b, CHANNEL_MESSAGE), until(b, CHANNEL_END),
                          mark(b, CHANNEL_START),   bytes(b, "assistant")};
    return seq3(b, rules_optional(b->r, rules_seq(b->r, think, 6)), mark(b, CHANNEL_NAME),
                call);
}

static rule frame(const builder *b, rule call) {
    const reply_plan *p = b->p;
    const reply_format *f = p->format;
    const bool several = b->d->parallel && !p->single;
    const rule begin =
        f->plain ? RULE_EMPTY
                 : seq2(b, mark(b, MARK_CALL), p->mark[MARK_CALL].len ? b->blank : RULE_EMPTY);
    const rule end = blank_mark(b, MARK_CALL_END);
    const rule first = b->d->opened ? seq3(b, b->blank, call, end) : seq3(b, begin, call, end);
    const rule sep = f->array ? bytes(b, ", ") : f->plain ? bytes(b, "; ") : b->blank;
    const rule more = rules_seq(b->r, (rule[]){sep, begin, call, end}, 4);
    rule all = first;
    if (several) all = seq2(b, first, rules_repeat(b->r, more, 0, RULE_UNBOUNDED));
    if (f->array) all = seq3(b, bytes(b, "["), all, bytes(b, "]"));
    if (!p->mark[MARK_SECTION].len) return all;
    const rule whole[] = {mark(b, MARK_SECTION), b->blank, all,
                          blank_mark(b, MARK_SECTION_END)};
    return rules_seq(b->r, whole, 4);
}

status reply_rules(rules *r, const reply_plan *p, const reply_demand *d, rule *out, err *e) {
    builder b = {r, p, d, e, RULE_EMPTY};
    rule call = RULE_NEVER;
    if (!p->format) return err_set(e, ERR_UNSUPPORTED, "the model has no format of calls");
    const rule_range blanks[] = {{' ', ' '}, {'\n', '\n'}};
    b.blank = rules_repeat(r, rules_class(r, blanks, 2), 0, 2);
    status s = any_call(&b, &call);
    if (s != OK) return s;
    *out = p->format->shape == SHAPE_CHANNELS ? channels(&b, call)
                                              : seq2(&b, thinking(&b), frame(&b, call));
    return OK;
}
