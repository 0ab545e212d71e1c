/* The formulas of model/row.c and of model/sampling.c for single numbers on the device, bit for
 * bit: intrinsics wherever nvcc would fuse a product with a sum. */
#ifndef VRAMD_ENGINE_CUDA_ROW_CUH
#define VRAMD_ENGINE_CUDA_ROW_CUH

#include <float.h>
#include <math.h>

#include "engine/cuda/cu.h"

typedef unsigned long long row_sum; /* what 64-bit atomics and shuffles take */

enum : uint32_t {
    KEY_NONE = 0,             /* NaN, and what is beyond the row */
    KEY_MINUS_INF = 0x7fffff, /* row_key(-INFINITY) */
    KEY_LOWEST = 0x800000     /* row_key(-FLT_MAX) */
};

/* Monotone, for floats with NaN below all. */
CU_DEVICE uint32_t row_key(float x) {
    if (x != x) return KEY_NONE;
    const uint32_t u = __float_as_uint(x + 0.0f);
    return u >> 31 ? ~u : u | 0x80000000u;
}
CU_DEVICE float row_value(uint32_t key) {
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}
CU_DEVICE float row_tamed(float logit) {
    return logit > FLT_MAX ? FLT_MAX : logit;
}

/* 2^((x - max) * scale), row_exp2's polynomial. */
CU_DEVICE float row_weight(float x, float max, float scale) {
    const float shift = 12582912.0f; /* 1.5 * 2^23 */
    const float y = __fmul_rn(__fsub_rn(row_tamed(x), max), scale);
    if (!(y >= -125.0f)) return 0.0f;
    const float t = __fadd_rn(y, shift), f = __fsub_rn(y, __fsub_rn(t, shift));
    float p = __fadd_rn(__fmul_rn(f, 1.52527338e-5f), 1.54035304e-4f);
    p = __fadd_rn(__fmul_rn(p, f), 1.33335581e-3f);
    p = __fadd_rn(__fmul_rn(p, f), 9.61812911e-3f);
    p = __fadd_rn(__fmul_rn(p, f), 5.55041087e-2f);
    p = __fadd_rn(__fmul_rn(p, f), 2.40226507e-1f);
    p = __fadd_rn(__fmul_rn(p, f), 6.93147181e-1f);
    p = __fadd_rn(__fmul_rn(p, f), 1.0f);
    return __uint_as_float(__float_as_uint(p) + (__float_as_uint(t) << 23));
}

/* w in [0, 1] in units of 2^-39, to the nearest, ties to even: of w = m 2^(e - 150), m 2^(e -
 * 111). */
CU_DEVICE row_sum row_mass(float w) {
    const uint32_t bits = __float_as_uint(w), m = (bits & 0x7fffffu) | 0x800000u;
    const int left = (int)(bits >> 23) - 111;
    if (left >= 0) return (row_sum)m << left;
    const uint32_t right = (uint32_t)(left < -31 ? 31 : -left);
    return (m + (1u << (right - 1)) - 1 + (m >> right & 1)) >> right;
}

CU_DEVICE double row_log(double x) {
    const long long bits = __double_as_longlong(x);
    int e = (int)(bits >> 52 & 2047) - 1022;
    double m = __longlong_as_double((bits & 0xfffffffffffffll) | 0x3fe0000000000000ll);
    if (m < 0.70710678118654752) m *= 2, e--;
    const double s = (m - 1) / (m + 1), q = s * s;
    double sum = 0;
#pragma unroll
    for (int k = 21; k >= 1; k -= 2) sum = __dadd_rn(__dmul_rn(sum, q), 1.0 / k);
    return __dadd_rn(__dmul_rn((double)e, 0.69314718055994531),
                     __dmul_rn(__dmul_rn(2.0, s), sum));
}

CU_DEVICE double row_sum_value(row_sum mass) {
    return (double)mass * 0x1p-39;
}

CU_DEVICE float row_logprob(float logit, float max, double log_sum) {
    if (!(logit > -INFINITY)) return -INFINITY;
    return (float)((double)row_tamed(logit) - (double)max - log_sum) + 0.0f; /* never -0 */
}

/* The least mass that is a share p of sum. */
CU_DEVICE row_sum row_share(float p, row_sum sum) {
    const double exact = p > 0 ? __dmul_rn((double)p, (double)sum) : 0;
    row_sum mass = (row_sum)exact;
    if ((double)mass < exact) mass++;
    return mass > 0 ? mass : 1;
}

/* 53 random bits of Philox4x32-10 at (position, 0, 0, 0) under the key seed. */
CU_DEVICE row_sum row_random(const uint32_t seed[2], uint32_t position) {
    uint32_t c0 = position, c1 = 0, c2 = 0, c3 = 0, k0 = seed[0], k1 = seed[1];
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint32_t a = __umulhi(0xD2511F53u, c0), b = __umulhi(0xCD9E8D57u, c2);
        const uint32_t low_a = 0xD2511F53u * c0, low_b = 0xCD9E8D57u * c2;
        c0 = b ^ c1 ^ k0, c2 = a ^ c3 ^ k1;
        c1 = low_b, c3 = low_a;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return ((row_sum)c0 << 32 | c1) >> 11;
}

#endif
