/* A model as it is published: a folder with config.json, safetensors files and tokenizer.json, as a
 * checkpoint. Tensors have GGUF's names and order of rows, so that the same program reads them and
 * computes the same bits as with a GGUF file of the same numbers. */
#ifndef VRAMD_MODEL_HF_FOLDER_H
#define VRAMD_MODEL_HF_FOLDER_H

#include "json/in.h"
#include "model/checkpoint.h"
#include "model/facts.h"

/* Whether path names such a model: a folder with a config.json and without a .gguf file, a
 * .safetensors file, or a model.safetensors.index.json. */
bool hf_folder_is(const char *path);
/* Reads the headers only. Errors: ERR_NOT_FOUND and ERR_IO (a file), ERR_FORMAT and ERR_INVALID (field:
 * the file, member or tensor at fault), ERR_UNSUPPORTED (the family, a quantised checkpoint, files of
 * pickles, by name), ERR_NO_MEMORY. */
status hf_folder_open(checkpoint **out, const char *path, err *);
/* The path of the config.json that belongs to a path of hf_folder_is. False: no space. */
bool hf_folder_config_path(const char *path, char *out, size_t cap);

/* NULL: a checkpoint of another format. */
const facts *hf_folder_facts_of(const checkpoint *);
/* Whether its files have fixed scales of activations, which are not used. */
bool hf_folder_has_input_scales(const checkpoint *);
/* One of its small files, of at most 8 MiB, parsed into the arena; *out NULL: it has none of that name.
 * Errors: ERR_IO, ERR_INVALID, ERR_NO_MEMORY. */
status hf_folder_json(const json_t **out, const checkpoint *, const char *name, arena *, err *);

#endif
