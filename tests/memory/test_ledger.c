/* memory/ledger.c and memory/pool.c through their headers. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "memory/pool.h"
#include "tests/check_main.h"

/* shared: NULL, or the ledger that it is under. */
static status open_under(ledger **out, ledger *shared, mem_class cls, uint64_t bytes, err *e) {
    terms t = {0};
    terms_add(&t, cls, TERM_EXACT, bytes, "test");
    kv_request kv = {.group = {{.n_layers = 1, .bytes_per_token = 64}},
                     .n_groups = 1,
                     .block_tokens = 16,
                     .min_tokens = 16,
                     .max_tokens = 16};
    budget b = {1ull << 30, "memory = 1GiB", false, NULL};
    plan p;
    ck_assert_int_eq(plan_solve(&p, &t, &kv, &b, e), OK);
    const status s = shared ? ledger_open_under(out, &p, shared, e) : ledger_open(out, &p, e);
    plan_clear(&p);
    terms_clear(&t);
    return s;
}

static ledger *open_with(mem_class cls, uint64_t bytes) {
    ledger *l;
    err e;
    ck_assert_int_eq(open_under(&l, NULL, cls, bytes, &e), OK);
    return l;
}

START_TEST(a_class_never_holds_more_than_its_plan) {
    ledger *l = open_with(MEM_WEIGHTS, 1000000);
    err e;
    void *a, *b;
    ledger_view v;
    ck_assert_int_eq(ledger_alloc(l, &a, MEM_WEIGHTS, 700000, "a", &e), OK);
    ck_assert_int_eq(ledger_alloc(l, &b, MEM_WEIGHTS, 300001, "b", &e), ERR_BUDGET);
    ck_assert_str_eq(e.field, "weights");
    ck_assert_int_eq(ledger_alloc(l, &b, MEM_WEIGHTS, 300000, "b", &e), OK);
    ck_assert(!ledger_reserve(l, MEM_WEIGHTS, 1));
    ck_assert(!ledger_reserve(l, MEM_HTTP, 1)); /* not in the plan at all */
    ledger_read(l, &v);
    ck_assert_uint_eq(v.cls[MEM_WEIGHTS].ledger_bytes, 1000000);
    ck_assert_uint_eq(v.cls[MEM_WEIGHTS].plan_bytes, 1000000);
    ck_assert_uint_eq(v.ledger_bytes, 1000000);
    ledger_free(l, a);
    ledger_free(l, b);
    ledger_free(l, NULL);
    ledger_read(l, &v);
    ck_assert_uint_eq(v.ledger_bytes, 0);
    ck_assert_uint_eq(v.peak_bytes, 1000000);
    ck_assert_uint_eq(v.cls[MEM_WEIGHTS].peak_bytes, 1000000);
    ledger_close(l);
}
END_TEST

START_TEST(ledgers_under_a_shared_one_never_claim_more_than_its_budget) {
    enum { KV = 1024 }; /* of open_under's plan */
    ledger *all, *a, *b;
    ledger_view v;
    void *p;
    err e;
    ck_assert_int_eq(ledger_open_shared(&all, 3 * KV + 3000000, &e), OK);
    ck_assert_int_eq(open_under(&a, all, MEM_WEIGHTS, 2000000, &e), OK);
    ck_assert_int_eq(open_under(&b, all, MEM_WEIGHTS, 1000000 + KV + 1, &e), ERR_BUDGET);
    ck_assert_str_eq(e.field, "memory");
    ck_assert_int_eq(open_under(&b, all, MEM_SCHEDULER, 1000000 + KV, &e), OK);
    ck_assert_int_eq(ledger_alloc(a, &p, MEM_WEIGHTS, 1500000, "a", &e), OK);
    ck_assert(ledger_reserve(b, MEM_SCHEDULER, 7));
    ledger_read(all, &v);
    ck_assert_uint_eq(v.plan_bytes, 3 * KV + 3000000);
    ck_assert_uint_eq(v.ledger_bytes, 1500007);
    ck_assert_uint_eq(v.cls[MEM_WEIGHTS].plan_bytes, 2000000);
    ck_assert_uint_eq(v.cls[MEM_WEIGHTS].ledger_bytes, 1500000);
    ledger_release(b, MEM_SCHEDULER, 7);
    ledger_close(b);
    ledger_free(a, p);
    ledger_read(all, &v);
    ck_assert_uint_eq(v.ledger_bytes, 0);
    ck_assert_uint_eq(v.peak_bytes, 1500007);
    ck_assert_uint_eq(v.plan_bytes, KV + 2000000);
    ck_assert_int_eq(open_under(&b, all, MEM_WEIGHTS, 1000000 + KV, &e), OK);
    ledger_close(b);
    ledger_close(a);
    ledger_close(all);
}
END_TEST

