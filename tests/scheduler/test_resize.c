/* Pools that shrink and grow while sequences run: what is moved, forgotten, preempted. Every call
 * of drive.h is followed by an audit. */

#include "scheduler/resize.h"
#include "tests/check_main.h"
#include "tests/scheduler/drive.h"

static sched_config small(uint32_t n_blocks, uint32_t max_blocks) {
    sched_config cfg = drive_config();
    cfg.group[0].n_blocks = n_blocks;
    cfg.group[0].max_blocks = max_blocks;
    cfg.max_moves = 8;
    return cfg;
}

static bool resize(drive *d, uint32_t n) {
    const uint32_t blocks[SCHED_MAX_GROUPS] = {n, n, n, n};
    bool ok = sched_resize(d->s, blocks);
    drive_drain(d);
    return ok;
}

/* The highest block that a sequence has, or -1. */
static int32_t highest(const drive *d, const sched_step *st, uint64_t user) {
    const sched_step_seq *e = drive_entry(st, user);
    int32_t top = -1;
    ck_assert_ptr_nonnull(e);
    for (uint32_t i = 0; i < e->n_blocks; i++) {
        int32_t b = sched_blocks(d->s, e->slot, 0)[i];
        if (b > top) top = b;
    }
    return top;
}

static sched_id submit(drive *d, uint64_t user, uint32_t n_prompt, uint32_t max_tokens) {
    sched_spec spec = drive_spec(d, n_prompt, max_tokens);
    sched_id id = 0;
    spec.user = user;
    spec.salt = user; /* nothing is shared */
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    return id;
}

START_TEST(an_idle_pool_shrinks_and_grows_at_once) {
    drive *d = drive_new(small(16, 24));
    ck_assert(resize(d, 5));
    ck_assert_ptr_null(drive_plan(d));
    ck_assert(sched_resized(d->s));
    ck_assert_uint_eq(drive_stats(d).blocks_all, 5);
    ck_assert_uint_eq(drive_stats(d).blocks_free, 5);
    ck_assert(resize(d, 24));
    ck_assert_ptr_null(drive_plan(d));
    ck_assert_uint_eq(drive_stats(d).blocks_free, 24);
    ck_assert(!resize(d, 25)); /* more than max_blocks */
    ck_assert(!resize(d, 0));
    ck_assert_uint_eq(drive_stats(d).blocks_all, 24);
    drive_free(d);
}
END_TEST

START_TEST(without_max_moves_nothing_is_resized) {
    sched_config cfg = small(16, 16);
    cfg.max_moves = 0;
    drive *d = drive_new(cfg);
    ck_assert(!resize(d, 8));
    drive_free(d);
}
END_TEST

START_TEST(requests_are_measured_against_the_new_size) {
    drive *d = drive_new(small(16, 16));
    sched_id id;
    ck_assert(resize(d, 3));
    sched_spec spec = drive_spec(d, 13, 1); /* 4 blocks */
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NEVER_FITS);
    ck_assert(resize(d, 4));
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    uint32_t least[SCHED_MAX_GROUPS];
    sched_least_blocks(d->s, least);
    ck_assert_uint_eq(least[0], 4);
    ck_assert(!resize(d, 3)); /* it waits, and is never dropped */
    drive_run(d, 10);
    ck_assert(resize(d, 3));
    drive_free(d);
}
END_TEST

