/* config.json by jansson. Names and defaults of members: transformers, the configuration class
 * of each model. Main thread of `vramd plan`; one arena, gone at return. */
#include "model/hf/hf_config.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "json/in.h"
#include "model/family.h"
#include "model/hf/hf_json.h"
#include "model/hf/hf_shape.h"

/* ---- members; the first error sticks ---- */

typedef struct reader {
    const json_t *o;
    const char *prefix; /* of field names: "" or "rope_scaling." */
    status s;
    err *e;
} reader;

/* Gives the field the name of the object it is in. */
static void end_member(reader *r, status s) {
    char field[sizeof r->e->field];
    r->s = s;
    if (s == OK || !r->prefix[0]) return;
    snprintf(field, sizeof field, "%s", r->e->field);
    err_field(r->e, "%s%s", r->prefix, field);
}

static void missing(reader *r, const char *key) {
    err_set(r->e, ERR_FORMAT, "config.json: %s%s is missing", r->prefix, key);
    err_hint(r->e, "plan the GGUF file itself, or complete the config");
    r->s = err_field(r->e, "%s%s", r->prefix, key);
}

static void unsupported(reader *r, const char *key, str found, const char *hint) {
    err_set(r->e, ERR_UNSUPPORTED, "config.json: %s%s \"" STR_FMT "\" is not supported",
            r->prefix, key, (int)(found.len < 64 ? found.len : 64), found.ptr ? found.ptr : "");
    err_hint(r->e, "%s", hint);
    r->s = err_field(r->e, "%s%s", r->prefix, key);
}

/* A count of at least 1; absent leaves *out alone. */
static void maybe_count(reader *r, const char *key, uint32_t *out) {
    int64_t v = *out;
    if (r->s != OK || !json_in_has(r->o, key)) return;
    end_member(r, json_in_int(r->o, key, 1, 1 << 30, &v, r->e));
    *out = (uint32_t)v;
}

/* What has no default (0 in *out) must be there. */
static void count(reader *r, const char *key, uint32_t *out) {
    if (r->s == OK && !*out && !json_in_has(r->o, key)) missing(r, key);
    maybe_count(r, key, out);
}

static void maybe_real(reader *r, const char *key, double low, double high, float *out) {
    double v = *out;
    if (r->s != OK) return;
    end_member(r, json_in_real(r->o, key, low, high, &v, r->e));
    *out = (float)v;
}

static void real(reader *r, const char *key, double low, double high, float *out) {
    if (r->s == OK && !json_in_has(r->o, key)) missing(r, key);
    maybe_real(r, key, low, high, out);
}

static void maybe_bool(reader *r, const char *key, bool *out) {
    if (r->s == OK) end_member(r, json_in_bool(r->o, key, out, r->e));
}

static void maybe_str(reader *r, const char *key, str *out) {
    if (r->s == OK) end_member(r, json_in_str(r->o, key, out, r->e));
}

/* ---- the parts of a config ---- */

static void unknown_model(reader *r, const char *key, str found) {
    char hint[sizeof r->e->hint] = "vramd plans ";
    size_t n = strlen(hint);
    const char *comma = "";
    const family *f;
    for (size_t i = 0; (f = family_at(i)); i++)
        for (size_t k = 0; k < FAMILY_HF_MODELS && f->hf.model[k].type; k++, comma = ", ")
            if (n < sizeof hint)
                n += (size_t)snprintf(hint + n, sizeof hint - n, "%s%s", comma,
                                      f->hf.model[k].type);
    unsupported(r, key, found, hint);
}

static const family *find_family(reader *r, const hf_model **model) {
    const json_t *classes = json_object_get(r->o, "architectures");
    str type = {NULL, 0}, class = {NULL, 0};
    maybe_str(r, "model_type", &type);
    if (r->s != OK) return NULL;
    const json_t *first = json_array_get(classes, 0);
    if (json_is_string(first)) class = json_in_text(first);
    const family *f = family_of_hf(type, class, model);
    if (!f && !type.ptr && !class.ptr)
        missing(r, "model_type");
    else if (!f)
        unknown_model(r, type.ptr ? "model_type" : "architectures", type.ptr ? type : class);
    return f;
}

/* Those of transformers' Gemma3TextConfig: the files of 4B to 27B give what differs. */
static void gemma3_defaults(model_config *c) {
    c->n_embd = 2304;
    c->n_layers = 26;
    c->n_heads = 8;
    c->n_kv_heads = 4;
    c->head_dim = 256;
    c->n_ff = 9216;
    c->n_vocab = 262208;
    c->n_ctx_train = 131072;
    c->window = 4096;
}

