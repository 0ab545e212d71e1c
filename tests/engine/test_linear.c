/* Tests of engine/cpu/linear.h: plain C against float64, every instruction set against plain C
 * bit for bit. Sets that this CPU lacks are skipped. Packing: test_packing.c. */
#include "engine/cpu/isa.h"
#include "tests/engine/linear_rig.h"

START_TEST(isas_are_those_of_the_cpu) {
    __builtin_cpu_init();
    ck_assert_ptr_nonnull(linear_kernels_get(ISA_AUTO));
    ck_assert_int_eq(linear_kernels_get(ISA_PLAIN)->isa, ISA_PLAIN);
    ck_assert_ptr_null(linear_kernels_get((cpu_isa)(ISA_AMX + 1)));
    ck_assert_str_eq(isa_lack((cpu_isa)(ISA_AMX + 1)),
                     "this CPU or this build does not have it");
    ck_assert((linear_kernels_get(ISA_AVX2) != NULL) >=
              (linear_kernels_get(ISA_AVX512) != NULL));
    ck_assert((linear_kernels_get(ISA_AVX512) != NULL) <=
              (__builtin_cpu_supports("avx512vnni") != 0));
    ck_assert(!linear_kernels_get(ISA_AMX) || linear_kernels_get(ISA_AVX512));
    for (int i = 0; i < N_ISAS; i++) {
        const linear_kernels *k = linear_kernels_get(isas[i]),
                             *b = linear_kernels_bf16(isas[i]);
        ck_assert(!k == !!isa_lack(isas[i]) && !k == !b);
        if (!k) continue;
        /* vpdpbusd is for int8, tiles are for bf16. */
        ck_assert_int_eq(b->isa, isas[i] == ISA_AVXVNNI ? ISA_AVX2 : isas[i]);
        ck_assert_int_eq(k->isa, isas[i] == ISA_AMX ? ISA_AVX512 : isas[i]);
    }
    ck_assert_int_eq(linear_kernels_bf16(ISA_AUTO)->isa, isa_best());
}
END_TEST

/* Rounds to the nearest integer, halves to even, from the definition. */
static int round_half_even(double v) {
    double f = floor(v), rest = v - f;
    if (rest < 0.5 || (rest == 0.5 && fmod(f, 2) == 0)) return (int)f;
    return (int)f + 1;
}

static void assert_quantised(const linear_kernels *k, const float *x, uint32_t n_in) {
    act a = {ACTIVATION_INT8, n_in, 3, NULL, must_alloc(act_bytes(n_in, 3))};
    memset(a.q, 0x77, act_bytes(n_in, 3));
    k->quantise(x, &a, 2);
    int8_t *q = must_alloc(n_in);
    float *d = must_alloc(n_in), *s = must_alloc(n_in);
    act_get(&a, 2, q, d, s);
    for (uint32_t b = 0; b < n_in / 32; b++) {
        float big = 0;
        bool bad = false;
        for (uint32_t i = 0; i < 32; i++) {
            if (!isfinite(x[32 * b + i]))
                bad = true;
            else
                big = fmaxf(big, fabsf(x[32 * b + i]));
        }
        bool none = bad || big < 0x1p-80f;
        int sum = 0;
        for (uint32_t i = 0; i < 32; i++) {
            float scaled = none ? 0 : x[32 * b + i] * (127.0f / big);
            ck_assert_int_eq(q[32 * b + i], round_half_even((double)scaled));
            sum += q[32 * b + i];
        }
        if (bad) {
            ck_assert(isnan(d[b]) && isnan(s[b]));
            continue;
        }
        ck_assert_float_eq(d[b], none ? 0 : big / 127.0f);
        ck_assert_float_eq(s[b], d[b] * (float)sum);
        ck_assert(none || abs(q[32 * b]) <= 127);
    }
    free(q);
    free(d);
    free(s);
    free(a.q);
}

