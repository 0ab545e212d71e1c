/* The texts of the tokenizer's golden file, generated from fragments.txt and ranges.txt: the
 * twin of tests/golden/make_tokenizer_golden.py, draw for draw. For tests only; header-only so
 * that a test is one file. */
#ifndef VRAMD_TESTS_TOKENIZER_TEXTS_H
#define VRAMD_TESTS_TOKENIZER_TEXTS_H

#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/utf8.h"

#define GOLDEN_DIR "tests/golden/tokenizer/"

typedef struct texts {
    buf fragments;
    str fragment[400];
    size_t n_fragments;
    uint32_t range[200][2];
    size_t n_ranges;
    uint64_t rng;
} texts;

static inline bool file_read(const char *path, buf *out) {
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    for (size_t n = 1; n;) {
        CHECK(buf_reserve(out, 1 << 16));
        n = fread(out->ptr + out->len, 1, 1 << 16, f);
        out->len += n;
    }
    fclose(f);
    return true;
}

static inline void texts_open(texts *t) {
    *t = (texts){0};
    buf_init(&t->fragments, NULL);
    CHECK(file_read(GOLDEN_DIR "fragments.txt", &t->fragments));
    for (size_t at = 0; at < t->fragments.len;) {
        size_t end = str_find(buf_str(&t->fragments), STR("\n"), at);
        CHECK(end != SIZE_MAX && t->n_fragments < 400);
        t->fragment[t->n_fragments++] = (str){t->fragments.ptr + at, end - at};
        at = end + 1;
    }
    FILE *f = fopen(GOLDEN_DIR "ranges.txt", "r");
    CHECK(f);
    while (fscanf(f, "%x %x", &t->range[t->n_ranges][0], &t->range[t->n_ranges][1]) == 2)
        CHECK(++t->n_ranges < 200);
    fclose(f);
}

static inline void texts_close(texts *t) {
    buf_clear(&t->fragments);
}

static inline size_t below(texts *t, size_t n) {
    t->rng += 0x9e3779b97f4a7c15u;
    return (size_t)((hash_mix(t->rng) >> 32) * n >> 32);
}

static inline void gen_join(texts *t, buf *out) {
    static const char *const joins[] = {
        " ",        " ",    " ",   " ",      " ",      "  ", "\t",     "\n",
        "\n\n",     "\r\n", "   ", "\u00a0", "\u3000", "",   "'s ",    "\u180e",
        "\xc2\x85", " \n ", "-",   "1",      "'LL",    "\v", "\u2028",
    };
    buf_add(out, str_of(joins[below(t, sizeof joins / sizeof *joins)]));
}

static inline void gen_fragments(texts *t, buf *out) {
    size_t n = 1 + below(t, 3);
    for (size_t i = 0; i < n; i++) {
        if (i) gen_join(t, out);
        buf_add(out, t->fragment[below(t, t->n_fragments)]);
    }
}

static inline void gen_word(texts *t, buf *out) {
    str s = t->fragment[below(t, t->n_fragments)];
    size_t n = 1, at = 0;
    for (size_t i = 0; i < s.len; i++) n += s.ptr[i] == ' ';
    for (size_t k = below(t, n); k > 0; k--) at = str_find(s, STR(" "), at) + 1;
    size_t end = str_find(s, STR(" "), at);
    buf_add(out, (str){s.ptr + at, (end == SIZE_MAX ? s.len : end) - at});
}

static inline void gen_words(texts *t, buf *out) {
    size_t n = 3 + below(t, 10);
    for (size_t i = 0; i < n; i++) {
        if (i) gen_join(t, out);
        gen_word(t, out);
    }
}

static inline void gen_chars(texts *t, buf *out) {
    size_t n = 1 + below(t, 40);
    for (size_t i = 0; i < n; i++) {
        if (below(t, 6) == 0) buf_addc(out, ' ');
        const uint32_t *r = t->range[below(t, t->n_ranges)];
        char c[4];
        size_t len = (size_t)utf8_encode(r[0] + (uint32_t)below(t, r[1] - r[0] + 1), c);
        buf_add(out, (str){c, len});
        if (below(t, 8) == 0) buf_add(out, (str){c, len});
    }
}

/* n bytes of a pool. */
static inline void gen_pool(texts *t, buf *out, str pool, size_t n) {
    for (size_t i = 0; i < n; i++) buf_addc(out, pool.ptr[below(t, pool.len)]);
}

static inline void gen_ascii(texts *t, buf *out) {
    size_t n = 1 + below(t, 60);
    for (size_t i = 0; i < n; i++) buf_addc(out, (char)(32 + below(t, 95)));
}

static inline void gen_runs(texts *t, buf *out) {
    static const char pool[] = " \n\t\ra1.!='-\"0A";
    size_t n = 1 + below(t, 5);
    for (size_t i = 0; i < n; i++) {
        char c = pool[below(t, sizeof pool - 1)];
        for (size_t k = 1 + below(t, 80); k > 0; k--) buf_addc(out, c);
    }
}

static inline void gen_plain(texts *t, buf *out) {
    size_t k = below(t, 100);
    if (k < 30) return gen_fragments(t, out);
    if (k < 55) return gen_words(t, out);
    if (k < 75) return gen_chars(t, out);
    if (k < 85) return gen_ascii(t, out);
    if (k < 93) return gen_runs(t, out);
    if (k < 99)
        return gen_pool(t, out, STR("01234567890123456789 ,.-+eEx:/%$"), 1 + below(t, 50));
    gen_pool(t, out, STR("aabeehinorst"), 40 + below(t, 2460));
}

static inline void splice(buf *b, size_t at, size_t drop, const char *byte) {
    if (drop > b->len - at) drop = b->len - at;
    buf_addc(b, 0);
    b->len--;
    memmove(b->ptr + at + (byte != NULL), b->ptr + at + drop, b->len - at - drop);
    if (byte) b->ptr[at] = *byte;
    b->len = b->len - drop + (byte != NULL);
}

static inline void gen_broken(texts *t, buf *out) {
    gen_plain(t, out);
    for (size_t n = 1 + below(t, 4); n > 0; n--) {
        size_t at = below(t, out->len + 1), op = below(t, 4);
        char byte = (char)(0x80 + below(t, 128));
        if (op == 0)
            splice(out, at, 0, &byte);
        else if (op == 1 && at < out->len)
            splice(out, at, 1, &byte);
        else if (op == 2)
            splice(out, at, 1, NULL);
        else if (op == 3 && at >= out->len / 2)
            out->len = at;
    }
}

/* Text number i, into out (cleared first). */
static inline str text_of(texts *t, uint64_t seed, size_t i, buf *out) {
    out->len = 0;
    t->rng = seed + i * 0x9e3779b97f4a7c15u;
    if (below(t, 10) == 0)
        gen_broken(t, out);
    else
        gen_plain(t, out);
    CHECK(!out->failed);
    return buf_str(out);
}

static inline uint64_t fnv1a(uint64_t h, const void *p, size_t n) {
    const unsigned char *c = p;
    for (size_t i = 0; i < n; i++) h = (h ^ c[i]) * 0x100000001b3u;
    return h;
}
#define FNV_START 0xcbf29ce484222325u

#endif
