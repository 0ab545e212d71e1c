/* Means, their standard errors, and percentiles. */
#include "daemon/eval/eval_stats.h"

#include <math.h>
#include <stdlib.h>

static double logprob_of(const eval_point *p) {
    return p->logprob;
}
static double reference_of(const eval_point *p) {
    return p->reference;
}
static double gain_of(const eval_point *p) {
    return (double)p->reference - (double)p->logprob;
}
static double kl_of(const eval_point *p) {
    return p->kl;
}
static double agrees_of(const eval_point *p) {
    return p->agrees;
}

/* Batches weigh by their tokens, since the last may have fewer: the variance of a ratio of sums. */
static eval_figure mean_of(const eval_point *v, size_t n, double (*of)(const eval_point *)) {
    double sum = 0, squares = 0;
    size_t batches = 0;
    for (size_t i = 0; i < n; i++) sum += of(&v[i]);
    const double mean = sum / (double)n;
    for (size_t at = 0; at < n; at += EVAL_BATCH, batches++) {
        double off = 0;
        for (size_t i = at; i < n && i < at + EVAL_BATCH; i++) off += of(&v[i]) - mean;
        squares += off * off;
    }
    if (batches < 2) return (eval_figure){mean, NAN};
    const double b = (double)batches;
    return (eval_figure){mean, sqrt(squares * b / (b - 1)) / (double)n};
}

/* exp of a mean; its error to the first order. */
static eval_figure exp_of(eval_figure x, double sign) {
    const double value = exp(sign * x.value);
    return (eval_figure){value, value * x.se};
}

static int by_kl(const void *a, const void *b) {
    const float x = ((const eval_point *)a)->kl, y = ((const eval_point *)b)->kl;
    return (x > y) - (x < y);
}

static double percentile(const eval_point *v, size_t n, unsigned percent) {
    const size_t rank = (n * percent + 99) / 100; /* nearest rank, from 1 on */
    return v[rank ? rank - 1 : 0].kl;
}

void eval_summarise(eval_summary *out, eval_point *v, size_t n, bool compared) {
    *out = (eval_summary){.perplexity = exp_of(mean_of(v, n, logprob_of), -1)};
    if (!compared) return;
    out->reference_perplexity = exp_of(mean_of(v, n, reference_of), -1);
    out->ratio = exp_of(mean_of(v, n, gain_of), 1);
    out->kl = mean_of(v, n, kl_of);
    out->top1 = mean_of(v, n, agrees_of);
    qsort(v, n, sizeof *v, by_kl);
    out->kl_p50 = percentile(v, n, 50);
    out->kl_p99 = percentile(v, n, 99);
    out->kl_max = v[n - 1].kl;
}
