/* Rows encoded and decoded: against gguf-py's bytes and values, against the errors of ggml's search, and the
 * AVX2 encoders against the plain ones. The files of goldens say how they were made. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/hash.h"
#include "quant/encode.h"
#include "quant/grouped.h"
#include "quant/pack.h"
#include "quant/quant.h"
#include "tests/check_main.h"

enum { MAX_ROWS = 16, MAX_INPUTS = 512 };

static FILE *golden(const char *path) {
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s: run this in the repository's root", path);
    return f;
}
static bool get(FILE *f, void *out, size_t n) {
    return fread(out, 1, n, f) == n;
}

static struct {
    uint32_t rows, inputs;
    float x[MAX_ROWS][MAX_INPUTS], importance[MAX_INPUTS];
} in;

static FILE *open_rows(void) {
    FILE *f = golden("tests/golden/encoded.bin");
    ck_assert(get(f, &in.rows, 4) && get(f, &in.inputs, 4));
    ck_assert(in.rows <= MAX_ROWS && in.inputs == MAX_INPUTS);
    ck_assert(get(f, in.x, sizeof(float) * in.rows * in.inputs));
    ck_assert(get(f, in.importance, sizeof(float) * in.inputs));
    return f;
}

static double error_of(dtype t, const float *importance) {
    static float y[MAX_INPUTS];
    static unsigned char coded[4 * MAX_INPUTS];
    double sum = 0;
    for (uint32_t r = 0; r < in.rows; r++) {
        quant_encode_row(t, in.x[r], in.inputs, importance, coded);
        quant_decode_row(t, coded, in.inputs, y);
        sum += quant_error(in.x[r], y, in.inputs, importance);
    }
    return sum;
}

START_TEST(rounded_rows_have_the_bytes_of_the_reference) {
    static unsigned char want[4 * MAX_INPUTS], coded[4 * MAX_INPUTS];
    FILE *f = open_rows();
    uint32_t type, kind;
    int n = 0;
    while (get(f, &type, 4) && get(f, &kind, 4) && kind == 0) {
        const size_t bytes = quant_row_bytes((dtype)type, in.inputs);
        for (uint32_t r = 0; r < in.rows; r++) {
            ck_assert(get(f, want, bytes));
            quant_encode_row((dtype)type, in.x[r], in.inputs, NULL, coded);
            ck_assert_msg(memcmp(want, coded, bytes) == 0, "%s, row %u",
                          dtype_name((dtype)type), r);
        }
        n++;
    }
    fclose(f);
    ck_assert_int_eq(n, 8);
}
END_TEST

START_TEST(searched_rows_lose_no_more_than_by_ggml) {
    FILE *f = open_rows();
    uint32_t type, kind;
    double plain, weighted;
    int n = 0;
    while (get(f, &type, 4) && get(f, &kind, 4)) {
        const dtype t = (dtype)type;
        if (kind == 0) {
            fseek(f, (long)(quant_row_bytes(t, in.inputs) * in.rows), SEEK_CUR);
            continue;
        }
        ck_assert(get(f, &plain, 8) && get(f, &weighted, 8));
        const double with = error_of(t, in.importance);
        ck_assert_msg(with <= weighted, "%s, weighted: %g, ggml %g", dtype_name(t), with,
                      weighted);
        if (!quant_rtn_plain(t)) {
            const double without = error_of(t, NULL);
            ck_assert_msg(without <= plain, "%s: %g, ggml %g", dtype_name(t), without, plain);
        }
        n++;
    }
    fclose(f);
    ck_assert_int_eq(n, 11);
}
END_TEST

START_TEST(decoded_rows_have_the_values_of_the_reference) {
    static unsigned char blocks[1024];
    static float want[MAX_INPUTS], got[MAX_INPUTS];
    uint32_t head[3];
    int n = 0;
    FILE *f = golden("tests/golden/quants.bin");
    while (get(f, head, sizeof head)) {
        const dtype t = (dtype)head[0];
        const size_t bytes = quant_row_bytes(t, head[2]);
        const long values = ftell(f) + (long)(bytes * head[1]);
        if (!quant_reads(t)) {
            ck_assert_int_eq(t, DT_NVFP4);
            fseek(f, values + (long)(sizeof(float) * head[2] * head[1]), SEEK_SET);
            continue;
        }
        for (uint32_t r = 0; r < head[1]; r++) {
            fseek(f, values - (long)(bytes * (head[1] - r)), SEEK_SET);
            ck_assert(get(f, blocks, bytes));
            fseek(f, values + (long)(sizeof(float) * head[2] * r), SEEK_SET);
            ck_assert(get(f, want, sizeof(float) * head[2]));
            quant_decode_row(t, blocks, head[2], got);
            for (uint32_t i = 0; i < head[2]; i++)
                SWEEP(got[i] == want[i] || (isnan(got[i]) && isnan(want[i])));
        }
        n++;
    }
    fclose(f);
    ck_assert_int_eq(n, 24);
}
END_TEST

static float random_float(uint64_t *state) {
    *state += 1;
    const uint64_t h = hash_mix(*state);
    const float u = (float)(h >> 40) * 0x1p-24f - 0.5f;
    return u * u * u * (h & 255 ? 1.0f : 30.0f) * powf(2, (float)(h >> 8 & 7) - 4);
}

static void same_on_both(dtype t, quant_encoder *plain, quant_encoder *wide, uint64_t seed) {
    static float x[MAX_INPUTS], w[MAX_INPUTS];
    static unsigned char a[4 * MAX_INPUTS], b[4 * MAX_INPUTS];
    for (int i = 0; i < MAX_INPUTS; i++) {
        x[i] = random_float(&seed);
        w[i] = fabsf(random_float(&seed));
    }
    for (int weighted = 0; weighted < 2; weighted++) {
        plain(x, MAX_INPUTS, weighted ? w : NULL, a);
        wide(x, MAX_INPUTS, weighted ? w : NULL, b);
        ck_assert_msg(memcmp(a, b, quant_row_bytes(t, MAX_INPUTS)) == 0, "%s", dtype_name(t));
    }
}

START_TEST(every_instruction_set_gives_the_same_bytes) {
    if (!__builtin_cpu_supports("avx2")) return;
    for (uint32_t number = 0; number < 64; number++) {
        const dtype t = (dtype)number;
        for (uint64_t seed = 0; seed < 20; seed++) {
            if (quant_rtn_plain(t))
                same_on_both(t, quant_rtn_plain(t), quant_rtn_avx2(t), seed << 32);
            if (quant_search_plain(t))
                same_on_both(t, quant_search_plain(t), quant_search_avx2(t), seed << 32);
        }
    }
}
END_TEST

START_TEST(a_block_packs_to_what_unpacks_to_it) {
    static const dtype types[] = {DT_Q2_K, DT_Q3_K, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_IQ4_XS};
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        unsigned char bytes[256], again[256];
        uint64_t seed = k;
        super_block b;
        const size_t n = quant_row_bytes(types[k], SUPER);
        for (int round = 0; round < 50; round++) {
            for (size_t i = 0; i < n; i++) bytes[i] = (unsigned char)hash_mix(++seed);
            super_unpack(types[k], bytes, &b);
            super_pack(types[k], &b, again);
            ck_assert_mem_eq(bytes, again, n);
        }
    }
}
END_TEST

START_TEST(an_input_of_no_weight_does_not_count) {
    float x[32], y[32], w[32];
    unsigned char coded[64];
    for (int i = 0; i < 32; i++) x[i] = (float)(i % 15) - 7, w[i] = 1;
    x[3] = 100; /* alone it would take all the codes */
    w[3] = 0;
    quant_encode_row(DT_Q4_0, x, 32, w, coded);
    quant_decode_row(DT_Q4_0, coded, 32, y);
    for (int i = 0; i < 32; i++) ck_assert(i == 3 || fabsf(x[i] - y[i]) < 0.01f);
    for (int i = 0; i < 32; i++) w[i] = 0;
    quant_encode_row(DT_Q4_0, x, 32, w, coded); /* all the same: as without */
    quant_decode_row(DT_Q4_0, coded, 32, y);
    ck_assert(fabsf(y[3] - 100) < 20);
}
END_TEST

