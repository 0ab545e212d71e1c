/* One row of logits under one block of threads: passes over the strips that matter, sums, and
 * the cut that keeps the best few. Sums are integers and a cut is a set: no result depends on
 * the order in which threads come.
 *
 * A row is looked at in strips of 128: a lane holds four neighbours. The maxima of strips are
 * known before, so a pass reads only strips that may hold something above a bound: a hundred of
 * the thousand of a large vocabulary, as a rule. */
#ifndef VRAMD_ENGINE_CUDA_SELECT_CUH
#define VRAMD_ENGINE_CUDA_SELECT_CUH

#include "engine/cuda/row.cuh"

enum { STRIP = 128, BUCKETS = 2048 };

/* Shared memory of a block. */
struct select_shared {
    row_sum bucket[BUCKETS];
    row_sum warp[32];
    row_sum kept; /* above the bucket found, then within it */
    uint32_t found, n, lowest;
};

/* The row of one block, the same in all threads. */
struct select_row {
    select_shared *s;
    const float *logits;
    uint32_t n, n_strips;
    const uint32_t *strip_key; /* [n_strips]: key of the strip's maximum */
    uint32_t *active;          /* [n_strips]: the strips to look at, ascending */
    uint32_t n_active;
};

/* Four neighbours from i on; NaN beyond the row. */
CU_DEVICE float4 row_load4(const float *row, uint32_t i, uint32_t n) {
    const float none = __uint_as_float(0x7fffffffu);
    float4 v = make_float4(none, none, none, none);
    if (n % 4 == 0) {
        if (i < n) v = *(const float4 *)(row + i);
        return v;
    }
    if (i < n) v.x = row[i];
    if (i + 1 < n) v.y = row[i + 1];
    if (i + 2 < n) v.z = row[i + 2];
    if (i + 3 < n) v.w = row[i + 3];
    return v;
}

/* ---- sums over warps and blocks ---- */

/* In three parts that 32 of cannot overflow; modulo 2^64. */
CU_DEVICE row_sum warp_sum(row_sum v) {
    const uint32_t all = 0xffffffffu;
    const uint32_t a = __reduce_add_sync(all, (uint32_t)v & 0x3fffffu);
    const uint32_t b = __reduce_add_sync(all, (uint32_t)(v >> 22) & 0x1fffffu);
    const uint32_t c = __reduce_add_sync(all, (uint32_t)(v >> 43));
    return (row_sum)a + ((row_sum)b << 22) + ((row_sum)c << 43);
}

/* All threads get the sum. */
CU_DEVICE row_sum block_sum(select_shared *s, row_sum v) {
    const uint32_t lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    v = warp_sum(v);
    __syncthreads(); /* what a caller before read is read */
    if (lane == 0) s->warp[threadIdx.x / 32] = v;
    __syncthreads();
    return warp_sum(lane < n_warps ? s->warp[lane] : 0);
}

CU_DEVICE row_sum warp_scan(row_sum v) { /* inclusive */
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (uint32_t d = 1; d < 32; d *= 2) {
        const row_sum left = __shfl_up_sync(0xffffffffu, v, d);
        if (lane >= d) v += left;
    }
    return v;
}

/* The sum of v over the threads before this one; *total: over all. */
CU_DEVICE row_sum block_scan(select_shared *s, row_sum v, row_sum *total) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t n_warps = blockDim.x / 32;
    const row_sum inclusive = warp_scan(v);
    __syncthreads();
    if (lane == 31) s->warp[warp] = inclusive;
    __syncthreads();
    const row_sum sums = lane < n_warps ? s->warp[lane] : 0;
    *total = warp_sum(sums);
    return inclusive - v + warp_sum(lane < warp ? sums : 0);
}

/* ---- passes ---- */

/* f(id, logit) for the elements of the active strips, whatever they hold. Warps take strips in
 * turn, and load one strip ahead. */
template <class F> CU_DEVICE void for_each(const select_row &r, F f) {
    const uint32_t lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    uint32_t a = threadIdx.x / 32;
    if (a >= r.n_active) return;
    uint32_t i = r.active[a] * STRIP + lane * 4;
    float4 v = row_load4(r.logits, i, r.n);
    while (a < r.n_active) {
        const uint32_t next = a + n_warps, at = i;
        const float4 x = v;
        if (next < r.n_active) {
            i = r.active[next] * STRIP + lane * 4;
            v = row_load4(r.logits, i, r.n);
        }
        f(at, x.x), f(at + 1, x.y), f(at + 2, x.z), f(at + 3, x.w);
        a = next;
    }
}

/* Makes those strips active whose key passes f. */
template <class F> CU_DEVICE void choose_strips(select_row &r, F f) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t n = 0;
    for (uint32_t base = 0; base < r.n_strips; base += blockDim.x) {
        const uint32_t strip = base + threadIdx.x;
        const bool yes = strip < r.n_strips && f(r.strip_key[strip]);
        const uint32_t votes = __ballot_sync(0xffffffffu, yes);
        __syncthreads();
        if (lane == 0) r.s->warp[warp] = __popc(votes);
        __syncthreads();
        const uint32_t counts = lane < blockDim.x / 32 ? (uint32_t)r.s->warp[lane] : 0;
        const uint32_t before = __reduce_add_sync(0xffffffffu, lane < warp ? counts : 0);
        if (yes) r.active[n + before + __popc(votes & ((1u << lane) - 1))] = strip;
        n += __reduce_add_sync(0xffffffffu, counts);
    }
    r.n_active = n;
    __syncthreads();
}

