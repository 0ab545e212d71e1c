/* What every instruction set of the operations shares: where things lie in a KV block, which
 * tokens a query sees, the layout of scratch, and the element-wise formulas that need no
 * reduction. Included by plain.c and ops_body.h only. */
#ifndef VRAMD_ENGINE_CPU_OPS_SHARED_H
#define VRAMD_ENGINE_CPU_OPS_SHARED_H

#include <math.h>
#include <string.h>

#include "engine/cpu/ops.h"

/* GELU, tanh form: x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3) */
#define GELU_2C 1.5957691216f
#define GELU_K  0.044715f
/* GELU by erf: relu(x) - |x| Q(|x|), Q(z) = 1 - Phi(z) = 2^(GELU_ERF_EXP z^2) P(t), t = 1 / (1 +
 * GELU_ERF_T z); P = fma chain over these, highest first. A least-maximum fit of the relative error
 * of Q on [0, 13.2], beyond which it is 0 in float32: 3.2e-8. */
#define GELU_ERF_T   0.295f
#define GELU_ERF_EXP (-0.5f * LOG2_E)
static const float gelu_erf_p[9] = {0x1.4566cep-5f,  -0x1.7a65fap-3f, 0x1.182f0cp-2f,
                                    -0x1.eac6b6p-4f, 0x1.5824040p-3f, 0x1.584f10p-4f,
                                    0x1.f323f8p-4f,  0x1.e05504p-4f,  0x1.302b62p-16f};
/* SwiGLU of gpt-oss: g sigmoid(1.702 g) (u + 1), both limited */
#define OAI_LIMIT 7.0f
#define OAI_EXP   (-1.702f * LOG2_E)

static inline float norm_scale(float sum, uint32_t n, float eps) {
    return 1.0f / sqrtf(sum / (float)n + eps);
}

/* No reduction: any vectorisation gives the same bits. */
static inline void rope_rotate(const float *restrict x, const float *restrict cos_sin,
                               uint32_t head_dim, uint32_t n_dims, rope_pairing pairing,
                               float scale, float *restrict out) {
    const uint32_t half = n_dims / 2;
    const float *c = cos_sin, *s = cos_sin + half;
    if (pairing == ROPE_ADJACENT) {
        for (uint32_t i = 0; i < half; i++) {
            float a = x[2 * i], b = x[2 * i + 1];
            out[2 * i] = (a * c[i] - b * s[i]) * scale;
            out[2 * i + 1] = (a * s[i] + b * c[i]) * scale;
        }
    } else {
        for (uint32_t i = 0; i < half; i++) {
            float a = x[i], b = x[i + half];
            out[i] = (a * c[i] - b * s[i]) * scale;
            out[i + half] = (a * s[i] + b * c[i]) * scale;
        }
    }
    for (uint32_t i = n_dims; i < head_dim; i++) out[i] = x[i] * scale;
}

/* Element by element, too. */
static inline void taps_sum(const float *const *x, const float *restrict w, uint32_t n_rows,
                            uint32_t n, float *restrict out) {
    for (uint32_t i = 0; i < n; i++) out[i] = 0;
    for (uint32_t k = 0; k < n_rows; k++) {
        const float *restrict row = x[k];
        for (uint32_t i = 0; i < n; i++) out[i] = fmaf(w[(size_t)k * n + i], row[i], out[i]);
    }
}

static inline void quant_rest(const float *restrict x, const int8_t *restrict q, float d,
                              float *restrict rest) {
    for (int i = 0; i < 32; i++) rest[i] = x[i] - d * (float)q[i];
}

/* ---- where things are in the cache ---- */

static inline unsigned char *kv_part(const kv_head *kv, uint32_t pos) {
    return kv->base + (size_t)kv->blocks[pos >> kv->format->block_shift] * kv->block_stride;
}
/* pos within its block */
static inline uint32_t kv_token(const kv_head *kv, uint32_t pos) {
    return pos & (kv->format->block_tokens - 1);
}
/* The group of tokens that holds pos: [head_dim][lanes]. */
static inline unsigned char *kv_k_group(const kv_head *kv, uint32_t pos) {
    return kv_part(kv, pos) + kv_k_group_at(kv->format, kv_token(kv, pos));
}
/* [v_dims] */
static inline unsigned char *kv_v_token(const kv_head *kv, uint32_t pos) {
    return kv_part(kv, pos) + kv_v_token_at(kv->format, kv_token(kv, pos));
}

/* ---- who sees what ---- */

