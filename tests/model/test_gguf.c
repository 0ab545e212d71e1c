/* GGUF files: good ones are read exactly, hostile ones get an error that names the field. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/check_main.h"
#include "tests/model/gguf_build.h"

static gb b;

static void setup(void) {
    gb_init(&b);
}
static void teardown(void) {
    gb_clear(&b);
}

static gguf *opened(void) {
    char path[64];
    gguf *g;
    err e = {0};
    gb_open(&b, path);
    ck_assert_msg(gguf_open(&g, path, &e) == OK, "%s (%s)", e.text, e.field);
    return g;
}

static void refused_bytes(const void *p, size_t n, status code, const char *field,
                          const char *text) {
    err e = {0};
    gguf *g = (gguf *)&e;
    int fd = gb_memfd(p, n);
    status s = gguf_open_fd(&g, fd, "hostile.gguf", &e);
    close(fd);
    ck_assert_msg(s == code, "status %d, wanted %d: %s (%s)", s, code, e.text, e.field);
    ck_assert_int_eq(e.code, code);
    ck_assert_ptr_null(g);
    ck_assert_str_eq(e.field, field);
    ck_assert_msg(strstr(e.text, text) != NULL, "\"%s\" is not in \"%s\"", text, e.text);
}

/* The file as built is refused so. */
static void refused(status code, const char *field, const char *text) {
    gb_finish(&b);
    refused_bytes(b.file.p, b.file.n, code, field, text);
}

/* ---- good files ---- */

START_TEST(every_type_of_metadata_is_read_back) {
    gb_raw(&b, "t.u8", GGUF_U8, &(uint8_t){200}, 1);
    gb_raw(&b, "t.i8", GGUF_I8, &(int8_t){-5}, 1);
    gb_raw(&b, "t.u16", GGUF_U16, &(uint16_t){60000}, 2);
    gb_raw(&b, "t.i16", GGUF_I16, &(int16_t){-30000}, 2);
    gb_int(&b, "t.u32", 4000000000u);
    gb_raw(&b, "t.i32", GGUF_I32, &(int32_t){-7}, 4);
    gb_float(&b, "t.f32", 0.1f);
    gb_bool(&b, "t.bool", true);
    gb_strn(&b, "t.string", (str){"a\0b", 3});
    gb_raw(&b, "t.u64", GGUF_U64, &(uint64_t){1ull << 63}, 8);
    gb_raw(&b, "t.i64", GGUF_I64, &(int64_t){INT64_MIN}, 8);
    gb_raw(&b, "t.f64", GGUF_F64, &(double){1e300}, 8);
    gb_ints(&b, "t.ints", (int32_t[]){1, -2, 3}, 3);
    gb_strs(&b, "t.strings", (str[]){STR("x"), STR(""), STR("yz")}, 3);
    gguf *g = opened();
    ck_assert_uint_eq(gguf_n_kv(g), 14);
    ck_assert_uint_eq(gguf_n_tensors(g), 0);
    ck_assert_uint_eq(gguf_find(g, "t.u8")->u, 200);
    ck_assert_int_eq(gguf_find(g, "t.i8")->i, -5);
    ck_assert_uint_eq(gguf_find(g, "t.u16")->u, 60000);
    ck_assert_int_eq(gguf_find(g, "t.i16")->i, -30000);
    ck_assert_uint_eq(gguf_find(g, "t.u32")->u, 4000000000u);
    ck_assert_int_eq(gguf_find(g, "t.i32")->i, -7);
    ck_assert(gguf_find(g, "t.f32")->f == (double)0.1f);
    ck_assert_uint_eq(gguf_find(g, "t.bool")->u, 1);
    ck_assert(str_eq(gguf_find(g, "t.string")->s, (str){"a\0b", 3}));
    ck_assert_uint_eq(gguf_find(g, "t.u64")->u, 1ull << 63);
    ck_assert_int_eq(gguf_find(g, "t.i64")->i, INT64_MIN);
    ck_assert(gguf_find(g, "t.f64")->f == 1e300);
    const gguf_array ints = gguf_find(g, "t.ints")->a, strings = gguf_find(g, "t.strings")->a;
    ck_assert_uint_eq(ints.n, 3);
    ck_assert_int_eq(((const int32_t *)ints.v)[1], -2);
    ck_assert_uint_eq(strings.n, 3);
    ck_assert_uint_eq(((const str *)strings.v)[1].len, 0);
    ck_assert(str_eqz(((const str *)strings.v)[2], "yz"));
    ck_assert_ptr_null(gguf_find(g, "t.none"));
    gguf_close(g);
}
END_TEST

