/* Quantised matrices for tests of the CUDA kernels: bytes as a file has them, the values they
 * stand for by the formats' definition, and the matrix on the device. Any failure ends the
 * test. C++ for the shim and for nvcc. */
#ifndef VRAMD_TESTS_QUANT_RIG_H
#define VRAMD_TESTS_QUANT_RIG_H

extern "C" {
#include "model/dtype.h"
}
#include "engine/cuda/packed.h"
#include "tests/cuda/rig.h"

/* Up to 256 numbers as the device holds them: d * code + m, d and m of each 16. */
struct weight_block {
    int n = 32;
    bool has_min = false;
    float code[256];
    float d[16], m[16] = {};
    float value(int i) const {
        return has_min ? d[i / 16] * code[i] + m[i / 16] : d[i / 16] * code[i];
    }
};

static inline bool type_has_min(dtype t) {
    return t == DT_Q4_1 || t == DT_Q5_1 || t == DT_Q2_K;
}

static inline float rounded(float f) { /* products of scales are rounded to f16 */
    return half_to_float(half_of_float(f));
}

static inline float half_in(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return half_to_float(h);
}

static inline float e4m3_of(uint8_t x) {
    const int e = x >> 3 & 15, f = x & 7;
    const float v = e ? ldexpf(1 + (float)f / 8, e - 7) : ldexpf((float)f, -9);
    return x & 0x80 ? -v : v;
}

/* What a block of 32 says, from the definition of ggml's formats (4 bits: element i in the low nibble of
 * byte i, element 16 + i in the high one). */
static inline weight_block read_32(dtype t, const uint8_t *p) {
    static const int nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                               1,    13,   25,  38,  53,  69,  89,  113},
                     e2m1[8] = {0, 1, 2, 3, 4, 6, 8, 12};
    weight_block b;
    b.has_min = type_has_min(t);
    const bool fifth = t == DT_Q5_0 || t == DT_Q5_1;
    float d = half_in(p);
    if (t == DT_MXFP4) d = ldexpf(0.5f, p[0] - 127);
    for (int i = 0; i < 16; i++) {
        b.d[i] = d;
        if (type_has_min(t)) b.m[i] = half_in(p + 2);
    }
    p += t == DT_MXFP4 ? 1 : type_has_min(t) ? 4 : 2;
    uint32_t high = 0;
    if (fifth) memcpy(&high, p, 4);
    if (fifth) p += 4;
    for (int i = 0; i < 32; i++) {
        const int nibble = (i < 16 ? p[i] & 15 : p[i - 16] >> 4) | (high >> i & 1) << 4;
        b.code[i] = (float)(t == DT_Q8_0     ? (int8_t)p[i]
                            : t == DT_Q4_0   ? nibble - 8
                            : t == DT_Q5_0   ? nibble - 16
                            : t == DT_IQ4_NL ? nl[nibble]
                            : t == DT_MXFP4  ? (nibble & 8 ? -e2m1[nibble & 7] : e2m1[nibble])
                                             : nibble);
    }
    return b;
}

/* 32 codes of F8, which share the scale d. */
static inline weight_block read_f8(float d, const uint8_t *codes) {
    weight_block b;
    for (float &x : b.d) x = d;
    for (int i = 0; i < 32; i++) b.code[i] = e4m3_of(codes[i]);
    return b;
}

/* What a block of 256 says, by ggml's definition of Q2_K, Q3_K and Q6_K. */
static inline weight_block read_256(dtype t, const uint8_t *p) {
    weight_block b;
    b.n = 256, b.has_min = type_has_min(t);
    for (int half = 0, at = 0, is = 0; half < 2; half++)
        for (int j = 0; j < 4; j++, at += 32, is += 2)
            for (int l = 0; l < 32; l++) {
                const int s = is + l / 16;
                if (t == DT_Q6_K) {
                    const uint8_t *ql = p + 64 * half + (j % 2 ? 32 : 0),
                                  *qh = p + 128 + 32 * half;
                    const int low = j < 2 ? ql[l] & 15 : ql[l] >> 4;
                    b.code[at + l] = (float)((low | (qh[l] >> 2 * j & 3) << 4) - 32);
                    b.d[s] = rounded(half_in(p + 208) * (float)(int8_t)p[192 + s]);
                } else if (t == DT_Q3_K) {
                    const uint8_t *sc = p + 96;
                    const int low = (s < 8 ? sc[s] : sc[s - 8] >> 4) & 15,
                              high = sc[8 + s % 4] >> 2 * (s / 4) & 3;
                    b.code[at + l] = (float)((p[32 + 32 * half + l] >> 2 * j & 3) -
                                             (p[l] >> (4 * half + j) & 1 ? 0 : 4));
                    b.d[s] = rounded(half_in(p + 108) * (float)((low | high << 4) - 32));
                } else {
                    b.code[at + l] = (float)(p[16 + 32 * half + l] >> 2 * j & 3);
                    b.d[s] = rounded(half_in(p + 80) * (float)(p[s] & 15));
                    b.m[s] = rounded(-half_in(p + 82) * (float)(p[s] >> 4));
                }
            }
    return b;
}

static inline void put_half(uint8_t *p, float f) {
    const uint16_t h = half_of_float(f);
    memcpy(p, &h, 2);
}

