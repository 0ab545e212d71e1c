/* Pieces that the forward passes of the families share. Tensor names: ggml, docs/gguf.md,
 * "Standardized tensor names". Owns nothing: it records into the recorder it is given. One
 * thread. */
#include "model/family.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static weight_id matrix(recorder *r, int layer, const char *name, uint32_t rows,
                        uint32_t cols) {
    return rec_weight(r, WEIGHT_LINEAR, layer, name, rows, cols);
}

value_id part_embed(recorder *r, float scale, weight_id *embd) {
    const model_config *c = &r->p->config;
    op *o = rec_op(r, OP_EMBED, -1, NO_VALUE, rec_value(r, "x", ROWS_STEP, c->n_embd));
    *embd = rec_weight(r, WEIGHT_EMBED, -1, "token_embd.weight", c->n_vocab, c->n_embd);
    o->embed.scale = scale / c->residual_scale;
    o->n_weights = 1;
    o->w[0] = *embd;
    return o->out;
}

static op *norm(recorder *r, int layer, const char *name, value_id in, value_id out,
                float eps) {
    op *o = rec_op(r, OP_NORM, layer, in, out);
    o->norm.eps = eps;
    o->n_weights = 1;
    o->w[0] = rec_vector(r, true, layer, name, r->p->config.n_embd);
    return o;
}

value_id part_norm(recorder *r, int layer, const char *name, value_id x, row_set rows) {
    const model_config *c = &r->p->config;
    const float eps = c->norm_eps / (c->residual_scale * c->residual_scale);
    return norm(r, layer, name, x, rec_value(r, "norm", rows, c->n_embd), eps)->out;
}

value_id part_add_norm(recorder *r, int layer, const char *name, value_id y, value_id x) {
    const model_config *c = &r->p->config;
    op *o = norm(r, layer, name, y, rec_value(r, "x", ROWS_STEP, c->n_embd), c->norm_eps);
    o->residual = x;
    return o->out;
}

value_id part_linear(recorder *r, int layer, const char *name, const char *bias, uint32_t n_in,
                     value_id in, value_id x) {
    const model_config *c = &r->p->config;
    const char *what = x == NO_VALUE ? "y" : "x";
    char base[48];
    snprintf(base, sizeof base, "%.*s", (int)(strlen(name) - strlen(".weight")), name);
    in = rec_ordered(r, layer, (const char *[]){base}, 1, in);
    op *o = rec_op(r, OP_LINEAR, layer, in, rec_value(r, what, ROWS_STEP, c->n_embd));
    o->residual = x;
    o->n_weights = 1;
    o->w[0] = matrix(r, layer, name, c->n_embd, n_in);
    o->bias[0] = rec_vector(r, bias != NULL, layer, bias, c->n_embd);
    return o->out;
}

value_id part_project(recorder *r, int layer, const char *name, uint32_t n_out, value_id in,
                      const char *what) {
    op *o = rec_op(r, OP_LINEAR, layer, in, rec_value(r, what, ROWS_STEP, n_out));
    o->n_weights = 1;
    o->w[0] = matrix(r, layer, name, n_out, r->s == OK ? r->p->values[in].cols : 0);
    return o->out;
}

/* q | k | v of all heads */
static value_id project(recorder *r, int l, value_id x, bool fused) {
    const model_config *c = &r->p->config;
    const uint32_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    static const char *const parts[] = {"attn_q", "attn_k", "attn_v"}, *const all[] = {
                                                                           "attn_qkv"};
    x = rec_ordered(r, l, fused ? all : parts, fused ? 1 : 3, x);
    op *o = rec_op(r, OP_LINEAR, l, x, rec_value(r, "qkv", ROWS_STEP, q + 2 * kv));
    if (fused) {
        o->n_weights = 1;
        o->w[0] = matrix(r, l, "attn_qkv.weight", q + 2 * kv, c->n_embd);
        o->bias[0] = rec_vector(r, c->qkv_bias, l, "attn_qkv.bias", q + 2 * kv);
        return o->out;
    }
    o->n_weights = 3;
    o->w[0] = matrix(r, l, "attn_q.weight", q, c->n_embd);
    o->w[1] = matrix(r, l, "attn_k.weight", kv, c->n_embd);
    o->w[2] = matrix(r, l, "attn_v.weight", kv, c->n_embd);
    o->bias[0] = rec_vector(r, c->qkv_bias, l, "attn_q.bias", q);
    o->bias[1] = rec_vector(r, c->qkv_bias, l, "attn_k.bias", kv);
    o->bias[2] = rec_vector(r, c->qkv_bias, l, "attn_v.bias", kv);
    return o->out;
}

value_id part_attention(recorder *r, int l, value_id x, rope_factors factors, bool fused) {
    return part_attend(r, l, project(r, l, x, fused), factors);
}

