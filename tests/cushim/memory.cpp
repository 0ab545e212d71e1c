/* Device and host memory.
 *
 * Device memory comes out of one huge reserved range and is never handed out twice, so that
 * freed memory stays inaccessible. It is all 0xff (NaN) until written: large allocations map
 * one file of such bytes again and again and so cost only the pages that are written. An
 * allocation ends within 256 bytes of a page that faults; under ASan it ends to the byte. With
 * the guard on, all of it is inaccessible while no device work runs. */
#include "early.h"
#include "internal.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <map>

namespace cushim {
namespace {

const size_t PAGE = 4096, RANGE = (size_t)1 << 40, FILE_BYTES = 8 << 20, SMALL = 1 << 20;
const size_t GRANULE = 2 << 20;           /* the driver's unit of physical memory */
const size_t CONTEXT = (size_t)200 << 20; /* what the device has given away before anything */

char *range;
size_t range_used, taken; /* taken: granules and charges */
std::map<char *, size_t> device_blocks, pinned_blocks;
int open_accesses;
bool tracked; /* the handler of SIGSEGV is this file's */

size_t round_up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

[[noreturn]] void die(const char *what) {
    perror(what);
    abort();
}

int nan_file() {
    static int fd = -1;
    if (fd >= 0) return fd;
    fd = memfd_create("cushim-nan", 0);
    char *page = (char *)malloc(SMALL);
    if (fd < 0 || !page) die("cushim: memfd_create");
    memset(page, 0xff, SMALL);
    for (size_t i = 0; i < FILE_BYTES; i += SMALL)
        if (write(fd, page, SMALL) != (ssize_t)SMALL) die("cushim: memfd");
    free(page);
    return fd;
}

char *page_of(char *p) {
    return (char *)((uintptr_t)p & ~(PAGE - 1));
}
size_t pages_of(size_t bytes) {
    return round_up(bytes ? bytes : 1, PAGE);
}

const std::pair<char *const, size_t> *find(const std::map<char *, size_t> &blocks,
                                           const void *p) {
    auto i = blocks.upper_bound((char *)p);
    if (i == blocks.begin()) return nullptr;
    --i;
    return (const char *)p < i->first + i->second ? &*i : nullptr;
}

/* Says who touched what, then lets the signal kill. ASan tells as much by itself. */
void on_segv(int, siginfo_t *info, void *) {
    if (early_faulted(info->si_addr)) return;
    char who[256];
    const char *p = (const char *)info->si_addr;
    bool ours = range && p >= range && p < range + RANGE;
    if (!where(who, sizeof who)) snprintf(who, sizeof who, "the host");
    dprintf(2, "cushim: %s: SIGSEGV at %p%s\n", who, info->si_addr,
            ours ? ": device memory, freed, not allocated, or touched by the host" : "");
    signal(SIGSEGV, SIG_DFL);
}

void explain_segv() {
    struct sigaction now, ours = {};
    if (CUSHIM_ASAN || sigaction(SIGSEGV, nullptr, &now) != 0 || now.sa_handler != SIG_DFL)
        return;
    ours.sa_sigaction = on_segv;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &ours, nullptr);
    tracked = true;
}

cudaError_t host_alloc(void **out, size_t bytes) {
    CUSHIM_API;
    if (!out) return result(cudaErrorInvalidValue);
    if (cudaError_t e = refuse_in_capture()) return e;
    if (allocation_fails()) return result(cudaErrorMemoryAllocation);
    *out = aligned_alloc(PAGE, round_up(bytes ? bytes : 1, PAGE));
    if (!*out) return result(cudaErrorMemoryAllocation);
    memset(*out, 0xff, bytes);
    pinned_blocks[(char *)*out] = bytes;
    return result(cudaSuccess);
}

} // namespace

void map_nan(char *at, size_t bytes) {
    if (bytes < SMALL) {
        if (mprotect(at, bytes, PROT_READ | PROT_WRITE) != 0) die("cushim: mprotect");
        memset(at, 0xff, bytes);
        return;
    }
    for (size_t i = 0; i < bytes; i += FILE_BYTES) {
        size_t n = bytes - i < FILE_BYTES ? bytes - i : FILE_BYTES;
        if (mmap(at + i, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                 nan_file(), 0) == MAP_FAILED)
            die("cushim: mmap");
    }
}

bool has_free(size_t bytes) {
    return bytes <= config.memory && CONTEXT + taken + bytes <= config.memory;
}
bool writes_are_tracked() {
    return tracked;
}
bool guarded() {
    return config.guard && !open_accesses;
}

void protect_device(int rights) {
    for (auto &b : device_blocks) mprotect(page_of(b.first), pages_of(b.second), rights);
    protect_mapped(rights);
}

device_access::device_access() {
    if (open_accesses++ != 0 || !config.guard) return;
    protect_device(PROT_READ | PROT_WRITE);
    early_opened();
}
device_access::~device_access() {
    if (--open_accesses != 0 || !config.guard) return;
    early_closed();
    protect_device(PROT_NONE);
}

