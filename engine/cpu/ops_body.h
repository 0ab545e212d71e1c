/* The operations over sixteen virtual lanes, compiled once per instruction set: ops_avx2.c and
 * ops_avx512.c give v16, ATTN_QT and ATTN_WIDE (the register tile of attention: queries x
 * vectors), OPS_ISA and OPS_TABLE. Each function equals its twin in plain.c bit for bit. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "engine/cpu/ops_shared.h"

V_INLINE float v_sum(v16 x) {
    __m256 h = _mm256_add_ps(v_low(x), v_high(x));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}

V_INLINE float v_largest(v16 x) {
    __m256 h = _mm256_max_ps(v_low(x), v_high(x));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}

V_INLINE v16 v_exp2(v16 x) {
    const v16 lo = v_set1(-125.0f);
    v16 t = v_min(v_max(x, lo), v_set1(127.0f));
    v16 n = v_round(t), f = v_sub(t, n);
    v16 p = v_fma(v_set1(EXP2_C5), f, v_set1(EXP2_C4));
    p = v_fma(p, f, v_set1(EXP2_C3));
    p = v_fma(p, f, v_set1(EXP2_C2));
    p = v_fma(p, f, v_set1(EXP2_C1));
    p = v_fma(p, f, v_set1(1.0f));
    return v_zero_below(v_scale2(p, n), x, lo);
}

V_INLINE float exp2_one(float x) {
    float out[16];
    v_store(out, v_exp2(v_set1(x)));
    return out[0];
}

static void ops_exp2(const float *x, uint32_t n, float *out) {
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) v_store(out + i, v_exp2(v_load(x + i)));
    if (i < n) v_store_n(out + i, v_exp2(v_load_n(x + i, n - i)), n - i);
}

static void ops_norm(const float *x, const float *w, uint32_t n, float eps, float *out) {
    v16 sum = v_set1(0.0f);
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) sum = v_fma(v_load(x + i), v_load(x + i), sum);
    if (i < n) sum = v_fma(v_load_n(x + i, n - i), v_load_n(x + i, n - i), sum);
    v16 scale = v_set1(norm_scale(v_sum(sum), n, eps));
    if (!w) {
        for (i = 0; i + 16 <= n; i += 16) v_store(out + i, v_mul(v_load(x + i), scale));
        if (i < n) v_store_n(out + i, v_mul(v_load_n(x + i, n - i), scale), n - i);
        return;
    }
    for (i = 0; i + 16 <= n; i += 16)
        v_store(out + i, v_mul(v_mul(v_load(x + i), scale), v_load(w + i)));
    if (i < n) {
        v16 y = v_mul(v_mul(v_load_n(x + i, n - i), scale), v_load_n(w + i, n - i));
        v_store_n(out + i, y, n - i);
    }
}

static void ops_layer_norm(const float *x, const float *w, const float *bias, uint32_t n,
                           float eps, float *out) {
    v16 sum = v_set1(0.0f), squares = sum;
    const uint32_t whole = n / 16 * 16, left = n % 16;
    for (uint32_t i = 0; i < whole; i += 16) sum = v_add(sum, v_load(x + i));
    if (left) sum = v_add(sum, v_load_n(x + whole, left));
    const v16 mean = v_set1(v_sum(sum) / (float)n);
    for (uint32_t i = 0; i < whole; i += 16) {
        const v16 d = v_sub(v_load(x + i), mean);
        squares = v_fma(d, d, squares);
    }
    if (left) {
        const v16 d = v_first(v_sub(v_load_n(x + whole, left), mean), left, v_set1(0.0f));
        squares = v_fma(d, d, squares);
    }
    const v16 scale = v_set1(norm_scale(v_sum(squares), n, eps));
    for (uint32_t i = 0; i < whole; i += 16) {
        const v16 y = v_mul(v_sub(v_load(x + i), mean), scale);
        v_store(out + i, v_fma(y, v_load(w + i), v_load(bias + i)));
    }
    if (left) {
        const v16 y = v_mul(v_sub(v_load_n(x + whole, left), mean), scale);
        const v16 b = v_load_n(bias + whole, left);
        v_store_n(out + whole, v_fma(y, v_load_n(w + whole, left), b), left);
    }
}

/* cap * tanh(x / cap). rate: SOFT_CAP_RATE / cap */
V_INLINE v16 v_soft_cap(v16 x, float cap, float rate) {
    const v16 t = v_exp2(v_mul(x, v_set1(rate))), one = v_set1(1.0f);
    return v_mul(v_div(v_sub(t, one), v_add(t, one)), v_set1(cap));
}

