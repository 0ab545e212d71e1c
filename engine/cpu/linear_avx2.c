/* Linear layers with AVX2, FMA and F16C (no VNNI). Pure; any thread.
 *
 * vpmaddubsw adds two products of unsigned by signed bytes in 16 bits, saturating, so the codes
 * decide how many sums one 16-bit lane holds: of codes up to 15 (by -127..127) 8, 30,480, a
 * whole block; of codes up to 31 4, 31,496; up to 63 2, 32,004. 8-bit codes go in as magnitudes
 * (0..128), their signs moved to the activations: one sum is at most 32,512. Nothing saturates:
 * the sums are exact. Integer scales come in with vpmaddwd, which widens the sums anyway. */
#include "engine/cpu/linear.h"

#include "engine/cpu/linear_tile_avx2.h"

enum { PREFETCH_BYTES = 4096, ROWS = 4 }; /* with 1 or 2 rows the hardware does better */

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
        act_block_none(b, r, bad);
        return;
    }
    __m256 inv = _mm256_set1_ps(127.0f / big);
    /* Rounded as integers are by hand: the current rounding mode is never consulted. */
    for (int i = 0; i < 4; i++)
        q[i] = _mm256_cvttps_epi32(_mm256_round_ps(
            _mm256_mul_ps(v[i], inv), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    /* Packing works within halves of 128 bits: put the groups of four back in order. */
    __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)b->q[r], bytes);
    act_block_set(b, r, big / 127.0f, reduce_add(_mm256_add_epi32(q[0], q[1])),
                  reduce_add(_mm256_add_epi32(q[2], q[3])));
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

/* sum16[r] = (or +=) the products of group l. */
INLINE void add_products(const uint8_t *codes, const dtype t, const int l, const bool first,
                         const int8_t *q, __m256i *sum16, const int R) {
    __m256i w = codes_of(codes, t, l);
    for (int r = 0; r < R; r++) {
        __m256i p = _mm256_maddubs_epi16(w, broadcast4(q + 32 * r + 4 * l));
        sum16[r] = first ? p : _mm256_add_epi16(sum16[r], p);
        IN_ORDER(sum16[r]);
    }
}

/* Groups l, l + 1, l + 4, l + 5: both of a vector of nibbles while it is there. */
INLINE void add_four(const uint8_t *codes, const dtype t, const int l, const bool first,
                     const int8_t *q, __m256i *sum16, const int R) {
    add_products(codes, t, l, first, q, sum16, R);
    add_products(codes, t, l + 4, false, q, sum16, R);
    add_products(codes, t, l + 1, false, q, sum16, R);
    add_products(codes, t, l + 5, false, q, sum16, R);
}

/* isum of 8 outputs by R rows; codes up to 31, without the offset. */
INLINE void sum_products5(const uint8_t *codes, const dtype t, const int8_t *q, __m256i *isum,
                          const int R) {
    const __m256i one = _mm256_set1_epi16(1);
    const bool twice = tile_of(t).form != CODES_4; /* 16 bits do not hold a block */
    __m256i sum16[ROWS];
    add_four(codes, t, 0, true, q, sum16, R);
    for (int r = 0; r < R && twice; r++) isum[r] = _mm256_madd_epi16(sum16[r], one);
    add_four(codes, t, 2, twice, q, sum16, R);
    for (int r = 0; r < R; r++) {
        __m256i sum = _mm256_madd_epi16(sum16[r], one);
        isum[r] = twice ? _mm256_add_epi32(isum[r], sum) : sum;
    }
}

/* The same for 8-bit codes; true sums, the offset undone. */
INLINE void sum_products8(const uint8_t *codes, const dtype t, const int8_t *q, __m256i *isum,
                          const int R) {
    for (int r = 0; r < R; r++) isum[r] = _mm256_setzero_si256();
    for (int l = 0; l < 8; l++) {
        __m256i w = codes_of(codes, t, l), size = _mm256_abs_epi8(w);
        for (int r = 0; r < R; r++) {
            __m256i x = _mm256_sign_epi8(broadcast4(q + 32 * r + 4 * l), w);
            x = _mm256_madd_epi16(_mm256_maddubs_epi16(size, x), _mm256_set1_epi16(1));
            isum[r] = _mm256_add_epi32(isum[r], x);
            IN_ORDER(isum[r]);
        }
    }
}

