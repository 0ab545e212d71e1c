/* Tests of w8a8.cu, cu_unpack_codes and their way through gemm_packed.cu: e4m3 by e4m3, against
 * definitions in plain C++. */
#include "tests/cuda/library_rig.h"

#include "engine/cuda/w8a8.h"

/* The number of e4m3 next to x, which is at most 448; ties to the even code. */
static uint8_t e4m3_next(float x) {
    uint8_t best = 0;
    for (int c = 1; c < 0x7f; c++) {
        const float off = fabsf(e4m3_of((uint8_t)c) - fabsf(x)),
                    before = fabsf(e4m3_of(best) - fabsf(x));
        if (off < before || (off == before && c % 2 == 0)) best = (uint8_t)c;
    }
    return (uint8_t)(best | (signbit(x) ? 0x80 : 0));
}

struct row_codes {
    float scale;
    std::vector<uint8_t> code;
};
/* As w8a8.cu says. */
static row_codes codes_of_row(const inputs &x, uint32_t row) {
    float most = 0;
    for (uint32_t k = 0; k < x.n_in; k++) most = fmaxf(most, fabsf(x.at(row, k)));
    row_codes r = {most / 448.0f, {}};
    const float by = 448.0f / most;
    for (uint32_t k = 0; k < x.n_in; k++) r.code.push_back(e4m3_next(x.at(row, k) * by));
    return r;
}

struct code_memory {
    device<uint8_t> bytes;
    uint32_t n_rows, n_in;
    code_memory(uint32_t n_rows, uint32_t n_in)
        : bytes(cu_w8a8_codes_bytes(n_rows, n_in)), n_rows(n_rows), n_in(n_in) {}
    float scale(const std::vector<uint8_t> &v, uint32_t row) const {
        float f;
        memcpy(&f, &v[cu_w8a8_scales_at(n_rows, n_in) + 4 * row], 4);
        return f;
    }
};

static std::vector<uint8_t> quantise(const inputs &x, const code_memory &to) {
    cu_linear l = {};
    l.w.n_in = x.n_in, l.t = x.t, l.n_rows = x.n_rows, l.in = x.on_device.p, l.ld_in = x.ld;
    CUDA_OK(cu_w8a8_codes(0, &l, to.bytes.p));
    return to.bytes.get();
}

START_TEST(activations_become_the_nearest_codes_under_the_scale_of_their_row) {
    for (uint32_t n_in : {32u, 96u, 2080u}) ALL_TYPES(t) {
            inputs x(t, 5, n_in, 3);
            const code_memory to(5, n_in);
            const std::vector<uint8_t> got = quantise(x, to);
            for (uint32_t r = 0; r < 5; r++) {
                const row_codes want = codes_of_row(x, r);
                SWEEP(to.scale(got, r) == want.scale);
                for (uint32_t k = 0; k < n_in; k++)
                    SWEEP(got[(size_t)r * n_in + k] == want.code[k]);
            }
        }
}
END_TEST

START_TEST(rows_of_zeros_nan_and_infinity_keep_to_themselves) {
    inputs x(CU_BF16, 4, 64, 3);
    for (uint32_t k = 0; k < 64; k++) x.bits[k] = to_16(CU_BF16, k % 2 ? -0.0f : 1e-37f);
    x.bits[x.ld + 5] = to_16(CU_BF16, NAN);
    x.bits[2 * x.ld + 7] = to_16(CU_BF16, -INFINITY);
    x.on_device.put(x.bits);
    const code_memory to(4, 64);
    const std::vector<uint8_t> got = quantise(x, to);
    for (uint32_t k = 0; k < 64; k++) ck_assert_uint_eq(got[k] & 0x7f, 0);
    ck_assert(to.scale(got, 0) == 0);
    ck_assert_uint_eq(got[64 + 5] & 0x7f, 0x7f);
    ck_assert_uint_eq(got[2 * 64 + 7] & 0x7f, 0x7f);
    const row_codes want = codes_of_row(x, 3);
    for (uint32_t k = 0; k < 64; k++) ck_assert_uint_eq(got[3 * 64 + k], want.code[k]);
}
END_TEST

