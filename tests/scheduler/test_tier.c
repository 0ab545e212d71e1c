/* The tier below memory: the order in which its chunks go, and sequences that load and store. */
#include "scheduler/tier.h"

#include "base/hash.h"
#include "scheduler/state.h"
#include "tests/scheduler/drive.h"

enum { CHUNKS = 8 };

typedef struct forest {
    tier t;
    tier_chunk chunk[CHUNKS];
    uint32_t bucket[4]; /* few, so that they are shared */
} forest;

static prefix_hash hash_of(uint32_t n) {
    return (prefix_hash){{hash_mix(n), hash_mix(n + 1000)}};
}

static forest *forest_new(void) {
    static forest f;
    f.t = (tier){.n_chunks = CHUNKS, .n_buckets = 4, .chunk = f.chunk, .bucket = f.bucket};
    tier_init(&f.t);
    tier_audit(&f.t);
    return &f;
}

/* parent 0: none */
static bool add(forest *f, uint32_t n, uint32_t parent) {
    const prefix_hash h = hash_of(n), p = hash_of(parent);
    const bool added = tier_add(&f->t, &h, parent ? &p : NULL, 0, 1, 10);
    tier_audit(&f->t);
    return added;
}

static uint32_t find(const forest *f, uint32_t n) {
    const prefix_hash h = hash_of(n);
    return tier_find(&f->t, &h);
}

static void lose(forest *f, uint32_t n) {
    ck_assert_uint_ne(find(f, n), NO_CHUNK);
    tier_lose(&f->t, find(f, n));
    tier_audit(&f->t);
}

START_TEST(leaves_go_before_what_they_hang_on_the_least_recently_used_first) {
    forest *f = forest_new();
    ck_assert(add(f, 1, 0) && add(f, 2, 1) && add(f, 3, 2) && add(f, 4, 0) && add(f, 5, 1));
    ck_assert_uint_eq(f->t.bytes, 50);
    tier_use(&f->t, find(f, 3)); /* and 2 and 1 */
    static const uint32_t order[] = {4, 5, 3, 2, 1};
    for (uint32_t i = 0; i < 5; i++) {
        ck_assert_uint_eq(tier_coldest(&f->t, NO_CHUNK), find(f, order[i]));
        lose(f, order[i]);
    }
    ck_assert_uint_eq(tier_coldest(&f->t, NO_CHUNK), NO_CHUNK);
    ck_assert(f->t.n == 0 && f->t.bytes == 0);
}
END_TEST

START_TEST(a_chunk_needs_its_parent_and_a_place) {
    forest *f = forest_new();
    ck_assert(!add(f, 2, 1));
    ck_assert(add(f, 1, 0));
    for (uint32_t n = 2; n <= CHUNKS; n++) ck_assert(add(f, n, n - 1));
    ck_assert(!add(f, CHUNKS + 1, CHUNKS));
    ck_assert(add(f, 3, 2)); /* it is there already */
    ck_assert_uint_eq(f->t.n, CHUNKS);
}
END_TEST

START_TEST(what_is_lost_in_the_middle_is_a_gap_until_it_comes_again) {
    forest *f = forest_new();
    ck_assert(add(f, 1, 0) && add(f, 2, 1) && add(f, 3, 2) && add(f, 4, 3));
    lose(f, 2);
    lose(f, 3);
    ck_assert_uint_eq(find(f, 2), NO_CHUNK);
    ck_assert_uint_ne(find(f, 4), NO_CHUNK);
    ck_assert(f->t.n == 4 && f->t.n_gaps == 2 && f->t.bytes == 20);
    ck_assert(!add(f, 5, 2)); /* nothing hangs on a gap anew */
    ck_assert(add(f, 2, 1));
    ck_assert(f->t.n_gaps == 1 && f->t.bytes == 30);
    ck_assert_uint_eq(tier_coldest(&f->t, NO_CHUNK), find(f, 4));
    ck_assert_uint_ne(tier_coldest(&f->t, find(f, 4)), find(f, 4));
    lose(f, 4); /* and with it the gap before it */
    ck_assert(f->t.n == 2 && f->t.n_gaps == 0);
}
END_TEST

