/* Append to a cache of codes (engine/kv_code.h): a warp takes one head of one row, rotates it by
 * its position as rope.cu does, then its segments by the Hadamard matrix where the type does so.
 * Of k and v it makes codes and words, the same bytes as kv_encode; q goes back to its place,
 * ready to meet rotated keys. And the way back for what attention made of rotated values. */
#include "engine/cuda/kv_codes.cuh"
#include "engine/cuda/rope.cuh"

enum { WARPS = 4, THREADS = 32 * WARPS, MAX_DIMS = 256, CHUNK = 64 };

/* Segments of n dimensions, a lane with dimensions 2 lane and 2 lane + 1 of a chunk of 64: the
 * butterflies of kv_hadamard in their order. */
CU_DEVICE void hadamard(float x[2], uint32_t n, uint32_t lane) {
    const float a = x[0], b = x[1];
    x[0] = a + b, x[1] = a - b;
    for (uint32_t m = 1; 2 * m < n; m *= 2)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float other = __shfl_xor_sync(0xffffffffu, x[i], (int)m);
            x[i] = lane & m ? other - x[i] : x[i] + other;
        }
}

/* kv_extremes_of each segment, in all of its lanes. */
CU_DEVICE kv_extremes extremes(const float x[2], uint32_t n) {
    kv_extremes e = kv_extremes_of(x, 2);
    for (uint32_t m = 1; 2 * m < n; m *= 2) {
        e.lo = fminf(e.lo, __shfl_xor_sync(0xffffffffu, e.lo, (int)m));
        e.hi = fmaxf(e.hi, __shfl_xor_sync(0xffffffffu, e.hi, (int)m));
        e.most = max(e.most, __shfl_xor_sync(0xffffffffu, e.most, (int)m));
    }
    return e;
}

/* Head h of a row into x, its first n_dims dimensions rotated. */
template <class T>
CU_DEVICE void load_head(const rope_args &a, const T *h, int32_t pos, uint32_t n_dims, float *x,
                         uint32_t lane) {
    const bool halves = a.pairing == ROPE_HALVES;
    for (uint32_t i = lane; i < n_dims / 2; i += 32) {
        const uint32_t p = halves ? i : 2 * i, q = halves ? i + n_dims / 2 : 2 * i + 1;
        float2 cs = cos_sin(pos, a.freqs[i]);
        cs.x *= a.mscale, cs.y *= a.mscale;
        const float u = cu_to_float(h[p]), v = cu_to_float(h[q]);
        const float2 turned = turn_pair(u, v, cs);
        x[p] = turned.x, x[q] = turned.y;
    }
    for (uint32_t d = n_dims + lane; d < a.kv.format.head_dim; d += 32)
        x[d] = cu_to_float(h[d]);
    __syncwarp();
}

/* The chunk's two dimensions of this lane from dimension d on; zeros behind the head. */
CU_DEVICE bool take(const float *x, uint32_t d, uint32_t head_dim, float out[2]) {
    const bool there = d < head_dim;
    out[0] = there ? x[d] : 0.0f;
    out[1] = there ? x[d + 1] : 0.0f;
    return there;
}

template <class T>
CU_DEVICE void store_q(const kv_format &f, const float *x, T *q, uint32_t lane) {
    const float scale = f.k.rotated ? kv_turn_scale(f.k_segment) : 1.0f;
    for (uint32_t d = 2 * lane; d < f.head_dim + 2 * lane; d += CHUNK) {
        float y[2];
        const bool there = take(x, d, f.head_dim, y);
        if (f.k.rotated) hadamard(y, f.k_segment, lane);
        if (!there) continue;
        q[d] = cu_from_float(y[0] * scale, T());
        q[d + 1] = cu_from_float(y[1] * scale, T());
    }
}

/* Where the codes of a token's K or V lie in a part, and its words, a block's tokens apart. */
struct code_place {
    kv_type type;
    uint32_t segment, codes_at, words_at;
    __half *tail; /* of the token and head; NULL: there is none */
};

CU_DEVICE void store_codes(const kv_format &f, const code_place &c, const float *x, char *part,
                           uint32_t lane) {
    for (uint32_t d = 2 * lane; d < f.head_dim + 2 * lane; d += CHUNK) {
        float y[2];
        const bool there = take(x, d, f.head_dim, y);
        if (c.type.rotated) hadamard(y, c.segment, lane);
        const uint16_t word = kv_word_of(c.type.type, extremes(y, c.segment));
        if (!there) continue;
        const uint32_t low = kv_code_of(c.type.type, word, y[0]),
                       high = kv_code_of(c.type.type, word, y[1]);
        if (c.type.bits == 4)
            part[c.codes_at + d / 2] = (char)(low | high << 4);
        else
            *(uint16_t *)(part + c.codes_at + d) = (uint16_t)(low | high << 8);
        if (c.tail) *(__half2 *)(c.tail + d) = __floats2half2_rn(y[0], y[1]);
        if (d % c.segment == 0)
            *(uint16_t *)(part + c.words_at + d / c.segment * f.block_tokens * 2) = word;
    }
}

