/* Scales out of blocks, codes into them. Pure; any thread. */
#include "quant/grid.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/half.h"

static const int8_t iq4_book[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};

bool grid_of(dtype t, grid *out) {
    static const grid all[] = {
        {DT_Q4_0, 32, -8, 7, NULL},       {DT_Q4_1, 32, 0, 15, NULL},
        {DT_Q5_0, 32, -16, 15, NULL},     {DT_Q5_1, 32, 0, 31, NULL},
        {DT_Q8_0, 32, -127, 127, NULL},   {DT_Q2_K, 16, 0, 3, NULL},
        {DT_Q3_K, 16, -4, 3, NULL},       {DT_Q4_K, 32, 0, 15, NULL},
        {DT_Q5_K, 32, 0, 31, NULL},       {DT_Q6_K, 16, -32, 31, NULL},
        {DT_IQ4_NL, 32, 0, 15, iq4_book}, {DT_IQ4_XS, 32, 0, 15, iq4_book},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].type == t) return *out = all[i], true;
    return false;
}

/* ---- scales ---- */

static float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return half_to_float(h);
}

/* Q4_K, Q5_K: sub-blocks of 32 with 6 bits of scale and of minimum. */
static void read_k45(const uint8_t *b, grid_scale out[8]) {
    const float d = half_at(b), dmin = half_at(b + 2);
    const uint8_t *s = b + 4;
    for (uint32_t j = 0; j < 8; j++) {
        const uint32_t i = j % 4;
        const uint32_t scale = j < 4 ? s[i] & 63 : (s[8 + i] & 15) | s[i] >> 6 << 4;
        const uint32_t least = j < 4 ? s[4 + i] & 63 : s[8 + i] >> 4 | s[4 + i] >> 6 << 4;
        out[j] = (grid_scale){d * (float)scale, -(dmin * (float)least)};
    }
}

static void read_q2_k(const uint8_t *b, grid_scale out[16]) {
    const float d = half_at(b + 80), dmin = half_at(b + 82);
    for (uint32_t j = 0; j < 16; j++)
        out[j] = (grid_scale){d * (float)(b[j] & 15), -(dmin * (float)(b[j] >> 4))};
}

static void read_q3_k(const uint8_t *b, grid_scale out[16]) {
    const float d = half_at(b + 108);
    const uint8_t *s = b + 96;
    for (uint32_t j = 0; j < 16; j++) {
        const int32_t low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
        const int32_t scale = low | (s[8 + j % 4] >> 2 * (j / 4) & 3) << 4;
        out[j] = (grid_scale){d * (float)(scale - 32), 0};
    }
}

static void read_q6_k(const uint8_t *b, grid_scale out[16]) {
    const float d = half_at(b + 208);
    for (uint32_t j = 0; j < 16; j++) out[j] = (grid_scale){d * (float)(int8_t)b[192 + j], 0};
}

static void read_iq4_xs(const uint8_t *b, grid_scale out[8]) {
    const float d = half_at(b);
    for (uint32_t j = 0; j < 8; j++) {
        const int32_t low = b[4 + j / 2] >> 4 * (j % 2) & 15;
        const int32_t high = (b[2 + j / 4] >> 2 * (j % 4) & 3) << 4;
        out[j] = (grid_scale){d * (float)((low | high) - 32), 0};
    }
}

static void read_block(dtype t, const uint8_t *b, grid_scale *out) {
    switch (t) {
    case DT_Q4_1:
    case DT_Q5_1: *out = (grid_scale){half_at(b), half_at(b + 2)}; break;
    case DT_Q2_K: read_q2_k(b, out); break;
    case DT_Q3_K: read_q3_k(b, out); break;
    case DT_Q4_K:
    case DT_Q5_K: read_k45(b, out); break;
    case DT_Q6_K: read_q6_k(b, out); break;
    case DT_IQ4_XS: read_iq4_xs(b, out); break;
    default: *out = (grid_scale){half_at(b), 0}; break; /* Q4_0, Q5_0, Q8_0, IQ4_NL */
    }
}

void grid_read(const grid *g, const void *blocks, size_t n, grid_scale *out) {
    const dtype_info *t = dtype_get(g->type);
    const uint8_t *b = blocks;
    CHECK(n % t->block_elems == 0);
    for (size_t i = 0; i < n; i += t->block_elems, b += t->block_bytes)
        read_block(g->type, b, out + i / g->group);
}

/* ---- codes ---- */

/* Codes n apart share a byte, 4 bits each. */
static void put_nibbles(uint8_t *out, const int16_t *c, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) out[i] = (uint8_t)((c[i] & 15) | (c[n + i] & 15) << 4);
}

