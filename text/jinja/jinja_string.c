/* Operations on strings, as Python's str has them. Owns nothing; any thread. */
#include "text/jinja/jinja_string.h"

#include <stdio.h>

#include "base/utf8.h"

/* The character at s[i]; its length in bytes. */
static size_t char_at(const jstr *s, size_t i, uint32_t *cp) {
    *cp = (unsigned char)s->p[i];
    if (*cp < 0x80) return 1;
    int k = utf8_decode(s->p + i, s->n - i, cp);
    return k > 0 ? (size_t)k : 1;
}
/* The character that ends before s[i]; where it begins. */
static size_t char_before(const jstr *s, size_t i, uint32_t *cp) {
    size_t from = i - 1;
    while (from > 0 && (s->p[from] & 0xc0) == 0x80) from--;
    char_at(s, from, cp);
    return from;
}

/* ---- case ---- */

static bool add_chars(jinja *j, sbuf *out, const uint32_t *cp, int n, bool data) {
    char utf8[12];
    size_t len = 0;
    for (int i = 0; i < n; i++) len += (size_t)utf8_encode(cp[i], utf8 + len);
    return sbuf_add(j, out, utf8, len, data);
}
static bool is_cased(uint32_t cp) {
    uint32_t to[3];
    return jinja_upper(cp, to) != 1 || to[0] != cp || jinja_lower(cp, to) != 1 || to[0] != cp;
}
/* A capital sigma that ends a word becomes the final form. */
static bool final_sigma(const jstr *s, size_t i, size_t k) {
    uint32_t before = 0, after = 0;
    if (i > 0) char_before(s, i, &before);
    if (i + k < s->n) char_at(s, i + k, &after);
    return is_cased(before) && !is_cased(after);
}

jv string_case(jinja *j, const jstr *s, string_case_kind kind) {
    sbuf out;
    sbuf_init(&out);
    bool in_word = false;
    jinja_walk(j, s->n * 8);
    for (size_t i = 0, k; i < s->n && !j->failed; i += k) {
        uint32_t cp, to[3];
        k = char_at(s, i, &cp);
        bool title = (kind == CASE_CAPITAL && i == 0) || (kind == CASE_WORDS && !in_word);
        int n = kind == CASE_UPPER ? jinja_upper(cp, to)
                : title            ? jinja_title(cp, to)
                                   : jinja_lower(cp, to);
        if (cp == 0x3a3 && kind != CASE_UPPER && !title && final_sigma(s, i, k)) to[0] = 0x3c2;
        add_chars(j, &out, to, n, jstr_data_at(s, i));
        in_word = is_cased(cp);
    }
    return sbuf_value(j, &out);
}

jv string_title(jinja *j, const jstr *s) {
    sbuf out;
    sbuf_init(&out);
    bool begins = true;
    jinja_walk(j, s->n * 8);
    for (size_t i = 0, k; i < s->n && !j->failed; i += k) {
        uint32_t cp, to[3];
        k = char_at(s, i, &cp);
        int n = begins ? jinja_upper(cp, to) : jinja_lower(cp, to);
        add_chars(j, &out, to, n, jstr_data_at(s, i));
        begins = jinja_is_space(cp) || (cp && cp < 0x80 && strchr("-({[<", (int)cp));
    }
    return sbuf_value(j, &out);
}

/* ---- strip ---- */

static bool in_set(const jstr *set, uint32_t cp) {
    if (!set) return jinja_is_space(cp);
    for (size_t i = 0, k; i < set->n; i += k) {
        uint32_t c;
        k = char_at(set, i, &c);
        if (c == cp) return true;
    }
    return false;
}

static bool optional_string(jinja *j, jv v, const jstr **out) {
    *out = v.kind == JV_STR ? v.s : NULL;
    if (v.kind == JV_STR || v.kind == JV_NONE || !jv_given(v)) return true;
    return jinja_fail(j, "a string is required, not %s", jv_type(v));
}

