/* The cost model on steps whose time is known. */
#include "scheduler/cost.h"

#include <math.h>

#include "tests/check_main.h"

static uint64_t rng;

static double uniform(void) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (double)(rng >> 11) * 0x1p-53;
}

/* Irwin-Hall: near to normal. */
static double normal(void) {
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += uniform();
    return sum;
}

static const double truth[COST_TERMS] = {1900, 250, 0.49, 100};

static double true_us(step_work w) {
    return truth[0] + truth[1] * w.rows + truth[2] * w.kv + truth[3] * w.logit_rows;
}

/* Steps of a daemon: n sequences decode at some depth, and some have a prompt's rows. */
static step_work some_step(void) {
    const double n = 1 + floor(32 * uniform()), depth = 64 + floor(4000 * uniform());
    const double chunk = uniform() < 0.3 ? floor(512 * uniform()) : 0;
    return (step_work){
        .rows = n + chunk, .kv = n * depth + chunk * chunk / 2, .logit_rows = n + (chunk > 0)};
}

static void learn(cost_model *c, int n, double noise) {
    for (int i = 0; i < n; i++) {
        const step_work w = some_step();
        cost_observe(c, w, true_us(w) * (1 + noise * normal()));
    }
}

static double worst_error(const cost_model *c) {
    double worst = 0;
    for (int i = 0; i < 1000; i++) {
        const step_work w = some_step();
        worst = fmax(worst, fabs(cost_predict(c, w) / true_us(w) - 1));
    }
    return worst;
}

START_TEST(exact_times_are_learned) {
    cost_model c = {0};
    rng = 1;
    ck_assert(!cost_ready(&c));
    learn(&c, 400, 0);
    ck_assert(cost_ready(&c));
    ck_assert_double_lt(worst_error(&c), 0.002);
    for (int i = 0; i < COST_TERMS; i++)
        ck_assert_double_lt(fabs(c.coef[i] / truth[i] - 1), 0.05);
    ck_assert_double_gt(cost_margin(&c), 0.9);
}
END_TEST

START_TEST(noise_widens_the_margin_so_that_99_of_100_steps_keep_the_objective) {
    cost_model c = {0};
    rng = 2;
    learn(&c, 3000, 0.1);
    ck_assert_double_lt(fabs(c.error - 0.1 / 1.2533), 0.015);
    ck_assert_double_lt(worst_error(&c), 0.05);
    int late = 0;
    for (int i = 0; i < 10000; i++) {
        const step_work w = some_step();
        late += true_us(w) * (1 + 0.1 * normal()) > cost_predict(&c, w) / cost_margin(&c);
    }
    ck_assert_int_lt(late, 200);
    ck_assert_int_gt(late, 20);
}
END_TEST

/* Nine of ten steps decode, and take what they should; those with prompts do not. */
START_TEST(the_margin_is_that_of_steps_with_prompts) {
    cost_model c = {0};
    rng = 6;
    int late = 0, n = 0;
    for (int i = 0; i < 20000; i++) {
        const bool prompt = uniform() < 0.1;
        step_work w = some_step();
        if (!prompt)
            w = (step_work){.rows = w.logit_rows, .kv = 500, .logit_rows = w.logit_rows};
        if (prompt && w.rows == w.logit_rows) w.rows += 40;
        const double us = true_us(w) * (prompt ? 1 + 0.1 * normal() : 1);
        if (prompt && i > 2000) n++, late += us > cost_predict(&c, w) / cost_margin(&c);
        cost_observe(&c, w, us);
    }
    ck_assert_double_lt(c.error, 0.02);
    ck_assert_int_lt(late, n * 25 / 1000);
}
END_TEST

