/* Mixtures of experts: the router, the experts it chooses, and the expert that all rows have.
 * Shazeer et al., "Outrageously Large Neural Networks", section 2; Jiang et al., "Mixtral of
 * Experts", section 2.1. Tensor names: llama.cpp, src/llama-arch.cpp. Owns nothing: it records
 * into the recorder it is given. One thread. */
#include "model/family.h"

#include <stdio.h>

/* Until April 2024 llama.cpp's converter wrote a matrix for each expert. */
static void refuse_single_experts(recorder *r) {
    static const char name[] = "blk.0.ffn_gate.0.weight";
    if (r->s != OK || !rec_has(r, name)) return;
    err_set(r->e, ERR_UNSUPPORTED,
            "architecture %s: tensor %s: a file of 2023, with a tensor for each expert",
            r->p->config.arch, name);
    err_hint(r->e, "get a newer file of the model, or convert it again");
    r->s = err_field(r->e, "%s", name);
}

value_id part_route(recorder *r, int l, value_id in, float logit_scale, weight_id scales) {
    const model_config *c = &r->p->config;
    const uint32_t n = c->n_experts;
    op *o = rec_op(r, OP_ROUTE, l, in, rec_value(r, "route", ROWS_STEP, 2 * c->n_experts_used));
    o->route.top_k = c->n_experts_used;
    o->route.gate = c->experts_sigmoid ? ROUTE_SIGMOID : ROUTE_SOFTMAX;
    o->route.norm = c->experts_norm;
    o->route.scale = c->experts_scale;
    o->route.eps = c->experts_eps;
    o->route.logit_scale = logit_scale;
    o->route.n_groups = c->expert_groups;
    o->route.groups_used = c->expert_groups_used;
    /* DeepSeek-V3, section 2.1.2; DeepSeek-V2, section 2.2.2. */
    o->route.group_best = c->experts_sigmoid ? 2 : 1;
    o->w[0] = rec_weight(r, WEIGHT_LINEAR, l, "ffn_gate_inp.weight", n, c->n_embd);
    o->bias[0] = rec_vector(r, c->router_bias, l, "ffn_gate_inp.bias", n);
    o->w[1] = rec_vector(r, c->shape.choice_bias, l, "exp_probs_b.bias", n);
    o->w[2] = scales;
    o->n_weights = scales != NO_WEIGHT ? 3 : c->shape.choice_bias ? 2 : 1;
    return o->out;
}

/* x + the expert that all rows have, times sigmoid(w h) where the model has that gate. */
static value_id shared_expert(recorder *r, int l, value_id h, activation act, value_id x) {
    const model_config *c = &r->p->config;
    const uint32_t n = c->n_ff_shared;
    const value_id gated = part_shared_gate_up(r, l, h, act, n);
    if (!c->shape.shared_gate)
        return part_linear(r, l, "ffn_down_shexp.weight", NULL, n, gated, x);
    const value_id y = part_linear(r, l, "ffn_down_shexp.weight", NULL, n, gated, NO_VALUE);
    const value_id gate = part_project(r, l, "ffn_gate_inp_shexp.weight", 1, h, "gate");
    op *o = rec_op(r, OP_MUL_SIGMOID, l, y, rec_value(r, "x", ROWS_STEP, c->n_embd));
    o->by = gate;
    o->residual = x;
    return o->out;
}

/* Gate and up of all experts: two tensors, or one whose experts have the rows of gate first; or up alone.
 * h: columns that they read. */
static void gate_up_weights(recorder *r, int l, op *o, uint32_t h) {
    const model_config *c = &r->p->config;
    const uint32_t n = c->n_experts, f = model_config_expert_width(c);
    char fused[48];
    o->n_weights = c->shape.ungated ? 1 : 2;
    if (c->shape.ungated) {
        o->w[0] = rec_weight_experts(r, l, "ffn_up_exps.weight", n, f, h);
        return;
    }
    snprintf(fused, sizeof fused, "blk.%d.ffn_gate_up_exps.weight", l);
    if (rec_has(r, fused)) {
        const slice gate = {0, f, 2 * f}, up = {f, f, 2 * f};
        o->w[0] = rec_weight_experts_slice(r, l, "ffn_gate_up_exps.weight", n, gate, h);
        o->w[1] = rec_weight_experts_slice(r, l, "ffn_gate_up_exps.weight", n, up, h);
        return;
    }
    o->w[0] = rec_weight_experts(r, l, "ffn_gate_exps.weight", n, f, h);
    o->w[1] = rec_weight_experts(r, l, "ffn_up_exps.weight", n, f, h);
    o->bias[0] = rec_vector_experts(r, c->ffn_bias, l, "ffn_gate_exps.bias", n, f);
    o->bias[1] = rec_vector_experts(r, c->ffn_bias, l, "ffn_up_exps.bias", n, f);
}

value_id part_routed(recorder *r, int l, value_id h, value_id chosen, activation act,
                     value_id x) {
    const model_config *c = &r->p->config;
    const uint32_t n = c->n_experts, f = model_config_expert_width(c);
    const uint32_t wide = r->s == OK ? r->p->values[h].cols : 0;
    op *o =
        rec_op(r, OP_EXPERTS_GATE_UP, l, h, rec_value_routed(r, "gated", c->n_experts_used, f));
    o->by = chosen;
    o->gate_up.act = act;
    gate_up_weights(r, l, o, wide);
    const value_id gated = o->out;
    o = rec_op(r, OP_EXPERTS_DOWN, l, gated,
               rec_value(r, x == NO_VALUE ? "y" : "x", ROWS_STEP, wide));
    o->by = chosen;
    o->residual = x;
    o->n_weights = 1;
    o->w[0] = rec_weight_experts(r, l, "ffn_down_exps.weight", n, wide, f);
    o->bias[0] = rec_vector_experts(r, c->ffn_bias, l, "ffn_down_exps.bias", n, wide);
    return o->out;
}

static value_id experts(recorder *r, int l, value_id h, activation act, value_id x) {
    if (l == 0) refuse_single_experts(r);
    const uint32_t latent = r->p->config.shape.latent;
    if (r->p->config.n_ff_shared) x = shared_expert(r, l, h, act, x);
    const value_id chosen = part_route(r, l, h, 1, NO_WEIGHT);
    if (!latent) return part_routed(r, l, h, chosen, act, x);
    h = part_project(r, l, "ffn_latent_down.weight", latent, h, "latent");
    h = part_routed(r, l, h, chosen, act, NO_VALUE);
    return part_linear(r, l, "ffn_latent_up.weight", NULL, latent, h, x);
}

value_id part_feed_forward(recorder *r, int l, value_id h, activation act, value_id x) {
    const model_config *c = &r->p->config;
    if (model_config_routes(c, (uint32_t)l)) return experts(r, l, h, act, x);
    return part_dense(r, l, h, act, false, x);
}