static void ops_soft_cap(float *x, uint32_t n, float cap) {
    const float rate = SOFT_CAP_RATE / cap;
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) v_store(x + i, v_soft_cap(v_load(x + i), cap, rate));
    if (i < n) v_store_n(x + i, v_soft_cap(v_load_n(x + i, n - i), cap, rate), n - i);
}

V_INLINE v16 v_gelu_erf(v16 x) {
    const v16 zero = v_set1(0.0f), one = v_set1(1.0f);
    const v16 z = v_max(x, v_sub(zero, x));
    const v16 t = v_div(one, v_add(one, v_mul(z, v_set1(GELU_ERF_T))));
    v16 p = v_set1(gelu_erf_p[0]);
    for (int i = 1; i < 9; i++) p = v_fma(p, t, v_set1(gelu_erf_p[i]));
    const v16 q = v_mul(v_exp2(v_mul(v_mul(z, z), v_set1(GELU_ERF_EXP))), p);
    return v_sub(v_max(x, zero), v_mul(z, q));
}

/* g / (1 + 2^(-g log2 e)), and for GELU (tanh form) the same with 2u for the exponent */
V_INLINE v16 v_act(activation act, v16 g) {
    v16 u = g;
    if (act == ACT_GELU_ERF) return v_gelu_erf(g);
    if (act == ACT_TANH) /* NaN stays */
        return v_add(v_soft_cap(g, 1.0f, SOFT_CAP_RATE), v_mul(g, v_set1(0.0f)));
    if (act == ACT_RELU2) {
        const v16 y = v_max(v_set1(0.0f), g); /* NaN stays */
        return v_mul(y, y);
    }
    if (act == ACT_GELU_TANH) {
        v16 g2 = v_mul(g, g);
        u = v_mul(v_mul(g, v_set1(GELU_2C)), v_fma(g2, v_set1(GELU_K), v_set1(1.0f)));
    }
    v16 e = v_exp2(v_mul(u, v_set1(-LOG2_E)));
    return v_div(g, v_add(v_set1(1.0f), e));
}

/* The operand that comes second is what min and max give where one is NaN. */
V_INLINE v16 v_oai(v16 g, v16 u) {
    const v16 limit = v_set1(OAI_LIMIT), one = v_set1(1.0f);
    g = v_min(limit, g);
    u = v_max(v_set1(-OAI_LIMIT), v_min(limit, u));
    v16 e = v_exp2(v_mul(g, v_set1(OAI_EXP)));
    return v_mul(v_div(g, v_add(one, e)), v_add(u, one));
}

V_INLINE v16 v_gated(activation act, v16 g, v16 u) {
    return act == ACT_SWIGLU_OAI ? v_oai(g, u) : v_mul(v_act(act, g), u);
}

static void ops_activate(activation act, const float *x, uint32_t n, float *out) {
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) v_store(out + i, v_act(act, v_load(x + i)));
    if (i < n) v_store_n(out + i, v_act(act, v_load_n(x + i, n - i)), n - i);
}

static void ops_gate(activation act, const float *gate, const float *up, uint32_t n,
                     float *out) {
    uint32_t i = 0;
    if (!up) {
        ops_activate(act, gate, n, out);
        return;
    }
    for (; i + 16 <= n; i += 16)
        v_store(out + i, v_gated(act, v_load(gate + i), v_load(up + i)));
    if (i < n) {
        v16 y = v_gated(act, v_load_n(gate + i, n - i), v_load_n(up + i, n - i));
        v_store_n(out + i, y, n - i);
    }
}

