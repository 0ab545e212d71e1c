/* The codes of quantised KV caches: against the same formulas in double, their errors against
 * what the formats promise, and rows of zeros, denormal numbers, NaN and infinities. */
#include "engine/kv_code.h"

#include <math.h>
#include <stdlib.h>

#include "base/hash.h"
#include "tests/check_main.h"

static const dtype types[] = {DT_INT8, DT_Q8_0, DT_FP8, DT_INT4};
enum { N_TYPES = sizeof types / sizeof *types, MAX_SEGMENT = 64 };

/* About normal, of a given size; with an outlier in some segments, a common sign in others. */
static void fill(float *x, uint32_t n, uint64_t seed, float size) {
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t h = hash_mix(seed * 1000 + i);
        float f = 0;
        for (int k = 0; k < 4; k++) f += (float)(h >> (16 * k) & 0xffff) / 65536.0f;
        x[i] = (f - 2.0f) * size;
        if (seed % 5 == 4) x[i] = fabsf(x[i]);
    }
    if (seed % 3 == 2) x[seed % n] *= 30.0f;
}

static void rotate(const double *x, uint32_t n, double *out) {
    for (uint32_t i = 0; i < n; i++) {
        out[i] = 0;
        for (uint32_t j = 0; j < n; j++) out[i] += __builtin_popcount(i & j) % 2 ? -x[j] : x[j];
    }
}

/* ---- the formats, in double and by search ---- */

static double f16_value(uint32_t h) {
    const uint32_t e = h >> 10 & 31, m = h & 1023;
    return e ? ldexp(1024.0 + m, (int)e - 25) : ldexp(m, -24);
}

/* The f16 nearest to x > 0, ties to even. */
static uint32_t nearest_f16(double x) {
    uint32_t best = 0;
    for (uint32_t h = 1; h < 0x7c00; h++) {
        const double a = fabs(f16_value(h) - x), b = fabs(f16_value(best) - x);
        if (a < b || (a == b && h % 2 == 0)) best = h;
    }
    return best;
}

static double e4m3_value(uint32_t c) {
    const uint32_t e = c >> 3 & 15, m = c & 7;
    const double a = e ? ldexp(8.0 + m, (int)e - 10) : ldexp(m, -9);
    return c & 0x80 ? -a : a;
}

static uint32_t nearest_e4m3(double x) {
    uint32_t best = 0;
    for (uint32_t c = 0; c < 0x7f; c++) {
        const double a = fabs(e4m3_value(c) - fabs(x)), b = fabs(e4m3_value(best) - fabs(x));
        if (a < b || (a == b && c % 2 == 0)) best = c;
    }
    return best;
}

/* The least scale of int4's word that is not below d, as its 10 bits. */
static uint32_t scale_not_below(double d) {
    for (uint32_t h = 32; h < 0x7c00; h += 32)
        if (f16_value(h) >= d) return h >> 5;
    return 0;
}

typedef struct wanted {
    uint32_t word;
    int code[MAX_SEGMENT];
    double y[MAX_SEGMENT]; /* as they are coded */
} wanted;

static double cut(double c, double least, double most) {
    return c < least ? least : c > most ? most : c;
}

/* y: what the float butterflies gave, so that both round the same numbers. */
static void encode_in_double(dtype t, const float *y, uint32_t n, wanted *w) {
    double most = 0, lo = 0, hi = 0;
    for (uint32_t i = 0; i < n; i++) {
        w->y[i] = (double)y[i];
        most = fmax(most, fabs(w->y[i])), lo = fmin(lo, w->y[i]), hi = fmax(hi, w->y[i]);
    }
    if (t == DT_INT4) {
        const uint32_t scale = scale_not_below((double)((float)(hi - lo) / 15.0f));
        const double d = f16_value(scale << 5);
        const double z = rint((double)(-4.0f * (float)lo / (float)d));
        w->word = scale << 6 | (uint32_t)z;
        for (uint32_t i = 0; i < n; i++)
            w->code[i] = (int)cut(rint(w->y[i] / d + z / 4), 0, 15);
        return;
    }
    const double per = t == DT_FP8 ? 448 : 127;
    w->word = nearest_f16((double)((float)most / (float)per));
    if (w->word == 0) w->word = 1;
    const double d = f16_value(w->word);
    for (uint32_t i = 0; i < n; i++) {
        const double c = (double)((float)w->y[i] / (float)d);
        if (t == DT_FP8)
            w->code[i] = (int)nearest_e4m3(c) | (signbit(c) ? 0x80 : 0);
        else
            w->code[i] = (int)(uint8_t)(int8_t)cut(rint(c), -127, 127);
    }
}

