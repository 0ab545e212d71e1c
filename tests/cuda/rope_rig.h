/* Rotary embedding in double precision, for the tests of the two kernels that rotate. */
#ifndef VRAMD_TESTS_CUDA_ROPE_RIG_H
#define VRAMD_TESTS_CUDA_ROPE_RIG_H

#include "tests/cuda/rig.h"

struct rope_shape {
    uint32_t hd, n_dims;
    rope_pairing pairing;
    float mscale;
};

static inline std::vector<double> rope_frequencies(uint32_t n_dims, double theta) {
    std::vector<double> f(n_dims / 2);
    for (uint32_t i = 0; i < f.size(); i++) f[i] = pow(theta, -2.0 * i / n_dims);
    return f;
}

static inline std::vector<cu_freq> rope_split(const std::vector<double> &f) {
    std::vector<cu_freq> split(f.size());
    for (size_t i = 0; i < f.size(); i++)
        split[i].high = (float)f[i], split[i].low = (float)(f[i] - split[i].high);
    return split;
}

/* Head v of hd numbers, rotated by pos * f in double precision. */
static inline std::vector<double>
rope_rotated(const rope_shape &c, const std::vector<double> &f, const float *v, int32_t pos) {
    std::vector<double> out(v, v + c.hd);
    for (uint32_t i = 0; i < c.n_dims / 2; i++) {
        const bool halves = c.pairing == ROPE_HALVES;
        const uint32_t p = halves ? i : 2 * i, q = halves ? i + c.n_dims / 2 : 2 * i + 1;
        const double co = cos(pos * f[i]) * c.mscale, si = sin(pos * f[i]) * c.mscale;
        out[p] = v[p] * co - v[q] * si;
        out[q] = v[p] * si + v[q] * co;
    }
    return out;
}

#endif
