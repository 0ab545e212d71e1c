/* Decode attention against float64, and the same bits whatever else is in the batch. */
#include "tests/cuda/attn_rig.h"

static rig_model model_of(uint32_t head_dim, uint32_t n_kv_heads, uint32_t group, cu_type t,
                          cu_type kv, uint32_t block_tokens, uint32_t window = 0) {
    return {head_dim, n_kv_heads, group, window, t, kv, block_tokens};
}

static void check_decode(const rig_model &m, const std::vector<rig_entry> &e, int every = 1) {
    rig r(m, e);
    rig_check(r, r.decode(), rig_single, every);
}

START_TEST(every_head_size_and_type_agrees_with_float64) {
    const cu_type types[2] = {CU_F16, CU_BF16};
    const uint32_t sizes[] = {64, 80, 96, 128, 256, 8, 40, 72, 120, 248, 264, 512};
    uint32_t n = 0;
    for (uint32_t size : sizes)
        for (cu_type t : types)
            for (cu_type kv : types) {
                if (size < 64 && t != kv) continue;
                check_decode(model_of(size, 1 + n % 2, 1 + n % 4, t, kv, 8u << n % 6),
                             {{1, 0, 1}, {2, 36 + (int)n, 1}, {3, 15, 1}, {4, 80, 1}});
                n++;
            }
}
END_TEST

/* Caches of codes: each type with every kernel's head size, and with others of their own number
 * of segments. */
START_TEST(every_type_of_codes_agrees_with_float64) {
    const uint32_t sizes[] = {64, 80, 96, 128, 256, 16, 48, 192};
    uint32_t n = 0;
    for (uint32_t size : sizes)
        for (dtype code : {DT_INT8, DT_Q8_0, DT_FP8}) {
            rig_model m = model_of(size, 1 + n % 2, 1 + n % 4, n % 3 ? CU_F16 : CU_BF16, CU_F16,
                                   16u << n % 4, n % 5 ? 0 : 21);
            m.code = code;
            check_decode(m, {{1, 0, 1}, {2, 36 + (int)n, 1}, {3, 15, 1}, {4, 80, 1}});
            n++;
        }
}
END_TEST

/* Codes of 4 bits beside a tail, K and V of two types, windows on both sides of the tail's. */
START_TEST(tails_and_pairs_of_types_agree_with_float64) {
    const dtype pairs[][2] = {{DT_INT4, DT_INT4}, {DT_INT8, DT_INT4}, {DT_INT4, DT_FP8},
                              {DT_Q8_0, DT_INT4}, {DT_INT8, DT_FP8},  {DT_Q8_0, DT_INT8}};
    const uint32_t sizes[] = {64, 80, 96, 128, 256, 16, 48, 192},
                   windows[] = {0, 100, 21, 0, 64, 65, 0};
    uint32_t n = 0;
    for (uint32_t size : sizes)
        for (const dtype *pair : pairs) {
            rig_model m = model_of(size, 1 + n % 2, 1 + n % 4, n % 3 ? CU_F16 : CU_BF16, CU_F16,
                                   16u << n % 4, windows[n % 7]);
            m.code = pair[0], m.v_code = pair[1];
            check_decode(
                m, {{1, 0, 1}, {2, 150 + (int)n, 1}, {3, 63, 1}, {4, 64, 1}, {5, 330, 1}});
            n++;
        }
}
END_TEST

/* Each form of cache, with windows, groups and splits. */
START_TEST(caps_and_sinks_agree_with_float64) {
    const dtype codes[][2] = {{DT_NONE, DT_NONE}, {DT_INT8, DT_INT8}, {DT_INT4, DT_FP8}};
    uint32_t n = 0;
    for (float cap : {0.0f, 1.0f, 20.0f})
        for (bool sinks : {false, true})
            for (const dtype *code : codes) {
                rig_model m = model_of(n % 2 ? 64 : 128, 1 + n % 2, 1 + n % 5,
                                       n % 3 ? CU_F16 : CU_BF16, CU_F16, 16, n % 4 ? 0 : 21);
                m.code = code[0], m.v_code = code[1];
                m.cap = cap, m.sinks = sinks;
                check_decode(m, {{1, 0, 1}, {2, 255, 1}, {3, 700, 1}, {4, 80, 1}});
                n++;
            }
    rig_model m = model_of(256, 1, 17, CU_BF16, CU_BF16, 16);
    m.cap = 2, m.sinks = true;
    check_decode(m, {{1, 300, 1}});
}
END_TEST

