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
    dtype code = DT_NONE; /* a cache of codes, and kv what they become */
    bool coded() const { return code != DT_NONE; }
    kv_format format() const {
        const kv_type *type = kv_type_get(coded() ? code : kv == CU_BF16 ? DT_BF16 : DT_F16);
        kv_format f;
        kv_format_init(&f, KV_ROWS, type, type, block_tokens, n_kv_heads, head_dim);
        return f;
    }
    uint32_t n_heads() const { return n_kv_heads * group; }
    float scale() const { return 1.5f / sqrtf((float)head_dim); }
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
    rig_codes c;
    c.code.resize(m.head_dim);
    for (uint32_t d = 0; d < m.head_dim; d += f.k_segment) {
        float x[64];
        for (uint32_t i = 0; i < f.k_segment; i++)
            x[i] = rig_value(seed, what, pos, head, d + i);
        c.word.push_back(kv_encode(&f.k, x, f.k_segment, &c.code[d]));
    }
    return c;
}
/* A head's numbers as attention multiplies them: as they are in the cache and in qkv, and for a
 * rotated type the rotated ones, times kv_turn_scale. */
static inline std::vector<double> rig_numbers(const rig_model &m, int seed, int what, int pos,
                                              uint32_t head) {
    std::vector<double> x(m.head_dim);
    const kv_format f = m.format();
    const double turn = f.k.rotated ? kv_turn_scale(f.k_segment) : 1;
    if (m.coded() && what != RIG_Q) {
        const rig_codes c = rig_encode(m, seed, what, pos, head);
        for (uint32_t d = 0; d < m.head_dim; d++)
            x[d] = (double)kv_code_value(m.code, c.code[d]) *
                   kv_scale_of(m.code, c.word[d / f.k_segment]).d * turn;
        return x;
    }
    const cu_type t = what == RIG_Q ? m.t : m.kv;
    std::vector<float> y(m.head_dim);
    for (uint32_t d = 0; d < m.head_dim; d++) y[d] = rig_value(seed, what, pos, head, d);
    if (f.k.rotated)
        for (uint32_t d = 0; d < m.head_dim; d += f.k_segment) kv_hadamard(&y[d], f.k_segment);
    for (uint32_t d = 0; d < m.head_dim; d++)
        x[d] = rig_widen(t, rig_round(t, y[d] * (float)turn));
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
    std::vector<int32_t> table;
    rig_array<uint16_t> qkv, kv, out;
    rig_array<int32_t> first_row, rows, first_pos, blocks, tiles;
    rig_array<float> partials;
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
        attn.kv.block_stride = block_elements() * 2;
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
        tables = cu_tables();
        tables.first_row = first_row.at;
        tables.n_rows = rows.at;
        tables.first_pos = first_pos.at;
        tables.blocks[1] = blocks.at;
        tables.table_stride = table_stride;
    }
    ~rig() { cudaStreamDestroy(stream); }

    uint32_t ld() const { return (m.n_heads() + 2 * m.n_kv_heads) * m.head_dim + 8; }
    uint64_t block_elements() const { /* with a gap: strides are not sizes */
        return (m.format().layer_bytes / 2 + 127) / 128 * 128 + 128;
    }
    int last(const rig_entry &e) const { return e.first_pos + e.n_rows - 1; }
    int context() const {
        int most = 1;
        for (const rig_entry &e : entries) most = std::max(most, last(e) + 1);
        return most;
    }

    /* Blocks in an order of no meaning; -1 below windows and where there is no sequence. */
    void put_tables() {
        uint32_t bt = m.block_tokens;
        table_stride = ((uint32_t)context() + bt - 1) / bt + 1;
        table.assign(entries.size() * table_stride, -1);
        std::vector<int32_t> fr, nr, fp;
        std::vector<size_t> places;
        for (size_t i = 0; i < entries.size(); i++) {
            const rig_entry &e = entries[i];
            fr.push_back((int32_t)n_rows);
            nr.push_back(e.n_rows);
            fp.push_back(e.first_pos);
            n_rows += (uint32_t)e.n_rows;
            for (int p = rig_lo(m, e.first_pos); p <= last(e); p++)
                if (size_t at = i * table_stride + (uint32_t)p / bt; table[at] < 0) {
                    table[at] = 0;
                    places.push_back(at);
                }
        }
        for (size_t i = 0; i < places.size(); i++) table[places[i]] = (int32_t)i;
        for (size_t i = places.size(); i > 1; i--)
            std::swap(table[places[i - 1]], table[places[(i * i + 7919) % i]]);
        n_blocks = (uint32_t)places.size() + 1;
        first_row.put(fr), rows.put(nr), first_pos.put(fp), blocks.put(table);
    }
    uint32_t n_blocks = 0;

    /* K and V of a token and head into the head's part of its block. */
    void put_token(unsigned char *part, const kv_format &f, int seed, int p, uint32_t h) {
        const uint32_t token = (uint32_t)p % m.block_tokens;
        if (!m.coded()) {
            uint16_t *k = (uint16_t *)(part + kv_k_group_at(&f, token));
            uint16_t *v = (uint16_t *)(part + kv_v_token_at(&f, token));
            for (uint32_t d = 0; d < m.head_dim; d++) {
                k[d] = rig_round(m.kv, rig_value(seed, RIG_K, p, h, d));
                v[d] = rig_round(m.kv, rig_value(seed, RIG_V, p, h, d));
            }
            return;
        }
        const rig_codes k = rig_encode(m, seed, RIG_K, p, h),
                        v = rig_encode(m, seed, RIG_V, p, h);
        memcpy(part + kv_k_group_at(&f, token), k.code.data(), m.head_dim);
        memcpy(part + kv_v_token_at(&f, token), v.code.data(), m.head_dim);
        for (uint32_t s = 0; s < f.k_segments; s++) {
            *(uint16_t *)(part + kv_k_word_at(&f, s, token)) = k.word[s];
            *(uint16_t *)(part + kv_v_word_at(&f, s, token)) = v.word[s];
        }
    }

    void put_cache() {
        const kv_format f = m.format();
        std::vector<uint16_t> c(n_blocks * block_elements(), RIG_NAN);
        for (size_t i = 0; i < entries.size(); i++)
            for (int p = rig_lo(m, entries[i].first_pos); p <= last(entries[i]); p++) {
                uint32_t bt = m.block_tokens;
                int32_t block = table[i * table_stride + (uint32_t)p / bt];
                for (uint32_t h = 0; h < m.n_kv_heads; h++)
                    put_token((unsigned char *)&c[(uint32_t)block * block_elements()] +
                                  h * f.part_bytes,
                              f, entries[i].seed, p, h);
            }
        kv.put(c);
    }

    void put_rows() {
        std::vector<uint16_t> q((size_t)n_rows * ld() + 8, RIG_NAN);
        size_t row = 0;
        for (const rig_entry &e : entries)
            for (int r = 0; r < e.n_rows; r++, row++)
                for (uint32_t h = 0; h < m.n_heads(); h++) {
                    const std::vector<double> x =
                        rig_numbers(m, e.seed, RIG_Q, e.first_pos + r, h);
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
        return finish();
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

/* One row and head against softmax(q k^T scale) v in float64 on the rounded inputs.
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
    const double scale = m.scale() * (f.k.rotated ? kv_score_scale(f.k_segment) : 1);
    std::vector<double> s, v(m.head_dim), a(m.head_dim);
    const std::vector<double> q = rig_numbers(m, seed, RIG_Q, pos, head);
    double top = -INFINITY, moved = 0, l = 0;
    for (int p = lo; p <= pos; p++) {
        const std::vector<double> k = rig_numbers(m, seed, RIG_K, p, kv_head);
        double x = 0, y = 0;
        for (uint32_t d = 0; d < m.head_dim; d++) x += q[d] * k[d], y += fabs(q[d] * k[d]);
        s.push_back(x * scale);
        top = fmax(top, x * scale), moved = fmax(moved, y * scale);
    }
    for (int p = lo; p <= pos; p++) {
        const std::vector<double> x = rig_numbers(m, seed, RIG_V, p, kv_head);
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
