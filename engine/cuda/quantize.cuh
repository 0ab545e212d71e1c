/* Activations to int8 codes as packed.h describes them, for every kernel that leaves such: 32 columns share a scale, and
 * four neighbouring lanes hold them. */
#ifndef VRAMD_ENGINE_CUDA_QUANTIZE_CUH
#define VRAMD_ENGINE_CUDA_QUANTIZE_CUH

#include "engine/cuda/packed.h"
#include "engine/cuda/vec.cuh"

/* Quantised activations as packed.h describes them. */
typedef struct act_view {
    uint8_t *codes;
    float *scales, *sums;
    uint32_t n_chunks;
} act_view;

static inline act_view act_view_of(const void *in_q, uint32_t n_in) {
    uint8_t *p = (uint8_t *)in_q;
    return act_view{p, (float *)(p + packed_act_scales_at(n_in)),
                    (float *)(p + packed_act_sums_at(n_in)), packed_chunks(n_in)};
}

/* Eight neighbours to codes; four threads (j) share a block of 32. */
typedef struct eight {
    int code[8];
    float d, s;
} eight;

CU_DEVICE eight quantize8(const float x[8]) {
    uint32_t most = 0; /* of the bits of |x|: NaN and infinity above all numbers */
#pragma unroll
    for (int i = 0; i < 8; i++) most = max(most, __float_as_uint(x[i]) & 0x7fffffffu);
    most = max(most, __shfl_xor_sync(0xffffffffu, most, 1));
    most = max(most, __shfl_xor_sync(0xffffffffu, most, 2));
    const float big = __uint_as_float(most);
    const bool none = most >= 0x7f800000u || big < 0x1p-80f;
    const float scale = none ? 0.0f : __fdiv_rn(127.0f, big);
    eight r;
    int sum = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        r.code[i] = none ? 0 : __float2int_rn(x[i] * scale);
        sum += r.code[i];
    }
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    r.d = most >= 0x7f800000u ? __uint_as_float(0x7fffffffu)
          : none              ? 0.0f
                              : __fdiv_rn(big, 127.0f);
    r.s = r.d * (float)sum;
    return r;
}

/* The codes of thread j as bytes 0 and 2 (j even) or 1 and 3 (j odd) of word j / 2 of t = 0..3:
 * a thread trades half of its pairs with its neighbour and has two whole words. */
CU_DEVICE void words_of(const eight &e, int j, uint32_t w[2]) {
    uint32_t pair[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        pair[i] = ((uint32_t)e.code[2 * i] & 255) | ((uint32_t)e.code[2 * i + 1] & 255) << 16;
    const bool odd = j & 1;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t sent = odd ? pair[i] : pair[2 + i];
        const uint32_t got = __shfl_xor_sync(0xffffffffu, sent, 1);
        w[i] = odd ? got | pair[2 + i] << 8 : pair[i] | got << 8;
    }
}

/* The codes of columns 8 * octet .. + 7 of a row, by each lane of the warp; octets of a lane and its neighbours are
 * o, o + 1, o + 2, o + 3, o a multiple of 4. Octets past the last chunk are passed over; x is 0 past the row. */
CU_DEVICE void quantize_put(const act_view &out, uint32_t row, uint32_t octet,
                            const float x[8]) {
    const uint32_t block = octet / 4, c = block / 2, b = block % 2;
    const int j = (int)(octet % 4);
    const eight e = quantize8(x);
    uint32_t w[2];
    words_of(e, j, w);
    if (c >= out.n_chunks) return;
    const size_t at = (size_t)c * PACKED_ACT_ROWS + row;
    uint32_t *codes = (uint32_t *)(out.codes + at * 64) + 2 * b + j / 2;
#pragma unroll
    for (int i = 0; i < 2; i++) codes[4 * (2 * (j % 2) + i)] = w[i];
    if (j != 0) return;
    out.scales[at * 2 + b] = e.d;
    out.sums[at * 2 + b] = e.s;
}

#endif
