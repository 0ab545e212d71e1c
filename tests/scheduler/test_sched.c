/* The life of sequences: admission, shares of a step, ends, rejects, priorities. */
#include "tests/scheduler/drive.h"

START_TEST(a_lone_sequence_that_outgrows_the_pool_is_rejected_not_asserted) {
    sched_config cfg = drive_config();
    cfg.max_model_len = 256; /* longer than the 64 tokens that the blocks hold */
    drive *d = drive_new(cfg);
    sched_id id;
    sched_spec spec = drive_spec(d, 10, 56); /* 65 positions: the last token is never input */
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NEVER_FITS);
    spec.max_tokens = 55;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    ck_assert_uint_le(drive_run(d, 100), 56);
    ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
    ck_assert_uint_eq(drive_count(d, id, EVENT_TOKEN), 55);
    ck_assert_uint_eq(drive_last(d, id, EVENT_ENDED)->peak_blocks, 16);
    ck_assert_uint_eq(drive_stats(d).blocks_free, 16);
    drive_free(d);
}
END_TEST

START_TEST(decode_rows_advance_every_step_though_a_prompt_arrives_with_each) {
    sched_config cfg = drive_config();
    cfg.group[0].n_blocks = 4096;
    cfg.max_waiting = 1000;
    cfg.max_waiting_tokens = 1000000;
    drive *d = drive_new(cfg);
    sched_id id = drive_submit(d, 4, 50);
    drive_step(d); /* prefilled, one token */
    uint32_t prefill_rows = 0;
    for (uint32_t i = 0; i < 49; i++) {
        drive_submit(d, 40, 8);
        const sched_step *st = drive_plan(d);
        ck_assert_uint_ge(st->n_decode_rows, 1);
        prefill_rows += st->n_prefill_rows;
        drive_commit(d, st, DRIVE_WORD);
        ck_assert_uint_eq(drive_count(d, id, EVENT_TOKEN), i + 2);
    }
    ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
    ck_assert_uint_ge(prefill_rows, 49 * 8); /* and prompts get on */
    drive_free(d);
}
END_TEST

START_TEST(two_prompts_share_the_rows_that_decoding_leaves) {
    sched_config cfg = drive_config();
    cfg.group[0].n_blocks = 64;
    drive *d = drive_new(cfg);
    sched_spec spec = drive_spec(d, 4, 20);
    sched_id id;
    spec.user = 1;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    drive_step(d);
    spec.n_prompt = 40;
    for (spec.user = 2; spec.user <= 3; spec.user++) drive_try(d, &spec, &id);

    const sched_step *st = drive_plan(d); /* 16 rows: 1 decodes, 15 left, 8 for one prompt */
    ck_assert_str_eq(drive_trace(st), "d1 p2[0..8) p3[0..7)");
    drive_commit(d, st, DRIVE_WORD);

    cfg.max_prefill_share = 3;
    drive *e = drive_new(cfg);
    spec = drive_spec(e, 40, 20);
    for (spec.user = 1; spec.user <= 2; spec.user++) drive_try(e, &spec, &id);
    st = drive_plan(e); /* both are capped at 3; what is left over goes to the senior */
    ck_assert_str_eq(drive_trace(st), "p1[0..13) p2[0..3)");
    drive_commit(e, st, DRIVE_WORD);
    drive_free(d);
    drive_free(e);
}
END_TEST

START_TEST(a_prompt_alone_takes_the_whole_budget) {
    sched_config cfg = drive_config();
    drive *d = drive_new(cfg);
    drive_submit(d, 40, 4);
    const sched_step *st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), "p0[0..16)");
    ck_assert_uint_eq(st->n_logit_rows, 0);
    ck_assert_uint_eq(st->seq[0].n_blocks, 4);
    drive_commit(d, st, DRIVE_WORD);
    drive_step(d);
    st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), "p0[32..40)s");
    ck_assert_uint_eq(st->n_logit_rows, 1);
    drive_commit(d, st, DRIVE_WORD);
    drive_free(d);
}
END_TEST

