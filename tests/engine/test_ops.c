/* The operations of every instruction set against their plain C twins: the same bits, on sizes
 * with and without tails and on values of every kind. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/hash.h"
#include "engine/cpu/linear.h"
#include "engine/cpu/ops.h"
#include "tests/check_main.h"

enum { MOST = 300 };

/* Roughly normal, the scale varied by block so that large and small meet. */
static float random_float(uint64_t i) {
    uint64_t h = hash_mix(i + 1);
    float u = 0;
    for (int k = 0; k < 4; k++) u += (float)(h >> (16 * k) & 0xffff) / 65536.0f - 0.5f;
    return ldexpf(u, (int)(hash_mix(i / 7) % 9) - 4);
}

static void fill_random(float *x, uint32_t n, uint64_t seed) {
    for (uint32_t i = 0; i < n; i++) x[i] = random_float(seed * 100003 + i);
}

/* The tables beside plain C that this CPU can run. */
static uint32_t other_tables(const op_kernels **out) {
    uint32_t n = 0;
    if (linear_kernels_get(ISA_AVX2)) out[n++] = &ops_avx2;
    if (linear_kernels_get(ISA_AVX512)) out[n++] = &ops_avx512;
    return n;
}

static void assert_bits(const float *a, const float *b, uint32_t n, const char *what,
                        cpu_isa isa, uint32_t size) {
    for (uint32_t i = 0; i < n; i++)
        ck_assert_msg(bits_of_float(a[i]) == bits_of_float(b[i]),
                      "%s, isa %d, size %u: element %u is %a in plain C and %a here", what, isa,
                      size, i, (double)a[i], (double)b[i]);
}

START_TEST(norm_has_the_same_bits_on_every_isa) {
    const op_kernels *k[2];
    float x[MOST], w[MOST], want[MOST], got[MOST];
    for (uint32_t i = 0, n_k = other_tables(k); i < n_k; i++)
        for (uint32_t n = 1; n <= MOST; n++) {
            fill_random(x, n, n);
            fill_random(w, n, n + 1);
            ops_plain.norm(x, w, n, 1e-5f, want);
            k[i]->norm(x, w, n, 1e-5f, got);
            assert_bits(want, got, n, "norm", k[i]->isa, n);
        }
}
END_TEST

START_TEST(norm_is_what_the_formula_says) {
    float x[MOST], w[MOST], got[MOST];
    fill_random(x, MOST, 1);
    fill_random(w, MOST, 2);
    double sum = 0;
    for (int i = 0; i < MOST; i++) sum += (double)x[i] * x[i];
    ops_plain.norm(x, w, MOST, 1e-5f, got);
    for (int i = 0; i < MOST; i++) {
        double want = x[i] / sqrt(sum / MOST + 1e-5) * w[i];
        ck_assert_double_le(fabs(got[i] - want), 1e-6 * fabs(want) + 1e-30);
    }
}
END_TEST

/* Of recurrent layers: rows, inputs and outputs of all sizes that heads and pieces have. */
START_TEST(kernels_of_states_have_the_same_bits_on_every_isa) {
    enum { ROWS = 33, IN = 40, OUT = 16 * 13 };
    static float x[ROWS * IN], y[ROWS * OUT], m[IN * OUT], want[ROWS * OUT], got[ROWS * OUT];
    static float a[IN * OUT], b[IN * OUT];
    const op_kernels *k[2];
    const float *rows[8];
    for (uint32_t j = 0; j < 8; j++) rows[j] = y + j * OUT;
    for (uint32_t i = 0, n_k = other_tables(k); i < n_k; i++)
        for (uint32_t n = 1; n <= ROWS; n++) {
            const uint32_t n_in = 1 + n % IN, n_out = 16 * (1 + n % 13);
            fill_random(x, ROWS * IN, n);
            fill_random(y, ROWS * OUT, n + 1);
            fill_random(m, IN * OUT, n + 2);
            const float one = ops_plain.dot(x, y, n), other = k[i]->dot(x, y, n);
            assert_bits(&one, &other, 1, "dot", k[i]->isa, n);
            ops_plain.rows_by(x, n, m, n_in, n_out, want);
            k[i]->rows_by(x, n, m, n_in, n_out, got);
            assert_bits(want, got, n * n_out, "rows_by", k[i]->isa, n);
            memcpy(a, m, sizeof m);
            memcpy(b, m, sizeof m);
            ops_plain.add_outer(a, 0.7f, x, y, n, n_in, n_out);
            k[i]->add_outer(b, 0.7f, x, y, n, n_in, n_out);
            assert_bits(a, b, n_in * n_out, "add_outer", k[i]->isa, n);
            ops_plain.taps(rows, x, 1 + n % 8, n, want);
            k[i]->taps(rows, x, 1 + n % 8, n, got);
            assert_bits(want, got, n, "taps", k[i]->isa, n);
        }
}
END_TEST