static bool is_all(const char *p, size_t n, char c) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != c) return false;
    return true;
}

START_TEST(freed_pages_are_the_next_arenas_and_count_meanwhile) {
    enum { KV = 1024, MB = 1 << 20 };
    ledger *all, *a, *b;
    ledger_view v;
    char *p, *q, *r;
    err e;
    ck_assert_int_eq(ledger_open_shared(&all, 2 * KV + 40 * MB, &e), OK);
    ck_assert_int_eq(open_under(&a, all, MEM_WEIGHTS, 20 * MB, &e), OK);
    ck_assert_int_eq(ledger_alloc_raw(a, (void **)&p, MEM_WEIGHTS, 13 * MB, "a", &e), OK);
    ck_assert_int_eq(ledger_alloc(a, (void **)&q, MEM_WEIGHTS, 7 * MB, "a", &e), OK);
    memset(p, 'p', 13 * MB);
    memset(q, 'q', 7 * MB);
    ledger_keep_pages(all, true);
    ledger_free(a, p);
    ledger_free(a, q);
    ledger_close(a);
    ledger_read(all, &v);
    ck_assert_uint_eq(v.ledger_bytes, 18 * MB); /* whole huge pages of both */
    ck_assert_uint_eq(v.cls[MEM_LOADING].ledger_bytes, 18 * MB);
    ck_assert_uint_eq(v.plan_bytes, 18 * MB);
    /* One that needs nearly all of the budget: the rest of the pages makes space. */
    ck_assert_int_eq(open_under(&b, all, MEM_WEIGHTS, 40 * MB, &e), OK);
    ck_assert_int_eq(ledger_alloc_raw(b, (void **)&p, MEM_WEIGHTS, 9 * MB, "b", &e), OK);
    ck_assert(p[0] == 'p' || p[0] == 'q'); /* as they were left */
    ledger_read(all, &v);
    ck_assert_uint_eq(v.cls[MEM_LOADING].ledger_bytes, 10 * MB);
    ck_assert_uint_eq(v.cls[MEM_WEIGHTS].ledger_bytes, 9 * MB);
    ck_assert_int_eq(ledger_alloc(b, (void **)&q, MEM_WEIGHTS, 5 * MB, "b", &e), OK);
    ck_assert(is_all(q, 5 * MB, 0));
    ck_assert(ledger_reserve(b, MEM_WEIGHTS, 22 * MB));
    ledger_read(all, &v);
    ck_assert_uint_eq(v.cls[MEM_LOADING].ledger_bytes, 4 * MB);
    ck_assert_uint_eq(v.ledger_bytes, 40 * MB);
    ck_assert_int_eq(ledger_alloc(b, (void **)&r, MEM_WEIGHTS, 4 * MB, "b", &e), OK);
    ck_assert(is_all(r, 4 * MB, 0));
    memset(p, 1, 9 * MB), memset(q, 2, 5 * MB), memset(r, 3, 4 * MB); /* three places */
    ck_assert(is_all(p, 9 * MB, 1) && is_all(q, 5 * MB, 2) && is_all(r, 4 * MB, 3));
    ledger_free(b, p), ledger_free(b, q), ledger_free(b, r);
    ledger_keep_pages(all, false);
    ledger_release(b, MEM_WEIGHTS, 22 * MB);
    ledger_read(all, &v);
    ck_assert_uint_eq(v.ledger_bytes, 0);
    ck_assert_uint_le(v.peak_bytes, 2 * KV + 40 * MB);
    ledger_close(b);
    ledger_close(all);
}
END_TEST

