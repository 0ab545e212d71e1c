/* Whole groups of rows by one strip on vectors of 256 bits: a piece of the strip is unpacked once, into the first
 * cache, and tiles of 4 or 6 rows by its 16 outputs read it there. Included by engine/cpu/linear_256_body.h only. To be
 * inlined with a type and a number of rows that are constants.
 *
 * A tile has twice as many sums as rows. 4 inputs of it are 2 vectors of codes, a broadcast of each row and a product for
 * each sum: 8 rows by 8 outputs, as many sums as 4 by 16, would load 9 vectors for 8 products. vpdpbusd adds to a sum
 * that the one before it must have ended, 5 cycles earlier, and two begin in a cycle: 6 rows, whose 12 sums keep it busy
 * and leave 4 registers for all else, so that sums in float32 stay in memory. Without it (AVX2) sums wait for an addition
 * only, products need registers, and 4 rows are the most that fit. */
#ifndef VRAMD_ENGINE_CPU_LINEAR_MANY_AVX2_H
#define VRAMD_ENGINE_CPU_LINEAR_MANY_AVX2_H

#include "engine/cpu/linear_block_avx2.h"

enum { PIECE = 512 }; /* inputs unpacked at a time */
enum { MOST_ROWS = DOT ? 6 : 4, MOST_SUMS = 2 * MOST_ROWS };

/* A tile's 32 inputs as codes_of gives them, and their scales. */
typedef struct unpacked_block {
    _Alignas(64) uint8_t codes[8][4 * STRIP]; /* signed ones as magnitudes.. */
    uint8_t signs[8][4 * STRIP];              /* ..and -1 for the negative ones */
    int32_t flipped[STRIP];                   /* what their magnitudes add up to */
    float d[STRIP], m[STRIP];                 /* with halves: of the tile, m negative */
    int32_t min[STRIP], undo[STRIP]; /* with halves: pairs of int16; undo: -offset * scales */
    union {
        int32_t twice[STRIP]; /* int16, twice */
        float f[STRIP];       /* DOT */
    } scale[2];               /* of each half */
} unpacked_block;

/* Rows in pairs, which lie together: their part of the block that goes with the weights. */
typedef struct row_pairs {
    const int8_t *q[MOST_ROWS / 2]; /* of act_block */
    const float *d[MOST_ROWS / 2];
} row_pairs;

INLINE __m256i codes_at(const row_pairs *p, const int r, const int l) {
    return broadcast4(p->q[r / 2] + 32 * (r % 2) + 4 * l);
}
INLINE const float *d_at(const row_pairs *p, const int r) {
    return p->d[r / 2] + r % 2;
}
INLINE __m256 s_at(const row_pairs *p, const int r) {
    return broadcastf(d_at(p, r) + ACT_GROUP);
}
INLINE __m256i neg8_at(const row_pairs *p, const int r) {
    return broadcast4(d_at(p, r) + 2 * ACT_GROUP);
}
INLINE __m256i half_at(const row_pairs *p, const int r) {
    return broadcast4(d_at(p, r) + 3 * ACT_GROUP);
}

INLINE __m256 many_float(__m256i isum, const float *from) {
    return DOT ? _mm256_sub_ps(_mm256_castsi256_ps(isum), loadf(from))
               : _mm256_cvtepi32_ps(isum);
}

/* sum[2 r + v] += products of groups l to l + n - 1 of part v; DOT. */
INLINE void many_dots(const unpacked_block *w, const row_pairs *p, const int l, const int n,
                      __m256i *sum, const int R) {
    for (int i = l; i < l + n; i++) {
        const __m256i a = loadi(w->codes[i]), b = loadi(w->codes[i] + 32);
        for (int r = 0; r < R; r++) {
            const __m256i x = codes_at(p, r, i);
            sum[2 * r] = dot(sum[2 * r], a, x);
            sum[2 * r + 1] = dot(sum[2 * r + 1], b, x);
        }
    }
    __asm__("" ::: "memory"); /* SUM_FROM is read again: no register is left to keep it in */
}