/* In double. */
START_TEST(kernels_of_states_are_what_the_formulas_say) {
    enum { ROWS = 5, IN = 24, OUT = 32 };
    float x[ROWS * IN], y[ROWS * OUT], m[IN * OUT], out[ROWS * OUT], sum[IN * OUT];
    fill_random(x, ROWS * IN, 1);
    fill_random(y, ROWS * OUT, 2);
    fill_random(m, IN * OUT, 3);
    memcpy(sum, m, sizeof m);
    ops_plain.rows_by(x, ROWS, m, IN, OUT, out);
    ops_plain.add_outer(sum, 0.5f, x, y, ROWS, IN, OUT);
    for (int j = 0; j < ROWS; j++)
        for (int c = 0; c < OUT; c++) {
            double want = 0, size = 0;
            for (int i = 0; i < IN; i++)
                want += (double)x[j * IN + i] * m[i * OUT + c],
                    size += fabs((double)x[j * IN + i] * m[i * OUT + c]);
            ck_assert_double_le(fabs(out[j * OUT + c] - want), 1e-6 * size);
        }
    for (int i = 0; i < IN; i++)
        for (int c = 0; c < OUT; c++) {
            double want = 0.5 * (double)m[i * OUT + c], size = fabs(want);
            for (int j = 0; j < ROWS; j++)
                want += (double)x[j * IN + i] * y[j * OUT + c],
                    size += fabs((double)x[j * IN + i] * y[j * OUT + c]);
            ck_assert_double_le(fabs(sum[i * OUT + c] - want), 1e-6 * size);
        }
}
END_TEST

START_TEST(layer_norm_has_the_same_bits_on_every_isa_and_is_what_the_formula_says) {
    const op_kernels *k[2];
    const uint32_t n_k = other_tables(k);
    float x[MOST], w[MOST], b[MOST], want[MOST], got[MOST];
    for (uint32_t n = 1; n <= MOST; n++) {
        double sum = 0, squares = 0;
        fill_random(x, n, n);
        fill_random(w, n, n + 1);
        fill_random(b, n, n + 2);
        for (uint32_t i = 0; i < n; i++) x[i] += 3;
        for (uint32_t i = 0; i < n; i++) sum += x[i];
        for (uint32_t i = 0; i < n; i++) squares += (x[i] - sum / n) * (x[i] - sum / n);
        ops_plain.layer_norm(x, w, b, n, 1e-5f, want);
        for (uint32_t i = 0; i < n; i++) {
            const double exact = (x[i] - sum / n) / sqrt(squares / n + 1e-5) * w[i] + b[i];
            ck_assert_double_le(fabs(want[i] - exact), 5e-6 * (fabs(w[i]) + fabs(exact)));
        }
        for (uint32_t t = 0; t < n_k; t++) {
            k[t]->layer_norm(x, w, b, n, 1e-5f, got);
            assert_bits(want, got, n, "layer_norm", k[t]->isa, n);
        }
    }
}
END_TEST

/* Without a second factor: feed-forward parts of BERT and Nemotron-H, BERT's classifier. */
START_TEST(activations_alone_have_the_same_bits_on_every_isa_and_are_near_libm) {
    static const activation acts[] = {ACT_GELU_ERF, ACT_TANH, ACT_RELU2, ACT_SILU,
                                      ACT_GELU_TANH};
    enum { N = 4099 };
    static float x[N], want[N], got[N];
    const op_kernels *k[2];
    const uint32_t n_k = other_tables(k);
    for (uint32_t i = 0; i < N; i++) x[i] = -20 + 40 * (float)(hash_mix(i) >> 40) / 0x1p24f;
    x[0] = 0, x[1] = -0.0f, x[2] = 1e30f, x[3] = -1e30f, x[4] = 1e-30f;
    for (size_t a = 0; a < sizeof acts / sizeof *acts; a++) {
        ops_plain.gate(acts[a], x, NULL, N, want);
        for (uint32_t i = 0; i < N && a < 3; i++) {
            const double v = x[i], positive = v > 0 ? v : 0;
            if (acts[a] == ACT_RELU2) {
                ck_assert(want[i] == (float)(positive * positive));
                continue;
            }
            const double exact = a ? tanh(v) : 0.5 * v * erfc(-v / sqrt(2));
            ck_assert_double_le(fabs(want[i] - exact), a ? 1.5e-7 : 1e-5 * fabs(exact) + 1e-30);
        }
        for (uint32_t t = 0; t < n_k; t++)
            for (uint32_t n = N - 17; n <= N; n++) {
                memcpy(got, x, sizeof x);
                k[t]->gate(acts[a], got, NULL, n, got);
                assert_bits(want, got, n, "activation", k[t]->isa, n);
            }
        const float nan = NAN;
        ops_plain.gate(acts[a], &nan, NULL, 1, got);
        ck_assert(isnan(got[0]));
    }
}
END_TEST