/* acc += 32 inputs with one scale. b: the activations, from row r0 on. */
INLINE void block_whole(const uint8_t *codes, const dtype t, __m256 d, __m256 m,
                        const act_block *b, uint32_t r0, __m256 *acc, const int R) {
    const tile_info i = tile_of(t);
    __m256i isum[ROWS];
    if (i.offset == 128)
        sum_products8(codes, t, b->q[r0], isum, R);
    else
        sum_products5(codes, t, b->q[r0], isum, R);
    for (int r = 0; r < R; r++) {
        if (i.offset == 8) isum[r] = _mm256_add_epi32(isum[r], broadcast4(b->neg8 + r0 + r));
        if (i.offset == 16)
            isum[r] =
                _mm256_add_epi32(isum[r], _mm256_slli_epi32(broadcast4(b->neg8 + r0 + r), 1));
        __m256 d_a = _mm256_broadcast_ss(b->d + r0 + r);
        acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(isum[r]), _mm256_mul_ps(d, d_a), acc[r]);
    }
    if (!i.has_min) return;
    for (int r = 0; r < R; r++)
        acc[r] = _mm256_fmadd_ps(m, _mm256_broadcast_ss(b->s + r0 + r), acc[r]);
}

/* isum += 16 inputs from group l on; scale: of each output, twice as int16. */
INLINE void add_half(const uint8_t *codes, const dtype t, const int l, __m256i scale,
                     const int8_t *q, __m256i *isum, const int R) {
    const int step = tile_of(t).form == CODES_6 ? 2 : 4; /* groups that 16 bits hold */
    __m256i sum16[ROWS];
    for (int i = 0; i < 4; i++) {
        add_products(codes, t, l + i, i % step == 0, q, sum16, R);
        if (i % step != step - 1) continue;
        for (int r = 0; r < R; r++) {
            isum[r] = _mm256_add_epi32(isum[r], _mm256_madd_epi16(sum16[r], scale));
            IN_ORDER(isum[r]);
        }
    }
}

/* acc += 32 inputs with an integer scale (and minimum) for each half: pairs of int16. */
INLINE void block_halves(const uint8_t *codes, const dtype t, __m256 d, __m256 neg_m,
                         __m256i scale, __m256i min, const act_block *b, uint32_t r0,
                         __m256 *acc, const int R) {
    const tile_info i = tile_of(t);
    __m256i isum[ROWS];
    __m256i undo = _mm256_mullo_epi16(scale, _mm256_set1_epi16((int16_t)-i.offset));
    for (int r = 0; r < R; r++)
        isum[r] = i.offset ? _mm256_madd_epi16(undo, broadcast4(b->half[r0 + (uint32_t)r]))
                           : _mm256_setzero_si256();
    __m256i first = _mm256_blend_epi16(scale, _mm256_slli_epi32(scale, 16), 0xaa);
    __m256i last = _mm256_blend_epi16(_mm256_srli_epi32(scale, 16), scale, 0xaa);
    add_half(codes, t, 0, first, b->q[r0], isum, R);
    add_half(codes, t, 4, last, b->q[r0], isum, R);
    for (int r = 0; r < R; r++) {
        __m256 d_a = _mm256_broadcast_ss(b->d + r0 + r);
        acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(isum[r]), _mm256_mul_ps(d, d_a), acc[r]);
        if (!i.has_min) continue;
        __m256i mins = _mm256_madd_epi16(min, broadcast4(b->half[r0 + (uint32_t)r]));
        acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(mins), _mm256_mul_ps(neg_m, d_a), acc[r]);
    }
}

