/* Files that a command writes its results to. Stateless. */
#ifndef VRAMD_DAEMON_OUTPUT_H
#define VRAMD_DAEMON_OUTPUT_H

#include "base/buf.h"
#include "base/err.h"

/* Before work that may take hours: makes the file; one that exists stays as it is. path NULL is fine.
 * Errors: ERR_IO. */
status output_check(const char *path, err *);
/* Errors: ERR_IO, ERR_NO_MEMORY (the buffer had failed). */
status output_write(const char *path, const buf *, err *);

#endif
