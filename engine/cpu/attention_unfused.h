/* Attention as it was before FlashAttention, to be compared with it: three passes over a layer, each through
 * memory. The scores of every row, head and token are written out (rows x heads x context floats in
 * the workspace, a term of the plan), become weights there, and are read again for the sum of values.
 *
 * The same bits as the fused one (plain.c says the formulas): a score is one chain of fma over the
 * dimensions, maxima and sums run tile by tile and split by split, values are summed in order of
 * position. What a pass needs of the one before, the factor of each rescaling, and maximum and
 * sum of each split, lies behind a row's scores.
 *
 * Included by attention_unfused_plain.c and attention_unfused_avx2.c, which name the function and give the loops
 * their instruction set. Caches of f16, bf16 and f32. All threads of the step. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "engine/cpu/step.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

enum { LANES = 16, SHARED = 4 /* queries that share a load */ };

/* acc[i] += b * x[i], i < 16 */
static inline void fma16(float *restrict acc, float b, const float *restrict x) {
#ifdef __AVX2__
    const __m256 w = _mm256_set1_ps(b);
    _mm256_storeu_ps(acc, _mm256_fmadd_ps(w, _mm256_loadu_ps(x), _mm256_loadu_ps(acc)));
    _mm256_storeu_ps(acc + 8,
                     _mm256_fmadd_ps(w, _mm256_loadu_ps(x + 8), _mm256_loadu_ps(acc + 8)));
#else
    for (int i = 0; i < LANES; i++) acc[i] = fmaf(b, x[i], acc[i]);
#endif
}

/* n elements of the cache, a multiple of 8, as float32. */
static void to_float(dtype type, const unsigned char *from, uint32_t n, float *to) {
    if (type == DT_F32) {
        memcpy(to, from, (size_t)n * 4);
        return;
    }
    for (uint32_t i = 0; i < n; i += 8) {
#ifdef __AVX2__
        const __m128i h = _mm_loadu_si128((const __m128i *)(from + 2 * (size_t)i));
        _mm256_storeu_ps(to + i, type == DT_F16 ? _mm256_cvtph_ps(h)
                                                : _mm256_castsi256_ps(_mm256_slli_epi32(
                                                      _mm256_cvtepu16_epi32(h), 16)));
#else
        uint16_t h[8];
        memcpy(h, from + 2 * (size_t)i, sizeof h);
        for (int k = 0; k < 8; k++)
            to[i + k] = type == DT_F16 ? half_to_float(h[k]) : bf16_to_float(h[k]);
#endif
    }
}

/* ---- what lies where ---- */

/* Of one row and query head. */
typedef struct unfused_row {
    float *score;     /* [context]: scores, then weights */
    float *factor;    /* [tiles]: what accumulators are multiplied by before the tile */
    float *max, *sum; /* [splits] */
} unfused_row;

static unfused_row row_at(const cpu_engine *e, const cpu_op *c, uint32_t row, uint32_t head) {
    const uint64_t context = align_up(e->opt.max_model_len, ATTN_SPLIT);
    float *at = (float *)(e->workspace + e->layout.scores);
    at += ((uint64_t)row * c->op->heads.n_heads + head) *
          unfused_row_floats(e->opt.max_model_len);
    float *factor = at + context, *max = factor + context / ATTN_TILE;
    return (unfused_row){at, factor, max, max + context / ATTN_SPLIT};
}

static const unsigned char *block_of(const kv_head *kv, uint32_t pos) {
    const kv_format *f = kv->format;
    return kv->base + (size_t)kv->blocks[pos >> f->block_shift] * kv->block_stride;
}

/* K of tokens [pos, pos + 16) as [head_dim][16]; those from `to` on are not read.
 * out: [head_dim * 24] */
static void read_keys(const kv_head *kv, uint32_t pos, uint32_t seen, uint32_t to, float *out) {
    const kv_format *f = kv->format;
    if (f->lanes == LANES) {
        const uint32_t at = kv_k_group_at(f, pos & (f->block_tokens - 1));
        to_float(f->k.type, block_of(kv, pos > seen ? pos : seen) + at, f->head_dim * LANES,
                 out);
        return;
    }
    float *half_group = out + (size_t)f->head_dim * LANES;
    memset(out, 0, sizeof(float) * f->head_dim * LANES);
    for (uint32_t half = 0; half < LANES; half += 8) {
        const uint32_t p = pos + half;
        if (p >= to || p + 8 <= seen) continue;
        const uint32_t at = kv_k_group_at(f, p & (f->block_tokens - 1));
        to_float(f->k.type, block_of(kv, p) + at, f->head_dim * 8, half_group);
        for (uint32_t d = 0; d < f->head_dim; d++)
            memcpy(out + (size_t)d * LANES + half, half_group + (size_t)d * 8, 8 * sizeof *out);
    }
}

