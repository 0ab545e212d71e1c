/* Lines that match a pattern: those alone go, and whole. */
#include "text/jinja/strip_lines.h"

#include "tests/check_main.h"

static const char account[] = "^x-anthropic-[a-z-]+:";

START_TEST(whole_lines_go_and_nothing_else) {
    static const struct {
        const char *text;
        uint32_t n;
        const char *left;
    } t[] = {
        {"x-anthropic-billing-header: cch=1\nYou are", 1, "You are"},
        {"x-anthropic-billing-header: cch=1", 1, ""},
        {"x-anthropic-billing-header: cch=1\n", 1, ""},
        {"a\nx-anthropic-a: 1\nx-anthropic-b-c: 2\nb\n", 2, "a\nb\n"},
        {"a\r\nx-anthropic-a: 1\r\nb\r\n", 1, "a\r\nb\r\n"},
        {"a\nx-anthropic-a: 1", 1, "a"},
        {"a\n\nx-anthropic-a: 1\n", 1, "a\n\n"},
        {"x-anthropic-a:\n\n\nx-anthropic-b:", 2, "\n"},
        {"\xc3\xa9\nx-anthropic-a: \xe2\x82\xac\n\xf0\x9f\x90\xa7", 1,
         "\xc3\xa9\n\xf0\x9f\x90\xa7"},
        {" x-anthropic-a: 1\nsay x-anthropic-a: 1\nx-anthropic: 1\nX-anthropic-a: 1", 0, ""},
        {"", 0, ""},
        {"\n\n", 0, ""},
    };
    line_filter *f;
    err e;
    ck_assert_int_eq(line_filter_open(&f, account, &e), OK);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        arena a;
        buf b;
        arena_init(&a, chunks_heap(), 0);
        buf_init(&b, &a);
        ck_assert_msg(line_filter_cut(f, str_of(t[i].text), &b) == t[i].n, "%zu", i);
        ck_assert_str_eq(buf_cstr(&b), t[i].left);
        arena_clear(&a);
    }
    line_filter_free(f);
}
END_TEST

START_TEST(no_pattern_is_no_filter_and_a_bad_one_an_error) {
    line_filter *f;
    err e;
    ck_assert(line_filter_open(&f, "", &e) == OK && !f);
    ck_assert_uint_eq(line_filter_cut(f, STR("a"), NULL), 0);
    line_filter_free(f);
    ck_assert_int_eq(line_filter_open(&f, "^(a", &e), ERR_INVALID);
    ck_assert(strstr(e.text, "at 3") && !f);
    ck_assert_int_eq(line_filter_open(&f, "\\C", &e), ERR_INVALID);
}
END_TEST

/* A pattern that backtracks without end costs little, and its line stays. */
START_TEST(a_line_at_which_the_matcher_gives_up_stays) {
    line_filter *f;
    err e;
    arena a;
    buf b;
    char text[64];
    memset(text, 'a', 60);
    strcpy(text + 60, "!");
    arena_init(&a, chunks_heap(), 0);
    buf_init(&b, &a);
    ck_assert_int_eq(line_filter_open(&f, "^(a|aa)+$", &e), OK);
    ck_assert_uint_eq(line_filter_cut(f, str_of(text), &b), 0);
    line_filter_free(f);
    arena_clear(&a);
}
END_TEST

CHECK_MAIN("strip_lines", whole_lines_go_and_nothing_else,
           no_pattern_is_no_filter_and_a_bad_one_an_error,
           a_line_at_which_the_matcher_gives_up_stays)
