/* From a checkpoint's facts and numbers to the keys of a GGUF file. Stateless. */
#include "quant/metadata.h"

#include <math.h>
#include <stdio.h>

#include "memory/term.h"
#include "model/config.h"
#include "model/facts.h"
#include "model/family.h"
#include "model/hf/hf_folder.h"

static const str version_key = {"general.quantization_version", 28},
                 type_key = {"general.file_type", 17};

uint32_t quant_file_type(dtype t) {
    switch (t) {
    case DT_F32: return 0;
    case DT_F16: return 1;
    case DT_Q4_0: return 2;
    case DT_Q4_1: return 3;
    case DT_Q8_0: return 7;
    case DT_Q5_0: return 8;
    case DT_Q5_1: return 9;
    case DT_Q2_K: return 10;
    case DT_Q3_K: return 11;
    case DT_Q4_K: return 14;
    case DT_Q5_K: return 16;
    case DT_Q6_K: return 18;
    case DT_IQ4_NL: return 25;
    case DT_IQ4_XS: return 30;
    case DT_BF16: return 32;
    case DT_MXFP4: return 38;
    default: return 1024;
    }
}

static void copy_keys(gguf_keys *k, const gguf *g) {
    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        const gguf_kv *kv = gguf_kv_at(g, i);
        if (str_eq(kv->key, version_key) || str_eq(kv->key, type_key) ||
            str_starts(kv->key, STR("split.")))
            continue;
        gguf_put(k, kv);
    }
}

/* ---- of a folder ---- */

static void put_fact(gguf_keys *k, const fact *f) {
    static const gguf_type elem[] = {[FACT_STR] = GGUF_STRING,
                                     [FACT_I32] = GGUF_I32,
                                     [FACT_F32] = GGUF_F32,
                                     [FACT_BOOL] = GGUF_BOOL};
    const str key = str_of(f->key);
    switch (f->kind) {
    case FACT_ONE_U32: gguf_put_u32(k, key, f->u); break;
    case FACT_ONE_F32: gguf_put_f32(k, key, f->f); break;
    case FACT_ONE_BOOL: gguf_put_bool(k, key, f->b); break;
    case FACT_ONE_STR: gguf_put_str(k, key, f->s); break;
    case FACT_MANY: gguf_put_array(k, key, elem[f->elem], f->a.n, f->a.v); break;
    }
}

typedef struct put {
    gguf_keys *k;
    const char *arch;
    char key[96];
} put;

static str key_of(put *p, const char *suffix) {
    snprintf(p->key, sizeof p->key, "%s.%s", p->arch, suffix);
    return str_of(p->key);
}
static void u32(put *p, const char *suffix, uint32_t v) {
    gguf_put_u32(p->k, key_of(p, suffix), v);
}
static void f32(put *p, const char *suffix, float v) {
    gguf_put_f32(p->k, key_of(p, suffix), v);
}

/* Of latent attention with YaRN: its factor for all dimensions, which model_config_scale_latent was given. */
static float latent_mscale(const model_config *c) {
    if (c->rope.scaling != ROPE_SCALING_YARN || c->rope.factor <= 1) return 0;
    return (sqrtf(c->attn_scale * sqrtf((float)c->head_dim)) - 1) /
           (0.1f * logf(c->rope.factor));
}

/* The number that, times by, is v again: the quotient, or a neighbour of it. */
static float quotient(float v, float by) {
    const float q = v / by, up = nextafterf(q, INFINITY), down = nextafterf(q, 0);
    return q * by == v ? q : up * by == v ? up : down * by == v ? down : q;
}

/* What gives c's attn_scale again when it is read: a tenth of latent_mscale, or a neighbour of it. */
static float latent_multiplier(const model_config *c) {
    const float q = latent_mscale(c) / 10;
    float up = q, down = q;
    model_config again = *c;
    for (int i = 0; i < 4; i++) {
        model_config_scale_latent(&again, 10 * up);
        if (again.attn_scale == c->attn_scale) return up;
        model_config_scale_latent(&again, 10 * down);
        if (again.attn_scale == c->attn_scale) return down;
        up = nextafterf(up, INFINITY), down = nextafterf(down, 0);
    }
    return q;
}

