/* A file read past the page cache, where its file system allows it: what is read once and kept
 * elsewhere would push out what others need there, and cost a copy. Owns a descriptor; reads from any
 * thread. */
#ifndef VRAMD_MODEL_DIRECT_FILE_H
#define VRAMD_MODEL_DIRECT_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* What direct reads want of offsets, lengths and addresses. */
enum { DIRECT_ALIGN = 4096 };
/* What a buffer for n bytes at any offset takes. */
static inline uint64_t direct_buffer_bytes(uint64_t n) {
    return (n + DIRECT_ALIGN - 1) / DIRECT_ALIGN * DIRECT_ALIGN + DIRECT_ALIGN;
}

typedef struct direct_file {
    int fd;             /* -1: none */
    bool direct;        /* else through the page cache, which is then asked to drop it */
    uint64_t size;      /* when it was opened, ... */
    int64_t changed[2]; /* ... and its time of modification: seconds, nanoseconds */
} direct_file;

/* The file of a descriptor, which stays the caller's. Errors: ERR_IO. */
status direct_file_open(direct_file *out, int of, err *);
void direct_file_close(direct_file *);
/* n bytes from offset at on: *out is where in buffer they begin. buffer: direct_buffer_bytes(n) of them,
 * aligned to DIRECT_ALIGN. Errors: ERR_IO, also where the file is no longer as it was when it was
 * opened. */
status direct_file_read(const direct_file *, uint64_t at, uint64_t n, void *buffer, void **out,
                        err *);

#endif
