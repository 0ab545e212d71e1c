/* Prometheus text (exposition format 0.0.4): names of our own under vramd_, and the aliases of
 * vLLM's that routers and dashboards scrape already. */
#ifndef VRAMD_API_METRICS_H
#define VRAMD_API_METRICS_H

#include "api/app.h"

/* Upper bounds of a histogram's buckets, +Inf excepted. */
size_t metrics_n_bounds(histogram_id);
double metrics_bound(histogram_id, size_t i);
/* Everything that /metrics tells, from a snapshot. */
void metrics_write(buf *, const app *, const machine_stats *);
/* One line. */
void metrics_write_sample(buf *, const char *name, const char *model, double value);

#endif
