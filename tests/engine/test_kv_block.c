/* The format of a KV block: published sizes, no two elements at one place, nothing outside the
 * part, and the refusals. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "engine/kv_block.h"
#include "tests/check_main.h"

static kv_format format(kv_order order, dtype k, dtype v, uint32_t bt, uint32_t heads,
                        uint32_t hd) {
    kv_format f;
    kv_format_init(&f, order, kv_type_get(k), kv_type_get(v), bt, heads, hd);
    return f;
}

START_TEST(the_example_of_the_header_holds) {
    kv_format f = format(KV_LANES, DT_F16, DT_F16, 16, 3, 64);
    ck_assert_uint_eq(f.v_at, 2048);
    ck_assert_uint_eq(f.part_bytes, 4096);
    ck_assert_uint_eq(f.layer_bytes, 3 * 4096);
    ck_assert_uint_eq(kv_block_bytes(&f, 30), 368640); /* SmolLM2-135M */
    ck_assert_uint_eq(kv_part_at(&f, 2, 1), 2 * 12288 + 4096);
    ck_assert_uint_eq(kv_k_group_at(&f, 5) + (3 * f.lanes + 5 % f.lanes) * 2, 106);
    ck_assert_uint_eq(kv_v_token_at(&f, 5) + 3 * 2, 2694);
    f = format(KV_ROWS, DT_F16, DT_F16, 16, 3, 64);
    ck_assert_uint_eq(f.lanes, 1);
    ck_assert_uint_eq(kv_k_group_at(&f, 5) + 3 * 2, 646);
    ck_assert_uint_eq(kv_v_token_at(&f, 5) + 3 * 2, 2694);
    /* Llama-3-8B: a block is 2 MiB. */
    f = format(KV_ROWS, DT_BF16, DT_BF16, 16, 8, 128);
    ck_assert_uint_eq(kv_block_bytes(&f, 32), 2 << 20);
}
END_TEST

START_TEST(parts_of_quantised_types_have_the_bytes_of_the_table) {
    static const struct {
        dtype k, v;
        uint32_t bytes[3]; /* of a part of 16 tokens, heads of 64, 128, 256 */
    } row[] = {{DT_INT8, DT_INT8, {2112, 4224, 8448}}, {DT_FP8, DT_FP8, {2112, 4224, 8448}},
               {DT_Q8_0, DT_Q8_0, {2176, 4352, 8704}}, {DT_INT8, DT_INT4, {1600, 3200, 6400}},
               {DT_INT4, DT_INT4, {1088, 2176, 4352}}, {DT_F16, DT_INT8, {3136, 6208, 12416}}};
    for (uint32_t i = 0; i < 6; i++)
        for (uint32_t j = 0; j < 6; j++) {
            const uint32_t hd = 64u << j % 3;
            const kv_format f =
                format(j < 3 ? KV_LANES : KV_ROWS, row[i].k, row[i].v, 16, 2, hd);
            ck_assert_uint_eq(f.part_bytes, align_up(row[i].bytes[j % 3], 64));
            ck_assert_uint_eq(f.v_segments, hd / (row[i].v == DT_Q8_0 ? 32 : 64));
            if (row[i].k == DT_F16) continue;
            ck_assert_uint_eq(f.k_segments, f.v_segments);
            ck_assert_uint_eq(kv_k_word_at(&f, 0, 0), f.k_words_at);
            ck_assert_uint_eq(kv_k_word_at(&f, f.k_segments - 1, 15) + 2, f.v_words_at);
            ck_assert_uint_eq(kv_v_word_at(&f, f.v_segments - 1, 15) + 2, f.part_bytes);
            ck_assert_uint_eq(kv_v_token_at(&f, 16), f.k_words_at);
        }
    /* Heads of 80: five segments of 16, as the rotation has; without words there are none. */
    kv_format f = format(KV_LANES, DT_INT8, DT_INT8, 16, 1, 80);
    ck_assert_uint_eq(f.k_segments, 5);
    ck_assert_uint_eq(f.k_segment, 16);
    ck_assert_uint_eq(f.part_bytes, 2 * (16 * 80 + 5 * 16 * 2));
    f = format(KV_LANES, DT_F16, DT_Q8_0, 16, 1, 96);
    ck_assert(f.k_segments == 1 && f.k_segment == 96 && f.v_segments == 3);
    /* Bytes of a token of SmolLM2-135M and Llama-3-8B. */
    f = format(KV_LANES, DT_INT8, DT_INT8, 16, 3, 64);
    ck_assert_uint_eq(kv_block_bytes(&f, 30) / 16, 11880);
    f = format(KV_ROWS, DT_INT8, DT_INT8, 16, 8, 128);
    ck_assert_uint_eq(kv_block_bytes(&f, 32) / 16, 67584);
}
END_TEST

