/* A GGUF file's metadata and tensors as one JSON object. */
#ifndef VRAMD_API_INSPECT_H
#define VRAMD_API_INSPECT_H

#include "base/buf.h"
#include "model/gguf/gguf.h"

/* Nothing is shortened. Text that is no UTF-8 gets U+FFFD; what a terminal would obey (control
 * characters, changes of direction) is escaped, here and below. */
void inspect_json(buf *, const gguf *);
/* The same of a checkpoint of any format; tensors have the names of GGUF. metadata: a JSON value. */
void inspect_checkpoint_json(buf *, const checkpoint *, str metadata);
/* One value for a person: at most n elements of an array, as [first, second, ... N elements],
 * and about text_bytes bytes of a string, as "beginning" ... N bytes. */
void inspect_value(buf *, const gguf_kv *, uint64_t n, uint64_t text_bytes);
/* A text in quotes. */
void inspect_text(buf *, str);

#endif