START_TEST(a_step_moves_what_it_needs_before_its_rows) {
    drive *d = drive_new(small(16, 16));
    sched_id first = submit(d, 0, 32, 2), second = submit(d, 1, 9, 20);
    while (drive_finish(d, first) == FINISH_NONE) drive_step(d);
    const sched_step *st = drive_plan(d);
    ck_assert_int_ge(highest(d, st, 1), 4);
    drive_commit(d, st, DRIVE_WORD);
    ck_assert(resize(d, 7)); /* 28 positions: alone it fits exactly */
    ck_assert(!sched_resized(d->s));
    st = drive_plan(d);
    ck_assert_uint_gt(st->n_moves, 0);
    ck_assert_uint_eq(st->n_copies, st->n_moves);
    for (uint32_t i = 0; i < st->n_moves; i++) {
        ck_assert_int_ge(st->copy[i].from, 7);
        ck_assert_int_lt(st->copy[i].to, 7);
    }
    ck_assert_int_lt(highest(d, st, 1), 7);
    ck_assert(!sched_resized(d->s)); /* the engine may still read the old places */
    drive_commit(d, st, DRIVE_WORD);
    ck_assert_ptr_nonnull(st = drive_plan(d));
    ck_assert(sched_resized(d->s));
    ck_assert_uint_eq(st->n_moves, 0);
    ck_assert_uint_eq(drive_stats(d).blocks_all, 7);
    drive_commit(d, st, DRIVE_WORD);
    drive_run(d, 40);
    ck_assert_int_eq(drive_finish(d, second), FINISH_LENGTH);
    ck_assert_uint_eq(drive_count(d, second, EVENT_PREEMPTED), 0);
    drive_free(d);
}
END_TEST

START_TEST(a_step_moves_no_more_than_max_moves) {
    sched_config cfg = small(32, 32);
    cfg.max_moves = 2;
    drive *d = drive_new(cfg);
    sched_id first = submit(d, 0, 40, 2), second = submit(d, 1, 24, 20);
    while (drive_finish(d, first) == FINISH_NONE) drive_step(d);
    ck_assert(resize(d, 11));
    uint32_t n_moves = 0, n_steps = 0;
    while (!sched_resized(d->s)) {
        const sched_step *st = drive_plan(d);
        ck_assert_uint_le(st->n_moves, 2);
        n_moves += st->n_moves;
        n_steps += st->n_moves > 0;
        drive_commit(d, st, DRIVE_WORD);
    }
    ck_assert_uint_gt(n_moves, 2);
    ck_assert_uint_eq(n_steps, (n_moves + 1) / 2);
    ck_assert_uint_eq(drive_stats(d).count.moved_blocks, n_moves);
    ck_assert_uint_eq(drive_count(d, second, EVENT_PREEMPTED), 0);
    drive_free(d);
}
END_TEST

START_TEST(juniors_are_preempted_where_the_rest_is_too_small) {
    drive *d = drive_new(small(16, 16));
    sched_id id[3];
    for (uint32_t i = 0; i < 3; i++) id[i] = submit(d, i, 8, 12);
    for (int i = 0; i < 6; i++) drive_step(d);
    ck_assert_uint_eq(drive_stats(d).n_running, 3);
    ck_assert(resize(d, 5)); /* one of 5 blocks */
    while (!sched_resized(d->s)) drive_step(d);
    ck_assert_uint_eq(drive_count(d, id[0], EVENT_PREEMPTED), 0);
    ck_assert_uint_gt(drive_count(d, id[2], EVENT_PREEMPTED), 0);
    drive_run(d, 100);
    for (uint32_t i = 0; i < 3; i++) ck_assert_int_eq(drive_finish(d, id[i]), FINISH_LENGTH);
    ck_assert_uint_eq(drive_stats(d).blocks_all, 5);
    drive_free(d);
}
END_TEST

START_TEST(uncommitted_steps_delay_moves_and_the_end) {
    drive *d = drive_new(small(16, 16));
    sched_id first = submit(d, 0, 32, 2);
    submit(d, 1, 9, 20);
    while (drive_finish(d, first) == FINISH_NONE) drive_step(d);
    const sched_step *a = drive_plan(d), *b = drive_plan(d);
    ck_assert_ptr_nonnull(b);
    ck_assert(resize(d, 7));
    drive_commit(d, a, DRIVE_WORD);
    ck_assert_ptr_null(drive_plan(d)); /* b may read the old places */
    drive_commit(d, b, DRIVE_WORD);
    a = drive_plan(d);
    ck_assert_uint_gt(a->n_moves, 0);
    b = drive_plan(d); /* in line behind the moves */
    ck_assert_ptr_nonnull(b);
    ck_assert(!sched_resized(d->s));
    drive_commit(d, a, DRIVE_WORD);
    ck_assert(sched_resized(d->s));
    drive_commit(d, b, DRIVE_WORD);
    drive_free(d);
}
END_TEST

