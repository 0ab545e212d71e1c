/* Mixtures of experts: the router's logits, the choice of experts, the sort of rows by them, and the
 * sum over what the experts made of a row. Shazeer et al., "Outrageously Large Neural Networks",
 * section 2. All orders are fixed: a row's numbers depend on that row alone. */
#include "engine/cuda/kernels.h"
#include "engine/cuda/vec.cuh"

enum { WARPS = 8, THREADS = 32 * WARPS, ROWS = 8 };

/* ---- few outputs ---- */

/* A warp takes one output and up to eight rows, so that weights are read once for these. */
template <class T, class O>
static __global__ void __launch_bounds__(THREADS)
    k_linear_narrow(uint32_t n_rows, uint32_t n_out, uint32_t n_in, const T *in, uint32_t ld_in,
                    const float *w, const float *bias, O *out, uint32_t ld_out) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t lane = threadIdx.x % 32, o = blockIdx.x * WARPS + threadIdx.x / 32;
    const uint32_t first = blockIdx.y * ROWS;
    const int n = (int)min(n_rows - first, (uint32_t)ROWS);
    if (o >= n_out) return;
    float sum[ROWS] = {};
    for (uint32_t k = lane * 8; k < n_in; k += 32 * 8) {
        float a[8], x[8];
        cu_load8(w + (size_t)o * n_in + k, a);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (r >= n) break;
            cu_load8(in + (size_t)(first + r) * ld_in + k, x);
#pragma unroll
            for (int i = 0; i < 8; i++) sum[r] = fmaf(a[i], x[i], sum[r]);
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (r >= n) break;
        const float y = cu_warp_sum(sum[r]) + (bias ? bias[o] : 0.0f);
        if (lane == 0) out[(size_t)(first + r) * ld_out + o] = cu_from_float(y, O());
    }
}

cudaError_t cu_linear_narrow(cudaStream_t s, const cu_linear *l) {
    if (l->w.type != DT_F32 || l->w.n_in % 8 || l->ld_in % 8 || l->kind == CU_OUT_ADD)
        return cudaErrorInvalidValue;
    if (l->n_rows == 0 || l->w.n_out == 0) return cudaSuccess;
    const dim3 grid(cu_ceil_div(l->w.n_out, WARPS), cu_ceil_div(l->n_rows, ROWS));
    return cu_by_type(l->t, [&](auto type) {
        using T = decltype(type);
        const T *in = (const T *)l->in;
        const float *w = (const float *)l->w.data;
        if (l->kind == CU_OUT_F32)
            CU_LAUNCH_EARLY((k_linear_narrow<T, float>), grid, THREADS, 0, s, l->n_rows,
                            l->w.n_out, l->w.n_in, in, l->ld_in, w, l->bias, (float *)l->out,
                            l->ld_out);
        else
            CU_LAUNCH_EARLY((k_linear_narrow<T, T>), grid, THREADS, 0, s, l->n_rows, l->w.n_out,
                            l->w.n_in, in, l->ld_in, w, l->bias, (T *)l->out, l->ld_out);
        return cudaGetLastError();
    });
}

/* ---- the choice ---- */

enum { A_LANE = CU_MOST_EXPERTS / 32 }; /* experts of a lane at most: lane, lane + 32, ... */
static_assert(CU_MOST_CHOSEN <= 32, "a lane for each");

/* Of a lane's experts what they are chosen by; -infinity beyond the experts. */
struct route_choice {
    float x[A_LANE];
};

/* The logits. False: one is not finite. */
CU_DEVICE bool route_read(route_choice &l, const float *logits, float scale, uint32_t n,
                          uint32_t lane) {
    bool finite = true;
#pragma unroll
    for (int i = 0; i < A_LANE; i++) {
        const uint32_t e = lane + 32 * i;
        l.x[i] = e < n ? logits[e] * scale : -INFINITY;
        if (e < n) finite &= fabsf(l.x[i]) < INFINITY;
    }
    return __all_sync(0xffffffffu, finite);
}

