/* SentencePiece BPE: the rules of its merges, spaces, bytes and special tokens, each in a small
 * vocabulary; time and memory; broken files. Against SentencePiece itself:
 * test_tokenizer_golden.c. */
#include "tests/text/tokenizer_rig.h"

enum { UNK = 0, BOS = 1, EOS = 2, BYTE = 3 /* + the byte */ };

/* Unknown, BOS, EOS, the 256 bytes, then what a test adds. */
typedef struct spm {
    gb b;
    str token[300];
    int32_t type[300];
    float score[300];
    size_t n;
    char byte_text[256][8];
    checkpoint *file;
} spm;

static int32_t spm_token(spm *v, const char *text, int32_t type, float score) {
    v->token[v->n] = str_of(text);
    v->type[v->n] = type;
    v->score[v->n] = score;
    return (int32_t)v->n++;
}

static void spm_init(spm *v) {
    memset(v, 0, sizeof *v);
    gb_init(&v->b);
    gb_str(&v->b, "tokenizer.ggml.model", "llama");
    spm_token(v, "<unk>", 2, 0), spm_token(v, "<s>", 3, 0), spm_token(v, "</s>", 3, 0);
    for (unsigned i = 0; i < 256; i++) {
        snprintf(v->byte_text[i], sizeof v->byte_text[i], "<0x%02X>", i);
        spm_token(v, v->byte_text[i], 6, 0);
    }
}

static const checkpoint *spm_finish(spm *v) {
    char path[32];
    gb_strs(&v->b, "tokenizer.ggml.tokens", v->token, v->n);
    gb_ints(&v->b, "tokenizer.ggml.token_type", v->type, v->n);
    gb_floats(&v->b, "tokenizer.ggml.scores", v->score, v->n);
    gb_open(&v->b, path);
    return v->file = file_open(path);
}

static void spm_clear(spm *v) {
    checkpoint_close(v->file);
    gb_clear(&v->b);
}

/* Decoded as one text. */
static void assert_text(const tokenizer *t, bool with_special, const char *want, size_t n,
                        const int32_t *ids) {
    buf out = {0};
    detok d;
    detok_init_text(&d, t, with_special);
    for (size_t i = 0; i < n; i++) detok_push(&d, ids[i], &out);
    detok_finish(&d, &out);
    ck_assert_str_eq(buf_cstr(&out), want);
    buf_clear(&out);
}
#define ASSERT_TEXT(t, special, want, ...)                                                     \
    assert_text(t, special, want, sizeof((int32_t[]){__VA_ARGS__}) / 4,                        \
                (int32_t[]){__VA_ARGS__})

/* ---- merges ---- */

START_TEST(the_highest_score_merges_first_and_of_equals_the_leftmost) {
    spm v;
    spm_init(&v);
    gb_bool(&v.b, "tokenizer.ggml.add_space_prefix", false);
    int32_t a = spm_token(&v, "a", 1, -10), b = spm_token(&v, "b", 1, -10);
    int32_t ab = spm_token(&v, "ab", 1, -2), ba = spm_token(&v, "ba", 1, -1);
    int32_t aa = spm_token(&v, "aa", 1, -1);
    tokenizer *t = tok_open(spm_finish(&v));
    ASSERT_IDS(t, STR("aba"), 0, a, ba);
    ASSERT_IDS(t, STR("ab"), 0, ab);
    ASSERT_IDS(t, STR("aaa"), 0, aa, a);
    ASSERT_IDS(t, STR("baa"), 0, ba, a);
    ASSERT_IDS(t, STR("bb"), 0, b, b);
    tokenizer_close(t);
    spm_clear(&v);
}
END_TEST

START_TEST(a_token_that_no_merges_reach_is_not_found_by_its_text) {
    spm v;
    spm_init(&v);
    gb_bool(&v.b, "tokenizer.ggml.add_space_prefix", false);
    int32_t a = spm_token(&v, "a", 1, -9), b = spm_token(&v, "b", 1, -9);
    spm_token(&v, "abab", 1, 0);
    tokenizer *t = tok_open(spm_finish(&v));
    ASSERT_IDS(t, STR("abab"), 0, a, b, a, b);
    tokenizer_close(t);
    spm_clear(&v);
}
END_TEST

