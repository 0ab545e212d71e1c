/* Rounding to nearest, bit for bit as ggml's reference (its functions quantize_row_*_ref): the scale comes
 * from the extreme number alone, and its inverse is taken before it is rounded to 16 bits. Include once, with
 * RTN_NAME(x) defined as the name of a function of this instruction set. Pure. */
#include <math.h>

#include "base/half.h"
#include "quant/encode.h"
#include "quant/lanes.h"

typedef struct rtn_block {
    v8f v[4];
    float min, max;
} rtn_block;

LANES void rtn_load(rtn_block *b, const float *x) {
    for (int i = 0; i < 4; i++) b->v[i] = v8_load(x + 8 * i);
    b->min = v8_hmin(v8_min(v8_min(b->v[0], b->v[1]), v8_min(b->v[2], b->v[3])));
    b->max = v8_hmax(v8_max(v8_max(b->v[0], b->v[1]), v8_max(b->v[2], b->v[3])));
}
/* The number of the largest magnitude, the first of equals; +0 where all are 0. */
LANES float rtn_extreme(const rtn_block *b, const float *x) {
    if (b->max != -b->min) return b->max > -b->min ? b->max : b->min;
    if (b->max == 0) return 0;
    int i = 0;
    while (fabsf(x[i]) != b->max) i++;
    return x[i];
}
LANES float rtn_inverse(float d) {
    return d != 0 ? 1.0f / d : 0.0f;
}
LANES void rtn_put_half(uint8_t *out, float f) {
    uint16_t h = half_of_float(f);
    memcpy(out, &h, 2);
}
/* As the reference's casts: through 8 bits, then at most max. */
LANES v8i rtn_code(v8f scaled, int32_t max) {
    v8i c = (v8_int(scaled) << 24) >> 24;
    v8i over = c > max;
    return (over & max) | (~over & c);
}
/* 32 codes: four bits each, the second half above the first. */
LANES void rtn_nibbles(const v8i c[4], uint8_t *out) {
    for (int i = 0; i < 2; i++) v8_bytes((c[i] & 15) | (c[i + 2] & 15) << 4, out + 8 * i);
}
/* Bit 4 of each. */
LANES void rtn_fifth(const v8i c[4], uint8_t *out) {
    const v8i place = {1, 2, 4, 8, 16, 32, 64, 128};
    for (int i = 0; i < 4; i++) {
        v8i bit = ((c[i] >> 4) & 1) * place;
        out[i] =
            (uint8_t)(bit[0] + bit[1] + bit[2] + bit[3] + bit[4] + bit[5] + bit[6] + bit[7]);
    }
}

/* Codes around 0, half of them negative: Q4_0, Q5_0. */
LANES void rtn_centred(const float *x, size_t n, int32_t half, uint8_t *out) {
    const size_t bytes = half == 8 ? 18 : 22;
    for (size_t at = 0; at < n; at += 32, out += bytes) {
        rtn_block b;
        v8i c[4];
        rtn_load(&b, x + at);
        const float d = rtn_extreme(&b, x + at) / (float)-half, id = rtn_inverse(d);
        rtn_put_half(out, d);
        for (int i = 0; i < 4; i++)
            c[i] = rtn_code(b.v[i] * id + ((float)half + 0.5f), 2 * half - 1);
        if (half == 16) rtn_fifth(c, out + 2);
        rtn_nibbles(c, out + bytes - 16);
    }
}
static void RTN_NAME(q4_0)(const float *x, size_t n, const float *importance, void *out) {
    (void)importance;
    rtn_centred(x, n, 8, out);
}
static void RTN_NAME(q5_0)(const float *x, size_t n, const float *importance, void *out) {
    (void)importance;
    rtn_centred(x, n, 16, out);
}