static void ops_add_scaled(float w, const float *x, uint32_t n, float *sum) {
    const v16 by = v_set1(w);
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) v_store(sum + i, v_fma(by, v_load(x + i), v_load(sum + i)));
    if (i < n)
        v_store_n(sum + i, v_fma(by, v_load_n(x + i, n - i), v_load_n(sum + i, n - i)), n - i);
}

static void ops_rope(const float *x, const float *cos_sin, uint32_t head_dim, uint32_t n_dims,
                     rope_pairing pairing, float scale, float *out) {
    rope_rotate(x, cos_sin, head_dim, n_dims, pairing, scale, out);
}

#include "engine/cpu/state_body.h"

static void ops_rest(const float *x, const int8_t *q, float d, float *rest) {
    quant_rest(x, q, d, rest);
}

#include "engine/cpu/kv_body.h"

/* ---- attention ---- */

/* Scores: of queries against the tokens of a tile. */
typedef struct score_sum {
    const tile_ptrs *tile;
    const float *q;      /* [queries][head_dim] */
    const int16_t *q16;  /* of types of integers, as q_unit and q_sum: see attn_scratch */
    const float *q_unit; /* [queries][n_segments] */
    const int32_t *q_sum;
    float *s; /* [queries][ATTN_TILE] */
    uint32_t head_dim;
    uint32_t segment, n_segments, block_tokens; /* of types with words */
} score_sum;

/* The words of a group's K in a segment; those of the tile behind, of V too, are prefetched. */
V_INLINE const uint16_t *attn_k_words(const score_sum *s, uint32_t g, uint32_t segment) {
    const size_t at = (size_t)segment * s->block_tokens;
    _mm_prefetch(s->tile->words_next[g] + at * 2, _MM_HINT_T0);
    return s->tile->k_words[g] + at;
}

/* acc += q K over dimensions [from, to), both even: one fma chain each. The groups of the tile
 * behind are prefetched meanwhile. */
V_INLINE void attn_chain(const score_sum *s, uint32_t g0, uint32_t from, uint32_t to,
                         v16 acc[ATTN_QT][ATTN_WIDE], dtype type, const int NQ, const int NG) {
    const tile_ptrs *t = s->tile;
    const float *q = s->q;
    const uint32_t hd = s->head_dim;
    const uint32_t line = 4 * 8 / kv_bits(type); /* dimensions of a line of 64 bytes */
    for (uint32_t d = from; d < to; d++) {
        v16 k[ATTN_WIDE];
        for (int g = 0; g < NG; g++) {
            k[g] = kv_load_k(type, t->k[g0 + g], d);
            if (d % line == 0)
                _mm_prefetch((const char *)t->k_next[g0 + g] + (size_t)d * 2 * kv_bits(type),
                             _MM_HINT_T0);
        }
        for (int i = 0; i < NQ; i++) {
            v16 b = v_set1(q[(size_t)i * hd + d]);
            for (int g = 0; g < NG; g++) acc[i][g] = v_fma(b, k[g], acc[i][g]);
        }
    }
}

/* Of NQ queries against NG groups of 16 tokens: one chain; or one for each segment, times the
 * tokens' scales, in another chain. */
V_INLINE void attn_scores(const score_sum *s, uint32_t g0, dtype type, const int NQ,
                          const int NG) {
    v16 acc[ATTN_QT][ATTN_WIDE];
    float *out = s->s + g0 * 16;
    const uint32_t n = kv_has_words(type) ? s->n_segments : 1;
    const uint32_t dims = kv_has_words(type) ? s->segment : s->head_dim;
    for (uint32_t k = 0; k < n; k++) {
        for (int i = 0; i < NQ; i++)
            for (int g = 0; g < NG; g++) acc[i][g] = v_set1(0.0f);
        attn_chain(s, g0, k * dims, (k + 1) * dims, acc, type, NQ, NG);
        for (int g = 0; g < NG && kv_has_words(type); g++) {
            const v16 d = kv_load_d(type, attn_k_words(s, g0 + g, k));
            for (int i = 0; i < NQ; i++) {
                v16 sum = k ? v_load(out + i * ATTN_TILE + g * 16) : v_set1(0.0f);
                acc[i][g] = v_fma(acc[i][g], d, sum);
            }
        }
        for (int i = 0; i < NQ; i++)
            for (int g = 0; g < NG; g++) v_store(out + i * ATTN_TILE + g * 16, acc[i][g]);
    }
}

