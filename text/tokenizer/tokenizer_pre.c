/* Pre-tokenizers: cutting text into the words within which tokens are merged, by the row of
 * tokenizer_pre_table.c that tokenizer.ggml.pre names; the patterns run in PCRE2, compiled by
 * its JIT where the system lets it (MemoryDenyWriteExecute= does not: then interpreted, with
 * the same result).
 *
 * Memory: PCRE2's objects lie in the tokenizer's block (TOK_PRE_BYTES). What it needs only while
 * it compiles a pattern (PCRE2 10.46: more than that block), the JIT's executable pages (one
 * mapping of 64 KiB) and, for the length of a call, the match data (some hundred bytes) come
 * from the C library: they are part of the runtime class.
 * Threads: the compiled pattern is read only; match data belongs to the call. */
#include "text/tokenizer/tokenizer_in.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "memory/term.h"

static bool has_name(const char *names, str name) {
    for (const char *p = names; *p; p += *p == ' ') {
        size_t n = strcspn(p, " ");
        if (str_eq(name, (str){p, n})) return true;
        p += n;
    }
    return false;
}

static const tok_pre *row_of(str name) {
    size_t n;
    const tok_pre *rows = tok_pre_rows(&n);
    for (size_t i = 0; i < n; i++)
        if (has_name(rows[i].names, name)) return &rows[i];
    return NULL;
}

static status pre_unknown(str name, bool wished, err *e) {
    char known[320] = "";
    size_t n, at = 0;
    const tok_pre *rows = tok_pre_rows(&n);
    for (size_t i = 0; i < n && at < sizeof known; i++) /* the first name of each row */
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%.*s", i ? ", " : "",
                               (int)strcspn(rows[i].names, " "), rows[i].names);
    if (wished) {
        err_set(e, ERR_INVALID, "there is no pre-tokenizer \"%.*s\"; known are %s",
                (int)(name.len < 80 ? name.len : 80), name.ptr, known);
        return err_field(e, "pre_tokenizer");
    }
    if (name.len)
        err_set(e, ERR_UNSUPPORTED, "tokenizer.ggml.pre is \"%.*s\"; known are %s",
                (int)(name.len < 80 ? name.len : 80), name.ptr, known);
    else
        err_set(e, ERR_UNSUPPORTED, "the file does not say tokenizer.ggml.pre; known are %s",
                known);
    err_field(e, "tokenizer.ggml.pre");
    return err_hint(e, "pre_tokenizer names the one to use; or convert the model again with a "
                       "current converter");
}

/* GPT-NeoX's files are older than the key; no other architecture has but one pre-tokenizer. */
static status name_of(str *name, const checkpoint *file, err *e) {
    str architecture = STR("");
    *name = STR("");
    status s = checkpoint_get_str(file, "tokenizer.ggml.pre", name, e);
    if (s == OK && name->len == 0)
        s = checkpoint_get_str(file, "general.architecture", &architecture, e);
    if (s == OK && str_eqz(architecture, "gptneox")) *name = STR("gpt-neox");
    if (s == OK && name->len == 0) *name = STR("default"); /* as llama.cpp takes it */
    return s;
}

/* Of a file that has patterns of its own. */
static const tok_pre own_rows[] = {{.names = "of tokenizer.json"},
                                   {.names = "of tokenizer.json", .ignore_merges = true}};

static bool is_own(const tok_pre *row) {
    return row == &own_rows[0] || row == &own_rows[1];
}

static status own_stages(tok_pre_choice *out, const checkpoint *file, err *e) {
    fact_array a = {0};
    bool whole = false;
    status s = checkpoint_get_array(file, "tokenizer.pre.stages", FACT_STR, &a, e);
    if (s == OK) s = checkpoint_get_bool(file, "tokenizer.pre.ignore_merges", &whole, e);
    if (s != OK) return s;
    if (a.n > TOK_PRE_STAGES) {
        err_set(e, ERR_UNSUPPORTED, "the pre-tokenizer has %llu stages, more than %d",
                (unsigned long long)a.n, TOK_PRE_STAGES);
        return err_field(e, "tokenizer.pre.stages");
    }
    out->row = &own_rows[whole];
    for (uint64_t i = 0; i < a.n; i++) out->stage[i] = ((const str *)a.v)[i].ptr;
    return OK;
}

