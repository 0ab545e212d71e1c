/* Forks: one prompt, several texts. */
#include "tests/scheduler/drive.h"

enum { N_PROMPT = 10, N_TEXT = 6 }; /* the last of 3 blocks of the prompt is half full */

typedef struct group {
    sched_id id[4];
    uint32_t n;
} group;

static group fork_many(drive *d, uint32_t n, uint32_t n_prompt) {
    group g = {.n = n};
    sched_spec spec = drive_spec(d, n_prompt, N_TEXT);
    for (uint32_t i = 0; i < n; i++) {
        spec.user = i;
        spec.fork_of = i ? g.id[0] : 0;
        ck_assert_int_eq(drive_try(d, &spec, &g.id[i]), REJECT_NONE);
    }
    return g;
}

static void assert_all_end(drive *d, const group *g, uint32_t from) {
    drive_run(d, 200);
    for (uint32_t i = from; i < g->n; i++) {
        ck_assert_int_eq(drive_finish(d, g->id[i]), FINISH_LENGTH);
        ck_assert_uint_eq(drive_last(d, g->id[i], EVENT_ENDED)->n_output, N_TEXT);
    }
    sched_stats st = drive_stats(d);
    ck_assert_uint_eq(st.blocks_free + st.blocks_cached, d->cfg.group[0].n_blocks);
}

START_TEST(the_prompt_is_computed_once_and_only_its_last_block_is_copied) {
    for (int cached = 0; cached < 2; cached++) {
        sched_config cfg = drive_config();
        cfg.prefix_cache = cached;
        drive *d = drive_new(cfg);
        group g = fork_many(d, 3, N_PROMPT);
        ck_assert_uint_eq(drive_stats(d).n_waiting, 3);
        const sched_step *st = drive_plan(d);
        ck_assert_str_eq(drive_trace(st), "p0[0..10)s");
        int32_t last = sched_blocks(d->s, st->seq[0].slot, 0)[2];
        drive_commit(d, st, DRIVE_WORD);
        st = drive_plan(d);
        ck_assert_str_eq(drive_trace(st), "c c d0 p1[9..10)s p2[9..10)s");
        ck_assert_uint_eq(drive_stats(d).blocks_used, 5);
        const int32_t *lead = sched_blocks(d->s, drive_entry(st, 0)->slot, 0);
        for (uint32_t i = 1; i < 3; i++) {
            const sched_step_seq *e = drive_entry(st, i);
            const int32_t *own = sched_blocks(d->s, e->slot, 0);
            ck_assert(e->input_from == -1);
            ck_assert(own[0] == lead[0] && own[1] == lead[1] && own[2] != lead[2]);
            ck_assert(st->copy[i - 1].from == last && st->copy[i - 1].to == own[2]);
        }
        drive_commit(d, st, DRIVE_WORD);
        assert_all_end(d, &g, 0);
        drive_free(d);
    }
}
END_TEST

START_TEST(a_prompt_that_ends_with_its_block_needs_a_copy_and_one_longer_none) {
    drive *d = drive_new(drive_config());
    group g = fork_many(d, 2, 8);
    drive_step(d);
    const sched_step *st = drive_plan(d);
    ck_assert_uint_eq(st->n_copies, 1);
    drive_commit(d, st, DRIVE_WORD);
    assert_all_end(d, &g, 0);
    g = fork_many(d, 2, 9);
    drive_step(d);
    st = drive_plan(d);
    ck_assert_uint_eq(st->n_seqs, 2);
    ck_assert_uint_eq(st->n_copies, 0);
    drive_commit(d, st, DRIVE_WORD);
    assert_all_end(d, &g, 0);
    drive_free(d);
}
END_TEST

START_TEST(the_copied_block_is_pinned_until_its_step_is_committed) {
    drive *d = drive_new(drive_config());
    group g = fork_many(d, 2, N_PROMPT);
    drive_step(d);
    const sched_step *st = drive_plan(d);
    ck_assert_uint_eq(st->n_copies, 1);
    const int32_t from = st->copy[0].from;
    drive_cancel(d, g.id[0]);
    const sched_step *next = drive_plan(d);
    for (uint32_t i = 0; next && i < next->n_seqs; i++)
        for (uint32_t k = 0; k < next->seq[i].n_blocks; k++)
            ck_assert_int_ne(sched_blocks(d->s, next->seq[i].slot, 0)[k], from);
    drive_commit(d, st, DRIVE_WORD);
    if (next) drive_commit(d, next, DRIVE_WORD);
    assert_all_end(d, &g, 1);
    drive_free(d);
}
END_TEST

