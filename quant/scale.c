/* Scales of inputs and the operations that they fold into. */
#include "quant/scale.h"

#include <math.h>
#include <string.h>

#include "base/check.h"

/* The operation that makes a value; those that rewrite their input do not. */
static const op *maker_of(const program *p, value_id v) {
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (p->ops[i].out == v && p->ops[i].in != v) return &p->ops[i];
    return NULL;
}

static uint32_t readers_of(const program *p, value_id v) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const op *o = &p->ops[i];
        n += (o->in == v) + (o->residual == v) + (o->by == v);
    }
    return n;
}

static const weight *weight_of(const program *p, weight_id w) {
    return w == NO_WEIGHT ? NULL : &p->weights[w];
}

/* v's rows in what makes q | k | v, in one tensor or three. */
static bool fold_values(const program *p, const op *attention, scale_fold *f) {
    const op *qkv = maker_of(p, attention->in);
    const head_shape *h = &attention->heads;
    if (!qkv || qkv->kind != OP_LINEAR) return false;
    const uint32_t last = qkv->n_weights - 1U;
    f->divided = weight_of(p, qkv->w[last]);
    f->bias = weight_of(p, qkv->bias[last]);
    f->n_rows = h->n_kv_heads * h->head_dim;
    f->first_row = f->divided->first_row + f->divided->rows - f->n_rows;
    f->head_dim = h->head_dim;
    f->shared = heads_group(h);
    return true;
}

bool scale_fold_of(const program *p, uint32_t at, scale_fold *f) {
    const op *o = &p->ops[at], *maker = maker_of(p, o->in);
    if (!maker || readers_of(p, o->in) != 1) return false;
    const uint32_t n = p->values[o->in].cols;
    *f = (scale_fold){.n = n, .n_rows = n, .head_dim = n, .shared = 1};
    switch (maker->kind) {
    case OP_NORM:
        if (maker->residual != NO_VALUE) return false;
        f->divided = weight_of(p, maker->w[0]);
        return f->divided != NULL;
    case OP_GATE_UP:
        f->divided = weight_of(p, maker->w[1]);
        f->bias = weight_of(p, maker->bias[1]);
        f->first_row = f->divided->first_row;
        return true;
    case OP_ATTENTION: return fold_values(p, maker, f);
    default: return false;
    }
}

uint32_t scale_row(const scale_fold *f, uint32_t i) {
    return i / (f->head_dim * f->shared) * f->head_dim + i % f->head_dim;
}

/* The mean, or the largest, of the inputs that one row makes. */
static void tie(const scale_fold *f, bool mean, float *s) {
    if (f->shared == 1) return;
    const uint32_t part = f->head_dim * f->shared;
    for (uint32_t i = 0; i < f->n; i++) {
        if (i % part >= f->head_dim) continue;
        float all = 0;
        for (uint32_t k = 0; k < f->shared; k++) {
            const float v = s[i + k * f->head_dim];
            all = mean ? all + v / (float)f->shared : fmaxf(all, v);
        }
        for (uint32_t k = 0; k < f->shared; k++) s[i + k * f->head_dim] = all;
    }
}

/* The geometric middle becomes 1, so that numbers stay of a size. */
static void centre(uint32_t n, float *s) {
    float low = INFINITY, high = 0;
    for (uint32_t i = 0; i < n; i++) {
        low = fminf(low, s[i]);
        high = fmaxf(high, s[i]);
    }
    const float by = 1 / (sqrtf(low) * sqrtf(high));
    for (uint32_t i = 0; i < n; i++) s[i] *= by;
}

void scale_awq(const calib_input *in, const scale_fold *f, double power, float *s) {
    const double rows = in->n_rows ? (double)in->n_rows : 1;
    for (uint32_t i = 0; i < f->n; i++)
        s[i] = (float)pow(fmax(in->sum_abs[i] / rows, 1e-4), power);
    tie(f, true, s);
    centre(f->n, s);
}

void scale_smooth(const calib_input *in, const scale_fold *f, const float *w_max, float *s) {
    for (uint32_t i = 0; i < f->n; i++)
        s[i] = sqrtf(fmaxf(in->max_abs[i], 1e-5F) / fmaxf(w_max[i], 1e-5F));
    tie(f, false, s);
    centre(f->n, s);
}
