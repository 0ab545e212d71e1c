/* Attention over the paged cache: against softmax in float64, and bit for bit among the
 * instruction sets, among groupings of rows, among ways to split a sequence, and among blocks
 * in any order with anything in their unwritten slots; with and without windows, caps on the
 * scores and sinks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/half.h"
#include "base/hash.h"
#include "engine/cpu/linear.h"
#include "engine/cpu/ops.h"
#include "tests/check_main.h"

typedef struct shape {
    uint32_t head_dim, group, block_tokens, len; /* len: tokens in the cache */
    dtype k, v;
    uint32_t window;
    bool tail;       /* the newest tokens in full precision */
    float cap;       /* of the scores; 0: none */
    bool sinks;      /* one more score for each query, without a value */
    uint32_t latent; /* V is so many dimensions of K, the first; 0: it is apart */
} shape;

/* Dimensions of V. */
static uint32_t v_dim(const shape *s) {
    return s->latent ? s->latent : s->head_dim;
}

static const shape shapes[] = {
    {64, 3, 16, 700, DT_F16, DT_F16, 0, false, 0, false, 0},
    {64, 1, 8, 130, DT_F16, DT_F16, 0, false, 0, false, 0},
    {128, 4, 32, 300, DT_BF16, DT_BF16, 0, false, 0, false, 0},
    {80, 8, 16, 200, DT_F16, DT_F16, 0, false, 0, false, 0},
    {96, 2, 64, 150, DT_F32, DT_F32, 0, false, 0, false, 0},
    {256, 7, 16, 90, DT_BF16, DT_BF16, 0, false, 0, false, 0},
    {40, 24, 8, 140, DT_F32, DT_F32, 0, false, 0, false, 0},
    {8, 5, 256, 600, DT_F16, DT_F16, 0, false, 0, false, 0},
    {64, 3, 16, 1100, DT_F32, DT_F32, 0, false, 0, false, 0},
    {128, 6, 128, 530, DT_F16, DT_F16, 0, false, 0, false, 0},
    /* Windows: within a group, a tile, a split; more than a split; of one; past the length. */
    {64, 3, 16, 700, DT_F16, DT_F16, 5, false, 0, false, 0},
    {64, 1, 8, 130, DT_F16, DT_F16, 20, false, 0, false, 0},
    {256, 4, 16, 1300, DT_F16, DT_F16, 512, false, 0, false, 0},
    {128, 4, 32, 300, DT_BF16, DT_BF16, 64, false, 0, false, 0},
    {40, 24, 8, 140, DT_F32, DT_F32, 1, false, 0, false, 0},
    {64, 3, 16, 1300, DT_F32, DT_F32, 700, false, 0, false, 0},
    {96, 2, 64, 150, DT_F32, DT_F32, 100, false, 0, false, 0},
    {64, 2, 16, 90, DT_F16, DT_F16, 400, false, 0, false, 0},
    /* K and V of different types. */
    {64, 3, 16, 700, DT_F32, DT_F16, 0, false, 0, false, 0},
    {40, 5, 8, 200, DT_F16, DT_F32, 0, false, 0, false, 0},
    {128, 4, 32, 300, DT_BF16, DT_F16, 64, false, 0, false, 0},
    {80, 2, 8, 140, DT_F32, DT_BF16, 30, false, 0, false, 0},
    {96, 7, 64, 600, DT_F16, DT_BF16, 0, false, 0, false, 0},
    {64, 1, 16, 1100, DT_BF16, DT_F32, 700, false, 0, false, 0},
    /* Codes with scales: segments of 64, 32 and 16, one to sixteen of them. */
    {64, 3, 16, 700, DT_INT8, DT_INT8, 0, false, 0, false, 0},
    {256, 4, 16, 1300, DT_INT8, DT_INT8, 512, false, 0, false, 0},
    {80, 8, 32, 200, DT_INT8, DT_INT8, 0, false, 0, false, 0},
    {96, 2, 256, 600, DT_INT8, DT_INT8, 100, false, 0, false, 0},
    {64, 3, 16, 1100, DT_Q8_0, DT_Q8_0, 0, false, 0, false, 0},
    {128, 5, 64, 300, DT_Q8_0, DT_Q8_0, 64, false, 0, false, 0},
    {16, 24, 16, 140, DT_Q8_0, DT_Q8_0, 1, false, 0, false, 0},
    {64, 3, 16, 700, DT_FP8, DT_FP8, 5, false, 0, false, 0},
    {240, 2, 16, 600, DT_FP8, DT_FP8, 0, false, 0, false, 0},
    {64, 3, 16, 1100, DT_INT4, DT_INT4, 0, false, 0, false, 0},
    {128, 4, 32, 700, DT_INT4, DT_INT4, 70, false, 0, false, 0},
    {80, 7, 16, 200, DT_INT4, DT_INT4, 0, false, 0, false, 0},
    {64, 1, 16, 700, DT_INT8, DT_F16, 0, false, 0, false, 0},
    {64, 3, 16, 300, DT_F32, DT_INT4, 20, false, 0, false, 0},
    {128, 6, 16, 530, DT_INT8, DT_INT4, 0, false, 0, false, 0},
    {32, 2, 16, 300, DT_FP8, DT_BF16, 0, false, 0, false, 0},
    /* With a tail: long, short of it, in blocks of all sizes, within windows and without older ones,
     * beside codes that are not rotated and beside none. */
    {64, 3, 16, 1100, DT_INT4, DT_INT4, 0, true, 0, false, 0},
    {128, 4, 32, 700, DT_INT4, DT_INT4, 0, true, 0, false, 0},
    {256, 4, 16, 1300, DT_INT4, DT_INT4, 512, true, 0, false, 0},
    {80, 7, 128, 600, DT_INT4, DT_INT4, 70, true, 0, false, 0},
    {64, 1, 16, 300, DT_INT4, DT_INT4, 20, true, 0, false, 0},
    {64, 24, 16, 63, DT_INT4, DT_INT4, 0, true, 0, false, 0},
    {64, 2, 16, 600, DT_INT4, DT_INT4, 64, true, 0, false, 0},
    {32, 8, 16, 200, DT_INT4, DT_INT8, 0, true, 0, false, 0},
    {128, 6, 16, 577, DT_INT8, DT_INT4, 0, true, 0, false, 0},
    {96, 3, 64, 700, DT_Q8_0, DT_INT4, 0, true, 0, false, 0},
    {64, 5, 16, 400, DT_F32, DT_INT4, 0, true, 0, false, 0},
    {64, 5, 16, 400, DT_INT4, DT_FP8, 100, true, 0, false, 0},
    /* Caps that most scores feel, and sinks: every type, windows, splits, a tail. */
    {64, 3, 16, 1100, DT_F16, DT_F16, 0, false, 2, false, 0},
    {128, 4, 32, 300, DT_BF16, DT_BF16, 64, false, 0.5f, true, 0},
    {40, 24, 8, 140, DT_F32, DT_F32, 1, false, 3, true, 0},
    {96, 2, 64, 1300, DT_F32, DT_F32, 700, false, 0, true, 0},
    {64, 8, 16, 700, DT_F16, DT_F16, 128, false, 0, true, 0},
    {80, 8, 32, 600, DT_INT8, DT_INT8, 0, false, 2, true, 0},
    {128, 5, 64, 300, DT_Q8_0, DT_Q8_0, 64, false, 1, true, 0},
    {64, 3, 16, 700, DT_FP8, DT_FP8, 5, false, 4, true, 0},
    {64, 2, 16, 1100, DT_INT4, DT_INT4, 0, true, 2, true, 0},
    {256, 4, 16, 600, DT_INT8, DT_F16, 512, false, 30, true, 0},
    /* V within K: every type, whole vectors of 16 and not, splits, a tail, rows as they are published. */
    {48, 13, 16, 700, DT_F16, DT_F16, 0, false, 0, false, 32},
    {40, 5, 8, 600, DT_BF16, DT_BF16, 0, false, 0, false, 32},
    {32, 24, 8, 140, DT_F32, DT_F32, 0, false, 0, false, 24},
    {56, 3, 64, 1100, DT_F32, DT_F32, 0, false, 0, false, 40},
    {48, 4, 16, 700, DT_INT8, DT_INT8, 0, false, 0, false, 32},
    {96, 7, 32, 600, DT_Q8_0, DT_Q8_0, 0, false, 0, false, 64},
    {80, 2, 16, 300, DT_FP8, DT_FP8, 0, false, 0, false, 64},
    {80, 6, 16, 700, DT_INT4, DT_INT4, 0, false, 0, false, 64},
    {80, 6, 16, 700, DT_INT4, DT_INT4, 0, true, 0, false, 64},
    {576, 16, 16, 530, DT_F16, DT_F16, 0, false, 0, false, 512},
    {576, 20, 32, 90, DT_INT8, DT_INT8, 0, false, 0, false, 512},
    {576, 16, 16, 577, DT_INT4, DT_INT4, 0, true, 0, false, 512},
};
enum {
    N_SHAPES = sizeof shapes / sizeof *shapes,
    MAX_DIM = 576,
    STALE = 0xff,
    HIDDEN = 1 << 30
};

