/* The sampler against a naive one in double precision, known answers, and statistics. */
#include "tests/check_main.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "model/row.h"
#include "model/sampling.h"

/* ---- helpers ---- */

static uint64_t seed_now;
static double uniform(void) {
    return (double)(hash_mix(seed_now++ * 0x9e3779b97f4a7c15u) >> 11) * 0x1p-53;
}
static double gauss(void) {
    return sqrt(-2 * log(uniform() + 1e-300)) * cos(6.283185307179586 * uniform());
}
static uint32_t below(uint32_t n) {
    return (uint32_t)(uniform() * n);
}

static void *scratch_for(uint32_t n) {
    void *p = aligned_alloc(64, sampling_scratch_bytes(n));
    memset(p, 0xa5, sampling_scratch_bytes(n)); /* its contents must not matter */
    return p;
}

static sampled draw_masked(const float *logits, uint32_t n, const sampling *p,
                           const uint32_t *allowed, const sampling_history *h,
                           uint32_t position) {
    float *copy = malloc(n * sizeof *copy);
    void *scratch = scratch_for(n);
    sampled out;
    memcpy(copy, logits, n * sizeof *copy);
    sampling_draw(&out, copy, n, p, allowed, h, position, scratch);
    free(scratch);
    free(copy);
    return out;
}

static sampled draw(const float *logits, uint32_t n, const sampling *p,
                    const sampling_history *h, uint32_t position) {
    return draw_masked(logits, n, p, NULL, h, position);
}

/* ---- the naive sampler: sorts, doubles, libm ---- */

typedef struct item {
    int32_t id;
    double logit, p, rank; /* rank: what is sorted by, ascending */
} item;

static int by_rank(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    return x->id - y->id;
}
static int by_id(const void *a, const void *b) {
    return ((const item *)a)->id - ((const item *)b)->id;
}

static void normalise(item *v, uint32_t n) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += v[i].p;
    for (uint32_t i = 0; i < n; i++) v[i].p /= sum;
}

/* How many of the first by rank reach the mass; *close: a boundary lies within 1e-5. */
static uint32_t reach(const item *v, uint32_t n, double mass, bool *close) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += v[i].p;
        if (fabs(sum - mass) < 1e-5) *close = true;
        if (sum >= mass) return i + 1;
    }
    return n;
}

static uint32_t naive(item *v, const float *logits, uint32_t n, const sampling *p,
                      bool *close) {
    double max = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        v[i] = (item){(int32_t)i, logits[i], 0, -(double)logits[i]};
        if (logits[i] > max) max = logits[i];
    }
    qsort(v, n, sizeof *v, by_rank);
    if (p->top_k > 0 && (uint32_t)p->top_k < n) n = (uint32_t)p->top_k;
    for (uint32_t i = 0; i < n; i++) v[i].p = exp((v[i].logit - max) / p->temperature);
    normalise(v, n);
    if (p->typical_p < 1) {
        double entropy = 0;
        for (uint32_t i = 0; i < n; i++)
            if (v[i].p > 0) entropy -= v[i].p * log(v[i].p);
        for (uint32_t i = 0; i < n; i++) v[i].rank = fabs(-log(v[i].p) - entropy);
        qsort(v, n, sizeof *v, by_rank);
        for (uint32_t i = 1; i < n; i++)
            if (v[i].rank - v[i - 1].rank < 1e-5) *close = true;
        n = reach(v, n, p->typical_p, close);
        normalise(v, n);
        for (uint32_t i = 0; i < n; i++) v[i].rank = -v[i].logit;
        qsort(v, n, sizeof *v, by_rank);
    }
    if (p->top_p < 1) {
        n = reach(v, n, p->top_p, close);
        normalise(v, n);
    }
    if (p->min_p > 0) {
        uint32_t m = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (fabs(v[i].p / v[0].p - p->min_p) < 1e-5) *close = true;
            if (v[i].p >= p->min_p * v[0].p) v[m++] = v[i];
        }
        normalise(v, n = m);
    }
    qsort(v, n, sizeof *v, by_id);
    return n;
}

/* Where u falls in the cumulative sum, and whether a boundary is near. */
static int32_t naive_pick(const item *v, uint32_t n, double u, bool *close) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += v[i].p;
        if (fabs(sum - u) < 1e-5) *close = true;
        if (sum > u) return v[i].id;
    }
    return v[n - 1].id;
}

