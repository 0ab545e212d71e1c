/* Gemma 4 as a program: heads of two sizes (layers with a window, layers without), norms of q, k
 * and v (v's without a weight), V made of K's projection where a layer has none of its own, the last
 * layers reading the K and V of an earlier one, an embedding of its own for each layer, a scale
 * at the end of each, and in mixtures experts beside the dense part. Formulas: the model's class in
 * transformers.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

#include <math.h>
#include <stdio.h>

/* The heads of a layer, as its own K and V have them. */
static head_shape heads_of(const model_config *c, uint32_t l) {
    const bool full = model_config_window(c, l) == 0;
    const uint32_t hd = full && c->shape.full_head_dim ? c->shape.full_head_dim : c->head_dim;
    const uint32_t kv = full && c->shape.full_kv_heads ? c->shape.full_kv_heads : c->n_kv_heads;
    return (head_shape){c->n_heads, kv, hd};
}

/* Whose K and V a layer reads: its own, or those of the last layer of its kind that has some. */
static uint32_t owner_of(const model_config *c, uint32_t l) {
    const uint32_t first_shared = c->n_layers - c->shape.shared_kv;
    if (l < first_shared) return l;
    for (uint32_t o = first_shared; o-- > 0;)
        if ((model_config_window(c, o) == 0) == (model_config_window(c, l) == 0)) return o;
    return l;
}

/* q | k | v, or q alone where K and V are another layer's. */
static value_id project(recorder *r, int l, value_id x, const head_shape *heads) {
    const model_config *c = &r->p->config;
    const uint32_t q = heads->n_heads * heads->head_dim,
                   kv = heads->n_kv_heads * heads->head_dim;
    char name[40];
    op *o = rec_op(r, OP_LINEAR, l, x, rec_value(r, "qkv", ROWS_STEP, q + 2 * kv));
    o->n_weights = kv ? 3 : 1;
    o->w[0] = rec_weight(r, WEIGHT_LINEAR, l, "attn_q.weight", q, c->n_embd);
    if (!kv) return o->out;
    snprintf(name, sizeof name, "blk.%d.attn_v.weight", l);
    const bool full = model_config_window(c, (uint32_t)l) == 0;
    const bool has_v = r->file ? rec_has(r, name) : !(full && c->shape.v_is_k);
    o->w[1] = rec_weight(r, WEIGHT_LINEAR, l, "attn_k.weight", kv, c->n_embd);
    o->w[2] = has_v ? rec_weight(r, WEIGHT_LINEAR, l, "attn_v.weight", kv, c->n_embd) : o->w[1];
    return o->out;
}

static value_id attention(recorder *r, int l, value_id x, weight_id factors) {
    const model_config *c = &r->p->config;
    const head_shape all = heads_of(c, (uint32_t)l);
    const uint32_t owner = owner_of(c, (uint32_t)l);
    const bool own = owner == (uint32_t)l;
    const head_shape here = {all.n_heads, own ? all.n_kv_heads : 0, all.head_dim};
    const value_id qkv = project(r, l, x, &here);
    op *o = rec_op(r, OP_HEAD_NORM, l, qkv, qkv);
    o->heads = here;
    o->norm.eps = c->norm_eps;
    o->norm.whole = false;
    o->norm.values = own;
    o->n_weights = own ? 2 : 1;
    o->w[0] = rec_vector(r, true, l, "attn_q_norm.weight", all.head_dim);
    o->w[1] = rec_vector(r, own, l, "attn_k_norm.weight", all.head_dim);
    o = rec_op(r, OP_ROPE_APPEND, l, qkv, qkv);
    o->heads = here;
    o->rope.factors = model_config_window(c, (uint32_t)l) ? NO_WEIGHT : factors;
    o->rope.long_factors = NO_WEIGHT;
    o->rope.table = rec_rope(r, l);
    o->rope.proportional = r->p->rope[o->rope.table].n_live > 0;
    o = rec_op(r, OP_ATTENTION, l, qkv,
               rec_value(r, "heads", ROWS_STEP, all.n_heads * all.head_dim));
    o->heads = all;
    o->attention = (attention_shape){.scale = 1,
                                     .window = model_config_window(c, (uint32_t)l),
                                     .kv_from = own ? 0 : owner + 1};
    return o->out;
}

/* What the layers add of the token itself: (norm(W x) + sqrt(p) E[token]) / sqrt(2), p columns a
 * layer. W x is divided by sqrt(n_embd), which a norm undoes but for its eps. */