static float random_float(uint64_t i) {
    uint64_t h = hash_mix(i + 1);
    return ((float)(h & 0xffff) + (float)(h >> 16 & 0xffff) + (float)(h >> 32 & 0xffff)) /
               65536.0f -
           1.5f;
}

/* A cache of one head, its blocks in an order keyed by seed, unwritten bytes 0xff (NaN). */
typedef struct store {
    kv_head kv;
    int32_t *table;
    float *k, *v; /* [len][head_dim], as stored */
    kv_format format;
} store;
typedef struct cache {
    store all, tail; /* tail: of shapes that have one */
} cache;

/* What a reader sees of x[n] in a cache of that type. */
static void as_stored(const kv_type *t, uint32_t segment, const float *x, uint32_t n,
                      float *out) {
    uint8_t codes[64];
    memcpy(out, x, n * sizeof *x);
    for (uint32_t i = 0; i < n && t->rotated && !t->word_bytes; i += segment)
        kv_hadamard(out + i, segment);
    for (uint32_t i = 0; i < n && t->type == DT_F16; i++)
        out[i] = half_to_float(half_of_float(out[i]));
    for (uint32_t i = 0; i < n && t->rotated && !t->word_bytes; i += segment)
        kv_hadamard(out + i, segment);
    for (uint32_t i = 0; i < n && t->rotated && !t->word_bytes; i++) out[i] /= (float)segment;
    for (uint32_t i = 0; i < n && t->type == DT_BF16; i++)
        out[i] = bf16_to_float(bf16_of_float(x[i]));
    for (uint32_t i = 0; i < n && t->word_bytes; i += segment) {
        const uint16_t word = kv_encode(t, out + i, segment, codes);
        kv_decode(t, word, codes, segment, out + i);
    }
}

