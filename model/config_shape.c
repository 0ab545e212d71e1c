/* A model's layers of several kinds, from the facts and tensors of a checkpoint. Owns nothing; any
 * thread. Keys: llama.cpp, src/llama-arch.cpp. */
#include <stdio.h>
#include <string.h>

#include "model/family.h"

/* Look-ups of "ARCH.suffix" that stop at the first error. */
typedef struct shape_keys {
    const checkpoint *file;
    model_config *c;
    status s;
    err *e;
} shape_keys;

static bool find(const shape_keys *k, const char *suffix, char key[96], uint64_t *n) {
    snprintf(key, 96, "%s.%s", k->c->arch, suffix);
    *n = 0;
    return k->s == OK && checkpoint_has(k->file, key) && checkpoint_length(k->file, key, n);
}

static void number(shape_keys *k, const char *suffix, uint32_t *out) {
    char key[96];
    uint64_t n;
    if (find(k, suffix, key, &n) || k->s != OK) return;
    k->s = checkpoint_get_u32(k->file, key, out, k->e);
}

/* The i-th number of an array, or what stands for all. -1: there is no such key. */
static int64_t of_layer(shape_keys *k, const char *suffix, fact_type type, uint32_t i) {
    char key[96];
    uint64_t n;
    fact_array a = {0};
    uint32_t one = UINT32_MAX;
    if (!find(k, suffix, key, &n)) {
        if (k->s == OK && type == FACT_I32) k->s = checkpoint_get_u32(k->file, key, &one, k->e);
        return one == UINT32_MAX ? -1 : (int64_t)one;
    }
    k->s = checkpoint_get_array(k->file, key, type, &a, k->e);
    if (k->s != OK) return -1;
    if (i >= a.n) {
        err_set(k->e, ERR_FORMAT, "%.200s: %s has %llu numbers for %u layers",
                checkpoint_path(k->file), key, (unsigned long long)a.n, k->c->n_layers);
        k->s = err_field(k->e, "%s", key);
        return -1;
    }
    return type == FACT_BOOL ? ((const unsigned char *)a.v)[i] : ((const int32_t *)a.v)[i];
}

/* What a layer without KV heads is, by family. */
static mixer_kind mixer_of(shape_keys *k, uint32_t l) {
    const model_config *c = k->c;
    uint32_t every = 4;
    if (strncmp(c->arch, "qwen35", 6) == 0) {
        const int64_t listed = of_layer(k, "attention.recurrent_layers", FACT_BOOL, l);
        number(k, "full_attention_interval", &every);
        const bool recurrent = listed < 0 ? every && (l + 1) % every != 0 : listed > 0;
        return recurrent ? MIXER_DELTA : MIXER_ATTENTION;
    }
    if (of_layer(k, "attention.head_count_kv", FACT_I32, l) != 0) return MIXER_ATTENTION;
    if (strncmp(c->arch, "lfm2", 4) == 0) return MIXER_CONV;
    if (strncmp(c->arch, "nemotron_h", 10) == 0 &&
        of_layer(k, "feed_forward_length", FACT_I32, l) > 0)
        return MIXER_NONE;
    return MIXER_SSM;
}

static ffn_kind ffn_of(shape_keys *k, uint32_t l, uint32_t n_dense) {
    if (strncmp(k->c->arch, "nemotron_h", 10) == 0) {
        if (k->c->shape.mixer[l] != MIXER_NONE) return FFN_NONE;
        char name[48];
        snprintf(name, sizeof name, "blk.%u.ffn_gate_inp.weight", l);
        return checkpoint_find(k->file, name, NULL) >= 0 ? FFN_USUAL : FFN_DENSE;
    }
    return l < n_dense ? FFN_DENSE : FFN_USUAL;
}

