/* Members of config.json that families with layers of several kinds have. Names, defaults and
 * formulas: transformers, the configuration class of each model. Owns nothing; main thread. */
#include "model/hf/hf_shape.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Of a step of Mamba-2: as good as none. */
static const double NO_LIMIT = 1e19;

typedef struct shape_reader {
    model_config *c;
    const json_t *o;
    const char *type, *prefix;
    status s;
    err *e;
} shape_reader;

static void name_field(shape_reader *r) {
    char field[sizeof r->e->field];
    if (r->s == OK || !r->prefix[0]) return;
    snprintf(field, sizeof field, "%s", r->e->field);
    err_field(r->e, "%s%s", r->prefix, field);
}

/* A count; absent or null leaves *out alone. */
static void number(shape_reader *r, const char *key, uint32_t *out) {
    int64_t v = *out;
    if (r->s != OK || !json_in_has(r->o, key)) return;
    r->s = json_in_int(r->o, key, 0, 1 << 30, &v, r->e);
    name_field(r);
    *out = (uint32_t)v;
}

/* The first of several names that is there. */
static void one_of(shape_reader *r, const char *const keys[], uint32_t *out) {
    for (; *keys; keys++)
        if (json_in_has(r->o, *keys)) {
            number(r, *keys, out);
            return;
        }
}

static void flag(shape_reader *r, const char *key, uint32_t *out) {
    bool v = *out != 0;
    if (r->s != OK || !json_in_has(r->o, key)) return;
    r->s = json_in_bool(r->o, key, &v, r->e);
    name_field(r);
    *out = v;
}

static void real(shape_reader *r, const char *key, double low, double high, float *out) {
    double v = *out;
    if (r->s != OK) return;
    r->s = json_in_real(r->o, key, low, high, &v, r->e);
    name_field(r);
    *out = (float)v;
}

static void refuse(shape_reader *r, const char *key, const char *what) {
    if (r->s != OK) return;
    err_set(r->e, ERR_UNSUPPORTED, "config.json: %s%s: %s", r->prefix, key, what);
    r->s = err_field(r->e, "%s%s", r->prefix, key);
}

static bool is_type(const shape_reader *r, const char *start) {
    return strncmp(r->type, start, strlen(start)) == 0;
}

/* ---- kinds of layers ---- */

/* Both spellings: of transformers 5, and as the models were published. */
static bool set_kind(model_config *c, uint32_t l, str name, mixer_kind recurrent) {
    model_shape *m = &c->shape;
    m->mixer[l] = MIXER_ATTENTION;
    if (str_eqz(name, "full_attention") || str_eqz(name, "attention") || str_eqz(name, "*"))
        return true;
    if (str_eqz(name, "sliding_attention")) return m->slides[l] = 1, true;
    if (str_eqz(name, "linear_attention") || str_eqz(name, "mamba") || str_eqz(name, "conv") ||
        str_eqz(name, "M"))
        return m->mixer[l] = (uint8_t)recurrent, true;
    m->mixer[l] = MIXER_NONE;
    m->ffn[l] = str_eqz(name, "mlp") || str_eqz(name, "-") ? FFN_DENSE : FFN_USUAL;
    return str_eqz(name, "mlp") || str_eqz(name, "-") || str_eqz(name, "moe") ||
           str_eqz(name, "E");
}

static mixer_kind recurrent_of(const shape_reader *r) {
    if (is_type(r, "qwen3_5")) return MIXER_DELTA;
    return is_type(r, "lfm2") ? MIXER_CONV : MIXER_SSM;
}

/* A list of names, or a text with a letter for each layer. */
static void read_kinds(shape_reader *r, const char *key) {
    const json_t *list = json_object_get(r->o, key);
    const str letters = json_is_string(list) ? json_in_text(list) : STR("");
    const size_t n = json_is_string(list) ? letters.len : json_array_size(list);
    if (r->s == OK && n != r->c->n_layers)
        refuse(r, key, "its length is not the number of layers");
    for (uint32_t l = 0; l < r->c->n_layers && r->s == OK; l++) {
        const json_t *name = json_array_get(list, l);
        const str s = letters.len            ? (str){letters.ptr + l, 1}
                      : json_is_string(name) ? json_in_text(name)
                                             : STR("?");
        if (!set_kind(r->c, l, s, recurrent_of(r))) refuse(r, key, "an unknown kind of layer");
    }
}

