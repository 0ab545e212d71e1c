/* The numbers that define a model: read from GGUF metadata, checked, counted. Owns nothing; any
 * thread. Keys: ggml, docs/gguf.md, "LLM" and "RoPE"; llama.cpp, src/llama-arch.cpp. */
#include "model/config.h"

#include <math.h>
#include <stdio.h>

#include "base/check.h"
#include "model/family.h"

void model_config_init(model_config *c) {
    *c = (model_config){
        .norm_eps = 1e-5f,
        .norms_per_layer = 2,
        .rope = {.theta = 10000, .factor = 1, .beta_fast = 32, .beta_slow = 1},
    };
}

/* ---- from GGUF ---- */

/* Look-ups of "ARCH.suffix" that stop at the first error. */
typedef struct keys {
    const gguf *g;
    const char *arch;
    status s;
    err *e;
    char key[96];
} keys;

static const char *key_of(keys *k, const char *suffix) {
    snprintf(k->key, sizeof k->key, "%s.%s", k->arch, suffix);
    return k->key;
}

static void want_u32(keys *k, const char *suffix, uint32_t *out) {
    if (k->s != OK) return;
    const char *key = key_of(k, suffix);
    if (!gguf_find(k->g, key)) {
        err_set(k->e, ERR_FORMAT, "%.200s: the key %s is missing", gguf_path(k->g), key);
        k->s = err_field(k->e, "%s", key);
        return;
    }
    k->s = gguf_get_u32(k->g, key, out, k->e);
}

static void maybe_u32(keys *k, const char *suffix, uint32_t *out) {
    if (k->s == OK) k->s = gguf_get_u32(k->g, key_of(k, suffix), out, k->e);
}

static void maybe_f32(keys *k, const char *suffix, float *out) {
    if (k->s == OK) k->s = gguf_get_f32(k->g, key_of(k, suffix), out, k->e);
}

static void bad_key(keys *k, status code, const char *suffix, const char *what) {
    if (k->s != OK) return;
    err_set(k->e, code, "%.200s: architecture %s: %s", gguf_path(k->g), k->arch, what);
    k->s = err_field(k->e, "%s", key_of(k, suffix));
}

static bool has_tensor(const gguf *g, const char *name) {
    return gguf_tensor_find(g, name) != NULL;
}

static void read_scaling(keys *k, model_config *c) {
    rope_config *r = &c->rope;
    str type = STR("none");
    float scale = 1, ext = -1, attn = 1, yarn_attn = 1;
    if (k->s == OK) k->s = gguf_get_str(k->g, key_of(k, "rope.scaling.type"), &type, k->e);
    maybe_f32(k, "rope.scale_linear", &scale); /* as files of 2023 have it */
    r->factor = scale;
    maybe_f32(k, "rope.scaling.factor", &r->factor);
    maybe_u32(k, "rope.scaling.original_context_length", &r->original_len);
    maybe_f32(k, "rope.scaling.attn_factor", &attn);
    maybe_f32(k, "rope.scaling.yarn_attn_factor", &yarn_attn);
    maybe_f32(k, "rope.scaling.yarn_ext_factor", &ext);
    maybe_f32(k, "rope.scaling.yarn_beta_fast", &r->beta_fast);
    maybe_f32(k, "rope.scaling.yarn_beta_slow", &r->beta_slow);
    if (k->s != OK) return;
    if (str_eqz(type, "linear") || (str_eqz(type, "none") && scale != 1))
        r->scaling = ROPE_SCALING_LINEAR;
    else if (str_eqz(type, "yarn"))
        r->scaling = ROPE_SCALING_YARN;
    else if (has_tensor(k->g, "rope_factors_short.weight"))
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
    if (ext >= 0 && ext != 1)
        bad_key(k, ERR_UNSUPPORTED, "rope.scaling.yarn_ext_factor",
                "only YaRN with an extrapolation factor of 1 is known");
    /* llama.cpp multiplies the formula by the file's factor (ggml, rope_yarn). */
    if (yarn_attn != 1) attn = yarn_attn;
    if (attn != 1 && r->factor > 0) r->attn_factor = attn * (0.1f * logf(r->factor) + 1);
    if (!r->original_len) r->original_len = c->n_ctx_train;
}

