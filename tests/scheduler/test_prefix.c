/* The prefix cache: what is found, what is not, what it costs, and in which order it is lost.
 */
#include "base/hash.h"
#include "scheduler/state.h"
#include "tests/scheduler/drive.h"

static sched_config cached_config(void) {
    sched_config cfg = drive_config();
    cfg.prefix_cache = true;
    return cfg;
}

START_TEST(a_second_prompt_begins_behind_the_blocks_of_the_first) {
    drive *d = drive_new(cached_config());
    sched_id a = drive_submit(d, 11, 3);
    drive_run(d, 100);
    ck_assert_uint_eq(drive_cached(d, a), 0);
    ck_assert_uint_eq(drive_stats(d).blocks_cached, 3); /* 11 + 2 computed positions */
    ck_assert_uint_eq(drive_stats(d).blocks_free, 13);
    sched_id b = drive_submit(d, 11, 3);
    const sched_step *st = drive_plan(d);
    ck_assert_uint_eq(st->n_rows, 3);
    ck_assert_uint_eq(st->seq[0].first_pos, 8);
    ck_assert_uint_eq(st->seq[0].n_blocks, 3);
    drive_commit(d, st, DRIVE_WORD);
    drive_run(d, 100);
    ck_assert_uint_eq(drive_cached(d, b), 8);
    ck_assert_uint_eq(drive_last(d, b, EVENT_ENDED)->n_cached, 8);
    ck_assert_uint_eq(drive_stats(d).count.prefix_cache_queries, 22);
    ck_assert_uint_eq(drive_stats(d).count.prefix_cache_hits, 8);
    ck_assert_uint_eq(drive_stats(d).count.prompt_tokens, 22);
    drive_free(d);
}
END_TEST

START_TEST(the_last_block_is_never_a_hit) {
    drive *d = drive_new(cached_config());
    for (uint32_t n = 1; n <= 24; n++) {
        drive_submit(d, n, 1);
        drive_run(d, 100);
        sched_id again = drive_submit(d, n, 1);
        drive_run(d, 100);
        ck_assert_uint_eq(drive_cached(d, again), (n - 1) / 4 * 4);
    }
    drive_free(d);
}
END_TEST

START_TEST(a_block_is_found_only_once_it_is_committed) {
    sched_config cfg = cached_config();
    cfg.max_rows = 8;
    drive *d = drive_new(cfg);
    sched_id a = drive_submit(d, 32, 1);
    const sched_step *one = drive_plan(d);
    drive_commit(d, one, DRIVE_WORD); /* 8 of 32 */
    sched_id b = drive_submit(d, 32, 1);
    const sched_step *two = drive_plan(d), *three = drive_plan(d);
    ck_assert(two && three);
    drive_commit(d, two, DRIVE_WORD);
    drive_commit(d, three, DRIVE_WORD);
    drive_run(d, 100);
    ck_assert_uint_eq(drive_cached(d, a), 0);
    ck_assert_uint_eq(drive_cached(d, b), 8);
    drive_free(d);
}
END_TEST

START_TEST(salts_do_not_meet) {
    drive *d = drive_new(cached_config());
    sched_spec spec = drive_spec(d, 20, 1);
    sched_id id;
    for (uint64_t salt = 0; salt < 3; salt++) {
        spec.salt = salt;
        ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
        drive_run(d, 100);
        ck_assert_uint_eq(drive_cached(d, id), 0);
        ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
        drive_run(d, 100);
        ck_assert_uint_eq(drive_cached(d, id), 16);
    }
    drive_free(d);
}
END_TEST

START_TEST(the_least_recently_used_goes_first_and_the_end_of_a_text_before_its_beginning) {
    sched_config cfg = cached_config();
    cfg.group[0].n_blocks = 12;
    drive *d = drive_new(cfg);
    for (uint64_t salt = 1; salt <= 3; salt++) ck_assert_uint_eq(drive_ask(d, salt, 16), 0);
    ck_assert_uint_eq(drive_stats(d).blocks_cached, 12);
    ck_assert_uint_eq(drive_ask(d, 1, 16), 12); /* takes the place of its own last block */
    /* takes two: the last ones of 2, the oldest now */
    ck_assert_uint_eq(drive_ask(d, 4, 8), 0);
    ck_assert_uint_eq(drive_ask(d, 2, 16), 8); /* takes two of 3 */
    ck_assert_uint_eq(drive_ask(d, 3, 16), 8); /* takes two of 1 */
    ck_assert_uint_eq(drive_ask(d, 1, 16), 8);
    drive_free(d);
}
END_TEST

START_TEST(blocks_without_content_are_taken_before_any_cached_one) {
    drive *d = drive_new(cached_config());
    drive_ask(d, 1, 32);
    for (int i = 0; i < 50; i++) drive_ask(d, 2, 3); /* never full */
    ck_assert_uint_eq(drive_stats(d).blocks_cached, 8);
    ck_assert_uint_eq(drive_ask(d, 1, 32), 28);
    drive_free(d);
}
END_TEST

