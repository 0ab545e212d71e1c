/* Tagged arguments: <parameter=k>VALUE</parameter> and the like. A value is text or JSON, and
 * only the tool's schema can say which. */
#include "text/reply/reply_in.h"

#include "text/reply/reply_types.h"

#include "json/out.h"

/* Types of an argument of the call. */
static unsigned argument_types(const reply_parser *r, str key) {
    size_t i;
    const json_t *tool;
    json_array_foreach(r->set.tools, i, tool) {
        const json_t *f = json_object_get(tool, "function");
        if (!f) f = tool;
        const char *name = json_string_value(json_object_get(f, "name"));
        if (!name || !str_eqz((str){r->name, r->n_name}, name)) continue;
        const json_t *root = json_object_get(f, "parameters");
        const json_t *all = json_object_get(root, "properties");
        return reply_types(root, json_object_getn(all, key.ptr, key.len));
    }
    return REPLY_ANY;
}

/* ---- between the arguments ---- */

/* The marks of an argument up to its value, from s[*i] on. */
static match read_key(reply_parser *r, str s, size_t *i, str *key) {
    const reply_plan *p = r->plan;
    const str end = p->mark[MARK_KEY_END];
    match m = reply_lit(s, i, p->mark[MARK_KEY]);
    if (m != YES) return m;
    const size_t at = str_find(s, end, *i);
    if (at == SIZE_MAX) return PART;
    *key = (str){s.ptr + *i, at - *i};
    if (memchr(key->ptr, SPECIAL_BYTE, key->len)) return NO;
    *i = at + end.len;
    r->types = argument_types(r, *key);
    if (p->format->typed) {
        size_t j = *i;
        if ((m = reply_lit(s, i, STR("true\">"))) == YES) {
            r->types = REPLY_STRING;
            return YES;
        }
        const match no = reply_lit(s, &j, STR("false\">"));
        if (no == YES) {
            r->types = REPLY_ANY;
            *i = j;
            return YES;
        }
        return m > no ? m : no;
    }
    if (!p->mark[MARK_VALUE].len) return YES;
    *i = reply_blanks(s, *i);
    return reply_lit(s, i, p->mark[MARK_VALUE]);
}

static match arguments_end(const reply_parser *r, str s, size_t i) {
    match best = NO;
    const str ends[] = {r->plan->mark[MARK_ARGS_END], r->plan->mark[MARK_CALL_END]};
    for (size_t k = 0; k < 2; k++) {
        size_t j = i;
        const match m = ends[k].len ? reply_lit(s, &j, ends[k]) : NO;
        if (m > best) best = m;
    }
    return best;
}

bool reply_step_tags(reply_parser *r, bool end) {
    const str s = reply_rest(r, r->at);
    size_t i = reply_blanks(s, 0);
    str key = {0};
    if (i == s.len) return false;
    const match over = arguments_end(r, s, i);
    if (over == YES) {
        reply_emit(r, REPLY_ARGS, STR("}"));
        reply_called(r);
        return true;
    }
    match m = read_key(r, s, &i, &key);
    if (m == PART && s.len > REPLY_MAX_HEAD) m = NO;
    if (m == PART || (m == NO && over == PART)) {
        if (!end) return false;
        m = NO;
    }
    if (m == NO) {
        reply_break_call(r);
        return true;
    }
    if (r->n_args++) buf_add(&r->out, STR(", "));
    json_str_lossy(&r->out, key);
    buf_add(&r->out, STR(": "));
    reply_emit_out(r);
    r->at += i;
    r->scan = r->at;
    r->begun = r->string_open = false;
    r->state = IN_TAGGED;
    return true;
}

/* ---- values ---- */

/* The line break before and after a value. */
static str inner(const reply_parser *r, str s) {
    if (!r->plan->format->lines) return s;
    if (s.len && s.ptr[0] == '\n') s = (str){s.ptr + 1, s.len - 1};
    if (s.len && s.ptr[s.len - 1] == '\n') s.len--;
    return s;
}

