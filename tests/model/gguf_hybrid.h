/* Small models with recurrent layers as GGUF files: the tensors are those of the program that their
 * config gives. All functions are static. */
#ifndef TESTS_MODEL_GGUF_HYBRID_H
#define TESTS_MODEL_GGUF_HYBRID_H

#include <math.h>

#include "model/model.h"
#include "tests/model/gguf_build.h"

static GB_UNUSED bool gb_is_hybrid(const char *arch) {
    static const char *const archs[] = {"lfm2", "qwen35", "granitehybrid", "nemotron_h"};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (strncmp(arch, archs[i], strlen(archs[i])) == 0) return true;
    return false;
}

static GB_UNUSED bool gb_is_nemotron(const model_config *c) {
    return strncmp(c->arch, "nemotron_h", 10) == 0;
}

/* Granite: Mamba-2 and attention by turns, with experts. Nemotron-H: Mamba-2, a feed-forward part,
 * attention, a feed-forward part; of the mixture the first is of experts, narrower than the stream. */
static GB_UNUSED void gb_mamba2_config(model_config *c) {
    c->shape.ssm.conv = 4, c->shape.ssm.state = 16, c->shape.ssm.groups = 2;
    c->shape.ssm.heads = 4, c->shape.ssm.inner = 4 * 32;
    c->qk_norm = false;
    if (strcmp(c->arch, "granitehybrid") == 0) {
        c->rope.pairing = ROPE_ADJACENT, c->nope_every = 1;
        c->attn_scale = 0.2f, c->embd_scale = 3, c->residual_scale = 0.5f, c->logit_scale = 2;
        c->n_experts = 8, c->n_ff_shared = 64;
        return;
    }
    c->norms_per_layer = 1, c->rope.n_dims = 0, c->tied_head = false, c->shape.ungated = 1;
    for (uint32_t l = 0; l < c->n_layers; l++) {
        static const mixer_kind kind[] = {MIXER_SSM, MIXER_NONE, MIXER_ATTENTION, MIXER_NONE};
        c->shape.mixer[l] = (uint8_t)kind[l % 4];
        c->shape.ffn[l] = kind[l % 4] == MIXER_NONE ? FFN_DENSE : FFN_NONE;
    }
    if (strcmp(c->arch, "nemotron_h_moe") != 0) return;
    c->shape.ffn[1] = FFN_USUAL;
    c->n_experts = 8, c->n_ff_shared = 64, c->experts_scale = 2.5f;
    c->shape.latent = 32, c->shape.choice_bias = 1;
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
    const bool delta = strncmp(arch, "qwen35", 6) == 0, conv = strncmp(arch, "lfm2", 4) == 0;
    if (delta) gb_delta_config(&c);
    for (uint32_t l = 0; l < c.n_layers; l += 2)
        c.shape.mixer[l] = delta ? MIXER_DELTA : conv ? MIXER_CONV : MIXER_SSM;
    if (!delta && !conv) gb_mamba2_config(&c);
    if (strcmp(arch, "lfm2moe") == 0)
        c.n_experts = 8, c.shape.choice_bias = 1, c.shape.ffn[0] = FFN_DENSE;
    if (!c.n_experts) return c;
    c.n_experts_used = 3, c.shape.n_ff_expert = 32;
    c.experts_norm = f->experts.norm, c.experts_sigmoid = f->experts.sigmoid;
    c.experts_eps = f->experts.eps;
    return c;
}

/* Numbers of layers; and scales, where they are not neutral. */
static GB_UNUSED void gb_hybrid_lists(gb *b, const model_config *c) {
    int32_t kv[8], ff[8];
    char key[96];
    for (uint32_t l = 0; l < c->n_layers; l++) {
        kv[l] = c->shape.mixer[l] == MIXER_ATTENTION ? (int32_t)c->n_kv_heads : 0;
        ff[l] = c->shape.mixer[l] == MIXER_NONE ? (int32_t)c->n_ff : 0;
    }
    snprintf(key, sizeof key, "%s.attention.head_count_kv", c->arch);
    if (c->shape.mixer[0] != MIXER_DELTA) gb_ints(b, key, kv, c->n_layers);
    snprintf(key, sizeof key, "%s.feed_forward_length", c->arch);
    if (gb_is_nemotron(c)) gb_ints(b, key, ff, c->n_layers);
    snprintf(key, sizeof key, "%s.rope.scaling.finetuned", c->arch);
    if (c->nope_every == 1) gb_bool(b, key, false);
    const struct {
        const char *key;
        float v, neutral;
    } scales[] = {{"rope.freq_base", c->rope.theta, 0},
                  {"attention.layer_norm_rms_epsilon", c->norm_eps, 0},
                  {"attention.scale", c->attn_scale, 0},
                  {"embedding_scale", c->embd_scale, 1},
                  {"residual_scale", c->residual_scale, 1},
                  {"logit_scale", c->logit_scale, 1},
                  {"expert_weights_scale", c->experts_scale, 1}};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        snprintf(key, sizeof key, "%s.%s", c->arch, scales[i].key);
        if (scales[i].v != scales[i].neutral) gb_float(b, key, scales[i].v);
    }
}

static GB_UNUSED void gb_hybrid_keys(gb *b, const model_config *c) {
    const bool delta = c->shape.mixer[0] == MIXER_DELTA, conv = c->shape.mixer[0] == MIXER_CONV;
    const struct {
        const char *key;
        uint32_t v;
    } numbers[] = {{"block_count", c->n_layers},
                   {"context_length", c->n_ctx_train},
                   {"embedding_length", c->n_embd},
                   {"feed_forward_length", gb_is_nemotron(c) ? 0 : c->n_ff},
                   {"attention.head_count", c->n_heads},
                   {"attention.key_length", c->head_dim},
                   {"attention.value_length", c->head_dim},
                   {"rope.dimension_count", c->rope.n_dims},
                   {conv ? "shortconv.l_cache" : "ssm.conv_kernel", c->shape.ssm.conv},
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
                   {"leading_dense_block_count", conv && c->shape.ffn[0] == FFN_DENSE}};
    char key[96];
    gb_str(b, "general.architecture", c->arch);
    gb_str(b, "general.name", c->name);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(key, sizeof key, "%s.%s", c->arch, numbers[i].key);
        if (numbers[i].v) gb_int(b, key, numbers[i].v);
    }
    gb_hybrid_lists(b, c);
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

/* Of the tensor of which weight i is a part, or all: the weights of a tensor follow one another. */
static GB_UNUSED uint32_t gb_all_rows(const program *p, uint32_t i) {
    const weight *w = &p->weights[i];
    uint32_t n = w->rows;
    if (w->run) return 2 * n;
    for (uint32_t k = i + 1; k < p->n_weights && strcmp(p->weights[k].name, w->name) == 0; k++)
        n += p->weights[k].rows;
    return n;
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
        const uint32_t rows = gb_all_rows(&m->program, i);
        if (w->first_row) continue; /* further parts of one tensor */
        if (w->role == WEIGHT_VECTOR && w->rows > 1)
            gb_kernel(b, w, seed);
        else if (w->role == WEIGHT_VECTOR)
            gb_vector(b, w->name, w->cols, seed, gb_around(w->name), 0.2f);
        else if (w->n_experts)
            gb_experts(b, w->name, w->type, w->n_experts, w->rows, w->cols, seed);
        else
            gb_matrix(b, w->name, router ? DT_F32 : w->type, rows, w->cols, seed,
                      router ? 4 * by : by);
    }
    model_close(m);
}

#endif