/* Arenas of several sizes, built of one another's pages a hundred times. */
START_TEST(pages_that_change_places_keep_their_contents) {
    enum { KV = 1024, MB = 1 << 20, N = 5 };
    ledger *all, *a;
    char *p[N];
    err e;
    ck_assert_int_eq(ledger_open_shared(&all, KV + 48 * MB, &e), OK);
    ledger_keep_pages(all, true);
    for (uint32_t round = 0; round < 100; round++) {
        ck_assert_int_eq(open_under(&a, all, MEM_WEIGHTS, 48 * MB, &e), OK);
        for (uint32_t i = 0; i < N; i++) {
            const uint32_t bytes = (2 + (7 * i + 5 * round) % 8) * MB - 4096 * (i % 2);
            ck_assert_int_eq(ledger_alloc(a, (void **)&p[i], MEM_WEIGHTS, bytes, "a", &e), OK);
            ck_assert(is_all(p[i], bytes, 0));
            memset(p[i], (int)i + 1, bytes);
        }
        for (uint32_t i = 0; i < N; i++) ck_assert(is_all(p[i], 2 * MB - 4096, (char)(i + 1)));
        for (uint32_t i = 0; i < N; i++) ledger_free(a, p[(i + round) % N]);
        ledger_close(a);
    }
    ledger_close(all);
}
END_TEST

START_TEST(arenas_are_zero_aligned_and_present_in_memory) {
    ledger *l;
    err e;
    char *p, *small;
    process_memory before, after;
    ck_assert_int_eq(ledger_open_unlimited(&l, &e), OK);
    ck_assert(process_memory_read(&before));
    uint64_t n = 24 << 20;
    ck_assert_int_eq(ledger_alloc(l, (void **)&p, MEM_KV, n, "kv", &e), OK);
    ck_assert(process_memory_read(&after));
    ck_assert_uint_ge(after.anonymous_bytes - before.anonymous_bytes, n - (1 << 20));
    ck_assert_uint_lt(after.heap_bytes - before.heap_bytes, 1 << 20); /* no arena is malloc's */
    ck_assert_uint_eq((uintptr_t)p % 4096, 0);
    for (uint64_t i = 0; i < n; i += 997) ck_assert_int_eq(p[i], 0);
    ck_assert_int_eq(ledger_alloc(l, (void **)&small, MEM_LOGITS, 100, "x", &e), OK);
    ck_assert_uint_eq((uintptr_t)small % 64, 0);
    ledger_free(l, p);
    ledger_free(l, small);
    ledger_close(l);
}
END_TEST

START_TEST(a_size_that_no_machine_has_is_an_error_and_counts_nothing) {
    ledger *l;
    err e;
    void *p;
    ledger_view v;
    ck_assert_int_eq(ledger_open_unlimited(&l, &e), OK);
    ck_assert_int_eq(ledger_alloc(l, &p, MEM_KV, 1ull << 50, "huge", &e), ERR_NO_MEMORY);
    ck_assert_str_eq(e.field, "kv");
    ledger_read(l, &v);
    ck_assert_uint_eq(v.ledger_bytes, 0);
    ledger_close(l);
}
END_TEST

START_TEST(an_arena_grows_and_shrinks_in_place) {
    const uint64_t mib = 1 << 20;
    ledger *l = open_with(MEM_WEIGHTS, 40 * mib);
    err e;
    char *p;
    ledger_view v;
    process_memory full, less, again;
    ck_assert_int_eq(
        ledger_alloc_within(l, (void **)&p, MEM_WEIGHTS, 33 * mib + 100, 48 * mib, "a", &e),
        OK);
    memset(p, 7, 33 * mib + 100);
    ck_assert(process_memory_read(&full));
    ck_assert_int_eq(ledger_resize(l, p, mib + 10, &e), OK);
    ck_assert(process_memory_read(&less));
    ck_assert_uint_ge(full.anonymous_bytes - less.anonymous_bytes, 31 * mib);
    ledger_read(l, &v);
    ck_assert_uint_eq(v.ledger_bytes, mib + 10);
    ck_assert_int_eq(ledger_resize(l, p, 40 * mib, &e), OK);
    ck_assert(process_memory_read(&again));
    ck_assert_uint_ge(again.anonymous_bytes - less.anonymous_bytes, 38 * mib);
    for (uint64_t i = 0; i < 40 * mib; i += 511) ck_assert_int_eq(p[i], i < mib + 10 ? 7 : 0);
    for (uint64_t i = mib; i < mib + 9000; i++) ck_assert_int_eq(p[i], i < mib + 10 ? 7 : 0);
    ck_assert_int_eq(ledger_resize(l, p, 40 * mib + 1, &e), ERR_BUDGET);
    ck_assert_str_eq(e.field, "weights");
    ledger_set_budget(l, 2ull << 30, MEM_WEIGHTS, 48 * mib);
    ck_assert_int_eq(ledger_resize(l, p, 48 * mib, &e), OK);
    ledger_read(l, &v);
    ck_assert_uint_eq(v.budget_bytes, 2ull << 30);
    ck_assert_uint_eq(v.cls[MEM_WEIGHTS].plan_bytes, 48 * mib);
    ck_assert_uint_eq(v.cls[MEM_WEIGHTS].ledger_bytes, 48 * mib);
    ledger_free(l, p);
    ledger_close(l);
}
END_TEST