START_TEST(quantising_follows_its_definition_in_every_isa) {
    enum { N = 32 * 64 };
    float *x = must_alloc(N * 4);
    static const float odd[] = {0.0f,     -0.0f,    0x1p-149f, -0x1p-149f, 0x1p-127f,
                                0x1p-81f, 0x1p-80f, -0x1p-79f, 3e38f,      -3e38f,
                                1.0f,     -127.0f,  0.5f,      63.5f,      -2.5f};
    for (int i = -1; i < 2; i++) {
        const linear_kernels *k = linear_kernels_get(i < 0 ? ISA_PLAIN : isas[i]);
        if (!k) continue;
        for (uint64_t seed = 1; seed <= 20; seed++) {
            uint64_t state = seed;
            for (int j = 0; j < N; j++)
                x[j] = random_float(&state) * expf(random_float(&state));
            assert_quantised(k, x, N);
            /* Halves: big = 127 makes the factor exactly 1. */
            for (int j = 0; j < N; j++)
                x[j] = j % 32 == 7 ? 127.0f : (float)(int)(random_u64(&state) % 508) / 2 - 127;
            assert_quantised(k, x, N);
            for (int j = 0; j < N; j++) x[j] = odd[random_u64(&state) % 15];
            assert_quantised(k, x, N);
            for (int j = 0; j < N; j++) { /* any bits at all, then just a few bad values */
                uint64_t bits = random_u64(&state);
                x[j] = seed % 2         ? float_of_bits((uint32_t)bits)
                       : bits % 40 == 0 ? INFINITY
                       : bits % 40 == 1 ? -NAN
                                        : random_float(&state);
            }
            assert_quantised(k, x, N);
            memset(x, 0, N * 4);
            assert_quantised(k, x, N);
        }
    }
    free(x);
}
END_TEST

/* ||got - want|| / ||want|| of rows x outputs, want in float64 from the true values. */
static double relative_error(const matrix *m, const act *a, const float *y) {
    double diff = 0, norm = 0;
    for (uint32_t r = 0; r < a->n_rows; r++)
        for (uint32_t o = 0; o < m->p.n_out; o++) {
            double want = 0;
            for (uint32_t k = 0; k < a->n_in; k++)
                want += (double)a->f[(uint64_t)r * a->n_in + k] *
                        (double)m->value[(uint64_t)o * a->n_in + k];
            double d = (double)y[(uint64_t)r * m->p.n_out + o] - want;
            diff += d * d;
            norm += want * want;
        }
    return sqrt(diff / norm);
}

/* With outliers too: unlike int8's, the error of a number does not depend on its neighbours. */
START_TEST(bf16_is_near_float64) {
    for (int t = 0; t < N_TYPES; t++)
        for (uint64_t seed = 4; seed < 6; seed++) {
            const linear_kernels *k = linear_kernels_bf16(ISA_PLAIN);
            matrix m = matrix_new(types[t], 33, fit(types[t], 576), 11);
            act a = act_new(k, ACTIVATION_BF16, 3, m.p.n_in, seed);
            float y[3 * 33];
            k->linear(&(linear_call){.w = &m.p, .a = &a, .y = y, .ldy = 33}, (span){0, 3},
                      (span){0, 33});
            const double error = relative_error(&m, &a, y);
            ck_assert_msg(error < 0.004 && error > 1e-4, "%s: error %g",
                          dtype_get(types[t])->name, error);
            act_free(&a);
            matrix_free(&m);
        }
}
END_TEST