START_TEST(tensors_are_found_and_read_to_the_byte) {
    float m[6] = {1, 2, 3, 4, 5, 6}, got[4] = {0};
    err e;
    gb_tensor(&b, "m", DT_F32, 2, (uint64_t[]){3, 2}, m);
    gb_tensor(&b, "zeros", DT_Q4_0, 3, (uint64_t[]){64, 2, 3}, NULL);
    gguf *g = opened();
    const gguf_tensor *t = gguf_tensor_find(g, "m");
    ck_assert_ptr_eq(t, gguf_tensor_at(g, 0));
    ck_assert_uint_eq(t->bytes, 24);
    ck_assert_uint_eq(t->ne[0], 3);
    ck_assert_uint_eq(t->ne[1], 2);
    ck_assert_uint_eq(t->ne[2] * t->ne[3], 1);
    ck_assert_int_eq(gguf_read(g, t, 8, got, 16, &e), OK);
    ck_assert(memcmp(got, m + 2, 16) == 0);
    ck_assert_uint_eq(gguf_tensor_find(g, "zeros")->bytes, 6ull * 2 * 18);
    ck_assert_ptr_null(gguf_tensor_find(g, "mm"));
    ck_assert_uint_eq(gguf_file_bytes(g), b.file.n);
    ck_assert_uint_eq(gguf_n_parts(g), 1);
    gguf_close(g);
}
END_TEST

