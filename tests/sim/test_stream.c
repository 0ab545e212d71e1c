/* Random streams of operations against the naive reference of stream.h. */

#include "base/hash.h"
#include "tests/check_main.h"
#include "tests/sim/stream_kinds.h"

enum { STREAMS = 20000, BYTES = 600 };

typedef struct kind { /* as in stream */
    bool crowded, aging, drafts, resizes, tier, fair, priority, timed, rows_once, forgets;
    bool shortest, ttft_first, host, states;
    sched_batching batching;
} kind;

/* What happened in all of them; state: of the generator. */
static stream run(kind of, uint64_t state) {
    uint8_t data[BYTES];
    stream sum = {0};
    for (uint32_t k = 0; k < STREAMS; k++) {
        for (int i = 0; i < BYTES; i++) data[i] = (uint8_t)(hash_mix(state++) >> 32);
        stream *m = calloc(1, sizeof *m);
        m->crowded = of.crowded;
        m->rows_once = of.rows_once;
        m->aging = of.aging;
        m->drafts = of.drafts;
        m->tier = of.tier;
        m->batching = of.batching;
        m->resizes = of.resizes;
        m->fair = of.fair;
        m->priority = of.priority;
        m->timed = of.timed;
        m->forgets = of.forgets;
        m->shortest = of.shortest;
        m->ttft_first = of.ttft_first;
        m->host = of.host;
        m->states = of.states;
        stream_run(m, data, BYTES);
        sum.n_ended += m->n_ended;
        sum.n_preemptions += m->n_preemptions;
        sum.n_found += m->n_found;
        sum.n_forked += m->n_forked;
        sum.n_lockstep += m->n_lockstep;
        sum.n_overtakes += m->n_overtakes;
        sum.n_passes += m->n_passes;
        sum.n_predicted += m->n_predicted;
        sum.n_timed += m->n_timed;
        sum.n_late += m->n_late;
        sum.n_guessed += m->n_guessed;
        sum.n_accepted += m->n_accepted;
        sum.n_loads += m->n_loads;
        sum.n_failed_loads += m->n_failed_loads;
        sum.n_late_loads += m->n_late_loads;
        sum.n_loaded += m->n_loaded;
        sum.n_stores += m->n_stores;
        sum.n_evictions += m->n_evictions;
        sum.n_resizes += m->n_resizes;
        sum.n_moves += m->n_moves;
        sum.n_forgotten += m->n_forgotten;
        sum.n_written += m->n_written;
        sum.n_stated += m->n_stated;
        sum.n_left += m->n_left;
        for (int i = 0; i <= WHY_FIRST_SEEN; i++) sum.n_why[i] += m->n_why[i];
        stream_hash(&sum, m->hash);
        free(m);
    }
    return sum;
}

START_TEST(random_streams_keep_every_promise) {
    stream sum = run((kind){0}, 1);
    ck_assert_uint_gt(sum.n_ended, STREAMS); /* the streams do exercise something */
    ck_assert_uint_gt(sum.n_preemptions, STREAMS / 10);
    ck_assert_uint_gt(sum.n_found, STREAMS / 4);
    ck_assert_uint_gt(sum.n_forked, STREAMS / 10);
    ck_assert_uint_gt(sum.n_lockstep, STREAMS);
    ck_assert_uint_gt(sum.n_passes, STREAMS / 50);
    /* Of all steps and events. A change of what is planned, and only such, changes it. */
    ck_assert_uint_eq(sum.hash, 9421143618807645348u);
}
END_TEST

START_TEST(random_streams_in_tiny_windowed_pools_with_slow_readers_do_too) {
    stream sum = run((kind){.crowded = true}, 2);
    ck_assert_uint_gt(sum.n_ended, STREAMS);
    ck_assert_uint_gt(sum.n_preemptions, STREAMS / 20);
    ck_assert_uint_gt(sum.n_forked, STREAMS / 20);
    ck_assert_uint_eq(sum.hash, 4617779535573593225u);
}
END_TEST

START_TEST(random_streams_under_another_policy_keep_every_promise) {
    for (int crowded = 0; crowded < 2; crowded++) {
        stream sum = run((kind){.crowded = crowded, .aging = true}, 3);
        ck_assert_uint_gt(sum.n_ended, STREAMS);
        ck_assert_uint_gt(sum.n_preemptions, STREAMS / 20);
        ck_assert_uint_gt(sum.n_overtakes, STREAMS / 10);
    }
}
END_TEST

START_TEST(random_streams_of_runs_of_tokens_keep_every_promise) {
    for (int crowded = 0; crowded < 2; crowded++) {
        stream sum = run((kind){.crowded = crowded, .aging = crowded, .drafts = true}, 4);
        ck_assert_uint_gt(sum.n_ended, STREAMS);
        ck_assert_uint_gt(sum.n_accepted, STREAMS / 2);
        ck_assert_uint_gt(sum.n_guessed, sum.n_accepted + STREAMS / 8); /* some are rejected */
    }
}
END_TEST

