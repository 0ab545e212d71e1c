/* Gemma 2 and 3 as a program: a scaled embedding, norms before and after attention and
 * feed-forward, GeGLU, windows on some layers; Gemma 3 has norms of q and k and a rotary base of
 * their own for the layers with a window, Gemma 2 soft caps. Gemma Team, "Gemma 2", section 2;
 * "Gemma 3 Technical Report", section 2. Their norms multiply by 1 + w; GGUF files hold the sum.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

#include <math.h>

void gemma_record(recorder *r) {
    const model_config *c = &r->p->config;
    const uint32_t q = c->n_heads * c->head_dim;
    const rope_factors none = {NO_WEIGHT, NO_WEIGHT};
    weight_id embd;
    value_id x = part_embed(r, sqrtf((float)c->n_embd), &embd);
    for (int l = 0; l < (int)c->n_layers; l++) {
        value_id h = part_norm(r, l, "attn_norm.weight", x, ROWS_STEP);
        h = part_attention(r, l, h, none, false);
        h = part_linear(r, l, "attn_output.weight", NULL, q, h, NO_VALUE);
        x = part_add_norm(r, l, "post_attention_norm.weight", h, x);
        h = part_norm(r, l, "ffn_norm.weight", x, ROWS_STEP);
        h = part_gate_up(r, l, h, ACT_GELU_TANH, false);
        h = part_linear(r, l, "ffn_down.weight", NULL, c->n_ff, h, NO_VALUE);
        x = part_add_norm(r, l, "post_ffw_norm.weight", h, x);
    }
    part_head(r, x, embd);
}