START_TEST(fenced_blocks_of_a_shrinking_pool_go_with_their_step) {
    drive *d = drive_new(small(16, 16));
    const sched_id first = submit(d, 0, 32, 2), id = submit(d, 1, 9, 4);
    while (drive_finish(d, first) == FINISH_NONE) drive_step(d);
    const sched_step *st = drive_plan(d);
    drive_cancel(d, id);
    ck_assert_uint_gt(drive_stats(d).blocks_fenced, 0);
    ck_assert(resize(d, 3));
    ck_assert_ptr_null(drive_plan(d));
    ck_assert(!sched_resized(d->s));
    drive_commit(d, st, DRIVE_WORD);
    ck_assert_ptr_null(drive_plan(d));
    ck_assert(sched_resized(d->s));
    ck_assert_uint_eq(drive_stats(d).blocks_free, 3);
    drive_free(d);
}
END_TEST

START_TEST(a_pool_grows_back_only_when_no_step_can_touch_what_left) {
    drive *d = drive_new(small(16, 16));
    const sched_id first = submit(d, 0, 32, 2), id = submit(d, 1, 9, 4);
    while (drive_finish(d, first) == FINISH_NONE) drive_step(d);
    const sched_step *st = drive_plan(d);
    drive_cancel(d, id);
    ck_assert(resize(d, 3));
    ck_assert_ptr_null(drive_plan(d));
    ck_assert(resize(d, 16));
    ck_assert_ptr_null(drive_plan(d));
    ck_assert_uint_lt(drive_stats(d).blocks_all, 16);
    drive_commit(d, st, DRIVE_WORD);
    ck_assert_ptr_null(drive_plan(d));
    ck_assert_uint_eq(drive_stats(d).blocks_free, 16);
    drive_free(d);
}
END_TEST

START_TEST(cached_blocks_above_the_limit_are_forgotten_and_others_found) {
    sched_config cfg = small(16, 16);
    cfg.prefix_cache = true;
    drive *d = drive_new(cfg);
    ck_assert_uint_eq(drive_ask(d, 1, 33), 0);
    ck_assert_uint_eq(drive_ask(d, 1, 33), 32);
    const uint32_t cached = drive_stats(d).blocks_cached;
    ck_assert(resize(d, 9)); /* the first blocks of the text stand first */
    ck_assert_ptr_null(drive_plan(d));
    ck_assert(sched_resized(d->s));
    ck_assert_uint_le(drive_stats(d).blocks_cached, cached);
    const uint32_t found = drive_ask(d, 1, 33);
    ck_assert_uint_gt(found, 0);
    ck_assert(resize(d, 16));
    drive_run(d, 10);
    ck_assert_uint_eq(drive_ask(d, 1, 33), 32);
    drive_free(d);
}
END_TEST

START_TEST(a_moved_block_of_the_prefix_cache_is_found_at_its_new_place) {
    sched_config cfg = small(16, 16);
    cfg.prefix_cache = true;
    drive *d = drive_new(cfg);
    sched_spec other = drive_spec(d, 20, 2), spec = drive_spec(d, 13, 20);
    sched_id first, id, again;
    other.salt = 7;
    spec.user = 1;
    ck_assert_int_eq(drive_try(d, &other, &first), REJECT_NONE);
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    while (drive_count(d, id, EVENT_TOKEN) == 0 || !drive_finish(d, first)) drive_step(d);
    ck_assert(resize(d, 8));
    while (!sched_resized(d->s)) drive_step(d);
    ck_assert_uint_gt(drive_stats(d).count.moved_blocks, 0);
    spec.user = 2;
    spec.max_tokens = 1;
    ck_assert_int_eq(drive_try(d, &spec, &again), REJECT_NONE);
    drive_run(d, 60);
    ck_assert_uint_eq(drive_cached(d, again), 12);
    drive_free(d);
}
END_TEST

