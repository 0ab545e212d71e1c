/* Recurrent states: who has which slot, where checkpoints are written and found, and what a step says of
 * them. That each state is of the right tokens is in tests/sim/stream.h. */
#include "scheduler/state.h"
#include "tests/scheduler/drive.h"

enum { CHUNK = 8 };

/* Two blocks are a chunk; n checkpoints besides the slots of 4 sequences. */
static sched_config state_config(uint32_t n) {
    sched_config cfg = drive_config();
    cfg.prefix_cache = true;
    cfg.state_slots = cfg.max_seqs + n;
    cfg.state_chunk = CHUNK;
    cfg.max_rows = cfg.max_logit_rows = 64;
    return cfg;
}

/* "32 40": tokens of the checkpoints of a step. */
static const char *checkpoints(const sched_step *st) {
    static char text[256];
    int n = 0;
    text[0] = 0;
    for (uint32_t i = 0; i < st->n_checkpoints; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, " %u", st->checkpoint[i].n_tokens);
    return text + (n > 0);
}

static uint32_t copies_of_states(const sched_step *st) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < st->n_copies; i++) n += st->copy[i].group == SCHED_COPY_STATE;
    return n;
}

START_TEST(a_sequence_has_a_slot_from_admission_to_its_last_commit) {
    drive *d = drive_new(state_config(0));
    sched_id a = drive_submit(d, 5, 20);
    drive_submit(d, 5, 20);
    ck_assert_uint_eq(drive_stats(d).state_live, 0);
    const sched_step *one = drive_plan(d), *two = drive_plan(d);
    ck_assert_uint_eq(one->seq[0].state, 0);
    ck_assert_uint_eq(one->seq[1].state, 1);
    ck_assert_uint_eq(two->seq[0].state, 0);
    ck_assert_uint_eq(one->n_checkpoints, 0); /* there are no slots for them */
    drive_cancel(d, a);
    ck_assert_uint_eq(drive_stats(d).state_live, 2); /* two steps write to its slot yet */
    drive_commit(d, one, DRIVE_WORD);
    drive_commit(d, two, DRIVE_WORD);
    ck_assert_uint_eq(drive_stats(d).state_live, 1);
    drive_run(d, 100);
    ck_assert_uint_eq(drive_stats(d).state_live, 0);
    drive_free(d);
}
END_TEST

/* At the last end of a chunk, and at the last one a chunk before the end. */
START_TEST(a_prompt_leaves_checkpoints_at_its_end_and_a_chunk_before) {
    static const struct {
        uint32_t n_prompt;
        const char *written;
    } cases[] = {{7, ""}, {8, "8"}, {15, "8"}, {16, "8 16"}, {30, "16 24"}, {32, "24 32"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        drive *d = drive_new(state_config(8));
        drive_submit(d, cases[i].n_prompt, 1);
        const sched_step *st = drive_plan(d);
        ck_assert_str_eq(checkpoints(st), cases[i].written);
        ck_assert_uint_eq(drive_stats(d).state_checkpoints, 0);
        const uint32_t n = st->n_checkpoints;
        drive_commit(d, st, DRIVE_WORD);
        ck_assert_uint_eq(drive_stats(d).state_checkpoints, n); /* only now */
        ck_assert_uint_eq(drive_stats(d).count.state_checkpoints_written, n);
        drive_free(d);
    }
}
END_TEST

START_TEST(a_hit_ends_at_a_checkpoint_whose_state_is_copied) {
    drive *d = drive_new(state_config(8));
    drive_ask(d, 0, 30); /* checkpoints behind 16 and 24 tokens, 7 blocks */
    drive_submit(d, 40, 2);
    const sched_step *st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), "c p0[24..40)s");
    ck_assert_uint_eq(copies_of_states(st), 1);
    ck_assert_int_eq(st->copy[0].from, 2);
    ck_assert_int_eq(st->copy[0].to, (int32_t)st->seq[0].state);
    drive_commit(d, st, DRIVE_WORD);
    /* The blocks of 28 tokens were there. */
    ck_assert_uint_eq(drive_stats(d).count.prefix_cache_hits, 24);
    ck_assert_uint_eq(drive_stats(d).count.prefix_cache_state_misses, 4);
    drive_free(d);
}
END_TEST

/* 40 tokens of which the first 22 are those of every prompt here: five blocks. */
static sched_id submit_parting(drive *d) {
    static int32_t text[40];
    sched_spec spec = drive_spec(d, 40, 2);
    sched_id id;
    for (int32_t i = 0; i < 40; i++) text[i] = i < 22 ? d->prompt[i] : 5000 + i;
    spec.prompt = text;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    return id;
}

