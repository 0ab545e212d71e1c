/* Embedding, gather, norms and the gate against their formulas in double precision. */
#include "tests/cuda/rig.h"

static const uint32_t widths[] = {8, 64, 72, 576, 896, 4096, 5120, 8200, 16392};

START_TEST(embedding_reads_the_rows_of_tokens_and_of_what_was_drawn) {
    const uint32_t n_vocab = 37, n_rows = 9;
    ALL_TYPES(t) for (uint32_t cols : {8u, 576u, 4104u}) {
        rng r = {cols};
        const std::vector<uint16_t> w = all_to_16(t, r.normals((size_t)n_vocab * cols));
        const std::vector<int32_t> token = {0, 36, 5, 37, -1, 7, 7, 2147483647, 1},
                                   from = {-1, -1, 0, -1, -1, 2, 1, -1, -1},
                                   previous = {11, -1, 36};
        const uint32_t want[] = {0, 36, 11, 0, 0, 36, 0, 0, 1};
        device<uint16_t> dw(w);
        device<int32_t> dt(token), df(from), dp(previous);
        device<float> out((size_t)n_rows * cols);
        cu_tables tables = {};
        tables.token = dt.p, tables.from = df.p, tables.previous = dp.p;
        const cu_matrix m = {dw.p, t == CU_F16 ? DT_F16 : DT_BF16, n_vocab, cols};
        CUDA_OK(cu_embed(0, &m, &tables, n_rows, 0.5f, out.p));
        const std::vector<float> got = out.get();
        for (uint32_t i = 0; i < n_rows; i++)
            for (uint32_t c = 0; c < cols; c++)
                SWEEP(got[i * cols + c] == 0.5f * from_16(t, w[want[i] * cols + c]));
    }
}
END_TEST

START_TEST(gather_copies_the_rows_asked_for) {
    for (uint32_t cols : {8u, 576u, 4104u}) {
        rng r = {cols};
        const std::vector<float> in = r.normals((size_t)12 * cols);
        const std::vector<int32_t> rows = {11, 3, 3, 0};
        device<float> din(in), out(4 * (size_t)cols);
        device<int32_t> dr(rows);
        cu_tables tables = {};
        tables.gathered = dr.p;
        CUDA_OK(cu_gather(0, &tables, 4, cols, din.p, out.p));
        const std::vector<float> got = out.get();
        for (uint32_t i = 0; i < 4; i++)
            SWEEP(!memcmp(&got[i * cols], &in[rows[i] * cols], cols * sizeof(float)));
    }
}
END_TEST

/* Bytes of two results of cu_quantize for rows of n_in columns, all of whose rows are there. */
static void assert_same_codes(const device<uint8_t> &a, const device<uint8_t> &b) {
    const std::vector<uint8_t> x = a.get(), y = b.get();
    SWEEP(memcmp(x.data(), y.data(), x.size()) == 0);
}

START_TEST(a_norm_leaves_the_codes_that_quantising_it_gives) {
    ALL_TYPES(t) for (uint32_t cols : {32u, 64u, 96u, 576u, 4096u, 5120u, 8224u, 16416u}) {
        const uint32_t n_rows = 8; /* with fewer the others are undefined */
        rng r = {cols};
        std::vector<float> x = r.normals((size_t)n_rows * cols, 3);
        x[5] = NAN, x[cols] = 1e30f;
        for (uint32_t c = 0; c < cols; c++) x[2 * cols + c] = 0;
        device<float> dx(x), dw(r.normals(cols));
        device<uint16_t> out(x.size());
        for (const float *w : {(const float *)dw.p, (const float *)NULL}) {
            device<uint8_t> got(cu_quantized_bytes(n_rows, cols)), want(got.n);
            const cu_norm norm = {t, n_rows, 1e-5f, w};
            CUDA_OK(cudaMemset(got.p, 0, got.n));
            CUDA_OK(cudaMemset(want.p, 0, want.n));
            CUDA_OK(cu_row_norm(0, &norm, cols, CU_F32, dx.p, out.p, CU_OUT_T));
            CUDA_OK(cu_quantize(0, t, n_rows, cols, cols, out.p, want.p));
            CUDA_OK(cu_row_norm_codes(0, &norm, cols, dx.p, got.p));
            assert_same_codes(got, want);
        }
    }
    const cu_norm many = {CU_F16, 9, 0, NULL}, none = {CU_F16, 0, 0, NULL};
    ck_assert(cu_row_norm_codes(0, &many, 64, NULL, NULL) == cudaErrorInvalidValue);
    ck_assert(cu_row_norm_codes(0, &none, 48, NULL, NULL) == cudaErrorInvalidValue);
    CUDA_OK(cu_row_norm_codes(0, &none, 64, NULL, NULL));
}
END_TEST