template <class T>
static __global__ void __launch_bounds__(THREADS) k_append_codes(rope_args a) {
    cu_grid_trigger();
    cu_grid_wait();
    CU_SHARED(float, heads, WARPS *MAX_DIMS);
    const int32_t pos = a.tables.pos[blockIdx.x];
    const kv_format &f = a.kv.format;
    const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const uint32_t n_kv = a.q_alone ? 0 : f.n_kv_heads, head = blockIdx.y * WARPS + warp;
    if (pos < 0 || head >= a.n_heads + 2 * n_kv) return;
    const bool is_q = head < a.n_heads, is_v = head >= a.n_heads + n_kv;
    float *x = heads + warp * MAX_DIMS;
    T *at = (T *)a.qkv + (size_t)blockIdx.x * a.ld + head * f.head_dim;
    load_head(a, at, pos, is_v ? 0 : a.n_dims, x, lane);
    if (is_q) {
        store_q(f, x, at, lane);
        return;
    }
    char *part = cache_parts(a, a.kv, blockIdx.x, (uint32_t)pos);
    if (!part) return;
    const uint32_t kv_head = (head - a.n_heads) % n_kv;
    const uint32_t token = (uint32_t)pos & (f.block_tokens - 1);
    part += kv_part_at(&f, 0, kv_head);
    char *tail = a.tail.base ? cache_parts(a, a.tail, blockIdx.x, (uint32_t)pos) : NULL;
    if (tail) {
        const kv_format &t = a.tail.format;
        tail += kv_part_at(&t, 0, kv_head) +
                (is_v ? kv_v_token_at(&t, token) : kv_k_group_at(&t, token));
    }
    const code_place k = {f.k, f.k_segment, kv_k_group_at(&f, token),
                          kv_k_word_at(&f, 0, token), (__half *)tail},
                     v = {f.v, f.v_segment, kv_v_token_at(&f, token),
                          kv_v_word_at(&f, 0, token), (__half *)tail};
    store_codes(f, is_v ? v : k, x, part, lane);
}

cudaError_t cu_append_codes(cudaStream_t s, const cu_rope *rope, const cu_tables *tables,
                            uint32_t n_rows) {
    const kv_format *f = &rope->kv.format;
    if (!cu_kv_coded(&rope->kv) || !f->v.word_bytes || f->head_dim > MAX_DIMS ||
        rope->n_dims % 2 || rope->n_dims > f->head_dim ||
        rope->kv.group >= PROGRAM_MAX_GROUPS || rope->tail.group >= PROGRAM_MAX_GROUPS ||
        (rope->tail.base && rope->tail.format.k.bits != 16))
        return cudaErrorInvalidValue;
    if (n_rows == 0) return cudaSuccess;
    const rope_args a = {*rope, *tables};
    const uint32_t n_kv = rope->q_alone ? 0 : f->n_kv_heads;
    const dim3 grid(n_rows, cu_ceil_div(rope->n_heads + 2 * n_kv, WARPS));
    return cu_by_type(rope->t, [&](auto type) {
        using T = decltype(type);
        CU_LAUNCH_EARLY(k_append_codes<T>, grid, THREADS, 0, s, a);
        return cudaGetLastError();
    });
}

/* ---- the way back ---- */

template <class T>
static __global__ void __launch_bounds__(THREADS)
    k_turn_back(T *out, uint32_t n, uint32_t head_dim, uint32_t segment, float scale) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t lane = threadIdx.x & 31, head = blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (head >= n) return;
    T *h = out + (size_t)head * head_dim;
    for (uint32_t d = 2 * lane; d < head_dim + 2 * lane; d += CHUNK) {
        const bool there = d < head_dim;
        float y[2] = {0.0f, 0.0f};
        if (there) y[0] = cu_to_float(h[d]), y[1] = cu_to_float(h[d + 1]);
        hadamard(y, segment, lane);
        if (!there) continue;
        h[d] = cu_from_float(y[0] * scale, T());
        h[d + 1] = cu_from_float(y[1] * scale, T());
    }
}

cudaError_t cu_turn_back(cudaStream_t s, const cu_attn *a, uint32_t n_rows) {
    const kv_format *f = &a->kv.format;
    const uint32_t n = n_rows * a->n_heads;
    if (!f->v.rotated || n == 0) return cudaSuccess;
    const float turn = cu_kv_bytes(&a->kv) ? kv_turn_scale(f->v_segment) : 1.0f;
    const float scale = 1.0f / (turn * (float)f->v_segment);
    return cu_by_type(a->t, [&](auto type) {
        using T = decltype(type);
        CU_LAUNCH_EARLY(k_turn_back<T>, cu_ceil_div(n, WARPS), THREADS, 0, s, (T *)a->out, n,
                        f->head_dim, f->v_segment, scale);
        return cudaGetLastError();
    });
}