status tok_pre_find(tok_pre_choice *out, const checkpoint *file, str wish, err *e) {
    str name = wish;
    *out = (tok_pre_choice){0};
    if (!wish.len && checkpoint_has(file, "tokenizer.pre.stages"))
        return own_stages(out, file, e);
    status s = wish.len ? OK : name_of(&name, file, e);
    if (s != OK) return s;
    out->row = row_of(name);
    if (!out->row) return pre_unknown(name, wish.len > 0, e);
    memcpy(out->stage, out->row->stage, sizeof out->stage);
    return OK;
}

enum {
    PRE_NO_MEMORY = 121
}; /* "failed to allocate heap memory": the header has no name for it */

/* PCRE2 asks for a handful of objects while opening; they all go with the block, but those of
 * a pattern that is being compiled. */
static void *pre_alloc(size_t n, void *tok) {
    tokenizer *t = tok;
    if (t->pre_compiles) return malloc(n);
    n = align_up(n, 16);
    if (n > (size_t)(t->pre_end - t->pre_at)) return NULL;
    void *p = t->pre_at;
    t->pre_at += n;
    return p;
}
static void pre_free(void *p, void *tok) {
    const tokenizer *t = tok;
    const char *begin = t->pre_end - TOK_PRE_BYTES;
    if ((char *)p < begin || (char *)p >= t->pre_end) free(p);
}

/* Compiles on the heap, and copies what is left of it into the block: a general context can
 * have one allocator for both only. NULL: *code says why. */
static pcre2_code *compile(tokenizer *t, pcre2_compile_context *c, const char *pattern,
                           int *code, size_t *at) {
    t->pre_compiles = true;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_UCP, code, at, c);
    t->pre_compiles = false;
    pcre2_code *copy = compiled ? pcre2_code_copy(compiled) : NULL;
    if (compiled && !copy) *code = PRE_NO_MEMORY;
    pcre2_code_free(compiled);
    return copy;
}

static status compile_stage(tokenizer *t, pcre2_compile_context *c, const char *pattern,
                            err *e) {
    int code = 0;
    size_t at = 0;
    pcre2_code *re = compile(t, c, pattern, &code, &at);
    if (!re && code == PRE_NO_MEMORY)
        return mem_exhausted(e, MEM_TOKENIZER, "the pre-tokenizer");
    if (!re) {
        PCRE2_UCHAR text[120];
        pcre2_get_error_message(code, text, sizeof text);
        err_set(e, ERR_UNSUPPORTED, "pre-tokenizer %.*s, stage %u, does not compile at %zu: %s",
                (int)strcspn(t->pre->names, " "), t->pre->names, t->n_stages, at,
                (const char *)text);
        return err_field(e, "tokenizer.ggml.pre");
    }
    t->code[t->n_stages++] = re;
    if (pcre2_jit_compile(re, PCRE2_JIT_COMPLETE) != 0) t->jit = false;
    return OK;
}

status tok_pre_build(tokenizer *t, const tok_pre_choice *pre, err *e) {
    pcre2_general_context *g = pcre2_general_context_create(pre_alloc, pre_free, t);
    pcre2_compile_context *c = g ? pcre2_compile_context_create(g) : NULL;
    t->limits = g ? pcre2_match_context_create(g) : NULL;
    if (!c || !t->limits) return mem_exhausted(e, MEM_TOKENIZER, "the pre-tokenizer");
    /* Our patterns hardly backtrack: the limits only bound what PCRE2 itself may need. Of a file's
     * nothing is known: a match that takes seconds is given up. */
    pcre2_set_match_limit(t->limits, is_own(pre->row) ? 1u << 24 : 1u << 31);
    pcre2_set_heap_limit(t->limits, 16 << 10); /* KiB, for the interpreter */
    t->jit = true;
    status s = OK;
    while (s == OK && t->n_stages < TOK_PRE_STAGES && pre->stage[t->n_stages])
        s = compile_stage(t, c, pre->stage[t->n_stages], e);
    return s;
}

