/* Tiles of model/words.h with AVX-512. Pure; any thread. */
#include "engine/cpu/words.h"

#include "engine/cpu/linear_vec_avx512.h"
#include "model/books.h"

#include "engine/cpu/linear_tile.h"

INLINE vf half_of(u32s v) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16((vi)v));
}
INLINE u32s gather(const uint32_t *table, u32s i) {
    return (u32s)_mm512_i32gather_epi32((vi)i, table, 4);
}

enum { ROWS = ACT_GROUP };

/* acc[R] += n blocks by the rows from r0 of the group b on. */
INLINE void add_words(const words_block *w, uint32_t n, const int offset, const bool halves,
                      const act_block *b, uint32_t r0, float *acc, const int R) {
    const int first = -offset & 0xffff,
              last = (int)((uint32_t)first << 16); /* pairs of int16 */
    __m512 sum[ACT_GROUP];
    for (int r = 0; r < R; r++) sum[r] = _mm512_loadu_ps(acc + STRIP * r);
    do {
        __m512i isum[ACT_GROUP];
        for (int h = 0; h < 2; h++) {
            const __m512i undo = _mm512_set1_epi32(halves ? (h ? last : first) : first | last);
            for (int r = 0; r < R && (halves || h == 0); r++)
                isum[r] = _mm512_dpwssd_epi32(_mm512_setzero_si512(), undo,
                                              broadcast4(b->half[r0 + (uint32_t)r]));
            for (int l = 4 * h; l < 4 * h + 4; l++) {
                const __m512i codes = loadi(w->codes[l]);
                for (int r = 0; r < R; r++)
                    isum[r] = _mm512_dpbusd_epi32(isum[r], codes,
                                                  broadcast4(b->q[r0 + (uint32_t)r] + 4 * l));
            }
            const __m512 d = loadf(w->d[h]);
            for (int r = 0; r < R && (halves || h == 1); r++)
                sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(isum[r]),
                                         _mm512_mul_ps(d, broadcastf(b->d + r0 + (uint32_t)r)),
                                         sum[r]);
        }
        w++;
        b++;
    } while (--n);
    for (int r = 0; r < R; r++) _mm512_storeu_ps(acc + STRIP * r, sum[r]);
}

#define ADD_WORDS(R)                                                                           \
    static void add_words_##R(const words_block *w, uint32_t n, int offset, bool halves,       \
                              const act_block *b, uint32_t r0, float *acc) {                   \
        if (halves)                                                                            \
            add_words(w, n, offset, true, b, r0, acc, R);                                      \
        else                                                                                   \
            add_words(w, n, offset, false, b, r0, acc, R);                                     \
    }
ADD_WORDS(1)
ADD_WORDS(2)
ADD_WORDS(3)
ADD_WORDS(4)
ADD_WORDS(5)
ADD_WORDS(6)
ADD_WORDS(7)
ADD_WORDS(8)

#define ADD_FUNCTIONS                                                                          \
    add_words_1, add_words_2, add_words_3, add_words_4, add_words_5, add_words_6, add_words_7, \
        add_words_8
#define WORDS_SUMS   words_sums_avx512
#define WORDS_FLOATS words_floats_avx512
#include "engine/cpu/words_body.h"