static value_id per_layer_inputs(recorder *r, value_id x) {
    const model_config *c = &r->p->config;
    const uint32_t p = c->shape.per_layer, n = p * c->n_layers;
    value_id a = part_project(r, -1, "per_layer_model_proj.weight", n, x, "per_layer");
    op *o = rec_op(r, OP_HEAD_NORM, -1, a, a);
    o->heads = (head_shape){c->n_layers, 0, p};
    o->norm.eps = c->norm_eps * (float)c->n_embd;
    o->norm.whole = o->norm.values = false;
    o->n_weights = 1;
    o->w[0] = rec_vector(r, true, -1, "per_layer_proj_norm.weight", p);
    o = rec_op(r, OP_EMBED_ADD, -1, a, rec_value(r, "per_layer", ROWS_STEP, n));
    o->embed.scale = sqrtf((float)p);
    o->n_weights = 1;
    o->w[0] = rec_weight(r, WEIGHT_EMBED, -1, "per_layer_token_embd.weight",
                         c->shape.per_layer_vocab ? c->shape.per_layer_vocab : c->n_vocab, n);
    return o->out;
}

static value_id add_per_layer(recorder *r, int l, value_id x, value_id inputs) {
    const model_config *c = &r->p->config;
    const uint32_t p = c->shape.per_layer;
    const value_id gate = part_project(r, l, "inp_gate.weight", p, x, "gate");
    op *o = rec_op(r, OP_MUL_ACT, l, gate, rec_value(r, "gated", ROWS_STEP, p));
    o->by = inputs;
    o->mul.first_col = (uint32_t)l * p;
    o->mul.act = ACT_GELU_TANH;
    const value_id y = part_project(r, l, "proj.weight", c->n_embd, o->out, "y");
    return part_add_norm(r, l, "post_norm.weight", y, x);
}

/* norm(what the experts make of x, normed). The router reads x by a norm of its own, divided by
 * sqrt(n_embd), and each expert has a factor. */
static value_id experts(recorder *r, int l, value_id x) {
    const model_config *c = &r->p->config;
    const value_id in = part_norm(r, l, "ffn_gate_inp.scale", x, ROWS_STEP);
    const weight_id scales = rec_vector(r, true, l, "ffn_down_exps.scale", c->n_experts);
    const value_id chosen = part_route(r, l, in, 1 / sqrtf((float)c->n_embd), scales);
    value_id h = part_norm(r, l, "pre_ffw_norm_2.weight", x, ROWS_STEP);
    h = part_routed(r, l, h, chosen, ACT_GELU_TANH, NO_VALUE);
    return part_norm(r, l, "post_ffw_norm_2.weight", h, ROWS_STEP);
}

/* norm(dense), or, in mixtures, norm(norm(dense) + norm(experts)). */
static value_id feed_forward(recorder *r, int l, value_id x) {
    const model_config *c = &r->p->config;
    const bool shared = owner_of(c, (uint32_t)l) != (uint32_t)l;
    const uint32_t f = c->n_ff * (shared && c->shape.double_ff ? 2 : 1);
    value_id h = part_norm(r, l, "ffn_norm.weight", x, ROWS_STEP);
    h = part_gate_up(r, l, h, ACT_GELU_TANH, f, false);
    h = part_linear(r, l, "ffn_down.weight", NULL, f, h, NO_VALUE);
    if (model_config_routes(c, (uint32_t)l))
        h = part_add_norm(r, l, "post_ffw_norm_1.weight", h, experts(r, l, x));
    return part_add_norm(r, l, "post_ffw_norm.weight", h, x);
}

void gemma4_record(recorder *r) {
    const model_config *c = &r->p->config;
    weight_id embd;
    value_id x = part_embed(r, sqrtf((float)c->n_embd), &embd), inputs = NO_VALUE;
    const weight_id factors =
        rec_vector(r, rec_has(r, "rope_freqs.weight"), -1, "rope_freqs.weight",
                   (c->shape.full_head_dim ? c->shape.full_head_dim : c->head_dim) / 2);
    if (c->shape.per_layer) inputs = per_layer_inputs(r, x);
    for (int l = 0; l < (int)c->n_layers && r->s == OK; l++) {
        const head_shape heads = heads_of(c, (uint32_t)l);
        value_id h = part_norm(r, l, "attn_norm.weight", x, ROWS_STEP);
        h = attention(r, l, h, factors);
        h = part_linear(r, l, "attn_output.weight", NULL, heads.n_heads * heads.head_dim, h,
                        NO_VALUE);
        x = part_add_norm(r, l, "post_attention_norm.weight", h, x);
        x = feed_forward(r, l, x);
        if (c->shape.per_layer) x = add_per_layer(r, l, x, inputs);
        op *o = rec_op(r, OP_SCALE, l, x, rec_value(r, "x", ROWS_STEP, c->n_embd));
        o->n_weights = 1;
        o->w[0] = rec_vector(r, true, l, "layer_output_scale.weight", 1);
        x = o->out;
    }
    part_head(r, x, embd);
}
