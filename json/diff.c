/* Documents whole or as what has changed. Owns nothing. */
#include "json/diff.h"

#include "json/out.h"

static void comma(buf *b) {
    if (b->len && b->ptr[b->len - 1] != '{' && b->ptr[b->len - 1] != '[') buf_addc(b, ',');
}

void json_diff_name(json_diff *o, const char *name) {
    comma(o->out);
    if (!name) return;
    json_str(o->out, str_of(name));
    buf_addc(o->out, ':');
}

/* Where the text ends that stays if nothing follows. */
static size_t open_with(json_diff *o, const char *name, char bracket) {
    const size_t at = o->out->len;
    json_diff_name(o, name);
    buf_addc(o->out, bracket);
    return at;
}

/* A patch without members or elements is none. */
static void close_with(json_diff *o, size_t at, char bracket) {
    buf *b = o->out;
    const char last = b->failed || !b->len ? 0 : b->ptr[b->len - 1];
    if (!o->whole && (last == '{' || last == '['))
        b->len = at;
    else
        buf_addc(b, bracket);
}

size_t json_diff_open(json_diff *o, const char *name) {
    return open_with(o, name, '{');
}
void json_diff_close(json_diff *o, size_t at) {
    close_with(o, at, '}');
}
size_t json_diff_open_list(json_diff *o, const char *name) {
    return open_with(o, name, o->whole ? '[' : '{');
}
void json_diff_close_list(json_diff *o, size_t at) {
    close_with(o, at, o->whole ? ']' : '}');
}

size_t json_diff_open_array(json_diff *o, const char *name) {
    return open_with(o, name, '[');
}
void json_diff_close_array(json_diff *o, size_t at) {
    close_with(o, at, ']');
}

size_t json_diff_element(json_diff *o, const char *member, str name) {
    const size_t at = o->out->len;
    comma(o->out);
    if (o->whole) {
        buf_addc(o->out, '{');
        if (member) {
            json_diff_name(o, member);
            json_str_lossy(o->out, name);
        }
        return at;
    }
    json_str_lossy(o->out, name);
    buf_add(o->out, STR(":{"));
    return at;
}

void json_diff_u64(json_diff *o, const char *name, uint64_t now, uint64_t was) {
    if (!o->whole && now == was) return;
    json_diff_name(o, name);
    json_u64(o->out, now);
}

void json_diff_i64(json_diff *o, const char *name, int64_t now, int64_t was) {
    if (!o->whole && now == was) return;
    json_diff_name(o, name);
    json_i64(o->out, now);
}

void json_diff_bool(json_diff *o, const char *name, bool now, bool was) {
    if (!o->whole && now == was) return;
    json_diff_name(o, name);
    buf_add(o->out, now ? STR("true") : STR("false"));
}

static bool same(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

void json_diff_str(json_diff *o, const char *name, const char *now, const char *was) {
    if (!o->whole && same(now, was)) return;
    json_diff_name(o, name);
    if (now)
        json_str_lossy(o->out, str_of(now));
    else
        buf_add(o->out, STR("null"));
}

void json_diff_milli(json_diff *o, const char *name, uint64_t now, uint64_t was) {
    if (!o->whole && now == was) return;
    json_diff_name(o, name);
    buf_addf(o->out, "%llu.%03u", (unsigned long long)(now / 1000), (unsigned)(now % 1000));
}

void json_diff_null(json_diff *o, const char *name, bool was_null) {
    if (!o->whole && was_null) return;
    json_diff_name(o, name);
    buf_add(o->out, STR("null"));
}
