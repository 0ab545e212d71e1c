/* References of vramd eval: how near KL from 96 tokens of a row comes to KL from all of them, and
 * which bytes are refused. */
#include "daemon/eval/eval_ref.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "tests/check_main.h"

enum { V = 20000, ROWS = 150 };

/* Standard normal, from a counter. */
static double normal(uint64_t i) {
    const double u = ((double)(hash_mix(2 * i + 1) >> 11) + 1) * 0x1p-53;
    const double w = (double)(hash_mix(2 * i + 2) >> 11) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * w);
}

typedef struct rig {
    float *p, *q; /* [V]: logits */
    void *scratch, *sampler;
    sampled p_scored, q_scored;
} rig;

static void rig_open(rig *r) {
    r->p = malloc(V * sizeof(float));
    r->q = malloc(V * sizeof(float));
    r->scratch = aligned_alloc(64, align_up(eval_scratch_bytes(V), 64));
    r->sampler = aligned_alloc(64, align_up(sampling_scratch_bytes(V), 64));
    ck_assert(r->p && r->q && r->scratch && r->sampler);
}

static void rig_close(rig *r) {
    free(r->p);
    free(r->q);
    free(r->scratch);
    free(r->sampler);
}

/* Row number `row`: logits as flat as those of a text of some hundred of perplexity, and others
 * that differ by normal noise. */
static void rig_fill(rig *r, uint64_t row, double noise) {
    for (uint64_t i = 0; i < V; i++) {
        r->p[i] = (float)(2.6 * normal(row * V + i));
        r->q[i] = r->p[i] + (float)(noise * normal((1000 + row) * V + i));
    }
    const int32_t target = (int32_t)(hash_mix(row) % V);
    sampling_score(&r->p_scored, r->p, V, target, 1, r->sampler);
    sampling_score(&r->q_scored, r->q, V, target, 1, r->sampler);
}

static double lse_of(const float *x) {
    double sum = 0;
    for (uint32_t i = 0; i < V; i++) sum += exp(x[i]);
    return log(sum);
}

/* By the definition, over the whole vocabulary. */
static double kl_of_all(const float *p, const float *q) {
    const double a = lse_of(p), b = lse_of(q);
    double kl = 0;
    for (uint32_t i = 0; i < V; i++) kl += exp(p[i] - a) * ((p[i] - a) - (q[i] - b));
    return kl;
}

/* What the format costs. Where the best 64 tokens have only a third of the probability, the error
 * of a position has a standard deviation of 14% of the mean KL, and no bias (3,000 positions: 0.999
 * +- 0.0025 of it), so that 20,000 have one of 0.1%. On a text it is less, since the sample stands
 * for the rest alone, which is then 10 to 20% of the probability. */
static void check_estimate(double noise) {
    rig r;
    eval_record rec;
    rig_open(&r);
    double all = 0, kept = 0, off = 0, rest = 0;
    for (uint64_t row = 0; row < ROWS; row++) {
        rig_fill(&r, row, noise);
        eval_record_make(&rec, r.p, V, &r.p_scored, row, r.scratch);
        const double a = kl_of_all(r.p, r.q);
        const double b = eval_record_kl(&rec, r.q, r.q_scored.logprob);
        all += a, kept += b, off += (b - a) * (b - a), rest += rec.rest;
    }
    ck_assert(rest / ROWS > 0.5 && rest / ROWS < 0.8);
    const double ratio = kept / all, se = sqrt(off) / all, stated = 0.14 / sqrt(ROWS);
    ck_assert_msg(fabs(ratio - 1) < 3 * stated && se < 1.3 * stated,
                  "noise %g: KL %g, estimated %g +- %g of it", noise, all / ROWS, ratio, se);
    ck_assert_msg(all / ROWS > 0.4 * noise * noise, "the noise has no effect");
    rig_close(&r);
}

START_TEST(kl_from_a_record_is_kl_from_all_logits) {
    static const double noise[] = {0.003, 0.02, 0.1, 0.5};
    for (size_t i = 0; i < sizeof noise / sizeof *noise; i++) check_estimate(noise[i]);
}
END_TEST

START_TEST(the_same_logits_have_no_divergence_at_all) {
    rig r;
    eval_record rec, again;
    rig_open(&r);
    for (uint64_t row = 0; row < 20; row++) {
        rig_fill(&r, row, 0);
        eval_record_make(&rec, r.p, V, &r.p_scored, row, r.scratch);
        eval_record_make(&again, r.p, V, &r.p_scored, row, r.scratch);
        ck_assert_mem_eq(&rec, &again, sizeof rec);
        ck_assert(eval_record_kl(&rec, r.q, r.q_scored.logprob) == 0);
    }
    rig_close(&r);
}
END_TEST

