/* Preemption by recompute: who is evicted, who comes back when, and that nobody hangs. */
#include "tests/scheduler/drive.h"

/* Submits n sequences of the same shape with users 1 .. n. */
static void submit_many(drive *d, sched_id *id, uint32_t n, uint32_t n_prompt,
                        uint32_t max_tokens) {
    for (uint32_t i = 0; i < n; i++) {
        sched_spec spec = drive_spec(d, n_prompt, max_tokens);
        spec.user = i + 1;
        ck_assert_int_eq(drive_try(d, &spec, &id[i]), REJECT_NONE);
    }
}

START_TEST(only_the_most_junior_is_evicted_and_each_ends) {
    drive *d = drive_with_blocks(9); /* three of 8 + 28 tokens need 27 in the end */
    sched_id id[3];
    submit_many(d, id, 3, 8, 28);
    drive_run(d, 300);
    ck_assert_uint_eq(drive_count(d, id[0], EVENT_PREEMPTED), 0);
    ck_assert_uint_gt(drive_count(d, id[2], EVENT_PREEMPTED), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(drive_finish(d, id[i]), FINISH_LENGTH);
        ck_assert_uint_eq(drive_count(d, id[i], EVENT_TOKEN), 28);
    }
    /* In order of seniority: a junior never makes a senior wait. */
    for (size_t i = 0, want = 0; i < d->n_log; i++) {
        if (d->log[i].kind == EVENT_ENDED) ck_assert_uint_eq(d->log[i].user, ++want);
    }
    drive_free(d);
}
END_TEST

START_TEST(a_prompt_row_is_told_once_though_it_is_computed_again) {
    drive *d = drive_with_blocks(9);
    sched_id id[3];
    submit_many(d, id, 3, 8, 28);
    drive_run(d, 300);
    ck_assert_uint_gt(drive_stats(d).count.recomputed_tokens, 0);
    ck_assert_uint_eq(drive_stats(d).count.prompt_tokens, 24);
    ck_assert_uint_eq(drive_stats(d).count.generated_tokens, 84);
    for (int i = 0; i < 3; i++) {
        uint32_t rows = 0;
        for (size_t k = 0; k < d->n_log; k++) {
            if (d->log[k].id == id[i]) rows += d->log[k].n_rows;
        }
        ck_assert_uint_eq(rows, 8);
    }
    drive_free(d);
}
END_TEST

START_TEST(the_most_junior_waits_with_its_blocks_instead_of_evicting_anybody) {
    drive *d = drive_with_blocks(5);
    sched_id a, b;
    a = drive_submit(d, 9, 4); /* 3 blocks to the end */
    b = drive_submit(d, 8, 8); /* 2 blocks, then wants a third */
    drive_step(d);
    drive_step(d); /* whatever chunks were split */
    while (drive_finish(d, a) == FINISH_NONE) {
        const sched_step *st = drive_plan(d);
        drive_commit(d, st, DRIVE_WORD);
        ck_assert_uint_ge(sched_kv_blocks_of(d->s, b), 2);
    }
    drive_run(d, 20);
    ck_assert_int_eq(drive_finish(d, b), FINISH_LENGTH);
    ck_assert_uint_eq(drive_stats(d).count.preemptions, 0);
    drive_free(d);
}
END_TEST

