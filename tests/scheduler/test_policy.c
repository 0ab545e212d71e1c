/* Policies: what keys do, and what they cannot do. */
#include "scheduler/policy.h"

#include <signal.h>

#include "tests/scheduler/drive.h"

static uint64_t shortest_first(void *self, const sched_spec *spec, uint64_t arrival,
                               uint64_t now_us) {
    (void)self, (void)arrival, (void)now_us;
    return spec->n_prompt;
}
/* Tenant 7 yields to two later admissions: the third has an equal key. 8: more than allowed. */
static uint64_t batch_yields(void *self, const sched_spec *spec, uint64_t key, uint64_t n) {
    (void)self, (void)key;
    return n + (spec->tenant == 7 ? 3 : spec->tenant == 8 ? SCHED_MAX_YIELD + 1 : 0);
}
static uint32_t share_of_self(void *self, const sched_config *cfg, uint32_t n_left) {
    (void)cfg, (void)n_left;
    return *(const uint32_t *)self;
}

static uint32_t share;
static const sched_policy policy = {.self = &share,
                                    .waiting_key = shortest_first,
                                    .ticket_key = batch_yields,
                                    .prefill_share = share_of_self};

static drive *with_policy(uint32_t max_seqs) {
    sched_config cfg = drive_config();
    cfg.max_seqs = max_seqs;
    cfg.policy = &policy;
    cfg.group[0].n_blocks = 64;
    share = 4;
    return drive_new(cfg);
}

static void submit(drive *d, uint64_t user, uint64_t tenant, uint32_t n_prompt) {
    sched_spec spec = drive_spec(d, n_prompt, 10);
    sched_id id;
    spec.user = user;
    spec.tenant = tenant;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
}

static void submit_as(drive *d, uint64_t user, uint32_t n_prompt, uint32_t max_tokens,
                      int32_t priority) {
    sched_spec spec = drive_spec(d, n_prompt, max_tokens);
    sched_id id;
    spec.user = user;
    spec.priority = priority;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
}

static void check_admissions(const drive *d, const uint64_t *user, size_t n) {
    size_t k = 0;
    for (size_t i = 0; i < d->n_log; i++) {
        if (d->log[i].kind != EVENT_ADMITTED) continue;
        ck_assert_uint_lt(k, n);
        ck_assert_uint_eq(d->log[i].user, user[k++]);
    }
    ck_assert_uint_eq(k, n);
}

START_TEST(the_default_orders_all_priorities_and_caps_a_share_at_half) {
    const sched_config cfg = {.max_rows = 16},
                       capped = {.max_rows = 16, .max_prefill_share = 3};
    const int32_t priority[] = {INT32_MIN, -1, 0, 1, INT32_MAX};
    for (int i = 1; i < 5; i++) {
        sched_spec a = {.priority = priority[i - 1]}, b = {.priority = priority[i]};
        ck_assert(sched_fcfs.waiting_key(NULL, &a, 2, 9) <
                  sched_fcfs.waiting_key(NULL, &b, 1, 0));
    }
    ck_assert_uint_eq(sched_fcfs.prefill_share(NULL, &cfg, 16), 8);
    ck_assert_uint_eq(sched_fcfs.prefill_share(NULL, &cfg, 5), 3);
    ck_assert_uint_eq(sched_fcfs.prefill_share(NULL, &cfg, UINT32_MAX), 8);
    ck_assert_uint_eq(sched_fcfs.prefill_share(NULL, &capped, 16), 3);
    ck_assert_uint_eq(sched_fcfs.ticket_key(NULL, NULL, 9, 5), 5);
}
END_TEST

START_TEST(the_smallest_key_is_admitted_first_and_equal_ones_as_they_came) {
    drive *d = with_policy(1);
    const uint32_t n_prompt[] = {9, 3, 5, 3};
    uint64_t order[4], n = 0;
    for (uint64_t i = 0; i < 4; i++) submit(d, i, 0, n_prompt[i]);
    drive_run(d, 100);
    for (size_t i = 0; i < d->n_log; i++)
        if (d->log[i].kind == EVENT_ADMITTED) order[n++] = d->log[i].user;
    ck_assert_uint_eq(n, 4);
    ck_assert(order[0] == 1 && order[1] == 3 && order[2] == 2 && order[3] == 0);
    drive_free(d);
}
END_TEST

