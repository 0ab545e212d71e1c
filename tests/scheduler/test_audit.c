/* The audit finds what it is there to find: each test breaks one invariant in a way that leaves
 * every count right, and expects the abort. Before, drive.h has audited the same state. */
#include "scheduler/state.h"
#include "tests/scheduler/drive.h"

#include <signal.h>

static sched_config cached_config(void) {
    sched_config cfg = drive_config();
    cfg.prefix_cache = true;
    return cfg;
}

/* Two sequences, each with a block that is half full. */
static drive *two_that_run(const sched_step **st) {
    drive *d = drive_new(cached_config());
    drive_submit(d, 6, 8);
    drive_submit(d, 6, 8);
    *st = drive_plan(d);
    ck_assert_uint_eq((*st)->n_seqs, 2);
    return d;
}

START_TEST(two_writers_of_one_block_are_found) {
    const sched_step *st;
    drive *d = two_that_run(&st);
    seq_group *g = &d->s->group[0];
    int32_t *mine = table_of(d->s, g, st->seq[0].slot),
            *yours = table_of(d->s, g, st->seq[1].slot);
    drive_commit(d, st, DRIVE_WORD);
    blocks_hold(&g->kv, mine[1]);
    blocks_drop(&g->kv, yours[1], 0, 1);
    yours[1] = mine[1];
    sched_audit(d->s);
}
END_TEST

START_TEST(a_block_freed_before_its_step_is_committed_is_found) {
    const sched_step *st;
    drive *d = two_that_run(&st);
    const sched_id id = d->s->hot[st->seq[0].slot].id;
    drive_cancel(d, id);
    ck_assert_uint_eq(drive_stats(d).blocks_fenced, 2);
    blocks_unfence(&d->s->group[0].kv, st->number & 1);
    sched_audit(d->s);
}
END_TEST

START_TEST(a_full_block_that_is_not_published_is_found) {
    const sched_step *st;
    drive *d = two_that_run(&st);
    drive_commit(d, st, DRIVE_WORD);
    ck_assert_uint_eq(d->s->chain[0].n, 1);
    d->s->chain[0].n = 0;
    sched_audit(d->s);
}
END_TEST

START_TEST(a_block_held_once_more_than_counted_is_found) {
    const sched_step *st;
    drive *d = two_that_run(&st);
    drive_commit(d, st, DRIVE_WORD);
    blocks_hold(&d->s->group[0].kv, table_of(d->s, &d->s->group[0], st->seq[0].slot)[0]);
    sched_audit(d->s);
}
END_TEST

START_TEST(an_order_of_running_that_is_not_seniority_is_found) {
    const sched_step *st;
    drive *d = two_that_run(&st);
    seq_record *a = &d->s->record[record_of(d->s->hot[st->seq[0].slot].id)];
    seq_record *b = &d->s->record[record_of(d->s->hot[st->seq[1].slot].id)];
    uint64_t ticket = a->ticket;
    a->ticket = b->ticket;
    b->ticket = ticket;
    sched_audit(d->s);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("audit");
    TCase *t = check_case(suite, "audit");
    tcase_add_test_raise_signal(t, two_writers_of_one_block_are_found, SIGABRT);
    tcase_add_test_raise_signal(t, a_block_freed_before_its_step_is_committed_is_found,
                                SIGABRT);
    tcase_add_test_raise_signal(t, a_full_block_that_is_not_published_is_found, SIGABRT);
    tcase_add_test_raise_signal(t, a_block_held_once_more_than_counted_is_found, SIGABRT);
    tcase_add_test_raise_signal(t, an_order_of_running_that_is_not_seniority_is_found, SIGABRT);
    return check_run(suite);
}