#include "engine/cpu/attn_int.h"
#include "engine/cpu/attn_latent.h"

/* Of groups [g, n_groups). */
V_INLINE void attn_scores_n(const score_sum *s, uint32_t g, uint32_t n_groups, dtype type,
                            const int NQ) {
    for (; g + ATTN_WIDE <= n_groups; g += ATTN_WIDE) attn_scores(s, g, type, NQ, ATTN_WIDE);
#if ATTN_WIDE > 2
    for (; g + 2 <= n_groups; g += 2) attn_scores(s, g, type, NQ, 2);
#endif
    for (; g < n_groups; g++) attn_scores(s, g, type, NQ, 1);
}

/* A sum of values: o += p V over tokens [from, to) of a tile and dimensions [d_from, d_to). */
typedef struct value_sum {
    const tile_ptrs *tile;
    uint32_t from, to;
    const float *p;              /* weights, [queries][ATTN_TILE] */
    float *o;                    /* [queries][dims] */
    uint32_t dims, d_from, d_to; /* multiples of 16 */
} value_sum;

/* Of NQ queries and ND vectors of dimensions from d on: one fma chain over the tokens each. */
V_INLINE void attn_values(const value_sum *s, uint32_t d, dtype type, const int NQ,
                          const int ND) {
    const tile_ptrs *t = s->tile;
    const uint32_t dims = s->dims, bits = kv_bits(type);
    const float *p = s->p;
    float *o = s->o + d;
    v16 acc[ATTN_QT][ATTN_WIDE];
    for (int i = 0; i < NQ; i++)
        for (int n = 0; n < ND; n++) acc[i][n] = v_load(o + (size_t)i * dims + n * 16);
    for (uint32_t j = s->from; j < s->to; j++) {
        size_t at = (size_t)(j % ATTN_LANES) * dims + d;
        const char *next = (const char *)t->v_next[j / ATTN_LANES] + at * bits / 8;
        v16 v[ATTN_WIDE];
        for (int n = 0; n < ND; n++) {
            v[n] = kv_load_v(type, t->v[j / ATTN_LANES], at + (size_t)n * 16);
            if (n * 16 * bits % 512 == 0) _mm_prefetch(next + n * 16 * bits / 8, _MM_HINT_T0);
        }
        for (int i = 0; i < NQ; i++) {
            v16 b = v_set1(p[i * ATTN_TILE + j]);
            for (int n = 0; n < ND; n++) acc[i][n] = v_fma(b, v[n], acc[i][n]);
        }
    }
    for (int i = 0; i < NQ; i++)
        for (int n = 0; n < ND; n++) v_store(o + (size_t)i * dims + n * 16, acc[i][n]);
}

V_INLINE void attn_values_n(const value_sum *s, dtype type, const int NQ) {
    if (s->from >= s->to) return;
    uint32_t d = s->d_from;
    for (; d + ATTN_WIDE * 16 <= s->d_to; d += ATTN_WIDE * 16)
        attn_values(s, d, type, NQ, ATTN_WIDE);
    for (; d < s->d_to; d += 16) attn_values(s, d, type, NQ, 1);
}

/* Calls f(..., NQ) with the number of queries as a constant. */
#if ATTN_QT == 6
#define ATTN_BY_QUERIES(nq, f, ...)                                                            \
    switch (nq) {                                                                              \
    case 1: f(__VA_ARGS__, 1); break;                                                          \
    case 2: f(__VA_ARGS__, 2); break;                                                          \
    case 3: f(__VA_ARGS__, 3); break;                                                          \
    case 4: f(__VA_ARGS__, 4); break;                                                          \
    case 5: f(__VA_ARGS__, 5); break;                                                          \
    default: f(__VA_ARGS__, 6); break;                                                         \
    }
#else
#define ATTN_BY_QUERIES(nq, f, ...)                                                            \
    switch (nq) {                                                                              \
    case 1: f(__VA_ARGS__, 1); break;                                                          \
    case 2: f(__VA_ARGS__, 2); break;                                                          \
    default: f(__VA_ARGS__, 3); break;                                                         \
    }
