/* Virtual memory management of the pretended device: what is mapped can be used, what is not
 * faults, and the driver's rules are kept. */
#include "testing.h"

#include <cudaTypedefs.h>

static const size_t UNIT = 2 << 20;

template <class F> static F entry(const char *name) {
    void *f = nullptr;
    cudaDriverEntryPointQueryResult found;
    OK(cudaGetDriverEntryPointByVersion(name, &f, 10020, cudaEnableDefault, &found));
    ck_assert_int_eq(found, cudaDriverEntryPointSuccess);
    return (F)f;
}

static PFN_cuMemCreate_v10020 create;
static PFN_cuMemRelease_v10020 release;
static PFN_cuMemAddressReserve_v10020 reserve;
static PFN_cuMemAddressFree_v10020 free_addresses;
static PFN_cuMemMap_v10020 map;
static PFN_cuMemUnmap_v10020 unmap;
static PFN_cuMemSetAccess_v10020 set_access;

static void load() {
    create = entry<PFN_cuMemCreate_v10020>("cuMemCreate");
    release = entry<PFN_cuMemRelease_v10020>("cuMemRelease");
    reserve = entry<PFN_cuMemAddressReserve_v10020>("cuMemAddressReserve");
    free_addresses = entry<PFN_cuMemAddressFree_v10020>("cuMemAddressFree");
    map = entry<PFN_cuMemMap_v10020>("cuMemMap");
    unmap = entry<PFN_cuMemUnmap_v10020>("cuMemUnmap");
    set_access = entry<PFN_cuMemSetAccess_v10020>("cuMemSetAccess");
}

static void add(CUdeviceptr at) {
    CUmemGenericAllocationHandle h;
    CUmemAllocationProp p = {};
    CUmemAccessDesc d = {};
    p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.location.type = d.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    d.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    ck_assert_int_eq(create(&h, UNIT, &p, 0), CUDA_SUCCESS);
    ck_assert_int_eq(map(at, UNIT, 0, h, 0), CUDA_SUCCESS);
    ck_assert_int_eq(map(at, UNIT, 0, h, 0), CUDA_ERROR_INVALID_VALUE); /* twice */
    ck_assert_int_eq(release(h), CUDA_SUCCESS);
    ck_assert_int_eq(set_access(at, UNIT, &d, 1), CUDA_SUCCESS);
}

static __global__ void k_fill(unsigned char *p, size_t n) {
    for (size_t i = threadIdx.x; i < n; i += blockDim.x) p[i] = 7;
}

START_TEST(mapped_memory_is_memory_until_it_is_unmapped) {
    load();
    CUdeviceptr at;
    size_t before, now, total;
    OK(cudaMemGetInfo(&before, &total));
    ck_assert_int_eq(reserve(&at, 8 * UNIT, 0, 0, 0), CUDA_SUCCESS);
    unsigned char *p = (unsigned char *)(uintptr_t)at, two[2];
    for (int i = 0; i < 3; i++) add(at + i * UNIT);
    OK(cudaMemGetInfo(&now, &total));
    ck_assert_uint_eq(before - now, 3 * UNIT);
    ck_assert_int_eq(cushim_count().granules, 3);
    OK(cudaMemcpy(two, p + UNIT - 1, 2, cudaMemcpyDeviceToHost)); /* across a border */
    ck_assert(two[0] == 0xff && two[1] == 0xff);
    CU_LAUNCH(k_fill, 1, 32, 0, 0, p + UNIT - 8, 16);
    OK(cudaMemcpy(two, p + UNIT - 1, 2, cudaMemcpyDeviceToHost));
    ck_assert(two[0] == 7 && two[1] == 7);
    ck_assert(dies([&] { p[0] = 1; })); /* the host */
    ck_assert_int_ne(cudaMemcpy(two, p + 3 * UNIT - 1, 2, cudaMemcpyDeviceToHost), cudaSuccess);
    ck_assert_int_eq(unmap(at, UNIT / 2), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(unmap(at + UNIT, 3 * UNIT), CUDA_ERROR_INVALID_VALUE); /* a hole */
    ck_assert_int_eq(free_addresses(at, 8 * UNIT), CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(unmap(at + UNIT, 2 * UNIT), CUDA_SUCCESS);
    ck_assert(dies([&] {
        CU_LAUNCH(k_fill, 1, 32, 0, 0, p + UNIT, 16);
        cudaDeviceSynchronize();
        _exit(cushim_error() != nullptr);
    }));
    ck_assert_int_eq(cushim_count().granules, 1);
    add(at + UNIT); /* fresh, not what was there */
    OK(cudaMemcpy(two, p + UNIT - 1, 2, cudaMemcpyDeviceToHost));
    ck_assert(two[0] == 7 && two[1] == 0xff);
    ck_assert_int_eq(unmap(at, 2 * UNIT), CUDA_SUCCESS);
    ck_assert_int_eq(free_addresses(at, 8 * UNIT), CUDA_SUCCESS);
    OK(cudaMemGetInfo(&now, &total));
    ck_assert_uint_eq(before, now);
}
END_TEST

START_TEST(memory_that_is_not_there_is_refused) {
    load();
    CUmemGenericAllocationHandle h;
    CUmemAllocationProp p = {};
    size_t free_bytes, total;
    p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    OK(cudaMemGetInfo(&free_bytes, &total));
    ck_assert_int_eq(create(&h, free_bytes / UNIT * UNIT + UNIT, &p, 0),
                     CUDA_ERROR_OUT_OF_MEMORY);
    ck_assert_int_eq(create(&h, UNIT + 1, &p, 0), CUDA_ERROR_INVALID_VALUE);
    cushim_fail_alloc(1);
    ck_assert_int_eq(create(&h, UNIT, &p, 0), CUDA_ERROR_OUT_OF_MEMORY);
    ck_assert_int_eq(create(&h, UNIT, &p, 0), CUDA_SUCCESS);
    ck_assert_int_eq(release(h), CUDA_SUCCESS);
    ck_assert_uint_eq(cushim_count().bytes, 0);
}
END_TEST

CHECK_MAIN("vmm", mapped_memory_is_memory_until_it_is_unmapped,
           memory_that_is_not_there_is_refused)
