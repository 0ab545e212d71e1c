/* Sampling on the device: model/sampling.c's tokens and logprobs, bit for bit (row.cuh), from
 * the same logits. Three kernels, each with a grid of its arguments alone:
 *
 *   scan    many blocks a row: the mask of allowed tokens, edits (bias, penalties, end tokens),
 *           then the maxima
 *   mass    many blocks a row: sums of weights; nothing for greedy rows without logprobs
 *   choose  one block a row: the best token, logprobs, truncations, the draw
 *
 * A greedy row is thus read once, by as many SMs as its length fills. The truncations are cuts
 * on the row as it is: what they leave is asked of each element again (struct alive) instead of
 * being copied, so scratch holds a few numbers for each strip of 128 logits. Penalties count
 * the history in shared memory, each block for its own 4096 tokens of the vocabulary.
 *
 * Only scan reads what the step before drew, and choose begins when scan has ended: so choose
 * writes what it draws to the same place. */
#include "engine/cuda/kernels.h"
#include "engine/cuda/select.cuh"

enum { CHUNK = CU_SAMPLE_CHUNK, SCAN_THREADS = 256, WARP_STRIPS = CHUNK / STRIP / 8 };
static_assert((int)STRIP == (int)CU_SAMPLE_STRIP, "scratch.h");

/* ---- scratch of one row ---- */

/* The best of a chunk with a logit that is not finite: above those of all others. */
constexpr row_sum NOT_FINITE = ~0ull;

struct row_scratch {
    /* A best is (key << 32 | ~id): the highest is the highest key's lowest id. */
    row_sum *best, *original;     /* [n_chunks]; original: before the edits */
    row_sum *chunk_mass;          /* [n_chunks], at temperature 1 */
    row_sum *strip_mass;          /* [n_strips], at the row's temperature */
    uint32_t *strip_key, *active; /* [n_strips] */
    uint32_t n_chunks, n_strips;
};

CU_DEVICE row_scratch scratch_of(void *base, uint32_t n_vocab, uint32_t row) {
    row_scratch w;
    w.n_chunks = (n_vocab + CHUNK - 1) / CHUNK, w.n_strips = (n_vocab + STRIP - 1) / STRIP;
    const size_t bytes = ((size_t)w.n_chunks * 24 + (size_t)w.n_strips * 16 + 255) & ~255ull;
    w.best = (row_sum *)((char *)base + row * bytes);
    w.original = w.best + w.n_chunks;
    w.chunk_mass = w.original + w.n_chunks;
    w.strip_mass = w.chunk_mass + w.n_chunks;
    w.strip_key = (uint32_t *)(w.strip_mass + w.n_strips);
    w.active = w.strip_key + w.n_strips;
    return w;
}

/* ---- what is asked for ---- */

struct lists_of {
    const int32_t *words, *previous;
};

CU_DEVICE bool is_greedy(const tables_sampling &p) {
    return !(p.temperature >= SAMPLING_GREEDY) || p.top_k == 1;
}
CU_DEVICE bool is_greedy(const tables_score &) {
    return true;
}
/* As n_logprobs: -1 for none. */
CU_DEVICE int32_t logprobs_of(const tables_sampling &p) {
    return p.n_logprobs;
}
CU_DEVICE int32_t logprobs_of(const tables_score &p) {
    return p.n_top > 0 ? p.n_top : 0;
}
CU_DEVICE float scale_of(const tables_sampling &p) {
    return __fdiv_rn(1.44269504f, p.temperature);
}
CU_DEVICE float scale_of(const tables_score &) {
    return 1.44269504f;
}
CU_DEVICE bool cuts_top_k(const tables_sampling &p, uint32_t n_vocab) {
    return p.top_k > 0 && (uint32_t)p.top_k < n_vocab;
}
CU_DEVICE bool cuts_top_k(const tables_score &, uint32_t) {
    return false;
}
CU_DEVICE bool penalises(const tables_sampling &p) {
    return (p.n_history || p.history_from >= 0) &&
           (p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0);
}
CU_DEVICE bool edits(const tables_sampling &p) {
    return p.n_bias || p.n_end || penalises(p);
}
/* Whether scan may see -inf where the row has none. A score is of whatever the row holds, as
 * sampling_score's. */