START_TEST(admission_asks_for_the_full_length_and_the_watermark) {
    sched_config cfg = drive_config();
    cfg.group[0].n_blocks = 40;
    cfg.watermark_permille = 50; /* 2 blocks */
    drive *d = drive_new(cfg);
    drive_submit(d, 60, 2);                                                   /* 15 blocks */
    sched_id second = drive_submit(d, 60, 2), third = drive_submit(d, 36, 2); /* 15; 9 of 10 */
    const sched_step *st;
    for (int i = 0; i < 6; i++) {
        st = drive_plan(d);
        drive_commit(d, st, DRIVE_WORD);
    }
    ck_assert_uint_eq(drive_count(d, second, EVENT_ADMITTED), 1);
    ck_assert_uint_eq(drive_stats(d).n_waiting, 1); /* 9 + 2 > 10 */
    ck_assert_uint_eq(drive_count(d, third, EVENT_ADMITTED), 0);
    drive_run(d, 20);
    ck_assert_int_eq(drive_finish(d, third), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(the_watermark_is_waived_when_nothing_runs) {
    sched_config cfg = drive_config();
    cfg.watermark_permille = 500;
    drive *d = drive_new(cfg);
    sched_id id = drive_submit(d, 60, 4); /* 15 and in the end 16 of 16 blocks */
    drive_run(d, 20);
    ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(an_end_token_stops_unless_ignored_and_not_before_min_tokens) {
    drive *d = drive_new(drive_config());
    sched_spec spec = drive_spec(d, 3, 5);
    sched_id plain, ignoring, patient, own;
    drive_try(d, &spec, &plain);
    spec.ignore_eos = true;
    drive_try(d, &spec, &ignoring);
    spec.stop_ids[0] = DRIVE_END_TOKEN;
    spec.n_stop_ids = 1;
    drive_try(d, &spec, &own);
    spec = drive_spec(d, 3, 5);
    spec.min_tokens = 2;
    drive_try(d, &spec, &patient);
    const sched_step *st;
    while ((st = drive_plan(d))) drive_commit(d, st, DRIVE_END_TOKEN);

    ck_assert_int_eq(drive_finish(d, plain), FINISH_STOP);
    ck_assert_int_eq(drive_last(d, plain, EVENT_ENDED)->stop_id, DRIVE_END_TOKEN);
    ck_assert_uint_eq(drive_last(d, plain, EVENT_ENDED)->n_output, 1);
    ck_assert_uint_eq(drive_count(d, plain, EVENT_TOKEN), 0); /* not part of the text */
    ck_assert_int_eq(drive_finish(d, ignoring), FINISH_LENGTH);
    ck_assert_uint_eq(drive_count(d, ignoring, EVENT_TOKEN), 5);
    ck_assert_int_eq(drive_finish(d, own), FINISH_STOP);
    ck_assert_int_eq(drive_finish(d, patient), FINISH_STOP);
    ck_assert_uint_eq(drive_count(d, patient, EVENT_TOKEN), 2);
    drive_free(d);
}
END_TEST

START_TEST(events_come_in_the_order_of_a_life) {
    drive *d = drive_new(drive_config());
    sched_spec spec = drive_spec(d, 20, 2);
    spec.user = 77;
    sched_id id;
    drive_try(d, &spec, &id);
    drive_run(d, 10);
    static const sched_event_kind want[] = {EVENT_ADMITTED, EVENT_PREFILLED, EVENT_PREFILLED,
                                            EVENT_TOKEN,    EVENT_TOKEN,     EVENT_ENDED};
    ck_assert_uint_eq(d->n_log, 6);
    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(d->log[i].kind, want[i]);
        ck_assert_uint_eq(d->log[i].id, id);
        ck_assert_uint_eq(d->log[i].user, 77);
    }
    ck_assert_uint_eq(d->log[1].n_rows, 16);
    ck_assert_uint_eq(d->log[2].first_pos, 16);
    ck_assert_uint_eq(d->log[2].n_rows, 4);
    ck_assert_int_eq(d->log[3].finish, FINISH_NONE);
    ck_assert_int_eq(d->log[4].finish, FINISH_LENGTH);
    ck_assert_int_eq(d->log[5].finish, FINISH_LENGTH);
    ck_assert_uint_eq(d->log[5].n_output, 2);
    drive_free(d);
}
END_TEST

START_TEST(each_reason_to_reject_is_told) {
    sched_config cfg = drive_config();
    cfg.max_waiting = 2;
    cfg.max_waiting_tokens = 30;
    cfg.group[0].n_blocks = 8;
    drive *d = drive_new(cfg);
    sched_id id;
    sched_spec spec = drive_spec(d, 60, 5);
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_TOO_LONG);
    spec.max_tokens = UINT32_MAX;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_TOO_LONG);
    spec = drive_spec(d, 30, 4); /* 33 positions, 9 blocks */
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NEVER_FITS);
    spec = drive_spec(d, 20, 4);
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_QUEUE_TOKENS);
    spec.n_prompt = 10;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    spec.n_prompt = 1;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_QUEUE_FULL);
    drive_run(d, 100);
    ck_assert_uint_eq(drive_stats(d).n_waiting, 0); /* what was taken is served */
    ck_assert_uint_eq(drive_stats(d).count.generated_tokens, 8);
    drive_free(d);
}
END_TEST

