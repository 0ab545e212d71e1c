/* Calls as objects, {"name": "f", "arguments": {...}}: members in any order, others passed over;
 * and the arguments of all forms but the tagged. */
#include "text/reply/reply_in.h"

enum { O_OPEN, O_KEY, O_IN_KEY, O_COLON, O_VALUE, O_NAME, O_ARGS, O_OTHER, O_NEXT, O_FIRST };

/* ---- arguments ---- */

/* Feeds reply_value; fragments go to `out`. */
static value_result push_value(reply_parser *r, size_t *at, buf *out) {
    size_t taken = 0;
    const value_result v = reply_value_push(&r->value, reply_rest(r, *at), &taken, out);
    *at += taken;
    return v;
}

/* The call cannot go on: what the value has taken and not given is text. */
static void break_value(reply_parser *r) {
    str raw = {r->value.raw, r->value.n_raw};
    if (raw.len && raw.ptr[raw.len - 1] == SPECIAL_BYTE) raw.len--, r->at--;
    reply_break_call(r);
    reply_emit_bytes(r, REPLY_TEXT, raw);
}

bool reply_step_value(reply_parser *r, bool end) {
    (void)end;
    const value_result v = push_value(r, &r->at, &r->out);
    reply_emit_out(r);
    if (v == VALUE_DONE) reply_called(r);
    if (v == VALUE_BAD) break_value(r);
    return v != VALUE_MORE;
}

/* ---- the object ---- */

enum { OTHER_MEMBER, NAME_MEMBER, ARGS_MEMBER };

/* By the names that families of models have, and by those of the format. */
static uint8_t member_of(const reply_format *f, str key) {
    if (str_eqz(key, "name") || str_eqz(key, "tool_name")) return NAME_MEMBER;
    if (f->name_key && str_eqz(key, f->name_key)) return NAME_MEMBER;
    const bool args = str_eqz(key, "arguments") || str_eqz(key, "parameters") ||
                      (f->args_key && str_eqz(key, f->args_key));
    return args ? ARGS_MEMBER : OTHER_MEMBER;
}

/* The arguments begin, or the object ends without any: the call can leave, if its name is known
 * and nothing is before it. */
static void leave(reply_parser *r) {
    if (r->n_name && !r->called) reply_call(r, (str){r->name, r->n_name}, (str){0});
}

static match begin_member(reply_parser *r) {
    if (r->member == ARGS_MEMBER) {
        if (r->early_done) return NO;
        reply_value_begin(&r->value, VALUE_JSON, (str){0});
        leave(r);
        if (r->called) r->at = r->scan;
        r->early.len = 0;
        r->at_member = O_ARGS;
        return YES;
    }
    if (r->member == NAME_MEMBER && !r->n_name) {
        if (r->in.ptr[r->scan] != '"') return NO;
        r->scan++;
        r->at_member = O_NAME;
        return YES;
    }
    r->depth = 0;
    r->in_string = r->escaped = false;
    r->at_member = O_OTHER;
    return YES;
}

static match in_name(reply_parser *r, char c) {
    if (c == '"') {
        const str name = {r->name, r->n_name};
        if (!r->n_name || (r->unmarked && !reply_knows(r, name))) return NO;
        r->at_member = O_NEXT;
        return YES;
    }
    if (!reply_is_name(c) || r->n_name == REPLY_MAX_NAME) return NO;
    r->name[r->n_name++] = c;
    return YES;
}

/* A member of no meaning. PART: the byte is not of it. */
static match in_other(reply_parser *r, char c) {
    if (c == SPECIAL_BYTE) return NO;
    if (r->in_string) {
        if (!r->escaped && c == '"') r->in_string = false;
        r->escaped = !r->escaped && c == '\\';
        return YES;
    }
    if (c == '"') r->in_string = true;
    if (c == '{' || c == '[') r->depth++;
    if (c != '}' && c != ']' && c != ',') return YES;
    if (r->depth == 0) {
        r->at_member = O_NEXT;
        return PART;
    }
    if (c != ',') r->depth--;
    return YES;
}

