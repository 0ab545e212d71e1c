/* Quantised files of Hugging Face, and llama.cpp's mixtures: bytes as they are published. The
 * texts are the members that count of the config.json on each model's page. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/hf/hf_config.h"
#include "model/model.h"
#include "tests/check_main.h"
#include "tests/json.h"
#include "tests/model/kv_bytes.h"
#include "tests/model/config_params.h"

/* meta-llama/Llama-3.1-8B, without the closing brace */
static const char llama31_8b[] =
    "{\"model_type\":\"llama\",\"hidden_size\":4096,\"intermediate_size\":14336,"
    "\"max_position_embeddings\":131072,\"num_attention_heads\":32,\"num_hidden_layers\":32,"
    "\"num_key_value_heads\":8,\"rope_theta\":500000.0,\"tie_word_embeddings\":false,"
    "\"torch_dtype\":\"bfloat16\",\"vocab_size\":128256";
/* Qwen/Qwen2.5-7B */
static const char qwen25_7b[] =
    "{\"model_type\":\"qwen2\",\"hidden_size\":3584,\"intermediate_size\":18944,"
    "\"max_position_embeddings\":131072,\"num_attention_heads\":28,\"num_hidden_layers\":28,"
    "\"num_key_value_heads\":4,\"tie_word_embeddings\":false,\"vocab_size\":152064";
/* Qwen/Qwen3-30B-A3B */
static const char qwen3_30b[] =
    "{\"model_type\":\"qwen3_moe\",\"attention_bias\":false,\"decoder_sparse_step\":1,"
    "\"head_dim\":128,\"hidden_act\":\"silu\",\"hidden_size\":2048,\"intermediate_size\":6144,"
    "\"max_position_embeddings\":40960,\"max_window_layers\":48,\"mlp_only_layers\":[],"
    "\"moe_intermediate_size\":768,\"num_attention_heads\":32,\"num_experts\":128,"
    "\"num_experts_per_tok\":8,\"num_hidden_layers\":48,\"num_key_value_heads\":4,"
    "\"sliding_window\":null,\"tie_word_embeddings\":false,\"use_sliding_window\":false,"
    "\"vocab_size\":151936";
/* openai/gpt-oss-20b */
static const char gpt_oss_20b[] =
    "{\"model_type\":\"gpt_oss\",\"attention_bias\":true,\"head_dim\":64,\"hidden_act\":"
    "\"silu\","
    "\"hidden_size\":2880,\"intermediate_size\":2880,\"max_position_embeddings\":131072,"
    "\"num_attention_heads\":64,\"num_experts_per_tok\":4,\"num_hidden_layers\":24,"
    "\"num_key_value_heads\":8,\"num_local_experts\":32,\"rms_norm_eps\":1e-05,"
    "\"rope_scaling\":{\"beta_fast\":32.0,\"beta_slow\":1.0,\"factor\":32.0,"
    "\"original_max_position_embeddings\":4096,\"rope_type\":\"yarn\"},\"rope_theta\":150000,"
    "\"sliding_window\":128,\"tie_word_embeddings\":false,\"vocab_size\":201088";

/* meta-llama/Llama-3.3-70B-Instruct */
static const char llama33_70b[] =
    "{\"model_type\":\"llama\",\"hidden_size\":8192,\"intermediate_size\":28672,"
    "\"max_position_embeddings\":131072,\"num_attention_heads\":64,\"num_hidden_layers\":80,"
    "\"num_key_value_heads\":8,\"rope_theta\":500000.0,\"tie_word_embeddings\":false,"
    "\"torch_dtype\":\"bfloat16\",\"vocab_size\":128256";

static const uint64_t LLAMA_LINEAR = 6979321856, LLAMA_ENDS = 2 * 128256ull * 4096,
                      LLAMA_NORMS = 65 * 4096;

static hf_config parsed(const char *base, const char *quant) {
    char text[4096];
    hf_config h;
    err e;
    snprintf(text, sizeof text, "%s%s%s}", base, quant ? ",\"quantization_config\":" : "",
             quant ? quant : "");
    ck_assert_msg(hf_config_parse(&h, str_of(text), &e) == OK, "%s (%s)", e.text, e.field);
    return h;
}

static uint64_t bytes_of(const hf_config *h) {
    model *m;
    err e;
    uint64_t sum = 0;
    bool quantised;
    ck_assert_msg(model_from_mix(&m, &h->config, (weight_mix){h->type, MIX_NONE}, &e) == OK,
                  "%s", e.text);
    for (uint32_t i = 0; i < m->program.n_weights; i++)
        sum += hf_quant_bytes(&h->quant, &m->program.weights[i], &quantised);
    model_close(m);
    return sum;
}

static uint64_t stored(const char *base, const char *quant) {
    const hf_config h = parsed(base, quant);
    ck_assert_uint_gt(h.quant.bits, 0);
    return bytes_of(&h);
}