START_TEST(an_empty_queue_takes_a_prompt_above_the_token_limit) {
    sched_config cfg = drive_config();
    cfg.max_waiting_tokens = 8;
    drive *d = drive_new(cfg);
    sched_id id = drive_submit(d, 20, 2);
    drive_run(d, 10);
    ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(lower_priority_numbers_are_admitted_first_even_when_slots_were_full) {
    sched_config cfg = drive_config();
    cfg.max_seqs = 1;
    drive *d = drive_new(cfg);
    sched_spec spec = drive_spec(d, 4, 3);
    sched_id id;
    static const int32_t priority[] = {0, 5, 5, -3, INT32_MIN, INT32_MAX, -3};
    static const uint64_t want[] = {0, 4, 3, 6, 1, 2, 5}; /* first come first served inside */
    for (uint64_t i = 0; i < 7; i++) {
        spec.user = i;
        spec.priority = priority[i];
        drive_try(d, &spec, &id);
        if (i == 0) drive_step(d); /* has the slot */
    }
    drive_run(d, 100);
    size_t n = 0;
    for (size_t i = 0; i < d->n_log; i++) {
        if (d->log[i].kind == EVENT_ADMITTED) ck_assert_uint_eq(d->log[i].user, want[n++]);
    }
    ck_assert_uint_eq(n, 7);
    drive_free(d);
}
END_TEST

START_TEST(scoring_yields_logits_of_every_prompt_row_within_the_limit) {
    sched_config cfg = drive_config();
    cfg.max_logit_rows = 6;
    drive *d = drive_new(cfg);
    sched_spec spec = drive_spec(d, 20, 0);
    spec.score_prompt = true;
    sched_id id;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    const char *const want[] = {"p0[0..6)", "p0[6..12)", "p0[12..18)", "p0[18..20)", ""};
    const sched_step *st;
    for (int i = 0; i < 5; i++) {
        st = drive_plan(d);
        ck_assert_str_eq(drive_trace(st), want[i]);
        if (!st) break;
        ck_assert(st->n_logit_rows == st->n_rows && st->seq[0].score);
        drive_commit(d, st, DRIVE_WORD);
    }
    ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
    ck_assert_uint_eq(drive_count(d, id, EVENT_TOKEN), 0);

    spec.max_tokens = 2; /* now it goes on after the prompt */
    drive_try(d, &spec, &id);
    while ((st = drive_plan(d))) {
        if (st->n_decode_rows) ck_assert(!st->seq[0].score);
        drive_commit(d, st, DRIVE_WORD);
    }
    ck_assert_uint_eq(drive_count(d, id, EVENT_TOKEN), 2);
    drive_free(d);
}
END_TEST

START_TEST(without_output_the_prompts_last_row_alone_has_logits_and_hits_count) {
    sched_config cfg = drive_config();
    cfg.max_rows = 8;
    cfg.prefix_cache = true;
    drive *d = drive_new(cfg);
    sched_spec spec = drive_spec(d, 20, 0);
    sched_id id;
    for (int again = 0; again < 2; again++) {
        ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
        const sched_step *st;
        uint32_t rows = 0, with_logits = 0;
        while ((st = drive_plan(d))) {
            rows += st->n_rows;
            with_logits += st->n_logit_rows;
            ck_assert(!st->seq[0].sample && !st->seq[0].score);
            ck_assert(st->seq[0].n_logit_rows == (st->seq[0].first_pos + st->n_rows == 20));
            drive_commit(d, st, DRIVE_WORD);
        }
        ck_assert_uint_eq(with_logits, 1);
        ck_assert(again ? rows < 20 : rows == 20);
        ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
        ck_assert_uint_eq(drive_count(d, id, EVENT_TOKEN), 0);
    }
    drive_free(d);
}
END_TEST

START_TEST(an_engine_failure_ends_every_sequence_of_the_step) {
    drive *d = drive_new(drive_config());
    sched_id a = drive_submit(d, 4, 4), b = drive_submit(d, 4, 4);
    const sched_step *st = drive_plan(d);
    ck_assert_uint_eq(st->n_seqs, 2);
    sched_commit(d->s, st, NULL);
    drive_drain(d);
    ck_assert_int_eq(drive_finish(d, a), FINISH_ERROR);
    ck_assert_int_eq(drive_finish(d, b), FINISH_ERROR);
    ck_assert_uint_eq(drive_stats(d).blocks_free, 16);
    ck_assert_ptr_null(drive_plan(d));
    drive_free(d);
}
END_TEST

START_TEST(bad_configurations_have_no_size) {
    sched_config cfg = drive_config();
    ck_assert_uint_gt(sched_bytes(&cfg), 0);
    cfg.max_rows = cfg.max_seqs - 1;
    ck_assert_uint_eq(sched_bytes(&cfg), 0);
    cfg = drive_config();
    cfg.max_logit_rows = cfg.max_seqs - 1;
    ck_assert_uint_eq(sched_bytes(&cfg), 0);
    cfg = drive_config();
    cfg.max_logit_rows = UINT32_MAX; /* half of it, rounded up, would be nothing */
    ck_assert_uint_eq(sched_bytes(&cfg), 0);
    cfg = drive_config();
    cfg.group[0].n_blocks = 0;
    ck_assert_uint_eq(sched_bytes(&cfg), 0);
    cfg = drive_config();
    cfg.watermark_permille = 1001;
    ck_assert_uint_eq(sched_bytes(&cfg), 0);
    cfg = drive_config();
    cfg.end_tokens = NULL;
    ck_assert_uint_eq(sched_bytes(&cfg), 0);
    cfg = drive_config();
    cfg.max_seqs = cfg.max_rows = cfg.max_logit_rows = cfg.max_model_len = 1 << 30;
    cfg.block_tokens = 1; /* 2^60 table entries and as many tokens: 2^63 bytes */
    ck_assert_uint_eq(sched_bytes(&cfg), 0);
}
END_TEST

START_TEST(sizes_that_wrap_around_are_too_long) {
    drive *d = drive_new(drive_config());
    sched_id id;
    static const uint32_t huge[] = {UINT32_MAX, UINT32_MAX - 1, UINT32_MAX - 3, 1u << 31};
    for (int i = 0; i < 4; i++) {
        sched_spec spec = drive_spec(d, 3, huge[i]); /* 3 more than UINT32_MAX - 1 is 1 */
        ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_TOO_LONG);
        spec = drive_spec(d, huge[i], 3);
        ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_TOO_LONG);
    }
    drive_free(d);
}
END_TEST

