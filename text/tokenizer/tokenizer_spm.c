/* SentencePiece's BPE (Kudo and Richardson 2018; google/sentencepiece, src/bpe_model.cc), the
 * tokenizer of Llama 1 and 2, Mistral, Phi-3, Gemma: begin with a symbol for each character,
 * and join the neighbours whose text is the token of the highest score, the leftmost of
 * equals. A character that is no token becomes its bytes' tokens "<0x0A>". A symbol is where
 * it begins in the word.
 *
 * SentencePiece writes a space as U+2581; here the tokens are kept with a space in its place,
 * so that the text need not grow and a token's bytes are what it decodes to. There are no
 * words, but no merge can cross a place whose two bytes stand side by side in no token: the
 * text is cut there (t->joins), which changes no result. Any thread. */
#include "text/tokenizer/tokenizer_merge.h"

#include "base/utf8.h"

#define SPACE_MARK "\xe2\x96\x81" /* U+2581 */

static status no_memory(tok_words *w) {
    w->scratch.failed = true;
    return err_set(w->err, ERR_NO_MEMORY, "no memory to encode the text");
}

/* ---- opening ---- */

/* The value of "<0x0A>", or -1. */
static int byte_of_text(str s) {
    if (s.len != 6 || memcmp(s.ptr, "<0x", 3) != 0 || s.ptr[5] != '>') return -1;
    int v = 0;
    for (int i = 3; i < 5; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c >= '0' && c <= '9')
            v = v * 16 + c - '0';
        else if (c >= 'A' && c <= 'F')
            v = v * 16 + c - 'A' + 10;
        else
            return -1;
    }
    return v;
}

size_t tok_spm_bytes(str text, int32_t type, char *out) {
    int byte = type == TOK_BYTE ? byte_of_text(text) : -1;
    if (byte >= 0) {
        if (out) *out = (char)byte;
        return 1;
    }
    size_t n = 0;
    for (size_t i = 0; i < text.len; n++) {
        bool mark = text.len - i >= 3 && memcmp(text.ptr + i, SPACE_MARK, 3) == 0;
        if (out) out[n] = mark ? ' ' : text.ptr[i];
        i += mark ? 3 : 1;
    }
    return n;
}

/* Orders as the score does, the highest first; equal scores have equal ranks. */
static uint32_t rank_of_score(float score) {
    if (score != score) return NO_RANK - 1;
    uint32_t u;
    score += 0.0f; /* -0 is 0 */
    memcpy(&u, &score, sizeof u);
    u = u >> 31 ? ~u : u | 0x80000000u;
    return NO_RANK - 1 - (u < NO_RANK - 1 ? u : NO_RANK - 1);
}

void tok_spm_build(tokenizer *t, const tok_layout *l) {
    t->score_rank = (uint32_t *)((char *)t + l->score);
    t->joins = (uint8_t *)t + l->joins;
    memset(t->joins, 0, TOK_JOINS_BYTES);
    for (uint32_t id = 0; id < t->n_vocab; id++) {
        t->score_rank[id] = rank_of_score(l->scores[id]);
        str p = tok_piece(t, id);
        if (t->type[id] == TOK_BYTE) { /* before a one-byte character's token */
            if (p.len == 1) t->byte_id[(unsigned char)*p.ptr] = (int32_t)id;
            continue;
        }
        if (t->type[id] != TOK_NORMAL && t->type[id] != TOK_UNUSED) continue;
        if (p.len > t->longest) t->longest = (uint32_t)p.len;
        for (size_t i = 1; i < p.len; i++) {
            uint32_t pair =
                (uint32_t)(unsigned char)p.ptr[i - 1] << 8 | (unsigned char)p.ptr[i];
            t->joins[pair >> 3] |= (uint8_t)(1u << (pair & 7));
        }
    }
}

/* ---- encoding ---- */

typedef struct spm_word {
    const tokenizer *tok;
    const char *text;
} spm_word;

static uint32_t rank_of(const void *word, uint32_t a, uint32_t b, uint32_t end) {
    const spm_word *s = word;
    (void)b;
    if (end - a > s->tok->longest) return NO_RANK;
    int32_t id = tok_find_piece(s->tok, (str){s->text + a, end - a});
    return id < 0 ? NO_RANK : s->tok->score_rank[id];
}

static uint32_t join(const void *word, uint32_t rank, uint32_t a) {
    (void)word, (void)rank;
    return a;
}

static const merge_rules rules = {rank_of, join};

/* Where the characters of the word begin, then its end. A byte that is not UTF-8 stands alone.
 * Returns their number. */
