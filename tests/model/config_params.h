/* The number of weights of a model from the numbers of its config alone, by the formulas of its
 * layers: what programs, plans and files are compared with. Not of families with layers of several
 * kinds (model/shape.h). */
#ifndef VRAMD_TESTS_MODEL_CONFIG_PARAMS_H
#define VRAMD_TESTS_MODEL_CONFIG_PARAMS_H

#include "model/config.h"

/* Embeddings are counted once when tied. Within the ranges of model_config_check no sum leaves 64 bits. */
static inline uint64_t model_config_params(const model_config *c) {
    const uint64_t h = c->n_embd, f = c->n_ff, hd = c->head_dim;
    const uint64_t q = c->n_heads * hd, kv = c->n_kv_heads * hd;
    const uint64_t n_ffn = c->n_experts ? c->n_experts : 1;
    uint64_t layer = h * q + 2 * h * kv + q * h; /* q, k, v, o */
    if (c->qkv_bias) layer += q + 2 * kv;
    if (c->o_bias) layer += h;
    layer += n_ffn * 3 * h * f; /* gate, up, down */
    if (c->ffn_bias) layer += n_ffn * (2 * f + h);
    layer += c->n_experts * h; /* router */
    layer += 3 * h * c->n_ff_shared;
    if (c->shape.shared_gate) layer += h;
    if (c->router_bias) layer += c->n_experts;
    if (c->sinks) layer += c->n_heads;
    layer += c->norms_per_layer * h;
    if (c->qk_norm) layer += c->qk_norm_whole ? q + kv : 2 * hd;
    uint64_t embd = (uint64_t)c->n_vocab * h;
    return layer * c->n_layers + embd * (c->tied_head ? 1 : 2) + h;
}

#endif
