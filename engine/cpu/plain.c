/* The operations in plain C: what each of them means, one element at a time, with no care for
 * speed. The other instruction sets are tested against these functions bit for bit, and
 * cpu_isa = plain runs them. Pure; any thread. */
#include "engine/cpu/ops.h"

#include "base/check.h"
#include "base/half.h"
#include "engine/cpu/linear.h"
#include "engine/cpu/ops_shared.h"

/* Sixteen lanes to one: i joins i + 8, then i + 4, i + 2, i + 1. */
static float lanes_sum(const float in[16]) {
    float x[16];
    memcpy(x, in, sizeof x);
    for (int w = 8; w; w /= 2)
        for (int i = 0; i < w; i++) x[i] = x[i] + x[i + w];
    return x[0];
}

static float lanes_max(const float in[16]) {
    float x[16];
    memcpy(x, in, sizeof x);
    for (int w = 8; w; w /= 2)
        for (int i = 0; i < w; i++) x[i] = x[i] > x[i + w] ? x[i] : x[i + w];
    return x[0];
}

static float plain_exp2_one(float x) {
    if (!(x >= -125.0f)) return 0.0f;
    float t = x < 127.0f ? x : 127.0f;
    float n = rintf(t), f = t - n;
    float p = fmaf(EXP2_C5, f, EXP2_C4);
    p = fmaf(p, f, EXP2_C3);
    p = fmaf(p, f, EXP2_C2);
    p = fmaf(p, f, EXP2_C1);
    p = fmaf(p, f, 1.0f);
    return float_of_bits(bits_of_float(p) + ((uint32_t)(int32_t)n << 23));
}

static void plain_exp2(const float *x, uint32_t n, float *out) {
    for (uint32_t i = 0; i < n; i++) out[i] = plain_exp2_one(x[i]);
}

static void plain_soft_cap(float *x, uint32_t n, float cap) {
    const float rate = SOFT_CAP_RATE / cap;
    for (uint32_t i = 0; i < n; i++) {
        const float t = plain_exp2_one(x[i] * rate);
        x[i] = (t - 1.0f) / (t + 1.0f) * cap;
    }
}

static void plain_norm(const float *x, const float *w, uint32_t n, float eps, float *out) {
    float lanes[16] = {0};
    for (uint32_t i = 0; i < n; i++) lanes[i % 16] = fmaf(x[i], x[i], lanes[i % 16]);
    float scale = norm_scale(lanes_sum(lanes), n, eps);
    for (uint32_t i = 0; i < n; i++) out[i] = w ? x[i] * scale * w[i] : x[i] * scale;
}

static void plain_layer_norm(const float *x, const float *w, const float *bias, uint32_t n,
                             float eps, float *out) {
    float lanes[16] = {0}, squares[16] = {0};
    for (uint32_t i = 0; i < n; i++) lanes[i % 16] = lanes[i % 16] + x[i];
    const float mean = lanes_sum(lanes) / (float)n;
    for (uint32_t i = 0; i < n; i++)
        squares[i % 16] = fmaf(x[i] - mean, x[i] - mean, squares[i % 16]);
    const float scale = norm_scale(lanes_sum(squares), n, eps);
    for (uint32_t i = 0; i < n; i++) out[i] = fmaf((x[i] - mean) * scale, w[i], bias[i]);
}

static void plain_rope(const float *x, const float *cos_sin, uint32_t head_dim, uint32_t n_dims,
                       rope_pairing pairing, float scale, float *out) {
    rope_rotate(x, cos_sin, head_dim, n_dims, pairing, scale, out);
}

static void plain_add_scaled(float w, const float *x, uint32_t n, float *sum) {
    for (uint32_t i = 0; i < n; i++) sum[i] = fmaf(w, x[i], sum[i]);
}

/* Comparisons such that NaN stays. */
static float plain_oai(float g, float u) {
    g = g > OAI_LIMIT ? OAI_LIMIT : g;
    u = u > OAI_LIMIT ? OAI_LIMIT : u < -OAI_LIMIT ? -OAI_LIMIT : u;
    return g / (1.0f + plain_exp2_one(g * OAI_EXP)) * (u + 1.0f);
}

