/* What tests of linear layers have in common: every type of weights, matrices of random blocks with
 * their values, activations. */
#ifndef VRAMD_TESTS_ENGINE_LINEAR_RIG_H
#define VRAMD_TESTS_ENGINE_LINEAR_RIG_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/half.h"
#include "base/hash.h"
#include "engine/cpu/linear.h"
#include "model/words.h"
#include "tests/check_main.h"

/* dtype_grouped as a constant; scale 0: F16, 1: BF16, 2: F32. */
#define GROUPED(kind, scale, group)                                                            \
    (dtype)((uint32_t)(kind) | (uint32_t)(scale) << 8 | (group) / 32U << 10)

static const dtype types[] = {DT_F32,
                              DT_F16,
                              DT_BF16,
                              DT_Q8_0,
                              DT_Q4_0,
                              DT_Q4_1,
                              DT_Q5_0,
                              DT_Q5_1,
                              DT_IQ4_NL,
                              DT_MXFP4,
                              DT_Q4_K,
                              DT_Q5_K,
                              DT_Q6_K,
                              DT_IQ4_XS,
                              DT_Q2_K,
                              DT_Q3_K,
#define X(name, ...) DT_##name,
                              WORDS_LIST(X)
#undef X
                                  GROUPED(DT_I4, 0, 128),
                              GROUPED(DT_I4, 1, 64),
                              GROUPED(DT_I4, 2, 256),
                              GROUPED(DT_I4Z, 0, 128),
                              GROUPED(DT_I4Z, 1, 32),
                              GROUPED(DT_I4Z, 2, 64),
                              GROUPED(DT_I8G, 0, 128),
                              GROUPED(DT_I8G, 1, 64),
                              GROUPED(DT_I8G, 2, 256),
                              GROUPED(DT_I8Z, 0, 128),
                              GROUPED(DT_I8Z, 1, 64),
                              GROUPED(DT_I8Z, 2, 32),
                              GROUPED(DT_F8, 1, 128),
                              GROUPED(DT_F8, 2, 64)};
enum { N_FILE_TYPES = 28, N_TYPES = 42, FIRST_QUANT = 3 };

static inline bool is_grouped(dtype t) {
    return dtype_group(t) != 0;
}
static inline uint32_t scale_bytes(dtype t) {
    return dtype_scale(t) == DT_F32 ? 4 : 2;
}

static inline uint64_t random_u64(uint64_t *state) {
    return hash_mix(*state += 0x9e3779b97f4a7c15u);
}
static inline float random_float(uint64_t *state) { /* about normal, sd 1 */
    float v = 0;
    for (int i = 0; i < 12; i++) v += (float)(random_u64(state) >> 40) * 0x1p-24f;
    return v - 6;
}
static inline void *must_alloc(uint64_t bytes) {
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    ck_assert_ptr_nonnull(p);
    return p;
}

/* One matrix: the file's bytes, their values by the format's definition, and packed. */
typedef struct matrix {
    uint8_t *file;
    float *value; /* [n_out][n_in] */
    packed p;
} matrix;

/* Where the one or two scales (binary16) of a block stand. */
static inline int scales_in(dtype t, int at[2]) {
    at[0] = t == DT_Q2_K ? 80 : t == DT_Q3_K ? 108 : t == DT_Q6_K ? 208 : 0;
    if (t == DT_TQ1_0 || t == DT_TQ2_0) at[0] = words_type_of(t).scale_at;
    at[1] = at[0] + 2;
    return t == DT_Q4_1 || t == DT_Q5_1 || t == DT_Q4_K || t == DT_Q5_K || t == DT_Q2_K ? 2 : 1;
}

/* Any bytes are a block; scales are ordinary numbers. Now and then all bytes are the same:
 * extremes, where sums could overflow or saturate. */
