/* Prefill attention: the rows of chunks against their paged caches, causal (and windowed).
 *
 * A block takes up to 64 * MT (row, head) pairs of one KV head: pair p of a tile is row p /
 * group, head p % group, so that any group fills the mma tiles and short chunks waste little.
 * Four warps take 16 pairs each, MT times; K and V come in tiles of NK tokens at absolute
 * multiples of NK, double-buffered by cp.async. Tiles that no row of a warp sees are skipped by
 * that warp, tiles that no row of the block sees are not loaded; masks are looked at on the
 * edges only.
 *
 * A row's result depends on its position, its window and the keys: a tile that it does not see
 * adds nothing, exactly. */
#include "engine/cuda/attn_codes.cuh"

enum { PREFILL_WARPS = 4, PREFILL_THREADS = PREFILL_WARPS * 32 };

template <class E, int HD, attn_form FORM> struct prefill_config {
    static constexpr int MT = HD <= 128 ? 2 : 1;
    static constexpr int NK = HD <= 128 ? 64 : 32;
    static constexpr int PART = HD <= 80 ? 64 : 32; /* whose scores fit in registers */
    static constexpr int PAIRS = MT * PREFILL_WARPS * 16;
    static constexpr int Q = PAIRS * attn_row<HD>::STRIDE; /* elements */
    using tiles = attn_tiles<E, HD, NK, FORM>;
    static constexpr attn_form form = FORM;
    static constexpr size_t SMEM = (size_t)Q * 2 + 2 * tiles::STAGE + tiles::EXPANDED;
    static_assert(SMEM <= 99 << 10, "fits sm_86 and sm_89, and twice on sm_90");
};

/* A block's pairs. */
struct prefill_block {
    uint32_t entry, kv_head;
    uint32_t row, head; /* of pair 0: row within the step, head within the group */
    int n_pairs;        /* 0: nothing to do */
    int pos;            /* of pair 0 */
};

CU_DEVICE prefill_block prefill_block_of(const attn_args &a, const int32_t *tile,
                                         uint32_t kv_head, uint32_t p0) {
    prefill_block b;
    b.entry = (uint32_t)tile[0];
    b.kv_head = kv_head;
    int rows = min(a.n_rows[b.entry] - tile[1], (int)CU_PREFILL_TILE);
    b.n_pairs = max(0, rows * (int)a.group - (int)p0);
    uint32_t row = (uint32_t)tile[1] + p0 / a.group;
    b.row = (uint32_t)a.first_row[b.entry] + row;
    b.head = p0 % a.group;
    b.pos = a.first_pos[b.entry] + (int)row;
    return b;
}

/* Position of a pair. */
CU_DEVICE int prefill_pos(const attn_args &a, const prefill_block &b, int p) {
    return b.pos + (int)((b.head + (uint32_t)p) / a.group);
}

/* Offset of a pair's head in q or out, whose rows are ld elements apart. */
CU_DEVICE size_t prefill_at(const attn_args &a, const prefill_block &b, int p, uint32_t ld) {
    uint32_t h = b.head + (uint32_t)p;
    return (size_t)(b.row + h / a.group) * ld +
           (size_t)(b.kv_head * a.group + h % a.group) * a.head_dim;
}

template <class E, int HD>
CU_DEVICE void prefill_load_q(const attn_args &a, const prefill_block &b, int n_rows, E *q) {
    constexpr int G = attn_row<HD>::GRANULES;
    for (int i = (int)threadIdx.x; i < n_rows * G; i += PREFILL_THREADS) {
        int p = i / G, c = i % G;
        uint4 v = make_uint4(0, 0, 0, 0);
        if (p < b.n_pairs && c * 8 < (int)a.head_dim)
            v = attn_convert<E>(a.t_bf16,
                                *(const uint4 *)(a.qkv + prefill_at(a, b, p, a.ld) + c * 8));
        *(uint4 *)(q + attn_row<HD>::at(p, c)) = v;
    }
}

/* The warp's results, as T, over its own rows of q, and from there to out in 16-byte pieces. */
template <class E, int HD, int MT>
CU_DEVICE void prefill_store(const attn_args &a, const prefill_block &b,
                             const attn_state<HD, MT> &s, E *q, int p0, int lane) {
    constexpr int G = attn_row<HD>::GRANULES;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < MT; i++) {
        int base = p0 + i * PREFILL_WARPS * 16;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const uint32_t head = b.head + (uint32_t)(base + lane / 4 + 8 * r);
            const float l = attn_row_sum(s.l[i][r]) +
                            attn_sink(a, b.kv_head * a.group + head % a.group, s.m[i][r]);
            const float inv = 1.0f / l;
#pragma unroll
            for (int j = 0; j < HD / 8; j++)
                *(uint32_t *)(q + attn_row<HD>::at(base + lane / 4 + 8 * r, j) +
                              2 * (lane & 3)) =
                    attn_pack_t(a.t_bf16, s.o[i][j][2 * r] * inv, s.o[i][j][2 * r + 1] * inv);
        }
        __syncwarp();
        for (int n = lane; n < 16 * G; n += 32) {
            int p = base + n / G, c = n % G;
            if (p < b.n_pairs && c * 8 < (int)a.head_dim)
                *(uint4 *)(a.out + prefill_at(a, b, p, a.n_heads * a.head_dim) + c * 8) =
                    *(const uint4 *)(q + attn_row<HD>::at(p, c));
        }
    }
}