/* How many tokens of the tile at absolute position tile query i sees. */
static inline uint32_t part_tile_count(const attn_part *p, uint32_t tile, uint32_t i) {
    uint32_t end = p->first_pos + i / p->group + 1;
    end = end > p->skip ? end - p->skip : 0;
    if (end > p->to) end = p->to;
    if (end <= tile) return 0;
    return end - tile < ATTN_TILE ? end - tile : ATTN_TILE;
}

/* The first token that query i sees. */
static inline uint32_t part_seen(const attn_part *p, uint32_t i) {
    return kv_first_seen(p->window, p->first_pos + i / p->group);
}
/* How many tokens in front of the tile query i does not see: the whole tile, or fewer. */
static inline uint32_t part_tile_first(const attn_part *p, uint32_t tile, uint32_t i) {
    uint32_t seen = part_seen(p, i);
    if (seen <= tile) return 0;
    return seen - tile < ATTN_TILE ? seen - tile : ATTN_TILE;
}

/* A part as it is read from one cache. */
typedef struct attn_pass {
    const kv_head *kv;
    attn_part part;
} attn_pass;

/* The passes of attend: their number. */
static inline uint32_t attn_passes(const kv_head *kv, const kv_head *tail, const attn_part *p,
                                   attn_pass out[2]) {
    attn_part *old = &out[0].part, *newest = &out[1].part;
    out[0] = (attn_pass){kv, *p};
    if (!tail) return 1;
    out[1] = (attn_pass){tail, *p};
    old->skip = KV_TAIL_TOKENS;
    const uint32_t end = p->first_pos + p->n_rows; /* of the last row */
    if (old->to + KV_TAIL_TOKENS > end)
        old->to = end > KV_TAIL_TOKENS ? end - KV_TAIL_TOKENS : 0;
    if (!newest->window || newest->window > KV_TAIL_TOKENS) newest->window = KV_TAIL_TOKENS;
    return 2;
}

static inline void part_clear(float *max, float *sum, float *acc, uint32_t nq, uint32_t dp) {
    for (uint32_t i = 0; i < nq; i++) max[i] = -INFINITY;
    if (sum) memset(sum, 0, sizeof(float) * nq);
    memset(acc, 0, sizeof(float) * nq * dp);
}

/* ---- what is multiplied with integer codes ---- */

/* Queries, and weights of a tile times scales, are rounded to 16 bits: the largest becomes
 * 32,767 units. most: of the magnitudes, as kv_extremes has it. 0: all of them count as 0; NaN:
 * one is not finite. */
static inline float attn_unit(uint32_t most) {
    const float m = float_of_bits(most);
    if (most >= KV_NOT_FINITE) return NAN;
    return m > 0x1p-100f ? m / 32767.0f : 0.0f;
}
static inline float attn_units(uint32_t most) {
    const float m = float_of_bits(most);
    return most < KV_NOT_FINITE && m > 0x1p-100f ? 32767.0f / m : 0.0f;
}

/* ---- scratch ---- */

static inline size_t attn_most_segments(uint32_t dim_pad) {
    return dim_pad / KV_LEAST_SEGMENT;
}

typedef struct attn_scratch {
    float *s;     /* [ATTN_MAX_QUERIES][ATTN_TILE] scores, then weights */
    float *max;   /* [ATTN_MAX_QUERIES] */
    float *lanes; /* [ATTN_MAX_QUERIES][16]: the sum of the weights, lane by lane */
    float *o;     /* [ATTN_MAX_QUERIES][dim_pad] */
    /* Where codes of V have scales: weights times them, as float32 or as 16 bits. */
    float *scaled; /* [ATTN_MAX_QUERIES][ATTN_TILE] */
    /* Where codes of K are integers: queries in 16 bits, and for each of their segments what a
     * unit is worth, and the sum. */
    int16_t *q16;          /* [ATTN_MAX_QUERIES][head_dim] */
    float *q_unit;         /* [ATTN_MAX_QUERIES][k_segments] */
    int32_t *q_sum;        /* [ATTN_MAX_QUERIES][k_segments] */
    unsigned char *gather; /* [2][ATTN_TILE][dim_pad] f32: tiles of blocks of 8 tokens */
    float *latent;         /* its second half: V of a tile, where that is made of K */
} attn_scratch;

