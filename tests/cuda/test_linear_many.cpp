/* Tests of linear_many_sm90a.cu: packed weights, rounded once to T, for many rows. Against float64 on the rounded weights;
 * a row's bits in every number of rows and in every tile; gate and up. On a device of another compute
 * capability there is nothing to test. */
#include "tests/cuda/linear_rig.h"

#include "engine/cuda/linear_many.h"

static std::vector<float> run_many(const cu_matrix &w, const inputs &x, uint32_t n_rows,
                                   cu_out kind = CU_OUT_F32, const float *bias = nullptr) {
    guarded_out out(kind == CU_OUT_T ? x.t : CU_F32, n_rows, w.n_out);
    cu_linear l = linear_of(w, x, n_rows, out, kind);
    l.bias = bias;
    CUDA_OK(cu_linear_many(0, &l));
    return out.get();
}

static std::vector<float> some_bias(uint32_t n_out) {
    std::vector<float> bias(n_out);
    for (uint32_t o = 0; o < n_out; o++) bias[o] = 0.125f * (float)(o % 7) - 0.25f;
    return bias;
}

/* Rows, outputs, inputs: less than a tile; a chunk that ends in its middle; more stages than the ring has; several
 * tiles of each size, the last ones short. */
static const uint32_t shapes[][3] = {
    {65, 40, 96}, {3, 1, 32}, {70, 72, 1120}, {129, 300, 96}, {200, 130, 160}};

START_TEST(results_are_the_products_of_the_rounded_weights_in_every_kind_of_output) {
    if (!cu_linear_many_runs()) return;
    for (dtype type : packed_types)
        for (auto &s : shapes) {
            if (cu_matrix_is_float(type)) continue; /* its scales lie apart: other kernels */
            const cu_type t = (s[0] + type) % 2 ? CU_F16 : CU_BF16;
            const uint32_t n_in = inputs_for(type, s[2]);
            file_matrix f(type, s[1], n_in, 8);
            device_matrix m(f, type);
            inputs x(t, s[0], n_in, 9);
            const std::vector<float> bias = some_bias(s[1]);
            device<float> b(bias);
            const cu_out kind = (cu_out)((s[0] + s[1]) % 3);
            assert_products(f, x, kind, bias, run_many(m.w, x, s[0], kind, b.p), 7);
        }
}
END_TEST

/* The largest tiles come with many outputs and rows, the smallest with few. */
START_TEST(every_tile_gives_the_same_bits) {
    if (!cu_linear_many_runs()) return;
    for (cu_type t : {CU_F16, CU_BF16}) {
        const dtype type = t == CU_F16 ? DT_Q4_0 : DT_Q8_0;
        const uint32_t n_out = 72, n_in = 64;
        file_matrix f(type, 4400, n_in, 21);
        device_matrix large(f, type);
        file_matrix few(type, n_out, n_in, 21); /* the same blocks */
        device_matrix m(few, type);
        inputs x(t, 1030, n_in, 22);
        const std::vector<float> all = run_many(large.w, x, 1030),
                                 some = run_many(m.w, x, 1030);
        for (uint32_t r = 0; r < 1030; r++)
            for (uint32_t o = 0; o < n_out; o++)
                SWEEP(bits_of_float(all[(size_t)r * 4400 + o]) ==
                      bits_of_float(some[(size_t)r * n_out + o]));
        for (uint32_t n_rows : {1u, 64u, 65u, 300u})
            assert_same_rows(some, run_many(m.w, x, n_rows), n_rows * n_out, dtype_name(type));
        assert_products(few, x, CU_OUT_F32, std::vector<float>(n_out), some, 101);
    }
}
END_TEST

START_TEST(gate_and_up_together_are_the_two_alone) {
    static const uint32_t sizes[][3] = {{70, 40, 96}, {129, 144, 160}};
    if (!cu_linear_many_runs()) return;
    for (dtype type : packed_types)
        for (auto &s : sizes) {
            if (cu_matrix_is_float(type)) continue;
            const cu_type t = (s[0] + type) % 2 ? CU_F16 : CU_BF16;
            const activation act = s[0] == 70 ? ACT_GELU_TANH : ACT_SILU;
            const uint32_t n_in = inputs_for(type, s[2]);
            file_matrix f(type, s[1], n_in, 81), h(type, s[1], n_in, 82);
            device_matrix gate(f, type), up(h, type);
            inputs x(t, s[0], n_in, 83);
            device<float> bias(some_bias(s[1]));
            const std::vector<float> g = run_many(gate.w, x, s[0], CU_OUT_F32, bias.p),
                                     u = run_many(up.w, x, s[0]);
            guarded_out out(t, s[0], s[1]);
            cu_linear a = linear_of(gate.w, x, s[0], out, CU_OUT_T), b = a;
            a.bias = bias.p, b.w = up.w;
            CUDA_OK(cu_gate_up_many(0, &a, &b, act));
            assert_gated(type, t, act, g, u, out.get());
        }
}
END_TEST

START_TEST(a_nan_stays_in_its_row) {
    if (!cu_linear_many_runs()) return;
    const auto run = [](const cu_matrix &w, const inputs &x, uint32_t n) {
        return run_many(w, x, n);
    };
    assert_nan_stays(run, DT_Q4_1, CU_BF16, 70, 96, 11);
}
END_TEST

START_TEST(what_cannot_be_done_is_refused_and_nothing_is_done_for_no_rows) {
    assert_refusals(cu_linear_many, cu_gate_up_many);
}
END_TEST

CHECK_MAIN("linear_many",
           results_are_the_products_of_the_rounded_weights_in_every_kind_of_output,
           every_tile_gives_the_same_bits, gate_and_up_together_are_the_two_alone,
           a_nan_stays_in_its_row,
           what_cannot_be_done_is_refused_and_nothing_is_done_for_no_rows)
