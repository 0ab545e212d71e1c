/* config.json: public models are counted as they are published; what is wrong is named. The
 * texts are the members that count, as in the files on the models' pages. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "model/hf/hf_config.h"
#include "model/model.h"
#include "tests/check_main.h"
#include "tests/json.h"
#include "tests/model/kv_bytes.h"
#include "tests/model/config_params.h"

static const char llama2_7b[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":"
    "\"silu\","
    "\"hidden_size\":4096,\"intermediate_size\":11008,\"max_position_embeddings\":4096,"
    "\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":32,"
    "\"rms_norm_eps\":1e-05,\"rope_scaling\":null,\"tie_word_embeddings\":false,"
    "\"vocab_size\":32000}";
static const char llama31_8b[] =
    "{\"model_type\":\"llama\",\"attention_bias\":false,\"mlp_bias\":false,"
    "\"hidden_size\":4096,\"intermediate_size\":14336,\"max_position_embeddings\":131072,"
    "\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":8,"
    "\"rope_scaling\":{\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
    "\"original_max_position_embeddings\":8192,\"rope_type\":\"llama3\"},"
    "\"rope_theta\":500000.0,\"tie_word_embeddings\":false,\"vocab_size\":128256}";
static const char mistral_7b[] =
    "{\"model_type\":\"mistral\",\"hidden_size\":4096,\"intermediate_size\":14336,"
    "\"max_position_embeddings\":32768,\"num_attention_heads\":32,\"num_hidden_layers\":32,"
    "\"num_key_value_heads\":8,\"sliding_window\":4096,\"vocab_size\":32000}";
static const char mixtral[] =
    "{\"model_type\":\"mixtral\",\"hidden_size\":4096,\"intermediate_size\":14336,"
    "\"max_position_embeddings\":32768,\"num_attention_heads\":32,\"num_hidden_layers\":32,"
    "\"num_key_value_heads\":8,\"num_experts_per_tok\":2,\"num_local_experts\":8,"
    "\"sliding_window\":null,\"rope_theta\":1000000.0,\"vocab_size\":32000}";
static const char qwen25_05b[] =
    "{\"model_type\":\"qwen2\",\"hidden_size\":896,\"intermediate_size\":4864,"
    "\"max_position_embeddings\":32768,\"max_window_layers\":21,\"num_attention_heads\":14,"
    "\"num_hidden_layers\":24,\"num_key_value_heads\":2,\"rms_norm_eps\":1e-06,"
    "\"rope_theta\":1000000.0,\"sliding_window\":32768,\"tie_word_embeddings\":true,"
    "\"use_sliding_window\":false,\"vocab_size\":151936}";
static const char qwen25_7b[] =
    "{\"model_type\":\"qwen2\",\"hidden_size\":3584,\"intermediate_size\":18944,"
    "\"max_position_embeddings\":131072,\"max_window_layers\":28,\"num_attention_heads\":28,"
    "\"num_hidden_layers\":28,\"num_key_value_heads\":4,\"rms_norm_eps\":1e-06,"
    "\"rope_theta\":1000000.0,\"sliding_window\":131072,\"tie_word_embeddings\":false,"
    "\"use_sliding_window\":false,\"vocab_size\":152064}";
static const char gemma2_9b[] =
    "{\"model_type\":\"gemma2\",\"head_dim\":256,\"hidden_size\":3584,"
    "\"intermediate_size\":14336,\"max_position_embeddings\":8192,\"num_attention_heads\":16,"
    "\"num_hidden_layers\":42,\"num_key_value_heads\":8,\"sliding_window\":4096,"
    "\"hidden_act\":\"gelu_pytorch_tanh\",\"vocab_size\":256000}";
static const char gemma3_1b[] =
    "{\"model_type\":\"gemma3_text\",\"head_dim\":256,\"hidden_size\":1152,"
    "\"intermediate_size\":6912,\"max_position_embeddings\":32768,\"num_attention_heads\":4,"
    "\"num_hidden_layers\":26,\"num_key_value_heads\":1,\"sliding_window\":512,"
    "\"sliding_window_pattern\":6,\"vocab_size\":262144}";
static const char phi3_mini[] =
    "{\"model_type\":\"phi3\",\"hidden_size\":3072,\"intermediate_size\":8192,"
    "\"max_position_embeddings\":4096,\"num_attention_heads\":32,\"num_hidden_layers\":32,"
    "\"num_key_value_heads\":32,\"sliding_window\":2047,\"rope_scaling\":null,"
    "\"vocab_size\":32064}";
static const char qwen3_06b[] =
    "{\"model_type\":\"qwen3\",\"attention_bias\":false,\"head_dim\":128,"
    "\"hidden_act\":\"silu\",\"hidden_size\":1024,\"intermediate_size\":3072,"
    "\"max_position_embeddings\":40960,\"max_window_layers\":28,\"num_attention_heads\":16,"
    "\"num_hidden_layers\":28,\"num_key_value_heads\":8,\"rope_theta\":1000000,"
    "\"sliding_window\":null,\"tie_word_embeddings\":true,\"use_sliding_window\":false,"
    "\"vocab_size\":151936}";
static const char smollm2[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":576,\"intermediate_size\":1536,"
    "\"max_position_embeddings\":8192,\"num_attention_heads\":9,\"num_hidden_layers\":30,"
    "\"num_key_value_heads\":3,\"rope_theta\":100000,\"tie_word_embeddings\":true,"
    "\"vocab_size\":49152}";

/* google/gemma-3-4b-it, -12b-it and -27b-it: what is not there has Gemma3TextConfig's default. */
static const char gemma3_4b[] =
    "{\"architectures\":[\"Gemma3ForConditionalGeneration\"],\"model_type\":\"gemma3\","
    "\"text_config\":{\"hidden_size\":2560,\"intermediate_size\":10240,\"model_type\":"
    "\"gemma3_text\",\"num_hidden_layers\":34,\"rope_scaling\":{\"factor\":8.0,"
    "\"rope_type\":\"linear\"},\"sliding_window\":1024},\"torch_dtype\":\"bfloat16\","
    "\"vision_config\":{\"hidden_size\":1152}}";
