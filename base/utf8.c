/* UTF-8 by the table of RFC 3629, section 4. Stateless; any thread. */
#include "base/utf8.h"

int utf8_decode(const char *s, size_t n, uint32_t *cp) {
    const unsigned char *u = (const unsigned char *)s;
    unsigned char c = u[0], lo = 0x80, hi = 0xbf;
    int len;
    uint32_t v;
    if (c < 0x80) return *cp = c, 1;
    if (c >= 0xc2 && c <= 0xdf) {
        len = 2, v = c & 0x1f;
    } else if (c >= 0xe0 && c <= 0xef) {
        len = 3, v = c & 0x0f;
        if (c == 0xe0) lo = 0xa0;
        if (c == 0xed) hi = 0x9f;
    } else if (c >= 0xf0 && c <= 0xf4) {
        len = 4, v = c & 0x07;
        if (c == 0xf0) lo = 0x90;
        if (c == 0xf4) hi = 0x8f;
    } else {
        return UTF8_BAD;
    }
    for (int i = 1; i < len; i++) {
        if ((size_t)i >= n) return UTF8_SHORT;
        if (u[i] < lo || u[i] > hi) return UTF8_BAD;
        v = v << 6 | (u[i] & 0x3f);
        lo = 0x80, hi = 0xbf;
    }
    *cp = v;
    return len;
}

int utf8_encode(uint32_t cp, char out[4]) {
    if (cp < 0x80) return out[0] = (char)cp, 1;
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

bool utf8_valid(str s) {
    uint32_t cp;
    for (size_t i = 0; i < s.len;) {
        int n = utf8_decode(s.ptr + i, s.len - i, &cp);
        if (n < 0) return false;
        i += (size_t)n;
    }
    return true;
}

size_t utf8_complete(str s) {
    uint32_t cp;
    /* A character has at most four bytes: only the last three can be its beginning. */
    for (size_t back = 1; back <= 3 && back <= s.len; back++) {
        const char *at = s.ptr + s.len - back;
        if (((unsigned char)*at & 0xc0) == 0x80) continue;
        return utf8_decode(at, back, &cp) == UTF8_SHORT ? s.len - back : s.len;
    }
    return s.len;
}

/* Length of the maximal ill-formed part at s: the longest prefix of a valid character. */
static size_t bad_length(const char *s, size_t n) {
    uint32_t cp;
    size_t len = 1;
    while (len < n && len < 4 && utf8_decode(s, len, &cp) == UTF8_SHORT &&
           utf8_decode(s, len + 1, &cp) != UTF8_BAD)
        len++;
    return len;
}

size_t utf8_sanitise(str s, char *out) {
    size_t o = 0;
    uint32_t cp;
    for (size_t i = 0; i < s.len;) {
        int n = utf8_decode(s.ptr + i, s.len - i, &cp);
        if (n > 0) {
            if (out) memcpy(out + o, s.ptr + i, (size_t)n);
            o += (size_t)n, i += (size_t)n;
        } else {
            if (out) memcpy(out + o, "\xef\xbf\xbd", 3);
            o += 3, i += bad_length(s.ptr + i, s.len - i);
        }
    }
    return o;
}

/* Bytes that continue no character, eight at a time. */
size_t utf8_chars(str s) {
    const uint64_t ones = 0x0101010101010101;
    size_t chars = s.len, i = 0;
    for (; i + 8 <= s.len; i += 8) {
        uint64_t w;
        memcpy(&w, s.ptr + i, 8);
        chars -= (size_t)((((w >> 7) & ~(w >> 6) & ones) * ones) >> 56);
    }
    for (; i < s.len; i++) chars -= (s.ptr[i] & 0xc0) == 0x80;
    return chars;
}
