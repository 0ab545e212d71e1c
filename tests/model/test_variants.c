/* What some families have beside llama's numbers: soft caps, temperatures, scales, layers without
 * rotation, norms of whole rows; from GGUF and from config.json. Their forward passes:
 * tests/engine/test_families.c. */
#include <stddef.h>

#include "model/hf/hf_config.h"
#include "model/model.h"
#include "tests/check_main.h"
#include "tests/model/gguf_shaped.h"
#include "tests/model/config_params.h"

static gb b;
static checkpoint *g;

static void setup(void) {
    gb_init(&b);
}
static void teardown(void) {
    checkpoint_close(g);
    g = NULL;
    gb_clear(&b);
}

static status read_config(model_config *c, err *e) {
    char path[64];
    gb_open(&b, path);
    ck_assert_msg(checkpoint_open(&g, path, e) == OK, "%s", e->text);
    return model_config_read(c, g, e);
}

START_TEST(a_file_of_each_family_says_what_its_config_has) {
    const family *f;
    for (size_t i = 0; (f = family_at(i)); i++) {
        if (f->shaped) continue; /* they are in test_planned.c */
        model_config want = gb_tiny(f->arch), c;
        err e;
        gb_model_keys(&b, &want);
        gb_model_tensors(&b, &want, DT_F32, 1);
        ck_assert_msg(read_config(&c, &e) == OK, "%s: %s", f->arch, e.text);
        ck_assert_msg(model_config_same(&c, &want), "%s", f->arch);
        teardown();
    }
}
END_TEST

START_TEST(each_family_is_planned_with_the_weights_that_are_counted) {
    const family *f;
    for (size_t i = 0; (f = family_at(i)); i++) {
        if (f->shaped) continue;
        const model_config c = gb_tiny(f->arch);
        model *m;
        err e;
        ck_assert_msg(model_from_config(&m, &c, DT_F32, &e) == OK, "%s: %s", f->arch, e.text);
        ck_assert_msg(program_weight_bytes(&m->program) == 4 * model_config_params(&c), "%s",
                      f->arch);
        model_close(m);
    }
}
END_TEST

