/* Linear layers with packed weights and 16-bit activations: up to 64 rows by one pass over the
 * weights, more by several (gemm_packed.cu takes those, if it can).
 *
 * The codes are small integers, which are exact in 16 bits, so they go to the tensor cores as
 * they are; the float32 sum of a block of 32 inputs is multiplied by the block's scale
 * afterwards. No weight is rounded. A column of mma's result depends on that column of the
 * activations alone, and how the inputs are cut depends on the matrix alone: a row has the same
 * bits for any n_rows.
 *
 * A block takes a tile of 16 strips (256 outputs; gated: 8 strips of gate and 8 of up), one a
 * warp, and all rows: what the blocks read of the activations, which is the same for all, is
 * their limit besides the weights. Where there are few tiles, several blocks (splits) share the
 * inputs of one, and the last of them to arrive adds their sums. For each output, in float32:
 *
 *     split s: acc = 0; for its blocks of 32 inputs in order:
 *              acc = fma(d, mma of the codes and the activations, acc)
 *              types with minima: acc = fma(m, mma of ones and the activations, acc)
 *              (those with a scale for 16 inputs: of the first 16, then of the others)
 *     y = acc of split 0 + acc of split 1 + ... + bias
 *
 * Weights and activations come through shared memory by cp.async, as many stages ahead as fit;
 * the first weights are requested before the kernels before have ended. */
#include "engine/cuda/linear_quant.cuh"
#include "engine/cuda/vec.cuh"

enum {
    WARPS = 16,
    THREADS = 32 * WARPS,
    OUTS = 16 * WARPS,
    SUMS_LD = OUTS + 4,
    CHUNKS = 2, /* of 64 inputs, in a stage */
    MOST_STAGES = 8,
    EARLY_STAGES = 3, /* whose weights are requested before cu_grid_wait */
    /* Splits of at least so many chunks, up to so many, are made while the grid has up to
     * CU_SPLIT_BLOCKS blocks. */
    SPLIT_CHUNKS = 8,
    MOST_SPLITS = 8
};
static_assert((int)OUTS == (int)CU_SPLIT_OUTS, "scratch of a block");

/* Shared memory of a stage: activations [CHUNKS][ROWS][64] of T in 16-byte units, unit u of row
 * r at place u ^ (r & 7); the codes of each warp's tiles, then their scales. After the last
 * stage: sums [ROWS][SUMS_LD] float32. */
template <dtype TYPE, int NI> struct packed_stage {
    static constexpr int ROWS = 8 * NI;
    static constexpr int CODES = CHUNKS * (int)quant<TYPE>::code_bytes; /* of a warp */
    static constexpr int SCALES = CHUNKS * (int)quant<TYPE>::scale_bytes;
    static constexpr int codes_at = CHUNKS * ROWS * 128;
    static constexpr int scales_at = codes_at + WARPS * CODES;
    static constexpr int bytes = scales_at + WARPS * SCALES;
    static constexpr int sums = ROWS * SUMS_LD * 4;
    /* Stages in so many bytes. */
    static int count(int most) {
        const int n = most / bytes;
        return n < MOST_STAGES ? n : MOST_STAGES;
    }
    static int all(int n_stages) { return n_stages * bytes > sums ? n_stages * bytes : sums; }
};

template <class T> struct packed_params {
    quant_view w[2]; /* gate and up, or the matrix twice */
    const float *bias[2];
    const T *in;
    const int32_t *rows; /* of in, for each of n_rows; NULL: they follow each other */
    uint32_t n_rows, n_out, ld_in;
    uint32_t split_chunks; /* of each split but the last */
    int n_stages;
    bool gated;
    activation act;
    linear_out out;
    float *partials;   /* [tile][split][ROWS][OUTS], where there are splits */
    uint32_t *arrived; /* [tile]: 0 before and after */
};

/* What a thread copies of every stage: its lane's codes and some scales of its warp's tiles,
 * which follow each other; of the activations a unit of one chunk or, of the same row, of both.
 * Pointers and numbers are of the next stage. */
