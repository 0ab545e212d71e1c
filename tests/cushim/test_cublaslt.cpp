/* The stand-in for cuBLASLt against plain arithmetic, and what it refuses. */
#include "testing.h"

#include <cublasLt.h>

#define LT(call) ck_assert_msg((call) == CUBLAS_STATUS_SUCCESS, "%s", #call)

/* D[n x m] = X[n x k] * W[m x k]^T, row-major: the engine's linear layer, which column-major
 * cuBLASLt sees as D = W^T X. */
struct layer {
    size_t m, n, k;
    cudaDataType_t in, out;
    cublasLtHandle_t h;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, d;
    cublasLtMatmulPreference_t pref;
};

static layer open_layer(size_t m, size_t n, size_t k, cudaDataType_t in, cudaDataType_t out) {
    layer l = {m, n, k, in, out, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
    cublasOperation_t t = CUBLAS_OP_T;
    uint64_t workspace = 1 << 20;
    LT(cublasLtCreate(&l.h));
    LT(cublasLtMatmulDescCreate(&l.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT(cublasLtMatmulDescSetAttribute(l.desc, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t));
    LT(cublasLtMatrixLayoutCreate(&l.w, in, k, m, (int64_t)k));
    LT(cublasLtMatrixLayoutCreate(&l.x, in, k, n, (int64_t)k));
    LT(cublasLtMatrixLayoutCreate(&l.d, out, m, n, (int64_t)m));
    LT(cublasLtMatmulPreferenceCreate(&l.pref));
    LT(cublasLtMatmulPreferenceSetAttribute(l.pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                            &workspace, sizeof workspace));
    return l;
}
static void close_layer(layer l) {
    cublasLtMatmulPreferenceDestroy(l.pref);
    cublasLtMatrixLayoutDestroy(l.d);
    cublasLtMatrixLayoutDestroy(l.x);
    cublasLtMatrixLayoutDestroy(l.w);
    cublasLtMatmulDescDestroy(l.desc);
    LT(cublasLtDestroy(l.h));
}
static std::vector<cublasLtMatmulHeuristicResult_t> algorithms(const layer &l, int most = 8) {
    std::vector<cublasLtMatmulHeuristicResult_t> r((size_t)most);
    int found;
    LT(cublasLtMatmulAlgoGetHeuristic(l.h, l.desc, l.w, l.x, l.d, l.d, l.pref, most, r.data(),
                                      &found));
    r.resize((size_t)found);
    return r;
}

static uint16_t encode(float v, cudaDataType_t t) {
    return t == CUDA_R_16BF ? __nv_bfloat16_raw(__float2bfloat16(v)).x
                            : __half_raw(__float2half(v)).x;
}
static float decode(const void *p, size_t i, cudaDataType_t t) {
    if (t == CUDA_R_32F) return ((const float *)p)[i];
    if (t == CUDA_R_16F) return __half2float(((const __half *)p)[i]);
    return __bfloat162float(((const __nv_bfloat16 *)p)[i]);
}

/* Runs every algorithm with beta and bias; returns the outputs' bytes of each. */
static std::vector<std::vector<char>> check_layer(size_t m, size_t n, size_t k,
                                                  cudaDataType_t in, cudaDataType_t out) {
    layer l = open_layer(m, n, k, in, out);
    size_t esize = out == CUDA_R_32F ? 4 : 2;
    std::vector<uint16_t> w(m * k), x(n * k);
    for (uint16_t &v : w) v = encode(random_unit(), in);
    for (uint16_t &v : x) v = encode(random_unit(), in);
    std::vector<char> before(n * m * esize), bias(m * esize);
    for (std::vector<char> *b : {&before, &bias})
        for (size_t i = 0; i < b->size() / esize; i++) {
            float v = random_unit();
            uint16_t h = encode(v, out);
            memcpy(b->data() + i * esize, esize == 4 ? (void *)&v : (void *)&h, esize);
        }
    uint16_t *dw = device(w), *dx = device(x);
    char *dbias = device(bias), *ws = device<char>(1 << 20);
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    LT(cublasLtMatmulDescSetAttribute(l.desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                      sizeof epilogue));
    LT(cublasLtMatmulDescSetAttribute(l.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &dbias,
                                      sizeof dbias));
    std::vector<std::vector<char>> results;
    float alpha = 0.5f, beta = 2.0f;
    for (const auto &r : algorithms(l)) {
        char *d = device(before);
        LT(cublasLtMatmul(l.h, l.desc, &alpha, dw, l.w, dx, l.x, &beta, d, l.d, d, l.d, &r.algo,
                          ws, r.workspaceSize, nullptr));
        results.push_back(host(d, before.size()));
        for (size_t j = 0; j < n; j++)
            for (size_t i = 0; i < m; i++) {
                double want =
                    2.0 * decode(before.data(), j * m + i, out) + decode(bias.data(), i, out);
                for (size_t c = 0; c < k; c++)
                    want +=
                        0.5 * decode(w.data(), i * k + c, in) * decode(x.data(), j * k + c, in);
                double unit = out == CUDA_R_32F ? 1e-6 : out == CUDA_R_16F ? 0x1p-11 : 0x1p-8;
                double got = decode(results.back().data(), j * m + i, out);
                SWEEP(fabs(got - want) <= unit * (fabs(want) + (double)k / 100) + 1e-6);
            }
    }
    close_layer(l);
    return results;
}

START_TEST(products_are_right_by_every_algorithm) {
    for (cudaDataType_t in : {CUDA_R_16F, CUDA_R_16BF})
        for (cudaDataType_t out : {in, CUDA_R_32F}) {
            check_layer(16, 1, 64, in, out);
            check_layer(40, 7, 96, in, out);
            check_layer(8, 33, 136, in, out);
        }
}
END_TEST

/* From compute capability 8.9 on, of a transposed A whose sizes are multiples of 16. */
START_TEST(products_of_e4m3_are_right_and_what_the_library_lacks_is_refused) {
    const size_t m = 96, n = 7, k = 96;
    layer l = open_layer(m, n, k, CUDA_R_8F_E4M3, CUDA_R_32F);
    std::vector<uint8_t> w(m * k), x(n * k);
    for (size_t i = 0; i < w.size(); i++) w[i] = (uint8_t)(i * 37 + i / 96) & 0xf7;
    for (size_t i = 0; i < x.size(); i++) x[i] = (uint8_t)(i * 91 + i / 96) & 0xf7;
    const auto value = [](uint8_t c) {
        const int e = c >> 3 & 15, f = c & 7;
        const double v = e ? ldexp(1 + f / 8.0, e - 7) : ldexp(f, -9);
        return c & 0x80 ? -v : v;
    };
    uint8_t *dw = device(w), *dx = device(x);
    float *d = device<float>(m * n), alpha = 1, beta = 0;
    char *ws = device<char>(1 << 20);
    for (const auto &r : algorithms(l)) {
        LT(cublasLtMatmul(l.h, l.desc, &alpha, dw, l.w, dx, l.x, &beta, d, l.d, d, l.d, &r.algo,
                          ws, r.workspaceSize, nullptr));
        const std::vector<float> got = host(d, m * n);
        for (size_t i = 0; i < m * n; i++) {
            double want = 0, size = 0;
            for (size_t c = 0; c < k; c++) {
                const double p = value(w[i % m * k + c]) * value(x[i / m * k + c]);
                want += p, size += fabs(p);
            }
            SWEEP(fabs(got[i] - want) <= 1e-6 * size);
        }
    }
    const cublasOperation_t plain = CUBLAS_OP_N, turned = CUBLAS_OP_T;
    LT(cublasLtMatmulDescSetAttribute(l.desc, CUBLASLT_MATMUL_DESC_TRANSA, &plain,
                                      sizeof plain));
    ck_assert_int_eq(cublasLtMatmul(l.h, l.desc, &alpha, dw, l.w, dx, l.x, &beta, d, l.d, d,
                                    l.d, nullptr, ws, 1 << 20, nullptr),
                     CUBLAS_STATUS_NOT_SUPPORTED);
    LT(cublasLtMatmulDescSetAttribute(l.desc, CUBLASLT_MATMUL_DESC_TRANSA, &turned,
                                      sizeof turned));
    cushim_set_capability(86);
    ck_assert_int_eq(cublasLtMatmul(l.h, l.desc, &alpha, dw, l.w, dx, l.x, &beta, d, l.d, d,
                                    l.d, nullptr, ws, 1 << 20, nullptr),
                     CUBLAS_STATUS_NOT_SUPPORTED);
    cushim_set_capability(89);
    close_layer(l);
    l = open_layer(40, n, k, CUDA_R_8F_E4M3, CUDA_R_32F);
    ck_assert_int_eq(cublasLtMatmul(l.h, l.desc, &alpha, dw, l.w, dx, l.x, &beta, d, l.d, d,
                                    l.d, nullptr, ws, 1 << 20, nullptr),
                     CUBLAS_STATUS_NOT_SUPPORTED);
    close_layer(l);
}
END_TEST

START_TEST(algorithms_differ_in_bits) {
    auto bits = check_layer(64, 20, 256, CUDA_R_16BF, CUDA_R_32F);
    ck_assert_uint_ge(bits.size(), 2);
    for (size_t i = 1; i < bits.size(); i++) ck_assert(bits[i] != bits[0]);
}
END_TEST

START_TEST(split_k_can_be_seen_and_excluded) {
    layer l = open_layer(64, 4, 128, CUDA_R_16F, CUDA_R_16F);
    auto first = algorithms(l)[0];
    int32_t split;
    uint32_t reduction;
    size_t written;
    LT(cublasLtMatmulAlgoConfigGetAttribute(&first.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                            &split, sizeof split, &written));
    LT(cublasLtMatmulAlgoConfigGetAttribute(&first.algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
                                            &reduction, sizeof reduction, &written));
    ck_assert_int_eq(split, 2); /* few columns: first choice */
    ck_assert_uint_ne(reduction, CUBLASLT_REDUCTION_SCHEME_NONE);
    ck_assert_uint_eq(first.workspaceSize, 2 * 64 * 4 * 4);
    uint32_t none = CUBLASLT_REDUCTION_SCHEME_NONE;
    LT(cublasLtMatmulPreferenceSetAttribute(l.pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                            &none, sizeof none));
    auto rest = algorithms(l);
    ck_assert_uint_ge(rest.size(), 2);
    std::vector<int32_t> ids;
    for (const auto &r : rest) {
        int32_t id;
        LT(cublasLtMatmulAlgoConfigGetAttribute(&r.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                                &split, sizeof split, &written));
        LT(cublasLtMatmulAlgoConfigGetAttribute(&r.algo, CUBLASLT_ALGO_CONFIG_ID, &id,
                                                sizeof id, &written));
        ck_assert_int_eq(split, 1);
        for (int32_t other : ids) ck_assert_int_ne(id, other);
        ids.push_back(id);
        cublasLtMatmulHeuristicResult_t checked;
        LT(cublasLtMatmulAlgoCheck(l.h, l.desc, l.w, l.x, l.d, l.d, &r.algo, &checked));
        ck_assert_uint_eq(checked.workspaceSize, 0);
    }
    close_layer(l);
}
END_TEST

START_TEST(what_the_library_refuses_is_refused) {
    layer l = open_layer(64, 4, 128, CUDA_R_16F, CUDA_R_16F);
    char *w = device<char>(64 * 128 * 2), *x = device<char>(4 * 128 * 2);
    char *d = device<char>(64 * 4 * 2), *ws = device<char>(1 << 20);
    auto split = algorithms(l)[0];
    float one = 1, zero = 0;
    auto run = [&](const char *px, cublasLtMatrixLayout_t lx, size_t workspace) {
        return cublasLtMatmul(l.h, l.desc, &one, w, l.w, px, lx, &zero, d, l.d, d, l.d,
                              &split.algo, ws, workspace, nullptr);
    };
    ck_assert_int_eq(run(x, l.x, 100), CUBLAS_STATUS_INVALID_VALUE);         /* workspace */
    ck_assert_int_eq(run(x + 2, l.x, 1 << 20), CUBLAS_STATUS_NOT_SUPPORTED); /* alignment */
    cublasLtMatrixLayout_t odd, mixed, wrong;
    LT(cublasLtMatrixLayoutCreate(&odd, CUDA_R_16F, 128, 4, 129));
    LT(cublasLtMatrixLayoutCreate(&mixed, CUDA_R_16BF, 128, 4, 128));
    LT(cublasLtMatrixLayoutCreate(&wrong, CUDA_R_16F, 120, 4, 128));
    ck_assert_int_eq(run(x, odd, 1 << 20), CUBLAS_STATUS_NOT_SUPPORTED);
    ck_assert_int_eq(run(x, mixed, 1 << 20), CUBLAS_STATUS_NOT_SUPPORTED);
    ck_assert_int_eq(run(x, wrong, 1 << 20), CUBLAS_STATUS_INVALID_VALUE);
    int bytes = 3;
    ck_assert_int_ne(
        cublasLtMatmulDescSetAttribute(l.desc, CUBLASLT_MATMUL_DESC_TRANSA, &bytes, 1),
        CUBLAS_STATUS_SUCCESS);
    LT(run(x, l.x, 1 << 20));
    /* Too short an operand would be an illegal address on a device. */
    ck_assert_int_ne(run(x + 256, l.x, 1 << 20), CUBLAS_STATUS_SUCCESS);
    ck_assert_fault("cublasLtMatmul");
    for (cublasLtMatrixLayout_t m : {odd, mixed, wrong}) cublasLtMatrixLayoutDestroy(m);
    close_layer(l);
}
END_TEST

START_TEST(the_workspace_is_scribbled_over_and_events_see_the_time) {
    layer l = open_layer(64, 4, 128, CUDA_R_16F, CUDA_R_16F);
    std::vector<char> zeroes(64 * 128 * 2), filled(1 << 12, 1);
    char *w = device(zeroes), *x = device(zeroes), *d = device(zeroes), *ws = device(filled);
    cudaEvent_t at[2];
    for (cudaEvent_t &e : at) OK(cudaEventCreate(&e));
    float one = 1, zero = 0, before = 0;
    for (const auto &r : algorithms(l)) {
        OK(cudaEventRecord(at[0], nullptr));
        LT(cublasLtMatmul(l.h, l.desc, &one, w, l.w, x, l.x, &zero, d, l.d, d, l.d, &r.algo, ws,
                          1 << 12, nullptr));
        OK(cudaEventRecord(at[1], nullptr));
        OK(cudaEventSynchronize(at[1]));
        float ms;
        OK(cudaEventElapsedTime(&ms, at[0], at[1]));
        ck_assert(ms > 0 && ms != before);
        before = ms;
    }
    ck_assert_int_eq(host(ws, 1)[0], -1);
    for (cudaEvent_t e : at) OK(cudaEventDestroy(e));
    close_layer(l);
}
END_TEST

CHECK_MAIN("cublaslt", products_are_right_by_every_algorithm,
           products_of_e4m3_are_right_and_what_the_library_lacks_is_refused,
           algorithms_differ_in_bits, split_k_can_be_seen_and_excluded,
           what_the_library_refuses_is_refused,
           the_workspace_is_scribbled_over_and_events_see_the_time)
