/* The step log of a model with recurrent states: its configuration comes back, and that of one without is as
 * it was. Records of guesses. */
#include "sim/record.h"

#include <string.h>

#include "tests/check_main.h"

static size_t write_config(uint8_t *out, size_t cap, uint32_t state_slots) {
    record r = {.kind = RECORD_CONFIG};
    r.config = (sched_config){.n_groups = 1,
                              .block_tokens = 16,
                              .max_seqs = 4,
                              .state_slots = state_slots,
                              .state_chunk = state_slots ? 16 : 0,
                              .state_bytes = state_slots ? 1000 : 0};
    return record_write(&r, out, cap);
}

START_TEST(a_configuration_with_states_comes_back) {
    uint8_t with[256], without[256];
    const size_t n = write_config(with, sizeof with, 300);
    const size_t n_without = write_config(without, sizeof without, 0);
    ck_assert_uint_eq(n,
                      n_without + 5); /* 300, 16 and 1000, behind all that a log had before */
    ck_assert_mem_eq(with + 4, without + 4, n_without - 4);
    for (int states = 0; states < 2; states++) {
        str text = {(const char *)(states ? with : without), states ? n : n_without};
        record_memory memory = {0};
        record r;
        err e;
        ck_assert_int_eq(record_read(&r, &text, &memory, &e), OK);
        ck_assert_uint_eq(r.config.state_slots, states ? 300 : 0);
        ck_assert_uint_eq(r.config.state_chunk, states ? 16 : 0);
        ck_assert_uint_eq(r.config.state_bytes, states ? 1000 : 0);
        ck_assert_uint_eq(r.config.max_seqs, 4);
        record_memory_clear(&memory);
    }
}
END_TEST

START_TEST(guesses_come_back) {
    const int32_t guess[] = {5, 70000, 0};
    const record was = {.kind = RECORD_DRAFT,
                        .id = 1ULL << 32 | 3,
                        .value = 2,
                        .yes = true,
                        .guess = guess,
                        .n_guess = 3};
    uint8_t out[64];
    const size_t n = record_write(&was, out, sizeof out);
    ck_assert_uint_gt(n, 0);
    for (size_t cut = 0; cut <= n; cut++) {
        str text = {(const char *)out, cut};
        record_memory memory = {0};
        record r;
        err e;
        ck_assert_int_eq(record_read(&r, &text, &memory, &e), cut < n ? ERR_FORMAT : OK);
        if (cut == n) {
            ck_assert(r.kind == RECORD_DRAFT && r.id == was.id && r.value == 2 && r.yes);
            ck_assert_uint_eq(r.n_guess, 3);
            ck_assert_mem_eq(r.guess, guess, sizeof guess);
        }
        record_memory_clear(&memory);
    }
}
END_TEST

CHECK_MAIN("record", guesses_come_back, a_configuration_with_states_comes_back)
