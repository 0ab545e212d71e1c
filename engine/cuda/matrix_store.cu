/* Loading: the file's blocks to the packed layout (packed.h), 16- and 32-bit floats to the
 * 16-bit type of the matrix, and random weights. One thread a block of 32 or a few elements;
 * never hot: the link to the host is slower. */
#include "engine/cuda/quant.cuh"

#include "engine/cuda/kernels.h"

/* 32 inputs of an output: codes as their planes have them, scales and minima of each 16 (f16, of MXFP4
 * bf16), or F8's scale. */
typedef struct raw_block {
    uint8_t q[32];
    uint16_t d[2], m[2];
    float f8;
} raw_block;

/* Those bits of a word that are in mask. Its others are other threads'. */
CU_DEVICE void put_bits(uint8_t *word, uint32_t mask, uint32_t bits) {
    atomicAnd((uint32_t *)word, ~mask);
    atomicOr((uint32_t *)word, bits);
}

/* The inputs of word `half` and lane t: 2t, 2t + 8, 2t + 1, 2t + 9 (byte by byte), then + 16. */
template <dtype TYPE>
CU_DEVICE void put_word(uint8_t *codes, const quant_place &p, const raw_block &r, int t) {
    typedef quant<TYPE> q;
    uint32_t all[2] = {}, nibbles = 0, two = 0, one = 0;
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t x = r.q[16 * half + 2 * t + i / 2 + 8 * (i % 2)];
            all[half] |= x << 8 * i;
            nibbles |= (x & 15) << (8 * i + 4 * half);
            two |= (x >> (q::has_4 ? 4 : 0) & 3) << (8 * i + 4 * p.b + 2 * half);
            if (q::has_1)
                one |= (x >> (q::bits - 1) & 1) << (8 * i + 4 * p.hi + 2 * p.b + half);
        }
    codes += p.codes;
    if (q::is_byte) {
        *(uint32_t *)(codes + quant_at_8(p)) = all[0];
        *(uint32_t *)(codes + quant_at_8(p) + 8) = all[1];
    }
    if (q::has_4) *(uint32_t *)(codes + quant_at_4(p)) = nibbles;
    if (q::has_2) put_bits(codes + quant_at_2<TYPE>(p), 0x0f0f0f0fu << 4 * p.b, two);
    if (q::has_1)
        put_bits(codes + quant_at_1<TYPE>(p), 0x03030303u << (4 * p.hi + 2 * p.b), one);
}

/* k: of the block's first input. */
template <dtype TYPE>
CU_DEVICE void put_block(const quant_view &v, uint32_t o, uint32_t k, const raw_block &r) {
    typedef quant<TYPE> q;
#pragma unroll
    for (int t = 0; t < 4; t++)
        put_word<TYPE>(v.codes, quant_locate<TYPE>(v, o, k + 2 * t), r, t);
    if constexpr (q::is_float) { /* by the first block of those that share it */
        const uint32_t block = k / PACKED_BLOCK;
        if (block >> v.f8_shift << v.f8_shift == block)
            *(float *)(v.scales + quant_locate<TYPE>(v, o, k).scale) = r.f8;
    } else {
#pragma unroll
        for (int half = 0; half <= (int)q::by_16; half++) {
            uint8_t *at = v.scales + quant_locate<TYPE>(v, o, k + 16 * half).scale;
            *(uint16_t *)at = r.d[half];
            if (q::has_min) *(uint16_t *)(at + quant_min_after<TYPE>()) = r.m[half];
        }
    }
}

/* ---- the blocks of ggml, which defines them by its C structs ---- */

CU_DEVICE uint16_t bits_at(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}
CU_DEVICE float half_at(const uint8_t *p) {
    return quant_float<DT_Q8_0>(bits_at(p));
}
CU_DEVICE uint16_t half_of(float x) {
    return __half_raw(__float2half_rn(x)).x;
}
CU_DEVICE uint32_t word_at(const uint8_t *p) {
    return bits_at(p) | (uint32_t)bits_at(p + 2) << 16;
}

/* Sixteen bytes of nibbles, each with a fifth bit of high: input i in the low half of byte i, input
 * 16 + i in its high half. flip: the bits that make two's complement of an offset. */
CU_DEVICE void take_nibbles(raw_block &r, const uint8_t *p, uint32_t high, uint32_t flip) {
    for (int i = 0; i < 16; i++) {
        r.q[i] = (uint8_t)(((p[i] & 15) | (high >> i & 1) << 4) ^ flip);
        r.q[16 + i] = (uint8_t)((p[i] >> 4 | (high >> (16 + i) & 1) << 4) ^ flip);
    }
}

