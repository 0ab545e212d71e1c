/* GLM-4 (0414) as a program: norms before and after attention and feed-forward, gate and up in one
 * matrix, biases on q, k and v, half of each head rotated in adjacent pairs. Team GLM, "ChatGLM",
 * section 2; transformers, modeling_glm4.py.
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
