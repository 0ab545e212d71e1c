/* What the codes of a quantised KV cache mean: int8, q8_0, fp8, int4. The one set of formulas
 * for all engines, so that the same K and V give the same bytes on each of them; where the
 * bytes lie says kv_block.h.
 *
 * A segment is up to 64 neighbouring dimensions of one token's K or V of one head (kv_format:
 * k_segment, v_segment). It is stored as a code for each dimension and one word of 16 bits:
 *
 *     type   rotated  word                                   value of a code c
 *     int8   yes      f16 d                                  c d         c = -127..127
 *     q8_0   no       f16 d                                  c d         c = -127..127
 *     fp8    yes      f16 d                                  c d         c = e4m3, up to 448
 *     int4   yes      d in 10 bits, z in 6 (kv_word_of)      (c - z) d   c = 0..15, z = 0..15.75
 *
 * Rotated: what is coded is y = H x, H the Hadamard matrix of +1 and -1 (kv_hadamard), which
 * spreads a large dimension over the segment. H H = n I, n the dimensions of the segment, a
 * power of two. So a score is q . k = (H q / n) . (H k), and a sum of rotated values is turned
 * back by H / n; both divisions are exact.
 *
 * With y for a segment as it is coded and m = max |y|:
 *     int8, q8_0  d = f16(m / 127), c = round(y / d)
 *     fp8         d = f16(m / 448), c = e4m3(y / d)
 *     int4        lo = min(0, min y), hi = max(0, max y), d = (hi - lo) / 15 rounded up to 5 bits
 *                 behind the point, z = round(-4 lo / d) / 4, c = round(y / d + z)
 * Rounding is to nearest, ties to even; codes are cut to their range; d is at least the
 * smallest number above 0 of its format. A segment of zeros has codes of value 0. A NaN or an
 * infinity among y, or a d beyond f16, makes d NaN: whoever reads the segment gets NaN, as
 * from an f16 cache.
 *
 * Sums of products are the engine's; for them codes and d come scaled by powers of two
 * (kv_code_value, kv_scale_of), which changes no bit of a product but its exponent.
 *
 * Pure; any thread; plain C, also for device code. Compile without contraction (-ffp-contract=off,
 * -fmad=false): no formula here has a product and a sum that may be joined, but see kv_code_of.
 */
#ifndef VRAMD_ENGINE_KV_CODE_H
#define VRAMD_ENGINE_KV_CODE_H

#include <math.h>

#include "base/half.h"
#include "engine/kv_block.h"

/* The extremes of a segment as it is coded. */
typedef struct kv_extremes {
    float lo, hi;  /* at most 0; at least 0; of what is not NaN */
    uint32_t most; /* the largest |y| as bits: order does not matter, NaN and infinity win */
} kv_extremes;

/* d, and z for int4 (else 0), as codes are multiplied: d times 256 for fp8, see kv_code_value. */
typedef struct kv_scale {
    float d, z;
} kv_scale;

enum { KV_NOT_FINITE = 0x7f800000, KV_NAN_F16 = 0x7e00, KV_NAN_INT4 = 0xffc0 };

/* x = H x of n elements, a power of two: butterflies of stride 1, 2, 4, ... */
KV_INLINE void kv_hadamard(float *x, uint32_t n) {
    for (uint32_t step = 1; step < n; step *= 2)
        for (uint32_t i = 0; i < n; i += 2 * step)
            for (uint32_t j = i; j < i + step; j++) {
                const float a = x[j], b = x[j + step];
                x[j] = a + b;
                x[j + step] = a - b;
            }
}

KV_INLINE kv_extremes kv_extremes_of(const float *y, uint32_t n) {
    kv_extremes e = {0.0f, 0.0f, 0};
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t bits = bits_of_float(y[i]) & 0x7fffffff;
        if (y[i] < e.lo) e.lo = y[i];
        if (y[i] > e.hi) e.hi = y[i];
        if (bits > e.most) e.most = bits;
    }
    return e;
}

/* ---- words ---- */

/* A scale in f16, at least its smallest number above 0. */
KV_INLINE uint16_t kv_word_f16(float d) {
    const uint16_t h = half_of_float(d);
    if (h >= 0x7c00) return KV_NAN_F16;
    return h ? h : 1;
}

/* The 5 bits of exponent of an f16 and the upper 5 of its 10 bits behind the point, d rounded
 * up; then z in quarters. d from 2^-19 to 64,512. */