START_TEST(without_a_checkpoint_blocks_are_no_hit_and_counters_say_so) {
    drive *d = drive_new(state_config(0));
    drive_ask(d, 0, 30);
    submit_parting(d);
    ck_assert_str_eq(drive_trace(drive_plan(d)), "p0[0..40)s");
    ck_assert_uint_eq(drive_stats(d).count.prefix_cache_hits, 0);
    ck_assert_uint_eq(drive_stats(d).count.prefix_cache_state_misses, 20);
    drive_free(d);
}
END_TEST

/* The prompt and the answer so far, then others. */
static uint32_t ask_next_turn(drive *d, uint32_t n_prompt, uint32_t n_answer, uint32_t n_new) {
    static int32_t text[64];
    const uint32_t n = n_prompt + n_answer + n_new;
    sched_spec spec = drive_spec(d, n, 1);
    sched_id id;
    for (uint32_t i = 0; i < n; i++)
        text[i] = i < n_prompt              ? d->prompt[i]
                  : i < n_prompt + n_answer ? DRIVE_WORD
                                            : 7000 + (int32_t)i;
    spec.prompt = text;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    const sched_step *st = drive_plan(d);
    const uint32_t found = st->seq[st->n_seqs - 1].first_pos;
    drive_commit(d, st, DRIVE_WORD);
    drive_run(d, 10);
    return found;
}

/* Without a slot beside those of sequences: no step has written a checkpoint. The last token that was
 * drawn is not computed. */
