/* Append to caches of codes: the bytes that kv_encode makes, q as attention needs it, nothing else
 * written; and the way back. */
#include "engine/cpu/ops.h"
#include "engine/cuda/kv_codes.cuh"
#include "tests/cuda/rope_rig.h"

enum { BLOCK_TOKENS = 16, TABLE = 8, N_BLOCKS = 4 };

struct codes_case {
    dtype code, v_code;
    cu_type t;
    uint32_t n_heads, n_kv, hd, n_dims;
    rope_pairing pairing;
};

/* The rotated head as float32: what the kernel starts from. */
static std::vector<float> rotated(const codes_case &c, const std::vector<double> &f,
                                  const float *v, int32_t pos) {
    const std::vector<double> x = rope_rotated({c.hd, c.n_dims, c.pairing, 1}, f, v, pos);
    return std::vector<float>(x.begin(), x.end());
}

/* K or V of a token in a part. */
struct side {
    const kv_format *f;
    bool of_v;
    uint32_t token;
    const kv_type &type() const { return of_v ? f->v : f->k; }
    uint32_t segment() const { return of_v ? f->v_segment : f->k_segment; }
    uint32_t word_at(uint32_t s) const {
        return of_v ? kv_v_word_at(f, s, token) : kv_k_word_at(f, s, token);
    }
    uint8_t code(const unsigned char *part, uint32_t d) const {
        const kv_place p = of_v ? kv_v_code(f, token, d) : kv_k_code(f, token, d);
        return (uint8_t)(part[p.at] >> p.shift & (type().bits == 4 ? 15 : 255));
    }
    void clear(unsigned char *part) const {
        memset(part + (of_v ? kv_v_token_at(f, token) : kv_k_group_at(f, token)), 0x5a,
               of_v ? f->v_token_bytes : f->k_group_bytes);
        for (uint32_t s = 0; type().word_bytes && s < f->head_dim / segment(); s++)
            memset(part + word_at(s), 0x5a, 2);
    }
};

/* Codes and words against those of x; off by one where exact is false, since x may differ in its
 * last bit. Overwrites them with 0x5a. */
static void check_codes(const side &t, unsigned char *part, const std::vector<float> &x,
                        bool exact) {
    const uint32_t n = t.segment();
    for (uint32_t s = 0; s < t.f->head_dim / n; s++) {
        float seg[64];
        uint8_t want[64];
        memcpy(seg, &x[s * n], n * 4);
        const uint16_t word = kv_encode(&t.type(), seg, n, want);
        const uint16_t got = *(uint16_t *)(part + t.word_at(s));
        const bool zeros = t.type().type == DT_INT4; /* z and d share the word */
        SWEEP(exact ? got == word : zeros || abs((int)got - word) <= 1);
        for (uint32_t d = 0; d < n; d++) {
            const uint8_t code = t.code(part, s * n + d);
            SWEEP(code == want[d] || (!exact && abs((int)(int8_t)code - (int8_t)want[d]) <= 1));
        }
    }
    t.clear(part);
}

/* Of a tail: x rotated, in f16. */
static void check_numbers(const side &t, unsigned char *part, std::vector<float> x,
                          bool exact) {
    if (t.type().rotated)
        for (uint32_t d = 0; d < t.f->head_dim; d += t.segment())
            kv_hadamard(&x[d], t.segment());
    for (uint32_t d = 0; d < t.f->head_dim; d++) {
        const kv_place p = t.of_v ? kv_v_code(t.f, t.token, d) : kv_k_code(t.f, t.token, d);
        const uint16_t got = *(uint16_t *)(part + p.at);
        SWEEP(exact ? got == half_of_float(x[d])
                    : fabs(half_to_float(got) - x[d]) <= rounding_of(CU_F16, x[d]) + 4e-5);
    }
    t.clear(part);
}

static void check_q(const codes_case &c, const kv_format &f, const uint16_t *got,
                    std::vector<float> x) {
    const float scale = f.k.rotated ? kv_turn_scale(f.k_segment) : 1;
    for (uint32_t d = 0; f.k.rotated && d < c.hd; d += f.k_segment)
        kv_hadamard(&x[d], f.k_segment);
    for (uint32_t d = 0; d < c.hd; d++)
        SWEEP(fabs(from_16(c.t, got[d]) - x[d] * scale) <=
              rounding_of(c.t, x[d] * scale) + 1e-5);
}

