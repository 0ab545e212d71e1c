/* A forward pass in float64, written for tests alone: it reads the tensors of a file by name
 * and knows nothing of the recorded program, only of the config. Slow and plain. */
#ifndef VRAMD_TESTS_ENGINE_NAIVE_H
#define VRAMD_TESTS_ENGINE_NAIVE_H

#include <math.h>
#include <stdio.h>

#include "tests/engine/engine_rig.h"

enum { NAIVE_COLS = 2048 }; /* of any value */

typedef struct naive {
    const model *m;
    const model_config *c;
    uint32_t n;   /* tokens */
    bool far;     /* longrope: the factors of long contexts */
    bool gemma;   /* scaled embedding, GELU */
    double *x[6]; /* [n][NAIVE_COLS] each, rows as long as they are */
} naive;

static RIG_UNUSED const char *naive_name(const char *name, int layer, char full[96]) {
    if (layer < 0)
        snprintf(full, 96, "%s", name);
    else
        snprintf(full, 96, "blk.%d.%s", layer, name);
    return full;
}

static RIG_UNUSED bool naive_has(const naive *f, const char *name, int layer) {
    char full[96];
    return checkpoint_find(f->m->file, naive_name(name, layer, full), NULL) >= 0;
}

static RIG_UNUSED void naive_row(dtype type, uint32_t cols, const unsigned char *raw,
                                 float *row) {
    for (uint32_t k = 0; k < cols; k++) {
        uint16_t h;
        memcpy(&h, raw + 2 * k, 2);
        if (type == DT_F32)
            memcpy(&row[k], raw + 4 * k, 4);
        else
            row[k] = type == DT_F16 ? half_to_float(h) : bf16_to_float(h);
    }
}

/* A tensor of the file as doubles: [rows][cols]; NULL when it has none such. */
static RIG_UNUSED double *naive_weights(const naive *f, const char *name, int layer) {
    char full[96];
    err e;
    tensor_info t;
    const int32_t at = checkpoint_find(f->m->file, naive_name(name, layer, full), &t);
    if (at < 0) return NULL;
    const uint32_t cols = (uint32_t)t.ne[0], rows = (uint32_t)(t.ne[1] * t.ne[2]);
    uint64_t bytes;
    ck_assert(dtype_bytes(t.type, rows, cols, &bytes));
    double *out = malloc((size_t)rows * cols * sizeof *out);
    float *row = malloc(cols * sizeof *row);
    unsigned char *raw = malloc(bytes);
    ck_assert(out && row && raw);
    ck_assert(checkpoint_read_rows(f->m->file, (size_t)at, 0, rows, raw, &e) == OK);
    const bool blocks = dtype_get(t.type)->block_elems > 1;
    void *tiles = NULL;
    if (blocks) {
        tiles = aligned_alloc(64, align_up(packed_bytes(t.type, rows, cols), 64));
        ck_assert_ptr_nonnull(tiles);
        packed_store(tiles, t.type, rows, cols, 0, rows, raw);
    }
    packed p = {tiles, t.type, rows, cols, NULL};
    float scale;
    if (t.type == DT_NVFP4) {
        tensor_info beside;
        char of[96];
        snprintf(of, sizeof of, "%.*s.scale", (int)(strlen(full) - strlen(".weight")), full);
        const int32_t i = checkpoint_find(f->m->file, of, &beside);
        ck_assert(i >= 0 &&
                  checkpoint_read_rows(f->m->file, (size_t)i, 0, 1, &scale, &e) == OK);
        p.scale = &scale;
    }
    for (uint32_t r = 0; r < rows; r++) {
        if (blocks)
            packed_row(&p, r, row);
        else
            naive_row(t.type, cols, raw + bytes / rows * r, row);
        for (uint32_t k = 0; k < cols; k++) out[(size_t)r * cols + k] = row[k];
    }
    free(tiles);
    free(raw);
    free(row);
    return out;
}

/* y (+)= x W^T + b for all tokens. */
static RIG_UNUSED void naive_linear(const naive *f, const char *name, const char *bias,
                                    int layer, const double *x, uint32_t n_in, double *y,
                                    uint32_t n_out) {
    double *w = naive_weights(f, name, layer), *b = bias ? naive_weights(f, bias, layer) : NULL;
    ck_assert_msg(w, "%s", name);
    for (uint32_t t = 0; t < f->n; t++)
        for (uint32_t o = 0; o < n_out; o++) {
            double sum = b ? b[o] : 0;
            for (uint32_t k = 0; k < n_in; k++)
                sum += w[(size_t)o * n_in + k] * x[(size_t)t * n_in + k];
            y[(size_t)t * n_out + o] = sum;
        }
    free(w);
    free(b);
}