CU_DEVICE bool may_forbid(const tables_sampling &p) {
    return p.n_allowed || edits(p);
}
CU_DEVICE bool may_forbid(const tables_score &) {
    return true;
}

/* ---- scan: the edits of one chunk ---- */

/* The best of tokens [first, end) that a warp's lanes hold between them. */
CU_DEVICE row_sum warp_best(row_sum v) {
    const uint32_t key = __reduce_max_sync(0xffffffffu, (uint32_t)(v >> 32));
    const uint32_t low = (uint32_t)(v >> 32) == key ? (uint32_t)v : 0;
    return (row_sum)key << 32 | __reduce_max_sync(0xffffffffu, low);
}
CU_DEVICE row_sum best_of(float logit, uint32_t id) {
    return (row_sum)row_key(logit) << 32 | (uint32_t)~id;
}

CU_DEVICE bool is_finite(float x) {
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

/* Thread 0 gets the best of the block. part: [SCAN_THREADS / 32], shared. */
CU_DEVICE row_sum block_best(row_sum v, row_sum *part) {
    v = warp_best(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    return warp_best(threadIdx.x % 32 < SCAN_THREADS / 32 ? part[threadIdx.x % 32] : 0);
}

/* A token that the list names twice is changed by the thread of its first entry, in order. */
CU_DEVICE void add_bias(float *logits, uint32_t first, uint32_t end, const int32_t *pairs,
                        uint32_t n) {
    for (uint32_t e = threadIdx.x; e < n; e += SCAN_THREADS) {
        const uint32_t token = (uint32_t)pairs[2 * e];
        if (token < first || token >= end) continue;
        uint32_t d = 0;
        while ((uint32_t)pairs[2 * d] != token) d++;
        if (d < e) continue;
        float l = logits[token];
        for (; d < n; d++)
            if ((uint32_t)pairs[2 * d] == token)
                l = __fadd_rn(l, __int_as_float(pairs[2 * d + 1]));
        logits[token] = l;
    }
    __syncthreads();
}

/* count: [CHUNK], shared: occurrences in the output, and the top bit for any at all. */
CU_DEVICE void penalise(float *logits, uint32_t first, uint32_t end, const tables_sampling &p,
                        const lists_of &lists, uint32_t *count) {
    for (uint32_t i = threadIdx.x; i < CHUNK; i += SCAN_THREADS) count[i] = 0;
    __syncthreads();
    const int32_t *history = lists.words + p.history_at;
    for (uint32_t i = threadIdx.x; i < p.n_history; i += SCAN_THREADS) {
        const uint32_t token = (uint32_t)history[i];
        if (token < first || token >= end) continue;
        atomicOr(&count[token - first], 0x80000000u);
        if (i >= p.n_prompt) atomicAdd(&count[token - first], 1u);
    }
    if (threadIdx.x == 0 && p.history_from >= 0) {
        const uint32_t token = (uint32_t)lists.previous[p.history_from];
        if (token >= first && token < end) {
            atomicOr(&count[token - first], 0x80000000u);
            atomicAdd(&count[token - first], 1u);
        }
    }
    __syncthreads();
    for (uint32_t id = first + threadIdx.x; id < end; id += SCAN_THREADS) {
        const uint32_t seen = count[id - first], times = seen & 0x7fffffffu;
        if (seen == 0) continue;
        float l = logits[id];
        l = l > 0 ? __fdiv_rn(l, p.repetition_penalty) : __fmul_rn(l, p.repetition_penalty);
        if (times) {
            l = __fsub_rn(l, __fmul_rn(p.frequency_penalty, (float)times));
            l = __fsub_rn(l, p.presence_penalty);
        }
        logits[id] = l;
    }
    __syncthreads();
}

/* first: a multiple of 32. */
CU_DEVICE void forbid(float *logits, uint32_t first, uint32_t end, const uint32_t *allowed) {
    for (uint32_t id = first + threadIdx.x; id < end; id += SCAN_THREADS)
        if (!(allowed[id / 32] >> id % 32 & 1)) logits[id] = -INFINITY;
    __syncthreads();
}

/* Changes tokens [first, end); *original: the best of them before. */
CU_DEVICE void edit_chunk(float *logits, uint32_t first, uint32_t end, const tables_sampling &p,
                          const lists_of &lists, uint32_t *count, row_sum *part,
                          row_sum *original) {
    row_sum best = 0;
    for (uint32_t id = first + threadIdx.x; id < end; id += SCAN_THREADS) {
        const row_sum b = best_of(logits[id], id);
        if (b > best) best = b;
    }
    best = block_best(best, part);
    if (threadIdx.x == 0) *original = best;
    if (p.n_bias) add_bias(logits, first, end, lists.words + p.bias_at, p.n_bias);
    if (penalises(p)) penalise(logits, first, end, p, lists, count);
    if (p.n_end)
        for (uint32_t i = threadIdx.x; i < p.n_end; i += SCAN_THREADS) {
            const uint32_t token = (uint32_t)lists.words[p.end_at + i];
            if (token >= first && token < end) logits[token] = -INFINITY;
        }
    __syncthreads();
}

/* The edits forbid by -inf, so they look before: the block's, whether its logits are finite. */
CU_DEVICE bool edit(float *logits, uint32_t first, uint32_t end, const tables_sampling &p,
                    const lists_of &lists, row_sum *part, row_sum *original) {
    CU_SHARED(uint32_t, count, CHUNK);
    bool finite = true;
    for (uint32_t id = first + threadIdx.x; id < end; id += SCAN_THREADS)
        finite &= is_finite(logits[id]);
    finite = __syncthreads_and(finite);
    if (p.n_allowed) forbid(logits, first, end, (const uint32_t *)lists.words + p.allowed_at);
    if (edits(p)) edit_chunk(logits, first, end, p, lists, count, part, original);
    return finite;
}
CU_DEVICE bool edit(float *, uint32_t, uint32_t, const tables_score &, const lists_of &,
                    row_sum *, row_sum *) {
    return true;
}

template <class P>
static __global__ void __launch_bounds__(SCAN_THREADS)
    k_scan(float *logits, uint32_t n_vocab, const P *params, lists_of lists, void *scratch) {
    cu_grid_trigger();
    cu_grid_wait();
    CU_SHARED(row_sum, part, SCAN_THREADS / 32);
    const P &p = params[blockIdx.y];
    if (p.logit_row < 0) return;
    const row_scratch w = scratch_of(scratch, n_vocab, blockIdx.y);
    float *row = logits + (size_t)p.logit_row * n_vocab;
    const uint32_t first = blockIdx.x * CHUNK, end = min(first + CHUNK, n_vocab);
    const bool as_it_is = !may_forbid(p);
    const bool finite =
        as_it_is || edit(row, first, end, p, lists, part, &w.original[blockIdx.x]);

    const uint32_t lane = threadIdx.x % 32;
    const uint32_t strip = first / STRIP + threadIdx.x / 32 * WARP_STRIPS;
    float4 v[WARP_STRIPS];
    row_sum best = 0;
#pragma unroll
    for (int i = 0; i < WARP_STRIPS; i++)
        v[i] = row_load4(row, (strip + i) * STRIP + lane * 4, n_vocab);
#pragma unroll
    for (int i = 0; i < WARP_STRIPS; i++) {
        const uint32_t id = (strip + i) * STRIP + lane * 4;
        const float x[4] = {v[i].x, v[i].y, v[i].z, v[i].w};
        row_sum mine = 0;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const bool wrong = as_it_is && id + k < n_vocab && !is_finite(x[k]);
            const row_sum b = wrong ? NOT_FINITE : best_of(x[k], id + k);
            if (b > mine) mine = b;
        }
        if (mine > best) best = mine;
        const uint32_t key = __reduce_max_sync(0xffffffffu, (uint32_t)(mine >> 32));
        if (lane == 0 && strip + i < w.n_strips) w.strip_key[strip + i] = key;
    }
    best = block_best(best, part);
    if (threadIdx.x == 0) w.best[blockIdx.x] = finite ? best : NOT_FINITE;
}

/* ---- mass ---- */

/* The best of a row out of those of its chunks; each warp for itself. */
CU_DEVICE row_sum row_best(const row_sum *chunks, uint32_t n) {
    row_sum best = 0;
    for (uint32_t i = threadIdx.x % 32; i < n; i += 32)
        if (chunks[i] > best) best = chunks[i];
    return warp_best(best);
}

template <class P>
static __global__ void __launch_bounds__(SCAN_THREADS)
    k_mass(const float *logits, uint32_t n_vocab, const P *params, void *scratch) {
    cu_grid_trigger();
    cu_grid_wait();
    CU_SHARED(row_sum, part, SCAN_THREADS / 32);
    const P &p = params[blockIdx.y];
    const bool scored = logprobs_of(p) >= 0, drawn = !is_greedy(p) && !cuts_top_k(p, n_vocab);
    if (p.logit_row < 0 || (!scored && !drawn)) return;
    const row_scratch w = scratch_of(scratch, n_vocab, blockIdx.y);
    const float *row = logits + (size_t)p.logit_row * n_vocab;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t strip = blockIdx.x * (CHUNK / STRIP) + warp * WARP_STRIPS;
    float4 v[WARP_STRIPS];
#pragma unroll
    for (int i = 0; i < WARP_STRIPS; i++)
        v[i] = row_load4(row, (strip + i) * STRIP + lane * 4, n_vocab);
    const row_sum highest = row_best(w.best, w.n_chunks);
    if (highest == NOT_FINITE) return;
    const float max = row_tamed(row_value((uint32_t)(highest >> 32)));
    const float scale = scale_of(p);
    row_sum score = 0;
#pragma unroll
    for (int i = 0; i < WARP_STRIPS; i++) {
        const float x[4] = {v[i].x, v[i].y, v[i].z, v[i].w};
        row_sum mass = 0;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (scored) score += row_mass(row_weight(x[k], max, 1.44269504f));
            if (drawn) mass += row_mass(row_weight(x[k], max, scale));
        }
        if (!drawn) continue;
        mass = warp_sum(mass);
        if (lane == 0 && strip + i < w.n_strips) w.strip_mass[strip + i] = mass;
    }
    if (!scored) return;
    score = warp_sum(score);
    if (lane == 0) part[warp] = score;
    __syncthreads();
    score = warp_sum(lane < SCAN_THREADS / 32 ? part[lane] : 0);
    if (threadIdx.x == 0) w.chunk_mass[blockIdx.x] = score;
}

