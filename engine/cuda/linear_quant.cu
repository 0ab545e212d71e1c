/* Linear layers with packed weights for few rows: int8 activations on the tensor cores. A warp
 * takes a strip of 16 outputs as operand A and up to 8 rows as B, so that one pass over the
 * weights serves 1 to 8 rows by the same instructions. Bound by reading the weights once: each
 * thread keeps eight 16-byte loads under way.
 *
 * A block takes one or two strips; its 8 warps take the chunks of 64 inputs in turn. For each
 * output, in float32:
 *
 *     warp w: acc = 0; for its chunks c = w, w + 8, ..., for b = 0, 1:
 *         acc = fma(float(isum), d_w * d_a, acc)        (isum: exact int32 sum of 32 products)
 *         acc = fma(m_w, s_a, acc)                      (types with minima)
 *     y = ((acc of warp 0 + acc of warp 1) + ...) + bias
 *
 * which depends neither on n_rows nor on how many strips a block has. Types with a scale for 16 inputs have two
 * such sums for each b, one after the other, and s_a = d_a * float(sum of 16 codes). Codes of fewer than 8 bits
 * with a sign are 2^up times as large (quant_word), for which y is divided by that. */
#include "engine/cuda/linear_quant.cuh"
#include "engine/cuda/quantize.cuh"

enum { WARPS = 8, LOADS = 8 };

/* ---- quantising activations ---- */

template <class T>
static __global__ void __launch_bounds__(128)
    k_quantize(uint32_t n_in, uint32_t ld, const T *in, act_view out) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t thread = blockIdx.x * 128 + threadIdx.x, row = blockIdx.y;
    float x[8] = {};
    if (thread * 8 < n_in) cu_load8(in + (size_t)row * ld + thread * 8, x);
    quantize_put(out, row, thread, x);
}

cudaError_t cu_quantize(cudaStream_t s, cu_type t, uint32_t n_rows, uint32_t n_in, uint32_t ld,
                        const void *in, void *out) {
    if (n_rows > CU_FEW_ROWS || n_in % PACKED_BLOCK) return cudaErrorInvalidValue;
    if (n_rows == 0 || n_in == 0) return cudaSuccess;
    const act_view view = act_view_of(out, n_in);
    const dim3 grid(cu_ceil_div(view.n_chunks * 8, 128), n_rows);
    return cu_by_type(t, [&](auto type) {
        using T = decltype(type);
        CU_LAUNCH_EARLY((k_quantize<T>), grid, 128, 0, s, n_in, ld, (const T *)in, view);
        return cudaGetLastError();
    });
}

/* ---- the GEMV ---- */

typedef struct few_params {
    quant_view w[2]; /* gate and up, or the matrix twice */
    const float *bias[2];
    act_view in;
    uint32_t n_rows, n_out;
    activation act;
    linear_out out;
    act_view codes; /* GATED: out quantised, too; codes NULL: not */
    uint32_t *arrived;
} few_params;

/* A lane's part of the activations of a chunk: codes of row g, scales and sums of rows 2t and
 * 2t + 1, blocks 0 and 1. */
struct few_acts {
    uint4 q;
    float4 d, s;
};

/* Where a lane's parts of its warp's first chunk are; the warp's chunk i lies i * WARPS chunks
 * on. */
template <dtype TYPE, int STRIPS> struct few_lane {
    quant_lane<TYPE> w[STRIPS];
    const uint8_t *q, *act_scales, *act_sums;
    bool has_row; /* row g exists: rows that do not are zeros, not read */
};

template <dtype TYPE, int STRIPS>
CU_DEVICE quant_tile<TYPE> load_weights(const few_lane<TYPE, STRIPS> &at, int s, int i) {
    return quant_load(quant_after(at.w[s], i * WARPS));
}

template <dtype TYPE, int STRIPS>
CU_DEVICE few_acts load_acts(const few_lane<TYPE, STRIPS> &at, int i) {
    few_acts a = {};
    if (at.has_row) a.q = __ldg((const uint4 *)(at.q + i * WARPS * PACKED_ACT_CODES));
    a.d = __ldg((const float4 *)(at.act_scales + i * WARPS * PACKED_ACT_SCALES));
    if (quant<TYPE>::has_min && !quant<TYPE>::by_16)
        a.s = __ldg((const float4 *)(at.act_sums + i * WARPS * PACKED_ACT_SCALES));
    return a;
}

/* acc += a sum of products of codes; d and s: scales of rows 2t and 2t + 1, and those times their sums. */
template <dtype TYPE>
CU_DEVICE void add_sum(const quant_tile<TYPE> &w, int b, int half, const int32_t isum[4],
                       const float d[2], const float s[2], float acc[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++)
        acc[i] =
            __fmaf_rn((float)isum[i], quant_scale(w, 0, b, i / 2, half) * d[i % 2], acc[i]);
    if constexpr (quant<TYPE>::has_min) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            acc[i] = __fmaf_rn(quant_scale(w, 1, b, i / 2, half), s[i % 2], acc[i]);
    }
}

