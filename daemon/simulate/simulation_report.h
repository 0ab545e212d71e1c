/* What a simulation gave, on stdout. Every line says that it is simulated. Pure but for stdout. */
#ifndef VRAMD_DAEMON_SIMULATION_REPORT_H
#define VRAMD_DAEMON_SIMULATION_REPORT_H

#include "daemon/simulate/simulation.h"

/* wall_s: how long the run took. json: one object, "schema": "vramd-simulate", "version": 1. */
void simulation_print(const simulation *, const fleet_result *, double wall_s, bool json);
/* rate: requests/s, ascending. */
void simulation_print_capacity(const simulation *, const double rate[CAPACITY_SEEDS],
                               bool json);

#endif
