/* Linear layers of a few rows: bound by reading the weights once, whatever the rows.
 *
 * Tensor cores do the arithmetic even for one row, so that conversions and multiplications
 * never limit a memory of several TB/s: a 16-row tile of W is mma's A, the activations its B,
 * with a column for each of up to 8 rows (the others are zero). A column of mma's result
 * depends on that column alone, and how K is cut depends on n_in alone: a row has the same bits
 * for any n_rows.
 *
 * Where a lane's operands lie in K is free as long as A and B agree. So lane 4 g + t takes 16
 * consecutive bytes, k = 32 c + 8 t .. + 7 of chunk c, from row g of W: words x, y feed the
 * first mma of the chunk and z, w the second, without any shuffle.
 *
 * A block has 8 warps and one tile (two for many rows, or gate and up). Warp w takes the groups
 * of 4 chunks w, w + 8, ..., so a tile row is read in runs of 256 bytes, and keeps one batch of
 * loads under way while it multiplies the batch before: 4 KiB a warp, 64 KiB and more an SM.
 * The warps' sums are added in order of the warps. */
#include "engine/cuda/kernels.h"
#include "engine/cuda/vec.cuh"

enum {
    WARPS = 8,
    GROUP = 4,   /* chunks of 32 inputs */
    TILE = 16,   /* outputs */
    COLUMN = 20, /* floats from a row's sums to the next row's: 16 and four against conflicts */
    SUMS = CU_FEW_ROWS * COLUMN
};

template <class T> struct few_args {
    const T *w[2];
    const float *bias[2];
    const T *in;
    const int32_t *rows; /* of in, for each of n_rows; NULL: they follow each other */
    void *out;
    uint32_t n_out, n_in, n_rows, ld_in, ld_out;
    cu_out kind;
    activation act;
};

/* What one lane reads: where its rows of W and of the activations are. */
template <class T, int TILES> struct lane_rows {
    const T *w[TILES][2];
    const T *x; /* NULL: its column is zero */
    uint32_t n_in, k0;
};

/* U chunks under way. */
template <int TILES, int U> struct batch_of { uint4 w[U][TILES][2], x[U]; };

/* Past the end a lane reads the row's last octet again, which the zero in x leaves out. */
template <class T, int TILES, int U>
CU_DEVICE void batch_load_w(batch_of<TILES, U> &b, const lane_rows<T, TILES> &r,
                            uint32_t chunk) {
#pragma unroll
    for (int u = 0; u < U; u++) {
        const uint32_t k = min((chunk + u) * 32 + r.k0, r.n_in - 8);
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            b.w[u][i][0] = cu_ld_stream(r.w[i][0] + k);
            b.w[u][i][1] = cu_ld_stream(r.w[i][1] + k);
        }
    }
}
template <class T, int TILES, int U>
CU_DEVICE void batch_load_x(batch_of<TILES, U> &b, const lane_rows<T, TILES> &r,
                            uint32_t chunk) {
#pragma unroll
    for (int u = 0; u < U; u++) {
        const uint32_t k = (chunk + u) * 32 + r.k0;
        b.x[u] = make_uint4(0, 0, 0, 0);
        if (r.x && k < r.n_in) b.x[u] = *(const uint4 *)(r.x + k);
    }
}

template <class T, int TILES, int U>
CU_DEVICE void batch_multiply(float d[TILES][4], const batch_of<TILES, U> &b) {
#pragma unroll
    for (int u = 0; u < U; u++) {
        const uint32_t x0[2] = {b.x[u].x, b.x[u].y}, x1[2] = {b.x[u].z, b.x[u].w};
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            const uint4 lo = b.w[u][i][0], hi = b.w[u][i][1];
            const uint32_t a0[4] = {lo.x, hi.x, lo.y, hi.y}, a1[4] = {lo.z, hi.z, lo.w, hi.w};
            cu_mma(d[i], a0, x0, T());
            cu_mma(d[i], a1, x1, T());
        }
    }
}

/* First chunk of a warp's batch j. */
template <int U> CU_DEVICE uint32_t batch_chunk(uint32_t warp, uint32_t j) {
    return (warp + j / (GROUP / U) * WARPS) * GROUP + j % (GROUP / U) * U;
}

/* Number of a warp's batches that begin before n_chunks. */
template <int U> CU_DEVICE uint32_t batch_count(uint32_t warp, uint32_t n_chunks) {
    const uint32_t n_groups = (n_chunks + GROUP - 1) / GROUP;
    if (warp >= n_groups) return 0;
    const uint32_t n = (n_groups - warp + WARPS - 1) / WARPS; /* groups, of which ... */
    const uint32_t last = warp + (n - 1) * WARPS;             /* ... the last may be short */
    const uint32_t left = min(n_chunks - last * GROUP, (uint32_t)GROUP);
    return (n - 1) * (GROUP / U) + (left + U - 1) / U;
}