/* GGUF has one number for it and for the factor of cosines: both, then cosines have none, or neither. */
static status check_latent(const model_config *c, const checkpoint *in, err *e) {
    const float factor = c->rope.attn_factor;
    if (!c->shape.kv_rank || factor == 1 || (factor == 0 && fabsf(latent_mscale(c)) < 1e-4f))
        return OK;
    err_set(e, ERR_UNSUPPORTED,
            "%.200s: GGUF has no key for an mscale of YaRN apart from mscale_all_dim",
            checkpoint_path(in));
    return err_field(e, "mscale");
}

/* YaRN's factor of cosines, where it is not the formula's. */
static void put_amplitude(put *p, const model_config *c) {
    const float factor = c->rope.attn_factor;
    if (factor == 0) return;
    if (c->shape.kv_rank) { /* as converters write it */
        f32(p, "rope.scaling.yarn_log_multiplier", latent_multiplier(c));
        return;
    }
    /* Readers multiply it by the formula's, but for some families. */
    const bool whole = family_find(c->arch)->whole_attn_factor;
    f32(p, "rope.scaling.attn_factor",
        whole ? factor : quotient(factor, yarn_amplitude(c->rope.factor, 1)));
}

static void put_rope(put *p, const model_config *c) {
    const rope_config *r = &c->rope;
    if (strcmp(c->arch, "granitehybrid") ==
        0) /* how llama.cpp's files say that nothing is rotated */
        gguf_put_bool(p->k, key_of(p, "rope.scaling.finetuned"), c->nope_every != 1);
    u32(p, "rope.dimension_count", r->n_dims);
    f32(p, "rope.freq_base", r->theta);
    if (r->original_len) u32(p, "rope.scaling.original_context_length", r->original_len);
    if (r->scaling == ROPE_SCALING_NONE) return;
    const str key = key_of(p, "rope.scaling.type");
    if (r->scaling == ROPE_SCALING_LINEAR) gguf_put_str(p->k, key, STR("linear"));
    if (r->scaling == ROPE_SCALING_YARN) gguf_put_str(p->k, key, STR("yarn"));
    if (r->scaling != ROPE_SCALING_LONGROPE) f32(p, "rope.scaling.factor", r->factor);
    if (r->scaling == ROPE_SCALING_LONGROPE) f32(p, "rope.scaling.attn_factor", r->attn_factor);
    if (r->scaling != ROPE_SCALING_YARN) return;
    put_amplitude(p, c);
    f32(p, "rope.scaling.yarn_beta_fast", r->beta_fast);
    f32(p, "rope.scaling.yarn_beta_slow", r->beta_slow);
}

static void put_window(put *p, const model_config *c) {
    const family *f = family_find(c->arch);
    if (!c->window && (!f || !f->window)) return;
    u32(p, "attention.sliding_window", c->window);
    if (!f || !f->window_every || !c->window) return;
    if (c->window_every != f->window_every)
        u32(p, "attention.sliding_window_pattern", c->window_every);
    if (c->window_theta != 0) f32(p, "rope.freq_base_swa", c->window_theta);
}

static void put_experts(put *p, const model_config *c) {
    const uint32_t wide = model_config_expert_width(c), shared = c->n_ff_shared;
    u32(p, "expert_count", c->n_experts);
    u32(p, "expert_used_count", c->n_experts_used);
    if (c->shape.n_ff_expert || !family_find(c->arch)->shaped) /* else feed_forward_length */
        u32(p, "expert_feed_forward_length", wide);
    if (shared) u32(p, "expert_shared_feed_forward_length", shared);
    if (shared && c->shape.n_ff_expert) u32(p, "expert_shared_count", shared / wide);
    if (c->expert_groups) {
        u32(p, "expert_group_count", c->expert_groups);
        u32(p, "expert_group_used_count", c->expert_groups_used);
    }
    u32(p, "expert_gating_func", c->experts_sigmoid ? 2 : 1);
    gguf_put_bool(p->k, key_of(p, "expert_weights_norm"), c->experts_norm);
    if (c->experts_scale != 1) f32(p, "expert_weights_scale", c->experts_scale);
}