void tok_pre_clear(tokenizer *t) {
    while (t->n_stages) pcre2_code_free(t->code[--t->n_stages]);
}

/* ---- cutting ---- */

size_t tok_space_len(str s) {
    uint32_t c;
    int n = s.len ? utf8_decode(s.ptr, s.len, &c) : 0;
    if (n <= 0) return 0;
    bool space = (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
                 (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
                 c == 0x205f || c == 0x3000;
    return space ? (size_t)n : 0;
}

/* Length of the word at the beginning of s when ASCII alone decides it; else 0. */
static size_t ascii_word(str s) {
    size_t i = s.ptr[0] == ' ';
    size_t from = i;
    while (i < s.len && (unsigned char)((s.ptr[i] | 32) - 'a') < 26) i++;
    return i > from && (i == s.len || (unsigned char)s.ptr[i] < 0x80) ? i : 0;
}

/* The first match of a stage in text at or after from: [*at, *end), never empty; both
 * text.len where there is none. text is valid UTF-8. */
static status next_match(const tokenizer *t, tok_words *w, uint32_t stage, str text,
                         size_t from, size_t *at, size_t *end) {
    PCRE2_SPTR s = (PCRE2_SPTR)text.ptr;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    const pcre2_code *code = t->code[stage];
    if (t->jit)
        rc = pcre2_jit_match(code, s, text.len, from, PCRE2_NOTEMPTY, w->match, t->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(code, s, text.len, from,
                         PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, w->match,
                         t->limits);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        return err_set(w->err, ERR_NO_MEMORY,
                       "pre-tokenizer %.*s: PCRE2 gave up (%d) at byte %zu",
                       (int)strcspn(t->pre->names, " "), t->pre->names, rc, from);
    *at = *end = text.len;
    if (rc < 0) return OK;
    const size_t *found = pcre2_get_ovector_pointer(w->match);
    *at = found[0];
    *end = found[1];
    return OK;
}

/* A word as the patterns saw it: of text that is not UTF-8 (w->raw) the same number of
 * characters and impossible bytes, cut from the text as it is. */
static status push_word(const tokenizer *t, tok_words *w, str word) {
    if (!w->raw.ptr) return tok_bpe_word(t, w, word);
    size_t len = 0;
    uint32_t cp;
    for (size_t i = 0; i < word.len;) {
        int n = utf8_decode(w->raw.ptr + len, w->raw.len - len, &cp);
        i += n > 0 ? (size_t)n : 3;
        len += n > 0 ? (size_t)n : 1;
    }
    str raw = {w->raw.ptr, len};
    w->raw = (str){raw.ptr + len, w->raw.len - len};
    return tok_bpe_word(t, w, raw);
}

/* Cuts text by the stages from stage on. Recursion ends after TOK_PRE_STAGES. */
static status cut(const tokenizer *t, tok_words *w, uint32_t stage, str text) {
    if (stage == t->n_stages) return push_word(t, w, text);
    for (size_t from = 0, at, end; from < text.len; from = end) {
        status s = OK;
        at = from;
        end = 0;
        if (t->pre->ascii_words)
            end = from + ascii_word((str){text.ptr + from, text.len - from});
        if (end <= from) s = next_match(t, w, stage, text, from, &at, &end);
        if (s == OK && at > from) s = cut(t, w, stage + 1, (str){text.ptr + from, at - from});
        if (s == OK && end > at) s = cut(t, w, stage + 1, (str){text.ptr + at, end - at});
        if (s != OK) return s;
    }
    return OK;
}

/* Text that is not UTF-8: the patterns see each impossible byte as U+FFFD, a symbol, as
 * llama.cpp's do. No byte is lost. */
static status cut_broken(const tokenizer *t, tok_words *w, str text) {
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
    w->raw = text;
    status s = cut(t, w, 0, view);
    w->raw = (str){NULL, 0};
    return s;
}

status tok_pre_run(const tokenizer *t, tok_words *w, str text) {
    if (!w->match) w->match = pcre2_match_data_create(1, NULL);
    if (!w->match) return err_set(w->err, ERR_NO_MEMORY, "no memory for PCRE2's match data");
    return utf8_valid(text) ? cut(t, w, 0, text) : cut_broken(t, w, text);
}