#endif

/* Both for nq queries and a type of the cache, which become constants. K and V have types of
 * their own. */
static void attn_scores_of(dtype type, uint32_t nq, const score_sum *s, uint32_t g,
                           uint32_t n_groups) {
    switch (type) {
    case DT_F16: ATTN_BY_QUERIES(nq, attn_scores_n, s, g, n_groups, DT_F16) break;
    case DT_BF16: ATTN_BY_QUERIES(nq, attn_scores_n, s, g, n_groups, DT_BF16) break;
    case DT_INT8:
    case DT_Q8_0: ATTN_BY_QUERIES(nq, int_scores_n, s, g, n_groups, DT_INT8) break;
    case DT_INT4: ATTN_BY_QUERIES(nq, int_scores_n, s, g, n_groups, DT_INT4) break;
    case DT_FP8: ATTN_BY_QUERIES(nq, attn_scores_n, s, g, n_groups, DT_FP8) break;
    default: ATTN_BY_QUERIES(nq, attn_scores_n, s, g, n_groups, DT_F32) break;
    }
}

static void attn_values_of(dtype type, uint32_t nq, const value_sum *s) {
    switch (type) {
    case DT_F16: ATTN_BY_QUERIES(nq, attn_values_n, s, DT_F16) break;
    case DT_BF16: ATTN_BY_QUERIES(nq, attn_values_n, s, DT_BF16) break;
    case DT_FP8: ATTN_BY_QUERIES(nq, attn_values_n, s, DT_FP8) break;
    default: ATTN_BY_QUERIES(nq, attn_values_n, s, DT_F32) break;
    }
}

static void int_values_of(dtype type, uint32_t nq, const int_sum *s) {
    if (type == DT_INT4)
        ATTN_BY_QUERIES(nq, int_values_n, s, DT_INT4)
    else
        ATTN_BY_QUERIES(nq, int_values_n, s, DT_INT8)
}

/* Scores of one query and tile to weights: those of tokens [first, n) count. */
static void attn_softmax(float *s, uint32_t first, uint32_t n, float *max, float *lanes,
                         float *o, uint32_t dim_pad) {
    const v16 none = v_set1(-INFINITY), zero = v_set1(0.0f);
    v16 x[4], p[4];
    for (uint32_t g = 0; g < 4; g++) {
        uint32_t have = n <= g * 16 ? 0 : n - g * 16;
        if (first >= g * 16 + 16) have = 0;
        x[g] = have >= 16 ? v_load(s + g * 16)
               : have     ? v_first(v_load(s + g * 16), have, none)
                          : none;
        if (have && first > g * 16) x[g] = v_first(none, first - g * 16, x[g]);
    }
    float m = v_largest(v_max(v_max(x[0], x[1]), v_max(x[2], x[3])));
    float old = *max, now = m > old ? m : old;
    for (uint32_t g = 0; g < 4; g++) {
        p[g] = n <= g * 16 || first >= g * 16 + 16 ? zero : v_exp2(v_sub(x[g], v_set1(now)));
        v_store(s + g * 16, p[g]);
    }
    v16 sum = v_add(v_add(p[0], p[1]), v_add(p[2], p[3]));
    *max = now;
    if (old == now) { /* the factor is 1: leave the accumulators alone */
        v_store(lanes, v_add(v_load(lanes), sum));
        return;
    }
    v16 c = v_set1(exp2_one(old - now));
    v_store(lanes, v_fma(v_load(lanes), c, sum));
    for (uint32_t d = 0; d < dim_pad; d += 16) v_store(o + d, v_mul(v_load(o + d), c));
}

static void ops_attn_merge(float *max_a, float *sum_a, float *acc_a, float max_b, float sum_b,
                           const float *acc_b, uint32_t dim) {
    if (max_b == -INFINITY) return;
    if (*max_a == -INFINITY) {
        *max_a = max_b, *sum_a = sum_b;
        memcpy(acc_a, acc_b, sizeof(float) * dim);
        return;
    }
    float m = *max_a > max_b ? *max_a : max_b;
    float a = exp2_one(*max_a - m), b = exp2_one(max_b - m);
    *max_a = m;
    *sum_a = fmaf(sum_b, b, *sum_a * a);
    for (uint32_t d = 0; d < dim; d += 16) {
        v16 x = v_mul(v_load(acc_a + d), v_set1(a));
        v_store(acc_a + d, v_fma(v_load(acc_b + d), v_set1(b), x));
    }
}