START_TEST(the_norm_of_a_row_is_as_the_formula_says) {
    ALL_TYPES(t) for (uint32_t cols : widths) {
        const uint32_t n_rows = 3;
        rng r = {cols};
        const std::vector<float> x = r.normals((size_t)n_rows * cols, 3), w = r.normals(cols);
        device<float> dx(x), dw(w);
        device<uint16_t> out(x.size());
        const cu_norm norm = {t, n_rows, 1e-5f, dw.p};
        CUDA_OK(cu_row_norm(0, &norm, cols, CU_F32, dx.p, out.p, CU_OUT_T));
        const std::vector<float> got = all_from_16(t, out.get());
        for (uint32_t i = 0; i < n_rows; i++) {
            double squares = 0;
            for (uint32_t c = 0; c < cols; c++)
                squares += (double)x[i * cols + c] * x[i * cols + c];
            const double scale = 1 / sqrt(squares / cols + 1e-5f);
            for (uint32_t c = 0; c < cols; c++) {
                const double want = x[i * cols + c] * scale * w[c];
                SWEEP(fabs(got[i * cols + c] - want) <= rounding_of(t, want));
            }
        }
    }
}
END_TEST

START_TEST(a_norm_may_be_added_to_the_residual_stream) {
    ALL_TYPES(t) for (uint32_t cols : widths) {
        const uint32_t n_rows = 3;
        rng r = {cols};
        const std::vector<uint16_t> x = all_to_16(t, r.normals((size_t)n_rows * cols, 3));
        const std::vector<float> w = r.normals(cols), before = r.normals(x.size(), 5);
        device<uint16_t> dx(x);
        device<float> dw(w), out(before);
        const cu_norm norm = {t, n_rows, 1e-5f, dw.p};
        CUDA_OK(cu_row_norm(0, &norm, cols, t, dx.p, out.p, CU_OUT_ADD));
        const std::vector<float> got = out.get();
        for (uint32_t i = 0; i < n_rows; i++) {
            double squares = 0;
            for (uint32_t c = 0; c < cols; c++) squares += pow(from_16(t, x[i * cols + c]), 2);
            const double scale = 1 / sqrt(squares / cols + 1e-5f);
            for (uint32_t c = 0; c < cols; c++) {
                const double y = from_16(t, x[i * cols + c]) * scale * w[c],
                             want = before[i * cols + c] + y;
                SWEEP(fabs(got[i * cols + c] - want) <= 1e-6 * (fabs(y) + fabs(want)) + 1e-30);
            }
        }
    }
}
END_TEST

/* Each form of input and output has the sums of float32 inputs and outputs, rounded where it is of T. */
START_TEST(norms_of_every_form_are_the_same_norm) {
    ALL_TYPES(t) {
        const uint32_t cols = 72;
        rng r = {3};
        const std::vector<uint16_t> x = all_to_16(t, r.normals(cols, 3));
        const std::vector<float> xf = all_from_16(t, x), w = r.normals(cols),
                                 before = r.normals(cols);
        device<uint16_t> dx(x), to(cols);
        device<float> df(xf), dw(w), out(cols), sum(before);
        const cu_norm norm = {t, 1, 1e-5f, dw.p};
        CUDA_OK(cu_row_norm(0, &norm, cols, t, dx.p, out.p, CU_OUT_F32));
        const std::vector<float> want = out.get();
        CUDA_OK(cu_row_norm(0, &norm, cols, CU_F32, df.p, out.p, CU_OUT_F32));
        CUDA_OK(cu_row_norm(0, &norm, cols, CU_F32, df.p, sum.p, CU_OUT_ADD));
        CUDA_OK(cu_row_norm(0, &norm, cols, t, dx.p, to.p, CU_OUT_T));
        const std::vector<float> same = out.get(), added = sum.get(),
                                 rounded = all_from_16(t, to.get());
        for (uint32_t c = 0; c < cols; c++) {
            SWEEP(same[c] == want[c] && added[c] == want[c] + before[c]);
            SWEEP(rounded[c] == from_16(t, to_16(t, want[c])));
        }
    }
}
END_TEST

