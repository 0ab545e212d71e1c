/* Cancels and deadlines in every state of a sequence, with none, one and two uncommitted steps;
 * the fence in front of freed blocks. */
#include "tests/scheduler/drive.h"

START_TEST(a_waiting_sequence_ends_at_once) {
    drive *d = drive_new(drive_config());
    sched_id id = drive_submit(d, 4, 4);
    drive_cancel(d, id);
    ck_assert_int_eq(drive_finish(d, id), FINISH_CANCELLED);
    ck_assert_uint_eq(drive_stats(d).n_waiting, 0);
    ck_assert_uint_eq(drive_stats(d).waiting_tokens, 0);
    ck_assert_ptr_null(drive_plan(d));
    drive_free(d);
}
END_TEST

START_TEST(a_running_sequence_between_steps_ends_at_once) {
    drive *d = drive_new(drive_config());
    sched_id id = drive_submit(d, 20, 4), decoding = drive_submit(d, 2, 8);
    drive_step(d); /* id is in the middle of its prompt */
    drive_cancel(d, id);
    ck_assert_int_eq(drive_finish(d, id), FINISH_CANCELLED);
    drive_step(d);
    drive_cancel(d, decoding);
    ck_assert_int_eq(drive_finish(d, decoding), FINISH_CANCELLED);
    ck_assert_uint_eq(drive_stats(d).blocks_free, 16);
    drive_free(d);
}
END_TEST

START_TEST(blocks_of_a_sequence_in_two_steps_are_fenced_until_both_commit) {
    drive *d = drive_new(drive_config());
    sched_id id = drive_submit(d, 8, 8);
    const sched_step *one = drive_plan(d), *two = drive_plan(d);
    ck_assert_str_eq(drive_trace(one), "p0[0..8)s");
    ck_assert_str_eq(drive_trace(two), "d0");
    ck_assert_int_eq(two->seq[0].input_from, 0);
    ck_assert_ptr_null(drive_plan(d)); /* two are uncommitted */
    drive_cancel(d, id);
    drive_cancel(d, id);
    ck_assert_uint_eq(drive_stats(d).blocks_fenced, 3);
    drive_commit(d, one, DRIVE_WORD);
    ck_assert_uint_eq(drive_stats(d).blocks_fenced, 3);
    ck_assert_uint_eq(drive_count(d, id, EVENT_ENDED), 0);
    ck_assert_uint_eq(drive_count(d, id, EVENT_TOKEN), 0); /* none after a cancel */
    drive_commit(d, two, DRIVE_WORD);
    ck_assert_uint_eq(drive_stats(d).blocks_free, 16);
    ck_assert_uint_eq(drive_count(d, id, EVENT_ENDED), 1);
    ck_assert_int_eq(drive_finish(d, id), FINISH_CANCELLED);
    drive_free(d);
}
END_TEST

