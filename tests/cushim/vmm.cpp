/* Virtual memory management: the driver's functions that reserve addresses and map memory there.
 * Physical memory has no place of its own here: what is mapped is fresh (all 0xff), and what is
 * unmapped faults. A mapping is cut only where it began and ended, as on a device; the same memory
 * is mapped once. */
#include "internal.h"

#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <map>

namespace cushim {
namespace {

const size_t UNIT = 2 << 20; /* the granularity */

struct physical {
    size_t bytes;
    bool handle, mapped;
};
struct mapping {
    size_t bytes;
    unsigned long long handle;
    bool access;
};
std::map<unsigned long long, physical> memory;
std::map<char *, size_t> reserved;
std::map<char *, mapping> mappings;
unsigned long long last_handle;

char *address(CUdeviceptr p) {
    return (char *)(uintptr_t)p;
}

/* The reserved range around p. */
const std::pair<char *const, size_t> *range_of(const void *p, size_t bytes) {
    auto i = reserved.upper_bound((char *)p);
    if (i == reserved.begin()) return nullptr;
    --i;
    return (const char *)p + bytes <= i->first + i->second ? &*i : nullptr;
}

void forget(unsigned long long h) {
    const physical &p = memory.at(h);
    if (p.handle || p.mapped) return;
    counts.granules--;
    counts.bytes -= p.bytes;
    charge(-(long)p.bytes);
    memory.erase(h);
}

/* The mappings that make up a range; false: they begin or end elsewhere, or there is a hole. */
template <typename F> bool each(char *at, size_t bytes, F f) {
    char *end = at + bytes, *next = at;
    for (auto i = mappings.find(at); i != mappings.end() && i->first == next && next < end; ++i)
        next += i->second.bytes;
    if (next != end || bytes == 0) return false;
    for (auto i = mappings.find(at); i != mappings.end() && i->first < end;) i = f(i);
    return true;
}

CUresult device_get(CUdevice *out, int n) {
    *out = n;
    return n < config.devices ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult attribute(int *out, CUdevice_attribute a, CUdevice) {
    *out = a == CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED && config.vmm;
    return CUDA_SUCCESS;
}

CUresult granularity(size_t *out, const CUmemAllocationProp *p,
                     CUmemAllocationGranularity_flags) {
    *out = UNIT;
    return p->location.type == CU_MEM_LOCATION_TYPE_DEVICE ? CUDA_SUCCESS
                                                           : CUDA_ERROR_INVALID_VALUE;
}

CUresult reserve(CUdeviceptr *out, size_t bytes, size_t align, CUdeviceptr,
                 unsigned long long) {
    CUSHIM_API;
    if (bytes == 0 || bytes % UNIT || (align && align % UNIT)) return CUDA_ERROR_INVALID_VALUE;
    char *p = (char *)mmap(nullptr, bytes + UNIT, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    char *at = (char *)(((uintptr_t)p + UNIT - 1) / UNIT * UNIT);
    if (at > p) munmap(p, (size_t)(at - p));
    munmap(at + bytes, (size_t)(p + UNIT - at));
    reserved[at] = bytes;
    *out = (CUdeviceptr)(uintptr_t)at;
    return CUDA_SUCCESS;
}

CUresult free_addresses(CUdeviceptr p, size_t bytes) {
    CUSHIM_API;
    auto i = reserved.find(address(p));
    if (i == reserved.end() || i->second != bytes) return CUDA_ERROR_INVALID_VALUE;
    auto m = mappings.lower_bound(i->first);
    if (m != mappings.end() && m->first < i->first + bytes) return CUDA_ERROR_INVALID_VALUE;
    munmap(i->first, bytes);
    reserved.erase(i);
    return CUDA_SUCCESS;
}

CUresult create(CUmemGenericAllocationHandle *out, size_t bytes, const CUmemAllocationProp *p,
                unsigned long long) {
    CUSHIM_API;
    if (bytes == 0 || bytes % UNIT || p->type != CU_MEM_ALLOCATION_TYPE_PINNED)
        return CUDA_ERROR_INVALID_VALUE;
    if (refuse_in_capture()) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (allocation_fails() || !has_free(bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
    *out = ++last_handle;
    memory[*out] = {bytes, true, false};
    charge((long)bytes);
    counts.granules++;
    counts.bytes += bytes;
    if (counts.bytes > counts.peak) counts.peak = counts.bytes;
    return CUDA_SUCCESS;
}

CUresult release(CUmemGenericAllocationHandle h) {
    CUSHIM_API;
    auto i = memory.find(h);
    if (i == memory.end() || !i->second.handle) return CUDA_ERROR_INVALID_VALUE;
    i->second.handle = false;
    forget(h);
    return CUDA_SUCCESS;
}

CUresult map(CUdeviceptr p, size_t bytes, size_t offset, CUmemGenericAllocationHandle h,
             unsigned long long) {
    CUSHIM_API;
    auto i = memory.find(h);
    auto next = mappings.lower_bound(address(p));
    const bool free_here =
        (next == mappings.end() || next->first >= address(p) + bytes) &&
        (next == mappings.begin() ||
         std::prev(next)->first + std::prev(next)->second.bytes <= address(p));
    if (offset || i == memory.end() || i->second.mapped || i->second.bytes != bytes ||
        !range_of(address(p), bytes) || p % UNIT || !free_here)
        return CUDA_ERROR_INVALID_VALUE;
    i->second.mapped = true;
    mappings[address(p)] = {bytes, h, false};
    return CUDA_SUCCESS;
}

CUresult set_access(CUdeviceptr p, size_t bytes, const CUmemAccessDesc *d, size_t n) {
    CUSHIM_API;
    if (n != 1 || d->flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
        return CUDA_ERROR_INVALID_VALUE;
    const bool ok = each(address(p), bytes, [](std::map<char *, mapping>::iterator i) {
        if (!i->second.access) map_nan(i->first, i->second.bytes);
        i->second.access = true;
        if (guarded()) mprotect(i->first, i->second.bytes, PROT_NONE);
        return std::next(i);
    });
    return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult unmap(CUdeviceptr p, size_t bytes) {
    CUSHIM_API;
    const bool ok = each(address(p), bytes, [](std::map<char *, mapping>::iterator i) {
        if (mmap(i->first, i->second.bytes, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
            abort();
        memory.at(i->second.handle).mapped = false;
        forget(i->second.handle);
        return mappings.erase(i);
    });
    return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

const struct {
    const char *name;
    void *function;
} driver[] = {{"cuDeviceGet", (void *)device_get},
              {"cuDeviceGetAttribute", (void *)attribute},
              {"cuMemGetAllocationGranularity", (void *)granularity},
              {"cuMemAddressReserve", (void *)reserve},
              {"cuMemAddressFree", (void *)free_addresses},
              {"cuMemCreate", (void *)create},
              {"cuMemRelease", (void *)release},
              {"cuMemMap", (void *)map},
              {"cuMemUnmap", (void *)unmap},
              {"cuMemSetAccess", (void *)set_access}};

} // namespace

mapped mapped_at(const void *p, size_t bytes) {
    if (!range_of(p, 1)) return mapped::no;
    auto i = mappings.upper_bound((char *)p);
    const char *end = (const char *)p + bytes, *next = (const char *)p;
    if (i == mappings.begin()) return mapped::partly;
    for (--i; i != mappings.end() && i->first <= next && next < end && i->second.access; ++i)
        if (next < i->first + i->second.bytes) next = i->first + i->second.bytes;
    return next >= end ? mapped::yes : mapped::partly;
}

void protect_mapped(int rights) {
    for (auto i = mappings.begin(); i != mappings.end();) {
        char *at = i->first, *end = at;
        for (; i != mappings.end() && i->first == end && i->second.access; ++i)
            end += i->second.bytes;
        if (end == at)
            ++i;
        else
            mprotect(at, (size_t)(end - at), rights);
    }
}

} // namespace cushim

using namespace cushim;

void cushim_set_vmm(bool there) {
    CUSHIM_API;
    config.vmm = there;
}

extern "C" cudaError_t
cudaGetDriverEntryPointByVersion(const char *name, void **out, unsigned, unsigned long long,
                                 cudaDriverEntryPointQueryResult *found) {
    CUSHIM_API;
    *out = nullptr;
    for (const auto &d : driver)
        if (strcmp(d.name, name) == 0) *out = d.function;
    if (found) *found = *out ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return result(cudaSuccess);
}
