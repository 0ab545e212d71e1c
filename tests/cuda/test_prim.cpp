/* Each wrapper of an instruction in engine/cuda/cu.h, and the intrinsics that kernels use,
 * against plain arithmetic on random data. On the shim this tests the wrappers' twins; on a
 * device, what the hardware does. */
#include "tests/cuda/rig.h"

static rng dice = {1};
static uint32_t random_bits() {
    return (uint32_t)dice.u64();
}
static float random_unit() { /* -1 .. 1 */
    return (float)(int32_t)random_bits() * 0x1p-31f;
}

/* ---- mma: A and B are loaded with plain indexing, by the layout that cu.h states */

template <bool BF16, bool SET>
__global__ void k_mma(float *d, const uint16_t *a, const uint16_t *b, const float *c) {
    uint32_t g = threadIdx.x >> 2, t = threadIdx.x & 3, fa[4], fb[2];
    float acc[4];
    for (uint32_t r = 0; r < 4; r++) {
        const uint16_t *p = a + (g + (r & 1) * 8) * 16 + 2 * t + (r >> 1) * 8;
        fa[r] = p[0] | (uint32_t)p[1] << 16;
    }
    for (uint32_t r = 0; r < 2; r++) {
        const uint16_t *p = b + (2 * t + r * 8) * 8 + g; /* B[k][n], 8 columns */
        fb[r] = p[0] | (uint32_t)p[8] << 16;
    }
    for (uint32_t i = 0; i < 4; i++) acc[i] = c[(g + (i >> 1) * 8) * 8 + 2 * t + (i & 1)];
    if (BF16 && SET)
        cu_mul_bf16(acc, fa, fb);
    else if (BF16)
        cu_mma_bf16(acc, fa, fb);
    else if (SET)
        cu_mul_f16(acc, fa, fb);
    else
        cu_mma_f16(acc, fa, fb);
    for (uint32_t i = 0; i < 4; i++) d[(g + (i >> 1) * 8) * 8 + 2 * t + (i & 1)] = acc[i];
}

/* Products are exact. Tensor cores align the 17 terms to the largest one and cut off what lies
 * below its last bits, so the bound is 17 x 2^-23 of that term, which the sum of sizes exceeds
 * (Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores"). */
template <bool BF16, bool SET> static void check_mma(float scale) {
    const cu_type t = BF16 ? CU_BF16 : CU_F16;
    std::vector<uint16_t> a(16 * 16), b(16 * 8);
    std::vector<float> c(16 * 8);
    for (uint16_t &v : a) v = to_16(t, random_unit() * scale);
    for (uint16_t &v : b) v = to_16(t, random_unit());
    for (float &v : c) v = random_unit();
    device<uint16_t> da(a), db(b);
    device<float> dc(c), d(16 * 8);
    CU_LAUNCH((k_mma<BF16, SET>), 1, 32, 0, nullptr, d.p, da.p, db.p, dc.p);
    CUDA_OK(cudaGetLastError());
    const std::vector<float> out = d.get();
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            double want = SET ? 0 : c[i * 8 + j], size = fabs(want);
            for (int k = 0; k < 16; k++) {
                double p = (double)from_16(t, a[i * 16 + k]) * from_16(t, b[k * 8 + j]);
                want += p;
                size += fabs(p);
            }
            ck_assert_double_le(fabs(out[i * 8 + j] - want), 17 * 0x1p-23 * size);
        }
}

START_TEST(mma_of_16_bits_multiplies_matrices) {
    for (int i = 0; i < 10; i++) {
        check_mma<false, false>(1.0f), check_mma<false, true>(1.0f);
        check_mma<true, false>(1.0f), check_mma<true, true>(1.0f);
        check_mma<false, false>(0x1p-20f),
            check_mma<false, true>(0x1p-20f); /* subnormal halves */
        check_mma<true, false>(0x1p40f), check_mma<true, true>(0x1p40f);
    }
}
END_TEST