/* A tile of the tail into k; waits for it, but not for the other threads. */
template <class E, int HD, int NK>
CU_DEVICE void prefill_tail(const attn_args &a, const prefill_block &b, E *k, int first, int lo,
                            int hi) {
    const int32_t *blocks = a.tail_blocks + (size_t)b.entry * a.table_stride;
    attn_load<E, HD, NK, PREFILL_THREADS>(
        attn_tail_pages_of(a, b.kv_head), k, k + NK * attn_row<HD>::STRIDE, first, lo, hi,
        (int)threadIdx.x,
        [&](int, int token) { return __ldg(blocks + (token >> a.block_shift)); });
    cu_cp_async_commit();
    cu_cp_async_wait<0>();
}

/* The tiles of a block: of the cache, and then, where there is one, of the tail. */
struct prefill_tiles {
    attn_reach reach;
    int lo, hi, first, n; /* tokens that some row of the block sees; tiles from first on */
};

template <int NK>
CU_DEVICE prefill_tiles prefill_tiles_of(const attn_reach &reach, int first_pos, int last_pos) {
    prefill_tiles t = {reach, attn_first_seen(reach, first_pos),
                       attn_last_seen(reach, last_pos), 0, 0};
    t.first = t.lo / NK;
    t.n = t.hi < t.lo || attn_span(reach) <= 0 ? 0 : t.hi / NK - t.first + 1;
    return t;
}

template <class E, int HD, int MT, class C>
CU_DEVICE void prefill_run(const attn_args &a, const prefill_block &b, E *q) {
    using tiles = typename C::tiles;
    constexpr int NK = C::NK;
    unsigned char *ring = (unsigned char *)(q + C::Q);
    int lane = (int)threadIdx.x & 31, p0 = ((int)threadIdx.x >> 5) * 16;
    const int32_t *table = a.blocks + (size_t)b.entry * a.table_stride;
    attn_pages pages = attn_pages_of(a, b.kv_head);
    const int last_pos = prefill_pos(a, b, b.n_pairs - 1);
    attn_reach reach = {0, a.window};
    prefill_tiles tail = {};
    if constexpr (C::form == ATTN_CODES)
        if (a.tail) {
            reach = attn_reach_of(a);
            tail = prefill_tiles_of<NK>(attn_tail_reach_of(a), b.pos, last_pos);
        }
    const prefill_tiles own = prefill_tiles_of<NK>(reach, b.pos, last_pos);
    auto issue = [&](int tile) {
        tiles::template load<PREFILL_THREADS>(
            pages, ring + (tile & 1) * tiles::STAGE, tile * NK, own.lo, own.hi,
            (int)threadIdx.x,
            [&](int, int token) { return __ldg(table + (token >> a.block_shift)); });
        cu_cp_async_commit();
    };
    if (own.n) issue(own.first);
    prefill_load_q<E, HD>(a, b, MT * PREFILL_WARPS * 16, q);
    int hi[MT][2]; /* what the lane's rows see */
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int p = p0 + i * PREFILL_WARPS * 16 + lane / 4 + 8 * r;
            hi[i][r] = p < b.n_pairs ? prefill_pos(a, b, p) : -1;
        }
    bool idle = p0 >= b.n_pairs;
    int lowest = prefill_pos(a, b, p0);
    int highest =
        prefill_pos(a, b, min(p0 + (MT - 1) * PREFILL_WARPS * 16 + 16, b.n_pairs) - 1);
    attn_state<HD, MT> s;
    attn_begin(s);
    for (int j = 0; j < own.n + tail.n; j++) {
        const bool in_tail = C::form == ATTN_CODES && j >= own.n;
        const prefill_tiles &t = in_tail ? tail : own;
        const int tile = in_tail ? tail.first + j - own.n : own.first + j;
        cu_cp_async_wait<0>();
        __syncthreads(); /* the tile is here, and nobody is at the one before */
        if (!in_tail && j + 1 < own.n) issue(tile + 1);
        E *k = (E *)(ring + (tile & 1) * tiles::STAGE);
        if constexpr (tiles::EXPANDED != 0) {
            const unsigned char *stage = (const unsigned char *)k;
            k = (E *)(ring + 2 * tiles::STAGE);
            if (in_tail)
                prefill_tail<E, HD, NK>(a, b, k, tile * NK, t.lo, t.hi);
            else
                tiles::template expand<PREFILL_THREADS>(pages, stage, k, tile * NK, t.lo, t.hi,
                                                        (int)threadIdx.x);
            __syncthreads();
        }
        /* Which tokens some row of the warp sees, and between which bounds all rows do. */
        const int first_seen = attn_first_seen(t.reach, lowest),
                  all_seen = attn_first_seen(t.reach, highest);
        const int last_seen = attn_last_seen(t.reach, highest),
                  last_of_all = attn_last_seen(t.reach, lowest);
#pragma unroll 1
        for (int part = 0; part < NK; part += C::PART) {
            int first = tile * NK + part, at = part * attn_row<HD>::STRIDE;
            if (idle || first > last_seen || first + C::PART <= first_seen) continue;
            const attn_operands<E> x = {q + p0 * attn_row<HD>::STRIDE,
                                        PREFILL_WARPS * 16 * attn_row<HD>::STRIDE, k + at,
                                        k + tiles::TILE + at};
            const attn_mask<MT> mask = {first < all_seen || first + C::PART - 1 > last_of_all,
                                        first + t.reach.skip, attn_span(t.reach), hi};
            attn_tile<E, HD, MT, C::PART>(s, x, mask, a.score, lane);
        }
    }
    if (!idle) prefill_store<E, HD, MT>(a, b, s, q, p0, lane);
}