/* acc += half h of a tile of 256 inputs. */
INLINE void tile256_int8(const uint8_t *tile, const dtype t, const act_block *b, uint32_t r0,
                         uint32_t h, __m256 *acc, const int R) {
    const tile_info i = tile_of(t);
    const uint8_t *codes = tile + STRIP * i.head + 32 * h;
    _Alignas(32) tile_scales s;
    tile_scales_read(tile, t, h, &s);
    __m256 d = load_half(tile + 16 * h), neg_m = d;
    if (i.has_min) neg_m = negative(load_half(tile + 32 + 16 * h));
    int j = 0;
    do {
        if (h == 0) prefetch(codes, STRIP * i.codes);
        if (i.halves)
            block_halves(codes, t, d, neg_m, loadi(s.scale[j]),
                         i.has_min ? loadi(s.min[j]) : _mm256_setzero_si256(), b, r0, acc, R);
        else
            block_whole(codes, t, _mm256_load_ps(s.d[j]),
                        i.has_min ? _mm256_load_ps(s.m[j]) : d, b, r0, acc, R);
        codes += STRIP * i.codes;
        b++;
    } while (++j < 8);
}

/* Outputs 8h.. of one strip, H halves of 8, by R rows: acc[half * R + row]. */
INLINE void strip_int8(const uint8_t *tile, const dtype t, uint32_t n_in, const act_block *b,
                       uint32_t r0, uint32_t h, __m256 *acc, const int H, const int R) {
    const tile_info f = tile_of(t);
    for (int i = 0; i < H * R; i++) acc[i] = _mm256_setzero_ps();
    do {
        if (h == 0 && (R > 2 || f.n_in == 256 || f.form == CODES_5 || f.form == CODES_BOOK))
            prefetch(tile, f.n_in == 32 ? tile_bytes(t) : STRIP * f.head);
        for (int i = 0; i < H; i++) {
            const uint32_t at = h + (uint32_t)i;
            if (f.n_in == 256) {
                tile256_int8(tile, t, b, r0, at, acc + i * R, R);
                continue;
            }
            __m256 d = load_half(tile + 16 * at), m = d;
            if (f.has_min) m = load_half(tile + 32 + 16 * at);
            block_whole(tile + STRIP * f.head + 32 * at, t, d, m, b, r0, acc + i * R, R);
        }
        tile += tile_bytes(t);
        b += f.n_in / 32;
    } while (n_in -= f.n_in);
}

/* ---- float activations ---- */

typedef void floats_fn(const uint8_t *tile, float *w); /* w: [inputs of a tile][STRIP] */

/* One strip of a quantised type by R rows of float activations, ld apart. */
INLINE void strip_quant(const uint8_t *tile, dtype t, floats_fn *floats, uint32_t n_in,
                        const float *x, uint64_t ld, __m256 *acc, const int R) {
    _Alignas(32) float w[256 * STRIP];
    const uint32_t n = tile_of(t).n_in, bytes = tile_bytes(t);
    __m256 sum[2 * ROWS]; /* its address goes nowhere: registers */
    for (int i = 0; i < 2 * R; i++) sum[i] = _mm256_setzero_ps();
    do {
        floats(tile, w);
        for (uint32_t k = 0; k < n; k++)
            for (int i = 0; i < 2 * R; i++)
                sum[i] = _mm256_fmadd_ps(_mm256_load_ps(w + STRIP * k + 8 * (i / R)),
                                         _mm256_broadcast_ss(x + (uint64_t)(i % R) * ld + k),
                                         sum[i]);
        x += n;
        tile += bytes;
    } while (n_in -= n);
    for (int i = 0; i < 2 * R; i++) acc[i] = sum[i];
}

INLINE __m256 load_floats(const uint8_t *p, const dtype t, int h) {
    if (t == DT_F16) return load_half(p + 16 * h);
    if (t == DT_BF16)
        return _mm256_castsi256_ps(_mm256_slli_epi32(
            _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 16 * h))), 16));
    return _mm256_loadu_ps((const float *)p + 8 * h);
}