KV_INLINE uint16_t kv_word_int4(float lo, float hi) {
    const float least = 0x1p-19f, normal = 0x1p-14f;
    float d = (hi - lo) / 15.0f;
    if (d < normal)
        d = d <= least ? least : ceilf(d * 0x1p19f) * least;
    else
        d = float_of_bits((bits_of_float(d) + 0x3ffff) & ~0x3ffffu);
    if (d > 64512.0f) return KV_NAN_INT4;
    const float z = rintf(-4.0f * lo / d); /* at most 60: lo is at least -15 d */
    return (uint16_t)(half_of_float(d) << 1 | (uint16_t)z);
}

/* The word of a segment. */
KV_INLINE uint16_t kv_word_of(dtype t, kv_extremes e) {
    if (e.most >= KV_NOT_FINITE) return t == DT_INT4 ? KV_NAN_INT4 : KV_NAN_F16;
    if (t == DT_INT4) return kv_word_int4(e.lo, e.hi);
    return kv_word_f16(float_of_bits(e.most) / (t == DT_FP8 ? 448.0f : 127.0f));
}

KV_INLINE kv_scale kv_scale_of(dtype t, uint16_t word) {
    kv_scale s = {0.0f, 0.0f};
    if (t == DT_INT4) {
        s.d = half_to_float((uint16_t)(word >> 1 & 0x7fe0));
        s.z = 0.25f * (float)(word & 63);
    } else {
        s.d = half_to_float(word) * (t == DT_FP8 ? 256.0f : 1.0f);
    }
    return s;
}

/* ---- codes ---- */

/* e4m3 without infinities (OCP 8-bit floating point, "E4M3FN"), saturating at 448. x is finite.
 */
KV_INLINE uint8_t kv_e4m3_of_float(float x) {
    const uint32_t u = bits_of_float(x), a = u & 0x7fffffff;
    uint32_t m;
    if (a >= 0x43e00000u) /* 448 */
        m = 0x7e;
    else if (a <
             0x3c800000u) /* below 2^-6: in units of 2^-9, which the float adder rounds to */
        m = bits_of_float(float_of_bits(a) + 16384.0f) - bits_of_float(16384.0f);
    else
        m = ((a + 0x7ffff + (a >> 20 & 1)) >> 20) - (120u << 3);
    return (uint8_t)((u >> 24 & 0x80) | m);
}

/* Its value / 256: the bits as those of an f16. */
KV_INLINE float kv_e4m3_to_float(uint8_t c) {
    return half_to_float((uint16_t)((c & 0x80) << 8 | (c & 0x7f) << 7));
}

/* The code of an element as it is coded, y, in a segment of that word; for 4 bits in the low
 * bits. The one place where a product and a sum meet is z = 0.25 times a small integer, which
 * is exact. */
KV_INLINE uint8_t kv_code_of(dtype t, uint16_t word, float y) {
    const kv_scale s = kv_scale_of(t, word);
    if (t == DT_FP8) {
        const float x = y / (s.d * 0.00390625f);
        return x == x ? kv_e4m3_of_float(x) : 0; /* d is NaN: any code will do */
    }
    float c = rintf(y / s.d + s.z);
    const float least = t == DT_INT4 ? 0.0f : -127.0f, most = t == DT_INT4 ? 15.0f : 127.0f;
    if (!(c > least)) c = c == c ? least : 0.0f;
    if (c > most) c = most;
    return (uint8_t)(int8_t)c;
}

/* A code as it is multiplied. fp8: 1/256 of what e4m3 means, as kv_scale_of has d 256 times. */
KV_INLINE float kv_code_value(dtype t, uint8_t code) {
    if (t == DT_FP8) return kv_e4m3_to_float(code);
    return t == DT_INT4 ? (float)code : (float)(int8_t)code;
}

/* ---- a whole segment ---- */

/* Turns a segment x of n dimensions, which it overwrites, into n codes, a byte each; returns
 * its word. */
KV_INLINE uint16_t kv_encode(const kv_type *t, float *x, uint32_t n, uint8_t *codes) {
    if (t->rotated) kv_hadamard(x, n);
    const uint16_t word = kv_word_of(t->type, kv_extremes_of(x, n));
    for (uint32_t i = 0; i < n; i++) codes[i] = kv_code_of(t->type, word, x[i]);
    return word;
}

/* And back: what a reader of the cache sees. */
KV_INLINE void kv_decode(const kv_type *t, uint16_t word, const uint8_t *codes, uint32_t n,
                         float *x) {
    const kv_scale s = kv_scale_of(t->type, word);
    for (uint32_t i = 0; i < n; i++) x[i] = (kv_code_value(t->type, codes[i]) - s.z) * s.d;
    if (!t->rotated) return;
    kv_hadamard(x, n);
    for (uint32_t i = 0; i < n; i++) x[i] = x[i] * (1.0f / (float)n);
}

#endif