/* Takes bytes [at, at + n) of a part, which nothing else has. */
static void take(unsigned char *used, const kv_format *f, uint32_t at, uint32_t n) {
    SWEEP(at + n <= f->part_bytes);
    for (uint32_t i = 0; i < n; i++) SWEEP(used[at + i]++ == 0);
}

/* Takes what a place has of its byte: all of it, or half. */
static void take_code(unsigned char *used, const kv_format *f, kv_place p, uint32_t bits) {
    if (bits >= 8) return take(used, f, p.at, bits / 8);
    SWEEP(p.at < f->part_bytes && (p.shift == 0 || p.shift == 4));
    SWEEP((used[p.at] >> p.shift & 15) == 0);
    used[p.at] = (unsigned char)(used[p.at] | 1 << p.shift);
}

START_TEST(every_element_of_every_format_has_bytes_of_its_own) {
    static const dtype types[] = {DT_F16, DT_F32, DT_INT8, DT_Q8_0, DT_INT4};
    static const uint32_t dims[] = {16, 40, 64, 96, 256};
    for (uint32_t i = 0; i < 2 * 25 * 6 * 5; i++) {
        const kv_order order = i % 2 ? KV_ROWS : KV_LANES;
        const dtype k = types[i / 2 % 5], v = types[i / 10 % 5];
        const uint32_t bt = 8u << i / 50 % 6, hd = dims[i / 300];
        err e;
        if (kv_sizes_check(k, v, bt, hd, &e) != OK) continue;
        const kv_format f = format(order, k, v, bt, 2, hd);
        unsigned char *used = calloc(1, f.part_bytes);
        uint32_t n = 0;
        ck_assert_ptr_nonnull(used);
        for (uint32_t t = 0; t < bt; t++) {
            for (uint32_t d = 0; d < hd; d++)
                take_code(used, &f, kv_k_code(&f, t, d), f.k.bits);
            for (uint32_t d = 0; d < f.v_dims; d++)
                take_code(used, &f, kv_v_code(&f, t, d), f.v.bits);
            for (uint32_t s = 0; f.k.word_bytes && s < f.k_segments; s++)
                take(used, &f, kv_k_word_at(&f, s, t), 2);
            for (uint32_t s = 0; f.v.word_bytes && s < f.v_segments; s++)
                take(used, &f, kv_v_word_at(&f, s, t), 2);
        }
        for (uint32_t b = 0; b < f.part_bytes; b++) n += used[b] == 0;
        ck_assert_uint_lt(n, 64); /* but for the part's last line there is no gap */
        for (uint32_t b = 0; b + n < f.part_bytes; b++) SWEEP(used[b] == 1 || used[b] == 17);
        ck_assert(f.part_bytes % 64 == 0 && f.part_bytes % bt == 0);
        ck_assert_uint_eq(f.layer_bytes, 2 * f.part_bytes);
        free(used);
    }
}
END_TEST

START_TEST(sizes_that_a_quantised_type_cannot_have_are_named) {
    static const struct {
        dtype k, v;
        uint32_t bt, hd;
        status s;
        const char *field, *type;
    } row[] = {{DT_INT8, DT_F16, 8, 64, ERR_INVALID, "block_size", "INT8"},
               {DT_F16, DT_INT4, 8, 64, ERR_INVALID, "block_size", "INT4"},
               {DT_Q8_0, DT_Q8_0, 16, 40, ERR_UNSUPPORTED, "head_dim", "Q8_0"},
               {DT_F32, DT_FP8, 16, 72, ERR_UNSUPPORTED, "head_dim", "FP8"}};
    err e;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        ck_assert_int_eq(kv_sizes_check(row[i].k, row[i].v, row[i].bt, row[i].hd, &e),
                         row[i].s);
        ck_assert_str_eq(e.field, row[i].field);
        ck_assert_ptr_nonnull(strstr(e.text, row[i].type));
    }
    ck_assert_int_eq(kv_sizes_check(DT_F16, DT_F32, 8, 40, &e), OK);
    ck_assert_int_eq(kv_sizes_check(DT_INT4, DT_INT8, 16, 80, &e), OK);
}
END_TEST