START_TEST(what_was_said_is_found_too) {
    drive *d = drive_new(cached_config());
    sched_id a = drive_submit(d, 6, 11); /* 16 positions */
    drive_run(d, 100);
    ck_assert_int_eq(drive_finish(d, a), FINISH_LENGTH);
    for (int i = 6; i < 17; i++) d->prompt[i] = DRIVE_WORD;
    sched_id b = drive_submit(d, 20, 1);
    drive_run(d, 100);
    ck_assert_uint_eq(drive_cached(d, b), 16);
    d->prompt[9]++; /* another answer */
    sched_id c = drive_submit(d, 20, 1);
    drive_run(d, 100);
    ck_assert_uint_eq(drive_cached(d, c), 8);
    drive_free(d);
}
END_TEST

START_TEST(sequences_that_run_share_and_count_once) {
    drive *d = drive_new(cached_config());
    sched_id a = drive_submit(d, 33, 8);
    for (int i = 0; i < 4; i++) drive_step(d);
    uint32_t used = drive_stats(d).blocks_used;
    sched_id b = drive_submit(d, 33, 8); /* alone it would take ten of the 16, as the first */
    const sched_step *st = drive_plan(d);
    ck_assert_uint_eq(drive_cached(d, b), 32);
    ck_assert_uint_le(drive_stats(d).blocks_used, used + 2);
    ck_assert_ptr_nonnull(drive_entry(st, 0));
    drive_commit(d, st, DRIVE_WORD);
    drive_cancel(d, a); /* the other's blocks stay */
    drive_run(d, 100);
    ck_assert_int_eq(drive_finish(d, b), FINISH_LENGTH);
    ck_assert_uint_eq(drive_stats(d).count.preemptions, 0);
    drive_free(d);
}
END_TEST

START_TEST(a_preempted_sequence_finds_its_own_blocks_again) {
    sched_config cfg = cached_config();
    cfg.group[0].n_blocks = 16;
    cfg.max_model_len = 48;
    drive *d = drive_new(cfg);
    sched_spec spec = drive_spec(d, 24, 20);
    sched_id a, b;
    spec.salt = 1;
    drive_try(d, &spec, &a);
    spec.salt = 2;
    drive_try(d, &spec, &b);
    drive_run(d, 200);
    ck_assert_int_eq(drive_finish(d, b), FINISH_LENGTH);
    sched_stats st = drive_stats(d);
    ck_assert_uint_eq(st.count.preemptions, 1);
    /* The senior needs 11 blocks: what it took of the junior's is lost, not more. */
    ck_assert_uint_gt(st.count.recomputed_tokens, 0);
    ck_assert_uint_le(st.count.recomputed_tokens, 20);
    /* at first there were none */
    ck_assert_uint_eq(drive_last(d, b, EVENT_ENDED)->n_cached, 0);
    drive_free(d);
}
END_TEST

START_TEST(a_prompt_to_be_scored_takes_no_hits_but_leaves_blocks) {
    drive *d = drive_new(cached_config());
    drive_ask(d, 0, 20);
    sched_spec spec = drive_spec(d, 20, 1);
    sched_id id;
    spec.score_prompt = true;
    drive_try(d, &spec, &id);
    uint32_t rows = 0, logits = 0;
    for (const sched_step *st; (st = drive_plan(d)); drive_commit(d, st, DRIVE_WORD)) {
        rows += st->n_rows;
        logits += st->n_logit_rows;
    }
    ck_assert_uint_eq(drive_cached(d, id), 0);
    ck_assert_uint_eq(rows, 20);
    ck_assert_uint_eq(logits, 20);
    ck_assert_uint_eq(drive_ask(d, 0, 20), 16);
    drive_free(d);
}
END_TEST

/* However long its prompt, a head of the queue that cannot have enough costs a step nothing. */
START_TEST(what_waits_for_room_is_not_looked_up_at_each_step) {
    drive *d = drive_new(cached_config());
    drive_ask(d, 0, 32); /* leaves 8 of 16 blocks cached */
    sched_spec spec = drive_spec(d, 24, 20);
    sched_id runs, waits;
    spec.salt = 1;
    ck_assert_int_eq(drive_try(d, &spec, &runs), REJECT_NONE);
    drive_step(d);
    drive_step(d);
    waits = drive_submit(d, 48, 2); /* 12 blocks: 8 of them are among the 10 that are free */
    for (int i = 0; i < 10; i++) {
        drive_step(d);
        ck_assert_uint_eq(d->s->probe.id, waits);
        if (i > 0) ck_assert_int_eq(d->s->probe.block[0], -1);
        d->s->probe.block[0] = -1; /* a look-up would write it */
    }
    ck_assert_uint_eq(drive_count(d, waits, EVENT_ADMITTED), 0);
    drive_run(d, 100);
    ck_assert_int_eq(drive_finish(d, waits), FINISH_LENGTH);
    ck_assert_uint_eq(drive_cached(d, waits), 20); /* of the 8, 3 were taken for 11 - 8 */
    drive_free(d);
}
END_TEST

