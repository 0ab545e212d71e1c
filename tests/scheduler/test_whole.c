/* Without groups of blocks (an encoder): every prompt is in one step, nothing is drawn. */
#include "tests/scheduler/drive.h"

static drive *whole_drive(void) {
    sched_config cfg = drive_config();
    cfg.n_groups = 0;
    cfg.max_rows = 64;
    cfg.max_model_len = 60;
    cfg.depth = 1;
    return drive_new(cfg);
}

static void submit(drive *d, uint64_t user, uint32_t n) {
    sched_spec spec = drive_spec(d, n, 0);
    sched_id id;
    spec.user = user;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
}

/* Ended generations since the last call, by user, as text. */
static const char *ended(drive *d, size_t *from) {
    static char text[256];
    int n = 0;
    text[0] = '\0';
    for (; *from < d->n_log; (*from)++) {
        const sched_event *e = &d->log[*from];
        if (e->kind != EVENT_ENDED) continue;
        ck_assert_int_eq(e->finish, FINISH_LENGTH);
        ck_assert_uint_eq(e->peak_blocks, 0);
        n += snprintf(text + n, sizeof text - (size_t)n, " %u", (unsigned)e->user);
    }
    return text + (n > 0);
}

static void commit(drive *d, const sched_step *st) {
    const int32_t none[4] = {0};
    const uint32_t n[4] = {0};
    const sched_step_tokens drawn = {.token = none, .n = n, .stride = 1};
    sched_commit(d->s, st, &drawn);
    drive_drain(d);
}

START_TEST(texts_are_never_cut) {
    drive *d = whole_drive();
    size_t seen = 0;
    submit(d, 1, 30);
    submit(d, 2, 40); /* has no room beside the first */
    submit(d, 3, 60);
    submit(d, 4, 4);
    const sched_step *st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), "p1[0..30)");
    ck_assert_uint_eq(st->n_logit_rows, 1);
    commit(d, st);
    ck_assert_str_eq(ended(d, &seen), "1");
    st = drive_plan(d); /* the oldest goes first, then what fits beside it */
    ck_assert_int_eq(strncmp(drive_trace(st), "p2[0..40)", 9), 0);
    ck_assert_ptr_null(strstr(drive_trace(st), "p3"));
    commit(d, st);
    st = drive_plan(d);
    ck_assert_int_eq(strncmp(drive_trace(st), "p3[0..60)", 9), 0);
    for (; st; st = drive_plan(d)) commit(d, st);
    ck_assert_str_eq(ended(d, &seen), "2 3 4");
    drive_free(d);
}
END_TEST

START_TEST(a_step_takes_as_many_as_fit) {
    drive *d = whole_drive();
    for (uint64_t i = 1; i <= 6; i++) submit(d, i, 10);
    const sched_step *st = drive_plan(d);
    /* four slots */
    ck_assert_str_eq(drive_trace(st), "p1[0..10) p2[0..10) p3[0..10) p4[0..10)");
    ck_assert_uint_eq(st->n_logit_rows, 4);
    commit(d, st);
    st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), "p5[0..10) p6[0..10)");
    commit(d, st);
    ck_assert_ptr_null(drive_plan(d));
    drive_free(d);
}
END_TEST

START_TEST(what_would_be_drawn_is_refused) {
    drive *d = whole_drive();
    sched_spec spec = drive_spec(d, 8, 1);
    sched_id id;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NEVER_FITS);
    spec = drive_spec(d, 61, 0);
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_TOO_LONG);
    drive_free(d);
}
END_TEST

START_TEST(a_cancelled_text_leaves_its_step) {
    drive *d = whole_drive();
    size_t seen = 0;
    sched_spec spec = drive_spec(d, 10, 0);
    sched_id id;
    spec.user = 1;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    submit(d, 2, 10);
    const sched_step *st = drive_plan(d);
    sched_cancel(d->s, id, FINISH_CANCELLED);
    drive_drain(d);
    seen = d->n_log;
    commit(d, st);
    ck_assert_int_eq(d->log[seen].kind, EVENT_ENDED);
    ck_assert_int_eq(d->log[seen].finish, FINISH_CANCELLED);
    ck_assert_ptr_null(drive_plan(d));
    drive_free(d);
}
END_TEST

START_TEST(steps_must_hold_the_longest_text) {
    sched_config cfg = drive_config();
    cfg.n_groups = 0;
    cfg.max_model_len = cfg.max_rows;
    ck_assert_uint_gt(sched_bytes(&cfg), 0);
    cfg.max_model_len = cfg.max_rows + 1;
    ck_assert_uint_eq(sched_bytes(&cfg), 0);
    cfg.max_model_len = cfg.max_rows;
    cfg.prefix_cache = true;
    ck_assert_uint_eq(sched_bytes(&cfg), 0);
}
END_TEST

CHECK_MAIN("whole", texts_are_never_cut, a_step_takes_as_many_as_fit,
           what_would_be_drawn_is_refused, a_cancelled_text_leaves_its_step,
           steps_must_hold_the_longest_text)
