/* POST /v1/responses: typed events, and the response in one piece. Each part of the choice is an
 * item of the output; a stream keeps the text of its parts, since it is written again when an
 * item, and the response, is done. Owns nothing. */
#include "api/writer.h"
#include "json/out.h"

typedef struct stream_state {
    uint64_t sequence;  /* number of the next event */
    uint32_t n_done;    /* items: the output_index of the one in progress */
    size_t logprobs_at; /* bytes of the choice's logprobs that are sent */
} stream_state;

/* ---- items ---- */

/* Whether the request has a tool of this name and of the type custom: the call's arguments are
 * {"input": TEXT}, of which the client gets the text. */
static bool is_custom(const answer *a, str name) {
    const json_t *tools = json_object_get(a->rq->json, "tools");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *t = json_array_get(tools, i), *own = json_object_get(t, "name");
        str type = {0};
        err e;
        if (json_in_str(t, "type", &type, &e) == OK && str_eqz(type, "custom") &&
            json_is_string(own) && str_eq(json_in_text(own), name))
            return true;
    }
    return false;
}

/* The text of a custom call, or its arguments as they are where they are no such object. */
static str custom_input(const choice *c, const answer_part *p) {
    const json_t *v;
    str text = {0};
    err e;
    if (json_in_parse(&v, &c->a->rq->mem, buf_str(&p->text), &e) != OK ||
        json_in_str(v, "input", &text, &e) != OK || !text.ptr)
        return buf_str(&p->text);
    return text;
}

static void write_item_id(const choice *c, uint32_t i, buf *o) {
    const answer_part *p = &c->parts[i];
    const char *prefix = p->kind == PART_TEXT        ? "msg"
                         : p->kind == PART_REASONING ? "rs"
                         : is_custom(c->a, p->name)  ? "ctc"
                                                     : "fc";
    buf_addf(o, "\"%s_%s%02x\"", prefix, c->a->id + strlen(c->a->writer->id_prefix), i);
}

/* What of the logprobs belongs to a part: those of the choice to its first text. */
static void write_logprobs(const choice *c, uint32_t i, size_t from, buf *o) {
    const buf *all = &c->lp.part[0];
    bool first = true;
    for (uint32_t k = 0; k < i; k++) first &= c->parts[k].kind != PART_TEXT;
    buf_addc(o, '[');
    if (c->lp.on && first && from < all->len) {
        if (from) from++; /* the comma */
        buf_add(o, (str){all->ptr + from, all->len - from});
    }
    buf_addc(o, ']');
}

/* A part of the content; text: all of it, or nothing yet. */
static void write_content(const choice *c, uint32_t i, bool text, buf *o) {
    const answer_part *p = &c->parts[i];
    const bool reasoning = p->kind == PART_REASONING;
    buf_add(o, reasoning ? STR("{\"type\":\"reasoning_text\",\"text\":\"")
                         : STR("{\"type\":\"output_text\",\"text\":\""));
    if (text) json_esc(o, buf_str(&p->text));
    buf_add(o, reasoning ? STR("\"") : STR("\",\"annotations\":[],\"logprobs\":"));
    if (!reasoning) write_logprobs(c, i, text ? 0 : SIZE_MAX, o);
    buf_addc(o, '}');
}

static void write_call(const choice *c, uint32_t i, bool text, buf *o) {
    const answer_part *p = &c->parts[i];
    const bool custom = is_custom(c->a, p->name);
    buf_add(o, custom ? STR(",\"type\":\"custom_tool_call\",\"call_id\":")
                      : STR(",\"type\":\"function_call\",\"call_id\":"));
    json_str(o, p->id);
    buf_add(o, STR(",\"name\":"));
    json_str(o, p->name);
    buf_add(o, custom ? STR(",\"input\":\"") : STR(",\"arguments\":\""));
    if (text) json_esc(o, custom ? custom_input(c, p) : buf_str(&p->text));
    buf_addc(o, '"');
}

