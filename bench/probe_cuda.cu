/* What a device can do at best, as far as a design depends on it: read-only bandwidth by
 * occupancy, from memory and from the L2 cache; what one multiprocessor reads; the cost of a
 * node of a graph, with plain and with programmatic dependent launch, empty and with weights to
 * read; copies between host and device. Medians; a line for each; about six seconds.
 *
 *   probe_cuda        exit code 3 where there is no device
 *
 * The kernels of a chain count: a chain that a missing dependency breaks says COUNTS WRONG, and
 * the exit code is 1. */
#include <cuda_runtime.h>

#include <algorithm>
#include <functional>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <vector>

#define CHECK_CUDA(call)                                                                       \
    do {                                                                                       \
        const cudaError_t error_ = (call);                                                     \
        if (error_ != cudaSuccess) {                                                           \
            printf("probe FAILED: %s: %s\n", #call, cudaGetErrorString(error_));               \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

enum { THREADS = 256, MAX_BLOCKS = 264, NEVER = 0x12345678 };

static cudaStream_t stream;
static cudaEvent_t start, stop;
static bool wrong;

/* ---- kernels ---- */

__device__ __forceinline__ uint4 load(const uint4 *p) {
    uint4 r;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
                 : "l"(p));
    return r;
}
__device__ __forceinline__ uint32_t mixed(uint4 v) {
    return v.x ^ v.y ^ v.z ^ v.w;
}

/* Reads n words of 16 bytes, LOADS at a time in each thread; the result keeps the loads alive.
 */
template <int LOADS>
__global__ void __launch_bounds__(THREADS) k_read(const uint4 *p, size_t n, uint32_t *out) {
    uint32_t sum = 0;
    const size_t step = (size_t)gridDim.x * THREADS * LOADS;
    for (size_t i = (size_t)blockIdx.x * THREADS * LOADS + threadIdx.x; i < n; i += step) {
        uint4 v[LOADS];
#pragma unroll
        for (int u = 0; u < LOADS; u++) v[u] = load(p + min(i + u * THREADS, n - 1));
#pragma unroll
        for (int u = 0; u < LOADS; u++) sum ^= mixed(v[u]);
    }
    if (sum == NEVER) out[blockIdx.x] = sum;
}

/* Reads its weights, which depend on nothing, and adds 1 to what the node in front wrote. With
 * EARLY the node may start before the one in front has ended, and waits in between. */
template <bool EARLY>
__global__ void __launch_bounds__(THREADS)
    k_node(uint32_t *counters, const uint4 *weights, size_t n) {
    uint32_t sum = 0;
    if (EARLY) asm volatile("griddepcontrol.launch_dependents;");
    for (size_t i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS)
        sum ^= mixed(load(weights + i));
    if (EARLY) asm volatile("griddepcontrol.wait;" ::: "memory");
    if (threadIdx.x == 0) {
        volatile uint32_t *own = counters + blockIdx.x;
        *own = *own + 1 + (sum == NEVER);
    }
}

/* ---- time ---- */

/* Median milliseconds; two runs first that do not count. */
static float median_ms(const std::function<void()> &f, int runs = 9) {
    std::vector<float> times;
    for (int i = 0; i < runs + 2; i++) {
        float ms;
        CHECK_CUDA(cudaEventRecord(start, stream));
        f();
        CHECK_CUDA(cudaEventRecord(stop, stream));
        CHECK_CUDA(cudaEventSynchronize(stop));
        CHECK_CUDA(cudaEventElapsedTime(&ms, start, stop));
        if (i > 1) times.push_back(ms);
    }
    CHECK_CUDA(cudaGetLastError());
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}
static double gbs(double bytes, float ms) {
    return bytes / ms * 1e-6;
}

/* ---- bandwidth ---- */

static void read_by_occupancy(const uint4 *p, size_t n, uint32_t *out, int sms) {
    for (int per : {1, 2, 4, 8}) {
        const float four =
            median_ms([=] { k_read<4><<<sms * per, THREADS, 0, stream>>>(p, n, out); });
        const float eight =
            median_ms([=] { k_read<8><<<sms * per, THREADS, 0, stream>>>(p, n, out); });
        printf("read %d blocks an SM: 4 loads %7.1f GB/s, 8 loads %7.1f GB/s\n", per,
               gbs(16.0 * n, four), gbs(16.0 * n, eight));
    }
}

static void read_small(const uint4 *p, uint32_t *out, int sms) {
    const size_t cached = 24u << 20, alone = 32u << 20;
    const int times = 16;
    const float l2 = median_ms([=] {
        for (int i = 0; i < times; i++)
            k_read<8><<<sms * 4, THREADS, 0, stream>>>(p, cached / 16, out);
    });
    const float one =
        median_ms([=] { k_read<8><<<1, THREADS, 0, stream>>>(p, alone / 16, out); });
    printf("read 24 MiB again, from L2: %7.1f GB/s\n", gbs((double)times * cached, l2));
    printf("read by one block of %d threads, 8 loads: %6.1f GB/s\n", THREADS,
           gbs((double)alone, one));
}

/* ---- chains ---- */

/* A graph of nodes that each read `per_node` words, from other addresses in turn. */
template <bool EARLY>
static cudaGraphExec_t chain_of(int nodes, int blocks, size_t per_node, uint32_t *counters,
                                const uint4 *weights, size_t n_weights) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < nodes; i++) {
        cudaLaunchAttribute early = {};
        early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        early.val.programmaticStreamSerializationAllowed = 1;
        cudaLaunchConfig_t c = {};
        c.gridDim = blocks, c.blockDim = THREADS, c.stream = stream;
        if (EARLY) c.attrs = &early, c.numAttrs = 1;
        const size_t from = per_node ? (size_t)i * per_node % (n_weights - per_node) : 0;
        CHECK_CUDA(cudaLaunchKernelEx(&c, k_node<EARLY>, counters, weights + from, per_node));
    }
    CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
    CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    CHECK_CUDA(cudaGraphDestroy(graph));
    return exec;
}

