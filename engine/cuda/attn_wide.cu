/* Attention of heads wider than attn_decode.cu and attn_prefill.cu take, in the plainest form of
 * FlashAttention: no tensor cores, for layers that few models have (those of Gemma 4 without a window).
 *
 * A block takes one row and up to 8 query heads of one KV head, and either all that the row sees or one split
 * of it (attn.cuh). It goes through tiles of 32 tokens at fixed absolute positions: scores, a warp for four
 * tokens; the softmax, a warp for a head; then sums of V, a thread for two dimensions. q, scores,
 * weights and sums are float32. What a row sees is read once for each 8 of its heads, and by each row
 * again, from L2. */
#include "engine/cuda/attn.cuh"

enum { WIDE_THREADS = 256, WIDE_WARPS = 8, WIDE_HEADS = 8, WIDE_TOKENS = 32 };
static_assert(CU_ATTN_WIDE == 2 * WIDE_THREADS, "a thread has two dimensions");
static_assert(WIDE_TOKENS == 32 && WIDE_HEADS == WIDE_WARPS, "a lane a token, a warp a head");

/* A row of an entry, the tokens [lo, hi] of it, and heads. */
struct wide_item {
    uint32_t entry, row, kv_head, head, n_heads;
    int lo, hi;
};

struct wide_shared {
    float q[WIDE_HEADS][CU_ATTN_WIDE];
    float score[WIDE_HEADS][WIDE_TOKENS];
    float factor[WIDE_HEADS], m[WIDE_HEADS], l[WIDE_HEADS];
    const unsigned char *k[WIDE_TOKENS]; /* rows of the tile's tokens; NULL: not seen */
};

CU_DEVICE void wide_heads(const attn_args &a, wide_item *d, uint32_t unit) {
    const uint32_t units = (a.group + WIDE_HEADS - 1) / WIDE_HEADS;
    d->kv_head = unit / units;
    d->head = d->kv_head * a.group + unit % units * WIDE_HEADS;
    d->n_heads = min((uint32_t)WIDE_HEADS, (d->kv_head + 1) * a.group - d->head);
}

CU_DEVICE void wide_begin(const attn_args &a, const wide_item &d, wide_shared &s) {
    for (uint32_t i = threadIdx.x; i < d.n_heads * a.head_dim; i += WIDE_THREADS) {
        const uint32_t h = i / a.head_dim, c = i % a.head_dim;
        const uint16_t x = a.qkv[(size_t)d.row * a.ld + (d.head + h) * a.head_dim + c];
        const float2 f = attn_unpack_t(a.t_bf16, x);
        s.q[h][c] = f.x;
    }
    if (threadIdx.x < WIDE_HEADS) s.m[threadIdx.x] = -INFINITY, s.l[threadIdx.x] = 0.0f;
}

/* Where the tile's tokens lie. */
CU_DEVICE void wide_find(const attn_args &a, const wide_item &d, int first, wide_shared &s) {
    if (threadIdx.x >= WIDE_TOKENS) return;
    const int token = first + (int)threadIdx.x;
    s.k[threadIdx.x] = NULL;
    if (token < d.lo || token > d.hi) return;
    const int32_t block =
        a.blocks[(size_t)d.entry * a.table_stride + ((uint32_t)token >> a.block_shift)];
    s.k[threadIdx.x] = a.kv + (uint64_t)d.kv_head * a.part_bytes +
                       (uint64_t)(uint32_t)block * a.block_stride +
                       (uint32_t)(token & ((1 << a.block_shift) - 1)) * a.row_bytes;
}

template <class E>
CU_DEVICE void wide_scores(const attn_args &a, const wide_item &d, wide_shared &s) {
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (uint32_t i = warp * 4; i < warp * 4 + 4; i++) {
        float sum[WIDE_HEADS] = {};
        for (uint32_t c = lane * 8; s.k[i] && c < a.head_dim; c += 256) {
            float k[8];
            cu_load8((const E *)s.k[i] + c, k);
#pragma unroll
            for (int h = 0; h < WIDE_HEADS; h++) {
                if (h >= (int)d.n_heads) break;
#pragma unroll
                for (int j = 0; j < 8; j++) sum[h] = fmaf(s.q[h][c + j], k[j], sum[h]);
            }
        }
#pragma unroll
        for (int h = 0; h < WIDE_HEADS; h++) {
            if (h >= (int)d.n_heads) break;
            float x = cu_warp_sum(sum[h]);
            if (a.score.cap > 0.0f) x = cu_capped(cu_ex2(x * a.score.rate), a.score.cap);
            if (lane == 0) s.score[h][i] = s.k[i] ? x * a.score.scale : -INFINITY;
        }
    }
}

