/* The worker team: everybody takes part once, barriers order what lies between them, shared
 * work is given out exactly once, and a run alone leaves the workers out. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/cpu/team.h"
#include "tests/check_main.h"

enum { MOST = 7, PHASES = 200, ITEMS = 1000 };

typedef struct job {
    team *team;
    uint32_t n;
    atomic_uint runs[MOST];
    uint32_t written[MOST]; /* plain memory: barriers must order it */
    atomic_uint wrong;
    atomic_uchar given[ITEMS];
    atomic_uint workers_seen;
} job;

static void take_part(void *arg, uint32_t thread) {
    job *j = arg;
    atomic_fetch_add(&j->runs[thread], 1);
    for (uint32_t phase = 1; phase <= PHASES; phase++) {
        j->written[thread] = phase;
        team_barrier(j->team, thread);
        for (uint32_t i = 0; i < j->n; i++)
            if (j->written[i] != phase) atomic_fetch_add(&j->wrong, 1);
        if (phase % 64 == 0 && thread == j->n - 1) usleep(300); /* the others fall asleep */
        team_barrier(j->team, thread);
    }
}

START_TEST(barriers_order_what_lies_between_them) {
    for (uint32_t n = 1; n <= MOST; n += 2) {
        job j = {.n = n};
        err e;
        ck_assert(team_open(&j.team, n, &e) == OK);
        ck_assert_uint_eq(team_size(j.team), n);
        for (int run = 1; run <= 3; run++) {
            team_run(j.team, take_part, &j);
            for (uint32_t i = 0; i < n; i++) ck_assert_uint_eq(j.runs[i], run);
            ck_assert_uint_eq(j.wrong, 0);
        }
        team_close(j.team);
    }
}
END_TEST

static void share_items(void *arg, uint32_t thread) {
    job *j = arg;
    for (uint32_t take = 1; take <= 3; take++) {
        uint32_t i;
        while ((i = team_next(j->team, take)) < ITEMS)
            for (uint32_t k = i; k < ITEMS && k < i + take; k++)
                atomic_fetch_add(&j->given[k], 1);
        team_barrier(j->team, thread);
    }
    if (thread) atomic_fetch_add(&j->workers_seen, 1);
}

START_TEST(shared_work_is_given_out_exactly_once) {
    static job j;
    err e;
    ck_assert(team_open(&j.team, 4, &e) == OK);
    for (int run = 1; run <= 10; run++) {
        team_run(j.team, share_items, &j);
        for (int i = 0; i < ITEMS; i++) ck_assert_uint_eq(j.given[i], 3 * run);
    }
    ck_assert_uint_eq(j.workers_seen, 3 * 10);
    team_close(j.team);
}
END_TEST

START_TEST(a_run_alone_leaves_the_workers_out) {
    static job j;
    err e;
    ck_assert(team_open(&j.team, 4, &e) == OK);
    team_run(j.team, share_items, &j);
    team_run_alone(j.team, share_items, &j);
    ck_assert_uint_eq(j.workers_seen, 3);
    ck_assert_uint_eq(team_waited_ns(j.team), 0);
    team_run(j.team, share_items, &j);
    for (int i = 0; i < ITEMS; i++) ck_assert_uint_eq(j.given[i], 9);
    team_close(j.team);
}
END_TEST

static void worker_sleeps(void *arg, uint32_t thread) {
    job *j = arg;
    if (thread) usleep(20000);
    team_barrier(j->team, thread);
}

START_TEST(waiting_for_a_worker_is_counted) {
    job j = {0};
    err e;
    ck_assert(team_open(&j.team, 2, &e) == OK);
    team_run(j.team, worker_sleeps, &j);
    ck_assert_uint_ge(team_waited_ns(j.team), 10000000);
    team_close(j.team);
}
END_TEST

/* ---- idleness ---- */

static _Atomic pid_t worker_id;

static void note_worker(void *arg, uint32_t thread) {
    (void)arg;
    if (thread == 1) worker_id = (pid_t)syscall(SYS_gettid);
}

/* Of /proc: the worker's state, and the nanoseconds that it has computed. */
static void look_at_worker(char *state, unsigned long long *computed) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", worker_id);
    FILE *f = fopen(path, "r");
    ck_assert(f && fgets(line, sizeof line, f));
    fclose(f);
    *state = strrchr(line, ')')[2];
    snprintf(path, sizeof path, "/proc/self/task/%d/schedstat", worker_id);
    f = fopen(path, "r");
    ck_assert(f && fscanf(f, "%llu", computed) == 1);
    fclose(f);
}

/* Between the steps of a client that is slow, or of none: a worker falls asleep behind each run, and takes no
 * time at all until the next. */
START_TEST(workers_sleep_between_runs) {
    team *t;
    err e;
    ck_assert(team_open(&t, 2, &e) == OK);
    for (int run = 0; run < 5; run++) {
        char state = 'R';
        unsigned long long before = 0, after = 0;
        team_run(t, note_worker, NULL);
        while (state != 'S') look_at_worker(&state, &before);
        look_at_worker(&state, &before); /* what it took to fall asleep is counted by now */
        usleep(20000);
        look_at_worker(&state, &after);
        ck_assert_int_eq(state, 'S');
        ck_assert_uint_eq(before, after);
    }
    team_close(t);
}
END_TEST

CHECK_MAIN("team", workers_sleep_between_runs, barriers_order_what_lies_between_them,
           shared_work_is_given_out_exactly_once, a_run_alone_leaves_the_workers_out,
           waiting_for_a_worker_is_counted)
