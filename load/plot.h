/* A finished run as one SVG picture: throughput, TTFT and ITL, over the levels where there are
 * several, else over the time of the one. */
#ifndef VRAMD_LOAD_PLOT_H
#define VRAMD_LOAD_PLOT_H

#include "load/driver.h"

/* m: one summary for each of run->n levels. ERR_NO_MEMORY. */
status load_plot(buf *out, const load_run *run, const load_summary *m, err *);

#endif
