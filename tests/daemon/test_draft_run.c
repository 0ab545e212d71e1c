/* Passes of a draft model: what they compute and where, what becomes of it, and which are worth their time. */
#include "daemon/bridge/draft_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check_main.h"

/* BLOCK tokens of a block; a step of the target has at most ROWS rows, so has a pass. */
enum { SEQS = 4, BLOCK = 8, ROWS = 32, LENGTH = 128, BLOCKS = 64, DRAFT = 5, MOST_PASSES = 64 };

/* The text of every sequence; the draft model writes it on. */
static int32_t word_at(uint32_t position) {
    return (int32_t)(100 + position);
}

/* One entry of a pass. */
typedef struct entry {
    uint32_t first_pos, n_rows;
    int32_t input_from, block; /* block: where its last row lies, of the draft model's pool */
    bool guesses;
} entry;

typedef struct fake_engine {
    engine head;
    uint32_t n_passes, n_seqs[MOST_PASSES];
    entry pass[MOST_PASSES][SEQS];
    sampled token[SEQS];
    float sure; /* the probability that it gives its guesses */
    bool fails;
} fake_engine;

static status fake_submit(engine *head, const batch *b, err *e) {
    fake_engine *f = (fake_engine *)head;
    if (f->fails) return err_set(e, ERR_INVALID, "a test");
    ck_assert(f->n_passes < MOST_PASSES && b->n_rows <= ROWS && b->n_seqs <= SEQS);
    f->n_seqs[f->n_passes] = b->n_seqs;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const batch_seq *q = &b->seq[i];
        const uint32_t end = q->first_pos + q->n_rows;
        ck_assert_uint_eq(q->n_blocks[0], (end + BLOCK - 1) / BLOCK);
        ck_assert_ptr_eq(q->blocks[0], q->blocks[1]);
        f->pass[f->n_passes][i] = (entry){q->first_pos, q->n_rows, q->input_from,
                                          q->blocks[0][(end - 1) / BLOCK], q->sample};
        f->token[i] = (sampled){.token = word_at(end), .logprob = logf(f->sure)};
    }
    f->n_passes++;
    return OK;
}

static status fake_collect(engine *head, step_result *out, err *e) {
    (void)e;
    *out = (step_result){.token = ((fake_engine *)head)->token, .max_run = 1};
    return OK;
}

static const backend fake_backend = {
    .name = "fake", .submit = fake_submit, .collect = fake_collect};

typedef struct rig {
    fake_engine engine;
    draft_run *d;
    void *mem, *valid;
    cost_model cost; /* of the target */
    int32_t text[LENGTH], blocks[SEQS][LENGTH / BLOCK];
} rig;

/* A step takes 1000 us and so many a row. */
static void learn_times(rig *r, double row_us) {
    r->cost = (cost_model){0};
    for (int i = 0; i < 200; i++) {
        const double n = 1 + i % 8;
        cost_observe(&r->cost, (step_work){.rows = n, .logit_rows = n}, 1000 + row_us * n);
    }
}

/* A step of the target takes 1000 us and 100 a row. share: of a step that a pass takes: fewer than the passes after
 * which their times would be known are run, so that no clock matters. */
static void rig_open(rig *r, double share) {
    *r = (rig){.engine = {.head.backend = &fake_backend, .sure = 0.95f}};
    const draft_run_config c = {.engine = &r->engine.head,
                                .n_groups = 2,
                                .max_seqs = SEQS,
                                .max_rows = ROWS,
                                .max_draft = DRAFT,
                                .max_model_len = LENGTH,
                                .block_tokens = BLOCK,
                                .share = share};
    const size_t bytes = draft_run_bytes(SEQS, LENGTH, BLOCK);
    r->mem = aligned_alloc(64, bytes);
    memset(r->mem, 0, bytes);
    r->valid = calloc(1, draft_run_valid_bytes(BLOCKS));
    r->d = draft_run_init(r->mem, r->valid, &c);
    for (uint32_t i = 0; i < LENGTH; i++) r->text[i] = word_at(i);
    for (int32_t s = 0; s < SEQS; s++)
        for (int32_t k = 0; k < LENGTH / BLOCK; k++) r->blocks[s][k] = s + SEQS * k;
    learn_times(r, 100);
}

static void rig_close(rig *r) {
    free(r->mem);
    free(r->valid);
}

static uint32_t held(uint32_t n_text) {
    return (n_text + BLOCK - 1) / BLOCK;
}

static void add(rig *r, uint32_t slot, uint32_t n_text, uint32_t n_most) {
    draft_run_add(r->d, 100 + slot, slot, r->text, n_text, r->blocks[slot], held(n_text),
                  n_most);
}