START_TEST(blocks_of_a_sequence_in_the_older_step_only_are_free_with_its_commit) {
    sched_config cfg = drive_config();
    cfg.max_rows = 4;
    drive *d = drive_new(cfg);
    sched_id a = drive_submit(d, 2, 1), b = drive_submit(d, 6, 4);
    const sched_step *one = drive_plan(d); /* all of a, two rows of b */
    ck_assert_uint_eq(one->n_seqs, 2);
    const sched_step *two = drive_plan(d); /* a has its last token already, if one yields it */
    ck_assert_uint_eq(two->n_seqs, 1);
    drive_commit(d, one, DRIVE_WORD);
    ck_assert_int_eq(drive_finish(d, a), FINISH_LENGTH);
    ck_assert_uint_eq(drive_stats(d).blocks_fenced, 0);
    ck_assert_uint_eq(drive_stats(d).blocks_free, 14);
    drive_commit(d, two, DRIVE_WORD);
    drive_run(d, 10);
    ck_assert_int_eq(drive_finish(d, b), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(a_row_planned_for_a_sequence_that_then_stopped_is_discarded) {
    drive *d = drive_new(drive_config());
    sched_id id = drive_submit(d, 4, 8);
    const sched_step *one = drive_plan(d), *two = drive_plan(d);
    drive_commit(d, one, DRIVE_END_TOKEN);
    ck_assert_uint_eq(drive_count(d, id, EVENT_ENDED), 0); /* two still borrows its history */
    ck_assert_uint_eq(drive_stats(d).blocks_fenced, 2);
    drive_commit(d, two, DRIVE_WORD);
    const sched_event *e = drive_last(d, id, EVENT_ENDED);
    ck_assert_int_eq(e->finish, FINISH_STOP);
    ck_assert_int_eq(e->stop_id, DRIVE_END_TOKEN);
    ck_assert_uint_eq(e->n_output, 1);
    ck_assert_uint_eq(drive_count(d, id, EVENT_TOKEN), 0);
    ck_assert_uint_eq(drive_stats(d).blocks_free, 16);
    drive_free(d);
}
END_TEST

START_TEST(a_freed_slot_is_not_given_away_while_a_step_has_it) {
    sched_config cfg = drive_config();
    cfg.max_seqs = 1;
    drive *d = drive_new(cfg);
    sched_id a = drive_submit(d, 4, 8), b = drive_submit(d, 4, 2);
    const sched_step *one = drive_plan(d);
    drive_cancel(d, a);
    ck_assert_ptr_null(drive_plan(d)); /* b waits for the slot */
    drive_commit(d, one, DRIVE_WORD);
    const sched_step *two = drive_plan(d);
    ck_assert_uint_eq(two->n_seqs, 1);
    ck_assert_uint_eq(drive_count(d, b, EVENT_ADMITTED), 1);
    drive_commit(d, two, DRIVE_WORD);
    drive_free(d);
}
END_TEST

START_TEST(a_preempted_sequence_ends_at_once) {
    drive *d = drive_with_blocks(8);
    sched_id a = drive_submit(d, 8, 24), b = drive_submit(d, 8, 24);
    while (drive_count(d, b, EVENT_PREEMPTED) == 0) {
        drive_step(d);
    }
    drive_cancel(d, b);
    ck_assert_int_eq(drive_finish(d, b), FINISH_CANCELLED);
    ck_assert_uint_eq(drive_stats(d).n_preempted, 0);
    drive_run(d, 30);
    ck_assert_int_eq(drive_finish(d, a), FINISH_LENGTH);
    ck_assert_uint_eq(drive_stats(d).blocks_free, 8);
    drive_free(d);
}
END_TEST

START_TEST(stale_and_invented_ids_do_nothing) {
    drive *d = drive_new(drive_config());
    sched_id old = drive_submit(d, 4, 1);
    drive_run(d, 4);
    sched_id young = drive_submit(d, 4, 4); /* the same record again */
    ck_assert_uint_ne(old, young);
    ck_assert_uint_eq((uint32_t)old, (uint32_t)young);
    static const sched_id invented[] = {0,          1,          UINT64_MAX,
                                        UINT32_MAX, 1ull << 32, 2ull << 32 | 5};
    drive_cancel(d, old);
    sched_pause(d->s, old, true);
    for (int i = 0; i < 6; i++) {
        if (invented[i] == young) continue;
        drive_cancel(d, invented[i]);
        sched_pause(d->s, invented[i], true);
        ck_assert_uint_eq(sched_kv_blocks_of(d->s, invented[i]), 0);
    }
    drive_run(d, 10);
    ck_assert_int_eq(drive_finish(d, young), FINISH_LENGTH);
    ck_assert_uint_eq(drive_count(d, young, EVENT_TOKEN), 4);
    drive_free(d);
}
END_TEST

START_TEST(a_stop_string_ends_with_stop_and_without_an_id) {
    drive *d = drive_new(drive_config());
    sched_id id = drive_submit(d, 4, 8);
    drive_step(d);
    sched_cancel(d->s, id, FINISH_STOP);
    drive_drain(d);
    ck_assert_int_eq(drive_finish(d, id), FINISH_STOP);
    ck_assert_int_eq(drive_last(d, id, EVENT_ENDED)->stop_id, -1);
    drive_free(d);
}
END_TEST

START_TEST(deadlines_end_waiting_running_and_paused_sequences) {
    sched_config cfg = drive_config();
    cfg.max_seqs = 2;
    drive *d = drive_new(cfg);
    sched_spec spec = drive_spec(d, 4, 30);
    sched_id running, paused, waiting, patient;
    spec.deadline_us = 200;
    drive_try(d, &spec, &running);
    drive_try(d, &spec, &paused);
    spec.deadline_us = 100;
    drive_try(d, &spec, &waiting);
    spec.deadline_us = 0;
    spec.max_tokens = 3;
    drive_try(d, &spec, &patient);
    drive_step(d);
    sched_pause(d->s, paused, true);

    d->now_us = 99;
    drive_step(d);
    ck_assert_int_eq(drive_finish(d, waiting), FINISH_NONE);
    d->now_us = 100;
    drive_step(d);
    ck_assert_int_eq(drive_finish(d, waiting), FINISH_TIMEOUT);
    const sched_step *st = drive_plan(d);
    d->now_us = 5000;
    ck_assert_ptr_nonnull(drive_plan(d)); /* patient, who gets the paused one's slot */
    ck_assert_int_eq(drive_finish(d, paused), FINISH_TIMEOUT);
    ck_assert_int_eq(drive_finish(d, running), FINISH_NONE); /* in an uncommitted step */
    drive_commit(d, st, DRIVE_WORD);
    ck_assert_int_eq(drive_finish(d, running), FINISH_TIMEOUT);
    drive_free(d);
}
END_TEST

START_TEST(an_engine_failure_with_two_steps_under_way_ends_each_sequence_once) {
    drive *d = drive_new(drive_config());
    sched_id a = drive_submit(d, 4, 8), b = drive_submit(d, 4, 8);
    const sched_step *one = drive_plan(d), *two = drive_plan(d);
    sched_commit(d->s, one, NULL);
    drive_drain(d);
    sched_commit(d->s, two, NULL);
    drive_drain(d);
    ck_assert_uint_eq(drive_count(d, a, EVENT_ENDED), 1);
    ck_assert_uint_eq(drive_count(d, b, EVENT_ENDED), 1);
    ck_assert_int_eq(drive_finish(d, b), FINISH_ERROR);
    ck_assert_uint_eq(drive_stats(d).blocks_free, 16);
    drive_free(d);
}
END_TEST

int main(void) {
    Suite *s = suite_create("cancel");
    TCase *t = check_case(s, "cancel");
    tcase_add_test(t, a_waiting_sequence_ends_at_once);
    tcase_add_test(t, a_running_sequence_between_steps_ends_at_once);
    tcase_add_test(t, blocks_of_a_sequence_in_two_steps_are_fenced_until_both_commit);
    tcase_add_test(t, blocks_of_a_sequence_in_the_older_step_only_are_free_with_its_commit);
    tcase_add_test(t, a_row_planned_for_a_sequence_that_then_stopped_is_discarded);
    tcase_add_test(t, a_freed_slot_is_not_given_away_while_a_step_has_it);
    tcase_add_test(t, a_preempted_sequence_ends_at_once);
    tcase_add_test(t, stale_and_invented_ids_do_nothing);
    tcase_add_test(t, a_stop_string_ends_with_stop_and_without_an_id);
    tcase_add_test(t, deadlines_end_waiting_running_and_paused_sequences);
    tcase_add_test(t, an_engine_failure_with_two_steps_under_way_ends_each_sequence_once);
    return check_run(s);
}
