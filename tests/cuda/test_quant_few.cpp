/* Tests of linear_quant.cu: packed weights, few rows, int8 activations. Every output against a
 * plain twin of the documented sum, bit for bit; the twin against float64. */
#include "tests/cuda/linear_rig.h"

/* What cu_quantize must give for a block of 32 (engine/cpu/linear.h). */
struct plain_block {
    int code[32];
    float d, s;
    explicit plain_block(const float x[32]) {
        float big = 0;
        bool finite = true;
        int sum = 0;
        for (int i = 0; i < 32; i++) {
            finite = finite && isfinite(x[i]);
            big = fmaxf(big, fabsf(x[i]));
        }
        const bool none = !finite || big < 0x1p-80f;
        const float scale = 127.0f / big;
        for (int i = 0; i < 32; i++) {
            code[i] = none ? 0 : (int)rintf(x[i] * scale);
            sum += code[i];
        }
        d = !finite ? NAN : none ? 0 : big / 127.0f;
        s = d * (float)sum;
    }
};

static void assert_quantized(const inputs &x, const quantized &q, uint32_t row) {
    for (uint32_t b = 0; b < x.n_in / 32; b++) {
        float v[32];
        for (int i = 0; i < 32; i++) v[i] = x.at(row, 32 * b + i);
        const plain_block want(v);
        for (int i = 0; i < 32; i++) SWEEP(q.code(row, 32 * b + i) == want.code[i]);
        SWEEP(isnan(want.d) ? isnan(q.scale(row, b)) : q.scale(row, b) == want.d);
        SWEEP(isnan(want.s) ? isnan(q.sum(row, b)) : q.sum(row, b) == want.s);
    }
}

START_TEST(activations_are_quantised_as_on_the_cpu) {
    static const uint32_t ins[] = {32, 96, 576};
    for (cu_type t : {CU_F16, CU_BF16})
        for (uint32_t n_in : ins) {
            inputs x(t, 8, n_in, n_in);
            for (uint32_t n_rows : {1, 5, 8}) {
                quantized q(x, n_rows);
                for (uint32_t r = 0; r < n_rows; r++) assert_quantized(x, q, r);
                for (uint32_t r = 0; r < n_rows && n_in % 64; r++) { /* the block of padding */
                    for (uint32_t k = n_in; k < n_in + 32; k++) SWEEP(q.code(r, k) == 0);
                    SWEEP(q.scale(r, n_in / 32) == 0 && q.sum(r, n_in / 32) == 0);
                }
            }
        }
}
END_TEST

START_TEST(nan_infinity_and_zero_are_quantised_as_on_the_cpu) {
    for (cu_type t : {CU_F16, CU_BF16}) {
        inputs x(t, 4, 128, 3);
        x.bits[7] = to_16(t, NAN);
        x.bits[40] = to_16(t, -INFINITY);
        for (int k = 64; k < 96; k++) x.bits[k] = k % 2 ? 0x8000 : 0;
        for (int k = 96; k < 128; k++) x.bits[k] = (uint16_t)(k % 2); /* the smallest number */
        x.on_device.put(x.bits);
        quantized q(x, 4);
        for (uint32_t r = 0; r < 4; r++) assert_quantized(x, q, r);
    }
}
END_TEST

/* One output as linear_quant.cu documents it. */
static float plain_few(const file_matrix &w, const quantized &q, uint32_t row, uint32_t o) {
    const bool by_16 = packed_scale_bytes(w.type) / (type_has_min(w.type) ? 2 : 1) == 128;
    const uint32_t n = by_16 ? 16 : 32;
    float total = 0;
    for (uint32_t warp = 0; warp < 8; warp++) {
        float acc = 0;
        for (uint32_t c = warp; c * 64 < w.n_in; c += 8)
            for (uint32_t k = 64 * c; k < 64 * c + 64 && k < w.n_in; k += n) {
                int isum = 0, sum = 0;
                for (uint32_t i = k; i < k + n; i++) {
                    isum += (int)w.code(o, i) * q.code(row, i);
                    sum += q.code(row, i);
                }
                const float d = q.scale(row, k / 32);
                acc = fmaf((float)isum, w.d(o, k) * d, acc);
                if (type_has_min(w.type))
                    acc = fmaf(w.m(o, k), by_16 ? d * (float)sum : q.sum(row, k / 32), acc);
            }
        total += acc;
    }
    return total;
}

