/* Chunks of an event stream, written by hand: a few microseconds each matter at thousands a
 * second. Owns nothing. */
#include "api/answer.h"
#include "json/out.h"

static void head_write(const answer *a, buf *b) {
    buf_add(b, STR("data: {\"id\":\""));
    buf_add(b, str_of(a->id));
    buf_add(b, a->chat ? STR("\",\"object\":\"chat.completion.chunk\",\"created\":")
                       : STR("\",\"object\":\"text_completion\",\"created\":"));
    json_u64(b, a->created);
    write_model(a, b);
    buf_add(b, STR(",\"choices\":["));
}

bool sse_open(answer *a) {
    buf b;
    buf_init(&b, &a->rq->mem);
    head_write(a, &b);
    if (b.failed) return false;
    a->head = buf_str(&b);
    http_stream(a->rq);
    return true;
}

/* Ends choices and chunk. n_output: of the usage that a chunk may have. */
static void tail(const answer *a, uint64_t n_output, buf *o) {
    if (a->p.continuous_usage)
        usage_write(a, n_output, o);
    else if (a->p.include_usage)
        buf_add(o, STR(",\"usage\":null"));
    buf_add(o, STR("}\n\n"));
}

static buf *begin(const choice *c) {
    buf *o = http_stream_out(c->a->rq);
    buf_add(o, c->a->head);
    buf_add(o, STR("{\"index\":"));
    json_u64(o, c->index);
    return o;
}

/* Chat: the role, and nothing else yet. */
static void role(const choice *c) {
    buf *o = begin(c);
    buf_add(o, STR(",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                   "\"finish_reason\":null}]"));
    prompt_write_ids(c->a, &c->a->prompts[c->prompt], o);
    tail(c->a, 0, o);
}

/* What is not sent yet of text, tokens and logprobs. */
static void content(choice *c, buf *o) {
    const answer *a = c->a;
    const bool some = c->text.len || c->lp.n;
    if (!a->chat || some) {
        buf_add(o, a->chat ? STR(",\"delta\":{\"content\":\"") : STR(",\"text\":\""));
        json_esc(o, buf_str(&c->text));
        buf_add(o, a->chat ? STR("\"}") : STR("\""));
    } else {
        buf_add(o, STR(",\"delta\":{}"));
    }
    buf_add(o, STR(",\"logprobs\":"));
    if (some)
        logprobs_write(&c->lp, o);
    else
        buf_add(o, STR("null"));
    if (!a->chat && !c->prompt_ids_sent) prompt_write_ids(a, &a->prompts[c->prompt], o);
    c->prompt_ids_sent = true;
    write_token_ids(c, o);
    if (c->text.failed || c->lp.failed) o->failed = true;
    c->text.len = 0;
    c->ids.n = 0;
    logprobs_reset(&c->lp);
}

static void open_choice(choice *c) {
    if (c->a->chat && !c->opened) role(c);
    c->opened = true;
}

void sse_text(choice *c) {
    answer *a = c->a;
    open_choice(c);
    if (c->text.len == 0 && c->lp.n == 0) return;
    buf *o = begin(c);
    content(c, o);
    buf_add(o, a->chat ? STR(",\"finish_reason\":null}]")
                       : STR(",\"finish_reason\":null,\"stop_reason\":null}]"));
    tail(a, usage_output_tokens(a), o);
    http_wake(a->rq);
}

void sse_finish(choice *c) {
    answer *a = c->a;
    open_choice(c);
    buf *o = begin(c);
    content(c, o);
    buf_add(o, STR(",\"finish_reason\":\""));
    buf_add(o, str_of(c->finish));
    buf_addc(o, '"');
    write_stop_reason(c, o);
    buf_add(o, STR("}]"));
    tail(a, usage_output_tokens(a), o);
    http_wake(a->rq);
}

void sse_done(answer *a) {
    buf *o = http_stream_out(a->rq);
    if (a->p.include_usage || a->p.return_memory) {
        buf_add(o, a->head);
        buf_addc(o, ']');
        if (a->p.include_usage) usage_write(a, usage_output_tokens(a), o);
        if (a->p.return_memory) usage_write_memory(a, o);
        buf_add(o, STR("}\n\n"));
    }
    buf_add(o, STR("data: [DONE]\n\n"));
    http_stream_end(a->rq);
}

void sse_error(answer *a, const failure *f) {
    buf *o = http_stream_out(a->rq);
    buf_add(o, STR("data: "));
    failure_json(o, f);
    buf_add(o, STR("\n\ndata: [DONE]\n\n"));
    http_stream_end(a->rq);
}
