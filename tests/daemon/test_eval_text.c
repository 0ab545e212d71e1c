/* Texts cut into windows, with and without a BOS. */
#include "daemon/eval/eval_text.h"

#include <stdlib.h>
#include <string.h>

#include "tests/check_main.h"

static const char spm[] = "tests/golden/tokenizer/spm.gguf",
                  bpe[] = "tests/golden/tokenizer/mixed.gguf";

typedef struct rig {
    checkpoint *file;
    tokenizer *tok;
    eval_text cut;
} rig;

static void rig_open(rig *r, const char *path) {
    err e;
    *r = (rig){0};
    ck_assert_msg(checkpoint_open(&r->file, path, &e) == OK, "%s", e.text);
    ck_assert_msg(tokenizer_open(&r->tok, r->file, chunks_heap(), &e) == OK, "%s", e.text);
}

static void rig_close(rig *r) {
    eval_text_clear(&r->cut);
    tokenizer_close(r->tok);
    checkpoint_close(r->file);
}

static void rig_cut(rig *r, str text, uint32_t context, uint64_t most) {
    err e;
    eval_text_clear(&r->cut);
    ck_assert_msg(eval_text_cut(&r->cut, r->tok, text, context, most, &e) == OK, "%s", e.text);
}

/* Windows follow each other without a gap, and each token of the text is in one of them. */
static void check_windows(rig *r, str text, uint32_t context, uint64_t n) {
    const eval_text *t = &r->cut;
    const uint32_t bos = tokenizer_adds_bos(r->tok);
    vec_i32 ids;
    err e;
    uint64_t seen = 0, scored = 0;
    vec_i32_init(&ids, NULL);
    ck_assert(tokenizer_encode(r->tok, text, 0, &ids, &e) == OK && ids.n >= n);
    ck_assert_uint_eq(t->n_tokens, n);
    for (uint32_t w = 0; w < t->n_windows; w++) {
        const int32_t *first;
        const uint32_t len = eval_window(t, w, &first);
        ck_assert(len >= 2 && len <= context && (len == context || w + 1 == t->n_windows));
        if (bos) ck_assert_int_eq(first[0], tokenizer_bos(r->tok));
        for (uint32_t i = bos; i < len; i++) ck_assert_int_eq(first[i], ids.v[seen++]);
        for (uint32_t i = 1; i < len; i++) ck_assert_uint_eq(eval_index(t, w, i), scored++);
    }
    ck_assert(seen == n && scored == t->n_scored);
    vec_i32_clear(&ids);
}

static const char words[] =
    "The sea is wide, and the sea is deep; nobody has seen all of it, and "
    "many have seen none of it. What is a sea to those who live by a river?";
static const str text = {words, sizeof words - 1};

START_TEST(windows_cover_the_text_once) {
    const char *const path[] = {spm, bpe};
    for (int i = 0; i < 2; i++) {
        rig r;
        vec_i32 ids;
        err e;
        rig_open(&r, path[i]);
        vec_i32_init(&ids, NULL);
        ck_assert(tokenizer_encode(r.tok, text, 0, &ids, &e) == OK);
        ck_assert(tokenizer_adds_bos(r.tok) == (i == 0)); /* both kinds are tried */
        for (uint32_t context = 8; context < 40; context++)
            for (uint64_t n = 2; n <= ids.n; n++) {
                rig_cut(&r, text, context, n);
                /* Without a BOS a last window of one token would predict none. */
                const bool lone = i == 1 && n % context == 1;
                check_windows(&r, text, context, lone ? n - 1 : n);
            }
        rig_cut(&r, text, 4096, 0);
        ck_assert(r.cut.n_windows == 1 && r.cut.n_tokens == ids.n);
        vec_i32_clear(&ids);
        rig_close(&r);
    }
}
END_TEST

START_TEST(hashes_tell_texts_and_windows_apart) {
    rig r;
    uint64_t whole[2], tokens[2];
    rig_open(&r, spm);
    rig_cut(&r, text, 16, 0);
    memcpy(whole, r.cut.text_hash, sizeof whole);
    memcpy(tokens, r.cut.tokens_hash, sizeof tokens);
    rig_cut(&r, text, 16, 20);
    ck_assert_mem_eq(whole, r.cut.text_hash, sizeof whole);
    ck_assert(memcmp(tokens, r.cut.tokens_hash, sizeof tokens) != 0);
    rig_cut(&r, text, 17, 0);
    ck_assert(memcmp(tokens, r.cut.tokens_hash, sizeof tokens) != 0);
    rig_cut(&r, (str){text.ptr, text.len - 1}, 16, 0);
    ck_assert(memcmp(whole, r.cut.text_hash, sizeof whole) != 0);
    rig_close(&r);
}
END_TEST

START_TEST(special_tokens_of_a_text_are_characters) {
    rig r;
    rig_open(&r, bpe);
    rig_cut(&r, STR("<|im_end|>"), 64, 0);
    ck_assert_uint_gt(r.cut.n_tokens, 3);
    rig_close(&r);
}
END_TEST

CHECK_MAIN("eval texts", windows_cover_the_text_once, hashes_tell_texts_and_windows_apart,
           special_tokens_of_a_text_are_characters)
