/* WordPiece (Schuster and Nakajima 2012; google-research/bert): a word is cut greedily into the
 * longest tokens, from its beginning on; one that cannot be is the unknown token. Words lie between white space
 * and marks of punctuation, which are words of their own. A token that begins a word is kept with a space in
 * front, one that goes on from another ("##ing") without, so that a token's bytes are what it decodes to.
 * Characters' properties are utf8proc's. Any thread. */
#include "text/tokenizer/tokenizer_in.h"

#include <utf8proc.h>

#include "base/utf8.h"

enum { MOST_PARTS = 4 /* of a character in form D */, MOST_BYTES = TOK_WORD_CHARS * 4 + 1 };

typedef struct wordpiece {
    const tokenizer *t;
    tok_words *w;
    char word[MOST_BYTES]; /* a space, and the word */
    size_t len;            /* 1: none */
    uint32_t chars;        /* may be more than are kept */
} wordpiece;

static status no_memory(tok_words *w) {
    w->scratch.failed = true;
    return err_set(w->err, ERR_NO_MEMORY, "no memory to encode the text");
}

/* ---- opening ---- */

static const char mark[] = "\xe2\x96\x81"; /* U+2581, as GGUF files have the space in front */

size_t tok_wordpiece_bytes(str text, char *out) {
    const bool begins = text.len >= 3 && memcmp(text.ptr, mark, 3) == 0;
    const size_t n = text.len - (begins ? 3 : 0);
    if (out && begins) out[0] = ' ';
    if (out && n) memcpy(out + begins, text.ptr + text.len - n, n);
    return n + begins;
}

status tok_wordpiece_build(tokenizer *t, const checkpoint *file, err *e) {
    const struct {
        const char *key;
        bool *flag;
    } flags[] = {{"tokenizer.wordpiece.clean", &t->wordpiece.clean},
                 {"tokenizer.wordpiece.split_han", &t->wordpiece.split_han},
                 {"tokenizer.wordpiece.strip_accents", &t->wordpiece.strip_accents},
                 {"tokenizer.wordpiece.lowercase", &t->wordpiece.lowercase}};
    status s = OK;
    t->space_prefix = true;
    t->wordpiece.most_chars = TOK_WORD_CHARS;
    for (size_t i = 0; i < sizeof flags / sizeof *flags && s == OK; i++) {
        *flags[i].flag = true;
        s = checkpoint_get_bool(file, flags[i].key, flags[i].flag, e);
    }
    if (s == OK)
        s = checkpoint_get_u32(file, "tokenizer.wordpiece.most_chars", &t->wordpiece.most_chars,
                               e);
    if (s == OK && t->wordpiece.most_chars > TOK_WORD_CHARS)
        t->wordpiece.most_chars = TOK_WORD_CHARS;
    for (uint32_t id = 0; id < t->n_vocab; id++)
        if (tok_piece(t, id).len > t->longest) t->longest = (uint32_t)tok_piece(t, id).len;
    return s;
}

/* ---- characters ---- */

static bool is_white(uint32_t c) {
    char s[4];
    return tok_space_len((str){s, (size_t)utf8_encode(c, s)}) > 0;
}

/* Han characters as BERT lists them: blocks of unified and compatibility ideographs. */
static bool is_han(uint32_t c) {
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static bool is_punctuation(uint32_t c) {
    if (c < 0x80)
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
               (c >= 123 && c <= 126);
    const utf8proc_category_t k = utf8proc_category((int32_t)c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

/* Control characters and the like, which clean leaves out. */
static bool is_dropped(uint32_t c) {
    if (c == 0 || c == 0xfffd) return true;
    if (c == '\t' || c == '\n' || c == '\r') return false;
    const utf8proc_category_t k = utf8proc_category((int32_t)c);
    return k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO;
}

/* ---- words ---- */

/* The longest token that word[from..) begins with; -1: none. */
static int32_t longest_at(const wordpiece *p, size_t from, size_t *end) {
    const tokenizer *t = p->t;
    size_t n = p->len - from < t->longest ? p->len - from : t->longest;
    for (; n > 0; n--) {
        if (from + n < p->len && ((unsigned char)p->word[from + n] & 0xc0) == 0x80) continue;
        if (from == 0 && n == 1) return -1; /* the space alone */
        const int32_t id = tok_find_piece(t, (str){p->word + from, n});
        if (id < 0) continue;
        *end = from + n;
        return id;
    }
    return -1;
}

static status end_word(wordpiece *p) {
    vec_i32 *out = p->w->out;
    const size_t begin = out->n;
    const bool kept = p->chars <= p->t->wordpiece.most_chars;
    bool unknown = !kept, pushed = true;
    if (p->len == 1) return OK;
    for (size_t at = 0; kept && at < p->len && !unknown && pushed;) {
        const int32_t id = longest_at(p, at, &at);
        unknown = id < 0;
        if (!unknown) pushed = vec_i32_push(out, id);
    }
    if (unknown) {
        out->n = begin;
        if (p->t->unknown >= 0) pushed = vec_i32_push(out, p->t->unknown);
    }
    p->len = 1;
    p->chars = 0;
    return pushed ? OK : no_memory(p->w);
}

static void add_char(wordpiece *p, uint32_t c) {
    if (++p->chars <= p->t->wordpiece.most_chars)
        p->len += (size_t)utf8_encode(c, p->word + p->len);
}

static status push_char(wordpiece *p, uint32_t c) {
    if (is_white(c)) return end_word(p);
    if (!is_punctuation(c)) return add_char(p, c), OK;
    status s = end_word(p);
    if (s != OK) return s;
    add_char(p, c);
    return end_word(p);
}

static status push_lower(wordpiece *p, uint32_t c) {
    if (!p->t->wordpiece.lowercase) return push_char(p, c);
    if (c != 0x130) return push_char(p, (uint32_t)utf8proc_tolower((int32_t)c));
    status s = push_char(p, 'i'); /* the one letter that two stand for (SpecialCasing.txt) */
    return s == OK ? push_char(p, 0x307) : s;
}

static status push_parts(wordpiece *p, uint32_t c) {
    int32_t part[MOST_PARTS];
    int boundary = 0;
    status s = OK;
    if (!p->t->wordpiece.strip_accents) return push_lower(p, c);
    const utf8proc_ssize_t n = utf8proc_decompose_char(
        (int32_t)c, part, MOST_PARTS, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
    CHECK(n > 0 && n <= MOST_PARTS);
    for (utf8proc_ssize_t i = 0; i < n && s == OK; i++)
        if (utf8proc_category(part[i]) != UTF8PROC_CATEGORY_MN)
            s = push_lower(p, (uint32_t)part[i]);
    return s;
}

status tok_wordpiece_run(const tokenizer *t, tok_words *w, str text) {
    wordpiece p = {.t = t, .w = w, .len = 1};
    status s = OK;
    p.word[0] = ' ';
    for (size_t i = 0; i < text.len && s == OK;) {
        uint32_t c = 0xfffd;
        const int n = utf8_decode(text.ptr + i, text.len - i, &c);
        i += n > 0 ? (size_t)n : 1;
        if (n <= 0) c = 0xfffd;
        if (t->wordpiece.clean && is_dropped(c)) continue;
        const bool alone = t->wordpiece.split_han && is_han(c);
        if (alone) s = end_word(&p);
        if (s == OK) s = push_parts(&p, c);
        if (s == OK && alone) s = end_word(&p);
    }
    return s == OK ? end_word(&p) : s;
}