template <dtype TYPE, class T, int NI> struct packed_copy {
    typedef packed_stage<TYPE, NI> stage;
    static constexpr int TILE = (int)quant<TYPE>::code_bytes;
    static constexpr int UNITS = CHUNKS * stage::ROWS * 8; /* of activations */
    static constexpr int PASSES = (UNITS + THREADS - 1) / THREADS;
    static constexpr int SCALE_UNITS = (int)quant<TYPE>::scale_bytes / 16; /* of a tile */
    static_assert(PASSES == 1 || PASSES == CHUNKS, "a pass is a chunk");
    static_assert(CHUNKS * SCALE_UNITS <= 32, "a unit a lane");

    const uint8_t *codes, *scales; /* scales: of F8, the strip's */
    const T *row;                  /* of the activations; NULL: zeros */
    int left;                      /* chunks, from the next stage's first on */
    int k;                         /* the thread's first input of the next stage */
    int w_to, scales_to, x_to;     /* offsets in a stage */
    uint32_t block, shift; /* F8: of inputs, whose scales the lane copies, and v.f8_shift */

    CU_DEVICE packed_copy start(const packed_params<T> &p, uint32_t chunk, int n_chunks) {
        const int lane = (int)threadIdx.x % 32;
        const uint32_t warp = threadIdx.x / 32, half = WARPS / 2;
        const quant_view &v = p.w[p.gated && warp >= half];
        const uint32_t strip =
            p.gated ? blockIdx.x * half + warp % half : blockIdx.x * WARPS + warp;
        const size_t tile = (size_t)min(strip, v.n_strips - 1) * v.n_chunks + chunk;
        packed_copy c;
        c.codes = quant_lane_of<TYPE>(v, tile, lane).codes;
        if (quant<TYPE>::is_float) {
            c.scales = quant_f8_scales(v, min(strip, v.n_strips - 1), 0) + lane % 4 * 16;
            c.block = 2 * chunk + lane / 4, c.shift = v.f8_shift;
        } else {
            c.scales = v.scales + tile * quant<TYPE>::scale_bytes + lane * 16;
        }
        c.w_to = stage::codes_at + (int)warp * stage::CODES + 16 * lane;
        c.scales_to = stage::scales_at + (int)warp * stage::SCALES + 16 * lane;
        const uint32_t u = threadIdx.x, r = u / 8 % stage::ROWS;
        c.row = NULL;
        if (r < p.n_rows) c.row = p.in + (size_t)(p.rows ? (uint32_t)p.rows[r] : r) * p.ld_in;
        c.k = (int)(chunk + u / 8 / stage::ROWS) * PACKED_CHUNK + (int)(8 * (u % 8));
        c.x_to = (int)(u / 8 * 8 + (u % 8 ^ (r & 7))) * 16;
        c.left = n_chunks;
        return c;
    }

    /* Weights of a stage whose first chunk has left - 1 behind it. */
    CU_DEVICE void fill_w(packed_copy &c, uint8_t *to, int left) {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            if (i >= left) break;
#pragma unroll
            for (int j = 0; j < TILE; j += 512)
                if (j + 512 <= TILE || (int)threadIdx.x % 32 * 16 < TILE - j)
                    cu_cp_async16(to + c.w_to + i * TILE + j, c.codes + i * TILE + j);
        }
        const uint8_t *scales = c.scales;
        if (quant<TYPE>::is_float) scales += (size_t)(c.block >> c.shift) * PACKED_F8_SCALES;
        if ((int)threadIdx.x % 32 < min(left, (int)CHUNKS) * SCALE_UNITS)
            cu_cp_async16(to + c.scales_to, scales);
        c.codes += CHUNKS * TILE;
        if (quant<TYPE>::is_float)
            c.block += 2 * CHUNKS;
        else
            c.scales += CHUNKS * quant<TYPE>::scale_bytes;
    }
    /* Activations of a stage: zeros in rows that do not exist and past n_in. */
    CU_DEVICE void fill_x(packed_copy &c, uint8_t *to, const packed_params<T> &p) {
#pragma unroll
        for (int j = 0; j < PASSES; j++) {
            const int k = c.k + j * PACKED_CHUNK;
            if (UNITS < THREADS && threadIdx.x >= UNITS) break;
            if ((int)threadIdx.x / (8 * stage::ROWS) + j >= c.left) break;
            const bool inside = c.row && k < (int)p.w[0].n_in;
            cu_cp_async16_zfill(to + c.x_to + j * stage::ROWS * 128, inside ? c.row + k : p.in,
                                inside ? 16 : 0);
        }
        c.k += CHUNKS * PACKED_CHUNK;
        c.left -= CHUNKS;
    }
};

