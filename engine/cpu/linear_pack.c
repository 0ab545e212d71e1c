/* Linear layers: rows of a file to tiles and back (engine/cpu/linear_tiles.h). Pure; any
 * thread.
 *
 * Where the parts of a block stand in the file, and in which order its codes are, is ggml's
 * (block_q4_0 .. block_iq4_xs in ggml-common.h; the reader of PyPI's gguf, quants.py, says the
 * same in Python). Tests compare with the latter. */
#include "base/check.h"
#include "engine/cpu/linear_decode.h"
#include "engine/cpu/words.h"

#define INLINE static inline __attribute__((always_inline))

uint64_t packed_bytes(dtype t, uint32_t n_out, uint32_t n_in) {
    CHECK(linear_supports(t, n_in));
    return ceil_div(n_out, STRIP) * strip_bytes(t, n_in);
}

/* ---- to tiles ---- */

enum { ONES = 0x01010101, TWOS = 0x03030303, LOW = 0x0f0f0f0f };

INLINE void put_word(uint8_t *vector, uint32_t o, uint32_t v) {
    memcpy(vector + 4 * o, &v, 4);
}

/* The file's nibbles of 64 inputs: the first 32 are the low ones of 32 bytes, the others the
 * high ones. c: those bytes. high: which 32. */
INLINE void pack_nibbles64(uint8_t *to, uint32_t o, const uint8_t *c, uint32_t high) {
    for (uint32_t l = 0; l < 4; l++) {
        uint32_t a = word_at(c, l) >> 4 * high & LOW, b = word_at(c, l + 4) >> 4 * high & LOW;
        put_word(to + 64 * l, o, a | b << 4);
    }
}
/* The file's pairs of 128 inputs lie 32 apart in 32 bytes. part: which 32. */
INLINE void pack_pairs(uint8_t *to, uint32_t o, const uint8_t *c, uint32_t part) {
    for (uint32_t h = 0; h < 2; h++) {
        uint32_t v = 0;
        for (uint32_t l = 0; l < 4; l++)
            v |= (word_at(c, 4 * h + l) >> 2 * part & TWOS) << 2 * l;
        put_word(to + 64 * h, o, v);
    }
}
/* The file's bits of 256 inputs lie 32 apart in 32 bytes. part: which 32. */
INLINE void pack_bits(uint8_t *to, uint32_t o, const uint8_t *c, uint32_t part) {
    uint32_t v = 0;
    for (uint32_t l = 0; l < 8; l++) v |= (word_at(c, l) >> part & ONES) << l;
    put_word(to, o, v);
}
/* Codes of 3 bits: those pairs, and those bits above them; part: which 32 of 256. */
INLINE void pack_triples(uint8_t *to, uint32_t o, const uint8_t *pairs, const uint8_t *bits,
                         uint32_t part) {
    uint32_t v[3] = {0};
    pairs += 32 * (part / 4);
    for (uint32_t l = 0; l < 8; l++) {
        uint32_t low = word_at(pairs, l) >> 2 * (part % 4) & TWOS;
        uint32_t high = word_at(bits, l) >> part & ONES;
        v[l < 6 ? l / 2 : l - 6] |= l < 6 ? (low | high << 2) << 3 * (l % 2) : low << 6;
        if (l >= 6) v[2] |= high << l;
    }
    for (uint32_t i = 0; i < 3; i++) put_word(to + 64 * i, o, v[i]);
}
/* The file's bits of 32 inputs: input 4l + b in bit 4l + b, here in bit 8b + l. */
INLINE void pack_bits32(uint8_t *to, uint32_t o, uint32_t bits) {
    uint32_t v = 0;
    for (uint32_t b = 0; b < 4; b++) {
        uint32_t x = bits >> b & 0x11111111;
        x = (x | x >> 3) & TWOS;
        x = (x | x >> 6) & 0x000f000f;
        v |= ((x | x >> 12) & 0xff) << 8 * b;
    }
    put_word(to, o, v);
}
INLINE void pack_words(uint8_t *to, uint32_t o, const uint8_t *c, uint32_t n, uint32_t flip) {
    for (uint32_t l = 0; l < n; l++) put_word(to + 64 * l, o, word_at(c, l) ^ flip);
}