START_TEST(every_group_agrees_with_float64) {
    for (uint32_t group : {1, 2, 3, 5, 7, 8, 9, 12, 16, 17, 24})
        check_decode(model_of(64, group < 4 ? 3 : 1, group, CU_F16, CU_F16, 16),
                     {{1, 70, 1}, {2, 3, 1}});
}
END_TEST

START_TEST(splits_agree_with_float64) {
    check_decode(model_of(64, 1, 3, CU_F16, CU_F16, 16),
                 {{1, 255, 1}, {2, 256, 1}, {3, 700, 1}, {4, 511, 1}, {5, 1023, 1}});
    check_decode(model_of(128, 1, 4, CU_BF16, CU_BF16, 256), {{1, 600, 1}, {2, 17, 1}});
}
END_TEST

START_TEST(windows_agree_with_float64) {
    for (uint32_t window : {1, 7, 16, 100, 300}) {
        std::vector<rig_entry> e = {{1, 5, 1}, {2, 99, 1}, {3, 100, 1}, {4, 520, 1}};
        check_decode(model_of(64, 1, 2, CU_F16, CU_F16, window % 2 ? 8 : 32, window), e);
    }
    /* At the end of the longest contexts; the tables below the window are -1. */
    int far = (1 << 20) - 1;
    check_decode(model_of(64, 1, 2, CU_F16, CU_F16, 256, 300),
                 {{1, far, 1}, {2, far - 200, 1}});
}
END_TEST

START_TEST(long_contexts_take_longer_splits) {
    check_decode(model_of(64, 1, 1, CU_F16, CU_F16, 64),
                 {{1, CU_ATTN_SPLIT * CU_ATTN_SPLITS, 1}, {2, 40, 1}});
}
END_TEST

START_TEST(no_row_needs_more_splits_than_the_plan_has) {
    for (uint32_t window : {0u, 1u, 255u, 256u, 257u, 1000u, 16384u, 16385u, 40000u, 100000u})
        for (uint32_t pos = 0; pos < 1u << 20; pos += pos < 70000 ? 1 : 977) {
            uint32_t seen = window && window < pos + 1 ? window : pos + 1;
            for (uint32_t entries : {(uint32_t)CU_ATTN_FEW, CU_ATTN_FEW + 1u}) {
                uint32_t shift = cu_attn_split_log2(entries, seen);
                uint32_t n = (pos >> shift) - ((pos + 1 - seen) >> shift) + 1;
                uint32_t most = cu_attn_splits(entries, pos + 1);
                SWEEP(n <= most && n <= CU_ATTN_SPLITS + 1u);
                SWEEP(window || n == most || most > CU_ATTN_SPLITS);
            }
        }
}
END_TEST

START_TEST(other_entries_are_left_alone) {
    check_decode(model_of(64, 2, 3, CU_F16, CU_F16, 16),
                 {{1, 10, 0}, {2, 300, 1}, {3, 20, 5}, {4, -1, 0}, {5, 0, 1}, {6, 0, 2}});
}
END_TEST

START_TEST(nothing_to_do_is_no_error) {
    rig r(model_of(64, 1, 1, CU_F16, CU_F16, 16), {{1, 5, 0}, {2, 4, 3}});
    rig_check(r, r.decode(), rig_single);
    CUDA_OK(cu_attn_decode(r.stream, &r.attn, &r.tables, 0, 1, r.partials.at));
}
END_TEST

/* A batch that contradicts its plan ends that sequence alone: the row is NaN, the others are as
 * ever, and the context lives on. */
START_TEST(an_entry_that_lacks_splits_is_not_a_number) {
    for (uint32_t lacking : {1u, cu_attn_splits(2, 301) - 1}) {
        rig r(model_of(64, 2, 3, CU_F16, CU_F16, 16), {{1, 10, 1}, {2, 300, 1}});
        const uint32_t n = cu_attn_splits(2, 301);
        const std::vector<uint16_t> right = r.decode(), got = r.decode(lacking - n);
        const std::vector<uint16_t> first = rig_rows(r, got, 0, 0, 1),
                                    as_ever = rig_rows(r, right, 0, 0, 1);
        ck_assert_mem_eq(first.data(), as_ever.data(), first.size() * 2);
        for (uint16_t v : rig_rows(r, got, 1, 0, 1)) SWEEP(isnan(rig_widen(CU_F16, v)));
    }
}
END_TEST

