/* tokenizer.json with NFC and with WordPiece: the ids of Hugging Face's tokenizers, by
 * tests/golden/make_tokenizer_json_golden.py. */
#include <time.h>

#include "base/utf8.h"
#include "json/in.h"
#include "text/tokenizer/tokenizer.h"
#include "tests/check_main.h"
#include "tests/model/hf_build.h"

static const char config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_"
    "heads\":2,"
    "\"intermediate_size\":8,\"vocab_size\":500,\"max_position_embeddings\":64}";

static const json_t *golden;
static hf_dir dir;
static checkpoint *file;
static tokenizer *tok;
static err e;

/* A folder without tensors that has this vocabulary. */
static void open_kind(const char *kind) {
    char path[128], text[32 << 10];
    snprintf(path, sizeof path, "tests/golden/tokenizer_json/%s.json", kind);
    FILE *f = fopen(path, "rbe");
    ck_assert_ptr_nonnull(f);
    const size_t n = fread(text, 1, sizeof text, f);
    ck_assert(n > 0 && n < sizeof text && fclose(f) == 0);
    hf_dir_make(&dir);
    hf_text(&dir, "config.json", config);
    hf_write(&dir, "tokenizer.json", text, n);
    hf_write(&dir, "model.safetensors", "\2\0\0\0\0\0\0\0{}", 10);
    ck_assert_msg(checkpoint_open(&file, dir.path, &e) == OK, "%s", e.text);
    ck_assert_msg(tokenizer_open(&tok, file, chunks_heap(), &e) == OK, "%s", e.text);
    ck_assert_uint_eq(tokenizer_bytes(tok), tokenizer_plan_bytes(file));
}

static void close_kind(void) {
    tokenizer_close(tok);
    checkpoint_close(file);
    hf_dir_remove(&dir);
}

static void setup(void) {
    golden = json_load_file("tests/golden/tokenizer_json/golden.json", JSON_ALLOW_NUL, NULL);
    ck_assert_ptr_nonnull(golden);
}
static void teardown(void) {
    json_decref((json_t *)golden);
}

static void same_ids(const char *kind, size_t i, str text) {
    const json_t *want = json_array_get(json_object_get(golden, kind), i);
    vec_i32 ids = {0};
    ck_assert_int_eq(tokenizer_encode(tok, text, TOK_PARSE_SPECIAL, &ids, &e), OK);
    ck_assert_msg(ids.n == json_array_size(want), "%s, text %zu: %zu ids, not %zu", kind, i,
                  ids.n, json_array_size(want));
    for (size_t k = 0; k < ids.n; k++)
        ck_assert_msg(ids.v[k] == json_integer_value(json_array_get(want, k)),
                      "%s, text %zu: id %zu is %d", kind, i, k, ids.v[k]);
    vec_i32_clear(&ids);
}

/* Of what has no unknown word, for which there is no space in the text. */
static void same_text(const char *kind, size_t i) {
    char key[32];
    snprintf(key, sizeof key, "%s decoded", kind);
    const json_t *ids = json_array_get(json_object_get(golden, kind), i);
    detok d;
    buf out = {0};
    for (size_t k = 0; k < json_array_size(ids); k++)
        if (json_integer_value(json_array_get(ids, k)) == 1) return;
    detok_init_text(&d, tok, true);
    for (size_t k = 0; k < json_array_size(ids); k++)
        detok_push(&d, (int32_t)json_integer_value(json_array_get(ids, k)), &out);
    detok_finish(&d, &out);
    ck_assert_str_eq(buf_cstr(&out),
                     json_string_value(json_array_get(json_object_get(golden, key), i)));
    buf_clear(&out);
}

static void all_texts(const char *kind, bool decoded) {
    const json_t *texts = json_object_get(golden, "texts");
    open_kind(kind);
    for (size_t i = 0; i < json_array_size(texts); i++) {
        same_ids(kind, i, json_in_text(json_array_get(texts, i)));
        if (decoded) same_text(kind, i);
    }
    close_kind();
}

START_TEST(normal_form_c_gives_the_reference_ids) {
    all_texts("nfc", false);
}
END_TEST

START_TEST(scripts_of_patterns_are_scripts_alone) {
    all_texts("scripts", false);
}
END_TEST

START_TEST(wordpiece_gives_the_reference_ids_and_text) {
    all_texts("uncased", true);
    all_texts("cased", true);
    all_texts("accents", true);
}
END_TEST

START_TEST(wordpiece_is_framed_as_its_template_says) {
    vec_i32 ids = {0};
    open_kind("uncased");
    ck_assert_int_eq(tokenizer_encode(tok, STR("the"), TOK_ADD_SPECIAL, &ids, &e), OK);
    ck_assert_uint_eq(ids.n, 3);
    ck_assert_int_eq(ids.v[0], 2);
    ck_assert_int_eq(ids.v[2], 3);
    vec_i32_clear(&ids);
    close_kind();
}
END_TEST

/* Marks in the wrong order, a letter under each, and bytes that are no UTF-8: linear time, and no byte of
 * what cannot be normalised is lost. */
START_TEST(hostile_text_is_normalised_in_linear_time) {
    enum { N = 1 << 20 };
    static const char *const parts[] = {"\xcc\x81\xcc\xa7", "\x80\x80\x80\x80",
                                        "e\xcc\x81\xcc\xa7", "\xe2\x82\xcc",
                                        "\xe1\x84\x80\xe1\x85\xa1"};
    open_kind("nfc");
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
        const size_t len = strlen(parts[p]), n = N / len;
        char *text = malloc(n * len);
        vec_i32 ids = {0};
        ck_assert_ptr_nonnull(text);
        for (size_t i = 0; i < n; i++) memcpy(text + i * len, parts[p], len);
        const clock_t t0 = clock();
        ck_assert_int_eq(tokenizer_encode(tok, (str){text, n * len}, 0, &ids, &e), OK);
        ck_assert_msg(clock() - t0 < 20 * CLOCKS_PER_SEC, "part %zu", p);
        if (!utf8_valid((str){parts[p], len})) {
            size_t bytes = 0;
            for (size_t i = 0; i < ids.n; i++)
                bytes += tokenizer_piece(tok, ids.v[i], true).len;
            ck_assert_uint_eq(bytes, n * len);
        }
        vec_i32_clear(&ids);
        free(text);
    }
    close_kind();
}
END_TEST

int main(void) {
    Suite *s = suite_create("tokenizer_json");
    TCase *t = check_case(s, "tokenizer_json");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, normal_form_c_gives_the_reference_ids);
    tcase_add_test(t, scripts_of_patterns_are_scripts_alone);
    tcase_add_test(t, wordpiece_gives_the_reference_ids_and_text);
    tcase_add_test(t, wordpiece_is_framed_as_its_template_says);
    tcase_add_test(t, hostile_text_is_normalised_in_linear_time);
    return check_run(s);
}