START_TEST(random_streams_in_batches_keep_every_promise) {
    for (int k = 0; k < 4; k++) {
        const sched_batching b = k % 2 ? BATCHING_STATIC : BATCHING_DYNAMIC;
        stream sum = run((kind){.batching = b,
                                .crowded = k / 2,
                                .aging = k / 2,
                                .drafts = k / 2,
                                .resizes = k / 2},
                         5);
        ck_assert_uint_gt(sum.n_ended, STREAMS);
        ck_assert_uint_gt(sum.n_preemptions, STREAMS / 50);
    }
}
END_TEST

START_TEST(random_streams_in_pools_that_shrink_and_grow_keep_every_promise) {
    for (int k = 0; k < 4; k++) {
        const bool crowded = k & 1, drafts = k & 2;
        stream sum = run((kind){.crowded = crowded, .drafts = drafts, .resizes = true}, 5);
        ck_assert_uint_gt(sum.n_ended, STREAMS / 2);
        ck_assert_uint_gt(sum.n_resizes, STREAMS);
        ck_assert_uint_gt(sum.n_moves, STREAMS / 4);
        ck_assert_uint_gt(sum.n_found, STREAMS / 16);
    }
}
END_TEST

/* What was forgotten is never found; each reason for a miss occurs. */
START_TEST(random_streams_that_forget_keep_every_promise) {
    uint64_t n_why[WHY_FIRST_SEEN + 1] = {0};
    for (int k = 0; k < 5; k++) {
        stream sum = run((kind){.forgets = true,
                                .crowded = k == 1,
                                .tier = k == 2 || k == 3,
                                .resizes = k == 3,
                                .states = k == 4},
                         5);
        ck_assert_uint_gt(sum.n_ended, STREAMS / 2);
        ck_assert_uint_gt(sum.n_found, STREAMS / 100);
        ck_assert_uint_gt(sum.n_forgotten, STREAMS / 4);
        for (int i = 0; i <= WHY_FIRST_SEEN; i++) n_why[i] += sum.n_why[i];
    }
    for (int i = 0; i <= WHY_FIRST_SEEN; i++) ck_assert_uint_gt(n_why[i], 0);
}
END_TEST

START_TEST(random_streams_with_a_tier_below_memory_keep_every_promise) {
    for (int crowded = 0; crowded < 2; crowded++) {
        stream sum = run((kind){.crowded = crowded,
                                .aging = crowded,
                                .drafts = crowded,
                                .resizes = !crowded,
                                .tier = true},
                         5);
        ck_assert_uint_gt(sum.n_ended, STREAMS);
        ck_assert_uint_gt(sum.n_stores, STREAMS / 2);
        ck_assert_uint_gt(sum.n_evictions, STREAMS / 100);
        ck_assert_uint_gt(sum.n_loads, STREAMS / 50);
        ck_assert_uint_gt(sum.n_loaded, STREAMS / 200); /* whole beginnings */
        ck_assert_uint_gt(sum.n_failed_loads, STREAMS / 2000);
        ck_assert_uint_gt(sum.n_late_loads, STREAMS / 2000); /* no longer needed */
    }
}
END_TEST

START_TEST(random_streams_of_tenants_with_an_objective_keep_every_promise) {
    for (int crowded = 0; crowded < 2; crowded++) {
        stream sum =
            run((kind){.crowded = crowded, .drafts = crowded, .fair = true, .timed = true}, 6);
        ck_assert_uint_gt(sum.n_ended, STREAMS);
        ck_assert_uint_gt(sum.n_preemptions, STREAMS / 20);
    }
}
END_TEST

START_TEST(random_streams_of_priorities_that_age_keep_every_promise) {
    for (int crowded = 0; crowded < 2; crowded++) {
        stream sum = run((kind){.crowded = crowded, .priority = true}, 7);
        ck_assert_uint_gt(sum.n_ended, STREAMS);
        ck_assert_uint_gt(sum.n_preemptions, STREAMS / 20);
        ck_assert_uint_eq(sum.n_overtakes, 0); /* seniority is the order of admission */
    }
}
END_TEST

START_TEST(random_streams_by_predicted_length_keep_every_promise) {
    for (int crowded = 0; crowded < 2; crowded++) {
        stream sum = run((kind){.crowded = crowded, .shortest = true, .timed = crowded}, 8);
        ck_assert_uint_gt(sum.n_ended, STREAMS);
        ck_assert_uint_gt(sum.n_predicted, STREAMS / 2);
        ck_assert_uint_gt(sum.n_preemptions, STREAMS / 20);
    }
}
END_TEST