START_TEST(every_output_is_the_documented_sum_bit_for_bit) {
    static const uint32_t shapes[][2] = {{1, 32}, {16, 64}, {40, 96}, {35, 576}, {17, 1120}};
    EACH_INT8(type)
    for (auto &shape : shapes) {
        const uint32_t n_in = inputs_for(type, shape[1]);
        file_matrix f(type, shape[0], n_in, 17);
        device_matrix m(f, type);
        const cu_type t = shape[0] % 2 ? CU_F16 : CU_BF16;
        inputs x(t, 8, n_in, 5);
        quantized q(x, 8);
        std::vector<float> want;
        for (uint32_t r = 0; r < 8; r++)
            for (uint32_t o = 0; o < shape[0]; o++) want.push_back(plain_few(f, q, r, o));
        for (uint32_t n_rows : {1, 2, 3, 8})
            assert_same_rows(want, run_linear(m.w, x, n_rows), n_rows * shape[0],
                             dtype_name(type));
    }
}
END_TEST

/* 16,384 outputs and more take two strips a block even for one row. */
START_TEST(matrices_with_many_outputs_have_the_same_bits) {
    const uint32_t n_out = 16400, n_in = 32;
    file_matrix f(DT_Q4_1, n_out, n_in, 2);
    device_matrix m(f, DT_Q4_1);
    inputs x(CU_F16, 1, n_in, 6);
    quantized q(x, 1);
    std::vector<float> want;
    for (uint32_t o = 0; o < n_out; o++) want.push_back(plain_few(f, q, 0, o));
    assert_same_rows(want, run_linear(m.w, x, 1), n_out, "wide");
}
END_TEST

/* Stated tolerance: int8 activations cost up to 1.6% of the norm of a row's outputs with
 * outlier channels (engine/cpu/linear.h). */
START_TEST(results_are_within_the_stated_error_of_float64) {
    EACH_INT8(type) {
        const uint32_t n_out = 96, n_in = inputs_for(type, 896), n_rows = 4;
        file_matrix f(type, n_out, n_in, 23);
        device_matrix m(f, type);
        inputs x(CU_BF16, n_rows, n_in, 29);
        assert_near_float64(f, x, run_linear(m.w, x, n_rows), 0.016);
    }
}
END_TEST

START_TEST(every_kind_of_output_and_a_bias) {
    assert_kinds(3);
}
END_TEST

START_TEST(gate_and_up_together_are_the_two_alone) {
    const uint32_t n_out = 56, n_rows = 5;
    EACH_INT8(type)
    for (activation act : {ACT_SILU, ACT_GELU_TANH})
        for (cu_type t : {CU_F16, CU_BF16}) {
            const uint32_t n_in = inputs_for(type, 96);
            file_matrix fg(type, n_out, n_in, 41), fu(type, n_out, n_in, 43);
            device_matrix gate(fg, type), up(fu, type);
            inputs x(t, n_rows, n_in, 47);
            quantized q(x, n_rows);
            const std::vector<float> g = run_linear(gate.w, x, n_rows),
                                     u = run_linear(up.w, x, n_rows);
            guarded_out out(t, n_rows, n_out);
            cu_linear a = linear_of(gate.w, x, n_rows, out, CU_OUT_T), b = a;
            a.in_q = b.in_q = q.bytes.p;
            b.w = up.w;
            const cu_codes none = {};
            CUDA_OK(cu_gate_up_quant_few(0, &a, &b, act, &none));
            const std::vector<float> got = out.get();
            assert_gated(type, t, act, g, u, got);
        }
}
END_TEST