START_TEST(a_record_has_the_best_tokens_in_order_and_the_mass_of_the_rest) {
    rig r;
    eval_record rec;
    err e;
    rig_open(&r);
    rig_fill(&r, 3, 0);
    r.p[V - 1] = r.p[5] = 30; /* equals: the lower id first */
    sampling_score(&r.p_scored, r.p, V, 7, 1, r.sampler);
    eval_record_make(&rec, r.p, V, &r.p_scored, 9, r.scratch);
    ck_assert(eval_record_check(&rec, V, 9, &e) == OK);
    ck_assert(rec.id[0] == 5 && rec.id[1] == V - 1 && rec.target == 7);
    const double lse = lse_of(r.p);
    double best = 0;
    ck_assert(fabs(rec.lse - lse) < 1e-5);
    for (uint32_t i = 0; i < EVAL_TOP; i++) {
        if (i) ck_assert(rec.logit[i] <= rec.logit[i - 1]);
        ck_assert(rec.logit[i] == r.p[rec.id[i]]);
        best += exp(rec.logit[i] - lse);
    }
    ck_assert(fabs(rec.rest - (1 - best)) < 1e-5);
    for (uint32_t i = EVAL_TOP; i < EVAL_KEPT; i++) /* none of the best, in order */
        ck_assert(rec.logit[i] <= rec.logit[EVAL_TOP - 1] &&
                  (i == EVAL_TOP || rec.id[i] >= rec.id[i - 1]));
    rig_close(&r);
}
END_TEST

/* Fewer tokens than a record keeps: KL is exact. */
START_TEST(small_vocabularies_are_kept_whole) {
    enum { N = 40 };
    rig r;
    eval_record rec;
    err e;
    rig_open(&r);
    rig_fill(&r, 1, 0.3);
    sampling_score(&r.p_scored, r.p, N, 3, 1, r.sampler);
    sampling_score(&r.q_scored, r.q, N, 3, 1, r.sampler);
    eval_record_make(&rec, r.p, N, &r.p_scored, 0, r.scratch);
    ck_assert(eval_record_check(&rec, N, 0, &e) == OK && rec.n_top == N && rec.rest == 0);
    for (uint32_t i = N; i < V; i++) r.p[i] = r.q[i] = -INFINITY;
    double a = 0, b = 0, kl = 0;
    for (uint32_t i = 0; i < N; i++) a += exp(r.p[i]), b += exp(r.q[i]);
    for (uint32_t i = 0; i < N; i++)
        kl += exp(r.p[i]) / a * (r.p[i] - log(a) - r.q[i] + log(b));
    ck_assert(fabs(eval_record_kl(&rec, r.q, r.q_scored.logprob) - kl) < 1e-6);
    rig_close(&r);
}
END_TEST

START_TEST(any_changed_byte_of_a_record_is_found) {
    rig r;
    eval_record rec;
    err e;
    rig_open(&r);
    rig_fill(&r, 0, 0);
    eval_record_make(&rec, r.p, V, &r.p_scored, 4, r.scratch);
    ck_assert(eval_record_check(&rec, V, 4, &e) == OK);
    ck_assert(eval_record_check(&rec, V, 5, &e) == ERR_FORMAT); /* another's place */
    ck_assert(eval_record_check(&rec, rec.id[0], 4, &e) == ERR_FORMAT);
    for (size_t i = 0; i < sizeof rec; i++) {
        ((unsigned char *)&rec)[i] ^= 0x10;
        ck_assert(eval_record_check(&rec, V, 4, &e) == ERR_FORMAT);
        ((unsigned char *)&rec)[i] ^= 0x10;
    }
    rig_close(&r);
}
END_TEST

static eval_header header(void) {
    eval_header h = {.n_vocab = V, .context = 512, .n_tokens = 1000, .n_records = 998};
    snprintf(h.model, sizeof h.model, "a model");
    eval_header_seal(&h);
    return h;
}

START_TEST(headers_that_contradict_themselves_are_refused) {
    const uint64_t bytes = sizeof(eval_header) + 998 * sizeof(eval_record);
    err e;
    eval_header h = header();
    ck_assert_msg(eval_header_check(&h, bytes, &e) == OK, "%s", e.text);
    ck_assert(eval_header_check(&h, bytes - 1, &e) == ERR_FORMAT);
    ck_assert(eval_header_check(&h, bytes + sizeof(eval_record), &e) == ERR_FORMAT);
    ck_assert(eval_header_check(&h, 20, &e) == ERR_FORMAT);
    for (size_t i = 0; i < sizeof h; i++) { /* the version is another one's business */
        h = header();
        ((unsigned char *)&h)[i] ^= 1;
        const status s = eval_header_check(&h, bytes, &e);
        ck_assert(s == (i / 4 == 2 ? ERR_UNSUPPORTED : ERR_FORMAT));
    }
#define REFUSED(change)                                                                        \
    h = header(), change, eval_header_seal(&h),                                                \
    ck_assert_msg(eval_header_check(&h, bytes, &e) == ERR_FORMAT, #change)
    REFUSED(h.bos = 2);
    REFUSED(h.bos = 1);
    REFUSED(h.context = 1);
    REFUSED(h.context = 0);
    REFUSED(h.n_vocab = 0);
    REFUSED(h.n_tokens = 0);
    REFUSED(h.n_tokens = UINT64_MAX);
    REFUSED(h.model[3] = '\n');
    REFUSED(memset(h.made_by, 'a', sizeof h.made_by));
    REFUSED(h.made_by[0] = (char)0xff);
#undef REFUSED
}
END_TEST

CHECK_MAIN("eval references", kl_from_a_record_is_kl_from_all_logits,
           the_same_logits_have_no_divergence_at_all,
           a_record_has_the_best_tokens_in_order_and_the_mass_of_the_rest,
           small_vocabularies_are_kept_whole, any_changed_byte_of_a_record_is_found,
           headers_that_contradict_themselves_are_refused)
