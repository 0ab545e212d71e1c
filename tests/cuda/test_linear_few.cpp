/* Linear layers of few rows against double precision, and the promise that a row's bits do not
 * depend on the rows beside it. */
#include "tests/cuda/rig.h"

/* The weights, biases and activations of one case; in rows lie ld apart, with NaN between. */
struct layer {
    cu_type t;
    uint32_t n_out, n_in, ld;
    std::vector<uint16_t> w, x;
    std::vector<float> bias;
    device<uint16_t> dw, dx;
    device<float> db;
    layer(cu_type t, uint32_t n_out, uint32_t n_in, uint64_t seed)
        : t(t), n_out(n_out), n_in(n_in), ld(n_in + 16), dw((size_t)n_out * n_in),
          dx((size_t)CU_FEW_ROWS * ld), db(n_out) {
        rng r = {seed};
        w = all_to_16(t, r.normals((size_t)n_out * n_in, 1 / sqrtf((float)n_in)));
        x = all_to_16(t, r.normals((size_t)CU_FEW_ROWS * ld));
        bias = r.normals(n_out);
        for (uint32_t i = 0; i < CU_FEW_ROWS; i++)
            for (uint32_t c = n_in; c < ld; c++) x[(size_t)i * ld + c] = 0x7fff;
        dw.put(w), dx.put(x), db.put(bias);
    }
    double want(uint32_t row, uint32_t o, bool with_bias) const {
        double sum = with_bias ? bias[o] : 0;
        for (uint32_t k = 0; k < n_in; k++)
            sum += (double)from_16(t, w[(size_t)o * n_in + k]) *
                   from_16(t, x[(size_t)row * ld + k]);
        return sum;
    }
    cu_linear call(uint32_t n_rows, bool with_bias, void *out, uint32_t ld_out, cu_out kind) {
        cu_linear l = {};
        l.w.data = dw.p, l.w.type = t == CU_F16 ? DT_F16 : DT_BF16;
        l.w.n_out = n_out, l.w.n_in = n_in;
        l.bias = with_bias ? db.p : NULL, l.t = t, l.n_rows = n_rows, l.in = dx.p, l.ld_in = ld;
        l.out = out, l.ld_out = ld_out, l.kind = kind;
        return l;
    }
};

/* Sums of n_in products of size 1 / sqrt(n_in), in float32 by tensor cores. */
static const double SUM_ERROR = 4e-6;

static void check_layer(layer &l, uint32_t n_rows, cu_out kind, bool with_bias) {
    const uint32_t ld_out = l.n_out + 3;
    const size_t n = (size_t)n_rows * ld_out;
    const std::vector<float> before(n, 0.75f);
    device<float> wide(before);
    device<uint16_t> narrow(all_to_16(l.t, before));
    const bool is_t = kind == CU_OUT_T;
    const cu_linear call =
        l.call(n_rows, with_bias, is_t ? (void *)narrow.p : wide.p, ld_out, kind);
    CUDA_OK(cu_linear_few(0, &call));
    const std::vector<float> got = is_t ? all_from_16(l.t, narrow.get()) : wide.get();
    for (uint32_t i = 0; i < n_rows; i++)
        for (uint32_t o = 0; o < ld_out; o++) {
            const double g = got[(size_t)i * ld_out + o];
            if (o >= l.n_out) {
                SWEEP(g == 0.75);
                continue;
            }
            const double want = l.want(i, o, with_bias) + (kind == CU_OUT_ADD ? 0.75 : 0);
            SWEEP(fabs(g - want) <= SUM_ERROR + rounding_of(is_t ? l.t : CU_F32, want));
        }
}

START_TEST(outputs_are_as_in_double_precision) {
    static const uint32_t shapes[][2] = {{1, 8},     {17, 24},   {16, 32},   {31, 576},
                                         {96, 896},  {48, 1032}, {20, 4096}, {5, 8968},
                                         {40, 1920}, {64, 128}};
    ALL_TYPES(t) for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        layer l(t, shapes[s][0], shapes[s][1], s);
        for (uint32_t n_rows : {1u, 2u, 5u, 8u})
            check_layer(l, n_rows, (cu_out)((s + n_rows) % 3), (s + n_rows) % 2);
    }
}
END_TEST