static const char gemma3_12b[] =
    "{\"model_type\":\"gemma3\",\"text_config\":{\"hidden_size\":3840,\"intermediate_size\":"
    "15360,\"model_type\":\"gemma3_text\",\"num_attention_heads\":16,\"num_hidden_layers\":48,"
    "\"num_key_value_heads\":8,\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},"
    "\"sliding_window\":1024}}";
static const char gemma3_27b[] =
    "{\"model_type\":\"gemma3\",\"text_config\":{\"head_dim\":128,\"hidden_size\":5376,"
    "\"intermediate_size\":21504,\"model_type\":\"gemma3_text\",\"num_attention_heads\":32,"
    "\"num_hidden_layers\":62,\"num_key_value_heads\":16,\"query_pre_attn_scalar\":168,"
    "\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},\"sliding_window\":1024}}";

/* llama2_7b, or qwen25_05b, with members put in front; the last of a name is not repeated. */
static void with(char out[1024], const char *base, const char *members) {
    snprintf(out, 1024, "{%s,%s", members, base + 1);
}

static model_config parsed(const char *text) {
    hf_config h;
    err e;
    ck_assert_msg(hf_config_parse(&h, str_of(text), &e) == OK, "%s (%s)", e.text, e.field);
    return h.config;
}

static void refused(const char *text, status code, const char *field) {
    hf_config c;
    err e = {0};
    status s = hf_config_parse(&c, str_of(text), &e);
    ck_assert_msg(s == code, "status %d: %s (%s)", s, e.text, e.field);
    ck_assert_msg(strcmp(e.field, field) == 0, "field \"%s\", wanted \"%s\": %s", e.field,
                  field, e.text);
}

START_TEST(public_configs_count_the_published_weights) {
    const struct {
        const char *text;
        uint64_t params, kv_f16;
    } t[] = {
        {llama2_7b, 6738415616, 524288},   {llama31_8b, 8030261248, 131072},
        {mistral_7b, 7241732096, 131072},  {mixtral, 46702792704, 131072},
        {qwen25_05b, 494032768, 12288},    {qwen25_7b, 7615616512, 57344},
        {gemma2_9b, 9241705984, 344064},   {gemma3_1b, 999885952, 26624},
        {phi3_mini, 3821079552, 393216},   {smollm2, 134515008, 23040},
        {qwen3_06b, 596049920, 114688},    {gemma3_4b, 3880263168, 139264},
        {gemma3_12b, 11766034176, 393216}, {gemma3_27b, 27009346304, 507904},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        const model_config c = parsed(t[i].text);
        ck_assert_msg(model_config_params(&c) == t[i].params, "%s: %llu", c.name,
                      (unsigned long long)model_config_params(&c));
        ck_assert_uint_eq(kv_bytes_per_token(&c, DT_F16), t[i].kv_f16);
    }
}
END_TEST