/* Where no list says it: every n-th layer has attention, or those that are listed. */
static void default_kinds(shape_reader *r) {
    model_config *c = r->c;
    uint32_t every = 4;
    number(r, "full_attention_interval", &every);
    const json_t *full = json_object_get(r->o, "full_attn_idxs");
    if (is_type(r, "qwen3_5"))
        for (uint32_t l = 0; l < c->n_layers; l++)
            c->shape.mixer[l] = every && (l + 1) % every == 0 ? MIXER_ATTENTION : MIXER_DELTA;
    if (!is_type(r, "lfm2")) return;
    for (uint32_t l = 0; l < c->n_layers; l++)
        c->shape.mixer[l] = json_is_array(full) ? MIXER_CONV : MIXER_ATTENTION;
    for (size_t i = 0; i < json_array_size(full); i++) {
        const json_int_t l = json_integer_value(json_array_get(full, i));
        if (l >= 0 && l < c->n_layers) c->shape.mixer[l] = MIXER_ATTENTION;
    }
}

static void read_layers(shape_reader *r) {
    static const char *const dense[] = {"first_k_dense_replace", "num_dense_layers", NULL};
    static const char *const lists[] = {"layers_block_type", "hybrid_override_pattern",
                                        "layer_types"};
    model_config *c = r->c;
    uint32_t n_dense = is_type(r, "glm4_moe") ? 1 : 0; /* and GLM-4.7-Flash */
    one_of(r, dense, &n_dense);
    for (uint32_t l = 0; l < c->n_layers && r->s == OK; l++)
        c->shape.ffn[l] = l < n_dense ? FFN_DENSE : FFN_USUAL;
    if (r->s != OK) return;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (json_in_has(r->o, lists[i])) {
            read_kinds(r, lists[i]);
            break;
        } else if (i + 1 == sizeof lists / sizeof *lists) {
            default_kinds(r);
        }
    if (!is_type(r, "nemotron_h")) return;
    for (uint32_t l = 0; l < c->n_layers; l++)
        if (c->shape.mixer[l] != MIXER_NONE) c->shape.ffn[l] = FFN_NONE;
}

/* ---- numbers ---- */

/* How experts are chosen, and what weighs them. */
static void read_routing(shape_reader *r) {
    model_config *c = r->c;
    const bool balanced = c->shape.choice_bias; /* as DeepSeek V3 is, and what follows it */
    uint32_t norm = c->experts_norm || balanced;
    const json_t *score = json_object_get(r->o, "scoring_func");
    const json_t *method = json_object_get(r->o, "topk_method");
    c->experts_sigmoid |= balanced;
    if (json_is_string(score)) c->experts_sigmoid = str_eqz(json_in_text(score), "sigmoid");
    flag(r, "norm_topk_prob", &norm);
    c->experts_norm = norm;
    real(r, "routed_scaling_factor", 1e-3, 1e3, &c->experts_scale);
    const bool greedy = json_is_string(method) ? str_eqz(json_in_text(method), "greedy")
                                               : is_type(r, "deepseek_v2");
    if (!greedy) {
        number(r, "n_group", &c->expert_groups);
        number(r, "topk_group", &c->expert_groups_used);
    }
    if (c->expert_groups <= 1) c->expert_groups = c->expert_groups_used = 0;
}

