/* base/arena.c and base/buf.c through their headers. */
#include "tests/check_main.h"

#include "base/buf.h"

/* A source that counts, and refuses beyond a limit. */
typedef struct source {
    size_t out, limit;
    int n;
} source;
static void *take(void *self, size_t bytes, size_t *got) {
    source *s = self;
    if (s->out + bytes > s->limit) return NULL;
    *got = bytes;
    s->out += bytes;
    s->n++;
    return malloc(bytes);
}
static void give(void *self, void *p, size_t got) {
    source *s = self;
    s->out -= got;
    s->n--;
    free(p);
}

START_TEST(an_arena_gives_back_every_byte_it_took) {
    source s = {.limit = 1 << 24};
    chunks src = {&s, take, give};
    arena a;
    arena_init(&a, &src, 0);
    ck_assert_uint_eq(s.out, 0); /* nothing before the first allocation */
    for (size_t i = 0; i < 3000; i++) {
        char *p = arena_alloc(&a, i);
        ck_assert_ptr_nonnull(p);
        ck_assert_uint_eq((uintptr_t)p % 16, 0);
        memset(p, 1, i);
    }
    ck_assert_uint_eq(s.out, a.total);
    ck_assert_int_lt(s.n, 20); /* doubling: few chunks */
    arena_clear(&a);
    ck_assert_uint_eq(s.out, 0);
    ck_assert_ptr_nonnull(arena_alloc(&a, 10));
    arena_clear(&a);
    ck_assert_int_eq(s.n, 0);
}
END_TEST

START_TEST(an_arena_refuses_beyond_its_limit_and_its_source) {
    source s = {.limit = 20000};
    chunks src = {&s, take, give};
    arena a;
    arena_init(&a, &src, 10000);
    ck_assert_ptr_nonnull(arena_alloc(&a, 9000));
    ck_assert_ptr_null(arena_alloc(&a, 9000));
    ck_assert_ptr_null(arena_alloc(&a, SIZE_MAX - 5));
    ck_assert_uint_le(a.total, 10000);
    arena_clear(&a);
    arena_init(&a, &src, 0);
    ck_assert_ptr_null(arena_alloc(&a, 30000));
    ck_assert_ptr_nonnull(arena_alloc(&a, 100));
    arena_clear(&a);
    ck_assert_uint_eq(s.out, 0);
}
END_TEST

START_TEST(the_last_allocation_grows_in_place_and_others_are_copied) {
    arena a;
    arena_init(&a, chunks_heap(), 0);
    char *p = arena_alloc(&a, 10);
    memcpy(p, "0123456789", 10);
    ck_assert_ptr_eq(arena_grow(&a, p, 10, 500), p);
    char *q = arena_alloc(&a, 8);
    memset(q, 'q', 8);
    char *r = arena_grow(&a, p, 500, 900);
    ck_assert_ptr_ne(r, p);
    ck_assert_mem_eq(r, "0123456789", 10);
    ck_assert_mem_eq(q, "qqqqqqqq", 8);
    ck_assert_ptr_eq(arena_grow(&a, r, 900, 100), r);
    str s = arena_str(&a, STR("hello"));
    ck_assert_str_eq(s.ptr, "hello");
    arena_clear(&a);
}
END_TEST

START_TEST(a_buffer_collects_text_on_the_heap_and_in_an_arena) {
    arena a;
    arena_init(&a, chunks_heap(), 0);
    for (int in_arena = 0; in_arena < 2; in_arena++) {
        buf b;
        buf_init(&b, in_arena ? &a : NULL);
        ck_assert_str_eq(buf_cstr(&b), "");
        for (int i = 0; i < 1000; i++) {
            buf_addf(&b, "%d", i % 10);
            buf_addc(&b, ',');
            buf_add(&b, STR("x"));
        }
        ck_assert_uint_eq(b.len, 3000);
        ck_assert(!b.failed);
        ck_assert_uint_eq(strlen(buf_cstr(&b)), 3000);
        ck_assert_mem_eq(b.ptr + 2997, "9,x", 3);
        buf_clear(&b);
    }
    arena_clear(&a);
}
END_TEST

START_TEST(a_buffer_without_memory_says_so_once_and_stays_usable) {
    source s = {.limit = 8192};
    chunks src = {&s, take, give};
    arena a;
    buf b;
    vec_i32 v;
    arena_init(&a, &src, 0);
    buf_init(&b, &a);
    vec_i32_init(&v, &a);
    while (buf_add(&b, STR("0123456789abcdef"))) {
    }
    ck_assert(b.failed);
    ck_assert(!buf_addc(&b, 'x'));
    ck_assert_str_eq(buf_cstr(&b), "");
    size_t n = 0;
    while (vec_i32_push(&v, (int32_t)n)) n++;
    ck_assert(v.failed);
    ck_assert_uint_eq(v.n, n);
    for (size_t i = 0; i < n; i++) ck_assert_int_eq(v.v[i], (int32_t)i);
    ck_assert(!vec_i32_reserve(&v, SIZE_MAX / 2));
    arena_clear(&a);
    ck_assert_uint_eq(s.out, 0);
}
END_TEST

CHECK_MAIN("arena", an_arena_gives_back_every_byte_it_took,
           an_arena_refuses_beyond_its_limit_and_its_source,
           the_last_allocation_grows_in_place_and_others_are_copied,
           a_buffer_collects_text_on_the_heap_and_in_an_arena,
           a_buffer_without_memory_says_so_once_and_stays_usable)