START_TEST(a_file_that_is_written_to_meanwhile_is_noticed) {
    char path[] = "/tmp/vramd-test-XXXXXX", memory[64];
    int fd = mkstemp(path);
    const struct timespec early[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    checkpoint *c;
    gb b;
    err e;
    ck_assert_int_ge(fd, 0);
    gb_init(&b);
    gb_str(&b, "general.architecture", "llama");
    gb_open(&b, memory);
    ck_assert_int_eq(write(fd, b.file.p, b.file.n), (ssize_t)b.file.n);
    ck_assert_int_eq(checkpoint_open(&c, path, &e), OK);
    ck_assert_int_eq(checkpoint_unchanged(c, &e), OK);
    ck_assert_int_eq(futimens(fd, early), 0);
    ck_assert_int_eq(checkpoint_unchanged(c, &e), ERR_IO);
    ck_assert_str_eq(e.field, "model");
    checkpoint_close(c);
    ck_assert_int_eq(checkpoint_open(&c, path, &e), OK);
    ck_assert_int_eq(write(fd, "x", 1), 1);
    ck_assert_int_eq(futimens(fd, early), 0); /* the time alone would not do */
    ck_assert_int_eq(checkpoint_unchanged(c, &e), ERR_IO);
    checkpoint_close(c);
    gb_clear(&b);
    close(fd);
    unlink(path);
}
END_TEST

START_TEST(version_2_is_read_too) {
    b.version = 2;
    gb_int(&b, "k", 1);
    gguf *g = opened();
    ck_assert_uint_eq(gguf_version(g), 2);
    gguf_close(g);
}
END_TEST

START_TEST(another_alignment_moves_the_data) {
    b.alignment = 256;
    gb_int(&b, "general.alignment", 256);
    gb_tensor(&b, "a", DT_F32, 1, (uint64_t[]){1}, &(float){7});
    gb_tensor(&b, "b", DT_F32, 1, (uint64_t[]){1}, &(float){8});
    gguf *g = opened();
    float f;
    err e;
    ck_assert_uint_eq(gguf_tensor_find(g, "b")->offset % 256, 0);
    ck_assert_int_eq(gguf_read(g, gguf_tensor_find(g, "b"), 0, &f, 4, &e), OK);
    ck_assert(f == 8);
    ck_assert_uint_eq(gguf_alignment(g), 256);
    gguf_close(g);
}
END_TEST

START_TEST(typed_look_ups_accept_what_fits_and_name_the_key) {
    gb_raw(&b, "i64", GGUF_I64, &(int64_t){77}, 8);
    gb_raw(&b, "negative", GGUF_I32, &(int32_t){-1}, 4);
    gb_raw(&b, "big", GGUF_U64, &(uint64_t){1ull << 32}, 8);
    gb_raw(&b, "f64", GGUF_F64, &(double){0.5}, 8);
    gb_str(&b, "text", "x");
    gb_bool(&b, "yes", true);
    gb_ints(&b, "ints", (int32_t[]){1}, 1);
    gguf *g = opened();
    uint32_t u = 9;
    float f = 9;
    bool yes = false;
    str s = STR("untouched");
    gguf_array a;
    err e;
    ck_assert_int_eq(gguf_get_u32(g, "i64", &u, &e), OK);
    ck_assert_uint_eq(u, 77);
    ck_assert_int_eq(gguf_get_u32(g, "absent", &u, &e), OK);
    ck_assert_uint_eq(u, 77);
    ck_assert_int_eq(gguf_get_u32(g, "negative", &u, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "negative");
    ck_assert_int_eq(gguf_get_u32(g, "big", &u, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "big");
    ck_assert_int_eq(gguf_get_u32(g, "text", &u, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "text");
    ck_assert_int_eq(gguf_get_u32(g, "yes", &u, &e), ERR_FORMAT);
    ck_assert_int_eq(gguf_get_f32(g, "f64", &f, &e), OK);
    ck_assert(f == 0.5f);
    ck_assert_int_eq(gguf_get_f32(g, "i64", &f, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "i64");
    ck_assert_int_eq(gguf_get_bool(g, "yes", &yes, &e), OK);
    ck_assert(yes);
    ck_assert_int_eq(gguf_get_bool(g, "text", &yes, &e), ERR_FORMAT);
    ck_assert_int_eq(gguf_get_str(g, "absent", &s, &e), OK);
    ck_assert(str_eqz(s, "untouched"));
    ck_assert_int_eq(gguf_get_str(g, "ints", &s, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "ints");
    ck_assert_int_eq(gguf_get_array(g, "ints", GGUF_I32, &a, &e), OK);
    ck_assert_int_eq(gguf_get_array(g, "ints", GGUF_STRING, &a, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "ints");
    ck_assert_int_eq(gguf_get_array(g, "text", GGUF_I32, &a, &e), ERR_FORMAT);
    gguf_close(g);
}
END_TEST

START_TEST(a_file_that_shrinks_after_opening_is_an_input_error) {
    float out[64];
    err e;
    gb_tensor(&b, "m", DT_F32, 1, (uint64_t[]){64}, NULL);
    gguf *g = opened();
    ck_assert_int_eq(ftruncate(b.fd, (off_t)b.file.n - 8), 0);
    ck_assert_int_eq(gguf_read(g, gguf_tensor_at(g, 0), 0, out, sizeof out, &e), ERR_IO);
    ck_assert_str_eq(e.field, "m");
    gguf_close(g);
}
END_TEST

/* ---- hostile files ---- */

START_TEST(a_missing_file_is_not_found) {
    gguf *g;
    err e;
    ck_assert_int_eq(gguf_open(&g, "/nonexistent/model.gguf", &e), ERR_NOT_FOUND);
    ck_assert_ptr_null(g);
    ck_assert_int_eq(gguf_open(&g, "/tmp", &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.text, "regular file"));
    ck_assert_int_eq(gguf_open(&g, "/dev/zero", &e), ERR_INVALID);
}
END_TEST

START_TEST(a_fifo_is_refused_without_waiting_for_a_writer) {
    char dir[] = "/tmp/vramd-gguf-XXXXXX", path[64];
    gguf *g;
    err e;
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/fifo", dir);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(gguf_open(&g, path, &e), ERR_INVALID);
    unlink(path);
    rmdir(dir);
}
END_TEST

START_TEST(another_magic_or_version_is_named) {
    refused_bytes("", 0, ERR_FORMAT, "magic", "ends early");
    refused_bytes("GGU", 3, ERR_FORMAT, "magic", "ends early");
    refused_bytes("GGML\3\0\0\0", 8, ERR_FORMAT, "magic", "47 47 4d 4c");
    refused_bytes("GGUF\3\0", 6, ERR_FORMAT, "version", "ends early");
    refused_bytes("GGUF\1\0\0\0", 8, ERR_UNSUPPORTED, "version", "version 1");
    refused_bytes("GGUF\4\0\0\0", 8, ERR_UNSUPPORTED, "version", "version 4");
    refused_bytes("GGUF\0\0\0\0", 8, ERR_UNSUPPORTED, "version", "version 0");
    refused_bytes("GGUF\0\0\0\3", 8, ERR_UNSUPPORTED, "version", "big-endian");
}
END_TEST

START_TEST(counts_that_the_file_cannot_hold_are_refused_before_memory_is_taken) {
    gb_int(&b, "k", 1);
    const uint64_t huge[] = {100, 1ull << 32, 1ull << 62, UINT64_MAX};
    for (size_t i = 0; i < 4; i++) {
        gb_finish_counts(&b, huge[i], 1);
        refused_bytes(b.file.p, b.file.n, ERR_FORMAT, "tensor_count", "do not fit");
        gb_finish_counts(&b, 0, huge[i]);
        refused_bytes(b.file.p, b.file.n, ERR_FORMAT, "kv_count", "do not fit");
    }
}
END_TEST

START_TEST(counts_above_the_limit_are_refused_however_large_the_file) {
    err e;
    gguf *g;
    for (int which = 0; which < 2; which++) { /* a sparse file of 1 TiB costs nothing */
        gb_finish_counts(&b, which ? 0 : 1u << 30, which ? 1u << 30 : 0);
        int fd = gb_memfd(b.file.p, b.file.n);
        ck_assert_int_eq(ftruncate(fd, (off_t)1 << 40), 0);
        ck_assert_int_eq(gguf_open_fd(&g, fd, "sparse", &e), ERR_FORMAT);
        ck_assert_str_eq(e.field, which ? "kv_count" : "tensor_count");
        ck_assert_ptr_nonnull(strstr(e.text, "limit"));
        close(fd);
    }
}
END_TEST

START_TEST(a_header_of_gigabytes_is_refused_however_large_the_file) {
    err e;
    gguf *g;
    gb_array(&b, "a", GGUF_U8, 1ull << 36, NULL, 0);
    gb_finish(&b);
    int fd = gb_memfd(b.file.p, b.file.n);
    ck_assert_int_eq(ftruncate(fd, (off_t)1 << 40), 0);
    ck_assert_int_eq(gguf_open_fd(&g, fd, "sparse", &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "a");
    ck_assert_ptr_nonnull(strstr(e.text, "larger than 256 MiB"));
    close(fd);
}
END_TEST

START_TEST(every_truncation_of_a_good_file_is_refused) {
    gb_str(&b, "general.architecture", "llama");
    gb_bool(&b, "yes", true);
    gb_strs(&b, "tokens", (str[]){STR("a"), STR("bc")}, 2);
    gb_ints(&b, "types", (int32_t[]){1, 2}, 2);
    gb_tensor(&b, "m", DT_F32, 2, (uint64_t[]){4, 2}, NULL);
    gb_tensor(&b, "n", DT_Q8_0, 1, (uint64_t[]){32}, NULL);
    gb_finish(&b);
    for (size_t n = 0; n < b.file.n; n++) {
        /* An exact copy, so that a sanitizer sees a read past the end. */
        unsigned char *p = malloc(n + 1);
        err e = {0};
        gguf *g;
        memcpy(p, b.file.p, n);
        int fd = gb_memfd(p, n);
        ck_assert_msg(gguf_open_fd(&g, fd, "cut", &e) == ERR_FORMAT, "cut at %zu", n);
        ck_assert_msg(e.field[0] != '\0', "no field, cut at %zu: %s", n, e.text);
        close(fd);
        free(p);
    }
    gguf_close(opened());
}
END_TEST

START_TEST(a_key_that_is_no_name_is_refused) {
    gb_int(&b, "", 1);
    refused(ERR_FORMAT, "metadata[0].key", "printable ASCII");
    teardown();
    gb_int(&b, "ok", 1);
    gb_int(&b, "with\033escape", 1);
    refused(ERR_FORMAT, "metadata[1].key", "printable ASCII");
    teardown();
    gb_text(&b.kv, (str){"a\0b", 3});
    gb_u32(&b.kv, GGUF_BOOL);
    gb_put(&b.kv, NULL, 1);
    b.n_kv = 1;
    refused(ERR_FORMAT, "metadata[0].key", "printable ASCII");
}
END_TEST

START_TEST(a_string_past_the_end_names_its_key) {
    gb_raw(&b, "general.name", GGUF_STRING, &(uint64_t){1ull << 60}, 8);
    refused(ERR_FORMAT, "general.name", "past the end");
    teardown();
    gb_u64(&b.kv, UINT64_MAX); /* the length of a key */
    gb_put(&b.kv, NULL, 32);
    b.n_kv = 1;
    refused(ERR_FORMAT, "metadata[0].key", "past the end");
    teardown();
    gb_array(&b, "tokens", GGUF_STRING, 2, (uint64_t[]){0, 4096}, 16);
    refused(ERR_FORMAT, "tokens", "past the end");
}
END_TEST

START_TEST(an_unknown_type_names_its_key) {
    gb_raw(&b, "strange", 13, &(uint64_t){1}, 8);
    refused(ERR_FORMAT, "strange", "type 13 is unknown");
    teardown();
    gb_array(&b, "strange", 99, 1, &(uint64_t){1}, 8);
    refused(ERR_FORMAT, "strange", "type 99 is unknown");
}
END_TEST

START_TEST(an_array_longer_than_the_file_names_its_key) {
    const uint64_t n[] = {1000, 1ull << 61, 1ull << 62, UINT64_MAX};
    const uint32_t type[] = {GGUF_U8, GGUF_F32, GGUF_U64, GGUF_STRING};
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 4; k++) {
            gb_array(&b, "list", type[k], n[i], NULL, 16);
            refused(ERR_FORMAT, "list", "does not fit");
            teardown();
        }
}
END_TEST

START_TEST(arrays_of_arrays_are_refused) {
    gb_array(&b, "nested", GGUF_ARRAY, 1, (uint32_t[]){GGUF_U8, 0, 0}, 12);
    refused(ERR_FORMAT, "nested", "arrays of arrays");
}
END_TEST

START_TEST(a_boolean_is_0_or_1) {
    gb_raw(&b, "flag", GGUF_BOOL, &(uint8_t){2}, 1);
    refused(ERR_FORMAT, "flag", "value 2");
    teardown();
    gb_array(&b, "flags", GGUF_BOOL, 3, (uint8_t[]){0, 1, 255}, 3);
    refused(ERR_FORMAT, "flags", "value 255");
}
END_TEST

START_TEST(a_key_twice_is_refused) {
    for (int i = 0; i < 100; i++) {
        char key[16];
        snprintf(key, sizeof key, "key.%d", i);
        gb_int(&b, key, 1);
    }
    gb_str(&b, "key.37", "again");
    refused(ERR_FORMAT, "key.37", "twice");
}
END_TEST

START_TEST(an_alignment_must_be_a_power_of_two) {
    const uint32_t bad[] = {0, 3, 33, 1000, 1u << 21, 1u << 31};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gb_int(&b, "general.alignment", bad[i]);
        refused(ERR_FORMAT, "general.alignment", "power of two");
        teardown();
    }
    gb_str(&b, "general.alignment", "32");
    refused(ERR_FORMAT, "general.alignment", "not a positive integer");
    teardown();
    gb_raw(&b, "general.alignment", GGUF_I32, &(int32_t){-32}, 4);
    refused(ERR_FORMAT, "general.alignment", "not a positive integer");
}
END_TEST

static void tensor_refused(uint32_t type, uint32_t n_dims, const uint64_t *ne, uint64_t offset,
                           status code, const char *text) {
    gb_str(&b, "general.architecture", "llama");
    gb_tensor_info(&b, "blk.0.w", type, n_dims, ne, offset);
    gb_put(&b.data, NULL, 4096);
    refused(code, "blk.0.w", text);
    teardown();
}

START_TEST(a_tensor_of_wrong_shape_is_named) {
    const uint64_t n[5] = {32, 2, 2, 2, 2}, zero[2] = {32, 0};
    tensor_refused(DT_F32, 0, n, 0, ERR_FORMAT, "1 to 4 dimensions");
    tensor_refused(DT_F32, 5, n, 0, ERR_FORMAT, "1 to 4 dimensions");
    tensor_refused(DT_F32, 2, zero, 0, ERR_FORMAT, "dimension 1 is 0");
    tensor_refused(DT_Q4_0, 1, (uint64_t[]){33}, 0, ERR_FORMAT, "whole blocks of 32");
    tensor_refused(DT_Q6_K, 1, (uint64_t[]){32}, 0, ERR_FORMAT, "whole blocks of 256");
}
END_TEST

START_TEST(a_tensor_whose_size_overflows_is_named) {
    const uint64_t k = 1ull << 32;
    tensor_refused(DT_F32, 2, (uint64_t[]){k, k}, 0, ERR_FORMAT, "64 bits");
    tensor_refused(DT_F32, 3, (uint64_t[]){1, k, k}, 0, ERR_FORMAT, "64 bits");
    tensor_refused(DT_F32, 4, (uint64_t[]){1, k, 1, k}, 0, ERR_FORMAT, "64 bits");
    tensor_refused(DT_F32, 1, (uint64_t[]){1ull << 62}, 0, ERR_FORMAT, "64 bits");
}
END_TEST

START_TEST(a_tensor_of_unknown_type_names_architecture_and_type) {
    const uint64_t n[1] = {32};
    tensor_refused(4, 1, n, 0, ERR_UNSUPPORTED, "unknown type 4");
    tensor_refused(31, 1, n, 0, ERR_UNSUPPORTED, "architecture llama");
    tensor_refused(UINT32_MAX, 1, n, 0, ERR_UNSUPPORTED, "unknown type 4294967295");
}
END_TEST

START_TEST(a_misaligned_tensor_is_named) {
    tensor_refused(DT_F32, 1, (uint64_t[]){4}, 16, ERR_FORMAT, "multiple of the alignment 32");
    tensor_refused(DT_F32, 1, (uint64_t[]){4}, 1, ERR_FORMAT, "multiple of the alignment 32");
}
END_TEST

START_TEST(a_tensor_outside_the_file_is_named) {
    tensor_refused(DT_F32, 1, (uint64_t[]){1025}, 0, ERR_FORMAT, "past the end");
    tensor_refused(DT_F32, 1, (uint64_t[]){8}, 4096, ERR_FORMAT, "past the end");
    tensor_refused(DT_F32, 1, (uint64_t[]){8}, 1ull << 40, ERR_FORMAT, "past the end");
    tensor_refused(DT_F32, 1, (uint64_t[]){8}, UINT64_MAX - 31, ERR_FORMAT, "past the end");
    tensor_refused(DT_F32, 1, (uint64_t[]){1ull << 50}, 0, ERR_FORMAT, "past the end");
}
END_TEST

START_TEST(overlapping_tensors_are_named) {
    gb_tensor_info(&b, "first", DT_F32, 1, (uint64_t[]){16}, 64);
    gb_tensor_info(&b, "second", DT_F32, 1, (uint64_t[]){16}, 96);
    gb_put(&b.data, NULL, 256);
    refused(ERR_FORMAT, "second", "overlaps the data of tensor first");
    teardown();
    gb_tensor_info(&b, "one", DT_F32, 1, (uint64_t[]){8}, 0);
    gb_tensor_info(&b, "far", DT_F32, 1, (uint64_t[]){8}, 128);
    gb_tensor_info(&b, "same", DT_F32, 1, (uint64_t[]){8}, 0);
    gb_put(&b.data, NULL, 256);
    gb_finish(&b);
    err e;
    gguf *g;
    int fd = gb_memfd(b.file.p, b.file.n);
    ck_assert_int_eq(gguf_open_fd(&g, fd, "x", &e), ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.text, "overlaps"));
    close(fd);
}
END_TEST

START_TEST(a_tensor_twice_is_named) {
    gb_tensor(&b, "a", DT_F32, 1, (uint64_t[]){8}, NULL);
    gb_tensor(&b, "b", DT_F32, 1, (uint64_t[]){8}, NULL);
    gb_tensor(&b, "a", DT_F32, 1, (uint64_t[]){8}, NULL);
    refused(ERR_FORMAT, "a", "two tensors");
}
END_TEST

START_TEST(a_tensor_name_that_is_no_name_is_refused) {
    char name[80];
    memset(name, 'n', sizeof name);
    name[64] = '\0';
    gb_tensor(&b, name, DT_F32, 1, (uint64_t[]){8}, NULL); /* the longest */
    gguf_close(opened());
    name[64] = 'n', name[65] = '\0';
    gb_tensor(&b, name, DT_F32, 1, (uint64_t[]){8}, NULL);
    refused(ERR_FORMAT, "tensor[1].name", "1 to 64 printable");
    teardown();
    gb_tensor(&b, "", DT_F32, 1, (uint64_t[]){8}, NULL);
    refused(ERR_FORMAT, "tensor[0].name", "1 to 64 printable");
    teardown();
    gb_tensor(&b, "line\nbreak", DT_F32, 1, (uint64_t[]){8}, NULL);
    refused(ERR_FORMAT, "tensor[0].name", "1 to 64 printable");
}
END_TEST

START_TEST(one_flipped_byte_never_breaks_more_than_the_file) {
    gb_str(&b, "general.architecture", "llama");
    gb_strs(&b, "tokens", (str[]){STR("a"), STR("bc")}, 2);
    gb_int(&b, "general.alignment", 32);
    gb_tensor(&b, "m", DT_F32, 2, (uint64_t[]){4, 2}, NULL);
    gb_tensor(&b, "n", DT_Q8_0, 1, (uint64_t[]){32}, NULL);
    gb_finish(&b);
    const unsigned char to[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    for (size_t i = 0; i < b.file.n; i++)
        for (size_t k = 0; k < sizeof to; k++) {
            unsigned char was = b.file.p[i];
            err e = {0};
            gguf *g;
            b.file.p[i] = to[k];
            int fd = gb_memfd(b.file.p, b.file.n);
            b.file.p[i] = was;
            status s = gguf_open_fd(&g, fd, "flipped", &e);
            close(fd);
            ck_assert_msg(s == OK || (s == e.code && e.field[0]), "byte %zu = %u: %s", i, to[k],
                          e.text);
            ck_assert_int_eq(s == OK, g != NULL);
            gguf_close(g);
        }
}
END_TEST

/* ---- splits ---- */

typedef struct split {
    char dir[32], path[3][64];
} split;

static void split_part(const split *s, int i, int no, int count, int total, int n_tensors) {
    gb part;
    gb_init(&part);
    if (i == 0) gb_str(&part, "general.architecture", "llama");
    if (no >= 0) gb_raw(&part, "split.no", GGUF_U16, &(uint16_t){(uint16_t)no}, 2);
    if (count >= 0) gb_raw(&part, "split.count", GGUF_U16, &(uint16_t){(uint16_t)count}, 2);
    if (total >= 0) gb_raw(&part, "split.tensors.count", GGUF_I32, &total, 4);
    for (int k = 0; k < n_tensors; k++) {
        char name[16];
        snprintf(name, sizeof name, "t%d.%d", i, k);
        gb_tensor(&part, name, DT_F32, 1, (uint64_t[]){2}, (float[]){(float)i, (float)k});
    }
    gb_save(&part, s->path[i]);
    gb_clear(&part);
}

static void split_make(split *s) {
    char dir[] = "/tmp/vramd-split-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    memcpy(s->dir, dir, sizeof dir);
    for (int i = 0; i < 3; i++) {
        snprintf(s->path[i], 64, "%s/m-%05d-of-00003.gguf", dir, i + 1);
        split_part(s, i, i, 3, 5, i == 0 ? 0 : i == 1 ? 2 : 3);
    }
}

static void split_remove(const split *s) {
    for (int i = 0; i < 3; i++) unlink(s->path[i]);
    rmdir(s->dir);
}

static void split_refused(const split *s, int opened_part, status code, const char *field,
                          const char *text) {
    gguf *g;
    err e = {0};
    status got = gguf_open(&g, s->path[opened_part], &e);
    ck_assert_msg(got == code, "status %d: %s (%s)", got, e.text, e.field);
    ck_assert_str_eq(e.field, field);
    ck_assert_msg(strstr(e.text, text) != NULL, "\"%s\" is not in \"%s\"", text, e.text);
}

START_TEST(any_part_of_a_split_opens_all) {
    split s;
    split_make(&s);
    for (int i = 0; i < 3; i++) {
        gguf *g;
        err e;
        str arch;
        float f[2];
        ck_assert_msg(gguf_open(&g, s.path[i], &e) == OK, "%s", e.text);
        ck_assert_uint_eq(gguf_n_parts(g), 3);
        ck_assert_uint_eq(gguf_n_tensors(g), 5);
        ck_assert_int_eq(gguf_get_str(g, "general.architecture", &arch, &e), OK);
        ck_assert(str_eqz(arch, "llama"));
        const gguf_tensor *t = gguf_tensor_find(g, "t2.1");
        ck_assert_uint_eq(t->part, 2);
        ck_assert_int_eq(gguf_read(g, t, 0, f, 8, &e), OK);
        ck_assert(f[0] == 2 && f[1] == 1);
        gguf_close(g);
    }
    split_remove(&s);
}
END_TEST

START_TEST(parts_that_do_not_belong_together_are_refused) {
    split s;
    split_make(&s);
    split_part(&s, 1, 2, 3, 5, 2);
    split_refused(&s, 0, ERR_FORMAT, "split.no", "says part 2");
    split_part(&s, 1, 1, 4, 5, 2);
    split_refused(&s, 0, ERR_FORMAT, "split.count", "4 parts");
    split_refused(&s, 1, ERR_FORMAT, "split.count", "named");
    split_part(&s, 1, 1, 3, 9, 2);
    split_refused(&s, 2, ERR_FORMAT, "split.tensors.count", "says 9 tensors");
    split_part(&s, 1, 1, 3, 5, 1);
    split_refused(&s, 2, ERR_FORMAT, "split.tensors.count", "5 promised, the parts have 4");
    split_part(&s, 1, -1, 3, 5, 2);
    split_refused(&s, 0, ERR_FORMAT, "split.no", "says part 2");
    split_part(&s, 0, 0, 3, -1, 0);
    split_refused(&s, 0, ERR_FORMAT, "split.tensors.count", "missing");
    split_part(&s, 0, 0, 60000, 5, 0);
    split_refused(&s, 0, ERR_FORMAT, "split.count", "more than");
    split_remove(&s);
}
END_TEST

START_TEST(a_missing_part_is_named) {
    split s;
    split_make(&s);
    unlink(s.path[2]);
    split_refused(&s, 0, ERR_NOT_FOUND, "model", "m-00003-of-00003.gguf");
    split_remove(&s);
}
END_TEST

START_TEST(a_tensor_in_two_parts_is_refused) {
    split s;
    split_make(&s);
    gb part;
    gb_init(&part);
    gb_int(&part, "split.no", 2);
    gb_int(&part, "split.count", 3);
    for (int k = 0; k < 3; k++)
        gb_tensor(&part, (const char *[]){"t2.0", "t1.1", "t2.2"}[k], DT_F32, 1,
                  (uint64_t[]){2}, NULL);
    gb_save(&part, s.path[2]);
    gb_clear(&part);
    split_refused(&s, 0, ERR_FORMAT, "t1.1", "two tensors");
    split_remove(&s);
}
END_TEST

/* ---- the real file ---- */

START_TEST(the_real_model_opens_in_little_memory) {
    gguf *g;
    err e;
    ck_assert_msg(gguf_open(&g, test_model(), &e) == OK, "%s", e.text);
    ck_assert_uint_ge(gguf_n_tensors(g), 1);
    ck_assert_uint_lt(gguf_header_bytes(g), 16u << 20);
    gguf_close(g);
}
END_TEST

static void good(TCase *t) {
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, every_type_of_metadata_is_read_back);
    tcase_add_test(t, tensors_are_found_and_read_to_the_byte);
    tcase_add_test(t, version_2_is_read_too);
    tcase_add_test(t, a_file_that_is_written_to_meanwhile_is_noticed);
    tcase_add_test(t, another_alignment_moves_the_data);
    tcase_add_test(t, typed_look_ups_accept_what_fits_and_name_the_key);
    tcase_add_test(t, a_file_that_shrinks_after_opening_is_an_input_error);
    tcase_add_test(t, any_part_of_a_split_opens_all);
    tcase_add_test(t, the_real_model_opens_in_little_memory);
}

static void hostile(TCase *t) {
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_missing_file_is_not_found);
    tcase_add_test(t, a_fifo_is_refused_without_waiting_for_a_writer);
    tcase_add_test(t, another_magic_or_version_is_named);
    tcase_add_test(t, counts_that_the_file_cannot_hold_are_refused_before_memory_is_taken);
    tcase_add_test(t, counts_above_the_limit_are_refused_however_large_the_file);
    tcase_add_test(t, a_header_of_gigabytes_is_refused_however_large_the_file);
    tcase_add_test(t, every_truncation_of_a_good_file_is_refused);
    tcase_add_test(t, a_key_that_is_no_name_is_refused);
    tcase_add_test(t, a_string_past_the_end_names_its_key);
    tcase_add_test(t, an_unknown_type_names_its_key);
    tcase_add_test(t, an_array_longer_than_the_file_names_its_key);
    tcase_add_test(t, arrays_of_arrays_are_refused);
    tcase_add_test(t, a_boolean_is_0_or_1);
    tcase_add_test(t, a_key_twice_is_refused);
    tcase_add_test(t, an_alignment_must_be_a_power_of_two);
    tcase_add_test(t, a_tensor_of_wrong_shape_is_named);
    tcase_add_test(t, a_tensor_whose_size_overflows_is_named);
    tcase_add_test(t, a_tensor_of_unknown_type_names_architecture_and_type);
    tcase_add_test(t, a_misaligned_tensor_is_named);
    tcase_add_test(t, a_tensor_outside_the_file_is_named);
    tcase_add_test(t, overlapping_tensors_are_named);
    tcase_add_test(t, a_tensor_twice_is_named);
    tcase_add_test(t, a_tensor_name_that_is_no_name_is_refused);
    tcase_add_test(t, one_flipped_byte_never_breaks_more_than_the_file);
    tcase_add_test(t, parts_that_do_not_belong_together_are_refused);
    tcase_add_test(t, a_missing_part_is_named);
    tcase_add_test(t, a_tensor_in_two_parts_is_refused);
}

int main(void) {
    Suite *s = suite_create("gguf");
    good(check_case(s, "good files"));
    hostile(check_case(s, "hostile files"));
    return check_run(s);
}