static void read_experts(shape_reader *r) {
    static const char *const n[] = {"num_local_experts", "n_routed_experts", "num_experts",
                                    NULL};
    static const char *const shared[] = {"shared_expert_intermediate_size",
                                         "moe_shared_expert_intermediate_size",
                                         "shared_intermediate_size", NULL};
    model_config *c = r->c;
    model_shape *m = &c->shape;
    uint32_t n_shared = 0;
    one_of(r, n, &c->n_experts);
    if (!c->n_experts && !is_type(r, "granitemoehybrid")) return;
    if (c->n_experts) number(r, "num_experts_per_tok", &c->n_experts_used);
    number(r, "moe_intermediate_size", &m->n_ff_expert);
    number(r, "n_shared_experts", &n_shared);
    c->n_ff_shared = n_shared * m->n_ff_expert;
    one_of(r, shared, &c->n_ff_shared);
    if (is_type(r, "nemotron_h")) c->n_ff_shared *= n_shared > 1 ? n_shared : 1;
    m->shared_gate = is_type(r, "qwen3_5_moe");
    m->choice_bias = is_type(r, "deepseek_v3") || is_type(r, "kimi_k2") ||
                     is_type(r, "glm4_moe") || is_type(r, "nemotron_h");
    flag(r, "use_expert_bias", &m->choice_bias);
    number(r, "moe_latent_size", &m->latent);
    if (c->n_experts) read_routing(r);
    if (c->n_experts || !is_type(r, "granitemoehybrid")) return;
    c->n_ff = c->n_ff_shared; /* without experts what is shared is the whole of it */
    c->n_ff_shared = 0;
}

static void read_latent(shape_reader *r) {
    model_config *c = r->c;
    model_shape *m = &c->shape;
    uint32_t nope = 0;
    number(r, "kv_lora_rank", &m->kv_rank);
    if (!m->kv_rank) return;
    number(r, "q_lora_rank", &m->q_rank);
    number(r, "qk_rope_head_dim", &m->rope_dim);
    number(r, "qk_nope_head_dim", &nope);
    number(r, "v_head_dim", &m->v_dim);
    c->head_dim = nope + m->rope_dim;
    c->rope.n_dims = m->rope_dim;
    c->n_kv_heads = c->n_heads;
    uint32_t adjacent = 1;
    flag(r, "rope_interleave", &adjacent);
    if (!adjacent) refuse(r, "rope_interleave", "it must be true");
    float all = 0;
    shape_reader rope = *r;
    rope.o = json_object_get(r->o, json_object_get(r->o, "rope_parameters") ? "rope_parameters"
                                                                            : "rope_scaling");
    if (json_is_object(rope.o)) real(&rope, "mscale_all_dim", 0, 100, &all);
    r->s = rope.s;
    model_config_scale_latent(c, all);
}

static void read_states(shape_reader *r) {
    static const char *const conv[] = {"linear_conv_kernel_dim", "mamba_d_conv", "conv_kernel",
                                       "conv_L_cache", NULL};
    static const char *const state[] = {"linear_key_head_dim", "mamba_d_state",
                                        "ssm_state_size", NULL};
    static const char *const groups[] = {"linear_num_key_heads", "mamba_n_groups", "n_groups",
                                         NULL};
    static const char *const heads[] = {"linear_num_value_heads", "mamba_n_heads",
                                        "mamba_num_heads", NULL};
    static const char *const width[] = {"linear_value_head_dim", "mamba_d_head",
                                        "mamba_head_dim", NULL};
    model_shape *m = &r->c->shape;
    const bool delta = is_type(r, "qwen3_5"), lfm2 = is_type(r, "lfm2");
    uint32_t head = delta ? 128 : 64, expand = 2;
    m->ssm.conv = lfm2 ? 3 : 4;
    m->ssm.state = 128;
    one_of(r, conv, &m->ssm.conv);
    if (lfm2) {
        m->ssm.state = 0;
        return;
    }
    m->ssm.groups = delta ? 16 : 1;
    m->ssm.heads = delta ? 32 : 128;
    m->heads_grouped = delta;
    one_of(r, state, &m->ssm.state);
    one_of(r, groups, &m->ssm.groups);
    one_of(r, heads, &m->ssm.heads);
    number(r, "mamba_expand", &expand);
    /* granitemoehybrid may say "auto" */
    const json_t *w = json_object_get(r->o, "mamba_d_head");
    if (json_is_string(w))
        head = m->ssm.heads ? expand * r->c->n_embd / m->ssm.heads : 0;
    else
        one_of(r, width, &head);
    const uint64_t inner = (uint64_t)m->ssm.heads * head;
    if (inner > 1 << 20) refuse(r, heads[delta ? 0 : 1], "the states are too wide");
    m->ssm.inner = inner > 1 << 20 ? 0 : (uint32_t)inner;
}