static float ops_attn_sink(float max, float sink) {
    return exp2_one(sink - max);
}

static void ops_attn_finish(float sum, const float *acc, uint32_t n, float *out) {
    const float inv = 1.0f / sum;
    for (uint32_t i = 0; i < n; i++) out[i] = acc[i] * inv;
}

/* What the queries of a tile see of it. */
typedef struct tile_view {
    uint32_t nq;
    const uint32_t *first, *n; /* tokens [first, n) of each query */
    uint32_t from, to, most;   /* [from, to): of all; up to most: of some */
} tile_view;

/* Values of some dimensions. Each query's are summed in order of position, those that all of
 * them see together. */
static void attn_tile_values(dtype type, const tile_view *v, const value_sum *all) {
    const uint32_t from = v->from, to = v->to;
    value_sum own = *all; /* of query i alone: before the common tokens, then behind them */
    for (uint32_t i = 0; i < v->nq && from > 0; i++) {
        own.from = v->first[i], own.to = v->n[i] < from ? v->n[i] : from;
        own.p = all->p + i * ATTN_TILE, own.o = all->o + (size_t)i * all->dims;
        attn_values_of(type, 1, &own);
    }
    own.from = from, own.to = to;
    own.p = all->p, own.o = all->o;
    attn_values_of(type, v->nq, &own);
    own.from = to;
    for (uint32_t i = 0; i < v->nq && to < v->most; i++) {
        own.to = v->n[i];
        own.p = all->p + i * ATTN_TILE, own.o = all->o + (size_t)i * all->dims;
        attn_values_of(type, 1, &own);
    }
}

/* The weights p of a query times the scales of a segment of V, for tokens [first, n), else 0. */
static void scale_weights(dtype type, const tile_ptrs *t, size_t word, const float *p,
                          uint32_t first, uint32_t n, v16 out[4]) {
    const v16 zero = v_set1(0.0f);
    for (uint32_t g = 0; g < 4; g++) {
        out[g] = zero;
        if (n <= g * 16 || first >= g * 16 + 16 || first >= n) continue;
        v16 x = v_mul(v_load(p + g * 16), kv_load_d(type, t->v_words[g] + word));
        /* Words of tokens that are not seen may be anything. */
        if (n < g * 16 + 16) x = v_first(x, n - g * 16, zero);
        if (first > g * 16) x = v_first(zero, first - g * 16, x);
        out[g] = x;
    }
}

/* The values of a tile by segments, each with weights of its own. */
static __attribute__((noinline)) void attn_scaled_values(const kv_format *f, const tile_view *v,
                                                         const attn_scratch *w, value_sum sum) {
    const float *p = sum.p;
    sum.p = w->scaled;
    for (uint32_t k = 0; k < f->v_segments; k++) {
        v16 x[4];
        for (uint32_t i = 0; i < v->nq; i++) {
            scale_weights(f->v.type, sum.tile, (size_t)k * f->block_tokens, p + i * ATTN_TILE,
                          v->first[i], v->n[i], x);
            for (int g = 0; g < 4; g++) v_store(w->scaled + i * ATTN_TILE + g * 16, x[g]);
        }
        sum.d_from = k * f->v_segment, sum.d_to = (k + 1) * f->v_segment;
        attn_tile_values(f->v.type, v, &sum);
    }
}

/* The sum of weights times zero points, in units of the weights and quarters of a code. */
static int32_t sum_zero_points(const tile_ptrs *t, size_t word, const int16_t *p) {
    int32_t sum = 0;
    for (uint32_t j = 0; j < ATTN_TILE; j++)
        if (p[j]) sum += p[j] * (t->v_words[j / ATTN_LANES][word + j % ATTN_LANES] & 63);
    return sum;
}

