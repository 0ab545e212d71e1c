/* What `vramd top` knows of a server: one sample of GET /v1/memory and of /metrics, and the
 * rates between two. Reads what a server answers, which may be anything: unknown members are
 * passed over, absent ones are 0. Owns nothing; one thread. */
#ifndef VRAMD_DAEMON_TOP_READ_H
#define VRAMD_DAEMON_TOP_READ_H

#include "base/arena.h"
#include "base/err.h"

enum { TOP_MAX_CLASSES = 24, TOP_MAX_GROUPS = 8, TOP_MAX_SEQS = 256 };

typedef struct top_class {
    char name[24];
    uint64_t plan_bytes, ledger_bytes, peak_bytes;
} top_class;

typedef struct top_ledger { /* the host's, or a device's */
    char name[48];
    uint64_t budget_bytes, plan_bytes, ledger_bytes, peak_bytes;
    int64_t unaccounted_bytes;
    bool unaccounted_known;
    size_t n;
    top_class cls[TOP_MAX_CLASSES]; /* those that are planned or were used */
} top_ledger;

typedef struct top_group { /* blocks; used includes fenced */
    uint64_t window, block_bytes, blocks, free, used, cached, fenced, peak;
    bool tail; /* the newest tokens of another group in full precision */
} top_group;

typedef struct top_seq {
    uint64_t id, tokens, cached, blocks, bytes;
    double age_s, itl_ms; /* itl_ms 0: unknown */
    char state[12], tenant[24];
} top_seq;

/* Sums over all labels. X(field, name in /metrics) */
#define TOP_COUNTERS(X)                                                                        \
    X(steps, "vramd_steps_total")                                                              \
    X(generated, "vramd_generated_tokens_total")                                               \
    X(prompt, "vramd_prompt_tokens_total")                                                     \
    X(queries, "vramd_prefix_cache_queries_total")                                             \
    X(hits, "vramd_prefix_cache_hits_total")                                                   \
    X(evictions, "vramd_prefix_cache_evictions_total")                                         \
    X(preemptions, "vramd_preemptions_total")                                                  \
    X(recomputed, "vramd_recomputed_tokens_total")                                             \
    X(finished, "vramd_requests_finished_total")                                               \
    X(running, "vramd_requests_running")                                                       \
    X(waiting, "vramd_requests_waiting")                                                       \
    X(preempted, "vramd_requests_preempted")

typedef struct top_counters {
#define X(field, name) double field;
    TOP_COUNTERS(X)
#undef X
} top_counters;

typedef struct top_sample {
    uint64_t at_us;
    char model[64];
    top_ledger host, device; /* device.name "": there is none */
    char type_k[12], type_v[12];
    uint64_t block_tokens;
    size_t n_groups, n_seqs;
    top_group group[TOP_MAX_GROUPS];
    top_seq seq[TOP_MAX_SEQS]; /* the largest first */
    top_counters count;
} top_sample;

/* Per second; hit_share: of the prompt tokens looked up meanwhile, 0 to 1; -1: none was. */
typedef struct top_rates {
    double seconds, generated, prompt, evictions, preemptions, recomputed, finished, steps;
    double hit_share;
} top_rates;

/* Fills all but at_us, model and count; parses into mem. ERR_FORMAT: no account of vramd's. */
status top_read_memory(top_sample *, arena *mem, str json, err *);
/* Fills model and count. */
void top_read_metrics(top_sample *, str text);
/* A server that was started anew counts from 0 again: then rates are 0. */
top_rates top_rates_between(const top_sample *before, const top_sample *now);

#endif
