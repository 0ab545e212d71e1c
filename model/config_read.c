/* The numbers that define a model, read from the facts and tensors of a checkpoint. Owns
 * nothing; any thread. Keys: ggml, docs/gguf.md, "LLM" and "RoPE"; llama.cpp,
 * src/llama-arch.cpp. */
#include "model/config.h"

#include <math.h>
#include <stdio.h>

#include "model/family.h"

/* Look-ups of "ARCH.suffix" that stop at the first error. */
typedef struct keys {
    const checkpoint *file;
    const char *arch;
    bool by_layer; /* a number may be one for each layer */
    status s;
    err *e;
    char key[96];
} keys;

static const char *key_of(keys *k, const char *suffix) {
    snprintf(k->key, sizeof k->key, "%s.%s", k->arch, suffix);
    return k->key;
}

/* Of a number for each layer the largest (config_shape.c looks at each). */
static void get_u32(keys *k, const char *key, uint32_t *out) {
    fact_array a = {0};
    if (!k->by_layer || !checkpoint_length(k->file, key, &a.n)) {
        k->s = checkpoint_get_u32(k->file, key, out, k->e);
        return;
    }
    k->s = checkpoint_get_array(k->file, key, FACT_I32, &a, k->e);
    int32_t most = 0;
    for (uint64_t i = 0; k->s == OK && i < a.n; i++)
        if (((const int32_t *)a.v)[i] > most) most = ((const int32_t *)a.v)[i];
    if (k->s == OK) *out = (uint32_t)most;
}

static void want(keys *k, const char *suffix) {
    const char *key = key_of(k, suffix);
    if (k->s != OK || checkpoint_has(k->file, key)) return;
    err_set(k->e, ERR_FORMAT, "%.200s: the key %s is missing", checkpoint_path(k->file), key);
    k->s = err_field(k->e, "%s", key);
}

static void want_u32(keys *k, const char *suffix, uint32_t *out) {
    want(k, suffix);
    if (k->s == OK) get_u32(k, key_of(k, suffix), out);
}

static void maybe_u32(keys *k, const char *suffix, uint32_t *out) {
    if (k->s == OK) get_u32(k, key_of(k, suffix), out);
}

static void maybe_f32(keys *k, const char *suffix, float *out) {
    if (k->s == OK) k->s = checkpoint_get_f32(k->file, key_of(k, suffix), out, k->e);
}

static void maybe_bool(keys *k, const char *suffix, bool *out) {
    if (k->s == OK) k->s = checkpoint_get_bool(k->file, key_of(k, suffix), out, k->e);
}

/* For files, 0 says that there is no such scale. */
static void maybe_scale(keys *k, const char *suffix, float *out) {
    float v = 0;
    maybe_f32(k, suffix, &v);
    if (v != 0) *out = v;
}

static void bad_key(keys *k, status code, const char *suffix, const char *what) {
    if (k->s != OK) return;
    err_set(k->e, code, "%.200s: architecture %s: %s", checkpoint_path(k->file), k->arch, what);
    k->s = err_field(k->e, "%s", key_of(k, suffix));
}

static bool has_tensor(const checkpoint *file, const char *name) {
    return checkpoint_find(file, name, NULL) >= 0;
}

