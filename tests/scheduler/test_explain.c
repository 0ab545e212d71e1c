/* Why a prompt's prefix was not found: one text for each reason. */
#include "scheduler/state.h"
#include "tests/scheduler/drive.h"

enum { N = 40 };

static sched_config explain_config(void) {
    sched_config c = drive_config();
    c.prefix_cache = true;
    c.hash_key[0] = 17;
    c.recent_tokens = 1024;
    return c;
}

static sched_spec spec_of(const int32_t *prompt, uint32_t n, const char *request) {
    return (sched_spec){.prompt = prompt, .n_prompt = n, .max_tokens = 1, .request = request};
}

static sched_id submit(drive *d, const sched_spec *spec) {
    sched_id id;
    ck_assert_int_eq(drive_try(d, spec, &id), REJECT_NONE);
    return id;
}

/* Runs a prompt to its end; why its prefix was not found. */
static sched_miss ask(drive *d, const sched_spec *spec) {
    sched_miss m;
    const sched_id id = submit(d, spec);
    const sched_step *st = drive_plan(d);
    ck_assert_ptr_nonnull(st);
    sched_explain(d->s, id, &m);
    drive_commit(d, st, DRIVE_WORD);
    drive_run(d, 100);
    return m;
}

static void fill(int32_t *text, int32_t from) {
    for (int32_t i = 0; i < N; i++) text[i] = from + i;
}

START_TEST(the_first_of_its_kind_and_its_equal) {
    drive *d = drive_new(explain_config());
    const sched_spec spec = spec_of(d->prompt, N, "a");
    sched_miss m = ask(d, &spec);
    ck_assert(m.why == WHY_FIRST_SEEN && m.at_token == 0 && m.nearest[0] == '\0');
    m = ask(d, &spec);
    ck_assert(m.why == WHY_NONE && m.nearest[0] == '\0');
    int32_t text[N];
    fill(text, 1000);
    text[0]++; /* no token in front is the same */
    const sched_spec other = spec_of(text, N, "b");
    ck_assert_int_eq(ask(d, &other).why, WHY_FIRST_SEEN);
    drive_free(d);
}
END_TEST

START_TEST(one_token_differs_and_is_named_with_its_text) {
    drive *d = drive_new(explain_config());
    int32_t text[N];
    const sched_spec first = spec_of(d->prompt, N, "first");
    ask(d, &first);
    fill(text, 1000);
    text[13] = 7;
    const sched_spec second = spec_of(text, N, "second");
    sched_miss m = ask(d, &second);
    ck_assert_int_eq(m.why, WHY_TOKENS_DIFFER);
    ck_assert_uint_eq(m.at_token, 13);
    ck_assert_str_eq(m.nearest, "first");
    ck_assert_uint_eq(m.n_old, SCHED_MISS_TOKENS);
    for (int32_t i = 0; i < SCHED_MISS_TOKENS; i++) ck_assert_int_eq(m.old[i], 1013 + i);
    /* The nearer one of two; of its end there is no more than there is. */
    text[N - 2] = 8;
    const sched_spec third = spec_of(text, N, "third");
    m = ask(d, &third);
    ck_assert(m.why == WHY_NONE); /* all full blocks but the last were there */
    text[N - 5] = 9;
    m = ask(d, &third);
    ck_assert_int_eq(m.why, WHY_TOKENS_DIFFER);
    ck_assert_uint_eq(m.at_token, N - 5);
    ck_assert_str_eq(m.nearest, "third");
    ck_assert_uint_eq(m.n_old, 6); /* with the token that was drawn */
    ck_assert_int_eq(m.old[5], DRIVE_WORD);
    drive_free(d);
}
END_TEST

START_TEST(what_goes_on_behind_an_earlier_text_is_new) {
    drive *d = drive_new(explain_config());
    int32_t text[N];
    const sched_spec first = spec_of(d->prompt, 10, "first");
    ask(d, &first);
    fill(text, 1000);
    text[10] = DRIVE_WORD; /* what was said to it */
    text[11] = 3;
    const sched_spec second = spec_of(text, N, "second");
    sched_miss m = ask(d, &second);
    ck_assert(m.why == WHY_FIRST_SEEN && m.at_token == 11);
    /* Another answer than it was: the text differs there. */
    text[10] = 4;
    m = ask(d, &second);
    ck_assert(m.why == WHY_TOKENS_DIFFER && m.at_token == 10);
    ck_assert_int_eq(m.old[0], DRIVE_WORD);
    drive_free(d);
}
END_TEST