START_TEST(gate_and_up_leave_the_codes_of_their_result_too) {
    EACH_INT8(type)
    for (uint32_t n_out : {64u, 192u}) {
        const uint32_t n_rows = 8, n_in = inputs_for(type, 96);
        const cu_type t = n_out == 64 ? CU_F16 : CU_BF16;
        file_matrix fg(type, n_out, n_in, 41), fu(type, n_out, n_in, 43);
        device_matrix gate(fg, type), up(fu, type);
        inputs x(t, n_rows, n_in, 47);
        quantized q(x, n_rows);
        guarded_out out(t, n_rows, n_out, 8);
        cu_linear a = linear_of(gate.w, x, n_rows, out, CU_OUT_T), b = a;
        a.in_q = b.in_q = q.bytes.p;
        b.w = up.w;
        device<uint8_t> got(cu_quantized_bytes(n_rows, n_out)), want(got.n);
        device<uint32_t> arrived(std::vector<uint32_t>(n_out / 32));
        const cu_codes codes = {got.p, arrived.p};
        CUDA_OK(cu_gate_up_quant_few(0, &a, &b, ACT_SILU, &codes));
        CUDA_OK(cu_quantize(0, t, n_rows, n_out, a.ld_out, a.out, want.p));
        ck_assert(got.get() == want.get());
        for (uint32_t count : arrived.get()) ck_assert_uint_eq(count, 0);
    }
}
END_TEST

/* Their codes are no integers: linear_packed.cu takes them, in any number of rows. */
START_TEST(f8_meets_activations_of_16_bits) {
    file_matrix f(CU_F8, 40, 96, 7);
    device_matrix m(f, CU_F8);
    inputs x(CU_BF16, 3, 96, 8);
    assert_same_rows(run_linear(m.w, x, 3, nullptr, CU_OUT_F32, true), run_linear(m.w, x, 3),
                     3 * 40, "F8");
}
END_TEST

START_TEST(a_nan_reaches_every_output_of_its_row_and_no_other_row) {
    assert_nan_stays(DT_Q4_0, CU_F16, 3, 160, 1);
}
END_TEST

START_TEST(what_cannot_be_done_is_refused_and_nothing_is_done_for_no_rows) {
    file_matrix f(DT_Q4_0, 16, 64, 3);
    device_matrix m(f, DT_Q4_0);
    inputs x(CU_F16, 9, 64, 4);
    guarded_out out(CU_F32, 9, 16);
    cu_linear l = linear_of(m.w, x, 0, out, CU_OUT_F32);
    CUDA_OK(cu_linear_quant(0, &l));
    cu_codes codes = {};
    CUDA_OK(cu_gate_up_quant_few(0, &l, &l, ACT_SILU, &codes));
    CUDA_OK(cu_quantize(0, CU_F16, 0, 64, 64, x.on_device.p, out.bytes.p));
    ck_assert(cu_quantize(0, CU_F16, 9, 64, 64, x.on_device.p, out.bytes.p) ==
              cudaErrorInvalidValue);
    l.n_rows = 1;
    ck_assert(cu_gate_up_quant_few(0, &l, &l, ACT_SILU, &codes) ==
              cudaErrorInvalidValue); /* F32 */
    l.kind = CU_OUT_T, codes.codes = out.bytes.p;
    ck_assert(cu_gate_up_quant_few(0, &l, &l, ACT_SILU, &codes) ==
              cudaErrorInvalidValue); /* 16 outputs */
    l.w.type = DT_F16;
    ck_assert(cu_linear_quant(0, &l) == cudaErrorInvalidValue);
    for (float v : out.get()) SWEEP(v == OUT_BEFORE);
}
END_TEST

CHECK_MAIN("quant_few", activations_are_quantised_as_on_the_cpu,
           nan_infinity_and_zero_are_quantised_as_on_the_cpu,
           every_output_is_the_documented_sum_bit_for_bit,
           matrices_with_many_outputs_have_the_same_bits,
           results_are_within_the_stated_error_of_float64, every_kind_of_output_and_a_bias,
           gate_and_up_together_are_the_two_alone,
           gate_and_up_leave_the_codes_of_their_result_too, f8_meets_activations_of_16_bits,
           a_nan_reaches_every_output_of_its_row_and_no_other_row,
           what_cannot_be_done_is_refused_and_nothing_is_done_for_no_rows)