template <class T, int TILES, int U>
CU_DEVICE void warp_multiply(float d[TILES][4], const lane_rows<T, TILES> &r, uint32_t warp) {
    const uint32_t n = batch_count<U>(warp, (r.n_in + 31) / 32);
    batch_of<TILES, U> now, next;
    if (n) batch_load_w(now, r, batch_chunk<U>(warp, 0));
    cu_grid_wait(); /* the first weights come while the kernels before still run */
    if (n) batch_load_x(now, r, batch_chunk<U>(warp, 0));
#pragma unroll 2
    for (uint32_t j = 0; j < n; j++) {
        if (j + 1 < n) {
            batch_load_w(next, r, batch_chunk<U>(warp, j + 1));
            batch_load_x(next, r, batch_chunk<U>(warp, j + 1));
        }
        batch_multiply<T>(d, now);
        now = next;
    }
}

CU_DEVICE float sum_of_warps(const float *sums, uint32_t stride) {
    float v = sums[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) v += sums[w * stride];
    return v;
}

template <class T>
CU_DEVICE void put(const few_args<T> &a, uint32_t row, uint32_t col, float v) {
    const size_t at = (size_t)row * a.ld_out + col;
    if (a.kind == CU_OUT_T)
        ((T *)a.out)[at] = cu_from_float(v, T());
    else if (a.kind == CU_OUT_F32)
        ((float *)a.out)[at] = v;
    else
        ((float *)a.out)[at] += v;
}

/* sums: [WARPS * TILES * SUMS] of shared memory. */
template <class T, int TILES, int U, bool GATED>
CU_DEVICE void few_rows(const few_args<T> &a, float *sums) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const uint32_t first = blockIdx.x * TILE * (GATED ? 1 : TILES);
    lane_rows<T, TILES> r;
    float d[TILES][4] = {};
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t row = min(first + (GATED ? 0 : i * TILE) + h * 8 + g, a.n_out - 1);
            r.w[i][h] = a.w[GATED ? i : 0] + (size_t)row * a.n_in;
        }
    r.x = NULL;
    if (g < a.n_rows) r.x = a.in + (size_t)(a.rows ? (uint32_t)a.rows[g] : g) * a.ld_in;
    r.n_in = a.n_in, r.k0 = 8 * t;
    warp_multiply<T, TILES, U>(d, r, warp);
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        float *s = sums + (warp * TILES + i) * SUMS + 2 * t * COLUMN + g;
        s[0] = d[i][0], s[COLUMN] = d[i][1];
        s[8] = d[i][2], s[COLUMN + 8] = d[i][3];
    }
    __syncthreads();
    const uint32_t tile = threadIdx.x / 128, row = threadIdx.x % 128 / TILE,
                   o = threadIdx.x % TILE, col = first + tile * TILE + o;
    if (tile >= (GATED ? 1 : TILES) || row >= a.n_rows || col >= a.n_out) return;
    const float *s = sums + tile * SUMS + row * COLUMN + o;
    float v = sum_of_warps(s, TILES * SUMS);
    if (a.bias[0]) v += a.bias[0][col];
    if (GATED) {
        float up = sum_of_warps(s + SUMS, TILES * SUMS);
        if (a.bias[1]) up += a.bias[1][col];
        v = cu_gated(a.act, v, up);
    }
    put(a, row, col, v);
}

template <class T, int TILES, int U, bool GATED>
static __global__ void __launch_bounds__(WARPS * 32, 2) k_linear_few(few_args<T> a) {
    CU_SHARED(float, sums, WARPS *TILES *SUMS);
    cu_grid_trigger();
    few_rows<T, TILES, U, GATED>(a, sums);
}

/* Grid: tiles of outputs, tiles of slots. What a tile's first eight rows do not hold follows in
 * further passes, whose weights come from the caches. */
