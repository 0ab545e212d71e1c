/* Sequences whose next row must not be planned before their last token is known. */
#include "tests/scheduler/drive.h"

static sched_id submit(drive *d, uint32_t n_prompt, uint32_t max_tokens, bool lockstep,
                       uint64_t user) {
    sched_spec spec = drive_spec(d, n_prompt, max_tokens);
    sched_id id;
    spec.lockstep = lockstep;
    spec.user = user;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    return id;
}

START_TEST(in_lockstep_a_row_is_planned_only_after_the_token_before_it_is_committed) {
    drive *d = drive_with_blocks(16);
    const sched_id id = submit(d, 3, 4, true, 1);
    for (uint32_t i = 0; i < 4; i++) {
        const sched_step *st = drive_plan(d);
        ck_assert_ptr_nonnull(st);
        ck_assert_int_eq(st->seq[0].input_from, -1); /* its token is in the history */
        ck_assert_ptr_null(drive_plan(d));
        drive_commit(d, st, DRIVE_WORD + (int32_t)i);
    }
    ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
    ck_assert_uint_eq(drive_count(d, id, EVENT_TOKEN), 4);
    drive_free(d);
}
END_TEST

START_TEST(others_keep_two_steps_in_flight_beside_it) {
    drive *d = drive_with_blocks(16);
    submit(d, 3, 12, true, 1);
    submit(d, 3, 12, false, 2);
    const sched_step *a = drive_plan(d);
    ck_assert_uint_eq(a->n_seqs, 2);
    for (int i = 0; i < 8; i++) {
        const sched_step *b = drive_plan(d); /* a is uncommitted */
        ck_assert_ptr_nonnull(b);
        ck_assert_ptr_nonnull(drive_entry(b, 2));
        ck_assert_int_ge(drive_entry(b, 2)->input_from, 0);
        /* In every second step. */
        ck_assert_int_eq(drive_entry(b, 1) != NULL, i % 2);
        drive_commit(d, a, DRIVE_WORD);
        a = b;
    }
    drive_free(d);
}
END_TEST

START_TEST(a_prompt_in_chunks_is_not_held_up) {
    drive *d = drive_with_blocks(16);
    submit(d, 40, 4, true, 1);
    const sched_step *a = drive_plan(d), *b = drive_plan(d);
    ck_assert(a && b && !a->seq[0].sample && !b->seq[0].sample);
    drive_commit(d, a, DRIVE_WORD);
    const sched_step *c = drive_plan(d);
    ck_assert(c && c->seq[0].sample);
    drive_commit(d, b, DRIVE_WORD);
    ck_assert_ptr_null(drive_plan(d));
    drive_commit(d, c, DRIVE_WORD);
    ck_assert_ptr_nonnull(drive_plan(d));
    drive_free(d);
}
END_TEST

START_TEST(it_comes_back_from_preemption_in_lockstep) {
    drive *d = drive_with_blocks(6);
    submit(d, 8, 12, false, 1);
    const sched_id junior = submit(d, 8, 12, true, 2);
    const uint32_t n = drive_run(d, 200);
    ck_assert_uint_gt(n, 0);
    ck_assert_uint_gt(drive_count(d, junior, EVENT_PREEMPTED), 0);
    ck_assert_uint_eq(drive_count(d, junior, EVENT_TOKEN), 12);
    drive_free(d);
}
END_TEST

START_TEST(a_sequence_that_may_draw_no_token_ends_and_says_so) {
    drive *d = drive_with_blocks(16);
    const sched_id id = submit(d, 3, 8, false, 1), other = submit(d, 3, 8, false, 2);
    drive_step(d);
    const sched_step *a = drive_plan(d), *b = drive_plan(d); /* b takes a's token as input */
    const int32_t tokens[2] = {-1, DRIVE_WORD};
    const sched_step_tokens drawn = {.token = tokens, .stride = 1};
    sched_commit(d->s, a, &drawn);
    drive_drain(d);
    ck_assert_int_eq(drive_finish(d, id), FINISH_NONE); /* it is in b */
    sched_commit(d->s, b, &drawn);
    drive_drain(d);
    ck_assert_int_eq(drive_finish(d, id), FINISH_NO_TOKEN);
    ck_assert_uint_eq(drive_count(d, id, EVENT_TOKEN), 1);
    drive_run(d, 100);
    ck_assert_int_eq(drive_finish(d, other), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

/* Steps of an engine of several stages: a sequence is in one of those in flight, and each has a part of
 * them. */
START_TEST(apart_steps_share_those_that_decode) {
    sched_config c = drive_config();
    drive *d;
    c.apart = true;
    d = drive_new(c);
    const uint32_t n = 3;
    uint32_t rows[4] = {0};
    for (uint32_t i = 1; i <= n; i++) submit(d, 3, 40, false, i);
    const sched_step *a = drive_plan(d); /* all prompts */
    ck_assert(a && a->n_seqs == n && !drive_plan(d));
    drive_commit(d, a, DRIVE_WORD);
    a = drive_plan(d);
    for (int i = 0; i < 12; i++) {
        const sched_step *b = drive_plan(d); /* a is uncommitted */
        ck_assert(a && b && a->n_seqs + b->n_seqs == n && b->n_seqs <= 2 && a->n_seqs <= 2);
        for (uint32_t u = 1; u <= n; u++) {
            ck_assert((drive_entry(a, u) != NULL) != (drive_entry(b, u) != NULL));
            rows[u] += drive_entry(a, u) != NULL;
        }
        drive_commit(d, a, DRIVE_WORD);
        a = b;
    }
    for (uint32_t u = 1; u <= n; u++) ck_assert_uint_eq(rows[u], 6);
    drive_free(d);
}
END_TEST

/* Alone, a sequence has a row as soon as its token is known. */
START_TEST(apart_steps_wait_for_a_lone_sequence) {
    sched_config c = drive_config();
    drive *d;
    c.apart = true;
    d = drive_new(c);
    submit(d, 3, 4, false, 1);
    for (uint32_t i = 0; i < 4; i++) {
        const sched_step *st = drive_plan(d);
        ck_assert(st && st->n_seqs == 1 && !drive_plan(d));
        drive_commit(d, st, DRIVE_WORD);
    }
    ck_assert_ptr_null(drive_plan(d));
    drive_free(d);
}
END_TEST

CHECK_MAIN("lockstep", in_lockstep_a_row_is_planned_only_after_the_token_before_it_is_committed,
           others_keep_two_steps_in_flight_beside_it, a_prompt_in_chunks_is_not_held_up,
           it_comes_back_from_preemption_in_lockstep,
           a_sequence_that_may_draw_no_token_ends_and_says_so,
           apart_steps_share_those_that_decode, apart_steps_wait_for_a_lone_sequence)
