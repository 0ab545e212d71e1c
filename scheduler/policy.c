/* The policy of policy.h that a config without one has. */
#include "scheduler/policy.h"

static uint64_t by_priority(void *self, const sched_spec *spec, uint64_t arrival,
                            uint64_t now_us) {
    (void)self;
    (void)arrival;
    (void)now_us;
    /* Signed to unsigned in order: the most negative priority becomes 0. */
    return (uint64_t)((int64_t)spec->priority - INT32_MIN);
}

static uint64_t by_admission(void *self, const sched_spec *spec, uint64_t n) {
    (void)self;
    (void)spec;
    return n;
}

static uint32_t half_at_most(void *self, const sched_config *cfg, uint32_t n_left) {
    const uint32_t most = cfg->max_prefill_share ? cfg->max_prefill_share : cfg->max_rows / 2;
    const uint32_t half = n_left / 2 + n_left % 2;
    (void)self;
    return most < half ? most : half;
}

const sched_policy sched_fcfs = {
    .waiting_key = by_priority, .ticket_key = by_admission, .prefill_share = half_at_most};
