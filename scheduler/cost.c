/* Least squares over four terms by their normal equations. */
#include "scheduler/cost.h"

/* FADE: of a step's weight, with each step that follows. ANCHOR: how strongly the last fit holds
 * what the steps do not tell apart. SIGMA: standard deviation of normal errors by their mean
 * absolute value. */
static const double FADE = 0.998, PROMPT_FADE = 0.99, ANCHOR = 1e-4, SIGMA = 1.2533,
                    ONE_IN_100 = 2.33, LEAST_CUT = 0.05;
enum { OUTLIER_SIGMAS = 4, MAX_ROWS = 1 << 30 };

static void terms_of(step_work w, double x[COST_TERMS]) {
    x[0] = 1;
    x[1] = w.rows;
    x[2] = w.kv;
    x[3] = w.logit_rows;
}

static double max_d(double a, double b) {
    return a > b ? a : b;
}

static double dot(const double *a, const double *b) {
    double sum = 0;
    for (int i = 0; i < COST_TERMS; i++) sum += a[i] * b[i];
    return sum;
}

/* Solves m y = v for the terms in use by elimination, the others are 0; m is positive definite. */
static void solve(double m[COST_TERMS][COST_TERMS], double *v, const bool *use, double *y) {
    for (int k = 0; k < COST_TERMS; k++)
        for (int i = k + 1; use[k] && i < COST_TERMS; i++) {
            if (!use[i]) continue;
            const double f = m[i][k] / m[k][k];
            for (int j = k; j < COST_TERMS; j++) m[i][j] -= f * m[k][j];
            v[i] -= f * v[k];
        }
    for (int k = COST_TERMS - 1; k >= 0; k--) {
        y[k] = 0;
        if (!use[k]) continue;
        double sum = v[k];
        for (int j = k + 1; j < COST_TERMS; j++) sum -= m[k][j] * y[j];
        y[k] = sum / m[k][k];
    }
}

/* The fit, with terms that would be negative left out, the worst first. Terms are scaled by what
 * they add to a step, so that the anchor means the same for each. */
static void fit(cost_model *c) {
    bool use[COST_TERMS];
    double y[COST_TERMS];
    for (int i = 0; i < COST_TERMS; i++) use[i] = c->xx[i][i] > 0;
    for (;;) {
        double m[COST_TERMS][COST_TERMS], v[COST_TERMS];
        for (int i = 0; i < COST_TERMS; i++) {
            for (int j = 0; j < COST_TERMS; j++) m[i][j] = c->xx[i][j];
            m[i][i] *= 1 + ANCHOR;
            v[i] = c->xy[i] + ANCHOR * c->xx[i][i] * c->coef[i];
        }
        solve(m, v, use, y);
        int worst = -1;
        for (int i = 0; i < COST_TERMS; i++)
            if (y[i] < 0 && (worst < 0 || y[i] * y[i] * c->xx[i][i] >
                                              y[worst] * y[worst] * c->xx[worst][worst]))
                worst = i;
        if (worst < 0) break;
        use[worst] = false;
    }
    for (int i = 0; i < COST_TERMS; i++) c->coef[i] = y[i];
}

static void note_error(cost_model *c, step_work w, double size) {
    c->error += (1 - FADE) * (size - c->error);
    if (w.rows > w.logit_rows) c->prompt_error += (1 - PROMPT_FADE) * (size - c->prompt_error);
}

void cost_observe(cost_model *c, step_work w, double us) {
    double x[COST_TERMS];
    terms_of(w, x);
    const double guess = dot(c->coef, x), sigma = SIGMA * c->error;
    if (cost_ready(c) && guess > 0) {
        const double most = max_d(OUTLIER_SIGMAS * sigma, LEAST_CUT),
                     off = (us - guess) / guess;
        const double kept = off > most ? most : off < -most ? -most : off;
        /* The error grows by what was cut off, too, or it could never grow again. */
        const double size = off < 0 ? -off : off > 1 ? 1 : off;
        note_error(c, w, size);
        us = guess * (1 + kept);
    } else if (c->n > COST_WARM_UP / 2 && guess > 0) {
        const double off = us > guess ? us / guess - 1 : 1 - us / guess;
        c->error += (off - c->error) * 2 / COST_WARM_UP;
        c->prompt_error = c->error;
    }
    const double scale = guess > 0 && cost_ready(c) ? guess : us > 1 ? us : 1;
    const double weight = 1 / (scale * scale); /* errors count in proportion */
    const double stays = c->lasting ? 1 : FADE;
    for (int i = 0; i < COST_TERMS; i++) {
        for (int j = 0; j < COST_TERMS; j++)
            c->xx[i][j] = stays * c->xx[i][j] + weight * x[i] * x[j];
        c->xy[i] = stays * c->xy[i] + weight * x[i] * us;
    }
    c->n++;
    fit(c);
}

bool cost_ready(const cost_model *c) {
    return c->n >= COST_WARM_UP;
}

double cost_predict(const cost_model *c, step_work w) {
    double x[COST_TERMS];
    terms_of(w, x);
    return dot(c->coef, x);
}

double cost_margin(const cost_model *c) {
    return 1 / (1 + ONE_IN_100 * SIGMA * max_d(c->error, c->prompt_error));
}

double cost_time_left(const cost_model *c, double objective_us, step_work w) {
    return objective_us * cost_margin(c) - cost_predict(c, w);
}

/* n rows from pos on attend to n (pos + n / 2) positions: with more rows than there will be in
 * the first place, then with half of those. */
uint32_t cost_rows(const cost_model *c, double us, uint32_t pos) {
    const double left = us - c->coef[3];
    if (left <= 0) return 0;
    double each = c->coef[1] + c->coef[2] * pos;
    if (each * MAX_ROWS <= left) return MAX_ROWS;
    const double most = left / each;
    each += c->coef[2] * most / 2;
    return (uint32_t)(left / each);
}