START_TEST(wide_layers_take_two_tiles_a_block) {
    layer l(CU_BF16, 8208, 40, 1);
    for (uint32_t n_rows : {4u, 5u, 8u}) check_layer(l, n_rows, CU_OUT_F32, true);
}
END_TEST

/* n_rows rows of l, as float32. */
static std::vector<float> outputs(layer &l, uint32_t n_rows) {
    device<float> out((size_t)n_rows * l.n_out);
    const cu_linear call = l.call(n_rows, true, out.p, l.n_out, CU_OUT_F32);
    CUDA_OK(cu_linear_few(0, &call));
    return out.get();
}

START_TEST(a_row_has_the_same_bits_for_any_number_of_rows) {
    ALL_TYPES(t) for (uint32_t n_out : {40u, 8192u}) {
        layer l(t, n_out, n_out == 40 ? 2600 : 200, n_out);
        const std::vector<float> all = outputs(l, 8);
        for (uint32_t n = 1; n < 8; n++) {
            const std::vector<float> some = outputs(l, n);
            SWEEP(!memcmp(some.data(), all.data(), some.size() * sizeof(float)));
        }
    }
}
END_TEST

START_TEST(gate_and_up_are_fused_as_the_parts_would_be) {
    ALL_TYPES(t)
    for (activation act : {ACT_SILU, ACT_GELU_TANH})
        for (uint32_t n_out : {13u, 96u})
            for (uint32_t n_in : {72u, 1536u})
                for (uint32_t n_rows : {1u, 8u}) {
                    layer gate(t, n_out, n_in, 7), up(t, n_out, n_in, 7);
                    up.dw.put(
                        all_to_16(t, rng{99}.normals(up.w.size(), 1 / sqrtf((float)n_in))));
                    up.w = up.dw.get();
                    device<uint16_t> out((size_t)n_rows * n_out);
                    const bool bias = n_in == 72;
                    const cu_linear g = gate.call(n_rows, bias, out.p, n_out, CU_OUT_T),
                                    u = up.call(n_rows, bias, NULL, 0, CU_OUT_T);
                    CUDA_OK(cu_gate_up_few(0, &g, &u, act));
                    const std::vector<float> got = all_from_16(t, out.get());
                    for (uint32_t i = 0; i < n_rows; i++)
                        for (uint32_t o = 0; o < n_out; o++) {
                            const double a = gate.want(i, o, bias), b = up.want(i, o, bias),
                                         p = 1.5957691216057308 * (a + 0.044715 * a * a * a),
                                         want = a / (1 + exp(act == ACT_SILU ? -a : -p)) * b;
                            SWEEP(fabs(got[i * n_out + o] - want) <=
                                  4 * SUM_ERROR * (1 + fabs(b)) + rounding_of(t, want));
                        }
                }
}
END_TEST

START_TEST(calls_that_the_kernel_cannot_take_are_refused) {
    layer l(CU_F16, 16, 64, 1);
    cu_linear c = l.call(9, false, NULL, 16, CU_OUT_T);
    ck_assert_int_eq(cu_linear_few(0, &c), cudaErrorInvalidValue);
    c.n_rows = 1, c.w.type = DT_BF16;
    ck_assert_int_eq(cu_linear_few(0, &c), cudaErrorInvalidValue);
    c.w.type = DT_F16, c.w.n_in = 60;
    ck_assert_int_eq(cu_linear_few(0, &c), cudaErrorInvalidValue);
    c.w.n_in = 64, c.n_rows = 0;
    ck_assert_int_eq(cu_linear_few(0, &c), cudaSuccess);
}
END_TEST

CHECK_MAIN("linear_few", outputs_are_as_in_double_precision, wide_layers_take_two_tiles_a_block,
           a_row_has_the_same_bits_for_any_number_of_rows,
           gate_and_up_are_fused_as_the_parts_would_be,
           calls_that_the_kernel_cannot_take_are_refused)
