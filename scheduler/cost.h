/* How long a step takes, learned from the steps before it:
 *
 *     us = a + b rows + c kv + d logit rows
 *
 * by least squares of relative errors in which the past fades (a step counts half as much 350 steps later), with
 * coefficients that are never negative. In pure decode rows, logit rows and kv grow together, so
 * what the steps do not tell apart stays near the last fit. A step that took far longer than the
 * model says (a page fault, another process) counts as if it had taken four standard deviations.
 *
 * A model that is to describe a whole log (lasting) forgets nothing: there no step is the newest.
 *
 * Pure: no clock; the same observations give the same model. Times are in microseconds. */
#ifndef VRAMD_SCHEDULER_COST_H
#define VRAMD_SCHEDULER_COST_H

#include <stdbool.h>
#include <stdint.h>

enum { COST_TERMS = 4, COST_WARM_UP = 50 /* steps before cost_ready */ };

/* What a step does. kv: positions that its rows attend to, each row by itself. */
typedef struct step_work {
    double rows, kv, logit_rows;
} step_work;

/* Zero-initialise. */
typedef struct cost_model {
    double coef[COST_TERMS]; /* of 1, rows, kv, logit rows */
    double xx[COST_TERMS][COST_TERMS], xy[COST_TERMS];
    /* Of predictions made before the step was observed, relative to the prediction: the mean of
     * their absolute errors, which fades as the fit does. */
    double error;
    double prompt_error; /* likewise, of steps with rows of prompts alone */
    uint64_t n;          /* steps observed */
    bool lasting;        /* the past does not fade */
} cost_model;

void cost_observe(cost_model *, step_work, double us);
/* Enough steps were seen. */
bool cost_ready(const cost_model *);
double cost_predict(const cost_model *, step_work);
/* The part of an objective that a prediction may use, so that 99 of 100 steps with rows of prompts
 * keep it: 1 / (1 + 2.33 sigma), of normal errors. Steps that only decode count apart: there are far
 * more of them, and their errors are smaller. */
double cost_margin(const cost_model *);
/* What is left for prompts of a step that is to take objective_us at most and does work already;
 * negative: that alone takes longer. */
double cost_time_left(const cost_model *, double objective_us, step_work);
/* Rows of one prompt, from position pos on, that take us at most; the last of them may have
 * logits. */
uint32_t cost_rows(const cost_model *, double us, uint32_t pos);

#endif
