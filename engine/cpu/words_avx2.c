/* Tiles of model/words.h with AVX2. Pure; any thread. */
#include "engine/cpu/words.h"

#include "engine/cpu/linear_vec_avx2.h"
#include "model/books.h"

#include "engine/cpu/linear_tile.h"

INLINE vf half_of(u32s v) {
    const __m128i low = _mm256_castsi256_si128((vi)v),
                  high = _mm256_extracti128_si256((vi)v, 1);
    return _mm256_cvtph_ps(_mm_packus_epi32(low, high));
}
INLINE u32s gather(const uint32_t *table, u32s i) {
    return (u32s)_mm256_i32gather_epi32((const int *)table, (vi)i, 4);
}

enum { ROWS = 4 }; /* their sums, products and codes fit 16 registers */

/* isum += groups l to l + n - 1; fit: of how many the products of codes fit 16 bits (1, 4 or 8). */
INLINE void add_groups(const uint8_t *codes, const int l, const int n, const int fit,
                       const int8_t *q, __m256i *isum, const int R) {
    const __m256i one = _mm256_set1_epi16(1);
    __m256i sum16[ROWS];
    for (int i = l; i < l + n; i++) {
        const __m256i w = loadi(codes + 4 * STRIP * i);
        for (int r = 0; r < R; r++) {
            const __m256i p = _mm256_maddubs_epi16(w, broadcast4(q + 32 * r + 4 * i));
            if (fit == 1)
                add32(isum + r, _mm256_madd_epi16(p, one));
            else if (i % fit == 0)
                sum16[r] = p;
            else
                add16(sum16 + r, p);
        }
    }
    for (int r = 0; r < R && fit > 1; r++) add32(isum + r, _mm256_madd_epi16(sum16[r], one));
}

/* acc[R] += n blocks, half h of a strip, by the rows from r0 of the group b on. */
INLINE void add_words(const words_block *w, uint32_t n, uint32_t h, const int offset,
                      const bool halves, const int fit, const act_block *b, uint32_t r0,
                      float *acc, const int R) {
    const int first = -offset & 0xffff,
              last = (int)((uint32_t)first << 16); /* pairs of int16 */
    const int step = fit == 8 ? 8 : 4;
    __m256 sum[ROWS];
    for (int r = 0; r < R; r++) sum[r] = loadf(acc + STRIP * r + 8 * h);
    do {
        __m256i isum[ROWS];
        for (int l = 0; l < 8; l += step) {
            const __m256i undo = _mm256_set1_epi32(halves ? (l ? last : first) : first | last);
            for (int r = 0; r < R && (halves || l == 0); r++)
                isum[r] = _mm256_madd_epi16(undo, broadcast4(b->half[r0 + (uint32_t)r]));
            add_groups(w->codes[0] + 32 * h, l, step, fit, b->q[r0], isum, R);
            const __m256 d = loadf(w->d[l / 4] + 8 * h);
            for (int r = 0; r < R && (halves || l + step == 8); r++)
                sum[r] = _mm256_fmadd_ps(
                    _mm256_cvtepi32_ps(isum[r]),
                    _mm256_mul_ps(d, _mm256_broadcast_ss(b->d + r0 + (uint32_t)r)), sum[r]);
        }
        w++;
        b++;
    } while (--n);
    for (int r = 0; r < R; r++) storef(acc + STRIP * r + 8 * h, sum[r]);
}

#define ADD_WORDS(R)                                                                           \
    static void add_words_##R(const words_block *w, uint32_t n, int offset, bool halves,       \
                              const act_block *b, uint32_t r0, float *acc) {                   \
        for (uint32_t h = 0; h < 2; h++)                                                       \
            if (halves && offset <= 16)                                                        \
                add_words(w, n, h, offset, true, 4, b, r0, acc, R);                            \
            else if (halves)                                                                   \
                add_words(w, n, h, offset, true, 1, b, r0, acc, R);                            \
            else if (offset == 1)                                                              \
                add_words(w, n, h, 1, false, 8, b, r0, acc, R);                                \
            else if (offset <= 16)                                                             \
                add_words(w, n, h, offset, false, 4, b, r0, acc, R);                           \
            else                                                                               \
                add_words(w, n, h, offset, false, 1, b, r0, acc, R);                           \
    }
ADD_WORDS(1)
ADD_WORDS(2)
ADD_WORDS(3)
ADD_WORDS(4)

#define ADD_FUNCTIONS add_words_1, add_words_2, add_words_3, add_words_4
#define WORDS_SUMS    words_sums_avx2
#define WORDS_FLOATS  words_floats_avx2
#include "engine/cpu/words_body.h"
