/* The one include of every .cu file of engine/cuda.
 *
 * Under nvcc: the CUDA headers, the launch and shared-memory macros, and a wrapper for each
 * inline-PTX instruction the engine uses. Under g++ -x c++ -DCUSHIM: tests/cushim/cushim.h,
 * which gives the same names on the CPU (tests only; tests/cushim/README.md tells how to write
 * a kernel that runs on both). No other file writes asm, <<<>>>, __shared__ or extern
 * __shared__, but hopper.cuh, which has the instructions of sm_90a. */
#ifndef VRAMD_ENGINE_CUDA_CU_H
#define VRAMD_ENGINE_CUDA_CU_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef CUSHIM
#include "cushim.h"
#else

#include <cuda_runtime.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

// clang-format off
/* Launches by value on a stream: CU_LAUNCH(kernel, grid, block, smem_bytes, stream, args...);
 * a template kernel stands in parentheses: CU_LAUNCH((kernel<64, 4>), ...). Errors of the launch
 * come from cudaGetLastError(). */
#define CU_LAUNCH(kernel, grid, block, smem, stream, ...)                                          \
    kernel<<<grid, block, smem, stream>>>(__VA_ARGS__)
// clang-format on

/* As CU_LAUNCH, but the kernel may start while the one before it on the stream still runs, as
 * soon as every block of that one has called cu_grid_trigger or ended (CUDA C++ Programming
 * Guide, "Programmatic Dependent Launch"). Every thread of such a kernel must call
 * cu_grid_wait, before it reads what an earlier kernel of the step wrote, and before it writes
 * anything. Weights, and the tables of the step, may be read before. Where the device cannot
 * (before sm_90) it is CU_LAUNCH. */
#define CU_LAUNCH_EARLY(kernel, grid, block, smem, stream, ...)                                \
    cu_launch_early(kernel, grid, block, smem, stream, ##__VA_ARGS__)

static inline bool cu_device_launches_early(void) {
    int device, major = 0;
    if (cudaGetDevice(&device) == cudaSuccess)
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    return major >= 9;
}

/* This thread's launches by CU_LAUNCH_EARLY are early ones. */
inline thread_local bool cu_early = true;

template <class... P, class... A>
static inline void cu_launch_early(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem,
                                   cudaStream_t stream, A... args) {
    static const bool able = cu_device_launches_early();
    cudaLaunchAttribute a = {};
    a.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    a.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t c = {};
    c.gridDim = grid, c.blockDim = block, c.dynamicSmemBytes = smem, c.stream = stream;
    c.attrs = &a, c.numAttrs = able && cu_early ? 1 : 0;
    cudaLaunchKernelEx(&c, kernel, P(args)...); /* its error is cudaGetLastError's, too */
}

/* T name[n], shared by the block, 16-byte aligned; at most 48 KiB a kernel. */
#define CU_SHARED(T, name, n) __shared__ __align__(16) T name[n]
/* T *name: the launch's dynamic shared memory, 128-byte aligned. Every CU_DYN_SHARED of a
 * launch is the same memory. Above 48 KiB: cu_allow_smem once per kernel. */
#define CU_DYN_SHARED(T, name)                                                                 \
    extern __shared__ __align__(128) unsigned char cu_dyn_smem[];                              \
    T *name = (T *)cu_dyn_smem

#define CU_DEVICE static __device__ __forceinline__

// clang-format off
/* ---- Tensor cores: d += a * b for one warp (PTX ISA, "mma.sync.aligned").
 *
 * Fragments of m16n8k16, 16-bit inputs; lane = 4 * g + t; each 32-bit register holds two
 * neighbours in k, the lower one in the low half:
 *   a[0] = A[g][2t..]    a[1] = A[g+8][2t..]    a[2] = A[g][2t+8..]    a[3] = A[g+8][2t+8..]
 *   b[0] = B[2t..][g]    b[1] = B[2t+8..][g]
 *   d[0], d[1] = D[g][2t], D[g][2t+1]           d[2], d[3] = D[g+8][2t], D[g+8][2t+1] */
// clang-format on
CU_DEVICE void cu_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

CU_DEVICE void cu_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* d = a * b. */
CU_DEVICE void cu_mul_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(0.0f));
}

CU_DEVICE void cu_mul_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(0.0f));
}

