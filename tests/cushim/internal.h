/* What the files of the shim know of each other. One recursive mutex guards everything: each
 * entry of the API takes it (CUSHIM_API), and kernels run under it, on the thread that waits.
 */
#ifndef VRAMD_TESTS_CUSHIM_INTERNAL_H
#define VRAMD_TESTS_CUSHIM_INTERNAL_H

#include <cuda_runtime_api.h>
#include <stdint.h>
#include <functional>
#include <mutex>
#include "cushim_ctl.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define CUSHIM_ASAN 1
#else
#define CUSHIM_ASAN                       0
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

namespace cushim {

using work = std::function<void()>;

struct settings {
    int order, devices, driver, capability;
    bool guard;
    size_t memory;
    long fail_alloc;
    bool library, vmm;
};
extern settings config; /* device.cpp; from the environment */
extern cushim_counts counts;

extern long n_written; /* kernels, copies and fills that have run */

extern std::recursive_mutex mutex;

/* First line of each entry of the API. */
#define CUSHIM_API std::lock_guard<std::recursive_mutex> cushim_lock(cushim::mutex)

/* Remembers e for cudaGetLastError and returns it; a fault comes before everything. */
cudaError_t result(cudaError_t e);
bool faulted();
void set_fault(const char *text); /* the first one stays */
/* Counts down config.fail_alloc; true: this allocation fails. */
bool allocation_fails();

/* Deterministic; xorshift64*. */
struct rng {
    uint64_t state;
    explicit rng(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15u + 1) {}
    uint32_t next() {
        state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
        return (uint32_t)(state * 0x2545f4914f6cdd1du >> 32);
    }
    uint32_t below(uint32_t n) { return (uint32_t)((uint64_t)next() * n >> 32); }
};

/* grid.cpp */
void run_grid(const char *name, dim3 grid, dim3 block, size_t smem, const work &body,
              bool early);
/* Of the block whose threads all wait: as cushim_fault. */
void fault_of_block(const char *what);
uint32_t thread_index(); /* of the running thread, in its block */
/* The running thread waits until another one, or a copy that comes, wakes it. */
void sleep_until_woken();
void wake(uint32_t thread);
/* The running kernel and thread, for messages; false: the host runs. */
bool where(char *out, size_t size);

/* memory.cpp */
struct device_access { /* device memory can be touched while one lives */
    device_access();
    ~device_access();
};
enum class place { pageable, pinned, device, wrong }; /* wrong: overruns its allocation */
place place_of(const void *p, size_t bytes);
void protect_device(int rights); /* of mprotect */
bool writes_are_tracked();       /* early_faulted gets to know of writes to protected memory */
/* Bytes of the device that something other than cudaMalloc takes: graphs, handles. */
void charge(long bytes);
/* Whether the device has so many bytes more. */
bool has_free(size_t bytes);

/* vmm.cpp: of place_of and device_access, for memory that is mapped at reserved addresses. */
enum class mapped { no, yes, partly };
mapped mapped_at(const void *p, size_t bytes); /* no: p is not in a reserved range */
void protect_mapped(int rights);
/* memory.cpp */
void map_nan(char *at, size_t bytes); /* fresh memory, all 0xff */
bool guarded();                       /* the host must not touch device memory now */

/* stream.cpp */
/* Set by work that waits for another process: it stays in front of its stream, and runs again. */
extern bool waits;
/* Queues work on a stream, or adds it to the stream's capture. */
cudaError_t enqueue(cudaStream_t stream, work run);
/* Calls that a capture forbids: spoils the captures under way and returns the error. */
cudaError_t refuse_in_capture();
void finish_all();
/* The device's clock, for events: operations advance it by what they pretend to take. */
void advance_clock(uint64_t ns);

/* device.cpp */
size_t allowed_smem(const void *kernel);

} // namespace cushim

#endif