START_TEST(a_sequence_leaves_its_state_where_its_last_chunk_ends) {
    static const struct {
        uint32_t n_prompt, n_answer, found;
    } cases[] = {{10, 20, 24}, {10, 15, 24}, {10, 14, 16}, {3, 2, 0}, {3, 5, 0}, {3, 6, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sched_config cfg = state_config(0);
        cfg.depth = 1;
        drive *d = drive_new(cfg);
        drive_submit(d, cases[i].n_prompt, cases[i].n_answer);
        drive_run(d, 100);
        ck_assert_uint_eq(drive_stats(d).state_live, 0);
        ck_assert_uint_eq(drive_stats(d).state_checkpoints, cases[i].found > 0);
        ck_assert_uint_eq(ask_next_turn(d, cases[i].n_prompt, cases[i].n_answer, 5),
                          cases[i].found);
        drive_free(d);
    }
}
END_TEST

/* While a step that writes to it is uncommitted, no sequence finds it; and none does if that step fails. */
START_TEST(a_sequence_that_is_cancelled_leaves_its_state_when_its_steps_are_committed) {
    for (int fails = 0; fails < 2; fails++) {
        drive *d = drive_new(state_config(0));
        const sched_id id = drive_submit(d, 10, 20);
        for (int i = 0; i < 7; i++) drive_step(d); /* 16 tokens are computed */
        const sched_step *st = drive_plan(d);
        ck_assert_uint_eq(st->seq[0].first_pos, 16);
        drive_cancel(d, id);
        ck_assert_uint_eq(drive_stats(d).state_checkpoints, 0);
        if (fails) {
            sched_commit(d->s, st, NULL);
            drive_drain(d);
        } else {
            drive_commit(d, st, DRIVE_WORD);
        }
        ck_assert_uint_eq(drive_stats(d).state_live, 0);
        ck_assert_uint_eq(drive_stats(d).state_checkpoints, !fails);
        ck_assert_uint_eq(ask_next_turn(d, 10, 6, 9), fails ? 0 : 16);
        drive_free(d);
    }
}
END_TEST

START_TEST(the_reason_of_such_a_miss_is_the_checkpoint) {
    sched_config cfg = state_config(0);
    cfg.recent_tokens = 1000;
    drive *d = drive_new(cfg);
    drive_ask(d, 0, 30);
    const sched_id id = submit_parting(d);
    const sched_step *st = drive_plan(d);
    sched_miss why;
    sched_explain(d->s, id, &why);
    ck_assert_int_eq(why.why, WHY_NO_CHECKPOINT);
    drive_commit(d, st, DRIVE_WORD);
    drive_free(d);
}
END_TEST

/* Two prompts that begin alike: the second one leaves a checkpoint there, and the third begins behind it. */
START_TEST(where_a_prompt_parts_from_a_cached_one_is_a_checkpoint) {
    drive *d = drive_new(state_config(8));
    int32_t text[48];
    drive_ask(d, 0, 40); /* checkpoints behind 32 and 40 */
    for (int32_t k = 0; k < 2; k++) {
        for (int32_t i = 0; i < 48; i++) text[i] = i < 22 ? d->prompt[i] : 5000 + 100 * k + i;
        sched_spec spec = drive_spec(d, 40, 1);
        sched_id id;
        spec.prompt = text;
        ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
        const sched_step *st = drive_plan(d);
        ck_assert_str_eq(drive_trace(st), k ? "c p0[16..40)s" : "p0[0..40)s");
        ck_assert_str_eq(checkpoints(st), k ? "32 40" : "16 32 40");
        drive_commit(d, st, DRIVE_WORD);
        drive_run(d, 10);
    }
    drive_free(d);
}
END_TEST

/* Free slots of sequences hold checkpoints, until those come. */
START_TEST(the_checkpoint_used_least_recently_gives_its_slot) {
    sched_config cfg = state_config(2);
    cfg.max_seqs = 2;
    cfg.state_slots = 4;
    drive *d = drive_new(cfg);
    drive_ask(d, 1, 8);
    drive_ask(d, 2, 8);
    drive_ask(d, 3, 8);
    ck_assert_uint_eq(drive_stats(d).state_checkpoints, 3);
    ck_assert_uint_eq(drive_ask(d, 1, 12), 8); /* used; writes none */
    ck_assert_uint_eq(drive_stats(d).count.state_checkpoints_evicted, 0);
    drive_ask(d, 4, 8); /* its own slot is free, its checkpoint takes that of salt 2 */
    ck_assert_uint_eq(drive_stats(d).count.state_checkpoints_evicted, 1);
    ck_assert_uint_eq(drive_ask(d, 1, 12), 8);
    ck_assert_uint_eq(drive_ask(d, 3, 12), 8);
    ck_assert_uint_eq(drive_ask(d, 2, 12), 0);
    drive_free(d);
}
END_TEST

START_TEST(a_sequence_may_take_the_only_checkpoint_it_begins_with) {
    sched_config cfg = state_config(1);
    cfg.max_seqs = 1;
    cfg.state_slots = 2;
    drive *d = drive_new(cfg);
    drive_ask(d, 0, 8);
    sched_spec spec = drive_spec(d, 12, 1);
    sched_id id;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    const sched_step *st = drive_plan(d); /* a slot is free: it is a copy */
    ck_assert_uint_eq(copies_of_states(st), 1);
    drive_commit(d, st, DRIVE_WORD);
    drive_free(d);
}
END_TEST

START_TEST(a_checkpoint_goes_with_its_block) {
    drive *d = drive_new(state_config(8));
    drive_ask(d, 1, 32);
    ck_assert_uint_eq(drive_stats(d).state_checkpoints, 2);
    drive_ask(d, 2, 62); /* all 16 blocks */
    ck_assert_uint_eq(drive_stats(d).state_checkpoints, 2);
    ck_assert_uint_eq(drive_stats(d).count.state_checkpoints_evicted, 0);
    ck_assert_uint_eq(drive_ask(d, 1, 32), 0);
    drive_free(d);
}
END_TEST

START_TEST(forgetting_a_prefix_forgets_its_states) {
    drive *d = drive_new(state_config(8));
    const uint64_t salt = 1;
    drive_ask(d, 1, 32);
    drive_ask(d, 2, 32);
    sched_forget(d->s, &salt);
    sched_audit(d->s);
    ck_assert_uint_eq(drive_stats(d).state_checkpoints, 2);
    ck_assert_uint_eq(drive_ask(d, 1, 32), 0);
    ck_assert_uint_eq(drive_ask(d, 2, 32), 24);
    drive_free(d);
}
END_TEST

START_TEST(checkpoints_of_a_step_that_fails_are_none) {
    drive *d = drive_new(state_config(8));
    const sched_id id = drive_submit(d, 32, 4);
    const sched_step *st = drive_plan(d);
    ck_assert_uint_eq(st->n_checkpoints, 2);
    sched_commit(d->s, st, NULL);
    drive_drain(d);
    ck_assert_int_eq(drive_finish(d, id), FINISH_ERROR);
    ck_assert_uint_eq(drive_stats(d).state_checkpoints, 0);
    drive_free(d);
}
END_TEST

static void fork_after(uint32_t n_prompt, uint32_t n_decoded, const char *begins) {
    drive *d = drive_new(state_config(8));
    sched_spec spec = drive_spec(d, n_prompt, 20);
    sched_id leader, member;
    ck_assert_int_eq(drive_try(d, &spec, &leader), REJECT_NONE);
    for (uint32_t i = 0; i <= n_decoded; i++) drive_step(d);
    spec.fork_of = leader;
    spec.user = 1;
    ck_assert_int_eq(drive_try(d, &spec, &member), REJECT_NONE);
    const sched_step *st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), begins);
    for (uint32_t i = 0; i < st->n_copies; i++)
        if (st->copy[i].group == SCHED_COPY_STATE) {
            const bool own = st->copy[i].from == (int32_t)drive_entry(st, 0)->state;
            ck_assert_int_eq(own, st->n_copies == 2);
            ck_assert_int_eq(st->copy[i].to, (int32_t)drive_entry(st, 1)->state);
        }
    drive_commit(d, st, DRIVE_WORD);
    drive_run(d, 100);
    drive_free(d);
}