/* One block of 32 to output o of a tile. */
INLINE void pack_block32(uint8_t *tile, dtype t, const uint8_t *src, uint32_t o) {
    const tile_info i = tile_of(t);
    uint8_t *codes = tile + STRIP * i.head;
    if (i.head == 1)
        tile[o] = *src;
    else
        memcpy(tile + 2 * o, src, 2);
    if (i.has_min) memcpy(tile + 2 * STRIP + 2 * o, src + 2, 2);
    src += i.head;
    if (i.form == CODES_5) {
        pack_bits32(codes + 256, o, word_at(src, 0));
        src += 4;
    }
    if (t == DT_Q8_0)
        pack_words(codes, o, src, 8, 0x80808080u);
    else
        pack_words(codes, o, src, 4, 0);
}

/* One group to output o of a tile. */
INLINE void pack_group(uint8_t *tile, dtype t, const uint8_t *src, uint32_t o) {
    const tile_info i = tile_of(t);
    const uint32_t scale = i.head - i.zero;
    memcpy(tile + scale * o, src, scale);
    memcpy(tile + STRIP * scale + i.zero * o, src + scale, i.zero);
    tile += STRIP * i.head;
    src += i.head;
    for (uint32_t k = 0; k < i.n_in; k += 32, tile += STRIP * i.codes, src += i.codes)
        pack_words(tile, o, src, i.codes / 4u, i.form == CODES_8 ? 0x80808080u : 0);
}

/* Scale i of 16 of Q3_K, plus 32: four bits in one of 8 bytes, two in one of 4 more. */
INLINE uint32_t file_scale_q3(const uint8_t *c, uint32_t i) {
    return (c[i % 8] >> 4 * (i / 8) & 15) | (c[8 + i % 4] >> 2 * (i / 4) & 3) << 4;
}
INLINE void pack_scales_q3(uint8_t *to, uint32_t o, const uint8_t *c) {
    uint32_t v[3] = {0};
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t s = file_scale_q3(c, i) ^ 32, j = i / 2, at = 16 * (i % 2);
        v[j < 6 ? j / 2 : j - 6] |= j < 6 ? s << (at + (j % 2 ? 4 : 10)) : (s & 15) << at;
        if (j >= 6) v[2] |= (s >> 4) << (at + 2 * (j - 6));
    }
    for (uint32_t l = 0; l < 3; l++) put_word(to + 64 * l, o, v[l]);
}

/* One block of 256 to output o of a tile. */
INLINE void pack_block256(uint8_t *tile, dtype t, const uint8_t *src, uint32_t o) {
    const tile_info i = tile_of(t);
    /* Where a block's parts are: halves, scales, nibbles, pairs, bits. */
    const uint32_t d = t == DT_Q2_K ? 80 : t == DT_Q3_K ? 108 : t == DT_Q6_K ? 208 : 0;
    const uint32_t nibbles = t == DT_Q4_K ? 16 : t == DT_Q5_K ? 48 : t == DT_IQ4_XS ? 8 : 0;
    const uint32_t pairs = t == DT_Q2_K ? 16 : t == DT_Q3_K ? 32 : 128;
    const uint32_t bits = t == DT_Q5_K ? 16 : 0;
    memcpy(tile + 2 * o, src + d, 2);
    uint8_t *more = tile + 2 * STRIP;
    if (i.has_min) {
        memcpy(more + 2 * o, src + d + 2, 2);
        more += 2 * STRIP;
    }
    if (t == DT_Q4_K || t == DT_Q5_K) pack_words(more, o, src + 4, 3, 0);
    if (t == DT_Q3_K) pack_scales_q3(more, o, src + 96);
    if (t == DT_IQ4_XS) {
        memcpy(more + 2 * o, src + 2, 2);
        put_word(more + 2 * STRIP, o, word_at(src + 4, 0));
    }
    if (t == DT_Q2_K || t == DT_Q6_K)
        for (uint32_t j = 0; j < 8; j++)
            memcpy(more + 32 * j + 2 * o, src + (t == DT_Q6_K ? 192 : 0) + 2 * j, 2);
    for (uint32_t j = 0; j < 8; j++) {
        uint8_t *to = tile + STRIP * (i.head + j * i.codes);
        if (t == DT_IQ4_XS) pack_words(to, o, src + nibbles + 16 * j, 4, 0);
        if (t == DT_Q4_K || t == DT_Q5_K)
            pack_nibbles64(to, o, src + nibbles + 32 * (j / 2), j % 2);
        if (t == DT_Q6_K) pack_nibbles64(to, o, src + 64 * (j / 4) + 32 * (j % 2), j % 4 / 2);
        if (t == DT_Q3_K) pack_triples(to, o, src + pairs, src + bits, j);
        if (t == DT_Q2_K || t == DT_Q6_K)
            pack_pairs(to + (t == DT_Q6_K ? 256 : 0), o, src + pairs + 32 * (j / 4), j % 4);
        if (t == DT_Q5_K) pack_bits(to + 256, o, src + bits, j);
    }
}

