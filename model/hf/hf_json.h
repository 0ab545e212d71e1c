/* The JSON files of a Hugging Face folder. */
#ifndef VRAMD_MODEL_HF_JSON_H
#define VRAMD_MODEL_HF_JSON_H

#include "json/in.h"

/* Reads a file of at most `most` bytes, which dir (an open folder) has under that name.
 * *out in mem. Errors: ERR_NOT_FOUND, ERR_IO, ERR_INVALID (too long, no regular file), ERR_NO_MEMORY;
 * field: the name. */
status hf_read_text(str *out, int dir, const char *name, size_t most, arena *mem, err *);
/* Parses it into mem; a member that stands twice in an object is refused. Errors: ERR_INVALID (where),
 * ERR_NO_MEMORY; field: the name. */
status hf_parse_json(const json_t **out, str text, const char *name, arena *mem, err *);
/* Both; where there is no such file, *out is NULL and the result OK. */
status hf_read_json(const json_t **out, int dir, const char *name, size_t most, arena *mem,
                    err *);

#endif
