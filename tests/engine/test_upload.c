/* Tests of engine/cuda/upload.c: each block of tests/golden/quants.bin, made by PyPI's gguf,
 * becomes another type whose values are gguf's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "engine/cuda/upload.h"
#include "tests/check_main.h"

enum { ORDINARY_FROM = 7, ORDINARY = 7 }; /* rows with scales that are ordinary numbers */

static float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return half_to_float(h);
}

static const int8_t iq4_nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};

/* Number i of a block of 32, by the definition of its type. */
static float value_of(dtype t, const uint8_t *p, uint32_t i) {
    const float d = half_at(p);
    if (t == DT_Q8_0) return d * (float)(int8_t)p[2 + i];
    const uint8_t *codes = p + (t == DT_IQ4_NL ? 2 : t == DT_Q5_1 ? 8 : 4);
    const int nibble = i < 16 ? codes[i] & 15 : codes[i - 16] >> 4;
    if (t == DT_IQ4_NL) return d * (float)iq4_nl[nibble];
    const int fifth = t == DT_Q5_1 ? p[4 + i / 8] >> i % 8 & 1 : 0;
    return d * (float)(nibble | fifth << 4) + half_at(p + 2);
}

/* Values of n elements of what rows become. */
static void read_back(dtype t, const uint8_t *p, uint32_t n, float *out) {
    if (t == DT_F32) {
        memcpy(out, p, 4 * (size_t)n);
        return;
    }
    for (uint32_t at = 0; at < n; at++)
        out[at] = value_of(t, p + at / 32 * dtype_block_of(t).bytes, at % 32);
}

/* Largest error allowed, as a part of the largest value of the row: two roundings to f16 where
 * scales are products. */
static float allowed(dtype t) {
    if (cu_upload_type(t) == DT_F32 || t == DT_Q1_0 || t == DT_Q2_0) return 0;
    return t == DT_Q4_K || t == DT_Q5_K ? 0x1p-10f : 0x1p-11f;
}

static void check_row(dtype t, const uint8_t *file, uint32_t n, const float *want,
                      bool ordinary) {
    uint8_t *to = malloc(4 * (size_t)n);
    float *got = malloc(sizeof *got * n), most = 0;
    ck_assert(to != NULL && got != NULL);
    cu_upload(t, file, n, to);
    read_back(cu_upload_type(t), to, n, got);
    for (uint32_t i = 0; i < n; i++) most = fmaxf(most, fabsf(want[i]));
    for (uint32_t i = 0; i < n; i++) {
        const bool same = got[i] == want[i] || (isnan(got[i]) && isnan(want[i]));
        const bool near = ordinary && fabsf(got[i] - want[i]) <= allowed(t) * most;
        /* Scales that are no ordinary numbers may leave f16's range where they are rounded. */
        if (!same && !near && (ordinary || allowed(t) == 0))
            ck_abort_msg("%s [%u]: %g, not %g", dtype_name(t), i, (double)got[i],
                         (double)want[i]);
    }
    free(to);
    free(got);
}

START_TEST(blocks_become_others_of_the_same_values) {
    FILE *f = fopen("tests/golden/quants.bin", "rb");
    ck_assert_msg(f != NULL, "tests/golden/quants.bin: run this in the repository's root");
    uint32_t head[3], n_types = 0;
    while (fread(head, 4, 3, f) == 3) {
        const dtype t = (dtype)head[0];
        const uint32_t n = head[1], n_in = head[2];
        uint64_t bytes;
        ck_assert(dtype_bytes(t, n, n_in, &bytes));
        uint8_t *file = malloc(bytes);
        float *want = malloc(4 * (size_t)n * n_in);
        ck_assert(file != NULL && want != NULL && fread(file, 1, bytes, f) == bytes &&
                  fread(want, 4, (size_t)n * n_in, f) == (size_t)n * n_in);
        if (cu_upload_type(t) != t) n_types++;
        for (uint32_t r = 0; r < n && cu_upload_type(t) != t; r++)
            check_row(t, file + bytes / n * r, n_in, want + (size_t)r * n_in,
                      r >= ORDINARY_FROM && r < ORDINARY_FROM + ORDINARY);
        free(file);
        free(want);
    }
    fclose(f);
    ck_assert_uint_eq(n_types, 14);
}
END_TEST

START_TEST(types_that_the_device_stores_are_copied_as_they_are) {
    static const dtype own[] = {DT_F32,    DT_F16,   DT_BF16, DT_Q8_0, DT_Q4_0,
                                DT_Q4_1,   DT_Q5_0,  DT_Q5_1, DT_Q2_K, DT_Q3_K,
                                DT_IQ4_NL, DT_MXFP4, DT_Q6_K};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        ck_assert_int_eq(cu_upload_type(own[i]), own[i]);
}
END_TEST