START_TEST(types_that_no_engine_computes_with_are_not_encoded) {
    ck_assert(quant_can(DT_F32) && quant_can(DT_BF16) && quant_can(DT_IQ4_XS));
    ck_assert(!quant_can(DT_IQ2_XXS) && !quant_can(DT_I32) && quant_can(DT_MXFP4));
    ck_assert(quant_reads(DT_IQ2_XXS) && quant_reads(DT_TQ1_0) && !quant_reads(DT_NVFP4));
}
END_TEST

/* Blocks of every code, with a scale that F16 holds. */
static void fill_groups(dtype t, uint8_t *out, size_t n) {
    const dtype_block block = dtype_block_of(t);
    const uint32_t head = dtype_scale(t) == DT_F32 ? 4 : 2;
    for (size_t i = 0; i < n / block.elems; i++, out += block.bytes) {
        const float scale = 0.5f + 0.25f * (float)i;
        const uint16_t h =
            dtype_scale(t) == DT_F16 ? half_of_float(scale) : bf16_of_float(scale);
        for (uint32_t k = 0; k < block.bytes; k++) out[k] = (uint8_t)(k * 37 + i * 11);
        memcpy(out, head == 4 ? (const void *)&scale : &h, head);
        if (dtype_kind(t) == DT_I4Z) out[head] = (uint8_t)(i * 5 % 17);
        if (dtype_kind(t) != DT_F8) continue;
        for (uint32_t k = head; k < block.bytes; k++) out[k] &= 0xbf; /* no NaN */
    }
}