/* sum16[2 r + v] = sums of products of groups l to l + n - 1, in 16 bits. */
INLINE void many_products(const unpacked_block *w, const row_pairs *p, const int l, const int n,
                          __m256i *sum16, const int R) {
    for (int i = l; i < l + n; i++) {
        const __m256i a = loadi(w->codes[i]), b = loadi(w->codes[i] + 32);
        for (int r = 0; r < R; r++) {
            const __m256i x = codes_at(p, r, i);
            const __m256i ax = _mm256_maddubs_epi16(a, x), bx = _mm256_maddubs_epi16(b, x);
            if (i == l) {
                sum16[2 * r] = ax;
                sum16[2 * r + 1] = bx;
            } else {
                add16(&sum16[2 * r], ax);
                add16(&sum16[2 * r + 1], bx);
            }
        }
    }
}

/* sum[2 r + v]: of signed codes of 8 bits. Signs are moved by vpxor, which more ports have than vpsignb: ~x is -x - 1, so
 * each negative code's magnitude comes back, the same for every row; -x - 1 of -127..127 fits, and so do two products. */
INLINE void many_signed(const unpacked_block *w, const row_pairs *p, __m256i *sum,
                        const int R) {
    const __m256i one = _mm256_set1_epi16(1);
    for (int r = 0; r < R; r++)
        for (int v = 0; v < 2; v++) sum[2 * r + v] = loadi(w->flipped + 8 * v);
    for (int l = 0; l < 8; l++)
        for (int v = 0; v < 2; v++) {
            const __m256i size = loadi(w->codes[l] + 32 * v),
                          sign = loadi(w->signs[l] + 32 * v);
            for (int r = 0; r < R; r++) {
                __m256i x = _mm256_xor_si256(codes_at(p, r, l), sign);
                x = _mm256_madd_epi16(_mm256_maddubs_epi16(size, x), one);
                add32(&sum[2 * r + v], x);
            }
        }
}

/* isum[2 r + v]: of codes up to 31, with their offset. */
INLINE void many_narrow(const unpacked_block *w, const dtype t, const row_pairs *p,
                        __m256i *isum, const int R) {
    const __m256i one = _mm256_set1_epi16(1);
    const int n = tile_of(t).form == CODES_4 ? 8 : 4; /* groups that 16 bits hold */
    __m256i sum16[MOST_SUMS];
    for (int l = 0; l < 8; l += n) {
        many_products(w, p, l, n, sum16, R);
        for (int s = 0; s < 2 * R; s++) {
            const __m256i sum = _mm256_madd_epi16(sum16[s], one);
            isum[s] = l ? _mm256_add_epi32(isum[s], sum) : sum;
        }
    }
}

/* isum[2 r + v] of a block, the offset undone; DOT: from SUM_FROM on. */
INLINE void many_sums(const unpacked_block *w, const dtype t, const row_pairs *p,
                      const float *from, __m256i *isum, const int R) {
    const tile_info i = tile_of(t);
    if (!DOT && i.offset == 128) {
        many_signed(w, p, isum, R);
        return;
    }
    const int shift = i.offset == 128 ? 4 : i.offset == 16 ? 1 : 0;
    if (DOT) {
        for (int r = 0; r < R; r++) {
            isum[2 * r] = loadi(from);
            if (i.offset)
                isum[2 * r] =
                    _mm256_add_epi32(loadi(from), _mm256_slli_epi32(neg8_at(p, r), shift));
            isum[2 * r + 1] = isum[2 * r];
        }
        many_dots(w, p, 0, 8, isum, R);
        return;
    }
    many_narrow(w, t, p, isum, R);
    for (int s = 0; s < 2 * R && i.offset; s++)
        isum[s] = _mm256_add_epi32(isum[s], _mm256_slli_epi32(neg8_at(p, s / 2), shift));
}