START_TEST(without_the_cache_nothing_is_kept) {
    drive *d = drive_new(drive_config());
    ck_assert_uint_eq(drive_ask(d, 0, 20), 0);
    ck_assert_uint_eq(drive_ask(d, 0, 20), 0);
    ck_assert_uint_eq(drive_stats(d).blocks_cached, 0);
    ck_assert_uint_eq(drive_stats(d).count.prefix_cache_queries, 0);
    drive_free(d);
}
END_TEST

enum { N = 8, BS = 4 };

START_TEST(a_collision_is_a_miss) {
    uint32_t bucket[N] = {0}, next[N] = {0};
    prefix_hash hash[N];
    uint64_t confirm[N], serial[N], salt[N];
    int32_t tokens[N * BS], own[BS] = {1, 2, 3, 4}, other[BS] = {1, 2, 3, 5};
    uint8_t flags[N] = {[2] = 1, [5] = 1, [6] = 1};
    prefix p = {.n_blocks = N,
                .n_buckets = N,
                .block_tokens = BS,
                .bucket = bucket,
                .next = next,
                .hash = hash,
                .confirm = confirm,
                .serial = serial,
                .salt = salt,
                .tokens = tokens};
    const uint64_t key[2] = {1, 2};
    prefix_hash root = {{0, 0}}, h = prefix_extend(key, &root, own, BS);
    ck_assert_int_eq(prefix_find(&p, &h, 7, own), -1);
    prefix_insert(&p, 2, &h, 7, 1, 0, own);
    prefix_insert(&p, 5, &h, 8, 2, 0, own);   /* as if another parent had made the same hash */
    prefix_insert(&p, 6, &h, 7, 3, 0, other); /* as if other tokens had */
    prefix_audit(&p, flags);
    ck_assert_int_eq(prefix_find(&p, &h, 7, own), 2);
    ck_assert_int_eq(prefix_find(&p, &h, 8, own), 5);
    ck_assert_int_eq(prefix_find(&p, &h, 7, other), 6);
    ck_assert_int_eq(prefix_find(&p, &h, 8, other), -1);
    prefix_forget(&p, 5);
    flags[5] = 0;
    prefix_audit(&p, flags);
    ck_assert_int_eq(prefix_find(&p, &h, 8, own), -1);
    ck_assert_int_eq(prefix_find(&p, &h, 7, own), 2);
}
END_TEST

START_TEST(a_table_has_room_for_any_number_of_blocks) {
    static const uint32_t n[] = {1, 3, 4096, 4097, 1 << 20, 1 << 29, (1 << 29) + 1, 1 << 30};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        uint32_t n_buckets = prefix_buckets(n[i]);
        ck_assert_uint_eq(n_buckets & (n_buckets - 1), 0);
        ck_assert_uint_ge(n_buckets, n[i] <= 1 << 29 ? 4 * (uint64_t)n[i] : 2 * (uint64_t)n[i]);
    }
}
END_TEST

START_TEST(hashes_depend_on_key_parent_and_every_token) {
    const uint64_t keys[2][2] = {{1, 2}, {1, 3}};
    prefix_hash roots[2] = {{{0, 0}}, {{1, 1}}}, seen[4 * 9];
    uint32_t n = 0;
    for (int k = 0; k < 2; k++) {
        for (int r = 0; r < 2; r++) {
            for (int32_t i = 0; i < 9; i++) {
                int32_t t[9] = {0};
                t[i] = 1;
                seen[n++] = prefix_extend(keys[k], &roots[r], t, 9);
            }
        }
    }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < i; j++)
            ck_assert(seen[i].h[0] != seen[j].h[0] && seen[i].h[1] != seen[j].h[1]);
}
END_TEST

int main(void) {
    Suite *s = suite_create("prefix");
    TCase *t = check_case(s, "prefix");
    tcase_add_test(t, a_second_prompt_begins_behind_the_blocks_of_the_first);
    tcase_add_test(t, the_last_block_is_never_a_hit);
    tcase_add_test(t, a_block_is_found_only_once_it_is_committed);
    tcase_add_test(t, salts_do_not_meet);
    tcase_add_test(
        t, the_least_recently_used_goes_first_and_the_end_of_a_text_before_its_beginning);
    tcase_add_test(t, blocks_without_content_are_taken_before_any_cached_one);
    tcase_add_test(t, what_was_said_is_found_too);
    tcase_add_test(t, sequences_that_run_share_and_count_once);
    tcase_add_test(t, a_preempted_sequence_finds_its_own_blocks_again);
    tcase_add_test(t, a_prompt_to_be_scored_takes_no_hits_but_leaves_blocks);
    tcase_add_test(t, what_waits_for_room_is_not_looked_up_at_each_step);
    tcase_add_test(t, without_the_cache_nothing_is_kept);
    tcase_add_test(t, a_collision_is_a_miss);
    tcase_add_test(t, a_table_has_room_for_any_number_of_blocks);
    tcase_add_test(t, hashes_depend_on_key_parent_and_every_token);
    return check_run(s);
}
