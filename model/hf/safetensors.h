/* One file of safetensors: names, types, shapes and places of its tensors, checked before use, and
 * bounded reads of them. Source: the format's description and what its own library accepts
 * (safetensors 0.8); unlike it, a duplicate name is refused. Nothing is mapped.
 *
 * Immutable after open; reads from any thread. */
#ifndef VRAMD_MODEL_SAFETENSORS_H
#define VRAMD_MODEL_SAFETENSORS_H

#include <time.h>

#include "base/arena.h"
#include "base/err.h"
#include "model/dtype.h"

enum {
    SAFETENSORS_MAX_HEADER = 64 << 20, /* bytes */
    SAFETENSORS_MAX_TENSORS = 1 << 20,
    SAFETENSORS_MAX_DIMS = 8
};

typedef struct safetensor {
    const char *name;
    dtype type;         /* DT_NONE: a type that no engine computes with */
    const char *stored; /* its name in the file: "BF16", "U8" */
    uint32_t n_dims;
    uint64_t dim[SAFETENSORS_MAX_DIMS]; /* the last varies fastest */
    uint64_t offset, bytes;             /* offset from the start of the file */
} safetensor;

typedef struct safetensors {
    const char *path; /* borrowed */
    int fd;
    uint64_t file_bytes;
    struct timespec written;
    safetensor *tensor; /* [n], sorted by name */
    uint32_t n;
} safetensors;

/* Takes over fd, also on error. path: what errors call the file; borrowed. mem holds the tensors, and
 * their names. Errors: ERR_IO, ERR_FORMAT (field: what is wrong in the file), ERR_NO_MEMORY. */
status safetensors_open(safetensors *out, int fd, const char *path, arena *mem, err *);
void safetensors_close(safetensors *);
/* NULL: absent. */
const safetensor *safetensors_find(const safetensors *, const char *name);
/* Reads n bytes of a tensor from offset on. Errors: ERR_IO (the file shrank, ...). */
status safetensors_read(const safetensors *, const safetensor *, uint64_t offset, void *dst,
                        uint64_t n, err *);
/* Errors: ERR_IO: size or time of modification is another than at open. */
status safetensors_unchanged(const safetensors *, err *);

#endif