START_TEST(exp2_has_the_same_bits_on_every_isa_and_is_near_libm) {
    static const float odd[] = {0,    -0.0f, 1,      127,       126.5f, -124.99f,
                                -125, -126,  -150,   -1e30f,    0.5f,   -0.5f,
                                1.5f, 2.5f,  1e-30f, -INFINITY, NAN,    -1e-8f};
    const op_kernels *k[2];
    enum { N = 4096 + sizeof odd / sizeof *odd };
    static float x[N], want[N], got[N];
    for (uint32_t i = 0; i < 4096; i++)
        x[i] = -126 + 253 * (float)(hash_mix(i) >> 40) / 0x1p24f;
    memcpy(x + 4096, odd, sizeof odd);
    ops_plain.exp2(x, N, want);
    for (uint32_t i = 0; i < N; i++) {
        double exact = x[i] >= -125 ? exp2(x[i]) : 0;
        ck_assert_double_le(fabs(want[i] - exact), 2.5e-7 * exact);
    }
    ck_assert(want[4096] == 1 && want[4098] == 2);
    for (uint32_t i = 0, n_k = other_tables(k); i < n_k; i++)
        for (uint32_t n = N - 17; n <= N; n++) {
            k[i]->exp2(x, n, got);
            assert_bits(want, got, n, "exp2", k[i]->isa, n);
        }
}
END_TEST

START_TEST(the_soft_cap_has_the_same_bits_on_every_isa_and_is_near_libm) {
    static const float caps[] = {1e-3f, 0.5f, 30, 50, 1e6f};
    const op_kernels *k[2];
    uint32_t n_k = other_tables(k);
    float x[MOST], want[MOST], got[MOST];
    for (uint32_t c = 0; c < sizeof caps / sizeof *caps; c++) {
        const float cap = caps[c];
        fill_random(x, MOST, 9);
        for (int i = 0; i < MOST; i++) x[i] *= i % 2 ? cap : 10 * cap;
        x[3] = 1e30f, x[4] = -1e30f, x[5] = INFINITY, x[6] = 0;
        memcpy(want, x, sizeof x);
        ops_plain.soft_cap(want, MOST, cap);
        for (int i = 0; i < MOST; i++)
            ck_assert_double_le(fabs(want[i] - cap * tanh((double)x[i] / cap)), 1.5e-7 * cap);
        ck_assert(want[3] == cap && want[4] == -cap && want[5] == cap && want[6] == 0);
        for (uint32_t i = 0; i < n_k; i++)
            for (uint32_t n = 1; n <= MOST; n += 13) {
                memcpy(got, x, sizeof x);
                k[i]->soft_cap(got, n, cap);
                assert_bits(want, got, n, "soft_cap", k[i]->isa, n);
            }
    }
}
END_TEST

START_TEST(a_sink_has_the_same_bits_on_every_isa_and_never_overflows) {
    static const float at[][2] = {{0, 0},    {3.5f, -2},  {-7, 12.25f}, {-1e4f, 1e4f},
                                  {1e4f, 0}, {120, -120}, {-40, 100}};
    const op_kernels *k[2];
    for (uint32_t i = 0; i < sizeof at / sizeof *at; i++) {
        const float want = ops_plain.attn_sink(at[i][0], at[i][1]);
        const double gap = (double)at[i][1] - at[i][0];
        const double exact = gap < -125 ? 0 : exp2(fmin(gap, 127));
        ck_assert_double_le(fabs(want - exact), 2.5e-7 * exact);
        for (uint32_t t = 0, n_k = other_tables(k); t < n_k; t++) {
            const float got = k[t]->attn_sink(at[i][0], at[i][1]);
            assert_bits(&want, &got, 1, "attn_sink", k[t]->isa, i);
        }
    }
}
END_TEST

