/* The figures of vramd eval. */
#include "daemon/eval/eval_stats.h"

#include <math.h>
#include <stdlib.h>

#include "base/hash.h"
#include "tests/check_main.h"

START_TEST(figures_are_those_by_hand) {
    eval_point v[] = {{-1, -2, 0.5f, true},
                      {-3, -2, 0.1f, false},
                      {-2, -3, 0.3f, true},
                      {-2, -1, 0.2f, true}};
    eval_summary s;
    eval_summarise(&s, v, 4, true);
    ck_assert(fabs(s.perplexity.value - exp(2)) < 1e-12 && isnan(s.perplexity.se));
    ck_assert(fabs(s.reference_perplexity.value - exp(2)) < 1e-12);
    ck_assert(fabs(s.ratio.value - 1) < 1e-12 && fabs(s.kl.value - 0.275) < 1e-7);
    ck_assert(s.top1.value == 0.75);
    ck_assert(s.kl_p50 == 0.2f && s.kl_p99 == 0.5f && s.kl_max == 0.5f);
}
END_TEST

/* Batches of 128: two with means 1 and 3 and half a batch with mean 2. */
START_TEST(standard_errors_are_by_batches_of_neighbours) {
    enum { N = 2 * EVAL_BATCH + EVAL_BATCH / 2 };
    static eval_point v[N];
    eval_summary s;
    for (int i = 0; i < N; i++) v[i].kl = i < EVAL_BATCH ? 1 : i < 2 * EVAL_BATCH ? 3 : 2;
    eval_summarise(&s, v, N, true);
    /* sqrt(3/2 * (128^2 + 128^2)) / 320 */
    ck_assert(fabs(s.kl.value - 2) < 1e-12 &&
              fabs(s.kl.se - sqrt(1.5 * 2) * EVAL_BATCH / N) < 1e-12);
}
END_TEST

/* Values that repeat for 32 tokens: the error of the mean is that of n / 32 values, and a formula
 * for independent tokens would say sqrt(32) times less. */
START_TEST(neighbours_that_depend_on_each_other_do_not_lower_the_error) {
    enum { N = 128 * 200 };
    eval_point *v = calloc(N, sizeof *v);
    double squares = 0, sum = 0, mean_se = 0;
    enum { REPEATS = 60 };
    ck_assert_ptr_nonnull(v);
    for (uint64_t r = 0; r < REPEATS; r++) {
        eval_summary s;
        for (uint64_t i = 0; i < N; i++)
            v[i].logprob = (float)((hash_mix(r * N + i / 32) >> 40) * 0x1p-24 - 0.5);
        eval_summarise(&s, v, N, false);
        const double mean = -log(s.perplexity.value);
        sum += mean, squares += mean * mean, mean_se += s.perplexity.se / s.perplexity.value;
    }
    const double spread = sqrt((squares - sum * sum / REPEATS) / (REPEATS - 1));
    mean_se /= REPEATS;
    ck_assert_msg(mean_se > 0.7 * spread && mean_se < 1.4 * spread, "%g, but %g", mean_se,
                  spread);
    free(v);
}
END_TEST

CHECK_MAIN("eval figures", figures_are_those_by_hand,
           standard_errors_are_by_batches_of_neighbours,
           neighbours_that_depend_on_each_other_do_not_lower_the_error)
