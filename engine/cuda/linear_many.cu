/* Linear layers with packed weights for up to CU_MANY_ROWS rows (gemm_packed.cu takes more, if
 * it can), or any number of them: a GEMM on 16-bit activations. Packed weights and activations
 * travel through shared memory in several stages of cp.async; a warp turns its weights into
 * fragments of T in registers (quant.cuh), once for all rows of the tile.
 *
 * A block takes a tile of outputs x rows; a warp MI strips of 16 outputs (operand A of mma) and
 * all rows of the tile (operand B, 8 at a time). SPLIT > 1: so many groups of warps take the
 * chunks of 64 inputs in turn, and their sums are added in order, which hides latency where
 * there are few warps. For each output, in float32:
 *
 *     group s: acc = 0; for its chunks c = s, s + SPLIT, ...: four mma.m16n8k16 in order
 *     y = ((acc of group 0 + acc of group 1) + ...) + bias
 *
 * so the bits depend on SPLIT alone: 4 for up to 32 rows, and for up to 64 of a small matrix,
 * unless same_bits is wanted, else 1.
 */
#include "engine/cuda/linear_quant.cuh"
#include "engine/cuda/vec.cuh"

template <int SPLIT_, int WARPS_, int MI_, int NI_, int STAGES_ = 4> struct many_tile {
    static constexpr int SPLIT = SPLIT_; /* groups of warps along the inputs */
    static constexpr int WARPS = WARPS_; /* of a group, along the outputs */
    static constexpr int MI = MI_;       /* strips of a warp */
    static constexpr int NI = NI_;       /* eights of rows */
    static constexpr int STAGES = STAGES_;
    static constexpr int STRIPS = WARPS * MI, OUTS = 16 * STRIPS, ROWS = 8 * NI;
    static constexpr int THREADS = 32 * WARPS * SPLIT;
};
typedef many_tile<4, 2, 1, 4> tile_32x32;    /* 9 .. 32 rows */
typedef many_tile<4, 2, 1, 8, 3> tile_32x64; /* up to 64 rows, few tiles */
typedef many_tile<1, 4, 1, 8> tile_64x64;    /* few tiles */
typedef many_tile<1, 4, 2, 8> tile_128x64;   /* the rest */

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

/* What a thread copies of every stage, in 16-byte units: of the activations unit u of some
 * rows, of the codes unit u of some tiles, of the scales one unit or none. Pass j's row (tile)
 * is a constant away from the first. Pointers and counts are of the next stage. */
template <dtype TYPE, class T, class TILE> struct many_copy {
    static constexpr int SPLIT = TILE::SPLIT, ROWS = TILE::ROWS, STRIPS = TILE::STRIPS;
    static constexpr int CODES = quant<TYPE>::code_bytes, SCALES = quant<TYPE>::scale_bytes;
    static constexpr int ROW_STEP = TILE::THREADS / 8, TILE_STEP = TILE::THREADS * 16 / CODES;
    static constexpr int ROW_PASSES = SPLIT * ROWS / ROW_STEP;
    static constexpr int TILE_PASSES = SPLIT * STRIPS / TILE_STEP;
    static_assert(ROW_STEP <= ROWS && ROWS % ROW_STEP == 0 && ROW_STEP % 8 == 0, "rows");
    static_assert(TILE_STEP % STRIPS == 0 || STRIPS % TILE_STEP == 0, "tiles");
    static_assert(SPLIT * STRIPS * SCALES / 16 <= TILE::THREADS, "scales in one pass");

    const T *row_start, *in; /* of the first row: its beginning; the next unit */
    const uint8_t *codes, *scales;
    uint32_t in_at, ld, n_chunks;  /* in_at: where the unit goes within a stage */
    uint32_t rows, tiles;          /* bit j: pass j's exists */
    int inputs_left;               /* from the thread's unit on */
    int code_chunks, scale_chunks; /* left, from its first tile's chunk on */

    CU_DEVICE many_copy start(const many_params<T> &p, uint32_t row, uint32_t strip) {
        const uint32_t r = threadIdx.x / 8, u = threadIdx.x % 8;
        const quant_view &v = p.w;
        many_copy c;
        c.row_start = p.in + (size_t)min(row + r, p.n_rows - 1) * p.ld_in;
        c.in = c.row_start + 8 * u;
        c.in_at = (r * 8 + (u ^ (r & 7))) * 16;
        c.ld = p.ld_in;
        c.n_chunks = v.n_chunks;
        c.inputs_left = (int)v.n_in - (int)(8 * u);
        c.rows = c.tiles = 0;
        for (int j = 0; j < ROW_PASSES; j++)
            c.rows |= (uint32_t)(row + r + row_of(j) < p.n_rows) << j;
        const uint32_t tile = threadIdx.x * 16 / CODES, s = strip + tile % STRIPS;
        for (int j = 0; j < TILE_PASSES; j++)
            c.tiles |= (uint32_t)(s + strip_of(j) < v.n_strips) << j;
        c.codes = v.codes + ((size_t)s * v.n_chunks + tile / STRIPS) * CODES +
                  threadIdx.x * 16 % CODES;
        c.code_chunks = (int)v.n_chunks - (int)(tile / STRIPS);
        const uint32_t scale = threadIdx.x * 16 / SCALES, z = strip + scale % STRIPS;
        c.scales = v.scales + ((size_t)z * v.n_chunks + scale / STRIPS) * SCALES +
                   threadIdx.x * 16 % SCALES;
        c.scale_chunks = (int)v.n_chunks - (int)(scale / STRIPS);
        if (scale >= SPLIT * STRIPS || z >= v.n_strips) c.scale_chunks = 0;
        return c;
    }
    /* How far pass j is from the first: in rows, strips, and chunks of either. */
    CU_DEVICE constexpr int row_of(int j) { return j * ROW_STEP % ROWS; }
    CU_DEVICE constexpr int row_chunk(int j) { return j * ROW_STEP / ROWS; }
    CU_DEVICE constexpr int strip_of(int j) { return j * TILE_STEP % STRIPS; }
    CU_DEVICE constexpr int tile_chunk(int j) { return j * TILE_STEP / STRIPS; }

    /* Begins to fill a stage. What lies outside the matrix is left as it is: it reaches only
     * results that nobody stores. Inputs past n_in meet weights of 0 and must be numbers. */
    CU_DEVICE void fill(uint8_t *stage, many_copy &c) {
        typedef many_smem<TYPE, TILE> smem;
#pragma unroll
        for (int j = 0; j < ROW_PASSES; j++) {
            if (!(c.rows >> j & 1)) continue;
            const bool inside = c.inputs_left > row_chunk(j) * PACKED_CHUNK;
            const T *from = c.in + (size_t)row_of(j) * c.ld + row_chunk(j) * PACKED_CHUNK;
            cu_cp_async16_zfill(stage + c.in_at + j * ROW_STEP * 128,
                                inside ? from : c.row_start, inside ? 16 : 0);
        }
#pragma unroll
        for (int j = 0; j < TILE_PASSES; j++)
            if ((c.tiles >> j & 1) && c.code_chunks > tile_chunk(j))
                cu_cp_async16(stage + smem::codes_at + threadIdx.x * 16 + j * TILE_STEP * CODES,
                              c.codes +
                                  ((size_t)strip_of(j) * c.n_chunks + tile_chunk(j)) * CODES);
        if (c.scale_chunks > 0)
            cu_cp_async16(stage + smem::scales_at + threadIdx.x * 16, c.scales);
        cu_cp_async_commit();
        c.in += SPLIT * PACKED_CHUNK;
        c.codes += SPLIT * CODES;
        c.scales += SPLIT * SCALES;
        c.inputs_left -= SPLIT * PACKED_CHUNK;
        c.code_chunks -= SPLIT;
        c.scale_chunks -= SPLIT;
    }
};

