/* Rotary embedding of q and k, in one pass with the append of k and v to the paged cache; and
 * copies of whole cache blocks. */
#include "engine/cuda/rope.cuh"

enum { THREADS = 256, MAX_PAIRS = 256 };

/* P pairs of a head from pair i on. HALVES: P is 8 or 1; else 4 or 1. */
template <class T, int P, bool HALVES>
CU_DEVICE void pairs_load(const T *head, uint32_t i, uint32_t half, float a[P], float b[P]) {
    if constexpr (P == 1) {
        a[0] = cu_to_float(head[HALVES ? i : 2 * i]);
        b[0] = cu_to_float(head[HALVES ? i + half : 2 * i + 1]);
    } else if constexpr (HALVES) {
        cu_load8(head + i, a);
        cu_load8(head + half + i, b);
    } else {
        float f[8];
        cu_load8(head + 2 * i, f);
#pragma unroll
        for (int k = 0; k < P; k++) a[k] = f[2 * k], b[k] = f[2 * k + 1];
    }
}

template <class T, int P, bool HALVES>
CU_DEVICE void pairs_store(T *head, uint32_t i, uint32_t half, const float a[P],
                           const float b[P]) {
    if constexpr (P == 1) {
        head[HALVES ? i : 2 * i] = cu_from_float(a[0], T());
        head[HALVES ? i + half : 2 * i + 1] = cu_from_float(b[0], T());
    } else if constexpr (HALVES) {
        cu_store8(head + i, a);
        cu_store8(head + half + i, b);
    } else {
        float f[8];
#pragma unroll
        for (int k = 0; k < P; k++) f[2 * k] = a[k], f[2 * k + 1] = b[k];
        cu_store8(head + 2 * i, f);
    }
}

/* One block a row of the step. */
template <class T, class K, int P, bool HALVES>
static __global__ void __launch_bounds__(THREADS) k_rope_append(rope_args a) {
    cu_grid_trigger();
    CU_SHARED(float2, turn, MAX_PAIRS);
    const int32_t pos = a.tables.pos[blockIdx.x];
    const kv_format &f = a.kv.format;
    const uint32_t half = a.n_dims / 2, hd = f.head_dim, n_kv = a.q_alone ? 0 : f.n_kv_heads;
    for (uint32_t i = threadIdx.x; i < half; i += THREADS) {
        float2 cs = cos_sin(pos, a.freqs[i]);
        turn[i] = make_float2(cs.x * a.mscale, cs.y * a.mscale);
    }
    cu_grid_wait(); /* angles are the tables' alone */
    if (pos < 0) return;
    char *parts = a.q_alone ? NULL : cache_parts(a, a.kv, blockIdx.x, (uint32_t)pos);
    const uint32_t token = (uint32_t)pos & (f.block_tokens - 1);
    const uint32_t k_at = kv_k_group_at(&f, token), v_at = kv_v_token_at(&f, token);
    const auto at = [&](uint32_t h, uint32_t offset) {
        return (K *)(parts + kv_part_at(&f, 0, h) + offset);
    };
    T *row = (T *)a.qkv + (size_t)blockIdx.x * a.ld;
    __syncthreads();
    const uint32_t units = half / P;
    for (uint32_t u = threadIdx.x; u < (a.n_heads + n_kv) * units; u += THREADS) {
        const uint32_t h = u / units, i = u % units * P;
        float x[P], y[P];
        pairs_load<T, P, HALVES>(row + h * hd, i, half, x, y);
#pragma unroll
        for (int k = 0; k < P; k++) {
            const float2 v = turn_pair(x[k], y[k], turn[i + k]);
            x[k] = v.x, y[k] = v.y;
        }
        if (h < a.n_heads)
            pairs_store<T, P, HALVES>(row + h * hd, i, half, x, y);
        else if (parts)
            pairs_store<K, P, HALVES>(at(h - a.n_heads, k_at), i, half, x, y);
    }
    if (!parts) return;
    const T *k = row + a.n_heads * hd, *v = k + n_kv * hd;
    const uint32_t rest = hd - a.n_dims; /* dimensions that do not turn */
    for (uint32_t u = threadIdx.x; u < n_kv * rest; u += THREADS) {
        const uint32_t h = u / rest, d = a.n_dims + u % rest;
        at(h, k_at)[d] = cu_from_float(cu_to_float(k[h * hd + d]), K());
    }
    for (uint32_t u = threadIdx.x; u < n_kv * (hd / 8); u += THREADS) {
        const uint32_t h = u / (hd / 8), d = u % (hd / 8) * 8;
        float x[8];
        cu_load8(v + h * hd + d, x);
        cu_store8(at(h, v_at) + d, x);
    }
}

