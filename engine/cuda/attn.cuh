/* What decode and prefill attention share: one warp's part of FlashAttention-2 (Dao 2023,
 * "FlashAttention-2", algorithm 1) over tiles of the paged KV cache that cp.async has brought
 * into shared memory.
 *
 * Rows of a tile of q are (token, head) pairs of one KV head, so that one load of K and V
 * serves the whole GQA group. Scores, maxima, sums and results are float32; q and the softmax
 * weights enter mma in the cache's type E. Scores live in base 2: scale * log2(e) is folded in.
 *
 * Only slots that some row of the block sees are read; all others are zeros in shared memory,
 * so nothing of them (NaN, say) can leak through 0 * NaN. */
#ifndef VRAMD_ENGINE_CUDA_ATTN_CUH
#define VRAMD_ENGINE_CUDA_ATTN_CUH

#include <type_traits>

#include "engine/cuda/kv_codes.cuh"
#include "engine/cuda/quantize.cuh"

/* What a cache has: numbers; codes of 8 bits, K and V alike; or codes of any types, and perhaps
 * the newest tokens as numbers beside them. */
enum attn_form { ATTN_NUMBERS, ATTN_BYTES, ATTN_CODES };

/* K or V of a part, for ATTN_CODES: offsets of codes and of words in the part. */
struct attn_coded {
    uint32_t codes_at, row_bytes, words_at, segments, segment_shift;
    dtype type;
};

/* From q k^T to scores in base 2: scale * p; with a cap, cap * tanh(x), where rate * p is 2 x log2 e,
 * and then scale is 1. */
struct attn_score {
    float scale, cap, rate; /* cap: * log2(e); 0: none */
};

/* What a cu_rope asks for; `on` false: nothing. */
struct attn_turn {
    const cu_freq *freqs;
    uint32_t n_dims;
    float mscale;
    bool on, halves, appends, settled;
};

/* A cu_attn and its tables as the kernels take them. */
struct attn_args {
    const uint16_t *qkv; /* bits of T */
    uint16_t *out;
    const unsigned char *kv;
    uint64_t block_stride;                    /* bytes, as the next */
    uint32_t part_bytes, v_at, row_bytes;     /* of kv_format */
    uint32_t k_words_at, v_words_at, segment; /* of kv_format; caches of codes */
    bool fp8;
    float code_scale; /* what the word of a segment is multiplied by, there */
    attn_coded k, v;
    const unsigned char *tail; /* NULL: there is none */
    uint64_t tail_stride;
    uint32_t tail_part_bytes, tail_v_at, tail_row_bytes;
    const int32_t *tail_blocks;
    const int32_t *blocks, *first_row, *n_rows, *first_pos;
    uint32_t table_stride, ld, n_heads, n_kv_heads, group, head_dim;
    uint32_t block_shift; /* log2(block_tokens) */
    uint32_t window;
    attn_score score;
    const float *sinks; /* [n_heads]; NULL: there are none */
    bool t_bf16;
    act_view codes; /* of out; codes NULL: it is not quantised */
    uint32_t *arrived;
    attn_turn turn;
};

static inline attn_form attn_form_of(const cu_attn *a) {
    if (!cu_kv_coded(&a->kv)) return ATTN_NUMBERS;
    return cu_kv_bytes(&a->kv) ? ATTN_BYTES : ATTN_CODES;
}

static inline void attn_args_codes(attn_args *r, const cu_attn *a, const cu_tables *t) {
    const kv_format *f = &a->kv.format, *tail = &a->tail.format;
    const auto log2_of = [](uint32_t n) { return 31u - (uint32_t)__builtin_clz(n); };
    r->k = attn_coded{
        0, f->k_group_bytes, f->k_words_at, f->k_segments, log2_of(f->k_segment), f->k.type};
    r->v = attn_coded{f->v_at,       f->v_token_bytes,      f->v_words_at,
                      f->v_segments, log2_of(f->v_segment), f->v.type};
    if (!a->tail.base) return;
    r->tail = (const unsigned char *)a->tail.base;
    r->tail_stride = a->tail.block_stride;
    r->tail_part_bytes = tail->part_bytes;
    r->tail_v_at = tail->v_at;
    r->tail_row_bytes = tail->k_group_bytes;
    r->tail_blocks = t->blocks[a->tail.group];
}

