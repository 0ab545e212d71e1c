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

/* A copy to memory that is not pinned waits for the driver's own buffer. */
START_TEST(blocks_go_to_pinned_memory_in_one_transfer) {
    gb b;
    char path[64];
    rig r;
    err e;
    tiny_open(&b, path, &kinds[0]);
    engine_options o = long_options(&kinds[0], DT_F16, DT_F16);
    cuda_open(&r, path, &o);
    unsigned char *block = aligned_alloc(4096, 1 << 16);
    ck_assert_ptr_nonnull(block);
    long pageable = cushim_count().pageable_copies;
    ck_assert(engine_kv_export(r.engine, 0, 1, block, &e) == OK);
    ck_assert_int_eq(cushim_count().pageable_copies, pageable + 1);
    ck_assert_msg(engine_pin(r.engine, block, 1 << 16, &e) == OK, "%s", e.text);
    ck_assert(engine_pin(r.engine, block, 1 << 16, &e) != OK);
    ck_assert(engine_kv_export(r.engine, 0, 1, block, &e) == OK);
    ck_assert(engine_kv_import(r.engine, 0, 2, block, &e) == OK);
    ck_assert_int_eq(cushim_count().pageable_copies, pageable + 1);
    engine_unpin(r.engine, block);
    ck_assert(engine_kv_import(r.engine, 0, 2, block, &e) == OK);
    ck_assert_int_eq(cushim_count().pageable_copies, pageable + 2);
    free(block);
    rig_close(&r);
    gb_clear(&b);
}
END_TEST

/* ---- a cache that changes its size ---- */

enum { MANY = 1000, FEW = 12 };

typedef struct resized {
    gb b;
    rig r;
    uint64_t block_bytes;
    int32_t tokens[LONG], table[16];
} resized;

static void resized_open(resized *x, uint32_t blocks, uint32_t most) {
    char path[64];
    terms t = {0};
    kv_request kv = {0};
    err e;
    tiny_open(&x->b, path, &kinds[0]);
    engine_options o = long_options(&kinds[0], DT_F16, DT_F16);
    o.n_blocks[0] = blocks, o.max_blocks[0] = most;
    cuda_open(&x->r, path, &o);
    ck_assert(backend_cuda.terms(&x->r.model->program, &o, &t, &kv, &e) == OK);
    x->block_bytes = kv.group[0].bytes_per_token * kv.block_tokens;
    terms_clear(&t);
    ck_assert_uint_gt(MANY * x->block_bytes, 3 * CUDA_GRANULE);
    ck_assert_uint_lt(FEW * x->block_bytes, CUDA_GRANULE);
    rig_tokens(&x->r, x->tokens, LONG, 1);
    for (int32_t i = 0; i < 10; i++) x->table[i] = (i * 7 + 3) % 10;
}

static void resized_close(resized *x) {
    rig_close(&x->r);
    gb_clear(&x->b);
    ck_assert_uint_eq(cushim_count().bytes, 0);
}

static status resize(resized *x, uint32_t blocks, err *e) {
    return engine_kv_resize(x->r.engine, (uint32_t[PLAN_MAX_GROUPS]){blocks}, e);
}

/* Device and ledger have the granules of so many blocks. */
static void check_size(const resized *x, uint32_t blocks) {
    const uint64_t bytes = plan_pool_bytes(CUDA_GRANULE, blocks, x->block_bytes);
    ledger_view v;
    ledger_read(x->r.device, &v);
    ck_assert_uint_eq(v.cls[MEM_KV].ledger_bytes, bytes);
    ck_assert_uint_eq((uint64_t)cushim_count().granules, bytes / CUDA_GRANULE);
    ck_assert_uint_eq(cushim_count().bytes, v.ledger_bytes - v.cls[MEM_CONTEXT].ledger_bytes);
}

/* Shrinks beside a step that is on its way, and grows: what stays keeps its content, graphs go on
 * working, and blocks that went are out of reach. */
START_TEST(the_pool_shrinks_and_grows_beside_steps) {
    static resized x;
    unsigned char block[1 << 16];
    step_result out;
    err e;
    resized_open(&x, MANY, MANY);
    const size_t bytes = sizeof(float) * x.r.n_vocab;
    float *want = malloc(bytes);
    ck_assert(want && x.block_bytes <= sizeof block);
    check_size(&x, MANY);
    rig_run(&x.r, &(part){x.tokens, x.table, 0, 96, 1, NULL, 0}, 1);
    memcpy(want, rig_run(&x.r, &(part){x.tokens, x.table, 96, 1, 1, NULL, 0}, 1).logits, bytes);
    for (int round = 0; round < 3; round++) {
        const batch_seq s = {.n_rows = 1,
                             .first_pos = 96,
                             .tokens = x.tokens,
                             .input_from = -1,
                             .blocks = {x.table},
                             .n_blocks = {10},
                             .n_logit_rows = 1};
        const batch step = {.seq = &s, .n_seqs = 1, .n_rows = 1, .n_logit_rows = 1};
        ck_assert(engine_submit(x.r.engine, &step, &e) == OK);
        ck_assert_msg(resize(&x, FEW, &e) == OK, "%s", e.text);
        check_size(&x, FEW);
        ck_assert(engine_collect(x.r.engine, &out, &e) == OK);
        ck_assert_mem_eq(out.logits, want, bytes);
        ck_assert(engine_kv_export(x.r.engine, 0, FEW, block, &e) == ERR_INVALID);
        ck_assert(engine_submit(x.r.engine, &step, &e) == OK);
        ck_assert_msg(resize(&x, MANY - round, &e) == OK, "%s", e.text);
        check_size(&x, MANY - round);
        ck_assert(engine_collect(x.r.engine, &out, &e) == OK);
        ck_assert_mem_eq(out.logits, want, bytes);
        ck_assert(engine_kv_export(x.r.engine, 0, x.table[0], block, &e) == OK);
        ck_assert(engine_kv_import(x.r.engine, 0, MANY - 1 - round, block, &e) == OK);
    }
    free(want);
    resized_close(&x);
}
END_TEST

