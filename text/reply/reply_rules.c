/* Grammars of calls, from the same rows that read them. Any thread. */
#include "text/reply/reply_rules.h"

#include "text/reply/reply_in.h"
#include "text/reply/reply_literal.h"
#include "text/reply/reply_types.h"
#include "text/grammar/schema.h"

#include <stdio.h>
#include <string.h>

typedef struct builder {
    rules *r;
    const reply_plan *p;
    const reply_demand *d;
    err *e;
    rule blank; /* at most two */
    bool early; /* gpt-oss: the name stands before the channel */
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

/* A value and the mark behind it. */
static status value(const builder *b, const json_t *root, const json_t *s, rule *out) {
    const reply_format *f = b->p->format;
    const bool text = reply_types(root, s) == REPLY_STRING;
    const str mark_end = b->p->mark[MARK_VALUE_END];
    const rule line = f->lines ? bytes(b, "\n") : RULE_EMPTY;
    rule one = RULE_NEVER;
    if (text && !reply_is_limited(s)) return *out = until(b, MARK_VALUE_END), OK;
    const json_t *own = reply_with_definitions(b->r, root, s);
    if (!own) return err_set(b->e, ERR_NO_MEMORY, "no memory for a grammar");
    const str end = memchr(mark_end.ptr, SPECIAL_BYTE, mark_end.len) ? STR("") : mark_end;
    status st = text ? rules_schema_text(b->r, own, end, &one, b->e)
                     : b->d->schema(b->r, own, &one, b->e);
    *out = seq3(b, one, line, mark(b, MARK_VALUE_END));
    return st;
}

/* <parameter=k>VALUE</parameter> */
static status argument(const builder *b, const json_t *root, const char *key, const json_t *s,
                       rule *out) {
    const reply_format *f = b->p->format;
    const rule line = f->lines ? bytes(b, "\n") : RULE_EMPTY;
    rule one = RULE_NEVER,
         head = seq3(b, mark(b, MARK_KEY), bytes(b, key), mark(b, MARK_KEY_END));
    status st = value(b, root, s, &one);
    if (f->typed)
        head = seq2(b, head,
                    bytes(b, reply_types(root, s) == REPLY_STRING ? "true\">" : "false\">"));
    *out = rules_seq(b->r, (rule[]){head, blank_mark(b, MARK_VALUE), line, one}, 4);
    return st;
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

/* <parameter=KEY>VALUE</parameter>, with any keys and values. */
static rule any_tagged(const builder *b) {
    const rule_range letters[] = {{'A', 'Z'}, {'a', 'z'}, {'0', '9'}, {'_', '_'}, {'-', '-'}};
    const rule key = rules_repeat(b->r, rules_class(b->r, letters, 5), 1, RULE_UNBOUNDED);
    rule head = seq3(b, mark(b, MARK_KEY), key, mark(b, MARK_KEY_END));
    if (b->p->format->typed) {
        const rule word = rules_alt(b->r, (rule[]){bytes(b, "true"), bytes(b, "false")}, 2);
        head = seq3(b, head, word, bytes(b, "\">"));
    }
    const rule value = seq2(b, blank_mark(b, MARK_VALUE), until(b, MARK_VALUE_END));
    return rules_repeat(b->r, seq3(b, b->blank, head, value), 0, RULE_UNBOUNDED);
}

static rule literals(const builder *b, const json_t *root) {
    literal_form f = {.python = b->p->format->args == ARGS_PYTHON};
    if (!f.python) {
        f.quote = mark(b, MARK_QUOTE);
        f.text = until(b, MARK_QUOTE);
    }
    return literal_arguments(b->r, &f, root);
}

static status any_arguments(const builder *b, rule *out) {
    const reply_args form = b->p->format->args;
    if (form == ARGS_JSON) return schema(b, NULL, out);
    *out = form == ARGS_TAGGED ? any_tagged(b) : literals(b, NULL);
    return OK;
}

/* Of a tool without a schema: none in forms other than JSON. */
static status arguments(const builder *b, const json_t *root, rule *out) {
    const reply_args form = b->p->format->args;
    if (form == ARGS_JSON) return schema(b, root, out);
    if (form == ARGS_TAGGED) return tagged(b, root, out);
    *out = root ? literals(b, root) : bytes(b, form == ARGS_PYTHON ? "()" : "{}");
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

/* {"name": "NAME", "arguments": */
static rule object_head(const builder *b, rule name) {
    const reply_format *f = b->p->format;
    const rule head[] = {bytes(b, "{\""),    bytes(b, f->name_key), bytes(b, "\": \""), name,
                         bytes(b, "\", \""), bytes(b, f->args_key), bytes(b, "\": ")};
    return rules_seq(b->r, head, sizeof head / sizeof *head);
}

/* A call without the marks around every call. */
static rule call_by(const builder *b, rule name, rule args) {
    const reply_format *f = b->p->format;
    if (f->shape == SHAPE_OBJECT) return seq3(b, object_head(b, name), args, bytes(b, "}"));
    if (f->shape == SHAPE_CHANNELS) {
        const rule json = seq2(b, mark(b, CHANNEL_CONSTRAIN), bytes(b, "json"));
        const rule channel = seq2(b, mark(b, CHANNEL_NAME), bytes(b, "commentary"));
        const rule head[] = {name,
                             b->early ? channel : RULE_EMPTY,
                             b->d->text ? b->blank : bytes(b, " "),
                             b->d->text ? rules_optional(b->r, json) : json,
                             mark(b, CHANNEL_MESSAGE),
                             args};
        return rules_seq(b->r, head, sizeof head / sizeof *head);
    }
    const rule blank = f->args == ARGS_JSON ? b->blank : RULE_EMPTY;
    const rule head[] = {
        mark(b, MARK_NAME),          name, blank_mark(b, MARK_NAME_END), blank, args,
        blank_mark(b, MARK_ARGS_END)};
    return rules_seq(b->r, head, sizeof head / sizeof *head);
}

static bool is_strict(const json_t *tool) {
    return json_is_true(json_object_get(function_of(tool), "strict"));
}

static status arguments_of(const builder *b, const json_t *tool, rule *out) {
    const json_t *fn = function_of(tool), *root = json_object_get(fn, "parameters");
    if (json_is_null(root)) root = NULL;
    status s = arguments(b, root, out);
    const bool refused = s != OK && s != ERR_NO_MEMORY;
    if (refused && b->d->lenient && !is_strict(tool)) return any_arguments(b, out);
    if (refused)
        err_field(b->e, "tools (parameters of %.60s)",
                  json_string_value(json_object_get(fn, "name")));
    return s;
}

static rule name_of_tool(const builder *b, const json_t *tool) {
    return name_of(b, json_string_value(json_object_get(function_of(tool), "name")));
}

static status any_call(const builder *b, rule *out) {
    size_t i;
    const json_t *tool;
    rule any = RULE_NEVER, names = RULE_NEVER;
    json_array_foreach(b->d->tools, i, tool) {
        rule args = RULE_NEVER, name = name_of_tool(b, tool);
        names = rules_alt(b->r, (rule[]){names, name}, 2);
        if (b->d->untyped) continue;
        if (arguments_of(b, tool, &args) != OK) return b->e->code;
        any = rules_alt(b->r, (rule[]){any, call_by(b, name, args)}, 2);
    }
    if (b->d->untyped) {
        rule args = RULE_NEVER;
        if (any_arguments(b, &args) != OK) return b->e->code;
        any = call_by(b, names, args);
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
    rule last = seq2(b, bytes(b, "commentary to=functions."), call);
    if (b->d->instead) {
        const rule answer = seq3(b, bytes(b, "final"), mark(b, CHANNEL_MESSAGE), b->d->instead);
        last = rules_alt(b->r, (rule[]){last, answer}, 2);
    }
    return seq3(b, rules_optional(b->r, rules_seq(b->r, think, 6)), mark(b, CHANNEL_NAME),
                last);
}

/* The mark that the first call stands behind. */
static int first_mark(const reply_plan *p) {
    return p->mark[MARK_SECTION].len ? MARK_SECTION : MARK_CALL;
}

/* What stands behind the first mark. */
static rule behind_mark(const builder *b, rule call) {
    const reply_plan *p = b->p;
    const reply_format *f = p->format;
    const bool section = p->mark[MARK_SECTION].len;
    /* In text further calls have marks of their own, where there is no section. */
    const bool several = b->d->parallel && !p->single && (section || f->plain || !b->d->text);
    const rule begin = f->plain || !p->mark[MARK_CALL].len
                           ? RULE_EMPTY
                           : seq2(b, mark(b, MARK_CALL), b->blank);
    const rule end = blank_mark(b, MARK_CALL_END);
    const rule before = section ? begin : f->plain ? RULE_EMPTY : b->blank;
    const rule sep = f->array ? bytes(b, ", ") : f->plain ? bytes(b, "; ") : b->blank;
    const rule more = rules_seq(b->r, (rule[]){sep, begin, call, end}, 4);
    rule all = seq3(b, before, call, end);
    if (several) all = seq2(b, all, rules_repeat(b->r, more, 0, RULE_UNBOUNDED));
    if (f->array) all = seq3(b, bytes(b, "["), all, bytes(b, "]"));
    return section ? seq3(b, b->blank, all, blank_mark(b, MARK_SECTION_END)) : all;
}

static rule frame(const builder *b, rule call) {
    const rule behind = behind_mark(b, call);
    if (b->p->format->plain || b->d->opened) return behind;
    return seq2(b, mark(b, first_mark(b->p)), behind);
}

/* ---- text with calls ---- */

enum { MAX_MARK = 160, MAX_TRIGGERS = 64 };

typedef struct triggers {
    const builder *b;
    rule_trigger v[MAX_TRIGGERS];
    size_t n;
} triggers;

/* A mark of the plan as symbols; more bytes may stand behind it. */
static void add_trigger(triggers *t, str mark, str more, rule then) {
    const builder *b = t->b;
    uint32_t *symbols = arena_alloc(rules_arena(b->r), (mark.len + more.len) * sizeof *symbols);
    size_t n = 0;
    if (!symbols || t->n == MAX_TRIGGERS || !(mark.len + more.len)) return;
    for (size_t i = 0; i < mark.len; i++) {
        symbols[n++] = (uint8_t)mark.ptr[i];
        if (mark.ptr[i] != SPECIAL_BYTE) continue;
        if (i + 1 == mark.len) { /* alone it is the begin of the text */
            symbols[n - 1] = RULE_MARK_BEGIN;
            break;
        }
        const reply_special *s = &b->p->special[(uint8_t)mark.ptr[++i] - 1];
        symbols[n - 1] = RULE_MARK_TOKEN + (uint32_t)s->id;
    }
    for (size_t i = 0; i < more.len; i++) symbols[n++] = (uint8_t)more.ptr[i];
    t->v[t->n++] = (rule_trigger){symbols, n, then, false};
}

/* Text that begins like a call, in formats where it may: functionary's >>>all. */
static rule text_behind(const builder *b) {
    const str mark = b->p->mark[first_mark(b->p)], drop = b->p->mark[MARK_DROP];
    if (!mark.len || drop.len <= mark.len || !str_starts(drop, mark)) return RULE_NEVER;
    return text(b, (str){drop.ptr + mark.len, drop.len - mark.len});
}

/* The object of a call that stands without a mark: its arguments behind its name. */
static status add_plain(triggers *t) {
    const builder *b = t->b;
    const reply_format *f = b->p->format;
    size_t i;
    const json_t *tool;
    if (!f->plain || f->shape != SHAPE_OBJECT || b->d->untyped) return OK;
    json_array_foreach(b->d->tools, i, tool) {
        const char *name = json_string_value(json_object_get(function_of(tool), "name"));
        char head[MAX_MARK];
        rule args = RULE_NEVER;
        if (i + 1 == MAX_TRIGGERS) break;
        if (arguments_of(b, tool, &args) != OK) return b->e->code;
        const int n = snprintf(head, sizeof head, "{\"%s\": \"%s\", \"%s\": ", f->name_key,
                               name, f->args_key);
        add_trigger(t, (str){head, (size_t)n}, STR(""), seq2(b, args, bytes(b, "}")));
    }
    return OK;
}

/* A call names its function behind the channel, or in the begin of its message. */
static status add_channels(triggers *t, rule call) {
    const str *mark = t->b->p->mark, to = STR(" to=functions.");
    builder early = *t->b;
    rule first = RULE_NEVER;
    early.early = true;
    if (any_call(&early, &first) != OK) return early.e->code;
    add_trigger(t, mark[CHANNEL_NAME], STR("commentary to=functions."), call);
    add_trigger(t, mark[CHANNEL_START], STR("assistant to=functions."), first);
    add_trigger(t, STR("\xff"), to, first); /* the first begins in the prompt */
    return OK;
}

static status text_with_calls(const builder *b, rule call, rule *out) {
    const reply_plan *p = b->p;
    triggers t = {.b = b};
    const rule drop = text_behind(b);
    const unsigned flags = b->d->parallel && !p->single ? 0 : TRIGGER_ONCE;
    if (p->format->shape == SHAPE_CHANNELS) {
        if (add_channels(&t, call) != OK) return b->e->code;
    } else {
        const rule behind = behind_mark(b, call);
        add_trigger(&t, p->mark[first_mark(p)], STR(""),
                    rules_alt(b->r, (rule[]){behind, drop}, 2));
        if (add_plain(&t) != OK) return b->e->code;
    }
    /* Reasoning that the model begins itself: up to its end nothing is a call. */
    if (p->format->shape != SHAPE_CHANNELS && p->mark[MARK_THINK_END].len) {
        const size_t k = t.n;
        add_trigger(&t, p->mark[MARK_THINK], STR(""), until(b, MARK_THINK_END));
        if (t.n > k) t.v[k].aside = true;
    }
    *out = t.n ? rules_triggered(b->r, t.v, t.n, drop ? 0 : flags) : RULE_NEVER;
    if (!t.n) return err_set(b->e, ERR_UNSUPPORTED, "calls of this form have no mark");
    if (!b->d->opened) return OK;
    const rule first = rules_alt(b->r, (rule[]){behind_mark(b, call), drop}, 2);
    *out = seq2(b, first, flags && !drop ? RULE_EMPTY : *out);
    return OK;
}

/* Marks within reasoning are no calls. The output may end before the reasoning does. */
static rule around_reasoning(const builder *b, rule rest) {
    const reply_plan *p = b->p;
    triggers t = {.b = b};
    if (p->format->shape == SHAPE_CHANNELS || !p->mark[MARK_THINK_END].len) return rest;
    if (b->d->opened) return rest;
    add_trigger(&t, p->mark[MARK_THINK_END], STR(""), rest);
    return b->d->thinking ? rules_triggered(b->r, t.v, t.n, TRIGGER_ONCE) : rest;
}

static rule two_blanks(rules *r) {
    const rule_range blanks[] = {{' ', ' '}, {'\n', '\n'}};
    return rules_repeat(r, rules_class(r, blanks, 2), 0, 2);
}

status reply_rules(rules *r, const reply_plan *p, const reply_demand *d, rule *out, err *e) {
    builder b = {r, p, d, e, RULE_EMPTY, false};
    rule call = RULE_NEVER;
    if (!p->format) return err_set(e, ERR_UNSUPPORTED, "the model has no format of calls");
    b.blank = two_blanks(r);
    status s = any_call(&b, &call);
    if (s == OK && d->text) s = text_with_calls(&b, call, out);
    if (s != OK) return s;
    if (d->text)
        *out = around_reasoning(&b, *out);
    else if (p->format->shape == SHAPE_CHANNELS)
        *out = channels(&b, call);
    else
        *out = seq2(&b, thinking(&b), rules_alt(r, (rule[]){frame(&b, call), d->instead}, 2));
    return OK;
}

status reply_tagged_rule(rules *r, const char *format, const reply_special *special,
                         size_t n_special, const json_t *object, reply_schema *by, rule *out,
                         err *e) {
    const reply_demand d = {.schema = by};
    reply_plan *p = arena_zalloc(rules_arena(r), sizeof *p);
    size_t i = 0;
    if (!p) return err_set(e, ERR_NO_MEMORY, "no memory for a grammar");
    while (i < reply_n_formats && strcmp(reply_formats[i].name, format) != 0) i++;
    if (i == reply_n_formats ||
        !reply_plan_init(p, &reply_formats[i], STR(""), special, n_special))
        return err_set(e, ERR_UNSUPPORTED, "the style of %s is not supported", format);
    const builder b = {r, p, &d, e, two_blanks(r), false};
    return tagged(&b, object, out);
}