START_TEST(an_embedding_may_be_added_to_a_value) {
    const uint32_t n_vocab = 5, n_rows = 3, cols = 72;
    ALL_TYPES(t) {
        rng r = {7};
        const std::vector<uint16_t> w = all_to_16(t, r.normals((size_t)n_vocab * cols)),
                                    in = all_to_16(t, r.normals((size_t)n_rows * cols));
        device<uint16_t> dw(w), din(in), out(in.size());
        device<int32_t> dt(std::vector<int32_t>{4, 9, 1}), df(std::vector<int32_t>{-1, -1, 0}),
            dp(std::vector<int32_t>{3});
        const uint32_t want[] = {4, 0, 3};
        cu_tables tables = {};
        tables.token = dt.p, tables.from = df.p, tables.previous = dp.p;
        const cu_matrix m = {dw.p, t == CU_F16 ? DT_F16 : DT_BF16, n_vocab, cols};
        CUDA_OK(cu_embed_add(0, &m, &tables, n_rows, 4.0f, t, din.p, out.p));
        const std::vector<float> got = all_from_16(t, out.get());
        for (uint32_t i = 0; i < n_rows; i++)
            for (uint32_t c = 0; c < cols; c++) {
                const double sum = ((double)from_16(t, in[i * cols + c]) +
                                    4.0 * from_16(t, w[want[i] * cols + c])) /
                                   sqrt(2.0);
                SWEEP(fabs(got[i * cols + c] - sum) <= rounding_of(t, sum) + 1e-6);
            }
    }
}
END_TEST

START_TEST(a_row_has_the_same_norm_whatever_rows_are_beside_it) {
    const uint32_t cols = 5120;
    rng r = {5};
    const std::vector<float> one = r.normals(cols), w = r.normals(cols);
    std::vector<float> many = r.normals(7 * cols);
    memcpy(&many[4 * cols], one.data(), cols * sizeof(float));
    device<float> da(one), db(many), dw(w);
    device<uint16_t> oa(cols), ob(7 * cols);
    const cu_norm first = {CU_BF16, 1, 1e-6f, dw.p}, second = {CU_BF16, 7, 1e-6f, dw.p};
    CUDA_OK(cu_row_norm(0, &first, cols, CU_F32, da.p, oa.p, CU_OUT_T));
    CUDA_OK(cu_row_norm(0, &second, cols, CU_F32, db.p, ob.p, CU_OUT_T));
    const std::vector<uint16_t> alone = oa.get(), among = ob.get();
    ck_assert_mem_eq(alone.data(), among.data() + 4 * cols, cols * 2);
}
END_TEST

/* Wide ones are whole rows; some have no weight. */
START_TEST(norms_of_heads_leave_the_other_columns_alone) {
    ALL_TYPES(t)
    for (uint32_t hd : {8u, 64u, 80u, 128u, 256u, 264u, 512u, 520u, 4104u, 8208u}) {
        const bool weighed = hd % 3 != 2;
        const uint32_t n_rows = 3, n_heads = 5, first = 16, ld = first + n_heads * hd + 24;
        rng r = {hd};
        const std::vector<uint16_t> v = all_to_16(t, r.normals((size_t)n_rows * ld, 2));
        const std::vector<float> w = r.normals(hd);
        device<uint16_t> dv(v);
        device<float> dw(w);
        const cu_norm norm = {t, n_rows, 1e-6f, weighed ? dw.p : NULL};
        const cu_heads heads = {n_heads, hd, first, ld, dv.p};
        CUDA_OK(cu_head_norm(0, &norm, &heads));
        const std::vector<uint16_t> got = dv.get();
        for (uint32_t i = 0; i < n_rows; i++)
            for (uint32_t c = 0; c < ld; c++) {
                const size_t at = (size_t)i * ld + c;
                if (c < first || c >= first + n_heads * hd) {
                    SWEEP(got[at] == v[at]);
                    continue;
                }
                const uint32_t d = (c - first) % hd;
                double squares = 0;
                for (uint32_t k = 0; k < hd; k++) squares += pow(from_16(t, v[at - d + k]), 2);
                const double want =
                    from_16(t, v[at]) / sqrt(squares / hd + 1e-6f) * (weighed ? w[d] : 1.0);
                SWEEP(fabs(from_16(t, got[at]) - want) <= rounding_of(t, want));
            }
    }
}
END_TEST

START_TEST(the_gate_is_silu_or_gelu_times_up) {
    ALL_TYPES(t)
    for (activation act : {ACT_SILU, ACT_GELU_TANH})
        for (uint32_t n : {8u, 576u, 1536u}) {
            const uint32_t n_rows = 3;
            rng r = {n};
            std::vector<float> v = r.normals((size_t)n_rows * 2 * n, 4);
            v[0] = 200, v[1] = -200, v[2] = 0, v[3] = -30;
            const std::vector<uint16_t> in = all_to_16(t, v);
            device<uint16_t> di(in), out((size_t)n_rows * n);
            CUDA_OK(cu_gate(0, t, act, n_rows, n, di.p, out.p));
            const std::vector<float> got = all_from_16(t, out.get());
            for (uint32_t i = 0; i < n_rows; i++)
                for (uint32_t c = 0; c < n; c++) {
                    const double g = from_16(t, in[(size_t)i * 2 * n + c]),
                                 u = from_16(t, in[(size_t)i * 2 * n + n + c]),
                                 p = 1.5957691216057308 * (g + 0.044715 * g * g * g),
                                 want = g / (1 + exp(act == ACT_SILU ? -g : -p)) * u;
                    SWEEP(fabs(got[i * n + c] - want) <= rounding_of(t, want) + 1e-9);
                }
        }
}
END_TEST