/* ---- random numbers ---- */

START_TEST(philox_gives_the_known_answers_of_random123) {
    /* Random123 1.14, tests/kat_vectors, lines "philox4x32 10". */
    static const uint32_t kat[][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
         0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1}};
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        sampling_philox(out, kat[i], kat[i] + 4);
        ck_assert_mem_eq(out, kat[i] + 6, sizeof out);
    }
}
END_TEST

START_TEST(the_uniform_number_is_keyed_by_seed_and_position) {
    ck_assert_float_eq(sampling_uniform(0, 0), (float)(0x6627e8d5u >> 8) * 0x1p-24f);
    double sum = 0, sum2 = 0;
    for (uint32_t i = 0; i < 100000; i++) {
        float u = sampling_uniform(7, i);
        ck_assert(u >= 0 && u < 1);
        sum += u, sum2 += u * (double)u;
    }
    ck_assert_double_eq_tol(sum / 1e5, 0.5, 0.004); /* 4 standard errors */
    ck_assert_double_eq_tol(sum2 / 1e5, 1.0 / 3, 0.004);
    ck_assert_float_ne(sampling_uniform(1, 0), sampling_uniform(1ull << 32, 0));
    ck_assert_float_ne(sampling_uniform(1, 0), sampling_uniform(1, 1));
}
END_TEST

/* ---- passes over a row ---- */

START_TEST(the_exponential_is_within_a_millionth) {
    float x[1003];
    for (int i = 0; i < 1003; i++) x[i] = -0.02f * (float)i;
    row_exp2(x, 1003, 0, 1);
    for (int i = 0; i < 1003; i++) {
        double want = exp2((double)(-0.02f * (float)i));
        ck_assert_double_le(fabs((double)x[i] - want), 1e-6 * want);
    }
    float edge[5] = {INFINITY, NAN, -INFINITY, FLT_MAX, -FLT_MAX};
    row_exp2(edge, 5, FLT_MAX, 1);
    ck_assert(edge[0] == 1 && edge[1] == 0 && edge[2] == 0 && edge[3] == 1 && edge[4] == 0);
}
END_TEST

START_TEST(the_logarithm_is_exact_to_1e_15) {
    for (double x = 1e-30; x < 1e30; x *= 1.0371) {
        double want = log(x), tol = 1e-15 * fmax(1, fabs(want));
        ck_assert_double_le(fabs(row_log(x) - want), tol);
    }
    ck_assert_double_eq(row_log(1), 0);
}
END_TEST

START_TEST(sums_of_a_row_agree_with_plain_addition) {
    for (uint32_t n = 1; n < 1500; n += n < 40 ? 1 : 97) {
        float *x = malloc(n * sizeof *x), *w = malloc(n * sizeof *w);
        uint64_t partial[8], sum = 0;
        double want = 0;
        for (uint32_t i = 0; i < n; i++) w[i] = x[i] = (float)(-10 * uniform());
        row_exp2(w, n, 0, 1);
        for (uint32_t i = 0; i < n; i++) want += (double)w[i];
        for (uint32_t i = n; i > 0; i--) sum += row_mass(w[i - 1]); /* no order matters */
        ck_assert_uint_eq(row_sum(w, n, partial), sum);
        ck_assert_uint_eq(row_exp2_sum(x, n, 0, 1), sum);
        ck_assert_double_eq_tol((double)sum * ROW_UNIT, want, 1e-11 * (n + want));
        free(w);
        free(x);
    }
}
END_TEST

START_TEST(a_mass_is_the_nearest_multiple_of_its_unit) {
    ck_assert_uint_eq(row_mass(0), 0);
    ck_assert_uint_eq(row_mass(1), 1ull << 39);
    ck_assert_uint_eq(row_mass(0x1p-39f), 1);
    ck_assert_uint_eq(row_mass(0x1p-40f), 0); /* half a unit goes to even */
    ck_assert_uint_eq(row_mass(0x1.8p-39f), 2);
    ck_assert_uint_eq(row_mass(0x1.000002p-40f), 1);
    for (int i = 0; i < 10000; i++) {
        float w = (float)uniform();
        ck_assert_uint_eq(row_mass(w), (uint64_t)rint((double)w * 0x1p39));
    }
}
END_TEST