/* text: with all that it holds; else as it begins. */
static void write_item(const choice *c, uint32_t i, const char *status, bool text, buf *o) {
    const answer_part *p = &c->parts[i];
    buf_add(o, STR("{\"id\":"));
    write_item_id(c, i, o);
    if (p->kind == PART_CALL) {
        write_call(c, i, text, o);
    } else {
        buf_add(o, p->kind == PART_TEXT
                       ? STR(",\"type\":\"message\",\"role\":\"assistant\",\"content\":[")
                       : STR(",\"type\":\"reasoning\",\"summary\":[],\"content\":["));
        if (text) write_content(c, i, true, o);
        buf_addc(o, ']');
    }
    buf_addf(o, ",\"status\":\"%s\"}", status);
}

static const char *item_status(const choice *c, uint32_t i) {
    const bool cut = c->finish && strcmp(c->finish, "length") == 0 && i + 1 == c->n_parts;
    return c->parts[i].closed && !cut ? "completed" : "incomplete";
}

/* ---- the response ---- */

/* A member as the request has it, or else this text. */
static void echo(const answer *a, const char *name, const char *otherwise, buf *o) {
    const json_t *v = json_object_get(a->rq->json, name);
    buf_addf(o, ",\"%s\":", name);
    if (v && !json_is_null(v)) {
        arena *before = json_use_arena(&a->rq->mem);
        json_value(o, v);
        json_use_arena(before);
    } else {
        buf_add(o, str_of(otherwise));
    }
}

static void write_usage(const answer *a, buf *o) {
    const uint64_t in = usage_prompt_tokens(a), out = usage_output_tokens(a);
    buf_add(o, STR(",\"usage\":{\"input_tokens\":"));
    json_u64(o, in);
    buf_add(o, STR(",\"input_tokens_details\":{\"cached_tokens\":"));
    json_u64(o, usage_cached_tokens(a));
    buf_add(o, STR(",\"cache_write_tokens\":0},\"output_tokens\":"));
    json_u64(o, out);
    buf_add(o, STR(",\"output_tokens_details\":{\"reasoning_tokens\":"));
    json_u64(o, a->choices->n_reasoning);
    buf_add(o, STR("},\"total_tokens\":"));
    json_u64(o, in + out);
    receipt_write(a, o);
    buf_addc(o, '}');
}

static void write_output(const choice *c, buf *o) {
    bool some = false;
    buf_add(o, STR(",\"output\":["));
    for (uint32_t i = 0; i < c->n_parts; i++) {
        if (!choice_shows(c, i)) continue;
        if (some) buf_addc(o, ',');
        some = true;
        write_item(c, i, item_status(c, i), true, o);
    }
    buf_addc(o, ']');
}

static void write_settings(const answer *a, buf *o) {
    echo(a, "instructions", "null", o);
    echo(a, "max_output_tokens", "null", o);
    echo(a, "max_tool_calls", "null", o);
    echo(a, "parallel_tool_calls", "true", o);
    echo(a, "reasoning", "{\"effort\":null,\"summary\":null}", o);
    echo(a, "text", "{\"format\":{\"type\":\"text\"}}", o);
    echo(a, "tool_choice", "\"auto\"", o);
    echo(a, "tools", "[]", o);
    echo(a, "truncation", "\"disabled\"", o);
    echo(a, "user", "null", o);
    echo(a, "metadata", "{}", o);
    buf_addf(o, ",\"temperature\":%g,\"top_p\":%g,\"top_logprobs\":%d",
             (double)a->p.sampling.temperature, (double)a->p.sampling.top_p, a->p.n_top);
    buf_add(o, STR(",\"background\":false,\"previous_response_id\":null,\"store\":false"));
}