START_TEST(a_sequence_that_yields_stands_behind_so_many_later_ones_and_no_more) {
    drive *d = with_policy(4);
    for (uint64_t i = 0; i < 4; i++) {
        submit(d, i, i == 0 ? 7 : 0, 1);
        drive_step(d);
    }
    const sched_step *st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), "d1 d2 d0 d3");
    drive_commit(d, st, DRIVE_WORD);
    drive_run(d, 100);
    drive_free(d);
}
END_TEST

START_TEST(a_share_is_one_row_at_least_and_what_is_left_at_most) {
    const uint32_t shares[] = {0, 1, 5, UINT32_MAX};
    const uint32_t want[] = {1, 1, 5, 16};
    for (int i = 0; i < 4; i++) {
        drive *d = with_policy(4);
        share = shares[i];
        submit(d, 1, 0, 40); /* longer than a step, so that rows are short */
        submit(d, 2, 0, 41);
        const sched_step *st = drive_plan(d);
        /* What shares leave over goes to the senior one. */
        ck_assert_uint_eq(st->n_seqs, want[i] < 16 ? 2 : 1);
        if (want[i] < 16) ck_assert_uint_eq(st->seq[1].n_rows, want[i]);
        ck_assert_uint_eq(st->n_rows, 16);
        drive_free(d);
    }
}
END_TEST

/* Submits tenant's sequences [first, first + n), whose users are their numbers. */
static void flood(drive *d, uint64_t tenant, uint64_t first, uint64_t n, int32_t priority) {
    for (uint64_t i = first; i < first + n; i++) {
        sched_spec spec = drive_spec(d, 3, 4);
        sched_id id;
        spec.user = i;
        spec.tenant = tenant;
        spec.priority = priority;
        ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    }
}

/* How many are admitted before user. */
static uint64_t admitted_before(const drive *d, uint64_t user) {
    uint64_t n = 0;
    for (size_t i = 0; i < d->n_log; i++) {
        if (d->log[i].kind != EVENT_ADMITTED) continue;
        if (d->log[i].user == user) return n;
        n++;
    }
    return UINT64_MAX;
}

static drive *fair(uint32_t max_seqs) {
    sched_config cfg = drive_config();
    cfg.max_seqs = max_seqs;
    cfg.policy = &sched_fair;
    return drive_new(cfg);
}

static uint64_t n_admitted(const drive *d) {
    uint64_t n = 0;
    for (size_t i = 0; i < d->n_log; i++) n += d->log[i].kind == EVENT_ADMITTED;
    return n;
}

START_TEST(the_least_served_tenant_is_next_within_a_priority) {
    drive *d = fair(2);
    flood(d, 3, 0, 40, 0);
    for (int i = 0; i < 12; i++) drive_step(d);
    const uint64_t n = n_admitted(d);
    flood(d, 5, 100, 3, 0);  /* comes late: passes 3, as it is lifted to what 3 was served */
    flood(d, 7, 200, 1, 1);  /* waits for all of priority 0 */
    flood(d, 9, 300, 1, -1); /* passes all */
    drive_run(d, 1000);
    ck_assert_uint_eq(admitted_before(d, 300), n);
    for (uint64_t k = 0; k < 3; k++)
        ck_assert_uint_le(admitted_before(d, 100 + k), n + 2 * k + 3);
    ck_assert_uint_eq(admitted_before(d, 200), 44);
    for (uint64_t i = 1; i < 40; i++) /* each tenant's in order */
        ck_assert_uint_lt(admitted_before(d, i - 1), admitted_before(d, i));
    drive_free(d);
}
END_TEST

START_TEST(a_tenant_that_was_away_saves_nothing) {
    drive *d = fair(1);
    flood(d, 3, 0, 30, 0);
    drive_run(d, 1000);
    flood(d, 3, 30, 10, 0); /* it was served, beside one that was not */
    flood(d, 5, 100, 10, 0);
    drive_run(d, 1000);
    ck_assert_uint_ge(admitted_before(d, 35), 30 + 10);
    ck_assert_uint_le(admitted_before(d, 35), 30 + 13);
    drive_free(d);
}
END_TEST

