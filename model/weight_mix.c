/* llama.cpp's mixtures of types: src/llama-quant.cpp, llama_tensor_get_type. Owns nothing; any
 * thread. */
#include "model/weight_mix.h"

#include <string.h>
#include <strings.h>

static bool equal(str s, const char *z) {
    return s.len == strlen(z) && strncasecmp(s.ptr, z, s.len) == 0;
}

bool weight_mix_by_name(weight_mix *out, str name) {
    static const struct {
        const char *name;
        weight_mix mix;
    } named[] = {
        {"Q3_K_S", {DT_Q3_K, MIX_SMALL}},  {"Q3_K_M", {DT_Q3_K, MIX_MEDIUM}},
        {"Q3_K_L", {DT_Q3_K, MIX_LARGE}},  {"Q4_K_S", {DT_Q4_K, MIX_SMALL}},
        {"Q4_K_M", {DT_Q4_K, MIX_MEDIUM}}, {"Q5_K_S", {DT_Q5_K, MIX_SMALL}},
        {"Q5_K_M", {DT_Q5_K, MIX_MEDIUM}}, {"FP32", {DT_F32, MIX_NONE}},
        {"float32", {DT_F32, MIX_NONE}},   {"FP16", {DT_F16, MIX_NONE}},
        {"float16", {DT_F16, MIX_NONE}},   {"bfloat16", {DT_BF16, MIX_NONE}},
    };
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (equal(name, named[i].name)) return *out = named[i].mix, true;
    *out = (weight_mix){dtype_by_name(name), MIX_NONE};
    return dtype_get(out->base) && (out->base < DT_I8 || out->base > DT_F64);
}

/* The first and the last eighth of n, and each third between. */
static bool use_more_bits(uint32_t i, uint32_t n) {
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

/* What llama.cpp calls a model of 70B. */
static bool is_70b(const model_config *c) {
    return c->n_layers == 80 && c->n_heads != c->n_kv_heads &&
           (strcmp(c->arch, "llama") == 0 || strcmp(c->arch, "qwen2") == 0);
}

static dtype type_of_v(const weight_mix *m, const model_config *c, uint32_t i) {
    dtype t = m->base;
    const bool more = use_more_bits(i, c->n_layers);
    if (m->base == DT_Q3_K && m->kind == MIX_MEDIUM) t = i < 2 ? DT_Q5_K : DT_Q4_K;
    if (m->base == DT_Q3_K && m->kind == MIX_LARGE) t = DT_Q5_K;
    if (m->base != DT_Q3_K && m->kind == MIX_MEDIUM && more) t = DT_Q6_K;
    if (m->base == DT_Q4_K && m->kind == MIX_SMALL && i < 4) t = DT_Q5_K;
    if (is_70b(c) && (t == DT_Q3_K || t == DT_Q4_K)) t = DT_Q5_K;
    return c->n_experts == 8 ? DT_Q8_0 : t;
}

static dtype type_of_down(const weight_mix *m, const model_config *c, uint32_t i) {
    const uint32_t n = c->n_layers;
    if (m->base == DT_Q3_K && m->kind == MIX_MEDIUM) return i < n / 16 ? DT_Q5_K : DT_Q4_K;
    if (m->base == DT_Q3_K && m->kind == MIX_LARGE) return DT_Q5_K;
    if (m->base != DT_Q3_K && m->kind == MIX_MEDIUM)
        return use_more_bits(i, n) ? DT_Q6_K : m->base;
    return m->base == DT_Q4_K && i < n / 8 ? DT_Q5_K : m->base;
}

static dtype type_of_output(const weight_mix *m, const model_config *c) {
    if (c->n_experts == 8)
        return m->base == DT_Q5_K || (m->base == DT_Q3_K && m->kind == MIX_LARGE) ? m->base
                                                                                  : DT_Q5_K;
    if (m->base != DT_Q3_K || m->kind == MIX_SMALL) return m->base;
    return m->kind == MIX_MEDIUM ? DT_Q4_K : DT_Q5_K;
}

static dtype type_of_qkv(const weight_mix *m) {
    if (m->kind == MIX_SMALL) return m->base;
    if (m->base == DT_Q3_K) return DT_Q4_K;
    return m->base == DT_Q4_K ? DT_Q5_K : DT_Q6_K;
}

dtype weight_mix_type(const weight_mix *m, const model_config *c, const char *name, int layer,
                      uint64_t cols) {
    const uint32_t i = layer < 0 ? 0 : (uint32_t)layer;
    dtype t = m->base;
    if (m->kind == MIX_NONE) return dtype_for_cols(t, cols);
    if (strcmp(name, "output.weight") == 0 ||
        (c->tied_head && strcmp(name, "token_embd.weight") == 0))
        t = cols % 256 ? DT_Q8_0 : DT_Q6_K;
    else if (strcmp(name, "ffn_gate_inp.weight") == 0)
        t = DT_F32;
    else if (strcmp(name, "attn_v.weight") == 0)
        t = type_of_v(m, c, i);
    else if (strcmp(name, "attn_k.weight") == 0 && c->n_experts == 8)
        t = DT_Q8_0;
    else if (strncmp(name, "ffn_down", 8) == 0)
        t = type_of_down(m, c, i);
    else if (strcmp(name, "attn_output.weight") == 0)
        t = type_of_output(m, c);
    else if (strcmp(name, "attn_qkv.weight") == 0)
        t = type_of_qkv(m);
    return dtype_for_cols(t, cols);
}