/* Mixtures that have dense layers, too, are not counted. */
static void read_experts(reader *r, model_config *c, const family *f, const hf_model *model) {
    int64_t step = 1;
    if (!model->experts) {
        maybe_count(r, "num_local_experts", &c->n_experts);
    } else {
        count(r, model->experts, &c->n_experts);
        c->n_ff = 0;
        count(r, model->expert_width, &c->n_ff);
        if (model->shared_width) count(r, model->shared_width, &c->n_ff_shared);
        c->shape.shared_gate = f->experts.shared_gate;
    }
    if (c->n_experts) count(r, "num_experts_per_tok", &c->n_experts_used);
    if (model->norm_option) c->experts_norm = false;
    if (model->norm_option) maybe_bool(r, "norm_topk_prob", &c->experts_norm);
    if (r->s != OK) return;
    end_member(r, json_in_int(r->o, "decoder_sparse_step", 1, 1 << 20, &step, r->e));
    const json_t *dense = json_object_get(r->o, "mlp_only_layers");
    if (r->s != OK || (step == 1 && json_array_size(dense) == 0)) return;
    err_set(r->e, ERR_UNSUPPORTED,
            "config.json: layers without experts among those with them are not counted");
    r->s = err_field(r->e, step == 1 ? "mlp_only_layers" : "decoder_sparse_step");
}

/* Which part of a head is rotated; since transformers 5 in rope_parameters. */
static void read_rotary(reader *r, const family *f, model_config *c) {
    float rotary = f->hf.rotary != 0 ? f->hf.rotary : 1;
    maybe_real(r, "partial_rotary_factor", 0, 1, &rotary);
    const json_t *o = json_object_get(r->o, "rope_parameters");
    if (r->s == OK && json_is_object(o)) {
        reader in = {o, "rope_parameters.", OK, r->e};
        maybe_real(&in, "partial_rotary_factor", 0, 1, &rotary);
        r->s = in.s;
    }
    c->rope.n_dims = (uint32_t)((float)c->head_dim * rotary);
}

static void read_shape(reader *r, model_config *c, const family *f, const hf_model *model) {
    if (strcmp(c->arch, "gemma3") == 0) gemma3_defaults(c);
    if (f->shaped) hf_shape_defaults(c, r->o);
    count(r, "hidden_size", &c->n_embd);
    count(r, "num_hidden_layers", &c->n_layers);
    count(r, "num_attention_heads", &c->n_heads);
    count(r, "intermediate_size", &c->n_ff);
    count(r, "vocab_size", &c->n_vocab);
    count(r, "max_position_embeddings", &c->n_ctx_train);
    if (r->s != OK) return;
    if (!c->n_kv_heads) c->n_kv_heads = c->n_heads;
    if (!c->head_dim) c->head_dim = c->n_embd / c->n_heads;
    maybe_count(r, "num_key_value_heads", &c->n_kv_heads);
    maybe_count(r, "head_dim", &c->head_dim);
    maybe_real(r, "rms_norm_eps", 1e-12, 0.1, &c->norm_eps);
    read_rotary(r, f, c);
    if (!f->shaped) read_experts(r, c, f, model);
}

/* "layer_types" says layer by layer what the pattern does. */
static void check_layer_types(reader *r, const model_config *c) {
    const json_t *types = json_object_get(r->o, "layer_types");
    if (r->s != OK || !json_is_array(types)) return;
    bool same = json_array_size(types) == c->n_layers;
    for (uint32_t l = 0; l < c->n_layers && same; l++) {
        const json_t *t = json_array_get(types, l);
        str name = json_is_string(t) ? json_in_text(t) : STR("?");
        same =
            str_eqz(name, model_config_window(c, l) ? "sliding_attention" : "full_attention");
    }
    if (same) return;
    err_set(r->e, ERR_UNSUPPORTED,
            "config.json: this order of layers with and without a window is not supported");
    r->s = err_field(r->e, "layer_types");
}