static void write_text(reply_parser *r, str s) {
    for (size_t i = 0; i < s.len;) {
        const str rest = {s.ptr + i, s.len - i};
        const char *p = memchr(rest.ptr, SPECIAL_BYTE, rest.len);
        const size_t n = p ? (size_t)(p - rest.ptr) : rest.len;
        json_esc(&r->out, (str){rest.ptr, n});
        i += n;
        if (!p) continue;
        const bool whole = n + 1 < rest.len;
        if (whole) json_esc(&r->out, reply_special_text(r->plan, (unsigned char)p[1] - 1u));
        i += whole ? 2 : 1;
    }
}

/* A value that need not be a string: JSON if it is some that the schema allows. */
static void write_value(reply_parser *r, str s) {
    reply_value v;
    size_t taken;
    buf *out = &r->out;
    const size_t before = out->len;
    reply_value_begin(&v, VALUE_JSON, (str){0});
    v.depth = 1;
    v.open[0] = '[';
    if (reply_value_push(&v, s, &taken, out) == VALUE_MORE &&
        reply_value_push(&v, STR("]"), &taken, out) == VALUE_DONE && out->len > before + 1) {
        out->len--; /* the bracket */
        const char c = out->ptr[before];
        const unsigned type = c == '"'               ? REPLY_STRING
                              : c == '{'             ? REPLY_OBJECT
                              : c == '['             ? REPLY_ARRAY
                              : c == 't' || c == 'f' ? REPLY_BOOLEAN
                              : c == 'n'             ? REPLY_NULL
                                                     : REPLY_NUMBER;
        const bool quoted = type == REPLY_STRING && r->types != REPLY_ANY;
        if (!quoted && (r->types & type || !(r->types & REPLY_STRING))) return;
    }
    out->len = before;
    buf_addc(out, '"');
    write_text(r, s);
    buf_addc(out, '"');
}

/* A string leaves as it comes, but for what may be the line break and the mark behind it. */
static bool step_string(reply_parser *r, str s, match m, size_t at, bool end) {
    const bool lines = r->plan->format->lines;
    size_t from = 0, n = at;
    if (!r->begun && lines && s.len == 0) return false;
    if (!r->string_open) buf_addc(&r->out, '"');
    r->string_open = true;
    if (!r->begun && lines && s.len && s.ptr[0] == '\n' && at > 0) from = 1;
    if (!r->begun && lines && at == 0 && m == PART) {
        reply_emit_out(r);
        return false;
    }
    if (lines && n > from && s.ptr[n - 1] == '\n' && (m != NO || !end)) n--;
    if (n > from || m == YES || from) {
        write_text(r, (str){s.ptr + from, n - from});
        r->begun = true;
        r->at += n;
    }
    if (m == YES) buf_addc(&r->out, '"');
    reply_emit_out(r);
    return true;
}

bool reply_step_tagged(reply_parser *r, bool end) {
    const str mark = r->plan->mark[MARK_VALUE_END];
    const bool text = r->types == REPLY_STRING;
    if (text) r->scan = r->at;
    const str s = reply_rest(r, r->at);
    const size_t looked = r->scan - r->at;
    size_t at, which;
    match m = reply_search(reply_rest(r, r->scan), &mark, 1, &at, &which);
    at += looked;
    if (m == PART && end) m = NO, at = s.len;
    if (text) {
        const size_t before = r->at;
        step_string(r, s, m, at, end);
        at -= r->at - before;
    } else if (m == YES) {
        write_value(r, inner(r, (str){s.ptr, at}));
        reply_emit_out(r);
    } else {
        r->scan = r->at + at;
    }
    if (m != YES) return false;
    r->at += at + mark.len;
    r->scan = r->at;
    r->state = IN_TAGS;
    return true;
}