START_TEST(shared_blocks_of_a_fork_move_once) {
    drive *d = drive_new(small(16, 16));
    sched_id first = submit(d, 9, 32, 2);
    sched_spec spec = drive_spec(d, 13, 6);
    sched_id leader, member;
    ck_assert_int_eq(drive_try(d, &spec, &leader), REJECT_NONE);
    spec.user = 1;
    spec.fork_of = leader;
    ck_assert_int_eq(drive_try(d, &spec, &member), REJECT_NONE);
    while (drive_count(d, member, EVENT_TOKEN) == 0 || !drive_finish(d, first)) drive_step(d);
    ck_assert(resize(d, 8)); /* 3 shared, and at most 2 of each */
    const sched_step *st = drive_plan(d);
    ck_assert_uint_gt(st->n_moves, 0);
    for (uint32_t i = 0; i < st->n_moves; i++)
        for (uint32_t k = 0; k < i; k++) ck_assert_int_ne(st->copy[i].from, st->copy[k].from);
    drive_commit(d, st, DRIVE_WORD);
    drive_run(d, 40);
    ck_assert_uint_eq(drive_count(d, leader, EVENT_PREEMPTED), 0);
    ck_assert_uint_eq(drive_count(d, member, EVENT_PREEMPTED), 0);
    ck_assert_int_eq(drive_finish(d, member), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(a_block_that_a_fork_copies_moves_a_step_later) {
    drive *d = drive_new(small(16, 16));
    sched_id first = submit(d, 9, 32, 2);
    sched_spec spec = drive_spec(d, 14, 6);
    sched_id leader, member;
    ck_assert_int_eq(drive_try(d, &spec, &leader), REJECT_NONE);
    while (drive_count(d, leader, EVENT_TOKEN) == 0 || !drive_finish(d, first)) drive_step(d);
    spec.user = 1;
    spec.fork_of = leader;
    ck_assert_int_eq(drive_try(d, &spec, &member), REJECT_NONE);
    ck_assert(resize(d, 9));
    uint32_t n_moves = 0;
    for (const sched_step *st; (st = drive_plan(d));) {
        for (uint32_t i = 0; i < st->n_moves; i++)
            for (uint32_t k = 0; k < st->n_copies - st->n_moves; k++)
                ck_assert_int_ne(st->copy[st->n_copies - st->n_moves + i].from,
                                 st->copy[k].from);
        n_moves += st->n_moves;
        drive_commit(d, st, DRIVE_WORD);
    }
    ck_assert_uint_gt(n_moves, 0);
    ck_assert(sched_resized(d->s));
    ck_assert_int_eq(drive_finish(d, member), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(groups_with_a_window_keep_what_they_promised) {
    sched_config cfg = small(16, 16);
    cfg.n_groups = 2;
    cfg.group[1] = (sched_group){.n_blocks = 16, .max_blocks = 16, .window = 8};
    cfg.max_rows = 4;
    drive *d = drive_new(cfg);
    sched_id id[3];
    for (uint32_t i = 0; i < 3; i++) id[i] = submit(d, i, 12, 20);
    for (int i = 0; i < 12; i++) drive_step(d);
    const uint32_t n[SCHED_MAX_GROUPS] = {9, 6};
    ck_assert(sched_resize(d->s, n));
    drive_drain(d);
    while (!sched_resized(d->s)) drive_step(d);
    ck_assert_uint_eq(drive_stats(d).blocks_all, 15);
    drive_run(d, 300);
    for (uint32_t i = 0; i < 3; i++) ck_assert_int_eq(drive_finish(d, id[i]), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(a_paused_reader_loses_its_blocks_first) {
    drive *d = drive_new(small(16, 16));
    sched_id first = submit(d, 0, 32, 2), slow = submit(d, 1, 9, 20);
    while (drive_finish(d, first) == FINISH_NONE) drive_step(d);
    sched_pause(d->s, slow, true);
    drive_drain(d);
    ck_assert(resize(d, 7));
    ck_assert_ptr_null(drive_plan(d)); /* no rows, so nothing can be copied */
    ck_assert_uint_eq(drive_count(d, slow, EVENT_PREEMPTED), 1);
    ck_assert_ptr_null(drive_plan(d));
    ck_assert(sched_resized(d->s));
    sched_pause(d->s, slow, false);
    drive_drain(d);
    drive_run(d, 60);
    ck_assert_int_eq(drive_finish(d, slow), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(drafts_are_verified_in_moved_blocks) {
    drive *d = drive_new(small(16, 16));
    sched_id first = submit(d, 0, 32, 2), id = submit(d, 1, 9, 20);
    while (drive_finish(d, first) == FINISH_NONE) drive_step(d);
    const int32_t guess[5] = {DRIVE_WORD, DRIVE_WORD, DRIVE_WORD, DRIVE_WORD, DRIVE_WORD};
    ck_assert(resize(d, 7));
    ck_assert_uint_gt(sched_draft(d->s, id, guess, 5, false), 0);
    drive_drain(d);
    const sched_step *st = drive_plan(d);
    ck_assert_uint_gt(st->n_moves, 0);
    ck_assert_uint_gt(st->seq[0].n_draft, 0);
    ck_assert_int_lt(highest(d, st, 1), 7);
    drive_commit(d, st, DRIVE_WORD);
    drive_run(d, 60);
    ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

/* The step's sequences end, and with them whoever held a block that was to be moved. */
START_TEST(a_failed_step_of_moves_ends_all_that_held_them) {
    sched_config cfg = small(16, 16);
    cfg.prefix_cache = true;
    drive *d = drive_new(cfg);
    sched_id first = submit(d, 0, 32, 2), slow = submit(d, 1, 9, 20), other;
    while (drive_finish(d, first) == FINISH_NONE) drive_step(d);
    sched_pause(d->s, slow, true);
    other = submit(d, 2, 5, 4);
    ck_assert(resize(d, 10));
    const sched_step *st = drive_plan(d);
    ck_assert_ptr_null(drive_entry(st, 1));
    const uint32_t n_moves = st->n_moves;
    sched_commit(d->s, st, NULL);
    drive_drain(d);
    ck_assert_int_eq(drive_finish(d, other), FINISH_ERROR);
    ck_assert_int_eq(drive_finish(d, slow), n_moves ? FINISH_ERROR : FINISH_NONE);
    ck_assert_uint_gt(n_moves, 0);
    drive_free(d);
}
END_TEST

CHECK_MAIN("resize", an_idle_pool_shrinks_and_grows_at_once,
           without_max_moves_nothing_is_resized, requests_are_measured_against_the_new_size,
           a_step_moves_what_it_needs_before_its_rows, a_step_moves_no_more_than_max_moves,
           juniors_are_preempted_where_the_rest_is_too_small,
           uncommitted_steps_delay_moves_and_the_end,
           fenced_blocks_of_a_shrinking_pool_go_with_their_step,
           a_pool_grows_back_only_when_no_step_can_touch_what_left,
           cached_blocks_above_the_limit_are_forgotten_and_others_found,
           a_moved_block_of_the_prefix_cache_is_found_at_its_new_place,
           shared_blocks_of_a_fork_move_once, a_block_that_a_fork_copies_moves_a_step_later,
           groups_with_a_window_keep_what_they_promised, a_paused_reader_loses_its_blocks_first,
           drafts_are_verified_in_moved_blocks, a_failed_step_of_moves_ends_all_that_held_them)
