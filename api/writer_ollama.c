/* Ollama's answers: an object a line, of which the last has "done": true, or one object. Times
 * are in nanoseconds; the arguments of a call are an object, so that a call is sent when it is
 * whole. Owns nothing. */
#include <stdio.h>
#include <time.h>

#include "api/native.h"
#include "api/ollama.h"
#include "api/writer.h"
#include "json/out.h"

void ollama_time(uint64_t unix_us, buf *b) {
    const time_t s = (time_t)(unix_us / 1000000);
    struct tm t;
    char text[32];
    gmtime_r(&s, &t);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &t);
    buf_addf(b, "\"%s.%06uZ\"", text, (unsigned)(unix_us % 1000000));
}

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void head(const answer *a, buf *b) {
    buf_add(b, STR("{\"model\":"));
    json_str(b, answer_model(a));
    buf_add(b, STR(",\"created_at\":"));
    ollama_time(now_us(), b);
}

static bool is_object(const choice *c, str text) {
    const json_t *v;
    err e;
    return json_in_parse(&v, &c->a->rq->mem, text, &e) == OK && json_is_object(v);
}

/* The end of the parts that can be sent: a call that is not whole waits, and what is behind it. */
static uint32_t n_ready(const choice *c) {
    uint32_t i = c->first_unsent;
    while (i < c->n_parts && (c->parts[i].kind != PART_CALL || c->parts[i].closed)) i++;
    return i;
}

/* The text of all parts of a kind that are not sent, as a JSON string; arguments that are no
 * object are text, too: nothing is lost. False: there is none, and nothing is written. */
static bool write_texts(const choice *c, part_kind kind, const char *name, buf *b) {
    bool some = false;
    for (uint32_t i = c->first_unsent; i < n_ready(c); i++) {
        const answer_part *p = &c->parts[i];
        const bool broken = p->kind == PART_CALL && kind == PART_TEXT && !p->opened &&
                            !is_object(c, buf_str(&p->text));
        if ((p->kind != kind && !broken) || !p->text.len) continue;
        if (!some) buf_addf(b, ",\"%s\":\"", name);
        some = true;
        json_esc(b, buf_str(&p->text));
    }
    if (some) buf_addc(b, '"');
    return some;
}

static void write_calls(const choice *c, buf *b) {
    bool some = false;
    for (uint32_t i = c->first_unsent; i < n_ready(c); i++) {
        const answer_part *p = &c->parts[i];
        const str text = buf_str(&p->text);
        if (p->kind != PART_CALL || p->opened) continue;
        if (p->text.len && !is_object(c, text)) continue;
        buf_add(b, some ? STR(",{\"id\":") : STR(",\"tool_calls\":[{\"id\":"));
        some = true;
        json_str(b, p->id);
        buf_addf(b, ",\"function\":{\"index\":%u,\"name\":", p->index);
        json_str(b, p->name);
        buf_add(b, STR(",\"arguments\":"));
        buf_add(b, p->text.len ? text : STR("{}"));
        buf_add(b, STR("}}"));
    }
    if (some) buf_addc(b, ']');
}

/* What the choice has that is not sent. */
static void content(const choice *c, buf *b) {
    const bool chat = c->a->writer == &writer_ollama_chat;
    if (chat) buf_add(b, STR(",\"message\":{\"role\":\"assistant\""));
    if (!write_texts(c, PART_TEXT, chat ? "content" : "response", b))
        buf_add(b, chat ? STR(",\"content\":\"\"") : STR(",\"response\":\"\""));
    write_texts(c, PART_REASONING, "thinking", b);
    write_calls(c, b);
    if (chat) buf_addc(b, '}');
    if (c->lp.on && c->lp.n) {
        buf_add(b, STR(",\"logprobs\":["));
        buf_add(b, buf_str(&c->lp.part[0]));
        buf_addc(b, ']');
    }
    if (choice_failed(c)) b->failed = true;
}

static void ending(const choice *c, buf *b) {
    const choice_times t = native_times(c);
    buf_addf(b, ",\"done\":true,\"done_reason\":\"%s\"",
             strcmp(c->finish, "length") == 0 ? "length" : "stop");
    buf_addf(b, ",\"total_duration\":%llu,\"load_duration\":%llu",
             (unsigned long long)c->usage.ended_us * 1000,
             (unsigned long long)c->usage.queued_us * 1000);
    buf_addf(b, ",\"prompt_eval_count\":%u,\"prompt_eval_duration\":%llu", c->spec.n_prompt,
             (unsigned long long)t.prompt_us * 1000);
    buf_addf(b, ",\"eval_count\":%u,\"eval_duration\":%llu}", c->n_output,
             (unsigned long long)t.output_us * 1000);
}

/* ---- a stream ---- */

static bool begin_stream(answer *a) {
    http_stream_lines(a->rq);
    return true;
}

/* Forgets what is sent. The last part may grow: it is looked at again. */
static void sent(choice *c) {
    const uint32_t end = n_ready(c);
    for (uint32_t i = c->first_unsent; i < end; i++) {
        c->parts[i].opened = true;
        if (c->parts[i].kind != PART_CALL) c->parts[i].text.len = 0;
    }
    c->first_unsent = end == c->n_parts ? end - 1 : end;
    c->ids.n = 0;
    logprobs_reset(&c->lp);
}

static bool has_some(const choice *c) {
    for (uint32_t i = c->first_unsent; i < n_ready(c); i++) {
        const answer_part *p = &c->parts[i];
        if (p->kind == PART_CALL ? !p->opened : p->text.len > 0) return true;
    }
    return c->lp.n > 0;
}

static void delta(choice *c) {
    if (!has_some(c)) return;
    buf *o = http_stream_out(c->a->rq);
    head(c->a, o);
    content(c, o);
    buf_add(o, STR(",\"done\":false}\n"));
    sent(c);
    http_wake(c->a->rq);
}

/* The times of the last line are known when all has ended. */
static void done(answer *a) {
    buf *o = http_stream_out(a->rq);
    head(a, o);
    content(a->choices, o);
    ending(a->choices, o);
    buf_addc(o, '\n');
    http_stream_end(a->rq);
}

static void stream_error(answer *a, const failure *f) {
    buf *o = http_stream_out(a->rq);
    errors_ollama.write(o, f, a->rq->id);
    buf_addc(o, '\n');
    http_stream_end(a->rq);
}

/* ---- in one piece ---- */

static void whole(answer *a) {
    buf b;
    buf_init(&b, &a->rq->mem);
    head(a, &b);
    content(a->choices, &b);
    ending(a->choices, &b);
    app_json(a->rq, &b);
}

#define WRITER(is_chat)                                                                        \
    {                                                                                          \
        .id_prefix = "ollama-", .chat = is_chat, .fills = true, .lists = true,                 \
        .open = begin_stream, .delta = delta, .finish = delta, .done = done,                   \
        .error = stream_error, .whole = whole                                                  \
    }
const writer writer_ollama_chat = WRITER(true), writer_ollama_generate = WRITER(true),
             writer_ollama_raw = WRITER(false);
