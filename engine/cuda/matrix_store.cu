/* Loading: the file's blocks to the packed layout (packed.h), 16- and 32-bit floats to the
 * 16-bit type of the matrix, and random weights. One thread a block of 32 or a few elements;
 * never hot: the link to the host is slower. */
#include "engine/cuda/quant.cuh"

#include "engine/cuda/kernels.h"

/* A block of 32 as the file has it; q of a 4-bit type: 16 bytes. */
typedef struct raw_block {
    uint16_t d, m; /* f16 */
    uint8_t q[32];
} raw_block;

/* Word 0 (or 1: part = 1) of lane t, whose four bytes are 2t, 2t + 8, 2t + 1, 2t + 9. */
CU_DEVICE uint32_t word_of(const uint8_t *q, int part, int t) {
    q += 16 * part + 2 * t;
    return q[0] | q[8] << 8 | q[1] << 16 | (uint32_t)q[9] << 24;
}

template <dtype TYPE>
CU_DEVICE void put_block(const quant_view &v, uint32_t o, uint32_t k, const raw_block &r) {
#pragma unroll
    for (int t = 0; t < 4; t++) {
        const size_t at = quant_locate<TYPE>(v, o, k + 2 * t).word;
        uint32_t w = word_of(r.q, 0, t);
        if (TYPE == DT_Q4_0) w ^= 0x88888888u; /* code + 8 to two's complement */
        *(uint32_t *)(v.codes + at) = w;
        if (quant<TYPE>::is_byte) *(uint32_t *)(v.codes + at + 8) = word_of(r.q, 1, t);
    }
    const size_t scale = quant_locate<TYPE>(v, o, k).scale;
    *(uint16_t *)(v.scales + scale) = r.d;
    if (quant<TYPE>::has_min) *(uint16_t *)(v.scales + scale + 8) = r.m;
}

/* Zeroes a block that pads: codes and scales of 0 for every type. */
template <dtype TYPE> CU_DEVICE void put_zeros(const quant_view &v, uint32_t o, uint32_t k) {
    raw_block r = {};
    if (TYPE == DT_Q4_0)
        for (int i = 0; i < 16; i++) r.q[i] = 0x88;
    put_block<TYPE>(v, o, k, r);
}

struct store_range {
    uint32_t first, n, n_padded; /* rows that exist, and with the padding that follows them */
};

/* A range that ends the matrix takes the strip's padding along. */
static store_range store_range_of(const cu_matrix *w, uint32_t row, uint32_t n) {
    store_range r = {row, n, n};
    if (row + n == w->n_out) r.n_padded = packed_strips(w->n_out) * PACKED_STRIP - row;
    return r;
}

template <dtype TYPE>
__global__ void store_packed(quant_view v, store_range range, const uint8_t *raw) {
    const uint32_t blocks = v.n_chunks * 2, in_file = v.n_in / PACKED_BLOCK;
    const uint32_t block = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    constexpr uint32_t head = quant<TYPE>::has_min ? 4 : 2;
    constexpr uint32_t n_q = quant<TYPE>::is_byte ? 32 : 16;
    for (uint32_t i = row; i < range.n_padded; i += gridDim.y) {
        if (block >= blocks) return;
        const uint32_t o = range.first + i, k = block * PACKED_BLOCK;
        if (i >= range.n || block >= in_file) {
            put_zeros<TYPE>(v, o, k);
            continue;
        }
        const uint16_t *in =
            (const uint16_t *)(raw + ((size_t)i * in_file + block) * (head + n_q));
        raw_block r = {};
        r.d = in[0];
        if (quant<TYPE>::has_min) r.m = in[1];
#pragma unroll
        for (uint32_t j = 0; j < n_q / 2; j++) {
            const uint16_t pair = in[head / 2 + j];
            r.q[2 * j] = (uint8_t)pair;
            r.q[2 * j + 1] = (uint8_t)(pair >> 8);
        }
        put_block<TYPE>(v, o, k, r);
    }
}

/* ---- floats ---- */

CU_DEVICE float float_of(float x) {
    return x;
}
CU_DEVICE float float_of(__half x) {
    return __half2float(x);
}
CU_DEVICE float float_of(__nv_bfloat16 x) {
    return __bfloat162float(x);
}
CU_DEVICE void float_to(float x, float *out) {
    *out = x;
}
CU_DEVICE void float_to(float x, __half *out) {
    *out = __float2half_rn(x);
}
CU_DEVICE void float_to(float x, __nv_bfloat16 *out) {
    *out = __float2bfloat16_rn(x);
}

template <class FROM, class T> __global__ void store_floats(size_t n, const FROM *raw, T *out) {
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        float_to(float_of(raw[i]), out + i);
}

/* Blocks of 256 threads for n of something, each thread a few. */
static uint32_t blocks_for(size_t n) {
    const size_t blocks = (n + 255) / 256;
    return blocks < 4096 ? (uint32_t)blocks : 4096;
}

