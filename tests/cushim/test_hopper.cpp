/* The shim finds what it promises to find in kernels that use engine/cuda/hopper.cuh. */
#include "testing.h"

#include "engine/cuda/hopper.cuh"

enum {
    RIGHT,
    NO_FENCE,
    NO_ASYNC_FENCE,
    UNALIGNED,
    D_TOUCHED,
    A_TOUCHED,
    NO_WAIT,
    EARLY_READ,
    OTHER_B,
    ONE_WARP_LESS,
    NO_SWIZZLE
};

/* out[0]: a sum of 16 products of ones, by a warpgroup whose tile came by cp.async. */
template <int MODE> __global__ void k_product(float *out, const uint16_t *ones) {
    CU_DYN_SHARED(uint8_t, memory);
    CU_SHARED(uint64_t, bar, 1);
    uint8_t *tile = memory + (-cu_shared_address(memory) & 1023);
    if (MODE == UNALIGNED) tile += 128;
    if (threadIdx.x == 0) cu_mbar_init(bar, 1);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < 512; i += 128) cu_cp_async16(tile + 16 * i, ones);
    cu_cp_async_commit();
    cu_cp_async_wait<0>();
    if (MODE != NO_ASYNC_FENCE) cu_fence_async();
    __syncthreads();
    float d[32] = {};
    uint32_t a[4] = {0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u};
    uint64_t b = cu_wgmma_desc(cu_shared_address(tile));
    if (MODE == OTHER_B) b += threadIdx.x / 32 * CU_WGMMA_STEP;
    if (MODE == NO_SWIZZLE) b &= ~(3ull << 62);
    if (MODE != NO_FENCE) cu_wgmma_fence();
    if (MODE != ONE_WARP_LESS || threadIdx.x >= 32) cu_wgmma(d, a, b, 1, __half());
    cu_wgmma_commit();
    if (MODE == EARLY_READ) out[threadIdx.x] = d[0];
    if (MODE == D_TOUCHED) d[3] += 1;
    if (MODE == A_TOUCHED) a[1] = 0;
    if (MODE != NO_WAIT) cu_wgmma_wait<0>();
    if (MODE != EARLY_READ) out[threadIdx.x] = d[0];
}

template <int MODE> static std::vector<float> run(int order) {
    static uint16_t *ones = device(std::vector<uint16_t>(8, 0x3c00));
    static float *out = device<float>(128);
    cushim_set_order(order);
    CU_LAUNCH((k_product<MODE>), 1, 128, 16 << 10, nullptr, out, ones);
    return cudaDeviceSynchronize() == cudaSuccess ? host(out, 128) : std::vector<float>();
}

START_TEST(a_product_without_a_fault_is_right_in_every_order) {
    for (int order = 0; order < N_ORDERS; order++)
        for (float f : run<RIGHT>(order)) ck_assert_float_eq(f, 16.0f);
}
END_TEST

START_TEST(accumulators_are_nan_until_the_wait) {
    for (int order = 0; order < N_ORDERS; order++)
        for (float f : run<EARLY_READ>(order)) ck_assert_float_nan(f);
}
END_TEST

#define FAULT_OF(call, words)                                                                  \
    do {                                                                                       \
        call;                                                                                  \
        ck_assert_fault(words);                                                                \
    } while (0)

START_TEST(products_that_a_device_would_get_wrong_are_named) {
    for (int order = 0; order < N_ORDERS; order++) {
        FAULT_OF(run<NO_FENCE>(order), "without cu_wgmma_fence");
        FAULT_OF(run<NO_ASYNC_FENCE>(order), "without cu_fence_async");
        FAULT_OF(run<UNALIGNED>(order), "not a multiple of 1024");
        FAULT_OF(run<D_TOUCHED>(order), "d is written to before cu_wgmma_wait");
        FAULT_OF(run<A_TOUCHED>(order), "registers of a are written to before cu_wgmma_wait");
        FAULT_OF(run<NO_WAIT>(order), "wgmma never waited for");
        FAULT_OF(run<OTHER_B>(order), "differ in b");
        FAULT_OF(run<ONE_WARP_LESS>(order), "lacks products");
        FAULT_OF(run<NO_SWIZZLE>(order), "no swizzle of 128 bytes");
        for (float f : run<RIGHT>(order)) ck_assert_float_eq(f, 16.0f);
    }
}
END_TEST

