/* Models that are planned by their config.json: parameters, KV cache and states against the numbers
 * that transformers counts on the meta device (with the defaults of the models' configuration
 * classes, or the published config). */
#include <stdlib.h>
#include <string.h>

#include "model/family.h"
#include "model/hf/hf_config.h"
#include "model/model.h"
#include "tests/check_main.h"
#include "tests/model/gguf_hybrid.h"

typedef struct expected {
    const char *name, *config;
    uint64_t params, kv_bytes; /* of a token in f16 */
    uint64_t state_bytes;      /* of a sequence */
    const char *needs;         /* one operation or trait that it has */
} expected;

#define LINEAR                                                                                 \
    "\"linear_conv_kernel_dim\":4,\"linear_key_head_dim\":128,\"linear_value_head_dim\":128,"  \
    "\"linear_num_key_heads\":16,\"linear_num_value_heads\":32,"
#define LATENT                                                                                 \
    "\"kv_lora_rank\":512,\"qk_rope_head_dim\":64,\"first_k_dense_replace\":1,"                \
    "\"tie_word_embeddings\":false,"

static const expected models[] = {
    {"Qwen3.5-9B",
     "{\"model_type\":\"qwen3_5\",\"text_config\":{\"model_type\":\"qwen3_5_text\"," LINEAR
     "\"vocab_size\":248320,\"hidden_size\":4096,\"intermediate_size\":12288,"
     "\"num_hidden_layers\":32,\"num_attention_heads\":16,\"num_key_value_heads\":4,"
     "\"head_dim\":256,\"max_position_embeddings\":32768,\"tie_word_embeddings\":false,"
     "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000000,"
     "\"partial_rotary_factor\":0.25}}}",
     8953803264, 32768, 74760192, "delta"},
    {"Qwen3.5-35B-A3B",
     "{\"model_type\":\"qwen3_5_moe_text\"," LINEAR
     "\"vocab_size\":248320,\"hidden_size\":2048,\"num_hidden_layers\":40,"
     "\"num_attention_heads\":16,\"num_key_value_heads\":2,\"head_dim\":256,"
     "\"max_position_embeddings\":32768,\"moe_intermediate_size\":512,"
     "\"shared_expert_intermediate_size\":512,\"num_experts\":256,\"num_experts_per_tok\":8,"
     "\"tie_word_embeddings\":false}",
     34660610688, 20480, 93450240, "mul_sigmoid"},
    {"DeepSeek-V3",
     "{\"model_type\":\"deepseek_v3\",\"vocab_size\":129280,\"hidden_size\":7168,"
     "\"intermediate_size\":18432,\"moe_intermediate_size\":2048,\"num_hidden_layers\":61,"
     "\"num_attention_heads\":128,\"num_key_value_heads\":128,\"n_shared_experts\":1,"
     "\"n_routed_experts\":256,\"num_experts_per_tok\":8,\"q_lora_rank\":1536,"
     "\"v_head_dim\":128,\"qk_nope_head_dim\":128,\"max_position_embeddings\":163840,"
     "\"kv_lora_rank\":512,\"qk_rope_head_dim\":64,\"first_k_dense_replace\":3,"
     "\"num_nextn_predict_layers\":1,\"tie_word_embeddings\":false,\"rope_theta\":10000,"
     "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40,\"beta_fast\":32,\"beta_slow\":1,"
     "\"original_max_position_embeddings\":4096,\"mscale\":1.0,\"mscale_all_dim\":1.0}}",
     671026404352, 70272, 0, "latent_kv"},
    {"DeepSeek-V2-Lite",
     "{\"model_type\":\"deepseek_v2\"," LATENT
     "\"vocab_size\":102400,\"hidden_size\":2048,\"intermediate_size\":10944,"
     "\"moe_intermediate_size\":1408,\"num_hidden_layers\":27,\"num_attention_heads\":16,"
     "\"num_key_value_heads\":16,\"n_shared_experts\":2,\"n_routed_experts\":64,"
     "\"num_experts_per_tok\":6,\"q_lora_rank\":null,\"v_head_dim\":128,"
     "\"qk_nope_head_dim\":128,\"max_position_embeddings\":163840}",
     15706484224, 31104, 0, "linear_by_head"},
    {"GLM-4.7-Flash",
     "{\"model_type\":\"glm4_moe_lite\"," LATENT
     "\"vocab_size\":154880,\"hidden_size\":2048,\"intermediate_size\":10240,"
     "\"moe_intermediate_size\":1536,\"num_hidden_layers\":47,\"num_attention_heads\":20,"
     "\"num_key_value_heads\":20,\"n_shared_experts\":1,\"n_routed_experts\":64,"
     "\"num_experts_per_tok\":4,\"q_lora_rank\":768,\"v_head_dim\":256,"
     "\"qk_nope_head_dim\":192,\"max_position_embeddings\":202752}",
     29943390976, 54144, 0, "route"},
    {"LFM2-1.2B",
     "{\"model_type\":\"lfm2\",\"vocab_size\":65536,\"hidden_size\":2048,"
     "\"intermediate_size\":12288,\"num_hidden_layers\":16,\"num_attention_heads\":32,"
     "\"num_key_value_heads\":8,\"max_position_embeddings\":128000,\"conv_L_cache\":3,"
     "\"block_auto_adjust_ff_dim\":true,\"block_ffn_dim_multiplier\":1.0,"
     "\"block_multiple_of\":256,\"full_attn_idxs\":[2,5,8,10,12,14],\"rope_theta\":1000000}",
     1170340608, 12288, 1474560, "conv"},
    {"Gemma 4 E2B",
     "{\"model_type\":\"gemma4\",\"text_config\":{\"model_type\":\"gemma4_text\","
     "\"vocab_size\":262144,\"vocab_size_per_layer_input\":262144,\"hidden_size\":1536,"
     "\"intermediate_size\":6144,\"num_hidden_layers\":35,\"num_attention_heads\":8,"
     "\"num_key_value_heads\":1,\"head_dim\":256,\"global_head_dim\":512,"
     "\"num_kv_shared_layers\":20,\"use_double_wide_mlp\":true,\"sliding_window\":512,"
     "\"hidden_size_per_layer_input\":256,\"max_position_embeddings\":131072,"
     "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"proportional\","
     "\"rope_theta\":1000000,\"partial_rotary_factor\":0.25},\"sliding_attention\":{"
     "\"rope_type\":\"default\",\"rope_theta\":10000}}}}",
     4621490979, 17408, 0, "shared_kv"},
};

