/* A model that is planned from its config.json, without its weights. Main thread. */
#ifndef VRAMD_DAEMON_PLANNED_MODEL_H
#define VRAMD_DAEMON_PLANNED_MODEL_H

#include "daemon/machine.h"

/* Sets model and, where vramd cannot serve it, not_served and stored. weights: a type, a mixture
 * ("Q4_K_M") or a scheme ("FP8", "AWQ"); NULL: as the config says. Errors: those of
 * hf_config_load and of model_from_mix; ERR_INVALID (field "weights"). */
status planned_model_open(machine *, const char *path, const char *weights, err *);
/* The terms of a model that the engine refuses with why, or whose weights none loads (why NULL). */
status planned_model_terms(machine *, terms *, kv_request *, const err *why, err *);

#endif