/* Of n vectors of n_cols, in or out of place. Nothing where the file has no such norm. */
static RIG_UNUSED void naive_norm(const naive *f, const char *name, int layer, const double *x,
                                  uint32_t n, uint32_t n_cols, double *out) {
    double *w = naive_weights(f, name, layer);
    for (uint32_t t = 0; t < n && w; t++) {
        double sum = 0;
        for (uint32_t i = 0; i < n_cols; i++) sum += x[t * n_cols + i] * x[t * n_cols + i];
        for (uint32_t i = 0; i < n_cols; i++)
            out[t * n_cols + i] =
                x[t * n_cols + i] / sqrt(sum / n_cols + f->c->norm_eps) * w[i];
    }
    free(w);
}

/* x += norm(y), or y where there is no such norm */
static RIG_UNUSED void naive_add(const naive *f, const char *name, int layer, double *y,
                                 double *x) {
    const uint32_t h = f->c->n_embd;
    naive_norm(f, name, layer, y, f->n, h, y);
    for (uint32_t i = 0; i < f->n * h; i++) x[i] += y[i];
}

static RIG_UNUSED uint32_t naive_window(const naive *f, int layer) {
    const uint32_t every = f->c->window_every;
    return every && layer % every == every - 1 ? 0 : f->c->window;
}

static RIG_UNUSED void naive_rope(const naive *f, int layer, double *x, uint32_t heads) {
    const rope_config *r = &f->c->rope;
    const bool local = naive_window(f, layer) && f->c->window_theta > 0;
    const uint32_t hd = f->c->head_dim, half = r->n_dims / 2;
    const double theta = local ? f->c->window_theta : r->theta;
    const char *name = f->far ? "rope_factors_long.weight" : "rope_factors_short.weight";
    if (r->scaling != ROPE_SCALING_LONGROPE) name = "rope_freqs.weight";
    double freqs[128], *factors = naive_weights(f, name, -1);
    const double scale = r->scaling == ROPE_SCALING_LONGROPE ? r->attn_factor : 1;
    for (uint32_t i = 0; i < half; i++) {
        freqs[i] = pow(theta, -2.0 * i / r->n_dims) / (factors ? factors[i] : 1);
        if (r->scaling == ROPE_SCALING_LINEAR && !local) freqs[i] /= r->factor;
    }
    free(factors);
    for (uint32_t t = 0; t < f->n; t++)
        for (uint32_t h = 0; h < heads; h++)
            for (uint32_t i = 0; i < half; i++) {
                double *p = x + ((size_t)t * heads + h) * hd;
                double *a = r->pairing == ROPE_ADJACENT ? p + 2 * i : p + i;
                double *b = r->pairing == ROPE_ADJACENT ? a + 1 : p + i + half;
                double c = scale * cos(t * freqs[i]), s = scale * sin(t * freqs[i]), x0 = *a;
                *a = x0 * c - *b * s;
                *b = x0 * s + *b * c;
            }
}

static RIG_UNUSED void naive_heads(const naive *f, int layer, const double *q, const double *k,
                                   const double *v, double *out) {
    const model_config *c = f->c;
    const uint32_t hd = c->head_dim, group = c->n_heads / c->n_kv_heads;
    const uint32_t window = naive_window(f, layer);
    const double scale = c->attn_scale > 0 ? c->attn_scale : 1 / sqrt(hd);
    double w[256];
    for (uint32_t t = 0; t < f->n; t++)
        for (uint32_t h = 0; h < c->n_heads; h++) {
            const uint32_t from = window && t >= window ? t + 1 - window : 0;
            double sum = 0;
            for (uint32_t j = from; j <= t; j++) {
                w[j] = 0;
                for (uint32_t d = 0; d < hd; d++)
                    w[j] += q[((size_t)t * c->n_heads + h) * hd + d] *
                            k[((size_t)j * c->n_kv_heads + h / group) * hd + d];
                sum += w[j] = exp(w[j] * scale);
            }
            for (uint32_t d = 0; d < hd; d++) {
                double *o = &out[((size_t)t * c->n_heads + h) * hd + d];
                *o = 0;
                for (uint32_t j = from; j <= t; j++)
                    *o += w[j] / sum * v[((size_t)j * c->n_kv_heads + h / group) * hd + d];
            }
        }
}

/* Columns [from, from + n_out) of each row of n_in, side by side in out. */
static RIG_UNUSED void naive_columns(const naive *f, const double *x, uint32_t n_in,
                                     uint32_t from, uint32_t n_out, double *out) {
    for (uint32_t t = 0; t < f->n; t++)
        memcpy(out + (size_t)t * n_out, x + (size_t)t * n_in + from, n_out * sizeof *out);
}

