/* Granite 4 and Nemotron-H as programs: layers that mix tokens by Mamba-2 behind a causal convolution, some
 * by attention. Granite's layers have a feed-forward part each, dense or of experts, and the four scales of
 * Granite 3; a layer of Nemotron-H is one mixer or one feed-forward part, ungated, with squared ReLU.
 * Formulas: Dao, Gu, "Transformers are SSMs", section 7; the models' classes in transformers.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

#include <stdio.h>

/* A number for each head: files have them as a row, or as a column. */
static weight_id per_head(recorder *r, int l, const char *name, uint32_t n) {
    char full[48];
    tensor_info t;
    snprintf(full, sizeof full, "blk.%d.%s", l, name);
    if (r->file && checkpoint_find(r->file, full, &t) >= 0 && t.ne[0] == 1 && n > 1)
        return rec_vector_experts(r, true, l, name, n, 1);
    return rec_vector(r, true, l, name, n);
}

/* Rows [first, first + n) of ssm_in times h. */
static value_id project(recorder *r, int l, value_id h, slice rows, const char *what) {
    const uint32_t n = r->p->config.n_embd;
    op *o = rec_op(r, OP_LINEAR, l, h, rec_value(r, what, ROWS_STEP, rows.n));
    o->n_weights = 1;
    o->w[0] = rec_weight_slice(r, l, "ssm_in.weight", rows, (slice){0, n, n});
    return o->out;
}

/* silu(z) * y, normed by groups. */
static value_id gated_norm(recorder *r, int l, value_id z, value_id y) {
    const model_config *c = &r->p->config;
    const uint32_t inner = c->shape.ssm.inner, groups = c->shape.ssm.groups;
    op *o = rec_op(r, OP_MUL_ACT, l, z, rec_value(r, "gated", ROWS_STEP, inner));
    o->by = y;
    o->mul.first_col = 0;
    o->mul.act = ACT_SILU;
    o = rec_op(r, OP_NORM, l, o->out, rec_value(r, "norm", ROWS_STEP, inner));
    o->norm.eps = c->norm_eps;
    o->norm.groups = groups;
    o->n_weights = 1;
    o->w[0] = rec_vector_experts(r, true, l, "ssm_norm.weight", groups, inner / groups);
    return o->out;
}

/* The heads' outputs, gated and normed: [inner]. */
static value_id mamba2(recorder *r, int l, value_id h) {
    const model_config *c = &r->p->config;
    const uint32_t heads = c->shape.ssm.heads, inner = c->shape.ssm.inner;
    const uint32_t groups = c->shape.ssm.groups, state = c->shape.ssm.state;
    const uint32_t channels = inner + 2 * groups * state, all = inner + channels + heads;
    const value_id z = project(r, l, h, (slice){0, inner, all}, "z");
    const value_id xbc = project(r, l, h, (slice){inner, channels, all}, "xbc");
    const value_id dt = project(r, l, h, (slice){inner + channels, heads, all}, "dt");
    op *o = rec_conv(r, l, "ssm_conv1d.weight", c->shape.ssm.conv, channels, xbc);
    o->conv.silu = true;
    o->bias[0] = rec_vector(r, true, l, "ssm_conv1d.bias", channels);
    o = rec_op(r, OP_SSM, l, o->out, rec_value(r, "scan", ROWS_STEP, inner));
    o->by = dt;
    o->delta = (delta_shape){.key_heads = groups,
                             .value_heads = heads,
                             .key_dim = state,
                             .value_dim = inner / heads,
                             .dt_min = c->dt_min,
                             .dt_max = c->dt_max};
    o->state_floats = delta_state_floats(&o->delta);
    o->n_weights = 3;
    o->w[0] = per_head(r, l, "ssm_a", heads);
    o->w[1] = rec_vector(r, true, l, "ssm_dt.bias", heads);
    o->w[2] = per_head(r, l, "ssm_d", heads);
    return gated_norm(r, l, z, o->out);
}

/* x + what mixes the tokens of h. */
static value_id mix(recorder *r, int l, value_id h, value_id x) {
    const model_config *c = &r->p->config;
    const rope_factors none = {NO_WEIGHT, NO_WEIGHT};
    if (c->shape.mixer[l] == MIXER_SSM) {
        h = mamba2(r, l, h);
        return part_linear(r, l, "ssm_out.weight", NULL, c->shape.ssm.inner, h, x);
    }
    h = part_attention(r, l, h, none, false);
    return part_linear(r, l, "attn_output.weight", NULL, c->n_heads * c->head_dim, h, x);
}

void granite_hybrid_record(recorder *r) {
    const model_config *c = &r->p->config;
    weight_id embd;
    value_id x = part_embed(r, c->embd_scale, &embd);
    for (int l = 0; l < (int)c->n_layers && r->s == OK; l++) {
        value_id h = part_norm(r, l, "attn_norm.weight", x, ROWS_STEP);
        x = mix(r, l, h, x);
        h = part_norm(r, l, "ffn_norm.weight", x, ROWS_STEP);
        x = part_feed_forward(r, l, h, ACT_SILU, x);
    }
    part_head(r, x, embd);
}

void nemotron_h_record(recorder *r) {
    const model_config *c = &r->p->config;
    weight_id embd;
    value_id x = part_embed(r, c->embd_scale, &embd);
    for (int l = 0; l < (int)c->n_layers && r->s == OK; l++) {
        const value_id h = part_norm(r, l, "attn_norm.weight", x, ROWS_STEP);
        if (c->shape.mixer[l] == MIXER_NONE)
            x = part_feed_forward(r, l, h, ACT_RELU2, x);
        else
            x = mix(r, l, h, x);
    }
    part_head(r, x, embd);
}
