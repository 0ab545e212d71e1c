/* Replicas under one clock: one of them is the simulator of sim.h; what routers do. */
#include "base/hash.h"
#include "sim/fleet.h"
#include "sim/sim.h"
#include "tests/check_main.h"

enum { N = 1200 };

static fleet_arrival arrival[N];
static uint64_t ids[N][4];
static fleet_result result;

static fleet_config config(uint32_t n_replicas, fleet_router router) {
    return (fleet_config){.sched = {.group = {{.n_blocks = 120}},
                                    .n_groups = 1,
                                    .block_tokens = 16,
                                    .max_seqs = 16,
                                    .max_waiting = N,
                                    .max_waiting_tokens = 1 << 30,
                                    .max_model_len = 4096,
                                    .max_rows = 256,
                                    .max_logit_rows = 16,
                                    .watermark_permille = 0,
                                    .prefix_cache = true},
                          .cost = {.coef = {0, 100, 0, 0}},
                          .n_replicas = n_replicas,
                          .depth = 1,
                          .router = router,
                          .seed = 7};
}

static void set_states(fleet_config *c, uint32_t n_checkpoints) {
    c->sched.state_slots = c->sched.max_seqs + n_checkpoints;
    c->sched.state_chunk = 16;
    c->sched.state_bytes = 1000;
}

static void run(const fleet_config *c, uint32_t n) {
    err e;
    ck_assert_int_eq(fleet_run(c, arrival, n, &result, &e), OK);
    ck_assert_uint_eq(result.n_ok, n);
}

/* Every gap_us; most are short, each fifth is long. */
static void make_arrivals(uint32_t n, uint64_t gap_us) {
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t draw = hash_mix(i + 1);
        arrival[i] = (fleet_arrival){.at_us = i * gap_us,
                                     .n_prompt = draw % 5 ? 40 + draw % 100 : 1500,
                                     .n_output = 1 + (uint32_t)(draw >> 32) % 60};
    }
}

START_TEST(one_replica_is_the_simulator) {
    static sim_arrival same[N];
    static sim_request request[N];
    sim_totals totals;
    err e;
    const uint32_t n = 200;
    for (uint32_t k = 0; k < 4; k++) {
        const uint32_t depth = 1 + k % 2;
        fleet_config c = config(1, ROUTER_ROUND_ROBIN);
        c.depth = c.sched.depth = depth;
        if (k >= 2) set_states(&c, 4);
        c.audit = true;
        make_arrivals(n, 20000);
        for (uint32_t i = 0; i < n; i++)
            same[i] = (sim_arrival){.at_us = arrival[i].at_us,
                                    .n_prompt = arrival[i].n_prompt,
                                    .max_tokens = arrival[i].n_output,
                                    .salt = i + 1};
        const sim_config s = {
            .sched = c.sched, .time = {.b = 100}, .depth = depth, .verify = true};
        ck_assert_int_eq(sim_run(&s, same, n, request, &totals, &e), OK);
        run(&c, n);
        double ttft = 0, e2e = 0;
        for (uint32_t i = 0; i < n; i++) {
            ttft += (double)(request[i].first_token_us - arrival[i].at_us);
            e2e += (double)(request[i].ended_us - arrival[i].at_us);
        }
        ck_assert_uint_gt(totals.n_preemptions, 0);
        ck_assert_uint_eq(result.preemptions, totals.n_preemptions);
        ck_assert_uint_eq(result.n_steps, totals.n_steps);
        ck_assert_uint_eq(result.makespan_us, totals.makespan_us);
        ck_assert(result.ttft.sum == ttft && result.e2e.sum == e2e);
    }
}
END_TEST

START_TEST(routers_that_know_the_load_keep_first_tokens_early) {
    double p99[2][N_ROUTERS];
    for (int stale = 0; stale < 2; stale++)
        for (int r = 0; r < ROUTER_PREFIX_AFFINITY; r++) {
            fleet_config c = config(8, (fleet_router)r);
            c.sched.group[0].n_blocks = 4096;
            if (stale) c.staleness_us = 5000000;
            make_arrivals(N, 6500);
            run(&c, N);
            p99[stale][r] = fleet_times_at(&result.ttft, 0.99);
        }
    ck_assert(p99[0][ROUTER_LEAST_LOADED] < p99[0][ROUTER_ROUND_ROBIN]);
    ck_assert(p99[0][ROUTER_TWO_CHOICES] < p99[0][ROUTER_ROUND_ROBIN]);
    ck_assert(p99[1][ROUTER_LEAST_LOADED] > 1.2 * p99[0][ROUTER_LEAST_LOADED]);
    ck_assert(p99[1][ROUTER_ROUND_ROBIN] == p99[0][ROUTER_ROUND_ROBIN]);
}
END_TEST

