/* The options gpu_layers, n_cpu_moe and offload: which layers have their matrices in a device's memory, and which
 * in the host's, from where they come for each step (engine/cuda/staging.h), or where the CPU computes with them
 * (engine/cuda/hosting.h). Pure but for the log; any thread. */
#ifndef VRAMD_DAEMON_GPU_LAYERS_H
#define VRAMD_DAEMON_GPU_LAYERS_H

#include "daemon/machine.h"

/* Sets m->layers_auto and the engine's options host_layers, host_experts and host_computes from m->opt. auto: none on the host, for
 * now. Errors: ERR_INVALID (field gpu_layers; the text has the range). */
status gpu_layers_read(machine *, err *);
/* Whether the CPU computes a part of each step for the device. Once the number of layers is known. */
bool gpu_layers_computed(const machine *);
/* Says in the log what auto found, and what of the options has no effect: more layers than there are, the CPU's
 * engine. Once the plan is solved. */
void gpu_layers_log(const machine *);
/* gpu_layers as the number that the machine has. */
void gpu_layers_fix(const machine *, options *);
/* Another plan of a machine whose layers are all on the device by gpu_layers = auto has them there, too: what is
 * asked for beside them then fits or does not. */
void gpu_layers_keep(const machine *of, options *);
/* Solves by solve, with as many layers on the host as the engine's options say. With gpu_layers = auto, where those are too
 * few for the device's budget: with the fewest with which it fits and the KV cache has the kv_cache_tokens that are asked for. Errors: as
 * solve; where no number of layers fits, that of all layers on the device. */
status gpu_layers_solve(machine *, const machine_wish *, machine_solver solve, err *);

#endif