/* The bits of the entry {1, 650, 1}, which stands at place `at` of n. */
static std::vector<uint16_t> bits_amid(const rig_model &m, int n, int at) {
    std::vector<rig_entry> all;
    for (int i = 0; i < n; i++) all.push_back({i + 2, i * 37 % 50, i % 5 != 1});
    all[(size_t)at] = {1, 650, 1};
    rig r(m, all);
    return rig_rows(r, r.decode(9), (size_t)at, 0, 1);
}

/* Up to CU_ATTN_FEW entries have shorter splits, which is another order of sums: the bits of a
 * row are one for any such step, and one for any larger step. */
START_TEST(a_sequence_gets_the_same_bits_alone_and_amid_others) {
    rig_model m = model_of(64, 2, 3, CU_BF16, CU_BF16, 16, 0);
    for (uint32_t window : {0u, 290u, 1u << 30, 1u << 31}) {
        m.window = window;
        if (window >= 1u << 30) m.window = 0, m.code = DT_INT8, m.kv = CU_F16;
        if (window == 1u << 31) m.code = DT_INT4;
        rig alone(m, {{1, 650, 1}});
        const std::vector<uint16_t> a = alone.decode(), few = bits_amid(m, CU_ATTN_FEW, 5);
        ck_assert_mem_eq(a.data(), few.data(), a.size() * 2);
        const std::vector<uint16_t> more = bits_amid(m, CU_ATTN_FEW + 1, 3),
                                    many = bits_amid(m, 40, 17);
        ck_assert_mem_eq(more.data(), many.data(), a.size() * 2);
    }
}
END_TEST

START_TEST(more_items_than_blocks_agree_with_float64) {
    /* Three blocks an SM at most; 132 SMs are the largest card there is to test on. */
    std::vector<rig_entry> many;
    for (int i = 0; i < 150; i++) many.push_back({i, i * 31 % 40, 1});
    many[3].first_pos = 300;
    check_decode(model_of(64, 3, 2, CU_F16, CU_F16, 16), many, 3);
    many.resize(100);
    check_decode(model_of(128, 4, 5, CU_BF16, CU_BF16, 16), many, 7);
}
END_TEST

START_TEST(a_captured_step_follows_its_tables) {
    rig_model m = model_of(64, 1, 4, CU_F16, CU_F16, 16);
    rig r(m, {{1, 600, 1}, {2, 30, 1}});
    const uint32_t splits = cu_attn_splits(2, 601);
    r.partials.put(std::vector<float>(cu_attn_decode_bytes(2, splits, 4, 64) / 4, NAN));
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CUDA_OK(cudaStreamBeginCapture(r.stream, cudaStreamCaptureModeThreadLocal));
    CUDA_OK(cu_attn_decode(r.stream, &r.attn, &r.tables, 2, splits, r.partials.at));
    CUDA_OK(cudaStreamEndCapture(r.stream, &graph));
    CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
    CUDA_OK(cudaGraphLaunch(exec, r.stream));
    rig_check(r, r.finish(), rig_single);
    /* Another step: the second entry alone, at an earlier position with the same q. */
    r.rows.put({0, 1});
    r.first_pos.put({600, 20});
    std::vector<uint16_t> untouched(r.out_elements() + 8, RIG_UNTOUCHED);
    r.out.put(untouched);
    CUDA_OK(cudaGraphLaunch(exec, r.stream));
    std::vector<uint16_t> graphed = r.finish();
    ck_assert_mem_eq(graphed.data(), untouched.data(), m.n_heads() * 64 * 2);
    r.out.put(untouched);
    std::vector<uint16_t> direct = r.decode();
    ck_assert_mem_eq(graphed.data(), direct.data(), direct.size() * 2);
    ck_assert_uint_ne(graphed[m.n_heads() * 64], RIG_UNTOUCHED);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
}
END_TEST