static inline attn_args attn_args_of(const cu_attn *a, const cu_tables *t) {
    attn_args r = {};
    r.qkv = (const uint16_t *)a->qkv;
    r.out = (uint16_t *)a->out;
    r.kv = (const unsigned char *)a->kv.base;
    r.block_stride = a->kv.block_stride;
    r.part_bytes = a->kv.format.part_bytes;
    r.v_at = a->kv.format.v_at;
    r.row_bytes = a->kv.format.k_group_bytes;
    r.k_words_at = a->kv.format.k_words_at;
    r.v_words_at = a->kv.format.v_words_at;
    r.segment = a->kv.format.k_segment;
    r.fp8 = a->kv.format.k.type == DT_FP8;
    const float turn = a->kv.format.k.rotated ? kv_turn_scale(r.segment) : 1.0f;
    r.code_scale = turn * (r.fp8 ? 256.0f : 1.0f);
    r.blocks = t->blocks[a->kv.group];
    r.first_row = t->first_row;
    r.n_rows = t->n_rows;
    r.first_pos = t->first_pos;
    r.table_stride = t->table_stride;
    r.ld = a->ld;
    r.n_heads = a->n_heads;
    r.n_kv_heads = a->kv.format.n_kv_heads;
    r.group = a->n_heads / r.n_kv_heads;
    r.head_dim = a->kv.format.head_dim;
    r.block_shift = a->kv.format.block_shift;
    r.window = a->window;
    const float log2_e = 1.44269504088896340736f;
    r.score.scale = a->scale * log2_e;
    const attn_form form = attn_form_of(a);
    if (a->kv.format.k.rotated)
        r.score.scale *=
            form == ATTN_CODES ? 1.0f / (turn * (float)r.segment) : kv_score_scale(r.segment);
    if (a->cap > 0.0f)
        r.score = attn_score{1.0f, a->cap * log2_e, 2.0f * r.score.scale / a->cap};
    r.sinks = a->sinks;
    if (form == ATTN_CODES) attn_args_codes(&r, a, t);
    r.t_bf16 = a->t == CU_BF16;
    if (a->codes.codes) r.codes = act_view_of(a->codes.codes, r.n_heads * r.head_dim);
    r.arrived = a->codes.arrived;
    if (const cu_rope *x = a->rope)
        r.turn = attn_turn{x->freqs,    x->n_dims, x->mscale, true, x->pairing == ROPE_HALVES,
                           !x->q_alone, a->settled};
    return r;
}

/* Of K and V in 16 bits, one after the other. */
static inline bool attn_numbers_valid(const kv_format *f) {
    return f->k.bits == 16 && f->k.type == f->v.type && f->k_group_bytes == f->v_token_bytes;
}

static inline bool attn_codes_valid(const cu_attn *a) {
    const kv_format *f = &a->kv.format, *tail = &a->tail.format;
    if (a->kv.type != CU_F16 || !f->v.word_bytes || f->block_tokens < 16 ||
        !cu_attn_supports_codes(f->head_dim, f->k_segments) ||
        !cu_attn_supports_codes(f->head_dim, f->v_segments))
        return false;
    return !a->tail.base ||
           (!cu_kv_bytes(&a->kv) && attn_numbers_valid(tail) &&
            tail->block_tokens == f->block_tokens && tail->head_dim == f->head_dim);
}

static inline bool attn_args_valid(const cu_attn *a) {
    const kv_format *f = &a->kv.format;
    uint32_t bt = f->block_tokens;
    return f->n_kv_heads && a->n_heads % f->n_kv_heads == 0 &&
           cu_attn_supports(f->head_dim, a->n_heads / f->n_kv_heads) &&
           (a->t == CU_F16 || a->t == CU_BF16) &&
           (a->kv.type == CU_F16 || a->kv.type == CU_BF16) &&
           (cu_kv_coded(&a->kv) ? attn_codes_valid(a)
                                : attn_numbers_valid(f) && !a->tail.base) &&
           bt >= 8 && !(bt & (bt - 1));
}

/* ---- decode: a row's splits */

/* Where the partial results lie: accumulators [entry][split][head][head_dim], then maxima and
 * sums [entry][split][head][2]. */
struct decode_partials {
    float *acc;
    float2 *ml;
    uint32_t n_splits;
};

