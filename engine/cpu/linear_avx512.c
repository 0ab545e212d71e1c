/* Linear layers with AVX-512 VNNI. Pure; any thread.
 *
 * One strip (16 outputs) by up to 8 rows at a time: 8 integer and 8 float accumulators, each
 * vector of codes unpacked once for all rows, activations broadcast from memory by the load
 * ports. On Zen 4 multiplications bound it: per row, strip and 32 inputs 8 vpdpbusd, one
 * product of scales and one or two fma share the multiplier; conversions and unpacking run
 * beside. */
#include "engine/cpu/linear.h"

#include <immintrin.h>

#include "engine/cpu/linear_tiles.h"

#define INLINE static inline __attribute__((always_inline))

/* Ahead of the weights being read, in stream order. With 1 or 2 rows the loads themselves run
 * far enough ahead for the hardware's prefetcher: 5% faster without (Zen 4, 98 MB of weights).
 */
enum { PREFETCH_BYTES = 4096 };

static void quantise_block(const float *x, act_block *b, uint32_t r) {
    __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
    const __m512i no_sign = _mm512_set1_epi32(0x7fffffff);
    __m512i m = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(x0), no_sign),
                                 _mm512_and_si512(_mm512_castps_si512(x1), no_sign));
    uint32_t big_bits = _mm512_reduce_max_epu32(m);
    float big = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128((int)big_bits)));
    bool bad = big_bits >= 0x7f800000;
    if (bad || big < ACT_TINY) {
        memset(b->q[r], 0, 32);
        b->d[r] = b->s[r] = bad ? __builtin_nanf("") : 0.0f;
        b->neg8[r] = 0;
        return;
    }
    __m512 inv = _mm512_set1_ps(127.0f / big);
    __m512i q0 = _mm512_cvt_roundps_epi32(_mm512_mul_ps(x0, inv),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512i q1 = _mm512_cvt_roundps_epi32(_mm512_mul_ps(x1, inv),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(q0, q1));
    _mm_storeu_si128((__m128i *)b->q[r], _mm512_cvtepi32_epi8(q0));
    _mm_storeu_si128((__m128i *)(b->q[r] + 16), _mm512_cvtepi32_epi8(q1));
    float d = big / 127.0f;
    b->d[r] = d;
    b->s[r] = d * (float)sum;
    b->neg8[r] = -8 * sum;
}

static void quantise(const float *x, const act *a, uint32_t row) {
    CHECK(row < a->n_rows);
    act_block *b = act_group(a, row);
    for (uint32_t k = 0; k < a->n_in / 32; k++)
        quantise_block(x + 32 * k, b + k, row % ACT_GROUP);
}

/* Where results go. */
typedef struct dest {
    const float *bias, *residual;
    float *y;
    uint32_t ld_res, ldy;
} dest;

INLINE void store_rows(const dest *to, uint32_t row, uint32_t out, __mmask16 lanes,
                       const __m512 *acc, const int R) {
    for (int r = 0; r < R; r++) {
        __m512 v = acc[r];
        uint64_t at = row + (uint64_t)r;
        if (to->bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(lanes, to->bias + out));
        if (to->residual)
            v = _mm512_add_ps(
                v, _mm512_maskz_loadu_ps(lanes, to->residual + at * to->ld_res + out));
        _mm512_mask_storeu_ps(to->y + at * to->ldy + out, lanes, v);
    }
}

INLINE __m512 load_half(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
INLINE __m512i broadcast4(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}
INLINE __m512 broadcastf(const void *p) {
    return _mm512_castsi512_ps(broadcast4(p));
}
INLINE void prefetch(const uint8_t *p, const uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)p + PREFETCH_BYTES + i, _MM_HINT_T0);
}

/* isum[r] += codes (as stored, without offset) times activations. q: [R][32] */
INLINE void sum_products(const uint8_t *codes, const dtype t, const int8_t *q, __m512i *isum,
                         const int R) {
    if (t == DT_Q8_0) {
        for (int l = 0; l < 8; l++) {
            __m512i w = _mm512_loadu_si512(codes + 64 * l);
            for (int r = 0; r < R; r++)
                isum[r] = _mm512_dpbusd_epi32(isum[r], w, broadcast4(q + 32 * r + 4 * l));
        }
        return;
    }
    const __m512i low = _mm512_set1_epi8(15);
    for (int l = 0; l < 4; l++) {
        __m512i w = _mm512_loadu_si512(codes + 64 * l);
        __m512i w0 = _mm512_and_si512(w, low);
        __m512i w1 = _mm512_and_si512(_mm512_srli_epi32(w, 4), low);
        for (int r = 0; r < R; r++)
            isum[r] = _mm512_dpbusd_epi32(isum[r], w0, broadcast4(q + 32 * r + 4 * l));
        for (int r = 0; r < R; r++)
            isum[r] = _mm512_dpbusd_epi32(isum[r], w1, broadcast4(q + 32 * r + 16 + 4 * l));
    }
}

