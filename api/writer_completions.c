/* POST /v1/completions: chunks, and the answer in one piece. The output has one part, text. Owns
 * nothing. */
#include <math.h>

#include "api/writer.h"
#include "json/out.h"

/* ---- a stream ---- */

static bool begin_stream(answer *a) {
    return writer_open(a, STR("text_completion"));
}

/* What is not sent yet of text, tokens and logprobs. */
static void content(choice *c, buf *o) {
    buf *text = &c->parts->text;
    buf_add(o, STR(",\"text\":\""));
    json_esc(o, buf_str(text));
    buf_add(o, STR("\",\"logprobs\":"));
    if (text->len || c->lp.n)
        logprobs_write(&c->lp, o);
    else
        buf_add(o, STR("null"));
    if (!c->prompt_ids_sent) prompt_write_ids(c->a, &c->a->prompts[c->prompt], o);
    c->prompt_ids_sent = true;
    write_token_ids(c, o);
    if (text->failed || c->lp.failed) o->failed = true;
    writer_sent(c, c->parts);
}

static void delta(choice *c) {
    if (c->parts->text.len == 0 && c->lp.n == 0) return;
    buf *o = writer_begin(c);
    content(c, o);
    buf_add(o, STR(",\"finish_reason\":null,\"stop_reason\":null}]"));
    writer_end(c->a, usage_output_tokens(c->a), o);
    http_wake(c->a->rq);
}

static void finish(choice *c) {
    buf *o = writer_begin(c);
    content(c, o);
    buf_add(o, STR(",\"finish_reason\":\""));
    buf_add(o, str_of(c->finish));
    buf_addc(o, '"');
    write_stop_reason(c, o);
    buf_add(o, STR("}]"));
    writer_end(c->a, usage_output_tokens(c->a), o);
    http_wake(c->a->rq);
}

/* ---- in one piece ---- */

static void write_choice(const choice *c, uint32_t index, buf *b) {
    const answer *a = c->a;
    buf_add(b, STR("{\"index\":"));
    json_u64(b, index);
    buf_add(b, STR(",\"text\":"));
    json_str(b, buf_str(&c->parts->text));
    buf_add(b, STR(",\"logprobs\":"));
    logprobs_write(&c->lp, b);
    buf_add(b, STR(",\"finish_reason\":"));
    json_str(b, str_of(c->finish));
    write_stop_reason(c, b);
    prompt_write_scores(a, &a->prompts[c->prompt], b);
    prompt_write_ids(a, &a->prompts[c->prompt], b);
    write_token_ids(c, b);
    buf_addc(b, '}');
    if (choice_failed(c)) b->failed = true;
}

static double mean_logprob(const choice *c) {
    return c->n_tokens ? c->sum_logprob / c->n_tokens : -HUGE_VAL;
}

/* Of the choices of prompt i the best that no earlier call took; NULL is never best. */
static choice *take_best(choice **of, uint32_t n) {
    uint32_t best = 0;
    while (!of[best]) best++;
    for (uint32_t k = best + 1; k < n; k++)
        if (of[k] && mean_logprob(of[k]) > mean_logprob(of[best])) best = k;
    choice *c = of[best];
    of[best] = NULL;
    return c;
}

static void write_choices(const answer *a, buf *b) {
    choice *of[PARAMS_MAX_CHOICES];
    uint32_t index = 0;
    for (uint32_t i = 0; i < a->n_prompts; i++) {
        for (uint32_t k = 0; k < a->p.n; k++) of[k] = &a->choices[i * a->p.n + k];
        for (uint32_t k = 0; k < a->p.n_shown; k++, index++) {
            if (index) buf_addc(b, ',');
            write_choice(a->p.n_shown < a->p.n ? take_best(of, a->p.n) : of[k], index, b);
        }
    }
}

static void whole(answer *a) {
    buf b;
    buf_init(&b, &a->rq->mem);
    writer_head(a, STR("text_completion"), &b);
    write_choices(a, &b);
    buf_addc(&b, ']');
    writer_whole(a, &b);
}

const writer writer_completions = {
    .id_prefix = "cmpl-",
    .open = begin_stream,
    .delta = delta,
    .finish = finish,
    .done = writer_done,
    .error = writer_error,
    .whole = whole,
};
