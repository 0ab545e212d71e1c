/* POST /v1/chat/completions: chunks, and the answer in one piece: content, reasoning_content and
 * tool_calls. Reasoning has two names, since clients read one or the other: reasoning_content
 * (DeepSeek, llama.cpp) and reasoning (vLLM, OpenRouter). Owns nothing. */
#include "api/writer.h"
#include "json/out.h"

/* ---- a stream ---- */

static bool begin_stream(answer *a) {
    return writer_open(a, STR("chat.completion.chunk"));
}

/* The role, and nothing else yet. */
static void open_choice(choice *c) {
    if (c->opened) return;
    c->opened = true;
    buf *o = writer_begin(c);
    buf_add(o, STR(",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                   "\"finish_reason\":null}]"));
    prompt_write_ids(c->a, &c->a->prompts[c->prompt], o);
    writer_end(c->a, 0, o);
}

/* The head of a call, with everything but its arguments. */
static void send_call(choice *c, answer_part *p) {
    buf *o = writer_begin(c);
    buf_add(o, STR(",\"delta\":{\"tool_calls\":[{\"index\":"));
    json_u64(o, p->index);
    buf_add(o, STR(",\"id\":"));
    json_str(o, p->id);
    buf_add(o, STR(",\"type\":\"function\",\"function\":{\"name\":"));
    json_str(o, p->name);
    buf_add(o, STR(",\"arguments\":\"\"}}]},\"logprobs\":null,\"finish_reason\":null}]"));
    writer_end(c->a, usage_output_tokens(c->a), o);
    p->opened = true;
    http_wake(c->a->rq);
}

/* From "delta" to the value of "logprobs": what the part has that is not sent. */
static void write_delta(const answer_part *p, buf *o) {
    if (p->kind == PART_CALL) {
        buf_add(o, STR(",\"delta\":{\"tool_calls\":[{\"index\":"));
        json_u64(o, p->index);
        buf_add(o, STR(",\"function\":{\"arguments\":\""));
        json_esc(o, buf_str(&p->text));
        buf_add(o, STR("\"}}]},\"logprobs\":"));
        return;
    }
    if (p->kind == PART_REASONING) {
        buf_add(o, STR(",\"delta\":{\"reasoning_content\":\""));
        json_esc(o, buf_str(&p->text));
        buf_add(o, STR("\",\"reasoning\":\""));
    } else {
        buf_add(o, STR(",\"delta\":{\"content\":\""));
    }
    json_esc(o, buf_str(&p->text));
    buf_add(o, STR("\"},\"logprobs\":"));
}

/* A chunk of what the part, and the choice's tokens and logprobs, have that is not sent.
 * finish: c->finish, in the last chunk of the choice. */
static void send_part(choice *c, answer_part *p, const char *finish) {
    const bool some = p->text.len || c->lp.n;
    buf *o = writer_begin(c);
    if (some) {
        write_delta(p, o);
        logprobs_write(&c->lp, o);
    } else {
        buf_add(o, STR(",\"delta\":{},\"logprobs\":null"));
    }
    write_token_ids(c, o);
    if (p->text.failed || c->lp.failed) o->failed = true;
    p->opened |= p->text.len > 0;
    writer_sent(c, p);
    buf_add(o, finish ? STR(",\"finish_reason\":\"") : STR(",\"finish_reason\":null}]"));
    if (finish) {
        buf_add(o, str_of(finish));
        buf_addc(o, '"');
        write_stop_reason(c, o);
        buf_add(o, STR("}]"));
    }
    writer_end(c->a, usage_output_tokens(c->a), o);
    http_wake(c->a->rq);
}

static void send_parts(choice *c, const char *finish) {
    open_choice(c);
    for (;; c->first_unsent++) {
        answer_part *p = &c->parts[c->first_unsent];
        const bool last = c->first_unsent + 1 == c->n_parts;
        if (p->kind == PART_CALL && !p->opened) send_call(c, p);
        if (p->text.len || (last && (finish || c->lp.n))) send_part(c, p, last ? finish : NULL);
        if (last) return;
    }
}

static void delta(choice *c) {
    send_parts(c, NULL);
}

static void finish(choice *c) {
    send_parts(c, c->finish);
}

/* ---- in one piece ---- */

/* The texts of all parts of a kind, as one string. False: there is none, and nothing is
 * written. */
static bool write_texts(const choice *c, part_kind kind, str name, buf *b) {
    bool some = false;
    for (uint32_t i = 0; i < c->n_parts; i++) {
        const answer_part *p = &c->parts[i];
        if (p->kind != kind || !p->text.len) continue;
        if (!some) buf_add(b, name);
        if (!some) buf_addc(b, '"');
        json_esc(b, buf_str(&p->text));
        some = true;
    }
    if (some) buf_addc(b, '"');
    return some;
}

static void write_calls(const choice *c, buf *b) {
    buf_add(b, STR(",\"tool_calls\":["));
    for (uint32_t i = 0; i < c->n_parts; i++) {
        const answer_part *p = &c->parts[i];
        if (p->kind != PART_CALL) continue;
        buf_add(b, p->index ? STR(",{\"id\":") : STR("{\"id\":"));
        json_str(b, p->id);
        buf_add(b, STR(",\"type\":\"function\",\"function\":{\"name\":"));
        json_str(b, p->name);
        buf_add(b, STR(",\"arguments\":"));
        json_str(b, buf_str(&p->text));
        buf_add(b, STR("}}"));
    }
    buf_addc(b, ']');
}

static void write_choice(const choice *c, buf *b) {
    buf_add(b, STR("{\"index\":"));
    json_u64(b, c->index);
    buf_add(b, STR(",\"message\":{\"role\":\"assistant\""));
    if (!write_texts(c, PART_TEXT, STR(",\"content\":"), b))
        buf_add(b, c->n_calls ? STR(",\"content\":null") : STR(",\"content\":\"\""));
    write_texts(c, PART_REASONING, STR(",\"reasoning_content\":"), b);
    write_texts(c, PART_REASONING, STR(",\"reasoning\":"), b);
    if (c->n_calls) write_calls(c, b);
    buf_add(b, STR("},\"logprobs\":"));
    logprobs_write(&c->lp, b);
    buf_add(b, STR(",\"finish_reason\":"));
    json_str(b, str_of(c->finish));
    write_stop_reason(c, b);
    write_token_ids(c, b);
    buf_addc(b, '}');
    if (choice_failed(c)) b->failed = true;
}

static void whole(answer *a) {
    buf b;
    buf_init(&b, &a->rq->mem);
    writer_head(a, STR("chat.completion"), &b);
    for (uint32_t i = 0; i < a->n_choices; i++) {
        if (i) buf_addc(&b, ',');
        write_choice(&a->choices[i], &b);
    }
    buf_addc(&b, ']');
    prompt_write_scores(a, a->prompts, &b);
    prompt_write_ids(a, a->prompts, &b);
    writer_whole(a, &b);
}

static void count(answer *a) {
    writer_count(a, STR("\"object\":\"chat.completion.input_tokens\","));
}

const writer writer_chat_count = {.id_prefix = "chatcmpl-", .chat = true, .count = count};

const writer writer_chat = {
    .id_prefix = "chatcmpl-",
    .chat = true,
    .open = begin_stream,
    .delta = delta,
    .finish = finish,
    .done = writer_done,
    .error = writer_error,
    .whole = whole,
};
