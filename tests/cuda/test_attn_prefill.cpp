/* Prefill attention of ragged chunks against float64, and the same bits however a sequence is
 * cut into chunks and tiles. */
#include "tests/cuda/attn_rig.h"

static rig_model model_of(uint32_t head_dim, uint32_t n_kv_heads, uint32_t group, cu_type t,
                          cu_type kv, uint32_t block_tokens, uint32_t window = 0) {
    return {head_dim, n_kv_heads, group, window, t, kv, block_tokens};
}

static bool many_rows(const rig_entry &e) {
    return e.n_rows >= 2;
}

static void check_prefill(const rig_model &m, const std::vector<rig_entry> &e, int every = 1) {
    rig r(m, e);
    rig_check(r, r.prefill(2), many_rows, every);
}

START_TEST(every_head_size_and_type_agrees_with_float64) {
    const cu_type types[2] = {CU_F16, CU_BF16};
    const uint32_t sizes[] = {64, 80, 96, 128, 256, 8, 72, 120, 248, 320, 512};
    uint32_t n = 0;
    for (uint32_t size : sizes)
        for (cu_type t : types)
            for (cu_type kv : types) {
                if ((size < 64 || size > 128) && t != kv) continue;
                check_prefill(model_of(size, 1, 1 + n % 3, t, kv, 8u << n % 6),
                              {{1, 0, 9}, {2, 60 + (int)n, 25}, {3, 7, 1}});
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
            check_prefill(m, {{1, 0, 9}, {2, 60 + (int)n, 25}, {3, 7, 1}});
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
            check_prefill(m, {{1, 0, 9}, {2, 130 + (int)n, 25}, {3, 7, 1}, {4, 40, 90}}, 3);
            n++;
        }
}
END_TEST

/* Each form of cache, with windows, groups and tiles. */
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
                check_prefill(m, {{1, 0, 9}, {2, 60, 70}, {3, 7, 1}, {4, 300, 3}});
                n++;
            }
    rig_model m = model_of(256, 1, 17, CU_BF16, CU_BF16, 16);
    m.cap = 2, m.sinks = true;
    check_prefill(m, {{1, 300, 2}});
}
END_TEST

START_TEST(every_group_agrees_with_float64) {
    for (uint32_t group : {1, 2, 3, 5, 7, 8, 16, 24})
        check_prefill(model_of(64, 1, group, CU_F16, CU_F16, 16),
                      {{1, 50, 130 / (int)group + 3}}, 2);
    check_prefill(model_of(64, 3, 3, CU_F16, CU_F16, 16), {{1, 0, 23}, {2, 20, 2}});
}
END_TEST

START_TEST(tiles_agree_with_float64) {
    check_prefill(model_of(64, 1, 1, CU_F16, CU_F16, 16), {{1, 3, 2}, {2, 30, 135}}, 3);
    check_prefill(model_of(128, 1, 2, CU_BF16, CU_BF16, 32), {{1, 100, 70}}, 3);
    check_prefill(model_of(256, 1, 4, CU_F16, CU_F16, 32), {{1, 20, 33}}, 3);
}
END_TEST

START_TEST(windows_agree_with_float64) {
    for (uint32_t window : {1, 7, 32, 100})
        check_prefill(model_of(64, 1, 2, CU_F16, CU_F16, window % 2 ? 8 : 64, window),
                      {{1, 0, 60}, {2, 190, 75}}, 2);
    int far = (1 << 20) - 40;
    check_prefill(model_of(64, 1, 2, CU_F16, CU_F16, 256, 90), {{1, far, 40}}, 2);
}
END_TEST

START_TEST(chunks_and_tiles_do_not_change_a_bit) {
    rig_model m = model_of(64, 1, 3, CU_BF16, CU_BF16, 16);
    for (uint32_t window : {0u, 45u, 46u, 80u, 81u}) {
        m.window = window == 81 ? 0 : window;
        if (window == 46) m.code = DT_FP8, m.kv = CU_F16;
        if (window > 46) m.code = DT_INT4;
        rig whole(m, {{1, 0, 100}});
        std::vector<uint16_t> a = whole.prefill();
        whole.out.put(std::vector<uint16_t>(whole.out_elements() + 8, RIG_UNTOUCHED));
        std::vector<uint16_t> tiled = whole.prefill(1, 23);
        ck_assert_mem_eq(a.data(), tiled.data(), a.size() * 2);
        rig cut(m, {{2, 70, 40}, {1, 41, 59}, {3, 5, 1}}), one(m, {{1, 88, 1}});
        std::vector<uint16_t> b = rig_rows(cut, cut.prefill(), 1, 0, 59),
                              want = rig_rows(whole, a, 0, 41, 59);
        ck_assert_mem_eq(b.data(), want.data(), b.size() * 2);
        b = one.prefill(), want = rig_rows(whole, a, 0, 88, 1);
        ck_assert_mem_eq(b.data(), want.data(), b.size() * 2);
    }
}
END_TEST

START_TEST(decode_agrees_with_prefill) {
    rig r(model_of(64, 1, 3, CU_F16, CU_F16, 16), {{1, 600, 1}, {2, 40, 1}});
    std::vector<uint16_t> a = r.prefill();
    rig_check(r, a, rig_all);
    r.out.put(std::vector<uint16_t>(r.out_elements() + 8, RIG_UNTOUCHED));
    std::vector<uint16_t> b = r.decode();
    for (size_t i = 0; i < a.size(); i++)
        SWEEP(fabsf(half_to_float(a[i]) - half_to_float(b[i])) < 2e-3f);
}
END_TEST

START_TEST(what_the_kernels_cannot_do_is_refused) {
    rig r(model_of(64, 1, 1, CU_F16, CU_F16, 16), {{1, 5, 2}});
    cu_attn a = r.attn;
    a.kv.format.head_dim = 260;
    ck_assert(cu_attn_prefill(r.stream, &a, &r.tables, r.tiles.at, 1) == cudaErrorNotSupported);
    a = r.attn;
    a.kv.type = CU_F32;
    ck_assert(cu_attn_prefill(r.stream, &a, &r.tables, r.tiles.at, 1) == cudaErrorNotSupported);
    CUDA_OK(cu_attn_prefill(r.stream, &r.attn, &r.tables, r.tiles.at, 0));
}
END_TEST

CHECK_MAIN("attn_prefill", every_head_size_and_type_agrees_with_float64,
           every_type_of_codes_agrees_with_float64, tails_and_pairs_of_types_agree_with_float64,
           caps_and_sinks_agree_with_float64, every_group_agrees_with_float64,
           tiles_agree_with_float64, windows_agree_with_float64,
           chunks_and_tiles_do_not_change_a_bit, decode_agrees_with_prefill,
           what_the_kernels_cannot_do_is_refused)
