/* daemon/models/turns.c: threads that take turns. */
#include "daemon/models/turns.h"

#include <stdatomic.h>
#include <time.h>

#include "base/clock.h"
#include "tests/check_main.h"

static turns t;
static atomic_int inside, most_inside;
static atomic_bool over;

typedef struct player {
    uint32_t who, step_us;
    uint64_t n, used_us;
} player;

static void spend(uint32_t us) {
    const uint64_t until = clock_us() + us;
    while (clock_us() < until) {
    }
}

static void *play(void *arg) {
    player *p = arg;
    while (!atomic_load(&over)) {
        turns_take(&t, p->who);
        const int n = atomic_fetch_add(&inside, 1) + 1;
        if (n > atomic_load(&most_inside)) atomic_store(&most_inside, n);
        const uint64_t began = clock_us();
        spend(p->step_us);
        p->used_us += clock_us() - began;
        p->n++;
        atomic_fetch_sub(&inside, 1);
        turns_give(&t, p->who);
    }
    return NULL;
}

START_TEST(one_at_a_time_and_equal_time_for_short_and_long_steps) {
    player p[2] = {{.who = 0, .step_us = 500}, {.who = 1, .step_us = 4000}};
    pthread_t thread[2];
    turns_init(&t, 2);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, play, &p[i]), 0);
    nanosleep(&(struct timespec){.tv_nsec = 800000000}, NULL);
    atomic_store(&over, true);
    for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    ck_assert_int_eq(atomic_load(&most_inside), 1);
    const double share = (double)p[0].used_us / (double)(p[0].used_us + p[1].used_us);
    /* Where turns are counted and not their time, the short steps have 0.11. */
    ck_assert_msg(share > 0.3 && share < 0.7, "%.2f of the time", share);
    ck_assert_uint_gt(p[0].n, p[1].n);
    turns_destroy(&t);
}
END_TEST

START_TEST(a_pause_is_no_credit) {
    turns_init(&t, 2);
    t.used_us[0] = 1000000; /* has computed for a second while the other had nothing to do */
    turns_take(&t, 0);
    turns_give(&t, 0); /* and is about to come back: it does not wait at this moment */
    turns_take(&t, 1);
    turns_give(&t, 1);
    ck_assert_uint_ge(t.used_us[1], 1000000);
    turns_destroy(&t);
}
END_TEST

START_TEST(one_that_keeps_up_loses_nothing) {
    turns_init(&t, 2);
    t.used_us[0] = t.latest_us = 500000;
    t.used_us[1] = 1000000; /* has had a long turn, and waits */
    t.waits[1] = true;
    turns_take(&t, 0);
    ck_assert_uint_eq(t.used_us[0], 500000);
    turns_give(&t, 0);
    turns_destroy(&t);
}
END_TEST

int main(void) {
    Suite *s = suite_create("turns");
    TCase *c = check_case(s, "turns");
    tcase_add_test(c, one_at_a_time_and_equal_time_for_short_and_long_steps);
    tcase_add_test(c, a_pause_is_no_credit);
    tcase_add_test(c, one_that_keeps_up_loses_nothing);
    return check_run(s);
}
