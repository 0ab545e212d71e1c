/* Terms of a model that no engine here runs: weights as they are stored and the KV cache by the
 * byte, arenas of a step by assumption. Pure; any thread. */
#ifndef VRAMD_ENGINE_ESTIMATE_H
#define VRAMD_ENGINE_ESTIMATE_H

#include "engine/engine.h"
#include "model/hf/hf_quant.h"

/* p: of model_from_mix. stored: how its files store quantised weights; NULL: the types of p. Lists
 * the terms of a CUDA device and of the host beside it (on_device), or of the CPU's memory.
 * Errors: ERR_INVALID, ERR_UNSUPPORTED (the option, by name). */
status estimate_terms(const program *p, const quant_scheme *stored, const engine_options *,
                      bool on_device, terms *, kv_request *, err *);

#endif
