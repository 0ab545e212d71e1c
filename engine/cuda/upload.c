/* See upload.h. The blocks are those of ggml, which defines them by its C structs; each
 * function takes one of them. */
#include "engine/cuda/upload.h"

#include <string.h>

#include "base/check.h"
#include "base/half.h"
#include "engine/cpu/linear_tiles.h"

static float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return half_to_float(h);
}
static uint32_t bits_at(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static void put_half(float x, uint8_t *to) {
    const uint16_t h = half_of_float(x);
    memcpy(to, &h, 2);
}

/* ---- to Q8_0: f16 scale, 32 codes ---- */

static void from_q5_0(const uint8_t *b, uint8_t *to) {
    const uint32_t high = bits_at(b + 2);
    memcpy(to, b, 2);
    for (int i = 0; i < 16; i++) {
        const uint8_t pair = b[6 + i];
        to[2 + i] = (uint8_t)(((pair & 15) | (high >> i & 1) << 4) - 16);
        to[18 + i] = (uint8_t)((pair >> 4 | (high >> (16 + i) & 1) << 4) - 16);
    }
}

static const int8_t book[16] = {CODE_BOOK};

static void book_codes(const uint8_t *pairs, uint8_t *to) {
    for (int i = 0; i < 16; i++) {
        to[i] = (uint8_t)book[pairs[i] & 15];
        to[16 + i] = (uint8_t)book[pairs[i] >> 4];
    }
}

static void from_iq4_nl(const uint8_t *b, uint8_t *to) {
    memcpy(to, b, 2);
    book_codes(b + 2, to + 2);
}

static void from_iq4_xs(const uint8_t *b, uint8_t *to) {
    const float d = half_at(b);
    const uint32_t high = b[2] | (uint32_t)b[3] << 8;
    for (int j = 0; j < 8; j++, to += 34) {
        const uint32_t low = b[4 + j / 2] >> 4 * (j % 2) & 15;
        const int scale = (int)(low | (high >> 2 * j & 3) << 4) - 32;
        put_half(d * (float)scale, to);
        book_codes(b + 8 + 16 * j, to + 2);
    }
}

/* ---- to Q4_1: f16 scale and minimum, 16 pairs of codes ---- */

/* Six bits each of scale and minimum of the j-th 32 of a block of Q4_K or Q5_K. */
static void scale_k(const uint8_t *s, int j, float *scale, float *min) {
    if (j < 4) {
        *scale = (float)(s[j] & 63);
        *min = (float)(s[j + 4] & 63);
    } else {
        *scale = (float)((s[j + 4] & 15) | s[j - 4] >> 6 << 4);
        *min = (float)(s[j + 4] >> 4 | s[j] >> 6 << 4);
    }
}

static void from_q4_k(const uint8_t *b, uint8_t *to) {
    const float d = half_at(b), dmin = half_at(b + 2);
    for (int j = 0; j < 8; j++, to += 20) {
        const uint8_t *q = b + 16 + 32 * (j / 2);
        const int shift = 4 * (j % 2);
        float scale, min;
        scale_k(b + 4, j, &scale, &min);
        put_half(d * scale, to);
        put_half(-(dmin * min), to + 2);
        for (int i = 0; i < 16; i++)
            to[4 + i] = (uint8_t)((q[i] >> shift & 15) | (q[16 + i] >> shift & 15) << 4);
    }
}

/* ---- to float32 ---- */

static void from_q5_1(const uint8_t *b, float *to) {
    const float d = half_at(b), m = half_at(b + 2);
    const uint32_t high = bits_at(b + 4);
    for (int i = 0; i < 16; i++) {
        const uint8_t pair = b[8 + i];
        to[i] = d * (float)((pair & 15) | (high >> i & 1) << 4) + m;
        to[16 + i] = d * (float)(pair >> 4 | (high >> (16 + i) & 1) << 4) + m;
    }
}

static void from_q2_k(const uint8_t *b, float *to) {
    const float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int j = 0; j < 16; j++) { /* sixteens; 128 weights share 32 bytes */
        const uint8_t *q = b + 16 + 32 * (j / 8) + 16 * (j % 2);
        const int shift = 2 * (j % 8 / 2);
        const float scale = d * (float)(b[j] & 15), min = dmin * (float)(b[j] >> 4);
        for (int i = 0; i < 16; i++) to[16 * j + i] = scale * (float)(q[i] >> shift & 3) - min;
    }
}

