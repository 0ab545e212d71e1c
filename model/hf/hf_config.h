/* The numbers of a model from a Hugging Face config.json, so that it can be planned without
 * having it. Models: those in the table of model/family.c. */
#ifndef VRAMD_MODEL_HF_CONFIG_H
#define VRAMD_MODEL_HF_CONFIG_H

#include "model/hf/hf_packed.h"
#include "model/hf/hf_quant.h"

enum { HF_MAX_CONFIG = 1 << 20 }; /* bytes of a config.json */

typedef struct hf_config {
    model_config config;
    dtype type;         /* torch_dtype; BF16 where it does not say */
    quant_scheme quant; /* quantization_config; bits 0: none */
    hf_scheme scheme;   /* how its quantised weights are loaded; packing NONE: there are none */
    err not_loaded;     /* why they are not; code OK: they are */
    bool text_part;     /* it has a text_config: other parts (vision) are not counted */
} hf_config;

/* Errors: ERR_NOT_FOUND, ERR_IO, ERR_INVALID (no JSON, or a member of a wrong type or range:
 * field), ERR_FORMAT (a member is missing or contradicts another: field), ERR_UNSUPPORTED
 * (model_type, rope_scaling, quant_method, ..., by name), ERR_NO_MEMORY. Where the field is in
 * quantization_config, config, type and text_part are set. */
status hf_config_load(hf_config *out, const char *path, err *);
/* The same from text, and from what was parsed. */
status hf_config_parse(hf_config *out, str text, err *);
status hf_config_of(hf_config *out, const json_t *, err *);

#endif
