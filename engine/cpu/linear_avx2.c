/* Linear layers with AVX2, FMA and F16C (no VNNI). Pure; any thread.
 *
 * vpmaddubsw adds two products of unsigned by signed bytes in 16 bits, saturating, so the codes
 * decide: 4-bit codes (0..15 by -127..127) allow 8 such sums, 30,480, in one 16-bit lane, which
 * is a whole block. 8-bit codes go in as magnitudes (0..128), their signs moved to the
 * activations: one sum is at most 32,512. Nothing saturates: the sums are exact. */
#include "engine/cpu/linear.h"

#include <immintrin.h>

#include "engine/cpu/linear_tiles.h"

#define INLINE static inline __attribute__((always_inline))

enum { PREFETCH_BYTES = 4096, ROWS = 4 }; /* with 1 or 2 rows the hardware does better */

INLINE __m256i loadi(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
INLINE __m256 load_half(const uint8_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
INLINE __m256i broadcast4(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}
INLINE void prefetch(const uint8_t *p, const uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)p + PREFETCH_BYTES + i, _MM_HINT_T0);
}

INLINE uint32_t reduce_max(__m256i v) {
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}
INLINE int32_t reduce_add(__m256i v) {
    __m128i m = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtsi128_si32(m);
}

static void quantise_block(const float *x, act_block *b, uint32_t r) {
    __m256 v[4];
    __m256i m = _mm256_setzero_si256(), q[4];
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        m = _mm256_max_epu32(
            m, _mm256_and_si256(_mm256_castps_si256(v[i]), _mm256_set1_epi32(0x7fffffff)));
    }
    uint32_t big_bits = reduce_max(m);
    float big = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128((int)big_bits)));
    bool bad = big_bits >= 0x7f800000;
    if (bad || big < ACT_TINY) {
        memset(b->q[r], 0, 32);
        b->d[r] = b->s[r] = bad ? __builtin_nanf("") : 0.0f;
        b->neg8[r] = 0;
        return;
    }
    __m256 inv = _mm256_set1_ps(127.0f / big);
    /* Rounded as integers are by hand: the current rounding mode is never consulted. */
    for (int i = 0; i < 4; i++)
        q[i] = _mm256_cvttps_epi32(_mm256_round_ps(
            _mm256_mul_ps(v[i], inv), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    int32_t sum = reduce_add(
        _mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3])));
    /* Packing works within halves of 128 bits: put the groups of four back in order. */
    __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)b->q[r], bytes);
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

/* Keeps v as it is at this point: gcc would turn chains of integer additions into trees, whose
 * leaves do not fit 16 registers (half the speed). */
#define IN_ORDER(v) __asm__("" : "+x"(v))

/* isum of 8 outputs by R rows; 4-bit codes, without the offset. codes: this half's. */
INLINE void sum_products4(const uint8_t *codes, const int8_t *q, __m256i *isum, const int R) {
    const __m256i low = _mm256_set1_epi8(15);
    __m256i sum16[ROWS];
    for (int l = 0; l < 4; l++) {
        __m256i w = loadi(codes + 64 * l);
        __m256i w0 = _mm256_and_si256(w, low);
        __m256i w1 = _mm256_and_si256(_mm256_srli_epi16(w, 4), low);
        for (int r = 0; r < R; r++) {
            __m256i p = _mm256_maddubs_epi16(w0, broadcast4(q + 32 * r + 4 * l));
            sum16[r] = l ? _mm256_add_epi16(sum16[r], p) : p;
            IN_ORDER(sum16[r]);
        }
        for (int r = 0; r < R; r++) {
            __m256i p = _mm256_maddubs_epi16(w1, broadcast4(q + 32 * r + 16 + 4 * l));
            sum16[r] = _mm256_add_epi16(sum16[r], p);
            IN_ORDER(sum16[r]);
        }
    }
    for (int r = 0; r < R; r++) isum[r] = _mm256_madd_epi16(sum16[r], _mm256_set1_epi16(1));
}

/* The same for 8-bit codes; true sums, the offset undone first. */
INLINE void sum_products8(const uint8_t *codes, const int8_t *q, __m256i *isum, const int R) {
    for (int r = 0; r < R; r++) isum[r] = _mm256_setzero_si256();
    for (int l = 0; l < 8; l++) {
        __m256i w = _mm256_xor_si256(loadi(codes + 64 * l), _mm256_set1_epi8(-128));
        __m256i size = _mm256_abs_epi8(w);
        for (int r = 0; r < R; r++) {
            __m256i x = _mm256_sign_epi8(broadcast4(q + 32 * r + 4 * l), w);
            x = _mm256_madd_epi16(_mm256_maddubs_epi16(size, x), _mm256_set1_epi16(1));
            isum[r] = _mm256_add_epi32(isum[r], x);
            IN_ORDER(isum[r]);
        }
    }
}