/* f->x[1] -> f->x[1] */
static RIG_UNUSED void naive_attention(const naive *f, int l) {
    const model_config *c = f->c;
    const uint32_t h = c->n_embd, n_q = c->n_heads * c->head_dim;
    const uint32_t n_kv = c->n_kv_heads * c->head_dim, all = n_q + 2 * n_kv;
    double *a = f->x[1], *q = f->x[2], *k = f->x[3], *v = f->x[4];
    if (naive_has(f, "attn_qkv.weight", l)) {
        naive_linear(f, "attn_qkv.weight", NULL, l, a, h, f->x[5], all);
        naive_columns(f, f->x[5], all, 0, n_q, q);
        naive_columns(f, f->x[5], all, n_q, n_kv, k);
        naive_columns(f, f->x[5], all, n_q + n_kv, n_kv, v);
    } else {
        naive_linear(f, "attn_q.weight", "attn_q.bias", l, a, h, q, n_q);
        naive_linear(f, "attn_k.weight", "attn_k.bias", l, a, h, k, n_kv);
        naive_linear(f, "attn_v.weight", "attn_v.bias", l, a, h, v, n_kv);
    }
    naive_norm(f, "attn_q_norm.weight", l, q, f->n * c->n_heads, c->head_dim, q);
    naive_norm(f, "attn_k_norm.weight", l, k, f->n * c->n_kv_heads, c->head_dim, k);
    naive_rope(f, l, q, c->n_heads);
    naive_rope(f, l, k, c->n_kv_heads);
    naive_heads(f, l, q, k, v, f->x[5]);
    naive_linear(f, "attn_output.weight", "attn_output.bias", l, f->x[5], n_q, a, h);
}

static RIG_UNUSED double naive_act(const naive *f, double g, double up) {
    const double u = sqrt(2 / acos(-1)) * (g + 0.044715 * g * g * g);
    return (f->gemma ? 0.5 * g * (1 + tanh(u)) : g / (1 + exp(-g))) * up;
}

/* Weights of the experts of a row by its logits, 0 where one is not chosen. */
static RIG_UNUSED void naive_route(const naive *f, const double *logits, double *w) {
    const model_config *c = f->c;
    double all = 0, chosen = 0;
    for (uint32_t i = 0; i < c->n_experts; i++) all += exp(logits[i]);
    for (uint32_t i = 0; i < c->n_experts; i++) {
        uint32_t before = 0; /* how many are chosen before it */
        for (uint32_t k = 0; k < c->n_experts; k++)
            before += logits[k] > logits[i] || (logits[k] == logits[i] && k < i);
        w[i] = c->experts_sigmoid ? 1 / (1 + exp(-logits[i])) : exp(logits[i]) / all;
        if (before >= c->n_experts_used) w[i] = 0;
        chosen += w[i];
    }
    for (uint32_t i = 0; i < c->n_experts; i++)
        w[i] *= c->experts_scale / (c->experts_norm ? chosen : 1);
}

/* y += by * expert number i of x; w: its gate, up and down of all experts */
static RIG_UNUSED void naive_expert(const naive *f, double *const w[3], uint32_t i, uint32_t n,
                                    const double *x, double by, double *y) {
    const uint32_t h = f->c->n_embd;
    double mid[NAIVE_COLS];
    for (uint32_t o = 0; o < n; o++) {
        double g = 0, u = 0;
        const size_t at = ((size_t)i * n + o) * h;
        for (uint32_t k = 0; k < h; k++) g += w[0][at + k] * x[k], u += w[1][at + k] * x[k];
        mid[o] = naive_act(f, g, u);
    }
    for (uint32_t o = 0; o < h; o++)
        for (uint32_t k = 0; k < n; k++)
            y[o] += by * w[2][((size_t)i * h + o) * n + k] * mid[k];
}

