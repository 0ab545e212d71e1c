/* Attention of ragged batches on the device (or the shim) and in float64 on the host, for the
 * tests of the two attention kernels. A sequence's q, K and V come from its seed and positions
 * alone, so that it is the same sequence in any batch and any chunk. Whatever nothing may read
 * is NaN: unused slots and blocks, slots below a window, the k and v columns of qkv. */
#ifndef VRAMD_TESTS_CUDA_ATTN_RIG_H
#define VRAMD_TESTS_CUDA_ATTN_RIG_H

#include <math.h>
#include <string.h>
#include <vector>

#include "base/half.h"
#include "engine/cuda/kv_codes.cuh"
#include "tests/check_main.h"

#define CUDA_OK(call)                                                                          \
    do {                                                                                       \
        cudaError_t e_ = (call);                                                               \
        if (e_ != cudaSuccess) ck_abort_msg("%s: %s", #call, cudaGetErrorString(e_));          \
    } while (0)

struct rig_model {
    uint32_t head_dim, n_kv_heads, group, window;
    cu_type t, kv;
    uint32_t block_tokens;
    dtype code = DT_NONE;   /* a cache of codes, and kv what they become */
    dtype v_code = DT_NONE; /* of V, where it is another */
    float cap = 0;          /* of the scores */
    bool sinks = false;
    bool coded() const { return code != DT_NONE; }
    dtype code_of_v() const { return v_code == DT_NONE ? code : v_code; }
    bool tailed() const { return coded() && kv_has_tail(code, code_of_v()); }
    /* Codes that have kernels of their own, whose tiles are divided by what is nearly sqrt(n). */
    bool bytes() const { return code_of_v() == code && !tailed(); }
    kv_format format() const {
        const dtype number = kv == CU_BF16 ? DT_BF16 : DT_F16;
        kv_format f;
        kv_format_init(&f, KV_ROWS, kv_type_get(coded() ? code : number),
                       kv_type_get(coded() ? code_of_v() : number), block_tokens, n_kv_heads,
                       head_dim);
        return f;
    }
    kv_format tail_format() const {
        const kv_format of = format();
        const kv_type k = kv_tail_type(&of.k), v = kv_tail_type(&of.v);
        kv_format f;
        kv_format_init(&f, KV_ROWS, &k, &v, block_tokens, n_kv_heads, head_dim);
        return f;
    }
    uint32_t n_heads() const { return n_kv_heads * group; }
    float scale() const { return 1.5f / sqrtf((float)head_dim); }
    /* Below, among and above the scores. */
    static float sink(uint32_t head) { return 3 * sinf(1.7f * (float)head) + 1; }
};

struct rig_entry {
    int seed, first_pos, n_rows;
};

/* ---- numbers of a sequence */

enum { RIG_Q, RIG_K, RIG_V };

static inline float rig_value(int seed, int what, int pos, uint32_t head, uint32_t d) {
    uint64_t x = ((uint64_t)seed << 40) + ((uint64_t)what << 62) + ((uint64_t)pos << 18) +
                 (head << 10) + d;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull + 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    x ^= x >> 31;
    float sum = 0; /* of four uniform ones: near enough to normal */
    for (int i = 0; i < 4; i++) sum += (float)(x >> 16 * i & 0xffff) / 65536.0f - 0.5f;
    return sum * 1.7320508f;
}
static inline uint16_t rig_round(cu_type t, float v) {
    return t == CU_BF16 ? bf16_of_float(v) : half_of_float(v);
}
static inline float rig_widen(cu_type t, uint16_t v) {
    return t == CU_BF16 ? bf16_to_float(v) : half_to_float(v);
}
/* A head's K or V in a cache of codes: the codes, a byte each, and the word of each segment. */
struct rig_codes {
    std::vector<uint8_t> code;
    std::vector<uint16_t> word;
};
static inline rig_codes rig_encode(const rig_model &m, int seed, int what, int pos,
                                   uint32_t head) {
    const kv_format f = m.format();
    const kv_type &type = what == RIG_V ? f.v : f.k;
    const uint32_t n = what == RIG_V ? f.v_segment : f.k_segment;
    rig_codes c;
    c.code.resize(m.head_dim);
    for (uint32_t d = 0; d < m.head_dim; d += n) {
        float x[64];
        for (uint32_t i = 0; i < n; i++) x[i] = rig_value(seed, what, pos, head, d + i);
        c.word.push_back(kv_encode(&type, x, n, &c.code[d]));
    }
    return c;
}
/* A head's numbers in 16 bits: rotated where the cache's are, times turn. */
static inline std::vector<double> rig_rounded(const rig_model &m, cu_type t, int seed, int what,
                                              int pos, uint32_t head, double turn) {
    const kv_format f = m.format();
    const uint32_t n = what == RIG_V ? f.v_segment : f.k_segment;
    std::vector<double> x(m.head_dim);
    std::vector<float> y(m.head_dim);
    for (uint32_t d = 0; d < m.head_dim; d++) y[d] = rig_value(seed, what, pos, head, d);
    if (what == RIG_V ? f.v.rotated : f.k.rotated)
        for (uint32_t d = 0; d < m.head_dim; d += n) kv_hadamard(&y[d], n);
    for (uint32_t d = 0; d < m.head_dim; d++)
        x[d] = rig_widen(t, rig_round(t, y[d] * (float)turn));
    return x;
}
static inline std::vector<double> rig_q(const rig_model &m, int seed, int pos, uint32_t head) {
    const kv_format f = m.format();
    return rig_rounded(m, m.t, seed, RIG_Q, pos, head,
                       f.k.rotated ? kv_turn_scale(f.k_segment) : 1);
}
/* A head's K or V as the query at a position multiplies it: from the tail, or as it is in the
 * cache, and from codes as attention's tiles have them. */
static inline std::vector<double> rig_numbers(const rig_model &m, int seed, int what, int pos,
                                              uint32_t head, int query) {
    if (!m.coded() || (m.tailed() && query - pos < KV_TAIL_TOKENS))
        return rig_rounded(m, m.kv, seed, what, pos, head, 1);
    const kv_format f = m.format();
    const kv_type &type = what == RIG_V ? f.v : f.k;
    const uint32_t n = what == RIG_V ? f.v_segment : f.k_segment;
    const double turn = type.rotated && m.bytes() ? kv_turn_scale(n) : 1;
    const rig_codes c = rig_encode(m, seed, what, pos, head);
    std::vector<double> x(m.head_dim);
    for (uint32_t d = 0; d < m.head_dim; d++) {
        const kv_scale s = kv_scale_of(type.type, c.word[d / n]);
        x[d] = ((double)kv_code_value(type.type, c.code[d]) - s.z) * s.d * turn;
    }
    return x;
}
static inline int rig_lo(const rig_model &m, int pos) {
    return m.window && pos >= (int)m.window ? pos - (int)m.window + 1 : 0;
}

/* ---- a batch on the device */

template <class T> struct rig_array {
    T *at = nullptr;
    size_t n = 0;
    rig_array() {}
    rig_array(const rig_array &) = delete;
    ~rig_array() {
        if (at) cudaFree(at);
    }
    void put(const std::vector<T> &v) {
        if (n < v.size()) {
            if (at) cudaFree(at);
            n = v.size();
            CUDA_OK(cudaMalloc((void **)&at, n * sizeof(T)));
        }
        CUDA_OK(cudaMemcpy(at, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice));
        CUDA_OK(cudaDeviceSynchronize()); /* see device::put in rig.h */
    }
    std::vector<T> get(size_t count) const {
        std::vector<T> v(count);
        CUDA_OK(cudaMemcpy(v.data(), at, count * sizeof(T), cudaMemcpyDeviceToHost));
        return v;
    }
};

enum : uint16_t { RIG_NAN = 0xffff, RIG_UNTOUCHED = 0x7a5b };

struct rig {
    rig_model m;
    std::vector<rig_entry> entries;
    uint32_t n_rows = 0, table_stride = 1;
    std::vector<int32_t> table, tail_table;
    uint32_t n_blocks = 0, n_tail_blocks = 0;
    rig_array<uint16_t> qkv, kv, tail, out;
    rig_array<int32_t> first_row, rows, first_pos, blocks, tail_blocks, tiles;
    rig_array<float> partials, sinks;
    rig_array<uint32_t> arrived;
    cudaStream_t stream;
    cu_attn attn;
    cu_tables tables;

    rig(const rig_model &model, const std::vector<rig_entry> &e) : m(model), entries(e) {
        CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        put_tables();
        put_cache();
        put_rows();
        attn = cu_attn();
        attn.kv.base = kv.at;
        attn.kv.block_stride = block_elements(m.format()) * 2;
        attn.kv.format = m.format();
        attn.kv.type = m.kv;
        attn.kv.group = 1;
        attn.t = m.t;
        attn.qkv = qkv.at;
        attn.ld = ld();
        attn.out = out.at;
        attn.n_heads = m.n_heads();
        attn.scale = m.scale();
        attn.window = m.window;
        attn.cap = m.cap;
        arrived.put(std::vector<uint32_t>(entries.size() * m.n_heads()));
        attn.codes.arrived = arrived.at;
        if (m.sinks) {
            std::vector<float> of_heads;
            for (uint32_t h = 0; h < m.n_heads(); h++) of_heads.push_back(m.sink(h));
            sinks.put(of_heads);
            attn.sinks = sinks.at;
        }
        if (m.tailed())
            attn.tail = {tail.at, block_elements(m.tail_format()) * 2, m.tail_format(), CU_F16,
                         3};
        tables = cu_tables();
        tables.first_row = first_row.at;
        tables.n_rows = rows.at;
        tables.first_pos = first_pos.at;
        tables.blocks[1] = blocks.at;
        tables.blocks[3] = tail_blocks.at;
        tables.table_stride = table_stride;
    }
    ~rig() { cudaStreamDestroy(stream); }

    uint32_t ld() const { return (m.n_heads() + 2 * m.n_kv_heads) * m.head_dim + 8; }
    static uint64_t block_elements(const kv_format &f) { /* with a gap: strides are not sizes */
        return (f.layer_bytes / 2 + 127) / 128 * 128 + 128;
    }
    /* The first position that any row of an entry reads in the cache or in the tail. */
    int lo(const rig_entry &e, bool in_tail) const {
        const int lo = rig_lo(m, e.first_pos);
        return in_tail ? std::max(lo, e.first_pos - KV_TAIL_TOKENS + 1) : lo;
    }
    int last(const rig_entry &e) const { return e.first_pos + e.n_rows - 1; }
    int context() const {
        int most = 1;
        for (const rig_entry &e : entries) most = std::max(most, last(e) + 1);
        return most;
    }

    /* Blocks in an order of no meaning; -1 below windows and where there is no sequence. Returns
     * how many there are. */
    uint32_t fill_table(std::vector<int32_t> &to, bool in_tail) {
        to.assign(entries.size() * table_stride, -1);
        std::vector<size_t> places;
        for (size_t i = 0; i < entries.size(); i++)
            for (int p = lo(entries[i], in_tail); p <= last(entries[i]); p++)
                if (size_t at = i * table_stride + (uint32_t)p / m.block_tokens; to[at] < 0) {
                    to[at] = 0;
                    places.push_back(at);
                }
        for (size_t i = 0; i < places.size(); i++) to[places[i]] = (int32_t)i;
        for (size_t i = places.size(); i > 1; i--)
            std::swap(to[places[i - 1]], to[places[(i * i + 7919) % i]]);
        return (uint32_t)places.size() + 1;
    }

    void put_tables() {
        table_stride = ((uint32_t)context() + m.block_tokens - 1) / m.block_tokens + 1;
        std::vector<int32_t> fr, nr, fp;
        for (const rig_entry &e : entries) {
            fr.push_back((int32_t)n_rows);
            nr.push_back(e.n_rows);
            fp.push_back(e.first_pos);
            n_rows += (uint32_t)e.n_rows;
        }
        n_blocks = fill_table(table, false);
        first_row.put(fr), rows.put(nr), first_pos.put(fp), blocks.put(table);
        if (!m.tailed()) return;
        n_tail_blocks = fill_table(tail_table, true);
        tail_blocks.put(tail_table);
    }

    /* K and V of a token and head into the head's part of its block: numbers, in 16 bits. */
    void put_numbers(unsigned char *part, const kv_format &f, int seed, int p, uint32_t h) {
        const uint32_t token = (uint32_t)p % m.block_tokens;
        const std::vector<double> k = rig_rounded(m, m.kv, seed, RIG_K, p, h, 1),
                                  v = rig_rounded(m, m.kv, seed, RIG_V, p, h, 1);
        for (uint32_t d = 0; d < m.head_dim; d++) {
            *(uint16_t *)(part + kv_k_code(&f, token, d).at) = rig_round(m.kv, (float)k[d]);
            *(uint16_t *)(part + kv_v_code(&f, token, d).at) = rig_round(m.kv, (float)v[d]);
        }
    }

    static void put_code(unsigned char *part, const kv_place &p, uint32_t bits, uint8_t code) {
        const uint32_t mask = bits == 4 ? 15u << p.shift : 255u;
        part[p.at] = (uint8_t)((part[p.at] & ~mask) | (uint32_t)code << p.shift);
    }

    void put_codes(unsigned char *part, const kv_format &f, int seed, int p, uint32_t h) {
        const uint32_t token = (uint32_t)p % m.block_tokens;
        const rig_codes k = rig_encode(m, seed, RIG_K, p, h),
                        v = rig_encode(m, seed, RIG_V, p, h);
        for (uint32_t d = 0; d < m.head_dim; d++) {
            put_code(part, kv_k_code(&f, token, d), f.k.bits, k.code[d]);
            put_code(part, kv_v_code(&f, token, d), f.v.bits, v.code[d]);
        }
        for (uint32_t s = 0; s < f.k_segments; s++)
            *(uint16_t *)(part + kv_k_word_at(&f, s, token)) = k.word[s];
        for (uint32_t s = 0; s < f.v_segments; s++)
            *(uint16_t *)(part + kv_v_word_at(&f, s, token)) = v.word[s];
    }

    std::vector<uint16_t> cache_of(const kv_format &f, uint32_t n,
                                   const std::vector<int32_t> &of, bool in_tail) {
        std::vector<uint16_t> c(n * block_elements(f), RIG_NAN);
        for (size_t i = 0; i < entries.size(); i++)
            for (int p = lo(entries[i], in_tail); p <= last(entries[i]); p++) {
                const int32_t block = of[i * table_stride + (uint32_t)p / m.block_tokens];
                unsigned char *at = (unsigned char *)&c[(uint32_t)block * block_elements(f)];
                for (uint32_t h = 0; h < m.n_kv_heads; h++)
                    if (m.coded() && !in_tail)
                        put_codes(at + h * f.part_bytes, f, entries[i].seed, p, h);
                    else
                        put_numbers(at + h * f.part_bytes, f, entries[i].seed, p, h);
            }
        return c;
    }

    void put_cache() {
        kv.put(cache_of(m.format(), n_blocks, table, false));
        if (m.tailed()) tail.put(cache_of(m.tail_format(), n_tail_blocks, tail_table, true));
    }

    void put_rows() {
        std::vector<uint16_t> q((size_t)n_rows * ld() + 8, RIG_NAN);
        size_t row = 0;
        for (const rig_entry &e : entries)
            for (int r = 0; r < e.n_rows; r++, row++)
                for (uint32_t h = 0; h < m.n_heads(); h++) {
                    const std::vector<double> x = rig_q(m, e.seed, e.first_pos + r, h);
                    for (uint32_t d = 0; d < m.head_dim; d++)
                        q[row * ld() + h * m.head_dim + d] = rig_round(m.t, (float)x[d]);
                }
        qkv.put(q);
        out.put(std::vector<uint16_t>(out_elements() + 8, RIG_UNTOUCHED));
    }
    size_t out_elements() const { return (size_t)n_rows * m.n_heads() * m.head_dim; }

    /* ---- runs; each gives [n_rows][n_heads * head_dim] of T, untouched where not written */

    std::vector<uint16_t> decode(uint32_t more_splits = 0) {
        uint32_t n = (uint32_t)entries.size(),
                 splits = cu_attn_splits(n, (uint32_t)context()) + more_splits;
        partials.put(std::vector<float>(
            cu_attn_decode_bytes(n, splits, m.n_heads(), m.head_dim) / 4, NAN));
        CUDA_OK(cu_attn_decode(stream, &attn, &tables, n, splits, partials.at));
        std::vector<uint16_t> v = finish();
        for (uint32_t count : arrived.get(n * m.n_heads())) ck_assert_uint_eq(count, 0);
        return v;
    }

    /* Tiles of every entry of at least min_rows rows, step rows apart, from the last entry. */
    std::vector<uint16_t> prefill(int min_rows = 1, int step = CU_PREFILL_TILE) {
        std::vector<int32_t> t;
        for (int i = (int)entries.size() - 1; i >= 0; i--)
            for (int r = 0; r < entries[i].n_rows && entries[i].n_rows >= min_rows; r += step)
                t.push_back(i), t.push_back(r);
        tiles.put(t);
        CUDA_OK(cu_attn_prefill(stream, &attn, &tables, tiles.at, (uint32_t)(t.size() / 2)));
        return finish();
    }

    std::vector<uint16_t> finish() {
        CUDA_OK(cudaStreamSynchronize(stream));
        std::vector<uint16_t> v = out.get(out_elements() + 8);
        for (int i = 0; i < 8; i++) ck_assert_uint_eq(v[out_elements() + i], RIG_UNTOUCHED);
        v.resize(out_elements());
        return v;
    }
};

/* ---- float64 */

struct rig_error {
    double sum = 0, allowed = 0; /* of squares: errors, and what rounding alone would give */
    size_t n = 0;
};

/* One row and head against softmax(q k^T scale) v in float64 on the rounded inputs, with the cap
 * and the sink of the model.
 * Each weight is rounded to the cache's type (relative 2^-8 or 2^-11, f16 weights below 2^-14
 * by 2^-25), the result to T; where q had to become the cache's type, the scores moved, too: by
 * at most u sum |q k| scale; codes become f16, which moves scores and values alike. The bound is the sum of these; their signs are random, so the root
 * of the mean square must stay below half of the first two alone (when q is not converted). */
static inline void rig_check_head(const rig_model &m, int seed, int pos, uint32_t head,
                                  const uint16_t *got, rig_error *err) {
    double u_e = m.kv == CU_BF16 ? 0x1p-8 : 0x1p-11, u_t = m.t == CU_BF16 ? 0x1p-8 : 0x1p-11;
    int lo = rig_lo(m, pos);
    uint32_t kv_head = head / m.group;
    const kv_format f = m.format();
    const double turn = kv_turn_scale(f.k_segment),
                 back = m.bytes() ? kv_score_scale(f.k_segment) : 1 / (turn * f.k_segment),
                 scale = m.scale() * (f.k.rotated ? back : 1);
    std::vector<double> s, v(m.head_dim), a(m.head_dim);
    const std::vector<double> q = rig_q(m, seed, pos, head);
    double top = -INFINITY, moved = 0, l = 0;
    for (int p = lo; p <= pos; p++) {
        const std::vector<double> k = rig_numbers(m, seed, RIG_K, p, kv_head, pos);
        double x = 0, y = 0;
        for (uint32_t d = 0; d < m.head_dim; d++) x += q[d] * k[d], y += fabs(q[d] * k[d]);
        s.push_back(m.cap > 0 ? m.cap * tanh(x * scale / m.cap) : x * scale);
        top = fmax(top, s.back()), moved = fmax(moved, y * scale);
    }
    if (m.sinks) l = exp(m.sink(head) - top);
    for (int p = lo; p <= pos; p++) {
        const std::vector<double> x = rig_numbers(m, seed, RIG_V, p, kv_head, pos);
        double w = exp(s[p - lo] - top);
        l += w;
        for (uint32_t d = 0; d < m.head_dim; d++) v[d] += w * x[d], a[d] += w * fabs(x[d]);
    }
    const int rounded = (m.t != m.kv) + m.coded(); /* of q and of k */
    double q_err = expm1(2 * u_e * rounded * moved), tiny = 0x1p-25 * (pos - lo + 1) * 4;
    if (m.coded()) q_err += u_e;
    for (uint32_t d = 0; d < m.head_dim; d++) {
        double x = rig_widen(m.t, got[d]), want = v[d] / l, e = fabs(x - want);
        double weights = (u_e + 2e-5) * a[d] / l + tiny, round = u_t * fabs(want);
        if (!(e <= weights + round + q_err * a[d] / l))
            ck_abort_msg("seed %d position %d head %u dimension %u: %g, not %g", seed, pos,
                         head, d, x, want);
        err->sum += e * e, err->allowed += (weights + round) * (weights + round), err->n++;
    }
}

/* Rows of the entries for which computed(e) holds; the others must be untouched. every: looks
 * at each so many-th (row, head). */
template <class F>
static inline void rig_check(const rig &r, const std::vector<uint16_t> &out, F computed,
                             int every = 1) {
    rig_error err;
    size_t row = 0, width = r.m.n_heads() * r.m.head_dim;
    int count = 0;
    for (const rig_entry &e : r.entries)
        for (int i = 0; i < e.n_rows; i++, row++) {
            const uint16_t *got = &out[row * width];
            if (!computed(e))
                for (size_t c = 0; c < width; c++) SWEEP(got[c] == RIG_UNTOUCHED);
            for (uint32_t h = 0; computed(e) && h < r.m.n_heads(); h++)
                if (count++ % every == 0)
                    rig_check_head(r.m, e.seed, e.first_pos + i, h, got + h * r.m.head_dim,
                                   &err);
        }
    if (r.m.t == r.m.kv && !r.m.coded() && err.n > 1000)
        ck_assert_double_le(err.sum, err.allowed / 4);
}

static inline bool rig_all(const rig_entry &) {
    return true;
}
static inline bool rig_single(const rig_entry &e) {
    return e.n_rows == 1;
}

/* Rows [from, from + n) of an entry. */
static inline std::vector<uint16_t> rig_rows(const rig &r, const std::vector<uint16_t> &out,
                                             size_t entry, int from, int n) {
    size_t row = (size_t)from, width = r.m.n_heads() * r.m.head_dim;
    for (size_t i = 0; i < entry; i++) row += (size_t)r.entries[i].n_rows;
    return std::vector<uint16_t>(out.begin() + (long)(row * width),
                                 out.begin() + (long)((row + (size_t)n) * width));
}

#endif
