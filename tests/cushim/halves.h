/* 16-bit numbers as float32, exactly: for subnormals and infinities, too. */
#ifndef VRAMD_TESTS_CUSHIM_HALVES_H
#define VRAMD_TESTS_CUSHIM_HALVES_H

#include "cushim.h"

static inline float from_f16(uint32_t h) {
    float scaled = cushim_bits<float>((h & 0x7fff) << 13) * 0x1p112f;
    uint32_t bits = cushim_bits<uint32_t>(scaled) | (scaled >= 65536.0f ? 0x7f800000 : 0);
    return cushim_bits<float>(bits | (h & 0x8000) << 16);
}
static inline float from_bf16(uint32_t h) {
    return cushim_bits<float>(h << 16);
}

#endif
