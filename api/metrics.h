/* /metrics in Prometheus' text format 0.0.4: names of our own under vramd_, and the names that
 * routers and dashboards already scrape under vllm:. */
#ifndef VRAMD_API_METRICS_H
#define VRAMD_API_METRICS_H

#include "api/memory_view.h"

/* http: what the front end counts. */
typedef struct metrics_http {
    uint32_t n_connections, n_requests;
    uint64_t n_responses[6]; /* by the status's first digit */
} metrics_http;

void metrics_text(buf *, port *, memory_probe *, const metrics_http *);

#endif