/* ---- the cut ---- */

/* Keeps elements of keys above key, and of those that equal it the ids up to id. */
struct select_cut {
    uint32_t key, id;
};
CU_DEVICE bool cut_keeps(select_cut c, uint32_t key, uint32_t id) {
    return key > c.key || (key == c.key && id <= c.id);
}

/* From the top bucket down, the one in which the running sum reaches target: its number goes to
 * s->found and the sum above it to s->kept. False: the sum of all is less. */
CU_DEVICE bool find_bucket(select_shared *s, row_sum target) {
    const uint32_t each = BUCKETS / blockDim.x;
    const row_sum *mine = &s->bucket[BUCKETS - (threadIdx.x + 1) * each]; /* each of them */
    row_sum sum = 0, total;
    for (uint32_t i = 0; i < each; i++) sum += mine[i];
    row_sum before = block_scan(s, sum, &total);
    if (total < target) return false;
    if (before < target && target - before <= sum) {
        uint32_t i = each - 1;
        while (before + mine[i] < target) before += mine[i--];
        s->found = (uint32_t)(mine - s->bucket) + i;
        s->kept = before;
    }
    __syncthreads();
    return true;
}

/* *sum += mass as two additions of 32 bits, which shared memory does by itself; one of 64 bits
 * is a loop of compare and swap. Sums are read after a barrier. */
CU_DEVICE void shared_add(row_sum *sum, row_sum mass) {
    uint32_t *word = (uint32_t *)sum; /* the lower half first */
    const uint32_t low = (uint32_t)mass, before = low ? atomicAdd(word, low) : 0;
    const uint32_t high = (uint32_t)(mass >> 32) + (before + low < low);
    if (high) atomicAdd(word + 1, high);
}

/* The key at which the mass of the highest keys reaches target, by a radix select over [lo, hi]
 * in steps of at most 11 bits. each(add) calls add(key, mass) for the block's elements; keys
 * below lo are passed over, keys above hi must not come. *above: the mass of higher keys. False
 * (and key lo): everything together does not reach it. */
template <class EACH>
CU_DEVICE bool find_key(select_shared *s, EACH each, uint32_t lo, uint32_t hi, row_sum target,
                        uint32_t *key, row_sum *above) {
    *above = 0, *key = lo;
    for (;;) {
        const uint32_t bits = 32 - __clz((int)(hi - lo)), shift = bits > 11 ? bits - 11 : 0;
        for (uint32_t b = threadIdx.x; b < BUCKETS; b += blockDim.x) s->bucket[b] = 0;
        __syncthreads();
        each([=](uint32_t k, row_sum mass) {
            if (k >= lo && k <= hi) shared_add(&s->bucket[(k - lo) >> shift], mass);
        });
        __syncthreads();
        if (!find_bucket(s, target - *above)) return false;
        const uint32_t first = lo + (s->found << shift);
        *above += s->kept;
        *key = lo = first;
        if (shift == 0) return true;
        hi = min(hi, first + ((1u << shift) - 1));
    }
}

/* The cut of the smallest set of highest keys, lowest id first among equals, whose mass reaches
 * target (model/row.h, row_find_cut). each(add): add(id, key, mass). */
template <class EACH>
CU_DEVICE select_cut find_cut(const select_row &r, EACH each, uint32_t lo, uint32_t hi,
                              row_sum target) {
    select_shared *s = r.s;
    select_cut cut = {lo, 0xffffffffu};
    row_sum above, unused;
    const bool reached = find_key(
        s, [&](auto add) { each([&](uint32_t, uint32_t k, row_sum m) { add(k, m); }); }, lo, hi,
        target, &cut.key, &above);
    if (!reached) return cut;
    if (threadIdx.x == 0) s->n = 0;
    __syncthreads();
    each([&](uint32_t, uint32_t k, row_sum) {
        if (k == cut.key) atomicAdd(&s->n, 1u);
    });
    __syncthreads();
    const uint32_t n_equal = s->n;
    __syncthreads(); /* the next one to count must not be ahead of those who read */
    if (n_equal == 1) return cut;
    uint32_t from_end; /* lower ids are higher keys */
    find_key(
        s,
        [&](auto add) {
            each([&](uint32_t id, uint32_t k, row_sum m) {
                if (k == cut.key) add(r.n - 1 - id, m);
            });
        },
        0u, r.n - 1, target - above, &from_end, &unused);
    cut.id = r.n - 1 - from_end;
    return cut;
}

/* A key that none of the k best elements is below: the k-th of the strips' maxima. */
CU_DEVICE uint32_t bound_of_best(const select_row &r, uint32_t k, uint32_t highest) {
    uint32_t key = KEY_LOWEST;
    row_sum above;
    if (k > r.n_strips) return key;
    find_key(
        r.s,
        [&](auto add) {
            for (uint32_t i = threadIdx.x; i < r.n_strips; i += blockDim.x)
                add(r.strip_key[i], (row_sum)1);
        },
        KEY_LOWEST, highest, k, &key, &above);
    return key;
}

/* The k highest logits above -inf, with the strips that hold them active. */
CU_DEVICE select_cut find_best(select_row &r, uint32_t k, uint32_t highest) {
    const uint32_t bound = bound_of_best(r, k, highest);
    choose_strips(r, [=](uint32_t key) { return key >= bound; });
    return find_cut(
        r,
        [&](auto add) {
            for_each(r, [&](uint32_t id, float l) { add(id, row_key(l), (row_sum)1); });
        },
        bound, highest, k);
}

#endif
