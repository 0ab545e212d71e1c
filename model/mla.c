/* DeepSeek V2, V3 and R1, Kimi K2, GLM-4.7-Flash as a program: latent attention in its absorbed form, dense
 * layers first, then experts beside shared ones. DeepSeek-AI, "DeepSeek-V2", section 2.1;
 * "DeepSeek-V3", section 2.1; transformers, modeling_deepseek_v2.py, modeling_deepseek_v3.py.
 *
 * A token's row of the KV cache is what K and V of all heads are made of, the latent, and the rotated
 * part of K, which all heads share. A head's K is its matrix times the latent, so its scores are those
 * of the query, times the transpose of that matrix, with the latent: each head absorbs the matrix into
 * its query, sees the row as K and the latent in it as V, and multiplies what it has seen by its matrix
 * for V. One formula serves prompts and single tokens.
 *
 * Owns nothing: it records into the recorder it is given. One thread. */
#include "model/family.h"

#include <math.h>
#include <stdio.h>

/* Of the norms of both latents, whatever the config has for the others. */
static const float LATENT_EPS = 1e-6f;

/* A matrix times in, whose columns may be in an order of their own. name: without ".weight" */
static value_id project(recorder *r, int l, const char *name, uint32_t n_out, value_id in,
                        const char *what) {
    char weight[40];
    snprintf(weight, sizeof weight, "%s.weight", name);
    return part_project(r, l, weight, n_out, rec_ordered(r, l, &name, 1, in), what);
}

/* q of all heads, through a latent of its own where there is one. */
static value_id queries(recorder *r, int l, value_id x) {
    const model_config *c = &r->p->config;
    const uint32_t rank = c->shape.q_rank, n = c->n_heads * c->head_dim;
    if (!rank) return project(r, l, "attn_q", n, x, "q");
    const value_id a = project(r, l, "attn_q_a", rank, x, "q_latent");
    op *o = rec_op(r, OP_NORM, l, a, rec_value(r, "norm", ROWS_STEP, rank));
    o->norm.eps = LATENT_EPS;
    o->n_weights = 1;
    o->w[0] = rec_vector(r, true, l, "attn_q_a_norm.weight", rank);
    return project(r, l, "attn_q_b", n, o->out, "q");
}

/* Each head's matrix for K (turned: from a head's K to the latent), or for V: tensors of their own, or as
 * converters before 2025-04 and published files have them, the rows of one. */
static weight_id by_head(recorder *r, int l, bool of_v) {
    const model_config *c = &r->p->config;
    const model_shape *m = &c->shape;
    const uint32_t k = c->head_dim - m->rope_dim, v = m->v_dim;
    char both[40];
    snprintf(both, sizeof both, "blk.%d.attn_kv_b.weight", l);
    if (rec_has(r, both)) {
        const slice rows = of_v ? (slice){k, v, k + v} : (slice){0, k, k + v};
        return rec_weight_heads(r, l, "attn_kv_b.weight", c->n_heads, rows, m->kv_rank, !of_v);
    }
    return of_v ? rec_weight_experts(r, l, "attn_v_b.weight", c->n_heads, v, m->kv_rank)
                : rec_weight_experts(r, l, "attn_k_b.weight", c->n_heads, m->kv_rank, k);
}

static value_id linear_by_head(recorder *r, int l, value_id in, const char *what, bool of_v,
                               uint32_t cols) {
    const uint32_t n = r->p->config.n_heads;
    op *o = rec_op(r, OP_LINEAR_BY_HEAD, l, in, rec_value(r, what, ROWS_STEP, n * cols));
    o->n_weights = 1;
    o->w[0] = by_head(r, l, of_v);
    return o->out;
}

/* The heads' outputs for x, normed. */
static value_id latent_attention(recorder *r, int l, value_id x) {
    const model_config *c = &r->p->config;
    const model_shape *m = &c->shape;
    const uint32_t row = m->kv_rank + m->rope_dim;
    const head_shape heads = {c->n_heads, 1, row};
    const value_id kv = project(r, l, "attn_kv_a_mqa", row, x, "kv");
    op *o = rec_op(r, OP_LATENT_APPEND, l, kv, NO_VALUE);
    o->heads = heads;
    o->rope.factors = o->rope.long_factors = NO_WEIGHT;
    o->rope.table = rec_rope(r, l);
    o->rope.proportional = false;
    o->rope.eps = LATENT_EPS;
    o->n_weights = 1;
    o->w[0] = rec_vector(r, true, l, "attn_kv_a_norm.weight", m->kv_rank);
    const value_id q = linear_by_head(r, l, queries(r, l, x), "absorbed", false, row);
    o = rec_op(r, OP_ATTENTION, l, q,
               rec_value(r, "latents", ROWS_STEP, c->n_heads * m->kv_rank));
    o->heads = heads;
    o->attention = (attention_shape){.scale = c->attn_scale > 0 ? c->attn_scale
                                                                : 1 / sqrtf((float)c->head_dim),
                                     .latent = m->kv_rank};
    return linear_by_head(r, l, o->out, "heads", true, m->v_dim);
}

void deepseek2_record(recorder *r) {
    const model_config *c = &r->p->config;
    weight_id embd;
    value_id x = part_embed(r, 1, &embd);
    for (int l = 0; l < (int)c->n_layers; l++) {
        value_id h = part_norm(r, l, "attn_norm.weight", x, ROWS_STEP);
        h = latent_attention(r, l, h);
        x = part_linear(r, l, "attn_output.weight", NULL, c->n_heads * c->shape.v_dim, h, x);
        h = part_norm(r, l, "ffn_norm.weight", x, ROWS_STEP);
        x = part_feed_forward(r, l, h, ACT_SILU, x);
    }
    part_head(r, x, embd);
}
