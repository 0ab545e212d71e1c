/* Steps that the files of the reply parser share: marks, events, and how a call begins, ends and
 * fails. Owns nothing. */
#include "text/reply/reply_in.h"

#include <string.h>

bool reply_is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("_.-:/", c)) || ((c & 0x80) && c != SPECIAL_BYTE);
}

match reply_lit(str s, size_t *i, str mark) {
    const size_t left = s.len - *i, n = left < mark.len ? left : mark.len;
    if (n && memcmp(s.ptr + *i, mark.ptr, n) != 0) return NO;
    if (n < mark.len) return PART;
    *i += n;
    return YES;
}

match reply_search(str s, const str *marks, size_t n, size_t *at, size_t *which) {
    for (*at = 0; *at < s.len; ++*at) {
        for (*which = 0; *which < n; ++*which) {
            const str m = marks[*which];
            size_t i = *at;
            if (!m.len || m.ptr[0] != s.ptr[i]) continue;
            const match got = reply_lit(s, &i, m);
            if (got != NO) return got;
        }
    }
    return NO;
}

void reply_emit(reply_parser *r, reply_kind kind, str text) {
    const reply_event ev = {.kind = kind, .text = text};
    if (text.len || kind == REPLY_CALL_END) r->set.sink(r->set.user, &ev);
}

void reply_emit_bytes(reply_parser *r, reply_kind kind, str s) {
    for (size_t i = 0, n; i < s.len; i += n) {
        const str rest = {s.ptr + i, s.len - i};
        const char *p = memchr(rest.ptr, SPECIAL_BYTE, rest.len);
        n = p ? (size_t)(p - rest.ptr) : rest.len;
        reply_emit(r, kind, (str){rest.ptr, n});
        if (n + 1 >= rest.len) {
            i += n < rest.len; /* a byte of another origin; it is nowhere */
            continue;
        }
        reply_emit(r, kind, reply_special_text(r->plan, (unsigned char)rest.ptr[n + 1] - 1u));
        n += 2;
    }
}

void reply_emit_out(reply_parser *r) {
    reply_emit(r, REPLY_ARGS, buf_str(&r->out));
    r->out.len = 0;
}

/* Text of the answer: the blanks behind reasoning and calls are dropped. */
void reply_emit_text(reply_parser *r, str s) {
    if (r->drop_blanks) {
        const size_t i = reply_blanks(s, 0);
        s = (str){s.ptr + i, s.len - i};
        if (s.len) r->drop_blanks = false;
    }
    reply_emit_bytes(r, REPLY_TEXT, s);
}

void reply_go(reply_parser *r, reply_state state) {
    r->state = state;
    r->scan = r->at;
}

void reply_fail(reply_parser *r) {
    const str rest = reply_rest(r, r->at);
    size_t n = r->opener;
    if (n) r->n_unparsed++;
    if (!n && rest.len) n = rest.ptr[0] == SPECIAL_BYTE ? 2 : 1;
    if (n > rest.len) n = rest.len;
    if (!r->prompted) reply_emit_text(r, (str){rest.ptr, n});
    r->at += n;
    r->opener = 0;
    r->fresh = r->section = r->array = r->prompted = false;
    reply_go(r, IN_TEXT);
}

void reply_call(reply_parser *r, str name, str id) {
    const reply_event ev = {.kind = REPLY_CALL, .text = name, .id = id};
    r->set.sink(r->set.user, &ev);
    r->called = true;
    r->fresh = r->prompted = false;
    r->opener = 0;
}

void reply_called(reply_parser *r) {
    reply_emit(r, REPLY_CALL_END, (str){0});
    r->called = false;
    r->drop_blanks = true;
    reply_go(r, r->plan->format->shape == SHAPE_CHANNELS ? IN_SKIPPED : IN_TAIL);
}

void reply_break_call(reply_parser *r) {
    r->n_unparsed++;
    reply_emit(r, REPLY_CALL_END, (str){0});
    r->called = r->section = r->array = false;
    r->opener = 0;
    reply_go(r, IN_TEXT);
}

bool reply_knows(const reply_parser *r, str name) {
    size_t i;
    const json_t *tool;
    json_array_foreach(r->set.tools, i, tool) {
        const json_t *f = json_object_get(tool, "function");
        const char *s = json_string_value(json_object_get(f ? f : tool, "name"));
        if (s && str_eqz(name, s)) return true;
    }
    return false;
}