/* ---- sequences: chunks of two blocks of four tokens ---- */

static sched_config tier_config(void) {
    sched_config c = drive_config();
    c.prefix_cache = true;
    c.hash_key[0] = 17;
    c.tier_chunks = 64;
    c.tier_bytes = 1000;
    c.chunk_blocks = 2;
    c.store_tokens = 16;
    return c;
}

/* Stores all that is offered; how many chunks. */
static uint32_t store_all(drive *d, uint64_t bytes) {
    sched_chunk c;
    uint32_t n = 0;
    uint64_t hash[2];
    for (; sched_store_next(d->s, &c); n++) {
        while (sched_tier_evict(d->s, 10, hash)) {
        }
        sched_store_done(d->s, &c, bytes);
        drive_drain(d);
    }
    return n;
}

/* Fills memory with other texts, so that nothing is found there. */
static void flush(drive *d) {
    int32_t other[64];
    sched_id id;
    for (uint32_t i = 0; i < 64; i++) other[i] = (int32_t)(d->n_log * 64 + i + 5000);
    sched_spec spec = {.prompt = other, .n_prompt = 63, .max_tokens = 1, .no_tier = true};
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    drive_run(d, 100);
}

/* The next chunk to load, as done. */
static sched_chunk load_one(drive *d, uint32_t chunk, bool filled) {
    sched_chunk c;
    ck_assert(sched_load_next(d->s, &c));
    ck_assert_uint_eq(c.chunk, chunk);
    ck_assert(sched_load_blocks(d->s, &c));
    sched_load_done(d->s, &c, filled);
    drive_drain(d);
    return c;
}

START_TEST(a_text_comes_back_from_the_tier_while_others_step) {
    drive *d = drive_new(tier_config());
    sched_chunk c;
    ck_assert_uint_eq(drive_ask(d, 0, 42), 0);
    ck_assert_uint_eq(store_all(d, 10), 5);
    ck_assert_uint_eq(drive_stats(d).tier_bytes, 50);
    flush(d);
    sched_spec spec = drive_spec(d, 42, 3);
    sched_id id, other;
    spec.user = 1;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    ck_assert_ptr_null(drive_plan(d)); /* nothing to compute yet */
    ck_assert_uint_eq(drive_stats(d).n_loading, 1);
    ck_assert_uint_eq(sched_kv_blocks_of(d->s, id), 11);
    int32_t text[4] = {7, 8, 9, 10};
    sched_spec small = {.prompt = text, .n_prompt = 4, .max_tokens = 2, .user = 2};
    ck_assert_int_eq(drive_try(d, &small, &other), REJECT_NONE);
    const sched_step *st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), "p2[0..4)s");
    for (uint32_t i = 0; i < 5; i++) c = load_one(d, i, true);
    ck_assert(!sched_load_next(d->s, &c));
    const sched_event *e = drive_last(d, id, EVENT_LOADED);
    ck_assert(e && e->n_cached == 40 && e->n_loaded == 40);
    ck_assert_uint_eq(drive_cached(d, id), 0); /* when it was admitted */
    drive_commit(d, st, DRIVE_WORD);
    ck_assert_str_eq(drive_trace(st = drive_plan(d)), "d2 p1[40..42)s");
    drive_commit(d, st, DRIVE_WORD);
    drive_run(d, 10);
    e = drive_last(d, id, EVENT_ENDED);
    ck_assert(e && e->n_cached == 40 && e->n_loaded == 40 && e->finish == FINISH_LENGTH);
    ck_assert_uint_eq(drive_stats(d).count.kv_tier_hits, 40);
    ck_assert_uint_eq(drive_ask(d, 0, 42), 40); /* it is in memory now */
    drive_free(d);
}
END_TEST

