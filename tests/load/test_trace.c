/* Traces of both kinds: times, lengths, blocks, and what is wrong with the bad ones. */
#include "tests/check_main.h"

#include "load/trace.h"

static load_trace parsed(const char *text) {
    load_trace t = {0};
    err e;
    ck_assert_msg(load_trace_parse(&t, str_of(text), 0, &e) == OK, "%s", e.text);
    return t;
}

START_TEST(azure_rows_have_times_from_the_first_row_in_microseconds) {
    load_trace t = parsed("TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                          "2023-11-16 23:59:59.9799600,4808,10\r\n"
                          "2023-11-17 00:00:00.0319605,3180,8\r\n"
                          "2023-11-17 00:00:01,110,0");
    ck_assert_uint_eq(t.n, 3);
    ck_assert_uint_eq(t.rows[0].at_us, 0);
    ck_assert_uint_eq(t.rows[0].prompt_tokens, 4808);
    ck_assert_uint_eq(t.rows[0].output_tokens, 10);
    ck_assert_uint_eq(t.rows[1].at_us, 52000);
    ck_assert_uint_eq(t.rows[2].at_us, 1020040);
    ck_assert_uint_eq(t.rows[2].output_tokens, 1); /* a request makes a token at least */
    ck_assert_uint_eq(t.rows[2].n_hashes, 0);
    load_trace_clear(&t);
}
END_TEST

START_TEST(a_leap_day_is_a_day) {
    load_trace t = parsed("TIMESTAMP,ContextTokens,GeneratedTokens\n"
                          "2024-02-28 12:00:00.5,1,1\n2024-03-01 12:00:00.5,1,1\n");
    ck_assert_uint_eq(t.rows[1].at_us, 2 * 86400 * 1000000ull);
    load_trace_clear(&t);
}
END_TEST

START_TEST(mooncake_rows_have_hashes_of_their_blocks) {
    load_trace t =
        parsed("{\"timestamp\": 1000, \"input_length\": 513, \"output_length\": 500, "
               "\"hash_ids\": [0, 1]}\n\n"
               "{\"timestamp\": 3500, \"input_length\": 3, \"output_length\": 2, "
               "\"hash_ids\": [4294967299]}\n");
    ck_assert_uint_eq(t.n, 2);
    ck_assert_uint_eq(t.rows[1].at_us, 2500000);
    ck_assert_uint_eq(t.rows[0].n_hashes, 2);
    ck_assert_uint_eq(t.hashes[t.rows[0].hashes + 1], 1);
    ck_assert_uint_eq(t.rows[1].hashes, 2);
    ck_assert_uint_eq(t.hashes[2], 4294967299u);
    load_trace_clear(&t);
}
END_TEST

START_TEST(lengths_alone_come_at_once) {
    load_trace t = parsed("prompt,output\r\n4808,10\n\n3180,0\n");
    ck_assert_uint_eq(t.n, 2);
    ck_assert_uint_eq(t.rows[0].prompt_tokens, 4808);
    ck_assert_uint_eq(t.rows[0].output_tokens, 10);
    ck_assert_uint_eq(t.rows[1].prompt_tokens, 3180);
    ck_assert_uint_eq(t.rows[1].output_tokens, 1);
    ck_assert_uint_eq(t.rows[1].at_us, 0);
    load_trace_clear(&t);
    err e;
    ck_assert_int_eq(
        load_trace_parse(&t, STR("prompt,output\n2023-11-16 18:17:03,1,1\n"), 0, &e),
        ERR_FORMAT);
    ck_assert_msg(strstr(e.text, "line 2"), "%s", e.text);
    load_trace_clear(&t);
}
END_TEST

START_TEST(a_limit_takes_the_first_rows) {
    load_trace t = {0};
    err e;
    str text = STR("TIMESTAMP,ContextTokens,GeneratedTokens\n"
                   "2023-11-16 18:17:03,1,1\n2023-11-16 18:17:04,2,2\nrubbish\n");
    ck_assert_int_eq(load_trace_parse(&t, text, 2, &e), OK);
    ck_assert_uint_eq(t.n, 2);
    load_trace_clear(&t);
}
END_TEST

START_TEST(what_is_wrong_is_told_with_its_line) {
#define AZURE "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "no rows"},
        {AZURE, "no rows"},
        {"time,in,out\n1,2,3\n", "starts with neither"},
        {AZURE "2023-11-16 18:17:03,1\n", "line 2"},
        {AZURE "2023-11-16 18:17:03,1,2,3\n", "line 2"},
        {AZURE "2023-13-16 18:17:03,1,2\n", "line 2"},
        {AZURE "2023-11-16 18:17:03.,1,2\n", "line 2"},
        {AZURE "2023-11-16 18:17:03,-1,2\n", "line 2"},
        {AZURE "2023-11-16 18:17:03,99999999999,2\n", "line 2"},
        {AZURE "2023-11-16 18:17:03,1,2\n2023-11-16 18:17:02,1,2\n", "line 3"},
        {"{\"timestamp\":0}\n", "line 1"},
        {"{\"timestamp\":0,\"input_length\":1,\"output_length\":1}\n{]\n", "line 2"},
        {"{\"timestamp\":0,\"input_length\":1,\"output_length\":1,\"hash_ids\":[-1]}",
         "line 1"},
        {"{\"timestamp\":0,\"input_length\":1,\"output_length\":1,\"hash_ids\":7}", "hash_ids"},
        {"{\"timestamp\":0,\"input_length\":-1,\"output_length\":1}", "input_length"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        load_trace t = {0};
        err e;
        ck_assert_int_eq(load_trace_parse(&t, str_of(bad[i].text), 0, &e), ERR_FORMAT);
        ck_assert_msg(strstr(e.text, bad[i].says), "%zu: %s", i, e.text);
        load_trace_clear(&t);
    }
}
END_TEST

START_TEST(a_file_that_is_not_there_is_not_found) {
    load_trace t = {0};
    err e;
    ck_assert_int_eq(load_trace_read(&t, "/nonexistent/trace.csv", 0, &e), ERR_NOT_FOUND);
    ck_assert(strstr(e.text, "/nonexistent/trace.csv") && e.hint[0]);
}
END_TEST

CHECK_MAIN("trace", azure_rows_have_times_from_the_first_row_in_microseconds,
           a_leap_day_is_a_day, mooncake_rows_have_hashes_of_their_blocks,
           a_limit_takes_the_first_rows, lengths_alone_come_at_once,
           what_is_wrong_is_told_with_its_line, a_file_that_is_not_there_is_not_found)
