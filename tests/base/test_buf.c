/* Growable buffers, on the heap and in an arena. */
#include "tests/check_main.h"

#include <string.h>

#include "base/buf.h"

static void fill(buf *b) {
    for (int i = 0; i < 1000; i++) {
        ck_assert(buf_add(b, STR("ab")));
        ck_assert(buf_addc(b, 'c'));
        ck_assert(buf_addf(b, "%03d", i));
    }
    ck_assert_uint_eq(b->len, 6000);
    const char *z = buf_cstr(b);
    ck_assert_uint_eq(strlen(z), 6000);
    ck_assert_str_eq(z + 5994, "abc999");
    ck_assert(str_starts(buf_str(b), STR("abc000abc001")));
    ck_assert(!b->failed);
}

START_TEST(a_buffer_grows_on_the_heap) {
    buf b;
    buf_init(&b, NULL);
    fill(&b);
    buf_clear(&b);
    ck_assert(b.len == 0 && b.ptr == NULL);
    fill(&b);
    buf_clear(&b);
}
END_TEST

START_TEST(a_buffer_grows_in_an_arena_among_other_allocations) {
    arena a;
    buf b, other;
    arena_init(&a, chunks_heap(), 0);
    buf_init(&b, &a);
    fill(&b);
    buf_clear(&b);
    buf_init(&other, &a);
    for (int i = 0; i < 3000; i++) {
        ck_assert(buf_addc(&b, (char)('a' + i % 26)));
        ck_assert(buf_addc(&other, '.'));
    }
    for (int i = 0; i < 3000; i++) ck_assert_int_eq(b.ptr[i], 'a' + i % 26);
    arena_clear(&a);
}
END_TEST

START_TEST(a_failure_stays_until_the_end) {
    arena a;
    buf b;
    arena_init(&a, chunks_heap(), 300);
    buf_init(&b, &a);
    while (buf_addc(&b, 'x')) {
    }
    ck_assert(b.failed);
    size_t len = b.len;
    ck_assert(len >= 64 && len < 300);
    ck_assert(!buf_add(&b, STR("")));
    ck_assert(!buf_addf(&b, "%d", 1));
    ck_assert(!buf_reserve(&b, 0));
    ck_assert_uint_eq(b.len, len);
    ck_assert_str_eq(buf_cstr(&b), "");
    arena_clear(&a);
    arena_init(&a, chunks_heap(), 300);
    buf_init(&b, &a);
    ck_assert(!buf_reserve(&b, SIZE_MAX));
    ck_assert(b.failed);
    buf_clear(&b);
    ck_assert(!b.failed && buf_addc(&b, 'x'));
    ck_assert(!buf_reserve(&b, SIZE_MAX)); /* overflows with what is there */
    arena_clear(&a);
}
END_TEST

START_TEST(an_empty_buffer_is_an_empty_string) {
    buf b;
    buf_init(&b, NULL);
    ck_assert_uint_eq(buf_str(&b).len, 0);
    ck_assert_str_eq(buf_cstr(&b), "");
    ck_assert(buf_add(&b, (str){NULL, 0}));
    ck_assert(buf_addf(&b, "%s", ""));
    ck_assert_uint_eq(b.len, 0);
    buf_clear(&b);
}
END_TEST

START_TEST(vectors_of_ints_grow_and_fail_alike) {
    arena a;
    vec_i32 v;
    vec_i32_init(&v, NULL);
    for (int32_t i = 0; i < 10000; i++) ck_assert(vec_i32_push(&v, i));
    for (int32_t i = 0; i < 10000; i++) ck_assert_int_eq(v.v[i], i);
    ck_assert(!vec_i32_reserve(&v, SIZE_MAX / 2));
    ck_assert(v.failed && v.n == 10000 && v.v[9999] == 9999);
    ck_assert(!vec_i32_push(&v, 1));
    vec_i32_clear(&v);
    arena_init(&a, chunks_heap(), 600);
    vec_i32_init(&v, &a);
    int32_t n = 0;
    while (vec_i32_push(&v, n)) n++;
    ck_assert(v.failed && v.n == (size_t)n && n >= 16);
    arena_clear(&a);
}
END_TEST

CHECK_MAIN("buf", a_buffer_grows_on_the_heap,
           a_buffer_grows_in_an_arena_among_other_allocations, a_failure_stays_until_the_end,
           an_empty_buffer_is_an_empty_string, vectors_of_ints_grow_and_fail_alike)