place place_of(const void *p, size_t bytes) {
    const char *c = (const char *)p;
    if (auto *b = find(device_blocks, p))
        return c + bytes <= b->first + b->second ? place::device : place::wrong;
    if (c >= range && c < range + range_used) return place::wrong; /* freed, or between two */
    const mapped m = mapped_at(p, bytes);
    if (m != mapped::no) return m == mapped::yes ? place::device : place::wrong;
    if (auto *b = find(pinned_blocks, p))
        return c + bytes <= b->first + b->second ? place::pinned : place::wrong;
    return place::pageable;
}

void charge(long bytes) {
    taken += (size_t)bytes;
}

} // namespace cushim

using namespace cushim;

void cushim_set_guard(bool on) {
    CUSHIM_API;
    if (open_accesses == 0) protect_device(on ? PROT_NONE : PROT_READ | PROT_WRITE);
    config.guard = on;
}

extern "C" {

cudaError_t cudaMalloc(void **out, size_t bytes) {
    CUSHIM_API;
    if (!out) return result(cudaErrorInvalidValue);
    if (cudaError_t e = refuse_in_capture()) return e;
    *out = nullptr;
    if (bytes == 0) return result(cudaSuccess);
    size_t granules = round_up(bytes, GRANULE); /* less than bytes near SIZE_MAX */
    if (allocation_fails() || !has_free(bytes) || !has_free(granules))
        return result(cudaErrorMemoryAllocation);
    if (!range) {
        range = (char *)mmap(nullptr, RANGE, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (range == MAP_FAILED) die("cushim: device memory");
        explain_segv();
    }
    size_t pages = pages_of(bytes);
    if (range_used + pages + PAGE > RANGE) return result(cudaErrorMemoryAllocation);
    char *start = range + range_used, *p = start + (pages - bytes) / 256 * 256;
    map_nan(start, pages);
    ASAN_POISON_MEMORY_REGION(start, pages);
    ASAN_UNPOISON_MEMORY_REGION(p, bytes);
    range_used += pages + PAGE;
    if (guarded()) mprotect(start, pages, PROT_NONE);
    device_blocks[p] = bytes;
    taken += granules;
    counts.allocations++;
    counts.bytes += bytes;
    if (counts.bytes > counts.peak) counts.peak = counts.bytes;
    *out = p;
    return result(cudaSuccess);
}

cudaError_t cudaFree(void *p) {
    CUSHIM_API;
    if (!p) return result(cudaSuccess);
    if (cudaError_t e = refuse_in_capture()) return e;
    auto i = device_blocks.find((char *)p);
    if (i == device_blocks.end()) return result(cudaErrorInvalidValue);
    finish_all();
    size_t bytes = i->second;
    char *start = page_of(i->first);
    if (mmap(start, pages_of(bytes), PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        die("cushim: free");
    device_blocks.erase(i);
    taken -= round_up(bytes, GRANULE);
    counts.allocations--;
    counts.bytes -= bytes;
    return result(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    CUSHIM_API;
    if (!free_bytes || !total) return result(cudaErrorInvalidValue);
    *total = config.memory;
    *free_bytes = CONTEXT + taken < config.memory ? config.memory - CONTEXT - taken : 0;
    return result(cudaSuccess);
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) {
    return host_alloc(out, bytes);
}
cudaError_t cudaMallocHost(void **out, size_t bytes) {
    return host_alloc(out, bytes);
}

cudaError_t cudaFreeHost(void *p) {
    CUSHIM_API;
    if (!p) return result(cudaSuccess);
    if (!pinned_blocks.count((char *)p)) return result(cudaErrorInvalidValue);
    finish_all();
    pinned_blocks.erase((char *)p);
    free(p);
    return result(cudaSuccess);
}

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned) {
    CUSHIM_API;
    if (!p || !bytes) return result(cudaErrorInvalidValue);
    if (find(pinned_blocks, p)) return result(cudaErrorHostMemoryAlreadyRegistered);
    pinned_blocks[(char *)p] = bytes;
    return result(cudaSuccess);
}

cudaError_t cudaHostUnregister(void *p) {
    CUSHIM_API;
    finish_all();
    return result(pinned_blocks.erase((char *)p) ? cudaSuccess
                                                 : cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaHostGetDevicePointer(void **out, void *host, unsigned) {
    CUSHIM_API;
    if (place_of(host, 1) != place::pinned) return result(cudaErrorInvalidValue);
    *out = host;
    return result(cudaSuccess);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *a, const void *p) {
    CUSHIM_API;
    if (!a) return result(cudaErrorInvalidValue);
    memset(a, 0, sizeof *a);
    place at = place_of(p, 1);
    if (at == place::wrong) return result(cudaErrorInvalidValue);
    a->type = at == place::device   ? cudaMemoryTypeDevice
              : at == place::pinned ? cudaMemoryTypeHost
                                    : cudaMemoryTypeUnregistered;
    if (at == place::device || at == place::pinned) a->devicePointer = (void *)p;
    if (at == place::pinned) a->hostPointer = (void *)p;
    return result(cudaSuccess);
}

} // extern "C"
