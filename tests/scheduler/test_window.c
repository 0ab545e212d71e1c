/* Groups of layers with a window: what a sequence holds, releases, and finds again. */
#include "tests/scheduler/drive.h"

enum { WINDOW = 8, BS = 4 };

/* Blocks of a window of 8 behind steps of 16 rows, one in flight: (7 + 16) / 4, and one. */
static sched_config window_config(void) {
    sched_config cfg = drive_config();
    cfg.depth = 1;
    cfg.n_groups = 2;
    cfg.group[0] = (sched_group){.n_blocks = 28, .window = WINDOW, .block_bytes = 1};
    cfg.group[1] = (sched_group){.n_blocks = 64, .block_bytes = 100};
    return cfg;
}

static uint32_t held(const drive *d, uint32_t slot, uint32_t n) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) count += sched_blocks(d->s, slot, 0)[i] >= 0;
    return count;
}

START_TEST(blocks_out_of_sight_are_released_and_only_those) {
    drive *d = drive_new(window_config());
    drive_submit(d, 40, 24);
    ck_assert_uint_eq(kv_window_blocks(WINDOW, BS, 16), 7);
    for (const sched_step *st; (st = drive_plan(d)); drive_commit(d, st, DRIVE_WORD)) {
        const sched_step_seq *e = &st->seq[0];
        const int32_t *table = sched_blocks(d->s, e->slot, 0);
        uint32_t first = e->first_pos >= WINDOW ? (e->first_pos + 1 - WINDOW) / BS : 0;
        for (uint32_t i = 0; i < e->n_blocks; i++) ck_assert((table[i] >= 0) == (i >= first));
        ck_assert_uint_le(held(d, e->slot, e->n_blocks), e->n_rows == 1 ? 3 : 7);
    }
    /* 63 positions: 16 blocks without a window, and 3 of the other group at that time. */
    const sched_event *e = &d->log[d->n_log - 1];
    ck_assert_int_eq(e->kind, EVENT_ENDED);
    ck_assert_uint_eq(e->peak_bytes, 16 * 100 + 3);
    drive_free(d);
}
END_TEST

START_TEST(long_sequences_fit_where_their_windows_do) {
    sched_config cfg = window_config();
    cfg.n_groups = 1;
    cfg.group[0].n_blocks = 7;
    drive *d = drive_new(cfg);
    sched_id id = drive_submit(d, 40, 24); /* 16 blocks, 7 at a time */
    drive_run(d, 100);
    ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
    cfg.group[0].n_blocks = 6;
    drive *e = drive_new(cfg);
    sched_spec spec = drive_spec(e, 40, 24);
    ck_assert_int_eq(drive_try(e, &spec, &id), REJECT_NEVER_FITS);
    drive_free(e);
    drive_free(d);
}
END_TEST

/* Four sequences in a pool that has the rows of a step once: 4 * 4 blocks, and 4 of 16 rows. With
 * rows set aside for each, the same pool holds two. */
START_TEST(rows_of_a_step_may_be_set_aside_once) {
    sched_config cfg = window_config();
    cfg.max_rows = 16, cfg.group[1].n_blocks = 4 * 64;
    ck_assert_uint_eq(kv_window_share(WINDOW, BS), 4);
    ck_assert_uint_eq(kv_rows_blocks(1, cfg.max_rows, BS), 4);
    for (int once = 0; once < 2; once++) {
        uint32_t most = 0;
        sched_id id[4];
        cfg.group[0].n_blocks = 20, cfg.group[0].rows_once = once;
        drive *d = drive_new(cfg);
        for (int i = 0; i < 4; i++) id[i] = drive_submit(d, 40, 24);
        for (const sched_step *st; (st = drive_plan(d)); drive_commit(d, st, DRIVE_WORD))
            if (st->n_seqs > most) most = st->n_seqs;
        ck_assert_uint_eq(most, once ? 4 : 2);
        for (int i = 0; i < 4; i++) ck_assert_int_eq(drive_finish(d, id[i]), FINISH_LENGTH);
        drive_free(d);
    }
    cfg.group[0].n_blocks = 7; /* a share and the rows are 8 */
    drive *d = drive_new(cfg);
    sched_id id;
    sched_spec spec = drive_spec(d, 40, 24);
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NEVER_FITS);
    drive_free(d);
}
END_TEST

START_TEST(rows_in_flight_keep_their_window) {
    sched_config cfg = window_config();
    cfg.depth = 2;
    cfg.group[0].n_blocks = 64;
    drive *d = drive_new(cfg);
    drive_submit(d, 40, 24);
    const sched_step *st[2] = {drive_plan(d), drive_plan(d)};
    while (st[0]) {
        uint32_t slot = st[0]->seq[0].slot, pos = st[0]->seq[0].first_pos;
        for (uint32_t i = pos >= WINDOW ? (pos + 1 - WINDOW) / BS : 0; i < pos / BS; i++)
            ck_assert_int_ge(sched_blocks(d->s, slot, 0)[i], 0);
        drive_commit(d, st[0], DRIVE_WORD);
        st[0] = st[1];
        st[1] = drive_plan(d);
        if (!st[0]) {
            st[0] = st[1];
            st[1] = NULL;
        }
    }
    ck_assert_uint_eq(drive_stats(d).blocks_free, 128);
    drive_free(d);
}
END_TEST

START_TEST(a_hit_needs_the_last_window_of_every_group) {
    sched_config cfg = window_config();
    cfg.prefix_cache = true;
    drive *d = drive_new(cfg);
    ck_assert_uint_eq(drive_ask(d, 1, 40), 0);
    /* the window's first blocks may be gone: not needed */
    ck_assert_uint_eq(drive_ask(d, 1, 40), 36);
    /* Other tenants take the windowed blocks, first those that were out of sight longest. */
    for (uint64_t salt = 2; salt < 4; salt++) drive_ask(d, salt, 40);
    ck_assert_uint_eq(drive_ask(d, 1, 40), 36); /* those that its next row sees are left */
    for (uint64_t salt = 4; salt < 9; salt++) drive_ask(d, salt, 40);
    ck_assert_uint_eq(drive_ask(d, 1, 40), 0); /* the other group's blocks alone are no hit */
    drive_free(d);
}
END_TEST

START_TEST(a_fork_shares_the_window_of_its_leader) {
    sched_config cfg = window_config();
    drive *d = drive_new(cfg);
    sched_spec spec = drive_spec(d, 14, 8);
    sched_id a, b;
    drive_try(d, &spec, &a);
    spec.fork_of = a;
    spec.user = 1;
    drive_try(d, &spec, &b);
    drive_step(d);
    const sched_step *st = drive_plan(d);
    ck_assert_uint_eq(st->n_copies, 2); /* one in each group */
    const int32_t *own = sched_blocks(d->s, drive_entry(st, 1)->slot, 0);
    const int32_t *lead = sched_blocks(d->s, drive_entry(st, 0)->slot, 0);
    ck_assert_int_eq(own[0], -1); /* position 13 sees 6 .. 13 */
    ck_assert(own[1] == lead[1] && own[2] == lead[2] && own[3] != lead[3]);
    drive_commit(d, st, DRIVE_WORD);
    drive_run(d, 100);
    ck_assert_int_eq(drive_finish(d, b), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

CHECK_MAIN("window", blocks_out_of_sight_are_released_and_only_those,
           long_sequences_fit_where_their_windows_do, rows_of_a_step_may_be_set_aside_once,
           rows_in_flight_keep_their_window, a_hit_needs_the_last_window_of_every_group,
           a_fork_shares_the_window_of_its_leader)
