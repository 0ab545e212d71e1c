/* The sampler's formulas on the device against model/row.c, bit for bit. */
extern "C" {
#include "model/sampling.h"
}
#include <float.h>

#include "tests/cuda/rig.h"
#include "engine/cuda/row.cuh"

namespace host {
extern "C" {
#include "model/row.h"
}
} // namespace host

/* What the formulas make of one number. */
struct results {
    float weight, back;
    uint32_t key;
    row_sum mass;
    double log;
};

static __global__ void k_formulas(const float *x, uint32_t n, float max, float scale,
                                  results *out) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float w = row_weight(x[i], max, scale);
    out[i].weight = w, out[i].mass = row_mass(w);
    out[i].key = row_key(x[i]), out[i].back = row_value(out[i].key);
    out[i].log = row_log(w > 0 ? (double)w / 3 : 1);
}

static void check_formulas(const std::vector<float> &x, float max, float scale) {
    const uint32_t n = (uint32_t)x.size();
    device<float> dx(x);
    device<results> out(n);
    CU_LAUNCH(k_formulas, (n + 127) / 128, 128, 0, 0, dx.p, n, max, scale, out.p);
    const std::vector<results> got = out.get();
    std::vector<float> want(x);
    host::row_exp2(want.data(), n, max, scale);
    for (uint32_t i = 0; i < n; i++) {
        const float w = want[i];
        const double log = host::row_log(w > 0 ? (double)w / 3 : 1);
        SWEEP(bits_of_float(got[i].weight) == bits_of_float(w));
        SWEEP(got[i].mass == host::row_mass(w));
        SWEEP(!memcmp(&got[i].log, &log, sizeof log));
        if (x[i] != x[i]) {
            SWEEP(got[i].key == KEY_NONE);
            continue;
        }
        SWEEP(got[i].key == host::row_key(x[i]));
        SWEEP(got[i].back == x[i]);
    }
}

START_TEST(weights_masses_keys_and_logarithms_have_the_same_bits) {
    rng r = {1};
    std::vector<float> x;
    for (int i = 0; i < 40000; i++) x.push_back((float)(-90 * r.uniform() * r.uniform()));
    for (float f : {NAN, -INFINITY, -FLT_MAX, 0.0f, -0.0f, -1e-42f}) x.push_back(f);
    for (float scale : {1.44269504f, 0.3f, 14.4269504f, 0.0f}) check_formulas(x, 0, scale);
    for (float &f : x) f += 1000;
    check_formulas(x, 1000, 1.44269504f);
    check_formulas({INFINITY, FLT_MAX, 1, 0, -FLT_MAX}, FLT_MAX, 1.0f);
}
END_TEST

static __global__ void k_masses(const float *w, uint32_t n, row_sum *out) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = row_mass(w[i]);
}

START_TEST(masses_round_to_even_at_every_size) {
    rng r = {2};
    std::vector<float> w = {0, 1, FLT_MIN, 1e-45f};
    for (int e = -130; e <= -1; e++)
        for (uint32_t m : {0u, 1u, 0x3fffffu, 0x400000u, 0x400001u, 0x7fffffu, 0x600000u})
            w.push_back(ldexpf((float)(0x800000u + m), e - 23));
    for (int i = 0; i < 20000; i++)
        w.push_back(ldexpf((float)(0x800000u + r.below(1 << 23)), -24 - (int)r.below(45)));
    const uint32_t n = (uint32_t)w.size();
    device<float> dw(w);
    device<row_sum> out(n);
    CU_LAUNCH(k_masses, (n + 127) / 128, 128, 0, 0, dw.p, n, out.p);
    const std::vector<row_sum> got = out.get();
    for (uint32_t i = 0; i < n; i++) SWEEP(got[i] == host::row_mass(w[i]));
}
END_TEST

static __global__ void k_uniform(const uint32_t *key, uint32_t n, row_sum *out) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = row_random(key + 3 * i, key[3 * i + 2]);
}

START_TEST(random_bits_are_those_of_the_cpu) {
    rng r = {3};
    const uint32_t n = 1000;
    std::vector<uint32_t> key(3 * n);
    for (uint32_t &k : key) k = (uint32_t)r.u64();
    device<uint32_t> dk(key);
    device<row_sum> out(n);
    CU_LAUNCH(k_uniform, (n + 127) / 128, 128, 0, 0, dk.p, n, out.p);
    const std::vector<row_sum> got = out.get();
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t seed = (uint64_t)key[3 * i + 1] << 32 | key[3 * i];
        SWEEP((float)(got[i] >> 29) * 0x1p-24f == sampling_uniform(seed, key[3 * i + 2]));
    }
}
END_TEST

CHECK_MAIN("row", weights_masses_keys_and_logarithms_have_the_same_bits,
           masses_round_to_even_at_every_size, random_bits_are_those_of_the_cpu)
