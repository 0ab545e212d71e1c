/* Text of a choice on its way to its parts, past the stop strings. Owns nothing; loop thread. */
#include "api/answer.h"

static uint64_t count_chars(str s) {
    uint64_t n = 0;
    for (size_t i = 0; i < s.len; i++) n += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
    return n;
}

/* Passes text on, past the stop strings. True: one was found. */
bool choice_take_text(choice *c, str text) {
    answer *a = c->a;
    buf *out = &choice_part(c, PART_TEXT)->text;
    size_t before = out->len;
    int hit = -1;
    if (c->n_tokens <= c->spec.sampling.min_tokens)
        buf_add(out, text); /* too early to stop */
    else
        hit = stop_push(&a->stops, &c->stop, text, out);
    if (hit >= 0 && a->p.include_stop) buf_add(out, a->p.stop[hit]);
    c->shown_bytes += out->len - before;
    c->raw_bytes += text.len;
    c->n_chars += count_chars(text);
    logprobs_release(&c->lp, c->shown_bytes, hit < 0 && c->stop.held == 0);
    if (hit < 0) return false;
    logprobs_drop(&c->lp);
    c->stop_index = hit;
    return true;
}

void choice_flush_text(choice *c) {
    if (!c->stop.held) return;
    buf *out = &choice_part(c, PART_TEXT)->text;
    size_t before = out->len;
    stop_flush(&c->a->stops, &c->stop, out);
    c->shown_bytes += out->len - before;
}
