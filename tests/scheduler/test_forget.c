/* Forgetting cached prefixes: all, or those of one salt, while sequences run. */
#include "scheduler/state.h"
#include "tests/scheduler/drive.h"

static sched_config forget_config(void) {
    sched_config c = drive_config();
    c.group[0].block_bytes = 100;
    c.prefix_cache = true;
    c.hash_key[0] = 17;
    c.recent_tokens = 1024;
    return c;
}

static sched_forgotten forget(drive *d, const uint64_t *salt) {
    const sched_forgotten f = sched_forget(d->s, salt);
    drive_drain(d);
    return f;
}

START_TEST(nothing_is_found_any_more_and_the_blocks_are_free) {
    drive *d = drive_new(forget_config());
    drive_ask(d, 0, 20), drive_ask(d, 1, 20);
    const sched_stats was = drive_stats(d);
    ck_assert_uint_eq(was.blocks_cached, 10);
    const sched_forgotten f = forget(d, NULL);
    ck_assert_uint_eq(f.blocks, 10);
    ck_assert_uint_eq(f.bytes, 1000);
    ck_assert_uint_eq(drive_stats(d).blocks_cached, 0);
    ck_assert_uint_eq(drive_stats(d).blocks_free, 16);
    ck_assert_uint_eq(drive_ask(d, 0, 20), 0);
    ck_assert_uint_eq(drive_ask(d, 0, 20), 16); /* and is cached anew */
    ck_assert_uint_eq(forget(d, NULL).blocks, 5);
    ck_assert_uint_eq(forget(d, NULL).blocks, 0);
    drive_free(d);
}
END_TEST

START_TEST(one_salt_goes_and_the_others_stay) {
    sched_config c = forget_config();
    c.depth = 1;
    c.n_groups = 2; /* the other group's blocks go with their nodes */
    c.group[0].n_blocks = 40;
    c.group[1] = (sched_group){.n_blocks = 40, .block_bytes = 1, .window = 8};
    drive *d = drive_new(c);
    for (uint64_t salt = 0; salt < 3; salt++) ck_assert_uint_eq(drive_ask(d, salt, 24), 0);
    const sched_stats was = drive_stats(d);
    const uint64_t salt = 1 | (uint64_t)1 << 63; /* the high bit is ignored, as in a spec */
    const sched_forgotten f = forget(d, &salt);
    ck_assert_uint_eq(f.blocks, was.blocks_cached / 3);
    ck_assert_uint_eq(f.bytes, f.blocks / 2 * 101);
    ck_assert_uint_eq(drive_stats(d).blocks_cached, was.blocks_cached / 3 * 2);
    ck_assert_uint_eq(drive_ask(d, 0, 24), 20);
    ck_assert_uint_eq(drive_ask(d, 2, 24), 20);
    ck_assert_uint_eq(drive_ask(d, 1, 24), 0);
    drive_free(d);
}
END_TEST

/* Its blocks stay its own, and what it computes later is not found either: it hangs on what is
 * forgotten. */
START_TEST(a_running_sequence_goes_on_and_leaves_nothing) {
    drive *d = drive_new(forget_config());
    const sched_id a = drive_submit(d, 12, 20);
    for (int i = 0; i < 6; i++) drive_step(d);
    const uint64_t held = sched_kv_blocks_of(d->s, a);
    const sched_step *st = drive_plan(d); /* also with a step in flight */
    ck_assert_uint_eq(forget(d, NULL).blocks, 0);
    drive_commit(d, st, DRIVE_WORD);
    ck_assert_uint_eq(sched_kv_blocks_of(d->s, a), held);
    drive_run(d, 40);
    ck_assert_int_eq(drive_finish(d, a), FINISH_LENGTH);
    ck_assert_uint_eq(drive_last(d, a, EVENT_ENDED)->n_output, 20);
    ck_assert_uint_eq(drive_stats(d).blocks_cached, 0);
    ck_assert_uint_eq(drive_ask(d, 0, 12), 0);
    drive_free(d);
}
END_TEST

START_TEST(a_sequence_of_another_salt_publishes_on) {
    drive *d = drive_new(forget_config());
    const uint64_t salt = 7;
    const sched_id a = drive_submit(d, 12, 8);
    for (int i = 0; i < 3; i++) drive_step(d);
    forget(d, &salt);
    drive_run(d, 40);
    ck_assert_int_eq(drive_finish(d, a), FINISH_LENGTH);
    ck_assert_uint_eq(drive_ask(d, 0, 12), 8);
    drive_free(d);
}
END_TEST