template <bool EARLY>
static void chain(const char *name, int nodes, int blocks, size_t per_node, uint32_t *counters,
                  const uint4 *weights, size_t n_weights) {
    std::vector<uint32_t> got(blocks);
    const int runs = 9;
    CHECK_CUDA(cudaMemsetAsync(counters, 0, MAX_BLOCKS * sizeof *counters, stream));
    const cudaGraphExec_t exec =
        chain_of<EARLY>(nodes, blocks, per_node, counters, weights, n_weights);
    const float ms = median_ms([=] { CHECK_CUDA(cudaGraphLaunch(exec, stream)); }, runs);
    CHECK_CUDA(
        cudaMemcpy(got.data(), counters, blocks * sizeof(uint32_t), cudaMemcpyDeviceToHost));
    bool right = true;
    for (uint32_t v : got) right &= v == (uint32_t)(nodes * (runs + 2));
    wrong |= !right;
    printf("chain %-10s %-5s %3d nodes of %3d blocks: %7.3f us a node%s\n", name,
           EARLY ? "early" : "plain", nodes, blocks, 1e3 * ms / nodes,
           right ? "" : "  COUNTS WRONG");
    CHECK_CUDA(cudaGraphExecDestroy(exec));
}

static void chains(uint32_t *counters, const uint4 *weights, size_t n) {
    for (int blocks : {1, 132}) {
        chain<false>("empty", 300, blocks, 0, counters, weights, n);
        chain<true>("empty", 300, blocks, 0, counters, weights, n);
    }
    for (size_t mb : {3, 9, 33}) {
        char name[32];
        snprintf(name, sizeof name, "%zu MB", mb);
        chain<false>(name, 100, MAX_BLOCKS, mb * 1000000 / 16, counters, weights, n);
        chain<true>(name, 100, MAX_BLOCKS, mb * 1000000 / 16, counters, weights, n);
    }
}

/* ---- copies ---- */

static void copies(char *device) {
    char *host;
    const size_t large = 256u << 20;
    CHECK_CUDA(cudaHostAlloc(&host, large, 0));
    const auto copy = [=](size_t bytes, cudaMemcpyKind kind) {
        const bool in = kind == cudaMemcpyHostToDevice;
        return median_ms([=] {
            CHECK_CUDA(
                cudaMemcpyAsync(in ? device : host, in ? host : device, bytes, kind, stream));
        });
    };
    printf("copy to the device 64 KiB %.2f us, from it 4 KiB %.2f us; 256 MiB to it %.1f GB/s, "
           "from it %.1f GB/s\n",
           1e3 * copy(65536, cudaMemcpyHostToDevice), 1e3 * copy(4096, cudaMemcpyDeviceToHost),
           gbs((double)large, copy(large, cudaMemcpyHostToDevice)),
           gbs((double)large, copy(large, cudaMemcpyDeviceToHost)));
    CHECK_CUDA(cudaFreeHost(host));
}

/* Random words, so that nothing on the way can be compressed. */
static void fill(char *p, size_t bytes) {
    std::vector<uint32_t> r(1 << 22);
    uint64_t x = 1;
    for (uint32_t &v : r) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        v = (uint32_t)(x >> 32);
    }
    for (size_t at = 0; at < bytes; at += r.size() * 4)
        CHECK_CUDA(cudaMemcpy(p + at, r.data(), r.size() * 4, cudaMemcpyHostToDevice));
}

int main() {
    const size_t bytes = (size_t)4 << 30;
    uint32_t *counters;
    char *p;
    int sms, n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) {
        printf("no CUDA device\n");
        return 3;
    }
    CHECK_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
    CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK_CUDA(cudaEventCreate(&start));
    CHECK_CUDA(cudaEventCreate(&stop));
    CHECK_CUDA(cudaMalloc(&p, bytes));
    CHECK_CUDA(cudaMalloc(&counters, 1 << 20));
    fill(p, bytes);
    const uint4 *words = (const uint4 *)p;
    read_by_occupancy(words, bytes / 16, counters, sms);
    read_small(words, counters, sms);
    chains(counters, words, bytes / 16);
    copies(p);
    CHECK_CUDA(cudaDeviceSynchronize());
    return wrong;
}
