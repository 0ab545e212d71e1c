/* Linear layers in plain C: the twin that the vector kernels are tested against, and the path
 * of a CPU without AVX2. Says the numerics of engine/cpu/linear.h in the plainest way. Pure. */
#include "engine/cpu/linear.h"

#include <math.h>

#include "base/check.h"
#include "engine/cpu/linear_decode.h"
#include "engine/cpu/words.h"

static void quantise_block(const float *x, act_block *b, uint32_t r) {
    uint32_t big_bits = 0; /* magnitudes order as integers do, NaN above all */
    for (int i = 0; i < 32; i++) {
        uint32_t u = bits_of_float(x[i]) & 0x7fffffff;
        if (u > big_bits) big_bits = u;
    }
    float big = float_of_bits(big_bits), d = big / 127.0f, inv = 127.0f / big;
    bool bad = big_bits >= 0x7f800000;
    if (bad || big < ACT_TINY) {
        act_block_none(b, r, bad);
        return;
    }
    int32_t sum[2] = {0};
    for (int i = 0; i < 32; i++) {
        /* Adding 1.5 * 2^23 leaves the integer, rounded half to even, in the low bits. */
        uint32_t u = bits_of_float(x[i] * inv + 0x1.8p23f);
        int32_t q = (int32_t)(u - 0x4b400000u);
        b->q[r][i] = (int8_t)q;
        sum[i / 16] += q;
    }
    act_block_set(b, r, d, sum[0], sum[1]);
}

static void quantise(const float *x, const act *a, uint32_t row) {
    CHECK(row < a->n_rows);
    act_block *b = act_group(a, row);
    for (uint32_t k = 0; k < a->n_in / 32; k++)
        quantise_block(x + 32 * k, b + k, row % ACT_GROUP);
}

/* 32 inputs of a strip: codes (offset undone) and scales by output. */
typedef struct block {
    int16_t code[32][STRIP];
    block_scale scale[STRIP];
} block;

DECODE void block_read(const uint8_t *tile, dtype t, uint32_t j, block *b) {
    for (uint32_t o = 0; o < STRIP; o++) b->scale[o] = scale_at(tile, t, j, o);
    for (uint32_t k = 0; k < 32; k++)
        for (uint32_t o = 0; o < STRIP; o++)
            b->code[k][o] =
                (int16_t)(code_at(codes_at(tile, t, j), t, k, o) - b->scale[o].zero);
}

/* acc += one block, the formula of engine/cpu/linear.h. */
DECODE void block_int8(const block *w, dtype t, const act_block *b, uint32_t r,
                       float acc[STRIP]) {
    const tile_info i = tile_of(t);
    int32_t sum[2][STRIP] = {{0}};
    for (int k = 0; k < 32; k++)
        for (int o = 0; o < STRIP; o++) sum[k / 16][o] += w->code[k][o] * b->q[r][k];
    for (int o = 0; o < STRIP; o++) {
        const block_scale *s = &w->scale[o];
        int32_t all = s->scale[0] * sum[0][o] + s->scale[1] * sum[1][o];
        acc[o] = fmaf((float)all, s->d * b->d[r], acc[o]);
        if (!i.has_min) continue;
        int32_t mins = s->min[0] * b->half[r][0] + s->min[1] * b->half[r][1];
        if (i.halves)
            acc[o] = fmaf((float)mins, s->m * b->d[r], acc[o]);
        else
            acc[o] = fmaf(s->m, b->s[r], acc[o]);
    }
}

/* acc[r][o] of n_rows rows (one act_group at most) and one strip. */
DECODE void strip_int8(const uint8_t *tile, dtype t, uint32_t n_in, const act_block *b,
                       uint32_t r0, uint32_t n_rows, float acc[ACT_GROUP][STRIP]) {
    const tile_info i = tile_of(t);
    block w;
    for (; n_in; n_in -= i.n_in, tile += tile_bytes(t))
        for (uint32_t j = 0; j < i.n_in / 32u; j++, b++) {
            block_read(tile, t, j, &w);
            for (uint32_t r = 0; r < n_rows; r++) block_int8(&w, t, b, r0 + r, acc[r]);
        }
}

/* The same of a type of model/words.h. */
static void strip_words(const uint8_t *tile, dtype t, uint32_t n_in, const act_block *b,
                        uint32_t r0, uint32_t n_rows, float acc[ACT_GROUP][STRIP]) {
    const words_type w = words_type_of(t);
    uint8_t codes[32];
    float d[2];
    for (; n_in; n_in -= w.elems, tile += tile_bytes(t))
        for (uint32_t j = 0; j < w.elems / 32u; j++, b++)
            for (uint32_t o = 0; o < STRIP; o++) {
                words_at(tile, t, j, o, codes, d);
                for (uint32_t r = 0; r < n_rows; r++) {
                    int32_t sum[2] = {0, 0};
                    for (int k = 0; k < 32; k++)
                        sum[k / 16] += (codes[k] - w.offset) * b->q[r0 + r][k];
                    if (!w.halves) sum[0] += sum[1];
                    for (int h = 0; h <= w.halves; h++)
                        acc[r][o] = fmaf((float)sum[h], d[h] * b->d[r0 + r], acc[r][o]);
                }
            }
}

