/* Linear layers of the family bf16 with AVX2, FMA and F16C. Pure; any thread. */
#include "engine/cpu/bf16.h"

#include "base/check.h"
#include "engine/cpu/linear_vec_avx2.h"
#include "engine/cpu/words.h"

#include "engine/cpu/linear_tile.h"

INLINE vf fma_of(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
INLINE vi two_of(const uint16_t *x) {
    int v;
    memcpy(&v, x, sizeof v);
    return _mm256_set1_epi32(v);
}

#define BF16_ISA   ISA_AVX2
#define BF16_TABLE bf16_avx2
#define BF16_WORDS words_floats_avx2
#include "engine/cpu/bf16_body.h"