/* Nearest even, no subnormal anywhere, the order of TDPBF16PS: written out by hand. */
START_TEST(bf16_rounds_and_adds_as_the_header_says) {
    const struct {
        float x, want;
    } t[] = {{1 + 0x1p-8f, 1},       {1 + 0x3p-8f, 1 + 0x1p-6f}, {1 + 0x1.8p-8f, 1 + 0x1p-7f},
             {0x1p-56f, 0x1p-56f},   {-0x1.fp-57f, 0},           {0x1p-140f, 0},
             {-INFINITY, -INFINITY}, {0x1.ffffp127f, INFINITY}};
    enum { N = sizeof t / sizeof *t };
    float x[64] = {0}, y = 0;
    for (int i = 0; i < N; i++) x[i] = t[i].x;
    x[N] = NAN;
    act a = {ACTIVATION_BF16, 64, 1, NULL, must_alloc(act_bytes_of(ACTIVATION_BF16, 64, 1))};
    const linear_kernels *k = linear_kernels_bf16(ISA_PLAIN);
    k->quantise(x, &a, 0);
    const uint16_t *q = act_part(&a, 0, 0);
    for (int i = 0; i < N; i++) ck_assert(bf16_to_float(q[i]) == t[i].want);
    ck_assert(isnan(bf16_to_float(q[N])));
    /* 2^24 + 1 - 2^24 is 0 in one chain in order, and 1 where even and odd inputs have chains. */
    float w[64] = {0};
    memset(x, 0, sizeof x);
    x[0] = x[1] = x[2] = 1;
    w[0] = 0x1p24f, w[1] = 1, w[2] = -0x1p24f;
    packed m = {must_alloc(packed_bytes(DT_F32, 1, 64)), DT_F32, 1, 64, NULL};
    packed_store((void *)m.tiles, DT_F32, 1, 64, 0, 1, w);
    k->quantise(x, &a, 0);
    k->linear(&(linear_call){.w = &m, .a = &a, .y = &y, .ldy = 1}, (span){0, 1}, (span){0, 1});
    ck_assert(y == 1);
    /* Of two blocks the first is added first. */
    memset(w, 0, sizeof w);
    x[32] = 1;
    w[0] = 1, w[32] = -0x1p24f, w[1] = 0x1p24f;
    packed_store((void *)m.tiles, DT_F32, 1, 64, 0, 1, w);
    k->quantise(x, &a, 0);
    k->linear(&(linear_call){.w = &m, .a = &a, .y = &y, .ldy = 1}, (span){0, 1}, (span){0, 1});
    ck_assert(y == 0);
    free((void *)m.tiles);
    free(a.q);
}
END_TEST

START_TEST(plain_c_is_near_float64) {
    static const struct {
        uint32_t rows, out, in;
    } shapes[] = {{1, 48, 64}, {3, 33, 576}, {9, 40, 1536}, {2, 16, 2048}};
    const linear_kernels *k = linear_kernels_get(ISA_PLAIN);
    for (int t = 0; t < N_TYPES; t++)
        for (int i = 0; i < 4; i++)
            for (int family = 0; family < 3; family++) { /* f32, int8, int8 with outliers */
                const uint32_t n_in = fit(types[t], shapes[i].in);
                matrix m = matrix_new(types[t], shapes[i].out, n_in, 11);
                act a = act_new(k, family ? ACTIVATION_INT8 : ACTIVATION_F32, shapes[i].rows,
                                n_in, family == 2 ? 5 : 4);
                float *y = must_alloc((uint64_t)shapes[i].rows * shapes[i].out * 4);
                k->linear(&(linear_call){.w = &m.p, .a = &a, .y = y, .ldy = m.p.n_out},
                          (span){0, a.n_rows}, (span){0, m.p.n_out});
                double error = relative_error(&m, &a, y);
                bool int8 = family && linear_wants_int8(types[t]);
                ck_assert_msg(error < (int8 ? family == 2 ? 0.025 : 0.01 : 1e-5),
                              "%s %s: error %g", dtype_name(types[t]), int8 ? "int8" : "f32",
                              error);
                ck_assert(!int8 || error > 1e-4); /* it did take the codes */
                free(y);
                act_free(&a);
                matrix_free(&m);
            }
}
END_TEST

/* One shape: all of it by plain C; the same by k in random parts, in place over the residual,
 * with guards around what it may write. */
static const linear_kernels *kernels_of(activation_dtype family, cpu_isa isa) {
    if (family == ACTIVATION_BF16) return linear_kernels_bf16(isa);
    return isa == ISA_AMX ? NULL : linear_kernels_get(isa);
}