/* Splits and whole rows, heads in one unit and in two, an entry that is left alone. */
START_TEST(results_are_left_quantised_too) {
    for (cu_type t : {CU_F16, CU_BF16})
        for (rig_model m : {model_of(64, 2, 3, t, t, 16), model_of(128, 1, 20, t, CU_F16, 16),
                            model_of(32, 2, 1, t, t, 16)}) {
            rig r(m, {{1, 600, 1}, {2, 30, 1}, {3, 0, 1}, {4, 130, 1}});
            const uint32_t cols = m.n_heads() * m.head_dim, n = 4;
            const size_t bytes = cu_quantized_bytes(n, cols);
            rig_array<uint8_t> got, want;
            got.put(std::vector<uint8_t>(bytes)), want.put(std::vector<uint8_t>(bytes));
            r.attn.codes.codes = got.at;
            rig_check(r, r.decode(), rig_single);
            CUDA_OK(cu_quantize(r.stream, m.t, n, cols, cols, r.out.at, want.at));
            CUDA_OK(cudaStreamSynchronize(r.stream));
            ck_assert(got.get(bytes) == want.get(bytes));
        }
    rig r(model_of(80, 1, 1, CU_F16, CU_F16, 16), {{1, 5, 1}});
    r.attn.codes.codes = r.out.at;
    ck_assert(cu_attn_decode(r.stream, &r.attn, &r.tables, 1, 1, r.partials.at) ==
              cudaErrorInvalidValue);
}
END_TEST

/* Decode attention that rotates and appends against the two kernels that do so one after the other: the same bits of
 * the results and of the cache, where the newest row was not before. */
static void check_turns(rig_model m, rope_pairing pairing, uint32_t n_dims, bool q_alone) {
    const uint32_t n = 4;
    rig a(m, {{1, 600, 1}, {2, 30, 1}, {3, 0, 1}, {4, 130, 1}}),
        b(m, {{1, 600, 1}, {2, 30, 1}, {3, 0, 1}, {4, 130, 1}});
    std::vector<uint16_t> rows = a.qkv.get(n * a.ld() + 8), cache = a.kv.get(a.kv.n);
    for (size_t i = 0; i < rows.size(); i++)
        rows[i] = rig_round(m.t, 2 * sinf(0.37f * (float)i * (float)i));
    for (size_t i = 0; i < 4 && !q_alone; i++) { /* nothing is at the newest positions yet */
        const rig_entry &e = a.entries[i];
        const kv_format f = m.format();
        const size_t block = (size_t)a.table[i * a.table_stride + (uint32_t)e.first_pos / 16];
        for (uint32_t h = 0; h < m.n_kv_heads; h++)
            for (uint32_t d = 0; d < m.head_dim; d++) {
                uint16_t *part = &cache[block * a.block_elements(f) + h * f.part_bytes / 2];
                const uint32_t token = (uint32_t)e.first_pos % 16;
                part[kv_k_code(&f, token, d).at / 2] = part[kv_v_code(&f, token, d).at / 2] =
                    RIG_NAN;
            }
    }
    std::vector<cu_freq> freqs(1);
    for (uint32_t i = 0; i < n_dims / 2; i++)
        freqs.push_back({(float)pow(1e4, -2.0 * i / n_dims), 1e-9f});
    rig_array<cu_freq> f;
    f.put(freqs);
    std::vector<int32_t> pos, entry;
    for (size_t i = 0; i < n; i++)
        pos.push_back(a.entries[i].first_pos), entry.push_back((int32_t)i);
    rig_array<int32_t> dpos, dentry;
    dpos.put(pos), dentry.put(entry);
    for (rig *r : {&a, &b}) {
        r->qkv.put(rows), r->kv.put(cache);
        r->tables.pos = dpos.at, r->tables.entry = dentry.at;
    }
    cu_rope rope = {a.attn.kv, m.t,      a.qkv.at, a.ld(),  m.n_heads(), pairing,
                    n_dims,    f.at + 1, 1.25f,    cu_kv(), q_alone};
    CUDA_OK(cu_rope_append(a.stream, &rope, &a.tables, n));
    const std::vector<uint16_t> want = a.decode();
    rope.kv = b.attn.kv, rope.qkv = b.qkv.at;
    b.attn.rope = &rope;
    for (bool settled : {true, false}) {
        b.kv.put(cache);
        b.attn.settled = settled;
        ck_assert(b.decode() == want);
        ck_assert(b.kv.get(b.kv.n) == a.kv.get(a.kv.n));
    }
    ck_assert(b.qkv.get(rows.size()) == rows);
}

