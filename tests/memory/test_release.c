/* memory/release.c through its header: which budget is right after which events. */
#include <stdlib.h>

#include "memory/release.h"
#include "tests/check_main.h"

static const uint64_t S = 1000000, MIB = 1 << 20;

static release begin(uint64_t full) {
    release r;
    release_set(&r, full);
    ck_assert_uint_eq(release_wanted(&r), full);
    ck_assert_uint_eq(release_next_us(&r), UINT64_MAX);
    return r;
}

START_TEST(each_event_takes_half_of_what_is_not_needed) {
    release r = begin(1000 * MIB);
    release_on_pressure(&r, 1 * S, 900 * MIB,
                        100 * MIB); /* the plan has less than the budget */
    ck_assert_uint_eq(release_wanted(&r), 500 * MIB);
    release_on_pressure(&r, 3 * S, 500 * MIB, 100 * MIB);
    ck_assert_uint_eq(release_wanted(&r), 300 * MIB);
    release_on_pressure(&r, 5 * S, 300 * MIB, 280 * MIB); /* less than a piece is a piece */
    ck_assert_uint_eq(release_wanted(&r), 284 * MIB);
    release_on_pressure(&r, 7 * S, 284 * MIB, 280 * MIB);
    ck_assert_uint_eq(release_wanted(&r), 280 * MIB);
    release_on_pressure(&r, 9 * S, 280 * MIB, 290 * MIB); /* never what is needed */
    ck_assert_uint_eq(release_wanted(&r), 280 * MIB);
}
END_TEST

START_TEST(it_grows_slowly_when_no_event_came_for_a_while) {
    release r = begin(1000 * MIB);
    release_on_pressure(&r, 100 * S, 1000 * MIB, 200 * MIB);
    release_on_pressure(&r, 102 * S, 600 * MIB, 200 * MIB);
    ck_assert_uint_eq(release_next_us(&r), 112 * S); /* of the newest event */
    ck_assert(!release_grow(&r, 111 * S));
    ck_assert_uint_eq(release_wanted(&r), 400 * MIB);
    ck_assert(release_grow(&r, 112 * S));
    ck_assert_uint_eq(release_wanted(&r), 550 * MIB);
    ck_assert_uint_eq(release_next_us(&r), 117 * S);
    uint64_t now = 112 * S, last = 0;
    int n = 0;
    while (release_next_us(&r) != UINT64_MAX) {
        now = release_next_us(&r);
        last = release_wanted(&r);
        ck_assert(release_grow(&r, now));
        ck_assert(release_wanted(&r) > last && release_wanted(&r) <= 1000 * MIB);
        ck_assert(++n < 20);
    }
    ck_assert_uint_eq(release_wanted(&r), 1000 * MIB);
    ck_assert(now - 112 * S >= 40 * S);
}
END_TEST

/* Pressure that comes back as soon as the budget grows: growth is tried ever more rarely. */
START_TEST(pressure_that_returns_doubles_the_wait) {
    release r = begin(1000 * MIB);
    uint64_t now = 10 * S, wait = 10 * S;
    release_on_pressure(&r, now, 1000 * MIB, 500 * MIB);
    for (int i = 0; i < 10; i++) {
        ck_assert_uint_eq(release_next_us(&r), now + wait);
        now += wait;
        ck_assert(release_grow(&r, now));
        const uint64_t grown = release_wanted(&r);
        now += 2 * S;
        release_on_pressure(&r, now, grown, 500 * MIB);
        ck_assert(release_wanted(&r) < grown);
        release_on_pressure(&r, now += 2 * S, release_wanted(&r), 500 * MIB); /* the same */
        wait = wait < 320 * S ? 2 * wait : 640 * S;
    }
    while (release_next_us(&r) != UINT64_MAX) release_grow(&r, now = release_next_us(&r));
    now += 100 * S; /* all is well for a while: from the beginning */
    release_on_pressure(&r, now, 1000 * MIB, 500 * MIB);
    ck_assert_uint_eq(release_next_us(&r), now + 10 * S);
}
END_TEST

START_TEST(idleness_takes_what_can_go_and_a_request_takes_it_back) {
    release r = begin(1000 * MIB);
    release_on_idle(&r, 150 * MIB);
    ck_assert_uint_eq(release_wanted(&r), 150 * MIB);
    release_on_request(&r);
    ck_assert_uint_eq(release_wanted(&r), 1000 * MIB);
    release_on_pressure(&r, 1 * S, 1000 * MIB, 200 * MIB);
    release_on_idle(&r, 150 * MIB);
    release_on_pressure(&r, 3 * S, 150 * MIB, 150 * MIB);
    ck_assert_uint_eq(release_wanted(&r), 150 * MIB);
    release_on_request(&r); /* while memory is short it comes back slowly */
    ck_assert_uint_eq(release_wanted(&r), 150 * MIB);
    ck_assert(release_grow(&r, release_next_us(&r)));
    ck_assert(release_wanted(&r) > 150 * MIB);
}
END_TEST

START_TEST(a_refusal_of_the_system_is_an_event) {
    release r = begin(1000 * MIB);
    release_on_idle(&r, 150 * MIB);
    release_on_request(&r);
    release_on_refusal(&r, 5 * S, 400 * MIB);
    ck_assert_uint_eq(release_wanted(&r), 400 * MIB);
    ck_assert_uint_eq(release_next_us(&r), 15 * S);
    release_set(&r, 800 * MIB); /* the operator decides anew */
    ck_assert_uint_eq(release_wanted(&r), 800 * MIB);
    ck_assert_uint_eq(release_next_us(&r), UINT64_MAX);
}
END_TEST

CHECK_MAIN("release", each_event_takes_half_of_what_is_not_needed,
           it_grows_slowly_when_no_event_came_for_a_while,
           pressure_that_returns_doubles_the_wait,
           idleness_takes_what_can_go_and_a_request_takes_it_back,
           a_refusal_of_the_system_is_an_event)
