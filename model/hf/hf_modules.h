/* What sentence-transformers puts behind a model: modules.json, and the config of its pooling. */
#ifndef VRAMD_MODEL_HF_MODULES_H
#define VRAMD_MODEL_HF_MODULES_H

#include "base/arena.h"
#include "model/config.h"

/* Sets pooling_type of the config by modules.json of the open folder dir; an encoder without that file
 * has the mean, as sentence-transformers has it, or the rank of its classifier. Errors: ERR_UNSUPPORTED
 * (field: the member; a pooling or a module that is not computed), ERR_FORMAT, ERR_INVALID, ERR_IO. */
status hf_modules_read(model_config *, int dir, arena *scratch, err *);

#endif
