/* JSON out (escapes, numbers, bytes that are no text) and in (types, ranges, arenas). */
#include <math.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "json/in.h"
#include "json/out.h"
#include "tests/check_main.h"
#include "tests/json.h"

static void assert_out(buf *b, const char *want) {
    ck_assert_str_eq(buf_cstr(b), want);
    b->len = 0;
}

START_TEST(strings_are_escaped_and_read_back_the_same) {
    buf b;
    buf_init(&b, NULL);
    json_str(&b, STR("plain"));
    assert_out(&b, "\"plain\"");
    json_str(&b, (str){NULL, 0});
    assert_out(&b, "\"\"");
    json_str(&b, STR("a\"b\\c\n\t\r\b\f\x01\x7f/"));
    assert_out(&b, "\"a\\\"b\\\\c\\n\\t\\r\\b\\f\\u0001\\u007f/\"");
    json_str(&b, STR("\xc3\xa9\xf0\x9f\x98\x80"));
    assert_out(&b, "\"\xc3\xa9\xf0\x9f\x98\x80\"");
    /* Every byte below 0x80, through an independent parser. */
    char all[128];
    for (int i = 0; i < 128; i++) all[i] = (char)i;
    json_str(&b, (str){all, 128});
    json_t *v = json_loadb(b.ptr, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    ck_assert(v && json_string_length(v) == 128 && memcmp(json_string_value(v), all, 128) == 0);
    json_decref(v);
    buf_clear(&b);
}
END_TEST

START_TEST(bytes_that_are_no_text_become_replacement_characters) {
    buf b;
    buf_init(&b, NULL);
    json_str_lossy(&b, STR("a\xff\"\xe2\x82"));
    assert_out(&b, "\"a\xef\xbf\xbd\\\"\xef\xbf\xbd\"");
    json_str_lossy(&b, (str){NULL, 0});
    assert_out(&b, "\"\"");
    unsigned seed = 3;
    for (int round = 0; round < 3000; round++) {
        char raw[24];
        size_t n = (size_t)rand_r(&seed) % sizeof raw;
        for (size_t i = 0; i < n; i++) raw[i] = (char)(rand_r(&seed) >> 7);
        b.len = 0;
        json_str_lossy(&b, (str){raw, n});
        json_t *v = json_loadb(b.ptr, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        ck_assert(v != NULL);
        json_decref(v);
    }
    buf_clear(&b);
}
END_TEST

/* Each logprob of a stream is written so, and nothing of an arena comes back before its end. */
START_TEST(bytes_that_are_no_text_leave_nothing_in_the_arena) {
    arena a;
    buf b;
    char raw[1000];
    memset(raw, 0xc3, sizeof raw);
    arena_init(&a, chunks_heap(), 0);
    buf_init(&b, &a);
    json_str_lossy(&b, (str){raw, sizeof raw});
    ck_assert_uint_eq(b.len, 2 + 3 * sizeof raw);
    const size_t before = a.total;
    for (int i = 0; i < 1000; i++) {
        b.len = 0;
        json_str_lossy(&b, (str){raw, sizeof raw});
    }
    ck_assert_uint_eq(a.total, before);
    arena_clear(&a);
}
END_TEST

START_TEST(numbers) {
    buf b;
    buf_init(&b, NULL);
    json_u64(&b, 0);
    assert_out(&b, "0");
    json_u64(&b, UINT64_MAX);
    assert_out(&b, "18446744073709551615");
    json_i64(&b, INT64_MIN);
    assert_out(&b, "-9223372036854775808");
    static const struct {
        float v;
        const char *want;
    } t[] = {{0, "0.0"},
             {-0.0f, "0.0"},
             {-0.5f, "-0.5"},
             {-12.25f, "-12.25"},
             {-INFINITY, "-9999.0"},
             {NAN, "-9999.0"},
             {-1e-9f, "0.0"},
             {-0.00000001f, "-0.00000001"},
             {1e-7f, "0.0"},
             {-20000, "-9999.0"}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        json_logprob(&b, t[i].v);
        assert_out(&b, t[i].want);
    }
    unsigned seed = 5;
    for (int i = 0; i < 20000; i++) {
        float v = -(float)rand_r(&seed) / (float)RAND_MAX * powf(10, (float)(i % 9) - 5);
        json_logprob(&b, v);
        ck_assert_double_le(fabs(strtod(buf_cstr(&b), NULL) - (double)v), 0.51e-8);
        b.len = 0;
    }
    buf_clear(&b);
}
END_TEST

static const json_t *parse(arena *a, const char *text) {
    const json_t *v;
    err e;
    ck_assert_msg(json_in_parse(&v, a, str_of(text), &e) == OK, "%s", e.text);
    return v;
}

START_TEST(a_parsed_document_lives_and_dies_with_its_arena) {
    arena a;
    const json_t *v;
    err e;
    arena_init(&a, chunks_heap(), 64 * 1024);
    v = parse(&a, "{\"a\":[1,2.5,\"x\\u0000y\",null,true]}");
    ck_assert_uint_eq(json_in_text(json_array_get(json_object_get(v, "a"), 2)).len, 3);
    ck_assert_uint_gt(a.total, 0);
    v = parse(&a, "\xef\xbb\xbf{\"b\":1}"); /* with a byte order mark */
    ck_assert(json_object_get(v, "b") != NULL);
    /* Malformed, empty, broken UTF-8, too deep: all refused with a place. */
    static const char *const bad[] = {"{",
                                      "",
                                      "nul",
                                      "{\"a\":1}x",
                                      "{\"a\":\"\xff\"}",
                                      "{\"a\":\"\\ud800\"}",
                                      "{\"a\":1e999.5}",
                                      "{\"a\":0000000000000000000000000000001}",
                                      "{\"a\":1e999,\"b\":2e}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_msg(json_in_parse(&v, &a, str_of(bad[i]), &e) == ERR_INVALID, "%s", bad[i]);
        ck_assert(e.text[0] != '\0');
    }
    char deep[5000];
    memset(deep, '[', sizeof deep);
    arena roomy;
    arena_init(&roomy, chunks_heap(), 0);
    ck_assert(json_in_parse(&v, &roomy, (str){deep, sizeof deep}, &e) == ERR_INVALID);
    arena_clear(&roomy);
    /* Too big for the arena, within a string and between values. */
    size_t n = 200000;
    char *big = malloc(n);
    memset(big, 'x', n);
    memcpy(big, "[\"", 2), memcpy(big + n - 2, "\"]", 2);
    ck_assert_int_eq(json_in_parse(&v, &a, (str){big, n}, &e), ERR_NO_MEMORY);
    for (size_t i = 1; i < n - 1; i++) big[i] = i % 2 ? '1' : ',';
    big[n - 2] = '1';
    ck_assert_int_eq(json_in_parse(&v, &a, (str){big, n}, &e), ERR_NO_MEMORY);
    free(big);
    arena_clear(&a);
    /* And jansson works as ever outside. */
    json_t *o = json_pack("{s:i}", "k", 1);
    ck_assert(o != NULL);
    json_decref(o);
}
END_TEST

/* jansson takes a string piece by piece, and its buffer twice as large each time. */
START_TEST(wherever_memory_ends_a_document_is_whole_or_refused) {
    enum { STRING = 300000 };
    char *text = malloc(STRING + 64);
    int n = sprintf(text, "{\"a\":[1,{\"b\":\"c\"}],\"prompt\":\"");
    memset(text + n, 'x', STRING);
    strcpy(text + n + STRING, "\"}");
    unsigned n_whole = 0, n_refused = 0;
    for (size_t limit = 512; limit < 8 * STRING; limit += limit / 16) {
        arena a;
        const json_t *v;
        err e;
        arena_init(&a, chunks_heap(), limit);
        status s = json_in_parse(&v, &a, str_of(text), &e);
        if (s == OK) {
            n_whole++;
            ck_assert_uint_eq(json_in_text(json_object_get(v, "prompt")).len, STRING);
        } else {
            n_refused++;
            ck_assert_int_eq(s, ERR_NO_MEMORY);
        }
        arena_clear(&a);
    }
    ck_assert(n_whole > 0 && n_refused > 0);
    free(text);
}
END_TEST

START_TEST(names_and_numbers_of_no_use_leave_the_rest_readable) {
    arena a;
    err e;
    arena_init(&a, chunks_heap(), 0);
    const json_t *o =
        parse(&a, "{\"k\\u0000y\":1,\"big\":123456789012345678901234567890,\"seed\" : "
                  "18446744073709551615,\"huge\":[1e400,-1.5E+4000],\"esc\\\\u0000\":2,\"low\":"
                  "-9223372036854775808,\"s\":\"a\\u0000:1e999\",\"x\":5}");
    int64_t i = 0;
    double d = 0;
    ck_assert(json_in_int(o, "x", 0, 9, &i, &e) == OK && i == 5);
    ck_assert_uint_eq(json_in_text(json_object_get(o, "s")).len, 8);
    ck_assert(json_in_int(o, "low", INT64_MIN, 0, &i, &e) == OK && i == INT64_MIN);
    ck_assert_ptr_nonnull(json_object_get(o, "k\xef\xbf\xbdy"));
    ck_assert_ptr_nonnull(json_object_get(o, "esc\\u0000"));
    ck_assert(json_in_int(o, "seed", INT64_MIN, INT64_MAX, &i, &e) == ERR_INVALID);
    ck_assert_str_eq(e.field, "seed");
    ck_assert_ptr_nonnull(strstr(e.text, "1.8446744074"));
    ck_assert(json_in_int(o, "big", INT64_MIN, INT64_MAX, &i, &e) == ERR_INVALID);
    const json_t *huge = json_object_get(o, "huge");
    ck_assert(json_number_value(json_array_get(huge, 0)) > 1e98);
    ck_assert(json_number_value(json_array_get(huge, 1)) < -1e98);
    ck_assert(json_in_real(o, "big", 0, 100, &d, &e) == ERR_INVALID);
    arena_clear(&a);
}
END_TEST

START_TEST(getters_name_the_field) {
    arena a;
    err e;
    arena_init(&a, chunks_heap(), 0);
    const json_t *o =
        parse(&a, JSON({"n":null,"b":1,"i":2.5,"j":16.0,"k":99,"r":"x","s":[],"f":3}));
    bool b = true;
    int64_t i = 7;
    double d = 1.5;
    str s = STR("kept");
    ck_assert(json_in_bool(o, "n", &b, &e) == OK && b);
    ck_assert(json_in_int(o, "absent", 0, 9, &i, &e) == OK && i == 7);
    ck_assert(json_in_real(o, "n", 0, 9, &d, &e) == OK && d == 1.5);
    ck_assert(json_in_str(o, "n", &s, &e) == OK && str_eqz(s, "kept"));
    ck_assert(json_in_bool(o, "b", &b, &e) == ERR_INVALID);
    ck_assert_str_eq(e.field, "b");
    ck_assert_str_eq(e.text, "b must be true or false, not an integer");
    ck_assert(json_in_int(o, "i", 0, 9, &i, &e) == ERR_INVALID);
    ck_assert(json_in_int(o, "j", 0, 20, &i, &e) == OK && i == 16);
    ck_assert(json_in_int(o, "k", 0, 20, &i, &e) == ERR_INVALID);
    ck_assert_str_eq(e.text, "k must be an integer from 0 to 20, not 99");
    ck_assert(json_in_real(o, "r", 0, 9, &d, &e) == ERR_INVALID);
    ck_assert_str_eq(e.field, "r");
    ck_assert(json_in_str(o, "s", &s, &e) == ERR_INVALID);
    ck_assert(json_in_real(o, "f", 0, 9, &d, &e) == OK && d == 3);
    arena_clear(&a);
}
END_TEST

CHECK_MAIN("json", strings_are_escaped_and_read_back_the_same,
           bytes_that_are_no_text_become_replacement_characters,
           bytes_that_are_no_text_leave_nothing_in_the_arena, numbers,
           a_parsed_document_lives_and_dies_with_its_arena,
           wherever_memory_ends_a_document_is_whole_or_refused,
           names_and_numbers_of_no_use_leave_the_rest_readable, getters_name_the_field)
