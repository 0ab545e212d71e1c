/* Which matrices the CUDA engine takes and how many bytes they have on the device. Pure. */
#include "engine/cuda/matrix.h"

#include "engine/cuda/packed.h"
#include "engine/cuda/upload.h"

bool cu_matrix_supports(dtype t, uint32_t n_in) {
    const uint32_t block = dtype_block_of(t).elems;
    if (n_in == 0 || n_in > 1u << 20 || !block || n_in % block) return false;
    t = cu_upload_type(t);
    if (cu_matrix_is_packed(t)) return n_in % PACKED_BLOCK == 0;
    return (t == DT_F32 || t == DT_F16 || t == DT_BF16) && n_in % 8 == 0;
}

static uint64_t up256(uint64_t n) {
    return (n + 255) & ~(uint64_t)255;
}

uint64_t cu_matrix_bytes(dtype t, uint32_t n_out, uint32_t n_in) {
    if (!cu_matrix_is_packed(t)) return up256((uint64_t)n_out * n_in * (t == DT_F32 ? 4 : 2));
    return up256(packed_scales_at(t, n_out, n_in) +
                 packed_strips(n_out) * packed_strip_scales(t, n_in));
}

uint64_t cu_quantized_bytes(uint32_t n_rows, uint32_t n_in) {
    if (n_rows == 0 || n_in % PACKED_BLOCK) return 0;
    return up256(packed_act_sums_at(n_in) + (uint64_t)packed_chunks(n_in) * PACKED_ACT_SCALES);
}
