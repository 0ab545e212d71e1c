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

static uint64_t by_admission(void *self, const sched_spec *spec, uint64_t key, uint64_t n) {
    (void)self;
    (void)spec;
    (void)key;
    return n;
}

/* A key is a priority above a turn; a turn's upper half is lost after 2^32 requests of one
 * tenant, which then has some places in the wrong order. */
static uint64_t by_turn(void *self, const sched_spec *spec, uint64_t arrival, uint64_t now_us) {
    sched_turns *t = self;
    /* the lowest bit of a tenant's number is 1 (0: unknown) */
    uint64_t *next = &t->next[(spec->tenant >> 1) % SCHED_TURNS];
    const uint64_t turn = *next > t->now ? *next : t->now;
    *next = turn + 1;
    return by_priority(self, spec, arrival, now_us) << 32 | (turn & UINT32_MAX);
}

static uint64_t count_turn(void *self, const sched_spec *spec, uint64_t key, uint64_t n) {
    sched_turns *t = self;
    const uint64_t turn = (t->now & ~(uint64_t)UINT32_MAX) | (key & UINT32_MAX);
    (void)spec;
    if (turn > t->now) t->now = turn;
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

sched_policy sched_fair(sched_turns *turns) {
    return (sched_policy){turns, by_turn, count_turn, half_at_most};
}
