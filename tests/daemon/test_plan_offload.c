/* offload = auto: which of the two is chosen by the rates, and that the host's rate is one. */
#include "tests/check_main.h"

#include "daemon/plan/host_rate.h"
#include "daemon/plan/plan_offload.h"

START_TEST(what_decodes_faster_is_chosen) {
    static const struct {
        double copied, link, computed, host;
        bool computes;
    } cases[] = {
        {10e9, 25e9, 10e9, 100e9, true}, {10e9, 25e9, 10e9, 20e9, false},
        {10e9, 25e9, 10e9, 25e9, false}, /* neither: the bits of the device */
        {80e9, 50e9, 5e9, 20e9, true},   /* a mixture, of which a row reads a sixteenth */
        {10e9, 0, 10e9, 100e9, false},   {10e9, 25e9, 10e9, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_int_eq(
            offload_computes(cases[i].copied, cases[i].link, cases[i].computed, cases[i].host),
            cases[i].computes);
}
END_TEST

START_TEST(a_rate_is_measured_with_any_number_of_threads) {
    static const uint32_t n[] = {0, 1, 3, 300};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++)
        ck_assert_double_gt(host_rate_measure(n[i], UINT64_MAX), 1e6);
}
END_TEST

START_TEST(a_small_budget_bounds_what_is_read) {
    ck_assert_double_gt(host_rate_measure(2, 1 << 20), 1e6);
    ck_assert_double_eq(host_rate_measure(2, 8), 0); /* not a number for each */
}
END_TEST

CHECK_MAIN("plan offload", what_decodes_faster_is_chosen,
           a_rate_is_measured_with_any_number_of_threads, a_small_budget_bounds_what_is_read)
