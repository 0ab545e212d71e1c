/* Many rows of quantised activations, in AVX-512 registers. Included by engine/cpu/linear_avx512.c only.
 *
 * Some inputs of three strips are unpacked once, into the first cache, and rows read them there, 4 at a time: each
 * broadcast of activations meets three vectors of codes, so that 7 loads go with 12 vpdpbusd (of one strip by 8 rows it is
 * 9 with 8, and loads bound it as much as products do). 12 integer and 12 float accumulators fill the registers; types with
 * scales for 16 inputs have two integer sums for each float one, and take two strips. */

enum {
    MANY_ROWS = 4,
    MANY_STRIPS = 3,
    PIECE = 256 /* inputs unpacked at a time: 20 KB of the stack */
};

/* Sums are in registers only where loops over them are unrolled. */
#define UNROLLED _Pragma("GCC unroll 16")

/* 32 inputs of a strip as codes_of gives them, and their scales. */
typedef struct unpacked_block {
    uint8_t codes[8][4 * LANES];
    float d[LANES], m[LANES]; /* with halves: of the tile, m negative */
    float scale[2][LANES];    /* with halves: of each */
    int32_t min[LANES];       /* with halves and a minimum: pairs of int16 */
} unpacked_block;

/* Sums of rows [0, ROWS_IN_CACHE) by a strip. */
typedef float strip_sums[ROWS_IN_CACHE][LANES];

INLINE void unpack_codes(const uint8_t *codes, const dtype t, unpacked_block *to) {
    for (int l = 0; l < 8; l++) storei(to->codes[l], codes_of(codes, t, l));
}

INLINE void unpack_halves(const dtype t, const int32_t *pairs, const uint32_t v,
                          unpacked_block *to) {
    vf both[2];
    (void)t, (void)v;
    times_pair(both, pairs, _mm512_set1_ps(1));
    for (int h = 0; h < 2; h++) storef(to->scale[h], both[h]);
}

#include "engine/cpu/linear_unpack.h"

/* What integer sums begin with, so that codes count without offset, and zero points are taken off. */
INLINE vi sum_begins(const dtype t, const act_block *b, uint32_t row, const unpacked_block *w) {
    const int offset = tile_of(t).offset;
    vi v = _mm512_setzero_si512();
    if (offset) v = broadcast4(b->neg8 + row);
    if (offset == 16) v = _mm512_slli_epi32(v, 1);
    if (offset == 128) v = _mm512_slli_epi32(v, 4);
    if (tile_of(t).zero) v = _mm512_dpwssd_epi32(v, loadi(w->m), broadcast4(b->half + row));
    return v;
}

/* sum[s * MANY_ROWS + r] += groups [from, to) of the codes of strip s by row r. */
INLINE void add_groups(const unpacked_block *w, const int8_t *q, const int from, const int to,
                       vi *sum, const int S) {
    UNROLLED
    for (int l = from; l < to; l++) {
        vi c[MANY_STRIPS];
        UNROLLED
        for (int s = 0; s < S; s++) c[s] = loadi(w[s].codes[l]);
        UNROLLED
        for (int r = 0; r < MANY_ROWS; r++) {
            const vi x = broadcast4(q + 32 * r + 4 * l);
            UNROLLED
            for (int s = 0; s < S; s++)
                sum[s * MANY_ROWS + r] = _mm512_dpbusd_epi32(sum[s * MANY_ROWS + r], c[s], x);
        }
    }
}

/* acc += a block with one scale. */
INLINE void many_whole(const unpacked_block *w, const dtype t, const act_block *b, uint32_t r0,
                       vf *acc, const int S) {
    vi sum[MANY_STRIPS * MANY_ROWS];
    UNROLLED
    for (int i = 0; i < S * MANY_ROWS; i++)
        sum[i] = sum_begins(t, b, r0 + (uint32_t)(i % MANY_ROWS), w + i / MANY_ROWS);
    add_groups(w, b->q[r0], 0, 8, sum, S);
    UNROLLED
    for (int i = 0; i < S * MANY_ROWS; i++) {
        const uint32_t r = r0 + (uint32_t)(i % MANY_ROWS);
        acc[i] =
            fused(floats_of(sum[i]), loadf(w[i / MANY_ROWS].d) * broadcastf(b->d + r), acc[i]);
        if (tile_of(t).has_min)
            acc[i] = fused(loadf(w[i / MANY_ROWS].m), broadcastf(b->s + r), acc[i]);
    }
}

