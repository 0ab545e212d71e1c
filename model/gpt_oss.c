/* gpt-oss as a program: windows on every other layer, attention sinks, biases everywhere, a router
 * whose softmax is over the chosen experts, SwiGLU within limits. OpenAI, "gpt-oss-120b & gpt-oss-20b
 * Model Card", section 2; transformers, modeling_gpt_oss.py.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

void gpt_oss_record(recorder *r) {
    const model_config *c = &r->p->config;
    const rope_factors none = {NO_WEIGHT, NO_WEIGHT};
    weight_id embd;
    value_id x = part_embed(r, c->embd_scale, &embd);
    for (int l = 0; l < (int)c->n_layers; l++) {
        value_id h = part_norm(r, l, "attn_norm.weight", x, ROWS_STEP);
        h = part_attention(r, l, h, none, false);
        x = part_linear(r, l, "attn_output.weight", "attn_output.bias",
                        c->n_heads * c->head_dim, h, x);
        h = part_norm(r, l, "post_attention_norm.weight", x, ROWS_STEP);
        x = part_experts(r, l, h, ACT_SWIGLU_OAI, x);
    }
    part_head(r, x, embd);
}