jv string_strip(jinja *j, const jstr *s, jv chars, bool left, bool right) {
    const jstr *set;
    size_t from = 0, to = s->n, at;
    uint32_t cp;
    if (!optional_string(j, chars, &set)) return jv_undef();
    if (set && !jinja_walk(j, set->n)) return jv_undef();
    for (size_t k; left && from < to; from += k) {
        k = char_at(s, from, &cp);
        if (!in_set(set, cp)) break;
    }
    for (; right && to > from; to = at) {
        at = char_before(s, to, &cp);
        if (!in_set(set, cp)) break;
    }
    jinja_walk(j, (s->n - (to - from)) * (set ? set->n : 1));
    return jv_part(j, s, from, to);
}

/* ---- replace ---- */

jv string_replace(jinja *j, const jstr *s, jv old_value, jv new_value, jv count) {
    const jstr *old = jv_text(j, old_value), *by = jv_text(j, new_value);
    int64_t left = -1;
    sbuf out;
    sbuf_init(&out);
    if (!old || !by) return jv_undef();
    if (jv_given(count) && count.kind != JV_NONE && !jv_as_int(count, &left))
        jinja_fail(j, "a count must be an integer");
    size_t plain = 0;
    if (old->n == 0) {
        for (size_t i = 0; left != 0 && jinja_walk(j, 16); left--) {
            uint32_t cp;
            sbuf_str(j, &out, by);
            if (i == s->n) break;
            plain = i + char_at(s, i, &cp);
            sbuf_part(j, &out, s, i, plain);
            i = plain;
        }
    }
    while (old->n && left != 0 && jinja_walk(j, 16)) {
        size_t at = str_find(jstr_text(s), jstr_text(old), plain);
        if (at == SIZE_MAX) break;
        sbuf_part(j, &out, s, plain, at);
        sbuf_str(j, &out, by);
        plain = at + old->n;
        left--;
    }
    if (!j->failed) sbuf_part(j, &out, s, plain, s->n);
    return sbuf_value(j, &out);
}

/* ---- lines and parts ---- */