/* As DeepSeek V3 has it: 576 dimensions of which V is 512, with and without scales for each 64. */
START_TEST(a_latent_row_is_k_alone) {
    static const struct {
        dtype type;
        uint32_t bytes; /* of 16 tokens */
    } row[] = {{DT_F16, 16 * 576 * 2},
               {DT_F32, 16 * 576 * 4},
               {DT_INT8, 16 * (576 + 9 * 2)},
               {DT_Q8_0, 16 * (576 + 18 * 2)},
               {DT_INT4, 16 * (288 + 9 * 2)}};
    err e;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        kv_format f = format(KV_LANES, row[i].type, row[i].type, 16, 1, 576);
        kv_format_drop_v(&f, 512);
        ck_assert_uint_eq(f.part_bytes, align_up(row[i].bytes, 64));
        ck_assert_uint_eq(f.v_dims, 512);
        ck_assert(f.v.type == DT_F32 && f.v.rotated == f.k.rotated && f.v_segments == 1);
        ck_assert_int_eq(kv_latent_check(row[i].type, row[i].type, 576, 512, &e), OK);
    }
}
END_TEST

START_TEST(a_latent_row_of_two_types_or_with_a_group_that_is_both_is_refused) {
    err e;
    ck_assert_int_eq(kv_latent_check(DT_F16, DT_INT8, 576, 512, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "cache_type_v");
    ck_assert_int_eq(kv_latent_check(DT_INT8, DT_INT8, 576, 480, &e), ERR_UNSUPPORTED);
    ck_assert_str_eq(e.field, "head_dim");
    ck_assert_ptr_nonnull(strstr(e.text, "INT8"));
    ck_assert_int_eq(kv_latent_check(DT_Q8_0, DT_Q8_0, 576, 480, &e), OK); /* groups of 32 */
    ck_assert_int_eq(kv_latent_check(DT_BF16, DT_BF16, 576, 500, &e), OK);
}
END_TEST

START_TEST(a_type_that_an_engine_lacks_is_named_with_its_option) {
    static const dtype known[] = {DT_F16, DT_BF16};
    static const struct {
        dtype k, v;
        const char *field, *type;
    } row[] = {{DT_F32, DT_F32, "kv_cache_dtype", "F32"},
               {DT_Q8_0, DT_F16, "cache_type_k", "Q8_0"},
               {DT_F16, DT_Q4_0, "cache_type_v", "Q4_0"},
               {DT_Q8_0, DT_Q4_0, "cache_type_k", "Q8_0"}};
    err e;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        ck_assert_int_eq(kv_types_check(row[i].k, row[i].v, known, 2, "CUDA", &e),
                         ERR_UNSUPPORTED);
        ck_assert_str_eq(e.field, row[i].field);
        ck_assert_ptr_nonnull(strstr(e.text, row[i].type));
        ck_assert_str_eq(e.hint, "types it has: F16, BF16");
    }
    ck_assert_int_eq(kv_types_check(DT_F16, DT_BF16, known, 2, "CUDA", &e), OK);
    ck_assert(kv_type_get(DT_Q4_0) == NULL && kv_bits(DT_Q4_0) == 0);
    ck_assert_uint_eq(kv_type_get(DT_F32)->bits, 32);
}
END_TEST

CHECK_MAIN("kv block", the_example_of_the_header_holds,
           parts_of_quantised_types_have_the_bytes_of_the_table,
           every_element_of_every_format_has_bytes_of_its_own,
           sizes_that_a_quantised_type_cannot_have_are_named, a_latent_row_is_k_alone,
           a_latent_row_of_two_types_or_with_a_group_that_is_both_is_refused,
           a_type_that_an_engine_lacks_is_named_with_its_option)
