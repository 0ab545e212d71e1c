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

/* Values of n elements of Q8_0, Q4_1 or F32, by the definition of their blocks. */
static void read_back(dtype t, const uint8_t *p, uint32_t n, float *out) {
    if (t == DT_F32) {
        memcpy(out, p, 4 * n);
        return;
    }
    for (uint32_t at = 0; at < n; at += 32, p += t == DT_Q8_0 ? 34 : 20)
        for (uint32_t i = 0; i < 32; i++) {
            const uint8_t pair = p[4 + i % 16];
            const int nibble = i < 16 ? pair & 15 : pair >> 4;
            out[at + i] = t == DT_Q8_0 ? half_at(p) * (float)(int8_t)p[2 + i]
                                       : half_at(p) * (float)nibble + half_at(p + 2);
        }
}

/* Largest error allowed, as a part of the largest value of the row: two roundings to f16 where
 * scales are products. */
static float allowed(dtype t) {
    return t == DT_Q4_K ? 0x1p-10f : t == DT_IQ4_XS ? 0x1p-11f : 0;
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
    ck_assert_uint_eq(n_types, 9);
}
END_TEST

START_TEST(types_that_the_device_stores_are_copied_as_they_are) {
    static const dtype own[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q4_1};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        ck_assert_int_eq(cu_upload_type(own[i]), own[i]);
}
END_TEST

/* 64 codes of a group, with scales of three types; by their definition. */
START_TEST(groups_become_blocks_that_repeat_their_scale) {
    static const dtype kinds[] = {DT_I4, DT_I4Z, DT_I8G}, scales[] = {DT_F16, DT_BF16, DT_F32};
    for (uint32_t group = 32; group <= 64; group += 32)
        for (int k = 0; k < 3; k++)
            for (int s = 0; s < 3; s++) {
                const dtype t = dtype_grouped(kinds[k], scales[s], group),
                            as = cu_upload_type(t);
                if (as == t) continue;
                const uint32_t size = scales[s] == DT_F32 ? 4 : 2, codes = k == 2 ? 32 : 16;
                const float d = 0.0625f;
                const uint16_t h[2] = {scales[s] == DT_F16 ? half_of_float(d)
                                                           : bf16_of_float(d)};
                uint8_t block[80], to[80];
                memcpy(block, s == 2 ? (const void *)&d : h, size);
                uint8_t *at = block + size;
                if (k == 1) *at++ = 16;
                for (uint32_t i = 0; i < group / 32 * codes; i++) at[i] = (uint8_t)(i * 37 + 5);
                cu_upload(t, block, group, to);
                for (uint32_t i = 0; i < group; i++) {
                    const uint8_t pair = at[i / 32 * 16 + i % 16];
                    const int want = k == 2
                                         ? (int8_t)at[i]
                                         : (i % 32 < 16 ? pair & 15 : pair >> 4) - (k ? 16 : 8);
                    const uint8_t *b = to + i / 32 * (as == DT_Q8_0 ? 34 : 18);
                    const int got = as == DT_Q8_0 ? (int8_t)b[2 + i % 32]
                                    : i % 32 < 16 ? (b[2 + i % 16] & 15) - 8
                                                  : (b[2 + i % 16] >> 4) - 8;
                    ck_assert_int_eq(got, want);
                    ck_assert_float_eq(half_at(b), d);
                }
                uint64_t in, out; /* rows are read behind what they become */
                ck_assert(dtype_bytes(t, 1, 192, &in) && dtype_bytes(as, 1, 192, &out));
                ck_assert_uint_le(in, out);
            }
}
END_TEST

CHECK_MAIN("upload", groups_become_blocks_that_repeat_their_scale,
           blocks_become_others_of_the_same_values,
           types_that_the_device_stores_are_copied_as_they_are)
