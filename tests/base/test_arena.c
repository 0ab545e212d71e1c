/* Arenas: alignment, limits, growth, and every chunk given back. */
#include "tests/check_main.h"

#include <string.h>

#include "base/arena.h"

/* A source that counts, fails on demand, and may give more than was asked for. */
typedef struct counted {
    size_t out, most, n_chunks, surplus;
} counted;

static void *counted_take(void *self, size_t bytes, size_t *got) {
    counted *c = self;
    if (c->most && c->out + bytes + c->surplus > c->most) return NULL;
    *got = bytes + c->surplus;
    c->out += *got;
    c->n_chunks++;
    return malloc(*got);
}
static void counted_give(void *self, void *p, size_t got) {
    counted *c = self;
    c->out -= got;
    c->n_chunks--;
    free(p);
}

START_TEST(an_arena_takes_nothing_until_it_is_used) {
    counted c = {0};
    chunks src = {&c, counted_take, counted_give};
    arena a;
    arena_init(&a, &src, 0);
    ck_assert_uint_eq(c.n_chunks, 0);
    arena_clear(&a);
    ck_assert_ptr_nonnull(arena_alloc(&a, 1));
    ck_assert_uint_eq(c.n_chunks, 1);
    arena_clear(&a);
    arena_clear(&a);
    ck_assert_uint_eq(c.out, 0);
    ck_assert_uint_eq(a.total, 0);
}
END_TEST

START_TEST(allocations_are_aligned_and_do_not_overlap) {
    counted c = {.surplus = 24};
    chunks src = {&c, counted_take, counted_give};
    arena a;
    enum { N = 4000 };
    static unsigned char *p[N];
    static size_t size[N];
    arena_init(&a, &src, 0);
    srand(1);
    for (int i = 0; i < N; i++) {
        size[i] = i % 500 == 0 ? 20000 : (size_t)(rand() % 100);
        p[i] = arena_alloc(&a, size[i]);
        ck_assert_uint_eq((uintptr_t)p[i] % 16, 0);
        memset(p[i], i & 255, size[i]);
    }
    for (int i = 0; i < N; i++)
        for (size_t j = 0; j < size[i]; j++) ck_assert_uint_eq(p[i][j], i & 255);
    ck_assert_uint_eq(a.total, c.out);
    ck_assert_uint_lt(c.n_chunks, 40);
    arena_clear(&a);
    ck_assert_uint_eq(c.out, 0);
}
END_TEST

START_TEST(an_arena_stays_within_its_limit) {
    for (size_t limit = 1; limit < 20000; limit += 333) {
        counted c = {0};
        chunks src = {&c, counted_take, counted_give};
        arena a;
        arena_init(&a, &src, limit);
        size_t had = 0;
        while (arena_alloc(&a, 100)) had += 112;
        ck_assert_uint_le(c.out, limit);
        ck_assert_uint_eq(a.total, c.out);
        if (limit > 200) ck_assert_uint_gt(had, limit / 2);
        ck_assert_ptr_null(arena_alloc(&a, SIZE_MAX));
        ck_assert_ptr_null(arena_alloc(&a, SIZE_MAX - 15));
        ck_assert_ptr_null(arena_alloc(&a, SIZE_MAX - 40));
        ck_assert_ptr_null(arena_alloc(&a, SIZE_MAX / 2));
        arena_clear(&a);
        ck_assert_uint_eq(c.out, 0);
        ck_assert_uint_eq(a.limit, limit);
    }
}
END_TEST

START_TEST(a_source_that_has_no_more_gives_null_and_the_rest_stays) {
    counted c = {.most = 5000};
    chunks src = {&c, counted_take, counted_give};
    arena a;
    arena_init(&a, &src, 0);
    char *p = arena_zalloc(&a, 4000);
    ck_assert_ptr_nonnull(p);
    for (int i = 0; i < 4000; i++) ck_assert_int_eq(p[i], 0);
    ck_assert_ptr_null(arena_zalloc(&a, 4000));
    ck_assert_ptr_null(arena_grow(&a, p, 4000, 8000));
    ck_assert_ptr_null(arena_str(&a, (str){p, 4000}).ptr);
    ck_assert_ptr_nonnull(arena_alloc(&a, 16));
    arena_clear(&a);
    ck_assert_uint_eq(c.out, 0);
}
END_TEST

START_TEST(the_last_allocation_grows_in_place_and_others_are_copied) {
    arena a;
    arena_init(&a, chunks_heap(), 0);
    char *p = arena_grow(&a, NULL, 0, 10);
    memcpy(p, "123456789", 10);
    ck_assert_ptr_eq(arena_grow(&a, p, 10, 5), p);
    ck_assert_ptr_eq(arena_grow(&a, p, 10, 16), p);
    ck_assert_ptr_eq(arena_grow(&a, p, 16, 1000), p);
    char *q = arena_alloc(&a, 1);
    ck_assert(q >= p + 1000);
    char *r = arena_grow(&a, p, 1000, 2000);
    ck_assert_ptr_ne(r, p);
    ck_assert_str_eq(r, "123456789");
    char *big = arena_grow(&a, r, 2000, 1 << 22); /* into a chunk of its own */
    ck_assert_str_eq(big, "123456789");
    memset(big, 1, 1 << 22);
    ck_assert_ptr_null(arena_grow(&a, big, 1 << 22, SIZE_MAX - 3));
    arena_clear(&a);
}
END_TEST

START_TEST(strings_are_copied_and_terminated) {
    arena a;
    arena_init(&a, chunks_heap(), 0);
    str s = arena_str(&a, STR("a\0b"));
    ck_assert(str_eq(s, STR("a\0b")) && s.ptr[3] == '\0');
    s = arena_str(&a, (str){NULL, 0});
    ck_assert(s.ptr && s.len == 0 && s.ptr[0] == '\0');
    arena_clear(&a);
}
END_TEST

START_TEST(an_array_doubles_and_keeps_its_items) {
    counted c = {0};
    chunks src = {&c, counted_take, counted_give};
    arena a;
    uint32_t *v = NULL, cap = 0;
    arena_init(&a, &src, 64 << 10);
    for (uint32_t n = 0; n < 1000; n++) {
        ck_assert(arena_place(&a, &v, n, &cap, sizeof *v, 3));
        ck_assert_uint_gt(cap, n);
        v[n] = n;
    }
    ck_assert_uint_eq(cap, 3 * 512);
    for (uint32_t n = 0; n < 1000; n++) ck_assert_uint_eq(v[n], n);
    uint32_t *const before = v;
    cap = 1u << 20; /* more than the limit */
    ck_assert(!arena_place(&a, &v, cap, &cap, sizeof *v, 3));
    ck_assert(v == before && cap == 1u << 20);
    arena_clear(&a);
}
END_TEST

CHECK_MAIN("arena", an_array_doubles_and_keeps_its_items,
           an_arena_takes_nothing_until_it_is_used, allocations_are_aligned_and_do_not_overlap,
           an_arena_stays_within_its_limit,
           a_source_that_has_no_more_gives_null_and_the_rest_stays,
           the_last_allocation_grows_in_place_and_others_are_copied,
           strings_are_copied_and_terminated)