/* ---- choose: logprobs ---- */

struct choice {
    select_row r;
    row_scratch w;
    float max;        /* tamed */
    uint32_t highest; /* its key */
};

/* log(sum(exp(logit - max))) */
CU_DEVICE double log_sum_of(const choice &c) {
    row_sum mass = 0;
    for (uint32_t i = threadIdx.x; i < c.w.n_chunks; i += blockDim.x) mass += c.w.chunk_mass[i];
    return row_log(row_sum_value(block_sum(c.r.s, mass)));
}

/* The n best, best first: collected in any order, each put where its rank says. */
CU_DEVICE void put_best(choice &c, uint32_t n, double log_sum, sampled *out) {
    CU_SHARED(row_sum, list, SAMPLING_MAX_LOGPROBS);
    select_shared *s = c.r.s;
    const select_cut cut = find_best(c.r, n, c.highest);
    if (threadIdx.x == 0) s->n = 0;
    __syncthreads();
    for_each(c.r, [&](uint32_t id, float l) {
        const uint32_t key = row_key(l);
        if (key >= KEY_LOWEST && cut_keeps(cut, key, id))
            list[atomicAdd(&s->n, 1u)] = best_of(l, id);
    });
    __syncthreads();
    const uint32_t have = s->n;
    if (threadIdx.x < have) {
        const row_sum mine = list[threadIdx.x];
        const uint32_t id = ~(uint32_t)mine;
        uint32_t rank = 0;
        for (uint32_t i = 0; i < have; i++) rank += list[i] > mine;
        out->top[rank].token = (int32_t)id;
        out->top[rank].logprob = row_logprob(c.r.logits[id], c.max, log_sum);
    }
    if (threadIdx.x == 0) out->n_top = (uint16_t)have;
    __syncthreads();
}