CU_DEVICE float route_most(const route_choice &l) {
    float most = -INFINITY;
#pragma unroll
    for (int i = 0; i < A_LANE; i++) most = fmaxf(most, l.x[i]);
    return cu_warp_max(most);
}

/* The lane's value with the largest x, the lowest index on a tie: in all lanes. */
CU_DEVICE void route_best(float *x, uint32_t *at) {
#pragma unroll
    for (int m = 16; m; m >>= 1) {
        const float other = __shfl_xor_sync(0xffffffffu, *x, m);
        const uint32_t there = __shfl_xor_sync(0xffffffffu, *at, m);
        if (other > *x || (other == *x && there < *at)) *x = other, *at = there;
    }
}

/* The expert with the largest x, the lowest of several: in all lanes. It is then out. */
CU_DEVICE uint32_t route_take(route_choice &l, uint32_t lane) {
    float best = -INFINITY;
    uint32_t at = CU_MOST_EXPERTS;
#pragma unroll
    for (int i = 0; i < A_LANE; i++)
        if (l.x[i] > best) best = l.x[i], at = lane + 32 * i;
    route_best(&best, &at);
#pragma unroll
    for (int i = 0; i < A_LANE; i++)
        if (lane + 32 * i == at) l.x[i] = -INFINITY;
    return at;
}

/* 2^((l - max) log2 e), or the sigmoid of l. */
CU_DEVICE float route_score(route_gate gate, float logit, float max) {
    const float log2_e = 1.44269504f;
    if (gate == ROUTE_SIGMOID) return 1.0f / (1.0f + cu_ex2(-log2_e * logit));
    return cu_ex2((logit - max) * log2_e);
}

/* The sum of the scores of all experts. */
CU_DEVICE float route_all(const cu_router &p, const float *logits, uint32_t n, float max,
                          uint32_t lane) {
    float sum = 0.0f;
    for (uint32_t e = lane; e < n; e += 32)
        sum += route_score(p.gate, logits[e] * p.logit_scale, max);
    return cu_warp_sum(sum);
}

/* What the scores of the chosen are divided by. */
CU_DEVICE float route_sum(const cu_router &p, const float *logits, uint32_t n, uint32_t top_k,
                          float score, float max, uint32_t lane) {
    float sum = 0.0f;
    if (p.norm) {
        for (uint32_t j = 0; j < top_k; j++) sum += __shfl_sync(0xffffffffu, score, (int)j);
        return sum + p.eps;
    }
    return p.gate == ROUTE_SIGMOID ? 1.0f : route_all(p, logits, n, max, lane);
}

/* Logits become scores where something is added to them. */
CU_DEVICE void route_by_scores(route_choice &l, const cu_router &p, const float *logits,
                               uint32_t n, float max, uint32_t lane) {
    if (!p.choice_bias && !(p.n_groups && p.group_best == 2)) return;
    float by = 1.0f;
    if (p.gate == ROUTE_SOFTMAX) by = 1.0f / route_all(p, logits, n, max, lane);
#pragma unroll
    for (int i = 0; i < A_LANE; i++) {
        const uint32_t e = lane + 32 * i;
        if (e >= n) continue;
        l.x[i] = route_score(p.gate, l.x[i], max) * by;
        if (p.choice_bias) l.x[i] += p.choice_bias[e];
    }
}

/* The sum of the group_best largest of experts [first, first + size): in all lanes. */
CU_DEVICE float route_group(const route_choice &l, uint32_t first, uint32_t size,
                            uint32_t group_best, uint32_t lane) {
    float a = -INFINITY, b = -INFINITY; /* a >= b */
#pragma unroll
    for (int i = 0; i < A_LANE; i++) {
        const uint32_t e = lane + 32 * i;
        if (e < first || e >= first + size) continue;
        b = fmaxf(b, fminf(a, l.x[i]));
        a = fmaxf(a, l.x[i]);
    }
#pragma unroll
    for (int m = 16; m; m >>= 1) {
        const float c = __shfl_xor_sync(0xffffffffu, a, m),
                    d = __shfl_xor_sync(0xffffffffu, b, m);
        b = fmaxf(fminf(a, c), fmaxf(b, d));
        a = fmaxf(a, c);
    }
    return group_best == 2 ? a + b : a;
}