static float plain_gelu_erf(float x) {
    const float z = x > 0.0f - x ? x : 0.0f - x, t = 1.0f / (1.0f + z * GELU_ERF_T);
    float p = gelu_erf_p[0];
    for (int i = 1; i < 9; i++) p = fmaf(p, t, gelu_erf_p[i]);
    const float q = plain_exp2_one(z * z * GELU_ERF_EXP) * p;
    return (x > 0.0f ? x : 0.0f) - z * q;
}

/* NaN stays. */
static float plain_tanh(float x) {
    float y = x;
    plain_soft_cap(&y, 1, 1.0f);
    return y + x * 0.0f;
}

static float plain_relu2(float x) {
    const float y = x < 0.0f ? 0.0f : x;
    return y * y;
}

static void plain_gate(activation act, const float *gate, const float *up, uint32_t n,
                       float *out) {
    for (uint32_t i = 0; i < n; i++) {
        float g = gate[i], u = g;
        if (act == ACT_SWIGLU_OAI) {
            out[i] = plain_oai(g, up[i]);
            continue;
        }
        if (act == ACT_GELU_TANH) u = g * GELU_2C * fmaf(g * g, GELU_K, 1.0f);
        const float y = act == ACT_GELU_ERF ? plain_gelu_erf(g)
                        : act == ACT_TANH   ? plain_tanh(g)
                        : act == ACT_RELU2  ? plain_relu2(g)
                                            : g / (1.0f + plain_exp2_one(u * -LOG2_E));
        out[i] = up ? y * up[i] : y;
    }
}

static float plain_dot(const float *x, const float *y, uint32_t n) {
    float lanes[16] = {0};
    for (uint32_t i = 0; i < n; i++) lanes[i % 16] = fmaf(x[i], y[i], lanes[i % 16]);
    return lanes_sum(lanes);
}

static void plain_rows_by(const float *x, uint32_t n_rows, const float *m, uint32_t n_in,
                          uint32_t n_out, float *out) {
    for (uint32_t j = 0; j < n_rows; j++, x += n_in, out += n_out) {
        memset(out, 0, n_out * sizeof *out);
        for (uint32_t i = 0; i < n_in; i++)
            plain_add_scaled(x[i], m + (size_t)i * n_out, n_out, out);
    }
}

static void plain_add_outer(float *m, float by, const float *x, const float *y, uint32_t n_rows,
                            uint32_t n_in, uint32_t n_out) {
    for (uint32_t i = 0; i < n_in; i++, m += n_out) {
        for (uint32_t c = 0; c < n_out; c++) m[c] = m[c] * by;
        for (uint32_t j = 0; j < n_rows; j++)
            plain_add_scaled(x[(size_t)j * n_in + i], y + (size_t)j * n_out, n_out, m);
    }
}

static void plain_taps(const float *const *x, const float *w, uint32_t n_rows, uint32_t n,
                       float *out) {
    taps_sum(x, w, n_rows, n, out);
}

static void plain_rest(const float *x, const int8_t *q, float d, float *rest) {
    quant_rest(x, q, d, rest);
}

/* ---- the KV cache ---- */

static void kv_put(dtype type, unsigned char *p, float f) {
    uint16_t h = type == DT_F16 ? half_of_float(f) : bf16_of_float(f);
    if (type == DT_F32)
        memcpy(p, &f, 4);
    else
        memcpy(p, &h, 2);
}

static float kv_get(dtype type, const unsigned char *p) {
    float f;
    uint16_t h;
    if (type == DT_F32) {
        memcpy(&f, p, 4);
        return f;
    }
    memcpy(&h, p, 2);
    return type == DT_F16 ? half_to_float(h) : bf16_to_float(h);
}