START_TEST(a_weight_is_a_share) {
    drive *d = fair(1);
    for (uint64_t i = 0; i < 40; i++) {
        sched_spec spec = drive_spec(d, 3, 4);
        sched_id id;
        spec.user = i;
        spec.tenant = i % 2 ? 3 : 5;
        spec.weight = i % 2 ? 3 : 1;
        ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    }
    drive_run(d, 1000);
    /* The 18th of the heavy one: about 6 of the other are before it. */
    ck_assert_uint_ge(admitted_before(d, 35), 17 + 5);
    ck_assert_uint_le(admitted_before(d, 35), 17 + 7);
    drive_free(d);
}
END_TEST

START_TEST(what_a_cancelled_prompt_did_not_use_is_given_back) {
    drive *d = fair(1);
    sched_spec spec = drive_spec(d, 60, 1);
    sched_id id;
    spec.tenant = 3;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    drive_step(d); /* 16 of its 60 rows */
    flood(d, 3, 0, 4, 0);
    flood(d, 5, 100, 4, 0);
    drive_cancel(d, id);
    drive_run(d, 1000);
    /* 16 rows are two requests of 5's, and no more; 5 came to the queue later. */
    ck_assert_uint_le(admitted_before(d, 0), 1 + 3);
    drive_free(d);
}
END_TEST

START_TEST(a_priority_ages) {
    sched_config cfg = drive_config();
    cfg.max_seqs = 1;
    cfg.policy = &sched_aging;
    drive *d = drive_new(cfg);
    flood(d, 0, 0, 1, 0); /* runs */
    drive_step(d);
    flood(d, 0, 1, 1, 1);
    d->now_us += SCHED_AGING_US - 1;
    flood(d, 0, 2, 1, 0); /* comes just within the head start */
    d->now_us += 2;
    flood(d, 0, 3, 1, 0);
    drive_run(d, 1000);
    ck_assert_uint_eq(admitted_before(d, 2), 1);
    ck_assert_uint_eq(admitted_before(d, 1), 2);
    ck_assert_uint_eq(admitted_before(d, 3), 3);
    drive_free(d);
}
END_TEST

/* Half of the blocks are taken for 20 steps, and the next sequence has more than the other half. */
static drive *with_a_head_that_has_no_space(void) {
    sched_config cfg = drive_config();
    cfg.max_seqs = cfg.max_rows = cfg.max_logit_rows = 32;
    drive *d = drive_new(cfg);
    submit_as(d, 0, 32, 20, 0);
    drive_step(d);
    submit_as(d, 1, 40, 1, 0);
    return d;
}

START_TEST(eight_smaller_ones_pass_a_head_that_has_no_room_and_then_none) {
    drive *d = with_a_head_that_has_no_space();
    for (uint64_t i = 2; i < 14; i++) submit_as(d, i, i == 3 ? 36 : 4, 1, 0);
    drive_step(d);
    /* As many in one step as leave blocks for half of those that run. */
    ck_assert_uint_eq(drive_stats(d).n_waiting, 13 - 5);
    drive_run(d, 100);
    /* The other one without room is passed, too, by none more. */
    static const uint64_t want[] = {0, 2, 4, 5, 6, 7, 8, 9, 10, 1, 11, 3, 12, 13};
    check_admissions(d, want, 14);
    drive_free(d);
}
END_TEST

START_TEST(what_is_less_urgent_passes_nobody) {
    drive *d = with_a_head_that_has_no_space();
    submit_as(d, 2, 4, 1, 1);
    submit_as(d, 3, 4, 1, 0);
    drive_run(d, 100);
    static const uint64_t want[] = {0, 3, 1, 2};
    check_admissions(d, want, 4);
    drive_free(d);
}
END_TEST

START_TEST(a_tenant_passes_its_own_head_alone) {
    sched_config cfg = drive_config();
    cfg.max_seqs = cfg.max_rows = cfg.max_logit_rows = 32;
    cfg.policy = &sched_fair;
    drive *d = drive_new(cfg);
    sched_spec spec = drive_spec(d, 32, 20);
    static const struct {
        uint64_t tenant;
        uint32_t n_prompt, max_tokens;
    } of[] = {{2, 32, 20}, {4, 40, 1}, {2, 4, 1}, {4, 4, 1}};
    sched_id id;
    for (uint64_t i = 0; i < 4; i++) {
        spec.user = i;
        spec.tenant = of[i].tenant;
        spec.n_prompt = of[i].n_prompt;
        spec.max_tokens = of[i].max_tokens;
        ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
        if (i == 0) drive_step(d); /* tenant 4 has been served less */
    }
    drive_run(d, 100);
    static const uint64_t want[] = {0, 3, 1, 2};
    check_admissions(d, want, 4);
    drive_free(d);
}
END_TEST

