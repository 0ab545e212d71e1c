/* Small models with recurrent layers as GGUF files: the tensors are those of the program that their
 * config gives. All functions are static. */
#ifndef TESTS_MODEL_GGUF_HYBRID_H
#define TESTS_MODEL_GGUF_HYBRID_H

#include <math.h>

#include "model/model.h"
#include "tests/model/gguf_build.h"

static GB_UNUSED bool gb_is_hybrid(const char *arch) {
    return strncmp(arch, "lfm2", 4) == 0 || strncmp(arch, "qwen35", 6) == 0;
}

static GB_UNUSED void gb_delta_config(model_config *c) {
    c->shape.ssm.conv = 4, c->shape.ssm.state = 16, c->shape.ssm.groups = 2;
    c->shape.ssm.heads = 4, c->shape.ssm.inner = 4 * 32;
    c->tied_head = false;
    c->rope.n_dims = 8;
    if (strcmp(c->arch, "qwen35moe") == 0)
        c->n_experts = 8, c->n_ff_shared = 64, c->shape.shared_gate = 1;
}

/* Recurrent, attention, recurrent, attention; of a mixture the first layer is dense. */
static GB_UNUSED model_config gb_hybrid_config(const char *arch, uint32_t n_vocab) {
    model_config c;
    const family *f = family_find(arch);
    model_config_init(&c);
    snprintf(c.arch, sizeof c.arch, "%s", arch);
    snprintf(c.name, sizeof c.name, "tiny %s", arch);
    c.n_layers = 4, c.n_embd = 64, c.n_heads = 4, c.n_kv_heads = 2, c.head_dim = 16;
    c.n_ff = 96, c.n_vocab = n_vocab, c.n_ctx_train = 1024;
    c.qk_norm = true, c.tied_head = true;
    c.rope.pairing = ROPE_HALVES, c.rope.n_dims = 16, c.rope.theta = 1e6f;
    c.shape.ssm.conv = 3;
    const bool delta = strncmp(arch, "qwen35", 6) == 0;
    if (delta) gb_delta_config(&c);
    for (uint32_t l = 0; l < c.n_layers; l += 2)
        c.shape.mixer[l] = delta ? MIXER_DELTA : MIXER_CONV;
    if (strcmp(arch, "lfm2moe") == 0)
        c.n_experts = 8, c.shape.choice_bias = 1, c.shape.ffn[0] = FFN_DENSE;
    if (!c.n_experts) return c;
    c.n_experts_used = 3, c.shape.n_ff_expert = 32;
    c.experts_norm = f->experts.norm, c.experts_sigmoid = f->experts.sigmoid;
    c.experts_eps = f->experts.eps;
    return c;
}

static GB_UNUSED void gb_hybrid_keys(gb *b, const model_config *c) {
    int32_t kv[8];
    const bool delta = c->shape.ssm.inner > 0;
    const struct {
        const char *key;
        uint32_t v;
    } numbers[] = {{"block_count", c->n_layers},
                   {"context_length", c->n_ctx_train},
                   {"embedding_length", c->n_embd},
                   {"feed_forward_length", c->n_ff},
                   {"attention.head_count", c->n_heads},
                   {"attention.key_length", c->head_dim},
                   {"attention.value_length", c->head_dim},
                   {"rope.dimension_count", c->rope.n_dims},
                   {delta ? "ssm.conv_kernel" : "shortconv.l_cache", c->shape.ssm.conv},
                   {"ssm.state_size", c->shape.ssm.state},
                   {"ssm.group_count", c->shape.ssm.groups},
                   {"ssm.time_step_rank", c->shape.ssm.heads},
                   {"ssm.inner_size", c->shape.ssm.inner},
                   {"full_attention_interval", delta ? 2 : 0},
                   {"attention.head_count_kv", delta ? c->n_kv_heads : 0},
                   {"expert_shared_feed_forward_length", c->n_ff_shared},
                   {"expert_count", c->n_experts},
                   {"expert_used_count", c->n_experts_used},
                   {"expert_feed_forward_length", c->shape.n_ff_expert},
                   {"leading_dense_block_count", c->shape.ffn[0] == FFN_DENSE}};
    char key[96];
    gb_str(b, "general.architecture", c->arch);
    gb_str(b, "general.name", c->name);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(key, sizeof key, "%s.%s", c->arch, numbers[i].key);
        if (numbers[i].v) gb_int(b, key, numbers[i].v);
    }
    for (uint32_t l = 0; l < c->n_layers; l++)
        kv[l] = c->shape.mixer[l] == MIXER_ATTENTION ? (int32_t)c->n_kv_heads : 0;
    snprintf(key, sizeof key, "%s.attention.head_count_kv", c->arch);
    if (!delta) gb_ints(b, key, kv, c->n_layers);
    snprintf(key, sizeof key, "%s.rope.freq_base", c->arch);
    gb_float(b, key, c->rope.theta);
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", c->arch);
    gb_float(b, key, c->norm_eps);
}

/* A vector for each row, as kernels of convolutions are. */
static GB_UNUSED void gb_kernel(gb *b, const weight *w, uint64_t seed) {
    float *p = gb_tensor(b, w->name, DT_F32, 2, (uint64_t[]){w->cols, w->rows}, NULL);
    for (uint32_t i = 0; i < w->rows * w->cols; i++) {
        const float f = gb_random(seed, i) * 1.5f / sqrtf((float)w->cols);
        memcpy(&p[i], &f, sizeof f);
    }
}

/* What a vector's numbers are near: norms 1, decays -1, biases 0. */
static GB_UNUSED float gb_around(const char *name) {
    return strstr(name, ".bias") ? 0 : strstr(name, ".ssm_a") ? -1 : 1;
}

static GB_UNUSED void gb_hybrid_tensors(gb *b, const model_config *c, dtype type,
                                        uint64_t seed) {
    model *m;
    err e;
    CHECK(model_from_config(&m, c, type, &e) == OK);
    for (uint32_t i = 0; i < m->program.n_weights; i++, seed++) {
        const weight *w = &m->program.weights[i];
        const bool router = strstr(w->name, "ffn_gate_inp") != NULL;
        const float by = w->role == WEIGHT_EMBED ? 1 : 1.5f / sqrtf((float)w->cols);
        if (w->run && w->first_row) continue; /* halves of one tensor */
        if (w->run)
            gb_matrix(b, w->name, w->type, 2 * w->rows, w->cols, seed, by);
        else if (w->role == WEIGHT_VECTOR && w->rows > 1)
            gb_kernel(b, w, seed);
        else if (w->role == WEIGHT_VECTOR)
            gb_vector(b, w->name, w->cols, seed, gb_around(w->name), 0.2f);
        else if (w->n_experts)
            gb_experts(b, w->name, w->type, w->n_experts, w->rows, w->cols, seed);
        else
            gb_matrix(b, w->name, router ? DT_F32 : w->type, w->rows, w->cols, seed,
                      router ? 4 * by : by);
    }
    model_close(m);
}

#endif
