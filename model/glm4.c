/* GLM-4 (0414) as a program: norms before and after attention and feed-forward, gate and up in one
 * matrix, biases on q, k and v, half of each head rotated in adjacent pairs. GLM-4.5 and 4.6
 * (glm4moe): llama's layer, half of each head rotated, experts by sigmoids behind some dense layers.
 * Team GLM, "ChatGLM", section 2; "GLM-4.5", section 2.1; transformers, modeling_glm4.py,
 * modeling_glm4_moe.py.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

void glm4_record(recorder *r) {
    const model_config *c = &r->p->config;
    weight_id embd;
    value_id x = part_embed(r, 1, &embd);
    for (int l = 0; l < (int)c->n_layers; l++)
        x = part_layer_of_four_norms(r, l, x, ACT_SILU, true);
    part_head(r, x, embd);
}

void glm4moe_record(recorder *r) {
    const model_config *c = &r->p->config;
    const rope_factors none = {NO_WEIGHT, NO_WEIGHT};
    weight_id embd;
    value_id x = part_embed(r, 1, &embd);
    for (int l = 0; l < (int)c->n_layers; l++)
        x = part_layer_of_two_norms(r, l, x, none, NULL, "post_attention_norm.weight",
                                    ACT_SILU);
    part_head(r, x, embd);
}