START_TEST(control_and_byte_tokens_are_never_made_from_characters) {
    spm v;
    spm_init(&v);
    gb_bool(&v.b, "tokenizer.ggml.add_space_prefix", false);
    int32_t lt = spm_token(&v, "<", 1, -9), s = spm_token(&v, "s", 1, -9);
    int32_t gt = spm_token(&v, ">", 1, -9), lts = spm_token(&v, "<s", 1, -1);
    tokenizer *t = tok_open(spm_finish(&v));
    ASSERT_IDS(t, STR("<s>"), 0, lts, gt);
    ASSERT_IDS(t, STR("<s>"), TOK_PARSE_SPECIAL, BOS);
    ASSERT_IDS(t, STR("s<"), 0, s, lt);
    ck_assert_int_eq(id_of(t, "<s>"), BOS);
    tokenizer_close(t);
    spm_clear(&v);
}
END_TEST

/* ---- spaces and bytes ---- */

START_TEST(a_space_goes_before_the_text_and_after_each_special_token_and_comes_off_again) {
    spm v;
    spm_init(&v);
    int32_t sp = spm_token(&v, "\u2581", 1, -5), a = spm_token(&v, "a", 1, -9);
    int32_t spa = spm_token(&v, "\u2581a", 1, -1), user = spm_token(&v, "[u]", 4, 0);
    tokenizer *t = tok_open(spm_finish(&v));
    ASSERT_IDS(t, STR("a"), TOK_ADD_SPECIAL, BOS, spa); /* BOS without being told */
    /* One, also where the text begins with it; text that is not parsed has none. */
    ck_assert(tokenizer_adds_bos(t));
    ASSERT_IDS(t, STR("<s>a"), TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, BOS, spa);
    ASSERT_IDS(t, STR("<s><s>"), TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, BOS, BOS);
    ASSERT_IDS(t, STR("<s>"), TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, BOS);
    ASSERT_IDS(t, STR(" a a"), 0, sp, spa, spa);
    ASSERT_IDS(t, STR("a[u]a</s>a"), TOK_PARSE_SPECIAL, spa, user, spa, EOS, spa);
    vec_i32 none = {0};
    encode_into(t, STR(""), 0, &none);
    ck_assert_uint_eq(none.n, 0);
    vec_i32_clear(&none);
    ASSERT_TEXT(t, false, "a", BOS, spa);
    ASSERT_TEXT(t, true, "<s>a", BOS, spa);
    ASSERT_TEXT(t, true, " a a", sp, spa, spa);
    ASSERT_TEXT(t, true, "a[u]a</s>a", spa, user, spa, EOS, spa);
    ASSERT_TEXT(t, true, "aa", a, a);
    buf out = {0}; /* what goes on from a prompt keeps its spaces */
    detok d;
    detok_init(&d, t, false);
    detok_push(&d, spa, &out);
    ck_assert_str_eq(buf_cstr(&out), " a");
    buf_clear(&out);
    tokenizer_close(t);
    spm_clear(&v);
}
END_TEST

START_TEST(without_the_prefix_nothing_is_put_before_and_nothing_taken_off) {
    spm v;
    spm_init(&v);
    gb_bool(&v.b, "tokenizer.ggml.add_space_prefix", false);
    int32_t sp = spm_token(&v, "\u2581", 1, -5), a = spm_token(&v, "a", 1, -9);
    /* Gemma's runs of spaces: user-defined, written with spaces in the file. */
    int32_t two = spm_token(&v, "  ", 4, 0);
    tokenizer *t = tok_open(spm_finish(&v));
    ASSERT_IDS(t, STR("a a  a"), 0, a, sp, a, two, a);
    /* U+2581 is a space, but not a run of them */
    ASSERT_IDS(t, STR("\u2581\u2581"), 0, sp, sp);
    ASSERT_TEXT(t, true, " a", sp, a);
    tokenizer_close(t);
    spm_clear(&v);
}
END_TEST