static bool ends_line(uint32_t cp) {
    return (cp >= 10 && cp <= 13) || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

static bool push_part(jinja *j, jlist *l, size_t *cap, const jstr *s, size_t from, size_t to) {
    return jlist_push(j, l, jv_part(j, s, from, to), cap);
}
static jv list_of(jinja *j, jlist l) {
    jlist *p = jinja_alloc(j, sizeof *p);
    if (!p) return jv_undef();
    *p = l;
    return (jv){.kind = JV_LIST, .l = p};
}

jv string_lines(jinja *j, const jstr *s, bool tail) {
    jlist l = {0};
    size_t cap = 0, from = 0;
    jinja_walk(j, s->n);
    for (size_t i = 0, k; i < s->n && !j->failed; i += k) {
        uint32_t cp;
        k = char_at(s, i, &cp);
        if (!ends_line(cp)) continue;
        push_part(j, &l, &cap, s, from, i);
        if (cp == '\r' && i + 1 < s->n && s->p[i + 1] == '\n') k++;
        from = i + k;
    }
    if (tail || from < s->n) push_part(j, &l, &cap, s, from, s->n);
    return list_of(j, l);
}

static void reverse(jlist *l) {
    for (size_t i = 0, k = l->n; i + 1 < k; i++) {
        jv swap = l->v[i];
        l->v[i] = l->v[--k];
        l->v[k] = swap;
    }
}

static size_t find_last(str s, str what, size_t end) {
    for (size_t i = end >= what.len ? end - what.len + 1 : 0; i-- > 0;)
        if (memcmp(s.ptr + i, what.ptr, what.len) == 0) return i;
    return SIZE_MAX;
}

static void split_at(jinja *j, jlist *l, const jstr *s, const jstr *sep, int64_t max,
                     bool right) {
    size_t cap = 0, from = 0, to = s->n;
    for (; max != 0 && jinja_walk(j, 16); max--) {
        size_t at = right ? find_last(jstr_text(s), jstr_text(sep), to)
                          : str_find(jstr_text(s), jstr_text(sep), from);
        if (at == SIZE_MAX) break;
        push_part(j, l, &cap, s, right ? at + sep->n : from, right ? to : at);
        if (right)
            to = at;
        else
            from = at + sep->n;
    }
    push_part(j, l, &cap, s, from, to);
    if (right) reverse(l);
}

static size_t skip_blank(const jstr *s, size_t at, size_t end, bool right, bool blank) {
    uint32_t cp;
    while (right ? at > 0 : at < end) {
        size_t next = right ? char_before(s, at, &cp) : at + char_at(s, at, &cp);
        if (jinja_is_space(cp) != blank) break;
        at = next;
    }
    return at;
}

static void split_blanks(jinja *j, jlist *l, const jstr *s, int64_t max, bool right) {
    size_t cap = 0, at = skip_blank(s, right ? s->n : 0, s->n, right, true);
    while ((right ? at > 0 : at < s->n) && jinja_walk(j, 16)) {
        size_t end = max-- == 0 ? right ? 0 : s->n : skip_blank(s, at, s->n, right, false);
        size_t lo = right ? end : at, hi = right ? at : end;
        push_part(j, l, &cap, s, lo, hi);
        at = skip_blank(s, end, s->n, right, true);
    }
    if (right) reverse(l);
}

jv string_split(jinja *j, const jstr *s, jv sep, jv limit, bool right) {
    const jstr *by;
    int64_t max = -1;
    jlist l = {0};
    if (!optional_string(j, sep, &by)) return jv_undef();
    if (jv_given(limit) && !jv_as_int(limit, &max)) jinja_fail(j, "a limit must be an integer");
    if (by && by->n == 0) jinja_fail(j, "empty separator");
    if (j->failed) return jv_undef();
    jinja_walk(j, s->n);
    if (by)
        split_at(j, &l, s, by, max, right);
    else
        split_blanks(j, &l, s, max, right);
    return list_of(j, l);
}

/* ---- format ---- */

static bool format_field(jinja *j, sbuf *out, str field, const jargs *args, size_t *next) {
    size_t index = 0;
    bool digits = field.len > 0;
    for (size_t i = 0; i < field.len; i++) {
        digits = digits && field.ptr[i] >= '0' && field.ptr[i] <= '9' && index < 10000;
        if (digits) index = index * 10 + (size_t)(field.ptr[i] - '0');
    }
    if (field.len == 0) index = (*next)++;
    if (digits || field.len == 0) {
        if (index < args->n_pos) return jv_print(j, out, args->v[index]);
        return jinja_fail(j, "Replacement index %zu out of range", index);
    }
    for (size_t i = args->n_pos; i < args->n; i++)
        if (str_eq(args->name[i], field)) return jv_print(j, out, args->v[i]);
    return jinja_fail(j, "format: no argument for \"" STR_FMT "\"", STR_ARG(field));
}

jv string_format(jinja *j, const jstr *s, const jargs *args) {
    sbuf out;
    size_t next = 0, plain = 0;
    sbuf_init(&out);
    for (size_t i = 0; i < s->n && !j->failed;) {
        char c = s->p[i++];
        if (c != '{' && c != '}') continue;
        sbuf_part(j, &out, s, plain, i - 1);
        if (i < s->n && s->p[i] == c) {
            plain = i++;
            continue;
        }
        size_t end = i;
        while (end < s->n && s->p[end] != '}' && s->p[end] != '{') end++;
        if (c == '}' || end == s->n || s->p[end] == '{') {
            jinja_fail(j, "a brace in a format string does not match");
            break;
        }
        format_field(j, &out, (str){s->p + i, end - i}, args, &next);
        plain = i = end + 1;
    }
    if (!j->failed) sbuf_part(j, &out, s, plain, s->n);
    return sbuf_value(j, &out);
}
