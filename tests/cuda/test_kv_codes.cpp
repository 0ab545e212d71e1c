/* Append to caches of codes: the bytes that kv_encode makes, q as attention needs it, nothing else
 * written; and the way back. */
#include "engine/cuda/kv_codes.cuh"
#include "tests/cuda/rope_rig.h"

enum { BLOCK_TOKENS = 16, TABLE = 8, N_BLOCKS = 4 };

struct codes_case {
    dtype code;
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

/* Codes and words of a token's K or V in a part against those of x; off by one code where exact
 * is false, since x may differ in its last bit. Overwrites them with 0x5a. */
static void check_token(const kv_format &f, unsigned char *codes, unsigned char *words,
                        const std::vector<float> &x, bool exact) {
    for (uint32_t s = 0; s < f.k_segments; s++) {
        float seg[64];
        uint8_t want[64];
        memcpy(seg, &x[s * f.k_segment], f.k_segment * 4);
        const uint16_t word = kv_encode(&f.k, seg, f.k_segment, want);
        uint16_t *got = (uint16_t *)(words + s * f.block_tokens * 2);
        SWEEP(exact ? *got == word : abs((int)*got - word) <= 1);
        for (uint32_t d = 0; d < f.k_segment; d++) {
            const uint8_t code = codes[s * f.k_segment + d];
            SWEEP(code == want[d] || (!exact && abs((int)(int8_t)code - (int8_t)want[d]) <= 1));
        }
        *got = 0x5a5a;
    }
    memset(codes, 0x5a, f.head_dim);
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

static void check_append(const codes_case &c, uint64_t seed) {
    /* One row is padding, one in a block that the table lacks; the first is at position 0, where
     * nothing turns and K must be exact, too. */
    const std::vector<int32_t> pos = {0, 15, 16, -1, 40}, entry(5, 0);
    const uint32_t n_rows = (uint32_t)pos.size(), ld = (c.n_heads + 2 * c.n_kv) * c.hd + 8;
    const kv_type *type = kv_type_get(c.code);
    kv_format f;
    kv_format_init(&f, KV_ROWS, type, type, BLOCK_TOKENS, c.n_kv, c.hd);
    const size_t stride = f.layer_bytes + 256;
    std::vector<int32_t> table(TABLE, -1);
    table[0] = 3, table[1] = 1;
    rng r = {seed};
    const std::vector<uint16_t> qkv = all_to_16(c.t, r.normals((size_t)n_rows * ld));
    const std::vector<double> freqs = rope_frequencies(c.n_dims, 1e4);
    device<int32_t> dpos(pos), dentry(entry), dtable(table);
    device<uint16_t> dqkv(qkv);
    const std::vector<uint8_t> empty(stride * N_BLOCKS, 0x5a);
    device<uint8_t> cache(empty);
    device<cu_freq> dfreqs(rope_split(freqs));
    cu_tables tables = {};
    tables.pos = dpos.p, tables.entry = dentry.p, tables.blocks[0] = dtable.p;
    tables.table_stride = TABLE;
    const cu_rope rope = {{cache.p, stride, f, CU_F16, 0},
                          c.t,
                          dqkv.p,
                          ld,
                          c.n_heads,
                          c.pairing,
                          c.n_dims,
                          dfreqs.p,
                          1};
    ck_assert(cu_rope_append(0, &rope, &tables, n_rows) == cudaErrorInvalidValue);
    CUDA_OK(cu_append_codes(0, &rope, &tables, n_rows));
    const std::vector<uint16_t> got = dqkv.get();
    std::vector<uint8_t> blocks = cache.get();
    const std::vector<float> in = all_from_16(c.t, qkv);
    for (uint32_t i = 0; i < n_rows; i++) {
        const size_t row = (size_t)i * ld;
        for (uint32_t h = 0; h < c.n_heads && pos[i] >= 0; h++)
            check_q(c, f, &got[row + h * c.hd], rotated(c, freqs, &in[row + h * c.hd], pos[i]));
        const size_t kept = pos[i] < 0 ? 0 : c.n_heads * c.hd;
        SWEEP(!memcmp(&got[row + kept], &qkv[row + kept], (ld - kept) * 2));
        const int32_t block = pos[i] < 0 ? -1 : table[pos[i] / BLOCK_TOKENS];
        if (block < 0) continue;
        for (uint32_t h = 0; h < c.n_kv; h++) {
            unsigned char *part = &blocks[block * stride] + h * f.part_bytes;
            const uint32_t token = (uint32_t)pos[i] % BLOCK_TOKENS;
            const float *k = &in[row + (c.n_heads + h) * c.hd], *v = k + c.n_kv * c.hd;
            check_token(f, part + kv_k_group_at(&f, token), part + kv_k_word_at(&f, 0, token),
                        rotated(c, freqs, k, pos[i]), pos[i] == 0 || c.n_dims == 0);
            check_token(f, part + kv_v_token_at(&f, token), part + kv_v_word_at(&f, 0, token),
                        std::vector<float>(v, v + c.hd), true);
        }
    }
    ck_assert(blocks == empty); /* nothing else was written */
}

START_TEST(codes_and_words_are_those_of_kv_encode) {
    static const codes_case cases[] = {{DT_INT8, CU_F16, 4, 2, 64, 64, ROPE_ADJACENT},
                                       {DT_INT8, CU_BF16, 9, 3, 64, 64, ROPE_HALVES},
                                       {DT_INT8, CU_BF16, 3, 3, 80, 32, ROPE_HALVES},
                                       {DT_INT8, CU_F16, 2, 1, 256, 256, ROPE_HALVES},
                                       {DT_Q8_0, CU_BF16, 6, 2, 128, 128, ROPE_HALVES},
                                       {DT_Q8_0, CU_F16, 2, 1, 96, 0, ROPE_HALVES},
                                       {DT_FP8, CU_F16, 40, 8, 128, 128, ROPE_HALVES},
                                       {DT_FP8, CU_BF16, 1, 1, 16, 12, ROPE_ADJACENT}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_append(cases[i], i);
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
                          1};
    CUDA_OK(cu_append_codes(0, &rope, &tables, 1));
    const std::vector<uint8_t> got = cache.get();
    uint16_t first, second;
    memcpy(&first, &got[kv_v_word_at(&f, 0, 2)], 2),
        memcpy(&second, &got[kv_v_word_at(&f, 1, 2)], 2);
    ck_assert(!isnan(half_to_float(first)) && isnan(half_to_float(second)));
}
END_TEST

START_TEST(the_way_back_is_as_in_double_precision) {
    for (uint32_t hd : {64u, 80u, 96u, 128u}) {
        const kv_type *type = kv_type_get(DT_INT8);
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
                sum /= (double)kv_turn_scale(n) * n;
                SWEEP(fabs(from_16(a.t, got[i + d]) - sum) <= rounding_of(a.t, sum) + 1e-5);
            }
    }
}
END_TEST

CHECK_MAIN("kv_codes", codes_and_words_are_those_of_kv_encode,
           a_number_that_is_none_makes_the_word_nan, the_way_back_is_as_in_double_precision)
