/* What the tests of the tokenizer share: files made and opened, ids compared, a tiny
 * vocabulary. For tests only; all functions are static. */
#ifndef VRAMD_TESTS_TOKENIZER_RIG_H
#define VRAMD_TESTS_TOKENIZER_RIG_H

#include <time.h>

#include "text/tokenizer/tokenizer.h"
#include "tests/check_main.h"
#include "tests/model/gguf_build.h"
#include "tests/text/tokenizer_texts.h"

#define VECTORS "../shared/data/tokenizers/ggml-vocab-"

/* Of the processor: what else runs on the machine does not count. */
static GB_UNUSED uint64_t cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static GB_UNUSED checkpoint *file_open(const char *path) {
    checkpoint *g;
    err e;
    ck_assert_msg(checkpoint_open(&g, path, &e) == OK, "%s: %s", path, e.text);
    return g;
}

static GB_UNUSED tokenizer *tok_open(const checkpoint *g) {
    tokenizer *t;
    err e;
    ck_assert_msg(tokenizer_open(&t, g, chunks_heap(), &e) == OK, "%s", e.text);
    return t;
}

static GB_UNUSED void encode_into(const tokenizer *t, str text, unsigned flags, vec_i32 *ids) {
    err e;
    ids->n = 0;
    ck_assert_msg(tokenizer_encode(t, text, flags, ids, &e) == OK, "%s", e.text);
}

/* The first token with this text; -1: none. */
static GB_UNUSED int32_t id_of(const tokenizer *t, const char *text) {
    for (uint32_t id = 0; id < tokenizer_n_vocab(t); id++)
        if (str_eqz(tokenizer_piece(t, (int32_t)id, true), text)) return (int32_t)id;
    return -1;
}

static GB_UNUSED bool adds_bos(const tokenizer *t) {
    vec_i32 ids;
    vec_i32_init(&ids, NULL);
    encode_into(t, STR("b"), TOK_ADD_SPECIAL, &ids);
    bool added = ids.n && ids.v[0] == tokenizer_bos(t);
    vec_i32_clear(&ids);
    return added;
}

static GB_UNUSED void assert_ids(const tokenizer *t, str text, unsigned flags, size_t n,
                                 const int32_t *want) {
    vec_i32 ids;
    vec_i32_init(&ids, NULL);
    encode_into(t, text, flags, &ids);
    ck_assert_uint_eq(ids.n, n);
    for (size_t i = 0; i < n; i++) ck_assert_int_eq(ids.v[i], want[i]);
    vec_i32_clear(&ids);
}
#define ASSERT_IDS(t, text, flags, ...)                                                        \
    assert_ids(t, text, flags, sizeof((int32_t[]){__VA_ARGS__}) / 4, (int32_t[]){__VA_ARGS__})

static GB_UNUSED void copy_array(gb *to, const checkpoint *g, const char *key, fact_type type) {
    fact_array a = {0};
    err e;
    ck_assert_msg(checkpoint_get_array(g, key, type, &a, &e) == OK, "%s", e.text);
    if (type == FACT_STR)
        gb_strs(to, key, a.v, a.n);
    else if (type == FACT_F32)
        gb_floats(to, key, a.v, a.n);
    else
        gb_ints(to, key, a.v, a.n);
}

/* Begins a vocabulary with the tokens of a file, and with its scores or merges. */
static GB_UNUSED void copy_tokens(gb *to, const char *path, const char *model, const char *more,
                                  int more_type) {
    checkpoint *g = file_open(path);
    gb_init(to);
    gb_str(to, "tokenizer.ggml.model", model);
    copy_array(to, g, "tokenizer.ggml.tokens", FACT_STR);
    copy_array(to, g, "tokenizer.ggml.token_type", FACT_I32);
    copy_array(to, g, more, more_type);
    checkpoint_close(g);
}

static GB_UNUSED checkpoint *copy_finish(gb *b) {
    char path[32];
    gb_open(b, path);
    checkpoint *g = file_open(path);
    gb_clear(b);
    return g;
}

/* The vocabulary of a file under another pre-tokenizer. */
static GB_UNUSED checkpoint *with_pre(const char *path, const char *pre) {
    gb b;
    copy_tokens(&b, path, "gpt2", "tokenizer.ggml.merges", FACT_STR);
    gb_str(&b, "tokenizer.ggml.pre", pre);
    return copy_finish(&b);
}

/* A SentencePiece vocabulary with one more key. */
static GB_UNUSED checkpoint *with_spaces(const char *path, const char *key, bool value) {
    gb b;
    copy_tokens(&b, path, "llama", "tokenizer.ggml.scores", FACT_F32);
    gb_bool(&b, key, value);
    return copy_finish(&b);
}

/* A vocabulary of the 256 bytes (id = byte), then what a test adds. */
typedef struct tiny {
    gb b;
    str token[300];
    int32_t type[300];
    str merge[40];
    size_t n_tokens, n_merges;
    char byte_text[256][3];
    checkpoint *file;
} tiny;

static GB_UNUSED void tiny_init(tiny *v) {
    memset(v, 0, sizeof *v);
    gb_init(&v->b);
    gb_str(&v->b, "tokenizer.ggml.model", "gpt2");
    for (uint32_t c = 0, extra = 256; c < 256; c++) {
        bool plain = (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c != 0xad);
        uint32_t cp = plain ? c : extra++;
        int n = utf8_encode(cp, v->byte_text[c]);
        v->token[c] = (str){v->byte_text[c], (size_t)n};
        v->type[c] = 1;
    }
    v->n_tokens = 256;
}
static GB_UNUSED int32_t tiny_token(tiny *v, const char *text, int32_t type) {
    v->token[v->n_tokens] = str_of(text);
    v->type[v->n_tokens] = type;
    return (int32_t)v->n_tokens++;
}
static GB_UNUSED int32_t tiny_merge(tiny *v, const char *merge, const char *result) {
    v->merge[v->n_merges++] = str_of(merge);
    return tiny_token(v, result, 1);
}
static GB_UNUSED const checkpoint *tiny_finish(tiny *v, const char *pre) {
    char path[32];
    if (pre) gb_str(&v->b, "tokenizer.ggml.pre", pre);
    gb_strs(&v->b, "tokenizer.ggml.tokens", v->token, v->n_tokens);
    gb_ints(&v->b, "tokenizer.ggml.token_type", v->type, v->n_tokens);
    gb_strs(&v->b, "tokenizer.ggml.merges", v->merge, v->n_merges);
    gb_open(&v->b, path);
    return v->file = file_open(path);
}
static GB_UNUSED void tiny_clear(tiny *v) {
    checkpoint_close(v->file);
    gb_clear(&v->b);
}

static GB_UNUSED void refused(const checkpoint *g, status code, const char *field,
                              const char *text) {
    tokenizer *t;
    err e;
    ck_assert_int_eq(tokenizer_open(&t, g, chunks_heap(), &e), code);
    ck_assert_str_eq(e.field, field);
    ck_assert_msg(strstr(e.text, text) != NULL, "\"%s\" is not in \"%s\"", text, e.text);
}

#endif
