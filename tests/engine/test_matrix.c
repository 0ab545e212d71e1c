/* Tests of engine/cuda/matrix.h: what the plan believes of matrices on a CUDA device. */
#include "engine/cuda/matrix.h"
#include "engine/cuda/packed.h"
#include "tests/check_main.h"

static const dtype packed_types[] = {DT_Q8_0, DT_Q4_0, DT_Q4_1};

START_TEST(blocks_of_32_stay_packed_and_floats_become_16_bits) {
    for (int i = 0; i < 3; i++) {
        ck_assert(cu_matrix_is_packed(packed_types[i]));
        ck_assert(cu_matrix_supports(packed_types[i], 32));
        ck_assert(cu_matrix_supports(packed_types[i], 576));
        ck_assert(!cu_matrix_supports(packed_types[i], 48));
        ck_assert(!cu_matrix_supports(packed_types[i], 0));
    }
    static const dtype floats[] = {DT_F32, DT_F16, DT_BF16};
    for (int i = 0; i < 3; i++) {
        ck_assert(!cu_matrix_is_packed(floats[i]));
        ck_assert(cu_matrix_supports(floats[i], 40));
        ck_assert(!cu_matrix_supports(floats[i], 36)); /* rows would not be 16-byte aligned */
        ck_assert(!cu_matrix_supports(floats[i], (1u << 20) + 8));
        const uint64_t size = floats[i] == DT_F32 ? 4 : 2;
        ck_assert_uint_eq(cu_matrix_bytes(floats[i], 3, 40), size * 128);
        ck_assert_uint_eq(cu_matrix_bytes(floats[i], 128256, 4096), size * 128256 * 4096);
    }
    ck_assert(cu_matrix_supports(DT_Q4_K, 256) && cu_matrix_supports(DT_Q6_K, 512));
    ck_assert(cu_matrix_supports(DT_IQ3_S, 256)); /* as Q8_0 */
    ck_assert(!cu_matrix_supports(DT_Q4_K, 128) && !cu_matrix_supports(DT_NVFP4, 256));
    ck_assert(!cu_matrix_supports(DT_NONE, 256));
}
END_TEST

START_TEST(packing_keeps_the_bytes_of_the_file_where_nothing_is_padded) {
    for (int i = 0; i < 3; i++) {
        uint64_t file;
        ck_assert(dtype_bytes(packed_types[i], 4096, 14336, &file));
        ck_assert_uint_eq(cu_matrix_bytes(packed_types[i], 4096, 14336), file);
        ck_assert(dtype_bytes(packed_types[i], 128256, 4096, &file));
        ck_assert_uint_eq(cu_matrix_bytes(packed_types[i], 128256, 4096), file);
    }
}
END_TEST

START_TEST(padding_goes_to_16_outputs_and_64_inputs) {
    for (int i = 0; i < 3; i++) {
        dtype t = packed_types[i];
        uint64_t tile = packed_code_bytes(t) + packed_scale_bytes(t), file;
        ck_assert(dtype_bytes(t, 16, 64, &file));
        ck_assert_uint_eq(tile, file);
        ck_assert_uint_eq(cu_matrix_bytes(t, 1, 32), (tile + 255) / 256 * 256);
        ck_assert_uint_eq(cu_matrix_bytes(t, 17, 96), (4 * tile + 255) / 256 * 256);
        ck_assert_uint_eq(cu_matrix_bytes(t, 0, 64), 0);
        ck_assert_uint_eq(packed_scales_at(t, 17, 96), 4 * packed_code_bytes(t));
    }
}
END_TEST

START_TEST(quantised_activations_take_the_same_bytes_for_any_few_rows) {
    /* 8 rows: a code a column, a scale and a sum (float32) a block. */
    ck_assert_uint_eq(cu_quantized_bytes(1, 4096), 8 * 4096 + 2 * 8 * 4 * (4096 / 32));
    ck_assert_uint_eq(cu_quantized_bytes(8, 4096), cu_quantized_bytes(1, 4096));
    ck_assert_uint_eq(cu_quantized_bytes(2048, 4096), cu_quantized_bytes(1, 4096));
    ck_assert_uint_eq(cu_quantized_bytes(1, 96), (2 * (512 + 128) + 255) / 256 * 256);
    ck_assert_uint_eq(cu_quantized_bytes(0, 4096), 0);
    ck_assert_uint_eq(cu_quantized_bytes(1, 40), 0);
}
END_TEST

CHECK_MAIN("matrix", blocks_of_32_stay_packed_and_floats_become_16_bits,
           packing_keeps_the_bytes_of_the_file_where_nothing_is_padded,
           padding_goes_to_16_outputs_and_64_inputs,
           quantised_activations_take_the_same_bytes_for_any_few_rows)
