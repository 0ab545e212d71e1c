/* The last ten minutes of a server, a point every two seconds: what the page draws, and what rates and percentiles
 * are differences of. A ring of fixed size; owns nothing else. Pure but for the metrics' buckets. */
#ifndef VRAMD_API_LIVE_HISTORY_H
#define VRAMD_API_LIVE_HISTORY_H

#include "api/memory_view.h"

enum { HISTORY_STEP_S = 2, HISTORY_S = 600, HISTORY_POINTS = HISTORY_S / HISTORY_STEP_S };

/* Counts of the server's start until then; buckets modulo 2^32. */
typedef struct live_counts {
    uint64_t prompt_tokens, generated_tokens, finished, preemptions, queries, hits;
    uint32_t ttft[PORT_MAX_BUCKETS + 1], itl[PORT_MAX_BUCKETS + 1];
} live_counts;

typedef struct live_point {
    uint64_t at_us;
    uint64_t budget, plan, bytes[MEM_N_CLASSES]; /* of the ledger that has the KV cache */
    int64_t unaccounted;
    bool accounted; /* unaccounted is known, and of these minutes */
    uint32_t kv_free, kv_used, kv_cached, n_running, n_waiting, n_preempted;
    live_counts counts;
} live_point;

typedef struct live_history {
    live_point point[HISTORY_POINTS]; /* a ring */
    uint32_t next, n;                 /* n: points that there are */
    uint64_t start_us;                /* times of the events are seconds since then */
} live_history;

live_counts live_counts_of(const machine_stats *);
void live_history_add(live_history *, const memory_view *, uint64_t now_us);
/* i < n: from the oldest on. */
const live_point *live_history_at(const live_history *, uint32_t i);
/* The newest point that is at least so old; else the oldest. There is one. */
const live_point *live_history_before(const live_history *, uint64_t now_us, double seconds);

/* The q-quantile of what came to the buckets of a histogram between two counts, in its unit, as Prometheus's
 * histogram_quantile has it: linear within a bucket, and of the last one its lower bound. n: how many came; of
 * none: NAN. */
double live_quantile(histogram_id, const uint32_t *now, const uint32_t *was, double q,
                     uint64_t *n);

/* The data of the event "history", one object. name: of the ledger. */
void live_history_write(buf *, const live_history *, const char *name, uint64_t now_us);

#endif