static void compare(const linear_kernels *k, dtype t, activation_dtype family, uint32_t rows,
                    uint32_t n_out, uint32_t n_in, uint64_t seed) {
    n_in = fit(t, n_in);
    const linear_kernels *plain = kernels_of(family, ISA_PLAIN);
    matrix m = matrix_new(t, n_out, n_in, seed);
    act a = act_new(k, family, rows, n_in, seed + 1),
        b = act_new(plain, family, rows, n_in, seed + 1);
    uint32_t ld = n_out + (uint32_t)(seed % 5), ld_res = n_out + 3;
    uint64_t n = (uint64_t)rows * ld;
    float *bias = seed % 2 ? must_alloc(n_out * 4) : NULL;
    float *residual = seed % 3 ? must_alloc((uint64_t)rows * ld_res * 4) : NULL;
    float *want = must_alloc(n * 4), *got = must_alloc(n * 4);
    for (uint32_t i = 0; bias && i < n_out; i++) bias[i] = random_float(&seed);
    for (uint64_t i = 0; residual && i < (uint64_t)rows * ld_res; i++)
        residual[i] = random_float(&seed);
    for (uint64_t i = 0; i < n; i++) want[i] = got[i] = 12345;
    bool in_place = residual && seed % 7 < 3;
    for (uint32_t r = 0; in_place && r < rows; r++)
        memcpy(got + (uint64_t)r * ld, residual + (uint64_t)r * ld_res, n_out * 4);
    plain->linear(&(linear_call){.w = &m.p,
                                 .a = &b,
                                 .bias = bias,
                                 .residual = residual,
                                 .ld_res = ld_res,
                                 .y = want,
                                 .ldy = ld},
                  (span){0, rows}, (span){0, n_out});
    uint32_t r1 = (uint32_t)(random_u64(&seed) % (rows + 1));
    uint32_t o1 = (uint32_t)(random_u64(&seed) % (n_out / 16 + 1)) * 16;
    const uint32_t row[3] = {0, r1, rows}, out[3] = {0, o1, n_out};
    const linear_call call = {.w = &m.p,
                              .a = &a,
                              .bias = bias,
                              .residual = in_place ? got : residual,
                              .ld_res = in_place ? ld : ld_res,
                              .y = got,
                              .ldy = ld};
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            k->linear(&call, (span){row[i], row[i + 1]}, (span){out[j], out[j + 1]});
    char what[96];
    snprintf(what, sizeof what, "%s family %d isa %d: %ux%u, %u rows", dtype_name(t),
             (int)family, (int)k->isa, n_out, n_in, rows);
    assert_same_bits(want, got, n, what);
    free(bias);
    free(residual);
    free(want);
    free(got);
    act_free(&a);
    act_free(&b);
    matrix_free(&m);
}

START_TEST(every_isa_gives_the_bits_of_plain_c) {
    static const activation_dtype families[] = {ACTIVATION_F32, ACTIVATION_INT8,
                                                ACTIVATION_BF16};
    uint64_t seed = 100;
    for (int t = 0; t < N_TYPES; t++)
        for (int family = 0; family < 3; family++) {
            const activation_dtype f = families[family];
            const linear_kernels *k = kernels_of(f, isas[_i]);
            if (!k) continue;
            for (uint32_t rows = 1; rows <= 18; rows++)
                compare(k, types[t], f, rows, 16 + rows * 5, 32 * (1 + rows % 4), seed++);
            for (uint32_t rows = 31; rows <= 50; rows += 6)
                compare(k, types[t], f, rows, 16 + rows, 32 * (1 + rows % 5), seed++);
            compare(k, types[t], f, 70, 50, 96, seed++);
            compare(k, types[t], f, 137, 33, 64, seed++);
            compare(k, types[t], f, 5, 576, 576, seed++);
            compare(k, types[t], f, 2, 33, 2048, seed++);
            compare(k, types[t], f, 47, 40, 2304, seed++); /* unpacked in pieces */
            if (is_grouped(types[t])) { /* a scale for all inputs, more than a piece */
                const dtype row =
                    dtype_grouped(dtype_kind(types[t]), dtype_scale(types[t]), 1440);
                compare(k, row, f, 3, 33, 1440, seed++);
                compare(k, row, f, 25, 33, 2880, seed++);
            }
            if (!linear_wants_int8(types[t])) compare(k, types[t], f, 3, 17, 45, seed++);
            if (!linear_wants_int8(types[t])) compare(k, types[t], f, 11, 16, 1, seed++);
        }
}
END_TEST

