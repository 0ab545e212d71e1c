/* Continuous, static and dynamic batching, as traces of steps: d0 is a decode row of sequence
 * 0, p1[0..4)s its prompt. */
#include "tests/scheduler/drive.h"

enum { WINDOW_US = 100 };

static drive *batching(sched_batching b, uint32_t n_blocks) {
    sched_config cfg = drive_config();
    cfg.depth = 1;
    cfg.max_seqs = 3;
    cfg.group[0].n_blocks = n_blocks;
    cfg.batching = b;
    cfg.batch_window_us = WINDOW_US;
    return drive_new(cfg);
}

static sched_id submit(drive *d, uint64_t user, uint32_t n_prompt, uint32_t max_tokens) {
    sched_spec spec = drive_spec(d, n_prompt, max_tokens);
    sched_id id;
    spec.user = user;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    return id;
}

/* Plans, compares and commits one step. */
static void step(drive *d, const char *want) {
    const sched_step *st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), want);
    if (st) drive_commit(d, st, DRIVE_WORD);
}

/* Two run, of 2 and 4 tokens; a third comes after the first step. */
static drive *third_comes_later(sched_batching b) {
    drive *d = batching(b, 16);
    submit(d, 0, 2, 2);
    submit(d, 1, 2, 4);
    d->now_us += b == BATCHING_DYNAMIC ? WINDOW_US : 0;
    if (b == BATCHING_DYNAMIC) drive_plan(d), d->now_us += WINDOW_US;
    step(d, "p0[0..2)s p1[0..2)s");
    submit(d, 2, 2, 2);
    return d;
}

START_TEST(continuous_admits_beside_those_that_run) {
    drive *d = third_comes_later(BATCHING_CONTINUOUS);
    step(d, "d0 d1 p2[0..2)s");
    step(d, "d1 d2");
    step(d, "d1");
    step(d, "");
    drive_free(d);
}
END_TEST

START_TEST(static_runs_a_batch_to_its_end_before_the_next) {
    drive *d = third_comes_later(BATCHING_STATIC);
    step(d, "d0 d1");
    step(d, "d1"); /* a slot is free, and stays so */
    step(d, "d1");
    step(d, "p2[0..2)s");
    step(d, "d2");
    step(d, "");
    drive_free(d);
}
END_TEST

START_TEST(a_batch_is_of_those_that_waited_and_its_places) {
    drive *d = batching(BATCHING_STATIC, 16);
    for (uint64_t i = 0; i < 5; i++) submit(d, i, 2, i == 0 ? 1 : 2);
    step(d, "p0[0..2)s p1[0..2)s p2[0..2)s"); /* 0 has ended: its place stays empty */
    step(d, "d1 d2");
    submit(d, 5, 2, 2);
    step(d, "p3[0..2)s p4[0..2)s p5[0..2)s");
    step(d, "d3 d4 d5");
    step(d, "");
    drive_free(d);
}
END_TEST

START_TEST(a_batch_that_a_step_is_too_small_for_forms_over_several) {
    drive *d = batching(BATCHING_STATIC, 32);
    submit(d, 0, 12, 3);
    submit(d, 1, 12, 3);
    submit(d, 2, 12, 3);
    step(d, "p0[0..8) p1[0..8)"); /* 16 rows */
    submit(d, 3, 2, 1);
    step(d, "p0[8..12)s p1[8..12)s p2[0..8)");
    step(d, "d0 d1 p2[8..12)s");
    step(d, "d0 d1 d2");
    step(d, "d2");
    step(d, "p3[0..2)s");
    drive_free(d);
}
END_TEST

START_TEST(what_does_not_fit_the_blocks_is_of_the_next_batch) {
    drive *d = batching(BATCHING_STATIC, 4);
    submit(d, 0, 10, 3);
    submit(d, 1, 10, 3); /* 3 blocks each, of 4 */
    step(d, "p0[0..10)s");
    submit(d, 2, 2, 1); /* it would fit beside */
    step(d, "d0");
    step(d, "d0");
    step(d, "p1[0..10)s p2[0..2)s");
    drive_free(d);
}
END_TEST

START_TEST(dynamic_waits_for_a_window_or_a_full_batch) {
    drive *d = batching(BATCHING_DYNAMIC, 16);
    ck_assert_uint_eq(sched_next_us(d->s), UINT64_MAX);
    d->now_us = 1000;
    submit(d, 0, 2, 1);
    step(d, "");
    ck_assert_uint_eq(sched_next_us(d->s), 1000 + WINDOW_US);
    d->now_us = 1000 + WINDOW_US - 1;
    submit(d, 1, 2, 1);
    step(d, "");
    d->now_us++; /* of the first one */
    step(d, "p0[0..2)s p1[0..2)s");
    ck_assert_uint_eq(sched_next_us(d->s), UINT64_MAX);
    for (uint64_t i = 2; i < 5; i++) submit(d, i, 2, 1);
    step(d, "p2[0..2)s p3[0..2)s p4[0..2)s"); /* full: at once */
    submit(d, 5, 2, 1);
    step(d, "");
    drive_cancel(d, d->log[d->n_log - 1].id);
    drive_free(d);
}
END_TEST

START_TEST(members_of_a_fork_go_with_their_leader) {
    drive *d = batching(BATCHING_STATIC, 16);
    sched_spec spec = drive_spec(d, 6, 3);
    sched_id leader, member;
    ck_assert_int_eq(drive_try(d, &spec, &leader), REJECT_NONE);
    spec.user = 1;
    spec.fork_of = leader;
    ck_assert_int_eq(drive_try(d, &spec, &member), REJECT_NONE);
    step(d, "p0[0..6)s");
    step(d, "c d0 p1[5..6)s");
    step(d, "d0 d1");
    step(d, "d1");
    step(d, "");
    drive_free(d);
}
END_TEST

START_TEST(a_preempted_sequence_is_still_of_its_batch) {
    drive *d = batching(BATCHING_STATIC, 4);
    submit(d, 0, 7, 8);
    submit(d, 1, 7, 8); /* they fit, and outgrow the blocks */
    step(d, "p0[0..7)s p1[0..7)s");
    submit(d, 2, 2, 1);
    uint32_t order[3], n = 0;
    drive_run(d, 100);
    for (size_t i = 0; i < d->n_log; i++)
        if (d->log[i].kind == EVENT_ENDED) order[n++] = (uint32_t)d->log[i].user;
    ck_assert(n == 3 && order[0] == 0 && order[1] == 1 && order[2] == 2);
    ck_assert_uint_gt(drive_stats(d).count.preemptions, 0);
    drive_free(d);
}
END_TEST

CHECK_MAIN("batching", continuous_admits_beside_those_that_run,
           static_runs_a_batch_to_its_end_before_the_next,
           a_batch_is_of_those_that_waited_and_its_places,
           a_batch_that_a_step_is_too_small_for_forms_over_several,
           what_does_not_fit_the_blocks_is_of_the_next_batch,
           dynamic_waits_for_a_window_or_a_full_batch, members_of_a_fork_go_with_their_leader,
           a_preempted_sequence_is_still_of_its_batch)