/* n inputs of a strip as float32 into the sums; x: theirs, ld apart. */
static void add_floats(float (*w)[STRIP], uint32_t n, const float *x, uint64_t ld,
                       uint32_t n_rows, float acc[ACT_GROUP][STRIP]) {
    for (uint32_t r = 0; r < n_rows; r++)
        for (uint32_t i = 0; i < n; i++)
            for (int o = 0; o < STRIP; o++) acc[r][o] = fmaf(w[i][o], x[r * ld + i], acc[r][o]);
}

DECODE void strip_quant(const uint8_t *tile, dtype t, uint32_t n_in, const float *x,
                        uint32_t n_rows, float acc[ACT_GROUP][STRIP]) {
    const tile_info i = tile_of(t);
    float w[32][STRIP];
    for (uint32_t at = 0; at < n_in; at += i.n_in, tile += tile_bytes(t))
        for (uint32_t j = 0; j < i.n_in / 32u; j++) {
            for (uint32_t o = 0; o < STRIP; o++) {
                const block_scale s = scale_at(tile, t, j, o);
                for (uint32_t k = 0; k < 32; k++)
                    w[k][o] = weight_at(&s, codes_at(tile, t, j), t, k, o);
            }
            add_floats(w, 32, x + at + 32 * j, n_in, n_rows, acc);
        }
}

static void strip_words_floats(const uint8_t *tile, dtype t, uint32_t n_in, const float *x,
                               uint32_t n_rows, float acc[ACT_GROUP][STRIP]) {
    const words_type i = words_type_of(t);
    float w[32][STRIP];
    for (uint32_t at = 0; at < n_in; at += i.elems, tile += tile_bytes(t))
        for (uint32_t j = 0; j < i.elems / 32u; j++) {
            for (uint32_t o = 0; o < STRIP; o++)
                words_floats_at(tile, t, j, o, &w[0][o], STRIP);
            add_floats(w, 32, x + at + 32 * j, n_in, n_rows, acc);
        }
}

static void strip_float(const uint8_t *strip, dtype t, uint32_t n_in, const float *x,
                        uint32_t n_rows, float acc[ACT_GROUP][STRIP]) {
    for (uint32_t k = 0; k < n_in; k++) {
        float w[1][STRIP];
        for (uint32_t o = 0; o < STRIP; o++) {
            uint64_t at = (uint64_t)k * STRIP + o;
            uint16_t h;
            if (t == DT_F32) {
                memcpy(&w[0][o], strip + 4 * at, 4);
                continue;
            }
            memcpy(&h, strip + 2 * at, 2);
            w[0][o] = t == DT_F16 ? half_to_float(h) : bf16_to_float(h);
        }
        add_floats(w, 1, x + k, n_in, n_rows, acc);
    }
}

/* Rows row.. (of one act_group) by the strip of output out. */
static void strip_sums(const packed *w, const act *a, uint32_t row, uint32_t n, uint32_t out,
                       float acc[ACT_GROUP][STRIP]) {
    const uint8_t *strip = strip_at(w, out);
    const bool int8 = act_is_int8(w, a);
    const act_block *b = int8 ? act_group(a, row) : NULL;
    const float *x = int8 ? NULL : row_floats(a, row);
    memset(acc, 0, sizeof(float) * ACT_GROUP * STRIP);
    switch (dtype_kind(w->type)) {
#define X(name, ...)                                                                           \
    case DT_##name:                                                                            \
        if (int8)                                                                              \
            strip_int8(strip, DT_##name, w->n_in, b, row % ACT_GROUP, n, acc);                 \
        else                                                                                   \
            strip_quant(strip, DT_##name, w->n_in, x, n, acc);                                 \
        break;
        TILE_LIST(X)
#undef X
#define X(name, ...) case DT_##name:
        WORDS_LIST(X)
        if (int8)
            strip_words(strip, w->type, w->n_in, b, row % ACT_GROUP, n, acc);
        else
            strip_words_floats(strip, w->type, w->n_in, x, n, acc);
        break;
        GROUP_TILE_LIST(X)
#undef X
        if (int8)
            strip_int8(strip, w->type, w->n_in, b, row % ACT_GROUP, n, acc);
        else
            strip_quant(strip, w->type, w->n_in, x, n, acc);
        break;
    default: strip_float(strip, w->type, w->n_in, x, n, acc); break;
    }
}

static void linear(const linear_call *c, span rows, span outs) {
    linear_check(c->w, c->a, rows, outs);
    for (uint32_t out = outs.from; out < outs.to; out += STRIP) {
        uint32_t n = outs.to - out < STRIP ? outs.to - out : STRIP, next;
        for (uint32_t row = rows.from; row < rows.to; row = next) {
            next = row - row % ACT_GROUP + ACT_GROUP;
            if (next > rows.to) next = rows.to;
            float acc[ACT_GROUP][STRIP];
            strip_sums(c->w, c->a, row, next - row, out, acc);
            for (uint32_t r = row; r < next; r++)
                for (uint32_t o = 0; o < n; o++) {
                    float v = acc[r - row][o];
                    if (c->w->scale) v *= *c->w->scale;
                    if (c->bias) v += c->bias[out + o];
                    if (c->residual) v += c->residual[(uint64_t)r * c->ld_res + out + o];
                    c->y[(uint64_t)r * c->ldy + out + o] = v;
                }
        }
    }
}

const linear_kernels linear_plain = {ISA_PLAIN, quantise, linear};
