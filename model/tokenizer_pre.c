/* Pre-tokenizers: cutting text into the words within which tokens are merged. One row for each
 * value of tokenizer.ggml.pre; the patterns run in PCRE2, compiled by its JIT where the system
 * lets it (MemoryDenyWriteExecute= does not: then interpreted, with the same result).
 *
 * Memory: PCRE2's objects lie in the tokenizer's block (TOK_PRE_BYTES). The JIT's executable
 * pages (one mapping of 64 KiB) and, for the length of a call, the match data (some hundred
 * bytes) come from the C library: they are part of the runtime class.
 * Threads: the compiled pattern is read only; match data belongs to the call. */
#include "model/tokenizer_in.h"

#include <stdio.h>

#include "base/utf8.h"

/* White space as Unicode defines it (property White_Space). PCRE2's \s has U+180E too, which
 * the tokenizers' own regular expressions do not. */
#define SPACE "\\t-\\r\\x{85}\\p{Z}"
#define WORD  "\\p{L}\\p{N}"

/* openai/gpt-2, src/encoder.py. */
#define GPT2                                                                                   \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE WORD "]+|[" SPACE "]+(?![^" SPACE \
    "])|[" SPACE "]+"

/* SmolLM2's tokenizer.json: every digit (\p{N}) is cut out first, then GPT-2's pattern runs on
 * what lies between. As one pattern: digits stand alone, and to white space a digit is the end
 * of the text. */
#define DIGITS_GPT2                                                                            \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+|\\p{N}| ?[^" SPACE WORD "]+|[" SPACE "]+(?![^" SPACE    \
    "\\p{N}])|[" SPACE "]+"

/* Llama 3's and Qwen2's tokenizer.json: the same but for how many digits make a word. */
#define CL100K(digits)                                                                         \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n" WORD "]?\\p{L}+|" digits "| ?[^" SPACE WORD        \
    "]+[\\r\\n]*|[" SPACE "]*[\\r\\n]+|[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+"

/* All of these patterns take " ?[A-Za-z]+" before a byte of ASCII that is no letter, or before
 * the end, as one word: ascii_word relies on it. */
static const tok_pre pre_table[] = {
    /* name, pattern, ignore_merges, adds_bos */
    {"gpt-2", GPT2, false, false},
    {"smollm", DIGITS_GPT2, false, false},
    {"llama-bpe", CL100K("\\p{N}{1,3}"), true, true},
    {"qwen2", CL100K("\\p{N}"), false, false},
};
enum { N_PRE = sizeof pre_table / sizeof *pre_table };

static status pre_unknown(str name, err *e) {
    char known[200] = "";
    for (size_t i = 0, at = 0; i < N_PRE && at < sizeof known; i++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "",
                               pre_table[i].name);
    if (name.len)
        err_set(e, ERR_UNSUPPORTED, "tokenizer.ggml.pre is \"%.*s\"; known are %s",
                (int)(name.len < 80 ? name.len : 80), name.ptr, known);
    else
        err_set(e, ERR_UNSUPPORTED, "the file does not say tokenizer.ggml.pre; known are %s",
                known);
    err_field(e, "tokenizer.ggml.pre");
    return err_hint(e, "convert the model again with a current converter, or choose another");
}

status tok_pre_find(const tok_pre **out, const gguf *g, err *e) {
    str name = STR("");
    status s = gguf_get_str(g, "tokenizer.ggml.pre", &name, e);
    if (s != OK) return s;
    for (size_t i = 0; i < N_PRE; i++)
        if (str_eqz(name, pre_table[i].name)) return *out = &pre_table[i], OK;
    return pre_unknown(name, e);
}

/* PCRE2 asks for a handful of objects while opening; they all go with the block. */
static void *pre_alloc(size_t n, void *tok) {
    tokenizer *t = tok;
    n = align_up(n, 16);
    if (n > (size_t)(t->pre_end - t->pre_at)) return NULL;
    void *p = t->pre_at;
    t->pre_at += n;
    return p;
}
static void pre_free(void *p, void *tok) {
    (void)p, (void)tok;
}