CU_DEVICE constexpr uint32_t two_ones(__half) {
    return 0x3c003c00u;
}
CU_DEVICE constexpr uint32_t two_ones(__nv_bfloat16) {
    return 0x3f803f80u;
}

/* acc += inputs that share a scale, for 8 rows. a: operands A of 32 or 16 inputs, x: operands B; d
 * and m: scales and minima of outputs g and g + 8. */
template <dtype TYPE, class T>
CU_DEVICE void add_block(const uint32_t (*a)[4], const float d[2], const float m[2],
                         const uint32_t *x, float acc[4]) {
    constexpr bool both = !quant<TYPE>::by_16;
    float c[4], sum[4];
    cu_mul(c, a[0], x, T());
    if (both) cu_mma(c, a[1], x + 2, T());
    if (quant<TYPE>::has_min) {
        const uint32_t ones[4] = {two_ones(T()), two_ones(T()), two_ones(T()), two_ones(T())};
        cu_mul(sum, ones, x, T());
        if (both) cu_mma(sum, ones, x + 2, T());
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        acc[i] = __fmaf_rn(d[i / 2], c[i], acc[i]);
        if (quant<TYPE>::has_min) acc[i] = __fmaf_rn(m[i / 2], sum[i], acc[i]);
    }
}

/* acc += the warp's part of chunk i of a stage. */
template <dtype TYPE, class T, int NI>
CU_DEVICE void add_chunk(const uint8_t *stage, int i, float acc[NI][4]) {
    typedef packed_stage<TYPE, NI> at;
    constexpr int HALVES = quant<TYPE>::by_16 ? 2 : 1;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const uint8_t *x = stage + i * at::ROWS * 128 + lane % 8 * 128;
    const quant_tile<TYPE> w = quant_fetch<TYPE>(
        stage + at::codes_at + warp * at::CODES + i * (int)quant<TYPE>::code_bytes,
        stage + at::scales_at + warp * at::SCALES + i * (int)quant<TYPE>::scale_bytes, lane);
#pragma unroll
    for (int b = 0; b < 2; b++) {
        uint32_t a[2][4];
        float d[HALVES][2], m[HALVES][2] = {};
        quant_codes<TYPE, T>(w, b, a);
#pragma unroll
        for (int i = 0; i < 2 * HALVES; i++) {
            d[i / 2][i % 2] = quant_scale(w, 0, b, i % 2, i / 2) * quant_codes_unit<TYPE>();
            if (quant<TYPE>::has_min) m[i / 2][i % 2] = quant_scale(w, 1, b, i % 2, i / 2);
        }
#pragma unroll
        for (int ni = 0; ni < NI; ni++) {
            uint32_t rows[4];
            cu_ldmatrix_x4(rows, x + ni * 1024 + ((4 * b + lane / 8) ^ (lane % 8)) * 16);
#pragma unroll
            for (int half = 0; half < HALVES; half++)
                add_block<TYPE, T>(a + half, d[half], m[half], rows + 2 * half, acc[ni]);
        }
    }
}

/* Waits until the oldest of n_stages - 1 stages on the way is there. */
CU_DEVICE void wait_stage(int n_stages) {
    switch (n_stages) {
    case 2: cu_cp_async_wait<0>(); break;
    case 3: cu_cp_async_wait<1>(); break;
    case 4: cu_cp_async_wait<2>(); break;
    case 5: cu_cp_async_wait<3>(); break;
    case 6: cu_cp_async_wait<4>(); break;
    case 7: cu_cp_async_wait<5>(); break;
    default: cu_cp_async_wait<6>(); break;
    }
}

