/* Granite 4 and Nemotron-H: what their config.json says beside that of other families, and the programs
 * that follow from it. */
#include <stdio.h>
#include <string.h>

#include "model/hf/hf_config.h"
#include "model/model.h"
#include "tests/check_main.h"

#define COMMON                                                                                 \
    "\"vocab_size\":96,\"hidden_size\":64,\"num_attention_heads\":4,\"intermediate_size\":80," \
    "\"num_key_value_heads\":2,\"max_position_embeddings\":256,"
#define NEMOTRON                                                                               \
    "{\"model_type\":\"nemotron_h\"," COMMON                                                   \
    "\"num_hidden_layers\":4,\"hybrid_override_pattern\":\"M-*-\",\"mamba_num_heads\":8,"      \
    "\"mamba_head_dim\":16,\"n_groups\":2,\"ssm_state_size\":16,\"tie_word_embeddings\":false"
#define GRANITE                                                                                \
    "{\"model_type\":\"granitemoehybrid\"," COMMON                                             \
    "\"num_hidden_layers\":2,\"mamba_n_heads\":8,\"mamba_n_groups\":2,\"mamba_d_state\":16,"   \
    "\"mamba_d_head\":16,\"layer_types\":[\"mamba\",\"attention\"],"                           \
    "\"shared_intermediate_size\":80"

static model_config config_of(const char *text) {
    hf_config h;
    err e;
    ck_assert_msg(hf_config_parse(&h, str_of(text), &e) == OK, "%s: %s", text, e.text);
    return h.config;
}

static void refused(const char *text, const char *field) {
    hf_config h;
    err e;
    ck_assert_int_eq(hf_config_parse(&h, str_of(text), &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, field);
}

static const op *op_of(const program *p, op_kind kind) {
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (p->ops[i].kind == kind) return &p->ops[i];
    ck_abort_msg("no %s", op_kind_name(kind));
}

/* Infinity is no JSON: Python writes the word all the same, transformers 5 an object. */
START_TEST(limits_of_the_step_are_read_in_every_spelling) {
    static const struct {
        const char *text;
        float min, max;
    } is[] = {{"", 0, 0},
              {",\"time_step_limit\":null", 0, 0},
              {",\"time_step_limit\":[0.0, Infinity]", 0, 0},
              {",\"time_step_limit\":[0.0, {\"__float__\":\"Infinity\"}]", 0, 0},
              {",\"time_step_limit\":[0.0, 1e20]", 0, 0},
              {",\"time_step_limit\":[0.25, 4]", 0.25f, 4},
              {",\"a\":\"\\\"Infinity\",\"time_step_limit\":[0.5,Infinity]", 0.5f, 0}};
    char text[1024];
    for (size_t i = 0; i < sizeof is / sizeof *is; i++) {
        snprintf(text, sizeof text, "%s%s}", NEMOTRON, is[i].text);
        const model_config c = config_of(text);
        ck_assert(c.dt_min == is[i].min && c.dt_max == is[i].max);
        model *m;
        err e;
        ck_assert_msg(model_from_config(&m, &c, DT_F16, &e) == OK, "%s", e.text);
        const op *o = op_of(&m->program, OP_SSM);
        ck_assert(o->delta.dt_min == is[i].min && o->delta.dt_max == is[i].max);
        model_close(m);
    }
}
END_TEST

START_TEST(what_is_not_computed_is_refused_by_name) {
    static const char *const bad[][2] = {
        {"time_step_limit", "[0.1]"},  {"time_step_limit", "[2,1]"},
        {"time_step_limit", "[-1,1]"}, {"time_step_limit", "7"},
        {"mamba_proj_bias", "true"},   {"use_bias", "true"},
        {"attention_bias", "true"},    {"mlp_bias", "true"},
        {"use_conv_bias", "false"},    {"mamba_hidden_act", "\"gelu\""}};
    char text[1024];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "%s,\"%s\":%s}", NEMOTRON, bad[i][0], bad[i][1]);
        refused(text, bad[i][0]);
        snprintf(text, sizeof text, "%s,\"%s\":%s}", GRANITE, bad[i][0], bad[i][1]);
        refused(text, bad[i][0]);
    }
    refused(NEMOTRON ",\"mlp_hidden_act\":\"silu\"}", "mlp_hidden_act");
    refused(GRANITE ",\"hidden_act\":\"relu2\"}", "hidden_act");
}
END_TEST

START_TEST(granite_is_rotated_only_where_it_says_so) {
    ck_assert_uint_eq(config_of(GRANITE "}").nope_every, 1);
    ck_assert_uint_eq(config_of(GRANITE ",\"position_embedding_type\":\"nope\"}").nope_every,
                      1);
    ck_assert_uint_eq(config_of(GRANITE ",\"position_embedding_type\":\"rope\"}").nope_every,
                      0);
    ck_assert_uint_eq(config_of(NEMOTRON "}").rope.n_dims, 0);
}
END_TEST

START_TEST(the_four_scales_and_the_norms_are_read) {
    const model_config g = config_of(
        GRANITE
        ",\"embedding_multiplier\":12,\"residual_multiplier\":0.22,"
        "\"attention_multiplier\":0.0078125,\"logits_scaling\":6,\"rms_norm_eps\":1e-5}");
    ck_assert(g.embd_scale == 12 && g.residual_scale == 0.22f && g.attn_scale == 0.0078125f);
    ck_assert(g.logit_scale == 6 && g.norm_eps == 1e-5f);
    const model_config n =
        config_of(NEMOTRON ",\"layer_norm_epsilon\":0.001,\"attention_head_dim\":24}");
    ck_assert(n.norm_eps == 0.001f && n.head_dim == 24);
}
END_TEST

START_TEST(what_the_scan_gives_is_normed_by_groups) {
    const char *const text[] = {GRANITE "}", NEMOTRON "}"};
    for (uint32_t i = 0; i < 2; i++) {
        const model_config c = config_of(text[i]);
        model *m;
        err e;
        ck_assert_msg(model_from_config(&m, &c, DT_F16, &e) == OK, "%s", e.text);
        const program *p = &m->program;
        const op *scan = op_of(p, OP_SSM), *norm = scan + 2;
        ck_assert(norm->kind == OP_NORM && norm->norm.groups == 2);
        ck_assert_uint_eq(p->values[norm->out].cols, 128);
        ck_assert_uint_eq(scan->state_floats, 8 * 16 * 16 + 16 * (2 * 16 + 8 * 17));
        ck_assert_uint_eq(op_of(p, OP_CONV)->state_floats, 19 * (128 + 2 * 2 * 16));
        ck_assert_uint_eq(op_of(p, OP_GATE_UP)->n_weights, i ? 1 : 2);
        model_close(m);
    }
}
END_TEST

CHECK_MAIN("mamba2", limits_of_the_step_are_read_in_every_spelling,
           what_is_not_computed_is_refused_by_name, granite_is_rotated_only_where_it_says_so,
           the_four_scales_and_the_norms_are_read, what_the_scan_gives_is_normed_by_groups)
