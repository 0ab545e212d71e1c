/* Where the bits of a block of 256 lie. Pure. */
#include "quant/pack.h"

#include <string.h>

#include "base/check.h"

static void put16(uint8_t *out, uint16_t v) {
    memcpy(out, &v, 2);
}
static uint16_t get16(const uint8_t *in) {
    uint16_t v;
    memcpy(&v, in, 2);
    return v;
}

/* Codes of 2 bits: byte 32 h + l has those of 128 h + l + 0, 32, 64, 96. */
static void pack_pairs(const uint8_t *code, unsigned shift, uint8_t *out) {
    for (int h = 0; h < 2; h++)
        for (int l = 0; l < 32; l++) {
            const uint8_t *c = code + 128 * h + l;
            unsigned v = 0;
            for (int k = 0; k < 4; k++) v |= (c[32 * k] >> shift & 3u) << 2 * k;
            out[32 * h + l] = (uint8_t)v;
        }
}
static void unpack_pairs(const uint8_t *in, unsigned shift, uint8_t *code) {
    for (int i = 0; i < SUPER; i++)
        code[i] |= (uint8_t)((in[32 * (i / 128) + i % 32] >> 2 * (i % 128 / 32) & 3) << shift);
}
/* Of 4 bits: byte (run / 2) h + l has run h + l below, and the one half a run behind it above. */
static void pack_nibbles(const uint8_t *code, int run, uint8_t *out) {
    const int half = run / 2;
    for (int at = 0; at < SUPER; at += run)
        for (int l = 0; l < half; l++)
            out[at / 2 + l] = (uint8_t)((code[at + l] & 15) | (code[at + l + half] & 15) << 4);
}
static void unpack_nibbles(const uint8_t *in, int run, uint8_t *code) {
    const int half = run / 2;
    for (int i = 0; i < SUPER; i++) {
        const uint8_t pair = in[i / run * half + i % half];
        code[i] |= i % run < half ? pair & 15 : pair >> 4;
    }
}
/* One bit each: byte l has those of l + 32 k. */
static void pack_bits(const uint8_t *code, unsigned shift, uint8_t *out) {
    memset(out, 0, 32);
    for (int i = 0; i < SUPER; i++) out[i % 32] |= (uint8_t)((code[i] >> shift & 1u) << i / 32);
}
static void unpack_bits(const uint8_t *in, unsigned shift, uint8_t *code) {
    for (int i = 0; i < SUPER; i++) code[i] |= (uint8_t)((in[i % 32] >> i / 32 & 1u) << shift);
}

/* Scale and minimum of 6 bits (Q4_K, Q5_K): the first four have bytes of their own, whose upper two bits are
 * those of the last four. */
static void pack_scales_k(const super_block *b, uint8_t out[12]) {
    for (int j = 0; j < 4; j++) {
        const unsigned s = (unsigned)b->scale[j + 4], m = (unsigned)b->min[j + 4];
        out[j] = (uint8_t)((unsigned)b->scale[j] | (s >> 4) << 6);
        out[j + 4] = (uint8_t)((unsigned)b->min[j] | (m >> 4) << 6);
        out[j + 8] = (uint8_t)((s & 15) | (m & 15) << 4);
    }
}
static void unpack_scales_k(const uint8_t in[12], super_block *b) {
    for (int j = 0; j < 4; j++) {
        b->scale[j] = in[j] & 63;
        b->min[j] = in[j + 4] & 63;
        b->scale[j + 4] = (int16_t)((in[j + 8] & 15) | in[j] >> 6 << 4);
        b->min[j + 4] = (int16_t)(in[j + 8] >> 4 | in[j + 4] >> 6 << 4);
    }
}
/* Scales of Q3_K, 6 bits and 32 too large: four bits in bytes 0-7, two in bytes 8-11. */
static void pack_scales_q3(const super_block *b, uint8_t out[12]) {
    memset(out, 0, 12);
    for (int j = 0; j < 16; j++) {
        const unsigned s = (unsigned)(b->scale[j] + 32);
        out[j % 8] |= (uint8_t)((s & 15) << 4 * (j / 8));
        out[8 + j % 4] |= (uint8_t)(s >> 4 << 2 * (j / 4));
    }
}
static void unpack_scales_q3(const uint8_t in[12], super_block *b) {
    for (int j = 0; j < 16; j++)
        b->scale[j] = (int16_t)((in[j % 8] >> 4 * (j / 8) & 15) |
                                (in[8 + j % 4] >> 2 * (j / 4) & 3) << 4) -
                      32;
}
/* Of IQ4_XS: two bits in a word, four bits in bytes. */
static void pack_scales_xs(const super_block *b, uint8_t out[6]) {
    unsigned high = 0;
    memset(out, 0, 6);
    for (int j = 0; j < 8; j++) {
        const unsigned s = (unsigned)(b->scale[j] + 32);
        high |= s >> 4 << 2 * j;
        out[2 + j / 2] |= (uint8_t)((s & 15) << 4 * (j % 2));
    }
    put16(out, (uint16_t)high);
}
static void unpack_scales_xs(const uint8_t in[6], super_block *b) {
    const unsigned high = get16(in);
    for (int j = 0; j < 8; j++)
        b->scale[j] =
            (int16_t)((int)((in[2 + j / 2] >> 4 * (j % 2) & 15) | (high >> 2 * j & 3) << 4) -
                      32);
}

