/* UTF-8 against the tables of the Unicode standard, and against a decoder by arithmetic. */
#include "tests/check_main.h"

#include <string.h>

#include "base/utf8.h"

/* The definition without the table: lead byte, length, minimum, no surrogates. */
static int slow_decode(const unsigned char *u, size_t n, uint32_t *cp) {
    int len = u[0] < 0x80       ? 1
              : u[0] >> 5 == 6  ? 2
              : u[0] >> 4 == 14 ? 3
              : u[0] >> 3 == 30 ? 4
                                : 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (!len || (size_t)len > n) return 0;
    uint32_t v = len == 1 ? u[0] : u[0] & (0x7fu >> len);
    for (int i = 1; i < len; i++) {
        if (u[i] >> 6 != 2) return 0;
        v = v << 6 | (u[i] & 63u);
    }
    if (v < least[len] || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff)) return 0;
    *cp = v;
    return len;
}

START_TEST(every_scalar_value_survives_a_round_trip) {
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        char out[4];
        uint32_t back;
        if (cp >= 0xd800 && cp <= 0xdfff) continue;
        int n = utf8_encode(cp, out);
        SWEEP(n == 1 + (cp > 0x7f) + (cp > 0x7ff) + (cp > 0xffff));
        SWEEP(utf8_decode(out, 4, &back) == n && back == cp);
        for (int k = 1; k < n; k++) SWEEP(utf8_decode(out, (size_t)k, &back) == UTF8_SHORT);
    }
}
END_TEST

START_TEST(decoding_agrees_with_the_definition_on_all_short_byte_strings) {
    uint32_t a, b;
    unsigned char u[4];
    for (uint32_t w = 0; w < 1u << 24; w++) {
        /* All first three bytes; the fourth at the edges of its range. */
        static const unsigned char fourth[] = {0x7f, 0x80, 0xbf, 0xc0};
        u[0] = (unsigned char)(w >> 16), u[1] = (unsigned char)(w >> 8),
        u[2] = (unsigned char)w;
        u[3] = fourth[w & 3];
        int want = slow_decode(u, 4, &a), got = utf8_decode((char *)u, 4, &b);
        if (want > 0 ? (got != want || a != b) : got != UTF8_BAD)
            ck_abort_msg("%02x %02x %02x %02x", u[0], u[1], u[2], u[3]);
    }
}
END_TEST

START_TEST(short_means_that_some_continuation_is_valid) {
    uint32_t cp;
    for (uint32_t w = 0; w < 1u << 16; w++) {
        unsigned char u[4] = {(unsigned char)(w >> 8), (unsigned char)w, 0, 0};
        bool can[2] = {false, false};
        for (uint32_t x = 0; x < 1u << 12; x++) { /* continuation bytes by their six bits */
            unsigned char one[4] = {u[0], (unsigned char)(0x80 | (x & 63)),
                                    (unsigned char)(0x80 | (x >> 6)), 0x80};
            unsigned char two[4] = {u[0], u[1], (unsigned char)(0x80 | (x & 63)),
                                    (unsigned char)(0x80 | (x >> 6))};
            if (u[1] == 0) can[0] |= slow_decode(one, 4, &cp) > 1;
            can[1] |= slow_decode(two, 4, &cp) > 2;
            if (can[1] && u[1]) break;
        }
        if (u[1] == 0) SWEEP((utf8_decode((char *)u, 1, &cp) == UTF8_SHORT) == (can[0]));
        SWEEP((utf8_decode((char *)u, 2, &cp) == UTF8_SHORT) == (can[1]));
    }
}
END_TEST