/* A member that has another value than the one that is computed is refused. */
static void only_text(shape_reader *r, const char *key, const char *known) {
    str v = {NULL, 0};
    char what[64];
    if (r->s == OK) r->s = json_in_str(r->o, key, &v, r->e);
    if (r->s != OK || !v.ptr || str_eqz(v, known)) return;
    snprintf(what, sizeof what, "known: %s", known);
    refuse(r, key, what);
}

static void only_off(shape_reader *r, const char *key) {
    uint32_t on = 0;
    flag(r, key, &on);
    if (on) refuse(r, key, "it must be false");
}

/* Limits of dt: [low, high], where high may be no number for none. */
static void read_limits(shape_reader *r) {
    const char *key = "time_step_limit";
    const json_t *v = json_object_get(r->o, key);
    const json_t *low = json_array_get(v, 0), *high = json_array_get(v, 1);
    if (r->s != OK || !v || json_is_null(v)) return;
    const double max = json_is_number(high) ? json_number_value(high) : INFINITY;
    const double min = json_is_number(low) ? json_number_value(low) : -1;
    if (!(json_array_size(v) == 2 && min >= 0 && min <= max && min < NO_LIMIT && max > 0)) {
        refuse(r, key, "it must be two numbers that ascend from 0 on");
        return;
    }
    r->c->dt_min = (float)min;
    r->c->dt_max = max < NO_LIMIT ? (float)max : 0;
}

/* Mamba-2 and what is beside it. */
static void read_mamba2(shape_reader *r) {
    static const char *const off[] = {"mamba_proj_bias", "use_bias", "attention_bias",
                                      "mlp_bias"};
    static const char *const on[] = {"mamba_conv_bias", "use_conv_bias"};
    static const char *const head[] = {"head_dim", "attention_head_dim", NULL};
    model_config *c = r->c;
    read_limits(r);
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) only_off(r, off[i]);
    for (size_t i = 0; i < sizeof on / sizeof *on; i++) {
        uint32_t has = 1;
        flag(r, on[i], &has);
        if (!has) refuse(r, on[i], "it must be true");
    }
    only_text(r, "mamba_hidden_act", "silu");
    if (is_type(r, "nemotron_h")) {
        only_text(r, "mlp_hidden_act", "relu2");
        real(r, "layer_norm_epsilon", 1e-12, 0.1, &c->norm_eps);
        one_of(r, head, &c->head_dim);
        c->rope.n_dims = 0;
        return;
    }
    const json_t *position = json_object_get(r->o, "position_embedding_type");
    if (!json_is_string(position) || !str_eqz(json_in_text(position), "rope"))
        c->nope_every = 1;
}

/* LFM2: two thirds of what the config says, up to a multiple. */
static void adjust_width(shape_reader *r) {
    uint32_t adjust = 1, multiple = 256;
    double by = 1;
    flag(r, "block_auto_adjust_ff_dim", &adjust);
    number(r, "block_multiple_of", &multiple);
    if (r->s == OK) r->s = json_in_real(r->o, "block_ffn_dim_multiplier", 0, 100, &by, r->e);
    if (r->s != OK || !adjust || !multiple) return;
    const uint64_t n = (uint64_t)(by * (double)(2ull * r->c->n_ff / 3));
    r->c->n_ff = (uint32_t)((n + multiple - 1) / multiple * multiple);
}

/* Scores of a classifier: as many as it has names. */
static uint32_t count_labels(const shape_reader *r) {
    const json_t *class = json_array_get(json_object_get(r->o, "architectures"), 0);
    const size_t n = json_object_size(json_object_get(r->o, "id2label"));
    if (!json_is_string(class) ||
        str_find(json_in_text(class), STR("ForSequenceClassification"), 0) == SIZE_MAX)
        return 0;
    return n ? (uint32_t)n : 2; /* transformers' default */
}

