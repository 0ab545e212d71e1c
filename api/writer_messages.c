/* POST /v1/messages: events, and the message in one piece, in Anthropic's form. Each part of the
 * choice is a block of the content; at most one is open. Owns nothing. */
#include "api/writer.h"
#include "json/out.h"

typedef struct stream_state {
    uint32_t n_done; /* blocks: the index of the one in progress */
} stream_state;

/* ---- what both forms have ---- */

/* All tokens of the prompt count as input, cached or not, as in /v1/messages/count_tokens. */
static void begin_usage(const answer *a, uint64_t n_output, buf *o) {
    buf_add(o, STR("\"usage\":{\"input_tokens\":"));
    json_u64(o, usage_prompt_tokens(a));
    buf_add(o, STR(",\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,"
                   "\"output_tokens\":"));
    json_u64(o, n_output);
}

static void write_usage(const answer *a, buf *o) {
    begin_usage(a, usage_output_tokens(a), o);
    receipt_write(a, o);
    buf_addc(o, '}');
}

static void write_stop(const choice *c, buf *o) {
    const answer *a = c->a;
    const bool length = strcmp(c->finish, "length") == 0;
    const bool full =
        length && !c->timed_out &&
        usage_prompt_tokens(a) + c->n_output >= a->rq->served->port->card.max_model_len;
    buf_add(o, STR("\"stop_reason\":"));
    buf_add(o, c->stop_index >= 0 ? STR("\"stop_sequence\"")
               : full             ? STR("\"model_context_window_exceeded\"")
               : length           ? STR("\"max_tokens\"")
               : c->n_calls       ? STR("\"tool_use\"")
                                  : STR("\"end_turn\""));
    buf_add(o, STR(",\"stop_sequence\":"));
    if (c->stop_index >= 0)
        json_str(o, a->p.stop[c->stop_index]);
    else
        buf_add(o, STR("null"));
}

static void write_head(const answer *a, buf *o) {
    buf_addf(o, "\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\",\"model\":", a->id);
    json_str(o, answer_model(a));
}

/* Clients must send one back with a block of thinking; it says which answer the block is of, and
 * is not checked. */
static void write_signature(const answer *a, buf *o) {
    buf_addf(o, "\"signature\":\"%s\"", a->id);
}

/* ---- a stream ---- */

static buf *begin_event(const answer *a, str type) {
    buf *o = http_stream_out(a->rq);
    buf_add(o, STR("event: "));
    buf_add(o, type);
    buf_add(o, STR("\ndata: {\"type\":\""));
    buf_add(o, type);
    buf_addc(o, '"');
    return o;
}

static void end_event(const answer *a, buf *o) {
    buf_add(o, STR("}\n\n"));
    http_wake(a->rq);
}

static bool begin_stream(answer *a) {
    a->state = arena_zalloc(&a->rq->mem, sizeof(stream_state));
    if (!a->state) return false;
    http_stream(a->rq);
    buf *o = begin_event(a, STR("message_start"));
    buf_add(o, STR(",\"message\":{"));
    write_head(a, o);
    buf_add(o, STR(",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"));
    begin_usage(a, 0, o);
    buf_add(o, STR("}}"));
    end_event(a, o);
    end_event(a, begin_event(a, STR("ping")));
    return true;
}

static buf *begin_block(const choice *c, str type) {
    const stream_state *s = c->a->state;
    buf *o = begin_event(c->a, type);
    buf_add(o, STR(",\"index\":"));
    json_u64(o, s->n_done);
    return o;
}

/* A block of a call up to its input. */
static void write_call(const answer_part *p, buf *o) {
    buf_add(o, STR("{\"type\":\"tool_use\",\"id\":"));
    json_str(o, p->id);
    buf_add(o, STR(",\"name\":"));
    json_str(o, p->name);
    buf_add(o, STR(",\"input\":"));
}

static void open_block(choice *c, answer_part *p) {
    buf *o = begin_block(c, STR("content_block_start"));
    buf_add(o, STR(",\"content_block\":"));
    if (p->kind == PART_CALL) {
        write_call(p, o);
        buf_add(o, STR("{}}"));
    } else {
        buf_add(o, p->kind == PART_TEXT
                       ? STR("{\"type\":\"text\",\"text\":\"\"}")
                       : STR("{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}"));
    }
    end_event(c->a, o);
    p->opened = true;
}

