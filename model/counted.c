/* The weights and the KV cache of a model that no engine runs (mixtures of experts, ...),
 * by the numbers of its config: weights under the names that GGUF has, and an OP_ATTENTION per
 * layer. For planning; it cannot be run. Owns nothing: it records into the recorder it is given.
 * One thread. */
#include "model/family.h"

#include <string.h>

static void matrix(recorder *r, int l, const char *name, uint32_t rows, uint32_t cols) {
    rec_weight(r, WEIGHT_LINEAR, l, name, rows, cols);
}

static void attention(recorder *r, int l, bool fused) {
    const model_config *c = &r->p->config;
    const uint32_t h = c->n_embd, q = c->n_heads * c->head_dim,
                   kv = c->n_kv_heads * c->head_dim;
    if (fused) {
        matrix(r, l, "attn_qkv.weight", q + 2 * kv, h);
        rec_vector(r, c->qkv_bias, l, "attn_qkv.bias", q + 2 * kv);
    } else {
        matrix(r, l, "attn_q.weight", q, h);
        matrix(r, l, "attn_k.weight", kv, h);
        matrix(r, l, "attn_v.weight", kv, h);
        rec_vector(r, c->qkv_bias, l, "attn_q.bias", q);
        rec_vector(r, c->qkv_bias, l, "attn_k.bias", kv);
        rec_vector(r, c->qkv_bias, l, "attn_v.bias", kv);
    }
    matrix(r, l, "attn_output.weight", h, q);
    rec_vector(r, c->o_bias, l, "attn_output.bias", h);
    rec_vector(r, c->qk_norm, l, "attn_q_norm.weight", c->qk_norm_whole ? q : c->head_dim);
    rec_vector(r, c->qk_norm, l, "attn_k_norm.weight", c->qk_norm_whole ? kv : c->head_dim);
    op *o = rec_op(r, OP_ATTENTION, l, NO_VALUE, NO_VALUE);
    o->heads = (head_shape){c->n_heads, c->n_kv_heads, c->head_dim};
    o->attention.window = model_config_window(c, (uint32_t)l);
    o->attention.cap = c->attn_cap;
    o->n_weights = c->sinks;
    o->w[0] = rec_vector(r, c->sinks, l, "attn_sinks.weight", c->n_heads);
}

static void shared_expert(recorder *r, int l) {
    const model_config *c = &r->p->config;
    const uint32_t h = c->n_embd, f = c->n_ff_shared;
    matrix(r, l, "ffn_gate_inp_shexp.weight", 1, h);
    matrix(r, l, "ffn_gate_shexp.weight", f, h);
    matrix(r, l, "ffn_up_shexp.weight", f, h);
    matrix(r, l, "ffn_down_shexp.weight", h, f);
}

static void experts(recorder *r, int l) {
    const model_config *c = &r->p->config;
    const uint32_t h = c->n_embd, f = c->n_ff, n = c->n_experts;
    rec_op(r, OP_ROUTE, l, NO_VALUE, NO_VALUE)->route.top_k = c->n_experts_used;
    rec_op(r, OP_EXPERTS_GATE_UP, l, NO_VALUE, NO_VALUE);
    rec_op(r, OP_EXPERTS_DOWN, l, NO_VALUE, NO_VALUE);
    matrix(r, l, "ffn_gate_inp.weight", n, h);
    rec_vector(r, c->router_bias, l, "ffn_gate_inp.bias", n);
    rec_weight_experts(r, l, "ffn_gate_exps.weight", n, f, h);
    rec_weight_experts(r, l, "ffn_up_exps.weight", n, f, h);
    rec_weight_experts(r, l, "ffn_down_exps.weight", n, h, f);
    if (c->n_ff_shared) shared_expert(r, l);
    rec_vector(r, c->ffn_bias, l, "ffn_gate_exps.bias", n * f);
    rec_vector(r, c->ffn_bias, l, "ffn_up_exps.bias", n * f);
    rec_vector(r, c->ffn_bias, l, "ffn_down_exps.bias", n * h);
}

static void feed_forward(recorder *r, int l, bool fused) {
    const model_config *c = &r->p->config;
    const uint32_t h = c->n_embd, f = c->n_ff;
    if (fused) {
        matrix(r, l, "ffn_up.weight", 2 * f, h);
    } else {
        matrix(r, l, "ffn_gate.weight", f, h);
        matrix(r, l, "ffn_up.weight", f, h);
        rec_op(r, OP_GATE_UP, l, NO_VALUE, NO_VALUE)->bias[0] =
            rec_vector(r, c->ffn_bias, l, "ffn_gate.bias", f);
        rec_vector(r, c->ffn_bias, l, "ffn_up.bias", f);
    }
    matrix(r, l, "ffn_down.weight", h, f);
    rec_vector(r, c->ffn_bias, l, "ffn_down.bias", h);
}

void counted_record(recorder *r) {
    const model_config *c = &r->p->config;
    const bool fused = strcmp(c->arch, "phi3") == 0;
    rec_weight(r, WEIGHT_EMBED, -1, "token_embd.weight", c->n_vocab, c->n_embd);
    for (int l = 0; l < (int)c->n_layers && r->s == OK; l++) {
        rec_vector(r, true, l, "attn_norm.weight", c->n_embd);
        rec_vector(r, true, l, "ffn_norm.weight", c->n_embd);
        rec_vector(r, c->norms_per_layer > 2, l, "post_attention_norm.weight", c->n_embd);
        rec_vector(r, c->norms_per_layer > 2, l, "post_ffw_norm.weight", c->n_embd);
        attention(r, l, fused);
        if (c->n_experts)
            experts(r, l);
        else
            feed_forward(r, l, fused);
    }
    rec_vector(r, true, -1, "output_norm.weight", c->n_embd);
    if (!c->tied_head) matrix(r, -1, "output.weight", c->n_vocab, c->n_embd);
}
