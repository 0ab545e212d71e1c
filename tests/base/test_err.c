/* Statuses and error records. */
#include "tests/check_main.h"

#include <string.h>

#include "base/err.h"
#include "base/utf8.h"

START_TEST(every_status_has_a_text_and_an_exit_code_of_its_own) {
    bool used[256] = {false};
#define X(code, text, exit_code)                                                               \
    ck_assert_str_eq(status_text(code), text);                                                 \
    ck_assert_int_eq(status_exit_code(code), exit_code);                                       \
    ck_assert_int_ne(exit_code, 1);                                                            \
    ck_assert(!used[exit_code]);                                                               \
    used[exit_code] = true;
    STATUS_LIST(X)
#undef X
    ck_assert_int_eq(OK, 0);
    ck_assert_str_eq(status_text((status)99), "unknown status");
    ck_assert_int_eq(status_exit_code((status)99), 1);
}
END_TEST

START_TEST(setting_an_error_clears_field_and_hint_and_returns_the_code) {
    err e;
    memset(&e, 'x', sizeof e);
    ck_assert_int_eq(err_set(&e, ERR_IO, "%s: %d", "file", 7), ERR_IO);
    ck_assert_str_eq(e.text, "file: 7");
    ck_assert_str_eq(e.field, "");
    ck_assert_str_eq(e.hint, "");
    ck_assert_int_eq(err_field(&e, "tensor %d", 3), ERR_IO);
    ck_assert_int_eq(err_hint(&e, "try again"), ERR_IO);
    ck_assert_str_eq(e.field, "tensor 3");
    ck_assert_str_eq(e.hint, "try again");
}
END_TEST

START_TEST(long_texts_are_cut_between_characters) {
    char long_text[2000];
    err e;
    for (size_t shift = 0; shift < 4; shift++) {
        memset(long_text, 'a', shift);
        for (size_t i = shift; i + 3 < sizeof long_text; i += 3)
            memcpy(long_text + i, "\xe2\x82\xac", 4); /* euro */
        err_set(&e, ERR_FORMAT, "%s", long_text);
        err_field(&e, "%s", long_text);
        err_hint(&e, "%s", long_text);
        ck_assert(utf8_valid(str_of(e.text)) && strlen(e.text) > sizeof e.text - 5);
        ck_assert(utf8_valid(str_of(e.field)) && strlen(e.field) > sizeof e.field - 5);
        ck_assert(utf8_valid(str_of(e.hint)) && strlen(e.hint) > sizeof e.hint - 5);
    }
    memset(long_text, 0xff, sizeof long_text - 1); /* three bytes each when replaced */
    long_text[sizeof long_text - 1] = '\0';
    err_set(&e, ERR_FORMAT, "%s", long_text);
    ck_assert(utf8_valid(str_of(e.text)) && strlen(e.text) == 399);
}
END_TEST

START_TEST(what_comes_from_outside_cannot_break_a_message) {
    err e;
    err_set(&e, ERR_FORMAT, "key %s", "a\x1b[31m\n\xff\x7f!");
    ck_assert_str_eq(e.text, "key a [31m \xef\xbf\xbd !");
}
END_TEST

START_TEST(an_error_may_quote_itself) {
    err e;
    err_set(&e, ERR_IO, "inner");
    err_set(&e, e.code, "outer: %s", e.text);
    ck_assert_str_eq(e.text, "outer: inner");
}
END_TEST

CHECK_MAIN("err", every_status_has_a_text_and_an_exit_code_of_its_own,
           setting_an_error_clears_field_and_hint_and_returns_the_code,
           long_texts_are_cut_between_characters,
           what_comes_from_outside_cannot_break_a_message, an_error_may_quote_itself)
