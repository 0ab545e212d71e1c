/* The table of stored number types: sizes, names, fallbacks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/dtype.h"
#include "tests/check_main.h"

static uint64_t bytes(dtype t, uint64_t rows, uint64_t cols) {
    uint64_t n = 0;
    ck_assert(dtype_bytes(t, rows, cols, &n));
    return n;
}

START_TEST(bytes_of_rows_follow_the_blocks) {
    ck_assert_uint_eq(bytes(DT_F32, 3, 5), 60);
    ck_assert_uint_eq(bytes(DT_BF16, 3, 5), 30);
    ck_assert_uint_eq(bytes(DT_Q4_1, 576, 1536), 552960); /* blk.0.ffn_down of SmolLM2 */
    ck_assert_uint_eq(bytes(DT_Q8_0, 49152, 576), 30081024);
    ck_assert_uint_eq(bytes(DT_Q6_K, 32000, 4096), 107520000);
    ck_assert_uint_eq(bytes(DT_MXFP4, 1, 64), 34);
    ck_assert_uint_eq(bytes(DT_NVFP4, 1, 128), 72);
    ck_assert_uint_eq(bytes(DT_Q1_0, 1, 256), 36);
    ck_assert_uint_eq(bytes(DT_Q2_0, 1, 256), 72);
    ck_assert_uint_eq(bytes(DT_IQ1_M, 2, 256), 112);
}
END_TEST

START_TEST(a_row_that_is_not_whole_blocks_has_no_size) {
    uint64_t n;
    ck_assert(!dtype_bytes(DT_Q4_0, 1, 33, &n));
    ck_assert(!dtype_bytes(DT_Q4_K, 1, 576, &n));
    ck_assert(!dtype_bytes((dtype)4, 1, 32, &n)); /* Q4_2 of old: not in the table */
    ck_assert(!dtype_bytes(DT_NONE, 1, 32, &n));
}
END_TEST

START_TEST(a_size_above_64_bits_is_refused) {
    uint64_t n;
    ck_assert(!dtype_bytes(DT_F32, 1ull << 31, 1ull << 31, &n));
    ck_assert(!dtype_bytes(DT_F64, 1, 1ull << 61, &n));
    ck_assert(dtype_bytes(DT_F32, 1ull << 30, 1ull << 31, &n));
    ck_assert_uint_eq(n, 1ull << 63);
}
END_TEST

START_TEST(names_are_found_in_any_case) {
    ck_assert_int_eq(dtype_by_name(STR("q8_0")), DT_Q8_0);
    ck_assert_int_eq(dtype_by_name(STR("bf16")), DT_BF16);
    ck_assert_int_eq(dtype_by_name(STR("F16")), DT_F16);
    ck_assert_int_eq(dtype_by_name(STR("Q4_K")), DT_Q4_K);
    ck_assert_int_eq(dtype_by_name(STR("q8_00")), DT_NONE);
    ck_assert_int_eq(dtype_by_name(STR("")), DT_NONE);
    ck_assert_int_eq(dtype_by_name(STR("int8")), DT_INT8);
    ck_assert_int_eq(dtype_by_name(STR("FP8")), DT_FP8);
    ck_assert_int_eq(dtype_by_name(STR("int4")), DT_INT4);
    ck_assert_str_eq(dtype_name(DT_INT4), "INT4");
    ck_assert_str_eq(dtype_name(DT_IQ4_XS), "IQ4_XS");
    ck_assert_str_eq(dtype_name(DT_NONE), "none");
    char both[32];
    ck_assert_str_eq(dtype_kv_name(DT_BF16, DT_BF16, both), "BF16");
    ck_assert_str_eq(dtype_kv_name(DT_F32, DT_F16, both), "K F32, V F16");
}
END_TEST

