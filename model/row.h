/* Passes over one row of logits: the maximum, the exponential, sums, and the cut that keeps
 * the best few without sorting. Weights are added up as integers, in units of 2^-39: such a sum
 * has no order, so that threads, vectors and devices are free in how they add, and no function
 * of libm is used: a draw is the same everywhere. Stateless; any thread. */
#ifndef VRAMD_MODEL_ROW_H
#define VRAMD_MODEL_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ROW_BLOCK = 64,      /* floats of one entry of block maxima */
    ROW_SUM_BLOCK = 256, /* floats of one partial sum */
    ROW_CUT_BUCKETS = 2048
};

typedef struct row_best {
    float value; /* -inf when the row has nothing but NaN and -inf */
    uint32_t at; /* lowest index among equals */
} row_best;

/* The maximum of x[0..n), NaN counting as -inf. block_max: [ceil(n / ROW_BLOCK)], filled in, or
 * NULL. */
row_best row_max(const float *x, uint32_t n, float *block_max);

/* x[i] = -inf where bit i % 32 of allowed[i / 32] is 0. */
void row_forbid(float *x, uint32_t n, const uint32_t *allowed);

/* x[i] = 2^((min(x[i], FLT_MAX) - max) * scale); max and scale finite, no x above max but
 * +inf. NaN and what is below 2^-125 become 0. Relative error below 1e-6 for exponents above
 * -20. */
void row_exp2(float *x, uint32_t n, float max, float scale);
/* The sum of the masses of the same, x left alone. */
uint64_t row_exp2_sum(const float *x, uint32_t n, float max, float scale);

/* The mass of a weight: w in [0, 1] in units of ROW_UNIT, to the nearest, ties to even. A row
 * of 2^24 weights of 1 has a sum below 2^64. */
#define ROW_UNIT 0x1p-39
uint64_t row_mass(float w);
/* Sum of the masses of w[0..n); partial: [ceil(n / ROW_SUM_BLOCK)], the sums it is made of. */
uint64_t row_sum(const float *w, uint32_t n, uint64_t *partial);

/* Index at which the running sum of masses first exceeds target; partial as row_sum left it.
 * Where none does (all weigh less than half a unit): the first whose w is > 0. */
uint32_t row_pick(const float *w, uint32_t n, const uint64_t *partial, uint64_t target);

/* Monotone: a < b as floats exactly when the keys are so; -0 and +0 share one. Not for NaN. */
uint32_t row_key(float x);

/* The cut of the smallest set of highest keys, lowest index first among equal keys, whose mass
 * (or count, when weight is NULL) reaches target: it keeps keys above key, and the first n_ties
 * that equal it. Everything is kept when the target cannot be reached. */
typedef struct row_cut {
    uint32_t key, n_ties;
} row_cut;

/* at: [n], bucket: [ROW_CUT_BUCKETS]: scratch. n >= 1. Three passes of a radix select; the
 * second and third see only what shares the leading bits of the cut. */
row_cut row_find_cut(const uint32_t *key, const float *weight, uint32_t n, uint64_t target,
                     uint32_t *at, uint64_t *bucket);

/* Whether an entry stays; to be asked in the order of the indexes. */
static inline bool row_cut_keeps(row_cut *c, uint32_t key) {
    if (key != c->key) return key > c->key;
    if (c->n_ties == 0) return false;
    c->n_ties--;
    return true;
}

/* Natural logarithm of a positive normal number; error below 1e-15 relative to max(1, |ln|). */
double row_log(double x);

#endif
