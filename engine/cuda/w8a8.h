/* Linear layers of e4m3 by e4m3 (w8a8.cu): which matrices, and the scratch memory. Pure C, since the
 * plan needs the bytes on machines without CUDA. */
#ifndef VRAMD_ENGINE_CUDA_W8A8_H
#define VRAMD_ENGINE_CUDA_W8A8_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/cuda/matrix.h"

/* The least compute capability whose tensor cores multiply e4m3. */
enum { CU_W8A8_CAPABILITY = 89 };

/* Whether codes meet codes: one scale for all inputs of an output, and shapes as the library wants
 * them. */
static inline bool cu_w8a8_takes(dtype t, uint32_t n_out, uint32_t n_in) {
    return cu_matrix_is_float(t) && dtype_group(t) >= n_in && n_out % 16 == 0 && n_in % 16 == 0;
}

/* Activations as codes: [n_rows][n_in] of e4m3, then a float32 scale for each row. */
static inline uint64_t cu_w8a8_scales_at(uint32_t n_rows, uint32_t n_in) {
    return ((uint64_t)n_rows * n_in + 255) & ~(uint64_t)255;
}
static inline uint64_t cu_w8a8_codes_bytes(uint32_t n_rows, uint32_t n_in) {
    return (cu_w8a8_scales_at(n_rows, n_in) + 4 * (uint64_t)n_rows + 255) & ~(uint64_t)255;
}

/* A slice of n outputs: their codes by rows, then the float32 sums of up to n_rows rows. */
static inline uint64_t cu_w8a8_slice_bytes(uint32_t n, uint32_t n_in, uint32_t n_rows) {
    return (uint64_t)n * ((uint64_t)n_in + 4 * (uint64_t)n_rows);
}
/* Outputs of a slice in so many bytes: n_out, or equal multiples of CU_STORE_ROWS but for the last;
 * CU_STORE_ROWS at least. */
static inline uint32_t cu_w8a8_slice(uint32_t n_out, uint32_t n_in, uint32_t n_rows,
                                     uint64_t bytes) {
    const uint64_t unit = cu_w8a8_slice_bytes(CU_STORE_ROWS, n_in, n_rows);
    const uint32_t units = n_out / CU_STORE_ROWS + (n_out % CU_STORE_ROWS != 0);
    const uint64_t most = bytes < unit ? 1 : bytes / unit;
    if (cu_w8a8_slice_bytes(n_out, n_in, n_rows) <= bytes || units <= most) return n_out;
    const uint64_t slices = (units + most - 1) / most;
    return (uint32_t)((units + slices - 1) / slices) * CU_STORE_ROWS;
}

#endif