template <class T>
static cudaError_t store_to(cudaStream_t s, dtype from, size_t n, const void *raw, T *out) {
    const uint32_t grid = blocks_for(n);
    switch (from) {
    case DT_F32:
        CU_LAUNCH((store_floats<float, T>), grid, 256, 0, s, n, (const float *)raw, out);
        break;
    case DT_F16:
        CU_LAUNCH((store_floats<__half, T>), grid, 256, 0, s, n, (const __half *)raw, out);
        break;
    case DT_BF16:
        CU_LAUNCH((store_floats<__nv_bfloat16, T>), grid, 256, 0, s, n,
                  (const __nv_bfloat16 *)raw, out);
        break;
    default: return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

cudaError_t cu_matrix_store(cudaStream_t s, const cu_matrix *w, dtype from, uint32_t row,
                            uint32_t n, const void *raw) {
    if (n == 0) return cudaSuccess;
    const size_t at = (size_t)row * w->n_in, count = (size_t)n * w->n_in;
    if (w->type == DT_F32) return store_to(s, from, count, raw, (float *)w->data + at);
    if (w->type == DT_F16) return store_to(s, from, count, raw, (__half *)w->data + at);
    if (w->type == DT_BF16) return store_to(s, from, count, raw, (__nv_bfloat16 *)w->data + at);
    if (from != w->type) return cudaErrorInvalidValue;
    const quant_view v = quant_view_of(w);
    const store_range r = store_range_of(w, row, n);
    const dim3 grid((v.n_chunks * 2 + 63) / 64, r.n_padded < 32768 ? r.n_padded : 32768);
    switch (from) {
    case DT_Q8_0:
        CU_LAUNCH((store_packed<DT_Q8_0>), grid, 64, 0, s, v, r, (const uint8_t *)raw);
        break;
    case DT_Q4_0:
        CU_LAUNCH((store_packed<DT_Q4_0>), grid, 64, 0, s, v, r, (const uint8_t *)raw);
        break;
    case DT_Q4_1:
        CU_LAUNCH((store_packed<DT_Q4_1>), grid, 64, 0, s, v, r, (const uint8_t *)raw);
        break;
    default: return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

/* ---- random weights ---- */

/* Finaliser of SplitMix64 (Steele, Lea, Flood 2014). */
CU_DEVICE uint64_t mixed(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Uniform in +-sqrt(3 / n_in): deviation 1 / sqrt(n_in). */
template <class T> __global__ void random_floats(size_t n, float most, uint64_t seed, T *out) {
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const float u = (float)(mixed(seed + i) >> 40) * 0x1p-23f - 1.0f;
        float_to(u * most, out + i);
    }
}

/* Uniform codes under a scale of either sign, so that the mean is 0 for every type; Q4_1's
 * minimum takes the mean of its codes away. d: a code's deviation times d is that wanted. */
template <dtype TYPE> __global__ void random_packed(quant_view v, float d, uint64_t seed) {
    const uint32_t block = blockIdx.x * blockDim.x + threadIdx.x;
    if (block >= v.n_chunks * 2) return;
    for (uint32_t o = blockIdx.y; o < v.n_strips * PACKED_STRIP; o += gridDim.y) {
        if (block >= v.n_in / PACKED_BLOCK) {
            put_zeros<TYPE>(v, o, block * PACKED_BLOCK);
            continue;
        }
        const uint64_t at = seed + ((uint64_t)o * v.n_chunks * 2 + block) * 8;
        raw_block r;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint64_t x = mixed(at + i);
#pragma unroll
            for (int j = 0; j < 8; j++) r.q[8 * i + j] = (uint8_t)(x >> 8 * j);
        }
        const float signed_d = mixed(at + 4) & 1 ? -d : d;
        r.d = __half_raw(__float2half_rn(signed_d)).x;
        r.m = __half_raw(__float2half_rn(-7.5f * signed_d)).x;
        put_block<TYPE>(v, o, block * PACKED_BLOCK, r);
    }
}

cudaError_t cu_matrix_random(cudaStream_t s, const cu_matrix *w, uint64_t seed) {
    const size_t n = (size_t)w->n_out * w->n_in;
    const float most = sqrtf(3.0f / (float)w->n_in), sd = sqrtf(1.0f / (float)w->n_in);
    seed *= 0x9e3779b97f4a7c15u;
    quant_view v = quant_view_of(w);
    const uint32_t rows = v.n_strips * PACKED_STRIP;
    const dim3 grid((v.n_chunks * 2 + 63) / 64, rows < 32768 ? rows : 32768);
    /* Mean squares: of -8..7 21.5, of 0..15 less 7.5 21.25, of -128..127 5461.5. */
    switch (w->type) {
    case DT_F32:
        CU_LAUNCH((random_floats<float>), blocks_for(n), 256, 0, s, n, most, seed,
                  (float *)w->data);
        break;
    case DT_F16:
        CU_LAUNCH((random_floats<__half>), blocks_for(n), 256, 0, s, n, most, seed,
                  (__half *)w->data);
        break;
    case DT_BF16:
        CU_LAUNCH((random_floats<__nv_bfloat16>), blocks_for(n), 256, 0, s, n, most, seed,
                  (__nv_bfloat16 *)w->data);
        break;
    case DT_Q8_0:
        CU_LAUNCH((random_packed<DT_Q8_0>), grid, 64, 0, s, v, sd * 0.01353144f, seed);
        break;
    case DT_Q4_0:
        CU_LAUNCH((random_packed<DT_Q4_0>), grid, 64, 0, s, v, sd * 0.21566555f, seed);
        break;
    case DT_Q4_1:
        CU_LAUNCH((random_packed<DT_Q4_1>), grid, 64, 0, s, v, sd * 0.21693046f, seed);
        break;
    default: return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}
