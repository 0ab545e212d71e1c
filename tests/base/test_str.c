/* Borrowed strings, counts of bytes, sizes with overflow checks. */
#include "tests/check_main.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/str.h"

START_TEST(strings_compare_by_bytes_and_empty_ones_may_be_null) {
    str none = {NULL, 0};
    ck_assert(str_eq(STR("ab"), str_of("ab")));
    ck_assert(!str_eq(STR("ab"), STR("ac")));
    ck_assert(!str_eq(STR("ab"), STR("abc")));
    ck_assert(str_eq(none, STR("")));
    ck_assert(str_eqz(none, ""));
    ck_assert(str_eq(STR("a\0b"), STR("a\0b")));
    ck_assert(!str_eq(STR("a\0b"), STR("a\0c")));
    ck_assert(str_starts(STR("abc"), STR("ab")));
    ck_assert(str_starts(STR("abc"), none));
    ck_assert(str_starts(none, none));
    ck_assert(!str_starts(STR("ab"), STR("abc")));
    ck_assert(!str_starts(none, STR("a")));
}
END_TEST

START_TEST(find_gives_the_first_place_at_or_after_a_start) {
    str none = {NULL, 0};
    ck_assert_uint_eq(str_find(STR("abcabc"), STR("bc"), 0), 1);
    ck_assert_uint_eq(str_find(STR("abcabc"), STR("bc"), 1), 1);
    ck_assert_uint_eq(str_find(STR("abcabc"), STR("bc"), 2), 4);
    ck_assert_uint_eq(str_find(STR("abcabc"), STR("bc"), 5), SIZE_MAX);
    ck_assert_uint_eq(str_find(STR("abcabc"), STR("bc"), 7), SIZE_MAX);
    ck_assert_uint_eq(str_find(STR("abcabc"), STR("bc"), SIZE_MAX), SIZE_MAX);
    ck_assert_uint_eq(str_find(STR("abc"), STR(""), 3), 3);
    ck_assert_uint_eq(str_find(STR("abc"), STR(""), 4), SIZE_MAX);
    ck_assert_uint_eq(str_find(none, none, 0), 0);
    ck_assert_uint_eq(str_find(none, STR("a"), 0), SIZE_MAX);
    ck_assert_uint_eq(str_find(STR("a\0b"), STR("\0b"), 0), 1);
}
END_TEST

START_TEST(counts_of_bytes_are_read_with_their_units) {
    static const struct {
        const char *text;
        uint64_t bytes;
    } rows[] = {{"0", 0},
                {"512", 512},
                {"512B", 512},
                {"512 b", 512},
                {"64KiB", 65536},
                {"64kib", 65536},
                {"64K", 65536},
                {"64KB", 64000},
                {"6GiB", 6442450944u},
                {"1.5GB", 1500000000},
                {"1.5 GiB", 1610612736},
                {"2G", 2147483648u},
                {"3M", 3145728},
                {"3MB", 3000000},
                {"3MiB", 3145728},
                {"0.5K", 512},
                {"0.001KiB", 1},
                {"1T", 1099511627776},
                {"1TB", 1000000000000},
                {"9007199254740993", 9007199254740993},
                {"18446744073709551615", UINT64_MAX},
                {"18014398509481983KiB", UINT64_MAX - 1023}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t n = 1;
        ck_assert_msg(str_parse_bytes(str_of(rows[i].text), &n), "%s", rows[i].text);
        ck_assert_msg(n == rows[i].bytes, "%s: %llu", rows[i].text, (unsigned long long)n);
    }
}
END_TEST