/* Whether its scores are used as they are: sentence-transformers, CrossEncoder. */
static bool has_raw_scores(const shape_reader *r) {
    const json_t *v =
        json_object_get(json_object_get(r->o, "sentence_transformers"), "activation_fn");
    if (!v) v = json_object_get(r->o, "sbert_ce_default_activation_function");
    return json_is_string(v) && str_find(json_in_text(v), STR("Identity"), 0) != SIZE_MAX;
}

static void read_bert(shape_reader *r) {
    model_config *c = r->c;
    c->shape.positions = c->shape.ungated = 1;
    c->qkv_bias = c->o_bias = c->ffn_bias = true;
    c->rope.n_dims = 0;
    c->shape.n_labels = count_labels(r);
    c->shape.raw_scores = has_raw_scores(r);
    only_text(r, "hidden_act", "gelu");
    only_text(r, "position_embedding_type", "absolute");
    only_off(r, "is_decoder");
}

static void read_nomic(shape_reader *r) {
    static const char *const off[] = {"prenorm", "parallel_block", "use_rms_norm",
                                      "rotary_emb_interleaved", "causal"};
    model_config *c = r->c;
    uint32_t bias = 0, up_bias = 0;
    double share = 1;
    flag(r, "qkv_proj_bias", &bias);
    flag(r, "mlp_fc1_bias", &up_bias);
    c->qkv_bias = c->o_bias = bias;
    c->ffn_bias = up_bias;
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) only_off(r, off[i]);
    if (up_bias) refuse(r, "mlp_fc1_bias", "it must be false");
    only_text(r, "activation_function", "swiglu");
    real(r, "rotary_emb_base", 1, 1e12, &c->rope.theta);
    if (r->s == OK) r->s = json_in_real(r->o, "rotary_emb_fraction", 0, 1, &share, r->e);
    if (share != 1) refuse(r, "rotary_emb_fraction", "it must be 1");
}

static void read_encoder(shape_reader *r) {
    static const char *const types[] = {"type_vocab_size", NULL};
    static const char *const eps[] = {"layer_norm_eps", "layer_norm_epsilon"};
    model_config *c = r->c;
    c->shape.token_types = 2;
    one_of(r, types, &c->shape.token_types);
    c->norm_eps = 1e-12f;
    for (size_t i = 0; i < sizeof eps / sizeof *eps; i++)
        real(r, eps[i], 1e-15, 0.1, &c->norm_eps);
    if (strcmp(r->type, "bert") == 0)
        read_bert(r);
    else
        read_nomic(r);
}

static void read_gemma4(shape_reader *r) {
    static const char *const used[] = {"top_k_experts", "num_experts_per_tok", NULL};
    model_config *c = r->c;
    model_shape *m = &c->shape;
    double share = 0.25; /* of the pairs of a head without a window that turn */
    uint32_t k_is_v = 0, mixture = 0;
    m->listed = 1;
    m->full_head_dim = 512;
    number(r, "global_head_dim", &m->full_head_dim);
    number(r, "num_global_key_value_heads", &m->full_kv_heads);
    flag(r, "attention_k_eq_v", &k_is_v);
    m->v_is_k = k_is_v;
    if (!k_is_v) m->full_kv_heads = 0;
    number(r, "num_kv_shared_layers", &m->shared_kv);
    flag(r, "use_double_wide_mlp", &m->double_ff);
    number(r, "hidden_size_per_layer_input", &m->per_layer);
    number(r, "vocab_size_per_layer_input", &m->per_layer_vocab);
    if (!m->per_layer) m->per_layer_vocab = 0;
    if (!m->shared_kv) m->double_ff = 0;
    if (m->full_kv_heads == c->n_kv_heads) m->full_kv_heads = 0;
    flag(r, "enable_moe_block", &mixture);
    if (mixture) {
        number(r, "num_experts", &c->n_experts);
        one_of(r, used, &c->n_experts_used);
        number(r, "moe_intermediate_size", &m->n_ff_expert);
    }
    /* every sixth layer and the last one have no window, where no list says it */
    for (uint32_t l = 0; l < c->n_layers && l < SHAPE_MAX_LAYERS; l++)
        m->slides[l] = (l + 1) % 6 != 0 && l + 1 < c->n_layers;
    if (json_in_has(r->o, "layer_types")) {
        memset(m->slides, 0, sizeof m->slides);
        read_kinds(r, "layer_types");
    }
    const json_t *rope = json_object_get(r->o, "rope_parameters");
    const json_t *full = json_object_get(rope, "full_attention");
    if (r->s == OK && json_is_object(full))
        r->s = json_in_real(full, "partial_rotary_factor", 0, 1, &share, r->e);
    c->rope.n_dims = m->full_head_dim;
    c->rope.n_live = (uint32_t)(share * m->full_head_dim / 2);
    c->attn_scale = 1;
}

