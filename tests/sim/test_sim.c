/* The scheduler under the virtual clock, with a late engine that sees every wrong read: whole
 * workloads, and what policies make of them. */
#include <stdlib.h>

#include "base/hash.h"
#include "sim/sim.h"
#include "tests/check_main.h"

enum { MANY = 400 };

static sim_config config(uint32_t depth) {
    return (sim_config){.sched = {.group = {{.n_blocks = 128}},
                                  .n_groups = 1,
                                  .block_tokens = 16,
                                  .max_seqs = 32,
                                  .max_waiting = 10000,
                                  .max_waiting_tokens = 10000000,
                                  .max_model_len = 1024,
                                  .max_rows = 128,
                                  .max_logit_rows = 128,
                                  .watermark_permille = 50},
                        .time = {.a = 5000, .b = 100, .c = 0.1, .d = 10},
                        .depth = depth,
                        .verify = true,
                        .audit = true};
}

/* n arrivals about gap_us apart, prompts of 10 to 210 and texts of 10 to 110 tokens. */
static void arrive(sim_arrival *a, uint32_t n, uint64_t gap_us, uint64_t seed) {
    uint64_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t r = hash_mix(seed + i);
        at += r % (2 * gap_us + 1);
        a[i] = (sim_arrival){.at_us = at,
                             .n_prompt = 10 + (uint32_t)(r >> 16) % 201,
                             .max_tokens = 10 + (uint32_t)(r >> 40) % 101};
    }
}

static sim_totals simulate(const sim_config *cfg, const sim_arrival *a, uint32_t n,
                           sim_request *r) {
    sim_totals t;
    err e;
    ck_assert_int_eq(sim_run(cfg, a, n, r, &t, &e), OK);
    return t;
}

START_TEST(every_text_is_right_under_preemption_at_depth_one_and_two) {
    static sim_arrival a[MANY];
    static sim_request r[MANY];
    arrive(a, MANY, 20000, 1);
    for (uint32_t depth = 1; depth <= 2; depth++) {
        sim_config cfg = config(depth);
        cfg.sched.group[0].n_blocks = 40;
        cfg.sched.watermark_permille = 0;
        sim_totals t = simulate(&cfg, a, MANY, r); /* compares each token */
        ck_assert_uint_gt(t.n_preemptions, 10);
        ck_assert_uint_gt(t.n_recomputed_tokens, 0);
        for (uint32_t i = 0; i < MANY; i++) {
            ck_assert_int_eq(r[i].finish, FINISH_LENGTH);
            ck_assert_uint_eq(r[i].n_output, a[i].max_tokens);
        }
    }
}
END_TEST

START_TEST(the_same_log_gives_the_same_steps_byte_for_byte) {
    static sim_arrival a[MANY];
    static sim_request r[MANY];
    arrive(a, MANY, 20000, 2);
    sim_config cfg = config(2);
    sim_totals one = simulate(&cfg, a, MANY, r);
    sim_totals two = simulate(&cfg, a, MANY, r);
    ck_assert_uint_eq(one.plan_hash, two.plan_hash);
    ck_assert_uint_eq(one.n_steps, two.n_steps);
    a[MANY / 2].max_tokens++;
    ck_assert_uint_ne(simulate(&cfg, a, MANY, r).plan_hash, one.plan_hash);
}
END_TEST

START_TEST(the_watermark_prevents_preemption_storms_under_overload) {
    static sim_arrival a[MANY];
    static sim_request r[MANY];
    arrive(a, MANY, 1000, 3);
    sim_config cfg = config(1);
    cfg.sched.watermark_permille = 0;
    sim_totals none = simulate(&cfg, a, MANY, r);
    cfg.sched.watermark_permille = 50;
    sim_totals five = simulate(&cfg, a, MANY, r);
    ck_assert_uint_gt(none.n_preemptions, five.n_preemptions);
    /* Even without it, evicted sequences return once: recomputing stays a small part. */
    ck_assert_uint_lt(none.n_recomputed_tokens, none.n_rows / 5);
    ck_assert_uint_lt(five.n_recomputed_tokens, five.n_rows / 20);
}
END_TEST