void super_pack(dtype t, const super_block *b, uint8_t *out) {
    switch (t) {
    case DT_Q2_K:
        for (int j = 0; j < 16; j++)
            out[j] = (uint8_t)((unsigned)b->scale[j] | (unsigned)b->min[j] << 4);
        pack_pairs(b->code, 0, out + 16);
        put16(out + 80, b->d);
        put16(out + 82, b->dmin);
        break;
    case DT_Q3_K:
        pack_bits(b->code, 2, out);
        pack_pairs(b->code, 0, out + 32);
        pack_scales_q3(b, out + 96);
        put16(out + 108, b->d);
        break;
    case DT_Q4_K:
    case DT_Q5_K:
        put16(out, b->d);
        put16(out + 2, b->dmin);
        pack_scales_k(b, out + 4);
        if (t == DT_Q5_K) pack_bits(b->code, 4, out + 16);
        pack_nibbles(b->code, 64, out + (t == DT_Q5_K ? 48 : 16));
        break;
    case DT_Q6_K:
        pack_nibbles(b->code, 128, out);
        pack_pairs(b->code, 4, out + 128);
        for (int j = 0; j < 16; j++) out[192 + j] = (uint8_t)b->scale[j];
        put16(out + 208, b->d);
        break;
    case DT_IQ4_XS:
        put16(out, b->d);
        pack_scales_xs(b, out + 2);
        pack_nibbles(b->code, 32, out + 8);
        break;
    default: CHECK(!"a type with blocks of 256");
    }
}

void super_unpack(dtype t, const uint8_t *in, super_block *b) {
    memset(b, 0, sizeof *b);
    switch (t) {
    case DT_Q2_K:
        for (int j = 0; j < 16; j++) b->scale[j] = in[j] & 15, b->min[j] = in[j] >> 4;
        unpack_pairs(in + 16, 0, b->code);
        b->d = get16(in + 80);
        b->dmin = get16(in + 82);
        break;
    case DT_Q3_K:
        unpack_bits(in, 2, b->code);
        unpack_pairs(in + 32, 0, b->code);
        unpack_scales_q3(in + 96, b);
        b->d = get16(in + 108);
        break;
    case DT_Q4_K:
    case DT_Q5_K:
        b->d = get16(in);
        b->dmin = get16(in + 2);
        unpack_scales_k(in + 4, b);
        if (t == DT_Q5_K) unpack_bits(in + 16, 4, b->code);
        unpack_nibbles(in + (t == DT_Q5_K ? 48 : 16), 64, b->code);
        break;
    case DT_Q6_K:
        unpack_nibbles(in, 128, b->code);
        unpack_pairs(in + 128, 4, b->code);
        for (int j = 0; j < 16; j++) b->scale[j] = (int8_t)in[192 + j];
        b->d = get16(in + 208);
        break;
    case DT_IQ4_XS:
        b->d = get16(in);
        unpack_scales_xs(in + 2, b);
        unpack_nibbles(in + 8, 32, b->code);
        break;
    default: CHECK(!"a type with blocks of 256");
    }
}
