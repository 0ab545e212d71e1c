/* Instructions of compute capability 9.0 alone (sm_90a): barriers in shared memory that count bytes,
 * bulk copies, and products by a warpgroup. Included by files named *_sm90a.cu, which are compiled for that
 * architecture only; tests/cushim/cushim_hopper.h has the same names on the CPU.
 *
 * Proxies: bulk copies and wgmma reach shared memory past the path of ordinary loads and stores. What
 * ordinary stores and cp.async wrote is there for wgmma after the threads that wrote it called
 * cu_fence_async, and then a barrier. */
#ifndef VRAMD_ENGINE_CUDA_HOPPER_CUH
#define VRAMD_ENGINE_CUDA_HOPPER_CUH

#include "engine/cuda/cu.h"

/* ---- Matrices in shared memory (PTX ISA, "Matrix Descriptor Format")
 *
 * A tile of 16-bit numbers: rows of 64 along k (128 bytes), one behind the other, at an address that is a multiple
 * of 1,024; the 16 bytes at place u of row r are the row's unit u ^ (r & 7) (swizzle of 128 bytes).
 * k advances by 16 with CU_WGMMA_STEP. */
enum { CU_TILE_ALIGN = 1024, CU_TILE_ROW = 128, CU_WGMMA_STEP = 2 };

/* Of the tile whose address in shared memory this is: the address, the distance of 8 rows (1,024 bytes), and
 * the swizzle; the distance along k is not used with it. */
CU_DEVICE uint64_t cu_wgmma_desc(uint32_t address) {
    return (uint64_t)(address >> 4 & 0x3fff) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

#ifdef CUSHIM
#include "cushim_hopper.h"
#else

CU_DEVICE uint32_t cu_shared_address(const void *shared) {
    return (uint32_t)__cvta_generic_to_shared(shared);
}

/* ---- Barriers: 8 bytes of shared memory, aligned. A phase ends when as many threads have arrived as
 * it was initialised for, and all bytes that were expected in it have come. */

/* By one thread; then cu_mbar_ready by the same, then __syncthreads. */
CU_DEVICE void cu_mbar_init(uint64_t *bar, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(cu_shared_address(bar)),
                 "r"(arrivals)
                 : "memory");
}
CU_DEVICE void cu_mbar_ready() {
    asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::
                     : "memory");
}
CU_DEVICE void cu_mbar_arrive(uint64_t *bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(cu_shared_address(bar))
                 : "memory");
}
/* Arrives, and expects so many bytes more in this phase. */
CU_DEVICE void cu_mbar_expect(uint64_t *bar, uint32_t bytes) {
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(cu_shared_address(bar)),
        "r"(bytes)
        : "memory");
}
/* Returns when the phase of this parity (0: the first one, 1: the second, 0: the third, ...) has
 * ended. The caller is at most one phase behind. */
CU_DEVICE void cu_mbar_wait(uint64_t *bar, uint32_t parity) {
    asm volatile("{\n\t"
                 ".reg .pred done;\n\t"
                 "again:\n\t"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
                 "@!done bra again;\n\t"
                 "}" ::"r"(cu_shared_address(bar)),
                 "r"(parity)
                 : "memory");
}

/* Copies from global to shared memory, both 16-byte aligned; bytes: a multiple of 16. They count for the
 * barrier's phase when they have come. One thread. */
CU_DEVICE void cu_bulk_copy(void *shared, const void *global, uint32_t bytes, uint64_t *bar) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(cu_shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(cu_shared_address(bar))
                 : "memory");
}

/* What this thread wrote to shared memory (stores; cp.async that it has waited for) can be read by wgmma,
 * and overwritten by bulk copies, after the next barrier. */
CU_DEVICE void cu_fence_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* A barrier of so many threads, whole warps; id: 1..15. */
CU_DEVICE void cu_named_barrier(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* Registers of each thread of the calling warpgroup, a multiple of 8: fewer, or more once others have given them
 * up. */
template <int N> CU_DEVICE void cu_registers_fewer() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> CU_DEVICE void cu_registers_more() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* ---- wgmma: d += a * b, or d = a * b where keep is 0, for a warpgroup: 128 threads, the first a multiple of 128.
 *
 * a is [64][16], b [N][16] (rows of n, along k), 16 bits each; d is [64][N] in float32. Warp w of the warpgroup holds
 * rows 16w .. 16w + 15 of a and d, as fragments of mma.m16n8k16 (cu.h): a[4] is one, d[4j .. 4j + 3] that of
 * columns 8j .. 8j + 7.
 *
 * Products run on by themselves: a group of them begins with cu_wgmma_fence, after the last write to its
 * registers, and ends with cu_wgmma_commit. Until cu_wgmma_wait has waited for it, d must not be touched, a and what
 * lies behind the descriptors not be changed. Products of one d need no fence between them. */
CU_DEVICE void cu_wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
CU_DEVICE void cu_wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/* Waits until at most N groups are under way. */
template <int N> CU_DEVICE void cu_wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/* The compiler moves no use of d across it: before a fence, and after a wait. */
template <int N> CU_DEVICE void cu_wgmma_hold(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// clang-format off
#define CU_D8(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), \
                    "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define CU_D32(d) CU_D8(d, 0), CU_D8(d, 8), CU_D8(d, 16), CU_D8(d, 24)
#define CU_D64(d) CU_D32(d), CU_D8(d, 32), CU_D8(d, 40), CU_D8(d, 48), CU_D8(d, 56)
#define CU_NAMES_32 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15," \
                    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}"
#define CU_NAMES_64 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15," \
                    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31," \
                    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47," \
                    "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}"
/* n columns: their registers' list and names, those of a's registers or descriptor, of b and keep. */
#define CU_WGMMA(n, T, type, list, names, a_regs, b_regs, keep_regs, a_at, b_at, keep_at)          \
    CU_DEVICE void cu_wgmma(float (&d)[n / 2], const uint32_t a[4], uint64_t b, int keep, T) {     \
        asm volatile("{.reg .pred keep; setp.ne.b32 keep, " keep_regs ", 0;\n\t"                   \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " " names     \
                     ", " a_regs ", " b_regs ", keep, 1, 1, 0;}"                                   \
                     : list(d) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));   \
    }                                                                                              \
    CU_DEVICE void cu_wgmma(float (&d)[n / 2], uint64_t a, uint64_t b, int keep, T) {              \
        asm volatile("{.reg .pred keep; setp.ne.b32 keep, " keep_at ", 0;\n\t"                     \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " " names     \
                     ", " a_at ", " b_at ", keep, 1, 1, 0, 0;}"                                    \
                     : list(d) : "l"(a), "l"(b), "r"(keep));                                       \
    }
#define CU_WGMMA_64(T, type)                                                                       \
    CU_WGMMA(64, T, type, CU_D32, CU_NAMES_32, "{%32,%33,%34,%35}", "%36", "%37", "%32", "%33", "%34")
#define CU_WGMMA_128(T, type)                                                                      \
    CU_WGMMA(128, T, type, CU_D64, CU_NAMES_64, "{%64,%65,%66,%67}", "%68", "%69", "%64", "%65", "%66")
CU_WGMMA_64(__half, "f16")
CU_WGMMA_64(__nv_bfloat16, "bf16")
CU_WGMMA_128(__half, "f16")
CU_WGMMA_128(__nv_bfloat16, "bf16")
// clang-format on

#endif
#endif