/* One block of model/words.h to output o of a tile. */
static void pack_words_block(uint8_t *tile, words_type w, const uint8_t *src, uint32_t o) {
    if (w.scale_at >= 0) memcpy(tile + 2 * o, src + w.scale_at, 2);
    pack_words(tile + words_of_tile(w), o, src + words_begin(w), w.n_words, 0);
}

/* A strip of n real outputs; block: bytes of one in the file. */
INLINE void pack_strip_quant(uint8_t *dst, dtype t, uint32_t n_in, const uint8_t *src,
                             uint32_t n) {
    const tile_info i = tile_of(t);
    const uint32_t block = tile_bytes(t) / STRIP;
    uint64_t stride = (uint64_t)n_in / i.n_in * block;
    for (uint32_t k = 0; k < n_in; k += i.n_in, dst += tile_bytes(t), src += block) {
        if (n < STRIP) memset(dst, 0, tile_bytes(t));
        for (uint32_t o = 0; o < n; o++) {
            if (i.form == CODES_WORDS)
                pack_words_block(dst, words_type_of(t), src + o * stride, o);
            else if (i.grouped)
                pack_group(dst, t, src + o * stride, o);
            else if (i.n_in == 32)
                pack_block32(dst, t, src + o * stride, o);
            else
                pack_block256(dst, t, src + o * stride, o);
        }
    }
}

typedef uint16_t halves __attribute__((vector_size(16)));