START_TEST(mma_passes_on_nan_and_infinity) {
    std::vector<uint16_t> a(16 * 16, to_16(CU_F16, 1)), b(16 * 8, to_16(CU_F16, 1));
    a[0] = 0x7c00;      /* row 0: infinity */
    a[3 * 16] = 0x7e00; /* row 3: NaN */
    device<uint16_t> da(a), db(b);
    device<float> dc(std::vector<float>(16 * 8)), d(16 * 8);
    CU_LAUNCH((k_mma<false, false>), 1, 32, 0, nullptr, d.p, da.p, db.p, dc.p);
    CUDA_OK(cudaGetLastError());
    const std::vector<float> out = d.get();
    for (int j = 0; j < 8; j++) {
        ck_assert(isinf(out[j]));
        ck_assert(isnan(out[3 * 8 + j]));
        ck_assert_float_eq(out[8 + j], 16.0f);
    }
}
END_TEST

__global__ void k_mma_s8(int32_t *d, const int8_t *a, const int8_t *b, const int32_t *c) {
    uint32_t g = threadIdx.x >> 2, t = threadIdx.x & 3, fa[4], fb[2];
    int32_t acc[4];
    for (uint32_t r = 0; r < 4; r++)
        memcpy(&fa[r], a + (g + (r & 1) * 8) * 32 + 4 * t + (r >> 1) * 16, 4);
    for (uint32_t r = 0; r < 2; r++) {
        int8_t column[4];
        for (uint32_t i = 0; i < 4; i++) column[i] = b[(4 * t + r * 16 + i) * 8 + g];
        memcpy(&fb[r], column, 4);
    }
    for (uint32_t i = 0; i < 4; i++) acc[i] = c[(g + (i >> 1) * 8) * 8 + 2 * t + (i & 1)];
    cu_mma_s8(acc, fa, fb);
    for (uint32_t i = 0; i < 4; i++) d[(g + (i >> 1) * 8) * 8 + 2 * t + (i & 1)] = acc[i];
}

START_TEST(mma_of_8_bits_is_exact) {
    for (int round = 0; round < 10; round++) {
        std::vector<int8_t> a(16 * 32), b(32 * 8);
        std::vector<int32_t> c(16 * 8);
        for (int8_t &v : a) v = round ? (int8_t)random_bits() : -128;
        for (int8_t &v : b) v = round ? (int8_t)random_bits() : -128;
        for (int32_t &v : c) v = (int32_t)random_bits() >> 4;
        device<int8_t> da(a), db(b);
        device<int32_t> dc(c), d(16 * 8);
        CU_LAUNCH(k_mma_s8, 1, 32, 0, nullptr, d.p, da.p, db.p, dc.p);
        CUDA_OK(cudaGetLastError());
        const std::vector<int32_t> out = d.get();
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                int32_t want = c[i * 8 + j];
                for (int k = 0; k < 32; k++) want += a[i * 32 + k] * b[k * 8 + j];
                ck_assert_int_eq(out[i * 8 + j], want);
            }
    }
}
END_TEST

/* The halves of k are products of their own, whose sum is the whole. */
__global__ void k_mma_s8_16(int32_t *d, const int8_t *a, const int8_t *b) {
    uint32_t g = threadIdx.x >> 2, t = threadIdx.x & 3, fa[2], fb;
    int32_t acc[4] = {1, 2, 3, 4};
    for (uint32_t r = 0; r < 2; r++) memcpy(&fa[r], a + (g + r * 8) * 16 + 4 * t, 4);
    int8_t column[4];
    for (uint32_t i = 0; i < 4; i++) column[i] = b[(4 * t + i) * 8 + g];
    memcpy(&fb, column, 4);
    cu_mma_s8_16(acc, fa, fb);
    for (uint32_t i = 0; i < 4; i++) d[(g + (i >> 1) * 8) * 8 + 2 * t + (i & 1)] = acc[i];
}

