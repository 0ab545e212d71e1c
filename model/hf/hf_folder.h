/* A model as it is published: a folder with config.json, safetensors files and tokenizer.json, as a
 * checkpoint. Tensors have GGUF's names and order of rows, so that the same program reads them and
 * computes the same bits as with a GGUF file of the same numbers. */
#ifndef VRAMD_MODEL_HF_FOLDER_H
#define VRAMD_MODEL_HF_FOLDER_H

#include "model/checkpoint.h"

/* Whether path names such a model: a folder with a config.json and without a .gguf file, a
 * .safetensors file, or a model.safetensors.index.json. */
bool hf_folder_is(const char *path);
/* Reads the headers only. Errors: ERR_NOT_FOUND and ERR_IO (a file), ERR_FORMAT and ERR_INVALID (field:
 * the file, member or tensor at fault), ERR_UNSUPPORTED (the family, a quantised checkpoint, files of
 * pickles, by name), ERR_NO_MEMORY. */
status hf_folder_open(checkpoint **out, const char *path, err *);
/* Vocabulary, chat templates and default sampling; NULL: a checkpoint of another format. */
const struct facts *hf_folder_facts_of(const checkpoint *);

#endif
