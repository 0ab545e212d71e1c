/* quant/imatrix.h through its header; what is read is written by gguf-py's rules (tests/model/gguf_build.h). */
#include "quant/imatrix.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "model/model.h"
#include "quant/gguf_write.h"
#include "tests/check_main.h"
#include "tests/model/gguf_build.h"

static void path_of(char path[64]) {
    snprintf(path, 64, "/tmp/test_imatrix.XXXXXX");
    const int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

START_TEST(what_is_written_is_read_back) {
    err e;
    calib c;
    model *m;
    gguf *g;
    char path[64];
    const model_config config = gb_tiny("llama");
    const str names[] = {STR("a.txt"), STR("b.txt")};
    ck_assert(model_from_config(&m, &config, DT_F32, &e) == OK);
    ck_assert_int_eq(calib_init(&c, &m->program, &e), OK);
    for (uint32_t i = 0; i < c.n_inputs; i++) {
        c.input[i].n_rows = 1024;
        for (uint32_t k = 0; k < c.input[i].n; k++) c.input[i].sum_sq[k] = 1024.0 * (i + 1) + k;
    }
    path_of(path);
    ck_assert_int_eq(imatrix_write(&c, path, names, 2, 512, &e), OK);
    ck_assert_msg(imatrix_open(&g, path, &e) == OK, "%s", e.text);
    gguf_array sets;
    uint32_t chunks = 0;
    ck_assert_int_eq(gguf_get_u32(g, "imatrix.chunk_count", &chunks, &e), OK);
    ck_assert_uint_eq(chunks, 2);
    ck_assert_int_eq(gguf_get_array(g, "imatrix.datasets", GGUF_STRING, &sets, &e), OK);
    ck_assert(sets.n == 2 && str_eqz(((const str *)sets.v)[1], "b.txt"));
    static const char *const tensors[] = {"blk.0.attn_q.weight", "blk.1.attn_v.weight",
                                          "blk.1.ffn_down.weight"};
    for (size_t i = 0; i < 3; i++) {
        const calib_input *in = calib_find(&c, tensors[i]);
        float got[4096];
        bool found;
        ck_assert_int_eq(imatrix_read(g, tensors[i], in->n, got, &found, &e), OK);
        ck_assert(found);
        for (uint32_t k = 0; k < in->n; k++) SWEEP(got[k] == (float)in->sum_sq[k] / 1024);
        ck_assert_int_eq(imatrix_read(g, tensors[i], in->n + 1, got, &found, &e), ERR_FORMAT);
        ck_assert_str_eq(e.field, tensors[i]);
    }
    float none[8];
    bool found = true;
    ck_assert_int_eq(imatrix_read(g, "token_embd.weight", 8, none, &found, &e), OK);
    ck_assert(!found);
    gguf_close(g);
    calib_clear(&c);
    model_close(m);
    unlink(path);
}
END_TEST

/* A file with "t.in_sum2" of 4 inputs and two matrices, and counts. */
static status open_made(gguf **g, uint64_t counts, float count1, float sum, const char *other,
                        err *e) {
    char path[64];
    buf b;
    gguf_keys keys = {0};
    const gguf_entry entry[] = {{"t.in_sum2", DT_F32, 2, {4, 2, 1, 1}, 0},
                                {other, DT_F32, 2, {1, counts, 1, 1}, 32}};
    const float data[16] = {8, 16, 24, 32, 3, 6, 9, sum, 8, count1};
    buf_init(&b, NULL);
    buf_init(&keys.b, NULL);
    gguf_put_str(&keys, STR("general.type"), STR("imatrix"));
    gguf_put_header(&b, &keys, entry, 2, 32);
    buf_add(&b, (str){(const char *)data, sizeof data});
    path_of(path);
    FILE *f = fopen(path, "wb");
    ck_assert(f && fwrite(b.ptr, 1, b.len, f) == b.len && fclose(f) == 0);
    buf_clear(&b);
    buf_clear(&keys.b);
    status s = imatrix_open(g, path, e);
    unlink(path);
    return s;
}

START_TEST(matrices_of_experts_are_averaged_and_those_without_rows_left_out) {
    gguf *g;
    err e;
    float out[4];
    bool found;
    ck_assert_msg(open_made(&g, 2, 3, 12, "t.counts", &e) == OK, "%s", e.text);
    ck_assert_int_eq(imatrix_read(g, "t", 4, out, &found, &e), OK);
    ck_assert(found && out[0] == 1 && out[1] == 2 && out[2] == 3 && out[3] == 4);
    gguf_close(g);
    ck_assert_int_eq(open_made(&g, 2, 0, 12, "t.counts", &e), OK);
    ck_assert_int_eq(imatrix_read(g, "t", 4, out, &found, &e), OK);
    ck_assert(found && out[0] == 1 && out[1] == 2 && out[2] == 3 && out[3] == 4);
    gguf_close(g);
}
END_TEST

START_TEST(files_that_are_none_are_refused_by_name) {
    gguf *g;
    err e;
    float out[4];
    bool found;
    ck_assert_int_eq(open_made(&g, 1, 3, 12, "t.counts", &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "t.in_sum2");
    ck_assert_int_eq(open_made(&g, 2, 3, 12, "u.counts", &e), ERR_FORMAT);
    ck_assert_int_eq(open_made(&g, 2, 3, NAN, "t.counts", &e), OK);
    ck_assert_int_eq(imatrix_read(g, "t", 4, out, &found, &e), ERR_FORMAT);
    gguf_close(g);
    ck_assert_int_eq(open_made(&g, 2, 1e-38f, 12, "t.counts", &e),
                     OK); /* 12 / 1e-38 is infinite */
    ck_assert_int_eq(imatrix_read(g, "t", 4, out, &found, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "t.in_sum2");
    gguf_close(g);
    ck_assert_int_eq(open_made(&g, 2, -1, 12, "t.counts", &e), OK);
    ck_assert_int_eq(imatrix_read(g, "t", 4, out, &found, &e), ERR_FORMAT);
    ck_assert(!found);
    gguf_close(g);
    gb b;
    char path[64];
    const model_config c = gb_tiny("llama");
    gb_init(&b);
    gb_model_keys(&b, &c);
    gb_model_tensors(&b, &c, DT_F32, 1);
    gb_open(&b, path);
    ck_assert_int_eq(imatrix_open(&g, path, &e), ERR_FORMAT);
    ck_assert(strstr(e.hint, "--write-imatrix"));
    gb_clear(&b);
}
END_TEST

CHECK_MAIN("imatrix", what_is_written_is_read_back,
           matrices_of_experts_are_averaged_and_those_without_rows_left_out,
           files_that_are_none_are_refused_by_name)
