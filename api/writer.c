/* Chunks of OpenAI's event streams, written by hand: a few microseconds each matter at thousands
 * a second. Owns nothing. */
#include "api/writer.h"
#include "json/out.h"

void writer_head(const answer *a, str object, buf *b) {
    buf_add(b, STR("{\"id\":\""));
    buf_add(b, str_of(a->id));
    buf_add(b, STR("\",\"object\":\""));
    buf_add(b, object);
    buf_add(b, STR("\",\"created\":"));
    json_u64(b, a->created);
    write_model(a, b);
    buf_add(b, STR(",\"choices\":["));
}

bool writer_open(answer *a, str object) {
    buf b;
    buf_init(&b, &a->rq->mem);
    buf_add(&b, STR("data: "));
    writer_head(a, object, &b);
    if (b.failed) return false;
    a->head = buf_str(&b);
    http_stream(a->rq);
    return true;
}

void writer_end(const answer *a, uint64_t n_output, buf *o) {
    if (a->p.continuous_usage)
        usage_write(a, n_output, o);
    else if (a->p.include_usage)
        buf_add(o, STR(",\"usage\":null"));
    buf_add(o, STR("}\n\n"));
}

buf *writer_begin(const choice *c) {
    buf *o = http_stream_out(c->a->rq);
    buf_add(o, c->a->head);
    buf_add(o, STR("{\"index\":"));
    json_u64(o, c->index);
    return o;
}

void writer_done(answer *a) {
    buf *o = http_stream_out(a->rq);
    const bool usage = a->p.include_usage || a->p.receipt;
    if (usage || a->p.return_memory) {
        buf_add(o, a->head);
        buf_addc(o, ']');
        if (usage) usage_write_all(a, o);
        if (a->p.return_memory) usage_write_memory(a, o);
        buf_add(o, STR("}\n\n"));
    }
    buf_add(o, STR("data: [DONE]\n\n"));
    http_stream_end(a->rq);
}

void writer_sent(choice *c, answer_part *p) {
    p->text.len = 0;
    c->ids.n = 0;
    logprobs_reset(&c->lp);
}

void writer_whole(answer *a, buf *b) {
    usage_write_all(a, b);
    if (a->p.return_memory) usage_write_memory(a, b);
    buf_addc(b, '}');
    app_json(a->rq, b);
}

void writer_error(answer *a, const failure *f) {
    buf *o = http_stream_out(a->rq);
    buf_add(o, STR("data: "));
    failure_json(o, f);
    buf_add(o, STR("\n\ndata: [DONE]\n\n"));
    http_stream_end(a->rq);
}

void writer_count(answer *a, str before) {
    buf b;
    buf_init(&b, &a->rq->mem);
    buf_addc(&b, '{');
    buf_add(&b, before);
    buf_add(&b, STR("\"input_tokens\":"));
    json_u64(&b, usage_prompt_tokens(a));
    buf_addc(&b, '}');
    app_json(a->rq, &b);
}