/* Conversations of four turns, each of 512 tokens more; a hundred at a time. */
static void make_talks(void) {
    for (uint32_t i = 0; i < N; i++) {
        const uint32_t turn = i / 100 % 4, talk = i / 400 * 100 + i % 100;
        for (uint32_t k = 0; k <= turn; k++) ids[i][k] = talk * 4 + k;
        arrival[i] = (fleet_arrival){.at_us = i * 40000,
                                     .n_prompt = (turn + 1) * FLEET_ID_TOKENS,
                                     .n_output = 8,
                                     .n_ids = turn + 1,
                                     .ids = ids[i]};
    }
}

START_TEST(affinity_finds_what_a_replica_has_of_a_prompt) {
    uint64_t cached[N_ROUTERS];
    for (int r = 0; r < N_ROUTERS; r++) {
        fleet_config c = config(8, (fleet_router)r);
        c.sched.group[0].n_blocks = 4096;
        make_talks();
        run(&c, N);
        cached[r] = result.cached_tokens;
    }
    ck_assert_uint_gt(cached[ROUTER_PREFIX_AFFINITY], 3 * cached[ROUTER_TWO_CHOICES]);
    /* All but the first turn of each, and the last blocks. */
    ck_assert_uint_gt(cached[ROUTER_PREFIX_AFFINITY], N / 400 * 100 * 6 * 512 * 8 / 10);
}
END_TEST

/* A turn is found behind a checkpoint alone: with a slot for each conversation as much as without states, less
 * with fewer, and the blocks of the rest are known and of no use. */
START_TEST(checkpoints_of_states_decide_what_is_found) {
    const uint32_t n = 400; /* all turns of a hundred */
    uint64_t cached[3], missed[3];
    for (int k = 0; k < 3; k++) {
        fleet_config c = config(1, ROUTER_ROUND_ROBIN);
        c.sched.group[0].n_blocks = 16384;
        make_talks();
        if (k > 0) set_states(&c, k == 1 ? n : 40);
        run(&c, n);
        cached[k] = result.cached_tokens, missed[k] = result.state_missed_tokens;
        if (k == 0) ck_assert_uint_eq(result.checkpoints_written + result.state_most, 0);
        if (k == 0) continue;
        ck_assert_uint_gt(result.checkpoints_written, n);
        ck_assert(k == 1 || result.checkpoints_evicted > n / 2);
        ck_assert_uint_le(result.state_most, c.sched.state_slots);
        ck_assert_uint_ge(result.state_most, k == 1 ? n / 4 : c.sched.state_slots - 4);
    }
    ck_assert_uint_gt(cached[1], cached[0] * 95 / 100);
    ck_assert_uint_lt(cached[2], cached[0] / 4);
    ck_assert_uint_eq(missed[0], 0);
    ck_assert_uint_gt(missed[2], cached[0] / 2);
}
END_TEST

START_TEST(the_same_input_gives_the_same_result) {
    static fleet_result first;
    const fleet_config c = config(4, ROUTER_TWO_CHOICES);
    make_arrivals(600, 12000);
    run(&c, 600);
    first = result;
    run(&c, 600);
    ck_assert_mem_eq(&first, &result, sizeof first);
}
END_TEST

START_TEST(what_is_too_long_or_too_much_is_refused_and_counted) {
    fleet_config c = config(1, ROUTER_ROUND_ROBIN);
    err e;
    c.sched.max_waiting = 10;
    make_arrivals(100, 0);
    arrival[0].n_prompt = 5000;
    ck_assert_int_eq(fleet_run(&c, arrival, 100, &result, &e), OK);
    ck_assert_uint_eq(result.n_ok + result.n_rejected, 100);
    ck_assert_uint_ge(result.n_rejected, 70);
    arrival[1].n_output = 0;
    ck_assert_int_eq(fleet_run(&c, arrival, 100, &result, &e), ERR_INVALID);
}
END_TEST