/* One strip of a float type by R rows: acc[half * R + row]. */
INLINE void strip_float(const uint8_t *strip, const dtype t, uint32_t n_in, const float *x,
                        uint64_t ld, __m256 *acc, const int R) {
    __m256 sum[2 * ROWS];
    for (int i = 0; i < 2 * R; i++) sum[i] = _mm256_setzero_ps();
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

/* ---- kernels of R rows ---- */

typedef struct job {
    const packed *w;
    const act *a;
    const float *bias, *residual;
    float *y;
    uint32_t ld_res, ldy;
    floats_fn *floats;
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

/* Both halves of a strip at once where the registers allow it: one pass over the weights. t:
 * DT_NONE for any quantised type by float activations. */
INLINE void run(const job *j, const dtype t, uint32_t row, uint32_t out, uint32_t end,
                const int R) {
    const uint32_t n_in = j->w->n_in;
    const uint8_t *strip = strip_of(j->w, t, out);
    __m256 acc[2 * ROWS];
    if (!tile_of(t).n_in) {
        const float *x = row_floats(j->a, row);
        if (t == DT_NONE)
            strip_quant(strip, j->w->type, j->floats, n_in, x, n_in, acc, R);
        else
            strip_float(strip, t, n_in, x, n_in, acc, R);
        store(j, row, out, end, acc, 2, R);
        return;
    }
    const act_block *b = act_group(j->a, row);
    if (R <= 2) {
        strip_int8(strip, t, n_in, b, row % ACT_GROUP, 0, acc, 2, R);
        store(j, row, out, end, acc, 2, R);
        return;
    }
    for (uint32_t h = 0; h < 2; h++) {
        strip_int8(strip, t, n_in, b, row % ACT_GROUP, h, acc, 1, R);
        store(j, row, out + 8 * h, end, acc, 1, R);
    }
}

typedef void run_fn(const job *, uint32_t row, uint32_t out, uint32_t end);

#define RUN(name, R)                                                                           \
    static void name##_##R(const job *j, uint32_t row, uint32_t out, uint32_t end) {           \
        run(j, DT_##name, row, out, end, R);                                                   \
    }
#define RUNS(name)                                                                             \
    RUN(name, 1)                                                                               \
    RUN(name, 2)                                                                               \
    RUN(name, 3)                                                                               \
    RUN(name, 4)                                                                               \
    static run_fn *const name##_runs[ROWS] = {name##_1, name##_2, name##_3, name##_4};
#define X(name, ...)                                                                           \
    RUNS(name)                                                                                 \
    static void name##_floats(const uint8_t *tile, float *w) {                                 \
        for (uint32_t h = 0; h < 2; h++) half_floats(tile, DT_##name, h, w + HALF * h);        \
    }
TILE_LIST(X)
#undef X
RUNS(NONE)
RUNS(F32)
RUNS(F16)
RUNS(BF16)

static run_fn *const *kernels_for(dtype t, bool int8, floats_fn **floats) {
    switch (t) {
#define X(name, ...)                                                                           \
    case DT_##name: *floats = name##_floats; return int8 ? name##_runs : NONE_runs;
        TILE_LIST(X)
#undef X
    case DT_F16: return F16_runs;
    case DT_BF16: return BF16_runs;
    default: return F32_runs;
    }
}

/* Rows in chunks whose activations stay in the second cache, then strip by strip: a strip stays
 * in the first cache for all rows of the chunk. */
static void linear(const packed *w, const act *a, uint32_t row0, uint32_t row1, uint32_t out0,
                   uint32_t out1, const float *bias, const float *residual, uint32_t ld_res,
                   float *y, uint32_t ldy) {
    linear_check(w, a, row1, out0, out1);
    job j = {w, a, bias, residual, y, ld_res, ldy, NULL};
    run_fn *const *kernels = kernels_for(w->type, act_is_int8(w, a), &j.floats);
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
