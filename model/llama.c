/* The llama family as a program: Llama, Mistral, SmolLM2, ... (llama), Qwen2 and Qwen2.5
 * (qwen2: biases on q, k and v). Touvron et al., "LLaMA: Open and Efficient Foundation Language
 * Models", section 2.2; tensor names: ggml, docs/gguf.md, "Standardized tensor names".
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/recorder.h"

#include <math.h>

static weight_id matrix(recorder *r, int layer, const char *name, uint32_t rows,
                        uint32_t cols) {
    return rec_weight(r, WEIGHT_LINEAR, layer, name, rows, cols);
}

static value_id norm(recorder *r, int layer, const char *name, value_id x, row_set rows) {
    const model_config *c = &r->p->config;
    op *o = rec_op(r, OP_NORM, layer, x, rec_value(r, "norm", rows, c->n_embd));
    o->norm.eps = c->norm_eps;
    o->n_weights = 1;
    o->w[0] = rec_vector(r, true, layer, name, c->n_embd);
    return o->out;
}

/* x + W in (+ bias) */
static value_id add_linear(recorder *r, int layer, const char *name, const char *bias,
                           uint32_t n_in, value_id in, value_id x) {
    const model_config *c = &r->p->config;
    op *o = rec_op(r, OP_LINEAR, layer, in, rec_value(r, "x", ROWS_STEP, c->n_embd));
    o->residual = x;
    o->n_weights = 1;
    o->w[0] = matrix(r, layer, name, c->n_embd, n_in);
    o->bias[0] = rec_vector(r, bias != NULL, layer, bias, c->n_embd);
    return o->out;
}

/* q | k | v of all heads, rotated, K and V in the cache, and what the heads read from it. */
static value_id attention(recorder *r, int l, value_id x, weight_id factors) {
    const model_config *c = &r->p->config;
    const uint32_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    op *o = rec_op(r, OP_LINEAR, l, x, rec_value(r, "qkv", ROWS_STEP, q + 2 * kv));
    const value_id qkv = o->out;
    o->n_weights = 3;
    o->w[0] = matrix(r, l, "attn_q.weight", q, c->n_embd);
    o->w[1] = matrix(r, l, "attn_k.weight", kv, c->n_embd);
    o->w[2] = matrix(r, l, "attn_v.weight", kv, c->n_embd);
    o->bias[0] = rec_vector(r, c->qkv_bias, l, "attn_q.bias", q);
    o->bias[1] = rec_vector(r, c->qkv_bias, l, "attn_k.bias", kv);
    o->bias[2] = rec_vector(r, c->qkv_bias, l, "attn_v.bias", kv);

    o = rec_op(r, OP_ROPE_APPEND, l, qkv, qkv);
    o->rope.factors = factors;

    o = rec_op(r, OP_ATTENTION, l, qkv, rec_value(r, "heads", ROWS_STEP, q));
    o->attention.scale = 1 / sqrtf((float)c->head_dim);
    o->attention.window = model_config_window(c, (uint32_t)l);
    return o->out;
}

/* silu(W_gate x) * (W_up x) */
static value_id gate_up(recorder *r, int l, value_id x) {
    const model_config *c = &r->p->config;
    op *o = rec_op(r, OP_GATE_UP, l, x, rec_value(r, "gated", ROWS_STEP, c->n_ff));
    o->gate_up.act = ACT_SILU;
    o->n_weights = 2;
    o->w[0] = matrix(r, l, "ffn_gate.weight", c->n_ff, c->n_embd);
    o->w[1] = matrix(r, l, "ffn_up.weight", c->n_ff, c->n_embd);
    return o->out;
}

void llama_record(recorder *r) {
    const model_config *c = &r->p->config;
    const uint32_t q = c->n_heads * c->head_dim;
    const weight_id embd =
        rec_weight(r, WEIGHT_EMBED, -1, "token_embd.weight", c->n_vocab, c->n_embd);
    const weight_id factors = rec_vector(r, rec_has(r, "rope_freqs.weight"), -1,
                                         "rope_freqs.weight", c->rope.n_dims / 2);

    op *o = rec_op(r, OP_EMBED, -1, NO_VALUE, rec_value(r, "x", ROWS_STEP, c->n_embd));
    o->embed.scale = 1;
    o->n_weights = 1;
    o->w[0] = embd;
    value_id x = o->out;

    for (int l = 0; l < (int)c->n_layers; l++) {
        value_id h = norm(r, l, "attn_norm.weight", x, ROWS_STEP);
        h = attention(r, l, h, factors);
        x = add_linear(r, l, "attn_output.weight", c->o_bias ? "attn_output.bias" : NULL, q, h,
                       x);
        h = norm(r, l, "ffn_norm.weight", x, ROWS_STEP);
        h = gate_up(r, l, h);
        x = add_linear(r, l, "ffn_down.weight", NULL, c->n_ff, h, x);
    }

    o = rec_op(r, OP_GATHER_ROWS, -1, x, rec_value(r, "last", ROWS_GATHERED, c->n_embd));
    x = norm(r, -1, "output_norm.weight", o->out, ROWS_GATHERED);
    o = rec_op(r, OP_LOGITS, -1, x, rec_value(r, "logits", ROWS_GATHERED, c->n_vocab));
    o->n_weights = 1;
    o->w[0] = c->tied_head ? embd : matrix(r, -1, "output.weight", c->n_vocab, c->n_embd);
    rec_op(r, OP_SAMPLE, -1, o->out, NO_VALUE);
}
