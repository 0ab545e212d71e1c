/* Linear layers on vectors of 256 bits, the same for AVX2 and AVX-VNNI (which has a dot product of
 * bytes, linear_block_avx2.h). Included by linear_avx2.c and linear_avxvnni.c, which define LINEAR_ISA
 * and LINEAR_TABLE before it. Pure; any thread.
 *
 * Few rows, 4 at most at a time, unpack codes as they go (linear_block_avx2.h). Whole groups of 8 read
 * them unpacked (linear_many_avx2.h). */
#include "engine/cpu/linear.h"

#include "engine/cpu/linear_block_avx2.h"
#include "engine/cpu/linear_many_avx2.h"
#include "engine/cpu/words.h"

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

/* acc += half h of a tile of 256 inputs. */
INLINE void tile256_int8(const uint8_t *tile, const dtype t, const act_block *b, uint32_t r0,
                         uint32_t h, __m256 *acc, const int R) {
    const tile_info i = tile_of(t);
    const uint8_t *codes = tile + STRIP * i.head + 32 * h;
    _Alignas(32) tile_scales s;
    tile_scales_read(tile, t, h, &s);
    __m256 d = load_half(tile + 16 * h), neg_m = d;
    if (i.has_min) neg_m = -load_half(tile + 32 + 16 * h);
    int j = 0;
    do {
        if (h == 0) prefetch(codes, STRIP * i.codes);
        if (i.halves)
            block_halves(codes, t, d, neg_m, loadi(s.scale[j]),
                         i.has_min ? loadi(s.min[j]) : _mm256_setzero_si256(), b, r0, acc, R);
        else
            block_whole(codes, t, loadf(s.d[j]), i.has_min ? loadf(s.m[j]) : d, b, r0, acc, R);
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
            __m256 d = tile_d(tile, t, at), m = d;
            if (f.has_min) m = load_half(tile + 32 + 16 * at);
            block_whole(tile + STRIP * f.head + 32 * at, t, d, m, b, r0, acc + i * R, R);
        }
        tile += tile_bytes(t);
        b += f.n_in / 32;
    } while (n_in -= f.n_in);
}

/* The same of a kind with groups; t: the kind's type. */
INLINE void strip_grouped(const uint8_t *tile, const dtype kind, const dtype t, uint32_t n_in,
                          const act_block *b, uint32_t r0, uint32_t h, __m256 *acc, const int H,
                          const int R) {
    const tile_info f = tile_of(kind);
    const uint32_t head = STRIP * tile_of(t).head, group = tile_of(t).n_in;
    for (int i = 0; i < H * R; i++) acc[i] = _mm256_setzero_ps();
    do {
        __m256 d[2], m[2];
        for (int i = 0; i < H; i++) {
            d[i] = m[i] = floats_at(tile, dtype_scale(t), h + (uint32_t)i);
            if (f.zero) m[i] = negative_zeros(tile, kind, t, h + (uint32_t)i);
        }
        tile += head;
        uint32_t left = group;
        do {
            if (h == 0 && R > 2) prefetch(tile, STRIP * f.codes);
            for (int i = 0; i < H; i++)
                block_whole(tile + 32 * (h + (uint32_t)i), kind, d[i], m[i], b, r0, acc + i * R,
                            R);
            tile += STRIP * f.codes;
            b++;
        } while (left -= 32);
    } while (n_in -= group);
}

/* ---- float activations ---- */

/* One strip of a quantised type by R rows of float activations, ld apart. */
INLINE void strip_quant(const uint8_t *tile, dtype t, floats_fn *floats, uint32_t n_in,
                        const float *x, uint64_t ld, __m256 *acc, const int R) {
    _Alignas(32) float w[256 * STRIP];
    const tile_info f = tile_of(t);
    const uint32_t n = f.grouped ? 32 : f.n_in, bytes = tile_bytes(t);
    uint32_t at = 0;      /* in the tile */
    __m256 sum[2 * ROWS]; /* its address goes nowhere: registers */
    for (int i = 0; i < 2 * R; i++) sum[i] = _mm256_setzero_ps();
    do {
        floats(tile, t, at, w);
        for (uint32_t k = 0; k < n; k++)
            for (int i = 0; i < 2 * R; i++)
                sum[i] = _mm256_fmadd_ps(_mm256_load_ps(w + STRIP * k + 8 * (i / R)),
                                         _mm256_broadcast_ss(x + (uint64_t)(i % R) * ld + k),
                                         sum[i]);
        x += n;
        at += n;
        if (at == f.n_in) at = 0, tile += bytes;
    } while (n_in -= n);
    for (int i = 0; i < 2 * R; i++) acc[i] = sum[i];
}