START_TEST(pure_decode_keeps_what_it_does_not_tell_apart) {
    cost_model c = {0};
    rng = 3;
    learn(&c, 1000, 0.02);
    for (int i = 0; i < 5000; i++) { /* rows, logit rows and kv in proportion */
        const double n = 1 + i % 32;
        const step_work w = {.rows = n, .kv = 500 * n, .logit_rows = n};
        cost_observe(&c, w, true_us(w) * (1 + 0.02 * normal()));
    }
    const step_work prompt = {.rows = 512, .kv = 512 * 256, .logit_rows = 1};
    ck_assert_double_lt(fabs(cost_predict(&c, prompt) / true_us(prompt) - 1), 0.15);
}
END_TEST

START_TEST(coefficients_are_never_negative) {
    cost_model c = {0};
    for (int i = 0; i < 200; i++) { /* the more rows, the faster: no such machine */
        const step_work w = {.rows = 1 + i % 7, .kv = 100, .logit_rows = 1};
        cost_observe(&c, w, 1000 - 50 * w.rows);
        for (int k = 0; k < COST_TERMS; k++) ck_assert_double_ge(c.coef[k], 0);
    }
    ck_assert_double_gt(cost_predict(&c, (step_work){.rows = 4, .kv = 100, .logit_rows = 1}),
                        700);
}
END_TEST

START_TEST(a_stall_moves_the_model_little_and_a_slower_machine_is_followed) {
    cost_model c = {0};
    const step_work w = {.rows = 32, .kv = 32 * 300, .logit_rows = 32};
    rng = 4;
    learn(&c, 1000, 0.02);
    const double before = cost_predict(&c, w);
    cost_observe(&c, w, 100 * true_us(w));
    ck_assert_double_lt(cost_predict(&c, w) / before, 1.02);
    for (int i = 0; i < 2000; i++) {
        const step_work x = some_step();
        cost_observe(&c, x, 2 * true_us(x));
    }
    ck_assert_double_lt(fabs(cost_predict(&c, w) / (2 * true_us(w)) - 1), 0.05);
}
END_TEST

START_TEST(rows_take_no_longer_than_there_is_time) {
    cost_model c = {0};
    rng = 5;
    learn(&c, 1000, 0);
    for (int i = 0; i < 1000; i++) {
        const double us = 60000 * uniform();
        const uint32_t pos = (uint32_t)(8000 * uniform()), n = cost_rows(&c, us, pos);
        const double each = c.coef[1] + c.coef[2] * (pos + n / 2.0);
        if (n > 0) ck_assert_double_le(n * each + c.coef[3], us * 1.001);
        ck_assert_double_gt((n + 1) * (each + c.coef[2]) * 1.05 + c.coef[3], us);
    }
    ck_assert_uint_eq(cost_rows(&c, -1, 0), 0);
    ck_assert_uint_gt(cost_rows(&(cost_model){0}, 1, 0), 1 << 20);
}
END_TEST

/* Steps of one kind, then of another, whose times no line joins: what fades knows the last ones. */
START_TEST(a_lasting_model_forgets_nothing) {
    cost_model fades = {0}, lasting = {.lasting = true};
    const step_work w = {.rows = 8, .kv = 800, .logit_rows = 8};
    for (int i = 0; i < 8000; i++) {
        const double us = i < 4000 ? 1000 : 1200;
        cost_observe(&fades, w, us);
        cost_observe(&lasting, w, us);
    }
    ck_assert_double_eq_tol(cost_predict(&fades, w), 1200, 2);
    ck_assert_double_eq_tol(cost_predict(&lasting, w), 1100, 15);
}
END_TEST

CHECK_MAIN("step_cost", a_lasting_model_forgets_nothing, exact_times_are_learned,
           noise_widens_the_margin_so_that_99_of_100_steps_keep_the_objective,
           the_margin_is_that_of_steps_with_prompts,
           pure_decode_keeps_what_it_does_not_tell_apart, coefficients_are_never_negative,
           a_stall_moves_the_model_little_and_a_slower_machine_is_followed,
           rows_take_no_longer_than_there_is_time)