START_TEST(the_gate_has_the_same_bits_on_every_isa_and_is_near_libm) {
    const op_kernels *k[2];
    uint32_t n_k = other_tables(k);
    float g[MOST], u[MOST], want[MOST], got[MOST];
    for (int act = ACT_SILU; act <= ACT_SWIGLU_OAI; act++) {
        fill_random(g, MOST, 5);
        fill_random(u, MOST, 6);
        g[3] = 1e4f, g[4] = -1e4f, g[5] = INFINITY, g[6] = 0;
        ops_plain.gate((activation)act, g, u, MOST, want);
        for (int i = 7; i < MOST; i++) {
            double x = g[i], v = u[i];
            if (act == ACT_SWIGLU_OAI) x = fmin(x, 7), v = fmax(fmin(v, 7), -7) + 1;
            double s =
                act == ACT_SWIGLU_OAI ? x / (1 + exp(-1.702 * x))
                : act == ACT_SILU
                    ? x / (1 + exp(-x))
                    : 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
            ck_assert_double_le(fabs(want[i] - s * v),
                                3e-6 * fabs(s * v) + 1e-6 * fabs(x * v) + 1e-30);
        }
        for (uint32_t i = 0; i < n_k; i++)
            for (uint32_t n = 1; n <= MOST; n += 13) {
                memcpy(got, g, sizeof g);
                k[i]->gate((activation)act, got, u, n, got); /* in place, as the engine does */
                assert_bits(want, got, n, "gate", k[i]->isa, n);
            }
    }
}
END_TEST

START_TEST(rotation_has_the_same_bits_on_every_isa_and_keeps_lengths) {
    static const uint32_t dims[][2] = {{64, 64}, {128, 128}, {80, 32}, {96, 96}, {72, 20}};
    const op_kernels *k[2];
    uint32_t n_k = other_tables(k);
    float x[128], cs[128], want[128], got[128];
    for (uint32_t c = 0; c < 5; c++)
        for (int pairing = ROPE_ADJACENT; pairing <= ROPE_HALVES; pairing++) {
            uint32_t hd = dims[c][0], n = dims[c][1];
            fill_random(x, hd, c);
            for (uint32_t i = 0; i < n / 2; i++) {
                cs[i] = cosf((float)i);
                cs[i + n / 2] = sinf((float)i);
            }
            ops_plain.rope(x, cs, hd, n, (rope_pairing)pairing, 0.25f, want);
            double before = 0, after = 0;
            for (uint32_t i = 0; i < hd; i++) {
                before += (double)x[i] * x[i];
                after += (double)want[i] * want[i] * 16;
                if (i >= n) ck_assert(want[i] == x[i] * 0.25f);
            }
            ck_assert_double_le(fabs(before - after), 1e-5 * before);
            uint32_t mate = pairing == ROPE_ADJACENT ? 3 : 1 + n / 2, at = pairing ? 1 : 2;
            double one = x[at] * cs[1] - (double)x[mate] * cs[1 + n / 2];
            ck_assert_double_le(fabs(want[at] - one * 0.25), 1e-6 * fabs(one) + 1e-7);
            for (uint32_t i = 0; i < n_k; i++) {
                k[i]->rope(x, cs, hd, n, (rope_pairing)pairing, 0.25f, got);
                assert_bits(want, got, hd, "rope", k[i]->isa, hd);
            }
        }
}
END_TEST

START_TEST(the_rest_of_a_quantised_block_has_the_same_bits_on_every_isa) {
    const op_kernels *k[2];
    float x[32], want[32], got[32];
    int8_t q[32];
    for (uint32_t i = 0, n_k = other_tables(k); i < n_k; i++)
        for (uint64_t seed = 0; seed < 50; seed++) {
            fill_random(x, 32, seed);
            for (int j = 0; j < 32; j++)
                q[j] = (int8_t)(hash_mix(seed * 32 + (uint64_t)j) % 255 - 127);
            ops_plain.rest(x, q, 0.01f, want);
            k[i]->rest(x, q, 0.01f, got);
            assert_bits(want, got, 32, "rest", k[i]->isa, 32);
        }
}
END_TEST