START_TEST(a_model_planned_in_bf16_takes_two_bytes_a_weight_and_four_a_norm) {
    const model_config c = parsed(llama2_7b);
    model *m;
    err e;
    ck_assert_int_eq(model_from_config(&m, &c, DT_BF16, &e), OK);
    ck_assert_uint_eq(program_weight_bytes(&m->program), 2 * 6738415616 + 2 * 65 * 4096);
    model_close(m);
}
END_TEST

START_TEST(a_planned_model_has_the_weights_of_its_config) {
    const char *const text[] = {llama2_7b, qwen25_05b, qwen3_06b, gemma3_1b,
                                phi3_mini, mixtral,    gemma2_9b, gemma3_27b};
    for (int i = 0; i < 8; i++) {
        const model_config c = parsed(text[i]);
        const weight_mix f32 = {DT_F32, MIX_NONE};
        model *m;
        err e;
        ck_assert_msg(model_from_mix(&m, &c, f32, &e) == OK, "%s", e.text);
        ck_assert_uint_eq(program_weight_bytes(&m->program), 4 * model_config_params(&c));
        model_close(m);
    }
}
END_TEST

START_TEST(a_text_config_is_read_and_what_is_wrong_in_it_is_named) {
    hf_config h;
    err e;
    ck_assert_int_eq(hf_config_parse(&h, str_of(gemma3_27b), &e), OK);
    const model_config *c = &h.config;
    ck_assert(h.text_part && h.type == DT_BF16 && h.quant.bits == 0);
    ck_assert(c->n_vocab == 262208 && c->n_ctx_train == 131072 && c->window_every == 6);
    ck_assert(fabsf(c->attn_scale - 1 / sqrtf(168)) < 1e-6f);
    ck_assert(c->rope.scaling == ROPE_SCALING_LINEAR && c->rope.factor == 8);
    ck_assert(model_config_window(c, 0) == 1024 && model_config_window(c, 5) == 0);
    refused("{\"model_type\":\"gemma3\",\"text_config\":{\"model_type\":\"gemma3_text\","
            "\"num_hidden_layers\":\"x\"}}",
            ERR_INVALID, "text_config.num_hidden_layers");
    refused("{\"model_type\":\"llava\",\"text_config\":{\"model_type\":\"odd\"}}",
            ERR_UNSUPPORTED, "text_config.model_type");
    ck_assert_int_eq(hf_config_parse(&h, STR("{\"model_type\":\"rwkv7\"}"), &e),
                     ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(e.hint, "vramd plans"));
}
END_TEST

START_TEST(what_is_planned_has_the_weights_that_are_counted) {
    const char *const text[] = {llama2_7b, qwen25_05b, qwen3_06b, gemma3_1b, phi3_mini};
    for (int i = 0; i < 5; i++) {
        const model_config c = parsed(text[i]);
        model *m;
        err e;
        ck_assert_msg(model_from_config(&m, &c, DT_F32, &e) == OK, "%s", e.text);
        ck_assert_uint_eq(program_weight_bytes(&m->program), 4 * model_config_params(&c));
        model_close(m);
    }
}
END_TEST

