/* offload = auto: whether weights in the host's memory are copied to the device for each step, or the CPU computes
 * with them. Which one is faster for a decode step of one sequence, by the two rates; steps of many rows are not
 * weighed. Decided before bytes are counted, since they lie there as the one that computes has them. */
#ifndef VRAMD_DAEMON_PLAN_PLAN_OFFLOAD_H
#define VRAMD_DAEMON_PLAN_PLAN_OFFLOAD_H

#include "daemon/machine.h"

/* Whether computing is faster. Rates in bytes per second; copied, computed: bytes of a step. */
bool offload_computes(double copied, double link, double computed, double host);
/* With auto, where anything may lie on the host: sets the engine's host_computes and m->opt.offload, so that later plans of the
 * machine have the same, and says why in the log. Rates: those of the wish; else the link's is that of the
 * card, and the host's is measured, or assumed for a card that is not here. */
void plan_offload(machine *, const machine_wish *);
/* Another plan of a machine has what was decided. */
void plan_offload_keep(const machine *of, options *);

#endif