START_TEST(codes_are_those_of_the_formulas_in_double) {
    const kv_type *t = kv_type_get(types[_i]);
    for (uint64_t seed = 0; seed < 200; seed++) {
        const uint32_t n = seed % 4 == 0 ? 16 : seed % 4 == 1 ? t->segment / 2u : t->segment;
        const float size = seed % 7 == 6 ? 1e-6f : seed % 7 == 5 ? 300.0f : 0.8f;
        float x[MAX_SEGMENT], y[MAX_SEGMENT];
        uint8_t codes[MAX_SEGMENT];
        wanted w;
        fill(x, n, seed, size);
        memcpy(y, x, sizeof y);
        if (t->rotated) kv_hadamard(y, n);
        encode_in_double(t->type, y, n, &w);
        const uint16_t word = kv_encode(t, x, n, codes);
        ck_assert_msg(word == w.word, "%s: word %x, wanted %x", dtype_name(t->type), word,
                      w.word);
        for (uint32_t i = 0; i < n; i++) {
            ck_assert_msg(codes[i] == w.code[i], "%s, seed %lu: code %u is %d, wanted %d",
                          dtype_name(t->type), (unsigned long)seed, i, codes[i], w.code[i]);
            ck_assert(t->type != DT_INT4 || codes[i] < 16);
            ck_assert((t->type != DT_INT8 && t->type != DT_Q8_0) || codes[i] != 128);
        }
    }
}
END_TEST

START_TEST(the_butterflies_are_the_hadamard_matrix) {
    for (uint32_t n = 1; n <= 64; n *= 2) {
        float x[64];
        double in[64], want[64];
        fill(x, n, n, 1.0f);
        for (uint32_t i = 0; i < n; i++) in[i] = (double)x[i];
        rotate(in, n, want);
        kv_hadamard(x, n);
        for (uint32_t i = 0; i < n; i++) ck_assert_double_le(fabs(x[i] - want[i]), 1e-5);
        /* Small integers are exact: H H = n I. */
        for (uint32_t i = 0; i < n; i++) x[i] = (float)(i * 7 % 31) - 15.0f;
        kv_hadamard(x, n);
        kv_hadamard(x, n);
        for (uint32_t i = 0; i < n; i++)
            ck_assert(x[i] == (float)n * ((float)(i * 7 % 31) - 15.0f));
    }
}
END_TEST

/* Of the mean square of near-normal numbers; q8_0 and int8 have 8 bits, e4m3 three behind the
 * point, int4 has 16 levels from the least to the largest of 64. */
START_TEST(what_comes_back_is_as_near_as_the_type_promises) {
    static const double most[] = {0.009, 0.007, 0.03, 0.12};
    const kv_type *t = kv_type_get(types[_i]);
    double error = 0, all = 0;
    for (uint64_t seed = 0; seed < 300; seed += 3) {
        float x[MAX_SEGMENT], y[MAX_SEGMENT];
        uint8_t codes[MAX_SEGMENT];
        fill(x, t->segment, seed, 1.0f);
        memcpy(y, x, sizeof y);
        const uint16_t word = kv_encode(t, y, t->segment, codes);
        kv_decode(t, word, codes, t->segment, y);
        for (uint32_t i = 0; i < t->segment; i++) {
            const double e = (double)y[i] - (double)x[i];
            error += e * e, all += (double)x[i] * (double)x[i];
        }
    }
    ck_assert_msg(sqrt(error / all) < most[_i], "%s: %g", dtype_name(t->type),
                  sqrt(error / all));
    ck_assert_msg(sqrt(error / all) > most[_i] / 3, "%s: %g", dtype_name(t->type),
                  sqrt(error / all));
}
END_TEST

