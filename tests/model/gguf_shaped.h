/* Small models of families whose layers are of several kinds, as GGUF files: Gemma 4 with shared KV
 * layers, per-layer embeddings and experts (two kinds of heads, so two groups of KV blocks),
 * GLM-4.5 with a dense layer before those of experts, and DeepSeek V3, more heads of which share a row of
 * the KV cache than one task of attention has. The tensors are those of the program that the
 * config gives. All functions are static. */
#ifndef TESTS_MODEL_GGUF_SHAPED_H
#define TESTS_MODEL_GGUF_SHAPED_H

#include <math.h>

#include "model/model.h"
#include "tests/model/gguf_build.h"

/* Own layers: window, full, window, full; shared: window, full. */
static model_config gb_gemma4_config(uint32_t n_vocab, uint32_t window) {
    model_config c;
    model_config_init(&c);
    snprintf(c.arch, sizeof c.arch, "gemma4");
    snprintf(c.name, sizeof c.name, "tiny gemma4");
    c.n_layers = 6, c.n_embd = 64, c.n_heads = 4, c.n_kv_heads = 2, c.head_dim = 32;
    c.n_ff = 96, c.n_vocab = n_vocab, c.n_ctx_train = 1024;
    c.norms_per_layer = 4, c.qk_norm = true, c.tied_head = true;
    c.window = window, c.window_theta = 500, c.attn_scale = 1;
    c.rope.pairing = ROPE_HALVES, c.rope.n_dims = 64, c.rope.theta = 1e4f;
    c.shape.listed = 1;
    c.shape.full_head_dim = 64, c.shape.full_kv_heads = 1, c.shape.v_is_k = 1;
    c.shape.shared_kv = 2, c.shape.double_ff = 1;
    c.shape.per_layer = 32, c.shape.per_layer_vocab = n_vocab;
    c.n_experts = 6, c.n_experts_used = 2, c.experts_norm = true, c.shape.n_ff_expert = 64;
    for (uint32_t l = 0; l < c.n_layers; l += 2) c.shape.slides[l] = 1;
    return c;
}

static model_config gb_glm4moe_config(uint32_t n_vocab) {
    model_config c = gb_tiny("glm4moe");
    c.n_layers = 3, c.n_vocab = n_vocab, c.n_ctx_train = 1024;
    c.qk_norm = true;
    c.n_experts = 8, c.n_experts_used = 2, c.experts_norm = true, c.experts_sigmoid = true;
    c.expert_groups = 4, c.expert_groups_used = 2, c.experts_scale = 1.5f;
    c.n_ff_shared = c.shape.n_ff_expert = 64, c.shape.choice_bias = 1;
    c.shape.ffn[0] = FFN_DENSE;
    return c;
}

static model_config gb_deepseek2_config(uint32_t n_vocab) {
    model_config c = gb_glm4moe_config(n_vocab);
    snprintf(c.arch, sizeof c.arch, "deepseek2");
    snprintf(c.name, sizeof c.name, "tiny deepseek2");
    c.n_heads = c.n_kv_heads = 26, c.head_dim = 48, c.qkv_bias = c.qk_norm = false;
    c.shape.q_rank = 32, c.shape.kv_rank = 64, c.shape.rope_dim = c.rope.n_dims = 16;
    c.shape.v_dim = 32;
    c.rope.pairing = ROPE_ADJACENT;
    model_config_scale_latent(&c, 0);
    return c;
}

/* window: of those that have one. */
static GB_UNUSED model_config gb_shaped_config(const char *arch, uint32_t n_vocab,
                                               uint32_t window) {
    if (strcmp(arch, "gemma4") == 0) return gb_gemma4_config(n_vocab, window);
    if (strcmp(arch, "deepseek2") == 0) return gb_deepseek2_config(n_vocab);
    CHECK(strcmp(arch, "glm4moe") == 0);
    return gb_glm4moe_config(n_vocab);
}

