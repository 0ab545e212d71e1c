/* Published FP8 on the CUDA engine with activation_dtype = fp8: long steps multiply codes by codes, others
 * do not; the plan has their memory; and what must be refused. */
#include "tests/cuda/engine_models.h"

enum { N = 100, FEW = 40 };

static const kind rows_kind = {"llama", F8_ROWS,         4,      2,    32, 32,    16,
                               false,   ACTIVATION_BF16, DT_F16, 4e-2, 2,  false, 0};

static engine_options options_of(activation_dtype a) {
    engine_options o = tiny_options(&rows_kind);
    o.max_rows = o.max_logit_rows = N;
    o.activations = a;
    return o;
}

/* Logits of a prompt of n tokens in one step; returns products of the library. */
static long prompt(const char *path, const engine_options *o, bool cpu, uint32_t n,
                   float *out) {
    int32_t tokens[N], table[32];
    rig r;
    if (cpu)
        cpu_open(&r, path, o);
    else
        cuda_open(&r, path, o);
    const long before = cushim_count().matmuls;
    rig_tokens(&r, tokens, n, 1);
    rig_table(&r, table, 0, (uint32_t)ceil_div(n, o->block_tokens), 1);
    part p = {tokens, table, 0, n, n, NULL, 0};
    memcpy(out, rig_run(&r, &p, 1).logits, sizeof(float) * n * r.n_vocab);
    const long matmuls = cushim_count().matmuls - before;
    rig_close(&r);
    return matmuls;
}

START_TEST(codes_meet_codes_in_long_steps_alone) {
    enum { V = 128 };
    static float want[N * V], wide[N * V], codes[N * V];
    gb b;
    char path[64];
    tiny_open(&b, path, &rows_kind);
    const engine_options o16 = options_of(ACTIVATION_BF16), o8 = options_of(ACTIVATION_FP8);
    prompt(path, &o16, true, N, want);
    /* Two layers: q | k | v, output, gate, up, down; and the logits. */
    ck_assert_int_eq(prompt(path, &o16, false, N, wide), 11);
    ck_assert_int_eq(prompt(path, &o8, false, N, codes), 11);
    const double d16 = distance(wide, want, N * V), d8 = distance(codes, want, N * V);
    ck_assert_msg(d16 < rows_kind.limit && d16 < d8 && d8 < 0.2, "distances %g and %g", d16,
                  d8);
    prompt(path, &o16, false, FEW, wide);
    prompt(path, &o8, false, FEW, codes);
    ck_assert_mem_eq(wide, codes, sizeof(float) * FEW * V);
    gb_clear(&b);
}
END_TEST

START_TEST(the_plan_has_the_memory_of_codes) {
    gb b;
    char path[64];
    err e;
    tiny_open(&b, path, &rows_kind);
    const engine_options o = options_of(ACTIVATION_FP8);
    ck_assert_msg(open_planned(path, &o, true, &e), "%s", e.text);
    gb_clear(&b);
}
END_TEST

static void refused(const backend *on, const kind *k, const engine_options *o,
                    const char *why) {
    gb b;
    char path[64];
    checkpoint *file;
    model *m;
    terms t = {0};
    kv_request kv = {.block_tokens = o->block_tokens};
    err e = {0};
    tiny_open(&b, path, k);
    ck_assert(checkpoint_open(&file, path, &e) == OK && model_open(&m, file, &e) == OK);
    ck_assert_int_eq(on->terms(&m->program, o, &t, &kv, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "activation_dtype");
    ck_assert_msg(strstr(e.text, why) != NULL, "%s", e.text);
    terms_clear(&t);
    model_close(m);
    checkpoint_close(file);
    gb_clear(&b);
}

START_TEST(what_has_no_use_for_codes_is_refused) {
    kind blocks = rows_kind, q8 = rows_kind;
    blocks.type = F8_BLOCKS, q8.type = DT_Q8_0;
    blocks.head_dim = blocks.rope_dims = 64; /* else one block is all of an output's inputs */
    engine_options o = options_of(ACTIVATION_FP8);
    refused(&backend_cuda, &blocks, &o, "no matrix is FP8 with one scale for each output");
    refused(&backend_cuda, &q8, &o, "no matrix is FP8");
    refused(&backend_cpu, &rows_kind, &o, "fp8");
    o.batch_invariant = true;
    refused(&backend_cuda, &rows_kind, &o, "batch_invariant");
}
END_TEST

START_TEST(a_device_without_such_products_is_refused) {
    gb b;
    char path[64];
    err e = {0};
    tiny_open(&b, path, &rows_kind);
    const engine_options o = options_of(ACTIVATION_FP8);
    cushim_set_capability(86);
    ck_assert(!open_planned(path, &o, false, &e));
    ck_assert_str_eq(e.field, "activation_dtype");
    ck_assert_msg(strstr(e.text, "8.9, and this device has 8.6") != NULL, "%s", e.text);
    cushim_set_capability(89);
    ck_assert_msg(open_planned(path, &o, true, &e), "%s", e.text);
    gb_clear(&b);
}
END_TEST

int main(void) {
    Suite *s = suite_create("cuda engine, fp8");
    TCase *t = check_case(s, "shim");
    cuda_backend_use(vramd_cuda_plugin);
    tcase_add_test(t, codes_meet_codes_in_long_steps_alone);
    tcase_add_test(t, the_plan_has_the_memory_of_codes);
    tcase_add_test(t, what_has_no_use_for_codes_is_refused);
    tcase_add_test(t, a_device_without_such_products_is_refused);
    return check_run(s);
}
