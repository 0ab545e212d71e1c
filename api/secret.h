/* Files that hold secrets: keys of clients, the key of a certificate. */
#ifndef VRAMD_API_SECRET_H
#define VRAMD_API_SECRET_H

#include <stdio.h>

#include "base/err.h"

/* Opens it to be read. field: the option that names it. Errors: ERR_NOT_FOUND, ERR_IO,
 * ERR_INVALID (no plain file, everybody may read it, more than max_bytes). */
status secret_open(FILE **out, const char *path, long max_bytes, const char *field, err *);
/* After its end was read: whether it has still that end. Errors: ERR_IO, ERR_INVALID. */
status secret_steady(FILE *, const char *path, const char *field, err *);

#endif