START_TEST(what_has_no_token_becomes_bytes_and_bytes_become_characters_again) {
    spm v;
    spm_init(&v);
    int32_t sp = spm_token(&v, "\u2581", 1, -5), a = spm_token(&v, "a", 1, -9);
    tokenizer *t = tok_open(spm_finish(&v));
    ASSERT_IDS(t, STR("\u00e9a\n"), 0, sp, BYTE + 0xc3, BYTE + 0xa9, a, BYTE + '\n');
    ASSERT_IDS(t,
               STR("\xc3"
                   "a\xff"),
               0, sp, BYTE + 0xc3, a, BYTE + 0xff);
    ASSERT_TEXT(t, true, "\u00e9a\n", sp, BYTE + 0xc3, BYTE + 0xa9, a, BYTE + '\n');
    buf out = {0};
    detok d;
    detok_init(&d, t, false);
    detok_push(&d, BYTE + 0xc3, &out);
    ck_assert_uint_eq(out.len, 0); /* held back until it is a character */
    detok_push(&d, BYTE + 0xa9, &out);
    ck_assert_str_eq(buf_cstr(&out), "\u00e9");
    buf_clear(&out);
    tokenizer_close(t);
    spm_clear(&v);
}
END_TEST

START_TEST(without_tokens_for_bytes_a_character_becomes_the_unknown_token_once) {
    spm v;
    spm_init(&v);
    for (int i = 0; i < 256; i++) v.type[BYTE + i] = 5; /* unused: no bytes */
    gb_bool(&v.b, "tokenizer.ggml.add_space_prefix", false);
    int32_t a = spm_token(&v, "a", 1, -9);
    tokenizer *t = tok_open(spm_finish(&v));
    ASSERT_IDS(t, STR("a\u4e2da"), 0, a, UNK, a);
    tokenizer_close(t);
    spm_clear(&v);
}
END_TEST

START_TEST(phi_3_drops_white_space_after_its_tokens_but_after_bos) {
    spm v;
    spm_init(&v);
    gb_str(&v.b, "general.name", "Some Phi3 mini");
    int32_t sp = spm_token(&v, "\u2581", 1, -5), a = spm_token(&v, "a", 1, -9);
    int32_t user = spm_token(&v, "<|user|>", 3, 0);
    tokenizer *t = tok_open(spm_finish(&v));
    ASSERT_IDS(t, STR("<|user|> \n\u3000a"), TOK_PARSE_SPECIAL, user, sp, a);
    ASSERT_IDS(t, STR("<|user|> \n"), TOK_PARSE_SPECIAL, user);
    ASSERT_IDS(t, STR("<s> a"), TOK_PARSE_SPECIAL, BOS, sp, sp, a);
    tokenizer_close(t);
    spm_clear(&v);
}
END_TEST

START_TEST(a_word_of_html_does_not_end_the_generation) {
    spm v;
    spm_init(&v);
    v.type[EOS] = 4; /* as in Gemma's files, where it is "struck through" */
    gb_int(&v.b, "tokenizer.ggml.eos_token_id", BOS);
    int32_t turn = spm_token(&v, "<end_of_turn>", 3, 0);
    tokenizer *t = tok_open(spm_finish(&v));
    ck_assert(!tokenizer_is_eog(t, EOS));
    ck_assert(tokenizer_is_eog(t, BOS) && tokenizer_is_eog(t, turn));
    tokenizer_close(t);
    spm_clear(&v);
}
END_TEST

/* ---- time and memory ---- */

START_TEST(a_megabyte_of_anything_is_not_quadratic_and_comes_back) {
    const char *units[] = {"a",      " ",      "\n",       "ab", "\u4e2d",
                           "\u00a0", "\xff",   "\xe2\x82", "e ", "the",
                           "</s>",   "\u00e9", "=",        "1",  "The quick brown fox"};
    for (int plain = 0; plain < 2; plain++) {
        checkpoint *g =
            with_spaces(GOLDEN_DIR "spm.gguf", "tokenizer.ggml.add_space_prefix", !plain);
        tokenizer *t = tok_open(g);
        checkpoint_close(g);
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
            buf text = {0}, back = {0};
            vec_i32 ids = {0};
            while (text.len < 1 << 20) buf_add(&text, str_of(units[i]));
            uint64_t start = cpu_us();
            encode_into(t, buf_str(&text), TOK_PARSE_SPECIAL, &ids);
            uint64_t took = cpu_us() - start;
            /* Quadratic would be an hour. */
            ck_assert_msg(took < 60000000, "\"%s\": %llu us", units[i],
                          (unsigned long long)took);
            detok d;
            detok_init_text(&d, t, true);
            for (size_t k = 0; k < ids.n; k++) buf_add(&back, detok_bytes(&d, ids.v[k]));
            ck_assert(str_eq(buf_str(&back), buf_str(&text)));
            buf_clear(&text);
            buf_clear(&back);
            vec_i32_clear(&ids);
        }
        tokenizer_close(t);
    }
}
END_TEST