/* As many as the API allows, in a pool and with slots for a few at a time. */
START_TEST(a_fork_of_128_ends_with_four_slots) {
    enum { MANY = 128 };
    for (int cached = 0; cached < 2; cached++) {
        sched_config cfg = drive_config();
        cfg.max_waiting = MANY;
        cfg.prefix_cache = cached;
        drive *d = drive_new(cfg);
        sched_id id[MANY];
        sched_spec spec = drive_spec(d, N_PROMPT, N_TEXT);
        for (uint32_t i = 0; i < MANY; i++) {
            spec.fork_of = i ? id[0] : 0;
            ck_assert_int_eq(drive_try(d, &spec, &id[i]), REJECT_NONE);
        }
        ck_assert_int_eq(drive_try(d, &spec, &(sched_id){0}), REJECT_QUEUE_FULL);
        drive_run(d, 2000);
        for (uint32_t i = 0; i < MANY; i++)
            ck_assert_int_eq(drive_finish(d, id[i]), FINISH_LENGTH);
        drive_free(d);
    }
}
END_TEST

/* To share, it would need a block more than there are while the leader keeps its own. */
START_TEST(a_member_does_not_wait_for_a_paused_leader_that_fills_the_pool) {
    sched_config cfg = drive_config();
    cfg.group[0] = (sched_group){.n_blocks = 2, .window = 8};
    drive *d = drive_new(cfg);
    sched_spec spec = drive_spec(d, 6, 3);
    sched_id leader, member;
    ck_assert_int_eq(drive_try(d, &spec, &leader), REJECT_NONE);
    drive_commit(d, drive_plan(d), DRIVE_WORD);
    sched_pause(d->s, leader, true);
    spec.fork_of = leader;
    ck_assert_int_eq(drive_try(d, &spec, &member), REJECT_NONE);
    drive_run(d, 100);
    ck_assert_int_eq(drive_finish(d, member), FINISH_LENGTH);
    ck_assert_int_eq(drive_finish(d, leader), FINISH_NONE);
    sched_pause(d->s, leader, false);
    drive_run(d, 100);
    ck_assert_int_eq(drive_finish(d, leader), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(members_outlive_a_leader_that_ends_at_any_time) {
    for (uint32_t when = 0; when < 8; when++) {
        sched_config cfg = drive_config();
        cfg.max_rows = 4; /* the prompt takes three steps */
        drive *d = drive_new(cfg);
        group g = fork_many(d, 3, N_PROMPT);
        for (uint32_t i = 0; i < when; i++) {
            const sched_step *st = drive_plan(d);
            if (st) drive_commit(d, st, DRIVE_WORD);
        }
        drive_cancel(d, g.id[0]);
        ck_assert_int_eq(drive_finish(d, g.id[0]), FINISH_CANCELLED);
        assert_all_end(d, &g, 1);
        drive_free(d);
    }
}
END_TEST

START_TEST(a_member_is_cancelled_or_late_by_itself) {
    drive *d = drive_new(drive_config());
    sched_spec spec = drive_spec(d, N_PROMPT, N_TEXT);
    sched_id leader, late, gone;
    drive_try(d, &spec, &leader);
    spec.fork_of = leader;
    drive_try(d, &spec, &gone);
    spec.deadline_us = 5;
    drive_try(d, &spec, &late);
    drive_cancel(d, gone); /* both sleep */
    ck_assert_int_eq(drive_finish(d, gone), FINISH_CANCELLED);
    d->now_us = 6;
    drive_step(d);
    ck_assert_int_eq(drive_finish(d, late), FINISH_TIMEOUT);
    ck_assert_uint_eq(drive_count(d, late, EVENT_ADMITTED), 0);
    drive_run(d, 100);
    ck_assert_int_eq(drive_finish(d, leader), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(members_that_sleep_delay_nobody) {
    sched_config cfg = drive_config();
    cfg.max_rows = 8;
    drive *d = drive_new(cfg);
    fork_many(d, 3, 30);
    sched_spec spec = drive_spec(d, 2, 1);
    sched_id other;
    spec.user = 9;
    drive_try(d, &spec, &other);
    ck_assert_ptr_nonnull(drive_entry(drive_plan(d), 9));
    drive_free(d);
}
END_TEST

START_TEST(forks_under_preemption_end_and_each_alone_must_fit) {
    drive *d = drive_with_blocks(6);
    group g = fork_many(d, 4, N_PROMPT); /* 4 blocks each in the end; together 2 + 4 * 2 */
    assert_all_end(d, &g, 0);
    ck_assert_uint_gt(drive_stats(d).count.preemptions, 0);
    sched_spec spec = drive_spec(d, N_PROMPT, 20);
    sched_id id;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NEVER_FITS);
    drive_free(d);
}
END_TEST

CHECK_MAIN("fork", the_prompt_is_computed_once_and_only_its_last_block_is_copied,
           a_prompt_that_ends_with_its_block_needs_a_copy_and_one_longer_none,
           the_copied_block_is_pinned_until_its_step_is_committed,
           a_fork_of_128_ends_with_four_slots,
           a_member_does_not_wait_for_a_paused_leader_that_fills_the_pool,
           members_outlive_a_leader_that_ends_at_any_time,
           a_member_is_cancelled_or_late_by_itself, members_that_sleep_delay_nobody,
           forks_under_preemption_end_and_each_alone_must_fit)
