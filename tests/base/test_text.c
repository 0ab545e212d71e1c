/* base/str.c, base/utf8.c, base/half.h and base/err.c through their headers. */
#include "tests/check_main.h"

#include <math.h>
#include <stdio.h>

#include "base/err.h"
#include "base/half.h"
#include "base/hash.h"
#include "base/str.h"
#include "base/utf8.h"

/* Check records each assertion that holds: too slow for the millions of a sweep. */
#define SWEEP(cond)                                                                            \
    do {                                                                                       \
        if (!(cond)) ck_abort_msg("%s", #cond);                                                \
    } while (0)

START_TEST(byte_counts_are_read_with_their_units) {
    static const struct {
        const char *word;
        uint64_t bytes;
    } good[] = {{"0", 0},
                {"512", 512},
                {"64KiB", 65536},
                {"64K", 65536},
                {"64KB", 64000},
                {"6GiB", 6442450944ull},
                {"1.5GB", 1500000000ull},
                {"2T", 2199023255552ull},
                {"9007199254740993", 9007199254740993ull}};
    uint64_t v;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        ck_assert_msg(str_parse_bytes(str_of(good[i].word), &v), "%s", good[i].word);
        ck_assert_uint_eq(v, good[i].bytes);
    }
    static const char *const bad[] = {"",
                                      "x",
                                      "-1",
                                      "1XiB",
                                      "0x10",
                                      "1e",
                                      "1 2",
                                      "9999999999999999999999",
                                      "99999999999TiB",
                                      "inf",
                                      "nan"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!str_parse_bytes(str_of(bad[i]), &v), "%s", bad[i]);
}
END_TEST

START_TEST(byte_counts_are_written_for_people) {
    char b[32];
    ck_assert_str_eq(bytes_grouped(0, b), "0");
    ck_assert_str_eq(bytes_grouped(999, b), "999");
    ck_assert_str_eq(bytes_grouped(1000, b), "1,000");
    ck_assert_str_eq(bytes_grouped(98362432, b), "98,362,432");
    ck_assert_str_eq(bytes_grouped(UINT64_MAX, b), "18,446,744,073,709,551,615");
    ck_assert_str_eq(bytes_human(98362432, b), "93.8 MiB");
    ck_assert_str_eq(bytes_human(512, b), "512 B");
}
END_TEST

START_TEST(strings_are_found_from_a_place_on) {
    ck_assert_uint_eq(str_find(STR("abcabc"), STR("bc"), 0), 1);
    ck_assert_uint_eq(str_find(STR("abcabc"), STR("bc"), 2), 4);
    ck_assert_uint_eq(str_find(STR("abcabc"), STR("bcd"), 0), SIZE_MAX);
    ck_assert_uint_eq(str_find(STR("abc"), STR(""), 3), 3);
    ck_assert_uint_eq(str_find(STR("abc"), STR("c"), 4), SIZE_MAX);
}
END_TEST

START_TEST(every_scalar_value_survives_utf8) {
    char b[4];
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        uint32_t got;
        if (cp >= 0xd800 && cp <= 0xdfff) continue;
        int n = utf8_encode(cp, b);
        SWEEP(utf8_decode(b, (size_t)n, &got) == n);
        SWEEP(got == cp);
        for (int k = 1; k < n; k++) {
            SWEEP(utf8_decode(b, (size_t)k, &got) == UTF8_SHORT);
            SWEEP(utf8_complete((str){b, (size_t)k}) == 0);
        }
        SWEEP(utf8_complete((str){b, (size_t)n}) == (size_t)n);
    }
}
END_TEST