static void store_open(store *c, const shape *s, const kv_type *kt, const kv_type *vt,
                       uint64_t seed) {
    const uint32_t hd = s->head_dim, n = (uint32_t)ceil_div(s->len, s->block_tokens);
    const uint32_t n_physical = n + 3;
    kv_format_init(&c->format, KV_LANES, kt, vt, s->block_tokens, 1, hd);
    if (s->latent) kv_format_drop_v(&c->format, s->latent);
    c->kv = (kv_head){.block_stride = kv_block_bytes(&c->format, 1), .format = &c->format};
    c->kv.base = malloc(c->kv.block_stride * n_physical);
    c->table = malloc(n_physical * sizeof *c->table);
    c->k = malloc((size_t)s->len * hd * sizeof(float));
    c->v = malloc((size_t)s->len * hd * sizeof(float));
    ck_assert(c->kv.base && c->table && c->k && c->v);
    memset(c->kv.base, STALE, c->kv.block_stride * n_physical);
    for (uint32_t i = 0; i < n_physical; i++) c->table[i] = (int32_t)i;
    for (uint32_t i = n_physical; i-- > 1;) {
        uint32_t j = (uint32_t)(hash_mix(seed * 1000 + i) % (i + 1));
        int32_t t = c->table[i];
        c->table[i] = c->table[j], c->table[j] = t;
    }
    c->kv.blocks = c->table;
    for (uint32_t t = 0; t < s->len; t++) {
        float k[MAX_DIM], v[MAX_DIM];
        for (uint32_t d = 0; d < hd; d++) {
            k[d] = random_float((uint64_t)t * hd + d);
            v[d] = random_float(((uint64_t)t * hd + d) ^ 0x5555555);
        }
        ops_plain.kv_append(&c->kv, t, k, v);
        as_stored(&c->format.k, c->format.k_segment, k, hd, c->k + (size_t)t * hd);
        if (s->latent)
            memcpy(c->v + (size_t)t * hd, c->k + (size_t)t * hd, hd * sizeof *c->v);
        else
            as_stored(&c->format.v, c->format.v_segment, v, hd, c->v + (size_t)t * hd);
    }
}