/* status: "in_progress", "failed" (f says why), or NULL: as the choice has ended. */
static void write_response(const answer *a, const char *status, const failure *f, buf *o) {
    const choice *c = a->choices;
    const bool cut = !status && strcmp(c->finish, "length") == 0;
    const bool begins = status && !f;
    if (!status) status = cut ? "incomplete" : "completed";
    buf_addf(o, "{\"id\":\"%s\",\"object\":\"response\",\"created_at\":%llu,\"status\":\"%s\"",
             a->id, (unsigned long long)a->created, status);
    write_model(a, o);
    buf_add(o, STR(",\"error\":"));
    if (f) {
        buf_add(o, STR("{\"code\":\"server_error\",\"message\":"));
        json_str_lossy(o, str_of(f->err.text));
        buf_addc(o, '}');
    } else {
        buf_add(o, STR("null"));
    }
    buf_add(o, cut ? STR(",\"incomplete_details\":{\"reason\":\"max_output_tokens\"}")
                   : STR(",\"incomplete_details\":null"));
    if (begins)
        buf_add(o, STR(",\"output\":[],\"usage\":null"));
    else
        write_output(c, o), write_usage(a, o);
    write_settings(a, o);
    buf_addc(o, '}');
}

/* ---- events ---- */

static buf *begin_event(const answer *a, str type) {
    stream_state *s = a->state;
    buf *o = http_stream_out(a->rq);
    buf_add(o, STR("event: "));
    buf_add(o, type);
    buf_add(o, STR("\ndata: {\"type\":\""));
    buf_add(o, type);
    buf_add(o, STR("\",\"sequence_number\":"));
    json_u64(o, s->sequence++);
    return o;
}

static void end_event(const answer *a, buf *o) {
    buf_add(o, STR("}\n\n"));
    http_wake(a->rq);
}

static void send_response(const answer *a, str type, const char *status, const failure *f) {
    buf *o = begin_event(a, type);
    buf_add(o, STR(",\"response\":"));
    write_response(a, status, f, o);
    end_event(a, o);
}

static buf *begin_item(const choice *c, str type) {
    const stream_state *s = c->a->state;
    buf *o = begin_event(c->a, type);
    buf_add(o, STR(",\"output_index\":"));
    json_u64(o, s->n_done);
    return o;
}

/* An event of what is in an item. */
static buf *begin_inside(const choice *c, uint32_t i, str type) {
    buf *o = begin_item(c, type);
    buf_add(o, STR(",\"item_id\":"));
    write_item_id(c, i, o);
    if (c->parts[i].kind != PART_CALL) buf_add(o, STR(",\"content_index\":0"));
    return o;
}

static void open_item(choice *c, uint32_t i) {
    buf *o = begin_item(c, STR("response.output_item.added"));
    buf_add(o, STR(",\"item\":"));
    write_item(c, i, "in_progress", false, o);
    end_event(c->a, o);
    c->parts[i].opened = true;
    if (c->parts[i].kind == PART_CALL) return;
    o = begin_inside(c, i, STR("response.content_part.added"));
    buf_add(o, STR(",\"part\":"));
    write_content(c, i, false, o);
    end_event(c->a, o);
}

static const str delta_type[] = {
    [PART_TEXT] = STR("response.output_text.delta"),
    [PART_REASONING] = STR("response.reasoning_text.delta"),
    [PART_CALL] = STR("response.function_call_arguments.delta"),
};

/* What the item has that is not sent. The input of a custom call is known at its end. */
static void send_delta(choice *c, uint32_t i) {
    stream_state *s = c->a->state;
    answer_part *p = &c->parts[i];
    const bool custom = p->kind == PART_CALL && is_custom(c->a, p->name);
    if (p->text.len == p->sent || (custom && !p->closed)) return;
    buf *o = begin_inside(
        c, i, custom ? STR("response.custom_tool_call_input.delta") : delta_type[p->kind]);
    buf_add(o, STR(",\"delta\":\""));
    json_esc(o,
             custom ? custom_input(c, p) : (str){p->text.ptr + p->sent, p->text.len - p->sent});
    buf_addc(o, '"');
    if (p->kind == PART_TEXT) {
        buf_add(o, STR(",\"logprobs\":"));
        write_logprobs(c, i, s->logprobs_at, o);
        s->logprobs_at = c->lp.part[0].len;
    }
    end_event(c->a, o);
    p->sent = p->text.len;
    if (p->text.failed || c->lp.failed) o->failed = true;
}

