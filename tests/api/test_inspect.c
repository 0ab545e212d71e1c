/* vramd inspect: every value is shown as it is, shortened where asked, and never as bytes that
 * a terminal would obey. */
#include "api/inspect.h"

#include "json/in.h"
#include "tests/check_main.h"
#include "tests/model/gguf_build.h"

static gb b;
static gguf *g;

/* One value as inspect_value writes it. */
static void shows(const char *key, uint64_t n, uint64_t text_bytes, const char *want) {
    buf text = {0};
    const gguf_kv *kv = gguf_find(g, key);
    ck_assert_ptr_nonnull(kv);
    inspect_value(&text, kv, n, text_bytes);
    ck_assert_str_eq(buf_cstr(&text), want);
    buf_clear(&text);
}

static void setup(void) {
    gb_init(&b);
}
static void teardown(void) {
    gguf_close(g);
    gb_clear(&b);
}

/* Opens the file that the test has built. */
static void open_built(void) {
    char path[64];
    err e;
    gb_open(&b, path);
    ck_assert_msg(gguf_open(&g, path, &e) == OK, "%s", e.text);
}

START_TEST(numbers_are_shown_in_full) {
    gb_raw(&b, "u64", GGUF_U64, &(uint64_t){UINT64_MAX}, 8);
    gb_raw(&b, "i64", GGUF_I64, &(int64_t){INT64_MIN}, 8);
    gb_raw(&b, "i8", GGUF_I8, &(int8_t){-7}, 1);
    gb_raw(&b, "f64", GGUF_F64, &(double){0.1}, 8);
    gb_float(&b, "f32", 0.5f);
    gb_float(&b, "infinite", INFINITY);
    gb_bool(&b, "bool", true);
    gb_array(&b, "flags", GGUF_BOOL, 2, (unsigned char[]){0, 1}, 2);
    open_built();
    shows("u64", 4, 99, "18446744073709551615");
    shows("i64", 4, 99, "-9223372036854775808");
    shows("i8", 4, 99, "-7");
    shows("f64", 4, 99, "0.10000000000000001");
    shows("f32", 4, 99, "0.5");
    shows("infinite", 4, 99, "null");
    shows("bool", 4, 99, "true");
    shows("flags", 4, 99, "[false, true]");
}
END_TEST

START_TEST(long_arrays_and_texts_are_shortened_between_characters) {
    gb_ints(&b, "ints", (int32_t[]){1, -2, 3, 4, 5}, 5);
    gb_str(&b, "text", "abc\u00e4def");
    gb_strs(&b, "texts", (str[]){STR("0123456789"), STR("x"), STR("y")}, 3);
    open_built();
    shows("ints", 2, 9, "[1, -2, ... 5 elements]");
    shows("ints", 5, 9, "[1, -2, 3, 4, 5]");
    shows("text", 4, 4, "\"abc\" ... 8 bytes");
    shows("text", 4, 5, "\"abc\u00e4\" ... 8 bytes");
    shows("text", 4, 8, "\"abc\u00e4def\"");
    shows("texts", 2, 4, "[\"0123\" ... 10 bytes, \"x\", ... 3 elements]");
}
END_TEST

START_TEST(what_a_terminal_would_obey_is_escaped) {
    gb_str(&b, "esc", "a\033[31m\x7f\n");
    gb_str(&b, "c1",
           "\xc2\x9b"
           "31m");
    gb_str(&b, "turned", "\u202egnp.exe");
    gb_strn(&b, "bytes", (str){"\xff\0\x80", 3});
    open_built();
    shows("esc", 4, 99, "\"a\\u001b[31m\\u007f\\n\"");
    shows("c1", 4, 99, "\"\\u009b31m\"");
    shows("turned", 4, 99, "\"\\u202egnp.exe\"");
    shows("bytes", 4, 99, "\"\ufffd\\u0000\ufffd\"");
}
END_TEST

START_TEST(the_json_parses_and_has_everything) {
    arena a;
    buf out = {0};
    const json_t *o;
    err e;
    gb_str(&b, "general.architecture", "llama");
    gb_ints(&b, "ints", (int32_t[]){1, 2, 3, 4, 5, 6}, 6);
    gb_str(&b, "bad", "\xff\033");
    gb_tensor(&b, "m", DT_Q8_0, 2, (uint64_t[]){64, 3}, NULL);
    gb_tensor(&b, "v", DT_F32, 1, (uint64_t[]){5}, NULL);
    open_built();
    inspect_json(&out, g);
    ck_assert(!out.failed);
    arena_init(&a, chunks_heap(), 0);
    ck_assert_msg(json_in_parse(&o, &a, buf_str(&out), &e) == OK, "%s", e.text);
    const json_t *meta = json_object_get(o, "metadata");
    ck_assert_uint_eq(json_object_size(meta), 3);
    ck_assert_uint_eq(json_array_size(json_object_get(meta, "ints")), 6);
    ck_assert_str_eq(json_string_value(json_object_get(meta, "bad")), "\ufffd\033");
    const json_t *m = json_array_get(json_object_get(o, "tensors"), 0);
    ck_assert_str_eq(json_string_value(json_object_get(m, "name")), "m");
    ck_assert_str_eq(json_string_value(json_object_get(m, "type")), "Q8_0");
    ck_assert_int_eq(json_integer_value(json_object_get(m, "bytes")), 3 * 2 * 34);
    const json_t *v = json_array_get(json_object_get(o, "tensors"), 1);
    ck_assert_uint_eq(json_array_size(json_object_get(v, "shape")), 1);
    ck_assert_int_eq(json_integer_value(json_object_get(v, "bytes")), 20);
    arena_clear(&a);
    buf_clear(&out);
}
END_TEST

int main(void) {
    Suite *s = suite_create("inspect");
    TCase *t = check_case(s, "inspect");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, numbers_are_shown_in_full);
    tcase_add_test(t, long_arrays_and_texts_are_shortened_between_characters);
    tcase_add_test(t, what_a_terminal_would_obey_is_escaped);
    tcase_add_test(t, the_json_parses_and_has_everything);
    return check_run(s);
}