/* One strip by R rows, the rows r0.. of the group b. */
INLINE void strip_int8(const uint8_t *tile, const dtype t, uint32_t n_blocks,
                       const act_block *b, uint32_t r0, __m512 *acc, const int R) {
    const int8_t *q = b->q[r0];
    const float *d_a = b->d + r0;
    for (int r = 0; r < R; r++) acc[r] = _mm512_setzero_ps();
    do { /* at least one: no path on which acc lives in memory */
        if (R > 2) prefetch(tile, tile_bytes(t));
        __m512i isum[ACT_GROUP];
        for (int r = 0; r < R; r++) {
            if (t == DT_Q4_1)
                isum[r] = _mm512_setzero_si512();
            else
                isum[r] = broadcast4(d_a + 2 * ACT_GROUP + r); /* neg8 */
            if (t == DT_Q8_0) isum[r] = _mm512_slli_epi32(isum[r], 4);
        }
        sum_products(tile + (t == DT_Q4_1 ? 4 : 2) * STRIP, t, q, isum, R);
        __m512 d = load_half(tile);
        for (int r = 0; r < R; r++)
            acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(isum[r]),
                                     _mm512_mul_ps(d, broadcastf(d_a + r)), acc[r]);
        if (t == DT_Q4_1) {
            __m512 m = load_half(tile + 2 * STRIP);
            for (int r = 0; r < R; r++)
                acc[r] = _mm512_fmadd_ps(m, broadcastf(d_a + ACT_GROUP + r), acc[r]);
        }
        tile += tile_bytes(t);
        q += sizeof(act_block);
        d_a += sizeof(act_block) / sizeof(float);
    } while (--n_blocks);
}

/* A tile of a quantised type as float32, exactly as packed_row gives it: w[k][output]. */
INLINE void tile_floats(const uint8_t *tile, const dtype t, float *w) {
    __m512 d = load_half(tile);
    const __m512i byte = _mm512_set1_epi32(t == DT_Q8_0 ? 255 : 15);
    const __m512i offset = _mm512_set1_epi32(t == DT_Q8_0 ? 128 : t == DT_Q4_0 ? 8 : 0);
    __m512 m = t == DT_Q4_1 ? load_half(tile + 2 * STRIP) : _mm512_setzero_ps();
    const uint8_t *codes = tile + (t == DT_Q4_1 ? 4 : 2) * STRIP;
    for (unsigned k = 0; k < 32; k++) {
        __m512i v = _mm512_loadu_si512(codes + 64 * (t == DT_Q8_0 ? k / 4 : k % 16 / 4));
        v = _mm512_srli_epi32(v, 8 * (k % 4) + (t != DT_Q8_0 && k >= 16 ? 4 : 0));
        v = _mm512_sub_epi32(_mm512_and_si512(v, byte), offset);
        __m512 f = _mm512_mul_ps(d, _mm512_cvtepi32_ps(v));
        _mm512_store_ps(w + STRIP * k, t == DT_Q4_1 ? _mm512_add_ps(f, m) : f);
    }
}