/* What the row of an entry sees and how it is cut. */
struct decode_cut {
    int lo, pos, shift; /* shift: log2 of the split's tokens */
    uint32_t first, n;  /* splits; n 0: decode leaves the entry alone */
};

CU_DEVICE decode_cut decode_cut_of(const attn_args &a, uint32_t n_seqs, uint32_t entry) {
    decode_cut c = {};
    int rows = a.n_rows[entry]; /* both on the way at once */
    c.pos = a.first_pos[entry];
    if (rows != 1) return c;
    uint32_t seen = (uint32_t)c.pos + 1;
    if (a.window && a.window < seen) seen = a.window;
    c.lo = c.pos + 1 - (int)seen;
    c.shift = (int)cu_attn_split_log2(n_seqs, seen);
    c.first = (uint32_t)c.lo >> c.shift;
    c.n = ((uint32_t)c.pos >> c.shift) - c.first + 1;
    return c;
}

/* attn_wide.cu: heads wider than CU_ATTN_HEAD, of K and V in 16 bits. As cu_attn_decode and
 * cu_attn_prefill. */
cudaError_t attn_wide_decode(cudaStream_t, const cu_attn &, const attn_args &, uint32_t n_seqs,
                             const decode_partials &);
cudaError_t attn_wide_prefill(cudaStream_t, const cu_attn &, const attn_args &,
                              const int32_t *tiles, uint32_t n_tiles);

/* ---- numbers */

template <class E> struct attn_num;
template <> struct attn_num<__half> {
    CU_DEVICE uint32_t pack(float lo, float hi) {
        __half2 h = __floats2half2_rn(lo, hi);
        return *(uint32_t *)&h;
    }
};
template <> struct attn_num<__nv_bfloat16> {
    CU_DEVICE uint32_t pack(float lo, float hi) {
        __nv_bfloat162 h = __floats2bfloat162_rn(lo, hi);
        return *(uint32_t *)&h;
    }
};

/* Two neighbours to T, and the other way round. */
CU_DEVICE uint32_t attn_pack_t(bool t_bf16, float lo, float hi) {
    return t_bf16 ? attn_num<__nv_bfloat16>::pack(lo, hi) : attn_num<__half>::pack(lo, hi);
}

CU_DEVICE float2 attn_unpack_t(bool t_bf16, uint32_t u) {
    return t_bf16 ? __bfloat1622float2(*(__nv_bfloat162 *)&u) : __half22float2(*(__half2 *)&u);
}

/* Eight elements of T to E; what f16 cannot hold becomes its largest number. */
template <class E> CU_DEVICE uint4 attn_convert(bool t_bf16, uint4 v) {
    if (t_bf16 == std::is_same<E, __nv_bfloat16>::value) return v;
    uint32_t *w = (uint32_t *)&v;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = attn_unpack_t(t_bf16, w[i]);
        w[i] = attn_num<E>::pack(fminf(fmaxf(f.x, -65504.0f), 65504.0f),
                                 fminf(fmaxf(f.y, -65504.0f), 65504.0f));
    }
    return v;
}

/* ---- tiles in shared memory: rows of HD elements in granules of 16 bytes. Eight rows at one
 * granule column fall on different banks (ldmatrix): where the row is a multiple of 128 bytes
 * by exchanging granules, else (an even number of granules) by one granule of padding. */
template <int HD> struct attn_row {
    static constexpr int GRANULES = HD / 8;
    static constexpr bool SWIZZLED = HD % 64 == 0;
    static constexpr int STRIDE = SWIZZLED ? HD : HD + 8; /* elements */
    static_assert(HD % 16 == 0, "mma takes 16 dimensions at a time");
    CU_DEVICE int at(int row, int granule) {
        return row * STRIDE + (SWIZZLED ? granule ^ (row & 7) : granule) * 8;
    }
};

/* What a block of threads needs to find a token's K and V. */
struct attn_pages {
    const unsigned char *k; /* of this KV head in block 0 */
    uint64_t block_stride, v_offset;
    uint32_t row_bytes, granules, block_shift; /* granules: of 8 dimensions */
    /* Caches of codes: of a segment's words, V's behind K's; code_scale and fp8 of attn_args. */
    uint64_t words_at, v_words;
    uint32_t segments, segment_shift;
    float code_scale;
    bool fp8;
    attn_coded side[2]; /* ATTN_CODES: K and V */
};

