/* Linear layers of the family bf16 with AVX-512. Pure; any thread. */
#include "engine/cpu/bf16.h"

#include "base/check.h"
#include "engine/cpu/linear_vec_avx512.h"
#include "engine/cpu/words.h"

#include "engine/cpu/linear_tile.h"

INLINE vf fma_of(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
INLINE vi two_of(const uint16_t *x) {
    int v;
    memcpy(&v, x, sizeof v);
    return _mm512_set1_epi32(v);
}

#define BF16_ISA   ISA_AVX512
#define BF16_TABLE bf16_avx512
#define BF16_WORDS words_floats_avx512
#include "engine/cpu/bf16_body.h"