static void from_q3_k(const uint8_t *b, float *to) {
    const uint8_t *s = b + 96;
    const float d = half_at(b + 108);
    for (int j = 0; j < 16; j++) {
        const uint8_t *q = b + 32 + 32 * (j / 8) + 16 * (j % 2), *mask = b + 16 * (j % 2);
        const int shift = 2 * (j % 8 / 2);
        const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
        const int high = s[8 + j % 4] >> 2 * (j / 4) & 3;
        const float scale = d * (float)((low | high << 4) - 32);
        for (int i = 0; i < 16; i++) {
            const int code = (q[i] >> shift & 3) - (mask[i] >> j / 2 & 1 ? 0 : 4);
            to[16 * j + i] = scale * (float)code;
        }
    }
}

static void from_q5_k(const uint8_t *b, float *to) {
    const float d = half_at(b), dmin = half_at(b + 2);
    for (int j = 0; j < 8; j++) {
        const uint8_t *high = b + 16, *q = b + 48 + 32 * (j / 2);
        float scale, min;
        scale_k(b + 4, j, &scale, &min);
        scale *= d, min *= dmin;
        for (int i = 0; i < 32; i++) {
            const int code = (q[i] >> 4 * (j % 2) & 15) | (high[i] >> j & 1) << 4;
            to[32 * j + i] = scale * (float)code - min;
        }
    }
}

static void from_q6_k(const uint8_t *b, float *to) {
    const int8_t *s = (const int8_t *)b + 192;
    const float d = half_at(b + 208);
    for (int j = 0; j < 8; j++) { /* 32 weights; four of them share 64 bytes and 32 */
        const uint8_t *q = b + 64 * (j / 4) + 32 * (j % 2), *high = b + 128 + 32 * (j / 4);
        for (int i = 0; i < 32; i++) {
            const int low = q[i] >> 4 * (j % 4 / 2) & 15, two = high[i] >> 2 * (j % 4) & 3;
            to[32 * j + i] = d * (float)s[2 * j + i / 16] * (float)((low | two << 4) - 32);
        }
    }
}

/* ---- groups, whose scale each of their blocks of 32 repeats ---- */

static uint16_t scale_of(dtype t, const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    if (dtype_scale(t) == DT_F16) return h;
    return half_of_float(dtype_scale(t) == DT_BF16 ? bf16_to_float(h)
                                                   : float_of_bits(bits_at(p)));
}

static void from_group(dtype t, const uint8_t *b, uint8_t *to) {
    const bool q8 = cu_upload_type(t) == DT_Q8_0, eight = dtype_kind(t) == DT_I8G;
    const uint16_t d = scale_of(t, b);
    const uint32_t codes = eight ? 32 : 16;
    b += dtype_scale(t) == DT_F32 ? 4 : 2;
    const int zero = dtype_kind(t) == DT_I4Z ? *b++ : 8;
    for (uint32_t k = 0; k < dtype_group(t); k += 32, b += codes) {
        memcpy(to, &d, 2);
        if (eight || !q8) memcpy(to + 2, b, codes);
        for (int i = 0; i < 16 && q8 && !eight; i++) {
            to[2 + i] = (uint8_t)((b[i] & 15) - zero);
            to[18 + i] = (uint8_t)((b[i] >> 4) - zero);
        }
        to += q8 ? 34 : 18;
    }
}

static void upload_groups(dtype t, const uint8_t *from, uint64_t n, uint8_t *to) {
    const dtype_block in = dtype_block_of(t);
    const uint32_t out = cu_upload_type(t) == DT_Q8_0 ? 34 : 18;
    CHECK(n % in.elems == 0);
    for (uint64_t k = 0; k < n; k += in.elems, from += in.bytes, to += in.elems / 32 * out)
        from_group(t, from, to);
}

/* ---- */

#define EACH(function, step)                                                                   \
    for (uint64_t i = 0; i < blocks; i++) function(in + i * type->block_bytes, out + i * (step))

void cu_upload(dtype t, const void *from, uint64_t n, void *to) {
    if (dtype_group(t)) {
        upload_groups(t, from, n, to);
        return;
    }
    const dtype_info *type = dtype_get(t);
    const uint64_t blocks = n / type->block_elems;
    const uint8_t *in = from;
    CHECK(n % type->block_elems == 0);
    if (cu_upload_type(t) == DT_F32) {
        float *out = to;
        switch (t) {
        case DT_Q5_1: EACH(from_q5_1, 32); return;
        case DT_Q2_K: EACH(from_q2_k, 256); return;
        case DT_Q3_K: EACH(from_q3_k, 256); return;
        case DT_Q5_K: EACH(from_q5_k, 256); return;
        default: EACH(from_q6_k, 256); return;
        }
    }
    uint8_t *out = to;
    switch (t) {
    case DT_Q5_0: EACH(from_q5_0, 34); return;
    case DT_IQ4_NL: EACH(from_iq4_nl, 34); return;
    case DT_IQ4_XS: EACH(from_iq4_xs, 8 * 34); return;
    default:
        CHECK(t == DT_Q4_K);
        EACH(from_q4_k, 8 * 20);
        return;
    }
}
