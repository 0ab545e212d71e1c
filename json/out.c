/* JSON text by hand. Owns nothing; the loop thread, mostly. */
#include "json/out.h"

#include <jansson.h>
#include <math.h>

#include "base/utf8.h"

/* 0: passes; 'u': \u00XX; else the letter after the backslash. */
static inline char escape_of(unsigned char c) {
    if (__builtin_expect(c >= 0x20 && c != '"' && c != '\\' && c != 0x7f, 1)) return 0;
    switch (c) {
    case '"': return '"';
    case '\\': return '\\';
    case '\b': return 'b';
    case '\f': return 'f';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    default: return 'u';
    }
}

void json_esc(buf *b, str s) {
    static const char hex[] = "0123456789abcdef";
    size_t from = 0;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        char e = escape_of(c);
        if (!e) continue;
        buf_add(b, (str){s.ptr + from, i - from});
        if (e == 'u')
            buf_add(b, (str){(char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6});
        else
            buf_add(b, (str){(char[]){'\\', e}, 2});
        from = i + 1;
    }
    if (from < s.len) buf_add(b, (str){s.ptr + from, s.len - from});
}

void json_str(buf *b, str s) {
    buf_addc(b, '"');
    json_esc(b, s);
    buf_addc(b, '"');
}

void json_str_lossy(buf *b, str s) {
    if (utf8_valid(s)) {
        json_str(b, s);
        return;
    }
    /* In slices: memory for the whole would stay with the arena of b. */
    char clean[3 * 64];
    buf_addc(b, '"');
    while (s.len > 0) {
        size_t n = s.len;
        if (n > 64) n = utf8_complete((str){s.ptr, 64});
        json_esc(b, (str){clean, utf8_sanitise((str){s.ptr, n}, clean)});
        s = (str){s.ptr + n, s.len - n};
    }
    buf_addc(b, '"');
}

void json_u64(buf *b, uint64_t v) {
    char t[20];
    size_t n = sizeof t;
    do t[--n] = (char)('0' + v % 10);
    while (v /= 10);
    buf_add(b, (str){t + n, sizeof t - n});
}

void json_i64(buf *b, int64_t v) {
    if (v < 0) buf_addc(b, '-');
    json_u64(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void json_logprob(buf *b, float f) {
    double v = isnan(f) || f < -9999.0f ? -9999.0 : f > 0 ? 0.0 : (double)f;
    uint64_t u = (uint64_t)(-v * 1e8 + 0.5), frac = u % 100000000u;
    if (u) buf_addc(b, '-');
    json_u64(b, u / 100000000u);
    char t[9] = {'.'};
    for (int i = 8; i >= 1; i--, frac /= 10) t[i] = (char)('0' + frac % 10);
    size_t n = sizeof t;
    while (n > 2 && t[n - 1] == '0') n--;
    buf_add(b, (str){t, n});
}

static int add_piece(const char *text, size_t n, void *b) {
    return buf_add(b, (str){text, n}) ? 0 : -1;
}

void json_value(buf *b, const json_t *v) {
    if (!v)
        buf_add(b, STR("null"));
    else if (json_dump_callback(v, add_piece, b, JSON_COMPACT | JSON_ENCODE_ANY) != 0)
        b->failed = true;
}
