/* Rotary embedding with the append to the cache, against double precision and the definition of
 * the cache's layout; copies of blocks. */
#include "tests/cuda/rope_rig.h"

enum { BLOCK_TOKENS = 16, TABLE = 80000, ENTRIES = 3 };

struct rope_case {
    cu_type t, kv;
    uint32_t n_heads, n_kv, hd, n_dims;
    rope_pairing pairing;
    double theta;
    float mscale;
};

static void near(cu_type t, const uint16_t *got, const double *want, uint32_t n) {
    for (uint32_t d = 0; d < n; d++)
        SWEEP(fabs(from_16(t, got[d]) - want[d]) <= rounding_of(t, want[d]) + 4e-6);
}

static kv_format format_of(cu_type type, uint32_t block_tokens, uint32_t n_kv, uint32_t hd) {
    const kv_type *t = kv_type_get(type == CU_BF16 ? DT_BF16 : DT_F16);
    kv_format f;
    kv_format_init(&f, KV_ROWS, t, t, block_tokens, n_kv, hd);
    return f;
}

static void check_rope(const rope_case &c, uint64_t seed) {
    const rope_shape shape = {c.hd, c.n_dims, c.pairing, c.mscale};
    /* Rows of three entries; one row is padding, one in a block that the table lacks. */
    const std::vector<int32_t> pos = {0, 1, 15, 16, -1, 131071, 1048575, 40},
                               entry = {0, 0, 0, 0, 0, 1, 2, 2};
    const uint32_t n_rows = (uint32_t)pos.size(), ld = (c.n_heads + 2 * c.n_kv) * c.hd + 8;
    const uint32_t n_blocks = 6;
    const kv_format format = format_of(c.kv, BLOCK_TOKENS, c.n_kv, c.hd);
    const size_t stride = format.layer_bytes + 256; /* another layer between */
    std::vector<int32_t> table((size_t)ENTRIES * TABLE, -1);
    table[0] = 4, table[1] = 2;
    table[TABLE + 131071 / BLOCK_TOKENS] = 0;
    table[2 * TABLE + 1048575 / BLOCK_TOKENS] = 5;
    rng r = {seed};
    const std::vector<uint16_t> qkv = all_to_16(c.t, r.normals((size_t)n_rows * ld));
    const std::vector<double> f = rope_frequencies(c.n_dims, c.theta);
    device<int32_t> dpos(pos), dentry(entry), dtable(table);
    device<uint16_t> dqkv(qkv);
    const std::vector<uint8_t> empty(stride * n_blocks, 0x5a);
    device<uint8_t> cache(empty);
    device<cu_freq> dfreqs(rope_split(f));
    cu_tables tables = {};
    tables.pos = dpos.p, tables.entry = dentry.p, tables.blocks[1] = dtable.p;
    tables.table_stride = TABLE;
    const cu_kv kv = {cache.p, stride, format, c.kv, 1};
    const cu_rope rope = {kv,       c.t,      dqkv.p,   ld,      c.n_heads, c.pairing,
                          c.n_dims, dfreqs.p, c.mscale, cu_kv(), false};
    /* q alone: the same bits of q, and nothing in the cache. */
    device<uint16_t> dalone(qkv);
    cu_rope alone = rope;
    alone.qkv = dalone.p, alone.q_alone = true;
    CUDA_OK(cu_rope_append(0, &alone, &tables, n_rows));
    ck_assert(cache.get() == empty);
    CUDA_OK(cu_rope_append(0, &rope, &tables, n_rows));
    const std::vector<uint16_t> got = dqkv.get();
    ck_assert(dalone.get() == got);
    std::vector<uint8_t> blocks = cache.get();
    const std::vector<float> in = all_from_16(c.t, qkv);
    for (uint32_t i = 0; i < n_rows; i++) {
        const size_t row = (size_t)i * ld;
        for (uint32_t h = 0; h < c.n_heads && pos[i] >= 0; h++) {
            const std::vector<double> want =
                rope_rotated(shape, f, &in[row + h * c.hd], pos[i]);
            near(c.t, &got[row + h * c.hd], want.data(), c.hd);
        }
        const size_t kept = pos[i] < 0 ? 0 : c.n_heads * c.hd; /* what must be as it was */
        SWEEP(!memcmp(&got[row + kept], &qkv[row + kept], (ld - kept) * 2));
        const int32_t block = pos[i] < 0 ? -1 : table[entry[i] * TABLE + pos[i] / BLOCK_TOKENS];
        if (block < 0) continue;
        for (uint32_t h = 0; h < c.n_kv; h++) {
            uint16_t *k = (uint16_t *)(blocks.data() + block * stride) +
                          ((size_t)h * 2 * BLOCK_TOKENS + pos[i] % BLOCK_TOKENS) * c.hd;
            uint16_t *v = k + (size_t)BLOCK_TOKENS * c.hd; /* of the same head */
            const float *kin = &in[row + (c.n_heads + h) * c.hd], *vin = kin + c.n_kv * c.hd;
            const std::vector<double> want = rope_rotated(shape, f, kin, pos[i]),
                                      same(vin, vin + c.hd);
            near(c.kv, k, want.data(), c.hd);
            near(c.kv, v, same.data(), c.hd);
            memset(k, 0x5a, c.hd * 2);
            memset(v, 0x5a, c.hd * 2);
        }
    }
    ck_assert(blocks == empty); /* nothing else was written */
}

