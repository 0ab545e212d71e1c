/* Decode attention: one new row of each sequence against its paged cache. Bound by reading K
 * and V once.
 *
 * What a row sees is cut into splits at fixed places (scratch.h). An item of work is one split
 * of one entry for one KV head (and up to 16 of its query heads, the rows of an mma tile). The
 * grid is what fits on the device at once; every block counts the items from the tables and
 * takes each gridDim-th, so that empty splits cost nothing and graphs need no other grid.
 *
 * In a block every warp works alone: tiles of 16 tokens, the w-th of each WARPS, through a ring
 * of its own in shared memory filled by cp.async STAGES - 1 tiles ahead. On an H100 the
 * three blocks of an SM have 80 to 144 KiB on the way. Then the warps' results are merged,
 * in their order, and stored: the result itself when there is one split, else a partial result.
 * The last block of an entry's heads to come sums these in order of the splits.
 *
 * Which tokens meet in which order thus depends on the row's position and window alone. */
#include "engine/cuda/attn_codes.cuh"
#include "engine/cuda/attn_turn.cuh"

enum { DECODE_HEADS = 16, DECODE_TOKENS = 16 }; /* of one mma tile */
enum { MOST_ENTRIES = 512 };                    /* that shared memory is asked for */

template <class E, int HD, attn_form FORM> struct decode_config {
    using tiles = attn_tiles<E, HD, DECODE_TOKENS, FORM>;
    static constexpr int WARPS = HD <= 128 ? 4 : 2;
    static constexpr int STAGES = HD <= 64 ? 4 : HD <= 80 ? 3 : 2;
    static constexpr int THREADS = WARPS * 32;
    static constexpr int RING = STAGES * tiles::STAGE + tiles::EXPANDED; /* bytes, of a warp */
    static constexpr int MERGE = HD + 8; /* floats of a row's result, maximum and sum */
    static_assert(DECODE_HEADS * MERGE * 4 <= RING, "the ring holds a warp's results");
    static constexpr int SMEM = WARPS * RING + DECODE_HEADS * attn_row<HD>::STRIDE * 2;
    static_assert(attn_combine_bytes(DECODE_HEADS) <= SMEM, "shared by what sums the splits");
    static_assert(SMEM + (MOST_ENTRIES + 1) * 4 <= 99 << 10, "sm_86 and sm_89 have 99 KiB");
    /* Blocks that an SM of sm_90 holds at once (fewer elsewhere: the others come after). */
    static constexpr int RESIDENT = (228 << 10) / (SMEM + (3 << 10));
    static size_t smem(uint32_t n_seqs) { return SMEM + (n_seqs + 1) * 4; }
};

/* first[e]: splits of the entries before e; first[n_seqs]: of all. An entry that needs more than
 * n_splits (a batch that contradicts its plan) has that many, and NaN as its result: its logits
 * are not finite then, and its sequence ends with an error. */
template <int THREADS>
CU_DEVICE void decode_count(const attn_args &a, uint32_t n_seqs, uint32_t n_splits,
                            int *first) {
    for (uint32_t e = threadIdx.x; e < n_seqs; e += THREADS) {
        first[e] = (int)min(decode_cut_of(a, n_seqs, e).n, n_splits);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        int lane = (int)threadIdx.x, before = 0;
        for (uint32_t e0 = 0; e0 < n_seqs; e0 += 32) {
            uint32_t e = e0 + (uint32_t)lane;
            int n = e < n_seqs ? first[e] : 0, sum = n;
#pragma unroll
            for (int d = 1; d < 32; d *= 2) {
                int below = __shfl_up_sync(0xffffffffu, sum, d);
                if (lane >= d) sum += below;
            }
            if (e < n_seqs) first[e] = before + sum - n;
            before += __shfl_sync(0xffffffffu, sum, 31);
        }
        if (lane == 0) first[n_seqs] = before;
    }
    __syncthreads();
}