START_TEST(a_pool_that_cannot_grow_stays_as_it_was) {
    static resized x;
    err e;
    resized_open(&x, FEW, MANY);
    ck_assert_int_eq(resize(&x, MANY + 1, &e), ERR_INVALID);
    ck_assert_int_eq(resize(&x, 0, &e), ERR_INVALID);
    for (long n = 1; n <= 2; n++) {
        cushim_fail_alloc(n);
        ck_assert_int_eq(resize(&x, MANY, &e), ERR_NO_MEMORY);
        cushim_fail_alloc(0);
        ck_assert_ptr_nonnull(strstr(e.text, "class kv"));
        check_size(&x, FEW);
    }
    ledger_set_budget(x.r.device, UINT64_MAX, MEM_KV, 2 * CUDA_GRANULE);
    ck_assert_int_eq(resize(&x, MANY, &e), ERR_BUDGET);
    check_size(&x, FEW);
    ledger_set_budget(x.r.device, UINT64_MAX, MEM_KV, UINT64_MAX);
    ck_assert_msg(resize(&x, MANY, &e) == OK, "%s", e.text);
    check_size(&x, MANY);
    resized_close(&x);
}
END_TEST

/* Then the pool lies in the arena, takes the same bytes, and stays as it is. */
START_TEST(a_device_without_virtual_memory_management_serves_a_fixed_pool) {
    static resized x;
    ledger_view v;
    engine_info info;
    err e;
    cushim_set_vmm(false);
    resized_open(&x, MANY, 2 * MANY);
    ledger_read(x.r.device, &v);
    ck_assert_uint_eq(v.cls[MEM_KV].ledger_bytes,
                      plan_pool_bytes(CUDA_GRANULE, MANY, x.block_bytes));
    ck_assert_int_eq(cushim_count().granules, 0);
    engine_describe(x.r.engine, &info);
    ck_assert(info.kv_fixed);
    ck_assert_int_eq(resize(&x, FEW, &e), ERR_UNSUPPORTED);
    rig_run(&x.r, &(part){x.tokens, x.table, 0, 96, 1, NULL, 0}, 1);
    resized_close(&x);
    cushim_set_vmm(true);
    resized_open(&x, MANY, 0);
    engine_describe(x.r.engine, &info);
    ck_assert(!info.kv_fixed);
    resized_close(&x);
}
END_TEST

/* ---- recurrent states ---- */

/* A sequence goes on from a checkpoint that another one has left within a chunk of rows, and from a copy
 * of it, as if it had computed those tokens: the same bits. */
START_TEST(a_checkpoint_goes_on_as_its_sequence_did) {
    enum { FOUND = 16, KEPT = 13, FORK = 14 };
    const kind k = {"lfm2", DT_F16,          0,      0,    0, 0,     16,
                    true,   ACTIVATION_AUTO, DT_F16, 5e-3, 0, false, 0};
    gb b;
    char path[64];
    int32_t tokens[N_TOKENS], table[32];
    rig r;
    tiny_open(&b, path, &k);
    engine_options o = tiny_options(&k);
    o.n_states = FORK + 1;
    o.batch_invariant = true;
    cuda_open(&r, path, &o);
    rig_tokens(&r, tokens, N_TOKENS, 1);
    rig_table(&r, table, 0, blocks_of(&r), 1);
    rig_state state = {0, {FOUND, KEPT}};
    r.state = &state;
    const size_t n = (size_t)(N_TOKENS - FOUND) * r.n_vocab;
    float *want = malloc(n * sizeof *want);
    ck_assert_ptr_nonnull(want);
    part all = {tokens, table, 0, N_TOKENS, N_TOKENS - FOUND, NULL, 0};
    memcpy(want, rig_run(&r, &all, 1).logits, n * sizeof *want);
    const block_copy copy = {KEPT, FORK, ENGINE_COPY_STATE};
    part rest = {tokens, table, FOUND, N_TOKENS - FOUND, N_TOKENS - FOUND, NULL, 0};
    state = (rig_state){FORK, {0, 0}};
    r.copies = &copy, r.n_copies = 1;
    ck_assert_mem_eq(rig_run(&r, &rest, 1).logits, want, n * sizeof *want);
    r.n_copies = 0, state.slot = KEPT;
    for (uint32_t i = 0; i < 3; i++) { /* by steps of one row, which graphs run */
        part one = {tokens, table, FOUND + i, 1, 1, NULL, 0};
        const float *logits = rig_run(&r, &one, 1).logits;
        ck_assert(distance(logits, want + (size_t)i * r.n_vocab, r.n_vocab) < k.limit);
    }
    free(want);
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
    tcase_add_test(t, blocks_go_to_pinned_memory_in_one_transfer);
    tcase_add_test(t, the_pool_shrinks_and_grows_beside_steps);
    tcase_add_test(t, a_pool_that_cannot_grow_stays_as_it_was);
    tcase_add_test(t, a_device_without_virtual_memory_management_serves_a_fixed_pool);
    tcase_add_test(t, a_checkpoint_goes_on_as_its_sequence_did);
    return check_run(s);
}