START_TEST(memory_comes_first_and_the_tier_goes_on_behind_it) {
    drive *d = drive_new(tier_config());
    ck_assert_uint_eq(drive_ask(d, 0, 50), 0);
    ck_assert_uint_eq(store_all(d, 10), 6);
    flush(d);
    ck_assert_int_eq(
        drive_try(d,
                  &(sched_spec){
                      .prompt = d->prompt, .n_prompt = 13, .max_tokens = 1, .no_tier = true},
                  &(sched_id){0}),
        REJECT_NONE);
    drive_run(d, 10); /* three blocks: one chunk and a half */
    const sched_id id = drive_submit(d, 50, 1);
    ck_assert_ptr_null(drive_plan(d));
    ck_assert_uint_eq(drive_cached(d, id), 12);
    sched_chunk c = load_one(d, 1, true);
    ck_assert_uint_eq(c.first[0], 1); /* its first block is there */
    for (uint32_t i = 2; i < 6; i++) c = load_one(d, i, true);
    ck_assert_uint_eq(c.first[0], 0);
    drive_run(d, 10);
    ck_assert_uint_eq(drive_last(d, id, EVENT_ENDED)->n_cached, 48);
    ck_assert_uint_eq(drive_last(d, id, EVENT_ENDED)->n_loaded, 36);
    drive_free(d);
}
END_TEST

START_TEST(a_chunk_that_cannot_be_loaded_is_computed) {
    drive *d = drive_new(tier_config());
    drive_ask(d, 0, 42);
    store_all(d, 10);
    flush(d);
    const sched_id id = drive_submit(d, 42, 1);
    ck_assert_ptr_null(drive_plan(d));
    load_one(d, 0, true);
    load_one(d, 1, false);
    const sched_step *st = drive_plan(d);
    ck_assert_str_eq(drive_trace(st), "p0[8..24)"); /* what was loaded stays found */
    ck_assert_uint_eq(drive_last(d, id, EVENT_LOADED)->n_cached, 8);
    drive_commit(d, st, DRIVE_WORD);
    drive_run(d, 10);
    ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
    ck_assert_uint_eq(drive_count(d, id, EVENT_PREEMPTED), 0);
    ck_assert_uint_eq(drive_stats(d).count.kv_tier_load_errors, 1);
    ck_assert_uint_eq(drive_stats(d).tier_chunks, 4);
    ck_assert_uint_eq(store_all(d, 10), 0); /* one chunk is less than is stored */
    drive_free(d);
}
END_TEST

START_TEST(a_load_that_is_late_finds_nobody) {
    for (int how = 0; how < 3; how++) {
        drive *d = drive_new(tier_config());
        sched_chunk c;
        drive_ask(d, 0, 42);
        store_all(d, 10);
        flush(d);
        const sched_id id = drive_submit(d, 42, 4);
        ck_assert_ptr_null(drive_plan(d));
        ck_assert(sched_load_next(d->s, &c));
        if (how == 0) drive_cancel(d, id);
        if (how == 1) sched_pause(d->s, id, true), drive_drain(d);
        if (how == 2) sched_pause(d->s, id, true), sched_pause(d->s, id, false), drive_drain(d);
        if (how == 2) ck_assert_ptr_null(drive_plan(d)); /* another load of the same */
        ck_assert(!sched_load_blocks(d->s, &c));
        sched_load_done(d->s, &c, true);
        drive_drain(d);
        ck_assert_uint_eq(drive_stats(d).n_loading, how == 2);
        if (how == 1) sched_pause(d->s, id, false), drive_drain(d), drive_plan(d);
        for (uint32_t i = 0; how > 0 && i < 5; i++) load_one(d, i, true);
        drive_run(d, 10);
        ck_assert_int_eq(drive_finish(d, id), how ? FINISH_LENGTH : FINISH_CANCELLED);
        drive_free(d);
    }
}
END_TEST

