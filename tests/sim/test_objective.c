/* Steps with a latency objective, simulated: how long a stream waits between two tokens while
 * prompts arrive, and what that costs. */
#include "sim/sim.h"
#include "tests/check_main.h"

enum { N = 600, N_PROMPT = 128, N_OUTPUT = 64, WARM_UP = 100, BURST = 5 };

typedef struct outcome {
    uint64_t gap_us, makespan_us, first_token_us; /* the longest gap, and the mean time */
    uint64_t most_first_us;
    uint64_t early_gap_us; /* the longest one of the first requests */
} outcome;

/* Requests of N_OUTPUT tokens, BURST of them every BURST every_us. */
static outcome simulate_both(uint64_t itl_slo_us, uint64_t ttft_slo_us, uint64_t every_us,
                             uint32_t n_prompt, uint32_t depth) {
    static sim_arrival arrival[N];
    static sim_request request[N];
    sim_totals totals;
    err e;
    const sim_config cfg = {.sched = {.group = {{.n_blocks = 4096}},
                                      .n_groups = 1,
                                      .block_tokens = 16,
                                      .max_seqs = 32,
                                      .max_waiting = N,
                                      .max_waiting_tokens = 1 << 30,
                                      .max_model_len = 8192,
                                      .max_rows = 512,
                                      .max_logit_rows = 64,
                                      .depth = depth,
                                      .itl_slo_us = itl_slo_us,
                                      .ttft_slo_us = ttft_slo_us},
                            .time = {.a = 1900, .b = 250, .c = 0.49, .d = 100},
                            .depth = depth,
                            .audit = true};
    for (uint32_t i = 0; i < N; i++)
        arrival[i] = (sim_arrival){.at_us = i / BURST * BURST * every_us,
                                   .n_prompt = n_prompt,
                                   .max_tokens = N_OUTPUT};
    ck_assert_int_eq(sim_run(&cfg, arrival, N, request, &totals, &e), OK);
    outcome o = {.makespan_us = totals.makespan_us};
    for (uint32_t i = 0; i < N; i++) {
        ck_assert_int_eq(request[i].finish, FINISH_LENGTH);
        const uint64_t first = request[i].first_token_us - arrival[i].at_us;
        o.first_token_us += first / N;
        if (first > o.most_first_us) o.most_first_us = first;
        uint64_t *most = i < WARM_UP ? &o.early_gap_us : &o.gap_us;
        if (request[i].max_gap_us > *most) *most = request[i].max_gap_us;
    }
    return o;
}

static outcome simulate(uint64_t itl_slo_us, uint64_t every_us, uint32_t n_prompt,
                        uint32_t depth) {
    return simulate_both(itl_slo_us, 0, every_us, n_prompt, depth);
}

START_TEST(a_gap_is_as_long_as_the_objective_and_throughput_stays) {
    const outcome without = simulate(0, 64000, N_PROMPT, 1),
                  with = simulate(40000, 64000, N_PROMPT, 1);
    ck_assert_uint_gt(without.gap_us, 70000);
    ck_assert_uint_le(with.gap_us, 42000);
    ck_assert_uint_le(with.makespan_us, without.makespan_us * 102 / 100);
}
END_TEST

/* Before anything is known of the time of a step. */
START_TEST(the_first_steps_have_few_rows_of_prompts) {
    ck_assert_uint_gt(simulate(0, 64000, N_PROMPT, 1).early_gap_us, 70000);
    ck_assert_uint_le(simulate(40000, 64000, N_PROMPT, 1).early_gap_us, 42000);
}
END_TEST

/* Few rows are left for prompts: they wait long, or not so long if that goes first. */
START_TEST(a_prompt_that_has_waited_for_half_its_objective_gets_all_rows) {
    const outcome itl = simulate(12000, 56000, N_PROMPT, 1),
                  ttft = simulate_both(12000, 1000000, 56000, N_PROMPT, 1);
    ck_assert_uint_gt(itl.most_first_us, 2500000);
    ck_assert_uint_le(ttft.most_first_us, 2000000);
    ck_assert_uint_lt(ttft.first_token_us, itl.first_token_us);
    ck_assert_uint_le(itl.gap_us, 13000);
    ck_assert_uint_gt(ttft.gap_us, 50000);
}
END_TEST

START_TEST(long_prompts_get_fewer_rows_the_deeper_they_are) {
    const outcome with = simulate(60000, 1500000, 4000, 1);
    ck_assert_uint_le(with.gap_us, 63000);
}
END_TEST

START_TEST(two_steps_in_flight_keep_it_too) {
    ck_assert_uint_le(simulate(40000, 64000, N_PROMPT, 2).gap_us, 42000);
}
END_TEST

START_TEST(an_objective_that_decoding_alone_misses_still_lets_prompts_advance) {
    const outcome o = simulate(1000, 100000, N_PROMPT, 1);
    ck_assert_uint_le(o.gap_us, 20000); /* 16 rows of prompts beside 32 */
}
END_TEST

CHECK_MAIN("objective", a_gap_is_as_long_as_the_objective_and_throughput_stays,
           the_first_steps_have_few_rows_of_prompts,
           a_prompt_that_has_waited_for_half_its_objective_gets_all_rows,
           long_prompts_get_fewer_rows_the_deeper_they_are, two_steps_in_flight_keep_it_too,
           an_objective_that_decoding_alone_misses_still_lets_prompts_advance)
