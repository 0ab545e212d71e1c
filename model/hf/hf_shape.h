/* The layers of several kinds of a model, from its config.json: config.shape (model/shape.h). */
#ifndef VRAMD_MODEL_HF_SHAPE_H
#define VRAMD_MODEL_HF_SHAPE_H

#include "json/in.h"

#include "model/config.h"

/* What the other numbers are read over: widths under names of the family's own. */
void hf_shape_defaults(model_config *, const json_t *);
/* Once the other numbers are read. type: the model_type. prefix of fields: "" or "text_config.".
 * Errors: ERR_INVALID, ERR_FORMAT, ERR_UNSUPPORTED (field: the member). */
status hf_shape_read(model_config *, const char *type, const json_t *, const char *prefix,
                     err *);

#endif
