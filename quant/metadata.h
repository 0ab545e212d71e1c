/* The keys of a GGUF file with a checkpoint's tensors in other types. */
#ifndef VRAMD_QUANT_METADATA_H
#define VRAMD_QUANT_METADATA_H

#include "model/checkpoint.h"
#include "quant/gguf_write.h"

/* general.file_type of a file whose matrices are mostly of the type (llama.cpp's numbers; without
 * a mixture: the S of its names); 1024 ("guessed") where none of these types is. */
uint32_t quant_file_type(dtype mostly);

/* Of a GGUF file: its keys as they are, but those of a split, then general.quantization_version and
 * general.file_type, as llama-quantize orders them. Of a folder: architecture, name and numbers of config.json,
 * vocabulary, chat templates and default sampling, with the names that llama.cpp's converter gives them.
 * Errors: those of model_config_read, ERR_NO_MEMORY. */
status quant_metadata(gguf_keys *, const checkpoint *, uint32_t file_type, err *);

#endif