/* A cache and its tail: blocks of 0x5a, with another layer between them. */
struct pool {
    kv_format f;
    size_t stride;
    std::vector<uint8_t> bytes;
    device<uint8_t> on;
    pool(const kv_type &k, const kv_type &v, const codes_case &c)
        : f(format_of(k, v, c)), stride(f.layer_bytes + 256), bytes(stride * N_BLOCKS, 0x5a),
          on(bytes) {}
    static kv_format format_of(const kv_type &k, const kv_type &v, const codes_case &c) {
        kv_format f;
        kv_format_init(&f, KV_ROWS, &k, &v, BLOCK_TOKENS, c.n_kv, c.hd);
        return f;
    }
    cu_kv kv(uint32_t group) const { return {on.p, stride, f, CU_F16, group}; }
};

struct append_rig {
    codes_case c;
    std::vector<int32_t> pos;
    uint32_t ld;
    std::vector<double> freqs;
    std::vector<uint16_t> qkv, got;
    std::vector<int32_t> table, tail_table;
    const kv_type &k, &v;
    bool tailed;
    pool cache, tail;
    append_rig(const codes_case &x, const std::vector<int32_t> &at, uint64_t seed)
        : c(x), pos(at), ld((x.n_heads + 2 * x.n_kv) * x.hd + 8),
          freqs(rope_frequencies(x.n_dims, 1e4)), table(TABLE, -1), tail_table(TABLE, -1),
          k(*kv_type_get(x.code)), v(*kv_type_get(x.v_code)),
          tailed(kv_has_tail(x.code, x.v_code)), cache(k, v, x),
          tail(kv_tail_type(&k), kv_tail_type(&v), x) {
        rng r = {seed};
        qkv = all_to_16(c.t, r.normals((size_t)pos.size() * ld));
        table[0] = 3, table[1] = 1, tail_table[0] = 2, tail_table[1] = 0;
    }
    void run() {
        const uint32_t n_rows = (uint32_t)pos.size();
        device<int32_t> dpos(pos), dentry(std::vector<int32_t>(n_rows, 0)), dtable(table),
            dtail(tail_table);
        device<uint16_t> dqkv(qkv);
        device<cu_freq> dfreqs(rope_split(freqs));
        cu_tables tables = {};
        tables.pos = dpos.p, tables.entry = dentry.p, tables.blocks[0] = dtable.p;
        tables.blocks[2] = dtail.p, tables.table_stride = TABLE;
        cu_rope rope = {cache.kv(0), c.t,      dqkv.p, ld,      c.n_heads, c.pairing,
                        c.n_dims,    dfreqs.p, 1,      cu_kv(), false};
        if (tailed) rope.tail = tail.kv(2);
        device<uint16_t> dalone(qkv);
        cu_rope alone = rope;
        alone.qkv = dalone.p, alone.q_alone = true;
        CUDA_OK(cu_append_codes(0, &alone, &tables, n_rows));
        ck_assert(cache.on.get() == cache.bytes && tail.on.get() == tail.bytes);
        ck_assert(cu_rope_append(0, &rope, &tables, n_rows) == cudaErrorInvalidValue);
        CUDA_OK(cu_append_codes(0, &rope, &tables, n_rows));
        got = dqkv.get();
        ck_assert(dalone.get() == got);
        cache.bytes = cache.on.get(), tail.bytes = tail.on.get();
    }
};

/* K and V of row i; what was written becomes 0x5a again. */
static void check_row(append_rig &a, uint32_t i, const float *in) {
    const codes_case &c = a.c;
    const uint32_t token = (uint32_t)a.pos[i] % BLOCK_TOKENS, at = a.pos[i] / BLOCK_TOKENS;
    const bool exact = a.pos[i] == 0 || c.n_dims == 0;
    for (uint32_t h = 0; h < c.n_kv && a.table[at] >= 0; h++) {
        const float *k = in + (c.n_heads + h) * c.hd, *v = k + c.n_kv * c.hd;
        const std::vector<float> x = rotated(c, a.freqs, k, a.pos[i]), y(v, v + c.hd);
        unsigned char *part =
            &a.cache.bytes[a.table[at] * a.cache.stride + h * a.cache.f.part_bytes];
        check_codes({&a.cache.f, false, token}, part, x, exact);
        check_codes({&a.cache.f, true, token}, part, y, true);
        if (!a.tailed) continue;
        part = &a.tail.bytes[a.tail_table[at] * a.tail.stride + h * a.tail.f.part_bytes];
        check_numbers({&a.tail.f, false, token}, part, x, exact);
        check_numbers({&a.tail.f, true, token}, part, y, true);
    }
}