START_TEST(numbers_outside_the_table_are_unknown) {
    const uint32_t unknown[] = {4,  5,  9,   15,  31,  32,  33,  36,  37,
                                38, 43, 199, 200, 201, 202, 255, 256, UINT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        ck_assert_ptr_null(dtype_get(unknown[i]));
    for (uint32_t i = 0; i < 1000; i++)
        if (dtype_get(i)) ck_assert_int_eq(dtype_by_name(str_of(dtype_get(i)->name)), (int)i);
}
END_TEST

START_TEST(quantizers_fall_back_where_the_block_does_not_divide_the_row) {
    ck_assert_int_eq(dtype_for_cols(DT_Q4_K, 4096), DT_Q4_K);
    ck_assert_int_eq(dtype_for_cols(DT_Q4_K, 576), DT_Q5_0);
    ck_assert_int_eq(dtype_for_cols(DT_Q5_K, 896), DT_Q5_1);
    ck_assert_int_eq(dtype_for_cols(DT_Q6_K, 576), DT_Q8_0);
    ck_assert_int_eq(dtype_for_cols(DT_Q2_K, 576), DT_IQ4_NL);
    ck_assert_int_eq(dtype_for_cols(DT_IQ3_S, 576), DT_IQ4_NL);
    ck_assert_int_eq(dtype_for_cols(DT_TQ2_0, 576), DT_Q4_0);
    ck_assert_int_eq(dtype_for_cols(DT_Q6_K, 100), DT_F16);
    ck_assert_int_eq(dtype_for_cols(DT_Q8_0, 100), DT_F16);
    ck_assert_int_eq(dtype_for_cols(DT_BF16, 7), DT_BF16);
}
END_TEST

/* Every block of zeros is finite; with one scale that is not, at its place, none is. */
START_TEST(what_is_not_finite_is_found_in_every_type) {
    static const struct {
        dtype t;
        size_t at[2];
    } row[] = {{DT_Q4_0, {0, 0}},    {DT_Q5_0, {0, 0}},     {DT_Q8_0, {0, 0}},
               {DT_IQ4_NL, {0, 0}},  {DT_IQ4_XS, {0, 0}},   {DT_Q4_1, {0, 2}},
               {DT_Q5_1, {0, 2}},    {DT_Q4_K, {0, 2}},     {DT_Q5_K, {0, 2}},
               {DT_Q2_K, {80, 82}},  {DT_Q3_K, {108, 108}}, {DT_Q6_K, {208, 208}},
               {DT_IQ1_S, {0, 0}},   {DT_IQ2_XXS, {0, 0}},  {DT_IQ2_XS, {0, 0}},
               {DT_IQ2_S, {0, 0}},   {DT_IQ3_XXS, {0, 0}},  {DT_IQ3_S, {0, 0}},
               {DT_TQ1_0, {52, 52}}, {DT_TQ2_0, {64, 64}},  {DT_Q1_0, {0, 0}},
               {DT_Q2_0, {0, 0}},    {DT_F16, {0, 0}}};
    static const uint16_t wrong[] = {0x7c00, 0xfc00, 0x7e00}; /* Inf, -Inf, NaN */
    unsigned char block[5][256];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const size_t bytes = dtype_get(row[i].t)->block_bytes;
        unsigned char *flat = &block[0][0];
        memset(block, 0x7b, sizeof block); /* codes of all kinds, scales of 62,000 */
        ck_assert_msg(dtype_is_finite(row[i].t, block, 5), "%s", dtype_name(row[i].t));
        for (int k = 0; k < 6; k++) {
            unsigned char *scale = flat + 4 * bytes + row[i].at[k % 2];
            memcpy(scale, &wrong[k / 2], 2);
            ck_assert_msg(!dtype_is_finite(row[i].t, block, 5), "%s", dtype_name(row[i].t));
            ck_assert(dtype_is_finite(row[i].t, block, 4));
            memset(scale, 0x7b, 2);
        }
    }
    memset(block, 0x7b,
           sizeof block); /* IQ1_M: 0x7777, in the upper quarters of four numbers */
    ck_assert(dtype_is_finite(DT_IQ1_M, block, 5));
    (&block[0][0])[4 * 56 + 53] = 0xcb; /* 0x7c77 */
    ck_assert(!dtype_is_finite(DT_IQ1_M, block, 5) && dtype_is_finite(DT_IQ1_M, block, 4));
    memset(block, 252, sizeof block); /* MXFP4: 6 * 2^125 is the largest number of a block */
    ck_assert(dtype_is_finite(DT_MXFP4, block, 5));
    (&block[0][0])[4 * 17] = 253;
    ck_assert(!dtype_is_finite(DT_MXFP4, block, 5) && dtype_is_finite(DT_MXFP4, block, 4));
    const uint16_t bf16[] = {0x7f7f, 0xff7f, 0x7f80};
    ck_assert(dtype_is_finite(DT_BF16, bf16, 2) && !dtype_is_finite(DT_BF16, bf16, 3));
    float f[11] = {3e38f, -3e38f};
    for (uint64_t i = 0; i < 11; i++) {
        ck_assert(dtype_is_finite(DT_F32, f, 11));
        float was = f[i];
        f[i] = i % 2 ? NAN : -INFINITY;
        ck_assert(!dtype_is_finite(DT_F32, f, 11) && dtype_is_finite(DT_F32, f, i));
        f[i] = was;
    }
}
END_TEST

CHECK_MAIN("dtype", what_is_not_finite_is_found_in_every_type, bytes_of_rows_follow_the_blocks,
           a_row_that_is_not_whole_blocks_has_no_size, a_size_above_64_bits_is_refused,
           names_are_found_in_any_case, numbers_outside_the_table_are_unknown,
           quantizers_fall_back_where_the_block_does_not_divide_the_row)