static void cache_open(cache *c, const shape *s, uint64_t seed) {
    const kv_type *k = kv_type_get(s->k), *v = kv_type_get(s->v);
    const kv_type tail_k = kv_tail_type(k), tail_v = kv_tail_type(v);
    *c = (cache){0};
    store_open(&c->all, s, k, v, seed);
    if (s->tail) store_open(&c->tail, s, &tail_k, &tail_v, seed + 100);
}

static void store_close(store *c) {
    free(c->kv.base);
    free(c->table);
    free(c->k);
    free(c->v);
}
static void cache_close(cache *c) {
    store_close(&c->all);
    store_close(&c->tail);
}

static const kv_head *tail_of(const cache *c) {
    return c->tail.table ? &c->tail.kv : NULL;
}

/* Queries of the rows from first_pos on; a row's query depends on its position only. */
static void make_queries(float *q, const shape *s, uint32_t first_pos, uint32_t n_rows) {
    for (uint32_t r = 0; r < n_rows; r++)
        for (uint32_t i = 0; i < s->group * s->head_dim; i++)
            q[(size_t)r * s->group * s->head_dim + i] =
                0.7f * random_float(((uint64_t)(first_pos + r) << 20) + i);
}

/* Queries as attend has them: turned as K is. */
static void turn_queries(const op_kernels *k, const kv_format *f, float *q, uint32_t n) {
    if (!f->k.rotated) return;
    for (uint32_t i = 0; i < n * f->head_dim; i++) q[i] = q[i] / (float)f->k_segment;
    k->hadamard(q, n * f->head_dim, f->k_segment);
}
static float sink_of(uint32_t query) {
    return 4 * random_float(query ^ 0x77777);
}
static void finish(const op_kernels *k, const kv_format *f, const shape *s, uint32_t query,
                   float max, float sum, const float *acc, float *out) {
    if (s->sinks) sum = sum + k->attn_sink(max, sink_of(query));
    k->attn_finish(f->v.rotated ? sum * (float)f->v_segment : sum, acc, v_dim(s), out);
    if (f->v.rotated) k->hadamard(out, v_dim(s), f->v_segment);
}

/* Blocks that no row from first on sees are somewhere else: reading there would be a fault. */
static void hide_unseen(const store *c, const shape *s, uint32_t window, uint32_t first) {
    for (uint32_t i = 0;
         window && first >= window && i < (first + 1 - window) / s->block_tokens; i++)
        if (c->table[i] < HIDDEN) c->table[i] += HIDDEN;
}
static void show_all(const store *c, const shape *s) {
    for (uint32_t i = 0; c->table && i < s->len / s->block_tokens; i++)
        if (c->table[i] >= HIDDEN) c->table[i] -= HIDDEN;
}

/* Output of rows [first, first + n): [n * group][v_dim], through attend in one part. */
static void attend_rows(const op_kernels *k, const cache *c, const shape *s, uint32_t first,
                        uint32_t n, float *out) {
    static float q[ATTN_MAX_QUERIES * MAX_DIM], acc[ATTN_MAX_QUERIES * MAX_DIM];
    float max[ATTN_MAX_QUERIES], sum[ATTN_MAX_QUERIES];
    void *scratch = aligned_alloc(64, attn_scratch_bytes(s->head_dim));
    ck_assert_ptr_nonnull(scratch);
    memset(scratch, STALE, attn_scratch_bytes(s->head_dim));
    ck_assert(n * s->group <= ATTN_MAX_QUERIES);
    make_queries(q, s, first, n);
    turn_queries(k, &c->all.format, q, n * s->group);
    attn_part p = {.q = q,
                   .n_rows = n,
                   .group = s->group,
                   .first_pos = first,
                   .window = s->window,
                   .cap = s->cap,
                   .from = 0,
                   .to = first + n,
                   .max = max,
                   .sum = sum,
                   .acc = acc,
                   .scratch = scratch};
    hide_unseen(&c->all, s, s->window, first);
    if (s->tail) hide_unseen(&c->tail, s, KV_TAIL_TOKENS, first);
    k->attend(&c->all.kv, tail_of(c), &p);
    show_all(&c->all, s);
    show_all(&c->tail, s);
    for (uint32_t i = 0; i < n * s->group; i++)
        finish(k, &c->all.format, s, i % s->group, max[i], sum[i],
               acc + (size_t)i * c->all.format.v_dims, out + (size_t)i * v_dim(s));
    free(scratch);
}

