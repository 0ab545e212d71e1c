/* Decoders of the types of model/words.h, the same for one block and for vectors of blocks side by side. Included after
 * the definition of
 *   u32s, vf       unsigned 32-bit numbers and floats, one for each block: a number, or a vector of them
 *   word_load(p)   a u32s; half_load(p), half_of(u32s): binary16 to vf
 *   float_of(u)    u32s, at most 2^31 - 1, to vf; float_bits(u), word_of(f): the bits of a vf
 *   gather(t, i)   entries i of a table; value_of(book, v): byte by byte one of 16, by the low nibble
 * A word has 4 codes, in the order of inputs: 8 words are 32 inputs. Layouts: ggml-common.h. */

/* Words of a part of the blocks; step: bytes from a word to the next. */
typedef struct words_part {
    const uint8_t *scale, *words;
    uint32_t step;
} words_part;

/* 32 inputs. d: of the halves; without halves both are the same. */
typedef struct words_32 {
    u32s code[8];
    vf d[2];
} words_32;

INLINE u32s word_at_part(const words_part *p, uint32_t i) {
    return word_load(p->words + (size_t)p->step * i);
}
INLINE u32s byte_of(u32s w, uint32_t b) {
    return w >> 8u * b & 255u;
}
/* Bits 0 to 3 to bit 0 of bytes 0 to 3, or to bit 3, where nibbles have signs; pairs of bits 0 to 7 to bits 0 and 1. */
INLINE u32s spread_bits(u32s v) {
    return (v & 15u) * 0x00204081u & 0x01010101u;
}
INLINE u32s spread_signs(u32s v) {
    return (v & 15u) * 0x01020408u & 0x08080808u;
}
INLINE u32s spread_pairs(u32s v) {
    v &= 255u;
    v = (v | v << 12u) & 0x000f000fu;
    return (v | v << 6u) & 0x03030303u;
}
/* Of signs of 8 inputs 7 are stored; the number of negative ones is even. */
INLINE u32s with_eighth(u32s signs) {
    u32s odd = signs ^ (signs >> 4u & 0x0f0f0f0fu);
    odd ^= odd >> 2u & 0x03030303u;
    odd ^= odd >> 1u & 0x01010101u;
    return signs | (odd & 0x01010101u) << 7u;
}
INLINE u32s four_sevens(u32s v) { /* 28 bits to 4 bytes */
    return with_eighth((v & 0x7fu) | (v & 0x3f80u) << 1u | (v & 0x1fc000u) << 2u |
                       (v & 0xfe00000u) << 3u);
}
INLINE void both_scales(words_32 *to, vf d) {
    to->d[0] = to->d[1] = d;
}
/* 2 s + 1 */
INLINE vf odd_of(u32s s) {
    return float_of(s << 1u | 1u);
}

/* 8 inputs: an entry of nibbles, and what bit 3 of each of them (a sign) is. */
INLINE void put_eight(words_32 *to, uint32_t i, const uint8_t *book, u32s entry, u32s signs) {
    to->code[2 * i] = value_of(book, (entry & 0x0f0f0f0fu) | spread_signs(signs));
    to->code[2 * i + 1] =
        value_of(book, (entry >> 4u & 0x0f0f0f0fu) | spread_signs(signs >> 4u));
}

/* ---- IQ3: d (2 s + 1), times one of 8 magnitudes ---- */

static const uint8_t values_iq3_xxs[16] = {68, 76, 84, 92, 100, 108, 116, 126,
                                           60, 52, 44, 36, 28,  20,  12,  2},
                     values_iq3_s[16] = {17, 19, 21, 23, 25, 27, 29, 31,
                                         15, 13, 11, 9,  7,  5,  3,  1};

INLINE void decode_IQ3_XXS(const words_part *p, uint32_t j, words_32 *to) {
    const u32s more = word_at_part(p, 16 + j), signs = four_sevens(more);
    for (uint32_t l = 0; l < 8; l++) {
        const u32s entry = gather(book_iq3_xxs, byte_of(word_at_part(p, 2 * j + l / 4), l % 4));
        to->code[l] = value_of(values_iq3_xxs, entry | spread_signs(signs >> 4u * l));
    }
    both_scales(to, half_load(p->scale) * 0.25f * odd_of(more >> 28u));
}

