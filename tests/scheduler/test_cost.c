/* What a sequence has taken: its steps, its blocks times how long it held them, what was computed
 * twice. */
#include "tests/scheduler/drive.h"

enum { SECOND = 1000000, BLOCK_BYTES = 100 };

static drive *drive_with_bytes(uint32_t n_blocks) {
    sched_config cfg = drive_config();
    cfg.group[0] = (sched_group){.n_blocks = n_blocks, .block_bytes = BLOCK_BYTES};
    return drive_new(cfg);
}

/* A step that takes a second. False: nothing to do. */
static bool second_passes(drive *d) {
    const sched_step *st = drive_plan(d);
    if (!st) return false;
    d->now_us += SECOND;
    sched_now(d->s, d->now_us);
    drive_commit(d, st, DRIVE_WORD);
    return true;
}

static sched_cost cost_of(const drive *d, sched_id id) {
    const sched_event *e = drive_last(d, id, EVENT_ENDED);
    ck_assert(e && e->cost);
    return *e->cost;
}

static bool is_near(double v, double expected) {
    return v > expected * (1 - 1e-9) - 1e-9 && v < expected * (1 + 1e-9) + 1e-9;
}

START_TEST(blocks_count_for_as_long_as_they_are_held) {
    drive *d = drive_with_bytes(16);
    d->now_us = 7 * SECOND;
    const sched_id a = drive_submit(d, 8, 3);
    d->now_us += 5 * SECOND; /* waiting costs nothing */
    while (second_passes(d)) {
    }
    /* Two blocks for the prompt's second, three for the two that follow. */
    const sched_cost c = cost_of(d, a);
    ck_assert_msg(is_near(c.byte_seconds, 2 * 100 + 3 * 200), "%g", c.byte_seconds);
    ck_assert_uint_eq(c.n_steps, 3);
    ck_assert(c.n_recomputed == 0 && c.loaded_bytes == 0 && c.load_us == 0);
    ck_assert_uint_eq(drive_last(d, a, EVENT_ENDED)->peak_bytes, 300);
    drive_free(d);
}
END_TEST

START_TEST(a_cancelled_sequence_has_paid_until_its_end) {
    drive *d = drive_with_bytes(16);
    const sched_id a = drive_submit(d, 8, 20), b = drive_submit(d, 4, 1);
    second_passes(d);
    second_passes(d);
    d->now_us += SECOND;
    sched_now(d->s, d->now_us);
    drive_cancel(d, a);
    /* Three blocks from the second step on. */
    ck_assert_msg(is_near(cost_of(d, a).byte_seconds, 200 + 300 * 2), "%g",
                  cost_of(d, a).byte_seconds);
    ck_assert_msg(is_near(cost_of(d, b).byte_seconds, 100), "%g", cost_of(d, b).byte_seconds);
    ck_assert_uint_eq(cost_of(d, b).n_steps, 1);
    drive_free(d);
}
END_TEST

START_TEST(a_sequence_that_never_ran_has_cost_nothing) {
    drive *d = drive_with_bytes(16);
    const sched_id a = drive_submit(d, 8, 3);
    d->now_us += SECOND;
    drive_cancel(d, a);
    const sched_cost c = cost_of(d, a);
    ck_assert(is_near(c.byte_seconds, 0) && c.n_steps == 0);
    drive_free(d);
}
END_TEST

static sched_id submit_as(drive *d, uint64_t user, uint32_t n_prompt, uint32_t max_tokens) {
    sched_spec spec = drive_spec(d, n_prompt, max_tokens);
    sched_id id;
    spec.user = user;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    return id;
}

/* While it is preempted a sequence holds nothing, and what it had is computed again. */
START_TEST(preemption_stops_the_clock_and_its_tokens_are_counted) {
    drive *d = drive_with_bytes(9);
    sched_id id[3];
    double sum = 0, held = 0;
    uint64_t recomputed = 0;
    uint32_t n[3] = {0};
    for (uint32_t i = 0; i < 3; i++) id[i] = submit_as(d, i, 8, 28);
    for (const sched_step *st; (st = drive_plan(d));) {
        for (uint32_t i = 0; i < st->n_seqs; i++) n[st->seq[i].user]++;
        for (int i = 0; i < 3; i++)
            held += (double)sched_kv_blocks_of(d->s, id[i]) * BLOCK_BYTES;
        d->now_us += SECOND;
        sched_now(d->s, d->now_us);
        drive_commit(d, st, DRIVE_WORD);
    }
    for (int i = 0; i < 3; i++) {
        sum += cost_of(d, id[i]).byte_seconds;
        recomputed += cost_of(d, id[i]).n_recomputed;
        ck_assert_uint_eq(cost_of(d, id[i]).n_steps, n[i]);
    }
    ck_assert_msg(is_near(sum, held), "%g %g", sum, held);
    ck_assert_uint_gt(recomputed, 0);
    ck_assert_uint_eq(recomputed, drive_stats(d).count.recomputed_tokens);
    ck_assert_uint_eq(cost_of(d, id[0]).n_recomputed, 0);
    drive_free(d);
}
END_TEST

START_TEST(steps_are_those_with_rows_of_it) {
    drive *d = drive_with_bytes(32);
    const sched_id id[] = {submit_as(d, 0, 40, 0), submit_as(d, 1, 40, 2)};
    uint32_t n[2] = {0};
    for (const sched_step *st; (st = drive_plan(d));) {
        for (uint32_t i = 0; i < st->n_seqs; i++) n[st->seq[i].user]++;
        drive_commit(d, st, DRIVE_WORD);
    }
    for (int i = 0; i < 2; i++) ck_assert_uint_eq(cost_of(d, id[i]).n_steps, n[i]);
    ck_assert_uint_ge(n[0], 3); /* 16 rows a step */
    drive_free(d);
}
END_TEST

START_TEST(a_run_of_drafts_is_one_step) {
    static const int32_t guess[] = {11, 12, 13, 14, 15};
    drive *d = drive_with_bytes(16);
    const sched_id a = drive_submit(d, 6, 6);
    drive_step(d);
    ck_assert_uint_eq(sched_draft(d->s, a, guess, 4, false), 4);
    const sched_step *st = drive_plan(d);
    const uint32_t n = 5;
    const sched_step_tokens drawn = {.token = guess, .n = &n, .stride = 16};
    sched_commit(d->s, st, &drawn);
    drive_drain(d);
    ck_assert_int_eq(drive_finish(d, a), FINISH_LENGTH);
    ck_assert_uint_eq(cost_of(d, a).n_steps, 2);
    drive_free(d);
}
END_TEST

CHECK_MAIN("cost", blocks_count_for_as_long_as_they_are_held,
           a_cancelled_sequence_has_paid_until_its_end,
           a_sequence_that_never_ran_has_cost_nothing,
           preemption_stops_the_clock_and_its_tokens_are_counted,
           steps_are_those_with_rows_of_it, a_run_of_drafts_is_one_step)