/* Types of 32 inputs a block. */
template <dtype TYPE> CU_DEVICE raw_block block_of_32(const uint8_t *p) {
    raw_block r = {};
    constexpr bool nibbles = quant<TYPE>::has_4 && TYPE != DT_MXFP4;
    r.d[0] = bits_at(p);
    if (quant<TYPE>::has_min) r.m[0] = bits_at(p + 2);
    p += quant<TYPE>::has_min ? 4 : 2;
    if (nibbles && quant<TYPE>::has_1)
        take_nibbles(r, p + 4, word_at(p), quant<TYPE>::up ? 16 : 0);
    else if (nibbles)
        take_nibbles(r, p, 0, quant<TYPE>::up ? 8 : 0);
    if (TYPE == DT_Q8_0)
        for (int i = 0; i < 32; i++) r.q[i] = p[i];
    return r;
}

/* 2^(e - 128) in bf16, whose smallest numbers have no leading one. */
CU_DEVICE raw_block block_of_mxfp4(const uint8_t *p) {
    raw_block r = {};
    r.d[0] = p[0] < 2 ? (uint16_t)(0x20 << p[0]) : (uint16_t)((p[0] - 1) << 7);
    take_nibbles(r, p + 1, 0, 0);
    return r;
}

/* Of groups, each a float32 scale and its codes. None is NaN: the model was checked. */
CU_DEVICE raw_block block_of_f8(const uint8_t *raw, size_t at, uint32_t group) {
    raw_block r = {};
    const size_t k = at * PACKED_BLOCK;
    const uint8_t *p = raw + k / group * (group + 4);
    r.f8 = __uint_as_float(word_at(p));
    for (int i = 0; i < 32; i++) r.q[i] = p[4 + k % group + i];
    return r;
}

/* Thirty-two inputs, the j-th of eight, of a block of 256. */
CU_DEVICE raw_block block_of_q2_k(const uint8_t *b, int j) {
    raw_block r = {};
    const float d = half_at(b + 80), dmin = half_at(b + 82);
    const uint8_t *q = b + 16 + 32 * (j / 4); /* 128 weights share 32 bytes */
    for (int half = 0; half < 2; half++) {
        const int s = b[2 * j + half];
        r.d[half] = half_of(d * (float)(s & 15));
        r.m[half] = half_of(-(dmin * (float)(s >> 4)));
    }
    for (int i = 0; i < 32; i++) r.q[i] = q[i] >> 2 * (j % 4) & 3;
    return r;
}
CU_DEVICE raw_block block_of_q3_k(const uint8_t *b, int j) {
    raw_block r = {};
    const uint8_t *s = b + 96, *q = b + 32 + 32 * (j / 4);
    for (int half = 0; half < 2; half++) {
        const int at = 2 * j + half, low = at < 8 ? s[at] & 15 : s[at - 8] >> 4;
        const int high = s[8 + at % 4] >> 2 * (at / 4) & 3;
        r.d[half] = half_of(half_at(b + 108) * (float)((low | high << 4) - 32));
    }
    for (int i = 0; i < 32; i++) /* a set high bit: no 4 is taken away */
        r.q[i] = (uint8_t)((q[i] >> 2 * (j % 4) & 3) | (~(b[i] >> j) & 1) << 2);
    return r;
}
CU_DEVICE raw_block block_of_q6_k(const uint8_t *b, int j) {
    raw_block r = {};
    const uint8_t *q = b + 64 * (j / 4) + 32 * (j % 2), *high = b + 128 + 32 * (j / 4);
    for (int half = 0; half < 2; half++)
        r.d[half] = half_of(half_at(b + 208) * (float)(int8_t)b[192 + 2 * j + half]);
    for (int i = 0; i < 32; i++) {
        const int low = q[i] >> 4 * (j % 4 / 2) & 15, two = high[i] >> 2 * (j % 4) & 3;
        r.q[i] = (uint8_t)((low | two << 4) ^ 32);
    }
    return r;
}