START_TEST(a_pick_is_where_the_running_sum_exceeds_the_target) {
    enum { N = 900 };
    float w[N];
    uint64_t partial[4];
    for (int round = 0; round < 200; round++) {
        uint32_t n = 1 + below(N), want = 0;
        for (uint32_t i = 0; i < n; i++) w[i] = below(3) ? 0 : (float)uniform();
        w[below(n)] = 1;
        uint64_t sum = row_sum(w, n, partial), target = (uint64_t)(uniform() * (double)sum);
        if (round % 8 == 0) target = round % 16 ? sum - 1 : 0;
        for (uint64_t run = row_mass(w[0]); run <= target; run += row_mass(w[want])) want++;
        ck_assert_uint_eq(row_pick(w, n, partial, target), want);
        ck_assert(w[want] > 0);
    }
    float light[4] = {0, 1e-20f, 1e-19f, 0};
    ck_assert_uint_eq(row_sum(light, 4, partial), 0);
    ck_assert_uint_eq(row_pick(light, 4, partial, 0), 1);
}
END_TEST

START_TEST(a_cut_keeps_what_sorting_would_keep) {
    enum { N = 3000 };
    static uint32_t key[N], at[N];
    static uint64_t bucket[ROW_CUT_BUCKETS];
    static item v[N];
    for (int round = 0; round < 60; round++) {
        uint32_t n = 1 + below(N), spread = round % 3 ? 0xffffffffu : 1 + below(50);
        for (uint32_t i = 0; i < n; i++) {
            key[i] = (uint32_t)(uniform() * spread);
            v[i] = (item){(int32_t)i, 0, 0, -(double)key[i]};
        }
        qsort(v, n, sizeof *v, by_rank);
        uint32_t k = 1 + below(n + 5), kept = 0;
        row_cut cut = row_find_cut(key, NULL, n, k, at, bucket);
        for (uint32_t i = 0; i < n; i++) kept += row_cut_keeps(&cut, key[i]);
        ck_assert_uint_eq(kept, k < n ? k : n);
        cut = row_find_cut(key, NULL, n, k, at, bucket);
        static char in[N];
        for (uint32_t i = 0; i < n; i++) in[i] = row_cut_keeps(&cut, key[i]);
        for (uint32_t i = 0; i < kept; i++) ck_assert(in[v[i].id]);
    }
}
END_TEST

/* ---- greedy ---- */

START_TEST(greedy_takes_the_highest_and_the_lowest_id_among_equals) {
    sampling p;
    sampling_defaults(&p);
    p.temperature = 0;
    for (uint32_t n = 1; n < 400; n++) {
        float l[400];
        for (uint32_t i = 0; i < n; i++) l[i] = (float)-gauss() * gauss();
        uint32_t a = below(n), b = below(n);
        l[a] = l[b] = 100;
        ck_assert_int_eq(draw(l, n, &p, NULL, 0).token, (int)(a < b ? a : b));
    }
}
END_TEST

START_TEST(nan_counts_as_minus_infinity_and_infinity_wins) {
    sampling p;
    sampling_defaults(&p);
    float l[100];
    for (int i = 0; i < 100; i++) l[i] = NAN;
    l[70] = -5, l[71] = -INFINITY;
    for (int mode = 0; mode < 6; mode++) {
        sampling_defaults(&p);
        p.n_logprobs = 20;
        if (mode == 1) p.temperature = 0;
        if (mode == 2) p.top_k = 5;
        if (mode == 3) p.top_p = 0.5f;
        if (mode == 4) p.typical_p = 0.5f;
        if (mode == 5) p.min_p = 0.5f;
        l[3] = NAN;
        sampled s = draw(l, 100, &p, NULL, 0);
        ck_assert_int_eq(s.token, 70);
        ck_assert_float_eq(s.logprob, 0);
        ck_assert_int_eq(s.n_top, 1);
        l[3] = INFINITY;
        s = draw(l, 100, &p, NULL, 0);
        ck_assert_int_eq(s.token, 3);
        ck_assert_float_eq(s.logprob, 0);
        ck_assert_int_eq(s.n_top, 2);
    }
}
END_TEST