/* Unicode 15.0, section 3.9, tables 3-8 to 3-11, and their like. '?' stands for U+FFFD. */
static const struct {
    const char *in, *out;
} ill_formed[] = {
    {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", "????????A"}, /* 3-8: non-shortest forms */
    {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", "????????A"}, /* 3-9: surrogates */
    {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", "?????A??B"}, /* 3-10: others */
    {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "????A"},     /* 3-11: truncated */
    {"\x41\xc3\xa9\x42", "A\xc3\xa9"
                         "B"},
    {"\xe2\x82", "?"},
    {"\xe2\x82\xac\xe2", "\xe2\x82\xac?"},
    {"\xf0\x9f\x98", "?"},
    {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
    {"\xf0\x80\x80\x80", "????"},
    {"\xf5\x80\x80\x80", "????"},
    {"\xfe\xff", "??"},
    {"\x80", "?"},
    {"\xc3", "?"},
    {"\xc3\xc3\xa9", "?\xc3\xa9"},
    {"\xef\xbf\xbd", "\xef\xbf\xbd"},
    {"", ""}};

START_TEST(maximal_ill_formed_parts_are_replaced_as_unicode_recommends) {
    for (size_t i = 0; i < sizeof ill_formed / sizeof *ill_formed; i++) {
        char want[64], got[64];
        size_t n = 0;
        for (const char *c = ill_formed[i].out; *c; c++) {
            if (*c == '?')
                memcpy(want + n, "\xef\xbf\xbd", 3), n += 3;
            else
                want[n++] = *c;
        }
        str in = str_of(ill_formed[i].in);
        ck_assert_uint_eq(utf8_sanitise(in, NULL), n);
        ck_assert_uint_eq(utf8_sanitise(in, got), n);
        ck_assert_mem_eq(got, want, n);
        ck_assert(utf8_valid((str){got, n}));
        ck_assert_int_eq(utf8_valid(in), strchr(ill_formed[i].out, '?') == NULL);
    }
}
END_TEST

START_TEST(complete_holds_back_only_what_may_still_become_a_character) {
    static const struct {
        const char *in;
        size_t complete;
    } rows[] = {{"", 0},
                {"a", 1},
                {"a\xc3", 1},
                {"\xe2\x82", 0},
                {"a\xe2\x82\xac", 4},
                {"a\xf0\x9f\x98", 1},
                {"a\xf0\x9f", 1},
                {"a\xf0", 1},
                {"\xf0\x9f\x98\x80", 4},
                {"a\xff", 2},
                {"\x80\x80\x80\x80", 4},
                {"\xe0\x80", 2}, /* never valid */
                {"\xed\xa0", 2}, /* a surrogate */
                {"\xf4\x90", 2}, /* above U+10FFFF */
                {"\xe2\x82\xac\x80", 4},
                {"\xc3\xa9\xc3", 2}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        ck_assert_uint_eq(utf8_complete(str_of(rows[i].in)), rows[i].complete);
}
END_TEST

START_TEST(text_cut_anywhere_comes_out_whole_when_completed_in_turn) {
    static const char text[] = "h\xc3\xa9llo \xe2\x82\xac \xf0\x9f\x98\x80 \xff \xe2\x28 end";
    for (size_t cut = 0; cut < sizeof text; cut++) {
        size_t first = utf8_complete((str){text, cut});
        ck_assert_uint_le(first, cut);
        ck_assert_uint_le(cut - first, 3);
        char whole[128], parts[128];
        size_t n = utf8_sanitise((str){text, sizeof text - 1}, whole);
        size_t m = utf8_sanitise((str){text, first}, parts);
        if (cut == sizeof text) continue;
        m += utf8_sanitise((str){text + first, sizeof text - 1 - first}, parts + m);
        ck_assert_uint_eq(n, m);
        ck_assert_mem_eq(whole, parts, n);
    }
}
END_TEST

START_TEST(characters_are_counted) {
    char text[200];
    size_t n = 0, chars = 0;
    for (int i = 0; i < 40; i++) {
        const uint32_t cp[] = {'a', 0xe9, 0x20ac, 0x1f600};
        ck_assert_uint_eq(utf8_chars((str){text, n}), chars);
        n += (size_t)utf8_encode(cp[i * 7 % 4], text + n);
        chars++;
    }
    ck_assert_uint_eq(utf8_chars((str){text, n}), 40);
}
END_TEST

CHECK_MAIN("utf8", characters_are_counted, every_scalar_value_survives_a_round_trip,
           decoding_agrees_with_the_definition_on_all_short_byte_strings,
           short_means_that_some_continuation_is_valid,
           maximal_ill_formed_parts_are_replaced_as_unicode_recommends,
           complete_holds_back_only_what_may_still_become_a_character,
           text_cut_anywhere_comes_out_whole_when_completed_in_turn)
