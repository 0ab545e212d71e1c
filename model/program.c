/* The program as data: sums and text. Owns nothing; any thread. */
#include "model/program.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"

const char *op_kind_name(op_kind k) {
    static const char *const name[] = {
        [OP_EMBED] = "embed",
        [OP_NORM] = "norm",
        [OP_LINEAR] = "linear",
        [OP_HEAD_NORM] = "head_norm",
        [OP_ROPE_APPEND] = "rope_append",
        [OP_ATTENTION] = "attention",
        [OP_GATE_UP] = "gate_up",
        [OP_GATHER_ROWS] = "gather_rows",
        [OP_LOGITS] = "logits",
        [OP_SAMPLE] = "sample",
        [OP_ROUTE] = "route",
        [OP_EXPERTS_GATE_UP] = "experts_gate_up",
        [OP_EXPERTS_DOWN] = "experts_down",
        [OP_MUL_SIGMOID] = "mul_sigmoid",
        [OP_PERMUTE] = "permute",
        [OP_EMBED_ADD] = "embed_add",
        [OP_MUL_ACT] = "mul_act",
        [OP_SCALE] = "scale",
        [OP_LAYER_NORM] = "layer_norm",
        [OP_POOL] = "pool",
        [OP_CONV] = "conv",
        [OP_DELTA] = "delta",
        [OP_SSM] = "ssm",
        [OP_LINEAR_BY_HEAD] = "linear_by_head",
        [OP_LATENT_APPEND] = "latent_append",
        [OP_ALL_GATHER] = "all_gather",
        [OP_SEND] = "send",
        [OP_RECV] = "recv",
    };
    CHECK((unsigned)k < sizeof name / sizeof *name);
    return name[k];
}

static uint64_t traits_of(const program *p, const op *o) {
#define HAS(trait, is) ((uint64_t)(is) << TRAIT_##trait)
    switch (o->kind) {
    case OP_ATTENTION:
        return HAS(SOFT_CAP, o->attention.cap > 0) | HAS(SINKS, o->w[0] != NO_WEIGHT) |
               HAS(TEMPERATURE, o->attention.temperature > 0) |
               HAS(LATENT_KV, o->attention.latent > 0) |
               HAS(SHARED_KV, o->attention.kv_from > 0) |
               HAS(BIDIRECTIONAL, o->attention.bidirectional) |
               HAS(WIDE_HEADS, o->heads.head_dim > 256);
    case OP_EMBED: return HAS(EMBED_TABLES, o->embed.positions || o->embed.texts);
    case OP_NORM:
        return HAS(NORM_ADD, o->residual != NO_VALUE) | HAS(NORM_GROUPS, o->norm.groups > 1);
    case OP_CONV: return HAS(CONV_BIAS, o->bias[0] != NO_WEIGHT);
    case OP_HEAD_NORM: return HAS(WHOLE_NORM, o->norm.whole) | HAS(VALUE_NORM, o->norm.values);
    case OP_ROPE_APPEND:
        return HAS(UNROTATED, p->rope[o->rope.table].n_dims == 0) |
               HAS(PROPORTIONAL, o->rope.proportional);
    case OP_LOGITS:
        return HAS(LOGIT_SCALE, o->logits.scale != 1) | HAS(LOGIT_CAP, o->logits.cap > 0);
    case OP_GATE_UP:
    case OP_EXPERTS_GATE_UP:
        return HAS(GATE_UP_BIAS, o->bias[0] != NO_WEIGHT) | HAS(UNGATED, o->n_weights == 1);
    case OP_ROUTE:
        return HAS(CHOICE_BIAS, o->w[1] != NO_WEIGHT) |
               HAS(EXPERT_SCALES, o->w[2] != NO_WEIGHT) |
               HAS(EXPERT_GROUPS, o->route.n_groups > 0);
    default: return 0;
    }
#undef HAS
}

op_set program_ops(const program *p) {
    op_set all = {0};
    for (uint32_t i = 0; i < p->n_ops; i++) {
        all.kinds |= 1ull << p->ops[i].kind;
        all.traits |= traits_of(p, &p->ops[i]);
    }
    return all;
}

uint32_t op_set_names(op_set s, const char *out[OP_SET_MAX]) {
    static const char *const traits[] = {
#define X(trait, name) name,
        OP_TRAIT_LIST(X)
#undef X
    };
    uint32_t n = 0;
    for (uint32_t k = 0; k < OP_N_KINDS; k++)
        if (s.kinds >> k & 1) out[n++] = op_kind_name((op_kind)k);
    for (uint32_t k = 0; k < OP_N_TRAITS; k++)
        if (s.traits >> k & 1) out[n++] = traits[k];
    return n;
}

