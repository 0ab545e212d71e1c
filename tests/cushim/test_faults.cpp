/* The shim finds what it promises to find in a kernel (tests/cushim/README.md). */
#include "testing.h"

#include <algorithm>

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#else
#define UNDER_ASAN 0
#endif

/* ---- races inside a block: some order shows them */

/* out[i] = in[n-1-i] by way of shared memory. */
template <bool SYNC> __global__ void k_reverse(int *out, const int *in) {
    CU_SHARED(int, s, 256);
    s[threadIdx.x] = in[threadIdx.x];
    if (SYNC) __syncthreads();
    out[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
}

template <bool SYNC> static int orders_that_reverse() {
    std::vector<int> in(256);
    for (int i = 0; i < 256; i++) in[i] = i;
    int *d = device(in), *o = device<int>(256), right = 0;
    for (int order = 0; order < N_ORDERS; order++) {
        cushim_set_order(order);
        CU_LAUNCH((k_reverse<SYNC>), 1, 256, 0, nullptr, o, d);
        std::vector<int> out = host(o, 256);
        bool same = true;
        for (int i = 0; i < 256; i++) same &= out[i] == 255 - i;
        right += same;
    }
    return right;
}

START_TEST(missing_syncthreads_shows_in_some_order) {
    ck_assert_int_eq(orders_that_reverse<true>(), N_ORDERS);
    ck_assert_int_lt(orders_that_reverse<false>(), N_ORDERS);
}
END_TEST

/* Two rounds over one buffer; without the second barrier a fast warp overwrites what a slow one
 * still reads. */
template <bool SYNC> __global__ void k_rounds(int *out) {
    CU_SHARED(int, s, 128);
    int sum = 0;
    for (int round = 0; round < 2; round++) {
        s[threadIdx.x] = (int)threadIdx.x + 1000 * round;
        __syncthreads();
        sum += s[(threadIdx.x + 32) % 128];
        if (SYNC) __syncthreads();
    }
    out[threadIdx.x] = sum;
}

template <bool SYNC> static int orders_with_right_rounds() {
    int *o = device<int>(128), right = 0;
    for (int order = 0; order < N_ORDERS; order++) {
        cushim_set_order(order);
        CU_LAUNCH((k_rounds<SYNC>), 1, 128, 0, nullptr, o);
        std::vector<int> out = host(o, 128);
        bool same = true;
        for (int i = 0; i < 128; i++) same &= out[i] == 2 * ((i + 32) % 128) + 1000;
        right += same;
    }
    return right;
}

START_TEST(write_after_read_shows_in_some_order) {
    ck_assert_int_eq(orders_with_right_rounds<true>(), N_ORDERS);
    ck_assert_int_lt(orders_with_right_rounds<false>(), N_ORDERS);
}
END_TEST

/* Lanes of a warp exchange through shared memory: needs __syncwarp. */
template <bool SYNC> __global__ void k_warp_swap(int *out) {
    CU_SHARED(int, s, 32);
    s[threadIdx.x] = (int)threadIdx.x;
    if (SYNC) __syncwarp();
    out[threadIdx.x] = s[threadIdx.x ^ 31];
}

START_TEST(missing_syncwarp_shows_in_every_order) {
    int *o = device<int>(32);
    for (int order = 0; order < N_ORDERS; order++) {
        cushim_set_order(order);
        CU_LAUNCH((k_warp_swap<true>), 1, 32, 0, nullptr, o);
        std::vector<int> good = host(o, 32);
        CU_LAUNCH((k_warp_swap<false>), 1, 32, 0, nullptr, o);
        std::vector<int> bad = host(o, 32);
        bool same = true;
        for (int i = 0; i < 32; i++) {
            ck_assert_int_eq(good[i], i ^ 31);
            same &= bad[i] == (i ^ 31);
        }
        ck_assert(!same);
    }
}
END_TEST

/* Blocks that assume that the ones before them are done. */
__global__ void k_chain(int *a) {
    if (threadIdx.x == 0) a[blockIdx.x + 1] = a[blockIdx.x] + 1;
}

START_TEST(blocks_that_depend_on_their_order_show) {
    int right = 0;
    for (int order = 0; order < N_ORDERS; order++) {
        cushim_set_order(order);
        std::vector<int> zero(17);
        int *a = device(zero);
        CU_LAUNCH(k_chain, 16, 32, 0, nullptr, a);
        right += host(a, 17)[16] == 16;
    }
    ck_assert_int_lt(right, N_ORDERS);
}
END_TEST

/* ---- barriers and collectives */

__global__ void k_half_syncs() {
    if (threadIdx.x < 32) __syncthreads();
}
__global__ void k_two_barriers() {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}
__global__ void k_half_leaves() {
    if (threadIdx.x < 32) return;
    __syncthreads();
}
__global__ void k_lane_alone(float *o) {
    if (threadIdx.x == 0) *o = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
    if (threadIdx.x == 1) __syncthreads();
}
__global__ void k_mixed_collectives(int *o) {
    if (threadIdx.x & 1)
        *o = (int)__ballot_sync(0xffffffffu, 1);
    else
        *o = __shfl_sync(0xffffffffu, 1, 0);
}
__global__ void k_not_in_mask(int *o) {
    *o = __shfl_sync(0xfffffffeu, 1, 1);
}
__global__ void k_mma_by_half(float *o) {
    float d[4] = {0, 0, 0, 0};
    uint32_t a[4] = {0, 0, 0, 0}, b[2] = {0, 0};
    if (threadIdx.x < 16) return;
    cu_mma_f16(d, a, b);
    *o = d[0];
}

START_TEST(divergent_barriers_and_collectives_are_named) {
    int *i = device<int>(1);
    float *f = device<float>(1);
    for (int order = 0; order < N_ORDERS; order++) {
        cushim_set_order(order);
        CU_LAUNCH(k_half_syncs, 1, 64, 0, nullptr);
        std::vector<char> text = fault();
        ck_assert(strstr(text.data(), "barrier") && strstr(text.data(), "k_half_syncs"));
        CU_LAUNCH(k_two_barriers, dim3(1, 2), 64, 0, nullptr);
        ck_assert_fault("divergent barrier");
        CU_LAUNCH(k_half_leaves, 1, 64, 0, nullptr);
        text = fault();
        ck_assert(strstr(text.data(), "barrier"));
        CU_LAUNCH(k_lane_alone, 1, 32, 0, nullptr, f);
        ck_assert_ptr_nonnull(strstr(fault().data(), "k_lane_alone, block (0,0,0)"));
        CU_LAUNCH(k_mixed_collectives, 1, 32, 0, nullptr, i);
        ck_assert_fault("divergent collective");
        CU_LAUNCH(k_not_in_mask, 1, 32, 0, nullptr, i);
        ck_assert_fault("not in its own mask");
        CU_LAUNCH(k_mma_by_half, 1, 32, 0, nullptr, f);
        ck_assert_fault("mma, ldmatrix or cu_warp_*");
    }
}
END_TEST

START_TEST(a_fault_is_sticky_until_reset) {
    CU_LAUNCH(k_half_syncs, 1, 64, 0, nullptr);
    ck_assert_int_eq(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
    void *p;
    ck_assert_int_eq(cudaMalloc(&p, 4), cudaErrorLaunchFailure);
    cushim_reset();
    ck_assert_ptr_null(cushim_error());
    OK(cudaMalloc(&p, 4));
}
END_TEST

/* Lanes that have exited do not keep the others waiting. */
__global__ void k_early_exit(int *o) {
    if (threadIdx.x >= 20) return;
    int v = (int)__ballot_sync(0xffffffffu, 1);
    if (threadIdx.x == 0) *o = v;
}

START_TEST(exited_lanes_are_not_waited_for) {
    for (int order = 0; order < N_ORDERS; order++) {
        cushim_set_order(order);
        int *o = device<int>(1);
        CU_LAUNCH(k_early_exit, 1, 32, 0, nullptr, o);
        ck_assert_int_eq(host(o, 1)[0], 0xfffff);
    }
}
END_TEST

/* ---- cp.async */

enum { WAIT, NO_WAIT, NO_COMMIT, WAIT_LATE };
template <int MODE> __global__ void k_stage(uint32_t *out, const uint32_t *in) {
    CU_SHARED(uint32_t, s, 128);
    cu_cp_async16(s + 4 * threadIdx.x, in + 4 * threadIdx.x);
    if (MODE != NO_COMMIT) cu_cp_async_commit();
    if (MODE != NO_WAIT && MODE != WAIT_LATE) cu_cp_async_wait<0>();
    __syncthreads();
    for (int i = 0; i < 4; i++) out[4 * threadIdx.x + i] = s[127 - 4 * threadIdx.x - i];
    if (MODE == WAIT_LATE) cu_cp_async_wait<0>();
}

START_TEST(cp_async_without_wait_is_found) {
    std::vector<uint32_t> in(128);
    for (uint32_t i = 0; i < 128; i++) in[i] = i;
    uint32_t *d = device(in), *o = device<uint32_t>(128);
    for (int order = 0; order < N_ORDERS; order++) {
        cushim_set_order(order);
        CU_LAUNCH((k_stage<WAIT>), 1, 32, 0, nullptr, o, d);
        ck_assert_uint_eq(host(o, 128)[0], 127);
        CU_LAUNCH((k_stage<WAIT_LATE>), 1, 32, 0, nullptr, o, d);
        std::vector<uint32_t> late = host(o, 128); /* NaN until waited for */
        ck_assert_int_gt(std::count(late.begin(), late.end(), 0xffffffffu), 0);
        CU_LAUNCH((k_stage<NO_WAIT>), 1, 32, 0, nullptr, o, d);
        ck_assert_fault("cp.async never waited for");
        CU_LAUNCH((k_stage<NO_COMMIT>), 1, 32, 0, nullptr, o, d);
        ck_assert_fault("cp.async never waited for");
    }
}
END_TEST

__global__ void k_misaligned(const char *in) {
    CU_SHARED(char, s, 64);
    cu_cp_async16(s + 8, in);
}
__global__ void k_not_shared(const char *in, char *out) {
    cu_cp_async16(out, in);
}

START_TEST(cp_async_checks_its_addresses) {
    char *d = device<char>(256);
    CU_LAUNCH(k_misaligned, 1, 1, 0, nullptr, d);
    ck_assert_fault("not 16-byte aligned");
    CU_LAUNCH(k_not_shared, 1, 1, 0, nullptr, d, d + 64);
    ck_assert_fault("not shared memory");
}
END_TEST

/* ---- memory */

__global__ void k_fill(int *p, int n) {
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) p[i] = i;
}
__global__ void k_store_at(int *p, long i) {
    p[i] = 1;
}
__global__ void k_shared_overrun(int *o, int n) {
    CU_SHARED(int, s, 32);
    CU_SHARED(int, t, 32);
    for (int i = 0; i < n; i++) s[i] = t[i] = i;
    *o = s[0] + t[0];
}
__global__ void k_dynamic_overrun(int n) {
    CU_DYN_SHARED(int, s);
    for (int i = 0; i < n; i++) s[i] = i;
}

START_TEST(running_over_device_memory_is_found) {
    int *p = device<int>(64);
    ck_assert(!dies([=] {
        CU_LAUNCH(k_fill, 1, 32, 0, nullptr, p, 64);
        cudaDeviceSynchronize();
    }));
    /* A page away always; to the byte under AddressSanitizer. */
    ck_assert(dies([=] {
        CU_LAUNCH(k_store_at, 1, 1, 0, nullptr, p, 2048);
        cudaDeviceSynchronize();
    }));
    if (UNDER_ASAN)
        for (long i : {64, -1})
            ck_assert(dies([=] {
                CU_LAUNCH(k_store_at, 1, 1, 0, nullptr, p, i);
                cudaDeviceSynchronize();
            }));
}
END_TEST

START_TEST(freed_device_memory_is_out_of_reach) {
    int *p = device<int>(64);
    OK(cudaFree(p));
    ck_assert(dies([=] {
        CU_LAUNCH(k_fill, 1, 32, 0, nullptr, p, 64);
        cudaDeviceSynchronize();
    }));
}
END_TEST

START_TEST(running_over_shared_memory_is_found) {
    int *o = device<int>(1);
    ck_assert(!dies([=] {
        CU_LAUNCH(k_shared_overrun, 1, 1, 0, nullptr, o, 32);
        CU_LAUNCH(k_dynamic_overrun, 1, 1, 4096, nullptr, 1024);
        cudaDeviceSynchronize();
    }));
    ck_assert(dies([=] {
        CU_LAUNCH(k_dynamic_overrun, 1, 1, 4096, nullptr, 1025);
        cudaDeviceSynchronize();
    }));
    if (UNDER_ASAN)
        ck_assert(dies([=] {
            CU_LAUNCH(k_shared_overrun, 1, 1, 0, nullptr, o, 33);
            cudaDeviceSynchronize();
        }));
}
END_TEST

START_TEST(host_dereference_of_device_memory_is_found) {
    int *p = device<int>(4), *q = device<int>(1 << 20); /* small and mapped from a file */
    ck_assert(dies([=] { *(volatile int *)p = 1; }));
    ck_assert(dies([=] { (void)*(volatile int *)q; }));
    CU_LAUNCH(k_fill, 1, 32, 0, nullptr, p, 4);
    OK(cudaDeviceSynchronize());
    ck_assert(dies([=] { (void)*(volatile int *)p; })); /* still, after work ran */
    cushim_set_guard(false);
    ck_assert(!dies([=] { (void)*(volatile int *)p; }));
}
END_TEST

template <int N> __global__ void k_read_uninitialised(float *o, const float *global) {
    CU_SHARED(float, s, N);
    CU_DYN_SHARED(float, d);
    o[0] = global[0];
    o[1] = s[N - 1];
    o[2] = d[7];
    s[N - 1] = d[7] = 1.0f; /* the next block must not see this */
}

START_TEST(uninitialised_memory_is_nan) {
    for (size_t n : {size_t(1), size_t(3) << 20, size_t(20) << 20}) {
        float *g = device<float>(n), *o = device<float>(3);
        CU_LAUNCH((k_read_uninitialised<16>), 3, 1, 64, nullptr, o, g + n - 1);
        std::vector<float> v = host(o, 3);
        for (float x : v) ck_assert(isnan(x));
    }
    float *pinned;
    OK(cudaHostAlloc((void **)&pinned, 64, cudaHostAllocDefault));
    ck_assert(isnan(pinned[15]));
    OK(cudaFreeHost(pinned));
}
END_TEST

/* ---- launches */

__global__ void k_nothing() {}
__global__ void k_much_static_shared(int *o) {
    CU_SHARED(int, s, 12 * 1024 + 4);
    *o = s[0];
}

START_TEST(launches_outside_the_limits_are_refused) {
    CU_LAUNCH(k_nothing, 1, 1025, 0, nullptr);
    ck_assert_int_eq(cudaGetLastError(), cudaErrorInvalidConfiguration);
    CU_LAUNCH(k_nothing, 0, 32, 0, nullptr);
    ck_assert_int_eq(cudaGetLastError(), cudaErrorInvalidConfiguration);
    CU_LAUNCH(k_nothing, dim3(1, 65536), 32, 0, nullptr);
    ck_assert_int_eq(cudaGetLastError(), cudaErrorInvalidConfiguration);
    CU_LAUNCH(k_nothing, 1, 32, 48 * 1024 + 1, nullptr);
    ck_assert_int_eq(cudaGetLastError(), cudaErrorInvalidValue);
    OK(cu_allow_smem(k_nothing, 100 * 1024));
    CU_LAUNCH(k_nothing, 1, 32, 100 * 1024, nullptr);
    OK(cudaGetLastError());
    ck_assert_int_ne(cu_allow_smem(k_nothing, 228 * 1024), cudaSuccess);
    (void)cudaGetLastError();
    int *o = device<int>(1);
    CU_LAUNCH(k_much_static_shared, 1, 1, 0, nullptr, o);
    ck_assert_fault("more than 48 KiB");
}
END_TEST

/* ---- kernels that begin before the one in front of them has ended */

enum early_fault { NONE, READS, COPIES, WRITES };

__global__ void k_ones(float *o) {
    cu_grid_trigger();
    cu_grid_wait();
    o[threadIdx.x] = 1.0f;
}

template <early_fault FAULT> __global__ void k_doubles(float *o, const float *in) {
    CU_SHARED(float, s, 128);
    const float *from = FAULT == COPIES ? s + 4 * threadIdx.x : in + 4 * threadIdx.x;
    float x = 0.0f;
    cu_grid_trigger();
    if (FAULT == READS) x = *from;
    if (FAULT == COPIES) cu_cp_async16(s + 4 * threadIdx.x, in + 4 * threadIdx.x);
    if (FAULT == WRITES) o[threadIdx.x] = 0.0f;
    cu_grid_wait();
    cu_cp_async_commit();
    cu_cp_async_wait<0>();
    if (FAULT != READS) x = *from;
    o[threadIdx.x] = 2.0f * x;
}

/* The second kernel's result in an order; as a graph, too. */
template <early_fault FAULT> static float doubled(int order, bool graph) {
    float *in = device<float>(128), *out = device<float>(32);
    cudaStream_t s = stream();
    cudaGraph_t g;
    cudaGraphExec_t x;
    cushim_set_order(order);
    if (graph) OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    CU_LAUNCH_EARLY(k_ones, 1, 128, 0, s, in);
    CU_LAUNCH_EARLY((k_doubles<FAULT>), 1, 32, 0, s, out, in);
    if (graph) {
        OK(cudaStreamEndCapture(s, &g));
        OK(cudaGraphInstantiate(&x, g, 0));
        OK(cudaGraphLaunch(x, s));
    }
    const float result = host(out, 32)[31];
    if (graph) {
        OK(cudaGraphExecDestroy(x));
        OK(cudaGraphDestroy(g));
    }
    OK(cudaStreamDestroy(s));
    return result;
}

START_TEST(what_is_read_before_the_kernel_in_front_has_ended_is_nan) {
    for (int graph = 0; graph < 2; graph++)
        for (int order = 0; order < N_ORDERS; order++) {
            const bool hides = order > 2 && !UNDER_ASAN;
            ck_assert(doubled<NONE>(order, graph) == 2.0f);
            ck_assert(isnan(doubled<READS>(order, graph)) == hides);
            ck_assert(isnan(doubled<COPIES>(order, graph)) == hides);
        }
}
END_TEST

START_TEST(what_is_written_before_it_has_ended_is_a_fault) {
    if (UNDER_ASAN) return;
    ck_assert(!dies([] { doubled<WRITES>(0, false); }));
    ck_assert(dies([] { doubled<WRITES>(3, false); }));
    float *p = device<float>(128);
    cushim_set_order(3);
    CU_LAUNCH_EARLY(k_ones, 1, 128, 0, nullptr, p);
    CU_LAUNCH_EARLY((k_doubles<WRITES>), 1, 32, 0, nullptr, p, p);
    ck_assert_fault("before cu_grid_wait");
}
END_TEST

START_TEST(what_was_there_before_the_kernels_is_read_early) {
    float *weights = device<float>(128), *out = device<float>(32);
    cushim_set_order(3);
    CU_LAUNCH_EARLY(k_ones, 1, 128, 0, nullptr, weights);
    OK(cudaDeviceSynchronize());
    CU_LAUNCH_EARLY((k_doubles<READS>), 1, 32, 0, nullptr, out, weights);
    ck_assert(host(out, 32)[0] == 2.0f);
    CU_LAUNCH_EARLY(k_ones, 1, 128, 0, nullptr, weights);
    OK(cudaMemcpyAsync(out, weights, 16, cudaMemcpyDeviceToDevice, nullptr));
    CU_LAUNCH_EARLY((k_doubles<READS>), 1, 32, 0, nullptr, out, weights);
    ck_assert(host(out, 32)[0] == 2.0f);
}
END_TEST

CHECK_MAIN("faults", missing_syncthreads_shows_in_some_order,
           write_after_read_shows_in_some_order, missing_syncwarp_shows_in_every_order,
           blocks_that_depend_on_their_order_show, divergent_barriers_and_collectives_are_named,
           a_fault_is_sticky_until_reset, exited_lanes_are_not_waited_for,
           cp_async_without_wait_is_found, cp_async_checks_its_addresses,
           running_over_device_memory_is_found, freed_device_memory_is_out_of_reach,
           running_over_shared_memory_is_found, host_dereference_of_device_memory_is_found,
           uninitialised_memory_is_nan, launches_outside_the_limits_are_refused,
           what_is_read_before_the_kernel_in_front_has_ended_is_nan,
           what_is_written_before_it_has_ended_is_a_fault,
           what_was_there_before_the_kernels_is_read_early)