/* Scores become weights; the maxima and sums follow. */
CU_DEVICE void wide_soften(const wide_item &d, wide_shared &s) {
    const uint32_t h = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (h >= d.n_heads) return;
    const float x = s.score[h][lane], before = s.m[h];
    const float m = fmaxf(before, cu_warp_max(x)), base = m == -INFINITY ? 0.0f : m;
    const float weight = cu_ex2(x - base), sum = cu_warp_sum(weight);
    s.score[h][lane] = weight;
    if (lane) return;
    s.factor[h] = cu_ex2(before - base);
    s.l[h] = fmaf(s.l[h], s.factor[h], sum);
    s.m[h] = m;
}

template <class E>
CU_DEVICE void wide_values(const attn_args &a, const wide_item &d, const wide_shared &s,
                           float acc[WIDE_HEADS][2]) {
    const uint32_t c = threadIdx.x * 2;
    if (c >= a.head_dim) return;
#pragma unroll
    for (int h = 0; h < WIDE_HEADS; h++)
        if (h < (int)d.n_heads) acc[h][0] *= s.factor[h], acc[h][1] *= s.factor[h];
    for (int i = 0; i < WIDE_TOKENS; i++) {
        if (!s.k[i]) continue;
        const E *v = (const E *)(s.k[i] + a.v_at) + c;
        const float x = cu_to_float(v[0]), y = cu_to_float(v[1]);
#pragma unroll
        for (int h = 0; h < WIDE_HEADS; h++) {
            if (h >= (int)d.n_heads) break;
            acc[h][0] = fmaf(s.score[h][i], x, acc[h][0]);
            acc[h][1] = fmaf(s.score[h][i], y, acc[h][1]);
        }
    }
}

/* With all threads of the block. */
template <class E>
CU_DEVICE void wide_run(const attn_args &a, const wide_item &d, wide_shared &s,
                        float acc[WIDE_HEADS][2]) {
    wide_begin(a, d, s);
    for (int first = d.lo / WIDE_TOKENS * WIDE_TOKENS; first <= d.hi; first += WIDE_TOKENS) {
        __syncthreads();
        wide_find(a, d, first, s);
        __syncthreads();
        wide_scores<E>(a, d, s);
        __syncthreads();
        wide_soften(d, s);
        __syncthreads();
        wide_values<E>(a, d, s, acc);
    }
}

CU_DEVICE void wide_store(const attn_args &a, const wide_item &d, const wide_shared &s,
                          const float acc[WIDE_HEADS][2]) {
    const uint32_t c = threadIdx.x * 2;
    if (c >= a.head_dim) return;
#pragma unroll
    for (int h = 0; h < WIDE_HEADS; h++) {
        if (h >= (int)d.n_heads) break;
        const float l = s.l[h] + attn_sink(a, d.head + h, s.m[h]);
        const size_t at = ((size_t)d.row * a.n_heads + d.head + h) * a.head_dim + c;
        *(uint32_t *)(a.out + at) = attn_pack_t(a.t_bf16, acc[h][0] / l, acc[h][1] / l);
    }
}

