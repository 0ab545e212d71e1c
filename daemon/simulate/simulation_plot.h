/* Simulations at several loads as one SVG picture. */
#ifndef VRAMD_DAEMON_SIMULATION_PLOT_H
#define VRAMD_DAEMON_SIMULATION_PLOT_H

#include "base/buf.h"
#include "daemon/simulate/simulation.h"

/* Times and throughput at 0.2 to 1.2 of the rate, and the use of the KV cache at the rate. rate 0:
 * likewise of the trace's speed. Errors: ERR_NO_MEMORY, ERR_INVALID. */
status simulation_plot(const simulation *, double rate, buf *out, err *);

#endif