static void gb_gemma4_keys(gb *b, const model_config *c) {
    enum { BOOL = 7 };
    int32_t kv[8], ff[8];
    unsigned char slides[8];
    const struct {
        const char *key;
        uint32_t v;
    } numbers[] = {{"block_count", c->n_layers},
                   {"context_length", c->n_ctx_train},
                   {"embedding_length", c->n_embd},
                   {"attention.head_count", c->n_heads},
                   {"attention.key_length", c->shape.full_head_dim},
                   {"attention.value_length", c->shape.full_head_dim},
                   {"attention.key_length_swa", c->head_dim},
                   {"attention.sliding_window", c->window},
                   {"attention.shared_kv_layers", c->shape.shared_kv},
                   {"embedding_length_per_layer_input", c->shape.per_layer},
                   {"expert_count", c->n_experts},
                   {"expert_used_count", c->n_experts_used},
                   {"expert_feed_forward_length", c->shape.n_ff_expert},
                   {"rope.dimension_count", c->rope.n_dims}};
    char key[96];
    gb_str(b, "general.architecture", c->arch);
    gb_str(b, "general.name", c->name);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(key, sizeof key, "gemma4.%s", numbers[i].key);
        gb_int(b, key, numbers[i].v);
    }
    for (uint32_t l = 0; l < c->n_layers; l++) {
        slides[l] = c->shape.slides[l];
        kv[l] = (int32_t)(slides[l] ? c->n_kv_heads : c->shape.full_kv_heads);
        ff[l] = (int32_t)(l < c->n_layers - c->shape.shared_kv ? c->n_ff : 2 * c->n_ff);
    }
    gb_array(b, "gemma4.attention.sliding_window_pattern", BOOL, c->n_layers, slides,
             c->n_layers);
    gb_ints(b, "gemma4.attention.head_count_kv", kv, c->n_layers);
    gb_ints(b, "gemma4.feed_forward_length", ff, c->n_layers);
    gb_float(b, "gemma4.rope.freq_base", c->rope.theta);
    gb_float(b, "gemma4.rope.freq_base_swa", c->window_theta);
}

static GB_UNUSED void gb_shaped_keys(gb *b, const model_config *c) {
    if (strcmp(c->arch, "gemma4") == 0)
        gb_gemma4_keys(b, c);
    else
        gb_model_keys(b, c);
    if (!c->shape.kv_rank) return;
    gb_int(b, "deepseek2.attention.q_lora_rank", c->shape.q_rank);
    gb_int(b, "deepseek2.attention.kv_lora_rank", c->shape.kv_rank);
    gb_int(b, "deepseek2.attention.key_length_mla", c->head_dim);
    gb_int(b, "deepseek2.attention.value_length_mla", c->shape.v_dim);
    gb_bool(b, "deepseek2.expert_weights_norm", c->experts_norm);
}

static void gb_shaped_tensor(gb *b, const weight *w, uint64_t seed) {
    const bool router = strstr(w->name, "ffn_gate_inp.weight") != NULL;
    const bool bias = strstr(w->name, ".bias") != NULL;
    const float scale = 1.5f / sqrtf((float)w->cols);
    if (w->role == WEIGHT_VECTOR)
        gb_vector(b, w->name, w->cols, seed, bias ? 0 : 1, 0.2f);
    else if (w->n_experts)
        gb_experts(b, w->name, w->type, w->n_experts, w->rows, w->cols, seed);
    else
        gb_matrix(b, w->name, router ? DT_F32 : w->type, w->rows, w->cols, seed,
                  w->role == WEIGHT_EMBED ? 1
                  : router                ? 4 * scale
                                          : scale);
}

static GB_UNUSED void gb_shaped_tensors(gb *b, const model_config *c, dtype type,
                                        uint64_t seed) {
    model *m;
    err e;
    const uint32_t pairs = c->rope.n_dims / 2;
    CHECK(model_from_config(&m, c, type, &e) == OK);
    for (uint32_t i = 0; i < m->program.n_weights; i++)
        gb_shaped_tensor(b, &m->program.weights[i], seed++);
    model_close(m);
    if (strcmp(c->arch, "gemma4") != 0) return;
    float *factors = gb_tensor(b, "rope_freqs.weight", DT_F32, 1, (uint64_t[]){pairs}, NULL);
    for (uint32_t i = 0; i < pairs; i++) {
        const float f = i < pairs / 4 ? 1 : 1e30f;
        memcpy(&factors[i], &f, sizeof f);
    }
}

#endif
