/* Runs of tokens: rows that verify drafts, and what is left of them. */
#include "tests/scheduler/drive.h"

/* Two sequences that decode: users 0 and 1, prompts of 6, at most 12 tokens each. */
static drive *two_that_decode(sched_id id[2], sched_config cfg) {
    drive *d = drive_new(cfg);
    for (uint64_t i = 0; i < 2; i++) {
        sched_spec spec = drive_spec(d, 6, 12);
        spec.user = i;
        spec.stop_ids[0] = 77;
        spec.n_stop_ids = 1;
        ck_assert_int_eq(drive_try(d, &spec, &id[i]), REJECT_NONE);
    }
    drive_step(d);
    return d;
}

static const int32_t guess[] = {11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26};

/* Commits a step in which each entry drew the first n tokens of run. */
static void commit_runs(drive *d, const sched_step *st, const int32_t *run, uint32_t n) {
    int32_t token[4 * 16];
    uint32_t n_tokens[4];
    for (uint32_t i = 0; i < st->n_seqs; i++) {
        n_tokens[i] = n < 1U + st->seq[i].n_draft ? n : 1U + st->seq[i].n_draft;
        memcpy(token + i * 16, run, n_tokens[i] * sizeof *run);
    }
    const sched_step_tokens drawn = {.token = token, .n = n_tokens, .stride = 16};
    sched_commit(d->s, st, &drawn);
    drive_drain(d);
}

START_TEST(a_run_is_committed_and_rejected_positions_are_given_back) {
    sched_id id[2];
    drive *d = two_that_decode(id, drive_config());
    ck_assert_uint_eq(sched_draft(d->s, id[0], guess, 6, false), 6);
    drive_drain(d);
    const sched_step *st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), "d0+6 d1");
    ck_assert(st->n_decode_rows == 8 && st->n_rows == 8);
    ck_assert(st->seq[0].n_rows == 7 && st->seq[0].first_pos == 6);
    ck_assert(st->seq[1].first_row == 7 && st->seq[1].n_rows == 1);
    ck_assert_int_eq(memcmp(sched_tokens(d->s, st->seq[0].slot) + 7, guess, 6 * sizeof *guess),
                     0);
    ck_assert_uint_eq(sched_kv_blocks_of(d->s, id[0]), 4); /* 13 positions */
    ck_assert_uint_eq(sched_draft(d->s, id[0], guess, 6, false),
                      0); /* in an uncommitted step */
    commit_runs(d, st, guess, 3);
    const sched_event *e = drive_last(d, id[0], EVENT_TOKEN);
    ck_assert(e->n_tokens == 3 && e->n_output == 4 && e->finish == FINISH_NONE);
    ck_assert_uint_eq(sched_kv_blocks_of(d->s, id[0]), 3); /* 9 positions */
    const sched_stats now = drive_stats(d);
    ck_assert(now.count.speculative_drafts == 1 && now.count.speculative_draft_tokens == 6);
    ck_assert_uint_eq(now.count.speculative_accepted_tokens, 2); /* the third was drawn */
    st = drive_plan(d);
    ck_assert(st->seq[0].first_pos == 9 && st->seq[0].n_rows == 1); /* guesses count once */
    ck_assert_int_eq(sched_tokens(d->s, st->seq[0].slot)[9], 13);
    drive_commit(d, st, DRIVE_WORD);
    drive_run(d, 100);
    ck_assert(drive_last(d, id[0], EVENT_ENDED)->n_output == 12);
    drive_free(d);
}
END_TEST