START_TEST(mma_of_8_bits_and_16_inputs_is_exact) {
    for (int round = 0; round < 10; round++) {
        std::vector<int8_t> a(16 * 16), b(16 * 8);
        for (int8_t &v : a) v = round ? (int8_t)random_bits() : -128;
        for (int8_t &v : b) v = round ? (int8_t)random_bits() : -128;
        device<int8_t> da(a), db(b);
        device<int32_t> d(16 * 8);
        CU_LAUNCH(k_mma_s8_16, 1, 32, 0, nullptr, d.p, da.p, db.p);
        CUDA_OK(cudaGetLastError());
        const std::vector<int32_t> out = d.get();
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                int32_t want = 1 + i / 8 * 2 + j % 2;
                for (int k = 0; k < 16; k++) want += a[i * 16 + k] * b[k * 8 + j];
                ck_assert_int_eq(out[i * 8 + j], want);
            }
    }
}
END_TEST

/* ---- ldmatrix */

template <int N, bool TRANS> __global__ void k_ldmatrix(uint32_t *out, const uint16_t *in) {
    CU_SHARED(uint16_t, s, 4 * 64);
    for (uint32_t i = threadIdx.x; i < 256; i += 32) s[i] = in[i];
    __syncwarp();
    uint32_t r[4] = {0, 0, 0, 0};
    const uint16_t *row = s + threadIdx.x * 8;
    if (N == 4 && !TRANS) cu_ldmatrix_x4(r, row);
    if (N == 4 && TRANS) cu_ldmatrix_x4_trans(r, row);
    if (N == 2 && !TRANS) cu_ldmatrix_x2(r, row);
    if (N == 2 && TRANS) cu_ldmatrix_x2_trans(r, row);
    for (uint32_t m = 0; m < N; m++) out[threadIdx.x * N + m] = r[m];
}

template <int N, bool TRANS> static void check_ldmatrix() {
    std::vector<uint16_t> in(256);
    for (uint16_t &v : in) v = (uint16_t)random_bits();
    device<uint16_t> di(in);
    device<uint32_t> d(32 * N);
    CU_LAUNCH((k_ldmatrix<N, TRANS>), 1, 32, 0, nullptr, d.p, di.p);
    CUDA_OK(cudaGetLastError());
    const std::vector<uint32_t> out = d.get();
    for (uint32_t l = 0; l < 32; l++)
        for (uint32_t m = 0; m < N; m++) {
            const uint32_t g = l / 4, c = l % 4 * 2;
            const uint32_t lo = in[64 * m + (TRANS ? 8 * c + g : 8 * g + c)];
            const uint32_t hi = in[64 * m + (TRANS ? 8 * (c + 1) + g : 8 * g + c + 1)];
            ck_assert_uint_eq(out[l * N + m], lo | hi << 16);
        }
}

START_TEST(ldmatrix_deals_out_rows_or_columns) {
    check_ldmatrix<4, false>();
    check_ldmatrix<4, true>();
    check_ldmatrix<2, false>();
    check_ldmatrix<2, true>();
}
END_TEST

/* ---- cp.async: two groups, the older one alone waited for first */

__global__ void k_cp_async(uint32_t *out, const uint32_t *in, int bytes) {
    CU_DYN_SHARED(uint32_t, s);
    cu_cp_async16(s, in);
    cu_cp_async_commit();
    cu_cp_async16_zfill(s + 4, in + 4, bytes);
    cu_cp_async_commit();
    cu_cp_async_wait<1>();
#ifdef CUSHIM
    for (int i = 4; i < 8; i++) out[i] = s[i]; /* under way: no more than a race on a device */
#endif
    for (int i = 0; i < 4; i++) out[i] = s[i];
    cu_cp_async_wait<0>();
    for (int i = 0; i < 8; i++) out[8 + i] = s[i];
}

START_TEST(cp_async_copies_groups_in_order_and_fills_with_zeroes) {
    std::vector<uint32_t> in(8);
    for (uint32_t &v : in) v = random_bits();
    device<uint32_t> di(in);
    for (int bytes = 0; bytes <= 16; bytes++) {
        uint32_t want[8] = {0};
        memcpy(want, &in[0], 16);
        memcpy(want + 4, &in[4], (size_t)bytes);
        device<uint32_t> d(16);
        CU_LAUNCH(k_cp_async, 1, 1, 32, nullptr, d.p, di.p, bytes);
        CUDA_OK(cudaGetLastError());
        const std::vector<uint32_t> out = d.get();
        for (uint32_t i = 0; i < 8; i++) {
            if (i < 4) ck_assert_uint_eq(out[i], want[i]);
#ifdef CUSHIM
            if (i >= 4) ck_assert_uint_eq(out[i], 0xffffffffu); /* under way */
#endif
            ck_assert_uint_eq(out[8 + i], want[i]);
        }
    }
}
END_TEST