void op_set_text(op_set s, char *out, size_t cap) {
    const char *names[OP_SET_MAX];
    const uint32_t n = op_set_names(s, names);
    out[0] = '\0';
    for (size_t i = 0, at = 0; i < n && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s%s", i ? ", " : "", names[i]);
}

weight_id program_rope_factors(const program *p, const op *o, uint32_t max_model_len) {
    CHECK(op_appends(o) && o->rope.table < p->n_ropes);
    const rope_config *r = &p->rope[o->rope.table];
    bool far = r->scaling == ROPE_SCALING_LONGROPE && max_model_len > r->original_len;
    return far ? o->rope.long_factors : o->rope.factors;
}

weight_id program_table(const program *p) {
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (p->ops[i].kind == OP_EMBED_ADD) return p->ops[i].w[0];
    return NO_WEIGHT;
}

uint32_t program_rope_dims(const program *p) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_ropes; i++)
        if (p->rope[i].n_dims > n) n = p->rope[i].n_dims;
    return n;
}

uint64_t weight_bytes(const weight *w) {
    const uint64_t rows = w->turned ? (uint64_t)w->n_experts * w->cols : weight_rows(w);
    uint64_t n;
    /* checked when it was recorded */
    CHECK(
        dtype_bytes(w->turned ? w->stored : w->type, rows, w->turned ? w->rows : w->cols, &n));
    return n;
}

bool weight_is_routed(const weight *w) {
    return w->n_experts && strstr(w->name, "_exps.");
}

uint64_t program_weight_bytes(const program *p) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < p->n_weights; i++) sum += weight_bytes(&p->weights[i]);
    return sum;
}

/* No parameters: orders, what RoPE's frequencies follow from, and the biases that balance experts
 * (buffers of the model's class in transformers). */
static bool is_buffer(const weight *w) {
    return w->role == WEIGHT_ORDER || strncmp(w->name, "rope_f", 6) == 0 ||
           strstr(w->name, "exp_probs_b");
}

uint64_t program_params(const program *p) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < p->n_weights; i++)
        if (!is_buffer(&p->weights[i]))
            sum += (uint64_t)weight_rows(&p->weights[i]) * p->weights[i].cols;
    return sum;
}

uint64_t program_state_bytes(const program *p) {
    uint64_t floats = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) floats += p->ops[i].state_floats;
    return floats * sizeof(float);
}

uint64_t program_expert_bytes(const program *p) {
    const uint32_t n = p->config.n_experts;
    uint64_t sum = 0;
    int32_t layer = -1; /* the first that has experts */
    for (uint32_t i = 0; i < p->n_weights; i++) {
        const weight *w = &p->weights[i];
        if (!n || !weight_is_routed(w)) continue;
        if (layer < 0) layer = w->layer;
        if (w->layer == layer) sum += weight_bytes(w) / n;
    }
    return sum;
}

/* ---- text ---- */

static void print_value(buf *b, const program *p, value_id id) {
    if (id == NO_VALUE)
        buf_addf(b, "-");
    else if (p->values[id].rows == ROWS_ROUTED)
        buf_addf(b, "%u:%s[%u x %u]", id, p->values[id].name, p->values[id].top_k,
                 p->values[id].cols);
    else
        buf_addf(b, "%u:%s[%u]", id, p->values[id].name, p->values[id].cols);
}

static void print_weight(buf *b, const program *p, const char *before, weight_id id) {
    if (id == NO_WEIGHT) return;
    const weight *w = &p->weights[id];
    buf_addf(b, "%s%s %s [%u x %u", before, w->name, dtype_name(w->type), w->rows, w->cols);
    if (w->n_experts) buf_addf(b, " x %u", w->n_experts);
    buf_addf(b, "]");
}

static void print_attention(buf *b, const op *o) {
    buf_addf(b, "  %u heads, %u KV heads of %u, scale %g", o->heads.n_heads,
             o->heads.n_kv_heads, o->heads.head_dim, (double)o->attention.scale);
    if (o->attention.latent) buf_addf(b, ", V the first %u of K", o->attention.latent);
    if (o->attention.window) buf_addf(b, ", window %u", o->attention.window);
    if (o->attention.bidirectional) buf_addf(b, ", both ways");
    if (o->attention.cap != 0) buf_addf(b, ", cap %g", (double)o->attention.cap);
    if (o->attention.temperature != 0)
        buf_addf(b, ", temperature %g each %u", (double)o->attention.temperature,
                 o->attention.temperature_len);
}

