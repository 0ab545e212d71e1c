/* The pretended device: its memory, its absence, its description. */
#include "testing.h"

START_TEST(memory_info_follows_allocations) {
    size_t before, after, total;
    cushim_set_memory((size_t)1 << 30);
    OK(cudaMemGetInfo(&before, &total));
    ck_assert_uint_eq(total, (size_t)1 << 30);
    void *p;
    OK(cudaMalloc(&p, (5 << 20) + 1));
    OK(cudaMemGetInfo(&after, &total));
    ck_assert_uint_eq(before - after, 6 << 20); /* whole granules of 2 MiB */
    ck_assert_uint_eq(cushim_count().bytes, (5 << 20) + 1);
    OK(cudaFree(p));
    OK(cudaMemGetInfo(&after, &total));
    ck_assert_uint_eq(before, after);
    ck_assert_int_eq(cudaFree(p), cudaErrorInvalidValue);
    OK(cudaFree(nullptr));
}
END_TEST

START_TEST(what_does_not_fit_is_refused) {
    size_t free_bytes, total;
    void *p, *q;
    OK(cudaMemGetInfo(&free_bytes, &total));
    ck_assert_int_eq(cudaMalloc(&p, free_bytes + 1), cudaErrorMemoryAllocation);
    ck_assert_ptr_null(p);
    OK(cudaMalloc(&p, free_bytes)); /* 3.8 GiB of NaN that cost no memory */
    ck_assert_int_eq(cudaMalloc(&q, 1), cudaErrorMemoryAllocation);
    OK(cudaFree(p));
    ck_assert_int_eq(cudaMalloc(&p, SIZE_MAX - 100), cudaErrorMemoryAllocation);
}
END_TEST

START_TEST(the_nth_allocation_fails) {
    for (long n = 1; n <= 3; n++) {
        cushim_fail_alloc(n);
        for (long i = 1; i <= 4; i++) {
            void *p;
            cudaError_t e =
                i == 2 ? cudaHostAlloc(&p, 64, cudaHostAllocDefault) : cudaMalloc(&p, 64);
            ck_assert_int_eq(e, i == n ? cudaErrorMemoryAllocation : cudaSuccess);
            if (i == 2 && e == cudaSuccess) OK(cudaFreeHost(p));
        }
        ck_assert_int_eq(cudaGetLastError(), cudaErrorMemoryAllocation);
        ck_assert_int_eq(cudaGetLastError(), cudaSuccess);
    }
    cushim_fail_alloc(1);
    cudaStream_t s = stream();
    cudaGraph_t g;
    cudaGraphExec_t x;
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    OK(cudaStreamEndCapture(s, &g));
    ck_assert_int_eq(cudaGraphInstantiate(&x, g, 0), cudaErrorMemoryAllocation);
    OK(cudaGraphInstantiate(&x, g, 0));
    OK(cudaGraphExecDestroy(x));
    OK(cudaGraphDestroy(g));
}
END_TEST

START_TEST(allocations_are_aligned) {
    for (size_t n : {1, 100, 5000, 3000001}) {
        void *p;
        OK(cudaMalloc(&p, n));
        ck_assert_uint_eq((uintptr_t)p % 256, 0);
    }
}
END_TEST

START_TEST(a_machine_without_device_or_driver_says_so) {
    int n = 7;
    cushim_set_devices(0);
    ck_assert_int_eq(cudaGetDeviceCount(&n), cudaErrorNoDevice);
    ck_assert_int_eq(n, 0);
    ck_assert_int_eq(cudaSetDevice(0), cudaErrorNoDevice);
    cushim_set_devices(1);
    cushim_set_driver(12020);
    ck_assert_int_eq(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
    cushim_set_driver(0);
    ck_assert_int_eq(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
    OK(cudaDriverGetVersion(&n));
    ck_assert_int_eq(n, 0);
}
END_TEST

__global__ void k_anything() {}

START_TEST(the_device_describes_itself) {
    cudaDeviceProp p;
    int sms, major, minor, optin, runtime;
    OK(cudaGetDeviceProperties(&p, 0));
    OK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
    OK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    OK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
    OK(cudaDeviceGetAttribute(&optin, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    ck_assert_int_eq(sms, 132);
    ck_assert_int_eq(p.multiProcessorCount, sms);
    ck_assert_int_eq(p.major * 10 + p.minor, 90);
    ck_assert_int_eq(major * 10 + minor, 90);
    ck_assert_int_eq(optin, 227 * 1024);
    ck_assert_uint_eq(p.totalGlobalMem, (size_t)4 << 30);
    cushim_set_capability(75);
    OK(cudaGetDeviceProperties(&p, 0));
    ck_assert_int_eq(p.major * 10 + p.minor, 75);
    OK(cudaRuntimeGetVersion(&runtime));
    ck_assert_int_eq(runtime, CUDART_VERSION);
    ck_assert_int_ne(cudaGetDeviceProperties(&p, 1), cudaSuccess);
    cudaFuncAttributes a;
    OK(cu_allow_smem(k_anything, 200 << 10));
    OK(cudaFuncGetAttributes(&a, (const void *)k_anything));
    ck_assert_int_eq(a.maxDynamicSharedSizeBytes, 200 << 10);
}
END_TEST

START_TEST(errors_have_texts) {
    ck_assert_str_eq(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory");
    ck_assert_str_eq(cudaGetErrorName(cudaErrorMemoryAllocation), "cudaErrorMemoryAllocation");
}
END_TEST

CHECK_MAIN("device", memory_info_follows_allocations, what_does_not_fit_is_refused,
           the_nth_allocation_fails, allocations_are_aligned,
           a_machine_without_device_or_driver_says_so, the_device_describes_itself,
           errors_have_texts)
