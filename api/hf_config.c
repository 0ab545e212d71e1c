/* config.json by jansson. Main thread of `vramd plan`; one arena, gone at return. */
#include "api/hf_config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/json_in.h"
#include "base/buf.h"

enum { MAX_CONFIG_BYTES = 1 << 20 };

static status read_file(buf *b, const char *path, err *e) {
    char part[4096];
    size_t n;
    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path,
                       strerror(errno));
    while ((n = fread(part, 1, sizeof part, f)) > 0 && b->len <= MAX_CONFIG_BYTES)
        buf_add(b, (str){part, n});
    bool bad = ferror(f);
    fclose(f);
    if (bad) return err_set(e, ERR_IO, "%s: cannot be read", path);
    if (b->failed) return err_set(e, ERR_NO_MEMORY, "%s: no memory to read it", path);
    if (b->len <= MAX_CONFIG_BYTES) return OK;
    err_set(e, ERR_INVALID, "%s: over 1 MiB, so no config.json", path);
    return err_hint(e, "name the model's config.json");
}

/* A count that must be there (fallback 0) or defaults to fallback. */
static status count(const json_t *o, const char *key, uint32_t fallback, uint32_t *out,
                    err *e) {
    int64_t v = fallback;
    if (!json_in_has(o, key) && fallback == 0) {
        err_set(e, ERR_FORMAT, "config.json: %s is missing", key);
        err_field(e, "%s", key);
        return err_hint(e, "plan the GGUF file itself, or complete the config");
    }
    status s = json_in_int(o, key, 1, 1 << 28, &v, e);
    *out = (uint32_t)v;
    return s;
}

static status real(const json_t *o, const char *key, double low, double high, float *out,
                   err *e) {
    double v = *out;
    status s = json_in_real(o, key, low, high, &v, e);
    *out = (float)v;
    return s;
}

static status scaling(rope_config *r, const json_t *root, uint32_t n_ctx, err *e) {
    const json_t *o = json_object_get(root, "rope_scaling");
    str type = {0};
    if (!o || json_is_null(o)) return OK;
    if (!json_is_object(o)) return json_in_wrong(e, "rope_scaling", "an object", o);
    status s = json_in_str(o, json_in_has(o, "rope_type") ? "rope_type" : "type", &type, e);
    if (s != OK) return s;
    if (str_eqz(type, "linear"))
        r->scaling = ROPE_SCALING_LINEAR;
    else if (str_eqz(type, "yarn"))
        r->scaling = ROPE_SCALING_YARN;
    else if (str_eqz(type, "llama3"))
        r->scaling = ROPE_SCALING_LLAMA3;
    else if (!str_eqz(type, "default")) {
        err_set(e, ERR_UNSUPPORTED, "config.json: rope_scaling of type \"" STR_FMT "\"",
                STR_ARG(type));
        err_field(e, "rope_scaling");
        return err_hint(e, "known: linear, yarn, llama3");
    }
    s = real(o, "factor", 1, 1e4, &r->factor, e);
    if (s == OK) s = count(o, "original_max_position_embeddings", n_ctx, &r->original_len, e);
    if (s == OK) s = real(o, "low_freq_factor", 0, 1e4, &r->low_freq_factor, e);
    if (s == OK) s = real(o, "high_freq_factor", 0, 1e4, &r->high_freq_factor, e);
    if (s == OK) s = real(o, "beta_fast", 0, 1e4, &r->beta_fast, e);
    if (s == OK) s = real(o, "beta_slow", 0, 1e4, &r->beta_slow, e);
    return s == OK ? real(o, "attention_factor", 0, 1e4, &r->attn_factor, e) : s;
}

