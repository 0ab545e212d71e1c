/* Stop strings: against a plain search, however the text is cut. */
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "text/stop.h"
#include "tests/check_main.h"

/* What stop_push must make of text: cut at the match that ends first, the longest of those. */
static size_t reference(const str *s, uint32_t n, str text, int *hit) {
    *hit = -1;
    for (size_t end = 1; end <= text.len; end++) {
        for (uint32_t i = 0; i < n; i++)
            if (s[i].len <= end && memcmp(text.ptr + end - s[i].len, s[i].ptr, s[i].len) == 0 &&
                (*hit < 0 || s[i].len > s[*hit].len))
                *hit = (int)i;
        if (*hit >= 0) return end - s[*hit].len;
    }
    return text.len;
}

static void check_cut(const str *s, uint32_t n, str text, unsigned seed) {
    arena a;
    stop_set set;
    stop_state st;
    buf out;
    arena_init(&a, chunks_heap(), 0);
    buf_init(&out, NULL);
    ck_assert(stop_set_init(&set, &a, s, n) && stop_state_init(&st, &a, &set));
    int want, hit = -1;
    size_t keep = reference(s, n, text, &want);
    for (size_t at = 0; at < text.len && hit < 0;) {
        size_t k = seed ? 1 + (size_t)rand_r(&seed) % 5 : 1;
        if (k > text.len - at) k = text.len - at;
        hit = stop_push(&set, &st, (str){text.ptr + at, k}, &out);
        at += k;
        /* Nothing beyond what the whole text allows, ever. */
        ck_assert_uint_le(out.len, keep);
    }
    if (hit < 0) stop_flush(&set, &st, &out);
    ck_assert_int_eq(hit, want);
    ck_assert(str_eq(buf_str(&out), (str){text.ptr, keep}));
    buf_clear(&out);
    arena_clear(&a);
}

START_TEST(a_stop_string_within_one_piece_and_across_pieces) {
    const str s[] = {STR("</s>"), STR("END")};
    static const char *const text[] = {"",        "abc",        "a</s>b",    "</s>",  "a</sb",
                                       "aENENDb", "</</</s>xx", "EEEENDEND", "ab</s", "<//s>"};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        for (unsigned seed = 0; seed < 8; seed++) check_cut(s, 2, str_of(text[i]), seed);
}
END_TEST

START_TEST(overlapping_strings_stop_where_the_first_match_ends) {
    const str s[] = {STR("b"), STR("ab"), STR("xaab"), STR("aa!")};
    static const char *const text[] = {"ab", "xaab", "xaaab", "aaa!", "xaa!b", "cab"};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        for (unsigned seed = 0; seed < 8; seed++) check_cut(s, 4, str_of(text[i]), seed);
}
END_TEST

START_TEST(random_texts_over_two_letters_agree_with_a_plain_search) {
    unsigned seed = 1;
    for (int round = 0; round < 20000; round++) {
        char text[40], word[4][8];
        str s[4];
        uint32_t n = 1 + (uint32_t)rand_r(&seed) % 4;
        size_t len = (size_t)rand_r(&seed) % sizeof text;
        for (size_t i = 0; i < len; i++) text[i] = "ab"[rand_r(&seed) & 1];
        for (uint32_t i = 0; i < n; i++) {
            s[i] = (str){word[i], 1 + (size_t)rand_r(&seed) % sizeof word[i]};
            for (size_t k = 0; k < s[i].len; k++) word[i][k] = "ab"[rand_r(&seed) % 5 > 2];
        }
        check_cut(s, n, (str){text, len}, (unsigned)round % 3);
    }
}
END_TEST

START_TEST(of_hundreds_of_strings_each_is_found) {
    char word[300][12];
    str s[300];
    for (uint32_t i = 0; i < 300; i++)
        s[i] = (str){word[i], (size_t)snprintf(word[i], sizeof word[i], "%03u", i)};
    for (uint32_t i = 0; i < 300; i += 13) {
        char text[16];
        size_t n = (size_t)snprintf(text, sizeof text, "9%03u8", i);
        for (unsigned seed = 0; seed < 4; seed++) check_cut(s, 300, (str){text, n}, seed);
    }
}
END_TEST

START_TEST(without_strings_everything_passes) {
    stop_set set = {0};
    stop_state st = {0};
    buf out;
    buf_init(&out, NULL);
    ck_assert_int_eq(stop_push(&set, &st, STR("abc"), &out), -1);
    ck_assert_uint_eq(out.len, 3);
    stop_flush(&set, &st, &out);
    ck_assert_uint_eq(out.len, 3);
    buf_clear(&out);
}
END_TEST

START_TEST(characters_of_valid_text_are_never_cut) {
    /* Pieces are whole characters; a held stop string may end inside one, but what is shown
     * must not: here the stop string shares the first byte of another character. */
    const str s[] = {STR("\xc3\xa9!")};
    arena a;
    stop_set set;
    stop_state st;
    buf out;
    arena_init(&a, chunks_heap(), 0);
    buf_init(&out, NULL);
    ck_assert(stop_set_init(&set, &a, s, 1) && stop_state_init(&st, &a, &set));
    static const char *const piece[] = {"\xc3\xa9", "\xc3\xa8", "\xc3\xa9", "?"};
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(stop_push(&set, &st, str_of(piece[i]), &out), -1);
        ck_assert(utf8_valid(buf_str(&out)));
    }
    ck_assert(str_eqz(buf_str(&out), "\xc3\xa9\xc3\xa8\xc3\xa9?"));
    buf_clear(&out);
    arena_clear(&a);
}
END_TEST

CHECK_MAIN("stop", a_stop_string_within_one_piece_and_across_pieces,
           overlapping_strings_stop_where_the_first_match_ends,
           random_texts_over_two_letters_agree_with_a_plain_search,
           of_hundreds_of_strings_each_is_found, without_strings_everything_passes,
           characters_of_valid_text_are_never_cut)