/* Random bytes, and scales for values of about the deviation sd. */
static inline weight_block random_block(dtype t, uint8_t *p, float sd, rng *r) {
    const dtype_block size = dtype_block_of(t);
    const bool extreme = r->u64() % 8 == 0;
    const int one = r->u64() % 2 ? 0xff : 0;
    for (uint32_t i = 0; i < size.bytes; i++) p[i] = (uint8_t)(extreme ? one : r->u64());
    const float x = r->normal() * sd;
    switch ((uint32_t)t) {
    case DT_Q2_K:
        put_half(p + 80, x / 8), put_half(p + 82, fabsf(x) / 8);
        return read_256(t, p);
    case DT_Q3_K: put_half(p + 108, x / 40); return read_256(t, p);
    case DT_Q6_K: put_half(p + 208, x / 1300); return read_256(t, p);
    case DT_MXFP4: p[0] = (uint8_t)(127 - 2 + (int)floorf(log2f(sd))); break;
    default: put_half(p, x / (t == DT_Q8_0 || t == DT_IQ4_NL ? 74 : t == DT_Q4_0 ? 4.6f : 8));
    }
    if (type_has_min(t)) put_half(p + 2, -7.5f * half_in(p) + r->normal() * sd * 0.2f);
    if (t == DT_Q8_0 && extreme) memset(p + 2, one ? 0x80 : 0x7f, 32);
    return read_32(t, p);
}

/* A matrix as the file has it. */
struct file_matrix {
    dtype type;
    uint32_t n_out, n_in;
    std::vector<uint8_t> raw;
    std::vector<float> value;        /* [n_out][n_in] */
    std::vector<weight_block> block; /* of packed types */
    size_t row_bytes;

    file_matrix(dtype t, uint32_t n_out, uint32_t n_in, uint64_t seed)
        : type(t), n_out(n_out), n_in(n_in), value((size_t)n_out * n_in) {
        rng r = {seed};
        const dtype_block size = dtype_block_of(t);
        row_bytes = (size_t)n_in / size.elems * size.bytes;
        raw.resize(row_bytes * n_out);
        const float scale = 1 / sqrtf((float)n_in);
        for (size_t at = 0, b = 0; at < value.size(); at += size.elems, b++) {
            uint8_t *p = raw.data() + b * size.bytes;
            if (size.elems == 1) {
                put_float(p, &value[at], r.normal() * scale);
                continue;
            }
            if (dtype_kind(t) == DT_F8) {
                random_f8(p, &value[at], size.elems, scale, &r);
                continue;
            }
            block.push_back(random_block(t, p, scale, &r));
            for (uint32_t i = 0; i < size.elems; i++)
                value[at + i] = block.back().value((int)i);
        }
    }
    /* A group: its scale, codes, and values. */
    void random_f8(uint8_t *p, float *v, uint32_t group, float sd, rng *r) {
        const float d = r->normal() * sd / 40;
        memcpy(p, &d, 4);
        for (uint32_t i = 0; i < group; i++) p[4 + i] = (uint8_t)(r->u64() & 0xf7); /* no NaN */
        for (uint32_t i = 0; i < group; i++) {
            if (i % 32 == 0) block.push_back(read_f8(d, p + 4 + i));
            v[i] = block.back().value((int)(i % 32));
        }
    }
    /* Of input k of output o: its code, and the scale and minimum that it shares. */
    const weight_block &at(uint32_t o, uint32_t k, int *i) const {
        const uint32_t n = dtype_kind(type) == DT_F8 ? 32 : dtype_block_of(type).elems;
        *i = (int)(k % n);
        return block[((size_t)o * n_in + k) / n];
    }
    float code(uint32_t o, uint32_t k) const {
        int i;
        return at(o, k, &i).code[i];
    }
    float d(uint32_t o, uint32_t k) const {
        int i;
        const weight_block &b = at(o, k, &i);
        return b.d[i / 16];
    }
    float m(uint32_t o, uint32_t k) const {
        int i;
        const weight_block &b = at(o, k, &i);
        return b.m[i / 16];
    }
    void put_float(uint8_t *p, float *v, float f) {
        const cu_type t = type == DT_BF16 ? CU_BF16 : CU_F16;
        const uint16_t h = to_16(t, f);
        *v = type == DT_F32 ? f : from_16(t, h);
        if (type == DT_F32)
            memcpy(p, &f, 4);
        else
            memcpy(p, &h, 2);
    }
};

/* The matrix on the device, stored in two calls; type: as it lies there. */
struct device_matrix {
    device<uint8_t> bytes;
    cu_matrix w;
    device_matrix(const file_matrix &f, dtype type, uint32_t first = 0)
        : bytes(cu_matrix_bytes(type, f.n_out, f.n_in)), w{bytes.p, type, f.n_out, f.n_in} {
        CUDA_OK(cudaMemset(bytes.p, 0x5a, bytes.n));
        store(f, 0, first);
        store(f, first, f.n_out - first);
    }
    void store(const file_matrix &f, uint32_t row, uint32_t n) {
        if (n == 0) return;
        const uint8_t *at = f.raw.data() + f.row_bytes * row;
        device<uint8_t> raw(std::vector<uint8_t>(at, at + f.row_bytes * n));
        CUDA_OK(cu_matrix_store(0, &w, f.type, row, n, raw.p));
        CUDA_OK(cudaDeviceSynchronize());
    }
};

#endif