START_TEST(files_of_four_bits_have_scales_and_zero_points_beside_them) {
    /* hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4: 5.73 GB */
    const uint64_t groups = LLAMA_LINEAR / 128;
    const uint64_t awq =
        LLAMA_LINEAR / 2 + groups * 2 + groups / 2 + 2 * (LLAMA_ENDS + LLAMA_NORMS);
    ck_assert_uint_eq(stored(
        llama31_8b, JSON({"bits": 4, "group_size": 128, "modules_to_not_convert": null,
                     "quant_method": "awq", "version": "gemm", "zero_point": true})),
        awq);
    ck_assert_uint_eq(awq / 10000000, 572);
    /* RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16 by AutoGPTQ: an index of groups, and a
     * bias for each output; 5,735,587,840 bytes by the headers of its files. */
    const uint64_t inputs = 32 * (6 * 4096ull + 14336);
    const uint64_t outputs = 32 * (4096ull + 2 * 1024 + 4096 + 2 * 14336 + 4096);
    ck_assert_uint_eq(awq + 4 * inputs + 2 * outputs, 5735587840);
    ck_assert_uint_eq(stored(llama31_8b, JSON({"bits": 4, "group_size": 128, "desc_act": true,
                                               "quant_method": "gptq", "sym": true})),
                             5735587840);
    ck_assert_uint_eq(
        stored(llama31_8b, JSON({"bits": 4, "group_size": 128, "quant_method": "gptq",
                                   "meta": {"quantizer": ["gptqmodel:2.0.0"]}})),
                                awq + 4 * inputs);
    /* The biases that Qwen2.5 has are there once. */
    const uint64_t qkv = 28 * (3584ull + 2 * 512);
    ck_assert_uint_eq(stored(
        qwen25_7b, JSON({"quant_method": "gptq"})) -
        stored(qwen25_7b, JSON({"quant_method": "gptq",
                                                  "meta": {"quantizer": "gptqmodel:2"}})),
               2 * (28 * (3584ull * 3 + 2 * 512 + 2 * 18944) - qkv));
    /* One group per matrix; the output matrix too. */
    ck_assert_uint_eq(stored(llama31_8b, JSON({"bits": 8, "group_size": -1, "lm_head": true,
                                   "quant_method": "gptq"})),
                             LLAMA_LINEAR + LLAMA_ENDS / 2 + 5 * (outputs + 128256) +
                                 4 * (inputs + 4096) + LLAMA_ENDS + 2 * LLAMA_NORMS);
    /* Llama-3.1-8B as compressed-tensors W4A16: shapes, no zero points. */
    ck_assert_uint_eq(stored(
        llama31_8b,
        JSON({"config_groups": {"group_0": {"input_activations": null,
                     "targets": ["Linear"], "weights": {"actorder": null, "num_bits": 4,
                     "group_size": 128, "strategy": "group", "symmetric": true,
                     "type": "int"}}}, "format": "pack-quantized", "ignore": ["lm_head"],
                     "quant_method": "compressed-tensors"})),
              LLAMA_LINEAR / 2 + groups * 2 + 32 * 7 * 16 + 2 * (LLAMA_ENDS + LLAMA_NORMS));
    /* RedHatAI/Llama-3.3-70B-Instruct-quantized.w4a16, with an index of groups: by the headers of
     * its files. */
    ck_assert_uint_eq(stored(
        llama33_70b,
        JSON({"config_groups": {"group_0": {"targets": ["Linear"],
                     "weights": {"actorder": "group", "num_bits": 4, "group_size": 128,
                     "strategy": "group", "symmetric": true, "type": "int"}}},
                     "format": "pack-quantized", "ignore": ["lm_head"],
                     "quant_method": "compressed-tensors"})),
             39525311232);
}
END_TEST

START_TEST(files_of_eight_bits_are_not_planned_as_sixteen) {
    const uint64_t rest = 2 * (LLAMA_ENDS + LLAMA_NORMS);
    /* neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8: 9.08 GB, a scale of weights and of inputs */
    ck_assert_uint_eq(stored(llama31_8b,
                             JSON({"activation_scheme": "static", "quant_method": "fp8",
                                   "ignored_layers": ["lm_head"]})),
                             LLAMA_LINEAR + 32 * 7 * 8 + rest);
    /* RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic: a scale of 16 bits for each output */
    const uint64_t outputs = 32 * (4096ull + 2 * 1024 + 4096 + 2 * 14336 + 4096);
    ck_assert_uint_eq(stored(
        llama31_8b,
        JSON({"config_groups": {"group_0": {"input_activations": {"dynamic": true,
                     "num_bits": 8, "strategy": "token", "type": "float"},
                     "targets": ["Linear"], "weights": {"num_bits": 8, "strategy": "channel",
                     "symmetric": true, "type": "float"}}}, "format": "float-quantized",
                     "ignore": ["lm_head"], "quant_method": "compressed-tensors"})),
             9083953152); /* by the headers of its files */
    ck_assert_uint_eq(LLAMA_LINEAR + 2 * outputs + rest, 9083953152);
    /* Blocks of 128 x 128 with a scale of 32 bits each, as DeepSeek publishes them. */
    ck_assert_uint_eq(stored(llama31_8b,
                             JSON({"quant_method": "fp8",
                                               "weight_block_size": [128, 128]})),
                             LLAMA_LINEAR + LLAMA_LINEAR / 16384 * 4 + rest);
}
END_TEST

