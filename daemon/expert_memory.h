/* The option expert_memory: how many experts of a mixture are in memory at once. */
#ifndef VRAMD_DAEMON_EXPERT_MEMORY_H
#define VRAMD_DAEMON_EXPERT_MEMORY_H

#include "daemon/machine.h"

/* Of a machine whose engine is chosen: slots that the option asks for, 0 where all experts are in memory,
 * and the experts that the engine could have in slots (n_layers 0: none). automatic: slots may be as many
 * as the budget holds, where it does not hold all experts. Errors: ERR_INVALID (the value),
 * ERR_UNSUPPORTED (the engine or the model has no such slots). */
status expert_memory_slots(const machine *, expert_shape *out, uint32_t *slots, bool *automatic,
                           err *);
/* The plan with as many slots as the budget holds, at least two. Errors: of solve. */
status expert_memory_solve(machine *, const machine_wish *, const expert_shape *,
                           machine_solver solve, err *);

#endif