/* acc += one chunk; acc as the fragment d of mma.m16n8. */
template <dtype TYPE>
CU_DEVICE void add_chunk(const quant_tile<TYPE> &w, const few_acts &a, float acc[4]) {
#pragma unroll
    for (int b = 0; b < 2; b++) {
        const uint32_t rows[2] = {b ? a.q.z : a.q.x, b ? a.q.w : a.q.y};
        const float d[2] = {b ? a.d.y : a.d.x, b ? a.d.w : a.d.z};
        uint32_t codes[4];
        quant_bytes(w, b, codes);
        if constexpr (!quant<TYPE>::by_16) {
            const float s[2] = {b ? a.s.y : a.s.x, b ? a.s.w : a.s.z};
            int32_t isum[4] = {0, 0, 0, 0};
            cu_mma_s8(isum, codes, rows);
            add_sum(w, b, 0, isum, d, s, acc);
        } else {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int32_t isum[4] = {0, 0, 0, 0}, sum[4] = {0, 0, 0, 0};
                const uint32_t ones[2] = {0x01010101u, 0x01010101u};
                cu_mma_s8_16(isum, codes + 2 * half, rows[half]);
                if (quant<TYPE>::has_min) cu_mma_s8_16(sum, ones, rows[half]);
                const float s[2] = {d[0] * (float)sum[0], d[1] * (float)sum[1]};
                add_sum(w, b, half, isum, d, s, acc);
            }
        }
    }
}

/* Runs a warp over its n chunks. */
template <dtype TYPE, int STRIPS>
CU_DEVICE void run_warp(few_lane<TYPE, STRIPS> at, int n, float acc[STRIPS][4]) {
    constexpr int DEPTH = LOADS / STRIPS / quant<TYPE>::loads;
    static_assert(DEPTH % 2 == 0, "acts takes turns");
    quant_tile<TYPE> ring[DEPTH][STRIPS];
    few_acts acts[2];
#pragma unroll
    for (int i = 0; i < DEPTH; i++)
#pragma unroll
        for (int s = 0; s < STRIPS; s++)
            if (i < n) ring[i][s] = load_weights(at, s, i);
    cu_grid_wait(); /* the first weights come while the kernels before still run */
    if (n > 0) acts[0] = load_acts(at, 0);
    for (; n > 0; n -= DEPTH) {
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            if (i >= n) break;
            if (i + 1 < n) acts[(i + 1) % 2] = load_acts(at, i + 1);
#pragma unroll
            for (int s = 0; s < STRIPS; s++) {
                add_chunk<TYPE>(ring[i][s], acts[i % 2], acc[s]);
                if (i + DEPTH < n) ring[i][s] = load_weights(at, s, i + DEPTH);
            }
        }
#pragma unroll
        for (int s = 0; s < STRIPS; s++) at.w[s] = quant_after(at.w[s], DEPTH * WARPS);
        at.q += DEPTH * WARPS * PACKED_ACT_CODES;
        at.act_scales += DEPTH * WARPS * PACKED_ACT_SCALES;
        at.act_sums += DEPTH * WARPS * PACKED_ACT_SCALES;
    }
}

/* Quantises the 32 outputs of this block and its neighbour, by the later of the two. */
CU_DEVICE void few_put_codes(const few_params &p) {
    CU_SHARED(uint32_t, last, 1);
    if (!cu_last_block(&p.arrived[blockIdx.x / 2], 2, last) || threadIdx.x >= 32) return;
    const uint32_t row = threadIdx.x / 4, octet = blockIdx.x / 2 * 4 + threadIdx.x % 4;
    float x[8] = {};
    if (row < p.n_rows) {
        const uint16_t *from = (const uint16_t *)p.out.p + (size_t)row * p.out.ld + octet * 8;
        const uint4 v = __ldcg((const uint4 *)from);
        if (p.out.t == CU_F16)
            cu_unpack8(v, x, __half());
        else
            cu_unpack8(v, x, __nv_bfloat16());
    }
    quantize_put(p.codes, row, octet, x);
}