// clang-format off
/* m16n8k32, signed bytes into 32-bit integers, exact (wraps); four bytes of k a register:
 *   a[0] = A[g][4t..]    a[1] = A[g+8][4t..]    a[2] = A[g][4t+16..]   a[3] = A[g+8][4t+16..]
 *   b[0] = B[4t..][g]    b[1] = B[4t+16..][g]   d as above */
// clang-format on
CU_DEVICE void cu_mma_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* m16n8k16: a[0] = A[g][4t..], a[1] = A[g+8][4t..], b = B[4t..][g] */
CU_DEVICE void cu_mma_s8_16(int32_t d[4], const uint32_t a[2], uint32_t b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 "
                 "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
}

/* ---- ldmatrix: 8x8 matrices of 16-bit elements out of shared memory. row: 16 bytes, 16-byte
 * aligned; lanes 8i .. 8i+7 point to the rows of matrix i (x2: lanes 16.. are not read, but
 * must pass addresses in shared memory). Lane 4g+t gets in r[i] elements 2t, 2t+1 of row g;
 * _trans: of column g. */
CU_DEVICE void cu_ldmatrix_x4(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

CU_DEVICE void cu_ldmatrix_x4_trans(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

CU_DEVICE void cu_ldmatrix_x2(uint32_t r[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

CU_DEVICE void cu_ldmatrix_x2_trans(uint32_t r[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

/* ---- Order of grids (PTX ISA, "griddepcontrol"): see CU_LAUNCH_EARLY. */

/* The next kernel may start. */
CU_DEVICE void cu_grid_trigger() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
/* The kernels before have ended, and what they wrote can be read. */
CU_DEVICE void cu_grid_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* ---- cp.async: 16 bytes from global to shared memory, both 16-byte aligned, past L1. What a
 * thread copied is there after it waited for the group, and for others after a barrier as well.
 * Every copy must be committed and waited for before its thread ends. */
CU_DEVICE void cu_cp_async16(void *shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global)
                 : "memory");
}

/* Copies the first src_bytes (0..16) and zeroes the rest; with 0 nothing is read, but global
 * must still be a valid, aligned address. */
CU_DEVICE void cu_cp_async16_zfill(void *shared, const void *global, int src_bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global), "r"(src_bytes)
                 : "memory");
}

CU_DEVICE void cu_cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most N of this thread's committed groups are still under way. */
template <int N> CU_DEVICE void cu_cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* ---- Bits and numbers */

/* Any function of three bits, for each bit: LUT = f(0xf0, 0xcc, 0xaa). */
template <int LUT> CU_DEVICE uint32_t cu_lop3(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t r;
    asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(r) : "r"(a), "r"(b), "r"(c), "n"(LUT));
    return r;
}

/* a * b + c of two f16 each, rounded once. */
CU_DEVICE __half2 cu_fma2(__half2 a, __half2 b, __half2 c) {
    return __hfma2(a, b, c);
}

/* Two float32 as f16, to nearest even; what f16 cannot hold becomes its largest number, not an
 * infinity, which later sums would turn into NaN. NaN stays NaN. lo is the first half. */
CU_DEVICE __half2 cu_halves(float lo, float hi) {
    uint32_t r;
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return *(__half2 *)&r;
}

/* 2^x: relative error below 2^-22, 2^-inf = 0 (PTX ISA, "ex2.approx.ftz.f32"). */
CU_DEVICE float cu_ex2(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* 16 bytes of global memory, aligned, that no kernel writes meanwhile and that are read once:
 * kept out of L1. For weights. */
CU_DEVICE uint4 cu_ld_stream(const void *global) {
    uint4 r;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
                 : "l"(global));
    return r;
}

/* ---- Reductions over all 32 lanes, in one fixed order (butterfly 16, 8, 4, 2, 1), so that
 * every lane gets the same bits and so do device and shim. */
CU_DEVICE float cu_warp_sum(float v) {
#pragma unroll
    for (int m = 16; m; m >>= 1) v += __shfl_xor_sync(0xffffffffu, v, m);
    return v;
}

CU_DEVICE float cu_warp_max(float v) {
#pragma unroll
    for (int m = 16; m; m >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, m));
    return v;
}

#endif

/* Lets a kernel have up to so many bytes of dynamic shared memory (99 KiB on sm_86 and sm_89,
 * 163 on sm_80, 227 on sm_90). Once per kernel, before its first launch and any capture. */
template <class F> static inline cudaError_t cu_allow_smem(F *kernel, size_t bytes) {
    return cudaFuncSetAttribute((const void *)kernel,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

#endif
