/* Linear layers with AVX-512 VNNI. Pure; any thread.
 *
 * Few rows: one strip (16 outputs) by up to 8 rows at a time: 8 integer and 8 float accumulators, each
 * vector of codes unpacked once for all rows, activations broadcast from memory by the load
 * ports. On Zen 4 multiplications bound it: per row, strip and 32 inputs 8 vpdpbusd, one
 * product of scales and one or two fma share the multiplier; conversions and unpacking run
 * beside.
 *
 * Many rows: engine/cpu/linear_many_avx512.h. */
#include "engine/cpu/linear.h"

#include "engine/cpu/linear_vec_avx512.h"
#include "engine/cpu/words.h"

#include "engine/cpu/linear_tile.h"

enum { ROWS = ACT_GROUP };

static void quantise_block(const float *x, act_block *b, uint32_t r) {
    __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
    const __m512i no_sign = _mm512_set1_epi32(0x7fffffff);
    __m512i m = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(x0), no_sign),
                                 _mm512_and_si512(_mm512_castps_si512(x1), no_sign));
    uint32_t big_bits = _mm512_reduce_max_epu32(m);
    float big = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128((int)big_bits)));
    bool bad = big_bits >= 0x7f800000;
    if (bad || big < ACT_TINY) {
        act_block_none(b, r, bad);
        return;
    }
    __m512 inv = _mm512_set1_ps(127.0f / big);
    __m512i q0 = _mm512_cvt_roundps_epi32(_mm512_mul_ps(x0, inv),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512i q1 = _mm512_cvt_roundps_epi32(_mm512_mul_ps(x1, inv),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128((__m128i *)b->q[r], _mm512_cvtepi32_epi8(q0));
    _mm_storeu_si128((__m128i *)(b->q[r] + 16), _mm512_cvtepi32_epi8(q1));
    act_block_set(b, r, big / 127.0f, _mm512_reduce_add_epi32(q0), _mm512_reduce_add_epi32(q1));
}

INLINE void store_rows(const job *j, uint32_t row, uint32_t out, uint32_t end,
                       const __m512 *acc, const int R) {
    const uint32_t n = end - out < STRIP ? end - out : STRIP;
    const __mmask16 lanes = (__mmask16)((1u << n) - 1);
    for (int r = 0; r < R; r++) {
        __m512 v = acc[r];
        if (j->w->scale) v = _mm512_mul_ps(v, _mm512_set1_ps(*j->w->scale));
        uint64_t at = row + (uint64_t)r;
        if (j->bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(lanes, j->bias + out));
        if (j->residual)
            v = _mm512_add_ps(v,
                              _mm512_maskz_loadu_ps(lanes, j->residual + at * j->ld_res + out));
        _mm512_mask_storeu_ps(j->y + at * j->ldy + out, lanes, v);
    }
}

/* Rows of one act_group, at the block that goes with the weights. */
typedef struct acts {
    const int8_t *q; /* [ACT_GROUP][32] */
    const float *d;  /* d, s, neg8, half of act_block: each [ACT_GROUP] */
} acts;
INLINE void acts_next(acts *a) {
    a->q += sizeof(act_block);
    a->d += sizeof(act_block) / sizeof(float);
}

/* isum[r] += codes (as stored, without offset) of group l times activations. */
INLINE void add_products(const uint8_t *codes, const dtype t, const int l, const int8_t *q,
                         __m512i *isum, const int R) {
    __m512i w = codes_of(codes, t, l);
    for (int r = 0; r < R; r++)
        isum[r] = _mm512_dpbusd_epi32(isum[r], w, broadcast4(q + 32 * r + 4 * l));
}

/* acc += 32 inputs with one scale. m of types with zero points: negative_zeros. */
INLINE void block_whole(const uint8_t *codes, const dtype t, __m512 d, __m512 m, const acts *a,
                        __m512 *acc, const int R) {
    const int offset = tile_of(t).offset;
    __m512i isum[ACT_GROUP];
    for (int r = 0; r < R; r++) {
        isum[r] = _mm512_setzero_si512();
        if (offset) isum[r] = broadcast4(a->d + 2 * ACT_GROUP + r); /* neg8 */
        if (offset == 16) isum[r] = _mm512_slli_epi32(isum[r], 1);
        if (offset == 128) isum[r] = _mm512_slli_epi32(isum[r], 4);
        if (tile_of(t).zero)
            isum[r] = _mm512_dpwssd_epi32(isum[r], _mm512_castps_si512(m),
                                          broadcast4(a->d + 3 * ACT_GROUP + r)); /* half */
    }
    for (int l = 0; l < 4; l++) { /* nibbles: both of a vector while it is there */
        const bool nibbles = tile_of(t).form != CODES_8;
        add_products(codes, t, nibbles ? l : 2 * l, a->q, isum, R);
        add_products(codes, t, nibbles ? l + 4 : 2 * l + 1, a->q, isum, R);
    }
    for (int r = 0; r < R; r++)
        acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(isum[r]),
                                 _mm512_mul_ps(d, broadcastf(a->d + r)), acc[r]);
    if (!tile_of(t).has_min) return;
    for (int r = 0; r < R; r++)
        acc[r] = _mm512_fmadd_ps(m, broadcastf(a->d + ACT_GROUP + r), acc[r]);
}

