/* quant/gptq.h, hessian.h, grid.h and tile.h through their headers. */
#include "quant/gptq.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "quant/grid.h"
#include "quant/quant.h"
#include "tests/check_main.h"
#include "tests/quant/gptq_golden.h"

enum { INPUTS = 96, ROWS = 6, TOKENS = 200, GROUP = 32 }; /* make_gptq.py */

/* The same numbers as make_gptq.py's. */
static float *numbers(uint64_t seed, size_t n) {
    float *out = malloc(n * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        out[i] = (float)(seed >> 40) / 0x1p24f - 0.5f;
    }
    return out;
}

/* Inputs whose neighbours depend on each other. */
static float *inputs(uint32_t n, uint32_t tokens) {
    float *x = numbers(2, (size_t)tokens * n);
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t i = n; i-- > 0;) {
            float *v = x + (size_t)t * n + i;
            *v = (float)(((double)*v + (i ? 0.75 * (double)v[-1] : 0)) * (1 + i % 5));
        }
    return x;
}

static double *moments(const float *x, uint32_t n, uint32_t tokens) {
    double *h = calloc(1, hessian_bytes(n));
    hessian_add(h, n, x, tokens, 0, 1);
    return h;
}

/* ---- blocks of Q4_1, rounded to nearest on the scales that the extremes give ---- */

static void put(uint8_t *p, float f) {
    const uint16_t h = half_of_float(f);
    memcpy(p, &h, 2);
}

static void scales_of(const float *w, uint8_t *b, uint32_t n) {
    for (uint32_t g = 0; g < n / GROUP; g++, b += 20) {
        float lo = INFINITY, hi = -INFINITY;
        for (uint32_t i = 0; i < GROUP; i++) {
            lo = fminf(lo, w[g * GROUP + i]);
            hi = fmaxf(hi, w[g * GROUP + i]);
        }
        memset(b, 0, 20);
        put(b, (hi - lo) / 15);
        put(b + 2, lo);
    }
}

/* Codes as they are nearest, with the numbers that they stand for. */
static void rounded(dtype t, const float *w, uint32_t n, uint8_t *blocks, float *number) {
    grid g;
    int16_t codes[4096];
    grid_scale s[256];
    ck_assert(grid_of(t, &g));
    grid_read(&g, blocks, n, s);
    for (uint32_t i = 0; i < n; i++)
        codes[i] = grid_nearest(&g, s[i / g.group], w[i], number + i);
    grid_write(&g, blocks, n, codes);
}

static void numbers_of(const uint8_t *blocks, uint32_t n, float *out) {
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *b = blocks + i / GROUP * 20;
        const uint8_t q = b[4 + i % 16] >> (i % GROUP < 16 ? 0 : 4) & 15;
        uint16_t d, m;
        memcpy(&d, b, 2);
        memcpy(&m, b + 2, 2);
        out[i] = half_to_float(d) * (float)q + half_to_float(m);
    }
}

static int code_of(const uint8_t *blocks, uint32_t i) {
    return blocks[i / GROUP * 20 + 4 + i % 16] >> (i % GROUP < 16 ? 0 : 4) & 15;
}

static double error_of(const double *h, uint32_t n, const float *w, const float *q) {
    float e[4096];
    for (uint32_t i = 0; i < n; i++) e[i] = q[i] - w[i];
    return hessian_error(h, n, e);
}

static void run_gptq(const double *h, uint32_t n, bool act_order, double damp, const float *w,
                     uint32_t rows, dtype t, void *blocks) {
    err e;
    gptq g;
    void *mem = malloc(gptq_bytes(n)), *scratch = malloc(gptq_scratch_bytes(n, rows));
    ck_assert_int_eq(gptq_init(&g, h, n, NULL, act_order, damp, mem, &e), OK);
    gptq_rows(&g, t, w, rows, blocks, scratch);
    free(mem);
    free(scratch);
}

/* ---- tests ---- */

