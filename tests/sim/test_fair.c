/* Fairness between tenants: the bound of scheduler/waiting.h under random streams, and what a
 * flood costs another tenant. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "scheduler/policy.h"
#include "scheduler/waiting.h"
#include "sim/sim.h"
#include "tests/check_main.h"

enum { SEQS = 8, BLOCKS = 128, BLOCK = 16, ROWS = 64, LEN = 600, TENANTS = 3, STEPS = 6000 };

static const sched_config config = {.group = {{.n_blocks = BLOCKS}},
                                    .n_groups = 1,
                                    .block_tokens = BLOCK,
                                    .max_seqs = SEQS,
                                    .max_waiting = 64,
                                    .max_waiting_tokens = 1 << 30,
                                    .max_model_len = LEN,
                                    .max_rows = ROWS,
                                    .max_logit_rows = ROWS,
                                    .depth = 1,
                                    .policy = &sched_fair};

typedef struct crowd {
    sched *s;
    uint64_t rng, now_us;
    uint32_t most_prompt, weight[TENANTS], waiting[TENANTS];
    double served[TENANTS]; /* per weight */
} crowd;

static uint32_t draw(crowd *c, uint32_t lo, uint32_t hi) {
    c->rng = hash_mix(c->rng + 1);
    return lo + (uint32_t)(c->rng % (hi - lo + 1));
}

/* Each tenant has always some that wait: of one long prompts, of one long answers, of one both
 * short. */
static void keep_busy(crowd *c) {
    static const int32_t prompt[LEN] = {0};
    for (uint32_t t = 0; t < TENANTS; t++)
        while (c->waiting[t] < 4) {
            sched_spec spec = {.prompt = prompt, .tenant = 2 * t + 1, .weight = c->weight[t]};
            sched_id id;
            spec.n_prompt = t == 0 ? draw(c, 100, 400) : draw(c, 1, 40);
            spec.max_tokens = t == 1 ? draw(c, 50, 200) : draw(c, 1, 20);
            spec.user = (uint64_t)spec.n_prompt << 8 | t;
            if (spec.n_prompt > c->most_prompt) c->most_prompt = spec.n_prompt;
            ck_assert_int_eq(sched_submit(c->s, &spec, c->now_us, &id), REJECT_NONE);
            c->waiting[t]++;
        }
}

static void take_events(crowd *c) {
    const sched_event *e;
    for (size_t n = sched_events(c->s, &e); n > 0; n--, e++) {
        const uint32_t t = e->user & 255;
        if (e->kind == EVENT_ADMITTED) {
            c->waiting[t]--;
            c->served[t] += (double)(e->user >> 8) * WAITING_PROMPT / c->weight[t];
        }
        if (e->kind == EVENT_TOKEN)
            c->served[t] += (double)e->n_tokens * WAITING_OUTPUT / c->weight[t];
    }
}

static void check_bound(uint64_t seed, const uint32_t weight[TENANTS]) {
    crowd c = {.rng = seed};
    const int32_t zeroes[SEQS] = {0};
    const sched_step_tokens drawn = {.token = zeroes, .stride = 1};
    void *mem = aligned_alloc(64, sched_bytes(&config));
    memcpy(c.weight, weight, sizeof c.weight);
    c.s = sched_init(mem, &config);
    for (int i = 0; i < STEPS; i++) {
        keep_busy(&c);
        const sched_step *st = sched_plan(c.s, c.now_us++);
        take_events(&c);
        ck_assert_ptr_nonnull(st);
        sched_commit(c.s, st, &drawn);
        take_events(&c);
        sched_audit(c.s);
        const double in = WAITING_PROMPT * (double)c.most_prompt,
                     out = WAITING_OUTPUT * (double)BLOCKS * BLOCK, most = in > out ? in : out;
        for (uint32_t a = 0; a < TENANTS; a++)
            for (uint32_t b = 0; b < TENANTS; b++) SWEEP(c.served[a] - c.served[b] <= 2 * most);
    }
    /* And it is fair: over the whole run the shares are those of the weights. */
    for (uint32_t a = 1; a < TENANTS; a++) {
        ck_assert_double_gt(c.served[a], 0.95 * c.served[0]);
        ck_assert_double_lt(c.served[a], 1.05 * c.served[0]);
    }
    free(mem);
}

START_TEST(services_of_busy_tenants_stay_within_the_bound) {
    for (uint64_t seed = 0; seed < 10; seed++)
        check_bound(seed, (const uint32_t[TENANTS]){1, 1, 1});
}
END_TEST

START_TEST(weights_are_shares) {
    for (uint64_t seed = 0; seed < 5; seed++)
        check_bound(seed, (const uint32_t[TENANTS]){1, 2, 5});
}
END_TEST

/* ---- shortest ---- */

enum { BURSTS = 400 };

typedef struct waiter {
    uint64_t at_us, most_us;
    bool waits;
} waiter;