static size_t first_symbols(str word, uint32_t *at) {
    size_t n = 0, i = 0;
    uint32_t cp;
    while (i < word.len) {
        at[n++] = (uint32_t)i;
        int len = utf8_decode(word.ptr + i, word.len - i, &cp);
        i += len > 0 ? (size_t)len : 1;
    }
    at[n] = (uint32_t)word.len;
    return n;
}

/* The token of a symbol; one character without a token becomes its bytes, or where those have
 * no tokens either, the unknown token. */
static bool push_symbol(const tokenizer *t, tok_words *w, str s) {
    int32_t id = tok_find_piece(t, s);
    if (id >= 0) return vec_i32_push(w->out, id);
    for (size_t i = 0; i < s.len; i++) {
        id = t->byte_id[(unsigned char)s.ptr[i]];
        if (id < 0 && (i > 0 || t->unknown < 0)) continue;
        if (!vec_i32_push(w->out, id < 0 ? t->unknown : id)) return false;
    }
    return true;
}

static status long_word(const tokenizer *t, tok_words *w, str word) {
    arena own; /* its own, so that one long word after another reuses it */
    arena_init(&own, w->scratch.src, 0);
    merge_chain c;
    if (!merge_chain_init(&c, &own, word.len)) return no_memory(w);
    spm_word ctx = {t, word.ptr};
    c.n = (uint32_t)first_symbols(word, c.what);
    merge_long(&rules, &ctx, &c);
    status s = OK;
    for (uint32_t i = 0; i < c.n && s == OK; i = c.next[i]) {
        str symbol = {word.ptr + c.what[i], c.what[c.next[i]] - c.what[i]};
        if (!push_symbol(t, w, symbol)) s = no_memory(w);
    }
    arena_clear(&own);
    return s;
}

static status encode_word(const tokenizer *t, tok_words *w, str word) {
    /* Many words are one token. That its characters merge to it is remembered when seen. */
    int32_t whole = word.len <= t->longest ? tok_find_piece(t, word) : -1;
    if (whole >= 0 && tok_is_whole(t, whole))
        return vec_i32_push(w->out, whole) ? OK : no_memory(w);
    if (word.len > MERGE_SHORT) return long_word(t, w, word);
    uint32_t at[MERGE_SHORT + 1];
    spm_word ctx = {t, word.ptr};
    size_t n = merge_short(&rules, &ctx, at, first_symbols(word, at));
    if (n == 1 && whole >= 0) tok_set_whole(t, whole);
    for (size_t i = 0; i < n; i++)
        if (!push_symbol(t, w, (str){word.ptr + at[i], at[i + 1] - at[i]})) return no_memory(w);
    return OK;
}

/* Whether a token may reach over the place before text.ptr[i]. */
static bool joined(const tokenizer *t, str text, size_t i) {
    unsigned char before = (unsigned char)text.ptr[i - 1], c = (unsigned char)text.ptr[i];
    uint32_t pair = (uint32_t)before << 8 | c;
    return (c & 0xc0) == 0x80 || (t->joins[pair >> 3] >> (pair & 7) & 1);
}

static status encode_text(const tokenizer *t, tok_words *w, str text) {
    for (size_t at = 0, end; at < text.len; at = end) {
        end = at + 1;
        while (end < text.len && joined(t, text, end)) end++;
        status s = encode_word(t, w, (str){text.ptr + at, end - at});
        if (s != OK) return s;
    }
    return OK;
}

/* Appends text to out as SentencePiece's normaliser leaves it: U+2581 is a space, and spaces
 * are single and not at either end where the model wants it so. Returns the length. */
static size_t normalise(const tokenizer *t, str text, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < text.len;) {
        bool mark = text.len - i >= 3 && memcmp(text.ptr + i, SPACE_MARK, 3) == 0;
        char c = mark ? ' ' : text.ptr[i];
        i += mark ? 3 : 1;
        if (t->single_spaces && c == ' ' && (n == 0 || out[n - 1] == ' ')) continue;
        out[n++] = c;
    }
    if (t->single_spaces && n && out[n - 1] == ' ') n--;
    return n;
}

status tok_spm_run(const tokenizer *t, tok_words *w, str text) {
    bool prefix = t->space_prefix && w->after_special;
    if (!prefix && !t->single_spaces && str_find(text, STR(SPACE_MARK), 0) == SIZE_MAX)
        return encode_text(t, w, text);
    if (w->plain_cap <= text.len) { /* one that grows, however many the runs */
        w->plain_cap = 2 * text.len + 64;
        w->plain = arena_alloc(&w->scratch, w->plain_cap);
        if (!w->plain) return no_memory(w);
    }
    char *plain = w->plain;
    plain[0] = ' ';
    size_t n = normalise(t, text, plain + 1);
    if (n == 0 && t->single_spaces) return OK;
    return encode_text(t, w, prefix ? (str){plain, n + 1} : (str){plain + 1, n});
}