/* ---- the passes, of one task and KV head each ---- */

typedef struct unfused_task {
    const attn_parts *parts;
    const attn_task *t;
    uint32_t h, group, n; /* n: queries */
    uint32_t window;
    float cap; /* as attn_part has it */
} unfused_task;

static uint32_t pos_of(const cpu_engine *e, const unfused_task *u, uint32_t i) {
    return e->step.rows[u->t->first_row + i / u->group].pos;
}
static unfused_row query_at(const cpu_engine *e, const cpu_op *c, const unfused_task *u,
                            uint32_t i) {
    return row_at(e, c, u->t->first_row + i / u->group, u->h * u->group + i % u->group);
}

/* Q K^T */
static void pass_scores(cpu_engine *e, const cpu_op *c, const unfused_task *u,
                        uint32_t thread) {
    const uint32_t hd = c->op->heads.head_dim, to = u->t->to;
    const uint32_t seen = kv_first_seen(u->window, pos_of(e, u, 0));
    float *q = thread_at(e, thread, e->layout.thread.q);
    float *k = thread_at(e, thread, e->layout.thread.attn);
    const kv_head kv = u->parts->open(e, c, u->t, u->h, thread, q);
    for (uint32_t pos = seen / LANES * LANES; pos < to; pos += LANES) {
        read_keys(&kv, pos, seen, to, k);
        for (uint32_t i = 0; i < u->n; i += SHARED) {
            float acc[SHARED][LANES] = {{0}};
            const uint32_t n = u->n - i < SHARED ? u->n - i : SHARED;
            for (uint32_t d = 0; d < hd; d++)
                for (uint32_t j = 0; j < n; j++)
                    fma16(acc[j], q[(size_t)(i + j) * hd + d], k + (size_t)d * LANES);
            for (uint32_t j = 0; j < n; j++)
                memcpy(query_at(e, c, u, i + j).score + pos, acc[j], sizeof acc[j]);
        }
    }
}

/* Tokens [first, n) of a tile: scores to weights. */
static void tile_softmax(const op_kernels *ops, float *s, uint32_t first, uint32_t n,
                         float *max, float lanes[LANES], float *factor) {
    float now = *max, c = 1.0f, p[ATTN_TILE];
    for (uint32_t j = first; j < n; j++) now = s[j] > now ? s[j] : now;
    for (uint32_t j = 0; j < ATTN_TILE; j++)
        p[j] = j >= first && j < n ? s[j] - now : -INFINITY;
    ops->exp2(p, ATTN_TILE, s);
    if (*max != now) {
        float gap = *max - now;
        ops->exp2(&gap, 1, &c);
    }
    *max = now;
    *factor = c;
    for (uint32_t i = 0; i < LANES; i++)
        lanes[i] = fmaf(lanes[i], c, (s[i] + s[i + 16]) + (s[i + 32] + s[i + 48]));
}

static float lanes_total(float x[LANES]) {
    for (uint32_t w = LANES / 2; w; w /= 2)
        for (uint32_t i = 0; i < w; i++) x[i] = x[i] + x[i + w];
    return x[0];
}

/* softmax, row by row */
static void pass_softmax(const cpu_engine *e, const cpu_op *c, const unfused_task *u) {
    for (uint32_t i = 0; i < u->n; i++) {
        const unfused_row r = query_at(e, c, u, i);
        const uint32_t end = pos_of(e, u, i) + 1, seen = kv_first_seen(u->window, end - 1);
        for (uint32_t from = seen / ATTN_SPLIT * ATTN_SPLIT; from < end; from += ATTN_SPLIT) {
            float lanes[LANES] = {0}, max = -INFINITY;
            for (uint32_t tile = from; tile < from + ATTN_SPLIT && tile < end;
                 tile += ATTN_TILE) {
                if (tile + ATTN_TILE <= seen) continue;
                if (u->cap > 0.0f) e->ops->soft_cap(r.score + tile, ATTN_TILE, u->cap);
                tile_softmax(e->ops, r.score + tile, seen > tile ? seen - tile : 0,
                             end - tile < ATTN_TILE ? end - tile : ATTN_TILE, &max, lanes,
                             r.factor + tile / ATTN_TILE);
            }
            r.max[from / ATTN_SPLIT] = max;
            r.sum[from / ATTN_SPLIT] = lanes_total(lanes);
        }
    }
}