START_TEST(gemma3_has_two_rotary_bases_and_a_scale) {
    char text[1024];
    model_config c = parsed(gemma3_1b);
    ck_assert(c.qk_norm && c.norms_per_layer == 4 && c.tied_head && c.attn_scale == 0);
    ck_assert(model_config_rope(&c, 0).theta == 1e4f && model_config_rope(&c, 5).theta == 1e6f);
    with(text, gemma3_1b,
         "\"query_pre_attn_scalar\":144,\"rope_local_base_freq\":5000,"
         "\"rope_scaling\":{\"factor\":8,\"rope_type\":\"linear\"}");
    c = parsed(text);
    ck_assert_float_eq_tol(c.attn_scale, 1.0f / 12, 1e-8f);
    ck_assert(model_config_rope(&c, 0).theta == 5000);
    ck_assert_int_eq(model_config_rope(&c, 0).scaling, ROPE_SCALING_NONE);
    ck_assert_int_eq(model_config_rope(&c, 5).scaling, ROPE_SCALING_LINEAR);
    with(text, gemma3_1b,
         "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\","
         "\"rope_theta\":77},\"sliding_attention\":{\"rope_type\":\"default\","
         "\"rope_theta\":55}}");
    c = parsed(text);
    ck_assert(model_config_rope(&c, 0).theta == 55 && model_config_rope(&c, 5).theta == 77);
    with(text, gemma3_1b, "\"layer_types\":[\"full_attention\"]");
    refused(text, ERR_UNSUPPORTED, "layer_types");
}
END_TEST

START_TEST(phi3_has_longrope) {
    char text[1024];
    with(text, phi3_mini,
         "\"original_max_position_embeddings\":1024,"
         "\"rope_parameters\":{\"type\":\"longrope\"}");
    const model_config c = parsed(text);
    ck_assert_int_eq(c.rope.scaling, ROPE_SCALING_LONGROPE);
    ck_assert_uint_eq(c.rope.original_len, 1024);
    ck_assert_float_eq_tol(c.rope.attn_factor, sqrt(1.2), 1e-6);
}
END_TEST

START_TEST(rotation_and_its_scaling_are_read) {
    model_config c = parsed(llama31_8b);
    ck_assert_str_eq(c.arch, "llama");
    ck_assert_int_eq(c.rope.pairing, ROPE_HALVES); /* GGUF alone permutes q and k */
    ck_assert_int_eq(c.rope.scaling, ROPE_SCALING_LLAMA3);
    ck_assert(c.rope.theta == 500000 && c.rope.factor == 8);
    ck_assert(c.rope.low_freq_factor == 1 && c.rope.high_freq_factor == 4);
    ck_assert_uint_eq(c.rope.original_len, 8192);
    ck_assert_int_eq(parsed(qwen25_05b).rope.pairing, ROPE_HALVES);
}
END_TEST

START_TEST(scaling_of_every_spelling_is_read) {
    char text[1024];
    with(text, smollm2, "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}");
    model_config c = parsed(text);
    ck_assert_int_eq(c.rope.scaling, ROPE_SCALING_LINEAR);
    ck_assert(c.rope.factor == 2);
    with(text, qwen25_05b,
         "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,"
         "\"original_max_position_embeddings\":32768}");
    c = parsed(text);
    ck_assert_int_eq(c.rope.scaling, ROPE_SCALING_YARN);
    ck_assert(c.rope.factor == 4 && c.rope.attn_factor == 0 && c.rope.beta_fast == 32);
    with(text, mixtral, "\"rope_scaling\":{\"rope_type\":\"default\"}");
    ck_assert_int_eq(parsed(text).rope.scaling, ROPE_SCALING_NONE);
    with(text, phi3_mini,
         "\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":2,"
         "\"rope_theta\":77,\"attention_factor\":1.5}");
    c = parsed(text);
    ck_assert(c.rope.theta == 77 && c.rope.attn_factor == 1.5f);
    ck_assert_uint_eq(c.rope.original_len, 4096);
}
END_TEST

START_TEST(windows_are_on_the_layers_that_the_family_has_them_on) {
    char text[1024];
    model_config c = parsed(mistral_7b);
    ck_assert_uint_eq(c.window, 4096);
    ck_assert_uint_eq(model_config_window(&c, 31), 4096);
    c = parsed(gemma2_9b);
    ck_assert_uint_eq(model_config_window(&c, 0), 4096);
    ck_assert_uint_eq(model_config_window(&c, 1), 0);
    c = parsed(gemma3_1b);
    ck_assert_uint_eq(model_config_window(&c, 4), 512);
    ck_assert_uint_eq(model_config_window(&c, 5), 0);
    ck_assert_uint_eq(parsed(qwen25_05b).window, 0); /* switched off */
    with(text, smollm2, "\"model_type\":\"qwen2\",\"sliding_window\":128");
    ck_assert_uint_eq(parsed(text).window, 0); /* qwen2: off unless switched on */
    with(text, smollm2,
         "\"model_type\":\"qwen2\",\"sliding_window\":128,\"use_sliding_window\":true,"
         "\"max_window_layers\":0");
    ck_assert_uint_eq(parsed(text).window, 128);
}
END_TEST