START_TEST(a_bad_value_names_its_key) {
    static const struct {
        const char *arch;
        size_t field;
        float bad;
        const char *key;
    } t[] = {
        {"gemma2", offsetof(model_config, attn_cap), -1, "attn_logit_softcapping"},
        {"gemma2", offsetof(model_config, attn_cap), 1e-9f, "attn_logit_softcapping"},
        {"gemma2", offsetof(model_config, attn_cap), NAN, "attn_logit_softcapping"},
        {"llama", offsetof(model_config, attn_cap), INFINITY, "attn_logit_softcapping"},
        {"gemma2", offsetof(model_config, logit_cap), -30, "final_logit_softcapping"},
        {"gemma2", offsetof(model_config, logit_cap), 1e9f, "final_logit_softcapping"},
        {"gemma3", offsetof(model_config, logit_cap), NAN, "final_logit_softcapping"},
        {"mistral3", offsetof(model_config, temperature), -1, "attention.temperature_scale"},
        {"mistral3", offsetof(model_config, temperature), NAN, "attention.temperature_scale"},
        {"mistral3", offsetof(model_config, temperature), 1e3f, "attention.temperature_scale"},
        {"mistral3", offsetof(model_config, rope.original_len), 0,
         "rope.scaling.original_context_length"},
        {"granite", offsetof(model_config, embd_scale), -1, "embedding_scale"},
        {"granite", offsetof(model_config, embd_scale), NAN, "embedding_scale"},
        {"granite", offsetof(model_config, residual_scale), -1, "residual_scale"},
        {"granite", offsetof(model_config, residual_scale), 1e-9f, "residual_scale"},
        {"granite", offsetof(model_config, logit_scale), 0, "logit_scale"},
        {"granite", offsetof(model_config, logit_scale), INFINITY, "logit_scale"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        model_config want = gb_tiny(t[i].arch), c;
        char key[64];
        err e;
        memcpy((char *)&want + t[i].field, &t[i].bad, sizeof t[i].bad);
        gb_model_keys(&b, &want);
        gb_model_tensors(&b, &want, DT_F32, 1);
        snprintf(key, sizeof key, "%s.%s", t[i].arch, t[i].key);
        ck_assert_msg(read_config(&c, &e) == ERR_FORMAT, "%s, %g", key, (double)t[i].bad);
        ck_assert_str_eq(e.field, key);
        teardown();
    }
}
END_TEST

START_TEST(what_files_leave_out_the_family_has) {
    model_config c = gb_tiny("gemma2");
    err e;
    c.window = c.window_every = 0, c.attn_cap = c.logit_cap = 0, c.n_ctx_train = 8192;
    gb_model_keys(&b, &c);
    gb_model_tensors(&b, &c, DT_F32, 1);
    ck_assert_msg(read_config(&c, &e) == OK, "%s", e.text);
    ck_assert(c.attn_cap == 50 && c.logit_cap == 30);
    ck_assert_uint_eq(model_config_window(&c, 0), 4096);
    ck_assert_uint_eq(model_config_window(&c, 1), 0);
    teardown();
    /* Granite's logits mean nothing without their scale. */
    gb_str(&b, "general.architecture", "granite");
    gb_int(&b, "granite.block_count", 1);
    gb_int(&b, "granite.context_length", 64);
    gb_int(&b, "granite.embedding_length", 64);
    gb_int(&b, "granite.feed_forward_length", 64);
    gb_int(&b, "granite.attention.head_count", 2);
    gb_int(&b, "granite.vocab_size", 32);
    ck_assert_int_eq(read_config(&c, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "granite.logit_scale");
    teardown();
}
END_TEST

static status read_shaped(const model_config *want, model_config *c, err *e) {
    gb_shaped_keys(&b, want);
    gb_shaped_tensors(&b, want, DT_F32, 1);
    return read_config(c, e);
}

START_TEST(routers_are_what_the_file_says) {
    model_config want = gb_shaped_config("glm4moe", 128, 0), c;
    err e;
    ck_assert_msg(read_shaped(&want, &c, &e) == OK, "%s", e.text);
    ck_assert(model_config_same(&c, &want));
    teardown();
    /* What converters leave out where a bias chooses. */
    want.experts_sigmoid = false;
    ck_assert_msg(read_shaped(&want, &c, &e) == OK, "%s", e.text);
    ck_assert(c.experts_sigmoid && c.shape.choice_bias);
}
END_TEST

START_TEST(keys_and_values_of_layers_that_read_anothers_are_not_loaded) {
    const model_config want = gb_shaped_config("gemma4", 128, 40);
    model_config c;
    model *m;
    err e;
    gb_matrix(&b, "blk.5.attn_k.weight", DT_F32, 64, 64, 1, 1);
    gb_vector(&b, "blk.5.attn_k_norm.weight", 64, 1, 1, 0.2f);
    ck_assert_msg(read_shaped(&want, &c, &e) == OK, "%s", e.text);
    ck_assert_msg(model_open(&m, g, &e) == OK, "%s", e.text);
    ck_assert_uint_eq(m->program.not_loaded_bytes, 4 * (64 * 64 + 64));
    model_close(m);
}
END_TEST

/* YaRN as V2 Lite has it, whose cosines have no factor. */
static const float v2_lite_scale = 1.2608037f * 1.2608037f; /* 0.1 * 0.707 ln(40) + 1 */

START_TEST(latent_attention_is_what_the_file_says) {
    model_config want = gb_shaped_config("deepseek2", 128, 0), c;
    err e;
    ck_assert_msg(read_shaped(&want, &c, &e) == OK, "%s", e.text);
    ck_assert(model_config_same(&c, &want));
    teardown();
    gb_str(&b, "deepseek2.rope.scaling.type", "yarn");
    gb_float(&b, "deepseek2.rope.scaling.factor", 40);
    gb_int(&b, "deepseek2.rope.scaling.original_context_length", 4096);
    gb_float(&b, "deepseek2.rope.scaling.yarn_log_multiplier", 0.0707f);
    ck_assert_msg(read_shaped(&want, &c, &e) == OK, "%s", e.text);
    ck_assert(c.rope.scaling == ROPE_SCALING_YARN && c.rope.attn_factor == 1);
    ck_assert_float_eq_tol(c.attn_scale, v2_lite_scale / sqrtf(48), 1e-6f);
    teardown();
    want.shape.kv_rank = 0;
    gb_shaped_keys(&b, &want);
    ck_assert_int_eq(read_config(&c, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "deepseek2.attention.kv_lora_rank");
}
END_TEST

START_TEST(latent_attention_is_what_config_json_says) {
    static const char text[] =
        "{\"model_type\":\"deepseek_v2\",\"hidden_size\":64,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":4,\"num_key_value_heads\":4,\"intermediate_size\":64,"
        "\"vocab_size\":96,\"max_position_embeddings\":163840,\"kv_lora_rank\":32,"
        "\"q_lora_rank\":null,\"qk_nope_head_dim\":32,\"qk_rope_head_dim\":16,"
        "\"v_head_dim\":24,\"n_routed_experts\":8,\"num_experts_per_tok\":2,"
        "\"n_shared_experts\":1,\"moe_intermediate_size\":32,\"n_group\":4,\"topk_group\":2,"
        "\"rope_interleave\":true,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40,"
        "\"original_max_position_embeddings\":4096,\"mscale\":0.707,"
        "\"mscale_all_dim\":0.707}}";
    hf_config c;
    err e;
    ck_assert_msg(hf_config_parse(&c, str_of(text), &e) == OK, "%s", e.text);
    ck_assert_float_eq_tol(c.config.attn_scale, v2_lite_scale / sqrtf(48), 1e-6f);
    ck_assert(c.config.rope.attn_factor == 1 && c.config.rope.n_dims == 16);
    ck_assert_uint_eq(c.config.expert_groups,
                      0); /* V2 chooses greedily unless it says otherwise */
    char bad[sizeof text + 8];
    const char *at = strstr(text, "true");
    snprintf(bad, sizeof bad, "%.*sfalse%s", (int)(at - text), text, at + strlen("true"));
    ck_assert_int_eq(hf_config_parse(&c, str_of(bad), &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "rope_interleave");
}
END_TEST

START_TEST(a_matrix_that_cannot_be_turned_is_named) {
    const model_config want = gb_shaped_config("deepseek2", 128, 0);
    model_config c;
    model *m;
    err e;
    const uint64_t ne[] = {64, 26 * (32 + 32)};
    gb_tensor(&b, "blk.0.attn_kv_b.weight", DT_NVFP4, 2, ne, NULL);
    ck_assert_msg(read_shaped(&want, &c, &e) == OK, "%s", e.text);
    ck_assert_int_eq(model_open(&m, g, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "blk.0.attn_kv_b.weight");
}
END_TEST

START_TEST(groups_that_experts_do_not_fill_are_refused) {
    static const struct {
        uint32_t groups, used, chosen;
    } bad[] = {{3, 2, 2}, {8, 2, 2}, {4, 5, 2}, {4, 1, 3}, {4, 0, 2}};
    model_config want = gb_shaped_config("glm4moe", 128, 0), c;
    const uint32_t i = (uint32_t)_i;
    err e;
    want.expert_groups = bad[i].groups, want.expert_groups_used = bad[i].used;
    want.n_experts_used = bad[i].chosen;
    gb_shaped_keys(&b, &want);
    ck_assert_int_eq(read_config(&c, &e), ERR_FORMAT);
    ck_assert_str_eq(e.field, "glm4moe.expert_group_count");
}
END_TEST

START_TEST(layers_that_are_not_rotated_have_a_table_of_no_dimensions) {
    model_config c = gb_tiny("smollm3");
    model *m;
    err e;
    c.n_layers = 9;
    ck_assert_int_eq(model_from_config(&m, &c, DT_F32, &e), OK);
    const program *p = &m->program;
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        if (o->kind != OP_ROPE_APPEND) continue;
        ck_assert_uint_eq(p->rope[o->rope.table].n_dims, (o->layer + 1) % 4 ? 32 : 0);
        n++;
    }
    ck_assert_uint_eq(n, 9);
    model_close(m);
}
END_TEST

/* ---- config.json ---- */

#define SIZES                                                                                  \
    "\"hidden_size\":64,\"num_hidden_layers\":8,\"num_attention_heads\":4,"                    \
    "\"num_key_value_heads\":2,\"intermediate_size\":96,\"vocab_size\":128,"                   \
    "\"max_position_embeddings\":256"

static status parse(hf_config *c, const char *type, const char *members, err *e) {
    char text[1024];
    snprintf(text, sizeof text, "{\"model_type\":\"%s\"," SIZES "%s%s}", type,
             members[0] ? "," : "", members);
    return hf_config_parse(c, str_of(text), e);
}

START_TEST(members_of_config_json_are_read) {
    hf_config c;
    err e;
    ck_assert_int_eq(parse(&c, "gemma2", "", &e), OK);
    ck_assert(c.config.attn_cap == 50 && c.config.logit_cap == 30);
    ck_assert_int_eq(parse(&c, "gemma2",
                           "\"attn_logit_softcapping\":null,\"final_logit_softcapping\":7,"
                           "\"query_pre_attn_scalar\":64",
                           &e),
                     OK);
    ck_assert(c.config.attn_cap == 0 && c.config.logit_cap == 7);
    ck_assert(c.config.attn_scale == 0.125f);
    ck_assert_int_eq(parse(&c, "smollm3", "", &e), OK);
    ck_assert_uint_eq(model_config_rope(&c.config, 7).n_dims, 0);
    ck_assert_uint_eq(model_config_rope(&c.config, 6).n_dims, 16);
    ck_assert_int_eq(parse(&c, "glm4", "\"attention_bias\":true", &e), OK);
    ck_assert(c.config.qkv_bias && !c.config.o_bias && c.config.rope.n_dims == 8);
    ck_assert_int_eq(c.config.rope.pairing, ROPE_ADJACENT);
    ck_assert_int_eq(parse(&c, "granite", "", &e), OK);
    ck_assert(c.config.attn_scale == 1 && c.config.logit_scale == 1);
    ck_assert_int_eq(parse(&c, "ministral3",
                           "\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":16,"
                           "\"original_max_position_embeddings\":16,\"mscale\":1,"
                           "\"mscale_all_dim\":1,\"llama_4_scaling_beta\":0.1}",
                           &e),
                     OK);
    ck_assert(c.config.temperature == 0.1f && c.config.rope.attn_factor == 1);
    ck_assert_uint_eq(c.config.rope.original_len, 16);
    ck_assert_int_eq(parse(&c, "olmo3", "\"sliding_window\":32,\"rope_theta\":77", &e), OK);
    ck_assert(c.config.qk_norm_whole && c.config.window_theta == 77);
    ck_assert_uint_eq(model_config_window(&c.config, 3), 0);
    ck_assert_uint_eq(model_config_window(&c.config, 4), 32);
}
END_TEST

START_TEST(a_bad_member_is_named) {
    static const char *const t[][3] = {
        {"gemma2", "\"attn_logit_softcapping\":-1", "attn_logit_softcapping"},
        {"gemma2", "\"final_logit_softcapping\":\"30\"", "final_logit_softcapping"},
        {"gemma2", "\"query_pre_attn_scalar\":0", "query_pre_attn_scalar"},
        {"smollm3", "\"no_rope_layers\":[1,1,1,0]", "no_rope_layers"},
        {"smollm3", "\"no_rope_layers\":[1,1,0,1,1,1,1,0]", "no_rope_layers"},
        {"smollm3", "\"no_rope_layer_interval\":3", "no_rope_layer_interval"},
        {"smollm3", "\"no_rope_layer_interval\":0", "no_rope_layer_interval"},
        {"granite", "\"embedding_multiplier\":0", "embedding_multiplier"},
        {"granite", "\"residual_multiplier\":-1", "residual_multiplier"},
        {"granite", "\"attention_multiplier\":0", "attention_multiplier"},
        {"granite", "\"logits_scaling\":0", "logits_scaling"},
        {"glm4", "\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":2}",
         "rope_parameters.partial_rotary_factor"},
        {"ministral3",
         "\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4,"
         "\"llama_4_scaling_beta\":-1}",
         "rope_parameters.llama_4_scaling_beta"},
        {"ministral3",
         "\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4,\"mscale\":-1}",
         "rope_parameters.mscale"},
        {"olmo3", "\"sliding_window\":32,\"layer_types\":[\"full_attention\"]", "layer_types"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        hf_config c;
        err e;
        ck_assert_msg(parse(&c, t[i][0], t[i][1], &e) != OK, "%s: %s", t[i][0], t[i][1]);
        ck_assert_str_eq(e.field, t[i][2]);
    }
}
END_TEST

/* As transformers counts them. */
START_TEST(public_models_have_the_published_number_of_weights) {
    static const struct {
        const char *text;
        uint64_t params;
    } t[] = {
        {"{\"model_type\":\"smollm3\",\"hidden_size\":2048,\"num_hidden_layers\":36,"
         "\"num_attention_heads\":16,\"num_key_value_heads\":4,\"intermediate_size\":11008,"
         "\"vocab_size\":128256,\"max_position_embeddings\":65536}",
         3075098624},
        {"{\"model_type\":\"ministral3\",\"hidden_size\":4096,\"num_hidden_layers\":34,"
         "\"num_attention_heads\":32,\"num_key_value_heads\":8,\"head_dim\":128,"
         "\"intermediate_size\":14336,\"vocab_size\":131072,"
         "\"max_position_embeddings\":262144,\"tie_word_embeddings\":false}",
         8489553920},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        hf_config c;
        err e;
        ck_assert_msg(hf_config_parse(&c, str_of(t[i].text), &e) == OK, "%s", e.text);
        ck_assert_uint_eq(model_config_params(&c.config), t[i].params);
    }
}
END_TEST

int main(void) {
    Suite *s = suite_create("variants");
    TCase *t = check_case(s, "variants");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_file_of_each_family_says_what_its_config_has);
    tcase_add_test(t, each_family_is_planned_with_the_weights_that_are_counted);
    tcase_add_test(t, a_bad_value_names_its_key);
    tcase_add_test(t, what_files_leave_out_the_family_has);
    tcase_add_test(t, routers_are_what_the_file_says);
    tcase_add_test(t, keys_and_values_of_layers_that_read_anothers_are_not_loaded);
    tcase_add_test(t, latent_attention_is_what_the_file_says);
    tcase_add_test(t, latent_attention_is_what_config_json_says);
    tcase_add_test(t, a_matrix_that_cannot_be_turned_is_named);
    tcase_add_loop_test(t, groups_that_experts_do_not_fill_are_refused, 0, 5);
    tcase_add_test(t, layers_that_are_not_rotated_have_a_table_of_no_dimensions);
    tcase_add_test(t, members_of_config_json_are_read);
    tcase_add_test(t, a_bad_member_is_named);
    tcase_add_test(t, public_models_have_the_published_number_of_weights);
    return check_run(s);
}
