/* The frame of calls: what stands before, between and behind them. Owns nothing; any thread. */
#include "text/reply/reply_guess.h"

#include <string.h>

#include "text/reply/reply_in.h"

/* Where a call stands: an object with its name and arguments, or the name up to the arguments. */
typedef struct span {
    size_t from, to;
    const char *name_key, *args_key; /* of an object; else NULL, and: */
    str between;                     /* name and arguments */
} span;

static str cut(str s, size_t from, size_t to) {
    return (str){s.ptr + from, to - from};
}
static str trim(str s) {
    while (s.len && reply_is_blank(s.ptr[0])) s.ptr++, s.len--;
    while (s.len && reply_is_blank(s.ptr[s.len - 1])) s.len--;
    return s;
}
static bool ends_with(str s, str end) {
    return s.len >= end.len && memcmp(s.ptr + s.len - end.len, end.ptr, end.len) == 0;
}

/* Behind the object that begins at s[i]; 0: none does. */
static size_t object_end(str s, size_t i) {
    size_t depth = 0;
    bool quoted = false;
    for (; i < s.len; i++) {
        const char c = s.ptr[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && c == '{')
            depth++;
        else if (!quoted && c == '}' && --depth == 0)
            return i + 1;
    }
    return 0;
}

static const json_t *object_at(str s, size_t i, arena *a, size_t *end) {
    const json_t *v;
    err e;
    *end = object_end(s, i);
    return *end && json_in_parse(&v, a, cut(s, i, *end), &e) == OK && json_is_object(v) ? v
                                                                                        : NULL;
}

/* The members of v that are the name and the arguments. */
static bool has_both(const json_t *v, const json_t *name, const json_t *args, span *out) {
    const char *key;
    json_t *m;
    json_object_foreach((json_t *)v, key, m) {
        if (json_equal(m, name)) out->name_key = key;
        if (json_equal(m, args)) out->args_key = key;
    }
    return out->name_key && out->args_key;
}

static size_t find_last(str s, str what) {
    size_t at = SIZE_MAX;
    for (size_t i = str_find(s, what, 0); i != SIZE_MAX; i = str_find(s, what, i + 1)) at = i;
    return at;
}

static bool find_call(str s, size_t from, const json_t *call, arena *a, span *out) {
    const json_t *f = json_object_get(call, "function");
    const json_t *name = json_object_get(f, "name"), *args = json_object_get(f, "arguments");
    for (size_t i = from, end; i < s.len; i++) {
        const json_t *v = s.ptr[i] == '{' ? object_at(s, i, a, &end) : NULL;
        *out = (span){.from = i, .to = end};
        if (v && has_both(v, name, args, out)) return true;
        if (!v || !json_equal(v, args)) continue;
        const str head = cut(s, from, i), text = json_in_text(name);
        const size_t at = find_last(head, text);
        *out = (span){.from = from + at, .to = end};
        if (at == SIZE_MAX) return false;
        out->between = trim(cut(head, at + text.len, head.len));
        return true;
    }
    return false;
}

/* ---- the marks ---- */

static const char *keep(reply_plan *p, size_t *n, str s) {
    char *at = p->own_text + *n;
    if (s.len + 1 > sizeof p->own_text - *n) return NULL;
    memcpy(at, s.ptr, s.len);
    at[s.len] = '\0';
    *n += s.len + 1;
    return at;
}

/* What both end with, from where a tag begins. */
static str common_end(str a, str b) {
    size_t n = 0;
    while (n < a.len && n < b.len && a.ptr[a.len - 1 - n] == b.ptr[b.len - 1 - n]) n++;
    if (n == a.len) return a;
    str s = cut(a, a.len - n, a.len);
    while (s.len && !strchr("<[{", s.ptr[0])) s.ptr++, s.len--;
    return s;
}

typedef struct frame {
    str section, section_end, call, call_end;
    bool array;
} frame;

/* before the first call, between two (ptr NULL: there is one), behind the last. */
static bool frame_of(frame *f, str before, str between, str behind) {
    *f = (frame){.call = before, .call_end = behind};
    if (!between.ptr) return before.len > 0;
    if (str_eqz(between, ",") && before.len > 1 && ends_with(before, STR("[")) &&
        str_starts(behind, STR("]"))) {
        *f = (frame){.section = trim(cut(before, 0, before.len - 1)),
                     .section_end = trim(cut(behind, 1, behind.len)),
                     .array = true};
        return true;
    }
    f->call = common_end(before, between);
    f->section = trim(cut(before, 0, before.len - f->call.len));
    f->call_end = trim(cut(between, 0, between.len - f->call.len));
    if (!str_starts(behind, f->call_end)) return false;
    f->section_end = trim(cut(behind, f->call_end.len, behind.len));
    return f->section.len || f->call.len;
}

/* Marks that hold what differs from call to call are none. */
static bool is_constant(str mark, const json_t *calls) {
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i), *f = json_object_get(call, "function");
        if (str_find(mark, json_in_text(json_object_get(f, "name")), 0) != SIZE_MAX ||
            str_find(mark, json_in_text(json_object_get(call, "id")), 0) != SIZE_MAX)
            return false;
    }
    return true;
}

static bool write_format(reply_plan *p, const frame *f, const span *s, const json_t *calls) {
    const str marks[MARK_N] = {[MARK_SECTION] = f->section,
                               [MARK_SECTION_END] = f->section_end,
                               [MARK_CALL] = f->call,
                               [MARK_CALL_END] = f->call_end,
                               [MARK_NAME_END] = s->between};
    size_t n = 0;
    p->own = (reply_format){.name = "derived",
                            .shape = s->name_key ? SHAPE_OBJECT : SHAPE_NAMED,
                            .args = ARGS_JSON,
                            .array = f->array};
    for (int m = 0; m < MARK_N; m++) {
        if (!marks[m].len) continue;
        if (!is_constant(marks[m], calls)) return false;
        p->own.mark[m] = keep(p, &n, marks[m]);
        if (!p->own.mark[m]) return false;
    }
    if (!s->name_key) return true;
    p->own.name_key = keep(p, &n, str_of(s->name_key));
    p->own.args_key = keep(p, &n, str_of(s->args_key));
    return p->own.name_key && p->own.args_key;
}

static str without_end(str s, str end) {
    return end.len && ends_with(s, end) ? cut(s, 0, s.len - end.len) : s;
}

bool reply_guess(reply_plan *p, arena *a, const guess_case *c) {
    const str one = without_end(c->one, c->end), two = without_end(c->two, c->end);
    span first, second;
    frame f;
    if (!find_call(one, 0, json_array_get(c->calls, 0), a, &first)) return false;
    str before = trim(cut(one, 0, first.from)), behind = trim(cut(one, first.to, one.len));
    str between = {0};
    if (two.len) {
        if (!str_starts(two, cut(one, 0, first.to)) ||
            !find_call(two, first.to, json_array_get(c->calls, 1), a, &second))
            return false;
        between = trim(cut(two, first.to, second.from));
        behind = trim(cut(two, second.to, two.len));
    }
    return frame_of(&f, before, between, behind) && write_format(p, &f, &first, c->calls);
}
