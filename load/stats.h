/* Samples to figures. Percentiles interpolate between the closest ranks, as NumPy does. */
#ifndef VRAMD_LOAD_STATS_H
#define VRAMD_LOAD_STATS_H

#include "load/probe.h"
#include "load/reply.h"
#include "load/spec.h"

/* One level: all that was measured. */
typedef struct load_level {
    double value;   /* of spec.levels */
    load_sample *v; /* in the order of their ends */
    size_t n, cap;
    load_times gaps; /* of the samples that have any, in their order */
    uint64_t zero_us;
    load_memory before, after;
    bool interrupted;
} load_level;
void load_level_clear(load_level *);

/* Milliseconds. All 0 when n is 0. */
typedef struct load_dist {
    size_t n;
    double mean, p50, p90, p99, max;
} load_dist;
load_dist load_dist_of(double *v, size_t n); /* sorts v */

enum { LOAD_MAX_STATUSES = 16 };

typedef struct load_summary {
    size_t n_sent, n_ok, n_failed, n_short; /* sent: ok, failed and aborted */
    size_t faults[N_FAULTS];
    struct {
        int http;
        size_t n;
    } statuses[LOAD_MAX_STATUSES]; /* of FAULT_STATUS; http 0: unused */
    const char *first_error;       /* points into the level; "" if there is none */
    double wall_s;                 /* from the first due time to the last end */
    uint64_t prompt_tokens, cached_tokens, output_tokens; /* of whole answers */
    double requests_per_s, prompt_tokens_per_s, output_tokens_per_s;
    load_dist ttft, itl, tpot, e2e, delay; /* of whole answers; delay: of all */
    size_t n_good;                         /* whole answers within the objectives */
} load_summary;

status load_summarise(load_summary *, const load_level *, const load_spec *, err *);
/* Mean ms between tokens of one answer; 0 below two tokens. */
double load_tpot_ms(const load_sample *);

#endif