START_TEST(moments_are_those_of_the_inputs) {
    enum { N = 150, T = 131 };
    float *x = inputs(N, T);
    double *h = moments(x, N, T);
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t j = 0; j <= i; j++) {
            double want = 0, size = 0;
            for (uint32_t t = 0; t < T; t++) {
                const double p = (double)x[t * N + i] * (double)x[t * N + j];
                want += p;
                size += fabs(p);
            }
            SWEEP(fabs(h[hessian_at(i, j)] - want) <= 1e-5 * size);
        }
    free(x);
    free(h);
}
END_TEST

START_TEST(moments_have_the_same_bits_by_any_number_of_threads) {
    enum { N = 200, T = 70 };
    float *x = inputs(N, T);
    double *h = moments(x, N, T), *parts = calloc(1, hessian_bytes(N));
    for (uint32_t t = 0; t < 3; t++) hessian_add(parts, N, x, T, t, 3);
    ck_assert_int_eq(memcmp(h, parts, hessian_bytes(N)), 0);
    free(x);
    free(h);
    free(parts);
}
END_TEST

START_TEST(kernels_have_the_same_bits_on_every_isa) {
    enum { N = TILE * TILE, KEPT = 60 };
    if (tile_kernels_get() == &tile_plain) return;
    float *a = numbers(5, N), *b = numbers(6, N);
    static double h[2][N], c[2][N], d[N], e[N];
    static float f[2][N];
    const tile_kernels *k[2] = {&tile_plain, &tile_avx2};
    for (uint32_t i = 0; i < N; i++) d[i] = (double)a[i], e[i] = (double)b[i];
    for (uint32_t i = 0; i < 2; i++) {
        k[i]->gram(h[i], a, b);
        k[i]->sub_mul(c[i], d, e);
        k[i]->sub_mul_f(f[i], a, TILE, KEPT + 1, b);
    }
    ck_assert_int_eq(memcmp(h[0], h[1], sizeof h[0]), 0);
    ck_assert_int_eq(memcmp(c[0], c[1], sizeof c[0]), 0);
    ck_assert_int_eq(memcmp(f[0], f[1], sizeof f[0]), 0);
    ck_assert(f[0][(KEPT + 1) * TILE] == 0 && f[0][KEPT * TILE] != 0);
    for (uint32_t j = 0; j < TILE; j++) {
        double want = 0;
        for (uint32_t l = 0; l < TILE; l++) want -= d[3 * TILE + l] * e[l * TILE + j];
        ck_assert(fabs(c[0][3 * TILE + j] - want) < 1e-12);
    }
    free(a);
    free(b);
}
END_TEST

START_TEST(the_factor_is_the_inverse_of_the_lower_cholesky_factor) {
    enum { N = 150 };
    err e;
    float *x = inputs(N, 400);
    double *h = moments(x, N, 400), *f = malloc(hessian_bytes(N)), damped;
    uint32_t order[N];
    for (uint32_t i = 0; i < N; i++) order[i] = N - 1 - i;
    ck_assert_int_eq(hessian_factor(h, N, order, NULL, 0, f, &damped, &e), OK);
    /* (M H) M^T = I */
    for (uint32_t a = 0; a < N; a += 7) {
        static double row[N];
        for (uint32_t j = 0; j < N; j++) {
            row[j] = 0;
            for (uint32_t k = 0; k <= a; k++) {
                const uint32_t p = order[k] > order[j] ? order[k] : order[j];
                const uint32_t q = order[k] + order[j] - p;
                row[j] += f[hessian_at(a, k)] * h[hessian_at(p, q)];
            }
        }
        for (uint32_t b = 0; b < N; b++) {
            double v = 0;
            for (uint32_t k = 0; k <= b; k++) v += row[k] * f[hessian_at(b, k)];
            SWEEP(fabs(v - (a == b)) < 1e-8);
        }
    }
    free(x);
    free(h);
    free(f);
}
END_TEST