/* Unicode 15.0, section 3.9, tables 3-8 to 3-11, and what else RFC 3629 forbids. */
START_TEST(ill_formed_parts_become_one_replacement_each) {
    static const struct {
        const char *in, *out;
    } row[] = {
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", "88888888A"},
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", "88888888A"},
        {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", "88888A88B"},
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "8888A"},
        {"a\xc3\xa9z", "a\xc3\xa9z"},
        {"\xf5\x80", "88"},
        {"\xe2\x82", "8"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char want[64], got[64];
        size_t n = 0;
        for (const char *p = row[i].out; *p; p++) {
            if (*p == '8')
                n += (size_t)sprintf(want + n, "\xef\xbf\xbd");
            else
                want[n++] = *p;
        }
        str in = str_of(row[i].in);
        ck_assert_uint_eq(utf8_sanitise(in, NULL), n);
        ck_assert_uint_eq(utf8_sanitise(in, got), n);
        ck_assert_msg(memcmp(got, want, n) == 0, "row %zu", i);
        ck_assert(utf8_valid((str){got, n}));
        ck_assert_int_eq(utf8_valid(in), strchr(row[i].out, '8') == NULL);
    }
}
END_TEST

START_TEST(halves_convert_as_the_compiler_converts_them) {
    for (uint32_t h = 0; h < 65536; h++) {
        _Float16 ref;
        uint16_t bits = (uint16_t)h;
        memcpy(&ref, &bits, 2);
        float f = half_to_float(bits);
        if (isnan((float)ref)) {
            SWEEP(isnan(f));
            SWEEP((half_of_float(f) & 0x7fff) > 0x7c00);
            continue;
        }
        SWEEP(bits_of_float(f) == bits_of_float((float)ref));
        SWEEP(half_of_float(f) == bits);
    }
    uint64_t x = 1;
    for (int i = 0; i < 2000000; i++) {
        uint32_t u = (uint32_t)(x = hash_mix(x + 1));
        float f = float_of_bits(u);
        uint16_t want;
        _Float16 ref = (_Float16)f;
        memcpy(&want, &ref, 2);
        if (isnan(f)) continue;
        SWEEP(half_of_float(f) == want);
    }
}
END_TEST

START_TEST(bfloats_round_to_nearest_even) {
    ck_assert_uint_eq(bf16_of_float(1.0f), 0x3f80);
    ck_assert_uint_eq(bf16_of_float(float_of_bits(0x3f808000)), 0x3f80); /* tie to even */
    ck_assert_uint_eq(bf16_of_float(float_of_bits(0x3f818000)), 0x3f82);
    ck_assert_uint_eq(bf16_of_float(float_of_bits(0x3f808001)), 0x3f81);
    ck_assert_uint_eq(bf16_of_float(-INFINITY), 0xff80);
    ck_assert(isnan(bf16_to_float(bf16_of_float(NAN))));
    for (uint32_t b = 0; b < 65536; b++) {
        float f = bf16_to_float((uint16_t)b);
        if (!isnan(f)) SWEEP(bf16_of_float(f) == b);
    }
}
END_TEST

START_TEST(an_error_keeps_what_where_and_remedy_as_clean_text) {
    err e;
    ck_assert_int_eq(err_set(&e, ERR_FORMAT, "bad \x01\xff key %d", 7), ERR_FORMAT);
    ck_assert_str_eq(e.text, "bad  \xef\xbf\xbd key 7");
    ck_assert_str_eq(e.field, "");
    ck_assert_int_eq(err_field(&e, "k%d", 1), ERR_FORMAT);
    ck_assert_int_eq(err_hint(&e, "try"), ERR_FORMAT);
    ck_assert_str_eq(e.field, "k1");
    ck_assert_str_eq(e.hint, "try");
    err_set(&e, ERR_IO, "%01000d", 1);
    ck_assert_uint_lt(strlen(e.text), sizeof e.text);
    ck_assert_str_eq(e.hint, "");
    ck_assert_int_eq(status_exit_code(OK), 0);
    ck_assert_int_eq(status_exit_code(ERR_BUDGET), 7);
    ck_assert_str_eq(status_text(ERR_BUSY), "queue full");
}
END_TEST

CHECK_MAIN("text", byte_counts_are_read_with_their_units, byte_counts_are_written_for_people,
           strings_are_found_from_a_place_on, every_scalar_value_survives_utf8,
           ill_formed_parts_become_one_replacement_each,
           halves_convert_as_the_compiler_converts_them, bfloats_round_to_nearest_even,
           an_error_keeps_what_where_and_remedy_as_clean_text)
