/* Unicode's normal form C (Unicode Standard Annex 15) of a text before it is cut into words. Properties and
 * compositions are utf8proc's; the canonical order is made here, in linear time, however many marks follow a
 * letter. Any thread. */
#include "text/tokenizer/tokenizer_in.h"

#include <utf8proc.h>

#include "base/utf8.h"

enum {
    MOST_PARTS = 4, /* of a character (Annex 15, section 12.1, canonical) */
    FEW = 32,       /* marks that are sorted in place */
    SHORT = 64      /* characters that need no memory */
};

/* Below U+0300 every character is its own normal form and joins none before it. */
static bool is_plain(unsigned char c) {
    return c < 0xcc;
}

static status no_memory(tok_words *w) {
    w->scratch.failed = true;
    return err_set(w->err, ERR_NO_MEMORY, "no memory to normalise the text");
}

/* The canonical decomposition of [from, to), which is UTF-8, into cp; returns the number. */
static size_t decompose(const char *from, const char *to, int32_t *cp) {
    size_t n = 0;
    while (from < to) {
        uint32_t c;
        const int len = utf8_decode(from, (size_t)(to - from), &c);
        int boundary = 0;
        CHECK(len > 0);
        const utf8proc_ssize_t got = utf8proc_decompose_char(
            (int32_t)c, cp + n, MOST_PARTS, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
        CHECK(got > 0 && got <= MOST_PARTS);
        n += (size_t)got;
        from += len;
    }
    return n;
}

static unsigned class_of(int32_t cp) {
    return (unsigned)utf8proc_get_property(cp)->combining_class & 0xff;
}

/* Sorts n marks by their class, equal ones as they stood: a few in place, more by counting. */
static void order_marks(int32_t *cp, size_t n, int32_t *space) {
    size_t at[256] = {0}, sum = 0;
    if (n < FEW) {
        for (size_t i = 1; i < n; i++) {
            const int32_t c = cp[i];
            size_t k = i;
            for (; k > 0 && class_of(cp[k - 1]) > class_of(c); k--) cp[k] = cp[k - 1];
            cp[k] = c;
        }
        return;
    }
    for (size_t i = 0; i < n; i++) at[class_of(cp[i])]++;
    for (int c = 0; c < 256; c++) {
        const size_t of = at[c];
        at[c] = sum;
        sum += of;
    }
    for (size_t i = 0; i < n; i++) space[at[class_of(cp[i])]++] = cp[i];
    memcpy(cp, space, n * sizeof *cp);
}

static void order(int32_t *cp, size_t n, int32_t *space) {
    for (size_t i = 0, end; i < n; i = end) {
        end = i + 1;
        if (class_of(cp[i]) == 0) continue;
        while (end < n && class_of(cp[end]) != 0) end++;
        order_marks(cp + i, end - i, space);
    }
}

/* Appends the normal form of UTF-8. */
static bool add_normal(buf *out, str text, tok_words *w) {
    arena space; /* its own: one part after another reuses it */
    int32_t few[2][SHORT * MOST_PARTS], *cp = few[0], *more = few[1];
    const size_t chars = utf8_chars(text);
    arena_init(&space, w->scratch.src, 0);
    if (chars > SHORT) {
        cp = arena_alloc(&space, chars * MOST_PARTS * sizeof *cp);
        more = arena_alloc(&space, chars * MOST_PARTS * sizeof *more);
    }
    if (cp && more) {
        const size_t n = decompose(text.ptr, text.ptr + text.len, cp);
        order(cp, n, more);
        const utf8proc_ssize_t kept = utf8proc_normalize_utf32(
            cp, (utf8proc_ssize_t)n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        for (utf8proc_ssize_t i = 0; i < kept; i++) {
            char c[4];
            buf_add(out, (str){c, (size_t)utf8_encode((uint32_t)cp[i], c)});
        }
    }
    arena_clear(&space);
    return cp && more && !out->failed;
}

/* The end of what begins at `from` and can be normalised alone: before a plain character that follows another,
 * or what is no UTF-8. */
static size_t part_end(str text, size_t from) {
    uint32_t cp;
    size_t i = from;
    while (i < text.len) {
        if (i > from && is_plain((unsigned char)text.ptr[i])) break;
        const int n = utf8_decode(text.ptr + i, text.len - i, &cp);
        if (n <= 0) break;
        i += (size_t)n;
    }
    return i;
}

status tok_nfc(tok_words *w, str *text) {
    size_t plain = 0;
    while (plain < text->len && is_plain((unsigned char)text->ptr[plain])) plain++;
    if (plain == text->len) return OK;
    buf out;
    buf_init(&out, &w->scratch);
    if (!buf_reserve(&out, text->len + 16)) return no_memory(w);
    for (size_t i = 0; i < text->len;) {
        size_t end = i;
        while (end < text->len && is_plain((unsigned char)text->ptr[end])) end++;
        if (end == text->len) {
            buf_add(&out, (str){text->ptr + i, end - i});
            break;
        }
        /* The last plain character may get marks; a byte of a longer one does not begin it. */
        size_t begin = end > i ? end - 1 : end;
        if (begin > i && ((unsigned char)text->ptr[begin] & 0xc0) == 0x80) begin--;
        buf_add(&out, (str){text->ptr + i, begin - i});
        end = part_end(*text, begin);
        if (end > begin && !add_normal(&out, (str){text->ptr + begin, end - begin}, w))
            return no_memory(w);
        if (end == begin) buf_addc(&out, text->ptr[end++]); /* no UTF-8 */
        i = end;
    }
    if (out.failed) return no_memory(w);
    *text = buf_str(&out);
    return OK;
}
