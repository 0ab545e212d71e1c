/* Linear layers in plain C: the twin that the vector kernels are tested against, and the path
 * of a CPU without AVX2. Says the numerics of engine/cpu/linear.h in the plainest way. Pure. */
#include "engine/cpu/linear.h"

#include <math.h>

#include "base/check.h"
#include "base/half.h"
#include "engine/cpu/linear_tiles.h"

static void quantise_block(const float *x, act_block *b, uint32_t r) {
    uint32_t big_bits = 0; /* magnitudes order as integers do, NaN above all */
    for (int i = 0; i < 32; i++) {
        uint32_t u = bits_of_float(x[i]) & 0x7fffffff;
        if (u > big_bits) big_bits = u;
    }
    float big = float_of_bits(big_bits), d = big / 127.0f, inv = 127.0f / big;
    bool bad = big_bits >= 0x7f800000;
    if (bad || big < ACT_TINY) {
        memset(b->q[r], 0, 32);
        b->d[r] = b->s[r] = bad ? float_of_bits(0x7fc00000) : 0.0f;
        b->neg8[r] = 0;
        return;
    }
    int32_t sum = 0;
    for (int i = 0; i < 32; i++) {
        /* Adding 1.5 * 2^23 leaves the integer, rounded half to even, in the low bits. */
        uint32_t u = bits_of_float(x[i] * inv + 0x1.8p23f);
        int32_t q = (int32_t)(u - 0x4b400000u);
        b->q[r][i] = (int8_t)q;
        sum += q;
    }
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

/* Codes of a tile as integers: w[k][o]. */
static void tile_codes(const uint8_t *tile, dtype t, int16_t w[32][STRIP]) {
    const uint8_t *c = tile + (t == DT_Q4_1 ? 4 : 2) * STRIP;
    int offset = t == DT_Q4_0 ? 8 : 0;
    for (int k = 0; k < 32; k++)
        for (int o = 0; o < STRIP; o++) {
            if (t == DT_Q8_0) {
                w[k][o] = (int16_t)(c[64 * (k / 4) + 4 * o + k % 4] - 128);
            } else {
                uint8_t pair = c[64 * (k % 16 / 4) + 4 * o + k % 4];
                w[k][o] = (int16_t)((k < 16 ? pair & 15 : pair >> 4) - offset);
            }
        }
}

static void tile_halves(const uint8_t *p, float out[STRIP]) {
    for (int o = 0; o < STRIP; o++) {
        uint16_t h;
        memcpy(&h, p + 2 * o, 2);
        out[o] = half_to_float(h);
    }
}

/* acc[r][o] of n_rows rows (one act_group at most) and one strip. */
static void strip_int8(const uint8_t *tile, const packed *w, const act_block *b, uint32_t r0,
                       uint32_t n_rows, float acc[ACT_GROUP][STRIP]) {
    memset(acc, 0, sizeof(float) * ACT_GROUP * STRIP);
    for (uint32_t k0 = 0; k0 < w->n_in; k0 += 32, b++, tile += tile_bytes(w->type)) {
        int16_t codes[32][STRIP];
        float d[STRIP], m[STRIP];
        tile_codes(tile, w->type, codes);
        tile_halves(tile, d);
        if (w->type == DT_Q4_1) tile_halves(tile + 2 * STRIP, m);
        for (uint32_t r = 0; r < n_rows; r++) {
            int32_t sum[STRIP] = {0};
            for (int k = 0; k < 32; k++) {
                int32_t q = b->q[r0 + r][k];
                for (int o = 0; o < STRIP; o++) sum[o] += codes[k][o] * q;
            }
            float da = b->d[r0 + r], sa = b->s[r0 + r];
            for (int o = 0; o < STRIP; o++) {
                acc[r][o] = fmaf((float)sum[o], d[o] * da, acc[r][o]);
                if (w->type == DT_Q4_1) acc[r][o] = fmaf(m[o], sa, acc[r][o]);
            }
        }
    }
}

/* One input (float types) or 32 inputs (quantised types) of a strip as float32. */
static uint32_t strip_floats(const uint8_t *strip, dtype t, uint32_t k, float w[32][STRIP]) {
    if (!tile_bytes(t)) {
        for (int o = 0; o < STRIP; o++) {
            uint64_t at = (uint64_t)k * STRIP + (uint64_t)o;
            uint16_t h;
            if (t == DT_F32) {
                memcpy(&w[0][o], strip + 4 * at, 4);
                continue;
            }
            memcpy(&h, strip + 2 * at, 2);
            w[0][o] = t == DT_F16 ? half_to_float(h) : bf16_to_float(h);
        }
        return 1;
    }
    const uint8_t *tile = strip + (uint64_t)k / 32 * tile_bytes(t);
    int16_t codes[32][STRIP];
    float d[STRIP], m[STRIP] = {0};
    tile_codes(tile, t, codes);
    tile_halves(tile, d);
    if (t == DT_Q4_1) tile_halves(tile + 2 * STRIP, m);
    for (int i = 0; i < 32; i++)
        for (int o = 0; o < STRIP; o++) {
            w[i][o] = d[o] * (float)codes[i][o];
            if (t == DT_Q4_1) w[i][o] += m[o];
        }
    return 32;
}

static void strip_float(const uint8_t *strip, const packed *w, const float *x, uint32_t n_rows,
                        float acc[ACT_GROUP][STRIP]) {
    memset(acc, 0, sizeof(float) * ACT_GROUP * STRIP);
    float v[32][STRIP];
    for (uint32_t k = 0, n; k < w->n_in; k += n) {
        n = strip_floats(strip, w->type, k, v);
        for (uint32_t r = 0; r < n_rows; r++)
            for (uint32_t i = 0; i < n; i++) {
                float xi = x[(uint64_t)r * w->n_in + k + i];
                for (int o = 0; o < STRIP; o++) acc[r][o] = fmaf(v[i][o], xi, acc[r][o]);
            }
    }
}

static void linear(const packed *w, const act *a, uint32_t row0, uint32_t row1, uint32_t out0,
                   uint32_t out1, const float *bias, const float *residual, uint32_t ld_res,
                   float *y, uint32_t ldy) {
    linear_check(w, a, row1, out0, out1);
    for (uint32_t out = out0; out < out1; out += STRIP) {
        uint32_t n = out1 - out < STRIP ? out1 - out : STRIP, next;
        for (uint32_t row = row0; row < row1; row = next) {
            next = row - row % ACT_GROUP + ACT_GROUP;
            if (next > row1) next = row1;
            float acc[ACT_GROUP][STRIP];
            if (act_is_int8(w, a))
                strip_int8(strip_at(w, out), w, act_group(a, row), row % ACT_GROUP, next - row,
                           acc);
            else
                strip_float(strip_at(w, out), w, a->f + (uint64_t)row * a->n_in, next - row,
                            acc);
            for (uint32_t r = row; r < next; r++)
                for (uint32_t o = 0; o < n; o++) {
                    float v = acc[r - row][o];
                    if (bias) v += bias[out + o];
                    if (residual) v += residual[(uint64_t)r * ld_res + out + o];
                    y[(uint64_t)r * ldy + out + o] = v;
                }
        }
    }
}

const linear_kernels linear_plain = {ISA_PLAIN, quantise, linear};