/* The object has ended. */
static match close_object(reply_parser *r) {
    const bool had = r->called || r->early_done;
    if (!r->n_name || (!had && r->unmarked)) return NO;
    r->scan++;
    if (r->any_args) { /* they left before */
        r->at = r->scan;
        r->called = false;
        r->state = IN_TAIL;
        return YES;
    }
    leave(r);
    reply_emit(r, REPLY_ARGS, r->early_done ? buf_str(&r->early) : STR("{}"));
    r->at = r->scan;
    reply_called(r);
    return YES;
}

/* One byte at r->scan. NO: this is no call. */
static match take_byte(reply_parser *r, char c) {
    const uint8_t at = r->at_member;
    if (at == O_NAME || at == O_OTHER) {
        const match m = at == O_NAME ? in_name(r, c) : in_other(r, c);
        if (m == YES) r->scan++;
        return m == NO ? NO : YES;
    }
    if (at == O_IN_KEY) {
        if (c == '"') {
            const str key = {r->in.ptr + r->key_from, r->scan - r->key_from};
            r->member = r->any_args ? OTHER_MEMBER : member_of(r->plan->format, key);
            r->at_member = O_COLON;
        }
        r->scan++;
        return c == '\\' || c == SPECIAL_BYTE ? NO : YES;
    }
    if (reply_is_blank(c)) return r->scan++, YES;
    if (at == O_VALUE) return begin_member(r);
    if (c == '}' && (at == O_NEXT || at == O_FIRST || at == O_KEY)) return close_object(r);
    static const char expected[] = {
        [O_OPEN] = '{', [O_KEY] = '"', [O_FIRST] = '"', [O_COLON] = ':', [O_NEXT] = ','};
    static const uint8_t next[] = {[O_OPEN] = O_FIRST,
                                   [O_KEY] = O_IN_KEY,
                                   [O_FIRST] = O_IN_KEY,
                                   [O_COLON] = O_VALUE,
                                   [O_NEXT] = O_KEY};
    if (c != expected[at]) return NO;
    r->at_member = next[at];
    r->key_from = ++r->scan;
    return YES;
}

/* The arguments: at once where the call has left, else kept. */
static match take_args(reply_parser *r) {
    buf *out = r->called ? &r->out : &r->early;
    const value_result v = push_value(r, &r->scan, out);
    if (r->called) {
        r->at = r->scan;
        reply_emit_out(r);
    }
    if (v == VALUE_MORE) return PART;
    if (v == VALUE_BAD) {
        if (!r->called) return NO;
        break_value(r);
        return YES;
    }
    if (r->called) {
        reply_emit(r, REPLY_CALL_END, (str){0});
        r->called = false;
        r->drop_blanks = r->any_args = true;
    }
    r->early_done = true;
    r->at_member = O_NEXT;
    return YES;
}

bool reply_step_object(reply_parser *r, bool end) {
    if (r->at_member == O_OPEN) r->n_name = 0, r->any_args = false;
    while (r->state == IN_OBJECT && r->scan < r->in.len) {
        const match m =
            r->at_member == O_ARGS ? take_args(r) : take_byte(r, r->in.ptr[r->scan]);
        if (r->any_args && r->state == IN_OBJECT) r->at = r->scan;
        if (m == PART) break;
        if (m == YES) continue;
        if (!r->any_args) {
            reply_fail(r);
        } else { /* behind the arguments: the call stands */
            r->at = r->scan;
            r->state = IN_TAIL;
        }
        return true;
    }
    if (r->state != IN_OBJECT) return true;
    const bool waits = !r->called && !r->any_args;
    if (waits && (end || r->in.len - r->at > REPLY_MAX_OBJECT)) {
        reply_fail(r);
        return true;
    }
    return false;
}