/* An element as it is multiplied. */
static float k_get(const kv_head *kv, uint32_t pos, uint32_t d) {
    const kv_place at = kv_k_code(kv->format, kv_token(kv, pos), d);
    const kv_type *t = &kv->format->k;
    const unsigned char *p = kv_part(kv, pos) + at.at;
    if (!t->word_bytes) return kv_get(t->type, p);
    return kv_code_value(t->type, (uint8_t)(t->bits == 4 ? *p >> at.shift & 15 : *p));
}
static kv_scale scale_at(const kv_head *kv, uint32_t pos, dtype t, uint32_t at) {
    uint16_t word;
    memcpy(&word, kv_part(kv, pos) + at, sizeof word);
    return kv_scale_of(t, word);
}
static kv_scale k_scale(const kv_head *kv, uint32_t pos, uint32_t segment) {
    const uint32_t at = kv_k_word_at(kv->format, segment, kv_token(kv, pos));
    return scale_at(kv, pos, kv->format->k.type, at);
}
static kv_scale v_scale(const kv_head *kv, uint32_t pos, uint32_t segment) {
    const uint32_t at = kv_v_word_at(kv->format, segment, kv_token(kv, pos));
    return scale_at(kv, pos, kv->format->v.type, at);
}

/* Where V is made of K. */
static float latent_get(const kv_head *kv, uint32_t pos, uint32_t d) {
    const kv_format *f = kv->format;
    if (d >= f->latent) return 0.0f;
    if (!f->k.word_bytes) return k_get(kv, pos, d);
    const kv_scale s = k_scale(kv, pos, d / f->k_segment);
    return (k_get(kv, pos, d) - s.z) * s.d;
}
static float v_get(const kv_head *kv, uint32_t pos, uint32_t d) {
    if (kv->format->latent) return latent_get(kv, pos, d);
    const kv_place at = kv_v_code(kv->format, kv_token(kv, pos), d);
    const kv_type *t = &kv->format->v;
    const unsigned char *p = kv_part(kv, pos) + at.at;
    if (!t->word_bytes) return kv_get(t->type, p);
    return kv_code_value(t->type, (uint8_t)(t->bits == 4 ? *p >> at.shift & 15 : *p));
}

static void plain_hadamard(float *x, uint32_t dims, uint32_t segment) {
    for (uint32_t at = 0; at < dims; at += segment) kv_hadamard(x + at, segment);
}

static void put_code(unsigned char *p, kv_place at, uint32_t bits, uint8_t code) {
    p += at.at;
    *p = bits == 4 ? (unsigned char)((*p & 0xf0 >> at.shift) | code << at.shift) : code;
}

/* n dimensions as a type without words has them; rotated in tmp[64], of up to so many. */
static const float *rotated_or_not(const kv_type *t, uint32_t n, const float *x, float *tmp) {
    if (!t->rotated) return x;
    memcpy(tmp, x, n * sizeof *x);
    kv_hadamard(tmp, n);
    return tmp;
}

static void append_k(const kv_head *kv, uint32_t pos, const float *k) {
    const kv_format *f = kv->format;
    const uint32_t token = kv_token(kv, pos), n = f->k_segment;
    unsigned char *part = kv_part(kv, pos);
    float x[64];
    uint8_t codes[64];
    for (uint32_t s = 0; s < f->head_dim && !f->k.word_bytes; s += n) {
        const float *y = rotated_or_not(&f->k, n, k + s, x);
        for (uint32_t d = 0; d < n; d++)
            kv_put(f->k.type, part + kv_k_code(f, token, s + d).at, y[d]);
    }
    if (!f->k.word_bytes) return;
    for (uint32_t s = 0; s < f->k_segments; s++) {
        memcpy(x, k + (size_t)s * n, n * sizeof *x);
        const uint16_t word = kv_encode(&f->k, x, n, codes);
        memcpy(part + kv_k_word_at(f, s, token), &word, sizeof word);
        for (uint32_t d = 0; d < n; d++)
            put_code(part, kv_k_code(f, token, s * n + d), f->k.bits, codes[d]);
    }
}