/* The entry that split belongs to: the last with first[e] <= split. */
CU_DEVICE uint32_t decode_find(const int *first, uint32_t n_seqs, int split) {
    uint32_t lo = 0, hi = n_seqs;
    while (hi - lo > 1) {
        uint32_t mid = (lo + hi) / 2;
        if (first[mid] <= split)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* One item. */
struct decode_item {
    uint32_t entry, kv_head, head, n_heads; /* head: first of its n_heads <= 16 query heads */
    uint32_t unit;                          /* of these heads, in the entry */
    uint32_t split;                         /* within the entry */
    decode_cut cut;
};

CU_DEVICE decode_item decode_item_of(const attn_args &a, const int *first, uint32_t n_seqs,
                                     uint32_t item) {
    uint32_t chunks = (a.group + DECODE_HEADS - 1) / DECODE_HEADS;
    uint32_t unit = item % (a.n_kv_heads * chunks), split = item / (a.n_kv_heads * chunks);
    uint32_t chunk = unit % chunks;
    decode_item d;
    d.entry = decode_find(first, n_seqs, (int)split);
    d.unit = unit;
    d.kv_head = unit / chunks;
    d.head = d.kv_head * a.group + chunk * DECODE_HEADS;
    d.n_heads = min(a.group - chunk * DECODE_HEADS, (uint32_t)DECODE_HEADS);
    d.split = split - (uint32_t)first[d.entry];
    d.cut = decode_cut_of(a, n_seqs, d.entry);
    return d;
}

/* What a block has of a row that it rotates: angles, and the newest token's K and V. */
template <class E, int HD> struct decode_turn {
    float2 *table; /* [HD / 2], shared */
    E *newest;     /* [2][HD], shared */
};

/* Does the item see the row's own token, whose K and V are not in the cache yet? */
CU_DEVICE bool decode_is_newest(const attn_args &a, const decode_item &d) {
    return a.turn.appends && d.split + 1 == d.cut.n;
}

template <class E, int HD, int THREADS>
CU_DEVICE void decode_append(const attn_args &a, const decode_item &d,
                             const decode_turn<E, HD> &x) {
    if (!decode_is_newest(a, d)) return;
    const uint32_t pos = (uint32_t)d.cut.pos;
    unsigned char *place = NULL;
    if (d.head == d.kv_head * a.group) { /* of several units of a KV head, one */
        const int32_t block =
            a.blocks[(size_t)d.entry * a.table_stride + (pos >> a.block_shift)];
        place = (unsigned char *)a.kv + (uint64_t)d.kv_head * a.part_bytes +
                (uint64_t)(uint32_t)block * a.block_stride +
                (pos & ((1u << a.block_shift) - 1)) * a.row_bytes;
        if (block < 0) place = NULL;
    }
    turn_newest<E, HD, THREADS>(a, a.qkv + (size_t)a.first_row[d.entry] * a.ld, d.kv_head,
                                x.table, place, x.newest);
}

/* The newest token's K and V into its row of a tile, by one warp. */
template <class E, int HD>
CU_DEVICE void decode_put_newest(const decode_turn<E, HD> &x, E *k, E *v, int row, int lane) {
    for (int c = lane; c < HD / 8; c += 32) {
        const int at = attn_row<HD>::at(row, c);
        *(uint4 *)(k + at) = *(const uint4 *)(x.newest + c * 8);
        *(uint4 *)(v + at) = *(const uint4 *)(x.newest + HD + c * 8);
    }
    __syncwarp();
}

/* q of the item's heads, rotated if `turns`, the other rows of the tile zeros. */
template <class E, int HD, int THREADS>
CU_DEVICE void decode_load_q(const attn_args &a, const decode_item &d, bool turns,
                             const float2 *table, E *q) {
    const uint16_t *row = a.qkv + (size_t)a.first_row[d.entry] * a.ld;
    constexpr int G = attn_row<HD>::GRANULES;
    for (uint32_t i = threadIdx.x; i < DECODE_HEADS * G; i += THREADS) {
        uint32_t h = i / G, c = i % G;
        uint4 v = make_uint4(0, 0, 0, 0);
        const uint16_t *head = row + (size_t)(d.head + h) * a.head_dim;
        if (h < d.n_heads && c * 8 < a.head_dim)
            v = attn_convert<E>(a.t_bf16, turns ? turn_octet(a, head, table, c * 8)
                                                : *(const uint4 *)(head + c * 8));
        *(uint4 *)(q + attn_row<HD>::at((int)h, (int)c)) = v;
    }
}

/* The tiles of a warp among those of tokens [lo, hi]. */
struct decode_tiles {
    int lo, hi, first, n; /* tiles first, first + WARPS, ... */
};

template <int WARPS> CU_DEVICE decode_tiles decode_tiles_of(int lo, int hi, int warp) {
    decode_tiles t = {lo, hi, lo / DECODE_TOKENS, 0};
    t.first += (warp - t.first) & (WARPS - 1);
    const int last = hi / DECODE_TOKENS;
    if (hi >= lo && t.first <= last) t.n = (last - t.first) / WARPS + 1;
    return t;
}

/* This warp's tiles of the split, through its ring; loads q while the first are on the way. Tiles
 * of a tail come first, counted below 0: the first of them beside those of the ring. */
template <class E, int HD, attn_form FORM>
CU_DEVICE void decode_walk(const attn_args &a, const decode_item &d, E *q, unsigned char *ring,
                           const decode_turn<E, HD> &turn, attn_state<HD, 1> &s) {
    using C = decode_config<E, HD, FORM>;
    using tiles = typename C::tiles;
    int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    int begin = (int)(d.cut.first + d.split) << d.cut.shift;
    int lo = max(begin, d.cut.lo), hi = min(begin + (1 << d.cut.shift) - 1, d.cut.pos);
    decode_tiles tail = {};
    if constexpr (FORM == ATTN_CODES)
        if (a.tail) {
            const int from = attn_first_seen(attn_tail_reach_of(a), d.cut.pos);
            tail = decode_tiles_of<C::WARPS>(max(lo, from), hi, warp);
            hi = min(hi, from - 1);
        }
    const decode_tiles own = decode_tiles_of<C::WARPS>(lo, hi, warp);
    const bool newest = FORM == ATTN_NUMBERS && decode_is_newest(a, d);
    const int stored = newest ? hi - 1 : hi; /* the last token that is in the cache */
    const int32_t *table = a.blocks + (size_t)d.entry * a.table_stride;
    attn_pages pages = attn_pages_of(a, d.kv_head);
    int ids = 0; /* lane 2j + h: the block of half h of the tile j, of the next 16 tiles */
    auto issue = [&](int i) {
        if (i < own.n) {
            if (i % 16 == 0) {
                int token =
                    (own.first + (i + lane / 2) * C::WARPS) * DECODE_TOKENS + (lane & 1) * 8;
                ids = token + 7 >= lo && token <= stored ? table[token >> a.block_shift] : 0;
            }
            int id0 = __shfl_sync(0xffffffffu, ids, i % 16 * 2);
            int id1 = __shfl_sync(0xffffffffu, ids, i % 16 * 2 + 1);
            tiles::template load<32>(pages, ring + i % C::STAGES * tiles::STAGE,
                                     (own.first + i * C::WARPS) * DECODE_TOKENS, lo, stored,
                                     lane, [&](int row, int) { return row < 8 ? id0 : id1; });
        }
        cu_cp_async_commit();
    };
    E *const expanded = (E *)(ring + C::STAGES * tiles::STAGE);
    auto issue_tail =
        [&](int i) { /* i < 0 */
                     const int32_t *blocks = a.tail_blocks + (size_t)d.entry * a.table_stride;
                     attn_load<E, HD, DECODE_TOKENS, 32>(
                         attn_tail_pages_of(a, d.kv_head), expanded, expanded + tiles::TILE,
                         (tail.first + (i + tail.n) * C::WARPS) * DECODE_TOKENS, tail.lo,
                         tail.hi, lane, [&](int, int token) {
                             return __ldg(blocks + (token >> a.block_shift));
                         });
                     cu_cp_async_commit();
        };
    if constexpr (FORM == ATTN_CODES)
        if (tail.n) issue_tail(-tail.n);
#pragma unroll
    for (int i = 0; i < C::STAGES - 1; i++) issue(i);
    const bool turns = FORM == ATTN_NUMBERS && a.turn.on;
    if (turns) {
        turn_table<C::THREADS>(a, d.cut.pos, turn.table);
        __syncthreads();
        cu_grid_wait(); /* now qkv is there */
        decode_append<E, HD, C::THREADS>(a, d, turn);
    }
    decode_load_q<E, HD, C::THREADS>(a, d, turns, turn.table, q);
    __syncthreads();
    for (int i = -tail.n; i < own.n; i++) {
        const bool in_tail = FORM == ATTN_CODES && i < 0;
        const decode_tiles &t = in_tail ? tail : own;
        const int first = (t.first + (i + (in_tail ? t.n : 0)) * C::WARPS) * DECODE_TOKENS;
        E *k = expanded;
        if (in_tail) {
            if (i > -tail.n) issue_tail(i);
            cu_cp_async_wait<0>();
            __syncwarp();
        } else {
            cu_cp_async_wait<C::STAGES - 2>();
            __syncwarp();
            issue(i + C::STAGES - 1);
            unsigned char *stage = ring + i % C::STAGES * tiles::STAGE;
            if constexpr (FORM == ATTN_NUMBERS) {
                k = (E *)stage;
                if (newest && d.cut.pos - first < DECODE_TOKENS)
                    decode_put_newest(turn, k, k + tiles::TILE, d.cut.pos - first, lane);
            } else {
                tiles::template expand<32>(pages, stage, k, first, lo, hi, lane);
                __syncwarp();
            }
        }
        const int his[1][2] = {{t.hi, t.hi}};
        const attn_operands<E> x = {q, 0, k, k + tiles::TILE};
        const attn_mask<1> mask = {first < t.lo || first + DECODE_TOKENS - 1 > t.hi, first,
                                   t.hi - t.lo + 1, his};
        attn_tile<E, HD, 1, DECODE_TOKENS>(s, x, mask, a.score, lane);
        if (in_tail) __syncwarp(); /* all have read the tile */
    }
    cu_cp_async_wait<0>();
    __syncwarp();
}

/* The warp's results into its part of the merge buffer: [16][MERGE]. */
template <int HD> CU_DEVICE void decode_put(const attn_state<HD, 1> &s, float *merge) {
    int lane = (int)threadIdx.x & 31, t = lane & 3;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float *row = merge + (lane / 4 + 8 * r) * (HD + 8);
#pragma unroll
        for (int j = 0; j < HD / 8; j++)
            *(float2 *)(row + 8 * j + 2 * t) =
                make_float2(s.o[0][j][2 * r], s.o[0][j][2 * r + 1]);
        float l = attn_row_sum(s.l[0][r]);
        if (t == 0) *(float2 *)(row + HD) = make_float2(s.m[0][r], l);
    }
}

/* Merges the warps' results and stores them. merge: [WARPS] of stride floats. */
template <class C, int HD>
CU_DEVICE void decode_store(const attn_args &a, const decode_item &d, const float *merge,
                            int stride, const decode_partials &out) {
    uint32_t pairs = a.head_dim / 2;
    for (uint32_t i = threadIdx.x; i < d.n_heads * pairs; i += C::THREADS) {
        uint32_t h = i / pairs, c = i % pairs * 2;
        const float *row = merge + h * C::MERGE;
        float m = -INFINITY, l = 0.0f, x = 0.0f, y = 0.0f;
#pragma unroll
        for (int w = 0; w < C::WARPS; w++) m = fmaxf(m, row[w * stride + HD]);
#pragma unroll
        for (int w = 0; w < C::WARPS; w++) {
            const float *p = row + w * stride;
            float weight = cu_ex2(p[HD] - m);
            l = fmaf(p[HD + 1], weight, l);
            x = fmaf(p[c], weight, x);
            y = fmaf(p[c + 1], weight, y);
        }
        const bool lacks = d.cut.n > out.n_splits;
        if (d.cut.n == 1 || lacks) {
            if (lacks) x = y = NAN;
            l += attn_sink(a, d.head + h, m);
            size_t at = ((size_t)a.first_row[d.entry] * a.n_heads + d.head + h) * a.head_dim;
            *(uint32_t *)(a.out + at + c) = attn_pack_t(a.t_bf16, x / l, y / l);
        } else {
            size_t at = ((size_t)d.entry * out.n_splits + d.split) * a.n_heads + d.head + h;
            *(float2 *)(out.acc + at * a.head_dim + c) = make_float2(x, y);
            if (c == 0) out.ml[at] = make_float2(m, l);
        }
    }
}

/* The last block of an entry's heads sums what their splits left; and quantises their results. */
template <class C>
CU_DEVICE void decode_finish(const attn_args &a, const decode_item &d,
                             const decode_partials &out, unsigned char *smem) {
    CU_SHARED(uint32_t, last, 1);
    const attn_heads heads = {d.entry, d.head, d.n_heads};
    if (d.cut.n > 1 && d.cut.n <= out.n_splits) {
        if (!cu_last_block(a.arrived + (size_t)d.entry * a.n_heads + d.unit, d.cut.n, last))
            return;
        attn_combine<C::THREADS>(a, heads, d.cut.n, out, smem);
    }
    if (!a.codes.codes) return;
    __syncthreads();
    attn_put_codes<C::THREADS>(a, heads);
}

template <class E, int HD, attn_form FORM, class C = decode_config<E, HD, FORM>>
__global__ void __launch_bounds__(C::THREADS, C::RESIDENT)
    attn_decode_kernel(attn_args a, uint32_t n_seqs, decode_partials out) {
    CU_DYN_SHARED(unsigned char, smem);
    cu_grid_trigger();
    E *q = (E *)(smem + C::WARPS * C::RING);
    int *first = (int *)(q + DECODE_HEADS * attn_row<HD>::STRIDE);
    unsigned char *ring = smem + (threadIdx.x >> 5) * C::RING;
    CU_SHARED(float2, table, FORM == ATTN_NUMBERS ? HD / 2 : 1);
    CU_SHARED(E, newest, FORM == ATTN_NUMBERS ? 2 * HD : 1);
    const decode_turn<E, HD> turn = {table, newest};
    decode_count<C::THREADS>(a, n_seqs, out.n_splits, first);
    /* The tables were there before the step's first kernel, and perhaps all of the cache that is read. */
    if (!a.turn.on || !a.turn.settled) cu_grid_wait();
    uint32_t units = a.n_kv_heads * ((a.group + DECODE_HEADS - 1) / DECODE_HEADS);
    uint32_t n_items = (uint32_t)first[n_seqs] * units;
    for (uint32_t item = blockIdx.x; item < n_items; item += gridDim.x) {
        decode_item d = decode_item_of(a, first, n_seqs, item);
        attn_state<HD, 1> s;
        attn_begin(s);
        decode_walk<E, HD, FORM>(a, d, q, ring, turn, s);
        decode_put<HD>(s, (float *)ring);
        __syncthreads();
        decode_store<C, HD>(a, d, (const float *)smem, C::RING / 4, out);
        decode_finish<C>(a, d, out, smem);
        __syncthreads();
    }
    cu_grid_wait(); /* of blocks without an item */
}

/* ---- host */

template <class E, int HD, attn_form FORM>
static cudaError_t decode_launch(cudaStream_t stream, const attn_args &a, uint32_t n_seqs,
                                 const decode_partials &p) {
    using C = decode_config<E, HD, FORM>;
    int device, n_sms;
    cudaError_t e = cudaGetDevice(&device);
    if (!e) e = cudaDeviceGetAttribute(&n_sms, cudaDevAttrMultiProcessorCount, device);
    /* The same number in every call: a smaller one would lower the limit under graphs that were
     * captured with more entries. */
    const uint32_t most = n_seqs > MOST_ENTRIES ? n_seqs : (uint32_t)MOST_ENTRIES;
    if (!e) e = cu_allow_smem(attn_decode_kernel<E, HD, FORM>, C::smem(most));
    if (e) return e;
    uint64_t items = (uint64_t)n_seqs * p.n_splits * a.n_heads; /* or fewer */
    uint32_t grid = (uint32_t)n_sms * C::RESIDENT;
    if (items < grid) grid = (uint32_t)items;
    CU_LAUNCH_EARLY((attn_decode_kernel<E, HD, FORM>), grid, C::THREADS, C::smem(n_seqs),
                    stream, a, n_seqs, p);
    return cudaGetLastError();
}

template <class E, attn_form FORM>
static cudaError_t decode_by_head(cudaStream_t s, const attn_args &a, uint32_t n_seqs,
                                  const decode_partials &p) {
    if (a.head_dim <= 64) return decode_launch<E, 64, FORM>(s, a, n_seqs, p);
    if (a.head_dim <= 80) return decode_launch<E, 80, FORM>(s, a, n_seqs, p);
    if (a.head_dim <= 96) return decode_launch<E, 96, FORM>(s, a, n_seqs, p);
    if (a.head_dim <= 128) return decode_launch<E, 128, FORM>(s, a, n_seqs, p);
    return decode_launch<E, 256, FORM>(s, a, n_seqs, p);
}

cudaError_t cu_attn_decode(cudaStream_t stream, const cu_attn *attn, const cu_tables *tables,
                           uint32_t n_seqs, uint32_t n_splits, void *partials) {
    if (!attn_args_valid(attn)) return cudaErrorNotSupported;
    if (!n_seqs || !n_splits) return cudaSuccess;
    attn_args a = attn_args_of(attn, tables);
    if (a.codes.codes &&
        (a.head_dim % 32 || a.n_heads * a.head_dim % PACKED_CHUNK || a.head_dim > CU_ATTN_HEAD))
        return cudaErrorInvalidValue;
    if (a.turn.on && (cu_kv_coded(&attn->kv) || a.head_dim > CU_ATTN_HEAD ||
                      a.turn.n_dims > a.head_dim || a.turn.n_dims % 2))
        return cudaErrorInvalidValue;
    decode_partials p;
    p.acc = (float *)partials;
    p.ml = (float2 *)(p.acc + (size_t)n_seqs * n_splits * a.n_heads * a.head_dim);
    p.n_splits = n_splits;
    if (a.head_dim > CU_ATTN_HEAD) return attn_wide_decode(stream, *attn, a, n_seqs, p);
    const attn_form form = attn_form_of(attn);
    cudaError_t e =
        form == ATTN_CODES   ? decode_by_head<__half, ATTN_CODES>(stream, a, n_seqs, p)
        : form == ATTN_BYTES ? decode_by_head<__half, ATTN_BYTES>(stream, a, n_seqs, p)
        : attn->kv.type == CU_BF16
            ? decode_by_head<__nv_bfloat16, ATTN_NUMBERS>(stream, a, n_seqs, p)
            : decode_by_head<__half, ATTN_NUMBERS>(stream, a, n_seqs, p);
    return e;
}