START_TEST(a_preempted_sequence_computes_what_was_forgotten) {
    sched_config c = forget_config();
    c.group[0].n_blocks = 9;
    drive *d = drive_new(c);
    const sched_spec other = {.prompt = d->prompt + 100, .n_prompt = 8, .max_tokens = 20};
    const sched_id a = drive_submit(d, 8, 20);
    sched_id b;
    ck_assert_int_eq(drive_try(d, &other, &b), REJECT_NONE);
    while (drive_count(d, b, EVENT_PREEMPTED) == 0) drive_step(d);
    forget(d, NULL);
    drive_run(d, 200);
    ck_assert(drive_finish(d, a) == FINISH_LENGTH && drive_finish(d, b) == FINISH_LENGTH);
    ck_assert_uint_eq(drive_count(d, b, EVENT_TOKEN), 20);
    ck_assert_uint_gt(drive_last(d, b, EVENT_ENDED)->cost->n_recomputed, 0);
    drive_free(d);
}
END_TEST

START_TEST(misses_are_not_compared_with_what_is_forgotten) {
    drive *d = drive_new(forget_config());
    sched_miss m;
    drive_ask(d, 0, 20), drive_ask(d, 1, 20);
    const uint64_t salt = 0;
    forget(d, &salt);
    for (uint64_t k = 0; k < 2; k++) {
        sched_spec spec = drive_spec(d, 20, 1);
        sched_id id;
        spec.salt = spec.base_salt = k;
        d->prompt[9] = 5;
        ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
        const sched_step *st = drive_plan(d);
        sched_explain(d->s, id, &m);
        ck_assert_int_eq(m.why, k ? WHY_TOKENS_DIFFER : WHY_FIRST_SEEN);
        drive_commit(d, st, DRIVE_WORD);
        drive_run(d, 10);
    }
    drive_free(d);
}
END_TEST

static sched_config tiered_config(void) {
    sched_config c = forget_config();
    c.tier_chunks = 64;
    c.tier_bytes = 1000;
    c.chunk_blocks = 2;
    c.store_tokens = 16;
    return c;
}

static void store_all(drive *d) {
    for (sched_chunk c; sched_store_next(d->s, &c);) {
        sched_store_done(d->s, &c, 10);
        drive_drain(d);
    }
}

START_TEST(chunks_of_the_tier_go_too_and_those_that_wait_for_it) {
    drive *d = drive_new(tiered_config());
    uint64_t hash[2], bytes;
    uint32_t at = 0, n = 0;
    drive_ask(d, 0, 26);
    store_all(d);
    drive_ask(d, 1, 26);
    store_all(d);
    ck_assert_uint_eq(drive_stats(d).tier_chunks, 6);
    const uint64_t salt = 1;
    sched_tier_switch(d->s, false);
    for (; sched_tier_forget(d->s, &salt, &at, hash, &bytes); n++) ck_assert_uint_eq(bytes, 10);
    ck_assert_uint_eq(n, 3);
    ck_assert_uint_eq(drive_stats(d).tier_bytes, 30);
    for (at = 0; sched_tier_forget(d->s, NULL, &at, hash, &bytes); n++) drive_drain(d);
    ck_assert_uint_eq(n, 6);
    ck_assert(drive_stats(d).tier_bytes == 0 && drive_stats(d).tier_chunks == 0);
    sched_tier_switch(d->s, true);
    forget(d, NULL);
    drive_ask(d, 0, 26), drive_ask(d, 1, 26);
    ck_assert_uint_gt(drive_stats(d).n_storing, 3);
    forget(d, &salt);
    ck_assert_uint_eq(drive_stats(d).n_storing, 3);
    store_all(d);
    ck_assert_uint_eq(drive_stats(d).tier_chunks, 3); /* those of salt 0 */
    drive_free(d);
}
END_TEST

/* What is loaded is its own, and is not found: it was read before. */
START_TEST(a_load_under_way_serves_its_sequence_alone) {
    drive *d = drive_new(tiered_config());
    sched_chunk c;
    drive_ask(d, 0, 26);
    store_all(d);
    sched_forget(d->s, NULL); /* of memory alone */
    const sched_id id = drive_submit(d, 26, 1);
    ck_assert_ptr_null(drive_plan(d));
    forget(d, NULL);
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert(sched_load_next(d->s, &c) && sched_load_blocks(d->s, &c));
        sched_load_done(d->s, &c, true);
        drive_drain(d);
    }
    drive_run(d, 10);
    ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
    ck_assert_uint_eq(drive_last(d, id, EVENT_ENDED)->n_loaded, 24);
    ck_assert_uint_eq(drive_stats(d).blocks_cached, 0);
    drive_free(d);
}
END_TEST

START_TEST(without_a_cache_there_is_nothing_to_forget) {
    drive *d = drive_new(drive_config());
    drive_ask(d, 0, 20);
    ck_assert_uint_eq(forget(d, NULL).blocks, 0);
    drive_free(d);
}
END_TEST

CHECK_MAIN("forget", nothing_is_found_any_more_and_the_blocks_are_free,
           one_salt_goes_and_the_others_stay, a_running_sequence_goes_on_and_leaves_nothing,
           a_sequence_of_another_salt_publishes_on,
           a_preempted_sequence_computes_what_was_forgotten,
           misses_are_not_compared_with_what_is_forgotten,
           chunks_of_the_tier_go_too_and_those_that_wait_for_it,
           a_load_under_way_serves_its_sequence_alone,
           without_a_cache_there_is_nothing_to_forget)