START_TEST(a_ticket_too_far_behind_is_refused) {
    drive *d = with_policy(4);
    submit(d, 1, 8, 1);
    drive_plan(d);
}
END_TEST

/* Sequence i of a tenant ends with its n-th token. */
static void answer(drive *d, uint64_t user, uint64_t tenant, uint32_t n) {
    const sched_step *st;
    sched_spec spec = drive_spec(d, 5, 30);
    sched_id id;
    spec.user = user, spec.tenant = tenant;
    spec.stop_ids[0] = 7, spec.n_stop_ids = 1;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    for (uint32_t i = 1; (st = drive_plan(d)); i++)
        drive_commit(d, st, i == n ? 7 : DRIVE_WORD);
}

START_TEST(shortest_learns_how_long_the_answers_of_a_tenant_become) {
    sched_config cfg = drive_config();
    uint64_t order[2], n = 0;
    cfg.max_seqs = cfg.depth = 1;
    cfg.policy = &sched_shortest;
    cfg.group[0].n_blocks = 64;
    drive *d = drive_new(cfg);
    for (uint64_t i = 0; i < 6; i++) answer(d, i, 1, 4), answer(d, i, 3, 30);
    ck_assert_uint_eq(drive_stats(d).count.length_predictions, 12);
    ck_assert_uint_eq(drive_stats(d).count.length_predictions_exceeded, 0);
    ck_assert_uint_eq(drive_stats(d).count.length_prediction_error_tokens, 30 - 4);
    submit(d, 20, 9, 5); /* takes the place */
    drive_step(d);
    submit(d, 21, 3, 5), submit(d, 22, 1, 5);
    drive_run(d, 1000);
    for (size_t i = 0; i < d->n_log; i++)
        if (d->log[i].kind == EVENT_ADMITTED && d->log[i].user > 20)
            order[n++] = d->log[i].user;
    ck_assert(n == 2 && order[0] == 21 && order[1] == 22); /* of 10 tokens nothing is known */
    n = 0;
    sched_spec spec = drive_spec(d, 5, 30);
    sched_id id;
    submit(d, 30, 9, 5);
    drive_step(d);
    spec.user = 31, spec.tenant = 3, drive_try(d, &spec, &id);
    spec.user = 32, spec.tenant = 1, drive_try(d, &spec, &id);
    drive_run(d, 1000);
    for (size_t i = 0; i < d->n_log; i++)
        if (d->log[i].kind == EVENT_ADMITTED && d->log[i].user > 30)
            order[n++] = d->log[i].user;
    ck_assert(n == 2 && order[0] == 32 && order[1] == 31);
    drive_free(d);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("policy");
    TCase *t = check_case(suite, "policy");
    tcase_add_test(t, the_default_orders_all_priorities_and_caps_a_share_at_half);
    tcase_add_test(t, the_smallest_key_is_admitted_first_and_equal_ones_as_they_came);
    tcase_add_test(t, a_sequence_that_yields_stands_behind_so_many_later_ones_and_no_more);
    tcase_add_test(t, a_share_is_one_row_at_least_and_what_is_left_at_most);
    tcase_add_test(t, the_least_served_tenant_is_next_within_a_priority);
    tcase_add_test(t, a_tenant_that_was_away_saves_nothing);
    tcase_add_test(t, a_weight_is_a_share);
    tcase_add_test(t, what_a_cancelled_prompt_did_not_use_is_given_back);
    tcase_add_test(t, a_priority_ages);
    tcase_add_test(t, eight_smaller_ones_pass_a_head_that_has_no_room_and_then_none);
    tcase_add_test(t, what_is_less_urgent_passes_nobody);
    tcase_add_test(t, a_tenant_passes_its_own_head_alone);
    tcase_add_test(t, shortest_learns_how_long_the_answers_of_a_tenant_become);
    tcase_add_test_raise_signal(t, a_ticket_too_far_behind_is_refused, SIGABRT);
    return check_run(suite);
}
