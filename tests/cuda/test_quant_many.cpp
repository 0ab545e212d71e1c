/* Tests of linear_many.cu: packed weights, 16-bit activations. Against float64 on the weights
 * rounded to T, which leaves only float32 sums as an error; which rows give which bits. */
#include "tests/cuda/linear_rig.h"

/* |y - want| <= 2e-6 * sum |w x| for float32 sums of up to 1,120 products. */
static void assert_close(const file_matrix &f, const inputs &x, const std::vector<float> &got,
                         uint32_t n_rows, uint32_t row_step) {
    for (uint32_t r = 0; r < n_rows; r += row_step)
        for (uint32_t o = 0; o < f.n_out; o++) {
            double y = 0, size = 0;
            for (uint32_t k = 0; k < f.n_in; k++) {
                const double w = from_16(x.t, to_16(x.t, f.value[(size_t)o * f.n_in + k]));
                y += w * x.at(r, k);
                size += fabs(w * x.at(r, k));
            }
            const double off = fabs(got[(size_t)r * f.n_out + o] - y);
            if (!(off <= 2e-6 * size))
                ck_abort_msg("%s, %u x %u x %u: [%u][%u] %g, not %g (%g of %g)",
                             dtype_name(f.type), n_rows, f.n_out, f.n_in, r, o,
                             got[(size_t)r * f.n_out + o], y, off, size);
        }
}

START_TEST(results_are_float32_sums_of_the_rounded_weights_whatever_the_shape) {
    static const uint32_t shapes[][3] = {{9, 1, 32},    {17, 40, 96},  {32, 33, 576},
                                         {33, 16, 64},  {64, 130, 96}, {70, 72, 1120},
                                         {130, 65, 160}};
    for (dtype type : packed_types)
        for (auto &s : shapes) {
            file_matrix f(type, s[1], s[2], 51);
            device_matrix m(f, type);
            inputs x(s[0] % 2 ? CU_F16 : CU_BF16, s[0], s[2], 53);
            assert_close(f, x, run_linear(m.w, x, s[0]), s[0], 1);
        }
}
END_TEST

/* Enough tiles for the large ones: 64 rows x 128 outputs. */
START_TEST(large_tiles_give_the_same_sums_and_the_same_bits_as_small_ones) {
    const uint32_t n_out = 2040, n_in = 96, n_rows = 500;
    for (dtype type : packed_types) {
        const cu_type t = type == DT_Q4_1 ? CU_F16 : CU_BF16;
        file_matrix f(type, n_out, n_in, 61);
        device_matrix m(f, type);
        inputs x(t, n_rows, n_in, 67);
        const std::vector<float> large = run_linear(m.w, x, n_rows);
        assert_close(f, x, large, n_rows, 71);
        assert_same_rows(large, run_linear(m.w, x, 40, nullptr, CU_OUT_F32, true), 40 * n_out,
                         "40 rows");
        assert_close(f, x, run_linear(m.w, x, 40), 40, 71); /* 32 x 64, the inputs shared out */
    }
}
END_TEST

START_TEST(with_same_bits_a_row_is_the_same_in_every_batch) {
    const uint32_t n_out = 72, n_in = 352;
    for (dtype type : packed_types)
        for (cu_type t : {CU_F16, CU_BF16}) {
            file_matrix f(type, n_out, n_in, 71);
            device_matrix m(f, type);
            inputs x(t, 70, n_in, 73);
            const std::vector<float> all = run_linear(m.w, x, 70);
            for (uint32_t n_rows : {1, 2, 8, 9, 33, 65})
                assert_same_rows(all, run_linear(m.w, x, n_rows, nullptr, CU_OUT_F32, true),
                                 n_rows * n_out, dtype_name(type));
            /* Without it, one order holds for 9 .. 32 rows. */
            const std::vector<float> some = run_linear(m.w, x, 32);
            assert_same_rows(some, run_linear(m.w, x, 9), 9 * n_out, "9 rows");
            assert_close(f, x, some, 32, 1);
        }
}
END_TEST

START_TEST(every_kind_of_output_and_a_bias) {
    assert_kinds(11);
    assert_kinds(37);
}
END_TEST

/* Stated tolerance: rounding the weights to T costs below 2^-11 (f16) or 2^-8 (bf16) of the
 * norm of a row's outputs. */
START_TEST(rounding_the_weights_stays_within_the_stated_error_of_float64) {
    const uint32_t n_out = 96, n_in = 896, n_rows = 12;
    for (dtype type : packed_types)
        for (cu_type t : {CU_F16, CU_BF16}) {
            file_matrix f(type, n_out, n_in, 23);
            device_matrix m(f, type);
            inputs x(t, n_rows, n_in, 29);
            assert_near_float64(f, x, run_linear(m.w, x, n_rows),
                                t == CU_F16 ? 0x1p-11 : 0x1p-8);
        }
}
END_TEST

START_TEST(a_nan_stays_in_its_row) {
    assert_nan_stays(DT_Q8_0, CU_BF16, 20, 96, 11);
}
END_TEST

CHECK_MAIN("quant_many", results_are_float32_sums_of_the_rounded_weights_whatever_the_shape,
           large_tiles_give_the_same_sums_and_the_same_bits_as_small_ones,
           with_same_bits_a_row_is_the_same_in_every_batch, every_kind_of_output_and_a_bias,
           rounding_the_weights_stays_within_the_stated_error_of_float64,
           a_nan_stays_in_its_row)
