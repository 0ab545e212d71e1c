/* Passes over a row of logits. Four-lane vectors of the compiler (GNU C), which any x86-64 has:
 * wider ones would change nothing but speed, and the order of the sums. Any thread. */
#include "model/row.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/half.h"

typedef float v4 __attribute__((vector_size(16)));
typedef uint32_t v4u __attribute__((vector_size(16)));
typedef float v2 __attribute__((vector_size(8)));
typedef double v2d __attribute__((vector_size(16)));
typedef uint64_t v2u __attribute__((vector_size(16)));
typedef float v4_mem __attribute__((vector_size(16), aligned(4), may_alias));

static inline v4 load(const float *p) {
    return *(const v4_mem *)p;
}
static inline v4 splat(float f) {
    return (v4){f, f, f, f};
}
static inline v4 pick(v4u mask, v4 yes, v4 no) {
    return (v4)(((v4u)yes & mask) | ((v4u)no & ~mask));
}
static inline v4 max4(v4 a, v4 b) { /* b where a is NaN */
    return pick((v4u)(a > b), a, b);
}

static float block_maximum(const float *x, uint32_t n) {
    float best = -INFINITY;
    uint32_t i = 0;
    if (n == ROW_BLOCK) {
        v4 m[4] = {splat(best), splat(best), splat(best), splat(best)};
        for (; i < ROW_BLOCK; i += 16)
            for (int l = 0; l < 4; l++) m[l] = max4(load(x + i + 4 * l), m[l]);
        v4 a = max4(max4(m[0], m[1]), max4(m[2], m[3]));
        for (int l = 0; l < 4; l++) best = a[l] > best ? a[l] : best;
    }
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
    return best;
}

row_best row_max(const float *x, uint32_t n, float *block_max) {
    row_best best = {-INFINITY, 0};
    for (uint32_t i = 0; i < n; i += ROW_BLOCK) {
        float m = block_maximum(x + i, n - i < ROW_BLOCK ? n - i : ROW_BLOCK);
        if (block_max) block_max[i / ROW_BLOCK] = m;
        if (m > best.value) best = (row_best){m, i};
    }
    while (best.value > -INFINITY && x[best.at] != best.value) best.at++;
    return best;
}

/* Words of 32 at once: masks of a few forbidden tokens cost little more than a look at each. */
void row_forbid(float *x, uint32_t n, const uint32_t *allowed) {
    for (uint32_t first = 0; first < n; first += 32) {
        uint32_t bits = ~allowed[first / 32], m = n - first < 32 ? n - first : 32;
        if (bits == UINT32_MAX) {
            for (uint32_t i = 0; i < m; i++) x[first + i] = -INFINITY;
            continue;
        }
        for (; bits; bits &= bits - 1) {
            uint32_t i = (uint32_t)__builtin_ctz(bits);
            if (i < m) x[first + i] = -INFINITY;
        }
    }
}

/* 2^((x - max) * scale). The integer part of the exponent is found by adding 1.5 * 2^23, which
 * leaves it in the low bits of the sum; the rest, in [-0.5, 0.5], goes through the Taylor
 * polynomial of degree 7 (coefficients ln(2)^k / k!, remainder 5e-9). */
static inline v4 exp2_of(v4 x, float max, float scale) {
    const v4 shift = splat(0x1.8p23f), top = splat(FLT_MAX);
    v4 y = (pick((v4u)(x > top), top, x) - max) * scale;
    v4u alive = (v4u)(y >= splat(-125.0f)); /* false for NaN */
    y = (v4)((v4u)y & alive);
    v4 t = y + shift, f = y - (t - shift);
    v4 p = f * 1.52527338e-5f + 1.54035304e-4f;
    p = p * f + 1.33335581e-3f;
    p = p * f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.0f;
    return (v4)(((v4u)p + ((v4u)t << 23)) & alive);
}

/* The last one to three entries, padded with what becomes 0. */
static inline v4 load_tail(const float *x, uint32_t n) {
    v4 v = splat(-INFINITY);
    for (uint32_t i = 0; i < n; i++) v[i] = x[i];
    return v;
}

void row_exp2(float *x, uint32_t n, float max, float scale) {
    uint32_t i = 0;
    for (; n - i >= 4; i += 4) *(v4_mem *)(x + i) = exp2_of(load(x + i), max, scale);
    v4 w = exp2_of(load_tail(x + i, n - i), max, scale);
    memcpy(x + i, &w, (n - i) * sizeof *x);
}