/* mistral is llama by another name; in GGUF both are "llama". */
static status family(model_config *c, const json_t *o, err *e) {
    str type = {0};
    status s = json_in_str(o, "model_type", &type, e);
    if (s != OK) return s;
    if (str_eqz(type, "llama") || str_eqz(type, "mistral")) {
        snprintf(c->arch, sizeof c->arch, "llama");
        c->rope.pairing = ROPE_ADJACENT;
    } else if (str_eqz(type, "qwen2")) {
        snprintf(c->arch, sizeof c->arch, "qwen2");
        c->rope.pairing = ROPE_HALVES;
        c->qkv_bias = true;
    } else {
        err_set(e, ERR_UNSUPPORTED, "config.json: model_type \"" STR_FMT "\" cannot be planned",
                STR_ARG(type));
        err_field(e, "model_type");
        return err_hint(e, "known: llama, mistral, qwen2");
    }
    snprintf(c->name, sizeof c->name, STR_FMT, STR_ARG(type));
    return OK;
}

static status window(model_config *c, const json_t *o, err *e) {
    bool use = true;
    status s = json_in_bool(o, "use_sliding_window", &use, e);
    if (s != OK || !use || !json_in_has(o, "sliding_window")) return s;
    return count(o, "sliding_window", 0, &c->window, e);
}

static status fill(model_config *c, const json_t *o, err *e) {
    uint32_t n_heads;
    float theta = 10000;
    status s = family(c, o, e);
    if (s == OK) s = count(o, "hidden_size", 0, &c->n_embd, e);
    if (s == OK) s = count(o, "num_hidden_layers", 0, &c->n_layers, e);
    if (s == OK) s = count(o, "num_attention_heads", 0, &c->n_heads, e);
    if (s != OK) return s;
    n_heads = c->n_heads;
    s = count(o, "num_key_value_heads", n_heads, &c->n_kv_heads, e);
    if (s == OK)
        s = count(o, "head_dim", c->n_embd / n_heads ? c->n_embd / n_heads : 1, &c->head_dim,
                  e);
    if (s == OK) s = count(o, "intermediate_size", 0, &c->n_ff, e);
    if (s == OK) s = count(o, "vocab_size", 0, &c->n_vocab, e);
    if (s == OK) s = count(o, "max_position_embeddings", 0, &c->n_ctx_train, e);
    c->norm_eps = 1e-6f;
    if (s == OK) s = real(o, "rms_norm_eps", 1e-12, 1, &c->norm_eps, e);
    if (s == OK) s = real(o, "rope_theta", 1, 1e12, &theta, e);
    if (s == OK) s = json_in_bool(o, "tie_word_embeddings", &c->tied_head, e);
    if (s == OK && !c->qkv_bias) s = json_in_bool(o, "attention_bias", &c->qkv_bias, e);
    if (s == OK && strcmp(c->arch, "llama") == 0) c->o_bias = c->qkv_bias;
    if (s == OK) s = json_in_bool(o, "mlp_bias", &c->ffn_bias, e);
    if (s == OK) s = window(c, o, e);
    c->norms_per_layer = 2;
    c->rope.n_dims = c->head_dim;
    c->rope.theta = theta;
    c->rope.factor = 1;
    c->rope.beta_fast = 32;
    c->rope.beta_slow = 1;
    c->rope.low_freq_factor = 1;
    c->rope.high_freq_factor = 4;
    c->rope.original_len = c->n_ctx_train;
    if (s == OK) s = scaling(&c->rope, o, c->n_ctx_train, e);
    return s == OK ? model_config_check(c, e) : s;
}

status hf_config_load(model_config *out, const char *path, err *e) {
    arena a;
    buf text;
    const json_t *o;
    *out = (model_config){0};
    arena_init(&a, chunks_heap(), 0);
    buf_init(&text, &a);
    status s = read_file(&text, path, e);
    if (s == OK) s = json_in_parse(&o, &a, buf_str(&text), e);
    if (s == OK && !json_is_object(o)) s = json_in_wrong(e, "config.json", "an object", o);
    if (s == OK) s = fill(out, o, e);
    arena_clear(&a);
    return s;
}