START_TEST(codes_are_those_of_the_reference) {
    float *w = numbers(1, ROWS * INPUTS), *x = inputs(INPUTS, TOKENS), q[INPUTS];
    double *h = moments(x, INPUTS, TOKENS), plain = 0, better = 0;
    uint8_t b[ROWS * INPUTS / GROUP * 20];
    const uint32_t row = INPUTS / GROUP * 20;
    for (int order = 0; order < 2; order++) {
        const char *want = order ? golden_act_order : golden_natural;
        for (uint32_t r = 0; r < ROWS; r++) scales_of(w + r * INPUTS, b + r * row, INPUTS);
        for (uint32_t r = 0; r < ROWS && !order; r++) {
            rounded(DT_Q4_1, w + r * INPUTS, INPUTS, b + r * row, q);
            plain += error_of(h, INPUTS, w + r * INPUTS, q);
        }
        run_gptq(h, INPUTS, order, 0.01, w, ROWS, DT_Q4_1, b);
        for (uint32_t i = 0; i < ROWS * INPUTS; i++) {
            const int c = code_of(b, i);
            SWEEP(want[i] == "0123456789abcdef"[c]);
        }
    }
    for (uint32_t r = 0; r < ROWS; r++) {
        numbers_of(b + r * row, INPUTS, q);
        better += error_of(h, INPUTS, w + r * INPUTS, q);
    }
    ck_assert(fabs(plain - golden_rounded) < 1e-4 * plain);
    ck_assert_msg(better < 0.7 * plain, "%g after %g", better, plain);
    free(w);
    free(x);
    free(h);
}
END_TEST

/* H = [1 r; r 1] without damping: the error of the input treated first, e, moves the other by r e. */
START_TEST(two_inputs_by_hand) {
    enum { N = 32 };
    double *h = calloc(1, hessian_bytes(N));
    float w[N] = {0.4f, 1.3f}, q[N];
    uint8_t b[20] = {0};
    put(b, 1);
    put(b + 2, 0);
    for (uint32_t i = 0; i < N; i++) h[hessian_at(i, i)] = 1;
    h[hessian_at(1, 0)] = 0.5;
    run_gptq(h, N, false, 0, w, 1, DT_Q4_1, b);
    numbers_of(b, N, q);
    ck_assert(q[0] == 0 && q[1] == 2); /* 0.4 -> 0; 1.3 + 0.5 * 0.4 = 1.5 -> 2 */
    h[hessian_at(1, 0)] = -0.5;
    run_gptq(h, N, false, 0, w, 1, DT_Q4_1, b);
    numbers_of(b, N, q);
    ck_assert(q[0] == 0 && q[1] == 1); /* 1.3 - 0.2 -> 1 */
    h[hessian_at(1, 1)] = 4;           /* larger: first, where the order is by moments */
    h[hessian_at(1, 0)] = 1;
    run_gptq(h, N, true, 0, w, 1, DT_Q4_1, b);
    numbers_of(b, N, q);
    ck_assert(q[1] == 1 && q[0] == 1); /* 1.3 -> 1; 0.4 + 1 * 0.3 = 0.7 -> 1 */
    free(h);
}
END_TEST

static const dtype with_grid[] = {DT_Q4_0, DT_Q4_1, DT_Q5_0, DT_Q5_1, DT_Q8_0,   DT_Q2_K,
                                  DT_Q3_K, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_IQ4_NL, DT_IQ4_XS};