/* One strip of a float type by R rows: acc[half * R + row]. */
INLINE void strip_float(const uint8_t *strip, const dtype t, uint32_t n_in, const float *x,
                        uint64_t ld, __m256 *acc, const int R) {
    __m256 sum[2 * ROWS];
    for (int i = 0; i < 2 * R; i++) sum[i] = _mm256_setzero_ps();
    do {
        if (R > 2) prefetch(strip, 1);
        __m256 w[2] = {floats_at(strip, t, 0), floats_at(strip, t, 1)};
        for (int i = 0; i < 2 * R; i++)
            sum[i] = _mm256_fmadd_ps(w[i / R], _mm256_broadcast_ss(x + (uint64_t)(i % R) * ld),
                                     sum[i]);
        x++;
        strip += STRIP * (t == DT_F32 ? 4 : 2);
    } while (--n_in);
    for (int i = 0; i < 2 * R; i++) acc[i] = sum[i];
}

/* ---- kernels of R rows ---- */

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
            if (j->w->scale) v = _mm256_mul_ps(v, _mm256_broadcast_ss(j->w->scale));
            if (j->bias) v = _mm256_add_ps(v, _mm256_maskload_ps(j->bias + out, lanes));
            if (j->residual)
                v = _mm256_add_ps(
                    v, _mm256_maskload_ps(j->residual + at * j->ld_res + out, lanes));
            _mm256_maskstore_ps(j->y + at * j->ldy + out, lanes, v);
        }
    }
}

INLINE void strip_sums(const uint8_t *strip, const dtype t, const packed *w, const act_block *b,
                       uint32_t r0, uint32_t h, __m256 *acc, const int H, const int R) {
    if (tile_of(t).grouped)
        strip_grouped(strip, t, w->type, w->n_in, b, r0, h, acc, H, R);
    else
        strip_int8(strip, t, w->n_in, b, r0, h, acc, H, R);
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
        strip_sums(strip, t, j->w, b, row % ACT_GROUP, 0, acc, 2, R);
        store(j, row, out, end, acc, 2, R);
        return;
    }
    for (uint32_t h = 0; h < 2; h++) {
        strip_sums(strip, t, j->w, b, row % ACT_GROUP, h, acc, 1, R);
        store(j, row, out + 8 * h, end, acc, 1, R);
    }
}

static void store_sums(const job *j, uint32_t row0, uint32_t row1, uint32_t out, uint32_t end,
                       const float *acc) {
    for (uint32_t row = row0; row < row1; row++, acc += STRIP) {
        const __m256 both[2] = {loadf(acc), loadf(acc + 8)};
        store(j, row, out, end, both, 2, 1);
    }
}

/* acc[row1 - row0][STRIP] += n unpacked blocks from input k on, in tiles of rows; at least 4 rows, a multiple of 4. */
INLINE void tiles_many(const unpacked_block *w, uint32_t n, const dtype t, const act *a,
                       uint32_t row0, uint32_t row1, uint32_t k, const uint8_t *ahead,
                       float *acc) {
    /* Of 6 rows: so many that fours are left, one or two. */
    const uint32_t fours = MOST_ROWS == 4 ? row1 - row0 : 4 * ((3 - (row1 - row0) / 2 % 3) % 3);
    uint32_t row = row0;
    for (; row + fours < row1; row += MOST_ROWS, acc += STRIP * MOST_ROWS)
        many_blocks(w, n, t, a, row, k, row == row0 ? ahead : NULL, acc, MOST_ROWS);
    for (; row < row1; row += 4, acc += STRIP * 4)
        many_blocks(w, n, t, a, row, k, row == row0 ? ahead : NULL, acc, 4);
}

/* Rows [row0, row1) of at most ROWS_IN_CACHE, whole groups, by one strip. */
INLINE void run_many(const job *j, const dtype t, uint32_t row0, uint32_t row1, uint32_t out,
                     uint32_t end) {
    unpacked_block w[PIECE / 32];
    _Alignas(64) float acc[ROWS_IN_CACHE * STRIP];
    const uint32_t n_in = j->w->n_in;
    const uint8_t *strip = strip_of(j->w, t, out), *tile = strip;
    const uint64_t all = strip_bytes(tile_of(t).grouped ? j->w->type : t, n_in);
    memset(acc, 0, (row1 - row0) * STRIP * sizeof *acc);
    for (uint32_t k = 0, n; k < n_in; k += n) {
        n = n_in - k < PIECE ? n_in - k : PIECE;
        if (tile_of(t).grouped)
            unpack_grouped(strip, t, j->w->type, k, n, w, 1);
        else
            unpack(tile, t, n, w, 1);
        tiles_many(w, n / 32, t, j->a, row0, row1, k, tile + all, acc);
        tile += n / tile_of(t).n_in * tile_bytes(t);
    }
    store_sums(j, row0, row1, out, end, acc);
}

enum { PAYS_FROM = 0, MANY_STRIPS = 1 };

#define RUNS(name)                                                                             \
    RUN(name, 1)                                                                               \
    RUN(name, 2)                                                                               \
    RUN(name, 3)                                                                               \
    RUN(name, 4)                                                                               \
    static run_fn *const name##_runs[ROWS] = {name##_1, name##_2, name##_3, name##_4};
#define WORDS_FLOATS words_floats_avx2
#define WORDS_SUMS   words_sums_avx2
#include "engine/cpu/linear_body.h"