START_TEST(an_evicted_sequence_comes_back_only_with_room_to_go_on) {
    drive *d = drive_with_blocks(12);
    sched_id id[2];
    submit_many(d, id, 2, 8, 38); /* 45 positions: 12 blocks each */
    uint32_t evictions = 0;
    const sched_step *st;
    while ((st = drive_plan(d))) {
        drive_commit(d, st, DRIVE_WORD);
        if (drive_count(d, id[1], EVENT_PREEMPTED) > evictions) evictions++;
        /* All of its 12 blocks must fit: not before the senior has ended. */
        if (evictions == 1 && drive_finish(d, id[0]) == FINISH_NONE) {
            ck_assert_uint_eq(sched_kv_blocks_of(d->s, id[1]), 0);
        }
    }
    ck_assert_uint_eq(evictions, 1); /* no storm */
    ck_assert_int_eq(drive_finish(d, id[1]), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(nothing_new_is_admitted_while_somebody_is_preempted) {
    drive *d = drive_with_blocks(12);
    sched_id id[2], late = 0;
    submit_many(d, id, 2, 8, 38);
    const sched_step *st;
    while ((st = drive_plan(d))) {
        drive_commit(d, st, DRIVE_WORD);
        if (drive_stats(d).n_preempted > 0 && !late) {
            late = drive_submit(d, 1, 1);
        } else if (drive_stats(d).n_preempted > 0) {
            ck_assert_uint_eq(drive_count(d, late, EVENT_ADMITTED), 0);
        }
    }
    ck_assert_uint_ne(late, 0);
    ck_assert_int_eq(drive_finish(d, late), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(blocks_behind_a_fence_are_awaited_before_anybody_is_evicted) {
    drive *d = drive_with_blocks(6);
    sched_id id[3];
    submit_many(d, id, 3, 6, 6); /* 2 blocks each; each wants a third for position 8 */
    drive_step(d);               /* 16 rows: two prompts, 4 rows of the third */
    drive_step(d);
    const sched_step *one = drive_plan(d); /* position 7 of two, 6 of the third */
    drive_cancel(d, id[2]);
    ck_assert_uint_eq(drive_stats(d).blocks_fenced, 2);
    ck_assert_ptr_null(drive_plan(d)); /* both wait; the junior is not evicted */
    ck_assert_uint_eq(drive_stats(d).count.preemptions, 0);
    drive_commit(d, one, DRIVE_WORD);
    drive_run(d, 20);
    ck_assert_uint_eq(drive_stats(d).count.preemptions, 0);
    ck_assert_int_eq(drive_finish(d, id[0]), FINISH_LENGTH);
    ck_assert_int_eq(drive_finish(d, id[1]), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(a_paused_senior_gets_no_rows_and_gives_its_blocks_to_a_junior) {
    drive *d = drive_with_blocks(6);
    sched_id id[2];
    submit_many(d, id, 2, 8, 16); /* 23 positions: 6 blocks */
    drive_step(d);
    sched_pause(d->s, id[0], true);
    sched_pause(d->s, id[0], true);
    uint32_t tokens = drive_count(d, id[0], EVENT_TOKEN);
    drive_run(d, 40);
    ck_assert_int_eq(drive_finish(d, id[1]), FINISH_LENGTH);
    ck_assert_uint_eq(drive_count(d, id[0], EVENT_TOKEN), tokens);
    ck_assert_uint_eq(drive_count(d, id[0], EVENT_PREEMPTED), 1);
    ck_assert_uint_eq(drive_stats(d).n_paused, 1);
    sched_pause(d->s, id[0], false);
    drive_run(d, 40);
    ck_assert_int_eq(drive_finish(d, id[0]), FINISH_LENGTH);
    ck_assert_uint_eq(drive_count(d, id[0], EVENT_TOKEN), 16);
    ck_assert_uint_eq(drive_stats(d).blocks_free, 6);
    drive_free(d);
}
END_TEST

START_TEST(a_paused_sequence_keeps_its_blocks_while_nobody_needs_them) {
    drive *d = drive_new(drive_config());
    sched_id a = drive_submit(d, 8, 10), b = drive_submit(d, 4, 4);
    drive_step(d);
    sched_pause(d->s, a, true);
    drive_run(d, 20);
    ck_assert_int_eq(drive_finish(d, b), FINISH_LENGTH);
    ck_assert_uint_eq(sched_kv_blocks_of(d->s, a), 2);
    ck_assert_uint_eq(drive_count(d, a, EVENT_PREEMPTED), 0);
    drive_cancel(d, a);
    ck_assert_int_eq(drive_finish(d, a), FINISH_CANCELLED);
    ck_assert_uint_eq(drive_stats(d).blocks_free, 16);
    drive_free(d);
}
END_TEST

CHECK_MAIN("preempt", only_the_most_junior_is_evicted_and_each_ends,
           a_prompt_row_is_told_once_though_it_is_computed_again,
           the_most_junior_waits_with_its_blocks_instead_of_evicting_anybody,
           an_evicted_sequence_comes_back_only_with_room_to_go_on,
           nothing_new_is_admitted_while_somebody_is_preempted,
           blocks_behind_a_fence_are_awaited_before_anybody_is_evicted,
           a_paused_senior_gets_no_rows_and_gives_its_blocks_to_a_junior,
           a_paused_sequence_keeps_its_blocks_while_nobody_needs_them)