/* Types of GGUF are the oracle: the same blocks, the same tiles, the same bits. */
START_TEST(groups_of_32_with_binary16_are_ggufs_types) {
    static const dtype pairs[][2] = {{DT_Q4_0, GROUPED(DT_I4, 0, 32)},
                                     {DT_Q8_0, GROUPED(DT_I8G, 0, 32)}};
    const linear_kernels *k = linear_kernels_get(ISA_AUTO);
    for (int i = 0; i < 2; i++)
        for (int family = 0; family < 2; family++)
            for (uint32_t rows = 1; rows < 80; rows = rows * 3 + 1) {
                matrix m = matrix_new(pairs[i][0], 48, 576, 5);
                packed p = pack_file(pairs[i][1], 48, 576, m.file);
                ck_assert_mem_eq(p.tiles, m.p.tiles, packed_bytes(pairs[i][0], 48, 576));
                act a = act_new(k, family ? ACTIVATION_INT8 : ACTIVATION_F32, rows, 576, 5);
                float *y = must_alloc(rows * 48ull * 8), *want = y + rows * 48ull;
                k->linear(&(linear_call){.w = &m.p, .a = &a, .y = want, .ldy = 48},
                          (span){0, rows}, (span){0, 48});
                k->linear(&(linear_call){.w = &p, .a = &a, .y = y, .ldy = 48}, (span){0, rows},
                          (span){0, 48});
                assert_same_bits(want, y, rows * 48ull, dtype_name(pairs[i][1]));
                free(y);
                act_free(&a);
                free((void *)p.tiles);
                matrix_free(&m);
            }
}
END_TEST

/* Codes less a zero point are those of Q5_0. */
START_TEST(zero_points_give_the_bits_of_their_differences) {
    enum { OUT = 32, IN = 192 };
    const dtype t = GROUPED(DT_I4Z, 0, 32);
    const linear_kernels *k = linear_kernels_get(ISA_AUTO);
    uint8_t *zeros = must_alloc(OUT * IN / 32 * 19), *q5 = must_alloc(OUT * IN / 32 * 22);
    uint64_t seed = 6;
    for (int b = 0; b < OUT * IN / 32; b++) {
        uint8_t *from = zeros + 19 * b, *to = q5 + 22 * b;
        random_block(t, from, &seed);
        memcpy(to, from, 2);
        memset(to + 2, 0, 20);
        for (uint32_t i = 0; i < 32; i++) {
            const int code = (i < 16 ? from[3 + i] & 15 : from[3 + i - 16] >> 4) - from[2] + 16;
            to[2 + i / 8] |= (uint8_t)(code >> 4 << i % 8);
            to[6 + i % 16] |= (uint8_t)((code & 15) << (i < 16 ? 0 : 4));
        }
    }
    packed p = pack_file(t, OUT, IN, zeros), q = pack_file(DT_Q5_0, OUT, IN, q5);
    for (uint32_t rows = 1; rows < 80; rows = rows * 3 + 1) {
        act a = act_new(k, ACTIVATION_INT8, rows, IN, 5);
        float *y = must_alloc(rows * OUT * 8ull), *want = y + rows * OUT;
        k->linear(&(linear_call){.w = &q, .a = &a, .y = want, .ldy = OUT}, (span){0, rows},
                  (span){0, OUT});
        k->linear(&(linear_call){.w = &p, .a = &a, .y = y, .ldy = OUT}, (span){0, rows},
                  (span){0, OUT});
        assert_same_bits(want, y, rows * OUT, "I4Z");
        free(y);
        act_free(&a);
    }
    free((void *)p.tiles);
    free((void *)q.tiles);
    free(zeros);
    free(q5);
}
END_TEST