START_TEST(a_senior_takes_the_blocks_of_one_that_loads) {
    drive *d = drive_new(tier_config()); /* 16 blocks */
    drive_ask(d, 0, 34);
    store_all(d, 10);
    flush(d);
    int32_t text[24];
    for (int i = 0; i < 24; i++) text[i] = i;
    sched_id senior, id;
    sched_spec spec = {
        .prompt = text, .n_prompt = 24, .max_tokens = 36, .user = 9, .no_tier = true};
    ck_assert_int_eq(drive_try(d, &spec, &senior), REJECT_NONE);
    drive_step(d), drive_step(d);
    id = drive_submit(d, 34, 1); /* 9 of the 10 that are left */
    drive_step(d);
    ck_assert_uint_eq(drive_stats(d).n_loading, 1);
    for (int i = 0; i < 12; i++) drive_step(d);
    ck_assert_uint_eq(drive_count(d, id, EVENT_PREEMPTED), 1);
    ck_assert_uint_eq(drive_stats(d).n_loading, 0);
    ck_assert_uint_eq(drive_last(d, id, EVENT_PREEMPTED)->n_output, 0);
    drive_run(d, 100);
    for (uint32_t i = 0; i < 4; i++) load_one(d, i, true);
    drive_run(d, 100);
    ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
    ck_assert_uint_eq(drive_stats(d).count.recomputed_tokens, 0);
    drive_free(d);
}
END_TEST

START_TEST(what_a_preempted_one_had_is_stored_and_loaded_when_it_resumes) {
    drive *d = drive_new(tier_config()); /* 16 blocks */
    int32_t text[24];
    for (int i = 0; i < 24; i++) text[i] = i;
    sched_id senior, id;
    sched_chunk c;
    sched_spec spec = {
        .prompt = text, .n_prompt = 24, .max_tokens = 36, .user = 9, .no_tier = true};
    ck_assert_int_eq(drive_try(d, &spec, &senior), REJECT_NONE);
    drive_step(d), drive_step(d);
    id = drive_submit(d, 34, 9);
    for (int i = 0; i < 20 && drive_count(d, id, EVENT_PREEMPTED) == 0; i++) drive_step(d);
    ck_assert_uint_eq(drive_count(d, id, EVENT_PREEMPTED), 1);
    const uint32_t stored = store_all(d, 10);
    ck_assert_uint_ge(stored, 3);
    drive_run(d, 100); /* the senior takes its blocks, and ends */
    ck_assert_int_eq(drive_finish(d, senior), FINISH_LENGTH);
    ck_assert_uint_eq(drive_stats(d).n_loading, 1);
    uint32_t loaded = 0;
    for (; sched_load_next(d->s, &c); loaded++) {
        ck_assert(sched_load_blocks(d->s, &c));
        sched_load_done(d->s, &c, true);
        drive_drain(d);
    }
    ck_assert(loaded > 0 && loaded <= stored);
    drive_run(d, 100);
    ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
    ck_assert_uint_lt(drive_stats(d).count.recomputed_tokens, 34 - 8 * stored + 9);
    drive_free(d);
}
END_TEST

START_TEST(only_enough_new_tokens_are_stored_and_only_of_those_who_may) {
    drive *d = drive_new(tier_config());
    sched_id id;
    drive_ask(d, 0, 15); /* one chunk: too little */
    ck_assert_uint_eq(store_all(d, 10), 0);
    drive_ask(d, 0, 17);
    ck_assert_uint_eq(store_all(d, 10), 2);
    drive_ask(d, 0, 25); /* one chunk more than is stored */
    ck_assert_uint_eq(store_all(d, 10), 0);
    drive_ask(d, 0, 34);
    ck_assert_uint_eq(store_all(d, 10), 2);
    sched_spec spec = drive_spec(d, 34, 1);
    spec.salt = 5;
    spec.no_tier = true;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    drive_run(d, 10);
    ck_assert_uint_eq(store_all(d, 10), 0);
    drive_ask(d, 6, 34); /* another tenant's are other chunks */
    ck_assert_uint_eq(store_all(d, 10), 4);
    flush(d);
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    drive_run(d, 10); /* computes: it may not load either */
    ck_assert_int_eq(drive_finish(d, id), FINISH_LENGTH);
    drive_free(d);
}
END_TEST