static void append_v(const kv_head *kv, uint32_t pos, const float *v) {
    const kv_format *f = kv->format;
    const uint32_t token = kv_token(kv, pos), n = f->v_segment;
    unsigned char *part = kv_part(kv, pos);
    float x[64];
    uint8_t codes[64];
    for (uint32_t s = 0; s < f->head_dim && !f->v.word_bytes; s += n) {
        const float *y = rotated_or_not(&f->v, n, v + s, x);
        for (uint32_t d = 0; d < n; d++)
            kv_put(f->v.type, part + kv_v_code(f, token, s + d).at, y[d]);
    }
    for (uint32_t d = f->head_dim; d < f->v_dims && !f->v.word_bytes; d++)
        kv_put(f->v.type, part + kv_v_code(f, token, d).at, 0.0f);
    if (!f->v.word_bytes) return;
    for (uint32_t s = 0; s < f->v_segments; s++) {
        memcpy(x, v + (size_t)s * n, n * sizeof *x);
        const uint16_t word = kv_encode(&f->v, x, n, codes);
        memcpy(part + kv_v_word_at(f, s, token), &word, sizeof word);
        for (uint32_t d = 0; d < n; d++)
            put_code(part, kv_v_code(f, token, s * n + d), f->v.bits, codes[d]);
    }
}

static void plain_kv_append(const kv_head *kv, uint32_t pos, const float *k, const float *v) {
    append_k(kv, pos, k);
    if (!kv->format->latent) append_v(kv, pos, v);
}

/* ---- attention ---- */

static void plain_attn_merge(float *max_a, float *sum_a, float *acc_a, float max_b, float sum_b,
                             const float *acc_b, uint32_t dim) {
    if (max_b == -INFINITY) return;
    if (*max_a == -INFINITY) {
        *max_a = max_b, *sum_a = sum_b;
        memcpy(acc_a, acc_b, sizeof(float) * dim);
        return;
    }
    float m = *max_a > max_b ? *max_a : max_b;
    float a = plain_exp2_one(*max_a - m), b = plain_exp2_one(max_b - m);
    *max_a = m;
    *sum_a = fmaf(sum_b, b, *sum_a * a);
    for (uint32_t d = 0; d < dim; d++) acc_a[d] = fmaf(acc_b[d], b, acc_a[d] * a);
}

static float plain_attn_sink(float max, float sink) {
    return plain_exp2_one(sink - max);
}

static void plain_attn_finish(float sum, const float *acc, uint32_t n, float *out) {
    const float inv = 1.0f / sum;
    for (uint32_t i = 0; i < n; i++) out[i] = acc[i] * inv;
}

/* Numbers in units of 16 bits. */
static void round_units(const float *x, uint32_t n, uint32_t most, int16_t *out) {
    const float units = attn_units(most);
    for (uint32_t i = 0; i < n; i++) out[i] = units > 0.0f ? (int16_t)rintf(x[i] * units) : 0;
}

/* A query for codes that are integers. */
static void round_query(const kv_format *f, const float *q, const attn_scratch *w) {
    for (uint32_t s = 0; s < f->k_segments; s++, q += f->k_segment) {
        int16_t *to = w->q16 + (size_t)s * f->k_segment;
        const uint32_t most = kv_extremes_of(q, f->k_segment).most;
        round_units(q, f->k_segment, most, to);
        w->q_unit[s] = attn_unit(most);
        w->q_sum[s] = 0;
        for (uint32_t d = 0; d < f->k_segment; d++) w->q_sum[s] += to[d];
    }
}

/* One chain over the dimensions; or one for each segment, times the scale, in another chain.
 * Of integers a segment has an exact sum, less the zero point. */