/* Sanitizers need address space themselves: there the limit would stop them first. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifndef SANITIZED
START_TEST(growth_that_the_system_refuses_changes_nothing) {
    const uint64_t mib = 1 << 20;
    ledger *l;
    err e;
    char *p;
    ledger_view v;
    ck_assert_int_eq(ledger_open_unlimited(&l, &e), OK);
    ck_assert_int_eq(ledger_alloc_within(l, (void **)&p, MEM_KV, 4 * mib, 512 * mib, "kv", &e),
                     OK);
    memset(p, 7, 4 * mib);
    const struct rlimit little = {128 * mib, RLIM_INFINITY};
    ck_assert_int_eq(setrlimit(RLIMIT_DATA, &little), 0);
    ck_assert_int_eq(ledger_resize(l, p, 400 * mib, &e), ERR_NO_MEMORY);
    ck_assert_str_eq(e.field, "kv");
    ledger_read(l, &v);
    ck_assert_uint_eq(v.ledger_bytes, 4 * mib);
    for (uint64_t i = 0; i < 4 * mib; i += 511) ck_assert_int_eq(p[i], 7);
    ck_assert_int_eq(ledger_resize(l, p, 8 * mib, &e), OK);
    ledger_free(l, p);
    ledger_close(l);
}
END_TEST
#endif

typedef struct hammer {
    ledger *l;
    unsigned seed;
} hammer;

static void *hammer_ledger(void *arg) {
    hammer *h = arg;
    for (int i = 0; i < 20000; i++) {
        uint64_t n = (uint64_t)(rand_r(&h->seed) % 600);
        if (ledger_reserve(h->l, MEM_REQUESTS, n)) ledger_release(h->l, MEM_REQUESTS, n);
    }
    return NULL;
}

START_TEST(threads_that_reserve_at_once_never_pass_the_limit) {
    ledger *l = open_with(MEM_REQUESTS, 1000);
    pthread_t t[3];
    hammer h[3];
    ledger_view v;
    for (int i = 0; i < 3; i++) {
        h[i] = (hammer){l, (unsigned)i + 1};
        ck_assert_int_eq(pthread_create(&t[i], NULL, hammer_ledger, &h[i]), 0);
    }
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    ledger_read(l, &v);
    ck_assert_uint_eq(v.ledger_bytes, 0);
    ck_assert_uint_le(v.cls[MEM_REQUESTS].peak_bytes, 1000);
    ck_assert_uint_gt(v.cls[MEM_REQUESTS].peak_bytes, 0);
    ledger_close(l);
}
END_TEST

START_TEST(a_pool_takes_what_it_said_and_gives_all_of_it) {
    ledger *l = open_with(MEM_REQUESTS, pool_bytes(1 << 20));
    pool *p;
    err e;
    ledger_view v;
    size_t got;
    ck_assert_int_eq(pool_open(&p, l, MEM_REQUESTS, 1 << 20, &e), OK);
    ledger_read(l, &v);
    ck_assert_uint_eq(v.ledger_bytes, pool_bytes(1 << 20));
    const chunks *c = pool_chunks(p);
    void *all = c->take(c->self, 1 << 20, &got); /* the whole pool in one piece */
    ck_assert_ptr_nonnull(all);
    ck_assert_ptr_null(c->take(c->self, 1, &got));
    c->give(c->self, all, 1 << 20);
    ck_assert_ptr_null(c->take(c->self, (1 << 20) + 1, &got));
    void *one[1024];
    for (int i = 0; i < 1024; i++) {
        one[i] = c->take(c->self, 1000, &got);
        ck_assert_ptr_nonnull(one[i]);
        ck_assert_uint_eq(got, POOL_MIN_CHUNK);
        memset(one[i], i, got);
    }
    ck_assert_ptr_null(c->take(c->self, 1, &got));
    ck_assert_uint_eq(pool_used(p), pool_size(p));
    for (int i = 0; i < 1024; i += 2) c->give(c->self, one[i], POOL_MIN_CHUNK);
    ck_assert_ptr_null(c->take(c->self, 2000, &got)); /* no two neighbours are free */
    for (int i = 1; i < 1024; i += 2) c->give(c->self, one[i], POOL_MIN_CHUNK);
    all = c->take(c->self, 1 << 20, &got); /* everything has merged again */
    ck_assert_ptr_nonnull(all);
    c->give(c->self, all, got);
    ck_assert_uint_eq(pool_used(p), 0);
    ck_assert_uint_eq(pool_peak(p), pool_size(p));
    pool_close(p);
    ledger_close(l);
}
END_TEST