START_TEST(blocks_needed_is_exact_and_saturates) {
    sched_config cfg = drive_config();
    ck_assert_uint_eq(sched_blocks_needed(&cfg, 0, 4, 1), 1);
    ck_assert_uint_eq(sched_blocks_needed(&cfg, 0, 4, 2), 2);
    ck_assert_uint_eq(sched_blocks_needed(&cfg, 0, 5, 0), 2);
    ck_assert_uint_eq(sched_blocks_needed(&cfg, 0, UINT64_MAX, 2), UINT64_MAX);
}
END_TEST

int main(void) {
    Suite *s = suite_create("sched");
    TCase *t = check_case(s, "sched");
    tcase_add_test(t, a_lone_sequence_that_outgrows_the_pool_is_rejected_not_asserted);
    tcase_add_test(t, decode_rows_advance_every_step_though_a_prompt_arrives_with_each);
    tcase_add_test(t, two_prompts_share_the_rows_that_decoding_leaves);
    tcase_add_test(t, a_prompt_alone_takes_the_whole_budget);
    tcase_add_test(t, admission_asks_for_the_full_length_and_the_watermark);
    tcase_add_test(t, the_watermark_is_waived_when_nothing_runs);
    tcase_add_test(t, an_end_token_stops_unless_ignored_and_not_before_min_tokens);
    tcase_add_test(t, events_come_in_the_order_of_a_life);
    tcase_add_test(t, each_reason_to_reject_is_told);
    tcase_add_test(t, an_empty_queue_takes_a_prompt_above_the_token_limit);
    tcase_add_test(t, lower_priority_numbers_are_admitted_first_even_when_slots_were_full);
    tcase_add_test(t, scoring_yields_logits_of_every_prompt_row_within_the_limit);
    tcase_add_test(t, without_output_the_prompts_last_row_alone_has_logits_and_hits_count);
    tcase_add_test(t, an_engine_failure_ends_every_sequence_of_the_step);
    tcase_add_test(t, bad_configurations_have_no_size);
    tcase_add_test(t, sizes_that_wrap_around_are_too_long);
    tcase_add_test(t, blocks_needed_is_exact_and_saturates);
    return check_run(s);
}
