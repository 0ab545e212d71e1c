/* The runner between a scheduler and an engine that draws several tokens a step: whole runs reach
 * the job, the events and the scheduler, in order. */
#include "daemon/bridge/runner.h"

#include "base/check.h"
#include "tests/energy_tree.h"
#include "tests/scheduler/drive.h"

/* The text of every sequence: what stands at a position. It repeats itself after so many tokens. */
static uint32_t period = UINT32_MAX;
static int32_t word_at(uint32_t position) {
    return (int32_t)(100 + position % period);
}

/* Draws word_at for the position behind each row, and accepts drafts up to the first that is not
 * such a word. */
typedef struct fake_engine {
    engine head;
    const batch *submitted;
    sampled token[4][1 + SCHED_MAX_DRAFT];
    uint32_t n_tokens[4], n_rows; /* n_rows: of the step collected last */
    /* Of its first sequence: the slot of its state, and where it is to be written; its first copy. */
    uint32_t state, n_checkpoints;
    batch_checkpoint checkpoint[4];
    block_copy copy;
    void (*works)(void); /* what a step does besides; NULL: nothing */
} fake_engine;

static void draw_run(fake_engine *e, uint32_t i) {
    const batch_seq *s = &e->submitted->seq[i];
    const uint32_t first = s->first_pos + s->n_rows - s->n_logit_rows;
    uint32_t n = 0;
    do {
        e->token[i][n] = (sampled){.token = word_at(first + n + 1)};
        n++;
    } while (n < s->n_logit_rows && s->tokens[first + n] == word_at(first + n));
    e->n_tokens[i] = n;
}

static status fake_submit(engine *en, const batch *b, err *er) {
    (void)er;
    fake_engine *e = (fake_engine *)en;
    e->submitted = b;
    e->state = b->seq[0].state;
    e->n_checkpoints = b->seq[0].n_checkpoints;
    for (uint32_t i = 0; i < e->n_checkpoints; i++) e->checkpoint[i] = b->seq[0].checkpoints[i];
    e->copy = b->n_copies ? b->copies[0] : (block_copy){.group = UINT32_MAX};
    for (uint32_t i = 0; i < b->n_seqs; i++) draw_run((fake_engine *)en, i);
    ((fake_engine *)en)->n_rows = b->n_rows;
    return OK;
}

static status fake_collect(engine *en, step_result *out, err *er) {
    fake_engine *e = (fake_engine *)en;
    (void)er;
    if (e->works) e->works();
    *out = (step_result){
        .token = e->token[0], .n_tokens = e->n_tokens, .max_run = 1 + SCHED_MAX_DRAFT};
    return OK;
}

static void fake_info(const engine *en, engine_info *out) {
    (void)en;
    *out = (engine_info){.name = "fake", .depth = 1};
}

static const backend fake_backend = {
    .name = "fake", .submit = fake_submit, .collect = fake_collect, .info = fake_info};

/* A job that may draw nothing but the next word, and notes what it is given. */
typedef struct noting_job {
    runner_job job;
    uint32_t n_prompt, n_taken, n_asked, n_events, longest;
    int32_t taken[64], shown[64];
} noting_job;

static void note_take(runner_job *j, int32_t token) {
    noting_job *n = (noting_job *)j;
    n->taken[n->n_taken++] = token;
}

static void note_allow(runner_job *j, uint32_t *mask) {
    noting_job *n = (noting_job *)j;
    /* All tokens so far have been taken before. */
    ck_assert_uint_eq(n->n_taken, n->n_events);
    mask[0] = 1;
    n->n_asked++;
}

static void on_event(void *arg, const runner_event *e) {
    noting_job *n = (noting_job *)(uintptr_t)e->event->user;
    (void)arg;
    if (e->event->kind != EVENT_TOKEN) return;
    if (e->event->n_tokens > n->longest) n->longest = e->event->n_tokens;
    for (uint32_t i = 0; i < e->event->n_tokens; i++)
        n->shown[n->n_events++] = e->token[i].token;
}

enum { N_VOCAB = 1000 };

typedef struct rig {
    drive *d;
    fake_engine engine;
    runner *r;
    void *mem;
} rig;

static void rig_open_with(rig *g, const sched_config *c, uint32_t max_draft) {
    *g = (rig){.d = drive_new(*c), .engine.head.backend = &fake_backend};
    const size_t bytes = runner_bytes(&g->d->cfg, N_VOCAB, max_draft);
    g->mem = aligned_alloc(64, align_up(bytes, 64));
    memset(g->mem, 0, bytes);
    g->r = runner_init(g->mem, &g->d->cfg, N_VOCAB, max_draft, g->d->s, &g->engine.head,
                       on_event, NULL);
}

static void rig_open(rig *g) {
    const sched_config c = drive_config();
    rig_open_with(g, &c, 0);
}

static void rig_close(rig *g) {
    free(g->mem);
    drive_free(g->d);
}

