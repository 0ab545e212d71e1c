/* Linear layers with packed weights for many rows: a GEMM on 16-bit activations. Packed weights
 * and activations travel through shared memory in several stages of cp.async; a warp turns its
 * weights into fragments of T in registers (quant.cuh), once for all rows of the tile.
 *
 * A block takes a tile of outputs x rows; a warp MI strips of 16 outputs (operand A of mma) and
 * all rows of the tile (operand B, 8 at a time). SPLIT > 1: so many groups of warps take the
 * chunks of 64 inputs in turn, and their sums are added in order, which hides latency where
 * there are few warps. For each output, in float32:
 *
 *     group s: acc = 0; for its chunks c = s, s + SPLIT, ...: four mma.m16n8k16 in order
 *     y = ((acc of group 0 + acc of group 1) + ...) + bias
 *
 * so the bits depend on SPLIT alone: 4 for up to 32 rows, unless same_bits is wanted, else 1.
 */
#include "engine/cuda/linear_quant.cuh"
#include "engine/cuda/vec.cuh"

template <int SPLIT_, int WARPS_, int MI_, int NI_> struct many_tile {
    static constexpr int SPLIT = SPLIT_; /* groups of warps along the inputs */
    static constexpr int WARPS = WARPS_; /* of a group, along the outputs */
    static constexpr int MI = MI_;       /* strips of a warp */
    static constexpr int NI = NI_;       /* eights of rows */
    static constexpr int STAGES = 4;
    static constexpr int STRIPS = WARPS * MI, OUTS = 16 * STRIPS, ROWS = 8 * NI;
    static constexpr int THREADS = 32 * WARPS * SPLIT;
};
typedef many_tile<4, 2, 1, 4> tile_32x32;  /* 9 .. 32 rows */
typedef many_tile<1, 4, 1, 8> tile_64x64;  /* few tiles */
typedef many_tile<1, 4, 2, 8> tile_128x64; /* the rest */

/* Shared memory of a stage: activations [SPLIT][ROWS][64] of T in 16-byte units, unit u of row
 * r at place u ^ (r & 7); codes [SPLIT][STRIPS][tile]; scales likewise. After the last stage:
 * sums [SPLIT][ROWS][OUTS + 4] float32. */
template <dtype TYPE, class TILE> struct many_smem {
    static constexpr int codes_at = TILE::SPLIT * TILE::ROWS * 128;
    static constexpr int scales_at =
        codes_at + TILE::SPLIT * TILE::STRIPS * (int)quant<TYPE>::code_bytes;
    static constexpr int stage =
        scales_at + TILE::SPLIT * TILE::STRIPS * (int)quant<TYPE>::scale_bytes;
    static constexpr int sums = TILE::SPLIT * TILE::ROWS * (TILE::OUTS + 4) * 4;
    static constexpr int bytes = TILE::STAGES * stage > sums ? TILE::STAGES *stage : sums;
};

template <class T> struct many_params {
    quant_view w;
    const float *bias;
    const T *in;
    uint32_t n_rows, n_out, ld_in;
    linear_out out;
};

/* Copies n 16-byte units of strips' codes or scales (`unit` units a tile) of SPLIT chunks. */
template <class TILE>
CU_DEVICE void copy_weights(uint8_t *to, const uint8_t *from, uint32_t unit, uint32_t strip,
                            uint32_t n_strips, uint32_t chunk, uint32_t n_chunks) {
    for (uint32_t i = threadIdx.x; i < TILE::SPLIT * TILE::STRIPS * unit; i += TILE::THREADS) {
        const uint32_t s = strip + i / unit % TILE::STRIPS;
        const uint32_t c = chunk + i / (unit * TILE::STRIPS);
        if (s < n_strips && c < n_chunks)
            cu_cp_async16(to + 16 * i,
                          from + (((size_t)s * n_chunks + c) * unit + i % unit) * 16);
    }
}

/* Begins to fill a stage with chunks [chunk, chunk + SPLIT). What lies outside the matrix is
 * left as it is: it reaches only results that nobody stores. Inputs past n_in meet weights of 0
 * and must be numbers: zeros. */
