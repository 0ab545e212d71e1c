/* Better words for a path that could not be opened as a checkpoint. */
#ifndef VRAMD_MODEL_CHECKPOINT_EXPLAIN_H
#define VRAMD_MODEL_CHECKPOINT_EXPLAIN_H

#include "base/err.h"

/* e: why opening path failed. Where the path is a name on a hub, a URL, a directory, or a
 * safetensors, PyTorch or Git LFS file, *e says so and what to do; otherwise it is left alone.
 * Returns e->code. */
status checkpoint_explain(const char *path, err *e);

#endif