static inline void random_block(dtype t, uint8_t *block, uint64_t *seed) {
    const int n = (int)dtype_block_of(t).bytes;
    const bool same = random_u64(seed) % 8 == 0;
    const uint8_t fill = (uint8_t[]){0x80, 0xff, 0x7f, 0}[random_u64(seed) % 4];
    for (int i = 0; i < n; i++) block[i] = same ? fill : (uint8_t)random_u64(seed);
    if (is_grouped(t)) {
        const float d = random_float(seed) * 0.02f;
        const uint16_t h[2] = {dtype_scale(t) == DT_F16 ? half_of_float(d) : bf16_of_float(d)};
        memcpy(block, dtype_scale(t) == DT_F32 ? (const void *)&d : h, scale_bytes(t));
        if (dtype_kind(t) == DT_I4Z) block[scale_bytes(t)] %= 17;
        const int16_t zero = (int16_t)(random_u64(seed) % 257) - 128;
        if (dtype_kind(t) == DT_I8Z) memcpy(block + scale_bytes(t), &zero, 2);
        for (int i = (int)scale_bytes(t); dtype_kind(t) == DT_F8 && i < n; i++)
            if ((block[i] & 0x7f) == 0x7f) block[i] ^= 1; /* no NaN */
        return;
    }
    if (t == DT_NVFP4) return;
    if (t == DT_MXFP4) {
        block[0] = (uint8_t)(118 + random_u64(seed) % 8);
        return;
    }
    if (t == DT_IQ1_M) { /* in the upper quarters of four numbers */
        const uint16_t h = half_of_float(random_float(seed) * 0.02f);
        for (int i = 0; i < 4; i++)
            block[49 + 2 * i] = (uint8_t)((block[49 + 2 * i] & 15) | (h >> 4 * i & 15) << 4);
        return;
    }
    int at[2];
    for (int i = 0, m = scales_in(t, at); i < m; i++) {
        /* Minima of about half the codes' range, as trained weights have them. */
        float scale = i ? n < 32         ? 1
                          : t == DT_Q2_K ? 0.03f
                          : t == DT_Q4_K ? 0.15f
                                         : 0.3f
                        : 0.02f;
        uint16_t h = half_of_float(random_float(seed) * scale);
        memcpy(block + at[i], &h, 2);
    }
}

/* The values of a matrix of a float type, or of Q8_0, Q4_0 or Q4_1, from the definition of
 * ggml's formats (Q4: element i in the low nibble of byte i, element 16 + i in the high one).
 * False for other types: blocks of all types have golden values (see below). */
static inline float group_value(dtype t, const uint8_t *block, uint32_t k) {
    const uint8_t *zeros = block + scale_bytes(t), *codes = zeros + dtype_zero_bytes(t);
    const int zero = dtype_kind(t) == DT_I4Z ? *zeros : 8;
    int16_t wide;
    float d;
    uint16_t h;
    memcpy(&d, block, 4);
    memcpy(&h, block, 2);
    memcpy(&wide, zeros, 2);
    if (dtype_scale(t) != DT_F32)
        d = dtype_scale(t) == DT_F16 ? half_to_float(h) : bf16_to_float(h);
    if (dtype_kind(t) == DT_F8) {
        const int e = codes[k] >> 3 & 15, m = codes[k] & 7;
        const float v = e ? ldexpf((float)(8 + m), e - 10) : ldexpf((float)m, -9);
        return d * (codes[k] & 0x80 ? -v : v);
    }
    if (dtype_kind(t) == DT_I8G) return d * (float)(int8_t)codes[k];
    if (dtype_kind(t) == DT_I8Z) return d * (float)((int8_t)codes[k] - wide);
    const uint8_t pair = codes[k / 32 * 16 + k % 16];
    return d * (float)((k % 32 < 16 ? pair & 15 : pair >> 4) - zero);
}

static inline bool values_of(dtype t, const uint8_t *file, uint64_t n, float *value) {
    const dtype_block info = dtype_block_of(t);
    for (uint64_t k = 0; k < n; k++) {
        const uint8_t *at = file + k / info.elems * info.bytes;
        uint16_t h[2];
        uint32_t i = k % 32;
        if (is_grouped(t)) {
            value[k] = group_value(t, at, (uint32_t)(k % info.elems));
            continue;
        }
        memcpy(h, at, info.bytes < 4 ? 2 : 4);
        switch (t) {
        case DT_F32: memcpy(&value[k], at, 4); break;
        case DT_F16: value[k] = half_to_float(h[0]); break;
        case DT_BF16: value[k] = bf16_to_float(h[0]); break;
        case DT_Q8_0: value[k] = half_to_float(h[0]) * (float)(int8_t)at[2 + i]; break;
        case DT_Q4_0:
        case DT_Q4_1: {
            const uint8_t *codes = at + (t == DT_Q4_1 ? 4 : 2);
            int code = i < 16 ? codes[i] & 15 : codes[i - 16] >> 4;
            if (t == DT_Q4_0)
                value[k] = half_to_float(h[0]) * (float)(code - 8);
            else
                value[k] = half_to_float(h[0]) * (float)code + half_to_float(h[1]);
            break;
        }
        default: return false;
        }
    }
    return true;
}

