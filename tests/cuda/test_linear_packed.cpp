/* Tests of linear_packed.cu: packed weights, 16-bit activations. Against float64 on the file's
 * weights, which leaves only float32 sums as an error; a row's bits in every number of rows;
 * inputs that several blocks share. */
#include "tests/cuda/linear_rig.h"

static std::vector<float> run_packed(const cu_matrix &w, const inputs &x, uint32_t n_rows) {
    return run_linear(w, x, n_rows, nullptr, CU_OUT_F32, true);
}

/* |y - want| <= 2e-6 * sum |w x| for float32 sums of up to 2,080 products. */
static void assert_close(const file_matrix &f, const inputs &x, const std::vector<float> &got,
                         uint32_t n_rows, uint32_t row_step) {
    for (uint32_t r = 0; r < n_rows; r += row_step)
        for (uint32_t o = 0; o < f.n_out; o++) {
            double y = 0, size = 0;
            for (uint32_t k = 0; k < f.n_in; k++) {
                const double w = f.value[(size_t)o * f.n_in + k];
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

/* From 1,024 inputs on two blocks and more share them. */
START_TEST(results_are_float32_sums_of_the_weights_whatever_the_shape) {
    static const uint32_t shapes[][3] = {{1, 40, 96},    {9, 1, 32},     {17, 40, 96},
                                         {32, 33, 576},  {33, 16, 64},   {64, 300, 96},
                                         {70, 72, 416},  {130, 65, 160}, {9, 272, 1024},
                                         {40, 20, 1120}, {3, 5, 2080}};
    for (dtype type : packed_types)
        for (auto &s : shapes) {
            const uint32_t n_in = inputs_for(type, s[2]);
            file_matrix f(type, s[1], n_in, 51);
            device_matrix m(f, type);
            inputs x(s[0] % 2 ? CU_F16 : CU_BF16, s[0], n_in, 53);
            assert_close(f, x, run_packed(m.w, x, s[0]), s[0], s[0] > 64 ? 23 : 1);
        }
}
END_TEST

/* Rows of the identity as inputs: every output is a weight of the file, of which those with a
 * minimum are rounded as code * d and as its sum with m. */
START_TEST(no_weight_is_rounded) {
    const uint32_t n_out = 40;
    for (dtype type : packed_types) ALL_TYPES(t) {
            const uint32_t n_in = inputs_for(type, 96);
            file_matrix f(type, n_out, n_in, 6);
            device_matrix m(f, type);
            inputs x(t, n_in, n_in, 1);
            for (uint32_t r = 0; r < n_in; r++)
                for (uint32_t k = 0; k < n_in; k++)
                    x.bits[(size_t)r * x.ld + k] = to_16(t, r == k);
            x.on_device.put(x.bits);
            const std::vector<float> got = run_packed(m.w, x, n_in);
            const float off = type_has_min(type) ? 0x1p-23f : 0;
            for (uint32_t o = 0; o < n_out; o++)
                for (uint32_t k = 0; k < n_in; k++) {
                    const float want = f.value[(size_t)o * n_in + k];
                    SWEEP(fabsf(got[(size_t)k * n_out + o] - want) <= off * 2);
                }
        }
}
END_TEST

START_TEST(a_row_has_the_same_bits_for_any_number_of_rows) {
    const uint32_t n_out = 72;
    for (uint32_t some : {352u, 1056u})
        for (dtype type : packed_types) {
            const cu_type t = type_has_min(type) ? CU_F16 : CU_BF16;
            const uint32_t n_in = inputs_for(type, some);
            file_matrix f(type, n_out, n_in, 71);
            device_matrix m(f, type);
            inputs x(t, 130, n_in, 73);
            const std::vector<float> all = run_packed(m.w, x, 130);
            for (uint32_t n_rows : {1, 2, 8, 9, 16, 17, 32, 33, 64, 65})
                assert_same_rows(all, run_packed(m.w, x, n_rows), n_rows * n_out,
                                 dtype_name(type));
            /* The choice of a kernel by rows leads here from 9 on. */
            assert_same_rows(all, run_linear(m.w, x, 9), 9 * n_out, "9 rows");
        }
}
END_TEST

START_TEST(every_kind_of_output_and_a_bias) {
    assert_kinds(11);
    assert_kinds(37);
}
END_TEST

START_TEST(results_are_within_the_stated_error_of_float64) {
    const uint32_t n_out = 96, n_rows = 12;
    for (dtype type : packed_types) ALL_TYPES(t) {
            const uint32_t n_in = inputs_for(type, 896);
            file_matrix f(type, n_out, n_in, 23);
            device_matrix m(f, type);
            inputs x(t, n_rows, n_in, 29);
            assert_near_float64(f, x, run_packed(m.w, x, n_rows), 0x1p-20);
        }
}
END_TEST

/* Gate and up in one call give what the two alone give, then the activation, rounded to T. */
static void check_gated(dtype type, cu_type t, activation act, const uint32_t shape[3]) {
    const uint32_t n_rows = shape[0], n_out = shape[1], n_in = inputs_for(type, shape[2]);
    file_matrix f(type, n_out, n_in, 81), h(type, n_out, n_in, 82);
    device_matrix gate(f, type), up(h, type);
    inputs x(t, n_rows, n_in, 83);
    std::vector<float> bias(n_out);
    for (uint32_t o = 0; o < n_out; o++) bias[o] = 0.125f * (float)(o % 7) - 0.25f;
    device<float> on_device(bias);
    const std::vector<float> g = run_linear(gate.w, x, n_rows, on_device.p, CU_OUT_F32, true),
                             u = run_linear(up.w, x, n_rows, nullptr, CU_OUT_F32, true);
    guarded_out out(t, n_rows, n_out);
    split_scratch scratch(n_rows);
    cu_linear a = linear_of(gate.w, x, n_rows, out, CU_OUT_T), b = a;
    a.split = scratch.bytes.p, a.bias = on_device.p, b.w = up.w;
    CUDA_OK(cu_gate_up_packed(0, &a, &b, act));
    const std::vector<float> got = out.get();
    scratch.check();
    assert_gated(type, t, act, g, u, got);
}
START_TEST(gate_and_up_together_are_the_two_alone) {
    static const uint32_t shapes[][3] = {{11, 40, 96}, {33, 144, 160}, {17, 24, 1088}};
    for (dtype type : packed_types)
        for (auto &s : shapes)
            check_gated(type, s[0] % 3 ? CU_F16 : CU_BF16,
                        s[0] == 33 ? ACT_GELU_TANH : ACT_SILU, s);
}
END_TEST

START_TEST(a_nan_stays_in_its_row) {
    assert_nan_stays(DT_Q8_0, CU_BF16, 20, 96, 11);
    assert_nan_stays(DT_Q4_1, CU_F16, 40, 1056, 11);
}
END_TEST

START_TEST(what_cannot_be_done_is_refused_and_nothing_is_done_for_no_rows) {
    assert_refusals(cu_linear_packed, cu_gate_up_packed);
}
END_TEST

CHECK_MAIN("linear_packed", results_are_float32_sums_of_the_weights_whatever_the_shape,
           no_weight_is_rounded, a_row_has_the_same_bits_for_any_number_of_rows,
           every_kind_of_output_and_a_bias, results_are_within_the_stated_error_of_float64,
           gate_and_up_together_are_the_two_alone, a_nan_stays_in_its_row,
           what_cannot_be_done_is_refused_and_nothing_is_done_for_no_rows)