CU_DEVICE attn_pages attn_pages_of(const attn_args &a, uint32_t kv_head) {
    attn_pages p = {};
    p.k = a.kv + (uint64_t)kv_head * a.part_bytes;
    p.block_stride = a.block_stride;
    p.v_offset = a.v_at;
    p.row_bytes = a.row_bytes;
    p.granules = a.head_dim / 8;
    p.block_shift = a.block_shift;
    p.words_at = a.k_words_at;
    p.v_words = a.v_words_at - a.k_words_at;
    p.segments = a.head_dim / a.segment;
    p.segment_shift = 31u - (uint32_t)__clz((int)a.segment);
    p.code_scale = a.code_scale;
    p.fp8 = a.fp8;
    p.side[0] = a.k, p.side[1] = a.v;
    return p;
}

/* Of the tail, for attn_load. */
CU_DEVICE attn_pages attn_tail_pages_of(const attn_args &a, uint32_t kv_head) {
    attn_pages p = {};
    p.k = a.tail + (uint64_t)kv_head * a.tail_part_bytes;
    p.block_stride = a.tail_stride;
    p.v_offset = a.tail_v_at;
    p.row_bytes = a.tail_row_bytes;
    p.granules = a.head_dim / 8;
    p.block_shift = a.block_shift;
    return p;
}

/* Starts copying K and V of tokens [first, first + ROWS) into k and v, by THREADS threads of
 * which this is number i; those outside [lo, hi] and dimensions beyond the head's become zeros.
 * block_of(row, token): the physical block, asked for tokens within [lo, hi] only. */
template <class E, int HD, int ROWS, int THREADS, class F>
CU_DEVICE void attn_load(const attn_pages &p, E *k, E *v, int first, int lo, int hi, int i,
                         F block_of) {
    constexpr int G = attn_row<HD>::GRANULES;
    static_assert(ROWS * G % THREADS == 0, "all threads copy equally much");
#pragma unroll 4
    for (int j = 0; j < ROWS * G / THREADS; j++) {
        int n = i + j * THREADS, row = n / G, c = n % G, token = first + row;
        bool seen = token >= lo && token <= hi && c < (int)p.granules;
        const unsigned char *src = p.k;
        if (seen)
            src += (uint64_t)(uint32_t)block_of(row, token) * p.block_stride +
                   (token & ((1 << p.block_shift) - 1)) * p.row_bytes + c * 16;
        int at = attn_row<HD>::at(row, c);
        cu_cp_async16_zfill(k + at, src, seen ? 16 : 0);
        cu_cp_async16_zfill(v + at, seen ? src + p.v_offset : src, seen ? 16 : 0);
    }
}

/* ---- one warp's state: MT times 16 rows of q; lane 4g + t holds of rows g (r = 0) and g + 8
 * (r = 1) the dimensions 8j + 2t, 8j + 2t + 1. */
template <int HD, int MT> struct attn_state {
    float o[MT][HD / 8][4]; /* [..][2r], [..][2r + 1] */
    float m[MT][2];         /* maximum of the scores so far; -inf: none */
    float l[MT][2];         /* this lane's part of the sum of weights */
};

template <int HD, int MT> CU_DEVICE void attn_begin(attn_state<HD, MT> &s) {
#pragma unroll
    for (int i = 0; i < MT; i++) {
#pragma unroll
        for (int j = 0; j < HD / 8; j++)
            s.o[i][j][0] = s.o[i][j][1] = s.o[i][j][2] = s.o[i][j][3] = 0.0f;
        s.m[i][0] = s.m[i][1] = -INFINITY;
        s.l[i][0] = s.l[i][1] = 0.0f;
    }
}

/* p = Q K^T. q: rows of the first 16; the next 16 lie q_step elements further. */
template <class E, int HD, int MT, int NK>
CU_DEVICE void attn_scores(float p[MT][NK / 8][4], const E *q, int q_step, const E *k,
                           int lane) {
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int j = 0; j < NK / 8; j++) p[i][j][0] = p[i][j][1] = p[i][j][2] = p[i][j][3] = 0;
#pragma unroll
    for (int s = 0; s < HD / 16; s++) {
        uint32_t a[MT][4];
#pragma unroll
        for (int i = 0; i < MT; i++)
            cu_ldmatrix_x4(a[i],
                           q + i * q_step + attn_row<HD>::at(lane & 15, 2 * s + (lane >> 4)));
#pragma unroll
        for (int n = 0; n < NK / 16; n++) {
            uint32_t b[4];
            cu_ldmatrix_x4(b, k + attn_row<HD>::at(n * 16 + (lane >> 4) * 8 + (lane & 7),
                                                   2 * s + (lane >> 3 & 1)));
#pragma unroll
            for (int i = 0; i < MT; i++) {
                cu_mma(p[i][2 * n], a[i], b, E());
                cu_mma(p[i][2 * n + 1], a[i], b + 2, E());
            }
        }
    }
}