template <dtype TYPE, int STRIPS, bool GATED>
static __global__ void __launch_bounds__(32 * WARPS) k_few(few_params p) {
    cu_grid_trigger();
    const uint32_t warp = threadIdx.x / 32;
    const int lane = (int)(threadIdx.x % 32);
    const uint32_t n = p.w[0].n_chunks;
    few_lane<TYPE, STRIPS> at;
    float acc[STRIPS][4] = {};
#pragma unroll
    for (int s = 0; s < STRIPS; s++) {
        const uint32_t strip =
            GATED ? blockIdx.x : min(blockIdx.x * STRIPS + s, p.w[0].n_strips - 1);
        const size_t tile = (size_t)strip * n + warp;
        at.w[s] = quant_lane_of<TYPE>(p.w[s], tile, lane);
    }
    at.q = p.in.codes + warp * PACKED_ACT_CODES + 16 * lane;
    const uint32_t scale_at = warp * PACKED_ACT_SCALES + 16 * (lane % 4);
    at.act_scales = (const uint8_t *)p.in.scales + scale_at;
    at.act_sums = (const uint8_t *)p.in.sums + scale_at;
    at.has_row = (uint32_t)lane / 4 < p.n_rows;
    run_warp<TYPE, STRIPS>(at, warp < n ? (int)((n - warp + WARPS - 1) / WARPS) : 0, acc);

    CU_SHARED(float, part, WARPS *STRIPS * 128);
#pragma unroll
    for (int s = 0; s < STRIPS; s++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            part[(warp * STRIPS + s) * 128 + 32 * i + lane] = acc[s][i] * quant_unit<TYPE>();
    __syncthreads();
    for (uint32_t at = threadIdx.x; at < (GATED ? 128 : STRIPS * 128); at += 32 * WARPS) {
        const uint32_t o = at % 16, row = at / 16 % 8, first = GATED ? 0 : at / 128;
        const uint32_t slot = (o / 8 * 2 + row % 2) * 32 + o % 8 * 4 + row / 2;
        const uint32_t col =
            (GATED ? blockIdx.x : blockIdx.x * STRIPS + first) * PACKED_STRIP + o;
        if (row >= p.n_rows || col >= p.n_out) continue;
        float y[2] = {};
#pragma unroll
        for (int s = 0; s < (GATED ? 2 : 1); s++) {
            for (uint32_t w = 0; w < WARPS; w++)
                y[s] += part[(w * STRIPS + first + s) * 128 + slot];
            if (p.bias[s]) y[s] += p.bias[s][col];
        }
        linear_put(p.out, row, col, GATED ? cu_gated(p.act, y[0], y[1]) : y[0]);
    }
    if (GATED && p.codes.codes) few_put_codes(p);
}

/* Two strips a block share the activations' loads; one gives small matrices more blocks. */
template <dtype TYPE>
static cudaError_t launch_few(cudaStream_t s, const few_params &p, quant_type<TYPE>) {
    const bool wide = p.n_rows > 2 || p.n_out > 16384;
    if (wide)
        CU_LAUNCH_EARLY((k_few<TYPE, 2, false>), (p.w[0].n_strips + 1) / 2, 32 * WARPS, 0, s,
                        p);
    else
        CU_LAUNCH_EARLY((k_few<TYPE, 1, false>), p.w[0].n_strips, 32 * WARPS, 0, s, p);
    return cudaGetLastError();
}

template <dtype TYPE>
static cudaError_t launch_gated(cudaStream_t s, const few_params &p, quant_type<TYPE>) {
    CU_LAUNCH_EARLY((k_few<TYPE, 2, true>), p.w[0].n_strips, 32 * WARPS, 0, s, p);
    return cudaGetLastError();
}

/* linear_packed.cu has them. */
static cudaError_t launch_few(cudaStream_t, const few_params &, quant_type<CU_F8>) {
    return cudaErrorInvalidValue;
}
static cudaError_t launch_gated(cudaStream_t, const few_params &, quant_type<CU_F8>) {
    return cudaErrorInvalidValue;
}

static few_params params_of(const cu_linear *a, const cu_linear *b, activation act,
                            const cu_codes &codes = cu_codes()) {
    const act_view view = codes.codes ? act_view_of(codes.codes, a->w.n_out) : act_view();
    return few_params{{quant_view_of(&a->w), quant_view_of(&b->w)},
                      {a->bias, b->bias},
                      act_view_of(a->in_q, a->w.n_in),
                      a->n_rows,
                      a->w.n_out,
                      act,
                      linear_out_of(a),
                      view,
                      codes.arrived};
}

cudaError_t cu_linear_quant(cudaStream_t s, const cu_linear *l) {
    if (l->n_rows == 0 || l->w.n_out == 0) return cudaSuccess;
    if (l->n_rows > CU_FEW_ROWS || l->same_bits) return cu_linear_packed(s, l);
    if (cu_matrix_is_float(l->w.type)) return cu_linear_packed(s, l);
    const few_params p = params_of(l, l, ACT_SILU);
    return quant_by_type(l->w.type, [&](auto type) { return launch_few(s, p, type); });
}

cudaError_t cu_gate_up_quant_few(cudaStream_t s, const cu_linear *gate, const cu_linear *up,
                                 activation act, const cu_codes *codes) {
    const cu_matrix *a = &gate->w;
    if (gate->n_rows == 0 || a->n_out == 0) return cudaSuccess;
    if (gate->n_rows > CU_FEW_ROWS || !cu_gate_up_fits(gate, up)) return cudaErrorInvalidValue;
    if (codes->codes && (a->n_out % PACKED_CHUNK || cu_matrix_is_float(a->type)))
        return cudaErrorInvalidValue;
    if (cu_matrix_is_float(a->type)) return cu_gate_up_packed(s, gate, up, act);
    const few_params p = params_of(gate, up, act, *codes);
    return quant_by_type(a->type, [&](auto type) { return launch_gated(s, p, type); });
}