START_TEST(modules_that_are_listed_stay_as_they_are) {
    const uint64_t all = stored(llama31_8b, JSON({"quant_method": "fp8"}));
    const uint64_t q = 4096 * 4096, gate = 4096 * 14336;
    const struct {
        const char *list;
        uint64_t more; /* bytes: one more for each code, less the scale */
    } t[] = {
        {"[\"model.layers.1.self_attn.q_proj\"]", q - 4}, /* not of layers 10 to 19 */
        {"[\"q_proj\"]", 32 * (q - 4)},
        {"[\"mlp.gate\"]", 0}, /* a router's name, not gate_proj */
        {"[\"re:.*mlp.gate_proj$\"]", 32 * (gate - 4)},
        {"[\"re:.*gate$\"]", 0},
        {"[\"re:model.*layers.(0|3[01]).mlp.(?:gate|none)_proj\"]", 3 * (gate - 4)},
        {"[\"re:^model\\\\.layers\\\\.\\\\d\\\\..+q_proj|re\"]", 10 * (q - 4)},
        {"[\"re:mlp.gate_proj\"]", 0},                 /* from the start, as re.match does */
        {"[\"re:.*?[^k-v]_proj$\"]", 32 * (gate - 4)}, /* not q, k, v, o, up, down */
        {"[\"re:model\\\\.layers\\\\.(3|4)\\\\..*gate_proj\"]", 2 * (gate - 4)},
        {"[\"model.language_model.layers.*.mlp.gate_proj\",\"vision_tower\"]", 32 * (gate - 4)},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char quant[256];
        snprintf(quant, sizeof quant,
                 "{\"quant_method\":\"fp8\",\"modules_to_not_convert\":%s}", t[i].list);
        ck_assert_msg(stored(llama31_8b, quant) == all + t[i].more, "%s: %llu", t[i].list,
                      (unsigned long long)(stored(llama31_8b, quant) - all));
    }
}
END_TEST

START_TEST(mixtures_of_experts_are_counted_and_gpt_oss_has_the_bytes_of_its_files) {
    hf_config h = parsed(qwen3_30b, NULL);
    ck_assert_uint_eq(model_config_params(&h.config), 30532122624);
    ck_assert_uint_eq(bytes_of(&h), 2 * 30532122624);
    ck_assert_uint_eq(kv_bytes_per_token(&h.config, DT_F16), 98304);
    h = parsed(gpt_oss_20b,
               JSON({"quant_method": "mxfp4", "modules_to_not_convert":
                                  ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                   "model.embed_tokens", "lm_head"]}));
    ck_assert_uint_eq(model_config_params(&h.config), 20914757184);
    ck_assert_uint_eq(bytes_of(&h), 13761264768); /* as its index says */
    ck_assert(model_config_window(&h.config, 0) == 128 && !model_config_window(&h.config, 1));
    /* Qwen/Qwen3-30B-A3B-FP8: routers stay, scales have 16 bits. */
    const uint64_t routers = 48ull * 128 * 2048, ends = 2 * 151936ull * 2048;
    const uint64_t linear = 30532122624 - ends - routers - 48 * (2 * 2048 + 2 * 128) - 2048;
    ck_assert_uint_eq(
        stored(qwen3_30b,
               JSON({"quant_method": "fp8", "weight_block_size": [128, 128],
                                   "modules_to_not_convert": ["lm_head", "mlp.gate"]})),
                    2 * (30532122624 - linear) + linear + linear / 16384 * 2);
}
END_TEST

