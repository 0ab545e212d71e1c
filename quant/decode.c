/* Stored rows back to float32. Pure. */
#include <string.h>

#include "base/check.h"
#include "base/half.h"
#include "model/words.h"
#include "quant/grouped.h"
#include "quant/pack.h"
#include "quant/quant.h"

static const int8_t book[16] = {QUANT_BOOK};

static float half_in(const uint8_t *in) {
    uint16_t h;
    memcpy(&h, in, 2);
    return half_to_float(h);
}

static void decode_floats(dtype t, const uint8_t *in, size_t n, float *out) {
    uint16_t h;
    if (t == DT_F32) {
        memcpy(out, in, 4 * n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        memcpy(&h, in + 2 * i, 2);
        out[i] = t == DT_F16 ? half_to_float(h) : bf16_to_float(h);
    }
}

static void decode_mxfp4(const uint8_t *in, float *out) {
    static const int8_t e2m1[16] = {E2M1_TWICE};
    const float d = e8m0_half(in[0]);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)e2m1[i < 16 ? in[1 + i] & 15 : in[1 + i - 16] >> 4];
}

/* 32 numbers of a type with blocks of 32. */
static void decode_32(dtype t, const uint8_t *in, float *out) {
    const bool min = t == DT_Q4_1 || t == DT_Q5_1, fifth = t == DT_Q5_0 || t == DT_Q5_1;
    if (t == DT_MXFP4) {
        decode_mxfp4(in, out);
        return;
    }
    const float d = half_in(in), m = min ? half_in(in + 2) : 0;
    const uint8_t *at = in + (min ? 4 : 2);
    uint32_t high = 0;
    if (t == DT_Q8_0) {
        for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)at[i];
        return;
    }
    if (fifth) {
        memcpy(&high, at, 4);
        at += 4;
    }
    const int zero = t == DT_Q4_0 ? 8 : t == DT_Q5_0 ? 16 : 0;
    for (int i = 0; i < 32; i++) {
        int c = i < 16 ? at[i] & 15 : at[i - 16] >> 4;
        if (fifth) c |= (int)(high >> i & 1) << 4;
        const float v = d * (float)(t == DT_IQ4_NL ? book[c] : c - zero);
        out[i] = min ? v + m : v;
    }
}

static void decode_256(dtype t, const uint8_t *in, float *out) {
    const bool min = t == DT_Q2_K || t == DT_Q4_K || t == DT_Q5_K;
    const int zero = t == DT_Q3_K ? 4 : t == DT_Q6_K ? 32 : 0;
    const int run = t == DT_Q4_K || t == DT_Q5_K || t == DT_IQ4_XS ? 32 : 16;
    super_block b;
    super_unpack(t, in, &b);
    const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
    for (int i = 0; i < SUPER; i++) {
        const int g = i / run, c = b.code[i];
        const float v = d * (float)b.scale[g] * (float)(t == DT_IQ4_XS ? book[c] : c - zero);
        out[i] = min ? v - dmin * (float)b.min[g] : v;
    }
}

void quant_decode_row(dtype t, const void *blocks, size_t n, float *out) {
    if (dtype_group(t)) {
        quant_decode_groups(t, blocks, n, out);
        return;
    }
    const dtype_info *info = dtype_get(t);
    const uint8_t *in = blocks;
    CHECK(quant_reads(t) && n % info->block_elems == 0);
    if (words_type_of(t).n_words) {
        for (size_t i = 0; i < n; i += info->block_elems, in += info->block_bytes)
            words_decode(t, in, out + i);
        return;
    }
    if (info->block_elems == 1)
        decode_floats(t, in, n, out);
    else
        for (size_t i = 0; i < n; i += info->block_elems, in += info->block_bytes)
            (info->block_elems == 32 ? decode_32 : decode_256)(t, in, out + i);
}