INLINE void decode_IQ3_S(const words_part *p, uint32_t j, words_32 *to) {
    const u32s high = byte_of(word_at_part(p, 16 + j / 4), j % 4),
               signs = word_at_part(p, 18 + j);
    for (uint32_t l = 0; l < 8; l++) {
        const u32s low = byte_of(word_at_part(p, 2 * j + l / 4), l % 4),
                   entry = gather(book_iq3_s, low | (high >> l & 1u) << 8u);
        to->code[l] = value_of(values_iq3_s, entry | spread_signs(signs >> 4u * l));
    }
    both_scales(to, half_load(p->scale) * odd_of(word_at_part(p, 26) >> 4u * j & 15u));
}

/* ---- IQ2: d (2 s + 1) / 8, times 8, 25 or 43 ---- */

static const uint8_t values_iq2[16] = {72, 89, 107, 0, 0, 0, 0, 0, 56, 39, 21};

INLINE void decode_IQ2_XXS(const words_part *p, uint32_t j, words_32 *to) {
    const u32s index = word_at_part(p, 2 * j), more = word_at_part(p, 2 * j + 1),
               signs = four_sevens(more);
    for (uint32_t i = 0; i < 4; i++)
        put_eight(to, i, values_iq2, gather(book_iq2_xxs, byte_of(index, i)), signs >> 8u * i);
    both_scales(to, half_load(p->scale) * 0.125f * odd_of(more >> 28u));
}

/* Scales of 4 bits of both halves. */
INLINE void two_scales_iq2(const words_part *p, u32s pair, words_32 *to) {
    const vf d = half_load(p->scale) * 0.125f;
    to->d[0] = d * odd_of(pair & 15u);
    to->d[1] = d * odd_of(pair >> 4u);
}

INLINE void decode_IQ2_XS(const words_part *p, uint32_t j, words_32 *to) {
    const u32s w[2] = {word_at_part(p, 2 * j), word_at_part(p, 2 * j + 1)};
    const u32s signs = with_eighth((w[0] >> 9u & 127u) | w[0] >> 25u << 8u |
                                   (w[1] >> 9u & 127u) << 16u | w[1] >> 25u << 24u);
    for (uint32_t i = 0; i < 4; i++)
        put_eight(to, i, values_iq2, gather(book_iq2_xs, w[i / 2] >> 16u * (i % 2) & 511u),
                  signs >> 8u * i);
    two_scales_iq2(p, byte_of(word_at_part(p, 16 + j / 4), j % 4), to);
}

INLINE void decode_IQ2_S(const words_part *p, uint32_t j, words_32 *to) {
    const u32s low = word_at_part(p, j), signs = word_at_part(p, 8 + j),
               high = byte_of(word_at_part(p, 16 + j / 4), j % 4);
    for (uint32_t i = 0; i < 4; i++)
        put_eight(to, i, values_iq2,
                  gather(book_iq2_s, byte_of(low, i) | (high >> 2u * i & 3u) << 8u),
                  signs >> 8u * i);
    two_scales_iq2(p, byte_of(word_at_part(p, 18 + j / 4), j % 4), to);
}

/* ---- IQ1: d (2 s + 1), times -1, 0 or 1, all of 8 inputs an eighth more or less ---- */

static const uint8_t values_iq1[16] = {9, 17, 25, 0, 0, 0, 0, 0, 7, 15, 23};

/* minus: 0 or 1. */
INLINE void put_eight_iq1(words_32 *to, uint32_t i, u32s index, u32s minus) {
    put_eight(to, i, values_iq1, gather(book_iq1, index), minus * 255u);
}

INLINE void decode_IQ1_S(const words_part *p, uint32_t j, words_32 *to) {
    const u32s low = word_at_part(p, j),
               more = word_at_part(p, 8 + j / 2) >> 16u * (j % 2) & 0xffffu;
    for (uint32_t i = 0; i < 4; i++)
        put_eight_iq1(to, i, byte_of(low, i) | (more >> 3u * i & 7u) << 8u, more >> 15u);
    both_scales(to, half_load(p->scale) * 0.125f * odd_of(more >> 12u & 7u));
}