START_TEST(blocks_that_have_gone) {
    drive *d = drive_new(explain_config()); /* 16 blocks of 4 */
    int32_t text[N];
    const sched_spec first = spec_of(d->prompt, N, "first");
    ask(d, &first);
    fill(text, 5000);
    const sched_spec other = spec_of(text, N, "other");
    ask(d, &other);
    const sched_miss m = ask(d, &first);
    ck_assert_int_eq(m.why, WHY_EVICTED);
    ck_assert_uint_lt(m.at_token, N - 4);
    ck_assert_str_eq(m.nearest, "first");
    drive_free(d);
}
END_TEST

START_TEST(blocks_that_another_is_still_computing) {
    drive *d = drive_new(explain_config());
    sched_miss m;
    const sched_spec first = spec_of(d->prompt, 12, "first"),
                     second = spec_of(d->prompt, 12, "");
    submit(d, &first);
    const sched_id id = submit(d, &second);
    drive_plan(d);
    sched_explain(d->s, id, &m);
    ck_assert_int_eq(m.why, WHY_NOT_COMPUTED);
    ck_assert_str_eq(m.nearest, "first");
    drive_free(d);
}
END_TEST

/* The salt of one client is not compared with another's, nor is a text without one. */
START_TEST(a_salt_of_its_own_is_named_and_no_other) {
    drive *d = drive_new(explain_config());
    sched_spec spec = spec_of(d->prompt, 20, "plain");
    spec.salt = spec.base_salt = 5;
    ask(d, &spec);
    spec.request = "salted";
    spec.salt = 6;
    sched_miss m = ask(d, &spec);
    ck_assert(m.why == WHY_SALT_DIFFERS && m.at_token == 0 && m.n_old == 0);
    ck_assert_str_eq(m.nearest, "plain");
    ck_assert_int_eq(ask(d, &spec).why, WHY_NONE);
    spec.salt = spec.base_salt = 8; /* another tenant's */
    ck_assert_int_eq(ask(d, &spec).why, WHY_FIRST_SEEN);
    drive_free(d);
    d = drive_new(explain_config());
    spec = spec_of(d->prompt, 20, "salted");
    spec.base_salt = 5;
    spec.salt = 6;
    ask(d, &spec);
    spec.salt = 7;
    ck_assert_int_eq(ask(d, &spec).why, WHY_FIRST_SEEN);
    spec.salt = 5;
    ck_assert_int_eq(ask(d, &spec).why, WHY_FIRST_SEEN);
    drive_free(d);
}
END_TEST

START_TEST(scored_prompts_and_no_cache_at_all) {
    drive *d = drive_new(explain_config());
    sched_spec spec = spec_of(d->prompt, 12, "first");
    ask(d, &spec);
    spec.score_prompt = true;
    ck_assert_int_eq(ask(d, &spec).why, WHY_SCORED_PROMPT);
    drive_free(d);
    sched_config c = explain_config();
    c.prefix_cache = false;
    d = drive_new(c);
    spec.prompt = d->prompt;
    ck_assert_int_eq(ask(d, &spec).why, WHY_OFF);
    drive_free(d);
}
END_TEST

START_TEST(a_window_has_lost_what_the_other_layers_have) {
    sched_config c = explain_config();
    c.depth = 1;
    c.n_groups = 2;
    c.group[0] = (sched_group){.n_blocks = 9, .window = 8};
    c.group[1] = (sched_group){.n_blocks = 200};
    drive *d = drive_new(c);
    int32_t text[N];
    const sched_spec first = spec_of(d->prompt, N, "first");
    ask(d, &first);
    fill(text, 5000);
    const sched_spec other = spec_of(text, N, "other");
    ask(d, &other);
    const sched_miss m = ask(d, &first);
    ck_assert_int_eq(m.why, WHY_WINDOW_GAP);
    ck_assert_str_eq(m.nearest, "first");
    drive_free(d);
}
END_TEST