static void print_norm(buf *b, const op *o) {
    buf_addf(b, "  eps %g", (double)o->norm.eps);
    if (o->kind == OP_HEAD_NORM && o->norm.whole) buf_addf(b, ", all heads together");
    if (o->norm.groups > 1) buf_addf(b, ", in %u groups", o->norm.groups);
}

static void print_extra(buf *b, const program *p, const op *o) {
    switch (o->kind) {
    case OP_EMBED:
        if (o->embed.scale != 1) buf_addf(b, "  scale %g", (double)o->embed.scale);
        break;
    case OP_NORM:
    case OP_LAYER_NORM:
    case OP_HEAD_NORM: print_norm(b, o); break;
    case OP_LOGITS:
        if (o->logits.scale != 1) buf_addf(b, "  scale %g", (double)o->logits.scale);
        if (o->logits.cap != 0) buf_addf(b, "  cap %g", (double)o->logits.cap);
        break;
    case OP_ROUTE:
        buf_addf(b, "  %s, %u chosen%s", o->route.gate == ROUTE_SOFTMAX ? "softmax" : "sigmoid",
                 o->route.top_k, o->route.norm ? ", of sum 1" : "");
        if (o->route.scale != 1) buf_addf(b, ", times %g", (double)o->route.scale);
        if (o->route.n_groups)
            buf_addf(b, ", of %u of %u groups", o->route.groups_used, o->route.n_groups);
        break;
    case OP_DELTA:
    case OP_SSM:
        buf_addf(b, "  %u heads of %u, %u of %u, state of %llu", o->delta.key_heads,
                 o->delta.key_dim, o->delta.value_heads, o->delta.value_dim,
                 (unsigned long long)o->state_floats);
        break;
    case OP_CONV:
        buf_addf(b, "  %u wide%s%s, state of %llu", o->conv.width,
                 o->conv.gated ? ", gated" : "", o->conv.silu ? ", silu" : "",
                 (unsigned long long)o->state_floats);
        break;
    case OP_EXPERTS_GATE_UP:
    case OP_GATE_UP: {
        static const char *const act[] = {"silu",     "gelu", "swiglu_oai",
                                          "gelu_erf", "tanh", "relu2"};
        buf_addf(b, "  %s", act[o->gate_up.act]);
        break;
    }
    case OP_LATENT_APPEND: buf_addf(b, "  eps %g", (double)o->rope.eps); /* fall through */
    case OP_ROPE_APPEND: {
        const rope_config *r = &p->rope[o->rope.table];
        if (!r->n_dims) {
            buf_addf(b, "  not rotated");
            break;
        }
        buf_addf(b, "  theta %g, %u dimensions, %s", (double)r->theta, r->n_dims,
                 r->pairing == ROPE_ADJACENT ? "adjacent pairs" : "halves");
        print_weight(b, p, ", divided by ", o->rope.factors);
        print_weight(b, p, ", or in long contexts by ", o->rope.long_factors);
        break;
    }
    case OP_ATTENTION: print_attention(b, o); break;
    default: break;
    }
}

void program_print(const program *p, void (*line)(void *, const char *), void *arg) {
    buf b;
    buf_init(&b, NULL);
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        b.len = 0;
        buf_addf(&b, "%4u ", i);
        if (o->layer >= 0)
            buf_addf(&b, "layer %-3d", o->layer);
        else
            buf_addf(&b, "%-9s", "");
        buf_addf(&b, " %-11s ", op_kind_name(o->kind));
        print_value(&b, p, o->in);
        buf_addf(&b, " -> ");
        print_value(&b, p, o->out);
        for (int k = 0; k < o->n_weights; k++) print_weight(&b, p, k ? " | " : "  ", o->w[k]);
        for (int k = 0; k < o->n_weights; k++)
            print_weight(&b, p, k ? " | " : "  + ", o->bias[k]);
        if (o->by != NO_VALUE) {
            buf_addf(&b, "  by ");
            print_value(&b, p, o->by);
        }
        if (o->residual != NO_VALUE) {
            buf_addf(&b, "  + ");
            print_value(&b, p, o->residual);
        }
        print_extra(&b, p, o);
        if (o->first_col) buf_addf(&b, "  from column %u", o->first_col);
        if (o->idle) buf_addf(&b, "  nothing of it");
        line(arg, buf_cstr(&b));
    }
    buf_clear(&b);
}