/* Its leader's state goes back to the prompt's last token while both are in one chunk: else the member
 * begins behind the checkpoint. c c: a block and a state. */
START_TEST(a_fork_copies_its_leaders_state_while_that_reaches_back) {
    fork_after(11, 0, "c c d0 p1[10..11)s");
    fork_after(11, 3, "c c d0 p1[10..11)s");
    fork_after(11, 4, "c d0 p1[8..11)s");
    fork_after(16, 0, "c d0 p1[8..16)s");
}
END_TEST

/* 17 blocks: the junior is preempted when the senior needs another, which is the junior's last, and comes
 * back when the senior has ended. */
START_TEST(a_preempted_sequence_goes_on_with_the_state_it_kept) {
    sched_config cfg = state_config(0); /* without a checkpoint */
    cfg.group[0].n_blocks = 17;
    drive *d = drive_new(cfg);
    sched_spec spec = drive_spec(d, 28, 8);
    sched_id a, b;
    spec.salt = 1;
    ck_assert_int_eq(drive_try(d, &spec, &a), REJECT_NONE);
    spec.salt = 2;
    spec.user = 1;
    spec.n_prompt = 30;
    spec.max_tokens = 30;
    ck_assert_int_eq(drive_try(d, &spec, &b), REJECT_NONE);
    const sched_step *st = NULL;
    while (drive_count(d, b, EVENT_PREEMPTED) == 0) drive_step(d);
    for (;;) {
        st = drive_plan(d);
        ck_assert_ptr_nonnull(st);
        if (drive_entry(st, 1)) break;
        drive_commit(d, st, DRIVE_WORD);
    }
    const sched_step_seq *e = drive_entry(st, 1);
    ck_assert_uint_eq(e->first_pos, 32);
    ck_assert_uint_eq(st->n_copies, 0);
    drive_commit(d, st, DRIVE_WORD);
    drive_run(d, 100);
    ck_assert_int_eq(drive_finish(d, b), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(states_need_a_slot_for_each_sequence_and_exclude_a_tier) {
    sched_config cfg = state_config(0);
    ck_assert_uint_gt(sched_bytes(&cfg), 0);
    cfg.state_slots--;
    ck_assert_uint_eq(sched_bytes(&cfg), 0);
    cfg.state_slots++;
    cfg.state_chunk = 0;
    ck_assert_uint_eq(sched_bytes(&cfg), 0);
    cfg.state_chunk = CHUNK;
    cfg.chunk_blocks = cfg.tier_chunks = 1;
    ck_assert_uint_eq(sched_bytes(&cfg), 0);
}
END_TEST

CHECK_MAIN("state", a_sequence_has_a_slot_from_admission_to_its_last_commit,
           a_prompt_leaves_checkpoints_at_its_end_and_a_chunk_before,
           a_hit_ends_at_a_checkpoint_whose_state_is_copied,
           without_a_checkpoint_blocks_are_no_hit_and_counters_say_so,
           a_sequence_leaves_its_state_where_its_last_chunk_ends,
           a_sequence_that_is_cancelled_leaves_its_state_when_its_steps_are_committed,
           the_reason_of_such_a_miss_is_the_checkpoint,
           where_a_prompt_parts_from_a_cached_one_is_a_checkpoint,
           the_checkpoint_used_least_recently_gives_its_slot,
           a_sequence_may_take_the_only_checkpoint_it_begins_with,
           a_checkpoint_goes_with_its_block, forgetting_a_prefix_forgets_its_states,
           checkpoints_of_a_step_that_fails_are_none,
           a_fork_copies_its_leaders_state_while_that_reaches_back,
           a_preempted_sequence_goes_on_with_the_state_it_kept,
           states_need_a_slot_for_each_sequence_and_exclude_a_tier)
