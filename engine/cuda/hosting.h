/* Which operations of a model the CPU computes for the CUDA engine (engine_options.host_computes), and how their
 * values cross. Those that have the matrices of host layers, or the experts of them, and only such: attention,
 * the KV cache, recurrent states, routers and matrices of few outputs stay on the device. So the host has no
 * KV cache, and whole layers and experts alone are one mechanism.
 *
 * Operations of the CPU that follow one another are a run, together with what lies between two of them and
 * goes row by row (a norm): of a dense model whose layers are all on the host a layer is one run, from the
 * matrix behind attention to q, k and v of the next layer. For a run the values that it reads come to pinned
 * memory of the host; the CPU computes; and what others read of it goes back. All of this is work of the
 * device's stream, in order, so that all runs share one piece of that memory.
 *
 * The CPU's program (hosting_cut) is made of these runs, and an engine of its own (engine/cpu/part.h) runs it. A
 * weight that the CPU's operations alone read is not on the device. Pure; any thread. */
#ifndef VRAMD_ENGINE_CUDA_HOSTING_H
#define VRAMD_ENGINE_CUDA_HOSTING_H

#include "engine/cuda/layout.h"

/* Sets aside.on_host and weights.absent, once it is known which weights are narrow. */
void hosting_choose(cuda_layout *, const program *, const engine_options *);
/* Runs, crossings and the CPU's program, once values have forms. Errors: ERR_NO_MEMORY; ERR_UNSUPPORTED,
 * ERR_INVALID: the CPU engine does not run that. */
status hosting_cut(cuda_layout *, const program *, const engine_options *, err *);
void hosting_clear(cuda_layout *);
/* The options of the engine that runs the CPU's program. */
engine_options hosting_options(const engine_options *);
/* What that engine allocates. */
void hosting_terms(const cuda_layout *, const engine_options *, terms *);
/* Bytes of the matrices that the CPU reads for a step. */
uint64_t hosting_bytes(const cuda_layout *);

#endif