/* Outputs 8h.. of one strip, H halves of 8, by R rows: acc[half * R + row]. */
INLINE void strip_int8(const uint8_t *tile, const dtype t, uint32_t n_blocks,
                       const act_block *b, uint32_t r0, uint32_t h, __m256 *acc, const int H,
                       const int R) {
    const uint32_t head = (t == DT_Q4_1 ? 4 : 2) * STRIP;
    for (int i = 0; i < H * R; i++) acc[i] = _mm256_setzero_ps();
    do {
        if (h == 0 && R > 2) prefetch(tile, tile_bytes(t));
        for (int i = 0; i < H; i++) {
            __m256i isum[ROWS];
            const uint8_t *codes = tile + head + 32 * (h + (uint32_t)i);
            if (t == DT_Q8_0)
                sum_products8(codes, b->q[r0], isum, R);
            else
                sum_products4(codes, b->q[r0], isum, R);
            __m256 d = load_half(tile + 16 * (h + (uint32_t)i));
            for (int r = 0; r < R; r++) {
                __m256 *to = acc + i * R + r;
                if (t == DT_Q4_0)
                    isum[r] = _mm256_add_epi32(isum[r], broadcast4(b->neg8 + r0 + r));
                __m256 d_a = _mm256_broadcast_ss(b->d + r0 + r);
                *to = _mm256_fmadd_ps(_mm256_cvtepi32_ps(isum[r]), _mm256_mul_ps(d, d_a), *to);
            }
            if (t == DT_Q4_1) {
                __m256 m = load_half(tile + 2 * STRIP + 16 * (h + (uint32_t)i));
                for (int r = 0; r < R; r++)
                    acc[i * R + r] =
                        _mm256_fmadd_ps(m, _mm256_broadcast_ss(b->s + r0 + r), acc[i * R + r]);
            }
        }
        tile += tile_bytes(t);
        b++;
    } while (--n_blocks);
}

/* A tile of a quantised type as float32, exactly as packed_row gives it: w[k][output]. */
INLINE void tile_floats(const uint8_t *tile, const dtype t, float *w) {
    const __m256i byte = _mm256_set1_epi32(t == DT_Q8_0 ? 255 : 15);
    const __m256i offset = _mm256_set1_epi32(t == DT_Q8_0 ? 128 : t == DT_Q4_0 ? 8 : 0);
    const uint8_t *codes = tile + (t == DT_Q4_1 ? 4 : 2) * STRIP;
    for (int h = 0; h < 2; h++) {
        __m256 d = load_half(tile + 16 * h), m = _mm256_setzero_ps();
        if (t == DT_Q4_1) m = load_half(tile + 2 * STRIP + 16 * h);
        for (int k = 0; k < 32; k++) {
            __m256i v = loadi(codes + 32 * h + 64 * (t == DT_Q8_0 ? k / 4 : k % 16 / 4));
            v = _mm256_srli_epi32(v, 8 * (k % 4) + (t != DT_Q8_0 && k >= 16 ? 4 : 0));
            v = _mm256_sub_epi32(_mm256_and_si256(v, byte), offset);
            __m256 f = _mm256_mul_ps(d, _mm256_cvtepi32_ps(v));
            _mm256_store_ps(w + STRIP * k + 8 * h, t == DT_Q4_1 ? _mm256_add_ps(f, m) : f);
        }
    }
}

INLINE __m256 load_floats(const uint8_t *p, const dtype t, int h) {
    if (t == DT_F16) return load_half(p + 16 * h);
    if (t == DT_BF16)
        return _mm256_castsi256_ps(_mm256_slli_epi32(
            _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 16 * h))), 16));
    return _mm256_loadu_ps((const float *)p + 8 * h);
}

