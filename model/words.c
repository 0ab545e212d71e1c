/* Blocks of the types of model/words.h, one at a time. Pure. */
#include "model/words.h"

#include <string.h>

#include "base/check.h"
#include "base/half.h"
#include "model/books.h"

#define INLINE static inline __attribute__((always_inline))

typedef uint32_t u32s;
typedef float vf;

INLINE u32s word_load(const uint8_t *p) {
    u32s v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE vf half_of(u32s v) {
    return half_to_float((uint16_t)v);
}
INLINE vf half_load(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return half_to_float(h);
}
INLINE vf float_of(u32s v) {
    return (float)(int32_t)v;
}
INLINE vf float_bits(u32s v) {
    return float_of_bits(v);
}
INLINE u32s word_of(vf v) {
    return bits_of_float(v);
}
INLINE u32s gather(const uint32_t *table, u32s i) {
    return table[i];
}
INLINE u32s value_of(const uint8_t *book, u32s v) {
    return book[v & 15] | (u32s)book[v >> 8 & 15] << 8 | (u32s)book[v >> 16 & 15] << 16 |
           (u32s)book[v >> 24 & 15] << 24;
}

#include "model/words_body.h"

void words_codes(dtype t, const uint8_t *scale, const uint8_t *words, uint32_t step, uint32_t j,
                 uint8_t codes[32], float d[2]) {
    const words_part p = {scale, words, step};
    words_32 w;
    CHECK(words_type_of(t).n_words);
    switch (t) {
#define X(name, ...)                                                                           \
    case DT_##name: decode_words(&p, DT_##name, j, &w); break;
        WORDS_LIST(X)
#undef X
    default: return;
    }
    memcpy(codes, w.code, sizeof w.code);
    memcpy(d, w.d, sizeof w.d);
}

void words_decode(dtype t, const uint8_t *block, float *out) {
    const words_type w = words_type_of(t);
    const uint8_t *scale = w.scale_at < 0 ? NULL : block + w.scale_at;
    uint8_t codes[32];
    float d[2];
    for (uint32_t j = 0; j < w.elems / 32u; j++, out += 32) {
        words_codes(t, scale, block + words_begin(w), 4, j, codes, d);
        for (int i = 0; i < 32; i++) out[i] = d[i / 16] * (float)(codes[i] - w.offset);
    }
}