INLINE void decode_IQ1_M(const words_part *p, uint32_t j, words_32 *to) {
    const u32s low = word_at_part(p, j), more = word_at_part(p, 8 + j / 2) >> 16u * (j % 2);
    for (uint32_t i = 0; i < 4; i++)
        put_eight_iq1(to, i, byte_of(low, i) | (more >> 4u * i & 7u) << 8u,
                      more >> (4u * i + 3u) & 1u);
    /* The binary16 number is in the upper quarters of four scales. */
    const u32s a = word_at_part(p, 12), b = word_at_part(p, 13),
               s = (j < 4 ? a : b) >> (16u * (j / 2 % 2) + 6u * (j % 2));
    const vf d = 0.125f * half_of((a >> 12u & 15u) | a >> 28u << 4u | (b >> 12u & 15u) << 8u |
                                  b >> 28u << 12u);
    to->d[0] = d * odd_of(s & 7u);
    to->d[1] = d * odd_of(s >> 3u & 7u);
}

/* ---- few values ---- */

/* Each byte has 5 numbers of 3 values as a fraction of 256: the next one is the integer part of three times it. n: which. */
INLINE u32s ternary(u32s bytes, uint32_t n) {
    static const uint32_t power[5] = {1, 3, 9, 27, 81};
    u32s even = (bytes & 0x00ff00ffu) * power[n] & 0x00ff00ffu,
         odd = (bytes >> 8u & 0x00ff00ffu) * power[n] & 0x00ff00ffu;
    return (even * 3u >> 8u & 0x00ff00ffu) | (odd * 3u & 0xff00ff00u);
}

INLINE void decode_TQ1_0(const words_part *p, uint32_t j, words_32 *to) {
    for (uint32_t l = 0; l < 8; l++) {
        const uint32_t g = 8 * j + l; /* 8 words of 5 x 4 numbers, 4 of them, one of 4 x 4 */
        const uint32_t i = g < 40   ? g % 8
                           : g < 60 ? 8 + g % 4
                                    : 12,
                       n = g < 40   ? g / 8
                           : g < 60 ? (g - 40) / 4
                                    : g - 60;
        to->code[l] = ternary(word_at_part(p, i), n);
    }
    both_scales(to, half_load(p->scale));
}
INLINE void decode_TQ2_0(const words_part *p, uint32_t j, words_32 *to) {
    for (uint32_t l = 0; l < 8; l++)
        to->code[l] = word_at_part(p, j / 4 * 8 + l) >> 2u * (j % 4) & 0x03030303u;
    both_scales(to, half_load(p->scale));
}
INLINE void decode_Q1_0(const words_part *p, uint32_t j, words_32 *to) {
    const u32s bits = word_at_part(p, j);
    for (uint32_t l = 0; l < 8; l++) to->code[l] = spread_bits(bits >> 4u * l) << 1u;
    both_scales(to, half_load(p->scale));
}
INLINE void decode_Q2_0(const words_part *p, uint32_t j, words_32 *to) {
    for (uint32_t l = 0; l < 8; l++)
        to->code[l] = spread_pairs(word_at_part(p, 2 * j + l / 4) >> 8u * (l % 4));
    both_scales(to, half_load(p->scale));
}

/* Twice the values of e2m1. */
static const uint8_t values_nvfp4[16] = {16, 17, 18, 19, 20, 22, 24, 28,
                                         16, 15, 14, 13, 12, 10, 8,  4};

/* Half of an unsigned number of e4m3; 0x7f is 0. */
INLINE vf half_e4m3(u32s v) {
    const u32s size = v & 127u, whole = word_of(float_of(size & 7u) * 0x1p-10f);
    const u32s normal = ((size << 20u) + (119u << 23u));
    const u32s is_small = -(u32s)(((size - 8u) >> 31u)),
               is_nan = -(u32s)(((v ^ 127u) - 1u) >> 31u);
    return float_bits(((whole & is_small) | (normal & ~is_small)) & ~is_nan);
}

INLINE void decode_NVFP4(const words_part *p, uint32_t j, words_32 *to) {
    const u32s scales = word_at_part(p, 0);
    for (uint32_t l = 0; l < 8; l++) {
        const u32s w = word_at_part(p, 1 + 4 * j + l / 4 * 2 + l % 2);
        to->code[l] = value_of(values_nvfp4, w >> 4u * (l / 2 % 2) & 0x0f0f0f0fu);
    }
    to->d[0] = half_e4m3(byte_of(scales, 2 * j));
    to->d[1] = half_e4m3(byte_of(scales, 2 * j + 1));
}

/* Inputs 32 j.. of blocks of a type, which is a constant. */
INLINE void decode_words(const words_part *p, const dtype t, uint32_t j, words_32 *to) {
    switch (t) {
#define X(name, ...)                                                                           \
    case DT_##name: decode_##name(p, j, to); break;
        WORDS_LIST(X)
#undef X
    default: break;
    }
}
