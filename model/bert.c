/* BERT and its kin as a program: encoders, in which every token sees the whole text, norms follow
 * what they norm, and the last operation makes one vector of a text's rows. Devlin et al., "BERT",
 * section 3; Nussbaum et al., "Nomic Embed", section 3.1 (rotary embeddings, SwiGLU, no biases);
 * transformers, modeling_bert.py. Tensor names: llama.cpp, src/llama-arch.cpp.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

#include <stdio.h>

/* name: without ".weight" and ".bias". */
static value_id layer_norm(recorder *r, int l, const char *name, value_id x) {
    const model_config *c = &r->p->config;
    char tensor[48];
    op *o = rec_op(r, OP_LAYER_NORM, l, x, rec_value(r, "x", ROWS_STEP, c->n_embd));
    o->norm.eps = c->norm_eps;
    o->n_weights = 1;
    snprintf(tensor, sizeof tensor, "%s.weight", name);
    o->w[0] = rec_vector(r, true, l, tensor, c->n_embd);
    snprintf(tensor, sizeof tensor, "%s.bias", name);
    o->bias[0] = rec_vector(r, true, l, tensor, c->n_embd);
    return o->out;
}

/* Tokens, with positions and texts where the model has tables of them. */
static value_id embed(recorder *r) {
    const model_config *c = &r->p->config;
    weight_id embd;
    const value_id x = part_embed(r, c->embd_scale, &embd);
    if (r->s != OK) return x;
    op *o = &r->p->ops[r->p->n_ops - 1];
    o->embed.positions = c->shape.positions;
    o->embed.texts = c->shape.token_types > 0;
    if (c->shape.positions)
        o->w[o->n_weights++] =
            rec_weight(r, WEIGHT_EMBED, -1, "position_embd.weight", c->n_ctx_train, c->n_embd);
    if (c->shape.token_types)
        o->w[o->n_weights++] = rec_weight(r, WEIGHT_EMBED, -1, "token_types.weight",
                                          c->shape.token_types, c->n_embd);
    return layer_norm(r, -1, "token_embd_norm", x);
}

/* act(W x + b): BERT's feed-forward part, and what its classifier begins with. */
static value_id activated(recorder *r, int l, const char *name, const char *bias, row_set rows,
                          uint32_t n, value_id x, activation act) {
    op *o = rec_op(r, OP_GATE_UP, l, x, rec_value(r, "act", rows, n));
    o->gate_up.act = act;
    o->n_weights = 1;
    o->w[0] = rec_weight(r, WEIGHT_LINEAR, l, name, n, r->p->config.n_embd);
    o->bias[0] = rec_vector(r, bias != NULL, l, bias, n);
    return o->out;
}

/* A vector for each text; of a cross-encoder the scores of its classifier. */
static void pool(recorder *r, value_id x) {
    const model_config *c = &r->p->config;
    const uint32_t h = c->n_embd, n = c->shape.n_labels;
    op *o = rec_op(r, OP_POOL, -1, x, rec_value(r, "pooled", ROWS_GATHERED, h));
    if (!n) return;
    x = o->out;
    if (!r->file || rec_has(r, "cls.weight"))
        x = activated(r, -1, "cls.weight", "cls.bias", ROWS_GATHERED, h, x, ACT_TANH);
    o = rec_op(r, OP_LINEAR, -1, x, rec_value(r, "scores", ROWS_GATHERED, n));
    o->n_weights = 1;
    o->w[0] = rec_weight(r, WEIGHT_LINEAR, -1, "cls.output.weight", n, h);
    o->bias[0] =
        rec_vector(r, !r->file || rec_has(r, "cls.output.bias"), -1, "cls.output.bias", n);
}

void bert_record(recorder *r) {
    const model_config *c = &r->p->config;
    const uint32_t q = c->n_heads * c->head_dim;
    const bool ungated = c->shape.ungated;
    const bool fused = r->file ? rec_has(r, "blk.0.attn_qkv.weight") : !ungated;
    const char *up_bias = c->ffn_bias ? "ffn_up.bias" : NULL;
    const rope_factors none = {NO_WEIGHT, NO_WEIGHT};
    value_id x = embed(r);
    for (int l = 0; l < (int)c->n_layers && r->s == OK; l++) {
        value_id h = part_attention(r, l, x, none, fused);
        x = part_linear(r, l, "attn_output.weight", c->o_bias ? "attn_output.bias" : NULL, q, h,
                        x);
        x = layer_norm(r, l, "attn_output_norm", x);
        h = ungated
                ? activated(r, l, "ffn_up.weight", up_bias, ROWS_STEP, c->n_ff, x, ACT_GELU_ERF)
                : part_gate_up(r, l, x, ACT_SILU, c->n_ff, false);
        x = part_linear(r, l, "ffn_down.weight", c->ffn_bias ? "ffn_down.bias" : NULL, c->n_ff,
                        h, x);
        x = layer_norm(r, l, "layer_output_norm", x);
    }
    pool(r, x);
}
