/* Prompt lookup, and how many of its guesses a step verifies. */
#include "daemon/bridge/drafter.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "daemon/bridge/lookup.h"
#include "tests/check_main.h"

/* By trying every place and length. */
static lookup_match find_plainly(const int32_t *t, uint32_t n) {
    lookup_match best = {0, 0};
    for (uint32_t next = 1; next < n; next++) {
        uint32_t k = 0;
        while (k < LOOKUP_MOST && k < next && t[next - 1 - k] == t[n - 1 - k]) k++;
        if (k >= LOOKUP_LEAST && k >= best.length) best = (lookup_match){k, next};
    }
    return best;
}

START_TEST(the_longest_and_newest_match_is_found) {
    int32_t t[300];
    uint32_t n_found = 0;
    for (uint64_t seed = 0; seed < 4000; seed++) {
        const uint32_t n = (uint32_t)(hash_mix(seed) % 300), words = 2 + seed % 40;
        for (uint32_t i = 0; i < n; i++)
            t[i] = (int32_t)(hash_mix(seed << 20 | (i * 7919) % 97) % words);
        const lookup_match is = lookup_find(t, n), want = find_plainly(t, n);
        ck_assert_uint_eq(is.length, want.length);
        if (is.length) ck_assert_uint_eq(is.next, want.next);
        n_found += is.length > 0;
    }
    ck_assert_uint_gt(n_found, 2000);
}
END_TEST

START_TEST(guesses_are_what_followed_and_go_on_where_a_text_repeats_itself) {
    const int32_t quoted[] = {1, 2, 3, 4, 5, 6, 7, 2, 3};
    lookup_match m = lookup_find(quoted, 9);
    int32_t guess[8];
    ck_assert(m.length == 2 && m.next == 3);
    lookup_guess(quoted, 9, &m, guess, 4);
    ck_assert_mem_eq(guess, quoted + 3, 4 * sizeof *guess);
    const int32_t loop[] = {9, 1, 2, 3, 1, 2, 3}, next[] = {1, 2, 3, 1, 2, 3, 1, 2};
    m = lookup_find(loop, 7);
    ck_assert(m.length == 3 && m.next == 4);
    lookup_guess(loop, 7, &m, guess, 8);
    ck_assert_mem_eq(guess, next, sizeof next);
    ck_assert_uint_eq(lookup_find(loop, 1).length, 0);
    ck_assert_uint_eq(lookup_find(loop, 0).length, 0);
}
END_TEST

enum { SEQS = 32, N_TEXT = 64 };

typedef struct rig {
    drafter *d;
    void *mem;
    int32_t text[N_TEXT]; /* ends as it was in the middle: a match of 16 */
    cost_model cost;
} rig;

/* A step takes `fixed` us and `row` us a row. */
static void rig_open(rig *r, double fixed, double row) {
    const size_t bytes = drafter_bytes(SEQS);
    *r = (rig){.mem = aligned_alloc(64, bytes)};
    memset(r->mem, 0xa5, bytes);
    r->d = drafter_init(r->mem, SEQS, 8);
    for (int i = 0; i < N_TEXT; i++) r->text[i] = i < 40 ? i : i - 24;
    for (int i = 0; i < 200 && fixed > 0; i++) {
        const double n = 1 + i % 8;
        cost_observe(&r->cost, (step_work){.rows = n, .logit_rows = n}, fixed + row * n);
    }
}

static void rig_close(rig *r) {
    free(r->mem);
}

