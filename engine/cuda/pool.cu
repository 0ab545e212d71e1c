/* Pools by the driver's virtual memory management: addresses are reserved once, and memory of the
 * device is mapped at their start, granule by granule. A granule has no handle of its own here: it
 * is released as soon as it is mapped, and goes back to the driver when it is unmapped. */
#include "engine/cuda/cuda.h"

#include <cudaTypedefs.h>

/* Entry points of the driver, which the plugin does not link. */
typedef struct vmm {
    PFN_cuDeviceGet_v2000 device;
    PFN_cuDeviceGetAttribute_v2000 attribute;
    PFN_cuMemGetAllocationGranularity_v10020 granularity;
    PFN_cuMemAddressReserve_v10020 reserve;
    PFN_cuMemAddressFree_v10020 free_addresses;
    PFN_cuMemCreate_v10020 create;
    PFN_cuMemRelease_v10020 release;
    PFN_cuMemMap_v10020 map;
    PFN_cuMemUnmap_v10020 unmap;
    PFN_cuMemSetAccess_v10020 set_access;
} vmm;

enum { VMM_VERSION = 10020 }; /* CUDA 10.2 brought it */

static bool find(const char *name, void **out) {
    cudaDriverEntryPointQueryResult found;
    return cudaGetDriverEntryPointByVersion(name, out, VMM_VERSION, cudaEnableDefault,
                                            &found) == cudaSuccess &&
           found == cudaDriverEntryPointSuccess;
}

static bool find_vmm(vmm *v) {
    return find("cuDeviceGet", (void **)&v->device) &&
           find("cuDeviceGetAttribute", (void **)&v->attribute) &&
           find("cuMemGetAllocationGranularity", (void **)&v->granularity) &&
           find("cuMemAddressReserve", (void **)&v->reserve) &&
           find("cuMemAddressFree", (void **)&v->free_addresses) &&
           find("cuMemCreate", (void **)&v->create) &&
           find("cuMemRelease", (void **)&v->release) && find("cuMemMap", (void **)&v->map) &&
           find("cuMemUnmap", (void **)&v->unmap) &&
           find("cuMemSetAccess", (void **)&v->set_access);
}

static CUmemAllocationProp memory_of(int device) {
    CUmemAllocationProp p = {};
    p.type = CU_MEM_ALLOCATION_TYPE_PINNED; /* what memory of a device is called */
    p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    p.location.id = device;
    return p;
}

bool cuda_pools_can_move(int device) {
    vmm v;
    CUdevice d;
    int able = 0;
    size_t unit = 0;
    const CUmemAllocationProp p = memory_of(device);
    const bool found = find_vmm(&v);
    (void)cudaGetLastError();
    return found && v.device(&d, device) == CUDA_SUCCESS &&
           v.attribute(&able, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, d) ==
               CUDA_SUCCESS &&
           able && v.granularity(&unit, &p, CU_MEM_ALLOC_GRANULARITY_MINIMUM) == CUDA_SUCCESS &&
           unit && CUDA_GRANULE % unit == 0;
}

static status failed(const cuda_host *h, CUresult r, uint64_t bytes, err *er) {
    const bool memory = r == CUDA_ERROR_OUT_OF_MEMORY;
    return cuda_fail_hint(h, er, memory ? ERR_NO_MEMORY : ERR_DEVICE, "memory",
                          memory ? "give a smaller memory, or see what else runs on the device"
                                 : "",
                          "the device cannot give %llu bytes for class kv (driver: error %d)",
                          (unsigned long long)bytes, (int)r);
}

/* One granule at the end. */
static CUresult add(const vmm *v, const cuda_pool *p, int device) {
    CUmemGenericAllocationHandle h;
    CUmemAllocationProp prop = memory_of(device);
    CUmemAccessDesc access = {};
    const CUdeviceptr at = (CUdeviceptr)(uintptr_t)(p->base + p->bytes);
    access.location = prop.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    CUresult r = v->create(&h, CUDA_GRANULE, &prop, 0);
    if (r != CUDA_SUCCESS) return r;
    r = v->map(at, CUDA_GRANULE, 0, h, 0);
    v->release(h); /* when it is unmapped, or now */
    if (r != CUDA_SUCCESS) return r;
    r = v->set_access(at, CUDA_GRANULE, &access, 1);
    if (r != CUDA_SUCCESS) v->unmap(at, CUDA_GRANULE);
    return r;
}

static CUresult cut(const vmm *v, cuda_pool *p, uint64_t bytes) {
    if (bytes >= p->bytes) return CUDA_SUCCESS;
    const CUresult r = v->unmap((CUdeviceptr)(uintptr_t)(p->base + bytes), p->bytes - bytes);
    if (r == CUDA_SUCCESS) p->bytes = bytes;
    return r;
}

status cuda_pool_resize(cuda_pool *p, const cuda_host *h, int device, uint64_t bytes, err *er) {
    vmm v;
    const uint64_t was = p->bytes;
    if (!find_vmm(&v)) return failed(h, CUDA_ERROR_NOT_SUPPORTED, bytes, er);
    CUresult r = cut(&v, p, bytes);
    while (r == CUDA_SUCCESS && p->bytes < bytes) {
        r = add(&v, p, device);
        if (r == CUDA_SUCCESS) p->bytes += CUDA_GRANULE;
    }
    if (r == CUDA_SUCCESS) return OK;
    cut(&v, p, was);
    return failed(h, r, bytes, er);
}

status cuda_pool_open(cuda_pool *p, const cuda_host *h, int device, uint64_t bytes,
                      uint64_t most, err *er) {
    vmm v;
    CUdeviceptr at = 0;
    *p = cuda_pool{};
    if (!find_vmm(&v)) return failed(h, CUDA_ERROR_NOT_SUPPORTED, most, er);
    const CUresult r = v.reserve(&at, most, CUDA_GRANULE, 0, 0);
    if (r != CUDA_SUCCESS) return failed(h, r, most, er);
    p->base = (unsigned char *)(uintptr_t)at;
    p->most = most;
    const status s = cuda_pool_resize(p, h, device, bytes, er);
    if (s != OK) cuda_pool_close(p);
    return s;
}

void cuda_pool_close(cuda_pool *p) {
    vmm v;
    if (p->base && find_vmm(&v)) {
        cut(&v, p, 0);
        v.free_addresses((CUdeviceptr)(uintptr_t)p->base, p->most);
    }
    *p = cuda_pool{};
}