START_TEST(random_streams_with_two_objectives_keep_every_promise) {
    stream itl = run((kind){.timed = true}, 9);
    stream ttft = run((kind){.timed = true, .ttft_first = true}, 9);
    ck_assert_uint_gt(itl.n_timed, STREAMS / 100); /* steps whose time bounds the prompts */
    ck_assert_uint_eq(itl.n_late, 0);
    ck_assert_uint_gt(ttft.n_late, STREAMS / 200); /* and those in which it does not */
    ck_assert_uint_gt(ttft.n_timed, ttft.n_late);
}
END_TEST

START_TEST(random_streams_with_blocks_in_host_memory_keep_every_promise) {
    for (int crowded = 0; crowded < 2; crowded++) {
        stream sum = run((kind){.crowded = crowded, .tier = true, .host = true}, 10);
        ck_assert_uint_gt(sum.n_ended, STREAMS);
        ck_assert_uint_gt(sum.n_stores, STREAMS / 8);
        ck_assert_uint_gt(sum.n_evictions, STREAMS / 200);
        ck_assert_uint_gt(sum.n_loaded, STREAMS / 1000);
        ck_assert_uint_eq(sum.n_failed_loads, 0);
    }
}
END_TEST

/* A state that is copied from the wrong slot, or of other tokens, is another hash: sim/fake.h. */
START_TEST(random_streams_with_recurrent_states_keep_every_promise) {
    for (int k = 0; k < 4; k++) {
        stream sum = run((kind){.states = true,
                                .crowded = k == 1,
                                .drafts = k & 1,
                                .resizes = k & 2,
                                .rows_once = k == 2},
                         6);
        ck_assert_uint_gt(sum.n_ended, STREAMS / 2);
        ck_assert_uint_gt(sum.n_written, STREAMS / 4);
        ck_assert_uint_gt(sum.n_stated, STREAMS / 50);
        ck_assert_uint_gt(sum.n_left, 0);
        ck_assert_uint_gt(sum.n_forked, STREAMS / 50);
        ck_assert_uint_gt(sum.n_preemptions, STREAMS / 50);
    }
}
END_TEST

/* As make fuzz-sched does by the millions. */
START_TEST(random_streams_of_any_kind_keep_every_promise) {
    stream *m = malloc(sizeof *m);
    uint64_t n_ended = 0, n_ops = 0;
    for (uint64_t seed = 1; seed <= STREAMS; seed++) {
        stream_run_seed(m, seed);
        n_ended += m->n_ended;
        n_ops += m->n_ops;
    }
    ck_assert_uint_gt(n_ended, STREAMS);
    ck_assert_uint_gt(n_ops, 100 * STREAMS);
    free(m);
}
END_TEST

START_TEST(random_streams_in_windows_whose_rows_are_counted_once_keep_every_promise) {
    for (int k = 0; k < 6; k++) {
        const bool resizes = k & 2, tier = k & 4;
        stream sum = run((kind){.crowded = k & 1,
                                .drafts = k % 3 == 0,
                                .resizes = resizes,
                                .tier = tier,
                                .fair = k % 3 == 1,
                                .rows_once = true},
                         6);
        ck_assert_uint_gt(sum.n_ended, STREAMS);
        ck_assert_uint_gt(sum.n_preemptions, STREAMS / 50);
        ck_assert_uint_gt(sum.n_found, STREAMS / 16);
        if (resizes) ck_assert_uint_gt(sum.n_moves, STREAMS / 4);
        if (tier) ck_assert_uint_gt(sum.n_loaded, STREAMS / 200);
    }
}
END_TEST

CHECK_MAIN("stream", random_streams_of_tenants_with_an_objective_keep_every_promise,
           random_streams_keep_every_promise,
           random_streams_in_tiny_windowed_pools_with_slow_readers_do_too,
           random_streams_under_another_policy_keep_every_promise,
           random_streams_of_runs_of_tokens_keep_every_promise,
           random_streams_in_pools_that_shrink_and_grow_keep_every_promise,
           random_streams_with_a_tier_below_memory_keep_every_promise,
           random_streams_in_windows_whose_rows_are_counted_once_keep_every_promise,
           random_streams_that_forget_keep_every_promise,
           random_streams_with_recurrent_states_keep_every_promise,
           random_streams_of_priorities_that_age_keep_every_promise,
           random_streams_of_any_kind_keep_every_promise,
           random_streams_by_predicted_length_keep_every_promise,
           random_streams_with_two_objectives_keep_every_promise,
           random_streams_with_blocks_in_host_memory_keep_every_promise,
           random_streams_in_batches_keep_every_promise)
