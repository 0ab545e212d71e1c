/* From the words of the options to what the engine is opened with. */
#include "daemon/machine.h"
#include "engine/kv_block.h"
#include "tests/check_main.h"

/* The options of the engine for one option set to a word, or two. */
static engine_options engine_of(const char *flag, const char *word, const char *flag2,
                                const char *word2) {
    char *argv[] = {"serve", (char *)flag, (char *)word, (char *)flag2, (char *)word2, NULL};
    int argc = flag2 ? 5 : 3;
    const char *path = test_model();
    const machine_wish none = {0};
    machine m;
    options o;
    err e;
    options_defaults(&o);
    ck_assert_msg(options_load_args(&o, &argc, argv, NULL, &e) == OK, "%s", e.text);
    snprintf(o.model, sizeof o.model, "%s", path);
    snprintf(o.memory, sizeof o.memory, "1GiB");
    o.max_model_len = 256, o.max_num_seqs = 2, o.threads = 1;
    o.backend = BACKEND_CPU;
    status s = machine_plan(&m, &o, &none, &e);
    ck_assert_msg(s == OK || s == ERR_UNSUPPORTED || s == ERR_BUDGET, "%s", e.text);
    const engine_options got = m.engine_opt;
    machine_close(&m);
    return got;
}

START_TEST(keys_and_values_of_the_cache_have_types_of_their_own) {
    static const struct {
        const char *flag, *word, *flag2, *word2;
        dtype k, v;
    } row[] = {
        {"--kv-cache-dtype", "auto", NULL, NULL, DT_F16, DT_F16},
        {"--kv-cache-dtype", "f16", NULL, NULL, DT_F16, DT_F16},
        {"--kv-cache-dtype", "int8", NULL, NULL, DT_INT8, DT_INT8},
        {"--kv-cache-dtype", "fp8", "--cache-type-v", "int4", DT_FP8, DT_INT4},
        {"--cache-type-k", "q8_0", NULL, NULL, DT_Q8_0, DT_F16},
        {"--kv-cache-dtype", "bf16", NULL, NULL, DT_BF16, DT_BF16},
        {"--kv-cache-dtype", "f32", NULL, NULL, DT_F32, DT_F32},
        {"--cache-type-k", "f32", NULL, NULL, DT_F32, DT_F16},
        {"--cache-type-v", "bf16", NULL, NULL, DT_F16, DT_BF16},
        {"--cache-type-k", "bf16", "--cache-type-v", "f32", DT_BF16, DT_F32},
        {"--kv-cache-dtype", "f32", "--cache-type-v", "f16", DT_F32, DT_F16},
        {"--kv-cache-dtype", "f32", "--cache-type-v", "same", DT_F32, DT_F32},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        engine_options o = engine_of(row[i].flag, row[i].word, row[i].flag2, row[i].word2);
        ck_assert_int_eq(o.kv_k, row[i].k);
        ck_assert_int_eq(o.kv_v, row[i].v);
    }
}
END_TEST

START_TEST(the_engine_knows_every_word_of_its_options) {
    static const activation_dtype act[] = {ACTIVATION_AUTO, ACTIVATION_INT8, ACTIVATION_F32,
                                           ACTIVATION_BF16, ACTIVATION_F16};
    static const char *const act_word[] = {"auto", "int8", "f32", "bf16", "f16"};
    static const cpu_isa isa[] = {ISA_AUTO, ISA_PLAIN, ISA_AVX2, ISA_AVXVNNI, ISA_AVX512};
    static const char *const isa_word[] = {"auto", "plain", "avx2", "avxvnni", "avx512"};
    activation_dtype a;
    cpu_isa x;
    for (uint32_t i = 0; i < 5; i++)
        ck_assert_int_eq(engine_of("--activation-dtype", act_word[i], NULL, NULL).activations,
                         act[i]);
    for (uint32_t i = 0; i < 4; i++)
        ck_assert_int_eq(engine_of("--cpu-isa", isa_word[i], NULL, NULL).isa, isa[i]);
    /* Whatever the table comes to list. */
    for (uint32_t i = 0; !str_eqz(options_word("activation_dtype", i), "?"); i++) {
        ck_assert(activation_dtype_by_name(options_word("activation_dtype", i), &a));
        ck_assert(str_eqz(options_word("activation_dtype", i), activation_dtype_name(a)));
    }
    for (uint32_t i = 0; !str_eqz(options_word("cpu_isa", i), "?"); i++) {
        ck_assert(cpu_isa_by_name(options_word("cpu_isa", i), &x));
        ck_assert(str_eqz(options_word("cpu_isa", i), cpu_isa_name(x)));
    }
    static const char *const cache[] = {"kv_cache_dtype", "cache_type_k", "cache_type_v"};
    for (uint32_t k = 0; k < 3; k++)
        for (uint32_t i = 1; !str_eqz(options_word(cache[k], i), "?"); i++)
            ck_assert_ptr_nonnull(kv_type_get(dtype_by_name(options_word(cache[k], i))));
    ck_assert(!cpu_isa_by_name(STR("avx"), &x) && !activation_dtype_by_name(STR(""), &a));
}
END_TEST

CHECK_MAIN("machine", keys_and_values_of_the_cache_have_types_of_their_own,
           the_engine_knows_every_word_of_its_options)
