/* Where a model is computed: by the CPU's engine or by CUDA's, and what its memory's budget is.
 */
#ifndef VRAMD_DAEMON_ENGINE_CHOICE_H
#define VRAMD_DAEMON_ENGINE_CHOICE_H

#include "daemon/machine.h"

/* Sets backend, device, engine_opt's device and the budgets, from the options backend,
 * cuda_device, memory and host_memory. backend = auto takes CUDA where there is a plugin, a
 * driver and a device for each rank, and the ranks are of one machine. Errors (all but the last with backend = cuda):
 * ERR_UNSUPPORTED (ranks by messages), ERR_DEVICE (fewer devices than ranks), those of
 * cuda_backend_available, those of budget_parse. */
status engine_choose(machine *, const machine_wish *, err *);
/* backend = auto, and CUDA's engine does not serve this model (why): the CPU's shall try.
 * False where the choice was the operator's. */
bool engine_fall_back(machine *, const machine_wish *, const err *why);

#endif