START_TEST(a_long_prompt_delays_decoding_by_one_step_budget_at_most) {
    static sim_arrival a[50];
    static sim_request r[50];
    for (uint32_t i = 0; i < 50; i++) {
        a[i] = (sim_arrival){.at_us = i * 1000, .n_prompt = i < 4 ? 10 : 900, .max_tokens = 60};
    }
    sim_config cfg = config(1);
    cfg.sched.group[0].n_blocks = 1024;
    simulate(&cfg, a, 50, r);
    /* Of a step: 128 rows, 32 sequences, at most 32 * 960 cached tokens. */
    uint64_t longest = 128 * 100 + 32 * 10 + 3072 + 1;
    for (uint32_t i = 0; i < 4; i++) ck_assert_uint_le(r[i].max_gap_us, longest);
}
END_TEST

START_TEST(cancels_and_timeouts_in_a_crowd_leave_every_block_free) {
    static sim_arrival a[MANY];
    static sim_request r[MANY];
    arrive(a, MANY, 8000, 4);
    for (uint32_t i = 0; i < MANY; i++) {
        if (i % 3 == 1) a[i].cancel_after_us = 1 + hash_mix(i) % 3000000;
        if (i % 3 == 2) a[i].timeout_us = 1 + hash_mix(i) % 3000000;
    }
    sim_config cfg = config(2);
    cfg.sched.group[0].n_blocks = 48;
    sim_totals t = simulate(&cfg, a, MANY, r); /* checks the blocks */
    uint32_t n[FINISH_ERROR + 1] = {0};
    for (uint32_t i = 0; i < MANY; i++) n[r[i].finish]++;
    ck_assert_uint_eq(t.n_ended, MANY);
    ck_assert_uint_gt(n[FINISH_CANCELLED], 20);
    ck_assert_uint_gt(n[FINISH_TIMEOUT], 20);
    ck_assert_uint_gt(n[FINISH_LENGTH], MANY / 3);
    ck_assert_uint_eq(n[FINISH_ERROR] + n[FINISH_NONE], 0);
}
END_TEST

START_TEST(longer_than_the_cache_but_under_max_model_len_is_refused_and_harms_nobody) {
    sim_arrival a[3] = {{.n_prompt = 300, .max_tokens = 50},
                        {.at_us = 1, .n_prompt = 700, .max_tokens = 50},
                        {.at_us = 2, .n_prompt = 100, .max_tokens = 50}};
    sim_request r[3];
    sim_config cfg = config(1);
    cfg.sched.group[0].n_blocks = 32; /* 512 tokens */
    simulate(&cfg, a, 3, r);
    ck_assert_int_eq(r[1].rejected, REJECT_NEVER_FITS);
    ck_assert_int_eq(r[0].finish, FINISH_LENGTH);
    ck_assert_int_eq(r[2].finish, FINISH_LENGTH);
}
END_TEST

START_TEST(texts_share_the_cache_instead_of_reserving_their_longest_length) {
    static sim_arrival a[64];
    static sim_request r[64];
    for (uint32_t i = 0; i < 64; i++) a[i] = (sim_arrival){.n_prompt = 16, .max_tokens = 1000};
    for (uint32_t i = 0; i < 64; i++) a[i].cancel_after_us = 400000; /* a short text, then */
    sim_config cfg = config(1);
    cfg.sched.max_seqs = 32;
    simulate(&cfg, a, 64, r);
    uint32_t n_served = 0;
    for (uint32_t i = 0; i < 64; i++) n_served += r[i].n_output > 10;
    ck_assert_uint_eq(n_served, 32); /* all slots; a reservation would hold 2 at a time */
}
END_TEST

START_TEST(a_step_takes_what_the_model_of_time_says) {
    step_time t = {.a = 100, .b = 10, .c = 0.5, .d = 2};
    sched_step_seq q[2] = {{.first_pos = 7, .n_rows = 1}, {.first_pos = 0, .n_rows = 4}};
    sched_step st = {.n_seqs = 2, .n_rows = 5, .seq = q};
    ck_assert_double_eq_tol(step_time_us(&t, &st), 100 + 0.5 * 12 + 4, 1e-9);
    t.a = 10;
    ck_assert_double_eq_tol(step_time_us(&t, &st), 50 + 0.5 * 12 + 4, 1e-9);
}
END_TEST

