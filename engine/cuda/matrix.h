/* How weight matrices lie in device memory: 16-bit ones as [n_out][n_in] rows, quantised ones
 * packed as the kernels of linear_quant.cu read them. Pure C, part of the base binary too: the
 * plan needs the bytes on machines without CUDA. */
#ifndef VRAMD_ENGINE_CUDA_MATRIX_H
#define VRAMD_ENGINE_CUDA_MATRIX_H

#include <stdbool.h>
#include <stdint.h>

#include "model/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Types of activations and of the KV cache on the device. */
typedef enum cu_type { CU_F32, CU_F16, CU_BF16 } cu_type;

/* Weights of F8 on the device, e4m3 with float32 scales: this is dtype_grouped(DT_F8, DT_F32, 32), which
 * stands for those of any group (cu_packed_kind). */
#define CU_F8 ((dtype)(DT_F8 | 2u << 8 | 1u << 10))
/* The type of CU_PACKED_LIST of a matrix on the device, whatever the size of its groups. */
static inline dtype cu_packed_kind(dtype t) {
    return dtype_kind(t) == DT_F8 ? CU_F8 : t;
}
/* F8 of n_in inputs on the device: log2 of the blocks of 32 inputs that share a scale. 31: all of an
 * output. Groups that are no power of two repeat theirs. */
static inline uint32_t cu_f8_shift(dtype t, uint32_t n_in) {
    uint32_t log2 = 0;
    if (dtype_group(t) >= n_in) return 31;
    while (log2 < 15 && dtype_group(t) / 32 % (2u << log2) == 0) log2++;
    return log2;
}

/* What stays packed on the device: X(name in C, type, bits of a code, inputs that share a scale, whether a
 * minimum stands beside each scale, whether codes are two's complement). packed.h says how they lie. */
#define CU_PACKED_LIST(X)                                                                      \
    X(Q8_0, DT_Q8_0, 8, 32, false, true)                                                       \
    X(Q4_0, DT_Q4_0, 4, 32, false, true)                                                       \
    X(Q4_1, DT_Q4_1, 4, 32, true, false)                                                       \
    X(Q5_0, DT_Q5_0, 5, 32, false, true)                                                       \
    X(Q5_1, DT_Q5_1, 5, 32, true, false)                                                       \
    X(Q2_K, DT_Q2_K, 2, 16, true, false)                                                       \
    X(Q3_K, DT_Q3_K, 3, 16, false, true)                                                       \
    X(Q6_K, DT_Q6_K, 6, 16, false, true)                                                       \
    X(IQ4_NL, DT_IQ4_NL, 4, 32, false, false)                                                  \
    X(MXFP4, DT_MXFP4, 4, 32, false, false)                                                    \
    X(F8, CU_F8, 8, 32, false, false)

/* A matrix in device memory. type: F16, BF16 (= the activations' type: the loader converts F32
 * and the other 16-bit type), F32 (of few outputs: cu_linear_narrow), or a packed type as stored in
 * the file. */
typedef struct cu_matrix {
    void *data; /* device, 256-byte aligned, cu_matrix_bytes long */
    dtype type;
    uint32_t n_out, n_in;
} cu_matrix;

static inline uint32_t cu_type_bytes(cu_type t) {
    return t == CU_F32 ? 4 : 2;
}

/* Whether the engine takes rows of n_in elements of this type from a file (upload.h): whole
 * blocks; a multiple of 32 for packed ones, of 8 for others. */
bool cu_matrix_supports(dtype, uint32_t n_in);
/* Stays packed on the device, as opposed to becoming the activations' 16-bit type while loading (F32,
 * F16, BF16). */
static inline bool cu_matrix_is_packed(dtype t) {
    switch ((uint32_t)cu_packed_kind(t)) { /* CU_F8 is no enumerator */
#define X(name, type, ...)                                                                     \
    case type: return true;
        CU_PACKED_LIST(X)
#undef X
    default: return false;
    }
}
/* Packed weights whose codes are no integers, so that they never meet int8 activations. */
static inline bool cu_matrix_is_float(dtype t) {
    return dtype_kind(t) == DT_F8;
}
/* Those that meet int8 activations, in few rows. */
static inline bool cu_matrix_is_coded(dtype t) {
    return cu_matrix_is_packed(t) && !cu_matrix_is_float(t);
}
/* Rows of a packed matrix are stored in multiples of this: a tile of its layout. */
enum { CU_STORE_ROWS = 64 };

/* Device bytes of a supported matrix of a type of cu_matrix, a multiple of 256. Packed ones are
 * padded to 16 outputs and 64 inputs (packed.h). */
uint64_t cu_matrix_bytes(dtype, uint32_t n_out, uint32_t n_in);
/* Rows up to which the GEMV kernels are meant for: they read the weights once for all of them.
 */
enum { CU_FEW_ROWS = 8 };
/* Packed matrices meet more rows than this as 16-bit slices in the GEMMs of the library
 * (gemm_packed.cu), where the bits of a row may depend on the others. */
enum { CU_MANY_ROWS = 64, CU_SLICE_BYTES = 48 << 20 };
/* Outputs of a slice: n_out, or a multiple of CU_STORE_ROWS whose rows of 16 bits have at most
 * `bytes` (but for the least), so that all slices are of one size where that is possible with
 * less than twice the number. Inline, since the plugin links nothing of the base. */
static inline uint32_t cu_slice_rows(uint32_t n_out, uint32_t n_in, uint64_t bytes) {
    const uint64_t unit = CU_STORE_ROWS * (uint64_t)n_in * 2;
    const uint64_t units = n_out / CU_STORE_ROWS + (n_out % CU_STORE_ROWS != 0);
    const uint64_t most = bytes < unit ? 1 : bytes / unit;
    if ((uint64_t)n_out * n_in * 2 <= bytes || units <= most) return n_out;
    const uint64_t least = (units + most - 1) / most;
    if (n_out % CU_STORE_ROWS == 0)
        for (uint64_t n = least; n < 2 * least; n++)
            if (units % n == 0) return (uint32_t)(units / n) * CU_STORE_ROWS;
    return (uint32_t)((units + least - 1) / least) * CU_STORE_ROWS;
}
/* Scratch memory of cu_linear_packed, where several blocks share a tile of outputs: a counter
 * for each tile, zero between calls, then the sums of up to 64 rows of each block. */
enum { CU_SPLIT_BLOCKS = 128, CU_SPLIT_OUTS = 256, CU_SPLIT_COUNTERS = CU_SPLIT_BLOCKS * 4 };
static inline uint64_t cu_split_bytes(uint32_t n_rows) {
    uint32_t most = 8;
    while (most < n_rows && most < 64) most *= 2;
    return CU_SPLIT_COUNTERS + (uint64_t)CU_SPLIT_BLOCKS * CU_SPLIT_OUTS * most * 4;
}
/* Bytes of the quantised activations that cu_quantize makes of n_rows rows, CU_FEW_ROWS at
 * most: the same for any n_rows but 0. n_in: a multiple of 32, else 0. */
uint64_t cu_quantized_bytes(uint32_t n_rows, uint32_t n_in);

#ifdef __cplusplus
}
#endif
#endif
