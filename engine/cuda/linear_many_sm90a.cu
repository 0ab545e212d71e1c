/* Linear layers with packed weights for many rows, on compute capability 9.0: weights go packed into
 * shared memory and become 16-bit numbers in the registers that wgmma takes them from, so that no matrix is
 * written out, read again, or multiplied by another program. Elsewhere gemm_packed.cu does this.
 *
 * A block takes a tile of outputs and rows of activations. A warpgroup of its own fills a ring of stages, of 64
 * inputs each: one warp requests the tile's weights by bulk copies, which are contiguous for 16 outputs
 * (packed.h), all four copy activations by cp.async into the order that wgmma reads. Two warpgroups
 * multiply: each turns 64 outputs' codes of 32 inputs to T, once rounded, while the products of the
 * 32 inputs before are under way, for one or two sets of 64 outputs.
 *
 * For each output and row, in float32: y = one chain of products of 16 inputs, in order, + bias. The tile's
 * size follows from the shape and from n_rows, but the chain does not depend on it, nor does a
 * column of wgmma's result on the others: a row has the same bits for any n_rows. */
#include "engine/cuda/hopper.cuh"
#include "engine/cuda/linear_many.h"
#include "engine/cuda/linear_quant.cuh"
#include "engine/cuda/vec.cuh"

enum {
    GROUPS = 2, /* warpgroups that multiply */
    CONSUMERS = 128 * GROUPS,
    THREADS = CONSUMERS + 128,
    MOST_STAGES = 8,
    LAG = 3 /* stages whose activations are under way when the next is requested */
};

/* A tile: SETS times 64 outputs of each warpgroup, by ROWS rows. Shared memory, from a multiple of
 * 1,024 on: activations of each stage, then codes and scales of each stage, strip by strip; at the end sums
 * [ROWS][SUMS_LD] float32. */
template <dtype TYPE, int SETS, int ROWS> struct many_tile {
    static constexpr int STRIPS = 4 * GROUPS * SETS, OUTS = 16 * STRIPS, SUMS_LD = OUTS + 4;
    static constexpr int X = ROWS * CU_TILE_ROW;
    static constexpr int CODES = STRIPS * (int)quant<TYPE>::code_bytes;
    static constexpr int W = CODES + STRIPS * (int)quant<TYPE>::scale_bytes;
    static int stages(int shared) {
        const int n = shared / (X + W);
        return n < MOST_STAGES ? n : MOST_STAGES;
    }
    static int bytes(int n_stages) {
        const int ring = n_stages * (X + W), sums = ROWS * SUMS_LD * 4;
        return CU_TILE_ALIGN + (ring > sums ? ring : sums);
    }
};

template <class T> struct many_params {
    quant_view w[2]; /* gate and up, or the matrix twice */
    const float *bias[2];
    const T *in;
    uint32_t n_rows, n_out, ld_in;
    int n_stages;
    bool gated;
    activation act;
    linear_out out;
};

struct many_ring {
    uint8_t *x, *w;
    uint64_t *full, *empty; /* [n_stages] */
    int n;
};
/* A stage of the ring, and how often it came round, modulo 2. */
struct many_place {
    int stage;
    uint32_t turn;
    CU_DEVICE void step(many_place &p, int n) {
        if (++p.stage == n) p.stage = 0, p.turn ^= 1;
    }
};

/* ---- the warpgroup that copies ---- */

/* A strip's tile of the first stage. Gated: the first half of the strips is gate's. */
template <dtype TYPE, class TILE, class T>
CU_DEVICE quant_lane<TYPE> strip_of(const many_params<T> &p, uint32_t strip) {
    const uint32_t half = TILE::STRIPS / 2;
    const quant_view &v = p.w[p.gated && strip >= half];
    const uint32_t at =
        p.gated ? blockIdx.x * half + strip % half : blockIdx.x * TILE::STRIPS + strip;
    return quant_lane_of<TYPE>(v, (size_t)min(at, v.n_strips - 1) * v.n_chunks, 0);
}