START_TEST(what_is_no_count_of_bytes_is_refused) {
    static const char *const bad[] = {"",
                                      " ",
                                      "x",
                                      "-1",
                                      "+1",
                                      " 1",
                                      ".5K",
                                      "1.",
                                      "1.K",
                                      "1.5",
                                      "1.5B",
                                      "1e3",
                                      "1e3K",
                                      "0x10",
                                      "1 2",
                                      "1KiBs",
                                      "1KK",
                                      "1Ki",
                                      "nan",
                                      "inf",
                                      "1.2.3K",
                                      "1,000",
                                      "75%",
                                      "18446744073709551616",
                                      "16777216TiB",
                                      "99999999999999999999999999999",
                                      "1P",
                                      "18014398509481984KiB",
                                      "1K "};
    uint64_t n;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!str_parse_bytes(str_of(bad[i]), &n), "%s", bad[i]);
    ck_assert(!str_parse_bytes(STR("5\0K"), &n));
    ck_assert(!str_parse_bytes((str){NULL, 0}, &n));
}
END_TEST

START_TEST(bytes_are_written_grouped_and_with_units) {
    static const struct {
        uint64_t n;
        const char *grouped, *human;
    } rows[] = {{0, "0", "0 B"},
                {999, "999", "999 B"},
                {1000, "1,000", "1000 B"},
                {1023, "1,023", "1023 B"},
                {1024, "1,024", "1.0 KiB"},
                {98362432, "98,362,432", "93.8 MiB"},
                {1048575, "1,048,575", "1.0 MiB"},
                {1048524, "1,048,524", "1023.9 KiB"},
                {1ull << 30, "1,073,741,824", "1.0 GiB"},
                {1ull << 40, "1,099,511,627,776", "1.0 TiB"},
                {UINT64_MAX, "18,446,744,073,709,551,615", "16777216.0 TiB"}};
    char buf[32];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ck_assert_str_eq(bytes_grouped(rows[i].n, buf), rows[i].grouped);
        ck_assert_str_eq(bytes_human(rows[i].n, buf), rows[i].human);
    }
}
END_TEST

START_TEST(sizes_that_overflow_are_noticed) {
    uint64_t n;
    ck_assert(mul_u64(1ull << 32, 1ull << 31, &n) && n == 1ull << 63);
    ck_assert(!mul_u64(1ull << 32, 1ull << 32, &n));
    ck_assert(add_u64(UINT64_MAX - 1, 1, &n) && n == UINT64_MAX);
    ck_assert(!add_u64(UINT64_MAX, 1, &n));
    ck_assert_uint_eq(align_up(0, 64), 0);
    ck_assert_uint_eq(align_up(1, 64), 64);
    ck_assert_uint_eq(align_up(64, 64), 64);
    ck_assert_uint_eq(ceil_div(0, 7), 0);
    ck_assert_uint_eq(ceil_div(14, 7), 2);
    ck_assert_uint_eq(ceil_div(15, 7), 3);
    ck_assert_uint_eq(ceil_div(UINT64_MAX, 2), 1ull << 63);
}
END_TEST

START_TEST(a_broken_invariant_ends_the_process_and_says_where) {
    int fd[2], how;
    char said[200] = "";
    ck_assert_int_eq(pipe(fd), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(fd[1], STDERR_FILENO);
        CHECK(1 + 1 == 2);
        CHECK(1 + 1 == 3);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &how, 0), child);
    ck_assert(WIFSIGNALED(how) && WTERMSIG(how) == SIGABRT);
    ck_assert_int_gt(read(fd[0], said, sizeof said - 1), 0);
    ck_assert_ptr_nonnull(strstr(said, "test_str.c:"));
    ck_assert_ptr_nonnull(strstr(said, "1 + 1 == 3"));
    close(fd[0]);
    close(fd[1]);
}
END_TEST

CHECK_MAIN("str", strings_compare_by_bytes_and_empty_ones_may_be_null,
           find_gives_the_first_place_at_or_after_a_start,
           counts_of_bytes_are_read_with_their_units, what_is_no_count_of_bytes_is_refused,
           bytes_are_written_grouped_and_with_units, sizes_that_overflow_are_noticed,
           a_broken_invariant_ends_the_process_and_says_where)
