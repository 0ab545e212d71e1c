/* Chunks in host memory: what was written comes back, and nothing else is ever taken for it. */
#include "daemon/kv/kv_host.h"

#include "tests/check_main.h"
#include "tests/daemon/kv_rig.h"

enum { PLACES = 5 };

typedef struct rig {
    kv_host h;
    void *mem;
    unsigned char *file;
} rig;

static rig r;

static void set_up(void) {
    const uint64_t bytes = kv_host_size(&kv_rig_shape, PLACES);
    r.mem = aligned_alloc(64, align_up(bytes, 64));
    ck_assert_ptr_nonnull(r.mem);
    memset(r.mem, 0x5a, bytes);
    kv_host_init(&r.h, r.mem, &kv_rig_shape, PLACES);
    r.file = kv_rig_buffer();
}

static void tear_down(void) {
    kv_host_clear(&r.h);
    free(r.mem);
    free(r.file);
}

static status put(uint64_t n) {
    kv_rig_chunk c;
    err e;
    kv_rig_make(&c, n);
    kv_rig_fill(r.file, n, kv_file_bytes(&kv_rig_shape, c.id.groups));
    return kv_host_write(&r.h, r.file, &c.id, &e);
}

/* Whether chunk n is there, and is what it was. */
static bool has(uint64_t n) {
    kv_rig_chunk c;
    uint32_t groups = 0;
    err e;
    kv_rig_make(&c, n);
    memset(r.file, 0, kv_file_bytes(&kv_rig_shape, 3));
    const status s = kv_host_read(&r.h, r.file, &c.id, &groups, &e);
    ck_assert(s == OK || s == ERR_FORMAT);
    if (s != OK) return false;
    ck_assert_uint_eq(groups, c.id.groups);
    ck_assert(kv_rig_holds(r.file, n, groups));
    return true;
}

START_TEST(chunks_come_back_until_they_are_removed) {
    for (uint64_t n = 0; n < PLACES; n++) ck_assert_int_eq(put(n), OK);
    ck_assert_int_eq(put(99), ERR_BUDGET);
    for (uint64_t n = 0; n < PLACES; n++) ck_assert(has(n));
    ck_assert(!has(99));
    kv_rig_chunk c;
    kv_rig_make(&c, 3);
    ck_assert(kv_host_remove(&r.h, c.id.hash) && !has(3));
    ck_assert(kv_host_remove(&r.h, c.id.hash)); /* nothing */
    ck_assert_int_eq(put(99), OK);
    ck_assert(has(99) && has(4) && has(0));
    ck_assert_int_eq(put(4), OK); /* in its own place again */
    ck_assert_int_eq(put(100), ERR_BUDGET);
    ck_assert(has(4));
}
END_TEST

START_TEST(many_turns_lose_no_place) {
    for (uint64_t n = 0; n < 1000; n++) {
        kv_rig_chunk c;
        if (n >= PLACES) {
            kv_rig_make(&c, n - PLACES);
            ck_assert(kv_host_remove(&r.h, c.id.hash));
        }
        ck_assert_int_eq(put(n), OK);
        for (uint64_t k = n < PLACES ? 0 : n - PLACES; k <= n; k++)
            ck_assert_int_eq(has(k), k + PLACES > n);
    }
}
END_TEST

START_TEST(another_text_or_a_changed_byte_is_no_hit) {
    kv_rig_chunk c;
    uint32_t groups;
    err e;
    ck_assert_int_eq(put(2), OK);
    kv_rig_make(&c, 2);
    c.tokens[17]++;
    ck_assert_int_eq(kv_host_read(&r.h, r.file, &c.id, &groups, &e), ERR_FORMAT);
    c.tokens[17]--;
    c.id.salt++;
    ck_assert_int_eq(kv_host_read(&r.h, r.file, &c.id, &groups, &e), ERR_FORMAT);
    c.id.salt--;
    ck_assert(has(2));
    unsigned char *all = r.mem;
    all[kv_host_size(&kv_rig_shape, PLACES) - kv_file_bytes(&kv_rig_shape, 3) * PLACES +
        5000] ^= 1;
    ck_assert(!has(2));
}
END_TEST

START_TEST(places_fit_the_bytes_that_are_given) {
    for (uint64_t bytes = 1000; bytes < 10000000; bytes += bytes / 3) {
        const uint32_t n = kv_host_places(&kv_rig_shape, bytes);
        ck_assert(n == 0 || kv_host_size(&kv_rig_shape, n) <= bytes);
        ck_assert_uint_gt(kv_host_size(&kv_rig_shape, n + 1), bytes);
    }
}
END_TEST

START_TEST(copies_pay_while_computing_takes_longer) {
    cost_model m = {0};
    ck_assert(kv_host_pays(&m, 128, 1e9)); /* nothing is known yet */
    for (int i = 0; i < 400; i++) {        /* 200 us, and 10 for each row */
        const step_work w = {.rows = 1 + i % 97, .kv = i % 13 * 100, .logit_rows = 1 + i % 3};
        cost_observe(&m, w, 200 + 10 * w.rows);
    }
    ck_assert(cost_ready(&m));
    ck_assert(kv_host_pays(&m, 128, 1300) && !kv_host_pays(&m, 128, 1700));
    ck_assert(kv_host_pays(&m, 256, 2500));
}
END_TEST

int main(void) {
    Suite *s = suite_create("kv_host");
    TCase *t = check_case(s, "kv_host");
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, chunks_come_back_until_they_are_removed);
    tcase_add_test(t, many_turns_lose_no_place);
    tcase_add_test(t, another_text_or_a_changed_byte_is_no_hit);
    tcase_add_test(t, places_fit_the_bytes_that_are_given);
    tcase_add_test(t, copies_pay_while_computing_takes_longer);
    return check_run(s);
}