/* gpt-oss: g sigmoid(1.702 g) (u + 1), g = min(gate, 7), u = up within +-7. */
START_TEST(a_clamped_gate_is_as_the_formula_says) {
    ALL_TYPES(t) {
        const uint32_t n = 576;
        rng r = {3};
        std::vector<float> v = r.normals(2 * n, 6);
        v[0] = 200, v[1] = -200, v[n] = 50, v[n + 2] = -50, v[3] = NAN, v[n + 4] = NAN;
        const std::vector<uint16_t> in = all_to_16(t, v);
        device<uint16_t> di(in), out(n);
        CUDA_OK(cu_gate(0, t, ACT_SWIGLU_OAI, 1, n, di.p, out.p));
        const std::vector<float> got = all_from_16(t, out.get());
        for (uint32_t c = 0; c < n; c++) {
            const double gate = from_16(t, in[c]), up = from_16(t, in[n + c]);
            if (c == 3 || c == 4) {
                SWEEP(isnan(got[c]));
                continue;
            }
            const double g = fmin(gate, 7), u = fmax(fmin(up, 7), -7),
                         want = g / (1 + exp(-1.702 * g)) * (u + 1);
            SWEEP(fabs(got[c] - want) <= rounding_of(t, want) + 1e-9);
        }
    }
}
END_TEST

START_TEST(a_value_may_be_multiplied_by_another_that_is_activated) {
    ALL_TYPES(t) {
        const uint32_t n_rows = 3, n = 72, ld = 160, first = 80;
        rng r = {4};
        const std::vector<uint16_t> in = all_to_16(t, r.normals(n_rows * n, 2)),
                                    by = all_to_16(t, r.normals(n_rows * ld));
        device<uint16_t> di(in), db(by), out(in.size());
        CUDA_OK(cu_mul_act(0, t, ACT_GELU_TANH, n_rows, n, di.p, db.p + first, ld, out.p));
        const std::vector<float> got = all_from_16(t, out.get());
        for (uint32_t i = 0; i < n_rows; i++)
            for (uint32_t c = 0; c < n; c++) {
                const double g = from_16(t, in[i * n + c]),
                             p = 1.5957691216057308 * (g + 0.044715 * g * g * g),
                             want = g / (1 + exp(-p)) * from_16(t, by[i * ld + first + c]);
                SWEEP(fabs(got[i * n + c] - want) <= rounding_of(t, want) + 1e-9);
            }
    }
}
END_TEST

START_TEST(shapes_that_no_kernel_takes_are_refused) {
    cu_matrix m = {NULL, DT_F16, 4, 12};
    cu_tables t = {};
    ck_assert_int_eq(cu_embed(0, &m, &t, 1, 1, NULL), cudaErrorInvalidValue);
    ck_assert_int_eq(cu_gather(0, &t, 1, 4, NULL, NULL), cudaErrorInvalidValue);
    const cu_norm norm = {CU_F16, 1, 0, NULL}, wide = {CU_F32, 1, 0, NULL};
    ck_assert_int_eq(cu_row_norm(0, &norm, 12, CU_F32, NULL, NULL, CU_OUT_T),
                     cudaErrorInvalidValue);
    ck_assert_int_eq(cu_row_norm(0, &wide, 16, CU_F32, NULL, NULL, CU_OUT_T),
                     cudaErrorInvalidValue);
    ck_assert_int_eq(cu_gate(0, CU_F16, ACT_SILU, 1, 4, NULL, NULL), cudaErrorInvalidValue);
    ck_assert_int_eq(cu_gate(0, CU_F16, ACT_SILU, 0, 8, NULL, NULL), cudaSuccess);
}
END_TEST

CHECK_MAIN("rows", embedding_reads_the_rows_of_tokens_and_of_what_was_drawn,
           gather_copies_the_rows_asked_for, a_norm_leaves_the_codes_that_quantising_it_gives,
           the_norm_of_a_row_is_as_the_formula_says, a_norm_may_be_added_to_the_residual_stream,
           norms_of_every_form_are_the_same_norm, an_embedding_may_be_added_to_a_value,
           a_row_has_the_same_norm_whatever_rows_are_beside_it,
           norms_of_heads_leave_the_other_columns_alone, the_gate_is_silu_or_gelu_times_up,
           a_clamped_gate_is_as_the_formula_says,
           a_value_may_be_multiplied_by_another_that_is_activated,
           shapes_that_no_kernel_takes_are_refused)