static float plain_score(const kv_head *kv, const float *q, uint32_t pos,
                         const attn_scratch *w) {
    const kv_format *f = kv->format;
    const uint32_t n = f->k.word_bytes ? f->k_segment : f->head_dim;
    float score = 0.0f;
    for (uint32_t s = 0; s < f->k_segments; s++) {
        const kv_scale scale = f->k.word_bytes ? k_scale(kv, pos, s) : (kv_scale){0};
        int32_t sum = 0;
        float chain = 0.0f;
        for (uint32_t d = s * n; d < s * n + n; d++) {
            const float k = k_get(kv, pos, d);
            if (f->k.integers)
                sum += w->q16[d] * (int32_t)k;
            else
                chain = fmaf(q[d], k, chain);
        }
        if (!f->k.word_bytes) return chain;
        float unit = w->q_unit[s];
        if (f->k.type == DT_INT4) {
            sum = 4 * sum - (int32_t)(4.0f * scale.z) * w->q_sum[s];
            unit = unit * 0.25f;
        }
        score = f->k.integers ? fmaf((float)sum, scale.d * unit, score)
                              : fmaf(chain, scale.d, score);
    }
    return score;
}

/* o += the weighted sum of V over tokens [first, n) of a tile: a chain over the tokens for each
 * dimension, where there are scales of weights times them. */
static void plain_values(const kv_head *kv, const float *p, uint32_t tile, uint32_t first,
                         uint32_t n, float *o) {
    const kv_format *f = kv->format;
    for (uint32_t s = 0; s < f->v_segments; s++) {
        const bool words = f->v.word_bytes;
        const uint32_t from = s * f->v_segment, to = words ? from + f->v_segment : f->v_dims;
        for (uint32_t d = from; d < to; d++)
            for (uint32_t j = first; j < n; j++) {
                const float w = words ? p[j] * v_scale(kv, tile + j, s).d : p[j];
                o[d] = fmaf(w, v_get(kv, tile + j, d), o[d]);
            }
    }
}

/* The same of integers: an exact sum for each dimension, times what a unit of the weights is
 * worth. */
static void plain_int_values(const kv_head *kv, const float *p, uint32_t tile, uint32_t first,
                             uint32_t n, float *o) {
    const kv_format *f = kv->format;
    const bool zero = f->v.type == DT_INT4;
    for (uint32_t s = 0; s < f->v_segments; s++) {
        const uint32_t from = s * f->v_segment, to = from + f->v_segment;
        float w[ATTN_TILE] = {0};
        int16_t units[ATTN_TILE];
        int32_t less = 0;
        for (uint32_t j = first; j < n; j++) w[j] = p[j] * v_scale(kv, tile + j, s).d;
        const uint32_t most = kv_extremes_of(w, ATTN_TILE).most;
        const float unit = zero ? attn_unit(most) * 0.25f : attn_unit(most);
        round_units(w, ATTN_TILE, most, units);
        if (unit == 0.0f) continue;
        for (uint32_t j = first; j < n && zero; j++)
            less += units[j] * (int32_t)(4.0f * v_scale(kv, tile + j, s).z);
        for (uint32_t d = from; d < to; d++) {
            int32_t sum = 0;
            for (uint32_t j = first; j < n; j++)
                sum += units[j] * (int32_t)v_get(kv, tile + j, d);
            o[d] = fmaf((float)(zero ? 4 * sum - less : sum), unit, o[d]);
        }
    }
}

/* Tokens [first, n) of a tile for one query, the first of w: FlashAttention's step (Dao et al.
 * 2022, algorithm 1) with base-2 exponentials. cap: attn_part's */
static void plain_tile(const kv_head *kv, const float *q, float cap, uint32_t tile,
                       uint32_t first, uint32_t n, const attn_scratch *w) {
    const kv_format *f = kv->format;
    float *s = w->s, *lanes = w->lanes, *o = w->o, best[16];
    for (uint32_t j = 0; j < ATTN_TILE; j++) {
        s[j] = -INFINITY;
        if (j < first || j >= n) continue;
        s[j] = plain_score(kv, q, tile + j, w);
        if (cap > 0.0f) plain_soft_cap(&s[j], 1, cap);
    }
    for (uint32_t i = 0; i < 16; i++) {
        float a = s[i] > s[i + 16] ? s[i] : s[i + 16];
        float b = s[i + 32] > s[i + 48] ? s[i + 32] : s[i + 48];
        best[i] = a > b ? a : b;
    }
    float m = lanes_max(best), old = *w->max, now = m > old ? m : old;
    float c = old == now ? 1.0f : plain_exp2_one(old - now);
    *w->max = now;
    for (uint32_t j = 0; j < ATTN_TILE; j++)
        s[j] = j >= first && j < n ? plain_exp2_one(s[j] - now) : 0.0f;
    for (uint32_t i = 0; i < 16; i++)
        lanes[i] = fmaf(lanes[i], c, (s[i] + s[i + 16]) + (s[i + 32] + s[i + 48]));
    for (uint32_t d = 0; d < f->v_dims && c != 1.0f; d++) o[d] = o[d] * c;
    if (f->v.integers)
        plain_int_values(kv, s, tile, first, n, o);
    else
        plain_values(kv, s, tile, first, n, o);
}