static void read_scaling(keys *k, model_config *c, const family *f) {
    rope_config *r = &c->rope;
    str type = STR("none");
    float scale = 1, ext = -1, attn = 1, whole = 0, log_multiplier = 0;
    if (k->s == OK)
        k->s = checkpoint_get_str(k->file, key_of(k, "rope.scaling.type"), &type, k->e);
    maybe_f32(k, "rope.scale_linear", &scale); /* as files of 2023 have it */
    r->factor = scale;
    maybe_f32(k, "rope.scaling.factor", &r->factor);
    maybe_u32(k, "rope.scaling.original_context_length", &r->original_len);
    maybe_f32(k, "rope.scaling.attn_factor", &attn);
    maybe_f32(k, "rope.scaling.yarn_attn_factor", &whole);
    maybe_f32(k, "rope.scaling.yarn_ext_factor", &ext);
    maybe_f32(k, "rope.scaling.yarn_log_multiplier", &log_multiplier);
    maybe_f32(k, "rope.scaling.yarn_beta_fast", &r->beta_fast);
    maybe_f32(k, "rope.scaling.yarn_beta_slow", &r->beta_slow);
    if (k->s != OK) return;
    if (scale == 0) scale = 1; /* 0: no scaling, to llama.cpp too */
    if (r->factor == 0) r->factor = 1;
    if (str_eqz(type, "linear") || (str_eqz(type, "none") && scale != 1))
        r->scaling = ROPE_SCALING_LINEAR;
    else if (str_eqz(type, "yarn"))
        r->scaling = ROPE_SCALING_YARN;
    else if (has_tensor(k->file, "rope_factors_short.weight"))
        /* llama.cpp's converter names no type */
        r->scaling = ROPE_SCALING_LONGROPE;
    else if (!str_eqz(type, "none"))
        bad_key(k, ERR_UNSUPPORTED, "rope.scaling.type",
                "its RoPE scaling is not known (known: none, linear, yarn)");
    if (r->scaling == ROPE_SCALING_NONE) r->factor = 1;
    if (r->scaling == ROPE_SCALING_LONGROPE) {
        r->attn_factor = attn;
        if (!r->original_len) r->original_len = c->n_ctx_train;
    }
    if (r->scaling != ROPE_SCALING_YARN) return;
    r->exact_range = f->yarn_exact;
    if (ext >= 0 && ext != 1)
        bad_key(k, ERR_UNSUPPORTED, "rope.scaling.yarn_ext_factor",
                "only YaRN with an extrapolation factor of 1 is known");
    /* llama.cpp multiplies the formula by attn_factor (ggml, rope_yarn). Its converter wrote OLMo 3's
     * whole factor all the same; it now writes the whole factor of any model as yarn_attn_factor. */
    if (attn != 1 && f->whole_attn_factor) r->attn_factor = attn;
    if (whole != 0) r->attn_factor = whole;
    if (r->attn_factor == 0 && attn != 1 && r->factor > 0)
        r->attn_factor = attn * yarn_amplitude(r->factor, 1);
    if (log_multiplier != 0)
        r->attn_factor =
            attn * yarn_amplitude(r->factor, 1) / yarn_amplitude(r->factor, log_multiplier);
    if (!r->original_len) r->original_len = c->n_ctx_train;
}

static void read_vocab(keys *k, model_config *c) {
    maybe_u32(k, "vocab_size", &c->n_vocab);
    if (k->s != OK) return;
    uint64_t n_tokens = 0;
    tensor_info embd;
    const bool listed = checkpoint_length(k->file, "tokenizer.ggml.tokens", &n_tokens);
    /* The matrix decides: it may have rows for padding that the list of tokens lacks. */
    if (checkpoint_find(k->file, "token_embd.weight", &embd) >= 0 && embd.ne[1] <= UINT32_MAX)
        c->n_vocab = (uint32_t)embd.ne[1];
    else if (!c->n_vocab && listed && n_tokens <= UINT32_MAX)
        c->n_vocab = (uint32_t)n_tokens;
    if (listed && n_tokens > c->n_vocab) {
        err_set(k->e, ERR_FORMAT, "%.200s: %llu tokens, but the model has room for %u",
                checkpoint_path(k->file), (unsigned long long)n_tokens, c->n_vocab);
        k->s = err_field(k->e, "tokenizer.ggml.tokens");
    }
}

static void read_attention(keys *k, model_config *c, const family *f) {
    uint32_t value_dim = 0;
    want_u32(k, "attention.head_count", &c->n_heads);
    c->n_kv_heads = c->n_heads;
    maybe_u32(k, "attention.head_count_kv", &c->n_kv_heads);
    if (c->n_heads) c->head_dim = c->n_embd / c->n_heads;
    maybe_u32(k, "attention.key_length", &c->head_dim);
    value_dim = c->head_dim;
    maybe_u32(k, "attention.value_length", &value_dim);
    if (value_dim != c->head_dim && !f->shaped)
        bad_key(k, ERR_UNSUPPORTED, "attention.value_length",
                "keys and values of different length are not supported");
    maybe_u32(k, "attention.sliding_window", &c->window);
    c->rope.n_dims = c->head_dim;
    maybe_u32(k, "rope.dimension_count", &c->rope.n_dims);
}

/* Which layers have the window: each but the n-th, as a number or layer by layer. */
static void read_pattern(keys *k, model_config *c) {
    const char *suffix = "attention.sliding_window_pattern";
    fact_array a = {0};
    if (!checkpoint_length(k->file, key_of(k, suffix), &a.n)) {
        maybe_u32(k, suffix, &c->window_every);
        return;
    }
    if (k->s == OK)
        k->s = checkpoint_get_array(k->file, key_of(k, suffix), FACT_BOOL, &a, k->e);
    if (k->s != OK) return;
    const unsigned char *slides = a.v;
    uint32_t n = 0;
    while (n < a.n && slides[n]) n++;
    c->window_every = n < a.n ? n + 1 : 0;
    for (uint32_t l = 0; l < c->n_layers && l < a.n; l++)
        if ((bool)slides[l] != (model_config_window(c, l) > 0)) n = UINT32_MAX;
    if (n == UINT32_MAX || a.n < c->n_layers)
        bad_key(k, ERR_UNSUPPORTED, suffix, "its order of layers with and without a window");
}