template <dtype TYPE, class TILE, int ROWS, class T>
CU_DEVICE void fill_ring(const many_params<T> &p, const many_ring &ring) {
    typedef quant<TYPE> q;
    const int thread = (int)threadIdx.x - CONSUMERS, lane = thread % 32;
    const int row = thread / 8, unit = thread % 8,
              to = row * CU_TILE_ROW + (unit ^ (row & 7)) * 16;
    const uint32_t first = blockIdx.y * ROWS + row, n = p.w[0].n_chunks;
    const T *in = p.in + (size_t)first * p.ld_in + 8 * unit;
    int left = (int)p.w[0].n_in - 8 * unit; /* inputs, from the next stage's on */
    quant_lane<TYPE> w = strip_of<TYPE, TILE>(p, (uint32_t)lane % TILE::STRIPS);
    many_place next = {0, 0}, done = {0, 0};
    for (uint32_t i = 0; i < n + LAG; i++) {
        if (i < n) {
            if (i >= (uint32_t)ring.n) cu_mbar_wait(ring.empty + next.stage, next.turn ^ 1);
            if (thread == 0) cu_mbar_expect(ring.full + next.stage, TILE::W);
            if (thread < TILE::STRIPS) {
                uint8_t *at = ring.w + next.stage * TILE::W;
                cu_bulk_copy(at + thread * (int)q::code_bytes, w.codes, q::code_bytes,
                             ring.full + next.stage);
                cu_bulk_copy(at + TILE::CODES + thread * (int)q::scale_bytes, w.scales,
                             q::scale_bytes, ring.full + next.stage);
                w = quant_after<TYPE>(w, 1);
            }
            uint8_t *x = ring.x + next.stage * TILE::X + to;
#pragma unroll
            for (int j = 0; j < ROWS; j += 16) { /* zeros where there is no row or input */
                const bool inside = left > 0 && first + j < p.n_rows;
                cu_cp_async16_zfill(x + j * CU_TILE_ROW,
                                    inside ? in + (size_t)j * p.ld_in : p.in, inside ? 16 : 0);
            }
            in += PACKED_CHUNK, left -= PACKED_CHUNK;
            many_place::step(next, ring.n);
        }
        cu_cp_async_commit();
        if (i < LAG) continue;
        cu_cp_async_wait<LAG>();
        cu_fence_async();
        __syncwarp();
        if (lane == 0) cu_mbar_arrive(ring.full + done.stage);
        many_place::step(done, ring.n);
    }
}

/* ---- the warpgroups that multiply ---- */

template <dtype TYPE, class TILE, int SETS, int ROWS, class T>
CU_DEVICE void multiply(const many_params<T> &p, const many_ring &ring,
                        float (&acc)[SETS][ROWS / 2]) {
    typedef quant<TYPE> q;
    const int lane = (int)threadIdx.x % 32, group = (int)threadIdx.x / 128;
    const int strip = 4 * SETS * group + (int)threadIdx.x / 32 % 4; /* of the first set */
    const uint64_t x = cu_wgmma_desc(cu_shared_address(ring.x));
    uint32_t a[2][SETS][2][4]; /* of the blocks of 32 inputs in turn */
    many_place now = {0, 0};
    int before = 0;
    for (uint32_t i = 0; i < p.w[0].n_chunks; i++) {
        cu_mbar_wait(ring.full + now.stage, now.turn);
        const uint8_t *codes = ring.w + now.stage * TILE::W, *scales = codes + TILE::CODES;
        quant_tile<TYPE> w[SETS];
#pragma unroll
        for (int s = 0; s < SETS; s++)
            w[s] = quant_fetch<TYPE>(codes + (strip + 4 * s) * (int)q::code_bytes,
                                     scales + (strip + 4 * s) * (int)q::scale_bytes, lane);
#pragma unroll
        for (int b = 0; b < 2; b++) {
#pragma unroll
            for (int s = 0; s < SETS; s++) quant_halves<TYPE, T>(w[s], b, a[b][s]);
            cu_wgmma_fence();
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int s = 0; s < SETS; s++)
                    cu_wgmma(acc[s], a[b][s][half],
                             x + now.stage * (TILE::X / 16) + (2 * b + half) * CU_WGMMA_STEP,
                             b || half || i, T());
            cu_wgmma_commit();
            cu_wgmma_wait<1>(); /* the block before is done: its registers, and its stage */
            if (b == 0 && i > 0 && lane == 0) cu_mbar_arrive(ring.empty + before);
        }
        before = now.stage;
        many_place::step(now, ring.n);
    }
    cu_wgmma_wait<0>();