/* The host's time is within a step's; a request that comes meanwhile joins the next one. */
START_TEST(what_is_not_the_engine_s_takes_its_time) {
    const uint32_t n = 100;
    fleet_config c = config(1, ROUTER_ROUND_ROBIN);
    c.cost = (cost_model){.coef = {1000, 100, 0, 0}};
    make_arrivals(n, 1000000); /* each by itself */
    for (uint32_t i = 0; i < n; i++) arrival[i].at_us += 1000000;
    run(&c, n);
    const double ttft = result.ttft.sum, itl = result.itl.sum;
    c.http_us = 700;
    run(&c, n);
    ck_assert_double_eq_tol(result.ttft.sum, ttft + 700 * n, 1);
    ck_assert_double_eq_tol(result.itl.sum, itl, 1);
    c.http_us = 0, c.host_us = 400;
    c.audit = true;
    run(&c, n);
    ck_assert_double_eq_tol(result.itl.sum, itl, 1);
    ck_assert_double_eq_tol(result.ttft.sum, ttft - 400 * n,
                            n); /* the first step follows none */

    /* A step of 2,001 us, its end 400 us before the next plan. */
    arrival[0] = (fleet_arrival){.at_us = 1000000, .n_prompt = 10, .n_output = 2};
    arrival[1] = (fleet_arrival){.at_us = 1001800, .n_prompt = 1, .n_output = 1};
    run(&c, 2);
    ck_assert_uint_eq(result.n_steps, 2);
    arrival[1].at_us = 1002002;
    run(&c, 2);
    ck_assert_uint_eq(result.n_steps, 3);
}
END_TEST

START_TEST(the_use_of_the_cache_is_kept_over_time) {
    for (uint64_t gap = 1000; gap <= 1000000; gap *= 10) { /* up to 20 minutes */
        fleet_config c = config(1, ROUTER_ROUND_ROBIN);
        make_arrivals(N, gap);
        run(&c, N);
        const fleet_kv *k = &result.kv;
        double sum = 0, n = 0;
        for (uint32_t i = 0; i < KV_INTERVALS; i++) sum += k->sum[i], n += k->samples[i];
        ck_assert_double_eq_tol(sum / n, result.kv_mean, 1e-9);
        ck_assert_uint_eq(k->n, result.makespan_us / k->width_us + 1);
        ck_assert_uint_gt(k->n, KV_INTERVALS / 2 - 1);
    }
}
END_TEST

START_TEST(steps_scatter_as_they_did) {
    static const fleet_scatter scatter[] = {{1000, 0.5F}, {1000, 1}, {1000, 1}, {1000, 1.5F}};
    const uint32_t n = 400;
    fleet_config c = config(1, ROUTER_ROUND_ROBIN);
    c.cost = (cost_model){.coef = {1000, 0, 0, 0}};
    make_arrivals(n, 1000000);
    run(&c, n);
    const double mean = result.itl.sum;
    ck_assert_uint_eq(result.itl.max, 1001);
    c.scatter = scatter, c.n_scatter = 4;
    run(&c, n);
    ck_assert_double_eq_tol(result.itl.sum, mean, 0.02 * mean);
    ck_assert_uint_eq(result.itl.max, 1501);
    ck_assert_double_eq_tol(fleet_times_at(&result.itl, 0.1), 501, 5);
    ck_assert_double_eq_tol(fleet_times_at(&result.itl, 0.5), 1001, 10);
    const fleet_times first = result.itl;
    run(&c, n);
    ck_assert_mem_eq(&first, &result.itl, sizeof first);
    c.seed++;
    run(&c, n);
    ck_assert_mem_ne(&first, &result.itl, sizeof first);
}
END_TEST

/* A step of 1 ms takes what short steps took, whatever long ones did. */
START_TEST(a_step_scatters_as_those_near_it) {
    enum { N = 200 };
    fleet_scatter scatter[2 * N];
    for (uint32_t i = 0; i < N; i++) {
        scatter[i] = (fleet_scatter){990 + (float)i / 10, i % 2 ? 0.5F : 1.5F};
        scatter[N + i] = (fleet_scatter){9900 + (float)i, 8};
    }
    fleet_config c = config(1, ROUTER_ROUND_ROBIN);
    c.scatter = scatter, c.n_scatter = 2 * N;
    make_arrivals(400, 1000000);
    c.cost = (cost_model){.coef = {1000, 0, 0, 0}};
    run(&c, 400);
    ck_assert_uint_eq(result.itl.max, 1501);
    ck_assert_double_eq_tol(fleet_times_at(&result.itl, 0.25), 501, 5);
    c.cost.coef[0] = 10000;
    run(&c, 400);
    ck_assert_double_eq_tol(fleet_times_at(&result.itl, 0.01), 80001, 800);
    c.cost.coef[0] = 100000; /* longer than any that was timed */
    run(&c, 400);
    ck_assert_double_eq_tol(fleet_times_at(&result.itl, 0.01), 800001, 8000);
}
END_TEST

CHECK_MAIN("fleet", a_step_scatters_as_those_near_it, steps_scatter_as_they_did,
           what_is_not_the_engine_s_takes_its_time, the_use_of_the_cache_is_kept_over_time,
           one_replica_is_the_simulator, routers_that_know_the_load_keep_first_tokens_early,
           affinity_finds_what_a_replica_has_of_a_prompt,
           checkpoints_of_states_decide_what_is_found, the_same_input_gives_the_same_result,
           what_is_too_long_or_too_much_is_refused_and_counted)