template <class T, int TILES, int U, bool GATED>
static __global__ void __launch_bounds__(WARPS * 32, 2)
    k_experts_few(few_args<T> all, cu_experts x) {
    CU_SHARED(float, sums, WARPS *TILES *SUMS);
    cu_grid_trigger();
    cu_grid_wait();
    const int32_t *tile = x.routed.tiles + 4 * (size_t)blockIdx.y;
    const uint32_t expert = (uint32_t)tile[0], n = (uint32_t)tile[2];
    few_args<T> a = all;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        a.w[i] = (const T *)((const char *)all.w[i] + expert * x.stride);
        if (all.bias[i]) a.bias[i] = all.bias[i] + (size_t)expert * all.n_out;
    }
    for (uint32_t at = 0; at < n; at += CU_FEW_ROWS) {
        const size_t slot = (size_t)(uint32_t)tile[1] + at;
        a.n_rows = min(n - at, (uint32_t)CU_FEW_ROWS);
        a.rows = x.by_row ? x.routed.row + slot : NULL;
        a.in = x.by_row ? all.in : all.in + slot * all.ld_in;
        a.out = (char *)all.out + slot * all.ld_out * (all.kind == CU_OUT_T ? 2 : 4);
        if (at) __syncthreads(); /* sums are read */
        few_rows<T, TILES, U, GATED>(a, sums);
    }
}

static bool usable(const cu_linear *l) {
    const dtype want = l->t == CU_F16 ? DT_F16 : DT_BF16;
    return l->w.type == want && l->n_rows <= CU_FEW_ROWS && l->w.n_in && l->w.n_in % 8 == 0 &&
           l->ld_in % 8 == 0 && l->w.n_out;
}

template <class T> static few_args<T> args_of(const cu_linear *l) {
    few_args<T> a = {};
    a.w[0] = (const T *)l->w.data, a.bias[0] = l->bias;
    a.in = (const T *)l->in, a.out = l->out;
    a.n_out = l->w.n_out, a.n_in = l->w.n_in, a.n_rows = l->n_rows;
    a.ld_in = l->ld_in, a.ld_out = l->ld_out, a.kind = l->kind;
    return a;
}

cudaError_t cu_linear_few(cudaStream_t s, const cu_linear *l) {
    if (!usable(l)) return cudaErrorInvalidValue;
    if (l->n_rows == 0) return cudaSuccess;
    return cu_by_type(l->t, [&](auto type) {
        using T = decltype(type);
        /* Two tiles share the reads of the activations where these are a burden and blocks are
         * plenty. */
        if (l->n_rows > 4 && l->w.n_out >= 8192)
            CU_LAUNCH_EARLY((k_linear_few<T, 2, 2, false>), cu_ceil_div(l->w.n_out, 2 * TILE),
                            WARPS * 32, 0, s, args_of<T>(l));
        else
            CU_LAUNCH_EARLY((k_linear_few<T, 1, 4, false>), cu_ceil_div(l->w.n_out, TILE),
                            WARPS * 32, 0, s, args_of<T>(l));
        return cudaGetLastError();
    });
}

cudaError_t cu_gate_up_few(cudaStream_t s, const cu_linear *gate, const cu_linear *up,
                           activation act) {
    if (!usable(gate) || !usable(up) || gate->t != up->t || gate->w.n_out != up->w.n_out ||
        gate->w.n_in != up->w.n_in)
        return cudaErrorInvalidValue;
    if (gate->n_rows == 0) return cudaSuccess;
    return cu_by_type(gate->t, [&](auto type) {
        using T = decltype(type);
        few_args<T> a = args_of<T>(gate);
        a.w[1] = (const T *)up->w.data, a.bias[1] = up->bias, a.act = act;
        a.kind = CU_OUT_T;
        CU_LAUNCH_EARLY((k_linear_few<T, 2, 2, true>), cu_ceil_div(a.n_out, TILE), WARPS * 32,
                        0, s, a);
        return cudaGetLastError();
    });
}

cudaError_t cu_experts_few(cudaStream_t s, const cu_experts *x, const cu_linear *l,
                           const cu_linear *up, activation act) {
    cu_linear few = *l;
    few.n_rows = 1;
    if (!usable(&few) || l->kind == CU_OUT_ADD ||
        (up &&
         (up->w.n_out != l->w.n_out || up->w.n_in != l->w.n_in || up->w.type != l->w.type)))
        return cudaErrorInvalidValue;
    if (x->routed.n_tiles == 0) return cudaSuccess;
    const dim3 grid(cu_ceil_div(l->w.n_out, TILE), x->routed.n_tiles);
    return cu_by_type(l->t, [&](auto type) {
        using T = decltype(type);
        few_args<T> a = args_of<T>(l);
        if (!up) {
            CU_LAUNCH_EARLY((k_experts_few<T, 1, 4, false>), grid, WARPS * 32, 0, s, a, *x);
            return cudaGetLastError();
        }
        a.w[1] = (const T *)up->w.data, a.bias[1] = up->bias, a.act = act;
        a.kind = CU_OUT_T;
        CU_LAUNCH_EARLY((k_experts_few<T, 2, 2, true>), grid, WARPS * 32, 0, s, a, *x);
        return cudaGetLastError();
    });
}