START_TEST(biases_are_read_where_the_family_has_the_option) {
    char text[1024];
    with(text, smollm2, "\"attention_bias\":true,\"mlp_bias\":true");
    model_config c = parsed(text);
    ck_assert(c.qkv_bias && c.o_bias && c.ffn_bias);
    with(text, mistral_7b, "\"attention_bias\":true");
    c = parsed(text);
    ck_assert(!c.qkv_bias && !c.o_bias);
    c = parsed(qwen25_05b);
    ck_assert(c.qkv_bias && !c.o_bias && c.tied_head);
    ck_assert(parsed(gemma2_9b).tied_head);
}
END_TEST

START_TEST(text_that_is_no_config_is_refused) {
    refused("", ERR_INVALID, "");
    refused("{", ERR_INVALID, "");
    refused("[1]", ERR_INVALID, "config.json");
    refused("42", ERR_INVALID, "config.json");
    refused("{}", ERR_FORMAT, "model_type");
    refused(JSON({"model_type":"llama","model_type":"llama"}), ERR_INVALID, "");
    refused(JSON({"model_type":"mamba"}), ERR_UNSUPPORTED, "model_type");
    refused(JSON({"model_type":7}), ERR_INVALID, "model_type");
    refused(JSON({"architectures":["GPT2LMHeadModel"]}), ERR_UNSUPPORTED, "architectures");
    refused(JSON({"architectures":7}), ERR_FORMAT, "model_type");
}
END_TEST

START_TEST(a_missing_member_is_named) {
    const char *const members[] = {"hidden_size",         "num_hidden_layers",
                                   "num_attention_heads", "intermediate_size",
                                   "vocab_size",          "max_position_embeddings"};
    for (int i = 0; i < 6; i++) {
        char text[1024];
        snprintf(text, sizeof text, "%s", llama2_7b);
        char *at = strstr(text, members[i]);
        ck_assert_ptr_nonnull(at);
        *at = 'X';
        refused(text, ERR_FORMAT, members[i]);
    }
}
END_TEST

START_TEST(a_member_of_wrong_type_or_range_is_named) {
    const struct {
        const char *was, *is, *field;
        status code;
    } t[] = {
        {"\"hidden_size\":4096", "\"hidden_size\":0", "hidden_size", ERR_INVALID},
        {"\"hidden_size\":4096", "\"hidden_size\":-1", "hidden_size", ERR_INVALID},
        {"\"hidden_size\":4096", "\"hidden_size\":1.5", "hidden_size", ERR_INVALID},
        {"\"hidden_size\":4096", "\"hidden_size\":\"4096\"", "hidden_size", ERR_INVALID},
        {"\"hidden_size\":4096", "\"hidden_size\":1e300", "hidden_size", ERR_INVALID},
        {"\"hidden_size\":4096", "\"hidden_size\":1000000", "hidden_size", ERR_FORMAT},
        {"\"num_hidden_layers\":32", "\"num_hidden_layers\":5000", "num_hidden_layers",
         ERR_FORMAT},
        {"\"num_key_value_heads\":32", "\"num_key_value_heads\":5", "num_key_value_heads",
         ERR_FORMAT},
        {"\"num_attention_heads\":32", "\"num_attention_heads\":31", "num_key_value_heads",
         ERR_FORMAT},
        {"\"rms_norm_eps\":1e-05", "\"rms_norm_eps\":-1", "rms_norm_eps", ERR_INVALID},
        {"\"tie_word_embeddings\":false", "\"tie_word_embeddings\":\"no\"",
         "tie_word_embeddings", ERR_INVALID},
        {"\"hidden_act\":\"silu\"", "\"hidden_act\":\"relu\"", "hidden_act", ERR_UNSUPPORTED},
        {"\"rope_scaling\":null", "\"rope_scaling\":3", "rope_scaling", ERR_INVALID},
        {"\"rope_scaling\":null", "\"rope_scaling\":{}", "rope_scaling.rope_type", ERR_FORMAT},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"longrope\"}",
         "rope_scaling.type", ERR_UNSUPPORTED},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"rope_type\":5}",
         "rope_scaling.rope_type", ERR_INVALID},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"linear\"}",
         "rope_scaling.factor", ERR_FORMAT},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":\"2\"}",
         "rope_scaling.factor", ERR_INVALID},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8}",
         "rope_scaling.low_freq_factor", ERR_FORMAT},
        {"\"rope_scaling\":null",
         "\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
         "\"high_freq_factor\":1,\"original_max_position_embeddings\":8192}",
         "rope_scaling.high_freq_factor", ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char text[1024];
        const char *at = strstr(llama2_7b, t[i].was);
        ck_assert_ptr_nonnull(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - llama2_7b), llama2_7b, t[i].is,
                 at + strlen(t[i].was));
        refused(text, t[i].code, t[i].field);
    }
}
END_TEST