/* ---- choose: the draw ---- */

/* What the truncations left, asked of each element. */
struct alive {
    float max, scale, least;
    double sum, entropy; /* typical_p's */
    select_cut top_k, typical, top_p;
    bool by_k, by_typical, by_p;
};

CU_DEVICE uint32_t typical_key(const alive &a, float w) {
    const float surprisal = (float)-row_log((double)w / a.sum);
    return ~row_key(fabsf((float)((double)surprisal - a.entropy)));
}

/* The element's weight; 0 when it is out. */
CU_DEVICE float weight_left(const alive &a, uint32_t id, float l) {
    if (a.by_k && !cut_keeps(a.top_k, row_key(l), id)) return 0;
    const float w = row_weight(l, a.max, a.scale);
    if (!(w > 0) || w < a.least) return 0;
    if (a.by_typical && !cut_keeps(a.typical, typical_key(a, w), id)) return 0;
    if (a.by_p && !cut_keeps(a.top_p, __float_as_uint(w), id)) return 0;
    return w;
}

CU_DEVICE row_sum mass_left(const choice &c, const alive &a) {
    row_sum sum = 0;
    for_each(c.r, [&](uint32_t id, float l) { sum += row_mass(weight_left(a, id, l)); });
    return block_sum(c.r.s, sum);
}