START_TEST(rotations_and_the_cache_are_as_in_double_precision) {
    static const rope_case cases[] = {
        {CU_F16, CU_F16, 4, 2, 64, 64, ROPE_ADJACENT, 1e4, 1},
        {CU_BF16, CU_BF16, 6, 2, 128, 128, ROPE_HALVES, 5e5, 1},
        {CU_BF16, CU_F16, 3, 3, 80, 32, ROPE_HALVES, 1e4, 1.1386f},
        {CU_F16, CU_BF16, 2, 1, 80, 40, ROPE_HALVES, 1e6, 1},
        {CU_F16, CU_F16, 2, 1, 24, 12, ROPE_ADJACENT, 1e4, 1},
        {CU_BF16, CU_BF16, 1, 1, 512, 512, ROPE_HALVES, 1e4, 1},
        {CU_F16, CU_F16, 9, 3, 8, 8, ROPE_ADJACENT, 1e4, 1},
        {CU_BF16, CU_F16, 4, 2, 64, 0, ROPE_ADJACENT, 1e4, 1}, /* not rotated */
        {CU_F16, CU_F16, 40, 8, 128, 128, ROPE_HALVES, 1e6, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_rope(cases[i], i);
}
END_TEST

/* One head (1, 0, 1, 0, ...) gives cosines and sines themselves; float32 errors would hide in a
 * 16-bit result, so the sum of squares of angle errors is looked at over many positions. */
START_TEST(angles_of_far_positions_are_exact_to_the_last_place_of_f16) {
    rope_case c = {CU_F16, CU_F16, 1, 1, 64, 64, ROPE_ADJACENT, 1e4, 1};
    const uint32_t n_rows = 512, ld = 3 * 64;
    const std::vector<double> f = rope_frequencies(c.n_dims, c.theta);
    rng r = {3};
    std::vector<int32_t> pos(n_rows), zero(n_rows, 0);
    for (int32_t &p : pos) p = (int32_t)r.below(1 << 20);
    std::vector<uint16_t> qkv((size_t)n_rows * ld, 0);
    for (size_t i = 0; i < qkv.size(); i += 2) qkv[i] = half_of_float(1);
    device<int32_t> dpos(pos), dentry(zero), dtable(std::vector<int32_t>(1 << 16, -1));
    device<uint16_t> dqkv(qkv);
    device<cu_freq> dfreqs(rope_split(f));
    cu_tables tables = {};
    tables.pos = dpos.p, tables.entry = dentry.p, tables.blocks[0] = dtable.p;
    tables.table_stride = 1 << 16;
    const cu_kv kv = {dqkv.p, 0, format_of(CU_F16, 16, 1, 64), CU_F16, 0};
    const cu_rope rope = {kv, CU_F16,   dqkv.p, ld,      1,    c.pairing,
                          64, dfreqs.p, 1,      cu_kv(), false};
    CUDA_OK(cu_rope_append(0, &rope, &tables, n_rows));
    const std::vector<uint16_t> got = dqkv.get();
    uint32_t differ = 0;
    for (uint32_t i = 0; i < n_rows; i++)
        for (uint32_t d = 0; d < 32; d++) {
            const double angle = pos[i] * f[d];
            const uint16_t *g = &got[(size_t)i * ld + 2 * d];
            SWEEP(fabs(half_to_float(g[0]) - cos(angle)) <= 0x1p-12 + 1e-6);
            SWEEP(fabs(half_to_float(g[1]) - sin(angle)) <= 0x1p-12 + 1e-6);
            differ += g[0] != half_of_float((float)cos(angle));
        }
    /* An error of 1e-6 moves one rounding in about 1000 across its boundary. */
    ck_assert_uint_lt(differ, n_rows * 32 / 500);
}
END_TEST

START_TEST(blocks_are_copied_whole_and_nothing_else) {
    const kv_format format = format_of(CU_F16, 16, 3, 72);
    const uint32_t n_blocks = 7;
    const size_t block_stride =
        kv_block_bytes(&format, 3); /* not a multiple of a thread's part */
    rng r = {1};
    std::vector<uint8_t> want(block_stride * n_blocks);
    for (uint8_t &b : want) b = (uint8_t)r.u64();
    device<uint8_t> cache(want);
    const std::vector<int32_t> pairs = {0, 6, 0, 1, 5, 2, -1, 3};
    device<int32_t> dpairs(pairs);
    CUDA_OK(cu_copy_blocks(0, cache.p, block_stride, dpairs.p, 4));
    for (int i = 0; i < 3; i++)
        memcpy(&want[pairs[2 * i + 1] * block_stride], &want[pairs[2 * i] * block_stride],
               block_stride);
    ck_assert(cache.get() == want);
    CUDA_OK(cu_copy_blocks(0, cache.p, block_stride, dpairs.p, 0));
    ck_assert(cu_copy_blocks(0, cache.p, block_stride + 8, dpairs.p, 1) ==
              cudaErrorInvalidValue);
}
END_TEST

CHECK_MAIN("rope", rotations_and_the_cache_are_as_in_double_precision,
           angles_of_far_positions_are_exact_to_the_last_place_of_f16,
           blocks_are_copied_whole_and_nothing_else)
