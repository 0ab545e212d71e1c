/* gpt-oss as published: blocks and scales apart, gate and up by turns, become what a GGUF file of the same
 * weights has, byte for byte; what does not fit together is refused by name. */
#include "base/half.h"
#include "base/hash.h"
#include "model/hf/hf_config.h"
#include "model/hf/hf_gpt_oss.h"
#include "model/model.h"
#include "tests/check_main.h"
#include "tests/model/hf_build.h"

#define GOLDEN "tests/golden/families/gpt-oss"

static err e;

START_TEST(a_block_has_the_order_of_gguf) {
    for (uint64_t seed = 0; seed < 500; seed++) {
        uint8_t codes[16], got[17];
        for (uint64_t i = 0; i < 16; i++) codes[i] = (uint8_t)hash_mix(seed * 16 + i);
        hf_gpt_oss_block(codes, (uint8_t)(seed * 7), got);
        ck_assert_uint_eq(got[0], (uint8_t)(seed * 7));
        for (uint32_t k = 0; k < 32; k++) {
            const uint32_t published = codes[k / 2] >> 4 * (k % 2) & 15;
            const uint32_t of_gguf = got[1 + k % 16] >> 4 * (k / 16) & 15;
            ck_assert_uint_eq(published, of_gguf);
        }
    }
}
END_TEST

/* ---- a folder and a file of the same weights ---- */

static void *must_read(const checkpoint *c, size_t i, uint64_t row, uint64_t n,
                       uint64_t *bytes) {
    const tensor_info t = checkpoint_tensor(c, i);
    ck_assert(dtype_bytes(t.type, n, t.ne[0], bytes));
    void *p = malloc(*bytes + 1);
    ck_assert_ptr_nonnull(p);
    ck_assert_msg(checkpoint_read_rows(c, i, row, n, p, &e) == OK, "%s", e.text);
    return p;
}

static float number(dtype t, const void *p, uint64_t i) {
    float f;
    uint16_t h;
    if (t == DT_F32) {
        memcpy(&f, (const char *)p + 4 * i, sizeof f);
        return f;
    }
    memcpy(&h, (const char *)p + 2 * i, sizeof h);
    return t == DT_F16 ? half_to_float(h) : bf16_to_float(h);
}

/* Some rows of a tensor, of both. */
static void same_rows(const checkpoint *a, size_t i, const checkpoint *b, size_t j,
                      uint64_t row, uint64_t n) {
    const tensor_info t = checkpoint_tensor(a, i), u = checkpoint_tensor(b, j);
    uint64_t bytes, other;
    void *x = must_read(a, i, row, n, &bytes), *y = must_read(b, j, row, n, &other);
    if (t.type == u.type)
        ck_assert_msg(bytes == other && memcmp(x, y, bytes) == 0, "%s", t.name);
    for (uint64_t k = 0; k < n * t.ne[0] && t.type != u.type; k++)
        ck_assert_msg(number(t.type, x, k) == number(u.type, y, k), "%s", t.name);
    free(x);
    free(y);
}

/* Part of a row. */
static void same_part(const checkpoint *a, size_t i, const checkpoint *b, size_t j,
                      uint64_t row) {
    const tensor_info t = checkpoint_tensor(a, i);
    const uint64_t block = dtype_block_of(t.type).elems, n = t.ne[0] / 2 / block * block;
    unsigned char x[512], y[512];
    uint64_t bytes;
    ck_assert(dtype_bytes(t.type, 1, n, &bytes) && bytes <= sizeof x);
    if (checkpoint_tensor(b, j).type != t.type) return;
    ck_assert_int_eq(checkpoint_read_part(a, i, row, t.ne[0] - n, n, x, &e), OK);
    ck_assert_int_eq(checkpoint_read_part(b, j, row, t.ne[0] - n, n, y, &e), OK);
    ck_assert_mem_eq(x, y, bytes);
}

START_TEST(the_folder_has_the_tensors_of_the_file) {
    checkpoint *folder, *file;
    ck_assert_msg(checkpoint_open(&folder, GOLDEN, &e) == OK, "%s", e.text);
    ck_assert_msg(checkpoint_open(&file, GOLDEN ".gguf", &e) == OK, "%s", e.text);
    ck_assert_uint_eq(checkpoint_n_tensors(folder), checkpoint_n_tensors(file));
    uint32_t n_mxfp4 = 0;
    for (size_t j = 0; j < checkpoint_n_tensors(file); j++) {
        const tensor_info u = checkpoint_tensor(file, j);
        tensor_info t;
        const int32_t i = checkpoint_find(folder, u.name, &t);
        ck_assert_msg(i >= 0, "%s", u.name);
        ck_assert_msg(memcmp(t.ne, u.ne, sizeof t.ne) == 0, "%s", u.name);
        ck_assert((t.type == DT_MXFP4) == (u.type == DT_MXFP4));
        n_mxfp4 += t.type == DT_MXFP4;
        const uint64_t rows = t.ne[1] * t.ne[2];
        same_rows(folder, (size_t)i, file, j, 0, rows);
        for (uint64_t k = 0; k < 20; k++) {
            const uint64_t row = hash_mix(k) % rows;
            same_rows(folder, (size_t)i, file, j, row, hash_mix(k + 99) % (rows - row) + 1);
            same_part(folder, (size_t)i, file, j, row);
        }
    }
    ck_assert_uint_eq(n_mxfp4, 9);
    checkpoint_close(folder);
    checkpoint_close(file);
}
END_TEST