/* What is not in the best groups can no longer be chosen. Lane g has groups g and g + 32. */
CU_DEVICE void route_limit(route_choice &l, const cu_router &p, uint32_t n, uint32_t lane) {
    if (!p.n_groups) return;
    const uint32_t size = n / p.n_groups;
    float score[2] = {-INFINITY, -INFINITY};
    uint64_t kept = 0;
    for (uint32_t g = 0; g < p.n_groups; g++) {
        const float x = route_group(l, g * size, size, p.group_best, lane);
        if (g % 32 == lane) score[g / 32] = x;
    }
    for (uint32_t k = 0; k < p.groups_used; k++) {
        const bool second = score[1] > score[0];
        float best = second ? score[1] : score[0];
        uint32_t at = second ? lane + 32 : lane;
        route_best(&best, &at);
        kept |= (uint64_t)1 << at;
        if (at % 32 == lane) score[at / 32] = -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < A_LANE; i++) {
        const uint32_t e = lane + 32 * i;
        if (e < n && !(kept >> e / size & 1)) l.x[i] = -INFINITY;
    }
}

/* A warp a row. Lane j < top_k has the j-th of the chosen, by what they are chosen by, and stores it at its
 * place by index. */
static __global__ void __launch_bounds__(THREADS) k_choose(cu_router p, cu_routed r) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t lane = threadIdx.x % 32, row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= r.n_rows) return;
    const size_t at = (size_t)row * r.top_k;
    const float *logits = p.logits + (size_t)row * r.n_experts;
    const bool real = p.pos[row] >= 0;
    route_choice l;
    uint32_t expert = lane;
    float weight = real ? NAN : 0.0f;
    if (route_read(l, logits, p.logit_scale, r.n_experts, lane) && real) {
        const float max = route_most(l);
        route_by_scores(l, p, logits, r.n_experts, max, lane);
        route_limit(l, p, r.n_experts, lane);
        for (uint32_t j = 0; j < r.top_k; j++) {
            const uint32_t e = route_take(l, lane);
            if (j == lane) expert = e;
        }
        const bool chosen = lane < r.top_k && expert < r.n_experts;
        const float mine = chosen ? logits[expert] * p.logit_scale : 0.0f;
        const float score = route_score(p.gate, mine, max);
        const float sum = route_sum(p, logits, r.n_experts, r.top_k, score, max, lane);
        /* Sigmoids of logits far below 0 may all be 0. */
        weight = score * (p.scale / fmaxf(sum, 0x1p-100f));
        if (p.scales && chosen) weight *= p.scales[expert];
    }
    uint32_t rank = 0;
    for (uint32_t j = 0; j < r.top_k; j++)
        rank += __shfl_sync(0xffffffffu, expert, (int)j) < expert;
    if (lane >= r.top_k) return;
    r.expert[at + rank] = real ? (int32_t)expert : -1;
    r.weight[at + rank] = weight;
    r.slot[at + rank] = 0;
}

/* ---- the sort ---- */

/* Of the experts before one: slots and tiles. In all lanes. */
CU_DEVICE uint2 route_before(const uint32_t *count, uint32_t expert, uint32_t tile,
                             uint32_t lane) {
    uint2 n = make_uint2(0, 0);
    for (uint32_t e = lane; e < expert; e += 32)
        n.x += count[e], n.y += (count[e] + tile - 1) / tile;
#pragma unroll
    for (int m = 16; m; m >>= 1) {
        n.x += __shfl_xor_sync(0xffffffffu, n.x, m);
        n.y += __shfl_xor_sync(0xffffffffu, n.y, m);
    }
    return n;
}

