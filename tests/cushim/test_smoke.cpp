#include "engine/cuda/cu.h"
#include "cushim_ctl.h"
#include "tests/check_main.h"
#include <vector>
#include <stdio.h>
template <int A> __global__ void k_sum(float *o, const float *in, int n) {
    CU_SHARED(float, s, 32);
    float v = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) v += in[blockIdx.x * n + i];
    v = cu_warp_sum(v);
    if ((threadIdx.x & 31) == 0) s[threadIdx.x / 32] = v;
    __syncthreads();
    v = threadIdx.x < blockDim.x / 32 ? s[threadIdx.x] : 0;
    if (threadIdx.x < 32) {
        v = cu_warp_sum(v);
        if (threadIdx.x == 0) o[blockIdx.x] = v * A;
    }
}
START_TEST(sums) {
    std::vector<float> h(1000 * 3, 1.0f), r(3);
    float *d, *o;
    ck_assert(cudaMalloc((void **)&d, h.size() * 4) == 0);
    ck_assert(cudaMalloc((void **)&o, 12) == 0);
    cudaStream_t st;
    cudaStreamCreateWithFlags(&st, cudaStreamNonBlocking);
    ck_assert(cudaMemcpyAsync(d, h.data(), h.size() * 4, cudaMemcpyHostToDevice, st) == 0);
    CU_LAUNCH((k_sum<2>), 3, 256, 0, st, o, d, 1000);
    ck_assert(cudaMemcpyAsync(r.data(), o, 12, cudaMemcpyDeviceToHost, st) == 0);
    ck_assert(cudaStreamSynchronize(st) == 0);
    ck_assert_float_eq(r[0], 2000);
    ck_assert_float_eq(r[2], 2000);
    fprintf(stderr, "%ld switches\n", cushim_count().switches);
}
END_TEST
CHECK_MAIN("smoke", sums)
