/* A reference of vramd eval as a file: records by their index, read or written in any order. What
 * is written becomes visible under its name only when it is whole. Main thread. */
#ifndef VRAMD_DAEMON_EVAL_FILE_H
#define VRAMD_DAEMON_EVAL_FILE_H

#include "daemon/eval/eval_ref.h"

typedef struct eval_file {
    int fd;                         /* -1: none */
    char path[256], temporary[272]; /* temporary: "" when reading, and once it is finished */
    eval_header header;
} eval_file;

/* Reads and checks the header. Errors: ERR_NOT_FOUND, ERR_IO, and those of eval_header_check, with
 * the path in front. */
status eval_file_open(eval_file *out, const char *path, err *);
/* Errors: ERR_IO, those of eval_record_check. */
status eval_file_read(const eval_file *, uint64_t index, eval_record *out, err *);

/* Creates path.XXXXXX, so that a folder that cannot be written is found out now. Errors: ERR_IO. */
status eval_file_create(eval_file *out, const char *path, err *);
status eval_file_write(eval_file *, uint64_t index, const eval_record *, err *);
/* Writes f->header, sealed, and gives the file its name. */
status eval_file_finish(eval_file *, err *);

/* Deletes what was not finished. One of all zero, or with fd -1, is fine. */
void eval_file_close(eval_file *);

#endif