/* The strips that can hold a weight of least or more. */
CU_DEVICE void choose_heavy(choice &c, const alive &a, float least) {
    choose_strips(c.r, [&](uint32_t key) {
        return key > KEY_MINUS_INF && row_weight(row_value(key), a.max, a.scale) >= least;
    });
}

CU_DEVICE void cut_typical(choice &c, alive &a, float typical_p) {
    const row_sum mass = mass_left(c, a);
    if (mass == 0) return;
    a.sum = row_sum_value(mass);
    row_sum units = 0; /* of 2^-44, signed */
    for_each(c.r, [&](uint32_t id, float l) {
        const float w = weight_left(a, id, l);
        if (!(w > 0)) return;
        const double p = (double)w / a.sum;
        units += (row_sum)(long long)(p * (double)(float)-row_log(p) * 0x1p44);
    });
    a.entropy = (double)(long long)block_sum(c.r.s, units) * 0x1p-44;
    a.typical = find_cut(
        c.r,
        [&](auto add) {
            for_each(c.r, [&](uint32_t id, float l) {
                const float w = weight_left(a, id, l);
                if (w > 0) add(id, typical_key(a, w), row_mass(w));
            });
        },
        0, 0x7fffffffu, row_share(typical_p, mass));
    a.by_typical = true;
}