#pragma unroll
    for (int s = 0; s < SETS; s++) cu_wgmma_hold(acc[s]);
}

template <class TILE, int SETS, int ROWS>
CU_DEVICE void leave_sums(float *sums, const float (&acc)[SETS][ROWS / 2]) {
    const int lane = (int)threadIdx.x % 32, group = (int)threadIdx.x / 128;
    const int out = 64 * SETS * group + 16 * ((int)threadIdx.x / 32 % 4) + lane / 4;
    cu_named_barrier(1, CONSUMERS); /* all have read the ring */
#pragma unroll
    for (int s = 0; s < SETS; s++)
#pragma unroll
        for (int i = 0; i < ROWS / 2; i++)
            sums[(i / 4 * 8 + lane % 4 * 2 + i % 2) * TILE::SUMS_LD + out + 64 * s +
                 i / 2 % 2 * 8] = acc[s][i];
    cu_named_barrier(1, CONSUMERS);
}

template <class TILE, int ROWS, class T>
CU_DEVICE void store_sums(const many_params<T> &p, const float *sums) {
    const uint32_t n = p.gated ? TILE::OUTS / 2 : TILE::OUTS, first = blockIdx.y * ROWS,
                   rows = min((uint32_t)ROWS, p.n_rows - first);
    for (uint32_t i = threadIdx.x; i < rows * n; i += CONSUMERS) {
        const uint32_t row = i / n, o = i % n, col = blockIdx.x * n + o;
        if (col >= p.n_out) continue;
        float y = sums[row * TILE::SUMS_LD + o];
        if (p.bias[0]) y += p.bias[0][col];
        if (p.gated) {
            float up = sums[row * TILE::SUMS_LD + o + n];
            if (p.bias[1]) up += p.bias[1][col];
            y = cu_gated(p.act, y, up);
        }
        linear_put(p.out, first + row, col, y);
    }
}

/* Grid: tiles of outputs, tiles of rows. */
template <dtype TYPE, class T, int SETS, int ROWS>
static __global__ void __launch_bounds__(THREADS, 1) k_many(many_params<T> p) {
    typedef many_tile<TYPE, SETS, ROWS> tile;
    CU_DYN_SHARED(uint8_t, memory);
    CU_SHARED(uint64_t, full, MOST_STAGES);
    CU_SHARED(uint64_t, empty, MOST_STAGES);
    uint8_t *x = memory + (-cu_shared_address(memory) & (CU_TILE_ALIGN - 1));
    const many_ring ring = {x, x + p.n_stages * tile::X, full, empty, p.n_stages};
    if (threadIdx.x == 0) {
        for (int i = 0; i < p.n_stages; i++) {
            cu_mbar_init(full + i, 1 + 4); /* the bytes of weights, and four warps */
            cu_mbar_init(empty + i, CONSUMERS / 32);
        }
        cu_mbar_ready();
    }
    __syncthreads();
    if (threadIdx.x >= CONSUMERS) {
        cu_registers_fewer<40>();
        fill_ring<TYPE, tile, ROWS>(p, ring);
    } else {
        cu_registers_more<232>();
        float acc[SETS][ROWS / 2];
        multiply<TYPE, tile, SETS, ROWS>(p, ring, acc);
        leave_sums<tile, SETS, ROWS>((float *)x, acc);
        store_sums<tile, ROWS>(p, (const float *)x);
    }
}

/* ---- host ---- */

bool cu_linear_many_runs(void) {
    const char *wanted = getenv("VRAMD_CUDA_WGMMA");
    if (wanted && strcmp(wanted, "0") == 0) return false;
    int device, major = 0, minor = 0;
    if (cudaGetDevice(&device) != cudaSuccess) return false;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (major != 9 || minor != 0) return false;
    cudaFuncAttributes code;
    const bool there = cudaFuncGetAttributes(
                           &code, (const void *)k_many<DT_Q4_0, __half, 1, 64>) == cudaSuccess;
    if (!there) cudaGetLastError(); /* built without sm_90a */
    return there;
}