/* acc[R][STRIP] += 32 inputs with one scale. */
INLINE void many_whole(const unpacked_block *w, const dtype t, const row_pairs *p,
                       const float *from, float *acc, const int R) {
    __m256i isum[MOST_SUMS];
    many_sums(w, t, p, from, isum, R);
    for (int r = 0; r < R; r++, acc += STRIP) {
        const __m256 d_a = broadcastf(d_at(p, r)), s_a = s_at(p, r);
        __m256 sum[2];
        for (int v = 0; v < 2; v++) {
            __m256i i = isum[2 * r + v];
            if (tile_of(t).zero)
                i = _mm256_add_epi32(i, _mm256_madd_epi16(loadi(w->m + 8 * v), half_at(p, r)));
            sum[v] = fused(many_float(i, from), _mm256_mul_ps(d_a, loadf(w->d + 8 * v)),
                           loadf(acc + 8 * v));
            if (tile_of(t).has_min) sum[v] = fused(s_a, loadf(w->m + 8 * v), sum[v]);
        }
        for (int v = 0; v < 2; v++) storef(acc + 8 * v, sum[v]);
    }
}

/* sum[2 r + v] as float32: the products of a block (codes less their offset), each half times its scale: integers below
 * 2^24, so that each step is exact; DOT. */
INLINE void many_scaled_dots(const unpacked_block *w, const dtype t, const row_pairs *p,
                             const float *from, __m256 *sum, const int R) {
    const int offset = tile_of(t).offset;
    __m256i isum[MOST_SUMS];
    for (int h = 0; h < 2; h++) {
        const __m256i less = _mm256_set1_epi32(h ? (int32_t)((uint32_t)-offset << 16)
                                                 : -offset & 0xffff); /* pair of int16 */
        for (int r = 0; r < R; r++) {
            isum[2 * r] = loadi(from);
            if (offset)
                isum[2 * r] =
                    _mm256_add_epi32(loadi(from), _mm256_madd_epi16(less, half_at(p, r)));
            isum[2 * r + 1] = isum[2 * r];
        }
        many_dots(w, p, 4 * h, 4, isum, R);
        for (int s = 0; s < 2 * R; s++) {
            const __m256 scale = loadf(w->scale[h].f + 8 * (s % 2)),
                         x = many_float(isum[s], from);
            sum[s] = h ? fused(x, scale, sum[s]) : _mm256_mul_ps(x, scale);
        }
    }
}

/* The same without DOT. */
INLINE void many_scaled(const unpacked_block *w, const dtype t, const row_pairs *p, __m256 *sum,
                        const int R) {
    const int n = tile_of(t).form == CODES_6 ? 2 : 4; /* groups that 16 bits hold */
    __m256i isum[MOST_SUMS], sum16[MOST_SUMS];
    for (int s = 0; s < 2 * R; s++)
        isum[s] = tile_of(t).offset
                      ? _mm256_madd_epi16(half_at(p, s / 2), loadi(w->undo + 8 * (s % 2)))
                      : _mm256_setzero_si256();
    for (int l = 0; l < 8; l += n) {
        many_products(w, p, l, n, sum16, R);
        for (int s = 0; s < 2 * R; s++)
            add32(&isum[s],
                  _mm256_madd_epi16(sum16[s], loadi(w->scale[l / 4].twice + 8 * (s % 2))));
    }
    for (int s = 0; s < 2 * R; s++) sum[s] = _mm256_cvtepi32_ps(isum[s]);
}

/* acc[R][STRIP] += 32 inputs with an integer scale (and minimum) for each half. */
INLINE void many_halves(const unpacked_block *w, const dtype t, const row_pairs *p,
                        const float *from, float *acc, const int R) {
    __m256 sum[MOST_SUMS];
    if (DOT)
        many_scaled_dots(w, t, p, from, sum, R);
    else
        many_scaled(w, t, p, sum, R);
    for (int r = 0; r < R; r++, acc += STRIP) {
        const __m256 d_a = broadcastf(d_at(p, r));
        __m256 y[2];
        for (int v = 0; v < 2; v++) {
            y[v] = fused(sum[2 * r + v], _mm256_mul_ps(d_a, loadf(w->d + 8 * v)),
                         loadf(acc + 8 * v));
            if (!tile_of(t).has_min) continue;
            const __m256i mins = _mm256_madd_epi16(loadi(w->min + 8 * v), half_at(p, r));
            y[v] =
                fused(_mm256_cvtepi32_ps(mins), _mm256_mul_ps(d_a, loadf(w->m + 8 * v)), y[v]);
        }
        for (int v = 0; v < 2; v++) storef(acc + 8 * v, y[v]);
    }
}

