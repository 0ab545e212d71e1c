/* What tests of the CUDA kernels share: random numbers, device memory of exact size, 16-bit
 * numbers on the host. C++ for the shim and for nvcc: results come back by cudaMemcpy. */
#ifndef VRAMD_TESTS_CUDA_RIG_H
#define VRAMD_TESTS_CUDA_RIG_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <vector>

#include "engine/cuda/kernels.h"

#include "base/half.h"
#include "base/hash.h"
#include "tests/check_main.h"

#define CUDA_OK(call)                                                                          \
    do {                                                                                       \
        const cudaError_t cuda_error = (call);                                                 \
        if (cuda_error != cudaSuccess)                                                         \
            ck_abort_msg("%s: %s", #call, cudaGetErrorString(cuda_error));                     \
    } while (0)

struct rng {
    uint64_t state;
    uint64_t u64() { return hash_mix(state += 0x9e3779b97f4a7c15u); }
    uint32_t below(uint32_t n) { return (uint32_t)(u64() % n); }
    double uniform() { return (double)(u64() >> 11) * 0x1p-53; }
    float normal() { /* about, sd 1 */
        double v = 0;
        for (int i = 0; i < 12; i++) v += uniform();
        return (float)(v - 6);
    }
    std::vector<float> normals(size_t n, float sd = 1) {
        std::vector<float> v(n);
        for (float &f : v) f = sd * normal();
        return v;
    }
};

/* Device memory of exactly so many elements, so that ASan sees the first byte too far. */
template <class T> struct device {
    T *p = nullptr;
    size_t n;
    explicit device(size_t n) : n(n) { CUDA_OK(cudaMalloc((void **)&p, n * sizeof(T))); }
    explicit device(const std::vector<T> &v) : device(v.size()) { put(v); }
    device(const device &) = delete;
    ~device() { cudaFree(p); }
    /* A copy out of pageable memory may return before it has reached the device, and streams
     * that do not wait for the default one would overtake it. */
    void put(const std::vector<T> &v) {
        CUDA_OK(cudaMemcpy(p, v.data(), n * sizeof(T), cudaMemcpyHostToDevice));
        CUDA_OK(cudaDeviceSynchronize());
    }
    std::vector<T> get() const {
        std::vector<T> v(n);
        CUDA_OK(cudaDeviceSynchronize());
        CUDA_OK(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
        return v;
    }
};

static inline uint16_t to_16(cu_type t, float f) {
    return t == CU_BF16 ? bf16_of_float(f) : half_of_float(f);
}
static inline float from_16(cu_type t, uint16_t h) {
    return t == CU_BF16 ? bf16_to_float(h) : half_to_float(h);
}
static inline std::vector<uint16_t> all_to_16(cu_type t, const std::vector<float> &v) {
    std::vector<uint16_t> h(v.size());
    for (size_t i = 0; i < v.size(); i++) h[i] = to_16(t, v[i]);
    return h;
}
static inline std::vector<float> all_from_16(cu_type t, const std::vector<uint16_t> &h) {
    std::vector<float> v(h.size());
    for (size_t i = 0; i < h.size(); i++) v[i] = from_16(t, h[i]);
    return v;
}
/* Half a unit in the last place of numbers near v, and a little of float32's. */
static inline double rounding_of(cu_type t, double v) {
    const double a = fabs(v);
    return t == CU_F32    ? 4e-7 * a + 1e-30
           : t == CU_BF16 ? (0x1p-8 + 1e-5) * a + 1e-30
                          : (0x1p-11 + 1e-5) * a + 0x1p-25;
}

#define ALL_TYPES(t) for (cu_type t : {CU_F16, CU_BF16})

#endif
