/* Files of safetensors: what the format's own library refuses is refused, and duplicate names. */
#include "model/hf/safetensors.h"
#include "tests/check_main.h"
#include "tests/model/hf_build.h"

static arena mem;
static safetensors f;
static err e;

static status open_text(const char *header, size_t data) {
    arena_init(&mem, chunks_heap(), 0);
    e = (err){0};
    return safetensors_open(&f, hf_fd(str_of(header), data), "x.safetensors", &mem, &e);
}
static void close_it(void) {
    safetensors_close(&f);
    arena_clear(&mem);
}

START_TEST(tensors_are_found_and_read) {
    ck_assert_int_eq(
        open_text("{\"__metadata__\":{\"format\":\"pt\"},"
                  "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
                  "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                  "\"none\":{\"dtype\":\"U8\",\"shape\":[0,7],\"data_offsets\":[4,4]}}  ",
                  16),
        OK);
    ck_assert_uint_eq(f.n, 3);
    const safetensor *b = safetensors_find(&f, "b");
    unsigned char got[5];
    ck_assert_ptr_nonnull(b);
    ck_assert_int_eq(b->type, DT_BF16);
    ck_assert_uint_eq(b->n_dims, 2);
    ck_assert_uint_eq(b->dim[1], 3);
    ck_assert_int_eq(safetensors_read(&f, b, 3, got, 5, &e), OK);
    ck_assert_mem_eq(got, ((unsigned char[]){7, 8, 9, 10, 11}), 5);
    ck_assert_int_eq(safetensors_find(&f, "none")->type, DT_NONE);
    ck_assert_str_eq(safetensors_find(&f, "none")->stored, "U8");
    ck_assert_ptr_null(safetensors_find(&f, "c"));
    ck_assert_int_eq(safetensors_unchanged(&f, &e), OK);
    ck_assert_int_eq(write(f.fd, "x", 1), 1);
    ck_assert_int_eq(safetensors_unchanged(&f, &e), ERR_IO);
    close_it();
}
END_TEST

#define T(name, rest) "{\"" name "\":{" rest "}}"
#define F32_4         "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"

START_TEST(malformed_headers_are_refused_by_name) {
    static const struct {
        const char *header;
        size_t data;
        status s;
        const char *field, *text;
    } bad[] = {
        {"", 0, ERR_FORMAT, "header", "not valid JSON"},
        {"[]", 0, ERR_FORMAT, "header", "no object"},
        {"{\"a\":1", 0, ERR_FORMAT, "header", "not valid JSON"},
        {T("a", F32_4), 3, ERR_FORMAT, "a", "behind the file"},
        {T("a", F32_4), 5, ERR_FORMAT, "data_offsets", "behind its last tensor"},
        {T("a", "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]"), 5, ERR_FORMAT, "a",
         "unused bytes"},
        {"{\"a\":{" F32_4 "},\"b\":{" F32_4 "}}", 4, ERR_FORMAT, "b", "overlaps"},
        {"{\"a\":{" F32_4 "},\"a\":{" F32_4 "}}", 4, ERR_FORMAT, "header", "duplicate"},
        {T("a", "\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]"), 4, ERR_FORMAT, "a",
         "another size"},
        {T("a", "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]"), 4, ERR_FORMAT, "a",
         "data_offsets"},
        {T("a", "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-1,3]"), 4, ERR_FORMAT, "a",
         "data_offsets"},
        {T("a", "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0.0,4.0]"), 4, ERR_FORMAT,
         "a", "data_offsets"},
        {T("a", "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]"), 4, ERR_FORMAT, "a",
         "data_offsets"},
        {T("a", "\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]"), 4, ERR_FORMAT, "a",
         "dimension"},
        {T("a", "\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]"), 4, ERR_FORMAT, "a",
         "dimension"},
        {T("a", "\"dtype\":\"F32\",\"data_offsets\":[0,4]"), 4, ERR_FORMAT, "a", "no shape"},
        {T("a", "\"dtype\":\"F32\",\"shape\":[4611686018427387904,4611686018427387904],\"data_"
                "offsets\":[0,4]"),
         4, ERR_FORMAT, "a", "overflow"},
        {T("a", "\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]"), 4,
         ERR_FORMAT, "a", "8 dimensions"},
        {T("a", "\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]"), 2, ERR_FORMAT, "a",
         "whole byte"},
        {T("a", "\"dtype\":\"U4\",\"shape\":[2],\"data_offsets\":[0,1]"), 1, ERR_UNSUPPORTED,
         "a", "unknown type"},
        {T("a", "\"shape\":[1],\"data_offsets\":[0,4]"), 4, ERR_FORMAT, "a", "no dtype"},
        {"{\"a\":7}", 0, ERR_FORMAT, "a", "no object"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_msg(open_text(bad[i].header, bad[i].data) == bad[i].s, "%s", bad[i].header);
        ck_assert_msg(strstr(e.text, bad[i].text), "%s: %s", bad[i].header, e.text);
        ck_assert_str_eq(e.field, bad[i].field);
        arena_clear(&mem);
    }
}
END_TEST

START_TEST(lengths_that_lie_are_refused) {
    arena_init(&mem, chunks_heap(), 0);
    int fd = memfd_create("short", MFD_CLOEXEC);
    ck_assert_int_eq(write(fd, "\2\0\0\0", 4), 4);
    ck_assert_int_eq(safetensors_open(&f, fd, "x", &mem, &e), ERR_FORMAT);
    fd = memfd_create("long", MFD_CLOEXEC);
    ck_assert_int_eq(write(fd, "\377\377\377\377\377\377\377\177{}", 10), 10);
    ck_assert_int_eq(safetensors_open(&f, fd, "x", &mem, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "header");
    fd = memfd_create("sparse", MFD_CLOEXEC); /* 65 MiB of header are not read */
    ck_assert_int_eq(write(fd, "\0\0\20\4\0\0\0\0", 8), 8);
    ck_assert_int_eq(ftruncate(fd, 80 << 20), 0);
    ck_assert_int_eq(safetensors_open(&f, fd, "x", &mem, &e), ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.text, "64 MiB"));
    ck_assert_int_eq(safetensors_open(&f, open("/tmp", O_RDONLY | O_CLOEXEC), "x", &mem, &e),
                     ERR_IO);
    arena_clear(&mem);
}
END_TEST

CHECK_MAIN("safetensors", tensors_are_found_and_read, malformed_headers_are_refused_by_name,
           lengths_that_lie_are_refused)