/* sum: the mass left before. See model/sampling.c for why none below `least` is needed. */
CU_DEVICE void cut_top_p(choice &c, alive &a, float top_p, row_sum sum) {
    const row_sum target = row_share(top_p, sum);
    const row_sum spare = sum > target ? (sum - target) / c.r.n : 0;
    float least = spare > 1 ? (float)((double)(spare - 1) * (0x1p-39 * 0.999)) : 0;
    if (!(least > FLT_MIN)) least = FLT_MIN;
    if (!a.by_k) choose_heavy(c, a, least);
    a.top_p = find_cut(
        c.r,
        [&](auto add) {
            for_each(c.r, [&](uint32_t id, float l) {
                const float w = weight_left(a, id, l);
                if (w >= least) add(id, __float_as_uint(w), row_mass(w));
            });
        },
        __float_as_uint(least), 0x3f800000u, target);
    a.by_p = true;
}

CU_DEVICE void cut_min_p(choice &c, alive &a, float min_p) {
    uint32_t bits = 0; /* of positive floats are in order */
    for_each(c.r, [&](uint32_t id, float l) {
        bits = max(bits, __float_as_uint(weight_left(a, id, l)));
    });
    bits = __reduce_max_sync(0xffffffffu, bits);
    select_shared *s = c.r.s;
    if (threadIdx.x == 0) s->n = 0;
    __syncthreads();
    if (threadIdx.x % 32 == 0) atomicMax(&s->n, bits);
    __syncthreads();
    const float least = __fmul_rn(min_p < 1 ? min_p : 1.0f, __uint_as_float(s->n));
    a.least = least > FLT_MIN ? least : FLT_MIN;
    if (!a.by_k) choose_heavy(c, a, a.least);
    __syncthreads();
}

/* The strip at which the running sum of strip_mass[0..n) exceeds target (< their sum), and the
 * sum before it. */
CU_DEVICE uint32_t pick_strip(select_shared *s, const row_sum *strip_mass, uint32_t n,
                              row_sum target, row_sum *before) {
    const uint32_t each = (n + blockDim.x - 1) / blockDim.x;
    uint32_t i = min(threadIdx.x * each, n), end = min(i + each, n);
    row_sum sum = 0, total;
    for (uint32_t k = i; k < end; k++) sum += strip_mass[k];
    row_sum run = block_scan(s, sum, &total);
    if (run <= target && target - run < sum) {
        while (run + strip_mass[i] <= target) run += strip_mass[i++];
        s->found = i, s->kept = run;
    }
    __syncthreads();
    *before = s->kept;
    return s->found;
}

/* Where the running sum of a strip's masses exceeds target; a whole warp. */
CU_DEVICE uint32_t pick_in_strip(const choice &c, const alive &a, uint32_t strip,
                                 row_sum target) {
    const uint32_t id = strip * STRIP + threadIdx.x % 32 * 4;
    const float4 v = row_load4(c.r.logits, id, c.r.n);
    const float x[4] = {v.x, v.y, v.z, v.w};
    row_sum mass[4], sum = 0;
#pragma unroll
    for (int k = 0; k < 4; k++)
        sum += mass[k] = id + k < c.r.n ? row_mass(weight_left(a, id + k, x[k])) : 0;
    row_sum run = warp_scan(sum) - sum;
    const bool here = run <= target && target - run < sum;
    uint32_t at = id;
    for (int k = 0; here && run + mass[k] <= target; k++) run += mass[k], at++;
    const uint32_t lane = __ffs((int)__ballot_sync(0xffffffffu, here)) - 1;
    return __shfl_sync(0xffffffffu, at, (int)lane);
}

/* The lowest id left, for sums of 0. */
CU_DEVICE uint32_t lowest_left(const choice &c, const alive &a) {
    select_shared *s = c.r.s;
    if (threadIdx.x == 0) s->lowest = 0xffffffffu;
    __syncthreads();
    for_each(c.r, [&](uint32_t id, float l) {
        if (weight_left(a, id, l) > 0) atomicMin(&s->lowest, id);
    });
    __syncthreads();
    return s->lowest < c.r.n ? s->lowest : 0;
}