/* ---- one thread's functions: evaluated in a kernel, compared on the host */

__global__ void k_lop3(uint32_t *out, uint32_t a, uint32_t b, uint32_t c) {
    out[0] = cu_lop3<0xf0 & 0xcc>(a, b, c);
    out[1] = cu_lop3<(0xf0 & 0xcc) | 0xaa>(a, b, c);
    out[2] = cu_lop3<0xf0 ^ 0xcc ^ 0xaa>(a, b, c);
    out[3] = cu_lop3<(0xf0 & ~0xcc & 0xff) | 0xaa>(a, b, c);
}

START_TEST(lop3_is_any_function_of_three_bits) {
    device<uint32_t> d(4);
    for (int i = 0; i < 20; i++) {
        uint32_t a = random_bits(), b = random_bits(), c = random_bits();
        CU_LAUNCH(k_lop3, 1, 1, 0, nullptr, d.p, a, b, c);
        CUDA_OK(cudaGetLastError());
        const std::vector<uint32_t> out = d.get();
        ck_assert_uint_eq(out[0], a & b);
        ck_assert_uint_eq(out[1], (a & b) | c);
        ck_assert_uint_eq(out[2], a ^ b ^ c);
        ck_assert_uint_eq(out[3], (a & ~b) | c);
    }
}
END_TEST

__global__ void k_ex2(float *out, const float *in, int n) {
    for (int i = 0; i < n; i++) out[i] = cu_ex2(in[i]);
}

START_TEST(ex2_is_a_power_of_two) {
    std::vector<float> in = {0, 1, -1, 0.5f, 10.25f, -125.5f, -INFINITY, -200, 127.5f, NAN};
    for (int i = 0; i < 1000; i++) in.push_back(random_unit() * 126);
    device<float> di(in), d(in.size());
    CU_LAUNCH(k_ex2, 1, 1, 0, nullptr, d.p, di.p, (int)in.size());
    CUDA_OK(cudaGetLastError());
    const std::vector<float> out = d.get();
    for (size_t i = 0; i < in.size(); i++) {
        if (isnan(in[i])) {
            ck_assert(isnan(out[i]));
            continue;
        }
        double want = in[i] < -126 ? 0 : exp2((double)in[i]);
        ck_assert_double_le(fabs(out[i] - want), want * 0x1p-22);
    }
}
END_TEST

__global__ void k_halves(uint32_t *out, const float *in, int n) {
    for (int i = 0; i < n; i++) {
        const __half2 r = cu_halves(in[2 * i], in[2 * i + 1]);
        memcpy(out + i, &r, sizeof r);
    }
}

/* Bits of f16, by the definition: values of normal numbers here are exact in float. */
START_TEST(halves_round_to_even_and_saturate) {
    const struct {
        float in;
        uint16_t bits;
    } cases[] = {{0, 0},          {-1.5f, 0xbe00},     {65504, 0x7bff},  {65519.9f, 0x7bff},
                 {65520, 0x7bff}, {1e30f, 0x7bff},     {-70000, 0xfbff}, {INFINITY, 0x7bff},
                 {2049, 0x6800},  {-INFINITY, 0xfbff}, {2051, 0x6802},   {0x1p-24f, 1}};
    const int n = sizeof cases / sizeof *cases;
    std::vector<float> in;
    for (int i = 0; i < n; i++) {
        in.push_back(cases[i].in);
        in.push_back(cases[n - 1 - i].in);
    }
    in.push_back(NAN), in.push_back(1);
    device<float> di(in);
    device<uint32_t> d(in.size() / 2);
    CU_LAUNCH(k_halves, 1, 1, 0, nullptr, d.p, di.p, n + 1);
    CUDA_OK(cudaGetLastError());
    const std::vector<uint32_t> out = d.get();
    for (int i = 0; i < n; i++) {
        ck_assert_uint_eq(out[i] & 0xffff, cases[i].bits);
        ck_assert_uint_eq(out[i] >> 16, cases[n - 1 - i].bits);
    }
    ck_assert_uint_gt(out[n] & 0x7fff, 0x7c00); /* NaN */
    ck_assert_uint_eq(out[n] >> 16, 0x3c00);
}
END_TEST