static sched_id submit(rig *g, noting_job *n, uint32_t max_tokens, bool lockstep) {
    sched_spec spec = drive_spec(g->d, 6, max_tokens);
    sched_id id;
    *n = (noting_job){.n_prompt = 6, .job.take = note_take};
    if (lockstep) n->job.allow = note_allow;
    spec.user = (uint64_t)(uintptr_t)&n->job, spec.lockstep = lockstep;
    ck_assert_int_eq(sched_submit(g->d->s, &spec, 0, &id), REJECT_NONE);
    runner_deliver(g->r);
    return id;
}

static void check_text(const noting_job *n, uint32_t n_tokens) {
    ck_assert(n->n_taken == n_tokens && n->n_events == n_tokens);
    for (uint32_t i = 0; i < n_tokens; i++)
        ck_assert(n->taken[i] == word_at(n->n_prompt + i) && n->shown[i] == n->taken[i]);
}

START_TEST(runs_reach_the_job_and_the_events_whole_and_in_order) {
    rig g;
    noting_job fast, slow;
    rig_open(&g);
    const sched_id id = submit(&g, &fast, 12, false);
    submit(&g, &slow, 12, false);
    ck_assert(runner_step(g.r)); /* the prompts, and a token each */
    const int32_t right[] = {word_at(7), word_at(8), word_at(9), 1, word_at(11)};
    ck_assert_uint_eq(sched_draft(g.d->s, id, right, 5, false), 5);
    ck_assert(runner_step(g.r));
    ck_assert_uint_eq(g.engine.n_rows, 7);
    check_text(&fast, 5); /* three guesses and the token behind them */
    check_text(&slow, 2);
    ck_assert(fast.longest == 4 && slow.longest == 1);
    while (runner_step(g.r)) {
    }
    check_text(&fast, 12);
    check_text(&slow, 12);
    rig_close(&g);
}
END_TEST

/* There is no commit before it, and the time since the machine's boot says nothing of a step. */
START_TEST(the_first_step_is_no_measure_of_the_others) {
    rig g;
    noting_job n;
    sched_stats st;
    rig_open(&g);
    submit(&g, &n, 3, false);
    for (uint64_t steps = 0; steps < 3; steps++) {
        ck_assert(runner_step(g.r));
        sched_read(g.d->s, &st);
        ck_assert_uint_eq(st.cost.n, steps);
    }
    rig_close(&g);
}
END_TEST

START_TEST(what_a_run_took_is_known_before_the_next_mask) {
    rig g;
    noting_job n;
    rig_open(&g);
    const sched_id id = submit(&g, &n, 9, true);
    ck_assert(runner_step(g.r));
    const int32_t right[] = {word_at(7), word_at(8)};
    ck_assert_uint_eq(sched_draft(g.d->s, id, right, 2, false), 2);
    while (runner_step(g.r)) {
    }
    check_text(&n, 9);
    ck_assert(n.longest == 3 &&
              n.n_asked == 7); /* a row for the run, one for each other token */
    rig_close(&g);
}
END_TEST

/* A prompt of 6 tokens in blocks and chunks of 4: a checkpoint behind the first, from which the same prompt
 * begins again. */
START_TEST(states_reach_the_engine) {
    rig g;
    noting_job one, two;
    sched_config c = drive_config();
    c.prefix_cache = true;
    c.state_slots = c.max_seqs + 4, c.state_chunk = 4;
    rig_open_with(&g, &c, 0);
    submit(&g, &one, 12, false);
    ck_assert(runner_step(g.r));
    ck_assert_uint_eq(g.engine.n_checkpoints, 1);
    ck_assert_uint_eq(g.engine.checkpoint[0].n_tokens, 4);
    ck_assert_uint_ne(g.engine.checkpoint[0].state, g.engine.state);
    ck_assert_uint_eq(g.engine.copy.group, UINT32_MAX);
    const uint32_t kept = g.engine.checkpoint[0].state;
    while (runner_step(g.r)) {
    }
    submit(&g, &two, 2, false);
    ck_assert(runner_step(g.r));
    ck_assert_uint_eq(g.engine.n_rows, 2);
    ck_assert_uint_eq(g.engine.copy.group, ENGINE_COPY_STATE);
    ck_assert(g.engine.copy.from == (int32_t)kept &&
              g.engine.copy.to == (int32_t)g.engine.state);
    while (runner_step(g.r)) {
    }
    check_text(&one, 12);
    check_text(&two, 2);
    rig_close(&g);
}
END_TEST

/* ---- guesses ---- */

static uint32_t kept;

static void keep_taken(runner_job *j) {
    kept = ((noting_job *)j)->n_taken;
}

static void back_to_taken(runner_job *j) {
    ((noting_job *)j)->n_taken = kept;
}

enum { N_VOCAB_WORDS = N_VOCAB / 32 + 1, TEXT_OVER = 26 };

/* The next word alone, and each fourth time none: so far guesses go. */
static void allow_next(runner_job *j, uint32_t *mask) {
    const noting_job *n = (const noting_job *)j;
    const int32_t next = word_at(n->n_prompt + n->n_taken);
    memset(mask, 0, N_VOCAB_WORDS * sizeof *mask);
    if (n->n_taken % 4 < 3) mask[next / 32] = 1u << next % 32;
}

