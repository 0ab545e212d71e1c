/* Types with groups: the scale, the zero point of types that have one, and codes by 32 inputs, as dtype.h describes them. */
#include "quant/grouped.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/half.h"

typedef struct group {
    float scale;
    int zero;
    const uint8_t *codes;
} group;

static group group_at(dtype t, const uint8_t *in) {
    group g = {.zero = dtype_kind(t) == DT_I4 ? 8 : 0};
    if (dtype_scale(t) == DT_F32) {
        memcpy(&g.scale, in, 4);
        in += 4;
    } else {
        uint16_t h;
        memcpy(&h, in, 2);
        g.scale = dtype_scale(t) == DT_F16 ? half_to_float(h) : bf16_to_float(h);
        in += 2;
    }
    if (dtype_kind(t) == DT_I4Z) g.zero = *in;
    if (dtype_kind(t) == DT_I8Z) {
        int16_t zero;
        memcpy(&zero, in, 2);
        g.zero = zero;
    }
    g.codes = in + dtype_zero_bytes(t);
    return g;
}

/* Of the k-th 32 of a group; the difference of code and zero point. */
static int nibble(const group *g, uint32_t k, uint32_t i) {
    const uint8_t pair = g->codes[k / 2 + i % 16];
    return (i < 16 ? pair & 15 : pair >> 4) - g->zero;
}

dtype quant_ungrouped(dtype t) {
    switch (dtype_kind(t)) {
    case DT_I4: return DT_Q4_0;
    case DT_I4Z: return DT_Q5_0;
    case DT_I8G: return DT_Q8_0;
    default: return DT_NONE;
    }
}

static void put_q5_0(const group *g, uint32_t k, uint8_t *out) {
    uint32_t high = 0;
    for (uint32_t i = 0; i < 32; i++) {
        const uint32_t code = (uint32_t)(nibble(g, k, i) + 16);
        uint8_t *pair = out + 4 + i % 16;
        *pair = i < 16 ? code & 15 : (uint8_t)(*pair | (code & 15) << 4);
        high |= (code >> 4 & 1) << i;
    }
    memcpy(out, &high, 4);
}

bool quant_ungroup_row(dtype t, const void *blocks, size_t n, void *out) {
    const dtype_block block = dtype_block_of(t);
    const dtype to = quant_ungrouped(t);
    const uint32_t step = dtype_get(to)->block_bytes;
    const uint8_t *in = blocks;
    uint8_t *at = out;
    CHECK(n % block.elems == 0);
    for (size_t i = 0; i < n; i += block.elems, in += block.bytes) {
        const group g = group_at(t, in);
        const uint16_t d = half_of_float(g.scale);
        if (half_to_float(d) != g.scale) return false;
        for (uint32_t k = 0; k < block.elems; k += 32, at += step) {
            memcpy(at, &d, 2);
            if (to == DT_Q5_0)
                put_q5_0(&g, k, at + 2);
            else
                memcpy(at + 2, g.codes + (to == DT_Q4_0 ? k / 2 : k), step - 2);
        }
    }
    return true;
}

static float e4m3(uint8_t c) {
    const int exponent = c >> 3 & 15, fraction = c & 7;
    const float v =
        exponent ? ldexpf((float)(8 + fraction), exponent - 10) : ldexpf((float)fraction, -9);
    return c & 0x80 ? -v : v;
}

void quant_decode_groups(dtype t, const void *blocks, size_t n, float *out) {
    const dtype_block block = dtype_block_of(t);
    const dtype kind = dtype_kind(t);
    const uint8_t *in = blocks;
    CHECK(n % block.elems == 0);
    for (size_t i = 0; i < n; i += block.elems, in += block.bytes) {
        const group g = group_at(t, in);
        for (uint32_t k = 0; k < block.elems; k++, out++)
            *out = g.scale * (kind == DT_F8 ? e4m3(g.codes[k])
                              : kind == DT_I8G || kind == DT_I8Z
                                  ? (float)((int8_t)g.codes[k] - g.zero)
                                  : (float)nibble(&g, k & ~31U, k & 31));
    }
}