/* Blocks of random bytes with scales that are numbers of moderate size. */
static void random_blocks(dtype t, uint8_t *b, uint32_t n, uint64_t seed) {
    const dtype_info *info = dtype_get(t);
    float *x = numbers(seed, n / info->block_elems * info->block_bytes);
    for (uint32_t i = 0; i < n / info->block_elems; i++) {
        uint8_t *p = b + (size_t)i * info->block_bytes;
        for (uint32_t j = 0; j < info->block_bytes; j++)
            p[j] = (uint8_t)(int)((x[i * info->block_bytes + j] + 0.5f) * 256);
        const uint32_t at = t == DT_Q2_K ? 80 : t == DT_Q3_K ? 108 : t == DT_Q6_K ? 208 : 0;
        const bool two =
            t == DT_Q4_1 || t == DT_Q5_1 || t == DT_Q2_K || t == DT_Q4_K || t == DT_Q5_K;
        put(p + at, 0.01f + 0.01f * (float)(p[at] & 15));
        if (two) put(p + at + 2, t == DT_Q4_1 || t == DT_Q5_1 ? -0.3f : 0.02f);
    }
    free(x);
}

START_TEST(numbers_of_a_grid_are_those_that_rows_decode_to) {
    enum { N = 512 };
    static uint8_t b[N * 2];
    float *w = numbers(9, N), q[N], decoded[N];
    for (size_t t = 0; t < sizeof with_grid / sizeof *with_grid; t++) {
        for (int encoded = 0; encoded < 2; encoded++) {
            if (encoded)
                quant_encode_row(with_grid[t], w, N, NULL, b);
            else
                random_blocks(with_grid[t], b, N, 3);
            rounded(with_grid[t], w, N, b, q);
            quant_decode_row(with_grid[t], b, N, decoded);
            for (uint32_t i = 0; i < N; i++)
                ck_assert_msg(q[i] == decoded[i], "%s: number %u is %a, not %a",
                              dtype_name(with_grid[t]), i, (double)q[i], (double)decoded[i]);
        }
    }
    free(w);
}
END_TEST

static void with_diagonal(bool unit) {
    enum { N = 512, R = 5 };
    static uint8_t want[R * N * 2], got[R * N * 2];
    float *w = numbers(9, R * N), q[N];
    double *h = calloc(1, hessian_bytes(N));
    for (uint32_t i = 0; i < N; i++) h[hessian_at(i, i)] = unit ? 1 : 1 + i * 37 % 11;
    for (size_t t = 0; t < sizeof with_grid / sizeof *with_grid; t++) {
        const dtype_info *info = dtype_get(with_grid[t]);
        const size_t row = N / info->block_elems * info->block_bytes;
        for (uint32_t r = 0; r < R; r++) {
            random_blocks(with_grid[t], want + r * row, N, r);
            random_blocks(with_grid[t], got + r * row, N, r);
            rounded(with_grid[t], w + r * N, N, want + r * row, q);
        }
        run_gptq(h, N, true, 0.01, w, R, with_grid[t], got);
        ck_assert_msg(memcmp(want, got, R * row) == 0, "%s", info->name);
    }
    free(w);
    free(h);
}

START_TEST(with_the_unit_matrix_it_rounds_to_nearest) {
    with_diagonal(true);
}
END_TEST
START_TEST(with_a_diagonal_it_rounds_to_nearest) {
    with_diagonal(false);
}
END_TEST

START_TEST(errors_of_rows_are_the_sum_of_each) {
    enum { N = 150, R = 7, LD = 192 };
    float *x = inputs(N, 100), *w = numbers(3, R * N), e[R * LD] = {0}, scratch[R * LD];
    double *h = moments(x, N, 100), want = 0;
    ck_assert_uint_eq(hessian_ld(N), LD);
    for (uint32_t r = 0; r < R; r++) {
        memcpy(e + r * LD, w + r * N, N * sizeof *w);
        double row = 0;
        for (uint32_t i = 0; i < N; i++)
            for (uint32_t j = 0; j < N; j++)
                row += h[hessian_at(i > j ? i : j, i > j ? j : i)] * (double)w[r * N + i] *
                       (double)w[r * N + j];
        ck_assert(fabs(hessian_error(h, N, w + r * N) - row) < 1e-9 * row);
        want += row;
    }
    ck_assert(fabs(hessian_errors(h, N, e, R, scratch) - want) < 1e-5 * want);
    free(x);
    free(w);
    free(h);
}
END_TEST