START_TEST(extreme_codes_do_not_overflow_in_any_isa) {
    const linear_kernels *k = linear_kernels_get(isas[_i]);
    const linear_kernels *plain = linear_kernels_get(ISA_PLAIN);
    if (!k) return;
    enum { ROWS = 41 }; /* of whole groups and not */
    for (int t = FIRST_QUANT; t < N_TYPES; t++)
        for (int fill = 0; fill < 5; fill++) {
            const uint32_t n_in = fit(types[t], 64);
            matrix m = matrix_new(types[t], 32, n_in, 1);
            const dtype_block info = dtype_block_of(types[t]);
            for (uint64_t b = 0; b < 32 * n_in / info.elems; b++) {
                /* All bytes of codes and integer scales; the others stay. */
                uint8_t *at = m.file + b * info.bytes, keep[8];
                int d[2] = {0},
                    n = is_grouped(types[t])
                            ? (int)(scale_bytes(types[t]) + dtype_zero_bytes(types[t]))
                            : scales_in(types[t], d) * 2;
                memcpy(keep, at + d[0], (size_t)n);
                memset(at, (int[]){0x80, 0x7f, 0xff, 0, 0xf0}[fill], info.bytes);
                memcpy(at + d[0], keep, (size_t)n);
            }
            packed_store((void *)m.p.tiles, types[t], 32, n_in, 0, 32, m.file);
            for (int sign = -1; sign <= 1; sign += 2) {
                act a = act_new(k, ACTIVATION_INT8, ROWS, n_in, 1),
                    b = act_new(plain, ACTIVATION_INT8, ROWS, n_in, 1);
                for (int i = 0; i < ROWS * (int)n_in; i++) a.f[i] = b.f[i] = (float)sign;
                for (uint32_t r = 0; r < ROWS; r++) {
                    k->quantise(a.f + n_in * r, &a, r);
                    plain->quantise(a.f + n_in * r, &b, r);
                }
                float want[ROWS * 32], got[ROWS * 32];
                plain->linear(&(linear_call){.w = &m.p, .a = &b, .y = want, .ldy = 32},
                              (span){0, ROWS}, (span){0, 32});
                k->linear(&(linear_call){.w = &m.p, .a = &a, .y = got, .ldy = 32},
                          (span){0, ROWS}, (span){0, 32});
                assert_same_bits(want, got, ROWS * 32, dtype_name(types[t]));
                act_free(&a);
                act_free(&b);
            }
            matrix_free(&m);
        }
}
END_TEST

/* The sums, and the rows that are looked up. */
START_TEST(a_scale_multiplies_what_a_matrix_gives) {
    const float scale = 0.37f;
    for (int i = -1; i < N_ISAS; i++)
        for (int family = 0; family < 3; family++) {
            const activation_dtype f[] = {ACTIVATION_F32, ACTIVATION_INT8, ACTIVATION_BF16};
            const linear_kernels *k = kernels_of(f[family], i < 0 ? ISA_PLAIN : isas[i]);
            if (!k) continue;
            matrix m = matrix_new(DT_NVFP4, 40, 192, 3);
            act a = act_new(k, f[family], 11, 192, 4);
            float bias[40], row[192], want[11 * 40], got[11 * 40];
            for (int o = 0; o < 40; o++) bias[o] = (float)o;
            linear_call c = {.w = &m.p, .a = &a, .y = want, .ldy = 40};
            k->linear(&c, (span){0, 11}, (span){0, 40});
            m.p.scale = &scale;
            c.y = got;
            c.bias = bias;
            k->linear(&c, (span){0, 11}, (span){0, 40});
            for (int j = 0; j < 11 * 40; j++) want[j] = want[j] * scale + bias[j % 40];
            assert_same_bits(want, got, 11 * 40, "scaled");
            packed_row(&m.p, 7, row);
            for (int j = 0; j < 192; j++) m.value[7 * 192 + j] *= scale;
            assert_same_bits(m.value + 7 * 192ul, row, 192, "a scaled row");
            act_free(&a);
            matrix_free(&m);
        }
}
END_TEST