START_TEST(the_plan_is_what_open_takes) {
    checkpoint *g = file_open(GOLDEN_DIR "spm.gguf");
    tokenizer *t = tok_open(g);
    ck_assert_uint_gt(tokenizer_plan_bytes(g), 0);
    ck_assert_uint_eq(tokenizer_bytes(t), tokenizer_plan_bytes(g));
    tokenizer_close(t);
    checkpoint_close(g);
}
END_TEST

/* ---- broken files ---- */

START_TEST(missing_or_mismatched_scores_are_named) {
    spm v;
    char path[32];
    for (size_t n = 0; n < 2; n++) {
        spm_init(&v);
        gb_strs(&v.b, "tokenizer.ggml.tokens", v.token, v.n);
        if (n) gb_floats(&v.b, "tokenizer.ggml.scores", v.score, n);
        gb_open(&v.b, path);
        v.file = file_open(path);
        refused(v.file, ERR_FORMAT, "tokenizer.ggml.scores",
                n ? "1 scores for 259" : "no tokenizer.ggml.scores");
        spm_clear(&v);
    }
}
END_TEST

START_TEST(an_id_out_of_range_is_as_good_as_none) {
    spm v;
    spm_init(&v);
    gb_int(&v.b, "tokenizer.ggml.unknown_token_id", 259);
    gb_int(&v.b, "tokenizer.ggml.eos_token_id", 70000);
    tokenizer *t = tok_open(spm_finish(&v));
    ck_assert_int_eq(tokenizer_eos(t), EOS); /* as where the file says nothing */
    tokenizer_close(t);
    spm_clear(&v);
}
END_TEST

START_TEST(scores_that_are_no_numbers_and_odd_tokens_do_no_harm) {
    spm v;
    spm_init(&v);
    gb_bool(&v.b, "tokenizer.ggml.add_space_prefix", false);
    int32_t a = spm_token(&v, "a", 1, NAN), aa = spm_token(&v, "aa", 1, NAN);
    int32_t b = spm_token(&v, "b", 1, INFINITY), bb = spm_token(&v, "bb", 1, -INFINITY);
    spm_token(&v, "", 1, 0), spm_token(&v, "", 3, 0), spm_token(&v, "<0xZZ>", 6, 0);
    tokenizer *t = tok_open(spm_finish(&v));
    ASSERT_IDS(t, STR("aaabbb"), 0, aa, a, bb, b);
    tokenizer_close(t);
    spm_clear(&v);
}
END_TEST

int main(void) {
    Suite *s = suite_create("tokenizer_spm");
    TCase *t = check_case(s, "tokenizer_spm");
    tcase_add_test(t, the_highest_score_merges_first_and_of_equals_the_leftmost);
    tcase_add_test(t, a_token_that_no_merges_reach_is_not_found_by_its_text);
    tcase_add_test(t, control_and_byte_tokens_are_never_made_from_characters);
    tcase_add_test(
        t, a_space_goes_before_the_text_and_after_each_special_token_and_comes_off_again);
    tcase_add_test(t, without_the_prefix_nothing_is_put_before_and_nothing_taken_off);
    tcase_add_test(t, what_has_no_token_becomes_bytes_and_bytes_become_characters_again);
    tcase_add_test(t, without_tokens_for_bytes_a_character_becomes_the_unknown_token_once);
    tcase_add_test(t, phi_3_drops_white_space_after_its_tokens_but_after_bos);
    tcase_add_test(t, a_word_of_html_does_not_end_the_generation);
    tcase_add_test(t, a_megabyte_of_anything_is_not_quadratic_and_comes_back);
    tcase_add_test(t, the_plan_is_what_open_takes);
    tcase_add_test(t, missing_or_mismatched_scores_are_named);
    tcase_add_test(t, an_id_out_of_range_is_as_good_as_none);
    tcase_add_test(t, scores_that_are_no_numbers_and_odd_tokens_do_no_harm);
    return check_run(s);
}