START_TEST(rotating_and_appending_within_attention_changes_no_bit) {
    for (cu_type t : {CU_F16, CU_BF16}) {
        check_turns(model_of(64, 2, 3, t, CU_F16, 16), ROPE_HALVES, 64, false);
        check_turns(model_of(128, 1, 20, t, t, 16), ROPE_ADJACENT, 128, false);
        check_turns(model_of(96, 2, 1, t, CU_BF16, 16), ROPE_HALVES, 36, false);
        check_turns(model_of(80, 1, 2, t, t, 16), ROPE_ADJACENT, 22, true);
        check_turns(model_of(256, 1, 2, t, t, 16), ROPE_HALVES, 0, false);
    }
    rig_model windowed = model_of(64, 1, 4, CU_F16, CU_F16, 16);
    windowed.window = 40;
    check_turns(windowed, ROPE_HALVES, 64, false);
}
END_TEST

START_TEST(what_the_kernels_cannot_do_is_refused) {
    rig r(model_of(64, 1, 1, CU_F16, CU_F16, 16), {{1, 5, 1}});
    cu_attn a = r.attn;
    a.kv.format.head_dim = 520;
    ck_assert(cu_attn_decode(r.stream, &a, &r.tables, 1, 1, r.partials.at) ==
              cudaErrorNotSupported);
    a.kv.format.head_dim = 60;
    ck_assert(cu_attn_decode(r.stream, &a, &r.tables, 1, 1, r.partials.at) ==
              cudaErrorNotSupported);
    a = r.attn;
    a.kv.format.block_tokens = 24;
    ck_assert(cu_attn_decode(r.stream, &a, &r.tables, 1, 1, r.partials.at) ==
              cudaErrorNotSupported);
    ck_assert(!cu_attn_supports(520, 1) && !cu_attn_supports(0, 1) && !cu_attn_supports(64, 0));
    ck_assert(cu_attn_supports(112, 24));
    ck_assert(cu_attn_supports_codes(128, 2) && !cu_attn_supports_codes(112, 7) &&
              !cu_attn_supports_codes(72, 1));
    rig_model m = model_of(64, 1, 1, CU_F16, CU_F16, 16);
    m.code = DT_INT8;
    rig codes(m, {{1, 5, 1}});
    a = codes.attn;
    a.kv.format.k_segments = 9;
    ck_assert(cu_attn_decode(r.stream, &a, &codes.tables, 1, 1, r.partials.at) ==
              cudaErrorNotSupported);
    a = codes.attn; /* whose bytes are read without a tail */
    a.tail = r.attn.kv;
    ck_assert(cu_attn_decode(r.stream, &a, &codes.tables, 1, 1, r.partials.at) ==
              cudaErrorNotSupported);
    a = r.attn; /* numbers of two types */
    a.kv.format.v = *kv_type_get(DT_BF16);
    ck_assert(cu_attn_decode(r.stream, &a, &r.tables, 1, 1, r.partials.at) ==
              cudaErrorNotSupported);
}
END_TEST

CHECK_MAIN("attn_decode", every_head_size_and_type_agrees_with_float64,
           every_type_of_codes_agrees_with_float64, tails_and_pairs_of_types_agree_with_float64,
           caps_and_sinks_agree_with_float64, every_group_agrees_with_float64,
           splits_agree_with_float64, windows_agree_with_float64,
           long_contexts_take_longer_splits, no_row_needs_more_splits_than_the_plan_has,
           other_entries_are_left_alone, nothing_to_do_is_no_error,
           an_entry_that_lacks_splits_is_not_a_number,
           a_sequence_gets_the_same_bits_alone_and_amid_others,
           more_items_than_blocks_agree_with_float64, a_captured_step_follows_its_tables,
           results_are_left_quantised_too,
           rotating_and_appending_within_attention_changes_no_bit,
           what_the_kernels_cannot_do_is_refused)