START_TEST(a_store_that_fails_or_comes_too_late_is_a_miss) {
    drive *d = drive_new(tier_config());
    sched_chunk c;
    drive_ask(d, 0, 42);
    ck_assert(sched_store_next(d->s, &c));
    sched_store_done(d->s, &c, 0); /* what hangs on it is not stored either */
    ck_assert(!sched_store_next(d->s, &c));
    ck_assert_uint_eq(drive_stats(d).count.kv_tier_store_errors, 1);
    ck_assert_uint_eq(drive_stats(d).count.kv_tier_dropped, 4);
    drive_ask(d, 0, 42);
    flush(d); /* its blocks are other texts' by now */
    ck_assert_uint_eq(store_all(d, 10), 0);
    ck_assert_uint_eq(drive_stats(d).tier_chunks, 0);
    drive_free(d);
}
END_TEST

START_TEST(the_budget_holds_and_a_tier_that_is_off_is_not_there) {
    sched_config cfg = tier_config();
    cfg.tier_bytes = 35;
    drive *d = drive_new(cfg);
    drive_ask(d, 0, 26);
    ck_assert_uint_eq(store_all(d, 10), 3);
    drive_ask(d, 3, 26);
    ck_assert_uint_eq(store_all(d, 10), 3);
    ck_assert_uint_eq(drive_stats(d).count.kv_tier_evictions, 3);
    ck_assert_uint_eq(drive_stats(d).tier_bytes, 30);
    flush(d);
    sched_tier_switch(d->s, false);
    drive_ask(d, 3, 26); /* runs to its end without a load */
    sched_tier_switch(d->s, true);
    flush(d);
    sched_spec spec = drive_spec(d, 26, 1);
    sched_id id;
    spec.salt = 3;
    ck_assert_int_eq(drive_try(d, &spec, &id), REJECT_NONE);
    ck_assert_ptr_null(drive_plan(d));
    ck_assert_uint_eq(drive_stats(d).n_loading, 1);
    drive_free(d);
}
END_TEST

START_TEST(of_a_text_longer_than_the_tier_the_beginning_is_stored) {
    sched_config cfg = tier_config();
    cfg.tier_bytes = 35;
    drive *d = drive_new(cfg);
    for (uint32_t i = 1; i <= 2; i++) { /* asked again it is not written again */
        drive_ask(d, 0, 42);
        store_all(d, 10);
        ck_assert_uint_eq(drive_stats(d).tier_chunks, 3);
        ck_assert_uint_eq(drive_stats(d).count.kv_tier_stores, 3);
        ck_assert_uint_eq(drive_stats(d).count.kv_tier_evictions, 0);
        ck_assert_uint_eq(drive_stats(d).count.kv_tier_store_errors, 0);
        ck_assert_uint_eq(drive_stats(d).count.kv_tier_dropped, 2 * i);
    }
    drive_free(d);
}
END_TEST

START_TEST(a_chunk_whose_parent_is_lost_while_it_is_written_is_not_kept) {
    drive *d = drive_new(tier_config());
    sched_chunk c;
    drive_ask(d, 0, 26);
    ck_assert_uint_eq(store_all(d, 10), 3);
    drive_ask(d, 0, 42);
    ck_assert(sched_store_next(d->s, &c) && c.chunk == 3);
    flush(d);
    drive_submit(d, 42, 1);
    ck_assert_ptr_null(drive_plan(d));
    load_one(d, 0, true);
    load_one(d, 1, true);
    load_one(d, 2, false); /* its file cannot be read */
    ck_assert(!sched_store_done(d->s, &c, 10));
    ck_assert_uint_eq(drive_stats(d).tier_chunks, 2);
    ck_assert_uint_eq(drive_stats(d).count.kv_tier_store_errors, 0);
    drive_run(d, 10);
    drive_free(d);
}
END_TEST

