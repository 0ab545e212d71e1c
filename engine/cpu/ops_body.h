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
    for (i = 0; i + 16 <= n; i += 16)
        v_store(out + i, v_mul(v_mul(v_load(x + i), scale), v_load(w + i)));
    if (i < n) {
        v16 y = v_mul(v_mul(v_load_n(x + i, n - i), scale), v_load_n(w + i, n - i));
        v_store_n(out + i, y, n - i);
    }
}

/* g / (1 + 2^(-g log2 e)), and for GELU (tanh form) the same with 2u for the exponent */
V_INLINE v16 v_act(activation act, v16 g) {
    v16 u = g;
    if (act == ACT_GELU_TANH) {
        v16 g2 = v_mul(g, g);
        u = v_mul(v_mul(g, v_set1(GELU_2C)), v_fma(g2, v_set1(GELU_K), v_set1(1.0f)));
    }
    v16 e = v_exp2(v_mul(u, v_set1(-LOG2_E)));
    return v_div(g, v_add(v_set1(1.0f), e));
}

static void ops_gate(activation act, const float *gate, const float *up, uint32_t n,
                     float *out) {
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        v_store(out + i, v_mul(v_act(act, v_load(gate + i)), v_load(up + i)));
    if (i < n) {
        v16 y = v_mul(v_act(act, v_load_n(gate + i, n - i)), v_load_n(up + i, n - i));
        v_store_n(out + i, y, n - i);
    }
}

static void ops_rope(const float *x, const float *cos_sin, uint32_t head_dim, uint32_t n_dims,
                     rope_pairing pairing, float scale, float *out) {
    rope_rotate(x, cos_sin, head_dim, n_dims, pairing, scale, out);
}

static void ops_rest(const float *x, const int8_t *q, float d, float *rest) {
    quant_rest(x, q, d, rest);
}

/* ---- the KV cache ---- */

/* Sixteen floats in a type of the cache. */
V_INLINE void kv_convert16(dtype type, v16 x, void *out) {
    if (type == DT_F16) {
        v_store_f16(out, x);
    } else if (type == DT_F32) {
        v_store(out, x);
    } else {
        float f[16];
        v_store(f, x);
        for (int i = 0; i < 16; i++) ((uint16_t *)out)[i] = bf16_of_float(f[i]);
    }
}

static void ops_kv_append(const kv_head *kv, uint32_t pos, const float *k, const float *v) {
    const kv_format *f = kv->format;
    const uint32_t hd = f->head_dim, lanes = f->lanes;
    const uint32_t ke = f->k.bits / 8, ve = f->v.bits / 8; /* bytes of an element */
    unsigned char *kp = kv_k_group(kv, pos) + (size_t)(pos % lanes) * ke;
    unsigned char *vp = kv_v_token(kv, pos);
    for (uint32_t d = 0; d < hd; d += 16) {
        uint32_t n = hd - d < 16 ? hd - d : 16;
        unsigned char tmp[64];
        kv_convert16(f->k.type, v_load_n(k + d, n), tmp);
        for (uint32_t i = 0; i < n; i++)
            memcpy(kp + (size_t)(d + i) * lanes * ke, tmp + (size_t)i * ke, ke);
        kv_convert16(f->v.type, v_load_n(v + d, n), vp + (size_t)d * ve);
    }
}

/* ---- attention ---- */

V_INLINE v16 kv_load16(dtype type, const void *base, size_t i) {
    if (type == DT_F16) return v_load_f16((const uint16_t *)base + i);
    if (type == DT_BF16) return v_load_bf16((const uint16_t *)base + i);
    return v_load((const float *)base + i);
}

/* Scores of NQ queries against NG groups of 16 tokens: one fma chain over the dimensions each.
 * next: the groups to prefetch meanwhile. */
V_INLINE void attn_scores(const float *q, uint32_t hd, const tile_ptrs *t, uint32_t g0,
                          float *s, dtype type, const int NQ, const int NG) {
    const uint32_t es = kv_bits(type) / 8;
    v16 acc[ATTN_QT][ATTN_WIDE];
    for (int i = 0; i < NQ; i++)
        for (int g = 0; g < NG; g++) acc[i][g] = v_set1(0.0f);
    for (uint32_t d = 0; d < hd; d++) {
        v16 k[ATTN_WIDE];
        for (int g = 0; g < NG; g++) {
            k[g] = kv_load16(type, t->k[g0 + g], (size_t)d * 16);
            if (es == 4 || !(d & 1))
                _mm_prefetch((const char *)t->k_next[g0 + g] + (size_t)d * 16 * es,
                             _MM_HINT_T0);
        }
        for (int i = 0; i < NQ; i++) {
            v16 b = v_set1(q[(size_t)i * hd + d]);
            for (int g = 0; g < NG; g++) acc[i][g] = v_fma(b, k[g], acc[i][g]);
        }
    }
    for (int i = 0; i < NQ; i++)
        for (int g = 0; g < NG; g++) v_store(s + i * ATTN_TILE + g * 16, acc[i][g]);
}