START_TEST(random_chunks_never_overlap_and_all_come_back) {
    ledger *l;
    pool *p;
    err e;
    enum { N = 200 };
    struct {
        unsigned char *p;
        size_t got;
    } held[N] = {0};
    unsigned seed = 7;
    ck_assert_int_eq(ledger_open_unlimited(&l, &e), OK);
    ck_assert_int_eq(pool_open(&p, l, MEM_REQUESTS, 3 * 300000, &e), OK); /* no power of two */
    const chunks *c = pool_chunks(p);
    for (int i = 0; i < 20000; i++) {
        int k = rand_r(&seed) % N;
        if (held[k].p) {
            for (size_t j = 0; j < held[k].got; j += 511) ck_assert_int_eq(held[k].p[j], k);
            c->give(c->self, held[k].p, held[k].got);
            held[k].p = NULL;
        } else if ((held[k].p =
                        c->take(c->self, (size_t)(rand_r(&seed) % 40000), &held[k].got))) {
            memset(held[k].p, k, held[k].got);
        }
    }
    for (int k = 0; k < N; k++)
        if (held[k].p) c->give(c->self, held[k].p, held[k].got);
    pool_close(p);
    ledger_close(l);
}
END_TEST

START_TEST(a_chunk_given_back_with_another_size_aborts) {
    ledger *l;
    pool *p;
    err e;
    size_t got;
    ck_assert_int_eq(ledger_open_unlimited(&l, &e), OK);
    ck_assert_int_eq(pool_open(&p, l, MEM_REQUESTS, 1 << 16, &e), OK);
    const chunks *c = pool_chunks(p);
    void *q = c->take(c->self, 100, &got);
    c->give(c->self, q, got * 2);
}
END_TEST

int main(void) {
    Suite *s = suite_create("ledger");
    TCase *c = check_case(s, "ledger");
    tcase_add_test(c, a_class_never_holds_more_than_its_plan);
    tcase_add_test(c, ledgers_under_a_shared_one_never_claim_more_than_its_budget);
    tcase_add_test(c, freed_pages_are_the_next_arenas_and_count_meanwhile);
    tcase_add_test(c, pages_that_change_places_keep_their_contents);
    tcase_add_test(c, arenas_are_zero_aligned_and_present_in_memory);
    tcase_add_test(c, a_size_that_no_machine_has_is_an_error_and_counts_nothing);
    tcase_add_test(c, an_arena_grows_and_shrinks_in_place);
#ifndef SANITIZED
    tcase_add_test(c, growth_that_the_system_refuses_changes_nothing);
#endif
    tcase_add_test(c, threads_that_reserve_at_once_never_pass_the_limit);
    tcase_add_test(c, a_pool_takes_what_it_said_and_gives_all_of_it);
    tcase_add_test(c, random_chunks_never_overlap_and_all_come_back);
    tcase_add_test_raise_signal(c, a_chunk_given_back_with_another_size_aborts, SIGABRT);
    return check_run(s);
}
