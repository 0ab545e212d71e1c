/* Attention over integer codes (int8, q8_0, int4): queries and weights are rounded to 16 bits,
 * and a tile's sums of products are integers of 32 bits, exact in any order: at most 64 * 127 *
 * 32,767. One instruction adds two products, where a code that becomes a float costs a
 * conversion for each. Part of ops_body.h: included by it only. */
#ifndef VRAMD_ENGINE_CPU_ATTN_INT_H
#define VRAMD_ENGINE_CPU_ATTN_INT_H

V_INLINE int32_t int_pair(const int16_t *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return pair;
}

/* Scores of NQ queries against NG groups of 16 tokens: for each segment a sum, less the zero
 * points, times the query's unit and the tokens' scales, in a chain. */
V_INLINE void int_scores(const score_sum *s, uint32_t g0, dtype type, const int NQ,
                         const int NG) {
    const uint32_t bits = kv_bits(type), dims = s->segment;
    const tile_ptrs *t = s->tile;
    float *out = s->s + g0 * 16;
    for (uint32_t k = 0; k < s->n_segments; k++) {
        i16 acc[ATTN_QT][ATTN_INT_WIDE];
        for (int i = 0; i < NQ; i++)
            for (int g = 0; g < NG; g++) acc[i][g] = i_zero();
        for (uint32_t d = k * dims; d < (k + 1) * dims; d += 4) {
            i16 x[ATTN_INT_WIDE][2]; /* dimensions d and d + 1, d + 2 and d + 3 */
            for (int g = 0; g < NG; g++) {
                const char *at = (const char *)t->k[g0 + g] + (size_t)d * 2 * bits;
                x[g][0] = bits == 4 ? i_load_lower(at) : i_load_i8(at);
                x[g][1] = bits == 4 ? i_load_upper(at) : i_load_i8(at + 32);
                _mm_prefetch((const char *)t->k_next[g0 + g] + (size_t)d * 2 * bits,
                             _MM_HINT_T0);
            }
            for (int i = 0; i < NQ; i++) {
                const int16_t *q = s->q16 + (size_t)i * s->head_dim + d;
                for (int g = 0; g < NG; g++) acc[i][g] = i_dot(acc[i][g], int_pair(q), x[g][0]);
                for (int g = 0; g < NG; g++)
                    acc[i][g] = i_dot(acc[i][g], int_pair(q + 2), x[g][1]);
            }
        }
        for (int g = 0; g < NG; g++) {
            const uint16_t *words = attn_k_words(s, g0 + g, k);
            const v16 d = kv_load_d(type, words);
            for (int i = 0; i < NQ; i++) {
                const size_t at = (size_t)i * s->n_segments + k;
                float unit = s->q_unit[at];
                if (kv_has_zero(type)) {
                    acc[i][g] = i_less(acc[i][g], i_load_int4_z(words), s->q_sum[at]);
                    unit = unit * 0.25f;
                }
                v16 sum = k ? v_load(out + i * ATTN_TILE + g * 16) : v_set1(0.0f);
                sum = v_fma(i_to_v(acc[i][g]), v_mul(d, v_set1(unit)), sum);
                v_store(out + i * ATTN_TILE + g * 16, sum);
            }
        }
    }
}

/* Of groups [g, n_groups). */
V_INLINE void int_scores_n(const score_sum *s, uint32_t g, uint32_t n_groups, dtype type,
                           const int NQ) {
    for (; g + ATTN_INT_WIDE <= n_groups; g += ATTN_INT_WIDE)
        int_scores(s, g, type, NQ, ATTN_INT_WIDE);
    for (; ATTN_INT_WIDE > 1 && g < n_groups; g++) int_scores(s, g, type, NQ, 1);
}

/* A sum of values over tokens [from, to) of a tile and dimensions [d_from, d_to). */
typedef struct int_sum {
    const tile_ptrs *tile;
    uint32_t from, to;
    const int16_t *p; /* weights in units, [queries][ATTN_TILE]; 0 where a query sees nothing */
    float unit[ATTN_QT];         /* 0: the query's values stay as they are */
    int32_t less[ATTN_QT];       /* of types with zero points: what they add up to */
    float *o;                    /* [queries][dims] */
    uint32_t dims, d_from, d_to; /* multiples of 16 */
} int_sum;

/* Of NQ queries and ND vectors of dimensions from d on. */
V_INLINE void int_values(const int_sum *s, uint32_t d, dtype type, const int NQ, const int ND) {
    const uint32_t bits = kv_bits(type);
    i16 acc[ATTN_QT][ATTN_INT_WIDE];
    for (int i = 0; i < NQ; i++)
        for (int n = 0; n < ND; n++) acc[i][n] = i_zero();
    for (uint32_t j = s->from & ~1u; j < s->to; j += 2) {
        const size_t at = ((size_t)(j % ATTN_LANES) * s->dims + 2 * d) * bits / 8;
        const char *v = (const char *)s->tile->v[j / ATTN_LANES] + at;
        i16 x[ATTN_INT_WIDE];
        for (int n = 0; n < ND; n++)
            x[n] = bits == 4 ? i_load_halves(v + n * 16) : i_load_i8(v + n * 32);
        _mm_prefetch((const char *)s->tile->v_next[j / ATTN_LANES] + at, _MM_HINT_T0);
        for (int i = 0; i < NQ; i++)
            for (int n = 0; n < ND; n++)
                acc[i][n] = i_dot(acc[i][n], int_pair(s->p + i * ATTN_TILE + j), x[n]);
    }
    for (int i = 0; i < NQ; i++) {
        if (s->unit[i] == 0.0f) continue;
        for (int n = 0; n < ND; n++) {
            float *o = s->o + (size_t)i * s->dims + d + n * 16;
            v16 unit = v_set1(kv_has_zero(type) ? s->unit[i] * 0.25f : s->unit[i]);
            if (kv_has_zero(type)) acc[i][n] = i_less(acc[i][n], i_one(), s->less[i]);
            v_store(o, v_fma(i_to_v(acc[i][n]), unit, v_load(o)));
        }
    }
}

V_INLINE void int_values_n(const int_sum *s, dtype type, const int NQ) {
    uint32_t d = s->d_from;
    for (; d + ATTN_INT_WIDE * 16 <= s->d_to; d += ATTN_INT_WIDE * 16)
        int_values(s, d, type, NQ, ATTN_INT_WIDE);
    for (; ATTN_INT_WIDE > 1 && d < s->d_to; d += 16) int_values(s, d, type, NQ, 1);
}

#endif
