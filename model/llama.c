/* The llama family as a program: Llama, Mistral, SmolLM2, ... (llama), Qwen2 and Qwen2.5
 * (qwen2: biases on q, k and v), Qwen3 (qwen3: norms of q and k), SmolLM3 (some layers are not
 * rotated), Ministral 3 (mistral3: a temperature by position), Granite (four scales), and mixtures of
 * experts: Mixtral (llama), qwen2moe, qwen3moe, granitemoe. Touvron et
 * al., "LLaMA: Open and Efficient Foundation Language Models", section 2.2; Yang et al., "Qwen3
 * Technical Report", section 2; transformers, modeling_smollm3.py, modeling_ministral3.py,
 * modeling_granite.py.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

value_id part_layer_of_two_norms(recorder *r, int l, value_id x, rope_factors factors,
                                 const char *o_bias, const char *second, activation act) {
    const model_config *c = &r->p->config;
    value_id h = part_norm(r, l, "attn_norm.weight", x, ROWS_STEP);
    h = part_attention(r, l, h, factors, false);
    x = part_linear(r, l, "attn_output.weight", o_bias, c->n_heads * c->head_dim, h, x);
    h = part_norm(r, l, second, x, ROWS_STEP);
    return part_feed_forward(r, l, h, act, x);
}

void llama_record(recorder *r) {
    const model_config *c = &r->p->config;
    weight_id embd;
    value_id x = part_embed(r, c->embd_scale, &embd);
    const rope_factors factors = {rec_vector(r, rec_has(r, "rope_freqs.weight"), -1,
                                             "rope_freqs.weight", c->rope.n_dims / 2),
                                  NO_WEIGHT};
    const char *o_bias = c->o_bias ? "attn_output.bias" : NULL;
    for (int l = 0; l < (int)c->n_layers; l++)
        x = part_layer_of_two_norms(r, l, x, factors, o_bias, "ffn_norm.weight", ACT_SILU);
    part_head(r, x, embd);
}