/* The same where codes are integers, and so are the weights then: no order to keep. */
static __attribute__((noinline)) void attn_int_values(const kv_format *f, const tile_view *v,
                                                      const attn_scratch *w, value_sum sum) {
    int16_t *p = (int16_t *)w->scaled;
    int_sum s = {.tile = sum.tile, .p = p, .o = sum.o, .dims = sum.dims, .to = v->most};
    s.from = v->first[0]; /* the first row sees the most of the past */
    for (uint32_t k = 0; k < f->v_segments; k++) {
        const size_t word = (size_t)k * f->block_tokens;
        for (uint32_t i = 0; i < v->nq; i++) {
            v16 x[4];
            scale_weights(f->v.type, sum.tile, word, sum.p + i * ATTN_TILE, v->first[i],
                          v->n[i], x);
            const uint32_t most = extremes_of(x, 4).most;
            const v16 units = v_set1(attn_units(most));
            s.unit[i] = attn_unit(most);
            for (int g = 0; g < 4; g++)
                v_store_i16(p + i * ATTN_TILE + g * 16, v_mul(x[g], units));
            if (kv_has_zero(f->v.type))
                s.less[i] = sum_zero_points(sum.tile, word, p + i * ATTN_TILE);
        }
        s.d_from = k * f->v_segment, s.d_to = (k + 1) * f->v_segment;
        int_values_of(f->v.type, v->nq, &s);
    }
}

/* One tile for queries [i0, i0 + nq): scores, weights, values. */
static void attn_tile(const kv_format *f, const attn_part *part, const attn_scratch *w,
                      const tile_ptrs *t, uint32_t tile, uint32_t i0, uint32_t nq) {
    const uint32_t hd = f->head_dim, dp = f->v_dims;
    const uint32_t least = part_tile_first(part, tile, i0);
    const uint32_t most = part_tile_count(part, tile, i0 + nq - 1);
    if (least >= most) return;
    float *o = w->o + (size_t)i0 * dp;
    const score_sum scores = {t,
                              part->q + (size_t)i0 * hd,
                              w->q16 + (size_t)i0 * hd,
                              w->q_unit + (size_t)i0 * f->k_segments,
                              w->q_sum + (size_t)i0 * f->k_segments,
                              w->s,
                              hd,
                              f->k_segment,
                              f->k_segments,
                              f->block_tokens};
    attn_scores_of(f->k.type, nq, &scores, least / 16, (most + 15) / 16);
    uint32_t first[ATTN_QT], n[ATTN_QT], from = 0, to = ATTN_TILE;
    for (uint32_t i = 0; i < nq; i++) {
        first[i] = part_tile_first(part, tile, i0 + i);
        n[i] = part_tile_count(part, tile, i0 + i);
        if (first[i] > n[i]) first[i] = n[i];
        if (first[i] > from) from = first[i];
        if (n[i] < to) to = n[i];
        if (part->cap > 0.0f) ops_soft_cap(w->s + i * ATTN_TILE, ATTN_TILE, part->cap);
        if (first[i] < n[i])
            attn_softmax(w->s + i * ATTN_TILE, first[i], n[i], w->max + i0 + i,
                         w->lanes + (i0 + i) * 16, o + (size_t)i * dp, dp);
    }
    if (from >= to) from = to = ATTN_TILE; /* nothing in common */
    const tile_view v = {nq, first, n, from, to, most};
    const value_sum sum = {t, 0, 0, w->s, o, dp, 0, dp};
    if (f->v.integers)
        attn_int_values(f, &v, w, sum);
    else if (f->v.word_bytes)
        attn_scaled_values(f, &v, w, sum);
    else
        attn_tile_values(f->v.type, &v, &sum);
}