START_TEST(when_nothing_is_left_the_highest_original_logit_wins) {
    sampling p;
    float l[8] = {1, 5, 3, NAN, 2, 0, -1, -2};
    int32_t all[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    for (int mode = 0; mode < 2; mode++) {
        sampling_defaults(&p);
        p.temperature = (float)mode;
        p.min_tokens = 1, p.end_tokens = all, p.n_end_tokens = 8, p.n_logprobs = 3;
        sampled s = draw(l, 8, &p, NULL, 0);
        ck_assert_int_eq(s.token, 1);
        ck_assert(s.logprob == -INFINITY);
        ck_assert_int_eq(s.n_top, 0);
    }
    float none[3] = {NAN, NAN, -INFINITY};
    sampling_defaults(&p);
    ck_assert_int_eq(draw(none, 3, &p, NULL, 0).token, 0);
}
END_TEST

/* ---- edits ---- */

static int32_t greedy_after(const float *l, uint32_t n, sampling p, const sampling_history *h) {
    p.temperature = 0;
    return draw(l, n, &p, h, 0).token;
}

START_TEST(logit_bias_is_added_and_foreign_ids_are_passed_over) {
    sampling p;
    sampling_defaults(&p);
    float l[4] = {1, 2, 3, 4};
    logit_bias b[] = {{3, -100}, {0, 2.5f}, {-1, 100}, {4, 100}, {INT32_MAX, 100}};
    p.bias = b, p.n_bias = 5;
    ck_assert_int_eq(greedy_after(l, 4, p, NULL), 0);
}
END_TEST

START_TEST(end_tokens_are_forbidden_until_min_tokens_were_generated) {
    sampling p;
    sampling_defaults(&p);
    float l[4] = {1, 2, 3, 9};
    int32_t end[] = {3, -7, 400}, said[] = {0, 0, 1, 1};
    p.end_tokens = end, p.n_end_tokens = 3, p.min_tokens = 2;
    sampling_history h = {said, 3, 2};
    ck_assert_int_eq(greedy_after(l, 4, p, &h), 2);
    h.n = 4;
    ck_assert_int_eq(greedy_after(l, 4, p, &h), 3);
    ck_assert_int_eq(greedy_after(l, 4, p, NULL), 2);
}
END_TEST

START_TEST(penalties_do_what_their_formulas_say) {
    enum { N = 300 };
    float l[N], want[N];
    int32_t said[1000];
    for (int round = 0; round < 50; round++) {
        sampling p;
        sampling_defaults(&p);
        if (round % 2) p.repetition_penalty = (float)(0.5 + 2 * uniform());
        if (round % 3) p.presence_penalty = (float)(4 * uniform() - 2);
        if (round % 5) p.frequency_penalty = (float)(4 * uniform() - 2);
        p.temperature = 0;
        p.n_logprobs = 20;
        sampling_history h = {said, 1 + below(1000), 0};
        h.n_prompt = below(h.n + 1);
        for (uint32_t i = 0; i < h.n; i++) said[i] = (int32_t)below(N + 10) - 5;
        for (int i = 0; i < N; i++) want[i] = l[i] = (float)(5 * gauss());
        for (int t = 0; t < N; t++) {
            int any = 0, out = 0;
            for (uint32_t i = 0; i < h.n; i++)
                if (said[i] == t) any++, out += i >= h.n_prompt;
            if (any && want[t] > 0)
                want[t] /= p.repetition_penalty;
            else if (any)
                want[t] *= p.repetition_penalty;
            want[t] -= p.frequency_penalty * (float)out;
            if (out) want[t] -= p.presence_penalty;
        }
        sampling plain;
        sampling_defaults(&plain);
        plain.temperature = 0;
        plain.n_logprobs = 20;
        sampled a = draw(l, N, &p, &h, 0), b = draw(want, N, &plain, NULL, 0);
        ck_assert_int_eq(a.token, b.token);
        ck_assert_float_eq(a.logprob, b.logprob);
        ck_assert_int_eq(a.n_top, 20);
        for (int i = 0; i < 20; i++) {
            ck_assert_int_eq(a.top[i].token, b.top[i].token);
            ck_assert_float_eq(a.top[i].logprob, b.top[i].logprob);
        }
    }
}
END_TEST

/* ---- logprobs ---- */

START_TEST(logprobs_are_taken_at_temperature_1_and_sorted) {
    enum { N = 1000 };
    float l[N];
    static item v[N];
    for (int round = 0; round < 20; round++) {
        double sum = 0;
        for (int i = 0; i < N; i++) {
            l[i] = roundf((float)(8 * gauss())) / (round % 2 ? 1 : 64); /* many ties */
            v[i] = (item){i, l[i], 0, -(double)l[i]};
        }
        for (int i = 0; i < N; i++) sum += exp(v[i].logit);
        qsort(v, N, sizeof *v, by_rank);
        sampling p;
        sampling_defaults(&p);
        p.temperature = round % 3 ? 0.3f : 0;
        p.top_k = 50;
        p.n_logprobs = (int16_t)(round % 21);
        sampled s = draw(l, N, &p, NULL, (uint32_t)round);
        ck_assert_float_eq_tol(s.logprob, (float)(l[s.token] - log(sum)), 2e-6f);
        ck_assert_int_eq(s.n_top, p.n_logprobs);
        for (int i = 0; i < s.n_top; i++) {
            ck_assert_int_eq(s.top[i].token, v[i].id);
            ck_assert_float_eq_tol(s.top[i].logprob, (float)(v[i].logit - log(sum)), 2e-6f);
        }
        sampled t;
        void *scratch = scratch_for(N);
        sampling_score(&t, l, N, s.token, s.n_top, scratch);
        ck_assert_float_eq(t.logprob, s.logprob);
        for (int i = 0; i < s.n_top; i++) ck_assert_int_eq(t.top[i].token, s.top[i].token);
        sampling_score(&t, l, N, -1, 1000, scratch);
        ck_assert(t.logprob == -INFINITY && t.n_top == 20);
        free(scratch);
    }
}
END_TEST

START_TEST(without_logprobs_there_are_none) {
    float l[3] = {1, 2, 3};
    sampling p;
    sampling_defaults(&p);
    sampled s = draw(l, 3, &p, NULL, 0);
    ck_assert(isnan(s.logprob));
    ck_assert_int_eq(s.n_top, 0);
}
END_TEST

/* ---- truncation and the draw ---- */

static void random_parameters(sampling *p, int round, uint32_t n) {
    sampling_defaults(p);
    p->temperature = (float)(0.2 + 1.5 * uniform());
    if (round & 1) p->top_k = 1 + (int32_t)below(round & 32 ? n : 60);
    if (round & 2) p->top_p = (float)uniform();
    if (round & 4) p->min_p = (float)(0.3 * uniform());
    if (round & 8) p->typical_p = (float)uniform();
    p->seed = hash_mix((uint64_t)round);
}

START_TEST(draws_agree_with_a_naive_sampler_in_double_precision) {
    enum { N = 2500 };
    static float l[N];
    static item v[N];
    int compared = 0;
    for (int round = 0; round < 3000; round++) {
        uint32_t n = round % 4 ? 1 + below(300) : 1 + below(N);
        double spread = round % 7 ? 3 : 0.2;
        for (uint32_t i = 0; i < n; i++) l[i] = (float)(spread * gauss() + 10);
        sampling p;
        random_parameters(&p, round, n);
        bool close = false;
        uint32_t left = naive(v, l, n, &p, &close);
        uint32_t r[4], counter[4] = {(uint32_t)round},
                       key[2] = {(uint32_t)p.seed, (uint32_t)(p.seed >> 32)};
        sampling_philox(r, counter, key);
        double u = (double)(((uint64_t)r[0] << 32 | r[1]) >> 11) * 0x1p-53;
        int32_t want = naive_pick(v, left, u, &close);
        sampled s = draw(l, n, &p, NULL, (uint32_t)round);
        if (close) continue;
        compared++;
        ck_assert_msg(s.token == want, "round %d: %d, not %d", round, s.token, want);
    }
    ck_assert_int_gt(compared, 2000);
}
END_TEST

/* The set of tokens that 4,000 positions give. */
static uint64_t support(const float *l, uint32_t n, const sampling *p) {
    uint64_t set = 0;
    for (uint32_t i = 0; i < 4000; i++) set |= 1ull << draw(l, n, p, NULL, i).token;
    return set;
}

START_TEST(top_p_keeps_the_smallest_set_that_reaches_p) {
    /* Weights 1/2, 1/4, 1/8, 1/8: sums of powers of two are exact. */
    float l[4] = {logf(0.125f), logf(0.5f), logf(0.125f), logf(0.25f)};
    sampling p;
    sampling_defaults(&p);
    static const struct {
        float p;
        uint64_t set;
    } rows[] = {{0, 2},      {1e-9f, 2},   {0.499f, 2}, {0.51f, 10}, {0.7499f, 10},
                {0.76f, 11}, {0.874f, 11}, {0.88f, 15}, {1, 15}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        p.top_p = rows[i].p;
        ck_assert_uint_eq(support(l, 4, &p), rows[i].set);
    }
    /* All equal: p of 0.5 of eight is exactly the four lowest ids. */
    float flat[8] = {0};
    p.top_p = 0.5f;
    ck_assert_uint_eq(support(flat, 8, &p), 15);
}
END_TEST

START_TEST(top_k_keeps_k_and_the_lowest_ids_among_equals) {
    float l[10] = {3, 1, 3, 2, -0.0f, 3, 0, -1, 2, 0};
    sampling p;
    sampling_defaults(&p);
    p.temperature = 3;
    static const uint64_t want[] = {0x3ff, 1, 5, 37, 45, 301, 303, 319, 383, 895, 0x3ff, 0x3ff};
    for (int k = 0; k < 12; k++) {
        p.top_k = k;
        ck_assert_uint_eq(support(l, 10, &p), want[k]);
    }
    p.top_k = INT32_MAX;
    ck_assert_uint_eq(support(l, 10, &p), 0x3ff);
    p.top_k = -1;
    ck_assert_uint_eq(support(l, 10, &p), 0x3ff);
}
END_TEST

START_TEST(truncations_renormalise_in_the_order_of_the_header) {
    /* Weights 8, 4, 2, 1, 1. top_k 3 leaves 8, 4, 2 of 14: top_p 0.85 is then 8 + 4 of 14
     * (0.857), where without the renormalisation it would be 8 + 4 + 2 of 16 (0.875). */
    float l[5] = {logf(8), logf(4), logf(2), 0, 0};
    sampling p;
    sampling_defaults(&p);
    p.top_k = 3, p.top_p = 0.85f;
    ck_assert_uint_eq(support(l, 5, &p), 3);
    p.top_k = 0;
    ck_assert_uint_eq(support(l, 5, &p), 7);
    /* min_p is a share of the best. */
    p.top_p = 1, p.min_p = 0.2f;
    ck_assert_uint_eq(support(l, 5, &p), 7);
    p.min_p = 5;
    ck_assert_uint_eq(support(l, 5, &p), 1);
    /* typical_p may drop the best: the entropy of 0.3 and 59 of 0.7 / 59 is 3.47, nearer to
     * their surprisal of 4.43 than to its 1.20. */
    float many[60];
    many[0] = logf(0.3f);
    for (int i = 1; i < 60; i++) many[i] = logf(0.7f / 59);
    p.min_p = 0, p.typical_p = 0.2f;
    ck_assert_uint_eq(support(many, 60, &p) & 1, 0);
}
END_TEST

START_TEST(draws_have_the_distribution_they_should) {
    enum { N = 12, DRAWS = 60000 };
    float l[N];
    static item v[N];
    /* Upper 0.01% points of chi-square with 1 .. 11 degrees of freedom. */
    static const double limit[] = {0,    15.1, 18.4, 21.1, 23.5, 25.7,
                                   27.9, 29.9, 31.8, 33.7, 35.6, 37.4};
    for (int round = 0; round < 16; round++) {
        int count[N] = {0};
        sampling p;
        for (int i = 0; i < N; i++) l[i] = (float)(1.5 * gauss());
        random_parameters(&p, round & 7, N);
        p.seed = (uint64_t)round;
        bool close = false;
        uint32_t n = naive(v, l, N, &p, &close);
        for (uint32_t i = 0; i < DRAWS; i++) count[draw(l, N, &p, NULL, i).token]++;
        double chi = 0;
        int seen = 0;
        for (uint32_t i = 0; i < n; i++) {
            double want = v[i].p * DRAWS, d = count[v[i].id] - want;
            chi += d * d / want;
            seen += count[v[i].id];
        }
        ck_assert_int_eq(seen, DRAWS);
        if (n > 1) ck_assert_double_lt(chi, limit[n - 1]);
    }
}
END_TEST

START_TEST(the_same_input_gives_the_same_token_whatever_the_scratch_holds) {
    enum { N = 49152 };
    float *l = malloc(N * sizeof *l), *a = malloc(N * sizeof *a);
    void *scratch = scratch_for(N);
    for (int i = 0; i < N; i++) l[i] = (float)(3 * gauss());
    for (int round = 0; round < 16; round++) {
        sampling p;
        sampled s, t;
        random_parameters(&p, round, N);
        p.n_logprobs = 3;
        memcpy(a, l, N * sizeof *l);
        sampling_draw(&s, a, N, &p, NULL, NULL, 5, scratch);
        memset(scratch, round * 17, sampling_scratch_bytes(N));
        memcpy(a, l, N * sizeof *l);
        sampling_draw(&t, a, N, &p, NULL, NULL, 5, scratch);
        ck_assert_int_eq(s.token, t.token);
        ck_assert_mem_eq(&s.logprob, &t.logprob, sizeof s.logprob);
        ck_assert_mem_eq(s.top, t.top, 3 * sizeof *s.top);
    }
    free(scratch);
    free(a);
    free(l);
}
END_TEST

START_TEST(a_draw_is_pinned_so_that_every_machine_and_compiler_agrees) {
    /* Values of this implementation: they may change only with the contract. Logits come from
     * integers, without libm. */
    enum { N = 49152 };
    float *l = malloc(N * sizeof *l);
    uint64_t h = 1;
    for (uint32_t i = 0; i < N; i++) l[i] = (float)(hash_mix(i) >> 40) * 0x1p-21f;
    for (int round = 0; round < 64; round++) {
        sampling p;
        random_parameters(&p, 0, N);
        p.temperature = 0.25f + 0.125f * (float)(round % 8);
        p.seed = (uint64_t)round;
        p.n_logprobs = 2;
        if (round & 1) p.top_k = 700;
        if (round & 2) p.top_p = 0.75f;
        if (round & 4) p.min_p = 0.01f;
        if (round & 8) p.typical_p = 0.5f;
        sampled s = draw(l, N, &p, NULL, (uint32_t)round);
        h = hash64(&s.token, sizeof s.token, h);
        h = hash64(&s.logprob, sizeof s.logprob, h);
    }
    free(l);
    ck_assert_msg(h == 0x6d0a927028f56cbau, "0x%016llxu", (unsigned long long)h);
}
END_TEST

/* ---- the mask of allowed tokens ---- */

static bool is_allowed(const uint32_t *allowed, int32_t id) {
    return allowed[id / 32] >> id % 32 & 1;
}

START_TEST(masked_draws_agree_with_a_naive_sampler_and_logprobs_are_of_what_is_allowed) {
    enum { N = 700 };
    static item v[N];
    float l[N], left[N];
    uint32_t allowed[(N + 31) / 32], compared = 0;
    for (int round = 0; round < 6000; round++) {
        sampling p;
        const uint32_t n = 1 + below(N), density = 1 + below(20);
        random_parameters(&p, round & 15, n);
        p.n_logprobs = (int16_t)below(4), p.seed = (uint64_t)round;
        if (round % 5 == 0) p.temperature = 0;
        memset(allowed, 0, sizeof allowed);
        for (uint32_t i = 0; i < n; i++)
            if (below(20) < density) allowed[i / 32] |= 1u << i % 32;
        const uint32_t one = below(n);
        allowed[one / 32] |= 1u << one % 32;
        double max = -INFINITY, sum = 0;
        for (uint32_t i = 0; i < n; i++) {
            l[i] = (float)(3 * gauss());
            left[i] = is_allowed(allowed, (int32_t)i) ? l[i] : -INFINITY;
            if (left[i] > max) max = left[i];
        }
        for (uint32_t i = 0; i < n; i++) sum += exp(left[i] - max);
        const sampled s = draw_masked(l, n, &p, allowed, NULL, 9);
        ck_assert(s.token >= 0 && is_allowed(allowed, s.token));
        ck_assert_double_eq_tol((double)s.logprob, left[s.token] - max - log(sum), 1e-5);
        for (int i = 0; i < s.n_top; i++) ck_assert(is_allowed(allowed, s.top[i].token));
        if (p.temperature == 0) {
            ck_assert(left[s.token] == (float)max);
            continue;
        }
        bool close = false;
        const uint32_t m = naive(v, left, n, &p, &close);
        const int32_t want = naive_pick(v, m, sampling_uniform(p.seed, 9), &close);
        if (close) continue;
        ck_assert_int_eq(s.token, want);
        compared++;
    }
    ck_assert_uint_gt(compared, 2000);
}
END_TEST

START_TEST(a_full_mask_changes_no_bit) {
    enum { N = 333 };
    uint32_t all[(N + 31) / 32];
    float l[N];
    memset(all, 0xff, sizeof all);
    for (int round = 0; round < 500; round++) {
        sampling p;
        random_parameters(&p, round & 15, N);
        p.n_logprobs = 5;
        for (int i = 0; i < N; i++) l[i] = (float)(3 * gauss());
        const sampled a = draw(l, N, &p, NULL, 3), b = draw_masked(l, N, &p, all, NULL, 3);
        ck_assert_mem_eq(&a, &b, sizeof a);
    }
}
END_TEST

START_TEST(where_the_mask_leaves_nothing_there_is_no_token) {
    const float l[40] = {1, 5, 3, NAN, 2};
    const uint32_t none[2] = {0, 0xffffff00u}, only_nan[2] = {8, 0}, only_2[2] = {4, 0};
    const logit_bias up = {1, 50};
    const int32_t end[2] = {2, 1};
    for (int mode = 0; mode < 4; mode++) {
        sampling p;
        sampling_defaults(&p);
        p.temperature = (float)(mode & 1), p.n_logprobs = 3;
        if (mode & 2) p.bias = &up, p.n_bias = 1; /* brings no forbidden token back */
        sampled s = draw_masked(l, 40, &p, none, NULL, 0);
        ck_assert_int_eq(s.token, -1);
        ck_assert(s.logprob == -INFINITY && s.n_top == 0);
        ck_assert_int_eq(draw_masked(l, 40, &p, only_nan, NULL, 0).token, -1);
        /* min_tokens yields where only an end token is allowed. */
        p.min_tokens = 5, p.end_tokens = end, p.n_end_tokens = 2;
        ck_assert_int_eq(draw_masked(l, 40, &p, only_2, NULL, 0).token, 2);
    }
}
END_TEST

START_TEST(hostile_parameters_still_give_a_token) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, -1, 0, 1e-38f, 1e38f, FLT_MAX, 2};
    float l[130];
    int32_t said[40];
    for (int round = 0; round < 20000; round++) {
        sampling p = {0};
        float *field[] = {&p.temperature,
                          &p.top_p,
                          &p.min_p,
                          &p.typical_p,
                          &p.repetition_penalty,
                          &p.presence_penalty,
                          &p.frequency_penalty};
        for (int i = 0; i < 7; i++) *field[i] = odd[below(9)];
        p.top_k = (int32_t)below(200) - 20;
        p.n_logprobs = (int16_t)((int)below(40) - 5);
        uint32_t n = 1 + below(130);
        for (uint32_t i = 0; i < n; i++) l[i] = below(4) ? (float)gauss() : odd[below(9)];
        for (int i = 0; i < 40; i++) said[i] = (int32_t)below(150) - 10;
        sampling_history h = {said, below(41), below(50)};
        sampled s = draw(l, n, &p, &h, (uint32_t)round);
        ck_assert(s.token >= 0 && (uint32_t)s.token < n);
        ck_assert_int_le(s.n_top, SAMPLING_MAX_LOGPROBS);
    }
}
END_TEST