static void check_append(const codes_case &c, uint64_t seed) {
    /* One row is padding, one in a block that the tables lack; the first is at position 0, where
     * nothing turns and K must be exact, too. */
    append_rig a(c, {0, 15, 16, -1, 40}, seed);
    a.run();
    const std::vector<float> in = all_from_16(c.t, a.qkv);
    for (uint32_t i = 0; i < a.pos.size(); i++) {
        const size_t row = (size_t)i * a.ld, kept = a.pos[i] < 0 ? 0 : c.n_heads * c.hd;
        for (uint32_t h = 0; h < c.n_heads && a.pos[i] >= 0; h++)
            check_q(c, a.cache.f, &a.got[row + h * c.hd],
                    rotated(c, a.freqs, &in[row + h * c.hd], a.pos[i]));
        SWEEP(!memcmp(&a.got[row + kept], &a.qkv[row + kept], (a.ld - kept) * 2));
        if (a.pos[i] >= 0) check_row(a, i, &in[row]);
    }
    for (const pool *p : {&a.cache, &a.tail}) /* nothing else was written */
        ck_assert(p->bytes == std::vector<uint8_t>(p->bytes.size(), 0x5a));
}

START_TEST(codes_and_words_are_those_of_kv_encode) {
    static const codes_case cases[] = {{DT_INT8, DT_INT8, CU_F16, 4, 2, 64, 64, ROPE_ADJACENT},
                                       {DT_INT8, DT_INT8, CU_BF16, 9, 3, 64, 64, ROPE_HALVES},
                                       {DT_INT8, DT_INT8, CU_BF16, 3, 3, 80, 32, ROPE_HALVES},
                                       {DT_INT8, DT_INT8, CU_F16, 2, 1, 256, 256, ROPE_HALVES},
                                       {DT_Q8_0, DT_Q8_0, CU_BF16, 6, 2, 128, 128, ROPE_HALVES},
                                       {DT_Q8_0, DT_Q8_0, CU_F16, 2, 1, 96, 0, ROPE_HALVES},
                                       {DT_FP8, DT_FP8, CU_F16, 40, 8, 128, 128, ROPE_HALVES},
                                       {DT_FP8, DT_FP8, CU_BF16, 1, 1, 16, 12, ROPE_ADJACENT},
                                       {DT_INT4, DT_INT4, CU_F16, 4, 2, 64, 0, ROPE_HALVES},
                                       {DT_INT8, DT_INT4, CU_BF16, 6, 2, 128, 128, ROPE_HALVES},
                                       {DT_INT4, DT_INT4, CU_BF16, 3, 3, 80, 32, ROPE_HALVES},
                                       {DT_Q8_0, DT_INT4, CU_F16, 2, 1, 256, 256, ROPE_HALVES},
                                       {DT_INT4, DT_FP8, CU_F16, 2, 1, 96, 96, ROPE_ADJACENT},
                                       {DT_INT8, DT_Q8_0, CU_F16, 2, 2, 48, 48, ROPE_HALVES}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_append(cases[i], i);
}
END_TEST

/* The CPU engine's block of one token, in its own order, has the same codes, words and tail. */
static void check_against_cpu(const codes_case &c, const side &on_cpu, const side &here,
                              const unsigned char *want, const unsigned char *got) {
    for (uint32_t d = 0; d < c.hd; d++) {
        if (here.type().bits == 16) {
            const kv_place a = here.of_v ? kv_v_code(here.f, 0, d) : kv_k_code(here.f, 0, d),
                           b = here.of_v ? kv_v_code(on_cpu.f, 0, d)
                                         : kv_k_code(on_cpu.f, 0, d);
            SWEEP(!memcmp(got + a.at, want + b.at, 2));
        } else {
            SWEEP(here.code(got, d) == on_cpu.code(want, d));
        }
    }
    for (uint32_t s = 0; here.type().word_bytes && s < c.hd / here.segment(); s++)
        SWEEP(!memcmp(got + here.word_at(s), want + on_cpu.word_at(s), 2));
}

START_TEST(codes_and_tails_are_those_of_the_cpu_engine) {
    const dtype types[] = {DT_INT8, DT_Q8_0, DT_FP8, DT_INT4};
    uint64_t seed = 0;
    for (uint32_t hd : {64u, 96u, 128u, 256u})
        for (dtype k : types)
            for (dtype v : types) {
                append_rig a({k, v, CU_F16, 1, 1, hd, hd, ROPE_HALVES}, {0}, seed++);
                a.run();
                const std::vector<float> in = all_from_16(CU_F16, a.qkv);
                for (pool *p : {&a.cache, &a.tail}) {
                    if (p == &a.tail && !a.tailed) continue;
                    kv_format f;
                    kv_format_init(&f, KV_LANES, &p->f.k, &p->f.v, BLOCK_TOKENS, 1, hd);
                    std::vector<unsigned char> want(f.part_bytes);
                    const int32_t first = 0;
                    const kv_head head = {want.data(), f.part_bytes, &first, &f};
                    ops_plain.kv_append(&head, 0, &in[hd], &in[2 * hd]);
                    const int32_t block = p == &a.tail ? a.tail_table[0] : a.table[0];
                    for (bool of_v : {false, true})
                        check_against_cpu(a.c, {&f, of_v, 0}, {&p->f, of_v, 0}, want.data(),
                                          &p->bytes[block * p->stride]);
                }
            }
}
END_TEST

/* A NaN must reach whoever reads it, and only them. */
START_TEST(a_number_that_is_none_makes_the_word_nan) {
    const kv_type *type = kv_type_get(DT_INT8);
    kv_format f;
    kv_format_init(&f, KV_ROWS, type, type, BLOCK_TOKENS, 1, 128);
    std::vector<uint16_t> qkv(3 * 128, half_of_float(0.5f));
    qkv[2 * 128 + 70] = 0x7e00; /* of V's second segment */
    const std::vector<int32_t> two(1, 2), zero(1, 0);
    device<int32_t> pos(two), entry(zero), table(zero);
    device<uint16_t> rows(qkv);
    device<uint8_t> cache(std::vector<uint8_t>(f.layer_bytes, 0));
    cu_tables tables = {};
    tables.pos = pos.p, tables.entry = entry.p, tables.blocks[0] = table.p,
    tables.table_stride = 1;
    const cu_rope rope = {{cache.p, f.layer_bytes, f, CU_F16, 0},
                          CU_F16,
                          rows.p,
                          3 * 128,
                          1,
                          ROPE_HALVES,
                          0,
                          NULL,
                          1,
                          cu_kv(),
                          false};
    CUDA_OK(cu_append_codes(0, &rope, &tables, 1));
    const std::vector<uint8_t> got = cache.get();
    uint16_t first, second;
    memcpy(&first, &got[kv_v_word_at(&f, 0, 2)], 2),
        memcpy(&second, &got[kv_v_word_at(&f, 1, 2)], 2);
    ck_assert(!isnan(half_to_float(first)) && isnan(half_to_float(second)));
}
END_TEST

START_TEST(the_way_back_is_as_in_double_precision) {
    for (uint32_t hd : {64u, 80u, 96u, 128u, 192u}) {
        const kv_type *type = kv_type_get(hd == 192 ? DT_INT4 : DT_INT8);
        cu_attn a = {};
        kv_format_init(&a.kv.format, KV_ROWS, type, type, BLOCK_TOKENS, 1, hd);
        a.t = hd == 80 ? CU_BF16 : CU_F16, a.n_heads = 3;
        rng r = {hd};
        const std::vector<uint16_t> in = all_to_16(a.t, r.normals(5 * 3 * hd));
        device<uint16_t> out(in);
        a.out = out.p;
        CUDA_OK(cu_turn_back(0, &a, 5));
        const std::vector<uint16_t> got = out.get();
        const uint32_t n = a.kv.format.v_segment;
        for (size_t i = 0; i < got.size(); i += n)
            for (uint32_t d = 0; d < n; d++) {
                double sum = 0;
                for (uint32_t j = 0; j < n; j++)
                    sum += (__builtin_popcount(d & j) % 2 ? -1 : 1) * from_16(a.t, in[i + j]);
                sum /= (hd == 192 ? 1 : (double)kv_turn_scale(n)) * n;
                SWEEP(fabs(from_16(a.t, got[i + d]) - sum) <= rounding_of(a.t, sum) + 1e-5);
            }
    }
}
END_TEST

CHECK_MAIN("kv_codes", codes_and_words_are_those_of_kv_encode,
           codes_and_tails_are_those_of_the_cpu_engine,
           a_number_that_is_none_makes_the_word_nan, the_way_back_is_as_in_double_precision)