START_TEST(both_are_the_same_model) {
    checkpoint *c[2];
    model *m[2];
    static const char *const path[] = {GOLDEN, GOLDEN ".gguf"};
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(checkpoint_open(&c[i], path[i], &e), OK);
        ck_assert_msg(model_open(&m[i], c[i], &e) == OK, "%s", e.text);
    }
    ck_assert(model_config_same(&m[0]->program.config, &m[1]->program.config));
    const model_config *k = &m[0]->program.config;
    ck_assert(k->rope.exact_range && k->sinks && k->router_bias && k->ffn_bias && k->o_bias);
    ck_assert(model_config_window(k, 0) == 12 && model_config_window(k, 1) == 0);
    ck_assert_uint_eq(program_params(&m[0]->program), program_params(&m[1]->program));
    for (int i = 0; i < 2; i++) {
        model_close(m[i]);
        checkpoint_close(c[i]);
    }
}
END_TEST

/* ---- what does not fit ---- */

enum { EXPERTS = 3 };
static const safetensors no_file;
static hf_gpt_oss *v;
static tensor_info t;
static arena mem;

static void setup(void) {
    arena_init(&mem, chunks_heap(), 0);
    v = NULL;
    t = (tensor_info){.name = "blk.0.ffn_up_exps.weight", .ne = {1, 1, 1, 1}};
    e = (err){0};
}
static void teardown(void) {
    arena_clear(&mem);
}

static const safetensor blocks = {"b", DT_NONE, "U8", 4, {EXPERTS, 8, 2, 16}, 0, 768};
static const safetensor scales = {"s", DT_NONE, "U8", 3, {EXPERTS, 8, 2}, 0, 48};
static const safetensor numbers = {"n", DT_F16, "F16", 3, {EXPERTS, 64, 8}, 0, 3072};
static const safetensor bias = {"c", DT_BF16, "BF16", 2, {EXPERTS, 8}, 0, 48};

static status add(hf_expert_kind kind, uint32_t n_parts, safetensor *at) {
    const hf_expert_name name = {.kind = kind, .n_parts = n_parts, .expert = HF_ALL_EXPERTS};
    return hf_gpt_oss_add(&v, &t, EXPERTS, &name, n_parts - 1, &no_file, at, &mem, &e);
}

START_TEST(blocks_and_scales_make_one_tensor) {
    safetensor b = blocks, s = scales;
    ck_assert_int_eq(add(HF_EXPERT_SCALES, 2, &s), OK); /* in any order */
    ck_assert_int_eq(hf_gpt_oss_check(v, &t, &e), ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.text, "no blocks"));
    ck_assert_int_eq(add(HF_EXPERT_BLOCKS, 2, &b), OK);
    ck_assert_int_eq(hf_gpt_oss_check(v, &t, &e), OK);
    ck_assert(t.type == DT_MXFP4 && t.ne[0] == 64 && t.ne[1] == 4 && t.ne[2] == EXPERTS);
    ck_assert(v->turn == 1 && v->n_turns == 2);
    ck_assert_int_eq(add(HF_EXPERT_BLOCKS, 2, &b), ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.text, "twice"));
    teardown();
    setup();
    safetensor c = bias;
    ck_assert_int_eq(add(HF_EXPERT_BIAS, 2, &c), OK);
    ck_assert_int_eq(hf_gpt_oss_check(v, &t, &e), OK);
    ck_assert(t.type == DT_BF16 && t.ne[0] == 4 && t.ne[1] == EXPERTS && t.ne[2] == 1);
}
END_TEST

