/* The CUDA engine's KV cache on the shim: codes of 4 bits beside their tail, against the CPU engine
 * with the same cache. */
#include "tests/cuda/engine_models.h"

enum { LONG = 150, FIRST = 70, SECOND = 60 };

static engine_options long_options(const kind *k, dtype kv_k, dtype kv_v) {
    engine_options o = tiny_options(k);
    o.max_rows = o.max_logit_rows = 100;
    o.max_model_len = 256;
    for (int g = 0; g < PLAN_MAX_GROUPS; g++) o.n_blocks[g] = 20;
    o.kv_k = kv_k, o.kv_v = kv_v;
    return o;
}

/* Logits of all positions but those of the first chunk: another chunk, whose rows see codes and
 * tail, then steps of one row. Blocks of the tail that no row sees any more are not in its table
 * where gone is true. */
static void long_logits(rig *r, const int32_t *tokens, bool gone, float *out) {
    const size_t V = r->n_vocab;
    int32_t table[16], tail[16];
    rig_table(r, table, 0, 10, 3);
    rig_table(r, tail, 0, 10, 4);
    r->table1 = tail;
    part p = {tokens, table, 0, FIRST, 1, NULL, 0};
    rig_run(r, &p, 1);
    for (uint32_t at = FIRST, n; at < LONG; at += n) {
        n = at == FIRST ? SECOND : 1;
        for (uint32_t b = 0; gone && (b + 1) * r->opt.block_tokens + KV_TAIL_TOKENS <= at + 1;
             b++)
            tail[b] = -1;
        p = (part){tokens, table, at, n, n, NULL, 0};
        memcpy(out + (at - FIRST) * V, rig_run(r, &p, 1).logits, sizeof(float) * n * V);
    }
}

static const struct pair {
    dtype k, v;
    uint32_t window;
    double limit;
} pairs[] = {{DT_INT4, DT_INT4, 0, 2e-2},
             {DT_INT8, DT_INT4, 0, 1e-2},
             {DT_INT4, DT_INT4, 90, 2e-2},
             {DT_INT4, DT_INT4, 30, 1e-2},
             {DT_INT8, DT_FP8, 0, 2e-2}};
enum { N_PAIRS = sizeof pairs / sizeof *pairs };

START_TEST(logits_beside_a_tail_are_those_of_the_cpu_engine) {
    const struct pair *x = &pairs[_i];
    gb b;
    char path[64];
    rig cpu, cuda;
    int32_t tokens[LONG];
    model_config c = gb_tiny("llama");
    c.n_heads = 4, c.n_kv_heads = 2, c.head_dim = c.rope.n_dims = 64, c.window = x->window;
    gb_init(&b);
    gb_model_keys(&b, &c);
    gb_model_tensors(&b, &c, DT_F16, 7);
    gb_open(&b, path);
    engine_options o = long_options(&kinds[0], x->k, x->v), f32 = o, as_cpu = o;
    as_cpu.activations = f32.activations = ACTIVATION_F32;
    f32.kv_k = f32.kv_v = DT_F32;
    rig_open(&cpu, path, &as_cpu);
    cuda_open(&cuda, path, &o);
    const size_t n = (size_t)(LONG - FIRST) * cpu.n_vocab;
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got),
          *exact = malloc(n * sizeof *exact);
    ck_assert(want && got && exact);
    rig_tokens(&cpu, tokens, LONG, 1);
    long_logits(&cpu, tokens, false, want);
    rig_close(&cpu);
    rig_open(&cpu, path, &f32);
    long_logits(&cpu, tokens, false, exact);
    long_logits(&cuda, tokens, false, got);
    const double d = distance(got, want, n), coded = distance(want, exact, n);
    ck_assert_msg(d < x->limit, "pair %d: distance %g", _i, d);
    /* The codes are what both read: they cost more than the two differ. */
    if (kv_has_tail(x->k, x->v) && (!x->window || x->window > KV_TAIL_TOKENS))
        ck_assert_msg(d < 0.7 * coded, "pair %d: distance %g of %g", _i, d, coded);
    long_logits(&cuda, tokens, true, exact);
    ck_assert_mem_eq(exact, got, n * sizeof *got);
    free(want);
    free(got);
    free(exact);
    rig_close(&cpu);
    rig_close(&cuda);
    gb_clear(&b);
}
END_TEST

/* Blocks that went to the host and came back into other places serve as before. */
START_TEST(exported_blocks_serve_where_they_are_imported) {
    gb b;
    char path[64];
    rig r;
    int32_t tokens[LONG], table[16], other[16], empty[16];
    err e;
    tiny_open(&b, path, &kinds[6]);
    ck_assert_int_eq(kinds[6].kv, DT_INT4);
    engine_options o = long_options(&kinds[6], DT_INT4, DT_INT4);
    cuda_open(&r, path, &o);
    const size_t bytes = sizeof(float) * r.n_vocab;
    float *want = malloc(bytes);
    unsigned char *block = malloc(1 << 20);
    ck_assert(want && block);
    rig_tokens(&r, tokens, LONG, 1);
    rig_table(&r, table, 0, 8, 3);
    rig_table(&r, other, 1, 8, 3);
    rig_run(&r, &(part){tokens, table, 0, 96, 1, NULL, 0}, 1);
    memcpy(want, rig_run(&r, &(part){tokens, table, 96, 1, 1, NULL, 0}, 1).logits, bytes);
    for (uint32_t g = 0; g < 2; g++)
        for (uint32_t i = 0; i < 6; i++) {
            ck_assert(engine_kv_export(r.engine, g, table[i], block, &e) == OK);
            ck_assert(engine_kv_import(r.engine, g, other[i], block, &e) == OK);
        }
    rig_tokens(&r, tokens + 96, 1, 99); /* over the old ones */
    rig_table(&r, empty, 0, 8, 3);
    rig_run(&r, &(part){tokens + 1, empty, 0, 96, 1, NULL, 0}, 1);
    rig_tokens(&r, tokens, LONG, 1);
    ck_assert_mem_eq(rig_run(&r, &(part){tokens, other, 96, 1, 1, NULL, 0}, 1).logits, want,
                     bytes);
    ck_assert(engine_kv_export(r.engine, 2, 0, block, &e) == ERR_INVALID);
    ck_assert(engine_kv_import(r.engine, 0, 20, block, &e) == ERR_INVALID);
    ck_assert(engine_kv_export(r.engine, 0, -1, block, &e) == ERR_INVALID);
    free(want);
    free(block);
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

int main(void) {
    Suite *s = suite_create("cuda engine, KV cache");
    TCase *t = check_case(s, "shim");
    cuda_backend_use(vramd_cuda_plugin);
    tcase_add_loop_test(t, logits_beside_a_tail_are_those_of_the_cpu_engine, 0, N_PAIRS);
    tcase_add_test(t, exported_blocks_serve_where_they_are_imported);
    return check_run(s);
}