static void read_window(reader *r, model_config *c, const family *f) {
    const bool switched = f->hf.window_switch; /* qwen2, qwen3: off unless switched on */
    bool use = !switched;
    uint32_t from = c->n_layers < 28 ? c->n_layers : 28;
    maybe_bool(r, "use_sliding_window", &use);
    if (r->s != OK || !use) return;
    /* Layers from max_window_layers on have the window. A 0 there means all. */
    int64_t first = from;
    if (switched)
        end_member(r, json_in_int(r->o, "max_window_layers", 0, 1 << 20, &first, r->e));
    if (switched && r->s == OK && first >= c->n_layers) return;
    if (switched && r->s == OK && first > 0) {
        err_set(r->e, ERR_UNSUPPORTED,
                "config.json: a window on the layers from %lld on of %u is not supported",
                (long long)first, c->n_layers);
        r->s = err_field(r->e, "max_window_layers");
        return;
    }
    maybe_count(r, "sliding_window", &c->window);
    if (!c->window || !f->window_every) return;
    c->window_every = f->window_every;
    maybe_count(r, "sliding_window_pattern", &c->window_every);
    maybe_count(r, "_sliding_window_pattern", &c->window_every);
    check_layer_types(r, c);
}

/* A soft cap; null: none, whatever the family has. */
static void maybe_cap(reader *r, const char *key, float *out) {
    if (json_is_null(json_object_get(r->o, key)))
        *out = 0;
    else
        maybe_real(r, key, 1e-3, 1e6, out);
}

/* Gemma's scale of the scores and soft caps; Granite's scales; layers that are not rotated. */
static void read_scales(reader *r, model_config *c, const family *f) {
    float scalar = 0;
    if (f->norms_plus_one) maybe_real(r, "query_pre_attn_scalar", 1, 1e6, &scalar);
    if (scalar > 0) c->attn_scale = 1 / sqrtf(scalar);
    c->attn_cap = f->attn_cap;
    c->logit_cap = f->logit_cap;
    maybe_cap(r, "attn_logit_softcapping", &c->attn_cap);
    maybe_cap(r, "final_logit_softcapping", &c->logit_cap);
    if (!f->scales) return;
    c->attn_scale = 1;
    maybe_real(r, "attention_multiplier", 1e-6, 1e3, &c->attn_scale);
    maybe_real(r, "embedding_multiplier", 1e-6, 1e6, &c->embd_scale);
    maybe_real(r, "residual_multiplier", 1e-3, 1e3, &c->residual_scale);
    maybe_real(r, "logits_scaling", 1e-6, 1e6, &c->logit_scale);
}

/* "no_rope_layers" says layer by layer what the interval does: 1, rotated. */
static void read_nope(reader *r, model_config *c, const family *f) {
    c->nope_every = f->nope_every;
    if (!f->nope_every) return;
    maybe_count(r, "no_rope_layer_interval", &c->nope_every);
    const json_t *layers = json_object_get(r->o, "no_rope_layers");
    if (r->s != OK) return;
    bool same = !json_is_array(layers) || json_array_size(layers) == c->n_layers;
    for (uint32_t l = 0; l < json_array_size(layers) && same; l++)
        same = json_integer_value(json_array_get(layers, l)) == ((l + 1) % c->nope_every != 0);
    /* GGUF files cannot say it: the family has it. */
    if (same && c->nope_every == f->nope_every) return;
    err_set(r->e, ERR_UNSUPPORTED,
            "config.json: this order of layers with and without rotation is not supported");
    r->s = err_field(r->e, same ? "no_rope_layer_interval" : "no_rope_layers");
}

/* Gemma 3's rotary base for the windows. */
static void read_gemma3(reader *r, model_config *c) {
    c->rope.theta = 1e6f;
    if (!c->window) return;
    c->window_theta = 10000;
    maybe_real(r, "rope_local_base_freq", 1, 1e12, &c->window_theta);
}

static void read_llama3(reader *r, rope_config *rope) {
    rope->scaling = ROPE_SCALING_LLAMA3;
    real(r, "factor", 1e-3, 1e4, &rope->factor);
    real(r, "low_freq_factor", 0, 1e4, &rope->low_freq_factor);
    real(r, "high_freq_factor", 0, 1e4, &rope->high_freq_factor);
    count(r, "original_max_position_embeddings", &rope->original_len);
}

/* DeepSeek's form of the factor, of which both or none are given (transformers,
 * modeling_rope_utils.py, _compute_yarn_parameters). */
static void read_amplitude(reader *r, rope_config *rope) {
    float m = 0, all = 0;
    maybe_real(r, "mscale", 0, 100, &m);
    maybe_real(r, "mscale_all_dim", 0, 100, &all);
    if (r->s != OK || m == 0 || all == 0 || rope->factor <= 1) return;
    const float ln = 0.1f * logf(rope->factor);
    rope->attn_factor = (m * ln + 1) / (all * ln + 1);
}