/* f->x[1] -> f->x[1] */
static RIG_UNUSED void naive_experts(const naive *f, int l) {
    static const char *const names[] = {"ffn_gate_exps.weight", "ffn_up_exps.weight",
                                        "ffn_down_exps.weight", "ffn_gate_shexp.weight",
                                        "ffn_up_shexp.weight",  "ffn_down_shexp.weight",
                                        "ffn_gate_inp.weight",  "ffn_gate_inp_shexp.weight"};
    const uint32_t h = f->c->n_embd, n = f->c->n_experts;
    double *w[8], *out = f->x[2], route[64], logits[64];
    for (int i = 0; i < 8; i++) w[i] = naive_weights(f, names[i], l);
    memset(out, 0, sizeof *out * f->n * h);
    for (uint32_t t = 0; t < f->n; t++) {
        const double *x = f->x[1] + (size_t)t * h;
        double gate = 0;
        for (uint32_t i = 0; i < n; i++) {
            logits[i] = 0;
            for (uint32_t k = 0; k < h; k++) logits[i] += w[6][(size_t)i * h + k] * x[k];
        }
        naive_route(f, logits, route);
        for (uint32_t i = 0; i < n; i++)
            if (route[i] != 0)
                naive_expert(f, w, i, f->c->n_ff, x, route[i], out + (size_t)t * h);
        for (uint32_t k = 0; k < h && w[7]; k++) gate += w[7][k] * x[k];
        if (w[7])
            naive_expert(f, w + 3, 0, f->c->n_ff_shared, x, 1 / (1 + exp(-gate)),
                         out + (size_t)t * h);
    }
    memcpy(f->x[1], out, sizeof *out * f->n * h);
    for (int i = 0; i < 8; i++) free(w[i]);
}

/* f->x[1] -> f->x[1] */
static RIG_UNUSED void naive_feed_forward(const naive *f, int l) {
    const uint32_t h = f->c->n_embd, n = f->c->n_ff;
    double *a = f->x[1], *gate = f->x[2], *up = f->x[3];
    if (naive_has(f, "ffn_gate.weight", l)) {
        naive_linear(f, "ffn_gate.weight", NULL, l, a, h, gate, n);
        naive_linear(f, "ffn_up.weight", NULL, l, a, h, up, n);
    } else {
        naive_linear(f, "ffn_up.weight", NULL, l, a, h, f->x[5], 2 * n);
        naive_columns(f, f->x[5], 2 * n, 0, n, gate);
        naive_columns(f, f->x[5], 2 * n, n, n, up);
    }
    for (uint32_t i = 0; i < f->n * n; i++) gate[i] = naive_act(f, gate[i], up[i]);
    naive_linear(f, "ffn_down.weight", NULL, l, gate, n, a, h);
}

/* Logits of every position: [n][n_vocab]; to be freed. layers: the config of each layer, where
 * they differ; else NULL. */
static RIG_UNUSED double *naive_forward_of(const model *m, const model_config *layers,
                                           uint32_t max_model_len, const int32_t *tokens,
                                           uint32_t n) {
    const model_config *c = layers ? layers : &m->program.config;
    const uint32_t h = c->n_embd;
    naive f = {.m = m, .c = c, .n = n, .far = max_model_len > c->rope.original_len};
    f.gemma = strcmp(c->arch, "gemma3") == 0;
    for (int i = 0; i < 6; i++)
        ck_assert_ptr_nonnull(f.x[i] = malloc(sizeof(double) * n * NAIVE_COLS));
    double *x = f.x[0], *a = f.x[1], *embd = naive_weights(&f, "token_embd.weight", -1);
    ck_assert(n <= 256 && (c->n_heads + 2 * c->n_kv_heads) * c->head_dim <= NAIVE_COLS &&
              2 * c->n_ff <= NAIVE_COLS);
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t i = 0; i < h; i++)
            x[t * h + i] = embd[(size_t)tokens[t] * h + i] * (f.gemma ? sqrt(h) : 1);
    free(embd);
    for (int l = 0; l < (int)c->n_layers; l++) {
        f.c = layers ? &layers[l] : c;
        naive_norm(&f, "attn_norm.weight", l, x, n, h, a);
        naive_attention(&f, l);
        naive_add(&f, "post_attention_norm.weight", l, a, x);
        naive_norm(&f, "ffn_norm.weight", l, x, n, h, a);
        if (f.c->n_experts)
            naive_experts(&f, l);
        else
            naive_feed_forward(&f, l);
        naive_add(&f, "post_ffw_norm.weight", l, a, x);
    }
    naive_norm(&f, "output_norm.weight", -1, x, n, h, a);
    double *out = malloc(sizeof(double) * n * c->n_vocab);
    ck_assert_ptr_nonnull(out);
    naive_linear(&f, c->tied_head ? "token_embd.weight" : "output.weight", NULL, -1, a, h, out,
                 c->n_vocab);
    for (int i = 0; i < 6; i++) free(f.x[i]);
    return out;
}

static RIG_UNUSED double *naive_forward(const model *m, uint32_t max_model_len,
                                        const int32_t *tokens, uint32_t n) {
    return naive_forward_of(m, NULL, max_model_len, tokens, n);
}

#endif