/* Adding 2^13 to a double in [0, 1] leaves its multiple of 2^-39 in the low bits. */
#define MASS_SHIFT 0x1p13

uint64_t row_mass(float w) {
    double d = (double)w + MASS_SHIFT, zero = MASS_SHIFT;
    uint64_t a, b;
    memcpy(&a, &d, 8);
    memcpy(&b, &zero, 8);
    return a - b;
}

/* The masses of four weights, added to two sums. */
static inline v2u masses(v4 w) {
    const v2d shift = {MASS_SHIFT, MASS_SHIFT};
    v2d low = __builtin_convertvector((v2){w[0], w[1]}, v2d) + shift;
    v2d high = __builtin_convertvector((v2){w[2], w[3]}, v2d) + shift;
    return ((v2u)low - (v2u)shift) + ((v2u)high - (v2u)shift);
}

uint64_t row_exp2_sum(const float *x, uint32_t n, float max, float scale) {
    v2u sum = {0};
    uint32_t i = 0;
    for (; n - i >= 4; i += 4) sum += masses(exp2_of(load(x + i), max, scale));
    sum += masses(exp2_of(load_tail(x + i, n - i), max, scale));
    return sum[0] + sum[1];
}

uint64_t row_sum(const float *w, uint32_t n, uint64_t *partial) {
    uint64_t total = 0;
    for (uint32_t b = 0; b < n; b += ROW_SUM_BLOCK) {
        uint32_t i = b, end = n - b < ROW_SUM_BLOCK ? n : b + ROW_SUM_BLOCK;
        v2u sum = {0};
        for (; end - i >= 4; i += 4) sum += masses(load(w + i));
        for (; i < end; i++) sum[0] += row_mass(w[i]);
        total += partial[b / ROW_SUM_BLOCK] = sum[0] + sum[1];
    }
    return total;
}

uint32_t row_pick(const float *w, uint32_t n, const uint64_t *partial, uint64_t target) {
    uint32_t n_blocks = (n + ROW_SUM_BLOCK - 1) / ROW_SUM_BLOCK, b = 0;
    uint64_t before = 0;
    while (b < n_blocks && before + partial[b] <= target) before += partial[b++];
    for (uint32_t i = b * ROW_SUM_BLOCK; i < n; i++) {
        before += row_mass(w[i]);
        if (before > target) return i;
    }
    for (uint32_t i = 0; i < n; i++)
        if (w[i] > 0) return i;
    return 0;
}

uint32_t row_key(float x) {
    uint32_t u = bits_of_float(x + 0.0f);
    return u >> 31 ? ~u : u | 0x80000000u;
}

row_cut row_find_cut(const uint32_t *key, const float *weight, uint32_t n, uint64_t target,
                     uint32_t *at, uint64_t *bucket) {
    static const int shift[] = {21, 10, 0}, width[] = {11, 11, 10};
    uint64_t kept = 0; /* mass of what is certainly above the cut */
    uint32_t n_at = n, prefix = 0;
    for (int level = 0; level < 3; level++) {
        uint32_t mask = (1u << width[level]) - 1, b = mask, m = 0;
        memset(bucket, 0, (mask + 1) * sizeof *bucket);
        for (uint32_t j = 0; j < n_at; j++) {
            uint32_t i = level ? at[j] : j;
            bucket[key[i] >> shift[level] & mask] += weight ? row_mass(weight[i]) : 1;
        }
        while (b > 0 && kept + bucket[b] < target) kept += bucket[b--];
        prefix = prefix << width[level] | b;
        for (uint32_t j = 0; j < n_at; j++) {
            uint32_t i = level ? at[j] : j;
            if (key[i] >> shift[level] == prefix) at[m++] = i;
        }
        n_at = m;
    }
    row_cut cut = {prefix, 0};
    while (cut.n_ties < n_at && kept < target) {
        kept += weight ? row_mass(weight[at[cut.n_ties]]) : 1;
        cut.n_ties++;
    }
    return cut;
}

/* ln m = 2 atanh((m - 1) / (m + 1)), m in [sqrt(1/2), sqrt(2)): the argument is below 0.1716,
 * and the first term left out below 1e-17. */
double row_log(double x) {
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752) m *= 2, e--;
    double s = (m - 1) / (m + 1), q = s * s, sum = 0;
    for (int k = 21; k >= 1; k -= 2) sum = sum * q + 1.0 / k;
    return e * 0.69314718055994531 + 2 * s * sum;
}
