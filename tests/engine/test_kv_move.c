/* Blocks of the KV cache taken out of an engine and put into another place, or another engine, are
 * the same blocks; and their bits are those that the name of the engine's numerics stands for. */
#include "base/crc32c.h"
#include "tests/engine/engine_rig.h"

enum { TOKENS = 128, BLOCKS = TOKENS / 16 };

typedef struct text {
    int32_t tokens[TOKENS + 1];
    int32_t table[BLOCKS + 1];
} text;

/* Blocks `from`, from + 1, ... */
static void text_init(text *t, const rig *r, int32_t from) {
    rig_tokens(r, t->tokens, TOKENS + 1, 11);
    for (int32_t i = 0; i <= BLOCKS; i++) t->table[i] = from + i;
}

static step_result step(rig *r, const text *t, uint32_t first, uint32_t n) {
    const part p = {t->tokens, t->table, first, n, 1, NULL, 0};
    return rig_run(r, &p, 1);
}

static uint64_t block_bytes(const rig *r, uint32_t group) {
    const cpu_engine *e = (const cpu_engine *)r->engine;
    return cpu_block_bytes(&e->layout, group);
}

static unsigned char *take_out(rig *r, const text *t) {
    const uint64_t n = block_bytes(r, 0);
    unsigned char *p = malloc(BLOCKS * n);
    err e;
    ck_assert_ptr_nonnull(p);
    for (uint32_t i = 0; i < BLOCKS; i++)
        ck_assert_int_eq(engine_kv_export(r->engine, 0, t->table[i], p + i * n, &e), OK);
    return p;
}

START_TEST(blocks_that_were_away_give_the_same_bits) {
    rig r;
    text here, there;
    err e;
    const engine_options o = rig_options();
    rig_open(&r, test_model(), &o);
    ck_assert(engine_moves_kv(r.engine));
    text_init(&here, &r, 0);
    text_init(&there, &r, 32);
    step(&r, &here, 0, TOKENS);
    unsigned char *away = take_out(&r, &here);
    const size_t n = r.n_vocab * sizeof(float);
    float *want = malloc(n);
    ck_assert_ptr_nonnull(want);
    memcpy(want, step(&r, &here, TOKENS, 1).logits, n);
    rig_close(&r);
    rig_open(&r, test_model(), &o); /* another process */
    rig_poison(&r);
    for (uint32_t i = 0; i < BLOCKS; i++)
        ck_assert_int_eq(
            engine_kv_import(r.engine, 0, there.table[i], away + i * block_bytes(&r, 0), &e),
            OK);
    ck_assert_mem_eq(step(&r, &there, TOKENS, 1).logits, want, n);
    unsigned char *again = take_out(&r, &there);
    ck_assert_mem_eq(again, away, BLOCKS * block_bytes(&r, 0));
    free(again);
    free(away);
    free(want);
    rig_close(&r);
}
END_TEST

/* If this fails, blocks that an older build has stored are not what this one would compute: then
 * CPU_NUMERICS (engine/cpu/cpu.h) must grow, and the number here follow. */
START_TEST(the_bits_are_those_of_cpu_1) {
    rig r;
    text t;
    engine_info info;
    const engine_options o = rig_options();
    rig_open(&r, test_model(), &o);
    text_init(&t, &r, 3);
    step(&r, &t, 0, TOKENS);
    unsigned char *p = take_out(&r, &t);
    engine_describe(r.engine, &info);
    ck_assert_str_eq(info.numerics, "cpu-1 int8");
    ck_assert_uint_eq(crc32c(p, BLOCKS * block_bytes(&r, 0)), 1952336432U);
    free(p);
    rig_close(&r);
}
END_TEST

START_TEST(what_auto_takes_is_said) {
    rig r;
    engine_info info;
    engine_options o = rig_options();
    o.activations = ACTIVATION_AUTO;
    rig_open(&r, test_model(), &o);
    engine_describe(r.engine, &info);
    ck_assert_str_eq(info.numerics, "cpu-1 int8");
    ck_assert_msg(strstr(info.detail, ", int8 activations (auto), "), "%s", info.detail);
    rig_close(&r);
}
END_TEST

CHECK_MAIN("kv_move", blocks_that_were_away_give_the_same_bits, the_bits_are_those_of_cpu_1,
           what_auto_takes_is_said)