START_TEST(what_is_not_known_is_refused_by_name) {
    const struct {
        const char *quant, *field, *says;
    } t[] = {
        {JSON({"quant_method": "bitsandbytes", "load_in_4bit": true}),
              "quantization_config.quant_method", "bitsandbytes"},
         {JSON({"quant_method": "awq", "version": "gemv"}), "quantization_config.version",
               "gemv"},
          {JSON({"quant_method": "gptq", "checkpoint_format": "marlin"}),
                "quantization_config.checkpoint_format", "marlin"},
           {JSON({"quant_method": "gptq", "bits": 5}), "quantization_config.bits", "5"},
            {JSON({"quant_method": "compressed-tensors", "format": "marlin-24"}),
                  "quantization_config.format", "marlin-24"},
             {JSON({"quant_method": "fp8", "modules_to_not_convert": ["re:(a"]}),
                    "quantization_config.modules_to_not_convert", "re:(a"},
              {JSON({"quant_method": "fp8", "modules_to_not_convert": ["re:(a{999}){999}"]}),
                     "quantization_config.modules_to_not_convert", "re:(a{999}){999}"},
               {JSON({"quant_method": "fp8", "modules_to_not_convert": ["re:a++++"]}),
                      "quantization_config.modules_to_not_convert", "re:a++++"},
                {JSON({"quant_method": "fp8", "modules_to_not_convert": ["re:(a|b)*"]}),
                       "quantization_config.modules_to_not_convert", "re:(a|b)*"},
                 {JSON({"bits": 4}), "quantization_config.quant_method", ""},
                  {"7", "quantization_config", "must be an object"},
                };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char text[2048];
        hf_config h;
        err e = {0};
        snprintf(text, sizeof text, "%s,\"quantization_config\":%s}", llama31_8b, t[i].quant);
        ck_assert_msg(hf_config_parse(&h, str_of(text), &e) != OK, "%s", t[i].quant);
        ck_assert_str_eq(e.field, t[i].field);
        ck_assert_ptr_nonnull(strstr(e.text, t[i].says));
    }
}
END_TEST

static uint64_t mixed(const char *base, const char *name) {
    const hf_config h = parsed(base, NULL);
    weight_mix mix;
    model *m;
    err e;
    ck_assert_msg(weight_mix_by_name(&mix, str_of(name)), "%s", name);
    ck_assert_msg(model_from_mix(&m, &h.config, mix, &e) == OK, "%s", e.text);
    uint64_t n = program_weight_bytes(&m->program);
    model_close(m);
    return n;
}

START_TEST(llama_cpps_mixtures_have_the_bytes_of_its_files) {
    /* Bits per weight as its quantize tool publishes them: 4.8944, 5.7036, 6.5633. */
    ck_assert_uint_eq(mixed(llama31_8b, "Q4_K_M"), 4912898048);
    ck_assert_uint_eq(mixed(llama31_8b, "q5_k_m"), 5725151232);
    ck_assert_uint_eq(mixed(llama31_8b, "Q6_K"), 6588170240);
    ck_assert_uint_eq(mixed(qwen25_7b, "Q4_K_M"), 4677120000);
    ck_assert_uint_lt(mixed(llama31_8b, "Q4_K_S"), 4912898048);
    ck_assert_uint_lt(mixed(llama31_8b, "Q3_K_L"), mixed(llama31_8b, "Q4_K_S"));
    ck_assert_uint_lt(mixed(llama31_8b, "Q3_K_M"), mixed(llama31_8b, "Q3_K_L"));
    ck_assert_uint_lt(mixed(llama31_8b, "Q3_K_S"), mixed(llama31_8b, "Q3_K_M"));
    ck_assert_uint_eq(mixed(llama31_8b, "FP16"), mixed(llama31_8b, "bf16"));
    weight_mix mix;
    ck_assert(!weight_mix_by_name(&mix, STR("Q4_K_X")) &&
              !weight_mix_by_name(&mix, STR("i8")) && !weight_mix_by_name(&mix, STR("int8")));
}
END_TEST

START_TEST(schemes_have_names) {
    static const struct {
        const char *name;
        double bits; /* per weight of a layer */
    } t[] = {{"FP8", 8.004},       {"int8", 8.004},      {"AWQ", 4.156},
             {"GPTQ-Int4", 4.164}, {"gptq-int8", 8.195}, {"int4", 4.125}};
    const hf_config h = parsed(llama31_8b, NULL);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        hf_config own = h;
        ck_assert(hf_quant_by_name(&own.quant, str_of(t[i].name)));
        const double bits = (double)(bytes_of(&own) - 2 * (LLAMA_ENDS + LLAMA_NORMS)) * 8 /
                            (double)LLAMA_LINEAR;
        ck_assert_msg(fabs(bits - t[i].bits) < 0.01, "%s: %f", t[i].name, bits);
    }
    hf_config own = h;
    ck_assert(!hf_quant_by_name(&own.quant, STR("fp4")));
}
END_TEST

CHECK_MAIN("hf_quant", files_of_four_bits_have_scales_and_zero_points_beside_them,
           files_of_eight_bits_are_not_planned_as_sixteen,
           modules_that_are_listed_stay_as_they_are,
           mixtures_of_experts_are_counted_and_gpt_oss_has_the_bytes_of_its_files,
           what_is_not_known_is_refused_by_name,
           llama_cpps_mixtures_have_the_bytes_of_its_files, schemes_have_names)
