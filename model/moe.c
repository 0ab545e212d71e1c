/* Mixtures of experts: the router, the experts it chooses, and the expert that all rows have.
 * Shazeer et al., "Outrageously Large Neural Networks", section 2; Jiang et al., "Mixtral of
 * Experts", section 2.1. Tensor names: llama.cpp, src/llama-arch.cpp. Owns nothing: it records
 * into the recorder it is given. One thread. */
#include "model/family.h"

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

static value_id route(recorder *r, int l, value_id h) {
    const model_config *c = &r->p->config;
    op *o = rec_op(r, OP_ROUTE, l, h, rec_value(r, "route", ROWS_STEP, 2 * c->n_experts_used));
    o->route.top_k = c->n_experts_used;
    o->route.gate = c->experts_sigmoid ? ROUTE_SIGMOID : ROUTE_SOFTMAX;
    o->route.norm = c->experts_norm;
    o->route.scale = c->experts_scale;
    o->route.eps = c->experts_eps;
    o->n_weights = c->shape.choice_bias ? 2 : 1;
    o->w[0] = rec_weight(r, WEIGHT_LINEAR, l, "ffn_gate_inp.weight", c->n_experts, c->n_embd);
    o->w[1] = rec_vector(r, c->shape.choice_bias, l, "exp_probs_b.bias", c->n_experts);
    o->bias[0] = rec_vector(r, c->router_bias, l, "ffn_gate_inp.bias", c->n_experts);
    return o->out;
}

static uint32_t shared_width(const model_config *c) {
    return c->n_ff_shared ? c->n_ff_shared : c->shape.n_ff_shared;
}

/* x + sigmoid(w h) times the expert that is not routed to. */
static value_id shared_expert(recorder *r, int l, value_id h, activation act, value_id x) {
    const model_config *c = &r->p->config;
    const uint32_t n = shared_width(c), wide = c->n_embd;
    op *o = rec_op(r, OP_GATE_UP, l, h, rec_value(r, "shared", ROWS_STEP, n));
    o->gate_up.act = act;
    o->n_weights = 2;
    o->w[0] = rec_weight(r, WEIGHT_LINEAR, l, "ffn_gate_shexp.weight", n, wide);
    o->w[1] = rec_weight(r, WEIGHT_LINEAR, l, "ffn_up_shexp.weight", n, wide);
    const value_id y = part_linear(r, l, "ffn_down_shexp.weight", NULL, n, o->out, NO_VALUE);
    o = rec_op(r, OP_LINEAR, l, h, rec_value(r, "gate", ROWS_STEP, 1));
    o->n_weights = 1;
    o->w[0] = rec_weight(r, WEIGHT_LINEAR, l, "ffn_gate_inp_shexp.weight", 1, wide);
    const value_id gate = o->out;
    o = rec_op(r, OP_MUL_SIGMOID, l, y, rec_value(r, "x", ROWS_STEP, wide));
    o->by = gate;
    o->residual = x;
    return o->out;
}

value_id part_experts(recorder *r, int l, value_id h, activation act, value_id x) {
    const model_config *c = &r->p->config;
    const uint32_t n = c->n_experts, wide = c->n_embd;
    const uint32_t ff = c->shape.n_ff_expert ? c->shape.n_ff_expert : c->n_ff;
    if (l == 0) refuse_single_experts(r);
    if (shared_width(c)) x = shared_expert(r, l, h, act, x);
    const value_id chosen = route(r, l, h);
    op *o = rec_op(r, OP_EXPERTS_GATE_UP, l, h,
                   rec_value_routed(r, "gated", c->n_experts_used, ff));
    o->by = chosen;
    o->gate_up.act = act;
    o->n_weights = 2;
    o->w[0] = rec_weight_experts(r, l, "ffn_gate_exps.weight", n, ff, wide);
    o->w[1] = rec_weight_experts(r, l, "ffn_up_exps.weight", n, ff, wide);
    o->bias[0] = rec_vector_experts(r, c->ffn_bias, l, "ffn_gate_exps.bias", n, ff);
    o->bias[1] = rec_vector_experts(r, c->ffn_bias, l, "ffn_up_exps.bias", n, ff);
    const value_id gated = o->out;
    o = rec_op(r, OP_EXPERTS_DOWN, l, gated, rec_value(r, "x", ROWS_STEP, wide));
    o->by = chosen;
    o->residual = x;
    o->n_weights = 1;
    o->w[0] = rec_weight_experts(r, l, "ffn_down_exps.weight", n, wide, ff);
    o->bias[0] = rec_vector_experts(r, c->ffn_bias, l, "ffn_down_exps.bias", n, wide);
    return o->out;
}
