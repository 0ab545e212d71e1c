/* Which weights of a model the CUDA engine leaves in the host's memory, and where they come to on the
 * device, where the CPU does not compute with them (hosting.h). Of a host layer all matrices lie there; of a layer whose experts do, theirs. Host layers are
 * spread evenly among the others, so that their copies have the time in which those compute. Vectors,
 * the embedding and the output matrix stay on the device.
 *
 * Each layer of which anything lies on the host is one copy of a step, to slot i % CUDA_STAGES for the
 * i-th of them. Up to CUDA_STAGES of them would fill as many slots: they stay on the device. Pure;
 * any thread. */
#ifndef VRAMD_ENGINE_CUDA_STAGING_H
#define VRAMD_ENGINE_CUDA_STAGING_H

#include "engine/arrange.h"
#include "engine/cuda/layout.h"

/* Whether the options want that weight on the host, copied from there or computed there. */
bool staging_wants(const program *, const engine_options *, const weight *);
/* Layers of which the options want anything there that is copied, less those that stay since they are few. */
uint32_t staging_count(const program *, const engine_options *);
/* Sets `staged` of each place, and layout.staged but for what staging_place sets. Errors: ERR_UNSUPPORTED
 * (operations of two layers read a weight), ERR_NO_MEMORY. */
status staging_choose(cuda_layout *, const program *, const engine_options *, err *);
/* Once places have bytes: the slots behind what s has, and where staged places lie in them. */
void staging_place(cuda_layout *, sizer *s);
/* The slots and the host's memory as terms; p names the weights. */
void staging_terms(const cuda_layout *, const program *, terms *);

#endif
