/* The sampling parameters of a request that gives none. Pure. */
#ifndef VRAMD_DAEMON_DEFAULT_SAMPLING_H
#define VRAMD_DAEMON_DEFAULT_SAMPLING_H

#include "conf/options.h"
#include "model/checkpoint.h"
#include "model/sampling.h"

/* Each parameter from the first place that gives it: the options (other than "auto"), the model
 * file (general.sampling.temp, .top_p, .top_k, .min_p and .penalty_repeat, which llama.cpp's
 * converter copies from generation_config.json), sampling_defaults. temperature is the default
 * of that parameter in the last place. file: NULL for a config.json. What the file gives outside
 * of a parameter's range is ignored. Errors: ERR_INVALID (field: the option). */
status default_sampling(sampling *out, const options *, const checkpoint *file,
                        float temperature, err *);

/* "temperature=0.6 top_p=0.95 top_k=20 min_p=0": for the log. */
void default_sampling_text(const sampling *, char *line, size_t cap);

#endif