/* A block an expert. All count, and the first warp gives the expert's rows their slots. */
static __global__ void __launch_bounds__(THREADS) k_sort(cu_routed r, uint32_t tile) {
    cu_grid_trigger();
    cu_grid_wait();
    CU_SHARED(uint32_t, count, CU_MOST_EXPERTS);
    const uint32_t lane = threadIdx.x % 32, expert = blockIdx.x, slots = r.n_rows * r.top_k;
    for (uint32_t e = threadIdx.x; e < r.n_experts; e += THREADS) count[e] = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < slots; i += THREADS)
        if (r.expert[i] >= 0) atomicAdd(&count[r.expert[i]], 1u);
    __syncthreads();
    if (threadIdx.x >= 32) return;
    const uint2 before = route_before(count, expert, tile, lane);
    const uint32_t n = count[expert], n_tiles = (n + tile - 1) / tile;
    for (uint32_t i = 0, next = before.x; i < slots; i += 32) {
        const uint32_t k = i + lane;
        const bool own = k < slots && r.expert[k] == (int32_t)expert;
        const uint32_t all = __ballot_sync(0xffffffffu, own);
        if (own) {
            const uint32_t slot = next + (uint32_t)__popc(all & ((1u << lane) - 1));
            r.slot[k] = (int32_t)slot;
            r.row[slot] = (int32_t)(k / r.top_k);
        }
        next += (uint32_t)__popc(all);
    }
    /* Behind the last expert's tiles there are none. */
    const uint32_t end = expert + 1 == r.n_experts ? r.n_tiles - before.y : n_tiles;
    for (uint32_t t = lane; t < end; t += 32) {
        int32_t *to = r.tiles + 4 * (size_t)(before.y + t);
        const bool there = t < n_tiles;
        to[0] = there ? (int32_t)expert : 0;
        to[1] = there ? (int32_t)(before.x + t * tile) : 0;
        to[2] = there ? (int32_t)min(n - t * tile, tile) : 0;
        to[3] = 0;
    }
}

cudaError_t cu_route(cudaStream_t s, const cu_router *p, const cu_routed *r) {
    if (r->n_experts == 0 || r->n_experts > CU_MOST_EXPERTS || r->top_k == 0 ||
        r->top_k > CU_MOST_CHOSEN || r->top_k > r->n_experts)
        return cudaErrorInvalidValue;
    if (p->n_groups && (p->n_groups > CU_MOST_GROUPS || r->n_experts % p->n_groups ||
                        p->groups_used > p->n_groups ||
                        r->top_k > r->n_experts / p->n_groups * p->groups_used))
        return cudaErrorInvalidValue;
    if (r->n_rows == 0) return cudaSuccess;
    CU_LAUNCH_EARLY(k_choose, cu_ceil_div(r->n_rows, WARPS), THREADS, 0, s, *p, *r);
    CU_LAUNCH_EARLY(k_sort, r->n_experts, THREADS, 0, s, *r, cu_expert_tile(r->n_rows));
    return cudaGetLastError();
}

/* ---- the sum ---- */

static __global__ void __launch_bounds__(THREADS)
    k_experts_sum(cu_routed r, uint32_t n, const float *y, bool adds, float *out) {
    cu_grid_trigger();
    cu_grid_wait();
    const uint32_t c = (blockIdx.y * THREADS + threadIdx.x) * 8, row = blockIdx.x;
    const size_t at = (size_t)row * r.top_k;
    if (c >= n || r.expert[at] < 0) return;
    float sum[8] = {}, x[8];
    for (uint32_t j = 0; j < r.top_k; j++) {
        const float weight = r.weight[at + j];
        cu_load8(y + (size_t)r.slot[at + j] * n + c, x);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] = fmaf(weight, x[i], sum[i]);
    }
    if (adds) {
        cu_load8(out + (size_t)row * n + c, x);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] += x[i];
    }
    cu_store8(out + (size_t)row * n + c, sum);
}

cudaError_t cu_experts_sum(cudaStream_t s, const cu_routed *r, uint32_t n, const float *y,
                           bool adds, float *out) {
    if (n == 0 || n % 8) return cudaErrorInvalidValue;
    if (r->n_rows == 0) return cudaSuccess;
    CU_LAUNCH_EARLY(k_experts_sum, dim3(r->n_rows, cu_ceil_div(n, 8 * THREADS)), THREADS, 0, s,
                    *r, n, y, adds, out);
    return cudaGetLastError();
}
