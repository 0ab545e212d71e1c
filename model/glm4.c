/* GLM-4 (0414) as a program: norms before and after attention and feed-forward, gate and up in one
 * matrix, biases on q, k and v, half of each head rotated in adjacent pairs. Team GLM, "ChatGLM",
 * section 2; transformers, modeling_glm4.py.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

void glm4_record(recorder *r) {
    const model_config *c = &r->p->config;
    const uint32_t q = c->n_heads * c->head_dim;
    const rope_factors none = {NO_WEIGHT, NO_WEIGHT};
    weight_id embd;
    value_id x = part_embed(r, 1, &embd);
    for (int l = 0; l < (int)c->n_layers; l++) {
        value_id h = part_norm(r, l, "attn_norm.weight", x, ROWS_STEP);
        h = part_attention(r, l, h, none, false);
        h = part_linear(r, l, "attn_output.weight", NULL, q, h, NO_VALUE);
        x = part_add_norm(r, l, "post_attention_norm.weight", h, x);
        h = part_norm(r, l, "ffn_norm.weight", x, ROWS_STEP);
        h = part_gate_up(r, l, h, ACT_SILU, true);
        h = part_linear(r, l, "ffn_down.weight", NULL, c->n_ff, h, NO_VALUE);
        x = part_add_norm(r, l, "post_ffw_norm.weight", h, x);
    }
    part_head(r, x, embd);
}