START_TEST(arrivals_out_of_order_are_an_error) {
    sim_arrival a[2] = {{.at_us = 5, .n_prompt = 1, .max_tokens = 1},
                        {.at_us = 4, .n_prompt = 1, .max_tokens = 1}};
    sim_request r[2];
    sim_totals t;
    sim_config cfg = config(1);
    err e;
    ck_assert_int_eq(sim_run(&cfg, a, 2, r, &t, &e), ERR_INVALID);
    cfg.depth = 3;
    ck_assert_int_eq(sim_run(&cfg, a, 1, r, &t, &e), ERR_INVALID);
}
END_TEST

START_TEST(equal_texts_are_found_in_the_prefix_cache_and_forks_share_their_prompt) {
    sim_arrival a[7] = {
        {.n_prompt = 100, .max_tokens = 5, .text = 7, .salt = 1},
        {.at_us = 1000000, .n_prompt = 200, .max_tokens = 5, .text = 7, .salt = 1},
        {.at_us = 2000000, .n_prompt = 200, .max_tokens = 5, .text = 7, .salt = 2},
        {.at_us = 3000000, .n_prompt = 200, .max_tokens = 5, .text = 8, .salt = 1},
        {.at_us = 4000000, .n_prompt = 200, .max_tokens = 5, .salt = 1},
        {.at_us = 5000000, .n_prompt = 50, .max_tokens = 9},
        {.at_us = 5000000, .n_prompt = 50, .max_tokens = 9, .fork_of = 6}};
    sim_request r[7];
    sim_config cfg = config(2);
    cfg.sched.prefix_cache = true;
    sim_totals t = simulate(&cfg, a, 7, r); /* compares each token */
    const uint32_t cached[] = {0, 96, 0, 0, 0, 0, 49};
    for (int i = 0; i < 7; i++) ck_assert_uint_eq(r[i].n_cached, cached[i]);
    ck_assert_uint_eq(t.n_ended, 7);
    err e;
    a[6].n_prompt++;
    ck_assert_int_eq(sim_run(&cfg, a, 7, r, &t, &e), ERR_INVALID);
    a[6] = (sim_arrival){.at_us = 5000000, .n_prompt = 50, .max_tokens = 9, .fork_of = 7};
    ck_assert_int_eq(sim_run(&cfg, a, 7, r, &t, &e), ERR_INVALID); /* of itself */
}
END_TEST

/* Whatever comes together, texts are right, and later ones find what earlier ones left. */
START_TEST(a_crowd_that_shares_a_few_texts_computes_less) {
    static sim_arrival a[MANY];
    static sim_request r[MANY];
    arrive(a, MANY, 20000, 5);
    sim_config cfg = config(2);
    cfg.sched.prefix_cache = true;
    sim_totals own = simulate(&cfg, a, MANY, r);
    for (uint32_t i = 0; i < MANY; i++) a[i].text = 1 + i % 4;
    sim_totals shared = simulate(&cfg, a, MANY, r);
    ck_assert_uint_lt(shared.n_rows, own.n_rows * 3 / 4);
    ck_assert_uint_eq(shared.n_output_tokens, own.n_output_tokens);
}
END_TEST

CHECK_MAIN("sim", every_text_is_right_under_preemption_at_depth_one_and_two,
           the_same_log_gives_the_same_steps_byte_for_byte,
           the_watermark_prevents_preemption_storms_under_overload,
           a_long_prompt_delays_decoding_by_one_step_budget_at_most,
           cancels_and_timeouts_in_a_crowd_leave_every_block_free,
           longer_than_the_cache_but_under_max_model_len_is_refused_and_harms_nobody,
           texts_share_the_cache_instead_of_reserving_their_longest_length,
           a_step_takes_what_the_model_of_time_says, arrivals_out_of_order_are_an_error,
           equal_texts_are_found_in_the_prefix_cache_and_forks_share_their_prompt,
           a_crowd_that_shares_a_few_texts_computes_less)