static void assert_same(const float *a, const float *b, uint32_t n, const char *what,
                        uint32_t shape_index, cpu_isa isa) {
    for (uint32_t i = 0; i < n; i++)
        ck_assert_msg(bits_of_float(a[i]) == bits_of_float(b[i]),
                      "%s, shape %u, isa %d: element %u is %a and %a", what, shape_index, isa,
                      i, (double)a[i], (double)b[i]);
}

static uint32_t tables(const op_kernels **out) {
    uint32_t n = 0;
    out[n++] = &ops_plain;
    if (linear_kernels_get(ISA_AVX2)) out[n++] = &ops_avx2;
    if (linear_kernels_get(ISA_AVX512)) out[n++] = &ops_avx512;
    return n;
}

/* Whether the query at pos reads token j from the tail. */
static bool is_newest(const shape *s, uint32_t pos, uint32_t j) {
    return s->tail && pos - j < 64;
}

START_TEST(attention_is_near_softmax_in_float64) {
    const shape *s = &shapes[_i];
    const uint32_t hd = s->head_dim, vd = v_dim(s), pos = s->len - 1;
    /* By integer codes, queries and weights have 16 bits; scores grow with the dimensions. */
    const bool integers = kv_type_get(s->k)->integers || kv_type_get(s->v)->integers;
    const double near = (integers ? 4e-5 : 1e-5) * fmax(1, hd / 256.0);
    static float out[ATTN_MAX_QUERIES * MAX_DIM], q[ATTN_MAX_QUERIES * MAX_DIM];
    const op_kernels *k[3];
    cache c;
    cache_open(&c, s, 1);
    double *w = malloc(s->len * sizeof *w);
    ck_assert_ptr_nonnull(w);
    make_queries(q, s, pos, 1);
    for (uint32_t t = 0, n = tables(k); t < n; t++) {
        attend_rows(k[t], &c, s, pos, 1, out);
        for (uint32_t g = 0; g < s->group; g++) {
            const uint32_t from = s->window && pos >= s->window ? pos + 1 - s->window : 0;
            double best = -INFINITY, sum = 0;
            for (uint32_t j = from; j < s->len; j++) {
                const float *key = (is_newest(s, pos, j) ? c.tail.k : c.all.k) + (size_t)j * hd;
                w[j] = 0;
                for (uint32_t d = 0; d < hd; d++) w[j] += (double)q[g * hd + d] * key[d];
                if (s->cap > 0) w[j] = s->cap * tanh(w[j] / s->cap);
                best = fmax(best, w[j]);
            }
            for (uint32_t j = from; j < s->len; j++) sum += w[j] = exp2(w[j] - best);
            if (s->sinks) sum += exp2(sink_of(g) - best);
            for (uint32_t d = 0; d < vd; d++) {
                double want = 0;
                for (uint32_t j = from; j < s->len; j++)
                    want += w[j] / sum *
                            (is_newest(s, pos, j) ? c.tail.v : c.all.v)[(size_t)j * hd + d];
                ck_assert_double_le(fabs(out[g * vd + d] - want), near);
            }
        }
    }
    free(w);
    cache_close(&c);
}
END_TEST

START_TEST(every_isa_gives_the_bits_of_plain_c) {
    const shape *s = &shapes[_i];
    const uint32_t most = ATTN_MAX_QUERIES / s->group;
    static float want[ATTN_MAX_QUERIES * MAX_DIM], got[ATTN_MAX_QUERIES * MAX_DIM];
    const op_kernels *k[3];
    uint32_t n_k = tables(k);
    cache c;
    cache_open(&c, s, 2);
    for (uint32_t n = 1; n <= most; n += most > 6 ? 5 : 1)
        for (uint32_t first = 0; first + n <= s->len; first += s->len / 7 + 1) {
            attend_rows(k[0], &c, s, first, n, want);
            for (uint32_t t = 1; t < n_k; t++) {
                attend_rows(k[t], &c, s, first, n, got);
                assert_same(want, got, n * s->group * v_dim(s), "attend", (uint32_t)_i,
                            k[t]->isa);
            }
        }
    cache_close(&c);
}
END_TEST

