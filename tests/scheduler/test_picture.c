/* Cells of pools: whose they are, and what a cell of several blocks shows. That they agree with the counts is
 * checked after every call of drive.h, and in tests/sim/stream.h. */
#include "scheduler/resize.h"
#include "tests/scheduler/drive.h"

/* "AAB.o": a letter for each cell: a sequence by its user, or s shared, c cached, f fenced, o out, u used. */
static const char *cells_text(const sched *s, const uint32_t *cell, sched_cells c) {
    static const char kind[] = ".cfous";
    static char text[128];
    uint32_t n = 0;
    for (uint32_t i = 0; i < c.n; i += c.stride, n++) {
        ck_assert_uint_lt(n, sizeof text - 1);
        text[n] = cell[n] < CELL_SEQUENCE
                      ? kind[cell[n]]
                      : (char)('A' + sched_user_of(s, cell[n] - CELL_SEQUENCE));
    }
    text[n] = 0;
    return text;
}

static const char *blocks_text(const drive *d, uint32_t most) {
    uint32_t cell[128];
    const sched_cells c = sched_block_cells(d->s, 0, cell, most);
    return cells_text(d->s, cell, c);
}

static sched_id submit(drive *d, uint64_t user, uint32_t n_prompt, uint32_t max_tokens) {
    sched_spec spec = drive_spec(d, n_prompt, max_tokens);
    sched_id id = 0;
    spec.user = user;
    spec.salt = user < 2 ? user : 0;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    return id;
}

START_TEST(blocks_are_those_of_who_holds_them) {
    sched_config cfg = drive_config();
    cfg.prefix_cache = true;
    drive *d = drive_new(cfg);
    ck_assert_str_eq(blocks_text(d, 128), "................");
    const sched_id a = submit(d, 0, 8, 20);
    submit(d, 1, 6, 20);
    drive_step(d);
    ck_assert_str_eq(blocks_text(d, 128), "AABB............");
    drive_step(d);
    ck_assert_str_eq(blocks_text(d, 128), "AABBA...........");
    submit(d, 2, 8, 4); /* its first block is the first one's */
    drive_step(d);
    ck_assert_str_eq(blocks_text(d, 128), "sABBAC..........");
    drive_cancel(d, a);
    ck_assert_str_eq(blocks_text(d, 128), "CcBB.C..........");
    drive_run(d, 100);
    drive_free(d);
}
END_TEST

START_TEST(blocks_behind_a_fence_and_out_of_a_smaller_pool) {
    sched_config cfg = drive_config();
    cfg.max_moves = 8;
    drive *d = drive_new(cfg);
    const sched_id a = submit(d, 0, 8, 20);
    const sched_step *st = drive_plan(d);
    drive_cancel(d, a);
    ck_assert_str_eq(blocks_text(d, 128), "ff..............");
    drive_commit(d, st, DRIVE_WORD);
    const uint32_t smaller[SCHED_MAX_GROUPS] = {10};
    ck_assert(sched_resize(d->s, smaller));
    ck_assert_ptr_null(drive_plan(d));
    ck_assert_str_eq(blocks_text(d, 128), "..........oooooo");
    drive_free(d);
}
END_TEST

START_TEST(a_cell_of_several_blocks_shows_its_first) {
    drive *d = drive_with_blocks(13);
    submit(d, 0, 8, 20);
    submit(d, 1, 8, 20);
    drive_step(d);
    ck_assert_str_eq(blocks_text(d, 13), "AABB.........");
    ck_assert_str_eq(blocks_text(d, 12), "AB....."); /* 7 cells of 2 */
    ck_assert_str_eq(blocks_text(d, 7), "AB.....");
    ck_assert_str_eq(blocks_text(d, 6), "A...");
    ck_assert_str_eq(blocks_text(d, 1), "A");
    drive_run(d, 100);
    drive_free(d);
}
END_TEST

START_TEST(states_are_of_sequences_or_checkpoints) {
    sched_config cfg = drive_config();
    uint32_t cell[16];
    cfg.prefix_cache = true;
    cfg.state_slots = cfg.max_seqs + 2;
    cfg.state_chunk = 8;
    cfg.max_rows = cfg.max_logit_rows = 64;
    drive *d = drive_new(cfg);
    submit(d, 0, 8, 20);
    const sched_step *st = drive_plan(d);
    ck_assert_uint_eq(st->n_checkpoints, 1);
    ck_assert_str_eq(cells_text(d->s, cell, sched_state_cells(d->s, cell, 16)), "Au....");
    drive_commit(d, st, DRIVE_WORD);
    ck_assert_str_eq(cells_text(d->s, cell, sched_state_cells(d->s, cell, 16)), "Ac....");
    drive_run(d, 100);
    drive_free(d);
}
END_TEST

int main(void) {
    Suite *s = suite_create("picture");
    TCase *t = check_case(s, "picture");
    tcase_add_test(t, blocks_are_those_of_who_holds_them);
    tcase_add_test(t, blocks_behind_a_fence_and_out_of_a_smaller_pool);
    tcase_add_test(t, a_cell_of_several_blocks_shows_its_first);
    tcase_add_test(t, states_are_of_sequences_or_checkpoints);
    return check_run(s);
}
