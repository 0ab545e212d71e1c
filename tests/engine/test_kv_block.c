/* The format of a KV block: published sizes, no two elements at one place, nothing outside the
 * part, and the refusals. Quantised types that no engine has yet are made up here, with the
 * bytes that docs and peers give for them. */
#include <stdlib.h>
#include <string.h>

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

/* int8 with an f16 scale, int4 with a scale and a zero point in 16 bits. */
START_TEST(words_of_quantised_types_have_their_places) {
    static const kv_type int8 = {DT_I8, 8, 2}, int4 = {DT_NONE, 4, 2};
    static const struct {
        const kv_type *k, *v;
        uint32_t bytes[3]; /* of a part, heads of 64, 128, 256 */
    } row[] = {{&int8, &int8, {2112, 4224, 8448}},
               {&int8, &int4, {1600, 3200, 6400}},
               {&int4, &int4, {1088, 2176, 4352}}};
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t j = 0; j < 6; j++) {
            const uint32_t hd = 64u << j % 3;
            kv_format f;
            kv_format_init(&f, j < 3 ? KV_LANES : KV_ROWS, row[i].k, row[i].v, 16, 2, hd);
            ck_assert_uint_eq(f.part_bytes, row[i].bytes[j % 3]);
            ck_assert_uint_eq(f.segments, hd / 64);
            ck_assert_uint_eq(kv_k_word_at(&f, 0, 0), f.k_words_at);
            ck_assert_uint_eq(kv_k_word_at(&f, f.segments - 1, 15) + 2, f.v_words_at);
            ck_assert_uint_eq(kv_v_word_at(&f, f.segments - 1, 15) + 2, f.part_bytes);
            ck_assert_uint_eq(kv_v_token_at(&f, 16), f.k_words_at);
        }
    kv_format f; /* heads of 80: five segments of 16, as its rotation has */
    kv_format_init(&f, KV_LANES, &int8, &int8, 16, 1, 80);
    ck_assert_uint_eq(f.segments, 5);
    ck_assert_uint_eq(f.part_bytes, 2 * (16 * 80 + 5 * 16 * 2));
}
END_TEST

/* Takes bytes [at, at + n) of a part, which nothing else has. */
static void take(unsigned char *used, const kv_format *f, uint32_t at, uint32_t n) {
    SWEEP(at + n <= f->part_bytes);
    for (uint32_t i = 0; i < n; i++) SWEEP(used[at + i]++ == 0);
}

START_TEST(every_element_of_every_format_has_bytes_of_its_own) {
    static const dtype types[] = {DT_F16, DT_BF16, DT_F32};
    static const uint32_t dims[] = {8, 40, 64, 96, 256};
    for (uint32_t i = 0; i < 2 * 9 * 6 * 5; i++) {
        const kv_order order = i % 2 ? KV_ROWS : KV_LANES;
        const dtype k = types[i / 2 % 3], v = types[i / 6 % 3];
        const uint32_t bt = 8u << i / 18 % 6, hd = dims[i / 108];
        const kv_format f = format(order, k, v, bt, 2, hd);
        const uint32_t ke = kv_bits(k) / 8, ve = kv_bits(v) / 8;
        unsigned char *used = calloc(1, f.part_bytes);
        ck_assert_ptr_nonnull(used);
        for (uint32_t t = 0; t < bt; t++) {
            for (uint32_t d = 0; d < hd; d++)
                take(used, &f, kv_k_group_at(&f, t) + (d * f.lanes + t % f.lanes) * ke, ke);
            for (uint32_t d = 0; d < f.v_dims; d++)
                take(used, &f, kv_v_token_at(&f, t) + d * ve, ve);
        }
        /* Without words there is nothing else, and no gap. */
        ck_assert_ptr_null(memchr(used, 0, f.part_bytes));
        ck_assert(f.part_bytes % 64 == 0 && f.part_bytes % bt == 0);
        ck_assert_uint_eq(f.layer_bytes, 2 * f.part_bytes);
        free(used);
    }
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
    ck_assert(kv_type_get(DT_Q8_0) == NULL && kv_bits(DT_Q8_0) == 0);
    ck_assert_uint_eq(kv_type_get(DT_F32)->bits, 32);
}
END_TEST

CHECK_MAIN("kv block", the_example_of_the_header_holds,
           words_of_quantised_types_have_their_places,
           every_element_of_every_format_has_bytes_of_its_own,
           a_type_that_an_engine_lacks_is_named_with_its_option)