/* Guesses for the first sequences, which know so many tokens; of the first one how many it has. */
static uint32_t guess_within(rig *r, uint32_t n, uint32_t n_text, double most_us) {
    draft *x;
    r->engine.n_passes = 0;
    draft_run_begin(r->d);
    for (uint32_t i = 0; i < n; i++) add(r, i, n_text, DRAFT);
    draft_run_guess(r->d, &r->cost, n, n * n_text, most_us);
    if (draft_run_drafts(r->d, &x) == 0) return 0;
    for (uint32_t k = 0; k < x[0].n; k++) ck_assert_int_eq(x[0].guess[k], word_at(n_text + k));
    return x[0].n;
}

static uint32_t guess(rig *r, uint32_t n, uint32_t n_text) {
    return guess_within(r, n, n_text, 0);
}

static void check_entry(const rig *r, uint32_t pass, uint32_t i, uint32_t first,
                        uint32_t n_rows, bool guesses) {
    const entry *e = &r->engine.pass[pass][i];
    ck_assert(pass < r->engine.n_passes && i < r->engine.n_seqs[pass]);
    ck_assert(e->first_pos == first && e->n_rows == n_rows && e->guesses == guesses);
}

START_TEST(what_is_known_is_computed_once_and_guesses_follow_each_other) {
    rig r;
    rig_open(&r, 0.05);
    ck_assert_uint_eq(guess(&r, 1, 20), DRAFT);
    ck_assert_uint_eq(r.engine.n_passes, DRAFT);
    check_entry(&r, 0, 0, 0, 20, true);
    ck_assert_int_eq(r.engine.pass[0][0].input_from, -1);
    for (uint32_t k = 1; k < DRAFT; k++) {
        check_entry(&r, k, 0, 19 + k, 1, true);
        ck_assert_int_eq(r.engine.pass[k][0].input_from, 0); /* what the pass before drew */
    }
    /* Three of them were right and a fourth token was drawn: its row is all that is new. */
    draft_run_learn(r.d, 0, DRAFT, 3);
    ck_assert_uint_gt(guess(&r, 1, 24), 0);
    check_entry(&r, 0, 0, 23, 1, true);
    /* None was right: what stands at their places is computed again. */
    draft_run_learn(r.d, 0, DRAFT, 0);
    guess(&r, 1, 25);
    check_entry(&r, 0, 0, 24, 1, true);
    rig_close(&r);
}
END_TEST

START_TEST(guesses_behind_the_blocks_of_a_sequence_lie_in_its_own_and_are_computed_again) {
    rig r;
    const int32_t aside = (int32_t)draft_run_aside(SEQS, BLOCK);
    rig_open(&r, 0.05);
    draft_run_begin(r.d);
    add(&r, 2, 22, DRAFT); /* blocks for 24 tokens: the guesses at 24 and behind have none */
    draft_run_guess(r.d, &r.cost, 1, 22, 0);
    ck_assert_int_eq(r.engine.pass[0][0].block, aside + r.blocks[2][2]);
    ck_assert_int_eq(r.engine.pass[2][0].block, aside + r.blocks[2][2]);
    const int32_t own = r.engine.pass[3][0].block;
    ck_assert(r.engine.pass[3][0].first_pos == 24 && own < aside);
    ck_assert_int_eq(own / (aside / SEQS), 2);
    draft_run_learn(r.d, 2, DRAFT, DRAFT);
    r.engine.n_passes = 0;
    draft_run_begin(r.d);
    add(&r, 2, 28, DRAFT);
    draft_run_guess(r.d, &r.cost, 1, 28, 0);
    check_entry(&r, 0, 0, 24, 4, true);
    rig_close(&r);
}
END_TEST

START_TEST(a_long_text_is_computed_in_chunks_before_its_first_guess) {
    rig r;
    rig_open(&r, 0.05);
    ck_assert_uint_eq(guess(&r, 1, 70), 0);
    check_entry(&r, 0, 0, 0, ROWS, false);
    ck_assert_uint_eq(r.engine.n_passes, 1);
    ck_assert_uint_eq(guess(&r, 1, 71), 0);
    check_entry(&r, 0, 0, ROWS, ROWS, false);
    ck_assert_uint_eq(guess(&r, 1, 72), DRAFT);
    check_entry(&r, 0, 0, 2 * ROWS, 8, true);
    /* One that lacks little goes before one that lacks much, which gets what is left. */
    draft_run_begin(r.d);
    r.engine.n_passes = 0;
    add(&r, 1, 100, DRAFT);
    add(&r, 2, 60, DRAFT);
    add(&r, 0, 73, DRAFT);
    draft_run_guess(r.d, &r.cost, 3, 233, 0);
    check_entry(&r, 0, 0, 72, 1, true);
    check_entry(&r, 0, 1, 0, ROWS - 1, false);
    ck_assert_uint_eq(r.engine.n_seqs[0], 2);
    for (uint32_t k = 1; k < r.engine.n_passes; k++) {
        check_entry(&r, k, 0, 72 + k, 1, true);
        ck_assert_uint_eq(r.engine.n_seqs[k], 1);
    }
    rig_close(&r);
}
END_TEST