/* A whole strip by R rows of float activations, ld apart: acc[half * R + row]. */
INLINE void strip_float(const uint8_t *strip, const dtype t, uint32_t n_in, const float *x,
                        uint64_t ld, __m256 *acc, const int R) {
    __m256 sum[2 * ROWS]; /* its address goes nowhere: registers */
    for (int i = 0; i < 2 * R; i++) sum[i] = _mm256_setzero_ps();
    if (tile_bytes(t)) {
        _Alignas(32) float w[32 * STRIP];
        do {
            tile_floats(strip, t, w);
            for (int k = 0; k < 32; k++)
                for (int i = 0; i < 2 * R; i++)
                    sum[i] = _mm256_fmadd_ps(
                        _mm256_load_ps(w + STRIP * k + 8 * (i / R)),
                        _mm256_broadcast_ss(x + (uint64_t)(i % R) * ld + k), sum[i]);
            x += 32;
            strip += tile_bytes(t);
        } while (n_in -= 32);
        for (int i = 0; i < 2 * R; i++) acc[i] = sum[i];
        return;
    }
    do {
        if (R > 2) prefetch(strip, 1);
        __m256 w[2] = {load_floats(strip, t, 0), load_floats(strip, t, 1)};
        for (int i = 0; i < 2 * R; i++)
            sum[i] = _mm256_fmadd_ps(w[i / R], _mm256_broadcast_ss(x + (uint64_t)(i % R) * ld),
                                     sum[i]);
        x++;
        strip += STRIP * (t == DT_F32 ? 4 : 2);
    } while (--n_in);
    for (int i = 0; i < 2 * R; i++) acc[i] = sum[i];
}

/* What a kernel of R rows needs, whatever its types. */
typedef struct job {
    const packed *w;
    const act *a;
    const float *bias, *residual;
    float *y;
    uint32_t ld_res, ldy;
} job;

/* acc: [H][R]; outputs out + 8 * half.., of which those below end are real. */
INLINE void store(const job *j, uint32_t row, uint32_t out, uint32_t end, const __m256 *acc,
                  const int H, const int R) {
    for (int i = 0; i < H; i++, out += 8) {
        __m256i lanes = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)end - (int)out),
                                           _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        if (out >= end) return;
        for (int r = 0; r < R; r++) {
            uint64_t at = row + (uint64_t)r;
            __m256 v = acc[i * R + r];
            if (j->bias) v = _mm256_add_ps(v, _mm256_maskload_ps(j->bias + out, lanes));
            if (j->residual)
                v = _mm256_add_ps(
                    v, _mm256_maskload_ps(j->residual + at * j->ld_res + out, lanes));
            _mm256_maskstore_ps(j->y + at * j->ldy + out, lanes, v);
        }
    }
}

/* Both halves of a strip at once where the registers allow it: one pass over the weights. */
INLINE void run(const job *j, const dtype t, const bool int8, uint32_t row, uint32_t out,
                uint32_t end, const int R) {
    uint32_t n_in = j->w->n_in;
    const uint8_t *strip = (const uint8_t *)j->w->tiles + out / STRIP * strip_bytes(t, n_in);
    __m256 acc[2 * ROWS];
    if (!int8) {
        strip_float(strip, t, n_in, j->a->f + (uint64_t)row * n_in, n_in, acc, R);
        store(j, row, out, end, acc, 2, R);
        return;
    }
    const act_block *b = act_group(j->a, row);
    if (R <= 2) {
        strip_int8(strip, t, n_in / 32, b, row % ACT_GROUP, 0, acc, 2, R);
        store(j, row, out, end, acc, 2, R);
        return;
    }
    for (uint32_t h = 0; h < 2; h++) {
        strip_int8(strip, t, n_in / 32, b, row % ACT_GROUP, h, acc, 1, R);
        store(j, row, out + 8 * h, end, acc, 1, R);
    }
}

typedef void run_fn(const job *, uint32_t row, uint32_t out, uint32_t end);

#define RUN(name, t, int8, R)                                                                  \
    static void name##_##R(const job *j, uint32_t row, uint32_t out, uint32_t end) {           \
        run(j, t, int8, row, out, end, R);                                                     \
    }
#define RUNS(name, t, int8)                                                                    \
    RUN(name, t, int8, 1)                                                                      \
    RUN(name, t, int8, 2)                                                                      \
    RUN(name, t, int8, 3)                                                                      \
    RUN(name, t, int8, 4)                                                                      \
    static run_fn *const name[ROWS] = {name##_1, name##_2, name##_3, name##_4};

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
    job j = {w, a, bias, residual, y, ld_res, ldy};
    for (uint32_t from = row0, to; from < row1; from = to) {
        to = from - from % ROWS_IN_CACHE + ROWS_IN_CACHE;
        if (to > row1) to = row1;
        for (uint32_t out = out0; out < out1; out += STRIP)
            for (uint32_t row = from, next; row < to; row = next) {
                next = row - row % ROWS + ROWS;
                if (next > to) next = to;
                kernels[next - row - 1](&j, row, out, out1);
            }
    }
}

const linear_kernels linear_avx2 = {ISA_AVX2, quantise, linear};