__global__ void k_fma2(uint32_t *out, const uint32_t *in, int n) {
    for (int i = 0; i < n; i++) {
        __half2 v[3], r;
        memcpy((void *)v, in + 3 * i, sizeof v);
        r = cu_fma2(v[0], v[1], v[2]);
        memcpy(out + i, &r, sizeof r);
    }
}

/* A product of two halves is exact in double, and so is the sum as long as the exponents lie
 * within 2 x 11 + 30 bits, which they do here: one rounding, to nearest even. */
START_TEST(fma2_rounds_once) {
    enum { N = 500 };
    std::vector<uint32_t> in(3 * N);
    for (uint32_t &v : in)
        v = half_of_float(random_unit() * 8) | (uint32_t)half_of_float(random_unit()) << 16;
    device<uint32_t> di(in), d(N);
    CU_LAUNCH(k_fma2, 1, 1, 0, nullptr, d.p, di.p, (int)N);
    CUDA_OK(cudaGetLastError());
    const std::vector<uint32_t> out = d.get();
    for (int i = 0; i < N; i++)
        for (int h = 0; h < 32; h += 16) {
            const double a = half_to_float((uint16_t)(in[3 * i] >> h)),
                         b = half_to_float((uint16_t)(in[3 * i + 1] >> h)),
                         c = half_to_float((uint16_t)(in[3 * i + 2] >> h)), want = a * b + c;
            const uint16_t got = (uint16_t)(out[i] >> h);
            const double err = fabs(half_to_float(got) - want);
            /* No neighbour is nearer, and of two as near the even one was taken. */
            for (int step = -1; step <= 1 && got & 0x7fff; step += 2) {
                const double other = fabs(half_to_float((uint16_t)(got + step)) - want);
                SWEEP(err < other || (err == other && got % 2 == 0));
            }
        }
}
END_TEST

__global__ void k_integers(uint32_t *o, const uint32_t *in, uint32_t a, uint32_t b,
                           uint32_t c) {
    uint4 q = cu_ld_stream(in);
    o[0] = q.x, o[1] = q.y, o[2] = q.z, o[3] = q.w;
    o[4] = (uint32_t)__dp4a((int)a, (int)b, (int)c);
    o[5] = __dp4a(a, b, c);
    o[6] = __byte_perm(a, b, 0x7531);
    o[7] = __byte_perm(a, b, 0x0b36);
    o[8] = __vsubss4(a, b);
    o[9] = __umulhi(a, b);
    o[10] = __funnelshift_r(a, b, 8);
    o[11] = (uint32_t)__popc(a) << 16 | (uint32_t)__clz((int)b);
    o[12] = __brev(a);
    o[13] = __vsub4(a, b);
}

static uint8_t byte_of(uint32_t v, int i) {
    return (uint8_t)(v >> 8 * i);
}