/* ---- layers of several kinds ---- */

static uint32_t n_dense_layers(const model_config *c) {
    uint32_t n = 0;
    while (n < c->n_layers && c->shape.ffn[n] == FFN_DENSE) n++;
    return n;
}

static uint32_t ff_of(const model_config *c, uint32_t l) {
    if (strncmp(c->arch, "nemotron_h", 10) == 0) /* a layer is one part; 0: not this one */
        return c->shape.mixer[l] != MIXER_NONE ? 0
               : c->n_ff                       ? c->n_ff
                                               : model_config_expert_width(c);
    const bool shared = l >= c->n_layers - c->shape.shared_kv;
    return c->n_ff * (shared && c->shape.double_ff ? 2 : 1);
}

static uint32_t kv_heads_of(const model_config *c, uint32_t l) {
    const mixer_kind mixer = (mixer_kind)c->shape.mixer[l];
    if (mixer != MIXER_ATTENTION && mixer != MIXER_DELTA) return 0;
    return c->shape.full_kv_heads && !c->shape.slides[l] ? c->shape.full_kv_heads
                                                         : c->n_kv_heads;
}

/* One number where it is that of every layer. */
static void put_by_layer(put *p, const char *suffix, const model_config *c,
                         uint32_t (*of)(const model_config *, uint32_t)) {
    int32_t v[SHAPE_MAX_LAYERS];
    bool same = true;
    for (uint32_t l = 0; l < c->n_layers && l < SHAPE_MAX_LAYERS; l++) {
        v[l] = (int32_t)of(c, l);
        same &= v[l] == v[0];
    }
    if (same)
        u32(p, suffix, of(c, 0));
    else
        gguf_put_array(p->k, key_of(p, suffix), GGUF_I32, c->n_layers, v);
}

static bool has_mixer(const model_config *c, mixer_kind kind) {
    return memchr(c->shape.mixer, kind, c->n_layers) != NULL;
}

static void put_states(put *p, const model_config *c) {
    const model_shape *m = &c->shape;
    if (has_mixer(c, MIXER_CONV)) u32(p, "shortconv.l_cache", m->ssm.conv);
    if (has_mixer(c, MIXER_DELTA)) {
        uint8_t recurrent[SHAPE_MAX_LAYERS];
        for (uint32_t l = 0; l < c->n_layers; l++) recurrent[l] = m->mixer[l] == MIXER_DELTA;
        gguf_put_array(p->k, key_of(p, "attention.recurrent_layers"), GGUF_BOOL, c->n_layers,
                       recurrent);
    }
    if (!has_mixer(c, MIXER_DELTA) && !has_mixer(c, MIXER_SSM)) return;
    u32(p, "ssm.conv_kernel", m->ssm.conv);
    u32(p, "ssm.state_size", m->ssm.state);
    u32(p, "ssm.group_count", m->ssm.groups);
    u32(p, "ssm.time_step_rank", m->ssm.heads);
    u32(p, "ssm.inner_size", m->ssm.inner);
}

static void put_shape(put *p, const model_config *c) {
    const model_shape *m = &c->shape;
    put_states(p, c);
    if (n_dense_layers(c)) u32(p, "leading_dense_block_count", n_dense_layers(c));
    if (m->mtp) u32(p, "nextn_predict_layers", m->mtp);
    if (m->kv_rank) u32(p, "attention.kv_lora_rank", m->kv_rank);
    if (m->q_rank) u32(p, "attention.q_lora_rank", m->q_rank);
    if (!m->full_head_dim) return;
    u32(p, "attention.key_length_swa", c->head_dim);
    u32(p, "attention.value_length_swa", c->head_dim);
    u32(p, "attention.shared_kv_layers", m->shared_kv);
    u32(p, "embedding_length_per_layer_input", m->per_layer);
    f32(p, "rope.freq_base_swa", c->window_theta);
    gguf_put_array(p->k, key_of(p, "attention.sliding_window_pattern"), GGUF_BOOL, c->n_layers,
                   m->slides);
}