template <dtype TYPE, class T, class TILE>
CU_DEVICE void copy_stage(const many_params<T> &p, uint8_t *stage, uint32_t row, uint32_t strip,
                          uint32_t chunk) {
    typedef many_smem<TYPE, TILE> smem;
    const quant_view &v = p.w;
    for (uint32_t i = threadIdx.x; i < TILE::SPLIT * TILE::ROWS * 8; i += TILE::THREADS) {
        const uint32_t r = i / 8 % TILE::ROWS, c = chunk + i / (8 * TILE::ROWS);
        const uint32_t k = c * PACKED_CHUNK + i % 8 * 8;
        if (row + r >= p.n_rows || c >= v.n_chunks) continue;
        uint8_t *to = stage + (i / 8 * 8 + ((i % 8) ^ (r & 7))) * 16;
        const T *from = p.in + (size_t)(row + r) * p.ld_in;
        cu_cp_async16_zfill(to, k < v.n_in ? from + k : from, k < v.n_in ? 16 : 0);
    }
    copy_weights<TILE>(stage + smem::codes_at, v.codes, quant<TYPE>::code_bytes / 16, strip,
                       v.n_strips, chunk, v.n_chunks);
    copy_weights<TILE>(stage + smem::scales_at, v.scales, quant<TYPE>::scale_bytes / 16, strip,
                       v.n_strips, chunk, v.n_chunks);
    cu_cp_async_commit();
}

CU_DEVICE void mma_of(float d[4], const uint32_t a[4], const uint32_t b[2], __half) {
    cu_mma_f16(d, a, b);
}
CU_DEVICE void mma_of(float d[4], const uint32_t a[4], const uint32_t b[2], __nv_bfloat16) {
    cu_mma_bf16(d, a, b);
}

/* acc += the warp's part of a stage. n_rows: of the tile's rows, how many there are. */
template <dtype TYPE, class T, class TILE>
CU_DEVICE void add_stage(const uint8_t *stage, int split, int warp, int lane, uint32_t n_rows,
                         float acc[TILE::MI][TILE::NI][4]) {
    typedef many_smem<TYPE, TILE> smem;
    const uint8_t *acts = stage + split * TILE::ROWS * 128 + lane % 8 * 128;
    quant_tile<TYPE> w[TILE::MI];
#pragma unroll
    for (int mi = 0; mi < TILE::MI; mi++) {
        const int strip = split * TILE::STRIPS + warp * TILE::MI + mi;
        w[mi] =
            quant_fetch<TYPE>(stage + smem::codes_at + strip * quant<TYPE>::code_bytes,
                              stage + smem::scales_at + strip * quant<TYPE>::scale_bytes, lane);
    }
#pragma unroll
    for (int b = 0; b < 2; b++) {
        uint32_t a[TILE::MI][2][4];
#pragma unroll
        for (int mi = 0; mi < TILE::MI; mi++) quant_halves<TYPE, T>(w[mi], b, a[mi]);
#pragma unroll
        for (int ni = 0; ni < TILE::NI; ni++) {
            if (8u * ni >= n_rows) break; /* the same for all warps */
            uint32_t x[4];
            cu_ldmatrix_x4(x, acts + ni * 1024 + ((4 * b + lane / 8) ^ (lane % 8)) * 16);
#pragma unroll
            for (int mi = 0; mi < TILE::MI; mi++) {
                mma_of(acc[mi][ni], a[mi][0], x, T());
                mma_of(acc[mi][ni], a[mi][1], x + 2, T());
            }
        }
    }
}

/* Leaves a warp's sums in shared memory, [rows][outputs]. */
template <class TILE>
CU_DEVICE void leave_sums(float *sums, int split, int warp, int lane,
                          const float acc[TILE::MI][TILE::NI][4]) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int mi = 0; mi < TILE::MI; mi++)
#pragma unroll
        for (int ni = 0; ni < TILE::NI; ni++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = split * TILE::ROWS + 8 * ni + 2 * t + i % 2;
                const int out = 16 * (warp * TILE::MI + mi) + g + 8 * (i / 2);
                sums[row * (TILE::OUTS + 4) + out] = acc[mi][ni][i];
            }
}

template <class TILE, class T>
CU_DEVICE void store_sums(const many_params<T> &p, const float *sums, uint32_t row,
                          uint32_t col) {
    for (uint32_t i = threadIdx.x; i < TILE::ROWS * TILE::OUTS; i += TILE::THREADS) {
        const uint32_t r = i / TILE::OUTS, c = i % TILE::OUTS;
        if (row + r >= p.n_rows) return;
        if (col + c >= p.n_out) continue;
        float y = 0;
#pragma unroll
        for (int s = 0; s < TILE::SPLIT; s++)
            y += sums[(s * TILE::ROWS + r) * (TILE::OUTS + 4) + c];
        if (p.bias) y += p.bias[col + c];
        linear_put(p.out, row + r, col + c, y);
    }
}