/* sum[r] = the products of 32 inputs (codes as stored), each half times its scale. Sums of 16
 * codes up to 7 fit 16 bits: one vpdpwssd scales both. */
INLINE void sum_halves(const uint8_t *codes, const dtype t, __m512i scale, const int8_t *q,
                       __m512i *sum, const int R) {
    const bool narrow = tile_of(t).form != CODES_6;
    const __m512i first = _mm512_srai_epi32(_mm512_slli_epi32(scale, 16), 16);
    const __m512i last = _mm512_srai_epi32(scale, 16);
    __m512i isum[ACT_GROUP];
    for (int r = 0; r < R; r++) isum[r] = _mm512_setzero_si512();
    for (int l = 0; l < 4; l++) add_products(codes, t, l, q, isum, R);
    for (int r = 0; r < R; r++) {
        sum[r] = narrow ? isum[r] : _mm512_mullo_epi32(isum[r], first);
        isum[r] = _mm512_setzero_si512();
    }
    for (int l = 4; l < 8; l++) add_products(codes, t, l, q, isum, R);
    for (int r = 0; r < R; r++) {
        if (narrow) {
            __m512i both =
                _mm512_mask_blend_epi16(0xaaaaaaaa, sum[r], _mm512_slli_epi32(isum[r], 16));
            sum[r] = _mm512_dpwssd_epi32(_mm512_setzero_si512(), both, scale);
        } else {
            sum[r] = _mm512_add_epi32(sum[r], _mm512_mullo_epi32(isum[r], last));
        }
    }
}

/* acc += 32 inputs with an integer scale (and minimum) for each half: pairs of int16. */
INLINE void block_halves(const uint8_t *codes, const dtype t, __m512 d, __m512 neg_m,
                         __m512i scale, __m512i min, const acts *a, __m512 *acc, const int R) {
    const int offset = tile_of(t).offset;
    const float *half = a->d + 3 * ACT_GROUP;
    __m512i sum[ACT_GROUP];
    sum_halves(codes, t, scale, a->q, sum, R);
    __m512i undo = _mm512_mullo_epi16(scale, _mm512_set1_epi16((int16_t)-offset));
    for (int r = 0; r < R; r++) {
        if (offset) sum[r] = _mm512_dpwssd_epi32(sum[r], undo, broadcast4(half + r));
        acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r]),
                                 _mm512_mul_ps(d, broadcastf(a->d + r)), acc[r]);
    }
    if (!tile_of(t).has_min) return;
    for (int r = 0; r < R; r++) {
        __m512i mins = _mm512_dpwssd_epi32(_mm512_setzero_si512(), min, broadcast4(half + r));
        acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(mins),
                                 _mm512_mul_ps(neg_m, broadcastf(a->d + r)), acc[r]);
    }
}

/* acc += a tile of 256 inputs. */
INLINE void tile256_int8(const uint8_t *tile, const dtype t, acts *a, __m512 *acc,
                         const int R) {
    const tile_info i = tile_of(t);
    const uint8_t *codes = tile + STRIP * i.head;
    _Alignas(64) tile_scales s;
    tile_scales_read(tile, t, 0, &s);
    __m512 d = load_half(tile), neg_m = d;
    if (i.has_min) neg_m = -load_half(tile + 32);
    prefetch(tile, STRIP * i.head);
    int j = 0;
    do {
        prefetch(codes, STRIP * i.codes);
        if (i.halves)
            block_halves(codes, t, d, neg_m, loadi(s.scale[j]),
                         i.has_min ? loadi(s.min[j]) : _mm512_setzero_si512(), a, acc, R);
        else
            block_whole(codes, t, loadf(s.d[j]), i.has_min ? loadf(s.m[j]) : d, a, acc, R);
        codes += STRIP * i.codes;
        acts_next(a);
    } while (++j < 8);
}

/* One strip by R rows, the rows r0.. of the group b. */
INLINE void strip_int8(const uint8_t *tile, const dtype t, uint32_t n_in, const act_block *b,
                       uint32_t r0, __m512 *acc, const int R) {
    const tile_info i = tile_of(t);
    acts a = {b->q[r0], b->d + r0};
    for (int r = 0; r < R; r++) acc[r] = _mm512_setzero_ps();
    do { /* at least one: no path on which acc lives in memory */
        if (i.n_in == 256) {
            tile256_int8(tile, t, &a, acc, R);
        } else {
            prefetch(tile, tile_bytes(t));
            __m512 d = tile_d(tile, t, 0), m = i.has_min ? load_half(tile + 32) : d;
            block_whole(tile + STRIP * i.head, t, d, m, &a, acc, R);
            acts_next(&a);
        }
        tile += tile_bytes(t);
    } while (n_in -= i.n_in);
}