static bool is_over(const runner_job *j) {
    return ((const noting_job *)j)->n_taken >= TEXT_OVER;
}

static void open_that_guesses(rig *g) {
    sched_config c = drive_config();
    c.max_model_len = 64;
    rig_open_with(g, &c, 7);
    period = 3;
}

static void close_that_guesses(rig *g) {
    rig_close(g);
    period = UINT32_MAX;
}

START_TEST(a_text_that_repeats_itself_takes_fewer_steps) {
    for (int guess = 0; guess < 2; guess++) {
        rig g;
        noting_job one, two;
        uint32_t n_steps = 0;
        open_that_guesses(&g);
        submit(&g, &one, 30, false);
        submit(&g, &two, 20, false);
        one.job.guess = two.job.guess = guess;
        while (runner_step(g.r)) n_steps++;
        check_text(&one, 30);
        check_text(&two, 20);
        ck_assert(guess ? one.longest > 3 && n_steps < 22 : one.longest == 1 && n_steps == 30);
        rig_close(&g);
    }
    period = UINT32_MAX;
}
END_TEST

START_TEST(guesses_go_as_far_as_masks_allow_and_the_text_goes) {
    rig g;
    noting_job n;
    open_that_guesses(&g);
    submit(&g, &n, 30, true);
    n.job.guess = true;
    n.job.allow = allow_next, n.job.keep = keep_taken, n.job.back = back_to_taken;
    n.job.over = is_over;
    bool ended_there = false;
    while (runner_step(g.r)) {
        ck_assert_uint_eq(n.n_taken, n.n_events); /* no guess is taken for good */
        ended_there |= n.n_events == TEXT_OVER;
    }
    check_text(&n, 30);
    ck_assert(n.longest == 4 && ended_there);
    close_that_guesses(&g);
}
END_TEST

/* Without a way back, a job with masks draws one token a step. */
START_TEST(masks_without_a_way_back_are_not_guessed) {
    rig g;
    noting_job n;
    uint32_t n_steps = 0;
    open_that_guesses(&g);
    submit(&g, &n, 30, true);
    n.job.guess = true;
    while (runner_step(g.r)) n_steps++;
    check_text(&n, 30);
    ck_assert(n.longest == 1 && n_steps == 30);
    close_that_guesses(&g);
}
END_TEST

START_TEST(a_sequence_that_ends_or_is_paused_before_the_step_is_not_guessed) {
    for (int pause = 0; pause < 2; pause++) {
        rig g;
        noting_job n;
        open_that_guesses(&g);
        const sched_id id = submit(&g, &n, 30, false);
        n.job.guess = true;
        while (n.n_events < 12) ck_assert(runner_step(g.r));
        if (pause)
            sched_pause(g.d->s, id, true);
        else
            sched_cancel(g.d->s, id, FINISH_CANCELLED);
        runner_deliver(g.r);
        if (!pause) memset(&n, 0xff, sizeof n); /* the job is another's now */
        ck_assert(!runner_step(g.r));
        if (pause) {
            sched_pause(g.d->s, id, false);
            while (runner_step(g.r)) {
            }
            check_text(&n, 30);
        }
        close_that_guesses(&g);
    }
}
END_TEST

/* ---- energy ---- */

/* A counter that each step of the fake engine moves on by 7 J. */
static energy_tree tree;
static uint64_t microjoules;

static void use_energy(void) {
    energy_set(&tree, 0, microjoules += 7000000);
}

START_TEST(the_energy_of_a_step_is_shared_by_rows) {
    rig g;
    noting_job asks, other;
    double joules = 0;
    energy_tree_open(&tree);
    energy_add(&tree, 0, "package-0\n");
    use_energy();
    ck_assert_uint_eq(energy_open(tree.root), 1);
    rig_open(&g);
    g.engine.works = use_energy;
    submit(&g, &other, 2, false);
    ck_assert(runner_step(g.r)); /* of this one nothing is measured */
    submit(&g, &asks, 2, false);
    asks.job.energy = &joules;
    ck_assert(runner_step(g.r)); /* a prompt of 6 tokens beside a row */
    ck_assert_double_eq_tol(joules, 6, 1e-9);
    ck_assert(runner_step(g.r)); /* alone */
    ck_assert_double_eq_tol(joules, 13, 1e-9);
    rig_close(&g);
    energy_tree_close(&tree);
}
END_TEST

CHECK_MAIN("runner", the_energy_of_a_step_is_shared_by_rows,
           the_first_step_is_no_measure_of_the_others,
           a_text_that_repeats_itself_takes_fewer_steps,
           guesses_go_as_far_as_masks_allow_and_the_text_goes,
           masks_without_a_way_back_are_not_guessed,
           a_sequence_that_ends_or_is_paused_before_the_step_is_not_guessed,
           states_reach_the_engine, runs_reach_the_job_and_the_events_whole_and_in_order,
           what_a_run_took_is_known_before_the_next_mask)