/* What scores and logits are scaled and capped by. */
static void read_scales(keys *k, model_config *c, const family *f) {
    bool rotated = true;
    c->attn_cap = f->attn_cap;
    c->logit_cap = f->logit_cap;
    maybe_f32(k, "attn_logit_softcapping", &c->attn_cap);
    maybe_f32(k, "final_logit_softcapping", &c->logit_cap);
    maybe_f32(k, "attention.temperature_scale", &c->temperature);
    maybe_f32(k, "attention.scale", &c->attn_scale);
    /* The 27B models of Gemma scale by their width; files do not say so (llama.cpp,
     * src/models/gemma3.cpp). */
    if (c->attn_scale == 0 && c->n_layers == f->wide_layers && c->n_heads)
        c->attn_scale = 1 / sqrtf((float)(c->n_embd / c->n_heads));
    if (!f->scales) return;
    maybe_scale(k, "embedding_scale", &c->embd_scale);
    maybe_scale(k, "residual_scale", &c->residual_scale);
    want(k, "logit_scale");
    maybe_f32(k, "logit_scale", &c->logit_scale);
    maybe_bool(k, "rope.scaling.finetuned", &rotated);
    if (!rotated) c->nope_every = 1;
}

/* What families with windows on some layers have beside the rest. */
static void read_layers(keys *k, model_config *c, const family *f) {
    if (!f->window_every || !c->window) return;
    c->window_every = f->window_every;
    c->window_theta = f->window_unscaled ? c->rope.theta : f->window_theta;
    maybe_f32(k, "rope.freq_base_swa", &c->window_theta);
    read_pattern(k, c);
}

/* Files of 2024 leave widths out, and llama.cpp then takes these. */
static void read_widths(keys *k, model_config *c, const family *f) {
    if (f->experts.shared_gate) c->n_ff_shared = c->n_ff;
    c->shape.shared_gate = f->experts.shared_gate;
    if (f->experts.divided && c->n_experts_used) c->n_ff /= c->n_experts_used;
    maybe_u32(k, "expert_feed_forward_length", &c->n_ff);
    maybe_u32(k, "expert_shared_feed_forward_length", &c->n_ff_shared);
}

/* Widths of experts, how they are chosen and weighed. */
static void read_experts(keys *k, model_config *c, const family *f) {
    uint32_t gate = 0;
    maybe_u32(k, "expert_count", &c->n_experts);
    maybe_u32(k, "expert_used_count", &c->n_experts_used);
    if (!c->n_experts) return;
    if (!f->shaped) read_widths(k, c, f); /* config_shape.c reads the others */
    c->experts_norm = f->experts.norm;
    c->experts_sigmoid = f->experts.sigmoid;
    c->experts_eps = f->experts.eps;
    maybe_f32(k, "expert_weights_scale", &c->experts_scale);
    if (c->experts_scale == 0) c->experts_scale = 1; /* as llama.cpp has it */
    maybe_bool(k, "expert_weights_norm", &c->experts_norm);
    maybe_u32(k, "expert_group_count", &c->expert_groups);
    maybe_u32(k, "expert_group_used_count", &c->expert_groups_used);
    if (c->expert_groups <= 1) c->expert_groups = c->expert_groups_used = 0;
    maybe_u32(k, "expert_gating_func", &gate);
    if (gate) c->experts_sigmoid = gate == 2;
    if (gate == 3) c->experts_norm = true; /* softmax over the chosen */
    if (gate > 3)
        bad_key(
            k, ERR_UNSUPPORTED, "expert_gating_func",
            "its router is not known (known: 1 softmax, 2 sigmoid, 3 softmax of the chosen)");
}