START_TEST(a_row_does_not_depend_on_the_rows_beside_it) {
    const linear_kernels *k = linear_kernels_get(ISA_AUTO);
    for (int t = 0; t < N_TYPES; t++) {
        const uint32_t n_in = fit(types[t], 192);
        matrix m = matrix_new(types[t], 64, n_in, 9);
        act a = act_new(k, ACTIVATION_INT8, 29, n_in, 4);
        float all[29 * 64], one[64];
        k->linear(&(linear_call){.w = &m.p, .a = &a, .y = all, .ldy = 64}, (span){0, 29},
                  (span){0, 64});
        for (uint32_t r = 0; r < 29; r++) {
            act b = {ACTIVATION_INT8, n_in, 1, a.f + n_in * r, must_alloc(act_bytes(n_in, 1))};
            k->quantise(b.f, &b, 0);
            k->linear(&(linear_call){.w = &m.p, .a = &b, .y = one, .ldy = 64}, (span){0, 1},
                      (span){0, 64});
            assert_same_bits(all + 64 * r, one, 64, "alone");
            free(b.q);
        }
        act_free(&a);
        matrix_free(&m);
    }
}
END_TEST

START_TEST(nan_in_a_row_makes_that_row_nan_and_no_other) {
    for (int i = -1; i < 2; i++) {
        const linear_kernels *k = linear_kernels_get(i < 0 ? ISA_PLAIN : isas[i]);
        if (!k) continue;
        for (int t = 0; t < N_TYPES; t++) {
            const uint32_t n_in = fit(types[t], 64);
            matrix m = matrix_new(types[t], 20, n_in, 2);
            act a = act_new(k, ACTIVATION_INT8, 3, n_in, 8);
            a.f[n_in + 40] = i ? NAN : INFINITY;
            k->quantise(a.f + n_in, &a, 1);
            float y[3 * 20];
            k->linear(&(linear_call){.w = &m.p, .a = &a, .y = y, .ldy = 20}, (span){0, 3},
                      (span){0, 20});
            for (int o = 0; o < 20; o++) {
                ck_assert(isfinite(y[o]) && isfinite(y[40 + o]));
                ck_assert(!isfinite(y[20 + o]));
            }
            act_free(&a);
            matrix_free(&m);
        }
    }
}
END_TEST

/* Sums that overflow, NaN, infinity, numbers that are rounded to 0, and terms of which one is far larger: weights of
 * types whose numbers may be anything, against plain C. */
START_TEST(bf16_has_the_same_bits_at_the_edges) {
    static const dtype kinds[] = {DT_F32, DT_BF16, DT_F16, DT_MXFP4, GROUPED(DT_I4, 2, 32)};
    static const float edge[] = {0x1p-56f, 0x1.fp-57f, -0x1p-140f, 0x1p24f, -0x1p24f, 3e38f,
                                 -3e38f,   INFINITY,   NAN,        0.0f,    -0.0f,    1.0f};
    enum { OUT = 40, IN = 96, ROWS = 19, N_EDGES = sizeof edge / sizeof *edge };
    const linear_kernels *k = linear_kernels_bf16(isas[_i]),
                         *plain = linear_kernels_bf16(ISA_PLAIN);
    uint64_t state = 3;
    if (!k) return;
    for (int t = 0; t < 5; t++)
        for (int round = 0; round < 40; round++) {
            matrix m = matrix_new(kinds[t], OUT, IN, (uint64_t)round);
            float x[ROWS * IN], w[OUT * IN], want[ROWS * OUT], got[ROWS * OUT];
            const int most = round % 2 ? N_EDGES : 5; /* finite ones alone, too */
            for (int i = 0; i < ROWS * IN; i++)
                x[i] = random_u64(&state) % 4 ? random_float(&state)
                                              : edge[random_u64(&state) % most];
            for (int i = 0; i < OUT * IN; i++)
                w[i] = random_u64(&state) % 4 ? random_float(&state)
                                              : edge[random_u64(&state) % most];
            if (kinds[t] == DT_F32) packed_store((void *)m.p.tiles, DT_F32, OUT, IN, 0, OUT, w);
            act a = {ACTIVATION_BF16, IN, ROWS, x,
                     must_alloc(act_bytes_of(ACTIVATION_BF16, IN, ROWS))};
            for (int isa = 0; isa < 2; isa++) {
                const linear_kernels *by = isa ? k : plain;
                memset(a.q, 0, act_bytes_of(ACTIVATION_BF16, IN, ROWS));
                for (uint32_t r = 0; r < ROWS; r++) by->quantise(x + IN * r, &a, r);
                by->linear(
                    &(linear_call){.w = &m.p, .a = &a, .y = isa ? got : want, .ldy = OUT},
                    (span){0, ROWS}, (span){0, OUT});
            }
            assert_same_bits(want, got, ROWS * OUT, dtype_name(kinds[t]));
            free(a.q);
            matrix_free(&m);
        }
}
END_TEST