static bool needs(const program *p, const char *name) {
    const char *names[OP_SET_MAX];
    const uint32_t n = op_set_names(program_ops(p), names);
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

START_TEST(a_config_gives_parameters_cache_and_states_exactly) {
    const expected *x = &models[_i];
    hf_config h;
    model *m;
    err e;
    uint64_t kv = 0;
    ck_assert_msg(hf_config_parse(&h, str_of(x->config), &e) == OK, "%s: %s", x->name, e.text);
    ck_assert_msg(model_from_config(&m, &h.config, DT_F16, &e) == OK, "%s: %s", x->name,
                  e.text);
    const program *p = &m->program;
    ck_assert_msg(program_params(p) == x->params, "%s: %llu parameters, not %llu", x->name,
                  (unsigned long long)program_params(p), (unsigned long long)x->params);
    for (uint32_t g = 0; g < p->n_groups; g++)
        kv += (uint64_t)p->group[g].n_layers * p->group[g].n_kv_heads * p->group[g].head_dim *
              (p->group[g].latent ? 2 : 4);
    ck_assert_uint_eq(kv, x->kv_bytes);
    ck_assert_uint_eq(program_state_bytes(p), x->state_bytes);
    ck_assert_msg(needs(p, x->needs), "%s needs no %s", x->name, x->needs);
    model_close(m);
}
END_TEST

/* ---- the same model as a GGUF file ---- */

/* A tiny model as config.json, and the keys that a file of it has beside those of every model:
 * "key=3", "key=1.0", "key=0,2" (a number for each layer), "key=tf" (a flag for each layer). */
typedef struct both {
    const char *config, *keys;
} both;

#define TINY                                                                                   \
    "\"vocab_size\":96,\"hidden_size\":64,\"num_attention_heads\":4,"                          \
    "\"num_key_value_heads\":2,\"max_position_embeddings\":256,"
#define TINY_KEYS "context_length=256 embedding_length=64 attention.head_count=4 vocab_size=96 "
#define TINY_LATENT                                                                            \
    "\"kv_lora_rank\":32,\"qk_rope_head_dim\":8,\"qk_nope_head_dim\":12,\"v_head_dim\":20,"    \
    "\"moe_intermediate_size\":32,\"n_routed_experts\":8,\"num_experts_per_tok\":3,"           \
    "\"intermediate_size\":80,\"first_k_dense_replace\":1,"

static const both files[] = {
    {"{\"model_type\":\"qwen3_5_text\"," TINY
     "\"num_hidden_layers\":4,\"intermediate_size\":80,\"head_dim\":32,"
     "\"linear_conv_kernel_dim\":4,\"linear_key_head_dim\":16,\"linear_value_head_dim\":16,"
     "\"linear_num_key_heads\":2,\"linear_num_value_heads\":4,\"tie_word_embeddings\":false}",
     TINY_KEYS
     "block_count=4 feed_forward_length=80 attention.head_count_kv=2 attention.key_length=32 "
     "attention.value_length=32 rope.dimension_count=8 ssm.conv_kernel=4 ssm.state_size=16 "
     "ssm.group_count=2 ssm.time_step_rank=4 ssm.inner_size=64 full_attention_interval=4"},
    {"{\"model_type\":\"qwen3_5_moe_text\"," TINY
     "\"num_hidden_layers\":4,\"head_dim\":32,\"linear_conv_kernel_dim\":4,"
     "\"linear_key_head_dim\":16,\"linear_value_head_dim\":16,\"linear_num_key_heads\":2,"
     "\"linear_num_value_heads\":4,\"moe_intermediate_size\":32,"
     "\"shared_expert_intermediate_size\":40,\"num_experts\":8,\"num_experts_per_tok\":3,"
     "\"tie_word_embeddings\":false}",
     TINY_KEYS
     "block_count=4 feed_forward_length=32 attention.head_count_kv=2 attention.key_length=32 "
     "attention.value_length=32 rope.dimension_count=8 ssm.conv_kernel=4 ssm.state_size=16 "
     "ssm.group_count=2 ssm.time_step_rank=4 ssm.inner_size=64 "
     "attention.recurrent_layers=tttf expert_count=8 expert_used_count=3 "
     "expert_feed_forward_length=32 expert_shared_feed_forward_length=40"},
    {"{\"model_type\":\"lfm2\"," TINY
     "\"num_hidden_layers\":4,\"intermediate_size\":80,\"block_auto_adjust_ff_dim\":false,"
     "\"layer_types\":[\"conv\",\"full_attention\",\"conv\",\"full_attention\"]}",
     TINY_KEYS "block_count=4 feed_forward_length=80 attention.head_count_kv=0,2,0,2 "
               "shortconv.l_cache=3"},
    {"{\"model_type\":\"lfm2_moe\"," TINY
     "\"num_hidden_layers\":4,\"intermediate_size\":80,\"moe_intermediate_size\":32,"
     "\"num_experts\":8,\"num_experts_per_tok\":3,\"num_dense_layers\":1,"
     "\"use_expert_bias\":true,"
     "\"layer_types\":[\"conv\",\"full_attention\",\"conv\",\"full_attention\"]}",
     TINY_KEYS
     "block_count=4 feed_forward_length=80 attention.head_count_kv=0,2,0,2 shortconv.l_cache=3 "
     "expert_count=8 expert_used_count=3 expert_feed_forward_length=32 "
     "leading_dense_block_count=1"},
    {"{\"model_type\":\"deepseek_v3\"," TINY TINY_LATENT
     "\"num_hidden_layers\":4,\"n_shared_experts\":2,\"q_lora_rank\":24,"
     "\"tie_word_embeddings\":false,\"num_nextn_predict_layers\":1}",
     TINY_KEYS
     "block_count=5 nextn_predict_layers=1 feed_forward_length=80 attention.head_count_kv=1 "
     "attention.key_length=40 "
     "attention.value_length=32 attention.key_length_mla=20 attention.value_length_mla=20 "
     "attention.q_lora_rank=24 attention.kv_lora_rank=32 rope.dimension_count=8 expert_count=8 "
     "expert_used_count=3 expert_feed_forward_length=32 expert_shared_count=2 "
     "leading_dense_block_count=1"},
    {"{\"model_type\":\"deepseek_v2\"," TINY TINY_LATENT
     "\"num_hidden_layers\":3,\"n_shared_experts\":2,\"q_lora_rank\":null,"
     "\"tie_word_embeddings\":false}",
     TINY_KEYS
     "block_count=3 feed_forward_length=80 attention.head_count_kv=1 attention.key_length=40 "
     "attention.value_length=32 attention.key_length_mla=20 attention.value_length_mla=20 "
     "attention.kv_lora_rank=32 rope.dimension_count=8 expert_count=8 expert_used_count=3 "
     "expert_feed_forward_length=32 expert_shared_count=2 leading_dense_block_count=1"},
    {"{\"model_type\":\"glm4_moe\"," TINY
     "\"num_hidden_layers\":4,\"head_dim\":24,\"intermediate_size\":80,"
     "\"moe_intermediate_size\":32,\"n_routed_experts\":8,\"n_shared_experts\":1,"
     "\"num_experts_per_tok\":3,\"first_k_dense_replace\":1,\"use_qk_norm\":true,"
     "\"attention_bias\":true,\"partial_rotary_factor\":0.5,\"tie_word_embeddings\":false,"
     "\"num_nextn_predict_layers\":1}",
     TINY_KEYS
     "block_count=5 nextn_predict_layers=1 feed_forward_length=80 attention.head_count_kv=2 "
     "attention.key_length=24 attention.value_length=24 rope.dimension_count=12 expert_count=8 "
     "expert_used_count=3 expert_feed_forward_length=32 expert_shared_count=1 "
     "leading_dense_block_count=1"},
    {"{\"model_type\":\"granitemoehybrid\"," TINY
     "\"num_hidden_layers\":4,\"intermediate_size\":32,\"num_local_experts\":8,"
     "\"num_experts_per_tok\":3,\"shared_intermediate_size\":40,\"mamba_n_heads\":8,"
     "\"mamba_n_groups\":2,\"mamba_d_state\":16,\"mamba_d_head\":16,\"mamba_expand\":2,"
     "\"mamba_d_conv\":4,"
     "\"layer_types\":[\"mamba\",\"attention\",\"linear_attention\",\"full_attention\"]}",
     TINY_KEYS
     "block_count=4 feed_forward_length=32 attention.head_count_kv=0,2,0,2 ssm.conv_kernel=4 "
     "ssm.state_size=16 ssm.group_count=2 ssm.time_step_rank=8 ssm.inner_size=128 "
     "expert_count=8 expert_used_count=3 expert_shared_feed_forward_length=40 logit_scale=1.0"},
    {"{\"model_type\":\"nemotron_h\"," TINY
     "\"num_hidden_layers\":4,\"head_dim\":16,\"intermediate_size\":80,"
     "\"hybrid_override_pattern\":\"ME*-\",\"mamba_num_heads\":8,\"mamba_head_dim\":16,"
     "\"n_groups\":2,\"ssm_state_size\":16,\"conv_kernel\":4,\"n_routed_experts\":8,"
     "\"n_shared_experts\":1,\"num_experts_per_tok\":3,\"moe_intermediate_size\":32,"
     "\"moe_shared_expert_intermediate_size\":40,\"moe_latent_size\":24,"
     "\"tie_word_embeddings\":false}",
     TINY_KEYS
     "block_count=4 feed_forward_length=0,80,0,80 attention.head_count_kv=0,0,2,0 "
     "attention.key_length=16 attention.value_length=16 ssm.conv_kernel=4 ssm.state_size=16 "
     "ssm.group_count=2 ssm.time_step_rank=8 ssm.inner_size=128 expert_count=8 "
     "expert_used_count=3 expert_feed_forward_length=32 "
     "expert_shared_feed_forward_length=40"},
    {"{\"model_type\":\"bert\",\"vocab_size\":96,\"hidden_size\":64,\"num_hidden_layers\":2,"
     "\"num_attention_heads\":4,\"intermediate_size\":80,\"max_position_embeddings\":256}",
     TINY_KEYS "block_count=2 feed_forward_length=80"},
    {"{\"model_type\":\"nomic_bert\",\"vocab_size\":96,\"n_embd\":64,\"n_layer\":2,"
     "\"n_head\":4,\"n_inner\":80,\"n_positions\":256,\"type_vocab_size\":2}",
     TINY_KEYS "block_count=2 feed_forward_length=80"},
    {"{\"model_type\":\"gemma4_text\"," TINY
     "\"num_hidden_layers\":6,\"head_dim\":16,\"global_head_dim\":32,"
     "\"intermediate_size\":80,\"sliding_window\":12,\"num_kv_shared_layers\":2,"
     "\"use_double_wide_mlp\":true,\"hidden_size_per_layer_input\":8,"
     "\"vocab_size_per_layer_input\":96,\"layer_types\":[\"sliding_attention\","
     "\"full_attention\",\"sliding_attention\",\"full_attention\",\"sliding_attention\","
     "\"full_attention\"]}",
     TINY_KEYS
     "block_count=6 feed_forward_length=80,80,80,80,160,160 attention.head_count_kv=2 "
     "attention.key_length=32 attention.value_length=32 attention.key_length_swa=16 "
     "attention.value_length_swa=16 attention.sliding_window=12 "
     "attention.sliding_window_pattern=tftftf attention.shared_kv_layers=2 "
     "embedding_length_per_layer_input=8"},
    {"{\"model_type\":\"gemma4_text\"," TINY
     "\"num_hidden_layers\":4,\"head_dim\":16,\"global_head_dim\":32,"
     "\"num_global_key_value_heads\":1,\"attention_k_eq_v\":true,"
     "\"intermediate_size\":80,\"sliding_window\":12,\"enable_moe_block\":true,"
     "\"num_experts\":8,\"top_k_experts\":3,\"moe_intermediate_size\":32,"
     "\"layer_types\":[\"sliding_attention\",\"full_attention\",\"sliding_attention\","
     "\"full_attention\"]}",
     TINY_KEYS "block_count=4 feed_forward_length=80 attention.head_count_kv=2,1,2,1 "
               "attention.key_length=32 attention.value_length=32 attention.key_length_swa=16 "
               "attention.value_length_swa=16 attention.sliding_window=12 "
               "attention.sliding_window_pattern=tftf expert_count=8 expert_used_count=3 "
               "expert_feed_forward_length=32"},
};

static void put_value(gb *b, const char *key, const char *v) {
    enum { MOST = 16 };
    int32_t ints[MOST];
    unsigned char flags[MOST];
    size_t n = 0;
    if (*v == 't' || *v == 'f') {
        for (; v[n]; n++) flags[n] = v[n] == 't';
        gb_array(b, key, 7, n, flags, n); /* 7: bool */
        return;
    }
    if (strchr(v, '.')) {
        gb_float(b, key, (float)atof(v));
        return;
    }
    if (!strchr(v, ',')) {
        gb_int(b, key, (uint32_t)atoi(v));
        return;
    }
    for (const char *at = v; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        ints[n++] = atoi(at);
    gb_ints(b, key, ints, n);
}

static void put_keys(gb *b, const char *arch, const char *keys) {
    char copy[1024], key[128], *save, *v;
    snprintf(copy, sizeof copy, "%s", keys);
    gb_str(b, "general.architecture", arch);
    for (char *k = strtok_r(copy, " ", &save); k; k = strtok_r(NULL, " ", &save)) {
        v = strchr(k, '=');
        *v++ = '\0';
        snprintf(key, sizeof key, "%s.%s", arch, k);
        put_value(b, key, v);
    }
}

static void put_tensors(gb *b, const program *p) {
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        const bool vector = w->role == WEIGHT_VECTOR && w->rows == 1;
        const uint64_t ne[] = {w->cols, w->n_experts ? w->rows : gb_all_rows(p, i),
                               w->n_experts};
        if (w->first_row) continue; /* further parts of one tensor */
        gb_tensor(b, w->name, DT_F32, vector ? 1 : w->n_experts ? 3 : 2, ne, NULL);
    }
}

static const weight *same_weight(const program *p, const weight *w) {
    for (uint32_t i = 0; i < p->n_weights; i++)
        if (strcmp(p->weights[i].name, w->name) == 0 && p->weights[i].first_row == w->first_row)
            return &p->weights[i];
    return NULL;
}

START_TEST(a_file_and_a_config_give_the_same_program) {
    const both *x = &files[_i];
    hf_config h;
    model *planned, *of_file;
    checkpoint *file;
    char path[64];
    gb b;
    err e;
    ck_assert_msg(hf_config_parse(&h, str_of(x->config), &e) == OK, "%d: %s", _i, e.text);
    ck_assert_msg(model_from_config(&planned, &h.config, DT_F32, &e) == OK, "%s", e.text);
    gb_init(&b);
    put_keys(&b, h.config.arch, x->keys);
    put_tensors(&b, &planned->program);
    if (h.config.shape.mtp)
        gb_tensor(&b, "blk.4.nextn.eh_proj.weight", DT_F32, 2, (uint64_t[]){128, 64}, NULL);
    gb_open(&b, path);
    ck_assert_msg(checkpoint_open(&file, path, &e) == OK, "%s", e.text);
    ck_assert_msg(model_open(&of_file, file, &e) == OK, "%s: %s", h.config.arch, e.text);
    const program *p = &planned->program, *q = &of_file->program;
    ck_assert_uint_eq(p->n_weights, q->n_weights);
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i], *v = same_weight(q, w);
        ck_assert_msg(v && v->rows == w->rows && v->cols == w->cols &&
                          v->n_experts == w->n_experts,
                      "%s: %s", h.config.arch, w->name);
    }
    ck_assert_uint_eq(program_state_bytes(p), program_state_bytes(q));
    ck_assert_uint_eq(p->n_groups, q->n_groups);
    for (uint32_t g = 0; g < p->n_groups; g++) {
        const kv_group *i = &p->group[g], *k = &q->group[g];
        ck_assert(i->window == k->window && i->n_kv_heads == k->n_kv_heads &&
                  i->head_dim == k->head_dim && i->n_layers == k->n_layers &&
                  i->latent == k->latent);
    }
    ck_assert_uint_eq(program_params(p), program_params(q));
    ck_assert_uint_eq(q->not_loaded_bytes, h.config.shape.mtp ? 4 * 128 * 64 : 0);
    model_close(of_file);
    checkpoint_close(file);
    model_close(planned);
    gb_clear(&b);
}
END_TEST

int main(void) {
    Suite *s = suite_create("planned");
    TCase *t = check_case(s, "planned");
    tcase_add_loop_test(t, a_config_gives_parameters_cache_and_states_exactly, 0,
                        sizeof models / sizeof *models);
    tcase_add_loop_test(t, a_file_and_a_config_give_the_same_program, 0,
                        sizeof files / sizeof *files);
    return check_run(s);
}