/* The at-th 32 inputs of the rows in raw. group: of F8. */
template <dtype TYPE>
CU_DEVICE raw_block file_block(const uint8_t *raw, size_t at, uint32_t group) {
    switch ((uint32_t)TYPE) {
    case DT_Q2_K: return block_of_q2_k(raw + at / 8 * 84, (int)(at % 8));
    case DT_Q3_K: return block_of_q3_k(raw + at / 8 * 110, (int)(at % 8));
    case DT_Q6_K: return block_of_q6_k(raw + at / 8 * 210, (int)(at % 8));
    case DT_MXFP4: return block_of_mxfp4(raw + at * 17);
    case CU_F8: return block_of_f8(raw, at, group);
    default:
        return block_of_32<TYPE>(
            raw + at * (quant<TYPE>::bits * 4 + 2 + (quant<TYPE>::has_min ? 2 : 0)));
    }
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
__global__ void store_packed(quant_view v, store_range range, uint32_t group,
                             const uint8_t *raw) {
    const uint32_t blocks = v.n_chunks * 2, in_file = v.n_in / PACKED_BLOCK;
    const uint32_t block = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    for (uint32_t i = row; i < range.n_padded; i += gridDim.y) {
        if (block >= blocks) return;
        raw_block r = {}; /* zeros are what pads */
        if (i < range.n && block < in_file)
            r = file_block<TYPE>(raw, (size_t)i * in_file + block, group);
        put_block<TYPE>(v, range.first + i, block * PACKED_BLOCK, r);
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
    return quant_by_type(from, [&](auto type) {
        constexpr dtype TYPE = decltype(type)::value;
        CU_LAUNCH((store_packed<TYPE>), grid, 64, 0, s, v, r, dtype_group(from),
                  (const uint8_t *)raw);
        return cudaGetLastError();
    });
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

/* Uniform codes under a scale of either sign, so that the mean is 0 for every type; a minimum takes the mean
 * of the codes away. d: a code's deviation times d is that wanted. */
template <dtype TYPE> __global__ void random_packed(quant_view v, float d, uint64_t seed) {
    typedef quant<TYPE> q;
    const uint32_t block = blockIdx.x * blockDim.x + threadIdx.x;
    if (block >= v.n_chunks * 2) return;
    for (uint32_t o = blockIdx.y; o < v.n_strips * PACKED_STRIP; o += gridDim.y) {
        raw_block r = {};
        if (block >= v.n_in / PACKED_BLOCK) {
            put_block<TYPE>(v, o, block * PACKED_BLOCK, r);
            continue;
        }
        const uint64_t at = seed + ((uint64_t)o * v.n_chunks * 2 + block) * 8;
#pragma unroll
        for (int i = 0; i < 32; i++) {
            const uint8_t x = (uint8_t)(mixed(at + i / 8) >> 8 * (i % 8));
            r.q[i] = q::is_float ? x & 0xbf : (uint8_t)(x >> (8 - q::bits));
        }
        const float signed_d = mixed(at + 4) & 1 ? -d : d;
        const float mean = 0.5f * (float)((1 << q::bits) - 1);
        for (int half = 0; half < 2; half++) {
            r.d[half] = TYPE == DT_MXFP4 ? (uint16_t)(__float_as_uint(signed_d) >> 16)
                                         : half_of(signed_d);
            r.m[half] = half_of(-mean * signed_d);
        }
        r.f8 = signed_d;
        put_block<TYPE>(v, o, block * PACKED_BLOCK, r);
    }
}

/* The deviation of what random_packed draws, at a scale of 1. */
template <dtype TYPE> static float deviation_of_codes() {
    typedef quant<TYPE> q;
    const double n = 1 << q::bits, uniform = (n * n - 1) / 12;
    if (q::is_float) return (float)sqrt(0.358059406); /* of 0 to 1.875 */
    if (TYPE == DT_MXFP4) return (float)sqrt(34.25);
    if (TYPE == DT_IQ4_NL) return (float)sqrt(4548.0);
    return (float)sqrt(q::has_min ? uniform : uniform + 0.25);
}

cudaError_t cu_matrix_random(cudaStream_t s, const cu_matrix *w, uint64_t seed) {
    const size_t n = (size_t)w->n_out * w->n_in;
    const float most = sqrtf(3.0f / (float)w->n_in), sd = sqrtf(1.0f / (float)w->n_in);
    seed *= 0x9e3779b97f4a7c15u;
    quant_view v = quant_view_of(w);
    const uint32_t rows = v.n_strips * PACKED_STRIP;
    const dim3 grid((v.n_chunks * 2 + 63) / 64, rows < 32768 ? rows : 32768);
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
    default:
        return quant_by_type(w->type, [&](auto type) {
            constexpr dtype TYPE = decltype(type)::value;
            CU_LAUNCH((random_packed<TYPE>), grid, 64, 0, s, v, sd / deviation_of_codes<TYPE>(),
                      seed);
            return cudaGetLastError();
        });
    }
    return cudaGetLastError();
}