/* Some tokens are of zeros, of denormal numbers, or have something infinite. */
static void spoil(float *key, float *value, uint32_t n, uint32_t pos) {
    for (uint32_t i = 0; i < n && pos % 4 == 3; i++)
        key[i] = 0.0f, value[i] = i % 3 ? 3e-40f : -3e-40f;
    if (pos % 8 == 1) value[n - 1] = pos % 16 == 1 ? INFINITY : 3e38f;
}

START_TEST(the_rotation_has_the_same_bits_on_every_isa) {
    const op_kernels *k[2];
    float want[256], got[256];
    for (uint32_t i = 0, n_k = other_tables(k); i < n_k; i++)
        for (uint32_t segment = 16; segment <= 64; segment *= 2)
            for (uint32_t dims = segment; dims <= 256; dims += segment) {
                fill_random(want, dims, dims);
                memcpy(got, want, sizeof want);
                ops_plain.hadamard(want, dims, segment);
                k[i]->hadamard(got, dims, segment);
                assert_bits(want, got, dims, "hadamard", k[i]->isa, dims);
            }
}
END_TEST

START_TEST(tokens_enter_the_cache_with_the_same_bits_on_every_isa) {
    static const uint32_t dims[] = {8, 40, 64, 80, 128}, blocks[] = {8, 16, 64};
    static const dtype types[] = {DT_F16, DT_BF16, DT_F32, DT_INT8, DT_Q8_0, DT_FP8, DT_INT4};
    enum { N_TYPES = sizeof types / sizeof *types };
    const op_kernels *k[2];
    uint32_t n_k = other_tables(k);
    const int32_t table[] = {1, 0, 2};
    const size_t bytes = 3 * 64 * 2 * 128 * 4;
    unsigned char *want = malloc(bytes), *got = malloc(bytes);
    float key[128], value[128];
    ck_assert(want && got);
    for (uint32_t c = 0; c < 2 * 5 * 3 * N_TYPES * N_TYPES; c++) {
        kv_format f;
        err e;
        const dtype kt = types[c / 15 % N_TYPES], vt = types[c / 15 / N_TYPES % N_TYPES];
        const bool tail = c / 15 / N_TYPES / N_TYPES;
        if (kv_sizes_check(kt, vt, blocks[c / 5 % 3], dims[c % 5], &e) != OK) continue;
        const kv_type *k_type = kv_type_get(kt), *v_type = kv_type_get(vt);
        const kv_type k_tail = kv_tail_type(k_type), v_tail = kv_tail_type(v_type);
        kv_format_init(&f, KV_LANES, tail ? &k_tail : k_type, tail ? &v_tail : v_type,
                       blocks[c / 5 % 3], 1, dims[c % 5]);
        kv_head h = {.blocks = table, .block_stride = f.part_bytes, .format = &f};
        for (uint32_t i = 0; i < n_k; i++) {
            memset(want, 0xff, bytes);
            memset(got, 0xff, bytes);
            for (uint32_t pos = 0; pos < 3 * f.block_tokens; pos += 5) {
                fill_random(key, f.head_dim, pos);
                fill_random(value, f.head_dim, pos + 1);
                key[0] = 1e6f, value[1] = 1e-7f;
                spoil(key, value, f.head_dim, pos);
                h.base = want;
                ops_plain.kv_append(&h, pos, key, value);
                h.base = got;
                k[i]->kv_append(&h, pos, key, value);
            }
            ck_assert_mem_eq(want, got, bytes);
        }
    }
    free(want);
    free(got);
}
END_TEST

CHECK_MAIN("ops", kernels_of_states_have_the_same_bits_on_every_isa,
           kernels_of_states_are_what_the_formulas_say, norm_has_the_same_bits_on_every_isa,
           norm_is_what_the_formula_says,
           layer_norm_has_the_same_bits_on_every_isa_and_is_what_the_formula_says,
           activations_alone_have_the_same_bits_on_every_isa_and_are_near_libm,
           exp2_has_the_same_bits_on_every_isa_and_is_near_libm,
           the_soft_cap_has_the_same_bits_on_every_isa_and_is_near_libm,
           a_sink_has_the_same_bits_on_every_isa_and_never_overflows,
           the_gate_has_the_same_bits_on_every_isa_and_is_near_libm,
           rotation_has_the_same_bits_on_every_isa_and_keeps_lengths,
           the_rest_of_a_quantised_block_has_the_same_bits_on_every_isa,
           the_rotation_has_the_same_bits_on_every_isa,
           tokens_enter_the_cache_with_the_same_bits_on_every_isa)
