/* Rotary embedding and the append to the cache, as decode attention does them on the way: the bits of rope.cu. */
#ifndef VRAMD_ENGINE_CUDA_ATTN_TURN_CUH
#define VRAMD_ENGINE_CUDA_ATTN_TURN_CUH

#include "engine/cuda/attn.cuh"
#include "engine/cuda/rope.cuh"

/* The cosines and sines of a position: [n_dims / 2], shared. */
template <int THREADS> CU_DEVICE void turn_table(const attn_args &a, int pos, float2 *table) {
    for (uint32_t i = threadIdx.x; i < a.turn.n_dims / 2; i += THREADS) {
        const float2 cs = cos_sin(pos, a.turn.freqs[i]);
        table[i] = make_float2(cs.x * a.turn.mscale, cs.y * a.turn.mscale);
    }
}

CU_DEVICE float turn_number(const attn_args &a, uint16_t bits) {
    return attn_unpack_t(a.t_bf16, bits).x;
}

/* Dimension c of a head of T, rotated. */
CU_DEVICE float turn_dimension(const attn_args &a, const uint16_t *head, const float2 *table,
                               uint32_t c) {
    const uint32_t half = a.turn.n_dims / 2;
    const float x = turn_number(a, head[c]);
    if (c >= a.turn.n_dims) return x;
    const bool second = a.turn.halves ? c >= half : c & 1;
    const uint32_t other = !a.turn.halves ? c ^ 1 : second ? c - half : c + half;
    const float y = turn_number(a, head[other]);
    const float2 cs = table[a.turn.halves ? min(c, other) : c / 2];
    return second ? turn_pair(y, x, cs).y : turn_pair(x, y, cs).x;
}

/* Eight dimensions from c on, as q of T. */
CU_DEVICE uint4 turn_octet(const attn_args &a, const uint16_t *head, const float2 *table,
                           uint32_t c) {
    float x[8];
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = turn_dimension(a, head, table, c + i);
    return a.t_bf16 ? cu_pack8(x, __nv_bfloat16()) : cu_pack8(x, __half());
}

/* K and V of a row's newest token and one KV head: to newest, [2][HD] of E, shared, and, if stores, to its place in
 * the cache. qkv: the row. All threads of the block. */
template <class E, int HD, int THREADS>
CU_DEVICE void turn_newest(const attn_args &a, const uint16_t *qkv, uint32_t kv_head,
                           const float2 *table, unsigned char *place, E *newest) {
    const uint16_t *k = qkv + (a.n_heads + kv_head) * a.head_dim,
                   *v = k + a.n_kv_heads * a.head_dim;
    for (uint32_t c = threadIdx.x * 8; c < HD; c += THREADS * 8) {
        float x[8] = {}, y[8] = {};
        for (uint32_t i = 0; i < 8 && c < a.head_dim; i++) {
            x[i] = turn_dimension(a, k, table, c + i);
            y[i] = turn_number(a, v[c + i]);
        }
        const uint4 of_k = cu_pack8(x, E()), of_v = cu_pack8(y, E());
        *(uint4 *)(newest + c) = of_k, *(uint4 *)(newest + HD + c) = of_v;
        if (!place || c >= a.head_dim) continue;
        *(uint4 *)(place + c * 2) = of_k;
        *(uint4 *)(place + a.v_at + c * 2) = of_v;
    }
}

#endif