/* Of groups [g, n_groups). */
V_INLINE void attn_scores_n(const float *q, uint32_t hd, const tile_ptrs *t, uint32_t g,
                            uint32_t n_groups, float *s, dtype type, const int NQ) {
    for (; g + ATTN_WIDE <= n_groups; g += ATTN_WIDE)
        attn_scores(q, hd, t, g, s + g * 16, type, NQ, ATTN_WIDE);
#if ATTN_WIDE > 2
    for (; g + 2 <= n_groups; g += 2) attn_scores(q, hd, t, g, s + g * 16, type, NQ, 2);
#endif
    for (; g < n_groups; g++) attn_scores(q, hd, t, g, s + g * 16, type, NQ, 1);
}

/* A sum of values: o += p V over tokens [from, to) of a tile. */
typedef struct value_sum {
    const tile_ptrs *tile;
    uint32_t from, to;
    const float *p; /* weights, [queries][ATTN_TILE] */
    float *o;       /* [queries][dims] */
    uint32_t dims;  /* a multiple of 16 */
} value_sum;

/* Of NQ queries and ND vectors of dimensions from d on: one fma chain over the tokens each. */
V_INLINE void attn_values(const value_sum *s, uint32_t d, dtype type, const int NQ,
                          const int ND) {
    const tile_ptrs *t = s->tile;
    const uint32_t dims = s->dims;
    const float *p = s->p;
    float *o = s->o + d;
    const uint32_t es = kv_bits(type) / 8;
    v16 acc[ATTN_QT][ATTN_WIDE];
    for (int i = 0; i < NQ; i++)
        for (int n = 0; n < ND; n++) acc[i][n] = v_load(o + (size_t)i * dims + n * 16);
    for (uint32_t j = s->from; j < s->to; j++) {
        size_t at = (size_t)(j % ATTN_LANES) * dims + d;
        const char *next = (const char *)t->v_next[j / ATTN_LANES] + at * es;
        v16 v[ATTN_WIDE];
        for (int n = 0; n < ND; n++) {
            v[n] = kv_load16(type, t->v[j / ATTN_LANES], at + (size_t)n * 16);
            if (es == 4 || !(n & 1)) _mm_prefetch(next + n * 16 * es, _MM_HINT_T0);
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
    uint32_t d = 0;
    for (; d + ATTN_WIDE * 16 <= s->dims; d += ATTN_WIDE * 16)
        attn_values(s, d, type, NQ, ATTN_WIDE);
    for (; d < s->dims; d += 16) attn_values(s, d, type, NQ, 1);
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
static void attn_scores_of(dtype type, uint32_t nq, const float *q, uint32_t hd,
                           const tile_ptrs *t, uint32_t g, uint32_t n_groups, float *s) {
    switch (type) {
    case DT_F16: ATTN_BY_QUERIES(nq, attn_scores_n, q, hd, t, g, n_groups, s, DT_F16) break;
    case DT_BF16: ATTN_BY_QUERIES(nq, attn_scores_n, q, hd, t, g, n_groups, s, DT_BF16) break;
    default: ATTN_BY_QUERIES(nq, attn_scores_n, q, hd, t, g, n_groups, s, DT_F32) break;
    }
}

static void attn_values_of(dtype type, uint32_t nq, const value_sum s) {
    switch (type) {
    case DT_F16: ATTN_BY_QUERIES(nq, attn_values_n, &s, DT_F16) break;
    case DT_BF16: ATTN_BY_QUERIES(nq, attn_values_n, &s, DT_BF16) break;
    default: ATTN_BY_QUERIES(nq, attn_values_n, &s, DT_F32) break;
    }
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

static void ops_attn_finish(float sum, const float *acc, uint32_t n, float *out) {
    const float inv = 1.0f / sum;
    for (uint32_t i = 0; i < n; i++) out[i] = acc[i] * inv;
}

/* One tile for queries [i0, i0 + nq): scores, weights, values. Each query's values are summed
 * in order of position, those that all of them see together. */
static void attn_tile(const kv_format *f, const attn_part *part, const attn_scratch *w,
                      const tile_ptrs *t, uint32_t tile, uint32_t i0, uint32_t nq) {
    const uint32_t hd = f->head_dim, dp = f->v_dims;
    const uint32_t least = part_tile_first(part, tile, i0);
    const uint32_t most = part_tile_count(part, tile, i0 + nq - 1);
    if (least >= most) return;
    float *s = w->s;
    const float *q = part->q + (size_t)i0 * hd;
    float *o = w->o + (size_t)i0 * dp;
    attn_scores_of(f->k.type, nq, q, hd, t, least / 16, (most + 15) / 16, s);
    uint32_t first[ATTN_QT], n[ATTN_QT], from = 0, to = ATTN_TILE;
    for (uint32_t i = 0; i < nq; i++) {
        first[i] = part_tile_first(part, tile, i0 + i);
        n[i] = part_tile_count(part, tile, i0 + i);
        if (first[i] > n[i]) first[i] = n[i];
        if (first[i] > from) from = first[i];
        if (n[i] < to) to = n[i];
        if (first[i] < n[i])
            attn_softmax(s + i * ATTN_TILE, first[i], n[i], w->max + i0 + i,
                         w->lanes + (i0 + i) * 16, o + (size_t)i * dp, dp);
    }
    if (from >= to) from = to = ATTN_TILE; /* nothing in common */
    const dtype type = f->v.type;
    const value_sum common = {t, from, to, s, o, dp};
    value_sum own = common; /* of query i alone: before the common tokens, then behind them */
    for (uint32_t i = 0; i < nq && from > 0; i++) {
        own.from = first[i], own.to = n[i] < from ? n[i] : from;
        own.p = s + i * ATTN_TILE, own.o = o + (size_t)i * dp;
        attn_values_of(type, 1, own);
    }
    attn_values_of(type, nq, common);
    own.from = to;
    for (uint32_t i = 0; i < nq && to < most; i++) {
        own.to = n[i];
        own.p = s + i * ATTN_TILE, own.o = o + (size_t)i * dp;
        attn_values_of(type, 1, own);
    }
}

static void ops_attend(const kv_head *kv, const attn_part *part) {
    const uint32_t nq = part->n_rows * part->group, dp = kv->format->v_dims;
    const uint32_t n_tiles = (nq + ATTN_QT - 1) / ATTN_QT, per = (nq + n_tiles - 1) / n_tiles;
    const uint32_t seen = part_seen(part, 0);
    attn_scratch w = attn_scratch_of(part->scratch, dp);
    part_clear(part->max, part->sum, part->acc, nq, dp);
    for (uint32_t from = part->from; from < part->to; from += ATTN_SPLIT) {
        uint32_t to = part->to - from < ATTN_SPLIT ? part->to : from + ATTN_SPLIT;
        if (to <= seen) continue;
        part_clear(w.max, NULL, w.o, nq, dp);
        memset(w.lanes, 0, sizeof(float) * 16 * nq);
        tile_ptrs t;
        uint32_t tile = seen > from ? seen / ATTN_TILE * ATTN_TILE : from;
        tile_find(&t, kv, tile, seen, to, part->to, w.gather);
        for (; tile < to; tile += ATTN_TILE) {
            for (uint32_t i = 0; i < nq; i += per)
                attn_tile(kv->format, part, &w, &t, tile, i, nq - i < per ? nq - i : per);
            if (tile + ATTN_TILE < to)
                tile_find(&t, kv, tile + ATTN_TILE, seen, to, part->to, w.gather);
        }
        for (uint32_t i = 0; i < nq; i++)
            ops_attn_merge(part->max + i, part->sum + i, part->acc + (size_t)i * dp, w.max[i],
                           v_sum(v_load(w.lanes + i * 16)), w.o + (size_t)i * dp, dp);
    }
}

const op_kernels OPS_TABLE = {
    .isa = OPS_ISA,
    .norm = ops_norm,
    .rope = ops_rope,
    .kv_append = ops_kv_append,
    .attend = ops_attend,
    .attn_merge = ops_attn_merge,
    .attn_finish = ops_attn_finish,
    .rest = ops_rest,
    .gate = ops_gate,
    .exp2 = ops_exp2,
};