START_TEST(zeros_come_back_as_zeros_and_denormals_near_zero) {
    const kv_type *t = kv_type_get(types[_i]);
    for (int k = 0; k < 3; k++) {
        const float tiny = k == 0 ? 0.0f : k == 1 ? 1e-41f : 1e-9f;
        float x[MAX_SEGMENT];
        uint8_t codes[MAX_SEGMENT];
        for (uint32_t i = 0; i < t->segment; i++) x[i] = i % 2 ? -tiny : tiny;
        const uint16_t word = kv_encode(t, x, t->segment, codes);
        const kv_scale s = kv_scale_of(t->type, word);
        ck_assert(s.d > 0.0f && isfinite(s.d));
        kv_decode(t, word, codes, t->segment, x);
        for (uint32_t i = 0; i < t->segment; i++)
            ck_assert(k ? fabsf(x[i]) < 1e-5f : x[i] == 0.0f);
    }
}
END_TEST

START_TEST(a_segment_with_something_infinite_poisons_its_reader) {
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY, 3e38f, -1e9f};
    const kv_type *t = kv_type_get(types[_i]);
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        for (uint32_t at = 0; at < t->segment; at += 21) {
            float x[MAX_SEGMENT];
            uint8_t codes[MAX_SEGMENT];
            fill(x, t->segment, 1, 1.0f);
            x[at] = bad[k];
            const uint16_t word = kv_encode(t, x, t->segment, codes);
            ck_assert_uint_eq(word, t->type == DT_INT4 ? KV_NAN_INT4 : KV_NAN_F16);
            kv_decode(t, word, codes, t->segment, x);
            for (uint32_t i = 0; i < t->segment; i++) ck_assert(isnan(x[i]));
        }
    /* The largest that an f16 cache holds is coded, and an outlier of that size. */
    float x[MAX_SEGMENT];
    uint8_t codes[MAX_SEGMENT];
    fill(x, t->segment, 1, 1.0f);
    x[3] = -65504.0f;
    const uint16_t word = kv_encode(t, x, t->segment, codes);
    kv_decode(t, word, codes, t->segment, x);
    ck_assert(fabsf(x[3] + 65504.0f) < 5000.0f);
}
END_TEST

START_TEST(every_e4m3_comes_back_and_every_float_goes_to_the_nearest) {
    for (uint32_t c = 0; c < 256; c++) {
        if ((c & 0x7f) == 0x7f) continue; /* NaN */
        ck_assert(256.0 * (double)kv_e4m3_to_float((uint8_t)c) == e4m3_value(c));
        ck_assert_uint_eq(kv_e4m3_of_float((float)e4m3_value(c)), c);
    }
    for (uint32_t i = 0; i < 200000; i++) {
        const float x = ldexpf((float)(hash_mix(i) & 0xfffff) / 1048576.0f, (int)(i % 26) - 15);
        ck_assert_uint_eq(kv_e4m3_of_float(x), nearest_e4m3((double)x));
        ck_assert_uint_eq(kv_e4m3_of_float(-x), nearest_e4m3((double)x) | 0x80);
    }
    for (uint32_t c = 0; c < 0x7e; c++) { /* ties */
        const float x = (float)((e4m3_value(c) + e4m3_value(c + 1)) / 2);
        ck_assert_uint_eq(kv_e4m3_of_float(x), c + c % 2);
    }
    ck_assert_uint_eq(kv_e4m3_of_float(1e9f), 0x7e);
    ck_assert_uint_eq(kv_e4m3_of_float(-1e9f), 0xfe);
}
END_TEST

int main(void) {
    Suite *s = suite_create("kv code");
    TCase *t = check_case(s, "kv code");
    tcase_add_test(t, the_butterflies_are_the_hadamard_matrix);
    tcase_add_test(t, every_e4m3_comes_back_and_every_float_goes_to_the_nearest);
    tcase_add_loop_test(t, codes_are_those_of_the_formulas_in_double, 0, N_TYPES);
    tcase_add_loop_test(t, what_comes_back_is_as_near_as_the_type_promises, 0, N_TYPES);
    tcase_add_loop_test(t, zeros_come_back_as_zeros_and_denormals_near_zero, 0, N_TYPES);
    tcase_add_loop_test(t, a_segment_with_something_infinite_poisons_its_reader, 0, N_TYPES);
    return check_run(s);
}
