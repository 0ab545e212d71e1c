/* Rows of one tensor, read where the files of a model lie, also when its checkpoint is closed. */
#ifndef VRAMD_MODEL_CHECKPOINT_ROWS_H
#define VRAMD_MODEL_CHECKPOINT_ROWS_H

#include "model/checkpoint.h"

typedef struct checkpoint_rows {
    int fd;             /* owned; -1: none */
    uint64_t at, bytes; /* where the first row begins in the file; bytes of a row */
    char name[72];      /* of the tensor */
} checkpoint_rows;

/* Errors: ERR_UNSUPPORTED: the format does not store the rows as they are read; ERR_IO. */
status checkpoint_rows_open(checkpoint_rows *out, const checkpoint *, size_t tensor, err *);
void checkpoint_rows_close(checkpoint_rows *);
/* One row as stored. dst: bytes of it. Any thread. Errors: ERR_IO. */
status checkpoint_rows_read(const checkpoint_rows *, uint64_t row, void *dst, err *);

#endif