START_TEST(what_the_target_writes_or_copies_over_is_computed_again) {
    rig r;
    rig_open(&r, 0.05);
    guess(&r, 1, 20);
    draft_run_learn(r.d, 0, DRAFT, 0);
    /* Rows of the target from the middle of a block on: what the block has before them stays. */
    draft_run_enter(r.d, r.blocks[0], 20, 1);
    guess(&r, 1, 21);
    check_entry(&r, 0, 0, 20, 1, true);
    draft_run_copied(r.d, r.blocks[0][1]);
    guess(&r, 1, 21);
    check_entry(&r, 0, 0, 8, 13, true);
    /* Another text enters the blocks. */
    draft_run_enter(r.d, r.blocks[0], 0, 20);
    guess(&r, 1, 21);
    check_entry(&r, 0, 0, 0, 21, true);
    rig_close(&r);
}
END_TEST

START_TEST(a_block_that_two_sequences_share_is_computed_by_one) {
    rig r;
    rig_open(&r, 0.05);
    r.blocks[1][0] = r.blocks[0][0], r.blocks[1][1] = r.blocks[0][1];
    ck_assert_uint_gt(guess(&r, 2, 20), 0);
    check_entry(&r, 0, 0, 0, 20, true);
    check_entry(&r, 0, 1, 16, 4, true);
    rig_close(&r);
}
END_TEST

START_TEST(nothing_is_computed_where_passes_take_as_long_as_steps) {
    rig r;
    rig_open(&r, 1);
    ck_assert_uint_eq(guess(&r, 1, 20), 0);
    ck_assert_uint_eq(r.engine.n_passes, 0);
    rig_close(&r);
}
END_TEST

START_TEST(guesses_of_a_model_that_is_unsure_are_dropped) {
    rig r;
    rig_open(&r, 0.05);
    r.engine.sure = 0.01f;
    for (int i = 0; i < 4; i++) {
        const uint32_t n = guess(&r, 1, 20);
        draft_run_learn(r.d, 0, n, 0);
    }
    ck_assert_uint_eq(guess(&r, 1, 20), 0);
    rig_close(&r);
}
END_TEST

START_TEST(passes_whose_guesses_are_not_worth_a_row_are_given_up) {
    rig r;
    uint32_t n_passes = 0;
    rig_open(&r, 0.05);
    learn_times(&r, 290);
    r.engine.sure = 0.4f;
    for (int i = 0; i < 30; i++) {
        ck_assert_uint_eq(guess(&r, SEQS, 20), 0);
        n_passes += r.engine.n_passes;
    }
    ck_assert(n_passes > 0 && n_passes <= 3);
    rig_close(&r);
}
END_TEST

START_TEST(an_objective_bounds_passes_and_the_rows_of_what_is_known) {
    rig r;
    rig_open(&r, 0.05);
    ck_assert_uint_eq(guess(&r, 1, 20), DRAFT);
    /* A step of one row takes 1100 us, a pass 55 and a row in it 5, a row that verifies 100. */
    ck_assert_uint_eq(guess_within(&r, 1, 21, 1100), 0);
    ck_assert_uint_eq(r.engine.n_passes, 0);
    ck_assert_uint_eq(guess_within(&r, 1, 21, 1100 + 2 * 161), 2);
    ck_assert_uint_eq(r.engine.n_passes, 2);
    /* 10 rows of a new text beside the one that guesses. */
    ck_assert_uint_eq(guess_within(&r, 1, 60, 1100 + 161 + 10 * 5), 0);
    check_entry(&r, 0, 0, 21, 11, false);
    /* While the time of a step is not known, the scheduler verifies nothing with an objective. */
    r.cost = (cost_model){0};
    ck_assert_uint_eq(guess_within(&r, 1, 60, 1e9), 0);
    ck_assert_uint_eq(r.engine.n_passes, 0);
    rig_close(&r);
}
END_TEST

START_TEST(a_draft_model_that_fails_guesses_no_more) {
    rig r;
    rig_open(&r, 0.05);
    r.engine.fails = true;
    ck_assert_uint_eq(guess(&r, 1, 20), 0);
    r.engine.fails = false;
    ck_assert_uint_eq(guess(&r, 1, 20), 0);
    ck_assert_uint_eq(r.engine.n_passes, 0);
    rig_close(&r);
}
END_TEST

CHECK_MAIN("draft_run", what_is_known_is_computed_once_and_guesses_follow_each_other,
           guesses_behind_the_blocks_of_a_sequence_lie_in_its_own_and_are_computed_again,
           a_long_text_is_computed_in_chunks_before_its_first_guess,
           what_the_target_writes_or_copies_over_is_computed_again,
           a_block_that_two_sequences_share_is_computed_by_one,
           nothing_is_computed_where_passes_take_as_long_as_steps,
           guesses_of_a_model_that_is_unsure_are_dropped,
           passes_whose_guesses_are_not_worth_a_row_are_given_up,
           an_objective_bounds_passes_and_the_rows_of_what_is_known,
           a_draft_model_that_fails_guesses_no_more)