template <class E, int HD, attn_form FORM>
__global__ void __launch_bounds__(PREFILL_THREADS)
    attn_prefill_kernel(attn_args a, const int32_t *tiles, uint32_t n_tiles) {
    using C = prefill_config<E, HD, FORM>;
    CU_DYN_SHARED(E, smem);
    cu_grid_trigger();
    cu_grid_wait();
    uint32_t tile = n_tiles - 1 - blockIdx.y; /* the longest of a chunk first */
    prefill_block b = prefill_block_of(a, tiles + 2 * tile, blockIdx.x % a.n_kv_heads,
                                       blockIdx.x / a.n_kv_heads * C::PAIRS);
    if (b.n_pairs == 0) return;
    b.n_pairs = min(b.n_pairs, C::PAIRS);
    if (C::MT == 1 || b.n_pairs <= PREFILL_WARPS * 16)
        prefill_run<E, HD, 1, C>(a, b, smem);
    else
        prefill_run<E, HD, C::MT, C>(a, b, smem);
}

/* ---- host */

template <class E, int HD, attn_form FORM>
static cudaError_t prefill_launch(cudaStream_t stream, const attn_args &a, const int32_t *tiles,
                                  uint32_t n_tiles) {
    using C = prefill_config<E, HD, FORM>;
    cudaError_t e = cu_allow_smem(attn_prefill_kernel<E, HD, FORM>, C::SMEM);
    if (e) return e;
    uint32_t subs = (CU_PREFILL_TILE * a.group + C::PAIRS - 1) / C::PAIRS;
    CU_LAUNCH_EARLY((attn_prefill_kernel<E, HD, FORM>), dim3(a.n_kv_heads * subs, n_tiles),
                    PREFILL_THREADS, C::SMEM, stream, a, tiles, n_tiles);
    return cudaGetLastError();
}

template <class E, attn_form FORM>
static cudaError_t prefill_by_head(cudaStream_t s, const attn_args &a, const int32_t *tiles,
                                   uint32_t n_tiles) {
    if (a.head_dim <= 64) return prefill_launch<E, 64, FORM>(s, a, tiles, n_tiles);
    if (a.head_dim <= 80) return prefill_launch<E, 80, FORM>(s, a, tiles, n_tiles);
    if (a.head_dim <= 96) return prefill_launch<E, 96, FORM>(s, a, tiles, n_tiles);
    if (a.head_dim <= 128) return prefill_launch<E, 128, FORM>(s, a, tiles, n_tiles);
    return prefill_launch<E, 256, FORM>(s, a, tiles, n_tiles);
}

cudaError_t cu_attn_prefill(cudaStream_t stream, const cu_attn *attn, const cu_tables *tables,
                            const int32_t *tiles, uint32_t n_tiles) {
    if (!attn_args_valid(attn)) return cudaErrorNotSupported;
    if (!n_tiles) return cudaSuccess;
    attn_args a = attn_args_of(attn, tables);
    if (a.head_dim > CU_ATTN_HEAD) return attn_wide_prefill(stream, *attn, a, tiles, n_tiles);
    const attn_form form = attn_form_of(attn);
    return form == ATTN_CODES   ? prefill_by_head<__half, ATTN_CODES>(stream, a, tiles, n_tiles)
           : form == ATTN_BYTES ? prefill_by_head<__half, ATTN_BYTES>(stream, a, tiles, n_tiles)
           : attn->kv.type == CU_BF16
               ? prefill_by_head<__nv_bfloat16, ATTN_NUMBERS>(stream, a, tiles, n_tiles)
               : prefill_by_head<__half, ATTN_NUMBERS>(stream, a, tiles, n_tiles);
}