/* The last event of what is in the item: all of it. */
static void close_content(choice *c, uint32_t i) {
    const answer_part *p = &c->parts[i];
    const bool custom = p->kind == PART_CALL && is_custom(c->a, p->name);
    buf *o = begin_inside(c, i,
                          custom                 ? STR("response.custom_tool_call_input.done")
                          : p->kind == PART_TEXT ? STR("response.output_text.done")
                          : p->kind == PART_REASONING
                              ? STR("response.reasoning_text.done")
                              : STR("response.function_call_arguments.done"));
    buf_add(o, custom                 ? STR(",\"input\":\"")
               : p->kind == PART_CALL ? STR(",\"arguments\":\"")
                                      : STR(",\"text\":\""));
    json_esc(o, custom ? custom_input(c, p) : buf_str(&p->text));
    buf_addc(o, '"');
    if (p->kind == PART_TEXT) {
        buf_add(o, STR(",\"logprobs\":"));
        write_logprobs(c, i, 0, o);
    }
    if (p->kind == PART_CALL) {
        buf_add(o, STR(",\"name\":"));
        json_str(o, p->name);
    }
    end_event(c->a, o);
    if (p->kind == PART_CALL) return;
    o = begin_inside(c, i, STR("response.content_part.done"));
    buf_add(o, STR(",\"part\":"));
    write_content(c, i, true, o);
    end_event(c->a, o);
}

static void close_item(choice *c, uint32_t i) {
    stream_state *s = c->a->state;
    close_content(c, i);
    buf *o = begin_item(c, STR("response.output_item.done"));
    buf_add(o, STR(",\"item\":"));
    write_item(c, i, item_status(c, i), true, o);
    end_event(c->a, o);
    s->n_done++;
}

/* ---- the writer ---- */

static bool begin_stream(answer *a) {
    a->state = arena_zalloc(&a->rq->mem, sizeof(stream_state));
    if (!a->state) return false;
    http_stream(a->rq);
    send_response(a, STR("response.created"), "in_progress", NULL);
    send_response(a, STR("response.in_progress"), "in_progress", NULL);
    return true;
}

static void send_parts(choice *c) {
    for (; c->first_unsent < c->n_parts; c->first_unsent++) {
        const uint32_t i = c->first_unsent;
        if (choice_shows(c, i)) {
            if (!c->parts[i].opened) open_item(c, i);
            send_delta(c, i);
            if (c->parts[i].closed) close_item(c, i);
        }
        if (!c->parts[i].closed) return;
    }
}

static void done(answer *a) {
    const bool cut = strcmp(a->choices->finish, "length") == 0;
    send_response(a, cut ? STR("response.incomplete") : STR("response.completed"), NULL, NULL);
    http_stream_end(a->rq);
}

static void error(answer *a, const failure *f) {
    send_response(a, STR("response.failed"), "failed", f);
    http_stream_end(a->rq);
}

static void whole(answer *a) {
    buf b;
    buf_init(&b, &a->rq->mem);
    write_response(a, NULL, NULL, &b);
    if (choice_failed(a->choices)) b.failed = true;
    app_json(a->rq, &b);
}

static void count(answer *a) {
    writer_count(a, STR("\"object\":\"response.input_tokens\","));
}

const writer writer_responses = {
    .id_prefix = "resp_",
    .chat = true,
    .open = begin_stream,
    .delta = send_parts,
    .finish = send_parts,
    .done = done,
    .error = error,
    .whole = whole,
};

const writer writer_responses_count = {.id_prefix = "resp_", .chat = true, .count = count};