INLINE halves low_of(halves a, halves b) {
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
INLINE halves high_of(halves a, halves b) {
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

/* Puts rows 4 to 7 between rows 0 to 3. Done three times, rows are columns. */
INLINE void interleave(halves to[8], const halves a[8]) {
    to[0] = low_of(a[0], a[4]), to[1] = high_of(a[0], a[4]);
    to[2] = low_of(a[1], a[5]), to[3] = high_of(a[1], a[5]);
    to[4] = low_of(a[2], a[6]), to[5] = high_of(a[2], a[6]);
    to[6] = low_of(a[3], a[7]), to[7] = high_of(a[3], a[7]);
}

/* Eight inputs of eight outputs: to[k][o] of from[o][k]. */
INLINE void transpose_halves(uint8_t *to, const uint8_t *from, uint64_t stride) {
    halves a[8], b[8];
#pragma GCC unroll 8
    for (uint32_t o = 0; o < 8; o++) memcpy(&a[o], from + o * stride, sizeof a[o]);
    interleave(b, a);
    interleave(a, b);
    interleave(b, a);
#pragma GCC unroll 8
    for (uint32_t k = 0; k < 8; k++) memcpy(to + (uint64_t)k * STRIP * 2, &b[k], sizeof b[k]);
}

/* Strips of 16 whole outputs of 16 bits, as many inputs as eights; returns how many. */
static uint32_t pack_halves(uint8_t *dst, uint32_t n_in, const uint8_t *src) {
    const uint64_t stride = 2ull * n_in;
    uint32_t k = 0;
    for (; k + 8 <= n_in; k += 8)
        for (uint32_t o = 0; o < STRIP; o += 8)
            transpose_halves(dst + 2ull * ((uint64_t)k * STRIP + o),
                             src + o * stride + 2ull * k, stride);
    return k;
}

/* bytes: 2 or 4 an element. In squares of 32 inputs, so that writes stay in the first cache. */
INLINE void pack_strip_float(uint8_t *dst, uint32_t bytes, uint32_t n_in, const uint8_t *src,
                             uint32_t n) {
    if (n < STRIP) memset(dst, 0, (uint64_t)n_in * STRIP * bytes);
    for (uint32_t k0 = bytes == 2 && n == STRIP ? pack_halves(dst, n_in, src) : 0; k0 < n_in;
         k0 += 32) {
        uint32_t k1 = n_in - k0 < 32 ? n_in : k0 + 32;
        for (uint32_t o = 0; o < n; o++)
            for (uint32_t k = k0; k < k1; k++)
                memcpy(dst + ((uint64_t)k * STRIP + o) * bytes,
                       src + ((uint64_t)o * n_in + k) * bytes, bytes);
    }
}

static void pack_strip(uint8_t *dst, dtype t, uint32_t n_in, const uint8_t *src, uint32_t n) {
    switch (dtype_kind(t)) {
#define X(name, ...)                                                                           \
    case DT_##name: pack_strip_quant(dst, DT_##name, n_in, src, n); break;
        TILE_LIST(X)
#undef X
#define X(name, ...) case DT_##name:
        GROUP_TILE_LIST(X)
        WORDS_LIST(X)
#undef X
        pack_strip_quant(dst, t, n_in, src, n);
        break;
    case DT_F32: pack_strip_float(dst, 4, n_in, src, n); break;
    default: pack_strip_float(dst, 2, n_in, src, n); break;
    }
}

void packed_store(void *tiles, dtype t, uint32_t n_out, uint32_t n_in, uint32_t row, uint32_t n,
                  const void *rows) {
    CHECK(linear_supports(t, n_in) && row % STRIP == 0 && row <= n_out && n <= n_out - row);
    CHECK(n % STRIP == 0 || row + n == n_out);
    uint64_t row_bytes;
    CHECK(dtype_bytes(t, 1, n_in, &row_bytes));
    uint8_t *dst = (uint8_t *)tiles + row / STRIP * strip_bytes(t, n_in);
    const uint8_t *src = rows;
    for (uint32_t o = 0; o < n; o += STRIP) {
        pack_strip(dst, t, n_in, src, n - o < STRIP ? n - o : STRIP);
        dst += strip_bytes(t, n_in);
        src += row_bytes * STRIP;
    }
}

/* ---- and back ---- */

INLINE void quant_row(const uint8_t *tile, dtype t, uint32_t n_in, uint32_t o, float *out) {
    const tile_info i = tile_of(t);
    for (uint32_t at = 0; at < n_in; at += i.n_in, tile += tile_bytes(t))
        for (uint32_t j = 0; j < i.n_in / 32u; j++) {
            const block_scale s = scale_at(tile, t, j, o);
            const uint8_t *codes = codes_at(tile, t, j);
            for (uint32_t k = 0; k < 32; k++)
                out[at + 32 * j + k] = weight_at(&s, codes, t, k, o);
        }
}

static void words_row(const uint8_t *tile, dtype t, uint32_t n_in, uint32_t o, float *out) {
    const words_type w = words_type_of(t);
    for (uint32_t at = 0; at < n_in; at += w.elems, tile += tile_bytes(t))
        for (uint32_t j = 0; j < w.elems / 32u; j++)
            words_floats_at(tile, t, j, o, out + at + 32 * j, 1);
}

static void float_row(const uint8_t *strip, dtype t, uint32_t n_in, uint32_t o, float *out) {
    for (uint32_t k = 0; k < n_in; k++) {
        uint64_t at = (uint64_t)k * STRIP + o;
        if (t == DT_F32) {
            memcpy(out + k, strip + 4 * at, 4);
            continue;
        }
        uint16_t h;
        memcpy(&h, strip + 2 * at, 2);
        out[k] = t == DT_F16 ? half_to_float(h) : bf16_to_float(h);
    }
}

void packed_row(const packed *w, uint32_t row, float *out) {
    CHECK(row < w->n_out);
    const uint8_t *strip = strip_at(w, row);
    switch (dtype_kind(w->type)) {
#define X(name, ...)                                                                           \
    case DT_##name: quant_row(strip, DT_##name, w->n_in, row % STRIP, out); break;
        TILE_LIST(X)
#undef X
#define X(name, ...) case DT_##name:
        WORDS_LIST(X)
        words_row(strip, w->type, w->n_in, row % STRIP, out);
        break;
        GROUP_TILE_LIST(X)
#undef X
        quant_row(strip, w->type, w->n_in, row % STRIP, out);
        break;
    default: float_row(strip, w->type, w->n_in, row % STRIP, out); break;
    }
    for (uint32_t k = 0; k < w->n_in && w->scale; k++) out[k] *= *w->scale;
}