/* Codes from the minimum up: Q4_1, Q5_1. */
LANES void rtn_from_min(const float *x, size_t n, int32_t max, uint8_t *out) {
    const size_t bytes = max == 15 ? 20 : 24;
    for (size_t at = 0; at < n; at += 32, out += bytes) {
        rtn_block b;
        v8i c[4];
        rtn_load(&b, x + at);
        if (b.min == 0) { /* the sign of the first of equals */
            int i = 0;
            while (x[at + (size_t)i] != 0) i++;
            b.min = x[at + (size_t)i];
        }
        const float d = (b.max - b.min) / (float)max, id = rtn_inverse(d);
        rtn_put_half(out, d + 0.0f); /* no -0 */
        rtn_put_half(out + 2, b.min);
        for (int i = 0; i < 4; i++) c[i] = rtn_code((b.v[i] - b.min) * id + 0.5f, max);
        if (max == 31) rtn_fifth(c, out + 4);
        rtn_nibbles(c, out + bytes - 16);
    }
}
static void RTN_NAME(q4_1)(const float *x, size_t n, const float *importance, void *out) {
    (void)importance;
    rtn_from_min(x, n, 15, out);
}
static void RTN_NAME(q5_1)(const float *x, size_t n, const float *importance, void *out) {
    (void)importance;
    rtn_from_min(x, n, 31, out);
}

static void RTN_NAME(q8_0)(const float *x, size_t n, const float *importance, void *to) {
    uint8_t *out = to;
    (void)importance;
    for (size_t at = 0; at < n; at += 32, out += 34) {
        rtn_block b;
        rtn_load(&b, x + at);
        const float d = (b.max > -b.min ? b.max : -b.min) / 127.0f;
        float id = rtn_inverse(d);
        if (!(id <= 0x1.fffffep127f)) id = 0; /* the scale is 0 in 16 bits anyway */
        rtn_put_half(out, d + 0.0f);          /* no -0 */
        for (int i = 0; i < 4; i++) {
            const v8f y = b.v[i] * id;
            v8i c = v8_int(y);
            const v8f rest = y - v8_float(c); /* halves round away from 0 */
            c = c - (v8i)(rest >= 0.5f) + (v8i)(rest <= -0.5f);
            v8_bytes(c, out + 2 + 8 * i);
        }
    }
}

/* The scale is the power of two by which the largest number is 4 to 8; above 6 it is cut. Of two codes as near, the
 * smaller. */
static void RTN_NAME(mxfp4)(const float *x, size_t n, const float *importance, void *to) {
    static const float between[] = {0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10}; /* of E2M1_TWICE */
    uint8_t *out = to;
    (void)importance;
    for (size_t at = 0; at < n; at += 32, out += 17) {
        rtn_block b;
        v8i c[4];
        rtn_load(&b, x + at);
        const float most = b.max > -b.min ? b.max : -b.min;
        const float power = most > 0 ? floorf(log2f(most)) - 2 + 127 : 0;
        out[0] = power > 0 ? (uint8_t)power : 0;
        const float d = e8m0_half(out[0]);
        for (int i = 0; i < 4; i++) {
            const v8f size = v8_max(b.v[i], -b.v[i]);
            c[i] = (v8i){0};
            for (int k = 0; k < 7; k++) c[i] -= (v8i)(size > between[k] * d);
            c[i] |= 8 & (v8i)(b.v[i] < 0) & (v8i)(c[i] > 0);
        }
        rtn_nibbles(c, out + 1);
    }
}

quant_encoder *RTN_NAME(rtn)(dtype t) {
    switch (t) {
    case DT_Q4_0: return RTN_NAME(q4_0);
    case DT_Q4_1: return RTN_NAME(q4_1);
    case DT_Q5_0: return RTN_NAME(q5_0);
    case DT_Q5_1: return RTN_NAME(q5_1);
    case DT_Q8_0: return RTN_NAME(q8_0);
    case DT_MXFP4: return RTN_NAME(mxfp4);
    default: return NULL;
    }
}