/* Bit 4 of 32 codes. */
static void put_fifth(uint8_t *out, const int16_t *c) {
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t bits = 0;
        for (uint32_t j = 0; j < 8; j++) bits |= (uint32_t)(c[8 * i + j] >> 4 & 1) << j;
        out[i] = (uint8_t)bits;
    }
}

static void put_q5_k(uint8_t *b, const int16_t *c) {
    for (uint32_t j = 0; j < 4; j++) put_nibbles(b + 48 + 32 * j, c + 64 * j, 32);
    for (uint32_t l = 0; l < 32; l++) {
        uint32_t bits = 0;
        for (uint32_t j = 0; j < 8; j++) bits |= (uint32_t)(c[32 * j + l] >> 4 & 1) << j;
        b[16 + l] = (uint8_t)bits;
    }
}

/* The low two bits of four codes, 32 apart, in each byte of two halves. */
static void put_pairs(uint8_t *out, const int16_t *c, uint32_t shift) {
    for (uint32_t i = 0; i < 64; i++) {
        const int16_t *p = c + i / 32 * 128 + i % 32;
        uint32_t bits = 0;
        for (uint32_t j = 0; j < 4; j++) bits |= (uint32_t)(p[32 * j] >> shift & 3) << 2 * j;
        out[i] = (uint8_t)bits;
    }
}

static void put_q3_k(uint8_t *b, const int16_t *c) {
    put_pairs(b + 32, c, 0);
    for (uint32_t l = 0; l < 32; l++) {
        uint32_t bits = 0;
        for (uint32_t j = 0; j < 8; j++) bits |= (uint32_t)(c[32 * j + l] >> 2 & 1) << j;
        b[l] = (uint8_t)bits;
    }
}

static void put_q6_k(uint8_t *b, const int16_t *c) {
    for (uint32_t i = 0; i < 2; i++) put_nibbles(b + 64 * i, c + 128 * i, 64);
    put_pairs(b + 128, c, 4);
}

static void write_block(dtype t, uint8_t *b, const int16_t *c) {
    switch (t) {
    case DT_Q4_0:
    case DT_IQ4_NL: put_nibbles(b + 2, c, 16); break;
    case DT_Q4_1: put_nibbles(b + 4, c, 16); break;
    case DT_Q5_0: put_fifth(b + 2, c), put_nibbles(b + 6, c, 16); break;
    case DT_Q5_1: put_fifth(b + 4, c), put_nibbles(b + 8, c, 16); break;
    case DT_Q8_0:
        for (uint32_t i = 0; i < 32; i++) b[2 + i] = (uint8_t)c[i];
        break;
    case DT_Q2_K: put_pairs(b + 16, c, 0); break;
    case DT_Q3_K: put_q3_k(b, c); break;
    case DT_Q4_K:
        for (uint32_t j = 0; j < 4; j++) put_nibbles(b + 16 + 32 * j, c + 64 * j, 32);
        break;
    case DT_Q5_K: put_q5_k(b, c); break;
    case DT_Q6_K: put_q6_k(b, c); break;
    case DT_IQ4_XS:
        for (uint32_t j = 0; j < 8; j++) put_nibbles(b + 8 + 16 * j, c + 32 * j, 16);
        break;
    default: CHECK(!"a type with a grid");
    }
}

void grid_write(const grid *g, void *blocks, size_t n, const int16_t *codes) {
    const dtype_info *t = dtype_get(g->type);
    const bool centred = !g->book && g->low < 0 && g->type != DT_Q8_0;
    int16_t c[256];
    uint8_t *b = blocks;
    for (size_t i = 0; i < n; i += t->block_elems, b += t->block_bytes) {
        for (uint32_t j = 0; j < t->block_elems; j++)
            c[j] = (int16_t)(codes[i + j] - (centred ? g->low : 0));
        write_block(g->type, b, c);
    }
}

int16_t grid_nearest(const grid *g, grid_scale s, float w, float *number) {
    int16_t code = 0;
    if (s.d == 0) return *number = s.m, code;
    const float x = (w - s.m) / s.d;
    if (g->book) {
        while (code < g->high &&
               fabsf((float)g->book[code + 1] - x) < fabsf((float)g->book[code] - x))
            code++;
        *number = s.d * (float)g->book[code];
        return code;
    }
    const float r = x < (float)g->low    ? (float)g->low
                    : x > (float)g->high ? (float)g->high
                                         : (x + 0x1.8p23f) - 0x1.8p23f;
    *number = s.d * r + s.m;
    return (int16_t)r;
}
