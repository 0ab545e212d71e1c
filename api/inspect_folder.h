/* What the small files of a folder of safetensors say, as inspect.h does for a GGUF file's metadata. */
#ifndef VRAMD_API_INSPECT_FOLDER_H
#define VRAMD_API_INSPECT_FOLDER_H

#include "base/buf.h"
#include "model/checkpoint.h"

/* A line for each member of config.json, generation_config.json and tokenizer_config.json, objects within
 * them by "outer.inner", then one for each fact that was made of the vocabulary and the templates.
 * Errors: those of hf_folder_json. */
status inspect_folder_lines(buf *, const checkpoint *, uint64_t n, uint64_t text_bytes, err *);
/* The same, nothing shortened, as an object with a member for each file, and for each fact by its key. */
status inspect_folder_json(buf *, const checkpoint *, err *);

#endif
