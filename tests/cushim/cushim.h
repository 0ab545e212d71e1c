/* The CUDA device language on the CPU, for tests: what engine/cuda/cu.h is under -DCUSHIM.
 *
 * Types, fp16/bf16/fp8 and the prototypes of the host API come from NVIDIA's own headers, so
 * that a wrong call fails to compile here as it does under nvcc. A CUDA thread is a fiber; the
 * fibers of a block take turns on one CPU thread, in the order that CUSHIM_ORDER chooses;
 * blocks run one after another. README.md: what that proves, and what not. */
#ifndef VRAMD_TESTS_CUSHIM_H
#define VRAMD_TESTS_CUSHIM_H

#ifndef __cplusplus
#error "cushim.h is for .cu files; host code in C includes cuda_runtime_api.h and cushim_ctl.h"
#endif

#include <cuda_runtime_api.h>
#include <vector_functions.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#undef __host__
#undef __device__
#undef __global__
#undef __constant__
#undef __shared__
#undef __forceinline__
#undef __launch_bounds__
#undef __grid_constant__
#define __host__
#define __device__
#define __global__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define CU_DEVICE static inline __attribute__((always_inline, unused))

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <functional>
#include <tuple>

#define CUSHIM_HIDDEN __attribute__((visibility("hidden")))

/* ---- Where a thread is */

struct cushim_thread {
    uint3 tid;
    uint32_t lane;
    bool waited; /* called cu_grid_wait */
};
struct cushim_block {
    uint3 bid;
    dim3 bdim, gdim;
    void *dyn_shared;
    uint64_t epoch; /* counts blocks: tells whether a cushim_site is of this one */
};
extern CUSHIM_HIDDEN cushim_thread *cushim_cur; /* the running thread */
extern CUSHIM_HIDDEN cushim_block cushim_blk;

#define threadIdx (cushim_cur->tid)
#define blockIdx  (cushim_blk.bid)
#define blockDim  (cushim_blk.bdim)
#define gridDim   (cushim_blk.gdim)
#define warpSize  32

/* ---- Launch */

void cushim_launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t smem,
                   cudaStream_t stream, bool early, std::function<void()> body);

/* Converts the arguments to the kernel's parameters now, implicitly, as a launch does. */
template <class... P, class... A>
static inline void cushim_bind(const char *name, dim3 grid, dim3 block, size_t smem,
                               cudaStream_t stream, void (*kernel)(P...), A... args) {
    static_assert(sizeof...(P) == sizeof...(A), "number of kernel arguments");
    std::tuple<P...> params(args...);
    cushim_launch(name, (const void *)kernel, grid, block, smem, stream, false,
                  [=] { std::apply(kernel, params); });
}

#define CU_LAUNCH(kernel, grid, block, smem, stream, ...)                                      \
    cushim_bind(#kernel, dim3(grid), dim3(block), smem, stream, kernel, ##__VA_ARGS__)

/* Each thread of an early launch must wait: checked in every order. What it does before: early.h. */
inline thread_local bool cu_early = true; /* see cu.h */
void cushim_must_have_waited(const char *name);

template <class... P, class... A>
static inline void cushim_bind_early(const char *name, dim3 grid, dim3 block, size_t smem,
                                     cudaStream_t stream, void (*kernel)(P...), A... args) {
    static_assert(sizeof...(P) == sizeof...(A), "number of kernel arguments");
    std::tuple<P...> params(args...);
    cushim_launch(name, (const void *)kernel, grid, block, smem, stream, true, [=] {
        cushim_cur->waited = false;
        std::apply(kernel, params);
        cushim_must_have_waited(name);
    });
}

#define CU_LAUNCH_EARLY(kernel, grid, block, smem, stream, ...)                                \
    cushim_bind_early(#kernel, dim3(grid), dim3(block), smem, stream, kernel, ##__VA_ARGS__)

/* ---- Shared memory: all 0xff when a block starts */

struct cushim_site {
    uint64_t epoch;
    void *at;
};
void *cushim_shared(cushim_site *site, size_t bytes);

#define CU_SHARED(T, name, n)                                                                  \
    static cushim_site name##_site;                                                            \
    T *name = (T *)(name##_site.epoch == cushim_blk.epoch                                      \
                        ? name##_site.at                                                       \
                        : cushim_shared(&name##_site, sizeof(T) * (n)))
#define CU_DYN_SHARED(T, name) T *name = (T *)cushim_blk.dyn_shared

/* ---- Barriers. The line tells two barriers apart: all threads must meet at the same one. */

enum cushim_vote { CUSHIM_COUNT, CUSHIM_OR, CUSHIM_AND };
int cushim_barrier(const char *file, int line, cushim_vote vote, int predicate);

#define __syncthreads()        ((void)cushim_barrier(__FILE__, __LINE__, CUSHIM_COUNT, 0))
#define __syncthreads_count(p) cushim_barrier(__FILE__, __LINE__, CUSHIM_COUNT, (p) != 0)
#define __syncthreads_or(p)    cushim_barrier(__FILE__, __LINE__, CUSHIM_OR, (p) != 0)
#define __syncthreads_and(p)   cushim_barrier(__FILE__, __LINE__, CUSHIM_AND, (p) != 0)

/* The running kernel did what a device would trap or get wrong: reports it with the kernel's
 * name and the block and ends the launch. */
[[noreturn]] void cushim_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

#include "cushim_warp.h"
#include "cushim_math.h"

#endif
