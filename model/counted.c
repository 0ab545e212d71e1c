/* The weights, KV cache and operations of models that no pass records: usual layers whose feed-forward
 * parts have biases. Weights have the names of GGUF, operations no values, for planning alone: such a
 * program has the trait "forward_pass", which no engine has. Names of tensors: llama.cpp,
 * src/llama-arch.cpp. Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

#include <stdio.h>
#include <string.h>

static void matrix(recorder *r, int l, const char *name, uint32_t rows, uint32_t cols) {
    rec_weight(r, WEIGHT_LINEAR, l, name, rows, cols);
}

static void vector(recorder *r, int l, const char *name, uint32_t n) {
    rec_vector(r, true, l, name, n);
}

static op *step(recorder *r, op_kind kind, int l) {
    return rec_op(r, kind, l, NO_VALUE, NO_VALUE);
}

static bool is_arch(const recorder *r, const char *arch) {
    return strcmp(r->p->config.arch, arch) == 0;
}

/* ---- what mixes the tokens ---- */

static void attend(recorder *r, int l, head_shape heads) {
    const model_config *c = &r->p->config;
    op *o = step(r, OP_ATTENTION, l);
    o->heads = heads;
    o->attention =
        (attention_shape){.window = model_config_window(c, (uint32_t)l), .cap = c->attn_cap};
    o->n_weights = c->sinks;
    o->w[0] = rec_vector(r, c->sinks, l, "attn_sinks.weight", c->n_heads);
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
    attend(r, l, (head_shape){c->n_heads, c->n_kv_heads, c->head_dim});
}

/* ---- feed-forward parts ---- */

/* gate, up and down under names that end in this. */
static void three(recorder *r, int l, const char *end, uint32_t f, uint32_t h) {
    char name[40];
    snprintf(name, sizeof name, "ffn_gate%s.weight", end);
    matrix(r, l, name, f, h);
    snprintf(name, sizeof name, "ffn_up%s.weight", end);
    matrix(r, l, name, f, h);
    snprintf(name, sizeof name, "ffn_down%s.weight", end);
    matrix(r, l, name, h, f);
}

static void shared_experts(recorder *r, int l) {
    const model_config *c = &r->p->config;
    if (!c->n_ff_shared) return;
    three(r, l, "_shexp", c->n_ff_shared, c->n_embd);
}

static void experts(recorder *r, int l) {
    const model_config *c = &r->p->config;
    const uint32_t h = c->n_embd, n = c->n_experts, f = model_config_expert_width(c);
    step(r, OP_ROUTE, l)->route.top_k = c->n_experts_used;
    op *up = step(r, OP_EXPERTS_GATE_UP, l);
    matrix(r, l, "ffn_gate_inp.weight", n, c->n_embd);
    rec_vector(r, c->router_bias, l, "ffn_gate_inp.bias", n);
    rec_vector(r, c->shape.choice_bias, l, "exp_probs_b.bias", n);
    rec_weight_experts(r, l, "ffn_gate_exps.weight", n, f, h);
    rec_weight_experts(r, l, "ffn_up_exps.weight", n, f, h);
    rec_weight_experts(r, l, "ffn_down_exps.weight", n, h, f);
    const weight_id bias = rec_vector(r, c->ffn_bias, l, "ffn_gate_exps.bias", n * f);
    if (r->s == OK) up->bias[0] = bias;
    rec_vector(r, c->ffn_bias, l, "ffn_up_exps.bias", n * f);
    rec_vector(r, c->ffn_bias, l, "ffn_down_exps.bias", n * h);
    step(r, OP_EXPERTS_DOWN, l);
    shared_experts(r, l);
}

static void dense(recorder *r, int l, bool fused) {
    const model_config *c = &r->p->config;
    const uint32_t h = c->n_embd, f = c->n_ff;
    if (fused) {
        matrix(r, l, "ffn_up.weight", 2 * f, h);
        matrix(r, l, "ffn_down.weight", h, f);
    } else {
        three(r, l, "", f, h);
        rec_vector(r, c->ffn_bias, l, "ffn_gate.bias", f);
        rec_vector(r, c->ffn_bias, l, "ffn_up.bias", f);
    }
    rec_vector(r, c->ffn_bias, l, "ffn_down.bias", h);
    step(r, OP_GATE_UP, l);
}

static void feed_forward(recorder *r, int l, bool fused) {
    const model_config *c = &r->p->config;
    if (c->n_experts)
        experts(r, l);
    else
        dense(r, l, fused);
}

/* ---- norms, tables ---- */

static void norms(recorder *r, int l) {
    const model_config *c = &r->p->config;
    const uint32_t h = c->n_embd;
    const bool second = c->norms_per_layer > 1, four = c->norms_per_layer > 2;
    vector(r, l, "attn_norm.weight", h);
    rec_vector(r, second, l, "ffn_norm.weight", h);
    rec_vector(r, four, l, "post_attention_norm.weight", h);
    rec_vector(r, four, l, "post_ffw_norm.weight", h);
}

void counted_record(recorder *r) {
    const model_config *c = &r->p->config;
    const bool fused = is_arch(r, "phi3");
    r->p->counted = true;
    rec_weight(r, WEIGHT_EMBED, -1, "token_embd.weight", c->n_vocab, c->n_embd);
    for (int l = 0; l < (int)c->n_layers && r->s == OK; l++) {
        norms(r, l);
        attention(r, l, fused);
        feed_forward(r, l, fused);
    }
    vector(r, -1, "output_norm.weight", c->n_embd);
    if (!c->tied_head) matrix(r, -1, "output.weight", c->n_vocab, c->n_embd);
    op *o = step(r, OP_LOGITS, -1);
    o->logits.scale = 1 / c->logit_scale;
    o->logits.cap = c->logit_cap;
}