START_TEST(slices_of_codes_are_the_file_s) {
    static const uint32_t shapes[][4] = {/* outputs, inputs, first row, rows */
                                         {1, 32, 0, 1},
                                         {40, 96, 16, 24},
                                         {130, 160, 64, 66},
                                         {72, 1120, 0, 64}};
    for (dtype type : {CU_F8, F8_128, F8_352})
        for (auto &s : shapes) {
            const uint32_t n_in = inputs_for(type, s[1]), group = dtype_group(type);
            file_matrix f(type, s[0], n_in, 5);
            device_matrix m(f, type);
            device<uint8_t> out((size_t)s[3] * n_in);
            CUDA_OK(cu_unpack_codes(0, &m.w, s[2], s[3], out.p));
            const std::vector<uint8_t> got = out.get();
            for (uint32_t o = 0; o < s[3]; o++)
                for (uint32_t k = 0; k < n_in; k++) {
                    const size_t at = (size_t)(s[2] + o) * n_in + k;
                    SWEEP(got[(size_t)o * n_in + k] ==
                          f.raw[at / group * (group + 4) + 4 + at % group]);
                }
            ck_assert(cu_unpack_codes(0, &m.w, 8, 1, out.p) == cudaErrorInvalidValue);
        }
}
END_TEST

/* ---- the layer ---- */

static dtype one_scale(uint32_t n_in) {
    return dtype_grouped(DT_F8, DT_F32, n_in);
}

/* By slices of so many outputs at most. */
static std::vector<float> run_w8a8(const library &lib, const cu_matrix &w, const inputs &x,
                                   uint32_t slice, cu_out kind, bool tuned) {
    guarded_out out(kind == CU_OUT_T ? x.t : CU_F32, x.n_rows, w.n_out,
                    8 + (8 - w.n_out % 8) % 8);
    guarded_out other(out.type, x.n_rows, w.n_out, 8 + (8 - w.n_out % 8) % 8);
    device<uint8_t> memory(cu_w8a8_slice_bytes(slice, w.n_in, x.n_rows));
    const code_memory codes(x.n_rows, w.n_in);
    const gemm_scratch scratch = {memory.p, memory.n, codes.bytes.p, x.n_rows};
    cu_linear l = linear_of(w, x, x.n_rows, other, kind);
    err e;
    ck_assert(gemm_takes_packed(&l) && gemm_takes_codes(&l, &scratch));
    if (tuned) ck_assert_msg(gemm_tune_packed(lib.lt, 0, &l, &scratch, &e) == OK, "%s", e.text);
    l.out = out.bytes.p;
    CUDA_OK(gemm_run_packed(lib.lt, 0, &l, &scratch));
    return out.get();
}

/* |y - want| <= 2e-6 * sum |c w| * s * d, and the roundings of two scales and of what is stored. */
static void assert_products_of_codes(const file_matrix &f, const inputs &x, cu_out kind,
                                     const std::vector<float> &got) {
    for (uint32_t r = 0; r < x.n_rows; r += 7) {
        const row_codes row = codes_of_row(x, r);
        for (uint32_t o = 0; o < f.n_out; o++) {
            double y = 0, size = 0;
            for (uint32_t k = 0; k < f.n_in; k++) {
                const double p = (double)f.code(o, k) * e4m3_of(row.code[k]);
                y += p, size += fabs(p);
            }
            const double by = (double)row.scale * f.d(o, 0);
            const double want = y * by + (kind == CU_OUT_ADD ? OUT_BEFORE : 0),
                         off = fabs(got[(size_t)r * f.n_out + o] - want);
            if (!(off <= 2e-6 * size * fabs(by) + 0x1p-22 * fabs(y * by) +
                             rounding_of(kind == CU_OUT_T ? x.t : CU_F32, want)))
                ck_abort_msg("kind %d: [%u][%u] %g, not %g", kind, r, o,
                             got[(size_t)r * f.n_out + o], want);
        }
    }
}