/* acc: the sums of this warp over the block's chunks. */
template <dtype TYPE, class T, int NI>
CU_DEVICE void run_chunks(const packed_params<T> &p, uint8_t *shared, float acc[NI][4]) {
    typedef packed_copy<TYPE, T, NI> copy;
    constexpr int BYTES = packed_stage<TYPE, NI>::bytes;
    const int ring = p.n_stages, early = ring - 1 < EARLY_STAGES ? ring - 1 : EARLY_STAGES;
    const uint32_t first = blockIdx.y * p.split_chunks;
    const int n = (int)min(p.split_chunks, p.w[0].n_chunks - first);
    copy c = copy::start(p, first, n);
    for (int i = 0; i < early; i++) copy::fill_w(c, shared + i * BYTES, n - i * CHUNKS);
    cu_grid_wait();
    for (int i = 0; i < ring - 1; i++) {
        if (i >= early) copy::fill_w(c, shared + i * BYTES, c.left);
        copy::fill_x(c, shared + i * BYTES, p);
        cu_cp_async_commit();
    }
    uint8_t *now = shared, *next = shared + (ring - 1) * BYTES, *end = shared + ring * BYTES;
    for (int i = 0; i < n; i += CHUNKS) {
        wait_stage(ring);
        __syncthreads(); /* the stage is here, and the one before it is read */
        copy::fill_w(c, next, c.left);
        copy::fill_x(c, next, p);
        cu_cp_async_commit();
#pragma unroll
        for (int j = 0; j < CHUNKS; j++)
            if (i + j < n) add_chunk<TYPE, T, NI>(now, j, acc);
        now = now + BYTES == end ? shared : now + BYTES;
        next = next + BYTES == end ? shared : next + BYTES;
    }
    cu_cp_async_wait<0>();
    __syncthreads();
}

