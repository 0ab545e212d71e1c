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
    for (int l = 0; l < (int)c->n_layers; l++)
        x = part_layer_of_two_norms(r, l, x, none, "attn_output.bias",
                                    "post_attention_norm.weight", ACT_SWIGLU_OAI);
    part_head(r, x, embd);
}