static void send_delta(choice *c, answer_part *p) {
    if (!p->text.len) return;
    buf *o = begin_block(c, STR("content_block_delta"));
    buf_add(o, p->kind == PART_TEXT ? STR(",\"delta\":{\"type\":\"text_delta\",\"text\":\"")
               : p->kind == PART_REASONING
                   ? STR(",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"")
                   : STR(",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\""));
    json_esc(o, buf_str(&p->text));
    buf_add(o, STR("\"}"));
    end_event(c->a, o);
    if (p->text.failed) o->failed = true;
    p->sent += p->text.len;
    p->text.len = 0;
}

static void close_block(choice *c, answer_part *p) {
    stream_state *s = c->a->state;
    if (p->kind == PART_CALL && !p->sent) { /* a tool without arguments */
        buf_add(&p->text, STR("{}"));
        send_delta(c, p);
    }
    if (p->kind == PART_REASONING) {
        buf *o = begin_block(c, STR("content_block_delta"));
        buf_add(o, STR(",\"delta\":{\"type\":\"signature_delta\","));
        write_signature(c->a, o);
        buf_addc(o, '}');
        end_event(c->a, o);
    }
    end_event(c->a, begin_block(c, STR("content_block_stop")));
    s->n_done++;
}

static void send_parts(choice *c) {
    for (; c->first_unsent < c->n_parts; c->first_unsent++) {
        answer_part *p = &c->parts[c->first_unsent];
        if (choice_shows(c, c->first_unsent)) {
            if (!p->opened) open_block(c, p);
            send_delta(c, p);
            if (p->closed) close_block(c, p);
        }
        if (!p->closed) return;
    }
}

static void done(answer *a) {
    buf *o = begin_event(a, STR("message_delta"));
    buf_add(o, STR(",\"delta\":{"));
    write_stop(a->choices, o);
    buf_add(o, STR("},"));
    write_usage(a, o);
    end_event(a, o);
    end_event(a, begin_event(a, STR("message_stop")));
    http_stream_end(a->rq);
}

static void error(answer *a, const failure *f) {
    buf *o = http_stream_out(a->rq);
    buf_add(o, STR("event: error\ndata: "));
    errors_anthropic.write(o, f, a->rq->id);
    buf_add(o, STR("\n\n"));
    http_stream_end(a->rq);
}

/* ---- in one piece ---- */

/* The input of a call. Where it broke off it is no JSON: what there is, as a string. */
static void write_input(const choice *c, const answer_part *p, buf *o) {
    const json_t *v;
    err e;
    if (!p->text.len) {
        buf_add(o, STR("{}"));
    } else if (json_in_parse(&v, &c->a->rq->mem, buf_str(&p->text), &e) == OK &&
               json_is_object(v)) {
        buf_add(o, buf_str(&p->text));
    } else {
        buf_add(o, STR("{\"partial_json\":"));
        json_str(o, buf_str(&p->text));
        buf_addc(o, '}');
    }
}

static void write_block(const choice *c, const answer_part *p, buf *o) {
    if (p->kind == PART_CALL) {
        write_call(p, o);
        write_input(c, p, o);
    } else if (p->kind == PART_REASONING) {
        buf_add(o, STR("{\"type\":\"thinking\",\"thinking\":"));
        json_str(o, buf_str(&p->text));
        buf_addc(o, ',');
        write_signature(c->a, o);
    } else {
        buf_add(o, STR("{\"type\":\"text\",\"text\":"));
        json_str(o, buf_str(&p->text));
    }
    buf_addc(o, '}');
}

static void whole(answer *a) {
    const choice *c = a->choices;
    bool some = false;
    buf b;
    buf_init(&b, &a->rq->mem);
    buf_addc(&b, '{');
    write_head(a, &b);
    buf_add(&b, STR(",\"content\":["));
    for (uint32_t i = 0; i < c->n_parts; i++) {
        if (!choice_shows(c, i)) continue;
        if (some) buf_addc(&b, ',');
        some = true;
        write_block(c, &c->parts[i], &b);
    }
    buf_add(&b, STR("],"));
    write_stop(c, &b);
    buf_addc(&b, ',');
    write_usage(a, &b);
    buf_addc(&b, '}');
    if (choice_failed(c)) b.failed = true;
    app_json(a->rq, &b);
}

static void count(answer *a) {
    writer_count(a, STR(""));
}

const writer writer_messages = {
    .id_prefix = "msg_",
    .chat = true,
    .cuts_length = true,
    .open = begin_stream,
    .delta = send_parts,
    .finish = send_parts,
    .done = done,
    .error = error,
    .whole = whole,
};

const writer writer_messages_count = {.id_prefix = "msg_", .chat = true, .count = count};
