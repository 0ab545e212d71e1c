/* What vramd simulate runs: replicas of a server (sim/fleet.h), a model of the time of their steps,
 * and requests from a trace or made with a seed. Times are simulated. One thread. */
#ifndef VRAMD_DAEMON_SIMULATION_H
#define VRAMD_DAEMON_SIMULATION_H

#include "daemon/plan/plan_speed.h"
#include "load/trace.h"
#include "sim/fleet.h"

typedef struct simulation {
    fleet_config fleet;
    char source[200];        /* of the cost model; fit for JSON */
    char tag[80];            /* of each line: seed, and in short the source */
    fleet_scatter *scatter;  /* of the steps that were not fitted; owned */
    double error;            /* of it, mean absolute and relative; negative: not known */
    load_trace trace;        /* lengths, and with rate 0 times; owned */
    uint32_t prompt, output; /* without a trace: lengths */
    double rate;             /* requests a second, Poisson; 0: the trace's times */
    double speed;            /* of the trace */
    uint32_t n;              /* requests; 0: those of the trace, or 1,000 */
    uint64_t seed;
    bool progress; /* a bar on stderr */
} simulation;

/* name: of the log's file. Limits and costs as a server had them: costs by the fit of scheduler/cost.h to every second
 * step, with its error on the steps between, and the scatter of those. Errors: ERR_FORMAT, ERR_INVALID (too few steps). */
status simulation_of_log(simulation *, str log, const char *name, err *);
/* Of a plan, and costs by the bandwidth of the memory and operations a second, assumed. Errors:
 * ERR_INVALID (a bandwidth that is not known). */
status simulation_of_plan(simulation *, const machine *, double bandwidth, double operations,
                          err *);
/* One run with rate and seed of its own. doing: what the bar says. */
status simulation_run(const simulation *, double rate, uint64_t seed, const char *doing,
                      fleet_result *, err *);

enum { CAPACITY_SEEDS = 5 };
/* The rate up to which the p99 of the first token and of the gaps keep the objectives, by bisection
 * to 2 %, for each seed from s->seed on; in ascending order. 0: not even one request at a time. */
status simulation_capacity(const simulation *, double rate[CAPACITY_SEEDS], err *);
/* The host's time between two steps: of the steps that a log has timed, or added to assumed ones. */
void simulation_set_host(simulation *, uint64_t us);
void simulation_clear(simulation *);

#endif