/* A range error names the field of the config; whoever has the file wants the key. */
static void name_key(const model_config *c, err *e) {
    static const char *const map[][2] = {
        {"n_layers", "block_count"},
        {"n_embd", "embedding_length"},
        {"n_heads", "attention.head_count"},
        {"n_kv_heads", "attention.head_count_kv"},
        {"head_dim", "attention.key_length"},
        {"n_ff", "feed_forward_length"},
        {"n_vocab", "vocab_size"},
        {"n_ctx_train", "context_length"},
        {"norm_eps", "attention.layer_norm_rms_epsilon"},
        {"n_experts", "expert_count"},
        {"n_experts_used", "expert_used_count"},
        {"n_ff_shared", "expert_shared_feed_forward_length"},
        {"experts_scale", "expert_weights_scale"},
        {"expert_groups", "expert_group_count"},
        {"rope.n_dims", "rope.dimension_count"},
        {"kv_rank", "attention.kv_lora_rank"},
        {"q_rank", "attention.q_lora_rank"},
        {"v_dim", "attention.value_length_mla"},
        {"attn_scale", "attention.scale"},
        {"attn_cap", "attn_logit_softcapping"},
        {"logit_cap", "final_logit_softcapping"},
        {"temperature", "attention.temperature_scale"},
        {"embd_scale", "embedding_scale"},
        {"residual_scale", "residual_scale"},
        {"logit_scale", "logit_scale"},
        {"rope.theta", "rope.freq_base"},
        {"window_theta", "rope.freq_base_swa"},
        {"rope.factor", "rope.scaling.factor"},
        {"rope.original_len", "rope.scaling.original_context_length"},
        {"rope.attn_factor", "rope.scaling.attn_factor"},
        {"rope.beta_fast", "rope.scaling.yarn_beta_fast"},
        {"rope.beta_slow", "rope.scaling.yarn_beta_slow"},
    };
    for (size_t i = 0; i < sizeof map / sizeof *map; i++)
        if (strcmp(e->field, map[i][0]) == 0) {
            char text[sizeof e->text];
            snprintf(text, sizeof text, "%s", e->text);
            err_set(e, e->code, "%s.%s: %.300s", c->arch, map[i][1], text);
            err_field(e, "%s.%s", c->arch, map[i][1]);
            return;
        }
}

status model_config_read(model_config *c, const checkpoint *file, err *e) {
    str arch = {NULL, 0}, name = STR("");
    if (file->format->config) return file->format->config(file, c, e);
    model_config_init(c);
    status s = checkpoint_get_str(file, "general.architecture", &arch, e);
    if (s != OK) return s;
    if (!arch.ptr) {
        err_set(e, ERR_FORMAT, "%.200s: the key general.architecture is missing",
                checkpoint_path(file));
        return err_field(e, "general.architecture");
    }
    if (arch.len < sizeof c->arch) memcpy(c->arch, arch.ptr, arch.len);
    const family *f = family_find(c->arch);
    if (!f || !str_eqz(arch, c->arch)) {
        err_set(e, ERR_UNSUPPORTED, "%.200s: architecture " STR_FMT " is not supported",
                checkpoint_path(file), (int)(arch.len < 64 ? arch.len : 64), arch.ptr);
        family_hint(e);
        return err_field(e, "general.architecture");
    }
    if ((s = checkpoint_get_str(file, "general.name", &name, e)) != OK) return s;
    snprintf(c->name, sizeof c->name, STR_FMT,
             (int)(name.len < sizeof c->name ? name.len : sizeof c->name - 1), name.ptr);
    keys k = {.file = file, .arch = c->arch, .by_layer = f->shaped, .s = OK, .e = e};
    c->rope.pairing = family_pairing(f, file->format->permutes_qk);
    c->qk_norm = f->qk_norm;
    c->qk_norm_whole = f->qk_norm_whole;
    c->nope_every = f->nope_every;
    c->window = f->window;
    c->norms_per_layer = f->norms_per_layer;
    c->bidirectional = f->encoder;
    want_u32(&k, "block_count", &c->n_layers);
    want_u32(&k, "context_length", &c->n_ctx_train);
    want_u32(&k, "embedding_length", &c->n_embd);
    want_u32(&k, "feed_forward_length", &c->n_ff);
    read_attention(&k, c, f);
    maybe_f32(&k, "rope.freq_base", &c->rope.theta);
    maybe_f32(&k, "attention.layer_norm_epsilon", &c->norm_eps); /* of LayerNorm */
    maybe_f32(&k, "attention.layer_norm_rms_epsilon", &c->norm_eps);
    maybe_u32(&k, "pooling_type", &c->pooling_type);
    read_experts(&k, c, f);
    read_scaling(&k, c, f);
    read_vocab(&k, c);
    read_scales(&k, c, f);
    read_layers(&k, c, f);
    if (k.s == OK && f->shaped) k.s = config_shape_read(c, file, e);
    if (k.s != OK) return k.s;
    c->tied_head = !has_tensor(file, "output.weight");
    c->qkv_bias = f->qkv_bias || has_tensor(file, "blk.0.attn_q.bias") ||
                  has_tensor(file, "blk.0.attn_qkv.bias");
    c->o_bias = has_tensor(file, "blk.0.attn_output.bias");
    c->ffn_bias =
        has_tensor(file, "blk.0.ffn_down.bias") || has_tensor(file, "blk.0.ffn_down_exps.bias");
    c->router_bias = has_tensor(file, "blk.0.ffn_gate_inp.bias");
    c->sinks = has_tensor(file, "blk.0.attn_sinks.weight");
    s = model_config_check(c, e);
    if (s != OK) name_key(c, e);
    return s;
}