/* Random lengths, more than the places hold; by the prompts of a tenant, its answers end at a tenth of
 * max_tokens or at all of it. Each that is admitted came before those that still wait could have been
 * delayed. Returns how often one was overtaken. */
static uint32_t check_shortest(uint64_t seed) {
    static const int32_t prompt[LEN] = {0};
    static waiter w[BURSTS * 4];
    sched_config cfg = config;
    crowd c = {.rng = seed};
    const int32_t zeroes[SEQS] = {0};
    const sched_step_tokens drawn = {.token = zeroes, .stride = 1};
    uint32_t n = 0, n_overtaken = 0, n_left = 0;
    cfg.policy = &sched_shortest;
    cfg.group[0].n_blocks = SEQS * LEN / BLOCK + SEQS;
    cfg.max_waiting = BURSTS * 4;
    void *mem = aligned_alloc(64, sched_bytes(&cfg));
    c.s = sched_init(mem, &cfg);
    for (uint32_t step = 0; step < BURSTS || n_left > 0; step++) {
        for (uint32_t k = step < BURSTS ? draw(&c, 0, 3) : 0; k > 0; k--, n++, n_left++) {
            sched_spec spec = {.prompt = prompt, .n_prompt = draw(&c, 1, 300), .user = n};
            sched_id id;
            spec.max_tokens = draw(&c, 1, 200);
            w[n] = (waiter){c.now_us,
                            4 * (1000ULL * spec.n_prompt + 10000ULL * spec.max_tokens), true};
            ck_assert_int_eq(sched_submit(c.s, &spec, c.now_us, &id), REJECT_NONE);
        }
        const sched_step *st = sched_plan(c.s, c.now_us);
        const sched_event *e;
        for (size_t i = sched_events(c.s, &e); i > 0; i--, e++) {
            if (e->kind != EVENT_ADMITTED) continue;
            w[e->user].waits = false;
            for (uint32_t k = 0; k < e->user; k++) {
                if (!w[k].waits) continue;
                n_overtaken++;
                SWEEP(w[e->user].at_us - w[k].at_us <= w[k].most_us);
            }
        }
        if (st) sched_commit(c.s, st, &drawn);
        for (size_t i = sched_events(c.s, &e); i > 0; i--, e++)
            n_left -= e->kind == EVENT_ENDED;
        sched_audit(c.s);
        c.now_us += 20000;
    }
    free(mem);
    return n_overtaken;
}

START_TEST(shortest_delays_no_sequence_by_more_than_its_own_head_start) {
    for (uint64_t seed = 0; seed < 10; seed++) ck_assert_uint_gt(check_shortest(seed), 100);
}
END_TEST

enum { FLOOD = 1000, OTHERS = 10, N = FLOOD + OTHERS };

/* One tenant sends FLOOD requests at once, another one a request now and then. Returns the
 * makespan; worst: how long one of the other's waited, by how long it was served. */
static uint64_t flood(const sched_policy *policy, double *worst) {
    static sim_arrival arrival[N];
    static sim_request request[N];
    sim_totals totals;
    err e;
    sim_config cfg = {.sched = config,
                      .time = {.a = 1900, .b = 250, .c = 0.49, .d = 100},
                      .depth = 1,
                      .audit = true};
    cfg.sched.policy = policy;
    cfg.sched.max_waiting = N;
    cfg.sched.group[0].n_blocks = 1024;
    for (uint32_t i = 0; i < N; i++)
        arrival[i] = (sim_arrival){.at_us = i < FLOOD ? 0 : 1000000ULL * (i - FLOOD + 1),
                                   .n_prompt = 64,
                                   .max_tokens = 64,
                                   .tenant = i < FLOOD ? 1 : 3};
    ck_assert_int_eq(sim_run(&cfg, arrival, N, request, &totals, &e), OK);
    *worst = 0;
    for (uint32_t i = FLOOD; i < N; i++) {
        const double waited = (double)(request[i].first_token_us - arrival[i].at_us),
                     served = (double)(request[i].ended_us - request[i].admitted_us);
        if (waited / served > *worst) *worst = waited / served;
    }
    return totals.makespan_us;
}

START_TEST(a_flood_delays_another_by_two_services_at_most_and_costs_no_throughput) {
    double fair, fcfs;
    const uint64_t with = flood(&sched_fair, &fair), without = flood(&sched_fcfs, &fcfs);
    ck_assert_double_gt(fcfs, 20);
    ck_assert_double_lt(fair, 2);
    ck_assert_uint_le(with, without * 101 / 100);
}
END_TEST

CHECK_MAIN("fair", services_of_busy_tenants_stay_within_the_bound, weights_are_shares,
           shortest_delays_no_sequence_by_more_than_its_own_head_start,
           a_flood_delays_another_by_two_services_at_most_and_costs_no_throughput)