/* Takes the scores of one more tile: p becomes the weights, m, l and o follow. */
template <int HD, int MT, int NK>
CU_DEVICE void attn_soften(attn_state<HD, MT> &s, float p[MT][NK / 8][4], float scale) {
    float factor[MT][2];
    bool grew = false;
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float top = p[i][0][2 * r];
#pragma unroll
            for (int j = 0; j < NK / 8; j++)
                top = fmaxf(top, fmaxf(p[i][j][2 * r], p[i][j][2 * r + 1]));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
            float m = fmaxf(s.m[i][r], top * scale);
            float base = m == -INFINITY ? 0.0f : m; /* a row that has seen nothing yet */
            factor[i][r] = cu_ex2(s.m[i][r] - base);
            grew |= m != s.m[i][r];
            s.m[i][r] = m;
            float sum = 0.0f;
#pragma unroll
            for (int j = 0; j < NK / 8; j++)
#pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; e++)
                    sum += p[i][j][e] = cu_ex2(fmaf(p[i][j][e], scale, -base));
            s.l[i][r] = fmaf(s.l[i][r], factor[i][r], sum);
        }
    /* Mostly no maximum moves; then all factors are 1 (or o is 0). */
    if (!__any_sync(0xffffffffu, grew)) return;
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int j = 0; j < HD / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) s.o[i][j][e] *= factor[i][e >> 1];
}

/* o += P V. */
template <class E, int HD, int MT, int NK>
CU_DEVICE void attn_values(attn_state<HD, MT> &s, float p[MT][NK / 8][4], const E *v,
                           int lane) {
#pragma unroll
    for (int n = 0; n < NK / 16; n++) {
        uint32_t a[MT][4];
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int h = 0; h < 4; h++) /* D of q k^T is A of p v, in pairs of tiles */
                a[i][h] = attn_num<E>::pack(p[i][2 * n + (h >> 1)][2 * (h & 1)],
                                            p[i][2 * n + (h >> 1)][2 * (h & 1) + 1]);
#pragma unroll
        for (int d = 0; d < HD / 16; d++) {
            uint32_t b[4];
            cu_ldmatrix_x4_trans(
                b, v + attn_row<HD>::at(n * 16 + (lane & 15), 2 * d + (lane >> 4)));
#pragma unroll
            for (int i = 0; i < MT; i++) {
                cu_mma(s.o[i][2 * d], a[i], b, E());
                cu_mma(s.o[i][2 * d + 1], a[i], b + 2, E());
            }
        }
    }
}

/* What one call multiplies: rows of q (the next 16 lie q_step elements further) with a tile. */
template <class E> struct attn_operands {
    const E *q;
    int q_step;
    const E *k, *v;
};

/* What the rows see of the tile from token first on: one whose last token is hi sees
 * hi - span + 1 .. hi. some: not all rows of the warp see all of the tile; else nothing is
 * looked at. */
template <int MT> struct attn_mask {
    bool some;
    int first, span;
    const int (*hi)[2]; /* [MT] */
};

/* Takes a tile of NK tokens. */
template <class E, int HD, int MT, int NK>
CU_DEVICE void attn_tile(attn_state<HD, MT> &s, const attn_operands<E> &x,
                         const attn_mask<MT> &mask, const attn_score &score, int lane) {
    float p[MT][NK / 8][4];
    attn_scores<E, HD, MT, NK>(p, x.q, x.q_step, x.k, lane);
    if (score.cap > 0.0f) {
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int j = 0; j < NK / 8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    p[i][j][e] = cu_capped(cu_ex2(p[i][j][e] * score.rate), score.cap);
    }
    if (mask.some) {
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int j = 0; j < NK / 8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int token = mask.first + j * 8 + 2 * (lane & 3) + (e & 1);
                    int behind = mask.hi[i][e >> 1] - token;
                    if (behind < 0 || behind >= mask.span) p[i][j][e] = -INFINITY;
                }
    }
    attn_soften<HD, MT, NK>(s, p, score.scale);
    attn_values<E, HD, MT, NK>(s, p, x.v, lane);
}