/* Weights of one input. */
INLINE __m512 load_floats(const uint8_t *p, const dtype t) {
    if (t == DT_F16) return load_half(p);
    if (t == DT_BF16)
        return _mm512_castsi512_ps(_mm512_slli_epi32(
            _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
    return _mm512_loadu_ps((const float *)p);
}

/* One strip by R rows of float activations, ld apart. */
INLINE void strip_float(const uint8_t *strip, const dtype t, uint32_t n_in, const float *x,
                        uint64_t ld, __m512 *acc, const int R) {
    for (int r = 0; r < R; r++) acc[r] = _mm512_setzero_ps();
    if (tile_bytes(t)) {
        _Alignas(64) float w[32 * STRIP];
        do {
            tile_floats(strip, t, w);
            for (int k = 0; k < 32; k++)
                for (int r = 0; r < R; r++)
                    acc[r] = _mm512_fmadd_ps(_mm512_load_ps(w + STRIP * k),
                                             broadcastf(x + (uint64_t)r * ld + k), acc[r]);
            x += 32;
            strip += tile_bytes(t);
        } while (n_in -= 32);
        return;
    }
    do {
        if (R > 2) prefetch(strip, 1);
        __m512 w = load_floats(strip, t);
        for (int r = 0; r < R; r++)
            acc[r] = _mm512_fmadd_ps(w, broadcastf(x + (uint64_t)r * ld), acc[r]);
        x++;
        strip += STRIP * (t == DT_F32 ? 4 : 2);
    } while (--n_in);
}

/* What a kernel of R rows needs, whatever its types. */
typedef struct job {
    const packed *w;
    const act *a;
    dest to;
} job;

INLINE void run(const job *j, const dtype t, const bool int8, uint32_t row, uint32_t out,
                __mmask16 lanes, const int R) {
    __m512 acc[ACT_GROUP];
    uint32_t n_in = j->w->n_in;
    const uint8_t *strip = (const uint8_t *)j->w->tiles + out / STRIP * strip_bytes(t, n_in);
    if (int8)
        strip_int8(strip, t, n_in / 32, act_group(j->a, row), row % ACT_GROUP, acc, R);
    else
        strip_float(strip, t, n_in, j->a->f + (uint64_t)row * n_in, n_in, acc, R);
    store_rows(&j->to, row, out, lanes, acc, R);
}

typedef void run_fn(const job *, uint32_t row, uint32_t out, __mmask16 lanes);

#define RUN(name, t, int8, R)                                                                  \
    static void name##_##R(const job *j, uint32_t row, uint32_t out, __mmask16 lanes) {        \
        run(j, t, int8, row, out, lanes, R);                                                   \
    }
#define RUNS(name, t, int8)                                                                    \
    RUN(name, t, int8, 1)                                                                      \
    RUN(name, t, int8, 2)                                                                      \
    RUN(name, t, int8, 3)                                                                      \
    RUN(name, t, int8, 4)                                                                      \
    RUN(name, t, int8, 5)                                                                      \
    RUN(name, t, int8, 6)                                                                      \
    RUN(name, t, int8, 7)                                                                      \
    RUN(name, t, int8, 8)                                                                      \
    static run_fn *const name[ACT_GROUP] = {name##_1, name##_2, name##_3, name##_4,            \
                                            name##_5, name##_6, name##_7, name##_8};

RUNS(q8_0_int8, DT_Q8_0, true)
RUNS(q4_0_int8, DT_Q4_0, true)
RUNS(q4_1_int8, DT_Q4_1, true)
RUNS(q8_0_float, DT_Q8_0, false)
RUNS(q4_0_float, DT_Q4_0, false)
RUNS(q4_1_float, DT_Q4_1, false)
RUNS(f32_float, DT_F32, false)
RUNS(f16_float, DT_F16, false)
RUNS(bf16_float, DT_BF16, false)

static run_fn *const *kernels_for(dtype t, bool int8) {
    switch (t) {
    case DT_Q8_0: return int8 ? q8_0_int8 : q8_0_float;
    case DT_Q4_0: return int8 ? q4_0_int8 : q4_0_float;
    case DT_Q4_1: return int8 ? q4_1_int8 : q4_1_float;
    case DT_F16: return f16_float;
    case DT_BF16: return bf16_float;
    default: return f32_float;
    }
}

/* Rows in chunks whose activations stay in the second cache, then strip by strip: a strip stays
 * in the first cache for all rows of the chunk. */
static void linear(const packed *w, const act *a, uint32_t row0, uint32_t row1, uint32_t out0,
                   uint32_t out1, const float *bias, const float *residual, uint32_t ld_res,
                   float *y, uint32_t ldy) {
    linear_check(w, a, row1, out0, out1);
    run_fn *const *kernels = kernels_for(w->type, act_is_int8(w, a));
    job j = {w, a, {bias, residual, y, ld_res, ldy}};
    for (uint32_t from = row0, to; from < row1; from = to) {
        to = from - from % ROWS_IN_CACHE + ROWS_IN_CACHE;
        if (to > row1) to = row1;
        for (uint32_t out = out0; out < out1; out += STRIP) {
            uint32_t n = out1 - out < STRIP ? out1 - out : STRIP;
            for (uint32_t row = from, next; row < to; row = next) {
                next = row - row % ACT_GROUP + ACT_GROUP;
                if (next > to) next = to;
                kernels[next - row - 1](&j, row, out, (__mmask16)((1u << n) - 1));
            }
        }
    }
}

const linear_kernels linear_avx512 = {ISA_AVX512, quantise, linear};
