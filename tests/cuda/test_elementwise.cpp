/* Operations on single elements against their formulas in double precision. */
#include "tests/cuda/rig.h"

START_TEST(a_residual_stream_is_rounded) {
    ALL_TYPES(t) for (uint32_t n : {8u, 4104u}) {
        rng r = {n};
        const std::vector<float> in = r.normals(n, 3);
        device<float> di(in);
        device<uint16_t> out(n);
        CUDA_OK(cu_round(0, t, n, di.p, out.p));
        const std::vector<uint16_t> got = out.get();
        for (uint32_t i = 0; i < n; i++) SWEEP(got[i] == to_16(t, in[i]));
    }
}
END_TEST

START_TEST(a_residual_stream_is_scaled_where_it_stands) {
    rng r = {1};
    const std::vector<float> in = r.normals(1000);
    device<float> x(in), by(std::vector<float>{0.37f});
    CUDA_OK(cu_scale(0, in.size(), x.p, by.p, x.p));
    const std::vector<float> got = x.get();
    for (size_t i = 0; i < in.size(); i++) SWEEP(got[i] == in[i] * 0.37f);
}
END_TEST

START_TEST(logits_are_scaled_and_capped) {
    rng r = {2};
    std::vector<float> in = r.normals(1001, 20);
    in[0] = 0, in[1] = 1e6f, in[2] = -1e6f, in[3] = 1e-4f, in[4] = NAN;
    for (float cap : {0.0f, 3.0f, 30.0f}) {
        device<float> x(in);
        CUDA_OK(cu_cap(0, in.size(), 0.5f, cap, x.p));
        const std::vector<float> got = x.get();
        for (size_t i = 0; i < in.size(); i++) {
            const double scaled = 0.5 * in[i],
                         want = cap > 0 ? cap * tanh(scaled / cap) : scaled;
            if (isnan(in[i]))
                SWEEP(isnan(got[i]));
            else
                SWEEP(fabs(got[i] - want) <= 4e-7 * (cap + fabs(want)));
        }
    }
}
END_TEST

START_TEST(a_value_is_multiplied_by_the_sigmoid_of_another) {
    ALL_TYPES(t)
    for (bool add : {false, true})
        for (uint32_t n_by : {1u, 72u}) {
            const uint32_t n_rows = 3, n = 72;
            rng r = {n_by};
            const std::vector<uint16_t> in = all_to_16(t, r.normals(n_rows * n)),
                                        by = all_to_16(t, r.normals(n_rows * n_by, 4));
            const std::vector<float> before = r.normals(in.size());
            device<uint16_t> di(in), db(by), rounded(in.size());
            device<float> sum(before);
            void *out = add ? (void *)sum.p : (void *)rounded.p;
            CUDA_OK(cu_mul_sigmoid(0, t, n_rows, n, di.p, db.p, n_by, out,
                                   add ? CU_OUT_ADD : CU_OUT_T));
            const std::vector<float> got = add ? sum.get() : all_from_16(t, rounded.get());
            for (uint32_t i = 0; i < n_rows * n; i++) {
                const double g = from_16(t, by[n_by == 1 ? i / n : i]),
                             y = from_16(t, in[i]) / (1 + exp(-g));
                if (add)
                    SWEEP(fabs(got[i] - (before[i] + y)) <= 1e-6 * (1 + fabs(y)));
                else
                    SWEEP(fabs(got[i] - y) <= rounding_of(t, y) + 1e-7 * fabs(y));
            }
        }
}
END_TEST

START_TEST(queries_far_on_are_multiplied_by_their_temperature) {
    ALL_TYPES(t) {
        const uint32_t n = 72, ld = 96, len = 16;
        const std::vector<int32_t> pos = {0, 15, 16, 31, 32, 1000, -1};
        rng r = {6};
        const std::vector<uint16_t> v = all_to_16(t, r.normals(pos.size() * ld));
        device<uint16_t> dv(v);
        device<int32_t> dp(pos);
        cu_tables tables = {};
        tables.pos = dp.p;
        CUDA_OK(cu_temper(0, t, &tables, (uint32_t)pos.size(), n, ld, 0.5f, len, dv.p));
        const std::vector<uint16_t> got = dv.get();
        for (size_t i = 0; i < v.size(); i++) {
            const int32_t at = pos[i / ld];
            if (at < (int32_t)len || i % ld >= n) {
                SWEEP(got[i] == v[i]);
                continue;
            }
            const double want = from_16(t, v[i]) * (1 + 0.5 * log1p(at / (int32_t)len));
            SWEEP(fabs(from_16(t, got[i]) - want) <= rounding_of(t, want));
        }
    }
}
END_TEST

START_TEST(shapes_that_no_kernel_takes_are_refused) {
    cu_tables t = {};
    ck_assert_int_eq(cu_round(0, CU_F16, 12, NULL, NULL), cudaErrorInvalidValue);
    ck_assert_int_eq(cu_mul_sigmoid(0, CU_F16, 1, 8, NULL, NULL, 4, NULL, CU_OUT_T),
                     cudaErrorInvalidValue);
    ck_assert_int_eq(cu_temper(0, CU_F16, &t, 1, 12, 16, 1, 16, NULL), cudaErrorInvalidValue);
    ck_assert_int_eq(cu_temper(0, CU_F16, &t, 1, 8, 16, 1, 0, NULL), cudaErrorInvalidValue);
    ck_assert_int_eq(cu_cap(0, 0, 1, 0, NULL), cudaSuccess);
}
END_TEST

CHECK_MAIN("elementwise", a_residual_stream_is_rounded,
           a_residual_stream_is_scaled_where_it_stands, logits_are_scaled_and_capped,
           a_value_is_multiplied_by_the_sigmoid_of_another,
           queries_far_on_are_multiplied_by_their_temperature,
           shapes_that_no_kernel_takes_are_refused)