template <dtype TYPE, class T, int SETS, int ROWS> static cudaError_t allow_tile(int shared) {
    typedef many_tile<TYPE, SETS, ROWS> tile;
    const int n = tile::stages(shared);
    if (n <= LAG) return cudaErrorInvalidConfiguration;
    return cu_allow_smem(k_many<TYPE, T, SETS, ROWS>, tile::bytes(n));
}

template <dtype TYPE, class T, int SETS, int ROWS>
static cudaError_t launch_tile(cudaStream_t s, many_params<T> p, int shared) {
    typedef many_tile<TYPE, SETS, ROWS> tile;
    p.n_stages = tile::stages(shared);
    const uint32_t strips = p.gated ? tile::STRIPS / 2 : tile::STRIPS;
    const dim3 grid(cu_ceil_div(p.w[0].n_strips, strips), cu_ceil_div(p.n_rows, ROWS));
    CU_LAUNCH((k_many<TYPE, T, SETS, ROWS>), grid, THREADS, tile::bytes(p.n_stages), s, p);
    return cudaGetLastError();
}

/* Time of a product in tiles of so many outputs and rows: what one takes, as a part of the largest, by
 * how often each multiprocessor has one. */
static uint32_t time_of(uint32_t n_out, uint32_t n_rows, uint32_t outs, uint32_t rows,
                        uint32_t one, uint32_t processors) {
    return one * cu_ceil_div(cu_ceil_div(n_out, outs) * cu_ceil_div(n_rows, rows), processors);
}

template <dtype TYPE, class T>
static cudaError_t launch_many(cudaStream_t s, const many_params<T> &p) {
    int device, limit, processors;
    cudaError_t e = cudaGetDevice(&device);
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (e != cudaSuccess) return e;
    const int shared = limit - CU_TILE_ALIGN - 16 * MOST_STAGES;
    /* Which one runs depends on the rows; all are loaded with the first, when the engine warms up. */
    e = allow_tile<TYPE, T, 1, 64>(shared);
    if (e == cudaSuccess) e = allow_tile<TYPE, T, 1, 128>(shared);
    if (e == cudaSuccess) e = allow_tile<TYPE, T, 2, 128>(shared);
    if (e != cudaSuccess) return e;
    const uint32_t n = (uint32_t)processors, outs = p.gated ? 2 * p.n_out : p.n_out;
    const uint32_t large = time_of(outs, p.n_rows, 256, 128, 100, n),
                   medium = time_of(outs, p.n_rows, 128, 128, 56, n),
                   small = time_of(outs, p.n_rows, 128, 64, 34, n);
    if (small < medium && small < large) return launch_tile<TYPE, T, 1, 64>(s, p, shared);
    if (medium < large) return launch_tile<TYPE, T, 1, 128>(s, p, shared);
    return launch_tile<TYPE, T, 2, 128>(s, p, shared);
}

static cudaError_t run_many(cudaStream_t s, const cu_linear *a, const cu_linear *b, bool gated,
                            activation act) {
    return cu_by_type(a->t, [&](auto type) {
        using T = decltype(type);
        many_params<T> p = {};
        p.w[0] = quant_view_of(&a->w), p.w[1] = quant_view_of(&b->w);
        p.bias[0] = a->bias, p.bias[1] = b->bias;
        p.in = (const T *)a->in, p.n_rows = a->n_rows, p.ld_in = a->ld_in;
        p.n_out = a->w.n_out, p.gated = gated, p.act = act;
        p.out = linear_out_of(a);
        return quant_by_type(a->w.type, [&](auto packed) {
            constexpr dtype type = decltype(packed)::value;
            /* F8: its scales do not lie beside its codes. */
            if constexpr (quant<type>::is_float)
                return cudaErrorInvalidValue;
            else
                return launch_many<type>(s, p);
        });
    });
}

cudaError_t cu_linear_many(cudaStream_t s, const cu_linear *l) {
    if (l->n_rows == 0 || l->w.n_out == 0) return cudaSuccess;
    return run_many(s, l, l, false, ACT_SILU);
}

cudaError_t cu_gate_up_many(cudaStream_t s, const cu_linear *gate, const cu_linear *up,
                            activation act) {
    if (gate->n_rows == 0 || gate->w.n_out == 0) return cudaSuccess;
    if (!cu_gate_up_fits(gate, up)) return cudaErrorInvalidValue;
    return run_many(s, gate, up, true, act);
}