START_TEST(a_run_ends_at_a_stop_id_and_at_max_tokens) {
    sched_id id[2];
    drive *d = two_that_decode(id, drive_config());
    const int32_t stops[] = {11, 12, 77, 14, 15}, stops_at_once[] = {77, 12};
    ck_assert_uint_eq(sched_draft(d->s, id[0], stops, 4, false), 4);
    ck_assert_uint_eq(sched_draft(d->s, id[1], guess, 16, true),
                      10); /* and one is drawn: 12 in all */
    drive_drain(d);
    const sched_step *st = drive_plan(d);
    ck_assert(st->seq[0].n_draft == 4 && st->seq[1].n_draft == 10);
    int32_t token[2 * 16];
    const uint32_t n[] = {5, 11};
    memcpy(token, stops, sizeof stops);
    memcpy(token + 16, guess, 11 * sizeof *guess);
    const sched_step_tokens drawn = {token, n, 16};
    sched_commit(d->s, st, &drawn);
    drive_drain(d);
    const sched_event *e = drive_last(d, id[0], EVENT_TOKEN);
    ck_assert(e->n_tokens == 2 && e->n_output == 3 && e->finish == FINISH_STOP);
    e = drive_last(d, id[0], EVENT_ENDED);
    ck_assert(e->finish == FINISH_STOP && e->stop_id == 77 && e->n_output == 4);
    const sched_stats now = drive_stats(d);
    ck_assert(now.count.speculative_draft_tokens == 14);
    ck_assert_uint_eq(now.count.speculative_accepted_tokens,
                      3 + 10); /* with the one that stops */
    ck_assert(now.count.speculative_drafts == 2 && now.count.speculative_model_drafts == 1);
    ck_assert(now.count.speculative_model_draft_tokens == 10);
    ck_assert(now.count.speculative_model_accepted_tokens == 10);
    e = drive_last(d, id[1], EVENT_TOKEN);
    ck_assert(e->n_tokens == 11 && e->n_output == 12 && e->finish == FINISH_LENGTH);
    ck_assert_int_eq(drive_finish(d, id[1]), FINISH_LENGTH);
    ck_assert_uint_eq(drive_stats(d).blocks_free, 16);
    drive_free(d);
    /* Nothing of a run that stops at once is text. */
    d = two_that_decode(id, drive_config());
    sched_draft(d->s, id[0], guess, 1, false);
    const uint32_t tokens = drive_count(d, id[0], EVENT_TOKEN);
    commit_runs(d, drive_plan(d), stops_at_once, 2);
    ck_assert_uint_eq(drive_count(d, id[0], EVENT_TOKEN), tokens);
    ck_assert_int_eq(drive_finish(d, id[0]), FINISH_STOP);
    drive_free(d);
}
END_TEST

START_TEST(a_deadline_or_a_cancel_during_the_step_discards_the_run) {
    for (int cancel = 0; cancel < 2; cancel++) {
        sched_config cfg = drive_config();
        drive *d = drive_new(cfg);
        sched_spec spec = drive_spec(d, 6, 12);
        spec.deadline_us = 10;
        sched_id id;
        drive_try(d, &spec, &id);
        drive_step(d);
        ck_assert_uint_eq(sched_draft(d->s, id, guess, 6, false), 6);
        const sched_step *st = drive_plan(d);
        const uint32_t tokens = drive_count(d, id, EVENT_TOKEN);
        d->now_us = 20;
        if (cancel)
            drive_cancel(d, id);
        else
            ck_assert_ptr_null(drive_plan(d));
        commit_runs(d, st, guess, 7);
        ck_assert_uint_eq(drive_count(d, id, EVENT_TOKEN), tokens);
        ck_assert_int_eq(drive_finish(d, id), cancel ? FINISH_CANCELLED : FINISH_TIMEOUT);
        ck_assert_uint_eq(drive_stats(d).blocks_free, 16);
        drive_free(d);
    }
}
END_TEST

START_TEST(drafts_take_half_of_what_is_left_while_a_prompt_waits_and_only_free_blocks) {
    sched_id id[2];
    drive *d = two_that_decode(id, drive_config());
    sched_draft(d->s, id[0], guess, 9, false);
    drive_submit(d, 14, 1);
    const sched_step *st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), "d0+7 d1 p0[0..7)"); /* 7 of the 14 left */
    ck_assert(st->n_decode_rows == 9 && st->n_prefill_rows == 7);
    drive_free(d);
    sched_config cfg = drive_config();
    cfg.group[0].n_blocks = 5;
    d = two_that_decode(id, cfg); /* two blocks each, full but for one place of the second */
    sched_draft(d->s, id[0], guess, 9, false);
    st = drive_plan(d);
    ck_assert_uint_eq(st->seq[0].n_draft, 5); /* positions 7 .. 11 */
    ck_assert_uint_eq(drive_count(d, id[1], EVENT_PREEMPTED), 0);
    drive_free(d);
}
END_TEST