/* strip_int8 of a kind with groups; t: the kind's type. */
INLINE void strip_grouped(const uint8_t *tile, const dtype kind, const dtype t, uint32_t n_in,
                          const act_block *b, uint32_t r0, __m512 *acc, const int R) {
    const tile_info i = tile_of(kind);
    const uint32_t head = STRIP * tile_of(t).head, group = tile_of(t).n_in;
    acts a = {b->q[r0], b->d + r0};
    for (int r = 0; r < R; r++) acc[r] = _mm512_setzero_ps();
    do {
        const __m512 d = floats_at(tile, dtype_scale(t), 0);
        const __m512 m = i.zero ? negative_zeros(tile, kind, t, 0) : d;
        tile += head;
        uint32_t left = group;
        do {
            prefetch(tile, STRIP * i.codes);
            block_whole(tile, kind, d, m, &a, acc, R);
            tile += STRIP * i.codes;
            acts_next(&a);
        } while (left -= 32);
    } while (n_in -= group);
}

/* ---- float activations ---- */

/* One strip of a quantised type by R rows of float activations, ld apart. */
INLINE void strip_quant(const uint8_t *tile, dtype t, floats_fn *floats, uint32_t n_in,
                        const float *x, uint64_t ld, __m512 *acc, const int R) {
    _Alignas(64) float w[256 * STRIP];
    const tile_info f = tile_of(t);
    const uint32_t n = f.grouped ? 32 : f.n_in, bytes = tile_bytes(t);
    uint32_t at = 0; /* in the tile */
    for (int r = 0; r < R; r++) acc[r] = _mm512_setzero_ps();
    do {
        floats(tile, t, at, w);
        for (uint32_t k = 0; k < n; k++)
            for (int r = 0; r < R; r++)
                acc[r] = _mm512_fmadd_ps(_mm512_load_ps(w + STRIP * k),
                                         broadcastf(x + (uint64_t)r * ld + k), acc[r]);
        x += n;
        at += n;
        if (at == f.n_in) at = 0, tile += bytes;
    } while (n_in -= n);
}

/* One strip of a float type by R rows. */
INLINE void strip_float(const uint8_t *strip, const dtype t, uint32_t n_in, const float *x,
                        uint64_t ld, __m512 *acc, const int R) {
    for (int r = 0; r < R; r++) acc[r] = _mm512_setzero_ps();
    do {
        if (R > 2) prefetch(strip, 1);
        __m512 w = floats_at(strip, t, 0);
        for (int r = 0; r < R; r++)
            acc[r] = _mm512_fmadd_ps(w, broadcastf(x + (uint64_t)r * ld), acc[r]);
        x++;
        strip += STRIP * (t == DT_F32 ? 4 : 2);
    } while (--n_in);
}

/* ---- kernels of R rows ---- */

/* t: DT_NONE for any quantised type by float activations. */
INLINE void run(const job *j, const dtype t, uint32_t row, uint32_t out, uint32_t end,
                const int R) {
    __m512 acc[ACT_GROUP];
    const uint32_t n_in = j->w->n_in;
    const uint8_t *strip = strip_of(j->w, t, out);
    if (t == DT_NONE)
        strip_quant(strip, j->w->type, j->floats, n_in, row_floats(j->a, row), n_in, acc, R);
    else if (tile_of(t).grouped)
        strip_grouped(strip, t, j->w->type, n_in, act_group(j->a, row), row % ACT_GROUP, acc,
                      R);
    else if (tile_of(t).n_in)
        strip_int8(strip, t, n_in, act_group(j->a, row), row % ACT_GROUP, acc, R);
    else
        strip_float(strip, t, n_in, row_floats(j->a, row), n_in, acc, R);
    store_rows(j, row, out, end, acc, R);
}

static void store_sums(const job *j, uint32_t row0, uint32_t row1, uint32_t out, uint32_t end,
                       const float *acc) {
    for (uint32_t row = row0; row < row1; row++, acc += STRIP) {
        const __m512 sum = loadf(acc);
        store_rows(j, row, out, end, &sum, 1);
    }
}

#include "engine/cpu/linear_many_avx512.h"

#define RUNS(name)                                                                             \
    RUN(name, 1)                                                                               \
    RUN(name, 2)                                                                               \
    RUN(name, 3)                                                                               \
    RUN(name, 4)                                                                               \
    RUN(name, 5)                                                                               \
    RUN(name, 6)                                                                               \
    RUN(name, 7)                                                                               \
    RUN(name, 8)                                                                               \
    static run_fn *const name##_runs[ROWS] = {name##_1, name##_2, name##_3, name##_4,          \
                                              name##_5, name##_6, name##_7, name##_8};
#define LINEAR_ISA   ISA_AVX512
#define LINEAR_TABLE linear_avx512
#define WORDS_FLOATS words_floats_avx512
#define WORDS_SUMS   words_sums_avx512
#include "engine/cpu/linear_body.h"