CHECK_MAIN(
    "sampling", philox_gives_the_known_answers_of_random123,
    the_uniform_number_is_keyed_by_seed_and_position, the_exponential_is_within_a_millionth,
    the_logarithm_is_exact_to_1e_15, sums_of_a_row_agree_with_plain_addition,
    a_mass_is_the_nearest_multiple_of_its_unit,
    a_pick_is_where_the_running_sum_exceeds_the_target, a_cut_keeps_what_sorting_would_keep,
    greedy_takes_the_highest_and_the_lowest_id_among_equals,
    nan_counts_as_minus_infinity_and_infinity_wins,
    when_nothing_is_left_the_highest_original_logit_wins,
    logit_bias_is_added_and_foreign_ids_are_passed_over,
    end_tokens_are_forbidden_until_min_tokens_were_generated,
    penalties_do_what_their_formulas_say, logprobs_are_taken_at_temperature_1_and_sorted,
    without_logprobs_there_are_none, draws_agree_with_a_naive_sampler_in_double_precision,
    top_p_keeps_the_smallest_set_that_reaches_p, top_k_keeps_k_and_the_lowest_ids_among_equals,
    truncations_renormalise_in_the_order_of_the_header, draws_have_the_distribution_they_should,
    the_same_input_gives_the_same_token_whatever_the_scratch_holds,
    a_draw_is_pinned_so_that_every_machine_and_compiler_agrees,
    masked_draws_agree_with_a_naive_sampler_and_logprobs_are_of_what_is_allowed,
    a_full_mask_changes_no_bit, where_the_mask_leaves_nothing_there_is_no_token,
    hostile_parameters_still_give_a_token)