START_TEST(layers_are_the_products_of_codes_in_every_kind_of_output) {
    /* rows, outputs, inputs, outputs of a slice at most */
    static const uint32_t shapes[][4] = {
        {65, 48, 96, 64}, {70, 256, 160, 128}, {130, 336, 96, 128}, {65, 80, 1120, 64}};
    const library lib;
    for (auto &s : shapes) {
        file_matrix f(one_scale(s[2]), s[1], s[2], 8);
        device_matrix m(f, f.type);
        inputs x(s[0] % 2 ? CU_F16 : CU_BF16, s[0], s[2], 9);
        for (cu_out kind : {CU_OUT_T, CU_OUT_F32, CU_OUT_ADD})
            for (bool tuned : {false, true})
                assert_products_of_codes(f, x, kind, run_w8a8(lib, m.w, x, s[3], kind, tuned));
    }
}
END_TEST

/* What three bits behind the point lose on both sides. */
START_TEST(the_error_against_activations_of_16_bits_is_a_few_percent) {
    const library lib;
    file_matrix f(one_scale(896), 96, 896, 23);
    device_matrix m(f, f.type);
    inputs x(CU_BF16, 72, 896, 29);
    assert_near_float64(f, x, run_w8a8(lib, m.w, x, 96, CU_OUT_F32, true), 0.05);
}
END_TEST

START_TEST(other_groups_shapes_and_rows_stay_in_16_bits) {
    cu_linear l = {};
    l.w.type = one_scale(64), l.w.n_out = l.w.n_in = 64;
    l.n_rows = 65, l.ld_out = 72, l.kind = CU_OUT_T;
    gemm_scratch s = {&l, 1 << 20, &l, 100};
    ck_assert(gemm_takes_codes(&l, &s));
    cu_linear x = l;
    x.n_rows = 64;
    ck_assert(!gemm_takes_codes(&x, &s));
    x.n_rows = 101;
    ck_assert(!gemm_takes_codes(&x, &s));
    x = l, x.same_bits = true;
    ck_assert(!gemm_takes_codes(&x, &s));
    x = l, x.w.n_out = 72;
    ck_assert(!gemm_takes_codes(&x, &s));
    x = l, x.w.n_in = 128; /* of which 64 share a scale */
    ck_assert(!gemm_takes_codes(&x, &s));
    x = l, x.w.type = DT_Q8_0;
    ck_assert(!gemm_takes_codes(&x, &s));
    s.codes = NULL;
    ck_assert(!gemm_takes_codes(&l, &s));
}
END_TEST

START_TEST(slices_fit_their_memory) {
    for (uint32_t n_out : {16u, 64u, 80u, 1024u, 14336u})
        for (uint32_t n_in : {64u, 4096u})
            for (uint32_t rows : {65u, 8192u})
                for (uint64_t bytes : {(uint64_t)0, (uint64_t)1 << 20, (uint64_t)48 << 20}) {
                    const uint32_t n = cu_w8a8_slice(n_out, n_in, rows, bytes);
                    ck_assert(n == n_out || (n % CU_STORE_ROWS == 0 && n < n_out));
                    ck_assert(n <= CU_STORE_ROWS ||
                              cu_w8a8_slice_bytes(n, n_in, rows) <= bytes);
                }
}
END_TEST

CHECK_MAIN("w8a8", activations_become_the_nearest_codes_under_the_scale_of_their_row,
           rows_of_zeros_nan_and_infinity_keep_to_themselves, slices_of_codes_are_the_file_s,
           layers_are_the_products_of_codes_in_every_kind_of_output,
           the_error_against_activations_of_16_bits_is_a_few_percent,
           other_groups_shapes_and_rows_stay_in_16_bits, slices_fit_their_memory)