cudaError_t cu_rope_append(cudaStream_t s, const cu_rope *rope, const cu_tables *tables,
                           uint32_t n_rows) {
    const uint32_t hd = rope->kv.format.head_dim, n_dims = rope->n_dims;
    if (hd % 8 || rope->ld % 8 || n_dims % 2 || n_dims > hd || n_dims / 2 > MAX_PAIRS ||
        rope->kv.group >= PROGRAM_MAX_GROUPS || cu_kv_coded(&rope->kv))
        return cudaErrorInvalidValue;
    if (n_rows == 0) return cudaSuccess;
    const rope_args a = {*rope, *tables};
    const bool halves = rope->pairing == ROPE_HALVES, wide = n_dims % (halves ? 16 : 8) == 0;
    return cu_by_type(rope->t, [&](auto type) {
        using T = decltype(type);
        return cu_by_type(rope->kv.type, [&](auto kv_type) {
            using K = decltype(kv_type);
            if (halves && wide)
                CU_LAUNCH_EARLY((k_rope_append<T, K, 8, true>), n_rows, THREADS, 0, s, a);
            else if (halves)
                CU_LAUNCH_EARLY((k_rope_append<T, K, 1, true>), n_rows, THREADS, 0, s, a);
            else if (wide)
                CU_LAUNCH_EARLY((k_rope_append<T, K, 4, false>), n_rows, THREADS, 0, s, a);
            else
                CU_LAUNCH_EARLY((k_rope_append<T, K, 1, false>), n_rows, THREADS, 0, s, a);
            return cudaGetLastError();
        });
    });
}

/* ---- copies of blocks: each thread moves 4 x 16 bytes of one block ---- */

enum { COPY_VECTORS = 4 };

static __global__ void __launch_bounds__(THREADS)
    k_copy_blocks(uint4 *pool, uint32_t n_parts, uint32_t n_vectors, const int32_t *pairs) {
    cu_grid_trigger();
    cu_grid_wait();
    const int32_t *pair = pairs + (size_t)(blockIdx.x / n_parts) * 2;
    const uint4 *from = pool + (int64_t)pair[0] * n_vectors;
    uint4 *to = pool + (int64_t)pair[1] * n_vectors;
    const uint32_t first = blockIdx.x % n_parts * (THREADS * COPY_VECTORS) + threadIdx.x;
    uint4 v[COPY_VECTORS];
    if (pair[0] < 0 || pair[1] < 0) return;
#pragma unroll
    for (int i = 0; i < COPY_VECTORS; i++)
        if (first + i * THREADS < n_vectors) v[i] = from[first + i * THREADS];
#pragma unroll
    for (int i = 0; i < COPY_VECTORS; i++)
        if (first + i * THREADS < n_vectors) to[first + i * THREADS] = v[i];
}

cudaError_t cu_copy_blocks(cudaStream_t s, void *pool, uint64_t block_bytes,
                           const int32_t *pairs, uint32_t n) {
    if (n == 0) return cudaSuccess;
    if (block_bytes % 16 || block_bytes / 16 > UINT32_MAX) return cudaErrorInvalidValue;
    const uint32_t n_vectors = (uint32_t)(block_bytes / 16);
    const uint32_t n_parts = cu_ceil_div(n_vectors, THREADS * COPY_VECTORS);
    CU_LAUNCH_EARLY(k_copy_blocks, n * n_parts, THREADS, 0, s, (uint4 *)pool, n_parts,
                    n_vectors, pairs);
    return cudaGetLastError();
}