START_TEST(a_chunk_that_could_not_be_read) {
    sched_config c = explain_config();
    sched_miss m;
    sched_chunk chunk;
    c.tier_chunks = 64;
    c.tier_bytes = 1000;
    c.chunk_blocks = 2;
    c.store_tokens = 16;
    drive *d = drive_new(c);
    int32_t text[63];
    for (int32_t i = 0; i < 63; i++) text[i] = 5000 + i;
    const sched_spec first = spec_of(d->prompt, N, "first"), other = spec_of(text, 63, "other");
    ask(d, &first);
    while (sched_store_next(d->s, &chunk)) sched_store_done(d->s, &chunk, 10);
    ask(d, &other);
    const sched_id id = submit(d, &first);
    ck_assert_ptr_null(drive_plan(d));
    ck_assert(sched_load_next(d->s, &chunk) && sched_load_blocks(d->s, &chunk));
    sched_load_done(d->s, &chunk, false);
    drive_drain(d);
    drive_plan(d);
    ck_assert_ptr_nonnull(drive_last(d, id, EVENT_LOADED));
    sched_explain(d->s, id, &m);
    ck_assert_int_eq(m.why, WHY_LOAD_FAILED);
    drive_free(d);
}
END_TEST

START_TEST(a_stale_id_and_a_waiting_sequence_have_no_reason) {
    drive *d = drive_new(explain_config());
    sched_miss m;
    const sched_spec spec = spec_of(d->prompt, N, "a");
    sched_explain(d->s, submit(d, &spec), &m);
    ck_assert_int_eq(m.why, WHY_NONE);
    sched_explain(d->s, 12345, &m);
    ck_assert_int_eq(m.why, WHY_NONE);
    drive_free(d);
}
END_TEST

/* ---- the ring ---- */

START_TEST(the_ring_keeps_the_newest_texts_whole) {
    static int32_t token[100], text[60];
    static recent_text texts[RECENT_TEXTS];
    recent r = {.cap = 100, .token = token, .text = texts};
    const int32_t *at;
    char name[8];
    for (uint32_t round = 0; round < 500; round++) {
        const uint32_t n = 1 + round * 7 % 40;
        for (uint32_t i = 0; i < n; i++) text[i] = (int32_t)(round * 100 + i);
        snprintf(name, sizeof name, "r%u", round);
        recent_add(&r, round % 3, text, n, name);
        uint32_t here = 0, held = 0;
        for (uint64_t k = 0; k <= round + 2; k++) {
            const recent_text *t = recent_get(&r, k, &at);
            if (!t) {
                ck_assert(here == 0 || k > round); /* the oldest go first */
                continue;
            }
            here++;
            held += t->n;
            ck_assert_uint_eq(t->n_all, 1 + k * 7 % 40);
            ck_assert_uint_eq(t->n, t->n_all < 25 ? t->n_all : 25);
            for (uint32_t i = 0; i < t->n; i++) ck_assert_int_eq(at[i], (int32_t)(k * 100 + i));
            snprintf(name, sizeof name, "r%u", (unsigned)k);
            ck_assert_str_eq(t->request, name);
        }
        ck_assert(here >= 1 && held <= 100);
        if (round > 20) ck_assert_uint_ge(held, 50);
    }
    const uint64_t salt = 1;
    recent_forget(&r, &salt);
    for (uint64_t k = 490; k < 500; k++) {
        const recent_text *t = recent_get(&r, k, &at);
        if (k % 3 == 1) ck_assert_ptr_null(t);
        if (k == 499) ck_assert(k % 3 == 1 || t);
    }
    recent_forget(&r, NULL);
    for (uint64_t k = 400; k < 500; k++) ck_assert_ptr_null(recent_get(&r, k, &at));
}
END_TEST

CHECK_MAIN("explain", the_first_of_its_kind_and_its_equal,
           one_token_differs_and_is_named_with_its_text,
           what_goes_on_behind_an_earlier_text_is_new, blocks_that_have_gone,
           blocks_that_another_is_still_computing, a_salt_of_its_own_is_named_and_no_other,
           scored_prompts_and_no_cache_at_all, a_window_has_lost_what_the_other_layers_have,
           a_chunk_that_could_not_be_read, a_stale_id_and_a_waiting_sequence_have_no_reason,
           the_ring_keeps_the_newest_texts_whole)
