/* The patterns of modules in a quantization_config. Pure; any thread. */
#ifndef VRAMD_MODEL_HF_PATTERN_H
#define VRAMD_MODEL_HF_PATTERN_H

#include <stdbool.h>

/* Whether text names the module called name ("model.layers.3.mlp.gate_proj"). Plain text does
 * where it is a run of whole components of the name, a component "*" being any; after "re:" (or
 * GPTQModel's "-:") stands a regular expression, which matches as Python's re.match does. Of those:
 * characters, . [] \d \w, * + ?, and groups with alternatives that are not repeated. *known is
 * false for any other. */
bool hf_pattern_matches(const char *text, const char *name, bool *known);

#endif