static inline attn_scratch attn_scratch_of(void *p, uint32_t dim_pad) {
    const size_t segments = ATTN_MAX_QUERIES * attn_most_segments(dim_pad);
    attn_scratch w;
    w.s = p;
    w.max = w.s + ATTN_MAX_QUERIES * ATTN_TILE;
    w.lanes = w.max + 32;
    w.o = w.lanes + ATTN_MAX_QUERIES * 16;
    w.scaled = w.o + (size_t)ATTN_MAX_QUERIES * dim_pad;
    w.q_unit = w.scaled + ATTN_MAX_QUERIES * ATTN_TILE;
    w.q_sum = (int32_t *)(w.q_unit + segments);
    w.q16 = (int16_t *)(w.q_sum + segments);
    w.gather = (unsigned char *)(w.q16 + (size_t)ATTN_MAX_QUERIES * dim_pad);
    w.latent = (float *)(void *)w.gather + (size_t)ATTN_TILE * dim_pad;
    return w;
}

/* The K and V groups of a tile with their words, and those of the tile after it, to be
 * prefetched. */
typedef struct tile_ptrs {
    const void *k[4], *v[4], *k_next[4], *v_next[4];
    const uint16_t *k_words[4], *v_words[4]; /* of the first segment */
    const char *words_next[4];               /* of K; those of V lie behind them */
} tile_ptrs;

/* Blocks of 8 tokens: two of them make a group, side by side, in scratch. */
static inline void tile_gather(tile_ptrs *t, const kv_head *kv, uint32_t tile, uint32_t seen,
                               uint32_t to, unsigned char *gather) {
    const uint32_t hd = kv->format->head_dim, dp = attn_dim_pad(hd);
    const uint32_t ke = kv->format->k.bits / 8, v_bytes = kv->format->v_token_bytes;
    for (uint32_t g = 0; g < 4; g++) {
        unsigned char *k = gather + (size_t)g * 16 * dp * 4;
        unsigned char *v = k + (size_t)ATTN_TILE * dp * 4;
        for (uint32_t half = 0; half < 2; half++) {
            uint32_t pos = tile + g * 16 + half * 8;
            if (pos >= to) break;
            if (pos + 8 <= seen) continue;
            const unsigned char *from = kv_k_group(kv, pos);
            for (uint32_t d = 0; d < hd; d++)
                memcpy(k + (size_t)(d * 16 + half * 8) * ke, from + (size_t)d * 8 * ke,
                       (size_t)8 * ke);
            memcpy(v + (size_t)half * 8 * v_bytes, kv_v_token(kv, pos), (size_t)8 * v_bytes);
        }
        t->k[g] = t->k_next[g] = k;
        t->v[g] = t->v_next[g] = v;
    }
}

/* The words of the groups of a tile, found as tile_find does. */
static inline void tile_find_words(tile_ptrs *t, const kv_head *kv, uint32_t g, uint32_t pos,
                                   uint32_t next) {
    const kv_format *f = kv->format;
    const unsigned char *part = kv_part(kv, pos);
    const uint32_t token = kv_token(kv, pos);
    t->k_words[g] = (const uint16_t *)(const void *)(part + kv_k_word_at(f, 0, token));
    t->v_words[g] = (const uint16_t *)(const void *)(part + kv_v_word_at(f, 0, token));
    t->words_next[g] = (const char *)kv_part(kv, next) + kv_k_word_at(f, 0, kv_token(kv, next));
}

/* seen: the first token that anybody sees, at most the last of the tile; to: end of the split,
 * which tokens past it must not be read for; all: end of the part. */
static inline void tile_find(tile_ptrs *t, const kv_head *kv, uint32_t tile, uint32_t seen,
                             uint32_t to, uint32_t all, unsigned char *gather) {
    if (kv->format->lanes < ATTN_LANES) {
        tile_gather(t, kv, tile, seen, to, gather);
        return;
    }
    const bool words = kv->format->k.word_bytes | kv->format->v.word_bytes;
    for (uint32_t g = 0; g < 4; g++) {
        uint32_t pos = tile + g * 16, next = pos + ATTN_TILE;
        /* Not read, but where it points must exist. */
        if (pos >= to || pos + 16 <= seen) pos = seen > tile ? seen : tile;
        t->k[g] = kv_k_group(kv, pos);
        t->v[g] = kv_v_token(kv, pos);
        t->k_next[g] = next < all ? kv_k_group(kv, next) : t->k[g];
        t->v_next[g] = next < all ? kv_v_token(kv, next) : t->v[g];
        if (words) tile_find_words(t, kv, g, pos, next < all ? next : pos);
    }
}

#endif
