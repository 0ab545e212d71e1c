/* POST /completion and /infill in the form of llama.cpp's server: an object for each prompt, and
 * a stream whose last event has "stop": true and nothing behind it. Owns nothing. */
#include "api/native.h"
#include "api/writer.h"
#include "json/out.h"

choice_times native_times(const choice *c) {
    const gen_usage *u = &c->usage;
    /* Without output the prompt took all the time. */
    const uint64_t first = u->first_token_us ? u->first_token_us : u->ended_us;
    return (choice_times){.prompt_us = first > u->queued_us ? first - u->queued_us : 0,
                          .output_us = u->ended_us > first ? u->ended_us - first : 0};
}

static void real(buf *b, const char *name, double v) {
    buf_addf(b, ",\"%s\":%.9g", name, v);
}

void native_settings(const params *p, buf *b) {
    const sampling *s = &p->sampling;
    buf_addf(b, "\"n_predict\":%lld,\"seed\":%llu", (long long)p->max_tokens,
             (unsigned long long)s->seed);
    real(b, "temperature", (double)s->temperature);
    buf_addf(b, ",\"top_k\":%d", s->top_k > 0 ? s->top_k : 0);
    real(b, "top_p", (double)s->top_p);
    real(b, "min_p", (double)s->min_p);
    real(b, "typical_p", (double)s->typical_p);
    real(b, "repeat_penalty", (double)s->repetition_penalty);
    real(b, "presence_penalty", (double)s->presence_penalty);
    real(b, "frequency_penalty", (double)s->frequency_penalty);
    buf_addf(b,
             ",\"max_tokens\":%lld,\"ignore_eos\":%s,\"stream\":%s,\"n_probs\":%d,\"stop\":[",
             (long long)p->max_tokens, p->ignore_eos ? "true" : "false",
             p->stream ? "true" : "false", p->n_top);
    for (uint32_t i = 0; i < p->n_stop; i++) {
        if (i) buf_addc(b, ',');
        json_str(b, p->stop[i]);
    }
    buf_addc(b, ']');
}

static double per_second(uint64_t n, uint64_t us) {
    return us ? (double)n * 1e6 / (double)us : 0;
}

static void write_timings(const choice *c, buf *b) {
    const choice_times t = native_times(c);
    const uint32_t cached = c->usage.n_cached, n = c->spec.n_prompt - cached;
    buf_addf(b, ",\"timings\":{\"cache_n\":%u,\"prompt_n\":%u", cached, n);
    real(b, "prompt_ms", (double)t.prompt_us / 1e3);
    real(b, "prompt_per_token_ms", n ? (double)t.prompt_us / 1e3 / n : 0);
    real(b, "prompt_per_second", per_second(n, t.prompt_us));
    buf_addf(b, ",\"predicted_n\":%u", c->n_output);
    real(b, "predicted_ms", (double)t.output_us / 1e3);
    real(b, "predicted_per_token_ms",
         c->n_output ? (double)t.output_us / 1e3 / c->n_output : 0);
    real(b, "predicted_per_second", per_second(c->n_output, t.output_us));
    buf_addc(b, '}');
}

/* Up to the member "stop": what is not sent yet of text, tokens and probabilities. */
static void content(const choice *c, buf *b) {
    buf_addf(b, "{\"index\":%u,\"content\":", c->index);
    json_str(b, buf_str(&c->parts->text));
    buf_add(b, STR(",\"tokens\":["));
    for (size_t i = 0; i < c->ids.n; i++) buf_addf(b, i ? ",%d" : "%d", c->ids.v[i]);
    buf_addf(b, "],\"id_slot\":-1,\"tokens_predicted\":%u,\"tokens_evaluated\":%u", c->n_output,
             c->spec.n_prompt);
    if (c->lp.on) {
        buf_add(b, STR(",\"completion_probabilities\":["));
        buf_add(b, buf_str(&c->lp.part[0]));
        buf_addc(b, ']');
    }
    if (choice_failed(c)) b->failed = true;
}

static const char *stop_type(const choice *c) {
    if (c->stop_index >= 0) return "word";
    return strcmp(c->finish, "length") == 0 ? "limit" : "eos";
}

static bool has_line(const choice *c) {
    return c->parts->text.len && memchr(c->parts->text.ptr, '\n', c->parts->text.len);
}

/* The members behind "stop": true, of a choice that has ended. */
static void ending(const choice *c, buf *b) {
    const answer *a = c->a;
    const prompt_in *p = &a->prompts[c->prompt];
    buf_add(b, STR(",\"stop\":true,\"model\":"));
    json_str(b, answer_model(a));
    buf_add(b, STR(",\"generation_settings\":{"));
    native_settings(&a->p, b);
    buf_add(b, STR("},\"prompt\":"));
    json_str_lossy(b, p->is_text ? p->text : STR(""));
    const bool line = a->state || has_line(c);
    buf_addf(b,
             ",\"has_new_line\":%s,\"truncated\":false,\"stop_type\":\"%s\","
             "\"stopping_word\":",
             line ? "true" : "false", stop_type(c));
    json_str(b, c->stop_index >= 0 ? a->p.stop[c->stop_index] : STR(""));
    buf_addf(b, ",\"tokens_cached\":%u", c->spec.n_prompt + c->n_output);
    write_timings(c, b);
    buf_addc(b, '}');
}

/* ---- a stream ---- */

static bool begin_stream(answer *a) {
    http_stream(a->rq);
    return true;
}

static void delta(choice *c) {
    if (c->parts->text.len == 0 && c->lp.n == 0 && c->ids.n == 0) return;
    buf *o = http_stream_out(c->a->rq);
    buf_add(o, STR("data: "));
    content(c, o);
    buf_add(o, STR(",\"stop\":false}\n\n"));
    if (has_line(c)) c->a->state = c; /* for the last event */
    writer_sent(c, c->parts);
    http_wake(c->a->rq);
}

/* The last events have times, which are known when all has ended. */
static void done(answer *a) {
    buf *o = http_stream_out(a->rq);
    for (uint32_t i = 0; i < a->n_choices; i++) {
        buf_add(o, STR("data: "));
        content(&a->choices[i], o);
        ending(&a->choices[i], o);
        buf_add(o, STR("\n\n"));
    }
    http_stream_end(a->rq);
}

static void stream_error(answer *a, const failure *f) {
    buf *o = http_stream_out(a->rq);
    buf_add(o, STR("data: "));
    failure_json(o, f);
    buf_add(o, STR("\n\n"));
    http_stream_end(a->rq);
}

/* ---- in one piece ---- */

static void whole(answer *a) {
    buf b;
    buf_init(&b, &a->rq->mem);
    if (a->n_choices > 1) buf_addc(&b, '[');
    for (uint32_t i = 0; i < a->n_choices; i++) {
        if (i) buf_addc(&b, ',');
        content(&a->choices[i], &b);
        ending(&a->choices[i], &b);
    }
    if (a->n_choices > 1) buf_addc(&b, ']');
    app_json(a->rq, &b);
}

const writer writer_native = {
    .id_prefix = "cmpl-",
    .fills = true,
    .lists = true,
    .open = begin_stream,
    .delta = delta,
    .finish = delta,
    .done = done,
    .error = stream_error,
    .whole = whole,
};