static void put_scales(put *p, const model_config *c) {
    const family *f = family_find(c->arch);
    if (c->attn_scale != 0 && !c->shape.kv_rank) f32(p, "attention.scale", c->attn_scale);
    if (c->attn_cap != 0 || f->attn_cap != 0) f32(p, "attn_logit_softcapping", c->attn_cap);
    if (c->logit_cap != 0 || f->logit_cap != 0) f32(p, "final_logit_softcapping", c->logit_cap);
    if (c->temperature != 0) f32(p, "attention.temperature_scale", c->temperature);
    if (!f->scales) return;
    f32(p, "embedding_scale", c->embd_scale);
    f32(p, "residual_scale", c->residual_scale);
    f32(p, "logit_scale", c->logit_scale);
}

static void put_config(gguf_keys *k, const model_config *c) {
    put p = {k, c->arch, ""};
    const uint32_t head = c->shape.full_head_dim ? c->shape.full_head_dim : c->head_dim;
    u32(&p, "block_count",
        c->n_layers + c->shape.mtp); /* as the families count that have some */
    u32(&p, "context_length", c->n_ctx_train);
    u32(&p, "embedding_length", c->n_embd);
    put_by_layer(&p, "feed_forward_length", c, ff_of);
    u32(&p, "attention.head_count", c->n_heads);
    put_by_layer(&p, "attention.head_count_kv", c, kv_heads_of);
    u32(&p, "attention.key_length", head);
    u32(&p, "attention.value_length", c->shape.kv_rank ? c->shape.v_dim : head);
    f32(&p, "attention.layer_norm_rms_epsilon", c->norm_eps);
    u32(&p, "vocab_size", c->n_vocab);
    put_scales(&p, c);
    if (c->pooling_type) u32(&p, "pooling_type", c->pooling_type);
    if (c->n_experts) put_experts(&p, c);
    put_rope(&p, c);
    put_window(&p, c);
    put_shape(&p, c);
}

static status folder_keys(gguf_keys *k, const checkpoint *in, const facts *f, err *e) {
    model_config c;
    status s = model_config_read(&c, in, e);
    if (s != OK) return s;
    if ((s = check_latent(&c, in, e)) != OK) return s;
    /* Architecture and name come first, then the numbers. */
    for (uint32_t i = 0; i < f->n; i++)
        if (str_starts(str_of(f->v[i].key), STR("general."))) put_fact(k, &f->v[i]);
    put_config(k, &c);
    for (uint32_t i = 0; i < f->n; i++)
        if (!str_starts(str_of(f->v[i].key), STR("general."))) put_fact(k, &f->v[i]);
    return OK;
}

status quant_metadata(gguf_keys *k, const checkpoint *in, uint32_t file_type, err *e) {
    enum { GGML_QUANTIZATION_VERSION = 2 };
    status s = OK;
    if (gguf_of(in))
        copy_keys(k, gguf_of(in));
    else if (hf_folder_facts_of(in))
        s = folder_keys(k, in, hf_folder_facts_of(in), e);
    else
        return err_set(e, ERR_UNSUPPORTED, "%.200s: %s cannot be written as GGUF",
                       checkpoint_path(in), in->format->name);
    gguf_put_u32(k, version_key, GGML_QUANTIZATION_VERSION);
    gguf_put_u32(k, type_key, file_type);
    if (s == OK && k->b.failed) s = mem_exhausted(e, MEM_LOADING, "the header of the new file");
    return s;
}