static void check_integers(const std::vector<uint32_t> &o, uint32_t a, uint32_t b, uint32_t c) {
    int64_t dot_s = (int32_t)c, dot_u = c;
    for (int i = 0; i < 4; i++) {
        int sa = (int8_t)byte_of(a, i), sb = (int8_t)byte_of(b, i);
        dot_s += sa * sb;
        dot_u += byte_of(a, i) * byte_of(b, i);
        int diff = sa - sb < -128 ? -128 : sa - sb > 127 ? 127 : sa - sb;
        ck_assert_int_eq((int8_t)byte_of(o[8], i), diff);
        ck_assert_uint_eq(byte_of(o[13], i), (uint8_t)(byte_of(a, i) - byte_of(b, i)));
        ck_assert_uint_eq(byte_of(o[6], i), byte_of(i < 2 ? a : b, i % 2 * 2 + 1));
    }
    ck_assert_uint_eq(o[4], (uint32_t)dot_s);
    ck_assert_uint_eq(o[5], (uint32_t)dot_u);
    /* Of each selector three bits count (seen on an H100): 0xb is 3. */
    ck_assert_uint_eq(o[7], byte_of(b, 2) | (uint32_t)byte_of(a, 3) << 8 |
                                (uint32_t)byte_of(a, 3) << 16 | (uint32_t)byte_of(a, 0) << 24);
    ck_assert_uint_eq(o[9], (uint32_t)((uint64_t)a * b >> 32));
    ck_assert_uint_eq(o[10], a >> 8 | b << 24);
    uint32_t ones = 0, zeroes = 0, reversed = 0;
    for (int i = 0; i < 32; i++) {
        ones += a >> i & 1;
        reversed |= (a >> i & 1) << (31 - i);
    }
    while (zeroes < 32 && !(b >> (31 - zeroes) & 1)) zeroes++;
    ck_assert_uint_eq(o[11], ones << 16 | zeroes);
    ck_assert_uint_eq(o[12], reversed);
}

START_TEST(integer_intrinsics_compute_what_they_say) {
    device<uint32_t> d(14);
    for (int round = 0; round < 50; round++) {
        uint32_t a = random_bits(), b = random_bits(), c = random_bits();
        std::vector<uint32_t> in(4);
        for (uint32_t &v : in) v = random_bits();
        device<uint32_t> di(in);
        CU_LAUNCH(k_integers, 1, 1, 0, nullptr, d.p, di.p, a, b, c);
        CUDA_OK(cudaGetLastError());
        const std::vector<uint32_t> o = d.get();
        for (int i = 0; i < 4; i++) ck_assert_uint_eq(o[i], in[i]);
        check_integers(o, a, b, c);
    }
}
END_TEST

/* ---- warp collectives */

__global__ void k_warp(float *sum, float *max, uint32_t *o, const float *in) {
    const uint32_t l = threadIdx.x, all = 0xffffffffu;
    sum[l] = cu_warp_sum(in[l]);
    max[l] = cu_warp_max(in[l]);
    o[l] = __shfl_sync(all, l, 5);
    o[32 + l] = __shfl_xor_sync(all, l, 9);
    o[64 + l] = __shfl_down_sync(all, l, 4, 8);
    o[96 + l] = __shfl_up_sync(all, l, 1);
    o[128 + l] = __ballot_sync(all, l % 3 == 0);
    o[160 + l] = __reduce_add_sync(all, l);
    o[192 + l] = __match_any_sync(all, l / 8);
    if (l < 16) {
        o[224 + l] = __reduce_max_sync(0x0000ffffu, l);
        o[256 + l] = (uint32_t)__any_sync(0x0000ffffu, l == 3);
        o[256 + l] |= (uint32_t)__all_sync(0x0000ffffu, l < 16) << 1;
    } else {
        o[224 + l] = __reduce_max_sync(0xffff0000u, l);
        o[256 + l] = (uint32_t)__any_sync(0xffff0000u, l == 3);
        o[256 + l] |= (uint32_t)__all_sync(0xffff0000u, l < 16) << 1;
    }
}

START_TEST(warp_collectives_exchange_and_reduce) {
    for (int round = 0; round < 8; round++) {
        std::vector<float> in(32);
        for (float &v : in) v = random_unit();
        device<float> di(in), sum(32), max(32);
        device<uint32_t> d(288);
        CU_LAUNCH(k_warp, 1, 32, 0, nullptr, sum.p, max.p, d.p, di.p);
        CUDA_OK(cudaGetLastError());
        std::vector<float> s = sum.get(), m = max.get(), tree = in;
        const std::vector<uint32_t> o = d.get();
        float largest = in[0];
        for (float v : in) largest = fmaxf(largest, v);
        for (int half = 16; half; half /= 2) /* lane 0 of the butterfly */
            for (int i = 0; i < half; i++) tree[i] += tree[i + half];
        for (uint32_t l = 0; l < 32; l++) {
            ck_assert(s[l] == tree[0] && m[l] == largest);
            ck_assert_uint_eq(o[l], 5);
            ck_assert_uint_eq(o[32 + l], l ^ 9);
            ck_assert_uint_eq(o[64 + l], l % 8 < 4 ? l + 4 : l);
            ck_assert_uint_eq(o[96 + l], l ? l - 1 : 0);
            ck_assert_uint_eq(o[128 + l], 0x49249249u);
            ck_assert_uint_eq(o[160 + l], 496);
            ck_assert_uint_eq(o[192 + l], 0xffu << l / 8 * 8);
            ck_assert_uint_eq(o[224 + l], l < 16 ? 15 : 31);
            ck_assert_uint_eq(o[256 + l], l < 16 ? 3 : 0);
        }
    }
}
END_TEST

