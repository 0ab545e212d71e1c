/* OLMo 2 and OLMo 3 as a program: attention and feed-forward read the residual stream as it is,
 * and what they give is normed before it is added; norms of q and of k span all heads. OLMo 3 has
 * windows on most layers, whose rotary embedding is not scaled. Team OLMo, "2 OLMo 2 Furious",
 * section 2; transformers, modeling_olmo3.py.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

void olmo2_record(recorder *r) {
    const model_config *c = &r->p->config;
    const uint32_t q = c->n_heads * c->head_dim;
    const rope_factors none = {NO_WEIGHT, NO_WEIGHT};
    weight_id embd;
    value_id x = part_embed(r, 1, &embd);
    for (int l = 0; l < (int)c->n_layers; l++) {
        value_id h = part_attention(r, l, x, none, false);
        h = part_linear(r, l, "attn_output.weight", c->o_bias ? "attn_output.bias" : NULL, q, h,
                        NO_VALUE);
        x = part_add_norm(r, l, "post_attention_norm.weight", h, x);
        h = part_dense(r, l, x, ACT_SILU, false, NO_VALUE);
        x = part_add_norm(r, l, "post_ffw_norm.weight", h, x);
    }
    part_head(r, x, embd);
}