/* ---- barriers and copies */

enum {
    NO_PHASE = 100,
    NOT_INITIALISED,
    ODD_BYTES,
    LEFT_BEHIND,
    TOO_MANY,
    TWICE,
    NO_INIT_BARRIER
};

/* out: what a bulk copy of 512 bytes brought. */
template <int MODE> __global__ void k_copy(uint32_t *out, const uint32_t *in) {
    CU_SHARED(uint64_t, bar, 2);
    CU_DYN_SHARED(uint32_t, s);
    if (threadIdx.x == 0) cu_mbar_init(bar, 1);
    if (MODE == TWICE && threadIdx.x == 0) cu_mbar_init(bar, 1);
    if (MODE != NO_INIT_BARRIER) __syncthreads();
    if (threadIdx.x == 0) {
        cu_mbar_expect(bar, MODE == NO_PHASE ? 528 : 512);
        cu_bulk_copy(s, in, MODE == ODD_BYTES ? 504 : 512, bar);
        if (MODE == TOO_MANY) cu_mbar_arrive(bar), cu_mbar_arrive(bar);
    }
    if (MODE != LEFT_BEHIND && MODE != EARLY_READ)
        cu_mbar_wait(bar + (MODE == NOT_INITIALISED), 0);
    for (uint32_t i = threadIdx.x; i < 128; i += blockDim.x) out[i] = s[i];
    if (MODE == EARLY_READ) cu_mbar_wait(bar, 0);
}

template <int MODE> static std::vector<uint32_t> copy(int order) {
    static uint32_t *in, *out = device<uint32_t>(128);
    if (!in) {
        std::vector<uint32_t> v(132);
        for (uint32_t i = 0; i < v.size(); i++) v[i] = i;
        in = device(v);
    }
    cushim_set_order(order);
    CU_LAUNCH((k_copy<MODE>), 1, 64, 1024, nullptr, out, in);
    return cudaDeviceSynchronize() == cudaSuccess ? host(out, 128) : std::vector<uint32_t>();
}

START_TEST(what_a_bulk_copy_brings_is_there_after_its_phase_and_not_before) {
    int early = 0;
    for (int order = 0; order < N_ORDERS; order++) {
        const std::vector<uint32_t> after = copy<RIGHT>(order),
                                    before = copy<EARLY_READ>(order);
        for (uint32_t i = 0; i < 128; i++) ck_assert_uint_eq(after[i], i);
        for (uint32_t v : before) early += v == 0xffffffffu;
    }
    ck_assert_int_gt(early, 0);
}
END_TEST

START_TEST(wrong_phases_and_copies_are_named) {
    for (int order = 0; order < N_ORDERS; order++) {
        FAULT_OF(copy<NO_PHASE>(order), "for a phase or a named barrier");
        FAULT_OF(copy<NOT_INITIALISED>(order), "was not initialised");
        FAULT_OF(copy<ODD_BYTES>(order), "not 16-byte aligned");
        FAULT_OF(copy<TWICE>(order), "initialised twice");
        if (order == 0 || order == 2)
            FAULT_OF(copy<LEFT_BEHIND>(order), "before a bulk copy has come");
        if (order != 1) FAULT_OF(copy<TOO_MANY>(order), "more than 1 threads arrive");
        for (uint32_t v : copy<RIGHT>(order)) ck_assert_uint_lt(v, 128);
    }
    cushim_set_order(2); /* another thread comes first */
    FAULT_OF(copy<NO_INIT_BARRIER>(2), "was not initialised");
}
END_TEST

CHECK_MAIN("hopper", a_product_without_a_fault_is_right_in_every_order,
           accumulators_are_nan_until_the_wait,
           products_that_a_device_would_get_wrong_are_named,
           what_a_bulk_copy_brings_is_there_after_its_phase_and_not_before,
           wrong_phases_and_copies_are_named)