/* The warps' sums into shared memory, [ROWS][SUMS_LD]. */
template <int NI> CU_DEVICE void leave_sums(float *sums, const float acc[NI][4]) {
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
#pragma unroll
    for (int ni = 0; ni < NI; ni++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            sums[(8 * ni + lane % 4 * 2 + i % 2) * SUMS_LD + 16 * warp + lane / 4 + i / 2 * 8] =
                acc[ni][i];
    __syncthreads();
}

/* An output's sum over the splits: this block's in shared memory, or all in scratch. */
struct packed_sums {
    const float *shared, *partials;
    uint32_t n_splits, rows;
    CU_DEVICE float at(const packed_sums &s, uint32_t row, uint32_t o) {
        if (s.n_splits == 1) return s.shared[row * SUMS_LD + o];
        float v = 0;
        for (uint32_t i = 0; i < s.n_splits; i++)
            v += __ldcg(s.partials + ((size_t)i * s.rows + row) * OUTS + o);
        return v;
    }
};

template <class T> CU_DEVICE void store_sums(const packed_params<T> &p, const packed_sums &s) {
    const uint32_t n = p.gated ? OUTS / 2 : OUTS;
    for (uint32_t i = threadIdx.x; i < p.n_rows * n; i += THREADS) {
        const uint32_t row = i / n, o = i % n, col = blockIdx.x * n + o;
        if (col >= p.n_out) continue;
        float y = packed_sums::at(s, row, o);
        if (p.bias[0]) y += p.bias[0][col];
        if (p.gated) {
            float up = packed_sums::at(s, row, o + n);
            if (p.bias[1]) up += p.bias[1][col];
            y = cu_gated(p.act, y, up);
        }
        linear_put(p.out, row, col, y);
    }
}

/* Puts the block's sums aside; true in the last block of a tile to do so. */
template <class T>
CU_DEVICE bool leave_partials(const packed_params<T> &p, const float *sums, uint32_t rows) {
    CU_SHARED(uint32_t, last, 1);
    float *mine = p.partials + ((size_t)blockIdx.x * gridDim.y + blockIdx.y) * rows * OUTS;
    for (uint32_t i = threadIdx.x; i < p.n_rows * OUTS; i += THREADS)
        mine[i] = sums[i / OUTS * SUMS_LD + i % OUTS];
    return cu_last_block(p.arrived + blockIdx.x, gridDim.y, last);
}

/* Grid: tiles of outputs, splits of the inputs. */
template <dtype TYPE, class T, int NI>
static __global__ void __launch_bounds__(THREADS, 1) k_packed(packed_params<T> p) {
    CU_DYN_SHARED(uint8_t, shared);
    constexpr uint32_t ROWS = 8 * NI;
    cu_grid_trigger();
    float acc[NI][4] = {};
    run_chunks<TYPE, T, NI>(p, shared, acc);
    float *sums = (float *)shared;
    leave_sums<NI>(sums, acc);
    packed_sums s = {sums, NULL, gridDim.y, ROWS};
    if (gridDim.y > 1) {
        if (!leave_partials(p, sums, ROWS)) return;
        s.partials = p.partials + (size_t)blockIdx.x * gridDim.y * ROWS * OUTS;
    }
    store_sums(p, s);
}

/* Grid: tiles of outputs, 1, tiles of slots. */
template <dtype TYPE, class T, int NI>
static __global__ void __launch_bounds__(THREADS, 1)
    k_experts_packed(packed_params<T> all, cu_experts x) {
    CU_DYN_SHARED(uint8_t, shared);
    cu_grid_trigger();
    cu_grid_wait();
    const int32_t *tile = x.routed.tiles + 4 * (size_t)blockIdx.z;
    const uint32_t expert = (uint32_t)tile[0];
    const size_t slot = (size_t)(uint32_t)tile[1];
    if (tile[2] == 0) return;
    packed_params<T> p = all;
    p.n_rows = (uint32_t)tile[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        p.w[i].codes += expert * x.stride, p.w[i].scales += expert * x.stride;
        if (p.bias[i]) p.bias[i] += (size_t)expert * p.n_out;
    }
    if (x.by_row)
        p.rows = x.routed.row + slot;
    else
        p.in += slot * p.ld_in;
    p.out.p = (char *)p.out.p + slot * p.out.ld * (p.out.kind == CU_OUT_T ? 2 : 4);
    float acc[NI][4] = {};
    run_chunks<TYPE, T, NI>(p, shared, acc);
    leave_sums<NI>((float *)shared, acc);
    store_sums(p, packed_sums{(const float *)shared, NULL, 1, 8 * NI});
}

/* ---- host ---- */

/* Shared memory that a block of this device may ask for. */
static cudaError_t shared_limit(int *bytes) {
    int device;
    cudaError_t e = cudaGetDevice(&device);
    if (e != cudaSuccess) return e;
    return cudaDeviceGetAttribute(bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
}

static dim3 grid_of(uint32_t strips, uint32_t strips_a_tile, uint32_t n_chunks,
                    uint32_t *split_chunks) {
    const uint32_t tiles = cu_ceil_div(strips, strips_a_tile);
    uint32_t splits = CU_SPLIT_BLOCKS / tiles;
    if (splits > MOST_SPLITS) splits = MOST_SPLITS;
    if (splits > n_chunks / SPLIT_CHUNKS) splits = n_chunks / SPLIT_CHUNKS;
    if (splits == 0) splits = 1;
    *split_chunks = cu_ceil_div(n_chunks, splits);
    return dim3(tiles, cu_ceil_div(n_chunks, *split_chunks));
}

template <dtype TYPE, class T, int NI>
static cudaError_t launch_packed(cudaStream_t s, packed_params<T> p, int room) {
    typedef packed_stage<TYPE, NI> stage;
    p.n_stages = stage::count(room);
    if (p.n_stages < 2) return cudaErrorInvalidConfiguration;
    const dim3 grid =
        grid_of(p.w[0].n_strips, p.gated ? WARPS / 2 : WARPS, p.w[0].n_chunks, &p.split_chunks);
    const int bytes = stage::all(p.n_stages);
    cudaError_t e = cu_allow_smem(k_packed<TYPE, T, NI>, bytes);
    if (e != cudaSuccess) return e;
    CU_LAUNCH_EARLY((k_packed<TYPE, T, NI>), grid, THREADS, bytes, s, p);
    return cudaGetLastError();
}

/* All rows, as many in a pass as two stages leave memory for. */
template <dtype TYPE, class T>
static cudaError_t launch_rows(cudaStream_t s, packed_params<T> p, uint32_t n_rows) {
    int limit;
    cudaError_t e = shared_limit(&limit);
    const int room = limit - 1024; /* before[] and what the system takes */
    const uint32_t most = 2 * packed_stage<TYPE, 8>::bytes <= room ? 64 : 32;
    const uint32_t width = p.out.kind == CU_OUT_T ? 2 : 4;
    for (uint32_t r = 0; r < n_rows && e == cudaSuccess; r += most) {
        p.n_rows = n_rows - r < most ? n_rows - r : most;
        if (p.n_rows <= 8)
            e = launch_packed<TYPE, T, 1>(s, p, room);
        else if (p.n_rows <= 16)
            e = launch_packed<TYPE, T, 2>(s, p, room);
        else if (p.n_rows <= 32)
            e = launch_packed<TYPE, T, 4>(s, p, room);
        else
            e = launch_packed<TYPE, T, 8>(s, p, room);
        p.in += (size_t)most * p.ld_in;
        p.out.p = (char *)p.out.p + (size_t)most * p.out.ld * width;
    }
    return e;
}

template <class T>
static packed_params<T> params_of(const cu_linear *a, const cu_linear *b, bool gated,
                                  activation act) {
    packed_params<T> p = {};
    p.w[0] = quant_view_of(&a->w), p.w[1] = quant_view_of(&b->w);
    p.bias[0] = a->bias, p.bias[1] = b->bias;
    p.in = (const T *)a->in, p.ld_in = a->ld_in;
    p.n_out = a->w.n_out, p.gated = gated, p.act = act;
    p.out = linear_out_of(a);
    if (!a->split) return p;
    p.arrived = (uint32_t *)a->split;
    p.partials = (float *)((char *)a->split + CU_SPLIT_COUNTERS);
    return p;
}

static cudaError_t run_packed(cudaStream_t s, const cu_linear *a, const cu_linear *b,
                              bool gated, activation act) {
    return cu_by_type(a->t, [&](auto type) {
        using T = decltype(type);
        const packed_params<T> p = params_of<T>(a, b, gated, act);
        return quant_by_type(a->w.type, [&](auto packed) {
            return launch_rows<decltype(packed)::value>(s, p, a->n_rows);
        });
    });
}

cudaError_t cu_linear_packed(cudaStream_t s, const cu_linear *l) {
    if (l->n_rows == 0 || l->w.n_out == 0) return cudaSuccess;
    return run_packed(s, l, l, false, ACT_SILU);
}

cudaError_t cu_gate_up_packed(cudaStream_t s, const cu_linear *gate, const cu_linear *up,
                              activation act) {
    if (gate->n_rows == 0 || gate->w.n_out == 0) return cudaSuccess;
    if (!cu_gate_up_fits(gate, up)) return cudaErrorInvalidValue;
    return run_packed(s, gate, up, true, act);
}

/* ---- experts: all inputs by one block ---- */

template <dtype TYPE, class T, int NI>
static cudaError_t launch_experts(cudaStream_t s, packed_params<T> p, const cu_experts *x) {
    typedef packed_stage<TYPE, NI> stage;
    int limit;
    cudaError_t e = shared_limit(&limit);
    if (e != cudaSuccess) return e;
    p.n_stages = stage::count(limit - 1024);
    p.split_chunks = p.w[0].n_chunks;
    if (p.n_stages < 2) return cudaErrorInvalidConfiguration;
    const int bytes = stage::all(p.n_stages);
    e = cu_allow_smem(k_experts_packed<TYPE, T, NI>, bytes);
    if (e != cudaSuccess) return e;
    const dim3 grid(cu_ceil_div(p.w[0].n_strips, p.gated ? WARPS / 2 : WARPS), 1,
                    x->routed.n_tiles);
    CU_LAUNCH_EARLY((k_experts_packed<TYPE, T, NI>), grid, THREADS, bytes, s, p, *x);
    return cudaGetLastError();
}

template <dtype TYPE, class T>
static cudaError_t launch_tiles(cudaStream_t s, const packed_params<T> &p,
                                const cu_experts *x) {
    static_assert(CU_EXPERT_ROWS == 32, "tiles of 8, 16 and 32 rows");
    switch (cu_expert_tile(x->routed.n_rows)) {
    case 8: return launch_experts<TYPE, T, 1>(s, p, x);
    case 16: return launch_experts<TYPE, T, 2>(s, p, x);
    default: return launch_experts<TYPE, T, 4>(s, p, x);
    }
}

cudaError_t cu_experts_packed(cudaStream_t s, const cu_experts *x, const cu_linear *a,
                              const cu_linear *b, activation act) {
    if (a->kind == CU_OUT_ADD || (b && !cu_gate_up_fits(a, b))) return cudaErrorInvalidValue;
    if (x->routed.n_tiles == 0 || a->w.n_out == 0) return cudaSuccess;
    return cu_by_type(a->t, [&](auto type) {
        using T = decltype(type);
        const packed_params<T> p = params_of<T>(a, b ? b : a, b != NULL, act);
        return quant_by_type(a->w.type, [&](auto packed) {
            return launch_tiles<decltype(packed)::value>(s, p, x);
        });
    });
}