static void read_vocab(keys *k, model_config *c) {
    maybe_u32(k, "vocab_size", &c->n_vocab);
    if (k->s != OK) return;
    const gguf_kv *tokens = gguf_find(k->g, "tokenizer.ggml.tokens");
    const gguf_tensor *embd = gguf_tensor_find(k->g, "token_embd.weight");
    /* The matrix decides: it may have rows for padding that the list of tokens lacks. */
    if (embd && embd->ne[1] <= UINT32_MAX)
        c->n_vocab = (uint32_t)embd->ne[1];
    else if (!c->n_vocab && tokens && tokens->type == GGUF_ARRAY && tokens->a.n <= UINT32_MAX)
        c->n_vocab = (uint32_t)tokens->a.n;
    if (tokens && tokens->type == GGUF_ARRAY && tokens->a.n > c->n_vocab) {
        err_set(k->e, ERR_FORMAT, "%.200s: %llu tokens, but the model has room for %u",
                gguf_path(k->g), (unsigned long long)tokens->a.n, c->n_vocab);
        k->s = err_field(k->e, "tokenizer.ggml.tokens");
    }
}

static void read_attention(keys *k, model_config *c) {
    uint32_t value_dim = 0;
    want_u32(k, "attention.head_count", &c->n_heads);
    c->n_kv_heads = c->n_heads;
    maybe_u32(k, "attention.head_count_kv", &c->n_kv_heads);
    if (c->n_heads) c->head_dim = c->n_embd / c->n_heads;
    maybe_u32(k, "attention.key_length", &c->head_dim);
    value_dim = c->head_dim;
    maybe_u32(k, "attention.value_length", &value_dim);
    if (value_dim != c->head_dim)
        bad_key(k, ERR_UNSUPPORTED, "attention.value_length",
                "keys and values of different length are not supported");
    maybe_u32(k, "attention.sliding_window", &c->window);
    c->rope.n_dims = c->head_dim;
    maybe_u32(k, "rope.dimension_count", &c->rope.n_dims);
}