/* Grid: tiles of rows, tiles of outputs. Neighbours share weights. */
template <dtype TYPE, class T, class TILE>
static __global__ void __launch_bounds__(TILE::THREADS) k_many(many_params<T> p) {
    CU_DYN_SHARED(uint8_t, shared);
    constexpr int STAGES = TILE::STAGES, BYTES = many_smem<TYPE, TILE>::stage;
    const int lane = (int)(threadIdx.x % 32), warp = (int)(threadIdx.x / 32 % TILE::WARPS);
    const int split = (int)(threadIdx.x / (32 * TILE::WARPS));
    const uint32_t row = blockIdx.x * TILE::ROWS, strip = blockIdx.y * TILE::STRIPS;
    const uint32_t n_groups = (p.w.n_chunks + TILE::SPLIT - 1) / TILE::SPLIT;
    float acc[TILE::MI][TILE::NI][4] = {};
    for (uint32_t i = 0; i < STAGES - 1; i++) {
        if (i < n_groups)
            copy_stage<TYPE, T, TILE>(p, shared + i * BYTES, row, strip, i * TILE::SPLIT);
        else
            cu_cp_async_commit();
    }
    for (uint32_t i = 0; i < n_groups; i++) {
        cu_cp_async_wait<STAGES - 2>();
        __syncthreads(); /* stage i is here; nobody reads stage i - 1, the next to be filled */
        const uint32_t next = i + STAGES - 1;
        if (next < n_groups)
            copy_stage<TYPE, T, TILE>(p, shared + next % STAGES * BYTES, row, strip,
                                      next * TILE::SPLIT);
        else
            cu_cp_async_commit();
        if (i * TILE::SPLIT + split < p.w.n_chunks)
            add_stage<TYPE, T, TILE>(shared + i % STAGES * BYTES, split, warp, lane,
                                     p.n_rows - row, acc);
    }
    cu_cp_async_wait<0>();
    __syncthreads();
    leave_sums<TILE>((float *)shared, split, warp, lane, acc);
    __syncthreads();
    store_sums<TILE>(p, (const float *)shared, row, strip * PACKED_STRIP);
}

template <dtype TYPE, class T, class TILE>
static cudaError_t launch_many(cudaStream_t s, const many_params<T> &p) {
    constexpr int bytes = many_smem<TYPE, TILE>::bytes;
    const dim3 grid(cu_ceil_div(p.n_rows, TILE::ROWS), cu_ceil_div(p.n_out, TILE::OUTS));
    cudaError_t e = cu_allow_smem(k_many<TYPE, T, TILE>, bytes);
    if (e != cudaSuccess) return e;
    CU_LAUNCH((k_many<TYPE, T, TILE>), grid, TILE::THREADS, bytes, s, p);
    return cudaGetLastError();
}

/* Large tiles read less, but only if there are enough of them for every multiprocessor. */
template <dtype TYPE, class T>
static cudaError_t choose_tile(cudaStream_t s, const cu_linear *l, const many_params<T> &p) {
    if (l->n_rows <= 32 && !l->same_bits) return launch_many<TYPE, T, tile_32x32>(s, p);
    const uint64_t tiles = (uint64_t)cu_ceil_div(p.n_out, 128) * cu_ceil_div(p.n_rows, 64);
    if (tiles < 128) return launch_many<TYPE, T, tile_64x64>(s, p);
    return launch_many<TYPE, T, tile_128x64>(s, p);
}

cudaError_t cu_linear_many(cudaStream_t s, const cu_linear *l) {
    return cu_by_type(l->t, [&](auto type) {
        using T = decltype(type);
        const many_params<T> p = {quant_view_of(&l->w), l->bias,  (const T *)l->in, l->n_rows,
                                  l->w.n_out,           l->ld_in, linear_out_of(l)};
        switch (l->w.type) {
        case DT_Q8_0: return choose_tile<DT_Q8_0, T>(s, l, p);
        case DT_Q4_0: return choose_tile<DT_Q4_0, T>(s, l, p);
        case DT_Q4_1: return choose_tile<DT_Q4_1, T>(s, l, p);
        default: return cudaErrorInvalidValue;
        }
    });
}
