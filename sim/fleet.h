/* Replicas of a server under one virtual clock: each has a scheduler of its own, the daemon's, and
 * a model of how long its steps take; a router says which one gets a request. Times are simulated,
 * never measured. The same input gives the same result. One thread. */
#ifndef VRAMD_SIM_FLEET_H
#define VRAMD_SIM_FLEET_H

#include "base/err.h"
#include "scheduler/sched.h"

typedef enum fleet_router {
    ROUTER_ROUND_ROBIN,
    ROUTER_LEAST_LOADED,    /* of all replicas, by requests that wait or run there */
    ROUTER_TWO_CHOICES,     /* the less loaded one of two that are drawn */
    ROUTER_PREFIX_AFFINITY, /* who had the longest part of the prompt last, unless it has a
                               quarter more than the mean; else two choices */
    N_ROUTERS
} fleet_router;

extern const char *const fleet_router_name[N_ROUTERS + 1]; /* the last: NULL */

typedef struct fleet_arrival {
    uint64_t at_us;
    uint32_t n_prompt, n_output; /* >= 1 */
    /* Equal ids, one for each FLEET_ID_TOKENS of the prompt, are equal tokens; 0 ids: no other
     * request has the same prompt. */
    uint32_t n_ids;
    const uint64_t *ids;
} fleet_arrival;

/* A step that was timed. */
typedef struct fleet_scatter {
    float predicted_us, ratio; /* ratio: of the time that it took to the prediction */
} fleet_scatter;

enum { FLEET_ID_TOKENS = 512, FLEET_MAX_REPLICAS = 10000 };

typedef struct fleet_config {
    sched_config sched; /* of each replica */
    cost_model cost;    /* what cost_predict reads of it */
    /* [n_scatter] in ascending order: a step takes what one with about its prediction took, drawn
     * with the seed; NULL: all as predicted. Short steps scatter more than long ones. */
    const fleet_scatter *scatter;
    uint32_t n_scatter;
    uint32_t n_replicas, depth; /* depth: steps in flight, 1 or 2 */
    fleet_router router;
    uint64_t staleness_us; /* how old what a router knows may be; 0: it knows all at once */
    uint64_t slo_ttft_us,
        slo_itl_us; /* of a good request: of its mean time between tokens; 0: none */
    /* From a commit to the next plan, which the model of step times has in it; and what a request
     * takes outside of the engine, both ways, before its first token is read. */
    uint64_t host_us, http_us;
    uint64_t seed;                            /* of the router */
    bool audit;                               /* sched_audit after each call */
    void (*progress)(void *arg, double part); /* NULL: none; part of the arrivals, 0 to 1 */
    void *progress_arg;
} fleet_config;

/* Counts of microseconds, in buckets of 1/128. */
enum { TIMES_OCTAVE = 128, TIMES_BUCKETS = 48 * TIMES_OCTAVE };
typedef struct fleet_times {
    uint64_t n, max, bucket[TIMES_BUCKETS];
    double sum;
} fleet_times;
/* The time that a part of them, 0 to 1, does not exceed, to 0.8 %. 0 of none. */
double fleet_times_at(const fleet_times *, double part);

/* Use of KV blocks over the run: means of intervals of equal width. */
enum { KV_INTERVALS = 256 };
typedef struct fleet_kv {
    uint64_t width_us;
    uint32_t n; /* intervals until the end */
    double sum[KV_INTERVALS];
    uint32_t samples[KV_INTERVALS];
} fleet_kv;

typedef struct fleet_result {
    fleet_times ttft, itl, tpot, e2e; /* itl: of all gaps; tpot: the mean gap of each request */
    uint64_t n_ok, n_good, n_rejected, n_steps;
    uint64_t prompt_tokens, cached_tokens, output_tokens, recomputed_tokens, preemptions;
    uint64_t makespan_us;
    double kv_mean, kv_max; /* part of the blocks that are used, of samples while steps end */
    /* Of recurrent states; state_missed_tokens: of prompts, whose blocks were found and no state. */
    uint64_t checkpoints_written, checkpoints_evicted, state_missed_tokens;
    uint32_t state_most; /* slots of a replica that sequences and checkpoints had at once */
    fleet_kv kv;
} fleet_result;

/* arrivals: in order of at_us. Errors: ERR_INVALID, ERR_NO_MEMORY. */
status fleet_run(const fleet_config *, const fleet_arrival *, uint32_t n, fleet_result *,
                 err *);

#endif
