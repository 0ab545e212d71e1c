/* Qwen3.5 as a program: three layers of four mix tokens by a gated delta net behind a causal convolution,
 * the fourth by attention whose output has a gate; of the mixtures every layer has experts beside one that
 * all rows have. Formulas: the model's class in transformers; Yang, Kautz, Hatamizadeh, "Gated Delta
 * Networks". With text alone all sections of the rotary embedding have the same position: it is the plain
 * one.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

/* The heads' outputs, normed, times silu(z). */
static value_id delta_net(recorder *r, int l, value_id h) {
    const model_config *c = &r->p->config;
    const uint32_t heads = c->shape.ssm.heads, inner = c->shape.ssm.inner;
    const uint32_t channels = inner + 2 * c->shape.ssm.groups * c->shape.ssm.state;
    const value_id qkv = part_project(r, l, "attn_qkv.weight", channels, h, "qkv");
    const value_id z = part_project(r, l, "attn_gate.weight", inner, h, "z");
    op *o = rec_op(r, OP_LINEAR, l, h, rec_value(r, "ba", ROWS_STEP, 2 * heads));
    o->n_weights = 2;
    o->w[0] = rec_weight(r, WEIGHT_LINEAR, l, "ssm_beta.weight", heads, c->n_embd);
    o->w[1] = rec_weight(r, WEIGHT_LINEAR, l, "ssm_alpha.weight", heads, c->n_embd);
    const value_id ba = o->out;
    o = rec_conv(r, l, "ssm_conv1d.weight", c->shape.ssm.conv, channels, qkv);
    o->conv.silu = true;
    o = rec_op(r, OP_DELTA, l, o->out, rec_value(r, "delta", ROWS_STEP, inner));
    o->by = ba;
    o->delta = (delta_shape){.key_heads = c->shape.ssm.groups,
                             .value_heads = heads,
                             .key_dim = c->shape.ssm.state,
                             .value_dim = inner / heads,
                             .tiled = !c->shape.heads_grouped,
                             .eps = 1e-6f};
    o->state_floats = delta_state_floats(&o->delta);
    o->n_weights = 2;
    o->w[0] = rec_vector(r, true, l, "ssm_a", heads);
    o->w[1] = rec_vector(r, true, l, "ssm_dt.bias", heads);
    const value_id y = o->out;
    o = rec_op(r, OP_HEAD_NORM, l, y, y);
    o->heads = (head_shape){heads, 0, inner / heads};
    o->norm.eps = c->norm_eps;
    o->norm.whole = o->norm.values = false;
    o->n_weights = 1;
    o->w[0] = rec_vector(r, true, l, "ssm_norm.weight", inner / heads);
    o = rec_op(r, OP_MUL_ACT, l, z, rec_value(r, "gated", ROWS_STEP, inner));
    o->by = y;
    o->mul.first_col = 0;
    o->mul.act = ACT_SILU;
    return o->out;
}

/* The heads' outputs times sigmoid(g): attn_q has a head's q and g one after the other. */
static value_id gated_attention(recorder *r, int l, value_id h) {
    const model_config *c = &r->p->config;
    const rope_factors none = {NO_WEIGHT, NO_WEIGHT};
    const uint32_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    op *o = rec_op(r, OP_LINEAR, l, h, rec_value(r, "qkv", ROWS_STEP, q + 2 * kv));
    o->n_weights = 3;
    o->w[0] =
        rec_weight_half_heads(r, l, "attn_q.weight", false, c->n_heads, c->head_dim, c->n_embd);
    o->w[1] = rec_weight(r, WEIGHT_LINEAR, l, "attn_k.weight", kv, c->n_embd);
    o->w[2] = rec_weight(r, WEIGHT_LINEAR, l, "attn_v.weight", kv, c->n_embd);
    const value_id qkv = o->out;
    o = rec_op(r, OP_LINEAR, l, h, rec_value(r, "gate", ROWS_STEP, q));
    o->n_weights = 1;
    o->w[0] =
        rec_weight_half_heads(r, l, "attn_q.weight", true, c->n_heads, c->head_dim, c->n_embd);
    const value_id gate = o->out, y = part_attend(r, l, qkv, none);
    o = rec_op(r, OP_MUL_SIGMOID, l, y, rec_value(r, "gated", ROWS_STEP, q));
    o->by = gate;
    return o->out;
}

void qwen35_record(recorder *r) {
    const model_config *c = &r->p->config;
    weight_id embd;
    value_id x = part_embed(r, c->embd_scale, &embd);
    for (int l = 0; l < (int)c->n_layers && r->s == OK; l++) {
        value_id h = part_norm(r, l, "attn_norm.weight", x, ROWS_STEP);
        if (c->shape.mixer[l] == MIXER_DELTA) {
            h = delta_net(r, l, h);
            x = part_linear(r, l, "ssm_out.weight", NULL, c->shape.ssm.inner, h, x);
        } else {
            h = gated_attention(r, l, h);
            x = part_linear(r, l, "attn_output.weight", NULL, c->n_heads * c->head_dim, h, x);
        }
        h = part_norm(r, l, "post_attention_norm.weight", x, ROWS_STEP);
        x = part_feed_forward(r, l, h, ACT_SILU, x);
    }
    part_head(r, x, embd);
}