CU_DEVICE uint32_t pick(choice &c, const alive &a, const tables_sampling &p, bool cut) {
    const uint32_t lane = threadIdx.x % 32;
    if (cut) { /* masses of the active strips; a warp does a strip */
        for (uint32_t i = threadIdx.x / 32; i < c.r.n_active; i += blockDim.x / 32) {
            const uint32_t id = c.r.active[i] * STRIP + lane * 4;
            const float4 v = row_load4(c.r.logits, id, c.r.n);
            row_sum mass = row_mass(weight_left(a, id, v.x));
            mass += row_mass(weight_left(a, id + 1, v.y));
            mass += row_mass(weight_left(a, id + 2, v.z));
            mass += row_mass(weight_left(a, id + 3, v.w));
            mass = warp_sum(mass);
            if (lane == 0) c.w.strip_mass[i] = mass;
        }
        __syncthreads();
    }
    row_sum sum = 0, before;
    for (uint32_t i = threadIdx.x; i < c.r.n_active; i += blockDim.x) sum += c.w.strip_mass[i];
    sum = block_sum(c.r.s, sum);
    if (sum == 0) return lowest_left(c, a);
    const row_sum target = __umul64hi(row_random(p.seed, p.position) << 11, sum);
    const uint32_t i = pick_strip(c.r.s, c.w.strip_mass, c.r.n_active, target, &before);
    return pick_in_strip(c, a, c.r.active[i], target - before);
}

CU_DEVICE uint32_t draw(choice &c, const tables_sampling &p) {
    alive a = {};
    a.max = c.max, a.scale = scale_of(p);
    if (cuts_top_k(p, c.r.n)) {
        a.top_k = find_best(c.r, (uint32_t)p.top_k, c.highest);
        a.top_k.key = max(a.top_k.key, (uint32_t)KEY_LOWEST);
        a.by_k = true;
    } else {
        choose_strips(c.r, [](uint32_t) { return true; });
    }
    if (p.typical_p < 1) cut_typical(c, a, p.typical_p);
    if (p.top_p < 1) {
        row_sum sum = 0;
        if (a.by_k || a.by_typical) {
            sum = mass_left(c, a);
        } else {
            for (uint32_t i = threadIdx.x; i < c.r.n_strips; i += blockDim.x)
                sum += c.w.strip_mass[i];
            sum = block_sum(c.r.s, sum);
        }
        cut_top_p(c, a, p.top_p, sum);
    }
    if (p.min_p > 0) cut_min_p(c, a, p.min_p);
    return pick(c, a, p, a.by_k || a.by_typical || a.by_p || a.least > 0);
}
CU_DEVICE uint32_t draw(choice &, const tables_score &) {
    return 0;
}

/* ---- choose ---- */

/* The token of a row that has something left, before a draw; and of one that has not. */
CU_DEVICE int32_t token_without_draw(const tables_sampling &p, const row_scratch &w,
                                     row_sum best) {
    if ((uint32_t)(best >> 32) <= KEY_MINUS_INF && edits(p))
        best = row_best(w.original, w.n_chunks);
    if ((uint32_t)(best >> 32) > KEY_MINUS_INF) return (int32_t) ~(uint32_t)best;
    return p.n_allowed ? -1 : 0;
}
CU_DEVICE int32_t token_without_draw(const tables_score &p, const row_scratch &, row_sum) {
    return p.token;
}

CU_DEVICE void clear_result(sampled *out, float logprob) {
    if (threadIdx.x == 0) out->logprob = logprob, out->n_top = 0;
    if (threadIdx.x < SAMPLING_MAX_LOGPROBS) out->top[threadIdx.x] = token_prob{0, 0.0f};
    __syncthreads();
}