START_TEST(a_row_has_the_same_bits_alone_and_among_its_neighbours) {
    const shape *s = &shapes[_i];
    const uint32_t most = ATTN_MAX_QUERIES / s->group, width = s->group * v_dim(s);
    static float all[ATTN_MAX_QUERIES * MAX_DIM], one[ATTN_MAX_QUERIES * MAX_DIM];
    const op_kernels *k[3];
    cache c, d;
    cache_open(&c, s, 3);
    cache_open(&d, s, 4); /* the same tokens in other blocks */
    for (uint32_t t = 1, n_k = tables(k); t < n_k; t++)
        for (uint32_t first = 0; first + most <= s->len; first += 31) {
            attend_rows(k[t], &c, s, first, most, all);
            for (uint32_t r = 0; r < most; r++) {
                attend_rows(k[t], &d, s, first + r, 1, one);
                assert_same(all + (size_t)r * width, one, width, "row", (uint32_t)_i,
                            k[t]->isa);
            }
        }
    cache_close(&c);
    cache_close(&d);
}
END_TEST

START_TEST(splits_joined_in_order_have_the_bits_of_the_whole) {
    const shape *s = &shapes[_i];
    const uint32_t vd = v_dim(s), dp = attn_dim_pad(vd), pos = s->len - 1;
    static float whole[ATTN_MAX_QUERIES * MAX_DIM], q[ATTN_MAX_QUERIES * MAX_DIM];
    static float acc[ATTN_MAX_QUERIES * MAX_DIM], part_acc[ATTN_MAX_QUERIES * MAX_DIM];
    float max[ATTN_MAX_QUERIES], sum[ATTN_MAX_QUERIES], out[MAX_DIM];
    float part_max[ATTN_MAX_QUERIES], part_sum[ATTN_MAX_QUERIES];
    const op_kernels *k[3];
    void *scratch = aligned_alloc(64, attn_scratch_bytes(s->head_dim));
    ck_assert_ptr_nonnull(scratch);
    cache c;
    cache_open(&c, s, 5);
    make_queries(q, s, pos, 1);
    turn_queries(&ops_plain, &c.all.format, q, s->group);
    for (uint32_t t = 0, n_k = tables(k); t < n_k; t++) {
        attend_rows(k[t], &c, s, pos, 1, whole);
        for (uint32_t g = 0; g < s->group; g++) max[g] = -INFINITY;
        for (uint32_t from = 0; from < s->len; from += ATTN_SPLIT) {
            attn_part p = {.q = q,
                           .n_rows = 1,
                           .group = s->group,
                           .first_pos = pos,
                           .window = s->window,
                           .cap = s->cap,
                           .from = from,
                           .to = s->len,
                           .max = part_max,
                           .sum = part_sum,
                           .acc = part_acc,
                           .scratch = scratch};
            if (s->len - from > ATTN_SPLIT) p.to = from + ATTN_SPLIT;
            k[t]->attend(&c.all.kv, tail_of(&c), &p);
            for (uint32_t g = 0; g < s->group; g++)
                k[t]->attn_merge(max + g, sum + g, acc + (size_t)g * dp, part_max[g],
                                 part_sum[g], part_acc + (size_t)g * dp, dp);
        }
        for (uint32_t g = 0; g < s->group; g++) {
            finish(k[t], &c.all.format, s, g, max[g], sum[g], acc + (size_t)g * dp, out);
            assert_same(whole + (size_t)g * vd, out, vd, "splits", (uint32_t)_i, k[t]->isa);
        }
    }
    free(scratch);
    cache_close(&c);
}
END_TEST

int main(void) {
    Suite *s = suite_create("attention");
    TCase *t = check_case(s, "attention");
    tcase_add_loop_test(t, attention_is_near_softmax_in_float64, 0, N_SHAPES);
    tcase_add_loop_test(t, every_isa_gives_the_bits_of_plain_c, 0, N_SHAPES);
    tcase_add_loop_test(t, a_row_has_the_same_bits_alone_and_among_its_neighbours, 0, N_SHAPES);
    tcase_add_loop_test(t, splits_joined_in_order_have_the_bits_of_the_whole, 0, N_SHAPES);
    return check_run(s);
}