/* What query i sees of one cache in the split that begins at from. */
static void plain_split(const attn_pass *pass, uint32_t i, uint32_t from,
                        const attn_scratch *w) {
    const attn_part *part = &pass->part;
    const float *q = part->q + (size_t)i * pass->kv->format->head_dim;
    for (uint32_t tile = from; tile < from + ATTN_SPLIT; tile += ATTN_TILE) {
        uint32_t n = part_tile_count(part, tile, i), first = part_tile_first(part, tile, i);
        if (first < n) plain_tile(pass->kv, q, part->cap, tile, first, n, w);
    }
}

static void plain_attend(const kv_head *kv, const kv_head *tail, const attn_part *part) {
    const uint32_t nq = part->n_rows * part->group, dp = kv->format->v_dims;
    attn_scratch w = attn_scratch_of(part->scratch, attn_dim_pad(kv->format->head_dim));
    attn_pass pass[2];
    const uint32_t n_passes = attn_passes(kv, tail, part, pass);
    part_clear(part->max, part->sum, part->acc, nq, dp);
    for (uint32_t i = 0; i < nq; i++) {
        const float *q = part->q + (size_t)i * kv->format->head_dim;
        if (kv->format->k.integers) round_query(kv->format, q, &w);
        for (uint32_t from = part->from; from < part->to; from += ATTN_SPLIT) {
            part_clear(w.max, NULL, w.o, 1, dp);
            memset(w.lanes, 0, sizeof(float) * 16);
            for (uint32_t k = 0; k < n_passes; k++) plain_split(&pass[k], i, from, &w);
            plain_attn_merge(part->max + i, part->sum + i, part->acc + (size_t)i * dp, w.max[0],
                             lanes_sum(w.lanes), w.o, dp);
        }
    }
}

const op_kernels ops_plain = {
    .isa = ISA_PLAIN,
    .norm = plain_norm,
    .layer_norm = plain_layer_norm,
    .rope = plain_rope,
    .hadamard = plain_hadamard,
    .kv_append = plain_kv_append,
    .attend = plain_attend,
    .attn_merge = plain_attn_merge,
    .attn_sink = plain_attn_sink,
    .attn_finish = plain_attn_finish,
    .rest = plain_rest,
    .taps = plain_taps,
    .dot = plain_dot,
    .rows_by = plain_rows_by,
    .add_outer = plain_add_outer,
    .gate = plain_gate,
    .add_scaled = plain_add_scaled,
    .soft_cap = plain_soft_cap,
    .exp2 = plain_exp2,
};

size_t attn_scratch_bytes(uint32_t head_dim) {
    size_t dp = attn_dim_pad(head_dim);
    size_t floats = ATTN_MAX_QUERIES * ATTN_TILE + 32 + ATTN_MAX_QUERIES * 16 +
                    ATTN_MAX_QUERIES * (dp + ATTN_TILE) +
                    ATTN_MAX_QUERIES * (2 * attn_most_segments((uint32_t)dp) + dp / 2) +
                    (size_t)2 * ATTN_TILE * dp;
    return (size_t)align_up(floats * sizeof(float), 64);
}

const op_kernels *op_kernels_get(cpu_isa isa) {
    switch (isa) {
    case ISA_PLAIN: return &ops_plain;
    case ISA_AVX2:
    case ISA_AVXVNNI: return &ops_avx2;
    default: return &ops_avx512;
    }
}