static void read_yarn(reader *r, model_config *c) {
    rope_config *rope = &c->rope;
    bool rounded = true;
    rope->scaling = ROPE_SCALING_YARN;
    real(r, "factor", 1e-3, 1e4, &rope->factor);
    maybe_count(r, "original_max_position_embeddings", &rope->original_len);
    maybe_real(r, "beta_fast", 0, 1e6, &rope->beta_fast);
    maybe_real(r, "beta_slow", 0, 1e6, &rope->beta_slow);
    maybe_bool(r, "truncate", &rounded);
    rope->exact_range = !rounded;
    read_amplitude(r, rope);
    maybe_real(r, "attention_factor", 0, 100, &rope->attn_factor);
    maybe_real(r, "llama_4_scaling_beta", 0, 100, &c->temperature);
}

/* Phi-3: its own formula where the config gives no factor (transformers,
 * modeling_rope_utils.py, _compute_longrope_parameters). */
static void read_longrope(reader *r, const json_t *config, model_config *c) {
    rope_config *rope = &c->rope;
    reader top = {config, "", r->s, r->e};
    rope->scaling = ROPE_SCALING_LONGROPE;
    rope->attn_factor = 1;
    maybe_count(&top, "original_max_position_embeddings", &rope->original_len);
    r->s = top.s;
    maybe_count(r, "original_max_position_embeddings", &rope->original_len);
    if (c->n_ctx_train > rope->original_len && rope->original_len > 1)
        rope->attn_factor = (float)sqrt(1 + log((double)c->n_ctx_train / rope->original_len) /
                                                log((double)rope->original_len));
    maybe_real(r, "attention_factor", 1e-3, 100, &rope->attn_factor);
}

/* Since transformers 5 it is rope_parameters, which has rope_theta in it, too. */
static const char *rope_object(const json_t *o) {
    return json_in_has(o, "rope_parameters") ? "rope_parameters" : "rope_scaling";
}

static void read_rope(reader *r, model_config *c) {
    rope_config *rope = &c->rope;
    maybe_real(r, "rope_theta", 1, 1e12, &rope->theta);
    if (r->s != OK) return;
    const char *name = rope_object(r->o);
    const json_t *o = json_object_get(r->o, name);
    if (!o || json_is_null(o)) return;
    if (!json_is_object(o)) {
        r->s = json_in_wrong(r->e, name, "an object", o);
        return;
    }
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s%s.", r->prefix, name);
    const json_t *full = json_object_get(o, "full_attention");
    const json_t *slides = json_object_get(o, "sliding_attention");
    if (json_is_object(full)) { /* one for each kind of layer */
        snprintf(prefix, sizeof prefix, "%s%s.full_attention.", r->prefix, name);
        if (json_is_object(slides) && c->window) {
            reader local = {slides, "rope_parameters.sliding_attention.", OK, r->e};
            maybe_real(&local, "rope_theta", 1, 1e12, &c->window_theta);
            if ((r->s = local.s) != OK) return;
        }
        o = full;
    }
    reader in = {o, prefix, OK, r->e};
    const char *key = json_in_has(o, "rope_type") ? "rope_type" : "type";
    str type = {NULL, 0};
    maybe_str(&in, key, &type);
    maybe_real(&in, "rope_theta", 1, 1e12, &rope->theta);
    if (json_in_has(o, "partial_rotary_factor")) { /* as transformers 5 has it */
        float rotary = 1;
        maybe_real(&in, "partial_rotary_factor", 0, 1, &rotary);
        rope->n_dims = (uint32_t)((float)c->head_dim * rotary);
    }
    rope->original_len = c->n_ctx_train;
    if (in.s == OK && !type.ptr)
        missing(&in, "rope_type");
    else if (in.s == OK && str_eqz(type, "linear")) {
        rope->scaling = ROPE_SCALING_LINEAR;
        real(&in, "factor", 1e-3, 1e4, &rope->factor);
    } else if (in.s == OK && strcmp(c->arch, "phi3") == 0 &&
               (str_eqz(type, "longrope") || str_eqz(type, "su")))
        read_longrope(&in, r->o, c);
    else if (in.s == OK && str_eqz(type, "yarn"))
        read_yarn(&in, c);
    else if (in.s == OK && str_eqz(type, "llama3"))
        read_llama3(&in, rope);
    else if (in.s == OK && c->shape.listed == 0 && strcmp(c->arch, "gemma4") == 0 &&
             str_eqz(type, "proportional"))
        return; /* hf_shape.c reads the rest of it */
    else if (in.s == OK && !str_eqz(type, "default"))
        unsupported(&in, key, type, "known: default, linear, yarn, llama3");
    r->s = in.s;
}

