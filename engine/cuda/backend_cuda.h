/* The CUDA backend as the base binary knows it: the layout, and the plugin (vramd-cuda.so) that
 * is loaded when it is asked for. Nothing of CUDA is linked here. */
#ifndef VRAMD_ENGINE_CUDA_BACKEND_CUDA_H
#define VRAMD_ENGINE_CUDA_BACKEND_CUDA_H

#include "engine/cuda/plugin.h"

extern const backend backend_cuda;
/* The same of one rank of a group (engine_options.group): rank 0 posts the steps that others follow. */
extern const backend backend_cuda_ranks;

/* Is there a plugin, a driver and the device that the options name? Fills *out. Takes no device
 * memory. Errors, one clear line each: ERR_NOT_FOUND (no plugin; field cuda_plugin),
 * ERR_UNSUPPORTED (one of another version, too old a device), ERR_DEVICE (no driver, too old a
 * driver, no device). */
status cuda_backend_available(const engine_options *, cuda_device *out, err *);

/* Tests: this function instead of a plugin that is loaded; NULL: load again. */
void cuda_backend_use(vramd_cuda_plugin_function *);

#endif