void hf_shape_defaults(model_config *c, const json_t *o) {
    static const char *const width[] = {"n_inner", "moe_intermediate_size",
                                        "shared_intermediate_size"};
    static const struct {
        const char *key;
        size_t at;
    } renamed[] = {{"n_embd", offsetof(model_config, n_embd)},
                   {"n_layer", offsetof(model_config, n_layers)},
                   {"n_head", offsetof(model_config, n_heads)},
                   {"n_positions", offsetof(model_config, n_ctx_train)}};
    if (strcmp(c->arch, "gemma4") == 0) c->window_theta = 10000, c->rope.theta = 1e6f;
    for (size_t i = 0; i < sizeof width / sizeof *width && !json_in_has(o, "intermediate_size");
         i++) {
        const json_int_t v = json_integer_value(json_object_get(o, width[i]));
        if (!c->n_ff && v > 0 && v < 1 << 20) c->n_ff = (uint32_t)v;
    }
    for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++) {
        const json_int_t v = json_integer_value(json_object_get(o, renamed[i].key));
        if (v > 0 && v < 1 << 30) *(uint32_t *)((char *)c + renamed[i].at) = (uint32_t)v;
    }
}

status hf_shape_read(model_config *c, const char *type, const json_t *o, const char *prefix,
                     err *e) {
    shape_reader r = {.c = c, .o = o, .type = type, .prefix = prefix, .s = OK, .e = e};
    model_shape *m = &c->shape;
    static const char *const mtp[] = {"num_nextn_predict_layers", "mtp_num_hidden_layers",
                                      NULL};
    if (c->n_layers > SHAPE_MAX_LAYERS) {
        refuse(&r, "num_hidden_layers", "so many layers are not supported");
        return r.s;
    }
    if (strncmp(type, "gemma4", 6) == 0) {
        read_gemma4(&r);
        return r.s;
    }
    const bool encoder = strcmp(type, "bert") == 0 || strcmp(type, "nomic_bert") == 0;
    uint32_t qk = c->qk_norm;
    if (encoder) {
        read_encoder(&r);
        return r.s;
    }
    one_of(&r, mtp, &m->mtp);
    m->ungated = is_type(&r, "nemotron_h");
    read_layers(&r);
    read_experts(&r);
    read_latent(&r);
    if (is_type(&r, "qwen3_5") || is_type(&r, "lfm2") || is_type(&r, "granitemoehybrid") ||
        is_type(&r, "nemotron_h"))
        read_states(&r);
    if (strcmp(type, "lfm2") == 0) adjust_width(&r);
    if (is_type(&r, "lfm2")) {
        c->norm_eps = 1e-5f;
        real(&r, "norm_eps", 0, 1000, &c->norm_eps);
    }
    flag(&r, "use_qk_norm", &qk);
    c->qk_norm = qk;
    if (is_type(&r, "granitemoehybrid") || is_type(&r, "nemotron_h")) read_mamba2(&r);
    if (is_type(&r, "nemotron_h") && c->n_experts)
        snprintf(c->arch, sizeof c->arch, "nemotron_h_moe");
    return r.s;
}
