/* The policies of policy.h. */
#include "scheduler/policy.h"

static uint64_t by_priority(void *self, const sched_spec *spec, uint64_t arrival,
                            uint64_t now_us) {
    (void)self;
    (void)arrival;
    (void)now_us;
    /* Signed to unsigned in order: the most negative priority becomes 0. */
    return (uint64_t)((int64_t)spec->priority - INT32_MIN);
}

static uint64_t by_admission(void *self, const sched_spec *spec, uint64_t key, uint64_t n) {
    (void)self;
    (void)spec;
    (void)key;
    return n;
}

static uint64_t by_age(void *self, const sched_spec *spec, uint64_t arrival, uint64_t now_us) {
    return now_us + by_priority(self, spec, arrival, now_us) * SCHED_AGING_US;
}

static uint32_t half_at_most(void *self, const sched_config *cfg, uint32_t n_left) {
    const uint32_t most = cfg->max_prefill_share ? cfg->max_prefill_share : cfg->max_rows / 2;
    const uint32_t half = n_left / 2 + n_left % 2;
    (void)self;
    return most < half ? most : half;
}

const sched_policy sched_fcfs = {.name = "fcfs",
                                 .waiting_key = by_priority,
                                 .ticket_key = by_admission,
                                 .prefill_share = half_at_most};

const sched_policy sched_aging = {.name = "priority",
                                  .waiting_key = by_age,
                                  .ticket_key = by_admission,
                                  .prefill_share = half_at_most};

const sched_policy sched_fair = {.name = "fair",
                                 .by_tenant = true,
                                 .waiting_key = by_priority,
                                 .ticket_key = by_admission,
                                 .prefill_share = half_at_most};

const sched_policy sched_shortest = {.name = "shortest",
                                     .by_length = true,
                                     .waiting_key = by_age,
                                     .ticket_key = by_admission,
                                     .prefill_share = half_at_most};

const sched_policy *const sched_policies[N_SCHED_POLICIES] = {&sched_fcfs, &sched_aging,
                                                              &sched_fair, &sched_shortest};
