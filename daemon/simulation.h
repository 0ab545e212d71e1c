/* What vramd simulate runs: replicas of a server (sim/fleet.h), a model of the time of their steps,
 * and requests from a trace or made with a seed. Times are simulated. One thread. */
#ifndef VRAMD_DAEMON_SIMULATION_H
#define VRAMD_DAEMON_SIMULATION_H

#include "daemon/plan_speed.h"
#include "load/trace.h"
#include "sim/fleet.h"

typedef struct simulation {
    fleet_config fleet;
    char source[200];        /* of the cost model */
    double error;            /* of it, mean absolute and relative; negative: not known */
    load_trace trace;        /* lengths, and with rate 0 times; owned */
    uint32_t prompt, output; /* without a trace: lengths */
    double rate;             /* requests a second, Poisson; 0: the trace's times */
    double speed;            /* of the trace */
    uint32_t n;              /* requests; 0: those of the trace, or 1,000 */
    uint64_t seed;
} simulation;

/* Limits and costs as a server had them: costs by the fit of scheduler/cost.h to the first half of the
 * steps, with its error on the second half. Errors: ERR_FORMAT, ERR_INVALID (too few steps). */
status simulation_of_log(simulation *, str log, err *);
/* Of a plan, and costs by the bandwidth of the memory and operations a second, assumed. Errors:
 * ERR_INVALID (a bandwidth that is not known). */
status simulation_of_plan(simulation *, const machine *, double bandwidth, double operations,
                          err *);
/* One run with rate and seed of its own. */
status simulation_run(const simulation *, double rate, uint64_t seed, fleet_result *, err *);

enum { CAPACITY_SEEDS = 5 };
/* The rate up to which the p99 of the first token and of the gaps keep the objectives, by bisection
 * to 2 %, for each seed from s->seed on; in ascending order. 0: not even one request at a time. */
status simulation_capacity(const simulation *, double rate[CAPACITY_SEEDS], err *);
void simulation_clear(simulation *);

#endif