status tok_pre_build(tokenizer *t, err *e) {
    int code = 0;
    size_t at = 0;
    pcre2_general_context *g = pcre2_general_context_create(pre_alloc, pre_free, t);
    pcre2_compile_context *c = g ? pcre2_compile_context_create(g) : NULL;
    t->limits = g ? pcre2_match_context_create(g) : NULL;
    if (!c || !t->limits) return err_set(e, ERR_NO_MEMORY, "no room for the pre-tokenizer");
    t->code = pcre2_compile((PCRE2_SPTR)t->pre->pattern, PCRE2_ZERO_TERMINATED,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &code, &at, c);
    if (!t->code) {
        PCRE2_UCHAR text[120];
        pcre2_get_error_message(code, text, sizeof text);
        err_set(e, ERR_UNSUPPORTED, "pre-tokenizer %s does not compile at %zu: %s",
                t->pre->name, at, (const char *)text);
        return err_field(e, "tokenizer.ggml.pre");
    }
    /* The patterns hardly backtrack: the limits only bound what PCRE2 itself may need. */
    pcre2_set_match_limit(t->limits, 1u << 31);
    pcre2_set_heap_limit(t->limits, 16 << 10); /* KiB, for the interpreter */
    t->jit = pcre2_jit_compile(t->code, PCRE2_JIT_COMPLETE) == 0;
    return OK;
}

void tok_pre_clear(tokenizer *t) {
    if (t->code) pcre2_code_free(t->code);
    t->code = NULL;
}

/* Length of the word at the beginning of s when ASCII alone decides it; else 0. */
static size_t ascii_word(str s) {
    size_t i = s.ptr[0] == ' ';
    size_t from = i;
    while (i < s.len && (unsigned char)((s.ptr[i] | 32) - 'a') < 26) i++;
    return i > from && (i == s.len || (unsigned char)s.ptr[i] < 0x80) ? i : 0;
}

/* Length of the word at text[at..]. text is valid UTF-8. */
static status next_word(const tokenizer *t, tok_words *w, str text, size_t at, size_t *len) {
    if ((*len = ascii_word((str){text.ptr + at, text.len - at}))) return OK;
    PCRE2_SPTR s = (PCRE2_SPTR)text.ptr;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (t->jit) rc = pcre2_jit_match(t->code, s, text.len, at, 0, w->match, t->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(t->code, s, text.len, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, w->match,
                         t->limits);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        return err_set(w->err, ERR_NO_MEMORY,
                       "pre-tokenizer %s: PCRE2 gave up (%d) at byte %zu", t->pre->name, rc,
                       at);
    size_t end = rc < 0 ? at : pcre2_get_ovector_pointer(w->match)[1];
    uint32_t cp;
    if (end <= at) end = at + (size_t)utf8_decode(text.ptr + at, text.len - at, &cp);
    *len = end - at;
    return OK;
}

static status run_valid(const tokenizer *t, tok_words *w, str text) {
    for (size_t at = 0, len; at < text.len; at += len) {
        status s = next_word(t, w, text, at, &len);
        if (s == OK) s = tok_bpe_word(t, w, (str){text.ptr + at, len});
        if (s != OK) return s;
    }
    return OK;
}

/* Text that is not UTF-8: the pattern sees each impossible byte as U+FFFD, a symbol, as
 * llama.cpp's does; the words are cut from the text as it is, so that no byte is lost. */
static status run_broken(const tokenizer *t, tok_words *w, str text) {
    size_t cap;
    if (__builtin_mul_overflow(text.len, (size_t)3, &cap)) cap = SIZE_MAX;
    char *seen = arena_alloc(&w->scratch, cap);
    if (!seen) return err_set(w->err, ERR_NO_MEMORY, "no memory to encode broken UTF-8");
    str view = {seen, 0};
    uint32_t cp;
    for (size_t i = 0; i < text.len;) {
        int n = utf8_decode(text.ptr + i, text.len - i, &cp);
        memcpy(seen + view.len, n > 0 ? text.ptr + i : "\xef\xbf\xbd", n > 0 ? (size_t)n : 3);
        view.len += n > 0 ? (size_t)n : 3;
        i += n > 0 ? (size_t)n : 1;
    }
    size_t from = 0;
    for (size_t at = 0, len; at < view.len; at += len) {
        status s = next_word(t, w, view, at, &len);
        if (s != OK) return s;
        size_t to = from;
        for (size_t i = at; i < at + len;) {
            int n = utf8_decode(text.ptr + to, text.len - to, &cp);
            i += n > 0 ? (size_t)n : 3;
            to += n > 0 ? (size_t)n : 1;
        }
        s = tok_bpe_word(t, w, (str){text.ptr + from, to - from});
        if (s != OK) return s;
        from = to;
    }
    return OK;
}

status tok_pre_run(const tokenizer *t, tok_words *w, str text) {
    if (!w->match) w->match = pcre2_match_data_create(1, NULL);
    if (!w->match) return err_set(w->err, ERR_NO_MEMORY, "no memory for PCRE2's match data");
    return utf8_valid(text) ? run_valid(t, w, text) : run_broken(t, w, text);
}