CU_DEVICE void mma_of(float d[4], const uint32_t a[4], const uint32_t b[2], __half) {
    cu_mma_f16(d, a, b);
}
CU_DEVICE void mma_of(float d[4], const uint32_t a[4], const uint32_t b[2], __nv_bfloat16) {
    cu_mma_bf16(d, a, b);
}

/* acc += the warp's part of a stage, for the first n_rows rows; FULL: all of the tile's. */
template <dtype TYPE, class T, class TILE, bool FULL>
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
            if (!FULL && 8u * ni >= n_rows) break; /* the same for all warps */
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
    cu_grid_trigger();
    cu_grid_wait();
    constexpr int STAGES = TILE::STAGES, BYTES = many_smem<TYPE, TILE>::stage;
    const int lane = (int)(threadIdx.x % 32), warp = (int)(threadIdx.x / 32 % TILE::WARPS);
    const int split = (int)(threadIdx.x / (32 * TILE::WARPS));
    const uint32_t row = blockIdx.x * TILE::ROWS, strip = blockIdx.y * TILE::STRIPS;
    const uint32_t n_groups = (p.w.n_chunks + TILE::SPLIT - 1) / TILE::SPLIT;
    float acc[TILE::MI][TILE::NI][4] = {};
    typedef many_copy<TYPE, T, TILE> copy;
    copy from = copy::start(p, row, strip);
    for (int i = 0; i < STAGES - 1; i++) copy::fill(shared + i * BYTES, from);
    for (uint32_t i = 0; i < n_groups; i++) {
        cu_cp_async_wait<STAGES - 2>();
        __syncthreads(); /* stage i is here; nobody reads stage i - 1, the next to be filled */
        copy::fill(shared + (i + STAGES - 1) % STAGES * BYTES, from);
        if (i * TILE::SPLIT + split >= p.w.n_chunks) continue;
        const uint8_t *stage = shared + i % STAGES * BYTES;
        if (p.n_rows - row >= TILE::ROWS)
            add_stage<TYPE, T, TILE, true>(stage, split, warp, lane, 0, acc);
        else
            add_stage<TYPE, T, TILE, false>(stage, split, warp, lane, p.n_rows - row, acc);
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
    CU_LAUNCH_EARLY((k_many<TYPE, T, TILE>), grid, TILE::THREADS, bytes, s, p);
    return cudaGetLastError();
}

/* Large tiles read less, but only if there are enough of them for every multiprocessor. */
template <dtype TYPE, class T>
static cudaError_t choose_tile(cudaStream_t s, const cu_linear *l, const many_params<T> &p) {
    if (l->n_rows <= 32 && !l->same_bits) return launch_many<TYPE, T, tile_32x32>(s, p);
    const uint64_t tiles = (uint64_t)cu_ceil_div(p.n_out, 128) * cu_ceil_div(p.n_rows, 64);
    if (tiles < 128 && l->n_rows <= 64 && !l->same_bits)
        return launch_many<TYPE, T, tile_32x64>(s, p);
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
