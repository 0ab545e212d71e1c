/* The figures of vramd eval from what was measured at each token. Pure; any thread.
 *
 * Standard errors are by batch means: the tokens are cut into batches of EVAL_BATCH in a row, since
 * neighbours depend on each other, and the means of the batches are taken as independent
 * (Law and Kelton, "Simulation Modeling and Analysis", section 9.5.3). */
#ifndef VRAMD_DAEMON_EVAL_STATS_H
#define VRAMD_DAEMON_EVAL_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EVAL_BATCH = 128 };

/* What was measured at one predicted token. */
typedef struct eval_point {
    float logprob;   /* of the text's token, in this run */
    float reference; /* in the reference */
    float kl;        /* KL(reference || this) */
    bool agrees;     /* both have the same likeliest token */
} eval_point;

typedef struct eval_figure {
    double value, se; /* se: NaN where there are fewer than two batches */
} eval_figure;

typedef struct eval_summary {
    eval_figure perplexity;
    /* Against a reference only: */
    eval_figure reference_perplexity;
    eval_figure ratio; /* of the perplexities, this / reference, by pairs of tokens */
    eval_figure kl, top1;
    double kl_p50, kl_p99, kl_max; /* the least value that so many percent do not exceed */
} eval_summary;

/* v: [n], n >= 1; sorted by kl afterwards where compared is set. */
void eval_summarise(eval_summary *out, eval_point *v, size_t n, bool compared);

#endif