/* Weights times s on inputs divided by s are the same layer. */
START_TEST(a_scale_is_that_of_the_inputs) {
    float *w = numbers(1, INPUTS), *x = inputs(INPUTS, TOKENS), s[INPUTS];
    uint8_t a[INPUTS / GROUP * 20], b[INPUTS / GROUP * 20];
    double *h = moments(x, INPUTS, TOKENS);
    for (uint32_t i = 0; i < INPUTS; i++) s[i] = i % 3 == 0 ? 0.5f : 2;
    scales_of(w, a, INPUTS);
    memcpy(b, a, sizeof a);
    void *mem = malloc(gptq_bytes(INPUTS)), *scratch = malloc(gptq_scratch_bytes(INPUTS, 1));
    err e;
    gptq g;
    ck_assert_int_eq(gptq_init(&g, h, INPUTS, s, true, 0.01, mem, &e), OK);
    gptq_rows(&g, DT_Q4_1, w, 1, a, scratch);
    free(h);
    for (uint32_t t = 0; t < TOKENS * INPUTS; t++) x[t] /= s[t % INPUTS];
    h = moments(x, INPUTS, TOKENS);
    run_gptq(h, INPUTS, true, 0.01, w, 1, DT_Q4_1, b);
    ck_assert_int_eq(memcmp(a, b, sizeof a), 0);
    free(mem);
    free(scratch);
    free(w);
    free(x);
    free(h);
}
END_TEST

START_TEST(inputs_that_are_always_zero_do_no_harm) {
    float *w = numbers(1, INPUTS), *x = inputs(INPUTS, TOKENS), q[INPUTS];
    uint8_t b[INPUTS / GROUP * 20];
    for (uint32_t t = 0; t < TOKENS; t++) x[t * INPUTS + 5] = x[t * INPUTS + 40] = 0;
    double *h = moments(x, INPUTS, TOKENS);
    scales_of(w, b, INPUTS);
    run_gptq(h, INPUTS, true, 0.01, w, 1, DT_Q4_1, b);
    numbers_of(b, INPUTS, q);
    ck_assert(fabsf(q[5] - w[5]) < 0.04f && fabsf(q[40] - w[40]) < 0.04f);
    free(w);
    free(x);
    free(h);
}
END_TEST

START_TEST(fewer_tokens_than_inputs_are_damped) {
    enum { N = 128 };
    err e;
    float *x = inputs(N, 8);
    double *h = moments(x, N, 8), *f = malloc(hessian_bytes(N)), damped = 0;
    uint32_t order[N];
    for (uint32_t i = 0; i < N; i++) order[i] = i;
    ck_assert_int_eq(hessian_factor(h, N, order, NULL, 0.01, f, &damped, &e), OK);
    ck_assert(damped == 0.01);
    h[hessian_at(3, 3)] = -5; /* no sum of squares is */
    ck_assert_int_eq(hessian_factor(h, N, order, NULL, 0.01, f, &damped, &e), OK);
    ck_assert(damped > 0.01);
    h[hessian_at(3, 3)] = NAN;
    ck_assert_int_eq(hessian_factor(h, N, order, NULL, 0.01, f, &damped, &e), ERR_INVALID);
    free(x);
    free(h);
    free(f);
}
END_TEST

CHECK_MAIN("gptq", numbers_of_a_grid_are_those_that_rows_decode_to,
           errors_of_rows_are_the_sum_of_each, a_scale_is_that_of_the_inputs,
           moments_are_those_of_the_inputs, moments_have_the_same_bits_by_any_number_of_threads,
           kernels_have_the_same_bits_on_every_isa,
           the_factor_is_the_inverse_of_the_lower_cholesky_factor,
           codes_are_those_of_the_reference, two_inputs_by_hand,
           with_the_unit_matrix_it_rounds_to_nearest, with_a_diagonal_it_rounds_to_nearest,
           inputs_that_are_always_zero_do_no_harm, fewer_tokens_than_inputs_are_damped)