START_TEST(groups_have_their_numbers_as_blocks_of_32) {
    enum { N = 256 };
    static const dtype kinds[] = {DT_I4, DT_I4Z, DT_I8G}, scales[] = {DT_F16, DT_BF16, DT_F32};
    static uint8_t groups[N * 4], blocks[N * 4];
    static float x[N], y[N];
    for (int i = 0; i < 9; i++) {
        const dtype t = dtype_grouped(kinds[i / 3], scales[i % 3], i % 2 ? 32 : 128);
        fill_groups(t, groups, N);
        ck_assert(quant_reads(t) && !quant_can(t));
        ck_assert(quant_ungroup_row(t, groups, N, blocks));
        quant_decode_row(t, groups, N, x);
        quant_decode_row(quant_ungrouped(t), blocks, N, y);
        for (int k = 0; k < N; k++) ck_assert_msg(x[k] == y[k], "%s, %d", dtype_name(t), k);
    }
    const dtype wide = dtype_grouped(DT_I4, DT_F32, 32);
    const float third = 1.0f / 3.0f;
    fill_groups(wide, groups, N);
    memcpy(groups + dtype_block_of(wide).bytes, &third, 4); /* F16 does not hold it */
    ck_assert(!quant_ungroup_row(wide, groups, N, blocks));
}
END_TEST

START_TEST(codes_of_e4m3_are_its_numbers) {
    const dtype t = dtype_grouped(DT_F8, DT_F32, 32);
    static uint8_t group[4 + 32];
    float x[32];
    const float scale = 2;
    memcpy(group, &scale, 4);
    group[4] = 0x38, group[5] = 0x7e, group[6] = 0x01, group[7] = 0x81, group[8] = 0x3c,
    group[9] = 0x08;
    quant_decode_row(t, group, 32, x);
    ck_assert(x[0] == 2 && x[1] == 896 && x[2] == 0x1p-8f && x[3] == -0x1p-8f && x[4] == 3 &&
              x[5] == 0x1p-5f);
    ck_assert(quant_ungrouped(t) == DT_NONE);
}
END_TEST

/* 257 zero points, from that of the lowest code to one beyond the highest. */
START_TEST(numbers_of_8_bits_are_codes_less_a_zero_point) {
    const dtype t = dtype_grouped(DT_I8Z, DT_BF16, 32);
    static uint8_t group[2 + 2 + 32];
    const uint16_t half = bf16_of_float(0.5f);
    float x[32];
    ck_assert_uint_eq(dtype_block_of(t).bytes, sizeof group);
    memcpy(group, &half, 2);
    for (int zero = -128; zero <= 128; zero++) {
        const int16_t z = (int16_t)zero;
        memcpy(group + 2, &z, 2);
        for (int i = 0; i < 32; i++) group[4 + i] = (uint8_t)(i * 37 + zero);
        quant_decode_row(t, group, 32, x);
        for (int i = 0; i < 32; i++)
            ck_assert(x[i] == 0.5f * (float)((int8_t)group[4 + i] - zero));
    }
    ck_assert(quant_reads(t) && quant_ungrouped(t) == DT_NONE);
}
END_TEST

CHECK_MAIN("quant", numbers_of_8_bits_are_codes_less_a_zero_point,
           groups_have_their_numbers_as_blocks_of_32, codes_of_e4m3_are_its_numbers,
           rounded_rows_have_the_bytes_of_the_reference,
           searched_rows_lose_no_more_than_by_ggml,
           decoded_rows_have_the_values_of_the_reference,
           every_instruction_set_gives_the_same_bytes, a_block_packs_to_what_unpacks_to_it,
           an_input_of_no_weight_does_not_count,
           types_that_no_engine_computes_with_are_not_encoded)