/* ---- groups ---- */

/* Code i of a group's codes. */
static int code_at(dtype kind, const uint8_t *codes, uint32_t i) {
    if (kind == DT_I8G || kind == DT_I8Z || kind == DT_F8) return (int8_t)codes[i];
    const uint8_t pair = codes[i / 32 * 16 + i % 16];
    return i % 32 < 16 ? pair & 15 : pair >> 4;
}

/* A group of a scale d and codes becomes blocks with these numbers, or of F8, codes. */
static void check_group(dtype kind, dtype scale, uint32_t group) {
    const dtype t = dtype_grouped(kind, scale, group), as = cu_upload_type(t);
    const float d = 0.0625f;
    const uint16_t h = scale == DT_F16 ? half_of_float(d) : bf16_of_float(d);
    const dtype_block in = dtype_block_of(t), out = dtype_block_of(as);
    uint8_t block[96] = {0}, to[512];
    memcpy(block, scale == DT_F32 ? (const void *)&d : &h, scale == DT_F32 ? 4 : 2);
    uint8_t *codes = block + in.bytes - group * (kind == DT_I4 || kind == DT_I4Z ? 1 : 2) / 2;
    const int zero = kind == DT_I4 ? 8 : kind == DT_I4Z ? 16 : kind == DT_I8Z ? -129 : 0;
    if (kind == DT_I4Z) codes[-1] = 16;
    if (kind == DT_I8Z) codes[-2] = 127, codes[-1] = 255;
    for (uint8_t *p = codes; p < block + in.bytes; p++) *p = (uint8_t)((p - codes) * 37 + 5);
    cu_upload(t, block, group, to);
    for (uint32_t i = 0; i < group; i++) {
        const uint8_t *b = to + i / out.elems * out.bytes;
        const float want = d * (float)(code_at(kind, codes, i) - zero);
        float got;
        memcpy(&got, b, 4);
        if (kind == DT_F8) {
            ck_assert(got == d && b[4 + i % group] == codes[i]);
            continue;
        }
        if (as == DT_Q8_0) got = value_of(as, b, i % 32);
        if (as == DT_Q4_0) got = half_at(b) * (float)(code_at(DT_I4, b + 2, i % 32) - 8);
        ck_assert_float_eq(got, want);
    }
    uint64_t from, to_bytes; /* rows are read behind what they become */
    ck_assert(dtype_bytes(t, 1, 192, &from) && dtype_bytes(as, 1, 192, &to_bytes));
    ck_assert_uint_le(from, to_bytes);
}

START_TEST(groups_become_blocks_that_repeat_their_scale) {
    static const dtype kinds[] = {DT_I4, DT_I4Z, DT_I8G, DT_I8Z, DT_F8},
                       scales[] = {DT_F16, DT_BF16, DT_F32};
    for (uint32_t group = 32; group <= 64; group += 32)
        for (int k = 0; k < 5; k++)
            for (int s = 0; s < 3; s++) {
                const dtype t = dtype_grouped(kinds[k], scales[s], group);
                if (cu_upload_type(t) != t) check_group(kinds[k], scales[s], group);
            }
}
END_TEST

/* Of a type whose scales are f16 on the device: one that f16 does not hold is found in the last group, too. */
START_TEST(scales_that_f16_does_not_hold_are_found) {
    static const dtype kinds[] = {DT_I4, DT_I4Z, DT_I8G, DT_F8};
    for (int k = 0; k < 4; k++) {
        const dtype t = dtype_grouped(kinds[k], DT_F32, 64);
        const dtype_block in = dtype_block_of(t);
        const bool as_floats = cu_upload_type(t) == DT_F32 || kinds[k] == DT_F8;
        const float small = 65504, large = 65536;
        uint8_t block[256] = {0};
        memcpy(block, &small, 4);
        memcpy(block + in.bytes, &small, 4);
        ck_assert(cu_upload_fits(t, block, 128));
        memcpy(block + in.bytes, &large, 4);
        ck_assert(cu_upload_fits(t, block, 128) == as_floats);
    }
    ck_assert(cu_upload_fits(DT_Q4_K, NULL, 256));
}
END_TEST

CHECK_MAIN("upload", scales_that_f16_does_not_hold_are_found,
           groups_become_blocks_that_repeat_their_scale,
           blocks_become_others_of_the_same_values,
           types_that_the_device_stores_are_copied_as_they_are)