/* Guesses that a step of n sequences verifies of the first, whose match has so many tokens. */
static uint32_t choose(rig *r, uint32_t n, uint32_t length, uint32_t n_most) {
    draft *x;
    int32_t text[N_TEXT];
    memcpy(text, r->text, sizeof text);
    text[N_TEXT - length - 1] = 999;
    drafter_begin(r->d);
    for (uint32_t i = 0; i < n; i++) drafter_add(r->d, 100 + i, i, text, N_TEXT, n_most);
    drafter_choose(r->d, &r->cost, n, n * N_TEXT);
    const uint32_t n_drafts = drafter_drafts(r->d, &x);
    ck_assert_uint_eq(n_drafts, n_most ? n : 0);
    if (n_drafts == 0) return 0;
    ck_assert(x[0].id == 100 && x[0].slot == 0 && x[0].length == length);
    return x[0].n;
}

START_TEST(few_sequences_verify_more_than_many) {
    rig r;
    rig_open(&r, 1000, 100);
    const uint32_t one = choose(&r, 1, 15, 8), many = choose(&r, SEQS, 15, 8);
    ck_assert_uint_ge(one, 6);
    ck_assert_uint_lt(many, one);
    ck_assert_uint_le(choose(&r, SEQS, 2, 8), 0); /* of a short match hardly any is right */
    ck_assert_uint_eq(choose(&r, 1, 15, 3), 3);
    ck_assert_uint_eq(choose(&r, 1, 15, 0), 0);
    rig_close(&r);
}
END_TEST

START_TEST(nothing_is_verified_where_rows_cost_as_much_as_steps) {
    rig r;
    rig_open(&r, 1, 1000);
    for (uint32_t n = 1; n <= SEQS; n *= 2) ck_assert_uint_eq(choose(&r, n, 15, 8), 0);
    rig_close(&r);
}
END_TEST

START_TEST(guesses_that_fail_are_given_up_and_tried_again_later) {
    rig r;
    rig_open(&r, 1000, 150);
    uint32_t n = choose(&r, 1, 15, 8), tries = 0;
    for (; n > 0; n = choose(&r, 1, 15, 8)) {
        drafter_learn(r.d, 0, n, 0);
        ck_assert_uint_lt(++tries, 40);
    }
    uint32_t pause = 1;
    while (choose(&r, 1, 15, 8) == 0) ck_assert_uint_lt(pause++, 2000);
    ck_assert_uint_gt(pause, 20);
    rig_close(&r);
}
END_TEST

START_TEST(guesses_that_hold_grow) {
    rig r;
    rig_open(&r, 1000, 150);
    const uint32_t before = choose(&r, 1, 3, 8);
    for (int i = 0; i < 20; i++) {
        const uint32_t n = choose(&r, 1, 3, 8);
        drafter_learn(r.d, 0, n, n);
    }
    ck_assert_uint_gt(choose(&r, 1, 3, 8), before);
    ck_assert_uint_eq(choose(&r, 1, 3, 8), 8);
    rig_close(&r);
}
END_TEST

START_TEST(a_slot_of_another_sequence_knows_nothing_of_the_one_before) {
    rig r;
    draft *x;
    rig_open(&r, 1000, 150);
    const uint32_t fresh = choose(&r, 1, 15, 8);
    for (int i = 0; i < 3; i++) drafter_learn(r.d, 0, 8, 0);
    const uint32_t doubtful = choose(&r, 1, 15, 8);
    ck_assert_uint_lt(doubtful, fresh);
    drafter_begin(r.d);
    drafter_add(r.d, 7, 0, r.text, N_TEXT, 8);
    drafter_choose(r.d, &r.cost, 1, N_TEXT);
    ck_assert_uint_eq(drafter_drafts(r.d, &x), 1);
    ck_assert_uint_gt(x[0].n, doubtful);
    rig_close(&r);
}
END_TEST

CHECK_MAIN("drafter", the_longest_and_newest_match_is_found,
           guesses_are_what_followed_and_go_on_where_a_text_repeats_itself,
           few_sequences_verify_more_than_many,
           nothing_is_verified_where_rows_cost_as_much_as_steps,
           guesses_that_fail_are_given_up_and_tried_again_later, guesses_that_hold_grow,
           a_slot_of_another_sequence_knows_nothing_of_the_one_before)