START_TEST(experts_that_are_not_counted_are_not_taken_for_none) {
    char text[1024];
    snprintf(text, sizeof text, "%s", mixtral);
    char *at = strstr(text, "num_local_experts");
    ck_assert_ptr_nonnull(at);
    *at = 'X';
    refused(text, ERR_FORMAT, "num_local_experts");
}
END_TEST

START_TEST(a_range_error_names_the_member_as_the_file_has_it_and_a_remedy) {
    char text[1024];
    hf_config c;
    err e;
    with(text, smollm2,
         "\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":2,\"beta_slow\":0}");
    ck_assert_int_eq(hf_config_parse(&c, str_of(text), &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "rope_parameters.beta_slow");
    ck_assert_ptr_nonnull(strstr(e.text, "config.json: rope_parameters.beta_slow"));
    ck_assert_str_ne(e.hint, "");
    with(text, smollm2, "\"head_dim\":1000000");
    ck_assert_int_eq(hf_config_parse(&c, str_of(text), &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "head_dim");
    ck_assert_str_ne(e.hint, "");
}
END_TEST

START_TEST(a_window_on_the_upper_layers_alone_is_refused) {
    char text[1024];
    with(text, smollm2,
         "\"model_type\":\"qwen2\",\"sliding_window\":128,\"use_sliding_window\":true,"
         "\"max_window_layers\":21");
    refused(text, ERR_UNSUPPORTED, "max_window_layers");
}
END_TEST

START_TEST(a_file_is_read_or_named) {
    char path[] = "/tmp/vramd-config-XXXXXX";
    hf_config c;
    err e;
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, smollm2, sizeof smollm2 - 1), sizeof smollm2 - 1);
    ck_assert_msg(hf_config_load(&c, path, &e) == OK, "%s", e.text);
    ck_assert_uint_eq(c.config.n_embd, 576);
    ck_assert_int_eq(ftruncate(fd, (off_t)2 << 20), 0);
    ck_assert_int_eq(hf_config_load(&c, path, &e), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(e.text, "at most 1048576"));
    close(fd);
    unlink(path);
    ck_assert_int_eq(hf_config_load(&c, path, &e), ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(e.text, path));
    ck_assert_int_eq(hf_config_load(&c, "/tmp", &e), ERR_INVALID);
    ck_assert_str_eq(e.text, "/tmp is not a file");
}
END_TEST

CHECK_MAIN("hf_config", public_configs_count_the_published_weights,
           a_model_planned_in_bf16_takes_two_bytes_a_weight_and_four_a_norm,
           a_planned_model_has_the_weights_of_its_config,
           a_text_config_is_read_and_what_is_wrong_in_it_is_named,
           what_is_planned_has_the_weights_that_are_counted,
           gemma3_has_two_rotary_bases_and_a_scale, phi3_has_longrope,
           rotation_and_its_scaling_are_read, scaling_of_every_spelling_is_read,
           windows_are_on_the_layers_that_the_family_has_them_on,
           biases_are_read_where_the_family_has_the_option, text_that_is_no_config_is_refused,
           a_missing_member_is_named, a_member_of_wrong_type_or_range_is_named,
           experts_that_are_not_counted_are_not_taken_for_none,
           a_range_error_names_the_member_as_the_file_has_it_and_a_remedy,
           a_window_on_the_upper_layers_alone_is_refused, a_file_is_read_or_named)