START_TEST(shares_are_disjoint_cover_all_and_begin_at_strips) {
    static const uint32_t rows[] = {0, 1, 8, 31, 64, 255, 256, 257, 512, 4096};
    static const uint32_t outs[] = {1, 16, 33, 576, 960, 49152};
    for (uint32_t threads = 1; threads <= 9; threads++)
        for (int i = 0; i < 10; i++)
            for (int j = 0; j < 6; j++) {
                const activation_dtype f = threads % 2 ? ACTIVATION_BF16 : ACTIVATION_INT8;
                uint64_t covered = 0;
                uint32_t last_row = 0, last_out = 0;
                for (uint32_t id = 0; id < threads; id++) {
                    const linear_part p = linear_share(f, rows[i], outs[j], threads, id);
                    const uint32_t r0 = p.rows.from, r1 = p.rows.to;
                    const uint32_t o0 = p.outs.from, o1 = p.outs.to;
                    ck_assert(r0 <= r1 && r1 <= rows[i] && o0 <= o1 && o1 <= outs[j]);
                    ck_assert(o0 % 16 == 0 || o0 == outs[j]);
                    ck_assert(o1 % 16 == 0 || o1 == outs[j]);
                    ck_assert(r0 == 0 || r0 == last_row);
                    ck_assert(r0 % act_rows(f) == 0 || r0 == rows[i]);
                    ck_assert(o0 == 0 || o0 == last_out);
                    last_row = r1;
                    last_out = o1;
                    covered += (uint64_t)(r1 - r0) * (o1 - o0);
                }
                ck_assert_uint_eq(covered, (uint64_t)rows[i] * outs[j]);
            }
}
END_TEST

int main(void) {
    Suite *s = suite_create("linear");
    TCase *t = check_case(s, "linear");
    tcase_add_test(t, isas_are_those_of_the_cpu);
    tcase_add_test(t, quantising_follows_its_definition_in_every_isa);
    tcase_add_test(t, plain_c_is_near_float64);
    tcase_add_test(t, bf16_is_near_float64);
    tcase_add_test(t, bf16_rounds_and_adds_as_the_header_says);
    tcase_add_test(t, groups_of_32_with_binary16_are_ggufs_types);
    tcase_add_test(t, zero_points_give_the_bits_of_their_differences);
    tcase_add_loop_test(t, every_isa_gives_the_bits_of_plain_c, 0, N_ISAS);
    tcase_add_loop_test(t, bf16_has_the_same_bits_at_the_edges, 0, N_ISAS);
    tcase_add_loop_test(t, extreme_codes_do_not_overflow_in_any_isa, 0, 2);
    tcase_add_test(t, a_scale_multiplies_what_a_matrix_gives);
    tcase_add_test(t, a_row_does_not_depend_on_the_rows_beside_it);
    tcase_add_test(t, nan_in_a_row_makes_that_row_nan_and_no_other);
    tcase_add_test(t, shares_are_disjoint_cover_all_and_begin_at_strips);
    return check_run(s);
}