/* acc += a block with an integer scale (and minimum) for each half. Products of sums and scales, and what both add up
 * to, are integers below 2^24: exact in float32. less: what the sums of each half begin with. */
INLINE void many_halves(const unpacked_block *w, const dtype t, const act_block *b, uint32_t r0,
                        int32_t (*less)[ACT_GROUP], vf *acc, const int S) {
    vi sum[MANY_STRIPS * MANY_ROWS];
    vf both[MANY_STRIPS * MANY_ROWS];
    UNROLLED
    for (int h = 0; h < 2; h++) {
        UNROLLED
        for (int i = 0; i < S * MANY_ROWS; i++)
            sum[i] = tile_of(t).offset ? broadcast4(less[h] + r0 + i % MANY_ROWS)
                                       : _mm512_setzero_si512();
        add_groups(w, b->q[r0], 4 * h, 4 * h + 4, sum, S);
        UNROLLED
        for (int i = 0; i < S * MANY_ROWS; i++) {
            const vf scale = loadf(w[i / MANY_ROWS].scale[h]), f = floats_of(sum[i]);
            if (h)
                both[i] = fused(f, scale, both[i]);
            else
                both[i] = f * scale;
        }
    }
    UNROLLED
    for (int i = 0; i < S * MANY_ROWS; i++) {
        const uint32_t r = r0 + (uint32_t)(i % MANY_ROWS);
        const vf d = broadcastf(b->d + r);
        acc[i] = fused(both[i], loadf(w[i / MANY_ROWS].d) * d, acc[i]);
        if (!tile_of(t).has_min) continue;
        const vi mins = _mm512_dpwssd_epi32(_mm512_setzero_si512(), loadi(w[i / MANY_ROWS].min),
                                            broadcast4(b->half + r));
        acc[i] = fused(floats_of(mins), loadf(w[i / MANY_ROWS].m) * d, acc[i]);
    }
}

/* Minus the offset times the sums of halves of a group of rows. */
INLINE void halves_less(const act_block *b, const int offset, int32_t less[2][ACT_GROUP]) {
    const __m256i pairs = _mm256_loadu_si256((const __m256i *)(const void *)b->half);
    const __m256i by = _mm256_set1_epi32(-offset);
    const __m256i first = _mm256_srai_epi32(_mm256_slli_epi32(pairs, 16), 16);
    _mm256_storeu_si256((__m256i *)less[0], _mm256_mullo_epi32(first, by));
    _mm256_storeu_si256((__m256i *)less[1],
                        _mm256_mullo_epi32(_mm256_srai_epi32(pairs, 16), by));
}

/* sums += n blocks of S strips by MANY_ROWS rows of a group. */
INLINE void many_blocks(const unpacked_block *w, uint32_t n, const dtype t, const act_block *b,
                        uint32_t r0, strip_sums *sums, uint32_t row, const int S) {
    vf acc[MANY_STRIPS * MANY_ROWS];
    int32_t less[2][ACT_GROUP];
    UNROLLED
    for (int i = 0; i < S * MANY_ROWS; i++)
        acc[i] = loadf(sums[i / MANY_ROWS][row + (uint32_t)(i % MANY_ROWS)]);
    do {
        if (tile_of(t).halves) {
            if (tile_of(t).offset) halves_less(b, tile_of(t).offset, less);
            many_halves(w, t, b, r0, less, acc, S);
        } else {
            many_whole(w, t, b, r0, acc, S);
        }
        w += S;
        b++;
    } while (--n);
    UNROLLED
    for (int i = 0; i < S * MANY_ROWS; i++)
        storef(sums[i / MANY_ROWS][row + (uint32_t)(i % MANY_ROWS)], acc[i]);
}

/* Weights that come next, fetched into the second cache while rows meet those that are unpacked: some of n lines of each
 * strip with every few rows. */
typedef struct ahead {
    const uint8_t *at;
    uint64_t stride; /* from strip to strip */
    uint32_t n, each, done;
} ahead;