/* All that may have a bias has one; SwiGLU has the numbers of ACT_SWIGLU_OAI. */
static void read_gpt_oss(reader *r, model_config *c) {
    static const struct {
        const char *key;
        float is;
    } known[] = {{"swiglu_limit", 7}, {"swiglu_alpha", 1.702f}};
    c->o_bias = c->ffn_bias = c->router_bias = c->sinks = true;
    for (size_t i = 0; i < sizeof known / sizeof *known && r->s == OK; i++) {
        float v = known[i].is;
        maybe_real(r, known[i].key, 0, 1e6, &v);
        if (r->s != OK || v == known[i].is) continue;
        err_set(r->e, ERR_UNSUPPORTED, "config.json: a %s of %.9g is not supported",
                known[i].key, (double)v);
        err_hint(r->e, "known: %.4g", (double)known[i].is);
        r->s = err_field(r->e, "%s%s", r->prefix, known[i].key);
    }
}

static void read_biases(reader *r, model_config *c, const family *f, const hf_model *model) {
    str act = {NULL, 0};
    c->qkv_bias = f->qkv_bias;
    c->tied_head = f->hf.tied;
    maybe_bool(r, "tie_word_embeddings", &c->tied_head);
    if (model->bias_option) {
        maybe_bool(r, "attention_bias", &c->qkv_bias);
        c->o_bias = c->qkv_bias;
        maybe_bool(r, "mlp_bias", &c->ffn_bias);
    }
    if (model->qkv_bias_option) maybe_bool(r, "attention_bias", &c->qkv_bias);
    if (strcmp(f->arch, "gpt-oss") == 0) read_gpt_oss(r, c);
    maybe_str(r, "hidden_act", &act);
    if (r->s == OK && f->hf.act && act.ptr && !str_eqz(act, f->hf.act))
        unsupported(r, "hidden_act", act, "known: silu");
}

/* A range error names the field of model_config; whoever has the file wants the member. */
static void name_member(const json_t *o, err *e) {
    static const char *const map[][2] = {
        {"n_layers", "num_hidden_layers"},
        {"n_embd", "hidden_size"},
        {"n_heads", "num_attention_heads"},
        {"n_kv_heads", "num_key_value_heads"},
        {"n_ff", "intermediate_size"},
        {"n_vocab", "vocab_size"},
        {"n_ctx_train", "max_position_embeddings"},
        {"norm_eps", "rms_norm_eps"},
        {"n_experts", "num_local_experts"},
        {"n_experts_used", "num_experts_per_tok"},
        {"experts_scale", "routed_scaling_factor"},
        {"expert_groups", "n_group"},
        {"head_dim", "head_dim"},
        {"rope.n_dims", "head_dim"},
        {"attn_scale", "attention_multiplier"},
        {"attn_cap", "attn_logit_softcapping"},
        {"logit_cap", "final_logit_softcapping"},
        {"embd_scale", "embedding_multiplier"},
        {"residual_scale", "residual_multiplier"},
        {"logit_scale", "logits_scaling"},
        {"rope.factor", ".factor"}, /* of rope_scaling or rope_parameters */
        {"rope.original_len", ".original_max_position_embeddings"},
        {"rope.low_freq_factor", ".low_freq_factor"},
        {"rope.high_freq_factor", ".high_freq_factor"},
        {"rope.beta_fast", ".beta_fast"},
        {"rope.beta_slow", ".beta_slow"},
    };
    for (size_t i = 0; i < sizeof map / sizeof *map; i++)
        if (strcmp(e->field, map[i][0]) == 0) {
            char text[sizeof e->text];
            const char *in = map[i][1][0] == '.' ? rope_object(o) : "";
            snprintf(text, sizeof text, "%s", e->text);
            err_set(e, e->code, "config.json: %s%s: %.300s", in, map[i][1], text);
            err_hint(e, "compare with the config.json that the model was published with");
            err_field(e, "%s%s", in, map[i][1]);
            return;
        }
}