START_TEST(guesses_are_forgotten_by_a_preemption_or_a_pause) {
    sched_id id[2];
    drive *d = two_that_decode(id, drive_config());
    sched_draft(d->s, id[1], guess, 3, false);
    sched_pause(d->s, id[1], true);
    sched_pause(d->s, id[1], false);
    drive_drain(d);
    const sched_step *st = drive_plan(d);
    ck_assert(st->n_seqs == 2 && st->n_rows == 2);
    drive_commit(d, st, DRIVE_WORD);
    ck_assert_uint_eq(sched_draft(d->s, id[1] ^ (sched_id)1 << 40, guess, 3, false),
                      0); /* stale */
    drive_free(d);
}
END_TEST

/* One row takes 1 ms: the model of times has seen 60 steps of 1 to 4 rows. */
static void learn(drive *d) {
    const sched_step *st = drive_plan(d);
    for (uint32_t i = 0; i < 60; i++) {
        cost_model *c = (cost_model *)sched_step_cost(d->s);
        const double n = 1 + i % 4;
        cost_observe(c, (step_work){.rows = n, .logit_rows = n}, 1000 * n);
    }
    drive_commit(d, st, DRIVE_WORD);
}

START_TEST(drafts_keep_the_objective) {
    sched_id id[2];
    sched_config cfg = drive_config();
    cfg.itl_slo_us = 6500;
    drive *d = two_that_decode(id, cfg);
    sched_draft(d->s, id[0], guess, 9, false);
    const sched_step *st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), "d0 d1"); /* nothing is known of the time of a step */
    drive_commit(d, st, DRIVE_WORD);
    learn(d);
    sched_draft(d->s, id[0], guess, 9, false);
    st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), "d0+4 d1"); /* 6 rows */
    commit_runs(d, st, guess, 1);
    /* A draft model took the time of two of them; of one step alone. */
    sched_draft(d->s, id[0], guess, 9, true);
    sched_spend(d->s, 1500);
    sched_spend(d->s, 500);
    st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), "d0+2 d1");
    commit_runs(d, st, guess, 1);
    sched_draft(d->s, id[0], guess, 7, true);
    ck_assert_str_eq(drive_trace(drive_plan(d)), "d0+4 d1");
    drive_free(d);
}
END_TEST

START_TEST(as_many_guesses_are_taken_as_there_is_room_for) {
    sched_id id[2];
    drive *d = two_that_decode(id, drive_config());
    ck_assert_uint_eq(sched_draft_space(d->s, id[0]), 10); /* one token of 12 is there */
    ck_assert_uint_eq(sched_draft_space(d->s, id[0] ^ (sched_id)1 << 40), 0);
    const sched_step *st = drive_plan(d);
    ck_assert_uint_eq(sched_draft_space(d->s, id[0]), 0); /* in an uncommitted step */
    drive_commit(d, st, DRIVE_WORD);
    sched_pause(d->s, id[0], true);
    ck_assert_uint_eq(sched_draft_space(d->s, id[0]), 0);
    drive_free(d);
}
END_TEST

CHECK_MAIN("draft", drafts_keep_the_objective, as_many_guesses_are_taken_as_there_is_room_for,
           a_run_is_committed_and_rejected_positions_are_given_back,
           a_run_ends_at_a_stop_id_and_at_max_tokens,
           a_deadline_or_a_cancel_during_the_step_discards_the_run,
           drafts_take_half_of_what_is_left_while_a_prompt_waits_and_only_free_blocks,
           guesses_are_forgotten_by_a_preemption_or_a_pause)