INLINE ahead ahead_of(const job *j, const dtype t, uint32_t out, uint32_t end, uint32_t k,
                      uint32_t n_rows, const int S) {
    const uint32_t n_in = j->w->n_in;
    const uint64_t all = strip_bytes(tile_of(t).grouped ? j->w->type : t, n_in);
    if (k >= n_in) {
        out += STRIP * (uint32_t)S;
        k = 0;
    }
    if (out >= end) return (ahead){0};
    const uint32_t more = n_in - k < PIECE ? n_in - k : PIECE,
                   n = (uint32_t)(all * more / n_in / 64), groups = n_rows / MANY_ROWS;
    return (ahead){strip_of(j->w, t, out) + all * k / n_in, all, n, (n + groups - 1) / groups,
                   0};
}

INLINE void fetch_some(ahead *a, const int S) {
    const uint32_t to = a->done + a->each < a->n ? a->done + a->each : a->n;
    for (; a->done < to; a->done++)
        for (int s = 0; s < S; s++)
            _mm_prefetch((const char *)a->at + s * a->stride + 64ull * a->done, _MM_HINT_T1);
}

/* Where results of some rows will go: each row's are another line, which the first cache lacks. */
INLINE void fetch_results(const job *j, uint32_t row, uint32_t out, const int S) {
    for (uint32_t r = row; r < row + MANY_ROWS && r < j->a->n_rows; r++)
        for (int s = 0; s < S; s++)
            _mm_prefetch((const char *)(j->y + (uint64_t)r * j->ldy + out + STRIP * s),
                         _MM_HINT_T0);
}

INLINE void store_strips(const job *j, uint32_t row, uint32_t out, uint32_t end,
                         strip_sums *sums, uint32_t at, const int S) {
    for (int s = 0; s < S; s++)
        store_sums(j, row, row + MANY_ROWS, out + STRIP * (uint32_t)s, end, sums[s][at]);
}

/* Rows [row0, row1) by S strips. */
INLINE void many_strips(const job *j, const dtype t, uint32_t row0, uint32_t row1, uint32_t out,
                        uint32_t end, const int S) {
    _Alignas(64) unpacked_block w[PIECE / 32 * MANY_STRIPS];
    _Alignas(64) strip_sums sums[MANY_STRIPS];
    const uint32_t n_in = j->w->n_in, n_rows = row1 - row0;
    for (int s = 0; s < S; s++) memset(sums[s], 0, n_rows * sizeof *sums[s]);
    for (uint32_t k = 0, n; k < n_in; k += n) {
        n = n_in - k < PIECE ? n_in - k : PIECE;
        for (int s = 0; s < S; s++) {
            const uint8_t *strip = strip_of(j->w, t, out + STRIP * (uint32_t)s);
            if (tile_of(t).grouped)
                unpack_grouped(strip, t, j->w->type, k, n, w + s, S);
            else
                unpack(strip + (uint64_t)(k / tile_of(t).n_in) * tile_bytes(t), t, n, w + s, S);
        }
        ahead next = ahead_of(j, t, out, end, k + n, n_rows, S);
        for (uint32_t r = 0; r < n_rows; r += MANY_ROWS) {
            const bool last = k + n == n_in;
            fetch_some(&next, S);
            if (last) fetch_results(j, row0 + r + MANY_ROWS, out, S);
            many_blocks(w, n / 32, t, act_group(j->a, row0 + r) + k / 32, r % ACT_GROUP, sums,
                        r, S);
            if (last) store_strips(j, row0 + r, out, end, sums, r, S);
        }
    }
}

INLINE void run_many(const job *j, const dtype t, uint32_t row0, uint32_t row1, uint32_t out,
                     uint32_t end) {
    const uint32_t n =
        end - out > MANY_STRIPS * STRIP ? MANY_STRIPS : (end - out + STRIP - 1) / STRIP;
    if (tile_of(t).halves || n < 3) {
        for (uint32_t s = 0; s < n; s += 2)
            if (n - s > 1)
                many_strips(j, t, row0, row1, out + STRIP * s, end, 2);
            else
                many_strips(j, t, row0, row1, out + STRIP * s, end, 1);
    } else {
        many_strips(j, t, row0, row1, out, end, 3);
    }
}

enum { PAYS_FROM = 4 * ACT_GROUP };
