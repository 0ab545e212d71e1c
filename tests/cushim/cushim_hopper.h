/* What engine/cuda/hopper.cuh is on the CPU: barriers in shared memory, bulk copies and wgmma (contracts there).
 *
 * A bulk copy's destination is NaN until it has come, which is as late as the order allows; a product
 * reads its operands at some moment between its issue and its wait, and its accumulators are NaN meanwhile. */
#ifndef VRAMD_TESTS_CUSHIM_HOPPER_H
#define VRAMD_TESTS_CUSHIM_HOPPER_H

/* Addresses of dynamic shared memory begin at no multiple of 1,024. */
uint32_t cu_shared_address(const void *shared);

void cu_mbar_init(uint64_t *bar, uint32_t arrivals);
void cu_mbar_arrive(uint64_t *bar);
void cu_mbar_expect(uint64_t *bar, uint32_t bytes);
void cu_mbar_wait(uint64_t *bar, uint32_t parity);
static inline void cu_mbar_ready() {}

void cu_bulk_copy(void *shared, const void *global, uint32_t bytes, uint64_t *bar);
void cu_fence_async();
void cu_named_barrier(int id, int threads);

template <int N> static inline void cu_registers_fewer() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "registers of a thread");
}
template <int N> static inline void cu_registers_more() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "registers of a thread");
}

struct cushim_product {
    float *d;
    const uint32_t *a; /* NULL: in shared memory */
    uint64_t a_desc, b_desc;
    int n, keep; /* columns of d */
    bool is_bf16;
};
void cushim_wgmma(const cushim_product *);
void cu_wgmma_fence();
void cu_wgmma_commit();
void cushim_wgmma_wait(uint32_t n_groups);
template <int N> static inline void cu_wgmma_wait() {
    static_assert(N >= 0, "groups under way");
    cushim_wgmma_wait(N);
}
template <int N> static inline void cu_wgmma_hold(float (&)[N]) {}

static inline constexpr bool cushim_is_bf16(__half) {
    return false;
}
static inline constexpr bool cushim_is_bf16(__nv_bfloat16) {
    return true;
}
template <int N, class T>
static inline void cu_wgmma(float (&d)[N], const uint32_t a[4], uint64_t b, int keep, T t) {
    static_assert(N == 32 || N == 64, "as hopper.cuh has them");
    const cushim_product p = {d, a, 0, b, 2 * N, keep, cushim_is_bf16(t)};
    cushim_wgmma(&p);
}
template <int N, class T>
static inline void cu_wgmma(float (&d)[N], uint64_t a, uint64_t b, int keep, T t) {
    static_assert(N == 32 || N == 64, "as hopper.cuh has them");
    const cushim_product p = {d, nullptr, a, b, 2 * N, keep, cushim_is_bf16(t)};
    cushim_wgmma(&p);
}

#endif