/* A second group sees 6 tokens: of it only the last chunk is needed, and only it can be stored. */
START_TEST(of_a_window_a_hit_needs_what_the_next_row_sees) {
    sched_config cfg = tier_config();
    cfg.n_groups = 2;
    cfg.group[1] = (sched_group){.n_blocks = 40, .window = 6};
    drive *d = drive_new(cfg);
    sched_chunk c;
    uint32_t with_window = 0, n = 0;
    drive_ask(d, 0, 42);
    for (; sched_store_next(d->s, &c); n++) {
        with_window += c.groups >> 1;
        ck_assert_uint_eq(c.groups & 1, 1);
        sched_store_done(d->s, &c, 10);
    }
    ck_assert_uint_eq(n, 5);
    ck_assert_uint_eq(with_window, 5); /* that pool is large: nothing of it is forgotten */
    for (int i = 0; i < 4; i++) flush(d);
    const sched_id id = drive_submit(d, 42, 1);
    ck_assert_ptr_null(drive_plan(d));
    for (uint32_t i = 0; i < 5; i++) {
        c = load_one(d, i, true);
        ck_assert_uint_eq(c.first[1], i == 4 ? 0 : 2);
        ck_assert_uint_eq(c.groups, i == 4 ? 3 : 1);
    }
    drive_run(d, 10);
    ck_assert_uint_eq(drive_last(d, id, EVENT_ENDED)->n_cached, 40);
    drive_free(d);
}
END_TEST

START_TEST(a_hit_ends_where_the_window_was_stored) {
    sched_config cfg = tier_config();
    cfg.n_groups = 2;
    cfg.group[1] = (sched_group){.n_blocks = 40, .window = 6};
    drive *d = drive_new(cfg);
    sched_chunk c;
    drive_ask(d, 0, 42);
    while (sched_store_next(d->s, &c)) {
        if (c.chunk != 2) c.groups = 1; /* as if they had been out of sight */
        sched_store_done(d->s, &c, 10);
    }
    for (int i = 0; i < 4; i++) flush(d);
    const sched_id id = drive_submit(d, 42, 1);
    ck_assert_ptr_null(drive_plan(d));
    for (uint32_t i = 0; i < 3; i++) load_one(d, i, true);
    drive_run(d, 10);
    ck_assert_uint_eq(drive_last(d, id, EVENT_ENDED)->n_cached, 24);
    ck_assert_uint_eq(store_all(d, 10), 2); /* now with it */
    drive_free(d);
}
END_TEST

CHECK_MAIN("tier", leaves_go_before_what_they_hang_on_the_least_recently_used_first,
           a_chunk_needs_its_parent_and_a_place,
           what_is_lost_in_the_middle_is_a_gap_until_it_comes_again,
           a_text_comes_back_from_the_tier_while_others_step,
           memory_comes_first_and_the_tier_goes_on_behind_it,
           a_chunk_that_cannot_be_loaded_is_computed, a_load_that_is_late_finds_nobody,
           a_senior_takes_the_blocks_of_one_that_loads,
           what_a_preempted_one_had_is_stored_and_loaded_when_it_resumes,
           only_enough_new_tokens_are_stored_and_only_of_those_who_may,
           a_store_that_fails_or_comes_too_late_is_a_miss,
           the_budget_holds_and_a_tier_that_is_off_is_not_there,
           of_a_text_longer_than_the_tier_the_beginning_is_stored,
           a_chunk_whose_parent_is_lost_while_it_is_written_is_not_kept,
           of_a_window_a_hit_needs_what_the_next_row_sees,
           a_hit_ends_where_the_window_was_stored)