/* Which layers have the window: each but the n-th, as a number or layer by layer. */
static void read_pattern(keys *k, model_config *c) {
    const char *suffix = "attention.sliding_window_pattern";
    const gguf_kv *kv = gguf_find(k->g, key_of(k, suffix));
    if (!kv || kv->type != GGUF_ARRAY) {
        maybe_u32(k, suffix, &c->window_every);
        return;
    }
    gguf_array a = {0};
    if (k->s == OK) k->s = gguf_get_array(k->g, key_of(k, suffix), GGUF_BOOL, &a, k->e);
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

/* What families with windows on some layers, or scores of their own, have beside the rest. */
static void read_layers(keys *k, model_config *c, const family *f) {
    float cap = 0;
    maybe_f32(k, "attn_logit_softcapping", &cap);
    maybe_f32(k, "final_logit_softcapping", &cap);
    if (cap != 0)
        bad_key(k, ERR_UNSUPPORTED, "final_logit_softcapping",
                "soft-capping of logits is not supported");
    maybe_f32(k, "attention.scale", &c->attn_scale);
    if (!f->window_every) return;
    /* Gemma 3 27B scales by its width; files do not say so (llama.cpp, src/models/gemma3.cpp).
     */
    if (c->attn_scale == 0 && c->n_layers == 62 && c->n_heads)
        c->attn_scale = 1 / sqrtf((float)(c->n_embd / c->n_heads));
    if (!c->window) return;
    c->window_every = f->window_every;
    c->window_theta = f->window_theta;
    maybe_f32(k, "rope.freq_base_swa", &c->window_theta);
    read_pattern(k, c);
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
        {"rope.n_dims", "rope.dimension_count"},
        {"attn_scale", "attention.scale"},
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

status model_config_from_gguf(model_config *c, const gguf *g, err *e) {
    str arch = {NULL, 0}, name = STR("");
    model_config_init(c);
    status s = gguf_get_str(g, "general.architecture", &arch, e);
    if (s != OK) return s;
    if (!arch.ptr) {
        err_set(e, ERR_FORMAT, "%.200s: the key general.architecture is missing", gguf_path(g));
        return err_field(e, "general.architecture");
    }
    if (arch.len < sizeof c->arch) memcpy(c->arch, arch.ptr, arch.len);
    const family *f = family_find(c->arch);
    if (!f || f->refuse || !str_eqz(arch, c->arch)) {
        err_set(e, ERR_UNSUPPORTED, "%.200s: architecture " STR_FMT " is not supported%s%s",
                gguf_path(g), (int)(arch.len < 64 ? arch.len : 64), arch.ptr,
                f && f->refuse ? ": " : "", f && f->refuse ? f->refuse : "");
        err_hint(e, "supported: " FAMILIES_KNOWN);
        return err_field(e, "general.architecture");
    }
    if ((s = gguf_get_str(g, "general.name", &name, e)) != OK) return s;
    snprintf(c->name, sizeof c->name, STR_FMT,
             (int)(name.len < sizeof c->name ? name.len : sizeof c->name - 1), name.ptr);
    keys k = {.g = g, .arch = c->arch, .s = OK, .e = e};
    c->rope.pairing = f->pairing;
    c->qk_norm = f->qk_norm;
    c->norms_per_layer = f->norms_per_layer;
    want_u32(&k, "block_count", &c->n_layers);
    want_u32(&k, "context_length", &c->n_ctx_train);
    want_u32(&k, "embedding_length", &c->n_embd);
    want_u32(&k, "feed_forward_length", &c->n_ff);
    read_attention(&k, c);
    maybe_f32(&k, "rope.freq_base", &c->rope.theta);
    maybe_f32(&k, "attention.layer_norm_rms_epsilon", &c->norm_eps);
    maybe_u32(&k, "expert_count", &c->n_experts);
    maybe_u32(&k, "expert_used_count", &c->n_experts_used);
    read_scaling(&k, c);
    read_vocab(&k, c);
    read_layers(&k, c, f);
    if (k.s != OK) return k.s;
    c->tied_head = !has_tensor(g, "output.weight");
    c->qkv_bias = f->qkv_bias || has_tensor(g, "blk.0.attn_q.bias");
    c->o_bias = has_tensor(g, "blk.0.attn_output.bias");
    c->ffn_bias = has_tensor(g, "blk.0.ffn_down.bias");
    s = model_config_check(c, e);
    if (s != OK) name_key(c, e);
    return s;
}

/* ---- ranges ---- */

static status out_of_range(err *e, const char *field, double found, double min, double max) {
    err_set(e, ERR_FORMAT, "%s is %.9g; it must be from %.9g to %.9g", field, found, min, max);
    return err_field(e, "%s", field);
}

static status check_heads(const model_config *c, err *e) {
    if (c->n_heads % c->n_kv_heads != 0) {
        err_set(e, ERR_FORMAT, "%u query heads are not a multiple of %u KV heads", c->n_heads,
                c->n_kv_heads);
        return err_field(e, "n_kv_heads");
    }
    if (c->rope.n_dims > c->head_dim || c->rope.n_dims % 2 != 0) {
        err_set(e, ERR_FORMAT,
                "%u rotated dimensions of a head of %u: want an even number, not "
                "more than the head has",
                c->rope.n_dims, c->head_dim);
        return err_field(e, "rope.n_dims");
    }
    if (c->n_experts_used > c->n_experts || (c->n_experts && !c->n_experts_used)) {
        err_set(e, ERR_FORMAT, "%u experts used of %u", c->n_experts_used, c->n_experts);
        return err_field(e, "n_experts_used");
    }
    return OK;
}

static status check_rope(const rope_config *r, err *e) {
    /* Written so that NaN fails. */
    if (!(r->theta >= 1 && r->theta <= 1e12f))
        return out_of_range(e, "rope.theta", r->theta, 1, 1e12);
    if (r->scaling == ROPE_SCALING_NONE) return OK;
    if (!(r->factor >= 1e-3f && r->factor <= 1e4f))
        return out_of_range(e, "rope.factor", r->factor, 1e-3, 1e4);
    if (r->scaling == ROPE_SCALING_LINEAR) return OK;
    if (r->original_len < 1 || r->original_len > 1u << 30)
        return out_of_range(e, "rope.original_len", r->original_len, 1, 1u << 30);
    if (r->scaling == ROPE_SCALING_LONGROPE && !(r->attn_factor > 0 && r->attn_factor <= 100))
        return out_of_range(e, "rope.attn_factor", r->attn_factor, 0, 100);
    if (r->scaling == ROPE_SCALING_LONGROPE) return OK;
    if (r->scaling == ROPE_SCALING_LLAMA3) {
        if (!(r->low_freq_factor > 0 && r->low_freq_factor <= 1e4f))
            return out_of_range(e, "rope.low_freq_factor", r->low_freq_factor, 0, 1e4);
        if (!(r->high_freq_factor > r->low_freq_factor && r->high_freq_factor <= 1e4f))
            return out_of_range(e, "rope.high_freq_factor", r->high_freq_factor,
                                r->low_freq_factor, 1e4);
        return OK;
    }
    if (!(r->attn_factor >= 0 && r->attn_factor <= 100))
        return out_of_range(e, "rope.attn_factor", r->attn_factor, 0, 100);
    if (!(r->beta_slow > 0 && r->beta_slow <= 1e6f))
        return out_of_range(e, "rope.beta_slow", r->beta_slow, 0, 1e6);
    if (!(r->beta_fast > r->beta_slow && r->beta_fast <= 1e6f))
        return out_of_range(e, "rope.beta_fast", r->beta_fast, r->beta_slow, 1e6);
    return OK;
}

status model_config_check(const model_config *c, err *e) {
    const struct {
        const char *field;
        uint32_t v, min, max;
    } range[] = {
        {"n_layers", c->n_layers, 1, MODEL_MAX_LAYERS},
        {"n_embd", c->n_embd, 1, 1 << 18},
        {"n_heads", c->n_heads, 1, 1 << 14},
        {"n_kv_heads", c->n_kv_heads, 1, 1 << 14},
        {"head_dim", c->head_dim, 2, 1 << 14},
        {"n_ff", c->n_ff, 1, 1 << 20},
        {"n_vocab", c->n_vocab, 1, 1 << 24},
        {"n_ctx_train", c->n_ctx_train, 1, 1u << 30},
        {"rope.n_dims", c->rope.n_dims, 2, 1 << 14},
        {"n_experts", c->n_experts, 0, 4096},
        {"norms_per_layer", c->norms_per_layer, 2, 4},
    };
    for (size_t i = 0; i < sizeof range / sizeof *range; i++)
        if (range[i].v < range[i].min || range[i].v > range[i].max)
            return out_of_range(e, range[i].field, range[i].v, range[i].min, range[i].max);
    if (!(c->norm_eps > 0 && c->norm_eps <= 0.1f))
        return out_of_range(e, "norm_eps", c->norm_eps, 0, 0.1);
    if (!(c->attn_scale >= 0 && c->attn_scale <= 1e3f))
        return out_of_range(e, "attn_scale", c->attn_scale, 0, 1e3);
    if (c->window_theta != 0 && !(c->window_theta >= 1 && c->window_theta <= 1e12f))
        return out_of_range(e, "window_theta", c->window_theta, 1, 1e12);
    /* A row of q | k | v stays far inside 32 bits. */
    if ((uint64_t)c->n_heads * c->head_dim > 1 << 24)
        return out_of_range(e, "head_dim", c->head_dim, 2, (1 << 24) / c->n_heads);
    status s = check_heads(c, e);
    return s == OK ? check_rope(&c->rope, e) : s;
}

/* ---- sums; within the ranges above none leaves 64 bits ---- */

uint64_t model_config_params(const model_config *c) {
    const uint64_t h = c->n_embd, f = c->n_ff, hd = c->head_dim;
    const uint64_t q = c->n_heads * hd, kv = c->n_kv_heads * hd;
    const uint64_t n_ffn = c->n_experts ? c->n_experts : 1;
    uint64_t layer = h * q + 2 * h * kv + q * h; /* q, k, v, o */
    if (c->qkv_bias) layer += q + 2 * kv;
    if (c->o_bias) layer += h;
    layer += n_ffn * 3 * h * f; /* gate, up, down */
    if (c->ffn_bias) layer += n_ffn * (2 * f + h);
    layer += c->n_experts * h; /* router */
    layer += c->norms_per_layer * h;
    if (c->qk_norm) layer += 2 * hd;
    uint64_t embd = (uint64_t)c->n_vocab * h;
    return layer * c->n_layers + embd * (c->tied_head ? 1 : 2) + h;
}

uint64_t model_config_kv_bytes_per_token(const model_config *c, dtype t) {
    uint64_t bytes;
    return dtype_bytes(t, 2ull * c->n_kv_heads * c->n_layers, c->head_dim, &bytes) ? bytes : 0;
}

uint32_t model_config_window(const model_config *c, uint32_t layer) {
    bool full = c->window_every && (layer + 1) % c->window_every == 0;
    return full || c->window >= c->n_ctx_train ? 0 : c->window;
}

rope_config model_config_rope(const model_config *c, uint32_t layer) {
    rope_config r = c->rope;
    if (c->window_theta == 0 || model_config_window(c, layer) == 0) return r;
    r.theta = c->window_theta;
    r.scaling = ROPE_SCALING_NONE;
    r.factor = 1;
    return r;
}
