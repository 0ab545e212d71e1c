/* The numbers of a model from a Hugging Face config.json, so that it can be planned without
 * having it. Families: llama, mistral, qwen2. */
#ifndef VRAMD_API_HF_CONFIG_H
#define VRAMD_API_HF_CONFIG_H

#include "model/config.h"

/* Errors: ERR_NOT_FOUND, ERR_IO, ERR_INVALID (no JSON, or a member of a wrong type or range:
 * field), ERR_FORMAT (a member is missing: field), ERR_UNSUPPORTED (model_type, by name). */
status hf_config_load(model_config *out, const char *path, err *);

#endif
