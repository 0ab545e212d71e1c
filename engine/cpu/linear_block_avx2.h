/* 32 inputs of 8 outputs by R rows of quantised activations, in AVX2 registers. Included by
 * engine/cpu/linear_256_body.h only. To be inlined with a type and a number of rows that are
 * constants.
 *
 * vpmaddubsw adds two products of unsigned by signed bytes in 16 bits, saturating, so the codes
 * decide how many sums one 16-bit lane holds: of codes up to 15 (by -127..127) 8, 30,480, a
 * whole block; of codes up to 31 4, 31,496; up to 63 2, 32,004. 8-bit codes go in as magnitudes
 * (0..128), their signs moved to the activations: one sum is at most 32,512. Nothing saturates:
 * the sums are exact. Integer scales come in with vpmaddwd, which widens the sums anyway.
 *
 * With AVX-VNNI (DOT) one vpdpbusd takes the place of vpmaddubsw, vpmaddwd and their additions: it
 * adds four products in 32 bits, so that nothing saturates whatever the codes. */
#ifndef VRAMD_ENGINE_CPU_LINEAR_BLOCK_AVX2_H
#define VRAMD_ENGINE_CPU_LINEAR_BLOCK_AVX2_H

#include "engine/cpu/linear_vec_avx2.h"

#include "engine/cpu/linear_tile.h"

enum { ROWS = 4 }; /* at most */

/* sum + the products of 4 unsigned by 4 signed bytes of each lane. */
INLINE __m256i dot(__m256i sum, __m256i codes, __m256i x) {
#ifdef __AVXVNNI__
    return _mm256_dpbusd_avx_epi32(sum, codes, x);
#else
    (void)codes, (void)x;
    return sum;
#endif
}

/* sum[r] += the products of group l. */
INLINE void add_dots(const uint8_t *codes, const dtype t, const int l, const int8_t *q,
                     __m256i *sum, const int R) {
    __m256i w = codes_of(codes, t, l);
    for (int r = 0; r < R; r++) sum[r] = dot(sum[r], w, broadcast4(q + 32 * r + 4 * l));
}

/* What the sums of a block begin with where vpdpbusd makes them: as the bits of a float, 1.5 * 2^23 plus a sum (which
 * is below 2^22) is that number, and the sum is the difference, exactly. A subtraction has a port that neither the
 * products nor vcvtdq2ps have (Intel from Golden Cove on, Zen). */
#define SUM_FROM 0x1.8p23f

/* isum of 8 outputs by R rows, of codes as codes_of gives them, from SUM_FROM on; DOT. */
INLINE void sum_dots(const uint8_t *codes, const dtype t, const int8_t *q, __m256i *isum,
                     const int R) {
    for (int r = 0; r < R; r++) isum[r] = _mm256_castps_si256(_mm256_set1_ps(SUM_FROM));
    for (int l = 0; l < 4; l++) { /* nibbles: both of a vector while it is there */
        const bool nibbles = tile_of(t).form != CODES_8;
        add_dots(codes, t, nibbles ? l : 2 * l, q, isum, R);
        add_dots(codes, t, nibbles ? l + 4 : 2 * l + 1, q, isum, R);
    }
}

/* sum16[r] = (or +=) the products of group l. */
INLINE void add_products(const uint8_t *codes, const dtype t, const int l, const bool first,
                         const int8_t *q, __m256i *sum16, const int R) {
    __m256i w = codes_of(codes, t, l);
    for (int r = 0; r < R; r++) {
        __m256i p = _mm256_maddubs_epi16(w, broadcast4(q + 32 * r + 4 * l));
        if (first)
            sum16[r] = p;
        else
            add16(sum16 + r, p);
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
            add32(isum + r, x);
        }
    }
}

INLINE __m256 float_of_sum(__m256i isum) {
    return DOT ? _mm256_sub_ps(_mm256_castsi256_ps(isum), _mm256_set1_ps(SUM_FROM))
               : _mm256_cvtepi32_ps(isum);
}

/* acc += 32 inputs with one scale. b: the activations, from row r0 on. m of types with zero points:
 * negative_zeros. */
INLINE void block_whole(const uint8_t *codes, const dtype t, __m256 d, __m256 m,
                        const act_block *b, uint32_t r0, __m256 *acc, const int R) {
    const tile_info i = tile_of(t);
    __m256i isum[ROWS];
    if (DOT)
        sum_dots(codes, t, b->q[r0], isum, R);
    else if (i.offset == 128)
        sum_products8(codes, t, b->q[r0], isum, R);
    else
        sum_products5(codes, t, b->q[r0], isum, R);
    for (int r = 0; r < R; r++) {
        if (i.offset == 8) isum[r] = _mm256_add_epi32(isum[r], broadcast4(b->neg8 + r0 + r));
        if (i.offset == 16)
            isum[r] =
                _mm256_add_epi32(isum[r], _mm256_slli_epi32(broadcast4(b->neg8 + r0 + r), 1));
        if (DOT && i.offset == 128)
            isum[r] =
                _mm256_add_epi32(isum[r], _mm256_slli_epi32(broadcast4(b->neg8 + r0 + r), 4));
        if (i.zero)
            isum[r] = _mm256_add_epi32(
                isum[r], _mm256_madd_epi16(_mm256_castps_si256(m),
                                           broadcast4(b->half[r0 + (uint32_t)r])));
        __m256 d_a = _mm256_broadcast_ss(b->d + r0 + r);
        acc[r] = _mm256_fmadd_ps(float_of_sum(isum[r]), _mm256_mul_ps(d, d_a), acc[r]);
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
        for (int r = 0; r < R; r++) add32(isum + r, _mm256_madd_epi16(sum16[r], scale));
    }
}

/* The same with DOT; scale: of each output as int32. Sums of 16 codes up to 7 fit 16 bits. */
INLINE void add_half_dots(const uint8_t *codes, const dtype t, const int l, __m256i scale,
                          const int8_t *q, __m256i *isum, const int R) {
    const __m256i low = _mm256_and_si256(scale, _mm256_set1_epi32(0xffff));
    __m256i sum[ROWS];
    for (int r = 0; r < R; r++) sum[r] = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) add_dots(codes, t, l + i, q, sum, R);
    for (int r = 0; r < R; r++)
        isum[r] = _mm256_add_epi32(isum[r], tile_of(t).form == CODES_6
                                                ? _mm256_mullo_epi32(sum[r], scale)
                                                : _mm256_madd_epi16(sum[r], low));
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
    if (DOT) {
        add_half_dots(codes, t, 0, _mm256_srai_epi32(first, 16), b->q[r0], isum, R);
        add_half_dots(codes, t, 4, _mm256_srai_epi32(last, 16), b->q[r0], isum, R);
    } else {
        add_half(codes, t, 0, first, b->q[r0], isum, R);
        add_half(codes, t, 4, last, b->q[r0], isum, R);
    }
    for (int r = 0; r < R; r++) {
        __m256 d_a = _mm256_broadcast_ss(b->d + r0 + r);
        acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(isum[r]), _mm256_mul_ps(d, d_a), acc[r]);
        if (!i.has_min) continue;
        __m256i mins = _mm256_madd_epi16(min, broadcast4(b->half[r0 + (uint32_t)r]));
        acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(mins), _mm256_mul_ps(neg_m, d_a), acc[r]);
    }
}

#endif
