/* LFM2 as a program: most layers mix tokens by a short convolution with two gates in place of attention,
 * the others by attention with norms of q and k; of LFM2-MoE the layers behind the first ones have
 * experts, chosen by sigmoids with a bias. Liquid AI, "LFM2 Technical Report", section 2.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

/* What is read of the projection: the gate of the input, that of the output, the input. */
static value_id short_conv(recorder *r, int l, value_id h) {
    const uint32_t n = r->p->config.n_embd;
    const value_id bcx = part_project(r, l, "shortconv.in_proj.weight", 3 * n, h, "bcx");
    op *o = rec_conv(r, l, "shortconv.conv.weight", r->p->config.shape.ssm.conv, n, bcx);
    o->conv.gated = true;
    return o->out;
}

void lfm2_record(recorder *r) {
    const model_config *c = &r->p->config;
    const rope_factors none = {NO_WEIGHT, NO_WEIGHT};
    weight_id embd;
    value_id x = part_embed(r, c->embd_scale, &embd);
    for (int l = 0; l < (int)c->n_layers && r->s == OK; l++) {
        value_id h = part_norm(r, l, "attn_norm.weight", x, ROWS_STEP);
        if (c->shape.mixer[l] == MIXER_CONV) {
            h = short_conv(r, l, h);
            x = part_linear(r, l, "shortconv.out_proj.weight", NULL, c->n_embd, h, x);
        } else {
            h = part_attention(r, l, h, none, false);
            x = part_linear(r, l, "attn_output.weight", NULL, c->n_heads * c->head_dim, h, x);
        }
        h = part_norm(r, l, "ffn_norm.weight", x, ROWS_STEP);
        x = part_feed_forward(r, l, h, ACT_SILU, x);
    }
    part_head_of(r, "token_embd_norm.weight", x, embd);
}