/* n_in rounded up to whole blocks. */
static inline uint32_t fit(dtype t, uint32_t n_in) {
    const uint32_t block = dtype_block_of(t).elems;
    return (n_in + block - 1) / block * block;
}

/* The file's bytes, packed: in two calls, the second one short when n_out is odd. */
static inline packed pack_file(dtype t, uint32_t n_out, uint32_t n_in, const uint8_t *file) {
    const dtype_block info = dtype_block_of(t);
    void *tiles = must_alloc(packed_bytes(t, n_out, n_in));
    memset(tiles, 0x5a, packed_bytes(t, n_out, n_in));
    uint32_t first = n_out / 2 / 32 * 32;
    uint64_t row_bytes = n_in / info.elems * info.bytes;
    packed_store(tiles, t, n_out, n_in, 0, first, file);
    packed_store(tiles, t, n_out, n_in, first, n_out - first, file + first * row_bytes);
    return (packed){tiles, t, n_out, n_in, NULL};
}

static inline matrix matrix_new(dtype t, uint32_t n_out, uint32_t n_in, uint64_t seed) {
    const dtype_block info = dtype_block_of(t);
    uint64_t n = (uint64_t)n_out * n_in, blocks = n / info.elems;
    matrix m = {must_alloc(blocks * info.bytes), must_alloc(n * 4), {0}};
    for (uint64_t b = 0; b < blocks; b++) {
        uint8_t *at = m.file + b * info.bytes;
        if (info.elems > 1) {
            random_block(t, at, &seed);
            continue;
        }
        float v = random_float(&seed);
        uint16_t h = t == DT_F16 ? half_of_float(v) : bf16_of_float(v);
        if (t == DT_F32)
            memcpy(at, &v, 4);
        else
            memcpy(at, &h, 2);
    }
    m.p = pack_file(t, n_out, n_in, m.file);
    if (!values_of(t, m.file, n, m.value))
        for (uint32_t o = 0; o < n_out; o++) packed_row(&m.p, o, m.value + (uint64_t)o * n_in);
    return m;
}
static inline void matrix_free(matrix *m) {
    free(m->file);
    free(m->value);
    free((void *)m->p.tiles);
}

/* Activations; odd seeds with outlier channels, as trained models have them. */
static inline act act_new(const linear_kernels *k, activation_dtype family, uint32_t n_rows,
                          uint32_t n_in, uint64_t seed) {
    const float outlier = seed % 2 ? 20 : 1;
    act a = {family, n_in, n_rows, must_alloc((uint64_t)n_rows * n_in * 4), NULL};
    for (uint64_t i = 0; i < (uint64_t)n_rows * n_in; i++)
        a.f[i] = random_float(&seed) * (i % 97 == 5 ? outlier : 1);
    if (family == ACTIVATION_BF16 || (family == ACTIVATION_INT8 && n_in % 32 == 0)) {
        a.q = must_alloc(act_bytes_of(family, n_in, n_rows));
        memset(a.q, 0x77, act_bytes_of(family, n_in, n_rows));
        for (uint32_t r = 0; r < n_rows; r++) k->quantise(a.f + (uint64_t)r * n_in, &a, r);
    }
    return a;
}
static inline void act_free(act *a) {
    free(a->f);
    free(a->q);
}

static inline void assert_same_bits(const float *a, const float *b, uint64_t n,
                                    const char *what) {
    for (uint64_t i = 0; i < n; i++) {
        if (isnan(a[i]) && isnan(b[i])) continue;
        if (bits_of_float(a[i]) != bits_of_float(b[i]))
            ck_abort_msg("%s: [%llu] %.9g, not %.9g", what, (unsigned long long)i, b[i], a[i]);
    }
}

/* The sets to compare with plain C. */
static const cpu_isa isas[] = {ISA_AVX2, ISA_AVXVNNI, ISA_AVX512, ISA_AMX};
enum { N_ISAS = sizeof isas / sizeof *isas };

#endif