/* Of a tile, added to the accumulators of all queries: [n][dims] */
static void tile_values(const cpu_engine *e, const cpu_op *c, const unfused_task *u,
                        const kv_head *kv, uint32_t tile, float *v, float *o) {
    const uint32_t dims = kv->format->v_dims;
    const uint32_t seen = kv_first_seen(u->window, pos_of(e, u, 0));
    for (uint32_t i = 0; i < u->n; i++) {
        const uint32_t first = kv_first_seen(u->window, pos_of(e, u, i));
        if (pos_of(e, u, i) < tile || tile + ATTN_TILE <= first) continue;
        const float f = query_at(e, c, u, i).factor[tile / ATTN_TILE];
        for (uint32_t d = 0; f != 1.0f && d < dims; d++) o[(size_t)i * dims + d] *= f;
    }
    for (uint32_t pos = tile > seen ? tile : seen; pos < tile + ATTN_TILE && pos < u->t->to;
         pos++) {
        const uint32_t at = kv_v_token_at(kv->format, pos & (kv->format->block_tokens - 1));
        to_float(kv->format->v.type, block_of(kv, pos) + at, dims, v);
        for (uint32_t i = 0; i < u->n; i++) {
            if (pos_of(e, u, i) < pos || kv_first_seen(u->window, pos_of(e, u, i)) > pos)
                continue;
            const float p = query_at(e, c, u, i).score[pos];
            for (uint32_t d = 0; d < dims; d += LANES)
                fma16(o + (size_t)i * dims + d, p, v + d);
        }
    }
}

/* P V, and the output */
static void pass_values(cpu_engine *e, const cpu_op *c, const act *out, const unfused_task *u,
                        uint32_t thread) {
    const kv_head kv = u->parts->head(e, c, u->t, u->h);
    const uint32_t dims = kv.format->v_dims;
    const uint32_t seen = kv_first_seen(u->window, pos_of(e, u, 0));
    float *v = thread_at(e, thread, e->layout.thread.attn), *o = v + dims;
    float *max = thread_at(e, thread, e->layout.thread.max), *sum = max + ATTN_MAX_QUERIES;
    float *acc = thread_at(e, thread, e->layout.thread.acc);
    for (uint32_t i = 0; i < u->n; i++) max[i] = -INFINITY, sum[i] = 0;
    memset(acc, 0, sizeof(float) * u->n * dims);
    for (uint32_t from = seen / ATTN_SPLIT * ATTN_SPLIT; from < u->t->to; from += ATTN_SPLIT) {
        memset(o, 0, sizeof(float) * u->n * dims);
        for (uint32_t tile = from; tile < from + ATTN_SPLIT && tile < u->t->to;
             tile += ATTN_TILE)
            tile_values(e, c, u, &kv, tile, v, o);
        for (uint32_t i = 0; i < u->n; i++) {
            const uint32_t pos = pos_of(e, u, i), first = kv_first_seen(u->window, pos);
            if (pos < from || from + ATTN_SPLIT <= first) continue;
            const unfused_row r = query_at(e, c, u, i);
            e->ops->attn_merge(max + i, sum + i, acc + (size_t)i * dims,
                               r.max[from / ATTN_SPLIT], r.sum[from / ATTN_SPLIT],
                               o + (size_t)i * dims, dims);
        }
    }
    u->parts->close(e, c, out, u->t, u->h, thread, &(partial){max, sum, acc});
}

/* Pass by pass, all threads together: none reads what another one still writes. */
void UNFUSED(cpu_engine *e, const cpu_op *c, const attn_parts *parts, const act *out,
             uint32_t thread) {
    const uint32_t n_kv = c->op->heads.n_kv_heads, n = e->step.n_tasks * n_kv;
    for (int pass = 0; pass < 3; pass++) {
        const span own = step_share(n, e->step.n_threads, thread);
        for (uint32_t k = own.from; k < own.to; k++) {
            unfused_task u = {.parts = parts,
                              .t = &e->step.tasks[k / n_kv],
                              .h = k % n_kv,
                              .group = heads_group(&c->op->heads),
                              .window = c->op->attention.window,
                              .cap = attn_cap(c->op)};
            u.n = u.t->n_rows * u.group;
            if (pass == 0) pass_scores(e, c, &u, thread);
            if (pass == 1) pass_softmax(e, c, &u);
            if (pass == 2) pass_values(e, c, out, &u, thread);
        }
        if (pass < 2) team_barrier(e->team, thread);
    }
}