/* The queries in 16 bits. */
static __attribute__((noinline)) void
attn_round_queries(const kv_format *f, const attn_part *part, const attn_scratch *w) {
    const uint32_t n = part->n_rows * part->group * f->k_segments, dims = f->k_segment;
    for (uint32_t i = 0; i < n; i++) {
        const float *q = part->q + (size_t)i * dims;
        int16_t *to = w->q16 + (size_t)i * dims;
        v16 x[SEGMENT_VECTORS];
        for (uint32_t d = 0; d < dims; d += 16) x[d / 16] = v_load(q + d);
        const uint32_t most = extremes_of(x, dims / 16).most;
        const v16 units = v_set1(attn_units(most));
        for (uint32_t d = 0; d < dims; d += 16) v_store_i16(to + d, v_mul(x[d / 16], units));
        w->q_unit[i] = attn_unit(most);
        w->q_sum[i] = 0;
        for (uint32_t d = 0; d < dims; d++) w->q_sum[i] += to[d];
    }
}

/* The tokens of one cache within [from, end), a split. */
static void attend_split(const attn_pass *pass, const attn_scratch *w, uint32_t from,
                         uint32_t end) {
    const attn_part *part = &pass->part;
    const uint32_t nq = part->n_rows * part->group;
    const uint32_t n_tiles = (nq + ATTN_QT - 1) / ATTN_QT, per = (nq + n_tiles - 1) / n_tiles;
    const uint32_t seen = part_seen(part, 0), to = part->to < end ? part->to : end;
    if (to <= seen || to <= from) return;
    tile_ptrs t;
    uint32_t tile = seen > from ? seen / ATTN_TILE * ATTN_TILE : from;
    tile_find(&t, pass->kv, tile, seen, to, part->to, w->gather);
    for (; tile < to; tile += ATTN_TILE) {
        const uint32_t first = seen > tile ? seen - tile : 0;
        const uint32_t end_of = to - tile < ATTN_TILE ? to - tile : ATTN_TILE;
        if (pass->kv->format->latent)
            latent_values(pass->kv->format, &t, first / 16, (end_of + 15) / 16, w->latent);
        for (uint32_t i = 0; i < nq; i += per)
            attn_tile(pass->kv->format, part, w, &t, tile, i, nq - i < per ? nq - i : per);
        if (tile + ATTN_TILE < to)
            tile_find(&t, pass->kv, tile + ATTN_TILE, seen, to, part->to, w->gather);
    }
}

static void ops_attend(const kv_head *kv, const kv_head *tail, const attn_part *part) {
    const uint32_t nq = part->n_rows * part->group, dp = kv->format->v_dims;
    const uint32_t seen = part_seen(part, 0);
    attn_scratch w = attn_scratch_of(part->scratch, attn_dim_pad(kv->format->head_dim));
    attn_pass pass[2];
    const uint32_t n_passes = attn_passes(kv, tail, part, pass);
    part_clear(part->max, part->sum, part->acc, nq, dp);
    if (kv->format->k.integers) attn_round_queries(kv->format, part, &w);
    for (uint32_t from = part->from; from < part->to; from += ATTN_SPLIT) {
        uint32_t to = part->to - from < ATTN_SPLIT ? part->to : from + ATTN_SPLIT;
        if (to <= seen) continue;
        part_clear(w.max, NULL, w.o, nq, dp);
        memset(w.lanes, 0, sizeof(float) * 16 * nq);
        for (uint32_t k = 0; k < n_passes; k++) attend_split(&pass[k], &w, from, to);
        for (uint32_t i = 0; i < nq; i++)
            ops_attn_merge(part->max + i, part->sum + i, part->acc + (size_t)i * dp, w.max[i],
                           v_sum(v_load(w.lanes + i * 16)), w.o + (size_t)i * dp, dp);
    }
}

const op_kernels OPS_TABLE = {
    .isa = OPS_ISA,
    .norm = ops_norm,
    .layer_norm = ops_layer_norm,
    .rope = ops_rope,
    .hadamard = ops_hadamard,
    .kv_append = ops_kv_append,
    .attend = ops_attend,
    .attn_merge = ops_attn_merge,
    .attn_sink = ops_attn_sink,
    .attn_finish = ops_attn_finish,
    .rest = ops_rest,
    .taps = ops_taps,
    .dot = ops_dot,
    .rows_by = ops_rows_by,
    .add_outer = ops_add_outer,
    .gate = ops_gate,
    .add_scaled = ops_add_scaled,
    .soft_cap = ops_soft_cap,
    .exp2 = ops_exp2,
};
