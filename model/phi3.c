/* Phi-3, Phi-3.5 and Phi-4 as a program: the llama family's pass with q, k and v in one matrix,
 * gate and up in another, and LongRoPE's factors where the file has them. Abdin et al., "Phi-3
 * Technical Report", section 2; Ding et al., "LongRoPE", section 3.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

void phi3_record(recorder *r) {
    const model_config *c = &r->p->config;
    const uint32_t q = c->n_heads * c->head_dim, n = c->rope.n_dims / 2;
    const bool scaled = c->rope.scaling == ROPE_SCALING_LONGROPE;
    weight_id embd;
    value_id x = part_embed(r, 1, &embd);
    const rope_factors factors = {
        rec_vector(r, scaled, -1, "rope_factors_short.weight", n),
        rec_vector(r, scaled, -1, "rope_factors_long.weight", n),
    };
    for (int l = 0; l < (int)c->n_layers; l++) {
        value_id h = part_norm(r, l, "attn_norm.weight", x, ROWS_STEP);
        h = part_attention(r, l, h, factors, true);
        x = part_linear(r, l, "attn_output.weight", NULL, q, h, x);
        h = part_norm(r, l, "ffn_norm.weight", x, ROWS_STEP);
        x = part_dense(r, l, h, ACT_SILU, true, x);
    }
    part_head(r, x, embd);
}