/* Grid: entries, heads, splits. */
template <class E>
static __global__ void __launch_bounds__(WIDE_THREADS)
    k_wide_decode(attn_args a, uint32_t n_seqs, decode_partials out) {
    CU_SHARED(wide_shared, s, 1);
    cu_grid_trigger();
    cu_grid_wait();
    wide_item d = {};
    d.entry = blockIdx.x;
    const decode_cut cut = decode_cut_of(a, n_seqs, d.entry);
    if (blockIdx.z >= cut.n) return;
    const bool lacks = cut.n > out.n_splits; /* a batch that contradicts its plan: NaN */
    wide_heads(a, &d, blockIdx.y);
    d.row = (uint32_t)a.first_row[d.entry];
    const int begin = (int)((cut.first + blockIdx.z) << cut.shift);
    d.lo = max(cut.lo, begin);
    d.hi = min(cut.pos, begin + (1 << cut.shift) - 1);
    float acc[WIDE_HEADS][2] = {};
    wide_run<E>(a, d, s[0], acc);
    if (cut.n == 1 || lacks) {
#pragma unroll
        for (int h = 0; h < WIDE_HEADS && lacks; h++) acc[h][0] = acc[h][1] = NAN;
        wide_store(a, d, s[0], acc);
        return;
    }
    const uint32_t c = threadIdx.x * 2;
#pragma unroll
    for (int h = 0; h < WIDE_HEADS; h++) {
        if (h >= (int)d.n_heads || c >= a.head_dim) break;
        const size_t at =
            ((size_t)d.entry * out.n_splits + blockIdx.z) * a.n_heads + d.head + h;
        *(float2 *)(out.acc + at * a.head_dim + c) = make_float2(acc[h][0], acc[h][1]);
        if (c == 0) out.ml[at] = make_float2(s[0].m[h], s[0].l[h]);
    }
    CU_SHARED(uint32_t, last, 1);
    if (!cu_last_block(a.arrived + (size_t)d.entry * a.n_heads + blockIdx.y, cut.n, last))
        return;
    static_assert(attn_combine_bytes(WIDE_HEADS) <= sizeof s[0].q, "shared by the sum");
    attn_combine<WIDE_THREADS>(a, {d.entry, d.head, d.n_heads}, cut.n, out, s[0].q);
}

/* Grid: rows of tiles, heads. */
template <class E>
static __global__ void __launch_bounds__(WIDE_THREADS)
    k_wide_prefill(attn_args a, const int32_t *tiles) {
    CU_SHARED(wide_shared, s, 1);
    cu_grid_trigger();
    cu_grid_wait();
    const int32_t *tile = tiles + 2 * (blockIdx.x / CU_PREFILL_TILE);
    wide_item d = {};
    d.entry = (uint32_t)tile[0];
    const int i = tile[1] + (int)(blockIdx.x % CU_PREFILL_TILE);
    if (i >= a.n_rows[d.entry]) return;
    wide_heads(a, &d, blockIdx.y);
    d.row = (uint32_t)(a.first_row[d.entry] + i);
    d.hi = a.first_pos[d.entry] + i;
    d.lo = a.window && (int)a.window <= d.hi ? d.hi + 1 - (int)a.window : 0;
    float acc[WIDE_HEADS][2] = {};
    wide_run<E>(a, d, s[0], acc);
    wide_store(a, d, s[0], acc);
}

/* Calls f with the type of K and V. */
template <class F> static cudaError_t wide_by_type(const cu_attn &attn, F f) {
    if (attn.kv.type == CU_BF16) return f(__nv_bfloat16());
    return f(__half());
}

static uint32_t wide_units(const attn_args &a) {
    return a.n_kv_heads * cu_ceil_div(a.group, (uint32_t)WIDE_HEADS);
}

cudaError_t attn_wide_decode(cudaStream_t stream, const cu_attn &attn, const attn_args &a,
                             uint32_t n_seqs, const decode_partials &p) {
    return wide_by_type(attn, [&](auto type) {
        CU_LAUNCH_EARLY((k_wide_decode<decltype(type)>),
                        dim3(n_seqs, wide_units(a), p.n_splits), WIDE_THREADS, 0, stream, a,
                        n_seqs, p);
        return cudaGetLastError();
    });
}

cudaError_t attn_wide_prefill(cudaStream_t stream, const cu_attn &attn, const attn_args &a,
                              const int32_t *tiles, uint32_t n_tiles) {
    return wide_by_type(attn, [&](auto type) {
        CU_LAUNCH_EARLY((k_wide_prefill<decltype(type)>),
                        dim3(n_tiles * CU_PREFILL_TILE, wide_units(a)), WIDE_THREADS, 0, stream,
                        a, tiles);
        return cudaGetLastError();
    });
}
