/* A GGUF file's metadata and tensors as one JSON object. */
#ifndef VRAMD_API_INSPECT_H
#define VRAMD_API_INSPECT_H

#include "base/buf.h"
#include "model/gguf.h"

/* Arrays are given whole. Text that is no UTF-8 gets U+FFFD. */
void inspect_json(buf *, const gguf *);
/* One value as text; arrays as [first, second, ... N elements] with at most max elements (0:
 * all, as a JSON array). */
void inspect_value(buf *, const gguf_kv *, uint64_t max);

#endif