static status read_config(model_config *c, reader *r) {
    const hf_model *model = NULL;
    const family *f = find_family(r, &model);
    model_config_init(c);
    if (!f) return r->s;
    snprintf(c->arch, sizeof c->arch, "%s", f->arch);
    snprintf(c->name, sizeof c->name, "%s", model->type);
    c->rope.pairing = family_pairing(f, false);
    c->norms_per_layer = f->norms_per_layer;
    c->bidirectional = f->encoder;
    c->qk_norm = f->qk_norm;
    c->qk_norm_whole = f->qk_norm_whole;
    c->norm_eps = 1e-6f;
    c->experts_norm = f->experts.norm;
    c->experts_sigmoid = f->experts.sigmoid;
    read_shape(r, c, f, model);
    read_biases(r, c, f, model);
    read_window(r, c, f);
    read_scales(r, c, f);
    read_nope(r, c, f);
    if (strcmp(f->arch, "gemma3") == 0) read_gemma3(r, c);
    read_rope(r, c);
    if (c->window && f->window_unscaled && c->window_theta == 0)
        c->window_theta = c->rope.theta;
    if (r->s == OK && f->shaped) r->s = hf_shape_read(c, model->type, r->o, r->prefix, r->e);
    if (!c->n_experts)
        c->experts_norm = c->experts_sigmoid = false;
    else
        c->experts_eps = f->experts.eps;
    if (r->s != OK) return r->s;
    status s = model_config_check(c, r->e);
    if (s != OK) name_member(r->o, r->e);
    return s;
}

/* The type of what is not quantised: "dtype" since transformers 5. */
static void read_type(reader *r, dtype *out) {
    str type = {NULL, 0};
    maybe_str(r, "torch_dtype", &type);
    maybe_str(r, "dtype", &type);
    weight_mix mix;
    if (r->s != OK || !type.ptr) return;
    if (weight_mix_by_name(&mix, type) && mix.kind == MIX_NONE)
        *out = mix.base;
    else
        unsupported(r, "torch_dtype", type, "known: bfloat16, float16, float32");
}

static status fill(hf_config *out, const json_t *o, err *e) {
    const json_t *inner = json_object_get(o, "text_config");
    reader top = {o, "", OK, e}, text = {inner, "text_config.", OK, e};
    out->text_part = json_is_object(inner);
    status s = read_config(&out->config, out->text_part ? &text : &top);
    if (s != OK) return s;
    read_type(&top, &out->type);
    if (out->text_part && top.s == OK) read_type(&text, &out->type);
    if (top.s != OK || text.s != OK) return e->code;
    out->quant.rest = out->type;
    static const char *const keys[] = {"quantization_config", "compression_config"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *q = json_object_get(o, keys[i]);
        if (!json_is_object(q) && out->text_part) q = json_object_get(inner, keys[i]);
        if (!q || json_is_null(q)) continue;
        if (hf_scheme_read(&out->scheme, q, &out->not_loaded) == OK) out->not_loaded.code = OK;
        return hf_quant_read(&out->quant, q, &out->config, e);
    }
    return OK;
}

/* ---- text ---- */

status hf_config_of(hf_config *out, const json_t *o, err *e) {
    *out = (hf_config){.type = DT_BF16};
    return json_is_object(o) ? fill(out, o, e)
                             : json_in_wrong(e, "config.json", "an object", o);
}

static status parse_in(hf_config *out, arena *a, str text, err *e) {
    const json_t *o;
    status s = hf_parse_json(&o, text, "config.json", a, e);
    if (s == OK) return hf_config_of(out, o, e);
    if (s == ERR_INVALID) err_hint(e, "name the model's config.json");
    return err_field(e, "%s", ""); /* of no member */
}

status hf_config_parse(hf_config *out, str text, err *e) {
    arena a;
    arena_init(&a, chunks_heap(), 0);
    status s = parse_in(out, &a, text, e);
    arena_clear(&a);
    return s;
}

status hf_config_load(hf_config *out, const char *path, err *e) {
    arena a;
    str text;
    arena_init(&a, chunks_heap(), 0);
    status s = hf_read_text(&text, AT_FDCWD, path, HF_MAX_CONFIG, &a, e);
    if (s != OK) err_field(e, "%s", "");
    if (s == ERR_INVALID) err_hint(e, "name the model's config.json");
    if (s == OK) s = parse_in(out, &a, text, e);
    arena_clear(&a);
    return s;
}