value_id part_attend(recorder *r, int l, value_id qkv, rope_factors factors) {
    const model_config *c = &r->p->config;
    const head_shape heads = {c->n_heads, c->n_kv_heads, c->head_dim};
    op *o;
    if (c->qk_norm) {
        const uint32_t hd = c->head_dim, nq = c->qk_norm_whole ? c->n_heads : 1,
                       nk = c->qk_norm_whole ? c->n_kv_heads : 1;
        o = rec_op(r, OP_HEAD_NORM, l, qkv, qkv);
        o->heads = heads;
        o->norm.eps = c->norm_eps;
        o->norm.whole = c->qk_norm_whole;
        o->norm.values = false;
        o->n_weights = 2;
        o->w[0] = rec_vector(r, true, l, "attn_q_norm.weight", nq * hd);
        o->w[1] = rec_vector(r, true, l, "attn_k_norm.weight", nk * hd);
    }
    o = rec_op(r, OP_ROPE_APPEND, l, qkv, qkv);
    o->heads = heads;
    o->rope.factors = factors.usual;
    o->rope.long_factors = factors.far;
    o->rope.table = rec_rope(r, l);
    o->rope.proportional = false;

    o = rec_op(r, OP_ATTENTION, l, qkv,
               rec_value(r, "heads", ROWS_STEP, c->n_heads * c->head_dim));
    o->heads = heads;
    o->attention = (attention_shape){.scale = c->attn_scale > 0 ? c->attn_scale
                                                                : 1 / sqrtf((float)c->head_dim),
                                     .window = model_config_window(c, (uint32_t)l),
                                     .cap = c->attn_cap,
                                     .temperature = c->temperature,
                                     .temperature_len = c->rope.original_len,
                                     .bidirectional = c->bidirectional};
    o->n_weights = c->sinks;
    o->w[0] = rec_vector(r, c->sinks, l, "attn_sinks.weight", c->n_heads);
    return o->out;
}

/* end: what stands behind ffn_gate and ffn_up in the names; of experts they have no biases. */
static value_id gate_up(recorder *r, int l, value_id x, activation act, uint32_t n,
                        const char *end, bool fused) {
    const uint32_t h = r->p->config.n_embd;
    const bool bias = r->p->config.ffn_bias && !*end;
    char gate[40], up[40];
    snprintf(gate, sizeof gate, "ffn_gate%s", end);
    snprintf(up, sizeof up, "ffn_up%s", end);
    const char *const both[] = {gate, up};
    const bool alone = r->p->config.shape.ungated, one = fused || alone;
    x = rec_ordered(r, l, one ? both + 1 : both, one ? 1 : 2, x);
    op *o = rec_op(r, OP_GATE_UP, l, x, rec_value(r, "gated", ROWS_STEP, n));
    o->gate_up.act = act;
    o->n_weights = alone ? 1 : 2;
    strcat(gate, ".weight");
    strcat(up, ".weight");
    if (alone) {
        o->w[0] = matrix(r, l, up, n, h);
    } else if (fused) {
        const slice first = {0, n, 2 * n}, second = {n, n, 2 * n}, all = {0, h, h};
        o->w[0] = rec_weight_slice(r, l, up, first, all);
        o->w[1] = rec_weight_slice(r, l, up, second, all);
    } else {
        o->w[0] = matrix(r, l, gate, n, h);
        o->w[1] = matrix(r, l, up, n, h);
        o->bias[0] = rec_vector(r, bias, l, "ffn_gate.bias", n);
        o->bias[1] = rec_vector(r, bias, l, "ffn_up.bias", n);
    }
    return o->out;
}

value_id part_gate_up(recorder *r, int l, value_id x, activation act, uint32_t n, bool fused) {
    return gate_up(r, l, x, act, n, "", fused);
}

value_id part_dense(recorder *r, int l, value_id h, activation act, bool fused, value_id x) {
    const model_config *c = &r->p->config;
    h = part_gate_up(r, l, h, act, c->n_ff, fused);
    return part_linear(r, l, "ffn_down.weight", c->ffn_bias ? "ffn_down.bias" : NULL, c->n_ff,
                       h, x);
}

value_id part_shared_gate_up(recorder *r, int l, value_id x, activation act, uint32_t n) {
    return gate_up(r, l, x, act, n, "_shexp", false);
}

value_id part_layer_of_four_norms(recorder *r, int l, value_id x, activation act, bool fused) {
    const model_config *c = &r->p->config;
    const rope_factors none = {NO_WEIGHT, NO_WEIGHT};
    value_id h = part_norm(r, l, "attn_norm.weight", x, ROWS_STEP);
    h = part_attention(r, l, h, none, false);
    h = part_linear(r, l, "attn_output.weight", NULL, c->n_heads * c->head_dim, h, NO_VALUE);
    x = part_add_norm(r, l, "post_attention_norm.weight", h, x);
    h = part_norm(r, l, "ffn_norm.weight", x, ROWS_STEP);
    h = part_dense(r, l, h, act, fused, NO_VALUE);
    return part_add_norm(r, l, "post_ffw_norm.weight", h, x);
}

void part_head(recorder *r, value_id x, weight_id embd) {
    part_head_of(r, "output_norm.weight", x, embd);
}

void part_head_of(recorder *r, const char *last, value_id x, weight_id embd) {
    const model_config *c = &r->p->config;
    op *o = rec_op(r, OP_GATHER_ROWS, -1, x, rec_value(r, "last", ROWS_GATHERED, c->n_embd));
    x = part_norm(r, -1, last, o->out, ROWS_GATHERED);
    if (!c->tied_head) x = rec_ordered(r, -1, (const char *[]){"output"}, 1, x);
    o = rec_op(r, OP_LOGITS, -1, x, rec_value(r, "logits", ROWS_GATHERED, c->n_vocab));
    o->n_weights = 1;
    o->w[0] = c->tied_head ? embd : matrix(r, -1, "output.weight", c->n_vocab, c->n_embd);
    o->logits.scale = 1 / c->logit_scale;
    o->logits.cap = c->logit_cap;
    rec_op(r, OP_SAMPLE, -1, o->out, NO_VALUE);
}