static void read_layers(shape_keys *k) {
    model_config *c = k->c;
    uint32_t n_dense = 0;
    number(k, "leading_dense_block_count", &n_dense);
    for (uint32_t l = 0; l < c->n_layers && k->s == OK; l++) {
        c->shape.mixer[l] = (uint8_t)mixer_of(k, l);
        c->shape.ffn[l] = (uint8_t)ffn_of(k, l, n_dense);
    }
}

static void read_experts(shape_keys *k) {
    model_config *c = k->c;
    model_shape *m = &c->shape;
    uint32_t shared = 0;
    number(k, "expert_feed_forward_length", &m->n_ff_expert);
    number(k, "expert_shared_count", &shared);
    if (shared) c->n_ff_shared = shared * m->n_ff_expert;
    number(k, "expert_shared_feed_forward_length", &c->n_ff_shared);
    m->shared_gate = c->n_experts && strcmp(c->arch, "qwen35moe") == 0;
    for (uint32_t l = 0; l < c->n_layers && k->s == OK; l++) {
        char name[48];
        tensor_info t;
        snprintf(name, sizeof name, "blk.%u.exp_probs_b.bias", l);
        m->choice_bias |= checkpoint_find(k->file, name, NULL) >= 0;
        snprintf(name, sizeof name, "blk.%u.ffn_latent_down.weight", l);
        if (checkpoint_find(k->file, name, &t) >= 0 && t.ne[1] <= UINT32_MAX)
            m->latent = (uint32_t)t.ne[1];
    }
    /* Converters leave it out where config.json does, whose default is the sigmoid. */
    char key[96];
    snprintf(key, sizeof key, "%s.expert_gating_func", c->arch);
    if (m->choice_bias && !checkpoint_has(k->file, key)) c->experts_sigmoid = true;
}

/* key_length is of the absorbed row, key_length_mla of a head; in files before 2025-04, which lack that,
 * both lengths are of a head. Of YaRN's two factors, that of the cosines and that of all dimensions,
 * converters write a tenth of the second: they are equal in the published models, and then cosines have
 * none (llama.cpp, src/models/deepseek2.cpp). */
static void read_latent(shape_keys *k) {
    model_config *c = k->c;
    model_shape *m = &c->shape;
    float tenth = 0;
    number(k, "attention.q_lora_rank", &m->q_rank);
    number(k, "attention.kv_lora_rank", &m->kv_rank);
    if (!m->kv_rank) return;
    m->rope_dim = c->rope.n_dims;
    number(k, "attention.key_length_mla", &c->head_dim);
    m->v_dim = c->head_dim - m->rope_dim;
    number(k,
           checkpoint_has(k->file, "deepseek2.attention.key_length_mla")
               ? "attention.value_length_mla"
               : "attention.value_length",
           &m->v_dim);
    c->n_kv_heads = c->n_heads;
    if (k->s == OK)
        k->s = checkpoint_get_f32(k->file, "deepseek2.rope.scaling.yarn_log_multiplier", &tenth,
                                  k->e);
    if (tenth != 0) c->rope.attn_factor = 1;
    model_config_scale_latent(c, 10 * tenth);
}