__global__ void k_votes(int *o, int n) {
    int a = __syncthreads_count((int)threadIdx.x < n);
    int b = __syncthreads_or((int)threadIdx.x == n);
    int c = __syncthreads_and((int)threadIdx.x < n);
    if (threadIdx.x == 0) o[0] = a, o[1] = b, o[2] = c;
}

START_TEST(barriers_vote) {
    device<int> d(3);
    for (int n : {0, 17, 100}) {
        CU_LAUNCH(k_votes, 1, 100, 0, nullptr, d.p, n);
        CUDA_OK(cudaGetLastError());
        const std::vector<int> o = d.get();
        ck_assert_int_eq(o[0], n);
        ck_assert_int_eq(o[1] != 0, n < 100);
        ck_assert_int_eq(o[2] != 0, n == 100);
    }
}
END_TEST

/* ---- atomics, and where a thread is */

__global__ void k_atomics(unsigned *o, float *f) {
    atomicAdd(&o[0], 1u);
    atomicMax(&o[1], threadIdx.x);
    atomicMin(&o[2], blockIdx.x + 7);
    atomicAdd(f, 0.5f);
    if (atomicAdd(&o[3], 1u) == gridDim.x * blockDim.x - 1) o[4] = 1; /* the last of all */
    atomicCAS(&o[5], 0u, 1u);
}

START_TEST(atomics_count) {
    device<unsigned> d(std::vector<unsigned>{0, 0, 1000, 0, 0, 0});
    device<float> f(std::vector<float>{0.0f});
    CU_LAUNCH(k_atomics, 5, 64, 0, nullptr, d.p, f.p);
    CUDA_OK(cudaGetLastError());
    ck_assert(d.get() == (std::vector<unsigned>{320, 63, 7, 320, 1, 1}));
    ck_assert_float_eq(f.get()[0], 160.0f);
}
END_TEST

__global__ void k_where(uint32_t *o) {
    uint32_t block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    uint32_t thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    uint32_t threads = blockDim.x * blockDim.y * blockDim.z;
    o[block * threads + thread] += block * 1000 + thread;
}

START_TEST(every_thread_of_a_grid_runs_once) {
    device<uint32_t> d(std::vector<uint32_t>(24 * 105));
    CU_LAUNCH(k_where, dim3(2, 3, 4), dim3(3, 5, 7), 0, nullptr, d.p);
    CUDA_OK(cudaGetLastError());
    const std::vector<uint32_t> o = d.get();
    for (uint32_t i = 0; i < o.size(); i++) ck_assert_uint_eq(o[i], i / 105 * 1000 + i % 105);
}
END_TEST

CHECK_MAIN("prim", mma_of_16_bits_multiplies_matrices, mma_passes_on_nan_and_infinity,
           mma_of_8_bits_is_exact, mma_of_8_bits_and_16_inputs_is_exact,
           ldmatrix_deals_out_rows_or_columns,
           cp_async_copies_groups_in_order_and_fills_with_zeroes,
           lop3_is_any_function_of_three_bits, ex2_is_a_power_of_two,
           halves_round_to_even_and_saturate, fma2_rounds_once,
           integer_intrinsics_compute_what_they_say, warp_collectives_exchange_and_reduce,
           barriers_vote, atomics_count, every_thread_of_a_grid_runs_once)