/* The row's whole sum of weights: of the four lanes that hold it. */
CU_DEVICE float attn_row_sum(float l) {
    l += __shfl_xor_sync(0xffffffffu, l, 1);
    return l + __shfl_xor_sync(0xffffffffu, l, 2);
}

/* What the sink of a query head adds to a sum of weights whose maximum is m. */
CU_DEVICE float attn_sink(const attn_args &a, uint32_t head, float m) {
    return a.sinks ? cu_ex2(fmaf(a.sinks[head], 1.44269504f, -m)) : 0.0f;
}

/* ---- decode: the end of an entry's heads */

/* Heads [head, head + n_heads) of an entry, in shared memory of attn_combine_bytes. */
struct attn_heads {
    uint32_t entry, head, n_heads;
};
CU_CONSTEXPR uint32_t attn_combine_bytes(uint32_t n_heads) {
    return n_heads * (CU_ATTN_SPLITS + 1) * 12;
}

/* Sums n partial results in order of the splits. All threads of the block. */
template <int THREADS>
CU_DEVICE void attn_combine(const attn_args &a, const attn_heads &x, uint32_t n,
                            const decode_partials &in, void *shared) {
    float2 *part = (float2 *)shared; /* [n_heads][n] */
    float *weight = (float *)(part + x.n_heads * n);
    const size_t at = (size_t)x.entry * in.n_splits * a.n_heads + x.head;
    for (uint32_t i = threadIdx.x; i < x.n_heads * n; i += THREADS)
        part[i] = __ldcg(in.ml + at + (size_t)(i % n) * a.n_heads + i / n);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < x.n_heads * n; i += THREADS) {
        float m = -INFINITY;
        for (uint32_t s = 0; s < n; s++) m = fmaxf(m, part[i / n * n + s].x);
        weight[i] = cu_ex2(part[i].x - m);
    }
    __syncthreads();
    const uint32_t pairs = a.head_dim / 2;
    const size_t step = (size_t)a.n_heads * a.head_dim;
    uint16_t *out = a.out + ((size_t)a.first_row[x.entry] * a.n_heads + x.head) * a.head_dim;
    for (uint32_t i = threadIdx.x; i < x.n_heads * pairs; i += THREADS) {
        const uint32_t h = i / pairs, c = i % pairs * 2;
        const float *acc = in.acc + (at + h) * a.head_dim + c;
        float m = -INFINITY, l = 0.0f, v = 0.0f, w = 0.0f;
        for (uint32_t s = 0; s < n; s++) {
            m = fmaxf(m, part[h * n + s].x);
            l = fmaf(part[h * n + s].y, weight[h * n + s], l);
        }
        l += attn_sink(a, x.head + h, m);
#pragma unroll 8
        for (uint32_t s = 0; s < n; s++) {
            const float2 p = __ldcg((const float2 *)(acc + s * step));
            v = fmaf(p.x, weight[h * n + s], v);
            w = fmaf(p.y, weight[h * n + s], w);
        }
        *(uint32_t *)(out + h * a.head_dim + c) = attn_pack_t(a.t_bf16, v / l, w / l);
    }
}

/* What the block left of these heads in out, quantised. All threads of the block, after a barrier. */
template <int THREADS> CU_DEVICE void attn_put_codes(const attn_args &a, const attn_heads &x) {
    const uint32_t row = (uint32_t)a.first_row[x.entry], n = x.n_heads * a.head_dim / 8;
    const uint32_t first = x.head * a.head_dim / 8;
    const uint16_t *out = a.out + (size_t)row * a.n_heads * a.head_dim;
    for (uint32_t i = threadIdx.x; i / 32 * 32 < n; i += THREADS) {
        const uint32_t octet = i < n ? first + i : ~3u + i % 4; /* beyond every row */
        float v[8] = {};
        if (i < n) {
            const uint4 u = *(const uint4 *)(out + octet * 8);
            if (a.t_bf16)
                cu_unpack8(u, v, __nv_bfloat16());
            else
                cu_unpack8(u, v, __half());
        }
        quantize_put(a.codes, row, octet, v);
    }
}

#endif