template <class P>
static __global__ void __launch_bounds__(1024)
    k_choose(const float *logits, uint32_t n_vocab, const P *params, void *scratch,
             sampled *results, int32_t *drawn) {
    cu_grid_trigger();
    cu_grid_wait();
    CU_SHARED(select_shared, shared, 1);
    const P &p = params[blockIdx.x];
    if (p.logit_row < 0) {
        if (drawn && threadIdx.x == 0) drawn[blockIdx.x] = -1;
        return;
    }
    choice c;
    c.w = scratch_of(scratch, n_vocab, blockIdx.x);
    c.r = select_row{shared,
                     logits + (size_t)p.logit_row * n_vocab,
                     n_vocab,
                     c.w.n_strips,
                     c.w.strip_key,
                     c.w.active,
                     0};
    sampled *out = &results[blockIdx.x];
    const row_sum best = row_best(c.w.best, c.w.n_chunks);
    const bool left = (uint32_t)(best >> 32) > KEY_MINUS_INF;
    const int32_t n_top = logprobs_of(p);
    double log_sum = 0;
    c.highest = (uint32_t)(best >> 32);
    c.max = left ? row_tamed(row_value(c.highest)) : -INFINITY;
    clear_result(out, n_top >= 0 ? -INFINITY : __uint_as_float(0x7fc00000u));
    if (best == NOT_FINITE) {
        if (threadIdx.x == 0) out->token = SAMPLING_NOT_FINITE;
        if (drawn && threadIdx.x == 0) drawn[blockIdx.x] = -1;
        return;
    }
    if (n_top >= 0 && left) {
        log_sum = log_sum_of(c);
        if (n_top > 0) put_best(c, min(n_top, SAMPLING_MAX_LOGPROBS), log_sum, out);
    }
    int32_t token = token_without_draw(p, c.w, best);
    if (left && !is_greedy(p)) token = (int32_t)draw(c, p);
    if (threadIdx.x != 0) return;
    out->token = token;
    if (drawn) drawn[blockIdx.x] = token;
    if (n_top >= 0 && (uint32_t)token < n_vocab)
        out->logprob = row_logprob(c.r.logits[token], c.max, log_sum);
}

/* ---- entry points ---- */

/* Small vocabularies (of tests) need few threads. */
static uint32_t choose_threads(uint32_t n_vocab) {
    return n_vocab <= 8192 ? 128 : 1024;
}

template <class P>
static cudaError_t sample_rows(cudaStream_t s, const cu_logits *x, const P *p,
                               const int32_t *lists, uint32_t n, sampled *out, int32_t *drawn) {
    if (x->n_vocab == 0 || n > 65535) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    const dim3 grid((x->n_vocab + CHUNK - 1) / CHUNK, n);
    CU_LAUNCH_EARLY((k_scan<P>), grid, SCAN_THREADS, 0, s, x->row, x->n_vocab, p,
                    (lists_of{lists, drawn}), x->scratch);
    CU_LAUNCH_EARLY((k_mass<P>), grid, SCAN_THREADS, 0, s, x->row, x->n_vocab, p, x->scratch);
    CU_LAUNCH_EARLY((k_choose<P>), n, choose_threads(x->n_vocab), 0, s, x->row, x->n_vocab, p,
                    x->scratch, out, drawn);
    return cudaGetLastError();
}

cudaError_t cu_sample(cudaStream_t s, const cu_logits *x, const tables_sampling *p,
                      const int32_t *lists, uint32_t n_seqs, sampled *out, int32_t *drawn) {
    return sample_rows(s, x, p, lists, n_seqs, out, drawn);
}

cudaError_t cu_score_rows(cudaStream_t s, const cu_logits *x, const tables_score *p, uint32_t n,
                          sampled *out) {
    return sample_rows(s, x, p, (const int32_t *)NULL, n, out, (int32_t *)NULL);
}
