/* gpt-oss: the output is messages, each a header and a body. "analysis" is reasoning, "final" and
 * "commentary" are text, and what is addressed to a function is a call:
 *   <|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|>
 * The first header begins in the prompt. */
#include "text/reply/reply_in.h"

static size_t word_end(str s, size_t i) {
    while (i < s.len && !reply_is_blank(s.ptr[i]) && s.ptr[i] != SPECIAL_BYTE &&
           s.ptr[i] != '<')
        i++;
    return i;
}

/* The word behind the first `mark`, or nothing. */
static str word_after(str header, str mark) {
    size_t at = str_find(header, mark, 0);
    if (at == SIZE_MAX) return (str){0};
    at = reply_blanks(header, at + mark.len);
    return (str){header.ptr + at, word_end(header, at) - at};
}

static void begin_message(reply_parser *r, str header) {
    const str channel = word_after(header, r->plan->mark[CHANNEL_NAME]), of = STR("functions.");
    str to = word_after(header, STR("to="));
    if (str_starts(to, of)) to = (str){to.ptr + of.len, to.len - of.len};
    if (to.len && to.len <= REPLY_MAX_NAME && r->set.tools && !str_eqz(to, "user") &&
        !str_eqz(to, "assistant")) {
        reply_call(r, to, (str){0});
        reply_value_begin(&r->value, VALUE_JSON, (str){0});
        r->state = IN_VALUE;
    } else {
        const bool thinks = str_eqz(channel, "analysis") && r->set.reasoning;
        r->state = thinks ? IN_REASONING : IN_TEXT;
    }
}

bool reply_step_header(reply_parser *r, bool end) {
    const str s = reply_rest(r, r->at);
    size_t at, which;
    match m = reply_search(s, &r->plan->mark[CHANNEL_MESSAGE], 1, &at, &which);
    if (m == YES) {
        const size_t n = at + r->plan->mark[CHANNEL_MESSAGE].len;
        begin_message(r, (str){s.ptr, at});
        r->at += n;
        r->scan = r->at;
        return true;
    }
    if (!end && s.len <= REPLY_MAX_HEAD) return false;
    /* No header: text from here on. One that the end has cut off is nothing. */
    const bool cut = s.len <= REPLY_MAX_HEAD && (str_starts(s, r->plan->mark[CHANNEL_START]) ||
                                                 str_starts(s, r->plan->mark[CHANNEL_NAME]));
    if (s.len && !cut) {
        r->n_unparsed++;
        reply_emit_bytes(r, REPLY_TEXT, s);
    }
    r->at = r->in.len;
    r->state = IN_TEXT;
    return false;
}

/* The marks that end a message. */
static match message_end(const reply_parser *r, str s, size_t *at, size_t *n) {
    const str *m = r->plan->mark;
    const str ends[] = {m[CHANNEL_END], m[CHANNEL_CALL], m[CHANNEL_RETURN], m[CHANNEL_START]};
    size_t which = 0;
    const match got = reply_search(s, ends, 4, at, &which);
    *n = got == YES ? ends[which].len : 0;
    return got;
}

bool reply_step_channel(reply_parser *r, bool end) {
    const str s = reply_rest(r, r->at);
    size_t at, n;
    match m = message_end(r, s, &at, &n);
    if (m == PART && end) m = NO, at = s.len;
    reply_emit_bytes(r, r->state == IN_REASONING ? REPLY_REASONING : REPLY_TEXT,
                     (str){s.ptr, at});
    r->at += at + n;
    r->scan = r->at;
    if (m == YES) r->state = IN_HEADER;
    return m == YES;
}

bool reply_step_skipped(reply_parser *r, bool end) {
    const str s = reply_rest(r, r->at);
    const size_t i = reply_blanks(s, 0);
    size_t at, n;
    if (i == s.len) return false;
    const match m = message_end(r, s, &at, &n);
    if (m == PART && !end) return false;
    if (m == YES && at == i) {
        r->at += at + n;
        r->state = IN_HEADER;
    } else { /* behind the object: text */
        r->state = IN_TEXT;
    }
    r->scan = r->at;
    return true;
}