/* acc[R][STRIP] += n blocks by the rows from `row` on, an even one. ahead: packed weights that come after, fetched into
 * the second cache by the way, or NULL. */
INLINE void many_blocks(const unpacked_block *w, uint32_t n, const dtype t, const act *a,
                        uint32_t row, uint32_t k, const uint8_t *ahead, float *acc,
                        const int R) {
    const tile_info i = tile_of(t);
    const uint32_t bytes = tile_bytes(t) * 32 / i.n_in;
    const __m256 sum_from = _mm256_set1_ps(SUM_FROM);
    const float *from = (const float *)&sum_from;
    __asm__("" : "+r"(from)); /* read where it is used, not kept in a register */
    row_pairs p;
    for (uint32_t at = 0; at < (uint32_t)R / 2; at++) {
        const uint32_t r = row + 2 * at;
        const act_block *b = act_group(a, r) + k / 32;
        p.q[at] = b->q[r % ACT_GROUP];
        p.d[at] = b->d + r % ACT_GROUP;
    }
    do {
        for (uint32_t at = 0; at < bytes && ahead; at += 64)
            _mm_prefetch((const char *)ahead + at, _MM_HINT_T1);
        if (ahead) ahead += bytes;
        if (i.halves)
            many_halves(w, t, &p, from, acc, R);
        else
            many_whole(w, t, &p, from, acc, R);
        __asm__("" ::: "memory"); /* acc stays there: no registers are left */
        w++;
        for (int at = 0; at < R / 2; at++) {
            p.q[at] += sizeof(act_block);
            p.d[at] += sizeof(act_block) / sizeof(float);
        }
    } while (--n);
}

/* ---- unpacking ---- */

/* Magnitudes of 4 codes a lane, added up. */
INLINE __m256i sum_of_bytes(__m256i v) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(v, _mm256_set1_epi8(1)),
                             _mm256_set1_epi16(1));
}
INLINE void unpack_codes(const uint8_t *codes, const dtype t, unpacked_block *to) {
    for (int v = 0; v < 2; v++) {
        __m256i flipped = _mm256_setzero_si256();
        for (int l = 0; l < 8; l++) {
            const __m256i w = codes_of(codes + 32 * v, t, l);
            const bool is_signed = SIGNED_CODES && tile_of(t).offset == 128;
            storei(to->codes[l] + 32 * v, is_signed ? _mm256_abs_epi8(w) : w);
            if (!is_signed) continue;
            const __m256i sign = _mm256_cmpgt_epi8(_mm256_setzero_si256(), w);
            storei(to->signs[l] + 32 * v, sign);
            flipped = _mm256_add_epi32(
                flipped, sum_of_bytes(_mm256_and_si256(sign, _mm256_abs_epi8(w))));
        }
        storei(to->flipped + 8 * v, flipped);
    }
}

/* As scale and undo of unpacked_block. */
INLINE void unpack_halves(const dtype t, const int32_t *pairs, const uint32_t v,
                          unpacked_block *to) {
    if (DOT) {
        vf both[2];
        times_pair(both, pairs, _mm256_set1_ps(1));
        for (int h = 0; h < 2; h++) storef(to->scale[h].f + LANES * v, both[h]);
        return;
    }
    const __m256i pair = loadi(pairs);
    storei(to->scale[0].twice + LANES * v,
           _mm256_blend_epi16(pair, _mm256_slli_epi32(pair, 16), 0xaa));
    storei(to->scale[1].twice + LANES * v,
           _mm256_blend_epi16(_mm256_srli_epi32(pair, 16), pair, 0xaa));
    storei(to->undo + LANES * v,
           _mm256_mullo_epi16(pair, _mm256_set1_epi16((int16_t) - (int)tile_of(t).offset)));
}

#include "engine/cpu/linear_unpack.h"

#endif
