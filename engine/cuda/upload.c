/* See upload.h. The blocks are those of ggml, which defines them by its C structs; each
 * function takes one of them. */
#include "engine/cuda/upload.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/half.h"
#include "model/words.h"

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

/* ---- scales of 32, products of two numbers, to f16 ---- */

static void from_iq4_xs(const uint8_t *b, uint8_t *to) {
    const float d = half_at(b);
    const uint32_t high = b[2] | (uint32_t)b[3] << 8;
    for (int j = 0; j < 8; j++, to += 18) {
        const uint32_t low = b[4 + j / 2] >> 4 * (j % 2) & 15;
        const int scale = (int)(low | (high >> 2 * j & 3) << 4) - 32;
        put_half(d * (float)scale, to);
        memcpy(to + 2, b + 8 + 16 * j, 16);
    }
}

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

static void from_q5_k(const uint8_t *b, uint8_t *to) {
    const float d = half_at(b), dmin = half_at(b + 2);
    for (int j = 0; j < 8; j++, to += 24) {
        const uint8_t *high = b + 16, *q = b + 48 + 32 * (j / 2);
        const int shift = 4 * (j % 2);
        uint32_t fifth = 0;
        float scale, min;
        scale_k(b + 4, j, &scale, &min);
        put_half(d * scale, to);
        put_half(-(dmin * min), to + 2);
        for (int i = 0; i < 32; i++) fifth |= (uint32_t)(high[i] >> j & 1) << i;
        memcpy(to + 4, &fifth, 4);
        for (int i = 0; i < 16; i++)
            to[8 + i] = (uint8_t)((q[i] >> shift & 15) | (q[16 + i] >> shift & 15) << 4);
    }
}

/* ---- types of model/words.h ---- */

/* Q8_0; scale and words of each block are in the file's order. */
static void from_words(dtype t, const uint8_t *b, uint8_t *to) {
    const words_type w = words_type_of(t);
    for (uint32_t j = 0; j < w.elems / 32u; j++, to += 34) {
        uint8_t codes[32];
        float d[2];
        words_codes(t, b + (w.scale_at < 0 ? 0 : w.scale_at), b + words_begin(w), 4, j, codes,
                    d);
        put_half(d[0], to);
        for (int i = 0; i < 32; i++) to[2 + i] = (uint8_t)(codes[i] - w.offset);
    }
}

static void upload_words(dtype t, const uint8_t *from, uint64_t n, uint8_t *to) {
    const words_type w = words_type_of(t);
    const bool as_floats = cu_upload_type(t) == DT_F32;
    CHECK(n % w.elems == 0);
    for (uint64_t k = 0; k < n; k += w.elems, from += dtype_get(t)->block_bytes) {
        if (as_floats)
            words_decode(t, from, (float *)to + k);
        else
            from_words(t, from, to + k / 32 * 34);
    }
}

/* ---- groups, whose scale each of their blocks of 32 repeats ---- */

/* A group's parts. */
typedef struct group_view {
    dtype type;
    const uint8_t *codes;
    uint32_t step; /* bytes of 32 codes */
    int zero;
} group_view;

static group_view group_of(dtype t, const uint8_t *b) {
    const dtype kind = dtype_kind(t);
    group_view g = {t, b + (dtype_scale(t) == DT_F32 ? 4 : 2) + dtype_zero_bytes(t),
                    kind == DT_I4 || kind == DT_I4Z ? 16 : 32, kind == DT_I4 ? 8 : 0};
    if (kind == DT_I4Z) g.zero = g.codes[-1];
    if (kind == DT_I8Z) g.zero = (int16_t)(g.codes[-2] | g.codes[-1] << 8);
    return g;
}

/* Code i of the k-th 32, less the zero point. */
static int code_of(const group_view *g, uint32_t k, uint32_t i) {
    const uint8_t *p = g->codes + (size_t)k * g->step;
    if (g->step == 32) return (int8_t)p[i] - g->zero;
    return (i < 16 ? p[i] & 15 : p[i - 16] >> 4) - g->zero;
}

static float scale_as_float(dtype t, const uint8_t *p) {
    if (dtype_scale(t) == DT_F32) return float_of_bits(bits_at(p));
    return dtype_scale(t) == DT_F16 ? half_at(p) : bf16_to_float((uint16_t)(p[0] | p[1] << 8));
}

/* 32 numbers as the device's type has them; b: the group, k: which 32. Returns bytes. */
static uint32_t put_32(const group_view *g, const uint8_t *b, uint32_t k, uint8_t *to) {
    const dtype as = cu_upload_type(g->type);
    const float d = scale_as_float(g->type, b);
    if (as == DT_F32) {
        for (uint32_t i = 0; i < 32; i++) ((float *)to)[i] = d * (float)code_of(g, k, i);
        return 128;
    }
    put_half(d, to);
    if (as == DT_Q4_0) {
        memcpy(to + 2, g->codes + (size_t)k * 16, 16);
        return 18;
    }
    for (uint32_t i = 0; i < 32; i++) to[2 + i] = (uint8_t)code_of(g, k, i);
    return 34;
}

static void upload_groups(dtype t, const uint8_t *from, uint64_t n, uint8_t *to) {
    const dtype_block in = dtype_block_of(t);
    CHECK(n % in.elems == 0);
    for (uint64_t at = 0; at < n; at += in.elems, from += in.bytes) {
        const group_view g = group_of(t, from);
        if (dtype_kind(t) == DT_F8) {
            const float d = scale_as_float(t, from);
            memcpy(to, &d, 4);
            memcpy(to + 4, g.codes, in.elems);
            to += 4 + in.elems;
            continue;
        }
        for (uint32_t k = 0; k < in.elems / 32; k++) to += put_32(&g, from, k, to);
    }
}

bool cu_upload_fits(dtype t, const void *from, uint64_t n) {
    const dtype as = cu_upload_type(t);
    if (!dtype_group(t) || as == t || as == DT_F32 || dtype_kind(t) == DT_F8) return true;
    const dtype_block in = dtype_block_of(t);
    const uint8_t *b = from;
    bool fits = true;
    for (uint64_t at = 0; at < n; at += in.elems, b += in.bytes) {
        const float d = fabsf(scale_as_float(t, b));
        fits &= !(d > 65504.0f) || isinf(d);
    }
    return fits;
}

/* ---- */

#define EACH(function, step)                                                                   \
    for (uint64_t i = 0; i < blocks; i++) function(in + i * type->block_bytes, out + i * (step))

void cu_upload(dtype t, const void *from, uint64_t n, void *to) {
    if (dtype_group(t)) {
        upload_groups(t, from, n, to);
        return;
    }
    if (words_type_of(t).n_words) {
        upload_words(t, from, n, to);
        return;
    }
    const dtype_info *type = dtype_get(t);
    const uint64_t blocks = n / type->block_elems;
    const uint8_t *in = from;
    uint8_t *out = to;
    CHECK(n % type->block_elems == 0);
    switch (t) {
    case DT_IQ4_XS: EACH(from_iq4_xs, 8 * 18); return;
    case DT_Q5_K: EACH(from_q5_k, 8 * 24); return;
    default:
        CHECK(t == DT_Q4_K);
        EACH(from_q4_k, 8 * 20);
        return;
    }
}