/* Heads of the layers without a window are the usual keys', those with one have keys of their own. */
static void read_gemma4(shape_keys *k) {
    model_config *c = k->c;
    model_shape *m = &c->shape;
    uint32_t swa = c->head_dim, swa_kv = c->n_kv_heads;
    m->listed = 1;
    number(k, "attention.key_length_swa", &swa);
    for (uint32_t l = 0; l < c->n_layers && k->s == OK; l++) {
        const int64_t slides = of_layer(k, "attention.sliding_window_pattern", FACT_BOOL, l);
        const int64_t kv = of_layer(k, "attention.head_count_kv", FACT_I32, l);
        const int64_t ff = of_layer(k, "feed_forward_length", FACT_I32, l);
        m->slides[l] = slides > 0;
        if (kv > 0 && slides > 0) swa_kv = (uint32_t)kv;
        if (kv > 0 && slides <= 0) m->full_kv_heads = (uint32_t)kv;
        if (l == 0 && ff > 0) c->n_ff = (uint32_t)ff;
        m->double_ff |= ff > c->n_ff;
    }
    m->full_head_dim = c->head_dim;
    c->head_dim = swa;
    c->n_kv_heads = swa_kv;
    if (m->full_kv_heads == swa_kv) m->full_kv_heads = 0;
    c->window_theta = 10000;
    if (k->s == OK)
        k->s = checkpoint_get_f32(k->file, "gemma4.rope.freq_base_swa", &c->window_theta, k->e);
    c->attn_scale = 1;
    number(k, "attention.shared_kv_layers", &m->shared_kv);
    number(k, "embedding_length_per_layer_input", &m->per_layer);
    for (uint32_t l = 0; l + m->shared_kv < c->n_layers; l++) {
        char v[40];
        snprintf(v, sizeof v, "blk.%u.attn_v.weight", l);
        if (!m->slides[l]) m->v_is_k = checkpoint_find(k->file, v, NULL) < 0;
    }
    tensor_info t;
    if (checkpoint_find(k->file, "per_layer_token_embd.weight", &t) >= 0 &&
        t.ne[1] <= UINT32_MAX)
        m->per_layer_vocab = (uint32_t)t.ne[1];
}

/* The rows of a table; 0: there is none. */
static uint32_t rows_of(const shape_keys *k, const char *tensor) {
    tensor_info t;
    if (checkpoint_find(k->file, tensor, &t) < 0 || t.ne[1] > UINT32_MAX) return 0;
    return (uint32_t)t.ne[1];
}

static void read_encoder(shape_keys *k) {
    model_config *c = k->c;
    c->shape.token_types = rows_of(k, "token_types.weight");
    c->shape.positions = rows_of(k, "position_embd.weight") > 0;
    c->shape.n_labels = rows_of(k, "cls.output.weight");
    if (c->shape.positions) c->rope.n_dims = 0;
}

status config_shape_read(model_config *c, const checkpoint *file, err *e) {
    shape_keys k = {.file = file, .c = c, .s = OK, .e = e};
    model_shape *m = &c->shape;
    const bool nemotron = strncmp(c->arch, "nemotron_h", 10) == 0;
    const bool counts_mtp = strncmp(c->arch, "qwen35", 6) == 0 || nemotron ||
                            strcmp(c->arch, "glm4moe") == 0 ||
                            strcmp(c->arch, "deepseek2") == 0;
    if (c->n_layers > SHAPE_MAX_LAYERS) {
        err_set(e, ERR_UNSUPPORTED, "architecture %s with %u layers; at most %d are known",
                c->arch, c->n_layers, SHAPE_MAX_LAYERS);
        return err_field(e, "%s.block_count", c->arch);
    }
    number(&k, "nextn_predict_layers", &m->mtp);
    /* These files count the blocks that predict further tokens among the layers. */
    if (m->mtp < c->n_layers && counts_mtp) c->n_layers -= m->mtp;
    m->ungated = nemotron || strcmp(c->arch, "bert") == 0;
    if (nemotron) c->rope.n_dims = 0;
    number(&k, "ssm.conv_kernel", &m->ssm.conv);
    number(&k, "shortconv.l_cache", &m->ssm.conv);
    number(&k, "ssm.state_size", &m->ssm.state);
    number(&k, "ssm.group_count", &m->ssm.groups);
    number(&k, "ssm.time_step_rank", &m->ssm.heads);
    number(&k, "ssm.inner_size", &m->ssm.inner);
    if (strcmp(c->arch, "gemma4") == 0)
        read_gemma4(&k);
    else if (!c->bidirectional)
        read_layers(&k);
    read_experts(&k);
    if (strcmp(c->arch, "glm4moe") == 0)
        c->qk_norm = checkpoint_find(file, "blk.0.attn_q_norm.weight", NULL) >= 0;
    if (strcmp(c->arch, "deepseek2") == 0) read_latent(&k);
    if (c->bidirectional) read_encoder(&k);
    return k.s;
}
