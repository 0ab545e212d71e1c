/* What a test can ask of the shim. Each setting is also an environment variable, read at the
 * first CUDA call, so that a daemon can be run with it. Any thread may call; plain C. */
#ifndef VRAMD_TESTS_CUSHIM_CTL_H
#define VRAMD_TESTS_CUSHIM_CTL_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* CUSHIM_ORDER: the order in which threads, blocks and streams take their turns.
 * 0 lockstep: every thread of a block goes to its next barrier or collective before any goes
 * on; streams run only when somebody waits. 1 greedy: one warp goes as far as it can before the
 * next one starts, lanes ascending; stream work runs as soon as it is queued. 2 greedy
 * backwards: last block, last warp, last lane first; streams as late as possible. 3, 4, ...
 * random and early, with that seed: streams run some of their work at random moments, and until its cu_grid_wait a kernel
 * does not see what those before it write (early.h). */
void cushim_set_order(int order);
int cushim_get_order(void);

/* CUSHIM_GUARD (1): the host gets SIGSEGV where it touches device memory. */
void cushim_set_guard(bool on);

/* CUSHIM_MEMORY (4 GiB): the device's bytes, as cudaMemGetInfo tells them. */
void cushim_set_memory(size_t bytes);

/* CUSHIM_DEVICES (1): 0 for a machine without. CUSHIM_DRIVER (13000): the CUDA version of the
 * driver, e.g. 12020; 0 for none. CUSHIM_CAPABILITY (90): e.g. 75 for sm_75. */
void cushim_set_devices(int n);
void cushim_set_driver(int version);
void cushim_set_capability(int capability);

/* CUSHIM_LIBRARY (1): 0 for a machine without cuBLASLt. */
void cushim_set_library(bool there);
bool cushim_has_library(void);

/* CUSHIM_VMM (1): 0 for a device without virtual memory management. */
void cushim_set_vmm(bool there);

/* CUSHIM_FAIL_ALLOC (0): the n-th allocation from now (cudaMalloc, cuMemCreate, cudaHostAlloc,
 * graph, cuBLASLt handle) fails; 0 for none. */
void cushim_fail_alloc(long n);

/* The first fault of a kernel (kernel, block, what), or NULL. Sticky, like a device's: every
 * later call fails until cushim_reset. */
const char *cushim_error(void);

/* The device fails now, as by the fault of a kernel: for tests of what then happens. */
void cushim_break(const char *text);

/* Waits for all work, forgets the fault. Allocations, streams and settings stay. */
void cushim_reset(void);

typedef struct cushim_counts {
    long launches;        /* kernels run, in graphs too */
    long graph_launches;  /* graphs run */
    long matmuls;         /* cublasLtMatmul run */
    long switches;        /* between fibers */
    long pageable_copies; /* asynchronous copies of memory that is not pinned: they wait on a
                             GPU */
    long pending;         /* operations queued and not run yet */
    long allocations;     /* device allocations that live */
    long granules;        /* of cuMemCreate, mapped or with a handle */
    size_t bytes, peak;   /* of both, as asked for */
} cushim_counts;
cushim_counts cushim_count(void);

#ifdef __cplusplus
}
#endif
#endif
