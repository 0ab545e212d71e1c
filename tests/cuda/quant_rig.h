/* Quantised matrices for tests of the CUDA kernels: bytes as a file has them, the values they
 * stand for by the formats' definition, and the matrix on the device. Any failure ends the
 * test. C++ for the shim and for nvcc. */
#ifndef VRAMD_TESTS_QUANT_RIG_H
#define VRAMD_TESTS_QUANT_RIG_H

extern "C" {
#include "model/dtype.h"
}
#include "tests/cuda/rig.h"

/* One block of 32 and its values, from the definition of ggml's formats (4 bits: element i in
 * the low nibble of byte i, element 16 + i in the high one). scale: of its values, about. */
static inline void random_block(dtype t, uint8_t *block, float *value, float scale, rng *r) {
    const bool is_byte = t == DT_Q8_0, has_min = t == DT_Q4_1;
    const uint16_t d = half_of_float(r->normal() * scale / (is_byte ? 74 : 4.6f));
    const uint16_t m = half_of_float(-7.5f * half_to_float(d) + r->normal() * scale * 0.2f);
    uint8_t *codes = block + (has_min ? 4 : 2);
    const int n = is_byte ? 32 : 16;
    memcpy(block, &d, 2);
    if (has_min) memcpy(block + 2, &m, 2);
    for (int i = 0; i < n; i++) codes[i] = (uint8_t)r->u64();
    if (r->u64() % 8 == 0) /* extremes */
        memset(codes, r->u64() % 2 ? (is_byte ? 0x80 : 0) : (is_byte ? 0x7f : 0xff), n);
    for (int i = 0; i < 32; i++) {
        const float df = half_to_float(d);
        const int code = i < 16 ? codes[i] & 15 : codes[i - 16] >> 4;
        if (is_byte)
            value[i] = df * (float)(int8_t)codes[i];
        else
            value[i] = has_min ? df * (float)code + half_to_float(m) : df * (float)(code - 8);
    }
}

/* A matrix as the file has it. */
struct file_matrix {
    dtype type;
    uint32_t n_out, n_in;
    std::vector<uint8_t> raw;
    std::vector<float> value; /* [n_out][n_in] */
    size_t row_bytes;

    file_matrix(dtype t, uint32_t n_out, uint32_t n_in, uint64_t seed)
        : type(t), n_out(n_out), n_in(n_in), value((size_t)n_out * n_in) {
        rng r = {seed};
        const dtype_info *info = dtype_get(t);
        row_bytes = (size_t)n_in / info->block_elems * info->block_bytes;
        raw.resize(row_bytes * n_out);
        const float scale = 1 / sqrtf((float)n_in);
        for (size_t at = 0, b = 0; at < value.size(); at += info->block_elems, b++) {
            uint8_t *p = raw.data() + b * info->block_bytes;
            if (info->block_elems == 32)
                random_block(t, p, &value[at], scale, &r);
            else
                put_float(p, &value[at], r.normal() * scale);
        }
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