START_TEST(other_shapes_and_types_are_refused) {
    static const struct {
        hf_expert_kind kind;
        uint32_t dims, dim;
        uint64_t to;
        const char *stored;
    } row[] = {{HF_EXPERT_BLOCKS, 4, 0, 2, "U8"}, {HF_EXPERT_BLOCKS, 4, 1, 7, "U8"},
               {HF_EXPERT_BLOCKS, 4, 2, 0, "U8"}, {HF_EXPERT_BLOCKS, 4, 3, 15, "U8"},
               {HF_EXPERT_BLOCKS, 3, 0, 3, "U8"}, {HF_EXPERT_BLOCKS, 4, 0, 3, "I8"},
               {HF_EXPERT_SCALES, 3, 0, 4, "U8"}, {HF_EXPERT_SCALES, 3, 1, 9, "U8"},
               {HF_EXPERT_SCALES, 4, 0, 3, "U8"}, {HF_EXPERT_SCALES, 3, 0, 3, "F8_E8M0"},
               {HF_EXPERT_BIAS, 2, 0, 1, "BF16"}, {HF_EXPERT_BIAS, 2, 1, 3, "BF16"},
               {HF_EXPERT_BIAS, 1, 0, 3, "BF16"}, {HF_EXPERT_BLOCKS, 4, 2, 1ull << 40, "U8"},
               {HF_EXPERT_BLOCKS, 4, 1, 0, "U8"}, {HF_EXPERT_ROWS, 3, 2, 7, "F16"},
               {HF_EXPERT_ROWS, 2, 0, 3, "F16"},  {HF_EXPERT_ROWS, 3, 1, 0, "F16"}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        safetensor at = row[i].kind == HF_EXPERT_BLOCKS   ? blocks
                        : row[i].kind == HF_EXPERT_SCALES ? scales
                        : row[i].kind == HF_EXPERT_ROWS   ? numbers
                                                          : bias;
        at.n_dims = row[i].dims;
        at.dim[row[i].dim] = row[i].to;
        at.stored = row[i].stored;
        ck_assert_msg(add(row[i].kind, 2, &at) == ERR_FORMAT, "row %zu", i);
        ck_assert_str_eq(e.field, at.name);
        ck_assert_ptr_null(v);
    }
    safetensor b = blocks, s = scales, c = bias, x = numbers;
    c.type = DT_I32;
    ck_assert_int_eq(add(HF_EXPERT_BIAS, 2, &c), ERR_FORMAT);
    ck_assert_int_eq(add(HF_EXPERT_ROWS, 2, &x), OK);
    ck_assert(t.type == DT_F16 && t.ne[0] == 64 && t.ne[1] == 4 && t.ne[2] == EXPERTS);
    ck_assert_int_eq(hf_gpt_oss_check(v, &t, &e), OK);
    ck_assert_int_eq(add(HF_EXPERT_BLOCKS, 2, &b), ERR_FORMAT);
    ck_assert_int_eq(add(HF_EXPERT_SCALES, 2, &s), OK);
    ck_assert_int_eq(hf_gpt_oss_check(v, &t, &e), ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.text, "need no scales"));
    teardown();
    setup();
    s.dim[2] = 3;
    ck_assert_int_eq(add(HF_EXPERT_BLOCKS, 2, &b), OK);
    ck_assert_int_eq(hf_gpt_oss_check(v, &t, &e), ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.text, "no scales"));
    ck_assert_int_eq(add(HF_EXPERT_SCALES, 2, &s), OK);
    ck_assert_int_eq(hf_gpt_oss_check(v, &t, &e), ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.text, "another shape than its blocks"));
}
END_TEST

/* The config of a model that has nothing but what is needed, and this. */
static status parse(hf_config *h, const char *more) {
    char text[600];
    snprintf(text, sizeof text,
             "{\"model_type\":\"gpt_oss\",\"hidden_size\":64,\"intermediate_size\":32,"
             "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_local_experts\":4,"
             "\"num_experts_per_tok\":2,\"vocab_size\":96,\"max_position_embeddings\":256%s}",
             more);
    return hf_config_parse(h, str_of(text), &e);
}

START_TEST(a_config_says_whether_yarn_rounds_and_what_limits_swiglu) {
#define YARN ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4"
    hf_config h;
    ck_assert_int_eq(parse(&h, YARN ",\"truncate\":false},\"swiglu_limit\":7.0"), OK);
    ck_assert(h.config.rope.exact_range);
    ck_assert_int_eq(parse(&h, YARN ",\"truncate\":true}"), OK);
    ck_assert(!h.config.rope.exact_range);
    ck_assert_int_eq(parse(&h, YARN "}"), OK); /* as transformers takes it */
    ck_assert(!h.config.rope.exact_range);
    ck_assert_int_eq(parse(&h, ",\"swiglu_limit\":6.5"), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "swiglu_limit");
    ck_assert_int_eq(parse(&h, ",\"swiglu_alpha\":1.702,\"swiglu_limit\":7"), OK);
    ck_assert_int_eq(parse(&h, ",\"swiglu_alpha\":1.5"), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "swiglu_alpha");
    ck_assert_int_eq(parse(&h, YARN ",\"truncate\":1}"), ERR_INVALID);
    ck_assert_str_eq(e.field, "rope_scaling.truncate");
}
END_TEST

int main(void) {
    Suite *s = suite_create("hf_gpt_oss");
    TCase *c = check_case(s, "hf_gpt_oss");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, a_block_has_the_order_of_gguf);
    tcase_add_test(c, the_folder_has_the_tensors_of_the_file);
    tcase_add_test(c, both_are_the_same_model);
    tcase_add_test(c, blocks_and_scales_make_one_tensor);
    tcase_add_test(c, other_shapes_and_types_are_refused);
    tcase_add_test(c, a_config_says_whether_yarn_rounds_and_what_limits_swiglu);
    return check_run(s);
}
